// SPDX-License-Identifier: MIT
// Products of networks by a variant that is named, under the validation layer: numbers far beyond
// f16 on both sides, gradients of whole networks, and what training with it reaches. What every
// shape and grouping gives, cross/net_ops.c asks. Argument: the variant.
#include "check.h"
#include "fixture.h"

#include "api/api.h"
#include "api/net.h"
#include "core/dtype.h"
#include "base/host.h"
#include "vulkan/net.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_ROWS = 75, N_GROUPS = 5, N_IN = 70, N_OUT = 67 };
enum { N_A = N_ROWS * N_IN, N_Y = N_ROWS * N_OUT, N_W = N_GROUPS * N_OUT * N_IN };

static const char *variant;
static bool rounds; // it does, to f16
static vkmoe_context *device, *oracle;

// ---- products ----------------------------------------------------------------------------------

struct problem {
    float a[N_A], w[N_W], dy[N_Y];
    int32_t starts[N_GROUPS + 1], members[N_ROWS];
};

struct results {
    float y[N_Y], da[N_A], dw[N_W];
};

// Group 1 has no rows, group 0 most of them.
static uint32_t group_of(uint32_t row)
{
    return row % 9 < 5 ? 0 : row % 3 + 2;
}

// Random numbers, each row times a power of two of its own; they differ by 2^range at most.
static void problem_init(struct problem *p, int a_exponent, int dy_exponent, int range)
{
    int32_t at = 0;
    fill_random(p->a, N_A, 1);
    fill_random(p->w, N_W, 2);
    fill_random(p->dy, N_Y, 3);
    for (uint32_t i = 0; i < N_A; i++)
        p->a[i] = ldexpf(p->a[i], a_exponent + (int) (i / N_IN * 7 % 13) * range / 12);
    for (uint32_t i = 0; i < N_W; i++)
        p->w[i] = ldexpf(p->w[i], (int) (i / N_IN * 5 % 11) * range / 10 - range / 2);
    for (uint32_t i = 0; i < N_Y; i++)
        p->dy[i] = ldexpf(p->dy[i], dy_exponent - (int) (i / N_OUT * 3 % 17) * range / 16);
    p->starts[0] = 0;
    for (uint32_t g = 0; g < N_GROUPS; g++) {
        for (uint32_t r = 0; r < N_ROWS; r++)
            if (group_of(r) == g)
                p->members[at++] = (int32_t) r;
        p->starts[g + 1] = at;
    }
}

// What every product of the net must go to.
static void check_kernels(const struct moe_vk_net *n, const struct moe_vk_variant *want)
{
    const struct moe_vk_net_program *forward = &n->programs[MOE_NET_FORWARD];
    assert_ptr_equal(n->variant, want);
    for (uint32_t i = 0; i < forward->n; i++) {
        bool dw = strcmp(forward->dispatches[i].label, "matmul_dw") == 0;
        assert_int_equal(forward->dispatches[i].spv, dw ? want->dw_bda : want->gemm_bda);
    }
}

static void compute(const struct problem *p, const char *by, struct results *out)
{
    struct moe_vk_products products = {0};
    struct moe_device_net *net;
    const struct moe_backend *backend = device->device->backend;
    const struct moe_net_args args = {.n_tokens = N_ROWS, .n_examples = 1, .step = 1};
    check_ok(moe_vk_products_create(moe_host_default(), N_ROWS, N_GROUPS, N_IN, N_OUT, MOE_NET_F32,
                                    rounds ? VKMOE_PRECISION_HALF : VKMOE_PRECISION_EXACT,
                                    &products));
    products.net->variant = by;
    memset(out, 0xff, sizeof *out);
    check_ok(backend->net_create(device->device, products.net, &net));
    check_ok(backend->net_write(net, products.a, N_A, p->a));
    check_ok(backend->net_write(net, products.w, N_W, p->w));
    check_ok(backend->net_write(net, products.dy, N_Y, p->dy));
    check_ok(backend->net_write(net, products.starts, N_GROUPS + 1, p->starts));
    check_ok(backend->net_write(net, products.members, N_ROWS, p->members));
    check_ok(backend->net_write(net, products.dw, N_W, out->dw));
    check_ok(backend->net_run(net, 1u << MOE_NET_FORWARD, &args));
    check_ok(backend->net_read(net, products.y, N_Y, out->y));
    check_ok(backend->net_read(net, products.da, N_A, out->da));
    check_ok(backend->net_read(net, products.dw, N_W, out->dw));
    for (int v = 0; v < MOE_VK_N_VARIANTS; v++)
        if (strcmp(moe_vk_variants[v].name, by) == 0 && moe_vk_variants[v].nets)
            check_kernels((struct moe_vk_net *) net, &moe_vk_variants[v]);
    backend->net_destroy(net);
    moe_net_destroy(products.net);
}

