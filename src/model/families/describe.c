// SPDX-License-Identifier: MIT
// Explicit descriptions: a layer's fields and the names of its tensors, as JSON.
#include "model/families/families.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/layer_fields.h"
#include "model/config.h"

#include <math.h>

static const char description[] = "description"; // in place of a file's name

// Words of the enums, in the order of their values.
static const struct {
    const char *field, *words;
} enum_words[] = {
    {"in_type", NULL},
    {"out_type", NULL},
    {"latent_type", NULL},
    {"shared_in_type", NULL},
    {"shared_out_type", NULL},
    {"score", "softmax|sigmoid|sqrt_softplus|relu|none"},
    {"rank", "score|logit|sigmoid"},
    {"select", "top_k|table|sparsemixer|top_p|threshold"},
    {"gate_source", "score|softmax_selected"},
    {"norm", "none|sum_plus_eps|max_sum_eps"},
    {"group_score", "max|top2_sum|top_share_sum"},
    {"expert_kind", "mlp|linear"},
    {"act", "none|silu|gelu_erf|gelu_tanh|relu|relu2|sigmoid|tanh|situ"},
    {"act_out", "none|silu|gelu_erf|gelu_tanh|relu|relu2|sigmoid|tanh|situ"},
    {"clamp", "none|before_act|after_act"},
    {"shared_gate", "plain|sigmoid|softmax2"},
    {"capacity_mode", "none|by_position|by_gate"},
};

static enum vkmoe_status read_type(const struct moe_config *config, const char *key, uint32_t *out)
{
    const char *name = json_string_value(json_object_get(config->object, key));
    enum vkmoe_dtype type;
    if (!name || vkmoe_dtype_from_name(name, &type) != VKMOE_OK)
        return moe_config_fail(config, VKMOE_E_DATA, key, "'%.40s' is no type",
                               name ? name : "(not a text)");
    *out = (uint32_t) type;
    return VKMOE_OK;
}

static enum vkmoe_status read_enum(const struct moe_config *config, const char *key, void *at)
{
    uint32_t value = 0;
    int word = -1;
    enum vkmoe_status status = VKMOE_OK;
    for (size_t i = 0; i < MOE_COUNT(enum_words); i++) {
        if (strcmp(enum_words[i].field, key) != 0)
            continue;
        if (enum_words[i].words) {
            status = moe_config_word(config, key, enum_words[i].words, NULL, &word);
            value = (uint32_t) word;
        } else {
            status = read_type(config, key, &value);
        }
        if (status == VKMOE_OK)
            memcpy(at, &value, sizeof value);
        return status;
    }
    return moe_config_fail(config, VKMOE_E_DATA, key, "cannot be described");
}

static enum vkmoe_status read_u32(const struct moe_config *config, const char *key, void *at)
{
    const json_t *value = json_object_get(config->object, key);
    json_int_t n = json_integer_value(value);
    if (!json_is_integer(value) || n < 0 || n > MOE_CONFIG_MAX)
        return moe_config_fail(config, VKMOE_E_DATA, key, "not a whole number from 0 to %d",
                               MOE_CONFIG_MAX);
    uint32_t small = (uint32_t) n;
    memcpy(at, &small, sizeof small);
    return VKMOE_OK;
}

static enum vkmoe_status read_field(const struct moe_config *config, const char *key,
                                    vkmoe_layer_desc *desc)
{
    for (uint32_t i = 0; i < moe_n_layer_fields; i++) {
        const struct moe_layer_field *field = &moe_layer_fields[i];
        if (strcmp(field->name, key) != 0)
            continue;
        char *at = (char *) desc + field->offset;
        switch (field->kind) {
        case MOE_FIELD_BOOL:
            return moe_config_bool(config, key, (bool *) at);
        case MOE_FIELD_U32:
            return read_u32(config, key, at);
        case MOE_FIELD_F32:
            return moe_config_real(config, key, (float *) (void *) at);
        case MOE_FIELD_ENUM:
            return read_enum(config, key, at);
        case MOE_FIELD_ARRAY:
            return moe_config_fail(config, VKMOE_E_UNSUPPORTED, key, "cannot be described");
        }
    }
    return moe_config_fail(config, VKMOE_E_DATA, key, "no field of a layer");
}

