// SPDX-License-Identifier: MIT
// Where a value stands in JSON text. The parser does not keep that, so the text is looked through
// again when there is an error to tell; it is known to be well-formed then.
#include "fields.h"

#include <stdlib.h>

struct place {
    const char *at, *end;
};

static char here(const struct place *p)
{
    return p->at < p->end ? *p->at : '\0';
}

static void skip_space(struct place *p)
{
    while (p->at < p->end && strchr(" \t\r\n", *p->at))
        p->at++;
}

static void skip_string(struct place *p)
{
    for (p->at++; p->at < p->end && *p->at != '"'; p->at++) {
        if (*p->at == '\\')
            p->at++;
    }
    p->at++;
}

static void skip_value(struct place *p)
{
    int depth = 0;
    do {
        char c = here(p);
        if (c == '"') {
            skip_string(p);
            continue;
        }
        if (depth == 0 && (c == ',' || c == '}' || c == ']'))
            return; // the end of a number or a word
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        p->at++;
        if (depth == 0 && (c == '}' || c == ']'))
            return;
    } while (p->at < p->end);
}

// From "{" to the value of the member of that name.
static bool enter_member(struct place *p, const char *name, size_t size)
{
    if (here(p) != '{')
        return false;
    do {
        p->at++;
        skip_space(p);
        const char *key = p->at + 1;
        if (here(p) != '"')
            return false;
        skip_string(p);
        bool found = p->at - 1 >= key && (size_t) (p->at - 1 - key) == size &&
                     memcmp(key, name, size) == 0;
        skip_space(p);
        p->at++; // the colon
        skip_space(p);
        if (found)
            return true;
        skip_value(p);
        skip_space(p);
    } while (here(p) == ',');
    return false;
}

static bool enter_item(struct place *p, unsigned long index)
{
    if (here(p) != '[')
        return false;
    p->at++;
    skip_space(p);
    for (unsigned long i = 0; i < index; i++) {
        skip_value(p);
        skip_space(p);
        if (here(p) != ',')
            return false;
        p->at++;
        skip_space(p);
    }
    return p->at < p->end;
}

// Goes one step of the path, which is moved on.
static bool enter(struct place *p, const char **path)
{
    if (**path == '[') {
        char *rest;
        unsigned long index = strtoul(*path + 1, &rest, 10);
        *path = rest + (*rest == ']');
        return enter_item(p, index);
    }
    const char *name = *path + (**path == '.');
    size_t size = strcspn(name, ".[");
    *path = name + size;
    return enter_member(p, name, size);
}

uint32_t bench_json_line(const char *text, size_t size, const char *path)
{
    struct place p = {text, text + size}, next;
    skip_space(&p);
    for (next = p; *path && enter(&next, &path);)
        p = next;
    uint32_t line = 1;
    for (const char *c = text; c < p.at && c < p.end; c++)
        line += *c == '\n';
    return line;
}
