// SPDX-License-Identifier: MIT
// Inputs, parameters, and the programs of a net in their order.
#include "train/train.h"

#include "base/file.h"
#include "base/host.h"
#include "base/status.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// At most, of one layer.
enum { MAX_PARAMS = 24, MAX_TRANSIENT = 16, MAX_CONSTANTS = 2 };

// ---- parameters ------------------------------------------------------------------------------

// Matrices do; the weights of a combination are one number an expert.
static bool is_matrix(const char *name)
{
    return (moe_has_suffix(name, ".weight") && !strstr(name, ".combine.")) ||
           moe_has_suffix(name, ".table") || moe_has_suffix(name, ".keys");
}

static uint32_t add_like(struct moe_net *net, enum moe_net_role role, struct moe_train_shape shape,
                         const char *name)
{
    return moe_net_add_tensor(net, role, MOE_NET_F32, MOE_NET_FIXED, shape.rows, shape.width, "%s",
                              name);
}

static struct moe_train_param *add_param(struct moe_build *build, enum moe_net_role role,
                                         struct moe_train_shape shape, const char *name)
{
    struct moe_train *train = build->train;
    assert(train->n_params < MAX_PARAMS * build->spec->desc.n_layers);
    struct moe_train_param *param = &train->params[train->n_params++];
    param->value = add_like(train->net, role, shape, name);
    param->grad = param->moment1 = param->moment2 = param->rounded = MOE_NET_NONE;
    param->fan_in = shape.fan_in;
    return param;
}

static void add_moments(struct moe_build *build, struct moe_train_param *param,
                        struct moe_train_shape shape, const char *name)
{
    const vkmoe_net_desc *desc = &build->spec->desc;
    bool is_sgd = desc->optimiser == VKMOE_OPTIMISER_SGD;
    if (!is_sgd || desc->momentum != 0)
        param->moment1 = add_like(build->train->net, MOE_NET_MOMENT, shape, name);
    if (!is_sgd)
        param->moment2 = add_like(build->train->net, MOE_NET_MOMENT, shape, name);
}

// "layers.N" and what the caller says.
static void name_param(const struct moe_build *build, const char *format, va_list args,
                       char name[MOE_NET_NAME])
{
    int n = snprintf(name, MOE_NET_NAME, "layers.%u", build->layer);
    vsnprintf(name + n, MOE_NET_NAME - (size_t) n, format, args);
}

static uint32_t find_or_add(struct moe_build *build, struct moe_train_shape shape,
                            enum moe_train_init init, float fill, const char *name)
{
    struct moe_net *net = build->train->net;
    uint32_t found = moe_net_find(net, MOE_NET_PARAM, name);
    if (found != MOE_NET_NONE || net->failed)
        return found;
    struct moe_train_param *param = add_param(build, MOE_NET_PARAM, shape, name);
    param->init = init;
    param->fill = fill;
    param->decays = is_matrix(name);
    if (!build->spec->desc.evaluation_only)
        param->grad = add_like(net, MOE_NET_GRAD, shape, name);
    if (build->has_steps)
        add_moments(build, param, shape, name);
    return param->value;
}

uint32_t moe_build_param(struct moe_build *build, struct moe_train_shape shape,
                         enum moe_train_init init, float fill, const char *format, ...)
{
    char name[MOE_NET_NAME];
    va_list args;
    va_start(args, format);
    name_param(build, format, args, name);
    va_end(args);
    return find_or_add(build, shape, init, fill, name);
}

// ---- rounded copies --------------------------------------------------------------------------

// The copy of a parameter: the first program of a net makes it, the second finds it by its name.
static uint32_t rounded_copy(struct moe_build *build, uint32_t value, const char *name)
{
    struct moe_train *train = build->train;
    struct moe_net *net = train->net;
    const enum moe_net_type type =
        build->spec->desc.weight_type == VKMOE_F16 ? MOE_NET_F16 : MOE_NET_BF16;
    uint32_t copy = moe_net_find(net, MOE_NET_STATE, name);
    if (copy != MOE_NET_NONE || value >= net->n_tensors)
        return copy;
    const uint32_t rows = net->tensors[value].n, width = net->tensors[value].width;
    copy = moe_net_add_tensor(net, MOE_NET_STATE, type, MOE_NET_FIXED, rows, width, "%s", name);
    const struct moe_emit emit = {net, MOE_NET_ROUND_PROGRAM};
    moe_emit_op(&emit, MOE_NET_ROUND, copy, value, MOE_NET_NONE, MOE_NET_NONE);
    train->params[train->n_params - 1].rounded = copy;
    return copy;
}

