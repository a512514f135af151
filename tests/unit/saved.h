// SPDX-License-Identifier: MIT
// A file of each format that the library saves, with one of two contents.
#ifndef TESTS_UNIT_SAVED_H
#define TESTS_UNIT_SAVED_H

#include <stdint.h>
#include <sys/types.h>
#include <vkmoe/vkmoe.h>

enum { SAVED_N_FORMATS = 2 };

extern const struct saved_format {
    const char *name; // of its file
    enum vkmoe_status (*save)(const char *path, int content); // 0 or 1
    uint64_t (*load)(const char *path, float *out);
} saved_formats[SAVED_N_FORMATS];

int saved_setup(void **state); // cmocka's, in place of scratch_setup

// Which content the file in the scratch folder has; anything but a whole one fails the test.
int saved_content(const struct saved_format *format);

// A save by this process, after which there is nothing but the file.
void saved_here(const struct saved_format *format, int content);

void saved_kill(pid_t child); // at work on a save

#endif
