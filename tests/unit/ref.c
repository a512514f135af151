// SPDX-License-Identifier: MIT
// The oracle: activations against known values, a layer worked out by hand, and whole layers
// against a second program in another style, which visits all experts and counts who beats whom.
#include "check.h"
#include "fixture.h"

#include "core/ref.h"

#include <stdlib.h>

static void test_activations(void **state)
{
    (void) state;
    static const struct {
        enum vkmoe_act act;
        double at_1, at_minus_2;
    } cases[] = {
        {VKMOE_ACT_NONE, 1, -2},
        {VKMOE_ACT_SILU, 0.7310585786300049, -0.2384058440442351},
        {VKMOE_ACT_GELU_ERF, 0.8413447460685429, -0.04550026389635842},
        {VKMOE_ACT_GELU_TANH, 0.8411919906082768, -0.045402305912224981},
        {VKMOE_ACT_RELU, 1, 0},
        {VKMOE_ACT_RELU2, 1, 0},
        {VKMOE_ACT_SIGMOID, 0.7310585786300049, 0.11920292202211755},
        {VKMOE_ACT_TANH, 0.7615941559557649, -0.9640275800758169},
    };
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_near(moe_ref_act(&layer, cases[i].act, 1), cases[i].at_1, 1e-15);
        check_near(moe_ref_act(&layer, cases[i].act, -2), cases[i].at_minus_2, 1e-15);
        assert_true(isnan(moe_ref_act(&layer, cases[i].act, NAN)));
    }
    check_near(moe_ref_act(&layer, VKMOE_ACT_RELU2, 3), 9, 0);
    layer.act_alpha = 1.5f;
    check_near(moe_ref_act(&layer, VKMOE_ACT_SILU, 1), 0.8175744761936437, 1e-15);
}

// ---- the second program -----------------------------------------------------------------------

static double sigmoid(double v)
{
    return v >= 0 ? 1 / (1 + exp(-v)) : 1 - 1 / (1 + exp(v));
}

static double activate(const vkmoe_layer_desc *layer, enum vkmoe_act act, double v)
{
    double alpha = (double) layer->act_alpha, pi = acos(-1);
    if (act == VKMOE_ACT_SILU)
        return v / (1 + exp(-alpha * v));
    if (act == VKMOE_ACT_GELU_ERF)
        return v * erfc(-v / sqrt(2)) / 2;
    if (act == VKMOE_ACT_GELU_TANH)
        return v * sigmoid(2 * sqrt(2 / pi) * (v + 0.044715 * pow(v, 3)));
    if (act == VKMOE_ACT_RELU || act == VKMOE_ACT_RELU2)
        return pow(fmax(v, 0), act == VKMOE_ACT_RELU ? 1 : 2);
    if (act == VKMOE_ACT_SIGMOID)
        return sigmoid(v);
    return act == VKMOE_ACT_TANH ? 2 * sigmoid(2 * v) - 1 : v;
}

static double dot(const float *w, const float *x, uint32_t n, const float *bias, uint32_t row)
{
    double sum = 0;
    for (uint32_t i = n; i-- > 0;)
        sum += (double) w[(size_t) row * n + i] * (double) x[i];
    return sum + (bias ? (double) bias[row] : 0);
}

// Adds factor * expert(x) to y, hidden unit by hidden unit.
static void add_expert(const vkmoe_layer_desc *layer, const vkmoe_expert_tensors *expert,
                       uint32_t d_ff, const float *x, double factor, double *y)
{
    double out[16];
    for (uint32_t o = 0; o < layer->d_out; o++)
        out[o] = expert->down_bias ? (double) expert->down_bias[o] : 0;
    for (uint32_t j = 0; j < d_ff; j++) {
        double h = dot(expert->up.data, x, layer->d_model, expert->up_bias, j);
        if (layer->gated)
            h *= activate(layer, layer->act,
                          dot(expert->gate.data, x, layer->d_model, expert->gate_bias, j));
        else
            h = activate(layer, layer->act, h);
        for (uint32_t o = 0; o < layer->d_out; o++)
            out[o] += h * (double) ((const float *) expert->down.data)[(size_t) o * d_ff + j];
    }
    for (uint32_t o = 0; o < layer->d_out; o++)
        y[o] += factor * activate(layer, layer->act_out, out[o]);
}

