// SPDX-License-Identifier: MIT
// Every rule of the GGUF format has a file that breaks this rule alone:
//   1  magic, version 2 or 3, little endian; as many keys and tensors as there is room for
//   2  texts within the file and of at most 16 MiB; names are not empty, not too long, of ASCII,
//      unique
//   3  value types of the list, arrays of one dimension within the file, a bool is 0 or 1
//   4  general.alignment is a u32, a power of two from 8 to 1 MiB; 32 without it
//   5  tensors: at most 4 dims, whole blocks, a size that is checked, types that exist
//   6  tensors are aligned, in the file, and none lies in another
//   9  a file that shrinks is an error
// Rules 3 and 7, what keys say: model_gguf_values.c. Rule 8, split models: model_gguf_split.c.
#include "check.h"
#include "gguf_file.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define H GGUF_HEAD
#define A "t'a' 4=1 8=8 4=0 8=0 " // 8 of f32, at 0
#define B(offset) "t'b' 4=1 8=8 4=0 8=" #offset " "
#define DATA "~32 +32"
#define KEY(type) "t'k' 4=" #type " "
#define ALIGN(n) H(1, 1) "t'general.alignment' 4=4 4=" #n " " A

static enum vkmoe_status open_path(const char *path)
{
    struct moe_gguf file;
    enum vkmoe_status status = moe_gguf_open(moe_host_default(), path, &file);
    if (status != VKMOE_OK)
        assert_null(file.host);
    moe_gguf_close(&file);
    return status;
}

static enum vkmoe_status open_text(const char *notation)
{
    return open_path(gguf_file("x.gguf", notation));
}

static void open_good(const char *notation, struct moe_gguf *out)
{
    const char *path = gguf_file("x.gguf", notation);
    if (moe_gguf_open(moe_host_default(), path, out) != VKMOE_OK)
        fail_msg("%s: %s", notation, vkmoe_error_text());
}

static void test_good(void **state)
{
    (void) state;
    static const char *const cases[] = {
        H(0, 0),
        H(1, 0) A DATA,
        "'GGUF' 4=2 8=1 8=0 " A DATA,
        H(1, 0) A DATA " +5",                             // more behind the last tensor
        H(1, 0) "t'a' 4=1 8=5 4=0 8=0 ~32 +20",           // without its padding
        H(1, 0) "t'a' 4=0 4=0 8=0 ~32 +4",                // no dims: one element
        H(1, 0) "t'a' 4=4 8=2 8=1 8=2 8=2 4=0 8=0 " DATA, // 4 dims
        H(1, 0) "t'a' 4=2 8=8 8=0 4=0 8=0 ",              // no elements, no data
        H(1, 0) "t'a' 4=1 8=0 4=2 8=0 ",
        H(2, 0) A B(32) "~32 +64",
        H(2, 0) A B(64) "~32 +96",                        // a hole
        H(2, 0) B(32) A "~32 +64",                        // not in the order of the data
        H(2, 0) A "t'b' 4=1 8=0 4=0 8=0 " DATA,           // no elements, at the same byte
        ALIGN(8) "~8 +32",
        ALIGN(0x100000) "~0x100000 +32",
        H(0, 1) KEY(7) "1=1",
        H(0, 1) KEY(8) "t''",
        H(0, 1) KEY(8) "8=3 'a' 1=0 'b'",                 // a zero byte in a text
        H(0, 1) KEY(9) "4=8 8=0",                         // no elements
        H(0, 1) KEY(9) "4=8 8=2 t'' t'x'",
        H(0, 1) KEY(9) "4=7 8=3 1=1 1=0 1=1",
        H(0, 1) "8=65535 *65535('k') 4=0 1=7",            // the longest key
        H(1, 0) "8=63 *63('n') 4=1 8=8 4=0 8=0 " DATA,    // the longest name
        H(0, 2) KEY(0) "1=7 t'K' 4=0 1=7",
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        if (open_text(cases[i]) != VKMOE_OK)
            fail_msg("%s: %s", cases[i], vkmoe_error_text());
    }
}

