// SPDX-License-Identifier: MIT
// Options: one table drives getopt_long and the text of --help.
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum {
    MAX_OPTIONS = 48,
    VALUE_BASE = 256, // getopt_long returns VALUE_BASE + row
    HELP_COLUMN = 30,
};

// The command's own options, then the common ones.
struct table {
    struct cli_option rows[MAX_OPTIONS];
    size_t n;
    struct option longs[MAX_OPTIONS + 1];
    char shorts[2 * MAX_OPTIONS + 2];
};

struct cli_device cli_device_init(void)
{
    struct cli_device device;
    memset(&device, 0, sizeof device);
    device.log = VKMOE_LOG_WARN - 1;
    return device;
}

int cli_usage(const struct cli_spec *spec, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "vkmoe %s: ", spec->name);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\nTry 'vkmoe %s --help'.\n", spec->name);
    va_end(args);
    return CLI_USAGE;
}

static void add_row(struct table *table, const struct cli_option *row)
{
    if (table->n == MAX_OPTIONS)
        abort(); // a bug in a command's table, met by its first test
    table->rows[table->n] = *row;
    struct option *entry = &table->longs[table->n];
    entry->name = row->name;
    entry->has_arg = row->kind == CLI_FLAG ? no_argument : required_argument;
    entry->val = VALUE_BASE + (int) table->n;
    if (row->letter) {
        size_t end = strlen(table->shorts);
        table->shorts[end] = row->letter;
        table->shorts[end + 1] = row->kind == CLI_FLAG ? '\0' : ':';
    }
    table->n++;
}

static void fill_table(struct table *table, const struct cli_spec *spec, bool *help)
{
    memset(table, 0, sizeof *table);
    for (const struct cli_option *row = spec->options; row && row->name; row++)
        add_row(table, row);
    struct cli_device *device = spec->device;
    if (device) {
        const struct cli_option rows[] = {
            // out == NULL: handled by set_device
            {"device", 'd', CLI_TEXT, NULL, "DEVICE",
             "auto, cpu, reference, vulkan, an index, a UUID\nprefix, vvvv:dddd or part of a name"},
            {"threads", 0, CLI_U32, &device->n_threads, "N", "CPU threads (0: one per core)"},
            {"isa", 0, CLI_TEXT, &device->isa, "NAME",
             "highest CPU instruction set: scalar, avx2,\navx512, avx512_vnni, avx512_bf16, amx,"
             "\nneon, dotprod, i8mm"},
            {"addressing", 0, CLI_CHOICE, &device->addressing, "auto|descriptors|bda",
             "how Vulkan kernels reach buffers"},
            {"floor", 0, CLI_FLAG, &device->floor, NULL,
             "Vulkan 1.1 without extensions, features or\nlimits above the minimum"},
            {"validation", 0, CLI_FLAG, &device->validation, NULL,
             "run under the Vulkan validation layer; any\nmessage is a failure"},
            {"log", 0, CLI_CHOICE, &device->log, "error|warn|info|debug",
             "messages to show (warn)"},
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            add_row(table, &rows[i]);
    }
    add_row(table, &(struct cli_option){"help", 'h', CLI_FLAG, help, NULL, "this text"});
}

static void print_help(const struct cli_spec *spec, const struct table *table)
{
    printf("Usage: vkmoe %s [options]%s%s\n\n%s\n\nOptions:\n", spec->name,
           *spec->synopsis ? " " : "", spec->synopsis, spec->text);
    for (size_t i = 0; i < table->n; i++) {
        const struct cli_option *row = &table->rows[i];
        char left[96];
        int size = snprintf(left, sizeof left, "  %c%c%c --%s%s%s", row->letter ? '-' : ' ',
                            row->letter ? row->letter : ' ', row->letter ? ',' : ' ', row->name,
                            row->value ? " " : "", row->value ? row->value : "");
        if (size < HELP_COLUMN)
            printf("%-*s", HELP_COLUMN, left);
        else
            printf("%s\n%*s", left, HELP_COLUMN, "");
        for (const char *c = row->help; *c; c++) {
            putchar(*c);
            if (*c == '\n')
                printf("%*s", HELP_COLUMN, "");
        }
        putchar('\n');
    }
}

// A whole decimal number up to `max`, without sign or spaces.
static bool parse_number(const char *text, uint64_t max, uint64_t *out)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || *end || value > max)
        return false;
    *out = value;
    return true;
}

static bool parse_real(const char *text, double *out)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return false;
    *out = value;
    return true;
}

static bool parse_choice(const char *words, const char *text, int *out)
{
    size_t size = strlen(text);
    for (int i = 0; *words; i++) {
        size_t word = strcspn(words, "|");
        if (word == size && memcmp(words, text, size) == 0) {
            *out = i;
            return true;
        }
        words += word + (words[word] == '|');
    }
    return false;
}

