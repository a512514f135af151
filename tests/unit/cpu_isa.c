// SPDX-License-Identifier: MIT
// Instruction-set levels: from CPUID's answers to features, from features to levels, and a device
// opened at a level by name.
#include "check.h"

#include "cpu/isa.h"

static const uint32_t leaf1_fma = 1u << 12, leaf1_osxsave = 1u << 27, leaf1_avx = 1u << 28,
                      leaf1_f16c = 1u << 29, leaf7_avx2 = 1u << 5;

static struct cpu_id full_id(void)
{
    return (struct cpu_id){
        .leaf1_ecx = leaf1_fma | leaf1_osxsave | leaf1_avx | leaf1_f16c,
        .leaf7_ebx = leaf7_avx2,
        .xcr0 = 7, // x87, xmm and ymm
    };
}

static uint32_t features_without(uint32_t leaf1, uint32_t leaf7, uint32_t xcr0)
{
    struct cpu_id id = full_id();
    id.leaf1_ecx &= ~leaf1;
    id.leaf7_ebx &= ~leaf7;
    id.xcr0 &= ~xcr0;
    return moe_cpu_features(&id);
}

static void features_need_the_system_too(void **state)
{
    (void) state;
    const uint32_t all = CPU_FEATURE_AVX2 | CPU_FEATURE_FMA | CPU_FEATURE_F16C;
    assert_int_equal(features_without(0, 0, 0), all);
    assert_int_equal(features_without(leaf1_fma, 0, 0), all & ~CPU_FEATURE_FMA);
    assert_int_equal(features_without(leaf1_f16c, 0, 0), all & ~CPU_FEATURE_F16C);
    assert_int_equal(features_without(0, leaf7_avx2, 0), all & ~CPU_FEATURE_AVX2);
    // A processor with everything, on a system that does not save its wide registers.
    assert_int_equal(features_without(leaf1_osxsave, 0, 0), 0);
    assert_int_equal(features_without(leaf1_avx, 0, 0), 0);
    assert_int_equal(features_without(0, 0, 4), 0);
    assert_int_equal(features_without(0, 0, 2), 0);
    assert_int_equal(moe_cpu_features(&(struct cpu_id){0}), 0);
}

static void levels_need_all_their_features(void **state)
{
    (void) state;
    const uint32_t all = CPU_FEATURE_AVX2 | CPU_FEATURE_FMA | CPU_FEATURE_F16C;
    const uint32_t scalar = 1u << CPU_ISA_SCALAR;
#if MOE_CPU_AVX2
    const uint32_t avx2 = 1u << CPU_ISA_AVX2;
#else
    const uint32_t avx2 = 0;
#endif
    assert_int_equal(moe_cpu_levels(0), scalar);
    assert_int_equal(moe_cpu_levels(all), scalar | avx2);
    assert_int_equal(moe_cpu_levels(all & ~CPU_FEATURE_AVX2), scalar);
    assert_int_equal(moe_cpu_levels(all & ~CPU_FEATURE_FMA), scalar);
    assert_int_equal(moe_cpu_levels(all & ~CPU_FEATURE_F16C), scalar);
    assert_int_equal(moe_cpu_best(scalar), CPU_ISA_SCALAR);
    assert_int_equal(moe_cpu_best(scalar | 1u << CPU_ISA_AVX2), CPU_ISA_AVX2);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_need_the_system_too),
        cmocka_unit_test(levels_need_all_their_features),
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(a_device_opens_at_a_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
