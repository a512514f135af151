// SPDX-License-Identifier: MIT
// The router and what drops slots beyond an expert's capacity as dispatches.
#include "vulkan/compile.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"

_Static_assert(MOE_SPEC_GATE_ROWS < MOE_VK_MAX_SPEC, "route.comp knows its rules");
_Static_assert(MOE_ROUTE_VALUES >= MOE_MAX_EXPERTS + 4, "route.comp has room for every row");

static uint32_t float_bits(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static uint32_t flags(const struct moe_vk_compiler *c)
{
    const vkmoe_layer_desc *desc = c->desc;
    return (desc->router_prenorm ? MOE_ROUTE_PRENORM : 0) |
           (moe_graph_uses(c->graph, MOE_VALUE_SCORES) ? MOE_ROUTE_SCORES : 0) |
           (desc->expert_scale ? MOE_ROUTE_EXPERT_SCALE : 0) |
           (desc->group_fill_zero ? MOE_ROUTE_FILL_ZERO : 0) |
           (desc->capacity_renorm ? MOE_ROUTE_KEPT : 0);
}

static uint32_t group_counted(const vkmoe_layer_desc *desc)
{
    switch (desc->group_score) {
    case VKMOE_GROUP_MAX:
        return 1;
    case VKMOE_GROUP_TOP2_SUM:
        return 2;
    case VKMOE_GROUP_TOP_SHARE_SUM:
        break;
    }
    return desc->top_k / (uint32_t) moe_max(desc->topk_group, 1);
}

static uint32_t gate_rows(const struct moe_vk_compiler *c)
{
    const struct moe_value *gate = &c->graph->values[MOE_VALUE_SHARED_GATE];
    return gate->used ? gate->width : 0;
}

static void set_norm(const vkmoe_layer_desc *desc, uint32_t *spec)
{
    spec[MOE_SPEC_NORM] = desc->norm;
    spec[MOE_SPEC_NORM_P] = float_bits(desc->norm_p);
    spec[MOE_SPEC_NORM_EPS] = float_bits(desc->norm_eps);
    spec[MOE_SPEC_ROUTED_SCALE] = float_bits(desc->routed_scale);
}

static void set_rules(const struct moe_vk_compiler *c, uint32_t *spec)
{
    const vkmoe_layer_desc *desc = c->desc;
    bool mixes = desc->select == VKMOE_SELECT_SPARSEMIXER;
    spec[MOE_SPEC_SCORE] = desc->score;
    spec[MOE_SPEC_RANK] = desc->rank;
    spec[MOE_SPEC_SELECT] = desc->select;
    spec[MOE_SPEC_GATE_SOURCE] = desc->gate_source;
    spec[MOE_SPEC_FLAGS] = flags(c);
    spec[MOE_SPEC_SOFTCAP] = float_bits(desc->logit_softcap);
    spec[MOE_SPEC_PRENORM_CONST] = float_bits(desc->prenorm_const);
    spec[MOE_SPEC_PRENORM_EPS] = float_bits(desc->prenorm_eps);
    spec[MOE_SPEC_SELECT_P] = float_bits(mixes ? 2 * desc->sparsemixer_eps : desc->select_p);
    spec[MOE_SPEC_N_GROUP] = (uint32_t) moe_max(desc->n_group, 1);
    spec[MOE_SPEC_TOPK_GROUP] = desc->topk_group;
    spec[MOE_SPEC_GROUP_COUNTED] = group_counted(desc);
    spec[MOE_SPEC_GATE_ROWS] = gate_rows(c);
    set_norm(desc, spec);
}

// Smallest power of two that gives every expert a lane, or all lanes a token has.
static uint32_t route_span(uint32_t n_scored, uint32_t lanes)
{
    uint32_t span = 1;
    while (span < n_scored && span < lanes)
        span *= 2;
    return span;
}

static struct moe_vk_range head_range(const struct moe_vk_compiler *c)
{
    return (struct moe_vk_range){MOE_VK_BUF_WEIGHTS, 0,
                                 c->map.whole ? c->map.total : c->map.experts};
}

void moe_vk_add_route(struct moe_vk_compiler *c)
{
    const struct moe_vk_range out = moe_vk_choice_range(c, true);
    const uint32_t quads = c->map.quads, n_scored = moe_layer_n_scored(c->desc);
    const uint32_t parts = (uint32_t) moe_max(1, MOE_LOCAL_SIZE / quads);
    const bool two = parts * quads * 4 * MOE_ROUTE_TOKENS <= MOE_ROUTE_VALUES;
    struct route_params p = {
        .n_scored = n_scored,
        .top_k = c->desc->top_k,
        .d_model = c->desc->d_model,
        .quads = quads,
        .parts = parts,
        .part_size = (uint32_t) moe_div_up(c->desc->d_model, parts),
        .tokens = two ? MOE_ROUTE_TOKENS : 1,
        .span = route_span(n_scored, two ? MOE_LOCAL_SIZE / MOE_ROUTE_TOKENS : MOE_LOCAL_SIZE),
        .weight = c->map.router_weight,
        .vectors = c->map.router_vectors,
        .prenorm = c->map.router_prenorm,
        .table = c->map.router_table,
        .n_token_ids = c->desc->n_token_ids,
        .ids = moe_vk_word(out, c->ws.ids),
        .gates = moe_vk_word(out, c->ws.gates),
        .shared_gate = moe_vk_word(out, c->ws.shared_gate),
        .scores = moe_vk_word(out, c->ws.scores),
    };
    struct moe_vk_dispatch *d = moe_vk_add(c, "route", MOE_SPV_ROUTE, &p, sizeof p);
    d->spec[0] = c->x_type;
    d->spec[MOE_SPEC_TABLE] = moe_vk_n_blocks(&c->graph->layer);
    set_rules(c, d->spec);
    struct moe_vk_range input = moe_vk_router_range(c);
    bool has_table = moe_graph_uses(c->graph, MOE_VALUE_TOKEN_IDS);
    moe_vk_use(d, MOE_SLOT_WEIGHTS, head_range(c), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_INPUT, input, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, out, MOE_VK_READ | MOE_VK_WRITE);
    // A kernel's bindings are all bound, also one that is not read.
    moe_vk_use(d, MOE_SLOT_OUTPUT, has_table ? moe_vk_token_ids_range(c) : input, MOE_VK_READ);
    d->x = (struct moe_vk_count){.per_token = 1, .divisor = p.tokens};
    d->work_per_token = 2.0 * p.d_model * p.n_scored;
}

// ---- capacity ----------------------------------------------------------------------------------

static void add_capacity_pass(struct moe_vk_compiler *c, const struct capacity_params *p,
                              struct moe_vk_range routing)
{
    enum { MOST_BLOCKS = 256 }; // workgroups that share out an expert's blocks of tokens
    const uint32_t rows = p->capacity_rows ? p->capacity_rows : c->tokens;
    struct moe_vk_dispatch *d = moe_vk_add(c, "capacity", MOE_SPV_CAPACITY, p, sizeof *p);
    d->spec[0] = c->desc->capacity_mode == VKMOE_CAPACITY_BY_GATE;
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ | MOE_VK_WRITE);
    d->x.fixed = p->n_experts;
    d->y.fixed = (uint32_t) moe_min(moe_div_up(c->tokens, rows), MOST_BLOCKS);
    d->work_per_token = 16.0 * p->top_k; // eight digits of a rank, and then once more
}

