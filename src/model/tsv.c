// SPDX-License-Identifier: MIT
#include "model/tsv.h"

#include "base/status.h"
#include "model/text.h"

static enum vkmoe_status fail_line(const struct moe_tsv *tsv, const char *what)
{
    return moe_fail(VKMOE_E_DATA, "%s: line %llu: %s", tsv->lines.path,
                    (unsigned long long) tsv->lines.line, what);
}

static enum vkmoe_status check_utf8(const struct moe_tsv *tsv, const char *line)
{
    size_t size = strlen(line);
    for (size_t at = 0; at < size;) {
        uint32_t n = moe_utf8_size(line + at, size - at);
        if (n == 0)
            return moe_fail(VKMOE_E_DATA, "%s: line %llu, byte %zu: 0x%02x is not UTF-8 here",
                            tsv->lines.path, (unsigned long long) tsv->lines.line, at + 1,
                            (unsigned) (unsigned char) line[at]);
        at += n;
    }
    return VKMOE_OK;
}

static bool is_blank(const char *text)
{
    return text[strspn(text, " \t\v\f\r")] == '\0';
}

// The next line that is not blank; NULL at the end.
static enum vkmoe_status next_line(struct moe_tsv *tsv, char **line)
{
    enum vkmoe_status status;
    while ((status = moe_lines_next(&tsv->lines, line)) == VKMOE_OK && *line) {
        size_t size = strlen(*line);
        if (size > 0 && (*line)[size - 1] == '\r')
            (*line)[size - 1] = '\0';
        if (!is_blank(*line))
            return check_utf8(tsv, *line);
    }
    return status;
}

static enum vkmoe_status cut(struct moe_tsv *tsv, char *line)
{
    tsv->label = NULL;
    tsv->text = line;
    if (!tsv->has_label)
        return VKMOE_OK;
    char *tab = strchr(line, '\t');
    if (!tab)
        return fail_line(tsv, "no tab between a label and a text");
    *tab = '\0';
    tsv->label = line;
    tsv->text = tab + 1;
    if (is_blank(tsv->label))
        return fail_line(tsv, "no label in front of the tab");
    if (is_blank(tsv->text))
        return fail_line(tsv, "no text behind the tab");
    return VKMOE_OK;
}

enum vkmoe_status moe_tsv_open(const vkmoe_host *host, const char *path, enum moe_tsv_label label,
                               struct moe_tsv *out)
{
    enum vkmoe_status status;
    struct moe_tsv tsv = {.has_label = label == MOE_TSV_LABEL};
    char *line = NULL;
    *out = (struct moe_tsv){0};
    TRY(moe_lines_open(host, path, &tsv.lines));
    TRY(next_line(&tsv, &line));
    if (!line) {
        status = moe_fail(VKMOE_E_DATA, "%s: no lines of text", path);
        goto fail;
    }
    if (label == MOE_TSV_DECIDE)
        tsv.has_label = strchr(line, '\t') != NULL;
    TRY(cut(&tsv, line));
    tsv.pending = true;
    *out = tsv;
    return VKMOE_OK;

fail:
    moe_tsv_close(&tsv);
    return status;
}

void moe_tsv_close(struct moe_tsv *tsv)
{
    moe_lines_close(&tsv->lines);
    *tsv = (struct moe_tsv){0};
}

enum vkmoe_status moe_tsv_next(struct moe_tsv *tsv, bool *more)
{
    char *line;
    *more = true;
    if (tsv->pending) {
        tsv->pending = false;
        return VKMOE_OK;
    }
    enum vkmoe_status status = next_line(tsv, &line);
    *more = status == VKMOE_OK && line;
    return *more ? cut(tsv, line) : status;
}
