// SPDX-License-Identifier: MIT
// Host memory that a caller gave, as addresses: is it aligned, does it overlap?
#ifndef MOE_API_RANGES_H
#define MOE_API_RANGES_H

#include <vkmoe/vkmoe.h>

#define MOE_NO_INDEX UINT32_MAX

struct moe_range {
    const char *owner, *name; // "io", "x"
    uint32_t index;           // of the owner, or MOE_NO_INDEX
    uint32_t order;           // among the arguments
    bool written;
    uintptr_t begin;
    uint64_t size; // 0: not given
};

// Rows of a caller's array; memory NULL or n_rows 0: not given. The names in `out` are filled in
// already and are static text. VKMOE_E_ARGUMENT: misaligned.  VKMOE_E_SHAPE: beyond all memory.
enum vkmoe_status moe_range_set(struct moe_range *out, const void *memory, uint64_t n_rows,
                                size_t stride, size_t row_size, size_t align);

// VKMOE_E_ARGUMENT when one overlaps with another and at least one of the two is written. Sorts the
// ranges, and allocates nothing for a few of them.
enum vkmoe_status moe_ranges_check(struct moe_range *ranges, uint32_t n);

#endif
