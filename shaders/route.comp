#version 450
// SPDX-License-Identifier: MIT
// Router: logits, scores, selection and gate weights of a few tokens.
//   l[t, e] = sum_i x[t, i] * w[i, e] + bias[e]
//   x (n_tokens, d_model)   w (d_model, quads * 4) f32, expert-minor   bias (quads * 4) f32
//   routing: ids, gates (n_tokens, top_k)  [shared_gate (n_tokens)]  [scores (n_tokens, n_experts)]
// Dispatch: (ceil(n_tokens / p.tokens), 1, 1)
//
// The dot products are split over (quad of experts, part of d_model); the parts are added in order.
// Then each token has a span of invocations, and expert e belongs to invocation e % span. Selection
// is top_k rounds of finding the best of what each invocation has left, ties to the lower index.
// With descriptors the first workgroup also copies the table of experts.
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    route_params p;
};
#define WEIGHTS_ACCESS readonly
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS
#include "buffers.glsl"
#include "counters.glsl"
#include "element.glsl"
#include "act.glsl"
layout(constant_id = 0) const uint INPUT_TYPE = 0; // of x, enum vkmoe_dtype

shared float values[MOE_ROUTE_VALUES]; // partial sums, then logits, then what gates are made of
shared uint keys[MOE_ROUTE_VALUES];    // what selection ranks by, as ordered integers
shared uint chosen[MOE_ROUTE_VALUES];  // expert of each place of the selection
shared float lane_values[MOE_LOCAL_SIZE];
shared uint lane_keys[MOE_LOCAL_SIZE], lane_experts[MOE_LOCAL_SIZE];

// Keys below those of all numbers.
const uint KEY_TAKEN = 0, KEY_NAN = 1;

#define NEGATIVE_INFINITY uintBitsToFloat(0xff800000u)

