// SPDX-License-Identifier: MIT
#include "verify_nets.h"

#include "rng.h"
#include "verify_net_list.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { N_STEPS = 3, N_LOSSES = N_STEPS + 1, MAX_TENSORS = 32 };

// ---- data --------------------------------------------------------------------------------------

struct data {
    float x[VERIFY_NET_TOKENS * VERIFY_NET_D_IN];
    float targets[VERIFY_NET_TOKENS * VERIFY_NET_CLASSES];
    int32_t token_ids[VERIFY_NET_TOKENS], labels[VERIFY_NET_TOKENS];
    int32_t offsets[VERIFY_NET_EXAMPLES + 1];
    vkmoe_net_batch batch;
};

// `part` tells one x from another; labels and targets, shares that add up to 1, are the same.
static void fill_data(const struct verify_net_case *c, uint64_t seed, uint32_t part,
                      struct data *out)
{
    enum { STREAM = 0x7fffffff }; // no layer has this code
    const bool text = c->layers[0].kind == VKMOE_NET_EMBED;
    for (uint32_t i = 0; i < VERIFY_NET_TOKENS * VERIFY_NET_D_IN; i++)
        out->x[i] = rng_normal(seed, STREAM, part, i);
    for (uint32_t t = 0; t < VERIFY_NET_TOKENS; t++) {
        float share = 0.125f + 0.03125f * (float) (t % 16);
        out->token_ids[t] = (int32_t) ((t * t + part) % VERIFY_NET_ROWS);
        out->labels[t] = (int32_t) (t % VERIFY_NET_CLASSES);
        for (uint32_t i = 0; i < VERIFY_NET_CLASSES; i++)
            out->targets[t * VERIFY_NET_CLASSES + i] =
                i == t % VERIFY_NET_CLASSES ? 1 - share : share / (VERIFY_NET_CLASSES - 1);
    }
    for (uint32_t i = 0; i <= VERIFY_NET_EXAMPLES; i++) // of different sizes
        out->offsets[i] = (int32_t) (i * i * VERIFY_NET_TOKENS /
                                     (VERIFY_NET_EXAMPLES * VERIFY_NET_EXAMPLES));
    const bool labels = c->desc.loss == VKMOE_LOSS_CROSS_ENTROPY && !c->desc.soft_targets;
    out->batch = vkmoe_net_batch_init();
    out->batch.n_tokens = VERIFY_NET_TOKENS;
    out->batch.n_examples = text ? VERIFY_NET_EXAMPLES : VERIFY_NET_TOKENS;
    out->batch.x = text ? NULL : out->x;
    out->batch.token_ids = text ? out->token_ids : NULL;
    out->batch.offsets = text ? out->offsets : NULL;
    out->batch.labels = labels ? out->labels : NULL;
    out->batch.targets = labels ? NULL : out->targets;
}

// ---- a run -------------------------------------------------------------------------------------

// y, then the gradient of each parameter that has one.
struct tensor {
    char name[64];
    size_t begin, n;
};

struct tensors {
    struct tensor list[MAX_TENSORS];
    uint32_t n;
    size_t n_values;
};

struct record {
    double losses[N_LOSSES];
    float *values; // poisoned before the run
};

static void add_tensor(struct tensors *tensors, const char *name, size_t n)
{
    struct tensor *t = &tensors->list[tensors->n++];
    *t = (struct tensor){.begin = tensors->n_values, .n = n};
    snprintf(t->name, sizeof t->name, "%s", name);
    tensors->n_values += n;
}

static enum vkmoe_status list_tensors(const vkmoe_net *net, const vkmoe_net_batch *batch,
                                      struct tensors *out)
{
    enum vkmoe_status status = VKMOE_OK;
    memset(out, 0, sizeof *out);
    add_tensor(out, "y", (size_t) batch->n_examples * VERIFY_NET_CLASSES);
    for (uint32_t i = 0; i < vkmoe_net_param_count(net) && out->n < MAX_TENSORS; i++) {
        vkmoe_net_param p;
        if ((status = vkmoe_net_get_param(net, i, &p)) != VKMOE_OK)
            break;
        if (p.has_gradient)
            add_tensor(out, p.name, (size_t) p.rows * p.width);
    }
    return status;
}

struct job {
    const struct verify_session *session;
    struct verify_result *result;
    struct verify_net_case net;
    struct data data, other;
    struct tensors tensors;
    vkmoe_net *device, *oracle;
    struct record got, again, want, control;
};

