// SPDX-License-Identifier: MIT
// vkmoe models: files with whole models in them, data sets, and how good a model is.
// The rules of vkmoe.h hold here too. This part is the library libvkmoe-model.
//
//     vkmoe_model *model;  vkmoe_session *session;
//     vkmoe_model_open(NULL, "digits-moe.safetensors", &model);
//     vkmoe_session_create(context, model, NULL, &session);
//     vkmoe_session_run(session, n_rows, &io);
//
// A model file is a safetensors file whose __metadata__ has `format` = "vkmoe-model/1" and a JSON
// text, `config`. Keys without a default are needed; unknown keys are errors.
//
//     format    "vkmoe-model/1"; may be left out
//     task      "classify" | "regress"
//     classes   names of the classes, in the order of the outputs; classify only
//     input     kind        "none" | "standardize": (x - mean) / std, tensors input.mean, input.std
//                           | "minmax": (x - min) / (max - min), tensors input.min, input.max
//               n_features  of a row; with a pool layer an example is a sequence of rows
//     input     kind        "embed": a text is a sequence of tokens, each a row of a table; needs a
//                           pool layer | "embed_bag": a text is the mean of its tokens' rows
//               d_out       width of a row of the table
//               ngrams      which pieces of the text are tokens: lists of n = 1..8
//                           {"byte": [n, ..], "character": [n, ..], "word": [n, ..]}
//               n_buckets   rows of the table; a token's row is its hash
//               vocabulary  instead of n_buckets: a list of pieces; piece i has row i + 1, all
//                           others have row 0
//               lower       (false) A to Z become a to z
//               max_tokens  (1024) of a text; tokens behind them are left out
//     layers[]  kind        "moe" | "linear" | "norm" | "pool" | "dropout"
//               d_in        (what the layer before gives)
//               residual    (false) y = x + layer(x); not for pool
//      moe      d_ff, d_out (d_in), n_experts, top_k
//               router      score           "softmax" | "sigmoid" | "none"
//                           order           "score_then_topk" | "topk_then_score" (the score of the
//                                           selected logits alone)
//                           renormalize     (false) gate weights are divided by their sum + eps
//                           eps             (0) needs renormalize
//                           routed_scale    (1)
//                           bias            (false) added to the logits
//                           selection_bias  (false) added for the selection only
//                           scorer          ("linear") | "kernel" | "additive" | "multiplicative" |
//                                           "one" | "sum": see enum vkmoe_scorer
//                           d_score         additive and multiplicative
//                           score_width     (1) kernel
//                           noisy           (false) training: noise on the logits, learned
//                           load_balance, z_loss (0) training: coefficients of auxiliary losses
//                           bias_rate       (0) training: needs selection_bias
//               expert      kind            ("mlp") | "linear": act(W x + b), without d_ff
//                           gated           (false) h = act(gate x) * (up x), else h = act(up x)
//                           activation, output_activation ("none"; mlp only)
//                                           "none" "silu" "gelu_erf" "gelu_tanh" "relu" "relu2"
//                                           "sigmoid" "tanh"
//                           bias            (false) of gate, up and down; of linear
//                           dropout         (0) training: of h
//               shared      an expert that every row uses; left out: none
//                           d_ff
//                           gate            ("none") | "sigmoid"
//               combine     ("weighted_sum") | "mean" | "stack" | "response_share" | "attention" |
//                           "vote": see enum vkmoe_combine; with these every expert works, so
//                           top_k and router are left out
//               queries     left out: none; needs a combine without a router
//                           pairing         "each" | "all": see enum vkmoe_pairing
//                           d_query
//               recompute   (false) training: see struct vkmoe_net_layer
//      moe      layer       instead of all of these but d_in and residual: an object with fields of
//                           vkmoe_layer_desc by name, as in vkmoe_layer_parse; types are left to
//                           the tensors. Layers with inputs or tensors that sessions do not pass
//                           on run alone, by vkmoe_checkpoint_load
//      linear   d_out, activation ("none"), bias (true)
//      norm     rms (false), bias (true without rms), eps (1e-5)
//      pool     pool        "mean" | "sum" | "max"; one at most, none with embed_bag
//      dropout  rate        0 up to 1
//     head      "softmax" | "sigmoid" | "identity"; for classify identity says that the last layer
//               gives probabilities already; softmax only for classify
//
// Tensors of layer N, in F32, F16 or BF16; gate and up have one type, down may have another, and
// the shared expert its own two:
//
//     layers.N.router.weight (n_experts, d_in)   .router.bias, .router.selection_bias (n_experts)
//     layers.N.experts.gate.weight, .experts.up.weight (n_experts, d_ff, d_in)
//     layers.N.experts.gate.bias, .experts.up.bias (n_experts, d_ff)
//     layers.N.experts.down.weight (n_experts, d_out, d_ff)   .bias (n_experts, d_out)
//     layers.N.shared.gate.weight, .shared.up.weight (shared.d_ff, d_in)
//     layers.N.shared.gate.bias, .shared.up.bias (shared.d_ff)
//     layers.N.shared.down.weight (d_out, shared.d_ff)   .bias (d_out)
//     layers.N.shared.gate_vector (d_in)
//
// Only of a layer in full: gate_vector (2, d_in) and shared.gate_vector.bias (1) or (2),
// router.expert_scale (n_experts + n_zero), router.prenorm_scale (d_in), router.table (n_token_ids,
// top_k) in I32, latent.down.weight (d_latent, d_in), latent.up.weight (d_out, d_latent),
// latent.norm (d_latent), out_bias (d_out), adjugate.{gate,up,down} as experts, of d_adjugate.
// Experts are d_latent wide outside where that is not 0.
//
// Matrices of experts (routed, shared, adjugate) and latent ones may have a type of blocks: a U8
// tensor whose last dimension is the bytes of a row of whole blocks as in enum vkmoe_dtype. Its
// type is in __metadata__.types, a JSON text: {"layers.0.experts.up.weight": "q8_0"}.
//
// Tokens of a text. First it is normalised: with `lower` A to Z become a to z, a space is put in
// front and behind, then every run of white space (bytes 9 to 13 and 32) becomes one space. Units:
// each byte; each character, which is a valid UTF-8 sequence or else a byte; each word, a longest
// run of bytes above 127, ASCII letters, digits and "_". A piece of n is n neighbouring units;
// words are joined by one space each. Pieces come in the order of their first byte, then byte
// before character before word, then by n. A text without one has a single token: row 0. The row of
// a piece by hash: h is the FNV-1a hash, 64 bits (offset 14695981039346656037, prime 1099511628211)
// of one byte for the unit ("b", "c", "w") and the piece's bytes; the row is (h ^ h >> 32) mod
// n_buckets.
#ifndef VKMOE_MODEL_H
#define VKMOE_MODEL_H

