// SPDX-License-Identifier: MIT
// vkmoe_backward: every gradient arrives in its place, and every wrong argument has an answer that
// names it. What the gradients are is the oracle's affair (ref_backward.c). Argument: the device.
#include "check.h"
#include "ref_problem.h"

#include <stdlib.h>
#include <vkmoe/train.h>

enum { N_EXPERTS = 4, D_MODEL = 3, D_FF = 4, D_OUT = 2, TOP_K = 2 };

static const char *device;

// A place for every gradient of the problem's layer.
struct outputs {
    float values[MAX_GRADS]; // in the order of problem.places, x first
    vkmoe_router_grads router;
    vkmoe_expert_grads experts[N_EXPERTS], shared;
    vkmoe_backward_io io;
};

// The next place in line if it is of this name, else NULL: the layer has no such parameter.
static float *take(const struct problem *p, uint32_t *place, const char *name, float **next)
{
    if (*place >= p->n_places || strcmp(p->places[*place].name, name) != 0)
        return NULL;
    float *here = *next;
    *next += p->places[(*place)++].n;
    return here;
}

static void take_expert(const struct problem *p, uint32_t *place, vkmoe_expert_grads *out,
                        float **next)
{
    out->gate = take(p, place, "gate", next);
    out->up = take(p, place, "up", next);
    out->down = take(p, place, "down", next);
    out->gate_bias = take(p, place, "gate_bias", next);
    out->up_bias = take(p, place, "up_bias", next);
    out->down_bias = take(p, place, "down_bias", next);
}

static void outputs_init(struct outputs *out, const struct problem *p, const float *dy)
{
    uint32_t place = 0;
    float *next = out->values;
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < MAX_GRADS; i++)
        out->values[i] = 777;
    out->io = vkmoe_backward_io_init();
    out->io.dy = dy;
    out->io.dx = take(p, &place, "x", &next);
    out->router.weight = take(p, &place, "router", &next);
    out->router.bias = take(p, &place, "router_bias", &next);
    out->router.shared_gate = take(p, &place, "shared_gate", &next);
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        take_expert(p, &place, &out->experts[e], &next);
    if (p->data.layer.d_shared_ff > 0)
        take_expert(p, &place, &out->shared, &next);
    assert_int_equal(place, p->n_places);
    out->io.router = &out->router;
    out->io.experts = out->experts;
    out->io.shared = p->data.layer.d_shared_ff > 0 ? &out->shared : NULL;
}

// A problem, the objects that run it on the device, and its x and dy as f32.
struct scene {
    struct problem p;
    struct stack stack;
    float x[N_TOKENS * D_MODEL], dy[N_TOKENS * D_OUT];
    float y[N_TOKENS * D_OUT], gates[N_TOKENS * TOP_K], scores[N_TOKENS * N_EXPERTS];
    int32_t ids[N_TOKENS * TOP_K];
    vkmoe_io io;
    struct outputs out;
};

static void scene_init(struct scene *s, uint32_t i)
{
    vkmoe_layer_desc layer = small_layer(i);
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    problem_init(&s->p, &layer, i);
    problem_run(&s->p);
    problem_backward(&s->p);
    check_ok(stack_create(&s->stack, &desc, &s->p.data, N_TOKENS, true));
    for (uint32_t j = 0; j < N_TOKENS * D_MODEL; j++)
        s->x[j] = (float) s->p.run->values[MOE_VALUE_X][j];
    for (uint32_t j = 0; j < N_TOKENS * D_OUT; j++)
        s->dy[j] = (float) s->p.dy[j];
    s->io = vkmoe_io_init();
    s->io.x = s->x, s->io.y = s->y, s->io.ids = s->ids;
    s->io.gates = s->gates, s->io.scores = s->scores;
    outputs_init(&s->out, &s->p, s->dy);
}

static void scene_finish(struct scene *s)
{
    stack_destroy(&s->stack);
    problem_finish(&s->p);
}

static bool is_reference(void)
{
    return strcmp(device, "reference") == 0;
}

// The oracle's numbers: the reference rounds each once; other devices add up f32. There a gradient
// is a sum of at most 64 products of numbers whose sizes together stay below 16, and so is each
// factor in it: 64 * 2^-24 * 16.
static void check_value(float got, double want)
{
    if (is_reference())
        assert_true(got == (float) want);
    else
        check_near((double) got, want, 0x1p-14);
}

// ---- values -----------------------------------------------------------------------------------

