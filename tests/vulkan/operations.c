// SPDX-License-Identifier: MIT
// Route, gather and combine recorded into the caller's command buffer, with the caller's buffers:
// operations MODE, where MODE is bda, descriptors or floor. Results are compared bit for bit with
// those of vkmoe_run; the validation layer is on, and any message of it fails.
#include "fixture.h"
#include "host.h"

#include <stdlib.h>

enum {
    MAX_TOKENS = 40, D = 7, TOP_K = 3, N_EXPERTS = 5, N_ZERO = 2,
    ROW = 12, // words of a row of the caller's
    SLOTS = MAX_TOKENS * TOP_K, OFFSET = 256,
};

static vkmoe_context_desc context_desc;
static struct layer_data data;
static vkmoe_context *context;
static vkmoe_weights *weights;
static vkmoe_plan *plans[4]; // by enum vkmoe_operation
static vkmoe_bind *runs[4], *records[4];
static struct host host;
// All begin at OFFSET.
static struct host_buffer x, y, rows, ids, gates, scores, slots, counts, offsets, count;

static vkmoe_layer_desc test_layer(void)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = N_EXPERTS;
    layer.n_zero = N_ZERO;
    layer.top_k = TOP_K;
    layer.d_model = D;
    layer.expert_kind = VKMOE_EXPERT_EXTERNAL;
    layer.select = VKMOE_SELECT_TOP_P;
    layer.select_p = 0.6f;
    layer.out_scale = 0.3f;
    return layer;
}

static vkmoe_vk_buffer whole(const struct host_buffer *buffer)
{
    return (vkmoe_vk_buffer){buffer->handle, OFFSET, buffer->size - OFFSET};
}

static void *words(const struct host_buffer *buffer)
{
    return buffer->mapped + OFFSET / 4;
}

static vkmoe_vk_io io_of(enum vkmoe_operation operation)
{
    vkmoe_vk_io io = vkmoe_vk_io_init();
    io.x = whole(&x);
    io.x_stride = ROW * 4;
    io.ids = whole(&ids);
    io.n_tokens = whole(&count);
    if (operation != VKMOE_OPERATION_GATHER)
        io.gates = whole(&gates);
    if (operation == VKMOE_OPERATION_ROUTE) {
        io.scores = whole(&scores);
        return io;
    }
    io.rows = whole(&rows);
    io.rows_stride = ROW * 4;
    io.slots = whole(&slots);
    if (operation == VKMOE_OPERATION_GATHER) {
        io.counts = whole(&counts);
        io.offsets = whole(&offsets);
    } else {
        io.y = whole(&y);
        io.y_stride = ROW * 4;
    }
    return io;
}

static enum vkmoe_status bind_with(enum vkmoe_operation operation, const vkmoe_vk_io *io,
                                   vkmoe_bind **out)
{
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    desc.vk_io = io;
    return vkmoe_bind_create(plans[operation],
                             operation == VKMOE_OPERATION_ROUTE ? weights : NULL, &desc, out);
}

static void create_operation(enum vkmoe_operation operation)
{
    const vkmoe_vk_io io = io_of(operation);
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &data.layer;
    plan.max_tokens = MAX_TOKENS;
    plan.operation = operation;
    plan.scores = operation == VKMOE_OPERATION_ROUTE;
    check_ok(vkmoe_plan_create(context, &plan, &plans[operation]));
    check_ok(bind_with(operation, NULL, &runs[operation]));
    check_ok(bind_with(operation, &io, &records[operation]));
}

static struct {
    struct host_buffer *buffer;
    uint32_t n_words;
} const all[] = {{&x, MAX_TOKENS * ROW}, {&y, MAX_TOKENS * ROW},   {&rows, SLOTS * ROW},
                 {&ids, SLOTS},          {&gates, SLOTS},          {&slots, SLOTS},
                 {&counts, N_EXPERTS},   {&offsets, N_EXPERTS + 1}, {&count, 1},
                 {&scores, MAX_TOKENS * (N_EXPERTS + N_ZERO)}};
enum { N_BUFFERS = sizeof all / sizeof *all };

static int set_up(void **state)
{
    (void) state;
    const vkmoe_layer_desc layer = test_layer();
    layer_data_init(&data, &layer, 7);
    check_ok(vkmoe_context_create(&context_desc, &context));
    host_init(&host, context);
    data.desc.experts = NULL;
    check_ok(vkmoe_weights_create(context, &data.desc, &weights));
    for (uint32_t i = 0; i < N_BUFFERS; i++)
        host_buffer_init(&host, OFFSET + all[i].n_words * 4, all[i].buffer);
    create_operation(VKMOE_OPERATION_ROUTE);
    create_operation(VKMOE_OPERATION_GATHER);
    create_operation(VKMOE_OPERATION_COMBINE);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    for (int i = 0; i < 4; i++) {
        vkmoe_bind_destroy(records[i]);
        vkmoe_bind_destroy(runs[i]);
        vkmoe_plan_destroy(plans[i]);
    }
    vkmoe_weights_destroy(weights);
    for (uint32_t i = 0; i < N_BUFFERS; i++)
        host_buffer_finish(&host, all[i].buffer);
    host_finish(&host);
    assert_int_equal(vkmoe_context_validation_count(context), 0);
    vkmoe_context_destroy(context);
    layer_data_finish(&data);
    return 0;
}