// ---- the bound ---------------------------------------------------------------------------------

// sum_k x_k y_k in f64, and how far off a device may be. With v = 2^-10, either neighbour in f16,
// and u = 2^-23 each operand is off by v of itself and by 2^-22 of its line's largest, and f32 sums
// by n u sum |terms|.
struct sum {
    double value, magnitude, x, y, largest_x, largest_y;
    uint32_t n;
};

static void sum_add(struct sum *s, float x, float y)
{
    s->value += (double) x * (double) y;
    s->magnitude += fabs((double) x * (double) y);
    s->x += fabs((double) x);
    s->y += fabs((double) y);
    s->largest_x = fmax(s->largest_x, fabs((double) x));
    s->largest_y = fmax(s->largest_y, fabs((double) y));
    s->n++;
}

static bool sum_agrees(const struct sum *s, float got)
{
    const double u = 0x1p-23, v = rounds ? 0x1p-10 : 0, lost = rounds ? 0x1p-22 : 0;
    double of_f16 = (2 * v + v * v) * s->magnitude +
                    lost * (1 + v) * (s->largest_x * s->y + s->largest_y * s->x);
    double bound = of_f16 + 2 * (s->n + 4) * u * (s->magnitude + of_f16) + 0x1p-126;
    return fabs((double) got - s->value) <= bound; // NaN is not
}

// Elements of results that are off.
static uint32_t count_wrong(const struct problem *p, const struct results *got)
{
    uint32_t n_wrong = 0;
    for (uint32_t r = 0; r < N_ROWS; r++) {
        const float *w = p->w + group_of(r) * N_OUT * N_IN, *a = p->a + r * N_IN;
        for (uint32_t o = 0; o < N_OUT; o++) {
            struct sum s = {0};
            for (uint32_t c = 0; c < N_IN; c++)
                sum_add(&s, a[c], w[o * N_IN + c]);
            n_wrong += !sum_agrees(&s, got->y[r * N_OUT + o]);
        }
        for (uint32_t c = 0; c < N_IN; c++) {
            struct sum s = {0};
            for (uint32_t o = 0; o < N_OUT; o++)
                sum_add(&s, p->dy[r * N_OUT + o], w[o * N_IN + c]);
            n_wrong += !sum_agrees(&s, got->da[r * N_IN + c]);
        }
    }
    for (uint32_t i = 0; i < N_W; i++) {
        struct sum s = {0};
        for (uint32_t r = 0; r < N_ROWS; r++)
            if (group_of(r) == i / N_IN / N_OUT)
                sum_add(&s, p->dy[r * N_OUT + i / N_IN % N_OUT], p->a[r * N_IN + i % N_IN]);
        n_wrong += !sum_agrees(&s, got->dw[i]);
    }
    return n_wrong;
}

static void round_all(float *values, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        values[i] = moe_f16_to_f32(moe_f32_to_f16(values[i]));
}

