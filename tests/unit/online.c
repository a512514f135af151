// SPDX-License-Identifier: MIT
// Online weights: the theorems of online.h on random and adversarial sequences, numbers worked out
// by hand, what is refused, and a state that goes on to the same bits.
#include "budget.h"
#include "check.h"

#include <float.h>
#include <vkmoe/online.h>

enum { MAX_N = 8, MAX_C = 4 };

static uint64_t rng;

// In [0, 1); xorshift64*
static double uniform(void)
{
    rng ^= rng >> 12, rng ^= rng << 25, rng ^= rng >> 27;
    return (double) ((rng * 2685821657736338717u) >> 11) / 9007199254740992.0;
}

static vkmoe_online *create(const vkmoe_online_desc *desc)
{
    vkmoe_online *online;
    check_ok(vkmoe_online_create(desc, &online));
    return online;
}

static vkmoe_online_desc describe(enum vkmoe_online_kind kind, uint32_t n, uint32_t width)
{
    vkmoe_online_desc desc = vkmoe_online_desc_init();
    desc.kind = kind;
    desc.n_experts = n;
    desc.n_outputs = width;
    return desc;
}

// ---- sequences -------------------------------------------------------------------------------

// What the experts say about a row and what comes then. `best` plays the adversary: it knows the
// summed losses.
struct scene {
    const char *name;
    void (*fill)(uint32_t row, uint32_t n, uint32_t width, const double *losses, double *outputs,
                 int32_t *label);
};

static void fill_random(uint32_t row, uint32_t n, uint32_t width, const double *losses,
                        double *outputs, int32_t *label)
{
    (void) row, (void) losses;
    for (uint32_t i = 0; i < n; i++) {
        double sum = 0;
        for (uint32_t c = 0; c < width; c++)
            sum += outputs[i * width + c] = pow(uniform(), 4) + 1e-9;
        for (uint32_t c = 0; c < width; c++)
            outputs[i * width + c] /= sum;
    }
    *label = (int32_t) (uniform() * width);
}

// Probability `p` for the label, the rest for the next class.
static void say(double *outputs, uint32_t width, uint32_t label, double p)
{
    memset(outputs, 0, width * sizeof *outputs);
    outputs[label] += p;
    outputs[(label + 1) % width] += 1 - p;
}

// The leader is wrong every time.
static void fill_leader(uint32_t row, uint32_t n, uint32_t width, const double *losses,
                        double *outputs, int32_t *label)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = losses[i] < losses[best] ? i : best;
    *label = (int32_t) (row % width);
    for (uint32_t i = 0; i < n; i++)
        say(outputs + i * width, width, row % width, i == best ? 1e-6 : 0.9);
}

// Each expert but the last gives 0 to something that happens; some rows nobody foresees much.
static void fill_zeros(uint32_t row, uint32_t n, uint32_t width, const double *losses,
                       double *outputs, int32_t *label)
{
    fill_random(row, n, width, losses, outputs, label);
    if (row % 7 == 3 && row / 7 + 1 < n)
        say(outputs + row / 7 * width, width, (uint32_t) *label, 0);
    if (row % 11 == 5)
        say(outputs + (n - 1) * width, width, (uint32_t) *label, 1e-300);
}

// Everyone is certain, and wrong, at once: the loss is infinite from there on.
static void fill_hopeless(uint32_t row, uint32_t n, uint32_t width, const double *losses,
                          double *outputs, int32_t *label)
{
    fill_random(row, n, width, losses, outputs, label);
    for (uint32_t i = 0; i < n && row == 20; i++)
        say(outputs + i * width, width, (uint32_t) *label, 0);
}

// Sums of e^-700 a row: products of probabilities would be gone after two rows.
static void fill_tiny(uint32_t row, uint32_t n, uint32_t width, const double *losses,
                      double *outputs, int32_t *label)
{
    (void) losses;
    *label = (int32_t) (row % width);
    for (uint32_t i = 0; i < n; i++)
        say(outputs + i * width, width, row % width, i == row % n ? 1e-303 : 1e-304);
}

