// SPDX-License-Identifier: MIT
// Kernel variants without a device: which are candidates, why others are not, and which drivers are
// known to fail.
#include "check.h"
#include "choose_cases.h"

#include <stdlib.h>

#include "base/bits.h"
#include "vulkan/plan.h"

enum { ALL = MOE_VK_BIT(MOE_VK_N_FEATURES) - 1 };

// A device at the least limits, with features.
static struct moe_vk_caps caps_with(uint32_t features)
{
    struct moe_vk_caps caps = {0};
    moe_vk_caps_floor(&caps);
    caps.features = features;
    return caps;
}

// What a1 needs; a3 needs more, and shapes of matrices, which caps of features alone have not.
enum { FOR_A1 = MOE_VK_BIT(MOE_VK_BDA) | MOE_VK_BIT(MOE_VK_FLOAT16) };

static bool has_a1(const struct moe_vk_caps *caps)
{
    return (caps->features & FOR_A1) == FOR_A1;
}

// Is there a matmul for a1: f16 weights, and an input that may become f16?
static bool for_a1(const vkmoe_layer_desc *layer, enum vkmoe_dtype x_type)
{
    return (layer->in_type == VKMOE_F16 && x_type != VKMOE_BF16) || layer->out_type == VKMOE_F16;
}

// And for a0n?
static bool for_a0n(const vkmoe_layer_desc *layer)
{
    return (int) layer->in_type < MOE_N_FLOAT_DTYPES ||
           (int) layer->out_type < MOE_N_FLOAT_DTYPES;
}

static bool has_a2(const struct moe_vk_caps *caps)
{
    return moe_vk_has(caps, MOE_VK_BDA) && moe_vk_has(caps, MOE_VK_DOT);
}

typedef void (*visitor)(const struct moe_vk_caps *caps, const vkmoe_layer_desc *layer,
                        const struct moe_program_params *params);

static void each_case(visitor visit)
{
    for (uint32_t features = 0; features <= ALL; features++)
        for (int types = 0; types < N_X * N_W * N_W; types++)
            for (int p = VKMOE_PRECISION_EXACT; p <= VKMOE_PRECISION_INT8; p++) {
                int others = types / N_X;
                struct moe_vk_caps caps = caps_with(features);
                vkmoe_layer_desc layer = layer_of((enum vkmoe_dtype)(others % N_W),
                                                  (enum vkmoe_dtype)(others / N_W));
                struct moe_program_params params = {.precision = (enum vkmoe_precision) p,
                                                    .x_type =
                                                        (enum vkmoe_dtype)(types % N_X)};
                visit(&caps, &layer, &params);
            }
}

static void check_candidates(const struct moe_vk_caps *caps, const vkmoe_layer_desc *layer,
                             const struct moe_program_params *params)
{
    const struct moe_vk_variant *got[MOE_VK_N_VARIANTS];
    uint32_t n = moe_vk_candidates(caps, layer, params, got), want = 0;
    if (params->precision != VKMOE_PRECISION_INT8 && for_a0n(layer))
        assert_string_equal(got[want++]->name, "a0n");
    if (has_a1(caps) && params->precision == VKMOE_PRECISION_HALF &&
        for_a1(layer, params->x_type))
        assert_string_equal(got[want++]->name, "a1");
    if (has_a2(caps) && params->precision == VKMOE_PRECISION_INT8 &&
        (for_a2(layer->in_type) || for_a2(layer->out_type)))
        assert_string_equal(got[want++]->name, "a2");
    assert_string_equal(got[want++]->name, "a0");
    assert_int_equal(n, want);
}

static void candidates_follow_features_precision_and_types(void **state)
{
    (void) state;
    each_case(check_candidates);
}

static uint32_t n_refused;

