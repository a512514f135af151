// SPDX-License-Identifier: MIT
#include "scratch.h"

#include "check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[64];

int scratch_setup(void **state)
{
    (void) state;
    snprintf(folder, sizeof folder, "scratch-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

const char *scratch_folder(void)
{
    return folder;
}

const char *scratch_path(const char *name)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

const char *scratch_file(const char *name, const void *data, size_t size)
{
    const char *path = scratch_path(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
    return path;
}

const char *scratch_text(const char *name, const char *text)
{
    return scratch_file(name, text, strlen(text));
}

// Counts the files, and removes them when asked to.
static int walk(bool remove)
{
    DIR *dir = opendir(folder);
    int n = 0;
    if (!dir)
        return -1;
    for (struct dirent *entry; (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        n++;
        if (remove)
            unlink(scratch_path(entry->d_name));
    }
    closedir(dir);
    return n;
}

int scratch_count(void)
{
    return walk(false);
}

int scratch_teardown(void **state)
{
    (void) state;
    walk(true);
    return rmdir(folder);
}
