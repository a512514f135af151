// SPDX-License-Identifier: MIT
// Choosing on recorded devices (recorded.c): each gets the variants that it should, and no program
// of any variant takes more than the device has. What a kernel takes is read from its SPIR-V.
#include "check.h"
#include "recorded.h"
#include "spirv_needs.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "core/dtype.h"
#include "vulkan/feature_table.h"
#include "vulkan/plan.h"

// ---- candidates --------------------------------------------------------------------------------

static vkmoe_layer_desc small_layer(enum vkmoe_dtype type)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 8;
    layer.top_k = 2;
    layer.d_model = layer.d_out = layer.d_ff = 256;
    layer.in_type = layer.out_type = type;
    return layer;
}

static const struct moe_program_params half = {
    .max_tokens = 16, .precision = VKMOE_PRECISION_HALF, .budget_ms = 50};

// Goes on with a kind, which several variants in a row may have; but for a0n, as all devices can
// have that.
static void add_kind(char kinds[64], const struct moe_vk_variant *variant)
{
    if (variant->id == MOE_VK_A0N)
        return;
    size_t n = strlen(kinds), size = strlen(variant->kind);
    if (n < size || strcmp(kinds + n - size, variant->kind) != 0)
        snprintf(kinds + n, 64 - n, " %s", variant->kind);
}

// Of a list of kinds, those that there are.
static void known_of(const char *kinds, char out[64])
{
    *out = '\0';
    for (int i = 0; i < MOE_VK_N_VARIANTS; i++)
        if (strstr(kinds, moe_vk_variants[i].kind) && !moe_vk_variants[i].nets &&
            moe_vk_variants[i].gemm_bda < MOE_N_SPV)
            add_kind(out, &moe_vk_variants[i]);
}

static void each_device_gets_its_variants(void **state)
{
    (void) state;
    const vkmoe_layer_desc layer = small_layer(VKMOE_F16);
    assert_true(n_recorded_devices >= 20);
    for (uint32_t i = 0; i < n_recorded_devices; i++) {
        const struct recorded_device *d = &recorded_devices[i];
        const struct moe_vk_caps caps = recorded_caps(d);
        const struct moe_vk_variant *got[MOE_VK_N_VARIANTS];
        const struct moe_vk_variant *best = NULL, *used = NULL;
        char want[64], kinds[64] = "";
        check_ok(moe_vk_check_limits(&caps, d->name));
        uint32_t n = moe_vk_candidates(&caps, &layer, &half, got);
        for (uint32_t v = 0; v < n; v++) {
            add_kind(kinds, got[v]);
            if (!best && got[v]->id != MOE_VK_A0N)
                best = got[v];
            if (!used && !moe_vk_known_bad(&caps, got[v]->id) && !moe_vk_doubt(got[v], &caps))
                used = got[v];
        }
        assert_true(best && used);
        known_of(d->candidates, want);
        if (strcmp(kinds, want) != 0)
            fail_msg("%s: candidates%s, not%s", d->name, kinds, want);
        const bool dot = moe_vk_variants[MOE_VK_A2].id < best->id && caps.dot_accelerated;
        assert_string_equal(moe_vk_tier(&caps),
                            dot ? moe_vk_variants[MOE_VK_A2].tier : best->tier);
        if (strcmp(used->kind, d->used ? d->used : best->kind) != 0)
            fail_msg("%s: %s is used", d->name, used->kind);
    }
}