#include <vkmoe/train.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- models ----------------------------------------------------------------------------------

typedef struct vkmoe_model vkmoe_model;

enum vkmoe_task {
    VKMOE_TASK_CLASSIFY = 0,
    VKMOE_TASK_REGRESS = 1,
};

enum vkmoe_input {
    VKMOE_INPUT_NONE = 0,
    VKMOE_INPUT_STANDARDIZE = 1,
    VKMOE_INPUT_MINMAX = 2,
    VKMOE_INPUT_EMBED = 3,     // texts: a row of a table for each token
    VKMOE_INPUT_EMBED_BAG = 4, // texts: the mean of the rows of their tokens
};

enum vkmoe_head {
    VKMOE_HEAD_IDENTITY = 0,
    VKMOE_HEAD_SOFTMAX = 1,
    VKMOE_HEAD_SIGMOID = 2,
};

typedef struct vkmoe_model_info {
    enum vkmoe_task task;
    enum vkmoe_input input;
    enum vkmoe_head head;
    uint32_t n_features; // of a row; 0: texts
    uint32_t n_layers;
    uint32_t n_outputs; // width of the last layer
    uint32_t n_classes; // classify: n_outputs, or 2 with one output; else 0
} vkmoe_model_info;

// Opens a model file and checks all of it. A tensor with NaN in it is a warning in the log.
//   host   services, copied; NULL: the library's own
// VKMOE_E_IO, VKMOE_E_DATA: the file cannot be read, or is wrong.  VKMOE_E_UNSUPPORTED: a part of
// the format that this version does not compute.
VKMOE_API enum vkmoe_status vkmoe_model_open(const vkmoe_host *host, const char *path,
                                             vkmoe_model **out);
