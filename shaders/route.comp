#version 450
// SPDX-License-Identifier: MIT
// Router: logits, scores, selection and gate weights of a few tokens.
//   l[t, e] = sum_i h[t, i] * w[i, e] + bias[e]
//   h = x, or x / sqrt(mean x^2 + PRENORM_EPS) * prenorm * PRENORM_CONST; then the soft-cap on l
//   x (n_tokens, d_model)   w (d_model, quads * 4) f32, expert-minor   bias (quads * 4) f32
//   rows of w behind the experts: the shared expert's gate, GATE_ROWS of them
//   routing: ids, gates (n_tokens, top_k)  [shared_gate (n_tokens, GATE_ROWS)]
//            [scores (n_tokens, n_scored)]
//   output, read here: token ids (n_tokens) i32, where a table selects; a token whose id is not in
//   it gets gates of NaN
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
#define OUTPUT_ACCESS readonly
#include "buffers.glsl"
#include "counters.glsl"
#include "element.glsl"
#include "act.glsl"
#include "softplus.glsl"
#include "order_key.glsl"
layout(constant_id = 0) const uint INPUT_TYPE = 0; // of x, enum vkmoe_dtype
layout(constant_id = MOE_SPEC_FLAGS) const uint FLAGS = 0; // MOE_ROUTE_*
layout(constant_id = MOE_SPEC_GATE_SOURCE) const uint SOFTMAX_SELECTED = 0;
layout(constant_id = MOE_SPEC_PRENORM_CONST) const float PRENORM_CONST = 1.0;
layout(constant_id = MOE_SPEC_PRENORM_EPS) const float PRENORM_EPS = 0.0;
layout(constant_id = MOE_SPEC_GATE_ROWS) const uint GATE_ROWS = 0;
#include "route_lanes.glsl"
#include "route_score.glsl"
#include "route_select.glsl"
#include "gate_norm.glsl"

const bool PRENORM = (FLAGS & MOE_ROUTE_PRENORM) != 0;

shared float prenorm_factors[MOE_ROUTE_TOKENS];

float weight_float(uint at, uint i)
{
    COUNT_ROUTER(1);
    return uintBitsToFloat(weights(at + (i >> 2))[i & 3]);
}

float vector_at(uint vector, uint i)
{
    return weight_float(p.vectors + vector * p.quads, i);
}

float x_at(uint token, uint i)
{
    uint row = (head.first_token + token) * head.x_stride;
    return element_from(INPUT_TYPE, input_at(row + i / elements_per_word(INPUT_TYPE)), i);
}

// ---- logits ------------------------------------------------------------------------------------

// What the norm multiplies each token's logits with, its scale apart.
void norm_inputs(uint first_token, uint n)
{
    uint lid = gl_LocalInvocationID.x;
    for (uint t = 0; t < n; t++) {
        float sum = 0.0;
        for (uint i = lid; i < p.d_model; i += MOE_LOCAL_SIZE) {
            float x = x_at(first_token + t, i);
            sum = fma(x, x, sum);
        }
        sum = reduce(lid, MOE_LOCAL_SIZE, sum, false);
        if (lid == 0)
            prenorm_factors[t] = PRENORM_CONST / sqrt(sum / float(p.d_model) + PRENORM_EPS);
    }
}

// Partial sums of the dot products.
void dot_products(uint first_token, uint n)
{
    uint lid = gl_LocalInvocationID.x;
    uint stride = p.quads * 4;
    uint part = lid / p.quads;
    if (part >= p.parts)
        return;
    uint begin = part * p.part_size;
    uint end = min(begin + p.part_size, p.d_model);
    for (uint quad = lid % p.quads; quad < p.quads; quad += MOE_LOCAL_SIZE) {
        vec4 sum[MOE_ROUTE_TOKENS];
        for (uint t = 0; t < MOE_ROUTE_TOKENS; t++)
            sum[t] = vec4(0);
        for (uint i = begin; i < end; i++) {
            vec4 w = uintBitsToFloat(weights(p.weight + i * p.quads + quad));
            COUNT_ROUTER(4);
            if (PRENORM)
                w *= weight_float(p.prenorm, i);
            for (uint t = 0; t < n; t++)
                sum[t] = fma(vec4(x_at(first_token + t, i)), w, sum[t]);
        }
        for (uint t = 0; t < n; t++)
            for (uint j = 0; j < 4; j++)
                values[(part * p.tokens + t) * stride + quad * 4 + j] = sum[t][j];
    }
}

