// SPDX-License-Identifier: MIT
// Lines of `label<TAB>text`, or of text alone, in UTF-8.
//
// Blank lines are skipped; LF and CRLF end a line. A further tab is part of the text. Every error
// names the line.
#ifndef MOE_MODEL_TSV_H
#define MOE_MODEL_TSV_H

#include "model/lines.h"

struct moe_tsv {
    struct moe_lines lines;
    bool has_label; // each line has one
    char *label;    // of the line at hand; NULL without
    char *text;
    bool pending;   // the line at hand was read ahead
};

enum moe_tsv_label {
    MOE_TSV_LABEL,   // each line has one
    MOE_TSV_NONE,    // all of a line is text
    MOE_TSV_DECIDE,  // as the first line has a tab or not
};

// Opens a file and reads its first line. VKMOE_E_IO: cannot be read.  VKMOE_E_DATA: nothing in it,
// or a bad first line.
enum vkmoe_status moe_tsv_open(const vkmoe_host *host, const char *path, enum moe_tsv_label label,
                               struct moe_tsv *out);
void moe_tsv_close(struct moe_tsv *tsv); // a zeroed one is fine

// Goes to the next line; *more is false after the last one.
enum vkmoe_status moe_tsv_next(struct moe_tsv *tsv, bool *more);

#endif
