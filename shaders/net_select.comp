#version 450
// SPDX-License-Identifier: MIT
// Selects the top_k experts of each token and makes their gate weights.
//   logits (T, E)   selection_bias (1, E)   ids, gates (T * K, 1)
// Operands: logits, [selection_bias]. Results: ids, gates.
// Dispatch: (ceil(T / tokens of a workgroup), 1, 1), or fewer: a workgroup takes every so many.
//
// An expert's place is the number of experts that come before it: larger keys, or equal ones and a
// lower index.
#extension GL_GOOGLE_include_directive : require
#define NET_PARAMS net_select_params
#include "net.glsl"
#include "net_scores.glsl"
shared uint keys[PLACES];

// Unsigned order of keys = order of floats; -0 equals +0; NaN below all of them.
uint order_key(float v)
{
    if (is_nan(v))
        return 0;
    uint bits = floatBitsToUint(v);
    bits = bits == 0x80000000u ? 0 : bits; // `v == 0.0 ? 0.0 : v` is v to some compilers
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

void make_keys(uint n)
{
    for (uint e = lane(); e < n; e += p.lanes) {
        float bias = has_in(1) ? in_at(1, e) : 0.0;
        keys[token_base() + e] = order_key(values[token_base() + e] + bias);
    }
    barrier();
}

uint place_of(uint expert, uint n)
{
    uint place = 0, base = token_base(), key = keys[base + expert];
    for (uint e = 0; e < n; e++) {
        uint k = keys[base + e];
        place += k > key || (k == key && e < expert) ? 1 : 0;
    }
    return place;
}

// values[place] = what the gate of that place is made of.
void choose(uint token, uint n)
{
    uint base = token_base(), j = 0;
    float mine[MAX_MINE];
    for (uint e = lane(); e < n; e += p.lanes)
        mine[j++] = values[base + e];
    barrier();
    j = 0;
    for (uint e = lane(); e < n; e += p.lanes, j++) {
        uint place = place_of(e, n);
        if (place < p.top_k) {
            values[base + place] = mine[j];
            set_uint(0, token * p.top_k + place, e);
        }
    }
    barrier();
}

void select_of(uint token, uint n)
{
    load_logits(token, n);
    bool by_logit = RANK != 0;
    if (by_logit)
        make_keys(n);
    if (OF_SELECTED != 0 && !by_logit) { // scores for the keys, but gates of logits
        score_values(n);
        make_keys(n);
        load_logits(token, n);
    } else if (OF_SELECTED == 0) {
        score_values(n);
        if (!by_logit)
            make_keys(n);
    }
    choose(token, n);
    uint n_places = n > 0 ? p.top_k : 0;
    if (OF_SELECTED != 0)
        softmax_of_values(n_places);
    float sum = 0.0;
    bool constant;
    for (uint k = 0; k < n_places; k++)
        sum += values[token_base() + k];
    float divisor = gate_divisor(sum, constant);
    for (uint k = lane(); k < n_places; k += p.lanes)
        set(1, token * p.top_k + k, values[token_base() + k] / divisor * p.routed_scale);
}

void main()
{
    for (uint first = gl_WorkGroupID.x * tokens_of_workgroup(); first < head.rows;
         first += gl_NumWorkGroups.x * tokens_of_workgroup()) {
        uint token = first + gl_LocalInvocationID.x / p.lanes;
        select_of(token, token < head.rows ? p.n_experts : 0);
    }
}
