// SPDX-License-Identifier: MIT
// The model file. With standardised targets the net learns (t - m) / s; its last layer is saved so
// that it gives t: what it sums up with weights that add to one is multiplied by s, plus m.
#include "model/trainer.h"

#include "base/host.h"
#include "base/status.h"

#include <stdio.h>

static uint32_t last_layer(const struct moe_description *d)
{
    return d->info.n_layers - 1;
}

// Do the gate weights of a token add up to one?
static bool adds_to_one(const vkmoe_net_layer *layer)
{
    const vkmoe_layer_desc *moe = layer->layer;
    if (layer->combine == VKMOE_COMBINE_MEAN)
        return true;
    if (layer->combine != VKMOE_COMBINE_WEIGHTED_SUM || moe->routed_scale != 1)
        return false;
    if (moe->norm != VKMOE_NORM_NONE)
        return moe->norm_eps == 0;
    return moe->score == VKMOE_SCORE_SOFTMAX &&
           (moe->gate_source == VKMOE_GATE_SOFTMAX_SELECTED || moe->top_k == moe->n_experts);
}

static bool can_fold(const vkmoe_net_layer *layer)
{
    if (layer->residual)
        return false;
    if (layer->kind == VKMOE_NET_LINEAR)
        return layer->bias && layer->act == VKMOE_ACT_NONE;
    if (layer->kind != VKMOE_NET_MOE || layer->layer->d_shared_ff > 0)
        return false;
    const vkmoe_layer_desc *moe = layer->layer;
    bool linear = moe->expert_kind == VKMOE_EXPERT_LINEAR;
    if ((linear ? moe->act : moe->act_out) != VKMOE_ACT_NONE)
        return false;
    return layer->combine == VKMOE_COMBINE_STACK || (moe->down_bias && adds_to_one(layer));
}

enum vkmoe_status moe_trainer_check_fold(const vkmoe_trainer *t)
{
    const struct moe_description *d = &t->description;
    if (!t->config.standardize_targets || can_fold(&d->layers[last_layer(d)]))
        return VKMOE_OK;
    return moe_fail(VKMOE_E_DATA,
                    "%s: config: train.targets: standardize needs a last layer that can undo it: "
                    "with a bias, neither activation nor residual, and gate weights that sum to 1",
                    t->name);
}

// What becomes of a parameter of the last layer: times s, and plus m; row by row of outputs.
struct fold {
    const char *name;
    bool scaled, moved;
    bool columns; // outputs lie along the row, as in a bias
};

static const struct fold *find_fold(const vkmoe_net_layer *layer, const char *name)
{
    static const struct fold linear[] = {
        {"weight", true, false, false}, {"bias", true, true, true}, {0}};
    static const struct fold experts[] = {
        {"experts.down.weight", true, false, false}, {"experts.down.bias", true, true, true},
        {"experts.weight", true, false, false},      {"experts.bias", true, true, true},
        {0}};
    static const struct fold stack[] = {
        {"experts.down.weight", true, false, false}, {"experts.down.bias", true, false, true},
        {"experts.weight", true, false, false},      {"experts.bias", true, false, true},
        {"combine.bias", true, true, true},          {0}};
    const struct fold *fold = layer->kind == VKMOE_NET_LINEAR              ? linear
                              : layer->combine == VKMOE_COMBINE_STACK ? stack
                                                                           : experts;
    while (fold->name && strcmp(fold->name, name) != 0)
        fold++;
    return fold->name ? fold : NULL;
}

static enum vkmoe_status read_tensor(void *user, const char *net_name, float *data, uint64_t n)
{
    vkmoe_trainer *t = user;
    const struct moe_description *d = &t->description;
    uint32_t width = d->info.n_outputs;
    enum vkmoe_status status = vkmoe_net_read(t->net, VKMOE_NET_VALUE, net_name, data, n);
    char prefix[32];
    int size = snprintf(prefix, sizeof prefix, "layers.%u.", d->n_input_layers + last_layer(d));
    if (status != VKMOE_OK || !t->target.first || strncmp(net_name, prefix, (size_t) size) != 0)
        return status;
    const struct fold *fold = find_fold(&d->layers[last_layer(d)], net_name + size);
    if (!fold)
        return VKMOE_OK;
    uint64_t row = 1; // elements of a row of one output
    for (uint32_t i = 0; i < t->n_params && !fold->columns; i++) {
        if (strcmp(t->params[i].info.name, net_name) == 0)
            row = t->params[i].info.width;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint32_t output = (uint32_t) (i / row % width);
        data[i] = data[i] * t->target.second[output] + (fold->moved ? t->target.first[output] : 0);
    }
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_trainer_save(vkmoe_trainer *trainer, const char *path)
{
    if (!trainer || !path)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_trainer_save: %s is NULL",
                        trainer ? "path" : "trainer");
    const struct moe_input_stats stats = {trainer->input.first, trainer->input.second};
    return moe_model_save(path, &trainer->description, trainer->input.first ? &stats : NULL,
                          read_tensor, trainer);
}
