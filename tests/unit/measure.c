// SPDX-License-Identifier: MIT
// Measuring layers: what is timed leaves the results of a run, every wrong argument is refused with
// a text that names it, and limits are limits. Argument: the device.
#include "check.h"
#include "fixture.h"

#include <stdlib.h>
#include <vkmoe/bench.h>

enum { N_TOKENS = 8, N_BINDS = 3, D_MODEL = 6, D_OUT = 3, TOP_K = 2, N_EXPERTS = 5 };

static const char *device;

// Three layers of the same shape with weights, rows and results of their own.
struct rows {
    float x[N_TOKENS * D_MODEL], y[N_TOKENS * D_OUT], gates[N_TOKENS * TOP_K];
    float scores[N_TOKENS * N_EXPERTS];
    int32_t ids[N_TOKENS * TOP_K];
};

struct scene {
    vkmoe_context *context;
    vkmoe_plan *plan;
    struct layer_data data[N_BINDS];
    vkmoe_weights *weights[N_BINDS];
    vkmoe_bind *binds[N_BINDS];
    struct rows rows[N_BINDS];
    vkmoe_io ios[N_BINDS];
    vkmoe_time_desc time;
};

static vkmoe_context *open_context(void)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    desc.device = device;
    desc.n_threads = 2;
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

static void poison(struct scene *s)
{
    for (uint32_t i = 0; i < N_BINDS; i++) {
        struct rows *rows = &s->rows[i];
        memset(rows->y, 0xff, sizeof rows->y);
        memset(rows->gates, 0xff, sizeof rows->gates);
        memset(rows->scores, 0xff, sizeof rows->scores);
        memset(rows->ids, 0xff, sizeof rows->ids);
    }
}

static void open_scene(struct scene *s)
{
    const vkmoe_layer_desc layer = full_layer();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    memset(s, 0, sizeof *s);
    s->context = open_context();
    plan.layer = &layer;
    plan.max_tokens = N_TOKENS;
    plan.scores = true;
    check_ok(vkmoe_plan_create(s->context, &plan, &s->plan));
    for (uint32_t i = 0; i < N_BINDS; i++) {
        struct rows *rows = &s->rows[i];
        layer_data_init(&s->data[i], &layer, i + 1);
        check_ok(vkmoe_weights_create(s->context, &s->data[i].desc, &s->weights[i]));
        check_ok(vkmoe_bind_create(s->plan, s->weights[i], NULL, &s->binds[i]));
        fill_random(rows->x, N_TOKENS * D_MODEL, i + 7);
        s->ios[i] = vkmoe_io_init();
        s->ios[i].x = rows->x, s->ios[i].y = rows->y;
        s->ios[i].ids = rows->ids, s->ios[i].gates = rows->gates, s->ios[i].scores = rows->scores;
    }
    s->time = vkmoe_time_desc_init();
    s->time.binds = s->binds, s->time.ios = s->ios;
    s->time.n_binds = N_BINDS, s->time.n_tokens = N_TOKENS;
    poison(s);
}

static void close_scene(struct scene *s)
{
    for (uint32_t i = 0; i < N_BINDS; i++) {
        vkmoe_bind_destroy(s->binds[i]);
        vkmoe_weights_destroy(s->weights[i]);
        layer_data_finish(&s->data[i]);
    }
    vkmoe_plan_destroy(s->plan);
    vkmoe_context_destroy(s->context);
}

// ---- timed runs --------------------------------------------------------------------------------

// The results of the first n binds are those of vkmoe_run, and of the binds alone.
static void check_results(struct scene *s, uint32_t n)
{
    struct rows timed[N_BINDS];
    memcpy(timed, s->rows, sizeof timed);
    poison(s);
    for (uint32_t i = 0; i < n; i++)
        check_ok(vkmoe_run(s->binds[i], s->time.n_tokens, &s->ios[i]));
    for (uint32_t i = 0; i < n; i++)
        assert_memory_equal(&timed[i], &s->rows[i], sizeof timed[i]);
    if (n > 1)
        assert_memory_not_equal(timed[0].y, timed[1].y, sizeof timed[0].y);
}

static void check_seconds(const double *seconds, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!(seconds[i] >= 0 && seconds[i] < 60))
            fail_msg("run %u: %g seconds", i, seconds[i]);
        sum += seconds[i];
    }
    assert_true(sum > 0);
}

