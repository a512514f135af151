// SPDX-License-Identifier: MIT
// Programs of networks without a device: limits, barriers, and what may depend on a run.
#include "check.h"
#include "net_cases.h"

#include "api/net.h"
#include "base/bits.h"
#include "vulkan/net.h"

#include <math.h>
#include <stdlib.h>

enum { FLOOR_GROUPS = 65535 };

struct program {
    struct moe_vk_net_dispatch *dispatches;
    uint32_t n;
    uint64_t scratch_size;
};

static struct moe_net_args args_of(uint32_t n_tokens, uint32_t n_examples)
{
    return (struct moe_net_args){
        .n_tokens = n_tokens, .n_examples = n_examples, .loss_scale = 1, .step = 1};
}

static double max_work = INFINITY; // of a dispatch

static struct program compile(const struct moe_net *net, enum moe_net_program which,
                              struct moe_net_args args, bool bda)
{
    struct moe_vk_net_compiler c = {.net = net,
                                    .args = &args,
                                    .bda = bda,
                                    .max_groups = FLOOR_GROUPS,
                                    .max_work = max_work,
                                    .scratch = moe_align_up(net->arena_size, MOE_NET_UNIT)};
    moe_vk_net_compile(&c, which);
    struct program out = {.n = c.n, .scratch_size = c.scratch_size};
    out.dispatches = calloc(c.n + 1, sizeof *out.dispatches);
    assert_non_null(out.dispatches);
    c.dispatches = out.dispatches;
    c.n = 0;
    moe_vk_net_compile(&c, which);
    assert_int_equal(c.n, out.n);
    moe_vk_net_barriers(out.dispatches, out.n, false);
    return out;
}

// ---- checks ------------------------------------------------------------------------------------

static bool share_bytes(const struct moe_vk_net_range *a, const struct moe_vk_net_range *b)
{
    return a->n > 0 && b->n > 0 && a->offset < b->offset + b->n && b->offset < a->offset + a->n &&
           (a->written || b->written);
}

static bool must_wait(const struct moe_vk_net_dispatch *a, const struct moe_vk_net_dispatch *b)
{
    for (uint32_t i = 0; i < a->n_ranges; i++)
        for (uint32_t j = 0; j < b->n_ranges; j++)
            if (share_bytes(&a->ranges[i], &b->ranges[j]))
                return true;
    return false;
}

// Pairs that must wait for each other without a barrier in between.
static uint32_t count_races(const struct program *program)
{
    uint32_t races = 0;
    for (uint32_t i = 0; i < program->n; i++) {
        for (uint32_t j = i + 1; j < program->n; j++) {
            if (program->dispatches[j].barrier)
                break;
            races += must_wait(&program->dispatches[i], &program->dispatches[j]);
        }
    }
    return races;
}

static void check_limits(const struct program *program, const struct moe_net *net)
{
    uint64_t end = moe_align_up(net->arena_size, MOE_NET_UNIT) + program->scratch_size;
    for (uint32_t i = 0; i < program->n; i++) {
        const struct moe_vk_net_dispatch *d = &program->dispatches[i];
        assert_true(d->x <= FLOOR_GROUPS && d->y <= FLOOR_GROUPS);
        assert_true(sizeof d->head + d->params_size <= 128);
        assert_true(d->n_ranges > 0 && d->work >= 0);
        if (d->spv == MOE_SPV_NET_MATMUL || d->spv == MOE_SPV_NET_MATMUL_DW)
            assert_true(d->work <= 2 * max_work); // pieces of whole tiles
        for (uint32_t r = 0; r < d->n_ranges; r++)
            assert_true(d->ranges[r].offset + d->ranges[r].n <= end);
    }
}

// A pipeline is made once for all runs.
static void check_same_kernels(const struct program *a, const struct program *b)
{
    assert_int_equal(a->n, b->n);
    assert_true(b->scratch_size <= a->scratch_size);
    for (uint32_t i = 0; i < a->n; i++) {
        assert_int_equal(a->dispatches[i].spv, b->dispatches[i].spv);
        assert_memory_equal(a->dispatches[i].spec, b->dispatches[i].spec,
                            sizeof a->dispatches[i].spec);
    }
}

// A checker that never finds anything is none: without its barriers the program has races.
static uint32_t races_without_barriers(struct program *program)
{
    for (uint32_t i = 1; i < program->n; i++)
        program->dispatches[i].barrier = false;
    return count_races(program);
}

static void check_program(const struct moe_net *net, enum moe_net_program which, bool bda)
{
    struct program most =
        compile(net, which, args_of(net->max_tokens, net->max_examples), bda);
    struct program few = compile(net, which, args_of(1, 1), bda);
    struct program none = compile(net, which, args_of(0, 0), bda);
    check_limits(&most, net);
    check_limits(&few, net);
    check_same_kernels(&most, &few);
    check_same_kernels(&most, &none);
    assert_int_equal(count_races(&most), 0);
    assert_int_equal(count_races(&few), 0);
    if (most.n > 8)
        assert_true(races_without_barriers(&most) > 0);
    free(most.dispatches);
    free(few.dispatches);
    free(none.dispatches);
}

