// SPDX-License-Identifier: MIT
// Clock and power of made-up machines: a tree in place of /sys and /proc, and a library in place of
// NVIDIA's, whose path is the argument.
#include "check.h"

#include "bench/sensor.h"
#include "tree.h"

#include <stdio.h>
#include <time.h>

static const char *nvml;

#define PCI "/sys/bus/pci/devices/0000:03:00.0"
#define CPU "/sys/devices/system/cpu"

static struct bench_sensor *open_sensor(enum vkmoe_device_type type, const char *pci,
                                        uint32_t vendor, uint32_t n_threads)
{
    vkmoe_device_info info = {.type = type, .vendor_id = vendor};
    snprintf(info.pci, sizeof info.pci, "%s", pci);
    struct bench_sensor *sensor =
        bench_sensor_open(&info, n_threads, (struct bench_places){tree_root(), nvml});
    assert_non_null(sensor);
    return sensor;
}

static void work_for(struct bench_sensor *sensor, long ms)
{
    struct timespec time = {.tv_nsec = ms * 1000000};
    bench_sensor_begin(sensor);
    nanosleep(&time, NULL);
    bench_sensor_end(sensor);
}

// Until a GPU's thread has read something, which it does every 10 ms when it gets a processor.
static void work(struct bench_sensor *sensor)
{
    struct bench_clocks clocks = {.clock_mhz = NAN, .power_w = NAN};
    for (int i = 0; i < 100 && isnan(clocks.clock_mhz) && isnan(clocks.power_w); i++) {
        work_for(sensor, 35);
        clocks = bench_sensor_sum_up(sensor);
    }
}

static void check_clocks(const struct bench_sensor *sensor, double mhz, double least,
                         const char *clock_source, double watts, const char *power_source)
{
    struct bench_clocks clocks = bench_sensor_sum_up(sensor);
    if (isnan(mhz))
        assert_true(isnan(clocks.clock_mhz) && isnan(clocks.clock_min_mhz));
    else {
        check_near(clocks.clock_mhz, mhz, 1e-6);
        check_near(clocks.clock_min_mhz, least, 1e-6);
    }
    if (isnan(watts))
        assert_true(isnan(clocks.power_w));
    else
        check_near(clocks.power_w, watts, 1e-6);
    assert_string_equal(clocks.clock_source, clock_source);
    assert_string_equal(clocks.power_source, power_source);
}

static void amdgpu(void **state)
{
    (void) state;
    tree_write(PCI "/hwmon/hwmon3/freq1_input", "2410000000\n");
    tree_write(PCI "/hwmon/hwmon3/power1_average", "187000000\n");
    struct bench_sensor *sensor = open_sensor(VKMOE_DEVICE_DISCRETE, "0000:03:00.0", 0x1002, 0);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    work(sensor);
    check_clocks(sensor, 2410, 2410, "hwmon", 187, "hwmon");
    // Another case does not see what was read before.
    bench_sensor_reset(sensor);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    tree_write(PCI "/hwmon/hwmon3/freq1_input", "1200000000\n");
    work(sensor);
    check_clocks(sensor, 1200, 1200, "hwmon", 187, "hwmon");
    tree_write(PCI "/hwmon/hwmon3/freq1_input", "800000000\n");
    struct bench_clocks clocks = bench_sensor_sum_up(sensor);
    for (int i = 0; i < 100 && clocks.clock_min_mhz > 800; i++) {
        work_for(sensor, 35);
        clocks = bench_sensor_sum_up(sensor);
    }
    check_near(clocks.clock_min_mhz, 800, 1e-6);
    assert_true(clocks.clock_mhz >= 800 && clocks.clock_mhz <= 1200);
    bench_sensor_close(sensor);
    // An older kernel has the power of now instead; another card has neither.
    tree_remove(PCI "/hwmon/hwmon3/power1_average");
    tree_write(PCI "/hwmon/hwmon3/power1_input", "99500000\n");
    sensor = open_sensor(VKMOE_DEVICE_DISCRETE, "0000:03:00.0", 0x1002, 0);
    work(sensor);
    check_clocks(sensor, 800, 800, "hwmon", 99.5, "hwmon");
    bench_sensor_close(sensor);
    sensor = open_sensor(VKMOE_DEVICE_DISCRETE, "0000:04:00.0", 0x1002, 0);
    work_for(sensor, 35);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    bench_sensor_close(sensor);
}

