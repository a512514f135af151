// SPDX-License-Identifier: MIT
// Explicit descriptions: models of no known family, other rules for one of a known family, and
// everything that a description can get wrong.
#include "checkpoint_folder.h"

#include "fixture.h"
#include "scratch.h"

#include <unistd.h>
#include <vkmoe/checkpoint.h>

static enum vkmoe_status open_with(const char *assume, const char *description,
                                   vkmoe_checkpoint **out)
{
    vkmoe_checkpoint_desc desc = vkmoe_checkpoint_desc_init();
    desc.assume = assume;
    desc.description = description;
    return vkmoe_checkpoint_open(scratch_folder(), &desc, out);
}

static const char unknown_config[] =
    "{\"model_type\": \"unheard_of\", \"hidden_size\": 8, \"intermediate_size\": 6, "
    "\"num_hidden_layers\": 2, \"num_local_experts\": 4, \"num_experts_per_tok\": 2}";

static void test_assume(void **state)
{
    struct folder folder;
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_layer layer;
    vkmoe_checkpoint_info info;
    (void) state;
    folder_mixtral(&folder);
    folder_write(&folder, unknown_config);
    check_fails(open_with(NULL, NULL, &checkpoint), VKMOE_E_UNSUPPORTED, "unheard_of");
    check_ok(open_with("mixtral", NULL, &checkpoint));
    check_ok(vkmoe_checkpoint_get_info(checkpoint, &info));
    assert_string_equal(info.family, "mixtral");
    assert_string_equal(info.says, "unheard_of");
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 1, &layer));
    assert_true(layer.has_experts);
    vkmoe_checkpoint_destroy(checkpoint);
    folder_finish(&folder);
}

// A family's rules, but for what the description says.
static void test_overrules(void **state)
{
    struct folder folder;
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_layer layer;
    (void) state;
    folder_mixtral(&folder);
    folder_write(&folder, unknown_config);
    check_ok(open_with(NULL, "{\"family\": \"mixtral\", \"layer\": {\"norm\": \"none\", "
                       "\"routed_scale\": 2.5, \"act\": \"gelu_tanh\", \"top_k\": 3}}",
                       &checkpoint));
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 1, &layer));
    assert_int_equal(layer.desc.norm, VKMOE_NORM_NONE);
    assert_true(layer.desc.routed_scale == 2.5f);
    assert_int_equal(layer.desc.act, VKMOE_ACT_GELU_TANH);
    assert_int_equal(layer.desc.top_k, 3);
    vkmoe_checkpoint_destroy(checkpoint);
    folder_finish(&folder);
}

// Keys that only one family reads.
static void test_special(void **state)
{
    struct folder folder;
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_layer layer;
    (void) state;
    folder_mixtral(&folder);
    folder_write(&folder, MIXTRAL_CONFIG(", \"router_jitter_noise\": 0.25, "
                                         "\"norm_topk_prob\": false"));
    check_ok(open_with("phimoe", NULL, &checkpoint));
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 1, &layer));
    assert_int_equal(layer.desc.select, VKMOE_SELECT_SPARSEMIXER);
    assert_true(layer.desc.sparsemixer_eps == 0.25f);
    vkmoe_checkpoint_destroy(checkpoint);
    check_ok(open_with("mixtral", NULL, &checkpoint));
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 1, &layer));
    assert_int_equal(layer.desc.norm, VKMOE_NORM_NONE);
    assert_true(layer.desc.sparsemixer_eps == 0);
    vkmoe_checkpoint_destroy(checkpoint);
    folder_finish(&folder);
}

