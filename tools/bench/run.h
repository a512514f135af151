// SPDX-License-Identifier: MIT
// Cases on devices, one after the other, into the rows of a file.
#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include "cases.h"
#include "measure.h"

struct bench_run_options {
    struct cli_device device;  // of all devices, but for its spec
    const struct cli_list *specs; // devices, "all" for all there are; empty: the library's choice
    struct bench_measure_options measure;
    bool no_verify, count;
};

// Measures all cases on all devices. The file gets its devices and rows, and `complete`; it has to
// be finished with bench_file_finish whatever comes back: an exit code. What is known at an
// interrupt or when a device is lost is in it.
int bench_run(const struct bench_run_options *options, const struct bench_cases *cases,
              struct bench_file *file);

#endif
