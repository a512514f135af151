// SPDX-License-Identifier: MIT
// Values behind the keys of config.json and of GGUF.
#include "model/families/families.h"

#include "base/bits.h"
#include "base/status.h"

#include <math.h>
#include <stdio.h>

enum { MAX_NUMBER = 1 << 24 };

// Objects inside config.json whose keys count as its own, the most specific first.
static const char *const inner[][2] = {
    {"text_config", NULL}, {"language_config", NULL}, {"llm_config", NULL},
    {"thinker_config", "text_config"}, {"ffn_config", NULL},
};

static const json_t *find_in(const json_t *root, const char *key)
{
    for (size_t i = 0; i < MOE_COUNT(inner); i++) {
        const json_t *object = json_object_get(root, inner[i][0]);
        if (inner[i][1])
            object = json_object_get(object, inner[i][1]);
        const json_t *value = json_object_get(object, key);
        if (value && !json_is_null(value))
            return value;
    }
    const json_t *value = json_object_get(root, key);
    return json_is_null(value) ? NULL : value;
}

// Takes the next of "a|b|c" into `word`; false at the end.
static bool next_word(const char **words, char word[64])
{
    if (!*words || !**words)
        return false;
    size_t n = strcspn(*words, "|");
    snprintf(word, 64, "%.*s", (int) n, *words);
    *words += n + ((*words)[n] == '|');
    return true;
}

static enum vkmoe_status read_json(const struct moe_lookup *lookup, const json_t *value,
                                   const char *key, uint32_t layer, struct moe_value *out)
{
    if (json_is_array(value)) {
        if (layer == MOE_ALL_LAYERS)
            return VKMOE_OK; // it is of single layers
        if (layer >= json_array_size(value))
            return moe_fail(VKMOE_E_DATA, "%s: %s has %zu entries, none for layer %u",
                            lookup->file, key, json_array_size(value), layer);
        value = json_array_get(value, layer);
    }
    if (json_is_object(value)) // activations of DBRX
        value = json_object_get(value, "name");
    if (json_is_boolean(value)) {
        out->kind = MOE_VALUE_BOOL;
        out->number = json_is_true(value);
    } else if (json_is_number(value)) {
        out->kind = MOE_VALUE_NUMBER;
        out->number = json_number_value(value);
    } else if (json_is_string(value)) {
        out->kind = MOE_VALUE_TEXT;
        out->text = json_string_value(value);
    }
    return VKMOE_OK;
}

static enum vkmoe_status read_gguf(const struct moe_lookup *lookup,
                                   const struct moe_gguf_value *value, uint32_t layer,
                                   struct moe_value *out)
{
    uint64_t n = 0;
    float real = 0;
    bool flag = false;
    enum vkmoe_status status = VKMOE_OK;
    if (value->is_array && layer == MOE_ALL_LAYERS)
        return VKMOE_OK;
    switch (value->type) {
    case MOE_GGUF_BOOL:
        if (value->is_array)
            return VKMOE_OK;
        status = moe_gguf_bool(lookup->gguf, value->key, &flag);
        out->kind = MOE_VALUE_BOOL;
        out->number = flag;
        break;
    case MOE_GGUF_F32:
    case MOE_GGUF_F64:
        status = moe_gguf_layer_f32(lookup->gguf, value->key, layer, &real);
        out->kind = MOE_VALUE_NUMBER;
        out->number = (double) real;
        break;
    case MOE_GGUF_STRING:
        if (value->is_array)
            return VKMOE_OK;
        status = moe_gguf_string(lookup->gguf, value->key, &out->text);
        out->kind = MOE_VALUE_TEXT;
        break;
    default:
        status = moe_gguf_layer_u64(lookup->gguf, value->key, layer, &n);
        out->kind = MOE_VALUE_NUMBER;
        out->number = (double) n;
        break;
    }
    return status;
}

enum vkmoe_status moe_look_up(const struct moe_lookup *lookup, const char *hf, const char *gguf,
                              uint32_t layer, struct moe_value *out)
{
    char word[64], key[160];
    *out = (struct moe_value){0};
    if (lookup->gguf) {
        while (next_word(&gguf, word)) {
            snprintf(key, sizeof key, "%.80s.%s", lookup->arch, word);
            const struct moe_gguf_value *value = moe_gguf_find_value(lookup->gguf, key);
            if (value) {
                out->key = value->key;
                return read_gguf(lookup, value, layer, out);
            }
        }
        return VKMOE_OK;
    }
    for (const char *names = hf, *name = hf; next_word(&names, word); name = names) {
        const json_t *value = find_in(lookup->root, word);
        if (value) {
            enum vkmoe_status status = read_json(lookup, value, word, layer, out);
            out->key = name; // it lives on in the list of names
            if (status != VKMOE_OK || out->kind != MOE_VALUE_NONE)
                return status;
        }
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_look_up_u32(const struct moe_lookup *lookup, const char *hf, const char *gguf,
                                  uint32_t layer, uint32_t *out)
{
    struct moe_value value;
    enum vkmoe_status status = moe_look_up(lookup, hf, gguf, layer, &value);
    if (status != VKMOE_OK || value.kind == MOE_VALUE_NONE || value.kind == MOE_VALUE_BOOL)
        return status;
    if (value.kind != MOE_VALUE_NUMBER || !(value.number >= 0 && value.number <= MAX_NUMBER) ||
        value.number != floor(value.number))
        return moe_fail(VKMOE_E_DATA, "%s: %.*s is not a whole number from 0 to %d", lookup->file,
                        (int) strcspn(value.key, "|"), value.key, MAX_NUMBER);
    *out = (uint32_t) value.number;
    return VKMOE_OK;
}

const json_t *moe_look_up_list(const struct moe_lookup *lookup, const char *names)
{
    char word[64];
    while (lookup->root && next_word(&names, word)) {
        const json_t *value = find_in(lookup->root, word);
        if (json_is_array(value))
            return value;
    }
    return NULL;
}
