// SPDX-License-Identifier: MIT
// Activations on f32 arrays.
#ifndef MOE_CPU_ACT_H
#define MOE_CPU_ACT_H

#include <vkmoe/vkmoe.h>

// v[i] = act(v[i]) for i < n, in place. alpha: the factor inside VKMOE_ACT_SILU.
void moe_cpu_act(enum vkmoe_act act, float alpha, float *v, size_t n);

float moe_cpu_sigmoid(float v);

#endif
