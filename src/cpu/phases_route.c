// SPDX-License-Identifier: MIT
// From x to each token's experts.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "core/dtype.h"
#include "cpu/act.h"
#include "cpu/route.h"

#include <string.h>

// ---- router rows: what the router reads, where that is neither x nor the caller's ------------

uint32_t moe_cpu_router_rows_prepare(struct cpu_bind *bind)
{
    enum { ELEMENTS = 16384 }; // in one task
    return moe_cpu_cut_tokens(bind, ELEMENTS, moe_cpu_bind_layer(bind)->d_model);
}

void moe_cpu_router_rows_task(struct cpu_bind *bind, uint32_t i)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const uint32_t d_model = layer->d_model;
    const struct cpu_range tokens = moe_cpu_block(bind, i);
    const struct cpu_values *x = &bind->x.as[CPU_OPERAND_F32];
    for (uint32_t t = tokens.begin; t < tokens.end; t++) {
        float *row = (float *) (bind->router_rows + t * bind->router_x_stride);
        if (layer->router_input)
            moe_dtype_decode(bind->base.program->x_type,
                             (const char *) bind->io->router_x +
                                 (size_t) t * bind->io->router_x_stride, d_model, row);
        else
            memcpy(row, x->rows + (size_t) t * x->stride, d_model * sizeof *row);
        if (layer->router_prenorm)
            moe_cpu_rms_norm(layer->prenorm_eps, moe_cpu_bind_weights(bind)->prenorm_scale,
                             layer->prenorm_const, row, d_model);
    }
}

// ---- logits: x times the router's panels -----------------------------------------------------

static uint32_t logits_stride(const struct cpu_bind *bind)
{
    return moe_cpu_bind_weights(bind)->n_router_panels * CPU_PANEL;
}

// Of many tokens, tasks have pairs of panels where two at once are faster.
uint32_t moe_cpu_logits_prepare(struct cpu_bind *bind)
{
    const uint32_t n_panels = moe_cpu_bind_weights(bind)->n_router_panels;
    enum { SLOW = 4, MANY = 16 }; // weights of f32 are waited for when there are few tokens
    const uint64_t macs = SLOW * CPU_PANEL * (uint64_t) moe_cpu_bind_layer(bind)->d_model;
    const bool pairs = bind->kernels->pair[CPU_OPERAND_F32][VKMOE_F32] && bind->n_tokens > MANY;
    const uint32_t unit = pairs ? 2 : 1;
    bind->grid = moe_cpu_grid(bind->n_tokens, CPU_TILE_ROWS, (uint32_t) moe_div_up(n_panels, unit),
                              unit * macs);
    bind->grid.n_panels = n_panels;
    bind->grid.block_panels *= unit;
    return bind->grid.n_tiles * bind->grid.n_blocks;
}

static void store_logits(const struct cpu_bind *bind, struct cpu_range tokens, uint32_t panel,
                         const float *sums)
{
    const float *bias = moe_cpu_bind_weights(bind)->router_bias + (size_t) panel * CPU_PANEL;
    const uint32_t stride = logits_stride(bind);
    float *logits = bind->logits + (size_t) tokens.begin * stride + panel * CPU_PANEL;
    for (uint32_t t = tokens.begin; t < tokens.end; t++, logits += stride, sums += CPU_PANEL)
        for (uint32_t c = 0; c < CPU_PANEL; c++)
            logits[c] = sums[c] + bias[c];
}

