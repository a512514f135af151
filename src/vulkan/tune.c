// SPDX-License-Identifier: MIT
// Which kernel variants are worth their place on this device: each one's self-test, then a small
// layer timed with it and with what would be used without it, in turn: A B A B ...
//
// The layer is of the precision and the types that the variant is for. It is timed with the tokens
// of a decode step, of a small batch and of a large one, where the two have other kernels; the
// geometric means of the medians are what is compared. There are fewer rounds, or the large batches
// are left out, where all of it would take longer than PROBE_NS. Times are the device's own: where
// its queue has no timestamps nothing is timed, and what the self-test says stands.

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"
#include "vulkan/bind.h"
#include "vulkan/measure.h"
#include "vulkan/net.h"

enum {
    N_EXPERTS = 8,
    TOP_K = 2,
    WIDTH = 512,          // d_model and d_ff
    SOFTWARE_WIDTH = 64,  // where a processor computes it
    LEAST_ROUNDS = 3,
};

// For the times of all variants together; making pipelines comes on top.
static const double PROBE_NS = 0.8e9;
#define SHARE_NS (PROBE_NS / (MOE_VK_N_VARIANTS - 1)) // a0 has nothing to beat

static const uint32_t token_counts[] = {1, 16, 256};
enum { N_COUNTS = sizeof token_counts / sizeof *token_counts, MAX_TOKENS = 256 };

struct side { // of a comparison
    struct moe_program *program;
    struct moe_bound *bound;
};

struct probe {
    struct moe_vk *vk;
    struct moe_layer layer;
    struct moe_graph graph;
    struct moe_program_params params;
    struct moe_packed_weights *weights;
    struct side sides[2]; // the variant, and what is used without it
    double end_ns;        // when the times should be there
    double round_ns;      // of the last number of tokens; 0: none yet
    float *values;        // of every matrix, and x
    void *x, *y;          // of the input's type
};

// The lowest of some bits.
static int lowest(uint32_t bits)
{
    int i = 0;
    while (!(bits & MOE_VK_BIT(i)))
        i++;
    return i;
}

// ---- the layer ---------------------------------------------------------------------------------

static enum vkmoe_status describe(struct probe *p, const struct moe_vk_variant *variant)
{
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    enum vkmoe_device_type type = p->vk->base.info.type;
    desc.n_experts = N_EXPERTS;
    desc.top_k = TOP_K;
    desc.d_model = desc.d_ff = desc.d_out =
        type == VKMOE_DEVICE_SOFTWARE || type == VKMOE_DEVICE_CPU ? SOFTWARE_WIDTH : WIDTH;
    desc.in_type = desc.out_type = variant->types & MOE_VK_BIT(VKMOE_F16)
                                       ? VKMOE_F16
                                       : (enum vkmoe_dtype) lowest(variant->types);
    desc.gated = true;
    desc.act = VKMOE_ACT_SILU;
    p->params = (struct moe_program_params){
        .max_tokens = MAX_TOKENS,
        .precision = (enum vkmoe_precision) lowest(variant->precisions),
        .x_type = (enum vkmoe_dtype) lowest(variant->inputs),
        .budget_ms = 50,
    };
    enum vkmoe_status status = moe_layer_init(&p->layer, &desc);
    moe_graph_forward(&p->graph, &p->layer, false);
    return status;
}

// Between -1/16 and 1/16, so that every tile of the routing is as good as random.
static void fill(float *values, size_t n)
{
    uint32_t random = 1;
    for (size_t i = 0; i < n; i++) {
        random = random * 1664525u + 1013904223u;
        values[i] = (float) (int32_t) random * 0x1p-35f;
    }
}

