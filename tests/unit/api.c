// SPDX-License-Identifier: MIT
// Bad input at the border: every wrong argument has an answer that names it. Argument: the device.
#include "check.h"
#include "fixture.h"

#include <stdlib.h>
#include <vkmoe/vulkan.h>

enum { MAX_TOKENS = 4, D_MODEL = 6, D_OUT = 3, TOP_K = 2, N_EXPERTS = 5 };

static const char *device;
static vkmoe_context_desc context_desc;
static struct layer_data data;
static struct stack stack; // with scores

static int set_up(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    context_desc = vkmoe_context_desc_init();
    context_desc.device = device;
    layer_data_init(&data, &layer, 1);
    return stack_create(&stack, &context_desc, &data, MAX_TOKENS, true);
}

static int tear_down(void **state)
{
    (void) state;
    stack_destroy(&stack);
    layer_data_finish(&data);
    return 0;
}

static void test_context(void **state)
{
    (void) state;
    vkmoe_context *context = (vkmoe_context *) &stack;
    vkmoe_context_desc desc = context_desc;
    vkmoe_device_info info;
    desc.struct_size = 0;
    check_fails(vkmoe_context_create(&desc, &context), VKMOE_E_ARGUMENT,
                "vkmoe_context_desc.struct_size = 0");
    assert_null(context);
    desc = context_desc;
    desc.addressing = (enum vkmoe_addressing) 3;
    check_fails(vkmoe_context_create(&desc, &context), VKMOE_E_ARGUMENT, "addressing = 3");
    check_fails(vkmoe_context_create(&desc, NULL), VKMOE_E_ARGUMENT, "out is NULL");

    memset(&desc, 0xff, sizeof desc); // an older caller's desc ends after `device`
    desc.struct_size = offsetof(vkmoe_context_desc, n_threads);
    desc.host = NULL;
    desc.device = device;
    check_ok(vkmoe_context_create(&desc, &context));
    check_ok(vkmoe_context_status(context));
    vkmoe_context_destroy(context);

    check_fails(vkmoe_context_status(NULL), VKMOE_E_ARGUMENT, "context is NULL");
    check_fails(vkmoe_context_info(NULL, &info), VKMOE_E_ARGUMENT, "context is NULL");
    check_fails(vkmoe_context_info(stack.context, NULL), VKMOE_E_ARGUMENT, "out is NULL");
    assert_int_equal(vkmoe_context_validation_count(NULL), 0);
    assert_int_equal(vkmoe_context_validation_count(stack.context), 0);
}

static void test_destroy_takes_null(void **state)
{
    (void) state;
    vkmoe_bind_destroy(NULL);
    vkmoe_plan_destroy(NULL);
    vkmoe_weights_destroy(NULL);
    vkmoe_context_destroy(NULL);
}

