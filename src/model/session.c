// SPDX-License-Identifier: MIT
// A model on a device: scaling of the input, the layers one after the other, the head.
#include "model/model.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/host.h"
#include "base/status.h"

#include <math.h>

struct stage {
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
};

struct vkmoe_session {
    const vkmoe_model *model;
    vkmoe_session_desc desc;
    uint32_t first, n_layers; // the layers that run
    struct stage *stages;     // (n_layers)
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
    TRY(vkmoe_plan_create(context, &plan, &out->plan));
    TRY(vkmoe_bind_create(out->plan, out->weights, NULL, &out->bind));

fail:
    return status;
}

static enum vkmoe_status create_buffers(struct vkmoe_session *s)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_model *model = s->model;
    size_t rows = s->desc.max_rows, width = 0;
    for (uint32_t i = 0; i < s->n_layers; i++)
        width = (size_t) moe_max(width, model->layers[s->first + i].desc.d_out);
    if (model->in_offset && !s->desc.one_layer)
        TRY(moe_try_alloc(&model->host, rows * model->info.n_features * sizeof(float),
                          "scaled input", &s->scaled));
    for (int i = 0; i < 2; i++)
        TRY(moe_try_alloc(&model->host, rows * width * sizeof(float), "layer outputs",
                          &s->between[i]));

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
    if (d.one_layer && d.layer >= model->info.n_layers)
        return moe_fail(VKMOE_E_ARGUMENT, "layer %u of a model with %u", d.layer,
                        model->info.n_layers);
    if (d.max_rows == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_desc.max_rows = 0: at least 1");
    TRY(moe_try_alloc(&model->host, sizeof *s, "session", &s));
    s->model = model;
    s->desc = d;
    s->first = d.one_layer ? d.layer : 0;
    uint32_t n_layers = d.one_layer ? 1 : model->info.n_layers;
    TRY(moe_try_alloc(&model->host, n_layers * sizeof *s->stages, "session", &s->stages));
    s->n_layers = n_layers;
    for (uint32_t i = 0; i < n_layers; i++)
        TRY(create_stage(context, &model->layers[s->first + i], &d, &s->stages[i]));
    TRY(create_buffers(s));
    *out = s;
    return VKMOE_OK;

fail:
    vkmoe_session_destroy(s);
    return status;
}

bool moe_session_get_layer(const vkmoe_session *session, struct moe_session_layer *out)
{
    *out = (struct moe_session_layer){session->stages[0].bind,
                                      &session->model->layers[session->first].desc,
                                      &session->model->host};
    return session->desc.one_layer;
}

void vkmoe_session_destroy(vkmoe_session *session)
{
    if (!session)
        return;
    for (uint32_t i = 0; i < session->n_layers; i++) {
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

static void scale_input(const vkmoe_model *model, uint32_t n_rows, const float *x, float *out)
{
    uint32_t n = model->info.n_features;
    for (uint32_t row = 0; row < n_rows; row++) {
        for (uint32_t i = 0; i < n; i++)
            out[i] = (x[i] - model->in_offset[i]) / model->in_range[i];
        x += n;
        out += n;
    }
}

static void softmax(uint32_t n, const float *y, float *out)
{
    float max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        max = fmaxf(max, y[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += out[i] = expf(y[i] - max);
    for (uint32_t i = 0; i < n; i++)
        out[i] /= sum;
}

static void apply_head(enum vkmoe_head head, uint32_t n_rows, uint32_t width, const float *y,
                       float *out)
{
    size_t n = (size_t) n_rows * width;
    switch (head) {
    case VKMOE_HEAD_IDENTITY:
        memcpy(out, y, n * sizeof *out);
        return;
    case VKMOE_HEAD_SIGMOID:
        for (size_t i = 0; i < n; i++)
            out[i] = 1 / (1 + expf(-y[i]));
        return;
    case VKMOE_HEAD_SOFTMAX:
        for (uint32_t row = 0; row < n_rows; row++)
            softmax(width, y + (size_t) row * width, out + (size_t) row * width);
        return;
    }
}

static enum vkmoe_status check_run(const vkmoe_session *s, uint32_t n_rows,
                                   const vkmoe_session_io *io)
{
    if (n_rows > s->desc.max_rows)
        return moe_fail(VKMOE_E_SHAPE, "%u rows for a session of at most %u", n_rows,
                        s->desc.max_rows);
    if (!io->x)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.x is NULL");
    if ((io->ids || io->gates) && io->layer - s->first >= s->n_layers)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.layer = %u: this session runs %u..%u",
                        io->layer, s->first, s->first + s->n_layers - 1);
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

    const vkmoe_model *model = session->model;
    const float *x = d.x;
    float *y = NULL;
    if (session->scaled) {
        scale_input(model, n_rows, x, session->scaled);
        x = session->scaled;
    }
    for (uint32_t i = 0; i < session->n_layers; i++) {
        vkmoe_io layer = vkmoe_io_init();
        y = session->between[i % 2];
        if (i + 1 == session->n_layers && d.y)
            y = d.y;
        layer.x = x;
        layer.y = y;
        if (session->first + i == d.layer) {
            layer.ids = d.ids;
            layer.gates = d.gates;
        }
        TRY(vkmoe_run(session->stages[i].bind, n_rows, &layer));
        x = y;
    }
    if (d.scores) {
        uint32_t last = session->first + session->n_layers - 1;
        apply_head(session->desc.one_layer ? VKMOE_HEAD_IDENTITY : model->info.head, n_rows,
                   model->layers[last].desc.d_out, y, d.scores);
    }

fail:
    return status;
}