enum vkmoe_status moe_layer_fields_read(const json_t *object, vkmoe_layer_desc *desc)
{
    const struct moe_config config = {.file = description, .path = "layer", .object = object};
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return moe_fail(VKMOE_E_DATA, "%s: layer is not an object", description);
    json_object_foreach((json_t *) object, key, value) {
        enum vkmoe_status status = read_field(&config, key, desc);
        if (status != VKMOE_OK)
            return status;
    }
    return VKMOE_OK;
}

bool moe_layer_field_is_type(const char *name)
{
    return strstr(name, "_type") != NULL;
}

// The word of an enum's value.
static json_t *write_enum(const char *field, uint32_t value)
{
    for (size_t i = 0; i < MOE_COUNT(enum_words); i++) {
        const char *words = enum_words[i].words;
        if (!words || strcmp(enum_words[i].field, field) != 0)
            continue;
        for (; value > 0; value--)
            words += strcspn(words, "|") + 1;
        return json_stringn(words, strcspn(words, "|"));
    }
    return NULL;
}

static json_t *write_field(const struct moe_layer_field *field, const char *at)
{
    uint32_t number = 0;
    float real;
    memcpy(&number, at, field->kind == MOE_FIELD_BOOL ? 1 : sizeof number);
    memcpy(&real, &number, sizeof real);
    switch (field->kind) {
    case MOE_FIELD_BOOL:
        return json_boolean(*(const bool *) at);
    case MOE_FIELD_U32:
        return json_integer(number);
    case MOE_FIELD_F32:
        return json_real((double) real);
    case MOE_FIELD_ENUM:
        return write_enum(field->name, number);
    case MOE_FIELD_ARRAY:
        break;
    }
    return NULL;
}

