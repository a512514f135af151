// SPDX-License-Identifier: MIT
// A process that is killed while it saves leaves the old file or the new one, whole. What else it
// leaves is gone after the next save.
#include "check.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/npy.h"
#include "model/safetensors.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// Two contents, of this many numbers, each of which is the content's own.
static const uint64_t n_numbers[2] = {700, 70000};
static float numbers[2][70000];

static enum vkmoe_status save_safetensors(const char *path, int content)
{
    const struct moe_st_source tensor = {
        "a", "F32", 1, {n_numbers[content]}, numbers[content]};
    return moe_safetensors_write(moe_host_default(), path, &tensor, 1, NULL);
}

static uint64_t load_safetensors(const char *path, float *out)
{
    struct moe_safetensors file;
    check_ok(moe_safetensors_open(moe_host_default(), path, &file));
    assert_int_equal(file.n_tensors, 1);
    uint64_t n = file.tensors[0].n_elements;
    assert_true(n <= n_numbers[1]);
    memcpy(out, file.tensors[0].data, n * sizeof *out);
    moe_safetensors_close(&file);
    return n;
}

static enum vkmoe_status save_npy(const char *path, int content)
{
    struct moe_npy_writer writer;
    enum vkmoe_status status = moe_npy_create(moe_host_default(), path, false, 1, &writer);
    for (uint64_t row = 0; status == VKMOE_OK && row < n_numbers[content]; row += n_numbers[0])
        status = moe_npy_append(&writer, numbers[content] + row, n_numbers[0]);
    if (status == VKMOE_OK)
        return moe_npy_commit(&writer);
    moe_npy_discard(&writer);
    return status;
}

static uint64_t load_npy(const char *path, float *out)
{
    struct moe_npy npy;
    check_ok(moe_npy_open(path, &npy));
    uint64_t n = npy.dims[0] * npy.dims[1];
    assert_true(n <= n_numbers[1]);
    check_ok(moe_npy_read(&npy, n, out));
    moe_npy_close(&npy);
    return n;
}

static const struct format {
    const char *name;
    enum vkmoe_status (*save)(const char *path, int content);
    uint64_t (*load)(const char *path, float *out);
} formats[] = {
    {"x.safetensors", save_safetensors, load_safetensors},
    {"x.npy", save_npy, load_npy},
};

// Which content is it? Anything else fails.
static int loaded(const struct format *format)
{
    static float got[70000];
    uint64_t n = format->load(scratch_path(format->name), got);
    int content = n == n_numbers[1];
    assert_int_equal(n, n_numbers[content]);
    assert_memory_equal(got, numbers[content], n * sizeof *got);
    return content;
}

// A save by this process, after which there is nothing but the file.
static void save_here(const struct format *format, int content)
{
    check_ok(format->save(scratch_path(format->name), content));
    assert_int_equal(loaded(format), content);
    assert_int_equal(scratch_count(), 1);
}

static int set_up(void **state)
{
    for (size_t content = 0; content < 2; content++)
        for (size_t i = 0; i < n_numbers[content]; i++)
            numbers[content][i] = (float) (i * 2 + content);
    return scratch_setup(state);
}

// ---- at every system call ----------------------------------------------------------------------

// A process that saves content 1 and has stopped once before. Skips where there is no ptrace.
static pid_t start_traced(const struct format *format)
{
    int status;
    const char *path = scratch_path(format->name);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(77);
        raise(SIGSTOP);
        _exit(format->save(path, 1) != VKMOE_OK);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSTOPPED(status)) {
        print_message("no ptrace here\n");
        skip();
    }
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

static void kill_process(pid_t child)
{
    int status;
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}

static void check_every_call(const struct format *format)
{
    int n_seen[2] = {0}, n_left = 0;
    save_here(format, 0);
    for (int n = 0;; n++) {
        pid_t child = start_traced(format);
        struct calls calls = {0};
        bool killed = run_to(child, n, &calls); // and that call does not happen
        if (killed)
            kill_process(child);
        n_seen[loaded(format)]++;
        n_left += scratch_count() - 1;
        assert_in_range(scratch_count(), 1, 2);
        if (!killed) {
            // Against the loss of power: the data, then the name, then the folder is on the disk.
            print_message("calls: %s\n", calls.text);
            assert_non_null(strstr(calls.text, "wsrs"));
            assert_int_equal(calls.text[calls.n - 1], 's');
            break;
        }
        save_here(format, 0);
    }
    print_message("%s: killed at %d calls: old %d, new %d, a leftover %d\n", format->name,
                  n_seen[0] + n_seen[1] - 1, n_seen[0], n_seen[1], n_left);
    assert_true(n_seen[0] > 8 && n_seen[1] > 2 && n_left > 4);
    assert_int_equal(loaded(format), 1);
    assert_int_equal(unlink(scratch_path(format->name)), 0);
}

static void killed_at_every_call(void **state)
{
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(formats); i++)
        check_every_call(&formats[i]);
}

// ---- at any time -------------------------------------------------------------------------------

enum { N_KILLS = 100 }; // for each format

// A process that saves the two contents in turn until it is killed.
static pid_t start_saving(const struct format *format, int ready)
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
        const struct format *format = &formats[i / N_KILLS];
        int ready[2];
        char byte;
        if (i % N_KILLS == 0)
            save_here(format, 0);
        assert_int_equal(pipe(ready), 0);
        pid_t child = start_saving(format, ready[1]);
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1); // it is at its first save
        usleep((useconds_t) (i % N_KILLS) * 53);
        kill_process(child);
        close(ready[0]);
        loaded(format);
        assert_in_range(scratch_count(), 1, 2);
        if (i % N_KILLS == N_KILLS - 1) {
            save_here(format, i % 2);
            assert_int_equal(unlink(scratch_path(format->name)), 0);
        }
    }
}

// ---- beside each other -------------------------------------------------------------------------

// Whatever one writer is about to do, another one comes and goes: neither takes the other's
// temporary file for a leftover.
static void one_saves_within_the_other(void **state)
{
    (void) state;
    const struct format *format = &formats[0];
    for (int n = 0;; n++) {
        int status;
        struct calls calls = {0};
        pid_t child = start_traced(format);
        if (!run_to(child, n, &calls))
            break;
        check_ok(format->save(scratch_path(format->name), 0));
        assert_int_equal(loaded(format), 0);
        assert_int_equal(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        loaded(format);
        assert_int_equal(scratch_count(), 1);
    }
    assert_int_equal(unlink(scratch_path(format->name)), 0);
}

// The same without order.
static void many_save_one_file(void **state)
{
    (void) state;
    enum { N_PROCESSES = 4, N_SAVES = 50 };
    const struct format *format = &formats[0];
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
    loaded(format);
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
    check_ok(save_npy(scratch_path("x.npy"), 0));
    assert_int_equal(scratch_count(), n + 3); // with link, pipe and the new file
    assert_int_not_equal(access(scratch_path(".x.npy.1.2.tmp"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_every_call),
        cmocka_unit_test(killed_at_any_time),
        cmocka_unit_test(one_saves_within_the_other),
        cmocka_unit_test(many_save_one_file),
        cmocka_unit_test(strangers_stay),
    };
    return cmocka_run_group_tests(tests, set_up, scratch_teardown) != 0;
}