static enum vkmoe_status create_weights(struct probe *p)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_host *host = p->vk->base.host;
    size_t width = p->layer.desc.d_model;
    size_t n = moe_max(width * width, MAX_TOKENS * width);
    size_t x_size = (size_t) moe_dtype_size(p->params.x_type, MAX_TOKENS * (uint32_t) width);
    TRY(moe_try_alloc(host, n * sizeof *p->values, "tune: weights", &p->values));
    TRY(moe_try_alloc(host, x_size, "tune: rows", &p->x));
    TRY(moe_try_alloc(host, x_size, "tune: results", &p->y));
    fill(p->values, n);
    moe_dtype_encode(p->params.x_type, p->values, MAX_TOKENS * width, p->x);

    vkmoe_router_tensors router = {.weight = {.data = p->values, .type = VKMOE_F32}};
    vkmoe_expert_tensors experts[N_EXPERTS];
    for (int e = 0; e < N_EXPERTS; e++) // memory of their own on the device
        experts[e] = (vkmoe_expert_tensors){.gate = {.data = p->values, .type = VKMOE_F32},
                                            .up = {.data = p->values, .type = VKMOE_F32},
                                            .down = {.data = p->values, .type = VKMOE_F32}};
    struct moe_weights_source source = {.router = &router, .experts = experts};
    TRY(moe_vk_weights_create(&p->vk->base, &p->layer, &source, &p->weights));

fail:
    return status;
}

// A variant whose pipeline cannot be made is bad, as it is for plans; *made then is false.
static enum vkmoe_status create_side(struct probe *p, const struct moe_vk_variant *variant,
                                     struct side *side, bool *made)
{
    enum vkmoe_status status;
    bool own;
    *made = false;
    status = moe_vk_program_make(p->vk, &p->graph, &p->params, variant, true,
                                 &side->program, &own);
    if (status == VKMOE_E_DEVICE && own && variant->id != MOE_VK_A0) {
        moe_vk_condemn(p->vk, variant, MOE_VK_NO_PIPELINE);
        return VKMOE_OK;
    }
    TRY(status);
    TRY(moe_vk_bind_create(side->program, p->weights, NULL, &side->bound));
    *made = true;

fail:
    return status;
}

static void finish(struct probe *p)
{
    const vkmoe_host *host = p->vk->base.host;
    for (int i = 0; i < 2; i++) {
        if (p->sides[i].bound)
            moe_vk_bind_destroy(p->sides[i].bound);
        if (p->sides[i].program)
            moe_vk_program_destroy(p->sides[i].program);
    }
    if (p->weights)
        moe_vk_weights_destroy(p->weights);
    moe_free(host, p->y);
    moe_free(host, p->x);
    moe_free(host, p->values);
}

// ---- times -------------------------------------------------------------------------------------

static int by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

uint32_t moe_vk_probe_rounds(double round_ns, double left_ns, bool first)
{
    double n = round_ns > 0 ? left_ns / round_ns : MOE_VK_PROBE_ROUNDS;
    if (n >= MOE_VK_PROBE_ROUNDS)
        return MOE_VK_PROBE_ROUNDS;
    if (n >= LEAST_ROUNDS)
        return (uint32_t) n;
    return first ? LEAST_ROUNDS : 0;
}

