// SPDX-License-Identifier: MIT
// Configurations of every kind of layer and input: what they mean, every way to contradict
// oneself, and the way to a file and back.
#include "check.h"
#include "budget.h"
#include "model_fixture.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/model.h"

#include <stdio.h>

// Everything at once: a text, a router of each extra, linear experts with queries, all kinds.
static const char config[] =
    "{\"task\":\"classify\",\"classes\":[\"a\",\"b\"],\"input\":{\"kind\":\"embed\",\"d_out\":3,"
    "\"ngrams\":{\"character\":[1,3],\"word\":[1]},\"n_buckets\":7,\"lower\":true,"
    "\"max_tokens\":9},\"layers\":["
    "{\"kind\":\"moe\",\"n_experts\":4,\"top_k\":2,\"d_ff\":5,\"residual\":true,"
    "\"recompute\":true,\"router\":{\"score\":\"none\",\"order\":\"score_then_topk\","
    "\"scorer\":\"additive\",\"d_score\":6,\"selection_bias\":true,\"noisy\":true,"
    "\"load_balance\":0.25,\"z_loss\":0.5,\"bias_rate\":0.125},"
    "\"expert\":{\"activation\":\"silu\",\"dropout\":0.75}},"
    "{\"kind\":\"norm\",\"rms\":true,\"bias\":true,\"eps\":0.5},"
    "{\"kind\":\"dropout\",\"rate\":0.25},"
    "{\"kind\":\"pool\",\"pool\":\"max\"},"
    "{\"kind\":\"moe\",\"n_experts\":2,\"d_out\":8,\"combine\":\"stack\","
    "\"queries\":{\"pairing\":\"all\",\"d_query\":5},"
    "\"expert\":{\"kind\":\"linear\",\"activation\":\"relu\",\"bias\":true}},"
    "{\"kind\":\"linear\",\"d_in\":8,\"d_out\":2,\"activation\":\"tanh\"}],"
    "\"head\":\"sigmoid\"}";

static enum vkmoe_status read_text(const char *text, bool training, struct moe_description *out)
{
    return moe_description_parse(NULL, "c.json", text, strlen(text), training, out);
}

static void test_layers(void **state)
{
    (void) state;
    struct moe_description d;
    vkmoe_net_desc net;
    check_ok(read_text(config, false, &d));
    const vkmoe_net_layer *l = d.layers;
    assert_true(d.info.n_layers == 6 && d.info.n_outputs == 2 && d.info.n_classes == 2 &&
                d.info.n_features == 0 && d.pool == 3 && d.d_table == 3);
    assert_true(d.text.n_grams[MOE_TEXT_BYTE] == 0 && d.text.n_grams[MOE_TEXT_CHARACTER] == 5 &&
                d.text.n_grams[MOE_TEXT_WORD] == 1 && d.text.n_rows == 7 && d.text.lower &&
                d.text.max_tokens == 9 && !d.text.vocabulary);
    assert_true(l[0].kind == VKMOE_NET_MOE && l[0].residual && l[0].recompute && l[0].noisy &&
                l[0].scorer == VKMOE_SCORER_ADDITIVE && l[0].d_score == 6 &&
                l[0].load_balance == 0.25f && l[0].z_loss == 0.5f && l[0].bias_rate == 0.125f &&
                l[0].hidden_dropout == 0.75f && l[0].layer->score == VKMOE_SCORE_NONE &&
                l[0].layer->d_model == 3 && l[0].layer->d_out == 3 && l[0].layer->top_k == 2);
    assert_true(l[1].kind == VKMOE_NET_NORM && l[1].rms && l[1].bias && l[1].eps == 0.5f);
    assert_true(l[2].kind == VKMOE_NET_DROPOUT && l[2].rate == 0.25f && !l[2].residual);
    assert_true(l[3].kind == VKMOE_NET_POOL && l[3].pool == VKMOE_POOL_MAX);
    assert_true(l[4].combine == VKMOE_COMBINE_STACK && l[4].pairing == VKMOE_PAIRING_ALL &&
                l[4].d_query == 5 && l[4].layer->d_model == 5 && l[4].layer->d_out == 8 &&
                l[4].layer->top_k == 2 && l[4].layer->expert_kind == VKMOE_EXPERT_LINEAR &&
                l[4].layer->act == VKMOE_ACT_RELU && l[4].layer->up_bias);
    assert_true(l[5].kind == VKMOE_NET_LINEAR && l[5].bias && l[5].act == VKMOE_ACT_TANH &&
                l[5].d_out == 2);
    moe_description_net(&d, &net);
    assert_true(net.n_layers == 7 && net.d_in == 1 && net.layers[0]->kind == VKMOE_NET_EMBED &&
                net.layers[0]->n_rows == 7 && net.layers[0]->d_out == 3 && net.layers[1] == &l[0]);
    moe_description_finish(&d);
    moe_description_finish(&d);

    // A bag is a table and a mean; a norm is a layer norm with a bias unless it says otherwise.
    const char *bag = "{\"task\":\"regress\",\"input\":{\"kind\":\"embed_bag\",\"d_out\":3,"
                      "\"ngrams\":{\"byte\":[8]},\"vocabulary\":[\"b\",\"a\"]},\"layers\":["
                      "{\"kind\":\"norm\"}],\"head\":\"identity\"}";
    check_ok(read_text(bag, false, &d));
    moe_description_net(&d, &net);
    assert_true(net.n_layers == 3 && net.layers[1]->kind == VKMOE_NET_POOL &&
                net.layers[1]->pool == VKMOE_POOL_MEAN && net.layers[0]->n_rows == 3);
    assert_true(d.layers[0].bias && !d.layers[0].rms && d.text.max_tokens == 1024);
    assert_int_equal(moe_text_row(&d.text, MOE_TEXT_BYTE, "a", 1), 2);
    assert_int_equal(moe_text_row(&d.text, MOE_TEXT_BYTE, "b", 1), 1);
    assert_int_equal(moe_text_row(&d.text, MOE_TEXT_BYTE, "c", 1), 0);
    moe_description_finish(&d);
}