// The first expert is good throughout.
static void fill_steady(uint32_t row, uint32_t n, uint32_t width, const double *losses,
                        double *outputs, int32_t *label)
{
    (void) losses;
    *label = (int32_t) (row % width);
    for (uint32_t i = 0; i < n; i++)
        say(outputs + i * width, width, row % width, i == 0 ? 0.9 : 0.2);
}

static const struct scene scenes[] = {
    {"steady", fill_steady}, {"random", fill_random},     {"leader is wrong", fill_leader},
    {"zeros", fill_zeros},   {"hopeless", fill_hopeless}, {"tiny", fill_tiny},
};

static double smallest(const double *v, uint32_t n)
{
    double min = v[0];
    for (uint32_t i = 1; i < n; i++)
        min = fmin(min, v[i]);
    return min;
}

// How far rounding may push a sum of `rows` losses: a row's loss comes out of n + 16 operations on
// numbers up to the largest logarithm.
static double slack(uint32_t rows, uint32_t n, double largest)
{
    return rows * (n + 16) * DBL_EPSILON * (1 + largest);
}

// Rows in which the summed loss of the mixture is beyond that of the best expert + ln N.
static uint32_t count_breaches(const vkmoe_online_desc *desc, const struct scene *scene,
                               uint32_t n_rows)
{
    const uint32_t n = desc->n_experts, width = desc->n_outputs;
    double outputs[MAX_N * MAX_C], losses[MAX_N], sums[MAX_N] = {0}, sum = 0, largest = 0, loss;
    uint32_t n_breaches = 0;
    vkmoe_online *online = create(desc);
    vkmoe_online_row row = vkmoe_online_row_init();
    row.outputs = outputs;
    row.expert_losses = losses;
    for (uint32_t t = 0; t < n_rows; t++) {
        scene->fill(t, n, width, sums, outputs, &row.label);
        check_ok(vkmoe_online_update_weights(online, &row, &loss));
        for (uint32_t i = 0; i < n; i++) {
            sums[i] += losses[i];
            if (isfinite(sums[i]))
                largest = fmax(largest, sums[i]);
        }
        sum += loss;
        assert_false(isnan(sum));
        double bound = smallest(sums, n) + log(n) + slack(t + 1, n, largest);
        n_breaches += !(sum <= bound);
    }
    vkmoe_online_destroy(online);
    return n_breaches;
}

static void test_best_expert(void **state)
{
    (void) state;
    static const uint32_t sizes[][2] = {{1, 2}, {2, 2}, {3, 4}, {8, 3}};
    for (size_t s = 0; s < sizeof scenes / sizeof *scenes; s++) {
        for (int size = 0; size < 4; size++) {
            vkmoe_online_desc desc =
                describe(VKMOE_ONLINE_CATEGORICAL, sizes[size][0], sizes[size][1]);
            for (uint64_t seed = 1; seed <= 50; seed++) {
                rng = seed;
                uint32_t n = count_breaches(&desc, &scenes[s], 200);
                if (n)
                    fail_msg("%s, %u experts: %u rows beyond the bound", scenes[s].name,
                             desc.n_experts, n);
            }
        }
    }
    // Controls: weights that forget, and a share that takes from the leader, break it.
    vkmoe_online_desc desc = describe(VKMOE_ONLINE_CATEGORICAL, 3, 4);
    desc.lambda = 0.5;
    assert_true(count_breaches(&desc, &scenes[0], 200) > 0);
    desc.lambda = 1, desc.alpha = 0.5;
    assert_true(count_breaches(&desc, &scenes[0], 200) > 0);
}

// ---- experts that take turns -----------------------------------------------------------------