// The call gives the oracle's numbers, each rounded once, in the tensors that ask for them; with
// accumulate it adds them, but to dx.
static void test_values(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 12; i++) {
        struct scene s;
        scene_init(&s, i);
        const double *want = s.p.grads->memory;
        check_ok(vkmoe_backward(s.stack.bind, N_TOKENS, &s.io, &s.out.io));
        double control = 0;
        for (uint32_t j = 0; j < s.p.n_grads; j++) {
            check_value(s.out.values[j], want[j]);
            control = fmax(control, fabs(want[(j + 1) % s.p.n_grads] - want[j]));
        }
        assert_true(control > 0.01); // the next one in place of each would be noticed
        assert_true(s.out.values[s.p.n_grads] == 777);
        for (uint32_t j = 0; j < N_TOKENS * D_OUT; j++)
            check_value(s.y[j], s.p.run->values[MOE_VALUE_Y][j]);
        for (uint32_t j = 0; j < N_TOKENS * TOP_K; j++)
            assert_true(s.ids[j] == (int32_t) s.p.run->values[MOE_VALUE_IDS][j]);

        s.out.io.accumulate = true;
        check_ok(vkmoe_backward(s.stack.bind, N_TOKENS, &s.io, &s.out.io));
        for (uint32_t j = 0; j < s.p.n_grads; j++) {
            bool is_x = j < N_TOKENS * D_MODEL;
            double before = is_x ? 0 : (double) (float) want[j];
            check_value(s.out.values[j], before + want[j]);
        }
        scene_finish(&s);
    }
}

// Any output may be left out, and the rest is as before.
static void test_not_wanted(void **state)
{
    (void) state;
    struct scene s;
    scene_init(&s, 4);
    struct outputs few;
    outputs_init(&few, &s.p, s.dy);
    check_ok(vkmoe_backward(s.stack.bind, N_TOKENS, &s.io, &s.out.io));
    few.io.dx = NULL;
    few.io.router = NULL;
    few.io.shared = NULL;
    memset(few.experts, 0, sizeof few.experts);
    few.experts[2].down = few.values;
    vkmoe_io io = vkmoe_io_init();
    io.x = s.x;
    check_ok(vkmoe_backward(s.stack.bind, N_TOKENS, &io, &few.io));
    assert_memory_equal(few.values, s.out.experts[2].down, D_FF * D_OUT * sizeof(float));
    assert_true(few.values[D_FF * D_OUT] == 777);
    few.io.experts = NULL;
    check_ok(vkmoe_backward(s.stack.bind, N_TOKENS, &io, &few.io));
    scene_finish(&s);
}

// Rows apart in memory, and a caller whose struct ends before `accumulate`.
static void test_strides(void **state)
{
    (void) state;
    struct scene s;
    scene_init(&s, 2);
    float dy[N_TOKENS * 5], dx[N_TOKENS * 7];
    memset(dy, 0xff, sizeof dy);
    for (uint32_t i = 0; i < N_TOKENS * 7; i++)
        dx[i] = 777;
    for (uint32_t t = 0; t < N_TOKENS; t++)
        memcpy(dy + (size_t) t * 5, s.dy + (size_t) t * D_OUT, D_OUT * sizeof *dy);
    s.out.io.dy = dy, s.out.io.dx = dx;
    s.out.io.dy_stride = sizeof dy / N_TOKENS;
    s.out.io.dx_stride = sizeof dx / N_TOKENS;
    s.out.io.accumulate = true;
    s.out.io.struct_size = offsetof(vkmoe_backward_io, accumulate);
    check_ok(vkmoe_backward(s.stack.bind, N_TOKENS, &s.io, &s.out.io));
    for (uint32_t i = 0; i < N_TOKENS * 7; i++) {
        const double *row = s.p.grads->x + i / 7 * D_MODEL;
        if (i % 7 < D_MODEL)
            check_value(dx[i], row[i % 7]);
        else
            assert_true(dx[i] == 777);
    }
    check_value(s.out.router.weight[1], s.p.grads->router[1]);
    scene_finish(&s);
}

// dy and dx have the plan's type. The loss is linear in dy, so dy = 1.5 in bf16 is 1.5 dx.
static void test_half_rows(void **state)
{
    (void) state;
    struct scene s;
    scene_init(&s, 1);
    struct stack half;
    vkmoe_context_desc context = vkmoe_context_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    context.device = device;
    plan.max_tokens = 1;
    plan.x_type = VKMOE_BF16;
    check_ok(stack_create_plan(&half, &context, &s.p.data, &plan));
    const float ones[D_OUT] = {1, 1}, x[D_MODEL] = {0.5f, -1, 0.25f};
    const uint16_t half_dy[D_OUT] = {0x3fc0, 0x3fc0}, half_x[D_MODEL] = {0x3f00, 0xbf80, 0x3e80};
    float dx[D_MODEL];
    uint16_t half_dx[D_MODEL];
    vkmoe_io io = vkmoe_io_init();
    vkmoe_backward_io out = vkmoe_backward_io_init();
    io.x = x, out.dy = ones, out.dx = dx;
    check_ok(vkmoe_backward(s.stack.bind, 1, &io, &out));
    io.x = half_x, out.dy = half_dy, out.dx = half_dx;
    check_ok(vkmoe_backward(half.bind, 1, &io, &out));
    for (uint32_t i = 0; i < D_MODEL; i++) {
        uint32_t bits = (uint32_t) half_dx[i] << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        assert_true(dx[i] != 0);
        check_near((double) value, 1.5 * (double) dx[i], 0x1p-8 * fabs(1.5 * (double) dx[i]));
    }
    stack_destroy(&half);
    scene_finish(&s);
}

