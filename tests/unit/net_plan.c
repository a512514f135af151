// SPDX-License-Identifier: MIT
// Plans of networks: a run never overwrites what is still to be read, and memory is used again.
// The ops are walked with a map of the arena that says which tensor each block of it holds.
#include "budget.h"
#include "check.h"

#include "base/host.h"
#include "core/net.h"

#include <stdlib.h>

enum { BLOCK = 64, N_TOKENS = 7, N_EXAMPLES = 3 };

// ---- the map ----------------------------------------------------------------------------------

static uint64_t n_elements(const struct moe_net *net, uint32_t tensor)
{
    const struct moe_net_tensor *t = &net->tensors[tensor];
    return moe_net_rows(t, net->max_tokens, net->max_examples) * t->width;
}

static uint64_t n_blocks(const struct moe_net *net, uint32_t tensor)
{
    return (n_elements(net, tensor) + BLOCK - 1) / BLOCK;
}

static void hold(const struct moe_net *net, uint32_t *map, uint32_t tensor)
{
    assert_int_equal(net->tensors[tensor].offset % BLOCK, 0);
    assert_true(net->tensors[tensor].offset + n_elements(net, tensor) <= net->arena_size);
    for (uint64_t i = 0; i < n_blocks(net, tensor); i++)
        map[net->tensors[tensor].offset / BLOCK + i] = tensor;
}

static bool holds(const struct moe_net *net, const uint32_t *map, uint32_t tensor)
{
    for (uint64_t i = 0; i < n_blocks(net, tensor); i++) {
        if (map[net->tensors[tensor].offset / BLOCK + i] != tensor)
            return false;
    }
    return true;
}

// Does every op find its operands, before and after it has written its results?
static bool ops_find_operands(const struct moe_net *net, uint32_t *map, enum moe_net_program p)
{
    bool found = true;
    for (uint32_t i = 0; i < net->programs[p].n; i++) {
        const struct moe_net_op *op = &net->programs[p].ops[i];
        for (uint32_t j = 0; j < MOE_NET_RESULTS; j++) {
            if (op->out[j] == MOE_NET_NONE)
                continue;
            found = found && (!moe_net_op_updates(op, j) || holds(net, map, op->out[j]));
            hold(net, map, op->out[j]);
        }
        for (uint32_t j = 0; j < MOE_NET_OPERANDS; j++)
            found = found && (op->in[j] == MOE_NET_NONE || holds(net, map, op->in[j]));
        for (uint32_t j = 0; j < MOE_NET_RESULTS; j++)
            found = found && (op->out[j] == MOE_NET_NONE || holds(net, map, op->out[j]));
    }
    return found;
}

// Is everything there that may be read after these programs?
static bool kept_are_there(const struct moe_net *net, const uint32_t *map, const bool *is_eval,
                           bool eval)
{
    bool there = true;
    for (uint32_t i = 0; i < net->n_tensors; i++) {
        const struct moe_net_tensor *t = &net->tensors[i];
        if (t->role != MOE_NET_VALUE || (t->keep && is_eval[i] == eval))
            there = there && holds(net, map, i);
    }
    return there;
}

static bool plan_is_right(const struct moe_net *net, const bool *is_eval)
{
    uint32_t *map = malloc((net->arena_size / BLOCK + 1) * sizeof *map);
    assert_non_null(map);
    memset(map, 0xff, (net->arena_size / BLOCK + 1) * sizeof *map);
    for (uint32_t i = 0; i < net->n_tensors; i++) {
        if (net->tensors[i].role != MOE_NET_VALUE)
            hold(net, map, i);
    }
    bool right = true;
    for (uint32_t p = MOE_NET_FORWARD; p < MOE_NET_EVAL; p++)
        right = right && ops_find_operands(net, map, (enum moe_net_program) p);
    right = right && kept_are_there(net, map, is_eval, false) &&
            ops_find_operands(net, map, MOE_NET_EVAL) && kept_are_there(net, map, is_eval, true);
    free(map);
    return right;
}

// ---- random nets ------------------------------------------------------------------------------

enum { N_OPS = 24, MAX_TENSORS = 256 };

static uint32_t next(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t) ((uint64_t) (*state >> 8) * below >> 24);
}

struct random_net {
    struct moe_net *net;
    bool is_eval[MAX_TENSORS];
    uint32_t values[MAX_TENSORS], n_values; // of the programs being built
    uint32_t seed;
};

static uint32_t add_value(struct random_net *r, enum moe_net_rows_of rows, uint32_t n,
                          uint32_t width, bool eval)
{
    uint32_t v = moe_net_add_tensor(r->net, MOE_NET_VALUE, MOE_NET_F32, rows, n, width, "v");
    r->net->tensors[v].keep = next(&r->seed, 8) == 0;
    r->is_eval[v] = eval;
    r->values[r->n_values++] = v;
    return v;
}

