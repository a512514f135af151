// SPDX-License-Identifier: MIT
// Finding the tensors of a layer. A part is looked for at the places of its family, in their order
// and with each of the prefixes that the family's models have.
#include "model/checkpoint.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <stdio.h>

enum { MAX_NAME = 320 };

struct binder {
    vkmoe_checkpoint *checkpoint;
    uint32_t layer;
    struct moe_checkpoint_layer *out;
};

// ---- names -----------------------------------------------------------------------------------

static void append(char *out, size_t *n, const char *text, size_t size)
{
    size = moe_min(size, MAX_NAME - 1 - *n);
    memcpy(out + *n, text, size);
    *n += size;
    out[*n] = '\0';
}

// Copies `pattern`, with numbers for {L}, {D} and {E} and `prefix` for {P}.
static void fill_in(const struct binder *b, const char *pattern, const char *prefix,
                    size_t prefix_size, uint32_t expert, char *out, size_t *n)
{
    char number[16];
    while (*pattern) {
        size_t plain = strcspn(pattern, "{");
        append(out, n, pattern, plain);
        pattern += plain;
        if (!*pattern)
            break;
        bool known = pattern[1] && strchr("LDEP", pattern[1]) && pattern[2] == '}';
        if (!known) {
            append(out, n, pattern++, 1);
            continue;
        }
        if (pattern[1] == 'P') {
            char copy[128];
            snprintf(copy, sizeof copy, "%.*s", (int) prefix_size, prefix);
            fill_in(b, copy, "", 0, expert, out, n);
        } else {
            uint32_t value = pattern[1] == 'E'   ? expert
                             : pattern[1] == 'L' ? b->layer
                                                 : b->layer - b->checkpoint->n_encoder_layers;
            snprintf(number, sizeof number, "%u", value);
            append(out, n, number, strlen(number));
        }
        pattern += 3;
    }
}

// Layers of an encoder have prefixes with {L}, those of its decoder with {D}.
static bool prefix_fits(const struct binder *b, const char *prefix, size_t size)
{
    uint32_t n = b->checkpoint->n_encoder_layers;
    const char *decoder = strstr(prefix, "{D}");
    bool is_decoder = decoder && decoder < prefix + size;
    return n == 0 ? !is_decoder : is_decoder == (b->layer >= n);
}

static void name_of(const struct binder *b, const struct moe_place *place, const char *prefix,
                    uint32_t expert, char out[MAX_NAME])
{
    size_t n = 0;
    *out = '\0';
    fill_in(b, place->name, prefix, strcspn(prefix, "|"), expert, out, &n);
}

// ---- parts -----------------------------------------------------------------------------------

static enum moe_shape shape_of(enum vkmoe_part part)
{
    return moe_part_is_matrix(part) || part == VKMOE_PART_ROUTER || part == VKMOE_PART_TABLE ||
                   part == VKMOE_PART_SHARED_GATE
               ? MOE_SHAPE_MATRIX
               : MOE_SHAPE_VECTOR;
}

// A vector [.., n] is stored as a row, and wanted as n rows.
static const struct moe_place *turned(const struct moe_place *place, enum moe_shape shape,
                                      struct moe_place *copy)
{
    *copy = *place;
    copy->transposed = place->transposed != (shape == MOE_SHAPE_VECTOR);
    return copy;
}

// May the weight have scales? Names of others would be taken for them.
static bool may_be_scaled(const struct binder *b, enum vkmoe_part part)
{
    const vkmoe_layer_desc *d = &b->out->desc;
    bool is_routed_down = part == VKMOE_PART_DOWN;
    return moe_part_is_matrix(part) && !(is_routed_down && d->expert_scale);
}

