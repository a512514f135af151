// SPDX-License-Identifier: MIT
// Results as tables of Markdown, to be pasted: a table for each device, below them what ran.
#include "fields.h"

#include <math.h>

// ---- cells -----------------------------------------------------------------------------------

// Cells end at a bar and at the end of the line.
static void put_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|')
            fputs("\\|", out);
        else
            fputc(*text == '\n' || *text == '\r' ? ' ' : *text, out);
    }
}

// Four digits, without an exponent where that is readable.
static void put_number(FILE *out, double value)
{
    if (!isfinite(value))
        fputc('-', out);
    else if (value >= 1000 && value < 1e15)
        fprintf(out, "%.0f", value);
    else
        fprintf(out, "%.4g", value);
}

// The same of a time in its unit, with the zeros at its end.
static void put_digits(FILE *out, double value)
{
    fprintf(out, value >= 1000 ? "%.0f" : "%#.4g", value);
}

static void put_scaled(FILE *out, double value)
{
    static const char *const suffixes[] = {"", " k", " M", " G", " T"};
    size_t i = 0;
    for (; value >= 1e4 && i + 1 < sizeof suffixes / sizeof *suffixes; i++)
        value /= 1e3;
    put_number(out, value);
    fputs(suffixes[i], out);
}

static void put_time(FILE *out, const struct bench_times *times)
{
    const double us = times->median_us;
    const double unit = us >= 1e6 ? 1e6 : us >= 1e3 ? 1e3 : 1;
    if (!isfinite(us)) {
        fputc('-', out);
        return;
    }
    put_digits(out, us / unit);
    fputs(unit >= 1e6 ? " s" : unit >= 1e3 ? " ms" : " µs", out);
    fputs(" (", out);
    put_digits(out, times->p5_us / unit);
    fputs("–", out);
    put_digits(out, times->p95_us / unit);
    fputc(')', out);
}

static void put_percent(FILE *out, double fraction)
{
    if (isfinite(fraction))
        fprintf(out, "%.1f %%", 100 * fraction);
    else
        fputc('-', out);
}

// ---- rows ------------------------------------------------------------------------------------

static void put_counts(FILE *out, const struct bench_row *row, bool timed)
{
    put_number(out, timed && row->counted ? row->rereads : (double) NAN);
    fputs(" | ", out);
    put_percent(out, timed && row->counted ? row->useful_fraction : (double) NAN);
    if (timed && row->counted)
        fprintf(out, " | %u | ", (unsigned) row->counters.dispatches);
    else
        fputs(" | - | ", out);
}

static void put_status(FILE *out, const struct bench_row *row)
{
    fputs(bench_status_name(row->status), out);
    if (*row->reason) {
        fputs(": ", out);
        put_text(out, row->reason);
    }
}

static void put_row(FILE *out, const struct bench_row *row, bool counted)
{
    char name[512];
    const bool timed = bench_row_is_timed(row);
    bench_key_text(&row->key, name, sizeof name);
    fputs("| ", out);
    put_text(out, name);
    fputs(" | ", out);
    if (timed) {
        put_time(out, bench_row_times(row));
        fputs(" | ", out);
        put_scaled(out, row->tokens_per_s);
        fputs(" | ", out);
        put_number(out, row->bytes_per_s / 1e9);
        fputs(" | ", out);
        put_number(out, row->flops_per_s / 1e12);
        fputs(" | ", out);
        put_percent(out, row->floor_fraction);
        fprintf(out, " | %s | ",
                row->bound == BENCH_BOUND_NONE ? "-" : bench_bound_name(row->bound));
    } else {
        fputs("- | - | - | - | - | - | ", out);
    }
    if (counted)
        put_counts(out, row, timed);
    put_status(out, row);
    fputs(" |\n", out);
}

// ---- devices ---------------------------------------------------------------------------------

static double best_peak(const struct bench_device *device, const char **name)
{
    static const char *const names[] = {
#define PEAK_NAME(value, number, spelling) [value] = (spelling),
        VKMOE_ARITHMETIC_LIST(PEAK_NAME)
#undef PEAK_NAME
    };
    double best = 0;
    for (int i = 0; i < VKMOE_N_ARITHMETICS; i++) {
        if (device->peak[i] > best) {
            best = device->peak[i];
            *name = names[i];
        }
    }
    return best;
}

static void put_limits(FILE *out, const struct bench_device *device)
{
    const char *name = "";
    const double peak = best_peak(device, &name);
    if (isfinite(device->read_rate)) {
        fputs(", reads ", out);
        put_number(out, device->read_rate / 1e9);
        fputs(" GB/s", out);
    }
    if (peak > 0) {
        fputs(", ", out);
        put_number(out, peak / 1e12);
        fprintf(out, " TFLOP/s %s", name);
    }
    if (isfinite(device->dispatch_us)) {
        fputs(", empty dispatch ", out);
        put_number(out, device->dispatch_us);
        fputs(" µs", out);
    }
}

static void put_device(FILE *out, const struct bench_device *device)
{
    const vkmoe_device_info *info = &device->info;
    fputs("**", out);
    put_text(out, info->name);
    fprintf(out, "** (%s", cli_device_type(info->type));
    if (*info->tier)
        fprintf(out, ", %s", info->tier);
    if (device->n_threads)
        fprintf(out, ", %u thread%s", (unsigned) device->n_threads,
                device->n_threads == 1 ? "" : "s");
    fputs(")", out);
    put_limits(out, device);
    fputs("\n\n", out);
}

static void put_device_rows(FILE *out, const struct bench_file *file, uint32_t device)
{
    bool counted = false;
    for (uint32_t i = 0; i < file->n_rows; i++)
        counted = counted || (file->rows[i].device == device && file->rows[i].counted);
    put_device(out, &file->devices[device]);
    fprintf(out, "| case | time: median (p5–p95) | tokens/s | GB/s | TFLOP/s | of the floor | "
            "bound |%s status |\n|---|--:|--:|--:|--:|--:|---|%s---|\n",
            counted ? " re-reads | useful | dispatches |" : "", counted ? "--:|--:|--:|" : "");
    for (uint32_t i = 0; i < file->n_rows; i++) {
        if (file->rows[i].device == device)
            put_row(out, &file->rows[i], counted);
    }
    fputc('\n', out);
}

// ---- what ran --------------------------------------------------------------------------------

static void put_part(FILE *out, const char *before, const char *text)
{
    if (*text) {
        fputs(before, out);
        put_text(out, text);
    }
}

static void put_foot(FILE *out, const struct bench_file *file)
{
    put_part(out, "vkmoe ", file->version);
    put_part(out, ", ", file->build);
    put_part(out, "; suite ", file->suite);
    put_part(out, "; ", file->time_utc);
    put_part(out, "; ", file->cpu);
    put_part(out, "; ", file->os);
    put_part(out, "; kernel ", file->kernel);
    put_part(out, "; ", file->environment);
    for (uint32_t i = 0; i < file->n_devices; i++) {
        const vkmoe_device_info *info = &file->devices[i].info;
        if (!*info->driver)
            continue;
        fputs("; ", out);
        put_text(out, info->name);
        put_part(out, ": driver ", info->driver);
        put_part(out, " ", info->driver_version);
    }
    fputc('\n', out);
    if (!file->complete)
        fputs("\n**Not complete**: interrupted, or a device was lost.\n", out);
}

void bench_write_md(const struct bench_file *file, struct bench_out *out)
{
    for (uint32_t i = 0; i < file->n_devices; i++)
        put_device_rows(out->stream, file, i);
    put_foot(out->stream, file);
}
