// SPDX-License-Identifier: MIT
// A network as a graph of ops on 2-D tensors: what training runs. Where core/graph.h is one layer
// for inference, in a form that back ends fuse, a net is layers, loss, gradients and optimiser in
// small general ops. Three places compute them, core/net_ref.c (f64, the oracle), cpu/net.c and
// vulkan/net.c; these and train/gradient.c, which derives the backward ops, switch over
// enum moe_net_op_kind without `default:`.
//
// A tensor is row-major, (rows, width), rows following each other; elements are f32 or i32, or of
// 16 bits in rounded copies of weights. Its number of rows is fixed, or so many for each token or
// each example of a batch. All tensors of a net lie in one arena of 4-byte words, at offsets that
// core/net_plan.c gives them.
//
// Slots are token-major: row = token * top_k + k, so that tensors of slots are tensors with top_k
// rows a token. Work by expert goes through a grouping: `starts` (n_groups + 1) and `members`
// (rows): group g has the rows members[starts[g]] .. members[starts[g + 1] - 1], ascending.
#ifndef MOE_CORE_NET_H
#define MOE_CORE_NET_H

#include <vkmoe/vkmoe.h>

#define MOE_NET_NONE UINT32_MAX // no tensor

enum moe_net_role {
    MOE_NET_INPUT,    // written by the caller before a run
    MOE_NET_PARAM,    // trained
    MOE_NET_GRAD,     // of a parameter
    MOE_NET_MOMENT,   // the optimiser's, of a parameter
    MOE_NET_STATE,    // kept from run to run: sums of losses, selection biases, constants, and
                      // rounded copies of parameters, which have the parameter's name
    MOE_NET_VALUE,    // made by a run; its memory is shared with others that live at other times
};

enum moe_net_type {
    MOE_NET_F32,
    MOE_NET_I32,
    MOE_NET_F16,  // 2 bytes an element, in every back end and the oracle too: only what ROUND
    MOE_NET_BF16, // writes and products read as w
};

enum moe_net_rows_of {
    MOE_NET_FIXED,    // n
    MOE_NET_TOKENS,   // n for each token
    MOE_NET_EXAMPLES, // n for each example
};

enum { MOE_NET_NAME = 64, MOE_NET_OPERANDS = 6, MOE_NET_RESULTS = 3 };

struct moe_net_tensor {
    char name[MOE_NET_NAME]; // "layers.0.experts.up.weight"; unique among params
    enum moe_net_role role;
    enum moe_net_type type;
    enum moe_net_rows_of rows;
    uint32_t n, width;
    bool half;       // a weight, or its gradient: products with it, or that make it, may be rounded
                     // where the net's precision is half
    bool keep;       // VALUE: not overwritten until the next FORWARD, so that it can be read
    uint64_t offset; // in words, from the arena's begin; a multiple of 64; from moe_net_plan
};

// What every op writes is `=`, or `+=` where it says so. In and out never overlap.
enum moe_net_write {
    MOE_NET_SET,
    MOE_NET_ADD,
    MOE_NET_ADD_LATER, // gradients of parameters: SET, but ADD when args.accumulate
};

