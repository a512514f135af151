// SPDX-License-Identifier: MIT
// Graph -> program: for each regime an array of dispatches, with its workspace. The only file of
// this back end that knows ops. Kernels and their parameters are described in shaders/.
#include "vulkan/plan.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"

// The workspace, in bytes: [scores][ids gates shared_gate][grouping][h h_shared][f f_shared]. What
// one kernel reads through one binding is adjacent.
struct workspace {
    struct moe_vk_range scores, choice, grouping, h, f;
    struct moe_vk_range ids, gates, shared_gate;                             // inside choice
    struct moe_vk_range counts, rows, positions, args, full, small; // inside grouping
    struct moe_vk_range h_shared, f_shared; // at the end of h and f
    uint64_t size;
};

struct compiler {
    struct moe_vk_program *program;
    const struct moe_graph *graph;
    const vkmoe_layer_desc *desc;
    enum moe_vk_regime regime;
    uint32_t tokens; // most tokens of this regime
    bool bda;
    struct moe_vk_block routed, shared;
    struct moe_vk_weights_map map;
    struct workspace ws;
};

enum moe_vk_regime moe_vk_choose_regime(uint32_t n_tokens)
{
    return n_tokens <= MOE_VK_DECODE_TOKENS ? MOE_VK_DECODE : MOE_VK_GROUPED;
}

uint32_t moe_vk_regime_tokens(enum moe_vk_regime regime, uint32_t max_tokens)
{
    return regime == MOE_VK_DECODE ? (uint32_t) moe_min(max_tokens, MOE_VK_DECODE_TOKENS)
                                   : max_tokens;
}

// ---- workspace -------------------------------------------------------------------------------

static struct moe_vk_range take(uint64_t *end, uint64_t n_words)
{
    struct moe_vk_range range = {MOE_VK_BUF_WORK, *end, moe_align_up(n_words * 4, 256)};
    *end += range.size;
    return range;
}

static struct moe_vk_range join(struct moe_vk_range first, struct moe_vk_range last)
{
    if (last.size)
        first.size = last.offset + last.size - first.offset;
    return first;
}

// The most tiles that group_scan.comp cuts: an expert's rest makes one more full tile, or as many
// small ones as cover half of it.
static uint64_t most_tiles(const vkmoe_layer_desc *desc, uint64_t slots, bool small)
{
    return small ? desc->n_experts * (uint64_t) (MOE_TILE_FULL / 2 / MOE_TILE_SMALL)
                 : slots / MOE_TILE_FULL + desc->n_experts;
}

static void lay_out(struct workspace *ws, const struct moe_graph *graph, uint64_t n_tokens)
{
    const vkmoe_layer_desc *desc = &graph->layer.desc;
    uint64_t slots = n_tokens * desc->top_k, end = 0;
    bool shared = moe_layer_has_shared(&graph->layer);
    if (moe_graph_uses(graph, MOE_VALUE_SCORES))
        ws->scores = take(&end, n_tokens * desc->n_experts);
    ws->ids = take(&end, slots);
    ws->gates = take(&end, slots);
    if (moe_graph_uses(graph, MOE_VALUE_SHARED_GATE))
        ws->shared_gate = take(&end, n_tokens);
    ws->choice = join(join(ws->ids, ws->gates), ws->shared_gate);
    ws->counts = take(&end, moe_div_up(slots, MOE_GROUP_BLOCK) * desc->n_experts);
    ws->rows = take(&end, slots);
    ws->positions = take(&end, slots);
    ws->args = take(&end, 12);
    ws->full = take(&end, most_tiles(desc, slots, false) * MOE_TILE_WORDS);
    ws->small = take(&end, most_tiles(desc, slots, true) * MOE_TILE_WORDS);
    ws->grouping = join(ws->counts, ws->small);
    ws->h = take(&end, slots * desc->d_ff);
    if (shared)
        ws->h_shared = take(&end, n_tokens * desc->d_shared_ff);
    ws->h = join(ws->h, ws->h_shared);
    ws->f = take(&end, slots * desc->d_out);
    if (shared)
        ws->f_shared = take(&end, n_tokens * desc->d_out);
    ws->f = join(ws->f, ws->f_shared);
    ws->size = end;
}

