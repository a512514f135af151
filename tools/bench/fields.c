// SPDX-License-Identifier: MIT
// The tables of fields, in the order of the file.
#include "fields.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

#define NAMED(name, kind, type, member)                                                            \
    {name, BENCH_FIELD_##kind, offsetof(type, member), sizeof((type *) NULL)->member}
#define VERIFY(kind, member) NAMED(#member, kind, struct bench_row, verify.member)
#define INFO(kind, member) NAMED(#member, kind, struct bench_device, info.member)
#define LEAF(kind, type, member) NAMED(#member, kind, type, member)
#define WORD(type, member, name, spelling)                                                         \
    {name, BENCH_FIELD_WORD, offsetof(type, member), sizeof(uint32_t), .word = spelling}
#define ARRAY(kind, type, member, n)                                                               \
    {#member, BENCH_FIELD_##kind, offsetof(type, member), .count = offsetof(type, n)}
#define GROUP(type, member, table)                                                                 \
    {#member, BENCH_FIELD_GROUP, offsetof(type, member), .fields = table}
#define LIST(type, member, n, table)                                                               \
    {#member, BENCH_FIELD_LIST, offsetof(type, member), sizeof *((type *) NULL)->member,           \
     offsetof(type, n), table}

static const char *status_word(uint32_t value)
{
    return value <= BENCH_ERROR ? bench_status_name((enum bench_status) value) : NULL;
}

static const char *bound_word(uint32_t value)
{
    return value <= BENCH_BOUND_LAUNCH ? bench_bound_name((enum bench_bound) value) : NULL;
}

static const char *type_word(uint32_t value)
{
    return value <= VKMOE_DEVICE_REFERENCE ? cli_device_type((enum vkmoe_device_type) value) : NULL;
}

const struct bench_field bench_key_fields[] = {
    LEAF(TEXT, struct bench_key, model),
    LEAF(U32, struct bench_key, n_experts),
    LEAF(U32, struct bench_key, top_k),
    LEAF(U32, struct bench_key, d_model),
    LEAF(U32, struct bench_key, d_ff),
    LEAF(U32, struct bench_key, d_shared_ff),
    LEAF(TEXT, struct bench_key, rule),
    LEAF(TEXT, struct bench_key, expert),
    LEAF(TEXT, struct bench_key, type),
    LEAF(TEXT, struct bench_key, x_type),
    LEAF(TEXT, struct bench_key, precision),
    LEAF(TEXT, struct bench_key, mode),
    LEAF(TEXT, struct bench_key, routing),
    LEAF(U32, struct bench_key, n_tokens),
    LEAF(U64, struct bench_key, seed),
    LEAF(U32, struct bench_key, n_threads),
    {0},
};

// Offsets in the row: `verify` has no type of its own.
static const struct bench_field verify_fields[] = {
    VERIFY(TEXT, state),
    VERIFY(TEXT, reference),
    VERIFY(REAL, error),
    VERIFY(REAL, limit),
    VERIFY(U32, n_rows),
    {0},
};

static const struct bench_field times_fields[] = {
    LEAF(REAL, struct bench_times, median_us),
    LEAF(REAL, struct bench_times, p5_us),
    LEAF(REAL, struct bench_times, p95_us),
    LEAF(REAL, struct bench_times, mad_us),
    ARRAY(REALS, struct bench_times, samples_us, n),
    {0},
};

static const struct bench_field counters_fields[] = {
    LEAF(U64, vkmoe_counters, weight_loads),
    LEAF(U64, vkmoe_counters, router_loads),
    LEAF(U64, vkmoe_counters, live_columns),
    LEAF(U64, vkmoe_counters, padded_columns),
    LEAF(U64, vkmoe_counters, workgroups),
    LEAF(U64, vkmoe_counters, idle_workgroups),
    LEAF(U32, vkmoe_counters, dispatches),
    {0},
};

static const struct bench_field dispatch_fields[] = {
    LEAF(TEXT, struct bench_dispatch, label),
    LEAF(REAL, struct bench_dispatch, median_us),
    {0},
};

const struct bench_field bench_row_fields[] = {
    {.name = "case", .kind = BENCH_FIELD_CASE},
    LEAF(U32, struct bench_row, device),
    GROUP(struct bench_row, key, bench_key_fields),
    LEAF(TEXT, struct bench_row, kernel),
    WORD(struct bench_row, status, "status", status_word),
    LEAF(TEXT, struct bench_row, reason),
    {"verify", BENCH_FIELD_GROUP, .fields = verify_fields},
    GROUP(struct bench_row, device_times, times_fields),
    GROUP(struct bench_row, wall_times, times_fields),
    LEAF(U32, struct bench_row, n_cold),
    LEAF(BOOL, struct bench_row, plateau),
    LEAF(U32, struct bench_row, n_blocks),
    LEAF(U32, struct bench_row, n_dropped_blocks),
    LEAF(REAL, struct bench_row, first_call_ms),
    LEAF(REAL, struct bench_row, bytes),
    LEAF(REAL, struct bench_row, flops),
    LEAF(REAL, struct bench_row, bytes_per_s),
    LEAF(REAL, struct bench_row, flops_per_s),
    LEAF(REAL, struct bench_row, tokens_per_s),
    LEAF(REAL, struct bench_row, read_rate),
    LEAF(REAL, struct bench_row, peak),
    LEAF(REAL, struct bench_row, dispatch_us),
    LEAF(TEXT, struct bench_row, arithmetic),
    LEAF(U32, struct bench_row, n_dispatches),
    LEAF(REAL, struct bench_row, floor_us),
    LEAF(REAL, struct bench_row, floor_fraction),
    WORD(struct bench_row, bound, "bound", bound_word),
    LEAF(U32, struct bench_row, n_experts_hit),
    LEAF(U32, struct bench_row, min_rows),
    LEAF(U32, struct bench_row, max_rows),
    LEAF(REAL, struct bench_row, cv_rows),
    ARRAY(COUNTS, struct bench_row, expert_rows, key.n_experts),
    LEAF(U32, struct bench_row, n_copies),
    LEAF(REAL, struct bench_row, device_bytes),
    LEAF(REAL, struct bench_row, clock_mhz),
    LEAF(REAL, struct bench_row, clock_min_mhz),
    LEAF(TEXT, struct bench_row, clock_source),
    LEAF(REAL, struct bench_row, power_w),
    LEAF(TEXT, struct bench_row, power_source),
    LEAF(BOOL, struct bench_row, counted),
    GROUP(struct bench_row, counters, counters_fields),
    LEAF(REAL, struct bench_row, rereads),
    LEAF(REAL, struct bench_row, useful_fraction),
    LIST(struct bench_row, dispatches, n_timed_dispatches, dispatch_fields),
    {0},
};

static const struct bench_field peak_fields[] = {
#define PEAK(name, value, spelling) {spelling, BENCH_FIELD_LIMIT, (value) * sizeof(double)},
    VKMOE_ARITHMETIC_LIST(PEAK)
#undef PEAK
    {0},
};

// Members of `info` are members of the device.
const struct bench_field bench_device_fields[] = {
    INFO(U32, index),
    WORD(struct bench_device, info.type, "type", type_word),
    INFO(TEXT, name),
    INFO(TEXT, uuid),
    INFO(TEXT, pci),
    INFO(U32, vendor_id),
    INFO(U32, device_id),
    INFO(TEXT, driver),
    INFO(TEXT, driver_version),
    INFO(TEXT, api),
    INFO(U64, memory_bytes),
    INFO(TEXT, tier),
    INFO(TEXT, features),
    LEAF(U32, struct bench_device, n_threads),
    LEAF(REAL, struct bench_device, read_rate),
    LEAF(REAL, struct bench_device, dispatch_us),
    GROUP(struct bench_device, peak, peak_fields),
    LEAF(REAL, struct bench_device, one_thread_peak),
    LEAF(U64, struct bench_device, cache_size),
    {0},
};

const struct bench_field bench_file_fields[] = {
    LEAF(TEXT, struct bench_file, schema),
    LEAF(TEXT, struct bench_file, version),
    LEAF(TEXT, struct bench_file, build),
    LEAF(TEXT, struct bench_file, time_utc),
    LEAF(TEXT, struct bench_file, suite),
    LEAF(BOOL, struct bench_file, complete),
    LEAF(TEXT, struct bench_file, cpu),
    LEAF(TEXT, struct bench_file, os),
    LEAF(TEXT, struct bench_file, kernel),
    LEAF(U32, struct bench_file, n_cores),
    LEAF(TEXT, struct bench_file, environment),
    LIST(struct bench_file, devices, n_devices, bench_device_fields),
    LIST(struct bench_file, rows, n_rows, bench_row_fields),
    {0},
};

// ---- walking them ----------------------------------------------------------------------------

const void *bench_field_at(const struct bench_field *field, const void *object)
{
    return (const char *) object + field->offset;
}

uint32_t bench_field_count(const struct bench_field *field, const void *object)
{
    uint32_t n;
    memcpy(&n, (const char *) object + field->count, sizeof n);
    return n;
}

static bool is_array(const struct bench_field *field)
{
    return field->kind == BENCH_FIELD_REALS || field->kind == BENCH_FIELD_COUNTS ||
           field->kind == BENCH_FIELD_LIST;
}

void bench_fields_finish(const struct bench_field *fields, void *object)
{
    for (const struct bench_field *field = fields; field->name; field++) {
        char *at = (char *) object + field->offset;
        if (field->kind == BENCH_FIELD_GROUP)
            bench_fields_finish(field->fields, at);
        if (!is_array(field))
            continue;
        char *array;
        memcpy(&array, at, sizeof array);
        for (uint32_t i = 0; array && field->fields && i < bench_field_count(field, object); i++)
            bench_fields_finish(field->fields, array + i * field->size);
        free(array);
    }
}

void bench_row_finish(struct bench_row *row)
{
    if (!row)
        return;
    bench_fields_finish(bench_row_fields, row);
    memset(row, 0, sizeof *row);
}

void bench_file_finish(struct bench_file *file)
{
    if (!file)
        return;
    bench_fields_finish(bench_file_fields, file);
    memset(file, 0, sizeof *file);
}

bool bench_field_differs(const struct bench_field *field, const void *a, const void *b)
{
    const void *x = bench_field_at(field, a), *y = bench_field_at(field, b);
    if (field->kind == BENCH_FIELD_TEXT)
        return strcmp(x, y) != 0;
    return memcmp(x, y, field->size) != 0;
}

const struct bench_field *bench_key_first_difference(const struct bench_key *a,
                                                     const struct bench_key *b)
{
    for (const struct bench_field *field = bench_key_fields; field->name; field++) {
        if (bench_field_differs(field, a, b))
            return field;
    }
    return NULL;
}

const char *bench_key_difference(const struct bench_key *a, const struct bench_key *b)
{
    const struct bench_field *field = bench_key_first_difference(a, b);
    return field ? field->name : NULL;
}

uint32_t bench_key_distance(const struct bench_key *a, const struct bench_key *b)
{
    uint32_t n = 0;
    for (const struct bench_field *field = bench_key_fields; field->name; field++)
        n += bench_field_differs(field, a, b);
    return n;
}

// ---- values ----------------------------------------------------------------------------------

// Texts come from drivers and may be cut in the middle of a character.
static json_t *text_json(const char *text)
{
    json_t *value = json_string(text);
    if (value)
        return value;
    char plain[1024];
    size_t n = 0;
    for (; text[n] && n + 1 < sizeof plain; n++)
        plain[n] = (signed char) text[n] < 0 ? '?' : text[n];
    plain[n] = '\0';
    return json_string(plain);
}

static json_t *u64_json(uint64_t value)
{
    if (value >> BENCH_MAX_EXACT_BITS == 0)
        return json_integer((json_int_t) value);
    return json_sprintf("%llu", (unsigned long long) value);
}

static json_t *real_json(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *reals_json(const double *values, uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < n; i++) {
        if (json_array_append_new(array, real_json(values[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *counts_json(const uint32_t *values, uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; values && i < n; i++) {
        if (json_array_append_new(array, json_integer(values[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *case_json(const struct bench_row *row)
{
    char text[512];
    bench_key_text(&row->key, text, sizeof text);
    return text_json(text);
}

json_t *bench_field_json(const struct bench_field *field, const void *object)
{
    const void *at = bench_field_at(field, object);
    const uint32_t *u32 = at;
    const double *real = at;
    switch (field->kind) {
    case BENCH_FIELD_TEXT:
        return text_json(at);
    case BENCH_FIELD_U32:
        return json_integer(*u32);
    case BENCH_FIELD_U64:
        return u64_json(*(const uint64_t *) at);
    case BENCH_FIELD_BOOL:
        return json_boolean(*(const bool *) at);
    case BENCH_FIELD_REAL:
        return real_json(*real);
    case BENCH_FIELD_LIMIT:
        return *real > 0 ? real_json(*real) : json_null();
    case BENCH_FIELD_WORD:
        return text_json(field->word(*u32));
    case BENCH_FIELD_CASE:
        return case_json(object);
    case BENCH_FIELD_REALS:
        return reals_json(*(double *const *) at, bench_field_count(field, object));
    case BENCH_FIELD_COUNTS:
        return counts_json(*(uint32_t *const *) at, bench_field_count(field, object));
    case BENCH_FIELD_GROUP:
    case BENCH_FIELD_LIST:
        break;
    }
    return NULL;
}

enum vkmoe_status bench_refuse(enum vkmoe_status status, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    vkmoe_error_set(text);
    return status;
}
