// SPDX-License-Identifier: MIT
// The measuring loop over a device that is made up: what it keeps, drops and gives up.
#include "check.h"

#include "bench/loop.h"
#include "bench/roofline.h"

#include <stdlib.h>

// A device of two cores. A run takes `seconds`, times what the hooks below say.
struct fake {
    double seconds, wall_extra;
    uint32_t n_runs, n_pauses, n_probes; // so far; a pause begins a measurement
    uint32_t n_watched;                  // runs between watch(true) and watch(false)
    bool watching;
    double (*of_run)(const struct fake *fake);    // factor on the time
    double (*of_core)(const struct fake *fake);   // share of the cores that is there
    enum vkmoe_status device_status;              // of time_device
    bool disturbed;                               // every other probe
    uint32_t fail_at, interrupt_at; // number of a run, 0: never
    bool blind;  // probes do not see that cores are missing
    bool shares; // the thread's time tells it
    bool in_share; // between the calls about it
    double best; // f32 peak
};

#define ONE_THREAD 100e9

static double all_well(const struct fake *fake)
{
    (void) fake;
    return 1;
}

static enum vkmoe_status fake_run(struct fake *fake, uint32_t n, double extra, double *seconds)
{
    for (uint32_t i = 0; i < n; i++) {
        fake->n_runs++;
        fake->n_watched += fake->watching;
        if (fake->n_runs == fake->fail_at) {
            vkmoe_error_set("the device is on fire");
            return VKMOE_E_DEVICE_LOST;
        }
        seconds[i] = fake->seconds * fake->of_run(fake) / fake->of_core(fake) + extra;
    }
    return VKMOE_OK;
}

static enum vkmoe_status fake_device(void *user, uint32_t n, double *seconds)
{
    struct fake *fake = user;
    if (fake->device_status != VKMOE_OK) {
        vkmoe_error_set("the queue has no timestamps");
        return fake->device_status;
    }
    return fake_run(fake, n, 0, seconds);
}

static enum vkmoe_status fake_wall(void *user, uint32_t n, double *seconds)
{
    struct fake *fake = user;
    return fake_run(fake, n, fake->wall_extra, seconds);
}

static enum vkmoe_status fake_probe(void *user, vkmoe_limits *out)
{
    struct fake *fake = user;
    fake->n_probes++;
    *out = (vkmoe_limits){.read_rate = 10e9, .dispatch_seconds = 1e-6};
    out->peak[VKMOE_ARITHMETIC_F32] = 2 * ONE_THREAD * (fake->blind ? 1 : fake->of_core(fake));
    if (fake->disturbed && fake->n_probes % 2) {
        out->read_rate /= 3;
        out->dispatch_seconds *= 3;
    }
    if (out->peak[VKMOE_ARITHMETIC_F32] > fake->best)
        fake->best = out->peak[VKMOE_ARITHMETIC_F32];
    return VKMOE_OK;
}

static void fake_watch(void *user, bool begin)
{
    ((struct fake *) user)->watching = begin;
}

static void fake_pause(void *user, double seconds)
{
    assert_true(seconds > 0);
    ((struct fake *) user)->n_pauses++;
}

static bool fake_interrupted(void *user)
{
    const struct fake *fake = user;
    return fake->interrupt_at && fake->n_runs >= fake->interrupt_at;
}

static double fake_share(void *user, bool begin)
{
    struct fake *fake = user;
    assert_int_equal(fake->in_share, !begin);
    fake->in_share = begin;
    return fake->shares ? fake->of_core(fake) : 1;
}

static struct fake steady(void)
{
    return (struct fake){.seconds = 1e-3, .wall_extra = 2e-4, .of_run = all_well,
                         .of_core = all_well};
}

struct outcome {
    struct bench_row row;
    struct bench_loop_result result;
    enum vkmoe_status status;
};

static const struct bench_measure_options usual = {
    .min_seconds = 0.2, .min_samples = 10, .max_samples = 10000};

