// SPDX-License-Identifier: MIT
#include "loop.h"

#include "decide.h"
#include "series.h"
#include "stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_WINDOWS = 12, MAX_BLOCK_RUNS = 100000 };

#define BLOCK_SECONDS 0.03
#define WINDOW_SECONDS 0.01
#define PAUSE_SECONDS 0.02
#define PATIENCE 3 // times the blocks that are needed are measured while cores are missing

// Runs between two probes.
struct block {
    uint32_t n_device, n_wall; // samples
    vkmoe_limits before, after;
    double share; // of its time that the thread had a processor
};

// One measurement from cold.
struct measurement {
    struct bench_series device, wall; // samples of all blocks, seconds
    struct block *blocks;
    uint32_t n_blocks, room;
};

struct state {
    const struct bench_target *target;
    const struct bench_loop *loop;
    struct bench_loop_result *result;
    bool device_clock;
    double run_seconds; // of a run, lately
    vkmoe_limits last;  // of the last probe
    struct measurement cold[BENCH_MAX_COLD];
    uint32_t n_cold;
};

static double main_median(const struct state *state, const struct bench_series *device,
                          const struct bench_series *wall)
{
    const struct bench_series *series = state->device_clock ? device : wall;
    return bench_median(series->values, series->n);
}

static enum vkmoe_status no_memory(void)
{
    vkmoe_error_set("no memory for the samples of a measurement");
    return VKMOE_E_MEMORY;
}

// ---- runs --------------------------------------------------------------------------------------

static enum vkmoe_status time_device(struct state *state, uint32_t n, struct bench_series *out)
{
    double *seconds = bench_series_grow(out, n);
    if (!seconds)
        return no_memory();
    enum vkmoe_status status = state->target->time_device(state->target->user, n, seconds);
    if (status != VKMOE_OK)
        out->n -= n;
    return status;
}

static enum vkmoe_status time_wall(struct state *state, uint32_t n, struct bench_series *out)
{
    double *seconds = bench_series_grow(out, n);
    if (!seconds)
        return no_memory();
    enum vkmoe_status status = state->target->time_wall(state->target->user, n, seconds);
    if (status != VKMOE_OK)
        out->n -= n;
    return status;
}

// By the clock that counts.
static enum vkmoe_status time_runs(struct state *state, uint32_t n, struct bench_series *out)
{
    return state->device_clock ? time_device(state, n, out) : time_wall(state, n, out);
}

static enum vkmoe_status check_interrupted(const struct state *state)
{
    if (!state->target->interrupted(state->target->user))
        return VKMOE_OK;
    vkmoe_error_set("interrupted");
    return VKMOE_E_CANCELLED;
}

static enum vkmoe_status probe(struct state *state)
{
    state->last = (vkmoe_limits){0};
    return state->target->probe ? state->target->probe(state->target->user, &state->last)
                                : VKMOE_OK;
}

// ---- warming up --------------------------------------------------------------------------------

// The first call ever, then every copy once; tells whether the device has a clock.
static enum vkmoe_status first_runs(struct state *state, struct bench_row *row)
{
    enum vkmoe_status status;
    struct bench_series wall = {0}, device = {0};
    state->device_clock = state->target->time_device != NULL;
    CLI_TRY(time_wall(state, 1, &wall));
    if (!(row->first_call_ms > 0))
        row->first_call_ms = wall.values[0] * 1e3;
    if (state->loop->n_copies > 1)
        CLI_TRY(time_wall(state, state->loop->n_copies - 1, &wall));
    state->run_seconds = bench_least(wall.values, wall.n);
    if (state->device_clock) {
        status = time_device(state, 1, &device);
        if (status == VKMOE_E_UNSUPPORTED) {
            state->device_clock = false;
            snprintf(state->result->no_device_clock, sizeof state->result->no_device_clock, "%s",
                     vkmoe_error_text());
            status = VKMOE_OK;
        }
    }
fail:
    bench_series_finish(&wall);
    bench_series_finish(&device);
    return status;
}

