// SPDX-License-Identifier: MIT
// A model on a device: scaling of the input, the layers one after the other, the head.
#include "model/session_net.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/host.h"
#include "base/status.h"

struct stage {
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
};

struct vkmoe_session {
    const vkmoe_model *model;
    vkmoe_session_desc desc;
    uint32_t first, n_layers; // the layers that run
    struct stage *stages;     // (n_layers); NULL: `net` runs them
    struct moe_session_net *net;
    float *scaled;            // (max_rows, n_features); NULL: x is used as it is
    float *between[2];        // (max_rows, widest layer), in turns
};

static enum vkmoe_status create_stage(vkmoe_context *context, const struct moe_model_layer *layer,
                                      const vkmoe_session_desc *desc, struct stage *out)
{
    enum vkmoe_status status;
    vkmoe_weights_desc weights = vkmoe_weights_desc_init();
    weights.layer = &layer->desc;
    weights.router = &layer->router;
    weights.experts = layer->experts;
    weights.shared = layer->desc.d_shared_ff > 0 ? &layer->shared : NULL;
    TRY(vkmoe_weights_create(context, &weights, &out->weights));

    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &layer->desc;
    plan.max_tokens = desc->max_rows;
    plan.precision = desc->precision;
    plan.variant = desc->variant;
    TRY(vkmoe_plan_create(context, &plan, &out->plan));
    TRY(vkmoe_bind_create(out->plan, out->weights, NULL, &out->bind));

fail:
    return status;
}

// The last layer's width.
static uint32_t width_out(const struct vkmoe_session *s)
{
    const uint32_t end = s->first + s->n_layers;
    const struct moe_description *d = &s->model->d;
    return end < d->info.n_layers ? d->widths[end] : d->info.n_outputs;
}

// A layer with one expert lives as long as its weights are uploaded.
static enum vkmoe_status create_one_expert(vkmoe_context *context, const struct vkmoe_session *s,
                                           struct stage *out)
{
    struct moe_model_layer layer;
    float *zeros = NULL;
    enum vkmoe_status status =
        moe_layer_one_expert(&s->model->host, &s->model->layers[s->desc.layer], s->desc.experts,
                             s->desc.expert, &layer, &zeros);
    if (status == VKMOE_OK)
        status = create_stage(context, &layer, &s->desc, out);
    moe_free(&s->model->host, zeros);
    return status;
}

static enum vkmoe_status check_session(const vkmoe_model *model, const vkmoe_session_desc *d)
{
    bool names_layer = d->one_layer || d->experts != VKMOE_EXPERTS_ALL;
    if ((unsigned) d->experts > VKMOE_EXPERTS_ALONE)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_desc.experts = %d", (int) d->experts);
    if (names_layer && d->layer >= model->d.info.n_layers)
        return moe_fail(VKMOE_E_ARGUMENT, "layer %u of a model with %u", d->layer,
                        model->d.info.n_layers);
    if (d->experts != VKMOE_EXPERTS_ALL && model->d.layers[d->layer].kind != VKMOE_NET_MOE)
        return moe_fail(VKMOE_E_ARGUMENT, "layer %u has no experts", d->layer);
    if (d->max_rows == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_desc.max_rows = 0: at least 1");
    return VKMOE_OK;
}

bool vkmoe_session_runs_layer(const vkmoe_model *model, uint32_t i)
{
    if (!model || i >= model->d.info.n_layers)
        return false;
    const vkmoe_net_layer *layer = &model->d.layers[i];
    return layer->kind != VKMOE_NET_MOE || !moe_layer_needs_more(layer->layer);
}

static enum vkmoe_status check_layers(const struct vkmoe_session *s)
{
    for (uint32_t i = s->first; i < s->first + s->n_layers; i++) {
        if (!vkmoe_session_runs_layer(s->model, i))
            return moe_fail(VKMOE_E_UNSUPPORTED, "layer %u has inputs or tensors that sessions do "
                            "not pass on: it runs alone, by vkmoe_checkpoint_load or vkmoe run", i);
    }
    return VKMOE_OK;
}

static enum vkmoe_status create_buffers(struct vkmoe_session *s)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_model *model = s->model;
    size_t rows = s->desc.max_rows, width = width_out(s);
    for (uint32_t i = 1; i < s->n_layers; i++)
        width = (size_t) moe_max(width, model->d.widths[s->first + i]);
    if (model->stats.first && !s->desc.one_layer)
        TRY(moe_try_alloc(&model->host, rows * model->d.info.n_features * sizeof(float),
                          "scaled input", &s->scaled));
    for (int i = 0; i < 2; i++)
        TRY(moe_try_alloc(&model->host, rows * width * sizeof(float), "layer outputs",
                          &s->between[i]));

fail:
    return status;
}

// Do plans run all that this session is of?
static bool is_planned(const struct vkmoe_session *s)
{
    const vkmoe_model *model = s->model;
    bool planned = s->desc.one_layer || !moe_input_is_text(model->d.info.input);
    for (uint32_t i = s->first; i < s->first + s->n_layers; i++)
        planned = planned && model->layers[i].planned &&
                  (s->desc.one_layer || !model->d.layers[i].residual);
    return planned;
}

static enum vkmoe_status create_stages(vkmoe_context *context, struct vkmoe_session *s)
{
    enum vkmoe_status status;
    TRY(moe_try_alloc(&s->model->host, s->n_layers * sizeof *s->stages, "session", &s->stages));
    for (uint32_t i = 0; i < s->n_layers; i++) {
        if (s->desc.experts != VKMOE_EXPERTS_ALL && s->first + i == s->desc.layer)
            TRY(create_one_expert(context, s, &s->stages[i]));
        else
            TRY(create_stage(context, &s->model->layers[s->first + i], &s->desc, &s->stages[i]));
    }
    TRY(create_buffers(s));

fail:
    return status;
}

