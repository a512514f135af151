// SPDX-License-Identifier: MIT
// Networks on a device of small limits (interpose.c): net_sizes MODE, bda or descriptors. Every op
// gives the bits that it gives without them; what is too large is refused with numbers; and sizes
// for which kernels take another way are computed right.
#include "check.h"
#include "host.h"
#include "interpose.h"
#include "../cross/net_case.h"

#include "api/api.h"
#include "base/bits.h"
#include "base/host.h"
#include "core/net_ref.h"

#include <stdlib.h>

enum { ALL = 1 << MOE_NET_FORWARD };
#define NONE MOE_NET_NONE

static vkmoe_context_desc desc;
static vkmoe_context *usual, *small; // small: one workgroup an axis, memory out of the host's sight

static struct moe_device_net *create(const vkmoe_context *on, const struct moe_net *net)
{
    struct moe_device_net *out;
    check_ok(on->device->backend->net_create(on->device, net, &out));
    return out;
}

static void destroy(struct moe_device_net *net)
{
    net->device->backend->net_destroy(net);
}

static void put(struct moe_device_net *net, uint32_t tensor, uint64_t n, const void *data)
{
    check_ok(net->device->backend->net_write(net, tensor, n, data));
}

static void get(struct moe_device_net *net, uint32_t tensor, uint64_t n, void *data)
{
    check_ok(net->device->backend->net_read(net, tensor, n, data));
}

static void run(struct moe_device_net *net, const struct moe_net_args *args)
{
    check_ok(net->device->backend->net_run(net, ALL, args));
}

static void *memory(uint64_t n)
{
    void *out = calloc(n + 1, 4);
    assert_non_null(out);
    return out;
}

// ---- every op ----------------------------------------------------------------------------------

struct counter {
    struct case_sink sink;
    uint32_t n_cases, n_written;
};

static void *result_of(const struct net_case *c, const vkmoe_context *on, uint32_t tensor)
{
    struct moe_device_net *net = create(on, c->net);
    for (uint32_t i = 0; i < c->net->n_tensors; i++)
        put(net, i, case_size(c, i), c->data[i].any);
    run(net, &c->args);
    void *out = memory(case_size(c, tensor));
    get(net, tensor, case_size(c, tensor), out);
    destroy(net);
    return out;
}

static void compare(struct case_sink *sink, const struct net_case *c)
{
    struct counter *counter = (struct counter *) sink;
    const struct moe_net_op *op = &c->net->programs[MOE_NET_FORWARD].ops[0];
    counter->n_cases++;
    for (uint32_t i = 0; i < MOE_NET_RESULTS; i++) {
        if (op->out[i] == MOE_NET_NONE)
            continue;
        size_t size = case_size(c, op->out[i]) * 4;
        void *a = result_of(c, usual, op->out[i]), *b = result_of(c, small, op->out[i]);
        if (memcmp(a, b, size) != 0)
            fail_msg("%s: result %u has other bits on a small device", c->name, i);
        counter->n_written += memcmp(a, c->data[op->out[i]].any, size) != 0;
        free(a);
        free(b);
    }
}

static void test_every_op(void **state)
{
    (void) state;
    struct counter counter = {.sink = {compare}};
    list_matrix_cases(&counter.sink);
    list_route_cases(&counter.sink);
    list_row_cases(&counter.sink);
    list_loss_cases(&counter.sink);
    list_step_cases(&counter.sink);
    assert_true(counter.n_cases > 500 && counter.n_written > 500);
}

// ---- limits ------------------------------------------------------------------------------------

static struct moe_net *net_of(uint64_t n_rows, uint32_t width)
{
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), 1, 1, &net));
    uint32_t tensor = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED,
                                         (uint32_t) n_rows, width, "large.state");
    struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, MOE_NET_FILL);
    op->out[0] = tensor;
    check_ok(moe_net_plan(net));
    return net;
}

