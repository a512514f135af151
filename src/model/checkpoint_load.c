// SPDX-License-Identifier: MIT
// One layer's weights from a checkpoint to a device, expert by expert.
#include "model/checkpoint.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <math.h>

enum { N_BANK = 6, N_MATRICES = 3 };

struct loader {
    vkmoe_checkpoint *checkpoint;
    struct moe_checkpoint_layer *layer;
    const vkmoe_host *host;
    uint32_t index;
    vkmoe_layer_desc desc; // with the types that are loaded
    struct moe_error errors[VKMOE_N_PARTS];
    void *memory[N_BANK]; // of one expert: gate, up, down and their biases
    size_t sizes[N_BANK];
    float *vectors[VKMOE_PART_GATE]; // of what lies around
    int32_t *table;
    void *latent[2];
};

// ---- parts -----------------------------------------------------------------------------------

// One matrix of a part as the type that it is loaded as.
static enum vkmoe_status load_matrix(struct loader *loader, enum vkmoe_part part, uint32_t i,
                                     void *dst)
{
    const struct moe_bound *bound = &loader->layer->parts[part];
    enum vkmoe_dtype type = moe_part_type(&loader->desc, part);
    struct moe_reader reader;
    enum vkmoe_status status = moe_reader_open(&loader->checkpoint->source, bound, i, &reader);
    if (status == VKMOE_OK)
        status = moe_reader_convert_all(&reader, type, dst, &loader->errors[part]);
    moe_reader_close(&reader);
    return status;
}

static size_t size_of(const struct loader *loader, enum vkmoe_part part)
{
    const struct moe_bound *bound = &loader->layer->parts[part];
    if (!bound->place)
        return 0;
    return (size_t) (bound->n_rows *
                     moe_dtype_size(moe_part_type(&loader->desc, part), bound->n_columns));
}

static enum vkmoe_status load_vector(struct loader *loader, enum vkmoe_part part)
{
    enum vkmoe_status status;
    const struct moe_bound *bound = &loader->layer->parts[part];
    float **out = &loader->vectors[part];
    size_t n = (size_t) bound->n_rows * bound->n_columns;
    if (!bound->place)
        return VKMOE_OK;
    TRY(moe_try_alloc(loader->host, n * sizeof **out, vkmoe_part_name(part), out));
    TRY(moe_bound_read(loader->checkpoint, bound, 0, 0, bound->n_rows, *out));

fail:
    return status;
}

// ---- experts ---------------------------------------------------------------------------------

// The expert's matrices and biases, into loader->memory.
static enum vkmoe_status load_bank(struct loader *loader, uint32_t first, uint32_t i,
                                   vkmoe_expert_tensors *out)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_tensor *matrices[N_MATRICES] = {&out->gate, &out->up, &out->down};
    const float **biases[N_MATRICES] = {&out->gate_bias, &out->up_bias, &out->down_bias};
    *out = (vkmoe_expert_tensors){0};
    for (uint32_t k = 0; k < N_MATRICES; k++) {
        enum vkmoe_part part = (enum vkmoe_part) (first + k);
        const struct moe_bound *bias = &loader->layer->parts[first + N_MATRICES + k];
        if (loader->layer->parts[part].place) {
            TRY(load_matrix(loader, part, i, loader->memory[k]));
            *matrices[k] = (vkmoe_tensor){loader->memory[k], moe_part_type(&loader->desc, part)};
        }
        if (bias->place) {
            float *values = loader->memory[N_MATRICES + k];
            TRY(moe_bound_read(loader->checkpoint, bias, i, 0, bias->n_rows, values));
            *biases[k] = values;
        }
    }

fail:
    return status;
}

static enum vkmoe_status load_expert(void *user, uint32_t expert, vkmoe_expert_tensors *out)
{
    struct loader *loader = user;
    if (expert == VKMOE_SHARED_EXPERT)
        return load_bank(loader, VKMOE_PART_SHARED, 0, out);
    if (expert >= VKMOE_ADJUGATE_EXPERT)
        return load_bank(loader, VKMOE_PART_ADJUGATE, expert - VKMOE_ADJUGATE_EXPERT, out);
    return load_bank(loader, VKMOE_PART_GATE, expert, out);
}