static void test_layout_and_pack(void **state)
{
    (void) state;
    vkmoe_weights_layout layout;
    const vkmoe_layer_desc *layer = &data.layer;
    check_ok(vkmoe_weights_get_layout(stack.context, layer, &layout));
    assert_true(layout.expert_size > 0 && layout.expert_size % 256 == 0);
    assert_true(layout.shared_size > 0 && layout.shared_size % 256 == 0);
    assert_true(layout.total_size >= N_EXPERTS * layout.expert_size + layout.shared_size);
    assert_int_equal(layout.total_size % 256, 0);
    check_fails(vkmoe_weights_get_layout(NULL, layer, &layout), VKMOE_E_ARGUMENT, "context");
    check_fails(vkmoe_weights_get_layout(stack.context, NULL, &layout), VKMOE_E_ARGUMENT, "layer");
    check_fails(vkmoe_weights_get_layout(stack.context, layer, NULL), VKMOE_E_ARGUMENT, "out");

    size_t size = layout.expert_size;
    unsigned char *block = malloc(size + 64);
    memset(block, 0xa5, size + 64);
#define PACK(layer, expert, tensors, dst, size)                                                    \
    vkmoe_weights_pack_expert(stack.context, layer, expert, tensors, dst, size)
    check_fails(PACK(NULL, 0, data.experts, block, size), VKMOE_E_ARGUMENT, "layer is NULL");
    check_fails(PACK(layer, 0, NULL, block, size), VKMOE_E_ARGUMENT, "tensors is NULL");
    check_fails(PACK(layer, 0, data.experts, NULL, size), VKMOE_E_ARGUMENT, "dst is NULL");
    check_fails(PACK(layer, N_EXPERTS, data.experts, block, size), VKMOE_E_ARGUMENT,
                "expert 5: there are 5");
    check_fails(PACK(layer, 0, data.experts, block, size - 1), VKMOE_E_SHAPE, "dst_size = ");
    check_fails(PACK(layer, 0, data.experts, block + 2, size), VKMOE_E_ARGUMENT, "aligned to 4");
    vkmoe_expert_tensors wrong = data.experts[1];
    wrong.up.data = NULL;
    check_fails(PACK(layer, 1, &wrong, block, size), VKMOE_E_ARGUMENT, "expert 1: up is NULL");
    vkmoe_layer_desc unshared = *layer;
    unshared.d_shared_ff = 0;
    unshared.shared_gate = VKMOE_SHARED_PLAIN;
    check_fails(PACK(&unshared, VKMOE_SHARED_EXPERT, &data.shared, block, size), VKMOE_E_ARGUMENT,
                "no shared expert");
    for (size_t i = 0; i < size + 64; i++)
        assert_int_equal(block[i], 0xa5); // a refused call writes nothing

    // A packed block is written in full, no more than that, and the same each time.
    unsigned char *again = malloc(size);
    memset(again, 0x5a, size);
    check_ok(PACK(layer, 0, data.experts, block, size));
    check_ok(PACK(layer, 0, data.experts, again, size));
    assert_memory_equal(block, again, size);
    for (size_t i = size; i < size + 64; i++)
        assert_int_equal(block[i], 0xa5);
#undef PACK
    free(again);
    free(block);
}

static void run(struct stack *on, const float *x, float *y)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    check_ok(vkmoe_run(on->bind, MAX_TOKENS, &io));
}

// Packed first or packed by create: the same result.
static void test_packed_weights(void **state)
{
    (void) state;
    vkmoe_weights_layout layout;
    check_ok(vkmoe_weights_get_layout(stack.context, &data.layer, &layout));
    const void *packed[N_EXPERTS];
    for (uint32_t e = 0; e < N_EXPERTS; e++) {
        void *block = malloc(layout.expert_size);
        check_ok(vkmoe_weights_pack_expert(stack.context, &data.layer, e, &data.experts[e], block,
                                           layout.expert_size));
        packed[e] = block;
    }
    void *shared = malloc(layout.shared_size);
    check_ok(vkmoe_weights_pack_expert(stack.context, &data.layer, VKMOE_SHARED_EXPERT,
                                       &data.shared, shared, layout.shared_size));
    struct layer_data packed_data = data;
    packed_data.desc.experts = NULL;
    packed_data.desc.packed_experts = packed;
    packed_data.desc.shared = NULL;
    packed_data.desc.packed_shared = shared;
    struct stack other;
    check_ok(stack_create(&other, &context_desc, &packed_data, MAX_TOKENS, false));

    float x[MAX_TOKENS * D_MODEL], a[MAX_TOKENS * D_OUT], b[MAX_TOKENS * D_OUT];
    fill_random(x, MAX_TOKENS * D_MODEL, 4);
    run(&stack, x, a);
    run(&other, x, b);
    assert_memory_equal(a, b, sizeof a);
    stack_destroy(&other);

    vkmoe_weights *weights;
    const void *third = packed[3];
    packed[3] = NULL;
    check_fails(vkmoe_weights_create(stack.context, &packed_data.desc, &weights), VKMOE_E_ARGUMENT,
                "packed expert 3");
    packed[3] = (const char *) third + 1;
    check_fails(vkmoe_weights_create(stack.context, &packed_data.desc, &weights), VKMOE_E_ARGUMENT,
                "not aligned");
    packed[3] = third;
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        free((void *) packed[e]);
    free(shared);
}