// Weights of blocks at precision int8: packed products wherever they are, used by plans that name
// nothing where they are fast.
static void each_device_of_1_3_may_compute_by_products_of_bytes(void **state)
{
    (void) state;
    const vkmoe_layer_desc layer = small_layer(VKMOE_Q4_K);
    const struct moe_program_params int8 = {.precision = VKMOE_PRECISION_INT8};
    uint32_t n_with = 0, n_used = 0, n_matrix = 0;
    for (uint32_t i = 0; i < n_recorded_devices; i++) {
        const struct recorded_device *d = &recorded_devices[i];
        const struct moe_vk_caps caps = recorded_caps(d);
        const struct moe_vk_variant *got[MOE_VK_N_VARIANTS];
        uint32_t n = moe_vk_candidates(&caps, &layer, &int8, got);
        const bool with = d->minor >= 3;
        const bool matrix = d->byte_shapes[0].m > 0 &&
                            (int) MOE_SPV_EXPERT_GEMM_COOP_INT8_BDA < (int) MOE_N_SPV;
        assert_int_equal(n, with ? 2 + matrix : 1);
        assert_string_equal(got[n - 1]->kind, "fp32");
        if (!with)
            continue;
        assert_string_equal(got[n - 2]->kind, "int8");
        assert_int_equal(moe_vk_doubt(got[n - 2], &caps) == NULL, d->dot);
        if (matrix)
            assert_string_equal(got[0]->kind, "coopmat-int8");
        n_matrix += matrix;
        n_with++;
        n_used += d->dot;
    }
    assert_true(n_used > 5 && n_with > n_used);
    assert_int_equal(n_matrix > 2, (int) MOE_SPV_EXPERT_GEMM_COOP_INT8_BDA < (int) MOE_N_SPV);
}

// All variants are a candidate for one of these.
static const struct plan_kind {
    enum vkmoe_dtype type;
    enum vkmoe_precision precision;
} plan_kinds[] = {{VKMOE_F16, VKMOE_PRECISION_HALF}, {VKMOE_Q4_0, VKMOE_PRECISION_INT8}};

// With one feature or one unit of a limit less there is no such candidate, and the reason says so.
static void check_dropped(const struct moe_vk_variant *variant, struct moe_vk_caps caps,
                          const struct plan_kind *kind, const char *part)
{
    const struct moe_vk_variant *got[MOE_VK_N_VARIANTS];
    const vkmoe_layer_desc layer = small_layer(kind->type);
    const struct moe_program_params params = {.precision = kind->precision};
    char why[160] = "";
    uint32_t n = moe_vk_candidates(&caps, &layer, &params, got);
    for (uint32_t i = 0; i < n; i++)
        assert_ptr_not_equal(got[i], variant);
    assert_true(moe_vk_why_not(variant, &caps, &layer, &params, why));
    if (!strstr(why, part))
        fail_msg("%s: '%s' does not say '%s'", variant->name, why, part);
}

static void check_limits_of(const struct moe_vk_variant *variant, struct moe_vk_caps caps,
                            const struct plan_kind *kind)
{
    const struct {
        const char *name;
        uint32_t *limit, need;
    } limits[] = {
        {"maxComputeWorkGroupInvocations", &caps.max_invocations, variant->invocations},
        {"maxComputeWorkGroupSize[0]", &caps.max_size_x, variant->invocations},
        {"maxComputeSharedMemorySize", &caps.max_shared, variant->shared},
    };
    for (size_t i = 0; i < MOE_COUNT(limits); i++) {
        char part[128];
        const uint32_t before = *limits[i].limit;
        if (limits[i].need == 0)
            continue;
        snprintf(part, sizeof part, "it takes %u of %s, and there are %u", limits[i].need,
                 limits[i].name, limits[i].need - 1);
        *limits[i].limit = limits[i].need - 1;
        check_dropped(variant, caps, kind, part);
        *limits[i].limit = before;
    }
}

static void with_one_thing_less_a_candidate_is_dropped(void **state)
{
    (void) state;
    uint32_t n_dropped = 0;
    for (uint32_t i = 0; i < 2 * n_recorded_devices; i++) {
        const struct moe_vk_caps caps = recorded_caps(&recorded_devices[i / 2]);
        const struct plan_kind *kind = &plan_kinds[i % 2];
        const vkmoe_layer_desc layer = small_layer(kind->type);
        const struct moe_program_params params = {.precision = kind->precision};
        const struct moe_vk_variant *got[MOE_VK_N_VARIANTS];
        uint32_t n = moe_vk_candidates(&caps, &layer, &params, got);
        for (uint32_t v = 0; v < n; v++) {
            check_limits_of(got[v], caps, kind);
            for (int f = 0; f < MOE_VK_N_FEATURES; f++) {
                struct moe_vk_caps less = caps;
                if (!(got[v]->needs & MOE_VK_BIT(f)))
                    continue;
                less.features &= ~MOE_VK_BIT(f);
                check_dropped(got[v], less, kind, moe_vk_features[f].listed.member);
                n_dropped++;
            }
            if (got[v]->id == MOE_VK_A0)
                continue;
            struct moe_vk_caps less = caps;
            less.disabled = MOE_VK_BIT(got[v]->id);
            check_dropped(got[v], less, kind, "disabled by VKMOE_DISABLE");
        }
    }
    assert_true(n_dropped > 20);
}

