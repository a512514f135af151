// SPDX-License-Identifier: MIT
// First values of parameters: Philox, made on the host so that every device begins with the same
// bits.
#include "philox.h"
#include "train/train.h"

#include <math.h>

// Runs of a net count their passes from 0: this one is for first values.
#define INIT_PASS UINT32_MAX

struct words {
    uint32_t w[4];
};

static struct words words_at(uint64_t seed, uint32_t stream, uint32_t row, uint32_t column)
{
    struct words v = {{column, row, stream, INIT_PASS}};
    moe_philox(v.w, (uint32_t) seed, (uint32_t) (seed >> 32));
    return v;
}

static float uniform(struct words v, float scale)
{
    return (2 * ((float) (v.w[0] >> 8) * MOE_PHILOX_UNIT) - 1) * scale;
}

static float normal(struct words v, float scale)
{
    const float two_pi = 6.28318530717958647692f;
    float a = (float) ((v.w[0] >> 8) + 1) * MOE_PHILOX_UNIT;
    float b = (float) (v.w[1] >> 8) * MOE_PHILOX_UNIT;
    return sqrtf(-2 * logf(a)) * cosf(two_pi * b) * scale;
}

void moe_train_init_param(const struct moe_train *train, uint32_t i, uint64_t seed, float *data)
{
    const struct moe_train_param *param = &train->params[i];
    const struct moe_net_tensor *tensor = &train->net->tensors[param->value];
    float bound = 1 / sqrtf((float) param->fan_in);
    for (uint32_t row = 0; row < tensor->n; row++) {
        float *to = data + (uint64_t) row * tensor->width;
        for (uint32_t column = 0; column < tensor->width; column++) {
            switch (param->init) {
            case MOE_TRAIN_UNIFORM:
                to[column] = uniform(words_at(seed, i, row, column), bound);
                break;
            case MOE_TRAIN_NORMAL:
                to[column] = normal(words_at(seed, i, row, column), 0.1f);
                break;
            case MOE_TRAIN_FILL:
                to[column] = param->fill;
                break;
            }
        }
    }
}
