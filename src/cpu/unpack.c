// SPDX-License-Identifier: MIT
// Weights back from their panels.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "core/dtype.h"
#include "core/quant.h"

#include <string.h>

// A row of k values from its panel, block by block.
static void unpack_row(enum vkmoe_dtype type, const char *panel, uint32_t row, uint32_t k,
                       float *to)
{
    const struct cpu_panel_block b = moe_cpu_panel_block(type);
    char block[MOE_MAX_BLOCK_SIZE];
    for (uint32_t i = 0; i < k; i += b.n_values, panel += b.size * CPU_PANEL) {
        moe_cpu_take_block(type, panel, row, block);
        moe_dtype_decode(type, block, moe_min(k - i, b.n_values), to + i);
    }
}

// A matrix (n_out, k) from its panels, `stride` bytes from one to the next; `to` NULL: not wanted.
static void unpack_panels(enum vkmoe_dtype type, const char *from, uint64_t stride, uint32_t n_out,
                          uint32_t k, float *to)
{
    for (uint32_t row = 0; to && row < n_out; row++, to += k)
        unpack_row(type, from + row / CPU_PANEL * stride, row % CPU_PANEL, k, to);
}

static void copy(const void *from, uint32_t n, float *to)
{
    if (to)
        memcpy(to, from, n * sizeof *to);
}

enum vkmoe_status moe_cpu_read_expert(struct moe_packed_weights *weights, uint32_t expert,
                                      const vkmoe_expert_grads *out)
{
    const struct cpu_weights *w = (const struct cpu_weights *) weights;
    const bool is_shared = expert == VKMOE_SHARED_EXPERT;
    const struct cpu_expert_layout *l = is_shared ? &w->shared : &w->routed;
    const char *block = is_shared ? w->shared_expert : w->experts + expert * l->size;
    const uint64_t stride = (l->gated ? 2 : 1) * l->in_panel_size;
    unpack_panels(l->in_type, block, stride, l->d_ff, l->d_in, out->gate);
    unpack_panels(l->in_type, block + (l->gated ? l->in_panel_size : 0), stride, l->d_ff,
                  l->d_in, out->up);
    unpack_panels(l->out_type, block + l->out_panels, l->out_panel_size, l->d_out, l->d_ff,
                  out->down);
    copy(block + l->gate_bias, l->d_ff, out->gate_bias);
    copy(block + l->up_bias, l->d_ff, out->up_bias);
    copy(block + l->out_bias, l->d_out, out->down_bias);
    return VKMOE_OK;
}

enum vkmoe_status moe_cpu_read_router(struct moe_packed_weights *weights,
                                      const struct moe_router_copy *out)
{
    const struct cpu_weights *w = (const struct cpu_weights *) weights;
    const vkmoe_layer_desc *desc = &weights->layer.desc;
    const uint32_t n = desc->n_experts, d_model = desc->d_model;
    const uint64_t panel = (uint64_t) d_model * CPU_PANEL;
    unpack_panels(VKMOE_F32, (const char *) w->router, panel * sizeof(float), n, d_model,
                  out->weight);
    if (out->shared_gate) // one more output
        unpack_panels(VKMOE_F32,
                      (const char *) (w->router + n / CPU_PANEL * panel + n % CPU_PANEL), 0, 1,
                      d_model, out->shared_gate);
    copy(w->router_bias, n, out->bias);
    copy(w->selection_bias, n, out->selection_bias);
    return VKMOE_OK;
}
