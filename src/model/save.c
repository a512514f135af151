// SPDX-License-Identifier: MIT
// Writing a checkpoint's layers in another type. Here is what both formats share: which layers and
// parts, in which types, and their bytes.
#include "model/save.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/file.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <math.h>

// ---- bytes -----------------------------------------------------------------------------------

// Ids of one row of a table, as i32.
static enum vkmoe_status convert_ids(struct moe_save_item *item)
{
    enum vkmoe_status status;
    const vkmoe_checkpoint *c = item->save->checkpoint;
    const vkmoe_layer_desc *d = &item->layer->desc;
    const struct moe_matrix *m = item->layer->parts[item->part].matrices;
    int64_t wide[64];
    int32_t narrow[64], *out = (int32_t *) (void *) item->bytes;
    bool is_wide = m->code == MOE_CODE_I64;
    if (item->n_columns > MOE_COUNT(wide))
        return moe_fail(VKMOE_E_UNSUPPORTED, "tensor '%s': %u ids for a token", m->weight.name,
                        item->n_columns);
    size_t size = (size_t) item->n_columns * m->weight.block_size;
    TRY(moe_source_read(&c->source, &m->weight, item->row * size, size,
                        is_wide ? (void *) wide : narrow));
    for (uint32_t i = 0; i < item->n_columns; i++) {
        int64_t id = is_wide ? wide[i] : narrow[i];
        if (id < 0 || id >= d->n_experts + d->n_zero)
            return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': token %u has expert %lld of %u",
                            c->path, m->weight.name, item->row, (long long) id,
                            d->n_experts + d->n_zero);
        out[i] = (int32_t) id;
    }

fail:
    return status;
}

static void report(struct moe_save_item *item)
{
    const vkmoe_save_desc *desc = &item->save->desc;
    const struct moe_bound *bound = &item->layer->parts[item->part];
    vkmoe_save_part part = {
        .layer = item->index,
        .layer_out = item->index_out,
        .part = item->part,
        .type = item->type,
        .fallback = item->fallback,
        .exact = item->error.difference == 0,
        .size = item->size,
    };
    if (!part.exact)
        part.error = sqrt(item->error.difference / item->error.total);
    for (uint32_t i = 0; i < bound->n_matrices; i++) {
        const struct moe_matrix *m = &bound->matrices[i];
        part.size_before += m->weight.size + m->scale.size + m->global.size;
    }
    if (bound->place->rows != MOE_ROWS_ALL)
        part.size_before /= 2; // the other half is another part's
    if (item->part == VKMOE_PART_TABLE)
        moe_source_describe(&bound->matrices[0].weight, part.stored, sizeof part.stored);
    else
        moe_matrix_words(&bound->matrices[0], bound->place, part.stored);
    if (desc->report)
        desc->report(desc->user, &part);
}

// A matrix is done; the next row is the first of the next one.
static enum vkmoe_status end_matrix(struct moe_save_item *item)
{
    struct moe_save *save = item->save;
    moe_reader_close(&item->reader);
    item->is_open = false;
    item->row = 0;
    save->done += item->n_rows * item->row_size;
    if (++item->i == item->n)
        report(item);
    if (save->desc.progress && !save->desc.progress(save->desc.user, save->done, save->total))
        return moe_fail(VKMOE_E_CANCELLED, "%s: stopped", save->path);
    return VKMOE_OK;
}

static enum vkmoe_status next_row(struct moe_save_item *item)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_checkpoint *c = item->save->checkpoint;
    const struct moe_bound *bound = &item->layer->parts[item->part];
    if (!item->bytes)
        TRY(moe_try_alloc(&c->host, (size_t) item->row_size, "row of a tensor", &item->bytes));
    if (item->part == VKMOE_PART_TABLE) {
        TRY(convert_ids(item));
    } else {
        if (!item->is_open)
            TRY(moe_reader_open(&c->source, bound, item->i, &item->reader));
        item->is_open = true;
        TRY(moe_reader_convert(&item->reader, item->row, item->type, item->bytes, &item->error));
    }
    item->used = 0;
    if (++item->row == item->n_rows)
        TRY(end_matrix(item));

fail:
    return status;
}

enum vkmoe_status moe_save_fill(void *user, uint64_t offset, size_t size, void *dst)
{
    struct moe_save_item *item = user;
    if (offset == 0)
        item->used = item->row_size; // nothing is at hand yet
    for (size_t at = 0; at < size;) {
        if (item->used == item->row_size) {
            enum vkmoe_status status = next_row(item);
            if (status != VKMOE_OK)
                return status;
        }
        size_t n = (size_t) moe_min(size - at, item->row_size - item->used);
        memcpy((char *) dst + at, item->bytes + item->used, n);
        item->used += n;
        at += n;
    }
    return VKMOE_OK;
}

// ---- what is written -------------------------------------------------------------------------

// Blocks of fp8 that a row does not fill would leave its width open in a file.
static enum vkmoe_dtype fit(enum vkmoe_dtype type, uint32_t width)
{
    if (type != VKMOE_FP8 || width % 128 == 0)
        return type;
    return width % 32 == 0 ? VKMOE_Q8_0 : VKMOE_F16;
}

