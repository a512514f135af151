// SPDX-License-Identifier: MIT
#include "model/config.h"

#include "base/file.h"
#include "base/host.h"
#include "base/status.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

enum vkmoe_status moe_json_read(const vkmoe_host *host, const char *path, uint64_t max_size,
                                size_t flags, json_t **out)
{
    enum vkmoe_status status;
    struct moe_file file = {0};
    char *text = NULL;
    json_error_t error;
    *out = NULL;
    TRY(moe_file_open(host, path, &file));
    if (file.size > max_size) {
        status = moe_fail(VKMOE_E_DATA, "%s: %llu bytes, at most %llu", path,
                          (unsigned long long) file.size, (unsigned long long) max_size);
        goto fail;
    }
    TRY(moe_try_alloc(host, (size_t) file.size, path, &text));
    TRY(moe_file_read_at(&file, 0, (size_t) file.size, text));
    *out = json_loadb(text, (size_t) file.size, flags, &error);
    if (!*out)
        status = moe_fail(VKMOE_E_DATA, "%s: %s (line %d, byte %d)", path, error.text, error.line,
                          error.position);

fail:
    moe_free(host, text);
    moe_file_close(&file);
    return status;
}

enum vkmoe_status moe_config_fail(const struct moe_config *config, enum vkmoe_status status,
                                  const char *key, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return moe_fail(status, "%s: config: %s%s%.80s: %s", config->file, config->path,
                    *config->path && *key ? "." : "", key, text);
}

enum vkmoe_status moe_config_keys(const struct moe_config *config, const char *const *known)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *) config->object, key, value) {
        const char *const *k = known;
        while (*k && strcmp(*k, key) != 0)
            k++;
        if (!*k)
            return moe_config_fail(config, VKMOE_E_DATA, key, "unknown key");
    }
    return VKMOE_OK;
}

bool moe_config_has(const struct moe_config *config, const char *key)
{
    return json_object_get(config->object, key) != NULL;
}

// The value behind a needed key.
static enum vkmoe_status need(const struct moe_config *config, const char *key, json_t **out)
{
    *out = json_object_get(config->object, key);
    return *out ? VKMOE_OK : moe_config_fail(config, VKMOE_E_DATA, key, "missing");
}

static enum vkmoe_status enter(const struct moe_config *config, const char *key, json_t *value,
                               struct moe_config *out)
{
    if (!json_is_object(value))
        return moe_config_fail(config, VKMOE_E_DATA, key, "not an object");
    out->file = config->file;
    out->object = value;
    snprintf(out->path, sizeof out->path, "%.80s%s%.40s", config->path, *config->path ? "." : "",
             key);
    return VKMOE_OK;
}

enum vkmoe_status moe_config_object(const struct moe_config *config, const char *key,
                                    struct moe_config *out)
{
    json_t *value;
    enum vkmoe_status status = need(config, key, &value);
    return status == VKMOE_OK ? enter(config, key, value, out) : status;
}

enum vkmoe_status moe_config_array(const struct moe_config *config, const char *key, size_t *n)
{
    json_t *value;
    enum vkmoe_status status = need(config, key, &value);
    if (status != VKMOE_OK)
        return status;
    *n = json_array_size(value);
    if (!json_is_array(value) || *n == 0)
        return moe_config_fail(config, VKMOE_E_DATA, key, "not an array with something in it");
    return VKMOE_OK;
}

enum vkmoe_status moe_config_item(const struct moe_config *config, const char *key, size_t i,
                                  struct moe_config *out)
{
    char name[40];
    snprintf(name, sizeof name, "%.16s[%zu]", key, i);
    return enter(config, name, json_array_get(json_object_get(config->object, key), i), out);
}

enum vkmoe_status moe_config_size(const struct moe_config *config, const char *key, uint32_t *out)
{
    json_t *value;
    enum vkmoe_status status = need(config, key, &value);
    if (status != VKMOE_OK)
        return status;
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1 || number > MOE_CONFIG_MAX)
        return moe_config_fail(config, VKMOE_E_DATA, key, "not a whole number from 1 to %d",
                               MOE_CONFIG_MAX);
    *out = (uint32_t) number;
    return VKMOE_OK;
}

enum vkmoe_status moe_config_bool(const struct moe_config *config, const char *key, bool *out)
{
    const json_t *value = json_object_get(config->object, key);
    if (!value)
        return VKMOE_OK;
    if (!json_is_boolean(value))
        return moe_config_fail(config, VKMOE_E_DATA, key, "not true or false");
    *out = json_is_true(value);
    return VKMOE_OK;
}

enum vkmoe_status moe_config_real(const struct moe_config *config, const char *key, float *out)
{
    const json_t *value = json_object_get(config->object, key);
    if (!value)
        return VKMOE_OK;
    float number = (float) json_number_value(value);
    if (!json_is_number(value) || !isfinite(number))
        return moe_config_fail(config, VKMOE_E_DATA, key, "not a number that f32 holds");
    *out = number;
    return VKMOE_OK;
}

int moe_word_index(const char *words, const char *word)
{
    size_t size = strlen(word);
    for (int i = 0; words && *words; i++) {
        size_t n = strcspn(words, "|");
        if (n == size && memcmp(words, word, n) == 0)
            return i;
        words += n + (words[n] == '|');
    }
    return -1;
}

enum vkmoe_status moe_config_word(const struct moe_config *config, const char *key,
                                  const char *words, const char *later, int *out)
{
    json_t *value = json_object_get(config->object, key);
    if (!value && *out >= 0)
        return VKMOE_OK;
    enum vkmoe_status status = need(config, key, &value);
    if (status != VKMOE_OK)
        return status;
    const char *word = json_string_value(value);
    int i = word ? moe_word_index(words, word) : -1;
    if (word && moe_word_index(later, word) >= 0)
        return moe_config_fail(config, VKMOE_E_UNSUPPORTED, key,
                               "'%s' is not computed yet (only %s)", word, words);
    if (i < 0)
        return moe_config_fail(config, VKMOE_E_DATA, key, "'%.40s' is not one of %s",
                               word ? word : "(not a text)", words);
    *out = i;
    return VKMOE_OK;
}
