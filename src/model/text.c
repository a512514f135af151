// SPDX-License-Identifier: MIT
#include "model/text.h"

#include "base/host.h"
#include "base/status.h"

#include <stdlib.h>

// A text being cut into pieces.
struct cutter {
    const struct moe_text *rules;
    const char *text; // normalised
    size_t size;
    char *joined;     // (size), words of a piece
    int32_t *tokens;  // NULL: only counted
    uint32_t n;
};

// ---- rows ------------------------------------------------------------------------------------

static uint64_t hash_piece(enum moe_text_unit unit, const char *piece, size_t size)
{
    static const char letters[] = {'b', 'c', 'w'};
    const uint64_t prime = 1099511628211u;
    uint64_t h = (14695981039346656037u ^ (unsigned char) letters[unit]) * prime;
    for (size_t i = 0; i < size; i++)
        h = (h ^ (unsigned char) piece[i]) * prime;
    return h ^ h >> 32;
}

int moe_text_compare(const void *a, const void *b)
{
    const struct moe_text_entry *x = a, *y = b;
    size_t size = x->size < y->size ? x->size : y->size;
    int order = memcmp(x->text, y->text, size);
    return order != 0 ? order : (x->size > y->size) - (x->size < y->size);
}

uint32_t moe_text_row(const struct moe_text *rules, enum moe_text_unit unit, const char *piece,
                      size_t size)
{
    if (!rules->vocabulary)
        return (uint32_t) (hash_piece(unit, piece, size) % rules->n_rows);
    const struct moe_text_entry key = {.text = piece, .size = (uint32_t) size};
    const struct moe_text_entry *found =
        bsearch(&key, rules->vocabulary, rules->n_entries, sizeof key, moe_text_compare);
    return found ? found->row : 0;
}

// ---- units -----------------------------------------------------------------------------------

static bool is_space(unsigned char c)
{
    return c == ' ' || (c >= 9 && c <= 13);
}

static bool is_word(unsigned char c)
{
    return c > 127 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           c == '_';
}

// Bytes of the UTF-8 sequence at `at`; 0: there is no valid one.
uint32_t moe_utf8_size(const char *at, size_t left)
{
    const unsigned char *s = (const unsigned char *) at;
    uint32_t size = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (size == 0 || s[0] > 0xf4 || size > left)
        return 0;
    for (uint32_t i = 1; i < size; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    // Overlong forms, surrogates, and what is above U+10FFFF.
    bool bad = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
               (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f);
    return bad ? 0 : size;
}

static size_t next_character(const struct cutter *c, size_t at)
{
    uint32_t size = moe_utf8_size(c->text + at, c->size - at);
    return at + (size ? size : 1);
}

static size_t end_of_word(const struct cutter *c, size_t at)
{
    while (at < c->size && is_word((unsigned char) c->text[at]))
        at++;
    return at;
}

static bool starts_word(const struct cutter *c, size_t at)
{
    return is_word((unsigned char) c->text[at]) &&
           (at == 0 || !is_word((unsigned char) c->text[at - 1]));
}

// ---- pieces ----------------------------------------------------------------------------------

static void add(struct cutter *c, enum moe_text_unit unit, const char *piece, size_t size)
{
    if (c->n == c->rules->max_tokens)
        return;
    if (c->tokens)
        c->tokens[c->n] = (int32_t) moe_text_row(c->rules, unit, piece, size);
    c->n++;
}

static void add_bytes(struct cutter *c, size_t at)
{
    for (uint32_t n = 1; n <= MOE_TEXT_MAX_N && at + n <= c->size; n++) {
        if (c->rules->n_grams[MOE_TEXT_BYTE] >> (n - 1) & 1)
            add(c, MOE_TEXT_BYTE, c->text + at, n);
    }
}

static void add_characters(struct cutter *c, size_t at)
{
    size_t end = at;
    for (uint32_t n = 1; n <= MOE_TEXT_MAX_N && end < c->size; n++) {
        end = next_character(c, end);
        if (c->rules->n_grams[MOE_TEXT_CHARACTER] >> (n - 1) & 1)
            add(c, MOE_TEXT_CHARACTER, c->text + at, end - at);
    }
}

static void add_words(struct cutter *c, size_t at)
{
    size_t size = 0;
    for (uint32_t n = 1; n <= MOE_TEXT_MAX_N && at < c->size; n++) {
        size_t end = end_of_word(c, at);
        if (n > 1)
            c->joined[size++] = ' ';
        memcpy(c->joined + size, c->text + at, end - at);
        size += end - at;
        if (c->rules->n_grams[MOE_TEXT_WORD] >> (n - 1) & 1)
            add(c, MOE_TEXT_WORD, c->joined, size);
        for (at = end; at < c->size && !is_word((unsigned char) c->text[at]);)
            at++;
    }
}

static void cut(struct cutter *c)
{
    size_t character = 0; // where the next one begins
    for (size_t at = 0; at < c->size && c->n < c->rules->max_tokens; at++) {
        if (c->rules->n_grams[MOE_TEXT_BYTE])
            add_bytes(c, at);
        if (at == character) {
            character = next_character(c, at);
            if (c->rules->n_grams[MOE_TEXT_CHARACTER])
                add_characters(c, at);
        }
        if (c->rules->n_grams[MOE_TEXT_WORD] && starts_word(c, at))
            add_words(c, at);
    }
}

// `out` has room for size + 2 bytes.
static size_t normalise(const struct moe_text *rules, const char *text, size_t size, char *out)
{
    size_t n = 0;
    out[n++] = ' ';
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (!is_space((unsigned char) c))
            out[n++] = (char) (rules->lower && c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
        else if (out[n - 1] != ' ')
            out[n++] = ' ';
    }
    if (out[n - 1] != ' ')
        out[n++] = ' ';
    return n;
}

enum vkmoe_status moe_text_tokens(const struct moe_text *rules, const vkmoe_host *host,
                                  const char *text, size_t size, int32_t *tokens, uint32_t *n)
{
    char *memory;
    if (size > SIZE_MAX / 2 - 2)
        return moe_fail(VKMOE_E_MEMORY, "text of %zu bytes", size);
    enum vkmoe_status status = moe_try_alloc(host, 2 * (size + 2), "text", &memory);
    if (status != VKMOE_OK)
        return status;
    struct cutter c = {.rules = rules, .text = memory, .joined = memory + size + 2};
    c.tokens = tokens;
    c.size = normalise(rules, text, size, memory);
    cut(&c);
    if (c.n == 0) {
        c.n = 1;
        if (tokens)
            tokens[0] = 0;
    }
    *n = c.n;
    moe_free(host, memory);
    return VKMOE_OK;
}
