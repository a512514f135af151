// SPDX-License-Identifier: MIT
// The steps of a token's sum, in the order they are taken. Spelled out and precise, so that the
// kernels that combine give the same bits.
float combine_slot(float y, float gate, float f)
{
    precise float sum = fma(gate, f, y);
    return sum;
}

float combine_adjugate(float y, float gate, float adjugate_scale, float f)
{
    precise float factor = gate * adjugate_scale;
    precise float sum = fma(factor, f, y);
    return sum;
}

float combine_bias(float y, float bias)
{
    precise float sum = y + bias;
    return sum;
}

float combine_scale(float y, float routed_scale)
{
    precise float scaled = y * routed_scale;
    return scaled;
}

// The same where the routed sum has a gate of its own.
float combine_gated(float y, float routed_scale, float gate)
{
    precise float factor = routed_scale * gate;
    precise float scaled = y * factor;
    return scaled;
}

float combine_shared(float y, float shared_scale, float gate, float f)
{
    precise float factor = shared_scale * gate;
    precise float sum = fma(factor, f, y);
    return sum;
}
