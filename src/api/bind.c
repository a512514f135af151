// SPDX-License-Identifier: MIT
#include "api/api.h"
#include "api/layer_net.h"
#include "base/bits.h"
#include "base/desc.h"
#include "core/dtype.h"

enum vkmoe_status moe_api_stride(const char *name, size_t *stride, uint32_t width,
                                 enum vkmoe_dtype type, size_t unit)
{
    size_t row_size = moe_dtype_size(type, width);
    if (*stride == 0 && row_size % unit != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "%s_stride = 0: a dense row of %u %s takes %zu bytes; "
                        "give a stride that is a multiple of %zu", name, width,
                        vkmoe_dtype_name(type), row_size, unit);
    if (*stride == 0)
        *stride = row_size;
    if (*stride % unit != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "%s_stride = %zu: must be a multiple of %zu", name,
                        *stride, unit);
    if (*stride < row_size)
        return moe_fail(VKMOE_E_ARGUMENT, "%s_stride = %zu: a row takes %zu bytes", name, *stride,
                        row_size);
    return VKMOE_OK;
}

bool moe_api_extent(uint64_t n_rows, size_t stride, size_t row_size, uint64_t *out)
{
    return moe_mul(n_rows - 1, stride, out) && !__builtin_add_overflow(*out, row_size, out);
}

enum vkmoe_status moe_api_vk_buffer(const char *name, const vkmoe_vk_buffer *buffer)
{
    if (!buffer->buffer)
        return moe_fail(VKMOE_E_ARGUMENT, "%s.buffer is NULL", name);
    if (buffer->offset % 256 != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "%s.offset = %llu: must be a multiple of 256", name,
                        (unsigned long long) buffer->offset);
    if (buffer->size > UINT64_MAX - buffer->offset)
        return moe_fail(VKMOE_E_ARGUMENT, "%s.size = %llu: passes the end of any buffer", name,
                        (unsigned long long) buffer->size);
    return VKMOE_OK;
}

// The buffers that may be left out.
static enum vkmoe_status check_optional(const vkmoe_vk_io *io, const struct moe_program *program)
{
    enum vkmoe_status status = VKMOE_OK;
    uint64_t work_size = program->device->backend->vk_workspace_size(program);
    if (io->n_tokens.buffer) {
        TRY(moe_api_vk_buffer("vk_io.n_tokens", &io->n_tokens));
        if (io->n_tokens.size < sizeof(uint32_t))
            return moe_fail(VKMOE_E_SHAPE, "vk_io.n_tokens.size = %llu: a count takes 4 bytes",
                            (unsigned long long) io->n_tokens.size);
    }
    if (io->workspace.buffer) {
        TRY(moe_api_vk_buffer("vk_io.workspace", &io->workspace));
        if (io->workspace.size < work_size)
            return moe_fail(VKMOE_E_SHAPE, "vk_io.workspace.size = %llu: the plan takes %llu bytes",
                            (unsigned long long) io->workspace.size,
                            (unsigned long long) work_size);
    }
fail:
    return status;
}

// Copies and checks the caller's buffers; strides are filled in.
static enum vkmoe_status check_vk_io(vkmoe_vk_io *out, const vkmoe_vk_io *io,
                                     const struct moe_program *program)
{
    enum vkmoe_status status;
    *out = vkmoe_vk_io_init();
    if (!program->device->backend->vk_record)
        return moe_fail(VKMOE_E_UNSUPPORTED, "bind.vk_io on %s: needs a Vulkan device",
                        program->device->info.name);
    TRY(moe_desc_copy(out, sizeof *out, io, "vkmoe_vk_io"));
    TRY(check_optional(out, program));
    TRY(moe_api_vk_arrays(out, program));
    return VKMOE_OK;
fail:
    return status;
}

static enum vkmoe_status check_weights(const vkmoe_plan *plan, const vkmoe_weights *weights)
{
    if (!weights)
        return moe_operation_is_whole(plan->program->graph.operation)
                   ? VKMOE_OK
                   : moe_api_not_null("vkmoe_bind_create", "weights", weights);
    const vkmoe_layer_desc *a = &weights->packed->layer.desc;
    const vkmoe_layer_desc *b = &plan->program->graph.layer.desc;
    if (plan->context != weights->context)
        return moe_fail(VKMOE_E_ARGUMENT, "plan and weights are of different contexts");
    if (!moe_layer_same_weights(&weights->packed->layer, &plan->program->graph.layer))
        return moe_fail(VKMOE_E_SHAPE,
                        "the weights are of another layer: n_experts %u, d_model %u, d_ff %u, "
                        "d_out %u; the plan has %u, %u, %u, %u, or other types, biases or shared "
                        "expert", a->n_experts, a->d_model, a->d_ff, a->d_out, b->n_experts,
                        b->d_model, b->d_ff, b->d_out);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_bind_create(vkmoe_plan *plan, vkmoe_weights *weights,
                                    const vkmoe_bind_desc *desc, vkmoe_bind **out)
{
    enum vkmoe_status status;
    vkmoe_bind_desc full = vkmoe_bind_desc_init();
    vkmoe_vk_io vk_io;
    vkmoe_bind *bind = NULL;
    TRY(NOT_NULL(out));
    *out = NULL;
    TRY(NOT_NULL(plan));
    if (desc)
        TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_bind_desc"));
    TRY(check_weights(plan, weights));
    if (full.vk_io)
        TRY(check_vk_io(&vk_io, full.vk_io, plan->program));
    TRY(moe_api_device_ok(plan->context));

    TRY(moe_try_alloc(&plan->context->host, sizeof *bind, "bind object", &bind));
    bind->plan = plan;
    bind->own_io = !full.vk_io;
    TRY(plan->context->device->backend->bind_create(plan->program,
                                                    weights ? weights->packed : NULL,
                                                    full.vk_io ? &vk_io : NULL, &bind->bound));
    *out = bind;
    return VKMOE_OK;
fail:
    vkmoe_bind_destroy(bind);
    return status;
}

void vkmoe_bind_destroy(vkmoe_bind *bind)
{
    if (!bind)
        return;
    vkmoe_context *context = bind->plan->context;
    moe_layer_net_destroy(bind->layer_net);
    if (bind->bound)
        context->device->backend->bind_destroy(bind->bound);
    moe_free(&context->host, bind);
}
