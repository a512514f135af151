// SPDX-License-Identifier: MIT
// Blocks of every quantised type as types/make.py found their values with gguf-py, and the codes of
// 8-bit floats with torch: the same bits.
#include "unit/check.h"

#include "core/quant.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_SIZE = 1 << 16 };

static const char *folder;

static const struct type {
    const char *name;
    int values, bytes;
    moe_block_decode_fn *decode;
} types[] = {
    {"q8_0", 32, 34, moe_q8_0_decode},     {"q4_0", 32, 18, moe_q4_0_decode},
    {"q4_k", 256, 144, moe_q4_K_decode},   {"q5_k", 256, 176, moe_q5_K_decode},
    {"q6_k", 256, 210, moe_q6_K_decode},   {"q2_k", 256, 84, moe_q2_K_decode},
    {"mxfp4", 32, 17, moe_mxfp4_decode},   {"q4_1", 32, 20, moe_q4_1_decode},
    {"q5_0", 32, 22, moe_q5_0_decode},     {"q5_1", 32, 24, moe_q5_1_decode},
    {"q3_k", 256, 110, moe_q3_K_decode},   {"iq4_nl", 32, 18, moe_iq4_nl_decode},
    {"iq4_xs", 256, 136, moe_iq4_xs_decode}, {"nvfp4", 64, 36, moe_nvfp4_decode},
};

static const struct code {
    const char *name;
    float (*decode)(uint8_t code);
} codes[] = {
    {"e4m3", moe_e4m3_to_f32},
    {"e5m2", moe_e5m2_to_f32},
    {"e8m0", moe_e8m0_to_f32},
};

// What is behind the header of folder/NAME.KIND.npy, and its size.
static size_t read_data(const char *name, const char *kind, unsigned char *out)
{
    char path[1024];
    unsigned char head[10];
    snprintf(path, sizeof path, "%s/%s.%s.npy", folder, name, kind);
    FILE *file = fopen(path, "rb");
    if (!file || fread(head, 1, sizeof head, file) != sizeof head)
        fail_msg("%s: not read", path);
    assert_memory_equal(head, "\x93NUMPY\1", 7);
    assert_int_equal(fseek(file, 10 + head[8] + 256 * head[9], SEEK_SET), 0);
    const size_t size = fread(out, 1, MAX_SIZE, file);
    assert_true(size > 0 && size < MAX_SIZE);
    fclose(file);
    return size;
}

static size_t count_different(const float *got, const float *want, size_t n)
{
    size_t n_different = 0;
    for (size_t i = 0; i < n; i++)
        n_different += memcmp(&got[i], &want[i], sizeof *got) != 0 &&
                       !(isnan(got[i]) && isnan(want[i]));
    return n_different;
}

static void test_blocks(void **state)
{
    (void) state;
    static unsigned char stored[MAX_SIZE];
    static float want[MAX_SIZE / sizeof(float)], got[MAX_SIZE / sizeof(float)];
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const struct type *type = &types[t];
        const size_t size = read_data(type->name, "blocks", stored);
        const size_t n = size / (size_t) type->bytes * (size_t) type->values;
        assert_int_equal(size % (size_t) type->bytes, 0);
        assert_int_equal(read_data(type->name, "values", (unsigned char *) want), n * sizeof *want);
        for (size_t i = 0; i < n / (size_t) type->values; i++)
            type->decode(stored + i * (size_t) type->bytes, got + i * (size_t) type->values);
        if (count_different(got, want, n) > 0)
            fail_msg("%s: %zu of %zu values differ", type->name, count_different(got, want, n), n);
        type->decode(stored + size - 2 * (size_t) type->bytes, got); // not the first block
        assert_true(count_different(got, want, (size_t) type->values) > 0);
    }
}

static void test_codes(void **state)
{
    (void) state;
    static float want[MAX_SIZE / sizeof(float)], got[256];
    for (size_t t = 0; t < sizeof codes / sizeof *codes; t++) {
        assert_int_equal(read_data(codes[t].name, "values", (unsigned char *) want), sizeof got);
        for (int code = 0; code < 256; code++)
            got[code] = codes[t].decode((uint8_t) code);
        assert_int_equal(count_different(got, want, 256), 0);
        got[1] = got[2];
        assert_int_equal(count_different(got, want, 256), 1);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_codes),
    };
    if (argc != 2) {
        fputs("usage: golden_types FOLDER\n", stderr);
        return 2;
    }
    folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
