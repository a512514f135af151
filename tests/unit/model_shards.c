// SPDX-License-Identifier: MIT
// Every rule of an index of shards has an index that breaks this rule alone:
//   1  the index is a JSON object with an object weight_map, whose keys occur once: no tensor is in
//      two shards
//   2  a shard is a bare file name, of a file that is there
//   3  a shard holds every tensor that the index says, and is a valid safetensors file
//   4  sizes that the index gives and tensors that it does not list are not looked at
#include "budget.h"
#include "check.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/shards.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const float values[4] = {1, 2, 3, 4};

static void write_shard(const char *file, const char *a, const char *b)
{
    const struct moe_st_source sources[] = {{a, "F32", 1, {2}, values},
                                            {b, "F32", 1, {1}, values + 2}};
    check_ok(moe_safetensors_write(moe_host_default(), scratch_path(file), sources, b ? 2 : 1,
                                   NULL));
}

static int set_up(void **state)
{
    if (scratch_setup(state) != 0)
        return -1;
    write_shard("1.safetensors", "a", "b");
    write_shard("2.safetensors", "c", "unlisted");
    return 0;
}

static enum vkmoe_status open_index(const char *text, struct moe_shards *out)
{
    scratch_text(MOE_SHARDS_INDEX, text);
    return moe_shards_open(moe_host_default(), scratch_folder(), out);
}

// The tensors of an index without errors are found, in the order that is asked for.
static void check_good(const char *text)
{
    struct moe_shards shards;
    struct moe_st_tensor *tensor;
    if (open_index(text, &shards) != VKMOE_OK)
        fail_msg("%s: %s", text, vkmoe_error_text());
    check_ok(moe_shards_find(&shards, "c", &tensor));
    assert_non_null(tensor);
    float got[2];
    check_ok(moe_safetensors_read(&shards.shards[1].file, tensor, 0, sizeof got, got));
    assert_memory_equal(got, values, sizeof got);
    check_ok(moe_shards_find(&shards, "a", &tensor));
    assert_string_equal(tensor->name, "a");
    moe_shards_close(&shards);
}

#define MAP "\"weight_map\":{\"c\":\"2.safetensors\",\"a\":\"1.safetensors\"}"

static void test_good(void **state)
{
    (void) state;
    check_good("{" MAP "}");
    check_good(" {\n" MAP ",\"other\":[1,null]}\n");
    check_good("{\"metadata\":{}," MAP "}");
}

static void test_total_size_is_not_used(void **state)
{
    (void) state;
    static const char *const sizes[] = {"0", "-1", "16.0", "1e300", "99999999999999999999", "null",
                                        "\"many\""};
    for (size_t i = 0; i < MOE_COUNT(sizes); i++) {
        char text[256];
        snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":%s}," MAP "}", sizes[i]);
        check_good(text);
    }
    check_good("{\"metadata\":7," MAP "}");
}

static void test_shards_open_when_needed(void **state)
{
    (void) state;
    struct moe_shards shards;
    struct moe_st_tensor *tensor, *again;
    check_ok(open_index("{" MAP "}", &shards));
    assert_int_equal(shards.n_shards, 2);
    assert_int_equal(shards.n_entries, 2);
    assert_string_equal(shards.shards[0].name, "1.safetensors");
    assert_string_equal(shards.entries[1].tensor, "c");
    assert_ptr_equal(shards.entries[1].shard, &shards.shards[1]);
    assert_false(shards.shards[0].is_open || shards.shards[1].is_open);
    check_ok(moe_shards_find(&shards, "c", &tensor));
    assert_false(shards.shards[0].is_open);
    assert_true(shards.shards[1].is_open);
    check_ok(moe_shards_find(&shards, "c", &again));
    assert_ptr_equal(tensor, again); // the file is opened once
    moe_shards_close(&shards);
    assert_null(shards.entries);
    moe_shards_close(&shards);
}

// Listed nowhere: not there, even if a shard that is open holds it.
static void test_unlisted_tensors(void **state)
{
    (void) state;
    struct moe_shards shards;
    struct moe_st_tensor *tensor;
    check_good("{" MAP "}");
    check_ok(open_index("{" MAP "}", &shards));
    check_ok(moe_shards_find(&shards, "c", &tensor));
    check_ok(moe_shards_find(&shards, "unlisted", &tensor));
    assert_null(tensor);
    check_ok(moe_shards_find(&shards, "nowhere", &tensor));
    assert_null(tensor);
    moe_shards_close(&shards);
    check_ok(open_index("{\"weight_map\":{}}", &shards));
    check_ok(moe_shards_find(&shards, "a", &tensor));
    assert_null(tensor);
    moe_shards_close(&shards);
}

static void check_refused(const char *text, const char *part)
{
    struct moe_shards shards;
    print_message("%s\n", text);
    check_fails(open_index(text, &shards), VKMOE_E_DATA, part);
    assert_null(shards.host);
    assert_null(shards.index);
}

