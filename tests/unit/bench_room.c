// SPDX-License-Identifier: MIT
// What a case of `vkmoe bench` takes of the memory there is, by hand.
#include "check.h"

#include "bench/make.h"
#include "bench/presets.h"

#include <stdio.h>
#include <stdlib.h>

#define GB 1e9
#define MIB 1048576.0

// 64 experts of 3 MiB each in 16 bits: 1024 to 512 and back, gated.
static struct bench_case make_case(uint32_t n_tokens)
{
    struct bench_case what = {
        .layer = bench_plain_layer(64, 8, 1024, 512, 0), .type = VKMOE_F16, .x_type = VKMOE_F16};
    what.layer.in_type = what.layer.out_type = VKMOE_F16;
    what.key.n_tokens = n_tokens;
    return what;
}

static const vkmoe_weights_layout layout = {
    .expert_size = 3 << 20, .total_size = (uint64_t) 193 << 20};

// 24 MiB are touched by 8 experts: 22 times that is more than 512 MiB.
static void copies(void **state)
{
    (void) state;
    struct bench_case what = make_case(1);
    struct bench_room room = {.device = 64 * GB, .host = 64 * GB};
    struct bench_need need = bench_need_forward(&what, &layout, &room, 8, 0);
    assert_int_equal(need.n_copies, 22);
    assert_int_equal(need.n_tensors, 7);
    assert_in_range(need.device, 22 * 193 * MIB, 22 * 194 * MIB);
    // Four times a cache of 256 MiB is twice as much.
    assert_int_equal(bench_need_forward(&what, &layout, &room, 8, 256 * MIB).n_copies, 43);
    assert_int_equal(bench_need_forward(&what, &layout, &room, 64, 0).n_copies, 3);
    assert_int_equal(need.n_weights, 22);
    // A quarter of the device's memory, but one copy always. The others share weights.
    room.device = 4000 * MIB;
    need = bench_need_forward(&what, &layout, &room, 8, 0);
    assert_int_equal(need.n_weights, 5);
    assert_int_equal(need.n_copies, 22);
    assert_in_range(need.device, 5 * 193 * MIB, 5 * 194 * MIB);
    room.device = 0.1 * MIB;
    need = bench_need_forward(&what, &layout, &room, 8, 0);
    assert_int_equal(need.n_weights, 1);
    assert_int_equal(need.n_copies, 1);
}

// Stored, and packed or in the oracle, an expert takes 3 + 6 MiB of the host: a quarter holds 5.
static void tensors(void **state)
{
    (void) state;
    struct bench_case what = make_case(1);
    struct bench_room room = {.device = 64 * GB, .host = 4 * 50 * MIB};
    assert_int_equal(bench_need_forward(&what, &layout, &room, 8, 0).n_tensors, 5);
    room.host = 1 * MIB;
    assert_int_equal(bench_need_forward(&what, &layout, &room, 8, 0).n_tensors, 2);
    room.host = 64 * GB;
    what.layer.n_experts = what.layer.top_k = 3;
    assert_int_equal(bench_need_forward(&what, &layout, &room, 3, 0).n_tensors, 3);
}

// Blocks take what they take: 64 of q4_K are 64 times 864 KiB.
static void blocks(void **state)
{
    (void) state;
    struct bench_case what = make_case(1);
    struct bench_room room = {.device = 64 * GB, .host = 64 * GB};
    const double halves = bench_need_forward(&what, &layout, &room, 8, 0).host;
    what.layer.in_type = what.layer.out_type = VKMOE_Q4_K;
    check_near(halves - bench_need_forward(&what, &layout, &room, 8, 0).host,
               7 * (3 * MIB - 864 * 1024), 0);
}

static void missing(void **state)
{
    (void) state;
    struct bench_need need = {.device = 3 * GB, .host = 2 * GB};
    struct bench_room room = {.device = 3 * GB, .host = 2 * GB};
    check_ok(bench_need_check(&need, &room));
    room.device = 1 * GB;
    check_fails(bench_need_check(&need, &room), VKMOE_E_DEVICE_MEMORY,
                "takes 3.00 GB of device memory: 2000000000 bytes are missing");
    room = (struct bench_room){.device = 3 * GB, .host = 4.5 * GB, .shared = true};
    check_fails(bench_need_check(&need, &room), VKMOE_E_MEMORY,
                "takes 5.00 GB of host memory: 500000000 bytes are missing");
    room.device = 0; // not known
    room.shared = false;
    check_ok(bench_need_check(&need, &room));
}

// Rows are counted before they are made, however many there are.
static void many_tokens(void **state)
{
    (void) state;
    struct bench_case what = make_case(UINT32_MAX);
    struct bench_room room = {.device = 64 * GB, .host = 64 * GB};
    struct bench_need need = bench_need_forward(&what, &layout, &room, 64, 0);
    assert_true(need.device > 1e13 && need.host > 1e13);
    check_fails(bench_need_check(&need, &room), VKMOE_E_DEVICE_MEMORY, "are missing");
    need = bench_need_net(&what);
    assert_true(need.device > 1e13);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies),
        cmocka_unit_test(tensors),
        cmocka_unit_test(blocks),
        cmocka_unit_test(missing),
        cmocka_unit_test(many_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