// Word where `inner` starts inside `outer`; MOE_NONE if there is no such range.
static uint32_t word(struct moe_vk_range outer, struct moe_vk_range inner)
{
    return inner.size ? (uint32_t) ((inner.offset - outer.offset) / 4) : MOE_NONE;
}

// ---- dispatches ------------------------------------------------------------------------------

static struct moe_vk_dispatch *add(struct compiler *c, const char *label, enum moe_spv_id spv,
                                   const void *params, size_t params_size)
{
    struct moe_vk_program *program = c->program;
    uint32_t *n = &program->n_dispatches[c->regime];
    assert(*n < MOE_VK_MAX_DISPATCHES && params_size <= sizeof program->dispatches[0][0].params);
    struct moe_vk_dispatch *d = &program->dispatches[c->regime][(*n)++];
    *d = (struct moe_vk_dispatch){.label = label,
                                  .spv = spv + (c->bda ? 1 : 0), // each kernel, then its _bda twin
                                  .x = {.fixed = 1},
                                  .y = {.fixed = 1},
                                  .params_size = (uint32_t) params_size};
    memcpy(d->params, params, params_size);
    return d;
}

static void use(struct moe_vk_dispatch *d, int slot, struct moe_vk_range range, uint8_t access)
{
    d->ranges[slot] = range;
    d->access[slot] = access;
}

static struct moe_vk_range weights_range(const struct compiler *c)
{
    return (struct moe_vk_range){MOE_VK_BUF_WEIGHTS, 0, c->map.total};
}

// x and y: their real extent, strides included, is known when buffers are bound.
static struct moe_vk_range x_range(const struct compiler *c)
{
    return (struct moe_vk_range){MOE_VK_BUF_X, 0, (uint64_t) c->tokens * c->desc->d_model * 4};
}

static struct moe_vk_range y_range(const struct compiler *c)
{
    return (struct moe_vk_range){MOE_VK_BUF_Y, 0, (uint64_t) c->tokens * c->desc->d_out * 4};
}

static uint32_t route_rules(const struct compiler *c)
{
    const vkmoe_layer_desc *desc = c->desc;
    uint32_t rules = 0;
    if (desc->score == VKMOE_SCORE_SIGMOID)
        rules |= MOE_ROUTE_SIGMOID;
    if (desc->rank == VKMOE_RANK_LOGIT)
        rules |= MOE_ROUTE_RANK_LOGIT;
    if (desc->gate_source == VKMOE_GATE_SOFTMAX_SELECTED)
        rules |= MOE_ROUTE_SOFTMAX_SELECTED;
    if (desc->norm == VKMOE_NORM_SUM_PLUS_EPS)
        rules |= MOE_ROUTE_NORM_SUM;
    if (desc->norm == VKMOE_NORM_MAX_SUM_EPS)
        rules |= MOE_ROUTE_NORM_MAX;
    if (moe_graph_uses(c->graph, MOE_VALUE_SHARED_GATE))
        rules |= MOE_ROUTE_SHARED_GATE;
    if (moe_graph_uses(c->graph, MOE_VALUE_SCORES))
        rules |= MOE_ROUTE_SCORES;
    return rules;
}

// Smallest power of two that gives every expert a lane, or all lanes a token has.
static uint32_t route_span(uint32_t n_experts, uint32_t lanes)
{
    uint32_t span = 1;
    while (span < n_experts && span < lanes)
        span *= 2;
    return span;
}