static void refused(const vkmoe_context *on, uint64_t n_rows, uint32_t width, const char *text)
{
    struct moe_net *net = net_of(n_rows, width);
    struct moe_device_net *out;
    check_fails(on->device->backend->net_create(on->device, net, &out), VKMOE_E_UNSUPPORTED, text);
    assert_null(out);
    moe_net_destroy(net);
}

// 2^26 slots of 64 elements each, though no tensor has as many.
static void scratch_refused(void)
{
    enum { TOP_K = 64, WIDTH = 64 };
    struct moe_net *net;
    struct moe_device_net *out;
    check_ok(moe_net_create(moe_host_default(), 1 << 20, 1, &net));
    uint32_t h = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, 1,
                                    "h");
    uint32_t w = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_FIXED, WIDTH, 1, "w");
    uint32_t starts = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_I32, MOE_NET_FIXED, 2, 1, "s");
    uint32_t members = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_I32, MOE_NET_TOKENS, TOP_K,
                                          1, "m");
    struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, MOE_NET_MATMUL_COMBINE);
    op->top_k = TOP_K;
    op->in[0] = h;
    op->in[1] = w;
    op->in[4] = starts;
    op->in[5] = members;
    op->out[0] = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_TOKENS, 1, WIDTH, "y");
    check_ok(moe_net_plan(net));
    check_fails(usual->device->backend->net_create(usual->device, net, &out), VKMOE_E_UNSUPPORTED,
                "4294967296 elements of scratch memory");
    moe_net_destroy(net);
}

static void test_too_large(void **state)
{
    (void) state;
    scratch_refused();
    refused(usual, 1u << 16, 1u << 15, "'large.state' has 2147483648 elements");
    refused(small, 5u << 20, 1, "16777216"); // a range, or an allocation
}

// ---- what is written and read ------------------------------------------------------------------

enum { N_WRITTEN = 200000 }; // times 30: more than staging memory has

static void write_and_read(const vkmoe_context *on)
{
    struct moe_net *net = net_of(N_WRITTEN, 1);
    struct moe_device_net *out = create(on, net);
    uint32_t *data = memory(N_WRITTEN), *back = memory(N_WRITTEN), kept[3];
    get(out, 0, N_WRITTEN, back);
    for (uint32_t i = 0; i < N_WRITTEN; i++)
        assert_int_equal(back[i], 0); // memory begins as zero
    for (uint32_t time = 0; time < 30; time++) {
        for (uint32_t i = 0; i < N_WRITTEN; i++)
            data[i] = time * 1000003 + i * 7 + 1;
        put(out, 0, N_WRITTEN, data);
        put(out, 0, 2, &data[5]); // to the same place again
    }
    get(out, 0, 3, kept);
    assert_int_equal(kept[0], data[5]);
    assert_int_equal(kept[2], data[2]);
    get(out, 0, N_WRITTEN, back);
    assert_memory_equal(&back[2], &data[2], (N_WRITTEN - 2) * 4);
    put(out, 0, 1, data); // is there before the run that overwrites it
    run(out, &(struct moe_net_args){.n_tokens = 1, .n_examples = 1});
    get(out, 0, N_WRITTEN, back);
    for (uint32_t i = 0; i < N_WRITTEN; i++)
        assert_int_equal(back[i], 0x3f800000); // alpha is 1
    free(data);
    free(back);
    destroy(out);
    moe_net_destroy(net);
}

static void test_writes(void **state)
{
    (void) state;
    write_and_read(usual);
    write_and_read(small);
}

// ---- other ways of kernels ---------------------------------------------------------------------

