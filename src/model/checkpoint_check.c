// SPDX-License-Identifier: MIT
// Do the shapes of a layer's tensors agree with each other and with the configuration? And the list
// of those tensors.
#include "model/checkpoint.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <stdlib.h>

struct shape {
    enum vkmoe_part part;
    uint32_t n_rows, n_columns;
};

static enum vkmoe_status check_shape(const vkmoe_checkpoint *checkpoint, uint32_t layer,
                                     const struct moe_checkpoint_layer *l,
                                     const struct shape *wanted)
{
    const struct moe_bound *part = &l->parts[wanted->part];
    char text[192];
    if (!part->place || (part->n_rows == wanted->n_rows && part->n_columns == wanted->n_columns))
        return VKMOE_OK;
    return moe_fail(VKMOE_E_DATA, "%s: layer %u: tensor '%s': %s gives %s (%u, %u), but the "
                    "configuration and other tensors say (%u, %u)", checkpoint->path, layer,
                    part->matrices[0].weight.name,
                    moe_source_describe(&part->matrices[0].weight, text, sizeof text),
                    vkmoe_part_name(wanted->part), part->n_rows, part->n_columns, wanted->n_rows,
                    wanted->n_columns);
}

static enum vkmoe_status check_bank(const vkmoe_checkpoint *checkpoint, uint32_t layer,
                                    const struct moe_checkpoint_layer *l, uint32_t first,
                                    uint32_t d_in, uint32_t d_ff, uint32_t d_out)
{
    const struct shape shapes[] = {
        {(enum vkmoe_part) first, d_ff, d_in},
        {(enum vkmoe_part) (first + 1), d_ff, d_in},
        {(enum vkmoe_part) (first + 2), d_out, d_ff},
        {(enum vkmoe_part) (first + 3), d_ff, 1},
        {(enum vkmoe_part) (first + 4), d_ff, 1},
        {(enum vkmoe_part) (first + 5), d_out, 1},
    };
    for (size_t i = 0; i < MOE_COUNT(shapes); i++) {
        enum vkmoe_status status = check_shape(checkpoint, layer, l, &shapes[i]);
        if (status != VKMOE_OK)
            return status;
    }
    return VKMOE_OK;
}

// The width of the shared expert that the configuration has; 0: it says nothing of it. Keys of
// GGUF may leave it to the tensors.
static uint32_t shared_width(const vkmoe_checkpoint *checkpoint, const struct moe_facts *facts,
                             uint32_t d_ff)
{
    if (facts->d_shared > 0)
        return facts->d_shared;
    uint64_t all = (uint64_t) facts->n_shared * d_ff;
    return checkpoint->source.is_gguf ? 0 : (uint32_t) moe_min(all, UINT32_MAX);
}

