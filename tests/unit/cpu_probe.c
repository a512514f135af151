// SPDX-License-Identifier: MIT
// Limits of a CPU are such as processors have (an emulated one is a hundredth as fast), and more
// threads do not lower them. Machines that lose a processor for a moment get several tries. A level
// has the peaks that it has instructions for, and kernels that count wrongly are found out.
#include "check.h"

#include "base/host.h"
#include "cpu/cpu.h"

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

static void test_each_level_has_its_peaks(void **state)
{
    (void) state;
    const struct cpu_id id = moe_cpu_id();
    const uint32_t levels = moe_cpu_levels(moe_cpu_features(&id));
    for (uint32_t isa = 0; isa < CPU_N_ISAS; isa++) {
        struct cpu_kernels kernels;
        if (!(levels & 1u << isa))
            continue;
        const vkmoe_limits limits = limits_of(moe_cpu_isa_name((enum cpu_isa) isa), 0);
        check_plausible(&limits, 1024);
        moe_cpu_kernels_init(&kernels, (enum cpu_isa) isa);
        for (uint32_t a = 0; a < VKMOE_N_ARITHMETICS; a++) {
            const bool has = a == VKMOE_ARITHMETIC_F32 ||
                             (a == VKMOE_ARITHMETIC_BF16 && kernels.peak[CPU_OPERAND_BF16]) ||
                             (a == VKMOE_ARITHMETIC_INT8 && kernels.peak[CPU_OPERAND_INT8]);
            assert_int_equal(limits.peak[a] > 1e6, has);
            assert_true(has || limits.peak[a] == 0);
        }
    }
}

// ---- made-up kernels ---------------------------------------------------------------------------

static cpu_peak_fn *scalar;
static uint32_t n_calls;

static float like_f32(uint64_t n_rounds, float start, float factor, float term)
{
    n_calls++;
    return scalar(n_rounds, start, factor, term);
}

static float still(uint64_t n_rounds, float start, float factor, float term)
{
    return scalar(0 * n_rounds, start, factor, term);
}

// One call of many is a round short.
static float sometimes_short(uint64_t n_rounds, float start, float factor, float term)
{
    return scalar(++n_calls == 30 ? n_rounds / 2 : n_rounds, start, factor, term);
}

// What a device with this kernel of int8 measures.
static enum vkmoe_status probe_with(cpu_peak_fn *peak, uint32_t what, vkmoe_limits *out)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    struct moe_device *device;
    struct moe_device_probe *probe;
    desc.cpu_isa = "scalar", desc.n_threads = 1;
    n_calls = 0;
    check_ok(moe_backend_cpu.open(moe_host_default(), &desc, 0, &device));
    scalar = ((struct cpu_device *) device)->kernels.peak[CPU_OPERAND_F32];
    ((struct cpu_device *) device)->kernels.peak[CPU_OPERAND_INT8] = peak;
    check_ok(moe_cpu_probe_create(device, 1 << 20, &probe));
    enum vkmoe_status status = moe_cpu_probe_run(probe, what, out);
    moe_cpu_probe_destroy(probe);
    moe_backend_cpu.close(device);
    return status;
}

static void test_kernels_that_count_wrongly(void **state)
{
    (void) state;
    vkmoe_limits limits;
    check_ok(probe_with(like_f32, VKMOE_PROBE_ALL, &limits));
    assert_true(n_calls > 0);
    const double ratio = limits.peak[VKMOE_ARITHMETIC_INT8] / limits.peak[VKMOE_ARITHMETIC_F32];
    assert_true(ratio > 0 && limits.peak[VKMOE_ARITHMETIC_BF16] == 0);
    check_fails(probe_with(still, VKMOE_PROBE_ARITHMETIC, &limits), VKMOE_E_DEVICE,
                "products are right");
    check_fails(probe_with(sometimes_short, VKMOE_PROBE_ARITHMETIC, &limits), VKMOE_E_DEVICE,
                "products are right");
    check_ok(probe_with(still, VKMOE_PROBE_READ | VKMOE_PROBE_DISPATCH, &limits));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_threads_are_no_worse),
        cmocka_unit_test(test_each_level_has_its_peaks),
        cmocka_unit_test(test_kernels_that_count_wrongly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
