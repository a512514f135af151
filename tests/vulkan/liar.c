// SPDX-License-Identifier: MIT
// A driver that lies about what it has: it computes wrongly what it lists, makes no pipelines for
// it, refuses it when a device is made, or has a shape of matrices less than it says. A plan does
// without, and gives the bits of a0; the next process does not try again; and the list of kernels
// says why.
#include "claims.h"
#include "verdicts.h"
#include "check.h"
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "vulkan/feature_table.h"

enum { N_TOKENS = 16, WIDTH = 64, FADD = 129, FMUL = 133, FDIV = 136, SDOT = 4450, UDOT = 4451 };

// A variant, and a kernel of its own in which one instruction is done as another.
struct victim {
    enum moe_vk_variant_id id;
    enum vkmoe_precision precision;
    enum vkmoe_dtype type;
    const char *others; // to do without
    enum moe_spv_id kernel;
    uint32_t from, to;
};

static const struct victim victims[] = {
    {MOE_VK_A1, VKMOE_PRECISION_HALF, VKMOE_F16, "direct,coopmat2,coopmat",
     MOE_SPV_EXPERT_GEMM_F16_BDA, FMUL, FADD},
    {MOE_VK_A1, VKMOE_PRECISION_HALF, VKMOE_F16, "direct,coopmat2,coopmat",
     MOE_SPV_EXPERT_GEMV_TILE_F16_BDA, FMUL, FADD},
    {MOE_VK_A2, VKMOE_PRECISION_INT8, VKMOE_Q8_0, "direct,coopmat-int8",
     MOE_SPV_EXPERT_GEMM_INT8_BDA, SDOT, UDOT},
    {MOE_VK_A2, VKMOE_PRECISION_INT8, VKMOE_Q8_0, "direct,coopmat-int8",
     MOE_SPV_EXPERT_GEMV_TILE_INT8_BDA, SDOT, UDOT},
    {MOE_VK_A2, VKMOE_PRECISION_INT8, VKMOE_Q8_0, "direct,coopmat-int8", MOE_SPV_QUANTISE_BDA,
     FDIV, FMUL},
    {MOE_VK_A3I, VKMOE_PRECISION_INT8, VKMOE_Q8_0, "direct,int8",
     MOE_SPV_EXPERT_GEMM_COOP_INT8_BDA, FMUL, FADD},
    {MOE_VK_A4, VKMOE_PRECISION_HALF, VKMOE_F16, "direct,coopmat,fp16",
     MOE_SPV_EXPERT_GEMM_FLEX_BDA, FMUL, FADD},
    {MOE_VK_A3, VKMOE_PRECISION_HALF, VKMOE_F16, "direct,coopmat2,fp16",
     MOE_SPV_EXPERT_GEMM_COOP_BDA, FMUL, FADD},
};

static vkmoe_host host;
static float x[N_TOKENS * WIDTH];

static vkmoe_layer_desc layer_of(const struct victim *victim)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 4;
    layer.top_k = 2;
    layer.d_model = layer.d_ff = layer.d_out = WIDTH;
    layer.gated = true;
    layer.in_type = layer.out_type = victim->type;
    return layer;
}

static vkmoe_context *open_with(const char *disable)
{
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.host = &host;
    desc.cache_dir = "";
    desc.disable = disable;
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

// What a plan that names `variant`, or none, computes; and its variant.
static enum moe_vk_variant_id run(vkmoe_context *context, const struct victim *victim,
                                  const char *variant, float y[N_TOKENS * WIDTH])
{
    struct layer_data data;
    struct stack stack = {0};
    const vkmoe_layer_desc layer = layer_of(victim);
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    layer_data_init(&data, &layer, 3);
    plan.layer = &data.layer;
    plan.max_tokens = N_TOKENS;
    plan.precision = victim->precision;
    plan.variant = variant;
    io.x = x;
    io.y = y;
    check_ok(vkmoe_weights_create(context, &data.desc, &stack.weights));
    check_ok(vkmoe_plan_create(context, &plan, &stack.plan));
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind));
    memset(y, 0xff, N_TOKENS * WIDTH * sizeof *y);
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    enum moe_vk_variant_id id =
        ((const struct moe_vk_program *) stack.plan->program)->variant->id;
    stack_destroy(&stack);
    layer_data_finish(&data);
    return id;
}

