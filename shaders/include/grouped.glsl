// SPDX-License-Identifier: MIT
// What the passes of grouping left, see group_scatter.comp. Included after buffers.glsl; the
// kernel's parameters have p.offsets and p.n_experts.

// The first row of an expert, or the number of all rows for n_experts.
uint grouped_offset(uint e)
{
    return routing(p.offsets + e);
}

uint grouped_total()
{
    return grouped_offset(p.n_experts);
}
