// SPDX-License-Identifier: MIT
// What a Mixture-of-Experts layer computes, and the tensors that it is made of.
#ifndef VKMOE_LAYER_H
#define VKMOE_LAYER_H

#include <vkmoe/base.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- layer -----------------------------------------------------------------------------------

// Types of stored weights; x and y have one of the first three. A row of the others is blocks of
// so many values in so many bytes, little-endian, as GGUF files have them (fp8: ours). d and m are
// f16; a 4-bit code q of value j < 16 is the low half of byte j, that of j + 16 the high half.
enum vkmoe_dtype {
    VKMOE_F32 = 0,
    VKMOE_F16 = 1,
    VKMOE_BF16 = 2,
    VKMOE_Q8_0 = 3,  // 32 in 34: d, then signed bytes; d q
    VKMOE_Q4_0 = 4,  // 32 in 18: d, then 16 bytes of codes; d (q - 8)
    VKMOE_Q4_K = 5,  // 256 in 144: 8 parts with 6-bit scales and minima
    VKMOE_Q5_K = 6,  // 256 in 176: the same with one bit more
    VKMOE_Q6_K = 7,  // 256 in 210: 16 parts with 8-bit scales
    VKMOE_Q2_K = 8,  // 256 in 84: 16 parts with 4-bit scales and minima
    VKMOE_MXFP4 = 9, // 32 in 17: an exponent (E8M0), then 16 bytes of E2M1 codes
    // 128 in 132: an f32 scale, then 128 bytes of E4M3 (no infinity, largest 448). A row that is no
    // multiple of 128 ends in a block whose other codes are 0.
    VKMOE_FP8 = 10,
};

// "f32 f16 bf16 q8_0 q4_0 q4_K q5_K q6_K q2_K mxfp4 fp8"; "unknown" for any other number. Static
// text.
VKMOE_API const char *vkmoe_dtype_name(enum vkmoe_dtype type);

// One letter case, as vkmoe_dtype_name spells it. VKMOE_E_ARGUMENT: no such type.
VKMOE_API enum vkmoe_status vkmoe_dtype_from_name(const char *name, enum vkmoe_dtype *out);

// Values of a block and its bytes; 1 and the size of an element for the types that have no blocks.
// Either may be NULL. VKMOE_E_ARGUMENT: no such type.
VKMOE_API enum vkmoe_status vkmoe_dtype_block(enum vkmoe_dtype type, uint32_t *n_values,
                                              uint32_t *size);

// A row of n f32 values as `type`: f16 and bf16 rounded to nearest even, the others by the codes
// and scales that come closest. n is whole blocks (fp8: any number); dst has room for them.
VKMOE_API enum vkmoe_status vkmoe_dtype_convert(enum vkmoe_dtype type, const float *src, size_t n,
                                                void *dst);

// And back, exactly: a row of n values as f32. src may have any alignment.
VKMOE_API enum vkmoe_status vkmoe_dtype_to_f32(enum vkmoe_dtype type, const void *src, size_t n,
                                               float *dst);

enum vkmoe_expert_kind {
    VKMOE_EXPERT_MLP = 0,    // act_out(W_down h + b_down), h = act(W_up x + b_up), or
                             // h = act(W_gate x + b_gate) * (W_up x + b_up) when gated
    VKMOE_EXPERT_LINEAR = 1, // act(W x + b)
    // The caller's own, for the operations of vkmoe_plan_desc alone: weights are those of the
    // router, and the fields that describe what an expert computes (d_ff, act ...) are not read.
    VKMOE_EXPERT_EXTERNAL = 2,
};

enum vkmoe_act {
    VKMOE_ACT_NONE = 0,
    VKMOE_ACT_SILU = 1,      // v * sigmoid(act_alpha * v)
    VKMOE_ACT_GELU_ERF = 2,  // v / 2 * (1 + erf(v / sqrt 2))
    VKMOE_ACT_GELU_TANH = 3, // v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3)))
    VKMOE_ACT_RELU = 4,
    VKMOE_ACT_RELU2 = 5, // relu(v)^2
    VKMOE_ACT_SIGMOID = 6,
    VKMOE_ACT_TANH = 7,
    VKMOE_ACT_SITU = 8, // beta tanh(v / beta) sigmoid(v), the up half lambda tanh(u / lambda)
};