// ---- what vkmoe_run makes of the same x ------------------------------------------------------

static struct {
    int32_t ids[SLOTS], slots[SLOTS];
    float gates[SLOTS], scores[MAX_TOKENS * (N_EXPERTS + N_ZERO)], rows[SLOTS * D];
    float y[MAX_TOKENS * D];
    uint32_t counts[N_EXPERTS], offsets[N_EXPERTS + 1];
} want;

// factor: what every expert multiplies its rows with.
static void run_all(uint32_t n_tokens, float factor)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = words(&x);
    io.x_stride = ROW * 4;
    io.ids = want.ids;
    io.gates = want.gates;
    io.scores = want.scores;
    check_ok(vkmoe_run(runs[VKMOE_OPERATION_ROUTE], n_tokens, &io));
    io.gates = io.scores = NULL;
    io.rows = want.rows;
    io.slots = want.slots;
    io.counts = want.counts;
    io.offsets = want.offsets;
    check_ok(vkmoe_run(runs[VKMOE_OPERATION_GATHER], n_tokens, &io));
    for (uint32_t i = 0; i < want.offsets[N_EXPERTS] * D; i++)
        want.rows[i] *= factor;
    io.counts = io.offsets = NULL;
    io.gates = want.gates;
    io.y = want.y;
    check_ok(vkmoe_run(runs[VKMOE_OPERATION_COMBINE], n_tokens, &io));
}

static void poison(void)
{
    for (uint32_t i = 0; i < N_BUFFERS; i++)
        memset(all[i].buffer->mapped, 0xff, all[i].buffer->size);
    fill_random(words(&x), MAX_TOKENS * ROW, 11);
}

// n words are right, those behind them untouched.
static void check_words(const struct host_buffer *buffer, const void *right, uint32_t n)
{
    const uint32_t *got = words(buffer);
    assert_memory_equal(got, right, n * sizeof *got);
    for (uint32_t i = n; i < (buffer->size - OFFSET) / 4; i++)
        assert_int_equal(got[i], UINT32_MAX);
    for (uint32_t i = 0; i < OFFSET / 4; i++)
        assert_int_equal(((const uint32_t *) buffer->mapped)[i], UINT32_MAX);
}

static void check_rows(const struct host_buffer *buffer, const float *right, uint32_t n)
{
    const uint32_t *got = words(buffer);
    for (uint32_t t = 0; t < n; t++)
        assert_memory_equal(got + t * ROW, right + t * D, D * sizeof *got);
    for (uint32_t i = 0; i < (buffer->size - OFFSET) / 4; i++)
        if (i % ROW >= D || i / ROW >= n)
            assert_int_equal(got[i], UINT32_MAX);
}

static void check_all(uint32_t n_tokens)
{
    const uint32_t n_slots = n_tokens * TOP_K;
    check_words(&ids, want.ids, n_slots);
    check_words(&gates, want.gates, n_slots);
    check_words(&scores, want.scores, n_tokens * (N_EXPERTS + N_ZERO));
    check_words(&slots, want.slots, n_slots);
    check_words(&counts, want.counts, N_EXPERTS);
    check_words(&offsets, want.offsets, N_EXPERTS + 1);
    check_rows(&rows, want.rows, want.offsets[N_EXPERTS]);
    check_rows(&y, want.y, n_tokens);
}

// ---- recordings ------------------------------------------------------------------------------

static void record(VkCommandBuffer cmd, enum vkmoe_operation operation, uint32_t n_tokens)
{
    check_ok(vkmoe_vk_record(records[operation], cmd, n_tokens, 0, UINT32_MAX));
}

static void set_count(uint32_t n)
{
    memcpy(words(&count), &n, sizeof n);
}

