// SPDX-License-Identifier: MIT
#include "places.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

FILE *bench_open_text(const char *root, const char *path)
{
    char full[PATH_MAX];
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    return n > 0 && (size_t) n < sizeof full ? fopen(full, "re") : NULL;
}

bool bench_read_text(const char *root, const char *path, char *out, size_t size)
{
    FILE *file = bench_open_text(root, path);
    bool ok = file && fgets(out, (int) size, file);
    if (file)
        fclose(file);
    if (ok)
        out[strcspn(out, "\n")] = '\0';
    return ok && *out;
}

double bench_read_number(const char *root, const char *path, double unit)
{
    char text[64], *end;
    if (!bench_read_text(root, path, text, sizeof text))
        return NAN;
    double value = strtod(text, &end);
    return end == text || *end ? NAN : value * unit;
}
