// SPDX-License-Identifier: MIT
// NVIDIA's management library, if the driver brought it: found at run time, five of its functions.
#include "sensor_source.h"

#include <dlfcn.h>
#include <math.h>

enum { NVML_SUCCESS = 0, NVML_CLOCK_SM = 1 };

static double nvml_clock(struct bench_source *source)
{
    unsigned mhz;
    return source->get_clock(source->handle, NVML_CLOCK_SM, &mhz) == NVML_SUCCESS ? mhz : NAN;
}

static double nvml_power(struct bench_source *source)
{
    unsigned milliwatts;
    bool ok = source->get_power(source->handle, &milliwatts) == NVML_SUCCESS;
    return ok ? milliwatts * 1e-3 : NAN;
}

// A function of the library into a pointer of its type: a cast between the two is not C.
static bool find(void *library, const char *name, void *out)
{
    void *symbol = dlsym(library, name);
    memcpy(out, &symbol, sizeof symbol);
    return symbol != NULL;
}

static bool open_device(struct bench_source *source, const char *pci)
{
    int (*start)(void);
    int (*by_bus)(const char *pci, void **handle);
    void *library = source->library;
    if (!find(library, "nvmlInit_v2", &start) ||
        !find(library, "nvmlDeviceGetHandleByPciBusId_v2", &by_bus) ||
        !find(library, "nvmlDeviceGetClockInfo", &source->get_clock) ||
        !find(library, "nvmlDeviceGetPowerUsage", &source->get_power) ||
        !find(library, "nvmlShutdown", &source->shut_down) || start() != NVML_SUCCESS) {
        source->shut_down = NULL; // it was not started
        return false;
    }
    return by_bus(pci, &source->handle) == NVML_SUCCESS;
}

void bench_source_nvml(struct bench_source *source, const char *pci, const char *library)
{
    source->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!source->library || !open_device(source, pci))
        return;
    if (!isnan(nvml_clock(source))) {
        source->clock = nvml_clock;
        source->clock_name = "nvml";
    }
    if (!isnan(nvml_power(source))) {
        source->power = nvml_power;
        source->power_name = "nvml";
    }
}

void bench_source_finish(struct bench_source *source)
{
    if (source->shut_down)
        source->shut_down();
    if (source->library)
        dlclose(source->library);
}
