// SPDX-License-Identifier: MIT
// One layer's weights from a checkpoint to a device: read row by row as they are packed, so that
// beside the device's memory there are but some rows of one expert.
#include "model/checkpoint.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <math.h>

enum { N_MATRICES = 3, N_LATENT = 2 };

// A matrix that rows are read of.
struct open_matrix {
    struct loader *loader;
    enum vkmoe_part part;
    struct moe_reader reader;
};

struct loader {
    vkmoe_checkpoint *checkpoint;
    struct moe_checkpoint_layer *layer;
    const vkmoe_host *host;
    uint32_t index;
    vkmoe_layer_desc desc; // with the types that are loaded
    struct moe_error errors[VKMOE_N_PARTS];
    struct open_matrix experts[N_MATRICES]; // of one expert: gate, up, down
    float *biases[N_MATRICES];
    struct open_matrix latent[N_LATENT]; // down, up
    float *vectors[VKMOE_PART_GATE]; // of what lies around
    int32_t *table;
};

// ---- parts -----------------------------------------------------------------------------------

// Rows as the type that they are loaded as.
static enum vkmoe_status read_rows(void *user, uint64_t first_row, uint64_t n_rows, void *dst)
{
    struct open_matrix *m = user;
    return moe_reader_convert_rows(&m->reader, (uint32_t) first_row, (uint32_t) n_rows,
                                   moe_part_type(&m->loader->desc, m->part), dst,
                                   &m->loader->errors[m->part]);
}

// Matrix i of a part in place of the one that was open here.
static enum vkmoe_status open_matrix(struct loader *loader, struct open_matrix *m,
                                     enum vkmoe_part part, uint32_t i, vkmoe_tensor *out)
{
    moe_reader_close(&m->reader);
    m->loader = loader;
    m->part = part;
    *out = (vkmoe_tensor){
        .type = moe_part_type(&loader->desc, part), .read = read_rows, .read_user = m};
    return moe_reader_open(&loader->checkpoint->source, &loader->layer->parts[part], i, &m->reader);
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

// The expert's matrices, to be read, and its biases.
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
        if (loader->layer->parts[part].place)
            TRY(open_matrix(loader, &loader->experts[k], part, i, matrices[k]));
        if (bias->place) {
            TRY(moe_bound_read(loader->checkpoint, bias, i, 0, bias->n_rows, loader->biases[k]));
            *biases[k] = loader->biases[k];
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

// Room for the longest biases of all banks.
static enum vkmoe_status alloc_biases(struct loader *loader)
{
    static const uint32_t banks[] = {VKMOE_PART_GATE, VKMOE_PART_SHARED, VKMOE_PART_ADJUGATE};
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t k = 0; k < N_MATRICES; k++) {
        uint32_t n = 0;
        for (size_t b = 0; b < MOE_COUNT(banks); b++) {
            const struct moe_bound *bias = &loader->layer->parts[banks[b] + N_MATRICES + k];
            n = bias->place && bias->n_rows > n ? bias->n_rows : n;
        }
        if (n > 0)
            TRY(moe_try_alloc(loader->host, n * sizeof(float), "biases", &loader->biases[k]));
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
    enum vkmoe_status status = VKMOE_OK;
    float *const *v = loader->vectors;
    const vkmoe_router_tensors router = {
        .weight = {.data = v[VKMOE_PART_ROUTER], .type = VKMOE_F32},
        .bias = v[VKMOE_PART_ROUTER_BIAS],
        .selection_bias = v[VKMOE_PART_SELECTION_BIAS],
        .shared_gate = v[VKMOE_PART_SHARED_GATE],
        .shared_gate_bias = v[VKMOE_PART_SHARED_GATE_BIAS],
        .expert_scale = v[VKMOE_PART_EXPERT_SCALE],
        .prenorm_scale = v[VKMOE_PART_PRENORM_SCALE],
        .table = loader->table,
    };
    vkmoe_latent_tensors latent = {.norm = v[VKMOE_PART_LATENT_NORM]};
    if (loader->desc.d_latent > 0) {
        TRY(open_matrix(loader, &loader->latent[0], VKMOE_PART_LATENT_DOWN, 0, &latent.down));
        TRY(open_matrix(loader, &loader->latent[1], VKMOE_PART_LATENT_UP, 0, &latent.up));
    }
    vkmoe_weights_desc weights = vkmoe_weights_desc_init();
    weights.layer = &loader->desc;
    weights.router = &router;
    weights.latent = loader->desc.d_latent > 0 ? &latent : NULL;
    weights.out_bias = v[VKMOE_PART_OUT_BIAS];
    weights.load_expert = load_expert;
    weights.load_user = loader;
    weights.vk_buffer = desc->vk_buffer;
    TRY(vkmoe_weights_create(context, &weights, out));

fail:
    return status;
}

static void finish(struct loader *loader)
{
    for (uint32_t i = 0; i < N_MATRICES; i++) {
        moe_reader_close(&loader->experts[i].reader);
        moe_free(loader->host, loader->biases[i]);
    }
    for (uint32_t i = 0; i < N_LATENT; i++)
        moe_reader_close(&loader->latent[i].reader);
    for (uint32_t i = 0; i < VKMOE_PART_GATE; i++)
        moe_free(loader->host, loader->vectors[i]);
    moe_free(loader->host, loader->table);
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
    TRY(alloc_biases(&loader));
    TRY(create(&loader, context, &full, out));
    *layer_out = loader.desc;
    if (report)
        report_parts(&loader, report);

fail:
    finish(&loader);
    return status;
}
