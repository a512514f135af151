// SPDX-License-Identifier: MIT
// Writing GGUF: what is written is read back, what the reader refuses leaves no file.
#include "budget.h"
#include "check.h"
#include "gguf_file.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>

#define VALUE(name, kind, what) {.key = name, .type = MOE_GGUF_##kind, .n = 1, .data = what}
#define ARRAY(name, kind, what)                                                                    \
    {.key = name, .type = MOE_GGUF_##kind, .is_array = true, .n = MOE_COUNT(what), .data = what}
#define TEXT(text) {text, sizeof text - 1}

static enum vkmoe_status write_file(const char *name, const struct moe_gguf_value *values,
                                    size_t n_values, const struct moe_gguf_source *tensors,
                                    size_t n_tensors)
{
    return moe_gguf_write(moe_host_default(), scratch_path(name), values, n_values, tensors,
                          n_tensors, NULL);
}

static void test_write_and_read(void **state)
{
    (void) state;
    static const uint32_t u32 = 7, u32s[] = {1, 2, 3};
    static const float f32 = 0.1f, f32s[] = {0.5f, -1};
    static const bool yes = true, bools[] = {true, false};
    static const struct moe_gguf_text text = TEXT("a text"), texts[] = {TEXT(""), TEXT("x\0y")};
    static const int64_t i64 = -3;
    const struct moe_gguf_value values[] = {
        VALUE("general.architecture", STRING, &text), VALUE("u32", U32, &u32),
        VALUE("f32", F32, &f32), VALUE("bool", BOOL, &yes), VALUE("i64", I64, &i64),
        ARRAY("u32s", U32, u32s), ARRAY("f32s", F32, f32s), ARRAY("bools", BOOL, bools),
        ARRAY("texts", STRING, texts),
        {.key = "none", .type = MOE_GGUF_U8, .is_array = true},
    };
    static const float a[6] = {1, 2, 3, 4, 5, 6};
    static const unsigned char q[34] = {0, 0x3c, 1, 2};
    const struct moe_gguf_source tensors[] = {
        {.name = "z", .type_id = MOE_GGML_F32, .n_dims = 2, .dims = {3, 2}, .data = a},
        {.name = "q", .type_id = MOE_GGML_Q8_0, .n_dims = 1, .dims = {32}, .data = q},
        {.name = "none", .type_id = MOE_GGML_F16, .n_dims = 2, .dims = {0, 7}},
        {.name = "one", .type_id = MOE_GGML_F32, .data = a},
    };
    struct moe_gguf file;
    check_ok(write_file("w.gguf", values, MOE_COUNT(values), tensors, MOE_COUNT(tensors)));
    check_ok(moe_gguf_open(moe_host_default(), scratch_path("w.gguf"), &file));

    assert_int_equal(file.n_values, MOE_COUNT(values));
    for (size_t i = 0; i < MOE_COUNT(values); i++) {
        const struct moe_gguf_value *v = &file.values[i], *w = &values[i];
        assert_string_equal(v->key, w->key);
        assert_int_equal(v->type, w->type);
        assert_int_equal(v->is_array, w->is_array);
        assert_int_equal(v->n, w->n);
    }
    const char *got_text = NULL;
    uint64_t got_u64 = 0;
    float got_f32 = 0;
    bool got_bool = false;
    const struct moe_gguf_value *v = NULL;
    check_ok(moe_gguf_string(&file, "general.architecture", &got_text));
    assert_string_equal(got_text, "a text");
    check_ok(moe_gguf_u64(&file, "u32", &got_u64));
    assert_int_equal(got_u64, 7);
    check_ok(moe_gguf_f32(&file, "f32", &got_f32));
    assert_true(got_f32 == 0.1f);
    check_ok(moe_gguf_bool(&file, "bool", &got_bool));
    assert_true(got_bool);
    check_fails(moe_gguf_u64(&file, "i64", &got_u64), VKMOE_E_DATA, "says -3");
    check_ok(moe_gguf_element_u64(&file, "u32s", 2, &got_u64));
    assert_int_equal(got_u64, 3);
    check_ok(moe_gguf_element_f32(&file, "f32s", 1, &got_f32));
    assert_true(got_f32 == -1);
    check_ok(moe_gguf_array(&file, "bools", MOE_GGUF_BOOL, &v));
    assert_memory_equal(v->data, bools, 2);
    check_ok(moe_gguf_array(&file, "texts", MOE_GGUF_STRING, &v));
    assert_int_equal(((const struct moe_gguf_text *) v->data)[1].size, 3);
    assert_memory_equal(((const struct moe_gguf_text *) v->data)[1].text, "x\0y", 4);

    assert_int_equal(file.n_tensors, MOE_COUNT(tensors));
    for (size_t i = 0; i < MOE_COUNT(tensors); i++) {
        const struct moe_gguf_tensor *t = &file.tensors[i];
        unsigned char bytes[64];
        assert_string_equal(t->name, tensors[i].name);
        assert_int_equal(t->type_id, tensors[i].type_id);
        assert_int_equal(t->n_dims, tensors[i].n_dims);
        assert_memory_equal(t->dims, tensors[i].dims, t->n_dims * sizeof *t->dims);
        assert_int_equal(t->offset % MOE_GGUF_ALIGN, 0);
        check_ok(moe_gguf_read(&file, t, 0, (size_t) t->size, bytes));
        if (t->size > 0)
            assert_memory_equal(bytes, tensors[i].data, t->size);
    }
    moe_gguf_close(&file);
}

// Byte for byte what the notation says.
static void test_bytes(void **state)
{
    (void) state;
    static const uint32_t u32 = 7;
    static const struct moe_gguf_text texts[] = {TEXT("x"), TEXT("yz")};
    static const float a[2] = {1, 2};
    const struct moe_gguf_value values[] = {VALUE("k", U32, &u32), ARRAY("t", STRING, texts)};
    const struct moe_gguf_source tensors[] = {
        {.name = "a", .type_id = MOE_GGML_F32, .n_dims = 1, .dims = {2}, .data = a},
        {.name = "b", .type_id = MOE_GGML_F32, .n_dims = 1, .dims = {1}, .data = a},
    };
    struct moe_file_map got, want;
    check_ok(write_file("w.gguf", values, 2, tensors, 2));
    check_ok(moe_file_map(scratch_path("w.gguf"), &got));
    check_ok(moe_file_map(gguf_file("x.gguf", GGUF_HEAD(2, 2) "t'k' 4=4 4=7 t't' 4=9 4=8 8=2 t'x' "
                                    "t'yz' t'a' 4=1 8=2 4=0 8=0 t'b' 4=1 8=1 4=0 8=32 ~32 f=1 f=2 "
                                    "~32 f=1 ~32"), &want));
    assert_int_equal(got.size, want.size);
    assert_memory_equal(got.data, want.data, want.size);
    moe_file_unmap(&got);
    moe_file_unmap(&want);
}

// ---- pieces ----------------------------------------------------------------------------------

struct pieces {
    uint64_t next, fail_at;
    size_t largest, block_size;
};

static unsigned char byte_at(uint64_t i)
{
    return (unsigned char) (i * 2654435761u >> 16);
}

static enum vkmoe_status fill(void *user, uint64_t offset, size_t size, void *dst)
{
    struct pieces *p = user;
    assert_int_equal(offset, p->next);
    assert_int_equal(size % p->block_size, 0);
    assert_true(size > 0);
    p->next += size;
    p->largest = size > p->largest ? size : p->largest;
    if (p->next > p->fail_at)
        return moe_fail(VKMOE_E_CANCELLED, "enough");
    for (size_t i = 0; i < size; i++)
        ((unsigned char *) dst)[i] = byte_at(offset + i);
    return VKMOE_OK;
}

static void test_pieces(void **state)
{
    (void) state;
    enum { BLOCKS = 100000, SIZE = BLOCKS * 34 };
    struct pieces p = {.fail_at = UINT64_MAX, .block_size = 34};
    const struct moe_gguf_source tensors[] = {
        {.name = "big", .type_id = MOE_GGML_Q8_0, .n_dims = 2, .dims = {32, BLOCKS}, .fill = fill,
         .user = &p},
        {.name = "none", .type_id = MOE_GGML_Q8_0, .n_dims = 1, .dims = {0}, .fill = fill},
    };
    struct moe_gguf file;
    unsigned char *bytes = malloc(SIZE);
    assert_non_null(bytes);
    check_ok(write_file("w.gguf", NULL, 0, tensors, 2));
    assert_int_equal(p.next, SIZE);
    assert_true(p.largest <= 1 << 20 && p.largest < SIZE / 2);
    check_ok(moe_gguf_open(moe_host_default(), scratch_path("w.gguf"), &file));
    check_ok(moe_gguf_read(&file, moe_gguf_find(&file, "big"), 0, SIZE, bytes));
    for (size_t i = 0; i < SIZE; i++) {
        if (bytes[i] != byte_at(i))
            fail_msg("byte %zu", i);
    }
    moe_gguf_close(&file);
    free(bytes);

    int before = scratch_count();
    p = (struct pieces){.fail_at = SIZE / 2, .block_size = 34};
    check_fails(write_file("never.gguf", NULL, 0, tensors, 1), VKMOE_E_CANCELLED, "enough");
    assert_int_equal(scratch_count(), before);
}

// ---- bad -------------------------------------------------------------------------------------

static const uint32_t seven = 7, three = 3, zero = 0, align_64 = 64;
static const unsigned char two = 2;
static const float data[64];
static const struct moe_gguf_text long_text = {(const char *) data, (16 << 20) + 1};

static void test_bad_values(void **state)
{
    (void) state;
    static char long_key[65537];
    memset(long_key, 'k', sizeof long_key - 1);
    const struct {
        struct moe_gguf_value value;
        const char *part;
    } cases[] = {
        {VALUE("", U32, &seven), "key 0 of 1: its name is empty"},
        {VALUE("k\n", U32, &seven), "byte 1 of its name is 0x0a"},
        {VALUE(long_key, U32, &seven), "a text of 65536 bytes, at most 65535"},
        {VALUE("k", BOOL, &two), "element 0 of 1 is 2, a bool is 0 or 1"},
        {VALUE("k", ARRAY, &two), "key 'k': there is no type 9 of elements"},
        {{"k", (enum moe_gguf_value_type) 13, false, 1, &two}, "there is no type 13 of elements"},
        {{"k", MOE_GGUF_U32, false, 2, data}, "key 'k': 2 elements of no array"},
        {{"k", MOE_GGUF_U32, false, 0, data}, "key 'k': 0 elements of no array"},
        {{"k", MOE_GGUF_U32, true, 100000000, data}, "100000000 elements of u32 do not fit"},
        {{"k", MOE_GGUF_U64, true, UINT64_MAX / 4, data}, "elements of u64 do not fit"},
        {VALUE("general.alignment", U32, &seven), "says 7, no power of two from 8 to 1048576"},
        {VALUE("general.alignment", U32, &zero), "says 0, no power of two"},
        {VALUE("general.alignment", I32, &align_64), "is a single i32, not a single u32"},
        {VALUE("split.count", U32, &three), "key 'split.no' is missing"},
    };
    int before = scratch_count();
    for (size_t i = 0; i < MOE_COUNT(cases); i++)
        check_fails(write_file("never.gguf", &cases[i].value, 1, NULL, 0), VKMOE_E_ARGUMENT,
                    cases[i].part);

    const struct moe_gguf_value twice[] = {VALUE("k", U32, &seven), VALUE("k", BOOL, &zero)};
    check_fails(write_file("never.gguf", twice, 2, NULL, 0), VKMOE_E_ARGUMENT,
                "key 'k' is there twice");
    const struct moe_gguf_value split[] = {VALUE("split.count", U32, &three),
                                           VALUE("split.no", U32, &zero),
                                           VALUE("split.tensors.count", U32, &zero)};
    check_fails(write_file("never.gguf", split, 3, NULL, 0), VKMOE_E_ARGUMENT,
                "part 1 of 3, which its name does not end with");
    check_fails(write_file("m-00001-of-00003.gguf", split, 3, NULL, 0), VKMOE_E_ARGUMENT,
                "part 1 of 3: only whole models are written");
    check_fails(write_file("m-00001-of-00003.gguf", NULL, 0, NULL, 0), VKMOE_E_ARGUMENT,
                "part 1 of 1 by its keys, 1 of 3 by its name");
    assert_int_equal(scratch_count(), before);
}

static void test_a_header_that_is_too_long(void **state)
{
    (void) state;
    enum { N = 7 };
    char *text = calloc(1, (size_t) 16 << 20);
    struct moe_gguf_text texts[N];
    assert_non_null(text);
    for (int i = 0; i < N; i++)
        texts[i] = (struct moe_gguf_text){text, (size_t) 16 << 20};
    const struct moe_gguf_value values[] = {ARRAY("k", STRING, texts)};
    const struct moe_gguf_value one[] = {VALUE("k", STRING, texts)};
    int before = scratch_count();
    check_fails(write_file("never.gguf", values, 1, NULL, 0), VKMOE_E_ARGUMENT,
                "header of 117440617 bytes, at most 100000000");
    assert_int_equal(scratch_count(), before);
    check_ok(write_file("long.gguf", one, 1, NULL, 0));
    free(text);
}

static void test_a_text_that_is_too_long(void **state)
{
    (void) state;
    char *text = calloc(1, long_text.size);
    assert_non_null(text);
    const struct moe_gguf_text texts[] = {{text, long_text.size}};
    const struct moe_gguf_value value = VALUE("k", STRING, texts);
    check_fails(write_file("never.gguf", &value, 1, NULL, 0), VKMOE_E_ARGUMENT,
                "key 'k': a text of 16777217 bytes, at most 16777216");
    free(text);
}

static void test_bad_tensors(void **state)
{
    (void) state;
    static const char long_name[] =
        "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn";
    const struct {
        struct moe_gguf_source tensor;
        const char *part;
    } cases[] = {
        {{"", 0, 1, {1}, data}, "tensor 0 of 1: its name is empty"},
        {{"\t", 0, 1, {1}, data}, "byte 0 of its name is 0x09"},
        {{long_name, 0, 1, {1}, data}, "a text of 64 bytes, at most 63"},
        {{"a", 4, 1, {1}, data}, "tensor 'a': type 4, q4_2, was removed"},
        {{"a", 43, 1, {1}, data}, "tensor 'a': there is no type 43"},
        {{"a", 0, 5, {1, 1, 1, 1}, data}, "5 dimensions, at most 4"},
        {{"a", 8, 2, {33, 32}, data}, "rows of 33 elements, a block of q8_0 has 32"},
        {{"a", 0, 2, {1ull << 32, 1ull << 32}, data}, "impossible size of f32"},
        {{"a", 0, 2, {1ull << 48, 1ull << 13}, data}, "tensor 'a': 9223372036854775808 bytes"},
    };
    int before = scratch_count();
    for (size_t i = 0; i < MOE_COUNT(cases); i++)
        check_fails(write_file("never.gguf", NULL, 0, &cases[i].tensor, 1), VKMOE_E_ARGUMENT,
                    cases[i].part);
    const struct moe_gguf_source twice[] = {{"a", 0, 1, {1}, data}, {"a", 1, 1, {2}, data}};
    check_fails(write_file("never.gguf", NULL, 0, twice, 2), VKMOE_E_ARGUMENT,
                "tensor 'a' is there twice");
    const struct moe_gguf_source large[] = {{"a", 0, 2, {1ull << 48, 1ull << 11}, data},
                                            {"b", 0, 2, {1ull << 48, 1ull << 11}, data}};
    check_fails(write_file("never.gguf", NULL, 0, large, 2), VKMOE_E_ARGUMENT, "tensor 'b': "
                "2305843009213693952 bytes from 2305843009213693952 are beyond any file");
    check_fails(write_file("", NULL, 0, NULL, 0), VKMOE_E_IO, "not a regular file");
    assert_int_equal(scratch_count(), before);
}

// Another alignment; and what was read is written again.
static void test_write_again(void **state)
{
    (void) state;
    struct moe_gguf file, again;
    const char *path =
        gguf_file("x.gguf", GGUF_HEAD(2, 4) "t'general.alignment' 4=4 4=64 t'a' 4=9 4=8 8=2 t'x' "
                  "8=1 1=0 t'b' 4=3 2=-2 t'c' 4=9 4=12 8=2 d=1 d=nan t'a' 4=1 8=1 4=0 8=0 t'b' "
                  "4=1 8=1 4=0 8=64 ~64 f=1 ~64 f=2 ~64");
    check_ok(moe_gguf_open(moe_host_default(), path, &file));
    const struct moe_gguf_source tensors[] = {
        {"a", 0, 1, {1}, (const float[]){1}}, {"b", 0, 1, {1}, (const float[]){2}}};
    check_ok(write_file("y.gguf", file.values, file.n_values, tensors, 2));
    struct moe_file_map got, want;
    check_ok(moe_file_map(scratch_path("y.gguf"), &got));
    check_ok(moe_file_map(scratch_path("x.gguf"), &want));
    assert_int_equal(got.size, want.size);
    assert_memory_equal(got.data, want.data, want.size);
    moe_file_unmap(&got);
    moe_file_unmap(&want);
    moe_gguf_close(&file);
    check_ok(moe_gguf_open(moe_host_default(), scratch_path("y.gguf"), &again));
    moe_gguf_close(&again);
}

// ---- memory ----------------------------------------------------------------------------------

static void test_every_allocation_fails_once(void **state)
{
    (void) state;
    vkmoe_host host = *moe_host_default();
    struct budget budget = {0};
    budget_host(&host, &budget);
    struct pieces p = {.fail_at = UINT64_MAX, .block_size = 4};
    const struct moe_gguf_value values[] = {VALUE("k", U32, &seven)};
    const struct moe_gguf_source tensors[] = {{"a", 0, 1, {8}, NULL, fill, &p}};
    int before = scratch_count();
    size_t n = 0;
    for (enum vkmoe_status status = VKMOE_E_MEMORY; status != VKMOE_OK; n++) {
        budget = (struct budget){.fail_at = (long) n};
        p.next = 0;
        status = moe_gguf_write(&host, scratch_path("memory.gguf"), values, 1, tensors, 1, NULL);
        assert_true(status == VKMOE_OK || status == VKMOE_E_MEMORY);
        assert_int_equal(scratch_count(), before + (status == VKMOE_OK));
        assert_int_equal(budget.live, 0);
        assert_true(n < 30);
    }
    assert_true(n > 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_and_read),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_a_header_that_is_too_long),
        cmocka_unit_test(test_a_text_that_is_too_long),
        cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_write_again),
        cmocka_unit_test(test_every_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
