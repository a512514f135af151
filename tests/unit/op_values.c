// SPDX-License-Identifier: MIT
// Ops of core/net.h that no finite difference proves, against numbers worked out by hand: steps of
// the optimiser, random numbers, shares, pools and losses at their edges, groupings.
#include "../cross/net_case.h"
#include "check.h"

#include "base/host.h"
#include "core/net_ref.h"
#include "philox.h"

// Runs the case; the oracle stays for result().
static struct moe_ref_net *run(struct net_case *c)
{
    struct moe_ref_net *ref;
    check_ok(moe_net_plan(c->net));
    check_ok(moe_ref_net_create(moe_host_default(), c->net, &ref));
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        for (uint64_t j = 0; j < case_size(c, i); j++)
            moe_ref_net_values(ref, i)[j] = c->net->tensors[i].type == MOE_NET_F32
                                                ? (double) c->data[i].f32[j]
                                                : (double) c->data[i].i32[j];
    }
    moe_ref_net_run(ref, 1 << MOE_NET_FORWARD, &c->args);
    return ref;
}

static void finish(struct net_case *c, struct moe_ref_net *ref)
{
    moe_ref_net_destroy(ref);
    case_finish(c);
}

static void set(struct net_case *c, uint32_t tensor, const float *values, uint32_t n)
{
    memcpy(c->data[tensor].f32, values, n * sizeof *values);
}

#define SET(c, tensor, ...) \
    set(c, tensor, (const float[]){__VA_ARGS__}, sizeof((float[]){__VA_ARGS__}) / sizeof(float))

// ---- steps ------------------------------------------------------------------------------------

// Two steps with g = 0.5 from p = 1 at rate 0.125. Moments follow p in `after`.
static void check_steps(struct moe_net_step rule, const double after[2][3])
{
    struct net_case c;
    case_begin(&c, 1, 1, "two steps");
    uint32_t g = case_f32(&c, MOE_NET_FIXED, 1, 1), t[3];
    SET(&c, g, 0.5f);
    for (uint32_t i = 0; i < 3; i++) {
        t[i] = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, 1);
        SET(&c, t[i], i == 0);
    }
    struct moe_net_op *op = case_op(&c, MOE_NET_STEP, MOE_NET_SET);
    bool has_m = rule.kind != MOE_NET_SGD || rule.momentum > 0;
    op->in[0] = g;
    op->out[0] = t[0];
    op->out[1] = has_m ? t[1] : MOE_NET_NONE;
    op->out[2] = rule.kind != MOE_NET_SGD ? t[2] : MOE_NET_NONE;
    op->step = &rule;
    rule.rate_scale = 0.5f;
    c.args.rate = 0.25f;
    c.args.step = 1;
    struct moe_ref_net *ref = run(&c);
    for (uint32_t n = 0; n < 2; n++) {
        for (uint32_t i = 0; i < 3; i++)
            check_near(*moe_ref_net_values(ref, t[i]), after[n][i], 1e-15);
        c.args.step++;
        moe_ref_net_run(ref, 1 << MOE_NET_FORWARD, &c.args);
    }
    finish(&c, ref);
}

static void test_steps(void **state)
{
    (void) state;
    // p -= 0.125 (g + 0.25 p)
    check_steps((struct moe_net_step){.kind = MOE_NET_SGD, .decay = 0.25f},
                (const double[][3]){{1 - 0.125 * 0.75, 0, 0},
                                    {0.90625 - 0.125 * (0.5 + 0.25 * 0.90625), 0, 0}});
    // m = 0.5, then 0.75
    check_steps((struct moe_net_step){.kind = MOE_NET_SGD, .momentum = 0.5f},
                (const double[][3]){{1 - 0.0625, 0.5, 0}, {0.9375 - 0.09375, 0.75, 0}});
    // d = g + m / 2: 0.75, then 0.875
    check_steps((struct moe_net_step){.kind = MOE_NET_SGD, .momentum = 0.5f, .nesterov = true},
                (const double[][3]){{1 - 0.09375, 0.5, 0}, {0.90625 - 0.109375, 0.75, 0}});
    // Without decay both moments over their debias are g and g^2: p -= 0.125 g / (g + eps).
    const double part = 0.125 * 0.5 / (0.5 + 0.25), m = 0.25, v = 0.0625;
    struct moe_net_step adam = {.kind = MOE_NET_ADAM, .beta1 = 0.5f, .beta2 = 0.75f, .eps = 0.25f};
    const double adam_after[][3] = {{1 - part, m, v},
                                    {1 - 2 * part, m / 2 + 0.25, v * 0.75 + 0.0625}};
    check_steps(adam, adam_after);
    // AdamW: p shrinks by 1 - 0.125 * 0.5 first.
    adam.kind = MOE_NET_ADAMW;
    adam.decay = 0.5f;
    const double p1 = 0.9375 - part;
    check_steps(adam, (const double[][3]){
                          {p1, m, v}, {p1 * 0.9375 - part, adam_after[1][1], adam_after[1][2]}});
    // ADAM adds 0.5 p = 0.5 to the first g: m = 0.5, v = 0.25, p -= 0.125 * 1 / 1.25.
    adam.kind = MOE_NET_ADAM;
    const double q1 = 1 - 0.1, g2 = 0.5 + 0.5 * q1, m2 = 0.25 + 0.5 * g2;
    const double v2 = 0.25 * 0.75 + 0.25 * g2 * g2;
    const double q2 = q1 - 0.125 * (m2 / 0.75) / (sqrt(v2 / (1 - 0.5625)) + 0.25);
    check_steps(adam, (const double[][3]){{q1, 0.5, 0.25}, {q2, m2, v2}});
}

