// SPDX-License-Identifier: MIT
// An expert's packed weights. The head of the weights buffer is a table of 8-byte entries, one an
// expert: a device address, or with descriptors an offset in uvec4; (0, 0) means absent.
// A weight type is a case in weight_unpack. Included after buffers.glsl.
layout(constant_id = 0) const uint WEIGHT_TYPE = 0; // enum vkmoe_dtype

const uint WEIGHT_F32 = 0, WEIGHT_F16 = 1, WEIGHT_BF16 = 2;

// Weights in one uvec4.
const uint WEIGHTS_PER_VEC = WEIGHT_TYPE == WEIGHT_F32 ? 4 : 8;

uvec2 expert_base(uint expert)
{
    uvec4 pair = weights(expert >> 1);
    return (expert & 1) == 0 ? pair.xy : pair.zw;
}

bool expert_absent(uvec2 base)
{
    return base.x == 0 && base.y == 0;
}

uvec4 expert_load(uvec2 base, uint i)
{
#ifdef MOE_BDA
    return WeightsRef(base).v[i];
#else
    return weights(base.x + i);
#endif
}

// The i-th f32 of an array that starts at uvec4 `at` of the block.
float expert_float(uvec2 base, uint at, uint i)
{
    return uintBitsToFloat(expert_load(base, at + (i >> 2))[i & 3]);
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