VKMOE_API void vkmoe_model_destroy(vkmoe_model *model);

VKMOE_API enum vkmoe_status vkmoe_model_get_info(const vkmoe_model *model, vkmoe_model_info *out);

// Name of a class, borrowed until the model is destroyed; NULL when there is no such class.
VKMOE_API const char *vkmoe_model_class(const vkmoe_model *model, uint32_t i);

// The experts of a layer. VKMOE_E_ARGUMENT: no such layer, or it has none.
VKMOE_API enum vkmoe_status vkmoe_model_layer(const vkmoe_model *model, uint32_t i,
                                              vkmoe_layer_desc *out);

// A layer of any kind; out->layer is borrowed until the model is destroyed. VKMOE_E_ARGUMENT: no
// such layer.
VKMOE_API enum vkmoe_status vkmoe_model_net_layer(const vkmoe_model *model, uint32_t i,
                                                  vkmoe_net_layer *out);

// Width of a layer's input; 0: no such layer.
VKMOE_API uint32_t vkmoe_model_layer_d_in(const vkmoe_model *model, uint32_t i);

// Are the rows of this layer tokens, several to an example? So in front of a pool layer.
VKMOE_API bool vkmoe_model_is_by_token(const vkmoe_model *model, uint32_t layer);

// Cuts texts into tokens, for models with an input of texts.
//   texts      (n) zero-terminated; UTF-8 where characters count
//   offsets    (n + 1) out: tokens of text i are offsets[i] .. offsets[i + 1] - 1, one at least
//   token_ids  (offsets[n]) out; or NULL: only offsets are wanted
VKMOE_API enum vkmoe_status vkmoe_model_tokens(const vkmoe_model *model, uint32_t n,
                                               const char *const *texts, int32_t *offsets,
                                               int32_t *token_ids);

// ---- sessions --------------------------------------------------------------------------------

// A model, or one layer of it, ready to run on a device.
typedef struct vkmoe_session vkmoe_session;

// Which experts of a layer run. What `residual` adds stays.
enum vkmoe_experts {
    VKMOE_EXPERTS_ALL = 0,
    VKMOE_EXPERTS_ONE = 1,   // all of the gate weight goes to one, on every row: routed_scale times
                             // its output; a shared expert runs as before
    VKMOE_EXPERTS_ALONE = 2, // the layer's output is that of one expert: neither gate weight nor
                             // shared expert
};

typedef struct vkmoe_session_desc {
    size_t struct_size;
    uint32_t max_rows;   // largest n_rows of a run; init sets 1024
    bool one_layer;      // only layer `layer`, fed as it is: neither input scaling nor head
    uint32_t layer;
    enum vkmoe_precision precision; // of every layer; x and y are f32. Other than exact only where
                                    // all layers are moe layers that a vkmoe_plan computes
    uint32_t max_tokens; // of the longest example, where an example is a sequence; 0: 4096,
                         // max_rows or a text's max_tokens, whichever is most. More need memory
                         // and save time
    enum vkmoe_experts experts; // of layer `layer`, also without one_layer
    uint32_t expert;            // the one; its id in vkmoe_session_io.ids is then 0
    const char *variant; // of every layer, as in vkmoe_plan_desc. Other than NULL only where
                         // all layers are moe layers that a vkmoe_plan computes
} vkmoe_session_desc;

static inline vkmoe_session_desc vkmoe_session_desc_init(void)
{
    vkmoe_session_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    desc.max_rows = 1024;
    return desc;
}

// Uploads the weights and compiles the layers. desc may be NULL. Model and context are borrowed
// until the session is destroyed. Threads: a session is used by one thread at a time.
VKMOE_API enum vkmoe_status vkmoe_session_create(vkmoe_context *context, const vkmoe_model *model,
                                                 const vkmoe_session_desc *desc,
                                                 vkmoe_session **out);
VKMOE_API void vkmoe_session_destroy(vkmoe_session *session);

// Does a session give layer i all that it needs? Some moe layers have inputs or tensors that
// sessions do not pass on: such a layer runs alone, by vkmoe_checkpoint_load. Also false: there is
// no layer i.
VKMOE_API bool vkmoe_session_runs_layer(const vkmoe_model *model, uint32_t i);

