// SPDX-License-Identifier: MIT
// Networks through the public calls: training learns, repeats its bits, adds up micro-batches,
// balances selection biases, and stops at what is not finite. Argument: the device.
#include "budget.h"
#include "check.h"
#include "fixture.h"
#include "net_cases.h"

#include <stdlib.h>

enum { MAX_ELEMENTS = 64 * NET_MAX_WIDTH, MAX_PARAMS = 32 };

static const char *device;
static vkmoe_context *context; // of all tests, so that pipelines are made once

struct scene {
    struct net_case of;
    struct net_data data;
    vkmoe_net *net;
};

static void scene_init(struct scene *s, const char *name)
{
    net_case_init(&s->of, net_case_find(name));
    net_data_init(&s->data, &s->of, 3);
    check_ok(vkmoe_net_create(context, &s->of.desc, &s->net));
    check_ok(vkmoe_net_init(s->net, 7));
}

static void scene_finish(struct scene *s)
{
    vkmoe_net_destroy(s->net);
}

// All of one kind, behind each other; what there is not is left out.
static uint32_t read_all(const struct scene *s, enum vkmoe_net_what what, float *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < vkmoe_net_param_count(s->net); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(s->net, i, &param));
        if (what == VKMOE_NET_GRADIENT && !param.has_gradient)
            continue;
        uint32_t size = param.rows * param.width;
        assert_true(n + size <= MAX_ELEMENTS * 2);
        check_ok(vkmoe_net_read(s->net, what, param.name, out + n, size));
        n += size;
    }
    return n;
}

// ---- learning --------------------------------------------------------------------------------

// Every case: the loss of a batch falls when it is trained on, but where noise hides it.
static void test_learns(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < net_case_count(); i++) {
        struct scene s;
        struct net_case name;
        double first = 0, last = 0;
        net_case_init(&name, i);
        scene_init(&s, name.name);
        if (strcmp(name.name, "vote") != 0) // whose y is no function of the parameters to EVAL
            check_ok(vkmoe_net_eval(s.net, &s.data.batch, NULL, &first));
        for (uint32_t step = 0; step < 20; step++)
            check_ok(vkmoe_net_train(s.net, &s.data.batch, 0.05f, &last));
        if (strcmp(name.name, "vote") != 0) {
            check_ok(vkmoe_net_eval(s.net, &s.data.batch, NULL, &last));
            if (!(last < 0.9 * first))
                fail_msg("%s: loss %g at first, %g later", name.name, first, last);
        }
        scene_finish(&s);
    }
}

// The same seed gives the same bits, another one other bits.
static void test_repeats(void **state)
{
    (void) state;
    float bits[3][MAX_ELEMENTS * 2];
    uint32_t n = 0;
    for (uint32_t i = 0; i < 3; i++) {
        struct scene s;
        double loss;
        scene_init(&s, "noisy");
        check_ok(vkmoe_net_init(s.net, i == 2 ? 8 : 7));
        for (uint32_t step = 0; step < 3; step++)
            check_ok(vkmoe_net_train(s.net, &s.data.batch, 0.01f, &loss));
        n = read_all(&s, VKMOE_NET_VALUE, bits[i]);
        scene_finish(&s);
    }
    assert_memory_equal(bits[0], bits[1], n * sizeof(float));
    assert_memory_not_equal(bits[0], bits[2], n * sizeof(float));
}