// A table of ids, whose values are no weights.
static enum vkmoe_status find_table(struct binder *b, const char *name, struct moe_matrix *out)
{
    char full[MAX_NAME + 8], text[192];
    *out = (struct moe_matrix){0};
    snprintf(full, sizeof full, "%s.weight", name);
    enum vkmoe_status status = moe_source_find(&b->checkpoint->source, name, &out->weight);
    if (status == VKMOE_OK && !out->weight.name)
        status = moe_source_find(&b->checkpoint->source, full, &out->weight);
    const struct moe_source_tensor *table = &out->weight;
    if (status != VKMOE_OK || !table->name)
        return status;
    if (table->n_dims != 2 || (table->code != MOE_CODE_I32 && table->code != MOE_CODE_I64))
        return moe_fail(VKMOE_E_DATA, "tensor '%s': %s is no table of ids", table->name,
                        moe_source_describe(table, text, sizeof text));
    out->code = table->code;
    out->n_stacked = 1;
    out->rows = table->dims[0];
    out->columns = table->dims[1];
    out->row_size = out->columns * table->block_size;
    return VKMOE_OK;
}

static enum vkmoe_status try_place(struct binder *b, const struct moe_place *place,
                                   const char *prefix, uint32_t expert, struct moe_matrix *out)
{
    char name[MAX_NAME];
    name_of(b, place, prefix, expert, name);
    if (place->part == VKMOE_PART_TABLE)
        return find_table(b, name, out);
    return moe_matrix_find(&b->checkpoint->source, name, place, shape_of(place->part),
                           b->out->desc.n_experts, may_be_scaled(b, place->part),
                           b->checkpoint->scale_block, out);
}

struct found {
    const struct moe_place *place;
    const char *prefix;
    struct moe_matrix matrix; // of the first expert
};

static enum vkmoe_status find_among(struct binder *b, const struct moe_place *places, size_t n,
                                    const char *prefixes, enum vkmoe_part part,
                                    struct found *out)
{
    for (size_t i = 0; i < n; i++) {
        if (places[i].part != part)
            continue;
        for (const char *prefix = prefixes; *prefix;) {
            size_t size = strcspn(prefix, "|");
            if (prefix_fits(b, prefix, size)) {
                enum vkmoe_status status = try_place(b, &places[i], prefix, 0, &out->matrix);
                if (status != VKMOE_OK)
                    return status;
                if (out->matrix.weight.name) {
                    out->place = &places[i];
                    out->prefix = prefix;
                    return VKMOE_OK;
                }
            }
            prefix += size + (prefix[size] == '|');
        }
    }
    return VKMOE_OK;
}

static enum vkmoe_status find_part(struct binder *b, enum vkmoe_part part, struct found *out)
{
    const vkmoe_checkpoint *c = b->checkpoint;
    enum vkmoe_status status;
    *out = (struct found){0};
    TRY(find_among(b, c->explicit.places, c->explicit.n_places, "-", part, out));
    if (!out->place && c->layout)
        TRY(find_among(b, c->layout->places, c->layout->n_places, c->layout->prefixes, part, out));

fail:
    return status;
}

// The other half of the tensor in which the gate rows were found.
static const struct moe_place *other_half(const struct binder *b, const struct moe_place *gate)
{
    const struct moe_layout *layout = b->checkpoint->layout;
    if (!layout || gate->rows == MOE_ROWS_ALL)
        return NULL;
    for (size_t i = 0; i < layout->n_places; i++) {
        const struct moe_place *place = &layout->places[i];
        if (place->part == gate->part + 1 && strcmp(place->name, gate->name) == 0 &&
            place->rows == gate->rows + 1)
            return place;
    }
    return NULL;
}

