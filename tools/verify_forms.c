// SPDX-License-Identifier: MIT
#include "verify_forms.h"

// X(id, name, shape, router, expert, shared, bias, type of x, fields): levels of a case, then what
// is changed in its layer `d`. Numbers are chosen so that forgetting a field shows.
//   shapes   0 E8 K2 D64 F32 O10, 3 E7 K3 D33 F20 O5, 5 E60 K4 D48 F24 O48, 7 E512 K64 D12 F8 O12
//   routers  0 softmax, 2 softmax over the selected, 4 sigmoid with norm and selection bias
//   experts  0 gated silu, 2 relu;  shared  0 none, 1 plain, 2 sigmoid;  bias  1 all, 2 and scores
#define ROUTER_FORMS(X)                                                                            \
    X(SQRT_SOFTPLUS, "score-sqrt_softplus", 0, 0, 0, 0, 2, 0,                                      \
      d->score = VKMOE_SCORE_SQRT_SOFTPLUS, d->norm = VKMOE_NORM_SUM_PLUS_EPS, d->norm_eps = 0.5f) \
    X(SCORE_RELU, "score-relu", 3, 0, 0, 0, 2, 0, d->score = VKMOE_SCORE_RELU)                     \
    X(SCORE_NONE, "score-none", 0, 0, 0, 0, 2, 0, d->score = VKMOE_SCORE_NONE)                     \
    X(SOFTCAP, "softcap", 0, 0, 0, 0, 2, 0, d->logit_softcap = 2, d->rank = VKMOE_RANK_LOGIT)      \
    X(SOFTCAP_SOFTMAX, "softcap-softmax", 3, 2, 2, 0, 2, 0, d->logit_softcap = 4)                  \
    X(RANK_SIGMOID, "rank-sigmoid", 0, 0, 0, 0, 2, 0,                                              \
      d->rank = VKMOE_RANK_SIGMOID, d->selection_bias = true)                                      \
    X(PRENORM, "prenorm", 3, 0, 0, 1, 2, 0,                                                        \
      d->router_prenorm = true, d->prenorm_const = 0.5f, d->prenorm_eps = 0.25f)                   \
    X(ROUTER_INPUT, "router-input", 3, 0, 0, 0, 2, 0, d->router_input = true)                      \
    X(ROUTER_INPUT_F16, "router-input", 0, 4, 0, 1, 2, 1, d->router_input = true)                  \
    X(ROUTER_INPUT_NORM, "router-input-prenorm", 0, 2, 2, 0, 0, 2,                                 \
      d->router_input = d->router_prenorm = true, d->prenorm_const = 2, d->prenorm_eps = 1e-6f)    \
    X(GROUP_MAX, "group-max", 5, 0, 0, 0, 2, 0, d->n_group = 6, d->topk_group = 2)                 \
    X(GROUP_TOP2, "group-top2", 5, 4, 0, 1, 2, 0, d->n_group = 10, d->topk_group = 3,              \
      d->group_score = VKMOE_GROUP_TOP2_SUM)                                                       \
    X(GROUP_TOP2_ZERO, "group-top2-zero", 0, 4, 2, 0, 2, 0, d->n_group = 4, d->topk_group = 1,     \
      d->group_score = VKMOE_GROUP_TOP2_SUM, d->group_fill_zero = true)                            \
    X(GROUP_SHARE, "group-share", 7, 2, 2, 0, 2, 0, d->n_group = 16, d->topk_group = 8,            \
      d->group_score = VKMOE_GROUP_TOP_SHARE_SUM)                                                  \
    X(TABLE, "table", 3, 0, 0, 0, 2, 0, d->select = VKMOE_SELECT_TABLE, d->n_token_ids = 11)       \
    X(TABLE_SOFTMAX, "table-softmax", 0, 2, 2, 1, 1, 1, d->select = VKMOE_SELECT_TABLE,            \
      d->n_token_ids = 3)                                                                          \
    X(SPARSEMIXER, "sparsemixer", 0, 0, 0, 0, 2, 0, d->select = VKMOE_SELECT_SPARSEMIXER,          \
      d->sparsemixer_eps = 0.125f)                                                                 \
    X(SPARSEMIXER_3, "sparsemixer-norm", 3, 0, 2, 0, 2, 0, d->select = VKMOE_SELECT_SPARSEMIXER,   \
      d->sparsemixer_eps = 0.5f, d->norm = VKMOE_NORM_SUM_PLUS_EPS)                                \
    X(TOP_P, "top-p", 3, 0, 0, 0, 2, 0, d->select = VKMOE_SELECT_TOP_P, d->select_p = 0.55f)       \
    X(TOP_P_NORM, "top-p-norm", 7, 0, 2, 1, 2, 0, d->select = VKMOE_SELECT_TOP_P,                  \
      d->select_p = 0.125f, d->norm = VKMOE_NORM_SUM_PLUS_EPS)                                     \
    X(THRESHOLD, "threshold", 5, 4, 0, 0, 2, 0, d->select = VKMOE_SELECT_THRESHOLD,                \
      d->select_p = 1.0625f)                                                                       \
    X(THRESHOLD_SOFTMAX, "threshold-softmax", 3, 2, 2, 0, 2, 0,                                    \
      d->select = VKMOE_SELECT_THRESHOLD, d->select_p = 0.5f)                                      \
    X(NORM_2, "norm-2", 3, 0, 0, 0, 0, 0, d->score = VKMOE_SCORE_NONE, d->norm_p = 2,              \
      d->norm = VKMOE_NORM_SUM_PLUS_EPS, d->norm_eps = 0.125f)                                     \
    X(NORM_3, "norm-3", 0, 0, 2, 0, 0, 0, d->norm = VKMOE_NORM_MAX_SUM_EPS, d->norm_p = 3,         \
      d->norm_eps = 0.25f)                                                                         \
    X(EXPERT_SCALE, "expert-scale", 0, 4, 0, 0, 0, 0, d->expert_scale = true)                      \
    X(IDENTITY, "identity", 5, 0, 0, 0, 2, 0, d->n_zero = 30)                                      \
    X(IDENTITY_BF16, "identity", 5, 4, 0, 1, 2, 2, d->n_zero = 7, d->expert_scale = true)          \
    X(CAPACITY, "capacity", 0, 0, 0, 0, 0, 0, d->capacity_mode = VKMOE_CAPACITY_BY_POSITION,       \
      d->capacity = 3)                                                                             \
    X(CAPACITY_ROWS, "capacity-rows", 3, 0, 2, 1, 0, 0,                                            \
      d->capacity_mode = VKMOE_CAPACITY_BY_POSITION, d->capacity_rows = 5,                         \
      d->capacity_factor = 0.75f)                                                                  \
    X(CAPACITY_GATE, "capacity-by-gate", 5, 4, 0, 0, 2, 0,                                         \
      d->capacity_mode = VKMOE_CAPACITY_BY_GATE, d->capacity_factor = 0.5f, d->n_zero = 3)         \
    X(CAPACITY_RENORM, "capacity-renorm", 0, 4, 2, 0, 0, 0,                                        \
      d->capacity_mode = VKMOE_CAPACITY_BY_POSITION, d->capacity_factor = 0.5f,                    \
      d->capacity_renorm = d->expert_scale = true)                                                 \
    X(CAPACITY_GATE_RENORM, "capacity-by-gate-renorm", 3, 4, 2, 0, 0, 0,                           \
      d->capacity_mode = VKMOE_CAPACITY_BY_GATE, d->capacity = 2, d->capacity_rows = 7,            \
      d->capacity_renorm = true)