static void check_why_not(const struct moe_vk_caps *caps, const vkmoe_layer_desc *layer,
                          const struct moe_program_params *params)
{
    const struct moe_vk_variant *got[MOE_VK_N_VARIANTS];
    uint32_t n = moe_vk_candidates(caps, layer, params, got);
    char why[160] = "";
    bool a1 = n > 1 && got[n - 2]->id == MOE_VK_A1;
    assert_int_equal(moe_vk_why_not(&moe_vk_variants[MOE_VK_A1], caps, layer, params, why), !a1);
    if (a1)
        return;
    n_refused++;
    const char *part = "no kernel for weights";
    if (params->precision != VKMOE_PRECISION_HALF)
        part = "precision";
    else if (for_a1(layer, params->x_type))
        part = moe_vk_has(caps, MOE_VK_BDA) ? "shaderFloat16" : "bufferDeviceAddress";
    if (!strstr(why, part))
        fail_msg("'%s' does not say '%s'", why, part);
}

static void what_is_not_a_candidate_has_a_reason(void **state)
{
    (void) state;
    each_case(check_why_not);
    assert_true(n_refused > 100);
}

static void tiers_follow_features(void **state)
{
    (void) state;
    for (uint32_t features = 0; features <= ALL; features++) {
        struct moe_vk_caps caps = caps_with(features);
        assert_string_equal(moe_vk_tier(&caps), has_a1(&caps) ? "T1 fp16" : "T0 floor");
        caps.dot_accelerated = true;
        assert_string_equal(moe_vk_tier(&caps), has_a2(&caps)   ? "T2 int8"
                                                : has_a1(&caps) ? "T1 fp16"
                                                                : "T0 floor");
    }
    struct moe_vk_caps caps = caps_with(ALL);
    caps.dot_accelerated = true;
    moe_vk_caps_floor(&caps);
    assert_int_equal(caps.features, 0);
    assert_false(caps.dot_accelerated);
    assert_string_equal(moe_vk_tier(&caps), "T0 floor");
}

// ---- cooperative matrices ----------------------------------------------------------------------

enum {
    MATRIX_BUILT = (int) MOE_SPV_EXPERT_GEMM_COOP_BDA < (int) MOE_N_SPV,
    FLEXIBLE_BUILT = (int) MOE_SPV_EXPERT_GEMM_FLEX_BDA < (int) MOE_N_SPV,
};

// A device that has all that a3 needs, and the shapes that drivers show.
static struct moe_vk_caps matrix_caps(void)
{
    return (struct moe_vk_caps){.features = ALL,
                                .subgroup_size = 32,
                                .subgroup_pinned = true,
                                .max_shared = 32768,
                                .max_invocations = 128,
                                .max_size_x = 128,
                                .n_shapes = 5,
                                .shapes = {{16, 16, 16}, // NVIDIA, AMD
                                           {64, 128, 16}, // more rows than a tile has
                                           {16, 8, 8},    // NVIDIA
                                           {8, 16, 16, 1, 0}, // Intel
                                           {8, 8, 64}}};  // deeper than a step
}

// And all that a4 needs, with units of drivers.
static struct moe_vk_caps flexible_caps(void)
{
    struct moe_vk_caps caps = matrix_caps();
    caps.api_version = VK_API_VERSION_1_3;
    caps.max_dimension = 64;
    caps.shared_reserved = 1024;
    caps.n_flexible = 4;
    caps.flexible[0] = (struct moe_vk_shape){64, 16, 16, 0, 1}; // more than half a row block
    caps.flexible[1] = (struct moe_vk_shape){32, 16, 16, 0, 1}; // NVIDIA
    caps.flexible[2] = (struct moe_vk_shape){16, 64, 16, 1, 0}; // more than half a row block
    caps.flexible[3] = (struct moe_vk_shape){16, 16, 16, 0, 0}; // RADV
    return caps;
}

static bool why_not_a3(uint32_t i, const struct moe_vk_caps *caps, char why[160])
{
    vkmoe_layer_desc layer = layer_of(VKMOE_Q4_K, VKMOE_BF16);
    struct moe_program_params params = {.precision = VKMOE_PRECISION_HALF,
                                        .x_type = VKMOE_BF16};
    const struct moe_vk_variant *got[MOE_VK_N_VARIANTS], *a3 = &moe_vk_variants[MOE_VK_A3 + i];
    bool among = false, no = moe_vk_why_not(a3, caps, &layer, &params, why);
    uint32_t n = moe_vk_candidates(caps, &layer, &params, got);
    for (uint32_t k = 0; k < n; k++)
        among = among || got[k] == a3;
    assert_int_equal(among, !no);
    return no;
}

