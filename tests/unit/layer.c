// SPDX-License-Identifier: MIT
// Layer descriptions: every field is checked, and every refusal names its field.
#include "check.h"
#include "fixture.h"

#include "core/layer.h"
#include "core/layer_fields.h"

#include <stdio.h>
#include <stdlib.h>

static size_t field_size(const struct moe_layer_field *field)
{
    switch (field->kind) {
    case MOE_FIELD_BOOL:
        return sizeof(bool);
    case MOE_FIELD_U32:
    case MOE_FIELD_F32:
    case MOE_FIELD_ENUM:
        return 4;
    case MOE_FIELD_ARRAY:
        return sizeof(void *);
    }
    return 0;
}

static void set_field(vkmoe_layer_desc *layer, const struct moe_layer_field *field, float value)
{
    static const uint32_t array[8];
    char *at = (char *) layer + field->offset;
    bool truth = value != 0;
    uint32_t word = (uint32_t) (value >= 0 ? value : 0);
    const void *pointer = truth ? array : NULL;
    const void *source = field->kind == MOE_FIELD_BOOL    ? (const void *) &truth
                         : field->kind == MOE_FIELD_F32   ? (const void *) &value
                         : field->kind == MOE_FIELD_ARRAY ? (const void *) &pointer
                                                          : (const void *) &word;
    memcpy(at, source, field_size(field));
}

// The table's fields follow each other with nothing but padding between.
static void test_table_covers_the_desc(void **state)
{
    (void) state;
    size_t end = sizeof(size_t);
    for (uint32_t i = 0; i < moe_n_layer_fields; i++) {
        const struct moe_layer_field *field = &moe_layer_fields[i];
        size_t size = field_size(field);
        size_t begin = (end + size - 1) / size * size;
        if (field->offset != begin)
            fail_msg("between bytes %zu and %zu, before %s, lies a field that nobody checks", end,
                     field->offset, field->name);
        end = begin + size;
    }
    assert_true(sizeof(vkmoe_layer_desc) - end < sizeof(void *));
}

static bool is_computed(const struct moe_layer_field *field, uint32_t value)
{
    return !field->refusal || (value < 32 && field->computed >> value & 1);
}

// The first refused value of a field is refused, and so is a wild one.
static void test_refused_values(void **state)
{
    (void) state;
    uint32_t n_refused = 0;
    for (uint32_t i = 0; i < moe_n_layer_fields; i++) {
        const struct moe_layer_field *field = &moe_layer_fields[i];
        uint32_t value = 0;
        while (value < 32 && is_computed(field, value))
            value++;
        if (!field->refusal)
            continue;
        n_refused++;
        vkmoe_layer_desc layer = full_layer();
        char start[64];
        snprintf(start, sizeof start, "layer.%s = ", field->name);
        set_field(&layer, field, (float) value);
        check_fails(vkmoe_layer_check(&layer), VKMOE_E_UNSUPPORTED, start);
        assert_ptr_equal(strstr(vkmoe_error_text(), start), vkmoe_error_text());
        if (field->kind == MOE_FIELD_F32) {
            set_field(&layer, field, -0.25f);
            check_fails(vkmoe_layer_check(&layer), VKMOE_E_UNSUPPORTED, start);
        }
    }
    assert_int_equal(n_refused, 8); // linear experts, three arrays, four that only train
}

// A layer in which every value of an enum makes sense.
static vkmoe_layer_desc ready_layer(const struct moe_layer_field *field, uint32_t value)
{
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = layer.d_ff = layer.d_out = layer.d_shared_ff = 256; // blocks of every type
    layer.limit = layer.limit_shared = layer.situ_beta = layer.select_p = 1;
    layer.capacity = 2;
    layer.own_shared_types = true;
    if (strcmp(field->name, "expert_kind") == 0 && value == VKMOE_EXPERT_EXTERNAL) {
        layer.d_shared_ff = 0;
        layer.shared_gate = VKMOE_SHARED_PLAIN;
    }
    if (strcmp(field->name, "select") == 0 && value != VKMOE_SELECT_TOP_K)
        layer.selection_bias = false;
    if (strcmp(field->name, "select") == 0 && value == VKMOE_SELECT_TABLE)
        layer.n_token_ids = 3;
    return layer;
}

