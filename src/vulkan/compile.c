// SPDX-License-Identifier: MIT
// Graph -> program: for each regime an array of dispatches, with its workspace. This file and
// compile_experts.c are the only ones of this back end that know ops. Kernels and their parameters
// are described in shaders/.
#include "vulkan/compile.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"

_Static_assert(MOE_SCAN_EXPERTS == MOE_MAX_EXPERTS, "group_scan.comp has room for every expert");

enum moe_vk_regime moe_vk_choose_regime(uint32_t n_tokens)
{
    return n_tokens <= MOE_VK_DECODE_TOKENS ? MOE_VK_DECODE : MOE_VK_GROUPED;
}

uint32_t moe_vk_regime_tokens(enum moe_vk_regime regime, uint32_t max_tokens)
{
    return regime == MOE_VK_DECODE ? (uint32_t) moe_min(max_tokens, MOE_VK_DECODE_TOKENS)
                                   : max_tokens;
}

// ---- dispatches ------------------------------------------------------------------------------

struct moe_vk_dispatch *moe_vk_add(struct moe_vk_compiler *c, const char *label,
                                   enum moe_spv_id spv, const void *params, size_t params_size)
{
    struct moe_vk_sequence *sequence = c->sequence;
    assert(sequence->n < c->capacity && params_size <= sizeof sequence->dispatches->params);
    struct moe_vk_dispatch *d = &sequence->dispatches[sequence->n++];
    // Each kernel, then its _bda twin.
    *d = (struct moe_vk_dispatch){.label = label,
                                  .spv = spv + (c->limits->bda ? 1 : 0),
                                  .x = {.fixed = 1},
                                  .y = {.fixed = 1},
                                  .spec[MOE_SPEC_COUNT] = c->counters,
                                  .params_size = (uint32_t) params_size};
    if (params_size > 0)
        memcpy(d->params, params, params_size);
    return d;
}

void moe_vk_use(struct moe_vk_dispatch *d, int slot, struct moe_vk_range range, uint8_t access)
{
    d->ranges[slot] = range;
    d->access[slot] = access;
}

// Their real extent, strides included, is known when buffers are bound.
static struct moe_vk_range rows_range(const struct moe_vk_compiler *c, enum moe_vk_buffer_id id,
                                      uint32_t width)
{
    uint64_t row = moe_align_up(moe_dtype_size(c->x_type, width), 4);
    return (struct moe_vk_range){id, 0, c->tokens * row};
}

struct moe_vk_range moe_vk_x_range(const struct moe_vk_compiler *c)
{
    return rows_range(c, MOE_VK_BUF_X, c->desc->d_model);
}

struct moe_vk_range moe_vk_y_range(const struct moe_vk_compiler *c)
{
    return rows_range(c, MOE_VK_BUF_Y, c->desc->d_out);
}

static void add_count(struct moe_vk_compiler *c)
{
    struct moe_vk_dispatch *d = moe_vk_add(c, "count", MOE_SPV_COUNT, NULL, 0);
    moe_vk_use(d, MOE_SLOT_INPUT, (struct moe_vk_range){MOE_VK_BUF_COUNT, 0, 4}, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, c->ws.count, MOE_VK_WRITE);
}

static uint32_t route_rules(const struct moe_vk_compiler *c)
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

// The range of the routing results, which end the choice.
static struct moe_vk_range choice_range(const struct moe_vk_compiler *c, bool with_scores)
{
    const struct moe_vk_workspace *ws = &c->ws;
    if (with_scores && ws->scores.size)
        return moe_vk_routing_range(ws->scores);
    return moe_vk_routing_range(ws->shared_gate.size ? ws->shared_gate : ws->gates);
}

