// SPDX-License-Identifier: MIT
#include "cpu/kernels.h"

static void fill_scalar(struct cpu_kernels *kernels)
{
    moe_cpu_kernels_scalar(kernels);
    moe_cpu_blocks_scalar(kernels);
    moe_cpu_int8_scalar(kernels);
    moe_cpu_arrays_scalar(&kernels->arrays);
}

#if MOE_CPU_AVX2
static void fill_avx2(struct cpu_kernels *kernels)
{
    moe_cpu_kernels_avx2(kernels);
    moe_cpu_blocks_avx2(kernels);
    moe_cpu_int8_avx2(kernels);
    moe_cpu_arrays_avx2(&kernels->arrays);
}
#endif

#if MOE_CPU_AVX512
static void fill_avx512(struct cpu_kernels *kernels)
{
    moe_cpu_kernels_avx512(kernels);
    moe_cpu_blocks_avx512(kernels);
    moe_cpu_arrays_avx512(&kernels->arrays);
}
#endif

#if MOE_CPU_NEON
static void fill_neon(struct cpu_kernels *kernels)
{
    moe_cpu_kernels_neon(kernels);
    moe_cpu_blocks_neon(kernels);
    moe_cpu_int8_neon(kernels);
    moe_cpu_arrays_neon(&kernels->arrays);
}
#endif

// Levels that this build has, in their order.
static const struct {
    enum cpu_isa isa;
    cpu_fill_fn *fill;
} levels[] = {
    {CPU_ISA_SCALAR, fill_scalar},
#if MOE_CPU_AVX2
    {CPU_ISA_AVX2, fill_avx2},
#endif
#if MOE_CPU_AVX512
    {CPU_ISA_AVX512, fill_avx512},
#endif
#if MOE_CPU_AVX512_VNNI
    {CPU_ISA_AVX512_VNNI, moe_cpu_int8_avx512_vnni},
#endif
#if MOE_CPU_AVX512_BF16
    {CPU_ISA_AVX512_BF16, moe_cpu_kernels_avx512_bf16},
#endif
#if MOE_CPU_AMX
    {CPU_ISA_AMX, moe_cpu_kernels_amx},
#endif
#if MOE_CPU_NEON
    {CPU_ISA_NEON, fill_neon},
#endif
#if MOE_CPU_DOTPROD
    {CPU_ISA_DOTPROD, moe_cpu_int8_dotprod},
#endif
#if MOE_CPU_I8MM
    {CPU_ISA_I8MM, moe_cpu_int8_i8mm},
#endif
};

void moe_cpu_kernels_init(struct cpu_kernels *kernels, enum cpu_isa isa)
{
    *kernels = (struct cpu_kernels){0};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if (levels[i].isa <= isa)
            levels[i].fill(kernels);
}
