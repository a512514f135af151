// SPDX-License-Identifier: MIT
#include "cpu/kernels.h"

#include "cpu/arrays_text.h"

void moe_cpu_arrays_avx512(struct cpu_arrays *arrays)
{
    *arrays = level_arrays;
}
