// SPDX-License-Identifier: MIT
// The devices of this machine, and which of them a user means.
#ifndef MOE_API_DEVICES_H
#define MOE_API_DEVICES_H

#include "backend/backend.h"

struct moe_device_entry {
    const struct moe_backend *backend;
    uint32_t i; // in the back end's own enumeration
    vkmoe_device_info info;
};

struct moe_device_list {
    struct moe_device_entry *entries;
    uint32_t n;
};

// Lists the devices of one back end, or of all (NULL); of all, a back end that fails for another
// reason than memory is passed over with a warning. Free with moe_device_list_finish.
enum vkmoe_status moe_device_list_init(struct moe_device_list *list, const vkmoe_host *host,
                                       const struct moe_backend *only);
void moe_device_list_finish(struct moe_device_list *list, const vkmoe_host *host);

// Finds what `spec` means in a full list; the grammar is at vkmoe_context_desc.device, without the
// name "reference", which is never listed. Letter case does not matter. A whole number of at most
// three digits is an index; longer ones are UUID prefixes or parts of a name.
// VKMOE_E_NO_DEVICE: nothing, or more than one device, matches; the text lists what there is.
enum vkmoe_status moe_device_find(const struct moe_device_list *list, const char *spec,
                                  const struct moe_device_entry **out);

// Finds the device to open. Asks no more back ends than `spec` needs: "cpu" never starts Vulkan.
enum vkmoe_status moe_device_choose(const vkmoe_host *host, const char *spec,
                                    const struct moe_backend **backend, uint32_t *i);

#endif