// Gate weights of all experts, 0 for those not selected; rank[e] = number of experts before e.
static void gate_all(const struct layer_data *data, const float *x, double *gate, uint32_t *rank)
{
    const vkmoe_layer_desc *layer = &data->layer;
    uint32_t n = layer->n_experts;
    double logit[64], by[64], exp_all = 0, exp_selected = 0, sum = 0;
    for (uint32_t e = 0; e < n; e++) {
        logit[e] = dot(data->router.weight.data, x, layer->d_model, data->router.bias, e);
        exp_all += exp(logit[e]);
    }
    for (uint32_t e = 0; e < n; e++) {
        gate[e] = layer->score == VKMOE_SCORE_SOFTMAX ? exp(logit[e]) / exp_all : sigmoid(logit[e]);
        by[e] = (layer->rank == VKMOE_RANK_LOGIT ? logit[e] : gate[e]) +
                (data->router.selection_bias ? (double) data->router.selection_bias[e] : 0);
    }
    for (uint32_t e = 0; e < n; e++) {
        rank[e] = 0;
        for (uint32_t other = 0; other < n; other++)
            rank[e] += by[other] > by[e] || (by[other] == by[e] && other < e);
        if (rank[e] < layer->top_k)
            exp_selected += exp(logit[e]);
    }
    for (uint32_t e = 0; e < n; e++) {
        if (layer->gate_source == VKMOE_GATE_SOFTMAX_SELECTED)
            gate[e] = exp(logit[e]) / exp_selected;
        if (rank[e] >= layer->top_k)
            gate[e] = 0;
        sum += gate[e];
    }
    if (layer->norm == VKMOE_NORM_NONE)
        sum = 1;
    else if (layer->norm == VKMOE_NORM_SUM_PLUS_EPS)
        sum += (double) layer->norm_eps;
    else
        sum = fmax(sum, (double) layer->norm_eps);
    for (uint32_t e = 0; e < n; e++)
        gate[e] *= (double) layer->routed_scale / sum;
}

static void second_program(const struct layer_data *data, const float *x, double *y, double *gate,
                           uint32_t *rank)
{
    const vkmoe_layer_desc *layer = &data->layer;
    double shared = (double) layer->c_shared;
    memset(y, 0, 16 * sizeof *y);
    gate_all(data, x, gate, rank);
    for (uint32_t e = 0; e < layer->n_experts; e++) {
        if (rank[e] < layer->top_k)
            add_expert(layer, &data->experts[e], layer->d_ff, x, gate[e] * (double) layer->c_routed,
                       y);
    }
    if (data->router.shared_gate)
        shared *= sigmoid(dot(data->router.shared_gate, x, layer->d_model, NULL, 0));
    if (layer->d_shared_ff > 0)
        add_expert(layer, &data->shared, layer->d_shared_ff, x, shared, y);
    for (uint32_t o = 0; o < layer->d_out; o++)
        y[o] *= (double) layer->out_scale;
}

// ---- comparisons ------------------------------------------------------------------------------

enum { N_TOKENS = 9 };

// What the reference device and the second program say of N_TOKENS rows: the largest difference of
// y and the gates, and whether all ids agree.
struct difference {
    double y, gates;
    bool same_ids;
};

static struct difference compare(const struct layer_data *on_device, const struct layer_data *data)
{
    const vkmoe_layer_desc *layer = &data->layer;
    struct difference most = {0, 0, true};
    float x[N_TOKENS * 16], y[N_TOKENS * 16], gates[N_TOKENS * 64];
    int32_t ids[N_TOKENS * 64];
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "reference";
    struct stack stack;
    vkmoe_io io = vkmoe_io_init();
    io.x = x, io.y = y, io.ids = ids, io.gates = gates;
    fill_random(x, N_TOKENS * layer->d_model, 99);
    check_ok(stack_create(&stack, &desc, on_device, N_TOKENS, false));
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    for (uint32_t t = 0; t < N_TOKENS; t++) {
        double want[16], gate[64];
        uint32_t rank[64];
        second_program(data, x + t * layer->d_model, want, gate, rank);
        for (uint32_t o = 0; o < layer->d_out; o++)
            most.y = fmax(most.y, fabs((double) y[t * layer->d_out + o] - want[o]));
        for (uint32_t k = 0; k < layer->top_k; k++) {
            uint32_t slot = t * layer->top_k + k;
            most.same_ids = most.same_ids && rank[ids[slot]] == k;
            most.gates = fmax(most.gates, fabs((double) gates[slot] - gate[ids[slot]]));
        }
    }
    stack_destroy(&stack);
    return most;
}