static void add_route(struct moe_vk_compiler *c)
{
    struct moe_vk_range out = choice_range(c, true);
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
        .ids = moe_vk_word(out, c->ws.ids),
        .gates = moe_vk_word(out, c->ws.gates),
        .shared_gate = moe_vk_word(out, c->ws.shared_gate),
        .scores = moe_vk_word(out, c->ws.scores),
        .rules = route_rules(c),
        .norm_eps = c->desc->norm_eps,
        .routed_scale = c->desc->routed_scale,
    };
    struct moe_vk_range head = {MOE_VK_BUF_WEIGHTS, 0,
                                c->map.whole ? c->map.total : c->map.experts};
    struct moe_vk_dispatch *d = moe_vk_add(c, "route", MOE_SPV_ROUTE, &p, sizeof p);
    d->spec[0] = c->x_type;
    moe_vk_use(d, MOE_SLOT_WEIGHTS, head, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_INPUT, moe_vk_x_range(c), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, out, MOE_VK_READ | MOE_VK_WRITE);
    d->x = (struct moe_vk_count){.per_token = 1, .divisor = p.tokens};
    d->work_per_token = 2.0 * p.d_model * p.n_experts;
}

static void add_group(struct moe_vk_compiler *c)
{
    const struct moe_vk_bank *bank = &c->banks[MOE_BANK_ROUTED];
    struct moe_vk_range grouping = moe_vk_routing_range(c->ws.small);
    struct group_params p = {
        .n_experts = c->desc->n_experts,
        .top_k = c->desc->top_k,
        .ids = moe_vk_word(grouping, c->ws.ids),
        .counts = moe_vk_word(grouping, c->ws.counts),
        .rows = moe_vk_word(grouping, c->ws.rows),
        .positions = moe_vk_word(grouping, c->ws.positions),
        .full_tiles = moe_vk_word(grouping, c->ws.full),
        .small_tiles = moe_vk_word(grouping, c->ws.small),
        .args = moe_vk_word(grouping, c->ws.args),
        .chunk_experts = c->map.chunk_experts,
        .in_pieces = bank->in.pieces,
        .in_row_blocks = bank->in.row_blocks,
        .in_piece_blocks = bank->in.piece_blocks,
        .out_pieces = bank->out.pieces,
        .out_row_blocks = bank->out.row_blocks,
        .out_piece_blocks = bank->out.piece_blocks,
    };
    static const char *const labels[] = {"group count", "group scan", "group scatter"};
    for (uint32_t pass = 0; pass < 3; pass++) {
        enum moe_spv_id spv = pass == 1 ? MOE_SPV_GROUP_SCAN : MOE_SPV_GROUP_BLOCK;
        struct moe_vk_dispatch *d = moe_vk_add(c, labels[pass], spv, &p, sizeof p);
        moe_vk_use(d, MOE_SLOT_ROUTING, grouping, MOE_VK_READ | MOE_VK_WRITE);
        d->work_per_token = (double) p.n_experts * p.top_k;
        if (pass == 1)
            continue;
        d->spec[0] = pass == 2;
        d->x = (struct moe_vk_count){.per_token = p.top_k, .divisor = MOE_GROUP_BLOCK};
    }
}

static void add_combine(struct moe_vk_compiler *c)
{
    if (c->regime == MOE_VK_DECODE && moe_vk_out_is_fused(c)) {
        moe_vk_add_fused_out(c);
        return;
    }
    bool grouped = c->regime == MOE_VK_GROUPED;
    struct moe_vk_range routing =
        grouped ? moe_vk_routing_range(c->ws.positions) : choice_range(c, false);
    struct combine_params p = {
        .d_out = c->desc->d_out,
        .top_k = c->desc->top_k,
        .gates = moe_vk_word(routing, c->ws.gates),
        .positions = grouped ? moe_vk_word(routing, c->ws.positions) : MOE_NONE,
        .shared_gate = moe_vk_word(routing, c->ws.shared_gate),
        .shared_input = moe_vk_word(c->ws.f, c->ws.f_shared),
        .routed_scale = c->desc->c_routed * c->desc->out_scale,
        .shared_scale = c->desc->c_shared * c->desc->out_scale,
    };
    struct moe_vk_dispatch *d = moe_vk_add(c, "combine", MOE_SPV_COMBINE, &p, sizeof p);
    d->spec[0] = c->x_type;
    moe_vk_use(d, MOE_SLOT_INPUT, c->ws.f, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, moe_vk_y_range(c), MOE_VK_WRITE);
    uint64_t words = moe_div_up(moe_dtype_size(c->x_type, p.d_out), 4);
    d->x.fixed = (uint32_t) moe_div_up(words, MOE_LOCAL_SIZE);
    d->y = (struct moe_vk_count){.per_token = 1, .divisor = 1};
    d->work_per_token = 2.0 * p.d_out * p.top_k;
}