static struct moe_train *make(const vkmoe_net_desc *desc)
{
    struct moe_train_spec spec;
    struct moe_train *train;
    check_ok(moe_api_net_spec(moe_host_default(), desc, &spec));
    check_ok(moe_train_create(moe_host_default(), &spec, &train));
    moe_api_net_spec_finish(moe_host_default(), &spec);
    return train;
}

static void test_every_option(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < net_case_count(); i++) {
        struct net_case of;
        net_case_init(&of, i);
        struct moe_train *train = make(&of.desc);
        for (int p = 0; p < MOE_NET_N_PROGRAMS; p++)
            for (int bda = 0; bda < 2; bda++)
                check_program(train->net, (enum moe_net_program) p, bda);
        moe_train_destroy(train);
    }
}

// ---- a layer of usual size ---------------------------------------------------------------------

// Most sizes are above what a grid may have.
static void test_large(void **state)
{
    (void) state;
    struct net_case of;
    net_case_init(&of, 0);
    for (uint32_t i = 0; i < of.desc.n_layers; i++)
        of.layers[i] = vkmoe_net_layer_init();
    of.moe[0] = vkmoe_layer_desc_init();
    of.moe[0].n_experts = 16;
    of.moe[0].top_k = 2;
    of.moe[0].d_model = 512;
    of.moe[0].d_ff = 1024;
    of.moe[0].gated = true;
    of.moe[0].act = VKMOE_ACT_SILU;
    of.layers[0].kind = VKMOE_NET_MOE;
    of.layers[0].layer = &of.moe[0];
    of.layers[0].load_balance = 0.01f;
    of.list[0] = &of.layers[0];
    of.desc = vkmoe_net_desc_init();
    of.desc.layers = of.list;
    of.desc.n_layers = 1;
    of.desc.d_in = 512;
    of.desc.max_tokens = 1 << 18;
    of.desc.loss = VKMOE_LOSS_MSE;
    of.desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    of.desc.clip_norm = 1;
    struct moe_train *train = make(&of.desc);
    uint32_t n = 0, n_cut = 0;
    for (int p = 0; p < MOE_NET_EVAL; p++) {
        check_program(train->net, (enum moe_net_program) p, true);
        struct program program = compile(train->net, (enum moe_net_program) p, args_of(1024, 1024),
                                         true);
        n += program.n;
        max_work = 4e10; // at least one tile, of all tokens
        check_program(train->net, (enum moe_net_program) p, false);
        struct program cut = compile(train->net, (enum moe_net_program) p, args_of(1024, 1024),
                                     false);
        n_cut += cut.n;
        max_work = INFINITY;
        free(program.dispatches);
        free(cut.dispatches);
    }
    print_message("%u dispatches for a step\n", n);
    assert_true(n_cut > n + 20);
    moe_train_destroy(train);
}

// ---- gradients of matrices ---------------------------------------------------------------------

// All rows may be of one group: the pieces that its gradient is cut into share its tiles. Tiles of
// group 0 that each piece takes, as the kernel does, are counted.
static void test_gradient_is_shared(void **state)
{
    (void) state;
    enum { ROWS = 4096, DEPTH = 640, WIDTH = 96, GROUPS = 8, TILES = DEPTH / MOE_NET_TILE_ROWS };
    struct moe_net *net;
    uint32_t seen[GROUPS * TILES] = {0};
    check_ok(moe_net_create(moe_host_default(), ROWS, 1, &net));
    struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, MOE_NET_MATMUL_DW);
    op->in[0] = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, DEPTH, "y");
    op->in[1] = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, WIDTH, "a");
    op->in[3] = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_I32, MOE_NET_FIXED, GROUPS + 1, 1,
                                   "s");
    op->in[4] = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_I32, MOE_NET_TOKENS, 1, 1, "m");
    op->out[0] = moe_net_add_tensor(net, MOE_NET_GRAD, MOE_NET_F32, MOE_NET_FIXED, GROUPS * DEPTH,
                                    WIDTH, "dw");
    check_ok(moe_net_plan(net));
    max_work = 2.0 * ROWS * DEPTH * WIDTH / 6.5;
    struct program program = compile(net, MOE_NET_FORWARD, args_of(ROWS, 1), true);
    max_work = INFINITY;
    assert_int_equal(program.n, 7);
    for (uint32_t i = 0; i < program.n; i++) {
        struct net_matmul_params p;
        uint32_t n = 0, n_first = 0;
        memcpy(&p, program.dispatches[i].params, sizeof p);
        for (uint32_t tile = p.first_tile; tile < p.end_tile; tile += p.tile_step, n++) {
            seen[tile]++;
            n_first += tile < TILES;
        }
        assert_int_equal(program.dispatches[i].y, n);
        assert_true(n_first >= 2 && n_first <= 3);
    }
    for (uint32_t i = 0; i < GROUPS * TILES; i++)
        assert_int_equal(seen[i], 1);
    free(program.dispatches);
    moe_net_destroy(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_option),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_gradient_is_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
