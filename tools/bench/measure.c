// SPDX-License-Identifier: MIT
// A case on a device in the measuring loop: its runs by both clocks, limits, clocks, dispatches.
#include "meter.h"

#include "loop.h"
#include "roofline.h"
#include "stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

// With a rate of 0 a step moves and computes all that it does, and the parameters stay.
#define RATE 0.0f

// A case that is run. Forward: bind i % n_copies is next, so that every copy gets its turn.
struct run {
    struct bench_meter *meter;
    const struct bench_work *work;
    // Each copy twice, so that n_copies of them from any one on follow each other.
    vkmoe_bind **binds; // (2 n_copies)
    vkmoe_io *ios;      // (2 n_copies)
    uint32_t next;
    double wall_since, processor_since; // seconds, when a block began
};

static uint32_t n_tokens(const struct run *run)
{
    return run->work->what->key.n_tokens;
}

static vkmoe_time_desc time_desc(const struct run *run)
{
    vkmoe_time_desc desc = vkmoe_time_desc_init();
    desc.binds = run->binds + run->next;
    desc.ios = run->ios + run->next;
    desc.n_binds = run->work->n_copies;
    desc.n_tokens = n_tokens(run);
    return desc;
}

static enum vkmoe_net_pass net_pass(const struct run *run)
{
    return run->work->what->mode == BENCH_TRAIN ? VKMOE_NET_PASS_TRAIN : VKMOE_NET_PASS_BACKWARD;
}

// ---- what the loop calls -----------------------------------------------------------------------

static enum vkmoe_status device_layer(void *user, uint32_t n, double *seconds)
{
    struct run *run = user;
    vkmoe_time_desc desc = time_desc(run);
    enum vkmoe_status status = vkmoe_time_runs(&desc, n, seconds);
    run->next = (run->next + n) % run->work->n_copies;
    return status;
}

static enum vkmoe_status wall_layer(void *user, uint32_t n, double *seconds)
{
    struct run *run = user;
    for (uint32_t i = 0; i < n; i++) {
        double begin = cli_clock();
        enum vkmoe_status status =
            vkmoe_run(run->binds[run->next], n_tokens(run), &run->ios[run->next]);
        seconds[i] = cli_clock() - begin;
        if (status != VKMOE_OK)
            return status;
        run->next = (run->next + 1) % run->work->n_copies;
    }
    return VKMOE_OK;
}

static enum vkmoe_status device_net(void *user, uint32_t n, double *seconds)
{
    struct run *run = user;
    return vkmoe_net_time_runs(run->work->net, &run->work->batch, net_pass(run), RATE, n, seconds);
}

// The loss is read back, so that the call waits for the end of its work.
static enum vkmoe_status wall_net_once(struct run *run, double *seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct bench_work *work = run->work;
    bool train = work->what->mode == BENCH_TRAIN;
    double loss;
    if (!train)
        CLI_TRY(vkmoe_net_forward(work->net, &work->batch));
    double begin = cli_clock();
    status = train ? vkmoe_net_train(work->net, &work->batch, RATE, &loss)
                   : vkmoe_net_backward(work->net, 1, &loss);
    *seconds = cli_clock() - begin;
fail:
    return status;
}

static enum vkmoe_status wall_net(void *user, uint32_t n, double *seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < n && status == VKMOE_OK; i++)
        status = wall_net_once(user, &seconds[i]);
    return status;
}

static enum vkmoe_status probe(void *user, vkmoe_limits *out)
{
    return bench_meter_probe(((struct run *) user)->meter, out);
}

static void watch(void *user, bool begin)
{
    struct bench_sensor *sensor = ((struct run *) user)->meter->sensor;
    if (begin)
        bench_sensor_begin(sensor);
    else
        bench_sensor_end(sensor);
}

static void pause_for(void *user, double seconds)
{
    (void) user;
    struct timespec time = {.tv_sec = (time_t) seconds,
                            .tv_nsec = (long) (1e9 * (seconds - floor(seconds)))};
    nanosleep(&time, NULL);
}

static double thread_seconds(void)
{
    struct timespec time;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0)
        return NAN;
    return (double) time.tv_sec + 1e-9 * (double) time.tv_nsec;
}

