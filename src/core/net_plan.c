// SPDX-License-Identifier: MIT
// Offsets of a net's tensors. Persistent ones follow each other. Behind them is the memory of
// values: each has a life, from the op that writes it first to the op that uses it last, and the
// values, largest first, get the lowest place that no value has during their life. EVAL's values
// get their places in the same memory, without regard to the others.
#include "core/net.h"

#include "base/host.h"
#include "base/status.h"
#include "core/net_check.h"

#include <assert.h>
#include <stdlib.h>

enum { OFFSET_ALIGN = 64 };

// A value's place, or one that is looked for.
struct life {
    uint32_t tensor;
    uint32_t first, last; // ops, counted through the programs
    uint64_t offset, size;
};

// Words of a tensor, rounded up; false when they overflow.
static bool tensor_size(const struct moe_net *net, const struct moe_net_tensor *tensor,
                        uint64_t *size)
{
    uint64_t rows = moe_net_rows(tensor, net->max_tokens, net->max_examples);
    if (__builtin_mul_overflow(rows, (uint64_t) tensor->width, size))
        return false;
    *size = moe_net_words(tensor->type, *size);
    if (*size > UINT64_MAX - OFFSET_ALIGN)
        return false;
    *size = (*size + OFFSET_ALIGN - 1) / OFFSET_ALIGN * OFFSET_ALIGN;
    return true;
}

// ---- lives ------------------------------------------------------------------------------------

static void use(const struct moe_net *net, struct life *lives, uint32_t tensor, uint32_t position,
                bool writes)
{
    if (tensor == MOE_NET_NONE || net->tensors[tensor].role != MOE_NET_VALUE)
        return;
    struct life *life = &lives[tensor];
    assert(life->first != UINT32_MAX || writes); // a value is made before it is used
    (void) writes;
    if (life->first == UINT32_MAX)
        life->first = position;
    life->last = position;
}

// Fills in the lives of the values that a run of these programs makes; `lives` (n_tensors) begins
// with first = UINT32_MAX.
static void find_lives(const struct moe_net *net, uint32_t program, uint32_t end_program,
                       struct life *lives)
{
    uint32_t position = 0;
    for (; program < end_program; program++) {
        const struct moe_net_ops *ops = &net->programs[program];
        for (uint32_t i = 0; i < ops->n; i++, position++) {
            const struct moe_net_op *op = &ops->ops[i];
            for (uint32_t j = 0; j < moe_net_n_in(op->kind); j++)
                use(net, lives, op->in[j], position, false);
            for (uint32_t j = 0; j < moe_net_n_out(op->kind); j++)
                use(net, lives, op->out[j], position, !moe_net_op_updates(op, j));
        }
    }
    for (uint32_t i = 0; i < net->n_tensors; i++) {
        if (net->tensors[i].keep && lives[i].first != UINT32_MAX)
            lives[i].last = position;
    }
}

// ---- places -----------------------------------------------------------------------------------

// Larger ones first; of equal ones the first tensor, so that the plan is always the same.
static int compare_lives(const void *a, const void *b)
{
    const struct life *x = a, *y = b;
    if (x->size != y->size)
        return x->size > y->size ? -1 : 1;
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

// Puts a life into `placed` (n), which ascends by offset. False: offsets overflow.
static bool place(struct life *placed, uint32_t n, struct life *life)
{
    uint32_t at = 0;
    life->offset = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct life *other = &placed[i];
        if (other->first > life->last || life->first > other->last)
            continue; // they never meet
        if (other->offset >= life->offset && other->offset - life->offset >= life->size)
            break; // it fits before this one
        if (other->offset + other->size > life->offset)
            life->offset = other->offset + other->size;
    }
    if (life->offset > UINT64_MAX - life->size)
        return false;
    while (at < n && placed[at].offset <= life->offset)
        at++;
    for (uint32_t i = n; i > at; i--)
        placed[i] = placed[i - 1];
    placed[at] = *life;
    return true;
}

// Places the values of some programs, from `base`; *end becomes the end of the memory they need.
static bool place_values(struct moe_net *net, uint32_t program, uint32_t end_program, uint64_t base,
                         struct life *lives, struct life *placed, uint64_t *end)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < net->n_tensors; i++)
        lives[i] = (struct life){.tensor = i, .first = UINT32_MAX};
    find_lives(net, program, end_program, lives);
    for (uint32_t i = 0; i < net->n_tensors; i++) {
        if (lives[i].first == UINT32_MAX)
            continue;
        if (!tensor_size(net, &net->tensors[i], &lives[i].size))
            return false;
        lives[n++] = lives[i];
    }
    qsort(lives, n, sizeof *lives, compare_lives);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t offset;
        if (!place(placed, i, &lives[i]) ||
            __builtin_add_overflow(base, lives[i].offset, &offset) ||
            offset > UINT64_MAX - lives[i].size)
            return false;
        net->tensors[lives[i].tensor].offset = offset;
        if (offset + lives[i].size > *end)
            *end = offset + lives[i].size;
    }
    return true;
}

static bool place_persistent(struct moe_net *net, uint64_t *end)
{
    for (uint32_t i = 0; i < net->n_tensors; i++) {
        uint64_t size;
        if (net->tensors[i].role == MOE_NET_VALUE)
            continue;
        net->tensors[i].offset = *end;
        if (!tensor_size(net, &net->tensors[i], &size) || __builtin_add_overflow(*end, size, end))
            return false;
    }
    return true;
}

static void check_ops(const struct moe_net *net)
{
    for (uint32_t p = 0; p < MOE_NET_N_PROGRAMS; p++) {
        for (uint32_t i = 0; i < net->programs[p].n; i++) {
            const char *wrong = moe_net_check_op(net, &net->programs[p].ops[i]);
            if (wrong)
                moe_log(net->host, VKMOE_LOG_ERROR, "op %u of program %u, %s: %s", i, p,
                        moe_net_op_name(net->programs[p].ops[i].kind), wrong);
            assert(!wrong);
        }
    }
}

enum vkmoe_status moe_net_plan(struct moe_net *net)
{
    enum vkmoe_status status = VKMOE_OK;
    struct life *lives = NULL, *placed = NULL;
    uint64_t begin = 0, end;
    if (net->failed)
        return moe_fail(VKMOE_E_MEMORY, "a network: no memory for its description");
    check_ops(net);
    lives = moe_alloc_array(net->host, net->n_tensors, sizeof *lives);
    placed = moe_alloc_array(net->host, net->n_tensors, sizeof *placed);
    if (!lives || !placed) {
        status = moe_fail(VKMOE_E_MEMORY, "a network: %u tensors", net->n_tensors);
        goto fail;
    }
    bool fits = place_persistent(net, &begin);
    end = begin;
    if (!fits || !place_values(net, MOE_NET_FORWARD, MOE_NET_EVAL, begin, lives, placed, &end) ||
        !place_values(net, MOE_NET_EVAL, MOE_NET_N_PROGRAMS, begin, lives, placed, &end)) {
        status = moe_fail(VKMOE_E_MEMORY,
                          "a network of %u tensors, %u tokens: more elements than "
                          "64 bits count",
                          net->n_tensors, net->max_tokens);
        goto fail;
    }
    net->arena_size = end;
fail:
    moe_free(net->host, placed);
    moe_free(net->host, lives);
    return status;
}
