// SPDX-License-Identifier: MIT
// Every rule of the safetensors format has a file that breaks this rule alone:
//   1  8 bytes of header size, within the file and at most 100 million; then UTF-8 JSON, an object
//      from its first byte to its last, padded by nothing but spaces
//   2  a tensor has dtype, shape and data_offsets, each once and nothing else; a dtype of the list,
//      whole numbers >= 0
//   3  the tensors' bytes tile the rest of the file; each has the size of its shape, a product that
//      is checked; parts of a byte do not occur
//   4  a name occurs once; __metadata__ is an object of texts
#include "check.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// Writes prefix, header and n_data bytes; the prefix says `size`.
static const char *write_raw(uint64_t size, const char *header, size_t n_header, size_t n_data)
{
    size_t total = 8 + n_header + n_data;
    unsigned char *bytes = calloc(1, total);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char) (size >> (8 * i));
    memcpy(bytes + 8, header, n_header);
    const char *path = scratch_file("x.safetensors", bytes, total);
    free(bytes);
    return path;
}

static const char *write_header(const char *header, size_t n_data)
{
    return write_raw(strlen(header), header, strlen(header), n_data);
}

static enum vkmoe_status open_path(const char *path)
{
    struct moe_safetensors file;
    enum vkmoe_status status = moe_safetensors_open(moe_host_default(), path, &file);
    moe_safetensors_close(&file);
    return status;
}

#define A_ENTRY "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"
#define A "\"a\":{" A_ENTRY "}"
#define TENSOR(dtype, shape, offsets)                                                              \
    "{\"a\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void test_good(void **state)
{
    (void) state;
    static const struct {
        const char *header;
        size_t n_data;
    } cases[] = {
        {"{}", 0},
        {"{" A "}", 8},
        {"{" A "}     ", 8},
        {"{\"__metadata__\":{\"k\":\"v\"}," A "}", 8},
        {TENSOR("F32", "[]", "[0,4]"), 4},              // rank 0
        {TENSOR("F32", "[0,5]", "[0,0]"), 0},           // no elements
        {TENSOR("F4", "[4]", "[0,2]"), 2},              // parts of a byte
        {TENSOR("F32", "[1,1,1,1,1,1,1,1]", "[0,4]"), 4},
        {"{\"\":{" A_ENTRY "}}", 8},                    // an empty name
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[8,9]}," A "}", 9},
        // No elements, beside a tensor that begins at the same byte: listed before it, after it.
        {"{\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}," A "}", 8},
        {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 8},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        if (open_path(write_header(cases[i].header, cases[i].n_data)) != VKMOE_OK)
            fail_msg("%s: %s", cases[i].header, vkmoe_error_text());
    }
}

// Rule 2 and 3: each dtype of the format's text, under its name and in its size.
static void test_dtypes(void **state)
{
    (void) state;
    static const struct {
        const char *name;
        size_t n_bits;
    } cases[] = {
        {"BOOL", 8},    {"U8", 8},      {"I8", 8},          {"U16", 16},        {"I16", 16},
        {"U32", 32},    {"I32", 32},    {"U64", 64},        {"I64", 64},        {"F16", 16},
        {"BF16", 16},   {"F32", 32},    {"F64", 64},        {"C64", 64},        {"F8_E4M3", 8},
        {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6},
        {"F6_E3M2", 6}, {"F4", 4},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        char header[128];
        size_t size = 4 * cases[i].n_bits / 8;
        snprintf(header, sizeof header, TENSOR("%s", "[4]", "[0,%zu]"), cases[i].name, size);
        if (open_path(write_header(header, size)) != VKMOE_OK)
            fail_msg("%s: %s", header, vkmoe_error_text());
        snprintf(header, sizeof header, TENSOR("%s", "[4]", "[0,%zu]"), cases[i].name, size + 1);
        check_fails(open_path(write_header(header, size + 1)), VKMOE_E_DATA, " bytes, has ");
    }
}