// This thread computes or spins in every run, so it wants a processor all the time.
static double processor_share(void *user, bool begin)
{
    struct run *run = user;
    double wall = cli_clock(), processor = thread_seconds();
    double share = (processor - run->processor_since) / (wall - run->wall_since);
    if (begin) {
        run->wall_since = wall;
        run->processor_since = processor;
    }
    return isnan(share) ? 1 : share;
}

static bool interrupted(void *user)
{
    (void) user;
    return cli_interrupted();
}

// ---- dispatches --------------------------------------------------------------------------------

static enum vkmoe_status time_dispatches(const struct run *run, vkmoe_dispatch_time *out,
                                         uint32_t *n)
{
    vkmoe_time_desc desc = time_desc(run);
    if (run->work->what->mode == BENCH_FORWARD)
        return vkmoe_time_dispatches(&desc, out, n);
    return vkmoe_net_time_dispatches(run->work->net, &run->work->batch, net_pass(run), RATE, out,
                                     n);
}

enum { DISPATCH_RUNS = 5 };

// Medians of a few runs, by dispatch.
static enum vkmoe_status fill_dispatches(const struct run *run, uint32_t n, struct bench_row *row)
{
    enum vkmoe_status status;
    vkmoe_dispatch_time *times = NULL;
    double of_one[DISPATCH_RUNS];
    CLI_TRY(cli_alloc(DISPATCH_RUNS, n, sizeof *times, &times));
    for (uint32_t i = 0; i < DISPATCH_RUNS; i++) {
        uint32_t room = n;
        CLI_TRY(time_dispatches(run, times + (size_t) i * n, &room));
    }
    free(row->dispatches);
    CLI_TRY(cli_alloc(n, 1, sizeof *row->dispatches, &row->dispatches));
    row->n_timed_dispatches = n;
    for (uint32_t j = 0; j < n; j++) {
        for (uint32_t i = 0; i < DISPATCH_RUNS; i++)
            of_one[i] = times[(size_t) i * n + j].seconds * 1e6;
        row->dispatches[j].median_us = bench_median(of_one, DISPATCH_RUNS);
        snprintf(row->dispatches[j].label, sizeof row->dispatches[j].label, "%s", times[j].label);
    }
fail:
    free(times);
    return status;
}

static enum vkmoe_status count_dispatches(const struct run *run, bool timed, struct bench_row *row)
{
    uint32_t n = 0;
    row->n_dispatches = row->n_timed_dispatches = 0;
    enum vkmoe_status status = time_dispatches(run, NULL, &n);
    if (status == VKMOE_E_UNSUPPORTED)
        return VKMOE_OK;
    row->n_dispatches = n;
    return status == VKMOE_OK && timed && n > 0 ? fill_dispatches(run, n, row) : status;
}

// ---- the row -----------------------------------------------------------------------------------

static vkmoe_plan_kernels kernels_of(const struct bench_work *work)
{
    vkmoe_plan_kernels kernels = {.name = "", .arithmetic = VKMOE_ARITHMETIC_F32};
    vkmoe_plan_kernels known;
    if (work->plan && vkmoe_plan_get_kernels(work->plan, &known) == VKMOE_OK)
        return known;
    return kernels; // a network multiplies in f32
}

// Copies of a layer's weights rotate beyond the caches. A network has one set of parameters, of
// which a cache keeps what it can hold from one run to the next; of GPUs' nothing is known.
void bench_work_cost(const struct bench_work *work, double *bytes, double *flops)
{
    struct bench_cost cost = bench_case_cost(work->what, work->n_experts_hit,
                                             (double) kernels_of(work).weights_size);
    double kept = work->what->mode == BENCH_FORWARD
                      ? 0
                      : (double) vkmoe_context_cache_size(work->context);
    *bytes = fmax(cost.bytes - kept, 0);
    *flops = cost.flops;
}