static void test_tensors(void **state)
{
    (void) state;
    static const struct {
        const char *name, *net_name;
        uint64_t dims[3];
    } wanted[] = {
        {"input.table", "layers.0.table", {7, 3}},
        {"layers.0.router.weight", "layers.1.router.weight", {6, 3}},
        {"layers.0.router.keys", "layers.1.router.keys", {4, 6}},
        {"layers.0.router.vector", "layers.1.router.vector", {6}},
        {"layers.0.router.selection_bias", "layers.1.router.selection_bias", {4}},
        {"layers.0.router.noise", "layers.1.router.noise", {4, 3}},
        {"layers.0.experts.up.weight", "layers.1.experts.up.weight", {4, 5, 3}},
        {"layers.0.experts.down.weight", "layers.1.experts.down.weight", {4, 3, 5}},
        {"layers.1.gain", "layers.2.gain", {3}},
        {"layers.1.bias", "layers.2.bias", {3}},
        {"layers.4.query.weight", "layers.5.query.weight", {2, 5, 3}},
        {"layers.4.query.bias", "layers.5.query.bias", {2, 5}},
        {"layers.4.experts.weight", "layers.5.experts.weight", {2, 8, 5}},
        {"layers.4.experts.bias", "layers.5.experts.bias", {2, 8}},
        {"layers.4.combine.weight", "layers.5.combine.weight", {2}},
        {"layers.4.combine.bias", "layers.5.combine.bias", {8}},
        {"layers.5.weight", "layers.6.weight", {2, 8}},
        {"layers.5.bias", "layers.6.bias", {2}},
    };
    struct moe_description d;
    struct moe_tensor_spec *specs;
    uint32_t n;
    check_ok(read_text(config, false, &d));
    check_ok(moe_description_tensors(&d, &specs, &n));
    assert_int_equal(n, MOE_COUNT(wanted));
    for (uint32_t i = 0; i < n; i++) {
        assert_string_equal(specs[i].name, wanted[i].name);
        assert_string_equal(specs[i].net_name, wanted[i].net_name);
        assert_memory_equal(specs[i].dims, wanted[i].dims, sizeof wanted[i].dims);
    }
    moe_free(moe_host_default(), specs);
    moe_description_finish(&d);
}

// ---- bad -------------------------------------------------------------------------------------

