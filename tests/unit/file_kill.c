// SPDX-License-Identifier: MIT
// A process that is killed while it saves, at any time, leaves the old file or the new one, whole.
// What else it leaves is gone after the next save. file_kill_calls.c does so at every system call.
#include "check.h"
#include "saved.h"
#include "scratch.h"

#include "base/bits.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_KILLS = 100 }; // for each format

// A process that saves the two contents in turn until it is killed.
static pid_t start_saving(const struct saved_format *format, int ready)
{
    const char *path = scratch_path(format->name);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child != 0)
        return child;
    for (int content = 1;; content = !content)
        if (write(ready, "", 1) != 1 || format->save(path, content) != VKMOE_OK)
            _exit(1);
}

static void killed_at_any_time(void **state)
{
    (void) state;
    for (int i = 0; i < 2 * N_KILLS; i++) {
        const struct saved_format *format = &saved_formats[i / N_KILLS];
        int ready[2];
        char byte;
        if (i % N_KILLS == 0)
            saved_here(format, 0);
        assert_int_equal(pipe(ready), 0);
        pid_t child = start_saving(format, ready[1]);
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1); // it is at its first save
        usleep((useconds_t) (i % N_KILLS) * 53);
        saved_kill(child);
        close(ready[0]);
        saved_content(format);
        assert_in_range(scratch_count(), 1, 2);
        if (i % N_KILLS == N_KILLS - 1) {
            saved_here(format, i % 2);
            assert_int_equal(unlink(scratch_path(format->name)), 0);
        }
    }
}

// Processes save one file, each whenever it likes.
static void many_save_one_file(void **state)
{
    (void) state;
    enum { N_PROCESSES = 4, N_SAVES = 50 };
    const struct saved_format *format = &saved_formats[0];
    const char *path = scratch_path(format->name);
    for (int i = 0; i < N_PROCESSES; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child != 0)
            continue;
        for (int k = 0; k < N_SAVES; k++)
            if (format->save(path, (i + k) % 2) != VKMOE_OK) {
                fprintf(stderr, "%s\n", vkmoe_error_text());
                _exit(1);
            }
        _exit(0);
    }
    for (int i = 0, status; i < N_PROCESSES; i++) {
        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    saved_content(format);
    assert_int_equal(scratch_count(), 1);
    assert_int_equal(unlink(path), 0);
}

// Only names that this library makes are removed, and only unlocked regular files.
static void strangers_stay(void **state)
{
    (void) state;
    static const char *const names[] = {
        ".x.npy.tmp",      ".x.npy.1.tmp",   ".x.npy.1.2.tmpx", "x.npy.1.2.tmp", ".x.npy..2.tmp",
        ".y.npy.1.2.tmp",  ".x.npy.1.a.tmp", ".x.npy.1.2.3.tmp", "ax.npy.1.2.tmp",
    };
    int n = (int) MOE_COUNT(names);
    for (int i = 0; i < n; i++)
        scratch_text(names[i], "text");
    assert_int_equal(symlink(names[0], scratch_path(".x.npy.1.3.tmp")), 0);
    assert_int_equal(mkfifo(scratch_path(".x.npy.1.4.tmp"), 0600), 0);
    scratch_text(".x.npy.1.2.tmp", "a leftover");
    check_ok(saved_formats[1].save(scratch_path("x.npy"), 0));
    assert_int_equal(scratch_count(), n + 3); // with link, pipe and the new file
    assert_int_not_equal(access(scratch_path(".x.npy.1.2.tmp"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_any_time),
        cmocka_unit_test(many_save_one_file),
        cmocka_unit_test(strangers_stay),
    };
    return cmocka_run_group_tests(tests, saved_setup, scratch_teardown) != 0;
}