// The best expert changes every 50 rows. Losses of the mixture and of the sequence of experts.
static void run_regimes(double alpha, double *loss, double *best, double *bound)
{
    enum { N = 4, ROWS = 400, REGIME = 50 };
    vkmoe_online_desc desc = describe(VKMOE_ONLINE_CATEGORICAL, N, 2);
    desc.alpha = alpha;
    vkmoe_online *online = create(&desc);
    vkmoe_online_row row = vkmoe_online_row_init();
    double outputs[N * 2], losses[N], one;
    row.outputs = outputs;
    row.expert_losses = losses;
    *loss = *best = 0;
    for (uint32_t t = 0; t < ROWS; t++) {
        uint32_t right = t / REGIME % N;
        row.label = t % 3 == 0;
        for (uint32_t i = 0; i < N; i++)
            say(outputs + i * 2, 2, (uint32_t) row.label, i == right ? 0.95 : 0.1);
        check_ok(vkmoe_online_update_weights(online, &row, &one));
        *loss += one;
        *best += losses[right];
    }
    const double k = ROWS / REGIME - 1;
    *bound = *best + log(N) - k * log(alpha / N) - (ROWS - 1 - k) * log(1 - alpha + alpha / N) +
             slack(ROWS, N, 1e3);
    vkmoe_online_destroy(online);
}

static void test_regimes(void **state)
{
    (void) state;
    double loss, best, bound, fixed;
    run_regimes(0.02, &loss, &best, &bound);
    assert_true(loss <= bound);
    run_regimes(0, &fixed, &best, &bound);
    assert_true(fixed > 3 * loss); // without a share the mixture stays with the wrong one
    run_regimes(1, &loss, &best, &bound);
    check_near(loss, 400 * -log((0.95 + 3 * 0.1) / 4), 1e-9); // all the weights are dealt out
}

// ---- by hand ---------------------------------------------------------------------------------

static void test_weights(void **state)
{
    (void) state;
    vkmoe_online_desc desc = describe(VKMOE_ONLINE_CATEGORICAL, 2, 2);
    const double start[2] = {1, 3}, outputs[4] = {0.8, 0.2, 0.4, 0.6}, prior[2] = {3, 1};
    const double none[2] = {0, 0}, only[2] = {0, 2};
    double w[2], y[2], losses[2], loss;
    desc.weights = start;
    desc.lambda = 0.5;
    desc.alpha = 0.1;
    vkmoe_online *online = create(&desc);
    check_ok(vkmoe_online_route(online, NULL, w));
    check_near(w[0], 0.25, 1e-15);
    check_near(w[1], 0.75, 1e-15);
    check_ok(vkmoe_online_route(online, prior, w));
    check_near(w[0], 0.5, 1e-15);
    check_ok(vkmoe_online_route(online, only, w));
    check_near(w[0], 0, 0);
    check_near(w[1], 1, 1e-15);
    check_fails(vkmoe_online_route(online, none, w), VKMOE_E_DATA, "0 for every expert");
    check_ok(vkmoe_online_predict(online, outputs, NULL, y));
    check_near(y[0], 0.25 * 0.8 + 0.75 * 0.4, 1e-15);
    check_near(y[1], 0.25 * 0.2 + 0.75 * 0.6, 1e-15);

    vkmoe_online_row row = vkmoe_online_row_init();
    row.outputs = outputs, row.label = 1, row.prior = prior, row.expert_losses = losses;
    check_ok(vkmoe_online_update_weights(online, &row, &loss));
    check_near(loss, -log(0.5 * 0.2 + 0.5 * 0.6), 1e-15);
    check_near(losses[0], -log(0.2), 1e-15);
    check_near(losses[1], -log(0.6), 1e-15);
    double a = sqrt(0.25) * 0.2, b = sqrt(0.75) * 0.6;
    check_ok(vkmoe_online_route(online, NULL, w));
    check_near(w[0], 0.9 * a / (a + b) + 0.05, 1e-15);
    check_near(w[1], 0.9 * b / (a + b) + 0.05, 1e-15);
    vkmoe_online_destroy(online);

    // lambda = 0 forgets all, also that a weight was 0.
    const double dead[2] = {0, 1};
    desc.lambda = 0, desc.alpha = 0, desc.weights = dead;
    online = create(&desc);
    check_ok(vkmoe_online_update_weights(online, &row, NULL));
    check_ok(vkmoe_online_route(online, NULL, w));
    check_near(w[0], 0.25, 1e-15);
    vkmoe_online_destroy(online);
    vkmoe_online_destroy(NULL);
}

