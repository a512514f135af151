// SPDX-License-Identifier: MIT
// Layer checks and weight types, without a device.
#include "api/api.h"
#include "core/dtype.h"

const char *vkmoe_dtype_name(enum vkmoe_dtype type)
{
    return moe_dtype_valid(type) ? moe_dtype_info(type)->name : "unknown";
}

enum vkmoe_status vkmoe_dtype_from_name(const char *name, enum vkmoe_dtype *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(name));
    TRY(NOT_NULL(out));
    for (uint32_t i = 0; i < MOE_N_DTYPES; i++) {
        if (strcmp(moe_dtype_info((enum vkmoe_dtype) i)->name, name) == 0) {
            *out = (enum vkmoe_dtype) i;
            return VKMOE_OK;
        }
    }
    return moe_fail(VKMOE_E_ARGUMENT, "no weight type \"%.64s\"", name);
fail:
    return status;
}

// A row of n values is whole blocks; of fp8 it may end in a part of one.
static enum vkmoe_status check_row(enum vkmoe_dtype type, size_t n)
{
    if (!moe_dtype_valid(type))
        return moe_fail(VKMOE_E_ARGUMENT, "type %u: there are %d types", (uint32_t) type,
                        MOE_N_DTYPES);
    const struct moe_dtype_info *info = moe_dtype_info(type);
    if (type != VKMOE_FP8 && n % info->block_elements != 0)
        return moe_fail(VKMOE_E_SHAPE, "%zu values of %s: no multiple of %u, a block", n,
                        info->name, info->block_elements);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_dtype_convert(enum vkmoe_dtype type, const float *src, size_t n, void *dst)
{
    enum vkmoe_status status;
    TRY(check_row(type, n));
    if (n == 0)
        return VKMOE_OK;
    TRY(NOT_NULL(src));
    TRY(NOT_NULL(dst));
    moe_dtype_encode(type, src, n, dst);
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status vkmoe_dtype_to_f32(enum vkmoe_dtype type, const void *src, size_t n, float *dst)
{
    enum vkmoe_status status;
    TRY(check_row(type, n));
    if (n == 0)
        return VKMOE_OK;
    TRY(NOT_NULL(src));
    TRY(NOT_NULL(dst));
    moe_dtype_decode(type, src, n, dst);
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status vkmoe_dtype_block(enum vkmoe_dtype type, uint32_t *n_values, uint32_t *size)
{
    enum vkmoe_status status;
    TRY(check_row(type, 0));
    if (n_values)
        *n_values = moe_dtype_info(type)->block_elements;
    if (size)
        *size = moe_dtype_info(type)->block_size;
fail:
    return status;
}

enum vkmoe_status vkmoe_layer_check(const vkmoe_layer_desc *layer)
{
    enum vkmoe_status status;
    struct moe_layer checked;
    TRY(NOT_NULL(layer));
    TRY(moe_layer_init(&checked, layer));
    return VKMOE_OK;
fail:
    return status;
}
