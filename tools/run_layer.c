// SPDX-License-Identifier: MIT
// The layer that `vkmoe run` runs. Layers of published files, and those of a vkmoe-model that need
// more than a session gives, are loaded by themselves; all others run as their model runs them.
#include "run.h"

#include "source.h"

#include <stdio.h>

static enum vkmoe_status open_checkpoint(struct run_layer *layer, const struct run_source *source)
{
    enum vkmoe_status status;
    vkmoe_checkpoint_layer found;
    CLI_TRY(source_open(layer->host, source->path, source->assume, source->desc_path,
                        &layer->checkpoint));
    CLI_TRY(vkmoe_checkpoint_get_layer(layer->checkpoint, source->layer, &found));
    if (!found.has_experts) {
        char text[512];
        snprintf(text, sizeof text, "%.200s: layer %u has no experts: %.200s", source->path,
                 (unsigned) source->layer, found.reason);
        vkmoe_error_set(text);
        CLI_TRY(VKMOE_E_ARGUMENT);
    }
    layer->desc = found.desc;
    layer->d_in = found.desc.d_model;

fail:
    return status;
}

static enum vkmoe_status open_model(struct run_layer *layer, const struct run_source *source)
{
    enum vkmoe_status status;
    CLI_TRY(vkmoe_model_open(layer->host, source->path, &layer->model));
    CLI_TRY(vkmoe_model_layer(layer->model, source->layer, &layer->desc));
    layer->d_in = vkmoe_model_layer_d_in(layer->model, source->layer);
    if (!source->type && vkmoe_session_runs_layer(layer->model, source->layer))
        return VKMOE_OK;
    vkmoe_model_destroy(layer->model);
    layer->model = NULL;
    CLI_TRY(open_checkpoint(layer, source));

fail:
    return status;
}

enum vkmoe_status run_layer_open(struct run_layer *layer, const vkmoe_host *host,
                                 const struct run_source *source)
{
    layer->host = host;
    layer->path = source->path;
    layer->index = source->layer;
    bool published = source->assume || source->desc_path || source_is_published(source->path);
    enum vkmoe_status status = published ? open_checkpoint(layer, source)
                                         : open_model(layer, source);
    if (layer->desc.d_out == 0)
        layer->desc.d_out = layer->desc.d_model;
    return status;
}

// ---- on a device -----------------------------------------------------------------------------

static void tell_types(const vkmoe_load_report *report)
{
    for (uint32_t i = 0; i < report->n_parts; i++) {
        const vkmoe_load_part *part = &report->parts[i];
        if (!part->exact)
            fprintf(stderr, "%s: %s as %s, relative error %.3g\n", vkmoe_part_name(part->part),
                    part->stored, vkmoe_dtype_name(part->type), part->error);
    }
}

static enum vkmoe_status load_checkpoint(struct run_layer *layer, vkmoe_context *context,
                                         const struct run_source *source, uint32_t batch,
                                         const struct run_kernels *kernels)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_load_desc load = vkmoe_load_desc_init();
    vkmoe_load_report report;
    vkmoe_layer_desc desc;
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    enum vkmoe_dtype type;
    if (source->type) {
        CLI_TRY(vkmoe_dtype_from_name(source->type, &type));
        load.in_type = load.out_type = &type;
    }
    CLI_TRY(vkmoe_checkpoint_load(layer->checkpoint, context, layer->index, &load, &desc,
                                  &layer->weights, &report));
    tell_types(&report);
    plan.layer = &desc;
    plan.max_tokens = batch;
    plan.precision = (enum vkmoe_precision) kernels->precision;
    plan.variant = kernels->variant;
    CLI_TRY(vkmoe_plan_create(context, &plan, &layer->plan));
    CLI_TRY(vkmoe_bind_create(layer->plan, layer->weights, NULL, &layer->bind));

fail:
    return status;
}

enum vkmoe_status run_layer_load(struct run_layer *layer, vkmoe_context *context,
                                 const struct run_source *source, uint32_t batch,
                                 const struct run_kernels *kernels)
{
    vkmoe_session_desc session = vkmoe_session_desc_init();
    if (layer->checkpoint)
        return load_checkpoint(layer, context, source, batch, kernels);
    session.max_rows = batch;
    session.one_layer = true;
    session.layer = layer->index;
    session.precision = (enum vkmoe_precision) kernels->precision;
    session.variant = kernels->variant;
    return vkmoe_session_create(context, layer->model, &session, &layer->session);
}

enum vkmoe_status run_layer_gradients(const struct run_layer *layer, const char *path,
                                      vkmoe_gradients **out)
{
    return layer->session ? vkmoe_gradients_create(layer->session, path, out)
                          : vkmoe_gradients_create_bound(layer->host, layer->bind, &layer->desc,
                                                         path, out);
}

enum vkmoe_status run_layer_run(struct run_layer *layer, uint32_t n, const vkmoe_io *io)
{
    vkmoe_session_io session = vkmoe_session_io_init();
    if (layer->bind)
        return vkmoe_run(layer->bind, n, io);
    session.x = io->x;
    session.y = io->y;
    session.layer = layer->index;
    session.ids = io->ids;
    session.gates = io->gates;
    return vkmoe_session_run(layer->session, n, &session);
}

void run_layer_close(struct run_layer *layer)
{
    vkmoe_bind_destroy(layer->bind);
    vkmoe_plan_destroy(layer->plan);
    vkmoe_weights_destroy(layer->weights);
    vkmoe_checkpoint_destroy(layer->checkpoint);
    vkmoe_session_destroy(layer->session);
    vkmoe_model_destroy(layer->model);
}
