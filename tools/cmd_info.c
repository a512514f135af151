// SPDX-License-Identifier: MIT
// vkmoe info: the devices of this machine.
#include "cli.h"
#include "commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vkmoe/bench.h>

// ---- kernels -----------------------------------------------------------------------------------

// What was found out of one device's kernels.
struct kernels {
    vkmoe_kernel_info *list;
    uint32_t n;
    char error[256]; // why there is no list; "" if there is
};

static enum vkmoe_status list_kernels(vkmoe_context *context, struct kernels *out)
{
    enum vkmoe_status status;
    CLI_TRY(vkmoe_context_kernels(context, NULL, &out->n));
    CLI_TRY(cli_alloc(out->n, 1, sizeof *out->list, &out->list));
    CLI_TRY(vkmoe_context_kernels(context, out->list, &out->n));

fail:
    return status;
}

static void no_log(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user, (void) level, (void) text;
}

// A device that cannot be opened is described all the same. Fails where VKMOE_DISABLE is wrong.
static enum vkmoe_status find_kernels(uint32_t index, struct kernels *out)
{
    char device[16];
    vkmoe_context *context = NULL;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_host host = vkmoe_host_init();
    host.log = no_log; // what it would say is in the list
    snprintf(device, sizeof device, "%u", (unsigned) index);
    desc.device = device;
    desc.host = &host;
    enum vkmoe_status status = vkmoe_context_create(&desc, &context);
    if (status == VKMOE_OK)
        status = list_kernels(context, out);
    if (status != VKMOE_OK) {
        snprintf(out->error, sizeof out->error, "%s", vkmoe_error_text());
        out->n = 0;
    }
    vkmoe_context_destroy(context);
    return status == VKMOE_E_ARGUMENT || status == VKMOE_E_MEMORY ? status : VKMOE_OK;
}

static void print_field(const char *name, const char *text)
{
    if (*text)
        printf("     %-9s %s\n", name, text);
}

static void print_kernels(const struct kernels *kernels)
{
    print_field("kernels", kernels->error);
    for (uint32_t i = 0; i < kernels->n; i++) {
        const vkmoe_kernel_info *k = &kernels->list[i];
        const vkmoe_tune_verdict *v = &k->verdict;
        printf("     %-9s %s (%s): ", i == 0 ? "kernels" : "", v->kernel, k->kind);
        if (v->state == VKMOE_TUNE_USED)
            printf("used");
        else if (v->state == VKMOE_TUNE_UNTESTED)
            printf("not tested yet: %s", v->reason);
        else
            printf("not used because %s", v->reason);
        printf("%s%s%s\n", *k->computes ? " [" : "", k->computes, *k->computes ? "]" : "");
    }
}

static json_t *kernels_json(const struct kernels *kernels)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < kernels->n; i++) {
        const vkmoe_kernel_info *k = &kernels->list[i];
        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s, s:s}", "kernel", k->verdict.kernel, "kind",
                            k->kind, "computes", k->computes, "state",
                            cli_tune_state(k->verdict.state), "reason", k->verdict.reason));
    }
    return list;
}

static void free_kernels(struct kernels *kernels, uint32_t n)
{
    for (uint32_t i = 0; kernels && i < n; i++)
        free(kernels[i].list);
    free(kernels);
}

// ---- devices -----------------------------------------------------------------------------------

static json_t *features_json(const char *names)
{
    json_t *array = json_array();
    while (*names) {
        size_t size = strcspn(names, " ");
        if (size > 0)
            json_array_append_new(array, json_stringn(names, size));
        names += size + (names[size] == ' ');
    }
    return array;
}

static json_t *device_json(const vkmoe_device_info *d, const struct kernels *kernels)
{
    json_t *device =
        json_pack("{s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:I, s:s, s:s, s:o}",
                  "index", (json_int_t) d->index, "type", cli_device_type(d->type),
                  "name", d->name, "uuid", d->uuid, "pci", d->pci,
                  "vendor_id", (json_int_t) d->vendor_id,
                  "device_id", (json_int_t) d->device_id,
                  "driver", d->driver, "driver_version", d->driver_version, "api", d->api,
                  "memory_bytes", (json_int_t) d->memory_bytes, "memory", d->memory,
                  "tier", d->tier,
                  "features", features_json(d->features));
    if (kernels && *kernels->error)
        json_object_set_new(device, "kernels_error", json_string(kernels->error));
    if (kernels)
        json_object_set_new(device, "kernels", kernels_json(kernels));
    return device;
}

static int print_json(const vkmoe_device_info *devices, uint32_t n,
                      const struct kernels *kernels)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++) {
        json_t *device = device_json(&devices[i], kernels ? &kernels[i] : NULL);
        if (json_array_append_new(list, device) != 0) {
            json_decref(list);
            return cli_print_json(NULL);
        }
    }
    return cli_print_json(json_pack("{s:o}", "devices", list));
}

// Which way weights and inputs go.
static void print_memory(const vkmoe_device_info *d)
{
    if (*d->memory)
        printf("     %-9s %s: memory is %s\n", "upload",
               strcmp(d->memory, "discrete") == 0 ? "by copies" : "in place", d->memory);
}

static void print_text(const vkmoe_device_info *devices, uint32_t n,
                       const struct kernels *kernels)
{
    for (uint32_t i = 0; i < n; i++) {
        const vkmoe_device_info *d = &devices[i];
        printf("%3u  %s (%s)\n", (unsigned) d->index, d->name, cli_device_type(d->type));
        print_field("tier", d->tier);
        print_field("uuid", d->uuid);
        print_field("pci", d->pci);
        if (d->vendor_id)
            printf("     %-9s %04x:%04x\n", "id", (unsigned) d->vendor_id,
                   (unsigned) d->device_id);
        print_field("driver", d->driver);
        print_field("version", d->driver_version);
        print_field("api", d->api);
        printf("     %-9s %.1f GiB\n", "memory", (double) d->memory_bytes / (1 << 30));
        print_field("features", d->features);
        if (kernels)
            print_memory(d);
        if (kernels)
            print_kernels(&kernels[i]);
    }
}

int cmd_info(int argc, char **argv)
{
    bool json = false, verbose = false;
    const struct cli_option options[] = {
        {"verbose", 'v', CLI_FLAG, &verbose, NULL, "also each device's kernels, used or why not"},
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "info",
        .synopsis = "",
        .text = "Lists the devices of this machine. -d takes an index, the start of a UUID, an id\n"
                "(vendor:device), or a part of a name. VKMOE_DISABLE=NAME,... leaves kernels out.",
        .options = options,
    };
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;

    uint32_t n = 0;
    enum vkmoe_status status = vkmoe_device_list(NULL, &n);
    if (status != VKMOE_OK)
        return cli_fail(status);
    vkmoe_device_info *devices = NULL;
    struct kernels *kernels = NULL;
    uint32_t room = n;
    CLI_TRY(cli_alloc(room + 1, 1, sizeof *devices, &devices));
    CLI_TRY(vkmoe_device_list(devices, &n));
    n = n < room ? n : room;
    if (verbose)
        CLI_TRY(cli_alloc(room + 1, 1, sizeof *kernels, &kernels));
    for (uint32_t i = 0; verbose && i < n; i++)
        CLI_TRY(find_kernels(devices[i].index, &kernels[i]));
    if (json)
        code = print_json(devices, n, kernels);
    else
        print_text(devices, n, kernels);

fail:
    if (status != VKMOE_OK)
        code = cli_fail(status);
    free_kernels(kernels, room);
    free(devices);
    return code;
}