static void test_weights(void **state)
{
    (void) state;
    vkmoe_weights *weights = (vkmoe_weights *) &stack;
    vkmoe_weights_desc desc = data.desc;
#define WRONG(field, value, status, text)                                                          \
    do {                                                                                           \
        desc = data.desc;                                                                          \
        desc.field = (value);                                                                      \
        weights = (vkmoe_weights *) &stack;                                                        \
        check_fails(vkmoe_weights_create(stack.context, &desc, &weights), status, text);           \
        assert_null(weights);                                                                      \
    } while (0)
    const void *blocks[N_EXPERTS] = {0};
    vkmoe_layer_desc layer = data.layer;
    vkmoe_router_tensors router = data.router;
    WRONG(struct_size, 0, VKMOE_E_ARGUMENT, "vkmoe_weights_desc.struct_size");
    WRONG(layer, NULL, VKMOE_E_ARGUMENT, "layer is NULL");
    WRONG(router, NULL, VKMOE_E_ARGUMENT, "router is NULL");
    WRONG(experts, NULL, VKMOE_E_ARGUMENT, "both NULL");
    WRONG(packed_experts, blocks, VKMOE_E_ARGUMENT, "both given");
    WRONG(shared, NULL, VKMOE_E_ARGUMENT, "both NULL, the layer has them");
    WRONG(packed_shared, blocks, VKMOE_E_ARGUMENT, "both given");
    router.bias = NULL;
    WRONG(router, &router, VKMOE_E_ARGUMENT, "router: bias is NULL");
    layer.top_k = 77;
    WRONG(layer, &layer, VKMOE_E_SHAPE, "top_k = 77");
    layer = data.layer;
    layer.d_shared_ff = 0;
    layer.shared_gate = VKMOE_SHARED_PLAIN;
    router = data.router;
    router.shared_gate = NULL;
    data.desc.router = &router;
    WRONG(layer, &layer, VKMOE_E_ARGUMENT, "weights.shared is given");
    data.desc.router = &data.router;
#undef WRONG
    check_fails(vkmoe_weights_create(NULL, &data.desc, &weights), VKMOE_E_ARGUMENT, "context");
    check_fails(vkmoe_weights_create(stack.context, NULL, &weights), VKMOE_E_ARGUMENT, "desc");
    check_fails(vkmoe_weights_create(stack.context, &data.desc, NULL), VKMOE_E_ARGUMENT, "out");

    // NaN weights are legal.
    const float before = data.memory[0];
    data.memory[0] = NAN;
    check_ok(vkmoe_weights_create(stack.context, &data.desc, &weights));
    vkmoe_weights_destroy(weights);
    data.memory[0] = before;
}

static void test_plan(void **state)
{
    (void) state;
    vkmoe_plan *plan;
    vkmoe_plan_desc desc, good = vkmoe_plan_desc_init();
    good.layer = &data.layer;
    good.max_tokens = 1;
#define WRONG(field, value, status, text)                                                          \
    do {                                                                                           \
        desc = good;                                                                               \
        desc.field = (value);                                                                      \
        plan = (vkmoe_plan *) &stack;                                                              \
        check_fails(vkmoe_plan_create(stack.context, &desc, &plan), status, text);                 \
        assert_null(plan);                                                                         \
    } while (0)
    vkmoe_layer_desc layer = data.layer;
    layer.jitter = 0.5f;
    WRONG(struct_size, 0, VKMOE_E_ARGUMENT, "vkmoe_plan_desc.struct_size");
    WRONG(layer, NULL, VKMOE_E_ARGUMENT, "layer is NULL");
    WRONG(layer, &layer, VKMOE_E_UNSUPPORTED, "layer.jitter = 0.5");
    WRONG(max_tokens, 0, VKMOE_E_ARGUMENT, "plan.max_tokens = 0");
    WRONG(max_tokens, 1u << 30, VKMOE_E_UNSUPPORTED, "plan.max_tokens = 1073741824");
    WRONG(budget_ms, -1.0f, VKMOE_E_ARGUMENT, "plan.budget_ms = -1");
    WRONG(budget_ms, 2e6f, VKMOE_E_ARGUMENT, "plan.budget_ms = 2e+06");
    WRONG(budget_ms, NAN, VKMOE_E_ARGUMENT, "plan.budget_ms");
    WRONG(precision, VKMOE_PRECISION_INT8, VKMOE_E_UNSUPPORTED, "plan.precision = int8");
    WRONG(precision, (enum vkmoe_precision) 3, VKMOE_E_ARGUMENT, "plan.precision = 3");
    WRONG(x_type, (enum vkmoe_dtype) 3, VKMOE_E_ARGUMENT, "plan.x_type = 3");
    WRONG(variant, "no such variant", VKMOE_E_UNSUPPORTED, "no such variant");
#undef WRONG
    check_fails(vkmoe_plan_create(NULL, &good, &plan), VKMOE_E_ARGUMENT, "context is NULL");
    check_fails(vkmoe_plan_create(stack.context, NULL, &plan), VKMOE_E_ARGUMENT, "desc is NULL");
    check_fails(vkmoe_plan_create(stack.context, &good, NULL), VKMOE_E_ARGUMENT, "out is NULL");

    good.struct_size = offsetof(vkmoe_plan_desc, variant); // an older caller
    check_ok(vkmoe_plan_create(stack.context, &good, &plan));
    vkmoe_plan_destroy(plan);
}

