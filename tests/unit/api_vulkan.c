// SPDX-License-Identifier: MIT
// The border to a Vulkan device, on an invented back end: the caller's buffers, ranges of
// dispatches, a lost device. What passes the border arrives complete.
#include "check.h"
#include "fixture.h"

#include "api/api.h"

#include <vkmoe/vulkan.h>

enum { MAX_TOKENS = 4, N_DISPATCHES = 7, WORK_SIZE = 1000 };

static struct {
    struct moe_device device;
    struct moe_packed_weights weights;
    struct moe_program program;
    struct moe_bound bound;
    enum vkmoe_status status;   // of the device
    vkmoe_vk_io io;             // last seen by bind_create
    uint32_t n_records, first, n; // last seen by record
} fake;

static enum vkmoe_status fake_status(const struct moe_device *device)
{
    (void) device;
    return fake.status;
}

static enum vkmoe_status fake_weights(struct moe_device *device, const struct moe_layer *layer,
                                      const struct moe_weights_source *source,
                                      struct moe_packed_weights **out)
{
    (void) source;
    fake.weights = (struct moe_packed_weights){device, *layer};
    *out = &fake.weights;
    return VKMOE_OK;
}

static void fake_weights_destroy(struct moe_packed_weights *weights)
{
    (void) weights;
}

static enum vkmoe_status fake_program(struct moe_device *device, const struct moe_graph *graph,
                                      const struct moe_program_params *params,
                                      struct moe_program **out)
{
    fake.program = (struct moe_program){device, *graph, params->max_tokens, params->precision,
                                        params->x_type};
    *out = &fake.program;
    return VKMOE_OK;
}

static void fake_program_destroy(struct moe_program *program)
{
    (void) program;
}

static enum vkmoe_status fake_bind(struct moe_program *program, struct moe_packed_weights *weights,
                                   const vkmoe_vk_io *io, struct moe_bound **out)
{
    fake.bound = (struct moe_bound){program, weights};
    fake.io = io ? *io : vkmoe_vk_io_init();
    *out = &fake.bound;
    return VKMOE_OK;
}

static void fake_bind_destroy(struct moe_bound *bound)
{
    (void) bound;
}

static enum vkmoe_status fake_run(struct moe_bound *bound, uint32_t n_tokens, const vkmoe_io *io)
{
    (void) bound, (void) n_tokens, (void) io;
    return VKMOE_OK;
}

static void fake_handles(const struct moe_device *device, vkmoe_vk_handles *out)
{
    (void) device;
    *out = (vkmoe_vk_handles){.queue_family = 3};
}

static uint32_t fake_count(const struct moe_bound *bound, uint32_t n_tokens)
{
    (void) bound, (void) n_tokens;
    return N_DISPATCHES;
}

static uint64_t fake_workspace_size(const struct moe_program *program)
{
    (void) program;
    return WORK_SIZE;
}

static void fake_info(const struct moe_bound *bound, uint32_t n_tokens, uint32_t i,
                      vkmoe_vk_dispatch *out)
{
    (void) bound;
    *out = (vkmoe_vk_dispatch){"fake", 10.0 * n_tokens + i};
}

static enum vkmoe_status fake_record(struct moe_bound *bound, VkCommandBuffer cmd,
                                     uint32_t n_tokens, uint32_t first, uint32_t n)
{
    (void) bound, (void) cmd, (void) n_tokens;
    fake.n_records++;
    fake.first = first;
    fake.n = n;
    return VKMOE_OK;
}

static const struct moe_backend fake_backend = {
    .name = "fake",
    .device_status = fake_status,
    .weights_create = fake_weights,
    .weights_destroy = fake_weights_destroy,
    .program_create = fake_program,
    .program_destroy = fake_program_destroy,
    .bind_create = fake_bind,
    .bind_destroy = fake_bind_destroy,
    .run = fake_run,
    .vk_handles = fake_handles,
    .vk_workspace_size = fake_workspace_size,
    .vk_dispatch_count = fake_count,
    .vk_dispatch_info = fake_info,
    .vk_record = fake_record,
};

static vkmoe_context context;
static struct layer_data data;
static vkmoe_weights *weights;
static vkmoe_plan *plan;
static vkmoe_vk_io good; // x in rows of 24 bytes, y in rows of 12, two buffers

