#version 450
// SPDX-License-Identifier: MIT
// Ops whose elements do not depend on each other: element i of the result, in row r and column c.
// What each op computes is told in src/core/net.h. OP: MOE_NET_EL_*; ACT: enum vkmoe_act.
// Dispatch: (ceil(n / MOE_LOCAL_SIZE), 1, 1), or fewer: an invocation takes every so many elements.
#extension GL_GOOGLE_include_directive : require
#define NET_PARAMS net_elements_params
#include "net.glsl"
#include "act_derivative.glsl"
#include "net_math.glsl"
#include "net_random.glsl"
layout(constant_id = 0) const uint OP = 0;
layout(constant_id = 1) const uint ACT = 0;

const uint POOL_MEAN = 0, POOL_MAX = 2; // of p.kind

float act(float v)
{
    return activate(ACT, p.beta, v);
}

float derivative(float v)
{
    return activate_derivative(ACT, p.beta, v);
}

float scaled_row(uint r, uint c)
{
    uint row = has_in(2) ? in_uint(2, r / p.div2) : r / p.div0;
    float scale = has_in(1) ? p.alpha * in_at(1, r / p.div1) : p.alpha;
    return scale * in_at(0, row * p.width + c);
}

float slots_sum(uint t, uint c)
{
    float sum = 0.0;
    for (uint slot = t * p.top_k; slot < (t + 1) * p.top_k; slot++) {
        float f = in_at(0, slot * p.width + c);
        sum += has_in(1) ? in_at(1, slot / p.div1) * f : f;
    }
    return p.alpha * sum;
}

// Column c of example x; of a maximum the first NaN, or the first of equal ones.
void pool(uint i, uint x, uint c)
{
    uint first = in_uint(1, x), last = in_uint(1, x + 1), best = MOE_NONE;
    float v = 0.0;
    for (uint t = first; t < last; t++) {
        float a = in_at(0, t * p.width + c);
        if (p.kind != POOL_MAX) {
            v += a;
        } else if (!is_nan(v) && (best == MOE_NONE || is_nan(a) || a > v)) {
            best = t;
            v = a;
        }
    }
    set(0, i, p.kind == POOL_MEAN && last > first ? v / float(last - first) : v);
    if (has_out(1))
        set_uint(1, i, best);
}

// The example that has token t: the last that begins at or before it.
float pool_gradient(uint t, uint c)
{
    uint x = 0, end = p.top_k; // number of examples
    while (end - x > 1) {
        uint middle = x + (end - x) / 2;
        if (in_uint(1, middle) <= t)
            x = middle;
        else
            end = middle;
    }
    float dy = in_at(0, x * p.width + c);
    if (p.kind == POOL_MAX)
        return in_uint(2, x * p.width + c) == t ? dy : 0.0;
    return p.kind == POOL_MEAN ? dy / float(in_uint(1, x + 1) - in_uint(1, x)) : dy;
}

float clip_factor(float sum)
{
    if (!is_finite(sum))
        return uintBitsToFloat(0x7fc00000u);
    return p.alpha > 0.0 ? min(1.0, p.alpha / (sqrt(sum) + 1e-6)) : 1.0;
}

void balance_bias(uint e)
{
    if (has_in(1) && !is_finite(in_at(1, 0)))
        return;
    float sum = 0.0;
    for (uint i = 0; i < p.width; i++)
        sum += in_at(0, i);
    float missing = sum / float(p.width) - in_at(0, e);
    set(0, e, out_at(0, e) + (missing > 0.0 ? p.alpha : missing < 0.0 ? -p.alpha : 0.0));
}

// Two elements in a word; the second half of the last one may be empty.
uint rounded_pair(uint i)
{
    return element_pack(p.kind, in_at(0, 2 * i), 2 * i + 1 < p.width ? in_at(0, 2 * i + 1) : 0.0);
}

void element(uint i)
{
    uint r = i / p.width, c = i % p.width;
    switch (OP) {
    case MOE_NET_EL_IOTA:
        set_uint(0, i, r % p.kind);
        break;
    case MOE_NET_EL_FILL: // kind 1: integers
        set_uint(0, i, p.kind != 0 ? uint(int(p.alpha)) : floatBitsToUint(p.alpha));
        break;
    case MOE_NET_EL_NOISE: {
        float n = p.alpha * normal_at(r, c);
        set(0, i, in_at(0, i) + (has_in(1) ? n * softplus(in_at(1, i)) : n));
        break;
    }
    case MOE_NET_EL_NOISE_BACKWARD:
        put(0, i, in_at(0, i) * p.alpha * normal_at(r, c) * act_sigmoid(in_at(1, i)));
        break;
    case MOE_NET_EL_DROPOUT:
        put(0, i, uniform_at(r, c) >= p.alpha ? in_at(0, i) / (1.0 - p.alpha) : 0.0);
        break;
    case MOE_NET_EL_ACT:
        set(0, i, act(in_at(0, i)));
        break;
    case MOE_NET_EL_ACT_BACKWARD:
        put(0, i, in_at(0, i) * derivative(in_at(1, i)));
        break;
    case MOE_NET_EL_GLU:
        set(0, i, act(in_at(0, i)) * in_at(1, i));
        break;
    case MOE_NET_EL_GLU_BACKWARD: {
        float dh = in_at(0, i), g = in_at(1, i);
        set(0, i, dh * in_at(2, i) * derivative(g));
        set(1, i, dh * act(g));
        break;
    }
    case MOE_NET_EL_SCALE_ROWS:
        put(0, i, scaled_row(r, c));
        break;
    case MOE_NET_EL_SUM_SLOTS:
        put(0, i, slots_sum(r, c));
        break;
    case MOE_NET_EL_POOL:
        pool(i, r, c);
        break;
    case MOE_NET_EL_POOL_BACKWARD:
        set(0, i, pool_gradient(r, c));
        break;
    case MOE_NET_EL_BALANCE: // gradient: alpha times rows of the expert
        put(0, i, p.alpha * float(in_uint(0, c + 1) - in_uint(0, c)));
        break;
    case MOE_NET_EL_CLIP:
        set(0, i, clip_factor(in_at(0, i)));
        break;
    case MOE_NET_EL_COUNT:
        put(0, i, float(in_uint(0, i + 1) - in_uint(0, i)));
        break;
    case MOE_NET_EL_BALANCE_BIAS:
        balance_bias(i);
        break;
    case MOE_NET_EL_ROUND:
        set_uint(0, i, rounded_pair(i));
        break;
    }
}

void main()
{
    for (uint i = gl_GlobalInvocationID.x; i < p.n; i += gl_NumWorkGroups.x * MOE_LOCAL_SIZE)
        element(i);
}
