// SPDX-License-Identifier: MIT
// Prints the file in which every field is set, for tests of the schema: bench_sample md|csv|json
#include "bench_sample.h"

#include "check.h"

int main(int argc, char **argv)
{
    static const char *const names[] = {[BENCH_MD] = "md", [BENCH_CSV] = "csv",
                                        [BENCH_JSON] = "json"};
    for (size_t i = 0; argc == 2 && i < sizeof names / sizeof *names; i++) {
        if (strcmp(argv[1], names[i]) != 0)
            continue;
        struct bench_file file;
        bench_sample_make(&file);
        enum vkmoe_status status = bench_file_write(&file, (enum bench_format) i, NULL);
        bench_file_finish(&file);
        return status == VKMOE_OK ? 0 : 1;
    }
    return 2;
}
