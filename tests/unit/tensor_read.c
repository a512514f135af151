// SPDX-License-Identifier: MIT
// Tensors that are read as they are packed: the same results as from memory, each row asked for
// once and in order, and a failure that comes back. Argument: the device.
#include "check.h"
#include "fixture.h"

#include <stdlib.h>

enum { N_TOKENS = 9, MAX_READERS = 64 };

static const char *device;

// A matrix of f32 in memory, given row by row.
struct reader {
    vkmoe_tensor from;
    uint64_t n_rows, width;
    uint64_t next;    // the row that is to come
    uint64_t fail_at; // the row that cannot be read; UINT64_MAX: none
};

struct readers {
    struct reader all[MAX_READERS];
    uint32_t n;
};

static enum vkmoe_status read_rows(void *user, uint64_t first_row, uint64_t n_rows, void *dst)
{
    struct reader *r = user;
    assert_true(first_row == r->next && n_rows > 0 && n_rows <= r->n_rows - first_row);
    if (r->fail_at - first_row < n_rows)
        return VKMOE_E_IO;
    r->next += n_rows;
    memcpy(dst, (const float *) r->from.data + first_row * r->width,
           (size_t) (n_rows * r->width) * sizeof(float));
    return VKMOE_OK;
}

static void make_read(struct readers *readers, vkmoe_tensor *tensor, uint64_t n_rows,
                      uint64_t width)
{
    if (!tensor->data)
        return;
    assert_true(readers->n < MAX_READERS);
    struct reader *r = &readers->all[readers->n++];
    *r = (struct reader){*tensor, n_rows, width, 0, UINT64_MAX};
    *tensor = (vkmoe_tensor){.type = tensor->type, .read = read_rows, .read_user = r};
}

static vkmoe_expert_tensors read_expert(struct readers *readers, const vkmoe_layer_desc *layer,
                                        const vkmoe_expert_tensors *from, uint32_t d_ff,
                                        bool routed)
{
    vkmoe_expert_tensors out = *from;
    const uint32_t d_in = routed && layer->d_latent ? layer->d_latent : layer->d_model;
    const uint32_t d_out = routed && layer->d_latent ? layer->d_latent : layer->d_out;
    make_read(readers, &out.gate, d_ff, d_in);
    make_read(readers, &out.up, d_ff, d_in);
    make_read(readers, &out.down, d_out, d_ff);
    return out;
}

// A layer with all that can be read: gated and shared experts, latent matrices; widths that are no
// whole panels.
static vkmoe_layer_desc make_layer(enum vkmoe_dtype type)
{
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = 64;
    layer.d_ff = layer.d_shared_ff = 96;
    layer.d_out = 35;
    layer.d_latent = 32;
    layer.in_type = layer.out_type = layer.latent_type = type;
    return layer;
}

static void run(const struct layer_data *data, float *y)
{
    float x[N_TOKENS * 64];
    struct stack stack;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_io io = vkmoe_io_init();
    desc.device = device;
    io.x = x, io.y = y;
    fill_random(x, N_TOKENS * 64, 2);
    check_ok(stack_create(&stack, &desc, data, N_TOKENS, false));
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    stack_destroy(&stack);
}

// Everything of `data` that can be read is read instead.
static void read_all(struct layer_data *data, struct readers *readers)
{
    const vkmoe_layer_desc *layer = &data->layer;
    for (uint32_t e = 0; e < layer->n_experts; e++)
        data->experts[e] = read_expert(readers, layer, &data->experts[e], layer->d_ff, true);
    data->shared = read_expert(readers, layer, &data->shared, layer->d_shared_ff, false);
    make_read(readers, &data->latent.down, layer->d_latent, layer->d_model);
    make_read(readers, &data->latent.up, layer->d_out, layer->d_latent);
}

static void check_same(enum vkmoe_dtype type)
{
    float want[N_TOKENS * 35], got[N_TOKENS * 35];
    const vkmoe_layer_desc layer = make_layer(type);
    struct layer_data data;
    struct readers readers = {0};
    layer_data_init(&data, &layer, 5);
    run(&data, want);
    read_all(&data, &readers);
    assert_true(readers.n == 3 * layer.n_experts + 5);
    run(&data, got);
    assert_memory_equal(got, want, sizeof want);
    for (uint32_t i = 0; i < readers.n; i++)
        assert_true(readers.all[i].next == readers.all[i].n_rows);

    // What is read is what is computed.
    for (uint32_t i = 0; i < readers.n; i++)
        readers.all[i].next = 0;
    readers.all[3 * layer.n_experts + 4].from.data = readers.all[0].from.data;
    run(&data, got);
    assert_memory_not_equal(got, want, sizeof want);
    layer_data_finish(&data);
}

static void reading_is_as_good_as_memory(void **state)
{
    (void) state;
    check_same(VKMOE_F32);
    check_same(VKMOE_BF16);
    check_same(VKMOE_Q8_0);
    check_same(VKMOE_FP8);
}

// Each matrix cannot be read once.
static void a_failure_comes_back(void **state)
{
    (void) state;
    const vkmoe_layer_desc layer = make_layer(VKMOE_F16);
    struct layer_data data;
    struct readers readers = {0};
    vkmoe_context *context = context_on(device, NULL);
    vkmoe_weights *weights;
    layer_data_init(&data, &layer, 5);
    read_all(&data, &readers);
    for (uint32_t i = 0; i < readers.n; i++) {
        for (uint32_t k = 0; k < readers.n; k++)
            readers.all[k].next = 0;
        readers.all[i].fail_at = readers.all[i].n_rows - 1;
        assert_int_equal(vkmoe_weights_create(context, &data.desc, &weights), VKMOE_E_IO);
        assert_null(weights);
        readers.all[i].fail_at = UINT64_MAX;
    }
    layer_data_finish(&data);
    vkmoe_context_destroy(context);
}

static void one_of_the_two(void **state)
{
    (void) state;
    const vkmoe_layer_desc layer = make_layer(VKMOE_F32);
    struct layer_data data;
    struct readers readers = {0};
    vkmoe_context *context = context_on(device, NULL);
    vkmoe_weights *weights;
    layer_data_init(&data, &layer, 5);
    const vkmoe_tensor up = data.experts[2].up, router = data.router.weight;
    read_all(&data, &readers);
    data.experts[2].up.data = up.data;
    check_fails(vkmoe_weights_create(context, &data.desc, &weights), VKMOE_E_ARGUMENT,
                "expert 2: up has both data and read");
    data.experts[2].up = (vkmoe_tensor){0};
    check_fails(vkmoe_weights_create(context, &data.desc, &weights), VKMOE_E_ARGUMENT,
                "expert 2: up is NULL");
    data.experts[2].up = up;
    data.router.weight = data.latent.up;
    check_fails(vkmoe_weights_create(context, &data.desc, &weights), VKMOE_E_ARGUMENT,
                "router: weight is NULL");
    data.router.weight = router;
    check_ok(vkmoe_weights_create(context, &data.desc, &weights));
    vkmoe_weights_destroy(weights);
    layer_data_finish(&data);
    vkmoe_context_destroy(context);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_is_as_good_as_memory),
        cmocka_unit_test(a_failure_comes_back),
        cmocka_unit_test(one_of_the_two),
    };
    device = argc > 1 ? argv[1] : "cpu";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