// The name that a missing part would have; false: none.
static bool first_name(const struct binder *b, enum vkmoe_part part, char out[MAX_NAME])
{
    const vkmoe_checkpoint *c = b->checkpoint;
    const struct moe_layout *layout = c->layout;
    for (size_t i = 0; i < c->explicit.n_places; i++) {
        if (c->explicit.places[i].part == part) {
            name_of(b, &c->explicit.places[i], "", 0, out);
            return true;
        }
    }
    for (size_t i = 0; layout && i < layout->n_places; i++) {
        if (layout->places[i].part != part)
            continue;
        const char *prefix = layout->prefixes;
        // As the router is called, where that is there.
        size_t size = strcspn(prefix, "|");
        while (!prefix_fits(b, prefix, size) && prefix[size]) {
            prefix += size + 1;
            size = strcspn(prefix, "|");
        }
        name_of(b, &layout->places[i], prefix, 0, out);
        bool weight = moe_part_is_matrix(part) || part == VKMOE_PART_ROUTER;
        size_t n = strlen(out);
        if (weight && (layout->places[i].stack == MOE_STACK_NONE || c->source.is_gguf))
            append(out, &n, ".weight", 7);
        return true;
    }
    return false;
}

// What in struct moe_facts asks for a part.
static const struct {
    uint32_t part;
    size_t offset;
} askers[] = {
    {VKMOE_PART_ROUTER_BIAS, offsetof(struct moe_facts, d.router_bias)},
    {VKMOE_PART_SELECTION_BIAS, offsetof(struct moe_facts, d.selection_bias)},
    {VKMOE_PART_TABLE, offsetof(struct moe_facts, n_hash)},
    {VKMOE_PART_LATENT_DOWN, offsetof(struct moe_facts, d.d_latent)},
    {VKMOE_PART_SHARED + 1, offsetof(struct moe_facts, n_shared)},
    {VKMOE_PART_SHARED + 1, offsetof(struct moe_facts, d_shared)},
    {VKMOE_PART_ADJUGATE + 1, offsetof(struct moe_facts, d.adjugate_group)},
};

// The layout has no name for the part.
static enum vkmoe_status nameless(const struct binder *b, enum vkmoe_part part)
{
    const vkmoe_checkpoint *c = b->checkpoint;
    char key[64] = "the layer";
    for (size_t i = 0; i < MOE_COUNT(askers); i++) {
        if (askers[i].part == (uint32_t) part &&
            moe_family_key(&c->lookup, askers[i].offset, b->layer, key))
            break;
    }
    return moe_fail(VKMOE_E_DATA, "%s: layer %u: %s asks for %s, for which family %s has no tensor",
                    c->path, b->layer, key, vkmoe_part_name(part),
                    c->family ? c->family->name : "(none)");
}

static enum vkmoe_status missing(const struct binder *b, enum vkmoe_part part)
{
    char name[MAX_NAME];
    if (!first_name(b, part, name))
        return nameless(b, part);
    return moe_fail(VKMOE_E_DATA, "%s: layer %u: tensor '%s' is missing (%s)",
                    b->checkpoint->path, b->layer, name, vkmoe_part_name(part));
}

// ---- binding ---------------------------------------------------------------------------------

static enum vkmoe_status bind_others(struct binder *b, const struct found *found,
                                     struct moe_bound *part)
{
    for (uint32_t i = 1; i < part->n_matrices; i++) {
        enum vkmoe_status status =
            try_place(b, found->place, found->prefix, i, &part->matrices[i]);
        if (status != VKMOE_OK)
            return status;
        const struct moe_matrix *m = &part->matrices[i], *first = &part->matrices[0];
        char name[MAX_NAME], zero[MAX_NAME];
        name_of(b, found->place, found->prefix, i, name);
        name_of(b, found->place, found->prefix, 0, zero);
        if (!m->weight.name)
            return moe_fail(VKMOE_E_DATA, "%s: layer %u: tensor '%s%s' is missing (expert %u of "
                            "%u)", b->checkpoint->path, b->layer, name,
                            first->weight.name + strlen(zero), i, part->n);
        if (m->rows != first->rows || m->columns != first->columns)
            return moe_fail(VKMOE_E_DATA, "%s: tensor '%s' is (%llu, %llu), that of expert 0 "
                            "(%llu, %llu)", b->checkpoint->path, m->weight.name,
                            (unsigned long long) m->rows, (unsigned long long) m->columns,
                            (unsigned long long) first->rows,
                            (unsigned long long) first->columns);
    }
    return VKMOE_OK;
}

