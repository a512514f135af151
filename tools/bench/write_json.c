// SPDX-License-Identifier: MIT
// Results as JSON: members of the file, of devices and of rows have a line each, and what is inside
// them shares it, so that a file of thousands of samples can still be read, and compared by lines.
#include "fields.h"

enum {
    LINES = 3,        // depth of the members of devices and rows, the last that get lines
    ONE_LINE = 1 << 8 // depth of all that is inside them
};

static void put_line(struct bench_out *out, int depth)
{
    if (depth <= LINES)
        fprintf(out->stream, "\n%*s", depth, "");
}

static void put_comma(struct bench_out *out, int depth)
{
    fputs(depth <= LINES ? "," : ", ", out->stream);
}

static void put_value(struct bench_out *out, const struct bench_field *field, const void *object)
{
    json_t *value = bench_field_json(field, object);
    // 9 digits are more than any clock has. jansson prints numbers alike in every locale.
    if (!value || json_dumpf(value, out->stream, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) != 0)
        out->failed = true;
    json_decref(value);
}

static void put_list(struct bench_out *out, int depth, const struct bench_field *field,
                     const void *object);

static void put_object(struct bench_out *out, int depth, const struct bench_field *fields,
                       const void *object)
{
    fputc('{', out->stream);
    for (const struct bench_field *field = fields; field->name; field++) {
        if (field != fields)
            put_comma(out, depth + 1);
        put_line(out, depth + 1);
        fprintf(out->stream, "\"%s\": ", field->name);
        if (field->kind == BENCH_FIELD_GROUP)
            put_object(out, ONE_LINE, field->fields, bench_field_at(field, object));
        else if (field->kind == BENCH_FIELD_LIST)
            put_list(out, depth == 0 ? 1 : ONE_LINE, field, object);
        else
            put_value(out, field, object);
    }
    put_line(out, depth);
    fputc('}', out->stream);
}

static void put_list(struct bench_out *out, int depth, const struct bench_field *field,
                     const void *object)
{
    const uint32_t n = bench_field_count(field, object);
    const char *items;
    memcpy(&items, bench_field_at(field, object), sizeof items);
    fputc('[', out->stream);
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0)
            put_comma(out, depth + 1);
        put_line(out, depth + 1);
        put_object(out, depth + 1, field->fields, items + i * field->size);
    }
    if (n > 0)
        put_line(out, depth);
    fputc(']', out->stream);
}

void bench_write_json(const struct bench_file *file, struct bench_out *out)
{
    put_object(out, 0, bench_file_fields, file);
    fputc('\n', out->stream);
}
