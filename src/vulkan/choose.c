// SPDX-License-Identifier: MIT
// The table of kernel variants, the table of bad drivers, and the choice of a plan's variant.
#include "vulkan/choose.h"

#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"
#include "vulkan/feature_table.h"

// A column is a necessity. A new variant is a row, its kernel in shaders/meson.build, and nothing
// else: precision and types say where it may compute, so bf16 never becomes f16. Nor do codes: a
// scale times a code has more bits than f16, and mxfp4 and fp8 more range, so a1 is for f16 alone.
const struct moe_vk_variant moe_vk_variants[MOE_VK_N_VARIANTS] = {
    {
        .id = MOE_VK_A1, // both operands staged as f16, f32 accumulation
        .name = "a1",
        .tier = "T1 fp16",
        .needs = MOE_VK_BIT(MOE_VK_BDA) | MOE_VK_BIT(MOE_VK_FLOAT16),
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_HALF),
        .types = MOE_VK_BIT(VKMOE_F16),
        .inputs = MOE_VK_BIT(VKMOE_F32) | MOE_VK_BIT(VKMOE_F16),
        .rounds_x = true,
        .arithmetic = VKMOE_ARITHMETIC_F32,
        .gemm = MOE_N_SPV,
        .gemm_bda = MOE_SPV_EXPERT_GEMM_F16_BDA,
    },
    {
        .id = MOE_VK_A0, // f32 arithmetic, no optional feature
        .name = "a0",
        .tier = "T0 floor",
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_EXACT) | MOE_VK_BIT(VKMOE_PRECISION_HALF),
        .types = (1u << MOE_N_DTYPES) - 1,
        .inputs = (1u << MOE_N_FLOAT_DTYPES) - 1,
        .arithmetic = VKMOE_ARITHMETIC_F32,
        .gemm = MOE_SPV_EXPERT_GEMM,
        .gemm_bda = MOE_SPV_EXPERT_GEMM_BDA,
    },
};

// Drivers on which a variant is not to be tried. A row has a source.
static const struct {
    uint32_t driver;      // VkDriverId
    uint32_t first, last; // driverVersion
    enum moe_vk_variant_id variant;
    const char *link;
} bad_drivers[] = {
    // The GPU's firmware faults and the device restarts, although every pipeline compiles.
    {VK_DRIVER_ID_IMAGINATION_PROPRIETARY, 0, UINT32_MAX, MOE_VK_A1,
     "https://github.com/ggml-org/llama.cpp/issues/28214"},
};

const char *moe_vk_known_bad(const struct moe_vk_caps *caps, enum moe_vk_variant_id variant)
{
    for (size_t i = 0; i < MOE_COUNT(bad_drivers); i++)
        if (bad_drivers[i].driver == caps->driver_id && bad_drivers[i].variant == variant &&
            caps->driver_version >= bad_drivers[i].first &&
            caps->driver_version <= bad_drivers[i].last)
            return bad_drivers[i].link;
    return NULL;
}

static bool has_all(const struct moe_vk_caps *caps, uint32_t needs)
{
    return (caps->features & needs) == needs;
}

const char *moe_vk_tier(const struct moe_vk_caps *caps)
{
    const struct moe_vk_variant *variant = moe_vk_variants;
    while (!has_all(caps, variant->needs))
        variant++;
    return variant->tier;
}

static bool computes(const struct moe_vk_variant *variant, enum vkmoe_dtype weights,
                     enum vkmoe_dtype input)
{
    return (variant->types & MOE_VK_BIT(weights)) && (variant->inputs & MOE_VK_BIT(input));
}

// Any of the matmuls; the input of those that do not read x is f32 always.
static bool computes_any(const struct moe_vk_variant *variant, const vkmoe_layer_desc *layer,
                         enum vkmoe_dtype x_type)
{
    const bool shared = layer->d_shared_ff > 0, latent = layer->d_latent > 0;
    return computes(variant, layer->in_type, latent ? VKMOE_F32 : x_type) ||
           computes(variant, layer->out_type, VKMOE_F32) ||
           (shared && (computes(variant, layer->shared_in_type, x_type) ||
                       computes(variant, layer->shared_out_type, VKMOE_F32))) ||
           (latent && (computes(variant, layer->latent_type, x_type) ||
                       computes(variant, layer->latent_type, VKMOE_F32)));
}

static bool allowed(const struct moe_vk_variant *variant, enum vkmoe_precision precision)
{
    return variant->precisions & MOE_VK_BIT(precision);
}