// Experts that return their rows, and a count that is read when it runs.
static void all_in_one_command_buffer(void **state)
{
    (void) state;
    static const struct {
        uint32_t recorded, there;
    } cases[] = {{1, 1},           {4, 4}, {5, 5}, {MAX_TOKENS, MAX_TOKENS}, {MAX_TOKENS, 33},
                 {MAX_TOKENS, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        poison();
        set_count(cases[i].there);
        run_all(cases[i].there, 1.0f);
        VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        record(cmd, VKMOE_OPERATION_ROUTE, cases[i].recorded);
        record(cmd, VKMOE_OPERATION_GATHER, cases[i].recorded);
        record(cmd, VKMOE_OPERATION_COMBINE, cases[i].recorded);
        host_submit(&host, cmd);
        check_all(cases[i].there);
    }
}

static void no_tokens_are_no_rows(void **state)
{
    (void) state;
    poison();
    set_count(0);
    memset(&want, 0, sizeof want);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    record(cmd, VKMOE_OPERATION_ROUTE, MAX_TOKENS);
    record(cmd, VKMOE_OPERATION_GATHER, MAX_TOKENS);
    record(cmd, VKMOE_OPERATION_COMBINE, MAX_TOKENS);
    host_submit(&host, cmd);
    check_all(0);
}

// Experts between two submissions.
static void experts_of_the_caller(void **state)
{
    (void) state;
    poison();
    set_count(MAX_TOKENS);
    run_all(MAX_TOKENS, 3.0f);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    record(cmd, VKMOE_OPERATION_ROUTE, MAX_TOKENS);
    record(cmd, VKMOE_OPERATION_GATHER, MAX_TOKENS);
    host_submit(&host, cmd);
    float *row = words(&rows);
    const uint32_t *end = (const uint32_t *) words(&offsets) + N_EXPERTS;
    assert_true(*end > 0 && *end < SLOTS); // some slots are unused or identity experts'
    for (uint32_t i = 0; i < *end; i++)
        for (uint32_t c = 0; c < D; c++)
            row[i * ROW + c] *= 3.0f;
    cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    record(cmd, VKMOE_OPERATION_COMBINE, MAX_TOKENS);
    host_submit(&host, cmd);
    check_all(MAX_TOKENS);
    row[0] += 1; // one element of one row
    cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    record(cmd, VKMOE_OPERATION_COMBINE, MAX_TOKENS);
    host_submit(&host, cmd);
    uint32_t n_other = 0;
    for (uint32_t t = 0; t < MAX_TOKENS; t++)
        n_other += memcmp((float *) words(&y) + t * ROW, want.y + t * D, D * sizeof(float)) != 0;
    assert_int_equal(n_other, 1);
}

// Ids and slots that there are not count as -1.
static void what_is_out_of_range_is_left_out(void **state)
{
    (void) state;
    poison();
    set_count(MAX_TOKENS);
    run_all(MAX_TOKENS, 1.0f);
    memcpy(words(&ids), want.ids, sizeof want.ids);
    memcpy(words(&gates), want.gates, sizeof want.gates);
    for (uint32_t i = 0; i < SLOTS; i++)
        if (want.ids[i] == -1)
            ((int32_t *) words(&ids))[i] = i % 2 ? 1 << 20 : -77;
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    record(cmd, VKMOE_OPERATION_GATHER, MAX_TOKENS);
    host_submit(&host, cmd);
    check_words(&slots, want.slots, SLOTS);
    check_rows(&rows, want.rows, want.offsets[N_EXPERTS]);
    for (uint32_t i = want.offsets[N_EXPERTS]; i < SLOTS; i++)
        ((int32_t *) words(&slots))[i] = i % 2 ? SLOTS : -5;
    cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    record(cmd, VKMOE_OPERATION_COMBINE, MAX_TOKENS);
    host_submit(&host, cmd);
    check_rows(&y, want.y, MAX_TOKENS);
}

static void bad_buffers(void **state)
{
    (void) state;
    vkmoe_bind *bind = NULL;
#define WRONG(operation, field, value, status, text)                                               \
    do {                                                                                           \
        vkmoe_vk_io io = io_of(VKMOE_OPERATION_##operation);                                       \
        io.field = value;                                                                          \
        check_fails(bind_with(VKMOE_OPERATION_##operation, &io, &bind), status, text);             \
        assert_null(bind);                                                                         \
    } while (0)
    WRONG(ROUTE, ids.buffer, 0, VKMOE_E_ARGUMENT, "vk_io.ids.buffer is NULL");
    WRONG(ROUTE, gates.size, SLOTS * 4 - 1, VKMOE_E_SHAPE, "vk_io.gates.size = 479: 120 rows");
    WRONG(ROUTE, y, whole(&y), VKMOE_E_ARGUMENT, "vk_io.y is given, the operation route");
    WRONG(GATHER, rows_stride, D * 4 - 4, VKMOE_E_ARGUMENT, "vk_io.rows_stride = 24");
    WRONG(GATHER, rows.size, 16, VKMOE_E_SHAPE, "vk_io.rows.size = 16: 120 rows");
    WRONG(GATHER, offsets.size, N_EXPERTS * 4, VKMOE_E_SHAPE, "vk_io.offsets.size = 20");
    WRONG(GATHER, slots.offset, 4, VKMOE_E_ARGUMENT, "vk_io.slots.offset = 4");
    WRONG(GATHER, slots, whole(&ids), VKMOE_E_ARGUMENT, "vk_io.ids and vk_io.slots overlap");
    WRONG(COMBINE, rows, whole(&counts), VKMOE_E_SHAPE, "vk_io.rows.size = 20");
    WRONG(COMBINE, counts, whole(&counts), VKMOE_E_ARGUMENT, "vk_io.counts is given");
#undef WRONG
}

int main(int argc, char **argv)
{
    vkmoe_host services;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_in_one_command_buffer),
        cmocka_unit_test(no_tokens_are_no_rows),
        cmocka_unit_test(experts_of_the_caller),
        cmocka_unit_test(what_is_out_of_range_is_left_out),
        cmocka_unit_test(bad_buffers),
    };
    if (!host_context_desc(argc, argv, &services, &context_desc))
        return 2;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
