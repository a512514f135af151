// SPDX-License-Identifier: MIT
// How a case is timed so that the number can be trusted, and the floor that it is held against.
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "work.h"

// A device under measurement: its limits and what the system tells of its clocks and power.
struct bench_meter;

// The context is borrowed. Fills in the device: its facts, threads and limits. It
// stays where it is until the meter is closed: its limits grow with each probe.
enum vkmoe_status bench_meter_open(vkmoe_context *context, const struct cli_device *options,
                                   struct bench_device *device, struct bench_meter **out);
void bench_meter_close(struct bench_meter *meter);

struct bench_measure_options {
    double min_seconds; // of timed runs of a case, at least
    uint32_t min_samples, max_samples;
    bool dispatches; // time each dispatch too
};

// Warms up to a plateau, measures from cold until two measurements agree within 5 %, four times at
// most, and fills in the row's times, blocks, limits around them, floor, clocks and power; in its
// reason what is to be known of them. The outputs in work->ios are those of the runs timed last,
// and each copy has had its turn. Training has a rate of 0: parameters stay as they are.
// VKMOE_E_CANCELLED: interrupted. Else as what is measured.
enum vkmoe_status bench_measure(struct bench_meter *meter, const struct bench_work *work,
                                const struct bench_measure_options *options,
                                struct bench_row *row);

// bytes, flops of one run of the case, by its shape and the experts that are hit.
void bench_work_cost(const struct bench_work *work, double *bytes, double *flops);

#endif