struct bad_case {
    const char *notation;
    const char *part; // of the message
};

static void check_bad(const struct bad_case *cases, size_t n, enum vkmoe_status status)
{
    for (size_t i = 0; i < n; i++) {
        print_message("%s\n", cases[i].notation);
        check_fails(open_text(cases[i].notation), status, cases[i].part);
    }
}

static void test_unsupported(void **state)
{
    (void) state;
    static const struct bad_case cases[] = {
        {"'GGUF' 4=1 4=0 4=0", "header: version 1, only 2 and 3 are read"},
        {"'GGUF' 4=4 8=0 8=0", "version 4, only"},
        {"'GGUF' 4=0 8=0 8=0", "version 0, only"},
        {"'GGUF' 4=0x03000000 8=0 8=0", "big endian (version 0x03000000)"},
        {"'GGUF' 4=0x10000 8=0 8=0", "big endian"},
        {H(0, 1) KEY(9) "4=9 8=1 4=0 8=1 1=7", "key 'k': an array of arrays"},
    };
    check_bad(cases, MOE_COUNT(cases), VKMOE_E_UNSUPPORTED);
}

static void test_bad_header(void **state)
{
    (void) state;
    static const struct bad_case cases[] = {
        // 1
        {"", "x.gguf: header: 4 bytes at byte 0 of 0: truncated"},
        {"'GGUX' 4=3 8=0 8=0", "not a GGUF file"},
        {"'FUGG' 4=3 8=0 8=0", "not a GGUF file"},
        {"'GGUF' 4=3 8=0 4=0", "8 bytes at byte 16 of 20: truncated"},
        {H(1, 0) "+24", "header: 1 tensors of at least 25 bytes in the 24 that are left"},
        {H(-1, 0) A DATA, "18446744073709551615 tensors of at least"},
        {H(0, 1) "+13", "1 keys of at least 14 bytes in the 13 that are left"},
        {H(0, 0x8000000000000000) "+32", "9223372036854775808 keys of at least"},
        {H(1, 1) KEY(0) "1=7 +24", "1 tensors of at least 25 bytes in the 24"},
        // 2
        {H(0, 1) "8=7 'k' 4=0 1=7", "key 0 of 1: 7 bytes at byte 32 of 38: truncated"},
        {H(0, 1) "8=65536 *65536('k') 4=0 1=7", "a text of 65536 bytes, at most 65535"},
        {H(0, 1) "8=-1 'k' 4=0 1=7", "a text of 18446744073709551615 bytes"},
        {H(0, 1) "t'' 4=0 1=7 1=0", "key 0 of 1: its name is empty"},
        {H(0, 1) "8=3 'k' 1=0 'k' 4=0 1=7", "byte 1 of its name is 0x00"},
        {H(0, 1) "t'k\x7f' 4=0 1=7", "byte 1 of its name is 0x7f: only printable ASCII"},
        {H(0, 1) "t'\xc3\xa4' 4=0 1=7", "byte 0 of its name is 0xc3"},
        {H(0, 1) "t'\n' 4=0 1=7", "byte 0 of its name is 0x0a"},
        {H(0, 3) KEY(0) "1=7 t'l' 4=0 1=7 " KEY(4) "4=7", "key 'k' is there twice"},
        {H(0, 1) KEY(8) "8=2 'a'", "key 'k': 2 bytes at byte 45 of 46: truncated"},
        {H(0, 1) KEY(8) "8=-1 'a'", "key 'k': a text of 18446744073709551615 bytes, at most"},
        {H(0, 1) KEY(9) "4=8 8=2 t'a' 8=2 'a'", "key 'k': 2 bytes at byte 66 of 67: truncated"},
        // 3
        {H(0, 1) KEY(13) "8=7", "key 'k': there is no type 13 of values"},
        {H(0, 1) KEY(9) "4=13 8=1 1=7", "there is no type 13 of values"},
        {H(0, 1) KEY(4) "2=7", "key 'k': 4 bytes at byte 37 of 39: truncated"},
        {H(0, 1) KEY(9) "4=4 8=3 4=1 4=2", "3 elements of at least 4 bytes in the 8 that are"},
        {H(0, 1) KEY(9) "4=10 8=0x2000000000000001 8=1", "elements of at least 8 bytes in the 8"},
        {H(0, 1) KEY(9) "4=8 8=2 t''", "2 elements of at least 8 bytes in the 8"},
        {H(0, 1) KEY(7) "1=2", "key 'k': element 0 of 1 is 2, a bool is 0 or 1"},
        {H(0, 1) KEY(9) "4=7 8=3 1=0 1=1 1=255", "element 2 of 3 is 255, a bool"},
        // 4
        {ALIGN(0) DATA, "key 'general.alignment' says 0, no power of two from 8 to 1048576"},
        {ALIGN(4) DATA, "says 4, no power of two"},
        {ALIGN(48) "~48 +48", "says 48, no power of two"},
        {ALIGN(0x200000) "~0x200000 +32", "says 2097152, no power of two"},
        {H(1, 1) "t'general.alignment' 4=10 8=32 " A DATA, "is a single u64, not a single u32"},
        {H(1, 1) "t'general.alignment' 4=5 4=32 " A DATA, "is a single i32, not a single u32"},
        {H(1, 1) "t'general.alignment' 4=9 4=4 8=1 4=32 " A DATA, "is an array of u32, not"},
    };
    check_bad(cases, MOE_COUNT(cases), VKMOE_E_DATA);
}

