#version 450
// SPDX-License-Identifier: MIT
// Losses of rows, times p.scale, with their gradients; of the mixture a row is a token, and of the
// z-loss the first result is the row's lse^2, not scaled. What each loss is is told in
// src/core/net.h. OP: MOE_NET_LOSS_*. KIND: labels (0) or shares (1) of the cross entropy, enum
// moe_net_point, labels (0) or Gaussian (1) of the mixture.
// Dispatch: (ceil(rows / rows of a workgroup), 1, 1), or fewer: a workgroup takes every so many.
#extension GL_GOOGLE_include_directive : require
#define NET_PARAMS net_rows_params
#include "net.glsl"
#include "net_math.glsl"
#include "net_lanes.glsl"
layout(constant_id = 0) const uint OP = 0;
layout(constant_id = 1) const uint KIND = 0;

const uint POINT_MSE = 0, POINT_HUBER = 1, POINT_BCE = 2;
const float LOG_TWO_PI = 1.8378770664093455;

shared float log_ps[MOE_NET_SHARED_EXPERTS]; // of the slots of a workgroup's tokens

// n: elements of the row; 0 where there is none, so that its lanes meet barriers alone.

// The largest of a row of operand 0, and log sum exp(l - largest).
vec2 log_sum(uint from, uint n)
{
    float top = -NET_INFINITY, sum = 0.0;
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float v = in_at(0, from + c);
        top = v > top ? v : top;
    }
    top = lanes_max(top);
    for (uint c = lane_of(); c < n; c += p.lanes)
        sum += act_exp(in_at(0, from + c) - top);
    return vec2(top, net_log(lanes_sum(sum)));
}

// v_c t_c, smoothed.
float class_target(uint r, uint c)
{
    float t = KIND == 0 ? (in_uint(1, r) == c ? 1.0 : 0.0) : in_at(1, r * p.width + c);
    float u = t * (1.0 - p.beta) + p.beta / float(p.width);
    return has_in(2) ? in_at(2, c) * u : u;
}

// With u_c = v_c t_c: loss = -sum_c u_c log p_c, d_c = p_c sum_j u_j - u_c.
void cross_entropy(uint r, uint n)
{
    uint from = r * p.width;
    vec2 lse = log_sum(from, n);
    float loss = 0.0, sum = 0.0;
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float u = class_target(r, c);
        loss -= u * (in_at(0, from + c) - lse.x - lse.y);
        sum += u;
    }
    loss = lanes_sum(loss);
    sum = lanes_sum(sum);
    if (lane_of() == 0 && n > 0)
        set(0, r, p.scale * loss);
    for (uint c = lane_of(); c < n && has_out(1); c += p.lanes) {
        float share = act_exp(in_at(0, from + c) - lse.x - lse.y);
        put(1, from + c, p.scale * (share * sum - class_target(r, c)));
    }
}

// A weighted mean of ones may be rounded past 1. What is further out is no number.
float as_probability(float y)
{
    const float rounding = 1e-3;
    if (y > 1.0)
        return y <= 1.0 + rounding ? 1.0 : uintBitsToFloat(0x7fc00000u);
    if (y < 0.0)
        return y >= -rounding ? 0.0 : uintBitsToFloat(0x7fc00000u);
    return y;
}

float point_value(float y, float t)
{
    float d = y - t, size = abs(d);
    switch (KIND) {
    case POINT_MSE:
        return d * d;
    case POINT_HUBER:
        return size <= p.beta ? d * d * 0.5 : p.beta * (size - 0.5 * p.beta);
    case POINT_BCE: { // 1 - q is exact where it is small
        float q = as_probability(y);
        return -(t * at_least(net_log(q), -100.0) + (1.0 - t) * at_least(net_log(1.0 - q), -100.0));
    }
    default:
        return t * softplus(-y) + (1.0 - t) * softplus(y);
    }
}

float point_derivative(float y, float t)
{
    float d = y - t;
    switch (KIND) {
    case POINT_MSE:
        return 2.0 * d;
    case POINT_HUBER:
        return at_most(at_least(d, -p.beta), p.beta);
    case POINT_BCE: {
        float q = as_probability(y);
        return (q - t) / at_least(q * (1.0 - q), 1e-12);
    }
    default:
        return act_sigmoid(y) - t;
    }
}

