// SPDX-License-Identifier: MIT
// What stands in front of a model's layers and behind them.
#include "model/description.h"

#include <math.h>

void moe_input_scale(enum vkmoe_input kind, const struct moe_input_stats *stats,
                     uint32_t n_features, uint64_t n_rows, const float *x, float *out)
{
    const float *first = stats->first, *second = stats->second;
    for (uint64_t row = 0; row < n_rows; row++, x += n_features, out += n_features) {
        for (uint32_t i = 0; i < n_features; i++) {
            if (kind == VKMOE_INPUT_STANDARDIZE)
                out[i] = (x[i] - first[i]) / second[i];
            else if (kind == VKMOE_INPUT_MINMAX)
                out[i] = (x[i] - first[i]) / (second[i] - first[i]);
            else
                out[i] = x[i];
        }
    }
}

static void softmax(uint32_t n, const float *y, float *out)
{
    float max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        max = fmaxf(max, y[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += out[i] = expf(y[i] - max);
    for (uint32_t i = 0; i < n; i++)
        out[i] /= sum;
}

void moe_head_apply(enum vkmoe_head head, uint32_t n_rows, uint32_t width, const float *y,
                    float *out)
{
    size_t n = (size_t) n_rows * width;
    switch (head) {
    case VKMOE_HEAD_IDENTITY:
        memmove(out, y, n * sizeof *out);
        return;
    case VKMOE_HEAD_SIGMOID:
        for (size_t i = 0; i < n; i++)
            out[i] = 1 / (1 + expf(-y[i]));
        return;
    case VKMOE_HEAD_SOFTMAX:
        for (uint32_t row = 0; row < n_rows; row++)
            softmax(width, y + (size_t) row * width, out + (size_t) row * width);
        return;
    }
}

int32_t moe_head_class(const vkmoe_model_info *info, const float *y)
{
    if (info->n_outputs == 1 && info->n_classes == 2) {
        // Where the probability is above one half; sigmoid(0) is that.
        float half = info->head == VKMOE_HEAD_SIGMOID ? 0 : 0.5f;
        return isnan(y[0]) ? -1 : y[0] > half;
    }
    int32_t best = -1;
    for (uint32_t i = 0; i < info->n_outputs; i++) {
        if (!isnan(y[i]) && (best < 0 || y[i] > y[best]))
            best = (int32_t) i;
    }
    return best;
}