static void test_contradictions(void **state)
{
    (void) state;
    static const struct {
        const char *from, *to;
        const char *part; // of the message
    } cases[] = {
        {"\"d_out\":3,\"ngrams\"", "\"ngrams\"", "input.d_out: missing"},
        {"\"n_buckets\":7,", "", "input.n_buckets: missing"},
        {"\"n_buckets\":7", "\"n_buckets\":7,\"vocabulary\":[\"x\"]",
         "input.n_buckets: contradicts vocabulary"},
        {"\"n_buckets\":7", "\"vocabulary\":[\"x\",\"y\",\"x\"]", "vocabulary: 'x' is there twice"},
        {"\"n_buckets\":7", "\"vocabulary\":[\"x\",\"\"]", "vocabulary: [1] is not a text"},
        {"\"word\":[1]", "\"word\":[1,1]", "input.ngrams.word: [1]: different numbers"},
        {"\"word\":[1]", "\"word\":[9]", "input.ngrams.word: [0]: different numbers"},
        {"\"word\":[1]", "\"line\":[1]", "input.ngrams.line: unknown key"},
        {"{\"character\":[1,3],\"word\":[1]}", "{}", "input.ngrams: none"},
        {"\"lower\":true", "\"n_features\":2", "input.n_features: unknown key"},
        {"\"max_tokens\":9", "\"max_tokens\":0", "input.max_tokens: not a whole number"},
        {"\"embed\"", "\"embed_bag\"", "layers[3].kind: pool: embed_bag is one already"},
        {"{\"kind\":\"pool\",\"pool\":\"max\"},", "", "config: layers: input embed needs a pool"},
        {"{\"kind\":\"dropout\",\"rate\":0.25}", "{\"kind\":\"pool\",\"pool\":\"sum\"}",
         "layers[3].kind: pool: layers[2] is one already"},
        {"\"pool\":\"max\"", "\"pool\":\"median\"", "layers[3].pool: 'median'"},
        {"\"pool\":\"max\"", "\"pool\":\"max\",\"residual\":false", "layers[3].residual: unknown"},
        {"\"scorer\":\"additive\"", "\"scorer\":\"kernel\"",
         "router.d_score: needs scorer additive or multiplicative"},
        {"\"d_score\":6,", "", "router.d_score: missing"},
        {"\"d_score\":6", "\"d_score\":6,\"score_width\":2", "router.score_width: needs scorer"},
        {"\"d_score\":6,", "\"d_score\":6,\"bias\":true,",
         "router.bias: needs scorer linear or one"},
        {"\"scorer\":\"additive\",\"d_score\":6", "\"scorer\":\"kernel\",\"score_width\":0",
         "router.score_width: 0: above 0"},
        {"\"selection_bias\":true,", "", "router.bias_rate: needs selection_bias"},
        {"\"z_loss\":0.5", "\"z_loss\":-0.5", "router.z_loss: -0.5: at least 0"},
        {"\"dropout\":0.75", "\"dropout\":1", "expert.dropout: 1: from 0 up to"},
        {"\"rate\":0.25", "\"rate\":-1", "layers[2].rate: -1: from 0"},
        {",\"rate\":0.25", "", "layers[2].rate: missing"},
        {"\"eps\":0.5", "\"eps\":-1", "layers[1].eps: -1: at least 0"},
        {"\"combine\":\"stack\"", "\"combine\":\"stack\",\"top_k\":2",
         "layers[4].top_k: needs combine weighted_sum"},
        {"\"combine\":\"stack\"", "\"combine\":\"stack\",\"router\":{}",
         "layers[4].router: needs combine weighted_sum"},
        {"\"combine\":\"stack\"", "\"combine\":\"stack\",\"shared\":{\"d_ff\":1}",
         "layers[4].shared: needs combine weighted_sum"},
        {"\"combine\":\"stack\"", "\"top_k\":1,\"router\":{\"score\":\"softmax\",\"order\":"
         "\"score_then_topk\"}", "layers[4].queries: needs a combine without a router"},
        {"\"combine\":\"stack\"", "\"combine\":\"stack\",\"d_ff\":2",
         "layers[4].d_ff: needs expert kind mlp"},
        {"\"kind\":\"linear\",\"activation\":\"relu\"",
         "\"kind\":\"linear\",\"gated\":true,\"activation\":\"relu\"",
         "layers[4].expert.gated: needs kind mlp"},
        {"\"d_query\":5", "\"d_query\":0", "queries.d_query: not a whole number"},
        {"\"pairing\":\"all\"", "\"pairing\":\"some\"", "queries.pairing: 'some'"},
        {"\"d_in\":8,", "\"d_in\":9,", "layers[5].d_in: 9, but the layer before gives 8"},
        {"\"activation\":\"tanh\"", "\"activation\":\"tanh\",\"residual\":true",
         "layers[5].residual: needs a width out, 2, as in, 8"},
        {"\"activation\":\"tanh\"", "\"rate\":0", "layers[5].rate: unknown key"},
        {"\"head\"", "\"train\":{},\"head\"", "config: train: unknown key"},
        {"\"classify\",\"classes\":[\"a\",\"b\"]", "\"classify\"", "config: classes: missing"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        struct moe_description d;
        print_message("%s -> %s\n", cases[i].from, cases[i].to);
        check_fails(read_text(edited(config, cases[i].from, cases[i].to), false, &d), VKMOE_E_DATA,
                    cases[i].part);
        assert_null(d.config);
    }
}

// What a training may leave to its data, and say besides.
static void test_training(void **state)
{
    (void) state;
    struct moe_description d;
    const char *names[] = {"x", "y"}, *same[] = {"x", "x"}, *bad[] = {"x", "\xff"};
    const char *open = edited(config, "\"classes\":[\"a\",\"b\"],",
                              "\"train\":{\"rate\":1},\"data\":5,");
    check_ok(read_text(open, true, &d));
    assert_true(d.info.n_classes == 2 && !d.classes);
    assert_true(json_is_object(d.train) && json_integer_value(d.data) == 5);
    assert_null(json_object_get(d.config, "train"));
    check_fails(moe_model_save("none", &d, NULL, NULL, NULL), VKMOE_E_ARGUMENT, "no names");
    check_fails(moe_description_set_classes(&d, "D", names, 1), VKMOE_E_DATA,
                "D: config: classes: 1, but the last layer tells 2 apart");
    check_fails(moe_description_set_classes(&d, "D", same, 2), VKMOE_E_DATA, "[1] is there before");
    check_fails(moe_description_set_classes(&d, "D", bad, 2), VKMOE_E_DATA, "[1] is not UTF-8");
    assert_null(d.classes);
    check_ok(moe_description_set_classes(&d, "D", names, 2));
    assert_string_equal(d.classes[1], "y");
    moe_description_finish(&d);
    check_fails(read_text("{", true, &d), VKMOE_E_DATA, "c.json: config: ");
    check_fails(read_text("[]", true, &d), VKMOE_E_DATA, "not an object");
    moe_description_finish(&d);
}

// ---- files -----------------------------------------------------------------------------------

// Values that tell every tensor and element apart.
static enum vkmoe_status read_value(void *user, const char *net_name, float *data, uint64_t n)
{
    uint32_t sum = 0;
    for (const char *c = net_name; *c; c++)
        sum = sum * 31 + (unsigned char) *c;
    for (uint64_t i = 0; i < n; i++)
        data[i] = (float) (sum % 1000) + (float) i / 64;
    if (user && strcmp(net_name, user) == 0)
        data[n - 1] = NAN;
    return VKMOE_OK;
}

static void test_round_trip(void **state)
{
    (void) state;
    struct moe_description d;
    vkmoe_model *model;
    const char *path = scratch_path("m.safetensors");
    check_ok(read_text(config, false, &d));
    check_ok(moe_model_save(path, &d, NULL, read_value, NULL));
    check_ok(vkmoe_model_open(NULL, path, &model));
    const struct moe_description *opened = moe_model_description(model);
    assert_memory_equal(&opened->info, &d.info, sizeof d.info);
    json_object_del(opened->config, "format");
    assert_true(json_equal(opened->config, d.config));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const uint64_t n = model->specs[i].n_elements;
        float *want = moe_alloc(moe_host_default(), (size_t) n * sizeof *want);
        read_value(NULL, model->specs[i].net_name, want, n);
        assert_memory_equal(model->tensors[i].data, want, (size_t) n * sizeof *want);
        moe_free(moe_host_default(), want);
    }
    vkmoe_net_layer layer;
    vkmoe_layer_desc desc;
    check_ok(vkmoe_model_net_layer(model, 1, &layer));
    assert_int_equal(layer.kind, VKMOE_NET_NORM);
    check_fails(vkmoe_model_layer(model, 1, &desc), VKMOE_E_ARGUMENT, "layer 1 has no experts");
    check_fails(vkmoe_model_net_layer(model, 6, &layer), VKMOE_E_ARGUMENT, "layer 6 of a model");
    check_ok(vkmoe_model_layer(model, 4, &desc));
    assert_int_equal(vkmoe_model_layer_d_in(model, 4), 3);
    assert_int_equal(vkmoe_model_layer_d_in(model, 6), 0);
    assert_true(vkmoe_model_is_by_token(model, 0) && !vkmoe_model_is_by_token(model, 4));
    vkmoe_model_destroy(model);
    moe_description_finish(&d);
}

