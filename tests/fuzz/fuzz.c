// SPDX-License-Identifier: MIT
#include "fuzz.h"

#include "base/host.h"
#include "model/safetensors.h"

#include <stdio.h>
#include <stdlib.h>

static long n_blocks;

static void *count_alloc(void *user, size_t size, size_t align)
{
    (void) user;
    void *memory = NULL;
    FUZZ_CHECK(posix_memalign(&memory, align, size) == 0);
    n_blocks++;
    return memory;
}

static void count_free(void *user, void *memory)
{
    (void) user;
    n_blocks--;
    free(memory);
}

static void ignore_log(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user, (void) level;
    FUZZ_CHECK(*text);
}

const vkmoe_host *fuzz_host(void)
{
    static const vkmoe_host host = {.struct_size = sizeof host, .alloc = count_alloc,
                                    .free = count_free, .log = ignore_log};
    return &host;
}

_Noreturn void fuzz_broken(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: broken: %s (last error: \"%s\")\n", file, line, condition,
            vkmoe_error_text());
    abort();
}

bool fuzz_accepted(enum vkmoe_status status)
{
    if (status == VKMOE_OK)
        return true;
    FUZZ_CHECK(status == VKMOE_E_DATA || status == VKMOE_E_SHAPE || status == VKMOE_E_ARGUMENT ||
               status == VKMOE_E_UNSUPPORTED);
    FUZZ_CHECK(*vkmoe_error_text());
    vkmoe_error_set("");
    return false;
}

void *fuzz_tensor(const struct moe_safetensors *file, const struct moe_st_tensor *tensor)
{
    size_t size = (size_t) (tensor->end - tensor->begin);
    void *bytes = malloc(size + 1);
    FUZZ_CHECK(bytes);
    FUZZ_CHECK(moe_safetensors_read(file, tensor, 0, size, bytes) == VKMOE_OK);
    return bytes;
}

void fuzz_touch(const void *data, size_t size)
{
    static volatile unsigned char sum;
    for (size_t i = 0; i < size; i++)
        sum = (unsigned char) (sum + ((const unsigned char *) data)[i]);
}

static void remove_scratch(void)
{
    scratch_teardown(NULL);
}

bool fuzz_run(const uint8_t *data, size_t size)
{
    if (!*scratch_folder()) {
        FUZZ_CHECK(scratch_setup(NULL) == 0);
        FUZZ_CHECK(atexit(remove_scratch) == 0);
    }
    vkmoe_error_set("");
    bool accepted = fuzz_target(data, size);
    FUZZ_CHECK(n_blocks == 0);
    return accepted;
}