// X(KIND, "name", n_in, n_out). Operands in order; [x] may be MOE_NET_NONE. r is a row of the
// result; /q means row r / q of that operand (op.div[i] for in[i]; 1 unless said). Results follow
// "->"; those marked * obey op.write, others are set. K = op.top_k, rows of a token.
//
// Matrices of G groups: w (G * n_out, n_in), in f32, f16 or bf16; b (G, n_out). Without a grouping
// G = 1 and every row is in it. A row is a row of y (or dy), a slot or a token.
//   MATMUL          a/q, w, [b], [starts, members] -> y*     y[r] = W_g a[r/q] + b_g
//   MATMUL_DX       dy/q, w, [starts, members] -> da*        da[r] = dy[r/q] W_g
//   MATMUL_DW       dy/q0, a/q1, [s], [starts, members] -> dw*, [db*]
//                   dW_g = sum_r s_r dy[r/q0]^T a[r/q1];  db_g = sum_r s_r dy[r/q0]; r ascending,
//                   rows of the grouping, else of dy and a, which then have as many
//   MATMUL_COMBINE  h, w, [b], [s], starts, members -> y*
//                   y[t] = alpha sum_k s[tK+k] (W_g h[tK+k] + b_g); k ascending
//   GROUP           ids -> starts, members
//                   group of row r = ids[r], in 0..G-1, and G = rows of starts - 1
//   GROUP_SUM       d, [starts, members] -> e*
//                   e[g] = alpha sum_{r in g} d[r]; without a grouping, of all rows. r ascending
//   IOTA            -> ids                                   ids[r] = r % op.n
//
// Routing, by the fields of *op.layer (score, rank, gate_source, norm, norm_eps, routed_scale;
// score may be VKMOE_SCORE_NONE too); rules as in core/ref_route.h:
//   SELECT          logits, [selection_bias] -> ids, gates   (t, E) -> (t*K, 1) each
//   SELECT_BACKWARD logits, ids, dgates -> dlogits*          exact 0 where gates are constant
//   NOISE           a, [z] -> y                              y = a + alpha n(r, c) [* softplus(z)]
//   NOISE_BACKWARD  dy, z -> dz*                             dz = dy alpha n(r, c) sigmoid(z)
//
// Rows and elements:
//   ACT             a -> y                  y = act(a), op.act, op.beta as act_alpha (GLU too).
//                   a and y are read as flat arrays of equally many elements, whatever their rows
//                   and widths: with VKMOE_ACT_NONE it gives a tensor another shape
//   ACT_BACKWARD    dy, a -> da*            likewise; dy is of y's shape, da of a's
//   GLU             g, u -> h               h = act(g) * u
//   GLU_BACKWARD    dh, g, u -> dg, du
//   SCALE_ROWS      a/q0, [s/q1], [index/q2] -> y*
//                   y[r] = alpha s[r/q1] a[i], i = index[r/q2], else r/q0. So it adds, spreads,
//                   gathers and weighs rows
//   ROW_DOT         a/q0, b/q1, [index] -> d*
//                   d[r] = alpha <a[r/q0], b[i]>, i = index[r], else r/q1
//   SUM_SLOTS       f, [s/q1] -> y*         y[t] = alpha sum_k s[(tK+k)/q1] f[tK+k]; k ascending
//   SOFTMAX         a -> p                  rows; p = softmax(alpha a)
//   SOFTMAX_BACKWARD dp, p -> da*           da = alpha p (dp - <p, dp>)
//   SHARE           r -> w                  (t*K, d) -> (t*K, 1): n_k = |r_k|_1,
//                   w_k = n_k / (sum_k n_k + eps); 1 / K where the sum is 0
//   SHARE_BACKWARD  dw, r -> dr*            0 where the sum is 0; sign(0) = 0
//   NORM            a, [gain], [bias] -> y, stats    layer norm, or RMS norm if op.n = 1: stats
//                   (r, 2) = (mean, 1 / sqrt(variance + eps)), mean 0 for RMS
//   NORM_BACKWARD   dy, a, [gain], stats -> da*
//   NORM_DGAIN      dy, a, stats -> dgain*, [dbias*]
//   DROPOUT         a -> y*                 y = a / (1 - alpha) where u(r, c) >= alpha, else 0;
//                   its own backward op
//   POOL            a, offsets -> y, [best]  y[x] over tokens offsets[x] .. offsets[x+1]-1; op.n =
//                   enum moe_net_pool; no tokens: 0. best (x, width): the token of the maximum,
//                   the first of equal ones, -1 for none; the first NaN is the maximum
//   POOL_BACKWARD   dy, offsets, [best] -> da    by token; set
//
// Losses of the examples (or tokens), with gradients. scale = args.loss_scale * op.alpha. loss
// (r, 1) = scale * loss of the row; d* is its derivative, or MOE_NET_NONE where nobody wants it.
//   CROSS_ENTROPY   logits, target, [class_weight] -> loss, d*    -sum_c v_c t_c log softmax_c;
//                   target: labels (r, 1) i32, or shares (r, C) f32; smoothed: t (1 - beta) +
//                   beta / C; v (1, C), 1 if there is none
//   POINT_LOSS      y, target -> loss, d*   sum over the row; op.n = enum moe_net_point; beta is
//                   Huber's delta; target (r, d) f32
//   MIXTURE_NLL     f, s, target -> loss, df*, ds*   f (t*K, C) of slots, s (t*K, 1):
//                   -log sum_k s_k p_k; op.n 0: p = softmax(f)[label], target (t, 1) i32; 1:
//                   Gaussian of variance beta, target (t, C) f32
//   BALANCE         p, starts -> loss*, dp*          scale = args.aux_scale * alpha, f_e = c_e /
//                   (K T): loss (1,1) = scale E sum_e f_e mean_t p_te; dp_te = scale E f_e / T
//   Z_LOSS          logits -> loss*, dlogits*        scale as BALANCE; loss (1, 1) = scale
//                   mean_t lse_t^2; dlogits = 2 scale lse_t softmax / T
//   REDUCE          a -> sum*               (1, 1): sum of all elements, in f32 in a fixed order
//
// Steps. factor (1, 1) multiplies the gradient. A NaN factor, or a loss (1, 1) that is not finite:
// nothing changes.
//   FILL            -> a                    a = alpha
//   SUM_SQUARES     g -> sum*               (1, 1)
//   CLIP            sum -> factor           min(1, alpha / (sqrt(sum) + 1e-6)), 1 if alpha is 0;
//                   NaN if sum is not finite
//   STEP            g, [factor], [loss] -> p, [m], [v]       updated in place; *op.step
//   ROUND           p -> q                  q of 16 bits: p to nearest, ties to even
//   COUNT           starts -> counts*       f32 (1, G): rows of each group
//   BALANCE_BIAS    counts, [loss] -> bias  (1, E): bias_e += alpha sign(mean(counts) - counts_e)
#define MOE_NET_OP_LIST(X)                                                                         \
    X(MATMUL, "matmul", 5, 1)                                                                      \
    X(MATMUL_DX, "matmul_dx", 4, 1)                                                                \
    X(MATMUL_DW, "matmul_dw", 5, 2)                                                                \
    X(MATMUL_COMBINE, "matmul_combine", 6, 1)                                                      \
    X(GROUP, "group", 1, 2)                                                                        \
    X(GROUP_SUM, "group_sum", 3, 1)                                                                \
    X(IOTA, "iota", 0, 1)                                                                          \
    X(SELECT, "select", 2, 2)                                                                      \
    X(SELECT_BACKWARD, "select_backward", 3, 1)                                                    \
    X(NOISE, "noise", 2, 1)                                                                        \
    X(NOISE_BACKWARD, "noise_backward", 2, 1)                                                      \
    X(ACT, "act", 1, 1)                                                                            \
    X(ACT_BACKWARD, "act_backward", 2, 1)                                                          \
    X(GLU, "glu", 2, 1)                                                                            \
    X(GLU_BACKWARD, "glu_backward", 3, 2)                                                          \
    X(SCALE_ROWS, "scale_rows", 3, 1)                                                              \
    X(ROW_DOT, "row_dot", 3, 1)                                                                    \
    X(SUM_SLOTS, "sum_slots", 2, 1)                                                                \
    X(SOFTMAX, "softmax", 1, 1)                                                                    \
    X(SOFTMAX_BACKWARD, "softmax_backward", 2, 1)                                                  \
    X(SHARE, "share", 1, 1)                                                                        \
    X(SHARE_BACKWARD, "share_backward", 2, 1)                                                      \
    X(NORM, "norm", 3, 2)                                                                          \
    X(NORM_BACKWARD, "norm_backward", 4, 1)                                                        \
    X(NORM_DGAIN, "norm_dgain", 3, 2)                                                              \
    X(DROPOUT, "dropout", 1, 1)                                                                    \
    X(POOL, "pool", 2, 2)                                                                          \
    X(POOL_BACKWARD, "pool_backward", 3, 1)                                                        \
    X(CROSS_ENTROPY, "cross_entropy", 3, 2)                                                        \
    X(POINT_LOSS, "point_loss", 2, 2)                                                              \
    X(MIXTURE_NLL, "mixture_nll", 3, 3)                                                            \
    X(BALANCE, "balance", 2, 2)                                                                    \
    X(Z_LOSS, "z_loss", 1, 2)                                                                      \
    X(REDUCE, "reduce", 1, 1)                                                                      \
    X(FILL, "fill", 0, 1)                                                                          \
    X(SUM_SQUARES, "sum_squares", 1, 1)                                                            \
    X(CLIP, "clip", 1, 1)                                                                          \
    X(STEP, "step", 3, 3)                                                                          \
    X(ROUND, "round", 1, 1)                                                                        \
    X(COUNT, "count", 1, 1)                                                                        \
    X(BALANCE_BIAS, "balance_bias", 2, 1)