enum vkmoe_score {
    VKMOE_SCORE_SOFTMAX = 0, // over all experts, maximum subtracted
    VKMOE_SCORE_SIGMOID = 1,
    VKMOE_SCORE_SQRT_SOFTPLUS = 2,
    VKMOE_SCORE_RELU = 3,
    VKMOE_SCORE_NONE = 4,
};

enum vkmoe_rank { // what selection orders by, before the selection bias
    VKMOE_RANK_SCORE = 0,
    VKMOE_RANK_LOGIT = 1,
    VKMOE_RANK_SIGMOID = 2,
};

enum vkmoe_select {
    VKMOE_SELECT_TOP_K = 0,
    VKMOE_SELECT_TABLE = 1, // expert ids from a table indexed by token id, in the table's order
    // Best first, one at a time. Of the experts left, with most the largest of their logits l:
    // those with (most - l_e) / max(|l_e|, most) > 2 sparsemixer_eps are out of it, w = softmax of
    // the others' logits at the best one (Phi-3.5; Liu et al., GRIN, 2024). gate_source, score and
    // rank are not used.
    VKMOE_SELECT_SPARSEMIXER = 2,
    // Two that may select fewer than top_k: the slots behind the last selected expert are unused,
    // their id is -1 and their gate weight 0. The best expert is selected always.
    VKMOE_SELECT_TOP_P = 3,     // best first until their scores sum to at least select_p
    VKMOE_SELECT_THRESHOLD = 4, // those that rank at least at select_p
};

enum vkmoe_gate_source {
    VKMOE_GATE_SCORE = 0,            // the selected experts' scores
    VKMOE_GATE_SOFTMAX_SELECTED = 1, // softmax over the selected experts' logits
};

// sum w is (sum |w|^norm_p)^(1 / norm_p) where norm_p is not 1.
enum vkmoe_norm {
    VKMOE_NORM_NONE = 0,
    VKMOE_NORM_SUM_PLUS_EPS = 1, // w / (sum w + norm_eps)
    VKMOE_NORM_MAX_SUM_EPS = 2,  // w / max(sum w, norm_eps)
};

enum vkmoe_group_score {
    VKMOE_GROUP_MAX = 0,
    VKMOE_GROUP_TOP2_SUM = 1,
    VKMOE_GROUP_TOP_SHARE_SUM = 2, // sum of the top_k / topk_group best of a group
};

// Of g, the gate half, and u, the up half, by the limit L: gated experts only.
enum vkmoe_clamp {
    VKMOE_CLAMP_NONE = 0,
    VKMOE_CLAMP_BEFORE_ACT = 1, // act(min(g, L)) * (max(-L, min(u, L)) + up_add)
    VKMOE_CLAMP_AFTER_ACT = 2,  // min(act(g), L) * (max(-L, min(u, L)) + up_add)
};

enum vkmoe_shared_gate {
    VKMOE_SHARED_PLAIN = 0,
    VKMOE_SHARED_SIGMOID = 1,  // sigmoid(w . x) multiplies the shared expert
    VKMOE_SHARED_SOFTMAX2 = 2, // [a, b] = softmax(W x + b) mixes routed and shared
};

// What an expert keeps of the slots that selected it, when they are more than its capacity: a slot
// that is dropped becomes unused (id -1, gate weight 0).
enum vkmoe_capacity {
    VKMOE_CAPACITY_NONE = 0,
    VKMOE_CAPACITY_BY_POSITION = 1, // first choices of all tokens before second ones, then by token
    VKMOE_CAPACITY_BY_GATE = 2,     // the largest gate weights, ties to the lower token
};

