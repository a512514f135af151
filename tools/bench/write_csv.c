// SPDX-License-Identifier: MIT
// Results as CSV: one line a row, with all that its file and its device say; a member of a group is
// the column "group.member". Arrays have no columns but the number of samples.
#include "fields.h"

#include <stdlib.h>

// RFC 4180: quoted where it has to be, quotes doubled.
static void put_text(struct bench_out *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out->stream);
        return;
    }
    fputc('"', out->stream);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out->stream);
        fputc(*text, out->stream);
    }
    fputc('"', out->stream);
}

static void put_value(struct bench_out *out, const struct bench_field *field, const void *object)
{
    json_t *value = bench_field_json(field, object);
    if (!value)
        out->failed = true;
    else if (json_is_string(value))
        put_text(out, json_string_value(value));
    else if (!json_is_null(value) &&
             json_dumpf(value, out->stream, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) != 0)
        out->failed = true;
    json_decref(value);
}

// Calls itself for groups; `object` NULL prints the names of the columns.
static void put_columns(struct bench_out *out, bool *first, const char *group,
                        const struct bench_field *fields, const void *object)
{
    for (const struct bench_field *field = fields; field->name; field++) {
        if (field->kind == BENCH_FIELD_LIST || field->kind == BENCH_FIELD_COUNTS)
            continue;
        if (field->kind == BENCH_FIELD_GROUP) {
            char name[64];
            snprintf(name, sizeof name, "%s%s.", group, field->name);
            put_columns(out, first, name, field->fields,
                        object ? bench_field_at(field, object) : NULL);
            continue;
        }
        if (!*first)
            fputc(',', out->stream);
        *first = false;
        if (object && field->kind == BENCH_FIELD_REALS)
            fprintf(out->stream, "%u", (unsigned) bench_field_count(field, object));
        else if (object)
            put_value(out, field, object);
        else
            fprintf(out->stream, "%s%s", group,
                    field->kind == BENCH_FIELD_REALS ? "n_samples" : field->name);
    }
}

static void put_line(struct bench_out *out, const struct bench_file *file,
                     const struct bench_row *row)
{
    bool first = true;
    put_columns(out, &first, "", bench_row_fields, row);
    put_columns(out, &first, "device.", bench_device_fields,
                row ? &file->devices[row->device] : NULL);
    put_columns(out, &first, "file.", bench_file_fields, row ? file : NULL);
    fputc('\n', out->stream);
}

void bench_write_csv(const struct bench_file *file, struct bench_out *out)
{
    put_line(out, file, NULL);
    for (uint32_t i = 0; i < file->n_rows; i++)
        put_line(out, file, &file->rows[i]);
}
