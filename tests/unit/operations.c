// SPDX-License-Identifier: MIT
// Route, gather and combine as operations of their own, with experts that are computed here.
// Argument: the device.
#include "check.h"
#include "fixture.h"

#include <stdlib.h>
#include <vkmoe/train.h>

enum { MAX_TOKENS = 37, MAX_SLOTS = MAX_TOKENS * 8, WIDTH = 8, PAD = 3 };

static const char *device;
static vkmoe_context_desc context_desc;

// ---- plans of a layer ------------------------------------------------------------------------

// A layer of plain experts, f(x) = W_down W_up x, with the operations on what is external of it.
struct work {
    struct layer_data data;
    struct stack whole, reference;
    vkmoe_layer_desc layer; // external
    vkmoe_weights *router;
    vkmoe_plan *plans[4];
    vkmoe_bind *binds[4]; // by enum vkmoe_operation; none of 0
    enum vkmoe_dtype x_type;
};

static vkmoe_layer_desc plain_layer(void)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 5;
    layer.top_k = 2;
    layer.d_model = layer.d_out = WIDTH;
    layer.d_ff = 7;
    layer.c_routed = 0.75f;
    layer.out_scale = -1.5f;
    return layer;
}

static void make_operation(struct work *w, enum vkmoe_operation operation, vkmoe_weights *weights)
{
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    desc.layer = &w->layer;
    desc.max_tokens = MAX_TOKENS;
    desc.x_type = w->x_type;
    desc.operation = operation;
    check_ok(vkmoe_plan_create(w->whole.context, &desc, &w->plans[operation]));
    check_ok(vkmoe_bind_create(w->plans[operation], weights, NULL, &w->binds[operation]));
}

static void work_init(struct work *w, const vkmoe_layer_desc *layer, enum vkmoe_dtype x_type)
{
    vkmoe_context_desc reference = vkmoe_context_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    *w = (struct work){.layer = *layer, .x_type = x_type};
    layer_data_init(&w->data, layer, 5);
    reference.device = "reference";
    plan.max_tokens = MAX_TOKENS;
    plan.x_type = x_type;
    plan.layer = &w->data.layer;
    check_ok(stack_create_plan(&w->whole, &context_desc, &w->data, &plan));
    check_ok(stack_create_plan(&w->reference, &reference, &w->data, &plan));

    vkmoe_weights_desc router = vkmoe_weights_desc_init();
    w->layer.expert_kind = VKMOE_EXPERT_EXTERNAL;
    w->layer.d_ff = 0;
    router.layer = &w->layer;
    router.router = &w->data.router;
    check_ok(vkmoe_weights_create(w->whole.context, &router, &w->router));
    make_operation(w, VKMOE_OPERATION_ROUTE, w->router);
    make_operation(w, VKMOE_OPERATION_GATHER, NULL);
    make_operation(w, VKMOE_OPERATION_COMBINE, NULL);
}

static void work_finish(struct work *w)
{
    for (int i = 0; i < 4; i++) {
        vkmoe_bind_destroy(w->binds[i]);
        vkmoe_plan_destroy(w->plans[i]);
    }
    vkmoe_weights_destroy(w->router);
    stack_destroy(&w->whole);
    stack_destroy(&w->reference);
    layer_data_finish(&w->data);
}

// ---- a layer by hand -------------------------------------------------------------------------

struct arrays {
    float x[MAX_TOKENS * WIDTH], y[MAX_TOKENS * WIDTH], scratch[WIDTH];
    unsigned char x_rows[MAX_TOKENS * WIDTH * 4], y_rows[MAX_TOKENS * WIDTH * 4];
    unsigned char rows[MAX_SLOTS * (WIDTH + PAD) * 4];
    int32_t ids[MAX_SLOTS], slots[MAX_SLOTS];
    float gates[MAX_SLOTS];
    uint32_t counts[64], offsets[65];
};

static size_t element_size(enum vkmoe_dtype type)
{
    return type == VKMOE_F32 ? 4 : 2;
}

