// SPDX-License-Identifier: MIT
#include "model/csv.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

enum {
    FIRST_ROOM = 1 << 16,
    MAX_LINE = 1 << 24,
};

// ---- lines -----------------------------------------------------------------------------------

// Makes `room` elements of `*array`, keeping the first n.
static enum vkmoe_status grow(const struct moe_csv *csv, void *array, size_t n, size_t room,
                              size_t element)
{
    void *old, *new;
    memcpy(&old, array, sizeof old);
    enum vkmoe_status status = moe_try_alloc(csv->host, room * element, csv->path, &new);
    if (status != VKMOE_OK)
        return status;
    if (n > 0)
        memcpy(new, old, n * element);
    moe_free(csv->host, old);
    memcpy(array, &new, sizeof new);
    return VKMOE_OK;
}

// Reads more bytes behind those at hand; *more is false at the end of the file.
static enum vkmoe_status refill(struct moe_csv *csv, bool *more)
{
    memmove(csv->buffer, csv->buffer + csv->begin, csv->end - csv->begin);
    csv->end -= csv->begin;
    csv->begin = 0;
    if (csv->end + 1 == csv->room) {
        if (csv->room >= MAX_LINE)
            return moe_fail(VKMOE_E_DATA, "%s: line %llu: longer than %d bytes", csv->path,
                            (unsigned long long) csv->line, MAX_LINE);
        enum vkmoe_status status = grow(csv, &csv->buffer, csv->end, csv->room * 2, 1);
        if (status != VKMOE_OK)
            return status;
        csv->room *= 2;
    }
    // One byte stays free for the end of a last line without a line end.
    size_t n = fread(csv->buffer + csv->end, 1, csv->room - csv->end - 1, csv->file);
    if (n == 0 && ferror(csv->file))
        return moe_fail(VKMOE_E_IO, "%s: cannot read: %s", csv->path, strerror(errno));
    csv->end += n;
    *more = n > 0;
    return VKMOE_OK;
}

// The next line, NUL-terminated in the buffer, valid until the next call; NULL at the end.
static enum vkmoe_status next_line(struct moe_csv *csv, char **line)
{
    enum vkmoe_status status;
    bool more = true;
    size_t searched = 0;
    char *end;
    csv->line++;
    while (true) {
        size_t n = csv->end - csv->begin;
        end = n > searched ? memchr(csv->buffer + csv->begin + searched, '\n', n - searched) : NULL;
        if (end || !more)
            break;
        searched = n;
        if ((status = refill(csv, &more)) != VKMOE_OK)
            return status;
    }
    *line = NULL;
    if (!end && csv->begin == csv->end)
        return VKMOE_OK;
    *line = csv->buffer + csv->begin;
    if (!end)
        end = csv->buffer + csv->end; // the spare byte
    csv->begin = (size_t) moe_min((size_t) (end - csv->buffer) + 1, csv->end);
    *end = '\0';
    if (strlen(*line) != (size_t) (end - *line))
        return moe_fail(VKMOE_E_DATA, "%s: line %llu: a zero byte: not a text file", csv->path,
                        (unsigned long long) csv->line);
    return VKMOE_OK;
}

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
    return moe_fail(VKMOE_E_DATA, "%s: line %llu, column %u: '%.40s' %s", csv->path,
                    (unsigned long long) csv->line, column + 1, csv->fields[column], what);
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
            enum vkmoe_status status = grow(csv, &csv->fields, *n, room, sizeof *csv->fields);
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
    while ((status = next_line(csv, &line)) == VKMOE_OK && line) {
        if (csv->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
            line += 3;
        char *first = skip_spaces(line);
        if (*first && *first != '#')
            return split(csv, line, n);
    }
    *n = 0;
    return status;
}

// ---- numbers ---------------------------------------------------------------------------------