// factor, loss -> p after a step of SGD from 1 with g = 1, rate 0.5
static double stepped(float factor, float loss)
{
    struct net_case c;
    struct moe_net_step rule = {.kind = MOE_NET_SGD, .rate_scale = 1};
    case_begin(&c, 1, 1, "a guarded step");
    uint32_t in[3], p;
    for (uint32_t i = 0; i < 3; i++)
        in[i] = case_f32(&c, MOE_NET_FIXED, 1, 1);
    p = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, 1);
    SET(&c, in[0], 1);
    SET(&c, in[1], factor);
    SET(&c, in[2], loss);
    SET(&c, p, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_STEP, MOE_NET_SET);
    memcpy(op->in, in, sizeof in);
    op->out[0] = p;
    op->step = &rule;
    c.args.rate = 0.5f;
    struct moe_ref_net *ref = run(&c);
    double after = *moe_ref_net_values(ref, p);
    finish(&c, ref);
    return after;
}

static void test_guards(void **state)
{
    (void) state;
    check_near(stepped(1, 2), 0.5, 0);
    check_near(stepped(0.5f, 2), 0.75, 0);
    check_near(stepped(NAN, 2), 1, 0);
    check_near(stepped(1, NAN), 1, 0);
    check_near(stepped(1, -INFINITY), 1, 0);
}

static double clipped(float sum, float most)
{
    struct net_case c;
    case_begin(&c, 1, 1, "clip");
    uint32_t s = case_f32(&c, MOE_NET_FIXED, 1, 1);
    uint32_t factor = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, 1);
    SET(&c, s, sum);
    struct moe_net_op *op = case_op(&c, MOE_NET_CLIP, MOE_NET_SET);
    op->in[0] = s, op->out[0] = factor, op->alpha = most;
    struct moe_ref_net *ref = run(&c);
    double got = *moe_ref_net_values(ref, factor);
    finish(&c, ref);
    return got;
}

static void test_clip(void **state)
{
    (void) state;
    check_near(clipped(16, 1), 1 / (4 + (double) 1e-6f), 1e-12);
    check_near(clipped(16, 5), 1, 0);
    check_near(clipped(16, 0), 1, 0);
    check_near(clipped(0, 1), 1, 0);
    assert_true(isnan(clipped(NAN, 1)) && isnan(clipped(INFINITY, 1)) && isnan(clipped(NAN, 0)));
}

// ---- random numbers ---------------------------------------------------------------------------

// The example of zero key and counter, and of all ones, that comes with Philox4x32-10.
static void test_philox(void **state)
{
    (void) state;
    uint32_t zero[4] = {0}, ones[4] = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    const uint32_t want_zero[4] = {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
    const uint32_t want_ones[4] = {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
    moe_philox(zero, 0, 0);
    moe_philox(ones, UINT32_MAX, UINT32_MAX);
    assert_memory_equal(zero, want_zero, sizeof zero);
    assert_memory_equal(ones, want_ones, sizeof ones);
}

// 40000 numbers of N(0, 1): mean, variance and fourth moment, each within 5 of its deviations.
static void test_noise_is_normal(void **state)
{
    (void) state;
    struct net_case c;
    const uint32_t n = 200;
    double moments[5] = {0};
    case_begin(&c, n, 1, "noise");
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, 1, n);
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, n);
    memset(c.data[a].any, 0, case_size(&c, a) * sizeof(float));
    struct moe_net_op *op = case_op(&c, MOE_NET_NOISE, MOE_NET_SET);
    op->in[0] = a, op->out[0] = y;
    struct moe_ref_net *ref = run(&c);
    for (uint32_t i = 0; i < n * n; i++) {
        for (int k = 1; k < 5; k++)
            moments[k] += pow(moe_ref_net_values(ref, y)[i], k) / (n * n);
    }
    check_near(moments[1], 0, 5 / sqrt(n * n));
    check_near(moments[2], 1, 5 * sqrt(2) / n);
    check_near(moments[4], 3, 5 * sqrt(96) / n);
    finish(&c, ref);
}