#define EXPERT_FORMS(X)                                                                            \
    X(ON_INPUT, "weight-on-input", 0, 4, 0, 1, 1, 0, d->weight_on_input = true)                    \
    X(ON_INPUT_RELU, "weight-on-input", 3, 0, 2, 0, 1, 1, d->weight_on_input = true)               \
    X(ON_INPUT_ALL, "weight-on-input-all", 5, 0, 0, 1, 1, 0, d->weight_on_input = true,            \
      d->n_zero = 4, d->d_latent = 21)                                                             \
    X(OAI, "clamp-before", 0, 2, 0, 0, 1, 0, d->clamp = VKMOE_CLAMP_BEFORE_ACT, d->limit = 0.75f,  \
      d->act_alpha = 1.702f, d->up_add = 1)                                                        \
    X(CLAMP_AFTER, "clamp-after", 3, 0, 0, 1, 1, 0, d->clamp = VKMOE_CLAMP_AFTER_ACT,              \
      d->limit = 0.5f, d->limit_shared = 0.25f)                                                    \
    X(CLAMP_SHARED, "clamp-shared", 0, 0, 0, 2, 0, 0, d->clamp = VKMOE_CLAMP_BEFORE_ACT,           \
      d->limit = 1, d->limit_shared = 0.5f)                                                        \
    X(SITU, "situ", 0, 4, 0, 1, 1, 0, d->act = VKMOE_ACT_SITU, d->situ_beta = 2,                   \
      d->situ_lambda = 1.5f)                                                                       \
    X(SITU_GATE, "situ-gate-half", 3, 0, 0, 0, 0, 0, d->act = VKMOE_ACT_SITU, d->situ_beta = 1,    \
      d->clamp = VKMOE_CLAMP_BEFORE_ACT, d->limit = 0.75f, d->up_add = 0.5f)                       \
    X(SITU_PLAIN, "situ-ungated", 3, 0, 2, 0, 1, 0, d->act = VKMOE_ACT_SITU, d->situ_beta = 4)     \
    X(LATENT, "latent", 0, 4, 2, 1, 0, 0, d->d_latent = 24)                                        \
    X(LATENT_NORM, "latent-norm", 3, 0, 0, 1, 1, 0, d->d_latent = 17, d->latent_norm = true,       \
      d->latent_norm_eps = 0.125f, d->out_bias = true)                                             \
    X(LATENT_F16, "latent-f16", 0, 0, 0, 2, 0, 1, d->d_latent = 40,                                \
      d->latent_type = VKMOE_F16, d->latent_norm = true, d->latent_norm_eps = 1e-5f)               \
    X(LATENT_ALL, "latent-identity", 3, 0, 0, 1, 1, 2, d->d_latent = 12, d->n_zero = 5,            \
      d->latent_type = VKMOE_BF16)                                                                 \
    X(ADJUGATE, "adjugate", 0, 0, 0, 0, 1, 0, d->adjugate_group = 2, d->d_adjugate = 6,            \
      d->adjugate_scale = 0.75f)                                                                   \
    X(ADJUGATE_ODD, "adjugate", 3, 4, 2, 1, 0, 0, d->adjugate_group = 3, d->d_adjugate = 33,       \
      d->adjugate_scale = -0.5f, d->weight_on_input = true)                                        \
    X(ADJUGATE_ALL, "adjugate-latent", 5, 0, 0, 1, 0, 0, d->adjugate_group = 60,                   \
      d->d_adjugate = 9, d->adjugate_scale = 1, d->d_latent = 13,                                  \
      d->capacity_mode = VKMOE_CAPACITY_BY_GATE, d->capacity = 2)                                  \
    X(OUT_BIAS, "out-bias", 0, 2, 2, 0, 0, 0, d->out_bias = true, d->c_routed = 0.5f)              \
    X(SOFTMAX2, "shared-softmax2", 0, 0, 0, 2, 0, 0, d->shared_gate = VKMOE_SHARED_SOFTMAX2)       \
    X(SOFTMAX2_BIAS, "shared-softmax2-bias", 3, 4, 2, 2, 1, 1,                                     \
      d->shared_gate = VKMOE_SHARED_SOFTMAX2, d->shared_gate_bias = d->out_bias = true)            \
    X(SIGMOID_BIAS, "shared-sigmoid-bias", 3, 0, 0, 2, 0, 0, d->shared_gate_bias = true)           \
    X(SHARED_TYPES, "shared-types", 0, 0, 0, 1, 1, 0, d->own_shared_types = true,                  \
      d->shared_in_type = VKMOE_F16, d->shared_out_type = VKMOE_BF16)

