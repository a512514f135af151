// SPDX-License-Identifier: MIT
#include "api/devices.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { LIKELY_DEVICES = 8 }; // room for the first try

// Asks a back end for its devices: *out gets *n of them. Vulkan starts a driver for each question,
// so the count is not asked for first.
static enum vkmoe_status enumerate(const struct moe_backend *backend, const vkmoe_host *host,
                                   vkmoe_device_info **out, uint32_t *n)
{
    enum vkmoe_status status;
    vkmoe_device_info *infos = NULL;
    uint32_t room = LIKELY_DEVICES;
    *n = 0;
    if (!backend->enumerate)
        return VKMOE_OK;
    for (;;) {
        TRY(moe_try_alloc(host, room * sizeof *infos, "list of devices", &infos));
        *n = room;
        TRY(backend->enumerate(host, infos, n));
        if (*n <= room)
            break;
        room = *n;
        moe_free(host, infos);
    }
    *out = infos;
    return VKMOE_OK;
fail:
    moe_free(host, infos);
    return status;
}

static enum vkmoe_status append(struct moe_device_list *list, const vkmoe_host *host,
                                const struct moe_backend *backend)
{
    enum vkmoe_status status;
    vkmoe_device_info *infos = NULL;
    struct moe_device_entry *entries = NULL;
    uint32_t n;
    TRY(enumerate(backend, host, &infos, &n));
    TRY(moe_try_alloc(host, ((size_t) list->n + n) * sizeof *entries, "list of devices", &entries));
    if (list->n > 0)
        memcpy(entries, list->entries, list->n * sizeof *entries);
    for (uint32_t i = 0; i < n; i++) {
        infos[i].index = list->n + i;
        entries[list->n + i] = (struct moe_device_entry){backend, i, infos[i]};
    }
    moe_free(host, list->entries);
    list->entries = entries;
    list->n += n;
    status = VKMOE_OK;
fail:
    moe_free(host, infos);
    return status;
}

enum vkmoe_status moe_device_list_init(struct moe_device_list *list, const vkmoe_host *host,
                                       const struct moe_backend *only)
{
    enum vkmoe_status status;
    *list = (struct moe_device_list){0};
    for (uint32_t i = 0; moe_backends[i]; i++) {
        const struct moe_backend *backend = moe_backends[i];
        if (only && only != backend)
            continue;
        status = append(list, host, backend);
        // A driver that fails takes no other device with it, unless its devices were asked for.
        if (status != VKMOE_OK && !only && status != VKMOE_E_MEMORY)
            moe_log(host, VKMOE_LOG_WARN, "no %s devices: %s", backend->name, vkmoe_error_text());
        else
            TRY(status);
    }
    return VKMOE_OK;
fail:
    moe_device_list_finish(list, host);
    return status;
}

void moe_device_list_finish(struct moe_device_list *list, const vkmoe_host *host)
{
    moe_free(host, list->entries);
    *list = (struct moe_device_list){0};
}

// ---- what a text means ------------------------------------------------------------------------

static enum vkmoe_status fail_with_list(const struct moe_device_list *list, const char *spec,
                                        const char *why)
{
    char text[900];
    size_t used = 0;
    *text = '\0';
    for (uint32_t i = 0; i < list->n && used < sizeof text; i++)
        used += (size_t) snprintf(text + used, sizeof text - used, "%s %u %s", i > 0 ? ";" : "",
                                  i, list->entries[i].info.name);
    return moe_fail(VKMOE_E_NO_DEVICE, "device \"%.64s\": %s; there %s:%s", spec, why,
                    list->n == 1 ? "is" : "are", list->n > 0 ? text : " none");
}

// The first device of a type, or NULL.
static const struct moe_device_entry *first_of(const struct moe_device_list *list,
                                               enum vkmoe_device_type type)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (list->entries[i].info.type == type)
            return &list->entries[i];
    }
    return NULL;
}

static const struct moe_device_entry *find_best(const struct moe_device_list *list)
{
    static const enum vkmoe_device_type order[] = {VKMOE_DEVICE_DISCRETE, VKMOE_DEVICE_INTEGRATED,
                                                   VKMOE_DEVICE_CPU};
    const struct moe_device_entry *best = NULL;
    for (uint32_t i = 0; i < MOE_COUNT(order) && !best; i++)
        best = first_of(list, order[i]);
    return best;
}