// values[token * stride + row] = logit; stride is quads * 4.
void logits(uint first_token, uint n)
{
    uint stride = p.quads * 4;
    if (PRENORM)
        norm_inputs(first_token, n);
    dot_products(first_token, n);
    barrier();
    // Part 0 becomes the total: every element is touched by one invocation only.
    for (uint i = gl_LocalInvocationID.x; i < n * stride; i += MOE_LOCAL_SIZE) {
        float sum = values[i];
        for (uint q = 1; q < p.parts; q++)
            sum += values[q * p.tokens * stride + i];
        if (PRENORM)
            sum *= prenorm_factors[i / stride];
        float logit = sum + vector_at(MOE_VECTOR_BIAS, i % stride);
        values[i] = i % stride < p.n_scored ? soft_cap(logit) : logit;
    }
    barrier();
}

// ---- scores ------------------------------------------------------------------------------------

// Of the softmax over a token's experts: the largest logit and what it divides by.
vec2 softmax_of(token_lanes t)
{
    float top = NEGATIVE_INFINITY, sum = 0.0;
    if (SCORE != SCORE_SOFTMAX)
        return vec2(top, sum);
    for (uint e = t.lane; e < t.n_mine; e += p.span)
        top = values[t.base + e] > top ? values[t.base + e] : top;
    top = reduce(t.lane, p.span, top, true);
    for (uint e = t.lane; e < t.n_mine; e += p.span)
        sum += act_exp(values[t.base + e] - top);
    return vec2(top, reduce(t.lane, p.span, sum, false));
}

bool gates_are_of_logits()
{
    return SOFTMAX_SELECTED != 0 || SELECT == SELECT_SPARSEMIXER;
}

// Keys by which a token's experts rank, and values that its gates are made of.
void rank_experts(token_lanes t, vec2 softmax)
{
    for (uint e = t.lane; e < t.n_mine; e += p.span) {
        float logit = values[t.base + e], score = score_of(logit, softmax.x, softmax.y);
        float rank = SELECT == SELECT_SPARSEMIXER ? logit : rank_of(logit, score);
        rank += vector_at(MOE_VECTOR_SELECTION, e);
        keys[t.base + e] = order_key(rank);
        if (!gates_are_of_logits())
            values[t.base + e] = score;
    }
    mask_groups(t);
}

void write_scores(token_lanes t, uint token)
{
    if ((FLAGS & MOE_ROUTE_SCORES) != 0)
        for (uint e = t.lane; e < t.n_mine; e += p.span)
            routing(p.scores + token * p.n_scored + e) = key_bits(keys[t.base + e]);
}

// ---- gate weights ------------------------------------------------------------------------------

// The softmax over the selected experts' logits: the largest of them and the factor.
vec2 softmax_of_selected(uint base, uint n)
{
    float top = NEGATIVE_INFINITY, sum = 0.0;
    for (uint k = 0; k < n; k++) {
        float v = values[base + chosen[base + k]];
        top = v > top ? v : top;
    }
    for (uint k = 0; k < n; k++)
        sum += act_exp(values[base + chosen[base + k]] - top);
    return vec2(top, 1.0 / sum);
}

bool softmax_selected()
{
    return SOFTMAX_SELECTED != 0 && SELECT != SELECT_SPARSEMIXER;
}

// Of place k, before the norm.
float gate_weight(uint base, uint k, vec2 softmax)
{
    float v = values[base + chosen[base + k]];
    return softmax_selected() ? act_exp(v - softmax.x) * softmax.y : v;
}

