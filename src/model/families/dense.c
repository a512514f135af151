// SPDX-License-Identifier: MIT
// Which layers have no experts, by what a configuration says. Where it says nothing, tensors do.
#include "model/families/families.h"

#include "base/bits.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>

enum rule_kind {
    RULE_FIRST,      // the first n
    RULE_EVERY,      // but every n-th: (layer + 1) % n == 0; not where `second` is there
    RULE_MULTIPLE,   // but layer % n == 0; as a list, by its entry
    RULE_ODD,        // but layer % n == 1
    RULE_PERIOD,     // but layer % n == the number behind `second`
    RULE_FROM,       // those below n
    RULE_UP_TO,      // those above n, where n is not negative
    RULE_LISTED,     // those in a list
    RULE_UNLISTED,   // those not in a list
    RULE_PATTERN,    // those whose letter is not E
    RULE_WORDS,      // those whose word is "dense", or not "moe"
    RULE_FLAGS,      // those whose entry is 0
    RULE_ENUM,       // those not in a text "4,5,6"
    RULE_OFF,        // all, where it is false
};

struct rule {
    enum rule_kind kind;
    const char *hf, *gguf, *second;
};

static const struct rule rules[] = {
    {RULE_OFF, "enable_moe_block", NULL, NULL},
    {RULE_WORDS, "mlp_layer_types|layers_block_type", NULL, NULL},
    {RULE_PATTERN, "hybrid_override_pattern", NULL, NULL},
    {RULE_FIRST, "first_k_dense_replace|num_dense_layers|moe_layer_num_skipped|"
     "first_num_dense_layers", "leading_dense_block_count", NULL},
    {RULE_LISTED, "mlp_only_layers", NULL, NULL},
    {RULE_UNLISTED, "moe_layers", NULL, NULL},
    {RULE_FLAGS, "moe_layer_layout|is_moe_layer", NULL, NULL},
    {RULE_ENUM, "moe_layers_enum", NULL, NULL},
    {RULE_EVERY, "interleave_moe_layer_step|moe_layer_interval|moe_layer_frequency",
     "interleave_moe_layer_step", NULL},
    // Models of two stacks count otherwise, each in its own way: there the tensors tell.
    {RULE_EVERY, "decoder_sparse_step", NULL, "encoder_sparse_step"},
    {RULE_MULTIPLE, "moe_layer_freq", NULL, NULL},
    {RULE_ODD, "moe_every_n_layers", "moe_every_n_layers", NULL},
    {RULE_PERIOD, "expert_layer_period", NULL, "expert_layer_offset"},
    {RULE_FROM, "moe_layer_start_index", NULL, NULL},
    {RULE_UP_TO, "moe_layer_end_index", NULL, NULL},
};

enum { MAX_SHOWN = 60 };

// The first bytes of a text, those that are no printable ASCII as \x1b.
static void show(const char *text, size_t n, char out[4 * MAX_SHOWN + 1])
{
    *out = '\0';
    for (size_t i = 0; i < n && text[i]; i++)
        out += sprintf(out, text[i] >= ' ' && text[i] <= '~' ? "%c" : "\\x%02x",
                       (unsigned char) text[i]);
}

// The name by which the configuration has the rule, for the reason.
static void spelling(const struct moe_value *value, char text[64])
{
    snprintf(text, 64, "%.*s", (int) strcspn(value->key, "|"), value->key);
}

static bool in_list(const json_t *list, uint32_t layer)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        if (json_is_number(entry) && json_number_value(entry) == layer)
            return true;
    }
    return false;
}

static bool in_text(const char *text, uint32_t layer)
{
    for (char *end; *text; text = *end ? end + 1 : end) {
        unsigned long n = strtoul(text, &end, 10);
        if (end == text)
            return false;
        if (n == layer)
            return true;
    }
    return false;
}

// The rules that look at a list as a whole.
static void by_list(const struct rule *rule, const struct moe_lookup *lookup, uint32_t layer,
                    char reason[160])
{
    const json_t *list = moe_look_up_list(lookup, rule->hf);
    if (!list)
        return;
    if (rule->kind == RULE_LISTED && in_list(list, layer))
        snprintf(reason, 160, "dense: layer %u is in %s", layer, rule->hf);
    if (rule->kind == RULE_UNLISTED && json_array_size(list) > 0 && !in_list(list, layer))
        snprintf(reason, 160, "dense: layer %u is not in %s", layer, rule->hf);
}

