// SPDX-License-Identifier: MIT
// Checkpoints as their authors publish them: which layers have experts, by what rule tokens go to
// them, in what form their tensors are stored, and such a layer's weights on a device.
// The rules of vkmoe.h hold here too. This part is the library libvkmoe-model.
//
//     vkmoe_checkpoint *checkpoint;  vkmoe_layer_desc layer;  vkmoe_weights *weights;
//     vkmoe_checkpoint_open("Mixtral-8x7B-v0.1", NULL, &checkpoint);
//     vkmoe_checkpoint_load(checkpoint, context, 0, NULL, &layer, &weights, NULL);
//
// An explicit description, for models of no known family, is a JSON object:
//
//     family    rules to begin with, as `assume`; or left out: then `layer` and `tensors` say all,
//               and a folder needs no config.json where `layers` is there, too
//     layers    how many the model has; only without a family
//     layer     fields of vkmoe_layer_desc by name: numbers, true and false, values of enums by the
//               last words of their name ("silu", "sqrt_softplus"); sizes, too. They overrule the
//               family and the file
//     tensors   names by part (vkmoe_part_name), in which {L} is the layer and {E} the expert:
//               "experts.up": "layers.{L}.moe.{E}.up.weight", or an object with
//                   name
//                   stack        ("none") | "first": the experts are the first dimension | "rows":
//                                the experts' rows follow each other
//                   transposed   (false) [in, out] instead of [out, in]
//                   rows         ("all") | "first" | "second" half | "even" | "odd"
#ifndef VKMOE_CHECKPOINT_H
#define VKMOE_CHECKPOINT_H

#include <vkmoe/vkmoe.h>