static void test_runs_leave_their_results(void **state)
{
    (void) state;
    struct scene s;
    double seconds[11];
    open_scene(&s);
    for (uint32_t n_tokens = 1; n_tokens <= N_TOKENS; n_tokens += N_TOKENS - 1) {
        s.time.n_tokens = n_tokens;
        poison(&s);
        for (uint32_t i = 0; i < 11; i++)
            seconds[i] = NAN;
        check_ok(vkmoe_time_runs(&s.time, 10, seconds));
        check_seconds(seconds, 10);
        assert_true(isnan(seconds[10]));
        check_results(&s, N_BINDS);
    }
    s.ios[1].x = s.ios[2].x = s.ios[0].x; // may be shared
    poison(&s);
    check_ok(vkmoe_time_runs(&s.time, N_BINDS, seconds));
    check_results(&s, N_BINDS);
    close_scene(&s);
}

static void test_dispatches(void **state)
{
    (void) state;
    struct scene s;
    vkmoe_dispatch_time times[64];
    double seconds[64];
    uint32_t n = 0, count;
    open_scene(&s);
    if (strcmp(device, "reference") == 0) {
        check_fails(vkmoe_time_dispatches(&s.time, NULL, &n), VKMOE_E_UNSUPPORTED, "reference");
        close_scene(&s);
        return;
    }
    check_ok(vkmoe_time_dispatches(&s.time, NULL, &n));
    assert_in_range(n, 2, 63);
    for (uint32_t room = n - 1; room <= n + 1; room += 2) { // one too few, one too many
        memset(times, 0, sizeof times);
        poison(&s);
        count = room;
        check_ok(vkmoe_time_dispatches(&s.time, times, &count));
        assert_int_equal(count, n);
        for (uint32_t i = 0; i < (room < n ? room : n); i++) {
            assert_true(times[i].label && times[i].label[0]);
            seconds[i] = times[i].seconds;
        }
        check_seconds(seconds, room < n ? room : n);
        assert_null(times[room < n ? room : n].label);
        check_results(&s, 1);
    }
    close_scene(&s);
}

// One change to a desc that is right.
#define REFUSED(change, status, text)                                                              \
    do {                                                                                           \
        struct scene s;                                                                            \
        double seconds[2];                                                                         \
        uint32_t n = 0;                                                                            \
        open_scene(&s);                                                                            \
        change;                                                                                    \
        check_fails(vkmoe_time_runs(&s.time, 2, seconds), status, text);                           \
        check_fails(vkmoe_time_dispatches(&s.time, NULL, &n), status, text);                       \
        close_scene(&s);                                                                           \
    } while (0)
#define BAD VKMOE_E_ARGUMENT

static void test_bad_descs_are_refused(void **state)
{
    (void) state;
    vkmoe_bind *swapped[N_BINDS];
    REFUSED(s.time.struct_size = 3, BAD, "vkmoe_time_desc.struct_size = 3");
    REFUSED(s.time.binds = NULL, BAD, "time: binds is NULL");
    REFUSED(s.time.ios = NULL, BAD, "time: ios is NULL");
    REFUSED(s.time.n_binds = 0, BAD, "time.n_binds = 0");
    REFUSED(s.time.n_binds = UINT32_MAX, BAD, "time.n_binds = 4294967295");
    REFUSED(s.time.n_tokens = 0, BAD, "time.n_tokens = 0");
    REFUSED(s.time.n_tokens = N_TOKENS + 1, VKMOE_E_SHAPE, "n_tokens = 9");
    REFUSED((memcpy(swapped, s.binds, sizeof swapped), swapped[1] = NULL, s.time.binds = swapped),
            BAD, "time.binds[1] is NULL");
    REFUSED((memcpy(swapped, s.binds, sizeof swapped), swapped[2] = swapped[0],
             s.time.binds = swapped), BAD, "time.binds[0] and binds[2] are the same");
    REFUSED(s.ios[0].struct_size = 0, BAD, "struct_size");
    REFUSED(s.ios[2].struct_size = 8, BAD, "time.ios[2].struct_size = 8");
    REFUSED(s.ios[1].x = NULL, BAD, "time.ios[1].x is NULL");
    REFUSED(s.ios[2].y = NULL, BAD, "time.ios[2].y is NULL");
    REFUSED(s.ios[1].y_stride = 5, BAD, "io.y_stride = 5");
    REFUSED(s.ios[2].y = (char *) s.rows[2].y + 1, BAD, "not aligned");
    REFUSED(s.ios[2].y = s.rows[0].y, BAD, "time.ios[0].y and time.ios[2].y overlap");
    REFUSED(s.ios[1].ids = (int32_t *) s.rows[2].x, BAD, "time.ios[1].ids and time.ios[2].x");
}

