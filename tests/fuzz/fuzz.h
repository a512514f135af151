// SPDX-License-Identifier: MIT
// What the fuzz targets share. A target is one function over the bytes of a file. replay.c runs it
// over files whose names say what is expected, as an ordinary test; libfuzzer.c lets libFuzzer
// invent the bytes.
//
// What must hold for any bytes: no crash, no undefined behaviour and no leak; a failure has a text;
// what is accepted is consistent, and reads the same again after it was written.
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "unit/check.h"
#include "unit/scratch.h"

// Ends the process when a promise is broken: this is a finding.
#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_broken(__FILE__, __LINE__, #condition);                                           \
    } while (0)

_Noreturn void fuzz_broken(const char *file, int line, const char *condition);

// Defined by each target: are these bytes accepted?
bool fuzz_target(const uint8_t *data, size_t size);

// Runs the target once, in a scratch folder, and checks that it gave all memory back.
bool fuzz_run(const uint8_t *data, size_t size);

// The host that targets give to the readers; it counts.
const vkmoe_host *fuzz_host(void);

// Is it VKMOE_OK? Any other status must have come with a text, and be one that bytes can cause.
bool fuzz_accepted(enum vkmoe_status status);

// The bytes of a tensor, to be freed: all of them can be read.
struct moe_safetensors;
struct moe_st_tensor;
void *fuzz_tensor(const struct moe_safetensors *file, const struct moe_st_tensor *tensor);

// Reads every byte, so that the sanitizers see where they lie.
void fuzz_touch(const void *data, size_t size);

#endif
