// SPDX-License-Identifier: MIT
// vkmoe tune: which kernels of a device are right, and which are worth their place.
#include "cli.h"
#include "commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <vkmoe/bench.h>

struct tuning {
    vkmoe_device_info device;
    vkmoe_tune_verdict *verdicts;
    uint32_t n;
    char cache[4096]; // where verdicts are kept; "" for nowhere
};

// As the library chooses it, see cache_dir in vkmoe.h. A CPU's verdicts are not kept.
static void find_cache(struct tuning *t)
{
    static const struct {
        const char *variable, *below;
    } places[] = {
        {"VKMOE_CACHE_DIR", ""},
        {"XDG_CACHE_HOME", "/vkmoe"},
        {"HOME", "/.cache/vkmoe"},
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *base = getenv(places[i].variable);
        if (!base || !*base)
            continue;
        int n = snprintf(t->cache, sizeof t->cache, "%s%s", base, places[i].below);
        if (n < 0 || (size_t) n >= sizeof t->cache || t->device.type == VKMOE_DEVICE_CPU)
            *t->cache = '\0';
        return;
    }
}

static enum vkmoe_status tune(vkmoe_context *context, bool fresh, struct tuning *t)
{
    enum vkmoe_status status;
    vkmoe_tune_desc desc = vkmoe_tune_desc_init();
    desc.fresh = fresh;
    CLI_TRY(vkmoe_tune(context, &desc, NULL, &t->n));
    CLI_TRY(cli_alloc(t->n, 1, sizeof *t->verdicts, &t->verdicts));
    cli_progress_text("testing and timing %u kernels", (unsigned) t->n);
    CLI_TRY(vkmoe_tune(context, &desc, t->verdicts, &t->n));

fail:
    cli_progress_end();
    return status;
}

// ---- output ------------------------------------------------------------------------------------

static void print_time(double seconds)
{
    if (seconds > 0)
        printf("  %9.1f us", 1e6 * seconds);
    else
        printf("  %9s   ", "-");
}

static void print_table(const struct tuning *t)
{
    printf("%-10s  %-11s  %12s  %12s\n", "kernel", "state", "time", "against");
    for (uint32_t i = 0; i < t->n; i++) {
        const vkmoe_tune_verdict *v = &t->verdicts[i];
        printf("%-10s  %-11s", v->kernel, cli_tune_state(v->state));
        print_time(v->seconds);
        print_time(v->base_seconds);
        printf("%s%s%s\n", *v->reason ? "  " : "", v->reason, v->cached ? "  (known before)" : "");
    }
    if (*t->cache)
        printf("kept in %s\n", t->cache);
    else
        printf("not kept\n");
}

static json_t *time_json(double seconds)
{
    return seconds > 0 ? json_real(seconds) : json_null();
}

static json_t *verdicts_json(const struct tuning *t)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < t->n; i++) {
        const vkmoe_tune_verdict *v = &t->verdicts[i];
        json_t *one = json_pack("{s:s, s:s, s:s, s:o, s:o, s:b}", "kernel", v->kernel, "state",
                                cli_tune_state(v->state), "reason", v->reason, "seconds",
                                time_json(v->seconds), "base_seconds",
                                time_json(v->base_seconds), "cached", v->cached);
        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static int print_json(const struct tuning *t)
{
    json_t *verdicts = verdicts_json(t);
    if (!verdicts)
        return cli_print_json(NULL);
    json_t *cache = *t->cache ? json_string(t->cache) : json_null();
    return cli_print_json(json_pack("{s:s, s:o, s:o}", "device", t->device.name, "cache", cache,
                                    "verdicts", verdicts));
}

int cmd_tune(int argc, char **argv)
{
    struct cli_device device = cli_device_init();
    bool fresh = false, json = false;
    const struct cli_option options[] = {
        {"fresh", 0, CLI_FLAG, &fresh, NULL, "forget what earlier runs found, and look again"},
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "tune",
        .synopsis = "",
        .text = "Tests every kernel that a device may have, then times the right ones on small\n"
                "layers, in turn with what is used without them. A kernel that is not 3 %\n"
                "faster is used only where it is named. What is found for a Vulkan device is\n"
                "kept, and later plans of any program go by it.",
        .options = options,
        .device = &device,
    };
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;

    enum vkmoe_status status;
    vkmoe_context *context = NULL;
    struct tuning t = {0};
    CLI_TRY(cli_open(&device, &context, &t.device));
    CLI_TRY(tune(context, fresh, &t));
    find_cache(&t);
    if (json)
        code = print_json(&t);
    else
        print_table(&t);

fail:
    if (status != VKMOE_OK)
        code = cli_fail(status);
    code = cli_close(context, code);
    free(t.verdicts);
    return code;
}
