// SPDX-License-Identifier: MIT
#include "verify_run.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

bool verify_fail(struct verify_result *result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(result->reason, sizeof result->reason, format, args);
    va_end(args);
    result->outcome = VERIFY_FAILED;
    return false;
}

// ---- a layer on both sides ---------------------------------------------------------------------

enum vkmoe_status verify_upload(vkmoe_context *context, const struct verify_weights *data,
                                vkmoe_weights **out)
{
    vkmoe_weights_desc desc = vkmoe_weights_desc_init();
    desc.layer = &data->desc;
    desc.router = &data->router;
    desc.experts = data->experts;
    desc.shared = data->desc.d_shared_ff ? &data->shared : NULL;
    desc.adjugates = data->adjugates;
    desc.latent = data->desc.d_latent ? &data->latent : NULL;
    desc.out_bias = data->out_bias;
    return vkmoe_weights_create(context, &desc, out);
}

static enum vkmoe_status open_side(struct verify_side *side, vkmoe_context *context,
                                   const struct verify_weights *data, const vkmoe_plan_desc *plan)
{
    side->context = context;
    enum vkmoe_status status = vkmoe_plan_create(context, plan, &side->plan);
    if (status == VKMOE_OK)
        status = verify_upload(context, data, &side->weights);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(side->plan, side->weights, NULL, &side->bind);
    return status;
}

static void close_side(struct verify_side *side)
{
    vkmoe_bind_destroy(side->bind);
    vkmoe_plan_destroy(side->plan);
    vkmoe_weights_destroy(side->weights);
}

bool verify_open(const struct verify_session *session, const struct verify_case *c,
                 uint32_t max_tokens, struct verify_subject *out, struct verify_result *result)
{
    memset(out, 0, sizeof *out);
    memset(result, 0, sizeof *result);
    out->session = session;
    if (!verify_weights_create(c, session->seed, &out->data))
        return verify_fail(result, "no memory for the weights");
    vkmoe_plan_desc of_oracle = vkmoe_plan_desc_init();
    of_oracle.layer = &out->data.desc;
    of_oracle.max_tokens = max_tokens;
    vkmoe_plan_desc plan = of_oracle;
    of_oracle.scores = true;
    plan.scores = verify_scores(c);
    plan.x_type = verify_x_type(c);
    plan.precision = verify_precision(c);
    plan.variant = session->variant;
    enum vkmoe_status status = open_side(&out->device, session->device, &out->data, &plan);
    if (status != VKMOE_OK)
        verify_fail(result, "%s", vkmoe_error_text());
    else if (open_side(&out->oracle, session->oracle, &out->data, &of_oracle) != VKMOE_OK)
        verify_fail(result, "oracle: %s", vkmoe_error_text());
    else
        return true;
    if (status == VKMOE_E_UNSUPPORTED)
        result->outcome = VERIFY_SKIPPED;
    verify_close(out);
    return false;
}

void verify_close(struct verify_subject *subject)
{
    close_side(&subject->device);
    close_side(&subject->oracle);
    verify_weights_finish(&subject->data);
    memset(subject, 0, sizeof *subject);
}

// ---- one case ----------------------------------------------------------------------------------

struct job {
    struct verify_subject *subject;
    struct verify_result *result;
    uint32_t n_tokens;
    bool with_scores;
    enum vkmoe_dtype x_type;
    struct verify_rows x, router_x;
    int32_t *token_ids; // (n_tokens)
    struct verify_outputs got, again, want, control;
    double *bounds; // (n_tokens, n_experts + n_zero)
    bool *exempt;   // (n_tokens), of the first comparison
    bool *scratch;  // (n_tokens), of the others
};