// State, parameters and moments are all that a run goes on from.
static void test_resumes(void **state)
{
    (void) state;
    struct scene a, b;
    float want[MAX_ELEMENTS * 2], got[MAX_ELEMENTS * 2], values[MAX_ELEMENTS];
    vkmoe_net_state where;
    scene_init(&a, "noisy");
    scene_init(&b, "noisy");
    for (uint32_t step = 0; step < 2; step++)
        check_ok(vkmoe_net_train(a.net, &a.data.batch, 0.01f, NULL));
    for (uint32_t i = 0; i < vkmoe_net_param_count(a.net); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(a.net, i, &param));
        for (uint32_t what = 0; what <= VKMOE_NET_MOMENT2; what++) {
            if (what == VKMOE_NET_GRADIENT)
                continue;
            uint32_t n = param.rows * param.width;
            check_ok(vkmoe_net_read(a.net, (enum vkmoe_net_what) what, param.name, values, n));
            check_ok(vkmoe_net_write(b.net, (enum vkmoe_net_what) what, param.name, values, n));
        }
    }
    check_ok(vkmoe_net_get_state(a.net, &where));
    assert_int_equal(where.steps, 2);
    assert_int_equal(where.pass, 2);
    check_ok(vkmoe_net_set_state(b.net, &where));
    check_ok(vkmoe_net_train(a.net, &a.data.batch, 0.01f, NULL));
    check_ok(vkmoe_net_train(b.net, &b.data.batch, 0.01f, NULL));
    uint32_t n = read_all(&a, VKMOE_NET_VALUE, want);
    read_all(&b, VKMOE_NET_VALUE, got);
    if (strcmp(device, "reference") != 0)
        assert_memory_equal(want, got, n * sizeof(float));
    for (uint32_t i = 0; i < n; i++) // the oracle goes on with f64, of which f32 was read
        check_near((double) got[i], (double) want[i], 1e-6);
    scene_finish(&a);
    scene_finish(&b);
}

// Two halves of a batch give the gradients of the whole, but for rounding: of each sum of at most
// NET_TOKENS terms, which the other order changes by as many units of its largest part.
static void test_micro_batches(void **state)
{
    (void) state;
    struct scene s;
    float whole[MAX_ELEMENTS * 2], halves[MAX_ELEMENTS * 2];
    double loss, parts[2];
    scene_init(&s, "shared");
    check_ok(vkmoe_net_forward(s.net, &s.data.batch));
    check_ok(vkmoe_net_backward(s.net, 1, &loss));
    uint32_t n = read_all(&s, VKMOE_NET_GRADIENT, whole);
    check_ok(vkmoe_net_step(s.net, 0)); // begins anew; a rate of 0 changes nothing

    vkmoe_net_batch half = s.data.batch;
    half.n_tokens = half.n_examples = NET_TOKENS / 2;
    check_ok(vkmoe_net_forward(s.net, &half));
    check_ok(vkmoe_net_backward(s.net, 2, &parts[0]));
    half.x = s.data.x + NET_TOKENS / 2 * NET_D_IN;
    half.labels = s.data.labels + NET_TOKENS / 2;
    check_ok(vkmoe_net_forward(s.net, &half));
    check_ok(vkmoe_net_backward(s.net, 2, &parts[1]));
    read_all(&s, VKMOE_NET_GRADIENT, halves);
    check_near(parts[0] + parts[1], loss, 1e-6);
    bool one_differs_from_zero = false;
    for (uint32_t i = 0; i < n; i++) {
        check_near((double) halves[i], (double) whole[i], 1e-6);
        one_differs_from_zero = one_differs_from_zero || fabsf(whole[i]) > 1e-3f;
    }
    assert_true(one_differs_from_zero);
    scene_finish(&s);
}

// So do auxiliary losses: the same batch twice is that batch once.
static void test_micro_batches_of_auxiliary_losses(void **state)
{
    (void) state;
    struct scene s;
    float once[MAX_ELEMENTS * 2], twice[MAX_ELEMENTS * 2];
    double loss, half;
    scene_init(&s, "z_loss");
    check_ok(vkmoe_net_forward(s.net, &s.data.batch));
    check_ok(vkmoe_net_backward(s.net, 1, &loss));
    uint32_t n = read_all(&s, VKMOE_NET_GRADIENT, once);
    check_ok(vkmoe_net_step(s.net, 0));
    for (uint32_t i = 0; i < 2; i++) {
        check_ok(vkmoe_net_forward(s.net, &s.data.batch));
        check_ok(vkmoe_net_backward(s.net, 2, &half));
        check_near(half, loss / 2, 1e-7 * loss);
    }
    read_all(&s, VKMOE_NET_GRADIENT, twice);
    for (uint32_t i = 0; i < n; i++)
        check_near((double) twice[i], (double) once[i], 1e-6);
    scene_finish(&s);
}

