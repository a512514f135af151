// SPDX-License-Identifier: MIT
#include "api/ranges.h"

#include "api/api.h"

#include <stdio.h>
#include <stdlib.h>

struct text {
    char text[64];
};

static struct text name_of(const struct moe_range *range)
{
    struct text out;
    if (range->index == MOE_NO_INDEX)
        snprintf(out.text, sizeof out.text, "%s.%s", range->owner, range->name);
    else
        snprintf(out.text, sizeof out.text, "%s[%u].%s", range->owner, range->index, range->name);
    return out;
}

enum vkmoe_status moe_range_set(struct moe_range *out, const void *memory, uint64_t n_rows,
                                size_t stride, size_t row_size, size_t align)
{
    out->begin = (uintptr_t) memory;
    out->size = 0;
    if (!memory || n_rows == 0)
        return VKMOE_OK;
    if (out->begin % align != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "%s at %p is not aligned to %zu bytes",
                        name_of(out).text, memory, align);
    if (!moe_api_extent(n_rows, stride, row_size, &out->size) ||
        out->size > UINTPTR_MAX - out->begin)
        return moe_fail(VKMOE_E_SHAPE, "%s: %llu rows of stride %zu pass the end of memory",
                        name_of(out).text, (unsigned long long) n_rows, stride);
    return VKMOE_OK;
}

static int by_address(const void *a, const void *b)
{
    const struct moe_range *p = a, *q = b;
    return p->begin != q->begin ? (p->begin > q->begin) - (p->begin < q->begin)
                                : (p->order > q->order) - (p->order < q->order);
}

static bool reaches(const struct moe_range *before, const struct moe_range *range)
{
    return before && before->begin + before->size > range->begin;
}

static enum vkmoe_status fail_overlap(const struct moe_range *a, const struct moe_range *b)
{
    const struct moe_range *first = a->order < b->order ? a : b, *second = first == a ? b : a;
    return moe_fail(VKMOE_E_ARGUMENT, "%s and %s overlap", name_of(first).text,
                    name_of(second).text);
}

// In order of begin, a range overlaps with one before it exactly if the farthest end so far lies
// behind its begin; of ends there are two, of what is written and of what is read.
enum vkmoe_status moe_ranges_check(struct moe_range *ranges, uint32_t n)
{
    const struct moe_range *written = NULL, *read = NULL;
    for (uint32_t i = 0; i < n; i++)
        ranges[i].order = i;
    qsort(ranges, n, sizeof *ranges, by_address);
    for (uint32_t i = 0; i < n; i++) {
        const struct moe_range *range = &ranges[i];
        if (range->size == 0)
            continue;
        if (reaches(written, range))
            return fail_overlap(written, range);
        if (range->written && reaches(read, range))
            return fail_overlap(read, range);
        const struct moe_range **farthest = range->written ? &written : &read;
        if (!*farthest || range->begin + range->size > (*farthest)->begin + (*farthest)->size)
            *farthest = range;
    }
    return VKMOE_OK;
}
