// SPDX-License-Identifier: MIT
// `input` of a configuration.
#include "model/description_parts.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <stdlib.h>

static enum vkmoe_status read_numbers(struct moe_description *d, const struct moe_config *c)
{
    static const char *const keys[] = {"kind", "n_features", NULL};
    enum vkmoe_status status;
    TRY(moe_config_keys(c, keys));
    TRY(moe_config_size(c, "n_features", &d->info.n_features));

fail:
    return status;
}

// The list of n behind one unit.
static enum vkmoe_status read_unit(const struct moe_config *c, const char *key, uint32_t *out)
{
    size_t n_items;
    if (!moe_config_has(c, key))
        return VKMOE_OK;
    enum vkmoe_status status = moe_config_array(c, key, &n_items);
    if (status != VKMOE_OK)
        return status;
    const json_t *array = json_object_get(c->object, key);
    for (size_t i = 0; i < n_items; i++) {
        const json_t *item = json_array_get(array, i);
        json_int_t n = json_integer_value(item);
        if (!json_is_integer(item) || n < 1 || n > MOE_TEXT_MAX_N || (*out >> (n - 1) & 1))
            return moe_config_fail(c, VKMOE_E_DATA, key, "[%zu]: different numbers from 1 to %d", i,
                                   MOE_TEXT_MAX_N);
        *out |= 1u << (n - 1);
    }
    return VKMOE_OK;
}

static enum vkmoe_status read_ngrams(struct moe_description *d, const struct moe_config *parent)
{
    static const char *const keys[] = {
        [MOE_TEXT_BYTE] = "byte", [MOE_TEXT_CHARACTER] = "character", [MOE_TEXT_WORD] = "word",
        [MOE_TEXT_N_UNITS] = NULL};
    enum vkmoe_status status;
    struct moe_config c;
    uint32_t all = 0;
    TRY(moe_config_object(parent, "ngrams", &c));
    TRY(moe_config_keys(&c, keys));
    for (int unit = 0; unit < MOE_TEXT_N_UNITS; unit++) {
        TRY(read_unit(&c, keys[unit], &d->text.n_grams[unit]));
        all |= d->text.n_grams[unit];
    }
    if (all == 0)
        return moe_config_fail(parent, VKMOE_E_DATA, "ngrams",
                               "none: it needs byte, character or word");

fail:
    return status;
}

static enum vkmoe_status read_vocabulary(struct moe_description *d, const struct moe_config *c)
{
    enum vkmoe_status status;
    size_t n;
    TRY(moe_config_array(c, "vocabulary", &n));
    if (n >= MOE_CONFIG_MAX)
        return moe_config_fail(c, VKMOE_E_DATA, "vocabulary", "%zu pieces, at most %d", n,
                               MOE_CONFIG_MAX - 1);
    TRY(moe_try_alloc(&d->host, n * sizeof *d->vocabulary, "vocabulary", &d->vocabulary));
    const json_t *array = json_object_get(c->object, "vocabulary");
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(array, i);
        size_t size = json_string_length(item);
        if (size == 0 || size > UINT32_MAX)
            return moe_config_fail(c, VKMOE_E_DATA, "vocabulary", "[%zu] is not a text", i);
        d->vocabulary[i] = (struct moe_text_entry){json_string_value(item), (uint32_t) size,
                                                   (uint32_t) i + 1};
    }
    qsort(d->vocabulary, n, sizeof *d->vocabulary, moe_text_compare);
    for (size_t i = 1; i < n; i++) {
        if (moe_text_compare(&d->vocabulary[i - 1], &d->vocabulary[i]) == 0)
            return moe_config_fail(c, VKMOE_E_DATA, "vocabulary", "'%.40s' is there twice",
                                   d->vocabulary[i].text);
    }
    d->text.vocabulary = d->vocabulary;
    d->text.n_entries = (uint32_t) n;
    d->text.n_rows = (uint32_t) n + 1;

fail:
    return status;
}

static enum vkmoe_status read_text(struct moe_description *d, const struct moe_config *c)
{
    static const char *const keys[] = {"kind", "d_out", "ngrams", "n_buckets", "vocabulary",
                                       "lower", "max_tokens", NULL};
    enum vkmoe_status status;
    TRY(moe_config_keys(c, keys));
    TRY(moe_config_size(c, "d_out", &d->d_table));
    TRY(moe_config_bool(c, "lower", &d->text.lower));
    d->text.max_tokens = 1024;
    if (moe_config_has(c, "max_tokens"))
        TRY(moe_config_size(c, "max_tokens", &d->text.max_tokens));
    TRY(read_ngrams(d, c));
    if (!moe_config_has(c, "vocabulary"))
        TRY(moe_config_size(c, "n_buckets", &d->text.n_rows));
    else if (moe_config_has(c, "n_buckets"))
        return moe_config_fail(c, VKMOE_E_DATA, "n_buckets", "contradicts vocabulary");
    else
        TRY(read_vocabulary(d, c));

fail:
    return status;
}

enum vkmoe_status moe_description_read_input(struct moe_description *d,
                                             const struct moe_config *top)
{
    enum vkmoe_status status;
    struct moe_config c;
    int kind = -1;
    TRY(moe_config_object(top, "input", &c));
    TRY(moe_config_word(&c, "kind", "none|standardize|minmax|embed|embed_bag", // enum vkmoe_input
                        "coordinates|image", &kind));
    d->info.input = (enum vkmoe_input) kind;
    if (moe_input_is_text(d->info.input))
        TRY(read_text(d, &c));
    else
        TRY(read_numbers(d, &c));

fail:
    return status;
}
