// SPDX-License-Identifier: MIT
#include "cpu/topology.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

// First line of a small system file; false if there is none.
static bool read_line(const char *path, char *out, int size)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool ok = fgets(out, size, file) != NULL;
    fclose(file);
    return ok;
}

#ifdef __linux__
// Removes from `set` every processor of a list such as "0,64" or "2-3".
static void remove_listed(cpu_set_t *set, const char *list)
{
    while (*list >= '0' && *list <= '9') {
        char *end;
        unsigned long first = strtoul(list, &end, 10), last = first;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (unsigned long i = first; i <= last && i < CPU_SETSIZE; i++)
            CPU_CLR(i, set);
        list = *end == ',' ? end + 1 : end;
    }
}

// Processors that share a core are listed as each other's siblings.
static uint32_t count_cores(cpu_set_t set)
{
    uint32_t n = 0;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        char path[96], list[256];
        if (!CPU_ISSET(i, &set))
            continue;
        n++;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 i);
        if (read_line(path, list, sizeof list))
            remove_listed(&set, list);
    }
    return n;
}

// The cache of the highest level that processor `cpu` has: its bytes, and who shares it.
static uint64_t last_cache(int cpu, char *shared, int shared_size)
{
    uint64_t bytes = 0;
    unsigned long highest = 0;
    for (uint32_t i = 0; i < 8; i++) {
        char path[96], text[32], *unit;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%u/level", cpu, i);
        if (!read_line(path, text, sizeof text))
            break;
        unsigned long level = strtoul(text, NULL, 10);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%u/size", cpu, i);
        if (level <= highest || !read_line(path, text, sizeof text))
            continue;
        highest = level;
        bytes = strtoul(text, &unit, 10);
        bytes <<= *unit == 'K' ? 10 : *unit == 'M' ? 20 : 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%u/shared_cpu_list",
                 cpu, i);
        if (!read_line(path, shared, shared_size))
            shared[0] = '\0';
    }
    return bytes;
}
#endif

uint64_t moe_cpu_cache_size(void)
{
    uint64_t sum = 0;
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 0;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        char shared[256] = "";
        if (!CPU_ISSET(i, &set))
            continue;
        sum += last_cache(i, shared, sizeof shared);
        remove_listed(&set, shared);
    }
#endif
    return sum;
}

uint32_t moe_cpu_core_count(void)
{
#ifdef __linux__
    cpu_set_t set;
    char smt[8];
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        bool one_each = read_line("/sys/devices/system/cpu/smt/active", smt, sizeof smt) &&
                        smt[0] == '0';
        return one_each ? (uint32_t) CPU_COUNT(&set) : count_cores(set);
    }
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t) n : 1;
}

#if defined(__x86_64__) || defined(__i386__)
static bool brand(char *out, size_t size)
{
    char text[49] = {0};
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t part[4];
        if (!__get_cpuid(0x80000002u + i, &part[0], &part[1], &part[2], &part[3]))
            return false;
        memcpy(text + 16 * i, part, sizeof part);
    }
    const char *start = text + strspn(text, " ");
    size_t length = strlen(start);
    while (length > 0 && start[length - 1] == ' ')
        length--;
    snprintf(out, size, "%.*s", (int) length, start);
    return length > 0;
}
#else
static bool brand(char *out, size_t size)
{
    (void) out;
    (void) size;
    return false;
}
#endif

void moe_cpu_name(char *out, size_t size)
{
    struct utsname system;
    if (!brand(out, size))
        snprintf(out, size, "%s CPU", uname(&system) == 0 ? system.machine : "unknown");
}

uint64_t moe_cpu_memory_bytes(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page_size = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_size > 0 ? (uint64_t) pages * (uint64_t) page_size : 0;
}
