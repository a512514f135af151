// SPDX-License-Identifier: MIT
// Networks whose weights are multiplied by in f16 or bf16, with f32 masters, through the public
// calls. Argument: the device.
//
// Rounding is not differentiable, so its gradients are checked against those of a net in f32 whose
// weights are the rounded ones: products take their operands in the same order, and all bits agree.
#include "check.h"
#include "core/dtype.h"
#include "fixture.h"
#include "net_cases.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_ELEMENTS = 64 * NET_MAX_WIDTH };

static const char *device;
static const enum vkmoe_dtype types[] = {VKMOE_F16, VKMOE_BF16};
enum { N_TYPES = sizeof types / sizeof *types };

static void round_all(enum vkmoe_dtype type, float *values, uint32_t n)
{
    float stored[MAX_ELEMENTS];
    assert_true(n <= MAX_ELEMENTS);
    moe_dtype_encode(type, values, n, stored);
    moe_dtype_decode(type, stored, n, values);
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), n_end = strlen(end);
    return n >= n_end && strcmp(name + n - n_end, end) == 0;
}

// Is that parameter multiplied by in the net's type? Never what routes, shifts or scales.
static bool is_rounded(const char *name)
{
    uint32_t layer;
    int n = 0;
    bool of_linear = sscanf(name, "layers.%u.weight%n", &layer, &n) == 1 && n > 0 && !name[n];
    return of_linear || (ends_with(name, ".weight") &&
                         (strstr(name, ".experts.") || strstr(name, ".shared.") ||
                          strstr(name, ".query.")));
}

// ---- against rounded weights in f32 ----------------------------------------------------------

// Values of `from` to `to`, rounded where the type rounds them. Returns how many parameters are.
static uint32_t copy_rounded(vkmoe_net *from, enum vkmoe_dtype type, vkmoe_net *to)
{
    float values[MAX_ELEMENTS];
    uint32_t n_rounded = 0;
    for (uint32_t i = 0; i < vkmoe_net_param_count(from); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(from, i, &param));
        const uint32_t n = param.rows * param.width;
        check_ok(vkmoe_net_read(from, VKMOE_NET_VALUE, param.name, values, n));
        if (is_rounded(param.name)) {
            round_all(type, values, n);
            n_rounded++;
        }
        check_ok(vkmoe_net_write(to, VKMOE_NET_VALUE, param.name, values, n));
    }
    return n_rounded;
}

// How many parameters have gradients of other bits.
static uint32_t count_different(vkmoe_net *a, vkmoe_net *b)
{
    float of_a[MAX_ELEMENTS], of_b[MAX_ELEMENTS];
    uint32_t n_different = 0;
    for (uint32_t i = 0; i < vkmoe_net_param_count(a); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(a, i, &param));
        if (!param.has_gradient)
            continue;
        const uint32_t n = param.rows * param.width;
        check_ok(vkmoe_net_read(a, VKMOE_NET_GRADIENT, param.name, of_a, n));
        check_ok(vkmoe_net_read(b, VKMOE_NET_GRADIENT, param.name, of_b, n));
        n_different += memcmp(of_a, of_b, n * sizeof *of_a) != 0;
    }
    return n_different;
}

static double gradients(vkmoe_net *net, const vkmoe_net_batch *batch)
{
    double loss;
    check_ok(vkmoe_net_forward(net, batch));
    check_ok(vkmoe_net_backward(net, 1, &loss));
    return loss;
}