static void check_gt(const char *path, const char *text, double mhz)
{
    tree_write(path, text);
    struct bench_sensor *sensor = open_sensor(VKMOE_DEVICE_INTEGRATED, "0000:03:00.0", 0x8086, 0);
    work(sensor);
    check_clocks(sensor, mhz, mhz, "gt", NAN, "");
    bench_sensor_close(sensor);
    tree_remove(path);
}

static void intel(void **state)
{
    (void) state;
    check_gt(PCI "/drm/card1/gt_act_freq_mhz", "1150\n", 1150);
    check_gt(PCI "/drm/card1/gt/gt0/rps_act_freq_mhz", "1250\n", 1250);
    check_gt(PCI "/tile0/gt0/freq0/act_freq", "2050\n", 2050);
    // What is not a number is not read as one.
    tree_write(PCI "/tile0/gt0/freq0/act_freq", "none\n");
    struct bench_sensor *sensor = open_sensor(VKMOE_DEVICE_INTEGRATED, "0000:03:00.0", 0x8086, 0);
    work_for(sensor, 35);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    bench_sensor_close(sensor);
}

// Power is energy over time: 3 J in some 30 ms are below 100 W and above 30.
static void intel_energy(void **state)
{
    (void) state;
    tree_write(PCI "/hwmon/hwmon0/energy1_input", "5000000\n");
    struct bench_sensor *sensor = open_sensor(VKMOE_DEVICE_DISCRETE, "0000:03:00.0", 0x8086, 0);
    struct timespec time = {.tv_nsec = 30000000};
    bench_sensor_begin(sensor);
    nanosleep(&time, NULL);
    tree_write(PCI "/hwmon/hwmon0/energy1_input", "8000000\n");
    bench_sensor_end(sensor);
    struct bench_clocks clocks = bench_sensor_sum_up(sensor);
    assert_true(clocks.power_w <= 100 && clocks.power_w > 3);
    assert_string_equal(clocks.power_source, "hwmon");
    // A counter that began anew does not count.
    bench_sensor_reset(sensor);
    bench_sensor_begin(sensor);
    tree_write(PCI "/hwmon/hwmon0/energy1_input", "1000\n");
    bench_sensor_end(sensor);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    bench_sensor_close(sensor);
}

static void nvidia(void **state)
{
    (void) state;
    if (!nvml)
        skip();
    struct bench_sensor *sensor = open_sensor(VKMOE_DEVICE_DISCRETE, "0000:65:00.0", 0x10de, 0);
    work(sensor);
    struct bench_clocks clocks = bench_sensor_sum_up(sensor);
    check_near(clocks.clock_min_mhz, 1501, 0); // the first question was asked by open
    assert_true(clocks.clock_mhz >= 1501 && clocks.clock_mhz < 1550);
    check_near(clocks.power_w, 212.5, 1e-9);
    assert_string_equal(clocks.clock_source, "nvml");
    assert_string_equal(clocks.power_source, "nvml");
    bench_sensor_close(sensor);
    // Another card, another vendor, no library.
    sensor = open_sensor(VKMOE_DEVICE_DISCRETE, "0000:66:00.0", 0x10de, 0);
    work_for(sensor, 35);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    bench_sensor_close(sensor);
    sensor = open_sensor(VKMOE_DEVICE_DISCRETE, "0000:65:00.0", 0x1002, 0);
    work_for(sensor, 35);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    bench_sensor_close(sensor);
    const char *there = nvml;
    nvml = "no-such-library.so.1";
    sensor = open_sensor(VKMOE_DEVICE_DISCRETE, "0000:65:00.0", 0x10de, 0);
    nvml = there;
    work_for(sensor, 35);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    bench_sensor_close(sensor);
}

