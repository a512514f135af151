// SPDX-License-Identifier: MIT
// Which family a GGUF file is of.
#include "model/families/families.h"

#include "base/status.h"
#include "model/config.h"

#include <stdio.h>

static bool number(const struct moe_gguf *gguf, const char *arch, const char *name, uint64_t *out)
{
    char key[160];
    snprintf(key, sizeof key, "%.80s.%s", arch, name);
    const struct moe_gguf_value *value = moe_gguf_find_value(gguf, key);
    if (!value)
        return false;
    if (value->is_array)
        *out = value->n; // of a vocabulary
    else if (moe_gguf_u64(gguf, key, out) != VKMOE_OK)
        return false;
    return true;
}

static uint64_t vocabulary(const struct moe_gguf *gguf, const char *arch)
{
    uint64_t n = 0;
    const struct moe_gguf_value *tokens = moe_gguf_find_value(gguf, "tokenizer.ggml.tokens");
    if (number(gguf, arch, "vocab_size", &n))
        return n;
    return tokens && tokens->is_array ? tokens->n : 0;
}

// DeepSeek-V2, V3, Kimi-K2 and GLM-4.7-Flash have one architecture. Those with sigmoids say so; but
// old files of the last do not, and are known by their numbers of layers and tokens.
static const struct moe_family *deepseek2(const struct moe_gguf *gguf, const char *arch)
{
    uint64_t gating = 0, n_layers = 0;
    if (number(gguf, arch, "expert_gating_func", &gating) && gating != 0)
        return moe_family_named(gating == 2 ? "deepseek_v3" : "deepseek_v2");
    number(gguf, arch, "block_count", &n_layers);
    if ((n_layers == 47 || n_layers == 48) && vocabulary(gguf, arch) == 154880)
        return moe_family_named("glm4_moe_lite");
    return moe_family_named("deepseek_v2");
}

// Both generations of Grok have one architecture; only the second caps its router's logits.
static const struct moe_family *grok(const struct moe_gguf *gguf)
{
    bool capped = moe_gguf_find_value(gguf, "grok.router_logit_softcapping");
    return moe_family_named(capped ? "grok-2" : "grok-1");
}

const struct moe_family *moe_family_of_gguf(const struct moe_gguf *gguf, const char *arch)
{
    if (strcmp(arch, "deepseek2") == 0 || strcmp(arch, "deepseek2-ocr") == 0)
        return deepseek2(gguf, arch);
    if (strcmp(arch, "grok") == 0)
        return grok(gguf);
    for (uint32_t i = 0; i < moe_n_families; i++) {
        if (moe_word_index(moe_families[i].archs, arch) >= 0)
            return &moe_families[i];
    }
    return NULL;
}
