// SPDX-License-Identifier: MIT
// Packing on the CPU: the same block from tensors of any type and alignment, exactly as large as
// the layout says, and the same results from weights packed beforehand.
#include "check.h"
#include "fixture.h"

#include <stdlib.h>

enum { GUARD = 64, N_TOKENS = 40 };

static vkmoe_context *open_cpu(void)
{
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "cpu";
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

static vkmoe_layer_desc typed_layer(enum vkmoe_dtype in, enum vkmoe_dtype out)
{
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = 35; // no multiple of anything
    layer.d_ff = 19;
    layer.d_out = 33;
    layer.d_shared_ff = 18;
    layer.in_type = in;
    layer.out_type = out;
    return layer;
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        abort();
    return memset(memory, 0xa5, size);
}

// Packs between guards. The caller frees `*memory`; the block begins GUARD bytes into it.
static size_t pack(vkmoe_context *context, const vkmoe_layer_desc *layer, uint32_t expert,
                   const vkmoe_expert_tensors *tensors, unsigned char **memory)
{
    vkmoe_weights_layout layout;
    check_ok(vkmoe_weights_get_layout(context, layer, &layout));
    uint64_t block = expert == VKMOE_SHARED_EXPERT ? layout.shared_size : layout.expert_size;
    const size_t size = (size_t) block;
    *memory = allocate(size + 2 * GUARD);
    check_ok(vkmoe_weights_pack_expert(context, layer, expert, tensors, *memory + GUARD, size));
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal((*memory)[i], 0xa5);
        assert_int_equal((*memory)[GUARD + size + i], 0xa5);
    }
    return size;
}

// The same tensor in its stored type, at an odd address; the caller frees `*memory`.
static vkmoe_tensor stored_tensor(const vkmoe_tensor *tensor, enum vkmoe_dtype type, size_t n,
                                  char **memory)
{
    char *converted = allocate(n * sizeof(float));
    *memory = allocate(n * sizeof(float) + 1);
    check_ok(vkmoe_dtype_convert(type, tensor->data, n, converted));
    memcpy(*memory + 1, converted, n * (type == VKMOE_F32 ? 4 : 2));
    free(converted);
    return (vkmoe_tensor){*memory + 1, type};
}

static void check_types(vkmoe_context *context, enum vkmoe_dtype in, enum vkmoe_dtype out)
{
    const vkmoe_layer_desc layer = typed_layer(in, out);
    const size_t n_in = (size_t) layer.d_ff * layer.d_model;
    struct layer_data data;
    char *memory[3];
    unsigned char *from_f32, *from_stored;
    layer_data_init(&data, &layer, 5);
    vkmoe_expert_tensors stored = data.experts[1];
    stored.gate = stored_tensor(&data.experts[1].gate, in, n_in, &memory[0]);
    stored.up = stored_tensor(&data.experts[1].up, in, n_in, &memory[1]);
    stored.down = stored_tensor(&data.experts[1].down, out, (size_t) layer.d_out * layer.d_ff,
                                &memory[2]);

    size_t size = pack(context, &layer, 1, &data.experts[1], &from_f32);
    pack(context, &layer, 1, &stored, &from_stored);
    assert_memory_equal(from_stored, from_f32, size + 2 * GUARD);
    free(from_stored);
    pack(context, &layer, 2, &data.experts[2], &from_stored);
    assert_memory_not_equal(from_stored, from_f32, size + 2 * GUARD); // another expert is seen
    free(from_stored);
    free(from_f32);
    for (int i = 0; i < 3; i++)
        free(memory[i]);
    layer_data_finish(&data);
}

static void any_source_type_gives_the_same_block(void **state)
{
    (void) state;
    vkmoe_context *context = open_cpu();
    for (uint32_t in = 0; in < 3; in++)
        for (uint32_t out = 0; out < 3; out++)
            check_types(context, (enum vkmoe_dtype) in, (enum vkmoe_dtype) out);
    vkmoe_context_destroy(context);
}

static void run_stack(const struct stack *stack, const vkmoe_layer_desc *layer, float *y)
{
    float *x = allocate(sizeof *x * N_TOKENS * layer->d_model);
    fill_random(x, (size_t) N_TOKENS * layer->d_model, 3);
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    check_ok(vkmoe_run(stack->bind, N_TOKENS, &io));
    free(x);
}

static void packed_experts_run_the_same(void **state)
{
    (void) state;
    const vkmoe_layer_desc layer = typed_layer(VKMOE_BF16, VKMOE_F16);
    const size_t y_size = sizeof(float) * N_TOKENS * layer.d_out;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    struct layer_data data;
    struct stack stack;
    unsigned char *memory[6];
    const void *packed[5];
    float *from_tensors = allocate(y_size), *from_packed = allocate(y_size);
    desc.device = "cpu";
    layer_data_init(&data, &layer, 7);
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    run_stack(&stack, &layer, from_tensors);

    for (uint32_t e = 0; e < layer.n_experts; e++) {
        pack(stack.context, &layer, e, &data.experts[e], &memory[e]);
        packed[e] = memory[e] + GUARD;
    }
    pack(stack.context, &layer, VKMOE_SHARED_EXPERT, &data.shared, &memory[5]);
    stack_destroy(&stack);
    data.desc.experts = NULL;
    data.desc.packed_experts = packed;
    data.desc.shared = NULL;
    data.desc.packed_shared = memory[5] + GUARD;
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    run_stack(&stack, &layer, from_packed);
    stack_destroy(&stack);
    assert_memory_equal(from_packed, from_tensors, y_size);

    const void *first = packed[0];
    packed[0] = packed[1];
    packed[1] = first;
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    run_stack(&stack, &layer, from_packed);
    stack_destroy(&stack);
    assert_memory_not_equal(from_packed, from_tensors, y_size); // two experts changed places
    for (int i = 0; i < 6; i++)
        free(memory[i]);
    free(from_packed);
    free(from_tensors);
    layer_data_finish(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_source_type_gives_the_same_block),
        cmocka_unit_test(packed_experts_run_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
