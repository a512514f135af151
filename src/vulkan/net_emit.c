// SPDX-License-Identifier: MIT
// How dispatches of networks are put together; and the barriers between them.
#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "vulkan/net.h"

_Static_assert(sizeof(struct net_head) == 56, "GLSL aligns what follows to 8 bytes");

uint64_t moe_vk_net_rows(const struct moe_vk_net_compiler *c, uint32_t tensor)
{
    return tensor == MOE_NET_NONE ? 0
                                  : moe_net_rows(&c->net->tensors[tensor], c->args->n_tokens,
                                                 c->args->n_examples);
}

uint32_t moe_vk_net_width(const struct moe_vk_net_compiler *c, uint32_t tensor)
{
    return tensor == MOE_NET_NONE ? 0 : c->net->tensors[tensor].width;
}

uint64_t moe_vk_net_elements(const struct moe_vk_net_compiler *c, uint32_t tensor)
{
    return moe_vk_net_rows(c, tensor) * moe_vk_net_width(c, tensor);
}

struct moe_vk_net_dispatch *moe_vk_net_add(struct moe_vk_net_compiler *c, enum moe_spv_id spv,
                                           uint32_t kind, const void *params, size_t params_size)
{
    struct moe_vk_net_dispatch *d = c->dispatches ? &c->dispatches[c->n] : &c->spare;
    assert(params_size <= sizeof d->params);
    c->n++;
    // Each kernel, then its _bda twin.
    *d = (struct moe_vk_net_dispatch){.label = moe_net_op_name(c->op->kind),
                                      .spv = spv + (c->bda ? 1 : 0),
                                      .spec = {kind},
                                      .x = 1,
                                      .y = 1,
                                      .params_size = (uint32_t) params_size};
    memcpy(d->params, params, params_size);
    return d;
}

static uint32_t use(struct moe_vk_net_dispatch *d, uint64_t offset, uint64_t n, bool written)
{
    assert(d->n_ranges < MOE_VK_NET_RANGES && offset % MOE_NET_UNIT == 0);
    d->ranges[d->n_ranges++] = (struct moe_vk_net_range){offset, n, written};
    return (uint32_t) (offset / MOE_NET_UNIT);
}

static void use_operand(struct moe_vk_net_dispatch *d, uint32_t slot, uint64_t offset, uint64_t n)
{
    d->head.in_at[slot] = use(d, offset, n, false);
    d->head.has |= 1u << slot;
}

static void use_result(struct moe_vk_net_dispatch *d, uint32_t slot, uint64_t offset, uint64_t n)
{
    d->head.out_at[slot] = use(d, offset, n, true);
    d->head.has |= 64u << slot;
}

static uint64_t words(const struct moe_vk_net_compiler *c, uint32_t tensor)
{
    return moe_net_words(c->net->tensors[tensor].type, moe_vk_net_elements(c, tensor));
}

void moe_vk_net_read(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                     uint32_t slot, uint32_t tensor)
{
    if (tensor != MOE_NET_NONE)
        use_operand(d, slot, c->net->tensors[tensor].offset, words(c, tensor));
}

void moe_vk_net_write(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                      uint32_t slot, uint32_t tensor)
{
    if (tensor != MOE_NET_NONE)
        use_result(d, slot, c->net->tensors[tensor].offset, words(c, tensor));
}

void moe_vk_net_put(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                    uint32_t slot, uint32_t tensor)
{
    moe_vk_net_write(c, d, slot, tensor);
    if (c->op->write == MOE_NET_ADD || (c->op->write == MOE_NET_ADD_LATER && c->args->accumulate))
        d->head.add |= 1u << slot;
}

static uint64_t scratch_at(struct moe_vk_net_compiler *c, uint64_t offset, uint64_t n)
{
    c->scratch_size = moe_max(c->scratch_size, offset + n);
    return c->scratch + offset;
}

void moe_vk_net_read_scratch(struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                             uint32_t slot, uint64_t offset, uint64_t n)
{
    use_operand(d, slot, scratch_at(c, offset, n), n);
}

void moe_vk_net_write_scratch(struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                              uint32_t slot, uint64_t offset, uint64_t n)
{
    use_result(d, slot, scratch_at(c, offset, n), n);
}

void moe_vk_net_grid(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                     uint64_t n_x, uint64_t n_y)
{
    d->x = (uint32_t) moe_min(n_x, c->max_groups);
    d->y = (uint32_t) moe_min(n_y, c->max_groups);
}

// ---- barriers ----------------------------------------------------------------------------------

static bool overlap(const struct moe_vk_net_range *a, const struct moe_vk_net_range *b)
{
    return a->offset < b->offset + b->n && b->offset < a->offset + a->n;
}

static bool conflict(const struct moe_vk_net_dispatch *earlier,
                     const struct moe_vk_net_dispatch *later)
{
    for (uint32_t i = 0; i < earlier->n_ranges; i++)
        for (uint32_t j = 0; j < later->n_ranges; j++)
            if ((earlier->ranges[i].written || later->ranges[j].written) &&
                overlap(&earlier->ranges[i], &later->ranges[j]))
                return true;
    return false;
}

void moe_vk_net_barriers(struct moe_vk_net_dispatch *dispatches, uint32_t n, bool all)
{
    uint32_t since = 0; // first dispatch after the last barrier
    for (uint32_t i = 0; i < n; i++) {
        dispatches[i].barrier = all || i == 0;
        for (uint32_t j = since; j < i && !dispatches[i].barrier; j++)
            dispatches[i].barrier = conflict(&dispatches[j], &dispatches[i]);
        if (dispatches[i].barrier)
            since = i;
    }
}