// Of dropped elements there are as many as the rate says, and other ones in another pass.
static void test_dropout_drops(void **state)
{
    (void) state;
    const uint32_t n = 100;
    struct net_case c;
    uint32_t n_dropped = 0, n_same = 0;
    case_begin(&c, n, 1, "dropout");
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, 1, n);
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, n);
    for (uint64_t i = 0; i < case_size(&c, a); i++)
        c.data[a].f32[i] = 3;
    struct moe_net_op *op = case_op(&c, MOE_NET_DROPOUT, MOE_NET_SET);
    op->in[0] = a, op->out[0] = y;
    op->alpha = 0.25f;
    struct moe_ref_net *ref = run(&c);
    double *got = moe_ref_net_values(ref, y);
    bool was[100 * 100];
    for (uint32_t i = 0; i < n * n; i++) {
        assert_true(got[i] == 0 || got[i] == 4);
        n_dropped += was[i] = got[i] == 0;
    }
    c.args.pass++;
    moe_ref_net_run(ref, 1 << MOE_NET_FORWARD, &c.args);
    for (uint32_t i = 0; i < n * n; i++)
        n_same += was[i] && got[i] == 0;
    check_near(n_dropped, 0.25 * n * n, 5 * sqrt(0.25 * 0.75) * n);
    check_near(n_same, 0.0625 * n * n, 5 * sqrt(0.0625 * 0.9375) * n);
    finish(&c, ref);
}

// ---- rows -------------------------------------------------------------------------------------

// r = (1, 3): w = (1/4, 3/4). r = 0: 1 / K.
static void test_share(void **state)
{
    (void) state;
    struct net_case c;
    case_begin(&c, 2, 1, "share");
    uint32_t r = case_f32(&c, MOE_NET_TOKENS, 2, 1);
    uint32_t w = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 2, 1);
    SET(&c, r, 1, 3, 0, 0);
    struct moe_net_op *op = case_op(&c, MOE_NET_SHARE, MOE_NET_SET);
    op->in[0] = r, op->out[0] = w;
    op->top_k = 2;
    struct moe_ref_net *ref = run(&c);
    const double want[] = {0.25, 0.75, 0.5, 0.5};
    for (uint32_t i = 0; i < 4; i++)
        check_near(moe_ref_net_values(ref, w)[i], want[i], 0);
    finish(&c, ref);
}

static void test_pool_of_equals_and_nan(void **state)
{
    (void) state;
    struct net_case c;
    case_begin(&c, 5, 4, "pool");
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, 1, 1);
    uint32_t offsets = case_i32(&c, MOE_NET_FIXED, 6, 1);
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, 1);
    uint32_t best = case_out(&c, MOE_NET_I32, MOE_NET_EXAMPLES, 1, 1);
    SET(&c, a, 2, 2, -INFINITY, NAN, 7);
    memcpy(c.data[offsets].i32, (const int32_t[]){0, 2, 2, 3, 5}, 5 * sizeof(int32_t));
    struct moe_net_op *op = case_op(&c, MOE_NET_POOL, MOE_NET_SET);
    op->in[0] = a, op->in[1] = offsets, op->out[0] = y, op->out[1] = best;
    op->n = MOE_NET_POOL_MAX;
    struct moe_ref_net *ref = run(&c);
    const double want[] = {0, -1, 2, 3};
    for (uint32_t i = 0; i < 4; i++)
        check_near(moe_ref_net_values(ref, best)[i], want[i], 0);
    const double *got = moe_ref_net_values(ref, y);
    assert_true(got[0] == 2 && got[1] == 0 && got[2] == -INFINITY && isnan(got[3]));
    finish(&c, ref);
}

static void test_group(void **state)
{
    (void) state;
    struct net_case c;
    case_begin(&c, 5, 1, "group");
    uint32_t ids = case_i32(&c, MOE_NET_TOKENS, 1, 1);
    uint32_t starts = case_out(&c, MOE_NET_I32, MOE_NET_FIXED, 5, 1);
    uint32_t members = case_out(&c, MOE_NET_I32, MOE_NET_TOKENS, 1, 1);
    memcpy(c.data[ids].i32, (const int32_t[]){3, 0, 3, 2, 0}, 5 * sizeof(int32_t));
    struct moe_net_op *op = case_op(&c, MOE_NET_GROUP, MOE_NET_SET);
    op->in[0] = ids, op->out[0] = starts, op->out[1] = members;
    struct moe_ref_net *ref = run(&c);
    const double want_starts[] = {0, 2, 2, 3, 5}, want_members[] = {1, 4, 3, 0, 2};
    for (uint32_t i = 0; i < 5; i++) {
        check_near(moe_ref_net_values(ref, starts)[i], want_starts[i], 0);
        check_near(moe_ref_net_values(ref, members)[i], want_members[i], 0);
    }
    finish(&c, ref);
}