static void may_be_half(struct moe_net *net, uint32_t tensor)
{
    if (tensor < net->n_tensors)
        net->tensors[tensor].half = true;
}

uint32_t moe_build_weight(struct moe_build *build, uint32_t rows, uint32_t width,
                          const char *format, ...)
{
    const struct moe_train_shape shape = {rows, width, width};
    struct moe_net *net = build->train->net;
    char name[MOE_NET_NAME];
    va_list args;
    va_start(args, format);
    name_param(build, format, args, name);
    va_end(args);
    uint32_t value = find_or_add(build, shape, MOE_TRAIN_UNIFORM, 0, name);
    may_be_half(net, value);
    may_be_half(net, moe_net_find(net, MOE_NET_GRAD, name));
    if (build->spec->desc.weight_type == VKMOE_F32)
        return value;
    uint32_t copy = rounded_copy(build, value, name);
    may_be_half(net, copy);
    return copy;
}

uint32_t moe_build_selection_bias(struct moe_build *build, uint32_t n_experts)
{
    char name[MOE_NET_NAME];
    snprintf(name, sizeof name, "layers.%u.router.selection_bias", build->layer);
    uint32_t found = moe_net_find(build->train->net, MOE_NET_STATE, name);
    if (found != MOE_NET_NONE || build->train->net->failed)
        return found;
    struct moe_train_param *param =
        add_param(build, MOE_NET_STATE, (struct moe_train_shape){1, n_experts, 1}, name);
    param->init = MOE_TRAIN_FILL;
    return param->value;
}

uint32_t moe_build_constant(struct moe_build *build, uint32_t rows, uint32_t width, float **data)
{
    struct moe_train *train = build->train;
    uint32_t tensor = moe_net_add_tensor(train->net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED,
                                         rows, width, "constant");
    uint64_t n = (uint64_t) rows * width;
    *data = moe_net_own(train->net, (size_t) n * sizeof **data);
    train->constants[train->n_constants++] = (struct moe_train_constant){tensor, *data, n};
    return tensor;
}

void moe_build_transient(struct moe_build *build, uint32_t tensor)
{
    if (moe_build_training(build))
        build->train->transient[build->train->n_transient++] = tensor;
}

void moe_build_keep(struct moe_build *build, uint32_t tensor)
{
    if (tensor < build->train->net->n_tensors)
        build->train->net->tensors[tensor].keep = true;
}

// ---- the net ---------------------------------------------------------------------------------

static uint32_t add_input(struct moe_build *build, enum moe_net_type type,
                          struct moe_emit_rows rows, uint32_t width, const char *name)
{
    return moe_net_add_tensor(build->train->net, MOE_NET_INPUT, type, rows.of, rows.n, width, "%s",
                              name);
}

static uint32_t add_sum(struct moe_build *build, const char *name)
{
    return moe_net_add_tensor(build->train->net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED, 1, 1,
                              "%s", name);
}

static bool takes_labels(const vkmoe_net_desc *desc)
{
    return (desc->loss == VKMOE_LOSS_CROSS_ENTROPY && !desc->soft_targets) ||
           (desc->loss == VKMOE_LOSS_MIXTURE && desc->labels);
}

static void add_targets(struct moe_build *build)
{
    struct moe_train *train = build->train;
    const vkmoe_net_desc *desc = &build->spec->desc;
    const struct moe_emit_rows rows = {train->pools ? MOE_NET_EXAMPLES : MOE_NET_TOKENS, 1};
    float *weights;
    if (takes_labels(desc))
        train->labels = add_input(build, MOE_NET_I32, rows, 1, "labels");
    else
        train->targets = add_input(build, MOE_NET_F32, rows, train->y_width, "targets");
    if (desc->class_weights) {
        train->class_weights = moe_build_constant(build, 1, train->y_width, &weights);
        if (weights)
            memcpy(weights, desc->class_weights, train->y_width * sizeof *weights);
    }
    train->eval_loss = add_sum(build, "eval.loss");
    if (desc->evaluation_only)
        return;
    train->batch_loss = add_sum(build, "batch.loss");
    train->step_loss = add_sum(build, "step.loss");
    train->guard = add_sum(build, "guard");
}