enum moe_net_op_kind {
#define MOE_NET_OP_VALUE(kind, name, n_in, n_out) MOE_NET_##kind,
    MOE_NET_OP_LIST(MOE_NET_OP_VALUE)
#undef MOE_NET_OP_VALUE
};

enum moe_net_pool { MOE_NET_POOL_MEAN, MOE_NET_POOL_SUM, MOE_NET_POOL_MAX };

enum moe_net_point {
    MOE_NET_POINT_MSE,         // (y - t)^2
    MOE_NET_POINT_HUBER,       // d^2 / 2 where |d| <= beta, else beta (|d| - beta / 2)
    MOE_NET_POINT_BCE,         // of probabilities; a log is at least -100, and y (1 - y) in the
                               // derivative at least 1e-12, as in PyTorch. y up to 1e-3 outside of
                               // 0..1 is 0 or 1, further out NaN
    MOE_NET_POINT_BCE_LOGITS,
};

enum moe_net_optimiser { MOE_NET_SGD, MOE_NET_ADAM, MOE_NET_ADAMW };

// How a parameter is updated from its gradient g, with rate = args.rate * rate_scale, n = args.step
// from 1:
//   SGD:   g += decay p;  m = momentum m + g (m = g at n = 1);  d = nesterov ? g + momentum m : m,
//          or g without momentum;  p -= rate d
//   ADAM:  g += decay p;  m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;
//          p -= rate (m / (1 - beta1^n)) / (sqrt(v / (1 - beta2^n)) + eps)
//   ADAMW: p -= rate decay p; then ADAM without decay
struct moe_net_step {
    enum moe_net_optimiser kind;
    float rate_scale, decay;
    float momentum;
    bool nesterov;
    float beta1, beta2, eps;
};