// It is a number all the same: one that f64 can hold.
static void test_total_size_of_many_digits(void **state)
{
    (void) state;
    char text[512];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":1%0300d}," MAP "}", 0);
    check_good(text);
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":1%0400d}," MAP "}", 0);
    check_refused(text, "real number overflow");
}

static void test_no_index(void **state)
{
    (void) state;
    static const struct {
        const char *text, *part; // of the message
    } cases[] = {
        {"", MOE_SHARDS_INDEX ": '[' or '{' expected"},
        {"{" MAP, "'}' expected near end of file (line 1, "},
        {"{" MAP "} {}", "end of file expected"},
        {"{\"weight_map\":{\"\xff\":\"1.safetensors\"}}", "unable to decode byte 0xff"},
        {"{\"weight_map\":{\"a\\u0000\":\"1.safetensors\"}}", "NUL byte in object key"},
        {"[]", "weight_map is missing"},
        {"{}", "weight_map is missing"},
        {"{\"metadata\":{" MAP "}}", "weight_map is missing"},
        {"{\"weight_map\":null}", "weight_map is not an object"},
        {"{\"weight_map\":[\"1.safetensors\"]}", "weight_map is not an object"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++)
        check_refused(cases[i].text, cases[i].part);
}

static void test_a_tensor_in_two_shards(void **state)
{
    (void) state;
    check_refused("{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"2.safetensors\"}}",
                  "duplicate object key near '\"a\"'");
    check_refused("{\"weight_map\":{\"a\":\"1.safetensors\",\"\\u0061\":\"1.safetensors\"}}",
                  "duplicate object key");
    check_refused("{" MAP "," MAP "}", "duplicate object key");
}

static void test_names_that_are_no_files_of_the_folder(void **state)
{
    (void) state;
    // Each of them is there, so that nothing but the check of names refuses it.
    assert_int_equal(mkdir(scratch_path("sub"), 0755), 0);
    write_shard("sub/1.safetensors", "a", NULL);
    write_shard("a\\1.safetensors", "a", NULL);
    write_shard("c:1.safetensors", "a", NULL);
    write_shard("1..safetensors", "a", NULL);
    char absolute[1024], cwd[512];
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(absolute, sizeof absolute, "{\"weight_map\":{\"a\":\"%s/%s\"}}", cwd,
             scratch_path("1.safetensors"));
    check_refused(absolute, "is in another folder: only a bare file name");
    check_refused("{\"weight_map\":{\"a\":\"sub/1.safetensors\"}}",
                  "tensor 'a': shard 'sub/1.safetensors' is in another folder");
    check_refused("{\"weight_map\":{\"a\":\"./1.safetensors\"}}", "is in another folder");
    check_refused("{\"weight_map\":{\"a\":\"sub/../1.safetensors\"}}", "is in another folder");
    check_refused("{\"weight_map\":{\"a\":\"a\\\\1.safetensors\"}}",
                  "shard 'a\\1.safetensors' is in another folder");
    check_refused("{\"weight_map\":{\"a\":\"c:1.safetensors\"}}",
                  "shard 'c:1.safetensors' names a drive");
    check_refused("{\"weight_map\":{\"a\":\"1..safetensors\"}}", "'1..safetensors' has '..' in it");
    check_refused("{\"weight_map\":{\"a\":\"..\"}}", "shard '..' has '..' in it");
    check_refused("{\"weight_map\":{\"a\":\".\"}}", "shard '.' names a folder");
    check_refused("{\"weight_map\":{\"a\":\"\"}}", "shard '' is empty");
    check_refused("{\"weight_map\":{\"a\":\"1.safetensors\\u0000x\"}}",
                  "shard '1.safetensors' has a zero byte in it");
    check_refused("{\"weight_map\":{\"a\":\"\\u0000\"}}", "has a zero byte in it");
    check_refused("{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":7}}",
                  "tensor 'b': its shard is not a text");
    check_refused("{\"weight_map\":{\"a\":null}}", "tensor 'a': its shard is not a text");
    unlink(scratch_path("sub/1.safetensors"));
    assert_int_equal(rmdir(scratch_path("sub")), 0);
}

static void test_shards_that_are_not_there(void **state)
{
    (void) state;
    check_refused("{\"weight_map\":{\"a\":\"1.safetensors\",\"z\":\"3.safetensors\"}}",
                  "shard '3.safetensors' of tensor 'z': No such file");
    assert_int_equal(mkdir(scratch_path("folder"), 0755), 0);
    check_refused("{\"weight_map\":{\"a\":\"folder\"}}", "tensor 'a': not a regular file");
    assert_int_equal(rmdir(scratch_path("folder")), 0);
    char name[400], text[512];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", name);
    check_refused(text, "File name too long");
}

static void check_find_fails(const char *text, const char *part)
{
    struct moe_shards shards;
    struct moe_st_tensor *tensor;
    check_ok(open_index(text, &shards));
    for (int i = 0; i < 2; i++) { // a failure is not remembered as an open file
        check_fails(moe_shards_find(&shards, "a", &tensor), VKMOE_E_DATA, part);
        assert_null(tensor);
    }
    check_ok(moe_shards_find(&shards, "c", &tensor));
    assert_non_null(tensor);
    moe_shards_close(&shards);
}

