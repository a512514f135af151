// SPDX-License-Identifier: MIT
// The weight types that stored matrices become.
#include "model/checkpoint.h"

#include "base/bits.h"

// The best first.
static const enum vkmoe_dtype by_quality[] = {
    VKMOE_F32,  VKMOE_BF16, VKMOE_F16,  VKMOE_Q8_0,  VKMOE_FP8,  VKMOE_Q6_K,
    VKMOE_Q5_K, VKMOE_Q4_K, VKMOE_Q4_0, VKMOE_MXFP4, VKMOE_Q2_K,
};

// Types of so few bits that none of them can stand for another: q8_0 can for all.
static bool is_coarse(enum vkmoe_dtype type)
{
    return type == VKMOE_Q4_K || type == VKMOE_Q4_0 || type == VKMOE_MXFP4 || type == VKMOE_Q2_K;
}

enum vkmoe_dtype moe_better_type(enum vkmoe_dtype a, enum vkmoe_dtype b)
{
    if (a != b && is_coarse(a) && is_coarse(b))
        return VKMOE_Q8_0;
    for (size_t i = 0; i < MOE_COUNT(by_quality); i++) {
        if (by_quality[i] == a || by_quality[i] == b)
            return by_quality[i];
    }
    return a;
}

enum vkmoe_dtype moe_fitting_type(enum vkmoe_dtype type, uint64_t n)
{
    uint32_t n_values = 1, size;
    if (vkmoe_dtype_block(type, &n_values, &size) != VKMOE_OK || type == VKMOE_FP8 ||
        n % n_values == 0)
        return type;
    return n % 32 == 0 ? VKMOE_Q8_0 : VKMOE_F16;
}

// The type that holds all matrices of a part best; false: not all of them in full.
static bool type_of(const struct moe_bound *part, enum vkmoe_dtype *out)
{
    bool exact = moe_matrix_type(&part->matrices[0], part->place, out);
    for (uint32_t i = 1; i < part->n_matrices; i++) {
        enum vkmoe_dtype type;
        exact &= moe_matrix_type(&part->matrices[i], part->place, &type);
        if (type != *out) {
            *out = moe_better_type(*out, type);
            exact &= *out == VKMOE_F32; // which holds every other
        }
    }
    return exact;
}

static enum vkmoe_dtype bank_in_type(struct moe_checkpoint_layer *layer, uint32_t bank)
{
    const struct moe_bound *gate = &layer->parts[bank], *up = gate + 1;
    return gate->place ? moe_better_type(gate->type, up->type) : up->type;
}

enum vkmoe_dtype moe_part_type(const vkmoe_layer_desc *d, enum vkmoe_part part)
{
    if (part == VKMOE_PART_LATENT_DOWN || part == VKMOE_PART_LATENT_UP)
        return d->latent_type;
    if (!moe_part_is_matrix(part))
        return VKMOE_F32;
    bool shared = part >= VKMOE_PART_SHARED && part < VKMOE_PART_ADJUGATE;
    bool out = (part - VKMOE_PART_GATE) % 6 == VKMOE_PART_DOWN - VKMOE_PART_GATE;
    if (shared && d->own_shared_types)
        return out ? d->shared_out_type : d->shared_in_type;
    return out ? d->out_type : d->in_type;
}

void moe_checkpoint_types(struct moe_checkpoint_layer *layer)
{
    vkmoe_layer_desc *d = &layer->desc;
    for (int i = 0; i < VKMOE_N_PARTS; i++) {
        struct moe_bound *part = &layer->parts[i];
        if (!part->place)
            continue;
        part->exact = type_of(part, &part->type);
    }
    d->in_type = bank_in_type(layer, VKMOE_PART_GATE);
    d->out_type = layer->parts[VKMOE_PART_DOWN].type;
    // Adjugate experts have the types of the others: what holds both.
    if (layer->parts[VKMOE_PART_ADJUGATE + 1].place) {
        d->in_type = moe_better_type(d->in_type, bank_in_type(layer, VKMOE_PART_ADJUGATE));
        d->out_type = moe_better_type(d->out_type, layer->parts[VKMOE_PART_ADJUGATE + 2].type);
    }
    if (layer->parts[VKMOE_PART_SHARED + 1].place) {
        d->shared_in_type = bank_in_type(layer, VKMOE_PART_SHARED);
        d->shared_out_type = layer->parts[VKMOE_PART_SHARED + 2].type;
        d->own_shared_types = d->shared_in_type != d->in_type || d->shared_out_type != d->out_type;
        if (!d->own_shared_types)
            d->shared_in_type = d->shared_out_type = VKMOE_F32;
    }
    if (layer->parts[VKMOE_PART_LATENT_DOWN].place)
        d->latent_type = moe_better_type(layer->parts[VKMOE_PART_LATENT_DOWN].type,
                                         layer->parts[VKMOE_PART_LATENT_UP].type);
    for (int i = 0; i < VKMOE_N_PARTS; i++) {
        struct moe_bound *part = &layer->parts[i];
        if (!part->place || !moe_part_is_matrix((enum vkmoe_part) i))
            continue;
        enum vkmoe_dtype type = moe_part_type(d, (enum vkmoe_part) i);
        // f32 holds whatever the others do.
        part->exact &= type == part->type || type == VKMOE_F32;
        part->type = type;
    }
}
