// SPDX-License-Identifier: MIT
#include "cpu/kernels.h"

#include "cpu/arrays_text.h"

void moe_cpu_arrays_neon(struct cpu_arrays *arrays)
{
    *arrays = level_arrays;
}