void point_loss(uint r, uint n)
{
    uint from = r * p.width;
    float sum = 0.0;
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float y = in_at(0, from + c), t = in_at(1, from + c);
        sum += point_value(y, t);
        if (has_out(1))
            put(1, from + c, p.scale * point_derivative(y, t));
    }
    sum = lanes_sum(sum);
    if (lane_of() == 0 && n > 0)
        set(0, r, p.scale * sum);
}

// log p of the token's target by a slot; *lse: of the slot's logits.
float slot_log_p(uint token, uint slot, uint n, out vec2 lse)
{
    uint from = slot * p.width;
    lse = vec2(0);
    if (KIND == 0) {
        lse = log_sum(from, n);
        uint label = n > 0 ? in_uint(2, token) : 0;
        return label < n ? in_at(0, from + label) - lse.x - lse.y : -NET_INFINITY;
    }
    float squares = 0.0;
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float d = in_at(2, token * p.width + c) - in_at(0, from + c);
        squares += d * d;
    }
    return -lanes_sum(squares) / (2.0 * p.beta) -
           0.5 * float(p.width) * (LOG_TWO_PI + net_log(p.beta));
}

// factor times d log p / df of a slot.
void slot_gradient(uint token, uint slot, uint n, vec2 lse, float factor)
{
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float f = in_at(0, slot * p.width + c), d;
        if (KIND == 0)
            d = (in_uint(2, token) == c ? 1.0 : 0.0) - act_exp(f - lse.x - lse.y);
        else
            d = (in_at(2, token * p.width + c) - f) / p.beta;
        put(1, slot * p.width + c, factor * d);
    }
}

// p exp(-m); it ends at e^80, an f32 number.
float slot_q(float log_p, float most)
{
    return act_exp(at_most(log_p - most, 80.0));
}

// Around the largest log(s_k p_k) = m, so that nothing underflows: q_k = p_k exp(-m), S = sum s_k
// q_k, loss = -m - log S, ds_k = -q_k / S, df_k = s_k ds_k d log p_k.
void mixture(uint token, uint n)
{
    uint place = gl_LocalInvocationID.x / p.lanes * p.top_k;
    float most = -NET_INFINITY, sum = 0.0;
    vec2 lse;
    for (uint j = 0; j < p.top_k; j++) {
        uint slot = token * p.top_k + j;
        float log_p = slot_log_p(token, slot, n, lse);
        float s = n > 0 ? in_at(1, slot) : 0.0;
        float v = log_p + net_log(s);
        most = v > most ? v : most;
        if (lane_of() == 0)
            log_ps[place + j] = log_p;
    }
    barrier();
    for (uint j = 0; j < p.top_k && n > 0; j++)
        sum += in_at(1, token * p.top_k + j) * slot_q(log_ps[place + j], most);
    if (lane_of() == 0 && n > 0)
        set(0, token, -p.scale * (most + net_log(sum)));
    for (uint j = 0; j < p.top_k; j++) {
        uint slot = token * p.top_k + j;
        float d_s = -p.scale * slot_q(log_ps[place + j], most) / sum;
        if (has_out(1)) {
            slot_log_p(token, slot, n, lse);
            if (n > 0)
                slot_gradient(token, slot, n, lse, d_s * in_at(1, slot));
        }
        if (has_out(2) && lane_of() == 0 && n > 0)
            put(2, slot, d_s);
    }
    barrier();
}

void z_loss(uint r, uint n)
{
    uint from = r * p.width;
    vec2 parts = log_sum(from, n);
    float lse = parts.x + parts.y;
    if (lane_of() == 0 && n > 0)
        set(0, r, lse * lse);
    for (uint c = lane_of(); c < n && has_out(1); c += p.lanes)
        put(1, from + c, 2.0 * p.scale * lse * act_exp(in_at(0, from + c) - parts.x - parts.y));
}

void row(uint r, uint n)
{
    switch (OP) {
    case MOE_NET_LOSS_CROSS_ENTROPY:
        cross_entropy(r, n);
        break;
    case MOE_NET_LOSS_POINT:
        point_loss(r, n);
        break;
    case MOE_NET_LOSS_MIXTURE:
        mixture(r, n);
        break;
    case MOE_NET_LOSS_Z:
        z_loss(r, n);
        break;
    }
}

void main()
{
    for (uint first = gl_WorkGroupID.x * rows_of_workgroup(); first < head.rows;
         first += gl_NumWorkGroups.x * rows_of_workgroup()) {
        uint r = first + gl_LocalInvocationID.x / p.lanes;
        row(r, r < head.rows ? p.width : 0);
    }
}