uint32_t moe_vk_candidates(const struct moe_vk_caps *caps, const vkmoe_layer_desc *layer,
                           const struct moe_program_params *params,
                           const struct moe_vk_variant *out[MOE_VK_N_VARIANTS])
{
    uint32_t n = 0;
    for (int i = 0; i < MOE_VK_N_VARIANTS; i++) {
        const struct moe_vk_variant *variant = &moe_vk_variants[i];
        if (has_all(caps, variant->needs) && allowed(variant, params->precision) &&
            computes_any(variant, layer, params->x_type))
            out[n++] = variant;
    }
    return n;
}

bool moe_vk_why_not(const struct moe_vk_variant *variant, const struct moe_vk_caps *caps,
                    const vkmoe_layer_desc *layer, const struct moe_program_params *params,
                    char out[160])
{
    if (!allowed(variant, params->precision)) {
        snprintf(out, 160, "precision %s does not allow it",
                 vkmoe_precision_name(params->precision));
        return true;
    }
    if (!computes_any(variant, layer, params->x_type)) {
        snprintf(out, 160, "it has no kernel for weights of %s and %s and x of %s",
                 vkmoe_dtype_name(layer->in_type), vkmoe_dtype_name(layer->out_type),
                 vkmoe_dtype_name(params->x_type));
        return true;
    }
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        if (variant->needs & ~caps->features & MOE_VK_BIT(f)) {
            snprintf(out, 160, "%s is not there or not enabled", moe_vk_features[f].listed.member);
            return true;
        }
    return false;
}

const struct moe_vk_variant *moe_vk_matmul_variant(const struct moe_vk_variant *variant,
                                                   enum vkmoe_dtype weights, enum vkmoe_dtype input)
{
    return variant && computes(variant, weights, input) ? variant : &moe_vk_variants[MOE_VK_A0];
}

static enum vkmoe_status find(const struct moe_vk *vk, const char *name,
                              const struct moe_vk_variant **out)
{
    for (int i = 0; i < MOE_VK_N_VARIANTS; i++)
        if (strcmp(name, moe_vk_variants[i].name) == 0) {
            *out = &moe_vk_variants[i];
            return VKMOE_OK;
        }
    return moe_fail(VKMOE_E_UNSUPPORTED, "variant '%s': %s has only 'a0' and 'a1'", name,
                    vk->base.info.name);
}

static enum vkmoe_status choose_named(struct moe_vk *vk, const vkmoe_layer_desc *layer,
                                      const struct moe_program_params *params,
                                      const struct moe_vk_variant **out)
{
    enum vkmoe_status status = VKMOE_OK;
    const char *name = params->variant;
    bool good;
    char why[160];
    TRY(find(vk, name, out));
    if (moe_vk_why_not(*out, &vk->caps, layer, params, why))
        return moe_fail(VKMOE_E_UNSUPPORTED, "variant '%s' on %s: %s", name, vk->base.info.name,
                        why);
    TRY(moe_vk_judge(vk, *out, &good));
    if (!good)
        return moe_fail(VKMOE_E_UNSUPPORTED, "variant '%s' on %s: %s", name, vk->base.info.name,
                        moe_vk_verdict_text(vk, (*out)->id));

fail:
    return status;
}

// The first that is good and worth its place.
static enum vkmoe_status choose_best(struct moe_vk *vk, const struct moe_program_params *params,
                                     const struct moe_vk_variant *const *candidates, uint32_t n,
                                     const struct moe_vk_variant **out)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < n; i++) {
        bool good;
        TRY(moe_vk_judge(vk, candidates[i], &good));
        *out = candidates[i];
        if (good && moe_vk_known(vk, candidates[i]->id).state != MOE_VK_NOT_FASTER)
            return VKMOE_OK;
    }
    return moe_fail(VKMOE_E_UNSUPPORTED, "plan.precision = %s: %s has no kernel for it",
                    vkmoe_precision_name(params->precision), vk->base.info.name);

fail:
    return status;
}

enum vkmoe_status moe_vk_choose(struct moe_vk *vk, const vkmoe_layer_desc *layer,
                                const struct moe_program_params *params,
                                const struct moe_vk_variant **out)
{
    const struct moe_vk_variant *candidates[MOE_VK_N_VARIANTS];
    if (params->variant)
        return choose_named(vk, layer, params, out);
    uint32_t n = moe_vk_candidates(&vk->caps, layer, params, candidates);
    return choose_best(vk, params, candidates, n, out);
}

enum vkmoe_status moe_vk_choose_without(struct moe_vk *vk, const vkmoe_layer_desc *layer,
                                        const struct moe_program_params *params,
                                        const struct moe_vk_variant *variant,
                                        const struct moe_vk_variant **out)
{
    const struct moe_vk_variant *candidates[MOE_VK_N_VARIANTS];
    uint32_t n = moe_vk_candidates(&vk->caps, layer, params, candidates), first = 0;
    while (first < n && candidates[first]->id <= variant->id)
        first++;
    return choose_best(vk, params, candidates + first, n - first, out);
}
