// SPDX-License-Identifier: MIT
// What the matvecs over tiles share: which packed row an invocation has, and what becomes of its
// sums, one for each row of the tile. Included after gemm.glsl and tiles.h; p.packed_rows is where
// the dispatch's part of them ends.
const uint PAIRS = MOE_LOCAL_SIZE / 2; // of a gate and an up row, of a workgroup

shared vec4 up_values[PAIRS]; // of four rows of the tile

uint first_packed_row()
{
    return (p.first_row_block + gl_WorkGroupID.y * MOE_MATVEC_BLOCKS) * MOE_TILE_ROWS;
}

uint own_packed_row()
{
    return first_packed_row() + gl_LocalInvocationID.x;
}

// Row blocks of this workgroup.
uint own_row_blocks()
{
    uint n = min(p.packed_rows - first_packed_row(), MOE_LOCAL_SIZE);
    return (n + MOE_TILE_ROWS - 1) / MOE_TILE_ROWS;
}

void write_value(gemm_tile tile, uint row, uint n, float v)
{
    if (n < p.n_out)
        output_at((tile.first + row) * p.output_stride + n) = floatBitsToUint(v);
}

// Every invocation of the workgroup calls this; one that is not `live` has no packed row.
void write_rows(gemm_tile tile, uvec2 base, bool absent, bool live, float sum[MOE_TILE_SMALL])
{
    uint packed = own_packed_row(), lid = gl_LocalInvocationID.x;
    uint half_panel = lid / MOE_PANEL_ROWS % 2, row_of_panel = lid % MOE_PANEL_ROWS;
    bool is_up = GATED != 0 && half_panel == 1, writes = packed < p.packed_rows && !is_up;
    uint pair = lid / (2 * MOE_PANEL_ROWS) * MOE_PANEL_ROWS + row_of_panel;
    uint n = GATED != 0 ? packed / (2 * MOE_PANEL_ROWS) * MOE_PANEL_ROWS + row_of_panel : packed;
    float bias = 0.0;
    if (live)
        bias = row_bias(base, p.window, p.weight, p.weight_stride, packed);
    for (uint first = 0; first < TILE; first += 4) {
        vec4 v = vec4(0);
        for (uint i = 0; i < 4; i++)
            if (first + i < tile.n_rows)
                v[i] = weighted_sum(sum[first + i], factor[first + i], bias);
        if (GATED != 0 && first < tile.n_rows) { // the whole workgroup
            if (is_up)
                up_values[pair] = v;
            barrier();
        }
        for (uint i = 0; i < 4; i++) {
            if (first + i >= tile.n_rows || !writes)
                continue;
            float o = 0.0;
            if (GATED != 0 && !absent)
                o = expert_gated(p.act, p.act_alpha, v[i], up_values[pair][i]);
            else if (!absent)
                o = expert_act(p.act, p.act_alpha, v[i]);
            write_value(tile, first + i, n, o);
        }
        if (GATED != 0 && first < tile.n_rows)
            barrier(); // before the next four
    }
}