// Rows spread over very many groups are sorted in several passes.
static void group(const vkmoe_context *on, uint32_t n_rows, uint32_t n_groups)
{
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), n_rows, 1, &net));
    uint32_t ids = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_I32, MOE_NET_TOKENS, 1, 1, "i");
    uint32_t starts = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_I32, MOE_NET_FIXED,
                                         n_groups + 1, 1, "s");
    uint32_t members = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_I32, MOE_NET_TOKENS, 1, 1,
                                          "m");
    struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, MOE_NET_GROUP);
    op->in[0] = ids;
    op->out[0] = starts;
    op->out[1] = members;
    check_ok(moe_net_plan(net));

    uint32_t *id = memory(n_rows), *want = memory(n_groups + 1), *got = memory(n_groups + 1);
    uint32_t *rows = memory(n_rows);
    for (uint32_t r = 0, state = 1; r < n_rows; r++) {
        state = state * 1664525 + 1013904223;
        id[r] = r % 3 == 0 ? n_groups - 1 : (uint32_t) ((uint64_t) (state >> 8) * n_groups >> 24);
        want[id[r] + 1]++;
    }
    for (uint32_t g = 0; g < n_groups; g++)
        want[g + 1] += want[g];
    struct moe_device_net *out = create(on, net);
    put(out, ids, n_rows, id);
    run(out, &(struct moe_net_args){.n_tokens = n_rows, .n_examples = 1});
    get(out, starts, n_groups + 1, got);
    get(out, members, n_rows, rows);
    assert_memory_equal(got, want, ((size_t) n_groups + 1) * 4);
    for (uint32_t r = 0; r < n_rows; r++) { // the next row of its group
        uint32_t place = want[id[r]]++;
        assert_int_equal(rows[place], r);
    }
    free(id);
    free(want);
    free(got);
    free(rows);
    destroy(out);
    moe_net_destroy(net);
}

static void test_groups(void **state)
{
    (void) state;
    static const uint32_t sizes[][2] = {{1, 1},       {300, 1024},   {1000, 1025},
                                        {700, 70000}, {500, 150000}, {20000, 3}};
    for (size_t i = 0; i < MOE_COUNT(sizes); i++) {
        group(usual, sizes[i][0], sizes[i][1]);
        group(small, sizes[i][0], sizes[i][1]);
    }
    group(usual, 2000, (1 << 20) + 1); // three passes
}

// More groups than a grid has workgroups, `starts` being the last of memory: every group's sum, and
// its gradient of a 1 by 1 matrix.
static void sums_of_groups(const vkmoe_context *on, uint32_t n_groups)
{
    enum { N_ROWS = 1000 };
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), N_ROWS, 1, &net));
    uint32_t d = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, 1, "d");
    uint32_t members = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_I32, MOE_NET_TOKENS, 1, 1,
                                          "m");
    uint32_t sum = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED, n_groups, 1,
                                      "e");
    uint32_t dw = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED, n_groups, 1,
                                     "dw");
    uint32_t starts = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_I32, MOE_NET_FIXED,
                                         n_groups + 1, 1, "s");
    const struct {
        enum moe_net_op_kind kind;
        uint32_t in[5], out;
    } ops[] = {{MOE_NET_GROUP_SUM, {d, starts, members, NONE, NONE}, sum},
               {MOE_NET_MATMUL_DW, {d, d, NONE, starts, members}, dw}};
    for (size_t i = 0; i < MOE_COUNT(ops); i++) {
        struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, ops[i].kind);
        memcpy(op->in, ops[i].in, sizeof ops[i].in);
        op->out[0] = ops[i].out;
    }
    check_ok(moe_net_plan(net));

    float *data = memory(N_ROWS), *sums = memory(n_groups), *squares = memory(n_groups);
    uint32_t *rows = memory(N_ROWS), *start = memory(n_groups + 1);
    for (uint32_t g = 0; g <= n_groups; g++) // one row a group, the last 70 groups; none before
        start[g] = g <= n_groups - 70 ? 0 : g < n_groups ? g - (n_groups - 70) : N_ROWS;
    for (uint32_t i = 0; i < N_ROWS; i++) {
        rows[i] = i;
        data[i] = (float) (i % 13) - 6;
    }
    struct moe_device_net *out = create(on, net);
    put(out, d, N_ROWS, data);
    put(out, members, N_ROWS, rows);
    put(out, starts, n_groups + 1, start);
    run(out, &(struct moe_net_args){.n_tokens = N_ROWS, .n_examples = 1});
    get(out, sum, n_groups, sums);
    get(out, dw, n_groups, squares);
    for (uint32_t g = 0; g < n_groups; g++) {
        float want[2] = {0};
        for (uint32_t i = start[g]; i < start[g + 1]; i++) {
            want[0] += data[i];
            want[1] += data[i] * data[i];
        }
        if (sums[g] != want[0] || squares[g] != want[1])
            fail_msg("group %u: %g and %g, not %g and %g", g, (double) sums[g],
                     (double) squares[g], (double) want[0], (double) want[1]);
    }
    assert_true(sums[n_groups - 70] == -6 && squares[n_groups - 1] > 1000);
    free(data);
    free(sums);
    free(squares);
    free(rows);
    free(start);
    destroy(out);
    moe_net_destroy(net);
}

