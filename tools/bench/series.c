// SPDX-License-Identifier: MIT
#include "series.h"

#include <stdlib.h>
#include <string.h>

double *bench_series_grow(struct bench_series *series, uint32_t n)
{
    uint64_t needed = (uint64_t) series->n + n, room = needed + needed / 2 + 1;
    if (needed > series->room || !series->values) {
        double *values = room <= UINT32_MAX ? realloc(series->values, room * sizeof *values) : NULL;
        if (!values)
            return NULL;
        series->values = values;
        series->room = (uint32_t) room;
    }
    series->n += n;
    return series->values + series->n - n;
}

bool bench_series_append(struct bench_series *series, const double *values, uint32_t n)
{
    if (n == 0)
        return true;
    double *room = bench_series_grow(series, n);
    if (room)
        memcpy(room, values, n * sizeof *values);
    return room != NULL;
}

double bench_series_sum(const struct bench_series *series)
{
    double sum = 0;
    for (uint32_t i = 0; i < series->n; i++)
        sum += series->values[i];
    return sum;
}

void bench_series_finish(struct bench_series *series)
{
    free(series->values);
    *series = (struct bench_series){0};
}
