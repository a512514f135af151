// SPDX-License-Identifier: MIT
#include "tokens.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

// Reads a number from 1 to 2^32 - 1 and moves on behind it.
static bool read_number(const char **at, uint32_t *out)
{
    char *end;
    if (**at < '0' || **at > '9')
        return false;
    errno = 0;
    unsigned long long value = strtoull(*at, &end, 10);
    if (errno || value == 0 || value > UINT32_MAX)
        return false;
    *at = end;
    *out = (uint32_t) value;
    return true;
}

static bool append(struct bench_tokens *out, uint32_t count)
{
    for (uint32_t i = 0; i < out->n; i++) {
        if (out->counts[i] == count)
            return true;
    }
    if (out->n == BENCH_MAX_TOKENS)
        return false;
    out->counts[out->n++] = count;
    return true;
}

struct range {
    uint32_t first, last, by;
    bool multiply;
};

// One item of the list; NULL, or what is wrong with it.
static const char *read_range(const char **at, struct range *out)
{
    *out = (struct range){.by = 1};
    if (!read_number(at, &out->first))
        return "needs numbers from 1 up";
    out->last = out->first;
    if (**at != '-')
        return NULL;
    ++*at;
    if (!read_number(at, &out->last))
        return "a range needs an end";
    if (out->last < out->first)
        return "a range goes up";
    if (**at != '*' && **at != '+')
        return NULL;
    out->multiply = **at == '*';
    ++*at;
    if (!read_number(at, &out->by))
        return "a range's step is a number from 1 up";
    return out->multiply && out->by == 1 ? "a range that is multiplied by 1 does not end" : NULL;
}

bool bench_tokens_parse(const char *text, struct bench_tokens *out, char *reason, size_t size)
{
    const char *at = text;
    for (;;) {
        struct range range;
        const char *wrong = read_range(&at, &range);
        if (!wrong && *at != ',' && *at != '\0')
            wrong = "items are N, A-B, A-B+N or A-B*N, with commas between them";
        if (wrong) {
            snprintf(reason, size, "'%s': %s", text, wrong);
            return false;
        }
        for (uint64_t n = range.first; n <= range.last;
             n = range.multiply ? n * range.by : n + range.by) {
            if (!append(out, (uint32_t) n)) {
                snprintf(reason, size, "'%s': more than %d counts", text, BENCH_MAX_TOKENS);
                return false;
            }
        }
        if (*at++ == '\0')
            return true;
    }
}