// Writes a value where the row wants it; false: the text is not one.
static bool store(const struct cli_option *row, const char *text)
{
    uint64_t number;
    switch (row->kind) {
    case CLI_FLAG:
        *(bool *) row->out = true;
        return true;
    case CLI_TEXT:
    case CLI_OUTPUT:
        *(const char **) row->out = text;
        return true;
    case CLI_U32:
        if (!parse_number(text, UINT32_MAX, &number))
            return false;
        *(uint32_t *) row->out = (uint32_t) number;
        return true;
    case CLI_U64:
        if (!parse_number(text, UINT64_MAX, &number))
            return false;
        *(uint64_t *) row->out = number;
        return true;
    case CLI_REAL:
        return parse_real(text, row->out);
    case CLI_CHOICE:
        return parse_choice(row->value, text, row->out);
    case CLI_LIST: {
        struct cli_list *list = row->out;
        if (list->n == CLI_MAX_LIST)
            return false;
        list->texts[list->n++] = text;
        return true;
    }
    }
    return false;
}

static const char *set_device(struct cli_device *device, const char *text)
{
    if (device->list) {
        if (device->list->n == CLI_MAX_LIST)
            return "too many of them";
        device->list->texts[device->list->n++] = text;
        return NULL;
    }
    if (device->spec)
        return "takes one device";
    if (strcmp(text, "all") == 0)
        return "takes one device, not 'all'";
    device->spec = text;
    return NULL;
}

// Two options that write the same file, as *a and *b; the later one would destroy the work of the
// other.
static bool find_clash(const struct table *table, const struct cli_option **a,
                       const struct cli_option **b)
{
    for (*b = table->rows; *b < table->rows + table->n; ++*b) {
        for (*a = table->rows; *a < *b; ++*a) {
            if ((*a)->kind != CLI_OUTPUT || (*b)->kind != CLI_OUTPUT)
                continue;
            const char *x = *(const char **) (*a)->out, *y = *(const char **) (*b)->out;
            if (x && y && strcmp(x, y) == 0)
                return true;
        }
    }
    return false;
}

int cli_check_output(const struct cli_spec *spec, const char *output, const char *const *inputs,
                     size_t n)
{
    struct stat out, in;
    if (!output || stat(output, &out) != 0 || !S_ISREG(out.st_mode))
        return CLI_OK;
    for (size_t i = 0; i < n; i++) {
        if (inputs[i] && stat(inputs[i], &in) == 0 && in.st_dev == out.st_dev &&
            in.st_ino == out.st_ino)
            return cli_usage(spec, "%s is read, so it is not written to", output);
    }
    return CLI_OK;
}

static const struct cli_option *find_row(const struct table *table, int key)
{
    if (key >= VALUE_BASE)
        return &table->rows[key - VALUE_BASE];
    for (size_t i = 0; i < table->n; i++) {
        if (table->rows[i].letter == key)
            return &table->rows[i];
    }
    return NULL;
}

bool cli_parse(const struct cli_spec *spec, int *argc, char ***argv, int *code)
{
    struct table table;
    bool help = false;
    fill_table(&table, spec, &help);
    *code = CLI_USAGE;
    optind = 1;
    opterr = 0;
    int key;
    while ((key = getopt_long(*argc, *argv, table.shorts, table.longs, NULL)) != -1) {
        const struct cli_option *row = find_row(&table, key);
        if (!row) {
            // optopt is set for an unknown letter and for an option whose value is missing.
            const struct cli_option *known = optopt ? find_row(&table, optopt) : NULL;
            if (known)
                cli_usage(spec, "option --%s %s", known->name,
                          known->kind == CLI_FLAG ? "takes no value" : "needs a value");
            else if (optopt)
                cli_usage(spec, "unknown option -%c", optopt);
            else
                cli_usage(spec, "unknown option %s", (*argv)[optind - 1]);
            return false;
        }
        const char *reason = NULL;
        if (!row->out)
            reason = set_device(spec->device, optarg);
        else if (!store(row, optarg))
            reason = row->kind == CLI_CHOICE ? row->value
                     : row->kind == CLI_REAL ? "not a number"
                     : row->kind == CLI_LIST ? "too many of them"
                                             : "not a whole number in range";
        if (reason) {
            cli_usage(spec, "--%s %s: %s", row->name, optarg, reason);
            return false;
        }
    }
    if (help) {
        print_help(spec, &table);
        *code = CLI_OK;
        return false;
    }
    *argc -= optind;
    *argv += optind;
    const struct cli_option *a, *b;
    if (find_clash(&table, &a, &b))
        cli_usage(spec, "--%s and --%s: both to %s", a->name, b->name, *(const char **) a->out);
    else if (*argc < spec->min_args)
        cli_usage(spec, "too few arguments: needs %s", spec->synopsis);
    else if (*argc > spec->max_args)
        cli_usage(spec, "unexpected argument '%s'", (*argv)[spec->max_args]);
    else
        *code = CLI_OK;
    return *code == CLI_OK;
}
