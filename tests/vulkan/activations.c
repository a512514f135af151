// SPDX-License-Identifier: MIT
// x and y in f16 and bf16: activations MODE [VARIANT], where MODE is bda, descriptors or floor. A
// plan in f32 sees the same numbers, so its y, rounded on the host, has the very bits. The
// validation layer is on, and any message of it fails. With a VARIANT of kernels it computes all of
// it at precision half, with fewer scales; a device that lacks it is a skip.
#include "fixture.h"
#include "host.h"

#include <stdio.h>
#include <stdlib.h>

static vkmoe_context *context;
static struct layer_data data;
static const char *variant; // or NULL

static vkmoe_plan *plan_of(const vkmoe_layer_desc *layer, enum vkmoe_dtype type,
                           uint32_t n_tokens)
{
    vkmoe_plan *plan;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    desc.layer = layer;
    desc.max_tokens = n_tokens;
    desc.x_type = type;
    desc.variant = variant;
    desc.precision = variant ? VKMOE_PRECISION_HALF : VKMOE_PRECISION_EXACT;
    check_ok(vkmoe_plan_create(context, &desc, &plan));
    return plan;
}

static void run(vkmoe_plan *plan, vkmoe_weights *weights, uint32_t n_tokens, const void *x,
                void *y)
{
    vkmoe_bind *bind;
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    check_ok(vkmoe_bind_create(plan, weights, NULL, &bind));
    check_ok(vkmoe_run(bind, n_tokens, &io));
    vkmoe_bind_destroy(bind);
}

static float widen(enum vkmoe_dtype type, uint16_t bits)
{
    if (type == VKMOE_BF16) {
        uint32_t word = (uint32_t) bits << 16;
        float value;
        memcpy(&value, &word, sizeof value);
        return value;
    }
    int exponent = bits >> 10 & 31;
    float mantissa = (float) (bits & 1023), sign = bits >> 15 ? -1.0f : 1.0f;
    if (exponent == 31)
        return mantissa > 0 ? NAN : sign * INFINITY;
    return sign * (exponent == 0 ? ldexpf(mantissa, -24)
                                 : ldexpf(mantissa + 1024, exponent - 25));
}

// The caller's buffers with rows of whole words: x is copied there, y compared from there.
static void check_recorded(vkmoe_plan *plan, vkmoe_weights *weights, uint32_t n_tokens,
                           const uint16_t *x, const uint16_t *want)
{
    struct host host;
    struct host_buffer buffers[2];
    vkmoe_bind *bind;
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    vkmoe_vk_io io = vkmoe_vk_io_init();
    uint32_t d_model = data.layer.d_model, d_out = data.layer.d_out;
    uint32_t x_row = (d_model + 1) / 2 * 2, y_row = (d_out + 1) / 2 * 2 + 2; // 16-bit elements
    host_init(&host, context);
    host_buffer_init(&host, (uint64_t) n_tokens * x_row * 2, &buffers[0]);
    host_buffer_init(&host, (uint64_t) n_tokens * y_row * 2, &buffers[1]);
    memset(buffers[0].mapped, 0xff, buffers[0].size); // padding does not matter
    memset(buffers[1].mapped, 0xee, buffers[1].size);
    for (uint32_t t = 0; t < n_tokens; t++)
        memcpy((uint16_t *) (void *) buffers[0].mapped + t * x_row, x + t * d_model, d_model * 2);
    io.x = (vkmoe_vk_buffer){buffers[0].handle, 0, buffers[0].size};
    io.y = (vkmoe_vk_buffer){buffers[1].handle, 0, buffers[1].size};
    io.x_stride = x_row * 2;
    io.y_stride = y_row * 2;
    desc.vk_io = &io;
    check_ok(vkmoe_bind_create(plan, weights, &desc, &bind));
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(bind, cmd, n_tokens, 0, UINT32_MAX));
    host_submit(&host, cmd);
    const uint16_t *y = (const uint16_t *) (const void *) buffers[1].mapped;
    for (uint32_t t = 0; t < n_tokens; t++) {
        assert_memory_equal(y + t * y_row, want + t * d_out, d_out * 2);
        if (d_out % 2 != 0)
            assert_int_equal(y[t * y_row + d_out], 0);
        assert_int_equal(y[(t + 1) * y_row - 1], 0xeeee); // nor anything beyond the word
    }
    vkmoe_bind_destroy(bind);
    host_buffer_finish(&host, &buffers[0]);
    host_buffer_finish(&host, &buffers[1]);
    host_finish(&host);
}