// An op that makes a value: of nothing, or of another value that is as large, larger or smaller.
static void add_op(struct random_net *r, enum moe_net_program p)
{
    uint32_t from = r->values[next(&r->seed, r->n_values)], kind = next(&r->seed, 4);
    const struct moe_net_tensor shape = r->net->tensors[from];
    bool eval = p == MOE_NET_EVAL;
    struct moe_net_op *op;
    if (kind == 0 || (kind == 1 && shape.n > 20)) {
        op = moe_net_add_op(r->net, p, MOE_NET_FILL);
        op->out[0] = add_value(r, (enum moe_net_rows_of) next(&r->seed, 3), 1,
                               1 + next(&r->seed, 300), eval);
    } else if (kind == 1) {
        op = moe_net_add_op(r->net, p, MOE_NET_SCALE_ROWS);
        op->in[0] = from, op->div[0] = 3;
        op->out[0] = add_value(r, shape.rows, 3 * shape.n, shape.width, eval);
    } else if (kind == 2) {
        op = moe_net_add_op(r->net, p, MOE_NET_ROW_DOT);
        op->in[0] = op->in[1] = from;
        op->out[0] = add_value(r, shape.rows, shape.n, 1, eval);
    } else {
        uint32_t to = add_value(r, shape.rows, shape.n, shape.width, eval);
        op = moe_net_add_op(r->net, p, MOE_NET_ACT);
        op->in[0] = from, op->out[0] = to;
        op = moe_net_add_op(r->net, p, MOE_NET_SCALE_ROWS);
        op->in[0] = from, op->out[0] = to;
        op->write = MOE_NET_ADD;
    }
}

static void add_ops(struct random_net *r, enum moe_net_program p)
{
    for (uint32_t i = 0; i < N_OPS; i++)
        add_op(r, p);
}

static void random_net_init(struct random_net *r, const vkmoe_host *host, uint32_t seed)
{
    memset(r, 0, sizeof *r);
    r->seed = seed;
    check_ok(moe_net_create(host, N_TOKENS, N_EXAMPLES, &r->net));
    uint32_t x = moe_net_add_tensor(r->net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, 33, "x");
    moe_net_add_tensor(r->net, MOE_NET_PARAM, MOE_NET_F32, MOE_NET_FIXED, 5, 13, "w");
    r->values[r->n_values++] = x;
    add_ops(r, MOE_NET_FORWARD);
    add_ops(r, MOE_NET_BACKWARD);
    add_ops(r, MOE_NET_STEP_PROGRAM);
    moe_net_add_tensor(r->net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_EXAMPLES, 2, 1, "state");
    r->n_values = 1;
    add_ops(r, MOE_NET_EVAL);
}

static void test_nothing_is_overwritten(void **state)
{
    (void) state;
    for (uint32_t seed = 0; seed < 200; seed++) {
        struct random_net r;
        random_net_init(&r, moe_host_default(), seed);
        check_ok(moe_net_plan(r.net));
        if (!plan_is_right(r.net, r.is_eval))
            fail_msg("net %u: a tensor is overwritten", seed);
        moe_net_destroy(r.net);
    }
}

// The control: two tensors that are used together, at one place.
static void test_the_map_sees_an_overlap(void **state)
{
    (void) state;
    uint32_t n_seen = 0, n = 0;
    for (uint32_t seed = 0; seed < 20; seed++) {
        struct random_net r;
        random_net_init(&r, moe_host_default(), seed);
        check_ok(moe_net_plan(r.net));
        r.net->arena_size += 1 << 20; // room for what is moved
        for (uint32_t i = 0; i < r.net->programs[MOE_NET_BACKWARD].n; i++) {
            const struct moe_net_op *op = &r.net->programs[MOE_NET_BACKWARD].ops[i];
            if (op->in[0] == MOE_NET_NONE)
                continue;
            uint64_t before = r.net->tensors[op->out[0]].offset;
            r.net->tensors[op->out[0]].offset = r.net->tensors[op->in[0]].offset;
            n++;
            n_seen += !plan_is_right(r.net, r.is_eval);
            r.net->tensors[op->out[0]].offset = before;
        }
        moe_net_destroy(r.net);
    }
    assert_true(n > 20);
    assert_int_equal(n_seen, n);
}

static void test_plans_are_the_same(void **state)
{
    (void) state;
    struct random_net a, b;
    random_net_init(&a, moe_host_default(), 5);
    random_net_init(&b, moe_host_default(), 5);
    check_ok(moe_net_plan(a.net));
    check_ok(moe_net_plan(b.net));
    assert_int_equal(a.net->arena_size, b.net->arena_size);
    for (uint32_t i = 0; i < a.net->n_tensors; i++)
        assert_int_equal(a.net->tensors[i].offset, b.net->tensors[i].offset);
    moe_net_destroy(a.net);
    moe_net_destroy(b.net);
}

// ---- memory -----------------------------------------------------------------------------------

