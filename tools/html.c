// SPDX-License-Identifier: MIT
#include "html.h"

#include <string.h>

static void put(FILE *page, const char *text, const char *end)
{
    for (const char *c = text; c < end; c++) {
        if (*c == '&')
            fputs("&amp;", page);
        else if (*c == '<')
            fputs("&lt;", page);
        else if (*c == '>')
            fputs("&gt;", page);
        else if (*c == '"')
            fputs("&quot;", page);
        else
            fputc((unsigned char) *c < ' ' ? ' ' : *c, page);
    }
}

void html_text(FILE *page, const char *text)
{
    put(page, text, text + strlen(text));
}

void html_short(FILE *page, const char *text, uint32_t most)
{
    uint32_t n = 0;
    const char *end = text;
    for (; *end; end++) { // bytes of UTF-8 that continue a character do not count
        if (((unsigned char) *end & 0xc0) != 0x80 && ++n > most)
            break;
    }
    put(page, text, end);
    if (*end)
        fputs("\u2026", page);
}
