// SPDX-License-Identifier: MIT
#include "verify_forms.h"

#include <stdio.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

// ---- levels ------------------------------------------------------------------------------------

struct shape {
    uint32_t n_experts, top_k, d_model, d_ff, d_out;
};

static const struct shape shapes[] = {
    {8, 2, 64, 32, 10},
    {1, 1, 1, 1, 1},
    {2, 1, 4, 8, 4},
    {7, 3, 33, 20, 5},
    {6, 6, 20, 16, 20}, // dense
    {60, 4, 48, 24, 48},
    {128, 8, 64, 32, 64},
    {512, 64, 12, 8, 12},
    {1024, 2, 8, 4, 8},
    {8, 2, 256, 96, 256},
};

struct type_pair {
    const char *name;
    enum vkmoe_dtype in, out;
};

static const struct type_pair types[] = {
    {"f32", VKMOE_F32, VKMOE_F32},
    {"f16", VKMOE_F16, VKMOE_F16},
    {"bf16", VKMOE_BF16, VKMOE_BF16},
    {"f16-f32", VKMOE_F16, VKMOE_F32},
    {"f32-bf16", VKMOE_F32, VKMOE_BF16},
};

struct router {
    const char *name;
    enum vkmoe_score score;
    enum vkmoe_rank rank;
    enum vkmoe_gate_source gate;
    enum vkmoe_norm norm;
    bool bias, selection_bias;
    float eps, scale;
};

// Where eps is used it is far larger than in practice, so that forgetting it shows.
static const struct router routers[] = {
    {"softmax", .score = VKMOE_SCORE_SOFTMAX, .scale = 1},
    {"softmax-norm", .score = VKMOE_SCORE_SOFTMAX, .norm = VKMOE_NORM_SUM_PLUS_EPS, .eps = 0.125f,
     .bias = true, .scale = 1},
    {"select-softmax", .score = VKMOE_SCORE_SOFTMAX, .gate = VKMOE_GATE_SOFTMAX_SELECTED,
     .rank = VKMOE_RANK_LOGIT, .bias = true, .scale = 1},
    {"select-softmax-biased", .score = VKMOE_SCORE_SOFTMAX, .gate = VKMOE_GATE_SOFTMAX_SELECTED,
     .selection_bias = true, .scale = 0.75f},
    {"sigmoid-norm-biased", .score = VKMOE_SCORE_SIGMOID, .norm = VKMOE_NORM_SUM_PLUS_EPS,
     .eps = 0.125f, .selection_bias = true, .scale = 2.5f},
    {"sigmoid-maxnorm", .score = VKMOE_SCORE_SIGMOID, .norm = VKMOE_NORM_MAX_SUM_EPS, .eps = 0.75f,
     .rank = VKMOE_RANK_LOGIT, .scale = 1},
};

struct expert {
    const char *name;
    bool gated;
    enum vkmoe_act act, act_out;
    float alpha;
};

static const struct expert experts[] = {
    {"gated-silu", true, VKMOE_ACT_SILU, VKMOE_ACT_NONE, 1},
    {"gated-gelu_tanh", true, VKMOE_ACT_GELU_TANH, VKMOE_ACT_NONE, 1},
    {"relu", false, VKMOE_ACT_RELU, VKMOE_ACT_NONE, 1},
    {"relu2", false, VKMOE_ACT_RELU2, VKMOE_ACT_NONE, 1},
    {"gelu_erf", false, VKMOE_ACT_GELU_ERF, VKMOE_ACT_NONE, 1},
    {"sigmoid", false, VKMOE_ACT_SIGMOID, VKMOE_ACT_NONE, 1},
    {"tanh-sigmoid", false, VKMOE_ACT_TANH, VKMOE_ACT_SIGMOID, 1},
    {"none-tanh", false, VKMOE_ACT_NONE, VKMOE_ACT_TANH, 1},
    {"gated-quick_gelu-relu", true, VKMOE_ACT_SILU, VKMOE_ACT_RELU, 1.702f},
};

struct shared {
    const char *name;
    bool expert;
    enum vkmoe_shared_gate gate;
    float c_routed, c_shared, out_scale;
};

static const struct shared shareds[] = {
    {"routed", false, VKMOE_SHARED_PLAIN, 1, 1, 1},
    {"shared", true, VKMOE_SHARED_PLAIN, 1, 1, 1},
    {"shared-sigmoid", true, VKMOE_SHARED_SIGMOID, 1.5f, 0.5f, 0.75f},
};