static void check_shape(uint32_t i, uint32_t m, uint32_t n, uint32_t k)
{
    struct moe_vk_caps caps = matrix_caps();
    struct moe_vk_shape shape = moe_vk_variant_shape(&moe_vk_variants[MOE_VK_A3 + i], &caps);
    char why[160];
    assert_int_equal(shape.m, m);
    assert_int_equal(shape.n, n);
    assert_int_equal(shape.k, k);
    assert_int_equal(why_not_a3(i, &caps, why), !MATRIX_BUILT || m == 0);
    if (!MATRIX_BUILT)
        assert_non_null(strstr(why, "shader compiler"));
    else if (m == 0)
        assert_non_null(strstr(why, "fewer than 4 fit"));
}

static void each_shape_that_fits_is_a_candidate(void **state)
{
    (void) state;
    check_shape(0, 16, 16, 16);
    check_shape(1, 16, 8, 8);
    check_shape(2, 8, 16, 16);
    check_shape(3, 0, 0, 0);
    struct moe_vk_caps caps = matrix_caps();
    // Kernels load words: two of f16, four bytes.
    caps.n_shapes = caps.n_byte_shapes = 2;
    caps.shapes[0] = caps.byte_shapes[0] = (struct moe_vk_shape){16, 16, 2, 0, 0};
    caps.shapes[1] = caps.byte_shapes[1] = (struct moe_vk_shape){16, 16, 4, 0, 0};
    assert_int_equal(moe_vk_variant_shape(&moe_vk_variants[MOE_VK_A3], &caps).k, 2);
    assert_int_equal(moe_vk_variant_shape(&moe_vk_variants[MOE_VK_A3I], &caps).k, 4);
    caps = matrix_caps();
    assert_int_equal(moe_vk_variant_shape(&moe_vk_variants[MOE_VK_A1], &caps).m, 0);
    assert_string_equal(moe_vk_tier(&caps), MATRIX_BUILT ? "T3 matrix" : "T1 fp16");
}

static void check_lack(struct moe_vk_caps caps, const char *part)
{
    char why[160] = "";
    assert_true(why_not_a3(0, &caps, why));
    if (MATRIX_BUILT && !strstr(why, part))
        fail_msg("'%s' does not say '%s'", why, part);
    assert_string_equal(moe_vk_tier(&caps), has_a1(&caps) ? "T1 fp16" : "T0 floor");
}

static void what_matrices_lack_is_told(void **state)
{
    (void) state;
    static const char *const members[MOE_VK_N_FEATURES] = {
        [MOE_VK_BDA] = "bufferDeviceAddress",
        [MOE_VK_FLOAT16] = "shaderFloat16",
        [MOE_VK_MEMORY_MODEL] = "vulkanMemoryModel",
        [MOE_VK_DEVICE_SCOPE] = "vulkanMemoryModelDeviceScope",
        [MOE_VK_SUBGROUP_SIZE] = "subgroupSizeControl",
        [MOE_VK_FULL_SUBGROUPS] = "computeFullSubgroups",
        [MOE_VK_MATRIX] = "cooperativeMatrix",
    };
    for (int f = 0; f < MOE_VK_N_FEATURES; f++) {
        struct moe_vk_caps caps = matrix_caps();
        assert_int_equal(members[f] != NULL, (moe_vk_variants[MOE_VK_A3].needs >> f) & 1);
        if (!members[f])
            continue;
        caps.features &= ~MOE_VK_BIT(f);
        check_lack(caps, members[f]);
    }
    struct moe_vk_caps caps = matrix_caps();
    caps.n_shapes = 0;
    check_lack(caps, "0 shapes");
    caps = matrix_caps();
    caps.subgroup_size = 0;
    check_lack(caps, "subgroups of 0");
    caps.subgroup_size = 256;
    check_lack(caps, "subgroups of 256");
    caps = matrix_caps();
    caps.max_shared = 16384;
    check_lack(caps, "16384");
    caps = matrix_caps();
    moe_vk_caps_floor(&caps);
    assert_int_equal(caps.n_shapes, 0);
    check_lack(caps, "bufferDeviceAddress");
}

