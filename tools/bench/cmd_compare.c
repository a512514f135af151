// SPDX-License-Identifier: MIT
// vkmoe compare: two files of results, and whether the second is slower.
#include "commands.h"
#include "compare.h"

#include <math.h>
#include <stdlib.h>

enum by {
    BY_TIME,
    BY_FLOOR,
};

struct options {
    const char *limit_text;
    int by;
    bool json;
};

// "5%", "5" and "0.5%" are per cent.
static bool parse_limit(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end) / 100;
    return end != text && strchr("0123456789.", *text) && (*end == '\0' || strcmp(end, "%") == 0) &&
           isfinite(*out);
}

static int compare(const struct options *options, const char *const *paths, double limit)
{
    enum vkmoe_status status;
    int code = CLI_OK;
    struct bench_file a = {0}, b = {0};
    struct compare result = {0};
    CLI_TRY(bench_file_read(paths[0], &a));
    CLI_TRY(bench_file_read(paths[1], &b));
    CLI_TRY(compare_make(&a, &b, options->by == BY_FLOOR, limit, &result));
    if (options->json)
        code = compare_print_json(&result);
    else
        compare_print(&result);
    if (code == CLI_OK && result.n_failed > 0) {
        cli_error("%u of %u cases are slower by more than %g %%, or no longer right",
                  (unsigned) result.n_failed, (unsigned) result.n_rows, 100 * limit);
        code = CLI_REGRESSION;
    }

fail:
    compare_finish(&result);
    bench_file_finish(&a);
    bench_file_finish(&b);
    return status == VKMOE_OK ? code : cli_fail(status);
}

int cmd_compare(int argc, char **argv)
{
    struct options o = {0};
    const struct cli_option options[] = {
        {"fail-above", 0, CLI_TEXT, &o.limit_text, "P",
         "exit with 4 when a case is slower by more than P\nper cent (5%, 0.5), beyond doubt, or "
         "is right in A\nand an error in B"},
        {"by", 0, CLI_CHOICE, &o.by, "time|floor",
         "what is compared: times, or times over their floor,\nfor machines that change speed "
         "(time)"},
        {"json", 0, CLI_FLAG, &o.json, NULL, "print JSON"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "compare",
        .synopsis = "A.json B.json",
        .text = "Compares two files of `vkmoe bench --format json`, case by case: the ratio of\n"
                "the medians B/A, above 1 for slower, with its 95 % interval (bootstrap of the\n"
                "samples). A case is slower or faster when the interval leaves out 1 and the\n"
                "ratio differs from 1 by more than the samples scatter (their MAD; at least 5 %,\n"
                "and 10 % where a row did not settle). Devices are matched by name; where each\n"
                "file has one, these two are compared.",
        .options = options,
        .min_args = 2,
        .max_args = 2,
    };
    int code;
    double limit = (double) NAN;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    if (o.limit_text && !parse_limit(o.limit_text, &limit))
        return cli_usage(&spec, "--fail-above %s: not a percentage such as 5%%", o.limit_text);
    return compare(&o, (const char *const *) argv, limit);
}
