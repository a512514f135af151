// SPDX-License-Identifier: MIT
// What the tensors of MoE layers are called and how matrices lie in them.
#include "model/families/families.h"

#include "base/bits.h"

#define MODEL                                                                                      \
    "model.layers.{L}.|language_model.model.layers.{L}.|model.language_model.layers.{L}."         \
    "|thinker.model.layers.{L}.|layers.{L}."

#define GATE VKMOE_PART_GATE
#define UP VKMOE_PART_UP
#define DOWN VKMOE_PART_DOWN
#define SHARED(part) ((enum vkmoe_part)(VKMOE_PART_SHARED + (part) - VKMOE_PART_GATE))
#define ADJUGATE(part) ((enum vkmoe_part)(VKMOE_PART_ADJUGATE + (part) - VKMOE_PART_GATE))
#define WHOLE MOE_STACK_NONE, false, MOE_ROWS_ALL

// Three matrices of each expert, of the shared expert.
#define EXPERTS(at, ...) EXPERTS_(at, __VA_ARGS__)
#define EXPERTS_(at, g, u, d)                                                                      \
    {GATE, at g, WHOLE}, {UP, at u, WHOLE}, {DOWN, at d, WHOLE}
#define BIASES(at, ...) BIASES_(at, __VA_ARGS__)
#define BIASES_(at, g, u, d)                                                                       \
    {VKMOE_PART_GATE_BIAS, at g ".bias", WHOLE}, {VKMOE_PART_UP_BIAS, at u ".bias", WHOLE},        \
    {VKMOE_PART_DOWN_BIAS, at d ".bias", WHOLE}
#define SHARED_EXPERT(at, ...) SHARED_EXPERT_(at, __VA_ARGS__)
#define SHARED_EXPERT_(at, g, u, d)                                                                \
    {SHARED(GATE), at g, WHOLE}, {SHARED(UP), at u, WHOLE}, {SHARED(DOWN), at d, WHOLE}
#define SHARED_BIASES(at, ...) SHARED_BIASES_(at, __VA_ARGS__)
#define SHARED_BIASES_(at, g, u, d)                                                                \
    {SHARED(VKMOE_PART_GATE_BIAS), at g ".bias", WHOLE},                                           \
    {SHARED(VKMOE_PART_UP_BIAS), at u ".bias", WHOLE},                                             \
    {SHARED(VKMOE_PART_DOWN_BIAS), at d ".bias", WHOLE}
#define PROJ "gate_proj", "up_proj", "down_proj"
#define W132 "w1", "w3", "w2"

// All experts in two tensors, gate rows before up rows: [E, 2f, d] and [E, d, f].
#define HALVES(at, gate_up, down)                                                                  \
    {GATE, at gate_up, MOE_STACK_FIRST, false, MOE_ROWS_FIRST},                                    \
    {UP, at gate_up, MOE_STACK_FIRST, false, MOE_ROWS_SECOND},                                     \
    {DOWN, at down, MOE_STACK_FIRST, false, MOE_ROWS_ALL}
// The same as [E, d, 2f] and [E, f, d].
#define HALVES_TRANSPOSED(at, gate_up, down)                                                       \
    {GATE, at gate_up, MOE_STACK_FIRST, true, MOE_ROWS_FIRST},                                     \
    {UP, at gate_up, MOE_STACK_FIRST, true, MOE_ROWS_SECOND},                                      \
    {DOWN, at down, MOE_STACK_FIRST, true, MOE_ROWS_ALL}
#define STACKED(at, ...) STACKED_(at, __VA_ARGS__)
#define STACKED_(at, g, u, d)                                                                      \
    {GATE, at g, MOE_STACK_FIRST, false, MOE_ROWS_ALL},                                            \
    {UP, at u, MOE_STACK_FIRST, false, MOE_ROWS_ALL},                                              \
    {DOWN, at d, MOE_STACK_FIRST, false, MOE_ROWS_ALL}

