// SPDX-License-Identifier: MIT
// vkmoe-model files: what a configuration means, and every way to get it wrong.
#include "check.h"
#include "model_fixture.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char warnings[1024];

static void keep_warning(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user;
    assert_int_equal(level, VKMOE_LOG_WARN);
    strncat(warnings, text, sizeof warnings - strlen(warnings) - 1);
}

static enum vkmoe_status open_path(const char *path, vkmoe_model **out)
{
    vkmoe_host host = vkmoe_host_init();
    host.log = keep_warning;
    warnings[0] = '\0';
    enum vkmoe_status status = vkmoe_model_open(&host, path, out);
    assert_true((status == VKMOE_OK) == (*out != NULL));
    return status;
}

static enum vkmoe_status open_config(const char *config, vkmoe_model **out)
{
    struct moe_st_source tensors[FULL_TENSORS];
    full_tensors(tensors);
    return open_path(write_model(config, tensors, FULL_TENSORS), out);
}

static void test_full(void **state)
{
    (void) state;
    vkmoe_model *model;
    vkmoe_model_info info;
    vkmoe_layer_desc d;
    check_ok(open_config(full_config, &model));
    assert_string_equal(warnings, "");
    check_ok(vkmoe_model_get_info(model, &info));
    check_ok(vkmoe_model_layer(model, 0, &d));
    assert_true(info.task == VKMOE_TASK_CLASSIFY && info.input == VKMOE_INPUT_STANDARDIZE &&
                info.head == VKMOE_HEAD_SOFTMAX && info.n_features == 3 && info.n_layers == 1 &&
                info.n_outputs == 2 && info.n_classes == 2);
    assert_string_equal(vkmoe_model_class(model, 1), "yes");
    assert_null(vkmoe_model_class(model, 2));

    assert_true(d.n_experts == 2 && d.top_k == 1 && d.d_model == 3 && d.d_ff == 4 && d.d_out == 2 &&
                d.d_shared_ff == 5 && d.in_type == VKMOE_F32 && d.out_type == VKMOE_F32);
    assert_true(d.score == VKMOE_SCORE_SIGMOID && d.rank == VKMOE_RANK_SCORE &&
                d.gate_source == VKMOE_GATE_SCORE && d.norm == VKMOE_NORM_SUM_PLUS_EPS &&
                d.norm_eps == 0.5f && d.routed_scale == 2.5f && d.router_bias && d.selection_bias);
    assert_true(d.gated && d.act == VKMOE_ACT_SILU && d.act_out == VKMOE_ACT_TANH && d.gate_bias &&
                d.up_bias && d.down_bias && d.shared_gate == VKMOE_SHARED_SIGMOID);
    check_fails(vkmoe_model_layer(model, 1, &d), VKMOE_E_ARGUMENT, "layer 1 of a model with 1");
    vkmoe_model_destroy(model);
    vkmoe_model_destroy(NULL);
}

// Other words of the configuration, and what they make of the layer.
static void test_words(void **state)
{
    (void) state;
    vkmoe_model *model;
    vkmoe_layer_desc d;
    const char *order = "\"score_then_topk\"", *late = "\"topk_then_score\"";
    check_ok(open_config(edited(full_config, order, late), &model));
    check_ok(vkmoe_model_layer(model, 0, &d));
    assert_true(d.rank == VKMOE_RANK_LOGIT && d.gate_source == VKMOE_GATE_SCORE);
    vkmoe_model_destroy(model);

    char config[2048];
    snprintf(config, sizeof config, "%s", edited(full_config, order, late));
    check_ok(open_config(edited(config, "\"score\":\"sigmoid\"", "\"score\":\"softmax\""), &model));
    check_ok(vkmoe_model_layer(model, 0, &d));
    assert_true(d.rank == VKMOE_RANK_LOGIT && d.gate_source == VKMOE_GATE_SOFTMAX_SELECTED &&
                d.score == VKMOE_SCORE_SOFTMAX);
    vkmoe_model_destroy(model);

    static const char *const acts[] = {"none", "silu", "gelu_erf", "gelu_tanh",
                                       "relu", "relu2", "sigmoid", "tanh"};
    for (uint32_t i = 0; i < MOE_COUNT(acts); i++) {
        char word[64];
        snprintf(word, sizeof word, "\"activation\":\"%s\"", acts[i]);
        check_ok(open_config(edited(full_config, "\"activation\":\"silu\"", word), &model));
        check_ok(vkmoe_model_layer(model, 0, &d));
        assert_int_equal(d.act, i);
        vkmoe_model_destroy(model);
    }
}