static void test_sums_of_groups(void **state)
{
    (void) state;
    if (desc.addressing == VKMOE_ADDRESSING_BDA) // no matter how, and it takes a while
        sums_of_groups(usual, 70000);
    sums_of_groups(small, 500);
}

// Sums over more rows than a loop of some drivers may take in single steps.
static void test_many_rows(void **state)
{
    (void) state;
    enum { N_ROWS = 200000 };
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), N_ROWS, 1, &net));
    uint32_t d = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, 1, "d");
    uint32_t sums[2];
    struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, MOE_NET_MATMUL_DW);
    op->in[0] = op->in[1] = d;
    for (uint32_t i = 0; i < 2; i++)
        sums[i] = op->out[i] = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED, 1,
                                                  1, "sum %u", i);
    check_ok(moe_net_plan(net));
    float *data = memory(N_ROWS), got[2];
    for (uint32_t i = 0; i < N_ROWS; i++)
        data[i] = 2;
    struct moe_device_net *out = create(usual, net);
    put(out, d, N_ROWS, data);
    run(out, &(struct moe_net_args){.n_tokens = N_ROWS, .n_examples = 1});
    for (uint32_t i = 0; i < 2; i++)
        get(out, sums[i], 1, &got[i]);
    assert_true(got[0] == 4 * N_ROWS && got[1] == 2 * N_ROWS);
    free(data);
    destroy(out);
    moe_net_destroy(net);
}

// Sums of integers that f32 holds, from more elements than one chunk has.
static void total(const vkmoe_context *on, uint32_t n_rows, enum moe_net_op_kind kind)
{
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), n_rows, 1, &net));
    uint32_t a = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 3, 7, "a");
    uint32_t sum = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED, 1, 1, "s");
    struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, kind);
    op->in[0] = a;
    op->out[0] = sum;
    check_ok(moe_net_plan(net));
    uint32_t n = n_rows * 21;
    float *data = memory(n), got;
    double want = 0;
    for (uint32_t i = 0; i < n; i++) {
        data[i] = (float) ((int32_t) (i * 2654435761u >> 29) - 2);
        want += (double) (kind == MOE_NET_REDUCE ? data[i] : data[i] * data[i]);
    }
    struct moe_device_net *out = create(on, net);
    put(out, a, n, data);
    run(out, &(struct moe_net_args){.n_tokens = n_rows, .n_examples = 1});
    get(out, sum, 1, &got);
    assert_true(want != 0 && (double) got == want);
    free(data);
    destroy(out);
    moe_net_destroy(net);
}

static void test_totals(void **state)
{
    (void) state;
    static const uint32_t rows[] = {1, 195, 196, 5000};
    for (size_t i = 0; i < MOE_COUNT(rows); i++) {
        total(usual, rows[i], MOE_NET_REDUCE);
        total(small, rows[i], MOE_NET_REDUCE);
        total(usual, rows[i], MOE_NET_SUM_SQUARES);
    }
}

