// SPDX-License-Identifier: MIT
#include "source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { MAX_DESC_SIZE = 1 << 20 };

bool source_is_published(const char *path)
{
    struct stat info;
    char magic[4] = "";
    if (stat(path, &info) != 0)
        return false;
    if (S_ISDIR(info.st_mode))
        return true;
    FILE *file = S_ISREG(info.st_mode) ? fopen(path, "rbe") : NULL;
    bool is_gguf = file && fread(magic, 1, sizeof magic, file) == sizeof magic &&
                   memcmp(magic, "GGUF", sizeof magic) == 0;
    if (file)
        fclose(file);
    return is_gguf;
}

// The whole file, to be freed.
static enum vkmoe_status read_text(const char *path, char **out)
{
    enum vkmoe_status status = VKMOE_OK;
    char text[512];
    FILE *file = fopen(path, "rbe");
    if (!file) {
        snprintf(text, sizeof text, "%.300s: cannot open: %s", path, strerror(errno));
        vkmoe_error_set(text);
        return VKMOE_E_IO;
    }
    CLI_TRY(cli_alloc(1, MAX_DESC_SIZE + 1, 1, out));
    size_t n = fread(*out, 1, MAX_DESC_SIZE + 1, file);
    if (ferror(file) || n > MAX_DESC_SIZE || memchr(*out, 0, n)) {
        snprintf(text, sizeof text, "%.300s: %s", path,
                 ferror(file)        ? strerror(errno)
                 : n > MAX_DESC_SIZE ? "more than 1 MiB: no description of a layer"
                                     : "a zero byte: no text");
        vkmoe_error_set(text);
        CLI_TRY(VKMOE_E_DATA);
    }

fail:
    fclose(file);
    return status;
}

enum vkmoe_status source_open(const vkmoe_host *host, const char *path, const char *assume,
                              const char *desc_path, vkmoe_checkpoint **out)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_checkpoint_desc desc = vkmoe_checkpoint_desc_init();
    char *text = NULL;
    if (desc_path)
        CLI_TRY(read_text(desc_path, &text));
    desc.host = host;
    desc.assume = assume;
    desc.description = text;
    CLI_TRY(vkmoe_checkpoint_open(path, &desc, out));

fail:
    free(text);
    return status;
}
