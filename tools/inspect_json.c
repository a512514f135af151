// SPDX-License-Identifier: MIT
// A layer as JSON; the help text of `vkmoe inspect` has the keys.
#include "inspect.h"

static enum vkmoe_status list_parts(const struct inspect *in, uint32_t index, json_t *out)
{
    enum vkmoe_status status = VKMOE_OK;
    for (int i = 0; i < VKMOE_N_PARTS; i++) {
        vkmoe_checkpoint_part part;
        CLI_TRY(vkmoe_checkpoint_get_part(in->checkpoint, index, (enum vkmoe_part) i, &part));
        if (part.n == 0)
            continue;
        json_array_append_new(
            out, json_pack("{s:s, s:i, s:i, s:i, s:s, s:s, s:b}", "part",
                           vkmoe_part_name((enum vkmoe_part) i), "n", (int) part.n, "rows",
                           (int) part.n_rows, "columns", (int) part.n_columns, "stored",
                           part.stored, "type",
                           i == VKMOE_PART_TABLE ? "i32" : vkmoe_dtype_name(part.type), "exact",
                           (int) part.exact));
    }

fail:
    return status;
}

static enum vkmoe_status list_tensors(const struct inspect *in, uint32_t index, uint32_t n,
                                      json_t *out)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < n; i++) {
        vkmoe_checkpoint_tensor tensor;
        CLI_TRY(vkmoe_checkpoint_get_tensor(in->checkpoint, index, i, &tensor));
        json_array_append_new(
            out, json_pack("{s:s, s:s, s:s, s:I}", "name", tensor.name, "part",
                           vkmoe_part_name(tensor.part), "stored", tensor.stored, "bytes",
                           (json_int_t) tensor.size));
    }

fail:
    return status;
}

static json_t *shape_of(const vkmoe_layer_desc *d)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "n_experts",
                     (int) d->n_experts, "top_k", (int) d->top_k, "d_model", (int) d->d_model,
                     "d_ff", (int) d->d_ff, "d_out", (int) (d->d_out ? d->d_out : d->d_model),
                     "d_shared_ff", (int) d->d_shared_ff, "n_zero", (int) d->n_zero, "d_latent",
                     (int) d->d_latent, "d_adjugate", (int) d->d_adjugate);
}

static void add_fit(const struct inspect *in, const vkmoe_checkpoint_layer *layer, json_t *out)
{
    struct inspect_fit fit = inspect_fit(in, layer);
    bool fits = fit.computed && fit.size <= in->device.memory_bytes;
    if (in->context)
        json_object_set_new(out, "fits", json_boolean(fits));
    if (*fit.reason)
        json_object_set_new(out, "why_not", json_string(fit.reason));
    else if (in->context)
        json_object_set_new(out, "device_bytes", json_integer((json_int_t) fit.size));
}

enum vkmoe_status inspect_json(const struct inspect *in, uint32_t index,
                               const vkmoe_checkpoint_layer *layer, json_t **out)
{
    enum vkmoe_status status = VKMOE_OK;
    json_t *o = json_pack("{s:i, s:b}", "layer", (int) index, "experts", (int) layer->has_experts);
    *out = o;
    if (!layer->has_experts) {
        json_object_set_new(o, "reason", json_string(layer->reason));
        return VKMOE_OK;
    }
    json_object_set_new(o, "router", json_string(layer->router));
    json_object_set_new(o, "shape", shape_of(&layer->desc));
    json_object_set_new(o, "router_input", json_boolean(layer->desc.router_input));
    json_object_set_new(o, "token_ids", json_boolean(layer->desc.select == VKMOE_SELECT_TABLE));
    json_object_set_new(o, "file_bytes", json_integer((json_int_t) layer->file_size));
    json_object_set_new(o, "bytes", json_integer((json_int_t) layer->size));
    json_object_set_new(o, "token_bytes", json_integer((json_int_t) layer->token_size));
    add_fit(in, layer, o);
    json_object_set_new(o, "parts", json_array());
    CLI_TRY(list_parts(in, index, json_object_get(o, "parts")));
    if (in->tensors) {
        json_object_set_new(o, "tensors", json_array());
        CLI_TRY(list_tensors(in, index, layer->n_tensors, json_object_get(o, "tensors")));
    }

fail:
    return status;
}
