// SPDX-License-Identifier: MIT
#include "verify_backward.h"

#include "verify_gradients.h"

#include <math.h>
#include <stdlib.h>

struct job {
    struct verify_subject *subject;
    struct verify_result *result;
    uint32_t n_tokens;
    bool with_scores;
    struct verify_rows x, dy;
    struct verify_outputs y_got, y_want; // all outputs of the forward pass
    struct verify_gradients got, again, want, control;
    double *bounds; // of scores (n_tokens, n_experts)
    bool *close;    // (n_tokens) rows with two experts too close to tell
    bool *exempt;   // (n_tokens)
};

static bool create_job(struct job *job, const struct verify_case *c)
{
    const vkmoe_layer_desc *desc = &job->subject->data.desc;
    const enum vkmoe_dtype type = verify_x_type(c);
    const struct verify_kind kind = {type, VKMOE_PRECISION_EXACT};
    const struct verify_kind exact = {VKMOE_F32, VKMOE_PRECISION_EXACT};
    const uint64_t seed = job->subject->session->seed;
    const bool padded = verify_padded(c);
    const uint32_t n = job->n_tokens;
    job->bounds = calloc((size_t) n * desc->n_experts, sizeof *job->bounds);
    job->close = calloc(2 * (size_t) n, sizeof *job->close);
    if (!job->bounds || !job->close ||
        !verify_rows_create(type, n, desc->d_model + (padded ? 5 : 0), &job->x) ||
        !verify_rows_create(type, n, desc->d_out + (padded ? 1 : 0), &job->dy) ||
        !verify_outputs_create(desc, kind, n, padded, &job->y_got) ||
        !verify_outputs_create(desc, exact, n, false, &job->y_want) ||
        !verify_gradients_create(desc, type, n, padded, &job->got) ||
        !verify_gradients_create(desc, type, n, padded, &job->again) ||
        !verify_gradients_create(desc, VKMOE_F32, n, false, &job->want) ||
        !verify_gradients_create(desc, VKMOE_F32, n, false, &job->control))
        return verify_fail(job->result, "no memory for the case");
    job->exempt = job->close + n;
    verify_fill_x(c, seed, job->x.values, job->x.stride);
    verify_rows_store(&job->x);
    verify_fill_dy(c, seed, job->dy.values, job->dy.stride);
    verify_score_bounds(&job->subject->data, job->x.values, job->x.stride, n, job->bounds);
    return true;
}

static void finish_job(struct job *job)
{
    verify_rows_finish(&job->x);
    verify_rows_finish(&job->dy);
    free(job->bounds);
    free(job->close);
    verify_outputs_finish(&job->y_got);
    verify_outputs_finish(&job->y_want);
    verify_gradients_finish(&job->got);
    verify_gradients_finish(&job->again);
    verify_gradients_finish(&job->want);
    verify_gradients_finish(&job->control);
}

// ---- runs --------------------------------------------------------------------------------------

static vkmoe_io make_io(const struct job *job, enum vkmoe_dtype type, struct verify_outputs *out,
                        bool with_scores)
{
    const size_t size = type == VKMOE_F32 ? 4 : 2;
    vkmoe_io io = vkmoe_io_init();
    io.x = type == VKMOE_F32 ? job->x.values : job->x.stored;
    io.x_stride = job->x.stride * size;
    if (!out)
        return io;
    io.y = out->stored_y;
    io.y_stride = out->y_stride * size;
    io.ids = out->ids;
    io.gates = out->gates;
    io.scores = with_scores ? out->scores : NULL;
    return io;
}

