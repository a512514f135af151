// SPDX-License-Identifier: MIT
// Operations on a device whose limits are small, or whose memory the host does not reach
// (interpose.c): operations_sizes MODE, bda or descriptors. The bits are those of the same device
// without.
#include "fixture.h"
#include "host.h"
#include "interpose.h"

#include <stdlib.h>

enum { KIB = 1024, N = 700, D = 120, TOP_K = 2, N_EXPERTS = 6 };

static enum vkmoe_addressing addressing;
static struct layer_data data;
static float x[N * D];

struct results {
    int32_t ids[N * TOP_K], slots[N * TOP_K];
    float gates[N * TOP_K], scores[N * N_EXPERTS], rows[N * TOP_K * D], y[N * D];
    uint32_t counts[N_EXPERTS], offsets[N_EXPERTS + 1];
};
static struct results whole, small;

struct operation {
    vkmoe_context *context;
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
};

static enum vkmoe_status open_plan(struct operation *o, enum vkmoe_operation operation)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    *o = (struct operation){0};
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.addressing = addressing;
    check_ok(vkmoe_context_create(&desc, &o->context));
    if (operation == VKMOE_OPERATION_ROUTE)
        check_ok(vkmoe_weights_create(o->context, &data.desc, &o->weights));
    plan.layer = &data.layer;
    plan.max_tokens = N;
    plan.operation = operation;
    plan.scores = operation == VKMOE_OPERATION_ROUTE;
    return vkmoe_plan_create(o->context, &plan, &o->plan);
}

static void close_plan(struct operation *o)
{
    vkmoe_bind_destroy(o->bind);
    vkmoe_plan_destroy(o->plan);
    vkmoe_weights_destroy(o->weights);
    vkmoe_context_destroy(o->context);
}

static void run(enum vkmoe_operation operation, const vkmoe_io *io)
{
    struct operation o;
    check_ok(open_plan(&o, operation));
    check_ok(vkmoe_bind_create(o.plan, o.weights, NULL, &o.bind));
    check_ok(vkmoe_run(o.bind, N, io));
    close_plan(&o);
}

static void run_route(struct results *out)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.ids = out->ids;
    io.gates = out->gates;
    io.scores = out->scores;
    run(VKMOE_OPERATION_ROUTE, &io);
}

// Experts return their rows.
static void run_rest(struct results *out)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.ids = out->ids;
    io.rows = out->rows;
    io.slots = out->slots;
    io.counts = out->counts;
    io.offsets = out->offsets;
    run(VKMOE_OPERATION_GATHER, &io);
    io = vkmoe_io_init();
    io.rows = out->rows;
    io.slots = out->slots;
    io.gates = out->gates;
    io.y = out->y;
    run(VKMOE_OPERATION_COMBINE, &io);
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = N_EXPERTS;
    layer.top_k = TOP_K;
    layer.d_model = D;
    layer.expert_kind = VKMOE_EXPERT_EXTERNAL;
    layer_data_init(&data, &layer, 3);
    data.desc.experts = NULL;
    fill_random(x, N * D, 5);
    interpose = (struct interpose){0};
    run_route(&whole);
    run_rest(&whole);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    interpose = (struct interpose){0};
    layer_data_finish(&data);
    return 0;
}

static void check_route(const struct results *got)
{
    assert_memory_equal(got->ids, whole.ids, sizeof whole.ids);
    assert_memory_equal(got->gates, whole.gates, sizeof whole.gates);
    assert_memory_equal(got->scores, whole.scores, sizeof whole.scores);
}

static void memory_out_of_sight(void **state)
{
    (void) state;
    memset(&small, 0xff, sizeof small);
    interpose.discrete = true;
    run_route(&small);
    run_rest(&small);
    interpose = (struct interpose){0};
    assert_memory_equal(&small, &whole, sizeof whole);
}

// Routing goes block by block, also where it is recorded.
static void routing_in_blocks(void **state)
{
    (void) state;
    static const struct interpose limits[] = {{.max_range = 64 * KIB}, {.max_groups = 100}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct operation o;
        struct host host;
        struct host_buffer buffers[4];
        const uint32_t sizes[4] = {sizeof x, sizeof whole.ids, sizeof whole.gates,
                                   sizeof whole.scores};
        uint32_t n;
        vkmoe_vk_io io = vkmoe_vk_io_init();
        vkmoe_vk_buffer *const places[4] = {&io.x, &io.ids, &io.gates, &io.scores};
        vkmoe_bind_desc desc = vkmoe_bind_desc_init();
        memset(&small, 0xff, sizeof small);
        interpose = limits[i];
        run_route(&small);
        check_route(&small);

        check_ok(open_plan(&o, VKMOE_OPERATION_ROUTE));
        host_init(&host, o.context);
        for (int b = 0; b < 4; b++) {
            host_buffer_init(&host, sizes[b], &buffers[b]);
            *places[b] = (vkmoe_vk_buffer){buffers[b].handle, 0, sizes[b]};
        }
        memcpy(buffers[0].mapped, x, sizeof x);
        desc.vk_io = &io;
        check_ok(vkmoe_bind_create(o.plan, o.weights, &desc, &o.bind));
        check_ok(vkmoe_vk_dispatch_count(o.bind, N, &n));
        if (addressing == VKMOE_ADDRESSING_DESCRIPTORS || limits[i].max_groups)
            assert_true(n > 4 && n % 4 == 0); // one block is route and three copies
        VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        check_ok(vkmoe_vk_record(o.bind, cmd, N, 0, UINT32_MAX));
        host_submit(&host, cmd);
        assert_memory_equal(buffers[1].mapped, whole.ids, sizes[1]);
        assert_memory_equal(buffers[2].mapped, whole.gates, sizes[2]);
        assert_memory_equal(buffers[3].mapped, whole.scores, sizes[3]);
        vkmoe_bind_destroy(o.bind);
        o.bind = NULL;
        for (int b = 0; b < 4; b++)
            host_buffer_finish(&host, &buffers[b]);
        host_finish(&host);
        close_plan(&o);
        interpose = (struct interpose){0};
    }
}

