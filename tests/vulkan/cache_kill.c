// SPDX-License-Identifier: MIT
// A process that is killed while it saves its pipelines leaves the old cache or the new one. The
// library is linked in with its calls of write, fsync and rename going through here; the process
// kills itself at one of them. tests/unit/file_kill_calls.c does more, to files of less worth.
#include "check.h"
#include "fixture.h"
#include "host.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- the calls ---------------------------------------------------------------------------------

static int n_calls_left = -1; // until the one that does not happen; below 0: all do

static void count_call(void)
{
    if (n_calls_left == 0)
        raise(SIGKILL);
    n_calls_left -= n_calls_left > 0;
}

int fsync(int fd)
{
    count_call();
    return (int) syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    count_call();
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

// Half of the bytes are written before the end.
ssize_t write(int fd, const void *data, size_t size)
{
    char link[64], path[512] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) > 0 && strstr(path, "pipelines-")) {
        if (n_calls_left == 0)
            (void) !syscall(SYS_write, fd, data, size / 2);
        count_call();
    }
    return syscall(SYS_write, fd, data, size);
}

// ---- the cache ---------------------------------------------------------------------------------

static char folder[] = "vkmoe-kill-XXXXXX";
static char path[512]; // of the cache, once it is known
static const char old[] = "this is no pipeline cache, but it is longer than a header";

// Opens a context, makes pipelines, closes it, in a process of its own. False: it was killed.
static bool use(int n_calls)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct layer_data data;
        struct stack stack;
        vkmoe_layer_desc layer = full_layer();
        vkmoe_context_desc desc = vkmoe_context_desc_init();
        desc.device = "vulkan";
        desc.cache_dir = folder;
        n_calls_left = n_calls;
        layer_data_init(&data, &layer, 3);
        enum vkmoe_status made = stack_create(&stack, &desc, &data, 8, false);
        stack_destroy(&stack);
        _exit(made != VKMOE_OK);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGKILL);
    return WIFEXITED(status);
}

// Number of files, hidden ones too; takes the cache's path.
static int count_files(void)
{
    int n = 0;
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        bool hidden = entry->d_name[0] == '.';
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!hidden)
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        n++;
    }
    closedir(dir);
    return n;
}

static void write_old(void)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(old, 1, sizeof old, file), sizeof old);
    assert_int_equal(fclose(file), 0);
}

// Is it the new one? If not, it is the old one; anything else fails. The seal is that of
// src/vulkan/cache.c.
static bool is_new(void)
{
    static unsigned char bytes[1 << 20];
    uint64_t sum, hash = UINT64_C(0xcbf29ce484222325);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    if (size == sizeof old && memcmp(bytes, old, size) == 0)
        return false;
    assert_true(size > 16 && size < sizeof bytes);
    assert_memory_equal(bytes, "vkmoe/1", 8);
    memcpy(&sum, bytes + 8, sizeof sum);
    for (size_t i = 16; i < size; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    assert_true(sum == hash);
    return true;
}

static void killed_while_saving(void **state)
{
    (void) state;
    int n_seen[2] = {0};
    assert_true(use(-1));
    assert_int_equal(count_files(), 1);
    for (int n = 0;; n++) {
        write_old();
        bool ended = use(n);
        n_seen[is_new()]++;
        assert_in_range(count_files(), 1, 2);
        if (ended)
            break;
        assert_true(use(-1));
        assert_true(is_new());
        assert_int_equal(count_files(), 1); // no leftover
    }
    print_message("old %d, new %d\n", n_seen[0], n_seen[1]);
    assert_true(n_seen[0] >= 3 && n_seen[1] == 2); // write, fsync, rename; fsync of the folder
}

static int set_up(void **state)
{
    (void) state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void) state;
    if (*path)
        unlink(path);
    return rmdir(folder);
}

// In a process of its own, as all that uses the driver.
static bool driver_has_caches(void)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        vkmoe_context *context;
        vkmoe_context_desc desc = vkmoe_context_desc_init();
        desc.device = "vulkan";
        desc.cache_dir = "";
        bool opened = vkmoe_context_create(&desc, &context) == VKMOE_OK;
        _exit(opened && !host_driver_has_caches(context) ? 77 : 0);
    }
    return waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 77;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(killed_while_saving)};
    if (!driver_has_caches()) {
        puts("this driver has no caches");
        return 77;
    }
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
