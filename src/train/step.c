// SPDX-License-Identifier: MIT
// The optimiser: norm of all gradients, a guard against what is not finite, a step of each
// parameter, balancing of selection biases.
#include "train/train.h"

#include <string.h>

static enum moe_net_optimiser optimiser(enum vkmoe_optimiser kind)
{
    switch (kind) {
    case VKMOE_OPTIMISER_SGD:
        return MOE_NET_SGD;
    case VKMOE_OPTIMISER_ADAM:
        return MOE_NET_ADAM;
    case VKMOE_OPTIMISER_ADAMW:
        return MOE_NET_ADAMW;
    }
    return MOE_NET_SGD;
}

// The rule of a parameter: of the first group that matches its name, or the net's own.
static const struct moe_net_step *make_rule(struct moe_build *build,
                                            const struct moe_train_param *param)
{
    const vkmoe_net_desc *desc = &build->spec->desc;
    struct moe_net *net = build->train->net;
    struct moe_net_step *rule = moe_net_own(net, sizeof *rule);
    if (!rule || param->value >= net->n_tensors)
        return rule;
    *rule = (struct moe_net_step){
        .kind = optimiser(desc->optimiser),
        .rate_scale = 1,
        .decay = param->decays ? desc->decay : 0,
        .momentum = desc->momentum,
        .nesterov = desc->nesterov,
        .beta1 = desc->beta1,
        .beta2 = desc->beta2,
        .eps = desc->adam_eps,
    };
    for (uint32_t i = 0; i < desc->n_groups; i++) {
        if (!strstr(net->tensors[param->value].name, desc->groups[i].match))
            continue;
        rule->rate_scale = desc->groups[i].rate_scale;
        rule->decay = desc->groups[i].decay;
        break;
    }
    return rule;
}

static uint32_t scalar(const struct moe_emit *emit, const char *name)
{
    return moe_emit_value(emit, moe_emit_fixed(1), 1, name);
}

void moe_build_step(struct moe_build *build)
{
    struct moe_train *train = build->train;
    const struct moe_emit emit = {train->net, MOE_NET_STEP_PROGRAM};
    uint32_t squares = scalar(&emit, "squares"), factor = scalar(&emit, "factor");
    bool begun = false;
    for (uint32_t i = 0; i < train->n_params; i++) {
        if (train->params[i].grad == MOE_NET_NONE)
            continue;
        moe_emit_op(&emit, MOE_NET_SUM_SQUARES, squares, train->params[i].grad, MOE_NET_NONE,
                    MOE_NET_NONE)->write = begun ? MOE_NET_ADD : MOE_NET_SET;
        begun = true;
    }
    if (!begun) // a net without parameters
        moe_emit_op(&emit, MOE_NET_FILL, squares, MOE_NET_NONE, MOE_NET_NONE, MOE_NET_NONE)->alpha =
            0;
    moe_emit_op(&emit, MOE_NET_CLIP, factor, squares, MOE_NET_NONE, MOE_NET_NONE)->alpha =
        build->spec->desc.clip_norm;
    // finite where both are
    moe_emit_op(&emit, MOE_NET_REDUCE, train->guard, train->step_loss, MOE_NET_NONE, MOE_NET_NONE);
    moe_emit_op(&emit, MOE_NET_REDUCE, train->guard, squares, MOE_NET_NONE, MOE_NET_NONE)->write =
        MOE_NET_ADD;
    for (uint32_t i = 0; i < train->n_params; i++) {
        const struct moe_train_param *param = &train->params[i];
        if (param->grad == MOE_NET_NONE)
            continue;
        const struct moe_net_step *rule = make_rule(build, param);
        struct moe_net_op *op =
            moe_emit_op(&emit, MOE_NET_STEP, param->value, param->grad, factor, train->guard);
        op->out[1] = param->moment1;
        op->out[2] = param->moment2;
        op->step = rule;
    }
    for (uint32_t i = 0; i < train->n_balances; i++) {
        const struct moe_train_balance *balance = &train->balances[i];
        moe_emit_op(&emit, MOE_NET_BALANCE_BIAS, balance->bias, balance->counts, train->guard,
                    MOE_NET_NONE)->alpha = balance->rate;
    }
}
