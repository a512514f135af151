// SPDX-License-Identifier: MIT
// Reading the examples of a training into memory.
#include "model/train_data.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <math.h>

enum { CHUNK = 1024 };

// Room for `need` elements, of which `used` are kept.
static enum vkmoe_status grow(const vkmoe_host *host, uint64_t used, uint64_t need,
                              uint64_t *capacity, size_t element_size, void *array)
{
    enum vkmoe_status status = VKMOE_OK;
    void *old, *new;
    uint64_t size, room = moe_max(need, 2 * *capacity);
    if (need <= *capacity)
        return VKMOE_OK;
    if (!moe_mul(room, element_size, &size))
        return moe_fail(VKMOE_E_MEMORY, "data: %llu numbers", (unsigned long long) room);
    TRY(moe_try_alloc(host, size, "data", &new));
    memcpy(&old, array, sizeof old);
    if (old && used > 0)
        memcpy(new, old, used * element_size);
    moe_free(host, old);
    memcpy(array, &new, sizeof new);
    *capacity = room;

fail:
    return status;
}

// The arrays of a moe_train_data and their room in elements.
struct loader {
    struct moe_train_data *data;
    const struct moe_description *description;
    const char *path;
    vkmoe_dataset *dataset;
    bool labels, sequences; // sequences: an example has many tokens
    uint32_t n_steps;       // tokens of an example that is no text
    uint64_t x_room, tokens_room, offsets_room, labels_room, values_room;
};

// Room for n more examples; tokens of texts are added one text at a time.
static enum vkmoe_status make_room(struct loader *l, uint64_t n)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_train_data *d = l->data;
    const vkmoe_host *host = d->host;
    uint64_t rows = d->n + n, tokens = d->n_tokens + n * l->n_steps;
    if (rows > INT32_MAX)
        return moe_fail(VKMOE_E_DATA, "%s: more than %d rows", l->path, INT32_MAX);
    if (d->n_features > 0)
        TRY(grow(host, d->n_tokens * d->n_features, tokens * d->n_features, &l->x_room,
                 sizeof *d->x, &d->x));
    if (l->sequences)
        TRY(grow(host, d->n + 1, rows + 1, &l->offsets_room, sizeof *d->offsets, &d->offsets));
    if (l->labels)
        TRY(grow(host, d->n, rows, &l->labels_room, sizeof *d->labels, &d->labels));
    else
        TRY(grow(host, (uint64_t) d->n * d->n_targets, rows * d->n_targets, &l->values_room,
                 sizeof *d->values, &d->values));

fail:
    return status;
}

// Missing values of binary files are NaN; a text file's reader has refused them already.
static enum vkmoe_status check_finite(const struct loader *l, const float *rows, uint64_t n,
                                      uint32_t width, const char *what)
{
    for (uint64_t i = 0; i < n * width; i++) {
        if (!isfinite(rows[i]))
            return moe_fail(VKMOE_E_DATA, "%s: row %llu, %s %llu: %g is missing or not finite",
                            l->path, (unsigned long long) (l->data->n + i / width + 1), what,
                            (unsigned long long) (i % width + 1), (double) rows[i]);
    }
    return VKMOE_OK;
}

// The tokens of one text, behind the others.
static enum vkmoe_status add_text(struct loader *l, const char *text, uint32_t example)
{
    enum vkmoe_status status;
    struct moe_train_data *d = l->data;
    const struct moe_text *rules = &l->description->text;
    uint32_t n;
    TRY(grow(d->host, d->n_tokens, d->n_tokens + rules->max_tokens, &l->tokens_room,
             sizeof *d->token_ids, &d->token_ids));
    TRY(moe_text_tokens(rules, d->host, text, strlen(text), d->token_ids + d->n_tokens, &n));
    d->n_tokens += n;
    d->offsets[example + 1] = d->n_tokens;

fail:
    return status;
}

static enum vkmoe_status read_texts(struct loader *l, uint32_t *n, int32_t *labels, float *values)
{
    const char *texts[CHUNK];
    enum vkmoe_status status = vkmoe_dataset_read_texts(l->dataset, n, texts, labels, values);
    for (uint32_t i = 0; i < *n && status == VKMOE_OK; i++)
        status = add_text(l, texts[i], l->data->n + i);
    return status;
}

static enum vkmoe_status read_rows(struct loader *l, uint32_t *n, int32_t *labels, float *values)
{
    enum vkmoe_status status;
    struct moe_train_data *d = l->data;
    float *x = d->x + d->n_tokens * d->n_features;
    TRY(vkmoe_dataset_read(l->dataset, n, x, labels, values));
    TRY(check_finite(l, x, *n, d->n_features * l->n_steps, "feature"));
    for (uint32_t i = 0; i < *n; i++) {
        d->n_tokens += l->n_steps;
        if (l->sequences)
            d->offsets[d->n + i + 1] = d->n_tokens;
    }

fail:
    return status;
}

