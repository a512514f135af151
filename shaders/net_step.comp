#version 450
// SPDX-License-Identifier: MIT
// One step of an optimiser on one parameter, in place; the rules are told in src/core/net.h.
//   KIND: enum moe_net_optimiser. g is multiplied by the factor. A NaN factor, or a loss that is
//   not finite: nothing changes.
// Operands: g, [factor (1, 1)], [loss (1, 1)]. Results: p, [m], [v].
// Dispatch: (ceil(n / MOE_LOCAL_SIZE), 1, 1), or fewer: an invocation takes every so many elements.
#extension GL_GOOGLE_include_directive : require
#define NET_PARAMS net_step_params
#include "net.glsl"
layout(constant_id = 0) const uint KIND = 0;

const uint SGD = 0, ADAM = 1;

void step_sgd(uint i, float g)
{
    float d = g + p.decay * out_at(0, i);
    if (has_out(1)) {
        float m = (p.flags & MOE_NET_STEP_FIRST) != 0 ? d : p.beta1 * out_at(1, i) + d;
        set(1, i, m);
        d = (p.flags & MOE_NET_STEP_NESTEROV) != 0 ? d + p.beta1 * m : m;
    }
    set(0, i, out_at(0, i) - p.rate * d);
}

void step_adam(uint i, float g)
{
    float value = out_at(0, i);
    if (KIND == ADAM)
        g += p.decay * value;
    else
        value -= p.rate * p.decay * value;
    float m = p.beta1 * out_at(1, i) + (1.0 - p.beta1) * g;
    float v = p.beta2 * out_at(2, i) + (1.0 - p.beta2) * g * g;
    set(1, i, m);
    set(2, i, v);
    set(0, i, value - p.rate * (m / p.correction1) / (sqrt(v / p.correction2) + p.eps));
}

void main()
{
    float factor = has_in(1) ? in_at(1, 0) : 1.0;
    if (is_nan(factor) || (has_in(2) && !is_finite(in_at(2, 0))))
        return;
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * MOE_LOCAL_SIZE) {
        float g = in_at(0, i) * factor;
        if (KIND == SGD)
            step_sgd(i, g);
        else
            step_adam(i, g);
    }
}
