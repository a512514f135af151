// SPDX-License-Identifier: MIT
// The product of MOE_NET_TILE_ROWS rows and MOE_NET_TILE_COLUMNS columns by cooperative matrices of
// f16 with sums in f32: for kernels of networks, as expert_gemm_coop.comp does it for layers.
//
// A step of COOP_DEPTH values of k stages the lines of both sides, columns first, as f16, k along
// memory. What is staged never passes f16's range, in either direction: each line has an exponent e
// and is staged as 2^e v. It begins at the largest e; where a step would pass 2^15, e becomes what
// brings the step's largest value to 2^8, sums so far are multiplied by the difference, and the
// step is staged again. So no gradient is too small and no activation too large, and a value loses
// bits only where it is 2^-22 of its line's largest so far. A line's e depends on that line alone.
// Lines of f16 are staged as they are.
//
// A kernel defines COLUMNS_ARE_F16, a constant, and stages with coop_stage. Included after
// net.glsl.
layout(constant_id = MOE_SPEC_M) const uint M = 16;
layout(constant_id = MOE_SPEC_N) const uint N = 16;
layout(constant_id = MOE_SPEC_K) const uint K = 16;
layout(constant_id = MOE_SPEC_SUBGROUPS) const uint SUBGROUPS = 4; // of the workgroup
layout(constant_id = MOE_SPEC_PACKED_IS_N) const uint COLUMNS_ON_N = 0;

const bool COLUMNS_ON_M = COLUMNS_ON_N == 0;
const uint F_COLUMNS = COLUMNS_ON_M ? M : N; // of a fragment
const uint F_ROWS = COLUMNS_ON_M ? N : M;
// Fragments of the tile; subgroups along each side; fragments of a subgroup along it.
const uint COLUMNS_ALL = MOE_NET_TILE_COLUMNS / F_COLUMNS, ROWS_ALL = MOE_NET_TILE_ROWS / F_ROWS;
const uint COLUMN_GROUPS = SUBGROUPS < COLUMNS_ALL ? SUBGROUPS : COLUMNS_ALL;
const uint LEFT = SUBGROUPS / COLUMN_GROUPS;
const uint ROW_GROUPS = LEFT < ROWS_ALL ? LEFT : ROWS_ALL;
const uint COLUMNS_OWN = COLUMNS_ALL / COLUMN_GROUPS, ROWS_OWN = ROWS_ALL / ROW_GROUPS;
const uint A_OWN = COLUMNS_ON_M ? COLUMNS_OWN : ROWS_OWN;
const uint B_OWN = COLUMNS_ON_M ? ROWS_OWN : COLUMNS_OWN;

const uint COOP_DEPTH = MOE_COOP_DEPTH, COOP_PAIRS = COOP_DEPTH / 2;
const uint STRIDE = COOP_PAIRS + 4; // f16vec2 of a line; banks of memory take turns
const uint SUMS_STRIDE = MOE_NET_TILE_COLUMNS + 4;
const uint SUMS_LAYOUT =
    COLUMNS_ON_M ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;

const uint FIRST_ROW = MOE_NET_TILE_COLUMNS; // line of the tile's first row
const uint LINES = MOE_NET_TILE_COLUMNS + MOE_NET_TILE_ROWS;
const uint A_LINE = COLUMNS_ON_M ? 0 : FIRST_ROW, B_LINE = COLUMNS_ON_M ? FIRST_ROW : 0;
shared f16vec2 staged[LINES * STRIDE];
shared float sums[MOE_NET_TILE_ROWS * SUMS_STRIDE]; // (row, column)

const int MOST_EXPONENT = 120, TOP = 15, FRESH_TOP = 8;
shared int exponent[LINES];
shared int growth[LINES]; // of the exponent
// Bits of the largest magnitude of a step that passes the top, or 0; behind the lines, does any?
// With 4 more, what matrices are loaded from begins at 16 bytes in whatever order a driver lays
// it out.
shared uint peak[LINES + 4];
const uint PASSED = LINES;

#define SUM_MATRIX coopmat<float, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
#define A_MATRIX coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
#define B_MATRIX coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB>
SUM_MATRIX acc[A_OWN * B_OWN];

// 2^e; 0 where that is denormal.
float power(int e)
{
    return e < -126 ? 0.0 : uintBitsToFloat(uint(e + 127) << 23);
}

// Bits of a magnitude; 0 of infinity and NaN, which are staged as they are.
uint magnitude(float v)
{
    uint bits = floatBitsToUint(v) & 0x7fffffffu;
    return bits < 0x7f800000u ? bits : 0;
}

bool is_scaled(uint line)
{
    return line >= FIRST_ROW || !COLUMNS_ARE_F16;
}