static const struct moe_device_entry *find_vulkan(const struct moe_device_list *list)
{
    for (uint32_t i = 0; i < list->n; i++) {
        if (list->entries[i].info.type <= VKMOE_DEVICE_SOFTWARE)
            return &list->entries[i];
    }
    return NULL;
}

static bool contains(const char *text, const char *part)
{
    size_t n = strlen(part);
    for (; *text; text++) {
        if (strncasecmp(text, part, n) == 0)
            return true;
    }
    return false;
}

static bool matches_uuid(const vkmoe_device_info *info, const char *spec)
{
    size_t n = strlen(spec);
    return n >= 4 && strspn(spec, "0123456789abcdefABCDEF") == n &&
           strncasecmp(info->uuid, spec, n) == 0;
}

static bool matches_pci_id(const vkmoe_device_info *info, const char *spec)
{
    char id[24];
    snprintf(id, sizeof id, "%04x:%04x", info->vendor_id, info->device_id);
    return info->vendor_id != 0 && strcasecmp(id, spec) == 0;
}

static bool matches_name(const vkmoe_device_info *info, const char *spec)
{
    return contains(info->name, spec);
}

// The one device that matches: tried from the strictest reading of `spec` to the loosest.
static enum vkmoe_status find_match(const struct moe_device_list *list, const char *spec,
                                    const struct moe_device_entry **out)
{
    static bool (*const readings[])(const vkmoe_device_info *, const char *) = {
        matches_pci_id, matches_uuid, matches_name};
    for (uint32_t r = 0; r < MOE_COUNT(readings); r++) {
        uint32_t n_matches = 0;
        for (uint32_t i = 0; i < list->n; i++) {
            if (readings[r](&list->entries[i].info, spec)) {
                *out = &list->entries[i];
                n_matches++;
            }
        }
        if (n_matches == 1)
            return VKMOE_OK;
        if (n_matches > 1)
            return fail_with_list(list, spec, "more than one device matches");
    }
    return fail_with_list(list, spec, "no device matches");
}

enum vkmoe_status moe_device_find(const struct moe_device_list *list, const char *spec,
                                  const struct moe_device_entry **out)
{
    size_t n = strlen(spec);
    if (n == 0)
        return fail_with_list(list, spec, "an empty name");
    if (strcasecmp(spec, "auto") == 0)
        *out = find_best(list);
    else if (strcasecmp(spec, "cpu") == 0)
        *out = first_of(list, VKMOE_DEVICE_CPU);
    else if (strcasecmp(spec, "vulkan") == 0)
        *out = find_vulkan(list);
    else if (n <= 3 && strspn(spec, "0123456789") == n)
        *out = strtoul(spec, NULL, 10) < list->n ? &list->entries[strtoul(spec, NULL, 10)] : NULL;
    else
        return find_match(list, spec, out);
    return *out ? VKMOE_OK : fail_with_list(list, spec, "there is none");
}

static const struct moe_backend *backend_named(const char *name)
{
    for (uint32_t i = 0; moe_backends[i]; i++) {
        if (strcasecmp(moe_backends[i]->name, name) == 0)
            return moe_backends[i];
    }
    return NULL;
}

enum vkmoe_status moe_device_choose(const vkmoe_host *host, const char *spec,
                                    const struct moe_backend **backend, uint32_t *i)
{
    enum vkmoe_status status;
    struct moe_device_list list = {0};
    const struct moe_device_entry *entry = NULL;
    const struct moe_backend *named = backend_named(spec);
    if (named && !named->enumerate) {
        *backend = named;
        *i = 0;
        return VKMOE_OK;
    }
    TRY(moe_device_list_init(&list, host, named));
    if (list.n == 0) { // so that the failure names what there is
        moe_device_list_finish(&list, host);
        TRY(moe_device_list_init(&list, host, NULL));
    }
    TRY(moe_device_find(&list, spec, &entry));
    *backend = entry->backend;
    *i = entry->i;
    status = VKMOE_OK;
fail:
    moe_device_list_finish(&list, host);
    return status;
}

enum vkmoe_status vkmoe_device_list(vkmoe_device_info *out, uint32_t *n)
{
    enum vkmoe_status status;
    struct moe_device_list list = {0};
    if (!n)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_device_list: n is NULL");
    TRY(moe_device_list_init(&list, moe_host_default(), NULL));
    for (uint32_t i = 0; out && i < moe_min(*n, list.n); i++)
        out[i] = list.entries[i].info;
    *n = list.n;
    status = VKMOE_OK;
fail:
    moe_device_list_finish(&list, moe_host_default());
    return status;
}
