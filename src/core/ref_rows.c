// SPDX-License-Identifier: MIT
#include "core/ref_rows.h"

#include <string.h>

static uint64_t n_slots_of(const struct moe_graph *graph, uint32_t n_tokens)
{
    return (uint64_t) n_tokens * graph->layer.desc.top_k;
}

void moe_ref_gather(struct moe_ref_run *run, const struct moe_graph *graph, uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const double *ids = run->values[MOE_VALUE_IDS], *x = run->values[MOE_VALUE_X];
    double *rows = run->values[MOE_VALUE_ROWS], *slots = run->values[MOE_VALUE_SLOTS];
    double *offsets = run->values[MOE_VALUE_OFFSETS];
    const uint64_t n_slots = n_slots_of(graph, n_tokens), d = layer->d_model;
    uint64_t n = 0;
    for (uint32_t e = 0; e < layer->n_experts; e++) {
        offsets[e] = (double) n;
        for (uint64_t slot = 0; slot < n_slots; slot++) {
            if (ids[slot] != e)
                continue;
            memcpy(rows + n * d, x + slot / layer->top_k * d, d * sizeof *rows);
            slots[n++] = (double) slot;
        }
        run->values[MOE_VALUE_COUNTS][e] = (double) n - offsets[e];
    }
    offsets[layer->n_experts] = (double) n;
    for (; n < n_slots; n++)
        slots[n] = -1;
}

void moe_ref_place(struct moe_ref_run *run, const struct moe_graph *graph, uint32_t n_tokens)
{
    const double *slots = run->values[MOE_VALUE_SLOTS];
    double *positions = run->values[MOE_VALUE_POSITIONS];
    const uint64_t n_slots = n_slots_of(graph, n_tokens);
    for (uint64_t slot = 0; slot < n_slots; slot++)
        positions[slot] = (double) n_slots;
    for (uint64_t i = 0; i < n_slots; i++)
        if (slots[i] >= 0)
            positions[(uint64_t) slots[i]] = (double) i;
}

// What a slot contributes to element o, before its gate weight; NULL: nothing.
static const double *slot_value(const struct moe_ref_run *run, const struct moe_graph *graph,
                                uint64_t n_slots, uint64_t slot, uint64_t o)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const double *ids = run->values[MOE_VALUE_IDS];
    if (ids && ids[slot] >= layer->n_experts)
        return run->values[MOE_VALUE_X] + slot / layer->top_k * layer->d_model + o;
    double position = run->values[MOE_VALUE_POSITIONS][slot];
    return position < (double) n_slots
               ? run->values[MOE_VALUE_ROWS] + (uint64_t) position * layer->d_out + o : NULL;
}

void moe_ref_combine_rows(struct moe_ref_run *run, const struct moe_graph *graph,
                          uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const double scale = (double) layer->out_scale * (double) layer->c_routed;
    const uint64_t n_slots = n_slots_of(graph, n_tokens), top_k = layer->top_k;
    for (uint64_t t = 0; t < n_tokens; t++) {
        for (uint64_t o = 0; o < layer->d_out; o++) {
            double sum = 0;
            for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++) {
                const double *value = slot_value(run, graph, n_slots, slot, o);
                if (value)
                    sum += run->values[MOE_VALUE_GATES][slot] * *value;
            }
            run->values[MOE_VALUE_Y][t * layer->d_out + o] = scale * sum;
        }
    }
}
