// SPDX-License-Identifier: MIT
// The norm of a token's gate weights: each is divided by gate_divisor of gate_total of the sum of
// their gate_terms. Included after act.glsl.
layout(constant_id = MOE_SPEC_NORM) const uint NORM = 0; // enum vkmoe_norm
layout(constant_id = MOE_SPEC_NORM_P) const float NORM_P = 1.0;
layout(constant_id = MOE_SPEC_NORM_EPS) const float NORM_EPS = 0.0;
layout(constant_id = MOE_SPEC_ROUTED_SCALE) const float ROUTED_SCALE = 1.0;

const uint NORM_NONE = 0, NORM_SUM_PLUS_EPS = 1;

bool norm_has_power()
{
    return NORM != NORM_NONE && NORM_P != 1.0;
}

// With a power, `unit` is the largest |w|, or 1 where that divides nothing: powers of the quotients
// leave the range of floats later than those of the weights.
float gate_unit(float largest)
{
    return largest > 0.0 && largest < 3e38 ? largest : 1.0;
}

float gate_term(float w, float unit)
{
    float a = abs(w) / unit;
    return is_nan(w) ? w : a > 0.0 ? pow(a, NORM_P) : 0.0;
}

float gate_total(float sum, float unit)
{
    return is_nan(sum) ? sum : unit * (sum > 0.0 ? pow(sum, 1.0 / NORM_P) : 0.0);
}

float gate_divisor(float total)
{
    if (NORM == NORM_NONE)
        return 1.0;
    return NORM == NORM_SUM_PLUS_EPS ? total + NORM_EPS : at_least(total, NORM_EPS);
}
