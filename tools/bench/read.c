// SPDX-License-Identifier: MIT
// Reading results. A file may come from anyone: what is not as the tables say is refused with its
// place, and nothing is sized by a number in the file.
#include "fields.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>

enum { MAX_SIZE = 1 << 28 }; // bytes of a file: a hundred times what a long run writes

struct reader {
    const char *name, *text;
    size_t size;
    char path[192]; // of the value at hand, "rows[3].key.n_tokens"
};

// ---- places ----------------------------------------------------------------------------------

// Adds a step and returns what to cut it off with.
__attribute__((format(printf, 2, 3)))
static size_t enter(struct reader *r, const char *format, ...)
{
    size_t before = strlen(r->path);
    va_list args;
    va_start(args, format);
    vsnprintf(r->path + before, sizeof r->path - before, format, args);
    va_end(args);
    return before;
}

static size_t enter_member(struct reader *r, const char *name)
{
    return enter(r, *r->path ? ".%s" : "%s", name);
}

__attribute__((format(printf, 2, 3)))
static enum vkmoe_status refuse(const struct reader *r, const char *format, ...)
{
    char why[320];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    return bench_refuse(VKMOE_E_DATA, "%s:%u: %s%s%s", r->name,
                        (unsigned) bench_json_line(r->text, r->size, r->path), r->path,
                        *r->path ? ": " : "", why);
}

static const char *type_name(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",
        [JSON_ARRAY] = "an array",
        [JSON_STRING] = "a text",
        [JSON_INTEGER] = "a whole number",
        [JSON_REAL] = "a number",
        [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",
        [JSON_NULL] = "null",
    };
    return names[json_typeof(value)];
}

static enum vkmoe_status refuse_type(const struct reader *r, const json_t *value, const char *want)
{
    return refuse(r, "%s, must be %s", type_name(value), want);
}

// ---- values ----------------------------------------------------------------------------------

static enum vkmoe_status read_text(struct reader *r, const struct bench_field *field,
                                   const json_t *value, char *out)
{
    if (!json_is_string(value))
        return refuse_type(r, value, "a text");
    size_t size = json_string_length(value);
    if (size >= field->size)
        return refuse(r, "a text of %zu bytes; at most %zu", size, field->size - 1);
    memcpy(out, json_string_value(value), size + 1);
    return VKMOE_OK;
}

static enum vkmoe_status read_u32(struct reader *r, const json_t *value, uint32_t *out)
{
    if (!json_is_integer(value))
        return refuse_type(r, value, "a whole number");
    json_int_t number = json_integer_value(value);
    if (number < 0 || number > UINT32_MAX)
        return refuse(r, "%lld is not in 0..%u", (long long) number, (unsigned) UINT32_MAX);
    *out = (uint32_t) number;
    return VKMOE_OK;
}

static enum vkmoe_status read_u64(struct reader *r, const json_t *value, uint64_t *out)
{
    if (json_is_integer(value)) {
        if (json_integer_value(value) < 0)
            return refuse(r, "%lld is negative", (long long) json_integer_value(value));
        *out = (uint64_t) json_integer_value(value);
        return VKMOE_OK;
    }
    const char *text = json_string_value(value);
    if (!text)
        return refuse_type(r, value, "a whole number");
    char *end;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno)
        return refuse(r, "'%.40s' is not a whole number in range", text);
    *out = number;
    return VKMOE_OK;
}

static enum vkmoe_status read_real(struct reader *r, const json_t *value, double *out)
{
    *out = (double) NAN;
    if (json_is_null(value))
        return VKMOE_OK;
    if (!json_is_number(value))
        return refuse_type(r, value, "a number or null");
    if (!(json_number_value(value) >= 0))
        return refuse(r, "%g is negative", json_number_value(value));
    *out = json_number_value(value);
    return VKMOE_OK;
}

static enum vkmoe_status read_limit(struct reader *r, const json_t *value, double *out)
{
    enum vkmoe_status status = read_real(r, value, out);
    if (status == VKMOE_OK && *out == 0)
        return refuse(r, "0; what there is none of is null");
    if (isnan(*out))
        *out = 0;
    return status;
}

static enum vkmoe_status read_word(struct reader *r, const struct bench_field *field,
                                   const json_t *value, uint32_t *out)
{
    char words[128] = "";
    const char *text = json_string_value(value);
    if (!text)
        return refuse_type(r, value, "a word");
    for (uint32_t i = 0; field->word(i); i++) {
        if (strcmp(field->word(i), text) == 0) {
            *out = i;
            return VKMOE_OK;
        }
        size_t used = strlen(words);
        snprintf(words + used, sizeof words - used, "%s%s", i ? ", " : "", field->word(i));
    }
    return refuse(r, "'%.40s' is none of %s", text, words);
}

