// SPDX-License-Identifier: MIT
#include "sensor.h"

#include "cli.h"
#include "sensor_source.h"
#include "series.h"
#include "stats.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { READ_MS = 10, MAX_READINGS = 100000 };

struct bench_sensor {
    struct bench_source source;
    bool threaded; // a GPU
    // Between begin and end of a GPU:
    pthread_t thread;
    bool running; // there is a thread
    pthread_mutex_t mutex;
    pthread_cond_t stop_changed;
    bool stop;
    // Readings since the last reset. The thread's while it runs.
    struct bench_series clocks, powers;
    double energy, energy_seconds; // of intervals with an energy at both ends
    double begin_energy, begin_time;
};

// ---- reading -----------------------------------------------------------------------------------

static void add_reading(struct bench_series *series, double value)
{
    if (!isnan(value) && series->n < MAX_READINGS)
        bench_series_append(series, &value, 1); // without memory there is a reading less
}

static void read_now(struct bench_sensor *sensor)
{
    struct bench_source *source = &sensor->source;
    if (source->clock)
        add_reading(&sensor->clocks, source->clock(source));
    if (source->power)
        add_reading(&sensor->powers, source->power(source));
}

static struct timespec soon(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    time.tv_nsec += READ_MS * 1000000L;
    time.tv_sec += time.tv_nsec / 1000000000L;
    time.tv_nsec %= 1000000000L;
    return time;
}

static void *read_until_stopped(void *arg)
{
    struct bench_sensor *sensor = arg;
    pthread_mutex_lock(&sensor->mutex);
    while (!sensor->stop) {
        struct timespec until = soon();
        int wait = 0;
        while (!sensor->stop && wait != ETIMEDOUT)
            wait = pthread_cond_timedwait(&sensor->stop_changed, &sensor->mutex, &until);
        pthread_mutex_unlock(&sensor->mutex);
        if (wait == ETIMEDOUT)
            read_now(sensor);
        pthread_mutex_lock(&sensor->mutex);
    }
    pthread_mutex_unlock(&sensor->mutex);
    return NULL;
}

static void stop_thread(struct bench_sensor *sensor)
{
    pthread_mutex_lock(&sensor->mutex);
    sensor->stop = true;
    pthread_cond_signal(&sensor->stop_changed);
    pthread_mutex_unlock(&sensor->mutex);
    pthread_join(sensor->thread, NULL);
    sensor->running = false;
}

void bench_sensor_begin(struct bench_sensor *sensor)
{
    if (!sensor)
        return;
    sensor->begin_energy = NAN;
    if (sensor->source.energy)
        sensor->begin_energy = sensor->source.energy(&sensor->source);
    sensor->begin_time = cli_clock();
    sensor->stop = false;
    if (sensor->threaded && (sensor->source.clock || sensor->source.power))
        sensor->running =
            pthread_create(&sensor->thread, NULL, read_until_stopped, sensor) == 0;
}

void bench_sensor_end(struct bench_sensor *sensor)
{
    if (!sensor)
        return;
    if (sensor->running)
        stop_thread(sensor);
    else if (!sensor->threaded)
        read_now(sensor);
    if (!sensor->source.energy)
        return;
    double energy = sensor->source.energy(&sensor->source) - sensor->begin_energy;
    if (energy >= 0) { // a counter that began anew tells nothing
        sensor->energy += energy;
        sensor->energy_seconds += cli_clock() - sensor->begin_time;
    }
}

// ---- results -----------------------------------------------------------------------------------

struct bench_clocks bench_sensor_sum_up(const struct bench_sensor *sensor)
{
    struct bench_clocks out = {NAN, NAN, NAN, "", ""};
    if (!sensor)
        return out;
    const struct bench_series *clocks = &sensor->clocks, *powers = &sensor->powers;
    if (clocks->n > 0) {
        out.clock_mhz = bench_median(clocks->values, clocks->n);
        out.clock_min_mhz = bench_least(clocks->values, clocks->n);
        out.clock_source = sensor->source.clock_name;
    }
    if (powers->n > 0)
        out.power_w = bench_series_sum(powers) / powers->n;
    else if (sensor->energy_seconds > 0)
        out.power_w = sensor->energy / sensor->energy_seconds;
    if (!isnan(out.power_w))
        out.power_source = sensor->source.power_name;
    return out;
}

void bench_sensor_reset(struct bench_sensor *sensor)
{
    if (!sensor)
        return;
    sensor->clocks.n = sensor->powers.n = 0;
    sensor->energy = sensor->energy_seconds = 0;
}

// ---- life --------------------------------------------------------------------------------------

struct bench_sensor *bench_sensor_open(const vkmoe_device_info *info, uint32_t n_threads,
                                       struct bench_places places)
{
    struct bench_sensor *sensor = calloc(1, sizeof *sensor);
    if (!sensor)
        return NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&sensor->stop_changed, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&sensor->mutex, NULL);
    struct bench_source *source = &sensor->source;
    source->root = places.root;
    source->n_threads = n_threads;
    sensor->threaded =
        info->type == VKMOE_DEVICE_DISCRETE || info->type == VKMOE_DEVICE_INTEGRATED;
    if (!sensor->threaded) {
        bench_source_cpu(source);
        return sensor;
    }
    if (*info->pci)
        bench_source_pci(source, info->pci);
    if (*info->pci && info->vendor_id == 0x10de && !source->clock)
        bench_source_nvml(source, info->pci, places.nvml);
    return sensor;
}

void bench_sensor_close(struct bench_sensor *sensor)
{
    if (!sensor)
        return;
    if (sensor->running)
        stop_thread(sensor);
    bench_source_finish(&sensor->source);
    bench_series_finish(&sensor->clocks);
    bench_series_finish(&sensor->powers);
    pthread_cond_destroy(&sensor->stop_changed);
    pthread_mutex_destroy(&sensor->mutex);
    free(sensor);
}
