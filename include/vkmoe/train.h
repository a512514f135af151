// SPDX-License-Identifier: MIT
// vkmoe training. The rules of vkmoe.h hold here too.
//
// The gradients of one layer, on host memory:
//
//     vkmoe_backward_io out = vkmoe_backward_io_init();
//     out.dy = dy;
//     out.experts = expert_grads;                 // (n_experts), NULL where not wanted
//     vkmoe_backward(bind, n_tokens, &io, &out);  // io as for vkmoe_run
//
// A network with its loss and optimiser, whose parameters stay on the device:
//
//     vkmoe_net_create(context, &desc, &net);     // layers, loss, optimiser
//     vkmoe_net_init(net, seed);                  // or vkmoe_net_write for each parameter
//     while (next_batch(&batch))
//         vkmoe_net_train(net, &batch, rate, &loss); // forward, loss, backward, step
//     vkmoe_net_read(net, VKMOE_NET_VALUE, "layers.0.router.weight", weight, n);
//
// The pieces of vkmoe_net_train: vkmoe_net_forward, vkmoe_net_backward (once or more for each step:
// gradients add up) and vkmoe_net_step.
#ifndef VKMOE_TRAIN_H
#define VKMOE_TRAIN_H

#include <vkmoe/vkmoe.h>

#ifdef __cplusplus
extern "C" {
#endif

// Gradients of one expert's parameters: f32, row-major, shapes as in vkmoe_expert_tensors. NULL:
// not wanted.
typedef struct vkmoe_expert_grads {
    float *gate;       // (d_ff, d_model)
    float *up;         // (d_ff, d_model)
    float *down;       // (d_out, d_ff)
    float *gate_bias;  // (d_ff)
    float *up_bias;    // (d_ff)
    float *down_bias;  // (d_out)
} vkmoe_expert_grads;

// The router's, likewise. The selection bias has none: it decides who is selected, and no gradient
// flows through a decision.
typedef struct vkmoe_router_grads {
    float *weight;       // (n_experts, d_model)
    float *bias;         // (n_experts)
    float *shared_gate;  // (d_model)
} vkmoe_router_grads;

// Host memory of one backward pass, of a loss with gradient dy. Elements of dy and dx have the
// plan's x_type. Strides are bytes from row to row; 0 means rows follow each other.
typedef struct vkmoe_backward_io {
    size_t struct_size;
    const void *dy;    // (n_tokens, d_out) in, aligned to its elements
    size_t dy_stride;  // multiple of an element's size, at least a row
    void *dx;          // (n_tokens, d_model) out, aligned to its elements; or NULL
    size_t dx_stride;
    const vkmoe_router_grads *router;   // where gradients of parameters go; NULL: none wanted
    const vkmoe_expert_grads *experts;  // (n_experts)
    const vkmoe_expert_grads *shared;
    bool accumulate;   // gradients of parameters are added to what is there; dx never is
} vkmoe_backward_io;

static inline vkmoe_backward_io vkmoe_backward_io_init(void)
{
    vkmoe_backward_io io;
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    return io;
}

// Runs the layer forward and backward on host memory and waits for the result: the gradients of
// sum(dy * y) by x and by the parameters, at the weights' stored values. Outputs of io are those of
// vkmoe_run.
// A plan of precision HALF lets products with matrices of experts, and those that make gradients of
// them, round operands, as vkmoe_net_desc.precision says. All else is f32, and so is everything
// for plans of EXACT or INT8. On Vulkan, where a plan names a variant, networks' own one of that
// kind makes the gradients ("net-a0n" for "a0n", "net-a3" for "a3", "a0" for "a0"); if they have
// none like it ("a1", "a2", "a3i") that is as if the plan named none.
//   n_tokens  0..max_tokens; with 0 the gradients of parameters are 0
//   io        as for vkmoe_run, but that y may be NULL too; what is not NULL is written
//   out       no written memory may overlap with any other, in io and out together
//
// Selected experts are taken as constants. With one expert a token, whose gate weight is divided by
// itself (a norm with norm_eps 0) or is a softmax over the selected alone, the router's gradient is
// exactly 0. An expert without a token has gradients of exactly 0. A token with NaN has a dx of
// NaN, and so have the parameters that it uses.
//
// On failure the outputs hold no promise; a wrong argument leaves them as they are.
// VKMOE_E_UNSUPPORTED: weights in the caller's own Vulkan buffer, which cannot be read back; or
// networks' variant like the plan's, which the text names, is not there, disabled or found bad.
// VKMOE_E_SHAPE: n_tokens above the plan's max_tokens.  VKMOE_E_ARGUMENT: NULL, misaligned,
// overlapping, a stride below a row, or a gradient of what the layer does not have.
// VKMOE_E_MEMORY, VKMOE_E_DEVICE_MEMORY: the first call allocates what gradients take of max_tokens
// tokens, with the weights as f32, which the bind keeps.
// Threads: as vkmoe_run, one at a time per bind.
VKMOE_API enum vkmoe_status vkmoe_backward(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io,
                                           const vkmoe_backward_io *out);

// ---- networks --------------------------------------------------------------------------------
//
// Parameters of layer N, all f32, with the names that they have in a model file; E = n_experts,
// one expert's rows behind the other's, d_in the width of the layer's input:
//
//     layers.N.router.weight           LINEAR, KERNEL (the centres) (E, d_in); ADDITIVE,
//                                      MULTIPLICATIVE (d_score, d_in); ONE (1, d_in); SUM (E, 1)
//     layers.N.router.bias             LINEAR (1, E); ONE (1, 1); with layer->router_bias
//     layers.N.router.keys             ADDITIVE, MULTIPLICATIVE: the u_e (E, d_score)
//     layers.N.router.vector           ADDITIVE: v (1, d_score)
//     layers.N.router.noise            W_noise of `noisy` (E, d_in)
//     layers.N.router.selection_bias   (1, E)
//     layers.N.query.weight, .bias     (E d_query, d_in), (1, E d_query): query e's rows are
//                                      e d_query .. (e + 1) d_query - 1
//     layers.N.experts.gate.weight, .experts.up.weight (E d_ff, d)  .bias (E, d_ff); d = d_in, or
//                                      d_query
//     layers.N.experts.down.weight     (E d_out, d_ff)  .bias (E, d_out)
//     layers.N.experts.weight, .bias   expert_kind linear: (E d_out, d), (E, d_out)
//     layers.N.combine.weight, .bias   STACK: v (E, 1), c (1, d_out)
//     layers.N.shared.gate.weight, .shared.up.weight (d_shared_ff, d_in)  .bias (1, d_shared_ff)
//     layers.N.shared.down.weight      (d_out, d_shared_ff)  .bias (1, d_out)
//     layers.N.shared.gate_vector      (1, d_in)
//     layers.N.weight, .bias           of linear: (d_out, d_in), (1, d_out)
//     layers.N.gain, .bias             of norm: (1, d_in) each
//     layers.N.table                   of embed: (n_rows, d_out)

enum vkmoe_net_kind {
    VKMOE_NET_MOE = 0,     // experts
    VKMOE_NET_LINEAR = 1,  // y = act(W x + b)
    VKMOE_NET_NORM = 2,    // layer norm or RMS norm over the row, times gain [+ bias]
    VKMOE_NET_POOL = 3,    // tokens of an example -> one row
    VKMOE_NET_DROPOUT = 4,
    VKMOE_NET_EMBED = 5,   // token number -> row of a table; only as the first layer
};

// What the router of a moe layer scores by. l_e is the score (logit) of expert e.
enum vkmoe_scorer {
    VKMOE_SCORER_LINEAR = 0,         // l_e = w_e x + b_e
    VKMOE_SCORER_KERNEL = 1,         // l_e = -|x - c_e|^2 / (2 score_width^2), c_e learned: softmax
                                     // of it is a normalised radial basis network
    VKMOE_SCORER_ADDITIVE = 2,       // l_e = v . tanh(W x + u_e), d_score wide
    VKMOE_SCORER_MULTIPLICATIVE = 3, // l_e = (W x) . u_e, d_score wide
    VKMOE_SCORER_ONE = 4,            // one unit for all experts: l_e = w x + b
    VKMOE_SCORER_SUM = 5,            // l_e = w_e sum_j x_j
};

// How a moe layer makes y of the outputs r_k of its experts.
enum vkmoe_combine {
    VKMOE_COMBINE_WEIGHTED_SUM = 0,   // by gate weights
    VKMOE_COMBINE_MEAN = 1,           // no router: the mean of all experts
    VKMOE_COMBINE_STACK = 2,          // no router: sum_k v_k r_k + c; v, c learned, v begins at 1/E
    VKMOE_COMBINE_RESPONSE_SHARE = 3, // no router: w_k = |r_k|_1 / (sum_j |r_j|_1 + 1e-12), 1/E
                                      // when all are 0
    VKMOE_COMBINE_ATTENTION = 4,      // no router: w = softmax(r_k . mean_j r_j / sqrt d_out)
    VKMOE_COMBINE_VOTE = 5,           // evaluation only: the class most experts speak for, one-hot;
                                      // ties to the lower class. Trains as MEAN
};

// Queries: before the experts q = W_q x + b_q makes n_experts queries, d_query wide each, which the
// experts get instead of x.
enum vkmoe_pairing {
    VKMOE_PAIRING_NONE = 0, // no queries
    VKMOE_PAIRING_EACH = 1, // query i goes to expert i
    VKMOE_PAIRING_ALL = 2,  // every query goes to every expert; the outputs of an expert are
                            // averaged over the queries
};

enum vkmoe_pool {
    VKMOE_POOL_MEAN = 0, // an example without tokens gives 0
    VKMOE_POOL_SUM = 1,
    VKMOE_POOL_MAX = 2,
};

// One layer. Its input is the output of the layer before, d_in wide.
typedef struct vkmoe_net_layer {
    size_t struct_size;
    enum vkmoe_net_kind kind;
    bool residual;  // y = x + layer(x); widths must agree. Not for pool and embed

    // MOE. layer->d_model must be d_in (with queries: d_query); stored types are ignored. Computed
    // here, though not by plans yet: expert_kind linear, score none.
    // With a combine that has no router top_k is n_experts, or 0, which means the same. Linear
    // experts have no d_ff, and up_bias as their bias. Queries need a combine without a router.
    const vkmoe_layer_desc *layer;
    enum vkmoe_scorer scorer;
    uint32_t d_score;       // ADDITIVE, MULTIPLICATIVE
    float score_width;      // KERNEL; init sets 1
    enum vkmoe_combine combine;
    enum vkmoe_pairing pairing;
    uint32_t d_query;
    bool noisy;             // training: l + n softplus(W_noise x), n of N(0, 1) (Shazeer et al.
                            // 2017); what l is to the losses below, too
    float hidden_dropout;   // training: of h, in [0, 1)
    float load_balance;     // coefficient of E sum_e c_e / (K T) mean_t P_te; 0: none
    float z_loss;           // coefficient of mean_t logsumexp(l_t)^2
    float bias_rate;        // needs layer->selection_bias: after a step
                            // b_e += bias_rate sign(mean c - c_e) (loss-free balancing)
    bool recompute;         // pre-activations are computed again in the backward pass, not kept

    // LINEAR
    uint32_t d_out;         // EMBED too
    enum vkmoe_act act;
    bool bias;              // NORM too
    // NORM
    bool rms;
    float eps;              // init sets 1e-5
    // POOL
    enum vkmoe_pool pool;
    // DROPOUT
    float rate;             // in [0, 1)
    // EMBED
    uint32_t n_rows;        // of the table
} vkmoe_net_layer;

static inline vkmoe_net_layer vkmoe_net_layer_init(void)
{
    vkmoe_net_layer layer;
    memset(&layer, 0, sizeof layer);
    layer.struct_size = sizeof layer;
    layer.score_width = 1.0f;
    layer.eps = 1e-5f;
    return layer;
}

enum vkmoe_loss {
    VKMOE_LOSS_CROSS_ENTROPY = 0, // of softmax(y) and labels, or shares in `targets`
    // The next four are means over the outputs.
    VKMOE_LOSS_BCE = 1,           // binary cross entropy; y are probabilities
    VKMOE_LOSS_BCE_LOGITS = 2,
    VKMOE_LOSS_MSE = 3,
    VKMOE_LOSS_HUBER = 4,
    VKMOE_LOSS_MIXTURE = 5,       // -log sum_i g_i p_i(t | x) over the experts of the last layer, a
                                  // moe layer of weighted_sum; p_i = softmax of the expert's output
                                  // for labels, a Gaussian of `variance` around it for targets
                                  // (Jacobs, Jordan, Nowlan, Hinton 1991)
};

enum vkmoe_optimiser {
    VKMOE_OPTIMISER_SGD = 0,
    VKMOE_OPTIMISER_ADAM = 1,  // decay is added to the gradient
    VKMOE_OPTIMISER_ADAMW = 2, // decay is decoupled
};

// Parameters whose name matches get their own rate and decay; the first match counts.
typedef struct vkmoe_net_group {
    const char *match;  // part of the name, as ".router."
    float rate_scale;
    float decay;
} vkmoe_net_group;

typedef struct vkmoe_net_desc {
    size_t struct_size;
    const vkmoe_net_layer *const *layers; // (n_layers)
    uint32_t n_layers;
    uint32_t d_in;          // width of x; with EMBED 1: x is token numbers
    uint32_t max_tokens;    // of a batch
    uint32_t max_examples;  // of a batch; 0: max_tokens
    float input_noise;      // training: x + input_noise n, n of N(0, 1)
    bool evaluation_only;   // neither gradients nor optimiser

    enum vkmoe_loss loss;
    float label_smoothing;  // CROSS_ENTROPY
    const float *class_weights; // (d_out of the net), CROSS_ENTROPY; copied. The loss of labels is
                            // then divided by the sum of their weights, as in PyTorch
    bool soft_targets;      // CROSS_ENTROPY: targets are shares (n_examples, d_out), not labels
    bool labels;            // MIXTURE: targets are labels
    float huber_delta;      // init sets 1
    float variance;         // MIXTURE; init sets 1

    enum vkmoe_optimiser optimiser;
    float momentum;         // SGD
    bool nesterov;
    float beta1, beta2, adam_eps; // init sets 0.9, 0.999, 1e-8; adam_eps is above 0
    float decay;            // of matrices; biases, gains and the router's noise have none
    float clip_norm;        // gradients are scaled to this global norm at most; 0: never
    const vkmoe_net_group *groups; // (n_groups), copied
    uint32_t n_groups;

    // How weights of linear layers, experts (the shared one too) and queries are multiplied by: F16
    // and BF16 round them to nearest even. What is read, written and updated stays f32, the master:
    // a step far smaller than the spacing of a 16-bit type adds up there. Activations, gradients
    // and moments are f32, so that no gradient can underflow and there is no loss scaling.
    enum vkmoe_dtype weight_type;

    // Vulkan: force a kernel variant of products by name or kind, as plan.variant does: "a0",
    // "net-a0n" (the same bits without shared memory), "net-a3" (cooperative matrices: precision
    // HALF; "net-a3b" to "net-a3d": other shapes of them) or "net-a4" (the same by matrices of any
    // size; "net-a4b": in other units). NULL: the best that is allowed and was not found bad or
    // slow.
    const char *variant;
    // HALF lets products with the weights that weight_type speaks of, their gradients too, round
    // both operands to f16, where each row (of a matrix's gradient each column) is scaled by a
    // power of two of its own: nothing is too large or too small, f32 sums, f32 results. What is
    // below 2^-22 of its row's largest may become 0. All else stays EXACT, and so do devices
    // without such kernels. INT8: there is none.
    enum vkmoe_precision precision;
} vkmoe_net_desc;

static inline vkmoe_net_desc vkmoe_net_desc_init(void)
{
    vkmoe_net_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    desc.huber_delta = desc.variance = 1.0f;
    desc.beta1 = 0.9f;
    desc.beta2 = 0.999f;
    desc.adam_eps = 1e-8f;
    return desc;
}

typedef struct vkmoe_net vkmoe_net;

// Compiles a network for the context's device and allocates all it needs. The context is borrowed
// until the net is destroyed, all else for the call. Parameters are zero (gains, and v of STACK,
// are not): vkmoe_net_init or vkmoe_net_write comes next.
// VKMOE_E_ARGUMENT, VKMOE_E_SHAPE, VKMOE_E_UNSUPPORTED: the text names layer and field.
// Threads: a net is used by one thread at a time.
VKMOE_API enum vkmoe_status vkmoe_net_create(vkmoe_context *context, const vkmoe_net_desc *desc,
                                             vkmoe_net **out);
VKMOE_API void vkmoe_net_destroy(vkmoe_net *net);

// Fills the parameters with random numbers: matrices and biases of U(-1, 1) / sqrt(inputs), tables
// of N(0, 1) * 0.1, zero for W_noise; and clears the optimiser. Same seed, same bits, any device.
VKMOE_API enum vkmoe_status vkmoe_net_init(vkmoe_net *net, uint64_t seed);

// ---- parameters ----

enum vkmoe_net_what {
    VKMOE_NET_VALUE = 0,
    VKMOE_NET_GRADIENT = 1,
    VKMOE_NET_MOMENT1 = 2, // the optimiser's; of parameters that have it
    VKMOE_NET_MOMENT2 = 3,
};

// A parameter: a tensor of a model file (see vkmoe/model.h), or a selection bias, which has no
// gradient and no moments.
typedef struct vkmoe_net_param {
    const char *name;      // borrowed from the net
    uint32_t rows, width;  // n_rows as all experts' rows together
    bool has_gradient, has_moment1, has_moment2;
} vkmoe_net_param;

VKMOE_API uint32_t vkmoe_net_param_count(const vkmoe_net *net);
// VKMOE_E_ARGUMENT: no such parameter.
VKMOE_API enum vkmoe_status vkmoe_net_get_param(const vkmoe_net *net, uint32_t i,
                                                vkmoe_net_param *out);
// Copies a parameter, its gradient or a moment. n: elements of `data`, all of them.
// VKMOE_E_ARGUMENT: no such name, or it has none.  VKMOE_E_SHAPE: another number of elements.
VKMOE_API enum vkmoe_status vkmoe_net_read(vkmoe_net *net, enum vkmoe_net_what what,
                                           const char *name, float *data, uint64_t n);
VKMOE_API enum vkmoe_status vkmoe_net_write(vkmoe_net *net, enum vkmoe_net_what what,
                                            const char *name, const float *data, uint64_t n);

// Where the net stands besides its parameters: what a checkpoint has to keep.
typedef struct vkmoe_net_state {
    uint64_t seed;   // of noise and dropout; vkmoe_net_init sets it
    uint32_t pass;   // forward passes for training so far
    uint32_t steps;  // steps so far
} vkmoe_net_state;

VKMOE_API enum vkmoe_status vkmoe_net_get_state(const vkmoe_net *net, vkmoe_net_state *out);
VKMOE_API enum vkmoe_status vkmoe_net_set_state(vkmoe_net *net, const vkmoe_net_state *state);

// ---- running ----

// Host memory of one batch, borrowed for the call.
typedef struct vkmoe_net_batch {
    size_t struct_size;
    uint32_t n_tokens;        // 1..max_tokens
    uint32_t n_examples;      // 1..max_examples; without POOL each token is an example: n_tokens,
                              // or 0, which means the same
    const float *x;           // (n_tokens, d_in)
    const int32_t *token_ids; // (n_tokens), with EMBED instead of x
    const int32_t *offsets;   // (n_examples + 1), with POOL: tokens of example i are offsets[i] ..
                              // offsets[i + 1] - 1; from 0 to n_tokens, ascending
    const int32_t *labels;    // (n_examples), losses of labels
    const float *targets;     // (n_examples, d_out), other losses. BCE: (n_examples, d_out) of 0..1
} vkmoe_net_batch;

static inline vkmoe_net_batch vkmoe_net_batch_init(void)
{
    vkmoe_net_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.struct_size = sizeof batch;
    return batch;
}

// Runs the net for training and keeps what backward needs, on the device. Labels and targets may be
// NULL when no backward follows.
VKMOE_API enum vkmoe_status vkmoe_net_forward(vkmoe_net *net, const vkmoe_net_batch *batch);

// Loss and gradients of the last vkmoe_net_forward. Since the last step gradients add up.
//   n_micro  batches of this step in all: gradients and losses are divided by it
//   loss     the batch's mean loss, auxiliary losses included, / n_micro; NULL: not read back
VKMOE_API enum vkmoe_status vkmoe_net_backward(vkmoe_net *net, uint32_t n_micro, double *loss);

// One step of the optimiser with the gradients so far. With a loss or gradient that is not finite
// nothing changes: VKMOE_E_DATA, and the text names the first such tensor.
VKMOE_API enum vkmoe_status vkmoe_net_step(vkmoe_net *net, float rate);

// All three in one submission. loss as vkmoe_net_backward.
VKMOE_API enum vkmoe_status vkmoe_net_train(vkmoe_net *net, const vkmoe_net_batch *batch,
                                            float rate, double *loss);

// Runs the net for evaluation: no noise, no dropout.
//   y     (n_examples, d_out) out; or NULL
//   loss  mean loss without auxiliary losses; needs labels or targets; or NULL
VKMOE_API enum vkmoe_status vkmoe_net_eval(vkmoe_net *net, const vkmoe_net_batch *batch, float *y,
                                           double *loss);

// Of the last vkmoe_net_eval: which experts a moe layer used. Rows are tokens; behind POOL,
// examples.
//   ids    (n_rows, top_k), descending; NULL: not wanted
//   gates  (n_rows, top_k) their gate weights; NULL: not wanted
// RESPONSE_SHARE and ATTENTION have the weights of all experts, 0 .. n_experts - 1 in this order.
// VKMOE_E_ARGUMENT: layer `layer` is not of that kind.
VKMOE_API enum vkmoe_status vkmoe_net_routing(vkmoe_net *net, uint32_t layer, int32_t *ids,
                                              float *gates);

// Bytes on the device: parameters, their rounded copies, gradients and moments; what one batch
// needs besides.
VKMOE_API enum vkmoe_status vkmoe_net_get_size(const vkmoe_net *net, uint64_t *persistent,
                                               uint64_t *batch);

#ifdef __cplusplus
}
#endif
#endif
