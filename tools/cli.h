// SPDX-License-Identifier: MIT
// What the commands of `vkmoe` share: options, the device, errors, progress, JSON.
//
// A command is one file cmd_<name>.c and one line in commands.h. It describes its options in a
// table, from which both the parser and --help work:
//
//     struct cli_device device = cli_device_init();
//     bool json = false;
//     const struct cli_option options[] = {
//         {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
//         {0},
//     };
//     const struct cli_spec spec = {.name = "eval", .synopsis = "MODEL DATA", .text = "...",
//         .options = options, .min_args = 2, .max_args = 2, .device = &device};
//     int code;
//     if (!cli_parse(&spec, &argc, &argv, &code))
//         return code;              // argv[0..argc) now holds the positional arguments
//
// Data goes to stdout, everything else to stderr.
#ifndef CLI_H
#define CLI_H

#include <jansson.h>
#include <vkmoe/bench.h>

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_VERIFY_FAILED = 3,
    CLI_REGRESSION = 4,
    CLI_NO_DEVICE = 5,
    CLI_INTERRUPTED = 130,
};

// ---- options ---------------------------------------------------------------------------------

enum cli_kind {
    CLI_FLAG,   // bool
    CLI_TEXT,   // const char *
    CLI_OUTPUT, // const char *, path of a file to write: no two options may name the same
    CLI_U32,    // uint32_t
    CLI_U64,    // uint64_t
    CLI_REAL,   // double, finite
    CLI_CHOICE, // int: index of the word among those of `value`, "a|b|c"
    CLI_LIST,   // struct cli_list: one text each time that the option is given
};

enum { CLI_MAX_LIST = 64 };

struct cli_list {
    const char *texts[CLI_MAX_LIST];
    int n;
};

struct cli_option {
    const char *name; // long name without dashes; NULL ends the table
    char letter;      // short name or 0
    enum cli_kind kind;
    void *out;         // written when the option is given
    const char *value; // name of the value in --help; NULL for flags
    const char *help;
};

// The words of --precision, in the order of enum vkmoe_precision.
#define CLI_PRECISIONS "exact|half|int8"

// The words of --type, in the order of enum vkmoe_dtype.
#define CLI_TYPES "f32 f16 bf16 q8_0 q4_0 q4_K q5_K q6_K q2_K mxfp4 fp8"

// The options every command with a device has.
struct cli_device {
    const char *spec; // as given with -d; NULL: the library's choice
    struct cli_list *list; // where each -d goes in a command that takes several; NULL: into spec
    uint32_t n_threads;
    const char *isa;
    int log; // enum vkmoe_log_level - 1
    int addressing;
    bool floor, validation;
};

struct cli_device cli_device_init(void);

struct cli_spec {
    const char *name;     // of the command
    const char *synopsis; // its positional arguments
    const char *text;     // what it does, for --help
    const struct cli_option *options;
    int min_args, max_args;
    struct cli_device *device; // NULL: no device options
};

// Parses options into their places and leaves the positional arguments in argc, argv; *code is
// CLI_OK. false: the command is over (--help was printed, or a usage error) and returns *code.
bool cli_parse(const struct cli_spec *spec, int *argc, char ***argv, int *code);

// Prints "vkmoe <command>: <message>" and where to find help; returns CLI_USAGE.
__attribute__((format(printf, 2, 3)))
int cli_usage(const struct cli_spec *spec, const char *format, ...);

// ---- running ---------------------------------------------------------------------------------

// Jumps to the function's one `fail:` label when `expr` fails. Needs a variable `status`.
#define CLI_TRY(expr)                                                                              \
    do {                                                                                           \
        if ((status = (expr)) != VKMOE_OK)                                                         \
            goto fail;                                                                             \
    } while (0)

// Zeroed memory for n rows of `width` elements, at `*out`; free() it.
enum vkmoe_status cli_alloc(size_t n, size_t width, size_t element_size, void *out);

// An output that is one of n inputs (NULL: none) would destroy it: CLI_USAGE after a message, else
// CLI_OK.
int cli_check_output(const struct cli_spec *spec, const char *output, const char *const *inputs,
                     size_t n);

// Prints a message as an error on stderr.
__attribute__((format(printf, 1, 2)))
void cli_error(const char *format, ...);

// Prints vkmoe_error_text() as an error (or, for VKMOE_E_CANCELLED, that it was interrupted) and
// returns the exit code that goes with the status.
int cli_fail(enum vkmoe_status status);

// The host services of the program: messages up to the chosen level go to stderr. `device` may be
// NULL (warnings and errors). Valid as long as `device`.
vkmoe_host cli_host(const struct cli_device *device);

// Does precision int8 make a difference on the device?
bool cli_has_int8(vkmoe_context *context);

// Can layers on a device have the kernel variant of this name or kind, whatever they are? If not,
// the error text says why, or which there are.
enum vkmoe_status cli_check_variant(vkmoe_context *context, const vkmoe_device_info *device,
                                    const char *name);

// Opens the device of the command line and says on stderr which one it is.
enum vkmoe_status cli_open(const struct cli_device *device, vkmoe_context **context,
                           vkmoe_device_info *info);

// Closes it. Validation messages turn `code` from CLI_OK into CLI_FAILED.
int cli_close(vkmoe_context *context, int code);

// "cpu", "discrete" ... as in the JSON of `vkmoe info`. Static text.
const char *cli_device_type(enum vkmoe_device_type type);

// "used", "not faster" ..., as in the JSON of `vkmoe tune`. Static text.
const char *cli_tune_state(enum vkmoe_tune_state state);

// True after the first SIGINT: finish what is in hand, then return CLI_INTERRUPTED. A second SIGINT
// ends the program at once.
bool cli_interrupted(void);
void cli_catch_interrupt(void); // main() calls this once

// One line on stderr that overwrites itself, only when that is a terminal. total 0: not known.
void cli_progress(const char *what, uint64_t done, uint64_t total);
void cli_progress_end(void);

// The same with a text of its own.
__attribute__((format(printf, 1, 2)))
void cli_progress_text(const char *format, ...);

// Monotonic seconds.
double cli_clock(void);

// Prints `value` (and drops the reference to it); NULL counts as out of memory. CLI_OK or
// CLI_FAILED.
int cli_print_json(json_t *value);

#endif
