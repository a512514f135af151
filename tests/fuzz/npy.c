// SPDX-License-Identifier: MIT
// Bytes: an NPY file. What is accepted is read to its end, written as f4 and read again.
#include "fuzz.h"

#include "model/npy.h"

#include <stdlib.h>

// All elements as f32, in memory of just their size; reads in two parts.
static float *read_all(struct moe_npy *npy, size_t *n)
{
    uint64_t n_elements = 1;
    for (uint32_t i = 0; i < npy->n_dims; i++)
        n_elements *= npy->dims[i];
    *n = (size_t) n_elements;
    float *values = malloc(*n * sizeof *values + !*n), more;
    FUZZ_CHECK(values);
    size_t first = *n / 3;
    FUZZ_CHECK(moe_npy_read(npy, first, values) == VKMOE_OK);
    FUZZ_CHECK(moe_npy_read(npy, *n - first, values + first) == VKMOE_OK);
    FUZZ_CHECK(moe_npy_read(npy, 1, &more) == VKMOE_E_DATA);
    FUZZ_CHECK(*vkmoe_error_text());
    return values;
}

static void write_again(const char *path, uint64_t n_rows, uint64_t n_columns, const float *values)
{
    struct moe_npy_writer writer;
    uint64_t first = n_rows / 2;
    FUZZ_CHECK(moe_npy_create(fuzz_host(), path, false, n_columns, &writer) == VKMOE_OK);
    FUZZ_CHECK(moe_npy_append(&writer, values, first) == VKMOE_OK);
    FUZZ_CHECK(moe_npy_append(&writer, values + first * n_columns, n_rows - first) == VKMOE_OK);
    FUZZ_CHECK(moe_npy_commit(&writer) == VKMOE_OK);
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    struct moe_npy npy;
    size_t n, n_again;
    const char *again = scratch_path("again.npy");
    if (!fuzz_accepted(moe_npy_open(scratch_file("a.npy", data, size), &npy))) {
        FUZZ_CHECK(!npy.file);
        return false;
    }
    FUZZ_CHECK(npy.n_dims <= MOE_NPY_MAX_DIMS);
    float *values = read_all(&npy, &n);
    FUZZ_CHECK(n * npy.element_size < size);
    if (npy.n_dims == 2) {
        struct moe_npy copy;
        write_again(again, npy.dims[0], npy.dims[1], values);
        FUZZ_CHECK(moe_npy_open(again, &copy) == VKMOE_OK);
        FUZZ_CHECK(copy.n_dims == 2 && !copy.is_integer);
        FUZZ_CHECK(copy.dims[0] == npy.dims[0] && copy.dims[1] == npy.dims[1]);
        float *values_again = read_all(&copy, &n_again);
        FUZZ_CHECK(n_again == n && memcmp(values, values_again, n * sizeof *values) == 0);
        free(values_again);
        moe_npy_close(&copy);
    }
    free(values);
    moe_npy_close(&npy);
    return true;
}