enum vkmoe_status vkmoe_session_create(vkmoe_context *context, const vkmoe_model *model,
                                       const vkmoe_session_desc *desc, vkmoe_session **out)
{
    enum vkmoe_status status;
    struct vkmoe_session *s = NULL;
    vkmoe_session_desc d = vkmoe_session_desc_init();
    if (!context || !model || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_create: %s is NULL",
                        !context ? "context" : !model ? "model" : "out");
    *out = NULL;
    if (desc)
        TRY(moe_desc_copy(&d, sizeof d, desc, "vkmoe_session_desc"));
    TRY(check_session(model, &d));
    TRY(moe_try_alloc(&model->host, sizeof *s, "session", &s));
    s->model = model;
    s->desc = d;
    s->first = d.one_layer ? d.layer : 0;
    s->n_layers = d.one_layer ? 1 : model->d.info.n_layers;
    TRY(check_layers(s));
    if (is_planned(s))
        TRY(create_stages(context, s));
    else
        TRY(moe_session_net_create(context, model, &s->desc, &s->net));
    *out = s;
    return VKMOE_OK;

fail:
    vkmoe_session_destroy(s);
    return status;
}

bool moe_session_get_layer(const vkmoe_session *session, struct moe_session_layer *out)
{
    *out = (struct moe_session_layer){session->stages ? session->stages[0].bind : NULL,
                                      &session->model->layers[session->first].desc,
                                      &session->model->host};
    return session->desc.one_layer && session->stages &&
           session->desc.experts == VKMOE_EXPERTS_ALL;
}

bool vkmoe_session_gives_layer_x(const vkmoe_session *session, uint32_t layer)
{
    if (!session || layer - session->first >= session->n_layers)
        return false;
    if (session->stages || session->desc.one_layer)
        return true;
    return layer == 0 && !moe_input_is_text(session->model->d.info.input);
}

void vkmoe_session_destroy(vkmoe_session *session)
{
    if (!session)
        return;
    moe_session_net_destroy(session->net);
    for (uint32_t i = 0; session->stages && i < session->n_layers; i++) {
        vkmoe_bind_destroy(session->stages[i].bind);
        vkmoe_plan_destroy(session->stages[i].plan);
        vkmoe_weights_destroy(session->stages[i].weights);
    }
    const vkmoe_host *host = &session->model->host;
    moe_free(host, session->stages);
    moe_free(host, session->scaled);
    moe_free(host, session->between[0]);
    moe_free(host, session->between[1]);
    moe_free(host, session);
}

static enum vkmoe_status check_run(const struct vkmoe_session *s, uint32_t n_rows,
                                   const vkmoe_session_io *io)
{
    if (n_rows > s->desc.max_rows)
        return moe_fail(VKMOE_E_SHAPE, "%u rows for a session of at most %u", n_rows,
                        s->desc.max_rows);
    if ((io->ids || io->gates || io->layer_x) && io->layer - s->first >= s->n_layers)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.layer = %u: this session runs %u..%u",
                        io->layer, s->first, s->first + s->n_layers - 1);
    if (io->layer_x && !vkmoe_session_gives_layer_x(s, io->layer))
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "vkmoe_session_io.layer_x: the input of layer %u is not kept", io->layer);
    if (!s->stages)
        return VKMOE_OK;
    if (!io->x)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.x is NULL");
    if (io->texts || io->token_ids || io->offsets)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.%s: this model's rows are features",
                        io->texts ? "texts" : io->token_ids ? "token_ids" : "offsets");
    return VKMOE_OK;
}

static enum vkmoe_status run_stages(struct vkmoe_session *s, uint32_t n_rows,
                                    const vkmoe_session_io *io)
{
    const vkmoe_model *model = s->model;
    const float *x = io->x;
    float *y = NULL;
    if (s->scaled) {
        moe_input_scale(model->d.info.input, &model->stats, model->d.info.n_features, n_rows, x,
                        s->scaled);
        x = s->scaled;
    }
    for (uint32_t i = 0; i < s->n_layers; i++) {
        vkmoe_io layer = vkmoe_io_init();
        y = s->between[i % 2];
        if (i + 1 == s->n_layers && io->y)
            y = io->y;
        layer.x = x;
        layer.y = y;
        if (s->first + i == io->layer) {
            layer.ids = io->ids;
            layer.gates = io->gates;
            if (io->layer_x)
                memcpy(io->layer_x, x, (size_t) n_rows * model->d.widths[io->layer] * sizeof *x);
        }
        enum vkmoe_status status = vkmoe_run(s->stages[i].bind, n_rows, &layer);
        if (status != VKMOE_OK)
            return status;
        x = y;
    }
    if (io->scores)
        moe_head_apply(s->desc.one_layer ? VKMOE_HEAD_IDENTITY : model->d.info.head, n_rows,
                       width_out(s), y, io->scores);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_session_run(vkmoe_session *session, uint32_t n_rows,
                                    const vkmoe_session_io *io)
{
    enum vkmoe_status status;
    vkmoe_session_io d = vkmoe_session_io_init();
    if (!session || !io)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_run: %s is NULL",
                        session ? "io" : "session");
    TRY(moe_desc_copy(&d, sizeof d, io, "vkmoe_session_io"));
    if (n_rows == 0)
        return VKMOE_OK;
    TRY(check_run(session, n_rows, &d));
    if (session->stages)
        TRY(run_stages(session, n_rows, &d));
    else
        TRY(moe_session_net_run(session->net, n_rows, &d));

fail:
    return status;
}
