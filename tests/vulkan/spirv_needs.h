// SPDX-License-Identifier: MIT
// What a kernel takes of a device, read from its SPIR-V.
#ifndef TESTS_VULKAN_SPIRV_NEEDS_H
#define TESTS_VULKAN_SPIRV_NEEDS_H

#include "vulkan/vk.h"

enum { SPIRV_MAX_CAPABILITIES = 24 };

struct spirv_needs {
    uint32_t version; // of SPIR-V: 0x10300
    uint32_t size[3]; // of a workgroup
    uint32_t shared;  // bytes of a workgroup
    uint32_t push;    // bytes
    uint32_t n_bindings;
    uint32_t capabilities[SPIRV_MAX_CAPABILITIES], n_capabilities;
};

// Of a kernel with these specialisation constants. What is not understood fails the test.
struct spirv_needs spirv_needs(enum moe_spv_id spv, const uint32_t spec[MOE_VK_MAX_SPEC]);

#endif
