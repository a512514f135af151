// SPDX-License-Identifier: MIT
// Every rule that `vkmoe bench` measures, in small: routed as wanted, y as the reference has it.
#include "check.h"

#include "bench/check.h"
#include "bench/presets.h"
#include "bench/routing.h"

#include <stdlib.h>

struct devices {
    vkmoe_context *cpu, *reference;
};

static vkmoe_context *open_device(const char *name)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    desc.device = name;
    desc.n_threads = 1;
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

static int setup(void **state)
{
    static struct devices devices;
    devices = (struct devices){open_device("cpu"), open_device("reference")};
    *state = &devices;
    return 0;
}

static int teardown(void **state)
{
    struct devices *devices = *state;
    vkmoe_context_destroy(devices->cpu);
    vkmoe_context_destroy(devices->reference);
    return 0;
}

static struct bench_case make_case(const vkmoe_layer_desc *layer, uint32_t n_tokens)
{
    struct bench_case what = {.layer = *layer};
    char refusal[192];
    what.layer.d_out = layer->d_model;
    what.key.n_experts = layer->n_experts;
    what.key.top_k = layer->top_k;
    what.key.n_tokens = n_tokens;
    what.key.seed = 3;
    strcpy(what.key.routing, "uniform");
    bench_layer_refusal(&what.layer, refusal, sizeof refusal);
    assert_string_equal(refusal, "");
    check_ok(vkmoe_layer_check(&what.layer));
    return what;
}

static enum vkmoe_status make_work(const struct devices *devices, const struct bench_case *what,
                                   struct bench_work *work)
{
    vkmoe_device_info info;
    double first_call_ms;
    check_ok(vkmoe_context_info(devices->cpu, &info));
    return bench_work_create(what, devices->cpu, &info, work, &first_call_ms);
}

// Runs all copies; then some of the rows are changed by `spoil`, or none.
static void run_case(const struct devices *devices, const char *name, const struct bench_case *what,
                     void (*spoil)(struct bench_work *work), enum bench_status want)
{
    struct bench_work work;
    struct bench_row row = {.key = what->key};
    check_ok(make_work(devices, what, &work));
    for (uint32_t i = 0; i < work.n_copies; i++)
        check_ok(vkmoe_run(work.binds[i], what->key.n_tokens, &work.ios[i]));
    if (spoil)
        spoil(&work);
    bench_check(&work, devices->reference, &row);
    if (row.status != want)
        fail_msg("%s: %s: %s", name, bench_status_name(row.status), row.reason);
    bench_work_destroy(&work);
}

// ---- presets -----------------------------------------------------------------------------------

// As few experts and columns as the rule allows.
static void shrink(vkmoe_layer_desc *layer)
{
    layer->n_experts = layer->n_experts < 32 ? layer->n_experts : 32;
    layer->d_model = 64;
    layer->d_ff = 24;
    layer->d_shared_ff = layer->d_shared_ff ? 40 : 0;
}

static void presets(void **state)
{
    const char *name;
    for (uint32_t i = 0; (name = bench_preset_name(i)); i++) {
        vkmoe_layer_desc layer;
        assert_true(bench_preset(name, &layer));
        shrink(&layer);
        const struct bench_case what = make_case(&layer, 3);
        run_case(*state, name, &what, NULL, BENCH_OK);
    }
}

// ---- types -------------------------------------------------------------------------------------

// Each alone and after another, the shared expert of a third; rows of fp8 end in a part of a block.
static void types(void **state)
{
    for (int type = VKMOE_F32; type <= VKMOE_FP8; type++) {
        vkmoe_layer_desc layer = bench_plain_layer(4, 2, 256, 256, 512);
        layer.in_type = (enum vkmoe_dtype) type;
        layer.out_type = type % 2 ? VKMOE_Q6_K : layer.in_type;
        layer.own_shared_types = type % 3 == 0;
        layer.shared_in_type = VKMOE_Q8_0;
        layer.shared_out_type = VKMOE_Q4_K;
        const struct bench_case what = make_case(&layer, 2);
        run_case(*state, vkmoe_dtype_name(layer.in_type), &what, NULL, BENCH_OK);
    }
    vkmoe_layer_desc layer = bench_plain_layer(4, 2, 160, 200, 0);
    layer.in_type = layer.out_type = VKMOE_FP8;
    const struct bench_case what = make_case(&layer, 2);
    run_case(*state, "fp8", &what, NULL, BENCH_OK);
}

