// SPDX-License-Identifier: MIT
#include "api/api.h"
#include "base/bits.h"
#include "base/desc.h"
#include "core/dtype.h"

// Host memory of one argument, as addresses; size 0: not given.
struct range {
    const char *name;
    uintptr_t begin;
    uint64_t size;
};

static enum vkmoe_status make_range(struct range *out, const char *name, const void *memory,
                                    uint64_t n_rows, size_t stride, size_t row_size, size_t align)
{
    *out = (struct range){name, (uintptr_t) memory, 0};
    if (!memory)
        return VKMOE_OK;
    if (out->begin % align != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "io.%s at %p is not aligned to %zu bytes", name, memory,
                        align);
    if (!moe_api_extent(n_rows, stride, row_size, &out->size) ||
        out->size > UINTPTR_MAX - out->begin)
        return moe_fail(VKMOE_E_SHAPE, "io.%s: %llu rows of stride %zu pass the end of memory",
                        name, (unsigned long long) n_rows, stride);
    return VKMOE_OK;
}

// Two inputs may share memory, and there is only one input: any overlap is an error.
static enum vkmoe_status check_overlap(const struct range *ranges, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t j = i + 1; j < n; j++) {
            const struct range *a = &ranges[i], *b = &ranges[j];
            if (a->begin < b->begin + b->size && b->begin < a->begin + a->size)
                return moe_fail(VKMOE_E_ARGUMENT, "io.%s and io.%s overlap", a->name, b->name);
        }
    }
    return VKMOE_OK;
}

static enum vkmoe_status check_memory(const struct moe_program *program, uint32_t n_tokens,
                                      const vkmoe_io *io)
{
    enum vkmoe_status status;
    struct range ranges[5];
    const vkmoe_layer_desc *layer = &program->graph.layer.desc;
    size_t element = moe_dtype_size(program->x_type, 1);
    size_t x_row = moe_dtype_size(program->x_type, layer->d_model);
    size_t y_row = moe_dtype_size(program->x_type, layer->d_out);
    size_t slot_row = layer->top_k * sizeof *io->gates;
    size_t score_row = layer->n_experts * sizeof *io->scores;
    TRY(make_range(&ranges[0], "x", io->x, n_tokens, io->x_stride, x_row, element));
    TRY(make_range(&ranges[1], "y", io->y, n_tokens, io->y_stride, y_row, element));
    TRY(make_range(&ranges[2], "ids", io->ids, n_tokens, slot_row, slot_row, 4));
    TRY(make_range(&ranges[3], "gates", io->gates, n_tokens, slot_row, slot_row, 4));
    TRY(make_range(&ranges[4], "scores", io->scores, n_tokens, score_row, score_row, 4));
    return check_overlap(ranges, MOE_COUNT(ranges));
fail:
    return status;
}

enum vkmoe_status vkmoe_run(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(bind));
    TRY(NOT_NULL(io));

    vkmoe_io full = vkmoe_io_init();
    const vkmoe_context *context = bind->plan->context;
    const struct moe_program *program = bind->plan->program;
    const vkmoe_layer_desc *layer = &program->graph.layer.desc;
    TRY(moe_desc_copy(&full, sizeof full, io, "vkmoe_io"));
    if (n_tokens > program->max_tokens)
        return moe_fail(VKMOE_E_SHAPE, "n_tokens = %u: the plan has max_tokens = %u", n_tokens,
                        program->max_tokens);
    if (!bind->own_io)
        return moe_fail(VKMOE_E_ARGUMENT, "this bind has the caller's buffers: record it instead");
    if (full.scores && !moe_graph_uses(&program->graph, MOE_VALUE_SCORES))
        return moe_fail(VKMOE_E_ARGUMENT, "io.scores is given, the plan was made without scores");
    TRY(moe_api_device_ok(context));
    if (n_tokens == 0)
        return VKMOE_OK;
    TRY(moe_api_not_null(__func__, "io->x", full.x));
    TRY(moe_api_not_null(__func__, "io->y", full.y));
    const enum vkmoe_dtype type = program->x_type;
    TRY(moe_api_stride("io.x", &full.x_stride, layer->d_model, type, moe_dtype_size(type, 1)));
    TRY(moe_api_stride("io.y", &full.y_stride, layer->d_out, type, moe_dtype_size(type, 1)));
    TRY(check_memory(program, n_tokens, &full));

    moe_trace(&context->host, "vkmoe run", true);
    status = context->device->backend->run(bind->bound, n_tokens, &full);
    moe_trace(&context->host, "vkmoe run", false);
fail:
    return status;
}
