// SPDX-License-Identifier: MIT
// A device and its limits.
#include "meter.h"


#include <math.h>
#include <stdlib.h>

// The better of two rates, of which the first may be NAN and the second 0: not known.
static double greater(double best, double now)
{
    return now > 0 && !(best >= now) ? now : best;
}

enum vkmoe_status bench_meter_probe(struct bench_meter *meter, vkmoe_limits *out)
{
    struct bench_device *device = meter->device;
    enum vkmoe_status status = vkmoe_probe_run(meter->probe, VKMOE_PROBE_ALL, out);
    if (status != VKMOE_OK)
        return status;
    device->read_rate = greater(device->read_rate, out->read_rate);
    for (size_t i = 0; i < VKMOE_N_ARITHMETICS; i++)
        device->peak[i] = greater(device->peak[i], out->peak[i]);
    double us = out->dispatch_seconds * 1e6;
    if (us > 0 && !(device->dispatch_us > 0 && device->dispatch_us <= us))
        device->dispatch_us = us;
    return VKMOE_OK;
}

// What one thread computes when the others sleep, with the same instructions.
static enum vkmoe_status probe_one_thread(const struct cli_device *options,
                                          const vkmoe_device_info *info, double *peak)
{
    enum vkmoe_status status;
    vkmoe_context *context = NULL;
    vkmoe_probe *probe = NULL;
    vkmoe_host host = cli_host(options);
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_probe_desc probe_desc = vkmoe_probe_desc_init();
    vkmoe_limits limits;
    desc.host = &host;
    desc.device = "cpu";
    desc.n_threads = 1;
    desc.cpu_isa = info->tier;
    probe_desc.read_size = 1 << 20; // is not read
    CLI_TRY(vkmoe_context_create(&desc, &context));
    CLI_TRY(vkmoe_probe_create(context, &probe_desc, &probe));
    CLI_TRY(vkmoe_probe_run(probe, VKMOE_PROBE_ARITHMETIC, &limits));
    *peak = limits.peak[VKMOE_ARITHMETIC_F32];
fail:
    vkmoe_probe_destroy(probe);
    vkmoe_context_destroy(context);
    return status;
}

static enum vkmoe_status probe_limits(struct bench_meter *meter, const struct cli_device *options)
{
    struct bench_device *device = meter->device;
    vkmoe_limits limits;
    vkmoe_probe_desc desc = vkmoe_probe_desc_init();
    if (device->info.type == VKMOE_DEVICE_SOFTWARE)
        desc.read_size = 64 << 20; // it reads a hundredth of what the CPU does: seconds otherwise
    enum vkmoe_status status = vkmoe_probe_create(meter->context, &desc, &meter->probe);
    if (status == VKMOE_E_UNSUPPORTED)
        return VKMOE_OK; // the reference: its rows have no floor
    CLI_TRY(status);
    if (device->info.type == VKMOE_DEVICE_CPU)
        CLI_TRY(probe_one_thread(options, &device->info, &device->one_thread_peak));
    CLI_TRY(bench_meter_probe(meter, &limits));
    device->n_threads = vkmoe_context_thread_count(meter->context); // now that they have started
fail:
    return status;
}

enum vkmoe_status bench_meter_open(vkmoe_context *context, const struct cli_device *options,
                                   struct bench_device *device, struct bench_meter **out)
{
    enum vkmoe_status status;
    struct bench_meter *meter = NULL;
    *out = NULL;
    CLI_TRY(vkmoe_context_info(context, &device->info));
    device->n_threads = vkmoe_context_thread_count(context);
    device->read_rate = device->dispatch_us = device->one_thread_peak = NAN;
    memset(device->peak, 0, sizeof device->peak);
    device->cache_size = vkmoe_context_cache_size(context);
    CLI_TRY(cli_alloc(1, 1, sizeof *meter, &meter));
    meter->context = context;
    meter->device = device;
    meter->sensor = bench_sensor_open(&device->info, device->n_threads, BENCH_PLACES);
    CLI_TRY(probe_limits(meter, options));
    *out = meter;
    return VKMOE_OK;
fail:
    bench_meter_close(meter);
    return status;
}

void bench_meter_close(struct bench_meter *meter)
{
    if (!meter)
        return;
    bench_sensor_close(meter->sensor);
    vkmoe_probe_destroy(meter->probe);
    free(meter);
}