// What every kernel takes, even those of a0, is asked of a device when it is opened.
static void a_device_below_the_least_limits_is_refused(void **state)
{
    (void) state;
    for (int i = 0; i < 6; i++) {
        struct moe_vk_caps caps = recorded_caps(&recorded_devices[0]);
        moe_vk_caps_floor(&caps);
        check_ok(moe_vk_check_limits(&caps, "x"));
        uint32_t *limits[] = {&caps.max_invocations, &caps.max_size_x, &caps.max_shared,
                              &caps.max_push, &caps.max_storage_buffers, &caps.storage_align};
        *limits[i] += i == 5 ? 1 : (uint32_t) -1;
        check_fails(moe_vk_check_limits(&caps, "x"), VKMOE_E_UNSUPPORTED,
                    "below the Vulkan 1.1 minimum");
    }
}

// ---- what programs take ------------------------------------------------------------------------

// The needs of the pipelines met so far; there are few, and programs by the thousand.
static struct known_pipeline {
    enum moe_spv_id spv;
    uint32_t spec[MOE_VK_MAX_SPEC];
    struct spirv_needs needs;
} pipelines[4096];
static uint32_t n_pipelines;

static const struct spirv_needs *needs_of(enum moe_spv_id spv, const uint32_t *spec)
{
    for (uint32_t i = n_pipelines; i-- > 0;)
        if (pipelines[i].spv == spv &&
            memcmp(pipelines[i].spec, spec, sizeof pipelines[i].spec) == 0)
            return &pipelines[i].needs;
    assert_true(n_pipelines < MOE_COUNT(pipelines));
    struct known_pipeline *pipeline = &pipelines[n_pipelines++];
    pipeline->spv = spv;
    memcpy(pipeline->spec, spec, sizeof pipeline->spec);
    pipeline->needs = spirv_needs(spv, spec);
    return &pipeline->needs;
}

// Capabilities of SPIR-V that a feature of ours brings; the others come with Vulkan 1.1.
static const struct {
    uint32_t capability;
    enum moe_vk_feature feature;
} capabilities[] = {
    {5347, MOE_VK_BDA},   // PhysicalStorageBufferAddresses
    {9, MOE_VK_FLOAT16},  // Float16
    {39, MOE_VK_INT8},    // Int8
    {5345, MOE_VK_MEMORY_MODEL}, // VulkanMemoryModel
    {5346, MOE_VK_DEVICE_SCOPE}, // VulkanMemoryModelDeviceScope
    {6018, MOE_VK_DOT},          // DotProductInput4x8BitPacked
    {6019, MOE_VK_DOT},          // DotProduct
    {6022, MOE_VK_MATRIX},       // CooperativeMatrixKHR
    {5432, MOE_VK_PER_ELEMENT},  // CooperativeMatrixPerElementOperationsNV
};

static bool has_capability(const struct moe_vk_caps *caps, uint32_t capability)
{
    enum { SHADER = 1, GROUP_NON_UNIFORM = 61 }; // the latter: which subgroup an invocation is in
    for (size_t i = 0; i < MOE_COUNT(capabilities); i++)
        if (capabilities[i].capability == capability)
            return moe_vk_has(caps, capabilities[i].feature);
    return capability == SHADER || capability == GROUP_NON_UNIFORM;
}

