// SPDX-License-Identifier: MIT
// Clock and power of a device while it works, from where the system tells them. What the system
// does not tell is NAN with the source "": nothing here is estimated.
//
//     source     clock                                  power
//     "hwmon"    freq1_input of the PCI device (amdgpu) power1_average or _input, energy1_input
//     "gt"       act_freq of the first gt (i915, xe)
//     "nvml"     the driver's library: SM clock         of the board
//     "cpufreq"  scaling_cur_freq of the processors
//     "cpuinfo"  /proc/cpuinfo; a virtual machine's may never change
//     "rapl"                                            powercap's packages, the whole processor
#ifndef BENCH_SENSOR_H
#define BENCH_SENSOR_H

#include <vkmoe/vkmoe.h>

// Where the system tells. Tests have a made-up tree and library.
struct bench_places {
    const char *root; // in front of /sys and /proc; "" is the machine's own
    const char *nvml; // the library's file name
};

#define BENCH_PLACES ((struct bench_places){"", "libnvidia-ml.so.1"})

struct bench_sensor;

struct bench_clocks {
    double clock_mhz, clock_min_mhz; // median and least of the readings
    double power_w;                  // mean
    const char *clock_source, *power_source; // static text
};

// A sensor for the device, matched by its PCI address; the CPU's for a CPU and a software Vulkan
// device. Never fails for want of anything to read. NULL: no memory.
//   n_threads  of the CPU that work: the clock is that of as many fastest processors; 0: all
struct bench_sensor *bench_sensor_open(const vkmoe_device_info *info, uint32_t n_threads,
                                       struct bench_places places);
void bench_sensor_close(struct bench_sensor *sensor);

// Around what the device does. A GPU is read by a thread between the two, a CPU, which that would
// disturb, at the end. sensor may be NULL.
void bench_sensor_begin(struct bench_sensor *sensor);
void bench_sensor_end(struct bench_sensor *sensor);

// Of all that was between begin and end since the last reset.
struct bench_clocks bench_sensor_sum_up(const struct bench_sensor *sensor);
void bench_sensor_reset(struct bench_sensor *sensor);

#endif
