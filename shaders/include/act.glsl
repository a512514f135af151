// SPDX-License-Identifier: MIT
// Activations, numbered as enum vkmoe_act. GLSL's own tanh may lose small arguments and it has no
// erf, so both are written out here; each is within 2e-7 of the true value, absolute.
// Included after element.glsl.

// A comparison alone does not keep a NaN: drivers make min and max of it, which drop one.
float at_least(float v, float least)
{
    return is_nan(v) ? v : v < least ? least : v;
}

float at_most(float v, float most)
{
    return is_nan(v) ? v : v > most ? most : v;
}

// exp that keeps a NaN; SwiftShader's own turns it into a number.
float act_exp(float v)
{
    return is_nan(v) ? v : exp(v);
}

float act_sigmoid(float v)
{
    return 1.0 / (1.0 + act_exp(-v));
}

// Below 0.25 the odd Taylor polynomial (next term under 1e-8 of v), above it by exp.
float act_tanh(float v)
{
    float a = abs(v);
    if (a < 0.25) {
        float s = v * v;
        return v * (1.0 + s * (-1.0 / 3 + s * (2.0 / 15 + s * (-17.0 / 315 + s * (62.0 / 2835)))));
    }
    float t = 1.0 - 2.0 / (act_exp(2.0 * a) + 1.0);
    return v < 0.0 ? -t : t;
}

// Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
float act_erf(float v)
{
    float a = abs(v);
    float t = 1.0 / (1.0 + 0.3275911 * a);
    float p = t * (0.254829592 +
                   t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    float e = 1.0 - p * exp(-a * a);
    return v < 0.0 ? -e : e;
}

float activate(uint kind, float alpha, float v)
{
    switch (kind) {
    case 1:
        return v * act_sigmoid(alpha * v);
    case 2:
        return 0.5 * v * (1.0 + act_erf(v * 0.70710678118654752));
    case 3:
        return 0.5 * v * (1.0 + act_tanh(0.79788456080286536 * (v + 0.044715 * v * v * v)));
    case 4:
        return at_least(v, 0.0);
    case 5:
        return at_least(v, 0.0) * at_least(v, 0.0);
    case 6:
        return act_sigmoid(v);
    case 7:
        return act_tanh(v);
    default:
        return v;
    }
}
