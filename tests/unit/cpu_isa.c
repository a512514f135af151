// SPDX-License-Identifier: MIT
// Instruction-set levels: from CPUID's answers to features, from features to levels, and a device
// opened at a level by name.
#include "check.h"

#include "base/bits.h"
#include "cpu/isa.h"

#include <signal.h>
#include <stddef.h>

// A bit of one of the processor's answers, and the feature that needs it.
static const struct bit {
    size_t word; // offset in struct cpu_id
    uint32_t bit, feature;
} bits[] = {
    {offsetof(struct cpu_id, leaf7_ebx), 5, CPU_FEATURE_AVX2},
    {offsetof(struct cpu_id, leaf1_ecx), 12, CPU_FEATURE_FMA},
    {offsetof(struct cpu_id, leaf1_ecx), 29, CPU_FEATURE_F16C},
    {offsetof(struct cpu_id, leaf7_ebx), 16, CPU_FEATURE_AVX512F},
    {offsetof(struct cpu_id, leaf7_ebx), 30, CPU_FEATURE_AVX512BW},
    {offsetof(struct cpu_id, leaf7_ebx), 17, CPU_FEATURE_AVX512DQ},
    {offsetof(struct cpu_id, leaf7_ebx), 31, CPU_FEATURE_AVX512VL},
    {offsetof(struct cpu_id, leaf7_ecx), 11, CPU_FEATURE_AVX512_VNNI},
    {offsetof(struct cpu_id, leaf7_1_eax), 5, CPU_FEATURE_AVX512_BF16},
    {offsetof(struct cpu_id, leaf7_edx), 22, CPU_FEATURE_AMX_BF16},
    {offsetof(struct cpu_id, leaf7_edx), 24, CPU_FEATURE_AMX_TILE},
};

enum {
    YMM_FEATURES = CPU_FEATURE_AVX2 | CPU_FEATURE_FMA | CPU_FEATURE_F16C,
    ZMM_FEATURES = CPU_FEATURE_AVX512F | CPU_FEATURE_AVX512BW | CPU_FEATURE_AVX512DQ |
                   CPU_FEATURE_AVX512VL | CPU_FEATURE_AVX512_VNNI | CPU_FEATURE_AVX512_BF16,
    AMX_FEATURES = CPU_FEATURE_AMX_TILE | CPU_FEATURE_AMX_BF16,
    ALL_FEATURES = YMM_FEATURES | ZMM_FEATURES | AMX_FEATURES,
};

static const uint32_t leaf1_osxsave = 1u << 27, leaf1_avx = 1u << 28;

// An x86 processor with everything, and a system that saves all registers.
static struct cpu_id full_id(void)
{
    struct cpu_id id = {.leaf1_ecx = leaf1_osxsave | leaf1_avx, .xcr0 = 0x600e7, .tiles = true};
    for (size_t i = 0; i < MOE_COUNT(bits); i++)
        *(uint32_t *) ((char *) &id + bits[i].word) |= 1u << bits[i].bit;
    return id;
}

static uint32_t features_without(uint32_t leaf1, uint32_t xcr0)
{
    struct cpu_id id = full_id();
    id.leaf1_ecx &= ~leaf1;
    id.xcr0 &= ~xcr0;
    return moe_cpu_features(&id);
}

static void features_need_the_system_too(void **state)
{
    (void) state;
    assert_int_equal(features_without(0, 0), ALL_FEATURES);
    for (size_t i = 0; i < MOE_COUNT(bits); i++) {
        struct cpu_id id = full_id();
        *(uint32_t *) ((char *) &id + bits[i].word) &= ~(1u << bits[i].bit);
        assert_int_equal(moe_cpu_features(&id), ALL_FEATURES & ~bits[i].feature);
    }
    // A processor with everything, on a system that does not save its wide registers.
    assert_int_equal(features_without(leaf1_osxsave, 0), 0);
    assert_int_equal(features_without(leaf1_avx, 0), 0);
    assert_int_equal(features_without(0, 1 << 2), 0);
    assert_int_equal(features_without(0, 1 << 1), 0);
    for (uint32_t bit = 5; bit <= 7; bit++)
        assert_int_equal(features_without(0, 1u << bit), YMM_FEATURES | AMX_FEATURES);
    for (uint32_t bit = 17; bit <= 18; bit++)
        assert_int_equal(features_without(0, 1u << bit), YMM_FEATURES | ZMM_FEATURES);
    struct cpu_id refused = full_id();
    refused.tiles = false;
    assert_int_equal(moe_cpu_features(&refused), YMM_FEATURES | ZMM_FEATURES);
    assert_int_equal(moe_cpu_features(&(struct cpu_id){0}), 0);
}