static void set_x(const struct work *w, struct arrays *a, uint32_t n_tokens)
{
    const size_t n = (size_t) n_tokens * WIDTH;
    fill_random(a->x, n, 17);
    check_ok(vkmoe_dtype_convert(w->x_type, a->x, n, a->x_rows));
    check_ok(vkmoe_dtype_to_f32(w->x_type, a->x_rows, n, a->x));
}

static void route(const struct work *w, struct arrays *a, uint32_t n_tokens)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = a->x_rows;
    io.ids = a->ids;
    io.gates = a->gates;
    memset(a->ids, 0x77, sizeof a->ids);
    memset(a->gates, 0xff, sizeof a->gates);
    check_ok(vkmoe_run(w->binds[VKMOE_OPERATION_ROUTE], n_tokens, &io));
}

static vkmoe_io gather_io(const struct work *w, struct arrays *a)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = a->x_rows;
    io.ids = a->ids;
    io.rows = a->rows;
    io.rows_stride = (WIDTH + PAD) * element_size(w->x_type);
    io.slots = a->slots;
    io.counts = a->counts;
    io.offsets = a->offsets;
    return io;
}

static void gather(const struct work *w, struct arrays *a, uint32_t n_tokens)
{
    const vkmoe_io io = gather_io(w, a);
    memset(a->rows, 0xab, sizeof a->rows);
    memset(a->slots, 0x77, sizeof a->slots);
    memset(a->counts, 0x77, sizeof a->counts);
    memset(a->offsets, 0x77, sizeof a->offsets);
    check_ok(vkmoe_run(w->binds[VKMOE_OPERATION_GATHER], n_tokens, &io));
}

static void combine(const struct work *w, struct arrays *a, uint32_t n_tokens)
{
    vkmoe_io io = vkmoe_io_init();
    io.rows = a->rows;
    io.rows_stride = (WIDTH + PAD) * element_size(w->x_type);
    io.slots = a->slots;
    io.gates = a->gates;
    io.y = a->y_rows;
    if (w->layer.n_zero > 0) {
        io.x = a->x_rows;
        io.ids = a->ids;
    }
    memset(a->y_rows, 0xff, sizeof a->y_rows);
    check_ok(vkmoe_run(w->binds[VKMOE_OPERATION_COMBINE], n_tokens, &io));
    check_ok(vkmoe_dtype_to_f32(w->x_type, a->y_rows, (size_t) n_tokens * WIDTH, a->y));
}

// What gather says, from the ids alone; the rows are those of x to the bit, and nothing else is
// touched.
static void check_gathered(const struct work *w, const struct arrays *a, uint32_t n_tokens)
{
    const uint32_t top_k = w->layer.top_k, n_slots = n_tokens * top_k;
    const size_t element = element_size(w->x_type), row = WIDTH * element;
    const size_t stride = (WIDTH + PAD) * element;
    uint32_t n = 0;
    for (uint32_t e = 0; e < w->layer.n_experts; e++) {
        assert_int_equal(a->offsets[e], n);
        for (uint32_t slot = 0; slot < n_slots; slot++) {
            if (a->ids[slot] != (int32_t) e)
                continue;
            assert_int_equal(a->slots[n], slot);
            assert_memory_equal(a->rows + n * stride, a->x_rows + slot / top_k * row, row);
            for (size_t i = n * stride + row; i < (n + 1) * stride; i++)
                assert_int_equal(a->rows[i], 0xab);
            n++;
        }
        assert_int_equal(a->counts[e], n - a->offsets[e]);
    }
    assert_int_equal(a->offsets[w->layer.n_experts], n);
    for (size_t i = n * stride; i < sizeof a->rows; i++)
        assert_int_equal(a->rows[i], 0xab);
    for (uint32_t i = n; i < n_slots; i++)
        assert_int_equal(a->slots[i], -1);
    for (uint32_t i = n_slots; i < MAX_SLOTS; i++)
        assert_int_equal(a->slots[i], 0x77777777);
}