// Right; and the same check finds it wrong of operands that became f16 as they are.
static void check_range(int a_exponent, int dy_exponent, int range, bool beyond_f16)
{
    static struct problem p, rounded;
    static struct results got;
    problem_init(&p, a_exponent, dy_exponent, range);
    compute(&p, variant, &got);
    assert_int_equal(count_wrong(&p, &got), 0);
    rounded = p;
    round_all(rounded.a, N_A);
    round_all(rounded.dy, N_Y);
    compute(&rounded, "a0", &got);
    assert_int_equal(count_wrong(&p, &got) > 0, beyond_f16 || !rounds);
}

static void numbers_of_order_one(void **state)
{
    (void) state;
    check_range(0, 0, 0, false);
}

// Activations around 1e5, gradients around 1e-6 and below, as training has them.
static void large_activations_and_tiny_gradients(void **state)
{
    (void) state;
    check_range(17, -20, 0, true);
    check_range(17, -20, 12, true);
    check_range(-30, -70, 0, true);
}

// Rows and columns of one tile may differ by far more than f16 holds.
static void rows_have_scales_of_their_own(void **state)
{
    (void) state;
    check_range(-24, 24, 48, true);
    check_range(-40, 40, 20, true);
}

// A variant that rounds nothing gives a0's bits.
static void bits_are_those_of_a0(void **state)
{
    (void) state;
    static struct problem p;
    static struct results got, want;
    if (rounds)
        skip();
    problem_init(&p, 3, -5, 12);
    compute(&p, variant, &got);
    compute(&p, "a0", &want);
    assert_memory_equal(&got, &want, sizeof got);
}

// ---- whole networks ----------------------------------------------------------------------------

enum { N_TOKENS = 96, WIDTH = 24, N_CLASSES = 10, N_STEPS = 40, MOST = 8 * 40 * WIDTH };

struct training {
    vkmoe_layer_desc moe;
    vkmoe_net_layer layers[3];
    const vkmoe_net_layer *list[3];
    vkmoe_net_desc desc;
    vkmoe_net_batch batch;
    float x[N_TOKENS * WIDTH];
    int32_t labels[N_TOKENS];
};

static void training_init(struct training *t)
{
    memset(t, 0, sizeof *t);
    t->moe = vkmoe_layer_desc_init();
    t->desc = vkmoe_net_desc_init();
    t->batch = vkmoe_net_batch_init();
    for (uint32_t i = 0; i < 3; i++) {
        t->layers[i] = vkmoe_net_layer_init();
        t->list[i] = &t->layers[i];
    }
    t->moe.n_experts = 8;
    t->moe.top_k = 2;
    t->moe.d_model = WIDTH;
    t->moe.d_ff = 40;
    t->moe.gated = true;
    t->moe.act = VKMOE_ACT_SILU;
    t->layers[0].kind = t->layers[2].kind = VKMOE_NET_LINEAR;
    t->layers[0].d_out = WIDTH;
    t->layers[1].layer = &t->moe;
    t->layers[1].residual = true;
    t->layers[2].d_out = N_CLASSES;
    t->desc.layers = t->list;
    t->desc.n_layers = 3;
    t->desc.d_in = WIDTH;
    t->desc.max_tokens = N_TOKENS;
    t->desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    fill_random(t->x, N_TOKENS * WIDTH, 9);
    for (uint32_t i = 0; i < N_TOKENS; i++) {
        t->labels[i] = (int32_t) (i * 7 % N_CLASSES);
        t->x[i * WIDTH + (uint32_t) t->labels[i]] += 1.5f;
    }
    t->batch.n_tokens = t->batch.n_examples = N_TOKENS;
    t->batch.x = t->x;
    t->batch.labels = t->labels;
}

static vkmoe_net *create(struct training *t, vkmoe_context *context)
{
    vkmoe_net *net;
    t->desc.variant = context == device ? variant : NULL;
    t->desc.precision = rounds && context == device ? VKMOE_PRECISION_HALF
                                                    : VKMOE_PRECISION_EXACT;
    check_ok(vkmoe_net_create(context, &t->desc, &net));
    check_ok(vkmoe_net_init(net, 1));
    return net;
}