static bool create_x(struct job *job, const struct verify_case *c)
{
    const size_t stride = job->subject->data.desc.d_model + (verify_padded(c) ? 5 : 0);
    const uint64_t seed = job->subject->session->seed;
    job->token_ids = calloc(job->n_tokens + 1, sizeof *job->token_ids);
    if (!job->token_ids || !verify_rows_create(job->x_type, job->n_tokens, stride, &job->x) ||
        !verify_rows_create(job->x_type, job->n_tokens, stride, &job->router_x))
        return false;
    verify_fill_x(c, seed, job->x.values, stride);
    verify_rows_store(&job->x);
    verify_fill_router_x(c, seed, job->router_x.values, stride);
    verify_rows_store(&job->router_x);
    verify_fill_token_ids(c, seed, job->token_ids);
    return true;
}

static bool create_job(struct job *job, const struct verify_case *c)
{
    const vkmoe_layer_desc *desc = &job->subject->data.desc;
    const struct verify_kind kind = {job->x_type, verify_precision(c)};
    const struct verify_kind exact = {VKMOE_F32, VKMOE_PRECISION_EXACT};
    bool padded = verify_padded(c);
    size_t n = job->n_tokens;
    job->bounds = calloc(n * (desc->n_experts + desc->n_zero) + 1, sizeof *job->bounds);
    job->exempt = calloc(2 * n + 1, sizeof *job->exempt);
    if (!create_x(job, c) || !job->bounds || !job->exempt ||
        !verify_outputs_create(desc, kind, job->n_tokens, padded, &job->got) ||
        !verify_outputs_create(desc, kind, job->n_tokens, padded, &job->again) ||
        !verify_outputs_create(desc, exact, job->n_tokens, false, &job->want) ||
        !verify_outputs_create(desc, exact, job->n_tokens, false, &job->control))
        return verify_fail(job->result, "no memory for the case");
    job->scratch = job->exempt + n;
    verify_score_bounds(&job->subject->data,
                        desc->router_input ? job->router_x.values : job->x.values, job->x.stride,
                        job->n_tokens, job->bounds);
    return true;
}

static void finish_job(struct job *job)
{
    verify_rows_finish(&job->x);
    verify_rows_finish(&job->router_x);
    free(job->token_ids);
    free(job->bounds);
    free(job->exempt);
    verify_outputs_finish(&job->got);
    verify_outputs_finish(&job->again);
    verify_outputs_finish(&job->want);
    verify_outputs_finish(&job->control);
}

// Runs n_tokens rows into poisoned outputs.
static bool run_bind(struct job *job, vkmoe_bind *bind, const char *name, uint32_t n_tokens,
                     bool y_only, bool with_scores, struct verify_outputs *out)
{
    verify_poison(out);
    vkmoe_io io = vkmoe_io_init();
    const vkmoe_layer_desc *layer = &job->subject->data.desc;
    const size_t size = out->kind.y_type == VKMOE_F32 ? 4 : 2; // of an element of x and y
    io.x = size == 4 ? job->x.values : job->x.stored;
    io.x_stride = job->x.stride * size;
    if (layer->router_input) {
        io.router_x = size == 4 ? job->router_x.values : job->router_x.stored;
        io.router_x_stride = io.x_stride;
    }
    io.token_ids = layer->select == VKMOE_SELECT_TABLE ? job->token_ids : NULL;
    io.y = out->stored_y;
    io.y_stride = out->y_stride * size;
    io.ids = y_only ? NULL : out->ids;
    io.gates = y_only ? NULL : out->gates;
    io.scores = with_scores ? out->scores : NULL;
    if (vkmoe_run(bind, n_tokens, &io) != VKMOE_OK)
        return verify_fail(job->result, "%s: %s", name, vkmoe_error_text());
    verify_read_y(out);
    const char *what;
    if (!verify_untouched(out, n_tokens, &what))
        return verify_fail(job->result, "%s: wrote to %s", name, what);
    return true;
}