// Digits with at most one point, 15 digits at most: the quotient of two exact f64 is correctly
// rounded. Nearly every number in a data file is of this form.
static bool parse_short(const char *text, double *out)
{
    static const double powers[] = {1,   1e1, 1e2, 1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    bool negative = *text == '-';
    const char *at = text + negative;
    uint64_t digits = 0;
    unsigned n_digits = 0, n_after = 0;
    bool point = false;
    for (; *at; at++) {
        if (*at == '.' && !point) {
            point = true;
            continue;
        }
        if (*at < '0' || *at > '9' || n_digits == 15)
            return false;
        digits = digits * 10 + (uint64_t) (*at - '0');
        n_digits++;
        n_after += point;
    }
    double value = (double) digits / powers[n_after];
    *out = negative ? -value : value;
    return n_digits > 0;
}

// Would the C library read the whole field as a number? Also true of nan, inf and hexadecimal.
static bool looks_numeric(const struct moe_csv *csv, const char *text, double *value)
{
    char *end;
    *value = strtod_l(text, &end, csv->locale);
    return end != text && !*end;
}

static enum vkmoe_status number(const struct moe_csv *csv, uint32_t column, float *out)
{
    const char *text = csv->fields[column];
    double value;
    if (!parse_short(text, &value)) {
        if (!*text)
            return fail_field(csv, column, "is empty, not a number");
        if (text[strspn(text, "0123456789+-.eE")] || !looks_numeric(csv, text, &value))
            return fail_field(csv, column, "is not a finite decimal number");
    }
    *out = (float) value;
    if (!isfinite(*out))
        return fail_field(csv, column, "is too large for f32");
    return VKMOE_OK;
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
    double value;
    const uint32_t n_names = looks_numeric(csv, text, &value) ? 0 : csv->n_columns;
    for (uint32_t i = 0; i < n_names; i++) {
        if (strcmp(csv->fields[i], text) == 0) {
            *column = i;
            *header = true;
            return VKMOE_OK;
        }
    }
    return moe_fail(VKMOE_E_ARGUMENT, "%s: no column '%s' among %u", csv->path, text,
                    csv->n_columns);
}

static enum vkmoe_status add_target(struct moe_csv *csv, uint32_t column)
{
    if (csv->is_target[column])
        return moe_fail(VKMOE_E_ARGUMENT, "%s: column %u is a target twice", csv->path, column + 1);
    if (csv->n_targets == MOE_CSV_MAX_TARGETS)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: more than %d targets", csv->path,
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
    double value;
    for (uint32_t i = 0; i < csv->n_columns; i++) {
        if (!csv->is_target[i] && (!*csv->fields[i] || looks_numeric(csv, csv->fields[i], &value)))
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
        return moe_fail(VKMOE_E_DATA, "%s: line %llu: %u columns, line %llu has %u", csv->path,
                        (unsigned long long) csv->line, n, (unsigned long long) csv->first_line,
                        csv->n_columns);
    *more = n > 0;
    return status;
}

enum vkmoe_status moe_csv_open(const vkmoe_host *host, const char *path, const char *targets,
                               struct moe_csv *out)
{
    enum vkmoe_status status;
    struct moe_csv csv = {.host = host, .path = path, .room = FIRST_ROOM};
    bool header = false, more = true;
    *out = (struct moe_csv){0};
    csv.file = fopen(path, "rbe");
    if (!csv.file)
        return moe_fail(VKMOE_E_IO, "%s: cannot open: %s", path, strerror(errno));
    csv.locale = newlocale(LC_ALL_MASK, "C", (locale_t) 0);
    if (!csv.locale) {
        status = moe_fail(VKMOE_E_MEMORY, "%s: locale", path);
        goto fail;
    }
    TRY(moe_try_alloc(host, csv.room, path, &csv.buffer));
    TRY(next_row(&csv, &csv.n_columns));
    csv.first_line = csv.line;
    if (csv.n_columns > 0) {
        TRY(moe_try_alloc(host, csv.n_columns * sizeof(bool), path, &csv.is_target));
        TRY(resolve_targets(&csv, targets, &header));
        csv.pending = true;
        if (header || is_header(&csv)) {
            csv.pending = false;
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
    if (csv->file)
        fclose(csv->file);
    if (csv->locale)
        freelocale(csv->locale);
    moe_free(csv->host, csv->buffer);
    moe_free(csv->host, csv->fields);
    moe_free(csv->host, csv->is_target);
    *csv = (struct moe_csv){0};
}
