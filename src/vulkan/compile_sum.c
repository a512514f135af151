// SPDX-License-Identifier: MIT
// What follows the experts: the weighted sum of a token's outputs, what comes to it, and y.
#include "vulkan/compile.h"

#include "base/bits.h"
#include "core/dtype.h"

bool moe_vk_sums_twice(const struct moe_vk_compiler *c)
{
    // Of x and out_bias combine.comp can bind one.
    return c->desc->d_latent > 0 || (c->desc->n_zero > 0 && c->desc->out_bias);
}

bool moe_vk_out_is_fused(const struct moe_vk_compiler *c)
{
    bool shared = moe_layer_has_shared(&c->graph->layer);
    return c->map.whole && c->desc->d_latent == 0 && c->desc->n_zero == 0 &&
           c->desc->adjugate_group == 0 && c->banks[MOE_BANK_ROUTED].out.pieces == 1 &&
           (!shared || (c->banks[MOE_BANK_SHARED].out.pieces == 1 &&
                        c->desc->shared_out_type == c->desc->out_type));
}

struct moe_vk_range moe_vk_choice_range(const struct moe_vk_compiler *c, bool with_scores)
{
    const struct moe_vk_workspace *ws = &c->ws;
    if (with_scores && ws->scores.size)
        return moe_vk_routing_range(ws->scores);
    return moe_vk_routing_range(ws->shared_gate.size ? ws->shared_gate : ws->gates);
}

// ---- what a sum is made of ---------------------------------------------------------------------

static bool may_skip(const vkmoe_layer_desc *desc)
{
    return desc->select == VKMOE_SELECT_TOP_P || desc->select == VKMOE_SELECT_THRESHOLD ||
           desc->capacity_mode != VKMOE_CAPACITY_NONE;
}

// MOE_SUM_* of the routed sum.
static uint32_t slots_form(const vkmoe_layer_desc *desc)
{
    return (may_skip(desc) ? MOE_SUM_SKIPS : 0) | (desc->n_zero > 0 ? MOE_SUM_IDENTITY : 0) |
           (desc->weight_on_input ? MOE_SUM_WEIGHTED : 0) |
           (desc->adjugate_group > 0 ? MOE_SUM_ADJUGATES : 0);
}

// And of what makes y of it.
static uint32_t rest_form(const vkmoe_layer_desc *desc)
{
    return (desc->out_bias && desc->d_latent == 0 ? MOE_SUM_BIAS : 0) |
           (desc->shared_gate == VKMOE_SHARED_SOFTMAX2 ? MOE_SUM_SOFTMAX2 : 0);
}

static struct moe_vk_range vectors_range(const struct moe_vk_compiler *c)
{
    return (struct moe_vk_range){MOE_VK_BUF_WEIGHTS, c->map.vectors, c->map.vectors_size};
}

// Words from the begin of the vectors.
static uint32_t vector_word(const struct moe_vk_compiler *c, uint64_t offset)
{
    return (uint32_t) ((offset - c->map.vectors) / sizeof(float));
}

// ---- combine -----------------------------------------------------------------------------------

// A dispatch of combine.comp over rows of `width`, whose inputs and parameters are set; `form` is
// MOE_SUM_*. output: NULL for y.
static struct moe_vk_dispatch *add_sum(struct moe_vk_compiler *c, const char *label, uint32_t form,
                                       struct combine_params *p, struct moe_vk_range input,
                                       struct moe_vk_range routing,
                                       const struct moe_vk_range *output)
{
    enum vkmoe_dtype type = output ? VKMOE_F32 : c->x_type;
    p->output_stride = output ? p->d_out : 0;
    struct moe_vk_dispatch *d = moe_vk_add(c, label, MOE_SPV_COMBINE, p, sizeof *p);
    d->spec[0] = type;
    d->spec[1] = form;
    moe_vk_use(d, MOE_SLOT_INPUT, input, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, output ? *output : moe_vk_y_range(c), MOE_VK_WRITE);
    // What the kernel declares must be bound, needed or not.
    moe_vk_use(d, MOE_SLOT_WEIGHTS, form & MOE_SUM_BIAS ? vectors_range(c) : routing, MOE_VK_READ);
    uint64_t words = moe_div_up(moe_dtype_size(type, p->d_out), 4);
    d->x.fixed = (uint32_t) moe_div_up(words, MOE_LOCAL_SIZE);
    d->y = (struct moe_vk_count){.per_token = 1, .divisor = 1};
    d->work_per_token = 2.0 * p->d_out * (form & MOE_SUM_ROWS ? 1 : p->top_k);
    return d;
}