static void test_bad_tensors(void **state)
{
    (void) state;
    static const struct bad_case cases[] = {
        // 2
        {H(1, 0) "8=64 *64('n') 4=1 8=8 4=0 8=0 " DATA, "a text of 64 bytes, at most 63"},
        {H(1, 0) "t'' 4=1 8=8 4=0 8=0 " DATA, "tensor 0 of 1: its name is empty"},
        {H(1, 0) "8=2 'a' 1=0 4=1 8=8 4=0 8=0 " DATA, "byte 1 of its name is 0x00"},
        {H(2, 0) A "t'a' 4=1 8=8 4=0 8=32 ~32 +64", "tensor 'a' is there twice"},
        // 5
        {H(1, 0) "t'a' 4=5 8=2 8=1 8=2 8=2 8=1 4=0 8=0 " DATA, "tensor 'a': 5 dimensions"},
        {H(1, 0) "t'a' 4=-1 8=8 4=0 8=0 " DATA, "4294967295 dimensions, at most 4"},
        {H(1, 0) "t'a' 4=1 8=-8 4=0 8=0 " DATA, "impossible size of f32 (18446744073709551608)"},
        {H(1, 0) "t'a' 4=2 8=0 8=-1 4=0 8=0 " DATA, "impossible size of f32 (0, 18446744073709"},
        {H(1, 0) "t'a' 4=2 8=0 8=0x1000000000001 4=0 8=0 " DATA, "impossible size"},
        {H(1, 0) "t'a' 4=2 8=0x100000000 8=0x100000000 4=0 8=0 " DATA, "impossible size"},
        {H(1, 0) "t'a' 4=2 8=0x1000000000000 8=0x4000 4=0 8=0 " DATA, "impossible size"},
        {H(1, 0) "t'a' 4=2 8=33 8=32 4=2 8=0 ~32 +2000", "rows of 33 elements, a block of q4_0 "},
        {H(1, 0) "t'a' 4=2 8=128 8=2 4=12 8=0 ~32 +2000", "of 128 elements, a block of q4_K has "},
        {H(1, 0) "t'a' 4=0 4=2 8=0 ~32 +2000", "rows of 1 elements, a block of q4_0 has 32"},
        {H(1, 0) "t'a' 4=1 8=8 4=43 8=0 " DATA, "there is no type 43 of tensors"},
        {H(1, 0) "t'a' 4=1 8=8 4=-1 8=0 " DATA, "there is no type 4294967295 of tensors"},
        {H(1, 0) "t'a' 4=1 8=8 4=0 4=0", "tensor 'a': 8 bytes at byte 49 of 53: truncated"},
        // 6
        {H(1, 0) "t'a' 4=1 8=8 4=0 8=16 ~32 +64", "tensor 'a' begins at 16, no multiple of 32"},
        {H(1, 0) A "~32 +31", "tensor 'a': f32 (8) takes 32 bytes from 0, there are 31 of data"},
        {H(1, 0) A, "takes 32 bytes from 0, there are 0 of data"},
        {H(2, 0) A B(32) "~32 +63", "tensor 'b': f32 (8) takes 32 bytes from 32, there are 63"},
        {H(2, 0) A B(96) "~32 +64", "takes 32 bytes from 96, there are 64 of data"},
        {H(2, 0) A B(-32) "~32 +64", "takes 32 bytes from 18446744073709551584, there are 64"},
        {H(2, 0) A B(0) "~32 +64", "begins at 0, inside"},
        {H(2, 0) "t'a' 4=1 8=9 4=0 8=0 " B(32) "~32 +64",
         "tensor 'b' begins at 32, inside 'a' that ends at 36"},
        {H(2, 0) B(32) "t'a' 4=1 8=9 4=0 8=0 ~32 +64", "tensor 'b' begins at 32, inside 'a' that"},
    };
    check_bad(cases, MOE_COUNT(cases), VKMOE_E_DATA);
}