// ---- what no preset has ------------------------------------------------------------------------

static vkmoe_layer_desc small_layer(void)
{
    return bench_plain_layer(12, 3, 40, 24, 16);
}

static void router_inputs(void **state)
{
    vkmoe_layer_desc layer = small_layer();
    layer.router_input = layer.router_prenorm = layer.expert_scale = true;
    layer.prenorm_const = 0.158f;
    layer.prenorm_eps = 1e-6f;
    struct bench_case what = make_case(&layer, 5);
    run_case(*state, "router_input", &what, NULL, BENCH_OK);
    what.x_type = VKMOE_BF16;
    run_case(*state, "router_input of bf16", &what, NULL, BENCH_OK);
}

// Fewer ids than rows: rows of the same id go to the same experts.
static void tables(void **state)
{
    vkmoe_layer_desc layer = small_layer();
    layer.select = VKMOE_SELECT_TABLE;
    for (layer.n_token_ids = 7; layer.n_token_ids < 5000; layer.n_token_ids *= 100) {
        const struct bench_case what = make_case(&layer, 5);
        run_case(*state, "table", &what, NULL, BENCH_OK);
    }
}

static void others(void **state)
{
    vkmoe_layer_desc layer = small_layer();
    layer.shared_gate = VKMOE_SHARED_SOFTMAX2;
    layer.shared_gate_bias = layer.out_bias = true;
    layer.logit_softcap = 30;
    layer.score = VKMOE_SCORE_SQRT_SOFTPLUS;
    struct bench_case what = make_case(&layer, 5);
    run_case(*state, "softmax2", &what, NULL, BENCH_OK);
    layer = small_layer();
    layer.n_zero = 5;
    layer.selection_bias = true;
    what = make_case(&layer, 5);
    run_case(*state, "n_zero", &what, NULL, BENCH_OK);
}

// ---- capacity ----------------------------------------------------------------------------------

// What fits is measured, one slot more is not.
static void capacity(void **state)
{
    struct bench_work work;
    vkmoe_layer_desc layer = small_layer();
    layer.capacity_mode = VKMOE_CAPACITY_BY_GATE;
    layer.capacity = 9;
    struct bench_case what = make_case(&layer, 9);
    strcpy(what.key.routing, "single");
    run_case(*state, "capacity", &what, NULL, BENCH_OK);
    what.key.n_tokens = 10;
    check_fails(make_work(*state, &what, &work), VKMOE_E_UNSUPPORTED,
                "has more slots of 10 tokens than its capacity of 9");
    bench_work_destroy(&work);
    what.layer.capacity_rows = 5; // of five tokens in a row
    run_case(*state, "capacity_rows", &what, NULL, BENCH_OK);
    what.layer.capacity = 0;
    what.layer.capacity_factor = 1.5f; // ceil(1.5 * 3 * 5 / 12) = 2
    check_fails(make_work(*state, &what, &work), VKMOE_E_UNSUPPORTED,
                "has more slots of 5 tokens than its capacity of 2");
    bench_work_destroy(&work);
}

// ---- the check sees them -----------------------------------------------------------------------

static void spoil_router_x(struct bench_work *work)
{
    float *x = work->material->router_x;
    for (uint32_t i = 0; i < 40; i++)
        x[i] = -x[i];
}

static void spoil_scale(struct bench_work *work)
{
    float *scale = (float *) work->material->router.expert_scale;
    for (uint32_t e = 0; e < work->what->layer.n_experts; e++)
        scale[e] *= 2;
}

static void spoil_ids(struct bench_work *work)
{
    work->material->ids[0] = -1;
}

static void wrong(void **state)
{
    vkmoe_layer_desc layer = small_layer();
    layer.router_input = layer.expert_scale = true;
    const struct bench_case what = make_case(&layer, 5);
    run_case(*state, "router_x", &what, spoil_router_x, BENCH_ERROR);
    run_case(*state, "expert_scale", &what, spoil_scale, BENCH_ERROR);
    run_case(*state, "ids", &what, spoil_ids, BENCH_ERROR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets), cmocka_unit_test(types),  cmocka_unit_test(router_inputs),
        cmocka_unit_test(tables),  cmocka_unit_test(others), cmocka_unit_test(capacity),
        cmocka_unit_test(wrong),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