// Those that have a number.
static void by_number(enum rule_kind kind, const char *name, uint32_t n, uint32_t second,
                      uint32_t layer, char reason[160])
{
    bool dense = false;
    switch (kind) {
    case RULE_FIRST:
    case RULE_FROM:
        dense = layer < n;
        break;
    case RULE_EVERY:
        dense = n > 0 && (layer + 1) % n != 0;
        break;
    case RULE_MULTIPLE:
        dense = n > 0 && layer % n != 0;
        break;
    case RULE_ODD:
        dense = n > 1 && layer % n != 1;
        break;
    case RULE_PERIOD:
        dense = n > 0 && layer % n != second;
        break;
    case RULE_UP_TO:
        dense = layer > n;
        break;
    case RULE_FLAGS:
        dense = n == 0;
        break;
    default:
        break;
    }
    if (dense)
        snprintf(reason, 160, "dense: layer %u, and %.48s is %u", layer, name, n);
}

static void by_text(enum rule_kind kind, const char *name, const char *text, uint32_t layer,
                    char reason[160])
{
    bool dense = false;
    char shown[4 * MAX_SHOWN + 1];
    if (kind == RULE_WORDS)
        dense = strcmp(text, "sparse") != 0 && strcmp(text, "moe") != 0;
    if (kind == RULE_ENUM)
        dense = !in_text(text, layer);
    if (kind == RULE_PATTERN) {
        size_t n = strlen(text);
        if (layer < n && text[layer] == 'E')
            return;
        show(layer < n ? text + layer : "missing", layer < n ? 1 : MAX_SHOWN, shown);
        snprintf(reason, 160, "no experts: letter %u of %.40s is %s", layer, name, shown);
        return;
    }
    show(text, MAX_SHOWN, shown);
    if (dense)
        snprintf(reason, 160, "dense: layer %u, and %.40s is '%.80s'", layer, name, shown);
}

static enum vkmoe_status apply(const struct rule *rule, const struct moe_lookup *lookup,
                               uint32_t layer, char reason[160])
{
    struct moe_value value, other;
    enum vkmoe_status status = VKMOE_OK;
    uint32_t n = 0, second = 0;
    char name[64];
    if (rule->kind == RULE_LISTED || rule->kind == RULE_UNLISTED) {
        by_list(rule, lookup, layer, reason);
        return VKMOE_OK;
    }
    TRY(moe_look_up(lookup, rule->hf, rule->gguf, layer, &value));
    if (value.kind == MOE_VALUE_NONE)
        return VKMOE_OK;
    if (rule->kind == RULE_EVERY && rule->second) {
        TRY(moe_look_up(lookup, rule->second, NULL, layer, &other));
        if (other.kind != MOE_VALUE_NONE)
            return VKMOE_OK;
    }
    spelling(&value, name);
    if (rule->kind == RULE_OFF) {
        if (value.number == 0)
            snprintf(reason, 160, "dense: %s is false", name);
    } else if (value.kind == MOE_VALUE_TEXT) {
        by_text(rule->kind, name, value.text, layer, reason);
    } else if (value.number >= 0) {
        if (rule->kind == RULE_PERIOD)
            TRY(moe_look_up_u32(lookup, rule->second, NULL, layer, &second));
        n = value.number < UINT32_MAX ? (uint32_t) value.number : UINT32_MAX;
        // moe_layer_freq as a list has 0 and 1.
        bool flags = rule->kind == RULE_MULTIPLE && moe_look_up_list(lookup, rule->hf);
        by_number(flags ? RULE_FLAGS : rule->kind, name, n, second, layer, reason);
    }

fail:
    return status;
}

enum vkmoe_status moe_dense_layer(const struct moe_lookup *lookup, uint32_t layer,
                                  char reason[160])
{
    *reason = '\0';
    for (size_t i = 0; i < MOE_COUNT(rules) && !*reason; i++) {
        enum vkmoe_status status = apply(&rules[i], lookup, layer, reason);
        if (status != VKMOE_OK)
            return status;
    }
    return VKMOE_OK;
}