// Rule 4 and 6: what is aligned to one number is not aligned to another.
static void test_alignment(void **state)
{
    (void) state;
    static const char at_16[] = "t'a' 4=1 8=8 4=0 8=16 ";
    char notation[256];
    for (int align = 8; align <= 64; align *= 2) {
        snprintf(notation, sizeof notation, H(1, 1) "t'general.alignment' 4=4 4=%d %s ~64 +64",
                 align, at_16);
        if (align <= 16)
            check_ok(open_text(notation));
        else
            check_fails(open_text(notation), VKMOE_E_DATA, "begins at 16, no multiple of");
    }
}

// Rule 5: each type under its id, with its block; those that are gone; those that are not there.
static void test_types(void **state)
{
    (void) state;
    enum { W = MOE_GGUF_WEIGHTS, I = MOE_GGUF_INTEGERS, U = MOE_GGUF_UNREAD, R = MOE_GGUF_REMOVED };
    static const struct {
        const char *name;
        int kind;
        uint32_t n, size;
    } types[] = {
        {"f32", W, 1, 4},       {"f16", W, 1, 2},        {"q4_0", W, 32, 18},
        {"q4_1", W, 32, 20},    {"q4_2", R, 0, 0},       {"q4_3", R, 0, 0},
        {"q5_0", W, 32, 22},    {"q5_1", W, 32, 24},     {"q8_0", W, 32, 34},
        {"q8_1", U, 32, 36},    {"q2_K", W, 256, 84},    {"q3_K", W, 256, 110},
        {"q4_K", W, 256, 144},  {"q5_K", W, 256, 176},   {"q6_K", W, 256, 210},
        {"q8_K", U, 256, 292},  {"iq2_xxs", U, 256, 66}, {"iq2_xs", U, 256, 74},
        {"iq3_xxs", U, 256, 98}, {"iq1_s", U, 256, 50},  {"iq4_nl", W, 32, 18},
        {"iq3_s", U, 256, 110}, {"iq2_s", U, 256, 82},   {"iq4_xs", W, 256, 136},
        {"i8", I, 1, 1},        {"i16", I, 1, 2},        {"i32", I, 1, 4},
        {"i64", I, 1, 8},       {"f64", U, 1, 8},        {"iq1_m", U, 256, 56},
        {"bf16", W, 1, 2},      {"q4_0_4_4", R, 0, 0},   {"q4_0_4_8", R, 0, 0},
        {"q4_0_8_8", R, 0, 0},  {"tq1_0", U, 256, 54},   {"tq2_0", U, 256, 66},
        {"iq4_nl_4_4", R, 0, 0}, {"iq4_nl_4_8", R, 0, 0}, {"iq4_nl_8_8", R, 0, 0},
        {"mxfp4", W, 32, 17},   {"nvfp4", W, 64, 36},    {"q1_0", U, 128, 18},
        {"q2_0", U, 64, 18},
    };
    assert_null(moe_gguf_type_of(MOE_COUNT(types)));
    for (uint32_t id = 0; id < MOE_COUNT(types); id++) {
        char notation[256];
        struct moe_gguf file;
        // Two rows of two blocks; then one byte less.
        for (uint32_t less = 0; less < 2; less++) {
            uint32_t size = 4 * types[id].size;
            snprintf(notation, sizeof notation, H(1, 0) "t'a' 4=2 8=%u 8=2 4=%u 8=0 ~32 +%u",
                     2 * types[id].n, id, size ? size - less : 0);
            if (types[id].kind == R)
                check_fails(open_text(notation), VKMOE_E_DATA, types[id].name);
            else if (less)
                check_fails(open_text(notation), VKMOE_E_DATA, types[id].name);
            else {
                open_good(notation, &file);
                const struct moe_gguf_tensor *t = moe_gguf_find(&file, "a");
                assert_string_equal(t->type->name, types[id].name);
                assert_int_equal(t->type->kind, types[id].kind);
                assert_int_equal(t->type_id, id);
                assert_int_equal(t->size, size);
                assert_int_equal(t->n_elements, 4 * types[id].n);
                moe_gguf_close(&file);
            }
        }
    }
}