struct bias {
    const char *name;
    bool in, out, scores;
};

static const struct bias biases[] = {
    {"plain", false, false, false},
    {"bias", true, true, false},
    {"bias-scores", true, true, true},
    {"downbias", false, true, false},
};

static const enum vkmoe_dtype x_types[] = {VKMOE_F32, VKMOE_F16, VKMOE_BF16};
// int8 is for types of blocks, which are forms: it is no level that others meet.
static const enum vkmoe_precision precisions[] = {VKMOE_PRECISION_EXACT, VKMOE_PRECISION_HALF,
                                                  VKMOE_PRECISION_INT8};
static const uint32_t tokens[] = {33, 8, 1, 0, 2, 7, 9, 64, 300, 1000};
static const char *const strides[] = {"packed", "padded"};
static const char *const twists[] = {
    "",      "/nan-row",    "/inf-row",     "/nan-expert", "/nan-router",
    "/ties", "/one-expert", "/few-experts", "/tiny",
};

uint32_t verify_n_levels(enum verify_factor factor)
{
    static const uint32_t n_levels[VERIFY_N_FACTORS] = {
        [VERIFY_SHAPE] = COUNT(shapes),   [VERIFY_TYPE] = COUNT(types),
        [VERIFY_ROUTER] = COUNT(routers), [VERIFY_EXPERT] = COUNT(experts),
        [VERIFY_SHARED] = COUNT(shareds), [VERIFY_BIAS] = COUNT(biases),
        [VERIFY_X_TYPE] = COUNT(x_types), [VERIFY_PRECISION] = VERIFY_INT8,
        [VERIFY_TOKENS] = COUNT(tokens),  [VERIFY_STRIDE] = COUNT(strides),
    };
    return n_levels[factor];
}

// ---- one case ----------------------------------------------------------------------------------

bool verify_allowed(const struct verify_case *c)
{
    return verify_tokens(c) < 300 || shapes[c->level[VERIFY_SHAPE]].d_model <= 64;
}

bool verify_quick(const struct verify_case *c)
{
    return verify_allowed(c) &&
           (verify_tokens(c) < 300 || shapes[c->level[VERIFY_SHAPE]].n_experts <= 128);
}

void verify_name(const struct verify_case *c, char out[VERIFY_NAME_SIZE])
{
    const vkmoe_layer_desc d = verify_layer(c);
    int used = 0;
    bool wide = verify_x_type(c) == VKMOE_F32, exact = verify_precision(c) == VKMOE_PRECISION_EXACT;
    struct verify_case unused;
    const char *form = "";
    if (verify_form(c->form, &unused, &form))
        used = snprintf(out, VERIFY_NAME_SIZE, "form/%s/", form);
    snprintf(out + used, VERIFY_NAME_SIZE - (size_t) used,
             "E%uK%uD%uF%uO%u/%s/%s/%s/%s/%s/n%u/%s%s%s%s%s%s%s",
             (unsigned) d.n_experts, (unsigned) d.top_k, (unsigned) d.d_model,
             (unsigned) d.d_ff, (unsigned) d.d_out, types[c->level[VERIFY_TYPE]].name,
             routers[c->level[VERIFY_ROUTER]].name, experts[c->level[VERIFY_EXPERT]].name,
             shareds[c->level[VERIFY_SHARED]].name, biases[c->level[VERIFY_BIAS]].name,
             (unsigned) verify_tokens(c), strides[c->level[VERIFY_STRIDE]], wide ? "" : "/x-",
             wide ? "" : vkmoe_dtype_name(verify_x_type(c)), exact ? "" : "/",
             exact ? "" : vkmoe_precision_name(verify_precision(c)), twists[c->twist],
             c->what == VERIFY_GRADIENTS ? "/gradients" : "");
}

uint32_t verify_tokens(const struct verify_case *c)
{
    return tokens[c->level[VERIFY_TOKENS]];
}

bool verify_padded(const struct verify_case *c)
{
    return c->level[VERIFY_STRIDE] == 1;
}

bool verify_scores(const struct verify_case *c)
{
    return biases[c->level[VERIFY_BIAS]].scores;
}