// Each expert on its rows, in place, in f64; rounded to x's type.
static void run_experts(const struct work *w, struct arrays *a)
{
    const size_t stride = (WIDTH + PAD) * element_size(w->x_type);
    for (uint32_t e = 0; e < w->layer.n_experts; e++) {
        const float *up = w->data.experts[e].up.data, *down = w->data.experts[e].down.data;
        for (uint32_t r = a->offsets[e]; r < a->offsets[e] + a->counts[e]; r++) {
            double h[16], f[WIDTH] = {0};
            check_ok(vkmoe_dtype_to_f32(w->x_type, a->rows + r * stride, WIDTH, a->scratch));
            for (uint32_t i = 0; i < w->data.layer.d_ff; i++) {
                h[i] = 0;
                for (uint32_t c = 0; c < WIDTH; c++)
                    h[i] += (double) up[i * WIDTH + c] * (double) a->scratch[c];
            }
            for (uint32_t o = 0; o < WIDTH; o++)
                for (uint32_t i = 0; i < w->data.layer.d_ff; i++)
                    f[o] += (double) down[o * w->data.layer.d_ff + i] * h[i];
            for (uint32_t o = 0; o < WIDTH; o++)
                a->scratch[o] = (float) f[o];
            check_ok(vkmoe_dtype_convert(w->x_type, a->scratch, WIDTH, a->rows + r * stride));
        }
    }
}

// y is the sum over the rows there are, within the rounding of top_k + 3 f32 operations and of y to
// its type. Returns the number of elements that are not.
static uint32_t count_wrong(const struct work *w, struct arrays *a, uint32_t n_tokens)
{
    static const double units[] = {0x1p-24, 0x1p-11, 0x1p-8};
    const uint32_t top_k = w->layer.top_k, n_slots = n_tokens * top_k;
    const size_t stride = (WIDTH + PAD) * element_size(w->x_type);
    const double n = top_k + 3.0, gamma = n * units[0] / (1 - n * units[0]);
    const double scale = (double) w->layer.c_routed * (double) w->layer.out_scale;
    double sum[MAX_TOKENS * WIDTH] = {0}, size[MAX_TOKENS * WIDTH] = {0};
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < n_slots; i++) {
        const bool identity = a->ids[i] >= (int32_t) w->layer.n_experts;
        for (uint32_t c = 0; identity && c < WIDTH; c++) {
            const uint32_t at = i / top_k * WIDTH + c;
            sum[at] += scale * (double) a->gates[i] * (double) a->x[at];
            size[at] += fabs(scale * (double) a->gates[i] * (double) a->x[at]);
        }
        if (a->slots[i] < 0)
            continue;
        const uint32_t slot = (uint32_t) a->slots[i];
        check_ok(vkmoe_dtype_to_f32(w->x_type, a->rows + i * stride, WIDTH, a->scratch));
        for (uint32_t c = 0; c < WIDTH; c++) {
            const double term = scale * (double) a->gates[slot] * (double) a->scratch[c];
            sum[slot / top_k * WIDTH + c] += term;
            size[slot / top_k * WIDTH + c] += fabs(term);
        }
    }
    for (uint32_t i = 0; i < n_tokens * WIDTH; i++) {
        const double bound = gamma * size[i] + units[w->x_type] * (fabs(sum[i]) + gamma * size[i]);
        wrong += !(fabs((double) a->y[i] - sum[i]) <= bound + 0x1p-25 * (w->x_type == VKMOE_F16));
    }
    return wrong;
}

// And what the oracle makes of the whole layer, within the promise of the class exact.
static void check_whole(const struct work *w, struct arrays *a, uint32_t n_tokens)
{
    static float want[MAX_TOKENS * WIDTH];
    double error = 0, norm = 0;
    vkmoe_io io = vkmoe_io_init();
    io.x = a->x_rows;
    io.y = want;
    check_ok(vkmoe_run(w->reference.bind, n_tokens, &io));
    for (uint32_t i = 0; i < n_tokens * WIDTH; i++) {
        error += pow((double) a->y[i] - (double) want[i], 2);
        norm += pow((double) want[i], 2);
    }
    check_near(sqrt(error), 0, 1e-5 * sqrt(norm));
}

