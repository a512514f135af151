// SPDX-License-Identifier: MIT
// A folder of a test's own, removed with what is in it.
#ifndef TESTS_UNIT_SCRATCH_H
#define TESTS_UNIT_SCRATCH_H

#include <stddef.h>

// cmocka group functions. The folder is made in the current one.
int scratch_setup(void **state);
int scratch_teardown(void **state);

const char *scratch_folder(void);

// Path of a file in the folder; valid for the next three calls.
const char *scratch_path(const char *name);

// Writes a file and returns its path.
const char *scratch_file(const char *name, const void *data, size_t size);
const char *scratch_text(const char *name, const char *text);

// Number of files in the folder, temporary ones included.
int scratch_count(void);

#endif