static void test_tensors(void **state)
{
    (void) state;
    struct moe_gguf file;
    unsigned char bytes[64] = "";
    char text[192];
    open_good(H(3, 0) "t'z' 4=1 8=2 4=0 8=32 t'a' 4=3 8=2 8=3 8=1 4=26 8=0 t'm' 4=0 4=1 8=64 ~32 "
              "4=1 4=2 4=3 4=4 4=5 4=6 ~32 f=0.5 f=-2 ~32 2=0x3c00", &file);
    assert_int_equal(file.n_tensors, 3);
    assert_string_equal(file.tensors[0].name, "z"); // in the order of the file
    assert_string_equal(file.by_name[0]->name, "a");
    struct moe_gguf_tensor *a = moe_gguf_find(&file, "a");
    assert_ptr_equal(a, &file.tensors[1]);
    assert_int_equal(a->n_dims, 3);
    assert_int_equal(a->dims[1], 3);
    assert_int_equal(a->dims[3], 1);
    assert_string_equal(moe_gguf_describe(a, text), "i32 (2, 3, 1)");
    assert_null(moe_gguf_find(&file, "b"));
    assert_null(moe_gguf_find(&file, ""));

    check_ok(moe_gguf_read(&file, a, 0, 24, bytes));
    assert_int_equal(bytes[0], 1);
    assert_int_equal(bytes[20], 6);
    check_ok(moe_gguf_read(&file, a, 16, 4, bytes));
    assert_int_equal(bytes[0], 5);
    check_ok(moe_gguf_read(&file, a, 24, 0, bytes));
    const float z[2] = {0.5f, -2};
    check_ok(moe_gguf_read(&file, moe_gguf_find(&file, "z"), 0, 8, bytes));
    assert_memory_equal(bytes, z, sizeof z);
    check_ok(moe_gguf_read(&file, moe_gguf_find(&file, "m"), 0, 2, bytes));
    assert_int_equal(bytes[1], 0x3c);
    check_fails(moe_gguf_read(&file, a, 20, 5, bytes), VKMOE_E_ARGUMENT,
                "tensor 'a': 5 bytes from 20, it has 24");
    check_fails(moe_gguf_read(&file, a, 25, 0, bytes), VKMOE_E_ARGUMENT, "0 bytes from 25");
    check_fails(moe_gguf_read(&file, a, UINT64_MAX, 2, bytes), VKMOE_E_ARGUMENT, "it has 24");
    moe_gguf_close(&file);
    moe_gguf_close(&file);
}

// ---- files that are not what they were, or not small -----------------------------------------