static bool check_outputs(struct job *job)
{
    struct verify_subject *subject = job->subject;
    struct verify_verdict verdict;
    if (!run_bind(job, subject->oracle.bind, "oracle", job->n_tokens, false, true, &job->want) ||
        !run_bind(job, subject->device.bind, "run", job->n_tokens, false, job->with_scores,
                  &job->got))
        return false;
    verify_compare(&job->got, &job->want, job->n_tokens, job->bounds, job->with_scores,
                   job->exempt, &verdict);
    job->result->n_exempt = verdict.n_exempt;
    return !verdict.failed || verify_fail(job->result, "%s", verdict.text);
}

static bool check_repeat(struct job *job)
{
    if (!run_bind(job, job->subject->device.bind, "second run", job->n_tokens, true, false,
                  &job->again))
        return false;
    for (uint32_t t = 0; t < job->n_tokens; t++) {
        const float *a = job->got.y + t * job->got.y_stride;
        const float *b = job->again.y + t * job->again.y_stride;
        for (uint32_t i = 0; i < job->got.d_out; i++) {
            if (memcmp(&a[i], &b[i], sizeof *a) != 0)
                return verify_fail(job->result, "second run: row %u column %u is %.9g, was %.9g",
                            (unsigned) t, (unsigned) i, b[i], a[i]);
        }
    }
    return true;
}

// Half of a long batch takes the same path as the whole. With a capacity rows are not what they are
// alone.
enum { MAX_WHOLE = 64 };

static bool check_half(struct job *job)
{
    uint32_t n = job->n_tokens / 2;
    struct verify_verdict verdict;
    if (job->n_tokens > MAX_WHOLE ||
        job->subject->data.desc.capacity_mode != VKMOE_CAPACITY_NONE)
        return true;
    if (!run_bind(job, job->subject->device.bind, "half", n, false, job->with_scores, &job->again))
        return false;
    verify_compare(&job->again, &job->want, n, job->bounds, job->with_scores, job->scratch,
                   &verdict);
    return !verdict.failed || verify_fail(job->result, "first %u rows alone: %s", (unsigned) n,
                                   verdict.text);
}

// ---- negative controls -------------------------------------------------------------------------

#define IDS (1u << VERIFY_CHECK_IDS)
#define GATES (1u << VERIFY_CHECK_GATES)
#define Y (1u << VERIFY_CHECK_Y)
#define SCORES (1u << VERIFY_CHECK_SCORES)

// In the order they are tried, and the checks each stands for.
static const struct {
    enum verify_perturbation perturbation;
    uint32_t checks;
} controls[] = {
    {VERIFY_SWAP_DOWN, Y},
    {VERIFY_SWAP_UP, Y},
    {VERIFY_NEGATE_UP, Y},
    {VERIFY_NEGATE_DOWN, Y},
    {VERIFY_SWAP_ROUTER, IDS | SCORES | Y},
    {VERIFY_NEGATE_ROUTER, IDS | SCORES | GATES | Y},
};

static const char *const check_names[] = {
    [VERIFY_CHECK_IDS] = "ids",
    [VERIFY_CHECK_GATES] = "gates",
    [VERIFY_CHECK_Y] = "y",
    [VERIFY_CHECK_SCORES] = "scores",
};

uint32_t verify_choose_expert(const struct verify_outputs *want, const bool *exempt,
                              uint32_t attempt)
{
    uint32_t expert = 0;
    for (size_t slot = 0; slot < (size_t) want->n_tokens * want->top_k; slot++) {
        const size_t t = slot / want->top_k;
        // Unused slots and identity experts have no weights.
        if (exempt[t] || !isfinite(want->y[t * want->y_stride]) ||
            (uint32_t) want->ids[slot] >= want->n_real)
            continue;
        expert = (uint32_t) want->ids[slot];
        if (attempt-- == 0)
            return expert;
    }
    return (expert + attempt + 1) % want->n_real;
}

