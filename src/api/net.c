// SPDX-License-Identifier: MIT
// Networks: create, run, step.
#include "api/net.h"

#include "base/clock.h"

#include <math.h>

static const struct moe_backend *backend_of(const vkmoe_net *net)
{
    return net->context->device->backend;
}

// ---- create ----------------------------------------------------------------------------------

static enum vkmoe_status write_constants(vkmoe_net *net)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_train *train = net->train;
    for (uint32_t i = 0; i < train->n_constants; i++) {
        const struct moe_train_constant *constant = &train->constants[i];
        if (constant->tensor == train->class_weights)
            net->class_weights = constant->data;
        TRY(backend_of(net)->net_write(net->on_device, constant->tensor, constant->n,
                                       constant->data));
    }
fail:
    return status;
}

static enum vkmoe_status create_on_device(vkmoe_net *net, const vkmoe_net_desc *desc)
{
    struct moe_device *device = net->context->device;
    struct moe_net *made = net->train->net;
    if (desc->variant && !device->backend->kernels)
        return moe_fail(VKMOE_E_UNSUPPORTED, "net.variant = \"%.64s\": %s has no variants to "
                        "choose from", desc->variant, device->info.name);
    made->precision = desc->precision;
    made->variant = desc->variant;
    enum vkmoe_status status = device->backend->net_create(device, made, &net->on_device);
    made->variant = NULL;
    return status;
}

enum vkmoe_status vkmoe_net_create(vkmoe_context *context, const vkmoe_net_desc *desc,
                                   vkmoe_net **out)
{
    enum vkmoe_status status;
    struct moe_train_spec spec = {.layers = NULL};
    vkmoe_net *net = NULL;
    TRY(NOT_NULL(out));
    *out = NULL;
    TRY(NOT_NULL(context));
    TRY(NOT_NULL(desc));
    const struct moe_device *device = context->device;
    if (!device->backend->net_create)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s does not compute networks yet",
                        device->info.name);
    TRY(moe_api_net_spec(&context->host, desc, &spec));
    TRY(moe_api_device_ok(context));
    TRY(moe_try_alloc(&context->host, sizeof *net, "network object", &net));
    net->context = context;
    net->trains = !spec.desc.evaluation_only;
    net->loss = spec.desc.loss;
    TRY(moe_train_create(&context->host, &spec, &net->train));
    TRY(create_on_device(net, &spec.desc));
    TRY(write_constants(net));
    TRY(moe_api_net_fill(net, 0, false));
    moe_api_net_spec_finish(&context->host, &spec);
    *out = net;
    return VKMOE_OK;
fail:
    if (context)
        moe_api_net_spec_finish(&context->host, &spec);
    vkmoe_net_destroy(net);
    return status;
}

void vkmoe_net_destroy(vkmoe_net *net)
{
    if (!net)
        return;
    vkmoe_context *context = net->context;
    if (net->on_device)
        backend_of(net)->net_destroy(net->on_device);
    moe_train_destroy(net->train);
    moe_free(&context->host, net);
}

// ---- runs ------------------------------------------------------------------------------------

#define PROGRAM(kind) (1u << MOE_NET_##kind)

static uint32_t after_round(const vkmoe_net *net, uint32_t programs)
{
    return net->rounded ? programs : programs | PROGRAM(ROUND_PROGRAM);
}

// clock NULL: nobody wants to know how long it takes.
static enum vkmoe_status run_by_clock(vkmoe_net *net, uint32_t programs,
                                      const struct moe_net_args *args,
                                      const struct moe_api_net_clock *clock)
{
    const struct moe_backend *backend = backend_of(net);
    if (clock && backend->net_time)
        return backend->net_time(net->on_device, programs, args, clock->seconds, clock->times,
                                 clock->n);
    double begin = moe_seconds();
    enum vkmoe_status status = backend->net_run(net->on_device, programs, args);
    if (clock)
        *clock->seconds = moe_seconds() - begin;
    return status;
}

// Runs programs for the batch that is on the device, after ROUND where parameters have changed.
static enum vkmoe_status run(vkmoe_net *net, uint32_t programs, uint32_t n_micro, float rate,
                             const struct moe_api_net_clock *clock)
{
    const struct moe_net_args args = {
        .n_tokens = net->n_tokens,
        .n_examples = net->n_examples,
        .seed = net->state.seed,
        .pass = net->pass,
        .accumulate = net->n_backward > 0,
        .loss_scale = (float) (1 / (net->examples * n_micro)),
        .aux_scale = 1 / (float) n_micro,
        .rate = rate,
        .step = net->state.steps + 1,
    };
    const vkmoe_host *host = &net->context->host;
    moe_trace(host, "vkmoe network", true);
    enum vkmoe_status status = run_by_clock(net, after_round(net, programs), &args, clock);
    moe_trace(host, "vkmoe network", false);
    net->rounded = status == VKMOE_OK && !(programs & PROGRAM(STEP_PROGRAM));
    return status;
}