// A case for each row, field by field; what is not named is as in full_layer.
static vkmoe_layer_desc vary(int i)
{
    vkmoe_layer_desc layer = full_layer();
    layer.act = (enum vkmoe_act) (i % 8);
    layer.act_out = (enum vkmoe_act) (i / 3 % 8);
    layer.act_alpha = i % 4 == 1 ? 1.702f : 1;
    layer.score = (enum vkmoe_score) (i % 2);
    layer.rank = (enum vkmoe_rank) (i / 2 % 2);
    layer.gate_source = (enum vkmoe_gate_source) (i / 4 % 2);
    layer.norm = (enum vkmoe_norm) (i % 3);
    layer.norm_eps = i % 5 == 0 ? 0.75f : 1e-6f;
    layer.routed_scale = i % 3 == 0 ? 2.5f : 1;
    layer.top_k = 1 + (uint32_t) i % 5;
    layer.router_bias = i % 2 == 0;
    layer.selection_bias = i % 3 == 0;
    layer.gated = i % 7 < 4;
    layer.gate_bias = layer.gated && i % 2 == 0;
    layer.up_bias = i % 3 != 0;
    layer.down_bias = i % 4 != 0;
    layer.d_shared_ff = i % 3 == 2 ? 0 : 5;
    layer.shared_gate = i % 3 == 1 ? VKMOE_SHARED_SIGMOID : VKMOE_SHARED_PLAIN;
    layer.c_routed = i % 5 == 1 ? 0.5f : 1;
    layer.c_shared = i % 5 == 2 ? -2.0f : 1;
    layer.out_scale = i % 5 == 3 ? 3.0f : 1;
    return layer;
}

static void test_second_program(void **state)
{
    (void) state;
    for (int i = 0; i < 120; i++) {
        vkmoe_layer_desc layer = vary(i);
        struct layer_data data;
        layer_data_init(&data, &layer, (uint32_t) i);
        struct difference most = compare(&data, &data);
        // The device rounds to f32 once; values stay below 2^9.
        if (!most.same_ids || !(most.y <= 0x1p-15) || !(most.gates <= 0x1p-20))
            fail_msg("case %d: y differs by %g, gates by %g, ids %s", i, most.y, most.gates,
                     most.same_ids ? "agree" : "differ");
        layer_data_finish(&data);
    }
}

// The same comparison notices one changed weight of any tensor.
static void test_second_program_can_fail(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    layer.top_k = layer.n_experts; // every expert matters
    struct layer_data data, changed;
    layer_data_init(&data, &layer, 7);
    layer_data_init(&changed, &layer, 7);
    const float *const places[] = {
        changed.router.weight.data, changed.router.bias, changed.router.shared_gate,
        changed.experts[4].gate.data, changed.experts[4].up.data, changed.experts[4].down.data,
        changed.experts[0].gate_bias, changed.experts[0].up_bias, changed.experts[0].down_bias,
        changed.shared.gate.data, changed.shared.up.data, changed.shared.down.data,
        changed.shared.gate_bias, changed.shared.up_bias, changed.shared.down_bias,
    };
    struct difference most = compare(&changed, &data);
    assert_true(most.y <= 0x1p-15);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        float *place = changed.memory + (places[i] - changed.memory);
        float before = *place;
        *place = before + 0.5f;
        most = compare(&changed, &data);
        if (!(most.y > 0x1p-15))
            fail_msg("tensor %zu has no effect", i);
        *place = before;
    }
    layer_data_finish(&data);
    layer_data_finish(&changed);
}

// ---- by hand, and special tokens --------------------------------------------------------------

