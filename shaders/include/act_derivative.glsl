// SPDX-License-Identifier: MIT
// Derivatives of the activations, numbered as enum vkmoe_act. Included after act.glsl.

// s (1 - s), with 1 - s = sigmoid(-v) so that nothing cancels.
float sigmoid_derivative(float v)
{
    return act_sigmoid(v) * act_sigmoid(-v);
}

// v / 2 (1 + tanh u), u = c (v + a v^3), and tanh' = 4 sigmoid'(2u). Where u is large the second
// term is 0, though v^2 may be infinite.
float gelu_tanh_derivative(float v)
{
    float u = 0.79788456080286536 * (v + 0.044715 * v * v * v);
    float slope = 2.0 * sigmoid_derivative(2.0 * u);
    float second =
        slope == 0.0 ? 0.0 : v * slope * (0.79788456080286536 * (1.0 + 0.134145 * v * v));
    return 0.5 * (1.0 + act_tanh(u)) + second;
}

float activate_derivative(uint kind, float alpha, float v)
{
    switch (kind) {
    case 1:
        return act_sigmoid(alpha * v) + v * alpha * sigmoid_derivative(alpha * v);
    case 2:
        return 0.5 * (1.0 + act_erf(v * 0.70710678118654752)) +
               v * act_exp(-0.5 * v * v) * 0.39894228040143268;
    case 3:
        return gelu_tanh_derivative(v);
    case 4:
        return is_nan(v) ? v : v > 0.0 ? 1.0 : 0.0;
    case 5:
        return 2.0 * at_least(v, 0.0);
    case 6:
        return sigmoid_derivative(v);
    case 7:
        return 4.0 * sigmoid_derivative(2.0 * v);
    default:
        return 1.0;
    }
}