static enum vkmoe_status read_number(vkmoe_net *net, uint32_t tensor, double *out)
{
    float number;
    enum vkmoe_status status;
    if (!out)
        return VKMOE_OK;
    TRY(backend_of(net)->net_read(net->on_device, tensor, 1, &number));
    *out = (double) number;
fail:
    return status;
}

static enum vkmoe_status check_trains(const vkmoe_net *net)
{
    if (!net->trains)
        return moe_fail(VKMOE_E_ARGUMENT, "this net is for evaluation only");
    return moe_api_device_ok(net->context);
}

// Numbers the FORWARD that comes.
static void begin_pass(vkmoe_net *net)
{
    net->pass = net->state.pass++;
}

enum vkmoe_status moe_api_net_forward(vkmoe_net *net, const vkmoe_net_batch *batch,
                                      const struct moe_api_net_clock *clock)
{
    enum vkmoe_status status;
    TRY(check_trains(net));
    TRY(moe_api_net_batch(net, batch));
    begin_pass(net);
    TRY(run(net, PROGRAM(FORWARD), 1, 0, clock));
    net->ran = MOE_API_RAN_FORWARD;
fail:
    return status;
}

enum vkmoe_status vkmoe_net_forward(vkmoe_net *net, const vkmoe_net_batch *batch)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(batch));
    TRY(moe_api_net_forward(net, batch, NULL));
fail:
    return status;
}

static enum vkmoe_status check_targets(const vkmoe_net *net)
{
    if (!net->has_targets)
        return moe_fail(VKMOE_E_ARGUMENT, "the batch has no %s, this loss needs them",
                        net->train->labels != MOE_NET_NONE ? "labels" : "targets");
    return VKMOE_OK;
}

enum vkmoe_status moe_api_net_backward(vkmoe_net *net, uint32_t n_micro, double *loss,
                                       const struct moe_api_net_clock *clock)
{
    enum vkmoe_status status;
    TRY(check_trains(net));
    if (n_micro == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "n_micro = 0: must be at least 1");
    if (net->ran != MOE_API_RAN_FORWARD)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_net_backward: the last run was no "
                        "vkmoe_net_forward");
    TRY(check_targets(net));
    net->ran = MOE_API_RAN_NOTHING;
    TRY(run(net, PROGRAM(BACKWARD), n_micro, 0, clock));
    net->n_backward++;
    TRY(read_number(net, net->train->batch_loss, loss));
fail:
    return status;
}

enum vkmoe_status vkmoe_net_backward(vkmoe_net *net, uint32_t n_micro, double *loss)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(moe_api_net_backward(net, n_micro, loss, NULL));
fail:
    return status;
}

// After STEP: did it change anything? A step without effect is an error, and its gradients are
// dropped.
static enum vkmoe_status finish_step(vkmoe_net *net)
{
    enum vkmoe_status status;
    double guard;
    net->n_backward = 0;
    net->ran = MOE_API_RAN_NOTHING;
    TRY(read_number(net, net->train->guard, &guard));
    if (!isfinite(guard))
        return moe_api_net_not_finite(net);
    net->state.steps++;
fail:
    return status;
}

static enum vkmoe_status check_step(const vkmoe_net *net, float rate)
{
    if (net->state.steps == UINT32_MAX)
        return moe_fail(VKMOE_E_ARGUMENT, "state.steps = %u: no more steps can be counted",
                        net->state.steps);
    if (!(rate >= 0 && isfinite(rate)))
        return moe_fail(VKMOE_E_ARGUMENT, "rate = %g: must be at least 0", (double) rate);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_net_step(vkmoe_net *net, float rate)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(check_trains(net));
    TRY(check_step(net, rate));
    if (net->n_backward == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_net_step: no vkmoe_net_backward since the last "
                        "step");
    TRY(run(net, PROGRAM(STEP_PROGRAM), 1, rate, NULL));
    TRY(finish_step(net));
fail:
    return status;
}