static enum vkmoe_status read_gradients(const struct job *job, vkmoe_net *net, struct record *out)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 1; i < job->tensors.n && status == VKMOE_OK; i++) {
        const struct tensor *t = &job->tensors.list[i];
        status = vkmoe_net_read(net, VKMOE_NET_GRADIENT, t->name, out->values + t->begin, t->n);
    }
    return status;
}

static enum vkmoe_status train(const struct job *job, vkmoe_net *net, const vkmoe_net_batch *batch,
                               float step, struct record *out)
{
    enum vkmoe_status status = vkmoe_net_init(net, job->session->seed);
    const vkmoe_net_state start = {.seed = job->session->seed};
    verify_poison_elements(VKMOE_F32, out->values, job->tensors.n_values);
    if (status == VKMOE_OK)
        status = vkmoe_net_set_state(net, &start);
    if (status == VKMOE_OK)
        status = vkmoe_net_eval(net, batch, out->values, NULL);
    if (status == VKMOE_OK)
        status = vkmoe_net_forward(net, batch);
    if (status == VKMOE_OK)
        status = vkmoe_net_backward(net, 1, &out->losses[0]);
    if (status == VKMOE_OK)
        status = read_gradients(job, net, out);
    if (status == VKMOE_OK)
        status = vkmoe_net_step(net, step);
    for (uint32_t i = 1; i < N_STEPS && status == VKMOE_OK; i++)
        status = vkmoe_net_train(net, batch, step, &out->losses[i]);
    if (status == VKMOE_OK)
        status = vkmoe_net_eval(net, batch, NULL, &out->losses[N_STEPS]);
    return status;
}

static bool run(struct job *job, vkmoe_net *net, const char *name, const vkmoe_net_batch *batch,
                float step, struct record *out)
{
    return train(job, net, batch, step, out) == VKMOE_OK ||
           verify_fail(job->result, "%s: %s", name, vkmoe_error_text());
}

// ---- comparison --------------------------------------------------------------------------------

static double norm(const float *values, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double) values[i] * (double) values[i];
    return sqrt(sum);
}

// Of the gradients: the largest norm of one tensor, and the squared norm of all.
static void gradient_norms(const struct job *job, const struct record *want, double *largest,
                           double *all2)
{
    *largest = *all2 = 0;
    for (uint32_t i = 1; i < job->tensors.n; i++) {
        double v = norm(want->values + job->tensors.list[i].begin, job->tensors.list[i].n);
        *largest = fmax(*largest, v);
        *all2 += v * v;
    }
}

// As for the layers: 1e-5 of a tensor's norm, and of gradients, as some are small differences of
// what is not small, eight roundings of the largest one besides (see verify_gradients.c).
static bool same_tensor(const struct job *job, const struct record *got, const struct record *want,
                        uint32_t i, double *error, double *bound)
{
    const struct tensor *t = &job->tensors.list[i];
    const double u = FLT_EPSILON / 2;
    double error2 = 0, largest, all2;
    gradient_norms(job, want, &largest, &all2);
    for (size_t k = t->begin; k < t->begin + t->n; k++) {
        double d = verify_difference(&got->values[k], want->values[k]);
        error2 += d * d;
    }
    *error = sqrt(error2);
    *bound = VERIFY_TOLERANCE * norm(want->values + t->begin, t->n) + (i ? 8 * u * largest : 0);
    return *error <= *bound;
}

// By how much a step moves the parameters at most when a gradient is off by 1, in rates. Adam's
// m / (sqrt v + eps) has a slope of no more than 1 / eps each in m and in sqrt v; eps is large here
// so that this says something. Momentum adds a step to all the later ones.
static double amplification(const vkmoe_net_desc *desc)
{
    return desc->optimiser == VKMOE_OPTIMISER_SGD ? 1 / (1 - desc->momentum) : 2 / desc->adam_eps;
}

// Loss i is behind i steps. 1e-5 for what the network computes; and with gradients g off by
// 1e-5 |g| a step misses its place by rate * amplification * 1e-5 |g|, the loss by |g| times that.
static bool same_loss(const struct job *job, const struct record *got, const struct record *want,
                      uint32_t i)
{
    double largest, all2, steps = i * (double) job->net.rate * amplification(&job->net.desc);
    gradient_norms(job, want, &largest, &all2);
    return fabs(got->losses[i] - want->losses[i]) <=
           VERIFY_TOLERANCE * (fabs(want->losses[i]) + steps * all2);
}

