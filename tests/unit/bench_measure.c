// SPDX-License-Identifier: MIT
// Cases on a real device, which is the argument: outputs, counts and limits that come back.
#include "check.h"

#include "bench/measure.h"
#include "fixture.h"

#include <stdlib.h>

static const char *device_name;

enum { N_TOKENS = 6, N_COPIES = 3 };

// A layer on the device three times, with weights of their own.
struct material {
    struct bench_case what;
    struct bench_work work;
    struct bench_device device;
    struct bench_meter *meter;
    struct layer_data data[N_COPIES];
    vkmoe_weights *weights[N_COPIES];
    vkmoe_bind *binds[N_COPIES];
    vkmoe_io ios[N_COPIES];
    float *x, *y, *targets;
};

static const struct bench_measure_options quick = {
    .min_seconds = 0.02, .min_samples = 4, .max_samples = 2000, .dispatches = true};

static vkmoe_layer_desc plain_layer(void)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 5;
    layer.top_k = 2;
    layer.d_model = layer.d_out = 32;
    layer.d_ff = 24;
    layer.gated = true;
    layer.act = VKMOE_ACT_SILU;
    return layer;
}

static void make_common(struct material *m, enum bench_mode mode)
{
    struct cli_device options = cli_device_init();
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    *m = (struct material){.what = {.mode = mode, .layer = plain_layer()}};
    m->what.key.n_tokens = N_TOKENS;
    m->x = calloc(N_TOKENS * 32, sizeof *m->x);
    m->targets = calloc(N_TOKENS * 32, sizeof *m->targets);
    m->y = malloc(N_COPIES * N_TOKENS * 32 * sizeof *m->y);
    assert_true(m->x && m->y && m->targets);
    fill_random(m->x, N_TOKENS * 32, 7);
    memset(m->y, 0xff, N_COPIES * N_TOKENS * 32 * sizeof *m->y);
    desc.device = device_name;
    options.spec = device_name;
    options.n_threads = desc.n_threads = 2;
    check_ok(vkmoe_context_create(&desc, &m->work.context));
    check_ok(bench_meter_open(m->work.context, &options, &m->device, &m->meter));
    m->work.what = &m->what;
    m->work.device = m->device.info;
    m->work.n_copies = 1;
    m->work.n_experts_hit = 5;
}

static void make_layer(struct material *m)
{
    make_common(m, BENCH_FORWARD);
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    desc.layer = &m->what.layer;
    desc.max_tokens = N_TOKENS;
    check_ok(vkmoe_plan_create(m->work.context, &desc, &m->work.plan));
    for (uint32_t i = 0; i < N_COPIES; i++) {
        layer_data_init(&m->data[i], &m->what.layer, i);
        check_ok(vkmoe_weights_create(m->work.context, &m->data[i].desc, &m->weights[i]));
        check_ok(vkmoe_bind_create(m->work.plan, m->weights[i], NULL, &m->binds[i]));
        m->ios[i] = vkmoe_io_init();
        m->ios[i].x = m->x;
        m->ios[i].y = m->y + i * N_TOKENS * 32;
    }
    m->work.weights = m->weights;
    m->work.binds = m->binds;
    m->work.ios = m->ios;
    m->work.n_copies = N_COPIES;
}

static void make_net(struct material *m, enum bench_mode mode)
{
    make_common(m, mode);
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    const vkmoe_net_layer *layers[] = {&layer};
    vkmoe_net_desc desc = vkmoe_net_desc_init();
    layer.layer = &m->what.layer;
    desc.layers = layers;
    desc.n_layers = 1;
    desc.d_in = 32;
    desc.max_tokens = N_TOKENS;
    desc.loss = VKMOE_LOSS_MSE;
    desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    desc.decay = 0.1f;
    check_ok(vkmoe_net_create(m->work.context, &desc, &m->work.net));
    check_ok(vkmoe_net_init(m->work.net, 3));
    m->work.batch = vkmoe_net_batch_init();
    m->work.batch.n_tokens = N_TOKENS;
    m->work.batch.x = m->x;
    m->work.batch.targets = m->targets;
}

static void finish(struct material *m)
{
    for (uint32_t i = 0; i < N_COPIES; i++) {
        vkmoe_bind_destroy(m->binds[i]);
        vkmoe_weights_destroy(m->weights[i]);
        if (m->work.plan)
            layer_data_finish(&m->data[i]);
    }
    vkmoe_plan_destroy(m->work.plan);
    vkmoe_net_destroy(m->work.net);
    bench_meter_close(m->meter);
    vkmoe_context_destroy(m->work.context);
    free(m->x);
    free(m->y);
    free(m->targets);
}

static void finish_row(struct bench_row *row)
{
    free(row->device_times.samples_us);
    free(row->wall_times.samples_us);
    free(row->dispatches);
}

static bool has_probes(void)
{
    return strcmp(device_name, "reference") != 0;
}