// counts (1, 5, 3) have the mean 3
static void test_balance_bias(void **state)
{
    (void) state;
    struct net_case c;
    case_begin(&c, 1, 1, "balance_bias");
    uint32_t counts = case_f32(&c, MOE_NET_FIXED, 1, 3);
    uint32_t bias = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, 3);
    SET(&c, counts, 1, 5, 3);
    SET(&c, bias, 1, 1, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_BALANCE_BIAS, MOE_NET_SET);
    op->in[0] = counts, op->out[0] = bias;
    op->alpha = 0.125f;
    struct moe_ref_net *ref = run(&c);
    const double want[] = {1.125, 0.875, 1};
    for (uint32_t i = 0; i < 3; i++)
        check_near(moe_ref_net_values(ref, bias)[i], want[i], 0);
    finish(&c, ref);
}

// Two experts, one of which says almost nothing of the target and has a gate weight of 0.
static void test_mixture_of_a_sure_one(void **state)
{
    (void) state;
    struct net_case c;
    case_begin(&c, 1, 1, "mixture");
    uint32_t f = case_f32(&c, MOE_NET_TOKENS, 2, 1), s = case_f32(&c, MOE_NET_TOKENS, 2, 1);
    uint32_t target = case_f32(&c, MOE_NET_TOKENS, 1, 1);
    uint32_t out[3] = {case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, 1),
                       case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 2, 1),
                       case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 2, 1)};
    SET(&c, f, 100, 1);
    SET(&c, s, 1, 0);
    SET(&c, target, 0);
    struct moe_net_op *op = case_op(&c, MOE_NET_MIXTURE_NLL, MOE_NET_SET);
    op->in[0] = f, op->in[1] = s, op->in[2] = target;
    memcpy(op->out, out, sizeof out);
    op->n = 1, op->top_k = 2, op->beta = 1;
    c.args.loss_scale = 1;
    struct moe_ref_net *ref = run(&c);
    check_near(moe_ref_net_values(ref, out[0])[0], 5000 + log(2 * acos(-1)) / 2, 1e-9);
    check_near(moe_ref_net_values(ref, out[1])[0], 100, 1e-9);
    check_near(moe_ref_net_values(ref, out[1])[1], 0, 0);
    check_near(moe_ref_net_values(ref, out[2])[0], -1, 1e-12);
    check_near(moe_ref_net_values(ref, out[2])[1] / -exp(80), 1, 1e-12); // where it ends
    finish(&c, ref);
}

// Probabilities rounded past 0 and 1 are 0 and 1, each with both targets; 1.01 is none.
static void test_bce_past_its_ends(void **state)
{
    (void) state;
    struct net_case c;
    case_begin(&c, 5, 5, "bce");
    uint32_t y = case_f32(&c, MOE_NET_EXAMPLES, 1, 1), t = case_f32(&c, MOE_NET_EXAMPLES, 1, 1);
    uint32_t loss = case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, 1);
    uint32_t dy = case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, 1);
    SET(&c, y, 1.0000001f, 1.0000001f, -1e-7f, -1e-7f, 1.01f);
    SET(&c, t, 1, 0, 0, 1, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_POINT_LOSS, MOE_NET_SET);
    op->in[0] = y, op->in[1] = t, op->out[0] = loss, op->out[1] = dy;
    op->n = MOE_NET_POINT_BCE, op->alpha = 1;
    c.args.loss_scale = 1;
    struct moe_ref_net *ref = run(&c);
    const double losses[] = {0, 100, 0, 100}, gradients[] = {0, 1e12, 0, -1e12};
    for (uint32_t i = 0; i < 4; i++) {
        check_near(moe_ref_net_values(ref, loss)[i], losses[i], 0);
        check_near(moe_ref_net_values(ref, dy)[i], gradients[i], 1);
    }
    assert_true(isnan(moe_ref_net_values(ref, loss)[4]) && isnan(moe_ref_net_values(ref, dy)[4]));
    finish(&c, ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_steps),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_clip),
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_noise_is_normal),
        cmocka_unit_test(test_dropout_drops),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_pool_of_equals_and_nan),
        cmocka_unit_test(test_group),
        cmocka_unit_test(test_balance_bias),
        cmocka_unit_test(test_mixture_of_a_sure_one),
        cmocka_unit_test(test_bce_past_its_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