static int set_up(void **state)
{
    (void) state;
    memset(&fake, 0, sizeof fake);
    check_ok(moe_host_init(&context.host, NULL));
    context.device = &fake.device;
    fake.device.backend = &fake_backend;
    fake.device.host = &context.host;
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&data, &layer, 1);
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    desc.layer = &layer;
    desc.max_tokens = MAX_TOKENS;
    good = vkmoe_vk_io_init();
    good.x = (vkmoe_vk_buffer){(VkBuffer) (uintptr_t) 0x10, 256, 96};
    good.y = (vkmoe_vk_buffer){(VkBuffer) (uintptr_t) 0x20, 0, 48};
    check_ok(vkmoe_weights_create(&context, &data.desc, &weights));
    check_ok(vkmoe_plan_create(&context, &desc, &plan));
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    vkmoe_plan_destroy(plan);
    vkmoe_weights_destroy(weights);
    layer_data_finish(&data);
    return 0;
}

static enum vkmoe_status bind_with(const vkmoe_vk_io *io, vkmoe_bind **out)
{
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    desc.vk_io = io;
    return vkmoe_bind_create(plan, weights, &desc, out);
}

static void test_buffers(void **state)
{
    (void) state;
    vkmoe_bind *bind;
    vkmoe_vk_io io;
    check_ok(bind_with(&good, &bind));
    assert_int_equal(fake.io.x_stride, 24);
    assert_int_equal(fake.io.y_stride, 12);
    assert_true(fake.io.x.buffer == good.x.buffer && fake.io.x.offset == 256);
    vkmoe_bind_destroy(bind);

    io = good; // beside each other in one buffer, rows padded, no byte to spare
    io.x.buffer = io.y.buffer;
    io.x_stride = 32;
    io.x.size = 3 * 32 + 24;
    io.y.size = 256;
    check_ok(bind_with(&io, &bind));
    assert_int_equal(fake.io.x_stride, 32);
    vkmoe_bind_destroy(bind);
#define WRONG(field, value, status, text)                                                          \
    do {                                                                                           \
        io = good;                                                                                 \
        io.field = (value);                                                                        \
        check_fails(bind_with(&io, &bind), status, text);                                          \
        assert_null(bind);                                                                         \
    } while (0)
    WRONG(struct_size, 0, VKMOE_E_ARGUMENT, "vkmoe_vk_io.struct_size");
    WRONG(x.buffer, 0, VKMOE_E_ARGUMENT, "vk_io.x.buffer is NULL");
    WRONG(y.buffer, 0, VKMOE_E_ARGUMENT, "vk_io.y.buffer is NULL");
    WRONG(x.offset, 128, VKMOE_E_ARGUMENT, "vk_io.x.offset = 128");
    WRONG(x.size, 95, VKMOE_E_SHAPE, "vk_io.x.size = 95: 4 rows of stride 24");
    WRONG(y.size, 47, VKMOE_E_SHAPE, "vk_io.y.size = 47");
    WRONG(x.size, UINT64_MAX, VKMOE_E_ARGUMENT, "passes the end");
    WRONG(x_stride, 20, VKMOE_E_ARGUMENT, "vk_io.x_stride = 20");
    WRONG(y_stride, 14, VKMOE_E_ARGUMENT, "vk_io.y_stride = 14");
    WRONG(x_stride, 28, VKMOE_E_SHAPE, "4 rows of stride 28");
    WRONG(x_stride, SIZE_MAX - 3, VKMOE_E_SHAPE, "vk_io.x.size = 96");
#undef WRONG
    io = good;
    io.x_stride = (size_t) 1 << 34;
    io.x.size = (uint64_t) 1 << 37;
    check_fails(bind_with(&io, &bind), VKMOE_E_UNSUPPORTED, "a stride of 17179869184 bytes");
    io = good;
    io.x.buffer = io.y.buffer;
    io.y.size = 257;
    check_fails(bind_with(&io, &bind), VKMOE_E_ARGUMENT, "vk_io.x and vk_io.y overlap");
}

