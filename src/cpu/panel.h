// SPDX-License-Identifier: MIT
// Where the bytes of a row lie in a panel (kernels.h). For scalar code.
#ifndef MOE_CPU_PANEL_H
#define MOE_CPU_PANEL_H

#include "base/bits.h"
#include "core/dtype.h"
#include "cpu/kernels.h"

#include <string.h>

// What a panel repeats: so many values of 16 rows, of so many bytes each.
struct cpu_panel_block {
    uint32_t n_values, size;
};

static inline struct cpu_panel_block moe_cpu_panel_block(enum vkmoe_dtype type)
{
    const struct moe_dtype_info *info = moe_dtype_info(type);
    if (type == VKMOE_BF16)
        return (struct cpu_panel_block){2, 4};
    return (struct cpu_panel_block){info->block_elements, info->block_size};
}

// Bytes of a panel of k steps.
static inline uint64_t moe_cpu_panel_size(enum vkmoe_dtype type, uint32_t k)
{
    const struct cpu_panel_block block = moe_cpu_panel_block(type);
    return CPU_PANEL * moe_div_up(k, block.n_values) * block.size;
}

// Bytes of the unit that begins at byte `at` of a block.
static inline uint32_t moe_cpu_unit(enum vkmoe_dtype type, uint32_t at)
{
    static const uint8_t heads[CPU_N_WEIGHTS] = {
        [VKMOE_Q8_0] = 2, [VKMOE_Q4_0] = 2, [VKMOE_MXFP4] = 1};
    const uint32_t left = moe_cpu_panel_block(type).size - at;
    if (at == 0 && heads[type] > 0)
        return heads[type];
    return left < 4 ? left : 4;
}

// One row's block out of 16 rows' side by side, and into them.
static inline void moe_cpu_take_block(enum vkmoe_dtype type, const char *column, uint32_t row,
                                      char *block)
{
    const uint32_t size = moe_cpu_panel_block(type).size;
    for (uint32_t at = 0, unit; at < size; at += unit) {
        unit = moe_cpu_unit(type, at);
        memcpy(block + at, column + at * CPU_PANEL + row * unit, unit);
    }
}

static inline void moe_cpu_put_block(enum vkmoe_dtype type, const char *block, uint32_t row,
                                     char *column)
{
    const uint32_t size = moe_cpu_panel_block(type).size;
    for (uint32_t at = 0, unit; at < size; at += unit) {
        unit = moe_cpu_unit(type, at);
        memcpy(column + at * CPU_PANEL + row * unit, block + at, unit);
    }
}

#endif