#define LAYOUT(name, prefixes)                                                                     \
    const struct moe_layout moe_layout_##name = {prefixes, name, MOE_COUNT(name)}

// mlp.gate and mlp.experts.N.{gate,up,down}_proj, with what its many users call the rest.
static const struct moe_place mlp[] = {
    {VKMOE_PART_ROUTER, "{P}mlp.gate", WHOLE},
    {VKMOE_PART_ROUTER, "{P}mlp.gate.wg", WHOLE},            // Hunyuan
    {VKMOE_PART_ROUTER, "{P}mlp.router.classifier", WHOLE},  // LongCat
    {VKMOE_PART_ROUTER, "{P}mlp.router.gate", WHOLE},        // AFMoE, HY-V3
    {VKMOE_PART_ROUTER, "{P}mlp.router", WHOLE},
    {VKMOE_PART_ROUTER_BIAS, "{P}mlp.router.classifier.bias", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}mlp.gate.e_score_correction_bias", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}mlp.e_score_correction_bias", WHOLE},         // EXAONE
    {VKMOE_PART_SELECTION_BIAS, "{P}mlp.router.e_score_correction_bias", WHOLE},  // LongCat
    {VKMOE_PART_SELECTION_BIAS, "{P}mlp.experts.e_score_correction_bias", WHOLE}, // Laguna
    {VKMOE_PART_SELECTION_BIAS, "{P}mlp.moe_statics.e_score_correction_bias", WHOLE}, // ERNIE
    {VKMOE_PART_SELECTION_BIAS, "{P}mlp.gate.expert_bias", WHOLE}, // Bailing, Klear
    {VKMOE_PART_SELECTION_BIAS, "{P}mlp.expert_bias", WHOLE},      // AFMoE, HY-V3, Klear
    EXPERTS("{P}mlp.experts.{E}.", PROJ),
    HALVES("{P}mlp.experts.", "gate_up_proj", "down_proj"),
    BIASES("{P}mlp.experts.{E}.", PROJ),
    SHARED_EXPERT("{P}mlp.shared_experts.", PROJ),
    SHARED_EXPERT("{P}mlp.shared_expert.", PROJ),
    SHARED_EXPERT("{P}mlp.shared_mlp.", PROJ), // Hunyuan, HY-V3
    SHARED_BIASES("{P}mlp.shared_experts.", PROJ),
    {VKMOE_PART_SHARED_GATE, "{P}mlp.shared_expert_gate", WHOLE},
    {VKMOE_PART_SHARED_GATE, "{P}mlp.coefficient", WHOLE}, // Klear
    {VKMOE_PART_SHARED_GATE_BIAS, "{P}mlp.coefficient.bias", WHOLE},
    // GroveMoE: one for every two experts.
    {ADJUGATE(GATE), "{P}mlp.chunk_experts.{E}.gate_proj", WHOLE},
    {ADJUGATE(UP), "{P}mlp.chunk_experts.{E}.up_proj", WHOLE},
    {ADJUGATE(DOWN), "{P}mlp.chunk_experts.{E}.down_proj", WHOLE},
};
LAYOUT(mlp, MODEL);

static const struct moe_place mixtral[] = {
    {VKMOE_PART_ROUTER, "{P}block_sparse_moe.gate", WHOLE},
    {VKMOE_PART_ROUTER, "{P}mlp.gate", WHOLE}, // as transformers 5 saves it
    {VKMOE_PART_SELECTION_BIAS, "{P}block_sparse_moe.e_score_correction_bias", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}block_sparse_moe.gate.e_score_correction_bias", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}mlp.e_score_correction_bias", WHOLE},
    EXPERTS("{P}block_sparse_moe.experts.{E}.", W132),
    EXPERTS("{P}mlp.experts.{E}.", W132),
    HALVES("{P}mlp.experts.", "gate_up_proj", "down_proj"),
    SHARED_EXPERT("{P}block_sparse_moe.shared_experts.", PROJ),
    SHARED_EXPERT("{P}mlp.shared_experts.", PROJ),
    // Kimi-K3
    {VKMOE_PART_LATENT_DOWN, "{P}block_sparse_moe.routed_expert_down_proj", WHOLE},
    {VKMOE_PART_LATENT_UP, "{P}block_sparse_moe.routed_expert_up_proj", WHOLE},
    {VKMOE_PART_LATENT_NORM, "{P}block_sparse_moe.routed_expert_norm", WHOLE},
};
LAYOUT(mixtral, MODEL);