// Types of weights, the shared expert's among them: whole blocks of d_model and d_ff, fp8 ragged
// ones and less than one.
#define TYPE_FORMS(X)                                                                              \
    X(Q8_0, "q8_0", 0, 0, 0, 1, 1, 0, types(d, VKMOE_Q8_0, VKMOE_Q8_0, 96, 64))                    \
    X(Q4_0, "q4_0", 5, 0, 0, 1, 1, 0, types(d, VKMOE_Q4_0, VKMOE_Q4_0, 64, 32))                    \
    X(Q4_0_Q8_0, "q4_0-q8_0", 0, 4, 2, 0, 0, 2, types(d, VKMOE_Q4_0, VKMOE_Q8_0, 32, 96))          \
    X(Q4_K, "q4_K-q6_K", 0, 0, 0, 1, 0, 0, types(d, VKMOE_Q4_K, VKMOE_Q6_K, 256, 256))             \
    X(Q5_K, "q5_K", 3, 0, 2, 0, 1, 0, types(d, VKMOE_Q5_K, VKMOE_Q5_K, 512, 256))                  \
    X(Q6_K, "q6_K-q4_K", 3, 4, 0, 0, 1, 1, types(d, VKMOE_Q6_K, VKMOE_Q4_K, 256, 512))             \
    X(Q2_K, "q2_K", 3, 0, 0, 1, 1, 0, types(d, VKMOE_Q2_K, VKMOE_Q2_K, 256, 256))                  \
    X(MXFP4, "mxfp4", 0, 2, 0, 0, 1, 0, types(d, VKMOE_MXFP4, VKMOE_MXFP4, 96, 160),               \
      d->clamp = VKMOE_CLAMP_BEFORE_ACT, d->limit = 0.75f, d->act_alpha = 1.702f, d->up_add = 1)   \
    X(FP8, "fp8", 0, 4, 0, 1, 0, 0, types(d, VKMOE_FP8, VKMOE_FP8, 131, 200))                      \
    X(FP8_SMALL, "fp8-f16", 3, 0, 2, 0, 1, 2, types(d, VKMOE_FP8, VKMOE_F16, 33, 20))              \
    X(BF16_FP8, "bf16-fp8", 7, 2, 2, 0, 1, 0, types(d, VKMOE_BF16, VKMOE_FP8, 12, 9))              \
    X(SHARED_BLOCKS, "shared-q8_0-q4_0", 0, 0, 0, 2, 1, 0, types(d, VKMOE_F16, VKMOE_F16, 64, 32), \
      d->own_shared_types = true, d->shared_in_type = VKMOE_Q8_0, d->shared_out_type = VKMOE_Q4_0) \
    X(LATENT_BLOCKS, "latent-q8_0", 0, 0, 0, 0, 0, 0, types(d, VKMOE_Q4_0, VKMOE_F32, 64, 19),     \
      d->d_latent = 32, d->latent_type = VKMOE_Q8_0)                                               \
    X(ADJUGATE_BLOCKS, "adjugate-q4_0", 0, 0, 0, 0, 1, 0, types(d, VKMOE_Q4_0, VKMOE_Q4_0, 32, 64),\
      d->adjugate_group = 3, d->d_adjugate = 32, d->adjugate_scale = 0.75f)

