// SPDX-License-Identifier: MIT
// Timed runs of layers and networks.
#include "api/api.h"
#include "api/net.h"
#include "base/bits.h"
#include "base/clock.h"
#include "base/desc.h"

// ---- layers ------------------------------------------------------------------------------------

// A checked desc, in the terms of the back end.
struct timing {
    vkmoe_context *context;
    vkmoe_bind *const *binds;
    struct moe_bound **bounds; // (n)
    vkmoe_io *ios;             // (n) strides filled in
    struct moe_range *ranges;  // (n, MOE_IO_RANGES)
    uint32_t n, n_tokens;
};

static void timing_finish(struct timing *timing)
{
    if (!timing->context)
        return;
    moe_free(&timing->context->host, timing->bounds);
    moe_free(&timing->context->host, timing->ios);
    moe_free(&timing->context->host, timing->ranges);
}

static enum vkmoe_status check_bind(const vkmoe_time_desc *desc, uint32_t i)
{
    const vkmoe_bind *bind = desc->binds[i];
    if (!bind)
        return moe_fail(VKMOE_E_ARGUMENT, "time.binds[%u] is NULL", i);
    if (bind->plan->context != desc->binds[0]->plan->context)
        return moe_fail(VKMOE_E_ARGUMENT, "time.binds[%u] is of another context than binds[0]", i);
    for (uint32_t j = 0; j < i; j++)
        if (desc->binds[j] == bind)
            return moe_fail(VKMOE_E_ARGUMENT, "time.binds[%u] and binds[%u] are the same", j, i);
    if (!bind->own_io)
        return moe_fail(VKMOE_E_UNSUPPORTED, "time.binds[%u] has the caller's buffers: only a "
                        "bind with its own can be timed", i);
    return VKMOE_OK;
}

// The caller's array, whose elements have the size that its header knew.
static enum vkmoe_status check_io(const vkmoe_time_desc *desc, uint32_t i, struct timing *timing)
{
    enum vkmoe_status status;
    struct moe_range *ranges = timing->ranges + (size_t) i * MOE_IO_RANGES;
    const size_t io_size = desc->ios->struct_size;
    const vkmoe_io *io = (const vkmoe_io *) ((const char *) desc->ios + i * io_size);
    if (io->struct_size != io_size)
        return moe_fail(VKMOE_E_ARGUMENT, "time.ios[%u].struct_size = %zu, that of ios[0] is %zu",
                        i, io->struct_size, io_size);
    TRY(moe_api_io(&timing->ios[i], io, desc->binds[i], desc->n_tokens));
    if (desc->binds[i]->plan->program->graph.operation == VKMOE_OPERATION_LAYER &&
        (!timing->ios[i].x || !timing->ios[i].y))
        return moe_fail(VKMOE_E_ARGUMENT, "time.ios[%u].%s is NULL", i,
                        timing->ios[i].x ? "y" : "x");
    TRY(moe_api_io_ranges(ranges, &timing->ios[i], desc->binds[i]->plan->program, desc->n_tokens));
    for (uint32_t r = 0; r < MOE_IO_RANGES; r++)
        ranges[r].owner = "time.ios", ranges[r].index = i;
fail:
    return status;
}

static enum vkmoe_status timing_alloc(const vkmoe_host *host, struct timing *timing)
{
    enum vkmoe_status status;
    const size_t n = timing->n;
    TRY(moe_try_alloc(host, n * sizeof *timing->bounds, "list of binds", &timing->bounds));
    TRY(moe_try_alloc(host, n * sizeof *timing->ios, "list of ios", &timing->ios));
    TRY(moe_try_alloc(host, n * MOE_IO_RANGES * sizeof *timing->ranges, "list of ranges",
                      &timing->ranges));
fail:
    return status;
}

// Finish `out` also on failure.
static enum vkmoe_status timing_init(struct timing *out, const vkmoe_time_desc *desc)
{
    enum vkmoe_status status;
    vkmoe_time_desc full = vkmoe_time_desc_init();
    *out = (struct timing){0};
    TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_time_desc"));
    TRY(moe_api_not_null("time", "binds", full.binds));
    TRY(moe_api_not_null("time", "ios", full.ios));
    if (full.n_binds == 0 || full.n_binds > MOE_API_MAX_BINDS)
        return moe_fail(VKMOE_E_ARGUMENT, "time.n_binds = %u: must be 1 to %d", full.n_binds,
                        MOE_API_MAX_BINDS);
    if (full.n_tokens == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "time.n_tokens = 0: must be at least 1");
    for (uint32_t i = 0; i < full.n_binds; i++)
        TRY(check_bind(&full, i));
    out->context = full.binds[0]->plan->context;
    out->binds = full.binds;
    out->n = full.n_binds;
    out->n_tokens = full.n_tokens;
    TRY(timing_alloc(&out->context->host, out));
    for (uint32_t i = 0; i < out->n; i++) {
        TRY(check_io(&full, i, out));
        out->bounds[i] = full.binds[i]->bound;
    }
    TRY(moe_ranges_check(out->ranges, out->n * MOE_IO_RANGES));
fail:
    return status;
}

