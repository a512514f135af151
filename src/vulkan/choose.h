// SPDX-License-Identifier: MIT
// Which kernels compute a layer: the variants there are, what each needs, and which drivers are
// known to fail.
#ifndef MOE_VULKAN_CHOOSE_H
#define MOE_VULKAN_CHOOSE_H

#include "vulkan/vk.h"

enum moe_vk_variant_id { // best first; the last computes everything, everywhere
    MOE_VK_A1,
    MOE_VK_A0,
    MOE_VK_N_VARIANTS,
};

struct moe_vk_variant {
    enum moe_vk_variant_id id;
    const char *name;
    const char *tier;               // of devices whose best variant it is
    uint32_t needs;                 // features, as bits
    uint32_t precisions;            // that allow it: bits 1 << enum vkmoe_precision
    uint32_t types, inputs;         // weights, and x, that it computes: bits 1 << enum vkmoe_dtype
    bool rounds_x;                  // to its own type, whatever x is
    enum moe_spv_id gemm, gemm_bda; // kernel of one matmul; gemm MOE_N_SPV: by address only
};
extern const struct moe_vk_variant moe_vk_variants[MOE_VK_N_VARIANTS];

// The tier of the best variant that a device can have. Static text.
const char *moe_vk_tier(const struct moe_vk_caps *caps);

// The variants that may compute a plan, best first, and how many. At precisions that are computed
// at all the last one is a0. Pure.
uint32_t moe_vk_candidates(const struct moe_vk_caps *caps, const vkmoe_layer_desc *layer,
                           const struct moe_program_params *params,
                           const struct moe_vk_variant *out[MOE_VK_N_VARIANTS]);

// Why a variant is not among the candidates, as text in `out`; false if it is. Pure.
bool moe_vk_why_not(const struct moe_vk_variant *variant, const struct moe_vk_caps *caps,
                    const vkmoe_layer_desc *layer, const struct moe_program_params *params,
                    char out[160]);

// What computes a matmul of a plan with a variant (NULL: a0): the variant where it has a kernel for
// weights and an input of these types, else a0. So a layer's two matmuls may differ. Pure.
const struct moe_vk_variant *moe_vk_matmul_variant(const struct moe_vk_variant *variant,
                                                   enum vkmoe_dtype weights,
                                                   enum vkmoe_dtype input);

// Where it is told that a driver computes a variant wrongly or does not survive it; NULL: nowhere
// that we know of. Pure.
const char *moe_vk_known_bad(const struct moe_vk_caps *caps, enum moe_vk_variant_id variant);

// The variant of a plan: the one it names, or the best that is not known to be bad.
// VKMOE_E_UNSUPPORTED: what it names cannot be had; the text says why.
enum vkmoe_status moe_vk_choose(struct moe_vk *vk, const vkmoe_layer_desc *layer,
                                const struct moe_program_params *params,
                                const struct moe_vk_variant **out);

#endif
