// SPDX-License-Identifier: MIT
// Packing on the CPU: the same block from tensors of any type and alignment, exactly as large as
// the layout says, by any number of threads, and the same results from weights packed beforehand.
// cpu_pack [few]: of some types.
#include "check.h"
#include "fixture.h"

#include "base/bits.h"

#include <stdlib.h>

enum { GUARD = 64, N_TOKENS = 40 };

static bool few;
static unsigned char fill = 0xa5; // of memory that is packed into, another one each time

static vkmoe_context *open_cpu(void)
{
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "cpu";
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

// Of a row of whole blocks, else the width given: no multiple of anything.
static uint32_t width(enum vkmoe_dtype type, uint32_t odd)
{
    uint32_t block;
    check_ok(vkmoe_dtype_block(type, &block, NULL));
    return block == 1 || type == VKMOE_FP8 ? odd : block * (odd / 32 + 1);
}

static vkmoe_layer_desc typed_layer(enum vkmoe_dtype in, enum vkmoe_dtype out)
{
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = width(in, 35);
    layer.d_ff = width(out, 19);
    layer.d_out = 33;
    layer.d_shared_ff = width(out, 18);
    layer.in_type = in;
    layer.out_type = out;
    return layer;
}

// A job system whose tasks are few enough to be counted.
static uint32_t n_phases, n_tasks;

static void count_tasks(void *user, uint32_t n, void (*task)(void *arg, uint32_t i), void *arg)
{
    (void) user;
    n_phases++;
    n_tasks += n;
    for (uint32_t i = n; i-- > 0;)
        task(arg, i);
}

static void *allocate(size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        abort();
    return memset(memory, fill, size);
}

// Packs between guards. The caller frees `*memory`; the block begins GUARD bytes into it.
static size_t pack(vkmoe_context *context, const vkmoe_layer_desc *layer, uint32_t expert,
                   const vkmoe_expert_tensors *tensors, unsigned char **memory)
{
    vkmoe_weights_layout layout;
    check_ok(vkmoe_weights_get_layout(context, layer, &layout));
    uint64_t block = expert == VKMOE_SHARED_EXPERT     ? layout.shared_size
                     : expert >= VKMOE_ADJUGATE_EXPERT ? layout.adjugate_size
                                                       : layout.expert_size;
    const size_t size = (size_t) block;
    fill = (unsigned char) ~fill;
    *memory = allocate(size + 2 * GUARD);
    check_ok(vkmoe_weights_pack_expert(context, layer, expert, tensors, *memory + GUARD, size));
    for (size_t i = 0; i < GUARD; i++) {
        assert_int_equal((*memory)[i], fill);
        assert_int_equal((*memory)[GUARD + size + i], fill);
    }
    return size;
}

// The same tensor in its stored type, at an odd address; the caller frees `*memory`.
static vkmoe_tensor stored_tensor(const vkmoe_tensor *tensor, enum vkmoe_dtype type,
                                  uint32_t n_rows, uint32_t n, char **memory)
{
    uint32_t block, block_size;
    check_ok(vkmoe_dtype_block(type, &block, &block_size));
    const size_t size = (size_t) (n + block - 1) / block * block_size;
    const float *values = tensor->data;
    char *converted = allocate(size);
    *memory = allocate(n_rows * size + 1);
    for (uint32_t row = 0; row < n_rows; row++) {
        check_ok(vkmoe_dtype_convert(type, values + (size_t) row * n, n, converted));
        memcpy(*memory + 1 + row * size, converted, size);
    }
    free(converted);
    return (vkmoe_tensor){.data = *memory + 1, .type = type};
}

static void check_types(vkmoe_context *context, enum vkmoe_dtype in, enum vkmoe_dtype out)
{
    const vkmoe_layer_desc layer = typed_layer(in, out);
    struct layer_data data;
    char *memory[3];
    unsigned char *from_f32, *from_stored;
    layer_data_init(&data, &layer, 5);
    vkmoe_expert_tensors stored = data.experts[1];
    stored.gate = stored_tensor(&data.experts[1].gate, in, layer.d_ff, layer.d_model, &memory[0]);
    stored.up = stored_tensor(&data.experts[1].up, in, layer.d_ff, layer.d_model, &memory[1]);
    stored.down = stored_tensor(&data.experts[1].down, out, layer.d_out, layer.d_ff, &memory[2]);

    size_t size = pack(context, &layer, 1, &data.experts[1], &from_f32);
    pack(context, &layer, 1, &stored, &from_stored);
    assert_memory_equal(from_stored + GUARD, from_f32 + GUARD, size);
    free(from_stored);
    pack(context, &layer, 2, &data.experts[2], &from_stored);
    assert_memory_not_equal(from_stored + GUARD, from_f32 + GUARD, size); // another expert is seen
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
    for (uint32_t in = 0; in <= (few ? VKMOE_Q8_0 : VKMOE_FP8); in++)
        for (uint32_t out = 0; out <= VKMOE_FP8; out++)
            if ((in <= VKMOE_BF16 && out <= VKMOE_BF16) || out == (in + 1) % (VKMOE_FP8 + 1))
                check_types(context, (enum vkmoe_dtype) in, (enum vkmoe_dtype) out);
    vkmoe_context_destroy(context);
}

// Reads f32 rows of 35 values.
static enum vkmoe_status read_rows(void *user, uint64_t first, uint64_t n, void *dst)
{
    const float *values = user;
    memcpy(dst, values + first * 35, n * 35 * sizeof *values);
    return VKMOE_OK;
}

// A block is the same by any number of tasks; they are as many as threads, but no more than panels
// (of 16 rows: 3 of d_out and 2 of d_ff twice), and one for tensors that are read.
static void tasks_share_a_block(void **state)
{
    (void) state;
    static const struct {
        uint32_t n_threads, n_tasks;
    } cases[] = {{1, 0}, {2, 2}, {3, 3}, {7, 7}, {40, 7}};
    const vkmoe_layer_desc layer = typed_layer(VKMOE_F16, VKMOE_Q8_0);
    struct layer_data data;
    unsigned char *want, *got;
    layer_data_init(&data, &layer, 5);
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        vkmoe_context *context;
        vkmoe_host host = vkmoe_host_init();
        vkmoe_context_desc desc = vkmoe_context_desc_init();
        host.parallel_for = count_tasks;
        desc.device = "cpu";
        desc.host = &host;
        desc.n_threads = cases[i].n_threads;
        check_ok(vkmoe_context_create(&desc, &context));
        n_phases = n_tasks = 0;
        size_t size = pack(context, &layer, 1, &data.experts[1], i == 0 ? &want : &got);
        assert_int_equal(n_tasks, cases[i].n_tasks);
        assert_true(n_phases <= 1);
        if (i > 0) {
            assert_memory_equal(got + GUARD, want + GUARD, size);
            free(got);
        }

        vkmoe_expert_tensors read = data.experts[1];
        read.gate.read_user = (void *) (uintptr_t) read.gate.data;
        read.gate.data = NULL;
        read.gate.read = read_rows;
        n_tasks = 0;
        pack(context, &layer, 1, &read, &got);
        assert_int_equal(n_tasks, 0);
        assert_memory_equal(got + GUARD, want + GUARD, size);
        free(got);
        vkmoe_context_destroy(context);
    }
    free(want);
    layer_data_finish(&data);
}