// Products of the router stay with a0 where the variant rounds.
static void check_net_kernels(const vkmoe_net *net)
{
    const struct moe_vk_net *n = (const struct moe_vk_net *) net->on_device;
    uint32_t n_own = 0, n_a0 = 0;
    assert_string_equal(n->variant->name, variant);
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++)
        for (uint32_t i = 0; i < n->programs[p].n; i++) {
            const char *kernel = moe_spv_table[n->programs[p].dispatches[i].spv].name;
            n_own += moe_vk_is_own(n->variant, n->programs[p].dispatches[i].spv);
            n_a0 += strcmp(kernel, "net_matmul_bda") == 0 ||
                    strcmp(kernel, "net_matmul_dw_bda") == 0;
        }
    assert_true(n_own >= 15);
    // The router: forward, evaluation, and its two gradients.
    assert_int_equal(n_a0, rounds ? 4 : 0);
}

// Relative L2 error of all gradients: operands round once on the way there and once on the way
// back in each of four products that follow each other, by 2^-11 each, at random.
static void gradients_of_a_network_are_right(void **state)
{
    (void) state;
    static struct training t;
    static float got[MOST], want[MOST];
    training_init(&t);
    vkmoe_net *net = create(&t, device), *of_oracle = create(&t, oracle);
    vkmoe_net *nets[] = {net, of_oracle};
    const double promise = rounds ? 4e-3 : 1e-5;
    double worst = 0;
    check_net_kernels(net);
    for (int i = 0; i < 2; i++) {
        check_ok(vkmoe_net_forward(nets[i], &t.batch));
        check_ok(vkmoe_net_backward(nets[i], 1, NULL));
    }
    for (uint32_t i = 0; i < vkmoe_net_param_count(net); i++) {
        vkmoe_net_param p;
        double error = 0, norm = 0, moved = 0;
        check_ok(vkmoe_net_get_param(net, i, &p));
        const uint32_t n = p.rows * p.width;
        assert_true(n <= MOST && p.has_gradient);
        check_ok(vkmoe_net_read(net, VKMOE_NET_GRADIENT, p.name, got, n));
        check_ok(vkmoe_net_read(of_oracle, VKMOE_NET_GRADIENT, p.name, want, n));
        for (uint32_t j = 0; j < n; j++) {
            error += pow((double) got[j] - (double) want[j], 2);
            moved += pow((double) got[j] - (double) want[(j + p.width) % n], 2);
            norm += pow((double) want[j], 2);
        }
        worst = fmax(worst, sqrt(error / norm));
        if (!(norm > 0 && sqrt(error / norm) <= promise))
            fail_msg("%s: error %g", p.name, sqrt(error / norm));
        assert_true(n == p.width || sqrt(moved / norm) > promise); // a row too far
    }
    print_message("%s: gradients off by %.2g at most\n", variant, worst);
    assert_int_equal(rounds, worst > 1e-5); // f16 is what did it
    for (int i = 0; i < 2; i++)
        vkmoe_net_destroy(nets[i]);
}

// It learns what f32 learns, and the second time gives the same bits.
static void a_network_learns(void **state)
{
    (void) state;
    static struct training t;
    static float weights[2][N_CLASSES * WIDTH];
    double first, last[3];
    training_init(&t);
    for (int i = 0; i < 3; i++) {
        vkmoe_net *net = create(&t, i < 2 ? device : oracle);
        check_ok(vkmoe_net_eval(net, &t.batch, NULL, &first));
        for (uint32_t step = 0; step < N_STEPS; step++)
            check_ok(vkmoe_net_train(net, &t.batch, 0.01f, NULL));
        check_ok(vkmoe_net_eval(net, &t.batch, NULL, &last[i]));
        if (i < 2)
            check_ok(vkmoe_net_read(net, VKMOE_NET_VALUE, "layers.2.weight", weights[i],
                                    N_CLASSES * WIDTH));
        vkmoe_net_destroy(net);
    }
    print_message("%s: loss %.6f -> %.6f, in f64 %.6f\n", variant, first, last[0], last[2]);
    assert_true(last[0] < 0.3 * first);
    check_near(last[0], last[2], 0.01 * (first - last[2]));
    assert_memory_equal(weights[0], weights[1], sizeof weights[0]);
}

