// SPDX-License-Identifier: MIT
#include "cpu/isa.h"

#include "base/bits.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

enum {
    AVX2_FEATURES = CPU_FEATURE_AVX2 | CPU_FEATURE_FMA | CPU_FEATURE_F16C,
    AVX512_FEATURES = AVX2_FEATURES | CPU_FEATURE_AVX512F | CPU_FEATURE_AVX512BW |
                      CPU_FEATURE_AVX512DQ | CPU_FEATURE_AVX512VL,
    VNNI_FEATURES = AVX512_FEATURES | CPU_FEATURE_AVX512_VNNI,
    BF16_FEATURES = VNNI_FEATURES | CPU_FEATURE_AVX512_BF16,
    AMX_FEATURES = BF16_FEATURES | CPU_FEATURE_AMX_TILE | CPU_FEATURE_AMX_BF16,
    DOTPROD_FEATURES = CPU_FEATURE_NEON | CPU_FEATURE_DOTPROD,
    I8MM_FEATURES = DOTPROD_FEATURES | CPU_FEATURE_I8MM,
};

// A level needs all its features. The build says which levels it contains.
static const struct {
    const char *name;
    uint32_t features;
    bool built;
} levels[CPU_N_ISAS] = {
    [CPU_ISA_SCALAR] = {"scalar", 0, true},
    [CPU_ISA_AVX2] = {"avx2", AVX2_FEATURES, MOE_CPU_AVX2},
    [CPU_ISA_AVX512] = {"avx512", AVX512_FEATURES, MOE_CPU_AVX512},
    [CPU_ISA_AVX512_VNNI] = {"avx512_vnni", VNNI_FEATURES, MOE_CPU_AVX512_VNNI},
    [CPU_ISA_AVX512_BF16] = {"avx512_bf16", BF16_FEATURES, MOE_CPU_AVX512_BF16},
    [CPU_ISA_AMX] = {"amx", AMX_FEATURES, MOE_CPU_AMX},
    [CPU_ISA_NEON] = {"neon", CPU_FEATURE_NEON, MOE_CPU_NEON},
    [CPU_ISA_DOTPROD] = {"dotprod", DOTPROD_FEATURES, MOE_CPU_DOTPROD},
    [CPU_ISA_I8MM] = {"i8mm", I8MM_FEATURES, MOE_CPU_I8MM},
};

static const struct {
    const char *name;
    uint32_t bit;
} feature_names[] = {
    {"avx2", CPU_FEATURE_AVX2},
    {"fma", CPU_FEATURE_FMA},
    {"f16c", CPU_FEATURE_F16C},
    {"avx512f", CPU_FEATURE_AVX512F},
    {"avx512bw", CPU_FEATURE_AVX512BW},
    {"avx512dq", CPU_FEATURE_AVX512DQ},
    {"avx512vl", CPU_FEATURE_AVX512VL},
    {"avx512_vnni", CPU_FEATURE_AVX512_VNNI},
    {"avx512_bf16", CPU_FEATURE_AVX512_BF16},
    {"amx_tile", CPU_FEATURE_AMX_TILE},
    {"amx_bf16", CPU_FEATURE_AMX_BF16},
    {"neon", CPU_FEATURE_NEON},
    {"dotprod", CPU_FEATURE_DOTPROD},
    {"i8mm", CPU_FEATURE_I8MM},
};

#if defined(__x86_64__) || defined(__i386__)
enum { LEAF7_EDX_AMX_TILE = 1 << 24 };

// Linux since 5.16: tiles are for those who ask (arch/x86/xstate.html in its documentation).
#if defined(__x86_64__) && defined(__linux__) && defined(SYS_arch_prctl)
enum { XFEATURE_XTILEDATA = 18 };

static bool has_tiles(void)
{
    const long arch_get_xcomp_supp = 0x1021;
    uint64_t supported = 0;
    return syscall(SYS_arch_prctl, arch_get_xcomp_supp, &supported) == 0 &&
           supported >> XFEATURE_XTILEDATA & 1;
}

static bool ask_for_tiles(void)
{
    const long arch_req_xcomp_perm = 0x1023;
    return syscall(SYS_arch_prctl, arch_req_xcomp_perm, (long) XFEATURE_XTILEDATA) == 0;
}
#else
static bool has_tiles(void)
{
    return false;
}

static bool ask_for_tiles(void)
{
    return false;
}
#endif

