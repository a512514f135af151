// SPDX-License-Identifier: MIT
#include "cpu/kernels.h"

void moe_cpu_kernels_init(struct cpu_kernels *kernels, enum cpu_isa isa)
{
    moe_cpu_kernels_scalar(kernels);
    moe_cpu_blocks_scalar(kernels);
    moe_cpu_arrays_scalar(&kernels->arrays);
#ifdef MOE_CPU_AVX2
    if (isa >= CPU_ISA_AVX2) {
        moe_cpu_kernels_avx2(kernels);
        moe_cpu_blocks_avx2(kernels);
        moe_cpu_arrays_avx2(&kernels->arrays);
    }
#else
    (void) isa;
#endif
}
