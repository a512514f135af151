// SPDX-License-Identifier: MIT
#include "check.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/npy.h"

#include <vkmoe/model.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

// A file of version 1 or 2 with a header text and zero bytes of data behind it.
static const char *write_npy(unsigned version, const char *header, const void *data, size_t n_data)
{
    unsigned char bytes[512] = "\x93NUMPY";
    size_t n = strlen(header), at = 6;
    bytes[at++] = (unsigned char) version;
    bytes[at++] = 0;
    bytes[at++] = (unsigned char) n;
    bytes[at++] = (unsigned char) (n >> 8);
    if (version >= 2)
        at += 2;
    memcpy(bytes + at, header, n);
    at += n;
    if (data)
        memcpy(bytes + at, data, n_data);
    return scratch_file("x.npy", bytes, at + n_data);
}

static enum vkmoe_status open_path(const char *path, struct moe_npy *out)
{
    enum vkmoe_status status = moe_npy_open(path, out);
    if (status != VKMOE_OK)
        assert_null(out->file);
    return status;
}

#define HEADER(descr, order, shape)                                                                \
    "{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }\n"

static void test_reads_types(void **state)
{
    (void) state;
    const float f4[2] = {1.5f, -2};
    const double f8[2] = {1.5, -2};
    const int32_t i4[2] = {15, -2};
    const int64_t i8[2] = {15, -2};
    const struct {
        const char *header;
        const void *data;
        size_t size;
        float first;
        bool is_integer;
    } cases[] = {
        {HEADER("<f4", "False", "(1, 2)"), f4, sizeof f4, 1.5f, false},
        {HEADER("<f8", "False", "(1, 2)"), f8, sizeof f8, 1.5f, false},
        {HEADER("<i4", "False", "(1, 2)"), i4, sizeof i4, 15, true},
        {HEADER("<i8", "False", "(1, 2)"), i8, sizeof i8, 15, true},
    };
    for (unsigned version = 1; version <= 2; version++) {
        for (size_t i = 0; i < MOE_COUNT(cases); i++) {
            struct moe_npy npy;
            float got[2];
            check_ok(open_path(write_npy(version, cases[i].header, cases[i].data, cases[i].size),
                               &npy));
            assert_int_equal(npy.is_integer, cases[i].is_integer);
            assert_int_equal(npy.n_dims, 2);
            assert_int_equal(npy.dims[0], 1);
            assert_int_equal(npy.dims[1], 2);
            check_ok(moe_npy_read(&npy, 1, got));
            check_ok(moe_npy_read(&npy, 1, got + 1));
            assert_true(got[0] == cases[i].first && got[1] == -2);
            check_fails(moe_npy_read(&npy, 1, got), VKMOE_E_DATA, "ends too early");
            moe_npy_close(&npy);
        }
    }
}

// More elements than are converted at a time.
static void test_reads_many(void **state)
{
    (void) state;
    enum { N = 3000 };
    static int64_t numbers[N];
    static float got[N];
    static unsigned char bytes[128 + sizeof numbers];
    const char *header = HEADER("<i8", "False", "(3000,)");
    size_t n_header = strlen(header);
    for (int i = 0; i < N; i++)
        numbers[i] = 3 * i - N;
    memcpy(bytes, "\x93NUMPY\x01\0", 8);
    bytes[8] = (unsigned char) n_header;
    memcpy(bytes + 10, header, n_header);
    memcpy(bytes + 10 + n_header, numbers, sizeof numbers);
    struct moe_npy npy;
    check_ok(open_path(scratch_file("x.npy", bytes, 10 + n_header + sizeof numbers), &npy));
    check_ok(moe_npy_read(&npy, N, got));
    for (int i = 0; i < N; i++)
        assert_true(got[i] == (float) numbers[i]);
    moe_npy_close(&npy);
}