// What of the device a kernel goes beyond; NULL: nothing.
static const char *beyond(const struct moe_vk_caps *caps, const struct spirv_needs *needs)
{
    for (uint32_t i = 0; i < needs->n_capabilities; i++)
        if (!has_capability(caps, needs->capabilities[i]))
            return "capabilities";
    if (needs->version > 0x10600 ||
        (needs->version > 0x10300 && caps->api_version < VK_API_VERSION_1_3))
        return "version";
    if (needs->size[0] > caps->max_size_x || needs->size[1] != 1 || needs->size[2] != 1)
        return "size";
    if (needs->size[0] > caps->max_invocations)
        return "invocations";
    if (needs->shared > caps->max_shared)
        return "shared memory";
    if (needs->push > caps->max_push)
        return "push constants";
    return needs->n_bindings > caps->max_storage_buffers ? "storage buffers" : NULL;
}

static const char *dispatch_beyond(const struct moe_vk_caps *caps,
                                   const struct moe_vk_dispatch *d, uint32_t n_tokens)
{
    const bool bda = moe_vk_has(caps, MOE_VK_BDA);
    const uint64_t x = d->indirect.size ? d->max_x : moe_vk_groups(d->x, n_tokens);
    for (int slot = 0; slot < 4; slot++) {
        if (d->ranges[slot].size > (bda ? MOE_VK_MAX_WORDS_SIZE : caps->max_storage_range) &&
            !(bda && slot == MOE_SLOT_WEIGHTS))
            return "storage range";
        if (d->ranges[slot].offset % caps->storage_align != 0)
            return "alignment";
    }
    if (x > caps->max_groups[0] || moe_vk_groups(d->y, n_tokens) > caps->max_groups[1])
        return "groups";
    if (sizeof(struct head_params) + d->params_size > caps->max_push)
        return "push constants";
    return beyond(caps, needs_of(d->spv, d->spec));
}

static uint32_t most_shared[MOE_VK_N_VARIANTS], most_invocations[MOE_VK_N_VARIANTS], n_programs;

static void check_program(const char *device, const struct moe_vk_caps *caps,
                          const struct moe_vk_program *program)
{
    const struct moe_vk_variant *variant = program->variant;
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++) {
        const struct moe_vk_sequence *sequence = &program->sequences[regime];
        assert_true(sequence->work_size <= caps->max_allocation);
        for (uint32_t i = 0; i < sequence->n; i++) {
            const struct moe_vk_dispatch *d = &sequence->dispatches[i];
            const char *what = dispatch_beyond(caps, d, sequence->block_tokens);
            if (what)
                fail_msg("%s, %s, %s: beyond its %s", device, variant->name, d->label, what);
            if (d->spv != variant->gemm && d->spv != variant->gemm_bda &&
                d->spv != variant->small && d->spv != variant->small_bda)
                continue;
            if (d->spec[1] > MOE_TILE_FULL) // only where there is room for it
                continue;
            const struct spirv_needs *needs = needs_of(d->spv, d->spec);
            most_shared[variant->id] =
                (uint32_t) moe_max(most_shared[variant->id], needs->shared);
            most_invocations[variant->id] =
                (uint32_t) moe_max(most_invocations[variant->id], needs->size[0]);
        }
    }
    n_programs++;
}

// d_model, d_ff, experts, top_k: an odd one, and models as they are published.
static const uint32_t sizes[][4] = {
    {33, 20, 7, 3},          {2048, 768, 128, 8}, {2880, 2880, 32, 4},
    {4096, 14336, 8, 2},     {7168, 2048, 256, 8}, {2560, 640, 512, 10},
};