// It is not chosen, refused by name, and the list of kernels says why; what is computed is a0's.
static void check_done_without(vkmoe_context *context, const struct victim *victim,
                               const char *why)
{
    float got[N_TOKENS * WIDTH], want[N_TOKENS * WIDTH];
    vkmoe_kernel_info kernels[MOE_VK_N_VARIANTS];
    uint32_t n = MOE_VK_N_VARIANTS;
    vkmoe_plan *plan;
    const vkmoe_layer_desc layer = layer_of(victim);
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    assert_int_equal(run(context, victim, NULL, got), MOE_VK_A0);
    assert_int_equal(run(context, victim, "a0", want), MOE_VK_A0);
    assert_memory_equal(got, want, sizeof want);
    check_ok(vkmoe_context_kernels(context, kernels, &n));
    if (!strstr(kernels[victim->id].verdict.reason, why))
        fail_msg("'%s' does not say '%s'", kernels[victim->id].verdict.reason, why);
    desc.layer = &layer;
    desc.max_tokens = N_TOKENS;
    desc.precision = victim->precision;
    desc.variant = moe_vk_variants[victim->id].name;
    check_fails(vkmoe_plan_create(context, &desc, &plan), VKMOE_E_UNSUPPORTED, why);
}

// ---- kernels -----------------------------------------------------------------------------------

// Empty where this build does not have it.
static const struct moe_spv *kernel_of(const struct victim *victim)
{
    static const struct moe_spv none;
    return victim->kernel < MOE_N_SPV ? &moe_spv_table[victim->kernel] : &none;
}

// interpose.other: the kernel with one instruction in another's place.
static uint32_t *change(const struct victim *victim)
{
    const struct moe_spv *spv = kernel_of(victim);
    uint32_t *words = malloc(spv->size), n = 0;
    assert_non_null(words);
    memcpy(words, spv->words, spv->size);
    for (size_t i = 5; i < spv->size / 4; i += words[i] >> 16)
        if ((words[i] & 0xffff) == victim->from) {
            words[i] = (words[i] & 0xffff0000) | victim->to;
            n++;
        }
    assert_true(n > 0);
    return words;
}

static void begin(const struct victim *victim, enum interpose_bug bug, const uint32_t *other)
{
    memset(&store, 0, sizeof store);
    interpose = (struct interpose){.kernel = kernel_of(victim)->words,
                                   .bug = bug,
                                   .fail_result = VK_ERROR_FEATURE_NOT_PRESENT,
                                   .other = other,
                                   .other_size = kernel_of(victim)->size};
    // What a driver has not but lists it has for none of the variant's kernels.
    const struct moe_vk_variant *variant = &moe_vk_variants[victim->id];
    const bool is_small = victim->kernel == variant->small_bda;
    if (claims.features && bug == INTERPOSE_NO_PIPELINE)
        interpose.second = moe_spv_table[is_small ? variant->gemm_bda : variant->small_bda].words;
}

static void check_bad(enum moe_vk_variant_id id, enum moe_vk_cause cause)
{
    struct moe_vk_record record;
    char text[64];
    (void) stored(&record);
    assert_int_equal(record.variants[id].state, MOE_VK_BAD);
    assert_int_equal(record.variants[id].cause, cause);
    snprintf(text, sizeof text, "variant '%s' is not used", moe_vk_variants[id].name);
    assert_non_null(strstr(store.log, text));
}

static void check_lie(const struct victim *victim, enum interpose_bug bug)
{
    const bool wrong = bug == INTERPOSE_OTHER;
    print_message("%s, kernel %u: %s\n", moe_vk_variants[victim->id].name,
                  (unsigned) victim->kernel, wrong ? "wrong" : "no pipeline");
    const char *why = wrong ? "wrong results" : "did not make its pipeline";
    uint32_t *other = wrong ? change(victim) : NULL;
    begin(victim, bug, other);
    vkmoe_context *context = open_with(victim->others);
    check_done_without(context, victim, why);
    assert_true(interpose.n_pipelines > 0);
    check_bad(victim->id, wrong ? MOE_VK_WRONG : MOE_VK_NO_PIPELINE);
    vkmoe_context_destroy(context);

    interpose.bug = INTERPOSE_NO_BUG; // the next process
    interpose.n_pipelines = 0;
    context = open_with(victim->others);
    check_done_without(context, victim, why);
    assert_int_equal(interpose.n_pipelines, 0);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
    free(other);
}

