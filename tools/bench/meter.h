// SPDX-License-Identifier: MIT
// Inside of measure.h.
#ifndef BENCH_METER_H
#define BENCH_METER_H

#include "measure.h"
#include "sensor.h"

struct bench_meter {
    vkmoe_context *context;
    vkmoe_probe *probe;          // NULL: the device has none
    struct bench_device *device; // its limits grow
    struct bench_sensor *sensor;
};

// Limits as they are now; the best of the run are kept in the device.
enum vkmoe_status bench_meter_probe(struct bench_meter *meter, vkmoe_limits *out);

#endif
