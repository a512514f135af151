// SPDX-License-Identifier: MIT
// What an expert makes of the two halves of its first matmul, or of one. Clamps, addend and SiTU
// are fixed for a plan. Included after act.glsl.
//   gated:  a(g) * u,  g the gate half, u the up half, each clamped before or after a
//   SiTU:   a(g) = beta tanh(g / beta) sigmoid(g),  u becomes lambda tanh(u / lambda)
layout(constant_id = 8) const uint CLAMP = 0; // enum vkmoe_clamp
layout(constant_id = 9) const float LIMIT = 0.0;
layout(constant_id = 10) const float UP_ADD = 0.0;
layout(constant_id = 11) const float SITU_BETA = 0.0; // 0: another activation
layout(constant_id = 12) const float SITU_LAMBDA = 0.0; // 0: u stays as it is
layout(constant_id = 13) const uint WEIGHTED = 0; // the gate weight multiplies the expert's input

const uint CLAMP_BEFORE = 1, CLAMP_AFTER = 2;

// A matrix times an input that a factor multiplies is the factor times the product.
float weighted_sum(float sum, float factor, float bias)
{
    return WEIGHTED != 0 ? fma(factor, sum, bias) : sum + bias;
}

float expert_act(uint kind, float alpha, float v)
{
    if (SITU_BETA != 0.0)
        return SITU_BETA * act_tanh(v / SITU_BETA) * act_sigmoid(v);
    return activate(kind, alpha, v);
}

float up_half(float u)
{
    if (CLAMP != 0)
        u = at_least(at_most(u, LIMIT), -LIMIT);
    if (SITU_LAMBDA != 0.0)
        u = SITU_LAMBDA * act_tanh(u / SITU_LAMBDA);
    if (UP_ADD != 0.0)
        u += UP_ADD;
    return u;
}

float expert_gated(uint kind, float alpha, float g, float u)
{
    if (CLAMP == CLAMP_BEFORE)
        g = at_most(g, LIMIT);
    float a = expert_act(kind, alpha, g);
    if (CLAMP == CLAMP_AFTER)
        a = at_most(a, LIMIT);
    return a * up_half(u);
}