struct moe_net_op {
    enum moe_net_op_kind kind;
    enum moe_net_write write; // of the results marked *
    uint32_t in[MOE_NET_OPERANDS], out[MOE_NET_RESULTS];
    uint32_t div[3];          // of in[0..2], at least 1
    uint32_t top_k, n;
    uint32_t stream;          // of random numbers: NOISE, NOISE_BACKWARD, DROPOUT
    enum vkmoe_act act;
    float alpha, beta, eps;
    const vkmoe_layer_desc *layer;     // SELECT*; borrowed from the net
    const struct moe_net_step *step;   // STEP; likewise
};

// Programs, each an array of ops. A training step is FORWARD, BACKWARD (loss and gradients) once or
// more, then STEP. EVAL is FORWARD without noise and dropout, on its own values. ROUND makes the
// rounded copies of parameters: it comes before FORWARD or EVAL when parameters have changed, and
// has no values.
enum moe_net_program {
    MOE_NET_ROUND_PROGRAM,
    MOE_NET_FORWARD,
    MOE_NET_BACKWARD,
    MOE_NET_STEP_PROGRAM,
    MOE_NET_EVAL,
    MOE_NET_N_PROGRAMS,
};

struct moe_net_ops {
    struct moe_net_op *ops;
    uint32_t n, capacity;
};