static void add_route(struct compiler *c)
{
    struct moe_vk_range out = c->ws.scores.size ? join(c->ws.scores, c->ws.choice) : c->ws.choice;
    uint32_t quads = c->map.quads;
    uint32_t parts = (uint32_t) moe_max(1, MOE_LOCAL_SIZE / quads);
    bool two = parts * quads * 4 * MOE_ROUTE_TOKENS <= MOE_ROUTE_VALUES;
    struct route_params p = {
        .n_experts = c->desc->n_experts,
        .top_k = c->desc->top_k,
        .d_model = c->desc->d_model,
        .quads = quads,
        .parts = parts,
        .part_size = (uint32_t) moe_div_up(c->desc->d_model, parts),
        .tokens = two ? MOE_ROUTE_TOKENS : 1,
        .span = route_span(c->desc->n_experts,
                           two ? MOE_LOCAL_SIZE / MOE_ROUTE_TOKENS : MOE_LOCAL_SIZE),
        .weight = c->map.router_weight,
        .bias = c->map.router_bias,
        .selection_bias = c->map.router_selection,
        .ids = word(out, c->ws.ids),
        .gates = word(out, c->ws.gates),
        .shared_gate = word(out, c->ws.shared_gate),
        .scores = word(out, c->ws.scores),
        .rules = route_rules(c),
        .norm_eps = c->desc->norm_eps,
        .routed_scale = c->desc->routed_scale,
    };
    struct moe_vk_dispatch *d = add(c, "route", MOE_SPV_ROUTE, &p, sizeof p);
    use(d, MOE_SLOT_WEIGHTS, weights_range(c), MOE_VK_READ);
    use(d, MOE_SLOT_INPUT, x_range(c), MOE_VK_READ);
    use(d, MOE_SLOT_ROUTING, out, MOE_VK_WRITE);
    d->x = (struct moe_vk_count){.per_token = 1, .divisor = p.tokens};
}

static void add_group(struct compiler *c)
{
    struct moe_vk_range grouping = c->ws.grouping;
    struct group_params p = {
        .n_experts = c->desc->n_experts,
        .top_k = c->desc->top_k,
        .counts = word(grouping, c->ws.counts),
        .rows = word(grouping, c->ws.rows),
        .positions = word(grouping, c->ws.positions),
        .full_tiles = word(grouping, c->ws.full),
        .small_tiles = word(grouping, c->ws.small),
        .args = word(grouping, c->ws.args),
        .in_row_blocks = (uint32_t) moe_div_up(c->routed.in_rows, MOE_TILE_ROWS),
        .out_row_blocks = (uint32_t) moe_div_up(c->routed.out_rows, MOE_TILE_ROWS),
    };
    static const char *const labels[] = {"group count", "group scan", "group scatter"};
    for (uint32_t pass = 0; pass < 3; pass++) {
        enum moe_spv_id spv = pass == 1 ? MOE_SPV_GROUP_SCAN : MOE_SPV_GROUP_BLOCK;
        struct moe_vk_dispatch *d = add(c, labels[pass], spv, &p, sizeof p);
        use(d, MOE_SLOT_ROUTING, grouping, MOE_VK_READ | MOE_VK_WRITE);
        if (pass == 1)
            continue;
        use(d, MOE_SLOT_INPUT, c->ws.ids, MOE_VK_READ);
        d->spec[0] = pass == 2;
        d->x = (struct moe_vk_count){.per_token = p.top_k, .divisor = MOE_GROUP_BLOCK};
    }
}