static void features_of_arm(void **state)
{
    (void) state;
    assert_int_equal(moe_cpu_features(&(struct cpu_id){.hwcap = 1 << 1}), CPU_FEATURE_NEON);
    assert_int_equal(moe_cpu_features(&(struct cpu_id){.hwcap = 1 << 20}), CPU_FEATURE_DOTPROD);
    assert_int_equal(moe_cpu_features(&(struct cpu_id){.hwcap2 = 1 << 13}), CPU_FEATURE_I8MM);
}

// Levels in their order, and what each needs beside what those before it do.
static const struct {
    enum cpu_isa isa;
    uint32_t more;
    bool built;
} x86[] = {
    {CPU_ISA_AVX2, YMM_FEATURES, MOE_CPU_AVX2},
    {CPU_ISA_AVX512,
     ZMM_FEATURES & ~(uint32_t) (CPU_FEATURE_AVX512_VNNI | CPU_FEATURE_AVX512_BF16),
     MOE_CPU_AVX512},
    {CPU_ISA_AVX512_VNNI, CPU_FEATURE_AVX512_VNNI, MOE_CPU_AVX512_VNNI},
    {CPU_ISA_AVX512_BF16, CPU_FEATURE_AVX512_BF16, MOE_CPU_AVX512_BF16},
    {CPU_ISA_AMX, AMX_FEATURES, MOE_CPU_AMX},
};

// A feature that is missing takes its level and those above, nothing else.
static void levels_need_all_their_features(void **state)
{
    (void) state;
    uint32_t mask = 1u << CPU_ISA_SCALAR;
    assert_int_equal(moe_cpu_levels(0), mask);
    for (size_t i = 0; i < MOE_COUNT(x86); i++) {
        for (size_t j = 0; j < MOE_COUNT(bits); j++)
            if (x86[i].more & bits[j].feature)
                assert_int_equal(moe_cpu_levels(ALL_FEATURES & ~bits[j].feature), mask);
        mask |= x86[i].built ? 1u << x86[i].isa : 0;
    }
    assert_int_equal(moe_cpu_levels(ALL_FEATURES), mask);
    assert_int_equal(moe_cpu_best(1u << CPU_ISA_SCALAR), CPU_ISA_SCALAR);
    assert_int_equal(moe_cpu_best(1u << CPU_ISA_SCALAR | 1u << CPU_ISA_AVX2), CPU_ISA_AVX2);
    assert_int_equal(moe_cpu_best(0x3f), CPU_ISA_AMX);
}

static void slower_levels_are_for_the_asking(void **state)
{
    (void) state;
    struct cpu_id id = full_id();
    const uint32_t vnni = 1u << CPU_ISA_AVX512_VNNI, bf16 = 1u << CPU_ISA_AVX512_BF16;
    memcpy(&id.vendor, "AuthenticAMD", 4);
    assert_int_equal(moe_cpu_worthwhile(&id, vnni | bf16), vnni | bf16);
    assert_int_equal(moe_cpu_worthwhile(&id, bf16 | 1u << CPU_ISA_AMX), bf16 | 1u << CPU_ISA_AMX);
    memcpy(&id.vendor, "GenuineIntel", 4);
    assert_int_equal(moe_cpu_worthwhile(&id, vnni | bf16), vnni);
    assert_int_equal(moe_cpu_worthwhile(&id, vnni), vnni);
    assert_int_equal(moe_cpu_worthwhile(&id, vnni | bf16 | 1u << CPU_ISA_AMX),
                     vnni | 1u << CPU_ISA_AMX);
}

