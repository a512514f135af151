// SPDX-License-Identifier: MIT
// Frequencies of processors and energy of their packages.
#include "sensor_source.h"

#include "places.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define CPU_FOLDER "/sys/devices/system/cpu"

static int descending(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x < y) - (x > y);
}

// Mean of as many fastest as there are threads: the others idle.
static double mean_of_fastest(double *mhz, uint32_t n, uint32_t n_threads)
{
    double sum = 0;
    qsort(mhz, n, sizeof *mhz, descending);
    if (n_threads > 0 && n_threads < n)
        n = n_threads;
    for (uint32_t i = 0; i < n; i++)
        sum += mhz[i] / n;
    return n > 0 ? sum : NAN;
}

static double cpufreq_clock(struct bench_source *source)
{
    double mhz[BENCH_MAX_PROCESSORS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < source->n_processors; i++) {
        char path[96];
        snprintf(path, sizeof path, CPU_FOLDER "/cpu%u/cpufreq/scaling_cur_freq",
                 (unsigned) source->processors[i]);
        mhz[n] = bench_read_number(source->root, path, 1e-3);
        n += mhz[n] > 0;
    }
    return mean_of_fastest(mhz, n, source->n_threads);
}

static double cpuinfo_clock(struct bench_source *source)
{
    double mhz[BENCH_MAX_PROCESSORS];
    uint32_t n = 0;
    char line[256];
    FILE *file = bench_open_text(source->root, "/proc/cpuinfo");
    while (file && n < BENCH_MAX_PROCESSORS && fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "cpu MHz", 7) != 0 || !value)
            continue;
        mhz[n] = strtod(value + 1, NULL);
        n += mhz[n] > 0;
    }
    if (file)
        fclose(file);
    return mean_of_fastest(mhz, n, source->n_threads);
}

// Packages are numbered from 0; between them there may be other domains.
static double rapl_energy(struct bench_source *source)
{
    double sum = 0;
    uint32_t n = 0;
    for (unsigned i = 0; i < BENCH_MAX_PACKAGES; i++) {
        char path[96], name[32];
        snprintf(path, sizeof path, "/sys/class/powercap/intel-rapl:%u/name", i);
        if (!bench_read_text(source->root, path, name, sizeof name) ||
            strncmp(name, "package", 7) != 0)
            continue;
        snprintf(path, sizeof path, "/sys/class/powercap/intel-rapl:%u/energy_uj", i);
        sum += bench_read_number(source->root, path, 1e-6);
        n++;
    }
    return n > 0 ? sum : NAN;
}

static void list_processors(struct bench_source *source)
{
    char folder[256];
    snprintf(folder, sizeof folder, "%s" CPU_FOLDER, source->root);
    DIR *list = opendir(folder);
    struct dirent *entry;
    while (list && (entry = readdir(list)) && source->n_processors < BENCH_MAX_PROCESSORS) {
        char *end;
        unsigned long number = strncmp(entry->d_name, "cpu", 3) ? 0 :
                               strtoul(entry->d_name + 3, &end, 10);
        if (strncmp(entry->d_name, "cpu", 3) == 0 && end != entry->d_name + 3 && !*end)
            source->processors[source->n_processors++] = (uint32_t) number;
    }
    if (list)
        closedir(list);
}

void bench_source_cpu(struct bench_source *source)
{
    list_processors(source);
    if (!isnan(cpufreq_clock(source))) {
        source->clock = cpufreq_clock;
        source->clock_name = "cpufreq";
    } else if (!isnan(cpuinfo_clock(source))) {
        source->clock = cpuinfo_clock;
        source->clock_name = "cpuinfo";
    }
    if (!isnan(rapl_energy(source))) {
        source->energy = rapl_energy;
        source->power_name = "rapl";
    }
}
