// SPDX-License-Identifier: MIT
// The operations on rows in the order of experts as dispatches. They go over all tokens at once.
// What a caller's buffer has of small numbers (ids, gate weights) is copied to the workspace first,
// so that a kernel binds it together with what other kernels found.
#include "vulkan/compile.h"

#include <stddef.h>

#include "base/bits.h"
#include "core/dtype.h"

// ---- copies ------------------------------------------------------------------------------------

static struct moe_vk_range words_range(enum moe_vk_buffer_id id, uint64_t n_words)
{
    return (struct moe_vk_range){id, 0, n_words * sizeof(uint32_t)};
}

// n words of each token, from the caller's buffer into the workspace or back.
static void add_copy(struct moe_vk_compiler *c, const char *label, enum moe_vk_buffer_id id,
                     struct moe_vk_range work, uint32_t n, bool back)
{
    const struct moe_vk_range callers = words_range(id, (uint64_t) c->tokens * n);
    const struct copy_params p = {
        .n = n, .input_words = back ? 0 : n, .output_words = back ? n : 0};
    struct moe_vk_dispatch *d = moe_vk_add(c, label, MOE_SPV_COPY, &p, sizeof p);
    moe_vk_use(d, MOE_SLOT_INPUT, back ? work : callers, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, moe_vk_routing_range(c->ws.count), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, back ? callers : work, MOE_VK_WRITE);
    d->x = (struct moe_vk_count){.per_token = n, .divisor = MOE_COPY_WORDS};
    d->work_per_token = n;
}

void moe_vk_add_route_outputs(struct moe_vk_compiler *c)
{
    const struct moe_vk_workspace *ws = &c->ws;
    const uint32_t top_k = c->desc->top_k;
    add_copy(c, "ids out", MOE_VK_BUF_IDS, ws->ids, top_k, true);
    add_copy(c, "gates out", MOE_VK_BUF_GATES, ws->gates, top_k, true);
    if (ws->scores.size)
        add_copy(c, "scores out", MOE_VK_BUF_SCORES, ws->scores, moe_layer_n_scored(c->desc), true);
}

// ---- gather ------------------------------------------------------------------------------------

void moe_vk_add_group_slots(struct moe_vk_compiler *c)
{
    static const char *const labels[] = {"group count", "group scatter"};
    const struct moe_vk_grouping *g = &c->ws.groupings[MOE_BANK_ROUTED];
    const struct moe_vk_range routing = moe_vk_routing_range(g->positions);
    const struct group_params p = {
        .n_experts = c->desc->n_experts,
        .top_k = c->desc->top_k,
        .ids = moe_vk_word(routing, c->ws.ids),
        .offsets = moe_vk_word(routing, g->offsets),
        .rows = moe_vk_word(routing, g->rows),
        .positions = moe_vk_word(routing, g->positions),
    };
    add_copy(c, "ids in", MOE_VK_BUF_IDS, c->ws.ids, p.top_k, false);
    moe_vk_add_grouping(c, labels, p, routing, 1, false);
}

static struct moe_vk_range rows_range(const struct moe_vk_compiler *c, uint32_t width)
{
    const uint64_t row = moe_align_up(moe_dtype_size(c->x_type, width), 4);
    return (struct moe_vk_range){MOE_VK_BUF_ROWS, 0, (uint64_t) c->tokens * c->desc->top_k * row};
}

static void add_list(struct moe_vk_compiler *c, const char *label, uint32_t list,
                     const struct gather_params *p, struct moe_vk_range routing,
                     struct moe_vk_range output)
{
    struct moe_vk_dispatch *d = moe_vk_add(c, label, MOE_SPV_GATHER_LISTS, p, sizeof *p);
    d->spec[0] = list;
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, output, MOE_VK_WRITE);
    if (list == MOE_LIST_SLOTS)
        d->x = (struct moe_vk_count){.per_token = p->top_k, .divisor = MOE_COPY_WORDS};
    else
        d->x.fixed = (uint32_t) moe_div_up(output.size / 4, MOE_COPY_WORDS);
}