static void test_shards_that_do_not_fit_the_index(void **state)
{
    (void) state;
    // In another shard than the index says, or beside one that is where it should be.
    write_shard("2b.safetensors", "c", NULL);
    check_find_fails("{\"weight_map\":{\"a\":\"2.safetensors\",\"c\":\"2b.safetensors\"}}",
                     "2.safetensors: tensor 'a' is missing; " MOE_SHARDS_INDEX);
    check_find_fails("{\"weight_map\":{\"a\":\"1.safetensors\",\"d\":\"1.safetensors\","
                     "\"c\":\"2.safetensors\"}}",
                     "1.safetensors: tensor 'd' is missing");
    scratch_text("no.safetensors", "text");
    check_find_fails("{\"weight_map\":{\"a\":\"no.safetensors\",\"c\":\"2.safetensors\"}}",
                     "no.safetensors: 4 bytes: too short for a safetensors file");
}

// A shard that vanishes after the index was read.
static void test_a_shard_that_goes_away(void **state)
{
    (void) state;
    struct moe_shards shards;
    struct moe_st_tensor *tensor;
    write_shard("3.safetensors", "z", NULL);
    check_ok(open_index("{\"weight_map\":{\"z\":\"3.safetensors\"}}", &shards));
    assert_int_equal(unlink(scratch_path("3.safetensors")), 0);
    check_fails(moe_shards_find(&shards, "z", &tensor), VKMOE_E_IO, "3.safetensors: cannot open");
    moe_shards_close(&shards);
}

static void test_folders(void **state)
{
    (void) state;
    struct moe_shards shards;
    char path[5000];
    check_fails(moe_shards_open(moe_host_default(), scratch_path("absent"), &shards), VKMOE_E_IO,
                "absent/" MOE_SHARDS_INDEX ": cannot open");
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    check_fails(moe_shards_open(moe_host_default(), path, &shards), VKMOE_E_IO,
                "ppp: the path is too long");
    scratch_text(MOE_SHARDS_INDEX, "{" MAP "}");
    snprintf(path, sizeof path, "%s/", scratch_folder());
    check_ok(moe_shards_open(moe_host_default(), path, &shards));
    assert_string_equal(shards.folder, path);
    moe_shards_close(&shards);
    assert_int_equal(chdir(scratch_folder()), 0);
    check_ok(moe_shards_open(moe_host_default(), ".", &shards));
    moe_shards_close(&shards);
    assert_int_equal(chdir(".."), 0);
}

static void test_a_huge_index(void **state)
{
    (void) state;
    struct moe_shards shards;
    const char *path = scratch_text(MOE_SHARDS_INDEX, "{" MAP "}");
    assert_int_equal(truncate(path, 100000001), 0); // a hole: nothing is written
    check_fails(moe_shards_open(moe_host_default(), scratch_folder(), &shards), VKMOE_E_DATA,
                "100000001 bytes, at most 100000000");
}

// ---- memory ----------------------------------------------------------------------------------

static void test_every_allocation_fails_once(void **state)
{
    (void) state;
    vkmoe_host host = *moe_host_default();
    struct budget budget = {0};
    budget_host(&host, &budget);
    scratch_text(MOE_SHARDS_INDEX, "{" MAP "}");
    size_t n = 0;
    for (enum vkmoe_status status = VKMOE_E_MEMORY; status != VKMOE_OK; n++) {
        struct moe_shards shards;
        struct moe_st_tensor *tensor = NULL;
        budget = (struct budget){.fail_at = (long) n};
        status = moe_shards_open(&host, scratch_folder(), &shards);
        if (status == VKMOE_OK)
            status = moe_shards_find(&shards, "a", &tensor);
        assert_true(status == VKMOE_OK || status == VKMOE_E_MEMORY);
        assert_int_equal(tensor != NULL, status == VKMOE_OK);
        moe_shards_close(&shards);
        assert_int_equal(budget.live, 0);
        assert_true(n < 20);
    }
    assert_true(n > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_total_size_is_not_used),
        cmocka_unit_test(test_shards_open_when_needed),
        cmocka_unit_test(test_unlisted_tensors),
        cmocka_unit_test(test_total_size_of_many_digits),
        cmocka_unit_test(test_no_index),
        cmocka_unit_test(test_a_tensor_in_two_shards),
        cmocka_unit_test(test_names_that_are_no_files_of_the_folder),
        cmocka_unit_test(test_shards_that_are_not_there),
        cmocka_unit_test(test_shards_that_do_not_fit_the_index),
        cmocka_unit_test(test_a_shard_that_goes_away),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_a_huge_index),
        cmocka_unit_test(test_every_allocation_fails_once),
    };
    return cmocka_run_group_tests(tests, set_up, scratch_teardown) != 0;
}
