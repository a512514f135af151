// SPDX-License-Identifier: MIT
// An expert's packed weights. The weights buffer begins with a table of 8-byte entries, one an
// expert: a device address, or with descriptors an offset in uvec4, which route.comp copies to
// where every kernel has it bound; 0 means absent.
// A weight type is a case in weight_unpack. Included after counters.glsl.
layout(constant_id = 0) const uint WEIGHT_TYPE = 0; // enum vkmoe_dtype

const uint WEIGHT_F32 = 0, WEIGHT_F16 = 1, WEIGHT_BF16 = 2;

// Weights in one uvec4.
const uint WEIGHTS_PER_VEC = WEIGHT_TYPE == WEIGHT_F32 ? 4 : 8;

// Where an expert's block begins.
uvec2 expert_base(uint expert)
{
#ifdef MOE_BDA
    uvec4 pair = weights(expert >> 1);
    return (expert & 1) == 0 ? pair.xy : pair.zw;
#else
    return uvec2(routing(MOE_TABLE_WORD + expert), 0);
#endif
}

bool expert_absent(uvec2 base)
{
    return base.x == 0 && base.y == 0;
}

// `window` is subtracted from what may be beyond 32 bits; the difference never is.
uvec4 expert_load(uvec2 base, uint window, uint i)
{
    COUNT_WEIGHTS();
#ifdef MOE_BDA
    return WeightsRef(base).v[i];
#else
    return weights(base.x - window + i);
#endif
}

// Packed rows come in panels of MOE_PANEL_ROWS, each followed by its rows' biases in f32.
// The first uvec4 of a row of a matrix that begins at uvec4 `matrix` of the block.
uint row_at(uint matrix, uint stride, uint row)
{
    return matrix + row * stride + row / MOE_PANEL_ROWS * (MOE_PANEL_ROWS / 4);
}

float row_bias(uvec2 base, uint window, uint matrix, uint stride, uint row)
{
    uint panel = row / MOE_PANEL_ROWS, i = row % MOE_PANEL_ROWS;
    uint at = row_at(matrix, stride, panel * MOE_PANEL_ROWS) + MOE_PANEL_ROWS * stride;
    return uintBitsToFloat(expert_load(base, window, at + i / 4)[i % 4]);
}

// The WEIGHTS_PER_VEC weights of a uvec4, in order: lo, then hi for the 16-bit types.
void weight_unpack(uvec4 v, out vec4 lo, out vec4 hi)
{
    if (WEIGHT_TYPE == WEIGHT_F32) {
        lo = uintBitsToFloat(v);
        hi = vec4(0);
    } else if (WEIGHT_TYPE == WEIGHT_F16) {
        lo = vec4(unpackHalf2x16(v.x), unpackHalf2x16(v.y));
        hi = vec4(unpackHalf2x16(v.z), unpackHalf2x16(v.w));
    } else {
        lo = uintBitsToFloat(uvec4(v.x << 16, v.x & 0xffff0000u, v.y << 16, v.y & 0xffff0000u));
        hi = uintBitsToFloat(uvec4(v.z << 16, v.z & 0xffff0000u, v.w << 16, v.w & 0xffff0000u));
    }
}