// More experts than a workgroup has invocations, and the most there may be.
static void select_of(uint32_t n_experts, uint32_t top_k)
{
    enum { N_TOKENS = 3 };
    struct moe_net *net;
    struct moe_ref_net *ref;
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = n_experts;
    layer.top_k = top_k;
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    check_ok(moe_net_create(moe_host_default(), N_TOKENS, 1, &net));
    uint32_t logits = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1,
                                         n_experts, "l");
    uint32_t ids = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_I32, MOE_NET_TOKENS, top_k, 1,
                                      "i");
    uint32_t gates = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_TOKENS, top_k, 1,
                                        "g");
    struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, MOE_NET_SELECT);
    op->layer = &layer;
    op->top_k = top_k;
    op->in[0] = logits;
    op->out[0] = ids;
    op->out[1] = gates;
    check_ok(moe_net_plan(net));
    uint32_t n = N_TOKENS * n_experts, n_slots = N_TOKENS * top_k;
    float *data = memory(n), *gate = memory(n_slots);
    int32_t *id = memory(n_slots);
    check_ok(moe_ref_net_create(moe_host_default(), net, &ref));
    for (uint32_t i = 0; i < n; i++) { // no two equal
        data[i] = (float) (i * 2654435761u >> 12) * 0x1p-18f;
        moe_ref_net_values(ref, logits)[i] = (double) data[i];
    }
    const struct moe_net_args args = {.n_tokens = N_TOKENS, .n_examples = 1};
    struct moe_device_net *out = create(usual, net);
    put(out, logits, n, data);
    run(out, &args);
    moe_ref_net_run(ref, ALL, &args);
    get(out, ids, n_slots, id);
    get(out, gates, n_slots, gate);
    for (uint32_t i = 0; i < n_slots; i++) {
        double want = moe_ref_net_values(ref, gates)[i];
        assert_int_equal(id[i], (int32_t) moe_ref_net_values(ref, ids)[i]);
        assert_true(fabs((double) gate[i] - want) <= 1e-5 * want);
    }
    free(data);
    free(gate);
    free(id);
    moe_ref_net_destroy(ref);
    destroy(out);
    moe_net_destroy(net);
}

static void test_selections(void **state)
{
    (void) state;
    select_of(129, 8);
    select_of(600, 600);
    select_of(1024, 64);
}

// A product and its gradients, large enough to be cut into several dispatches on a CPU.
static struct moe_net *products_net(uint32_t *y, uint32_t *da, uint32_t *dw)
{
    enum { ROWS = 300, DEPTH = 260, WIDTH = 520, GROUPS = 2 };
    struct moe_net *net;
    check_ok(moe_net_create(moe_host_default(), ROWS, 1, &net));
    uint32_t a = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, DEPTH, "a");
    uint32_t w = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_FIXED,
                                    GROUPS * WIDTH, DEPTH, "w");
    uint32_t ids = moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_I32, MOE_NET_TOKENS, 1, 1, "i");
    uint32_t starts = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_I32, MOE_NET_FIXED,
                                         GROUPS + 1, 1, "s");
    uint32_t members = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_I32, MOE_NET_TOKENS, 1, 1,
                                          "m");
    *y = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_TOKENS, 1, WIDTH, "y");
    *da = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_TOKENS, 1, DEPTH, "da");
    *dw = moe_net_add_tensor(net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED, GROUPS * WIDTH, DEPTH,
                             "dw");
    const struct {
        enum moe_net_op_kind kind;
        uint32_t in[5], out[2];
    } ops[] = {
        {MOE_NET_GROUP, {ids, NONE, NONE, NONE, NONE}, {starts, members}},
        {MOE_NET_MATMUL, {a, w, NONE, starts, members}, {*y, NONE}},
        {MOE_NET_MATMUL_DX, {*y, w, starts, members, NONE}, {*da, NONE}},
        {MOE_NET_MATMUL_DW, {*y, a, NONE, starts, members}, {*dw, NONE}},
    };
    for (size_t i = 0; i < MOE_COUNT(ops); i++) {
        struct moe_net_op *op = moe_net_add_op(net, MOE_NET_FORWARD, ops[i].kind);
        memcpy(op->in, ops[i].in, sizeof ops[i].in);
        memcpy(op->out, ops[i].out, sizeof ops[i].out);
    }
    check_ok(moe_net_plan(net));
    return net;
}

