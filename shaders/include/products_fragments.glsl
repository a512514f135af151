// SPDX-License-Identifier: MIT
// products.glsl by fragments of M x N: a matrix of M x K takes one side, one of K x N the other
// one. Each subgroup adds up its own fragments of the result, which it reaches by loading and
// storing alone, so nothing depends on where a driver keeps an element.
#include "fragments.glsl"

const uint A_LINE = PACKED_IS_M ? 0 : FIRST_ROW, B_LINE = PACKED_IS_M ? FIRST_ROW : 0;

#define A_MATRIX coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
#define B_MATRIX coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB>

// Has a fragment a row that is multiplied? The numbers are those along A and B.
bool is_live(uint a, uint b, uint n_rows)
{
    return (PACKED_IS_M ? b : a) * ROWS < n_rows;
}

void multiply(uint n_rows)
{
    if (!has_fragments())
        return;
    uvec2 first = PACKED_IS_M ? first_fragments().xy : first_fragments().yx;
    // Unrolled, it is most of the kernel, and compilers that emulate matrices take seconds for it.
    [[dont_unroll]] for (uint k = 0; k < DEPTH; k += K) {
        B_MATRIX b[B_OWN];
        for (uint j = 0; j < B_OWN; j++)
            coopMatLoad(b[j], staged, (B_LINE + (first.y + j) * N) * STRIDE + k / 2, STRIDE,
                        gl_CooperativeMatrixLayoutColumnMajor);
        for (uint i = 0; i < A_OWN; i++) {
            A_MATRIX a;
            coopMatLoad(a, staged, (A_LINE + (first.x + i) * M) * STRIDE + k / 2, STRIDE,
                        gl_CooperativeMatrixLayoutRowMajor);
            for (uint j = 0; j < B_OWN; j++)
                if (is_live(first.x + i, first.y + j, n_rows))
                    acc[i * B_OWN + j] = coopMatMulAdd(a, b[j], acc[i * B_OWN + j]);
        }
    }
}

void load_sums()
{
    barrier();
    if (has_fragments())
        for (uint i = 0; i < A_OWN; i++)
            for (uint j = 0; j < B_OWN; j++)
                coopMatLoad(acc[i * B_OWN + j], sums, sums_at(i, j), SUMS_STRIDE,
                            int(SUMS_LAYOUT));
}

void rescale()
{
    store_sums();
    grow_exponents();
    for (uint i = gl_LocalInvocationID.x; i < WIDTH * MOE_TILE_ROWS; i += MOE_LOCAL_SIZE) {
        uint row = i / MOE_TILE_ROWS, packed = i % MOE_TILE_ROWS, at = row * SUMS_STRIDE + packed;
        sums[at] = grown(sums[at], packed, row);
    }
    load_sums();
}