static bool check_outcome(struct job *job)
{
    const struct record *got = &job->got, *want = &job->want;
    double error, bound;
    for (uint32_t i = 0; i < job->tensors.n; i++) {
        if (!same_tensor(job, got, want, i, &error, &bound))
            return verify_fail(job->result, "%s%s: error %.3g > %.3g, in norm",
                               i ? "gradient of " : "", job->tensors.list[i].name, error, bound);
    }
    for (uint32_t i = 0; i < N_LOSSES; i++) {
        if (!same_loss(job, got, want, i))
            return verify_fail(job->result, "loss behind %u steps: got %.9g, want %.9g",
                               (unsigned) i, got->losses[i], want->losses[i]);
    }
    return true;
}

static bool check_repeat(struct job *job)
{
    const struct record *a = &job->got, *b = &job->again;
    if (memcmp(a->losses, b->losses, sizeof a->losses) == 0 &&
        memcmp(a->values, b->values, job->tensors.n_values * sizeof *a->values) == 0)
        return true;
    return verify_fail(job->result, "the second time other bits; losses at the end %.9g, %.9g",
                       a->losses[N_STEPS], b->losses[N_STEPS]);
}

// ---- negative controls -------------------------------------------------------------------------

static bool check_loss_control(struct job *job)
{
    if (!run(job, job->oracle, "control", &job->data.batch, job->net.rate * 1.0625f, &job->control))
        return false;
    for (uint32_t i = 1; i < N_LOSSES; i++) {
        if (same_loss(job, &job->got, &job->control, i))
            return verify_fail(job->result, "check of loss cannot fail: it passes at other rates");
    }
    return true;
}

static bool check_tensor_control(struct job *job)
{
    double error, bound;
    if (!run(job, job->oracle, "control", &job->other.batch, job->net.rate, &job->control))
        return false;
    for (uint32_t i = 0; i < job->tensors.n; i++) {
        if (same_tensor(job, &job->got, &job->control, i, &error, &bound))
            return verify_fail(job->result, "check of %s cannot fail: it passes with another x",
                               job->tensors.list[i].name);
    }
    return true;
}

// ---- one network -------------------------------------------------------------------------------

static bool create_nets(struct job *job)
{
    if (vkmoe_net_create(job->session->oracle, &job->net.desc, &job->oracle) != VKMOE_OK ||
        list_tensors(job->oracle, &job->data.batch, &job->tensors) != VKMOE_OK)
        return verify_fail(job->result, "oracle: %s", vkmoe_error_text());
    enum vkmoe_status status =
        vkmoe_net_create(job->session->device, &job->net.desc, &job->device);
    if (status == VKMOE_OK)
        return true;
    verify_fail(job->result, "%s", vkmoe_error_text());
    if (status == VKMOE_E_UNSUPPORTED)
        job->result->outcome = VERIFY_SKIPPED;
    return false;
}

static bool create_records(struct job *job, float **memory)
{
    const size_t n = job->tensors.n_values;
    float *at = *memory = calloc(4 * n, sizeof *at);
    if (!at)
        return verify_fail(job->result, "no memory for the gradients");
    job->got.values = at;
    job->again.values = at + n;
    job->want.values = at + 2 * n;
    job->control.values = at + 3 * n;
    return true;
}

void verify_net(const struct verify_session *session, uint32_t i, struct verify_result *result)
{
    static const uint32_t x_part = 0, other_part = 1;
    float *memory = NULL;
    struct job *job = calloc(1, sizeof *job);
    memset(result, 0, sizeof *result);
    if (!job) {
        verify_fail(result, "no memory for the network");
        return;
    }
    job->session = session;
    job->result = result;
    verify_net_case_init(&job->net, i);
    fill_data(&job->net, session->seed, x_part, &job->data);
    fill_data(&job->net, session->seed, other_part, &job->other);
    const vkmoe_net_batch *batch = &job->data.batch;
    if (create_nets(job) && create_records(job, &memory) &&
        run(job, job->oracle, "oracle", batch, job->net.rate, &job->want) &&
        run(job, job->device, "train", batch, job->net.rate, &job->got) && check_outcome(job) &&
        run(job, job->device, "second time", batch, job->net.rate, &job->again) &&
        check_repeat(job) && check_loss_control(job))
        check_tensor_control(job);
    vkmoe_net_destroy(job->device);
    vkmoe_net_destroy(job->oracle);
    free(memory);
    free(job);
}
