// SPDX-License-Identifier: MIT
// What kernels of an expert's matmul share: which tile a workgroup has, where its rows begin, and
// what becomes of the sums. 16 invocations have the tile's 64 packed rows, 4 rows each, times 8
// that have its TILE rows: LANE_ROWS neighbours each of the first MOE_TILE_FULL, and of the next.
// Included after expert_act.glsl; the kernel's parameters are gemm_params p. With MOE_NO_SHARED
// nothing of it is in shared memory; with MOE_MATVEC invocations have other rows.
layout(constant_id = 1) const uint TILE = MOE_TILE_FULL;
layout(constant_id = 2) const uint GATED = 0;
layout(constant_id = 3) const uint LISTED = 1;
layout(constant_id = 4) const uint GATHER = 1;
layout(constant_id = 5) const uint INPUT_TYPE = 0; // of the input, enum vkmoe_dtype

const uint PER_LANE = TILE / MOE_TILE_LANES; // rows of the tile an invocation has
const uint LANE_ROWS = (TILE < MOE_TILE_FULL ? TILE : MOE_TILE_FULL) / MOE_TILE_LANES;

struct gemm_tile {
    uint expert, first, n_rows;
};

gemm_tile own_tile()
{
    gemm_tile tile = gemm_tile(p.expert, gl_WorkGroupID.x * TILE, 0);
    if (LISTED != 0) {
        uint at = p.tiles + (routing(p.args + 3) + gl_WorkGroupID.x) * MOE_TILE_WORDS;
        tile = gemm_tile(routing(at), routing(at + 1), routing(at + 2));
    } else {
        uint n_tokens = token_count();
        tile.n_rows = tile.first < n_tokens ? min(TILE, n_tokens - tile.first) : 0;
    }
    return tile;
}

struct gemm_row {
    uint source;  // word where the row of the input starts
    float factor; // with WEIGHTED
};

// The i-th row of a tile that has so many.
gemm_row tile_row(gemm_tile tile, uint i)
{
    bool own = p.input_stride != 0; // else those of x
    uint slot = GATHER != 0 ? routing(p.rows + tile.first + i) : 0;
    uint row = GATHER != 0 ? slot / p.top_k : tile.first + i;
    return gemm_row(own ? row * p.input_stride : (head.first_token + row) * head.x_stride,
                    WEIGHTED != 0 ? uintBitsToFloat(routing(p.gates + slot)) : 1.0);
}

#ifndef MOE_NO_SHARED
shared uint source[TILE]; // of the tile's rows
shared float factor[TILE];

// Sets `source` and `factor` too; a barrier has to follow.
gemm_tile find_tile()
{
    uint lid = gl_LocalInvocationID.x;
    gemm_tile tile = own_tile();
    if (lid < tile.n_rows) {
        gemm_row row = tile_row(tile, lid);
        source[lid] = row.source;
        if (WEIGHTED != 0)
            factor[lid] = row.factor;
    }
    return tile;
}
#endif

#ifndef MOE_MATVEC
// An invocation's r-th row of the tile.
uint own_row(uint r)
{
    return r / LANE_ROWS * MOE_TILE_FULL + gl_LocalInvocationID.x / 16 * LANE_ROWS + r % LANE_ROWS;
}

// Its packed rows, of the tile's 64: two neighbours and two more, their up half when gated.
uvec4 own_rows()
{
    uint cell = gl_LocalInvocationID.x % 16;
    uint a = GATED != 0 ? cell / 8 * 32 + cell % 8 * 2 : cell * 4;
    uint apart = GATED != 0 ? MOE_PANEL_ROWS : 2;
    return uvec4(a, a + 1, a + apart, a + apart + 1);
}

vec4 own_bias(uvec2 base, uint row_block)
{
    uvec4 rows = row_block * MOE_TILE_ROWS + own_rows();
    vec4 bias = vec4(0);
    for (uint j = 0; j < 4; j++)
        if (rows[j] < p.packed_rows)
            bias[j] = row_bias(base, p.window, p.weight, p.weight_stride, rows[j]);
    return bias;
}

// The outputs of a row of the tile, and its factor, from the sums of an invocation's packed rows.
void write_sums(gemm_tile tile, bool absent, uint row_block, uint row, float weight, vec4 sum,
                vec4 bias)
{
    uint to = (tile.first + row) * p.output_stride;
    vec4 v;
    for (uint j = 0; j < 4; j++)
        v[j] = weighted_sum(sum[j], weight, bias[j]);
    if (GATED != 0) {
        uint n = row_block * (MOE_TILE_ROWS / 2) + gl_LocalInvocationID.x % 16 * 2;
        for (uint j = 0; j < 2; j++)
            if (n + j < p.n_out)
                output_at(to + n + j) = floatBitsToUint(
                    absent ? 0.0 : expert_gated(p.act, p.act_alpha, v[j], v[j + 2]));
    } else {
        uint n = row_block * MOE_TILE_ROWS + own_rows().x;
        for (uint j = 0; j < 4; j++)
            if (n + j < p.n_out)
                output_at(to + n + j) =
                    floatBitsToUint(absent ? 0.0 : expert_act(p.act, p.act_alpha, v[j]));
    }
}
#endif
