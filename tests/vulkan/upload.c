// SPDX-License-Identifier: MIT
// Weights, inputs and results on machines with other memory than the one at hand: each goes the way
// that is right there, and the bits are the same. What a wrong way does is other_memory.h's.
#include "check.h"
#include "fixture.h"
#include "host.h"
#include "interpose.h"
#include "other_memory.h"

#include <stdlib.h>
#include <vkmoe/train.h>

#include "api/api.h"
#include "base/bits.h"
#include "vulkan/plan.h"

enum {
    LOCAL = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VISIBLE = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    WRITE = VISIBLE | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    CACHED = VISIBLE | VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    BOTH = WRITE | CACHED,
    N_TOKENS = 4,
    ATOM = 64,
    PART = 8 << 20, // of staging, as in src/vulkan/weights.c
};

struct machine {
    const char *name;
    VkPhysicalDeviceType type;
    VkPhysicalDeviceMemoryProperties memory;
    const char *kind; // as vkmoe_device_info tells it
    uint32_t weights; // type of the weights' memory
    uint32_t mapped;  // bits of the types that are mapped
    bool flushes, invalidates;
};

#define GPU VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU
#define SHARED VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU
#define GIB(n) ((VkDeviceSize) (n) << 30)
#define OWN VK_MEMORY_HEAP_DEVICE_LOCAL_BIT

static const struct machine machines[] = {
    {"a card without a window, readback is not coherent", GPU,
     {3, {{LOCAL, 0}, {WRITE, 1}, {CACHED, 1}}, 2, {{GIB(8), OWN}, {GIB(16), 0}}},
     "discrete", 0, 0x6, false, true},
    {"a card with a small window", GPU,
     {4, {{LOCAL, 0}, {WRITE, 1}, {LOCAL | WRITE, 2}, {BOTH, 1}},
      3, {{GIB(8), OWN}, {GIB(16), 0}, {256 << 20, OWN}}},
     "discrete", 0, 0xa, false, false},
    {"a card with a resizable BAR", GPU,
     {4, {{LOCAL, 0}, {WRITE, 1}, {BOTH, 1}, {LOCAL | WRITE, 0}}, 2, {{GIB(8), OWN}, {GIB(16), 0}}},
     "resizable BAR", 3, 0xe, false, false},
    {"shared memory, cached and not coherent", SHARED,
     {2, {{LOCAL | WRITE, 0}, {LOCAL | CACHED, 0}}, 1, {{GIB(8), OWN}}},
     "unified", 0, 0x3, false, true},
    {"shared memory that has to be flushed", SHARED,
     {2, {{LOCAL | CACHED, 0}, {WRITE, 1}}, 2, {{GIB(8), OWN}, {GIB(1), 0}}},
     "unified", 0, 0x3, true, true},
    {"shared memory, nothing is cached", SHARED,
     {1, {{LOCAL | WRITE, 0}}, 1, {{GIB(8), OWN}}}, "unified", 0, 0x1, false, false},
    {"shared memory like the host's own", SHARED,
     {2, {{LOCAL, 0}, {LOCAL | BOTH, 0}}, 1, {{GIB(8), OWN}}}, "unified", 1, 0x2, false, false},
};

static struct layer_data small, large; // `large` takes three parts of staging

static void become(const struct machine *machine)
{
    interpose = (struct interpose){0};
    other_memory = (struct other_memory){0};
    if (machine)
        other_memory = (struct other_memory){
            .memory = &machine->memory, .type = machine->type, .atom_size = ATOM};
}

// ---- what is computed --------------------------------------------------------------------------

struct results {
    float y[N_TOKENS * 64], dx[N_TOKENS * 64], d_up[64 * 64];
};

// A GPU's kernels would be timed.
static const char all_but_a0[] = "direct,fp16,int8,coopmat,coopmat2,coopmat-int8";

static vkmoe_context_desc context_desc(void)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.disable = all_but_a0;
    return desc;
}

static enum vkmoe_status open_stack(const struct layer_data *data, struct stack *stack)
{
    const vkmoe_context_desc desc = context_desc();
    return stack_create(stack, &desc, data, N_TOKENS, false);
}

static enum vkmoe_status run(const struct stack *stack, const struct layer_data *data, float *x,
                             float *y)
{
    vkmoe_io io = vkmoe_io_init();
    fill_random(x, (size_t) N_TOKENS * data->layer.d_model, 5);
    io.x = x;
    io.y = y;
    return vkmoe_run(stack->bind, N_TOKENS, &io);
}