// Windows of runs until two agree, or a quarter of the time is over.
static enum vkmoe_status warm_up(struct state *state)
{
    enum vkmoe_status status = VKMOE_OK;
    double medians[MAX_WINDOWS], spent = 0, limit = state->loop->options->min_seconds / 4;
    for (uint32_t n = 0; !bench_warm(medians, n, MAX_WINDOWS) && (n == 0 || spent < limit); n++) {
        struct bench_series window = {0};
        uint32_t runs = bench_runs_for(WINDOW_SECONDS, state->run_seconds, MAX_BLOCK_RUNS);
        status = check_interrupted(state);
        if (status == VKMOE_OK)
            status = time_runs(state, runs, &window);
        medians[n] = state->run_seconds = bench_median(window.values, window.n);
        spent += bench_series_sum(&window);
        bench_series_finish(&window);
        if (status != VKMOE_OK)
            break;
    }
    return status;
}

// ---- blocks ------------------------------------------------------------------------------------

static bool is_whole(const struct state *state, const struct block *block)
{
    const struct bench_loop *loop = state->loop;
    if (!loop->blocks)
        return true;
    if (block->share < BENCH_CORE_SHARE)
        return false;
    double full = bench_full_peak(loop->one_thread, loop->n_threads, *loop->best);
    return bench_block_whole(block->before.peak[VKMOE_ARITHMETIC_F32],
                             block->after.peak[VKMOE_ARITHMETIC_F32], full);
}

// Samples and seconds of the blocks that count: of the clock that counts.
struct progress {
    uint32_t n;
    double seconds;
    uint32_t n_whole;
};

static struct progress progress_of(const struct state *state, const struct measurement *m)
{
    struct progress progress = {0};
    const struct bench_series *series = state->device_clock ? &m->device : &m->wall;
    uint32_t first = 0;
    for (uint32_t i = 0; i < m->n_blocks; i++) {
        uint32_t n = state->device_clock ? m->blocks[i].n_device : m->blocks[i].n_wall;
        if (is_whole(state, &m->blocks[i])) {
            progress.n += n;
            progress.n_whole++;
            for (uint32_t j = first; j < first + n; j++)
                progress.seconds += series->values[j];
        }
        first += n;
    }
    return progress;
}

// Two measurements make up what the options ask for.
static uint32_t half(uint32_t n)
{
    return n / 2 + n % 2;
}

static bool is_enough(const struct state *state, struct progress progress)
{
    const struct bench_measure_options *options = state->loop->options;
    bool filled = progress.seconds >= options->min_seconds / 2 &&
                  progress.n >= half(options->min_samples);
    return progress.n > 0 && (filled || progress.n >= half(options->max_samples));
}

// A block's runs of the clock that counts.
static uint32_t block_runs(const struct state *state, struct progress progress)
{
    const struct bench_measure_options *options = state->loop->options;
    double seconds = options->min_seconds / 2 - progress.seconds;
    uint32_t most = half(options->max_samples), least = half(options->min_samples);
    if (state->loop->blocks)
        seconds = BLOCK_SECONDS;
    uint32_t runs = bench_runs_for(seconds, state->run_seconds, MAX_BLOCK_RUNS);
    if (!state->loop->blocks && progress.n + runs < least)
        runs = least - progress.n;
    if (progress.n + runs > most && most > progress.n)
        runs = most - progress.n;
    return runs;
}

static struct block *add_block(struct measurement *m)
{
    if (m->n_blocks == m->room) {
        uint32_t room = 2 * m->room + 8;
        struct block *blocks = realloc(m->blocks, room * sizeof *blocks);
        if (!blocks)
            return NULL;
        m->blocks = blocks;
        m->room = room;
    }
    struct block *block = &m->blocks[m->n_blocks++];
    *block = (struct block){0};
    return block;
}

static double processor_share(const struct state *state, bool begin)
{
    const struct bench_target *target = state->target;
    return target->processor_share ? target->processor_share(target->user, begin) : 1;
}