static enum vkmoe_status check_around(const vkmoe_checkpoint *checkpoint, uint32_t layer,
                                      const struct moe_checkpoint_layer *l, uint32_t d_out)
{
    const vkmoe_layer_desc *d = &l->desc;
    uint32_t n = d->n_experts + d->n_zero;
    uint32_t n_gates = d->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1;
    const struct shape shapes[] = {
        {VKMOE_PART_ROUTER, n, d->d_model},
        {VKMOE_PART_ROUTER_BIAS, n, 1},
        {VKMOE_PART_SELECTION_BIAS, n, 1},
        {VKMOE_PART_TABLE, d->n_token_ids, d->top_k},
        {VKMOE_PART_EXPERT_SCALE, n, 1},
        {VKMOE_PART_PRENORM_SCALE, d->d_model, 1},
        {VKMOE_PART_SHARED_GATE, n_gates, d->d_model},
        {VKMOE_PART_SHARED_GATE_BIAS, n_gates, 1},
        {VKMOE_PART_LATENT_DOWN, d->d_latent, d->d_model},
        {VKMOE_PART_LATENT_UP, d_out, d->d_latent},
        {VKMOE_PART_LATENT_NORM, d->d_latent, 1},
        {VKMOE_PART_OUT_BIAS, d_out, 1},
    };
    for (size_t i = 0; i < MOE_COUNT(shapes); i++) {
        enum vkmoe_status status = check_shape(checkpoint, layer, l, &shapes[i]);
        if (status != VKMOE_OK)
            return status;
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_checkpoint_check(const vkmoe_checkpoint *checkpoint, uint32_t layer,
                                       const struct moe_facts *facts,
                                       struct moe_checkpoint_layer *l)
{
    enum vkmoe_status status;
    vkmoe_layer_desc *d = &l->desc;
    uint32_t d_out = d->d_out ? d->d_out : d->d_model;
    uint32_t d_in = d->d_latent ? d->d_latent : d->d_model;
    uint32_t d_routed_out = d->d_latent ? d->d_latent : d_out;
    uint32_t width = shared_width(checkpoint, facts, d->d_ff);
    struct moe_bound *table = &l->parts[VKMOE_PART_TABLE];
    if (d->top_k == 0)
        return moe_fail(VKMOE_E_DATA, "%s: layer %u: the configuration does not say how many "
                        "experts a token takes", checkpoint->path, layer);
    if (table->place && d->n_token_ids == 0)
        d->n_token_ids = table->n_rows;
    TRY(check_around(checkpoint, layer, l, d_out));
    TRY(check_bank(checkpoint, layer, l, VKMOE_PART_GATE, d_in, d->d_ff, d_routed_out));
    TRY(check_bank(checkpoint, layer, l, VKMOE_PART_ADJUGATE, d_in, d->d_adjugate, d_routed_out));
    TRY(check_bank(checkpoint, layer, l, VKMOE_PART_SHARED, d->d_model,
                   width ? width : d->d_shared_ff, d_out));

fail:
    return status;
}

// ---- the list of tensors ---------------------------------------------------------------------

static void add(const struct moe_source_tensor *tensor, enum vkmoe_part part,
                struct moe_checkpoint_layer *l)
{
    if (!tensor->name)
        return;
    vkmoe_checkpoint_tensor *out = &l->tensors[l->n_tensors++];
    out->name = tensor->name;
    out->part = part;
    out->size = tensor->size;
    moe_source_describe(tensor, out->stored, sizeof out->stored);
}

static int by_name(const void *a, const void *b)
{
    const vkmoe_checkpoint_tensor *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (int) x->part - (int) y->part;
}

static int by_part(const void *a, const void *b)
{
    const vkmoe_checkpoint_tensor *x = a, *y = b;
    return x->part != y->part ? (int) x->part - (int) y->part : strcmp(x->name, y->name);
}

enum vkmoe_status moe_checkpoint_list(const vkmoe_checkpoint *checkpoint,
                                      struct moe_checkpoint_layer *l)
{
    size_t n = 0;
    for (int i = 0; i < VKMOE_N_PARTS; i++)
        n += 3 * (size_t) l->parts[i].n_matrices;
    enum vkmoe_status status =
        moe_try_alloc(&checkpoint->host, n * sizeof *l->tensors, "list of tensors", &l->tensors);
    if (status != VKMOE_OK)
        return status;
    for (int i = 0; i < VKMOE_N_PARTS; i++) {
        for (uint32_t k = 0; k < l->parts[i].n_matrices; k++) {
            const struct moe_matrix *m = &l->parts[i].matrices[k];
            add(&m->weight, (enum vkmoe_part) i, l);
            add(&m->scale, (enum vkmoe_part) i, l);
            add(&m->global, (enum vkmoe_part) i, l);
        }
    }
    // A tensor of several parts counts once, for the first of them.
    qsort(l->tensors, l->n_tensors, sizeof *l->tensors, by_name);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < l->n_tensors; i++) {
        if (kept == 0 || strcmp(l->tensors[i].name, l->tensors[kept - 1].name) != 0)
            l->tensors[kept++] = l->tensors[i];
    }
    l->n_tensors = kept;
    qsort(l->tensors, l->n_tensors, sizeof *l->tensors, by_part);
    return VKMOE_OK;
}
