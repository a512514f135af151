// SPDX-License-Identifier: MIT
// What the keys of GGUF files say: rule 3, by the type that is stored, and rule 7, of each layer.
#include "check.h"
#include "gguf_file.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/gguf.h"

#include <stdio.h>

#define H GGUF_HEAD

static void open_good(const char *notation, struct moe_gguf *out)
{
    const char *path = gguf_file("x.gguf", notation);
    if (moe_gguf_open(moe_host_default(), path, out) != VKMOE_OK)
        fail_msg("%s: %s", notation, vkmoe_error_text());
}

// Rule 3: each type as each getter sees it.
static void test_numbers(void **state)
{
    (void) state;
    static const struct {
        const char *value; // type and bytes
        uint64_t u64;
        bool is_u64, is_u32;
        const char *part; // why it is no u64
    } cases[] = {
        {"4=0 1=255", 255, true, true, NULL},
        {"4=1 1=127", 127, true, true, NULL},
        {"4=2 2=65535", 65535, true, true, NULL},
        {"4=3 2=32767", 32767, true, true, NULL},
        {"4=4 4=0xffffffff", 0xffffffff, true, true, NULL},
        {"4=5 4=0x7fffffff", 0x7fffffff, true, true, NULL},
        {"4=10 8=0xffffffff", 0xffffffff, true, true, NULL},
        {"4=10 8=0x100000000", 0x100000000, true, false, NULL},
        {"4=10 8=-1", UINT64_MAX, true, false, NULL},
        {"4=11 8=5", 5, true, true, NULL},
        {"4=11 8=0x7fffffffffffffff", INT64_MAX, true, false, NULL},
        {"4=1 1=-1", 0, false, false, "key 'k' says -1, a number >= 0 is wanted"},
        {"4=1 1=-128", 0, false, false, "says -128,"},
        {"4=3 2=-2", 0, false, false, "says -2,"},
        {"4=5 4=-3", 0, false, false, "says -3,"},
        {"4=11 8=-4", 0, false, false, "says -4,"},
        {"4=11 8=0x8000000000000000", 0, false, false, "says -9223372036854775808,"},
        {"4=6 f=1", 0, false, false, "key 'k' is a single f32, not an integer"},
        {"4=12 d=1", 0, false, false, "is a single f64, not an integer"},
        {"4=7 1=1", 0, false, false, "is a single bool, not an integer"},
        {"4=8 t'1'", 0, false, false, "is a single string, not an integer"},
        {"4=9 4=4 8=1 4=1", 0, false, false, "is an array of 1 u32, not a single value"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        char notation[128];
        struct moe_gguf file;
        uint64_t u64 = 99;
        uint32_t u32 = 99;
        snprintf(notation, sizeof notation, H(0, 1) "t'k' %s", cases[i].value);
        open_good(notation, &file);
        if (cases[i].is_u64)
            check_ok(moe_gguf_u64(&file, "k", &u64));
        else
            check_fails(moe_gguf_u64(&file, "k", &u64), VKMOE_E_DATA, cases[i].part);
        assert_int_equal(u64, cases[i].is_u64 ? cases[i].u64 : 99);
        if (cases[i].is_u32)
            check_ok(moe_gguf_u32(&file, "k", &u32));
        else
            check_fails(moe_gguf_u32(&file, "k", &u32), VKMOE_E_DATA,
                        cases[i].is_u64 ? ", at most 4294967295" : cases[i].part);
        assert_int_equal(u32, cases[i].is_u32 ? cases[i].u64 : 99);
        moe_gguf_close(&file);
    }
}

static void test_floats(void **state)
{
    (void) state;
    struct moe_gguf file;
    double f64 = 99;
    float f32 = 99;
    open_good(H(0, 7) "t'a' 4=6 f=0.1 t'b' 4=12 d=0.1 t'c' 4=12 d=1e39 t'd' 4=12 d=inf t'e' 4=4 "
              "4=1 t'f' 4=9 4=6 8=2 f=1 f=2 t'g' 4=9 4=12 8=1 d=-1e39", &file);
    check_ok(moe_gguf_f64(&file, "a", &f64));
    assert_true(f64 == 0.1f);
    check_ok(moe_gguf_f32(&file, "a", &f32));
    assert_true(f32 == 0.1f);
    check_ok(moe_gguf_f64(&file, "b", &f64));
    assert_true(f64 == 0.1);
    check_ok(moe_gguf_f32(&file, "b", &f32));
    assert_true(f32 == 0.1f);
    check_ok(moe_gguf_f64(&file, "c", &f64));
    assert_true(f64 == 1e39);
    check_fails(moe_gguf_f32(&file, "c", &f32), VKMOE_E_DATA, "key 'c' says 1e+39, too large");
    check_ok(moe_gguf_f32(&file, "d", &f32));
    assert_true(isinf(f32));
    check_fails(moe_gguf_f32(&file, "e", &f32), VKMOE_E_DATA,
                "key 'e' is a single u32, not f32 or f64");
    check_fails(moe_gguf_f64(&file, "f", &f64), VKMOE_E_DATA, "is an array of 2 f32, not a single");
    check_fails(moe_gguf_f32(&file, "h", &f32), VKMOE_E_DATA, "key 'h' is missing");
    check_ok(moe_gguf_element_f32(&file, "f", 1, &f32));
    assert_true(f32 == 2);
    check_fails(moe_gguf_element_f32(&file, "f", 2, &f32), VKMOE_E_DATA,
                "key 'f' has 2 elements, none for index 2");
    check_fails(moe_gguf_element_f32(&file, "g", 0, &f32), VKMOE_E_DATA, "says -1e+39, too large");
    check_fails(moe_gguf_element_f32(&file, "a", 0, &f32), VKMOE_E_DATA,
                "key 'a' is a single f32, not an array");
    moe_gguf_close(&file);
}

static void test_bools_and_texts(void **state)
{
    (void) state;
    struct moe_gguf file;
    bool yes = false;
    const char *text = NULL;
    open_good(H(0, 8) "t'yes' 4=7 1=1 t'no' 4=7 1=0 t'byte' 4=0 1=1 t'text' 4=8 t'a b' t'zero' 4=8 "
              "8=3 'a' 1=0 'b' t'empty' 4=8 t'' t'bools' 4=9 4=7 8=1 1=1 t'texts' 4=9 4=8 8=1 t'x'",
              &file);
    check_ok(moe_gguf_bool(&file, "yes", &yes));
    assert_true(yes);
    check_ok(moe_gguf_bool(&file, "no", &yes));
    assert_false(yes);
    check_fails(moe_gguf_bool(&file, "byte", &yes), VKMOE_E_DATA, "is a single u8, not a bool");
    check_fails(moe_gguf_bool(&file, "bools", &yes), VKMOE_E_DATA, "array of 1 bool, not a single");
    check_fails(moe_gguf_bool(&file, "none", &yes), VKMOE_E_DATA, "key 'none' is missing");
    check_ok(moe_gguf_string(&file, "text", &text));
    assert_string_equal(text, "a b");
    check_ok(moe_gguf_string(&file, "empty", &text));
    assert_string_equal(text, "");
    check_fails(moe_gguf_string(&file, "zero", &text), VKMOE_E_DATA,
                "key 'zero': byte 1 of 3 of its text is zero");
    check_fails(moe_gguf_string(&file, "yes", &text), VKMOE_E_DATA, "a single bool, not a string");
    check_fails(moe_gguf_string(&file, "texts", &text), VKMOE_E_DATA, "array of 1 string, not a s");
    check_fails(moe_gguf_string(&file, "none", &text), VKMOE_E_DATA, "key 'none' is missing");
    assert_string_equal(text, "");
    moe_gguf_close(&file);
}

static void test_arrays(void **state)
{
    (void) state;
    struct moe_gguf file;
    const struct moe_gguf_value *v = NULL;
    uint64_t u64 = 99;
    open_good(H(0, 4) "t'a' 4=9 4=5 8=3 4=1 4=-2 4=3 t'b' 4=9 4=8 8=3 t'x' 8=3 1=0 'yz' t'' "
              "t'c' 4=4 4=6 t'd' 4=9 4=7 8=1 1=1", &file);
    assert_int_equal(file.n_values, 4);
    assert_string_equal(file.values[1].key, "b"); // in the order of the file
    check_ok(moe_gguf_array(&file, "b", MOE_GGUF_STRING, &v));
    const struct moe_gguf_text *texts = v->data;
    assert_int_equal(v->n, 3);
    assert_int_equal(texts[1].size, 3);
    assert_memory_equal(texts[1].text, "\0yz", 4);
    assert_int_equal(texts[2].size, 0);
    assert_string_equal(texts[2].text, "");
    check_fails(moe_gguf_array(&file, "b", MOE_GGUF_U8, &v), VKMOE_E_DATA,
                "key 'b' is an array of 3 string, not an array of u8");
    check_fails(moe_gguf_array(&file, "c", MOE_GGUF_U32, &v), VKMOE_E_DATA, "a single u32, not an");
    check_fails(moe_gguf_array(&file, "e", MOE_GGUF_U32, &v), VKMOE_E_DATA, "key 'e' is missing");
    check_ok(moe_gguf_element_u64(&file, "a", 2, &u64));
    assert_int_equal(u64, 3);
    check_fails(moe_gguf_element_u64(&file, "a", 1, &u64), VKMOE_E_DATA, "key 'a' says -2,");
    check_fails(moe_gguf_element_u64(&file, "a", 3, &u64), VKMOE_E_DATA, "none for index 3");
    check_fails(moe_gguf_element_u64(&file, "b", 0, &u64), VKMOE_E_DATA, "string, not an integer");
    check_fails(moe_gguf_element_u64(&file, "d", 0, &u64), VKMOE_E_DATA, "1 bool, not an integer");
    check_fails(moe_gguf_element_u64(&file, "c", 0, &u64), VKMOE_E_DATA, "u32, not an array");
    assert_ptr_equal(moe_gguf_find_value(&file, "c"), &file.values[2]);
    assert_null(moe_gguf_find_value(&file, "e"));
    moe_gguf_close(&file);
}

// Rule 7.
static void test_layers(void **state)
{
    (void) state;
    struct moe_gguf file;
    uint64_t u64 = 99;
    uint32_t u32 = 99;
    float f32 = 99;
    open_good(H(0, 4) "t'one' 4=4 4=7 t'each' 4=9 4=5 8=2 4=8 4=9 t'f' 4=6 f=0.5 t'fs' 4=9 4=6 8=2 "
              "f=1 f=2", &file);
    check_ok(moe_gguf_layer_u64(&file, "one", 1000, &u64));
    assert_int_equal(u64, 7);
    check_ok(moe_gguf_layer_u32(&file, "each", 1, &u32));
    assert_int_equal(u32, 9);
    check_ok(moe_gguf_layer_u64(&file, "each", 0, &u64));
    assert_int_equal(u64, 8);
    check_ok(moe_gguf_layer_f32(&file, "f", 5, &f32));
    assert_true(f32 == 0.5f);
    check_ok(moe_gguf_layer_f32(&file, "fs", 1, &f32));
    assert_true(f32 == 2);
    check_fails(moe_gguf_layer_u64(&file, "each", 2, &u64), VKMOE_E_DATA,
                "key 'each' has 2 elements, none for layer 2");
    check_fails(moe_gguf_layer_u32(&file, "each", 2, &u32), VKMOE_E_DATA, "none for layer 2");
    check_fails(moe_gguf_layer_f32(&file, "fs", 2, &f32), VKMOE_E_DATA, "none for layer 2");
    check_fails(moe_gguf_layer_f32(&file, "each", 0, &f32), VKMOE_E_DATA, "not f32 or f64");
    check_fails(moe_gguf_layer_u32(&file, "fs", 0, &u32), VKMOE_E_DATA, "not an integer");
    moe_gguf_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),         cmocka_unit_test(test_floats),
        cmocka_unit_test(test_bools_and_texts), cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_layers),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