// All forms of tensors, without a family.
static void test_all(void **state)
{
    static const char description[] =
        "{\"layers\": 3, \"layer\": {\"top_k\": 1, \"gated\": true, \"act\": \"relu\"},"
        " \"tensors\": {\"router\": \"h.{L}.route\","
        " \"experts.gate\": {\"name\": \"h.{L}.both\", \"stack\": \"first\", \"rows\": \"odd\"},"
        " \"experts.up\": {\"name\": \"h.{L}.both\", \"stack\": \"first\", \"rows\": \"even\"},"
        " \"experts.down\": {\"name\": \"h.{L}.back\", \"stack\": \"rows\", \"transposed\": true},"
        " \"experts.down.bias\": \"h.{L}.{E}.b\"}}";
    struct folder folder = {.n_tensors = 0};
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_layer layer;
    vkmoe_checkpoint_info info;
    float values[6];
    (void) state;
    folder_add(&folder, "h.2.route", "F32", 2, 4, 0);
    folder_add(&folder, "h.2.both", "F32", 2, 6, 4);
    folder_add(&folder, "h.2.back", "F32", 6, 4, 0);
    folder_add(&folder, "h.2.0.b", "F32", 4, 0, 0);
    folder_add(&folder, "h.2.1.b", "F32", 4, 0, 0);
    folder_fill(&folder, "h.2.both");
    folder_fill(&folder, "h.2.back");
    folder_fill(&folder, "h.2.1.b");
    folder_write(&folder, unknown_config);
    check_ok(open_with(NULL, description, &checkpoint));
    check_ok(vkmoe_checkpoint_get_info(checkpoint, &info));
    assert_string_equal(info.family, "description");
    assert_int_equal(info.n_layers, 3);
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 2, &layer));
    assert_true(layer.has_experts);
    assert_int_equal(layer.desc.n_experts, 2);
    assert_int_equal(layer.desc.d_ff, 3);
    assert_true(layer.desc.down_bias && !layer.desc.up_bias);
    // Expert 1, row 2 of gate: row 5 of the tensor's second matrix.
    check_ok(vkmoe_checkpoint_read(checkpoint, 2, VKMOE_PART_GATE, 1, 2, 1, values));
    for (size_t c = 0; c < 4; c++)
        assert_true(values[c] == folder_value("h.2.both", 24 + 5 * 4 + c));
    // Row 3 of down: column 3 of rows 3, 4 and 5.
    check_ok(vkmoe_checkpoint_read(checkpoint, 2, VKMOE_PART_DOWN, 1, 3, 1, values));
    for (size_t c = 0; c < 3; c++)
        assert_true(values[c] == folder_value("h.2.back", (3 + c) * 4 + 3));
    check_ok(vkmoe_checkpoint_read(checkpoint, 2, VKMOE_PART_DOWN_BIAS, 1, 0, 1, values));
    assert_true(values[3] == folder_value("h.2.1.b", 3));
    vkmoe_checkpoint_destroy(checkpoint);
    // It needs no configuration; one without all of it does.
    unlink(scratch_path("config.json"));
    check_ok(open_with(NULL, description, &checkpoint));
    check_ok(vkmoe_checkpoint_get_info(checkpoint, &info));
    assert_true(info.n_layers == 3 && *info.says == '\0');
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 2, &layer));
    assert_true(layer.has_experts);
    vkmoe_checkpoint_destroy(checkpoint);
    check_fails(open_with(NULL, "{\"family\": \"mixtral\"}", &checkpoint), VKMOE_E_IO,
                "config.json");
    folder_finish(&folder);
}

static void test_wrong(void **state)
{
    static const struct {
        const char *text, *part;
        enum vkmoe_status status;
    } cases[] = {
        {"", "description: ", VKMOE_E_DATA},
        {"[]", "description: not an object", VKMOE_E_DATA},
        {"{\"what\": 1}", "what: unknown key", VKMOE_E_DATA},
        {"{}", "without a family it needs layer and tensors", VKMOE_E_DATA},
        {"{\"family\": \"nobody\"}", "family: 'nobody' is none of: ", VKMOE_E_DATA},
        {"{\"family\": 3}", "family: '(not a text)'", VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"layers\": 0}", "layers: not a whole number", VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"layer\": 1}", "layer is not an object", VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"layer\": {\"wings\": 2}}", "layer.wings: no field",
         VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"layer\": {\"act\": \"mish\"}}",
         "layer.act: 'mish' is not one of none|silu", VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"layer\": {\"top_k\": -1}}", "layer.top_k: not a whole number",
         VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"layer\": {\"gated\": 1}}", "layer.gated: not true or false",
         VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"layer\": {\"limit\": \"x\"}}", "layer.limit: not a number",
         VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"layer\": {\"in_type\": \"q9\"}}", "layer.in_type: 'q9'",
         VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"layer\": {\"expert_act\": []}}", "cannot be described",
         VKMOE_E_UNSUPPORTED},
        {"{\"family\": \"mixtral\", \"tensors\": []}", "tensors is not an object", VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"tensors\": {\"experts.side\": \"x\"}}",
         "tensors.experts.side: no part of a layer", VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"tensors\": {\"router\": 1}}", "neither a text nor an object",
         VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"tensors\": {\"router\": {}}}", "tensors.router.name: missing",
         VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"tensors\": {\"router\": {\"name\": \"x\", \"stack\": "
         "\"last\"}}}", "stack: 'last' is not one of none|first|rows", VKMOE_E_DATA},
        {"{\"family\": \"mixtral\", \"tensors\": {\"router\": {\"name\": \"x\", \"spin\": 1}}}",
         "spin: unknown key", VKMOE_E_DATA},
    };
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    folder_write(&folder, unknown_config);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vkmoe_checkpoint *checkpoint = (vkmoe_checkpoint *) (void *) &folder;
        check_fails(open_with(NULL, cases[i].text, &checkpoint), cases[i].status, cases[i].part);
        assert_null(checkpoint);
    }
    folder_finish(&folder);
}

