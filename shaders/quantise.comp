#version 450
// SPDX-License-Identifier: MIT
// Rows of f32 or of x to blocks of MOE_INT8_VALUES codes of 8 bits, which integer products take.
//   scale = max |v| / 127,  code = v / scale, to nearest even
//   v    rows of n_blocks blocks: x, or rows of input_stride
//   out  blocks of MOE_INT8_WORDS: codes by fours, in their order; the scale; the sums of the codes
//        of the first and of the second half, 16 bits each
// What is so small that the scale would be denormal becomes 0; where one value is not finite the
// scale is NaN.
// Dispatch: (ceil(rows / group_rows), ceil(n_blocks / MOE_QUANTISE_BLOCKS), 1). A block is
// that of eight invocations, four values each.
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    quantise_params p;
};
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"
#include "element.glsl"
layout(constant_id = 0) const uint INPUT_TYPE = 0; // enum vkmoe_dtype

const uint LANES = MOE_INT8_VALUES / 4; // of a block
const uint INFINITE = 0x7f800000u;      // and NaN above it
const float LEAST = 1.4931e-36;         // above 127 * 2^-126: the scale is a normal number

shared uint largest[MOE_LOCAL_SIZE]; // magnitudes, as bits: a NaN is the largest
shared int sums[MOE_LOCAL_SIZE];

uvec4 magnitudes(vec4 v)
{
    return floatBitsToUint(v) & 0x7fffffffu;
}

vec4 load_values(uint row, uint at)
{
    uint from = p.input_stride != 0 ? row * p.input_stride
                                    : (head.first_token + row) * head.x_stride;
    vec4 v;
    for (uint i = 0; i < 4; i++)
        v[i] = element_from(INPUT_TYPE,
                            input_at(from + (at + i) / elements_per_word(INPUT_TYPE)), at + i);
    return v;
}

uint block_largest(uint first)
{
    uint most = 0;
    for (uint i = 0; i < LANES; i++)
        most = max(most, largest[first + i]);
    return most;
}

// Of half a block.
int half_sum(uint first)
{
    int sum = 0;
    for (uint i = 0; i < LANES / 2; i++)
        sum += sums[first + i];
    return sum;
}

void main()
{
    uint lid = gl_LocalInvocationID.x, lane = lid % LANES, first = lid - lane;
    uint block = gl_WorkGroupID.y * MOE_QUANTISE_BLOCKS + lid / LANES;
    uint n_rows = token_count() * p.rows, first_row = gl_WorkGroupID.x * p.group_rows;
    for (uint row = first_row; row < first_row + p.group_rows; row++) {
        bool used = row < n_rows && block < p.n_blocks;
        vec4 v = vec4(0.0);
        if (used)
            v = load_values(row, block * MOE_INT8_VALUES + lane * 4);
        uvec4 m = magnitudes(v);
        largest[lid] = max(max(m.x, m.y), max(m.z, m.w));
        barrier();

        uint bits = block_largest(first);
        float most = uintBitsToFloat(bits);
        ivec4 codes = ivec4(0);
        if (bits < INFINITE && most > LEAST)
            codes = ivec4(roundEven(v * (127.0 / most)));
        sums[lid] = codes.x + codes.y + codes.z + codes.w;
        barrier();

        if (!used)
            continue;
        uint to = (row * p.n_blocks + block) * MOE_INT8_WORDS;
        uvec4 bytes = uvec4(codes) & 255u;
        output_at(to + lane) = bytes.x | bytes.y << 8 | bytes.z << 16 | bytes.w << 24;
        if (lane == 0) {
            float scale = most > LEAST ? most / 127.0 : 0.0;
            output_at(to + LANES) = bits < INFINITE ? floatBitsToUint(scale) : 0x7fc00000u;
            output_at(to + LANES + 1) = uint(half_sum(first)) & 0xffffu |
                                uint(half_sum(first + LANES / 2)) << 16;
        }
    }
    COUNT_END(first_row < n_rows);
}
