// SPDX-License-Identifier: MIT
// products.glsl by matrices as large as we like, in units of the device's
// (VK_NV_cooperative_matrix2).
//
// A team is the workgroup or one of its subgroups, by SCOPE. Its part of the tile is as few
// products as there can be: of the first and last 32 packed rows for themselves, so that an element
// of one is where that of the other is, and of two halves of its rows, so that a tile of few rows
// is half the work. Sums are scaled where they are: a function gets each with its row and column,
// so nothing depends on where a driver keeps an element, and none go through shared memory.

// Units of M, of N and of K; DEPTH is whole ones of the latter.
layout(constant_id = MOE_SPEC_M) const uint M = 16;
layout(constant_id = MOE_SPEC_N) const uint N = 16;
layout(constant_id = MOE_SPEC_SUBGROUPS) const uint TEAMS = 4; // of the workgroup
layout(constant_id = MOE_SPEC_PACKED_IS_N) const uint PACKED_IS_N = 0;
layout(constant_id = MOE_SPEC_SCOPE) const int SCOPE = gl_ScopeSubgroup; // workgroup: one team

const bool PACKED_IS_M = PACKED_IS_N == 0;
const uint HALF = MOE_TILE_ROWS / 2;     // packed rows
const uint PACKED = PACKED_IS_M ? M : N; // in units of so many
const uint ROWS = PACKED_IS_M ? N : M;   // and the rows of the tile
const uint WIDTH = TILE < ROWS ? ROWS : TILE; // that are staged
// Units of a half and of the tile; teams along each side; units of a team; products that it takes.
const uint PACKED_ALL = HALF / PACKED, ROWS_ALL = WIDTH / ROWS;
const uint PACKED_TEAMS = TEAMS < PACKED_ALL ? TEAMS : PACKED_ALL;
const uint LEFT = TEAMS / PACKED_TEAMS;
const uint ROWS_TEAMS = LEFT < ROWS_ALL ? LEFT : ROWS_ALL;
const uint ROWS_OWN = ROWS_ALL / ROWS_TEAMS;
const uint ROWS_PARTS = ROWS_OWN > 1 ? 2 : 1;
const uint A_OWN = PACKED_IS_M ? 2 : ROWS_PARTS, B_OWN = PACKED_IS_M ? ROWS_PARTS : 2;
// Packed rows and rows of a product.
const uint PACKED_SIZE = PACKED_ALL / PACKED_TEAMS * PACKED;
const uint ROWS_SIZE = ROWS_OWN / ROWS_PARTS * ROWS;
const uint M_SIZE = PACKED_IS_M ? PACKED_SIZE : ROWS_SIZE;
const uint N_SIZE = PACKED_IS_M ? ROWS_SIZE : PACKED_SIZE;

#define SUM_MATRIX coopmat<float, SCOPE, M_SIZE, N_SIZE, gl_MatrixUseAccumulator>
#define A_MATRIX coopmat<float16_t, SCOPE, M_SIZE, DEPTH, gl_MatrixUseA>
#define B_MATRIX coopmat<float16_t, SCOPE, DEPTH, N_SIZE, gl_MatrixUseB>
SUM_MATRIX acc[A_OWN * B_OWN];

uint team()
{
    return SCOPE == gl_ScopeWorkgroup ? 0 : gl_SubgroupID;
}

bool has_products()
{
    return team() < PACKED_TEAMS * ROWS_TEAMS;
}

// The first line of a half that a team has, and the first row of a part.
uint first_line(uint half_)
{
    return half_ * HALF + team() % PACKED_TEAMS * PACKED_SIZE;
}

uint first_row(uint part)
{
    return (team() / PACKED_TEAMS * ROWS_PARTS + part) * ROWS_SIZE;
}

// Of the product of the i-th A and the j-th B.
uvec2 first_of(uint i, uint j)
{
    return PACKED_IS_M ? uvec2(first_line(i), first_row(j)) : uvec2(first_line(j), first_row(i));
}

uint a_line(uint i)
{
    return PACKED_IS_M ? first_line(i) : FIRST_ROW + first_row(i);
}

uint b_line(uint j)
{
    return PACKED_IS_M ? FIRST_ROW + first_row(j) : first_line(j);
}

void clear_sums()
{
    for (uint i = 0; i < A_OWN * B_OWN; i++)
        acc[i] = SUM_MATRIX(0.0);
}

void multiply(uint n_rows)
{
    if (!has_products())
        return;
    B_MATRIX b[B_OWN];
    for (uint j = 0; j < B_OWN; j++)
        coopMatLoad(b[j], staged, b_line(j) * STRIDE, STRIDE,
                    gl_CooperativeMatrixLayoutColumnMajor);
    for (uint i = 0; i < A_OWN; i++) {
        A_MATRIX a;
        coopMatLoad(a, staged, a_line(i) * STRIDE, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
        for (uint j = 0; j < B_OWN; j++)
            if (first_of(i, j).y < n_rows)
                acc[i * B_OWN + j] = coopMatMulAdd(a, b[j], acc[i * B_OWN + j]);
    }
}

// ---- elements ----------------------------------------------------------------------------------

// Line and row of an element of a product that begins at `first`.
uvec2 place_of(uvec2 first, uint row, uint column)
{
    return first + (PACKED_IS_M ? uvec2(row, column) : uvec2(column, row));
}

float grow_element(const in uint row, const in uint column, const in float sum,
                   const in uvec2 first)
{
    uvec2 at = place_of(first, row, column);
    return grown(sum, at.x, at.y);
}

void rescale()
{
    barrier();
    grow_exponents();
    if (has_products())
        for (uint i = 0; i < A_OWN; i++)
            for (uint j = 0; j < B_OWN; j++)
                coopMatPerElementNV(acc[i * B_OWN + j], acc[i * B_OWN + j], grow_element,
                                    first_of(i, j));
}