static void test_computed_values(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < moe_n_layer_fields; i++) {
        const struct moe_layer_field *field = &moe_layer_fields[i];
        bool few = field->kind == MOE_FIELD_ENUM || field->refusal;
        for (uint32_t value = 0; few && value < 32; value++) {
            vkmoe_layer_desc layer = ready_layer(field, value);
            set_field(&layer, field, (float) value);
            if (strcmp(field->name, "act_out") == 0 && value == VKMOE_ACT_SITU)
                continue; // refused: layer_pairs.c
            if (is_computed(field, value) && !(field->n_values && value >= field->n_values))
                check_ok(vkmoe_layer_check(&layer));
        }
    }
}

static void test_wrong_values(void **state)
{
    (void) state;
    static const float wild[] = {NAN, INFINITY, -INFINITY};
    for (uint32_t i = 0; i < moe_n_layer_fields; i++) {
        const struct moe_layer_field *field = &moe_layer_fields[i];
        vkmoe_layer_desc layer = full_layer();
        char start[64];
        snprintf(start, sizeof start, "layer.%s = ", field->name);
        for (int w = 0; field->kind == MOE_FIELD_F32 && w < 3; w++) {
            set_field(&layer, field, wild[w]);
            check_fails(vkmoe_layer_check(&layer), VKMOE_E_ARGUMENT, start);
        }
        if (field->kind != MOE_FIELD_ENUM)
            continue;
        set_field(&layer, field, (float) field->n_values);
        check_fails(vkmoe_layer_check(&layer), VKMOE_E_ARGUMENT, start);
        set_field(&layer, field, 4e9f);
        check_fails(vkmoe_layer_check(&layer), VKMOE_E_ARGUMENT, start);
    }
}

// What the table says is written down here a second time.
static void test_refusals_by_hand(void **state)
{
    (void) state;
#define REFUSED(field, value, text)                                                                \
    do {                                                                                           \
        vkmoe_layer_desc layer = full_layer();                                                     \
        layer.field = (value);                                                                     \
        check_fails(vkmoe_layer_check(&layer), VKMOE_E_UNSUPPORTED, text);                         \
    } while (0)
    uint32_t widths[5] = {7, 7, 7, 7, 7};
    REFUSED(expert_kind, VKMOE_EXPERT_LINEAR, "layer.expert_kind = 1: ");
    REFUSED(expert_d_ff, widths, "layer.expert_d_ff = an array: ");
    REFUSED(expert_act, (const enum vkmoe_act *) widths, "layer.expert_act = an array: ");
    REFUSED(expert_alias, widths, "layer.expert_alias = an array: ");
    REFUSED(jitter, 0.01f, "layer.jitter = 0.01: ");
    REFUSED(aux_coef, 0.01f, "layer.aux_coef = 0.01: ");
    REFUSED(z_coef, 0.01f, "layer.z_coef = 0.01: ");
    REFUSED(bias_rate, 0.01f, "layer.bias_rate = 0.01: ");
    REFUSED(router_input, true, "layer.shared_gate = 1: not computed with router_input");
    REFUSED(router_prenorm, true, "layer.shared_gate = 1: not computed with router_input");
#undef REFUSED
}

