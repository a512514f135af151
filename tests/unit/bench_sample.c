// SPDX-License-Identifier: MIT
// Filled by the tables, so that a new field is in every test at once.
#include "bench_sample.h"

#include "check.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_SAMPLES = 5, N_EXPERTS = 3 };

static void *make(size_t n, size_t size)
{
    void *memory = calloc(n, size);
    assert_non_null(memory);
    return memory;
}

static void fill(const struct bench_field *fields, void *object, uint32_t *next);

static void fill_list(const struct bench_field *field, char *object, uint32_t *next)
{
    const uint32_t n = BENCH_SAMPLE_ITEMS;
    char *items = make(n, field->size);
    memcpy(object + field->count, &n, sizeof n);
    memcpy(object + field->offset, &items, sizeof items);
    for (uint32_t i = 0; i < n; i++)
        fill(field->fields, items + i * field->size, next);
}

static void fill_reals(const struct bench_field *field, char *object, uint32_t *next)
{
    const uint32_t n = N_SAMPLES;
    double *values = make(n, sizeof *values);
    for (uint32_t i = 0; i < n; i++)
        values[i] = *next + i / 8.0;
    memcpy(object + field->count, &n, sizeof n);
    memcpy(object + field->offset, &values, sizeof values);
}

static void fill_counts(const struct bench_field *field, char *object, uint32_t *next)
{
    const uint32_t n = N_EXPERTS; // of the row's key
    uint32_t *values = make(n, sizeof *values);
    for (uint32_t i = 0; i < n; i++)
        values[i] = *next + i;
    memcpy(object + field->count, &n, sizeof n);
    memcpy(object + field->offset, &values, sizeof values);
}

static uint32_t n_words(const struct bench_field *field)
{
    uint32_t n = 0;
    while (field->word(n))
        n++;
    return n;
}

static void fill_one(const struct bench_field *field, char *object, uint32_t *next)
{
    char *at = object + field->offset;
    const uint32_t number = ++*next;
    switch (field->kind) {
    case BENCH_FIELD_TEXT: // with what each format must quote
        snprintf(at, field->size, "%u,\"|%s", (unsigned) number, field->name);
        break;
    case BENCH_FIELD_U32:
        *(uint32_t *) (void *) at = number;
        break;
    case BENCH_FIELD_U64:
        *(uint64_t *) (void *) at = ((uint64_t) number << 54) + 1;
        break;
    case BENCH_FIELD_BOOL:
        *(bool *) at = true;
        break;
    case BENCH_FIELD_REAL:
    case BENCH_FIELD_LIMIT:
        *(double *) (void *) at = number + 0.5;
        break;
    case BENCH_FIELD_WORD:
        *(uint32_t *) (void *) at = 1 + number % (n_words(field) - 1);
        break;
    case BENCH_FIELD_CASE:
        break;
    case BENCH_FIELD_REALS:
        fill_reals(field, object, next);
        break;
    case BENCH_FIELD_COUNTS:
        fill_counts(field, object, next);
        break;
    case BENCH_FIELD_GROUP:
        fill(field->fields, at, next);
        break;
    case BENCH_FIELD_LIST:
        fill_list(field, object, next);
        break;
    }
}

static void fill(const struct bench_field *fields, void *object, uint32_t *next)
{
    for (const struct bench_field *field = fields; field->name; field++)
        fill_one(field, object, next);
}

void bench_sample_make(struct bench_file *file)
{
    uint32_t next = 0;
    memset(file, 0, sizeof *file);
    fill(bench_file_fields, file, &next);
    snprintf(file->schema, sizeof file->schema, "%s", BENCH_SCHEMA);
    for (uint32_t i = 0; i < file->n_rows; i++) {
        struct bench_row *row = &file->rows[i];
        row->device = i % file->n_devices;
        row->status = i ? BENCH_UNVERIFIED : BENCH_OK;
        snprintf(row->verify.state, sizeof row->verify.state, "pass");
        bench_times_sum_up(&row->device_times);
        bench_times_sum_up(&row->wall_times);
    }
}