// Room for the largest expert of all banks.
static enum vkmoe_status prepare_memory(struct loader *loader)
{
    static const uint32_t banks[] = {VKMOE_PART_GATE, VKMOE_PART_SHARED, VKMOE_PART_ADJUGATE};
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t k = 0; k < N_BANK; k++) {
        for (size_t b = 0; b < MOE_COUNT(banks); b++)
            loader->sizes[k] = (size_t) moe_max(
                loader->sizes[k], size_of(loader, (enum vkmoe_part) (banks[b] + k)));
        if (loader->sizes[k] > 0)
            TRY(moe_try_alloc(loader->host, loader->sizes[k], "one expert", &loader->memory[k]));
    }

fail:
    return status;
}

// ---- around them -----------------------------------------------------------------------------

static enum vkmoe_status load_table(struct loader *loader)
{
    enum vkmoe_status status;
    const struct moe_matrix *m = loader->layer->parts[VKMOE_PART_TABLE].matrices;
    uint64_t n = (uint64_t) loader->desc.n_token_ids * loader->desc.top_k;
    uint32_t n_scored = loader->desc.n_experts + loader->desc.n_zero;
    unsigned char *bytes = NULL;
    TRY(moe_try_alloc(loader->host, (size_t) (n * sizeof(int32_t)), "table", &loader->table));
    TRY(moe_try_alloc(loader->host, (size_t) (n * m->weight.block_size), "table", &bytes));
    TRY(moe_source_read(&loader->checkpoint->source, &m->weight, 0,
                        (size_t) (n * m->weight.block_size), bytes));
    for (uint64_t i = 0; i < n; i++) {
        int64_t wide = 0;
        int32_t narrow;
        if (m->code == MOE_CODE_I64) {
            memcpy(&wide, bytes + 8 * i, sizeof wide);
        } else {
            memcpy(&narrow, bytes + 4 * i, sizeof narrow);
            wide = narrow;
        }
        if (wide < 0 || wide >= n_scored) {
            status = moe_fail(VKMOE_E_DATA, "%s: tensor '%s': token %llu has expert %lld of %u",
                              loader->checkpoint->path, m->weight.name,
                              (unsigned long long) (i / loader->desc.top_k), (long long) wide,
                              n_scored);
            goto fail;
        }
        loader->table[i] = (int32_t) wide;
    }

fail:
    moe_free(loader->host, bytes);
    return status;
}

static enum vkmoe_status load_latent(struct loader *loader)
{
    enum vkmoe_status status = VKMOE_OK;
    static const enum vkmoe_part parts[] = {VKMOE_PART_LATENT_DOWN, VKMOE_PART_LATENT_UP};
    for (size_t i = 0; i < MOE_COUNT(parts); i++) {
        TRY(moe_try_alloc(loader->host, size_of(loader, parts[i]), "latent", &loader->latent[i]));
        TRY(load_matrix(loader, parts[i], 0, loader->latent[i]));
    }

fail:
    return status;
}

static enum vkmoe_status load_around(struct loader *loader)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < VKMOE_PART_GATE; i++) {
        bool matrix = moe_part_is_matrix((enum vkmoe_part) i) || i == VKMOE_PART_TABLE;
        if (!matrix)
            TRY(load_vector(loader, (enum vkmoe_part) i));
    }
    if (loader->desc.select == VKMOE_SELECT_TABLE)
        TRY(load_table(loader));
    if (loader->desc.d_latent > 0)
        TRY(load_latent(loader));

fail:
    return status;
}

// ---- all -------------------------------------------------------------------------------------

void moe_checkpoint_choose_types(const vkmoe_load_desc *desc, vkmoe_layer_desc *d)
{
    uint32_t d_in = d->d_latent ? d->d_latent : d->d_model;
    bool own = d->own_shared_types;
    enum vkmoe_dtype shared_in = own ? d->shared_in_type : d->in_type;
    enum vkmoe_dtype shared_out = own ? d->shared_out_type : d->out_type;
    if (desc->in_type) {
        d->in_type = moe_fitting_type(*desc->in_type, d_in);
        shared_in = moe_fitting_type(*desc->in_type, d->d_model);
        d->latent_type = d->d_latent ? moe_fitting_type(moe_fitting_type(*desc->in_type, d_in),
                                                        d->d_model)
                                     : d->latent_type;
    }
    if (desc->out_type) {
        uint64_t width = d->d_ff;
        d->out_type = moe_fitting_type(*desc->out_type, width);
        if (d->adjugate_group > 0)
            d->out_type = moe_fitting_type(d->out_type, d->d_adjugate);
        shared_out = moe_fitting_type(*desc->out_type, d->d_shared_ff);
    }
    if (d->d_shared_ff > 0) {
        d->own_shared_types = shared_in != d->in_type || shared_out != d->out_type;
        d->shared_in_type = d->own_shared_types ? shared_in : VKMOE_F32;
        d->shared_out_type = d->own_shared_types ? shared_out : VKMOE_F32;
    }
}