// A MoE layer in full. Fields are orthogonal; a value that this version does not compute is refused
// with VKMOE_E_UNSUPPORTED and a text that names the field. For token x:
//
//   h = router input: x, or a tensor of its own, or rms(h) * prenorm_scale * prenorm_const, where
//       rms(h) = h / sqrt(mean h^2 + prenorm_eps)
//   l = router h + router_bias;  l = c tanh(l / c);  s = score(l);  q = rank(l, s) + selection_bias
//   q of the experts outside the topk_group best groups is -infinity (or 0)
//   e = the top_k largest q, ties to the lower index, NaN last
//   w = gate_source(s, l)[e];  w = norm(w) * routed_scale * expert_scale[e]
//   slots beyond an expert's capacity are dropped
//   r = sum_k w_k expert_{e_k}(z), or sum_k expert_{e_k}(w_k z) with weight_on_input, where
//       z = x, or latent_down x; an identity expert is z itself; with adjugate experts
//       + sum_k w_k adjugate_scale adjugate_{e_k / adjugate_group}(z)
//   r = latent_up (rms(r) * latent_norm) where there is a latent width;  r += out_bias
//   y = out_scale * (c_routed * r + c_shared * shared_gate(x) * shared(x))
//
// A token whose scores are all NaN yields NaN.
typedef struct vkmoe_layer_desc {
    size_t struct_size;

    // Sizes.
    uint32_t n_experts;    // 1..1024
    uint32_t top_k;        // 1..n_experts; n_experts is dense routing
    uint32_t d_model;
    uint32_t d_ff;
    uint32_t d_out;        // 0: d_model
    uint32_t d_shared_ff;  // hidden width of the shared expert (several merged into one); 0: none
    uint32_t n_zero;       // identity experts behind the real ones; n_experts + n_zero <= 1024
    uint32_t d_latent;     // width the routed experts work in, both ways; 0: d_model and d_out
    // Of the shared expert, too, unless own_shared_types is set.
    enum vkmoe_dtype in_type;  // stored type of gate and up
    enum vkmoe_dtype out_type; // stored type of down

    // Router.
    bool router_input;   // the router reads a tensor of its own, vkmoe_io.router_x
    bool router_prenorm; // the router reads rms(h) * prenorm_scale * prenorm_const
    float prenorm_const, prenorm_eps;
    bool router_bias;
    bool selection_bias; // enters the ranking only, never the gate weight
    float logit_softcap; // l = c tanh(l / c); 0: none
    enum vkmoe_score score;
    enum vkmoe_rank rank;
    enum vkmoe_select select;
    float select_p;         // VKMOE_SELECT_TOP_P, VKMOE_SELECT_THRESHOLD
    float sparsemixer_eps;
    uint32_t n_group;       // 0 or 1: no groups
    uint32_t topk_group;
    enum vkmoe_group_score group_score;
    bool group_fill_zero;   // masked experts rank as 0 instead of -infinity
    enum vkmoe_gate_source gate_source;
    enum vkmoe_norm norm;
    float norm_p;           // exponent of the norm; init sets 1
    float norm_eps;
    float routed_scale;     // init sets 1
    bool expert_scale;      // a factor per expert on the normalised gate weight

    // Experts.
    enum vkmoe_expert_kind expert_kind;
    bool gated;
    enum vkmoe_act act;
    enum vkmoe_act act_out;
    float act_alpha;        // init sets 1
    float up_add;           // added to the up half
    enum vkmoe_clamp clamp;
    float limit, limit_shared;
    float situ_beta, situ_lambda;
    bool gate_bias, up_bias, down_bias; // the shared expert has the same ones
    bool weight_on_input;   // the gate weight multiplies the expert's input, not its output
    bool latent_norm;       // the combined latent is rms-normed
    bool out_bias;          // one bias of d_out on the routed sum
    // Every adjugate_group experts in a row share one more expert of hidden width d_adjugate, which
    // runs with each of them, its gate weight times adjugate_scale (GroveMoE). 0: none.
    uint32_t adjugate_group, d_adjugate;
    float adjugate_scale;
    const uint32_t *expert_d_ff;       // (n_experts) or NULL: all d_ff
    const enum vkmoe_act *expert_act;  // (n_experts) or NULL: all act
    const uint32_t *expert_alias;      // (n_experts) or NULL: expert i has the weights of alias[i]

    // Combine.
    enum vkmoe_shared_gate shared_gate;
    float c_routed, c_shared, out_scale; // init sets 1

    // Slots an expert takes of capacity_rows tokens in a row (0: of all of a run): `capacity`, or
    // where that is 0 ceil(capacity_factor * top_k * tokens / n_experts), tokens as there are.
    enum vkmoe_capacity capacity_mode;
    uint32_t capacity, capacity_rows;

    // Training only.
    float jitter;           // router input times U(1 - jitter, 1 + jitter)
    float aux_coef, z_coef, bias_rate;

    float capacity_factor;
    bool capacity_renorm;   // norm(w) is over the slots that were kept (NLLB)
    float latent_norm_eps;
    enum vkmoe_dtype latent_type; // stored type of latent_down and latent_up
    uint32_t n_token_ids;   // rows of the table of VKMOE_SELECT_TABLE
    bool shared_gate_bias;
    bool own_shared_types;  // else the shared expert has in_type and out_type
    enum vkmoe_dtype shared_in_type, shared_out_type;
} vkmoe_layer_desc;