static void check_flexible(struct moe_vk_caps caps, int i, uint32_t m, const char *part)
{
    const struct moe_vk_variant *a4 = &moe_vk_variants[MOE_VK_A4 + i];
    vkmoe_layer_desc layer = layer_of(VKMOE_Q4_K, VKMOE_BF16);
    struct moe_program_params params = {.precision = VKMOE_PRECISION_HALF};
    char why[160] = "";
    assert_int_equal(moe_vk_variant_shape(a4, &caps).m, m);
    assert_int_equal(moe_vk_why_not(a4, &caps, &layer, &params, why), !FLEXIBLE_BUILT || part);
    if (FLEXIBLE_BUILT && part && !strstr(why, part))
        fail_msg("'%s' does not say '%s'", why, part);
}

static void matrices_of_any_size_are_candidates(void **state)
{
    (void) state;
    struct moe_vk_caps caps = flexible_caps();
    check_flexible(caps, 0, 32, NULL);
    check_flexible(caps, 1, 16, NULL);
    assert_true(moe_vk_variant_shape(&moe_vk_variants[MOE_VK_A4], &caps).workgroup);
    caps.features &= ~MOE_VK_BIT(MOE_VK_WORKGROUP);
    check_flexible(caps, 0, 16, NULL);
    check_flexible(caps, 1, 0, "of the device's 4 shapes of matrices fewer than 2 fit");
    caps = flexible_caps();
    caps.max_shared = MOE_FLEX_SHARED + caps.shared_reserved - 1;
    check_flexible(caps, 0, 32, "it takes 10384 of maxComputeSharedMemorySize");
    check_flexible(caps, 1, 16, NULL); // of whose memory nothing is reserved
    caps = flexible_caps();
    caps.max_dimension = 16;
    check_flexible(caps, 0, 0, "of the device's 4 shapes of matrices fewer than 1 fit");
    caps = flexible_caps();
    caps.api_version = VK_API_VERSION_1_2;
    check_flexible(caps, 0, 32, "it takes Vulkan 1.3, and there is 1.2");
    caps = flexible_caps();
    caps.features &= ~MOE_VK_BIT(MOE_VK_PER_ELEMENT);
    check_flexible(caps, 0, 32, "cooperativeMatrixPerElementOperations");
}

// ---- networks ----------------------------------------------------------------------------------

static void check_nets(const struct moe_vk_caps *caps, enum vkmoe_precision precision,
                       const char *want)
{
    const struct moe_program_params params = {.precision = precision, .x_type = VKMOE_F32};
    const struct moe_vk_variant *got[MOE_VK_N_VARIANTS];
    char names[128] = "";
    uint32_t n = moe_vk_candidates(caps, NULL, &params, got);
    for (uint32_t i = 0; i < n; i++) {
        strcat(names, i > 0 ? " " : "");
        strcat(names, got[i]->name);
    }
    assert_string_equal(names, want);
}