static void test_no_tokens(void **state)
{
    (void) state;
    struct scene s;
    vkmoe_io io = vkmoe_io_init();
    scene_init(&s, 1);
    uint32_t n_x = N_TOKENS * D_MODEL;
    struct outputs before; // leaves its gradients on the device
    outputs_init(&before, &s.p, s.dy);
    check_ok(vkmoe_backward(s.stack.bind, N_TOKENS, &s.io, &before.io));
    s.out.io.dy = NULL;
    s.out.io.accumulate = true;
    check_ok(vkmoe_backward(s.stack.bind, 0, &io, &s.out.io));
    for (uint32_t j = 0; j < s.p.n_grads; j++)
        assert_true(s.out.values[j] == 777);
    s.out.io.accumulate = false;
    check_ok(vkmoe_backward(s.stack.bind, 0, &io, &s.out.io));
    for (uint32_t j = 0; j < s.p.n_grads; j++)
        assert_true(s.out.values[j] == (j < n_x ? 777 : 0));
    scene_finish(&s);
}

// ---- wrong arguments --------------------------------------------------------------------------

static void test_arguments(void **state)
{
    (void) state;
    struct scene s;
    scene_init(&s, 1); // a shared expert with a gate, no router bias
    vkmoe_bind *bind = s.stack.bind;
    vkmoe_backward_io out;
    vkmoe_io io;
#define WRONG(struct, field, value, status, text)                                                  \
    do {                                                                                           \
        io = s.io;                                                                                 \
        out = s.out.io;                                                                            \
        struct.field = (value);                                                                    \
        check_fails(vkmoe_backward(bind, N_TOKENS, &io, &out), status, text);                      \
    } while (0)
    WRONG(out, struct_size, 0, VKMOE_E_ARGUMENT, "vkmoe_backward_io.struct_size = 0");
    WRONG(io, struct_size, 0, VKMOE_E_ARGUMENT, "vkmoe_io.struct_size = 0");
    WRONG(io, x, NULL, VKMOE_E_ARGUMENT, "vkmoe_backward: io->x is NULL");
    WRONG(out, dy, NULL, VKMOE_E_ARGUMENT, "vkmoe_backward: out->dy is NULL");
    WRONG(out, dy, (const char *) s.dy + 2, VKMOE_E_ARGUMENT, "backward.dy at ");
    WRONG(out, dx, (char *) s.out.values + 1, VKMOE_E_ARGUMENT, "backward.dx at ");
    WRONG(out, dy_stride, 4, VKMOE_E_ARGUMENT, "backward.dy_stride = 4: a row takes 8 bytes");
    WRONG(out, dx_stride, 14, VKMOE_E_ARGUMENT, "backward.dx_stride = 14: must be a multiple of 4");
    WRONG(out, dx_stride, SIZE_MAX - 3, VKMOE_E_SHAPE, "backward.dx: 3 rows");
    WRONG(io, x_stride, 4, VKMOE_E_ARGUMENT, "io.x_stride = 4: a row takes 12 bytes");
    WRONG(out, dx, s.x, VKMOE_E_ARGUMENT, "io.x and backward.dx overlap");
    WRONG(out, dx, s.dy, VKMOE_E_ARGUMENT, "backward.dy and backward.dx overlap");
    WRONG(out, dx, s.y + 1, VKMOE_E_ARGUMENT, "io.y and backward.dx overlap");
    WRONG(out, dx, s.out.router.weight - 1, VKMOE_E_ARGUMENT,
          "backward.dx and backward.router.weight overlap");
#undef WRONG
    out = s.out.io;
    float spare[64];
#define WRONG(place, value, text)                                                                  \
    do {                                                                                           \
        float *before = (place);                                                                   \
        (place) = (value);                                                                         \
        check_fails(vkmoe_backward(bind, N_TOKENS, &s.io, &out), VKMOE_E_ARGUMENT, text);          \
        (place) = before;                                                                          \
    } while (0)
    float *uneven = (float *) (void *) ((char *) spare + 2);
    WRONG(s.out.router.bias, spare, "backward.router: a gradient of bias is wanted, the layer has");
    WRONG(s.out.router.weight, uneven, "backward.router.weight at ");
    WRONG(s.out.experts[3].up, uneven, "backward.experts[3].up at ");
    WRONG(s.out.shared.down, uneven, "backward.shared.down at ");
    WRONG(s.out.experts[1].up, s.out.experts[3].down + 1,
          "backward.experts[1].up and backward.experts[3].down overlap");
    WRONG(s.out.shared.down, s.out.router.shared_gate,
          "backward.router.shared_gate and backward.shared.down overlap");
    WRONG(s.out.experts[0].down, s.gates, "io.gates and backward.experts[0].down overlap");
#undef WRONG
    check_fails(vkmoe_backward(NULL, 1, &s.io, &out), VKMOE_E_ARGUMENT, "bind is NULL");
    check_fails(vkmoe_backward(bind, 1, NULL, &out), VKMOE_E_ARGUMENT, "io is NULL");
    check_fails(vkmoe_backward(bind, 1, &s.io, NULL), VKMOE_E_ARGUMENT, "out is NULL");
    check_fails(vkmoe_backward(bind, N_TOKENS + 1, &s.io, &out), VKMOE_E_SHAPE,
                "n_tokens = 4: the plan has max_tokens = 3");
    for (uint32_t i = 0; i < MAX_GRADS; i++)
        assert_true(s.out.values[i] == 777); // a refused call writes nothing

    io = s.io;
    float rows[N_TOKENS * D_MODEL] = {0};
    io.x = out.dy = rows; // what is only read may be read twice
    check_ok(vkmoe_backward(bind, N_TOKENS, &io, &out));
    scene_finish(&s);
}