static bool is_possible(const struct victim *victim)
{
    char why[160];
    const vkmoe_layer_desc layer = layer_of(victim);
    const struct moe_program_params params = {.precision = victim->precision};
    begin(victim, INTERPOSE_NO_BUG, NULL);
    vkmoe_context *context = open_with(victim->others);
    const bool not = moe_vk_why_not(&moe_vk_variants[victim->id], &moe_vk(context->device)->caps,
                                    &layer, &params, why);
    if (not)
        print_message("skip: %s: %s\n", moe_vk_variants[victim->id].name, why);
    vkmoe_context_destroy(context);
    return !not;
}

// An honest driver's is used.
static void check_honest(const struct victim *victim)
{
    float y[N_TOKENS * WIDTH];
    begin(victim, INTERPOSE_NO_BUG, NULL);
    vkmoe_context *context = open_with(victim->others);
    assert_int_equal(run(context, victim, NULL, y), victim->id);
    vkmoe_context_destroy(context);
    assert_string_equal(store.log, "");
}

static void what_is_wrong_is_not_used(void **state)
{
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(victims); i++) {
        claims = (struct claims){.is_fast = true};
        if (is_possible(&victims[i])) {
            check_honest(&victims[i]);
            check_lie(&victims[i], INTERPOSE_OTHER);
            check_lie(&victims[i], INTERPOSE_NO_PIPELINE);
        }
    }
    claims = (struct claims){0};
}

// The driver accepts what it lists when a device is made, and then has no pipelines for it.
static void what_is_not_there_is_not_used(void **state)
{
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(victims); i++) {
        claims = (struct claims){.is_fast = true,
                                 .features = moe_vk_variants[victims[i].id].needs &
                                             ~MOE_VK_BIT(MOE_VK_BDA)};
        if (is_possible(&victims[i]))
            check_lie(&victims[i], INTERPOSE_NO_PIPELINE);
    }
    claims = (struct claims){0};
}

// ---- features ----------------------------------------------------------------------------------

static uint32_t features_of(vkmoe_context *context)
{
    return moe_vk(context->device)->caps.features;
}

// What a driver lists, what of that it refuses, and what the library then does without.
struct refusal {
    uint32_t listed, refused, gone;
    const char *name; // as the warning has it
    VkResult result;
};

// Nor does the library say that the device has it.
static void check_not_told(vkmoe_context *context, uint32_t gone)
{
    vkmoe_device_info info;
    check_ok(vkmoe_context_info(context, &info));
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        if ((gone & MOE_VK_BIT(f)) && strstr(info.features, moe_vk_features[f].name))
            fail_msg("'%s' are told, %s is refused", info.features, moe_vk_features[f].name);
    if (gone & MOE_VK_BIT(MOE_VK_MATRIX))
        assert_null(strstr(info.tier, "matrix"));
}

static void check_refusal(const struct refusal *refusal)
{
    const struct victim *victim = &victims[0];
    float y[N_TOKENS * WIDTH], want[N_TOKENS * WIDTH];
    print_message("refused: %s\n", refusal->name);
    begin(victim, INTERPOSE_NO_BUG, NULL);
    claims = (struct claims){.features = refusal->listed};
    vkmoe_context *context = open_with("direct,coopmat2,coopmat,fp16");
    const uint32_t honest = features_of(context);
    assert_int_equal(honest & refusal->listed, refusal->listed);
    run(context, victim, NULL, want);
    vkmoe_context_destroy(context);

    claims.refused = refusal->refused;
    claims.refusal = refusal->result;
    context = open_with("direct,coopmat2,coopmat,fp16");
    assert_int_equal(features_of(context), honest & ~refusal->gone);
    assert_non_null(strstr(store.log, refusal->name));
    check_not_told(context, refusal->gone);
    assert_int_equal(run(context, victim, NULL, y), MOE_VK_A0);
    assert_memory_equal(y, want, sizeof want);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
    if (claims.error)
        fail_msg("asked for: %s", claims.error);
    claims = (struct claims){0};
}

