// SPDX-License-Identifier: MIT
#include "cpu/isa.h"

#include "base/bits.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

// A level needs all its features. The build says which levels it contains.
static const struct {
    const char *name;
    uint32_t features;
    bool built;
} levels[CPU_N_ISAS] = {
    [CPU_ISA_SCALAR] = {"scalar", 0, true},
#ifdef MOE_CPU_AVX2
    [CPU_ISA_AVX2] = {"avx2", CPU_FEATURE_AVX2 | CPU_FEATURE_FMA | CPU_FEATURE_F16C, true},
#else
    [CPU_ISA_AVX2] = {"avx2", CPU_FEATURE_AVX2 | CPU_FEATURE_FMA | CPU_FEATURE_F16C, false},
#endif
};

static const struct {
    const char *name;
    uint32_t bit;
} feature_names[] = {
    {"avx2", CPU_FEATURE_AVX2},
    {"fma", CPU_FEATURE_FMA},
    {"f16c", CPU_FEATURE_F16C},
};

#if defined(__x86_64__) || defined(__i386__)
struct cpu_id moe_cpu_id(void)
{
    struct cpu_id id = {0};
    uint32_t eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return id;
    id.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        id.leaf7_ebx = ebx;
    if (id.leaf1_ecx & bit_OSXSAVE)
        __asm__ volatile("xgetbv" : "=a"(id.xcr0), "=d"(edx) : "c"(0));
    return id;
}
#else
struct cpu_id moe_cpu_id(void)
{
    return (struct cpu_id){0};
}
#endif

uint32_t moe_cpu_features(const struct cpu_id *id)
{
    enum {
        LEAF1_FMA = 1 << 12,
        LEAF1_OSXSAVE = 1 << 27,
        LEAF1_AVX = 1 << 28,
        LEAF1_F16C = 1 << 29,
        LEAF7_AVX2 = 1 << 5,
        XCR0_SSE_AVX = 1 << 1 | 1 << 2, // the system saves the xmm and ymm registers
    };
    bool ymm = id->leaf1_ecx & LEAF1_OSXSAVE && id->leaf1_ecx & LEAF1_AVX &&
               (id->xcr0 & XCR0_SSE_AVX) == XCR0_SSE_AVX;
    if (!ymm)
        return 0;
    uint32_t features = 0;
    if (id->leaf7_ebx & LEAF7_AVX2)
        features |= CPU_FEATURE_AVX2;
    if (id->leaf1_ecx & LEAF1_FMA)
        features |= CPU_FEATURE_FMA;
    if (id->leaf1_ecx & LEAF1_F16C)
        features |= CPU_FEATURE_F16C;
    return features;
}

uint32_t moe_cpu_levels(uint32_t features)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < CPU_N_ISAS; i++)
        if (levels[i].built && (features & levels[i].features) == levels[i].features)
            mask |= 1u << i;
    return mask;
}

enum cpu_isa moe_cpu_best(uint32_t mask)
{
    enum cpu_isa best = CPU_ISA_SCALAR;
    for (uint32_t i = 0; i < CPU_N_ISAS; i++)
        if (mask & 1u << i)
            best = (enum cpu_isa) i;
    return best;
}

const char *moe_cpu_isa_name(enum cpu_isa isa)
{
    return levels[isa].name;
}

bool moe_cpu_isa_from_name(const char *name, enum cpu_isa *out)
{
    for (uint32_t i = 0; i < CPU_N_ISAS; i++) {
        if (strcmp(name, levels[i].name) == 0) {
            *out = (enum cpu_isa) i;
            return true;
        }
    }
    return false;
}

static void append_name(char *out, size_t size, const char *name)
{
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s%s", used > 0 ? " " : "", name);
}

void moe_cpu_feature_names(uint32_t features, char *out, size_t size)
{
    out[0] = '\0';
    for (size_t i = 0; i < MOE_COUNT(feature_names); i++)
        if (features & feature_names[i].bit)
            append_name(out, size, feature_names[i].name);
}

void moe_cpu_level_names(uint32_t mask, char *out, size_t size)
{
    out[0] = '\0';
    for (uint32_t i = 0; i < CPU_N_ISAS; i++)
        if (mask & 1u << i)
            append_name(out, size, levels[i].name);
}