static void fill_floor(const struct bench_work *work, const vkmoe_limits *limits,
                       struct bench_row *row)
{
    vkmoe_plan_kernels kernels = kernels_of(work);
    bench_work_cost(work, &row->bytes, &row->flops);
    snprintf(row->arithmetic, sizeof row->arithmetic, "%s",
             vkmoe_arithmetic_name(kernels.arithmetic));
    if (!*row->kernel)
        snprintf(row->kernel, sizeof row->kernel, "%s", kernels.name);
    row->read_rate = limits->read_rate > 0 ? limits->read_rate : NAN;
    double peak = limits->peak[kernels.arithmetic];
    row->peak = peak > 0 ? peak : NAN;
    row->dispatch_us = limits->dispatch_seconds > 0 ? limits->dispatch_seconds * 1e6 : NAN;
    bench_row_floor(row);
}

static void fill_clocks(const struct bench_sensor *sensor, struct bench_row *row)
{
    struct bench_clocks clocks = bench_sensor_sum_up(sensor);
    row->clock_mhz = clocks.clock_mhz;
    row->clock_min_mhz = clocks.clock_min_mhz;
    row->power_w = clocks.power_w;
    snprintf(row->clock_source, sizeof row->clock_source, "%s", clocks.clock_source);
    snprintf(row->power_source, sizeof row->power_source, "%s", clocks.power_source);
}

// There are not enough copies of a small layer to drive each other out of the last cache.
static bool is_cached(const struct bench_work *work, const struct bench_row *row)
{
    return work->what->mode == BENCH_FORWARD &&
           row->bytes * work->n_copies < (double) vkmoe_context_cache_size(work->context);
}

static void add_note(struct bench_row *row, const char *what, const char *note)
{
    size_t used = strlen(row->reason);
    if (*note)
        snprintf(row->reason + used, sizeof row->reason - used, "%s%s%s", used ? "; " : "", what,
                 note);
}

// What readers of the row should know, if it has no reason yet.
static void fill_reason(const struct bench_work *work, const struct bench_loop_result *result,
                        struct bench_row *row)
{
    const char *times = result->every_block_lost ? "every block lost a core"
                        : row->plateau           ? ""
                                                 : "no two measurements agree within 5 %";
    if (*row->reason)
        return;
    add_note(row, "", times);
    add_note(row, "", is_cached(work, row) ? "fits in the cache with all copies" : "");
    add_note(row, "wall time only: ", result->no_device_clock);
}

// ---- all of it ---------------------------------------------------------------------------------

static enum vkmoe_status make_rotation(struct run *run)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct bench_work *work = run->work;
    if (work->what->mode != BENCH_FORWARD)
        return VKMOE_OK;
    CLI_TRY(cli_alloc(2, work->n_copies, sizeof *run->binds, &run->binds));
    CLI_TRY(cli_alloc(2, work->n_copies, sizeof *run->ios, &run->ios));
    for (uint32_t i = 0; i < 2 * work->n_copies; i++) {
        run->binds[i] = work->binds[i % work->n_copies];
        run->ios[i] = work->ios[i % work->n_copies];
    }
fail:
    return status;
}

enum vkmoe_status bench_measure(struct bench_meter *meter, const struct bench_work *work,
                                const struct bench_measure_options *options,
                                struct bench_row *row)
{
    enum vkmoe_status status;
    struct run run = {.meter = meter, .work = work};
    const struct bench_device *device = meter->device;
    bool forward = work->what->mode == BENCH_FORWARD;
    const struct bench_target target = {
        .user = &run,
        .time_device = forward ? device_layer : device_net,
        .time_wall = forward ? wall_layer : wall_net,
        .probe = meter->probe ? probe : NULL,
        .watch = watch,
        .pause = pause_for,
        .interrupted = interrupted,
        .processor_share = processor_share,
    };
    const struct bench_loop loop = {
        .options = options,
        .n_copies = forward ? work->n_copies : 1,
        .blocks = meter->probe && device->info.type == VKMOE_DEVICE_CPU,
        .n_threads = device->n_threads,
        .one_thread = device->one_thread_peak,
        .best = &device->peak[VKMOE_ARITHMETIC_F32],
    };
    struct bench_loop_result result;
    bench_sensor_reset(meter->sensor);
    CLI_TRY(make_rotation(&run));
    CLI_TRY(bench_loop_run(&target, &loop, row, &result));
    CLI_TRY(count_dispatches(&run, options->dispatches, row));
    fill_floor(work, &result.limits, row);
    fill_clocks(meter->sensor, row);
    fill_reason(work, &result, row);
fail:
    free(run.binds);
    free(run.ios);
    return status;
}
