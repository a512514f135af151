// SPDX-License-Identifier: MIT
#include "host.h"

#include "bench_commit.h"
#include "places.h"

#include <stdio.h>
#include <sys/utsname.h>
#include <time.h>

extern char **environ;

// Physical cores that this process may run on, as the library counts them.
static uint32_t count_cores(void)
{
    vkmoe_context *context = NULL;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "cpu";
    enum vkmoe_status status = vkmoe_context_create(&desc, &context);
    uint32_t n = status == VKMOE_OK ? vkmoe_context_thread_count(context) : 0;
    vkmoe_context_destroy(context);
    return n;
}

// ---- environment -------------------------------------------------------------------------------

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static bool is_wanted(const char *variable)
{
    static const char *const whole[] = {"VK_DRIVER_FILES=", "VK_ADD_DRIVER_FILES=",
                                        "VK_ICD_FILENAMES=", "VK_INSTANCE_LAYERS=", "DRI_PRIME=",
                                        "NODEVICE_SELECT="};
    static const char *const families[] = {"VK_LOADER_", "MESA_", "LP_", "VKMOE_"};
    const char *end = strchr(variable, '=');
    if (!end || (end - variable >= 4 && begins(end - 4, "_DIR=")))
        return false;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (begins(variable, whole[i]))
            return true;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (begins(variable, families[i]))
            return true;
    return false;
}

// The first one wanted behind `after` in the alphabet; NULL: none.
static const char *next_wanted(const char *const *environment, const char *after)
{
    const char *next = NULL;
    for (; *environment; environment++)
        if (is_wanted(*environment) && strcmp(*environment, after) > 0 &&
            (!next || strcmp(*environment, next) < 0))
            next = *environment;
    return next;
}

void bench_environment(const char *const *environment, char *out, size_t size)
{
    size_t used = 0;
    *out = '\0';
    for (const char *next = ""; (next = next_wanted(environment, next)) != NULL;) {
        size_t needed = strlen(next) + (used > 0);
        if (used + needed >= size)
            continue;
        snprintf(out + used, size - used, "%s%s", used ? " " : "", next);
        used += needed;
    }
}

// ---- names -------------------------------------------------------------------------------------

// The value of the first line "key<sep>value" of a file, without quotes; "" if there is none.
static void find_value(const char *root, const char *path, const char *key, char sep, char *out,
                       size_t size)
{
    char line[512];
    size_t n_key = strlen(key);
    FILE *file = bench_open_text(root, path);
    *out = '\0';
    while (file && !*out && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        const char *value = strchr(line, sep);
        if (strncmp(line, key, n_key) != 0 || !value || line[n_key + strspn(line + n_key, " \t")] !=
            sep)
            continue;
        value += 1 + strspn(value + 1, " \t\"");
        snprintf(out, size, "%.*s", (int) strcspn(value, "\""), value);
    }
    if (file)
        fclose(file);
}

static void fill_names(const char *root, struct bench_file *file)
{
    struct utsname system;
    bool known = uname(&system) == 0;
    find_value(root, "/etc/os-release", "PRETTY_NAME", '=', file->os, sizeof file->os);
    find_value(root, "/proc/cpuinfo", "model name", ':', file->cpu, sizeof file->cpu);
    if (!*file->os && known)
        snprintf(file->os, sizeof file->os, "%s", system.sysname);
    if (!*file->cpu && known)
        snprintf(file->cpu, sizeof file->cpu, "%s", system.machine);
    if (known)
        snprintf(file->kernel, sizeof file->kernel, "%.40s %.60s %.20s", system.sysname,
                 system.release, system.machine);
}

void bench_host_fill(const char *root, struct bench_file *file)
{
    uint32_t version = vkmoe_version();
    time_t now = time(NULL);
    struct tm utc;
    snprintf(file->version, sizeof file->version, "%u.%u.%u", (unsigned) (version >> 22),
             (unsigned) (version >> 12 & 0x3ff), (unsigned) (version & 0xfff));
    snprintf(file->build, sizeof file->build, "%s%s%s", VKMOE_BUILD,
             *BENCH_COMMIT ? ", commit " : "", BENCH_COMMIT);
    if (gmtime_r(&now, &utc))
        strftime(file->time_utc, sizeof file->time_utc, "%Y-%m-%dT%H:%M:%SZ", &utc);
    fill_names(root, file);
    file->n_cores = count_cores();
    bench_environment((const char *const *) environ, file->environment, sizeof file->environment);
}
