// SPDX-License-Identifier: MIT
// The levels as candidates. Each one runs the same small layer on a device of its own, all of them
// in turn, so that what else the machine does hits them alike.
#include "cpu/tune.h"

#include "base/bits.h"
#include "base/clock.h"
#include "base/host.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_EXPERTS = 8, TOP_K = 2, WIDTH = 256, N_TOKENS = 32, N_RUNS = 15 };

// Of a kernel that is worth its place, at most of what it takes without it.
static const double worth = 0.97;

// A level's own layer; device NULL: not timed.
struct candidate {
    struct moe_device *device;
    struct moe_packed_weights *weights;
    struct moe_program *program;
    struct moe_bound *bound;
    double seconds[N_RUNS];
    double median;
};

struct tuning {
    const struct cpu_device *device;
    struct moe_layer layer;
    struct moe_graph graph;
    float *memory; // an expert's matrix, which is the router too; then x, then y
    vkmoe_io io;
    struct candidate candidates[CPU_N_ISAS];
};

// ---- the layer ---------------------------------------------------------------------------------

static enum vkmoe_status make_layer(struct tuning *t)
{
    enum vkmoe_status status;
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    const size_t n_matrix = WIDTH * WIDTH, n_rows = N_TOKENS * WIDTH;
    desc.n_experts = N_EXPERTS, desc.top_k = TOP_K;
    desc.d_model = desc.d_ff = WIDTH;
    desc.gated = true, desc.act = VKMOE_ACT_SILU;
    TRY(moe_layer_init(&t->layer, &desc));
    moe_graph_forward(&t->graph, &t->layer, false);
    TRY(moe_try_alloc(t->device->base.host, (n_matrix + 2 * n_rows) * sizeof *t->memory,
                      "a layer to time", &t->memory));
    for (size_t i = 0; i < n_matrix + n_rows; i++) // numbers in [-1, 1)
        t->memory[i] = (float) (int32_t) (uint32_t) (i * 2654435761u) * 0x1p-31f;
    t->io = vkmoe_io_init();
    t->io.x = t->memory + n_matrix;
    t->io.y = t->memory + n_matrix + n_rows;
    t->io.x_stride = t->io.y_stride = WIDTH * sizeof *t->memory;
fail:
    return status;
}

static enum vkmoe_status make_weights(struct tuning *t, struct candidate *c)
{
    const vkmoe_tensor matrix = {.data = t->memory, .type = VKMOE_F32};
    const vkmoe_router_tensors router = {.weight = matrix};
    vkmoe_expert_tensors experts[N_EXPERTS];
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        experts[e] = (vkmoe_expert_tensors){.gate = matrix, .up = matrix, .down = matrix};
    const struct moe_weights_source source = {.router = &router, .experts = experts};
    return moe_cpu_weights_create(c->device, &t->layer, &source, &c->weights);
}

static enum vkmoe_status candidate_init(struct tuning *t, struct candidate *c, const char *level)
{
    enum vkmoe_status status;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    const struct moe_program_params params = {.max_tokens = N_TOKENS, .budget_ms = 50};
    desc.cpu_isa = level;
    desc.n_threads = t->device->n_threads;
    TRY(moe_backend_cpu.open(t->device->base.host, &desc, 0, &c->device));
    TRY(make_weights(t, c));
    TRY(moe_cpu_program_create(c->device, &t->graph, &params, &c->program));
    TRY(moe_cpu_bind_create(c->program, c->weights, NULL, &c->bound));
    TRY(moe_cpu_run(c->bound, N_TOKENS, &t->io)); // a warm one
fail:
    return status;
}

static void candidate_finish(struct candidate *c)
{
    moe_cpu_bind_destroy(c->bound);
    moe_cpu_program_destroy(c->program);
    moe_cpu_weights_destroy(c->weights);
    if (c->device)
        moe_backend_cpu.close(c->device);
    *c = (struct candidate){0};
}

// ---- verdicts ----------------------------------------------------------------------------------

static int by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static enum vkmoe_status time_candidates(struct tuning *t)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t run = 0; run < N_RUNS; run++) {
        for (uint32_t i = 0; i < CPU_N_ISAS; i++) {
            struct candidate *c = &t->candidates[i];
            if (!c->device)
                continue;
            double begin = moe_seconds();
            TRY(moe_cpu_run(c->bound, N_TOKENS, &t->io));
            c->seconds[run] = moe_seconds() - begin;
        }
    }
    for (uint32_t i = 0; i < CPU_N_ISAS; i++) {
        struct candidate *c = &t->candidates[i];
        qsort(c->seconds, N_RUNS, sizeof *c->seconds, by_value);
        c->median = c->seconds[N_RUNS / 2];
    }
fail:
    return status;
}

// Unavailable if it is not there, else used.
static void begin(enum cpu_isa isa, uint32_t levels, vkmoe_tune_verdict *out)
{
    *out = (vkmoe_tune_verdict){.state = VKMOE_TUNE_USED};
    snprintf(out->kernel, sizeof out->kernel, "%s", moe_cpu_isa_name(isa));
    if (levels & 1u << isa)
        return;
    out->state = VKMOE_TUNE_UNAVAILABLE;
    snprintf(out->reason, sizeof out->reason,
             "it is not in this processor, not in this build, or the system lacks it");
}

