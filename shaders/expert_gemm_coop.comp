#version 450
// SPDX-License-Identifier: MIT
// The matmul of expert_gemm.comp by cooperative matrices of f16 with sums in f32. Same formula,
// tiles and dispatch; see products.glsl for how.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_control_flow_attributes : require
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

uint packed_of(uint line)
{
    return line;
}

// Sums of an invocation's packed rows in a row of the tile.
vec4 own_sums(uint row)
{
    vec4 v;
    for (uint j = 0; j < 4; j++)
        v[j] = unscaled(sums[row * SUMS_STRIDE + own_rows()[j]], own_rows()[j], row);
    return v;
}

void main()
{
    uint row_block = p.first_row_block + gl_WorkGroupID.y;
    gemm_tile tile = find_tile();
    uvec2 base = expert_base(tile.expert);
    bool absent = expert_absent(base), used = !absent && tile.n_rows > 0;
    begin_products();
    barrier();

    for (uint k0 = 0; k0 < p.d_in && used;) {
        load_weights(base, row_block, k0);
        load_input(tile.n_rows, k0);
        if (multiply_step(tile.n_rows))
            k0 += DEPTH;
    }
    store_sums();

    COUNT_TILE(used, tile.n_rows, (tile.n_rows + ROWS - 1) / ROWS * ROWS);

    vec4 bias = absent ? vec4(0) : own_bias(base, row_block);
    for (uint r = 0; r < PER_LANE && own_row(r) < tile.n_rows; r++)
        write_sums(tile, absent, row_block, own_row(r), factor[own_row(r)], own_sums(own_row(r)),
                   bias);
    COUNT_END(tile.n_rows > 0);
}