static struct bench_target target_of(struct fake *fake)
{
    return (struct bench_target){fake, fake_device, fake_wall, fake_probe, fake_watch, fake_pause,
                                 fake_interrupted, fake_share};
}

static struct outcome measure(struct fake *fake, const struct bench_measure_options *options,
                              bool blocks)
{
    struct outcome out = {0};
    struct bench_target target = target_of(fake);
    struct bench_loop loop = {.options = options, .n_copies = 4, .blocks = blocks, .n_threads = 2,
                              .one_thread = ONE_THREAD, .best = &fake->best};
    out.status = bench_loop_run(&target, &loop, &out.row, &out.result);
    return out;
}

static void finish(struct outcome *out)
{
    free(out->row.device_times.samples_us);
    free(out->row.wall_times.samples_us);
}

static double seconds_of(const struct bench_times *times)
{
    double sum = 0;
    for (uint32_t i = 0; i < times->n; i++)
        sum += times->samples_us[i] * 1e-6;
    return sum;
}

static void steady_device(void **state)
{
    (void) state;
    for (int blocks = 0; blocks < 2; blocks++) {
        struct fake fake = steady();
        struct outcome out = measure(&fake, &usual, blocks);
        check_ok(out.status);
        check_near(out.row.device_times.median_us, 1000, 1e-6);
        check_near(out.row.wall_times.median_us, 1200, 1e-6);
        check_near(out.row.first_call_ms, 1.2, 1e-9);
        assert_int_equal(out.row.n_cold, 2);
        assert_int_equal(fake.n_pauses, 2);
        assert_true(out.row.plateau && !out.result.every_block_lost);
        assert_true(seconds_of(&out.row.device_times) >= 0.2 - 1e-9);
        assert_true(out.row.wall_times.n >= out.row.device_times.n / 2);
        assert_int_equal(fake.n_watched, out.row.device_times.n);
        // 100 ms of a measurement are four blocks of 30 ms.
        assert_int_equal(out.row.n_blocks, blocks ? 8 : 0);
        assert_int_equal(out.row.n_dropped_blocks, 0);
        check_near(out.result.limits.read_rate, 10e9, 0);
        check_near(out.result.limits.peak[VKMOE_ARITHMETIC_F32], 2 * ONE_THREAD, 0);
        check_near(out.result.limits.dispatch_seconds, 1e-6, 0);
        finish(&out);
    }
}

// A kernel that is made slower shows as a lower fraction of the same floor.
static void slowed_kernel(void **state)
{
    (void) state;
    double fractions[2];
    for (int i = 0; i < 2; i++) {
        struct fake fake = steady();
        fake.seconds *= i ? 2.5 : 1;
        struct outcome out = measure(&fake, &usual, true);
        check_ok(out.status);
        out.row.bytes = 8e6;
        out.row.flops = 1e6;
        out.row.read_rate = out.result.limits.read_rate;
        out.row.peak = out.result.limits.peak[VKMOE_ARITHMETIC_F32];
        bench_row_floor(&out.row);
        check_near(out.row.floor_us, 800, 1e-9);
        fractions[i] = out.row.floor_fraction;
        finish(&out);
    }
    check_near(fractions[0], 0.8, 1e-9);
    check_near(fractions[1], 0.8 / 2.5, 1e-9);
}

// A limit is what the device can do, not what it did while something else read memory.
static void disturbed_probes(void **state)
{
    (void) state;
    struct fake fake = steady();
    fake.disturbed = true;
    struct outcome out = measure(&fake, &usual, true);
    check_ok(out.status);
    check_near(out.result.limits.read_rate, 10e9, 0);
    check_near(out.result.limits.dispatch_seconds, 1e-6, 0);
    finish(&out);
}

static double slow_at_first(const struct fake *fake)
{
    return fake->n_pauses < 2 ? 1.5 : 1;
}