static void test_bad_config(void **state)
{
    (void) state;
    static const struct {
        const char *from, *to;
        const char *part; // of the message
    } cases[] = {
        {"\"task\":", "\"tusk\":1,\"task\":", "config: tusk: unknown key"},
        {"\"kind\":\"standardize\",", "\"kind\":\"standardize\",\"foo\":1,",
         "config: input.foo: unknown key"},
        {"\"score\":", "\"foo\":1,\"score\":", "config: layers[0].router.foo: unknown key"},
        {"\"gated\":", "\"foo\":1,\"gated\":", "config: layers[0].expert.foo: unknown key"},
        {"\"gate\":\"", "\"foo\":1,\"gate\":\"", "config: layers[0].shared.foo: unknown key"},
        {"\"combine\":", "\"foo\":1,\"combine\":", "config: layers[0].foo: unknown key"},
        {"\"gated\":", "\"gated\":true,\"gated\":", "duplicate"},
        {"vkmoe-model/1", "vkmoe-model/2", "config: format: 'vkmoe-model/2'"},
        {"\"task\":\"classify\",", "", "config: task: missing"},
        {"\"classify\"", "\"cluster\"", "config: task: 'cluster' is not one of"},
        {"\"classify\"", "3", "config: task: '(not a text)'"},
        {"\"top_k\":1,", "", "config: layers[0].top_k: missing"},
        {"\"top_k\":1,", "\"top_k\":3,", "config: layers[0].top_k: 3 of 2 experts"},
        {"\"top_k\":1,", "\"top_k\":0,", "config: layers[0].top_k: not a whole number"},
        {"\"top_k\":1,", "\"top_k\":1.0,", "config: layers[0].top_k: not a whole number"},
        {"\"top_k\":1,", "\"top_k\":16777217,", "config: layers[0].top_k: not a whole number"},
        {"\"n_experts\":2,", "\"n_experts\":1025,", "config: layers[0]: layer.n_experts"},
        {"\"score\":\"sigmoid\",", "", "config: layers[0].router.score: missing"},
        {"\"score\":\"sigmoid\"", "\"score\":\"max\"", "config: layers[0].router.score: 'max'"},
        {"\"activation\":\"silu\"", "\"activation\":\"gelu\"", "layers[0].expert.activation"},
        {"\"gated\":true", "\"gated\":1", "config: layers[0].expert.gated: not true or false"},
        {"2.5", "1e99", "config: layers[0].router.routed_scale: not a number"},
        {"2.5", "\"x\"", "config: layers[0].router.routed_scale: not a number"},
        {"\"renormalize\":true", "\"renormalize\":false", "layers[0].router.eps: needs"},
        {"0.5", "-0.5", "config: layers[0].router.eps"},
        {"\"no\",\"yes\"", "\"no\",\"no\"", "config: classes: [1] is there before"},
        {"\"no\",\"yes\"", "\"no\",\"\"", "config: classes: [1] is not a name"},
        {"\"no\",\"yes\"", "\"no\",5", "config: classes: [1] is not a name"},
        {"\"no\",\"yes\"", "\"a\",\"b\",\"c\"", "config: classes: 3, but the last layer gives 2"},
        {"\"no\",\"yes\"", "", "config: classes: not an array with something in it"},
        {"\"classes\":[\"no\",\"yes\"],", "", "config: classes: missing"},
        {"\"classify\"", "\"regress\"", "config: classes: needs task classify"},
        {"\"residual\":false", "\"residual\":true",
         "layers[0].residual: needs a width out, 2, as in, 3"},
        {"\"n_features\":3", "\"n_features\":4", "layers[0].d_in: 3, but the input gives 4"},
        {"\"layers\":[", "\"layers\":[5,", "config: layers[0]: not an object"},
        {"\"input\":{\"kind\":\"standardize\",\"n_features\":3}", "\"input\":[]",
         "config: input: not an object"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        vkmoe_model *model;
        print_message("%s -> %s\n", cases[i].from, cases[i].to);
        check_fails(open_config(edited(full_config, cases[i].from, cases[i].to), &model),
                    VKMOE_E_DATA, cases[i].part);
    }
}

static void test_later(void **state)
{
    (void) state;
    static const struct {
        const char *from, *to, *part;
    } cases[] = {
        {"\"kind\":\"moe\"", "\"kind\":\"recurrent\"", "layers[0].kind: 'recurrent'"},
        {"\"standardize\"", "\"coordinates\"", "input.kind: 'coordinates'"},
        {"\"standardize\"", "\"image\"", "input.kind: 'image'"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        vkmoe_model *model;
        check_fails(open_config(edited(full_config, cases[i].from, cases[i].to), &model),
                    VKMOE_E_UNSUPPORTED, cases[i].part);
    }
}

static void test_bad_metadata(void **state)
{
    (void) state;
    vkmoe_model *model;
    check_fails(open_config("{", &model), VKMOE_E_DATA, "config:");
    check_fails(open_config("[]", &model), VKMOE_E_DATA, "config: not an object");
    const struct moe_st_source none[1] = {{0}};
    const char *path = scratch_path("other.safetensors");
    check_ok(moe_safetensors_write(moe_host_default(), path, none, 0, NULL));
    check_fails(open_path(path, &model), VKMOE_E_DATA, "its format is '(none)'");
    json_t *metadata = json_pack("{s:s}", "format", "vkmoe-model/1");
    check_ok(moe_safetensors_write(moe_host_default(), path, none, 0, metadata));
    check_fails(open_path(path, &model), VKMOE_E_DATA, "no config");
    json_decref(metadata);
    check_fails(open_path(scratch_path("absent"), &model), VKMOE_E_IO, "No such file");
    check_fails(vkmoe_model_open(NULL, NULL, &model), VKMOE_E_ARGUMENT, "path is NULL");
    check_fails(vkmoe_model_open(NULL, path, NULL), VKMOE_E_ARGUMENT, "out is NULL");
}

// Each tensor left out, of another type, of another shape; and one too many.
static void test_bad_tensors(void **state)
{
    (void) state;
    vkmoe_model *model;
    struct moe_st_source tensors[FULL_TENSORS + 1];
    for (int i = 0; i < FULL_TENSORS; i++) {
        full_tensors(tensors);
        const char *name = tensors[i].name;
        struct moe_st_source last = tensors[FULL_TENSORS - 1];
        tensors[i].dtype = "I32";
        check_fails(open_path(write_model(full_config, tensors, FULL_TENSORS), &model),
                    VKMOE_E_DATA, name);
        assert_non_null(strstr(vkmoe_error_text(), "only F32, F16 and BF16"));

        tensors[i].dtype = "F32";
        tensors[i].dims[tensors[i].n_dims - 1]++;
        check_fails(open_path(write_model(full_config, tensors, FULL_TENSORS), &model),
                    VKMOE_E_DATA, name);
        assert_non_null(strstr(vkmoe_error_text(), "the configuration makes it"));

        tensors[i] = last;
        check_fails(open_path(write_model(full_config, tensors, FULL_TENSORS - 1), &model),
                    VKMOE_E_DATA, name);
        assert_non_null(strstr(vkmoe_error_text(), "is missing"));
    }
    full_tensors(tensors);
    tensors[FULL_TENSORS] = (struct moe_st_source){"layers.1.x", "F32", 1, {1}, tensors[0].data};
    check_fails(open_path(write_model(full_config, tensors, FULL_TENSORS + 1), &model),
                VKMOE_E_DATA, "'layers.1.x' has no place");
}

static struct moe_st_source *named(struct moe_st_source *tensors, const char *name)
{
    for (int i = 0; i < FULL_TENSORS; i++) {
        if (strcmp(tensors[i].name, name) == 0)
            return &tensors[i];
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void test_types(void **state)
{
    (void) state;
    vkmoe_model *model;
    vkmoe_layer_desc d;
    struct moe_st_source tensors[FULL_TENSORS];
    full_tensors(tensors);
    named(tensors, "layers.0.experts.up.weight")->dtype = "BF16";
    check_fails(open_path(write_model(full_config, tensors, FULL_TENSORS), &model), VKMOE_E_DATA,
                "experts': gate is f32 and up bf16");
    named(tensors, "layers.0.experts.gate.weight")->dtype = "BF16";
    check_ok(open_path(write_model(full_config, tensors, FULL_TENSORS), &model));
    check_ok(vkmoe_model_layer(model, 0, &d));
    assert_true(d.in_type == VKMOE_BF16 && d.out_type == VKMOE_F32 && d.own_shared_types);
    assert_true(d.shared_in_type == VKMOE_F32 && d.shared_out_type == VKMOE_F32);
    vkmoe_model_destroy(model);
    named(tensors, "layers.0.shared.gate.weight")->dtype = "BF16";
    check_fails(open_path(write_model(full_config, tensors, FULL_TENSORS), &model), VKMOE_E_DATA,
                "layers.0.shared': gate is bf16 and up f32");
    named(tensors, "layers.0.shared.up.weight")->dtype = "BF16";
    named(tensors, "layers.0.experts.down.weight")->dtype = "F16";
    named(tensors, "layers.0.shared.down.weight")->dtype = "F16";
    named(tensors, "layers.0.router.bias")->dtype = "F16";
    check_ok(open_path(write_model(full_config, tensors, FULL_TENSORS), &model));
    check_ok(vkmoe_model_layer(model, 0, &d));
    assert_true(d.in_type == VKMOE_BF16 && d.out_type == VKMOE_F16 && !d.own_shared_types);
    vkmoe_model_destroy(model);
}

static void test_values(void **state)
{
    (void) state;
    vkmoe_model *model;
    struct moe_st_source tensors[FULL_TENSORS];
    float up[24] = {0}, std[3] = {1, 0, 1};
    up[7] = up[9] = NAN;
    full_tensors(tensors);
    named(tensors, "layers.0.experts.up.weight")->data = up;
    check_ok(open_path(write_model(full_config, tensors, FULL_TENSORS), &model));
    assert_non_null(strstr(warnings, "'layers.0.experts.up.weight': 2 of 24 values are NaN"));
    vkmoe_model_destroy(model);

    static const float bad[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        std[1] = bad[i];
        named(tensors, "input.std")->data = std;
        check_fails(open_path(write_model(full_config, tensors, FULL_TENSORS), &model),
                    VKMOE_E_DATA, "feature 1");
    }
}

static const char *cut_path;
static size_t cut_size;

// Another process that cuts the file, just before a tensor of that size is read.
static void *cut_alloc(void *user, size_t size, size_t align)
{
    (void) user;
    if (size == cut_size)
        assert_int_equal(truncate(cut_path, 0), 0);
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void cut_free(void *user, void *memory)
{
    (void) user;
    free(memory);
}

// A file that shrinks is an error while it is opened, and nothing afterwards.
static void test_shrinks(void **state)
{
    (void) state;
    vkmoe_model *model;
    struct moe_st_source tensors[FULL_TENSORS];
    vkmoe_host host = vkmoe_host_init();
    full_tensors(tensors);
    cut_path = write_model(full_config, tensors, FULL_TENSORS);
    check_ok(open_path(cut_path, &model));
    assert_int_equal(truncate(cut_path, 0), 0);
    const struct moe_model_layer *layer = &model->layers[0];
    assert_memory_equal(layer->experts[0].up.data,
                        named(tensors, "layers.0.experts.up.weight")->data, 48);
    assert_memory_equal(layer->router.weight.data,
                        named(tensors, "layers.0.router.weight")->data, 24);
    vkmoe_model_destroy(model);

    cut_path = write_model(full_config, tensors, FULL_TENSORS);
    cut_size = 96; // of experts.up
    host.alloc = cut_alloc;
    host.free = cut_free;
    check_fails(vkmoe_model_open(&host, cut_path, &model), VKMOE_E_IO,
                "the file has 0 bytes now");
    assert_null(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full),       cmocka_unit_test(test_words),
        cmocka_unit_test(test_bad_config), cmocka_unit_test(test_later),
        cmocka_unit_test(test_bad_metadata), cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_types),      cmocka_unit_test(test_values),
        cmocka_unit_test(test_shrinks),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