static void cpu(void **state)
{
    (void) state;
    tree_write("/proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 3593.25\n\nprocessor\t: 1\n"
                                "cpu MHz\t\t: 2400.75\n");
    struct bench_sensor *sensor = open_sensor(VKMOE_DEVICE_CPU, "", 0, 2);
    work_for(sensor, 0);
    check_clocks(sensor, 2997, 2997, "cpuinfo", NAN, "");
    bench_sensor_close(sensor);
    // The kernel's own word goes before it. Two threads: the two fastest; of a software device all.
    tree_write(CPU "/cpu0/cpufreq/scaling_cur_freq", "4200000\n");
    tree_write(CPU "/cpu1/cpufreq/scaling_cur_freq", "800000\n");
    tree_write(CPU "/cpu2/cpufreq/scaling_cur_freq", "4000000\n");
    tree_write(CPU "/cpu3/online", "0\n");
    tree_write(CPU "/cpufreq/policy0/scaling_cur_freq", "9000000\n");
    tree_write(CPU "/cpuidle/current_driver", "none\n");
    sensor = open_sensor(VKMOE_DEVICE_CPU, "", 0, 2);
    work_for(sensor, 0);
    check_clocks(sensor, 4100, 4100, "cpufreq", NAN, "");
    bench_sensor_close(sensor);
    sensor = open_sensor(VKMOE_DEVICE_SOFTWARE, "", 0, 0);
    work_for(sensor, 0);
    check_clocks(sensor, 3000, 3000, "cpufreq", NAN, "");
    bench_sensor_close(sensor);
}

#define RAPL "/sys/class/powercap/intel-rapl:"

static void cpu_energy(void **state)
{
    (void) state;
    tree_write(RAPL "0/name", "package-0\n");
    tree_write(RAPL "0/energy_uj", "1000000\n");
    tree_write(RAPL "1/name", "psys\n"); // the whole board: not added
    tree_write(RAPL "1/energy_uj", "1000000\n");
    tree_write(RAPL "2/name", "package-1\n");
    tree_write(RAPL "2/energy_uj", "7000000\n");
    struct bench_sensor *sensor = open_sensor(VKMOE_DEVICE_CPU, "", 0, 2);
    struct timespec time = {.tv_nsec = 20000000};
    bench_sensor_begin(sensor);
    nanosleep(&time, NULL);
    tree_write(RAPL "0/energy_uj", "1400000\n");
    tree_write(RAPL "1/energy_uj", "99000000\n");
    tree_write(RAPL "2/energy_uj", "7600000\n");
    bench_sensor_end(sensor);
    struct bench_clocks clocks = bench_sensor_sum_up(sensor);
    assert_true(clocks.power_w <= 1.0 / 0.02 && clocks.power_w > 1);
    assert_string_equal(clocks.power_source, "rapl");
    bench_sensor_close(sensor);
}

static void nothing_is_told(void **state)
{
    (void) state;
    struct bench_sensor *sensor = open_sensor(VKMOE_DEVICE_CPU, "", 0, 2);
    work_for(sensor, 1);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    bench_sensor_close(sensor);
    sensor = open_sensor(VKMOE_DEVICE_DISCRETE, "", 0x1002, 0);
    work_for(sensor, 1);
    check_clocks(sensor, NAN, NAN, "", NAN, "");
    bench_sensor_begin(sensor); // closed while it works
    bench_sensor_close(sensor);
    bench_sensor_begin(NULL);
    bench_sensor_end(NULL);
    bench_sensor_reset(NULL);
    check_clocks(NULL, NAN, NAN, "", NAN, "");
    bench_sensor_close(NULL);
}

#define TREE_TEST(test) cmocka_unit_test_setup_teardown(test, tree_setup, tree_teardown)

int main(int argc, char **argv)
{
    nvml = argc > 1 ? argv[1] : NULL;
    const struct CMUnitTest tests[] = {
        TREE_TEST(amdgpu), TREE_TEST(intel),      TREE_TEST(intel_energy),
        TREE_TEST(nvidia), TREE_TEST(cpu),        TREE_TEST(cpu_energy),
        TREE_TEST(nothing_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
