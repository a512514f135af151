// SPDX-License-Identifier: MIT
// Layers of published models by name, and what keys say of a layer.
#ifndef BENCH_PRESETS_H
#define BENCH_PRESETS_H

#include <vkmoe/vkmoe.h>

// The i-th preset's name; NULL: there are no more. Static text.
const char *bench_preset_name(uint32_t i);

// The layer of a preset, with weights of f32. It may be one that is not measured:
// bench_layer_refusal says why. false: no preset has this name.
bool bench_preset(const char *name, vkmoe_layer_desc *out);

// The commonest layer: softmax, gate weights divided by their sum, gated SiLU experts.
vkmoe_layer_desc bench_plain_layer(uint32_t n_experts, uint32_t top_k, uint32_t d_model,
                                   uint32_t d_ff, uint32_t d_shared_ff);

// In short: "softmax norm", "gated silu".
void bench_rule_text(const vkmoe_layer_desc *layer, char *out, size_t size);
void bench_expert_text(const vkmoe_layer_desc *layer, char *out, size_t size);

#endif
