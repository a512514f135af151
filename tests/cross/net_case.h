// SPDX-License-Identifier: MIT
// One op of core/net.h with random operands, as a net of its own, and the list of them that every
// back end must compute as the oracle does.
#ifndef TESTS_CROSS_NET_CASE_H
#define TESTS_CROSS_NET_CASE_H

#include "core/net.h"

enum { CASE_TENSORS = 12, CASE_NAME = 160 };

// Data of a tensor, max rows, as it is written before a run.
union case_data {
    void *any;
    float *f32;
    int32_t *i32;
    uint16_t *half; // f16 or bf16
};

struct net_case {
    char name[CASE_NAME];
    struct moe_net *net; // tensors are persistent; one op, in FORWARD
    struct moe_net_args args;
    union case_data data[CASE_TENSORS];
    uint32_t seed;
    double terms; // the longest sum of an element of a result
    // Results are sums of products of operands, so that on |operands| they are sums of |terms|.
    bool linear;
    bool zero; // a result may be all 0
};

// What is done with a case; the case is gone afterwards.
struct case_sink {
    void (*take)(struct case_sink *sink, const struct net_case *c);
};

// ---- building ----

// Begins a case of so many tokens and examples, 2 and 1 below the most of the net.
__attribute__((format(printf, 4, 5))) void case_begin(struct net_case *c, uint32_t n_tokens,
                                                      uint32_t n_examples, const char *name, ...);
void case_finish(struct net_case *c);
// Plans the net, hands the case out, and ends it.
void case_done(struct case_sink *sink, struct net_case *c);

// Element j of a tensor of that type.
double case_value(enum moe_net_type type, union case_data data, uint64_t j);

// Operands; f32 and 16-bit types random in [-1, 1), i32 zero. Returns the tensor.
uint32_t case_f32(struct net_case *c, enum moe_net_rows_of rows, uint32_t n, uint32_t width);
uint32_t case_i32(struct net_case *c, enum moe_net_rows_of rows, uint32_t n, uint32_t width);
uint32_t case_weight(struct net_case *c, enum moe_net_type type, uint32_t n, uint32_t width);
// Results, poisoned with NaN or INT32_MIN; what is added to becomes random in case_done.
uint32_t case_out(struct net_case *c, enum moe_net_type type, enum moe_net_rows_of rows, uint32_t n,
                  uint32_t width);
void case_random(struct net_case *c, uint32_t tensor, float low, float high);
uint64_t case_size(const struct net_case *c, uint32_t tensor); // elements of data
uint32_t case_next(struct net_case *c, uint32_t below);        // a random number

// The op of the case. args.accumulate is set for MOE_NET_ADD_LATER.
struct moe_net_op *case_op(struct net_case *c, enum moe_net_op_kind kind, enum moe_net_write write);

enum case_groups {
    GROUPS_SPREAD,     // some groups are empty
    GROUPS_ALL_IN_ONE, // but one, all are empty
    GROUPS_ONE,        // there is only one
    N_CASE_GROUPS,
};

// starts and members for the rows of a tensor of n rows a token; n_groups groups, GROUPS_ONE: one.
struct case_grouping {
    uint32_t starts, members, n_groups;
};
struct case_grouping case_group(struct net_case *c, enum case_groups kind, uint32_t n,
                                uint32_t n_groups);

// ---- the list ----

void list_matrix_cases(struct case_sink *sink);
void list_route_cases(struct case_sink *sink);
void list_row_cases(struct case_sink *sink);
void list_loss_cases(struct case_sink *sink);
void list_step_cases(struct case_sink *sink);
void list_half_cases(struct case_sink *sink); // products with matrices of 16 bits, and rounding

#endif