// The input of identity experts goes where out_bias does.
static void use_identity(const struct moe_vk_compiler *c, struct moe_vk_dispatch *d)
{
    bool latent = c->desc->d_latent > 0;
    d->spec[2] = latent ? VKMOE_F32 : c->x_type;
    moe_vk_use(d, MOE_SLOT_WEIGHTS,
               latent ? c->ws.h[MOE_VK_BANK_LATENT] : moe_vk_x_range(c), MOE_VK_READ);
}

// What makes y of the routed sum.
static void set_rest(const struct moe_vk_compiler *c, struct moe_vk_range input,
                     struct moe_vk_range routing, struct combine_params *p)
{
    p->shared_gate = moe_vk_word(routing, c->ws.shared_gate);
    p->shared_input = moe_vk_word(input, c->ws.f[MOE_BANK_SHARED]);
    p->routed_scale = c->desc->c_routed * c->desc->out_scale;
    p->shared_scale = c->desc->c_shared * c->desc->out_scale;
    p->out_bias = vector_word(c, c->map.out_bias);
}

// y from rows of the routed sum.
static void add_finish(struct moe_vk_compiler *c)
{
    const struct moe_vk_workspace *ws = &c->ws;
    struct moe_vk_range input =
        moe_vk_join(ws->f[MOE_VK_BANK_LATENT], ws->f[MOE_BANK_SHARED]);
    struct moe_vk_range routing = moe_vk_choice_range(c, false);
    struct combine_params p = {.d_out = c->desc->d_out};
    set_rest(c, input, routing, &p);
    add_sum(c, "finish", MOE_SUM_ROWS | rest_form(c->desc), &p, input, routing, NULL);
}

static struct moe_vk_range sum_routing(const struct moe_vk_compiler *c)
{
    const struct moe_vk_grouping *g = c->ws.groupings;
    if (c->regime == MOE_VK_DECODE)
        return moe_vk_choice_range(c, false);
    return moe_vk_routing_range(
        g[moe_vk_has_bank(c, MOE_BANK_ADJUGATE) ? MOE_BANK_ADJUGATE : MOE_BANK_ROUTED].positions);
}

// Where a bank's rows are by slot; MOE_NONE: in the order of slots.
static uint32_t positions_word(const struct moe_vk_compiler *c, struct moe_vk_range routing,
                               uint32_t bank)
{
    return c->regime == MOE_VK_DECODE ? MOE_NONE
                                      : moe_vk_word(routing, c->ws.groupings[bank].positions);
}

static void add_slots(struct moe_vk_compiler *c)
{
    const vkmoe_layer_desc *desc = c->desc;
    const struct moe_vk_workspace *ws = &c->ws;
    bool twice = moe_vk_sums_twice(c);
    struct moe_vk_range input = moe_vk_join(ws->f[MOE_BANK_ROUTED], ws->f[MOE_BANK_ADJUGATE]);
    if (!twice)
        input = moe_vk_join(input, ws->f[MOE_BANK_SHARED]);
    struct moe_vk_range routing = sum_routing(c);
    struct moe_vk_range sum = desc->d_latent > 0 ? ws->r : ws->f[MOE_VK_BANK_LATENT];
    struct combine_params p = {
        .d_out = moe_layer_routed_out(desc),
        .top_k = desc->top_k,
        .gates = moe_vk_word(routing, ws->gates),
        .positions = positions_word(c, routing, MOE_BANK_ROUTED),
        .ids = moe_vk_word(routing, ws->ids),
        .n_experts = desc->n_experts,
        .identity_stride = desc->d_latent,
        .adjugate_positions = positions_word(c, routing, MOE_BANK_ADJUGATE),
        .adjugate_input = moe_vk_word(input, ws->f[MOE_BANK_ADJUGATE]),
        .adjugate_scale = desc->adjugate_scale,
        .shared_gate = MOE_NONE,
        .shared_input = MOE_NONE,
        .routed_scale = 1,
    };
    if (!twice)
        set_rest(c, input, routing, &p);
    uint32_t form = slots_form(desc) | (twice ? 0 : rest_form(desc));
    struct moe_vk_dispatch *d =
        add_sum(c, twice ? "sum" : "combine", form, &p, input, routing, twice ? &sum : NULL);
    if (desc->n_zero > 0)
        use_identity(c, d);
}