static void check_case(vkmoe_context *context, uint32_t i, enum vkmoe_dtype type)
{
    const vkmoe_net_state start = {.seed = 7};
    struct net_case of;
    struct net_data data;
    vkmoe_net *half, *full;
    double loss, want;
    net_case_init(&of, i);
    net_data_init(&data, &of, 3);
    check_ok(vkmoe_net_create(context, &of.desc, &full));
    of.desc.weight_type = type;
    check_ok(vkmoe_net_create(context, &of.desc, &half));
    check_ok(vkmoe_net_init(half, 7));
    check_ok(vkmoe_net_init(full, 7));
    loss = gradients(half, &data.batch);
    gradients(full, &data.batch);
    if (count_different(half, full) == 0)
        fail_msg("%s: rounding changes nothing", of.name);

    uint32_t n_rounded = copy_rounded(half, type, full);
    check_ok(vkmoe_net_set_state(full, &start));
    want = gradients(full, &data.batch);
    if (n_rounded == 0 || loss != want || count_different(half, full) > 0)
        fail_msg("%s: loss %.17g, not %.17g; %u parameters rounded; %u other gradients", of.name,
                 loss, want, n_rounded, count_different(half, full));
    check_ok(vkmoe_net_eval(half, &data.batch, NULL, &loss));
    check_ok(vkmoe_net_eval(full, &data.batch, NULL, &want));
    assert_true(loss == want);
    vkmoe_net_destroy(full);
    vkmoe_net_destroy(half);
}

static void test_gradients(void **state)
{
    (void) state;
    vkmoe_context *context = context_on(device, NULL);
    for (uint32_t i = 0; i < net_case_count(); i++)
        for (uint32_t t = 0; t < N_TYPES; t++)
            check_case(context, i, types[t]);
    vkmoe_context_destroy(context);
}

// ---- masters ---------------------------------------------------------------------------------

// y = w x, squared error.
struct line {
    vkmoe_context *context;
    vkmoe_net *net;
    float x, target;
    vkmoe_net_batch batch;
};

static const char weight[] = "layers.0.weight";

static void line_init(struct line *line, enum vkmoe_dtype type, float w)
{
    vkmoe_net_desc desc = vkmoe_net_desc_init();
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    const vkmoe_net_layer *const layers[] = {&layer};
    layer.kind = VKMOE_NET_LINEAR;
    layer.d_out = 1;
    desc.layers = layers;
    desc.n_layers = desc.d_in = desc.max_tokens = 1;
    desc.loss = VKMOE_LOSS_MSE;
    desc.weight_type = type;
    line->context = context_on(device, NULL);
    check_ok(vkmoe_net_create(line->context, &desc, &line->net));
    check_ok(vkmoe_net_write(line->net, VKMOE_NET_VALUE, weight, &w, 1));
    line->x = 1;
    line->target = 2;
    line->batch = vkmoe_net_batch_init();
    line->batch.n_tokens = line->batch.n_examples = 1;
    line->batch.x = &line->x;
    line->batch.targets = &line->target;
}

static void line_finish(struct line *line)
{
    vkmoe_net_destroy(line->net);
    vkmoe_context_destroy(line->context);
}

static float line_y(struct line *line)
{
    float y;
    check_ok(vkmoe_net_eval(line->net, &line->batch, &y, NULL));
    return y;
}

// From w = 1 each step adds an eighth of the spacing above 1. Until half of it is there y stays 1,
// a tie goes to the even 1 too, and the fifth step is seen: weights of 16 bits without a master
// would stay 1 for ever.
static void test_masters(void **state)
{
    (void) state;
    static const float spacings[] = {0x1p-10f, 0x1p-7f};
    for (uint32_t t = 0; t < N_TYPES; t++) {
        const float spacing = spacings[t];
        struct line line;
        line_init(&line, types[t], 1);
        for (uint32_t step = 1; step <= 5; step++) {
            float w;
            assert_true(line_y(&line) == 1);
            check_ok(vkmoe_net_train(line.net, &line.batch, spacing / 16, NULL)); // gradient -2
            check_ok(vkmoe_net_read(line.net, VKMOE_NET_VALUE, weight, &w, 1));
            assert_true(w == 1 + (float) step * spacing / 8);
            round_all(types[t], &w, 1);
            assert_true((w == 1) == (step < 5));
        }
        assert_true(line_y(&line) == 1 + spacing);
        line_finish(&line);
    }
}