// One matmul over listed tiles of a size, or over all tokens for the shared expert.
static void add_gemm(struct compiler *c, const char *label, const struct gemm_params *p,
                     const uint32_t spec[MOE_VK_MAX_SPEC], struct moe_vk_range in,
                     struct moe_vk_range out, uint32_t args_index)
{
    uint32_t row_blocks = (uint32_t) moe_div_up(p->packed_rows, MOE_TILE_ROWS);
    struct moe_vk_dispatch *d = add(c, label, MOE_SPV_EXPERT_GEMM, p, sizeof *p);
    memcpy(d->spec, spec, sizeof d->spec);
    use(d, MOE_SLOT_WEIGHTS, weights_range(c), MOE_VK_READ);
    use(d, MOE_SLOT_INPUT, in, MOE_VK_READ);
    use(d, MOE_SLOT_ROUTING, c->ws.grouping, MOE_VK_READ);
    use(d, MOE_SLOT_OUTPUT, out, MOE_VK_WRITE);
    d->y.fixed = row_blocks;
    if (p->expert != MOE_NONE) {
        d->x = (struct moe_vk_count){.per_token = 1, .divisor = MOE_TILE_FULL};
        return;
    }
    d->indirect = (struct moe_vk_range){MOE_VK_BUF_WORK, c->ws.args.offset + args_index * 12, 12};
    uint64_t slots = (uint64_t) c->tokens * c->desc->top_k;
    d->max_x = (uint32_t) most_tiles(c->desc, slots, spec[1] == MOE_TILE_SMALL);
}

// Full tiles, then small ones: they write different rows, so no barrier comes between.
static void add_listed(struct compiler *c, const char *const labels[2], struct gemm_params *p,
                       uint32_t type, uint32_t gated, uint32_t gather, struct moe_vk_range in,
                       struct moe_vk_range out, uint32_t args_index)
{
    for (uint32_t small = 0; small < 2; small++) {
        uint32_t spec[] = {type, small ? MOE_TILE_SMALL : MOE_TILE_FULL, gated, 1, gather};
        p->expert = MOE_NONE;
        p->tiles = word(c->ws.grouping, small ? c->ws.small : c->ws.full);
        add_gemm(c, labels[small], p, spec, in, out, args_index + small);
    }
}

static struct gemm_params gemm_in_params(const struct compiler *c, const struct moe_vk_block *block,
                                         uint32_t d_ff)
{
    return (struct gemm_params){
        .d_in = c->desc->d_model,
        .n_out = d_ff,
        .packed_rows = block->in_rows,
        .weight = block->in_weight,
        .weight_stride = block->in_stride,
        .bias = block->in_bias,
        .rows = word(c->ws.grouping, c->ws.rows),
        .output_stride = d_ff,
        .top_k = c->desc->top_k,
        .act = c->desc->act,
        .act_alpha = c->desc->act_alpha,
    };
}

static void add_gemv_in(struct compiler *c, enum moe_bank bank)
{
    bool shared = bank == MOE_BANK_SHARED;
    const struct moe_vk_block *block = shared ? &c->shared : &c->routed;
    struct gemv_in_params p = {
        .d_in = c->desc->d_model,
        .n_out = shared ? c->desc->d_shared_ff : c->desc->d_ff,
        .weight = block->in_weight,
        .weight_stride = block->in_stride,
        .bias = block->in_bias,
        .expert = shared ? c->desc->n_experts : MOE_NONE,
        .top_k = shared ? 1 : c->desc->top_k,
        .act = c->desc->act,
        .act_alpha = c->desc->act_alpha,
    };
    struct moe_vk_range h = c->ws.h;
    h.size -= c->ws.h_shared.size;
    struct moe_vk_dispatch *d =
        add(c, shared ? "shared in" : "expert in", MOE_SPV_EXPERT_GEMV_IN, &p, sizeof p);
    d->spec[0] = c->desc->in_type;
    d->spec[1] = c->desc->gated;
    use(d, MOE_SLOT_WEIGHTS, weights_range(c), MOE_VK_READ);
    use(d, MOE_SLOT_INPUT, x_range(c), MOE_VK_READ);
    use(d, MOE_SLOT_ROUTING, c->ws.ids, MOE_VK_READ);
    use(d, MOE_SLOT_OUTPUT, shared ? c->ws.h_shared : h, MOE_VK_WRITE);
    d->x.fixed = (uint32_t) moe_div_up(p.n_out, MOE_PANEL_ROWS);
    d->y = (struct moe_vk_count){.per_token = p.top_k, .divisor = 1};
}

