// SPDX-License-Identifier: MIT
// Panels of types of blocks, in plain C: a block of each of the 16 rows at a time is put together
// from the panel and decoded as core/dtype.h says, then multiplied as f32. This is their
// definition.
#include "cpu/panel.h"

#include "core/quant.h"

// Values first .. first + n - 1 of 16 rows, from the column of blocks that has them.
static void decode_column(enum vkmoe_dtype type, const char *column, uint32_t n, float *w)
{
    char block[MOE_MAX_BLOCK_SIZE];
    float values[MOE_MAX_BLOCK];
    for (uint32_t c = 0; c < CPU_PANEL; c++) {
        moe_cpu_take_block(type, column, c, block);
        moe_dtype_decode(type, block, n, values);
        for (uint32_t i = 0; i < n; i++)
            w[i * CPU_PANEL + c] = values[i];
    }
}

static void panel_blocks(enum vkmoe_dtype type, const void *const *x, uint32_t n_rows,
                         const void *panel, uint32_t k, float *out)
{
    const struct moe_dtype_info *info = moe_dtype_info(type);
    const char *column = panel;
    _Alignas(64) float w[MOE_MAX_BLOCK * CPU_PANEL];
    for (uint32_t first = 0; first < k; first += info->block_elements) {
        const uint32_t left = k - first;
        const uint32_t n = left < info->block_elements ? left : info->block_elements;
        decode_column(type, column, n, w);
        moe_cpu_steps_scalar((const float *const *) x, n_rows, first, w, n, first > 0, out);
        column += (size_t) info->block_size * CPU_PANEL;
    }
}

#define PANEL(name, type, values, size)                                                            \
    static void panel_##name(const void *const *x, uint32_t n_rows, const void *panel,             \
                             uint32_t k, float *out)                                               \
    {                                                                                              \
        panel_blocks(type, x, n_rows, panel, k, out);                                              \
    }
CPU_BLOCK_LIST(PANEL)

void moe_cpu_blocks_scalar(struct cpu_kernels *kernels)
{
#define ENTRY(name, type, values, size) kernels->panel[CPU_OPERAND_F32][type] = panel_##name;
    CPU_BLOCK_LIST(ENTRY)
}
