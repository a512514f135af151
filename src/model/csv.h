// SPDX-License-Identifier: MIT
// Comma-separated rows, read one at a time in bounded memory.
//
// Accepted: `#` comment lines, blank lines, LF and CRLF, a UTF-8 byte order mark, spaces around
// fields, "quoted" fields on one line. The first row is a header when no field outside the targets
// is a number, or when a target is given by a name in it; a number is no name. Numbers are decimal
// and finite in f32, whatever the locale. Every error names line and column, both counted from 1.
#ifndef MOE_MODEL_CSV_H
#define MOE_MODEL_CSV_H

#include "model/lines.h"

enum { MOE_CSV_MAX_TARGETS = 64 };

struct moe_csv {
    struct moe_lines lines; // the row at hand is its line
    uint64_t first_line; // the row that set n_columns

    char **fields; // of the row at hand, in the line
    size_t fields_room;
    uint32_t n_columns;
    bool pending; // the row at hand was read ahead

    uint32_t n_targets;
    uint32_t targets[MOE_CSV_MAX_TARGETS]; // columns, from 0, as asked for
    bool *is_target;                       // (n_columns)
    char **names; // (n_columns) of the header, in name_text; NULL: there is none
    char *name_text;
};

// Opens a file and reads up to its first row of data.
//   targets  "COL[,COL]", each a name or a column number from 1; NULL: the last column; "": none
// VKMOE_E_IO: cannot be read.  VKMOE_E_DATA: no rows or a bad first one.  VKMOE_E_ARGUMENT: no such
// column. `path` is borrowed until close.
enum vkmoe_status moe_csv_open(const vkmoe_host *host, const char *path, const char *targets,
                               struct moe_csv *out);
void moe_csv_close(struct moe_csv *csv); // a zeroed one is fine

static inline uint32_t moe_csv_n_features(const struct moe_csv *csv)
{
    return csv->n_columns - csv->n_targets;
}

// The header's name of the i-th feature; NULL without a header.
const char *moe_csv_feature_name(const struct moe_csv *csv, uint32_t i);

// Goes to the next row; *more is false after the last one.
enum vkmoe_status moe_csv_next(struct moe_csv *csv, bool *more);

// The row's features: all columns that are no targets, in order.
enum vkmoe_status moe_csv_features(const struct moe_csv *csv, float *out);

// The row's i-th target as text, and as a number.
const char *moe_csv_target(const struct moe_csv *csv, uint32_t i);
enum vkmoe_status moe_csv_target_number(const struct moe_csv *csv, uint32_t i, float *out);

#endif
