// SPDX-License-Identifier: MIT
// vkmoe info: the devices of this machine.
#include "cli.h"
#include "commands.h"

#include <stdio.h>
#include <stdlib.h>

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

static json_t *device_json(const vkmoe_device_info *d)
{
    return json_pack("{s:I, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:s, s:s, s:I, s:s, s:o}",
                     "index", (json_int_t) d->index, "type", cli_device_type(d->type),
                     "name", d->name, "uuid", d->uuid, "pci", d->pci,
                     "vendor_id", (json_int_t) d->vendor_id,
                     "device_id", (json_int_t) d->device_id,
                     "driver", d->driver, "driver_version", d->driver_version, "api", d->api,
                     "memory_bytes", (json_int_t) d->memory_bytes, "tier", d->tier,
                     "features", features_json(d->features));
}

static int print_json(const vkmoe_device_info *devices, uint32_t n)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < n; i++) {
        if (json_array_append_new(list, device_json(&devices[i])) != 0) {
            json_decref(list);
            return cli_print_json(NULL);
        }
    }
    return cli_print_json(json_pack("{s:o}", "devices", list));
}

static void print_field(const char *name, const char *text)
{
    if (*text)
        printf("     %-9s %s\n", name, text);
}

static void print_text(const vkmoe_device_info *devices, uint32_t n)
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
    }
}

int cmd_info(int argc, char **argv)
{
    bool json = false;
    const struct cli_option options[] = {
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "info",
        .synopsis = "",
        .text = "Lists the devices of this machine. -d takes an index, the start of a UUID, an id\n"
                "(vendor:device), or a part of a name.",
        .options = options,
    };
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;

    uint32_t n = 0;
    enum vkmoe_status status = vkmoe_device_list(NULL, &n);
    if (status != VKMOE_OK)
        return cli_fail(status);
    vkmoe_device_info *devices = calloc(n + 1, sizeof *devices);
    if (!devices) {
        cli_error("out of memory for %u devices", (unsigned) n);
        return CLI_FAILED;
    }
    status = vkmoe_device_list(devices, &n);
    if (status != VKMOE_OK)
        code = cli_fail(status);
    else if (json)
        code = print_json(devices, n);
    else
        print_text(devices, n);
    free(devices);
    return code;
}
