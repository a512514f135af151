// SPDX-License-Identifier: MIT
#include "api/api.h"
#include "base/bits.h"
#include "base/desc.h"
#include "core/dtype.h"

enum vkmoe_status moe_api_io(vkmoe_io *out, const vkmoe_io *io, const vkmoe_bind *bind,
                             uint32_t n_tokens)
{
    enum vkmoe_status status;
    const struct moe_program *program = bind->plan->program;
    *out = vkmoe_io_init();
    TRY(moe_desc_copy(out, sizeof *out, io, "vkmoe_io"));
    if (n_tokens > program->max_tokens)
        return moe_fail(VKMOE_E_SHAPE, "n_tokens = %u: the plan has max_tokens = %u", n_tokens,
                        program->max_tokens);
    if (!bind->own_io)
        return moe_fail(VKMOE_E_ARGUMENT, "this bind has the caller's buffers: record it instead");
    if (out->scores && !moe_graph_uses(&program->graph, MOE_VALUE_SCORES))
        return moe_fail(VKMOE_E_ARGUMENT, "io.scores is given, the plan was made without scores");
    TRY(moe_api_device_ok(bind->plan->context));
fail:
    return status;
}

// Inputs that only some layers have.
static enum vkmoe_status check_inputs(const vkmoe_io *io, const vkmoe_layer_desc *layer)
{
    const struct {
        const char *name;
        const void *data;
        bool wanted;
    } inputs[] = {
        {"router_x", io->router_x, layer->router_input},
        {"token_ids", io->token_ids, layer->select == VKMOE_SELECT_TABLE},
    };
    for (uint32_t i = 0; i < MOE_COUNT(inputs); i++)
        if (inputs[i].wanted != (inputs[i].data != NULL))
            return moe_fail(VKMOE_E_ARGUMENT, "io.%s is %s", inputs[i].name,
                            inputs[i].wanted ? "NULL, the layer reads it"
                                             : "given, the layer does not read it");
    return VKMOE_OK;
}

static enum vkmoe_status check_token_ids(const vkmoe_io *io, const vkmoe_layer_desc *layer,
                                         uint32_t n_tokens)
{
    for (uint32_t t = 0; io->token_ids && t < n_tokens; t++)
        if ((uint32_t) io->token_ids[t] >= layer->n_token_ids)
            return moe_fail(VKMOE_E_DATA, "io.token_ids[%u] = %d: the table has %u rows", t,
                            io->token_ids[t], layer->n_token_ids);
    return VKMOE_OK;
}

enum vkmoe_status moe_api_io_ranges(struct moe_range *ranges, vkmoe_io *io,
                                    const struct moe_program *program, uint32_t n_tokens)
{
    enum vkmoe_status status;
    static const char *const names[MOE_IO_RANGES] = {"x",   "router_x", "token_ids", "y",
                                                     "ids", "gates",    "scores"};
    enum { FIRST_WRITTEN = 3 };
    const vkmoe_layer_desc *layer = &program->graph.layer.desc;
    const enum vkmoe_dtype type = program->x_type;
    size_t element = moe_dtype_size(type, 1);
    size_t x_row = moe_dtype_size(type, layer->d_model);
    size_t y_row = moe_dtype_size(type, layer->d_out);
    size_t slot_row = layer->top_k * sizeof *io->gates;
    size_t score_row = moe_layer_n_scored(layer) * sizeof *io->scores;
    for (uint32_t i = 0; i < MOE_IO_RANGES; i++)
        ranges[i] =
            (struct moe_range){"io", names[i], MOE_NO_INDEX, .written = i >= FIRST_WRITTEN};
    TRY(moe_api_stride("io.x", &io->x_stride, layer->d_model, type, element));
    TRY(moe_api_stride("io.router_x", &io->router_x_stride, layer->d_model, type, element));
    TRY(moe_api_stride("io.y", &io->y_stride, layer->d_out, type, element));
    if (n_tokens > 0)
        TRY(check_inputs(io, layer));
    TRY(moe_range_set(&ranges[0], io->x, n_tokens, io->x_stride, x_row, element));
    TRY(moe_range_set(&ranges[1], io->router_x, n_tokens, io->router_x_stride, x_row, element));
    TRY(moe_range_set(&ranges[2], io->token_ids, n_tokens, 4, 4, 4));
    TRY(moe_range_set(&ranges[3], io->y, n_tokens, io->y_stride, y_row, element));
    TRY(moe_range_set(&ranges[4], io->ids, n_tokens, slot_row, slot_row, 4));
    TRY(moe_range_set(&ranges[5], io->gates, n_tokens, slot_row, slot_row, 4));
    TRY(moe_range_set(&ranges[6], io->scores, n_tokens, score_row, score_row, 4));
    TRY(check_token_ids(io, layer, n_tokens));
fail:
    return status;
}

enum vkmoe_status vkmoe_run(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io)
{
    enum vkmoe_status status;
    struct moe_range ranges[MOE_IO_RANGES];
    vkmoe_io full;
    TRY(NOT_NULL(bind));
    TRY(NOT_NULL(io));
    TRY(moe_api_io(&full, io, bind, n_tokens));
    bind->counters = (vkmoe_counters){0};
    bind->counted = n_tokens == 0;
    if (n_tokens == 0)
        return VKMOE_OK;
    TRY(moe_api_not_null(__func__, "io->x", full.x));
    TRY(moe_api_not_null(__func__, "io->y", full.y));
    TRY(moe_api_io_ranges(ranges, &full, bind->plan->program, n_tokens));
    TRY(moe_ranges_check(ranges, MOE_COUNT(ranges)));

    const vkmoe_context *context = bind->plan->context;
    const struct moe_backend *backend = context->device->backend;
    moe_trace(&context->host, "vkmoe run", true);
    status = backend->run(bind->bound, n_tokens, &full);
    moe_trace(&context->host, "vkmoe run", false);
    TRY(status);
    if (bind->plan->counters)
        backend->counters(bind->bound, &bind->counters);
    bind->counted = true;
fail:
    return status;
}
