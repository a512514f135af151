// SPDX-License-Identifier: MIT
// Which device a text means, on an invented machine; and the environment's part in it.
#include "check.h"

#include "api/devices.h"
#include "api/env.h"

#include <stdio.h>
#include <stdlib.h>

static struct moe_device_entry machine[6];
static struct moe_device_list list = {machine, 6};

static void add(uint32_t i, enum vkmoe_device_type type, const char *name, const char *uuid,
                uint32_t vendor_id, uint32_t device_id)
{
    vkmoe_device_info *info = &machine[i].info;
    machine[i].i = i;
    *info = (vkmoe_device_info){.index = i, .type = type, .vendor_id = vendor_id,
                                .device_id = device_id};
    snprintf(info->name, sizeof info->name, "%s", name);
    snprintf(info->uuid, sizeof info->uuid, "%s", uuid);
}

static int set_up(void **state)
{
    (void) state;
    add(0, VKMOE_DEVICE_SOFTWARE, "llvmpipe (LLVM 15.0.6)", "6d657361000000000000000000000000",
        0x10005, 0);
    add(1, VKMOE_DEVICE_INTEGRATED, "Intel UHD 770", "86800046000000000000000000000000", 0x8086,
        0x4680);
    add(2, VKMOE_DEVICE_DISCRETE, "Radeon RX 6600", "00000000030000000000000000000000", 0x1002,
        0x73ff);
    add(3, VKMOE_DEVICE_DISCRETE, "Radeon RX 6600 XT", "00000000040000000000000000000000", 0x1002,
        0x73ff);
    add(4, VKMOE_DEVICE_INTEGRATED, "Quoted 6d65 Thing", "abcd0000000000000000000000000000", 0x106b,
        0x0001);
    add(5, VKMOE_DEVICE_CPU, "Imaginary CPU", "", 0, 0);
    return 0;
}

static void check_finds(const char *spec, uint32_t want)
{
    const struct moe_device_entry *entry = NULL;
    enum vkmoe_status status = moe_device_find(&list, spec, &entry);
    if (status != VKMOE_OK)
        fail_msg("\"%s\": %s", spec, vkmoe_error_text());
    if (entry != &machine[want])
        fail_msg("\"%s\" finds %s", spec, entry->info.name);
}

static void test_names(void **state)
{
    (void) state;
    check_finds("cpu", 5);
    check_finds("CPU", 5);
    check_finds("vulkan", 0);
    check_finds("0", 0);
    check_finds("5", 5);
    check_finds("llvm", 0);
    check_finds("uhd", 1);
    check_finds("6600 xt", 3);
    check_finds("Imaginary", 5);
    check_finds("8086:4680", 1);
    check_finds("106B:0001", 4);
    check_finds("8680", 1);             // a UUID prefix, not an index
    check_finds("0000000004", 3);
    check_finds("ABCD0000", 4);
    check_finds("6d65", 0);             // a UUID prefix goes before a part of a name
    check_finds("6600 ", 3);
}

static void test_auto(void **state)
{
    (void) state;
    check_finds("auto", 2); // the first discrete one
    machine[2].info.type = machine[3].info.type = VKMOE_DEVICE_SOFTWARE;
    check_finds("auto", 1);
    machine[1].info.type = machine[4].info.type = VKMOE_DEVICE_SOFTWARE;
    check_finds("auto", 5); // never a software Vulkan device
    list.n = 5;
    const struct moe_device_entry *entry;
    check_fails(moe_device_find(&list, "auto", &entry), VKMOE_E_NO_DEVICE, "0 llvmpipe");
    check_fails(moe_device_find(&list, "cpu", &entry), VKMOE_E_NO_DEVICE, "there is none");
    list.n = 6;
    set_up(NULL);
}

