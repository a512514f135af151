// SPDX-License-Identifier: MIT
// What the keys of a GGUF file say, by the types that are stored.
#include "model/gguf_part.h"

#include "base/bits.h"
#include "base/status.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static enum vkmoe_status fail_type(const struct moe_gguf_part *part,
                                   const struct moe_gguf_value *v, const char *wanted)
{
    const char *name = moe_gguf_value_kind(v->type)->name;
    if (v->is_array)
        return moe_fail(VKMOE_E_DATA, "%s: key '%.128s' is an array of %llu %s, not %s", part->path,
                        v->key, (unsigned long long) v->n, name, wanted);
    return moe_fail(VKMOE_E_DATA, "%s: key '%.128s' is a single %s, not %s", part->path, v->key,
                    name, wanted);
}

static enum vkmoe_status find(const struct moe_gguf_part *part, const char *key,
                              const struct moe_gguf_value **out)
{
    *out = moe_gguf_part_value(part, key);
    if (!*out)
        return moe_fail(VKMOE_E_DATA, "%s: key '%s' is missing", part->path, key);
    return VKMOE_OK;
}

// ---- one element -----------------------------------------------------------------------------

// Where to look: at the single value, at element i of an array, or at either.
enum place {
    SINGLE,
    ELEMENT,
    LAYER,
};

static enum vkmoe_status find_element(const struct moe_gguf_part *part, const char *key,
                                      enum place place, uint64_t i,
                                      const struct moe_gguf_value **out,
                                      const unsigned char **bytes)
{
    enum vkmoe_status status = find(part, key, out);
    if (status != VKMOE_OK)
        return status;
    const struct moe_gguf_value *v = *out;
    if (v->is_array ? place == SINGLE : place == ELEMENT)
        return fail_type(part, v, v->is_array ? "a single value" : "an array");
    if (!v->is_array)
        i = 0;
    if (i >= v->n)
        return moe_fail(VKMOE_E_DATA, "%s: key '%.128s' has %llu elements, none for %s %llu",
                        part->path, key, (unsigned long long) v->n,
                        place == LAYER ? "layer" : "index", (unsigned long long) i);
    *bytes = (const unsigned char *) v->data + i * moe_gguf_value_kind(v->type)->size;
    return VKMOE_OK;
}

static enum vkmoe_status get_integer(const struct moe_gguf_part *part, const char *key,
                                     enum place place, uint64_t i, uint64_t max, uint64_t *out)
{
    const struct moe_gguf_value *v;
    const unsigned char *bytes = NULL;
    bool is_signed = false;
    enum vkmoe_status status = find_element(part, key, place, i, &v, &bytes);
    if (status != VKMOE_OK)
        return status;
    switch (v->type) {
    case MOE_GGUF_U8:
    case MOE_GGUF_U16:
    case MOE_GGUF_U32:
    case MOE_GGUF_U64:
        break;
    case MOE_GGUF_I8:
    case MOE_GGUF_I16:
    case MOE_GGUF_I32:
    case MOE_GGUF_I64:
        is_signed = true;
        break;
    case MOE_GGUF_F32:
    case MOE_GGUF_F64:
    case MOE_GGUF_BOOL:
    case MOE_GGUF_STRING:
    case MOE_GGUF_ARRAY:
        return fail_type(part, v, "an integer");
    }
    uint32_t size = moe_gguf_value_kind(v->type)->size;
    uint64_t number = moe_gguf_number(bytes, size);
    uint64_t sign = (uint64_t) 1 << (8 * size - 1);
    if (is_signed && number >= sign) // two's complement
        return moe_fail(VKMOE_E_DATA, "%s: key '%.128s' says -%llu, a number >= 0 is wanted",
                        part->path, key, (unsigned long long) (2 * sign - number));
    if (number > max)
        return moe_fail(VKMOE_E_DATA, "%s: key '%.128s' says %llu, at most %llu", part->path, key,
                        (unsigned long long) number, (unsigned long long) max);
    *out = number;
    return VKMOE_OK;
}

static enum vkmoe_status get_float(const struct moe_gguf_part *part, const char *key,
                                   enum place place, uint64_t i, double *out)
{
    const struct moe_gguf_value *v;
    const unsigned char *bytes = NULL;
    enum vkmoe_status status = find_element(part, key, place, i, &v, &bytes);
    if (status != VKMOE_OK)
        return status;
    if (v->type == MOE_GGUF_F64) {
        uint64_t bits = moe_gguf_number(bytes, 8);
        memcpy(out, &bits, sizeof bits);
    } else if (v->type == MOE_GGUF_F32) {
        uint32_t bits = (uint32_t) moe_gguf_number(bytes, 4);
        float value;
        memcpy(&value, &bits, sizeof bits);
        *out = value;
    } else
        return fail_type(part, v, "f32 or f64");
    return VKMOE_OK;
}

