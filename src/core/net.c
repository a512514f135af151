// SPDX-License-Identifier: MIT
#include "core/net.h"

#include "base/host.h"
#include "base/status.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t n_in, n_out;
} op_table[] = {
#define OP_ROW(kind, name, n_in, n_out) {name, n_in, n_out},
    MOE_NET_OP_LIST(OP_ROW)
#undef OP_ROW
};

const char *moe_net_op_name(enum moe_net_op_kind kind)
{
    return op_table[kind].name;
}

uint32_t moe_net_n_in(enum moe_net_op_kind kind)
{
    return op_table[kind].n_in;
}

uint32_t moe_net_n_out(enum moe_net_op_kind kind)
{
    return op_table[kind].n_out;
}

enum vkmoe_status moe_net_create(const vkmoe_host *host, uint32_t max_tokens,
                                 uint32_t max_examples, struct moe_net **out)
{
    struct moe_net *net;
    *out = NULL;
    enum vkmoe_status status = moe_try_alloc(host, sizeof *net, "a network", &net);
    if (status != VKMOE_OK)
        return status;
    net->host = host;
    net->max_tokens = max_tokens;
    net->max_examples = max_examples;
    *out = net;
    return VKMOE_OK;
}

void moe_net_destroy(struct moe_net *net)
{
    if (!net)
        return;
    for (uint32_t i = 0; i < net->n_owned; i++)
        moe_free(net->host, net->owned[i]);
    for (uint32_t p = 0; p < MOE_NET_N_PROGRAMS; p++)
        moe_free(net->host, net->programs[p].ops);
    moe_free(net->host, net->owned);
    moe_free(net->host, net->tensors);
    moe_free(net->host, net);
}

// Room for one more element in *array; false: there is none, and the net knows.
static bool grow(struct moe_net *net, void **array, uint32_t n, uint32_t *capacity, size_t size)
{
    if (n < *capacity)
        return true;
    uint32_t more = *capacity > 0 ? 2 * *capacity : 64;
    void *larger = moe_alloc_array(net->host, more, size);
    if (!larger) {
        net->failed = true;
        return false;
    }
    if (n > 0)
        memcpy(larger, *array, n * size);
    moe_free(net->host, *array);
    *array = larger;
    *capacity = more;
    return true;
}

uint32_t moe_net_add_tensor(struct moe_net *net, enum moe_net_role role, enum moe_net_type type,
                            enum moe_net_rows_of rows, uint32_t n, uint32_t width, const char *name,
                            ...)
{
    void *tensors = net->tensors;
    bool room = grow(net, &tensors, net->n_tensors, &net->tensor_capacity, sizeof *net->tensors);
    net->tensors = tensors;
    if (!room)
        return MOE_NET_NONE;
    struct moe_net_tensor *tensor = &net->tensors[net->n_tensors];
    *tensor = (struct moe_net_tensor){
        .role = role, .type = type, .rows = rows, .n = n, .width = width};
    va_list args;
    va_start(args, name);
    vsnprintf(tensor->name, sizeof tensor->name, name, args);
    va_end(args);
    return net->n_tensors++;
}

struct moe_net_op *moe_net_add_op(struct moe_net *net, enum moe_net_program program,
                                  enum moe_net_op_kind kind)
{
    struct moe_net_ops *list = &net->programs[program];
    void *ops = list->ops;
    bool room = grow(net, &ops, list->n, &list->capacity, sizeof *list->ops);
    list->ops = ops;
    struct moe_net_op *op = room ? &list->ops[list->n++] : &net->no_op;
    *op = (struct moe_net_op){.kind = kind, .div = {1, 1, 1}, .alpha = 1};
    for (uint32_t i = 0; i < MOE_NET_OPERANDS; i++)
        op->in[i] = MOE_NET_NONE;
    for (uint32_t i = 0; i < MOE_NET_RESULTS; i++)
        op->out[i] = MOE_NET_NONE;
    return op;
}