static enum vkmoe_status bind_found(struct binder *b, enum vkmoe_part id, uint32_t n,
                                    const struct found *found)
{
    enum vkmoe_status status;
    struct moe_bound *part = &b->out->parts[id];
    struct moe_place copy;
    uint64_t n_rows, n_columns;
    bool each = found->place->stack == MOE_STACK_NONE && n > 1;
    part->n = n;
    part->shape = shape_of(id);
    part->n_matrices = each ? n : 1;
    TRY(moe_try_alloc(&b->checkpoint->host,
                      part->n_matrices * sizeof *part->matrices + sizeof copy, "tensors of a part",
                      &part->matrices));
    part->matrices[0] = found->matrix;
    // A place of its own, behind the matrices, for vectors are turned.
    struct moe_place *place = (struct moe_place *) (void *) (part->matrices + part->n_matrices);
    part->place = turned(found->place, part->shape, place);
    moe_matrix_size(&found->matrix, part->place, &n_rows, &n_columns);
    part->n_rows = (uint32_t) moe_min(n_rows, UINT32_MAX);
    part->n_columns = (uint32_t) moe_min(n_columns, UINT32_MAX);
    if (!each && n > 1 && found->matrix.n_stacked != n) {
        status = moe_fail(VKMOE_E_DATA, "%s: tensor '%s' has %u experts, the configuration %u",
                          b->checkpoint->path, found->matrix.weight.name,
                          found->matrix.n_stacked, n);
        goto fail;
    }
    TRY(bind_others(b, found, part));

fail:
    return status;
}

// Binds a part with n matrices; without `needed` it may be missing.
static enum vkmoe_status bind(struct binder *b, enum vkmoe_part part, uint32_t n, bool needed)
{
    struct found found;
    enum vkmoe_status status = find_part(b, part, &found);
    if (status != VKMOE_OK)
        return status;
    if (!found.place)
        return needed ? missing(b, part) : VKMOE_OK;
    return bind_found(b, part, n, &found);
}

// Gate, up and down of a bank with their biases. *is_there: it has up.
static enum vkmoe_status bind_bank(struct binder *b, uint32_t first, uint32_t n, bool needed,
                                   bool *is_there)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *d = &b->out->desc;
    struct found up;
    const struct moe_place *half = NULL;
    if (d->gated) {
        struct found gate;
        TRY(find_part(b, (enum vkmoe_part) first, &gate));
        if (gate.place)
            half = other_half(b, gate.place);
    }
    TRY(find_part(b, (enum vkmoe_part) (first + 1), &up));
    *is_there = up.place;
    if (!up.place)
        return needed ? missing(b, (enum vkmoe_part) (first + 1)) : VKMOE_OK;
    if (half) {
        up.place = half;
        TRY(try_place(b, half, up.prefix, 0, &up.matrix));
    }
    if (d->gated)
        TRY(bind(b, (enum vkmoe_part) first, n, true));
    TRY(bind_found(b, (enum vkmoe_part) (first + 1), n, &up));
    TRY(bind(b, (enum vkmoe_part) (first + 2), n, true));
    if (d->gated)
        TRY(bind(b, (enum vkmoe_part) (first + 3), n, d->gate_bias));
    TRY(bind(b, (enum vkmoe_part) (first + 4), n, d->up_bias));
    TRY(bind(b, (enum vkmoe_part) (first + 5), n, d->down_bias));

fail:
    return status;
}

// ---- the layer -------------------------------------------------------------------------------

static bool has(const struct binder *b, enum vkmoe_part part)
{
    return b->out->parts[part].place;
}

static uint32_t rows_of(const struct binder *b, enum vkmoe_part part)
{
    return b->out->parts[part].n_rows;
}