// Experts with more rows than the mean are made less likely, the others more.
static void test_balances(void **state)
{
    (void) state;
    struct scene s;
    float bias[4];
    int32_t ids[NET_TOKENS * 2], counts[4] = {0};
    scene_init(&s, "sigmoid_balance");
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, NULL, NULL));
    check_ok(vkmoe_net_routing(s.net, 1, ids, NULL));
    for (uint32_t i = 0; i < NET_TOKENS * 2; i++)
        counts[ids[i]]++;
    check_ok(vkmoe_net_train(s.net, &s.data.batch, 0, NULL));
    check_ok(vkmoe_net_read(s.net, VKMOE_NET_VALUE, "layers.1.router.selection_bias", bias, 4));
    bool uneven = false;
    for (uint32_t e = 0; e < 4; e++) {
        int missing = NET_TOKENS * 2 / 4 - counts[e];
        assert_true(bias[e] == 0.125f * (float) ((missing > 0) - (missing < 0)));
        uneven = uneven || missing != 0;
    }
    assert_true(uneven);
    scene_finish(&s);
}

// Rows of all micro-batches count. The first one goes where the second does not; each alone would
// move the bias of an expert that they move together, or the other way.
static void test_balances_over_micro_batches(void **state)
{
    (void) state;
    struct scene s;
    float bias[4];
    int32_t ids[2], counts[4] = {0}, last[4] = {0};
    scene_init(&s, "sigmoid_balance");
    vkmoe_net_batch batch = s.data.batch;
    batch.n_tokens = batch.n_examples = 1;
    for (uint32_t i = 0; i < NET_TOKENS; i++) {
        batch.x = s.data.x + i * NET_D_IN;
        check_ok(vkmoe_net_eval(s.net, &batch, NULL, NULL));
        check_ok(vkmoe_net_routing(s.net, 1, ids, NULL));
        memset(last, 0, sizeof last);
        for (uint32_t k = 0; k < 2; k++) {
            counts[ids[k]]++;
            last[ids[k]]++;
        }
        check_ok(vkmoe_net_forward(s.net, &batch));
        check_ok(vkmoe_net_backward(s.net, NET_TOKENS, NULL));
    }
    check_ok(vkmoe_net_step(s.net, 0));
    check_ok(vkmoe_net_read(s.net, VKMOE_NET_VALUE, "layers.1.router.selection_bias", bias, 4));
    bool differs = false;
    for (uint32_t e = 0; e < 4; e++) {
        int missing = NET_TOKENS * 2 / 4 - counts[e], of_last = 1 - 2 * last[e];
        assert_true(bias[e] == 0.125f * (float) ((missing > 0) - (missing < 0)));
        differs = differs || (missing > 0) != (of_last > 0);
    }
    assert_true(differs);
    scene_finish(&s);
}

// ---- one thing by two ways -------------------------------------------------------------------

static void copy_params(const struct scene *from, const struct scene *to)
{
    float data[MAX_ELEMENTS];
    for (uint32_t i = 0; i < vkmoe_net_param_count(from->net); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(from->net, i, &param));
        uint32_t n = param.rows * param.width;
        check_ok(vkmoe_net_read(from->net, VKMOE_NET_VALUE, param.name, data, n));
        check_ok(vkmoe_net_write(to->net, VKMOE_NET_VALUE, param.name, data, n));
    }
}

// A stack begins as a mean, with every pairing.
static void test_stack_begins_as_mean(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 3; i++) {
        struct scene mean, stack;
        float y[2][NET_TOKENS * 3];
        net_case_init(&stack.of, net_case_find(i == 0 ? "stack_combine" : "stack_all"));
        if (i == 1)
            stack.of.layers[1].pairing = VKMOE_PAIRING_EACH;
        mean.of = stack.of;
        mean.of.desc.layers = mean.of.list;
        for (uint32_t l = 0; l < NET_LAYERS; l++)
            mean.of.list[l] = &mean.of.layers[l];
        mean.of.layers[1].combine = VKMOE_COMBINE_MEAN;
        struct scene *const both[] = {&mean, &stack};
        for (uint32_t b = 0; b < 2; b++) {
            net_data_init(&both[b]->data, &both[b]->of, 3);
            check_ok(vkmoe_net_create(context, &both[b]->of.desc, &both[b]->net));
            check_ok(vkmoe_net_init(both[b]->net, 7));
        }
        copy_params(&mean, &stack);
        for (uint32_t b = 0; b < 2; b++)
            check_ok(vkmoe_net_eval(both[b]->net, &mean.data.batch, y[b], NULL));
        for (uint32_t j = 0; j < NET_TOKENS * 3; j++)
            check_near((double) y[0][j], (double) y[1][j], 1e-6);
        scene_finish(&mean);
        scene_finish(&stack);
    }
}

