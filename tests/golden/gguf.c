// SPDX-License-Identifier: MIT
// A file that the Python package gguf wrote (gguf.py): its values and tensors, and what we write of
// them, the same bytes.
#include "unit/check.h"
#include "unit/scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "core/dtype.h"
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>

enum { N = 256 };

static const char *data_file;

static int open_file(void **state)
{
    static struct moe_gguf file;
    *state = &file;
    check_ok(moe_gguf_open(moe_host_default(), data_file, &file));
    return scratch_setup(NULL);
}

static int close_file(void **state)
{
    moe_gguf_close(*state);
    return scratch_teardown(NULL);
}

// What gguf.py stores.
static float value_at(int i)
{
    return (float) (i * 37 % 101 - 50) / 32;
}

static void test_numbers(void **state)
{
    const struct moe_gguf *file = *state;
    static const struct {
        const char *key;
        enum moe_gguf_value_type type;
        uint64_t value; // 0: negative
    } cases[] = {
        {"u8", MOE_GGUF_U8, 200},         {"i8", MOE_GGUF_I8, 0},
        {"u16", MOE_GGUF_U16, 60000},     {"i16", MOE_GGUF_I16, 0},
        {"u32", MOE_GGUF_U32, 4000000000}, {"i32", MOE_GGUF_I32, 0},
        {"u64", MOE_GGUF_U64, (uint64_t) 1 << 63}, {"i64", MOE_GGUF_I64, 0},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        uint64_t value = 0;
        assert_int_equal(moe_gguf_find_value(file, cases[i].key)->type, cases[i].type);
        if (cases[i].value)
            check_ok(moe_gguf_u64(file, cases[i].key, &value));
        else
            check_fails(moe_gguf_u64(file, cases[i].key, &value), VKMOE_E_DATA, "says -");
        assert_int_equal(value, cases[i].value);
    }
    float f32 = 0;
    double f64 = 0;
    check_ok(moe_gguf_f32(file, "f32", &f32));
    assert_true(f32 == 0.1f);
    check_ok(moe_gguf_f64(file, "f64", &f64));
    assert_true(f64 == 0.1);
}

static void test_texts_and_arrays(void **state)
{
    const struct moe_gguf *file = *state;
    const char *text = NULL;
    bool yes = false;
    uint64_t u64 = 0;
    float f32 = 0;
    const struct moe_gguf_value *v = NULL;
    check_ok(moe_gguf_string(file, "general.architecture", &text));
    assert_string_equal(text, "test");
    check_ok(moe_gguf_string(file, "string", &text));
    assert_string_equal(text, "gr\xc3\xbcn");
    check_ok(moe_gguf_bool(file, "bool", &yes));
    assert_true(yes);
    check_ok(moe_gguf_layer_u64(file, "ints", 2, &u64));
    assert_int_equal(u64, 3);
    check_ok(moe_gguf_element_f32(file, "floats", 1, &f32));
    assert_true(f32 == -1);
    check_ok(moe_gguf_array(file, "texts", MOE_GGUF_STRING, &v));
    assert_int_equal(v->n, 3);
    assert_string_equal(((const struct moe_gguf_text *) v->data)[2].text, "ccc");
    check_ok(moe_gguf_array(file, "bools", MOE_GGUF_BOOL, &v));
    assert_int_equal(v->n, 3);
    assert_memory_equal(v->data, "\1\0\1", 3);
}

static void test_float_tensors(void **state)
{
    const struct moe_gguf *file = *state;
    static const struct {
        const char *name, *described;
        enum vkmoe_dtype type;
        int n;
    } cases[] = {
        {"f32.weight", "f32 (64, 2, 2)", VKMOE_F32, N},
        {"f16.weight", "f16 (64, 2)", VKMOE_F16, N / 2},
        {"bf16", "bf16 (64, 2, 2)", VKMOE_BF16, N},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        char text[192];
        float bytes[N], values[N];
        const struct moe_gguf_tensor *t = moe_gguf_find(file, cases[i].name);
        assert_string_equal(moe_gguf_describe(t, text), cases[i].described);
        assert_int_equal(t->n_elements, cases[i].n);
        check_ok(moe_gguf_read(file, t, 0, (size_t) t->size, bytes));
        moe_dtype_decode(cases[i].type, bytes, (size_t) cases[i].n, values);
        for (int j = 0; j < cases[i].n; j++)
            assert_true(values[j] == value_at(j));
    }
    int32_t ids[6];
    const struct moe_gguf_tensor *t = moe_gguf_find(file, "ids");
    assert_int_equal(t->size, sizeof ids);
    check_ok(moe_gguf_read(file, t, 0, sizeof ids, ids));
    for (int i = 0; i < 6; i++)
        assert_int_equal(ids[i], i);
}

// Blocks of 32 lie where they should: a value is half a step around what it stands for, and the
// step is rounded to f16 once, 127 times at most.
static void test_blocks(void **state)
{
    const struct moe_gguf *file = *state;
    unsigned char blocks[N / 32][34];
    const struct moe_gguf_tensor *t = moe_gguf_find(file, "q8_0");
    assert_int_equal(t->size, sizeof blocks);
    for (int i = 0; i < N / 32; i++) {
        float d;
        check_ok(moe_gguf_read(file, t, (uint64_t) i * 34, 34, blocks[i]));
        moe_dtype_decode(VKMOE_F16, blocks[i], 1, &d);
        for (int j = 0; j < 32; j++)
            check_near(d * (float) (int8_t) blocks[i][2 + j], value_at(32 * i + j),
                       (0.5 + 127 * 0x1p-10) * d);
    }
    assert_int_equal(moe_gguf_find(file, "q4_0")->size, N / 32 * 18);
}

// What we write of a file is that file.
static void test_write_again(void **state)
{
    const struct moe_gguf *file = *state;
    struct moe_gguf_source sources[16] = {{0}};
    unsigned char *bytes[16];
    assert_true(file->n_tensors == 6);
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct moe_gguf_tensor *t = &file->tensors[i];
        bytes[i] = malloc((size_t) t->size);
        check_ok(moe_gguf_read(file, t, 0, (size_t) t->size, bytes[i]));
        sources[i] = (struct moe_gguf_source){.name = t->name, .type_id = t->type_id,
                                              .n_dims = t->n_dims, .data = bytes[i]};
        memcpy(sources[i].dims, t->dims, sizeof t->dims);
    }
    check_ok(moe_gguf_write(moe_host_default(), scratch_path("again.gguf"), file->values,
                            file->n_values, sources, file->n_tensors, NULL));
    struct moe_file_map a, b;
    check_ok(moe_file_map(data_file, &a));
    check_ok(moe_file_map(scratch_path("again.gguf"), &b));
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    moe_file_unmap(&a);
    moe_file_unmap(&b);
    for (size_t i = 0; i < file->n_tensors; i++)
        free(bytes[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),       cmocka_unit_test(test_texts_and_arrays),
        cmocka_unit_test(test_float_tensors), cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_write_again),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: golden_gguf FILE.gguf\n");
        return 2;
    }
    data_file = argv[1];
    return cmocka_run_group_tests(tests, open_file, close_file) != 0;
}