// Is the level there? Then it gets its layer.
static enum vkmoe_status prepare(struct tuning *t, enum cpu_isa isa, uint32_t levels,
                                 vkmoe_tune_verdict *out)
{
    begin(isa, levels, out);
    if (out->state == VKMOE_TUNE_USED && !moe_cpu_allow(isa)) {
        out->state = VKMOE_TUNE_UNAVAILABLE;
        snprintf(out->reason, sizeof out->reason, "the system refuses it to this process");
    }
    if (out->state != VKMOE_TUNE_USED)
        return VKMOE_OK;
    return candidate_init(t, &t->candidates[isa], out->kernel);
}

// Is a level that is there right? Else it is not timed.
static enum vkmoe_status examine(struct tuning *t, enum cpu_isa isa, vkmoe_tune_verdict *out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct cpu_kernels kernels;
    bool ok;
    if (out->state != VKMOE_TUNE_USED)
        return VKMOE_OK;
    moe_cpu_kernels_init(&kernels, isa);
    TRY(moe_cpu_selftest(t->device->base.host, &kernels, &ok, out->reason, sizeof out->reason));
    if (!ok) {
        out->state = VKMOE_TUNE_BAD;
        candidate_finish(&t->candidates[isa]);
    }
fail:
    return status;
}

// Levels in ascending order: each has to beat the best one below it.
static void judge(const struct tuning *t, vkmoe_tune_verdict *verdicts)
{
    double base = 0;
    for (uint32_t i = 0; i < CPU_N_ISAS; i++) {
        vkmoe_tune_verdict *v = &verdicts[i];
        if (v->state != VKMOE_TUNE_USED)
            continue;
        v->seconds = t->candidates[i].median;
        v->base_seconds = base;
        if (base > 0 && v->seconds > worth * base) {
            v->state = VKMOE_TUNE_NOT_FASTER;
            snprintf(v->reason, sizeof v->reason, "%.1f us, without it %.1f us", v->seconds * 1e6,
                     base * 1e6);
            continue;
        }
        base = v->seconds;
    }
}

enum vkmoe_status moe_cpu_tune(struct moe_device *device, bool fresh, vkmoe_tune_verdict *out,
                               uint32_t *n)
{
    (void) fresh;
    enum vkmoe_status status = VKMOE_OK;
    const uint32_t room = *n;
    const struct cpu_id id = moe_cpu_id();
    const uint32_t levels = moe_cpu_levels(moe_cpu_features(&id));
    vkmoe_tune_verdict verdicts[CPU_N_ISAS];
    struct tuning *t = NULL;
    *n = CPU_N_ISAS;
    if (!out)
        return VKMOE_OK;
    TRY(moe_try_alloc(device->host, sizeof *t, "levels to time", &t));
    t->device = (const struct cpu_device *) device;
    TRY(make_layer(t));
    for (uint32_t i = 0; i < CPU_N_ISAS; i++)
        TRY(prepare(t, (enum cpu_isa) i, levels, &verdicts[i]));
    for (uint32_t i = 0; i < CPU_N_ISAS; i++)
        TRY(examine(t, (enum cpu_isa) i, &verdicts[i]));
    TRY(time_candidates(t));
    judge(t, verdicts);
    for (uint32_t i = 0; i < moe_min(room, CPU_N_ISAS); i++)
        out[i] = verdicts[CPU_N_ISAS - 1 - i];
fail:
    for (uint32_t i = 0; t && i < CPU_N_ISAS; i++)
        candidate_finish(&t->candidates[i]);
    moe_free(device->host, t ? t->memory : NULL);
    moe_free(device->host, t);
    return status;
}

// A context has a level and those below it.
enum vkmoe_status moe_cpu_kernels(struct moe_device *device, vkmoe_kernel_info *out, uint32_t *n)
{
    const struct cpu_id id = moe_cpu_id();
    const uint32_t levels = moe_cpu_levels(moe_cpu_features(&id));
    const enum cpu_isa own = ((const struct cpu_device *) device)->isa;
    const uint32_t room = *n;
    *n = CPU_N_ISAS;
    for (uint32_t i = 0; out && i < moe_min(room, CPU_N_ISAS); i++) {
        const enum cpu_isa isa = (enum cpu_isa)(CPU_N_ISAS - 1 - i);
        vkmoe_tune_verdict *v = &out[i].verdict;
        out[i] = (vkmoe_kernel_info){.kind = "instruction set"};
        begin(isa, levels, v);
        if (v->state != VKMOE_TUNE_USED || isa <= own)
            continue;
        const bool slower = !(moe_cpu_worthwhile(&id, levels) & 1u << isa);
        v->state = slower ? VKMOE_TUNE_NOT_FASTER : VKMOE_TUNE_DISABLED;
        snprintf(v->reason, sizeof v->reason, "%s; the context was opened with level %s",
                 slower ? "it is slower on this processor" : "it was not asked for",
                 moe_cpu_isa_name(own));
    }
    return VKMOE_OK;
}