static void networks_have_variants_of_their_own(void **state)
{
    (void) state;
    struct moe_vk_caps caps = matrix_caps();
    const struct moe_program_params params = {.precision = VKMOE_PRECISION_HALF};
    vkmoe_layer_desc layer = layer_of(VKMOE_F16, VKMOE_F16);
    char why[160];
    check_nets(&caps, VKMOE_PRECISION_EXACT, "net-a0n a0");
    check_nets(&caps, VKMOE_PRECISION_HALF,
               MATRIX_BUILT ? "net-a3 net-a3b net-a3c net-a0n a0" : "net-a0n a0");
    caps.disabled = MOE_VK_BIT(MOE_VK_NET_A3) | MOE_VK_BIT(MOE_VK_NET_A0N);
    check_nets(&caps, VKMOE_PRECISION_HALF, MATRIX_BUILT ? "net-a3b net-a3c a0" : "a0");
    caps = flexible_caps();
    check_nets(&caps, VKMOE_PRECISION_EXACT, "net-a0n a0");
    check_nets(&caps, VKMOE_PRECISION_HALF,
               FLEXIBLE_BUILT ? "net-a4 net-a4b net-a3 net-a3b net-a3c net-a0n a0"
               : MATRIX_BUILT ? "net-a3 net-a3b net-a3c net-a0n a0"
                              : "net-a0n a0");
    assert_true(moe_vk_variant_shape(&moe_vk_variants[MOE_VK_NET_A4], &caps).workgroup);
    caps = matrix_caps();
    assert_true(moe_vk_why_not(&moe_vk_variants[MOE_VK_NET_A0N], &caps, &layer, &params, why));
    assert_string_equal(why, "it computes networks, not layers");
    assert_true(moe_vk_why_not(&moe_vk_variants[MOE_VK_A0N], &caps, NULL, &params, why));
    assert_string_equal(why, "it computes layers");
    caps.features &= ~MOE_VK_BIT(MOE_VK_MATRIX);
    assert_true(moe_vk_why_not(&moe_vk_variants[MOE_VK_NET_A3], &caps, NULL, &params, why));
    assert_non_null(strstr(why, "cooperativeMatrix is not there"));
    moe_vk_caps_floor(&caps);
    check_nets(&caps, VKMOE_PRECISION_HALF, "net-a0n a0");
    // Gradients of a layer are by what is like the variant of its plan.
    assert_string_equal(moe_vk_net_name(&moe_vk_variants[MOE_VK_A0]), "a0");
    assert_string_equal(moe_vk_net_name(&moe_vk_variants[MOE_VK_A0N]), "net-a0n");
    assert_string_equal(moe_vk_net_name(&moe_vk_variants[MOE_VK_A3]), "net-a3");
    assert_string_equal(moe_vk_net_name(&moe_vk_variants[MOE_VK_A3_LAST]), "net-a3d");
    assert_string_equal(moe_vk_net_name(&moe_vk_variants[MOE_VK_A4]), "net-a4");
    static const enum moe_vk_variant_id without[] = {MOE_VK_A1, MOE_VK_A2, MOE_VK_A3I};
    for (size_t i = 0; i < MOE_COUNT(without); i++)
        assert_null(moe_vk_net_name(&moe_vk_variants[without[i]]));
    // Drivers are bad at a kind, whatever it computes.
    caps = matrix_caps();
    caps.driver_id = VK_DRIVER_ID_MESA_LLVMPIPE;
    caps.subgroup_size = 16;
    assert_non_null(moe_vk_known_bad(&caps, MOE_VK_NET_A3));
    assert_non_null(moe_vk_known_bad(&caps, MOE_VK_NET_A4));
    assert_null(moe_vk_known_bad(&caps, MOE_VK_NET_A0N));
}

// Where matrices may be computed on the processor only a tune lets them in.
static void some_drivers_are_doubted(void **state)
{
    (void) state;
    struct moe_vk_caps caps = matrix_caps();
    const struct moe_vk_variant *a3 = &moe_vk_variants[MOE_VK_A3];
    assert_null(moe_vk_doubt(a3, &caps));
    caps.driver_id = VK_DRIVER_ID_MESA_RADV;
    assert_null(moe_vk_doubt(a3, &caps));
    caps.driver_id = VK_DRIVER_ID_MESA_LLVMPIPE;
    assert_non_null(moe_vk_doubt(a3, &caps));
    assert_null(moe_vk_doubt(&moe_vk_variants[MOE_VK_A1], &caps));
    assert_null(moe_vk_doubt(&moe_vk_variants[MOE_VK_A0], &caps));
    assert_string_equal(moe_vk_doubt(&moe_vk_variants[MOE_VK_A2], &caps),
                        "integerDotProduct4x8BitPackedSignedAccelerated is not set");
    caps.dot_accelerated = true;
    assert_null(moe_vk_doubt(&moe_vk_variants[MOE_VK_A2], &caps));
    static const uint32_t mali[] = {VK_DRIVER_ID_ARM_PROPRIETARY, VK_DRIVER_ID_MESA_PANVK};
    assert_non_null(moe_vk_doubt(&moe_vk_variants[MOE_VK_A0N], &caps));
    for (size_t i = 0; i < MOE_COUNT(mali); i++) {
        caps.driver_id = mali[i];
        assert_null(moe_vk_doubt(&moe_vk_variants[MOE_VK_A0N], &caps));
        assert_null(moe_vk_doubt(&moe_vk_variants[MOE_VK_A1], &caps));
    }
}

