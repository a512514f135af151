// SPDX-License-Identifier: MIT
// Graph -> program: for each regime an array of dispatches, with its workspace. This file and
// compile_*.c are the only ones of this back end that know ops. Kernels and their parameters
// are described in shaders/.
#include "vulkan/compile.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"

_Static_assert(MOE_GROUP_EXPERTS == MOE_MAX_EXPERTS, "group_*.comp has room for every expert");

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

struct moe_vk_range moe_vk_router_range(const struct moe_vk_compiler *c)
{
    return c->desc->router_input ? rows_range(c, MOE_VK_BUF_ROUTER_X, c->desc->d_model)
                                 : moe_vk_x_range(c);
}

struct moe_vk_range moe_vk_token_ids_range(const struct moe_vk_compiler *c)
{
    return (struct moe_vk_range){MOE_VK_BUF_TOKEN_IDS, 0, c->tokens * sizeof(int32_t)};
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

// Passes over all slots that list them by expert, `shared_by` in a row counting as one; with lists:
// and cut them into tiles.
struct moe_vk_dispatch *moe_vk_add_grouping(struct moe_vk_compiler *c,
                                            const char *const labels[2], struct group_params p,
                                            struct moe_vk_range routing, uint32_t shared_by,
                                            bool lists)
{
    struct moe_vk_dispatch *d = NULL;
    p.block_slots = (uint32_t) moe_vk_group_block((uint64_t) c->tokens * p.top_k);
    for (uint32_t pass = 0; pass < 2; pass++) {
        enum moe_spv_id spv = pass == 0 ? MOE_SPV_GROUP_COUNT : MOE_SPV_GROUP_SCATTER;
        d = moe_vk_add(c, labels[pass], spv, &p, sizeof p);
        moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ | MOE_VK_WRITE);
        d->work_per_token = (double) p.n_experts * p.top_k;
        d->spec[0] = lists && pass == 1;
        d->spec[1] = shared_by;
        if (pass == 1) {
            d->spec[2] = c->tiles.small;
            d->spec[3] = c->tiles.full;
        }
        d->x = (struct moe_vk_count){.per_token = p.top_k, .divisor = p.block_slots};
    }
    return d;
}

static void add_group(struct moe_vk_compiler *c, enum moe_bank id)
{
    const struct moe_vk_bank *bank = &c->banks[id];
    const struct moe_vk_grouping *g = &c->ws.groupings[id];
    struct moe_vk_range grouping = moe_vk_routing_range(g->small);
    bool adjugates = id == MOE_BANK_ADJUGATE;
    struct group_params p = {
        .n_experts = moe_vk_bank_experts(c, id),
        .top_k = c->desc->top_k,
        .ids = moe_vk_word(grouping, c->ws.ids),
        .offsets = moe_vk_word(grouping, g->offsets),
        .rows = moe_vk_word(grouping, g->rows),
        .positions = moe_vk_word(grouping, g->positions),
        .full_tiles = moe_vk_word(grouping, g->full),
        .small_tiles = moe_vk_word(grouping, g->small),
        .args = moe_vk_word(grouping, g->args),
        .chunk_experts = adjugates ? c->map.chunk_adjugates : c->map.chunk_experts,
        .first_expert = moe_vk_bank_first(c, id),
        .in_pieces = bank->in.pieces,
        .in_row_blocks = bank->in.row_blocks,
        .in_piece_blocks = bank->in.piece_blocks,
        .out_pieces = bank->out.pieces,
        .out_row_blocks = bank->out.row_blocks,
        .out_piece_blocks = bank->out.piece_blocks,
    };
    static const char *const labels[2][2] = {
        {"group count", "group scatter"},
        {"adjugate count", "adjugate scatter"},
    };
    struct moe_vk_dispatch *d = moe_vk_add_grouping(
        c, labels[adjugates], p, grouping, adjugates ? c->desc->adjugate_group : 1, true);
    d->spec[4] = moe_vk_small_blocks(c, id, false);
    d->spec[5] = moe_vk_small_blocks(c, id, true);
}

static bool is_layer(const struct moe_vk_compiler *c)
{
    return c->graph->operation == VKMOE_OPERATION_LAYER;
}

static void add_op(struct moe_vk_compiler *c, const struct moe_op *op)
{
    switch (op->kind) {
    case MOE_OP_ROUTE:
        moe_vk_add_route(c);
        break;
    case MOE_OP_CAPACITY:
        moe_vk_add_capacity(c);
        break;
    case MOE_OP_LATENT_IN:
        moe_vk_add_matmul(c, MOE_VK_BANK_LATENT, false);
        break;
    case MOE_OP_LATENT_OUT:
        moe_vk_add_latent_out(c);
        break;
    case MOE_OP_GROUP:
        if (!is_layer(c))
            moe_vk_add_group_slots(c);
        else if (c->regime == MOE_VK_GROUPED)
            add_group(c, op->bank);
        break;
    case MOE_OP_EXPERT_IN:
        moe_vk_add_matmul(c, op->bank, false);
        break;
    case MOE_OP_EXPERT_OUT:
        if (c->regime != MOE_VK_DECODE || !moe_vk_out_is_fused(c)) // else part of combining
            moe_vk_add_matmul(c, op->bank, true);
        break;
    case MOE_OP_COMBINE:
        moe_vk_add_combine(c);
        break;
    case MOE_OP_GATHER:
        moe_vk_add_gather(c);
        break;
    case MOE_OP_PLACE:
        moe_vk_add_place(c);
        break;
    case MOE_OP_COMBINE_ROWS:
        moe_vk_add_combine_rows(c);
        break;
    }
}

// ---- sequences -------------------------------------------------------------------------------

// The most dispatches there can be: those of the matmuls, and a few for every other op.
static uint32_t most_dispatches(const struct moe_vk_compiler *c)
{
    uint32_t n = 30;
    for (uint32_t i = 0; i < MOE_VK_N_BANKS; i++) {
        const struct moe_vk_bank *bank = &c->banks[i];
        if (is_layer(c) && moe_vk_has_bank(c, i))
            n += moe_vk_is_slotted(i) ? moe_vk_listed_dispatches(bank)
                                      : bank->in.pieces + bank->out.pieces;
    }
    return n;
}

// One regime, for a block of c->tokens.
static enum vkmoe_status compile_block(struct moe_vk_compiler *c, const vkmoe_host *host)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_sequence *sequence = c->sequence;
    moe_free(host, sequence->dispatches);
    *sequence = (struct moe_vk_sequence){.block_tokens = c->tokens};
    c->tiles = moe_vk_tiles_of(c);
    if (is_layer(c))
        TRY(moe_vk_cut_banks(c));
    moe_vk_lay_out(c);
    c->capacity = most_dispatches(c);
    TRY(moe_try_alloc(host, c->capacity * sizeof *sequence->dispatches, "dispatches",
                      &sequence->dispatches));
    add_count(c);
    for (uint32_t i = 0; i < c->graph->n_ops; i++)
        add_op(c, &c->graph->ops[i]);
    if (c->graph->operation == VKMOE_OPERATION_ROUTE)
        moe_vk_add_route_outputs(c);
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
    for (c->tokens = max_tokens;;) {
        TRY(compile_block(c, host));
        if (moe_vk_fits(c->limits, c->sequence, &which))
            return VKMOE_OK;
        uint32_t smaller = moe_operation_is_whole(c->graph->operation)
                               ? 0 : moe_vk_smaller_block(c->desc, c->tokens);
        if (smaller == 0)
            return moe_vk_no_block(c, which);
        c->tokens = smaller;
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
    if (!moe_operation_is_whole(c.graph->operation))
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
