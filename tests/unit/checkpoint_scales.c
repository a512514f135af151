// SPDX-License-Identifier: MIT
// Codes with scales beside them, in the forms that published models have: each value is what the
// codes and scales say, and the type that it becomes holds it or says by how much it does not.
#include "checkpoint_folder.h"

#include "fixture.h"
#include "scratch.h"

#include "core/dtype.h"

#include <stdio.h>
#include <vkmoe/checkpoint.h>

enum { D = 64, F = 32, E = 2 };

struct form {
    const char *what;
    const char *suffix, *dtype;  // of the codes
    uint32_t bits;               // of a code
    const char *scale, *scale_dtype;
    uint32_t grid_rows, grid_columns; // 0: none; 0 columns: one scale alone
    const char *global;
    bool divide;
    enum vkmoe_dtype type;
    bool exact;
};

static const struct form forms[] = {
    {"fp8, one scale", ".weight", "F8_E4M3", 8, ".weight_scale", "F32", 1, 0, NULL, false,
     VKMOE_FP8, true},
    {"fp8, a scale for each row", ".weight", "F8_E4M3", 8, ".weight_scale", "BF16", F, 1, NULL,
     false, VKMOE_FP8, true},
    {"fp8, blocks", ".weight", "F8_E4M3", 8, ".weight_scale_inv", "F32", 2, 1, NULL, false,
     VKMOE_FP8, true},
    {"fp8, narrow blocks", ".weight", "F8_E4M3", 8, ".weight_scale_inv", "F32", 2, 4, NULL, false,
     VKMOE_BF16, false},
    {"mxfp8", ".weight", "F8_E4M3", 8, ".weight_scale_inv", "U8", F, 2, NULL, false, VKMOE_BF16,
     true},
    {"fp8 alone", ".weight", "F8_E4M3", 8, NULL, NULL, 0, 0, NULL, false, VKMOE_FP8, true},
    {"e5m2 alone", ".weight", "F8_E5M2", 8, NULL, NULL, 0, 0, NULL, false, VKMOE_F16, true},
    {"int8", ".weight", "I8", 8, ".weight_scale", "F32", F, 1, NULL, false, VKMOE_Q8_0, false},
    {"mxfp4", ".weight_packed", "U8", 4, ".weight_scale", "U8", F, 2, NULL, false, VKMOE_MXFP4,
     true},
    {"DeepSeek's fp4", ".weight", "I8", 4, ".scale", "F8_E8M0", F, 2, NULL, false, VKMOE_MXFP4,
     true},
    {"ModelOpt's nvfp4", ".weight", "U8", 4, ".weight_scale", "F8_E4M3", F, 4, ".weight_scale_2",
     false, VKMOE_Q8_0, false},
    {"compressed nvfp4", ".weight_packed", "U8", 4, ".weight_scale", "F8_E4M3", F, 4,
     ".weight_global_scale", true, VKMOE_Q8_0, false},
    {"int4", ".weight_packed", "I32", 4, ".weight_scale", "BF16", F, 2, NULL, false, VKMOE_Q8_0,
     false},
};

// ---- what codes mean, in words of this test -----------------------------------------------------

static double small_float(unsigned code, int exponent_bits, int mantissa_bits, int bias)
{
    unsigned mantissa = code & ((1u << mantissa_bits) - 1);
    int exponent = (int) (code >> mantissa_bits & ((1u << exponent_bits) - 1));
    double sign = code >> (exponent_bits + mantissa_bits) & 1 ? -1 : 1;
    double part = (double) mantissa / (1 << mantissa_bits);
    return sign * (exponent == 0 ? ldexp(part, 1 - bias) : ldexp(1 + part, exponent - bias));
}

static double meaning(const char *dtype, uint32_t bits, const unsigned char *bytes, size_t i)
{
    uint16_t half;
    float value;
    if (bits == 4) {
        unsigned code = bytes[i / 2] >> 4 * (i % 2) & 15;
        return strcmp(dtype, "I32") == 0 ? (double) code - 8 : small_float(code, 2, 1, 1);
    }
    if (strcmp(dtype, "F8_E4M3") == 0)
        return small_float(bytes[i], 4, 3, 7);
    if (strcmp(dtype, "F8_E5M2") == 0)
        return small_float(bytes[i], 5, 2, 15);
    if (strcmp(dtype, "I8") == 0)
        return (signed char) bytes[i];
    if (strcmp(dtype, "BF16") == 0) {
        memcpy(&half, bytes + 2 * i, sizeof half);
        return (double) moe_bf16_to_f32(half);
    }
    if (strcmp(dtype, "F32") == 0) {
        memcpy(&value, bytes + 4 * i, sizeof value);
        return (double) value;
    }
    return ldexp(1, bytes[i] - 127); // U8 and F8_E8M0
}

// ---- writing ---------------------------------------------------------------------------------

