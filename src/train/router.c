// SPDX-License-Identifier: MIT
// Logits of a moe layer's router: every scorer, and the noisy gate.
#include "train/train.h"

#include <math.h>

static struct moe_train_shape shape(uint32_t rows, uint32_t width, uint32_t fan_in)
{
    return (struct moe_train_shape){rows, width, fan_in};
}

static uint32_t ones(const struct moe_emit *emit, uint32_t rows, uint32_t width)
{
    uint32_t a = moe_emit_value(emit, moe_emit_fixed(rows), width, "ones");
    moe_emit_op(emit, MOE_NET_FILL, a, MOE_NET_NONE, MOE_NET_NONE, MOE_NET_NONE)->alpha = 1;
    return a;
}

// -|a|^2 / 2 of every row
static uint32_t half_norms(const struct moe_emit *emit, uint32_t a)
{
    uint32_t norms = moe_emit_value(emit, moe_emit_rows(emit, a), 1, "norms");
    moe_emit_op(emit, MOE_NET_ROW_DOT, norms, a, a, MOE_NET_NONE)->alpha = -0.5f;
    return norms;
}

// -|x - c_e|^2 / 2 = x c_e - |c_e|^2 / 2 - |x|^2 / 2, over width^2. The last term is the same for
// all experts: where only differences count it is left out.
static uint32_t kernel_logits(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    const struct moe_emit *emit = &build->emit;
    const vkmoe_layer_desc *d = layer->layer;
    uint32_t d_in = moe_emit_width(emit, x), n = d->n_experts;
    bool exact = d->score != VKMOE_SCORE_SOFTMAX || layer->z_loss != 0;
    uint32_t centres =
        moe_build_param(build, shape(n, d_in, d_in), MOE_TRAIN_UNIFORM, 0, ".router.weight");
    uint32_t bias =
        moe_emit_reshape(emit, half_norms(emit, centres), moe_emit_fixed(1), n);
    uint32_t sum = moe_emit_matmul(emit, build->rows, n, x, 1, centres, bias, NULL);
    if (exact)
        moe_emit_op(emit, MOE_NET_MATMUL, sum, half_norms(emit, x), ones(emit, n, 1),
                    MOE_NET_NONE)->write = MOE_NET_ADD;
    uint32_t logits = moe_emit_like(emit, sum, "logits");
    moe_emit_op(emit, MOE_NET_SCALE_ROWS, logits, sum, MOE_NET_NONE, MOE_NET_NONE)->alpha =
        1 / (layer->score_width * layer->score_width);
    return logits;
}

// v . tanh(W x + u_e), by (row, expert)
static uint32_t additive_logits(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    const struct moe_emit *emit = &build->emit;
    uint32_t d_in = moe_emit_width(emit, x), n = layer->layer->n_experts, d_score = layer->d_score;
    struct moe_emit_rows pairs = moe_emit_times(build->rows, n);
    uint32_t weight =
        moe_build_param(build, shape(d_score, d_in, d_in), MOE_TRAIN_UNIFORM, 0, ".router.weight");
    uint32_t keys =
        moe_build_param(build, shape(n, d_score, d_score), MOE_TRAIN_UNIFORM, 0, ".router.keys");
    uint32_t vector =
        moe_build_param(build, shape(1, d_score, d_score), MOE_TRAIN_UNIFORM, 0, ".router.vector");
    struct moe_emit_groups by_expert =
        moe_emit_group(emit, moe_emit_iota(emit, pairs, n), n);
    uint32_t projected = moe_emit_matmul(emit, build->rows, d_score, x, 1, weight, MOE_NET_NONE,
                                         NULL);
    uint32_t sum = moe_emit_value(emit, pairs, d_score, "keyed");
    moe_emit_op(emit, MOE_NET_SCALE_ROWS, sum, projected, MOE_NET_NONE, MOE_NET_NONE)->div[0] = n;
    moe_emit_op(emit, MOE_NET_SCALE_ROWS, sum, keys, MOE_NET_NONE, by_expert.ids)->write =
        MOE_NET_ADD;
    uint32_t bent = moe_emit_act(emit, sum, VKMOE_ACT_TANH, 1);
    moe_build_transient(build, bent);
    uint32_t scores = moe_emit_matmul(emit, pairs, 1, bent, 1, vector, MOE_NET_NONE, NULL);
    return moe_emit_reshape(emit, scores, build->rows, n);
}

static uint32_t multiplicative_logits(struct moe_build *build, const vkmoe_net_layer *layer,
                                      uint32_t x)
{
    const struct moe_emit *emit = &build->emit;
    uint32_t d_in = moe_emit_width(emit, x), n = layer->layer->n_experts, d_score = layer->d_score;
    uint32_t weight =
        moe_build_param(build, shape(d_score, d_in, d_in), MOE_TRAIN_UNIFORM, 0, ".router.weight");
    uint32_t keys =
        moe_build_param(build, shape(n, d_score, d_score), MOE_TRAIN_UNIFORM, 0, ".router.keys");
    uint32_t projected = moe_emit_matmul(emit, build->rows, d_score, x, 1, weight, MOE_NET_NONE,
                                         NULL);
    return moe_emit_matmul(emit, build->rows, n, projected, 1, keys, MOE_NET_NONE, NULL);
}