static double normal(double error, double variance)
{
    return exp(-error * error / (2 * variance)) / sqrt(2 * acos(-1) * variance);
}

static void test_gaussian(void **state)
{
    (void) state;
    vkmoe_online_desc desc = describe(VKMOE_ONLINE_GAUSSIAN, 2, 1);
    desc.variance = 4, desc.variance_rows = 2;
    vkmoe_online *online = create(&desc);
    vkmoe_online_row row = vkmoe_online_row_init();
    const double outputs[2] = {1, 3};
    double target = 2.5, loss, w[2], y;
    row.outputs = outputs, row.target = &target;
    check_ok(vkmoe_online_predict(online, outputs, NULL, &y));
    check_near(y, 2, 1e-15);
    check_ok(vkmoe_online_update_weights(online, &row, &loss));
    double p0 = normal(1.5, 4), p1 = normal(-0.5, 4);
    check_near(loss, -log((p0 + p1) / 2), 1e-14);
    check_ok(vkmoe_online_route(online, NULL, w));
    check_near(w[0], p0 / (p0 + p1), 1e-15);
    // The second row: each expert's variance has seen its own error.
    target = 3;
    double q0 = normal(2, (2 * 4 + 2.25) / 3), q1 = normal(0, (2 * 4 + 0.25) / 3);
    check_ok(vkmoe_online_update_weights(online, &row, &loss));
    check_near(loss, -log(w[0] * q0 + w[1] * q1), 1e-14);
    vkmoe_online_destroy(online);
}

// The bound holds for densities as well, because a row's variance does not know the row.
static void test_gaussian_bound(void **state)
{
    (void) state;
    enum { N = 5, D = 2, ROWS = 300 };
    for (uint64_t seed = 1; seed <= 50; seed++) {
        vkmoe_online_desc desc = describe(VKMOE_ONLINE_GAUSSIAN, N, D);
        vkmoe_online *online = create(&desc);
        vkmoe_online_row row = vkmoe_online_row_init();
        double outputs[N * D], target[D], losses[N], sums[N] = {0}, sum = 0, largest = 0, loss;
        row.outputs = outputs, row.target = target, row.expert_losses = losses;
        rng = seed;
        for (uint32_t t = 0; t < ROWS; t++) {
            for (int i = 0; i < N * D; i++)
                outputs[i] = (uniform() - 0.5) * pow(10, i / D - 2);
            for (int d = 0; d < D; d++)
                target[d] = t < ROWS / 2 ? uniform() : 1e6 * uniform();
            check_ok(vkmoe_online_update_weights(online, &row, &loss));
            sum += loss;
            for (int i = 0; i < N; i++) {
                sums[i] += losses[i];
                largest = fmax(largest, fabs(sums[i]));
            }
            assert_true(sum <= smallest(sums, N) + log(N) + slack(t + 1, N * D, largest));
        }
        vkmoe_online_destroy(online);
    }
}

// ---- bad input -------------------------------------------------------------------------------

