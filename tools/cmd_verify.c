// SPDX-License-Identifier: MIT
// vkmoe verify: a device against the oracle.
#include "cli.h"
#include "commands.h"
#include "verify_backward.h"
#include "verify_net_list.h"
#include "verify_nets.h"

#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

// ---- which cases -------------------------------------------------------------------------------

// Walks over the cases in order: the special ones, the forms, the networks, then the covering set
// or the product; behind the runs of each plan, its gradients.
struct walk {
    const struct verify_case *cover; // NULL: the product
    uint32_t n_cover;
    const regex_t *filter; // or NULL
    int precision;         // enum vkmoe_precision; -1: any
    bool without_int8;
    uint32_t i_special, i_form, i_net, i_cover;
    bool in_product, finished;
    struct verify_case product;
    struct verify_case last, ahead; // of runs and networks: the last one, and what follows it
    bool has_last, has_ahead;
};

// Gradients left out.
static bool next_run(struct walk *walk, struct verify_case *out)
{
    if (verify_special(walk->i_special, out)) {
        walk->i_special++;
        return true;
    }
    if (verify_form_case(walk->i_form, out)) {
        walk->i_form++;
        return true;
    }
    if (walk->i_net < verify_net_count()) {
        *out = (struct verify_case){.level[VERIFY_SHAPE] = (uint8_t) walk->i_net++,
                                    .what = VERIFY_NET};
        return true;
    }
    if (walk->cover) {
        if (walk->i_cover == walk->n_cover)
            return false;
        *out = walk->cover[walk->i_cover++];
        return true;
    }
    if (walk->in_product && !walk->finished)
        walk->finished = !verify_next(&walk->product);
    if (walk->finished)
        return false;
    walk->in_product = true;
    *out = walk->product;
    return true;
}

static bool next_case(struct walk *walk, struct verify_case *out)
{
    if (!walk->has_ahead)
        walk->has_ahead = next_run(walk, &walk->ahead);
    if (walk->has_last && !(walk->has_ahead && verify_same_plan(&walk->last, &walk->ahead))) {
        walk->has_last = false;
        if (walk->last.what == VERIFY_RUN && verify_gradients_case(&walk->last, out) &&
            (!walk->cover || verify_gradients_quick(out)))
            return true;
    }
    if (!walk->has_ahead)
        return false;
    *out = walk->last = walk->ahead;
    walk->has_last = true;
    walk->has_ahead = false;
    return true;
}

static void case_name(const struct verify_case *c, char out[VERIFY_NAME_SIZE])
{
    if (c->what == VERIFY_NET)
        snprintf(out, VERIFY_NAME_SIZE, "%s", verify_net_name(c->level[VERIFY_SHAPE]));
    else
        verify_name(c, out);
}

static bool next_match(struct walk *walk, struct verify_case *out)
{
    char name[VERIFY_NAME_SIZE];
    while (next_case(walk, out)) {
        case_name(out, name);
        const enum vkmoe_precision precision = verify_precision(out);
        if ((walk->precision >= 0 && (int) precision != walk->precision) ||
            (walk->without_int8 && precision == VKMOE_PRECISION_INT8))
            continue;
        if (!walk->filter || regexec(walk->filter, name, 0, NULL, 0) == 0)
            return true;
    }
    return false;
}

enum { MAX_GROUP = 32 };

// Neighbouring cases of one layer, or one network.
struct group {
    struct verify_case cases[MAX_GROUP];
    uint32_t n, max_tokens;
};

// `ahead` holds the case that did not fit the last group.
static bool next_group(struct walk *walk, struct verify_case *ahead, bool *has_ahead,
                       struct group *group)
{
    group->n = 0;
    group->max_tokens = 1;
    while (*has_ahead || next_match(walk, ahead)) {
        *has_ahead = true;
        if (group->n == MAX_GROUP || (group->n > 0 && !verify_same_plan(ahead, group->cases)))
            return true;
        uint32_t n_tokens = verify_tokens(ahead);
        group->max_tokens = n_tokens > group->max_tokens ? n_tokens : group->max_tokens;
        group->cases[group->n++] = *ahead;
        *has_ahead = false;
    }
    return group->n > 0;
}