// A standardised input's numbers come from the caller, and are checked when the file is opened.
static void test_stats(void **state)
{
    (void) state;
    struct moe_description d;
    vkmoe_model *model;
    const float mean[] = {1, 2, 3}, std[] = {1, 0.5f, 0};
    const char *path = scratch_path("m.safetensors");
    check_ok(read_text(full_config, false, &d));
    check_fails(moe_model_save(path, &d, NULL, read_value, NULL), VKMOE_E_ARGUMENT, "statistics");
    check_ok(moe_model_save(path, &d, &(struct moe_input_stats){mean, std}, read_value, NULL));
    check_fails(vkmoe_model_open(NULL, path, &model), VKMOE_E_DATA, "feature 2: 3 and 0");
    check_ok(moe_model_save(path, &d, &(struct moe_input_stats){mean, mean}, read_value, NULL));
    check_ok(vkmoe_model_open(NULL, path, &model));
    assert_memory_equal(model->stats.first, mean, sizeof mean);
    float x[] = {2, 3, 4};
    moe_input_scale(VKMOE_INPUT_STANDARDIZE, &model->stats, 3, 1, x, x);
    assert_true(x[0] == 1 && x[1] == 0.5f && x[2] == 1.0f / 3);
    vkmoe_model_destroy(model);
    moe_description_finish(&d);
}

