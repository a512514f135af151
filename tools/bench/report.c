// SPDX-License-Identifier: MIT
// The page of `vkmoe report`: one file that needs nothing else, complete without its script.
#include "report.h"

#include <stdlib.h>
#include <vkmoe/model.h>

void report_section(FILE *page, const char *id, const char *title)
{
    fprintf(page, "<section id=\"%s\" aria-labelledby=\"%s-title\">\n<h2 id=\"%s-title\">%s</h2>\n",
            id, id, id, title);
}

void report_model_name(FILE *page, const struct bench_key *key)
{
    if (key->model[0]) {
        html_text(page, key->model);
        return;
    }
    fprintf(page, "%u,%u,%u,%u", (unsigned) key->n_experts, (unsigned) key->top_k,
            (unsigned) key->d_model, (unsigned) key->d_ff);
    if (key->d_shared_ff)
        fprintf(page, "+%u", (unsigned) key->d_shared_ff);
}

void report_case_name(FILE *page, const struct report_row *row)
{
    char part[2] = "";
    for (const char *c = row->what; *c; c++) {
        part[0] = *c;
        html_text(page, part);
        fputs(*c == '/' ? "<wbr/>" : "", page);
    }
}

void report_device_name(FILE *page, const struct report_device *device)
{
    fprintf(page, "<span class=\"name d%u%s\"><i></i>",
            (unsigned) (device->index % REPORT_N_COLOURS),
            device->index >= REPORT_N_COLOURS ? " again" : "");
    html_text(page, device->label);
    fputs("</span>", page);
}

void report_legend(FILE *page, const struct report *report, bool types)
{
    if (report->n_devices < 2 && !types)
        return;
    fputs("<ul class=\"legend\" aria-label=\"Legend\">\n", page);
    for (uint32_t i = 0; report->n_devices > 1 && i < report->n_devices; i++) {
        fprintf(page, "<li data-d=\"d%u\">", (unsigned) (i % REPORT_N_COLOURS));
        report_device_name(page, &report->devices[i]);
        fputs("</li>\n", page);
    }
    for (uint32_t i = 0; types && i < report->n_types; i++) {
        fputs(i ? "<li>" : "<li class=\"gap\">Weights:</li>\n<li>", page);
        chart_shape_sample(page, i);
        html_text(page, report->types[i]);
        fputs("</li>\n", page);
    }
    fputs("</ul>\n", page);
}

static void put_contents(FILE *page, const struct report *report)
{
    fputs("<nav aria-label=\"Contents\"><a href=\"#roofline\">Roofline</a> "
          "<a href=\"#tokens\">Tokens</a> ", page);
    if (report->n_devices > 1)
        fputs("<a href=\"#beside\">Side by side</a> ", page);
    fputs("<a href=\"#all\">All rows</a> ", page);
    if (report_has_detail(report))
        fputs("<a href=\"#inside\">Inside a layer</a> ", page);
    fputs("<a href=\"#method\">Method</a></nav>\n", page);
}

static void put_page(FILE *page, const struct report *report)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
          "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>vkmoe benchmark: ", page);
    for (uint32_t i = 0; i < report->n_devices; i++) {
        fputs(i ? ", " : "", page);
        html_text(page, report->devices[i].label);
    }
    fputs("</title>\n<style>\n", page);
    report_style(page);
    fputs("</style>\n</head>\n<body>\n", page);
    chart_shapes(page);
    fputs("<main>\n", page);
    report_summary(page, report);
    put_contents(page, report);
    report_roofline(page, report);
    report_series(page, report);
    report_beside(page, report);
    report_table(page, report);
    report_detail(page, report);
    report_method(page, report);
    fputs("</main>\n<script>\n", page);
    report_script(page);
    fputs("</script>\n</body>\n</html>\n", page);
}

static enum vkmoe_status make_text(const struct report *report, char **text, size_t *size)
{
    FILE *page = open_memstream(text, size);
    if (page) {
        put_page(page, report);
        const bool failed = ferror(page) != 0;
        if (fclose(page) == 0 && !failed)
            return VKMOE_OK;
    }
    vkmoe_error_set("no memory for the page");
    return VKMOE_E_MEMORY;
}

enum vkmoe_status bench_report_html(const struct bench_file *files, uint32_t n_files,
                                    const char *path)
{
    enum vkmoe_status status;
    const vkmoe_host host = cli_host(NULL);
    struct report report;
    vkmoe_file_writer *file = NULL;
    char *text = NULL;
    size_t size = 0;
    status = report_open(files, n_files, &report);
    if (status != VKMOE_OK)
        return status;
    CLI_TRY(make_text(&report, &text, &size));
    CLI_TRY(vkmoe_file_create(&host, path, &file));
    CLI_TRY(vkmoe_file_write(file, text, size));
    CLI_TRY(vkmoe_file_finish(file));

fail:
    vkmoe_file_destroy(file);
    free(text);
    report_close(&report);
    return status;
}