// ---- what came of them -------------------------------------------------------------------------

struct report {
    bool json;
    uint64_t seed;
    uint64_t n_total; // cases to run
    uint64_t n_outcome[3];
    uint64_t n_rows, n_exempt;
    uint64_t n_uncontrolled[VERIFY_N_CHECKS];
    const char *variant; // that cases are to run with, or NULL
    bool no_skip; // a skipped case is a failure
    bool broken;  // output could not be made
};

static void print_line(struct report *report, const char *name, enum verify_outcome outcome,
                       const char *reason)
{
    static const char *const words[] = {"passed", "failed", "skipped"};
    uint64_t n = report->n_outcome[0] + report->n_outcome[1] + report->n_outcome[2];
    report->n_outcome[outcome]++;
    cli_progress_end();
    if (report->json) {
        json_t *line = json_pack("{s:s, s:s, s:s}", "name", name, "status", words[outcome],
                                 "reason", reason);
        fputs(n ? ", " : "  ", stdout); // a line ends before the progress follows it
        report->broken |= !line || json_dumpf(line, stdout, 0) != 0;
        putchar('\n');
        json_decref(line);
    } else if (outcome == VERIFY_FAILED ||
               (outcome == VERIFY_SKIPPED && (!report->variant || report->no_skip))) {
        printf("%s %s: %s (seed %llu)\n", words[outcome], name, reason,
               (unsigned long long) report->seed);
    }
    fflush(stdout);
    cli_progress("verify", n + 1, report->n_total);
}

static void add_result(struct report *report, const struct verify_case *c,
                       const struct verify_result *result)
{
    char name[VERIFY_NAME_SIZE];
    case_name(c, name);
    print_line(report, name, result->outcome, result->reason);
    if (result->outcome == VERIFY_SKIPPED || c->what == VERIFY_NET)
        return;
    report->n_rows += verify_tokens(c);
    report->n_exempt += result->n_exempt;
    for (uint32_t check = 0; check < VERIFY_N_CHECKS; check++)
        report->n_uncontrolled[check] += result->uncontrolled >> check & 1;
}

// At most 0.1 % of a run's rows, rounded up, may differ in experts with scores too close to tell.
static void check_exempt(struct report *report)
{
    uint64_t limit = (report->n_rows + 999) / 1000;
    char reason[VERIFY_TEXT_SIZE];
    if (report->n_exempt <= limit)
        return;
    snprintf(reason, sizeof reason, "%llu of %llu rows have other experts; at most %llu may",
             (unsigned long long) report->n_exempt, (unsigned long long) report->n_rows,
             (unsigned long long) limit);
    print_line(report, "rows/exempt", VERIFY_FAILED, reason);
}

static void print_begin(struct report *report, const char *device)
{
    if (!report->json)
        return;
    json_t *name = json_string(device);
    fputs("{\n \"device\": ", stdout);
    report->broken |= !name || json_dumpf(name, stdout, JSON_ENCODE_ANY) != 0;
    json_decref(name);
    printf(",\n \"seed\": %llu,\n \"cases\": [\n", (unsigned long long) report->seed);
}

static void print_end(const struct report *report)
{
    const uint64_t *n = report->n_outcome;
    if (report->json) {
        printf(" ],\n \"passed\": %llu,\n \"failed\": %llu,\n \"skipped\": %llu\n}\n",
               (unsigned long long) n[VERIFY_PASSED], (unsigned long long) n[VERIFY_FAILED],
               (unsigned long long) n[VERIFY_SKIPPED]);
        return;
    }
    const uint64_t *open = report->n_uncontrolled;
    printf("%llu rows; in %llu of them experts with scores too close to tell changed places\n"
           "Controls: where a case passed, each check failed once a weight row was changed, but\n"
           "for this many cases where nothing could show (no rows, or no weight row matters):\n"
           "y %llu, ids %llu, gates %llu, scores %llu\n",
           (unsigned long long) report->n_rows, (unsigned long long) report->n_exempt,
           (unsigned long long) open[VERIFY_CHECK_Y], (unsigned long long) open[VERIFY_CHECK_IDS],
           (unsigned long long) open[VERIFY_CHECK_GATES],
           (unsigned long long) open[VERIFY_CHECK_SCORES]);
    if (report->variant)
        printf("Skipped is what variant %s does not compute here; --json says why of each case\n",
               report->variant);
    printf("%llu passed, %llu failed, %llu skipped\n", (unsigned long long) n[VERIFY_PASSED],
           (unsigned long long) n[VERIFY_FAILED], (unsigned long long) n[VERIFY_SKIPPED]);
}

