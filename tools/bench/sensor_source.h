// SPDX-License-Identifier: MIT
// Inside of sensor.h: the places that numbers are read from.
#ifndef BENCH_SENSOR_SOURCE_H
#define BENCH_SENSOR_SOURCE_H

#include "sensor.h"

enum { BENCH_MAX_PROCESSORS = 256, BENCH_MAX_PACKAGES = 8 };

// One device's. A function that is NULL, or returns NAN: not told.
struct bench_source {
    double (*clock)(struct bench_source *source); // MHz
    double (*power)(struct bench_source *source); // W
    double (*energy)(struct bench_source *source); // J since some time, where there is no power
    const char *clock_name, *power_name;
    const char *root;
    char clock_path[320], power_path[320], energy_path[320]; // of a PCI device
    uint32_t n_threads; // of the CPU
    uint32_t processors[BENCH_MAX_PROCESSORS], n_processors; // that tell their frequency
    void *library, *handle; // NVML
    int (*shut_down)(void);
    int (*get_clock)(void *handle, int domain, unsigned *mhz);
    int (*get_power)(void *handle, unsigned *milliwatts);
};

// Fill in what there is; each leaves what it does not find as it is. `source` has been zeroed and
// has its root.
void bench_source_cpu(struct bench_source *source);
void bench_source_pci(struct bench_source *source, const char *pci);
void bench_source_nvml(struct bench_source *source, const char *pci, const char *library);

void bench_source_finish(struct bench_source *source);

#endif