static void add_inputs(struct moe_build *build)
{
    struct moe_train *train = build->train;
    const vkmoe_net_desc *desc = &build->spec->desc;
    const struct moe_emit_rows tokens = {MOE_NET_TOKENS, 1};
    train->y_width = desc->d_in;
    for (uint32_t i = 0; i < desc->n_layers; i++) {
        const vkmoe_net_layer *layer = &build->spec->layers[i];
        train->pools = train->pools || layer->kind == VKMOE_NET_POOL;
        train->y_width = moe_train_width(layer, train->y_width);
    }
    if (build->spec->layers[0].kind == VKMOE_NET_EMBED)
        train->token_ids = add_input(build, MOE_NET_I32, tokens, 1, "token_ids");
    else
        train->x = add_input(build, MOE_NET_F32, tokens, desc->d_in, "x");
    if (train->pools)
        train->offsets =
            add_input(build, MOE_NET_I32, moe_emit_fixed(desc->max_examples + 1), 1, "offsets");
    if (!build->one_layer)
        add_targets(build);
}

// FORWARD or EVAL, from the inputs to `ends`.
static void build_program(struct moe_build *build, enum moe_net_program program)
{
    const vkmoe_net_desc *desc = &build->spec->desc;
    uint32_t x = build->train->x;
    build->emit = (struct moe_emit){build->train->net, program};
    build->rows = (struct moe_emit_rows){MOE_NET_TOKENS, 1};
    if (moe_build_training(build) && desc->input_noise > 0)
        x = moe_build_noise(build, x, MOE_NET_NONE, desc->input_noise);
    for (build->layer = 0; build->layer < desc->n_layers; build->layer++)
        x = moe_build_layer(build, &build->spec->layers[build->layer], x);
    build->ends.y = x;
}

// EVAL with its loss; `ends` are its own by now.
static void build_eval(struct moe_build *build)
{
    struct moe_train *train = build->train;
    build_program(build, MOE_NET_EVAL);
    train->eval_y = build->ends.y;
    if (train->eval_y == train->x) { // a net that does nothing in EVAL
        train->eval_y = moe_emit_like(&build->emit, train->x, "y");
        moe_emit_op(&build->emit, MOE_NET_SCALE_ROWS, train->eval_y, train->x, MOE_NET_NONE,
                    MOE_NET_NONE);
    }
    moe_build_keep(build, train->eval_y);
    const struct moe_emit *emit = &build->emit;
    bool is_mixture = build->spec->desc.loss == VKMOE_LOSS_MIXTURE;
    struct moe_train_loss loss = {build->ends, train->eval_loss, MOE_NET_NONE, MOE_NET_NONE,
                                  MOE_NET_NONE};
    loss.ends.y = train->eval_y;
    if (is_mixture) {
        loss.d_f = moe_emit_like(emit, loss.ends.f, "unused");
        loss.d_gates = moe_emit_like(emit, loss.ends.gates, "unused");
    } else {
        loss.d_y = moe_emit_like(emit, loss.ends.y, "unused");
    }
    moe_build_loss(build, MOE_NET_EVAL, &loss);
}

static enum vkmoe_status alloc_lists(const vkmoe_host *host, uint32_t n_layers,
                                     struct moe_train *train)
{
    enum vkmoe_status status;
    TRY(moe_try_alloc(host, n_layers * MAX_PARAMS * sizeof *train->params, "parameters",
                      &train->params));
    TRY(moe_try_alloc(host, n_layers * sizeof *train->routing, "routing", &train->routing));
    TRY(moe_try_alloc(host, n_layers * sizeof *train->aux, "auxiliary losses", &train->aux));
    TRY(moe_try_alloc(host, n_layers * sizeof *train->balances, "selection biases",
                      &train->balances));
    TRY(moe_try_alloc(host, (n_layers * MAX_CONSTANTS + 1) * sizeof *train->constants, "constants",
                      &train->constants));
    TRY(moe_try_alloc(host, n_layers * MAX_TRANSIENT * sizeof *train->transient, "values",
                      &train->transient));
    for (uint32_t i = 0; i < n_layers; i++)
        train->routing[i] = (struct moe_train_routing){MOE_NET_NONE, MOE_NET_NONE, 0};
fail:
    return status;
}