static void test_bad_desc(void **state)
{
    (void) state;
    vkmoe_online *online;
    const double zeros[2] = {0, 0}, negative[2] = {1, -1}, nan[2] = {NAN, 1};
    const vkmoe_online_desc good = describe(VKMOE_ONLINE_CATEGORICAL, 2, 2);
    vkmoe_online_desc bad = good;
#define CHECK_BAD(field, value, part)                                                              \
    do {                                                                                           \
        bad = good;                                                                                \
        bad.field = (value);                                                                       \
        check_fails(vkmoe_online_create(&bad, &online), VKMOE_E_ARGUMENT, part);                   \
        assert_null(online);                                                                       \
    } while (0)
    CHECK_BAD(n_experts, 0, "0 experts");
    CHECK_BAD(n_outputs, 0, "0 outputs");
    CHECK_BAD(kind, (enum vkmoe_online_kind) 2, "kind = 2");
    CHECK_BAD(lambda, -0.1, "lambda = -0.1");
    CHECK_BAD(lambda, (double) NAN, "lambda");
    CHECK_BAD(alpha, 1.5, "alpha = 1.5");
    CHECK_BAD(variance, 0, "variance = 0");
    CHECK_BAD(variance_rows, (double) INFINITY, "variance_rows = inf");
    CHECK_BAD(weights, zeros, "all 2 are 0");
    CHECK_BAD(weights, negative, "weights[1] = -1");
    CHECK_BAD(weights, nan, "weights[0]");
    check_fails(vkmoe_online_create(NULL, &online), VKMOE_E_ARGUMENT, "desc is NULL");
    check_fails(vkmoe_online_create(&good, NULL), VKMOE_E_ARGUMENT, "out is NULL");
    bad = good;
    bad.struct_size = 0;
    check_fails(vkmoe_online_create(&bad, &online), VKMOE_E_ARGUMENT, "struct_size");
}

static void test_bad_rows(void **state)
{
    (void) state;
    vkmoe_online_desc desc = describe(VKMOE_ONLINE_CATEGORICAL, 2, 2);
    vkmoe_online *online = create(&desc);
    vkmoe_online_row row = vkmoe_online_row_init();
    double outputs[4] = {0.5, 0.5, 0.25, 0.75}, before[3], after[3], prior[2] = {1, NAN}, y[2];
    check_ok(vkmoe_online_save(online, before));
    check_fails(vkmoe_online_update_weights(online, &row, NULL), VKMOE_E_ARGUMENT, "outputs");
    row.outputs = outputs, row.label = 2;
    check_fails(vkmoe_online_update_weights(online, &row, NULL), VKMOE_E_DATA, "label 2 of 2");
    row.label = -1;
    check_fails(vkmoe_online_update_weights(online, &row, NULL), VKMOE_E_DATA, "label -1");
    row.label = 0, row.prior = prior;
    check_fails(vkmoe_online_update_weights(online, &row, NULL), VKMOE_E_DATA, "expert 1 is nan");
    row.prior = NULL;
    const double bad[][2] = {{NAN, 1}, {-0.5, 1.5}, {INFINITY, 0}, {0.5, 0.4}};
    for (int i = 0; i < 4; i++) {
        memcpy(outputs + 2, bad[i], sizeof bad[i]);
        check_fails(vkmoe_online_update_weights(online, &row, NULL), VKMOE_E_DATA, "expert 1");
        check_fails(vkmoe_online_predict(online, outputs, NULL, y), VKMOE_E_DATA, "expert 1");
    }
    check_ok(vkmoe_online_save(online, after));
    assert_memory_equal(before, after, sizeof before);
    vkmoe_online_destroy(online);

    desc.kind = VKMOE_ONLINE_GAUSSIAN;
    online = create(&desc);
    double target[2] = {0, INFINITY}, huge[4] = {0, 0, 1e200, 0};
    row.outputs = huge;
    check_fails(vkmoe_online_update_weights(online, &row, NULL), VKMOE_E_ARGUMENT, "target is");
    row.target = target;
    check_fails(vkmoe_online_update_weights(online, &row, NULL), VKMOE_E_DATA, "target 1 is inf");
    target[1] = 0;
    check_fails(vkmoe_online_update_weights(online, &row, NULL), VKMOE_E_DATA, "overflows");
    vkmoe_online_destroy(online);
    check_fails(vkmoe_online_predict(NULL, outputs, NULL, y), VKMOE_E_ARGUMENT, "online is NULL");
    check_fails(vkmoe_online_route(NULL, NULL, y), VKMOE_E_ARGUMENT, "online is NULL");
    check_fails(vkmoe_online_update_weights(NULL, &row, NULL), VKMOE_E_ARGUMENT, "online is NULL");
    assert_int_equal(vkmoe_online_state_size(NULL), 0);
}