static void check_route(const struct work *w, const struct arrays *a, uint32_t n_tokens)
{
    static int32_t ids[MAX_SLOTS];
    static float gates[MAX_SLOTS], y[MAX_TOKENS * WIDTH];
    const size_t n = (size_t) n_tokens * w->layer.top_k;
    vkmoe_io io = vkmoe_io_init();
    io.x = a->x_rows;
    io.y = y;
    io.ids = ids;
    io.gates = gates;
    check_ok(vkmoe_run(w->whole.bind, n_tokens, &io));
    assert_memory_equal(a->ids, ids, n * sizeof *ids);
    assert_memory_equal(a->gates, gates, n * sizeof *gates);
}

static void swap_rows(const struct work *w, struct arrays *a)
{
    const size_t row = WIDTH * element_size(w->x_type), stride = row + PAD * row / WIDTH;
    unsigned char other[WIDTH * 4];
    memcpy(other, a->rows, row);
    memcpy(a->rows, a->rows + stride, row);
    memcpy(a->rows + stride, other, row);
}

static void check_layer(const vkmoe_layer_desc *layer, enum vkmoe_dtype x_type)
{
    static const uint32_t counts[] = {1, 4, 5, MAX_TOKENS};
    struct work w;
    static struct arrays a;
    work_init(&w, layer, x_type);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const uint32_t n = counts[i];
        set_x(&w, &a, n);
        route(&w, &a, n);
        check_route(&w, &a, n);
        gather(&w, &a, n);
        check_gathered(&w, &a, n);
        run_experts(&w, &a);
        combine(&w, &a, n);
        assert_int_equal(count_wrong(&w, &a, n), 0);
        if (x_type == VKMOE_F32)
            check_whole(&w, &a, n);
        if (a.offsets[layer->n_experts] < 2)
            continue;
        swap_rows(&w, &a); // the same check must see two rows in each other's place
        assert_true(count_wrong(&w, &a, n) > 0);
    }
    work_finish(&w);
}

// ---- layers ----------------------------------------------------------------------------------

static void test_layers(void **state)
{
    (void) state;
    static const uint32_t shapes[][2] = {{1, 1}, {2, 1}, {7, 7}, {60, 8}};
    vkmoe_layer_desc layer = plain_layer();
    for (enum vkmoe_dtype type = VKMOE_F32; type <= VKMOE_BF16; type++)
        check_layer(&layer, type);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        layer.n_experts = shapes[i][0];
        layer.top_k = shapes[i][1];
        check_layer(&layer, VKMOE_F32);
    }
}

static void test_unused_slots(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = plain_layer();
    layer.top_k = 4;
    layer.select = VKMOE_SELECT_TOP_P;
    layer.select_p = 0.5f;
    check_layer(&layer, VKMOE_F32);
    layer = plain_layer();
    layer.capacity_mode = VKMOE_CAPACITY_BY_POSITION;
    layer.capacity = 3;
    check_layer(&layer, VKMOE_F32);
    layer.capacity_mode = VKMOE_CAPACITY_BY_GATE;
    check_layer(&layer, VKMOE_BF16);
}

static void test_identity_experts(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = plain_layer();
    layer.n_zero = 3;
    layer.top_k = 3;
    check_layer(&layer, VKMOE_F32);
    check_layer(&layer, VKMOE_F16);
}

// Slots that no row is of, rows in any order, no rows at all.
static void test_any_slots(void **state)
{
    (void) state;
    enum { N = 6 };
    struct work w;
    static struct arrays a;
    const vkmoe_layer_desc layer = plain_layer();
    work_init(&w, &layer, VKMOE_F32);
    for (uint32_t i = 0; i < N * 2; i++) {
        a.ids[i] = -1;
        a.slots[i] = -1;
        a.gates[i] = 0.5f;
    }
    set_x(&w, &a, N);
    gather(&w, &a, N);
    check_gathered(&w, &a, N);
    combine(&w, &a, N);
    for (uint32_t i = 0; i < N * WIDTH; i++)
        assert_true(a.y[i] == 0);
    fill_random((float *) a.rows, sizeof a.rows / 4, 3);
    a.slots[1] = 11;
    a.slots[7] = 0;
    a.slots[11] = 3;
    combine(&w, &a, N);
    assert_int_equal(count_wrong(&w, &a, N), 0);
    a.slots[7] = 1;
    combine(&w, &a, N);
    a.slots[7] = 5;
    assert_int_equal(count_wrong(&w, &a, N), 2 * WIDTH);
    work_finish(&w);
}