static void test_precision_names(void **state)
{
    (void) state;
    static const char *const names[] = {"exact", "half", "int8"};
    enum vkmoe_precision precision;
    for (int i = 0; i < 3; i++) {
        check_ok(vkmoe_precision_from_name(names[i], &precision));
        assert_int_equal(precision, i);
        assert_string_equal(vkmoe_precision_name(precision), names[i]);
    }
    assert_string_equal(vkmoe_precision_name((enum vkmoe_precision) 3), "unknown");
    check_fails(vkmoe_precision_from_name("Half", &precision), VKMOE_E_ARGUMENT,
                "no precision \"Half\"");
    check_fails(vkmoe_precision_from_name(NULL, &precision), VKMOE_E_ARGUMENT, "name is NULL");
    check_fails(vkmoe_precision_from_name("half", NULL), VKMOE_E_ARGUMENT, "out is NULL");
}

static void test_bind(void **state)
{
    (void) state;
    vkmoe_bind *bind = (vkmoe_bind *) &stack;
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    check_fails(vkmoe_bind_create(NULL, stack.weights, NULL, &bind), VKMOE_E_ARGUMENT, "plan");
    assert_null(bind);
    check_fails(vkmoe_bind_create(stack.plan, NULL, NULL, &bind), VKMOE_E_ARGUMENT, "weights");
    check_fails(vkmoe_bind_create(stack.plan, stack.weights, NULL, NULL), VKMOE_E_ARGUMENT, "out");
    desc.struct_size = 0;
    check_fails(vkmoe_bind_create(stack.plan, stack.weights, &desc, &bind), VKMOE_E_ARGUMENT,
                "vkmoe_bind_desc.struct_size");

    struct layer_data other_data;
    struct stack other;
    vkmoe_layer_desc layer = data.layer;
    layer.d_ff += 1;
    layer_data_init(&other_data, &layer, 1);
    check_ok(stack_create(&other, &context_desc, &other_data, 1, false));
    check_fails(vkmoe_bind_create(stack.plan, other.weights, NULL, &bind), VKMOE_E_ARGUMENT,
                "different contexts");
    stack_destroy(&other);
    vkmoe_weights *weights;
    check_ok(vkmoe_weights_create(stack.context, &other_data.desc, &weights));
    check_fails(vkmoe_bind_create(stack.plan, weights, NULL, &bind), VKMOE_E_SHAPE, "d_ff 8");
    vkmoe_weights_destroy(weights);
    layer_data_finish(&other_data);
}

