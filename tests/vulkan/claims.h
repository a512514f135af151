// SPDX-License-Identifier: MIT
// Below interpose.c: a driver that lies about what it has. It lists features that are not there,
// which the real driver then never hears of; refuses some of those that it lists; says that what it
// emulates is fast; and enumerates shapes of matrices that it does not have.
#ifndef TESTS_VULKAN_CLAIMS_H
#define TESTS_VULKAN_CLAIMS_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#include <stdbool.h>

struct claims {
    uint32_t features; // bits of enum moe_vk_feature that are listed, there or not
    uint32_t refused;  // those with which no device is made
    VkResult refusal;  // what is said then
    bool is_fast;      // products of bytes have instructions, and the driver is an unknown one
    const char *error; // what a device was asked for that no driver allows; NULL: nothing
    uint32_t shape;    // of f16 matrices, in front of the others, of this size each way; 0: none
};
extern struct claims claims;

// What a call by this name is to be: `real`, or what is above.
PFN_vkVoidFunction claims_call(const char *name, PFN_vkVoidFunction real);

#endif
