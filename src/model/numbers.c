// SPDX-License-Identifier: MIT
// Whole numbers of a .npy file, piece by piece.
#include <vkmoe/model.h>

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "model/npy.h"

struct vkmoe_number_reader {
    vkmoe_host host;
    struct moe_npy npy;
    char *path;
    uint64_t n, n_read;
};

static enum vkmoe_status check(const struct moe_npy *npy)
{
    if (!npy->is_integer)
        return moe_fail(VKMOE_E_DATA, "%s: not whole numbers, which are <i4 or <i8", npy->path);
    if (npy->n_dims != 1 && (npy->n_dims != 2 || npy->dims[1] != 1))
        return moe_fail(VKMOE_E_DATA, "%s: %u dimensions%s: one number for each row, so (n) or "
                        "(n, 1)", npy->path, npy->n_dims,
                        npy->n_dims == 2 ? ", a row of many" : "");
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_numbers_open(const vkmoe_host *host, const char *path,
                                     vkmoe_number_reader **out, uint64_t *n_numbers)
{
    enum vkmoe_status status;
    vkmoe_number_reader *reader = NULL;
    vkmoe_host services;
    if (!path || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_numbers_open: %s is NULL", path ? "out" : "path");
    *out = NULL;
    TRY(moe_host_init(&services, host));
    TRY(moe_try_alloc(&services, sizeof *reader, "reader of numbers", &reader));
    reader->host = services;
    TRY(moe_try_alloc(&services, strlen(path) + 1, "path", &reader->path));
    strcpy(reader->path, path);
    TRY(moe_npy_open(reader->path, &reader->npy));
    TRY(check(&reader->npy));
    reader->n = reader->npy.dims[0];
    if (n_numbers)
        *n_numbers = reader->n;
    *out = reader;
    return VKMOE_OK;

fail:
    vkmoe_numbers_destroy(reader);
    return status;
}

enum vkmoe_status vkmoe_numbers_read(vkmoe_number_reader *reader, uint32_t *n, int32_t *out)
{
    if (!reader || !n || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_numbers_read: %s is NULL",
                        !reader ? "reader" : n ? "out" : "n");
    *n = (uint32_t) moe_min(*n, reader->n - reader->n_read);
    enum vkmoe_status status = moe_npy_read_i32(&reader->npy, reader->n_read, *n, out);
    if (status == VKMOE_OK)
        reader->n_read += *n;
    return status;
}

void vkmoe_numbers_destroy(vkmoe_number_reader *reader)
{
    if (!reader)
        return;
    const vkmoe_host host = reader->host;
    moe_npy_close(&reader->npy);
    moe_free(&host, reader->path);
    moe_free(&host, reader);
}