static void check_row(const struct material *m, const struct bench_row *row)
{
    const struct bench_times *times = row->device_times.n ? &row->device_times : &row->wall_times;
    assert_true(row->device_times.n >= 4 && row->wall_times.n >= 2);
    assert_true(times->p5_us > 0 && times->p5_us <= times->median_us);
    assert_true(times->median_us <= times->p95_us && times->mad_us >= 0);
    assert_true(row->n_cold >= 2 && row->n_cold <= 4);
    // Three copies of a layer of 46 KB are in every cache.
    bool cached = m->what.mode == BENCH_FORWARD && vkmoe_context_cache_size(m->work.context) > 0;
    assert_true(cached == (strstr(row->reason, "fits in the cache") != NULL));
    assert_true((row->plateau && !cached) == (*row->reason == '\0'));
    check_near(row->tokens_per_s, N_TOKENS / times->median_us * 1e6, 1e-3);
    check_near(row->flops_per_s, row->flops / times->median_us * 1e6, 1);
    assert_string_equal(row->arithmetic, "f32");
    if (!has_probes()) {
        assert_true(isnan(row->floor_us) && isnan(row->floor_fraction) && isnan(row->peak));
        return;
    }
    assert_true(row->read_rate > 0 && row->read_rate <= m->device.read_rate * 1.000001);
    assert_true(row->peak > 0 && row->peak <= m->device.peak[VKMOE_ARITHMETIC_F32] * 1.000001);
    assert_true(row->dispatch_us >= m->device.dispatch_us * 0.999999);
    check_near(row->floor_fraction, row->floor_us / times->median_us, 1e-9);
    check_near(row->floor_us, 1e6 * fmax(row->bytes / row->read_rate, row->flops / row->peak) +
                                  row->n_dispatches * row->dispatch_us, 1e-6);
    assert_int_equal(row->n_timed_dispatches, row->n_dispatches);
    assert_true(row->n_dispatches > 0);
    for (uint32_t i = 0; i < row->n_dispatches; i++)
        assert_true(*row->dispatches[i].label && row->dispatches[i].median_us >= 0);
}

static void device_limits(void **state)
{
    (void) state;
    struct material m;
    make_common(&m, BENCH_FORWARD);
    assert_true((m.device.read_rate > 0) == has_probes());
    assert_true((m.device.peak[VKMOE_ARITHMETIC_F32] > 0) == has_probes());
    assert_true((m.device.dispatch_us > 0) == has_probes());
    if (m.device.info.type == VKMOE_DEVICE_CPU) {
        assert_int_equal(m.device.n_threads, 2);
        assert_true(m.device.one_thread_peak > 0);
    } else {
        assert_int_equal(m.device.n_threads, 0);
        assert_true(isnan(m.device.one_thread_peak));
    }
    finish(&m);
}

// Every copy has run, and what is in the rows is what a run gives.
static void layer(void **state)
{
    (void) state;
    struct material m;
    struct bench_row row = {.key.n_tokens = N_TOKENS};
    make_layer(&m);
    check_ok(bench_measure(m.meter, &m.work, &quick, &row));
    check_row(&m, &row);
    assert_true(*row.kernel || !has_probes());
    double bytes, flops;
    bench_work_cost(&m.work, &bytes, &flops);
    check_near(bytes, row.bytes, 0);
    check_near(flops, 2 * N_TOKENS * (2 * 3 * 24 * 32 + 5 * 32.0), 0);
    float want[N_TOKENS * 32];
    for (uint32_t i = 0; i < N_COPIES; i++) {
        vkmoe_io io = m.ios[i];
        io.y = want;
        check_ok(vkmoe_run(m.binds[i], N_TOKENS, &io));
        assert_memory_equal(m.y + i * N_TOKENS * 32, want, sizeof want);
    }
    finish_row(&row);
    finish(&m);
}

static void read_param(const struct material *m, enum vkmoe_net_what what, float *out)
{
    check_ok(vkmoe_net_read(m->work.net, what, "layers.0.experts.up.weight", out, 5 * 24 * 32));
}

// Steps are made, and leave the parameters as they are.
static void training(void **state)
{
    (void) state;
    struct material m;
    struct bench_row row = {.key.n_tokens = N_TOKENS};
    static float before[5 * 24 * 32], after[5 * 24 * 32], moment[5 * 24 * 32];
    vkmoe_net_state net;
    make_net(&m, BENCH_TRAIN);
    read_param(&m, VKMOE_NET_VALUE, before);
    check_ok(bench_measure(m.meter, &m.work, &quick, &row));
    check_row(&m, &row);
    read_param(&m, VKMOE_NET_VALUE, after);
    read_param(&m, VKMOE_NET_MOMENT2, moment);
    assert_memory_equal(before, after, sizeof before);
    double sum = 0;
    for (size_t i = 0; i < sizeof moment / sizeof *moment; i++)
        sum += moment[i];
    assert_true(sum > 0);
    check_ok(vkmoe_net_get_state(m.work.net, &net));
    assert_true(net.steps >= row.device_times.n + row.wall_times.n);
    finish_row(&row);
    finish(&m);
}

static void backward(void **state)
{
    (void) state;
    struct material m;
    struct bench_row row = {.key.n_tokens = N_TOKENS};
    vkmoe_net_state net;
    make_net(&m, BENCH_BACKWARD);
    check_ok(bench_measure(m.meter, &m.work, &quick, &row));
    check_row(&m, &row);
    check_ok(vkmoe_net_get_state(m.work.net, &net));
    assert_int_equal(net.steps, 0);
    // 3.8 KB of weights stay in any cache that the device tells of.
    assert_true(m.device.cache_size > 0 ? row.bytes == 0 : row.bytes > 0);
    finish_row(&row);
    finish(&m);
}

int main(int argc, char **argv)
{
    device_name = argc > 1 ? argv[1] : "cpu";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_limits),
        cmocka_unit_test(layer),
        cmocka_unit_test(training),
        cmocka_unit_test(backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