// Rule 9.
static void test_a_file_that_shrinks(void **state)
{
    (void) state;
    struct moe_gguf file;
    unsigned char bytes[32];
    const char *path = gguf_file("x.gguf", H(2, 0) A B(32) "~32 +64");
    check_ok(moe_gguf_open(moe_host_default(), path, &file));
    assert_int_equal(truncate(path, 96 + 40), 0);
    check_ok(moe_gguf_read(&file, moe_gguf_find(&file, "a"), 0, 32, bytes));
    check_ok(moe_gguf_read(&file, moe_gguf_find(&file, "b"), 0, 8, bytes));
    check_fails(moe_gguf_read(&file, moe_gguf_find(&file, "b"), 0, 32, bytes), VKMOE_E_IO,
                "x.gguf: bytes 128 to 160: the file has 136 bytes now, 160 when it was opened");
    assert_int_equal(truncate(path, 0), 0);
    check_fails(moe_gguf_read(&file, moe_gguf_find(&file, "a"), 31, 1, bytes), VKMOE_E_IO,
                "the file has 0 bytes now");
    moe_gguf_close(&file);
}

static void test_not_a_file(void **state)
{
    (void) state;
    check_fails(open_path(scratch_path("absent.gguf")), VKMOE_E_IO, "No such file");
    check_fails(open_path(scratch_folder()), VKMOE_E_IO, "not a regular file");
}

// A header that is read in several pieces keeps its places.
static void test_a_long_header(void **state)
{
    (void) state;
    enum { N = 600000 };
    char *notation = malloc(256);
    assert_non_null(notation);
    for (int n = 1000; n <= N; n *= 600) {
        struct moe_gguf file;
        uint64_t last = 0;
        const char *first = NULL;
        snprintf(notation, 256, H(1, 3) "t'x' 4=8 t'first' t'y' 4=9 4=4 8=%d *%d(4=7) t'z' 4=8 "
                 "t'last' " A "~32 *32(1=9)", n, n);
        open_good(notation, &file);
        check_ok(moe_gguf_string(&file, "x", &first));
        assert_string_equal(first, "first");
        check_ok(moe_gguf_element_u64(&file, "y", (uint64_t) n - 1, &last));
        assert_int_equal(last, 7);
        check_ok(moe_gguf_string(&file, "z", &first));
        assert_string_equal(first, "last");
        unsigned char byte = 0;
        check_ok(moe_gguf_read(&file, moe_gguf_find(&file, "a"), 31, 1, &byte));
        assert_int_equal(byte, 9);
        moe_gguf_close(&file);
    }
    free(notation);
}

// What is too long for a header or a text, in files with holes: nothing is written.
static void test_too_long(void **state)
{
    (void) state;
    const char *path = gguf_file("x.gguf", H(0, 1) KEY(8) "8=16777217");
    assert_int_equal(truncate(path, 20000000), 0);
    check_fails(open_path(path), VKMOE_E_DATA, "a text of 16777217 bytes, at most 16777216");
    path = gguf_file("x.gguf", H(0, 1) KEY(8) "8=16777216");
    assert_int_equal(truncate(path, 20000000), 0);
    check_ok(open_path(path));
    path = gguf_file("x.gguf", H(0, 1) KEY(9) "4=0 8=99999952"); // one more than there is room for
    assert_int_equal(truncate(path, 200000000), 0);
    check_fails(open_path(path), VKMOE_E_DATA, "99999952 elements of at least 1 bytes in the "
                "99999951 that are left");
    path = gguf_file("x.gguf", H(0, 2) KEY(9) "4=0 8=99999951");
    assert_int_equal(truncate(path, 200000000), 0);
    check_fails(open_path(path), VKMOE_E_DATA, "key 1 of 2: 8 bytes at byte 100000000: a header "
                "has at most 100000000");
}

// ---- memory ----------------------------------------------------------------------------------

static size_t n_left, n_blocks, largest;