// Gradients into `out`, whose dx is poisoned before; outputs too, where `outputs` is not NULL.
static bool run_backward(struct job *job, vkmoe_bind *bind, const char *name, bool accumulate,
                         struct verify_outputs *outputs, struct verify_gradients *out)
{
    const size_t size = out->x_type == VKMOE_F32 ? 4 : 2;
    const bool has_shared = job->subject->data.desc.d_shared_ff > 0;
    vkmoe_io io = make_io(job, out->x_type, outputs, job->with_scores);
    vkmoe_backward_io grads = vkmoe_backward_io_init();
    uint32_t what;
    verify_gradients_poison_dx(out);
    grads.dy = out->x_type == VKMOE_F32 ? job->dy.values : job->dy.stored;
    grads.dy_stride = job->dy.stride * size;
    grads.dx = out->stored_dx;
    grads.dx_stride = out->tensors[VERIFY_GRAD_DX].stride * size;
    grads.router = &out->router;
    grads.experts = out->experts;
    grads.shared = has_shared ? &out->shared : NULL;
    grads.accumulate = accumulate;
    if (vkmoe_backward(bind, job->n_tokens, &io, &grads) != VKMOE_OK)
        return verify_fail(job->result, "%s: %s", name, vkmoe_error_text());
    verify_gradients_read_dx(out);
    if (!verify_gradients_untouched(out, &what))
        return verify_fail(job->result, "%s: wrote behind the gradient of %s", name,
                           verify_gradient_name(what));
    return true;
}

// ---- the oracle --------------------------------------------------------------------------------

// Is a selected expert's score within the bounds of one that is not selected?
static bool is_close(const struct job *job, uint32_t t)
{
    const struct verify_outputs *want = &job->y_want;
    const uint32_t n = want->n_experts;
    const float *scores = want->scores + (size_t) t * n;
    const double *bounds = job->bounds + (size_t) t * n;
    bool selected[1024] = {false}; // as many experts as a layer can have
    double lowest = INFINITY, highest = -INFINITY;
    for (uint32_t k = 0; k < want->top_k; k++)
        selected[want->ids[(size_t) t * want->top_k + k]] = true;
    for (uint32_t e = 0; e < n; e++) {
        if (selected[e])
            lowest = fmin(lowest, (double) scores[e] - bounds[e]);
        else
            highest = fmax(highest, (double) scores[e] + bounds[e]);
    }
    return lowest <= highest;
}

// Outputs, then gradients for a dy that leaves close rows out.
static bool run_oracle(struct job *job)
{
    vkmoe_bind *bind = job->subject->oracle.bind;
    vkmoe_io io = make_io(job, VKMOE_F32, &job->y_want, true);
    if (vkmoe_run(bind, job->n_tokens, &io) != VKMOE_OK)
        return verify_fail(job->result, "oracle: %s", vkmoe_error_text());
    for (uint32_t t = 0; t < job->n_tokens; t++) {
        job->close[t] = is_close(job, t);
        for (uint32_t i = 0; job->close[t] && i < job->y_want.d_out; i++)
            job->dy.values[t * job->dy.stride + i] = 0;
    }
    verify_rows_store(&job->dy);
    return run_backward(job, bind, "oracle", false, NULL, &job->want);
}

// ---- the device --------------------------------------------------------------------------------

static bool check_unused(struct job *job)
{
    bool used[1024] = {false};
    const size_t n_slots = (size_t) job->n_tokens * job->y_want.top_k;
    for (size_t i = 0; i < n_slots; i++)
        used[job->y_want.ids[i]] = used[job->y_got.ids[i]] = true;
    for (uint32_t e = 0; e < job->y_want.n_experts; e++) {
        if (!used[e] && !verify_gradients_none(&job->got, e))
            return verify_fail(job->result, "expert %u has no token, but a gradient",
                               (unsigned) e);
    }
    return true;
}

static bool check_gradients(struct job *job)
{
    struct verify_verdict verdict;
    if (!run_backward(job, job->subject->device.bind, "backward", false, &job->y_got, &job->got))
        return false;
    verify_read_y(&job->y_got);
    const char *what;
    if (!verify_untouched(&job->y_got, job->n_tokens, &what))
        return verify_fail(job->result, "backward: wrote to %s", what);
    verify_compare(&job->y_got, &job->y_want, job->n_tokens, job->bounds, job->with_scores,
                   job->exempt, &verdict);
    job->result->n_exempt = verdict.n_exempt;
    if (verdict.failed)
        return verify_fail(job->result, "%s", verdict.text);
    verify_gradients_compare(&job->got, &job->want, &verdict);
    return verdict.failed ? verify_fail(job->result, "%s", verdict.text) : check_unused(job);
}

