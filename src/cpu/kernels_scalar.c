// SPDX-License-Identifier: MIT
// The definition of every kernel, in plain C.
#include "cpu/kernels.h"

#include "core/dtype.h"

#include <string.h>

_Static_assert((int) CPU_N_WEIGHTS == (int) MOE_N_DTYPES, "one kernel for each weight type");

enum { BLOCK_ROWS = 4 }; // rows that share one decoding of the weights

static inline void rows_times_panel(enum vkmoe_dtype type, const float *const *x, uint32_t n_rows,
                                    const void *panel, uint32_t k, float *out)
{
    size_t row_size = (size_t) moe_dtype_size(type, CPU_PANEL);
    float sum[BLOCK_ROWS][CPU_PANEL] = {{0}};
    for (uint32_t i = 0; i < k; i++) {
        float w[CPU_PANEL];
        moe_dtype_decode(type, (const char *) panel + i * row_size, CPU_PANEL, w);
        for (uint32_t r = 0; r < n_rows; r++)
            for (uint32_t c = 0; c < CPU_PANEL; c++)
                sum[r][c] += x[r][i] * w[c];
    }
    memcpy(out, sum, n_rows * sizeof sum[0]);
}

static inline void panel_any(enum vkmoe_dtype type, const float *const *x, uint32_t n_rows,
                             const void *panel, uint32_t k, float *out)
{
    for (uint32_t r = 0; r < n_rows; r += BLOCK_ROWS) {
        uint32_t n = n_rows - r < BLOCK_ROWS ? n_rows - r : BLOCK_ROWS;
        rows_times_panel(type, x + r, n, panel, k, out + (size_t) r * CPU_PANEL);
    }
}

static void panel_f32(const float *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                      float *out)
{
    panel_any(VKMOE_F32, x, n_rows, panel, k, out);
}

static void panel_f16(const float *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                      float *out)
{
    panel_any(VKMOE_F16, x, n_rows, panel, k, out);
}

static void panel_bf16(const float *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                       float *out)
{
    panel_any(VKMOE_BF16, x, n_rows, panel, k, out);
}

void moe_cpu_kernels_scalar(struct cpu_kernels *kernels)
{
    kernels->panel[VKMOE_F32] = panel_f32;
    kernels->panel[VKMOE_F16] = panel_f16;
    kernels->panel[VKMOE_BF16] = panel_bf16;
}
