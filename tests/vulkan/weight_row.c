// SPDX-License-Identifier: MIT
// Rows of each weight type as the device has them: as large as stored ones, give or take the last
// 16 bytes, and back to the very bytes. What the bits mean there, weight_types.c asks the kernels.
#include "check.h"

#include <stdlib.h>

#include "vulkan/weight_row.h"

static const struct stored_type {
    enum vkmoe_dtype type;
    uint32_t values, size; // of a stored block, as in vkmoe/layer.h
} types[] = {
    {VKMOE_F32, 1, 4},     {VKMOE_F16, 1, 2},      {VKMOE_BF16, 1, 2},    {VKMOE_Q8_0, 32, 34},
    {VKMOE_Q4_0, 32, 18},  {VKMOE_Q4_K, 256, 144}, {VKMOE_Q5_K, 256, 176}, {VKMOE_Q6_K, 256, 210},
    {VKMOE_Q2_K, 256, 84}, {VKMOE_MXFP4, 32, 17},  {VKMOE_FP8, 128, 132},
};
enum { N_TYPES = sizeof types / sizeof *types, GUARD = 16 };

static uint32_t random_state = 1;

static unsigned char random_byte(void)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (unsigned char) (random_state >> 24);
}

static void check_row(const struct stored_type *t, uint32_t width)
{
    struct moe_vk_row row;
    moe_vk_row_init(&row, t->type, width);
    uint64_t stored_size = (uint64_t) (width + t->values - 1) / t->values * t->size;
    uint64_t size = moe_vk_row_size(t->type, width);
    assert_int_equal(row.stored_size, stored_size);
    assert_int_equal(row.stride * 16ull, size);
    assert_true(size >= stored_size && size < stored_size + 16);

    unsigned char *stored = malloc(stored_size), *back = malloc(stored_size + GUARD);
    unsigned char *packed = calloc(1, size + GUARD);
    assert_true(stored && back && packed);
    for (uint64_t i = 0; i < stored_size; i++)
        stored[i] = random_byte();
    memset(back, 0xee, stored_size + GUARD);
    memset(packed + size, 0xee, GUARD);
    moe_vk_row_pack(&row, stored, packed);
    moe_vk_row_unpack(&row, packed, back);
    assert_memory_equal(back, stored, stored_size);
    for (uint32_t i = 0; i < GUARD; i++) {
        assert_int_equal(back[stored_size + i], 0xee);
        assert_int_equal(packed[size + i], 0xee);
    }
    packed[random_byte() % stored_size] ^= 1; // every packed byte means something
    moe_vk_row_unpack(&row, packed, back);
    assert_memory_not_equal(back, stored, stored_size);
    free(stored);
    free(back);
    free(packed);
}

static void rows_come_back(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < N_TYPES; i++)
        for (uint32_t n_blocks = 1; n_blocks < 40; n_blocks++)
            check_row(&types[i], n_blocks * types[i].values);
}

static void the_last_block_of_fp8_is_whole(void **state)
{
    (void) state;
    for (uint32_t width = 1; width < 400; width += 7)
        check_row(&types[N_TYPES - 1], width);
}

// The bits of single values, where weight_types.h says that they are.
static void planes_are_by_fours(void **state)
{
    (void) state;
    struct moe_vk_row row;
    unsigned char stored[176] = {0}, packed[176] = {0};
    moe_vk_row_init(&row, VKMOE_Q4_0, 32);
    stored[2 + 5] = 0x63; // values 5 and 21
    moe_vk_row_pack(&row, stored, packed);
    assert_int_equal(packed[1], 0x30);  // the second four of the first word
    assert_int_equal(packed[9], 0x60);  // and of the third one
    memset(stored, 0, sizeof stored);
    memset(packed, 0, sizeof packed);
    moe_vk_row_init(&row, VKMOE_Q5_K, 256);
    stored[16 + 9] = 1 << 3; // the fifth bit of value 105
    moe_vk_row_pack(&row, stored, packed);
    assert_int_equal(packed[16 * 9 + 3 * 4 + 1], 1 << 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back),
        cmocka_unit_test(the_last_block_of_fp8_is_whole),
        cmocka_unit_test(planes_are_by_fours),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
