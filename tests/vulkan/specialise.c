// SPDX-License-Identifier: MIT
// Specialisation constants in SPIR-V, without a device: a small module for every operation, then
// every kernel there is.
#include "check.h"
#include "params.h"
#include "vulkan/vk.h"

#include <string.h>

enum { OP_DECORATE = 71, OP_FUNCTION = 54, SPEC_ID = 1 };
enum { HEADER = 5, BOUND = 32, MAX_WORDS = 200 };
enum { BOOL = 1, UINT, FUNCTION, A, B, C, RESULT, AGAIN }; // ids
#define INST(op, n) ((uint32_t) (n) << 16 | (op))

static void put(uint32_t *words, size_t *n, const uint32_t *in, size_t n_in)
{
    memcpy(words + *n, in, n_in * sizeof *in);
    *n += n_in;
}
#define PUT(...)                                                                                  \
    put(words, n, (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__}) / 4)

struct operation {
    const char *name;
    uint32_t op, n_of;
    uint32_t of[3], want; // operands; the result
    bool bools, makes_bool;
    bool stays;
};

// A and B have a SpecId, C is a constant. AGAIN is the negation of a bool, or the sum of the result
// and C: it needs the result to be known.
static void build(const struct operation *o, uint32_t *words, size_t *n)
{
    uint32_t from = o->bools ? BOOL : UINT, to = o->makes_bool ? BOOL : UINT;
    PUT(0x07230203, 0x10300, 0, BOUND, 0);
    PUT(INST(OP_DECORATE, 4), A, SPEC_ID, 3);
    PUT(INST(OP_DECORATE, 4), B, SPEC_ID, 19);
    PUT(INST(20, 2), BOOL);
    PUT(INST(21, 4), UINT, 32, 0);
    PUT(INST(43, 4), UINT, C, o->of[2]);
    if (from == BOOL || o->n_of == 3) // the other value than the one it is given
        PUT(INST(o->of[0] ? 49 : 48, 3), BOOL, A);
    else
        PUT(INST(50, 4), UINT, A, ~o->of[0]);
    if (from == BOOL)
        PUT(INST(o->of[1] ? 49 : 48, 3), BOOL, B);
    else
        PUT(INST(50, 4), UINT, B, ~o->of[1]);
    PUT(INST(52, 4 + o->n_of), to, RESULT, o->op, A);
    const uint32_t more[] = {B, C};
    put(words, n, more, o->n_of - 1);
    if (to == BOOL)
        PUT(INST(52, 5), BOOL, AGAIN, 168, RESULT);
    else
        PUT(INST(52, 6), UINT, AGAIN, 128, RESULT, C);
    PUT(INST(OP_FUNCTION, 5), UINT, FUNCTION, 0, UINT);
    PUT(INST(52, 6), UINT, AGAIN, 128, RESULT, C); // nobody looks into a function
}

static const uint32_t *find(const uint32_t *words, size_t n, uint32_t id)
{
    for (size_t i = HEADER; i < n && (words[i] & 0xffff) != OP_FUNCTION; i += words[i] >> 16) {
        uint32_t op = words[i] & 0xffff;
        if (op >= 41 && op <= 52 && words[i + 2] == id)
            return words + i;
    }
    fail_msg("id %u is gone", id);
    return NULL;
}

static void check_constant(const uint32_t *inst, bool is_bool, uint32_t want)
{
    assert_int_equal(inst[0], is_bool ? INST(want ? 41 : 42, 3) : INST(43, 4));
    assert_int_equal(inst[1], is_bool ? BOOL : UINT);
    if (!is_bool)
        assert_int_equal(inst[3], want);
}

static void check_operation(const struct operation *o)
{
    uint32_t words[MAX_WORDS], *out, spec[MOE_VK_MAX_SPEC] = {[3] = o->of[0], [19] = o->of[1]};
    size_t n = 0, size;
    build(o, words, &n);
    struct moe_spv spv = {o->name, words, n * 4};
    check_ok(moe_vk_specialise(moe_host_default(), &spv, spec, &out, &size));
    const uint32_t *result = find(out, size / 4, RESULT), *again = find(out, size / 4, AGAIN);
    if (o->stays) {
        assert_memory_equal(result, find(words, n, RESULT), (4 + o->n_of) * 4);
        assert_int_equal(again[0] & 0xffff, 52);
    } else {
        check_constant(result, o->makes_bool, o->want);
        check_constant(again, o->makes_bool, o->makes_bool ? !o->want : o->want + o->of[2]);
    }
    check_constant(find(out, size / 4, A), o->bools || o->n_of == 3, o->of[0]);
    assert_memory_equal(out + size / 4 - 11, words + n - 11, 11 * 4); // the function
    moe_free(moe_host_default(), out);
}

