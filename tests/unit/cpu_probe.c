// SPDX-License-Identifier: MIT
// Limits of a CPU are such as processors have (an emulated one is a hundredth as fast), and more
// threads do not lower them. Machines that lose a processor for a moment get several tries.
#include "check.h"

#include <vkmoe/bench.h>

enum { N_TRIES = 20 };

static vkmoe_limits limits_of(const char *isa, uint32_t n_threads)
{
    vkmoe_context_desc context_desc = vkmoe_context_desc_init();
    vkmoe_probe_desc desc = vkmoe_probe_desc_init();
    vkmoe_context *context;
    vkmoe_probe *probe;
    vkmoe_limits limits;
    context_desc.device = "cpu", context_desc.cpu_isa = isa, context_desc.n_threads = n_threads;
    desc.read_size = 16 << 20;
    check_ok(vkmoe_context_create(&context_desc, &context));
    check_ok(vkmoe_probe_create(context, &desc, &probe));
    check_ok(vkmoe_probe_run(probe, VKMOE_PROBE_ALL, &limits));
    vkmoe_probe_destroy(probe);
    vkmoe_context_destroy(context);
    return limits;
}

static void check_plausible(const vkmoe_limits *limits, uint32_t n_threads)
{
    const double peak = limits->peak[VKMOE_ARITHMETIC_F32];
    const bool ok = limits->read_rate > 1e6 && limits->read_rate < 1e13 * n_threads && peak > 1e6 &&
                    peak < 1e12 * n_threads && limits->dispatch_seconds > 1e-10 &&
                    limits->dispatch_seconds < 0.1;
    if (!ok)
        fail_msg("%u threads: %g bytes/s, %g operations/s, %g s a phase", n_threads,
                 limits->read_rate, peak, limits->dispatch_seconds);
    for (uint32_t a = VKMOE_ARITHMETIC_F32 + 1; a < VKMOE_N_ARITHMETICS; a++)
        assert_true(limits->peak[a] == 0);
}

static void test_two_threads_are_no_worse(void **state)
{
    (void) state;
    vkmoe_limits one, two;
    int tries = 0;
    do {
        one = limits_of("scalar", 1);
        two = limits_of("scalar", 2);
        check_plausible(&one, 1);
        check_plausible(&two, 2);
    } while (two.peak[0] < 0.8 * one.peak[0] && ++tries < N_TRIES);
    if (tries == N_TRIES)
        fail_msg("%g operations/s on one thread, %g on two", one.peak[0], two.peak[0]);
}

static void test_the_best_level(void **state)
{
    (void) state;
    const vkmoe_limits limits = limits_of(NULL, 0);
    check_plausible(&limits, 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_threads_are_no_worse),
        cmocka_unit_test(test_the_best_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