// g + g has no error. So the second run shows that gradients are added, and that they are the same
// bits again.
static bool check_repeat(struct job *job)
{
    memcpy(job->again.values, job->got.values, job->got.n_values * sizeof(float));
    if (!run_backward(job, job->subject->device.bind, "second run", true, NULL, &job->again))
        return false;
    for (uint32_t i = 0; i < VERIFY_N_GRADS; i++) {
        const struct verify_grad *once = &job->got.tensors[i], *twice = &job->again.tensors[i];
        const float factor = i == VERIFY_GRAD_DX ? 1 : 2;
        for (size_t k = 0; once->data && k < once->n_rows * once->stride; k++) {
            if (twice->data[k] != factor * once->data[k] &&
                !(isnan(once->data[k]) && isnan(twice->data[k])))
                return verify_fail(job->result, "second run: gradient of %s is %.9g, was %.9g",
                                   verify_gradient_name(i), (double) twice->data[k],
                                   (double) once->data[k]);
        }
    }
    return true;
}

// ---- negative controls -------------------------------------------------------------------------

// Negates row `attempt` of dy: gradients are linear in dy.
static void negate_dy(struct job *job, uint32_t attempt)
{
    float *row = job->dy.values + attempt % job->n_tokens * job->dy.stride;
    for (uint32_t i = 0; i < job->y_want.d_out; i++)
        row[i] = -row[i];
}

static bool run_negated(struct job *job, uint32_t attempt)
{
    negate_dy(job, attempt);
    bool ok = run_backward(job, job->subject->oracle.bind, "control", false, NULL, &job->control);
    negate_dy(job, attempt); // back
    return ok;
}

static bool run_perturbed(struct job *job, enum verify_perturbation perturbation, uint32_t attempt)
{
    struct verify_subject *subject = job->subject;
    vkmoe_weights *weights = NULL;
    vkmoe_bind *bind = NULL;
    uint32_t expert = verify_choose_expert(&job->y_want, job->close, attempt);
    verify_perturb(&subject->data, perturbation, expert, attempt);
    enum vkmoe_status status = verify_upload(subject->oracle.context, &subject->data, &weights);
    verify_perturb(&subject->data, perturbation, expert, attempt); // back
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(subject->oracle.plan, weights, NULL, &bind);
    bool ok = status == VKMOE_OK ? run_backward(job, bind, "control", false, NULL, &job->control)
                                 : verify_fail(job->result, "control: %s", vkmoe_error_text());
    vkmoe_bind_destroy(bind);
    vkmoe_weights_destroy(weights);
    return ok;
}

// Every check must fail for a changed row of W_up, W_down or dy, but where the gradient is nothing
// beside the others: that of a router whose only gate weight is 1 is 0 whatever there is, and one
// expert may have nearly all the weight.
static bool check_controls(struct job *job)
{
    enum { MAX_ATTEMPTS = 4, N_WAYS = 3 };
    struct verify_verdict verdict;
    uint32_t open = ((1u << VERIFY_N_GRADS) - 1) & ~verify_gradients_nothing(&job->want);
    for (uint32_t i = 0; i < MAX_ATTEMPTS * N_WAYS && open; i++) {
        const uint32_t attempt = i / N_WAYS, way = i % N_WAYS;
        if (way == 0 ? !run_negated(job, attempt)
                     : !run_perturbed(job, way == 1 ? VERIFY_NEGATE_UP : VERIFY_NEGATE_DOWN,
                                      attempt))
            return false;
        verify_gradients_compare(&job->got, &job->control, &verdict);
        open &= ~verdict.failed;
    }
    for (uint32_t i = 0; i < VERIFY_N_GRADS; i++) {
        if (open & 1u << i)
            return verify_fail(job->result, "check of the gradient of %s cannot fail: it passes on "
                               "other weights and other dy", verify_gradient_name(i));
    }
    return true;
}

void verify_backward(struct verify_subject *subject, const struct verify_case *c,
                     struct verify_result *result)
{
    struct job job = {
        .subject = subject,
        .result = result,
        .n_tokens = verify_tokens(c),
        .with_scores = verify_scores(c),
    };
    memset(result, 0, sizeof *result);
    if (create_job(&job, c) && run_oracle(&job) && check_gradients(&job) && check_repeat(&job))
        check_controls(&job);
    finish_job(&job);
}