static void test_headers(void **state)
{
    (void) state;
    static const struct {
        const char *header;
        size_t n_data;
        const char *part; // of the message; NULL: it is good
    } cases[] = {
        {"{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}", 8, NULL},
        {"{\"descr\":\"<f4\",\"fortran_order\":False,\"shape\":()}", 4, NULL},
        {HEADER("<f4", "False", "(0, 3)"), 0, NULL},
        {HEADER(">f4", "False", "(2,)"), 8, "element type '>f4'"},
        {HEADER("|u1", "False", "(2,)"), 2, "element type '|u1'"},
        {HEADER("<f2", "False", "(2,)"), 4, "element type '<f2'"},
        {HEADER("<f4", "True", "(2,)"), 8, "Fortran"},
        {HEADER("<f4", "Maybe", "(2,)"), 8, "not one of a plain array"},
        {HEADER("<f4", "False", "(2"), 8, "not one of a plain array"},
        {HEADER("<f4", "False", "(-2,)"), 8, "not one of a plain array"},
        {HEADER("<f4", "False", "(2 2)"), 16, "not one of a plain array"},
        {HEADER("<f4", "False", "(1,1,1,1,1,1,1,1,1)"), 4, "not one of a plain array"},
        {HEADER("<f4", "False", "(99999999999999999999,)"), 8, "not one of a plain array"},
        {"{'descr': '<f4', 'shape': (2,)}", 8, "not one of a plain array"},
        {"{'descr': '<f4', 'fortran_order': False}", 8, "not one of a plain array"},
        {"{'fortran_order': False, 'shape': (2,)}", 8, "not one of a plain array"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 8, "plain"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 'y'}", 8, "plain"},
        {"{'descr': '', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 8, "plain"},
        {"{'descr': '', 'fortran_order': False, 'shape': (2,)}", 8, "element type ''"},
        {"{'descr': '<f4' 'fortran_order': False, 'shape': (2,)}", 8, "not one of a plain array"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", 8, "plain"},
        {HEADER("<f4", "False", "(2,)") "x", 8, "not one of a plain array"},
        {HEADER("<f4", "False", "(2,)"), 7, "takes 8 bytes, the file has 7"},
        {HEADER("<f4", "False", "(2,)"), 9, "takes 8 bytes, the file has 9"},
        {HEADER("<f8", "False", "(4294967296,4294967296)"), 8, "impossible shape"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        struct moe_npy npy;
        const char *path = write_npy(1, cases[i].header, NULL, cases[i].n_data);
        print_message("%s\n", cases[i].header);
        if (!cases[i].part)
            check_ok(open_path(path, &npy));
        else
            check_fails(open_path(path, &npy), VKMOE_E_DATA, cases[i].part);
        moe_npy_close(&npy);
    }
}

static void test_no_npy(void **state)
{
    (void) state;
    struct moe_npy npy;
    const char *good = HEADER("<f4", "False", "(2,)");
    check_fails(open_path(write_npy(3, good, NULL, 8), &npy), VKMOE_E_DATA, "version 3");
    check_fails(open_path(write_npy(0, good, NULL, 8), &npy), VKMOE_E_DATA, "version 0");
    check_fails(open_path(scratch_text("x.npy", ""), &npy), VKMOE_E_DATA, "ends too early");
    check_fails(open_path(scratch_text("x.npy", "\x93NUMPZ\x01 12"), &npy), VKMOE_E_DATA,
                "not an NPY file");
    check_fails(open_path(scratch_text("x.npy", "\x93NUMPY\x01 12{'descr"), &npy), VKMOE_E_DATA,
                "header of 12849 bytes");
    check_fails(open_path(scratch_text("x.npy", "\x93NUMPY\x01 1\x01{'descr"), &npy),
                VKMOE_E_DATA, "ends too early");
    // A zero byte does not end the header before its size says so.
    char header[] = HEADER("<f4", "False", "(2,)") "?x";
    unsigned char file[128] = "\x93NUMPY\x01\0";
    file[8] = (unsigned char) strlen(header);
    memcpy(file + 10, header, strlen(header));
    for (int zero = 0; zero < 2; zero++) {
        check_fails(open_path(scratch_file("x.npy", file, 10 + strlen(header) + 8), &npy),
                    VKMOE_E_DATA, "not one of a plain array");
        file[10 + strlen(header) - 2] = 0;
    }
    check_fails(open_path(scratch_path("absent"), &npy), VKMOE_E_IO, "No such file");
}

// A pipe has no size to compare with the header's.
static void test_pipe(void **state)
{
    (void) state;
    struct moe_npy npy;
    const char *path = scratch_path("pipe.npy");
    char bytes[128];
    FILE *file = fopen(write_npy(1, HEADER("<f4", "False", "(2,)"), "12345678", 8), "rb");
    size_t n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_int_equal(mkfifo(path, 0600), 0);
    int pipe = open(path, O_RDWR); // both ends: nobody waits for the other
    assert_int_equal(write(pipe, bytes, n), n);
    check_fails(open_path(path, &npy), VKMOE_E_IO, "not a regular file");
    close(pipe);
}

static void test_writes(void **state)
{
    (void) state;
    struct moe_npy_writer writer;
    struct moe_npy npy;
    const int32_t rows[6] = {1, 2, 3, 4, 5, 6};
    float got[6];
    const char *path = scratch_path("w.npy");
    check_ok(moe_npy_create(moe_host_default(), path, true, 2, &writer));
    check_ok(moe_npy_append(&writer, rows, 1));
    check_ok(moe_npy_append(&writer, rows + 2, 2));
    check_ok(moe_npy_append(&writer, NULL, 0));
    check_ok(moe_npy_commit(&writer));
    moe_npy_discard(&writer);

    check_ok(open_path(path, &npy));
    assert_true(npy.is_integer);
    assert_int_equal(npy.n_dims, 2);
    assert_int_equal(npy.dims[0], 3);
    assert_int_equal(npy.dims[1], 2);
    check_ok(moe_npy_read(&npy, 6, got));
    for (int i = 0; i < 6; i++)
        assert_true(got[i] == (float) rows[i]);
    // As the format's text wants it: data at a multiple of 64, a line end before it.
    assert_int_equal(fseek(npy.file, 127, SEEK_SET), 0);
    assert_int_equal(fgetc(npy.file), '\n');
    moe_npy_close(&npy);

    int before = scratch_count();
    check_ok(moe_npy_create(moe_host_default(), scratch_path("v.npy"), false, 2, &writer));
    moe_npy_discard(&writer);
    assert_int_equal(scratch_count(), before);
}

static enum vkmoe_status open_numbers(const char *header, const void *data, size_t size,
                                      vkmoe_number_reader **out, uint64_t *n)
{
    enum vkmoe_status status = vkmoe_numbers_open(NULL, write_npy(1, header, data, size), out, n);
    assert_int_equal(status == VKMOE_OK, *out != NULL);
    return status;
}

// Token ids: whole, beyond what f32 can hold, in pieces.
static void test_numbers(void **state)
{
    (void) state;
    const int32_t i4[3] = {16777217, -3, INT32_MAX};
    const int64_t i8[3] = {16777217, -3, INT32_MAX}, large[2] = {1, INT64_C(1) << 31};
    const float f4[3] = {1, 2, 3};
    vkmoe_number_reader *reader;
    uint64_t n;
    for (int wide = 0; wide < 2; wide++) {
        int32_t got[3];
        uint32_t room = 2;
        check_ok(wide ? open_numbers(HEADER("<i8", "False", "(3,)"), i8, sizeof i8, &reader, &n)
                      : open_numbers(HEADER("<i4", "False", "(3, 1)"), i4, sizeof i4, &reader, &n));
        assert_int_equal(n, 3);
        check_ok(vkmoe_numbers_read(reader, &room, got));
        assert_int_equal(room, 2);
        check_ok(vkmoe_numbers_read(reader, &room, got + 2));
        assert_int_equal(room, 1);
        assert_memory_equal(got, i4, sizeof i4);
        check_ok(vkmoe_numbers_read(reader, &room, got));
        assert_int_equal(room, 0);
        vkmoe_numbers_destroy(reader);
    }
    check_fails(open_numbers(HEADER("<f4", "False", "(3,)"), f4, sizeof f4, &reader, &n),
                VKMOE_E_DATA, "not whole numbers");
    check_fails(open_numbers(HEADER("<i4", "False", "(1, 3)"), i4, sizeof i4, &reader, &n),
                VKMOE_E_DATA, "2 dimensions, a row of many");
    check_fails(open_numbers(HEADER("<i4", "False", "()"), i4, 4, &reader, &n), VKMOE_E_DATA,
                "0 dimensions");
    check_ok(open_numbers(HEADER("<i8", "False", "(2,)"), large, sizeof large, &reader, NULL));
    int32_t got[2];
    uint32_t room = 2;
    check_fails(vkmoe_numbers_read(reader, &room, got), VKMOE_E_DATA,
                "number 1: 2147483648 does not fit");
    vkmoe_numbers_destroy(reader);
    check_fails(vkmoe_numbers_open(NULL, NULL, &reader, &n), VKMOE_E_ARGUMENT, "path is NULL");
    check_fails(vkmoe_numbers_read(NULL, &room, got), VKMOE_E_ARGUMENT, "reader is NULL");
    vkmoe_numbers_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_reads_types),
        cmocka_unit_test(test_reads_many),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_no_npy),
        cmocka_unit_test(test_pipe),
        cmocka_unit_test(test_writes),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