// ---- state -----------------------------------------------------------------------------------

static void test_state(void **state)
{
    (void) state;
    enum { N = 3, D = 2, SIZE = 1 + N + N * D };
    vkmoe_online_desc desc = describe(VKMOE_ONLINE_GAUSSIAN, N, D);
    desc.alpha = 0.01;
    vkmoe_online *a = create(&desc), *b = create(&desc);
    double saved[SIZE], other[SIZE], outputs[N * D], target[D], loss_a, loss_b;
    vkmoe_online_row row = vkmoe_online_row_init();
    row.outputs = outputs, row.target = target;
    assert_int_equal(vkmoe_online_state_size(a), SIZE);
    rng = 9;
    for (int t = 0; t < 40; t++) {
        for (int i = 0; i < N * D; i++)
            outputs[i] = uniform();
        target[0] = uniform(), target[1] = -uniform();
        check_ok(vkmoe_online_update_weights(a, &row, &loss_a));
        if (t < 20) {
            check_ok(vkmoe_online_save(a, saved));
            check_ok(vkmoe_online_restore(b, saved));
            continue;
        }
        check_ok(vkmoe_online_update_weights(b, &row, &loss_b));
        assert_true(loss_a == loss_b);
    }
    check_ok(vkmoe_online_save(a, saved));
    check_ok(vkmoe_online_save(b, other));
    assert_memory_equal(saved, other, sizeof saved);

    const struct {
        int at;
        double value;
        const char *part;
    } bad[] = {{0, -1, "-1 rows"},     {0, 0.5, "0.5 rows"},       {0, NAN, "nan rows"},
               {1, NAN, "expert 0"},   {2, INFINITY, "expert 1"},  {1, 5, "have the sum"},
               {SIZE - 1, -1, "is -1"}, {SIZE - 2, NAN, "is nan"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        double broken[SIZE];
        memcpy(broken, saved, sizeof broken);
        broken[bad[i].at] = bad[i].value;
        check_fails(vkmoe_online_restore(b, broken), VKMOE_E_DATA, bad[i].part);
    }
    check_ok(vkmoe_online_save(b, other));
    assert_memory_equal(saved, other, sizeof saved);
    check_fails(vkmoe_online_save(b, NULL), VKMOE_E_ARGUMENT, "state is NULL");
    check_fails(vkmoe_online_restore(NULL, saved), VKMOE_E_ARGUMENT, "online is NULL");
    vkmoe_online_destroy(a);
    vkmoe_online_destroy(b);
}

static void test_out_of_memory(void **state)
{
    (void) state;
    vkmoe_online_desc desc = describe(VKMOE_ONLINE_GAUSSIAN, 3, 2);
    vkmoe_host host = vkmoe_host_init();
    long n = 0;
    desc.host = &host;
    for (bool done = false; !done; n++) {
        struct budget budget = {.fail_at = n};
        vkmoe_online *online;
        budget_host(&host, &budget);
        done = vkmoe_online_create(&desc, &online) == VKMOE_OK;
        assert_true(done || !online);
        vkmoe_online_destroy(online);
        assert_int_equal(budget.live, 0);
    }
    assert_true(n > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_expert),    cmocka_unit_test(test_regimes),
        cmocka_unit_test(test_weights),        cmocka_unit_test(test_gaussian),
        cmocka_unit_test(test_gaussian_bound), cmocka_unit_test(test_bad_desc),
        cmocka_unit_test(test_bad_rows),       cmocka_unit_test(test_state),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