// One is done without, and what needs it; or an extension; where it is not one alone, all are.
static void what_is_refused_is_done_without(void **state)
{
    (void) state;
    enum {
        BDA = MOE_VK_BIT(MOE_VK_BDA),
        FLOAT16 = MOE_VK_BIT(MOE_VK_FLOAT16),
        DOT = MOE_VK_BIT(MOE_VK_DOT),
        SCOPE = MOE_VK_BIT(MOE_VK_DEVICE_SCOPE),
        MODEL = MOE_VK_BIT(MOE_VK_MEMORY_MODEL),
        WORKGROUP = MOE_VK_BIT(MOE_VK_WORKGROUP),
        MATRIX2 = MOE_VK_BIT(MOE_VK_FLEXIBLE) | MOE_VK_BIT(MOE_VK_PER_ELEMENT) | WORKGROUP,
        MATRIX = MOE_VK_BIT(MOE_VK_MATRIX),
        ALL = (1 << MOE_VK_N_FEATURES) - 1,
    };
    static const struct refusal refusals[] = {
        {FLOAT16, FLOAT16, FLOAT16, " refuses shader_float16, ", VK_ERROR_FEATURE_NOT_PRESENT},
        {DOT, DOT, DOT, " refuses integer_dot_product, ", VK_ERROR_EXTENSION_NOT_PRESENT},
        {BDA, BDA, BDA, " refuses buffer_device_address, ", VK_ERROR_FEATURE_NOT_PRESENT},
        {MODEL | SCOPE, SCOPE, MODEL | SCOPE, ", which it lists: ", VK_ERROR_FEATURE_NOT_PRESENT},
        {MATRIX | MATRIX2, MATRIX, MATRIX | MATRIX2, " refuses cooperative_matrix, ",
         VK_ERROR_EXTENSION_NOT_PRESENT},
        {MATRIX | MATRIX2, WORKGROUP, WORKGROUP, " refuses workgroup_matrix, ",
         VK_ERROR_FEATURE_NOT_PRESENT},
        {MATRIX | MATRIX2, MATRIX2, MATRIX2, " refuses VK_NV_cooperative_matrix2, ",
         VK_ERROR_EXTENSION_NOT_PRESENT},
        {BDA | FLOAT16, BDA | FLOAT16, ALL, " refuses features ", VK_ERROR_FEATURE_NOT_PRESENT},
    };
    for (size_t i = 0; i < MOE_COUNT(refusals); i++)
        check_refusal(&refusals[i]);
}

// But not what the caller has asked for.
static void addresses_that_are_refused_are_an_error(void **state)
{
    (void) state;
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    begin(&victims[0], INTERPOSE_NO_BUG, NULL);
    claims = (struct claims){.features = MOE_VK_BIT(MOE_VK_BDA),
                             .refused = MOE_VK_BIT(MOE_VK_BDA),
                             .refusal = VK_ERROR_FEATURE_NOT_PRESENT};
    desc.device = "vulkan";
    desc.host = &host;
    desc.cache_dir = "";
    desc.addressing = VKMOE_ADDRESSING_BDA;
    check_fails(vkmoe_context_create(&desc, &context), VKMOE_E_UNSUPPORTED,
                "has no buffer device address");
    assert_int_equal(interpose.n_live, 0);
    claims = (struct claims){0};
}

// ---- shapes of matrices ------------------------------------------------------------------------

// The first shape that the driver enumerates is none: the variant of the next one computes.
static void a_shape_that_is_not_there_is_not_used(void **state)
{
    (void) state;
    enum { SHAPE = 16 };
    const struct victim *victim = &victims[MOE_COUNT(victims) - 1];
    const enum moe_vk_variant_id second = (enum moe_vk_variant_id) (victim->id + 1);
    float y[N_TOKENS * WIDTH], want[N_TOKENS * WIDTH];
    struct moe_vk_record record;
    claims = (struct claims){.is_fast = true};
    if (!is_possible(victim)) {
        claims = (struct claims){0};
        skip();
    }
    vkmoe_context *context = open_with(victim->others);
    assert_true(moe_vk(context->device)->caps.shapes[0].m != SHAPE);
    assert_int_equal(run(context, victim, NULL, want), victim->id);
    vkmoe_context_destroy(context);

    begin(victim, INTERPOSE_NO_PIPELINE, NULL);
    interpose.by_spec = true;
    interpose.spec = MOE_SPEC_M;
    interpose.value = SHAPE;
    claims.shape = SHAPE;
    context = open_with(victim->others);
    assert_int_equal(moe_vk(context->device)->caps.shapes[0].m, SHAPE);
    assert_int_equal(run(context, victim, NULL, y), second);
    assert_memory_equal(y, want, sizeof want);
    check_bad(victim->id, MOE_VK_NO_PIPELINE);
    (void) stored(&record);
    assert_int_equal(record.variants[second].state, MOE_VK_GOOD);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
    claims = (struct claims){0};
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_not_used),
        cmocka_unit_test(what_is_not_there_is_not_used),
        cmocka_unit_test(what_is_refused_is_done_without),
        cmocka_unit_test(addresses_that_are_refused_are_an_error),
        cmocka_unit_test(a_shape_that_is_not_there_is_not_used),
    };
    host = services();
    fill_random(x, MOE_COUNT(x), 4);
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