// The same with int8: each type that has it, in and down. Few experts where a block is 256 values,
// which take long to make.
#define INT8_FORMS(X)                                                                              \
    X(INT8_Q8_0, "q8_0", 0, 0, 0, 1, 1, 0, types(d, VKMOE_Q8_0, VKMOE_Q8_0, 96, 64))               \
    X(INT8_Q4_0, "q4_0", 5, 0, 0, 1, 1, 0, types(d, VKMOE_Q4_0, VKMOE_Q4_0, 64, 32))               \
    X(INT8_Q4_0_Q8_0, "q4_0-q8_0", 0, 4, 2, 0, 0, 2, types(d, VKMOE_Q4_0, VKMOE_Q8_0, 32, 96))     \
    X(INT8_Q4_K, "q4_K-q6_K", 2, 0, 0, 1, 0, 0, types(d, VKMOE_Q4_K, VKMOE_Q6_K, 256, 256))        \
    X(INT8_Q5_K, "q5_K", 2, 0, 2, 0, 1, 0, types(d, VKMOE_Q5_K, VKMOE_Q5_K, 512, 256))             \
    X(INT8_Q6_K, "q6_K-q4_K", 2, 4, 0, 0, 1, 1, types(d, VKMOE_Q6_K, VKMOE_Q4_K, 256, 512))        \
    X(INT8_Q2_K, "q2_K", 2, 0, 0, 1, 1, 0, types(d, VKMOE_Q2_K, VKMOE_Q2_K, 256, 256))             \
    X(INT8_MXFP4, "mxfp4", 0, 2, 0, 0, 1, 0, types(d, VKMOE_MXFP4, VKMOE_MXFP4, 96, 160),          \
      d->clamp = VKMOE_CLAMP_BEFORE_ACT, d->limit = 0.75f, d->act_alpha = 1.702f, d->up_add = 1)   \
    X(INT8_PAIR, "bf16-q8_0", 3, 0, 0, 0, 1, 2, types(d, VKMOE_BF16, VKMOE_Q8_0, 33, 64))          \
    X(INT8_SHARED, "shared-q8_0-q4_0", 0, 0, 0, 2, 1, 0, types(d, VKMOE_FP8, VKMOE_F16, 64, 32),   \
      d->own_shared_types = true, d->shared_in_type = VKMOE_Q8_0, d->shared_out_type = VKMOE_Q4_0) \
    X(INT8_LATENT, "latent-q8_0", 0, 0, 0, 0, 0, 0, types(d, VKMOE_Q4_0, VKMOE_F32, 64, 19),       \
      d->d_latent = 32, d->latent_type = VKMOE_Q8_0)                                               \
    X(INT8_ADJUGATE, "adjugate-q4_0", 0, 0, 0, 0, 1, 0, types(d, VKMOE_Q4_0, VKMOE_Q4_0, 32, 64),  \
      d->adjugate_group = 3, d->d_adjugate = 32, d->adjugate_scale = 0.75f)                        \
    X(INT8_ON_INPUT, "weight-on-input-q8_0", 0, 4, 0, 0, 1, 0,                                     \
      types(d, VKMOE_Q8_0, VKMOE_Q4_0, 64, 32), d->weight_on_input = true)