enum vkmoe_dtype verify_x_type(const struct verify_case *c)
{
    return x_types[c->level[VERIFY_X_TYPE]];
}

enum vkmoe_precision verify_precision(const struct verify_case *c)
{
    return precisions[c->level[VERIFY_PRECISION]];
}

vkmoe_layer_desc verify_layer(const struct verify_case *c)
{
    const struct shape *shape = &shapes[c->level[VERIFY_SHAPE]];
    const struct type_pair *type = &types[c->level[VERIFY_TYPE]];
    const struct router *router = &routers[c->level[VERIFY_ROUTER]];
    const struct expert *expert = &experts[c->level[VERIFY_EXPERT]];
    const struct shared *shared = &shareds[c->level[VERIFY_SHARED]];
    const struct bias *bias = &biases[c->level[VERIFY_BIAS]];

    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = shape->n_experts;
    desc.top_k = shape->top_k;
    desc.d_model = shape->d_model;
    desc.d_ff = shape->d_ff;
    desc.d_out = shape->d_out;
    desc.in_type = type->in;
    desc.out_type = type->out;

    desc.score = router->score;
    desc.rank = router->rank;
    desc.gate_source = router->gate;
    desc.norm = router->norm;
    desc.norm_eps = router->eps;
    desc.routed_scale = router->scale;
    desc.router_bias = router->bias;
    desc.selection_bias = router->selection_bias;

    desc.gated = expert->gated;
    desc.act = expert->act;
    desc.act_out = expert->act_out;
    desc.act_alpha = expert->alpha;
    desc.gate_bias = bias->in && expert->gated;
    desc.up_bias = bias->in;
    desc.down_bias = bias->out;

    // A width of its own, odd on most shapes.
    desc.d_shared_ff = shared->expert ? shape->d_ff + shape->d_ff / 2 + 1 : 0;
    desc.shared_gate = shared->gate;
    desc.c_routed = shared->c_routed;
    desc.c_shared = shared->c_shared;
    desc.out_scale = shared->out_scale;
    verify_form_apply(c->form, &desc);
    return desc;
}

bool verify_same_plan(const struct verify_case *a, const struct verify_case *b)
{
    bool nets = a->what == VERIFY_NET || b->what == VERIFY_NET;
    return !nets && a->form == b->form && a->twist == b->twist &&
           memcmp(a->level, b->level, VERIFY_N_PLAN_FACTORS) == 0;
}

uint32_t verify_layer_code(const struct verify_case *c)
{
    uint32_t code = c->twist;
    for (uint32_t f = 0; f < VERIFY_N_LAYER_FACTORS; f++)
        code = code * verify_n_levels(f) + c->level[f];
    return code | (uint32_t) c->form << 24; // the rest takes 20 bits
}

// ---- sets of cases -----------------------------------------------------------------------------