static void slow_clock_at_first(void **state)
{
    (void) state;
    struct fake fake = steady();
    fake.of_run = slow_at_first;
    struct outcome out = measure(&fake, &usual, true);
    check_ok(out.status);
    assert_int_equal(out.row.n_cold, 3);
    assert_true(out.row.plateau);
    check_near(out.row.device_times.p95_us, 1000, 1e-6); // nothing of the slow one is kept
    assert_int_equal(out.row.n_blocks, 3 * 4);
    finish(&out);
}

static double slower_each_time(const struct fake *fake)
{
    return pow(1.1, fake->n_pauses);
}

static void no_agreement(void **state)
{
    (void) state;
    struct fake fake = steady();
    fake.of_run = slower_each_time;
    struct outcome out = measure(&fake, &usual, false);
    check_ok(out.status);
    assert_int_equal(out.row.n_cold, 4);
    assert_false(out.row.plateau || out.result.every_block_lost);
    check_near(out.row.device_times.samples_us[0], 1100, 1e-6);
    check_near(out.row.device_times.samples_us[out.row.device_times.n - 1], 1464.1, 1e-6);
    finish(&out);
}

static double slow_until_warm(const struct fake *fake)
{
    return fake->n_runs < 20 ? 3 - 0.1 * fake->n_runs : 1;
}

static void warm_up_is_not_kept(void **state)
{
    (void) state;
    struct fake fake = steady();
    fake.of_run = slow_until_warm;
    struct outcome out = measure(&fake, &usual, false);
    check_ok(out.status);
    assert_int_equal(out.row.n_cold, 2);
    for (uint32_t i = 0; i < out.row.device_times.n; i++)
        check_near(out.row.device_times.samples_us[i], 1000, 1e-6);
    finish(&out);
}

// Half of the time two threads share a core, from one probe to the next but one.
static double core_comes_and_goes(const struct fake *fake)
{
    return fake->n_probes % 5 < 2 ? 0.5 : 1;
}

static double core_is_gone(const struct fake *fake)
{
    (void) fake;
    return 0.51;
}

static void lost_blocks(void **state)
{
    (void) state;
    struct fake fake = steady();
    fake.of_core = core_comes_and_goes;
    struct outcome out = measure(&fake, &usual, true);
    check_ok(out.status);
    assert_true(out.row.plateau && !out.result.every_block_lost);
    assert_true(out.row.n_dropped_blocks > 0 && out.row.n_dropped_blocks < out.row.n_blocks);
    for (uint32_t i = 0; i < out.row.device_times.n; i++)
        check_near(out.row.device_times.samples_us[i], 1000, 1e-6);
    check_near(out.result.limits.peak[VKMOE_ARITHMETIC_F32], 2 * ONE_THREAD, 0);
    finish(&out);
    // Without the probes' word the same device looks slower.
    fake = steady();
    fake.of_core = core_comes_and_goes;
    fake.blind = true;
    out = measure(&fake, &usual, true);
    check_ok(out.status);
    assert_true(out.row.device_times.p95_us > 1900);
    finish(&out);
    // Unless the time that the thread had says it, as with a program that runs beside this one.
    fake = steady();
    fake.of_core = core_comes_and_goes;
    fake.blind = fake.shares = true;
    out = measure(&fake, &usual, true);
    check_ok(out.status);
    assert_true(out.row.plateau && out.row.n_dropped_blocks > 0);
    check_near(out.row.device_times.p95_us, 1000, 1e-6);
    finish(&out);
}

static void every_block_lost(void **state)
{
    (void) state;
    struct fake fake = steady();
    fake.of_core = core_is_gone;
    struct outcome out = measure(&fake, &usual, true);
    check_ok(out.status);
    assert_true(out.result.every_block_lost);
    assert_false(out.row.plateau);
    assert_int_equal(out.row.n_cold, 4);
    assert_int_equal(out.row.n_dropped_blocks, out.row.n_blocks);
    assert_true(out.row.device_times.n > 0);
    check_near(out.row.device_times.median_us, 1000 / 0.51, 1e-6);
    check_near(out.result.limits.peak[VKMOE_ARITHMETIC_F32], 2 * ONE_THREAD * 0.51, 1e-3);
    // A limit: 100 ms are wanted, 300 are tried, and the block that is begun.
    assert_true(seconds_of(&out.row.device_times) < 4 * 0.37);
    finish(&out);
}