// Gradients need the weights, which are read back for them.
static enum vkmoe_status compute(const struct stack *stack, struct results *out)
{
    float x[N_TOKENS * 64], dy[N_TOKENS * 64];
    vkmoe_expert_grads *experts = calloc(small.layer.n_experts, sizeof *experts);
    vkmoe_io io = vkmoe_io_init();
    vkmoe_backward_io grads = vkmoe_backward_io_init();
    memset(out, 0, sizeof *out);
    assert_non_null(experts);
    enum vkmoe_status status = run(stack, &small, x, out->y);
    fill_random(dy, MOE_COUNT(dy), 6);
    experts[1].up = out->d_up;
    io.x = x;
    grads.dy = dy;
    grads.dx = out->dx;
    grads.experts = experts;
    if (status == VKMOE_OK)
        status = vkmoe_backward(stack->bind, N_TOKENS, &io, &grads);
    free(experts);
    return status;
}

static struct results want;

static VkDeviceSize weights_size(const struct stack *stack, const struct layer_data *data)
{
    vkmoe_weights_layout layout;
    check_ok(vkmoe_weights_get_layout(stack->context, &data->layer, &layout));
    return layout.total_size;
}

static void check_machine(const struct machine *machine)
{
    struct stack stack;
    struct results got;
    vkmoe_device_info info;
    become(machine);
    check_ok(open_stack(&small, &stack));
    check_ok(vkmoe_context_info(stack.context, &info));
    assert_string_equal(info.memory, machine->kind);

    const VkDeviceSize size = weights_size(&stack, &small);
    const bool in_place = strcmp(machine->kind, "discrete") != 0;
    assert_true(other_memory.copied == (in_place ? 0 : size));
    assert_true(other_memory.allocated[machine->weights] >= size);
    assert_int_equal(other_memory.n_flushes > 0, machine->flushes);

    check_ok(compute(&stack, &got));
    assert_memory_equal(&got, &want, sizeof want);
    assert_int_equal(other_memory.mapped, machine->mapped);
    assert_int_equal(other_memory.n_flushes > 1, machine->flushes); // inputs too
    assert_int_equal(other_memory.n_invalidations > 0, machine->invalidates);
    stack_destroy(&stack);
    assert_int_equal(interpose.n_live, 0);
}

static void each_machine_has_its_way(void **state)
{
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(machines); i++) {
        print_message("%s\n", machines[i].name);
        check_machine(&machines[i]);
        if (other_memory.error)
            fail_msg("%s", other_memory.error);
    }
}

// ---- large weights -----------------------------------------------------------------------------

static float large_want[N_TOKENS * 256];

// On a card two parts of staging take turns: one is copied while the other one is filled.
static void copies_and_packing_overlap(void **state)
{
    (void) state;
    struct stack stack;
    float x[N_TOKENS * 256], y[N_TOKENS * 256];
    become(&machines[0]);
    check_ok(open_stack(&large, &stack));
    const VkDeviceSize size = weights_size(&stack, &large);
    assert_true(size > 2 * PART);
    assert_true(other_memory.copied == size);
    assert_int_equal(interpose.n_submits, moe_div_up(size, PART));
    assert_int_equal(other_memory.most_waiting, 2);
    assert_true(other_memory.allocated[1] < 2 * PART + (1 << 20)); // and the bind's
    check_ok(run(&stack, &large, x, y));
    assert_memory_equal(y, large_want, sizeof y);
    assert_null(other_memory.error);
    stack_destroy(&stack);
    assert_int_equal(interpose.n_live, 0);
}

// Memory that can be written in place is full: the weights take what is left, and go by copies.
static void what_is_full_is_passed_by(void **state)
{
    (void) state;
    struct stack stack;
    float x[N_TOKENS * 256], y[N_TOKENS * 256];
    struct machine apu = {"", SHARED,
                          {4, {{LOCAL, 0}, {LOCAL | WRITE, 1}, {LOCAL | WRITE, 2}, {BOTH, 2}},
                           3, {{GIB(1), OWN}, {1 << 20, OWN}, {GIB(2), OWN}}},
                          "resizable BAR", 2, 0, false, false};
    for (int full = 0; full < 2; full++) {
        apu.memory.memoryHeaps[2].size = full ? 16 << 20 : GIB(2);
        apu.memory.memoryHeaps[0].size = full ? 15 << 20 : GIB(1);
        become(&apu);
        if (full) { // no heap has room, and the host's is not taken instead
            check_fails(open_stack(&large, &stack), VKMOE_E_DEVICE_MEMORY, "vkmoe weights");
        } else {
            check_ok(open_stack(&large, &stack));
            assert_true(other_memory.copied == 0 && other_memory.allocated[2] > 2 * PART);
            check_ok(run(&stack, &large, x, y));
            assert_memory_equal(y, large_want, sizeof y);
        }
        stack_destroy(&stack);
        assert_int_equal(interpose.n_live, 0);
    }
}