static void add_expert_in(struct compiler *c, enum moe_bank bank)
{
    if (c->regime == MOE_VK_DECODE) {
        add_gemv_in(c, bank);
        return;
    }
    if (bank == MOE_BANK_SHARED) {
        struct gemm_params p = gemm_in_params(c, &c->shared, c->desc->d_shared_ff);
        uint32_t spec[] = {c->desc->in_type, MOE_TILE_FULL, c->desc->gated, 0, 0};
        p.expert = c->desc->n_experts;
        add_gemm(c, "shared in", &p, spec, x_range(c), c->ws.h_shared, 0);
        return;
    }
    static const char *const labels[] = {"expert in, full tiles", "expert in, small tiles"};
    struct gemm_params p = gemm_in_params(c, &c->routed, c->desc->d_ff);
    struct moe_vk_range h = c->ws.h;
    h.size -= c->ws.h_shared.size;
    add_listed(c, labels, &p, c->desc->in_type, c->desc->gated, 1, x_range(c), h, 0);
}

static void add_expert_out(struct compiler *c, enum moe_bank bank)
{
    if (c->regime == MOE_VK_DECODE)
        return; // part of the combining kernel
    bool shared = bank == MOE_BANK_SHARED;
    const struct moe_vk_block *block = shared ? &c->shared : &c->routed;
    uint32_t d_ff = shared ? c->desc->d_shared_ff : c->desc->d_ff;
    struct gemm_params p = {
        .d_in = d_ff,
        .n_out = c->desc->d_out,
        .packed_rows = block->out_rows,
        .weight = block->out_weight,
        .weight_stride = block->out_stride,
        .bias = block->out_bias,
        .input_stride = d_ff,
        .output_stride = c->desc->d_out,
        .top_k = c->desc->top_k,
        .act = c->desc->act_out,
        .act_alpha = c->desc->act_alpha,
    };
    if (shared) {
        uint32_t spec[] = {c->desc->out_type, MOE_TILE_FULL, 0, 0, 0};
        p.expert = c->desc->n_experts;
        add_gemm(c, "shared out", &p, spec, c->ws.h_shared, c->ws.f_shared, 0);
        return;
    }
    static const char *const labels[] = {"expert out, full tiles", "expert out, small tiles"};
    struct moe_vk_range h = c->ws.h, f = c->ws.f;
    h.size -= c->ws.h_shared.size;
    f.size -= c->ws.f_shared.size;
    add_listed(c, labels, &p, c->desc->out_type, 0, 0, h, f, 2);
}

static void add_gemv_out(struct compiler *c)
{
    bool shared = moe_layer_has_shared(&c->graph->layer);
    struct gemv_out_params p = {
        .n_out = c->desc->d_out,
        .top_k = c->desc->top_k,
        .d_ff = c->desc->d_ff,
        .weight = c->routed.out_weight,
        .weight_stride = c->routed.out_stride,
        .bias = c->routed.out_bias,
        .shared_expert = shared ? c->desc->n_experts : MOE_NONE,
        .shared_d_ff = c->desc->d_shared_ff,
        .shared_weight = c->shared.out_weight,
        .shared_weight_stride = c->shared.out_stride,
        .shared_bias = c->shared.out_bias,
        .shared_input = word(c->ws.h, c->ws.h_shared),
        .gates = word(c->ws.choice, c->ws.gates),
        .shared_gate = word(c->ws.choice, c->ws.shared_gate),
        .act = c->desc->act_out,
        .act_alpha = c->desc->act_alpha,
        .routed_scale = c->desc->c_routed * c->desc->out_scale,
        .shared_scale = c->desc->c_shared * c->desc->out_scale,
    };
    struct moe_vk_dispatch *d =
        add(c, "expert out and combine", MOE_SPV_EXPERT_GEMV_OUT, &p, sizeof p);
    d->spec[0] = c->desc->out_type;
    use(d, MOE_SLOT_WEIGHTS, weights_range(c), MOE_VK_READ);
    use(d, MOE_SLOT_INPUT, c->ws.h, MOE_VK_READ);
    use(d, MOE_SLOT_ROUTING, c->ws.choice, MOE_VK_READ);
    use(d, MOE_SLOT_OUTPUT, y_range(c), MOE_VK_WRITE);
    d->x.fixed = (uint32_t) moe_div_up(p.n_out, MOE_PANEL_ROWS);
    d->y = (struct moe_vk_count){.per_token = 1, .divisor = 1};
}

