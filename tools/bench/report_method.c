// SPDX-License-Identifier: MIT
// How it was measured: what holds for every row, then each device's limits and each file's origin.
#include "report.h"

#include <math.h>

static const char words[] =
    "<ul class=\"words\">\n"
    "<li><b>Times</b> are medians of runs back to back, by the device\u2019s own clock where it "
    "has one; <i>wall</i> is a whole call on memory of the host. A case is warmed up until its "
    "times no longer fall, then measured from cold until two measurements agree within 5\u202f%, "
    "four times at most.</li>\n"
    "<li><b>Weights</b> rotate through copies that no cache holds together, so they come from "
    "memory as they do in a model.</li>\n"
    "<li><b>Verified</b> rows: the very outputs that were timed were compared with a reference; "
    "the error is relative L2. A wrong output is a failure, not a time.</li>\n"
    "<li><b>Limits</b>: read rate is one sequential read of memory beyond the last cache; peak is "
    "arithmetic alone, for each kind of it; dispatch is an empty one that waits for the one "
    "before. All are measured around each block of runs.</li>\n"
    "<li><b>Floor</b> = max(bytes / read rate, operations / peak) + dispatches \u00d7 empty "
    "dispatch. Bytes and operations are the least that the case needs: each expert that is hit is "
    "read once. Percent of floor is floor divided by time; above "
    "100\u202f% a limit was taken too low, or a cache helped.</li>\n"
    "<li><b>CPU</b>: the limits are probed before and after each block of runs; a block whose "
    "probes show that a core was taken away is dropped and counted.</li>\n"
    "</ul>\n";

// ---- devices -----------------------------------------------------------------------------------

struct blocks {
    uint64_t n, dropped;
    uint32_t n_rows, n_unsteady;
    const char *clock_source, *power_source, *reference;
};

static const char *either(const char *known, const char *text)
{
    return *known || !*text ? known : text;
}

static struct blocks sum_blocks(const struct report *report, uint32_t device)
{
    struct blocks sum = {.clock_source = "", .power_source = "", .reference = ""};
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct report_row *row = &report->rows[i];
        if (row->device != device)
            continue;
        sum.n += row->row->n_blocks;
        sum.dropped += row->row->n_dropped_blocks;
        sum.n_rows += report_is_timed(row);
        sum.n_unsteady += report_is_unsteady(row);
        sum.clock_source = either(sum.clock_source, row->row->clock_source);
        sum.power_source = either(sum.power_source, row->row->power_source);
        sum.reference = either(sum.reference, row->row->verify.reference);
    }
    return sum;
}

static void put_term(FILE *page, const char *term, const char *text)
{
    if (!*text)
        return;
    fprintf(page, "<div><dt>%s</dt><dd>", term);
    html_text(page, text);
    fputs("</dd></div>\n", page);
}

static void put_limits(FILE *page, const struct bench_device *device)
{
    char text[REPORT_TEXT];
    if (device->read_rate > 0)
        put_term(page, "Read rate", report_si(device->read_rate, "B/s", text));
    for (int a = 0; a < VKMOE_N_ARITHMETICS; a++) {
        if (device->peak[a] > 0)
            fprintf(page, "<div><dt>Peak, %s</dt><dd>%s</dd></div>\n",
                    vkmoe_arithmetic_name((enum vkmoe_arithmetic) a),
                    report_si(device->peak[a], "op/s", text));
    }
    if (device->one_thread_peak > 0)
        put_term(page, "Peak of one thread, f32", report_si(device->one_thread_peak, "op/s", text));
    if (device->dispatch_us > 0)
        put_term(page, "Empty dispatch", report_time(device->dispatch_us, text));
    if (device->cache_size)
        put_term(page, "Last cache", report_si((double) device->cache_size, "B", text));
    if (device->info.memory_bytes)
        put_term(page, "Memory", report_si((double) device->info.memory_bytes, "B", text));
}

static void put_checks(FILE *page, const struct report *report, uint32_t device)
{
    char text[96];
    const struct blocks sum = sum_blocks(report, device);
    put_term(page, "Verified against", sum.reference);
    if (sum.n) {
        snprintf(text, sizeof text, "%llu, %llu of them dropped", (unsigned long long) sum.n,
                 (unsigned long long) sum.dropped);
        put_term(page, "Blocks between probes", text);
    }
    if (sum.n_rows) {
        snprintf(text, sizeof text, "%u of %u", (unsigned) (sum.n_rows - sum.n_unsteady),
                 (unsigned) sum.n_rows);
        put_term(page, "Rows that agreed from cold", text);
    }
    put_term(page, "Clock from", *sum.clock_source ? sum.clock_source : "not told by the system");
    put_term(page, "Power from", *sum.power_source ? sum.power_source : "not told by the system");
}

static void put_device(FILE *page, const struct report *report, uint32_t i)
{
    const struct report_device *d = &report->devices[i];
    const vkmoe_device_info *info = &d->device->info;
    char text[96];
    fputs("<article class=\"facts\"><h4>", page);
    report_device_name(page, d);
    fputs("</h4>\n<dl>\n", page);
    put_term(page, "Kind", cli_device_type(info->type));
    snprintf(text, sizeof text, "%.46s %.46s", info->driver, info->driver_version);
    put_term(page, "Driver", info->driver[0] ? text : "");
    put_term(page, "Vulkan", info->api);
    put_term(page, "Kernels up to", info->tier);
    put_term(page, "PCI", info->pci);
    put_limits(page, d->device);
    put_checks(page, report, i);
    fputs("</dl></article>\n", page);
}

// ---- files -------------------------------------------------------------------------------------

static void put_file(FILE *page, const struct bench_file *file)
{
    char text[32];
    fputs("<article class=\"facts\"><h4>", page);
    html_text(page, file->name[0] ? file->name : "This run");
    fputs("</h4>\n<dl>\n", page);
    put_term(page, "Suite", file->suite[0] ? file->suite : "none: cases by hand");
    put_term(page, "Measured", file->time_utc);
    put_term(page, "vkmoe", file->version);
    put_term(page, "Build", file->build);
    put_term(page, "Processor", file->cpu);
    snprintf(text, sizeof text, "%u", (unsigned) file->n_cores);
    put_term(page, "Cores", file->n_cores ? text : "");
    put_term(page, "System", file->os);
    put_term(page, "Kernel", file->kernel);
    put_term(page, "Environment", file->environment[0] ? file->environment : "nothing set");
    put_term(page, "Schema", file->schema);
    snprintf(text, sizeof text, "%u", (unsigned) file->n_rows);
    put_term(page, "Rows", text);
    put_term(page, "Complete", file->complete ? "yes" : "no: interrupted, or a device was lost");
    fputs("</dl></article>\n", page);
}

void report_method(FILE *page, const struct report *report)
{
    report_section(page, "method", "How it was measured");
    fputs(words, page);
    fputs("<h3>Devices and their limits</h3>\n<div class=\"panels\">\n", page);
    for (uint32_t i = 0; i < report->n_devices; i++)
        put_device(page, report, i);
    fprintf(page, "</div>\n<h3>%s</h3>\n<div class=\"panels\">\n",
            report->n_files > 1 ? "Files" : "File");
    for (uint32_t i = 0; i < report->n_files; i++)
        put_file(page, &report->files[i]);
    fputs("</div>\n</section>\n", page);
}