static void test_optional_buffers(void **state)
{
    (void) state;
    vkmoe_bind *bind;
    uint64_t work_size;
    vkmoe_vk_io io = good;
    io.n_tokens = (vkmoe_vk_buffer){(VkBuffer) (uintptr_t) 0x30, 256, 4};
    io.workspace = (vkmoe_vk_buffer){(VkBuffer) (uintptr_t) 0x30, 512, WORK_SIZE};
    check_ok(vkmoe_vk_get_workspace_size(plan, &work_size));
    assert_int_equal(work_size, WORK_SIZE);
    check_ok(bind_with(&io, &bind));
    assert_true(fake.io.n_tokens.offset == 256 && fake.io.workspace.size == WORK_SIZE);
    vkmoe_bind_destroy(bind);
    const vkmoe_vk_io complete = io;
#define WRONG(field, value, status, text)                       \
    do {                                                        \
        io = complete;                                          \
        io.field = (value);                                     \
        check_fails(bind_with(&io, &bind), status, text);       \
        assert_null(bind);                                      \
    } while (0)
    WRONG(n_tokens.offset, 4, VKMOE_E_ARGUMENT, "vk_io.n_tokens.offset = 4");
    WRONG(n_tokens.size, 3, VKMOE_E_SHAPE, "vk_io.n_tokens.size = 3");
    WRONG(n_tokens.size, 257, VKMOE_E_ARGUMENT, "vk_io.n_tokens and vk_io.workspace overlap");
    WRONG(workspace.offset, 130, VKMOE_E_ARGUMENT, "vk_io.workspace.offset = 130");
    WRONG(workspace.size, WORK_SIZE - 1, VKMOE_E_SHAPE, "vk_io.workspace.size = 999");
#undef WRONG
    io = complete;
    io.workspace = (vkmoe_vk_buffer){good.x.buffer, 256, WORK_SIZE};
    check_fails(bind_with(&io, &bind), VKMOE_E_ARGUMENT, "vk_io.x and vk_io.workspace overlap");
    check_fails(vkmoe_vk_get_workspace_size(NULL, &work_size), VKMOE_E_ARGUMENT, "plan is NULL");
    check_fails(vkmoe_vk_get_workspace_size(plan, NULL), VKMOE_E_ARGUMENT, "out is NULL");
}

// 16-bit rows: x of 12 bytes, y of 6, of which kernels touch 8.
static void test_half_buffers(void **state)
{
    (void) state;
    vkmoe_bind *bind;
    vkmoe_vk_io io, dense = good, padded = good;
    vkmoe_plan *own_plan = plan;
    const struct moe_program own_program = fake.program; // there is room for one
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    desc.layer = &data.layer;
    desc.max_tokens = MAX_TOKENS;
    desc.x_type = VKMOE_F16;
    desc.precision = VKMOE_PRECISION_HALF;
    check_ok(vkmoe_plan_create(&context, &desc, &plan));
    assert_int_equal(fake.program.x_type, VKMOE_F16);
    assert_int_equal(fake.program.precision, VKMOE_PRECISION_HALF);

    dense.y.size = 4096;
    check_fails(bind_with(&dense, &bind), VKMOE_E_ARGUMENT,
                "vk_io.y_stride = 0: a dense row of 3 f16 takes 6 bytes; give a stride that is a "
                "multiple of 4");
    padded.x.size = 4 * 12; // no byte to spare
    padded.y.size = 4 * 8;
    padded.y_stride = 8;
    check_ok(bind_with(&padded, &bind));
    assert_int_equal(fake.io.x_stride, 12);
    assert_int_equal(fake.io.y_stride, 8);
    vkmoe_bind_destroy(bind);
    io = padded;
    io.x.size = 47;
    check_fails(bind_with(&io, &bind), VKMOE_E_SHAPE, "vk_io.x.size = 47");
    io = padded;
    io.y.size = 31; // its last row ends at 30
    check_fails(bind_with(&io, &bind), VKMOE_E_SHAPE, "vk_io.y.size = 31");
    io = padded;
    io.x_stride = 14;
    check_fails(bind_with(&io, &bind), VKMOE_E_ARGUMENT, "x_stride = 14: must be a multiple of 4");
    io = padded;
    io.y_stride = 6;
    check_fails(bind_with(&io, &bind), VKMOE_E_ARGUMENT, "y_stride = 6: must be a multiple of 4");
    io = padded;
    io.y_stride = 4;
    check_fails(bind_with(&io, &bind), VKMOE_E_ARGUMENT, "y_stride = 4: a row takes 6 bytes");
    vkmoe_plan_destroy(plan);
    plan = own_plan;
    fake.program = own_program;
}