static void *scarce_alloc(void *user, size_t size, size_t align)
{
    (void) user;
    largest = size > largest ? size : largest;
    if (n_left == 0)
        return NULL;
    n_left--;
    n_blocks++;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void count_free(void *user, void *memory)
{
    (void) user;
    n_blocks--;
    free(memory);
}

static vkmoe_host scarce_host(void)
{
    vkmoe_host host = *moe_host_default();
    host.alloc = scarce_alloc;
    host.free = count_free;
    return host;
}

static void test_every_allocation_fails_once(void **state)
{
    (void) state;
    const vkmoe_host host = scarce_host();
    const char *path = gguf_file("x.gguf", H(2, 2) KEY(8) "t'x' t'l' 4=9 4=8 8=2 t'' t'x' " A B(32)
                                 "~32 +64");
    size_t n = 0;
    for (enum vkmoe_status status = VKMOE_E_MEMORY; status != VKMOE_OK; n++) {
        struct moe_gguf file;
        n_left = n;
        status = moe_gguf_open(&host, path, &file);
        assert_true(status == VKMOE_OK || status == VKMOE_E_MEMORY);
        moe_gguf_close(&file);
        assert_int_equal(n_blocks, 0);
        assert_true(n < 20);
    }
    assert_true(n > 9);
}

static const char *cut_path;
static size_t n_allocs, cut_at;

// Another process that empties the file, at the moment of an allocation.
static void *cut_alloc(void *user, size_t size, size_t align)
{
    if (++n_allocs == cut_at)
        assert_int_equal(truncate(cut_path, 0), 0);
    n_left = 1;
    return scarce_alloc(user, size, align);
}

// Rule 9: of the header, too.
static void test_a_file_that_shrinks_while_it_is_opened(void **state)
{
    (void) state;
    enum { PATH = 1, HEADER };
    vkmoe_host host = scarce_host();
    host.alloc = cut_alloc;
    for (cut_at = PATH; cut_at < 10; cut_at++) {
        struct moe_gguf file;
        cut_path = gguf_file("x.gguf", H(1, 1) KEY(8) "t'x' " A DATA);
        n_allocs = 0;
        if (cut_at == PATH)
            check_fails(moe_gguf_open(&host, cut_path, &file), VKMOE_E_DATA, "byte 0 of 0");
        else if (cut_at == HEADER)
            check_fails(moe_gguf_open(&host, cut_path, &file), VKMOE_E_IO,
                        "x.gguf: bytes 0 to 128: the file has 0 bytes now, 128 when it was opened");
        else
            check_ok(moe_gguf_open(&host, cut_path, &file));
        moe_gguf_close(&file);
        assert_int_equal(n_blocks, 0);
    }
}

// Numbers of a small file never make a large block.
static void test_no_memory_for_what_is_not_there(void **state)
{
    (void) state;
    static const char *const cases[] = {
        H(0x7fffffff, 0) A DATA, H(0, 0x7fffffff) KEY(0) "1=7",
        H(0, 1) KEY(9) "4=8 8=0x7fffffff", H(0, 1) KEY(9) "4=0 8=0x7fffffff",
        H(0, 1) KEY(8) "8=0xffffff", H(1, 0) "t'a' 4=1 8=0x7fffffff 4=0 8=0 " DATA,
        H(0, 3) "t'split.count' 4=4 4=0xffffffff t'split.no' 4=4 4=0 t'split.tensors.count' 4=4 "
        "4=0",
    };
    const vkmoe_host host = scarce_host();
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        struct moe_gguf file;
        n_left = 100;
        largest = 0;
        check_fails(moe_gguf_open(&host, gguf_file("x.gguf", cases[i]), &file), VKMOE_E_DATA, "");
        assert_int_equal(n_blocks, 0);
        assert_true(largest < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_unsupported),
        cmocka_unit_test(test_bad_header),
        cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_a_file_that_shrinks),
        cmocka_unit_test(test_not_a_file),
        cmocka_unit_test(test_a_long_header),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_a_file_that_shrinks_while_it_is_opened),
        cmocka_unit_test(test_no_memory_for_what_is_not_there),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
