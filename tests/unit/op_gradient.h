// SPDX-License-Identifier: MIT
// A function built of ops of core/net.h with its gradient, in f64: L = sum <dy, y> + sum loss over
// outputs y with random dy and over losses. FORWARD and the losses compute it, BACKWARD its
// gradient by the variables, and finite differences check that.
#ifndef TESTS_UNIT_OP_GRADIENT_H
#define TESTS_UNIT_OP_GRADIENT_H

#include "core/net_ref.h"

enum { GRADIENT_TENSORS = 48, GRADIENT_VARIABLES = 8, GRADIENT_OUTPUTS = 4 };

struct gradient {
    char name[128];
    struct moe_net *net;
    struct moe_ref_net *ref; // from gradient_check on
    struct moe_net_args args;
    uint32_t variables[GRADIENT_VARIABLES], d_variables[GRADIENT_VARIABLES], n_variables;
    uint32_t outputs[GRADIENT_OUTPUTS], d_outputs[GRADIENT_OUTPUTS], n_outputs; // d: NONE, a loss
    double low[GRADIENT_TENSORS], high[GRADIENT_TENSORS]; // of inputs; both 0: as gradient_input
    int32_t *ints[GRADIENT_TENSORS];
    uint32_t seed;
    bool is_zero;     // all gradients are exactly 0
    bool may_be_zero; // they may be 0, but for rounding
    // Is the point 10 steps away from kinks and ties? NULL: it is. Else it is drawn again.
    bool (*is_smooth)(struct gradient *g);
};

// How far a point has to be from a kink or tie.
extern const double gradient_margin;

__attribute__((format(printf, 2, 3))) void gradient_begin(struct gradient *g, const char *name,
                                                          ...);

// Tensors. An input is random, of either sign, 0.05 <= |x| < 1 unless gradient_range says else
uint32_t gradient_input(struct gradient *g, enum moe_net_rows_of rows, uint32_t n, uint32_t width);
uint32_t gradient_ints(struct gradient *g, enum moe_net_type type, enum moe_net_rows_of rows,
                       uint32_t n, const int32_t *values);
uint32_t gradient_value(struct gradient *g, enum moe_net_rows_of rows, uint32_t n, uint32_t width);
uint32_t gradient_value_i32(struct gradient *g, enum moe_net_rows_of rows, uint32_t n,
                            uint32_t width);
void gradient_range(struct gradient *g, uint32_t tensor, double low, double high);
// An input with its gradient, an output with the derivative by it, a loss.
uint32_t gradient_variable(struct gradient *g, enum moe_net_rows_of rows, uint32_t n,
                           uint32_t width, uint32_t *d);
uint32_t gradient_output(struct gradient *g, enum moe_net_rows_of rows, uint32_t n, uint32_t width,
                         uint32_t *d);
uint32_t gradient_loss(struct gradient *g, enum moe_net_rows_of rows, uint32_t n);

// Adds an op with these operands and results, MOE_NET_NONE for none.
struct moe_net_op *gradient_op(struct gradient *g, enum moe_net_program p,
                               enum moe_net_op_kind kind, const uint32_t *in, uint32_t n_in,
                               const uint32_t *out, uint32_t n_out);
// The same, as FORWARD_OP(&g, MOE_NET_ACT, OPERANDS(a), RESULTS(y)).
#define FORWARD_OP(g, ...) gradient_op(g, MOE_NET_FORWARD, __VA_ARGS__)
#define BACKWARD_OP(g, ...) gradient_op(g, MOE_NET_BACKWARD, __VA_ARGS__)
#define OPERANDS(...) \
    (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t)
#define RESULTS(...) OPERANDS(__VA_ARGS__)

double *gradient_values(struct gradient *g, uint32_t tensor);
uint64_t gradient_size(const struct gradient *g, uint32_t tensor);

// Plans, draws a point, compares, checks that a gradient wrong by 2^-16 is seen, and ends it.
void gradient_check(struct gradient *g);

#endif
