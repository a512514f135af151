// SPDX-License-Identifier: MIT
#include "model/csv.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <stdlib.h>

// ---- fields ----------------------------------------------------------------------------------

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

static char *skip_spaces(char *at)
{
    while (is_space(*at))
        at++;
    return at;
}

static enum vkmoe_status fail_field(const struct moe_csv *csv, uint32_t column, const char *what)
{
    return moe_fail(VKMOE_E_DATA, "%s: line %llu, column %u: '%.40s' %s", csv->lines.path,
                    (unsigned long long) csv->lines.line, column + 1, csv->fields[column], what);
}

// Takes the quotes off the field at `*at` and moves *at behind it: to a comma, the end, or
// whatever wrongly follows. false: the quote does not end on this line.
static bool take_quoted(char **at, char **field)
{
    char *from = *at + 1, *to = *at;
    *field = to;
    while (*from && (*from != '"' || from[1] == '"')) {
        from += *from == '"'; // two quotes stand for one
        *to++ = *from++;
    }
    if (!*from)
        return false;
    *to = '\0';
    *at = skip_spaces(from + 1);
    return true;
}

// Cuts the line into csv->fields; *n is their number.
static enum vkmoe_status split(struct moe_csv *csv, char *line, uint32_t *n)
{
    char *at = line;
    for (*n = 0;; (*n)++) {
        if (*n == csv->fields_room) {
            size_t room = csv->fields_room ? csv->fields_room * 2 : 64;
            enum vkmoe_status status =
                moe_lines_grow(&csv->lines, &csv->fields, *n, room, sizeof *csv->fields);
            if (status != VKMOE_OK)
                return status;
            csv->fields_room = room;
        }
        char **field = &csv->fields[*n], *end = NULL;
        at = *field = skip_spaces(at);
        if (*at == '"') {
            if (!take_quoted(&at, field))
                return fail_field(csv, *n, "has a quote that does not end on its line");
        } else {
            at += strcspn(at, ",");
            for (end = at; end > *field && is_space(end[-1]);)
                end--;
        }
        char separator = *at;
        if (end)
            *end = '\0';
        if (!separator)
            break;
        if (separator != ',')
            return fail_field(csv, *n, "has text after its closing quote");
        at++;
    }
    (*n)++;
    return VKMOE_OK;
}

// Reads lines up to one that holds a row; *n is 0 at the end of the file.
static enum vkmoe_status next_row(struct moe_csv *csv, uint32_t *n)
{
    enum vkmoe_status status;
    char *line;
    while ((status = moe_lines_next(&csv->lines, &line)) == VKMOE_OK && line) {
        char *first = skip_spaces(line);
        if (*first && *first != '#')
            return split(csv, line, n);
    }
    *n = 0;
    return status;
}

// ---- numbers ---------------------------------------------------------------------------------

static enum vkmoe_status number(const struct moe_csv *csv, uint32_t column, float *out)
{
    const char *wrong = moe_lines_number(&csv->lines, csv->fields[column], out);
    return wrong ? fail_field(csv, column, wrong) : VKMOE_OK;
}

enum vkmoe_status moe_csv_features(const struct moe_csv *csv, float *out)
{
    for (uint32_t column = 0; column < csv->n_columns; column++) {
        if (csv->is_target[column])
            continue;
        enum vkmoe_status status = number(csv, column, out++);
        if (status != VKMOE_OK)
            return status;
    }
    return VKMOE_OK;
}

const char *moe_csv_target(const struct moe_csv *csv, uint32_t i)
{
    return csv->fields[csv->targets[i]];
}

enum vkmoe_status moe_csv_target_number(const struct moe_csv *csv, uint32_t i, float *out)
{
    return number(csv, csv->targets[i], out);
}

// ---- header and targets ----------------------------------------------------------------------

// Column of one target: a number from 1, or a name in the first row, which is a header then. What
// reads as a number is never a name, or a row of data that holds it would pass for a header.
static enum vkmoe_status find_column(const struct moe_csv *csv, const char *text, uint32_t *column,
                                     bool *header)
{
    if (*text && strspn(text, "0123456789") == strlen(text)) {
        unsigned long long index = strtoull(text, NULL, 10);
        if (index >= 1 && index <= csv->n_columns) {
            *column = (uint32_t) index - 1;
            return VKMOE_OK;
        }
    }
    const uint32_t n_names = moe_lines_looks_numeric(&csv->lines, text) ? 0 : csv->n_columns;
    for (uint32_t i = 0; i < n_names; i++) {
        if (strcmp(csv->fields[i], text) == 0) {
            *column = i;
            *header = true;
            return VKMOE_OK;
        }
    }
    return moe_fail(VKMOE_E_ARGUMENT, "%s: no column '%s' among %u", csv->lines.path, text,
                    csv->n_columns);
}