// vkmoe_net_init makes a used net a new one.
static void test_init_begins_anew(void **state)
{
    (void) state;
    struct scene s;
    float want[MAX_ELEMENTS * 2], got[MAX_ELEMENTS * 2];
    uint32_t n = 0;
    scene_init(&s, "sigmoid_balance");
    for (uint32_t i = 0; i < 2; i++) {
        check_ok(vkmoe_net_init(s.net, 7));
        for (uint32_t step = 0; step < 3; step++)
            check_ok(vkmoe_net_train(s.net, &s.data.batch, 0.01f, NULL));
        n = read_all(&s, VKMOE_NET_VALUE, i == 0 ? want : got);
    }
    assert_memory_equal(want, got, n * sizeof(float));
    scene_finish(&s);
}

// EVAL has neither noise nor dropout; each FORWARD has its own.
static void test_eval_is_quiet(void **state)
{
    (void) state;
    struct scene s;
    double a, b;
    scene_init(&s, "dropout");
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, NULL, &a));
    check_ok(vkmoe_net_train(s.net, &s.data.batch, 0, NULL)); // whose noise is another one
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, NULL, &b));
    assert_true(a == b);
    check_ok(vkmoe_net_train(s.net, &s.data.batch, 0, &a));
    check_ok(vkmoe_net_train(s.net, &s.data.batch, 0, &b));
    assert_true(a != b);
    scene_finish(&s);
}

// Votes are counted: with as many experts for two classes the lower one wins.
static void test_votes(void **state)
{
    (void) state;
    struct scene s;
    float bias[4 * 3] = {0, 9, 0,  9, 0, 0,  0, 0, 9,  0, 9, 0}, y[NET_TOKENS * 3];
    float down[4 * 3 * 3] = {0};
    scene_init(&s, "vote");
    check_ok(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.1.experts.down.weight", down, 36));
    check_ok(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.1.experts.down.bias", bias, 12));
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, y, NULL));
    for (uint32_t i = 0; i < NET_TOKENS * 3; i++)
        assert_true(y[i] == (i % 3 == 1));
    bias[9] = 10; // 0, 1, 2, and now 0: two for 0, one for each of the others
    check_ok(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.1.experts.down.bias", bias, 12));
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, y, NULL));
    assert_true(y[0] == 1 && y[1] == 0 && y[2] == 0);
    bias[3] = 0, bias[5] = 9; // 1, 2, 2, 0 -> 2; then a tie of 1 and 2
    check_ok(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.1.experts.down.bias", bias, 12));
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, y, NULL));
    assert_true(y[0] == 0 && y[1] == 0 && y[2] == 1);
    bias[9] = 0;
    check_ok(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.1.experts.down.bias", bias, 12));
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, y, NULL));
    assert_true(y[0] == 0 && y[1] == 1 && y[2] == 0);
    scene_finish(&s);
}

// ---- golden numbers --------------------------------------------------------------------------

