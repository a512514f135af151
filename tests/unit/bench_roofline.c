// SPDX-License-Identifier: MIT
// What a run must move and compute, calculated by hand; the floor and what bounds it.
#include "check.h"

#include "bench/roofline.h"

// The layer of granite-1b-a400m: 32 experts, 8 a token, 1024 wide, 512 inside.
static struct bench_case granite(enum bench_mode mode, enum vkmoe_dtype type, uint32_t n_tokens)
{
    struct bench_case what = {.mode = mode, .type = type, .x_type = VKMOE_F32};
    what.layer = vkmoe_layer_desc_init();
    what.layer.n_experts = 32;
    what.layer.top_k = 8;
    what.layer.d_model = 1024;
    what.layer.d_ff = 512;
    what.layer.gated = true;
    what.layer.in_type = what.layer.out_type = type;
    what.key.n_tokens = n_tokens;
    return what;
}

static void check_cost(struct bench_cost cost, double bytes, double flops)
{
    check_near(cost.bytes, bytes, 0);
    check_near(cost.flops, flops, 0);
}

static void forward(void **state)
{
    (void) state;
    // An expert has 3 * 512 * 1024 = 1572864 weights; the router 32 * 1024 = 32768.
    struct bench_case what = granite(BENCH_FORWARD, VKMOE_F32, 1);
    check_cost(bench_case_cost(&what, 8, 0), 8 * 6291456.0 + 131072 + 2 * 4096,
               2 * (8 * 1572864.0 + 32768));
    what = granite(BENCH_FORWARD, VKMOE_BF16, 512);
    what.x_type = VKMOE_BF16;
    check_cost(bench_case_cost(&what, 32, 0), 32 * 3145728.0 + 131072 + 2 * 512 * 2048,
               512 * (8 * 6.0 * 1024 * 512 + 2 * 1024 * 32));
    // As kernels read it: packed with 256 bytes of padding.
    check_cost(bench_case_cost(&what, 31.5, 3145984), 31.5 * 3145984 + 131072 + 2 * 512 * 2048,
               512 * (8 * 6.0 * 1024 * 512 + 2 * 1024 * 32));
}

// Widths that all differ, a shared expert, experts that are not gated or linear.
static void shapes(void **state)
{
    (void) state;
    struct bench_case what = granite(BENCH_FORWARD, VKMOE_F16, 3);
    what.layer.d_out = 256;
    what.layer.d_shared_ff = 128;
    // Routed: 512 * (2 * 1024 + 256) = 1179648 weights; shared 128 * 2304 = 294912.
    check_cost(bench_case_cost(&what, 20, 0),
               20 * 2359296.0 + 589824 + 131072 + 3 * 4 * (1024 + 256),
               3 * 2 * (8 * 1179648.0 + 32768 + 294912));
    // Packed experts twice as large: the shared one too.
    check_near(bench_case_cost(&what, 20, 2 * 2359296).bytes,
               2 * (20 * 2359296.0 + 589824) + 131072 + 3 * 4 * (1024 + 256), 0);
    what.layer.gated = false;
    check_near(bench_case_cost(&what, 20, 0).flops,
               3 * 2 * (8 * 512.0 * 1280 + 32768 + 128 * 1280), 0);
    what.layer.in_type = VKMOE_F32; // up 4 bytes, down 2
    check_near(bench_expert_size(&what.layer, 512), 512 * (1024 * 4 + 256 * 2), 0);
    what.layer.expert_kind = VKMOE_EXPERT_LINEAR;
    what.layer.d_shared_ff = 0;
    check_near(bench_case_cost(&what, 20, 0).flops, 3 * 2 * (8 * 1024.0 * 256 + 32768), 0);
}

// Rows are whole blocks, of fp8 with a part of one too.
static void blocks(void **state)
{
    (void) state;
    struct bench_case what = granite(BENCH_FORWARD, VKMOE_Q4_K, 1);
    // 1024 rows of gate and up of 4 blocks, 1024 of down of 2 blocks, 144 bytes each.
    const double in = 1024 * 4 * 144, down = 1024 * 2 * 144;
    check_cost(bench_case_cost(&what, 8, 0), 8 * (in + down) + 131072 + 2 * 4096,
               2 * (8 * 1572864.0 + 32768));
    what.layer.out_type = VKMOE_Q6_K;
    check_near(bench_expert_size(&what.layer, 512), in + 1024 * 2 * 210, 0);
    // A shared expert of types of its own, padded as the routed ones are.
    what.layer.d_shared_ff = 256;
    what.layer.own_shared_types = true;
    what.layer.shared_in_type = VKMOE_Q8_0;
    what.layer.shared_out_type = VKMOE_F16;
    const double shared = 512 * 32 * 34 + 1024 * 512;
    check_near(bench_shared_size(&what.layer), shared, 0);
    check_near(bench_case_cost(&what, 8, 2 * (in + 1024 * 2 * 210)).bytes,
               2 * (8 * (in + 1024 * 2 * 210) + shared) + 131072 + 2 * 4096, 0);
    what.layer.own_shared_types = false;
    check_near(bench_shared_size(&what.layer), 512 * 4 * 144 + 1024 * 210, 0);
    check_near(bench_matrix_size(VKMOE_FP8, 3, 160), 3 * 2 * 132, 0);
    check_near(bench_matrix_size(VKMOE_FP8, 3, 128), 3 * 132, 0);
}