static const struct moe_place deepseek_v4[] = {
    {VKMOE_PART_ROUTER, "{P}ffn.gate", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}ffn.gate.bias", WHOLE}, // its name notwithstanding
    {VKMOE_PART_TABLE, "{P}ffn.gate.tid2eid", WHOLE},
    EXPERTS("{P}ffn.experts.{E}.", W132),
    SHARED_EXPERT("{P}ffn.shared_experts.", W132),
    {VKMOE_PART_ROUTER, "{P}mlp.gate", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}mlp.gate.e_score_correction_bias", WHOLE},
    {VKMOE_PART_TABLE, "{P}mlp.gate.tid2eid", WHOLE},
    EXPERTS("{P}mlp.experts.{E}.", PROJ),
    HALVES("{P}mlp.experts.", "gate_up_proj", "down_proj"),
    SHARED_EXPERT("{P}mlp.shared_experts.", PROJ),
};
LAYOUT(deepseek_v4, "layers.{L}.|" MODEL);

static const struct moe_place qwen3_vl[] = {
    {VKMOE_PART_ROUTER, "{P}mlp.gate", WHOLE},
    EXPERTS("{P}mlp.experts.{E}.", PROJ),
    HALVES_TRANSPOSED("{P}mlp.experts.", "gate_up_proj", "down_proj"),
};
LAYOUT(qwen3_vl, MODEL);

static const struct moe_place llama4[] = {
    {VKMOE_PART_ROUTER, "{P}feed_forward.router", WHOLE},
    EXPERTS("{P}feed_forward.experts.{E}.", PROJ),
    HALVES_TRANSPOSED("{P}feed_forward.experts.", "gate_up_proj", "down_proj"),
    SHARED_EXPERT("{P}feed_forward.shared_expert.", PROJ),
};
LAYOUT(llama4, MODEL);

