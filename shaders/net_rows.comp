#version 450
// SPDX-License-Identifier: MIT
// Ops on rows: row r of the result needs sums over row r. Of SHARE and its backward, which need the
// top_k slots of a token, r is the token. What each op computes is told in src/core/net.h. OP:
// MOE_NET_ROW_*; RMS: a norm without mean.
// Dispatch: (ceil(rows / rows of a workgroup), 1, 1), or fewer: a workgroup takes every so many.
#extension GL_GOOGLE_include_directive : require
#define NET_PARAMS net_rows_params
#include "net.glsl"
#include "net_lanes.glsl"
layout(constant_id = 0) const uint OP = 0;
layout(constant_id = 1) const uint RMS = 0;

// n: elements of the row; 0 where there is none, so that its lanes meet barriers alone.

void row_dot(uint r, uint n)
{
    uint a = r / p.div0 * p.width, b = r / p.div1;
    if (has_in(2) && n > 0)
        b = in_uint(2, r);
    b *= p.width;
    float sum = 0.0;
    for (uint c = lane_of(); c < n; c += p.lanes)
        sum += in_at(0, a + c) * in_at(1, b + c);
    sum = lanes_sum(sum);
    if (lane_of() == 0 && n > 0)
        put(0, r, p.alpha * sum);
}

void softmax(uint r, uint n)
{
    uint from = r * p.width;
    float top = -NET_INFINITY, sum = 0.0;
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float v = p.alpha * in_at(0, from + c);
        top = v > top ? v : top;
    }
    top = lanes_max(top);
    for (uint c = lane_of(); c < n; c += p.lanes)
        sum += act_exp(p.alpha * in_at(0, from + c) - top);
    sum = lanes_sum(sum);
    for (uint c = lane_of(); c < n; c += p.lanes)
        set(0, from + c, act_exp(p.alpha * in_at(0, from + c) - top) / sum);
}

void softmax_backward(uint r, uint n)
{
    uint from = r * p.width;
    float sum = 0.0;
    for (uint c = lane_of(); c < n; c += p.lanes)
        sum += in_at(0, from + c) * in_at(1, from + c);
    sum = lanes_sum(sum);
    for (uint c = lane_of(); c < n; c += p.lanes)
        put(0, from + c, p.alpha * in_at(1, from + c) * (in_at(0, from + c) - sum));
}

// |r|_1 of a slot, r being operand k.
float response(uint k, uint slot, uint n)
{
    float sum = 0.0;
    for (uint c = lane_of(); c < n; c += p.lanes)
        sum += abs(in_at(k, slot * p.width + c));
    return lanes_sum(sum);
}

float responses(uint k, uint token, uint n)
{
    float sum = 0.0;
    for (uint j = 0; j < p.top_k; j++)
        sum += response(k, token * p.top_k + j, n);
    return sum;
}

void share(uint token, uint n)
{
    float sum = responses(0, token, n);
    for (uint j = 0; j < p.top_k; j++) {
        uint slot = token * p.top_k + j;
        float own = response(0, slot, n);
        if (lane_of() == 0 && n > 0)
            set(0, slot, sum == 0.0 ? 1.0 / float(p.top_k) : own / (sum + p.eps));
    }
}

void share_backward(uint token, uint n)
{
    float sum = responses(1, token, n), divisor = sum + p.eps, mean = 0.0;
    for (uint j = 0; j < p.top_k; j++) {
        uint slot = token * p.top_k + j;
        float own = response(1, slot, n);
        if (n > 0)
            mean += in_at(0, slot) * own / divisor;
    }
    for (uint j = 0; j < p.top_k && n > 0; j++) {
        uint slot = token * p.top_k + j;
        float d = sum == 0.0 ? 0.0 : (in_at(0, slot) - mean) / divisor;
        for (uint c = lane_of(); c < n; c += p.lanes) {
            float v = in_at(1, slot * p.width + c);
            put(0, slot * p.width + c, d * (v > 0.0 ? 1.0 : v < 0.0 ? -1.0 : 0.0));
        }
    }
}

void norm(uint r, uint n)
{
    uint from = r * p.width;
    float mean = 0.0, variance = 0.0, width = float(p.width);
    if (RMS == 0) {
        for (uint c = lane_of(); c < n; c += p.lanes)
            mean += in_at(0, from + c);
        mean = lanes_sum(mean) / width;
    }
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float d = in_at(0, from + c) - mean;
        variance += d * d;
    }
    float inverse = 1.0 / sqrt(lanes_sum(variance) / width + p.eps);
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float v = (in_at(0, from + c) - mean) * inverse;
        v = has_in(1) ? v * in_at(1, c) : v;
        set(0, from + c, has_in(2) ? v + in_at(2, c) : v);
    }
    if (lane_of() == 0 && n > 0) {
        set(1, r * 2, mean);
        set(1, r * 2 + 1, inverse);
    }
}

// x = (a - mean) i, e = gain dy: da = i (e - mean(e) - x mean(e x)); RMS has no mean(e).
void norm_backward(uint r, uint n)
{
    uint from = r * p.width;
    float mean = 0.0, inverse = 0.0, mean_e = 0.0, mean_ex = 0.0, width = float(p.width);
    if (n > 0) {
        mean = in_at(3, r * 2);
        inverse = in_at(3, r * 2 + 1);
    }
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float e = has_in(2) ? in_at(2, c) * in_at(0, from + c) : in_at(0, from + c);
        mean_e += e;
        mean_ex += e * ((in_at(1, from + c) - mean) * inverse);
    }
    mean_e = RMS == 0 ? lanes_sum(mean_e) / width : 0.0;
    mean_ex = lanes_sum(mean_ex) / width;
    for (uint c = lane_of(); c < n; c += p.lanes) {
        float e = has_in(2) ? in_at(2, c) * in_at(0, from + c) : in_at(0, from + c);
        float x = (in_at(1, from + c) - mean) * inverse;
        put(0, from + c, inverse * (e - mean_e - x * mean_ex));
    }
}

void row(uint r, uint n)
{
    switch (OP) {
    case MOE_NET_ROW_DOT_OP:
        row_dot(r, n);
        break;
    case MOE_NET_ROW_SOFTMAX:
        softmax(r, n);
        break;
    case MOE_NET_ROW_SOFTMAX_BACKWARD:
        softmax_backward(r, n);
        break;
    case MOE_NET_ROW_SHARE:
        share(r, n);
        break;
    case MOE_NET_ROW_SHARE_BACKWARD:
        share_backward(r, n);
        break;
    case MOE_NET_ROW_NORM:
        norm(r, n);
        break;
    case MOE_NET_ROW_NORM_BACKWARD:
        norm_backward(r, n);
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