// What goes over all tokens at once is refused with the numbers.
static void more_than_a_device_holds(void **state)
{
    (void) state;
    struct operation o;
    interpose.max_groups = 40; // gathering takes one group for 16 rows
    check_fails(open_plan(&o, VKMOE_OPERATION_GATHER), VKMOE_E_UNSUPPORTED,
                "gather: a block of 700 tokens makes 1 x 88 workgroups; the device allows 40 x 40");
    close_plan(&o);
    check_fails(open_plan(&o, VKMOE_OPERATION_COMBINE), VKMOE_E_UNSUPPORTED,
                "combine rows: a block of 700 tokens makes 1 x 88 workgroups");
    close_plan(&o);
    interpose = (struct interpose){.max_range = 600 * KIB}; // rows are 656 KiB
    if (addressing == VKMOE_ADDRESSING_DESCRIPTORS)
        check_fails(open_plan(&o, VKMOE_OPERATION_GATHER), VKMOE_E_UNSUPPORTED,
                    "gather: output of 672000 bytes for a block of 700 tokens");
    else
        check_ok(open_plan(&o, VKMOE_OPERATION_GATHER));
    close_plan(&o);
    interpose = (struct interpose){0};
}

// More slots than grouping has workgroups for blocks of its usual size.
enum { MANY_EXPERTS = 1024, MANY_TOP_K = 64, MANY_D = 4, MANY_SLOTS = N * MANY_TOP_K };

// Some slots are unused, no expert twice in a row of ids.
static void draw_ids(int32_t *ids)
{
    uint32_t bits = 1;
    for (uint32_t slot = 0; slot < MANY_SLOTS; slot++) {
        bits = bits * 1664525u + 1013904223u;
        uint32_t place = slot % MANY_TOP_K, step = MANY_EXPERTS / MANY_TOP_K;
        ids[slot] = bits >> 29 ? (int32_t) (place * step + (bits >> 20) % step) : -1;
    }
}

static void many_slots_are_listed_in_order(void **state)
{
    (void) state;
    const struct layer_data before = data;
    struct operation o;
    uint32_t *counts = calloc(MANY_EXPERTS, sizeof *counts), n = 0;
    uint32_t *offsets = calloc(MANY_EXPERTS + 1, sizeof *offsets);
    int32_t *ids = malloc(MANY_SLOTS * sizeof *ids), *slots = malloc(MANY_SLOTS * sizeof *slots);
    float *rows = malloc((size_t) MANY_SLOTS * MANY_D * sizeof *rows);
    assert_true(counts && offsets && ids && slots && rows);
    draw_ids(ids);
    data.layer.n_experts = MANY_EXPERTS;
    data.layer.top_k = MANY_TOP_K;
    data.layer.d_model = data.layer.d_out = MANY_D;
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.ids = ids;
    io.rows = rows;
    io.slots = slots;
    io.counts = counts;
    io.offsets = offsets;
    check_ok(open_plan(&o, VKMOE_OPERATION_GATHER));
    check_ok(vkmoe_bind_create(o.plan, o.weights, NULL, &o.bind));
    check_ok(vkmoe_run(o.bind, N, &io));
    close_plan(&o);
    for (uint32_t e = 0; e < MANY_EXPERTS; e++) {
        assert_int_equal(offsets[e], n);
        for (int32_t slot = 0; slot < MANY_SLOTS; slot++) {
            if (ids[slot] != (int32_t) e)
                continue;
            assert_int_equal(slots[n], slot);
            assert_memory_equal(&rows[n * MANY_D], &x[slot / MANY_TOP_K * MANY_D],
                                MANY_D * sizeof *x);
            n++;
        }
        assert_int_equal(counts[e], n - offsets[e]);
    }
    assert_int_equal(offsets[MANY_EXPERTS], n);
    assert_true(n < MANY_SLOTS && slots[n] == -1);
    free(rows);
    free(slots);
    free(ids);
    free(offsets);
    free(counts);
    data = before;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_out_of_sight),
        cmocka_unit_test(routing_in_blocks),
        cmocka_unit_test(more_than_a_device_holds),
        cmocka_unit_test(many_slots_are_listed_in_order),
    };
    if (argc != 2)
        return 2;
    addressing = strcmp(argv[1], "bda") == 0 ? VKMOE_ADDRESSING_BDA : VKMOE_ADDRESSING_DESCRIPTORS;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
