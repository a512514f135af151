// SPDX-License-Identifier: MIT
// The cases of `vkmoe verify`: factors with a few levels each, the sets of cases made from them,
// and what a case means as a layer. A new level is a row in a table of verify_cases.c.
#ifndef VERIFY_CASES_H
#define VERIFY_CASES_H

#include <vkmoe/vkmoe.h>

enum verify_factor {
    // These make a layer.
    VERIFY_SHAPE,
    VERIFY_TYPE, // stored types of the weights
    VERIFY_ROUTER,
    VERIFY_EXPERT, // gated or not, activations
    VERIFY_SHARED, // shared expert, factors of the combination
    VERIFY_BIAS,   // biases of the experts; whether the plan yields scores
    VERIFY_N_LAYER_FACTORS,
    // With these it is a plan.
    VERIFY_X_TYPE = VERIFY_N_LAYER_FACTORS,
    VERIFY_PRECISION,
    VERIFY_N_PLAN_FACTORS,
    // These make one run of it.
    VERIFY_TOKENS = VERIFY_N_PLAN_FACTORS,
    VERIFY_STRIDE,
    VERIFY_N_FACTORS,
};

// What is special about a case's data.
enum verify_twist {
    VERIFY_PLAIN,
    VERIFY_NAN_ROW,     // one row of x is NaN: its output is NaN, its neighbours do not notice
    VERIFY_INF_ROW,     // one row of x holds an infinity
    VERIFY_NAN_EXPERT,  // the weights of one expert are NaN: only its tokens notice
    VERIFY_NAN_ROUTER,  // the router's first and last row are NaN: never before a number
    VERIFY_TIES,        // all rows of the router are equal
    VERIFY_ONE_EXPERT,  // one expert is everybody's first choice
    VERIFY_FEW_EXPERTS, // only the first top_k experts get any token
    VERIFY_TINY,        // weights of experts so small that most are denormal in f16
};

// What is done with it.
enum verify_what {
    VERIFY_RUN,       // the layer runs
    VERIFY_GRADIENTS, // the layer runs and gives its gradients
    VERIFY_NET,       // no layer at all: network level[VERIFY_SHAPE] of verify_nets.h trains
};

struct verify_case {
    uint8_t level[VERIFY_N_FACTORS];
    uint8_t twist; // enum verify_twist
    uint8_t what;  // enum verify_what
    uint8_t form;  // of verify_forms.h, or 0
};

enum { VERIFY_NAME_SIZE = 160 };
enum { VERIFY_INT8 = 2 }; // the level of precision that forms alone have

uint32_t verify_n_levels(enum verify_factor factor);

// False for cases that are left out, because software devices need minutes for them: 300 rows and
// more only up to d_model 64 and, in the covering set, up to 128 experts.
bool verify_allowed(const struct verify_case *c);
bool verify_quick(const struct verify_case *c); // allowed in the covering set

// "E8K2D64F32O10/f16/softmax/gated-silu/shared/bias/n33/padded", then what is not as usual:
// "/x-bf16", "/half" or "/int8", the twist, "/gradients". Forms begin with "form/NAME/". Not for
// VERIFY_NET.
void verify_name(const struct verify_case *c, char out[VERIFY_NAME_SIZE]);

uint32_t verify_tokens(const struct verify_case *c);
bool verify_padded(const struct verify_case *c); // rows of x and y are apart
bool verify_scores(const struct verify_case *c); // the plan is made with scores
enum vkmoe_dtype verify_x_type(const struct verify_case *c);
enum vkmoe_precision verify_precision(const struct verify_case *c);
vkmoe_layer_desc verify_layer(const struct verify_case *c);

// The same layer, twist, x_type and precision: the same weights and plan serve both.
bool verify_same_plan(const struct verify_case *a, const struct verify_case *b);

// A number of its own for each layer, whatever its plan.
uint32_t verify_layer_code(const struct verify_case *c);

// ---- sets of cases; cases of one plan are neighbours -------------------------------------------

// Fixed cases with special data. i-th of them; false: there are only i.
bool verify_special(uint32_t i, struct verify_case *out);

// Gradients, compared behind the last run `c` of a plan, with as many tokens as it has, or 33, 8 or
// 1 where those show nothing or take software devices too long. false: none, because they are f32
// whatever the precision, or because of the twist: an infinity, and NaN in a weight, leave nothing
// to compare; equal scores make all choices of experts equally right; and of tiny weights the
// gradients are nothing but rounding beside those of the biases.
bool verify_gradients_case(const struct verify_case *c, struct verify_case *out);

// Such a case may come behind a plan of the covering set, so that they take no more than the runs
// do: up to 60 experts, and few tokens where d_model is above 64. More experts have special cases.
bool verify_gradients_quick(const struct verify_case *c);

// Runs of the forms of verify_forms.h, counted from 0; those of a layer follow each other. false:
// there are no more.
bool verify_form_case(uint32_t i, struct verify_case *out);

// The product of all factors: turns a case into the next one. false: it was the last. `c` starts
// as verify_first().
struct verify_case verify_first(void);
bool verify_next(struct verify_case *c);

// A pairwise covering set: every two levels of two factors that verify_quick lets meet do so in a
// case. Returns the number of cases, 0 when there is no memory; *out is freed by the caller.
uint32_t verify_cover(struct verify_case **out);

#endif