// Host memory of one run; rows follow each other. Outputs may be NULL. A row is an example, but
// examples are sequences of tokens in a model with a pool layer or an input of texts: then x,
// token_ids and the routing of layers in front of the pool have a row for each token.
typedef struct vkmoe_session_io {
    size_t struct_size;
    const float *x;   // (n_rows, n_features), or (n_rows, d_in) with one_layer; NULL for texts
    float *y;         // (n_rows, n_outputs) out: the last layer's output, before the head
    float *scores;    // (n_rows, n_outputs) out: after the head
    uint32_t layer;   // whose routing is wanted
    int32_t *ids;     // (n_rows, top_k) out: its experts, descending; where all work, as with every
                      // combine but weighted_sum, they may come in their own order
    float *gates;     // (n_rows, top_k) out: their gate weights
    const int32_t *offsets;   // (n_rows + 1), of sequences: tokens of example i are offsets[i] ..
                              // offsets[i + 1] - 1, at least one
    const int32_t *token_ids; // (offsets[n_rows]), of texts: what vkmoe_model_tokens gives
    const char *const *texts; // (n_rows), instead of offsets and token_ids
    float *layer_x;   // (n_rows, d_model) out: what the layer was given; see
                      // vkmoe_session_gives_layer_x
} vkmoe_session_io;

static inline vkmoe_session_io vkmoe_session_io_init(void)
{
    vkmoe_session_io io;
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    return io;
}

// Can vkmoe_session_io.layer_x be had of this layer? Of the first one, unless its input is text;
// where vkmoe_plans compute the layers, of all.
VKMOE_API bool vkmoe_session_gives_layer_x(const vkmoe_session *session, uint32_t layer);

VKMOE_API enum vkmoe_status vkmoe_session_run(vkmoe_session *session, uint32_t n_rows,
                                              const vkmoe_session_io *io);

// ---- data sets -------------------------------------------------------------------------------

// Rows of a file, streamed: memory does not grow with the file.
//   .csv          `#` comments, optional header; targets among the columns
//   .tsv          texts: label<TAB>text, UTF-8, one a line
//   .npy          (rows, features), or sequences (rows, steps, features); targets in a second file
//                 beside it, named with Y or y where this one begins with X or x
//   .safetensors  its only tensor (rows, features) in F32, F16 or BF16; no targets
typedef struct vkmoe_dataset vkmoe_dataset;

enum vkmoe_targets {
    VKMOE_TARGETS_NONE = 0,
    VKMOE_TARGETS_LABELS = 1, // class names; class numbers from 0 in .npy
    VKMOE_TARGETS_VALUES = 2,
    VKMOE_TARGETS_IGNORE = 3, // targets may be there, and are not read. Needs n_features or texts:
                              // a .csv with so many columns has none; a .tsv has none when there is
                              // no tab in its first line
};

typedef struct vkmoe_dataset_desc {
    size_t struct_size;
    const vkmoe_host *host;     // copied; NULL: the library's own
    enum vkmoe_targets targets;
    const char *const *classes; // (n_classes), for labels; copied
    uint32_t n_classes;
    uint32_t n_features;        // what the rows must have; 0: any number
    uint32_t n_targets;         // for values, likewise
    const char *target;         // .csv: "COL[,COL]", names or numbers from 1; NULL: the last column
    bool texts;                 // it must have texts; n_features is 0
    bool sequences;             // it may have sequences: see vkmoe_dataset_info.n_steps
} vkmoe_dataset_desc;

