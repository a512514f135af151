// SPDX-License-Identifier: MIT
// What kernel drivers tell of a GPU in /sys.
//   amdgpu: hwmon freq1_input (Hz, of the shader clock), power1_average or power1_input (uW)
//   i915:   gt/gt0/rps_act_freq_mhz or gt_act_freq_mhz of drm/cardN; hwmon energy1_input (uJ)
//   xe:     tile0/gt0/freq0/act_freq (MHz); hwmon energy1_input (uJ)
// Documentation/gpu/amdgpu/thermal.rst, Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon and
// sysfs-driver-intel-xe-hwmon of the Linux kernel.
#include "sensor_source.h"

#include "places.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>

// The first entry of a folder that begins with `prefix`, as a path below the root.
static bool find_entry(const char *root, const char *folder, const char *prefix, char *out,
                       size_t size)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, folder);
    DIR *list = opendir(full);
    struct dirent *entry;
    bool found = false;
    while (list && !found && (entry = readdir(list)))
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0) {
            int n = snprintf(out, size, "%s/%s", folder, entry->d_name);
            found = n > 0 && (size_t) n < size;
        }
    if (list)
        closedir(list);
    return found;
}

// Keeps folder/name in `out` if there is a number in it now.
static bool take(const char *root, const char *folder, const char *name, char *out, size_t size)
{
    int n = snprintf(out, size, "%s/%s", folder, name);
    return n > 0 && (size_t) n < size && !isnan(bench_read_number(root, out, 1));
}

static double hz_clock(struct bench_source *source)
{
    return bench_read_number(source->root, source->clock_path, 1e-6);
}

static double mhz_clock(struct bench_source *source)
{
    return bench_read_number(source->root, source->clock_path, 1);
}

static double power(struct bench_source *source)
{
    return bench_read_number(source->root, source->power_path, 1e-6);
}

static double energy(struct bench_source *source)
{
    return bench_read_number(source->root, source->energy_path, 1e-6);
}

static void take_hwmon(struct bench_source *source, const char *folder)
{
    const char *root = source->root;
    if (take(root, folder, "freq1_input", source->clock_path, sizeof source->clock_path)) {
        source->clock = hz_clock;
        source->clock_name = "hwmon";
    }
    const size_t size = sizeof source->power_path;
    if (take(root, folder, "power1_average", source->power_path, size) ||
        take(root, folder, "power1_input", source->power_path, size)) {
        source->power = power;
        source->power_name = "hwmon";
    } else if (take(root, folder, "energy1_input", source->energy_path, size)) {
        source->energy = energy;
        source->power_name = "hwmon";
    }
}

static void take_gt(struct bench_source *source, const char *device, const char *card)
{
    const size_t size = sizeof source->clock_path;
    if (take(source->root, device, "tile0/gt0/freq0/act_freq", source->clock_path, size) ||
        (*card &&
         (take(source->root, card, "gt/gt0/rps_act_freq_mhz", source->clock_path, size) ||
          take(source->root, card, "gt_act_freq_mhz", source->clock_path, size)))) {
        source->clock = mhz_clock;
        source->clock_name = "gt";
    }
}

void bench_source_pci(struct bench_source *source, const char *pci)
{
    char device[64], folder[96], hwmon[192], card[192] = "";
    snprintf(device, sizeof device, "/sys/bus/pci/devices/%.16s", pci);
    snprintf(folder, sizeof folder, "%s/hwmon", device);
    if (find_entry(source->root, folder, "hwmon", hwmon, sizeof hwmon))
        take_hwmon(source, hwmon);
    snprintf(folder, sizeof folder, "%s/drm", device);
    find_entry(source->root, folder, "card", card, sizeof card);
    if (!source->clock)
        take_gt(source, device, card);
}