// What gate weights are multiplied with, their expert's scale apart.
float gate_scale(uint base, uint n, vec2 softmax)
{
    if ((FLAGS & MOE_ROUTE_KEPT) != 0)
        return 1.0;
    float sum = 0.0;
    if (norm_has_power()) {
        float largest = 0.0;
        for (uint k = 0; k < n; k++)
            largest = max(largest, abs(gate_weight(base, k, softmax)));
        float unit = gate_unit(largest);
        for (uint k = 0; k < n; k++)
            sum += gate_term(gate_weight(base, k, softmax), unit);
        sum = gate_total(sum, unit);
    } else if (softmax_selected()) {
        sum = is_nan(softmax.y) ? softmax.y : 1.0;
    } else {
        for (uint k = 0; k < n; k++)
            sum += gate_weight(base, k, softmax);
    }
    return ROUTED_SCALE / gate_divisor(sum);
}

// How many places are used until the scores reach SELECT_P.
uint count_until_sum(uint base, vec2 softmax)
{
    float sum = 0.0;
    for (uint k = 0; k < p.top_k; k++) {
        float v = values[base + chosen[base + k]];
        sum += gates_are_of_logits() ? score_of(v, softmax.x, softmax.y) : v;
        if (sum >= SELECT_P)
            return k + 1;
    }
    return p.top_k;
}

// Ids and gate weights of one token; one invocation. n places are used; softmax is of all experts.
void write_gates(uint base, uint slot, uint n, vec2 softmax, bool valid)
{
    if (SELECT == SELECT_TOP_P)
        n = count_until_sum(base, softmax);
    vec2 selected = softmax_selected() ? softmax_of_selected(base, n) : vec2(0.0);
    float scale = gate_scale(base, n, selected);
    bool scaled = (FLAGS & MOE_ROUTE_EXPERT_SCALE) != 0 && (FLAGS & MOE_ROUTE_KEPT) == 0;
    for (uint k = 0; k < p.top_k; k++) {
        uint expert = k < n ? chosen[base + k] : 0;
        float gate = gate_weight(base, min(k, n - 1), selected) * scale;
        if (scaled)
            gate *= vector_at(MOE_VECTOR_EXPERT_SCALE, expert);
        gate = valid ? gate : NOT_A_NUMBER;
        routing(p.ids + slot + k) = k < n ? expert : MOE_NONE;
        routing(p.gates + slot + k) = k < n ? floatBitsToUint(gate) : 0;
    }
}

void write_shared_gate(uint base, uint token)
{
    float a = values[base + p.n_scored];
    if (GATE_ROWS == 1)
        routing(p.shared_gate + token) = floatBitsToUint(act_sigmoid(a));
    if (GATE_ROWS != 2)
        return;
    float b = values[base + p.n_scored + 1];
    routing(p.shared_gate + 2 * token) = floatBitsToUint(act_sigmoid(a - b));
    routing(p.shared_gate + 2 * token + 1) = floatBitsToUint(act_sigmoid(b - a));
}

// ---- main --------------------------------------------------------------------------------------

#ifndef MOE_BDA
layout(constant_id = MOE_SPEC_TABLE) const uint TABLE = 0;

// The word of an expert's entry that tells where it begins; entries are two to a uvec4.
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

    // From here on a token has `width` lanes, `span` of which have experts.
    uint width = MOE_LOCAL_SIZE / p.tokens, token = lid / width;
    token_lanes t;
    t.lane = lid % width;
    t.base = token * p.quads * 4;
    t.n_mine = token < n && t.lane < p.span ? p.n_scored : 0;

    vec2 softmax = softmax_of(t);
    rank_experts(t, softmax);
    write_scores(t, first_token + token);
    uint n_used = SELECT == SELECT_THRESHOLD ? count_reached(t) : p.top_k;
    bool valid = true;
    if (SELECT == SELECT_TABLE) {
        uint row = min(first_token + token, head.n_tokens - 1); // inside, see buffers.glsl
        uint id = output_at(head.first_token + row);
        valid = id < p.n_token_ids;
        select_by_table(t, id);
    } else if (SELECT == SELECT_SPARSEMIXER) {
        select_sparsemixer(t);
    } else {
        select_ranked(t);
    }

    barrier();
    if (t.n_mine > 0 && t.lane == 0) {
        write_gates(t.base, (first_token + token) * p.top_k, n_used, softmax, valid);
        write_shared_gate(t.base, first_token + token);
    }
    COUNT_END(n > 0);
}
