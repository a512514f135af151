// SPDX-License-Identifier: MIT
// Bytes: a file of results. What is accepted is printed in each format, and read and printed again
// as the same JSON.
#include "fuzz.h"

#include "bench/fields.h"

#include <stdlib.h>

typedef void write_fn(const struct bench_file *file, struct bench_out *out);

static char *print(const struct bench_file *file, write_fn *write, size_t *size)
{
    char *text = NULL;
    struct bench_out out = {open_memstream(&text, size), false};
    FUZZ_CHECK(out.stream);
    write(file, &out);
    FUZZ_CHECK(fclose(out.stream) == 0 && !out.failed);
    return text;
}

static void check_file(const struct bench_file *file)
{
    for (uint32_t i = 0; i < file->n_rows; i++) {
        const struct bench_row *row = &file->rows[i];
        FUZZ_CHECK(row->device < file->n_devices);
        FUZZ_CHECK(!bench_row_is_timed(row) || bench_row_times(row)->n > 0);
        if (row->expert_rows)
            fuzz_touch(row->expert_rows, row->key.n_experts * sizeof *row->expert_rows);
    }
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    struct bench_file file, back;
    if (!fuzz_accepted(bench_file_parse("file", (const char *) data, size, &file)))
        return false;
    check_file(&file);
    size_t n, n_again;
    free(print(&file, bench_write_csv, &n));
    free(print(&file, bench_write_md, &n));
    char *text = print(&file, bench_write_json, &n);
    FUZZ_CHECK(bench_file_parse("printed", text, n, &back) == VKMOE_OK);
    char *again = print(&back, bench_write_json, &n_again);
    FUZZ_CHECK(n == n_again && memcmp(text, again, n) == 0);
    bench_file_finish(&back);
    bench_file_finish(&file);
    free(again);
    free(text);
    return true;
}
