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
    if (bind->plan->program->graph.operation == VKMOE_OPERATION_LAYER) {
        TRY(moe_api_not_null(__func__, "io->x", full.x));
        TRY(moe_api_not_null(__func__, "io->y", full.y));
    }
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
