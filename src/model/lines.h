// SPDX-License-Identifier: MIT
// The lines of a text file, read one at a time in bounded memory, and numbers in them.
#ifndef MOE_MODEL_LINES_H
#define MOE_MODEL_LINES_H

#include <vkmoe/vkmoe.h>

#include <locale.h>
#include <stdio.h>

struct moe_lines {
    const vkmoe_host *host;
    const char *path; // borrowed
    FILE *file;
    locale_t locale;  // "C"
    char *buffer;     // the bytes [begin, end) of it are read and not used yet
    size_t room, begin, end;
    uint64_t line;    // number of the line at hand, from 1
};

// VKMOE_E_IO: cannot be read. `path` is borrowed until close.
enum vkmoe_status moe_lines_open(const vkmoe_host *host, const char *path, struct moe_lines *out);
void moe_lines_close(struct moe_lines *lines); // a zeroed one is fine

// The next line without its LF and without a UTF-8 byte order mark, zero-terminated, writable and
// valid until the next call; NULL at the end. VKMOE_E_DATA: too long, or a zero byte in it.
enum vkmoe_status moe_lines_next(struct moe_lines *lines, char **line);

// Makes `room` elements of `*array`, keeping the first n.
enum vkmoe_status moe_lines_grow(const struct moe_lines *lines, void *array, size_t n, size_t room,
                                 size_t element);

// Reads a decimal number that is finite in f32; NULL, or what is wrong with the text.
const char *moe_lines_number(const struct moe_lines *lines, const char *text, float *out);

// Would the C library read the whole text as a number? Also true of nan, inf and hexadecimal.
bool moe_lines_looks_numeric(const struct moe_lines *lines, const char *text);

#endif