static void training(void **state)
{
    (void) state;
    struct bench_case forward_case = granite(BENCH_FORWARD, VKMOE_F32, 64);
    double flops = bench_case_cost(&forward_case, 32, 0).flops, rows = 64 * 2 * 4096;
    double weights = 32 * 1572864.0, down = 32 * 524288.0, router = 32768;
    double back = flops + 64 * 8 * 2 * 524288.0;
    struct bench_case what = granite(BENCH_BACKWARD, VKMOE_F32, 64);
    check_cost(bench_case_cost(&what, 32, 0), 4 * down + 8 * (weights + router) + rows, back);
    what = granite(BENCH_TRAIN, VKMOE_F32, 64);
    check_cost(bench_case_cost(&what, 32, 0), 4 * down + (4 + 4 + 28) * (weights + router) + rows,
               flops + back);
    // Half of the experts hit: weights and gradients of those, the optimiser on all.
    check_near(bench_case_cost(&what, 16, 0).bytes,
               2 * down + 8 * (weights / 2 + router) + 28 * (weights + router) + rows, 0);
    what = granite(BENCH_TRAIN, VKMOE_BF16, 64);
    check_near(bench_case_cost(&what, 32, 0).bytes,
               2 * down + (2 + 4 + 28 + 2) * weights + (4 + 4 + 28) * router + rows, 0);
    what.layer.d_shared_ff = 128; // 393216 weights, 131072 of them down
    check_near(bench_case_cost(&what, 32, 0).bytes,
               2 * (down + 131072) + 36 * (weights + 393216) + 36 * router + rows, 0);
    check_near(bench_case_cost(&what, 32, 0).flops,
               flops + back + 64 * 2 * (2 * 393216.0 + 131072), 0);
}

// 1 GB at 10 GB/s: 100 ms. 5 Gflop at 100 Gflop/s: 50 ms. Ten dispatches of 1 ms.
static struct bench_row example(void)
{
    struct bench_row row = {
        .key.n_tokens = 4, .bytes = 1e9, .flops = 5e9, .read_rate = 10e9, .peak = 100e9,
        .dispatch_us = 1000, .n_dispatches = 10, .device_times = {.n = 1, .median_us = 220e3},
        .wall_times = {.n = 1, .median_us = 440e3}};
    return row;
}

static void floors(void **state)
{
    (void) state;
    struct bench_row row = example();
    bench_row_floor(&row);
    check_near(row.floor_us, 110e3, 1e-6);
    check_near(row.floor_fraction, 0.5, 1e-12);
    assert_int_equal(row.bound, BENCH_BOUND_MEMORY);
    check_near(row.bytes_per_s, 1e9 / 0.22, 1);
    check_near(row.flops_per_s, 5e9 / 0.22, 1);
    check_near(row.tokens_per_s, 4 / 0.22, 1e-9);
    // A kernel three times as slow has a third of the fraction, and the same floor.
    row.device_times.median_us *= 3;
    bench_row_floor(&row);
    check_near(row.floor_us, 110e3, 1e-6);
    check_near(row.floor_fraction, 0.5 / 3, 1e-12);
    row.device_times.n = 0; // wall counts
    bench_row_floor(&row);
    check_near(row.floor_fraction, 0.25, 1e-12);
    row.bytes = 0; // a cache keeps all of it: no rate of memory
    bench_row_floor(&row);
    assert_true(isnan(row.bytes_per_s) && row.floor_fraction > 0);
}

static void bounds(void **state)
{
    (void) state;
    struct bench_row row = example();
    row.flops = 11e9;
    bench_row_floor(&row);
    assert_int_equal(row.bound, BENCH_BOUND_COMPUTE);
    check_near(row.floor_us, 120e3, 1e-6);
    row.n_dispatches = 111;
    bench_row_floor(&row);
    assert_int_equal(row.bound, BENCH_BOUND_LAUNCH);
    check_near(row.floor_us, 221e3, 1e-6);
}

static void unknown_limits(void **state)
{
    (void) state;
    for (int i = 0; i < 3; i++) {
        struct bench_row row = example();
        *(i == 0 ? &row.read_rate : i == 1 ? &row.peak : &row.dispatch_us) = i == 2 ? NAN : 0;
        bench_row_floor(&row);
        assert_true(isnan(row.floor_us) && isnan(row.floor_fraction));
        assert_int_equal(row.bound, BENCH_BOUND_NONE);
        check_near(row.bytes_per_s, 1e9 / 0.22, 1);
    }
    struct bench_row row = example();
    row.device_times.n = row.wall_times.n = 0;
    bench_row_floor(&row);
    check_near(row.floor_us, 110e3, 1e-6);
    assert_true(isnan(row.floor_fraction) && isnan(row.tokens_per_s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward),  cmocka_unit_test(shapes), cmocka_unit_test(blocks),
        cmocka_unit_test(training), cmocka_unit_test(floors), cmocka_unit_test(bounds),
        cmocka_unit_test(unknown_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