bool verify_special(uint32_t i, struct verify_case *out)
{
    // {shape, type, router, expert, shared, bias, x_type, precision, tokens, stride}, twist.
    // Tiny weights are not for f16 in x and y, or in operands of `half`: nothing would be left.
    static const struct verify_case cases[] = {
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, VERIFY_NAN_ROW},
        {{0, 0, 0, 0, 0, 0, 0, 0, 1, 0}, VERIFY_NAN_ROW},
        {{3, 1, 4, 2, 2, 1, 0, 0, 0, 1}, VERIFY_NAN_ROW},
        {{0, 2, 0, 1, 1, 0, 0, 0, 0, 0}, VERIFY_INF_ROW},
        {{0, 2, 0, 1, 1, 0, 0, 0, 1, 0}, VERIFY_INF_ROW},
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, VERIFY_NAN_EXPERT},
        {{3, 1, 2, 4, 0, 1, 0, 0, 5, 0}, VERIFY_NAN_EXPERT},
        {{3, 0, 4, 0, 0, 2, 0, 0, 0, 0}, VERIFY_NAN_ROUTER},
        {{5, 0, 5, 0, 0, 1, 0, 0, 1, 0}, VERIFY_NAN_ROUTER},
        {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, VERIFY_TIES},
        {{5, 0, 4, 0, 0, 0, 0, 0, 7, 0}, VERIFY_TIES},
        {{7, 0, 2, 0, 0, 2, 0, 0, 1, 0}, VERIFY_TIES},
        {{2, 0, 0, 0, 0, 1, 0, 0, 9, 0}, VERIFY_ONE_EXPERT},
        {{6, 1, 2, 0, 1, 1, 0, 0, 8, 1}, VERIFY_ONE_EXPERT},
        {{6, 1, 2, 0, 1, 1, 0, 0, 2, 1}, VERIFY_ONE_EXPERT},
        {{5, 2, 0, 0, 0, 0, 0, 0, 8, 0}, VERIFY_FEW_EXPERTS},
        {{8, 0, 2, 2, 0, 0, 0, 0, 0, 0}, VERIFY_FEW_EXPERTS},
        {{0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, VERIFY_TINY},
        {{3, 1, 0, 2, 1, 0, 0, 0, 1, 0}, VERIFY_TINY},
        {{3, 0, 4, 2, 2, 1, 1, 0, 0, 1}, VERIFY_NAN_ROW},
        {{3, 1, 4, 2, 2, 1, 2, 1, 1, 1}, VERIFY_NAN_ROW},
        {{0, 1, 0, 1, 1, 0, 1, 1, 0, 0}, VERIFY_INF_ROW},
        {{0, 2, 0, 1, 1, 0, 2, 0, 1, 1}, VERIFY_INF_ROW},
        {{3, 2, 2, 4, 0, 1, 2, 1, 5, 0}, VERIFY_NAN_EXPERT},
        {{5, 0, 4, 0, 0, 0, 1, 1, 7, 0}, VERIFY_TIES},
        {{6, 1, 2, 0, 1, 1, 1, 1, 8, 1}, VERIFY_ONE_EXPERT},
        {{5, 2, 0, 0, 0, 0, 2, 1, 8, 0}, VERIFY_FEW_EXPERTS},
        {{0, 2, 0, 0, 0, 0, 2, 1, 0, 0}, VERIFY_TINY},
    };
    if (i >= COUNT(cases))
        return false;
    *out = cases[i];
    return true;
}

bool verify_gradients_case(const struct verify_case *c, struct verify_case *out)
{
    enum { MAX_SLOTS = 132, N_TOKENS_LEVELS = 3 }; // 33 tokens, 8 and 1 are levels 0 to 2
    static const bool compared[] = {
        [VERIFY_PLAIN] = true,
        [VERIFY_NAN_ROW] = true,
        [VERIFY_ONE_EXPERT] = true,
        [VERIFY_FEW_EXPERTS] = true,
        [VERIFY_TINY] = false, // the last twist
    };
    const uint32_t top_k = shapes[c->level[VERIFY_SHAPE]].top_k;
    *out = *c;
    out->what = VERIFY_GRADIENTS;
    for (uint8_t level = 0; level < N_TOKENS_LEVELS; level++) {
        if (verify_tokens(out) > 0 && verify_tokens(out) * top_k <= MAX_SLOTS)
            break;
        out->level[VERIFY_TOKENS] = level;
    }
    return c->form == 0 && compared[c->twist] && verify_precision(c) == VKMOE_PRECISION_EXACT;
}

bool verify_form_case(uint32_t i, struct verify_case *out)
{
    const char *name;
    if (!verify_form(1 + i / 2, out, &name))
        return false;
    // 33 tokens and 2; int8, whose errors show in rows where most cancels out, has 8.
    const uint8_t few = out->level[VERIFY_PRECISION] == VERIFY_INT8 ? 1 : 4;
    out->level[VERIFY_TOKENS] = i % 2 ? few : 0;
    out->level[VERIFY_STRIDE] = i % 2;
    return true;
}

bool verify_gradients_quick(const struct verify_case *c)
{
    const struct shape *s = &shapes[c->level[VERIFY_SHAPE]];
    return c->twist != VERIFY_PLAIN ||
           (s->n_experts <= 60 && verify_tokens(c) * s->d_model <= 64 * 64);
}

struct verify_case verify_first(void)
{
    struct verify_case c = {.twist = VERIFY_PLAIN};
    return c;
}

bool verify_next(struct verify_case *c)
{
    do {
        uint32_t f = VERIFY_N_FACTORS;
        while (f > 0 && c->level[f - 1] + 1u == verify_n_levels(f - 1))
            c->level[--f] = 0;
        if (f == 0)
            return false;
        c->level[f - 1]++;
    } while (!verify_allowed(c));
    return true;
}