static void test_sizes_and_pairs(void **state)
{
    (void) state;
#define WRONG(field, value, status, text)                                                          \
    do {                                                                                           \
        vkmoe_layer_desc layer = full_layer();                                                     \
        layer.field = (value);                                                                     \
        check_fails(vkmoe_layer_check(&layer), status, text);                                      \
    } while (0)
    WRONG(n_experts, 0, VKMOE_E_ARGUMENT, "layer.n_experts = 0: must be 1 to 1024");
    WRONG(n_experts, 1025, VKMOE_E_ARGUMENT, "layer.n_experts = 1025");
    WRONG(top_k, 0, VKMOE_E_ARGUMENT, "layer.top_k = 0");
    WRONG(top_k, 6, VKMOE_E_SHAPE, "layer.top_k = 6: there are n_experts = 5");
    WRONG(d_model, 0, VKMOE_E_ARGUMENT, "layer.d_model = 0");
    WRONG(d_model, (1u << 24) + 1, VKMOE_E_ARGUMENT, "layer.d_model = 16777217");
    WRONG(d_ff, 0, VKMOE_E_ARGUMENT, "layer.d_ff = 0");
    WRONG(d_out, UINT32_MAX, VKMOE_E_ARGUMENT, "layer.d_out = 4294967295");
    WRONG(d_shared_ff, 1u << 25, VKMOE_E_ARGUMENT, "layer.d_shared_ff");
    WRONG(d_shared_ff, 0, VKMOE_E_ARGUMENT, "layer.shared_gate = 1: needs d_shared_ff");
    WRONG(gated, false, VKMOE_E_ARGUMENT, "layer.gate_bias = true: needs gated");
    WRONG(norm_eps, -1e-6f, VKMOE_E_ARGUMENT, "layer.norm_eps = -1e-06");
#undef WRONG
    check_fails(vkmoe_layer_check(NULL), VKMOE_E_ARGUMENT, "layer is NULL");

    vkmoe_layer_desc layer = full_layer();
    struct moe_layer checked;
    layer.d_out = 0;
    layer.top_k = layer.n_experts;
    check_ok(moe_layer_init(&checked, &layer));
    assert_int_equal(checked.desc.d_out, layer.d_model);
}

// Callers of an older header give a shorter desc, callers of a newer one a longer.
static void test_other_versions(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    struct moe_layer checked;
    memset(&layer.c_routed, 0xff, sizeof layer - offsetof(vkmoe_layer_desc, c_routed));
    layer.struct_size = offsetof(vkmoe_layer_desc, c_routed);
    check_ok(moe_layer_init(&checked, &layer));
    assert_true(checked.desc.c_routed == 1 && checked.desc.out_scale == 1);
    assert_int_equal(checked.desc.struct_size, sizeof layer);

    struct {
        vkmoe_layer_desc layer;
        uint64_t of_a_later_version;
    } longer = {full_layer(), 0};
    longer.layer.struct_size = sizeof longer;
    check_ok(vkmoe_layer_check(&longer.layer));
    longer.of_a_later_version = 1;
    check_fails(vkmoe_layer_check(&longer.layer), VKMOE_E_UNSUPPORTED, "struct_size");

    layer.struct_size = 0;
    check_fails(vkmoe_layer_check(&layer), VKMOE_E_ARGUMENT, "vkmoe_layer_desc_init()");
}

static void test_same_weights(void **state)
{
    (void) state;
    vkmoe_layer_desc base = full_layer();
    struct moe_layer a, b;
    check_ok(moe_layer_init(&a, &base));
#define DIFFERS(field, value, same)                                                                \
    do {                                                                                           \
        vkmoe_layer_desc other = full_layer();                                                     \
        other.field = (value);                                                                     \
        check_ok(moe_layer_init(&b, &other));                                                      \
        assert_int_equal(moe_layer_same_weights(&a, &b), same);                                    \
        assert_int_equal(moe_layer_same_weights(&b, &a), same);                                    \
    } while (0)
    DIFFERS(n_experts, 6, false);
    DIFFERS(d_model, 5, false);
    DIFFERS(d_ff, 5, false);
    DIFFERS(d_out, 5, false);
    DIFFERS(d_shared_ff, 5, false);
    DIFFERS(in_type, VKMOE_F16, false);
    DIFFERS(out_type, VKMOE_BF16, false);
    DIFFERS(router_bias, false, false);
    DIFFERS(selection_bias, false, false);
    DIFFERS(gate_bias, false, false);
    DIFFERS(up_bias, false, false);
    DIFFERS(down_bias, false, false);
    DIFFERS(shared_gate, VKMOE_SHARED_PLAIN, false);
    DIFFERS(shared_gate, VKMOE_SHARED_SOFTMAX2, false);
    DIFFERS(shared_gate_bias, true, false);
    DIFFERS(expert_scale, true, false);
    DIFFERS(out_bias, true, false);
    DIFFERS(d_latent, 2, false);
    DIFFERS(clamp, VKMOE_CLAMP_NONE, true);
    DIFFERS(logit_softcap, 3, true);
    DIFFERS(top_k, 3, true);
    DIFFERS(act, VKMOE_ACT_RELU, true);
    DIFFERS(score, VKMOE_SCORE_SIGMOID, true);
#undef DIFFERS
    base.gate_bias = false;
    check_ok(moe_layer_init(&a, &base));
    base.gated = false;
    check_ok(moe_layer_init(&b, &base));
    assert_false(moe_layer_same_weights(&a, &b));
}

