// SPDX-License-Identifier: MIT
// Stands for NVIDIA's management library: one GPU, whose clock counts up with each question.
#include <string.h>

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **handle);
int nvmlDeviceGetClockInfo(void *handle, int domain, unsigned *mhz);
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts);

static unsigned n_questions;

int nvmlInit_v2(void)
{
    n_questions = 0;
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, void **handle)
{
    *handle = &n_questions;
    return strcmp(pci, "0000:65:00.0") == 0 ? 0 : 6; // NVML_ERROR_NOT_FOUND
}

int nvmlDeviceGetClockInfo(void *handle, int domain, unsigned *mhz)
{
    *mhz = 1500 + n_questions++;
    return handle == &n_questions && domain == 1 ? 0 : 2; // NVML_ERROR_INVALID_ARGUMENT
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts)
{
    *milliwatts = 212500;
    return handle == &n_questions ? 0 : 2;
}