// Runs in turn, and the median seconds of each side's: zeros if there is no time for it in left_ns,
// but for the first. More tokens take longer than fewer did.
static enum vkmoe_status time_both(struct probe *p, uint32_t n_tokens, double left_ns,
                                   double medians[2])
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_bound *const bounds[2] = {p->sides[0].bound, p->sides[1].bound};
    double seconds[2 * MOE_VK_PROBE_ROUNDS], begin_ns = moe_vk_now_ns();
    bool first = p->round_ns == 0;
    size_t row = (size_t) moe_dtype_size(p->params.x_type, p->layer.desc.d_model);
    vkmoe_io ios[2];
    medians[0] = medians[1] = 0;
    if (moe_vk_probe_rounds(p->round_ns, left_ns - p->round_ns, first) == 0)
        return VKMOE_OK;
    for (int i = 0; i < 2; i++) {
        ios[i] = vkmoe_io_init();
        ios[i].x = p->x;
        ios[i].y = p->y;
        ios[i].x_stride = ios[i].y_stride = row;
    }
    TRY(moe_vk_time_runs(bounds, ios, 2, n_tokens, 2, seconds)); // what is slower at first
    p->round_ns = moe_vk_now_ns() - begin_ns;
    uint32_t n = moe_vk_probe_rounds(p->round_ns, left_ns - p->round_ns, first);
    if (n == 0)
        return VKMOE_OK;
    TRY(moe_vk_time_runs(bounds, ios, 2, n_tokens, 2 * n, seconds));
    for (int i = 0; i < 2; i++) {
        double own[MOE_VK_PROBE_ROUNDS];
        for (uint32_t round = 0; round < n; round++)
            own[round] = seconds[2 * round + (uint32_t) i];
        qsort(own, n, sizeof own[0], by_value);
        medians[i] = own[n / 2];
    }

fail:
    return status;
}

// Do the sides have other kernels for so many tokens?
static bool differ(const struct probe *p, uint32_t n_tokens)
{
    enum moe_vk_regime regime = moe_vk_choose_regime(n_tokens);
    const struct moe_vk_sequence *a, *b;
    a = moe_vk_sequence_of((struct moe_vk_bound *) p->sides[0].bound, regime);
    b = moe_vk_sequence_of((struct moe_vk_bound *) p->sides[1].bound, regime);
    if (a->n != b->n)
        return true;
    for (uint32_t i = 0; i < a->n; i++)
        if (a->dispatches[i].pipeline != b->dispatches[i].pipeline)
            return true;
    return false;
}

// Geometric means over the numbers of tokens where they differ.
static enum vkmoe_status time_all(struct probe *p, double means[2])
{
    enum vkmoe_status status = VKMOE_OK;
    double logs[2] = {0, 0};
    int n = 0;
    for (int i = 0; i < N_COUNTS; i++) {
        double medians[2], left_ns = (p->end_ns - moe_vk_now_ns()) / (N_COUNTS - i);
        if (!differ(p, token_counts[i]))
            continue;
        TRY(time_both(p, token_counts[i], left_ns, medians));
        if (!(medians[0] > 0 && medians[1] > 0)) // no time for it, or less than a tick
            continue;
        logs[0] += log(medians[0]);
        logs[1] += log(medians[1]);
        n++;
    }
    for (int i = 0; i < 2; i++)
        means[i] = n > 0 ? exp(logs[i] / n) : 0;

fail:
    return status;
}

// The layer of a probe; NULL for a network.
static const vkmoe_layer_desc *layer_of(const struct probe *p, const struct moe_vk_variant *variant)
{
    return variant->nets ? NULL : &p->layer.desc;
}

// Zeros where a side could not be made.
static enum vkmoe_status time_layer(struct probe *p, const struct moe_vk_variant *variant,
                                    const struct moe_vk_variant *base, double means[2])
{
    enum vkmoe_status status = VKMOE_OK;
    bool made;
    means[0] = means[1] = 0;
    TRY(create_weights(p));
    TRY(create_side(p, base, &p->sides[1], &made));
    if (made)
        TRY(create_side(p, variant, &p->sides[0], &made));
    p->end_ns = moe_vk_now_ns() + SHARE_NS;
    if (made)
        TRY(time_all(p, means));

fail:
    return status;
}

// Times a good variant, where there are timestamps, and lets the verdict know.
static enum vkmoe_status time_variant(struct moe_vk *vk, const struct moe_vk_variant *variant)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk_variant *base;
    struct probe p = {.vk = vk};
    double means[2];
    TRY(describe(&p, variant));
    TRY(moe_vk_choose_without(vk, layer_of(&p, variant), &p.params, variant, &base));
    status = variant->nets
                 ? moe_vk_net_probe(vk, variant, base, SHARE_NS, means)
                 : time_layer(&p, variant, base, means);
    if (status == VKMOE_OK && means[0] > 0)
        moe_vk_set_times(vk, variant, means[0], means[1]);
    if (status == VKMOE_E_UNSUPPORTED) // there are no timestamps
        status = VKMOE_OK;

