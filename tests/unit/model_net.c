// SPDX-License-Identifier: MIT
// Sessions of models that plans do not compute. Argument: the device.
#include "check.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/model.h"

#include <stdio.h>

static const char *device;

enum { N = 3, TABLE = 7, IN = 3, OUT = 2, E0 = 4, E3 = 2, MID = 8, MAX_TOKENS = 9 };

static const char config[] =
    "{\"task\":\"classify\",\"classes\":[\"a\",\"b\"],\"input\":{\"kind\":\"embed\",\"d_out\":3,"
    "\"ngrams\":{\"character\":[1]},\"n_buckets\":7,\"max_tokens\":9},\"layers\":["
    "{\"kind\":\"moe\",\"n_experts\":4,\"top_k\":2,\"d_ff\":5,\"residual\":true,"
    "\"router\":{\"score\":\"sigmoid\",\"order\":\"score_then_topk\",\"scorer\":\"kernel\","
    "\"noisy\":true},\"expert\":{\"activation\":\"silu\",\"dropout\":0.5}},"
    "{\"kind\":\"norm\"},{\"kind\":\"pool\",\"pool\":\"mean\"},"
    "{\"kind\":\"moe\",\"n_experts\":2,\"d_out\":8,\"combine\":\"stack\","
    "\"expert\":{\"kind\":\"linear\",\"activation\":\"tanh\"}},"
    "{\"kind\":\"linear\",\"d_out\":2}],\"head\":\"softmax\"}";

static const char *const texts[N] = {"ab cd", "", "abcdefghijklmnop"}; // 7, 1 and 9 tokens

static enum vkmoe_status read_value(void *user, const char *net_name, float *data, uint64_t n)
{
    (void) user;
    uint32_t sum = 0;
    for (const char *c = net_name; *c; c++)
        sum = sum * 31 + (unsigned char) *c;
    for (uint64_t i = 0; i < n; i++)
        data[i] = (float) ((sum + i * 37) % 61) / 30 - 1;
    return VKMOE_OK;
}

struct objects {
    vkmoe_context *context;
    vkmoe_model *model;
};

static struct objects create(void)
{
    struct objects o;
    struct moe_description d;
    vkmoe_context_desc context = vkmoe_context_desc_init();
    context.device = device;
    context.n_threads = 2;
    check_ok(vkmoe_context_create(&context, &o.context));
    check_ok(moe_description_parse(NULL, "c", config, strlen(config), false, &d));
    const char *path = scratch_path("m.safetensors");
    check_ok(moe_model_save(path, &d, NULL, read_value, NULL));
    check_ok(vkmoe_model_open(NULL, path, &o.model));
    moe_description_finish(&d);
    return o;
}

static void destroy(struct objects *o)
{
    vkmoe_model_destroy(o->model);
    vkmoe_context_destroy(o->context);
}

// One layer alone, over n rows.
static void run_layer(const struct objects *o, uint32_t layer, uint32_t n, const int32_t *offsets,
                      const float *x, float *y, int32_t *ids)
{
    vkmoe_session *session;
    vkmoe_session_desc desc = vkmoe_session_desc_init();
    vkmoe_session_io io = vkmoe_session_io_init();
    desc.one_layer = true;
    desc.layer = layer;
    desc.max_rows = 20;
    check_ok(vkmoe_session_create(o->context, o->model, &desc, &session));
    io.x = x;
    io.y = y;
    io.offsets = offsets;
    io.layer = layer;
    io.ids = ids;
    check_ok(vkmoe_session_run(session, n, &io));
    vkmoe_session_destroy(session);
}

