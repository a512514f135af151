// SPDX-License-Identifier: MIT
// The public face of the NPY writer.
#include <vkmoe/model.h>

#include "base/host.h"
#include "base/status.h"
#include "model/npy.h"

struct vkmoe_array_writer {
    vkmoe_host host;
    struct moe_npy_writer npy;
};

enum vkmoe_status vkmoe_array_create(const vkmoe_host *host, const char *path,
                                     enum vkmoe_array_type type, uint32_t n_columns,
                                     vkmoe_array_writer **out)
{
    enum vkmoe_status status;
    vkmoe_array_writer *writer = NULL;
    vkmoe_host services;
    if (!path || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_array_create: %s is NULL", path ? "out" : "path");
    *out = NULL;
    if (type != VKMOE_ARRAY_F32 && type != VKMOE_ARRAY_I32)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_array_create: type = %u: 0 or 1", (unsigned) type);
    TRY(moe_host_init(&services, host));
    TRY(moe_try_alloc(&services, sizeof *writer, "array writer", &writer));
    writer->host = services;
    TRY(moe_npy_create(&writer->host, path, type == VKMOE_ARRAY_I32, n_columns, &writer->npy));
    *out = writer;
    return VKMOE_OK;

fail:
    vkmoe_array_destroy(writer);
    return status;
}

enum vkmoe_status vkmoe_array_append(vkmoe_array_writer *writer, uint32_t n_rows, const void *rows)
{
    if (!writer || !rows || !writer->npy.file)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_array_append: %s",
                        !writer ? "writer is NULL" : !rows ? "rows is NULL" : "it is finished");
    return moe_npy_append(&writer->npy, rows, n_rows);
}

enum vkmoe_status vkmoe_array_finish(vkmoe_array_writer *writer)
{
    if (!writer || !writer->npy.file)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_array_finish: %s",
                        writer ? "it is finished" : "writer is NULL");
    return moe_npy_commit(&writer->npy);
}

void vkmoe_array_destroy(vkmoe_array_writer *writer)
{
    if (!writer)
        return;
    const vkmoe_host host = writer->host;
    moe_npy_discard(&writer->npy);
    moe_free(&host, writer);
}
