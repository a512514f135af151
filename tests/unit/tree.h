// SPDX-License-Identifier: MIT
// A folder with folders in it, of a test's own: stands for /sys and /proc.
#ifndef TESTS_UNIT_TREE_H
#define TESTS_UNIT_TREE_H

// cmocka setup and teardown of each test; the folder is made in the current one.
int tree_setup(void **state);
int tree_teardown(void **state);

const char *tree_root(void);

// Writes a text to a file at `path` ("/sys/...") below the root, with the folders it is in.
void tree_write(const char *path, const char *text);

void tree_remove(const char *path);

#endif