static void types(vkmoe_layer_desc *d, enum vkmoe_dtype in, enum vkmoe_dtype out,
                  uint32_t d_model, uint32_t d_ff)
{
    d->in_type = in;
    d->out_type = out;
    d->d_model = d_model;
    d->d_ff = d_ff;
    if (d->d_shared_ff)
        d->d_shared_ff = d_ff;
}

enum form_id {
    FORM_NONE,
#define ID(id, ...) FORM_##id,
    ROUTER_FORMS(ID) EXPERT_FORMS(ID) TYPE_FORMS(ID) INT8_FORMS(ID)
#undef ID
    N_FORMS,
};

bool verify_form(uint32_t i, struct verify_case *out, const char **name)
{
    static const struct {
        const char *name;
        uint8_t shape, router, expert, shared, bias, x_type, precision;
    } forms[N_FORMS] = {
#define FORM(id, name, shape, router, expert, shared, bias, x_type, ...)                           \
    [FORM_##id] = {name, shape, router, expert, shared, bias, x_type, 0},
#define INT8_FORM(id, name, shape, router, expert, shared, bias, x_type, ...)                      \
    [FORM_##id] = {name, shape, router, expert, shared, bias, x_type, VERIFY_INT8},
        ROUTER_FORMS(FORM) EXPERT_FORMS(FORM) TYPE_FORMS(FORM) INT8_FORMS(INT8_FORM)
#undef FORM
#undef INT8_FORM
    };
    if (i == FORM_NONE || i >= N_FORMS)
        return false;
    *name = forms[i].name;
    *out = (struct verify_case){
        .level = {[VERIFY_SHAPE] = forms[i].shape, [VERIFY_ROUTER] = forms[i].router,
                  [VERIFY_EXPERT] = forms[i].expert, [VERIFY_SHARED] = forms[i].shared,
                  [VERIFY_BIAS] = forms[i].bias, [VERIFY_X_TYPE] = forms[i].x_type,
                  [VERIFY_PRECISION] = forms[i].precision},
        .form = (uint8_t) i,
    };
    return true;
}

void verify_form_apply(uint32_t i, vkmoe_layer_desc *d)
{
    switch ((enum form_id) i) {
    case FORM_NONE:
    case N_FORMS:
        return;
#define APPLY(id, name, shape, router, expert, shared, bias, x_type, ...)                          \
    case FORM_##id:                                                                                \
        (void) (__VA_ARGS__);                                                                      \
        return;
        ROUTER_FORMS(APPLY) EXPERT_FORMS(APPLY) TYPE_FORMS(APPLY) INT8_FORMS(APPLY)
#undef APPLY
    }
}