static enum vkmoe_status run_block(struct state *state, struct measurement *m,
                                   struct progress progress)
{
    enum vkmoe_status status;
    struct block *block = add_block(m);
    if (!block)
        return no_memory();
    uint32_t runs = block_runs(state, progress);
    block->before = state->last;
    processor_share(state, true);
    state->target->watch(state->target->user, true);
    status = time_runs(state, runs, state->device_clock ? &m->device : &m->wall);
    state->target->watch(state->target->user, false);
    CLI_TRY(status);
    if (state->device_clock) {
        block->n_device = runs;
        block->n_wall = half(runs);
        CLI_TRY(time_wall(state, half(runs), &m->wall));
    } else {
        block->n_wall = runs;
    }
    block->share = processor_share(state, false);
    CLI_TRY(probe(state));
    block->after = state->last;
fail:
    return status;
}

// Blocks until enough of them count, or patience ends.
static enum vkmoe_status run_blocks(struct state *state, struct measurement *m)
{
    enum vkmoe_status status = VKMOE_OK;
    struct progress progress = {0};
    double most = PATIENCE * fmax(state->loop->options->min_seconds / 2, BLOCK_SECONDS);
    double spent = 0;
    while (!is_enough(state, progress)) {
        CLI_TRY(check_interrupted(state));
        CLI_TRY(run_block(state, m, progress));
        progress = progress_of(state, m);
        spent = bench_series_sum(state->device_clock ? &m->device : &m->wall);
        if (progress.n_whole < m->n_blocks && spent >= most)
            break;
    }
fail:
    return status;
}

// The last thing before it was a probe, which leaves nothing of ours in caches. Blocks of a CPU
// want one of their own right before them.
static enum vkmoe_status measure_cold(struct state *state)
{
    enum vkmoe_status status;
    struct measurement *m = &state->cold[state->n_cold++];
    state->target->pause(state->target->user, PAUSE_SECONDS);
    CLI_TRY(warm_up(state));
    if (state->loop->blocks)
        CLI_TRY(probe(state));
    CLI_TRY(run_blocks(state, m));
fail:
    return status;
}

// ---- what is kept ------------------------------------------------------------------------------

// Samples of the blocks that count, or of all of them.
static bool gather(const struct state *state, const struct measurement *m, bool all,
                   struct bench_series *device, struct bench_series *wall)
{
    const double *of_device = m->device.values, *of_wall = m->wall.values;
    for (uint32_t i = 0; i < m->n_blocks; i++) {
        const struct block *block = &m->blocks[i];
        if ((all || is_whole(state, block)) &&
            !(bench_series_append(device, of_device, block->n_device) &&
              bench_series_append(wall, of_wall, block->n_wall)))
            return false;
        of_device += block->n_device;
        of_wall += block->n_wall;
    }
    return true;
}

// NAN: no block counts.
static enum vkmoe_status median_of(const struct state *state, const struct measurement *m,
                                   double *median)
{
    struct bench_series device = {0}, wall = {0};
    bool ok = gather(state, m, false, &device, &wall);
    *median = main_median(state, &device, &wall);
    bench_series_finish(&device);
    bench_series_finish(&wall);
    return ok ? VKMOE_OK : no_memory();
}

// One limit of the blocks that count, `offset` bytes into vkmoe_limits. A block's is the better of
// its two probes, the lower one or the higher: either may have been disturbed, and a limit is what
// the device can do.
static double median_limit(const struct state *state, const bool kept[BENCH_MAX_COLD], bool all,
                           size_t offset, bool lower)
{
    struct bench_series values = {0};
    for (uint32_t i = 0; i < state->n_cold; i++)
        for (uint32_t j = 0; kept[i] && j < state->cold[i].n_blocks; j++) {
            const struct block *block = &state->cold[i].blocks[j];
            double before, after;
            memcpy(&before, (const char *) &block->before + offset, sizeof before);
            memcpy(&after, (const char *) &block->after + offset, sizeof after);
            double better = lower ? fmin(before, after) : fmax(before, after);
            if (all || is_whole(state, block))
                bench_series_append(&values, &better, 1);
        }
    double median = bench_median(values.values, values.n);
    bench_series_finish(&values);
    return median;
}

