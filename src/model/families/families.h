// SPDX-License-Identifier: MIT
// The published families: by what name a file says which one it is, the rules that its authors gave
// it, and what its tensors are called. A family is a row of moe_families; what a configuration says
// is in moe_keys; names and forms of tensors are in layouts.
#ifndef MOE_MODEL_FAMILIES_H
#define MOE_MODEL_FAMILIES_H

#include <vkmoe/checkpoint.h>

#include "model/gguf.h"

#include <jansson.h>

// ---- names of tensors ------------------------------------------------------------------------

enum moe_stack {
    MOE_STACK_NONE,  // a tensor for each expert: {E} in the name
    MOE_STACK_FIRST, // one tensor, experts are its first dimension
    MOE_STACK_ROWS,  // one matrix, the experts' rows follow each other
};

enum moe_row_choice { // which rows of [out, in] belong to the part
    MOE_ROWS_ALL,
    MOE_ROWS_FIRST,  // half
    MOE_ROWS_SECOND, // half
    MOE_ROWS_EVEN,
    MOE_ROWS_ODD,
};

// One place to look for a part. In names {P} is one of the layout's prefixes, {L} the layer, {E}
// the expert. Suffixes of weights and their scales (".weight", "_blocks") are added when looking.
struct moe_place {
    enum vkmoe_part part;
    const char *name;
    enum moe_stack stack;
    bool transposed; // [in, out]
    enum moe_row_choice rows;
};

// Places in the order in which they are tried; the first that is in the file counts.
struct moe_layout {
    const char *prefixes; // "a|b", tried in this order
    const struct moe_place *places;
    size_t n_places;
};

extern const struct moe_layout moe_layout_mlp, moe_layout_mixtral, moe_layout_deepseek_v4,
    moe_layout_qwen3_vl, moe_layout_llama4, moe_layout_gpt_oss, moe_layout_granite,
    moe_layout_jetmoe, moe_layout_dbrx, moe_layout_nomic, moe_layout_feed_forward,
    moe_layout_nemotron, moe_layout_step, moe_layout_smallthinker, moe_layout_grok,
    moe_layout_switch, moe_layout_nllb, moe_layout_gemma4, moe_layout_aria, moe_layout_gguf,
    moe_layout_model, moe_layout_privacy;

// ---- what a configuration says ---------------------------------------------------------------

// A layer as its family and the configuration have it, before tensors are looked at.
struct moe_facts {
    vkmoe_layer_desc d;     // sizes may be 0: not said
    uint32_t n_shared;      // shared experts of d_ff each, merged into one
    uint32_t d_shared;      // the width of all, where that is said itself
    uint32_t n_hash;        // so many first layers select by a table
    float rms_eps;
};

// A value behind a key.
struct moe_value {
    enum { MOE_VALUE_NONE, MOE_VALUE_BOOL, MOE_VALUE_NUMBER, MOE_VALUE_TEXT } kind;
    double number;    // of a bool, too
    const char *text;
    const char *key;  // where it was found, for messages
};

// Where keys are looked up.
struct moe_lookup {
    const char *file;   // for messages
    const json_t *root; // config.json; or NULL
    const struct moe_gguf *gguf;
    const char *arch;   // of gguf
};

// The value of the first of "a|b|c" that is there; the element of the layer where it is a list,
// unless layer is MOE_ALL_LAYERS. "" or NULL: none. VKMOE_E_DATA: a list without the layer.
enum vkmoe_status moe_look_up(const struct moe_lookup *lookup, const char *hf, const char *gguf,
                              uint32_t layer, struct moe_value *out);
#define MOE_ALL_LAYERS UINT32_MAX

// A whole number 0..2^24; *out stays where there is none.
enum vkmoe_status moe_look_up_u32(const struct moe_lookup *lookup, const char *hf, const char *gguf,
                                  uint32_t layer, uint32_t *out);

// The list behind a key of config.json; NULL: none.
const json_t *moe_look_up_list(const struct moe_lookup *lookup, const char *names);

// ---- families --------------------------------------------------------------------------------

struct moe_family {
    const char *name;
    const char *types;  // model_type of config.json: "a|b"; or where several families have the
                        // same one, the class among its architectures
    const char *archs;  // general.architecture of GGUF, or NULL
    const struct moe_layout *layout;
    vkmoe_layer_desc rules; // struct_size is not set
    uint32_t n_shared;      // where the configuration does not say
    // What no key says by itself; or NULL.
    enum vkmoe_status (*special)(const struct moe_lookup *lookup, uint32_t layer,
                                 struct moe_facts *facts);
};

extern const struct moe_family moe_families[];
extern const uint32_t moe_n_families;

const struct moe_family *moe_family_named(const char *name);
const struct moe_family *moe_family_of_type(const char *model_type);

// Why no family has models of this type though they are known; NULL: they are not.
const char *moe_family_why_not(const char *model_type);

// Of a GGUF file; its keys decide where an architecture is several families.
const struct moe_family *moe_family_of_gguf(const struct moe_gguf *gguf, const char *arch);

// "a, b, c" of all families, for messages.
const char *moe_family_list(char text[2048]);

// The family's rules and what the configuration says of this layer.
enum vkmoe_status moe_family_facts(const struct moe_family *family, const struct moe_lookup *lookup,
                                   uint32_t layer, struct moe_facts *out);

// The key by which the configuration has a field of struct moe_facts; false: by none.
bool moe_family_key(const struct moe_lookup *lookup, size_t offset, uint32_t layer, char out[64]);

// Does the configuration say that a layer has no experts? Then `reason` is not "".
enum vkmoe_status moe_dense_layer(const struct moe_lookup *lookup, uint32_t layer,
                                  char reason[160]);

// ---- explicit descriptions -------------------------------------------------------------------

struct moe_explicit {
    json_t *json;
    const struct moe_family *family; // or NULL
    uint32_t n_layers;               // 0: not said
    const json_t *layer;             // or NULL
    struct moe_place *places;        // names borrowed from json
    size_t n_places;
};

enum vkmoe_status moe_explicit_parse(const vkmoe_host *host, const char *text,
                                     struct moe_explicit *out);
void moe_explicit_finish(const vkmoe_host *host, struct moe_explicit *d);

// Writes the fields that a JSON object names into a layer.
enum vkmoe_status moe_layer_fields_read(const json_t *object, vkmoe_layer_desc *desc);

// The fields that are not as vkmoe_layer_desc_init has them, but those of stored types, as such an
// object. NULL: no memory.
json_t *moe_layer_fields_write(const vkmoe_layer_desc *desc);

// Is it one of those: in_type, own_shared_types?
bool moe_layer_field_is_type(const char *name);

// ---- words -----------------------------------------------------------------------------------

// How a layer routes, in words.
void moe_router_words(const vkmoe_layer_desc *d, char *text, size_t size);

#endif