// ---- weights that are partly in sight ----------------------------------------------------------

// A caller that records, on a device of whose memory the host sees some.
struct recording {
    vkmoe_context *owner;
    struct host host;
    struct host_buffer x, y;
    struct stack stack;
};

static void recording_init(struct recording *r)
{
    const vkmoe_context_desc owner = context_desc();
    const uint64_t size = N_TOKENS * 256 * sizeof(float);
    check_ok(vkmoe_context_create(&owner, &r->owner));
    host_init(&r->host, r->owner);
    host_buffer_init(&r->host, size, &r->x);
    host_buffer_init(&r->host, size, &r->y);
    fill_random(r->x.mapped, N_TOKENS * 256, 5);
    memset(r->y.mapped, 0xff, size);
    vkmoe_vk_import_desc desc = host_import_desc(&r->host.handles);
    desc.disable = all_but_a0;
    check_ok(vkmoe_context_import_vk(&desc, &r->stack.context));
}

static void recording_finish(struct recording *r)
{
    stack_destroy(&r->stack);
    host_buffer_finish(&r->host, &r->x);
    host_buffer_finish(&r->host, &r->y);
    host_finish(&r->host);
    vkmoe_context_destroy(r->owner);
    assert_int_equal(interpose.n_live, 0);
}

// The n-th segment finds the heap full that the host sees.
static uint64_t weights_without(struct recording *r, long n)
{
    interpose.fail_name = "vkAllocateMemory";
    interpose.fail_at = n;
    interpose.fail_result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    interpose.n_calls = 0;
    check_ok(vkmoe_weights_create(r->stack.context, &large.desc, &r->stack.weights));
    interpose.fail_name = NULL;
    const struct moe_vk_weights *weights =
        (const struct moe_vk_weights *) r->stack.weights->packed;
    assert_int_equal(weights->n_segments, 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(!weights->segments[i].buffer.mapped, i + 1 == n);
    return weights->segments[n - 1].size;
}

static void bind_of(struct recording *r)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_bind_desc bind = vkmoe_bind_desc_init();
    vkmoe_vk_io io = vkmoe_vk_io_init();
    plan.layer = &large.layer;
    plan.max_tokens = N_TOKENS;
    io.x = (vkmoe_vk_buffer){r->x.handle, 0, r->x.size};
    io.y = (vkmoe_vk_buffer){r->y.handle, 0, r->y.size};
    bind.vk_io = &io;
    check_ok(vkmoe_plan_create(r->stack.context, &plan, &r->stack.plan));
    check_ok(vkmoe_bind_create(r->stack.plan, r->stack.weights, &bind, &r->stack.bind));
}