static uint32_t linear_logits(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x,
                              uint32_t n)
{
    uint32_t d_in = moe_emit_width(&build->emit, x), bias = MOE_NET_NONE;
    uint32_t weight =
        moe_build_param(build, shape(n, d_in, d_in), MOE_TRAIN_UNIFORM, 0, ".router.weight");
    if (layer->layer->router_bias)
        bias = moe_build_param(build, shape(1, n, d_in), MOE_TRAIN_UNIFORM, 0, ".router.bias");
    return moe_emit_matmul(&build->emit, build->rows, n, x, 1, weight, bias, NULL);
}

// One unit for all experts.
static uint32_t one_logits(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    const struct moe_emit *emit = &build->emit;
    uint32_t n = layer->layer->n_experts;
    uint32_t unit = linear_logits(build, layer, x, 1);
    uint32_t spread = moe_emit_value(emit, moe_emit_times(build->rows, n), 1, "spread");
    moe_emit_op(emit, MOE_NET_SCALE_ROWS, spread, unit, MOE_NET_NONE, MOE_NET_NONE)->div[0] = n;
    return moe_emit_reshape(emit, spread, build->rows, n);
}

static uint32_t sum_logits(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    const struct moe_emit *emit = &build->emit;
    uint32_t d_in = moe_emit_width(emit, x), n = layer->layer->n_experts;
    uint32_t sum = moe_emit_matmul(emit, build->rows, 1, x, 1, ones(emit, 1, d_in), MOE_NET_NONE,
                                   NULL);
    uint32_t weight =
        moe_build_param(build, shape(n, 1, 1), MOE_TRAIN_UNIFORM, 0, ".router.weight");
    return moe_emit_matmul(emit, build->rows, n, sum, 1, weight, MOE_NET_NONE, NULL);
}

static uint32_t scorer_logits(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    switch (layer->scorer) {
    case VKMOE_SCORER_LINEAR:
        return linear_logits(build, layer, x, layer->layer->n_experts);
    case VKMOE_SCORER_KERNEL:
        return kernel_logits(build, layer, x);
    case VKMOE_SCORER_ADDITIVE:
        return additive_logits(build, layer, x);
    case VKMOE_SCORER_MULTIPLICATIVE:
        return multiplicative_logits(build, layer, x);
    case VKMOE_SCORER_ONE:
        return one_logits(build, layer, x);
    case VKMOE_SCORER_SUM:
        return sum_logits(build, layer, x);
    }
    return MOE_NET_NONE;
}

uint32_t moe_build_logits(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    uint32_t logits = scorer_logits(build, layer, x);
    uint32_t d_in = moe_emit_width(&build->emit, x), n = layer->layer->n_experts;
    if (!layer->noisy)
        return logits;
    uint32_t weight =
        moe_build_param(build, shape(n, d_in, d_in), MOE_TRAIN_FILL, 0, ".router.noise");
    if (!moe_build_training(build))
        return logits;
    uint32_t z = moe_emit_matmul(&build->emit, build->rows, n, x, 1, weight, MOE_NET_NONE, NULL);
    return moe_build_noise(build, logits, z, 1);
}

static uint32_t softmax(const struct moe_emit *emit, uint32_t logits)
{
    uint32_t p = moe_emit_like(emit, logits, "softmax");
    moe_emit_op(emit, MOE_NET_SOFTMAX, p, logits, MOE_NET_NONE, MOE_NET_NONE);
    return p;
}

// softmax(l), or s / (sum s + 1e-20) of scores that are no distribution.
uint32_t moe_build_shares(struct moe_build *build, const vkmoe_layer_desc *layer, uint32_t logits)
{
    const struct moe_emit *emit = &build->emit;
    if (layer->score != VKMOE_SCORE_SIGMOID)
        return softmax(emit, logits);
    struct moe_emit_rows pairs = moe_emit_times(build->rows, layer->n_experts);
    uint32_t scores = moe_emit_act(emit, logits, VKMOE_ACT_SIGMOID, 1);
    uint32_t column = moe_emit_reshape(emit, scores, pairs, 1);
    uint32_t shares = moe_emit_like(emit, column, "shares");
    struct moe_net_op *op =
        moe_emit_op(emit, MOE_NET_SHARE, shares, column, MOE_NET_NONE, MOE_NET_NONE);
    op->top_k = layer->n_experts;
    op->eps = 1e-20f;
    return moe_emit_reshape(emit, shares, build->rows, layer->n_experts);
}