struct cpu_id moe_cpu_id(void)
{
    struct cpu_id id = {0};
    uint32_t eax, ebx, ecx, edx;
    if (__get_cpuid(0, &eax, &ebx, &ecx, &edx))
        id.vendor = ebx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return id;
    id.leaf1_ecx = ecx;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
        const uint32_t last = eax;
        id.leaf7_ebx = ebx;
        id.leaf7_ecx = ecx;
        id.leaf7_edx = edx;
        if (last >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx))
            id.leaf7_1_eax = eax;
    }
    if (id.leaf1_ecx & bit_OSXSAVE)
        __asm__ volatile("xgetbv" : "=a"(id.xcr0), "=d"(edx) : "c"(0));
    id.tiles = id.leaf7_edx & LEAF7_EDX_AMX_TILE && has_tiles();
    return id;
}
#elif defined(__aarch64__) && defined(__linux__)
struct cpu_id moe_cpu_id(void)
{
    return (struct cpu_id){.hwcap = getauxval(AT_HWCAP), .hwcap2 = getauxval(AT_HWCAP2)};
}
#else
struct cpu_id moe_cpu_id(void)
{
    return (struct cpu_id){0};
}
#endif

bool moe_cpu_allow(enum cpu_isa isa)
{
#if defined(__x86_64__) || defined(__i386__)
    return isa != CPU_ISA_AMX || ask_for_tiles();
#else
    (void) isa;
    return true;
#endif
}

// A feature is there if its bit is in a word of the processor's answers, and the system saves the
// registers that it uses.
struct feature_bit {
    uint32_t feature, word, bit;
};

static uint32_t features_of(const struct feature_bit *bits, size_t n)
{
    uint32_t features = 0;
    for (size_t i = 0; i < n; i++)
        if (bits[i].word >> bits[i].bit & 1)
            features |= bits[i].feature;
    return features;
}

uint32_t moe_cpu_features(const struct cpu_id *id)
{
    enum {
        LEAF1_OSXSAVE = 1 << 27,
        LEAF1_AVX = 1 << 28,
        XCR0_SSE_AVX = 1 << 1 | 1 << 2,           // xmm and ymm
        XCR0_AVX512 = 1 << 5 | 1 << 6 | 1 << 7, // masks, zmm, and 16 zmm more
        XCR0_AMX = 1 << 17 | 1 << 18,           // how tiles are cut, and what is in them
    };
    const struct feature_bit ymm[] = {
        {CPU_FEATURE_AVX2, id->leaf7_ebx, 5},
        {CPU_FEATURE_FMA, id->leaf1_ecx, 12},
        {CPU_FEATURE_F16C, id->leaf1_ecx, 29},
    };
    const struct feature_bit zmm[] = {
        {CPU_FEATURE_AVX512F, id->leaf7_ebx, 16},
        {CPU_FEATURE_AVX512DQ, id->leaf7_ebx, 17},
        {CPU_FEATURE_AVX512BW, id->leaf7_ebx, 30},
        {CPU_FEATURE_AVX512VL, id->leaf7_ebx, 31},
        {CPU_FEATURE_AVX512_VNNI, id->leaf7_ecx, 11},
        {CPU_FEATURE_AVX512_BF16, id->leaf7_1_eax, 5},
    };
    const struct feature_bit tiles[] = {
        {CPU_FEATURE_AMX_BF16, id->leaf7_edx, 22},
        {CPU_FEATURE_AMX_TILE, id->leaf7_edx, 24},
    };
    const struct feature_bit arm[] = { // the bits of Linux
        {CPU_FEATURE_NEON, (uint32_t) id->hwcap, 1},
        {CPU_FEATURE_DOTPROD, (uint32_t) id->hwcap, 20},
        {CPU_FEATURE_I8MM, (uint32_t) id->hwcap2, 13},
    };
    uint32_t features = features_of(arm, MOE_COUNT(arm));
    const bool saves = id->leaf1_ecx & LEAF1_OSXSAVE && id->leaf1_ecx & LEAF1_AVX;
    const uint32_t saved = saves ? id->xcr0 : 0;
    if ((saved & XCR0_SSE_AVX) != XCR0_SSE_AVX)
        return features;
    features |= features_of(ymm, MOE_COUNT(ymm));
    if ((saved & XCR0_AVX512) == XCR0_AVX512)
        features |= features_of(zmm, MOE_COUNT(zmm));
    if ((saved & XCR0_AMX) == XCR0_AMX && id->tiles)
        features |= features_of(tiles, MOE_COUNT(tiles));
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

uint32_t moe_cpu_worthwhile(const struct cpu_id *id, uint32_t level_mask)
{
    enum { INTEL = 'G' | 'e' << 8 | 'n' << 16 | 'u' << 24 }; // GenuineIntel
    return id->vendor == INTEL ? level_mask & ~(1u << CPU_ISA_AVX512_BF16) : level_mask;
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