static inline vkmoe_dataset_desc vkmoe_dataset_desc_init(void)
{
    vkmoe_dataset_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

typedef struct vkmoe_dataset_info {
    uint32_t n_features;
    uint32_t n_targets; // 1 for labels
    uint64_t n_rows;    // 0: not known yet (.csv, .tsv)
    uint32_t n_steps;   // of a sequence; 0: an example is a single row of features
    bool is_text;       // n_features is 0
} vkmoe_dataset_info;

// Opens a data set. VKMOE_E_DATA names the line and the column, VKMOE_E_SHAPE the two widths.
VKMOE_API enum vkmoe_status vkmoe_dataset_open(const char *path, const vkmoe_dataset_desc *desc,
                                               vkmoe_dataset **out);
VKMOE_API void vkmoe_dataset_destroy(vkmoe_dataset *dataset);
VKMOE_API enum vkmoe_status vkmoe_dataset_get_info(const vkmoe_dataset *dataset,
                                                   vkmoe_dataset_info *out);

// Name of a feature in the header of a .csv, borrowed until the data set is destroyed; NULL when
// there is none.
VKMOE_API const char *vkmoe_dataset_feature(const vkmoe_dataset *dataset, uint32_t i);

// Reads the next rows.
//   n        in: room in rows; out: how many were read, 0 at the end
//   x        (n, n_features), or (n, n_steps, n_features)
//   labels   (n) class numbers; needed when the data set has labels, else NULL
//   values   (n, n_targets); needed when the data set has values, else NULL
VKMOE_API enum vkmoe_status vkmoe_dataset_read(vkmoe_dataset *dataset, uint32_t *n, float *x,
                                               int32_t *labels, float *values);

// The same for texts: (n) zero-terminated ones, borrowed until the next call or the data set's end.
VKMOE_API enum vkmoe_status vkmoe_dataset_read_texts(vkmoe_dataset *dataset, uint32_t *n,
                                                     const char **texts, int32_t *labels,
                                                     float *values);

// ---- metrics ---------------------------------------------------------------------------------

// Sums over rows as they come, in f64.
typedef struct vkmoe_metrics vkmoe_metrics;

typedef struct vkmoe_metrics_summary {
    uint64_t n;
    double loss;     // classify: mean cross entropy, which is binary and a mean over the outputs
                     // with a sigmoid head, binary with a single output; regress: mean square error
    double accuracy; // classify, else NaN
    double rmse, r2; // regress, else NaN; r2 is the mean over outputs, NaN if a target is constant
} vkmoe_metrics_summary;

typedef struct vkmoe_class_metrics {
    uint64_t n; // rows of this class
    double precision, recall, f1; // 0 where the quotient has no denominator
} vkmoe_class_metrics;

// For a model and one of its layers, whose experts' load is counted if it has any.
VKMOE_API enum vkmoe_status vkmoe_metrics_create(const vkmoe_model *model, uint32_t layer,
                                                 vkmoe_metrics **out);
VKMOE_API void vkmoe_metrics_destroy(vkmoe_metrics *metrics);

//   y        (n_rows, n_outputs) from vkmoe_session_run, before the head
//   labels   (n_rows), classify      values  (n_rows, n_outputs), regress
//   ids      (n_rows, top_k), or NULL; not of a layer whose rows are tokens
VKMOE_API enum vkmoe_status vkmoe_metrics_add(vkmoe_metrics *metrics, uint32_t n_rows,
                                              const float *y, const int32_t *labels,
                                              const float *values, const int32_t *ids);

// Counts slots of the layer only: ids (n_rows, top_k).
VKMOE_API enum vkmoe_status vkmoe_metrics_add_routing(vkmoe_metrics *metrics, uint64_t n_rows,
                                                      const int32_t *ids);
VKMOE_API enum vkmoe_status vkmoe_metrics_get(const vkmoe_metrics *metrics,
                                              vkmoe_metrics_summary *out);
VKMOE_API enum vkmoe_status vkmoe_metrics_class(const vkmoe_metrics *metrics, uint32_t i,
                                                vkmoe_class_metrics *out);

// Slots that each expert of the layer served, (n_experts), borrowed until the metrics are
// destroyed. NULL: it has no experts.
VKMOE_API const uint64_t *vkmoe_metrics_load(const vkmoe_metrics *metrics);

// The class that a row's outputs before the head speak for; -1 when they are all NaN.
VKMOE_API int32_t vkmoe_predict_class(const vkmoe_model *model, const float *y);

// ---- gradients -------------------------------------------------------------------------------

// Gradients of sum(dy * y) of one layer, summed over rows as they come, and a safetensors file of
// them in F32: `x` (n_rows, d_in) and the layer's tensors with the names and shapes that they have
// in a model file behind "layers.N.". There is none for router.selection_bias. See vkmoe/train.h.
typedef struct vkmoe_gradients vkmoe_gradients;

// For a session with one_layer, borrowed until the gradients are destroyed. Fails now, not after
// the work: when `path` cannot be written, and with VKMOE_E_UNSUPPORTED when the session's weights
// cannot be read back.
VKMOE_API enum vkmoe_status vkmoe_gradients_create(vkmoe_session *session, const char *path,
                                                   vkmoe_gradients **out);

// The same for a layer that is bound already; only bind is borrowed, host may be NULL.
// VKMOE_E_UNSUPPORTED: a layer without gradients; the text names the field.
VKMOE_API enum vkmoe_status vkmoe_gradients_create_bound(const vkmoe_host *host, vkmoe_bind *bind,
                                                         const vkmoe_layer_desc *layer,
                                                         const char *path, vkmoe_gradients **out);

// Runs the layer forward and backward on the next rows. Memory grows with the rows, by x.
//   io   as for vkmoe_run, in f32, but that y may be NULL
//   dy   (n_rows, d_out)
VKMOE_API enum vkmoe_status vkmoe_gradients_add(vkmoe_gradients *gradients, uint32_t n_rows,
                                                const vkmoe_io *io, const float *dy);

// Writes the file, whole; the gradients still have to be destroyed.
VKMOE_API enum vkmoe_status vkmoe_gradients_finish(vkmoe_gradients *gradients);

// Without vkmoe_gradients_finish nothing is left.
VKMOE_API void vkmoe_gradients_destroy(vkmoe_gradients *gradients);

// ---- array files -----------------------------------------------------------------------------

// A .npy file written row by row. It appears when it is finished, whole, or never.
typedef struct vkmoe_array_writer vkmoe_array_writer;

enum vkmoe_array_type {
    VKMOE_ARRAY_F32 = 0,
    VKMOE_ARRAY_I32 = 1,
};

// Fails now, not after the work, when `path` cannot be written. host: copied, or NULL.
VKMOE_API enum vkmoe_status vkmoe_array_create(const vkmoe_host *host, const char *path,
                                               enum vkmoe_array_type type, uint32_t n_columns,
                                               vkmoe_array_writer **out);
VKMOE_API enum vkmoe_status vkmoe_array_append(vkmoe_array_writer *writer, uint32_t n_rows,
                                               const void *rows);

// Puts the file in place; the writer still has to be destroyed.
VKMOE_API enum vkmoe_status vkmoe_array_finish(vkmoe_array_writer *writer);

// Without vkmoe_array_finish nothing is left.
VKMOE_API void vkmoe_array_destroy(vkmoe_array_writer *writer);

// Whole numbers of a .npy file, i4 or i8 of shape (n) or (n, 1), read piece by piece.
typedef struct vkmoe_number_reader vkmoe_number_reader;

//   n_numbers  out: how many there are; or NULL
VKMOE_API enum vkmoe_status vkmoe_numbers_open(const vkmoe_host *host, const char *path,
                                               vkmoe_number_reader **out, uint64_t *n_numbers);

// Reads the next ones.
//   n  in: room; out: how many were read, 0 at the end
// VKMOE_E_DATA: one does not fit 32 bits; the text says which.
VKMOE_API enum vkmoe_status vkmoe_numbers_read(vkmoe_number_reader *reader, uint32_t *n,
                                               int32_t *out);
VKMOE_API void vkmoe_numbers_destroy(vkmoe_number_reader *reader);

// ---- other files -----------------------------------------------------------------------------

// A file of any bytes. It appears when it is finished, whole, or never.
typedef struct vkmoe_file_writer vkmoe_file_writer;

// Fails now, not after the work, when `path` cannot be written. host: copied, or NULL.
VKMOE_API enum vkmoe_status vkmoe_file_create(const vkmoe_host *host, const char *path,
                                              vkmoe_file_writer **out);
VKMOE_API enum vkmoe_status vkmoe_file_write(vkmoe_file_writer *writer, const void *data,
                                             size_t size);

// Puts the file in place; the writer still has to be destroyed.
VKMOE_API enum vkmoe_status vkmoe_file_finish(vkmoe_file_writer *writer);

// Without vkmoe_file_finish nothing is left.
VKMOE_API void vkmoe_file_destroy(vkmoe_file_writer *writer);

#ifdef __cplusplus
}
#endif
#endif