static enum vkmoe_status add_target(struct moe_csv *csv, uint32_t column)
{
    if (csv->is_target[column])
        return moe_fail(VKMOE_E_ARGUMENT, "%s: column %u is a target twice", csv->lines.path,
                        column + 1);
    if (csv->n_targets == MOE_CSV_MAX_TARGETS)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: more than %d targets", csv->lines.path,
                        MOE_CSV_MAX_TARGETS);
    csv->is_target[column] = true;
    csv->targets[csv->n_targets++] = column;
    return VKMOE_OK;
}

static enum vkmoe_status resolve_targets(struct moe_csv *csv, const char *targets, bool *header)
{
    if (!targets)
        return add_target(csv, csv->n_columns - 1);
    while (*targets) {
        char name[256];
        size_t n = strcspn(targets, ",");
        if (n >= sizeof name)
            return moe_fail(VKMOE_E_ARGUMENT, "a target's name of %zu bytes", n);
        memcpy(name, targets, n);
        name[n] = '\0';
        uint32_t column = 0;
        enum vkmoe_status status = find_column(csv, name, &column, header);
        if (status == VKMOE_OK)
            status = add_target(csv, column);
        if (status != VKMOE_OK)
            return status;
        targets += n + (targets[n] == ',');
    }
    return VKMOE_OK;
}

// A row of names: no feature is empty or numeric. One wrong number does not make a header.
static bool is_header(const struct moe_csv *csv)
{
    for (uint32_t i = 0; i < csv->n_columns; i++) {
        if (!csv->is_target[i] &&
            (!*csv->fields[i] || moe_lines_looks_numeric(&csv->lines, csv->fields[i])))
            return false;
    }
    return csv->n_targets < csv->n_columns;
}

enum vkmoe_status moe_csv_next(struct moe_csv *csv, bool *more)
{
    *more = true;
    if (csv->pending) {
        csv->pending = false;
        return VKMOE_OK;
    }
    uint32_t n;
    enum vkmoe_status status = next_row(csv, &n);
    if (status == VKMOE_OK && n > 0 && n != csv->n_columns)
        return moe_fail(VKMOE_E_DATA, "%s: line %llu: %u columns, line %llu has %u",
                        csv->lines.path, (unsigned long long) csv->lines.line, n,
                        (unsigned long long) csv->first_line, csv->n_columns);
    *more = n > 0;
    return status;
}

// The row at hand is the header.
static enum vkmoe_status keep_names(struct moe_csv *csv)
{
    enum vkmoe_status status;
    const vkmoe_host *host = csv->lines.host;
    size_t size = 0;
    for (uint32_t i = 0; i < csv->n_columns; i++)
        size += strlen(csv->fields[i]) + 1;
    TRY(moe_try_alloc(host, csv->n_columns * sizeof *csv->names, csv->lines.path, &csv->names));
    TRY(moe_try_alloc(host, size, csv->lines.path, &csv->name_text));
    char *at = csv->name_text;
    for (uint32_t i = 0; i < csv->n_columns; i++) {
        csv->names[i] = at;
        at = stpcpy(at, csv->fields[i]) + 1;
    }

fail:
    return status;
}

const char *moe_csv_feature_name(const struct moe_csv *csv, uint32_t i)
{
    for (uint32_t column = 0; csv->names && column < csv->n_columns; column++) {
        if (!csv->is_target[column] && i-- == 0)
            return csv->names[column];
    }
    return NULL;
}

enum vkmoe_status moe_csv_open(const vkmoe_host *host, const char *path, const char *targets,
                               struct moe_csv *out)
{
    enum vkmoe_status status;
    struct moe_csv csv = {0};
    bool header = false, more = true;
    *out = (struct moe_csv){0};
    TRY(moe_lines_open(host, path, &csv.lines));
    TRY(next_row(&csv, &csv.n_columns));
    csv.first_line = csv.lines.line;
    if (csv.n_columns > 0) {
        TRY(moe_try_alloc(host, csv.n_columns * sizeof(bool), path, &csv.is_target));
        TRY(resolve_targets(&csv, targets, &header));
        csv.pending = true;
        if (header || is_header(&csv)) {
            csv.pending = false;
            TRY(keep_names(&csv));
            TRY(moe_csv_next(&csv, &more));
            csv.pending = more;
        }
    }
    if (!csv.pending) {
        status = moe_fail(VKMOE_E_DATA, "%s: no rows of data", path);
        goto fail;
    }
    *out = csv;
    return VKMOE_OK;

fail:
    moe_csv_close(&csv);
    return status;
}

void moe_csv_close(struct moe_csv *csv)
{
    const vkmoe_host *host = csv->lines.host;
    moe_lines_close(&csv->lines);
    moe_free(host, csv->fields);
    moe_free(host, csv->is_target);
    moe_free(host, csv->names);
    moe_free(host, csv->name_text);
    *csv = (struct moe_csv){0};
}
