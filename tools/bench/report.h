// SPDX-License-Identifier: MIT
// What the parts of the page of `vkmoe report` share. The page is made of the results in one or
// more files, seen as one list of devices and one of rows.
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "html.h"
#include "row.h"

#include <stdio.h>

enum { REPORT_TEXT = 32 }; // room for a number in words

struct report_device {
    const struct bench_file *file;
    const struct bench_device *device;
    uint32_t index;  // of report.devices
    char label[448]; // name, with driver and file where names alone would not tell
    uint32_t n_rows, n_status[BENCH_ERROR + 1];
};

struct report_row {
    const struct bench_row *row;
    uint32_t device; // index of report.devices
    const struct report_device *on;
    double time_us;  // median, of the device's clock where there is one; NAN: not timed
    char what[256];  // bench_key_text
    // Index of the first row with the same case (CPU threads are the device's matter), and with the
    // same case but for the number of tokens.
    uint32_t case_id, panel_id;
};

struct report {
    const struct bench_file *files; // (n_files)
    struct report_device *devices;  // (n_devices)
    struct report_row *rows;        // (n_rows)
    const char **types;             // (n_types) each once
    uint32_t *order;                // (n_rows) room for a part's own order of rows
    uint32_t n_files, n_devices, n_rows, n_types;
};

// VKMOE_E_DATA: no rows. Else report_close it.
enum vkmoe_status report_open(const struct bench_file *files, uint32_t n_files, struct report *out);
void report_close(struct report *report);

// Timed, and nothing is known to be wrong with it.
bool report_is_timed(const struct report_row *row);
// Timed, but no two measurements of it from cold agreed.
bool report_is_unsteady(const struct report_row *row);
uint32_t report_type(const struct report *report, const struct report_row *row); // index of types

// The timed row of that device with the most tokens/s, of forward passes at n_tokens; verified ones
// go first, then steady ones. NULL: there is none.
const struct report_row *report_best(const struct report *report, uint32_t device,
                                     uint32_t n_tokens);

// Nearest to `want` of the numbers of tokens that the device has timed forward passes of; 0: none.
uint32_t report_tokens(const struct report *report, uint32_t device, uint32_t want);

// Median of floor fractions of a device's timed rows; NAN: there are none.
double report_median_fraction(const struct report *report, uint32_t device);

// The device's timed row of a case; NULL: there is none.
const struct report_row *report_find(const struct report *report, uint32_t device,
                                     uint32_t case_id);

// ---- numbers as text: into `out`, REPORT_TEXT bytes; a dash if it is not known -----------------

const char *report_si(double value, const char *unit, char *out);  // "41.2 GB/s"; 0 is not known
const char *report_count(double value, char *out);                 // "12 300", three digits
const char *report_time(double us, char *out);                     // "812 µs"
const char *report_percent(double fraction, char *out);            // "71 %"
const char *report_ratio(double ratio, char *out);                 // "2.40×"

// ---- charts ------------------------------------------------------------------------------------
// Positions are percentages of the plot's box, so that they follow the width of a screen while text
// keeps its size.

enum chart_unit {
    CHART_SI,     // ticks at powers of ten
    CHART_TIME,   // the same, of microseconds
    CHART_TOKENS, // at powers of two
};

struct chart_axis { // logarithmic
    enum chart_unit unit;
    double low, high;
};

enum { CHART_DOT = 8 };

struct chart {
    FILE *page;
    struct chart_axis x, y;
};

void chart_add(struct chart_axis *axis, double value); // widens it; zeroed: empty
void chart_widen(struct chart_axis *axis);             // some room around what was added
double chart_x(const struct chart *chart, double value); // of one outside: the edge
double chart_y(const struct chart *chart, double value);

// The <svg> with grid and labels of ticks; `label` is read aloud.
void chart_begin(const struct chart *chart, unsigned height, const char *label);
void chart_end(const struct chart *chart);

void chart_line(const struct chart *chart, const char *style, const double from[2],
                const double to[2]);
// A marker of a shape (0 to 7, or CHART_DOT); the caller's <title> has been written before.
void chart_mark(const struct chart *chart, uint32_t shape, double x, double y);
void chart_shapes(FILE *page); // once: the shapes
void chart_shape_sample(FILE *page, uint32_t shape); // for a legend

// ---- parts of the page -------------------------------------------------------------------------

enum { REPORT_N_COLOURS = 8 };

void report_style(FILE *page);
void report_script(FILE *page);
bool report_has_detail(const struct report *report);
void report_section(FILE *page, const char *id, const char *title); // <section><h2>
void report_legend(FILE *page, const struct report *report, bool types);
void report_model_name(FILE *page, const struct bench_key *key); // or its shape
void report_case_name(FILE *page, const struct report_row *row);  // may break behind a slash
void report_device_name(FILE *page, const struct report_device *device); // with its colour

void report_summary(FILE *page, const struct report *report);
void report_roofline(FILE *page, const struct report *report);
void report_series(FILE *page, const struct report *report);
void report_beside(FILE *page, const struct report *report);
void report_table(FILE *page, const struct report *report);
void report_detail(FILE *page, const struct report *report);
void report_method(FILE *page, const struct report *report);

#endif