// Unsigned order of keys = order of floats; -0 equals +0; NaN below all of them.
uint order_key(float v)
{
    if (is_nan(v))
        return KEY_NAN;
    uint bits = floatBitsToUint(v);
    bits = bits == 0x80000000u ? 0 : bits; // `v == 0.0 ? 0.0 : v` is v to some compilers
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

float weight_float(uint at, uint i)
{
    COUNT_ROUTER(1);
    return uintBitsToFloat(weights(at + (i >> 2))[i & 3]);
}

float x_at(uint token, uint i)
{
    uint row = (head.first_token + token) * head.x_stride;
    return element_from(INPUT_TYPE, input_at(row + i / elements_per_word(INPUT_TYPE)), i);
}

// values[token * stride + row] = logit; stride is quads * 4.
void logits(uint first_token, uint n)
{
    uint lid = gl_LocalInvocationID.x;
    uint stride = p.quads * 4;
    uint part = lid / p.quads;
    if (part < p.parts) {
        uint begin = part * p.part_size;
        uint end = min(begin + p.part_size, p.d_model);
        for (uint quad = lid % p.quads; quad < p.quads; quad += MOE_LOCAL_SIZE) {
            vec4 sum[MOE_ROUTE_TOKENS];
            for (uint t = 0; t < MOE_ROUTE_TOKENS; t++)
                sum[t] = vec4(0);
            for (uint i = begin; i < end; i++) {
                vec4 w = uintBitsToFloat(weights(p.weight + i * p.quads + quad));
                COUNT_ROUTER(4);
                for (uint t = 0; t < n; t++)
                    sum[t] = fma(vec4(x_at(first_token + t, i)), w, sum[t]);
            }
            for (uint t = 0; t < n; t++)
                for (uint j = 0; j < 4; j++)
                    values[(part * p.tokens + t) * stride + quad * 4 + j] = sum[t][j];
        }
    }
    barrier();
    // Part 0 becomes the total: every element is touched by one invocation only.
    for (uint i = lid; i < n * stride; i += MOE_LOCAL_SIZE) {
        float sum = values[i];
        for (uint q = 1; q < p.parts; q++)
            sum += values[q * p.tokens * stride + i];
        values[i] = sum + weight_float(p.bias, i % stride);
    }
    barrier();
}

// Combines a value of each lane of a token in a fixed tree; all its lanes get the result.
float reduce(uint lane, float v, bool maximum)
{
    uint lid = gl_LocalInvocationID.x;
    lane_values[lid] = v;
    for (uint half_span = p.span / 2; half_span > 0; half_span /= 2) {
        barrier();
        if (lane < half_span) {
            float a = lane_values[lid], b = lane_values[lid + half_span];
            lane_values[lid] = maximum ? (b > a ? b : a) : a + b;
        }
    }
    barrier();
    float result = lane_values[lid - lane];
    barrier();
    return result;
}

// The best of the experts that are left to a lane: largest key, then lowest index.
void lane_best(uint lane, uint base, uint n_mine)
{
    uint key = KEY_TAKEN, expert = lane;
    for (uint e = lane; e < n_mine; e += p.span) {
        uint k = keys[base + e];
        expert = k > key ? e : expert;
        key = max(k, key);
    }
    lane_keys[gl_LocalInvocationID.x] = key;
    lane_experts[gl_LocalInvocationID.x] = expert;
}

// Fills a token's places with its top_k experts, best first.
void select_experts(uint lane, uint base, uint places, uint n_mine)
{
    uint lid = gl_LocalInvocationID.x;
    for (uint place = 0; place < p.top_k; place++) {
        lane_best(lane, base, n_mine);
        for (uint half_span = p.span / 2; half_span > 0; half_span /= 2) {
            barrier();
            if (lane < half_span) {
                uint key = lane_keys[lid + half_span], expert = lane_experts[lid + half_span];
                if (key > lane_keys[lid] ||
                    (key == lane_keys[lid] && expert < lane_experts[lid])) {
                    lane_keys[lid] = key;
                    lane_experts[lid] = expert;
                }
            }
        }
        barrier();
        uint winner = lane_experts[lid - lane];
        if (n_mine > 0 && lane == winner % p.span) {
            chosen[places + place] = winner;
            keys[base + winner] = KEY_TAKEN;
        }
        barrier();
    }
}

// Gate weights of one token, from the selected experts' values; one invocation.
void write_gates(uint base, uint places, uint slot)
{
    float top = NEGATIVE_INFINITY;
    bool soft = (p.rules & MOE_ROUTE_SOFTMAX_SELECTED) != 0;
    if (soft) {
        for (uint k = 0; k < p.top_k; k++) {
            float v = values[base + chosen[places + k]];
            top = v > top ? v : top;
        }
    }
    float sum = 0.0;
    for (uint k = 0; k < p.top_k; k++) {
        float v = values[base + chosen[places + k]];
        sum += soft ? act_exp(v - top) : v;
    }
    float scale = soft ? 1.0 / sum : 1.0;
    float total = soft ? 1.0 : sum;
    if ((p.rules & MOE_ROUTE_NORM_SUM) != 0)
        scale /= total + p.norm_eps;
    else if ((p.rules & MOE_ROUTE_NORM_MAX) != 0)
        scale /= total < p.norm_eps ? p.norm_eps : total;
    for (uint k = 0; k < p.top_k; k++) {
        uint expert = chosen[places + k];
        float v = values[base + expert];
        routing(p.ids + slot + k) = expert;
        routing(p.gates + slot + k) =
            floatBitsToUint((soft ? act_exp(v - top) : v) * scale * p.routed_scale);
    }
}

#ifndef MOE_BDA
// The word of an expert's entry that tells where it begins; entries are two to a uvec4.
layout(constant_id = MOE_SPEC_TABLE) const uint TABLE = 0;

void copy_table()
{
    for (uint e = gl_LocalInvocationID.x; e < TABLE; e += MOE_LOCAL_SIZE)
        routing(MOE_TABLE_WORD + e) = weights(e >> 1)[(e & 1) * 2];
}
#endif

void main()
{
    uint lid = gl_LocalInvocationID.x;
    uint first_token = gl_WorkGroupID.x * p.tokens, n_tokens = token_count();
    uint n = first_token < n_tokens ? min(p.tokens, n_tokens - first_token) : 0;
#ifndef MOE_BDA
    if (gl_WorkGroupID.x == 0)
        copy_table();
#endif
    logits(first_token, n);

    // From here on a token has `width` lanes, `span` of which have experts. Lanes without experts,
    // and those of an absent token, only meet barriers.
    uint width = MOE_LOCAL_SIZE / p.tokens;
    uint token = lid / width, lane = lid % width;
    uint base = token * p.quads * 4, places = token * p.top_k;
    uint n_mine = token < n && lane < p.span ? p.n_experts : 0;

    bool sigmoid = (p.rules & MOE_ROUTE_SIGMOID) != 0;
    float top = NEGATIVE_INFINITY, sum = 0.0;
    if (!sigmoid) {
        for (uint e = lane; e < n_mine; e += p.span)
            top = values[base + e] > top ? values[base + e] : top;
        top = reduce(lane, top, true);
        for (uint e = lane; e < n_mine; e += p.span)
            sum += act_exp(values[base + e] - top);
        sum = reduce(lane, sum, false);
    }
    for (uint e = lane; e < n_mine; e += p.span) {
        float logit = values[base + e];
        float score = sigmoid ? act_sigmoid(logit) : act_exp(logit - top) / sum;
        float rank = (p.rules & MOE_ROUTE_RANK_LOGIT) != 0 ? logit : score;
        rank += weight_float(p.selection_bias, e);
        keys[base + e] = order_key(rank);
        if ((p.rules & MOE_ROUTE_SOFTMAX_SELECTED) == 0)
            values[base + e] = score;
        if ((p.rules & MOE_ROUTE_SCORES) != 0)
            routing(p.scores + (first_token + token) * p.n_experts + e) = floatBitsToUint(rank);
    }
    select_experts(lane, base, places, n_mine);

    barrier();
    if (n_mine > 0 && lane == 0) {
        write_gates(base, places, (first_token + token) * p.top_k);
        if ((p.rules & MOE_ROUTE_SHARED_GATE) != 0)
            routing(p.shared_gate + first_token + token) =
                floatBitsToUint(act_sigmoid(values[base + p.n_experts]));
    }
    COUNT_END(n > 0);
}
