// SPDX-License-Identifier: MIT
// Stands between the library and the Vulkan loader: makes one call fail, counts objects and
// submissions, and can make a device smaller or slower, or its memory like a discrete GPU's. A
// program that links interpose.c has it in place of src/vulkan/loader.c.
#ifndef TESTS_VULKAN_INTERPOSE_H
#define TESTS_VULKAN_INTERPOSE_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#include <stdbool.h>

struct interpose {
    const char *fail_name; // the call that fails; NULL: none does
    long fail_at;          // at its n-th time, from 1
    VkResult fail_result;
    bool discrete; // device memory is out of the host's sight, host memory is not cached
    // Limits of the device, if they are smaller than its own; 0: its own.
    uint32_t max_range, max_groups;
    uint64_t max_allocation;
    long submit_ms; // a submission takes this much longer

    bool failed; // it happened
    long n_calls;
    long n_submits;
    long n_live; // objects created and not destroyed
};
extern struct interpose interpose;

// Names of the calls that can be made to fail, ended by NULL.
extern const char *const interpose_names[];

#endif
