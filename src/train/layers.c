// SPDX-License-Identifier: MIT
// Layers but moe: each takes x and gives y.
#include "train/train.h"

uint32_t moe_build_noise(struct moe_build *build, uint32_t a, uint32_t z, float scale)
{
    uint32_t y = moe_emit_like(&build->emit, a, "noisy");
    struct moe_net_op *op = moe_emit_op(&build->emit, MOE_NET_NOISE, y, a, z, MOE_NET_NONE);
    op->alpha = scale;
    op->stream = build->train->n_streams++;
    return y;
}

uint32_t moe_build_dropout(struct moe_build *build, uint32_t a, float rate)
{
    if (!moe_build_training(build) || rate <= 0)
        return a;
    uint32_t y = moe_emit_like(&build->emit, a, "dropout");
    struct moe_net_op *op =
        moe_emit_op(&build->emit, MOE_NET_DROPOUT, y, a, MOE_NET_NONE, MOE_NET_NONE);
    op->alpha = rate;
    op->stream = build->train->n_streams++;
    return y;
}

static uint32_t build_linear(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    uint32_t d_in = moe_emit_width(&build->emit, x);
    uint32_t bias = MOE_NET_NONE;
    uint32_t weight = moe_build_weight(build, layer->d_out, d_in, ".weight");
    if (layer->bias)
        bias = moe_build_param(build, (struct moe_train_shape){1, layer->d_out, d_in},
                               MOE_TRAIN_UNIFORM, 0, ".bias");
    uint32_t y = moe_emit_matmul(&build->emit, build->rows, layer->d_out, x, 1, weight, bias, NULL);
    return layer->act == VKMOE_ACT_NONE ? y : moe_emit_act(&build->emit, y, layer->act, 1);
}

static uint32_t build_norm(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    const struct moe_emit *emit = &build->emit;
    uint32_t width = moe_emit_width(emit, x), bias = MOE_NET_NONE;
    const struct moe_train_shape row = {1, width, width};
    uint32_t gain = moe_build_param(build, row, MOE_TRAIN_FILL, 1, ".gain");
    if (layer->bias)
        bias = moe_build_param(build, row, MOE_TRAIN_FILL, 0, ".bias");
    uint32_t y = moe_emit_like(emit, x, "norm");
    uint32_t stats = moe_emit_value(emit, build->rows, 2, "stats");
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_NORM, y, x, gain, bias);
    op->out[1] = stats;
    op->n = layer->rms;
    op->eps = layer->eps;
    return y;
}

static uint32_t build_pool(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    static const enum moe_net_pool kinds[] = {
        [VKMOE_POOL_MEAN] = MOE_NET_POOL_MEAN,
        [VKMOE_POOL_SUM] = MOE_NET_POOL_SUM,
        [VKMOE_POOL_MAX] = MOE_NET_POOL_MAX,
    };
    const struct moe_emit *emit = &build->emit;
    const struct moe_emit_rows examples = {MOE_NET_EXAMPLES, 1};
    uint32_t width = moe_emit_width(emit, x), best = MOE_NET_NONE;
    uint32_t y = moe_emit_value(emit, examples, width, "pooled");
    if (layer->pool == VKMOE_POOL_MAX)
        best = moe_net_add_tensor(emit->net, MOE_NET_VALUE, MOE_NET_I32, examples.of, examples.n,
                                  width, "best");
    struct moe_net_op *op =
        moe_emit_op(emit, MOE_NET_POOL, y, x, build->train->offsets, MOE_NET_NONE);
    op->out[1] = best;
    op->n = kinds[layer->pool];
    build->rows = examples;
    return y;
}

static uint32_t build_embed(struct moe_build *build, const vkmoe_net_layer *layer)
{
    uint32_t table =
        moe_build_param(build, (struct moe_train_shape){layer->n_rows, layer->d_out, layer->d_out},
                        MOE_TRAIN_NORMAL, 0, ".table");
    uint32_t y = moe_emit_value(&build->emit, build->rows, layer->d_out, "embedded");
    moe_emit_op(&build->emit, MOE_NET_SCALE_ROWS, y, table, MOE_NET_NONE, build->train->token_ids);
    return y;
}

static uint32_t build_kind(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    switch (layer->kind) {
    case VKMOE_NET_MOE:
        return moe_build_moe(build, layer, x);
    case VKMOE_NET_LINEAR:
        return build_linear(build, layer, x);
    case VKMOE_NET_NORM:
        return build_norm(build, layer, x);
    case VKMOE_NET_POOL:
        return build_pool(build, layer, x);
    case VKMOE_NET_DROPOUT:
        return moe_build_dropout(build, x, layer->rate);
    case VKMOE_NET_EMBED:
        return build_embed(build, layer);
    }
    return MOE_NET_NONE;
}

uint32_t moe_build_layer(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    uint32_t y = build_kind(build, layer, x);
    if (!layer->residual)
        return y;
    // y of a layer that does nothing (dropout in EVAL) is x itself
    uint32_t sum = moe_emit_like(&build->emit, x, "residual");
    moe_emit_op(&build->emit, MOE_NET_SCALE_ROWS, sum, y, MOE_NET_NONE, MOE_NET_NONE);
    moe_emit_add(&build->emit, sum, x, 1);
    return sum;
}

uint32_t moe_train_width(const vkmoe_net_layer *layer, uint32_t width)
{
    switch (layer->kind) {
    case VKMOE_NET_MOE:
        return layer->layer->d_out;
    case VKMOE_NET_LINEAR:
    case VKMOE_NET_EMBED:
        return layer->d_out;
    case VKMOE_NET_NORM:
    case VKMOE_NET_POOL:
    case VKMOE_NET_DROPOUT:
        return width;
    }
    return width;
}
