// SPDX-License-Identifier: MIT
// Listing and choosing over invented back ends, which this program puts in place of the library's
// own list: many devices, a driver that fails, and who is asked at all.
#include "check.h"

#include "api/devices.h"
#include "base/host.h"
#include "base/status.h"

#include <stdio.h>

enum { N_GPUS = 20 };

static uint32_t n_asked_gpus, n_asked_broken, n_asked_cpu;
static enum vkmoe_status broken_status;
static char last_log[256];

static enum vkmoe_status list_gpus(const vkmoe_host *host, vkmoe_device_info *out, uint32_t *n)
{
    (void) host;
    uint32_t room = *n;
    *n = N_GPUS;
    n_asked_gpus++;
    for (uint32_t i = 0; i < N_GPUS && i < room; i++) {
        out[i].type = i == 17 ? VKMOE_DEVICE_DISCRETE : VKMOE_DEVICE_INTEGRATED;
        snprintf(out[i].name, sizeof out[i].name, "gpu number %u.", i);
    }
    return VKMOE_OK;
}

static enum vkmoe_status list_broken(const vkmoe_host *host, vkmoe_device_info *out, uint32_t *n)
{
    (void) host, (void) out;
    *n = 0;
    n_asked_broken++;
    return broken_status == VKMOE_OK ? VKMOE_OK : moe_fail(broken_status, "the driver is upset");
}

static enum vkmoe_status list_cpu(const vkmoe_host *host, vkmoe_device_info *out, uint32_t *n)
{
    (void) host;
    n_asked_cpu++;
    *n = 1;
    out->type = VKMOE_DEVICE_CPU;
    snprintf(out->name, sizeof out->name, "the processor");
    return VKMOE_OK;
}

static const struct moe_backend vulkan = {.name = "vulkan", .enumerate = list_gpus};
static const struct moe_backend broken = {.name = "broken", .enumerate = list_broken};
static const struct moe_backend cpu = {.name = "cpu", .enumerate = list_cpu};
static const struct moe_backend reference = {.name = "reference"};

const struct moe_backend *const moe_backends[] = {&vulkan, &broken, &cpu, &reference, NULL};

static void keep_log(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user;
    snprintf(last_log, sizeof last_log, "%d %s", (int) level, text);
}

static int set_up(void **state)
{
    (void) state;
    n_asked_gpus = n_asked_broken = n_asked_cpu = 0;
    broken_status = VKMOE_OK;
    *last_log = '\0';
    return 0;
}

static void make_host(vkmoe_host *host)
{
    vkmoe_host ours = vkmoe_host_init();
    ours.log = keep_log;
    check_ok(moe_host_init(host, &ours));
}

static void test_all_are_listed(void **state)
{
    (void) state;
    vkmoe_device_info infos[N_GPUS + 1];
    uint32_t n = N_GPUS + 1;
    check_ok(vkmoe_device_list(infos, &n));
    assert_int_equal(n, N_GPUS + 1);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(infos[i].index, i);
    assert_string_equal(infos[19].name, "gpu number 19.");
    assert_string_equal(infos[20].name, "the processor");
}

static void test_choice(void **state)
{
    (void) state;
    static const struct {
        const char *spec;
        const struct moe_backend *backend;
        uint32_t i;
    } cases[] = {
        {"auto", &vulkan, 17},  {"vulkan", &vulkan, 0},     {"number 5.", &vulkan, 5},
        {"20", &cpu, 0},        {"processor", &cpu, 0},     {"19", &vulkan, 19},
        {"cpu", &cpu, 0},       {"reference", &reference, 0}, {"REFERENCE", &reference, 0},
    };
    vkmoe_host host;
    make_host(&host);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const struct moe_backend *backend = NULL;
        uint32_t i = 77;
        check_ok(moe_device_choose(&host, cases[c].spec, &backend, &i));
        assert_ptr_equal(backend, cases[c].backend);
        assert_int_equal(i, cases[c].i);
    }
}

// Starting Vulkan takes longer than a small layer on the CPU.
static void test_only_who_is_needed_is_asked(void **state)
{
    (void) state;
    vkmoe_host host;
    const struct moe_backend *backend;
    uint32_t i;
    make_host(&host);
    check_ok(moe_device_choose(&host, "cpu", &backend, &i));
    assert_true(n_asked_gpus == 0 && n_asked_broken == 0 && n_asked_cpu == 1);
    check_ok(moe_device_choose(&host, "reference", &backend, &i));
    assert_true(n_asked_gpus == 0 && n_asked_broken == 0 && n_asked_cpu == 1);
    check_ok(moe_device_choose(&host, "vulkan", &backend, &i));
    assert_true(n_asked_gpus > 0 && n_asked_broken == 0 && n_asked_cpu == 1);
}

static void test_a_driver_that_fails(void **state)
{
    (void) state;
    vkmoe_host host;
    const struct moe_backend *backend;
    uint32_t i, n = 0;
    make_host(&host);
    broken_status = VKMOE_E_DEVICE;
    check_ok(moe_device_choose(&host, "processor", &backend, &i));
    assert_ptr_equal(backend, &cpu);
    assert_string_equal(last_log, "2 no broken devices: the driver is upset");
    check_ok(vkmoe_device_list(NULL, &n));
    assert_int_equal(n, N_GPUS + 1);
    check_fails(moe_device_choose(&host, "broken", &backend, &i), VKMOE_E_DEVICE, "upset");
    broken_status = VKMOE_E_MEMORY;
    check_fails(vkmoe_device_list(NULL, &n), VKMOE_E_MEMORY, "upset");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_all_are_listed, set_up),
        cmocka_unit_test_setup(test_choice, set_up),
        cmocka_unit_test_setup(test_only_who_is_needed_is_asked, set_up),
        cmocka_unit_test_setup(test_a_driver_that_fails, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
