// SPDX-License-Identifier: MIT
// Fragments of a tile's sums, of M x N each, and which of them a subgroup has. It reaches them by
// loading and storing alone. TILE is the constant that products.glsl says.
layout(constant_id = MOE_SPEC_M) const uint M = 16;
layout(constant_id = MOE_SPEC_N) const uint N = 16;
layout(constant_id = MOE_SPEC_K) const uint K = 16;
layout(constant_id = MOE_SPEC_SUBGROUPS) const uint SUBGROUPS = 4; // of the workgroup
layout(constant_id = MOE_SPEC_PACKED_IS_N) const uint PACKED_IS_N = 0;

const bool PACKED_IS_M = PACKED_IS_N == 0;
const uint PACKED = PACKED_IS_M ? M : N; // packed rows of a fragment
const uint ROWS = PACKED_IS_M ? N : M;   // rows of the tile
const uint WIDTH = TILE < ROWS ? ROWS : TILE; // rows that are staged
// Fragments of the tile; subgroups along each side; fragments of a subgroup along it.
const uint PACKED_ALL = MOE_TILE_ROWS / PACKED, ROWS_ALL = WIDTH / ROWS;
const uint PACKED_GROUPS = SUBGROUPS < PACKED_ALL ? SUBGROUPS : PACKED_ALL;
const uint LEFT = SUBGROUPS / PACKED_GROUPS;
const uint ROWS_GROUPS = LEFT < ROWS_ALL ? LEFT : ROWS_ALL;
const uint PACKED_OWN = PACKED_ALL / PACKED_GROUPS, ROWS_OWN = ROWS_ALL / ROWS_GROUPS;
const uint A_OWN = PACKED_IS_M ? PACKED_OWN : ROWS_OWN;
const uint B_OWN = PACKED_IS_M ? ROWS_OWN : PACKED_OWN;

const uint SUMS_STRIDE = MOE_TILE_ROWS + 4;
const uint SUMS_LAYOUT =
    PACKED_IS_M ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;

shared float sums[MOE_TILE_FULL * SUMS_STRIDE]; // (row, packed row)

#define SUM_MATRIX coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
SUM_MATRIX acc[A_OWN * B_OWN];

void clear_sums()
{
    for (uint i = 0; i < A_OWN * B_OWN; i++)
        acc[i] = SUM_MATRIX(0.0);
}

// Fragments before a subgroup's own ones, of the packed rows and of the tile's rows.
uvec2 first_fragments()
{
    return uvec2(gl_SubgroupID % PACKED_GROUPS * PACKED_OWN,
                 gl_SubgroupID / PACKED_GROUPS * ROWS_OWN);
}

bool has_fragments()
{
    return gl_SubgroupID < PACKED_GROUPS * ROWS_GROUPS;
}

// The i-th of a subgroup's along A and the j-th along B: its place along packed rows and rows.
uvec2 fragment_of(uint i, uint j)
{
    return first_fragments() + (PACKED_IS_M ? uvec2(i, j) : uvec2(j, i));
}

// Where the sums of the i-th fragment of A and the j-th of B lie.
uint sums_at(uint i, uint j)
{
    uvec2 at = fragment_of(i, j);
    return at.y * ROWS * SUMS_STRIDE + at.x * PACKED;
}

void store_sums()
{
    if (has_fragments())
        for (uint i = 0; i < A_OWN; i++)
            for (uint j = 0; j < B_OWN; j++)
                coopMatStore(acc[i * B_OWN + j], sums, sums_at(i, j), SUMS_STRIDE,
                             int(SUMS_LAYOUT));
    barrier();
}