static void check_device(const char *name, const struct moe_vk_caps *caps,
                         const vkmoe_layer_desc *desc, const struct moe_program_params *params)
{
    const struct moe_vk_variant *candidates[MOE_VK_N_VARIANTS];
    struct moe_vk vk = {.caps = *caps, .bda = moe_vk_has(caps, MOE_VK_BDA)};
    vk.base.info.type = VKMOE_DEVICE_DISCRETE;
    uint32_t n = moe_vk_candidates(caps, desc, params, candidates);
    assert_true(n > 0);
    for (uint32_t i = 0; i < n; i++) {
        struct moe_vk_program program = {.variant = candidates[i]};
        struct moe_layer layer;
        struct moe_vk_limits limits = moe_vk_limits(&vk, params->budget_ms);
        limits.shape = moe_vk_variant_shape(candidates[i], caps);
        check_ok(moe_layer_init(&layer, desc));
        moe_graph_forward(&program.base.graph, &layer, false);
        program.base.max_tokens = params->max_tokens;
        program.base.x_type = params->x_type;
        check_ok(moe_vk_compile(&program, &limits));
        check_program(name, caps, &program);
        moe_vk_sequences_finish(&program);
    }
}

// Every device, as it is and without addresses, every type of weights and of x, every precision.
static void no_program_is_beyond_its_device(void **state)
{
    (void) state;
    uint32_t turn = 0;
    for (uint32_t i = 0; i < 2 * n_recorded_devices; i++) {
        const struct recorded_device *d = &recorded_devices[i / 2];
        struct moe_vk_caps caps = recorded_caps(d);
        if (i % 2 && !moe_vk_has(&caps, MOE_VK_BDA))
            continue;
        caps.features &= i % 2 ? ~MOE_VK_BIT(MOE_VK_BDA) : UINT32_MAX;
        for (uint32_t type = 0; type < MOE_N_DTYPES; type++)
            for (uint32_t p = VKMOE_PRECISION_EXACT; p <= VKMOE_PRECISION_INT8; p++, turn++) {
                // A size, a type of x and a number of tokens in turn: all of them meet.
                static const uint32_t tokens[] = {1, 4, 40, 512, 3000};
                const uint32_t *size = sizes[turn % MOE_COUNT(sizes)];
                vkmoe_layer_desc layer = small_layer((enum vkmoe_dtype) type);
                struct moe_program_params params = half;
                uint32_t block, block_size;
                check_ok(vkmoe_dtype_block((enum vkmoe_dtype) type, &block, &block_size));
                layer.d_model = layer.d_out = (uint32_t) moe_align_up(size[0], block);
                layer.d_ff = (uint32_t) moe_align_up(size[1], block);
                layer.n_experts = size[2];
                layer.top_k = size[3];
                layer.gated = turn % 7 > 0;
                params.precision = (enum vkmoe_precision) p;
                params.x_type = (enum vkmoe_dtype) (turn / 4 % MOE_N_FLOAT_DTYPES);
                params.max_tokens = tokens[turn / 2 % MOE_COUNT(tokens)];
                check_device(d->name, &caps, &layer, &params);
            }
    }
    assert_true(n_programs > 1000);
    // What a row of moe_vk_variants says of its kernels is what they take, no more and no less.
    for (int v = 0; v < MOE_VK_N_VARIANTS; v++) {
        if (most_invocations[v] == 0)
            continue; // this build has it not, or no device so many shapes
        if (moe_vk_variants[v].shared != most_shared[v] ||
            moe_vk_variants[v].invocations != most_invocations[v])
            fail_msg("%s: %u invocations and %u bytes, but the table has %u and %u",
                     moe_vk_variants[v].name, most_invocations[v], most_shared[v],
                     moe_vk_variants[v].invocations, moe_vk_variants[v].shared);
    }
}

// A layer of two types, the second one of some of its matrices.
static vkmoe_layer_desc mixed_layer(enum vkmoe_dtype type, enum vkmoe_dtype second, int of)
{
    vkmoe_layer_desc layer = small_layer(type);
    layer.shared_in_type = layer.shared_out_type = layer.latent_type = type;
    layer.d_shared_ff = of == 1 || of == 2 ? 256 : 0;
    layer.d_latent = of == 3 ? 256 : 0;
    enum vkmoe_dtype *const types[] = {&layer.out_type, &layer.shared_in_type,
                                       &layer.shared_out_type, &layer.latent_type,
                                       &layer.in_type};
    *types[of] = second;
    return layer;
}