static void test_run(void **state)
{
    (void) state;
    float x[MAX_TOKENS * D_MODEL + 1], y[MAX_TOKENS * D_OUT + 1], gates[MAX_TOKENS * TOP_K];
    float scores[MAX_TOKENS * N_EXPERTS];
    int32_t ids[MAX_TOKENS * TOP_K];
    vkmoe_io io, good = vkmoe_io_init();
    fill_random(x, MAX_TOKENS * D_MODEL + 1, 4);
    good.x = x, good.y = y, good.ids = ids, good.gates = gates, good.scores = scores;
    check_ok(vkmoe_run(stack.bind, MAX_TOKENS, &good));
    memset(y, 0xa5, sizeof y);
#define WRONG(field, value, status, text)                                                          \
    do {                                                                                           \
        io = good;                                                                                 \
        io.field = (value);                                                                        \
        check_fails(vkmoe_run(stack.bind, MAX_TOKENS, &io), status, text);                         \
    } while (0)
    WRONG(struct_size, 0, VKMOE_E_ARGUMENT, "vkmoe_io.struct_size = 0");
    WRONG(x, NULL, VKMOE_E_ARGUMENT, "x is NULL");
    WRONG(y, NULL, VKMOE_E_ARGUMENT, "y is NULL");
    WRONG(x, (const char *) x + 2, VKMOE_E_ARGUMENT, "io.x at ");
    WRONG(y, (char *) y + 1, VKMOE_E_ARGUMENT, "io.y at ");
    WRONG(ids, (int32_t *) (void *) ((char *) ids + 2), VKMOE_E_ARGUMENT, "io.ids at ");
    WRONG(gates, (float *) (void *) ((char *) gates + 2), VKMOE_E_ARGUMENT, "io.gates at ");
    WRONG(scores, (float *) (void *) ((char *) scores + 2), VKMOE_E_ARGUMENT, "io.scores at ");
    WRONG(x_stride, 4 * D_MODEL - 4, VKMOE_E_ARGUMENT, "io.x_stride = 20: a row takes 24 bytes");
    WRONG(x_stride, 4 * D_MODEL + 2, VKMOE_E_ARGUMENT, "io.x_stride = 26: must be a multiple of 4");
    WRONG(y_stride, 4, VKMOE_E_ARGUMENT, "io.y_stride = 4: a row takes 12 bytes");
    WRONG(y_stride, SIZE_MAX - 3, VKMOE_E_SHAPE, "io.y: 4 rows");
    WRONG(y, x, VKMOE_E_ARGUMENT, "io.x and io.y overlap");
    WRONG(y, x + MAX_TOKENS * D_MODEL - 1, VKMOE_E_ARGUMENT, "io.x and io.y overlap");
    WRONG(gates, y, VKMOE_E_ARGUMENT, "io.y and io.gates overlap");
#undef WRONG
    check_fails(vkmoe_run(NULL, 1, &good), VKMOE_E_ARGUMENT, "bind is NULL");
    check_fails(vkmoe_run(stack.bind, 1, NULL), VKMOE_E_ARGUMENT, "io is NULL");
    check_fails(vkmoe_run(stack.bind, MAX_TOKENS + 1, &good), VKMOE_E_SHAPE,
                "n_tokens = 5: the plan has max_tokens = 4");
    check_fails(vkmoe_run(stack.bind, UINT32_MAX, &good), VKMOE_E_SHAPE, "n_tokens = 4294967295");
    for (size_t i = 0; i < sizeof y; i++)
        assert_int_equal(((unsigned char *) y)[i], 0xa5); // a refused run writes nothing

    io = vkmoe_io_init();
    check_ok(vkmoe_run(stack.bind, 0, &io));
    io = good;
    io.struct_size = offsetof(vkmoe_io, ids); // an older caller
    memset(ids, 0xa5, sizeof ids);
    check_ok(vkmoe_run(stack.bind, 1, &io));
    assert_int_equal(ids[0], (int32_t) 0xa5a5a5a5u);
    assert_true(isfinite(y[0]) && isfinite(y[D_OUT - 1]));
    assert_int_equal(((unsigned char *) &y[D_OUT])[0], 0xa5); // rows beyond n_tokens stay
}

static void test_scores_need_a_plan_with_them(void **state)
{
    (void) state;
    struct stack other;
    float x[D_MODEL] = {0}, y[D_OUT], scores[N_EXPERTS];
    vkmoe_io io = vkmoe_io_init();
    io.x = x, io.y = y, io.scores = scores;
    check_ok(stack_create(&other, &context_desc, &data, 1, false));
    check_fails(vkmoe_run(other.bind, 1, &io), VKMOE_E_ARGUMENT, "made without scores");
    stack_destroy(&other);
}