// Counters are those of a vkmoe_run.
static void forget_counters(const struct timing *timing, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        timing->binds[i]->counted = false;
}

static enum vkmoe_status time_by_host(const struct timing *timing, uint32_t n_runs,
                                      double *seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_backend *backend = timing->context->device->backend;
    for (uint32_t run = 0; run < n_runs; run++) {
        uint32_t i = run % timing->n;
        double begin = moe_seconds();
        TRY(backend->run(timing->bounds[i], timing->n_tokens, &timing->ios[i]));
        seconds[run] = moe_seconds() - begin;
    }
fail:
    return status;
}

enum vkmoe_status vkmoe_time_runs(const vkmoe_time_desc *desc, uint32_t n_runs, double *seconds)
{
    enum vkmoe_status status;
    struct timing timing = {0};
    TRY(NOT_NULL(desc));
    TRY(NOT_NULL(seconds));
    if (n_runs == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_time_runs: n_runs = 0: must be at least 1");
    TRY(timing_init(&timing, desc));
    forget_counters(&timing, timing.n);
    const vkmoe_host *host = &timing.context->host;
    const struct moe_backend *backend = timing.context->device->backend;
    moe_trace(host, "vkmoe timed runs", true);
    status = backend->time_runs ? backend->time_runs(timing.bounds, timing.ios, timing.n,
                                                     timing.n_tokens, n_runs, seconds)
                                : time_by_host(&timing, n_runs, seconds);
    moe_trace(host, "vkmoe timed runs", false);
fail:
    timing_finish(&timing);
    return status;
}

enum vkmoe_status vkmoe_time_dispatches(const vkmoe_time_desc *desc, vkmoe_dispatch_time *out,
                                        uint32_t *n)
{
    enum vkmoe_status status;
    struct timing timing = {0};
    TRY(NOT_NULL(desc));
    TRY(NOT_NULL(n));
    TRY(timing_init(&timing, desc));
    const struct moe_device *device = timing.context->device;
    if (!device->backend->time_dispatches)
        TRY(moe_fail(VKMOE_E_UNSUPPORTED, "%s does not time its dispatches", device->info.name));
    if (out)
        forget_counters(&timing, 1);
    moe_trace(device->host, "vkmoe timed dispatches", true);
    status = device->backend->time_dispatches(timing.bounds[0], timing.n_tokens, &timing.ios[0],
                                              out, n);
    moe_trace(device->host, "vkmoe timed dispatches", false);
fail:
    timing_finish(&timing);
    return status;
}

// ---- networks ----------------------------------------------------------------------------------

static enum vkmoe_status check_pass(enum vkmoe_net_pass pass)
{
    if ((uint32_t) pass > VKMOE_NET_PASS_TRAIN)
        return moe_fail(VKMOE_E_ARGUMENT, "pass = %u: must be below 3", (uint32_t) pass);
    return VKMOE_OK;
}

// One pass, of which the part that is asked for goes by the clock.
static enum vkmoe_status time_pass(vkmoe_net *net, const vkmoe_net_batch *batch,
                                   enum vkmoe_net_pass pass, float rate,
                                   const struct moe_api_net_clock *clock)
{
    enum vkmoe_status status;
    switch (pass) {
    case VKMOE_NET_PASS_FORWARD:
        return moe_api_net_forward(net, batch, clock);
    case VKMOE_NET_PASS_BACKWARD:
        TRY(moe_api_net_forward(net, batch, NULL));
        return moe_api_net_backward(net, 1, NULL, clock);
    case VKMOE_NET_PASS_TRAIN:
        return moe_api_net_train(net, batch, rate, NULL, clock);
    }
    status = check_pass(pass);
fail:
    return status;
}

enum vkmoe_status vkmoe_net_time_runs(vkmoe_net *net, const vkmoe_net_batch *batch,
                                      enum vkmoe_net_pass pass, float rate, uint32_t n_runs,
                                      double *seconds)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(batch));
    TRY(NOT_NULL(seconds));
    TRY(check_pass(pass));
    if (n_runs == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_net_time_runs: n_runs = 0: must be at least 1");
    for (uint32_t run = 0; run < n_runs; run++) {
        const struct moe_api_net_clock clock = {.seconds = &seconds[run]};
        TRY(time_pass(net, batch, pass, rate, &clock));
    }
fail:
    return status;
}

enum vkmoe_status vkmoe_net_time_dispatches(vkmoe_net *net, const vkmoe_net_batch *batch,
                                            enum vkmoe_net_pass pass, float rate,
                                            vkmoe_dispatch_time *out, uint32_t *n)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(batch));
    TRY(NOT_NULL(n));
    TRY(check_pass(pass));
    const struct moe_device *device = net->context->device;
    if (!device->backend->net_time)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s does not time its dispatches",
                        device->info.name);
    if (!out)
        return moe_api_net_count(net, batch, pass, rate, n);
    const struct moe_api_net_clock clock = {.times = out, .n = n};
    TRY(time_pass(net, batch, pass, rate, &clock));
fail:
    return status;
}
