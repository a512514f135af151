// SPDX-License-Identifier: MIT
// Stands between the library and the Vulkan loader: makes one call fail, counts objects and
// submissions, can make a device smaller or slower, or its memory like a discrete GPU's, and plays
// a driver with a bug in one kernel. A program that links interpose.c has it in place of
// src/vulkan/loader.c.
#ifndef TESTS_VULKAN_INTERPOSE_H
#define TESTS_VULKAN_INTERPOSE_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#include <stdbool.h>

// What a driver makes of the pipelines of one kernel.
enum interpose_bug {
    INTERPOSE_NO_BUG,
    INTERPOSE_NO_PIPELINE, // there are none: fail_result, or VK_ERROR_UNKNOWN
    INTERPOSE_CRASH,       // the process ends, with exit code 9
    INTERPOSE_SHORT,       // the push constant at `word` arrives smaller by 1
    INTERPOSE_SKIP,        // indirect dispatches do nothing
    INTERPOSE_SLOW,        // indirect dispatches are made 4 times
    INTERPOSE_OTHER,       // they are those of `other`
};

struct interpose {
    const char *fail_name; // the call that fails; NULL: none does
    long fail_at;          // at its n-th time, from 1
    VkResult fail_result;
    bool discrete; // device memory is out of the host's sight
    // Limits of the device, if they are smaller than its own; 0: its own.
    uint32_t max_range, max_groups;
    uint64_t max_allocation;
    long submit_ms; // a submission takes this much longer
    bool fill_ones; // what is to be filled with zeros is filled with ones

    // The queue's timestamps have these bits, UINT32_MAX: none, 0: its own. If tick is above 0 each
    // stamp is that many ticks later than the one before, and the first one all ones.
    uint32_t stamp_bits;
    uint64_t tick;

    bool recycle; // new memory holds what was in the last freed one of its size

    const uint32_t *kernel; // SPIR-V of the kernel with the bug, in moe_spv_table
    const uint32_t *second; // and of another one, or NULL
    enum interpose_bug bug;
    uint32_t word;
    const uint32_t *other; // SPIR-V
    size_t other_size;     // bytes
    bool by_spec; // only of pipelines whose specialisation constant `spec` is `value`
    uint32_t spec, value;
    long n_pipelines; // that were asked for with this kernel

    bool failed; // it happened
    long n_calls;
    long n_submits;
    long n_barriers;
    long n_live; // objects created and not destroyed
};
extern struct interpose interpose;

// Names of the calls that can be made to fail, ended by NULL.
extern const char *const interpose_names[];

#endif
