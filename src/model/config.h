// SPDX-License-Identifier: MIT
// Strict reading of a JSON configuration: every value has its type and range, every key is known.
// Messages name the file and the key with its path, "layers[0].router.score".
#ifndef MOE_MODEL_CONFIG_H
#define MOE_MODEL_CONFIG_H

#include <vkmoe/vkmoe.h>

#include <jansson.h>

// A file of JSON. flags: of jansson's json_loadb.
// VKMOE_E_IO: cannot be read, or is shorter than it was.  VKMOE_E_DATA: larger than max_size bytes,
// or no JSON.
enum vkmoe_status moe_json_read(const vkmoe_host *host, const char *path, uint64_t max_size,
                                size_t flags, json_t **out);

// Index of a word in "a|b|c", or -1. NULL is a list of none.
int moe_word_index(const char *words, const char *word);

struct moe_config {
    const char *file; // for messages
    char path[128];   // of this object, "" at the top
    const json_t *object;
};

enum { MOE_CONFIG_MAX = 1 << 24 }; // largest size a configuration may give

// Fails with the path of `key` in this object: "<file>: config: <path>.<key>: <text>".
__attribute__((format(printf, 4, 5)))
enum vkmoe_status moe_config_fail(const struct moe_config *config, enum vkmoe_status status,
                                  const char *key, const char *format, ...);

// Any key beside these is an error. NULL ends the list.
enum vkmoe_status moe_config_keys(const struct moe_config *config, const char *const *known);

bool moe_config_has(const struct moe_config *config, const char *key);

// The object behind a key, and the i-th object of the array behind it.
enum vkmoe_status moe_config_object(const struct moe_config *config, const char *key,
                                    struct moe_config *out);
enum vkmoe_status moe_config_array(const struct moe_config *config, const char *key, size_t *n);
enum vkmoe_status moe_config_item(const struct moe_config *config, const char *key, size_t i,
                                  struct moe_config *out);

// A needed whole number 1..MOE_CONFIG_MAX.
enum vkmoe_status moe_config_size(const struct moe_config *config, const char *key, uint32_t *out);

// Optional values: without the key *out stays.
enum vkmoe_status moe_config_bool(const struct moe_config *config, const char *key, bool *out);
enum vkmoe_status moe_config_real(const struct moe_config *config, const char *key, float *out);

// One of the words of a "a|b|c" list, as its index; *out stays without the key when it is >= 0,
// else the key is needed. A word of `later` (same form, or NULL) is VKMOE_E_UNSUPPORTED.
enum vkmoe_status moe_config_word(const struct moe_config *config, const char *key,
                                  const char *words, const char *later, int *out);

#endif