static void bf16_never_becomes_plain_f16(void **state)
{
    (void) state;
    const struct moe_vk_variant *a1 = &moe_vk_variants[MOE_VK_A1];
    for (int w = 0; w < N_W; w++)
        for (int x = 0; x < N_X; x++) {
            const struct moe_vk_variant *got =
                moe_vk_matmul_variant(a1, (enum vkmoe_dtype) w, (enum vkmoe_dtype) x);
            assert_int_equal(got->id == MOE_VK_A1, w == VKMOE_F16 && x != VKMOE_BF16);
        }
}

static void disabled_variants_are_named(void **state)
{
    static const struct {
        const char *list;
        uint32_t want;
    } good[] = {{"", 0},
                {"a1", MOE_VK_BIT(MOE_VK_A1)},
                {"fp16", MOE_VK_BIT(MOE_VK_A1)},
                {"a1,fp16,,a1,", MOE_VK_BIT(MOE_VK_A1)},
                {"int8,a1", MOE_VK_BIT(MOE_VK_A2) | MOE_VK_BIT(MOE_VK_A1)},
                {"direct", MOE_VK_BIT(MOE_VK_A0N) | MOE_VK_BIT(MOE_VK_NET_A0N)},
                {"net-a0n,net-a3", MOE_VK_BIT(MOE_VK_NET_A0N) | MOE_VK_BIT(MOE_VK_NET_A3)}};
    static const struct {
        const char *list, *part;
    } bad[] = {{"a1,a9", "'a9' is no variant that can be disabled; there are: a4, a4b "},
               {"A1", "'A1' is no variant"},
               {"a1 ", "'a1 ' is no variant"},
               {"fp1", "'fp1' is no variant"},
               {"fp166", "'fp166' is no variant"},
               {"a1,a0", "'a0' computes what no other does and cannot be disabled; there are: "},
               {"fp32", "'fp32' computes what no other does"}};
    uint32_t got;
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(good); i++) {
        check_ok(moe_vk_parse_variants(good[i].list, &got));
        assert_int_equal(got, good[i].want);
    }
    check_ok(moe_vk_parse_variants(NULL, &got));
    assert_int_equal(got, 0);
    for (size_t i = 0; i < MOE_COUNT(bad); i++)
        check_fails(moe_vk_parse_variants(bad[i].list, &got), VKMOE_E_ARGUMENT, bad[i].part);
}

static void a_disabled_variant_is_no_candidate(void **state)
{
    (void) state;
    const struct moe_vk_variant *got[MOE_VK_N_VARIANTS];
    struct moe_vk_caps caps = caps_with(ALL);
    vkmoe_layer_desc layer = layer_of(VKMOE_F16, VKMOE_F16);
    struct moe_program_params params = {.precision = VKMOE_PRECISION_HALF};
    char why[160];
    assert_int_equal(moe_vk_candidates(&caps, &layer, &params, got), 3);
    check_ok(moe_vk_parse_variants("fp16,direct", &caps.disabled));
    assert_int_equal(moe_vk_candidates(&caps, &layer, &params, got), 1);
    assert_string_equal(got[0]->name, "a0");
    assert_true(moe_vk_why_not(&moe_vk_variants[MOE_VK_A1], &caps, &layer, &params, why));
    assert_non_null(strstr(why, "disabled by VKMOE_DISABLE"));
    caps.features = 0; // what the device lacks comes first
    assert_true(moe_vk_why_not(&moe_vk_variants[MOE_VK_A1], &caps, &layer, &params, why));
    assert_non_null(strstr(why, "bufferDeviceAddress"));
}

