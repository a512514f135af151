// SPDX-License-Identifier: MIT
// Files that appear whole or not at all, and files for reading, mapped or piece by piece.
#include "check.h"
#include "scratch.h"

#include "base/file.h"
#include "base/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const vkmoe_host *host(void)
{
    return moe_host_default();
}

static void check_content(const char *path, const char *text)
{
    struct moe_file_map map;
    check_ok(moe_file_map(path, &map));
    assert_int_equal(map.size, strlen(text));
    if (map.size > 0)
        assert_memory_equal(map.data, text, map.size);
    moe_file_unmap(&map);
}

static void test_appears_on_commit(void **state)
{
    (void) state;
    struct moe_file_writer *writer;
    const char *path = scratch_path("new");
    int before = scratch_count();
    check_ok(moe_file_create(host(), path, &writer));
    check_ok(moe_file_write(writer, "0000000", 7));
    assert_int_not_equal(access(path, F_OK), 0);
    check_ok(moe_file_rewrite(writer, 2, "ab", 2));
    check_ok(moe_file_write(writer, "end", 3)); // behind what was written first
    check_ok(moe_file_commit(writer));
    check_content(path, "00ab000end");
    assert_int_equal(scratch_count(), before + 1);
}

static void test_discard_leaves_the_old_file(void **state)
{
    (void) state;
    struct moe_file_writer *writer;
    const char *path = scratch_text("old", "old text");
    int before = scratch_count();
    check_ok(moe_file_create(host(), path, &writer));
    check_ok(moe_file_write(writer, "new", 3));
    assert_int_equal(scratch_count(), before + 1); // the temporary one
    moe_file_discard(writer);
    check_content(path, "old text");
    assert_int_equal(scratch_count(), before);
    moe_file_discard(NULL);
}

static void test_two_writers(void **state)
{
    (void) state;
    struct moe_file_writer *a, *b;
    const char *path = scratch_path("both");
    check_ok(moe_file_create(host(), path, &a));
    check_ok(moe_file_create(host(), path, &b));
    check_ok(moe_file_write(a, "a", 1));
    check_ok(moe_file_write(b, "bb", 2));
    check_ok(moe_file_commit(a));
    check_content(path, "a");
    check_ok(moe_file_commit(b));
    check_content(path, "bb");
}

static void test_through_a_link(void **state)
{
    (void) state;
    struct moe_file_writer *writer;
    struct stat info;
    scratch_text("target", "x");
    const char *link = scratch_path("link");
    assert_int_equal(symlink("target", link), 0);
    check_ok(moe_file_create(host(), link, &writer));
    check_ok(moe_file_write(writer, "yy", 2));
    check_ok(moe_file_commit(writer));
    check_content(scratch_path("target"), "yy");
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
}

static void test_refused_at_once(void **state)
{
    (void) state;
    struct moe_file_writer *writer = NULL;
    int before = scratch_count();
    check_fails(moe_file_create(host(), scratch_path("no/such/folder"), &writer), VKMOE_E_IO,
                "No such file");
    check_fails(moe_file_create(host(), scratch_folder(), &writer), VKMOE_E_IO,
                "not a regular file");
    check_fails(moe_file_create(host(), "/dev/null", &writer), VKMOE_E_IO, "not a regular file");
    check_fails(moe_file_create(host(), "", &writer), VKMOE_E_IO, "not a file name");
    assert_null(writer);
    assert_int_equal(scratch_count(), before);
    if (geteuid() == 0)
        return; // nothing is read-only for root
    const char *path = scratch_text("read-only", "x");
    assert_int_equal(chmod(path, 0444), 0);
    check_fails(moe_file_create(host(), path, &writer), VKMOE_E_IO, "denied");
}

static void test_map(void **state)
{
    (void) state;
    struct moe_file_map map;
    check_content(scratch_text("empty", ""), "");
    check_content(scratch_text("full", "text"), "text");
    check_fails(moe_file_map(scratch_path("absent"), &map), VKMOE_E_IO, "No such file");
    check_fails(moe_file_map(scratch_folder(), &map), VKMOE_E_IO, "not a regular file");
    assert_null(map.data);
    moe_file_unmap(&map);
}

static void test_pieces(void **state)
{
    (void) state;
    struct moe_file file;
    char bytes[4] = "";
    const char *path = scratch_text("pieces", "0123456789");
    check_ok(moe_file_open(host(), path, &file));
    assert_int_equal(file.size, 10);
    check_ok(moe_file_read_at(&file, 6, 4, bytes));
    assert_memory_equal(bytes, "6789", 4);
    check_ok(moe_file_read_at(&file, 10, 0, bytes));
    assert_int_equal(unlink(path), 0); // its bytes stay while it is open
    check_ok(moe_file_read_at(&file, 0, 2, bytes));
    assert_memory_equal(bytes, "0189", 4);
    moe_file_close(&file);
    moe_file_close(&file);

    check_fails(moe_file_open(host(), scratch_path("absent"), &file), VKMOE_E_IO, "No such file");
    check_fails(moe_file_open(host(), scratch_folder(), &file), VKMOE_E_IO, "not a regular file");
    assert_int_equal(mkfifo(scratch_path("pipe"), 0600), 0); // and does not wait for its writer
    check_fails(moe_file_open(host(), scratch_path("pipe"), &file), VKMOE_E_IO,
                "pipe: not a regular file");
    assert_null(file.host);
    moe_file_close(&file);
}

static void test_a_file_that_shrinks(void **state)
{
    (void) state;
    struct moe_file file;
    char bytes[8];
    const char *path = scratch_text("shrinks", "0123456789");
    check_ok(moe_file_open(host(), path, &file));
    assert_int_equal(truncate(path, 5), 0);
    check_ok(moe_file_read_at(&file, 1, 4, bytes));
    check_fails(moe_file_read_at(&file, 1, 5, bytes), VKMOE_E_IO,
                "shrinks: bytes 1 to 6: the file has 5 bytes now, 10 when it was opened");
    check_fails(moe_file_read_at(&file, 8, 2, bytes), VKMOE_E_IO, "bytes 8 to 10: the file has 5");
    moe_file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_appears_on_commit),
        cmocka_unit_test(test_discard_leaves_the_old_file),
        cmocka_unit_test(test_two_writers),
        cmocka_unit_test(test_through_a_link),
        cmocka_unit_test(test_refused_at_once),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_a_file_that_shrinks),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