static inline vkmoe_layer_desc vkmoe_layer_desc_init(void)
{
    vkmoe_layer_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    desc.norm_p = desc.routed_scale = desc.act_alpha = 1.0f;
    desc.c_routed = desc.c_shared = desc.out_scale = 1.0f;
    return desc;
}

// Checks a layer without a device. VKMOE_E_ARGUMENT, VKMOE_E_SHAPE or VKMOE_E_UNSUPPORTED with the
// field's name and value in the text.
VKMOE_API enum vkmoe_status vkmoe_layer_check(const vkmoe_layer_desc *layer);

// ---- tensors ---------------------------------------------------------------------------------

// A row-major array, rows one behind the other, each whole blocks of its type; the shape is the one
// its place asks for. `type` is the stored type of that place, or VKMOE_F32, which is converted
// when packed. Data may have any alignment.
//
// Tensors of experts and latent ones may be read as they are packed, so that none need ever be in
// memory in full: where data is NULL, `read` stores n_rows rows of `type` at dst, one behind the
// other. It is called on the thread that packs or creates weights, for each row once, in ascending
// order, some rows at a time. A failure ends the call with that status.
typedef struct vkmoe_tensor {
    const void *data;
    enum vkmoe_dtype type;
    enum vkmoe_status (*read)(void *read_user, uint64_t first_row, uint64_t n_rows, void *dst);
    void *read_user;
} vkmoe_tensor;

// One expert. d_in and d_out are the layer's d_model and d_out; of routed and adjugate experts
// d_latent where it has one. Bias pointers are NULL exactly where the layer has no such bias;
// adjugate experts have the same ones.
typedef struct vkmoe_expert_tensors {
    vkmoe_tensor gate;       // (d_ff, d_in); data and read NULL when not gated
    vkmoe_tensor up;         // (d_ff, d_in)
    vkmoe_tensor down;       // (d_out, d_ff)
    const float *gate_bias;  // (d_ff)
    const float *up_bias;    // (d_ff)
    const float *down_bias;  // (d_out)
} vkmoe_expert_tensors;

// n = n_experts + n_zero. Pointers are NULL exactly where the layer has no such thing.
typedef struct vkmoe_router_tensors {
    vkmoe_tensor weight;          // (n, d_model), data of any type; kept as f32
    const float *bias;            // (n)
    const float *selection_bias;  // (n)
    const float *shared_gate;     // (d_model) for VKMOE_SHARED_SIGMOID, (2, d_model) for
                                  // VKMOE_SHARED_SOFTMAX2: routed, then shared
    const float *shared_gate_bias; // (1) or (2)
    const float *expert_scale;    // (n)
    const float *prenorm_scale;   // (d_model)
    const int32_t *table;         // (n_token_ids, top_k), each 0..n - 1, no id twice in a row
} vkmoe_router_tensors;

// What lies around the routed experts.
typedef struct vkmoe_latent_tensors {
    vkmoe_tensor down;     // (d_latent, d_model)
    vkmoe_tensor up;       // (d_out, d_latent)
    const float *norm;     // (d_latent), with latent_norm
} vkmoe_latent_tensors;

// In place of an expert's index.
#define VKMOE_SHARED_EXPERT UINT32_MAX
#define VKMOE_ADJUGATE_EXPERT 0x40000000u // plus the adjugate's index: expert / adjugate_group

#ifdef __cplusplus
}
#endif
#endif
