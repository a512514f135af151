#version 450
// SPDX-License-Identifier: MIT
// The matmul of expert_gemm.comp by cooperative matrices of f16 with sums in f32, as large as we
// like, in units of the device's (VK_NV_cooperative_matrix2). Same formula, tiles and dispatch.
// See products.glsl for how. Gates are one product and ups another one, and sums become outputs
// where they are.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#define MOE_FLEXIBLE
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    gemm_params p;
};
#define WEIGHTS_ACCESS readonly
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"
#include "weight.glsl"
#include "element.glsl"
#include "act.glsl"
#include "expert_act.glsl"
#include "gemm.glsl"
#include "coop.glsl"

// Gates come first.
uint packed_of(uint line)
{
    if (GATED == 0)
        return line;
    uint i = line % HALF, panel = i / MOE_PANEL_ROWS * 2 + line / HALF;
    return panel * MOE_PANEL_ROWS + i % MOE_PANEL_ROWS;
}

shared float bias[MOE_TILE_ROWS]; // of lines

float biased(float sum, uvec2 at)
{
    return weighted_sum(unscaled(sum, at.x, at.y), factor[at.y], bias[at.x]);
}

// tile: its first row, their number, the row block, and whether the expert is absent. `up` is its
// partner when gated.
float write_element(const in uint row, const in uint column, const in float sum,
                    const in float up, const in uvec2 first, const in uvec4 tile)
{
    uvec2 at = place_of(first, row, column);
    uint n = tile.z * (GATED != 0 ? HALF : MOE_TILE_ROWS) + at.x;
    if (at.y >= tile.y || n >= p.n_out)
        return sum;
    float v = 0.0;
    if (tile.w == 0)
        v = GATED != 0 ? expert_gated(p.act, p.act_alpha, biased(sum, at),
                                      biased(up, at + uvec2(HALF, 0)))
                       : expert_act(p.act, p.act_alpha, biased(sum, at));
    output_at((tile.x + at.y) * p.output_stride + n) = floatBitsToUint(v);
    return sum;
}

void write_outputs(uvec4 tile)
{
    const uint UP = PACKED_IS_M ? B_OWN : 1; // from a gate's product to its partner
    for (uint i = 0; i < A_OWN; i++)
        for (uint j = 0; j < B_OWN; j++) {
            uint from = i * B_OWN + j, up = GATED != 0 ? from + UP : from;
            SUM_MATRIX unused;
            if (GATED == 0 || (PACKED_IS_M ? i : j) == 0)
                coopMatPerElementNV(unused, acc[from], write_element, acc[up], first_of(i, j),
                                    tile);
        }
}

void load_bias(uvec2 base, uint row_block)
{
    uint line = gl_LocalInvocationID.x, packed = row_block * MOE_TILE_ROWS + packed_of(line);
    if (line < MOE_TILE_ROWS)
        bias[line] = packed < p.packed_rows
                         ? row_bias(base, p.window, p.weight, p.weight_stride, packed)
                         : 0.0;
}

void main()
{
    uint row_block = p.first_row_block + gl_WorkGroupID.y;
    gemm_tile tile = find_tile();
    uvec2 base = expert_base(tile.expert);
    bool absent = expert_absent(base), used = !absent && tile.n_rows > 0;
    begin_products();
    if (used)
        load_bias(base, row_block);
    barrier();

    for (uint k0 = 0; k0 < p.d_in && used;) {
        load_weights(base, row_block, k0);
        load_input(tile.n_rows, k0);
        if (multiply_step(tile.n_rows))
            k0 += DEPTH;
    }

    COUNT_TILE(used, tile.n_rows, (tile.n_rows + ROWS_SIZE - 1) / ROWS_SIZE * ROWS_SIZE);

    if (has_products() && tile.n_rows > 0)
        write_outputs(uvec4(tile.first, tile.n_rows, row_block, absent));
    COUNT_END(tile.n_rows > 0);
}