void *moe_net_own(struct moe_net *net, size_t size)
{
    void *owned = net->owned;
    bool room = grow(net, &owned, net->n_owned, &net->owned_capacity, sizeof *net->owned);
    net->owned = owned;
    void *memory = room ? moe_alloc_array(net->host, 1, size) : NULL;
    if (!memory) {
        net->failed = true;
        return NULL;
    }
    net->owned[net->n_owned++] = memory;
    return memory;
}

uint32_t moe_net_find(const struct moe_net *net, enum moe_net_role role, const char *name)
{
    for (uint32_t i = 0; i < net->n_tensors; i++) {
        if (net->tensors[i].role == role && strcmp(net->tensors[i].name, name) == 0)
            return i;
    }
    return MOE_NET_NONE;
}

uint64_t moe_net_rows(const struct moe_net_tensor *tensor, uint32_t n_tokens, uint32_t n_examples)
{
    switch (tensor->rows) {
    case MOE_NET_FIXED:
        return tensor->n;
    case MOE_NET_TOKENS:
        return (uint64_t) tensor->n * n_tokens;
    case MOE_NET_EXAMPLES:
        return (uint64_t) tensor->n * n_examples;
    }
    return 0;
}

uint32_t moe_net_type_size(enum moe_net_type type)
{
    return moe_net_type_is_half(type) ? 2 : 4;
}

bool moe_net_type_is_half(enum moe_net_type type)
{
    return type == MOE_NET_F16 || type == MOE_NET_BF16;
}

enum vkmoe_dtype moe_net_type_dtype(enum moe_net_type type)
{
    assert(type != MOE_NET_I32);
    return type == MOE_NET_F16 ? VKMOE_F16 : type == MOE_NET_BF16 ? VKMOE_BF16 : VKMOE_F32;
}

uint64_t moe_net_words(enum moe_net_type type, uint64_t n)
{
    return moe_net_type_is_half(type) ? n / 2 + n % 2 : n;
}

bool moe_net_op_updates(const struct moe_net_op *op, uint32_t i)
{
    switch (op->kind) {
    case MOE_NET_STEP:
    case MOE_NET_BALANCE_BIAS:
        return true;
    case MOE_NET_BALANCE:
    case MOE_NET_Z_LOSS:
    case MOE_NET_MATMUL:
    case MOE_NET_MATMUL_DX:
    case MOE_NET_MATMUL_DW:
    case MOE_NET_MATMUL_COMBINE:
    case MOE_NET_GROUP_SUM:
    case MOE_NET_SELECT_BACKWARD:
    case MOE_NET_NOISE_BACKWARD:
    case MOE_NET_ACT_BACKWARD:
    case MOE_NET_SCALE_ROWS:
    case MOE_NET_ROW_DOT:
    case MOE_NET_SUM_SLOTS:
    case MOE_NET_SOFTMAX_BACKWARD:
    case MOE_NET_SHARE_BACKWARD:
    case MOE_NET_NORM_BACKWARD:
    case MOE_NET_NORM_DGAIN:
    case MOE_NET_DROPOUT:
    case MOE_NET_REDUCE:
    case MOE_NET_SUM_SQUARES:
    case MOE_NET_COUNT:
        return op->write != MOE_NET_SET;
    case MOE_NET_CROSS_ENTROPY:
    case MOE_NET_POINT_LOSS:
    case MOE_NET_MIXTURE_NLL:
        return i > 0 && op->write != MOE_NET_SET;
    case MOE_NET_GROUP:
    case MOE_NET_IOTA:
    case MOE_NET_SELECT:
    case MOE_NET_NOISE:
    case MOE_NET_ACT:
    case MOE_NET_GLU:
    case MOE_NET_GLU_BACKWARD:
    case MOE_NET_SOFTMAX:
    case MOE_NET_SHARE:
    case MOE_NET_NORM:
    case MOE_NET_POOL:
    case MOE_NET_POOL_BACKWARD:
    case MOE_NET_FILL:
    case MOE_NET_CLIP:
    case MOE_NET_ROUND:
        return false;
    }
    return false;
}