static void test_bad(void **state)
{
    (void) state;
    static const struct {
        const char *header;
        size_t n_data;
        const char *part; // of the message
    } cases[] = {
        // 1
        {" {" A "}", 8, "not a JSON object"},
        {"[" A "]", 8, "not a JSON object"},
        {"{" A "}\n", 8, "not a JSON object"},
        {"", 0, "not a JSON object"},
        {"{" A ",}", 8, "header:"},
        {"{" A "} {}", 8, "header:"},
        {"{\"\xff\":{" A_ENTRY "}}", 8, "header:"},
        {"{\"\\ud800\":{" A_ENTRY "}}", 8, "header:"},
        {"{\"a\\u0000\":{" A_ENTRY "}}", 8, "header:"},
        {"{\"__metadata__\":{\"k\":\"v\\u0000\"}," A "}", 8, "header:"},
        // 2
        {"{\"a\":{" A_ENTRY ",\"dtype\":\"F32\"}}", 8, "duplicate"},
        {"{\"a\":{" A_ENTRY ",\"extra\":1}}", 8, "tensor 'a': needs dtype"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "tensor 'a': needs dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8],\"x\":1}}", 8, "needs dtype, shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"x\":1}}", 8, "needs dtype, shape"},
        {"{\"a\":[]}", 0, "tensor 'a': needs dtype"},
        {TENSOR("f32", "[2]", "[0,8]"), 8, "unknown dtype 'f32'"},
        {TENSOR("F128", "[2]", "[0,8]"), 8, "unknown dtype 'F128'"},
        {"{\"a\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "unknown dtype"},
        {TENSOR("F32", "2", "[0,8]"), 8, "shape is not an array"},
        {TENSOR("F32", "[2.0]", "[0,8]"), 8, "shape[0]"},
        {TENSOR("F32", "[2e0]", "[0,8]"), 8, "shape[0]"},
        {TENSOR("F32", "[1,-2]", "[0,8]"), 8, "shape[1]"},
        {TENSOR("F32", "[\"2\"]", "[0,8]"), 8, "shape[0]"},
        {TENSOR("F32", "[02]", "[0,8]"), 8, "header:"},
        {TENSOR("F32", "[99999999999999999999]", "[0,8]"), 8, "header:"},
        {TENSOR("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8, "9 dimensions"},
        {TENSOR("F32", "[2]", "[0]"), 8, "data_offsets"},
        {TENSOR("F32", "[2]", "[0,8,8]"), 8, "data_offsets"},
        {TENSOR("F32", "[2]", "[0,8.0]"), 8, "data_offsets"},
        {TENSOR("F32", "[2]", "[-8,0]"), 8, "data_offsets"},
        {TENSOR("F32", "[2]", "8"), 8, "data_offsets"},
        // 3
        {TENSOR("F32", "[0,9223372036854775807]", "[0,0]"), 0, "impossible size"},
        {TENSOR("F32", "[281474976710656,281474976710656,0]", "[0,0]"), 0, "impossible size"},
        {TENSOR("F32", "[281474976710656,16384]", "[0,0]"), 0, "impossible size"},
        {TENSOR("F4", "[3]", "[0,2]"), 2, "impossible size"},
        {TENSOR("F32", "[2]", "[8,0]"), 8, "[8, 0] outside 8"},
        {TENSOR("F32", "[2]", "[0,8]"), 7, "[0, 8] outside 7"},
        {TENSOR("F32", "[2]", "[4,12]"), 8, "[4, 12] outside 8"},
        {TENSOR("F32", "[3]", "[0,8]"), 8, "F32 (3) takes 12 bytes, has 8"},
        {TENSOR("F16", "[2]", "[0,8]"), 8, "F16 (2) takes 4 bytes, has 8"},
        {TENSOR("F32", "[2]", "[4,12]"), 12, "begins at 4, a hole from 0"},
        {TENSOR("F32", "[2]", "[0,8]"), 9, "9 bytes of data, the tensors take 8"},
        {"{}", 1, "1 bytes of data, the tensors take 0"},
        {"{" A ",\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9,10]}}", 10,
         "tensor 'b' begins at 9, a hole"},
        {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
         "tensor 'b' begins at 4, inside"},
        {"{" A ",\"b\":{" A_ENTRY "}}", 8, "begins at 0, inside"},
        // 4
        {"{" A "," A "}", 8, "duplicate"},
        {"{\"__metadata__\":{\"k\":\"v\",\"k\":\"v\"}," A "}", 8, "duplicate"},
        {"{\"__metadata__\":[]," A "}", 8, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"k\":1}," A "}", 8, "__metadata__ 'k' is not a text"},
        {"{\"__metadata__\":{\"k\":null}," A "}", 8, "__metadata__ 'k' is not a text"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        print_message("%s\n", cases[i].header);
        check_fails(open_path(write_header(cases[i].header, cases[i].n_data)), VKMOE_E_DATA,
                    cases[i].part);
    }
}

// Deep nesting neither passes nor exhausts the stack.
static void test_nesting(void **state)
{
    (void) state;
    enum { DEPTH = 100000 };
    char *header = malloc(2 * DEPTH + 16);
    assert_non_null(header);
    strcpy(header, "{\"a\":");
    for (size_t depth = 100; depth <= DEPTH; depth *= 1000) {
        memset(header + 5, '[', depth);
        memset(header + 5 + depth, ']', depth);
        strcpy(header + 5 + 2 * depth, "}");
        check_fails(open_path(write_header(header, 0)), VKMOE_E_DATA,
                    depth == 100 ? "tensor 'a': needs dtype" : "header: maximum parsing depth");
    }
    free(header);
}

// Rule 1: what comes before the JSON text.
static void test_bad_prefix(void **state)
{
    (void) state;
    const char *header = "{" A "}";
    size_t n = strlen(header);
    check_fails(open_path(scratch_text("x.safetensors", "")), VKMOE_E_DATA, "0 bytes: too short");
    check_fails(open_path(scratch_text("x.safetensors", "1234567")), VKMOE_E_DATA, "7 bytes");
    check_fails(open_path(write_raw(100000001, header, n, 8)), VKMOE_E_DATA,
                "100000001 bytes, at most");
    check_fails(open_path(write_raw(100000000, header, n, 8)), VKMOE_E_DATA,
                "100000000 bytes in a file of"); // not too large: truncated
    check_fails(open_path(write_raw(UINT64_MAX, header, n, 8)), VKMOE_E_DATA, "header of");
    check_fails(open_path(write_raw(n + 9, header, n, 8)), VKMOE_E_DATA, "truncated");
    check_fails(open_path(write_raw(n + 1, header, n + 1, 8)), VKMOE_E_DATA, "not a JSON object");
    check_fails(open_path(scratch_path("absent")), VKMOE_E_IO, "No such file");
}

static void test_write_and_read(void **state)
{
    (void) state;
    const float a[6] = {1, 2, 3, 4, 5, 6};
    const uint8_t b[3] = {7, 8, 9};
    const struct moe_st_source sources[] = {
        {"z", "F32", 2, {2, 3}, a},
        {"b", "U8", 1, {3}, b},
        {"none", "BF16", 2, {0, 7}, NULL},
    };
    const char *path = scratch_path("w.safetensors");
    json_t *metadata = json_pack("{s:s}", "format", "test");
    check_ok(moe_safetensors_write(moe_host_default(), path, sources, 3, metadata));
    json_decref(metadata);

    struct moe_safetensors file;
    check_ok(moe_safetensors_open(moe_host_default(), path, &file));
    assert_int_equal(file.n_tensors, 3);
    assert_string_equal(moe_safetensors_metadata(&file, "format"), "test");
    assert_null(moe_safetensors_metadata(&file, "other"));
    const struct moe_st_tensor *z = moe_safetensors_find(&file, "z");
    assert_non_null(z);
    assert_int_equal(z->n_dims, 2);
    assert_int_equal(z->dims[1], 3);
    unsigned char got[sizeof a > sizeof b ? sizeof a : sizeof b];
    check_ok(moe_safetensors_read(&file, z, 0, sizeof a, got));
    assert_memory_equal(got, a, sizeof a);
    check_ok(moe_safetensors_read(&file, moe_safetensors_find(&file, "b"), 0, sizeof b, got));
    assert_memory_equal(got, b, sizeof b);
    assert_int_equal(moe_safetensors_find(&file, "none")->n_elements, 0);
    assert_null(moe_safetensors_find(&file, "y"));
    moe_safetensors_close(&file);
}

static void test_read(void **state)
{
    (void) state;
    enum { N = 5000 };
    static float a[N], got[N];
    static uint16_t h[N];
    for (int i = 0; i < N; i++) {
        a[i] = (float) i;
        h[i] = (uint16_t) (0x3f80 + i % 128); // bf16: 1 + i / 128
    }
    const struct moe_st_source sources[] = {
        {"a", "F32", 2, {N / 10, 10}, a}, {"h", "BF16", 1, {N}, h}, {"i", "I16", 1, {N}, h}};
    struct moe_safetensors file;
    const char *path = scratch_path("r.safetensors");
    check_ok(moe_safetensors_write(moe_host_default(), path, sources, 3, NULL));
    check_ok(moe_safetensors_open(moe_host_default(), path, &file));
    const struct moe_st_tensor *t = moe_safetensors_find(&file, "a");
    check_ok(moe_safetensors_read(&file, t, 12, 8, got));
    assert_true(got[0] == 3 && got[1] == 4);
    check_ok(moe_safetensors_read(&file, t, sizeof a, 0, got));
    check_fails(moe_safetensors_read(&file, t, 19996, 5, got), VKMOE_E_ARGUMENT,
                "r.safetensors: tensor 'a': 5 bytes from 19996, it has 20000");
    check_fails(moe_safetensors_read(&file, t, UINT64_MAX, 1, got), VKMOE_E_ARGUMENT, "it has 2");
    check_ok(moe_safetensors_read_f32(&file, t, 0, N, got));
    assert_memory_equal(got, a, sizeof a);
    check_fails(moe_safetensors_read_f32(&file, t, 1, N, got), VKMOE_E_ARGUMENT,
                "tensor 'a': 5000 elements from 1 of F32 (500, 10)");
    check_fails(moe_safetensors_read_f32(&file, t, (uint64_t) 1 << 62, 1, got), VKMOE_E_ARGUMENT,
                "1 elements from 4611686018427387904 of F32");
    t = moe_safetensors_find(&file, "h");
    check_ok(moe_safetensors_read_f32(&file, t, 1, N - 1, got));
    for (int i = 1; i < N; i++)
        assert_true(got[i - 1] == 1 + (float) (i % 128) / 128);
    check_fails(moe_safetensors_read_f32(&file, moe_safetensors_find(&file, "i"), 0, 1, got),
                VKMOE_E_ARGUMENT, "tensor 'i': I16 (5000) has no floats");
    moe_safetensors_close(&file);
}

// What another process cuts off is an error of reading.
static void test_a_file_that_shrinks(void **state)
{
    (void) state;
    static const float a[4] = {1, 2, 3, 4};
    const struct moe_st_source sources[] = {{"a", "F32", 1, {4}, a}};
    struct moe_safetensors file;
    float got[4];
    const char *path = scratch_path("s.safetensors");
    check_ok(moe_safetensors_write(moe_host_default(), path, sources, 1, NULL));
    check_ok(moe_safetensors_open(moe_host_default(), path, &file));
    assert_int_equal(truncate(path, (off_t) file.file.size - 8), 0);
    const struct moe_st_tensor *t = moe_safetensors_find(&file, "a");
    check_ok(moe_safetensors_read(&file, t, 0, 8, got));
    assert_true(got[1] == 2);
    check_fails(moe_safetensors_read(&file, t, 0, 16, got), VKMOE_E_IO, " bytes now, ");
    check_fails(moe_safetensors_read_f32(&file, t, 2, 2, got), VKMOE_E_IO, " when it was opened");
    moe_safetensors_close(&file);
}

static const char *cut_path;
static size_t n_allocs;

// Another process that empties the file, just before the header is read.
static void *cut_alloc(void *user, size_t size, size_t align)
{
    (void) user;
    if (++n_allocs == 2) // the first is for the path
        assert_int_equal(truncate(cut_path, 0), 0);
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void cut_free(void *user, void *memory)
{
    (void) user;
    free(memory);
}

static void test_a_file_that_shrinks_while_it_is_opened(void **state)
{
    (void) state;
    struct moe_safetensors file;
    vkmoe_host host = *moe_host_default();
    host.alloc = cut_alloc;
    host.free = cut_free;
    n_allocs = 0;
    cut_path = write_header("{" A "}", 8);
    check_fails(moe_safetensors_open(&host, cut_path, &file), VKMOE_E_IO,
                "x.safetensors: bytes 8 to 62: the file has 0 bytes now, 70 when it was opened");
}

static void test_write_bad(void **state)
{
    (void) state;
    const float a[2] = {1, 2};
    const struct moe_st_source twice[] = {{"a", "F32", 1, {2}, a}, {"a", "F32", 1, {2}, a}};
    const struct moe_st_source unknown[] = {{"a", "F31", 1, {2}, a}};
    const struct moe_st_source name[] = {{"\xff", "F32", 1, {2}, a}};
    const struct moe_st_source metadata_name[] = {{"__metadata__", "F32", 1, {2}, a}};
    const struct moe_st_source dimensions[] = {{"a", "F32", 9, {1, 1, 1, 1, 1, 1, 1, 1}, a}};
    const struct moe_st_source shape[] = {{"a", "F4", 1, {3}, a}};
    const char *path = scratch_path("never.safetensors");
    int before = scratch_count();
    check_fails(moe_safetensors_write(moe_host_default(), path, twice, 2, NULL), VKMOE_E_ARGUMENT,
                "twice");
    check_fails(moe_safetensors_write(moe_host_default(), path, unknown, 1, NULL),
                VKMOE_E_ARGUMENT, "F31");
    check_fails(moe_safetensors_write(moe_host_default(), path, name, 1, NULL), VKMOE_E_ARGUMENT,
                "UTF-8");
    check_fails(moe_safetensors_write(moe_host_default(), path, dimensions, 1, NULL),
                VKMOE_E_ARGUMENT, "(F32, 9 dimensions)");
    check_fails(moe_safetensors_write(moe_host_default(), path, shape, 1, NULL), VKMOE_E_ARGUMENT,
                "(F4, 1 dimensions)");
    check_fails(moe_safetensors_write(moe_host_default(), path, metadata_name, 1, NULL),
                VKMOE_E_ARGUMENT, "'__metadata__' is no name of a tensor");

    json_t *metadata[] = {json_array(), json_pack("{s:i}", "k", 1), json_object()};
    char *long_text = malloc(MOE_ST_MAX_HEADER_SIZE);
    assert_non_null(long_text);
    memset(long_text, 'x', MOE_ST_MAX_HEADER_SIZE);
    json_object_set_new(metadata[2], "k", json_stringn(long_text, MOE_ST_MAX_HEADER_SIZE));
    free(long_text);
    static const char *const parts[] = {"not an object of texts", "not an object of texts",
                                        "header of 100000025 bytes"};
    for (int i = 0; i < 3; i++) {
        check_fails(moe_safetensors_write(moe_host_default(), path, NULL, 0, metadata[i]),
                    VKMOE_E_ARGUMENT, parts[i]);
        json_decref(metadata[i]);
    }
    assert_int_equal(scratch_count(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),      cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_bad),       cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_bad_prefix), cmocka_unit_test(test_write_and_read),
        cmocka_unit_test(test_write_bad), cmocka_unit_test(test_read),
        cmocka_unit_test(test_a_file_that_shrinks),
        cmocka_unit_test(test_a_file_that_shrinks_while_it_is_opened),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
