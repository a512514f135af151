// SPDX-License-Identifier: MIT
// The public face of base/file: files that appear whole or never.
#include <vkmoe/model.h>

#include "base/file.h"
#include "base/host.h"
#include "base/status.h"

struct vkmoe_file_writer {
    vkmoe_host host;
    struct moe_file_writer *file; // NULL: finished
};

enum vkmoe_status vkmoe_file_create(const vkmoe_host *host, const char *path,
                                    vkmoe_file_writer **out)
{
    enum vkmoe_status status;
    vkmoe_file_writer *writer = NULL;
    vkmoe_host services;
    if (!path || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_file_create: %s is NULL", path ? "out" : "path");
    *out = NULL;
    TRY(moe_host_init(&services, host));
    TRY(moe_try_alloc(&services, sizeof *writer, "file writer", &writer));
    writer->host = services;
    TRY(moe_file_create(&writer->host, path, &writer->file));
    *out = writer;
    return VKMOE_OK;

fail:
    vkmoe_file_destroy(writer);
    return status;
}

enum vkmoe_status vkmoe_file_write(vkmoe_file_writer *writer, const void *data, size_t size)
{
    if (!writer || !data || !writer->file)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_file_write: %s",
                        !writer ? "writer is NULL" : !data ? "data is NULL" : "it is finished");
    return moe_file_write(writer->file, data, size);
}

enum vkmoe_status vkmoe_file_finish(vkmoe_file_writer *writer)
{
    if (!writer || !writer->file)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_file_finish: %s",
                        writer ? "it is finished" : "writer is NULL");
    struct moe_file_writer *file = writer->file;
    writer->file = NULL;
    return moe_file_commit(file);
}

void vkmoe_file_destroy(vkmoe_file_writer *writer)
{
    if (!writer)
        return;
    const vkmoe_host host = writer->host;
    moe_file_discard(writer->file);
    moe_free(&host, writer);
}
