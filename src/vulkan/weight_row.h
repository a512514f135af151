// SPDX-License-Identifier: MIT
// Rows of weights as files have them, and as they are on the device: shaders/include/weight_types.h
// has the layout, which depends on the type alone. Nothing is rounded either way.
#ifndef MOE_VULKAN_WEIGHT_ROW_H
#define MOE_VULKAN_WEIGHT_ROW_H

#include <vkmoe/vkmoe.h>

// Four codes of a block: which bits of a word at which byte become which bits of another one.
struct moe_vk_move {
    uint32_t mask; // of the lowest of the codes' bits
    uint16_t stored, packed;
    uint8_t stored_shift, packed_shift;
};

struct moe_vk_row {
    enum vkmoe_dtype type;
    uint32_t n_blocks;
    uint32_t stored_size; // bytes
    uint32_t stride;      // uvec4 of a packed row
    uint32_t n_moves;     // of a block; 0: a float type, whose rows are the same
    struct moe_vk_move moves[128];
};

// Bytes of a packed row, a multiple of 16.
uint64_t moe_vk_row_size(enum vkmoe_dtype type, uint32_t width);

// Rows of `width` values: whole blocks, but any number of fp8.
void moe_vk_row_init(struct moe_vk_row *row, enum vkmoe_dtype type, uint32_t width);

// One row; dst is zero. Stored rows have any alignment.
void moe_vk_row_pack(const struct moe_vk_row *row, const void *stored, void *dst);
void moe_vk_row_unpack(const struct moe_vk_row *row, const void *packed, void *dst);

#endif