static void test_calls_without_arguments(void **state)
{
    (void) state;
    struct scene s, other;
    double seconds[2];
    uint32_t n = 0;
    open_scene(&s);
    open_scene(&other);
    check_fails(vkmoe_time_runs(NULL, 1, seconds), BAD, "desc is NULL");
    check_fails(vkmoe_time_runs(&s.time, 1, NULL), BAD, "seconds is NULL");
    check_fails(vkmoe_time_runs(&s.time, 0, seconds), BAD, "n_runs = 0");
    check_fails(vkmoe_time_dispatches(NULL, NULL, &n), BAD, "desc is NULL");
    check_fails(vkmoe_time_dispatches(&s.time, NULL, NULL), BAD, "n is NULL");
    vkmoe_bind *binds[] = {s.binds[0], other.binds[1]};
    s.time.binds = binds, s.time.n_binds = 2;
    check_fails(vkmoe_time_runs(&s.time, 1, seconds), BAD, "time.binds[1] is of another context");
    close_scene(&other);
    close_scene(&s);
}

// ---- kernels and counters ----------------------------------------------------------------------

static void test_kernels(void **state)
{
    (void) state;
    struct scene s;
    vkmoe_plan_kernels kernels;
    vkmoe_weights_layout layout;
    open_scene(&s);
    check_fails(vkmoe_plan_get_kernels(NULL, &kernels), BAD, "plan is NULL");
    check_fails(vkmoe_plan_get_kernels(s.plan, NULL), BAD, "out is NULL");
    check_ok(vkmoe_plan_get_kernels(s.plan, &kernels));
    check_ok(vkmoe_weights_get_layout(s.context, &s.data[0].layer, &layout));
    assert_true(kernels.name && kernels.name[0]);
    assert_in_range(kernels.arithmetic, 0, VKMOE_N_ARITHMETICS - 1);
    // At least the values, at most a packed expert.
    assert_in_range(kernels.weights_size, 4 * (2 * 7 * D_MODEL + D_OUT * 7), layout.expert_size);
    close_scene(&s);
}

static void test_arithmetics_have_names(void **state)
{
    (void) state;
    assert_string_equal(vkmoe_arithmetic_name(VKMOE_ARITHMETIC_F32), "f32");
    assert_string_equal(vkmoe_arithmetic_name(VKMOE_ARITHMETIC_INT8_MATRIX), "int8-matrix");
    assert_string_equal(vkmoe_arithmetic_name((enum vkmoe_arithmetic) 7), "unknown");
    assert_string_equal(vkmoe_arithmetic_name((enum vkmoe_arithmetic) -1), "unknown");
}

static void test_counters_are_of_runs(void **state)
{
    (void) state;
    struct scene s;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_plan *plan;
    vkmoe_bind *bind;
    vkmoe_counters counters;
    double seconds;
    open_scene(&s);
    check_fails(vkmoe_bind_get_counters(NULL, &counters), BAD, "bind is NULL");
    check_fails(vkmoe_bind_get_counters(s.binds[0], NULL), BAD, "out is NULL");
    check_fails(vkmoe_bind_get_counters(s.binds[0], &counters), BAD, "without counters");
    desc.layer = &s.data[0].layer, desc.max_tokens = N_TOKENS;
    desc.counters = true, desc.scores = true;
    enum vkmoe_status status = vkmoe_plan_create(s.context, &desc, &plan);
    if (status == VKMOE_E_UNSUPPORTED) {
        assert_string_not_equal(device, "cpu");
        assert_non_null(strstr(vkmoe_error_text(), "plan.counters"));
        close_scene(&s);
        return;
    }
    check_ok(status);
    check_ok(vkmoe_bind_create(plan, s.weights[0], NULL, &bind));
    check_fails(vkmoe_bind_get_counters(bind, &counters), BAD, "no vkmoe_run");
    check_ok(vkmoe_run(bind, N_TOKENS, &s.ios[0]));
    check_ok(vkmoe_bind_get_counters(bind, &counters));
    assert_true(counters.weight_loads > 0 && counters.router_loads > 0 && counters.dispatches > 0);
    check_ok(vkmoe_run(bind, 0, &s.ios[0]));
    check_ok(vkmoe_bind_get_counters(bind, &counters));
    assert_true(counters.weight_loads == 0 && counters.dispatches == 0);
    s.time.binds = &bind, s.time.n_binds = 1;
    check_ok(vkmoe_time_runs(&s.time, 1, &seconds));
    check_fails(vkmoe_bind_get_counters(bind, &counters), BAD, "no vkmoe_run");
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    close_scene(&s);
}

// ---- limits ------------------------------------------------------------------------------------