// What a width takes is what its kernel has, and each device gets the widest that it has room for:
// 16 KiB are enough for 128 rows of weights without codes, and 32 for all.
static void tiles_are_as_wide_as_there_is_room(void **state)
{
    (void) state;
    enum { TILE = 1, INPUT_IS_X = 6, KIB16 = 16384, KIB32 = 32768 };
    const struct moe_vk_variant *a0 = &moe_vk_variants[MOE_VK_A0];
    const struct moe_vk_variant *a1 = &moe_vk_variants[MOE_VK_A1];
    for (uint32_t type = 0; type < MOE_N_DTYPES; type++)
        for (uint32_t rows = MOE_TILE_FULL; rows <= MOE_TILE_WIDE; rows *= 2) {
            uint32_t spec[MOE_VK_MAX_SPEC] = {type, rows};
            uint32_t takes = moe_vk_tile_shared(a0, (enum vkmoe_dtype) type, rows);
            assert_int_equal(needs_of(a0->gemm, spec)->shared, takes);
            assert_int_equal(needs_of(a0->gemm_bda, spec)->shared, takes);
            for (spec[INPUT_IS_X] = 0; type == VKMOE_F16 && spec[INPUT_IS_X] < 2;
                 spec[INPUT_IS_X]++) {
                const uint32_t of_a1 = moe_vk_tile_shared(a1, VKMOE_F16, rows);
                assert_int_equal(needs_of(a1->gemm_bda, spec)->shared, of_a1);
                assert_true(rows == MOE_TILE_FULL || of_a1 >= takes);
            }
        }
    uint32_t n[2] = {0};
    for (uint32_t i = 0; i < n_recorded_devices; i++) {
        const struct moe_vk vk = {.caps = recorded_caps(&recorded_devices[i])};
        const struct moe_vk_limits limits = moe_vk_limits(&vk, 50);
        const bool large = limits.shared >= KIB32;
        assert_true(large || limits.shared == KIB16); // another size: say what it has room for
        n[large]++;
        for (uint32_t type = 0; type < MOE_N_DTYPES; type++)
            for (int of = 0; of < 5; of++) {
                const vkmoe_layer_desc layer = mixed_layer(VKMOE_F16, (enum vkmoe_dtype) type, of);
                const uint32_t want =
                    large || type < MOE_N_FLOAT_DTYPES ? MOE_TILE_WIDE : MOE_TILE_FULL;
                assert_int_equal(moe_vk_full_rows(a0, &layer, &limits, 100000), want);
                assert_int_equal(moe_vk_full_rows(a1, &layer, &limits, 100000), want);
                assert_int_equal(moe_vk_full_rows(a0, &layer, &limits, 16), MOE_TILE_FULL);
            }
    }
    assert_true(n[0] > 2 && n[1] > 20);
}

// The same for networks, of the shapes that the recorded devices have.
static void kernels_of_networks_take_what_their_row_says(void **state)
{
    (void) state;
    for (int v = 0; v < MOE_VK_N_VARIANTS; v++) {
        const struct moe_vk_variant *variant = &moe_vk_variants[v];
        if (!variant->nets || variant->gemm_bda >= MOE_N_SPV)
            continue;
        for (uint32_t i = 0; i < n_recorded_devices; i++) {
            struct moe_vk_caps caps = recorded_caps(&recorded_devices[i]);
            struct moe_vk_shape shape = moe_vk_variant_shape(variant, &caps);
            uint32_t spec[MOE_VK_MAX_SPEC] = {0};
            if (variant->shape > 0 && (shape.m == 0 || caps.subgroup_size == 0))
                continue;
            if (variant->shape > 0)
                moe_vk_matrix_spec(variant, &shape, MOE_LOCAL_SIZE / caps.subgroup_size, spec);
            const struct spirv_needs *matmul = needs_of(variant->gemm_bda, spec);
            const struct spirv_needs *dw = needs_of(variant->dw_bda, spec);
            assert_int_equal(moe_max(matmul->shared, dw->shared), variant->shared);
            assert_int_equal(moe_max(matmul->size[0], dw->size[0]), variant->invocations);
        }
    }
}