void moe_vk_add_gather(struct moe_vk_compiler *c)
{
    const struct moe_vk_grouping *g = &c->ws.groupings[MOE_BANK_ROUTED];
    const struct moe_vk_range routing = moe_vk_routing_range(g->positions);
    const uint64_t slots = (uint64_t) c->tokens * c->desc->top_k;
    const struct gather_params p = {
        .n_experts = c->desc->n_experts,
        .top_k = c->desc->top_k,
        .words = (uint32_t) moe_div_up(moe_dtype_size(c->x_type, c->desc->d_model), 4),
        .offsets = moe_vk_word(routing, g->offsets),
        .rows = moe_vk_word(routing, g->rows),
    };
    add_list(c, "slots", MOE_LIST_SLOTS, &p, routing, words_range(MOE_VK_BUF_SLOTS, slots));
    add_list(c, "counts", MOE_LIST_COUNTS, &p, routing,
             words_range(MOE_VK_BUF_COUNTS, p.n_experts));
    add_list(c, "offsets", MOE_LIST_OFFSETS, &p, routing,
             words_range(MOE_VK_BUF_OFFSETS, p.n_experts + 1ull));

    struct moe_vk_dispatch *d = moe_vk_add(c, "gather", MOE_SPV_GATHER, &p, sizeof p);
    d->rows_stride = offsetof(struct gather_params, output_stride);
    moe_vk_use(d, MOE_SLOT_INPUT, moe_vk_x_range(c), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, rows_range(c, c->desc->d_model), MOE_VK_WRITE);
    d->x.fixed = (uint32_t) moe_div_up(p.words, MOE_LOCAL_SIZE);
    d->y = (struct moe_vk_count){.per_token = p.top_k, .divisor = MOE_GATHER_ROWS};
    d->work_per_token = (double) p.words * p.top_k;
}

// ---- combine -----------------------------------------------------------------------------------

void moe_vk_add_place(struct moe_vk_compiler *c)
{
    static const char *const labels[] = {"no places", "places"};
    const struct moe_vk_range routing = moe_vk_routing_range(c->ws.positions);
    const struct place_params p = {
        .top_k = c->desc->top_k,
        .positions = moe_vk_word(routing, c->ws.positions),
    };
    for (uint32_t pass = 0; pass < MOE_COUNT(labels); pass++) {
        struct moe_vk_dispatch *d =
            moe_vk_add(c, labels[pass], MOE_SPV_PLACE, &p, sizeof p);
        d->spec[0] = pass;
        moe_vk_use(d, MOE_SLOT_INPUT,
                   words_range(MOE_VK_BUF_SLOTS, (uint64_t) c->tokens * p.top_k), MOE_VK_READ);
        moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ | MOE_VK_WRITE);
        d->x = (struct moe_vk_count){.per_token = p.top_k, .divisor = MOE_COPY_WORDS};
        d->work_per_token = p.top_k;
    }
}

void moe_vk_add_combine_rows(struct moe_vk_compiler *c)
{
    const vkmoe_layer_desc *desc = c->desc;
    const bool identity = moe_graph_has_input(c->graph, MOE_VALUE_IDS);
    const struct moe_vk_range routing = moe_vk_routing_range(c->ws.positions);
    const uint64_t words = moe_div_up(moe_dtype_size(c->x_type, desc->d_out), 4);
    const struct combine_rows_params p = {
        .d_out = desc->d_out,
        .top_k = desc->top_k,
        .ids = moe_vk_word(routing, identity ? c->ws.ids : c->ws.gates),
        .gates = moe_vk_word(routing, c->ws.gates),
        .positions = moe_vk_word(routing, c->ws.positions),
        .n_experts = desc->n_experts,
        .n_scored = moe_layer_n_scored(desc),
        .routed_scale = desc->c_routed * desc->out_scale,
    };
    if (identity)
        add_copy(c, "ids in", MOE_VK_BUF_IDS, c->ws.ids, p.top_k, false);
    add_copy(c, "gates in", MOE_VK_BUF_GATES, c->ws.gates, p.top_k, false);
    struct moe_vk_dispatch *d = moe_vk_add(c, "combine rows", MOE_SPV_COMBINE_ROWS, &p, sizeof p);
    d->spec[0] = c->x_type;
    d->spec[1] = identity;
    d->rows_stride = offsetof(struct combine_rows_params, rows_stride);
    // What the kernel declares must be bound, needed or not.
    moe_vk_use(d, MOE_SLOT_WEIGHTS, identity ? moe_vk_x_range(c) : routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_INPUT, rows_range(c, desc->d_out), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, moe_vk_y_range(c), MOE_VK_WRITE);
    d->x.fixed = (uint32_t) moe_div_up(words, MOE_LOCAL_SIZE);
    d->y = (struct moe_vk_count){.per_token = 1, .divisor = MOE_COMBINE_TOKENS};
    d->work_per_token = 2.0 * p.d_out * p.top_k;
}
