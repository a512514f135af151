// SPDX-License-Identifier: MIT
// Recorded routings: what `vkmoe run --ids` writes.
#include "routing.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <vkmoe/model.h>

enum { BATCH = 1024 };

__attribute__((format(printf, 2, 3)))
static enum vkmoe_status refuse(enum vkmoe_status status, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    vkmoe_error_set(text);
    return status;
}

// The i-th row as ids. Numbers below 2^24 are whole in a float, so no id is rounded into range.
static enum vkmoe_status check_row(const char *path, const float *row, uint64_t i,
                                   uint32_t n_experts, uint32_t top_k, int32_t *ids)
{
    for (uint32_t k = 0; k < top_k; k++) {
        double id = (double) row[k];
        if (!(id >= 0 && id < n_experts) || id != floor(id))
            return refuse(VKMOE_E_DATA, "%.200s: row %llu has expert %g: not one of 0 to %u", path,
                          (unsigned long long) i, id, (unsigned) (n_experts - 1));
        ids[k] = (int32_t) id;
        for (uint32_t j = 0; j < k; j++) {
            if (ids[j] == ids[k])
                return refuse(VKMOE_E_DATA, "%.200s: row %llu has expert %d twice", path,
                              (unsigned long long) i, (int) ids[k]);
        }
    }
    return VKMOE_OK;
}

static enum vkmoe_status read_rows(const char *path, vkmoe_dataset *data, uint64_t n_rows,
                                   uint32_t n_experts, uint32_t top_k, float *rows, int32_t *ids)
{
    for (uint64_t done = 0; done < n_rows;) {
        uint32_t n = n_rows - done < BATCH ? (uint32_t) (n_rows - done) : BATCH;
        enum vkmoe_status status = vkmoe_dataset_read(data, &n, rows, NULL, NULL);
        for (uint32_t i = 0; status == VKMOE_OK && i < n; i++)
            status = check_row(path, rows + (size_t) i * top_k, done + i, n_experts, top_k,
                               ids + (done + i) * top_k);
        if (status != VKMOE_OK)
            return status;
        done += n;
    }
    return VKMOE_OK;
}

enum vkmoe_status bench_trace_read(const char *path, uint32_t n_experts, uint32_t top_k,
                                   uint32_t n_tokens, struct bench_trace *out)
{
    enum vkmoe_status status;
    vkmoe_dataset *data = NULL;
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    vkmoe_dataset_info info;
    float *rows = NULL;
    int32_t *ids = NULL;
    const size_t size = strlen(path);
    if (size < 4 || strcmp(path + size - 4, ".npy") != 0)
        return refuse(VKMOE_E_DATA, "%.200s: a trace is a .npy file", path);
    CLI_TRY(vkmoe_dataset_open(path, &desc, &data));
    CLI_TRY(vkmoe_dataset_get_info(data, &info));
    if (info.n_features != top_k)
        CLI_TRY(refuse(VKMOE_E_SHAPE, "%.200s: %u experts in a row, the case has top_k %u", path,
                       (unsigned) info.n_features, (unsigned) top_k));
    if (info.n_rows < n_tokens)
        CLI_TRY(refuse(VKMOE_E_SHAPE, "%.200s: %llu rows, the case has %u tokens", path,
                       (unsigned long long) info.n_rows, (unsigned) n_tokens));
    CLI_TRY(cli_alloc(BATCH, top_k, sizeof *rows, &rows));
    CLI_TRY(cli_alloc((size_t) info.n_rows, top_k, sizeof *ids, &ids));
    CLI_TRY(read_rows(path, data, info.n_rows, n_experts, top_k, rows, ids));
    *out = (struct bench_trace){ids, info.n_rows};
    ids = NULL;

fail:
    free(rows);
    free(ids);
    vkmoe_dataset_destroy(data);
    return status;
}