static void test_probe(void **state)
{
    (void) state;
    vkmoe_context *context = open_context();
    vkmoe_probe_desc desc = vkmoe_probe_desc_init();
    vkmoe_probe *probe = (vkmoe_probe *) &desc;
    vkmoe_limits limits;
    vkmoe_probe_destroy(NULL);
    assert_int_equal(vkmoe_context_cache_size(NULL), 0);
    assert_int_equal(vkmoe_context_thread_count(NULL), 0);
    check_fails(vkmoe_probe_create(context, &desc, NULL), BAD, "out is NULL");
    check_fails(vkmoe_probe_create(NULL, &desc, &probe), BAD, "context is NULL");
    assert_null(probe);
    enum vkmoe_status status = vkmoe_probe_create(context, NULL, &probe);
    if (status == VKMOE_E_UNSUPPORTED) {
        assert_string_not_equal(device, "cpu");
        assert_null(probe);
        vkmoe_context_destroy(context);
        return;
    }
    check_ok(status);
    vkmoe_probe_destroy(probe);
    desc.struct_size = 2;
    check_fails(vkmoe_probe_create(context, &desc, &probe), BAD, "vkmoe_probe_desc.struct_size");
    desc = vkmoe_probe_desc_init();
    desc.read_size = 1000;
    check_fails(vkmoe_probe_create(context, &desc, &probe), BAD, "probe.read_size = 1000");
    desc.read_size = UINT64_MAX;
    check_fails(vkmoe_probe_create(context, &desc, &probe), VKMOE_E_DEVICE_MEMORY,
                "probe.read_size = 18446744073709551615");
    desc.read_size = (5 << 20) + 1; // no whole number of tasks
    check_ok(vkmoe_probe_create(context, &desc, &probe));
    check_fails(vkmoe_probe_run(NULL, VKMOE_PROBE_ALL, &limits), BAD, "probe is NULL");
    check_fails(vkmoe_probe_run(probe, VKMOE_PROBE_ALL, NULL), BAD, "out is NULL");
    check_fails(vkmoe_probe_run(probe, 0, &limits), BAD, "what = 0x0");
    check_fails(vkmoe_probe_run(probe, 9, &limits), BAD, "what = 0x9");
    for (uint32_t what = 1; what <= VKMOE_PROBE_ALL; what++) {
        check_ok(vkmoe_probe_run(probe, what, &limits));
        assert_int_equal(limits.read_rate > 1e6, what & VKMOE_PROBE_READ ? 1 : 0);
        assert_int_equal(limits.peak[VKMOE_ARITHMETIC_F32] > 1e6,
                         what & VKMOE_PROBE_ARITHMETIC ? 1 : 0);
        assert_int_equal(limits.dispatch_seconds > 0, what & VKMOE_PROBE_DISPATCH ? 1 : 0);
    }
    vkmoe_probe_destroy(probe);
    vkmoe_context_destroy(context);
}

// ---- tuning ------------------------------------------------------------------------------------

static void test_tune(void **state)
{
    (void) state;
    vkmoe_context *context = open_context();
    vkmoe_tune_desc desc = vkmoe_tune_desc_init();
    vkmoe_tune_verdict verdicts[32];
    uint32_t n = 0, count, n_used = 0;
    check_fails(vkmoe_tune(NULL, &desc, NULL, &n), BAD, "context is NULL");
    check_fails(vkmoe_tune(context, &desc, NULL, NULL), BAD, "n is NULL");
    enum vkmoe_status status = vkmoe_tune(context, NULL, NULL, &n);
    if (status == VKMOE_E_UNSUPPORTED) {
        assert_string_not_equal(device, "cpu");
        vkmoe_context_destroy(context);
        return;
    }
    check_ok(status);
    assert_in_range(n, 1, 31);
    desc.struct_size = 4;
    check_fails(vkmoe_tune(context, &desc, verdicts, &n), BAD, "vkmoe_tune_desc.struct_size = 4");
    desc = vkmoe_tune_desc_init();
    memset(verdicts, 0, sizeof verdicts);
    count = n;
    check_ok(vkmoe_tune(context, &desc, verdicts, &count));
    assert_int_equal(count, n);
    assert_int_equal(verdicts[n].kernel[0], 0);
    for (uint32_t i = 0; i < n; i++) {
        const vkmoe_tune_verdict *v = &verdicts[i];
        assert_true(v->kernel[0] != 0);
        assert_int_equal(v->reason[0] == 0, v->state == VKMOE_TUNE_USED);
        assert_true(v->seconds >= 0 && v->base_seconds >= 0);
        n_used += v->state == VKMOE_TUNE_USED;
    }
    assert_true(n_used > 0);
    vkmoe_context_destroy(context);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_leave_their_results),
        cmocka_unit_test(test_dispatches),
        cmocka_unit_test(test_bad_descs_are_refused),
        cmocka_unit_test(test_calls_without_arguments),
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_arithmetics_have_names),
        cmocka_unit_test(test_counters_are_of_runs),
        cmocka_unit_test(test_probe),
        cmocka_unit_test(test_tune),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