static enum vkmoe_status get_f32(const struct moe_gguf_part *part, const char *key,
                                 enum place place, uint64_t i, float *out)
{
    double value = 0;
    enum vkmoe_status status = get_float(part, key, place, i, &value);
    if (status != VKMOE_OK)
        return status;
    if (isfinite(value) && fabs(value) > FLT_MAX)
        return moe_fail(VKMOE_E_DATA, "%s: key '%.128s' says %g, too large for f32", part->path,
                        key, value);
    *out = (float) value;
    return VKMOE_OK;
}

static enum vkmoe_status get_u32(const struct moe_gguf_part *part, const char *key,
                                 enum place place, uint64_t i, uint32_t *out)
{
    uint64_t number = 0;
    enum vkmoe_status status = get_integer(part, key, place, i, UINT32_MAX, &number);
    if (status == VKMOE_OK)
        *out = (uint32_t) number;
    return status;
}

// ---- the reader's functions ------------------------------------------------------------------

const struct moe_gguf_value *moe_gguf_find_value(const struct moe_gguf *file, const char *key)
{
    return moe_gguf_part_value(file->parts, key);
}

enum vkmoe_status moe_gguf_part_u64(const struct moe_gguf_part *part, const char *key,
                                    uint64_t *out)
{
    return get_integer(part, key, SINGLE, 0, UINT64_MAX, out);
}

enum vkmoe_status moe_gguf_u64(const struct moe_gguf *file, const char *key, uint64_t *out)
{
    return moe_gguf_part_u64(file->parts, key, out);
}

enum vkmoe_status moe_gguf_u32(const struct moe_gguf *file, const char *key, uint32_t *out)
{
    return get_u32(file->parts, key, SINGLE, 0, out);
}

enum vkmoe_status moe_gguf_f64(const struct moe_gguf *file, const char *key, double *out)
{
    return get_float(file->parts, key, SINGLE, 0, out);
}

enum vkmoe_status moe_gguf_f32(const struct moe_gguf *file, const char *key, float *out)
{
    return get_f32(file->parts, key, SINGLE, 0, out);
}

enum vkmoe_status moe_gguf_bool(const struct moe_gguf *file, const char *key, bool *out)
{
    const struct moe_gguf_value *v;
    const unsigned char *bytes = NULL;
    enum vkmoe_status status = find_element(file->parts, key, SINGLE, 0, &v, &bytes);
    if (status != VKMOE_OK)
        return status;
    if (v->type != MOE_GGUF_BOOL)
        return fail_type(file->parts, v, "a bool");
    *out = *bytes != 0;
    return VKMOE_OK;
}

enum vkmoe_status moe_gguf_string(const struct moe_gguf *file, const char *key, const char **out)
{
    const struct moe_gguf_value *v;
    const unsigned char *bytes = NULL;
    enum vkmoe_status status = find_element(file->parts, key, SINGLE, 0, &v, &bytes);
    if (status != VKMOE_OK)
        return status;
    if (v->type != MOE_GGUF_STRING)
        return fail_type(file->parts, v, "a string");
    const struct moe_gguf_text *text = v->data;
    if (strlen(text->text) != text->size)
        return moe_fail(VKMOE_E_DATA, "%s: key '%.128s': byte %zu of %zu of its text is zero",
                        file->parts->path, key, strlen(text->text), text->size);
    *out = text->text;
    return VKMOE_OK;
}

enum vkmoe_status moe_gguf_array(const struct moe_gguf *file, const char *key,
                                 enum moe_gguf_value_type type, const struct moe_gguf_value **out)
{
    char wanted[32];
    const struct moe_gguf_value *v;
    enum vkmoe_status status = find(file->parts, key, &v);
    if (status != VKMOE_OK)
        return status;
    snprintf(wanted, sizeof wanted, "an array of %s", moe_gguf_value_kind(type)->name);
    if (!v->is_array || v->type != type)
        return fail_type(file->parts, v, wanted);
    *out = v;
    return VKMOE_OK;
}

enum vkmoe_status moe_gguf_element_u64(const struct moe_gguf *file, const char *key, uint64_t i,
                                       uint64_t *out)
{
    return get_integer(file->parts, key, ELEMENT, i, UINT64_MAX, out);
}

enum vkmoe_status moe_gguf_element_f32(const struct moe_gguf *file, const char *key, uint64_t i,
                                       float *out)
{
    return get_f32(file->parts, key, ELEMENT, i, out);
}

enum vkmoe_status moe_gguf_layer_u64(const struct moe_gguf *file, const char *key, uint32_t layer,
                                     uint64_t *out)
{
    return get_integer(file->parts, key, LAYER, layer, UINT64_MAX, out);
}

enum vkmoe_status moe_gguf_layer_u32(const struct moe_gguf *file, const char *key, uint32_t layer,
                                     uint32_t *out)
{
    return get_u32(file->parts, key, LAYER, layer, out);
}

enum vkmoe_status moe_gguf_layer_f32(const struct moe_gguf *file, const char *key, uint32_t layer,
                                     float *out)
{
    return get_f32(file->parts, key, LAYER, layer, out);
}
