// SPDX-License-Identifier: MIT
// Rows of blocks in safetensors files, which have no type for them: U8 tensors, and beside them a
// list of their types.
#include "model/safetensors.h"

#include "base/status.h"

#include <vkmoe/layer.h>

static enum vkmoe_status check_entry(struct moe_safetensors *file, const char *path,
                                     const char *name, const json_t *value)
{
    enum vkmoe_dtype type;
    uint32_t n_values, size;
    char text[192];
    const char *word = json_string_value(value);
    const struct moe_st_tensor *tensor = moe_safetensors_find(file, name);
    if (!word || vkmoe_dtype_from_name(word, &type) != VKMOE_OK ||
        vkmoe_dtype_block(type, &n_values, &size) != VKMOE_OK || n_values == 1)
        return moe_fail(VKMOE_E_DATA, "%s: types: '%.90s': '%.20s' is no type of blocks", path,
                        name, word ? word : "(not a text)");
    if (!tensor)
        return moe_fail(VKMOE_E_DATA, "%s: types: there is no tensor '%.90s'", path, name);
    if (strcmp(tensor->dtype->name, "U8") != 0 || tensor->n_dims == 0 ||
        tensor->dims[tensor->n_dims - 1] % size != 0)
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%.90s': %s is not rows of blocks of %u bytes, "
                        "%s", path, name, moe_st_describe(tensor, text), size, word);
    return VKMOE_OK;
}

enum vkmoe_status moe_safetensors_read_types(struct moe_safetensors *file, const char *path)
{
    json_error_t error;
    const char *name, *text = moe_safetensors_metadata(file, "types");
    json_t *value;
    if (!text || file->types)
        return VKMOE_OK;
    json_t *types = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    enum vkmoe_status status = VKMOE_OK;
    if (!json_is_object(types))
        status = moe_fail(VKMOE_E_DATA, "%s: types: not a JSON object", path);
    json_object_foreach(types, name, value) {
        if (status == VKMOE_OK)
            status = check_entry(file, path, name, value);
    }
    if (status == VKMOE_OK)
        file->types = json_incref(types);
    json_decref(types);
    return status;
}

bool moe_st_block_type(const struct moe_safetensors *file, const struct moe_st_tensor *tensor,
                       enum vkmoe_dtype *type, uint64_t *n_columns)
{
    uint32_t n_values, size;
    const char *word = json_string_value(json_object_get(file->types, tensor->name));
    if (!word || vkmoe_dtype_from_name(word, type) != VKMOE_OK ||
        vkmoe_dtype_block(*type, &n_values, &size) != VKMOE_OK)
        return false;
    *n_columns = tensor->dims[tensor->n_dims - 1] / size * n_values;
    return true;
}