// The whole model is its layers one after the other; examples in groups have the same bits as in
// one.
static void test_whole(void **state)
{
    (void) state;
    struct objects o = create();
    int32_t offsets[N + 1], tokens[32], ids[32 * 2], own_ids[32 * 2], stack_ids[N * E3];
    float x[32 * IN], h[32 * IN], pooled[N * IN], mid[N * MID], want[N * OUT];
    check_ok(vkmoe_model_tokens(o.model, N, texts, offsets, tokens));
    assert_true(offsets[1] == 7 && offsets[2] == 8 && offsets[3] == 17);
    const uint32_t n = (uint32_t) offsets[N];
    const float *table = o.model->tensors[0].data;
    for (uint32_t i = 0; i < n * IN; i++)
        x[i] = table[tokens[i / IN] * IN + (int32_t) (i % IN)];
    run_layer(&o, 0, n, NULL, x, h, own_ids);
    for (uint32_t i = 0; i < n * IN; i++)
        x[i] += h[i];
    run_layer(&o, 1, n, NULL, x, h, NULL);
    run_layer(&o, 2, N, offsets, h, pooled, NULL);
    run_layer(&o, 3, N, NULL, pooled, mid, NULL);
    run_layer(&o, 4, N, NULL, mid, want, NULL);

    const uint32_t max_tokens[] = {0, MAX_TOKENS, 11};
    for (size_t i = 0; i < MOE_COUNT(max_tokens); i++) {
        vkmoe_session *session;
        vkmoe_session_desc desc = vkmoe_session_desc_init();
        vkmoe_session_io io = vkmoe_session_io_init();
        float y[N * OUT], scores[N * OUT], gates[32 * 2];
        desc.max_tokens = max_tokens[i];
        desc.max_rows = N;
        check_ok(vkmoe_session_create(o.context, o.model, &desc, &session));
        io.y = y, io.scores = scores, io.ids = ids, io.gates = gates;
        io.token_ids = tokens, io.offsets = offsets;
        check_ok(vkmoe_session_run(session, N, &io));
        // Between layers alone numbers are rounded to f32, also where the device is more exact.
        for (int k = 0; k < N * OUT; k++)
            check_near((double) y[k], (double) want[k], i ? 0 : 1e-6);
        memcpy(want, y, sizeof y);
        assert_memory_equal(ids, own_ids, n * 2 * sizeof *ids);
        check_near((double) (scores[0] + scores[1]), 1, 1e-6);
        memset(y, 0, sizeof y);
        io.token_ids = NULL, io.offsets = NULL, io.texts = texts;
        io.layer = 3, io.ids = stack_ids;
        check_ok(vkmoe_session_run(session, N, &io));
        assert_memory_equal(y, want, sizeof want);
        // v of the stack layer, for each example.
        float v[E3];
        read_value(NULL, "layers.4.combine.weight", v, E3);
        for (int k = 0; k < N * E3; k++)
            assert_true(stack_ids[k] == k % E3 && gates[k] == v[k % E3]);
        vkmoe_session_destroy(session);
    }
    // Control: other tokens, other outputs.
    tokens[0] = (tokens[0] + 1) % TABLE;
    vkmoe_session *session;
    vkmoe_session_io io = vkmoe_session_io_init();
    float y[N * OUT];
    check_ok(vkmoe_session_create(o.context, o.model, NULL, &session));
    io.y = y, io.token_ids = tokens, io.offsets = offsets;
    check_ok(vkmoe_session_run(session, N, &io));
    assert_memory_not_equal(y, want, OUT * sizeof *y);
    assert_memory_equal(y + OUT, want + OUT, 2 * OUT * sizeof *y);
    vkmoe_session_destroy(session);
    destroy(&o);
}

static void test_wrong(void **state)
{
    (void) state;
    struct objects o = create();
    vkmoe_session *session, *layer;
    vkmoe_session_desc desc = vkmoe_session_desc_init();
    vkmoe_session_io io = vkmoe_session_io_init();
    const float x[IN] = {0};
    const char *const none[] = {NULL};
    int32_t tokens[32] = {0}, ids[64];
    const int32_t late[] = {1, 2}, empty[] = {0, 1, 1}, many[] = {0, 10};
    desc.precision = VKMOE_PRECISION_HALF;
    check_fails(vkmoe_session_create(o.context, o.model, &desc, &session), VKMOE_E_UNSUPPORTED,
                "computed in f32 only");
    desc.precision = VKMOE_PRECISION_EXACT;
    desc.variant = "a0";
    check_fails(vkmoe_session_create(o.context, o.model, &desc, &session), VKMOE_E_UNSUPPORTED,
                "vkmoe_session_desc.variant = \"a0\": no layer of this model");
    desc.variant = NULL;
    desc.max_tokens = MAX_TOKENS;
    check_ok(vkmoe_session_create(o.context, o.model, &desc, &session));
    check_fails(vkmoe_session_run(session, 1, &io), VKMOE_E_ARGUMENT, "texts, and token_ids, is");
    io.token_ids = tokens;
    check_fails(vkmoe_session_run(session, 1, &io), VKMOE_E_ARGUMENT, "offsets is NULL");
    io.offsets = late;
    check_fails(vkmoe_session_run(session, 1, &io), VKMOE_E_ARGUMENT, "offsets[0] = 1");
    io.offsets = empty;
    check_fails(vkmoe_session_run(session, 2, &io), VKMOE_E_ARGUMENT,
                "example 1 begins at 1 and ends at 1");
    io.offsets = many;
    check_fails(vkmoe_session_run(session, 1, &io), VKMOE_E_SHAPE, "example 0 has 10 tokens");
    io.x = x;
    check_fails(vkmoe_session_run(session, 1, &io), VKMOE_E_ARGUMENT, "io.x: this model's input");
    io.x = NULL;
    io.offsets = empty;
    io.layer = 1;
    io.ids = ids;
    check_fails(vkmoe_session_run(session, 1, &io), VKMOE_E_ARGUMENT, "layer = 1 has no experts");
    io.ids = NULL;
    tokens[0] = TABLE;
    check_fails(vkmoe_session_run(session, 1, &io), VKMOE_E_ARGUMENT, "token_ids[0] = 7");
    io = vkmoe_session_io_init();
    io.texts = none;
    check_fails(vkmoe_session_run(session, 1, &io), VKMOE_E_ARGUMENT, "text 0 is NULL");

    desc.one_layer = true;
    desc.layer = 4;
    check_ok(vkmoe_session_create(o.context, o.model, &desc, &layer));
    io.texts = texts;
    check_fails(vkmoe_session_run(layer, 1, &io), VKMOE_E_ARGUMENT, "input is features");
    io = vkmoe_session_io_init();
    io.x = x;
    io.offsets = empty;
    check_fails(vkmoe_session_run(layer, 1, &io), VKMOE_E_ARGUMENT, "no sequences");
    vkmoe_session_destroy(layer);
    vkmoe_session_destroy(session);
    destroy(&o);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_wrong),
    };
    device = argc > 1 ? argv[1] : "cpu";
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