// x -> v0 -> v1 -> ... in each program: two values are alive at a time, three where one is kept.
static uint64_t chain_size(bool keep)
{
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), N_TOKENS, N_EXAMPLES, &net));
    uint32_t x = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_FIXED, 1, 128, "x");
    for (uint32_t p = MOE_NET_FORWARD; p < MOE_NET_N_PROGRAMS; p++) {
        uint32_t from = x;
        for (uint32_t i = 0; i < 20; i++) {
            uint32_t to =
                moe_net_add_tensor(net, MOE_NET_VALUE, MOE_NET_F32, MOE_NET_FIXED, 1, 128, "v");
            net->tensors[to].keep = keep && p == MOE_NET_FORWARD && i == 3;
            struct moe_net_op *op = moe_net_add_op(net, (enum moe_net_program) p, MOE_NET_ACT);
            op->in[0] = from, op->out[0] = to;
            from = to;
        }
    }
    check_ok(moe_net_plan(net));
    uint64_t size = net->arena_size;
    moe_net_destroy(net);
    return size;
}

static void test_memory_is_used_again(void **state)
{
    (void) state;
    assert_int_equal(chain_size(false), 128 + 2 * 128);
    assert_int_equal(chain_size(true), 128 + 3 * 128);
}

// Two elements of 16 bits are a word, the last one may be alone in it.
static void test_halves_take_half(void **state)
{
    (void) state;
    static const enum moe_net_type types[] = {MOE_NET_F16, MOE_NET_BF16};
    static const uint32_t widths[] = {128, 129, 127, 1}, words[] = {64, 128, 64, 64};
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), N_TOKENS, N_EXAMPLES, &net));
    for (uint32_t i = 0; i < 8; i++)
        moe_net_add_tensor(net, MOE_NET_STATE, types[i % 2], MOE_NET_FIXED, 1, widths[i / 2], "q");
    check_ok(moe_net_plan(net));
    uint64_t end = 0;
    for (uint32_t i = 0; i < 8; end += words[i++ / 2])
        assert_int_equal(net->tensors[i].offset, end);
    assert_int_equal(net->arena_size, end);
    moe_net_destroy(net);
}

static void test_an_empty_net(void **state)
{
    (void) state;
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), N_TOKENS, N_EXAMPLES, &net));
    check_ok(moe_net_plan(net));
    assert_int_equal(net->arena_size, 0);
    moe_net_destroy(net);
}

// Tensors of n (n, width) each; all of them fit into 64 bits, or not.
static void check_too_large(uint32_t n_tensors, enum moe_net_role role, enum moe_net_rows_of rows)
{
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), UINT32_MAX, 1, &net));
    for (uint32_t i = 0; i < n_tensors; i++) {
        uint32_t t =
            moe_net_add_tensor(net, role, MOE_NET_F32, rows, UINT32_MAX, UINT32_MAX, "large");
        net->tensors[t].keep = true;
        moe_net_add_op(net, MOE_NET_FORWARD, MOE_NET_FILL)->out[0] = t;
    }
    check_fails(moe_net_plan(net), VKMOE_E_MEMORY, "64 bits");
    moe_net_destroy(net);
}

static void test_sizes_that_overflow(void **state)
{
    (void) state;
    check_too_large(1, MOE_NET_PARAM, MOE_NET_TOKENS);
    check_too_large(1, MOE_NET_VALUE, MOE_NET_TOKENS);
    check_too_large(2, MOE_NET_PARAM, MOE_NET_FIXED);
    check_too_large(2, MOE_NET_VALUE, MOE_NET_FIXED);
}

static enum vkmoe_status build_and_plan(struct budget *budget)
{
    vkmoe_host host;
    vkmoe_host with_budget = vkmoe_host_init();
    struct moe_net *net;
    budget_host(&with_budget, budget);
    check_ok(moe_host_init(&host, &with_budget));
    enum vkmoe_status status = moe_net_create(&host, N_TOKENS, N_EXAMPLES, &net);
    if (status != VKMOE_OK)
        return status;
    uint32_t from = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, 3, "x");
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t to =
            moe_net_add_tensor(net, MOE_NET_VALUE, MOE_NET_F32, MOE_NET_TOKENS, 1, 3, "v%u", i);
        struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, MOE_NET_ACT);
        op->in[0] = from, op->out[0] = to;
        from = to;
        moe_net_own(net, 8);
    }
    status = moe_net_plan(net);
    moe_net_destroy(net);
    return status;
}

static void test_every_allocation_may_fail(void **state)
{
    (void) state;
    long n = 0;
    for (;; n++) {
        struct budget budget = {.fail_at = n, .once = true};
        vkmoe_error_set("");
        enum vkmoe_status status = build_and_plan(&budget);
        assert_int_equal(budget.live, 0);
        if (!budget_failed(&budget)) {
            assert_int_equal(status, VKMOE_OK);
            break;
        }
        assert_int_equal(status, VKMOE_E_MEMORY);
        assert_true(strlen(vkmoe_error_text()) > 0);
    }
    assert_true(n > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_overwritten),
        cmocka_unit_test(test_the_map_sees_an_overlap),
        cmocka_unit_test(test_plans_are_the_same),
        cmocka_unit_test(test_memory_is_used_again),
        cmocka_unit_test(test_halves_take_half),
        cmocka_unit_test(test_an_empty_net),
        cmocka_unit_test(test_sizes_that_overflow),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