fail:
    finish(&p);
    return status;
}

// Fails only if the device is lost: what cannot be timed is used as it was.
enum vkmoe_status moe_vk_probe(struct moe_vk *vk, const struct moe_vk_variant *variant)
{
    if (variant->id == MOE_VK_A0 || !vk->probes || !moe_vk_begin_probe(vk, variant->id))
        return VKMOE_OK;
    moe_trace(vk->base.host, "vkmoe probe", true);
    enum vkmoe_status status = time_variant(vk, variant);
    moe_trace(vk->base.host, "vkmoe probe", false);
    if (status == VKMOE_OK || status == VKMOE_E_DEVICE_LOST)
        return status;
    moe_log(vk->base.host, VKMOE_LOG_WARN, "variant '%s' is not timed on %s: %s", variant->name,
            vk->base.info.name, vkmoe_error_text());
    return VKMOE_OK;
}

// ---- verdicts ----------------------------------------------------------------------------------

// Why a variant that no obstacle keeps away is not used, or not yet.
static void explain(struct moe_vk *vk, const struct moe_vk_variant *variant,
                    struct moe_vk_verdict verdict, char *out, size_t size)
{
    const char *link = moe_vk_known_bad(&vk->caps, variant->id);
    if (verdict.cause == MOE_VK_LISTED && link)
        snprintf(out, size, "%s: %s", moe_vk_verdict_text(vk, variant->id), link);
    else if (verdict.cause == MOE_VK_SLOWER)
        snprintf(out, size, "%s: %.1f us, and %.1f us without",
                 moe_vk_verdict_text(vk, variant->id), 1e6 * verdict.seconds,
                 1e6 * verdict.base_seconds);
    else if (verdict.cause != MOE_VK_NO_CAUSE)
        snprintf(out, size, "%s", moe_vk_verdict_text(vk, variant->id));
    else if (verdict.state == MOE_VK_TRYING)
        snprintf(out, size, "an earlier process ended in its self-test; it gets another");
    else
        snprintf(out, size, "no plan has asked for it yet");
}

static enum vkmoe_tune_state state_of(const struct moe_vk *vk, struct moe_vk_verdict verdict)
{
    bool undecided = verdict.cause == MOE_VK_UNTESTABLE || verdict.cause == MOE_VK_BUSY;
    if (verdict.state == MOE_VK_NOT_FASTER)
        return VKMOE_TUNE_NOT_FASTER;
    if (verdict.cause != MOE_VK_NO_CAUSE)
        return undecided ? VKMOE_TUNE_UNAVAILABLE : VKMOE_TUNE_BAD;
    // Without a queue there are no tests.
    return verdict.state == MOE_VK_GOOD || !vk->queue ? VKMOE_TUNE_USED : VKMOE_TUNE_UNTESTED;
}

static void report(struct moe_vk *vk, const struct moe_vk_variant *variant,
                   vkmoe_tune_verdict *out)
{
    struct moe_vk_verdict verdict = moe_vk_known(vk, variant->id);
    out->seconds = verdict.seconds;
    out->base_seconds = verdict.base_seconds;
    out->state = state_of(vk, verdict);
    if (out->state != VKMOE_TUNE_USED)
        explain(vk, variant, verdict, out->reason, sizeof out->reason);
    const char *doubt = moe_vk_doubt(variant, &vk->caps);
    bool in_doubt = out->state == VKMOE_TUNE_USED || out->state == VKMOE_TUNE_UNTESTED;
    if (in_doubt && doubt && verdict.seconds <= 0) {
        out->state = VKMOE_TUNE_UNTESTED;
        snprintf(out->reason, sizeof out->reason, "%s: only times that show it faster let it in",
                 doubt);
    }
}