// What is written is multiplied by in the next run, whatever ran before.
static void test_writes(void **state)
{
    (void) state;
    const float values[] = {3, 1 + 0x1p-12f, 0.1f};
    for (uint32_t t = 0; t < N_TYPES; t++) {
        struct line line;
        line_init(&line, types[t], -1);
        assert_true(line_y(&line) == -1);
        for (uint32_t i = 0; i < 3; i++) {
            float want = values[i];
            check_ok(vkmoe_net_write(line.net, VKMOE_NET_VALUE, weight, &want, 1));
            round_all(types[t], &want, 1);
            assert_true(line_y(&line) == want && line_y(&line) == want);
        }
        line_finish(&line);
    }
}

// 70000 is a number in bf16, not in f16.
static void test_overflow(void **state)
{
    (void) state;
    struct line line;
    line_init(&line, VKMOE_BF16, 70000);
    check_ok(vkmoe_net_train(line.net, &line.batch, 0, NULL));
    line_finish(&line);
    line_init(&line, VKMOE_F16, 70000);
    check_fails(vkmoe_net_train(line.net, &line.batch, 0, NULL), VKMOE_E_DATA,
                "step 1: layers.0.weight, row 0, column 0: 70000 is beyond f16");
    assert_true(isinf(line_y(&line)));
    line_finish(&line);
}

// Copies are counted in words.
static void test_size(void **state)
{
    (void) state;
    uint64_t persistent[3], batch;
    for (uint32_t type = 0; type < 3; type++) {
        struct line line;
        line_init(&line, (enum vkmoe_dtype) type, 1);
        check_ok(vkmoe_net_get_size(line.net, &persistent[type], &batch));
        line_finish(&line);
    }
    assert_int_equal(persistent[VKMOE_F16], persistent[VKMOE_F32] + 4);
    assert_int_equal(persistent[VKMOE_BF16], persistent[VKMOE_F32] + 4);
}

// ---- training --------------------------------------------------------------------------------

// Points around ten centres, which a layer of 8 experts, 2 of them for each, tells apart.
enum { N_POINTS = 64, WIDTH = 16, N_CLASSES = 10, N_STEPS = 60 };

struct points {
    float x[N_POINTS * WIDTH];
    int32_t labels[N_POINTS];
};

static void points_init(struct points *points)
{
    float centres[N_CLASSES * WIDTH];
    fill_random(centres, N_CLASSES * WIDTH, 5);
    fill_random(points->x, N_POINTS * WIDTH, 6);
    for (uint32_t i = 0; i < N_POINTS; i++) {
        points->labels[i] = (int32_t) (i * 7 % N_CLASSES);
        for (uint32_t j = 0; j < WIDTH; j++)
            points->x[i * WIDTH + j] =
                0.5f * points->x[i * WIDTH + j] + centres[points->labels[i] * WIDTH + (int32_t) j];
    }
}

struct curve {
    double first, last;
    float weights[N_CLASSES * WIDTH]; // of the last layer
};

// All that a run goes on from.
static void copy_state(vkmoe_net *from, vkmoe_net *to)
{
    enum { MOST = 8 * WIDTH * WIDTH };
    float values[MOST];
    vkmoe_net_state where;
    for (uint32_t i = 0; i < vkmoe_net_param_count(from); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(from, i, &param));
        const uint32_t n = param.rows * param.width;
        assert_true(n <= MOST);
        for (uint32_t what = 0; what <= VKMOE_NET_MOMENT2; what++) {
            if (what == VKMOE_NET_GRADIENT)
                continue;
            check_ok(vkmoe_net_read(from, (enum vkmoe_net_what) what, param.name, values, n));
            check_ok(vkmoe_net_write(to, (enum vkmoe_net_what) what, param.name, values, n));
        }
    }
    check_ok(vkmoe_net_get_state(from, &where));
    check_ok(vkmoe_net_set_state(to, &where));
}

