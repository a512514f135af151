// SPDX-License-Identifier: MIT
// What the passes of grouping left in counts, see group_scan.comp. Included after buffers.glsl; the
// kernel's parameters are gather_params p.
uint grouped_end()
{
    uint n_blocks = (token_count() * p.top_k + MOE_GROUP_BLOCK - 1) / MOE_GROUP_BLOCK;
    return p.counts + n_blocks * p.n_experts;
}

// Rows of all experts.
uint grouped_total()
{
    return routing(grouped_end());
}

// The first row of an expert, or the number of all rows for n_experts. Without tokens there is no
// block that says so.
uint grouped_offset(uint e)
{
    return routing(e < p.n_experts && token_count() > 0 ? p.counts + e : grouped_end());
}