// The router; and how many experts there are, where the configuration does not say.
static enum vkmoe_status bind_router(struct binder *b)
{
    enum vkmoe_status status;
    vkmoe_layer_desc *d = &b->out->desc;
    bool is_gguf = b->checkpoint->source.is_gguf;
    TRY(bind(b, VKMOE_PART_ROUTER, 1, true));
    if (d->n_experts == 0 && d->n_zero >= rows_of(b, VKMOE_PART_ROUTER))
        return moe_fail(VKMOE_E_DATA, "%s: layer %u: %u of the %u experts that the router scores "
                        "are identity experts", b->checkpoint->path, b->layer, d->n_zero,
                        rows_of(b, VKMOE_PART_ROUTER));
    if (d->n_experts == 0)
        d->n_experts = rows_of(b, VKMOE_PART_ROUTER) - d->n_zero;
    if (d->d_model == 0)
        d->d_model = b->out->parts[VKMOE_PART_ROUTER].n_columns;
    TRY(bind(b, VKMOE_PART_ROUTER_BIAS, 1, d->router_bias));
    d->router_bias = has(b, VKMOE_PART_ROUTER_BIAS);
    if (d->select == VKMOE_SELECT_TABLE) {
        TRY(bind(b, VKMOE_PART_TABLE, 1, true));
    } else if (d->selection_bias || is_gguf || !b->checkpoint->family) {
        // A file of GGUF says by the tensor whether there is one.
        TRY(bind(b, VKMOE_PART_SELECTION_BIAS, 1, d->selection_bias && !is_gguf));
        d->selection_bias = has(b, VKMOE_PART_SELECTION_BIAS);
    }
    if (d->expert_scale)
        TRY(bind(b, VKMOE_PART_EXPERT_SCALE, 1, true));
    if (d->router_prenorm)
        TRY(bind(b, VKMOE_PART_PRENORM_SCALE, 1, true));

fail:
    return status;
}

static enum vkmoe_status bind_shared(struct binder *b, const struct moe_facts *facts)
{
    enum vkmoe_status status;
    vkmoe_layer_desc *d = &b->out->desc;
    bool is_there;
    bool needed = facts->d_shared > 0 || facts->n_shared > 0 || d->d_shared_ff > 0;
    TRY(bind_bank(b, VKMOE_PART_SHARED, 1, needed, &is_there));
    if (!is_there) {
        d->shared_gate = VKMOE_SHARED_PLAIN;
        return VKMOE_OK;
    }
    if (d->d_shared_ff == 0)
        d->d_shared_ff = rows_of(b, VKMOE_PART_SHARED + 1);
    if (d->shared_gate != VKMOE_SHARED_PLAIN) {
        TRY(bind(b, VKMOE_PART_SHARED_GATE, 1, true));
        TRY(bind(b, VKMOE_PART_SHARED_GATE_BIAS, 1, d->shared_gate_bias));
        d->shared_gate_bias = has(b, VKMOE_PART_SHARED_GATE_BIAS);
    }

fail:
    return status;
}

static enum vkmoe_status bind_around(struct binder *b)
{
    enum vkmoe_status status;
    vkmoe_layer_desc *d = &b->out->desc;
    TRY(bind(b, VKMOE_PART_LATENT_DOWN, 1, d->d_latent > 0));
    if (has(b, VKMOE_PART_LATENT_DOWN)) {
        if (d->d_latent == 0)
            d->d_latent = rows_of(b, VKMOE_PART_LATENT_DOWN);
        TRY(bind(b, VKMOE_PART_LATENT_UP, 1, true));
        TRY(bind(b, VKMOE_PART_LATENT_NORM, 1, d->latent_norm));
        d->latent_norm = has(b, VKMOE_PART_LATENT_NORM);
    }
    if (d->out_bias || !b->checkpoint->family)
        TRY(bind(b, VKMOE_PART_OUT_BIAS, 1, d->out_bias && !b->checkpoint->source.is_gguf));
    d->out_bias = has(b, VKMOE_PART_OUT_BIAS);

fail:
    return status;
}

