// SPDX-License-Identifier: MIT
// A process that is killed at a system call of a save leaves the old file or the new one, whole,
// and another process may save between any two of its calls. Needs ptrace, which emulators of a
// processor do not have.
#include "check.h"
#include "saved.h"
#include "scratch.h"

#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// A process that saves content 1 and has stopped once before.
static pid_t start_traced(const struct saved_format *format)
{
    int status;
    const char *path = scratch_path(format->name);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(2);
        raise(SIGSTOP);
        _exit(format->save(path, 1) != VKMOE_OK);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, child, NULL,
                            PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD),
                     0);
    return child;
}

// Those of its calls that put a file in place, in order.
struct calls {
    char text[256];
    size_t n;
};

// To be called at the entry of a call.
static void note_call(pid_t child, struct calls *calls)
{
    struct __ptrace_syscall_info info = {0};
    (void) ptrace(PTRACE_GET_SYSCALL_INFO, child, (void *) sizeof info, &info);
    char what = info.entry.nr == SYS_write ? 'w' : info.entry.nr == SYS_fsync ? 's' : 0;
#ifdef SYS_rename
    if (info.entry.nr == SYS_rename)
        what = 'r';
#endif
    if (info.entry.nr == SYS_renameat || info.entry.nr == SYS_renameat2)
        what = 'r';
    if (what && calls->n < sizeof calls->text - 1)
        calls->text[calls->n++] = what;
}

// Runs the process to the entry of its n-th system call. False: it ended before.
static bool run_to(pid_t child, int n, struct calls *calls)
{
    int status;
    for (int i = 0; i < 2 * n + 1; i++) { // each call stops at its entry and at its exit
        assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            return false;
        }
        assert_true(WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80));
        if (i % 2 == 0)
            note_call(child, calls);
    }
    return true;
}

static void check_every_call(const struct saved_format *format)
{
    int n_seen[2] = {0}, n_left = 0;
    saved_here(format, 0);
    for (int n = 0;; n++) {
        pid_t child = start_traced(format);
        struct calls calls = {0};
        bool killed = run_to(child, n, &calls); // and that call does not happen
        if (killed)
            saved_kill(child);
        n_seen[saved_content(format)]++;
        n_left += scratch_count() - 1;
        assert_in_range(scratch_count(), 1, 2);
        if (!killed) {
            // Against the loss of power: the data, then the name, then the folder is on the disk.
            print_message("calls: %s\n", calls.text);
            assert_non_null(strstr(calls.text, "wsrs"));
            assert_int_equal(calls.text[calls.n - 1], 's');
            break;
        }
        saved_here(format, 0);
    }
    print_message("%s: killed at %d calls: old %d, new %d, a leftover %d\n", format->name,
                  n_seen[0] + n_seen[1] - 1, n_seen[0], n_seen[1], n_left);
    assert_true(n_seen[0] > 8 && n_seen[1] > 2 && n_left > 4);
    assert_int_equal(saved_content(format), 1);
    assert_int_equal(unlink(scratch_path(format->name)), 0);
}

static void killed_at_every_call(void **state)
{
    (void) state;
    for (size_t i = 0; i < SAVED_N_FORMATS; i++)
        check_every_call(&saved_formats[i]);
}

// Whatever one writer is about to do, another one comes and goes: neither takes the other's
// temporary file for a leftover.
static void one_saves_within_the_other(void **state)
{
    (void) state;
    const struct saved_format *format = &saved_formats[0];
    for (int n = 0;; n++) {
        int status;
        struct calls calls = {0};
        pid_t child = start_traced(format);
        if (!run_to(child, n, &calls))
            break;
        check_ok(format->save(scratch_path(format->name), 0));
        assert_int_equal(saved_content(format), 0);
        assert_int_equal(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        saved_content(format);
        assert_int_equal(scratch_count(), 1);
    }
    assert_int_equal(unlink(scratch_path(format->name)), 0);
}

// That, and nothing else, is what a child says with 77.
static bool have_ptrace(void)
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 77);
    return waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 77;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_every_call),
        cmocka_unit_test(one_saves_within_the_other),
    };
    if (!have_ptrace()) {
        puts("no ptrace here");
        return 77;
    }
    return cmocka_run_group_tests(tests, saved_setup, scratch_teardown) != 0;
}