static void test_no_match(void **state)
{
    (void) state;
    const struct moe_device_entry *entry;
    static const char *const wrong[] = {"6", "999", "geforce", "1002:73fe", "868", "abce", "-1",
                                        "1002:73ff0", "0x0", ""};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        check_fails(moe_device_find(&list, wrong[i], &entry), VKMOE_E_NO_DEVICE, "5 Imaginary CPU");
        char quoted[32];
        snprintf(quoted, sizeof quoted, "device \"%s\":", wrong[i]);
        assert_non_null(strstr(vkmoe_error_text(), quoted));
    }
    check_fails(moe_device_find(&list, "1002:73ff", &entry), VKMOE_E_NO_DEVICE, "more than one");
    check_fails(moe_device_find(&list, "radeon", &entry), VKMOE_E_NO_DEVICE, "more than one");
    check_fails(moe_device_find(&list, "00000000", &entry), VKMOE_E_NO_DEVICE, "more than one");
    struct moe_device_list nothing = {0};
    check_fails(moe_device_find(&nothing, "auto", &entry), VKMOE_E_NO_DEVICE, "there are: none");
}

// The list of this machine ends with the CPU and numbers its entries.
static void test_this_machine(void **state)
{
    (void) state;
    uint32_t n = 0, room;
    check_ok(vkmoe_device_list(NULL, &n));
    assert_true(n >= 1);
    vkmoe_device_info *infos = calloc(n + 1, sizeof *infos);
    infos[n].index = infos[n - 1].index = 77;
    room = n - 1;
    check_ok(vkmoe_device_list(infos, &room));
    assert_int_equal(room, n);
    assert_int_equal(infos[n - 1].index, 77);
    room = n + 1;
    check_ok(vkmoe_device_list(infos, &room));
    assert_int_equal(infos[n].index, 77);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(infos[i].index, i);
        assert_true(strlen(infos[i].name) > 0);
        assert_int_equal(infos[i].type == VKMOE_DEVICE_CPU, i == n - 1);
    }
    free(infos);
    check_fails(vkmoe_device_list(NULL, NULL), VKMOE_E_ARGUMENT, "n is NULL");
}

static void test_environment(void **state)
{
    (void) state;
    vkmoe_context *context;
    vkmoe_device_info info;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    setenv("VKMOE_DEVICE", "reference", 1);
    check_ok(vkmoe_context_create(NULL, &context));
    check_ok(vkmoe_context_info(context, &info));
    assert_int_equal(info.type, VKMOE_DEVICE_REFERENCE);
    vkmoe_context_destroy(context);

    desc.device = "cpu"; // what the caller says goes first
    check_ok(vkmoe_context_create(&desc, &context));
    check_ok(vkmoe_context_info(context, &info));
    assert_int_equal(info.type, VKMOE_DEVICE_CPU);
    vkmoe_context_destroy(context);

    setenv("VKMOE_DEVICE", "no such thing", 1);
    check_fails(vkmoe_context_create(NULL, &context), VKMOE_E_NO_DEVICE, "\"no such thing\"");
    assert_null(context);
    setenv("VKMOE_CPU_ISA", "scalar", 1);
    check_ok(vkmoe_context_create(&desc, &context));
    check_ok(vkmoe_context_info(context, &info));
    assert_string_equal(info.tier, "scalar");
    vkmoe_context_destroy(context);

    struct moe_env env;
    setenv("HOME", "/home/u", 1);
    unsetenv("XDG_CACHE_HOME");
    unsetenv("VKMOE_CACHE_DIR");
    unsetenv("VKMOE_DEVICE");
    setenv("VKMOE_CPU_ISA", "", 1);
    moe_env_read(&env);
    assert_string_equal(env.device, "auto");
    assert_string_equal(env.cpu_isa, "");
    assert_string_equal(env.cache_dir, "/home/u/.cache/vkmoe");
    setenv("XDG_CACHE_HOME", "/cache", 1);
    moe_env_read(&env);
    assert_string_equal(env.cache_dir, "/cache/vkmoe");
    setenv("VKMOE_CACHE_DIR", "/elsewhere", 1);
    moe_env_read(&env);
    assert_string_equal(env.cache_dir, "/elsewhere");
    char path[5000];
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    setenv("VKMOE_CACHE_DIR", path, 1);
    moe_env_read(&env);
    assert_string_equal(env.cache_dir, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_no_match),     cmocka_unit_test(test_this_machine),
        cmocka_unit_test(test_environment),
    };
    return cmocka_run_group_tests(tests, set_up, NULL) != 0;
}