// That what is beyond a device is found: each limit a unit below what a program takes.
static void the_checks_find_what_is_beyond(void **state)
{
    (void) state;
    struct moe_vk_program *program = calloc(1, sizeof *program);
    struct moe_layer layer;
    vkmoe_layer_desc desc = small_layer(VKMOE_F16);
    const struct moe_vk_limits limits = {
        .bda = true, .range = UINT64_MAX, .allocation = UINT64_MAX,
        .groups = {UINT32_MAX, UINT32_MAX}, .work = 1e18};
    assert_non_null(program);
    check_ok(moe_layer_init(&layer, &desc));
    moe_graph_forward(&program->base.graph, &layer, false);
    program->base.max_tokens = 40;
    program->variant = &moe_vk_variants[MOE_VK_A1];
    check_ok(moe_vk_compile(program, &limits));
    const struct moe_vk_sequence *sequence = &program->sequences[MOE_VK_GROUPED];
    const struct moe_vk_dispatch *d = sequence->dispatches;
    while (d->spv != MOE_SPV_EXPERT_GEMM_F16_BDA)
        d++;
    const struct spirv_needs *needs = needs_of(d->spv, d->spec);
    assert_true(needs->shared > 0 && needs->push > 0);
    for (int i = 0; i <= 9; i++) {
        static const char *const found[] = {"size", "invocations", "shared memory",
                                            "push constants", "groups", "groups", "alignment",
                                            "capabilities", "capabilities", NULL};
        struct moe_vk_caps caps = {.features = MOE_VK_BIT(MOE_VK_N_FEATURES) - 1,
                                   .max_size_x = needs->size[0],
                                   .max_invocations = needs->size[0],
                                   .max_shared = needs->shared,
                                   .max_push = 128,
                                   .max_storage_buffers = 4,
                                   .storage_align = 256,
                                   .max_groups = {d->max_x, (uint32_t) moe_vk_groups(d->y, 40)}};
        uint32_t *const limit[] = {&caps.max_size_x, &caps.max_invocations, &caps.max_shared,
                                   &caps.max_push, &caps.max_groups[0], &caps.max_groups[1]};
        if (i == 3)
            caps.max_push = needs->push;
        if (i < 6)
            --*limit[i];
        if (i == 6)
            caps.storage_align = 1 << 30;
        if (i == 7 || i == 8)
            caps.features &= ~MOE_VK_BIT(i == 7 ? MOE_VK_FLOAT16 : MOE_VK_BDA);
        const char *got = dispatch_beyond(&caps, d, 40);
        if (i == 8) // then ranges are limited too
            caps.max_storage_range = UINT64_MAX, got = dispatch_beyond(&caps, d, 40);
        if (!got != !found[i] || (got && strcmp(got, found[i]) != 0))
            fail_msg("case %d: %s, not %s", i, got ? got : "nothing",
                     found[i] ? found[i] : "nothing");
    }
    moe_vk_sequences_finish(program);
    free(program);
}

// ---- all kernels -------------------------------------------------------------------------------

static void kernels_are_few_and_small(void **state)
{
    (void) state;
    size_t size = 0;
    for (uint32_t i = 0; i < MOE_N_SPV; i++)
        size += moe_spv_table[i].size;
    print_message("%d kernels, %zu bytes\n", (int) MOE_N_SPV, size);
    assert_true(MOE_N_SPV > 40 && MOE_N_SPV <= 200);
    assert_true(size > 400000 && size <= 2 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_device_gets_its_variants),
        cmocka_unit_test(each_device_of_1_3_may_compute_by_products_of_bytes),
        cmocka_unit_test(with_one_thing_less_a_candidate_is_dropped),
        cmocka_unit_test(a_device_below_the_least_limits_is_refused),
        cmocka_unit_test(no_program_is_beyond_its_device),
        cmocka_unit_test(tiles_are_as_wide_as_there_is_room),
        cmocka_unit_test(kernels_of_networks_take_what_their_row_says),
        cmocka_unit_test(the_checks_find_what_is_beyond),
        cmocka_unit_test(kernels_are_few_and_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