static void check_tensor(const struct moe_net *net, struct moe_device_net *out,
                         struct moe_ref_net *ref, uint32_t tensor)
{
    uint64_t n = moe_net_rows(&net->tensors[tensor], net->max_tokens, 1) *
                 net->tensors[tensor].width;
    float *got = memory(n);
    const double *want = moe_ref_net_values(ref, tensor);
    double square = 0, wrong = 0;
    get(out, tensor, n, got);
    for (uint64_t i = 0; i < n; i++) {
        square += want[i] * want[i];
        wrong += ((double) got[i] - want[i]) * ((double) got[i] - want[i]);
    }
    assert_true(square > 0 && wrong <= 1e-10 * square); // the promise of a layer: 1e-5
    free(got);
}

static void test_large_products(void **state)
{
    (void) state;
    uint32_t results[3];
    struct moe_net *net = products_net(&results[0], &results[1], &results[2]);
    const struct moe_net_args args = {.n_tokens = net->max_tokens, .n_examples = 1};
    struct moe_ref_net *ref;
    struct moe_device_net *out = create(usual, net);
    check_ok(moe_ref_net_create(moe_host_default(), net, &ref));
    for (uint32_t t = 0; t < 3; t++) { // a, w, ids
        const struct moe_net_tensor *tensor = &net->tensors[t];
        uint32_t n = (uint32_t) moe_net_rows(tensor, args.n_tokens, 1) * tensor->width;
        union case_data data = {memory(n)};
        for (uint32_t i = 0; i < n; i++) {
            uint32_t bits = (i + 1) * (t + 1) * 2654435761u >> 8;
            if (tensor->type == MOE_NET_I32)
                data.i32[i] = (int32_t) (bits & 1);
            else
                data.f32[i] = (float) bits * 0x1p-23f - 1;
            moe_ref_net_values(ref, t)[i] = tensor->type == MOE_NET_I32 ? data.i32[i]
                                                                        : (double) data.f32[i];
        }
        put(out, t, n, data.any);
        free(data.any);
    }
    run(out, &args);
    moe_ref_net_run(ref, ALL, &args);
    for (uint32_t i = 0; i < 3; i++)
        check_tensor(net, out, ref, results[i]);
    moe_ref_net_destroy(ref);
    destroy(out);
    moe_net_destroy(net);
}

static void test_validation(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(usual), 0);
    assert_int_equal(vkmoe_context_validation_count(small), 0);
}

static int set_up(void **state)
{
    (void) state;
    check_ok(vkmoe_context_create(&desc, &usual));
    interpose = (struct interpose){
        .discrete = true, .max_groups = 1, .max_range = 16 << 20, .max_allocation = 16 << 20};
    check_ok(vkmoe_context_create(&desc, &small));
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    vkmoe_context_destroy(usual);
    vkmoe_context_destroy(small);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_op),
cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_writes),       cmocka_unit_test(test_groups),
        cmocka_unit_test(test_sums_of_groups), cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_totals),       cmocka_unit_test(test_selections),
        cmocka_unit_test(test_large_products), cmocka_unit_test(test_validation),
    };
    vkmoe_host services;
    if (!host_context_desc(argc, argv, &services, &desc))
        return 2;
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
