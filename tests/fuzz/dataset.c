// SPDX-License-Identifier: MIT
// Bytes: how to open a data set (format, targets, size of the second file: 4 bytes), then its one
// or two files. Reading row by row and in blocks must agree.
#include "fuzz.h"

#include <vkmoe/model.h>

#include <stdlib.h>

enum {
    HOW_SIZE = 4,
    MAX_ROW = 1 << 8, // numbers
    MAX_ROWS = 1 << 10,
    BLOCK = 5,
};

struct rows {
    size_t n;
    bool good; // the end was reached
    float *numbers; // rows of features, label, values
};

// Reads `block` rows at a time into memory of just their size.
static struct rows read_rows(vkmoe_dataset *d, const vkmoe_dataset_info *info,
                             enum vkmoe_targets targets, uint32_t block)
{
    const size_t steps = info->n_steps ? info->n_steps : 1;
    const size_t f = steps * info->n_features, v = info->n_targets, row_size = f + 1 + v;
    struct rows rows = {.numbers = calloc(MAX_ROWS * row_size, sizeof(float))};
    float *x = malloc(block * f * sizeof *x), *values = malloc(block * (v + 1) * sizeof *values);
    int32_t *labels = malloc(block * sizeof *labels);
    FUZZ_CHECK(rows.numbers && x && values && labels);
    while (rows.n + block <= MAX_ROWS) {
        uint32_t n = block;
        rows.good = fuzz_accepted(vkmoe_dataset_read(
            d, &n, x, targets == VKMOE_TARGETS_LABELS ? labels : NULL,
            targets == VKMOE_TARGETS_VALUES ? values : NULL));
        FUZZ_CHECK(n <= block);
        if (!rows.good || n == 0)
            break;
        for (uint32_t i = 0; i < n; i++) {
            float *row = rows.numbers + rows.n++ * row_size;
            memcpy(row, x + i * f, f * sizeof *x);
            if (targets == VKMOE_TARGETS_LABELS) {
                FUZZ_CHECK(labels[i] >= 0 && labels[i] < 3);
                row[f] = (float) labels[i];
            }
            if (targets == VKMOE_TARGETS_VALUES)
                memcpy(row + f + 1, values + i * v, v * sizeof *values);
        }
    }
    free(x);
    free(values);
    free(labels);
    return rows;
}

static bool read_path(const char *path, const vkmoe_dataset_desc *desc)
{
    struct rows rows[2];
    vkmoe_dataset_info info;
    for (int i = 0; i < 2; i++) {
        vkmoe_dataset *d;
        if (!fuzz_accepted(vkmoe_dataset_open(path, desc, &d))) {
            FUZZ_CHECK(!d && i == 0);
            return false;
        }
        FUZZ_CHECK(vkmoe_dataset_get_info(d, &info) == VKMOE_OK);
        FUZZ_CHECK(info.n_features > 0);
        if (info.n_features > MAX_ROW || info.n_steps > MAX_ROW || info.n_targets > MAX_ROW) {
            vkmoe_dataset_destroy(d);
            return true;
        }
        rows[i] = read_rows(d, &info, desc->targets, i ? BLOCK : 1);
        vkmoe_dataset_destroy(d);
    }
    // A block that holds a bad row is refused whole.
    bool whole = rows[0].n <= MAX_ROWS - BLOCK;
    size_t steps = info.n_steps ? info.n_steps : 1;
    size_t row_size = (steps * info.n_features + 1 + info.n_targets) * sizeof(float);
    FUZZ_CHECK(!whole || rows[0].good == rows[1].good);
    FUZZ_CHECK(!whole || (rows[0].good ? rows[1].n == rows[0].n
                                       : rows[1].n == rows[0].n / BLOCK * BLOCK));
    FUZZ_CHECK(info.n_rows == 0 || !rows[0].good || !whole || rows[0].n == info.n_rows);
    FUZZ_CHECK(memcmp(rows[0].numbers, rows[1].numbers,
                      (rows[1].n < rows[0].n ? rows[1].n : rows[0].n) * row_size) == 0);
    free(rows[0].numbers);
    free(rows[1].numbers);
    return rows[0].good;
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"X.csv", "X.npy", "X.safetensors", "z.npy"};
    static const char *const classes[] = {"a", "b", "0"};
    static const char *const targets[] = {NULL, "1", "a,2", ""};
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    if (size < HOW_SIZE)
        return false;
    desc.host = fuzz_host();
    desc.targets = (enum vkmoe_targets) (data[1] % 4);
    desc.target = targets[data[1] / 4 % 4];
    desc.classes = classes;
    desc.n_classes = 3;
    desc.sequences = true;
    desc.n_features = data[1] / 16 % 4; // 0: any number
    desc.n_targets = data[1] / 64;
    size_t n_second = (size_t) data[2] | (size_t) data[3] << 8, n_first = size - HOW_SIZE;
    if (n_second > n_first)
        n_second = n_first;
    n_first -= n_second;
    scratch_file("Y.npy", data + HOW_SIZE + n_first, n_second);
    return read_path(scratch_file(names[data[0] % 4], data + HOW_SIZE, n_first), &desc);
}