static void report_parts(const struct loader *loader, vkmoe_load_report *report)
{
    *report = (vkmoe_load_report){0};
    for (int i = 0; i < VKMOE_N_PARTS; i++) {
        const struct moe_bound *bound = &loader->layer->parts[i];
        const struct moe_error *error = &loader->errors[i];
        if (!bound->place || !moe_part_is_matrix((enum vkmoe_part) i))
            continue;
        vkmoe_load_part *out = &report->parts[report->n_parts++];
        out->part = (enum vkmoe_part) i;
        out->type = moe_part_type(&loader->desc, out->part);
        out->exact = error->difference == 0;
        out->error = out->exact ? 0 : sqrt(error->difference / error->total);
        moe_matrix_words(&bound->matrices[0], bound->place, out->stored);
    }
}

static enum vkmoe_status create(struct loader *loader, vkmoe_context *context,
                                const vkmoe_load_desc *desc, vkmoe_weights **out)
{
    float *const *v = loader->vectors;
    const vkmoe_router_tensors router = {
        .weight = {v[VKMOE_PART_ROUTER], VKMOE_F32},
        .bias = v[VKMOE_PART_ROUTER_BIAS],
        .selection_bias = v[VKMOE_PART_SELECTION_BIAS],
        .shared_gate = v[VKMOE_PART_SHARED_GATE],
        .shared_gate_bias = v[VKMOE_PART_SHARED_GATE_BIAS],
        .expert_scale = v[VKMOE_PART_EXPERT_SCALE],
        .prenorm_scale = v[VKMOE_PART_PRENORM_SCALE],
        .table = loader->table,
    };
    const vkmoe_latent_tensors latent = {
        .down = {loader->latent[0], loader->desc.latent_type},
        .up = {loader->latent[1], loader->desc.latent_type},
        .norm = v[VKMOE_PART_LATENT_NORM],
    };
    vkmoe_weights_desc weights = vkmoe_weights_desc_init();
    weights.layer = &loader->desc;
    weights.router = &router;
    weights.latent = loader->desc.d_latent > 0 ? &latent : NULL;
    weights.out_bias = v[VKMOE_PART_OUT_BIAS];
    weights.load_expert = load_expert;
    weights.load_user = loader;
    weights.vk_buffer = desc->vk_buffer;
    return vkmoe_weights_create(context, &weights, out);
}

static void finish(struct loader *loader)
{
    for (uint32_t i = 0; i < N_BANK; i++)
        moe_free(loader->host, loader->memory[i]);
    for (uint32_t i = 0; i < VKMOE_PART_GATE; i++)
        moe_free(loader->host, loader->vectors[i]);
    moe_free(loader->host, loader->table);
    moe_free(loader->host, loader->latent[0]);
    moe_free(loader->host, loader->latent[1]);
}

enum vkmoe_status vkmoe_checkpoint_load(vkmoe_checkpoint *checkpoint, vkmoe_context *context,
                                        uint32_t layer, const vkmoe_load_desc *desc,
                                        vkmoe_layer_desc *layer_out, vkmoe_weights **out,
                                        vkmoe_load_report *report)
{
    enum vkmoe_status status;
    struct loader loader = {.checkpoint = checkpoint, .index = layer};
    vkmoe_load_desc full = vkmoe_load_desc_init();
    if (!checkpoint || !context || !layer_out || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_checkpoint_load: %s is NULL",
                        !checkpoint  ? "checkpoint"
                        : !context   ? "context"
                        : !layer_out ? "layer_out"
                                     : "out");
    *out = NULL;
    loader.host = &checkpoint->host;
    if (desc)
        TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_load_desc"));
    TRY(moe_checkpoint_moe_layer(checkpoint, layer, &loader.layer));
    loader.desc = loader.layer->desc;
    moe_checkpoint_choose_types(&full, &loader.desc);
    TRY(vkmoe_layer_check(&loader.desc));
    TRY(load_around(&loader));
    TRY(prepare_memory(&loader));
    TRY(create(&loader, context, &full, out));
    *layer_out = loader.desc;
    if (report)
        report_parts(&loader, report);

fail:
    finish(&loader);
    return status;
}