// Responses (1, 3) weigh 1/4 and 3/4: y = 2.5.
static void test_response_share(void **state)
{
    (void) state;
    vkmoe_net_desc net_desc = vkmoe_net_desc_init();
    vkmoe_layer_desc moe = vkmoe_layer_desc_init();
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    const vkmoe_net_layer *const layers[] = {&layer};
    const float weight[] = {1, 3}, x = 1;
    float y, gates[2];
    int32_t ids[2];
    vkmoe_net_batch batch = vkmoe_net_batch_init();
    vkmoe_net *net;
    moe.n_experts = 2;
    moe.d_model = moe.d_out = 1;
    moe.expert_kind = VKMOE_EXPERT_LINEAR;
    layer.layer = &moe;
    layer.combine = VKMOE_COMBINE_RESPONSE_SHARE;
    net_desc.layers = layers;
    net_desc.n_layers = net_desc.d_in = net_desc.max_tokens = 1;
    net_desc.loss = VKMOE_LOSS_MSE;
    net_desc.evaluation_only = true;
    check_ok(vkmoe_net_create(context, &net_desc, &net));
    check_ok(vkmoe_net_write(net, VKMOE_NET_VALUE, "layers.0.experts.weight", weight, 2));
    batch.n_tokens = batch.n_examples = 1;
    batch.x = &x;
    check_ok(vkmoe_net_eval(net, &batch, &y, NULL));
    check_ok(vkmoe_net_routing(net, 0, ids, gates));
    assert_true(y == 2.5f && gates[0] == 0.25f && gates[1] == 0.75f);
    assert_true(ids[0] == 0 && ids[1] == 1);
    check_fails(vkmoe_net_train(net, &batch, 0, NULL), VKMOE_E_ARGUMENT, "for evaluation only");
    vkmoe_net_destroy(net);
}

// ---- what is not finite ----------------------------------------------------------------------

static void test_not_finite(void **state)
{
    (void) state;
    struct scene s;
    float before[MAX_ELEMENTS * 2], after[MAX_ELEMENTS * 2];
    float bias[3] = {0, INFINITY, 0}, gain;
    vkmoe_net_state where;
    scene_init(&s, "sigmoid_balance");
    uint32_t n = read_all(&s, VKMOE_NET_VALUE, before);
    gain = s.data.x[5];
    s.data.x[5] = NAN;
    check_fails(vkmoe_net_train(s.net, &s.data.batch, 0.1f, NULL), VKMOE_E_DATA,
                "step 1: x, row 1, column 1: nan");
    read_all(&s, VKMOE_NET_VALUE, after);
    assert_memory_equal(before, after, n * sizeof(float));
    check_ok(vkmoe_net_get_state(s.net, &where));
    assert_int_equal(where.steps, 0);
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, NULL, NULL)); // NaN is no crime there

    s.data.x[5] = gain;
    check_ok(vkmoe_net_train(s.net, &s.data.batch, 0.1f, NULL));
    check_ok(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.2.bias", bias, 3));
    check_ok(vkmoe_net_forward(s.net, &s.data.batch));
    check_ok(vkmoe_net_backward(s.net, 1, NULL));
    check_fails(vkmoe_net_step(s.net, 0.1f), VKMOE_E_DATA,
                "step 2: layers.2.bias, row 0, column 1: inf");
    scene_finish(&s);
}

// The loss of an earlier micro-batch counts too. Huber's slope is finite where its loss is not.
static void test_not_finite_before(void **state)
{
    (void) state;
    struct scene s;
    float bias[3] = {0, INFINITY, 0};
    scene_init(&s, "huber");
    for (uint32_t i = 0; i < 2; i++) {
        check_ok(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.2.bias", bias, 3));
        check_ok(vkmoe_net_forward(s.net, &s.data.batch));
        check_ok(vkmoe_net_backward(s.net, 2, NULL));
        bias[1] = 0;
    }
    check_fails(vkmoe_net_step(s.net, 0.1f), VKMOE_E_DATA, "step 1: the loss or the gradients'");
    scene_finish(&s);
}

static int open_context(void **state)
{
    (void) state;
    context = context_on(device, NULL);
    return 0;
}

static int close_context(void **state)
{
    (void) state;
    vkmoe_context_destroy(context);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_resumes),       cmocka_unit_test(test_micro_batches),
        cmocka_unit_test(test_micro_batches_of_auxiliary_losses),
        cmocka_unit_test(test_balances),      cmocka_unit_test(test_eval_is_quiet),
        cmocka_unit_test(test_votes),         cmocka_unit_test(test_response_share),
        cmocka_unit_test(test_not_finite),    cmocka_unit_test(test_not_finite_before),
        cmocka_unit_test(test_balances_over_micro_batches),
        cmocka_unit_test(test_stack_begins_as_mean),
        cmocka_unit_test(test_init_begins_anew),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, open_context, close_context) != 0;
}