static void test_record(void **state)
{
    (void) state;
    vkmoe_bind *bind;
    vkmoe_vk_handles handles;
    uint32_t count;
    int not_a_command_buffer;
    VkCommandBuffer cmd = (VkCommandBuffer) (void *) &not_a_command_buffer;
    check_ok(vkmoe_vk_get_handles(&context, &handles));
    assert_int_equal(handles.queue_family, 3);
    check_ok(bind_with(&good, &bind));
    check_ok(vkmoe_vk_dispatch_count(bind, 1, &count));
    assert_int_equal(count, N_DISPATCHES);
    check_ok(vkmoe_vk_dispatch_count(bind, 0, &count));
    assert_int_equal(count, 0);

    check_ok(vkmoe_vk_record(bind, cmd, 1, 2, UINT32_MAX));
    assert_true(fake.first == 2 && fake.n == 5 && fake.n_records == 1);
    check_ok(vkmoe_vk_record(bind, cmd, 1, 0, 7));
    assert_true(fake.first == 0 && fake.n == 7 && fake.n_records == 2);
    check_ok(vkmoe_vk_record(bind, cmd, 1, 7, UINT32_MAX));
    check_ok(vkmoe_vk_record(bind, cmd, 0, 0, UINT32_MAX));
    assert_int_equal(fake.n_records, 2); // nothing to record

    vkmoe_vk_dispatch dispatch;
    check_ok(vkmoe_vk_get_dispatch(bind, 2, 6, &dispatch));
    assert_true(strcmp(dispatch.label, "fake") == 0 && dispatch.work == 26.0);
    check_fails(vkmoe_vk_get_dispatch(bind, 2, 7, &dispatch), VKMOE_E_ARGUMENT,
                "dispatch 7: there are 7");
    check_fails(vkmoe_vk_get_dispatch(bind, 2, 0, NULL), VKMOE_E_ARGUMENT, "out is NULL");

    check_fails(vkmoe_vk_record(bind, cmd, 1, 8, 0), VKMOE_E_ARGUMENT, "first = 8: there are 7");
    check_fails(vkmoe_vk_record(bind, cmd, 1, 2, 6), VKMOE_E_ARGUMENT, "n = 6 from 2: there are 7");
    check_fails(vkmoe_vk_record(bind, cmd, 5, 0, 1), VKMOE_E_SHAPE, "n_tokens = 5");
    check_fails(vkmoe_vk_dispatch_count(bind, 5, &count), VKMOE_E_SHAPE, "max_tokens = 4");
    assert_int_equal(fake.n_records, 2);

    float x[6] = {0}, y[3];
    vkmoe_io io = vkmoe_io_init();
    io.x = x, io.y = y;
    check_fails(vkmoe_run(bind, 1, &io), VKMOE_E_ARGUMENT, "the caller's buffers");
    vkmoe_bind_destroy(bind);
}

static void test_lost_device(void **state)
{
    (void) state;
    float x[6] = {0}, y[3];
    vkmoe_io io = vkmoe_io_init();
    vkmoe_bind *bind, *other_bind;
    vkmoe_weights *other_weights;
    vkmoe_plan *other_plan;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    desc.layer = &data.layer;
    desc.max_tokens = 1;
    io.x = x, io.y = y;
    check_ok(vkmoe_bind_create(plan, weights, NULL, &bind));
    check_ok(vkmoe_run(bind, 1, &io));
    check_ok(vkmoe_context_status(&context));
    fake.status = VKMOE_E_DEVICE_LOST;
    check_fails(vkmoe_context_status(&context), VKMOE_E_DEVICE_LOST, "lost");
    check_fails(vkmoe_run(bind, 1, &io), VKMOE_E_DEVICE_LOST, "lost");
    check_fails(vkmoe_plan_create(&context, &desc, &other_plan), VKMOE_E_DEVICE_LOST, "lost");
    check_fails(vkmoe_weights_create(&context, &data.desc, &other_weights), VKMOE_E_DEVICE_LOST,
                "lost");
    check_fails(vkmoe_bind_create(plan, weights, NULL, &other_bind), VKMOE_E_DEVICE_LOST, "lost");
    assert_true(!other_plan && !other_weights && !other_bind);
    fake.status = VKMOE_OK;
    vkmoe_bind_destroy(bind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_optional_buffers),
        cmocka_unit_test(test_half_buffers),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_lost_device),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
