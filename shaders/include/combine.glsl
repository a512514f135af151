// SPDX-License-Identifier: MIT
// The steps of a token's sum, in the order they are taken. Spelled out and precise, so that the
// kernels that combine give the same bits.
float combine_slot(float y, float gate, float f)
{
    precise float sum = fma(gate, f, y);
    return sum;
}

float combine_scale(float y, float routed_scale)
{
    precise float scaled = y * routed_scale;
    return scaled;
}

float combine_shared(float y, float shared_scale, float gate, float f)
{
    precise float factor = shared_scale * gate;
    precise float sum = fma(factor, f, y);
    return sum;
}
