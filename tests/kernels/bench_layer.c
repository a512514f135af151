// SPDX-License-Identifier: MIT
// Layers on the CPU: one of a small sparse transformer, by tokens at once; what a nearly empty one
// costs; and which part of two others goes to finding experts.
#include "kernels_test.h"

#include "base/bits.h"

#include <vkmoe/bench.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOP_K = 8, D_MODEL = 2048, D_FF = 768, MAX_EXPERTS = 128, MAX_TOKENS = 512 };

// A layer and all it takes to run it.
struct setup {
    vkmoe_layer_desc layer;
    float *matrix, *x, *y;
    int32_t *ids;
    vkmoe_context *context;
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
};

static float *random_array(size_t n, uint64_t *state)
{
    float *array = aligned_memory(n * sizeof *array);
    for (size_t i = 0; i < n; i++)
        array[i] = random_value(state) * 0.05f;
    return array;
}

// Best time of a run of n_tokens.
static double time_run(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io)
{
    double best = 1e9;
    for (double began = seconds(); seconds() - began < 0.5;) {
        double start = seconds();
        if (vkmoe_run(bind, n_tokens, io) != VKMOE_OK)
            return 0;
        double t = seconds() - start;
        best = t < best ? t : best;
    }
    return best;
}

// All experts are the same matrices: speed does not see it, and making them costs less.
static enum vkmoe_status create(struct setup *s, const vkmoe_context_desc *desc,
                                enum vkmoe_precision precision)
{
    static vkmoe_expert_tensors experts[MAX_EXPERTS];
    for (uint32_t e = 0; e < s->layer.n_experts; e++)
        experts[e].gate = experts[e].up = experts[e].down =
            (vkmoe_tensor){.data = s->matrix, .type = VKMOE_F32};
    // Others than the experts', so that those are not equally good.
    vkmoe_router_tensors router = {.weight = {.data = s->matrix + 16, .type = VKMOE_F32}};
    vkmoe_weights_desc weights_desc = vkmoe_weights_desc_init();
    weights_desc.layer = &s->layer;
    weights_desc.router = &router;
    weights_desc.experts = experts;
    vkmoe_plan_desc plan_desc = vkmoe_plan_desc_init();
    plan_desc.layer = &s->layer;
    plan_desc.max_tokens = MAX_TOKENS;
    plan_desc.precision = precision;
    enum vkmoe_status status = vkmoe_context_create(desc, &s->context);
    if (status == VKMOE_OK)
        status = vkmoe_weights_create(s->context, &weights_desc, &s->weights);
    if (status == VKMOE_OK)
        status = vkmoe_plan_create(s->context, &plan_desc, &s->plan);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(s->plan, s->weights, NULL, &s->bind);
    return status;
}

// A gated layer E, K, D, F of one type. False after a message.
static bool open_setup(struct setup *s, const struct kernels_options *options, uint32_t n_threads,
                       const uint32_t shape[4], enum vkmoe_dtype type,
                       enum vkmoe_precision precision)
{
    uint64_t state = options->seed;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    *s = (struct setup){.layer = vkmoe_layer_desc_init()};
    s->layer.n_experts = shape[0];
    s->layer.top_k = shape[1];
    s->layer.d_model = shape[2];
    s->layer.d_ff = shape[3];
    s->layer.in_type = s->layer.out_type = type;
    s->layer.gated = true;
    s->layer.act = VKMOE_ACT_SILU;
    const size_t d_model = shape[2], n_most = moe_max(shape[3], shape[0]);
    s->matrix = random_array(d_model * n_most + 16, &state);
    s->x = random_array(MAX_TOKENS * d_model, &state);
    s->y = aligned_memory(sizeof *s->y * MAX_TOKENS * d_model);
    s->ids = aligned_memory(sizeof *s->ids * MAX_TOKENS * shape[1]);
    desc.device = "cpu";
    desc.cpu_isa = options->isa;
    desc.n_threads = n_threads;
    if (create(s, &desc, precision) == VKMOE_OK)
        return true;
    fprintf(stderr, "%s\n", vkmoe_error_text());
    return false;
}

static void close_setup(struct setup *s)
{
    vkmoe_bind_destroy(s->bind);
    vkmoe_plan_destroy(s->plan);
    vkmoe_weights_destroy(s->weights);
    vkmoe_context_destroy(s->context);
    free(s->ids);
    free(s->y);
    free(s->x);
    free(s->matrix);
}

static vkmoe_io io_of(const struct setup *s)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = s->x;
    io.y = s->y;
    io.ids = s->ids;
    return io;
}

// ---- what is printed ---------------------------------------------------------------------------