static void what_cannot_be_is_refused(void **state)
{
    (void) state;
    static struct training t;
    vkmoe_net *net;
    training_init(&t);
    t.desc.variant = "net-a9";
    check_fails(vkmoe_net_create(device, &t.desc, &net), VKMOE_E_UNSUPPORTED,
                "variant 'net-a9': there are only: a4, a4b");
    t.desc.variant = "a1";
    t.desc.precision = VKMOE_PRECISION_HALF;
    check_fails(vkmoe_net_create(device, &t.desc, &net), VKMOE_E_UNSUPPORTED,
                "it computes layers");
    t.desc.variant = "net-a3"; // precision exact
    t.desc.precision = VKMOE_PRECISION_EXACT;
    check_fails(vkmoe_net_create(device, &t.desc, &net), VKMOE_E_UNSUPPORTED, "precision exact");
    check_fails(vkmoe_net_create(oracle, &t.desc, &net), VKMOE_E_UNSUPPORTED,
                "has no variants to choose from");
    t.desc.variant = NULL;
    t.desc.precision = VKMOE_PRECISION_INT8;
    check_fails(vkmoe_net_create(device, &t.desc, &net), VKMOE_E_ARGUMENT,
                "net.precision = 2: must be exact (0) or half (1)");
}

// ---- gradients of a layer ----------------------------------------------------------------------

enum {
    LAYER_TOKENS = 20,
    LAYER_EXPERTS = 4,
    LAYER_D = 64,
    LAYER_X = LAYER_TOKENS * LAYER_D,
    LAYER_W = LAYER_D * LAYER_D,
};

struct gradients {
    float dx[LAYER_X], up[LAYER_EXPERTS][LAYER_W];
};

static const struct moe_vk_variant *of_name(const char *name)
{
    int v = 0;
    while (strcmp(moe_vk_variants[v].name, name) != 0)
        v++;
    return &moe_vk_variants[v];
}

// Has a pipeline been made of the variant's kernel for gradients?
static bool was_used(vkmoe_context *context)
{
    const struct moe_vk_pipeline *p = moe_vk(context->device)->pipelines;
    const enum moe_spv_id kernel = of_name(variant)->dw_bda;
    while (p && p->spv != kernel)
        p = p->next;
    return p;
}

// By a plan that names a variant of layers, or none.
static enum vkmoe_status backward(vkmoe_context *context, const char *name,
                                  enum vkmoe_precision precision, struct gradients *out)
{
    static float x[LAYER_X], dy[LAYER_X];
    struct layer_data data;
    struct stack stack = {0};
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    vkmoe_backward_io grads = vkmoe_backward_io_init();
    vkmoe_expert_grads experts[LAYER_EXPERTS] = {{NULL}};
    layer.n_experts = LAYER_EXPERTS;
    layer.top_k = 2;
    layer.d_model = layer.d_ff = layer.d_out = LAYER_D;
    layer.gated = true;
    layer_data_init(&data, &layer, 3);
    fill_random(x, LAYER_X, 4);
    fill_random(dy, LAYER_X, 5);
    plan.layer = &data.layer;
    plan.max_tokens = LAYER_TOKENS;
    plan.precision = precision;
    plan.variant = name;
    io.x = x;
    grads.dy = dy;
    grads.dx = out->dx;
    grads.experts = experts;
    for (int e = 0; e < LAYER_EXPERTS; e++)
        experts[e].up = out->up[e];
    check_ok(vkmoe_weights_create(context, &data.desc, &stack.weights));
    check_ok(vkmoe_plan_create(context, &plan, &stack.plan));
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind));
    memset(out, 0xff, sizeof *out);
    enum vkmoe_status status = vkmoe_backward(stack.bind, LAYER_TOKENS, &io, &grads);
    stack_destroy(&stack);
    layer_data_finish(&data);
    return status;
}