json_t *moe_layer_fields_write(const vkmoe_layer_desc *desc)
{
    const vkmoe_layer_desc plain = vkmoe_layer_desc_init();
    json_t *object = json_object();
    for (uint32_t i = 0; i < moe_n_layer_fields; i++) {
        const struct moe_layer_field *field = &moe_layer_fields[i];
        const char *at = (const char *) desc + field->offset;
        size_t size = field->kind == MOE_FIELD_BOOL ? sizeof(bool) : sizeof(uint32_t);
        if (field->kind == MOE_FIELD_ARRAY || moe_layer_field_is_type(field->name) ||
            memcmp(at, (const char *) &plain + field->offset, size) == 0)
            continue;
        if (json_object_set_new(object, field->name, write_field(field, at)) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static enum vkmoe_status parse(const char *text, json_t **out)
{
    json_error_t error;
    *out = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!*out)
        return moe_fail(VKMOE_E_DATA, "%s: %s (line %d, byte %d)", description, error.text,
                        error.line, error.position);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_layer_parse(const char *text, vkmoe_layer_desc *out)
{
    json_t *json;
    if (!text || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_layer_parse: %s is NULL", text ? "out" : "text");
    enum vkmoe_status status = parse(text, &json);
    if (status != VKMOE_OK)
        return status;
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    status = moe_layer_fields_read(json, &desc);
    if (status == VKMOE_OK)
        *out = desc;
    json_decref(json);
    return status;
}

// ---- tensors ---------------------------------------------------------------------------------

static enum vkmoe_status find_part(const char *name, enum vkmoe_part *out)
{
    for (int i = 0; i < VKMOE_N_PARTS; i++) {
        if (strcmp(vkmoe_part_name((enum vkmoe_part) i), name) == 0) {
            *out = (enum vkmoe_part) i;
            return VKMOE_OK;
        }
    }
    return moe_fail(VKMOE_E_DATA, "%s: tensors.%.60s: no part of a layer", description, name);
}

static enum vkmoe_status read_place(const char *part, const json_t *value, struct moe_place *out)
{
    static const char *const known[] = {"name", "stack", "transposed", "rows", NULL};
    int stack = 0, rows = 0;
    enum vkmoe_status status;
    struct moe_config config = {.file = description, .object = value};
    *out = (struct moe_place){0};
    TRY(find_part(part, &out->part));
    if (json_is_string(value)) {
        out->name = json_string_value(value);
        return VKMOE_OK;
    }
    strcpy(config.path, "tensors");
    if (!json_is_object(value))
        return moe_config_fail(&config, VKMOE_E_DATA, part, "neither a text nor an object");
    strcat(config.path, ".");
    strncat(config.path, part, 40);
    TRY(moe_config_keys(&config, known));
    out->name = json_string_value(json_object_get(value, "name"));
    if (!out->name)
        return moe_config_fail(&config, VKMOE_E_DATA, "name", "missing, or not a text");
    TRY(moe_config_word(&config, "stack", "none|first|rows", NULL, &stack));
    TRY(moe_config_bool(&config, "transposed", &out->transposed));
    TRY(moe_config_word(&config, "rows", "all|first|second|even|odd", NULL, &rows));
    out->stack = (enum moe_stack) stack;
    out->rows = (enum moe_row_choice) rows;

fail:
    return status;
}

static enum vkmoe_status read_places(const vkmoe_host *host, const json_t *tensors,
                                     struct moe_explicit *d)
{
    enum vkmoe_status status;
    const char *key;
    json_t *value;
    if (!json_is_object(tensors))
        return moe_fail(VKMOE_E_DATA, "%s: tensors is not an object", description);
    TRY(moe_try_alloc(host, (json_object_size(tensors) + 1) * sizeof *d->places, "places",
                      &d->places));
    json_object_foreach((json_t *) tensors, key, value)
        TRY(read_place(key, value, &d->places[d->n_places++]));

fail:
    return status;
}

static enum vkmoe_status read_family(const struct moe_config *config, struct moe_explicit *d)
{
    char list[2048];
    const char *name = json_string_value(json_object_get(config->object, "family"));
    if (!moe_config_has(config, "family"))
        return VKMOE_OK;
    d->family = name ? moe_family_named(name) : NULL;
    if (!d->family)
        return moe_config_fail(config, VKMOE_E_DATA, "family", "'%.40s' is none of: %s",
                               name ? name : "(not a text)", moe_family_list(list));
    return VKMOE_OK;
}

enum vkmoe_status moe_explicit_parse(const vkmoe_host *host, const char *text,
                                     struct moe_explicit *out)
{
    static const char *const known[] = {"family", "layers", "layer", "tensors", NULL};
    enum vkmoe_status status;
    struct moe_explicit d = {0};
    vkmoe_layer_desc scratch = vkmoe_layer_desc_init();
    *out = d;
    TRY(parse(text, &d.json));
    const struct moe_config config = {.file = description, .object = d.json};
    if (!json_is_object(d.json)) {
        status = moe_fail(VKMOE_E_DATA, "%s: not an object", description);
        goto fail;
    }
    TRY(moe_config_keys(&config, known));
    TRY(read_family(&config, &d));
    if (moe_config_has(&config, "layers"))
        TRY(moe_config_size(&config, "layers", &d.n_layers));
    d.layer = json_object_get(d.json, "layer");
    if (d.layer)
        TRY(moe_layer_fields_read(d.layer, &scratch));
    if (moe_config_has(&config, "tensors"))
        TRY(read_places(host, json_object_get(d.json, "tensors"), &d));
    if (!d.family && (!d.layer || d.n_places == 0)) {
        status = moe_fail(VKMOE_E_DATA, "%s: without a family it needs layer and tensors",
                          description);
        goto fail;
    }
    *out = d;
    return VKMOE_OK;

fail:
    moe_explicit_finish(host, &d);
    return status;
}

void moe_explicit_finish(const vkmoe_host *host, struct moe_explicit *d)
{
    moe_free(host, d->places);
    json_decref(d->json);
    *d = (struct moe_explicit){0};
}