// ---- arrays ----------------------------------------------------------------------------------

static enum vkmoe_status get_array(struct reader *r, const json_t *value, uint32_t *n)
{
    *n = (uint32_t) json_array_size(value); // fewer than the file has bytes
    return json_is_array(value) ? VKMOE_OK : refuse_type(r, value, "an array");
}

static enum vkmoe_status read_reals(struct reader *r, const json_t *array, void *object,
                                    const struct bench_field *field)
{
    enum vkmoe_status status;
    double *values = NULL;
    uint32_t n;
    CLI_TRY(get_array(r, array, &n));
    CLI_TRY(cli_alloc(n, 1, sizeof *values, &values));
    for (uint32_t i = 0; i < n; i++) {
        size_t before = enter(r, "[%u]", (unsigned) i);
        CLI_TRY(read_real(r, json_array_get(array, i), &values[i]));
        r->path[before] = '\0';
    }
    memcpy((char *) object + field->count, &n, sizeof n);
    memcpy((char *) object + field->offset, &values, sizeof values);
    return VKMOE_OK;

fail:
    free(values);
    return status;
}

static enum vkmoe_status read_counts(struct reader *r, const json_t *array, void *object,
                                     const struct bench_field *field)
{
    enum vkmoe_status status;
    uint32_t *values = NULL, n, want = bench_field_count(field, object);
    CLI_TRY(get_array(r, array, &n));
    if (n == 0)
        return VKMOE_OK;
    if (n != want)
        return refuse(r, "%u numbers, must be %u or none", (unsigned) n, (unsigned) want);
    CLI_TRY(cli_alloc(n, 1, sizeof *values, &values));
    for (uint32_t i = 0; i < n; i++) {
        size_t before = enter(r, "[%u]", (unsigned) i);
        CLI_TRY(read_u32(r, json_array_get(array, i), &values[i]));
        r->path[before] = '\0';
    }
    memcpy((char *) object + field->offset, &values, sizeof values);
    return VKMOE_OK;

fail:
    free(values);
    return status;
}

static enum vkmoe_status read_object(struct reader *r, const struct bench_field *fields,
                                     const json_t *value, void *object);

static enum vkmoe_status read_list(struct reader *r, const json_t *array, void *object,
                                   const struct bench_field *field)
{
    enum vkmoe_status status;
    char *items;
    uint32_t n;
    CLI_TRY(get_array(r, array, &n));
    CLI_TRY(cli_alloc(n, 1, field->size, &items));
    memcpy((char *) object + field->count, &n, sizeof n);
    memcpy((char *) object + field->offset, &items, sizeof items);
    for (uint32_t i = 0; i < n; i++) {
        size_t before = enter(r, "[%u]", (unsigned) i);
        CLI_TRY(read_object(r, field->fields, json_array_get(array, i), items + i * field->size));
        r->path[before] = '\0';
    }

fail:
    return status;
}

// ---- objects ---------------------------------------------------------------------------------

static enum vkmoe_status read_value(struct reader *r, const struct bench_field *field,
                                    const json_t *value, void *object)
{
    void *at = (char *) object + field->offset;
    switch (field->kind) {
    case BENCH_FIELD_TEXT:
        return read_text(r, field, value, at);
    case BENCH_FIELD_U32:
        return read_u32(r, value, at);
    case BENCH_FIELD_U64:
        return read_u64(r, value, at);
    case BENCH_FIELD_BOOL:
        *(bool *) at = json_is_true(value);
        return json_is_boolean(value) ? VKMOE_OK : refuse_type(r, value, "true or false");
    case BENCH_FIELD_REAL:
        return read_real(r, value, at);
    case BENCH_FIELD_LIMIT:
        return read_limit(r, value, at);
    case BENCH_FIELD_WORD:
        return read_word(r, field, value, at);
    case BENCH_FIELD_REALS:
        return read_reals(r, value, object, field);
    case BENCH_FIELD_COUNTS:
        return read_counts(r, value, object, field);
    case BENCH_FIELD_GROUP:
        return read_object(r, field->fields, value, at);
    case BENCH_FIELD_LIST:
        return read_list(r, value, object, field);
    case BENCH_FIELD_CASE:
        break;
    }
    return VKMOE_OK;
}

// Members that no table knows are of a later version, and left alone.
static enum vkmoe_status read_object(struct reader *r, const struct bench_field *fields,
                                     const json_t *value, void *object)
{
    enum vkmoe_status status = VKMOE_OK;
    if (!json_is_object(value))
        return refuse_type(r, value, "an object");
    for (const struct bench_field *field = fields; field->name; field++) {
        const json_t *member = json_object_get(value, field->name);
        if (field->kind == BENCH_FIELD_CASE)
            continue; // the key says it
        size_t before = enter_member(r, field->name);
        CLI_TRY(member ? read_value(r, field, member, object) : refuse(r, "is missing"));
        r->path[before] = '\0';
    }

fail:
    return status;
}