static char warnings[512];

static void keep_warning(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user;
    if (level == VKMOE_LOG_WARN)
        snprintf(warnings, sizeof warnings, "%s", text);
}

// A tensor that is missing, has another shape, or NaN in it.
static void test_bad_tensors(void **state)
{
    (void) state;
    struct moe_description d, other;
    vkmoe_model *model;
    vkmoe_host host = vkmoe_host_init();
    host.log = keep_warning;
    char path[512], text[4096];
    snprintf(path, sizeof path, "%s", scratch_path("m.safetensors"));
    snprintf(text, sizeof text, "%s", config);
    check_ok(read_text(text, false, &d));
    check_ok(moe_model_save(path, &d, NULL, read_value, (void *) "layers.6.weight"));
    check_ok(vkmoe_model_open(&host, path, &model));
    assert_non_null(strstr(warnings, "'layers.5.weight': 1 of 16 values are NaN"));
    vkmoe_model_destroy(model);

    static const struct {
        const char *from, *to, *part;
    } cases[] = {
        {"\"noisy\":true,", "", "tensor 'layers.0.router.noise' is missing"},
        {"\"n_buckets\":7", "\"n_buckets\":8",
         "tensor 'input.table': F32 (8, 3), the configuration makes it F32 (7, 3)"},
        {"\"activation\":\"tanh\"}", "\"activation\":\"tanh\",\"bias\":false}",
         "tensor 'layers.5.bias' is missing"},
        {"\"d_query\":5", "\"d_query\":4", "'layers.4.query.weight': F32 (2, 4, 3)"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        // A file with the tensors of `other` that says it is `d`.
        check_ok(read_text(edited(config, cases[i].from, cases[i].to), false, &other));
        json_t *own = other.config;
        other.config = d.config;
        check_ok(moe_model_save(path, &other, NULL, read_value, NULL));
        other.config = own;
        check_fails(vkmoe_model_open(NULL, path, &model), VKMOE_E_DATA, cases[i].part);
        moe_description_finish(&other);
    }
    // One that has no place.
    check_ok(read_text(edited(config, "\"noisy\":true,", ""), false, &other));
    json_t *own = d.config;
    d.config = other.config;
    check_ok(moe_model_save(path, &d, NULL, read_value, NULL));
    d.config = own;
    check_fails(vkmoe_model_open(NULL, path, &model), VKMOE_E_DATA,
                "'layers.0.router.noise' has no place in this model");
    moe_description_finish(&other);
    moe_description_finish(&d);
}

// Every allocation of reading, saving and opening fails once.
static void test_memory(void **state)
{
    (void) state;
    for (long i = 0;; i++) {
        struct budget budget = {.fail_at = i, .once = true};
        struct moe_description d;
        vkmoe_host host = vkmoe_host_init();
        vkmoe_model *model = NULL;
        budget_host(&host, &budget);
        enum vkmoe_status status =
            moe_description_parse(&host, "c", config, strlen(config), false, &d);
        const char *path = scratch_path("m.safetensors");
        if (status == VKMOE_OK)
            status = moe_model_save(path, &d, NULL, read_value, NULL);
        if (status == VKMOE_OK)
            status = vkmoe_model_open(&host, path, &model);
        assert_int_equal(status, budget_failed(&budget) ? VKMOE_E_MEMORY : VKMOE_OK);
        vkmoe_model_destroy(model);
        moe_description_finish(&d);
        assert_int_equal(budget.live, 0);
        if (!budget_failed(&budget)) {
            assert_true(i > 20);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_stats),
        cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