// A net of `spec` without tensors yet.
static enum vkmoe_status create_empty(const vkmoe_host *host, const struct moe_train_spec *spec,
                                      struct moe_train **out)
{
    enum vkmoe_status status;
    struct moe_train *train = NULL;
    *out = NULL;
    TRY(moe_try_alloc(host, sizeof *train, "a network", &train));
    train->host = host;
    train->n_layers = spec->desc.n_layers;
    TRY(moe_net_create(host, spec->desc.max_tokens, spec->desc.max_examples, &train->net));
    TRY(alloc_lists(host, spec->desc.n_layers, train));
    uint32_t *const tensors[] = {
        &train->x,         &train->token_ids,     &train->offsets,    &train->labels,
        &train->targets,   &train->class_weights, &train->eval_y,     &train->eval_loss,
        &train->guard,     &train->batch_loss,    &train->step_loss,  &train->dy,
        &train->dx,
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        *tensors[i] = MOE_NET_NONE;
    *out = train;
    return VKMOE_OK;
fail:
    moe_train_destroy(train);
    return status;
}

enum vkmoe_status moe_train_create(const vkmoe_host *host, const struct moe_train_spec *spec,
                                   struct moe_train **out)
{
    enum vkmoe_status status;
    struct moe_build build = {.spec = spec, .has_steps = !spec->desc.evaluation_only};
    *out = NULL;
    TRY(create_empty(host, spec, &build.train));
    add_inputs(&build);
    if (!spec->desc.evaluation_only) {
        build_program(&build, MOE_NET_FORWARD);
        TRY(moe_build_backward(&build));
        moe_build_step(&build);
    }
    build_eval(&build);
    TRY(moe_net_plan(build.train->net));
    *out = build.train;
    return VKMOE_OK;
fail:
    moe_train_destroy(build.train);
    return status;
}

enum vkmoe_status moe_train_create_layer(const vkmoe_host *host, const vkmoe_layer_desc *layer,
                                         uint32_t max_tokens, struct moe_train **out)
{
    enum vkmoe_status status;
    vkmoe_layer_desc moe = *layer;
    vkmoe_net_layer one = vkmoe_net_layer_init();
    struct moe_train_spec spec = {vkmoe_net_desc_init(), &one, &moe};
    struct moe_build build = {.spec = &spec, .one_layer = true};
    *out = NULL;
    one.layer = &moe;
    spec.desc.n_layers = 1;
    spec.desc.d_in = moe.d_model;
    spec.desc.max_tokens = spec.desc.max_examples = max_tokens;
    TRY(create_empty(host, &spec, &build.train));
    struct moe_train *train = build.train;
    add_inputs(&build);
    train->dy = add_input(&build, MOE_NET_F32, (struct moe_emit_rows){MOE_NET_TOKENS, 1},
                          moe.d_out, "dy");
    build_program(&build, MOE_NET_FORWARD);
    TRY(moe_build_backward(&build));
    TRY(moe_net_plan(train->net));
    *out = train;
    return VKMOE_OK;
fail:
    moe_train_destroy(build.train);
    return status;
}

void moe_train_destroy(struct moe_train *train)
{
    if (!train)
        return;
    const vkmoe_host *host = train->host;
    moe_net_destroy(train->net);
    moe_free(host, train->params);
    moe_free(host, train->routing);
    moe_free(host, train->aux);
    moe_free(host, train->balances);
    moe_free(host, train->constants);
    moe_free(host, train->transient);
    moe_free(host, train);
}

const struct moe_train_routing *moe_train_routing(const struct moe_train *train, uint32_t layer)
{
    bool weighs = layer < train->n_layers && train->routing[layer].gates != MOE_NET_NONE;
    return weighs ? &train->routing[layer] : NULL;
}