static void add_fused_out(struct moe_vk_compiler *c)
{
    enum { VEC = 16 };
    bool shared = moe_layer_has_shared(&c->graph->layer);
    const struct moe_vk_block *routed_block = &c->banks[MOE_BANK_ROUTED].block;
    const struct moe_vk_block *shared_block = &c->banks[MOE_BANK_SHARED].block;
    struct moe_vk_range routing = moe_vk_choice_range(c, false);
    struct moe_vk_range h = moe_vk_join(c->ws.h[MOE_BANK_ROUTED], c->ws.h[MOE_BANK_SHARED]);
    struct gemv_out_params p = {
        .n_out = c->desc->d_out,
        .top_k = c->desc->top_k,
        .d_ff = c->desc->d_ff,
        .weight = routed_block->out_weight,
        .weight_stride = routed_block->out_stride,
        .shared_expert = shared ? moe_vk_bank_first(c, MOE_BANK_SHARED) : MOE_NONE,
        .shared_d_ff = c->desc->d_shared_ff,
        .shared_weight = shared_block->out_weight,
        .shared_weight_stride = shared_block->out_stride,
        .shared_input = moe_vk_word(h, c->ws.h[MOE_BANK_SHARED]),
        .ids = moe_vk_word(routing, c->ws.ids),
        .gates = moe_vk_word(routing, c->ws.gates),
        .shared_gate = moe_vk_word(routing, c->ws.shared_gate),
        .act = c->desc->act_out,
        .act_alpha = c->desc->act_alpha,
        .routed_scale = c->desc->c_routed * c->desc->out_scale,
        .shared_scale = c->desc->c_shared * c->desc->out_scale,
        .out_bias = (uint32_t) (c->map.out_bias / VEC),
    };
    struct moe_vk_dispatch *d =
        moe_vk_add(c, "expert out and combine", MOE_SPV_EXPERT_GEMV_OUT, &p, sizeof p);
    d->spec[0] = c->desc->out_type;
    d->spec[1] = c->x_type;
    d->spec[2] = slots_form(c->desc) | rest_form(c->desc);
    moe_vk_use(d, MOE_SLOT_WEIGHTS, (struct moe_vk_range){MOE_VK_BUF_WEIGHTS, 0, c->map.total},
               MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_INPUT, h, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, moe_vk_y_range(c), MOE_VK_WRITE);
    d->work_per_token = moe_vk_out_work(c, MOE_BANK_ROUTED);
    if (shared)
        d->work_per_token += moe_vk_out_work(c, MOE_BANK_SHARED);
    d->x.fixed = (uint32_t) moe_div_up(p.n_out, MOE_PANEL_ROWS);
    d->y = (struct moe_vk_count){.per_token = 1, .divisor = 1};
}

void moe_vk_add_combine(struct moe_vk_compiler *c)
{
    if (c->regime == MOE_VK_DECODE && moe_vk_out_is_fused(c)) {
        add_fused_out(c);
        return;
    }
    add_slots(c);
    if (moe_vk_sums_twice(c) && c->desc->d_latent == 0)
        add_finish(c);
}

// ---- latent ------------------------------------------------------------------------------------

static void add_latent_norm(struct moe_vk_compiler *c)
{
    struct norm_params p = {
        .width = c->desc->d_latent,
        .eps = c->desc->latent_norm_eps,
        .scale = vector_word(c, c->map.latent_norm),
    };
    struct moe_vk_dispatch *d =
        moe_vk_add(c, "latent norm", MOE_SPV_LATENT_NORM, &p, sizeof p);
    moe_vk_use(d, MOE_SLOT_WEIGHTS, vectors_range(c), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, moe_vk_routing_range(c->ws.count), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, c->ws.r, MOE_VK_READ | MOE_VK_WRITE);
    d->y = (struct moe_vk_count){.per_token = 1, .divisor = 1};
    d->work_per_token = 4.0 * p.width;
}

void moe_vk_add_latent_out(struct moe_vk_compiler *c)
{
    if (c->desc->latent_norm)
        add_latent_norm(c);
    moe_vk_add_matmul(c, MOE_VK_BANK_LATENT, true);
    add_finish(c);
}