static void add_op(struct moe_vk_compiler *c, const struct moe_op *op)
{
    switch (op->kind) {
    case MOE_OP_ROUTE:
        add_route(c);
        break;
    case MOE_OP_CAPACITY:
    case MOE_OP_LATENT_IN:
    case MOE_OP_LATENT_OUT:
        break;
    case MOE_OP_GROUP:
        if (c->regime == MOE_VK_GROUPED)
            add_group(c);
        break;
    case MOE_OP_EXPERT_IN:
        moe_vk_add_expert_in(c, op->bank);
        break;
    case MOE_OP_EXPERT_OUT:
        moe_vk_add_expert_out(c, op->bank);
        break;
    case MOE_OP_COMBINE:
        add_combine(c);
        break;
    }
}

// ---- sequences -------------------------------------------------------------------------------

// The most dispatches there can be: those of the matmuls, and one or three for every other op.
static uint32_t most_dispatches(const struct moe_vk_compiler *c)
{
    enum { OTHERS = 8 };
    const struct moe_vk_bank *shared = &c->banks[MOE_BANK_SHARED];
    return OTHERS + moe_vk_listed_dispatches(&c->banks[MOE_BANK_ROUTED]) + shared->in.pieces +
           shared->out.pieces;
}

// One regime, for a block of c->tokens.
static enum vkmoe_status compile_block(struct moe_vk_compiler *c, const vkmoe_host *host)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_sequence *sequence = c->sequence;
    moe_free(host, sequence->dispatches);
    *sequence = (struct moe_vk_sequence){.block_tokens = c->tokens};
    TRY(moe_vk_cut_banks(c));
    moe_vk_lay_out(c);
    c->capacity = most_dispatches(c);
    TRY(moe_try_alloc(host, c->capacity * sizeof *sequence->dispatches, "dispatches",
                      &sequence->dispatches));
    add_count(c);
    for (uint32_t i = 0; i < c->graph->n_ops; i++)
        add_op(c, &c->graph->ops[i]);
    moe_vk_derive_barriers(sequence->dispatches, sequence->n);
    sequence->work_size = c->ws.size;
    sequence->ids = c->ws.ids;
    sequence->gates = c->ws.gates;
    sequence->scores = c->ws.scores;
    return VKMOE_OK;

fail:
    return status;
}

// The largest block of tokens that is within the limits, to a factor of two.
static enum vkmoe_status compile_regime(struct moe_vk_compiler *c, const vkmoe_host *host,
                                        uint32_t max_tokens)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk_dispatch *which;
    for (c->tokens = max_tokens;; c->tokens = (c->tokens + 1) / 2) {
        TRY(compile_block(c, host));
        if (moe_vk_fits(c->limits, c->sequence, &which))
            return VKMOE_OK;
        if (c->tokens == 1)
            return moe_vk_too_large(c->limits, c->sequence, which);
    }

fail:
    return status;
}

enum vkmoe_status moe_vk_compile(struct moe_vk_program *program, const struct moe_vk_limits *limits)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t max_tokens = program->base.max_tokens;
    const vkmoe_host *host = program->base.device ? program->base.device->host : moe_host_default();
    struct moe_vk_compiler c = {.graph = &program->base.graph,
                                .desc = &program->base.graph.layer.desc,
                                .limits = limits,
                                .variant = program->variant,
                                .x_type = program->base.x_type,
                                .counters = program->counters};
    TRY(moe_vk_weights_map(&c.graph->layer, limits, &c.map));
    for (c.regime = MOE_VK_DECODE; c.regime <= moe_vk_choose_regime(max_tokens); c.regime++) {
        c.sequence = &program->sequences[c.regime];
        TRY(compile_regime(&c, host, moe_vk_regime_tokens(c.regime, max_tokens)));
        program->work_size = moe_max(program->work_size, c.sequence->work_size);
    }
    return VKMOE_OK;

fail:
    return status;
}

void moe_vk_sequences_finish(struct moe_vk_program *program)
{
    const vkmoe_host *host = program->base.device ? program->base.device->host : moe_host_default();
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++)
        moe_free(host, program->sequences[regime].dispatches);
}
