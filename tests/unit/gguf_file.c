// SPDX-License-Identifier: MIT
#include "gguf_file.h"

#include "check.h"
#include "scratch.h"

#include <stdlib.h>

static unsigned char bytes[3 << 20];
static size_t size;

static void put(const void *data, size_t n)
{
    assert_true(n <= sizeof bytes - size);
    memcpy(bytes + size, data, n);
    size += n;
}

static void put_number(uint64_t number, size_t n)
{
    unsigned char little[8];
    for (size_t i = 0; i < n; i++)
        little[i] = (unsigned char) (number >> (8 * i));
    put(little, n);
}

static void put_zeros(size_t n)
{
    while (n-- > 0)
        put_number(0, 1);
}

static const char *put_quoted(const char *at, bool has_size)
{
    const char *end = strchr(at, '\'');
    assert_non_null(end);
    if (has_size)
        put_number((uint64_t) (end - at), 8);
    put(at, (size_t) (end - at));
    return end + 1;
}

static const char *put_float(const char *at)
{
    char *end;
    double value = strtod(at + 2, &end);
    float single = (float) value;
    put(*at == 'f' ? (void *) &single : &value, *at == 'f' ? 4 : 8);
    return end;
}

static const char *put_word(const char *at)
{
    char *end;
    if (at[0] == '\'')
        return put_quoted(at + 1, false);
    if (at[0] == 't')
        return put_quoted(at + 2, true);
    if (at[0] == 'f' || at[0] == 'd')
        return put_float(at);
    unsigned long long number = strtoull(at + (at[0] == '*' || at[0] == '~' || at[0] == '+'),
                                         &end, 0);
    if (at[0] == '~')
        put_zeros((number - size % number) % number);
    else if (at[0] == '+')
        put_zeros(number);
    else {
        assert_true(*end == '=' && number <= 8);
        put_number(strtoull(end + 1, &end, 0), number);
    }
    return end;
}

static const char *put_words(const char *at)
{
    while (*at && *at != ')') {
        if (*at == ' ') {
            at++;
        } else if (*at == '*') {
            char *open;
            const char *end = at;
            for (unsigned long long n = strtoull(at + 1, &open, 0); n > 0; n--)
                end = put_words(open + 1);
            at = end + 1;
        } else
            at = put_word(at);
    }
    return at;
}

const char *gguf_file(const char *name, const char *notation)
{
    size = 0;
    put_words(notation);
    return scratch_file(name, bytes, size);
}