// What Vulkan alone can do is refused elsewhere, with the device's name.
static void test_vulkan_calls(void **state)
{
    (void) state;
    vkmoe_vk_handles handles;
    vkmoe_vk_io vk_io = vkmoe_vk_io_init();
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    vkmoe_bind *bind;
    vkmoe_device_info info;
    uint32_t n;
    int not_a_command_buffer;
    VkCommandBuffer cmd = (VkCommandBuffer) (void *) &not_a_command_buffer;
    desc.vk_io = &vk_io;
    check_ok(vkmoe_context_info(stack.context, &info));
    check_fails(vkmoe_vk_get_handles(stack.context, &handles), VKMOE_E_UNSUPPORTED, info.name);
    check_fails(vkmoe_vk_dispatch_count(stack.bind, 1, &n), VKMOE_E_UNSUPPORTED, info.name);
    check_fails(vkmoe_vk_record(stack.bind, cmd, 1, 0, 1), VKMOE_E_UNSUPPORTED, info.name);
    check_fails(vkmoe_bind_create(stack.plan, stack.weights, &desc, &bind), VKMOE_E_UNSUPPORTED,
                "bind.vk_io");
    assert_null(bind);
    vkmoe_vk_buffer buffer = {0};
    vkmoe_vk_dispatch dispatch;
    uint64_t size;
    vkmoe_weights *weights;
    vkmoe_weights_desc weights_desc = data.desc;
    weights_desc.vk_buffer = &buffer;
    check_fails(vkmoe_weights_create(stack.context, &weights_desc, &weights), VKMOE_E_UNSUPPORTED,
                "weights.vk_buffer");
    check_fails(vkmoe_vk_get_workspace_size(stack.plan, &size), VKMOE_E_UNSUPPORTED, info.name);
    check_fails(vkmoe_vk_get_dispatch(stack.bind, 1, 0, &dispatch), VKMOE_E_UNSUPPORTED,
                info.name);
    check_fails(vkmoe_vk_get_dispatch(NULL, 1, 0, &dispatch), VKMOE_E_ARGUMENT,
                "vkmoe_vk_get_dispatch: bind is NULL");
    check_fails(vkmoe_vk_weights_record_upload(stack.weights, cmd), VKMOE_E_UNSUPPORTED,
                info.name);
    vkmoe_vk_weights_release_staging(stack.weights);
    vkmoe_vk_weights_release_staging(NULL);
    check_fails(vkmoe_vk_weights_record_upload(NULL, cmd), VKMOE_E_ARGUMENT, "weights is NULL");
    check_fails(vkmoe_vk_get_handles(NULL, &handles), VKMOE_E_ARGUMENT, "context is NULL");
    check_fails(vkmoe_vk_dispatch_count(stack.bind, 1, NULL), VKMOE_E_ARGUMENT, "out is NULL");
    check_fails(vkmoe_vk_record(stack.bind, NULL, 1, 0, 1), VKMOE_E_ARGUMENT, "cmd is NULL");
}

static void test_import(void **state)
{
    (void) state;
    vkmoe_context *context;
    vkmoe_vk_requirements need;
    vkmoe_vk_import_desc desc = vkmoe_vk_import_desc_init();
    check_fails(vkmoe_context_import_vk(NULL, &context), VKMOE_E_ARGUMENT, "desc is NULL");
    assert_null(context);
    check_fails(vkmoe_context_import_vk(&desc, NULL), VKMOE_E_ARGUMENT, "out is NULL");
    check_fails(vkmoe_context_import_vk(&desc, &context), VKMOE_E_ARGUMENT,
                "get_instance_proc_addr is NULL");
    check_fails(vkmoe_vk_get_requirements(NULL, NULL, NULL, &need), VKMOE_E_ARGUMENT,
                "get_instance_proc_addr is NULL");
#ifndef MOE_HAVE_VULKAN
    int something;
    desc.get_instance_proc_addr = &something;
    desc.instance = (VkInstance) (void *) &something;
    desc.physical_device = (VkPhysicalDevice) (void *) &something;
    desc.device = (VkDevice) (void *) &something;
    desc.api_version = 1u << 22 | 1u << 12;
    check_fails(vkmoe_context_import_vk(&desc, &context), VKMOE_E_UNSUPPORTED, "no Vulkan");
    check_fails(vkmoe_vk_get_requirements(&something, desc.instance, desc.physical_device, &need),
                VKMOE_E_UNSUPPORTED, "no Vulkan");
#endif
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_context),
        cmocka_unit_test(test_destroy_takes_null),
        cmocka_unit_test(test_layout_and_pack),
        cmocka_unit_test(test_packed_weights),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_plan),
        cmocka_unit_test(test_precision_names),
        cmocka_unit_test(test_bind),
        cmocka_unit_test(test_run),
        cmocka_unit_test(test_scores_need_a_plan_with_them),
        cmocka_unit_test(test_vulkan_calls),
        cmocka_unit_test(test_import),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