static void what_a_variant_computes_is_told(void **state)
{
    (void) state;
    char text[128];
    moe_vk_computes(&moe_vk_variants[MOE_VK_A1], text);
    assert_string_equal(text, "precision half, weights f16, x f32 or f16");
    moe_vk_computes(&moe_vk_variants[MOE_VK_A0N], text);
    assert_string_equal(text, "precision exact or half, weights f32 or f16 or bf16, x of any type");
    moe_vk_computes(&moe_vk_variants[MOE_VK_A0], text);
    assert_string_equal(text,
                        "precision exact or half or int8, weights of any type, x of any type");
    moe_vk_computes(&moe_vk_variants[MOE_VK_A2], text);
    assert_string_equal(text, "precision int8, weights q8_0 or q4_0 or q4_K or q5_K or q6_K or "
                              "q2_K or mxfp4, x of any type");
}

static void a_probe_has_its_time(void **state)
{
    (void) state;
    assert_int_equal(moe_vk_probe_rounds(1, 1e9, true), 15);
    assert_int_equal(moe_vk_probe_rounds(0, 1e9, false), 15); // less than a tick
    assert_int_equal(moe_vk_probe_rounds(10, 100, true), 10);
    assert_int_equal(moe_vk_probe_rounds(10, 149, true), 14);
    assert_int_equal(moe_vk_probe_rounds(10, 30, false), 3);
    assert_int_equal(moe_vk_probe_rounds(10, 29, false), 0);
    assert_int_equal(moe_vk_probe_rounds(10, -5, false), 0);
    assert_int_equal(moe_vk_probe_rounds(10, 29, true), 3); // nothing else says anything
    assert_int_equal(moe_vk_probe_rounds(10, -5, true), 3);
}

static void bad_drivers_are_known_by_id_and_version(void **state)
{
    (void) state;
    struct moe_vk_caps caps = {.driver_id = VK_DRIVER_ID_IMAGINATION_PROPRIETARY,
                               .driver_version = 1234};
    const char *link = moe_vk_known_bad(&caps, MOE_VK_A1);
    assert_non_null(link);
    assert_int_equal(strncmp(link, "https://", 8), 0);
    assert_null(moe_vk_known_bad(&caps, MOE_VK_A0));
    caps.driver_id = VK_DRIVER_ID_MESA_RADV;
    assert_null(moe_vk_known_bad(&caps, MOE_VK_A1));
    caps.driver_id = 0; // a device that does not tell
    assert_null(moe_vk_known_bad(&caps, MOE_VK_A1));
    caps.driver_id = VK_DRIVER_ID_MESA_LLVMPIPE;
    static const enum moe_vk_variant_id matrices[] = {MOE_VK_A3, MOE_VK_A3I, MOE_VK_A4};
    for (caps.subgroup_size = 4; caps.subgroup_size <= 16; caps.subgroup_size *= 2)
        for (size_t i = 0; i < MOE_COUNT(matrices); i++)
            assert_int_equal(moe_vk_known_bad(&caps, matrices[i]) != NULL,
                             caps.subgroup_size == 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(candidates_follow_features_precision_and_types),
        cmocka_unit_test(what_is_not_a_candidate_has_a_reason),
        cmocka_unit_test(tiers_follow_features),
        cmocka_unit_test(each_shape_that_fits_is_a_candidate),
        cmocka_unit_test(what_matrices_lack_is_told),
        cmocka_unit_test(matrices_of_any_size_are_candidates),
        cmocka_unit_test(networks_have_variants_of_their_own),
        cmocka_unit_test(some_drivers_are_doubted),
        cmocka_unit_test(bf16_never_becomes_plain_f16),
        cmocka_unit_test(disabled_variants_are_named),
        cmocka_unit_test(a_disabled_variant_is_no_candidate),
        cmocka_unit_test(what_a_variant_computes_is_told),
        cmocka_unit_test(a_probe_has_its_time),
        cmocka_unit_test(bad_drivers_are_known_by_id_and_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