// ---- bad input -------------------------------------------------------------------------------

static struct work bad;
static struct arrays bad_arrays;

static void run_fails(enum vkmoe_operation operation, const vkmoe_io *io, enum vkmoe_status status,
                      const char *text)
{
    check_fails(vkmoe_run(bad.binds[operation], 4, io), status, text);
}

static void test_bad_io(void **state)
{
    (void) state;
    struct arrays *a = &bad_arrays;
    const vkmoe_layer_desc layer = plain_layer();
    work_init(&bad, &layer, VKMOE_F32);
    set_x(&bad, a, 4);
    route(&bad, a, 4);
    const vkmoe_io good = gather_io(&bad, a);
    check_ok(vkmoe_run(bad.binds[VKMOE_OPERATION_GATHER], 4, &good));
    vkmoe_io io;
#define WRONG(operation, field, value, status, text)                                               \
    do {                                                                                           \
        io = good;                                                                                 \
        io.field = value;                                                                          \
        run_fails(VKMOE_OPERATION_##operation, &io, status, text);                                 \
    } while (0)
    WRONG(GATHER, x, NULL, VKMOE_E_ARGUMENT, "io.x is NULL, the operation gather reads it");
    WRONG(GATHER, ids, NULL, VKMOE_E_ARGUMENT, "io.ids is NULL");
    WRONG(GATHER, rows, NULL, VKMOE_E_ARGUMENT, "io.rows is NULL, the operation gather writes it");
    WRONG(GATHER, slots, NULL, VKMOE_E_ARGUMENT, "io.slots is NULL");
    WRONG(GATHER, counts, NULL, VKMOE_E_ARGUMENT, "io.counts is NULL");
    WRONG(GATHER, offsets, NULL, VKMOE_E_ARGUMENT, "io.offsets is NULL");
    WRONG(GATHER, y, a->y, VKMOE_E_ARGUMENT, "io.y is given, the operation gather");
    WRONG(GATHER, gates, a->gates, VKMOE_E_ARGUMENT, "io.gates is given");
    WRONG(GATHER, rows_stride, 4, VKMOE_E_ARGUMENT, "io.rows_stride = 4: a row takes 32 bytes");
    WRONG(GATHER, rows, a->rows + 2, VKMOE_E_ARGUMENT, "io.rows at ");
    WRONG(GATHER, rows, a->x_rows + 32, VKMOE_E_ARGUMENT, "io.x and io.rows overlap");
    WRONG(GATHER, slots, a->ids, VKMOE_E_ARGUMENT, "io.ids and io.slots overlap");
    WRONG(GATHER, counts, a->offsets + 5, VKMOE_E_ARGUMENT, "io.counts and io.offsets overlap");
    a->ids[5] = 5;
    run_fails(VKMOE_OPERATION_GATHER, &good, VKMOE_E_DATA, "io.ids[5] = 5: must be -1 to 4");
    a->ids[5] = -2;
    run_fails(VKMOE_OPERATION_GATHER, &good, VKMOE_E_DATA, "io.ids[5] = -2: must be -1 to 4");
    WRONG(ROUTE, rows, NULL, VKMOE_E_ARGUMENT, "io.gates is NULL, the operation route writes it");
    WRONG(COMBINE, x, NULL, VKMOE_E_ARGUMENT, "io.y is NULL, the operation combine writes it");
#undef WRONG

    io = vkmoe_io_init();
    io.rows = a->rows;
    io.slots = a->slots;
    io.gates = a->gates;
    io.y = a->y_rows;
    check_ok(vkmoe_run(bad.binds[VKMOE_OPERATION_COMBINE], 4, &io));
    io.ids = a->ids;
    run_fails(VKMOE_OPERATION_COMBINE, &io, VKMOE_E_ARGUMENT,
              "io.ids is given, the operation combine does not use it");
    io.ids = NULL;
    a->slots[3] = 8;
    run_fails(VKMOE_OPERATION_COMBINE, &io, VKMOE_E_DATA, "io.slots[3] = 8: must be -1 to 7");
    vkmoe_io layer_io = vkmoe_io_init();
    layer_io.x = a->x_rows;
    layer_io.y = a->y_rows;
    layer_io.slots = a->slots;
    check_fails(vkmoe_run(bad.whole.bind, 4, &layer_io), VKMOE_E_ARGUMENT,
                "io.slots is given, the layer");
    const vkmoe_backward_io out = vkmoe_backward_io_init();
    check_fails(vkmoe_backward(bad.binds[VKMOE_OPERATION_GATHER], 4, &good, &out),
                VKMOE_E_UNSUPPORTED, "the plan is of the operation gather");
    work_finish(&bad);
}

static void plan_fails(const vkmoe_layer_desc *layer, uint32_t operation, bool scores,
                       enum vkmoe_status status, const char *text)
{
    vkmoe_plan *plan = NULL;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    desc.layer = layer;
    desc.max_tokens = 4;
    desc.scores = scores;
    desc.operation = (enum vkmoe_operation) operation;
    check_fails(vkmoe_plan_create(bad.whole.context, &desc, &plan), status, text);
    assert_null(plan);
}

static void test_bad_plans(void **state)
{
    (void) state;
    const vkmoe_layer_desc plain = plain_layer();
    vkmoe_layer_desc layer = plain;
    vkmoe_bind *bind = NULL;
    vkmoe_weights *weights = NULL;
    work_init(&bad, &plain, VKMOE_F32);
    plan_fails(&plain, 4, false, VKMOE_E_ARGUMENT, "plan.operation = 4: must be below 4");
    plan_fails(&bad.layer, VKMOE_OPERATION_LAYER, false, VKMOE_E_UNSUPPORTED,
               "layer.expert_kind = external");
    plan_fails(&plain, VKMOE_OPERATION_GATHER, true, VKMOE_E_ARGUMENT, "plan.scores");
    layer.weight_on_input = true;
    plan_fails(&layer, VKMOE_OPERATION_GATHER, false, VKMOE_E_UNSUPPORTED, "weight_on_input = 1");
    layer = plain;
    layer.d_shared_ff = 4;
    plan_fails(&layer, VKMOE_OPERATION_COMBINE, false, VKMOE_E_UNSUPPORTED, "d_shared_ff = 4");
    layer.expert_kind = VKMOE_EXPERT_EXTERNAL;
    check_fails(vkmoe_layer_check(&layer), VKMOE_E_ARGUMENT, "layer.d_shared_ff = 4");
    check_fails(vkmoe_bind_create(bad.plans[VKMOE_OPERATION_ROUTE], NULL, NULL, &bind),
                VKMOE_E_ARGUMENT, "weights is NULL");
    check_fails(vkmoe_bind_create(bad.plans[VKMOE_OPERATION_ROUTE], bad.whole.weights, NULL, &bind),
                VKMOE_E_SHAPE, "of another layer");
    vkmoe_weights_desc desc = bad.data.desc;
    desc.layer = &bad.layer;
    check_fails(vkmoe_weights_create(bad.whole.context, &desc, &weights), VKMOE_E_ARGUMENT,
                "weights.experts is given, the layer has none");
    assert_string_equal(vkmoe_operation_name(VKMOE_OPERATION_GATHER), "gather");
    assert_string_equal(vkmoe_operation_name((enum vkmoe_operation) 4), "unknown");
    work_finish(&bad);
}

int main(int argc, char **argv)
{
    device = argc > 1 ? argv[1] : "reference";
    context_desc = vkmoe_context_desc_init();
    context_desc.device = device;
    context_desc.cache_dir = "";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers),    cmocka_unit_test(test_unused_slots),
        cmocka_unit_test(test_identity_experts), cmocka_unit_test(test_any_slots),
        cmocka_unit_test(test_bad_io),    cmocka_unit_test(test_bad_plans),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