// Weights of blocks take the bytes that they have in a file, but for padding: rows to 16, biases,
// and what aligns them.
static void blocks_stay_packed(void **state)
{
    (void) state;
    vkmoe_context *context = open_cpu();
    for (uint32_t t = VKMOE_F32; t <= VKMOE_FP8; t++) {
        const enum vkmoe_dtype type = (enum vkmoe_dtype) t;
        vkmoe_layer_desc layer = full_layer();
        vkmoe_weights_layout layout;
        uint32_t values, size;
        layer.d_model = layer.d_ff = layer.d_out = layer.d_shared_ff = 1024;
        layer.in_type = layer.out_type = type;
        check_ok(vkmoe_dtype_block(type, &values, &size));
        check_ok(vkmoe_weights_get_layout(context, &layer, &layout));
        const double stored = 3.0 * 1024 * 1024 / values * size;
        assert_true((double) layout.expert_size >= stored);
        assert_true((double) layout.expert_size <= stored + 3 * 1024 * 4 + 512);
    }
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

static void check_packed_experts(enum vkmoe_dtype in, enum vkmoe_dtype out)
{
    vkmoe_layer_desc layer = typed_layer(in, out);
    layer.adjugate_group = 2; // three for the five experts
    layer.d_adjugate = 256;   // whole blocks of any type
    layer.adjugate_scale = 0.5f;
    const size_t y_size = sizeof(float) * N_TOKENS * layer.d_out;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    struct layer_data data;
    struct stack stack;
    unsigned char *memory[9];
    const void *packed[5], *adjugates[3];
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
    for (uint32_t a = 0; a < 3; a++) {
        pack(stack.context, &layer, VKMOE_ADJUGATE_EXPERT + a, &data.adjugates[a], &memory[6 + a]);
        adjugates[a] = memory[6 + a] + GUARD;
    }
    stack_destroy(&stack);
    data.desc.experts = NULL;
    data.desc.packed_experts = packed;
    data.desc.shared = NULL;
    data.desc.packed_shared = memory[5] + GUARD;
    data.desc.adjugates = NULL;
    data.desc.packed_adjugates = adjugates;
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
    packed[1] = packed[0];
    packed[0] = first;
    adjugates[0] = adjugates[2];
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    run_stack(&stack, &layer, from_packed);
    stack_destroy(&stack);
    assert_memory_not_equal(from_packed, from_tensors, y_size); // an adjugate is another
    for (int i = 0; i < 9; i++)
        free(memory[i]);
    free(from_packed);
    free(from_tensors);
    layer_data_finish(&data);
}

static void packed_experts_run_the_same(void **state)
{
    (void) state;
    check_packed_experts(VKMOE_BF16, VKMOE_F16);
    if (few) // making K blocks is slow
        return;
    check_packed_experts(VKMOE_Q4_K, VKMOE_Q6_K);
    check_packed_experts(VKMOE_MXFP4, VKMOE_FP8);
}

int main(int argc, char **argv)
{
    few = argc > 1 && strcmp(argv[1], "few") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_source_type_gives_the_same_block),
        cmocka_unit_test(tasks_share_a_block),
        cmocka_unit_test(blocks_stay_packed),
        cmocka_unit_test(packed_experts_run_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