// Checks what a training step needs and takes the batch to the device.
static enum vkmoe_status prepare_train(vkmoe_net *net, const vkmoe_net_batch *batch, float rate)
{
    enum vkmoe_status status;
    TRY(check_trains(net));
    TRY(check_step(net, rate));
    if (net->n_backward > 0)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_net_train: gradients of %u batches wait for "
                        "vkmoe_net_step", net->n_backward);
    TRY(moe_api_net_batch(net, batch));
    TRY(check_targets(net));
fail:
    return status;
}

#define TRAIN_PROGRAMS (PROGRAM(FORWARD) | PROGRAM(BACKWARD) | PROGRAM(STEP_PROGRAM))

enum vkmoe_status moe_api_net_train(vkmoe_net *net, const vkmoe_net_batch *batch, float rate,
                                    double *loss, const struct moe_api_net_clock *clock)
{
    enum vkmoe_status status;
    TRY(prepare_train(net, batch, rate));
    begin_pass(net);
    TRY(run(net, TRAIN_PROGRAMS, 1, rate, clock));
    TRY(read_number(net, net->train->batch_loss, loss));
    TRY(finish_step(net));
fail:
    return status;
}

enum vkmoe_status vkmoe_net_train(vkmoe_net *net, const vkmoe_net_batch *batch, float rate,
                                  double *loss)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(batch));
    TRY(moe_api_net_train(net, batch, rate, loss, NULL));
fail:
    return status;
}

enum vkmoe_status moe_api_net_count(vkmoe_net *net, const vkmoe_net_batch *batch,
                                    enum vkmoe_net_pass pass, float rate, uint32_t *n)
{
    enum vkmoe_status status;
    uint32_t programs = pass == VKMOE_NET_PASS_TRAIN      ? after_round(net, TRAIN_PROGRAMS)
                        : pass == VKMOE_NET_PASS_BACKWARD ? PROGRAM(BACKWARD)
                                                          : after_round(net, PROGRAM(FORWARD));
    if (pass == VKMOE_NET_PASS_TRAIN) {
        TRY(prepare_train(net, batch, rate));
    } else {
        TRY(check_trains(net));
        TRY(moe_api_net_batch(net, batch));
        if (pass == VKMOE_NET_PASS_BACKWARD)
            TRY(check_targets(net));
    }
    const struct moe_net_args args = {.n_tokens = net->n_tokens, .n_examples = net->n_examples};
    TRY(backend_of(net)->net_time(net->on_device, programs, &args, NULL, NULL, n));
fail:
    return status;
}

enum vkmoe_status vkmoe_net_eval(vkmoe_net *net, const vkmoe_net_batch *batch, float *y,
                                 double *loss)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(batch));
    TRY(moe_api_device_ok(net->context));
    TRY(moe_api_net_batch(net, batch));
    if (loss)
        TRY(check_targets(net));
    TRY(run(net, PROGRAM(EVAL), 1, 0, NULL));
    net->ran = MOE_API_RAN_EVAL;
    if (y)
        TRY(backend_of(net)->net_read(net->on_device, net->train->eval_y,
                                      (uint64_t) net->n_examples * net->train->y_width, y));
    TRY(read_number(net, net->train->eval_loss, loss));
fail:
    return status;
}

// ---- routing ---------------------------------------------------------------------------------

// Elements of a tensor in the last run.
static uint64_t n_elements(const vkmoe_net *net, uint32_t i)
{
    const struct moe_net_tensor *tensor = &net->train->net->tensors[i];
    return moe_net_rows(tensor, net->n_tokens, net->n_examples) * tensor->width;
}

enum vkmoe_status vkmoe_net_routing(vkmoe_net *net, uint32_t layer, int32_t *ids, float *gates)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    if (net->ran != MOE_API_RAN_EVAL)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_net_routing: the last run was no vkmoe_net_eval");
    const struct moe_train_routing *routing = moe_train_routing(net->train, layer);
    if (!routing)
        return moe_fail(VKMOE_E_ARGUMENT, "layer = %u: not a moe layer that weighs its experts",
                        layer);
    uint64_t n = n_elements(net, routing->gates);
    TRY(moe_api_device_ok(net->context));
    if (ids && routing->ids != MOE_NET_NONE)
        TRY(backend_of(net)->net_read(net->on_device, routing->ids, n, ids));
    for (uint64_t i = 0; ids && routing->ids == MOE_NET_NONE && i < n; i++)
        ids[i] = (int32_t) (i % routing->top_k);
    if (gates)
        TRY(backend_of(net)->net_read(net->on_device, routing->gates, n, gates));
fail:
    return status;
}