static void names_go_both_ways(void **state)
{
    (void) state;
    char text[64];
    enum cpu_isa isa = CPU_N_ISAS;
    for (uint32_t i = 0; i < CPU_N_ISAS; i++) {
        assert_true(moe_cpu_isa_from_name(moe_cpu_isa_name((enum cpu_isa) i), &isa));
        assert_int_equal(isa, i);
    }
    assert_false(moe_cpu_isa_from_name("AVX2", &isa));
    assert_false(moe_cpu_isa_from_name("avx", &isa));
    moe_cpu_level_names(1u << CPU_ISA_SCALAR | 1u << CPU_ISA_AVX2, text, sizeof text);
    assert_string_equal(text, "scalar avx2");
    moe_cpu_feature_names(CPU_FEATURE_AVX2 | CPU_FEATURE_F16C, text, sizeof text);
    assert_string_equal(text, "avx2 f16c");
    moe_cpu_feature_names(0, text, sizeof text);
    assert_string_equal(text, "");
}

static enum vkmoe_status open_at(const char *isa, uint32_t n_threads, vkmoe_device_info *info)
{
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "cpu";
    desc.cpu_isa = isa;
    desc.n_threads = n_threads;
    enum vkmoe_status status = vkmoe_context_create(&desc, &context);
    if (status == VKMOE_OK)
        check_ok(vkmoe_context_info(context, info));
    else
        assert_null(context);
    vkmoe_context_destroy(context);
    return status;
}

static void a_device_opens_at_a_level(void **state)
{
    (void) state;
    vkmoe_device_info info;
    struct cpu_id id = moe_cpu_id();
    uint32_t levels = moe_cpu_levels(moe_cpu_features(&id));
    check_fails(open_at("sse9", 0, &info), VKMOE_E_ARGUMENT, "\"sse9\": no such level");
    check_fails(open_at("sse9", 0, &info), VKMOE_E_ARGUMENT, "this machine has: scalar");
    check_fails(open_at("scalar", 100000, &info), VKMOE_E_ARGUMENT, "n_threads = 100000");
    for (uint32_t i = 0; i < CPU_N_ISAS; i++) {
        const char *name = moe_cpu_isa_name((enum cpu_isa) i);
        if (!(levels & 1u << i)) {
            check_fails(open_at(name, 0, &info), VKMOE_E_UNSUPPORTED, "not here");
            continue;
        }
        check_ok(open_at(name, 0, &info));
        assert_string_equal(info.tier, name);
        assert_int_equal(info.type, VKMOE_DEVICE_CPU);
        assert_true(info.name[0] != '\0' && info.memory_bytes > 0);
    }
}

#if defined(__x86_64__) && defined(__linux__)
// First of all tests: the system gives tiles for good, but not where a signal stack is too small.
static void tiles_may_be_refused(void **state)
{
    (void) state;
    static char stack[4096]; // without tiles enough
    const stack_t small = {.ss_sp = stack, .ss_size = sizeof stack};
    const stack_t none = {.ss_flags = SS_DISABLE};
    vkmoe_device_info info;
    const struct cpu_id id = moe_cpu_id();
    if (!(moe_cpu_levels(moe_cpu_features(&id)) & 1u << CPU_ISA_AMX))
        return;
    assert_int_equal(sigaltstack(&small, NULL), 0);
    check_fails(open_at("amx", 1, &info), VKMOE_E_UNSUPPORTED, "the system refuses it");
    check_ok(open_at(NULL, 1, &info));
    assert_string_not_equal(info.tier, "amx");
    assert_int_equal(sigaltstack(&none, NULL), 0);
    check_ok(open_at(NULL, 1, &info));
    assert_string_equal(info.tier, "amx");
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
#if defined(__x86_64__) && defined(__linux__)
        cmocka_unit_test(tiles_may_be_refused),
#endif
        cmocka_unit_test(features_need_the_system_too),
        cmocka_unit_test(features_of_arm),
        cmocka_unit_test(levels_need_all_their_features),
        cmocka_unit_test(slower_levels_are_for_the_asking),
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(a_device_opens_at_a_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
