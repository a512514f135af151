// SPDX-License-Identifier: MIT
// What Vulkan devices said of themselves, one row each, and which variants they should get.
#ifndef TESTS_VULKAN_RECORDED_H
#define TESTS_VULKAN_RECORDED_H

#include "vulkan/vk.h"

// Of cooperative matrices, f16 operands and f32 sums, by a subgroup.
struct recorded_shape {
    uint32_t m, n, k;
};
enum { RECORDED_MAX_SHAPES = 4 };

// What those of any size are multiples of, by a subgroup or a workgroup of MOE_LOCAL_SIZE.
struct recorded_units {
    uint32_t m, n, k;
    bool workgroup;
};

// 0: not told, so the least that Vulkan 1.1 promises.
struct recorded_device {
    const char *name;
    VkDriverId driver;
    enum vkmoe_device_type type;
    uint32_t minor;       // of Vulkan 1
    const char *features; // members of Vulkan's structs, whether or not the library knows them
    uint32_t invocations, shared, push, n_buffers, align;
    uint64_t groups_x, range, allocation;
    uint32_t min_subgroup, max_subgroup; // that a kernel may ask for; 0: it may not
    struct recorded_shape shapes[RECORDED_MAX_SHAPES];
    struct recorded_shape byte_shapes[2]; // of signed bytes, with sums of 32 bits
    struct recorded_units units;
    bool dot; // integerDotProduct4x8BitPackedSignedAccelerated
    // Kinds of variants for f16 weights at precision half, best first: those of them that this
    // version has are the candidates.
    const char *candidates;
    const char *used; // if that is not the first, although every self-test passes and nothing is
                      // timed
};
extern const struct recorded_device recorded_devices[];
extern const uint32_t n_recorded_devices;

// As caps.c would fill it in.
struct moe_vk_caps recorded_caps(const struct recorded_device *device);

#endif