void moe_cpu_logits_task(struct cpu_bind *bind, uint32_t i)
{
    const struct cpu_kernels *kernels = bind->kernels;
    const uint32_t d_model = moe_cpu_bind_layer(bind)->d_model;
    const size_t panel_size = (size_t) d_model * CPU_PANEL;
    const struct cpu_range tokens = moe_cpu_grid_rows(&bind->grid, i);
    const struct cpu_range panels = moe_cpu_grid_panels(&bind->grid, i);
    const uint32_t n_rows = tokens.end - tokens.begin;
    const void *x[CPU_TILE_ROWS];
    _Alignas(64) float out[2][CPU_TILE_ROWS * CPU_PANEL];

    for (uint32_t r = 0; r < n_rows; r++)
        x[r] = bind->router_x + (size_t) (tokens.begin + r) * bind->router_x_stride;
    for (uint32_t p = panels.begin, n; p < panels.end; p += n) {
        const float *w = moe_cpu_bind_weights(bind)->router + p * panel_size;
        n = kernels->pair[CPU_OPERAND_F32][VKMOE_F32] && panels.end - p >= 2 ? 2 : 1;
        if (bind->counts)
            moe_cpu_count(&bind->counts->router_loads, n * panel_size * sizeof *w);
        if (n == 2)
            kernels->pair[CPU_OPERAND_F32][VKMOE_F32](x, n_rows, (const char *[]){(const char *) w,
                                                                 (const char *) (w + panel_size)},
                                     d_model, (float *[]){out[0], out[1]});
        else
            kernels->panel[CPU_OPERAND_F32][VKMOE_F32](x, n_rows, w, d_model, out[0]);
        for (uint32_t j = 0; j < n; j++)
            store_logits(bind, tokens, p + j, out[j]);
    }
}

// ---- select: each token's experts and gate weights -------------------------------------------

uint32_t moe_cpu_select_prepare(struct cpu_bind *bind)
{
    const uint32_t scores = 2048; // in one task
    return moe_cpu_cut_tokens(bind, scores, moe_layer_n_scored(moe_cpu_bind_layer(bind)));
}

// factors (2) of the routed sum and of the shared expert, from the router's last outputs.
static void gate_shared(enum vkmoe_shared_gate gate, const float *logits, float *factors)
{
    factors[0] = factors[1] = 1.0f;
    switch (gate) {
    case VKMOE_SHARED_PLAIN:
        return;
    case VKMOE_SHARED_SIGMOID:
        factors[1] = moe_cpu_sigmoid(logits[0]);
        return;
    case VKMOE_SHARED_SOFTMAX2: // e^a / (e^a + e^b)
        factors[0] = moe_cpu_sigmoid(logits[0] - logits[1]);
        factors[1] = moe_cpu_sigmoid(logits[1] - logits[0]);
        return;
    }
}

void moe_cpu_store_choice(const struct cpu_bind *bind, struct cpu_range tokens)
{
    const size_t top_k = moe_cpu_bind_layer(bind)->top_k;
    const size_t first = tokens.begin * top_k, n = (tokens.end - tokens.begin) * top_k;
    if (bind->io->ids)
        memcpy(bind->io->ids + first, bind->ids + first, n * sizeof *bind->ids);
    if (bind->io->gates)
        memcpy(bind->io->gates + first, bind->gates + first, n * sizeof *bind->gates);
}

static void select_token(struct cpu_bind *bind, uint32_t token)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const struct cpu_weights *w = moe_cpu_bind_weights(bind);
    const uint32_t n = moe_layer_n_scored(layer);
    const size_t first_slot = (size_t) token * layer->top_k;
    const float *logits = bind->logits + (size_t) token * logits_stride(bind);
    struct cpu_route_rule rule = {w->selection_bias, w->expert_scale, NULL,
                                  &bind->kernels->arrays};
    float ranking[MOE_MAX_EXPERTS];

    if (w->table)
        rule.table_row = w->table + (size_t) bind->io->token_ids[token] * layer->top_k;
    moe_cpu_route(layer, logits, &rule, bind->ids + first_slot, bind->gates + first_slot, ranking);
    gate_shared(layer->shared_gate, logits + n, bind->factors + 2 * (size_t) token);
    if (bind->io->scores)
        memcpy(bind->io->scores + (size_t) token * n, ranking, n * sizeof *ranking);
}

void moe_cpu_select_task(struct cpu_bind *bind, uint32_t i)
{
    const struct cpu_range tokens = moe_cpu_block(bind, i);
    for (uint32_t token = tokens.begin; token < tokens.end; token++)
        select_token(bind, token);
    if (moe_cpu_bind_layer(bind)->capacity_mode == VKMOE_CAPACITY_NONE)
        moe_cpu_store_choice(bind, tokens);
}