// The values 2 pair and 2 pair + 1 of a line's step.
void coop_stage(uint line, uint pair, vec2 v)
{
    float scale = is_scaled(line) ? power(exponent[line]) : 1.0;
    uint most = max(magnitude(v.x), magnitude(v.y));
    staged[line * STRIDE + pair] = f16vec2(v * scale);
    if (is_scaled(line) && int(most >> 23) - 127 + exponent[line] >= TOP) {
        atomicMax(peak[line], most, gl_ScopeWorkgroup, 0, 0);
        atomicMax(peak[PASSED], 1, gl_ScopeWorkgroup, 0, 0);
    }
}

// ---- fragments ---------------------------------------------------------------------------------

// Fragments before a subgroup's own ones, of columns and of rows.
uvec2 first_fragments()
{
    return uvec2(gl_SubgroupID % COLUMN_GROUPS * COLUMNS_OWN,
                 gl_SubgroupID / COLUMN_GROUPS * ROWS_OWN);
}

bool has_fragments()
{
    return gl_SubgroupID < COLUMN_GROUPS * ROW_GROUPS;
}

// n_rows: those of the tile that are there.
void multiply_staged(uint n_rows)
{
    uvec2 first = COLUMNS_ON_M ? first_fragments().xy : first_fragments().yx;
    // Unrolled, it is most of the kernel, and compilers that emulate matrices take seconds for it.
    [[dont_unroll]] for (uint k = 0; k < COOP_DEPTH; k += K) {
        B_MATRIX b[B_OWN];
        for (uint j = 0; j < B_OWN; j++)
            coopMatLoad(b[j], staged, (B_LINE + (first.y + j) * N) * STRIDE + k / 2, STRIDE,
                        gl_CooperativeMatrixLayoutColumnMajor);
        for (uint i = 0; i < A_OWN; i++) {
            A_MATRIX a;
            coopMatLoad(a, staged, (A_LINE + (first.x + i) * M) * STRIDE + k / 2, STRIDE,
                        gl_CooperativeMatrixLayoutRowMajor);
            for (uint j = 0; j < B_OWN; j++)
                if ((COLUMNS_ON_M ? first.y + j : first.x + i) * F_ROWS < n_rows)
                    acc[i * B_OWN + j] = coopMatMulAdd(a, b[j], acc[i * B_OWN + j]);
        }
    }
}

// Where the sums of the i-th fragment of A and the j-th of B lie.
uint sums_at(uint i, uint j)
{
    uvec2 own = COLUMNS_ON_M ? uvec2(i, j) : uvec2(j, i), at = first_fragments() + own;
    return at.y * F_ROWS * SUMS_STRIDE + at.x * F_COLUMNS;
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

void load_sums()
{
    barrier();
    if (has_fragments())
        for (uint i = 0; i < A_OWN; i++)
            for (uint j = 0; j < B_OWN; j++)
                coopMatLoad(acc[i * B_OWN + j], sums, sums_at(i, j), SUMS_STRIDE,
                            int(SUMS_LAYOUT));
}

// ---- steps -------------------------------------------------------------------------------------

void coop_begin()
{
    uint lid = gl_LocalInvocationID.x;
    barrier(); // the sums before have been read
    if (lid < LINES) {
        exponent[lid] = is_scaled(lid) ? MOST_EXPONENT : 0;
        peak[lid] = 0;
    }
    if (lid == 0)
        peak[PASSED] = 0;
    for (uint i = 0; i < A_OWN * B_OWN; i++)
        acc[i] = SUM_MATRIX(0.0);
    barrier();
}

// Gives the lines that passed the top a new exponent, and the sums with it.
void rescale()
{
    uint lid = gl_LocalInvocationID.x;
    store_sums();
    if (lid < LINES) {
        int fresh = min(FRESH_TOP + 127 - int(peak[lid] >> 23), exponent[lid]);
        growth[lid] = peak[lid] > 0 ? fresh - exponent[lid] : 0;
        exponent[lid] += growth[lid];
        peak[lid] = 0;
    }
    if (lid == 0)
        peak[PASSED] = 0;
    barrier();
    for (uint i = lid; i < MOE_NET_TILE_ROWS * MOE_NET_TILE_COLUMNS; i += MOE_LOCAL_SIZE) {
        uint row = i / MOE_NET_TILE_COLUMNS, column = i % MOE_NET_TILE_COLUMNS;
        float sum = sums[row * SUMS_STRIDE + column];
        if (magnitude(sum) != 0) // an infinity stays one, even times 0
            sums[row * SUMS_STRIDE + column] =
                sum * power(growth[column]) * power(growth[FIRST_ROW + row]);
    }
    load_sums();
}

// Every invocation calls this once a step is staged. False: the step is to be staged again.
bool coop_multiply(uint n_rows)
{
    barrier();
    bool passed = peak[PASSED] != 0;
    if (passed)
        rescale();
    else if (has_fragments())
        multiply_staged(n_rows);
    barrier();
    return !passed;
}

// After the last step; then coop_sum gives the results.
void coop_end()
{
    store_sums();
}

float coop_sum(uint row, uint column)
{
    int e = -exponent[column] - exponent[FIRST_ROW + row];
    return sums[row * SUMS_STRIDE + column] * power(e / 2) * power(e - e / 2);
}
