// SPDX-License-Identifier: MIT
// What the tests of verdicts have in common: a store and a log of the host's, plans of precision
// half, and a bug in the kernel of a1.
#ifndef TESTS_VULKAN_VERDICTS_H
#define TESTS_VULKAN_VERDICTS_H

#include "interpose.h"

#include "api/api.h"
#include "vulkan/plan.h"

extern struct store {
    char key[128]; // of the verdicts; pipelines are not kept
    unsigned char data[4096];
    size_t size;
    int n_sets;
    char log[4096]; // warnings and errors
} store;

// A host with the store and the log.
vkmoe_host services(void);
// And with memory for so many allocations more.
extern long n_allocations_left;
vkmoe_host limited_services(void);
// The stored verdict of a1, in a copy of the record.
struct moe_vk_verdict *stored(struct moe_vk_record *record);
// Writes a record into the store as a context would.
void store_record(vkmoe_context *context, const struct moe_vk_record *record);
void check_stored(enum moe_vk_state state, enum moe_vk_cause cause);

vkmoe_context *open_context(const vkmoe_host *host, const char *cache_dir);
// A context on the owner's device, with its queue or without one; f16 and addresses are enabled.
vkmoe_context *import_of(vkmoe_context *owner, const vkmoe_host *host, bool with_queue);
// A plan of precision half for f16 weights; the name of its variant, or NULL if it is refused.
const char *plan_of(vkmoe_context *context, const char *variant);
void check_plan(vkmoe_context *context, const char *want);
// a1 is refused by name, for this reason.
void check_refused(vkmoe_context *context, const char *why);

// The driver's bug in a1's kernel from now on; start also empties the store.
void bug(enum interpose_bug kind);
void start(enum interpose_bug kind);
// The driver takes its time for the matmuls of a variant, of any tiles.
void slow(enum moe_vk_variant_id variant);

bool device_has_f16(void);

#endif