static enum vkmoe_status bind_experts(struct binder *b)
{
    enum vkmoe_status status;
    vkmoe_layer_desc *d = &b->out->desc;
    bool is_there;
    TRY(bind_bank(b, VKMOE_PART_GATE, d->n_experts, true, &is_there));
    if (d->d_ff == 0)
        d->d_ff = rows_of(b, VKMOE_PART_UP);
    d->gate_bias = has(b, VKMOE_PART_GATE_BIAS);
    d->up_bias = has(b, VKMOE_PART_UP_BIAS);
    d->down_bias = has(b, VKMOE_PART_DOWN_BIAS);
    if (d->adjugate_group > 0) {
        uint32_t n = (uint32_t) moe_div_up(d->n_experts, d->adjugate_group);
        TRY(bind_bank(b, VKMOE_PART_ADJUGATE, n, true, &is_there));
        if (d->d_adjugate == 0)
            d->d_adjugate = rows_of(b, VKMOE_PART_ADJUGATE + 1);
    }

fail:
    return status;
}

// No experts where neither they nor their router are there.
static enum vkmoe_status look_for_experts(struct binder *b, bool *is_there)
{
    struct found router, up;
    char name[MAX_NAME];
    enum vkmoe_status status;
    *is_there = true;
    TRY(find_part(b, VKMOE_PART_ROUTER, &router));
    if (router.place)
        return VKMOE_OK;
    TRY(find_part(b, VKMOE_PART_UP, &up));
    if (up.place)
        return VKMOE_OK; // the router will be reported as missing
    *is_there = false;
    if (!first_name(b, VKMOE_PART_ROUTER, name))
        snprintf(name, sizeof name, "router");
    snprintf(b->out->reason, sizeof b->out->reason, "there is no tensor '%.150s', nor experts",
             name);

fail:
    return status;
}

static enum vkmoe_status bind_all(struct binder *b, const struct moe_facts *facts)
{
    enum vkmoe_status status;
    TRY(bind_router(b));
    if (b->out->desc.n_experts == 0 || b->out->desc.n_experts > 1024)
        return moe_fail(VKMOE_E_DATA, "%s: layer %u: %u experts", b->checkpoint->path, b->layer,
                        b->out->desc.n_experts);
    TRY(bind_around(b));
    TRY(bind_experts(b));
    TRY(bind_shared(b, facts));

fail:
    return status;
}

enum vkmoe_status moe_checkpoint_bind(vkmoe_checkpoint *checkpoint, uint32_t layer,
                                      struct moe_checkpoint_layer *out)
{
    enum vkmoe_status status;
    struct binder b = {checkpoint, layer, out};
    struct moe_facts facts;
    char reason[160];
    bool is_there;
    TRY(moe_checkpoint_facts(checkpoint, layer, &facts, reason));
    if (*reason) {
        snprintf(out->reason, sizeof out->reason, "%s", reason);
        return VKMOE_OK;
    }
    out->desc = facts.d;
    TRY(look_for_experts(&b, &is_there));
    if (!is_there)
        return VKMOE_OK;
    out->has_experts = true;
    TRY(bind_all(&b, &facts));
    TRY(moe_checkpoint_check(checkpoint, layer, &facts, out));
    moe_checkpoint_types(out);
    TRY(moe_checkpoint_list(checkpoint, out));

fail:
    return status;
}

void moe_checkpoint_unbind(const vkmoe_host *host, struct moe_checkpoint_layer *layer)
{
    for (int i = 0; layer && i < VKMOE_N_PARTS; i++)
        moe_free(host, layer->parts[i].matrices);
    if (layer)
        moe_free(host, layer->tensors);
    moe_free(host, layer);
}