#ifdef __cplusplus
extern "C" {
#endif

// A model on disk. Opening reads configuration and index; tensors are read when they are asked for,
// and nothing but those of the layer in question.
typedef struct vkmoe_checkpoint vkmoe_checkpoint;

enum vkmoe_checkpoint_kind {
    VKMOE_CHECKPOINT_HF = 0,    // a folder with config.json and *.safetensors
    VKMOE_CHECKPOINT_GGUF = 1,  // a .gguf file, or any part of a split one
    VKMOE_CHECKPOINT_MODEL = 2, // a vkmoe-model file
};

typedef struct vkmoe_checkpoint_desc {
    size_t struct_size;
    const vkmoe_host *host;  // copied; NULL: the library's own
    const char *assume;      // name of a family, whatever the file says; NULL: what it says
    const char *description; // JSON text, see above; NULL: none
} vkmoe_checkpoint_desc;

static inline vkmoe_checkpoint_desc vkmoe_checkpoint_desc_init(void)
{
    vkmoe_checkpoint_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// Opens a model. desc may be NULL.
// VKMOE_E_IO: cannot be read.  VKMOE_E_DATA: not a valid model; the text names file, key or tensor.
// VKMOE_E_UNSUPPORTED: no family that we know; the text lists those.
// Threads: a checkpoint is used by one thread at a time.
VKMOE_API enum vkmoe_status vkmoe_checkpoint_open(const char *path,
                                                  const vkmoe_checkpoint_desc *desc,
                                                  vkmoe_checkpoint **out);
VKMOE_API void vkmoe_checkpoint_destroy(vkmoe_checkpoint *checkpoint);

// The texts are the checkpoint's.
typedef struct vkmoe_checkpoint_info {
    enum vkmoe_checkpoint_kind kind;
    const char *family;    // name of the rules; "description" without a family, "vkmoe-model/1"
    const char *says;      // what the file calls itself: model_type, general.architecture; or ""
    uint32_t n_layers;
} vkmoe_checkpoint_info;

VKMOE_API enum vkmoe_status vkmoe_checkpoint_get_info(const vkmoe_checkpoint *checkpoint,
                                                      vkmoe_checkpoint_info *out);

// Name of a known family, in the table's order; NULL behind the last.
VKMOE_API const char *vkmoe_family_name(uint32_t i);

// ---- layers ----------------------------------------------------------------------------------

typedef struct vkmoe_checkpoint_layer {
    bool has_experts;
    const char *reason;     // why it has none; NULL where it has. The checkpoint's
    vkmoe_layer_desc desc;  // types are what the stored ones become
    char router[256];       // its rule in words: "softmax over 8, best 2, ..."
    uint64_t file_size;     // bytes of the layer's tensors as they are stored
    uint64_t size;          // bytes of its weights in `desc`'s types
    uint64_t token_size;    // bytes of those that one token uses
    uint32_t n_tensors;     // of the file
} vkmoe_checkpoint_layer;

// What there is to know of a layer without reading weights. A layer without experts is no error.
// VKMOE_E_DATA: a tensor is missing, or its shape disagrees with the configuration.
VKMOE_API enum vkmoe_status vkmoe_checkpoint_get_layer(vkmoe_checkpoint *checkpoint, uint32_t layer,
                                                       vkmoe_checkpoint_layer *out);

// What a layer's tensors are for. Shapes of the matrices are those of vkmoe/layer.h.
enum vkmoe_part {
    VKMOE_PART_ROUTER = 0,
    VKMOE_PART_ROUTER_BIAS,
    VKMOE_PART_SELECTION_BIAS,
    VKMOE_PART_TABLE,
    VKMOE_PART_EXPERT_SCALE,
    VKMOE_PART_PRENORM_SCALE,
    VKMOE_PART_SHARED_GATE,
    VKMOE_PART_SHARED_GATE_BIAS,
    VKMOE_PART_LATENT_DOWN,
    VKMOE_PART_LATENT_UP,
    VKMOE_PART_LATENT_NORM,
    VKMOE_PART_OUT_BIAS,
    VKMOE_PART_GATE, // of the routed experts
    VKMOE_PART_UP,
    VKMOE_PART_DOWN,
    VKMOE_PART_GATE_BIAS,
    VKMOE_PART_UP_BIAS,
    VKMOE_PART_DOWN_BIAS,
    VKMOE_PART_SHARED, // plus VKMOE_PART_GATE.. - VKMOE_PART_GATE: of the shared expert
    VKMOE_PART_ADJUGATE = VKMOE_PART_SHARED + 6, // likewise
    VKMOE_N_PARTS = VKMOE_PART_ADJUGATE + 6,
};

// "router", "router.bias", "experts.gate", "shared.down.bias"; "unknown" for any other number.
// Static text.
VKMOE_API const char *vkmoe_part_name(enum vkmoe_part part);

typedef struct vkmoe_checkpoint_part {
    uint32_t n;              // experts that have one each; 1 of what is no expert's; 0: not there
    uint32_t n_rows, n_columns; // of each; a vector is one row
    enum vkmoe_dtype type;   // that it is loaded as; f32 of all but matrices of experts and latent
    bool exact;              // `type` holds the stored values as they are
    char stored[96];         // in words: "bf16, transposed, even rows"
} vkmoe_checkpoint_part;

VKMOE_API enum vkmoe_status vkmoe_checkpoint_get_part(vkmoe_checkpoint *checkpoint, uint32_t layer,
                                                      enum vkmoe_part part,
                                                      vkmoe_checkpoint_part *out);

// Rows of one matrix as f32, whatever it is stored as.
//   i    the expert; 0 of what is no expert's
//   dst  (n_rows, n_columns)
VKMOE_API enum vkmoe_status vkmoe_checkpoint_read(vkmoe_checkpoint *checkpoint, uint32_t layer,
                                                  enum vkmoe_part part, uint32_t i,
                                                  uint32_t first_row, uint32_t n_rows, float *dst);

// One tensor of the file that a layer uses.
typedef struct vkmoe_checkpoint_tensor {
    const char *name;     // the checkpoint's
    enum vkmoe_part part; // the first of those that it is for
    char stored[96];      // its type and shape as the file has them: "BF16 (8, 14336, 4096)"
    uint64_t size;        // bytes
} vkmoe_checkpoint_tensor;

// i < n_tensors of the layer.
VKMOE_API enum vkmoe_status vkmoe_checkpoint_get_tensor(vkmoe_checkpoint *checkpoint,
                                                        uint32_t layer, uint32_t i,
                                                        vkmoe_checkpoint_tensor *out);

// ---- loading ---------------------------------------------------------------------------------

typedef struct vkmoe_load_desc {
    size_t struct_size;
    // Types to convert to. NULL: the stored one, or what holds it best. A row that is no multiple
    // of the type's block becomes q8_0, or else f16.
    const enum vkmoe_dtype *in_type;  // of gate, up and the latent matrices
    const enum vkmoe_dtype *out_type; // of down
    const struct vkmoe_vk_buffer *vk_buffer; // as in vkmoe_weights_desc
} vkmoe_load_desc;

static inline vkmoe_load_desc vkmoe_load_desc_init(void)
{
    vkmoe_load_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// What became of the matrices of one part.
typedef struct vkmoe_load_part {
    enum vkmoe_part part;
    enum vkmoe_dtype type;
    bool exact;   // the values are those of the file, bit by bit
    double error; // else: the root of sum (loaded - stored)^2 / sum stored^2, of all its matrices
    char stored[96];
} vkmoe_load_part;

typedef struct vkmoe_load_report {
    uint32_t n_parts;
    vkmoe_load_part parts[VKMOE_N_PARTS];
} vkmoe_load_report;

// Reads one layer's weights, expert by expert, and puts them onto the context's device. Host memory
// holds one expert at a time. desc and report may be NULL.
//   layer_out  the layer with the types that the weights have; what it points to is the
//              checkpoint's
// VKMOE_E_ARGUMENT: no such layer, or it has no experts: the text says why.  VKMOE_E_DATA: as
// vkmoe_checkpoint_get_layer; or ids in a table beyond the experts.  VKMOE_E_IO: a file is shorter
// than it was.  VKMOE_E_UNSUPPORTED: stored in a type that we cannot read.
VKMOE_API enum vkmoe_status vkmoe_checkpoint_load(vkmoe_checkpoint *checkpoint,
                                                  vkmoe_context *context, uint32_t layer,
                                                  const vkmoe_load_desc *desc,
                                                  vkmoe_layer_desc *layer_out, vkmoe_weights **out,
                                                  vkmoe_load_report *report);

// ---- writing ---------------------------------------------------------------------------------

// What became of one part of a layer.
typedef struct vkmoe_save_part {
    uint32_t layer;         // of the checkpoint
    uint32_t layer_out;     // its number in the new file
    enum vkmoe_part part;
    enum vkmoe_dtype type;  // that it has now; f32 of a table, too, whose ids are i32
    bool fallback;          // a row is no whole blocks of the type that was asked for
    bool exact;             // the values are those of the file
    double error;           // else, as in vkmoe_load_part
    uint64_t size_before, size; // bytes, then and now
    char stored[96];
} vkmoe_save_part;

typedef struct vkmoe_save_desc {
    size_t struct_size;
    enum vkmoe_dtype type; // of the experts' and the latent matrices
    bool one_layer;        // only layer `layer`, else all that have experts
    uint32_t layer;
    void (*report)(void *user, const vkmoe_save_part *part); // when a part is written; or NULL
    bool (*progress)(void *user, uint64_t done, uint64_t total); // bytes; false: stop. Or NULL
    void *user;
} vkmoe_save_desc;

static inline vkmoe_save_desc vkmoe_save_desc_init(void)
{
    vkmoe_save_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    desc.type = VKMOE_F16;
    return desc;
}

// Writes layers with their matrices in another type, expert by expert. A row that is no multiple of
// the type's block becomes q8_0, or else f16. The file appears when it is complete. Its suffix says
// what it is:
//   .gguf         the tensors of the layers with experts, under the names and with the keys that
//                 readers of the family's architecture know; those of a GGUF are copied. Read
//                 again it gives the same layers, or it is not written.
//   .safetensors  a vkmoe-model/1: see vkmoe/model.h. A vkmoe-model stays whole; of any other
//                 model the layers with experts are numbered anew, from 0.
// VKMOE_E_ARGUMENT: another suffix, or no such layer.  VKMOE_E_UNSUPPORTED: what the format cannot
// say; the text names it.  VKMOE_E_CANCELLED: `progress` said so.
VKMOE_API enum vkmoe_status vkmoe_checkpoint_save(vkmoe_checkpoint *checkpoint, const char *path,
                                                  const vkmoe_save_desc *desc);

// A layer from JSON text: the object `layer` of a description, alone.
// VKMOE_E_DATA: not valid; the text names the key.
VKMOE_API enum vkmoe_status vkmoe_layer_parse(const char *text, vkmoe_layer_desc *out);

#ifdef __cplusplus
}
#endif
#endif
