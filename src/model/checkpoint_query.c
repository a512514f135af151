// SPDX-License-Identifier: MIT
// What a checkpoint tells of its layers, their parts and tensors.
#include "model/checkpoint.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <stdio.h>

const char *vkmoe_part_name(enum vkmoe_part part)
{
    static const char *const names[VKMOE_N_PARTS] = {
        "router", "router.bias", "router.selection_bias", "router.table", "router.expert_scale",
        "router.prenorm_scale", "shared.gate_vector", "shared.gate_vector.bias", "latent.down",
        "latent.up", "latent.norm", "out_bias",
        "experts.gate", "experts.up", "experts.down", "experts.gate.bias", "experts.up.bias",
        "experts.down.bias", "shared.gate", "shared.up", "shared.down", "shared.gate.bias",
        "shared.up.bias", "shared.down.bias", "adjugate.gate", "adjugate.up", "adjugate.down",
        "adjugate.gate.bias", "adjugate.up.bias", "adjugate.down.bias",
    };
    return (uint32_t) part < VKMOE_N_PARTS ? names[part] : "unknown";
}

static enum vkmoe_status check_arguments(const void *checkpoint, const void *out,
                                         const char *function)
{
    if (!checkpoint || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s is NULL", function,
                        checkpoint ? "out" : "checkpoint");
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_checkpoint_get_info(const vkmoe_checkpoint *c, vkmoe_checkpoint_info *out)
{
    enum vkmoe_status status = check_arguments(c, out, "vkmoe_checkpoint_get_info");
    if (status != VKMOE_OK)
        return status;
    *out = (vkmoe_checkpoint_info){
        .kind = c->kind,
        .family = c->kind == VKMOE_CHECKPOINT_MODEL ? "vkmoe-model/1"
                  : c->family                       ? c->family->name
                                                    : "description",
        .says = c->says,
        .n_layers = c->n_layers,
    };
    return VKMOE_OK;
}

// ---- sizes -----------------------------------------------------------------------------------

static uint64_t part_size(const struct moe_checkpoint_layer *l, uint32_t part)
{
    const struct moe_bound *bound = &l->parts[part];
    return bound->place ? bound->n_rows * moe_dtype_size(bound->type, bound->n_columns) : 0;
}

// Of one expert of a bank.
static uint64_t bank_size(const struct moe_checkpoint_layer *l, uint32_t first)
{
    uint64_t size = 0;
    for (uint32_t i = 0; i < 6; i++)
        size += part_size(l, first + i);
    return size;
}

static void measure(const struct moe_checkpoint_layer *l, vkmoe_checkpoint_layer *out)
{
    const vkmoe_layer_desc *d = &l->desc;
    uint64_t around = 0, expert = bank_size(l, VKMOE_PART_GATE);
    uint64_t adjugate = bank_size(l, VKMOE_PART_ADJUGATE);
    for (uint32_t i = 0; i < VKMOE_PART_GATE; i++)
        around += part_size(l, i);
    around += bank_size(l, VKMOE_PART_SHARED);
    out->size = around + l->parts[VKMOE_PART_UP].n * expert +
                l->parts[VKMOE_PART_ADJUGATE + 1].n * adjugate;
    out->token_size = around + (uint64_t) d->top_k * (expert + adjugate);
    for (uint32_t i = 0; i < l->n_tensors; i++)
        out->file_size += l->tensors[i].size;
}

enum vkmoe_status vkmoe_checkpoint_get_layer(vkmoe_checkpoint *c, uint32_t layer,
                                             vkmoe_checkpoint_layer *out)
{
    enum vkmoe_status status;
    struct moe_checkpoint_layer *l = NULL;
    TRY(check_arguments(c, out, "vkmoe_checkpoint_get_layer"));
    TRY(moe_checkpoint_layer(c, layer, &l));
    *out = (vkmoe_checkpoint_layer){.has_experts = l->has_experts};
    if (!l->has_experts) {
        out->reason = l->reason;
        return VKMOE_OK;
    }
    out->desc = l->desc;
    out->n_tensors = l->n_tensors;
    moe_router_words(&l->desc, out->router, sizeof out->router);
    measure(l, out);

fail:
    return status;
}

// ---- parts -----------------------------------------------------------------------------------

static enum vkmoe_status get_bound(vkmoe_checkpoint *c, uint32_t layer, enum vkmoe_part part,
                                   struct moe_bound **out)
{
    struct moe_checkpoint_layer *l = NULL;
    enum vkmoe_status status = moe_checkpoint_moe_layer(c, layer, &l);
    if (status != VKMOE_OK)
        return status;
    if ((uint32_t) part >= VKMOE_N_PARTS)
        return moe_fail(VKMOE_E_ARGUMENT, "part %u: no such part", (uint32_t) part);
    *out = &l->parts[part];
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_checkpoint_get_part(vkmoe_checkpoint *c, uint32_t layer,
                                            enum vkmoe_part part, vkmoe_checkpoint_part *out)
{
    enum vkmoe_status status;
    struct moe_bound *bound = NULL;
    TRY(check_arguments(c, out, "vkmoe_checkpoint_get_part"));
    TRY(get_bound(c, layer, part, &bound));
    *out = (vkmoe_checkpoint_part){0};
    if (!bound->place)
        return VKMOE_OK;
    bool vector = bound->shape == MOE_SHAPE_VECTOR;
    out->n = bound->n;
    out->n_rows = vector ? 1 : bound->n_rows;
    out->n_columns = vector ? bound->n_rows : bound->n_columns;
    out->type = moe_part_is_matrix(part) ? bound->type : VKMOE_F32;
    out->exact = bound->exact || !moe_part_is_matrix(part);
    struct moe_place place = *bound->place;
    if (vector)
        place.transposed = false;
    moe_matrix_words(&bound->matrices[0], &place, out->stored);

fail:
    return status;
}

enum vkmoe_status moe_bound_read(const vkmoe_checkpoint *c, const struct moe_bound *bound,
                                 uint32_t i, uint32_t first_row, uint32_t n_rows, float *dst)
{
    struct moe_reader reader;
    enum vkmoe_status status = moe_reader_open(&c->source, bound, i, &reader);
    for (uint32_t r = 0; status == VKMOE_OK && r < n_rows; r++)
        status = moe_reader_row(&reader, first_row + r, dst + (size_t) r * bound->n_columns);
    moe_reader_close(&reader);
    return status;
}

enum vkmoe_status vkmoe_checkpoint_read(vkmoe_checkpoint *c, uint32_t layer, enum vkmoe_part part,
                                        uint32_t i, uint32_t first_row, uint32_t n_rows,
                                        float *dst)
{
    enum vkmoe_status status;
    struct moe_bound *bound = NULL;
    TRY(check_arguments(c, dst, "vkmoe_checkpoint_read"));
    TRY(get_bound(c, layer, part, &bound));
    bool vector = bound->shape == MOE_SHAPE_VECTOR;
    uint32_t n = !bound->place ? 0 : vector ? 1 : bound->n_rows;
    if (part == VKMOE_PART_TABLE)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_checkpoint_read: a table holds no weights");
    if (i >= bound->n || first_row > n || n_rows > n - first_row)
        return moe_fail(VKMOE_E_ARGUMENT, "layer %u: %s %u, rows %u to %u: there are %u of %u rows",
                        layer, vkmoe_part_name(part), i, first_row, first_row + n_rows, bound->n,
                        n);
    TRY(moe_bound_read(c, bound, i, vector ? 0 : first_row,
                       vector ? n_rows * bound->n_rows : n_rows, dst));

fail:
    return status;
}

enum vkmoe_status vkmoe_checkpoint_get_tensor(vkmoe_checkpoint *c, uint32_t layer, uint32_t i,
                                              vkmoe_checkpoint_tensor *out)
{
    enum vkmoe_status status;
    struct moe_checkpoint_layer *l = NULL;
    TRY(check_arguments(c, out, "vkmoe_checkpoint_get_tensor"));
    TRY(moe_checkpoint_moe_layer(c, layer, &l));
    if (i >= l->n_tensors)
        return moe_fail(VKMOE_E_ARGUMENT, "layer %u: tensor %u of %u", layer, i, l->n_tensors);
    *out = l->tensors[i];

fail:
    return status;
}