// ---- the run -----------------------------------------------------------------------------------

static void run_net(const struct verify_session *session, const struct verify_case *c,
                    struct report *report)
{
    struct verify_result result = {.outcome = VERIFY_SKIPPED,
                                   .reason = "--variant is for kernels of layers"};
    if (!session->variant)
        verify_net(session, c->level[VERIFY_SHAPE], &result);
    add_result(report, c, &result);
}

static void run_layer(const struct verify_session *session, const struct group *group,
                      struct report *report)
{
    struct verify_subject subject;
    struct verify_result result;
    bool open = verify_open(session, group->cases, group->max_tokens, &subject, &result);
    for (uint32_t i = 0; i < group->n && !cli_interrupted(); i++) {
        if (open && group->cases[i].what == VERIFY_GRADIENTS)
            verify_backward(&subject, &group->cases[i], &result);
        else if (open)
            verify_run(&subject, &group->cases[i], &result);
        add_result(report, &group->cases[i], &result);
    }
    if (open)
        verify_close(&subject);
}

static int run_all(const struct walk *first, const struct verify_session *session,
                   const char *device, struct report *report)
{
    struct walk walk = *first;
    struct verify_case ahead;
    struct group group;
    bool has_ahead = false;
    print_begin(report, device);
    while (!cli_interrupted() && next_group(&walk, &ahead, &has_ahead, &group))
        group.cases->what == VERIFY_NET ? run_net(session, group.cases, report)
                                        : run_layer(session, &group, report);
    cli_progress_end();
    check_exempt(report);
    print_end(report);
    if (cli_interrupted())
        return cli_fail(VKMOE_E_CANCELLED);
    if (report->n_outcome[VERIFY_FAILED] ||
        (report->no_skip && report->n_outcome[VERIFY_SKIPPED]))
        return CLI_VERIFY_FAILED;
    if (report->broken) {
        cli_error("JSON could not be written");
        return CLI_FAILED;
    }
    if (!report->n_outcome[VERIFY_PASSED]) {
        if (report->variant)
            cli_error("nothing was verified: variant %s computes none of the cases",
                      report->variant);
        else
            cli_error("nothing was verified: the device supports none of the cases");
        return CLI_FAILED;
    }
    return CLI_OK;
}

static uint64_t count_cases(const struct walk *first)
{
    struct walk walk = *first;
    struct verify_case c;
    uint64_t n = 0;
    while (!cli_interrupted() && next_match(&walk, &c))
        n++;
    return n;
}

// What no device has to offer is no case, unless it is asked for.
static void leave_out_int8(struct walk *walk, vkmoe_context *context, struct report *report)
{
    if (walk->precision == VKMOE_PRECISION_INT8 || cli_has_int8(context))
        return;
    walk->without_int8 = true;
    report->n_total = count_cases(walk);
}

static int run_devices(struct walk *walk, const struct cli_device *device, struct report *report)
{
    struct verify_session session = {.seed = report->seed, .variant = report->variant};
    struct cli_device oracle = *device;
    vkmoe_device_info info;
    enum vkmoe_status status = cli_open(device, &session.device, &info);
    if (status != VKMOE_OK)
        return cli_fail(status);
    if (session.variant) {
        status = cli_check_variant(session.device, &info, session.variant);
        if (status != VKMOE_OK)
            return cli_close(session.device, cli_fail(status));
    }
    leave_out_int8(walk, session.device, report);
    vkmoe_host host = cli_host(&oracle);
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.host = &host;
    desc.device = "reference";
    status = vkmoe_context_create(&desc, &session.oracle);
    int code = status == VKMOE_OK ? run_all(walk, &session, info.name, report) : cli_fail(status);
    vkmoe_context_destroy(session.oracle);
    return cli_close(session.device, code);
}

