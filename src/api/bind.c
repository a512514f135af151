// SPDX-License-Identifier: MIT
#include "api/api.h"
#include "base/bits.h"
#include "base/desc.h"
#include "core/dtype.h"

enum vkmoe_status moe_api_stride(const char *name, size_t *stride, uint32_t width,
                                 enum vkmoe_dtype type)
{
    size_t row_size = moe_dtype_size(type, width);
    if (*stride == 0)
        *stride = row_size;
    if (*stride % 4 != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "%s_stride = %zu: must be a multiple of 4", name,
                        *stride);
    if (*stride < row_size)
        return moe_fail(VKMOE_E_ARGUMENT, "%s_stride = %zu: a row takes %zu bytes", name, *stride,
                        row_size);
    return VKMOE_OK;
}

bool moe_api_extent(uint64_t n_rows, size_t stride, size_t row_size, uint64_t *out)
{
    return moe_mul(n_rows - 1, stride, out) && !__builtin_add_overflow(*out, row_size, out);
}

static enum vkmoe_status check_vk_buffer(const char *name, const vkmoe_vk_buffer *buffer,
                                         uint64_t n_rows, size_t stride, size_t row_size)
{
    uint64_t extent;
    if (!buffer->buffer)
        return moe_fail(VKMOE_E_ARGUMENT, "vk_io.%s.buffer is NULL", name);
    if (buffer->offset % 256 != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "vk_io.%s.offset = %llu: must be a multiple of 256", name,
                        (unsigned long long) buffer->offset);
    if (buffer->size > UINT64_MAX - buffer->offset)
        return moe_fail(VKMOE_E_ARGUMENT, "vk_io.%s.size = %llu: passes the end of any buffer",
                        name, (unsigned long long) buffer->size);
    if (!moe_api_extent(n_rows, stride, row_size, &extent) || buffer->size < extent)
        return moe_fail(VKMOE_E_SHAPE, "vk_io.%s.size = %llu: %llu rows of stride %zu do not fit",
                        name, (unsigned long long) buffer->size, (unsigned long long) n_rows,
                        stride);
    return VKMOE_OK;
}

// Copies and checks the caller's buffers; strides are filled in.
static enum vkmoe_status check_vk_io(vkmoe_vk_io *out, const vkmoe_vk_io *io,
                                     const struct moe_program *program)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *layer = &program->graph.layer.desc;
    *out = vkmoe_vk_io_init();
    if (!program->device->backend->vk_record)
        return moe_fail(VKMOE_E_UNSUPPORTED, "bind.vk_io on %s: needs a Vulkan device",
                        program->device->info.name);
    TRY(moe_desc_copy(out, sizeof *out, io, "vkmoe_vk_io"));
    TRY(moe_api_stride("vk_io.x", &out->x_stride, layer->d_model, VKMOE_F32));
    TRY(moe_api_stride("vk_io.y", &out->y_stride, layer->d_out, VKMOE_F32));
    TRY(check_vk_buffer("x", &out->x, program->max_tokens, out->x_stride,
                        moe_dtype_size(VKMOE_F32, layer->d_model)));
    TRY(check_vk_buffer("y", &out->y, program->max_tokens, out->y_stride,
                        moe_dtype_size(VKMOE_F32, layer->d_out)));
    if (out->x.buffer == out->y.buffer && out->x.offset < out->y.offset + out->y.size &&
        out->y.offset < out->x.offset + out->x.size)
        return moe_fail(VKMOE_E_ARGUMENT, "vk_io.x and vk_io.y overlap");
    return VKMOE_OK;
fail:
    return status;
}

static enum vkmoe_status check_weights(const vkmoe_plan *plan, const vkmoe_weights *weights)
{
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
    TRY(NOT_NULL(weights));
    if (desc)
        TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_bind_desc"));
    TRY(check_weights(plan, weights));
    if (full.vk_io)
        TRY(check_vk_io(&vk_io, full.vk_io, plan->program));
    TRY(moe_api_device_ok(plan->context));

    TRY(moe_try_alloc(&plan->context->host, sizeof *bind, "bind object", &bind));
    bind->plan = plan;
    bind->own_io = !full.vk_io;
    TRY(plan->context->device->backend->bind_create(plan->program, weights->packed,
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
    if (bind->bound)
        context->device->backend->bind_destroy(bind->bound);
    moe_free(&context->host, bind);
}