struct moe_net {
    const vkmoe_host *host; // borrowed
    struct moe_net_tensor *tensors;
    uint32_t n_tensors, tensor_capacity;
    struct moe_net_ops programs[MOE_NET_N_PROGRAMS];
    void **owned; // memory that ops point to: layers, step rules
    uint32_t n_owned, owned_capacity;
    uint32_t max_tokens, max_examples;
    enum vkmoe_precision precision;
    const char *variant; // of the device's kernels, while it is made there; or NULL
    uint64_t arena_size; // words, from moe_net_plan
    bool failed;         // an allocation has
    struct moe_net_op no_op; // what moe_net_add_op hands out then
};

// What a run needs to know besides tensors.
struct moe_net_args {
    uint32_t n_tokens, n_examples; // at most the net's
    uint64_t seed;
    uint32_t pass;      // number of this FORWARD since the net began; key of its random numbers
    bool accumulate;    // gradients add to what is there
    float loss_scale;   // 1 / number of examples, usually
    float aux_scale;    // 1 / number of micro-batches of a step
    float rate;         // of this step
    uint32_t step;      // its number, from 1
};

// ---- building (net.c) ------------------------------------------------------------------------
// A failure to allocate is remembered in the net: the calls go on and moe_net_plan reports it.

enum vkmoe_status moe_net_create(const vkmoe_host *host, uint32_t max_tokens,
                                 uint32_t max_examples, struct moe_net **out);
void moe_net_destroy(struct moe_net *net);

// Adds a tensor and returns its index. name: printf-like.
uint32_t moe_net_add_tensor(struct moe_net *net, enum moe_net_role role, enum moe_net_type type,
                            enum moe_net_rows_of rows, uint32_t n, uint32_t width, const char *name,
                            ...);

// Adds an op that does nothing yet: operands and results MOE_NET_NONE, div 1, alpha 1.
// The pointer is good until the next op is added to that program.
struct moe_net_op *moe_net_add_op(struct moe_net *net, enum moe_net_program program,
                                  enum moe_net_op_kind kind);

// `size` bytes of zeroed memory that live as long as the net; NULL when there is none.
void *moe_net_own(struct moe_net *net, size_t size);

// The tensor of a role with that name; MOE_NET_NONE if there is none.
uint32_t moe_net_find(const struct moe_net *net, enum moe_net_role role, const char *name);

// Rows of a tensor in a run of so many tokens and examples.
uint64_t moe_net_rows(const struct moe_net_tensor *tensor, uint32_t n_tokens, uint32_t n_examples);
// Bytes of an element; are there two in a word?
uint32_t moe_net_type_size(enum moe_net_type type);
bool moe_net_type_is_half(enum moe_net_type type);
// How a type that is no integer is stored.
enum vkmoe_dtype moe_net_type_dtype(enum moe_net_type type);
// 4-byte words of n elements.
uint64_t moe_net_words(enum moe_net_type type, uint64_t n);
const char *moe_net_op_name(enum moe_net_op_kind kind);
uint32_t moe_net_n_in(enum moe_net_op_kind kind);
uint32_t moe_net_n_out(enum moe_net_op_kind kind);
// Does the op read result i before it writes it?
bool moe_net_op_updates(const struct moe_net_op *op, uint32_t i);

// net_plan.c: checks the shapes of every op (an assert: only our own code builds nets) and gives
// every tensor its offset. Values share memory where their lives do not overlap, over FORWARD,
// BACKWARD and STEP in this order; EVAL has that memory for itself. VKMOE_E_MEMORY: an allocation
// failed since the net was created, or sizes overflow.
enum vkmoe_status moe_net_plan(struct moe_net *net);

#endif
