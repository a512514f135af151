// SPDX-License-Identifier: MIT
// vkmoe report: a page, or a block to post, of the results of vkmoe bench.
#include "commands.h"
#include "row.h"

#include <stdlib.h>

static enum vkmoe_status no_rows(const char *path)
{
    char text[512];
    snprintf(text, sizeof text, "%.400s: there are no rows in it", path);
    vkmoe_error_set(text);
    return VKMOE_E_DATA;
}

static enum vkmoe_status read_all(struct bench_file *files, char **paths, int n)
{
    for (int i = 0; i < n; i++) {
        enum vkmoe_status status = bench_file_read(paths[i], &files[i]);
        if (status != VKMOE_OK)
            return status;
        if (files[i].n_rows == 0)
            return no_rows(paths[i]);
    }
    return VKMOE_OK;
}

int cmd_report(int argc, char **argv)
{
    const char *page_path = NULL;
    bool issue = false;
    const struct cli_option options[] = {
        {"output", 'o', CLI_OUTPUT, &page_path, "FILE.html", "the page to write"},
        {"issue", 0, CLI_FLAG, &issue, NULL,
         "print a short block of markdown, to post where\npeople compare"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "report",
        .synopsis = "RESULT.json...",
        .text = "Makes one page of the results that vkmoe bench wrote with --format json: what\n"
                "each device reaches and how near that is to its limits, all rows, and how it\n"
                "was measured. The page is one file that needs nothing else. Several files become\n"
                "one page with their devices side by side.",
        .options = options,
        .min_args = 1,
        .max_args = 256,
    };
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    if (!page_path && !issue)
        return cli_usage(&spec, "tell what to write: -o FILE.html or --issue");
    code = cli_check_output(&spec, page_path, (const char *const *) argv, (size_t) argc);
    if (code != CLI_OK)
        return code;
    struct bench_file *files = NULL;
    enum vkmoe_status status;
    CLI_TRY(cli_alloc((size_t) argc, 1, sizeof *files, &files));
    CLI_TRY(read_all(files, argv, argc));
    if (page_path)
        CLI_TRY(bench_report_html(files, (uint32_t) argc, page_path));
    if (issue)
        CLI_TRY(bench_report_issue(files, (uint32_t) argc));

fail:
    for (int i = 0; files && i < argc; i++)
        bench_file_finish(&files[i]);
    free(files);
    return status == VKMOE_OK ? CLI_OK : cli_fail(status);
}