static enum vkmoe_status read_chunk(struct loader *l, bool *more)
{
    enum vkmoe_status status;
    struct moe_train_data *d = l->data;
    uint32_t n = CHUNK;
    TRY(make_room(l, CHUNK));
    int32_t *labels = l->labels ? d->labels + d->n : NULL;
    float *values = l->labels ? NULL : d->values + (uint64_t) d->n * d->n_targets;
    if (d->n_features > 0)
        TRY(read_rows(l, &n, labels, values));
    else
        TRY(read_texts(l, &n, labels, values));
    if (values)
        TRY(check_finite(l, values, n, d->n_targets, "target"));
    d->n += n;
    *more = n > 0;

fail:
    return status;
}

static enum vkmoe_status open_dataset(struct loader *l, const char *target)
{
    enum vkmoe_status status;
    const struct moe_description *d = l->description;
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    vkmoe_dataset_info info;
    bool texts = d->info.n_features == 0;
    desc.host = &d->host;
    desc.targets = l->labels ? VKMOE_TARGETS_LABELS : VKMOE_TARGETS_VALUES;
    desc.classes = d->classes;
    desc.n_classes = l->labels ? d->info.n_classes : 0;
    desc.texts = texts;
    desc.sequences = true;
    desc.n_features = d->info.n_features;
    desc.n_targets = l->labels ? 0 : d->info.n_outputs;
    desc.target = target;
    TRY(vkmoe_dataset_open(l->path, &desc, &l->dataset));
    TRY(vkmoe_dataset_get_info(l->dataset, &info));
    l->data->n_features = info.n_features;
    l->data->n_targets = l->labels ? 0 : info.n_targets;
    l->sequences = texts || d->pool != MOE_NO_LAYER;
    l->n_steps = texts ? 0 : (uint32_t) moe_max(info.n_steps, 1);
    if (info.n_steps > 0 && !l->sequences)
        status = moe_fail(VKMOE_E_SHAPE, "%s: sequences of %u steps need a pool layer", l->path,
                          info.n_steps);

fail:
    return status;
}

// Labels of shares: the class with the largest, the first of equals.
static enum vkmoe_status label_shares(const struct loader *l)
{
    enum vkmoe_status status;
    struct moe_train_data *d = l->data;
    const uint32_t n = d->n_targets;
    TRY(moe_try_alloc(d->host, d->n * sizeof *d->labels, "labels", &d->labels));
    for (uint32_t row = 0; row < d->n; row++) {
        const float *shares = d->values + (size_t) row * n;
        double sum = 0;
        bool negative = false;
        for (uint32_t i = 0; i < n; i++) {
            sum += (double) shares[i];
            negative = negative || shares[i] < 0;
            if (shares[i] > shares[d->labels[row]])
                d->labels[row] = (int32_t) i;
        }
        if (negative || !(fabs(sum - 1) <= 1e-3))
            return moe_fail(VKMOE_E_DATA, "%s: row %u: shares of classes are at least 0 and sum "
                            "to 1, not %g", l->path, row + 1, sum);
    }

fail:
    return status;
}

enum vkmoe_status moe_train_data_load(const char *path, const char *target, bool shares,
                                      const struct moe_description *d, struct moe_train_data *out)
{
    enum vkmoe_status status;
    struct loader l = {.data = out, .description = d, .path = path,
                       .labels = d->info.task == VKMOE_TASK_CLASSIFY && !shares};
    bool more = true;
    *out = (struct moe_train_data){.host = &d->host};
    TRY(open_dataset(&l, target));
    while (more)
        TRY(read_chunk(&l, &more));
    if (out->n == 0)
        TRY(moe_fail(VKMOE_E_DATA, "%s: the data set has no rows", path));
    if (shares)
        TRY(label_shares(&l));

fail:
    vkmoe_dataset_destroy(l.dataset);
    return status;
}

void moe_train_data_finish(struct moe_train_data *data)
{
    if (!data->host)
        return;
    moe_free(data->host, data->x);
    moe_free(data->host, data->token_ids);
    moe_free(data->host, data->offsets);
    moe_free(data->host, data->labels);
    moe_free(data->host, data->values);
}

// ---- identity --------------------------------------------------------------------------------

// FNV-1a over 32-bit words.
static uint64_t hash_words(uint64_t hash, const void *words, uint64_t n)
{
    const unsigned char *at = words;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, at + i * sizeof word, sizeof word);
        hash = (hash ^ word) * 1099511628211u;
    }
    return hash;
}

uint64_t moe_train_data_hash(const struct moe_train_data *data)
{
    uint64_t hash = 14695981039346656037u;
    const uint32_t sizes[] = {data->n, data->n_features, data->n_targets};
    hash = hash_words(hash, sizes, MOE_COUNT(sizes));
    if (data->x)
        hash = hash_words(hash, data->x, data->n_tokens * data->n_features);
    if (data->token_ids)
        hash = hash_words(hash, data->token_ids, data->n_tokens);
    if (data->offsets)
        hash = hash_words(hash, data->offsets, 2 * ((uint64_t) data->n + 1));
    if (data->labels)
        hash = hash_words(hash, data->labels, data->n);
    if (data->values)
        hash = hash_words(hash, data->values, (uint64_t) data->n * data->n_targets);
    return hash;
}
