// SPDX-License-Identifier: MIT
// Layers as a vkmoe-model. A vkmoe-model keeps its configuration and all tensors that are not
// converted; of any other model a configuration is made of the layers' full descriptions.
#include "model/save.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>

// The tensors of the file as they come together.
struct list {
    struct moe_save *save;
    struct moe_st_source *sources;
    struct copy *copies; // what is behind those that are copied
    char (*names)[96];
    size_t n;
    json_t *types; // name -> type, of rows of blocks
};

struct copy {
    const struct moe_safetensors *file;
    const struct moe_st_tensor *tensor;
};

static enum vkmoe_status fill_copy(void *user, uint64_t offset, size_t size, void *dst)
{
    const struct copy *copy = user;
    return moe_safetensors_read(copy->file, copy->tensor, offset, size, dst);
}

static enum vkmoe_status note_type(struct list *list, const char *name, enum vkmoe_dtype type)
{
    if (json_object_set_new(list->types, name, json_string(vkmoe_dtype_name(type))) != 0)
        return moe_fail(VKMOE_E_MEMORY, "%s: types", list->save->path);
    return VKMOE_OK;
}

// ---- converted -------------------------------------------------------------------------------

// As the model format calls it: matrices and the router end with "weight".
static void name_of(const struct moe_save_item *item, uint32_t index, char name[96])
{
    bool weight = moe_part_is_matrix(item->part) || item->part == VKMOE_PART_ROUTER;
    snprintf(name, 96, "layers.%u.%s%s", index, vkmoe_part_name(item->part),
             weight ? ".weight" : "");
}

static enum vkmoe_status add_item(struct list *list, struct moe_save_item *item, uint32_t index)
{
    static const char *const dtypes[] = {[VKMOE_F32] = "F32", [VKMOE_F16] = "F16",
                                         [VKMOE_BF16] = "BF16"};
    const struct moe_bound *bound = &item->layer->parts[item->part];
    bool is_block = item->type > VKMOE_BF16;
    struct moe_st_source *out = &list->sources[list->n];
    char *name = list->names[list->n++];
    name_of(item, index, name);
    *out = (struct moe_st_source){.name = name, .fill = moe_save_fill, .user = item};
    out->dtype = item->part == VKMOE_PART_TABLE ? "I32" : is_block ? "U8" : dtypes[item->type];
    if (moe_part_is_stacked(item->part))
        out->dims[out->n_dims++] = item->n;
    // One gate vector of a shared expert has one dimension.
    if (bound->shape == MOE_SHAPE_VECTOR || item->n_rows > 1 ||
        item->part != VKMOE_PART_SHARED_GATE)
        out->dims[out->n_dims++] = item->n_rows;
    if (bound->shape == MOE_SHAPE_MATRIX)
        out->dims[out->n_dims++] = is_block ? item->row_size : item->n_columns;
    return is_block ? note_type(list, name, item->type) : VKMOE_OK;
}

// ---- of a vkmoe-model ------------------------------------------------------------------------

// The item that a tensor of the model becomes; NULL: it is copied.
static struct moe_save_item *find_item(const struct list *list, const char *name)
{
    for (size_t i = 0; i < list->save->n_items; i++) {
        struct moe_save_item *item = &list->save->items[i];
        char own[96];
        name_of(item, item->index, own);
        if (moe_part_is_matrix(item->part) && strcmp(own, name) == 0)
            return item;
    }
    return NULL;
}

// Every tensor of the file, in its order.
static enum vkmoe_status add_model(struct list *list)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_safetensors *file = &list->save->checkpoint->source.single;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct moe_st_tensor *tensor = &file->tensors[i];
        struct moe_save_item *item = find_item(list, tensor->name);
        enum vkmoe_dtype type;
        uint64_t n_columns;
        if (item) {
            TRY(add_item(list, item, item->index));
            continue;
        }
        struct copy *copy = &list->copies[list->n];
        *copy = (struct copy){file, tensor};
        struct moe_st_source *out = &list->sources[list->n++];
        *out = (struct moe_st_source){tensor->name, tensor->dtype->name, tensor->n_dims,
                                      .fill = fill_copy, .user = copy};
        memcpy(out->dims, tensor->dims, sizeof out->dims);
        if (moe_st_block_type(file, tensor, &type, &n_columns))
            TRY(note_type(list, tensor->name, type));
    }

