// SPDX-License-Identifier: MIT
// What a result says of its machine and build.
#include "check.h"

#include "bench/host.h"
#include "tree.h"

#include <stdlib.h>
#include <unistd.h>

static void names(void **state)
{
    (void) state;
    struct bench_file file = {0};
    tree_write("/etc/os-release", "ID=made-up\nPRETTY_NAME=\"Made Up 12 (quoted)\"\n");
    tree_write("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Some CPU @ 3.00GHz\n"
                                "processor\t: 1\nmodel name\t: Other\n");
    bench_host_fill(tree_root(), &file);
    assert_string_equal(file.os, "Made Up 12 (quoted)");
    assert_string_equal(file.cpu, "Some CPU @ 3.00GHz");
    assert_string_equal(file.version, "0.1.0");
    assert_true(*file.kernel && *file.build && file.n_cores >= 1 &&
                file.n_cores <= (uint32_t) sysconf(_SC_NPROCESSORS_ONLN));
    // "2026-01-31T23:59:59Z"
    assert_int_equal(strlen(file.time_utc), 20);
    assert_true(file.time_utc[10] == 'T' && file.time_utc[19] == 'Z');
}

static void names_without_files(void **state)
{
    (void) state;
    struct bench_file file = {0};
    bench_host_fill(tree_root(), &file);
    assert_true(*file.os && *file.cpu); // the kernel's and the machine's
    tree_write("/proc/cpuinfo", "model names: no\nmodel name\t: \n");
    bench_host_fill(tree_root(), &file);
    assert_true(*file.cpu && strcmp(file.cpu, "no") != 0);
}

static void environment(void **state)
{
    (void) state;
    const char *const variables[] = {
        "VKMOE_DEVICE=cpu", "HOME=/home/somebody", "MESA_SHADER_CACHE_DIR=/home/somebody/c",
        "VK_ICD_FILENAMES=/a.json:/b.json", "LP_NUM_THREADS=2", "VK_LOADER_DEBUG=all",
        "VKMOE_CACHE_DIR=/home/somebody/d", "VK_ICD=1", "MESA_NO_VALUE", "TOKEN=VKMOE_", NULL};
    char out[512];
    bench_environment(variables, out, sizeof out);
    assert_string_equal(out, "LP_NUM_THREADS=2 VKMOE_DEVICE=cpu VK_ICD_FILENAMES=/a.json:/b.json "
                             "VK_LOADER_DEBUG=all");
    // What does not fit is left out, and what comes behind it is not.
    char small[48];
    bench_environment(variables, small, sizeof small);
    assert_string_equal(small, "LP_NUM_THREADS=2 VKMOE_DEVICE=cpu");
    const char *const none[] = {NULL};
    bench_environment(none, out, sizeof out);
    assert_string_equal(out, "");
}

static void own_environment(void **state)
{
    (void) state;
    struct bench_file file = {0};
    assert_int_equal(setenv("VKMOE_TEST_OF_HOST", "17", 1), 0);
    bench_host_fill("", &file);
    assert_non_null(strstr(file.environment, "VKMOE_TEST_OF_HOST=17"));
}

#define TREE_TEST(test) cmocka_unit_test_setup_teardown(test, tree_setup, tree_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TREE_TEST(names),
        TREE_TEST(names_without_files),
        cmocka_unit_test(environment),
        cmocka_unit_test(own_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