static void no_device_clock(void **state)
{
    (void) state;
    struct fake fake = steady();
    fake.device_status = VKMOE_E_UNSUPPORTED;
    struct outcome out = measure(&fake, &usual, true);
    check_ok(out.status);
    assert_int_equal(out.row.device_times.n, 0);
    assert_true(isnan(out.row.device_times.median_us));
    check_near(out.row.wall_times.median_us, 1200, 1e-6);
    assert_true(seconds_of(&out.row.wall_times) >= 0.2 - 1e-9);
    assert_string_equal(out.result.no_device_clock, "the queue has no timestamps");
    finish(&out);
    fake.device_status = VKMOE_E_DEVICE; // any other failure is one
    out = measure(&fake, &usual, true);
    assert_int_equal(out.status, VKMOE_E_DEVICE);
    finish(&out);
}

static void no_probes(void **state)
{
    (void) state;
    struct fake fake = steady();
    struct bench_target target = target_of(&fake);
    struct bench_loop loop = {.options = &usual, .n_copies = 1, .best = &fake.best};
    struct bench_row row = {0};
    struct bench_loop_result result;
    target.probe = NULL;
    target.time_device = NULL;
    check_ok(bench_loop_run(&target, &loop, &row, &result));
    check_near(row.wall_times.median_us, 1200, 1e-6);
    check_near(result.limits.read_rate, 0, 0);
    free(row.wall_times.samples_us);
}

static void limits_of_samples(void **state)
{
    (void) state;
    struct bench_measure_options options = {.min_seconds = 0.2, .min_samples = 7,
                                            .max_samples = 40};
    struct fake fake = steady();
    struct outcome out = measure(&fake, &options, false);
    check_ok(out.status);
    assert_int_equal(out.row.device_times.n, 40);
    finish(&out);
    // Runs that take longer than all the time there is: as many as were asked for.
    fake = steady();
    fake.seconds = 2;
    out = measure(&fake, &options, true);
    check_ok(out.status);
    assert_int_equal(out.row.device_times.n, 8);
    // first call, 3 copies, a device run; two measurements of a warm-up and 4 device and wall runs
    assert_int_equal(fake.n_runs, 5 + 2 * (1 + 4 + 4));
    finish(&out);
}

static void failures(void **state)
{
    (void) state;
    struct fake fake = steady();
    struct outcome out = measure(&fake, &usual, true);
    check_ok(out.status);
    finish(&out);
    uint32_t n_runs = fake.n_runs;
    for (uint32_t at = 1; at <= n_runs; at++) {
        fake = steady();
        fake.fail_at = at;
        check_fails((out = measure(&fake, &usual, true)).status, VKMOE_E_DEVICE_LOST, "on fire");
        assert_int_equal(fake.n_runs, at);
        assert_false(fake.watching);
        finish(&out);
    }
    fake = steady();
    fake.interrupt_at = n_runs / 2;
    check_fails((out = measure(&fake, &usual, true)).status, VKMOE_E_CANCELLED, "interrupted");
    assert_true(fake.n_runs < n_runs * 3 / 4);
    finish(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steady_device),    cmocka_unit_test(slowed_kernel),
        cmocka_unit_test(no_agreement),     cmocka_unit_test(slow_clock_at_first),
        cmocka_unit_test(lost_blocks),      cmocka_unit_test(warm_up_is_not_kept),
        cmocka_unit_test(every_block_lost), cmocka_unit_test(no_device_clock),
        cmocka_unit_test(no_probes),        cmocka_unit_test(limits_of_samples),
        cmocka_unit_test(failures),         cmocka_unit_test(disturbed_probes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