// Gate and up take turns: as columns of [E, d, 2f] in bf16, as rows of [E, 2f, d] in MXFP4, whose
// blocks are found by their suffix.
static const struct moe_place gpt_oss[] = {
    {VKMOE_PART_ROUTER, "{P}mlp.router", WHOLE},
    {VKMOE_PART_ROUTER_BIAS, "{P}mlp.router.bias", WHOLE},
    {GATE, "{P}mlp.experts.gate_up_proj_blocks", MOE_STACK_FIRST, false, MOE_ROWS_EVEN},
    {UP, "{P}mlp.experts.gate_up_proj_blocks", MOE_STACK_FIRST, false, MOE_ROWS_ODD},
    {DOWN, "{P}mlp.experts.down_proj_blocks", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {GATE, "{P}mlp.experts.gate_up_proj", MOE_STACK_FIRST, true, MOE_ROWS_EVEN},
    {UP, "{P}mlp.experts.gate_up_proj", MOE_STACK_FIRST, true, MOE_ROWS_ODD},
    {DOWN, "{P}mlp.experts.down_proj", MOE_STACK_FIRST, true, MOE_ROWS_ALL},
    {VKMOE_PART_GATE_BIAS, "{P}mlp.experts.gate_up_proj_bias", MOE_STACK_FIRST, false,
     MOE_ROWS_EVEN},
    {VKMOE_PART_UP_BIAS, "{P}mlp.experts.gate_up_proj_bias", MOE_STACK_FIRST, false,
     MOE_ROWS_ODD},
    {VKMOE_PART_DOWN_BIAS, "{P}mlp.experts.down_proj_bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    // The authors' own files.
    {VKMOE_PART_ROUTER, "{P}mlp.gate", WHOLE},
    {VKMOE_PART_ROUTER_BIAS, "{P}mlp.gate.bias", WHOLE},
    {GATE, "{P}mlp.mlp1_weight.blocks", MOE_STACK_FIRST, false, MOE_ROWS_EVEN},
    {UP, "{P}mlp.mlp1_weight.blocks", MOE_STACK_FIRST, false, MOE_ROWS_ODD},
    {DOWN, "{P}mlp.mlp2_weight.blocks", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {VKMOE_PART_GATE_BIAS, "{P}mlp.mlp1_bias", MOE_STACK_FIRST, false, MOE_ROWS_EVEN},
    {VKMOE_PART_UP_BIAS, "{P}mlp.mlp1_bias", MOE_STACK_FIRST, false, MOE_ROWS_ODD},
    {VKMOE_PART_DOWN_BIAS, "{P}mlp.mlp2_bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
};
LAYOUT(gpt_oss, MODEL "|block.{L}.");

static const struct moe_place privacy[] = {
    {VKMOE_PART_ROUTER, "{P}mlp.router", WHOLE},
    {VKMOE_PART_ROUTER_BIAS, "{P}mlp.router.bias", WHOLE},
    HALVES_TRANSPOSED("{P}mlp.experts.", "gate_up_proj", "down_proj"),
    {VKMOE_PART_GATE_BIAS, "{P}mlp.experts.gate_up_proj_bias", MOE_STACK_FIRST, false,
     MOE_ROWS_FIRST},
    {VKMOE_PART_UP_BIAS, "{P}mlp.experts.gate_up_proj_bias", MOE_STACK_FIRST, false,
     MOE_ROWS_SECOND},
    {VKMOE_PART_DOWN_BIAS, "{P}mlp.experts.down_proj_bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
};
LAYOUT(privacy, MODEL);

#define SHARED_HALVES(at, gate_up, down)                                                           \
    {SHARED(GATE), at gate_up, MOE_STACK_NONE, false, MOE_ROWS_FIRST},                             \
    {SHARED(UP), at gate_up, MOE_STACK_NONE, false, MOE_ROWS_SECOND},                              \
    {SHARED(DOWN), at down, WHOLE}

static const struct moe_place granite[] = {
    {VKMOE_PART_ROUTER, "{P}block_sparse_moe.router.layer", WHOLE},
    HALVES("{P}block_sparse_moe.", "input_linear", "output_linear"),
    SHARED_HALVES("{P}shared_mlp.", "input_linear", "output_linear"),
};
LAYOUT(granite, MODEL);

static const struct moe_place jetmoe[] = {
    {VKMOE_PART_ROUTER, "{P}mlp.router.layer", WHOLE},
    {VKMOE_PART_OUT_BIAS, "{P}mlp.bias", WHOLE},
    HALVES("{P}mlp.", "input_linear", "output_linear"),
};
LAYOUT(jetmoe, MODEL);

static const struct moe_place dbrx[] = {
    {VKMOE_PART_ROUTER, "{P}ffn.router.layer", WHOLE},
    {GATE, "{P}ffn.experts.mlp.w1", MOE_STACK_ROWS, false, MOE_ROWS_ALL},
    {UP, "{P}ffn.experts.mlp.v1", MOE_STACK_ROWS, false, MOE_ROWS_ALL},
    {DOWN, "{P}ffn.experts.mlp.w2", MOE_STACK_ROWS, true, MOE_ROWS_ALL},
};
LAYOUT(dbrx, "transformer.blocks.{L}.");

static const struct moe_place nomic[] = {
    {VKMOE_PART_ROUTER, "{P}mlp.router.layer", WHOLE},
    {UP, "{P}mlp.experts.mlp.w1", MOE_STACK_ROWS, false, MOE_ROWS_ALL},
    {DOWN, "{P}mlp.experts.mlp.w2", MOE_STACK_ROWS, true, MOE_ROWS_ALL},
    {VKMOE_PART_OUT_BIAS, "{P}mlp.experts.bias", WHOLE},
};
LAYOUT(nomic, "encoder.layers.{L}.|model.encoder.layers.{L}.");

// LFM2 and Jamba.
static const struct moe_place feed_forward[] = {
    {VKMOE_PART_ROUTER, "{P}feed_forward.gate", WHOLE},
    {VKMOE_PART_ROUTER, "{P}feed_forward.router", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}feed_forward.expert_bias", WHOLE},
    EXPERTS("{P}feed_forward.experts.{E}.", W132),
    EXPERTS("{P}feed_forward.experts.{E}.", PROJ),
    HALVES("{P}feed_forward.experts.", "gate_up_proj", "down_proj"),
};
LAYOUT(feed_forward, MODEL);

static const struct moe_place nemotron[] = {
    {VKMOE_PART_ROUTER, "{P}mixer.gate", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}mixer.gate.e_score_correction_bias", WHOLE},
    {UP, "{P}mixer.experts.{E}.up_proj", WHOLE},
    {DOWN, "{P}mixer.experts.{E}.down_proj", WHOLE},
    {UP, "{P}mixer.experts.up_proj", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {DOWN, "{P}mixer.experts.down_proj", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {SHARED(UP), "{P}mixer.shared_experts.up_proj", WHOLE},
    {SHARED(DOWN), "{P}mixer.shared_experts.down_proj", WHOLE},
    {VKMOE_PART_LATENT_DOWN, "{P}mixer.fc1_latent_proj", WHOLE},
    {VKMOE_PART_LATENT_UP, "{P}mixer.fc2_latent_proj", WHOLE},
};
LAYOUT(nemotron, "backbone.layers.{L}.|" MODEL);

static const struct moe_place step[] = {
    {VKMOE_PART_ROUTER, "{P}moe.gate", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}moe.router_bias", WHOLE},
    STACKED("{P}moe.", PROJ),
    EXPERTS("{P}moe.experts.{E}.", PROJ),
    SHARED_EXPERT("{P}share_expert.", PROJ),
    SHARED_EXPERT("{P}moe.share_expert.", PROJ),
};
LAYOUT(step, MODEL);

static const struct moe_place smallthinker[] = {
    {VKMOE_PART_ROUTER, "{P}block_sparse_moe.primary_router", WHOLE},
    EXPERTS("{P}block_sparse_moe.experts.{E}.", "gate", "up", "down"),
};
LAYOUT(smallthinker, MODEL);

// Written by JAX: [in, out].
static const struct moe_place grok[] = {
    {VKMOE_PART_ROUTER, "{P}router.w", MOE_STACK_NONE, true, MOE_ROWS_ALL},
    {GATE, "{P}moe.{E}.linear.w", MOE_STACK_NONE, true, MOE_ROWS_ALL},
    {UP, "{P}moe.{E}.linear_v.w", MOE_STACK_NONE, true, MOE_ROWS_ALL},
    {DOWN, "{P}moe.{E}.linear_1.w", MOE_STACK_NONE, true, MOE_ROWS_ALL},
    // Conversions and Grok-2: [out, in].
    {VKMOE_PART_ROUTER, "{P}router", WHOLE},
    EXPERTS("{P}moe.{E}.", "linear", "linear_v", "linear_1"),
    {VKMOE_PART_ROUTER, "{P}block_sparse_moe.gate", WHOLE},
    EXPERTS("{P}block_sparse_moe.experts.{E}.", W132),
    {VKMOE_PART_ROUTER, "{P}moe_block.gate", WHOLE},
    {GATE, "{P}moe_block.experts.{E}.linear", WHOLE},
    {UP, "{P}moe_block.experts.{E}.linear_v", WHOLE},
    {DOWN, "{P}moe_block.experts.{E}.linear_1", WHOLE},
};
LAYOUT(grok, "transformer.decoder_layer.{L}.|" MODEL);

static const struct moe_place switch_moe[] = {
    {VKMOE_PART_ROUTER, "{P}mlp.router.classifier", WHOLE},
    {VKMOE_PART_ROUTER_BIAS, "{P}mlp.router.classifier.bias", WHOLE},
    {UP, "{P}mlp.experts.expert_{E}.wi", WHOLE},
    {DOWN, "{P}mlp.experts.expert_{E}.wo", WHOLE},
};
// Layers of the encoder, then those of the decoder, whose MLP is the third of its parts.
const struct moe_layout moe_layout_switch = {
    "encoder.block.{L}.layer.1.|decoder.block.{D}.layer.2.", switch_moe, MOE_COUNT(switch_moe)};

static const struct moe_place nllb[] = {
    {VKMOE_PART_ROUTER, "{P}ffn.router.classifier", WHOLE},
    {VKMOE_PART_ROUTER_BIAS, "{P}ffn.router.classifier.bias", WHOLE},
    {UP, "{P}ffn.experts.expert_{E}.fc1", WHOLE},
    {DOWN, "{P}ffn.experts.expert_{E}.fc2", WHOLE},
    {VKMOE_PART_UP_BIAS, "{P}ffn.experts.expert_{E}.fc1.bias", WHOLE},
    {VKMOE_PART_DOWN_BIAS, "{P}ffn.experts.expert_{E}.fc2.bias", WHOLE},
};
LAYOUT(nllb, "model.encoder.layers.{L}.|encoder.layers.{L}.|model.decoder.layers.{D}.|"
       "decoder.layers.{D}.");

static const struct moe_place gemma4[] = {
    {VKMOE_PART_ROUTER, "{P}router.proj", WHOLE},
    {VKMOE_PART_PRENORM_SCALE, "{P}router.scale", WHOLE},
    {VKMOE_PART_EXPERT_SCALE, "{P}router.per_expert_scale", WHOLE},
    HALVES("{P}experts.", "gate_up_proj", "down_proj"),
};
LAYOUT(gemma4, MODEL);

static const struct moe_place aria[] = {
    {VKMOE_PART_ROUTER, "{P}mlp.router", WHOLE},
    HALVES_TRANSPOSED("{P}mlp.experts.", "fc1", "fc2"),
    SHARED_EXPERT("{P}mlp.shared_experts.", PROJ),
};
LAYOUT(aria, MODEL);

static const struct moe_place gguf[] = {
    {VKMOE_PART_ROUTER, "{P}ffn_gate_inp", WHOLE},
    {VKMOE_PART_ROUTER_BIAS, "{P}ffn_gate_inp.bias", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}exp_probs_b.bias", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}exp_probs_b", WHOLE},
    {VKMOE_PART_TABLE, "{P}ffn_gate_tid2eid", WHOLE},
    {VKMOE_PART_EXPERT_SCALE, "{P}ffn_down_exps.scale", WHOLE},
    {VKMOE_PART_PRENORM_SCALE, "{P}ffn_gate_inp.scale", WHOLE},
    {VKMOE_PART_SHARED_GATE, "{P}ffn_gate_inp_shexp", WHOLE},
    {VKMOE_PART_LATENT_DOWN, "{P}ffn_latent_down", WHOLE},
    {VKMOE_PART_LATENT_UP, "{P}ffn_latent_up", WHOLE},
    {VKMOE_PART_LATENT_DOWN, "{P}ffn_routed_down", WHOLE},
    {VKMOE_PART_LATENT_UP, "{P}ffn_routed_up", WHOLE},
    {VKMOE_PART_LATENT_NORM, "{P}ffn_routed_norm", WHOLE},
    HALVES("{P}", "ffn_gate_up_exps", "ffn_down_exps"),
    STACKED("{P}", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
    EXPERTS("{P}", "ffn_gate.{E}", "ffn_up.{E}", "ffn_down.{E}"), // Mixtral before 2024-04
    {VKMOE_PART_GATE_BIAS, "{P}ffn_gate_exps.bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {VKMOE_PART_UP_BIAS, "{P}ffn_up_exps.bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {VKMOE_PART_DOWN_BIAS, "{P}ffn_down_exps.bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {VKMOE_PART_GATE_BIAS, "{P}ffn_gate_up_exps.bias", MOE_STACK_FIRST, false, MOE_ROWS_FIRST},
    {VKMOE_PART_UP_BIAS, "{P}ffn_gate_up_exps.bias", MOE_STACK_FIRST, false, MOE_ROWS_SECOND},
    SHARED_EXPERT("{P}", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
    SHARED_BIASES("{P}", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
    // Granite's, where there is no ffn_gate_shexp.
    SHARED_HALVES("{P}", "ffn_up_shexp", "ffn_down_shexp"),
    {ADJUGATE(GATE), "{P}ffn_gate_chexps", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {ADJUGATE(UP), "{P}ffn_up_chexps", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {ADJUGATE(DOWN), "{P}ffn_down_chexps", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
};
LAYOUT(gguf, "blk.{L}.");

// Our own format.
static const struct moe_place model[] = {
    {VKMOE_PART_ROUTER, "{P}router", WHOLE},
    {VKMOE_PART_ROUTER_BIAS, "{P}router.bias", WHOLE},
    {VKMOE_PART_SELECTION_BIAS, "{P}router.selection_bias", WHOLE},
    STACKED("{P}experts.", "gate", "up", "down"),
    {VKMOE_PART_GATE_BIAS, "{P}experts.gate.bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {VKMOE_PART_UP_BIAS, "{P}experts.up.bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {VKMOE_PART_DOWN_BIAS, "{P}experts.down.bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    SHARED_EXPERT("{P}shared.", "gate", "up", "down"),
    SHARED_BIASES("{P}shared.", "gate", "up", "down"),
    {VKMOE_PART_SHARED_GATE, "{P}shared.gate_vector", WHOLE},
    {VKMOE_PART_SHARED_GATE_BIAS, "{P}shared.gate_vector.bias", WHOLE},
    {VKMOE_PART_TABLE, "{P}router.table", WHOLE},
    {VKMOE_PART_EXPERT_SCALE, "{P}router.expert_scale", WHOLE},
    {VKMOE_PART_PRENORM_SCALE, "{P}router.prenorm_scale", WHOLE},
    {VKMOE_PART_LATENT_DOWN, "{P}latent.down", WHOLE},
    {VKMOE_PART_LATENT_UP, "{P}latent.up", WHOLE},
    {VKMOE_PART_LATENT_NORM, "{P}latent.norm", WHOLE},
    {VKMOE_PART_OUT_BIAS, "{P}out_bias", WHOLE},
    {ADJUGATE(GATE), "{P}adjugate.gate", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {ADJUGATE(UP), "{P}adjugate.up", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {ADJUGATE(DOWN), "{P}adjugate.down", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {ADJUGATE(VKMOE_PART_GATE_BIAS), "{P}adjugate.gate.bias", MOE_STACK_FIRST, false,
     MOE_ROWS_ALL},
    {ADJUGATE(VKMOE_PART_UP_BIAS), "{P}adjugate.up.bias", MOE_STACK_FIRST, false, MOE_ROWS_ALL},
    {ADJUGATE(VKMOE_PART_DOWN_BIAS), "{P}adjugate.down.bias", MOE_STACK_FIRST, false,
     MOE_ROWS_ALL},
};
LAYOUT(model, "layers.{L}.");