static unsigned next(unsigned *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

// Codes that are numbers.
static void fill_codes(unsigned char *bytes, size_t n, const char *dtype, unsigned seed)
{
    for (size_t i = 0; i < n; i++) {
        unsigned code = next(&seed) & 255;
        bool e4m3 = strcmp(dtype, "F8_E4M3") == 0, e5m2 = strcmp(dtype, "F8_E5M2") == 0;
        if (e4m3 && (code & 127) == 127)
            code -= 1;
        if (e5m2 && (code & 127) > 123)
            code -= 8;
        bytes[i] = (unsigned char) code;
    }
}

static void fill_scales(void *data, size_t n, const char *dtype, unsigned seed)
{
    unsigned char *bytes = data;
    for (size_t i = 0; i < n; i++) {
        unsigned code = next(&seed);
        float value = 0.01f + (float) (code % 1000) / 3000;
        uint16_t half = moe_f32_to_bf16(value);
        if (strcmp(dtype, "F32") == 0)
            memcpy(bytes + 4 * i, &value, sizeof value);
        else if (strcmp(dtype, "BF16") == 0)
            memcpy(bytes + 2 * i, &half, sizeof half);
        else if (strcmp(dtype, "F8_E4M3") == 0)
            bytes[i] = (unsigned char) (40 + code % 30);
        else
            bytes[i] = (unsigned char) (122 + code % 8);
    }
}

static void add_up(struct folder *folder, const struct form *form, unsigned e)
{
    char name[64];
    uint64_t width = strcmp(form->dtype, "I32") == 0 ? D / 8 : form->bits == 4 ? D / 2 : D;
    snprintf(name, sizeof name, "%u.up%s", e, form->suffix);
    fill_codes(folder_add(folder, name, form->dtype, F, width, 0), F * D * form->bits / 8,
               form->dtype, 17 + e);
    if (form->scale) {
        uint32_t n = form->grid_rows * (form->grid_columns ? form->grid_columns : 1);
        snprintf(name, sizeof name, "%u.up%s", e, form->scale);
        fill_scales(folder_add(folder, name, form->scale_dtype, form->grid_rows,
                               form->grid_columns, 0), n, form->scale_dtype, 99 + e);
    }
    if (form->global) {
        snprintf(name, sizeof name, "%u.up%s", e, form->global);
        *(float *) folder_add(folder, name, "F32", 1, 0, 0) = 3.5f + (float) e;
    }
}

// ---- checking --------------------------------------------------------------------------------

static double expected(struct folder *folder, const struct form *form, unsigned e, uint32_t r,
                       uint32_t c)
{
    char name[64];
    snprintf(name, sizeof name, "%u.up%s", e, form->suffix);
    double value = meaning(form->dtype, form->bits, folder_find(folder, name)->data, r * D + c);
    if (form->scale) {
        uint32_t columns = form->grid_columns ? form->grid_columns : 1;
        uint32_t i = r / (F / form->grid_rows), k = c / (D / columns);
        snprintf(name, sizeof name, "%u.up%s", e, form->scale);
        value *= meaning(form->scale_dtype, 8, folder_find(folder, name)->data, i * columns + k);
    }
    if (form->global)
        value = form->divide ? value / (3.5 + e) : value * (3.5 + e);
    return value;
}

static void check_form(struct folder *folder, const struct form *form)
{
    static const char description[] =
        "{\"layers\": 1, \"layer\": {\"top_k\": 1, \"act\": \"relu\"}, \"tensors\": {\"router\": "
        "\"router\", \"experts.up\": \"{E}.up\", \"experts.down\": \"{E}.down\"}}";
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_part part;
    vkmoe_checkpoint_desc desc = vkmoe_checkpoint_desc_init();
    vkmoe_layer_desc layer;
    vkmoe_weights *weights;
    vkmoe_load_report report;
    float row[D];
    vkmoe_context *context = context_on("reference", NULL);
    desc.description = description;
    folder_write(folder, "{\"quantization_config\": {\"weight_block_size\": [16, 64]}}");
    check_ok(vkmoe_checkpoint_open(scratch_folder(), &desc, &checkpoint));
    check_ok(vkmoe_checkpoint_get_part(checkpoint, 0, VKMOE_PART_UP, &part));
    if (part.type != form->type || part.exact != form->exact)
        fail_msg("%s: %s, %s", form->what, vkmoe_dtype_name(part.type),
                 part.exact ? "exact" : "not exact");
    for (unsigned e = 0; e < E; e++) {
        for (uint32_t r = 0; r < F; r++) {
            check_ok(vkmoe_checkpoint_read(checkpoint, 0, VKMOE_PART_UP, e, r, 1, row));
            for (uint32_t c = 0; c < D; c++) {
                double want = expected(folder, form, e, r, c);
                // Two products are rounded at most.
                if (!(fabs((double) row[c] - want) <= fabs(want) * 0x1p-23))
                    fail_msg("%s: expert %u (%u, %u): %g, not %g", form->what, e, r, c,
                             (double) row[c], want);
            }
        }
    }
    check_ok(vkmoe_checkpoint_load(checkpoint, context, 0, NULL, &layer, &weights, &report));
    assert_int_equal(layer.in_type, form->type);
    assert_int_equal(report.parts[0].part, VKMOE_PART_UP);
    if (report.parts[0].exact != form->exact || report.parts[0].error > 0.02 ||
        (report.parts[0].error == 0) != form->exact)
        fail_msg("%s: an error of %g", form->what, report.parts[0].error);
    vkmoe_weights_destroy(weights);
    vkmoe_checkpoint_destroy(checkpoint);
    vkmoe_context_destroy(context);
}

static void test_forms(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct folder folder = {.n_tensors = 0};
        folder_add(&folder, "router", "F32", E, D, 0);
        folder_add(&folder, "0.down", "F32", D, F, 0);
        folder_add(&folder, "1.down", "F32", D, F, 0);
        for (unsigned e = 0; e < E; e++)
            add_up(&folder, &forms[i], e);
        check_form(&folder, &forms[i]);
        folder_finish(&folder);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms)};
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