static int list_cases(const struct walk *first)
{
    struct walk walk = *first;
    struct verify_case c;
    char name[VERIFY_NAME_SIZE];
    while (!cli_interrupted() && next_match(&walk, &c)) {
        case_name(&c, name);
        puts(name);
    }
    return cli_interrupted() ? CLI_INTERRUPTED : CLI_OK;
}

// Nothing is left of the cases; `precision` is negative if none was asked for.
static int no_case(const struct cli_spec *spec, const char *filter, int precision)
{
    if (precision < 0)
        return cli_usage(spec, "--filter %s matches no case; --list prints them", filter);
    const char *name = vkmoe_precision_name((enum vkmoe_precision) precision);
    if (!filter)
        return cli_usage(spec, "--precision %s: no case has it", name);
    return cli_usage(spec, "--filter %s matches no case of --precision %s; --list prints them",
                     filter, name);
}

int cmd_verify(int argc, char **argv)
{
    struct cli_device device = cli_device_init();
    struct report report = {.seed = 1};
    struct walk walk = {.product = verify_first(), .precision = -1};
    const char *filter = NULL;
    bool all = false, list = false;
    const struct cli_option options[] = {
        {"filter", 0, CLI_TEXT, &filter, "REGEX", "only cases whose name matches"},
        {"precision", 0, CLI_CHOICE, &walk.precision, CLI_PRECISIONS,
         "only cases of this precision"},
        {"variant", 0, CLI_TEXT, &report.variant, "NAME",
         "only by this kernel variant of a Vulkan device,\n"
         "as `vkmoe info -v` names them, of layers; cases\n"
         "that it does not compute are skipped, and net/*"},
        {"all", 0, CLI_FLAG, &all, NULL, "the product of all factors instead of a pairwise\n"
                                         "covering set; takes very long"},
        {"seed", 0, CLI_U64, &report.seed, "S", "seed of all random numbers (1)"},
        {"no-skip", 0, CLI_FLAG, &report.no_skip, NULL,
         "a case that the device does not support is a failure"},
        {"list", 0, CLI_FLAG, &list, NULL, "print the names of the cases and stop"},
        {"json", 0, CLI_FLAG, &report.json, NULL, "print JSON"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "verify",
        .synopsis = "",
        .text = "Runs layers of many shapes, types, routers and activations on a device and\n"
                "compares outputs, selected experts, gate weights and gradients (cases named\n"
                "*/gradients) with an f64 reference; then losses and gradients of whole networks\n"
                "that train (net/*). Each check is shown to fail when a weight row, an input or\n"
                "the rate changes. Cases of precision int8 are for devices that have it, and for\n"
                "--precision int8. Exit code 3: a case failed.",
        .options = options,
        .device = &device,
    };
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;

    regex_t regex;
    struct verify_case *cover = NULL;
    if (filter && regcomp(&regex, filter, REG_EXTENDED | REG_NOSUB) != 0)
        return cli_usage(&spec, "--filter %s: not a regular expression", filter);
    walk.filter = filter ? &regex : NULL;
    if (!all) {
        walk.n_cover = verify_cover(&cover);
        walk.cover = cover;
    }
    if (!all && !cover) {
        cli_error("no memory for the list of cases");
        code = CLI_FAILED;
    } else if ((report.n_total = count_cases(&walk)) == 0 && !cli_interrupted()) {
        code = no_case(&spec, filter, walk.precision);
    } else {
        code = list ? list_cases(&walk) : run_devices(&walk, &device, &report);
    }
    free(cover);
    if (filter)
        regfree(&regex);
    return code;
}