static bool print_rates(const struct kernels_options *options)
{
    static const uint32_t shape[] = {16, TOP_K, D_MODEL, D_FF}, n_tokens[] = {1, 8, 128};
    const double expert_macs = 3.0 * D_MODEL * D_FF;
    struct setup s;
    bool ok = open_setup(&s, options, 0, shape, VKMOE_BF16, VKMOE_PRECISION_EXACT);
    printf("layer %u,%u,%u,%u bf16, gated, all cores:\n", shape[0], shape[1], shape[2], shape[3]);
    for (size_t i = 0; ok && i < MOE_COUNT(n_tokens); i++) {
        const uint32_t n = n_tokens[i];
        const vkmoe_io io = io_of(&s);
        double t = time_run(s.bind, n, &io);
        bool used[MAX_EXPERTS] = {false};
        uint32_t n_used = 0;
        for (uint32_t slot = 0; slot < n * TOP_K; slot++) {
            n_used += !used[s.ids[slot]];
            used[s.ids[slot]] = true;
        }
        printf("  %3u tokens: %8.3f ms  %6.1f GFLOP/s  %5.1f GB/s of weights\n", n, t * 1e3,
               2 * expert_macs * n * TOP_K / t * 1e-9, 2 * expert_macs * n_used / t * 1e-9);
    }
    close_setup(&s);
    return ok;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

// Of runs that follow each other the median: the best says nothing of threads that wait.
static bool print_fixed_cost(const struct kernels_options *options)
{
    static const uint32_t shape[] = {8, 2, 64, 32};
    enum { N_RUNS = 20001 };
    bool ok = true;
    double *times = aligned_memory(N_RUNS * sizeof *times);
    for (uint32_t n_threads = 1; ok && n_threads <= 2; n_threads++) {
        struct setup s;
        ok = open_setup(&s, options, n_threads, shape, VKMOE_F32, VKMOE_PRECISION_EXACT);
        const vkmoe_io io = io_of(&s);
        for (uint32_t i = 0; ok && i < N_RUNS; i++) {
            double begin = seconds();
            ok = vkmoe_run(s.bind, 1, &io) == VKMOE_OK;
            times[i] = seconds() - begin;
        }
        qsort(times, N_RUNS, sizeof *times, by_value);
        if (ok)
            printf("a nearly empty layer on %u threads: %.2f us (a tenth %.2f, nine tenths %.2f)\n",
                   n_threads, times[N_RUNS / 2] * 1e6, times[N_RUNS / 10] * 1e6,
                   times[N_RUNS / 10 * 9] * 1e6);
        close_setup(&s);
    }
    free(times);
    return ok;
}

// Medians of the phases of some runs.
static void print_phases(const struct setup *s, uint32_t n_tokens)
{
    enum { N_RUNS = 21, MAX_PHASES = 16 };
    vkmoe_dispatch_time times[MAX_PHASES];
    double of_phase[MAX_PHASES][N_RUNS], total = 0, finding = 0;
    const vkmoe_io io = io_of(s);
    vkmoe_time_desc desc = vkmoe_time_desc_init();
    uint32_t n = MAX_PHASES;
    desc.binds = &s->bind, desc.ios = &io, desc.n_binds = 1, desc.n_tokens = n_tokens;
    for (uint32_t run = 0; run < N_RUNS; run++) {
        n = MAX_PHASES;
        if (vkmoe_time_dispatches(&desc, times, &n) != VKMOE_OK)
            return;
        for (uint32_t i = 0; i < n; i++)
            of_phase[i][run] = times[i].seconds;
    }
    for (uint32_t i = 0; i < n; i++) {
        qsort(of_phase[i], N_RUNS, sizeof of_phase[i][0], by_value);
        const double t = of_phase[i][N_RUNS / 2];
        total += t;
        if (strcmp(times[i].label, "expert in") != 0 && strcmp(times[i].label, "expert out") != 0)
            finding += t;
    }
    printf("  ");
    for (uint32_t i = 0; i < n; i++)
        printf("%s %.0f us%s", times[i].label, of_phase[i][N_RUNS / 2] * 1e6,
               i + 1 < n ? ", " : "");
    printf("\n  all but the experts: %.2f %%\n", 100 * finding / total);
}

static bool print_shares(const struct kernels_options *options)
{
    static const struct {
        uint32_t shape[4];
        enum vkmoe_dtype type;
        enum vkmoe_precision precision;
    } rows[] = {
        {{32, 8, 1024, 512}, VKMOE_BF16, VKMOE_PRECISION_HALF},
        {{32, 8, 1024, 512}, VKMOE_Q8_0, VKMOE_PRECISION_INT8},
        {{128, 8, 2048, 768}, VKMOE_BF16, VKMOE_PRECISION_HALF},
        {{128, 8, 2048, 768}, VKMOE_Q8_0, VKMOE_PRECISION_INT8},
    };
    bool ok = true;
    for (size_t i = 0; ok && i < MOE_COUNT(rows); i++) {
        struct setup s;
        ok = open_setup(&s, options, 0, rows[i].shape, rows[i].type, rows[i].precision);
        printf("layer %u,%u,%u,%u %s, 512 tokens, all cores:\n", rows[i].shape[0],
               rows[i].shape[1], rows[i].shape[2], rows[i].shape[3],
               vkmoe_dtype_name(rows[i].type));
        if (ok)
            print_phases(&s, 512);
        close_setup(&s);
    }
    return ok;
}

int bench_layer(const struct kernels_options *options)
{
    setvbuf(stdout, NULL, _IOLBF, 0); // it takes a while
    return !(print_fixed_cost(options) && print_rates(options) && print_shares(options));
}