static void add_combine(struct compiler *c)
{
    if (c->regime == MOE_VK_DECODE) {
        add_gemv_out(c);
        return;
    }
    struct moe_vk_range routing = join(c->ws.choice, c->ws.grouping);
    struct combine_params p = {
        .d_out = c->desc->d_out,
        .top_k = c->desc->top_k,
        .gates = word(routing, c->ws.gates),
        .positions = word(routing, c->ws.positions),
        .shared_gate = word(routing, c->ws.shared_gate),
        .shared_input = word(c->ws.f, c->ws.f_shared),
        .routed_scale = c->desc->c_routed * c->desc->out_scale,
        .shared_scale = c->desc->c_shared * c->desc->out_scale,
    };
    struct moe_vk_dispatch *d = add(c, "combine", MOE_SPV_COMBINE, &p, sizeof p);
    use(d, MOE_SLOT_INPUT, c->ws.f, MOE_VK_READ);
    use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    use(d, MOE_SLOT_OUTPUT, y_range(c), MOE_VK_WRITE);
    d->x.fixed = (uint32_t) moe_div_up(p.d_out, MOE_LOCAL_SIZE);
    d->y = (struct moe_vk_count){.per_token = 1, .divisor = 1};
}

static void add_op(struct compiler *c, const struct moe_op *op)
{
    switch (op->kind) {
    case MOE_OP_ROUTE:
        add_route(c);
        break;
    case MOE_OP_GROUP:
        if (c->regime == MOE_VK_GROUPED)
            add_group(c);
        break;
    case MOE_OP_EXPERT_IN:
        add_expert_in(c, op->bank);
        break;
    case MOE_OP_EXPERT_OUT:
        add_expert_out(c, op->bank);
        break;
    case MOE_OP_COMBINE:
        add_combine(c);
        break;
    }
}

enum vkmoe_status moe_vk_compile(struct moe_vk_program *program, bool bda)
{
    enum vkmoe_status status = VKMOE_OK;
    struct compiler c = {.program = program,
                         .graph = &program->base.graph,
                         .desc = &program->base.graph.layer.desc,
                         .bda = bda};
    TRY(moe_vk_weights_map(&c.graph->layer, &c.map));
    TRY(moe_vk_block(&c.graph->layer, 0, &c.routed));
    if (moe_layer_has_shared(&c.graph->layer))
        TRY(moe_vk_block(&c.graph->layer, VKMOE_SHARED_EXPERT, &c.shared));
    lay_out(&c.ws, c.graph, program->base.max_tokens);
    program->work_size = c.ws.size;
    program->ids = c.ws.ids;
    program->gates = c.ws.gates;
    program->scores = c.ws.scores;

    uint32_t max_tokens = program->base.max_tokens;
    for (c.regime = MOE_VK_DECODE; c.regime <= moe_vk_choose_regime(max_tokens); c.regime++) {
        c.tokens = moe_vk_regime_tokens(c.regime, max_tokens);
        for (uint32_t i = 0; i < c.graph->n_ops; i++)
            add_op(&c, &c.graph->ops[i]);
        moe_vk_derive_barriers(program->dispatches[c.regime], program->n_dispatches[c.regime]);
    }
    return VKMOE_OK;

fail:
    return status;
}
