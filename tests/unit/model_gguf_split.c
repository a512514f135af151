// SPDX-License-Identifier: MIT
// Rule 8 of GGUF: a split model's files say which part they are, by keys and by name; opening one
// opens all; a tensor is in one of them.
#include "budget.h"
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
#define SPLIT(no, count, tensors)                                                                  \
    "t'split.no' 4=2 2=" #no " t'split.count' 4=2 2=" #count                                       \
    " t'split.tensors.count' 4=5 4=" #tensors " "
#define TENSOR(name, offset) "t'" name "' 4=1 8=1 4=0 8=" #offset " "

static const char *const names[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                    "m-00003-of-00003.gguf"};
static const char *const good[] = {
    H(2, 4) SPLIT(0, 3, 4) "t'k' 4=4 4=5 " TENSOR("c", 0) TENSOR("a", 32) "~32 f=1 ~32 f=2",
    H(0, 4) SPLIT(1, 3, 4) "t'k' 4=8 t'not of the first'",
    H(2, 4) SPLIT(2, 3, 4) "t'general.alignment' 4=4 4=64 " TENSOR("b", 0) TENSOR("d", 64)
    "~64 f=3 ~64 f=4",
};

static void write_good(void)
{
    for (size_t i = 0; i < MOE_COUNT(names); i++)
        gguf_file(names[i], good[i]);
}

static enum vkmoe_status open_name(const char *name)
{
    struct moe_gguf file;
    enum vkmoe_status status = moe_gguf_open(moe_host_default(), scratch_path(name), &file);
    if (status != VKMOE_OK)
        assert_null(file.host);
    moe_gguf_close(&file);
    return status;
}

static void test_any_part_opens_all(void **state)
{
    (void) state;
    write_good();
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        struct moe_gguf file;
        uint32_t k = 0;
        check_ok(moe_gguf_open(moe_host_default(), scratch_path(names[i]), &file));
        assert_int_equal(file.n_parts, 3);
        assert_int_equal(file.n_tensors, 4);
        check_ok(moe_gguf_u32(&file, "k", &k)); // of the first part
        assert_int_equal(k, 5);
        assert_int_equal(file.n_values, 4);
        assert_null(moe_gguf_find_value(&file, "general.alignment"));
        for (int j = 0; j < 4; j++) {
            const char name[] = {"cabd"[j], '\0'};
            float value = 0;
            const struct moe_gguf_tensor *t = moe_gguf_find(&file, name);
            assert_ptr_equal(t, &file.tensors[j]);
            assert_int_equal(t->part, j < 2 ? 0 : 2);
            check_ok(moe_gguf_read(&file, t, 0, sizeof value, &value));
            assert_true(value == 1 + j);
        }
        moe_gguf_close(&file);
    }
}

// With one part replaced.
static void check_part(int part, const char *notation, const char *message)
{
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        write_good();
        print_message("%s\n", notation);
        gguf_file(names[part], notation);
        check_fails(open_name(names[i]), VKMOE_E_DATA, message);
    }
}