static void test_layer(void **state)
{
    vkmoe_layer_desc layer;
    (void) state;
    check_ok(vkmoe_layer_parse("{\"n_experts\": 8, \"top_k\": 2, \"d_model\": 16, \"d_ff\": 32, "
                               "\"in_type\": \"bf16\", \"score\": \"sqrt_softplus\", "
                               "\"select\": \"top_p\", \"select_p\": 0.5}", &layer));
    assert_int_equal(layer.struct_size, sizeof layer);
    assert_int_equal(layer.n_experts, 8);
    assert_int_equal(layer.in_type, VKMOE_BF16);
    assert_int_equal(layer.score, VKMOE_SCORE_SQRT_SOFTPLUS);
    assert_int_equal(layer.select, VKMOE_SELECT_TOP_P);
    assert_true(layer.select_p == 0.5f && layer.routed_scale == 1);
    check_fails(vkmoe_layer_parse("3", &layer), VKMOE_E_DATA, "description: ");
    check_fails(vkmoe_layer_parse(NULL, &layer), VKMOE_E_ARGUMENT, "text is NULL");
}

// Other types than the stored ones, and how far off they are.
static void test_types(void **state)
{
    struct folder folder;
    vkmoe_checkpoint *checkpoint;
    vkmoe_layer_desc desc;
    vkmoe_weights *weights;
    vkmoe_load_report report;
    vkmoe_load_desc load = vkmoe_load_desc_init();
    const enum vkmoe_dtype in_type = VKMOE_Q4_0, out_type = VKMOE_F16;
    vkmoe_context *context = context_on("reference", NULL);
    (void) state;
    folder_mixtral(&folder);
    folder_write(&folder, MIXTRAL_CONFIG(""));
    check_ok(open_with(NULL, NULL, &checkpoint));
    load.in_type = &in_type;
    load.out_type = &out_type;
    check_ok(vkmoe_checkpoint_load(checkpoint, context, 1, &load, &desc, &weights, &report));
    // 8 values are no block of q4_0, nor of q8_0; folder_value is exact in f16.
    assert_int_equal(desc.in_type, VKMOE_F16);
    assert_int_equal(desc.out_type, VKMOE_F16);
    assert_int_equal(report.n_parts, 3);
    for (uint32_t i = 0; i < report.n_parts; i++)
        assert_true(report.parts[i].exact && report.parts[i].error == 0);
    vkmoe_weights_destroy(weights);
    // A value that f16 does not have.
    struct moe_st_source *t =
        folder_find(&folder, "model.layers.1.block_sparse_moe.experts.2.w2.weight");
    ((float *) t->data)[5] = 1.0003f;
    folder_write(&folder, MIXTRAL_CONFIG(""));
    vkmoe_checkpoint_destroy(checkpoint);
    check_ok(open_with(NULL, NULL, &checkpoint));
    check_ok(vkmoe_checkpoint_load(checkpoint, context, 1, &load, &desc, &weights, &report));
    assert_int_equal(report.parts[2].part, VKMOE_PART_DOWN);
    assert_false(report.parts[2].exact);
    assert_true(report.parts[2].error > 0 && report.parts[2].error < 1e-3);
    assert_true(report.parts[0].exact && report.parts[1].exact);
    vkmoe_weights_destroy(weights);
    vkmoe_checkpoint_destroy(checkpoint);
    vkmoe_context_destroy(context);
    folder_finish(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_assume), cmocka_unit_test(test_overrules),
        cmocka_unit_test(test_special), cmocka_unit_test(test_all),
        cmocka_unit_test(test_wrong),  cmocka_unit_test(test_layer),
        cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