// The oracle on perturbed weights, into job->control. *exists: the layer has such rows.
static bool run_perturbed(struct job *job, enum verify_perturbation perturbation, uint32_t attempt,
                          bool *exists)
{
    struct verify_subject *subject = job->subject;
    struct verify_side *oracle = &subject->oracle;
    vkmoe_weights *weights = NULL;
    vkmoe_bind *bind = NULL;
    uint32_t expert = verify_choose_expert(&job->want, job->exempt, attempt);
    *exists = verify_perturb(&subject->data, perturbation, expert, attempt);
    if (!*exists)
        return true;
    enum vkmoe_status status = verify_upload(oracle->context, &subject->data, &weights);
    verify_perturb(&subject->data, perturbation, expert, attempt); // back
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(oracle->plan, weights, NULL, &bind);
    bool ok = status == VKMOE_OK ? run_bind(job, bind, "control", job->n_tokens, false, true,
                                            &job->control)
                                 : verify_fail(job->result, "control: %s", vkmoe_error_text());
    vkmoe_bind_destroy(bind);
    vkmoe_weights_destroy(weights);
    return ok;
}

// What the controls have shown so far, bits of checks.
struct shown {
    uint32_t open;  // still to fail
    uint32_t moved; // the oracle's own output is not what it was
};

// Tries the perturbations of all open checks, on the expert and row that `attempt` stands for.
static bool try_controls(struct job *job, uint32_t attempt, struct shown *shown)
{
    for (size_t i = 0; i < sizeof controls / sizeof *controls; i++) {
        struct verify_verdict device, oracle;
        uint32_t checks = controls[i].checks & shown->open;
        bool exists = false;
        if (!checks)
            continue;
        if (!run_perturbed(job, controls[i].perturbation, attempt, &exists))
            return false;
        if (!exists)
            continue;
        verify_compare(&job->got, &job->control, job->n_tokens, job->bounds, job->with_scores,
                       job->scratch, &device);
        verify_compare(&job->want, &job->control, job->n_tokens, job->bounds, true, job->scratch,
                       &oracle);
        shown->moved |= oracle.changed & checks;
        shown->open &= ~(device.failed & checks);
    }
    return true;
}

// Every check must fail for one of its perturbations. A row may happen to matter too little (an
// output that relu cuts off, a logit near zero), then another is tried. Where none of them moves
// the oracle's own output by a single bit (the gate weight of the only expert is 1 whatever the
// weights) there is nothing to see; that cannot be so for y.
static bool check_controls(struct job *job)
{
    enum { MAX_ATTEMPTS = 4 };
    struct shown shown = {.open = IDS | GATES | Y | (job->with_scores ? SCORES : 0)};
    for (uint32_t attempt = 0; attempt < MAX_ATTEMPTS && shown.open; attempt++) {
        if (!try_controls(job, attempt, &shown))
            return false;
    }
    for (uint32_t check = 0; check < VERIFY_N_CHECKS; check++) {
        uint32_t bit = 1u << check;
        if ((shown.open & bit) && (bit == Y || (shown.moved & bit)))
            return verify_fail(job->result, "check of %s cannot fail: it passes on other weights",
                        check_names[check]);
    }
    job->result->uncontrolled = shown.open;
    return true;
}

void verify_run(struct verify_subject *subject, const struct verify_case *c,
                struct verify_result *result)
{
    struct job job = {
        .subject = subject,
        .result = result,
        .n_tokens = verify_tokens(c),
        .with_scores = verify_scores(c),
        .x_type = verify_x_type(c),
    };
    memset(result, 0, sizeof *result);
    uint32_t all = IDS | GATES | Y | (job.with_scores ? SCORES : 0);
    result->uncontrolled = job.n_tokens == 0 ? all : 0;
    if (create_job(&job, c) && check_outputs(&job) && check_repeat(&job) && check_half(&job) &&
        job.n_tokens > 0)
        check_controls(&job);
    finish_job(&job);
}