fail:
    return status;
}

// ---- of others -------------------------------------------------------------------------------

static enum vkmoe_status add_layers(struct list *list)
{
    enum vkmoe_status status = VKMOE_OK;
    for (size_t i = 0; i < list->save->n_items; i++)
        TRY(add_item(list, &list->save->items[i], list->save->items[i].index_out));

fail:
    return status;
}

// Layers one behind the other: they are kept in one file, and run one at a time.
static enum vkmoe_status make_config(const struct moe_save *save, json_t **out)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_layer_desc *first = &save->layers[0];
    json_t *layers = json_array();
    *out = json_pack("{s:s, s:s, s:{s:s, s:i}, s:O, s:s}", "format", MOE_MODEL_FORMAT, "task",
                     "regress", "input", "kind", "none", "n_features", (int) first->d_model,
                     "layers", layers, "head", "identity");
    for (uint32_t i = 0; i < save->n_layers; i++) {
        const vkmoe_layer_desc *d = &save->layers[i];
        if (d->d_model != first->d_model || (d->d_out != 0 && d->d_out != d->d_model)) {
            status = moe_fail(VKMOE_E_UNSUPPORTED, "%s: layer %u takes %u and gives %u, the first "
                              "one takes %u: give --layer", save->path, save->numbers[i],
                              d->d_model, d->d_out, first->d_model);
            goto fail;
        }
        json_array_append_new(layers, json_pack("{s:s, s:o}", "kind", "moe", "layer",
                                                moe_layer_fields_write(d)));
    }
    if (!*out || json_array_size(layers) != save->n_layers)
        status = moe_fail(VKMOE_E_MEMORY, "%s: config", save->path);

fail:
    json_decref(layers);
    return status;
}

// ---- the file --------------------------------------------------------------------------------

static enum vkmoe_status make_metadata(const struct moe_save *save, const json_t *types,
                                       json_t **out)
{
    enum vkmoe_status status = VKMOE_OK;
    const bool is_model = save->checkpoint->kind == VKMOE_CHECKPOINT_MODEL;
    json_t *config = NULL;
    const char *old = moe_safetensors_metadata(&save->checkpoint->source.single, "config");
    char *text = NULL, *type_text = NULL;
    if (!is_model)
        TRY(make_config(save, &config));
    text = json_dumps(config, JSON_COMPACT);
    type_text = json_dumps(types, JSON_COMPACT);
    *out = (is_model || text) && type_text
               ? json_pack("{s:s, s:s}", "format", MOE_MODEL_FORMAT, "config",
                           is_model ? old : text)
               : NULL;
    if (*out && json_object_size(types) > 0)
        json_object_set_new(*out, "types", json_string(type_text));
    if (!*out)
        status = moe_fail(VKMOE_E_MEMORY, "%s: config", save->path);

fail:
    free(type_text);
    free(text);
    json_decref(config);
    return status;
}

enum vkmoe_status moe_save_model(struct moe_save *save)
{
    enum vkmoe_status status;
    const vkmoe_host *host = &save->checkpoint->host;
    const bool is_model = save->checkpoint->kind == VKMOE_CHECKPOINT_MODEL;
    const size_t n = is_model ? save->checkpoint->source.single.n_tensors : save->n_items;
    struct list list = {.save = save, .types = json_object()};
    json_t *metadata = NULL;
    TRY(moe_try_alloc(host, (n + 1) * sizeof *list.sources, "tensors", &list.sources));
    TRY(moe_try_alloc(host, (n + 1) * sizeof *list.copies, "tensors", &list.copies));
    TRY(moe_try_alloc(host, (n + 1) * sizeof *list.names, "names", &list.names));
    TRY(is_model ? add_model(&list) : add_layers(&list));
    TRY(make_metadata(save, list.types, &metadata));
    TRY(moe_safetensors_write(host, save->path, list.sources, list.n, metadata));

fail:
    json_decref(metadata);
    json_decref(list.types);
    moe_free(host, list.names);
    moe_free(host, list.copies);
    moe_free(host, list.sources);
    return status;
}