static void sum_up_limits(const struct state *state, const bool kept[BENCH_MAX_COLD], bool all)
{
    vkmoe_limits *out = &state->result->limits;
    *out = (vkmoe_limits){0};
    if (!state->target->probe)
        return;
    out->read_rate = median_limit(state, kept, all, offsetof(vkmoe_limits, read_rate), false);
    out->dispatch_seconds =
        median_limit(state, kept, all, offsetof(vkmoe_limits, dispatch_seconds), true);
    for (size_t i = 0; i < VKMOE_N_ARITHMETICS; i++)
        out->peak[i] = median_limit(state, kept, all,
                                    offsetof(vkmoe_limits, peak) + i * sizeof *out->peak, false);
}

// Seconds become the row's microseconds; the row owns the samples.
static void to_times(struct bench_series *series, struct bench_times *times)
{
    for (uint32_t i = 0; i < series->n; i++)
        series->values[i] *= 1e6;
    free(times->samples_us);
    *times = (struct bench_times){.n = series->n, .samples_us = series->values};
    *series = (struct bench_series){0};
    bench_times_sum_up(times);
}

static enum vkmoe_status sum_up(const struct state *state, const bool kept[BENCH_MAX_COLD],
                                bool all, struct bench_row *row)
{
    enum vkmoe_status status = VKMOE_OK;
    struct bench_series device = {0}, wall = {0};
    row->n_blocks = row->n_dropped_blocks = 0;
    for (uint32_t i = 0; i < state->n_cold; i++) {
        const struct measurement *m = &state->cold[i];
        if (kept[i] && !gather(state, m, all, &device, &wall))
            status = no_memory();
        for (uint32_t j = 0; state->loop->blocks && j < m->n_blocks; j++) {
            row->n_blocks++;
            row->n_dropped_blocks += !is_whole(state, &m->blocks[j]);
        }
    }
    to_times(&device, &row->device_times);
    to_times(&wall, &row->wall_times);
    sum_up_limits(state, kept, all);
    return status;
}

// Keeps the two that agree, else all that have a block that counts, else all.
static enum vkmoe_status keep(const struct state *state, const double *medians, bool agreed,
                              const uint32_t pair[2], struct bench_row *row)
{
    bool kept[BENCH_MAX_COLD] = {false}, lost = true;
    for (uint32_t i = 0; i < state->n_cold; i++)
        lost = lost && isnan(medians[i]);
    for (uint32_t i = 0; i < state->n_cold; i++)
        kept[i] = agreed ? i == pair[0] || i == pair[1] : lost || !isnan(medians[i]);
    row->n_cold = state->n_cold;
    row->plateau = agreed;
    state->result->every_block_lost = lost;
    return sum_up(state, kept, lost, row);
}

static void finish(struct state *state)
{
    for (uint32_t i = 0; i < state->n_cold; i++) {
        bench_series_finish(&state->cold[i].device);
        bench_series_finish(&state->cold[i].wall);
        free(state->cold[i].blocks);
    }
}

enum vkmoe_status bench_loop_run(const struct bench_target *target, const struct bench_loop *loop,
                                 struct bench_row *row, struct bench_loop_result *out)
{
    enum vkmoe_status status;
    struct state state = {.target = target, .loop = loop, .result = out};
    double medians[BENCH_MAX_COLD];
    uint32_t pair[2] = {0};
    bool agreed = false;
    *out = (struct bench_loop_result){0};
    CLI_TRY(first_runs(&state, row));
    CLI_TRY(probe(&state));
    while (!agreed && state.n_cold < BENCH_MAX_COLD) {
        CLI_TRY(measure_cold(&state));
        // What counts may have changed with the best peak: all of them anew.
        for (uint32_t i = 0; i < state.n_cold; i++)
            CLI_TRY(median_of(&state, &state.cold[i], &medians[i]));
        agreed = bench_closest(medians, state.n_cold, pair);
    }
    status = keep(&state, medians, agreed, pair, row);
fail:
    finish(&state);
    return status;
}