static double distance(const struct gradients *a, const struct gradients *b)
{
    const float *u = (const float *) a, *v = (const float *) b;
    double error = 0, norm = 0;
    for (size_t i = 0; i < sizeof *a / sizeof *u; i++) {
        error += ((double) u[i] - v[i]) * ((double) u[i] - v[i]);
        norm += (double) v[i] * v[i];
    }
    return sqrt(error / norm);
}

// A plan's precision and variant are those of its gradients: "a3" has them by "net-a3".
static void gradients_of_a_layer_go_by_its_plan(void **state)
{
    (void) state;
    static struct gradients want, got;
    const char *of_layers = variant + strlen("net-");
    const enum vkmoe_precision precision = rounds ? VKMOE_PRECISION_HALF : VKMOE_PRECISION_EXACT;
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.addressing = VKMOE_ADDRESSING_BDA;
    check_ok(vkmoe_context_create(&desc, &context));
    check_ok(backward(context, "a0", VKMOE_PRECISION_EXACT, &want));
    check_ok(backward(context, "a0", precision, &got));
    assert_memory_equal(&got, &want, sizeof want);
    assert_false(was_used(context));
    check_ok(backward(context, of_layers, precision, &got));
    assert_true(was_used(context));
    if (rounds)
        assert_in_range((uint64_t) (1e9 * distance(&got, &want)), 1000, 4000000); // half: 4e-3
    else
        assert_memory_equal(&got, &want, sizeof want);
    check_ok(backward(context, NULL, VKMOE_PRECISION_EXACT, &got));
    assert_memory_equal(&got, &want, sizeof want);
    moe_vk(context->device)->caps.disabled |= MOE_VK_BIT(of_name(variant)->id);
    check_fails(backward(context, of_layers, precision, &got), VKMOE_E_UNSUPPORTED, variant);
    vkmoe_context_destroy(context);
}

static void validation_found_nothing(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(device), 0);
}

// Can the device do it? Else says why not.
static bool has_variant(void)
{
    static struct training t;
    vkmoe_net *net;
    training_init(&t);
    t.desc.variant = variant;
    t.desc.precision = rounds ? VKMOE_PRECISION_HALF : VKMOE_PRECISION_EXACT;
    enum vkmoe_status status = vkmoe_net_create(device, &t.desc, &net);
    if (status == VKMOE_OK)
        vkmoe_net_destroy(net);
    else
        printf("skip: %s\n", vkmoe_error_text());
    return status == VKMOE_OK;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_of_order_one),
        cmocka_unit_test(large_activations_and_tiny_gradients),
        cmocka_unit_test(rows_have_scales_of_their_own),
        cmocka_unit_test(bits_are_those_of_a0),
        cmocka_unit_test(gradients_of_a_network_are_right),
        cmocka_unit_test(a_network_learns),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(gradients_of_a_layer_go_by_its_plan),
        cmocka_unit_test(validation_found_nothing),
    };
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    variant = argc > 1 ? argv[1] : "net-a0n";
    rounds = strcmp(variant, "net-a0n") != 0;
    desc.device = "reference";
    check_ok(vkmoe_context_create(&desc, &oracle));
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.validation = true;
    desc.addressing = VKMOE_ADDRESSING_BDA;
    check_ok(vkmoe_context_create(&desc, &device));
    int code = has_variant() ? cmocka_run_group_tests(tests, NULL, NULL) != 0 : 77;
    vkmoe_context_destroy(device);
    vkmoe_context_destroy(oracle);
    return code;
}
