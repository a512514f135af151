// SPDX-License-Identifier: MIT
// Activations on f32 arrays.
#ifndef MOE_CPU_ACT_H
#define MOE_CPU_ACT_H

#include "cpu/arrays.h"

// v[i] = act(v[i]) for i < n, in place. Of the layer come the constants of the activation; of
// VKMOE_ACT_SITU it is the gate half.
void moe_cpu_act(const struct cpu_arrays *arrays, const vkmoe_layer_desc *layer,
                 enum vkmoe_act act, float *v, size_t n);

// up[i] = what a gated expert of the layer makes of gate[i] and up[i], with its clamps and addends,
// by this limit. gate is scratch afterwards.
void moe_cpu_gated(const struct cpu_arrays *arrays, const vkmoe_layer_desc *layer, float limit,
                   float *gate, float *up, size_t n);

// v = v / sqrt(mean v^2 + eps) * scale * factor; scale (n).
void moe_cpu_rms_norm(float eps, const float *scale, float factor, float *v, size_t n);

float moe_cpu_sigmoid(float v);

#endif
