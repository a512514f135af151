// SPDX-License-Identifier: MIT
// What single families do that no key says by itself; see moe_family.special.
#ifndef MOE_MODEL_FAMILIES_SPECIAL_H
#define MOE_MODEL_FAMILIES_SPECIAL_H

#include "model/families/families.h"

typedef enum vkmoe_status moe_special(const struct moe_lookup *lookup, uint32_t layer,
                                      struct moe_facts *facts);

moe_special moe_special_phimoe, moe_special_switch, moe_special_scaled_sum, moe_special_nllb,
    moe_special_dbrx, moe_special_gemma4, moe_special_ernie, moe_special_norm_of_many,
    moe_special_deepseek_v2, moe_special_deepseek_v3, moe_special_cohere2,
    moe_special_smallthinker, moe_special_hash;

#endif
