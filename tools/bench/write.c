// SPDX-License-Identifier: MIT
// Printing results: the whole text first, so that a file of it appears whole or not at all.
#include "fields.h"

#include <vkmoe/model.h>

#include <stdlib.h>

static enum vkmoe_status make_text(const struct bench_file *file, enum bench_format format,
                                   char **text, size_t *size)
{
    static void (*const writers[])(const struct bench_file *, struct bench_out *) = {
        [BENCH_MD] = bench_write_md,
        [BENCH_CSV] = bench_write_csv,
        [BENCH_JSON] = bench_write_json,
    };
    struct bench_out out = {open_memstream(text, size), false};
    struct bench_file named = *file; // whatever was read, this is what is written
    snprintf(named.schema, sizeof named.schema, "%s", BENCH_SCHEMA);
    if (out.stream)
        writers[format](&named, &out);
    if (out.stream && fclose(out.stream) == 0 && !out.failed)
        return VKMOE_OK;
    return bench_refuse(VKMOE_E_MEMORY, "no memory for the text of %u rows",
                        (unsigned) file->n_rows);
}

static enum vkmoe_status put_file(const char *path, const char *text, size_t size)
{
    enum vkmoe_status status;
    vkmoe_file_writer *writer = NULL;
    CLI_TRY(vkmoe_file_create(NULL, path, &writer));
    CLI_TRY(vkmoe_file_write(writer, text, size));
    CLI_TRY(vkmoe_file_finish(writer));

fail:
    vkmoe_file_destroy(writer);
    return status;
}

enum vkmoe_status bench_file_write(const struct bench_file *file, enum bench_format format,
                                   const char *path)
{
    char *text = NULL;
    size_t size = 0;
    enum vkmoe_status status = make_text(file, format, &text, &size);
    if (status == VKMOE_OK && path)
        status = put_file(path, text, size);
    else if (status == VKMOE_OK && fwrite(text, 1, size, stdout) != size)
        status = bench_refuse(VKMOE_E_IO, "standard output could not be written");
    free(text);
    return status;
}
