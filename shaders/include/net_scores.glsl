// SPDX-License-Identifier: MIT
// What net_select.comp and its backward share: a token has p.lanes neighbouring invocations, which
// have its experts e = lane, lane + lanes, ... As many tokens as there is room for are in a
// workgroup; lanes of absent tokens only meet barriers. Included after net.glsl.
layout(constant_id = 0) const uint SCORE = 0;       // enum vkmoe_score: softmax, sigmoid or none
layout(constant_id = 1) const uint RANK = 0;        // enum vkmoe_rank: score or logit
layout(constant_id = 2) const uint OF_SELECTED = 0; // gates: softmax of the selected logits
layout(constant_id = 3) const uint NORM = 0;        // enum vkmoe_norm
layout(constant_id = 4) const uint PLACES = MOE_NET_SHARED_EXPERTS; // experts of a workgroup

const uint SCORE_SOFTMAX = 0, SCORE_SIGMOID = 1;
const uint NORM_NONE = 0, NORM_SUM_PLUS_EPS = 1;
const uint MAX_MINE = MOE_NET_SHARED_EXPERTS / MOE_LOCAL_SIZE;

shared float values[PLACES]; // by expert: logits, then what gates are made of
shared float others[PLACES]; // by expert or place

uint lane()
{
    return gl_LocalInvocationID.x % p.lanes;
}

// Where the experts of this invocation's token begin in shared memory, also its places.
uint token_base()
{
    return gl_LocalInvocationID.x / p.lanes * p.n_experts;
}

uint tokens_of_workgroup()
{
    return MOE_LOCAL_SIZE / p.lanes;
}

// values[i] = exp(values[i] - max) / sum, of n neighbours; uses `others`.
void softmax_of_values(uint n)
{
    uint base = token_base();
    float top = -NET_INFINITY, sum = 0.0;
    for (uint i = 0; i < n; i++)
        top = values[base + i] > top ? values[base + i] : top;
    for (uint i = lane(); i < n; i += p.lanes)
        others[base + i] = act_exp(values[base + i] - top);
    barrier();
    for (uint i = 0; i < n; i++)
        sum += others[base + i];
    for (uint i = lane(); i < n; i += p.lanes)
        values[base + i] = others[base + i] / sum;
    barrier();
}

// values = logits of a token; n: its experts, 0 if it is absent.
void load_logits(uint token, uint n)
{
    barrier(); // what was here before has been read
    for (uint e = lane(); e < n; e += p.lanes)
        values[token_base() + e] = in_at(0, token * p.n_experts + e);
    barrier();
}

// Logits in `values` become scores.
void score_values(uint n)
{
    if (SCORE == SCORE_SOFTMAX) {
        softmax_of_values(n);
    } else if (SCORE == SCORE_SIGMOID) {
        for (uint e = lane(); e < n; e += p.lanes)
            values[token_base() + e] = act_sigmoid(values[token_base() + e]);
        barrier();
    }
}

// What gates of this sum are divided by; *constant: it does not depend on the sum.
float gate_divisor(float sum, out bool constant)
{
    constant = true;
    if (NORM == NORM_NONE)
        return 1.0;
    if (NORM != NORM_SUM_PLUS_EPS && sum < p.norm_eps)
        return p.norm_eps;
    constant = false;
    return NORM == NORM_SUM_PLUS_EPS ? sum + p.norm_eps : sum;
}
