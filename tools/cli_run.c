// SPDX-License-Identifier: MIT
// The device, messages, interruption, progress and JSON of every command.
#include "cli.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

// A signal handler has nowhere else to put its news; the progress line belongs to the terminal,
// of which there is one as well.
static volatile sig_atomic_t interrupted;
static bool progress_shown;
static double progress_time;

void cli_error(const char *format, ...)
{
    cli_progress_end();
    va_list args;
    va_start(args, format);
    fputs("vkmoe: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

int cli_fail(enum vkmoe_status status)
{
    if (status == VKMOE_E_CANCELLED) {
        cli_error("interrupted");
        return CLI_INTERRUPTED;
    }
    cli_error("%s", vkmoe_error_text());
    return status == VKMOE_E_NO_DEVICE ? CLI_NO_DEVICE : CLI_FAILED;
}

enum vkmoe_status cli_alloc(size_t n, size_t width, size_t element_size, void *out)
{
    size_t row;
    void *memory = __builtin_mul_overflow(width, element_size, &row) ? NULL : calloc(n, row + 1);
    memcpy(out, &memory, sizeof memory);
    if (memory)
        return VKMOE_OK;
    char text[128];
    snprintf(text, sizeof text, "no memory for %zu rows of %zu elements", n, width);
    vkmoe_error_set(text);
    return VKMOE_E_MEMORY;
}

static void print_log(void *user, enum vkmoe_log_level level, const char *text)
{
    const struct cli_device *device = user;
    if ((int) level > (device ? device->log + 1 : VKMOE_LOG_WARN))
        return;
    cli_progress_end();
    static const char *const names[] = {
        [VKMOE_LOG_ERROR] = "error",
        [VKMOE_LOG_WARN] = "warning",
        [VKMOE_LOG_INFO] = "info",
        [VKMOE_LOG_DEBUG] = "debug",
    };
    fprintf(stderr, "vkmoe: %s: %s\n", names[level], text);
}

vkmoe_host cli_host(const struct cli_device *device)
{
    vkmoe_host host = vkmoe_host_init();
    host.user = (void *) device;
    host.log = print_log;
    return host;
}

enum vkmoe_status cli_open(const struct cli_device *device, vkmoe_context **context,
                           vkmoe_device_info *info)
{
    vkmoe_host host = cli_host(device);
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.host = &host;
    desc.device = device->spec;
    desc.n_threads = device->n_threads;
    desc.cpu_isa = device->isa;
    desc.addressing = (enum vkmoe_addressing) device->addressing;
    desc.floor = device->floor;
    desc.validation = device->validation;
    enum vkmoe_status status = vkmoe_context_create(&desc, context);
    if (status == VKMOE_OK)
        status = vkmoe_context_info(*context, info);
    if (status != VKMOE_OK) {
        vkmoe_context_destroy(*context);
        *context = NULL;
        return status;
    }
    fprintf(stderr, "device: %s (%s%s%s)\n", info->name, cli_device_type(info->type),
            *info->tier ? ", " : "", info->tier);
    return VKMOE_OK;
}

int cli_close(vkmoe_context *context, int code)
{
    uint32_t n_messages = context ? vkmoe_context_validation_count(context) : 0;
    vkmoe_context_destroy(context);
    if (n_messages == 0)
        return code;
    cli_error("%u validation messages", (unsigned) n_messages);
    return code == CLI_OK ? CLI_FAILED : code;
}

const char *cli_tune_state(enum vkmoe_tune_state state)
{
    static const char *const names[] = {
        [VKMOE_TUNE_USED] = "used",
        [VKMOE_TUNE_NOT_FASTER] = "not faster",
        [VKMOE_TUNE_BAD] = "bad",
        [VKMOE_TUNE_UNAVAILABLE] = "unavailable",
        [VKMOE_TUNE_DISABLED] = "disabled",
        [VKMOE_TUNE_UNTESTED] = "untested",
    };
    return names[state];
}

const char *cli_device_type(enum vkmoe_device_type type)
{
    switch (type) {
    case VKMOE_DEVICE_DISCRETE:
        return "discrete";
    case VKMOE_DEVICE_INTEGRATED:
        return "integrated";
    case VKMOE_DEVICE_SOFTWARE:
        return "software";
    case VKMOE_DEVICE_CPU:
        return "cpu";
    case VKMOE_DEVICE_REFERENCE:
        return "reference";
    }
    return "unknown";
}

static void on_interrupt(int signal_number)
{
    (void) signal_number;
    interrupted = 1;
}

void cli_catch_interrupt(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = SA_RESETHAND | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
}

bool cli_interrupted(void)
{
    return interrupted != 0;
}

void cli_progress_text(const char *format, ...)
{
    double now = cli_clock();
    if (!isatty(STDERR_FILENO) || (progress_shown && now - progress_time < 0.1))
        return;
    progress_time = now;
    progress_shown = true;
    va_list args;
    va_start(args, format);
    fputs("\r\033[K", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
}

void cli_progress(const char *what, uint64_t done, uint64_t total)
{
    if (total)
        cli_progress_text("%s %llu/%llu", what, (unsigned long long) done,
                          (unsigned long long) total);
    else
        cli_progress_text("%s %llu", what, (unsigned long long) done);
}

void cli_progress_end(void)
{
    if (progress_shown)
        fputs("\r\033[K", stderr);
    progress_shown = false;
}

// Plans alone tell: of a GPU, what they compute with. Errors of other kinds are for those to see
// who make theirs.
bool cli_has_int8(vkmoe_context *context)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_plan *plan = NULL;
    layer.n_experts = layer.top_k = 1;
    layer.d_model = layer.d_ff = 32;
    layer.in_type = layer.out_type = VKMOE_Q8_0;
    desc.layer = &layer;
    desc.precision = VKMOE_PRECISION_INT8;
    desc.max_tokens = 64;
    enum vkmoe_status status = vkmoe_plan_create(context, &desc, &plan);
    bool has = status != VKMOE_E_UNSUPPORTED;
    vkmoe_device_info info;
    vkmoe_plan_kernels kernels;
    if (status == VKMOE_OK && vkmoe_context_info(context, &info) == VKMOE_OK &&
        info.type < VKMOE_DEVICE_CPU && vkmoe_plan_get_kernels(plan, &kernels) == VKMOE_OK)
        has = kernels.arithmetic == VKMOE_ARITHMETIC_INT8 ||
              kernels.arithmetic == VKMOE_ARITHMETIC_INT8_MATRIX;
    vkmoe_plan_destroy(plan);
    return has;
}

static enum vkmoe_status list_kernels(vkmoe_context *context, vkmoe_kernel_info **out, uint32_t *n)
{
    enum vkmoe_status status;
    CLI_TRY(vkmoe_context_kernels(context, NULL, n));
    CLI_TRY(cli_alloc(*n, 1, sizeof **out, out));
    CLI_TRY(vkmoe_context_kernels(context, *out, n));

fail:
    return status;
}

static bool is_of_networks(const vkmoe_kernel_info *kernel)
{
    return strncmp(kernel->verdict.kernel, "net-", 4) == 0;
}

// Leaves in `text` what is to be said of the n kernels if it is none that layers can have.
static bool can_have(const vkmoe_kernel_info *kernels, uint32_t n, const char *name,
                     const char *device, char text[512])
{
    const char *why = NULL, *of_networks = "", *before = "";
    for (uint32_t i = 0; i < n; i++)
        if (is_of_networks(&kernels[i]) && strcmp(name, kernels[i].verdict.kernel) == 0)
            of_networks = "is of networks, which are not computed by it here; ";
    int at = snprintf(text, 512, "variant '%.64s': %sthere are only: ", name, of_networks);
    for (uint32_t i = 0; i < n && at < 512; i++) {
        const vkmoe_tune_verdict *verdict = &kernels[i].verdict;
        if (is_of_networks(&kernels[i]))
            continue;
        at += snprintf(text + at, 512 - (size_t) at, "%s%s (%s)", before, verdict->kernel,
                       kernels[i].kind);
        before = ", ";
        if (strcmp(name, verdict->kernel) != 0 && strcmp(name, kernels[i].kind) != 0)
            continue;
        if (verdict->state != VKMOE_TUNE_BAD && verdict->state != VKMOE_TUNE_UNAVAILABLE &&
            verdict->state != VKMOE_TUNE_DISABLED)
            return true;
        why = why ? why : verdict->reason; // that of the best one
    }
    if (why)
        snprintf(text, 512, "variant '%.64s' on %.200s: %s", name, device, why);
    return false;
}

enum vkmoe_status cli_check_variant(vkmoe_context *context, const vkmoe_device_info *device,
                                    const char *name)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_kernel_info *kernels = NULL;
    uint32_t n = 0;
    char text[512];
    bool vulkan = device->type < VKMOE_DEVICE_CPU, can = false;
    snprintf(text, sizeof text, "variant '%.64s': only Vulkan devices have variants, not %.200s",
             name, device->name);
    if (vulkan)
        CLI_TRY(list_kernels(context, &kernels, &n));
    if (vulkan)
        can = can_have(kernels, n, name, device->name, text);
    if (!can) {
        vkmoe_error_set(text);
        CLI_TRY(VKMOE_E_UNSUPPORTED);
    }

fail:
    free(kernels);
    return status;
}

double cli_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
}

int cli_print_json(json_t *value)
{
    // 9 digits carry an f32 exactly.
    int failed = !value || json_dumpf(value, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9)) != 0;
    json_decref(value);
    if (failed) {
        cli_error("JSON could not be written");
        return CLI_FAILED;
    }
    putchar('\n');
    return CLI_OK;
}