// Gradients of what the layer does not have: no shared expert, no gate.
static void test_absent(void **state)
{
    (void) state;
    struct scene s;
    float spare[64];
    vkmoe_expert_grads shared = {.up = spare};
    scene_init(&s, 6); // plain experts without a shared one
    s.out.io.shared = &shared;
    check_fails(vkmoe_backward(s.stack.bind, 1, &s.io, &s.out.io), VKMOE_E_ARGUMENT,
                "backward.shared: a gradient of up is wanted, the layer has none");
    shared.up = NULL;
    check_ok(vkmoe_backward(s.stack.bind, 1, &s.io, &s.out.io));
    s.out.experts[2].gate = spare;
    check_fails(vkmoe_backward(s.stack.bind, 1, &s.io, &s.out.io), VKMOE_E_ARGUMENT,
                "backward.experts: a gradient of gate is wanted, the layer has none");
    s.out.experts[2].gate = NULL;
    s.out.router.shared_gate = spare;
    check_fails(vkmoe_backward(s.stack.bind, 1, &s.io, &s.out.io), VKMOE_E_ARGUMENT,
                "backward.router: a gradient of shared_gate is wanted");
    scene_finish(&s);
}

// ---- memory -----------------------------------------------------------------------------------

static long left, live;

static void *count_alloc(void *user, size_t size, size_t align)
{
    (void) user;
    void *memory = NULL;
    if (left-- <= 0 || posix_memalign(&memory, align, size) != 0)
        return NULL;
    live++;
    return memory;
}

static void count_free(void *user, void *memory)
{
    (void) user;
    live--;
    free(memory);
}

// Each allocation of the call fails once: a clean error, nothing left over, and then it works.
static void test_every_allocation_may_fail(void **state)
{
    (void) state;
    struct scene s;
    vkmoe_host host = vkmoe_host_init();
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    host.alloc = count_alloc;
    host.free = count_free;
    desc.device = device;
    desc.host = &host;
    scene_init(&s, 1);
    stack_destroy(&s.stack);
    left = 1000;
    check_ok(stack_create(&s.stack, &desc, &s.p.data, N_TOKENS, true));
    long before = live, n = 0;
    for (;; n++) {
        left = n;
        enum vkmoe_status status = vkmoe_backward(s.stack.bind, N_TOKENS, &s.io, &s.out.io);
        if (is_reference())
            assert_int_equal(live, before); // others keep a net for the next call
        if (status == VKMOE_OK)
            break;
        assert_int_equal(status, VKMOE_E_MEMORY);
    }
    assert_true(n >= 4); // there were allocations to fail
    scene_finish(&s);
    assert_int_equal(live, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),    cmocka_unit_test(test_not_wanted),
        cmocka_unit_test(test_strides),   cmocka_unit_test(test_half_rows),
        cmocka_unit_test(test_no_tokens), cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_absent),    cmocka_unit_test(test_every_allocation_may_fail),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