// Two experts on one number: expert 0 doubles it, expert 1 triples it; the router's logits are
// (0, ln 3) for any x, so the gate weights are 1/4 and 3/4; the shared expert subtracts x.
static void test_by_hand(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = layer.top_k = 2;
    layer.d_model = layer.d_ff = layer.d_shared_ff = 1;
    layer.router_bias = true;
    const float zero[2] = {0, 0}, bias[2] = {0, 1.0986123f}, up = 1, down[3] = {2, 3, -1};
    vkmoe_router_tensors router = {.weight = {.data = zero, .type = VKMOE_F32}, .bias = bias};
    vkmoe_expert_tensors experts[3] = {0};
    for (int e = 0; e < 3; e++) {
        experts[e].up = (vkmoe_tensor){.data = &up, .type = VKMOE_F32};
        experts[e].down = (vkmoe_tensor){.data = &down[e], .type = VKMOE_F32};
    }
    struct layer_data data = {.layer = layer};
    data.desc = vkmoe_weights_desc_init();
    data.desc.layer = &layer;
    data.desc.router = &router;
    data.desc.experts = experts;
    data.desc.shared = &experts[2];

    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "reference";
    struct stack stack;
    check_ok(stack_create(&stack, &desc, &data, 3, true));
    // Rows two floats apart in x and three in y; what lies between is left alone.
    const float x[6] = {1, 99, -4, 99, 0, 99};
    float y[9] = {7, 7, 7, 7, 7, 7, 7, 7, 7}, gates[6], scores[6];
    int32_t ids[6];
    vkmoe_io io = vkmoe_io_init();
    io.x = x, io.y = y, io.ids = ids, io.gates = gates, io.scores = scores;
    io.x_stride = 8, io.y_stride = 12;
    check_ok(vkmoe_run(stack.bind, 3, &io));
    for (int t = 0; t < 3; t++) {
        check_near((double) y[3 * t], (2 * 0.25 + 3 * 0.75 - 1) * (double) x[2 * t], 1e-6);
        assert_true(y[3 * t + 1] == 7 && y[3 * t + 2] == 7);
        assert_true(ids[2 * t] == 1 && ids[2 * t + 1] == 0);
        check_near((double) gates[2 * t], 0.75, 1e-7);
        check_near((double) scores[2 * t], 0.25, 1e-7);
        check_near((double) scores[2 * t + 1], 0.75, 1e-7);
    }
    stack_destroy(&stack);
}

// A token of NaN gives NaN and leaves its neighbours alone.
static void test_nan_token(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    struct layer_data data;
    struct stack stack;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "reference";
    layer_data_init(&data, &layer, 3);
    check_ok(stack_create(&stack, &desc, &data, 3, false));
    float x[18], clean[9], y[9];
    int32_t ids[6];
    vkmoe_io io = vkmoe_io_init();
    io.x = x, io.y = clean;
    fill_random(x, 18, 5);
    check_ok(vkmoe_run(stack.bind, 3, &io));
    for (int i = 6; i < 12; i++)
        x[i] = NAN;
    io.y = y, io.ids = ids;
    check_ok(vkmoe_run(stack.bind, 3, &io));
    assert_memory_equal(y, clean, 3 * sizeof *y);
    assert_memory_equal(y + 6, clean + 6, 3 * sizeof *y);
    assert_true(isnan(y[3]) && isnan(y[4]) && isnan(y[5]));
    assert_true(ids[2] == 0 && ids[3] == 1);
    stack_destroy(&stack);
    layer_data_finish(&data);
}

// f32 tensors for a 16-bit place are rounded when packed; so the same as rounding them before.
static void test_rounded_weights(void **state)
{
    (void) state;
    for (int type = VKMOE_F16; type <= VKMOE_BF16; type++) {
        vkmoe_layer_desc layer = full_layer();
        struct layer_data data, rounded;
        layer.in_type = (enum vkmoe_dtype) type;
        layer.out_type = type == VKMOE_F16 ? VKMOE_BF16 : VKMOE_F16;
        layer_data_init(&data, &layer, 11);
        layer_data_init(&rounded, &layer, 11);
        assert_true(compare(&data, &data).y > 0x1p-15);
        for (uint32_t e = 0; e <= layer.n_experts; e++) {
            bool last = e == layer.n_experts;
            vkmoe_expert_tensors *expert = last ? &rounded.shared : &rounded.experts[e];
            uint32_t d_ff = last ? layer.d_shared_ff : layer.d_ff;
            vkmoe_tensor *tensors[] = {&expert->gate, &expert->up, &expert->down};
            for (int i = 0; i < 3; i++) {
                size_t n = (size_t) d_ff * (i < 2 ? layer.d_model : layer.d_out);
                const float *source = tensors[i]->data;
                float *values = rounded.memory + (source - rounded.memory);
                uint16_t stored[64];
                enum vkmoe_dtype stored_type = i < 2 ? layer.in_type : layer.out_type;
                check_ok(vkmoe_dtype_convert(stored_type, values, n, stored));
                for (size_t v = 0; v < n; v++)
                    moe_tensor_row(&(vkmoe_tensor){.data = stored, .type = stored_type}, v, 1,
                                   &values[v]);
            }
        }
        assert_true(compare(&data, &rounded).y <= 0x1p-15);
        layer_data_finish(&data);
        layer_data_finish(&rounded);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_second_program),
        cmocka_unit_test(test_second_program_can_fail),
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_nan_token),
        cmocka_unit_test(test_rounded_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