// Trains from the same start. resumes: halfway another net goes on from what is read of the first.
static void train(vkmoe_context *context, enum vkmoe_dtype type, bool resumes, struct curve *out)
{
    struct points points;
    vkmoe_layer_desc moe = vkmoe_layer_desc_init();
    vkmoe_net_layer layers[2] = {vkmoe_net_layer_init(), vkmoe_net_layer_init()};
    const vkmoe_net_layer *const list[] = {&layers[0], &layers[1]};
    vkmoe_net_desc desc = vkmoe_net_desc_init();
    vkmoe_net_batch batch = vkmoe_net_batch_init();
    vkmoe_net *net, *next;
    moe.n_experts = 8;
    moe.top_k = 2;
    moe.d_model = moe.d_ff = WIDTH;
    layers[0].layer = &moe;
    layers[0].residual = true;
    layers[1].kind = VKMOE_NET_LINEAR;
    layers[1].d_out = N_CLASSES;
    desc.layers = list;
    desc.n_layers = 2;
    desc.d_in = WIDTH;
    desc.max_tokens = N_POINTS;
    desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    desc.weight_type = type;
    points_init(&points);
    batch.n_tokens = batch.n_examples = N_POINTS;
    batch.x = points.x;
    batch.labels = points.labels;
    check_ok(vkmoe_net_create(context, &desc, &net));
    check_ok(vkmoe_net_init(net, 1));
    check_ok(vkmoe_net_eval(net, &batch, NULL, &out->first));
    for (uint32_t step = 0; step < N_STEPS; step++) {
        check_ok(vkmoe_net_train(net, &batch, 0.01f, NULL));
        if (!resumes || step != N_STEPS / 2)
            continue;
        check_ok(vkmoe_net_create(context, &desc, &next));
        copy_state(net, next);
        vkmoe_net_destroy(net);
        net = next;
    }
    check_ok(vkmoe_net_eval(net, &batch, NULL, &out->last));
    check_ok(vkmoe_net_read(net, VKMOE_NET_VALUE, "layers.1.weight", out->weights,
                            N_CLASSES * WIDTH));
    vkmoe_net_destroy(net);
}

// All three learn; 16 bits end where f32 does, within a hundredth of the way.
static void test_learns(void **state)
{
    (void) state;
    struct curve curves[3];
    vkmoe_context *context = context_on(device, NULL);
    for (uint32_t type = 0; type < 3; type++)
        train(context, (enum vkmoe_dtype) type, false, &curves[type]);
    for (uint32_t type = 0; type < 3; type++) {
        const struct curve *c = &curves[type];
        print_message("%s: loss %.6f -> %.6f\n", moe_dtype_info((enum vkmoe_dtype) type)->name,
                      c->first, c->last);
        assert_true(c->last < 0.3 * c->first);
        check_near(c->last, curves[VKMOE_F32].last, 0.01 * (c->first - c->last));
        assert_true(type == VKMOE_F32 || c->last != curves[VKMOE_F32].last);
    }
    vkmoe_context_destroy(context);
}

// The same bits again, and after going on from what was read: masters are all there is to keep. The
// oracle's are f64, of which f32 is read.
static void test_repeats(void **state)
{
    (void) state;
    static struct curve curves[3];
    vkmoe_context *context = context_on(device, NULL);
    const bool keeps = strcmp(device, "reference") != 0;
    for (uint32_t t = 0; t < N_TYPES; t++) {
        for (uint32_t i = 0; i < 3; i++)
            train(context, types[t], i == 2, &curves[i]);
        assert_memory_equal(&curves[0], &curves[1], sizeof curves[0]);
        if (keeps)
            assert_memory_equal(&curves[0], &curves[2], sizeof curves[0]);
    }
    vkmoe_context_destroy(context);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients), cmocka_unit_test(test_masters),
        cmocka_unit_test(test_writes),    cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_size),      cmocka_unit_test(test_learns),
        cmocka_unit_test(test_repeats),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests_name(device, tests, NULL, NULL) != 0;
}
