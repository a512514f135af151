// SPDX-License-Identifier: MIT
// The one list of what a file of results holds. Writing, reading, the columns of CSV and the
// comparison of keys walk it, so a new field is one line in fields.c, one in docs/vkmoe-bench-1.md
// and one in its schema.
#ifndef BENCH_FIELDS_H
#define BENCH_FIELDS_H

#include "row.h"

#include <stdio.h>

enum bench_field_kind {
    BENCH_FIELD_TEXT,  // char[size]
    BENCH_FIELD_U32,
    BENCH_FIELD_U64,   // above 2^53 a text in files: most readers of JSON would round it
    BENCH_FIELD_BOOL,
    BENCH_FIELD_REAL,  // double >= 0; NAN is null
    BENCH_FIELD_LIMIT, // double > 0; 0 is null
    BENCH_FIELD_WORD,  // an enum, 4 bytes; `word` spells it
    BENCH_FIELD_CASE,  // made from the row's key; not read
    BENCH_FIELD_REALS, // double *, and the uint32_t at `count` says how many
    BENCH_FIELD_COUNTS, // uint32_t *, as many as the uint32_t at `count` says, or NULL
    BENCH_FIELD_GROUP, // a struct within the struct, by `fields`
    BENCH_FIELD_LIST,  // pointer to structs of `size` bytes by `fields`; `count` as for REALS
};

struct bench_field {
    const char *name; // NULL ends a table
    enum bench_field_kind kind;
    size_t offset, size, count; // size: of the member; LIST: of an element
    const struct bench_field *fields;
    const char *(*word)(uint32_t value); // NULL beyond the last
};

extern const struct bench_field bench_file_fields[];
extern const struct bench_field bench_device_fields[];
extern const struct bench_field bench_row_fields[];
extern const struct bench_field bench_key_fields[];

#define BENCH_SCHEMA "vkmoe-bench/1"

enum { BENCH_MAX_EXACT_BITS = 53 }; // of an integer that is a number in files

// Members of one object.
const void *bench_field_at(const struct bench_field *field, const void *object);
uint32_t bench_field_count(const struct bench_field *field, const void *object);

// Of texts, whole numbers and bools.
bool bench_field_differs(const struct bench_field *field, const void *a, const void *b);

// Number of members in which two keys differ.
uint32_t bench_key_distance(const struct bench_key *a, const struct bench_key *b);
// The first of them; NULL: none.
const struct bench_field *bench_key_first_difference(const struct bench_key *a,
                                                     const struct bench_key *b);

// A value as JSON: new reference, NULL without memory. Not for groups and lists.
json_t *bench_field_json(const struct bench_field *field, const void *object);

// Frees the arrays of an object.
void bench_fields_finish(const struct bench_field *fields, void *object);

// Reads a file's text; `name` is for errors. Else as bench_file_read.
enum vkmoe_status bench_file_parse(const char *name, const char *text, size_t size,
                                   struct bench_file *out);

// The line, from 1, of a value in JSON text that is well-formed, or of the object that lacks it.
// `path` is "rows[3].key.n_tokens", "" the whole.
uint32_t bench_json_line(const char *text, size_t size, const char *path);

// Where the writers print to; `failed`: no memory for a value, so the text is worth nothing.
struct bench_out {
    FILE *stream;
    bool failed;
};

// What bench_file_write prints, by its format.
void bench_write_json(const struct bench_file *file, struct bench_out *out);
void bench_write_csv(const struct bench_file *file, struct bench_out *out);
void bench_write_md(const struct bench_file *file, struct bench_out *out);

// Sets the error text and returns `status`.
__attribute__((format(printf, 2, 3)))
enum vkmoe_status bench_refuse(enum vkmoe_status status, const char *format, ...);

#endif
