// SPDX-License-Identifier: MIT
#include "model/lines.h"

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

enum vkmoe_status moe_lines_open(const vkmoe_host *host, const char *path, struct moe_lines *out)
{
    enum vkmoe_status status;
    struct moe_lines lines = {.host = host, .path = path, .room = FIRST_ROOM};
    *out = (struct moe_lines){0};
    lines.file = fopen(path, "rbe");
    if (!lines.file)
        return moe_fail(VKMOE_E_IO, "%s: cannot open: %s", path, strerror(errno));
    lines.locale = newlocale(LC_ALL_MASK, "C", (locale_t) 0);
    if (!lines.locale) {
        status = moe_fail(VKMOE_E_MEMORY, "%s: locale", path);
        goto fail;
    }
    TRY(moe_try_alloc(host, lines.room, path, &lines.buffer));
    *out = lines;
    return VKMOE_OK;

fail:
    moe_lines_close(&lines);
    return status;
}

void moe_lines_close(struct moe_lines *lines)
{
    if (lines->file)
        fclose(lines->file);
    if (lines->locale)
        freelocale(lines->locale);
    moe_free(lines->host, lines->buffer);
    *lines = (struct moe_lines){0};
}

enum vkmoe_status moe_lines_grow(const struct moe_lines *lines, void *array, size_t n, size_t room,
                                 size_t element)
{
    void *old, *new;
    memcpy(&old, array, sizeof old);
    enum vkmoe_status status = moe_try_alloc(lines->host, room * element, lines->path, &new);
    if (status != VKMOE_OK)
        return status;
    if (n > 0)
        memcpy(new, old, n * element);
    moe_free(lines->host, old);
    memcpy(array, &new, sizeof new);
    return VKMOE_OK;
}

// Reads more bytes behind those at hand; *more is false at the end of the file.
static enum vkmoe_status refill(struct moe_lines *lines, bool *more)
{
    memmove(lines->buffer, lines->buffer + lines->begin, lines->end - lines->begin);
    lines->end -= lines->begin;
    lines->begin = 0;
    if (lines->end + 1 == lines->room) {
        if (lines->room >= MAX_LINE)
            return moe_fail(VKMOE_E_DATA, "%s: line %llu: longer than %d bytes", lines->path,
                            (unsigned long long) lines->line, MAX_LINE);
        enum vkmoe_status status =
            moe_lines_grow(lines, &lines->buffer, lines->end, lines->room * 2, 1);
        if (status != VKMOE_OK)
            return status;
        lines->room *= 2;
    }
    // One byte stays free for the end of a last line without a line end.
    size_t n = fread(lines->buffer + lines->end, 1, lines->room - lines->end - 1, lines->file);
    if (n == 0 && ferror(lines->file))
        return moe_fail(VKMOE_E_IO, "%s: cannot read: %s", lines->path, strerror(errno));
    lines->end += n;
    *more = n > 0;
    return VKMOE_OK;
}

enum vkmoe_status moe_lines_next(struct moe_lines *lines, char **line)
{
    enum vkmoe_status status;
    bool more = true;
    size_t searched = 0;
    char *end;
    lines->line++;
    while (true) {
        size_t n = lines->end - lines->begin;
        char *from = lines->buffer + lines->begin + searched;
        end = n > searched ? memchr(from, '\n', n - searched) : NULL;
        if (end || !more)
            break;
        searched = n;
        if ((status = refill(lines, &more)) != VKMOE_OK)
            return status;
    }
    *line = NULL;
    if (!end && lines->begin == lines->end)
        return VKMOE_OK;
    *line = lines->buffer + lines->begin;
    if (!end)
        end = lines->buffer + lines->end; // the spare byte
    lines->begin = (size_t) moe_min((size_t) (end - lines->buffer) + 1, lines->end);
    *end = '\0';
    if (strlen(*line) != (size_t) (end - *line))
        return moe_fail(VKMOE_E_DATA, "%s: line %llu: a zero byte: not a text file", lines->path,
                        (unsigned long long) lines->line);
    if (lines->line == 1 && strncmp(*line, "\xef\xbb\xbf", 3) == 0)
        *line += 3;
    return VKMOE_OK;
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

static bool parse(const struct moe_lines *lines, const char *text, double *value)
{
    char *end;
    *value = strtod_l(text, &end, lines->locale);
    return end != text && !*end;
}

bool moe_lines_looks_numeric(const struct moe_lines *lines, const char *text)
{
    double value;
    return parse(lines, text, &value);
}

const char *moe_lines_number(const struct moe_lines *lines, const char *text, float *out)
{
    double value;
    if (!parse_short(text, &value)) {
        if (!*text)
            return "is empty, not a number";
        if (text[strspn(text, "0123456789+-.eE")] || !parse(lines, text, &value))
            return "is not a finite decimal number";
    }
    *out = (float) value;
    return isfinite(*out) ? NULL : "is too large for f32";
}