// y is spread over all that the type has: numbers, denormal ones, zeros, infinity, NaN.
static void check_type(enum vkmoe_dtype type, uint32_t n_tokens, float out_scale)
{
    vkmoe_weights *weights;
    vkmoe_layer_desc layer = data.layer;
    size_t n_x = (size_t) n_tokens * layer.d_model, n_y = (size_t) n_tokens * layer.d_out;
    uint16_t *x = malloc(n_x * 2), *y = malloc(n_y * 2), *want = malloc(n_y * 2);
    float *wide_x = malloc(n_x * 4), *wide_y = malloc(n_y * 4);
    assert_true(x && y && want && wide_x && wide_y);
    fill_random(wide_x, n_x, 5);
    wide_x[1] = NAN; // the first token's output is NaN
    check_ok(vkmoe_dtype_convert(type, wide_x, n_x, x));
    for (size_t i = 0; i < n_x; i++)
        wide_x[i] = widen(type, x[i]);
    layer.out_scale = out_scale;
    vkmoe_weights_desc desc = data.desc;
    desc.layer = &layer;
    check_ok(vkmoe_weights_create(context, &desc, &weights));
    vkmoe_plan *wide = plan_of(&layer, VKMOE_F32, n_tokens);
    vkmoe_plan *plan = plan_of(&layer, type, n_tokens);
    run(wide, weights, n_tokens, wide_x, wide_y);
    check_ok(vkmoe_dtype_convert(type, wide_y, n_y, want));
    memset(y, 0xee, n_y * 2);
    run(plan, weights, n_tokens, x, y);
    for (size_t i = 0; i < n_y; i++) {
        bool both_nan = isnan(widen(type, y[i])) && isnan(widen(type, want[i]));
        if (!both_nan && y[i] != want[i])
            fail_msg("%s, %u tokens, scale %g: y[%zu] = %04x, %a is %04x", vkmoe_dtype_name(type),
                     n_tokens, (double) out_scale, i, y[i], (double) wide_y[i], want[i]);
    }
    assert_true(isnan(widen(type, y[0])) && (n_tokens < 2 || !isnan(widen(type, y[n_y - 1]))));
    check_recorded(plan, weights, n_tokens, x, y);
    vkmoe_plan_destroy(plan);
    vkmoe_plan_destroy(wide);
    vkmoe_weights_destroy(weights);
    free(x);
    free(y);
    free(want);
    free(wide_x);
    free(wide_y);
}

static void outputs_are_rounded_once(void **state)
{
    (void) state;
    static const float scales[] = {1.0f, 3e-5f, 4e-7f, 2e5f, 1e-38f};
    for (int type = VKMOE_F16; type <= VKMOE_BF16; type++)
        for (size_t i = 0; i < (variant ? 1 : sizeof scales / sizeof *scales); i++) {
            check_type((enum vkmoe_dtype) type, 4, scales[i]);
            check_type((enum vkmoe_dtype) type, 40, scales[i]);
        }
    assert_int_equal(vkmoe_context_validation_count(context), 0);
}

int main(int argc, char **argv)
{
    vkmoe_host services;
    vkmoe_context_desc context_desc;
    variant = argc > 2 ? argv[2] : NULL;
    if (!host_context_desc(variant ? argc - 1 : argc, argv, &services, &context_desc))
        return 2;
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = 33;
    layer.d_out = 19;
    layer_data_init(&data, &layer, 7);
    if (vkmoe_context_create(&context_desc, &context) != VKMOE_OK) {
        fprintf(stderr, "%s\n", vkmoe_error_text());
        return 1;
    }
    if (variant && !host_has_variant(context, variant)) {
        printf("this device has no %s\n", variant);
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(outputs_are_rounded_once)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vkmoe_context_destroy(context);
    layer_data_finish(&data);
    return failed != 0;
}