// Begins a verdict; true: nothing keeps the variant away, and what is known of it decides.
static enum vkmoe_status begin(struct moe_vk *vk, const struct moe_vk_variant *variant,
                               vkmoe_tune_verdict *out, bool *open)
{
    struct probe p = {.vk = vk};
    char why[160];
    *open = false;
    *out = (vkmoe_tune_verdict){.state = VKMOE_TUNE_USED};
    snprintf(out->kernel, sizeof out->kernel, "%s", variant->name);
    if (variant->id == MOE_VK_A0) // what is always there
        return VKMOE_OK;
    enum vkmoe_status status = describe(&p, variant);
    if (status != VKMOE_OK)
        return status;
    const vkmoe_layer_desc *layer = layer_of(&p, variant);
    struct moe_vk_obstacle obstacle = moe_vk_obstacle(variant, &vk->caps, layer, &p.params);
    *open = !moe_vk_why_not(variant, &vk->caps, layer, &p.params, why);
    if (!*open) {
        out->state = obstacle.kind == MOE_VK_DISABLED ? VKMOE_TUNE_DISABLED
                                                      : VKMOE_TUNE_UNAVAILABLE;
        snprintf(out->reason, sizeof out->reason, "%s", why);
        return VKMOE_OK;
    }
    struct moe_vk_verdict before = moe_vk_recall(vk, variant->id);
    out->cached = (before.state == MOE_VK_BAD && before.cause != MOE_VK_LISTED) ||
                  before.seconds > 0;
    return VKMOE_OK;
}

static enum vkmoe_status tune(struct moe_vk *vk, const struct moe_vk_variant *variant,
                              vkmoe_tune_verdict *out)
{
    enum vkmoe_status status = VKMOE_OK;
    bool open, good;
    TRY(begin(vk, variant, out, &open));
    if (!open)
        return VKMOE_OK;
    TRY(moe_vk_judge(vk, variant, &good));
    if (good && !out->cached)
        TRY(time_variant(vk, variant));
    report(vk, variant, out);

fail:
    return status;
}

enum vkmoe_status moe_vk_kernels(struct moe_device *device, vkmoe_kernel_info *out, uint32_t *n)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(device);
    uint32_t room = *n;
    *n = MOE_VK_N_VARIANTS;
    for (uint32_t i = 0; out && i < room && i < MOE_VK_N_VARIANTS; i++) {
        const struct moe_vk_variant *variant = &moe_vk_variants[i];
        bool open;
        out[i] = (vkmoe_kernel_info){0};
        snprintf(out[i].kind, sizeof out[i].kind, "%s", variant->kind);
        moe_vk_computes(variant, out[i].computes);
        TRY(begin(vk, variant, &out[i].verdict, &open));
        if (open)
            report(vk, variant, &out[i].verdict);
    }

fail:
    return status;
}

enum vkmoe_status moe_vk_tune(struct moe_device *device, bool fresh, vkmoe_tune_verdict *out,
                              uint32_t *n)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(device);
    vkmoe_tune_verdict verdicts[MOE_VK_N_VARIANTS];
    uint32_t room = *n;
    if (!vk->queue)
        return moe_fail(VKMOE_E_UNSUPPORTED, "vkmoe_tune: this context only records");
    *n = MOE_VK_N_VARIANTS;
    if (!out)
        return VKMOE_OK;
    if (fresh)
        moe_vk_forget(vk);
    for (int i = MOE_VK_N_VARIANTS; i-- > 0;) // the better ones have to beat the others
        TRY(tune(vk, &moe_vk_variants[i], &verdicts[i]));
    for (uint32_t i = 0; i < room && i < MOE_VK_N_VARIANTS; i++)
        out[i] = verdicts[i];

fail:
    return status;
}