static void test_parts_that_do_not_fit(void **state)
{
    (void) state;
    static const struct {
        int part;
        const char *notation, *message;
    } cases[] = {
        {1, H(0, 3) SPLIT(2, 3, 4),
         "m-00002-of-00003.gguf: part 3 of 3 by its keys, 2 of 3 by its name"},
        {1, H(0, 3) SPLIT(1, 2, 4), "part 2 of 2 by its keys, 2 of 3 by its name"},
        {1, H(0, 0), "m-00002-of-00003.gguf: part 1 of 1 by its keys, 2 of 3 by its name"},
        {1, H(0, 3) SPLIT(3, 3, 4), "split.no 3 of split.count 3"},
        {1, H(0, 3) SPLIT(1, 0, 4), "split.no 1 of split.count 0"},
        {2, H(0, 3) SPLIT(2, 3, 4), "split.tensors.count is 4, there are 2"},
        {2, H(3, 3) SPLIT(2, 3, 4) TENSOR("b", 0) TENSOR("d", 32) TENSOR("e", 64) "~32 +96",
         "split.tensors.count is 4, there are 5"},
        {2, H(2, 3) SPLIT(2, 3, 4) TENSOR("b", 0) TENSOR("a", 32) "~32 +64",
         "tensor 'a' is there twice (the other in "},
        {1, H(0, 1) "t'split.count' 4=2 2=3", "key 'split.no' is missing"},
        {1, H(0, 2) "t'split.count' 4=2 2=3 t'split.no' 4=2 2=1",
         "key 'split.tensors.count' is missing"},
        {1, H(0, 1) "t'split.count' 4=8 t'3'", "'split.count' is a single string, not an integer"},
        {1, H(0, 3) "t'split.count' 4=2 2=3 t'split.no' 4=5 4=-1 t'split.tensors.count' 4=5 4=4",
         "key 'split.no' says -1"},
        {1, "'GGUF'", "m-00002-of-00003.gguf: header: 4 bytes at byte 4 of 4: truncated"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++)
        check_part(cases[i].part, cases[i].notation, cases[i].message);
    // The two disagree, and either may be the one that is named.
    write_good();
    gguf_file(names[1], H(0, 3) SPLIT(1, 3, 5));
    check_fails(open_name(names[0]), VKMOE_E_DATA,
                "m-00002-of-00003.gguf: split.tensors.count is 5, in part 1 it is 4");
    check_fails(open_name(names[1]), VKMOE_E_DATA,
                "m-00001-of-00003.gguf: split.tensors.count is 4, in part 2 it is 5");
}

static void test_a_part_that_is_missing(void **state)
{
    (void) state;
    write_good();
    assert_int_equal(unlink(scratch_path(names[1])), 0);
    check_fails(open_name(names[0]), VKMOE_E_IO,
                "m-00002-of-00003.gguf: cannot open: No such file");
    check_fails(open_name(names[2]), VKMOE_E_IO, "m-00002-of-00003.gguf: cannot open");
}

static void test_names(void **state)
{
    (void) state;
    static const char *const bad[] = {
        "m.gguf", "m-00001-of-00003.ggu", "m-00001-of-00003gguf", "m_00001-of-00003.gguf",
        "m-00001-to-00003.gguf", "m-0001-of-00003.gguf", "m-00001-of-0003.gguf",
        "m- 0001-of-00003.gguf", "m-+0001-of-00003.gguf", "m-0x001-of-00003.gguf",
        "m-00001-of-00003.GGUF",
    };
    for (size_t i = 0; i < MOE_COUNT(bad); i++) {
        gguf_file(bad[i], good[0]);
        check_fails(open_name(bad[i]), VKMOE_E_DATA, "part 1 of 3, which its name does not end "
                    "with: -00001-of-00003.gguf");
    }
    // A model in one file is named as one likes, but not as a part of several.
    static const char *const one[] = {"m.gguf", "m-00001-of-00001.gguf", "-00001-of-00001.gguf",
                                      "x", ".gguf"};
    for (size_t i = 0; i < MOE_COUNT(one); i++) {
        gguf_file(one[i], H(0, 0));
        check_ok(open_name(one[i]));
        gguf_file(one[i], H(1, 3) SPLIT(0, 1, 1) TENSOR("a", 0) "~32 +32");
        check_ok(open_name(one[i]));
    }
    gguf_file("m-00001-of-00002.gguf", H(0, 0));
    check_fails(open_name("m-00001-of-00002.gguf"), VKMOE_E_DATA,
                "part 1 of 1 by its keys, 1 of 2 by its name");
    gguf_file("x.gguf", H(1, 3) SPLIT(0, 1, 2) TENSOR("a", 0) "~32 +32");
    check_fails(open_name("x.gguf"), VKMOE_E_DATA, "split.tensors.count is 2, there are 1");
    gguf_file("x.gguf", H(0, 3) "t'split.no' 4=4 4=0 t'split.count' 4=4 4=65536 "
              "t'split.tensors.count' 4=4 4=0");
    check_fails(open_name("x.gguf"), VKMOE_E_DATA, "split.count 65536, at most 65535");
}

// What the files say of themselves never leads to another file.
static void test_in_the_folder_of_the_name(void **state)
{
    (void) state;
    char path[600];
    struct moe_gguf file;
    write_good();
    snprintf(path, sizeof path, "./%s", scratch_path(names[2]));
    check_ok(moe_gguf_open(moe_host_default(), path, &file));
    moe_gguf_close(&file);
    assert_int_equal(chdir(scratch_folder()), 0);
    check_ok(moe_gguf_open(moe_host_default(), names[1], &file));
    moe_gguf_close(&file);
    assert_int_equal(chdir(".."), 0);
}

static void test_a_part_that_shrinks(void **state)
{
    (void) state;
    struct moe_gguf file;
    float value;
    write_good();
    check_ok(moe_gguf_open(moe_host_default(), scratch_path(names[0]), &file));
    assert_int_equal(truncate(scratch_path(names[2]), 100), 0);
    check_ok(moe_gguf_read(&file, moe_gguf_find(&file, "a"), 0, 4, &value));
    check_fails(moe_gguf_read(&file, moe_gguf_find(&file, "d"), 0, 4, &value), VKMOE_E_IO,
                "m-00003-of-00003.gguf: bytes ");
    moe_gguf_close(&file);
}

// ---- memory ----------------------------------------------------------------------------------

static void test_every_allocation_fails_once(void **state)
{
    (void) state;
    vkmoe_host host = *moe_host_default();
    struct budget budget = {0};
    budget_host(&host, &budget);
    write_good();
    size_t n = 0;
    for (enum vkmoe_status status = VKMOE_E_MEMORY; status != VKMOE_OK; n++) {
        struct moe_gguf file;
        budget = (struct budget){.fail_at = (long) n};
        status = moe_gguf_open(&host, scratch_path(names[1]), &file);
        assert_true(status == VKMOE_OK || status == VKMOE_E_MEMORY);
        moe_gguf_close(&file);
        assert_int_equal(budget.live, 0);
        assert_true(n < 40);
    }
    assert_true(n > 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_part_opens_all),
        cmocka_unit_test(test_parts_that_do_not_fit),
        cmocka_unit_test(test_a_part_that_is_missing),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_in_the_folder_of_the_name),
        cmocka_unit_test(test_a_part_that_shrinks),
        cmocka_unit_test(test_every_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
