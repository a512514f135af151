// SPDX-License-Identifier: MIT
// Text -> numbers of table rows ("tokens"); include/vkmoe/model.h defines them exactly.
#ifndef MOE_MODEL_TEXT_H
#define MOE_MODEL_TEXT_H

#include <vkmoe/vkmoe.h>

enum moe_text_unit {
    MOE_TEXT_BYTE,
    MOE_TEXT_CHARACTER,
    MOE_TEXT_WORD,
    MOE_TEXT_N_UNITS,
};

enum { MOE_TEXT_MAX_N = 8 };

struct moe_text_entry {
    const char *text; // borrowed
    uint32_t size;
    uint32_t row;
};

// What is cut out of a text, and which row each piece has.
struct moe_text {
    uint32_t n_grams[MOE_TEXT_N_UNITS]; // bit n - 1: pieces of n units
    bool lower;
    uint32_t max_tokens; // of one text; what is behind them is left out
    uint32_t n_rows;     // of the table
    const struct moe_text_entry *vocabulary; // (n_entries) sorted; NULL: hashed
    uint32_t n_entries;
};

// Tokens of one text, at least one: a text without any has row 0.
//   text    (size) bytes, any
//   tokens  room for text->max_tokens; NULL: only counted
//   n       how many, 1..max_tokens
// VKMOE_E_MEMORY: the normalised text is held in memory.
enum vkmoe_status moe_text_tokens(const struct moe_text *rules, const vkmoe_host *host,
                                  const char *text, size_t size, int32_t *tokens, uint32_t *n);

// Order of entries, for qsort.
int moe_text_compare(const void *a, const void *b);

// Bytes of the UTF-8 sequence at `at`, where at least one byte is left; 0: no valid one.
uint32_t moe_utf8_size(const char *at, size_t left);

// Row of one piece.
uint32_t moe_text_row(const struct moe_text *rules, enum moe_text_unit unit, const char *piece,
                      size_t size);

#endif
