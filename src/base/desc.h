// SPDX-License-Identifier: MIT
// Reading a caller's desc, which may come from an older or a newer header than ours.
#ifndef MOE_BASE_DESC_H
#define MOE_BASE_DESC_H

#include <vkmoe/vkmoe.h>

// Copies a desc whose first member is its struct_size over `out`, `size` bytes that hold the
// defaults of this version; fields an older caller does not know keep them.
//
// VKMOE_E_ARGUMENT: struct_size is 0 or too small to be true.  VKMOE_E_UNSUPPORTED: a newer caller
// has set a field that this version does not know. `name` is the desc's type, for the text.
enum vkmoe_status moe_desc_copy(void *out, size_t size, const void *desc, const char *name);

#endif