static void add_drop_pass(struct moe_vk_compiler *c, const struct capacity_params *p,
                          struct moe_vk_range routing)
{
    struct moe_vk_dispatch *d =
        moe_vk_add(c, "capacity drop", MOE_SPV_CAPACITY_DROP, p, sizeof *p);
    d->spec[MOE_SPEC_FLAGS] = flags(c);
    set_norm(c->desc, d->spec);
    moe_vk_use(d, MOE_SLOT_WEIGHTS, head_range(c), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ | MOE_VK_WRITE);
    d->x = (struct moe_vk_count){.per_token = 1, .divisor = MOE_LOCAL_SIZE};
    d->work_per_token = 4.0 * p->top_k;
}

// Slots are listed by expert as for the matmuls, in ranges that grouping writes anew afterwards.
void moe_vk_add_capacity(struct moe_vk_compiler *c)
{
    static const char *const labels[] = {"capacity count", "capacity scatter"};
    const struct moe_vk_grouping *g = &c->ws.groupings[MOE_BANK_ROUTED];
    const struct moe_vk_range routing = moe_vk_routing_range(g->positions);
    const struct capacity_params p = {
        .n_experts = c->desc->n_experts,
        .top_k = c->desc->top_k,
        .ids = moe_vk_word(routing, c->ws.ids),
        .gates = moe_vk_word(routing, c->ws.gates),
        .offsets = moe_vk_word(routing, g->offsets),
        .rows = moe_vk_word(routing, g->rows),
        .positions = moe_vk_word(routing, g->positions),
        .capacity = c->desc->capacity,
        .capacity_rows = c->desc->capacity_rows,
        .capacity_factor = c->desc->capacity_factor,
        .expert_scale = c->map.router_vectors + MOE_VECTOR_EXPERT_SCALE * c->map.quads,
    };
    const struct group_params group = {
        .n_experts = p.n_experts,
        .top_k = p.top_k,
        .ids = p.ids,
        .offsets = p.offsets,
        .rows = p.rows,
        .positions = p.positions,
    };
    moe_vk_add_grouping(c, labels, group, routing, 1, false);
    add_capacity_pass(c, &p, routing);
    add_drop_pass(c, &p, routing);
}

// ---- blocks of tokens --------------------------------------------------------------------------

uint32_t moe_vk_smaller_block(const vkmoe_layer_desc *desc, uint32_t tokens)
{
    uint32_t half = (tokens + 1) / 2;
    if (tokens == 1)
        return 0;
    if (desc->capacity_mode == VKMOE_CAPACITY_NONE)
        return half;
    return desc->capacity_rows ? half - half % desc->capacity_rows : 0;
}

enum vkmoe_status moe_vk_no_block(const struct moe_vk_compiler *c,
                                  const struct moe_vk_dispatch *which)
{
    char text[256];
    enum vkmoe_status status = moe_vk_too_large(c->limits, c->sequence, which);
    if (c->desc->capacity_mode == VKMOE_CAPACITY_NONE)
        return status;
    snprintf(text, sizeof text, "%s", vkmoe_error_text());
    return moe_fail(status, "layer.capacity_rows = %u: %u tokens at once: %s",
                    c->desc->capacity_rows, c->tokens, text);
}