static void choose_types(enum vkmoe_dtype type, vkmoe_layer_desc *d)
{
    vkmoe_load_desc load = vkmoe_load_desc_init();
    load.in_type = load.out_type = &type;
    moe_checkpoint_choose_types(&load, d);
    enum vkmoe_dtype shared_in = d->own_shared_types ? d->shared_in_type : d->in_type;
    enum vkmoe_dtype shared_out = d->own_shared_types ? d->shared_out_type : d->out_type;
    d->in_type = fit(d->in_type, d->d_latent ? d->d_latent : d->d_model);
    d->out_type = fit(fit(d->out_type, d->d_ff), d->adjugate_group ? d->d_adjugate : d->d_ff);
    if (d->d_latent > 0)
        d->latent_type = fit(fit(d->latent_type, d->d_model), d->d_latent);
    if (d->d_shared_ff == 0)
        return;
    shared_in = fit(shared_in, d->d_model);
    shared_out = fit(shared_out, d->d_shared_ff);
    d->own_shared_types = shared_in != d->in_type || shared_out != d->out_type;
    d->shared_in_type = d->own_shared_types ? shared_in : VKMOE_F32;
    d->shared_out_type = d->own_shared_types ? shared_out : VKMOE_F32;
}

static void add_item(struct moe_save *save, const struct moe_checkpoint_layer *layer,
                     enum vkmoe_part part)
{
    const struct moe_bound *bound = &layer->parts[part];
    const vkmoe_layer_desc *d = &save->layers[save->n_layers];
    struct moe_save_item *item = &save->items[save->n_items++];
    *item = (struct moe_save_item){
        .save = save,
        .layer = layer,
        .index = save->numbers[save->n_layers],
        .index_out = save->n_layers,
        .part = part,
        .type = moe_part_type(d, part),
        .n = bound->n,
        .n_rows = bound->n_rows,
        .n_columns = bound->n_columns,
    };
    item->fallback = moe_part_is_matrix(part) && item->type != save->desc.type;
    item->row_size = moe_dtype_size(item->type, item->n_columns); // a table's ids are 4 bytes, too
    item->size = item->n * item->n_rows * item->row_size;
    save->total += item->size;
}

// VKMOE_OK without a layer more: it has no experts.
static enum vkmoe_status add_layer(struct moe_save *save, uint32_t index, bool needed)
{
    enum vkmoe_status status;
    struct moe_checkpoint_layer *layer;
    TRY(moe_checkpoint_layer(save->checkpoint, index, &layer));
    if (!layer->has_experts && !needed)
        return VKMOE_OK;
    TRY(moe_checkpoint_moe_layer(save->checkpoint, index, &layer));
    vkmoe_layer_desc *d = &save->layers[save->n_layers];
    *d = layer->desc;
    choose_types(save->desc.type, d);
    save->numbers[save->n_layers] = index;
    for (int part = 0; part < VKMOE_N_PARTS; part++) {
        if (layer->parts[part].place)
            add_item(save, layer, (enum vkmoe_part) part);
    }
    save->n_layers++;

fail:
    return status;
}

static enum vkmoe_status add_layers(struct moe_save *save)
{
    enum vkmoe_status status;
    const vkmoe_checkpoint *c = save->checkpoint;
    const uint32_t n = save->desc.one_layer ? 1 : c->n_layers;
    TRY(moe_try_alloc(&c->host, n * sizeof *save->layers, "layers", &save->layers));
    TRY(moe_try_alloc(&c->host, n * sizeof *save->numbers, "layers", &save->numbers));
    TRY(moe_try_alloc(&c->host, (size_t) n * VKMOE_N_PARTS * sizeof *save->items, "parts",
                      &save->items));
    if (save->desc.one_layer)
        return add_layer(save, save->desc.layer, true);
    for (uint32_t i = 0; i < n; i++)
        TRY(add_layer(save, i, false));
    if (save->n_layers == 0 && c->kind != VKMOE_CHECKPOINT_MODEL)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: no layer has experts", c->path);

fail:
    return status;
}

static void finish(struct moe_save *save)
{
    const vkmoe_host *host = &save->checkpoint->host;
    for (size_t i = 0; i < save->n_items; i++) {
        moe_reader_close(&save->items[i].reader);
        moe_free(host, save->items[i].bytes);
    }
    moe_free(host, save->items);
    moe_free(host, save->numbers);
    moe_free(host, save->layers);
}

enum vkmoe_status vkmoe_checkpoint_save(vkmoe_checkpoint *checkpoint, const char *path,
                                        const vkmoe_save_desc *desc)
{
    enum vkmoe_status status;
    struct moe_save save = {.checkpoint = checkpoint, .path = path,
                            .desc = vkmoe_save_desc_init()};
    bool is_gguf = path && moe_has_suffix(path, ".gguf");
    if (!checkpoint || !path || !desc)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_checkpoint_save: %s is NULL",
                        !checkpoint ? "checkpoint" : path ? "desc" : "path");
    if (!is_gguf && !moe_has_suffix(path, ".safetensors"))
        return moe_fail(VKMOE_E_ARGUMENT, "%s: neither .gguf nor .safetensors", path);
    if ((status = moe_desc_copy(&save.desc, sizeof save.desc, desc, "vkmoe_save_desc")) != VKMOE_OK)
        return status;
    if (vkmoe_dtype_block(save.desc.type, NULL, NULL) != VKMOE_OK)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_save_desc.type = %d", (int) save.desc.type);
    TRY(add_layers(&save));
    TRY(is_gguf ? moe_save_gguf(&save) : moe_save_model(&save));

fail:
    finish(&save);
    return status;
}
