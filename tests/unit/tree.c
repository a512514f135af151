// SPDX-License-Identifier: MIT
#include "tree.h"

#include "check.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[32];

int tree_setup(void **state)
{
    (void) state;
    snprintf(root, sizeof root, "tree-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place)
{
    (void) info, (void) kind, (void) place;
    return remove(path);
}

int tree_teardown(void **state)
{
    (void) state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

const char *tree_root(void)
{
    return root;
}

void tree_write(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *end = strchr(full + strlen(root) + 1, '/'); end; end = strchr(end + 1, '/')) {
        *end = '\0';
        assert_true(mkdir(full, 0777) == 0 || errno == EEXIST);
        *end = '/';
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

void tree_remove(const char *path)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    assert_int_equal(remove(full), 0);
}
