// SPDX-License-Identifier: MIT
// The CPU on layers of every type of weights, against the oracle with the same stored values: the
// same experts, and outputs within the promise for f32 operands. cpu_types [few]: a fifth of them.
#include "check.h"
#include "fixture.h"

#include <vkmoe/train.h>

#include <stdio.h>

enum { N_TOKENS = 20, N_TYPES = VKMOE_FP8 + 1, D_OUT = 21, D_MODEL = 256 };

static uint32_t step; // from one type to the next

struct outputs {
    float y[N_TOKENS * D_OUT];
    int32_t ids[N_TOKENS];
};

// A multiple of every block, and for fp8 one that ends in a part of one.
static uint32_t width(enum vkmoe_dtype type, uint32_t whole)
{
    return type == VKMOE_FP8 ? whole - 67 : whole;
}

static vkmoe_layer_desc layer_of(enum vkmoe_dtype in, enum vkmoe_dtype out)
{
    vkmoe_layer_desc layer = full_layer();
    const bool ragged = in == VKMOE_FP8;
    layer.n_experts = 2;
    layer.top_k = 1;
    layer.d_model = width(in, D_MODEL);
    layer.d_ff = width(out, 256);
    layer.d_shared_ff = width(out, 256);
    layer.d_out = D_OUT;
    layer.in_type = in;
    layer.out_type = out;
    layer.own_shared_types = true; // others than the routed experts have, where the widths allow
    layer.shared_in_type = ragged ? VKMOE_BF16 : (enum vkmoe_dtype) ((in + 3) % VKMOE_FP8);
    layer.shared_out_type = out == VKMOE_FP8 ? VKMOE_FP8
                                             : (enum vkmoe_dtype) ((out + 5) % VKMOE_FP8);
    return layer;
}

// For one token and for many.
static void run_on(const char *device, const struct layer_data *data, struct outputs out[2])
{
    static float x[N_TOKENS * D_MODEL];
    vkmoe_context_desc context = vkmoe_context_desc_init();
    vkmoe_io io = vkmoe_io_init();
    struct stack stack;
    context.device = device;
    memset(out, 0, 2 * sizeof *out);
    fill_random(x, N_TOKENS * (size_t) data->layer.d_model, 9);
    check_ok(stack_create(&stack, &context, data, N_TOKENS, false));
    for (int many = 0; many < 2; many++) {
        io.x = x, io.y = out[many].y, io.ids = out[many].ids;
        check_ok(vkmoe_run(stack.bind, many ? N_TOKENS : 1, &io));
    }
    stack_destroy(&stack);
}

static double distance(const struct outputs *got, const struct outputs *want)
{
    double of_difference = 0, of_want = 0;
    for (size_t i = 0; i < N_TOKENS * D_OUT; i++) {
        of_difference += pow((double) got->y[i] - (double) want->y[i], 2);
        of_want += pow((double) want->y[i], 2);
    }
    return sqrt(of_difference / of_want);
}

static void check_layer(enum vkmoe_dtype in, enum vkmoe_dtype out)
{
    const vkmoe_layer_desc layer = layer_of(in, out);
    struct layer_data data;
    struct outputs want[2], got[2];
    layer_data_init(&data, &layer, 3);
    run_on("reference", &data, want);
    run_on("cpu", &data, got);
    for (int many = 0; many < 2; many++) {
        assert_memory_equal(got[many].ids, want[many].ids, sizeof got[many].ids);
        const double d = distance(&got[many], &want[many]);
        if (!(d <= 1e-5))
            fail_msg("%s, %s: %g", vkmoe_dtype_name(in), vkmoe_dtype_name(out), d);
    }
    layer_data_finish(&data);
}

static void every_type(void **state)
{
    (void) state;
    for (uint32_t in = 0; in < N_TYPES; in += step) {
        if (step == 1)
            check_layer((enum vkmoe_dtype) in, (enum vkmoe_dtype) in);
        check_layer((enum vkmoe_dtype) in, (enum vkmoe_dtype) ((in + 4) % N_TYPES));
    }
}

// Weights that are stored a little differently are told apart, so the comparison can fail: one
// type against the next, and f32 against each.
static void types_are_told_apart(void **state)
{
    (void) state;
    struct layer_data data;
    struct outputs exact[2], before[2], got[2];
    vkmoe_layer_desc layer = layer_of(VKMOE_F32, VKMOE_F32);
    layer.own_shared_types = false;
    layer_data_init(&data, &layer, 3);
    run_on("reference", &data, exact);
    memcpy(before, exact, sizeof before);
    for (uint32_t type = VKMOE_F16; type < N_TYPES; type += step) {
        layer.in_type = layer.out_type = (enum vkmoe_dtype) type;
        layer_data_finish(&data);
        layer_data_init(&data, &layer, 3);
        run_on("cpu", &data, got);
        assert_true(distance(&got[1], &exact[1]) > 1e-5);
        assert_true(distance(&got[1], &before[1]) > 1e-5);
        assert_true(distance(&got[1], &exact[1]) < 0.5);
        memcpy(before, got, sizeof before);
    }
    layer_data_finish(&data);
}

// Gradients need weights that can change.
static void no_gradients_of_blocks(void **state)
{
    (void) state;
    for (uint32_t type = VKMOE_Q8_0; type < N_TYPES; type += step) {
        const vkmoe_layer_desc layer = layer_of((enum vkmoe_dtype) type, VKMOE_F32);
        vkmoe_context_desc context = vkmoe_context_desc_init();
        const vkmoe_backward_io grads = vkmoe_backward_io_init();
        const vkmoe_io io = vkmoe_io_init();
        struct layer_data data;
        struct stack stack;
        char text[32];
        snprintf(text, sizeof text, "layer.in_type = %u", type);
        context.device = "cpu";
        layer_data_init(&data, &layer, 3);
        check_ok(stack_create(&stack, &context, &data, N_TOKENS, false));
        check_fails(vkmoe_backward(stack.bind, N_TOKENS, &io, &grads), VKMOE_E_UNSUPPORTED, text);
        stack_destroy(&stack);
        layer_data_finish(&data);
    }
}

int main(int argc, char **argv)
{
    step = argc > 1 && strcmp(argv[1], "few") == 0 ? 5 : 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type),
        cmocka_unit_test(types_are_told_apart),
        cmocka_unit_test(no_gradients_of_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