static void segments_go_each_its_way(void **state)
{
    (void) state;
    const struct machine bar = {"", GPU,
                                {3, {{LOCAL, 0}, {BOTH, 1}, {LOCAL | WRITE, 0}},
                                 2, {{GIB(8), OWN}, {GIB(16), 0}}},
                                "resizable BAR", 2, 0, false, false};
    for (long n = 1; n <= 2; n++) {
        struct recording r = {0};
        become(&bar);
        interpose.max_allocation = 12 << 20;
        recording_init(&r);
        const uint64_t size = weights_without(&r, n);
        bind_of(&r);
        VkCommandBuffer cmd = host_begin(&r.host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        check_fails(vkmoe_vk_record(r.stack.bind, cmd, N_TOKENS, 0, UINT32_MAX),
                    VKMOE_E_ARGUMENT, "upload");
        check_ok(vkmoe_vk_weights_record_upload(r.stack.weights, cmd));
        assert_true(other_memory.copied == size);
        check_ok(vkmoe_vk_record(r.stack.bind, cmd, N_TOKENS, 0, UINT32_MAX));
        host_submit(&r.host, cmd);
        assert_memory_equal(r.y.mapped, large_want, sizeof large_want);
        vkmoe_vk_weights_release_staging(r.stack.weights);
        check_fails(vkmoe_vk_weights_record_upload(r.stack.weights, cmd), VKMOE_E_ARGUMENT,
                    "staging is released");
        assert_null(other_memory.error);
        recording_finish(&r);
    }
}

// ---- failures ----------------------------------------------------------------------------------

static void inject(const struct machine *machine, const struct layer_data *data, const char *name)
{
    float x[N_TOKENS * 256], y[N_TOKENS * 256];
    for (long n = 1;; n++) {
        struct stack stack;
        become(machine);
        interpose.fail_name = name;
        interpose.fail_at = n;
        interpose.fail_result = VK_ERROR_OUT_OF_HOST_MEMORY;
        enum vkmoe_status status = open_stack(data, &stack);
        if (status == VKMOE_OK)
            status = run(&stack, data, x, y);
        stack_destroy(&stack);
        assert_int_equal(interpose.n_live, 0);
        assert_null(other_memory.error);
        assert_int_equal(status == VKMOE_OK, !interpose.failed);
        if (interpose.failed)
            continue;
        assert_true(n > 1);
        return;
    }
}

static void failures_leave_nothing(void **state)
{
    (void) state;
    inject(&machines[4], &small, "vkFlushMappedMemoryRanges");
    inject(&machines[4], &small, "vkInvalidateMappedMemoryRanges");
    inject(&machines[0], &large, "vkQueueSubmit");
    inject(&machines[0], &large, "vkWaitForFences");
    inject(&machines[0], &large, "vkMapMemory");
}

// ---- negative controls -------------------------------------------------------------------------

// What a library would do that took one type of memory for another.
struct mistake {
    const char *name;
    const struct machine *machine;
    uint32_t type;
    VkMemoryPropertyFlags believed;
};

// By descriptors: an address that did not arrive would end the program.
static enum vkmoe_status run_with(const struct mistake *mistake, float *y)
{
    struct stack stack = {0};
    float x[N_TOKENS * 64];
    vkmoe_context_desc desc = context_desc();
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS;
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &small.layer;
    plan.max_tokens = N_TOKENS;
    become(mistake->machine);
    check_ok(vkmoe_context_create(&desc, &stack.context));
    struct moe_vk *vk = moe_vk(stack.context->device);
    vk->memory.memoryTypes[mistake->type].propertyFlags = mistake->believed;
    vk->caps.memory_kind = MOE_VK_UNIFIED;
    check_ok(vkmoe_plan_create(stack.context, &plan, &stack.plan));
    enum vkmoe_status status =
        vkmoe_weights_create(stack.context, &small.desc, &stack.weights);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind);
    if (status == VKMOE_OK)
        status = run(&stack, &small, x, y);
    stack_destroy(&stack);
    assert_int_equal(interpose.n_live, 0);
    return status;
}

static void mistakes_are_noticed(void **state)
{
    (void) state;
    const struct mistake mistakes[] = {
        {"none", &machines[4], 0, LOCAL | CACHED},
        {"nothing is flushed", &machines[4], 0, LOCAL | CACHED | WRITE},
        {"results are read where they do not arrive", &machines[3], 0, LOCAL | BOTH},
        {"what the host cannot see is mapped", &machines[0], 0, LOCAL | BOTH},
    };
    for (size_t i = 0; i < MOE_COUNT(mistakes); i++) {
        float y[N_TOKENS * 64] = {0};
        const bool right = run_with(&mistakes[i], y) == VKMOE_OK &&
                           memcmp(y, want.y, sizeof want.y) == 0 && !other_memory.error;
        if (right != (i == 0))
            fail_msg("%s: %s", mistakes[i].name, right ? "not noticed" : "noticed");
    }
}

static int set_up(void **state)
{
    (void) state;
    struct stack stack;
    float x[N_TOKENS * 256];
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&small, &layer, 9);
    layer = vkmoe_layer_desc_init();
    layer.n_experts = 12;
    layer.top_k = 2;
    layer.d_model = layer.d_out = 256;
    layer.d_ff = 600;
    layer.gated = true;
    layer_data_init(&large, &layer, 10);
    become(NULL);
    check_ok(open_stack(&small, &stack));
    check_ok(compute(&stack, &want));
    stack_destroy(&stack);
    check_ok(open_stack(&large, &stack));
    check_ok(run(&stack, &large, x, large_want));
    stack_destroy(&stack);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    layer_data_finish(&small);
    layer_data_finish(&large);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_machine_has_its_way),
        cmocka_unit_test(copies_and_packing_overlap),
        cmocka_unit_test(what_is_full_is_passed_by),
        cmocka_unit_test(segments_go_each_its_way),
        cmocka_unit_test(failures_leave_nothing),
        cmocka_unit_test(mistakes_are_noticed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