// ---- what fields say together ----------------------------------------------------------------

static bool near(double a, double b)
{
    return (isnan(a) && isnan(b)) || fabs(a - b) <= 1e-6 * fabs(b);
}

static enum vkmoe_status check_times(struct reader *r, const struct bench_times *times)
{
    struct bench_times again = *times;
    bench_times_sum_up(&again);
    if (!near(times->median_us, again.median_us))
        return refuse(r, "median_us is %.9g, the samples have %.9g", times->median_us,
                      again.median_us);
    if (!near(times->p5_us, again.p5_us) || !near(times->p95_us, again.p95_us))
        return refuse(r, "p5_us and p95_us are %.9g and %.9g, the samples have %.9g and %.9g",
                      times->p5_us, times->p95_us, again.p5_us, again.p95_us);
    return VKMOE_OK;
}

static enum vkmoe_status check_row(struct reader *r, const struct bench_file *file,
                                   const struct bench_row *row)
{
    enum vkmoe_status status = VKMOE_OK;
    if (row->device >= file->n_devices)
        return refuse(r, "device %u of %u", (unsigned) row->device, (unsigned) file->n_devices);
    if (bench_row_is_timed(row) && !(bench_row_times(row)->median_us > 0))
        return refuse(r, "status %s, but no times", bench_status_name(row->status));
    size_t before = enter(r, ".device_times");
    CLI_TRY(check_times(r, &row->device_times));
    r->path[before] = '\0';
    enter(r, ".wall_times");
    CLI_TRY(check_times(r, &row->wall_times));

fail:
    return status;
}

static enum vkmoe_status read_file(struct reader *r, const json_t *root, struct bench_file *file)
{
    enum vkmoe_status status = VKMOE_OK;
    const char *schema = json_string_value(json_object_get(root, "schema"));
    if (json_is_object(root) && (!schema || strcmp(schema, BENCH_SCHEMA) != 0))
        return bench_refuse(VKMOE_E_DATA, "%s: schema is %s%.64s%s, this program reads '%s'",
                            r->name, schema ? "'" : "", schema ? schema : "not given",
                            schema ? "'" : "", BENCH_SCHEMA);
    CLI_TRY(read_object(r, bench_file_fields, root, file));
    for (uint32_t i = 0; i < file->n_rows; i++) {
        enter(r, "rows[%u]", (unsigned) i);
        CLI_TRY(check_row(r, file, &file->rows[i]));
        r->path[0] = '\0';
    }

fail:
    return status;
}

enum vkmoe_status bench_file_parse(const char *name, const char *text, size_t size,
                                   struct bench_file *out)
{
    memset(out, 0, sizeof *out);
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!root)
        return bench_refuse(VKMOE_E_DATA, "%s:%d: %s", name, error.line, error.text);
    struct reader r = {name, text, size, ""};
    enum vkmoe_status status = read_file(&r, root, out);
    json_decref(root);
    if (status != VKMOE_OK)
        bench_file_finish(out);
    return status;
}

static enum vkmoe_status load(const char *path, FILE *file, char **text, size_t *size)
{
    for (size_t room = 0; !feof(file);) {
        if (*size == MAX_SIZE)
            return bench_refuse(VKMOE_E_DATA, "%s: more than %u MiB", path,
                                (unsigned) (MAX_SIZE >> 20));
        if (*size == room) {
            room = room ? 2 * room : 1 << 16;
            char *more = realloc(*text, room);
            if (!more)
                return bench_refuse(VKMOE_E_MEMORY, "%s: no memory for %zu bytes", path, room);
            *text = more;
        }
        *size += fread(*text + *size, 1, room - *size, file);
        if (ferror(file))
            return bench_refuse(VKMOE_E_IO, "%s: %s", path, strerror(errno));
    }
    return VKMOE_OK;
}

enum vkmoe_status bench_file_read(const char *path, struct bench_file *out)
{
    char *text = NULL;
    size_t size = 0;
    memset(out, 0, sizeof *out);
    FILE *file = fopen(path, "rb");
    if (!file)
        return bench_refuse(VKMOE_E_IO, "%s: %s", path, strerror(errno));
    enum vkmoe_status status = load(path, file, &text, &size);
    fclose(file);
    if (status == VKMOE_OK)
        status = bench_file_parse(path, text, size, out);
    const char *slash = strrchr(path, '/');
    if (status == VKMOE_OK)
        snprintf(out->name, sizeof out->name, "%s", slash ? slash + 1 : path);
    free(text);
    return status;
}