static void test_tensors(void **state)
{
    (void) state;
    struct layer_data data;
    struct moe_layer layer;
    vkmoe_layer_desc desc = full_layer();
    desc.in_type = VKMOE_F16;
    layer_data_init(&data, &desc, 1);
    check_ok(moe_layer_init(&layer, &desc));
    vkmoe_expert_tensors good = data.experts[3], bad;
    check_ok(moe_layer_check_expert(&layer, 3, &good));
#define WRONG(field, value, text)                                                                  \
    do {                                                                                           \
        bad = good;                                                                                \
        bad.field = (value);                                                                       \
        check_fails(moe_layer_check_expert(&layer, 3, &bad), VKMOE_E_ARGUMENT, text);              \
    } while (0)
    WRONG(gate.data, NULL, "expert 3: gate is NULL");
    WRONG(up.data, NULL, "expert 3: up is NULL");
    WRONG(down.data, NULL, "expert 3: down is NULL");
    WRONG(up.type, VKMOE_BF16, "expert 3: up is bf16, the layer takes f16 or f32");
    WRONG(down.type, VKMOE_F16, "expert 3: down is f16, the layer takes f32");
    WRONG(down.type, (enum vkmoe_dtype) 99, "expert 3: down has type 99");
    WRONG(gate_bias, NULL, "expert 3: gate_bias is NULL");
    WRONG(up_bias, NULL, "expert 3: up_bias is NULL");
    WRONG(down_bias, NULL, "expert 3: down_bias is NULL");
    WRONG(up_bias, (const float *) ((const char *) good.up_bias + 2), "up_bias at");
    bad = good;
    bad.gate.type = VKMOE_F16;
    check_ok(moe_layer_check_expert(&layer, VKMOE_SHARED_EXPERT, &bad));
    layer.desc.gated = layer.desc.gate_bias = false;
    check_fails(moe_layer_check_expert(&layer, VKMOE_SHARED_EXPERT, &good), VKMOE_E_ARGUMENT,
                "the shared expert: gate is given");
#undef WRONG

    vkmoe_router_tensors router = data.router;
    check_ok(moe_layer_check_router(&layer, &router));
    router.weight.data = NULL;
    check_fails(moe_layer_check_router(&layer, &router), VKMOE_E_ARGUMENT, "router: weight");
    router = data.router;
    router.bias = NULL;
    check_fails(moe_layer_check_router(&layer, &router), VKMOE_E_ARGUMENT, "router: bias");
    router = data.router;
    router.selection_bias = NULL;
    check_fails(moe_layer_check_router(&layer, &router), VKMOE_E_ARGUMENT, "selection_bias");
    router = data.router;
    router.shared_gate = NULL;
    check_fails(moe_layer_check_router(&layer, &router), VKMOE_E_ARGUMENT, "shared_gate");
    layer_data_finish(&data);
}

static void test_names(void **state)
{
    (void) state;
    assert_string_equal(moe_act_name(VKMOE_ACT_GELU_TANH), "gelu_tanh");
    assert_string_equal(moe_act_name(VKMOE_ACT_SITU), "situ");
    assert_string_equal(moe_act_name((enum vkmoe_act) 9), "unknown");
    assert_string_equal(moe_score_name(VKMOE_SCORE_SIGMOID), "sigmoid");
    assert_string_equal(moe_score_name((enum vkmoe_score) 5), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_covers_the_desc), cmocka_unit_test(test_refused_values),
        cmocka_unit_test(test_computed_values),       cmocka_unit_test(test_wrong_values),
        cmocka_unit_test(test_refusals_by_hand),      cmocka_unit_test(test_sizes_and_pairs),
        cmocka_unit_test(test_other_versions),        cmocka_unit_test(test_same_weights),
        cmocka_unit_test(test_tensors),               cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
