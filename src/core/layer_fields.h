// SPDX-License-Identifier: MIT
// Every field of vkmoe_layer_desc in one table: its kind, the values it may have, the values that
// are computed, and those whose gradient is. To compute more of a field is to widen its row.
#ifndef MOE_CORE_LAYER_FIELDS_H
#define MOE_CORE_LAYER_FIELDS_H

#include <vkmoe/vkmoe.h>

enum moe_field_kind {
    MOE_FIELD_BOOL,
    MOE_FIELD_U32,
    MOE_FIELD_F32,   // must be finite
    MOE_FIELD_ENUM,  // must be below n_values
    MOE_FIELD_ARRAY, // a pointer; its only value with a number is NULL, which is 0
};

struct moe_layer_field {
    const char *name;
    size_t offset;
    enum moe_field_kind kind;
    uint32_t n_values;   // of an enum
    uint32_t computed;   // bit v: the value v is computed
    const char *refusal; // says why other values are refused; NULL: all values are computed
    bool all_gradients;  // the gradient of every value is computed, else that of those in
    uint32_t gradients;  // bit v: of the value v
};

extern const struct moe_layer_field moe_layer_fields[];
extern const uint32_t moe_n_layer_fields;

// VKMOE_E_ARGUMENT: a number is not finite or no value of its enum.  VKMOE_E_UNSUPPORTED: a value
// is not computed yet. The text begins with "layer.<name> = <value>: ".
enum vkmoe_status moe_layer_check_fields(const vkmoe_layer_desc *desc);

// Fields that only make sense together; sizes are checked, defaults filled in. layer_pairs.c.
enum vkmoe_status moe_layer_check_pairs(const vkmoe_layer_desc *desc);

#endif
