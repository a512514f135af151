// SPDX-License-Identifier: MIT
// A benchmark's results in memory and as a file, schema "vkmoe-bench/1" (docs/vkmoe-bench-1.md).
// bench makes rows, the writers print them, compare and report read them.
//
// Times are microseconds (_us), rates are bytes/s and operations/s. A number that is not known is
// NAN (0 for counts); in a file it is null. Texts are never NULL, "" is not known.
#ifndef BENCH_ROW_H
#define BENCH_ROW_H

#include "cli.h"

#include <vkmoe/bench.h>

enum bench_status { // the spelling in files: bench_status_name
    BENCH_OK,
    BENCH_UNVERIFIED,  // timed, but the outputs were not compared with anything
    BENCH_UNSUPPORTED, // the device or this version does not compute it
    BENCH_SKIPPED,     // not tried: no memory for it, or interrupted
    BENCH_ERROR,       // it failed, or its outputs are wrong
};

enum bench_bound { // what the floor is made of most: bench_bound_name
    BENCH_BOUND_NONE,
    BENCH_BOUND_MEMORY,
    BENCH_BOUND_COMPUTE,
    BENCH_BOUND_LAUNCH,
};

// What is the same in rows that may be compared. The device and its driver are not part of it.
struct bench_key {
    char model[64]; // preset or model file's name with its layer; "" for a plain shape
    uint32_t n_experts, top_k, d_model, d_ff, d_shared_ff;
    char rule[64];     // of the router, in short: "softmax norm"
    char expert[64];   // "gated silu"
    char type[16], x_type[16], precision[16]; // of the weights, of x and y
    char mode[16];     // forward, backward, train
    char routing[64];  // uniform, zipf:1.2, single, trace:NAME
    uint32_t n_tokens;
    uint64_t seed;
    uint32_t n_threads; // CPU; 0 elsewhere
};

struct bench_times { // of n samples
    uint32_t n;
    double *samples_us; // (n) in the order they were taken
    double median_us, p5_us, p95_us, mad_us;
};

struct bench_dispatch {
    char label[48];
    double median_us;
};

struct bench_row {
    uint32_t device; // index in the file
    struct bench_key key;
    char kernel[32];
    enum bench_status status;
    char reason[256];

    struct { // of the outputs that were timed
        char state[8];      // "pass", "fail", "none"
        char reference[32]; // what with: "f64"
        double error, limit; // relative L2
        uint32_t n_rows;     // of y that were compared
    } verify;

    struct bench_times device_times; // the device's own clock: a run without copies and submission
    struct bench_times wall_times;   // a whole call on host memory
    uint32_t n_cold; // times that the measurement was begun anew, until two agreed
    bool plateau;    // two cold measurements agreed within 5 %
    uint32_t n_blocks, n_dropped_blocks; // CPU: blocks between probes; those that lost a core
    double first_call_ms;

    // The floor: max(bytes / read rate, flops / peak) + dispatches * empty dispatch, with limits
    // taken around the timed blocks.
    double bytes, flops; // least that must be moved and computed, router and shared expert included
    double bytes_per_s, flops_per_s, tokens_per_s;
    double read_rate, peak, dispatch_us;
    char arithmetic[16]; // whose peak it is
    uint32_t n_dispatches;
    double floor_us, floor_fraction; // floor / median
    enum bench_bound bound;

    uint32_t n_experts_hit;
    uint32_t min_rows, max_rows; // of an expert that has any
    double cv_rows;              // standard deviation / mean over all experts
    uint32_t *expert_rows;       // (key.n_experts) slots of each

    uint32_t n_copies;     // of the weights, rotated
    double device_bytes;   // weights, buffers and workspace
    double clock_mhz, clock_min_mhz; // median and least while it ran
    char clock_source[32];
    double power_w; // mean
    char power_source[32];

    bool counted; // --count
    vkmoe_counters counters;
    double rereads;         // weight_loads / bytes of the active experts
    double useful_fraction; // live / (live + padded) columns

    struct bench_dispatch *dispatches; // (n_timed_dispatches) --dispatches
    uint32_t n_timed_dispatches;
};

struct bench_device {
    vkmoe_device_info info;
    uint32_t n_threads; // CPU
    double read_rate, dispatch_us;          // the best of the run
    double peak[VKMOE_N_ARITHMETICS];       // 0: none
    double one_thread_peak;                 // f32, of one thread alone; CPU
    uint64_t cache_size;
};

struct bench_file {
    char name[128];  // for people: the file it was read from, without folders; "" if from none.
                     // Not in a file
    char schema[32]; // "vkmoe-bench/1"
    char version[16], build[128]; // of vkmoe; compiler and options
    char time_utc[32];
    char suite[32];  // "quick", "standard-1" or ""
    bool complete;   // false: interrupted, or a device was lost
    char cpu[128], os[128], kernel[128];
    uint32_t n_cores; // physical
    char environment[512]; // variables that choose drivers, "NAME=value ..."
    struct bench_device *devices; // (n_devices)
    struct bench_row *rows;       // (n_rows)
    uint32_t n_devices, n_rows;
};

void bench_row_finish(struct bench_row *row);
void bench_file_finish(struct bench_file *file);

const char *bench_status_name(enum bench_status status);
const char *bench_bound_name(enum bench_bound bound);

// "granite-1b-a400m/bf16/half/t512/uniform", with what differs from the defaults: for people.
void bench_key_text(const struct bench_key *key, char *out, size_t size);
// The first member that differs, as in a file ("n_tokens"); NULL: equal.
const char *bench_key_difference(const struct bench_key *a, const struct bench_key *b);

// Whether its numbers stand for something: ok and unverified rows.
bool bench_row_is_timed(const struct bench_row *row);
// The device's clock where it was read, else the wall's.
const struct bench_times *bench_row_times(const struct bench_row *row);

// Quantiles by linear interpolation. Sorts nothing of the caller's. Fills in all but n and
// samples_us. n = 0: NAN.
void bench_times_sum_up(struct bench_times *times);

// Reads a file. VKMOE_E_IO, VKMOE_E_DATA: the text names the file and the place in it; *out is then
// empty. Else bench_file_finish it.
enum vkmoe_status bench_file_read(const char *path, struct bench_file *out);

// Prints: to stdout for path NULL, else a file that appears whole or not at all.
enum bench_format {
    BENCH_MD,
    BENCH_CSV,
    BENCH_JSON,
};
enum vkmoe_status bench_file_write(const struct bench_file *file, enum bench_format format,
                                   const char *path);

// report.c: the page and the block to post.
enum vkmoe_status bench_report_html(const struct bench_file *files, uint32_t n_files,
                                    const char *path);
enum vkmoe_status bench_report_issue(const struct bench_file *files, uint32_t n_files);

#endif
