// SPDX-License-Identifier: MIT
// log(1 + exp(v)) without log, which loses most of its digits near 1 on some devices. Included
// after act.glsl.

// 2 atanh(s) for |s| <= 1/3: the odd series; the next term is below 2e-9 of it.
float two_atanh(float s)
{
    float q = s * s;
    float sum = 1.0 / 15;
    sum = fma(sum, q, 1.0 / 13);
    sum = fma(sum, q, 1.0 / 11);
    sum = fma(sum, q, 1.0 / 9);
    sum = fma(sum, q, 1.0 / 7);
    sum = fma(sum, q, 1.0 / 5);
    sum = fma(sum, q, 1.0 / 3);
    return 2.0 * s * fma(sum, q, 1.0);
}

// log(1 + exp(v)); NaN stays NaN.
float softplus(float v)
{
    float t = act_exp(-abs(v));
    return (v < 0.0 ? 0.0 : v) + two_atanh(t / (2.0 + t));
}