static void operations_are_computed(void **state)
{
    static const struct operation operations[] = {
        {"add", 128, 2, {0xffffffff, 3, 1}, 2},
        {"multiply", 132, 2, {0x10001, 0x10000, 1}, 0x10000},
        {"divide", 134, 2, {0xfffffffe, 2, 1}, 0x7fffffff},
        {"divide by 0", 134, 2, {5, 0, 1}, .stays = true},
        {"or", 166, 2, {0, 1}, 1, .bools = true, .makes_bool = true},
        {"or, neither", 166, 2, {0, 0}, 0, .bools = true, .makes_bool = true},
        {"and", 167, 2, {1, 1}, 1, .bools = true, .makes_bool = true},
        {"and, one", 167, 2, {1, 0}, 0, .bools = true, .makes_bool = true},
        {"not", 168, 1, {0}, 1, .bools = true, .makes_bool = true},
        {"not true", 168, 1, {1}, 0, .bools = true, .makes_bool = true},
        {"select", 169, 3, {1, 7, 8}, 7},
        {"select the other", 169, 3, {0, 7, 8}, 8},
        {"equal", 170, 2, {7, 7}, 1, .makes_bool = true},
        {"not equal", 171, 2, {7, 7}, 0, .makes_bool = true},
        {"greater", 172, 2, {0x80000000, 1}, 1, .makes_bool = true},
        {"not greater", 172, 2, {1, 1}, 0, .makes_bool = true},
        {"less", 176, 2, {1, 0x80000000}, 1, .makes_bool = true},
        {"not less", 176, 2, {1, 1}, 0, .makes_bool = true},
        {"less or equal", 178, 2, {1, 1}, 1, .makes_bool = true},
        {"bits", 199, 2, {6, 12, 1}, 4},
        {"an operation we do not know", 200, 1, {6, 0, 1}, .stays = true},
    };
    (void) state;
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        print_message("%s\n", operations[i].name);
        check_operation(&operations[i]);
    }
}

// Words of what is left to a driver: specialisation constants, operations on them, their ids.
static uint32_t left(const uint32_t *words, size_t n)
{
    uint32_t n_left = 0;
    size_t i = HEADER;
    while (i < n) {
        uint32_t op = words[i] & 0xffff;
        n_left += (op >= 48 && op <= 52) || (op == OP_DECORATE && words[i + 2] == SPEC_ID);
        assert_true(words[i] >> 16 > 0);
        i += words[i] >> 16;
    }
    assert_int_equal(i, n); // instructions fill the module
    return n_left;
}

static void kernels_leave_nothing_to_the_driver(void **state)
{
    (void) state;
    uint32_t n_before = 0;
    for (int i = 0; i < MOE_N_SPV; i++) {
        const struct moe_spv *spv = &moe_spv_table[i];
        n_before += left(spv->words, spv->size / 4);
        for (uint32_t type = 0; type < 11; type++) {
            uint32_t *out, spec[MOE_VK_MAX_SPEC] = {
                type, 8, 1, 1, 1, 1, [MOE_SPEC_M] = 8, [MOE_SPEC_N] = 8, [MOE_SPEC_K] = 8,
                [MOE_SPEC_SUBGROUPS] = 4}; // nothing is divided by 0
            size_t size;
            check_ok(moe_vk_specialise(moe_host_default(), spv, spec, &out, &size));
            if (left(out, size / 4) > 0)
                fail_msg("%s: an operation that vulkan/specialise.c does not know", spv->name);
            assert_true(size <= spv->size);
            moe_free(moe_host_default(), out);
        }
    }
    assert_true(n_before > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operations_are_computed),
        cmocka_unit_test(kernels_leave_nothing_to_the_driver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
