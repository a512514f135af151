#version 450
// SPDX-License-Identifier: MIT
// The matmul of expert_gemm.comp by cooperative matrices of f16 with sums in f32. Same formula,
// tiles and dispatch.
//
// A step of DEPTH values of k stages the tile's 64 packed rows and its rows of the input as f16, k
// along memory. A matrix of M x K takes one side, one of K x N the other one. Each subgroup adds up
// its own fragments of the result, which it reaches by loading and storing alone, so nothing
// depends on where a driver keeps an element.
//
// What is staged never passes f16's range, in either direction. Each row of either side has an
// exponent e and is staged as 2^e v. It begins at the largest e; where a step would pass 2^15, e
// becomes what brings the step's largest value to 2^8, sums so far are multiplied by the
// difference, and the step is staged again. That happens at the first step, then rarely. So a value
// loses bits where it is 2^-22 of its row's largest so far. A row's e depends on that row alone, so
// its bits do not depend on the tile it is in. Rows of f16 are staged as they are.
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

const uint DEPTH = MOE_COOP_DEPTH;
const uint STAGED = PIECE < 16 ? PIECE : 16; // of a packed row an invocation stages at once
const uint STRIDE = DEPTH / 2 + 4;           // f16vec2 of a line; banks of memory take turns
const uint SUMS_STRIDE = MOE_TILE_ROWS + 4;
const uint SUMS_LAYOUT =
    PACKED_IS_M ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;

// Lines: the packed rows, then the rows of the tile.
const uint LINES = MOE_TILE_ROWS + MOE_TILE_FULL;
const uint A_LINE = PACKED_IS_M ? 0 : MOE_TILE_ROWS, B_LINE = PACKED_IS_M ? MOE_TILE_ROWS : 0;
shared f16vec2 staged[LINES * STRIDE];
shared float sums[MOE_TILE_FULL * SUMS_STRIDE]; // (row, packed row)

const bool SCALES_PACKED = WEIGHT_TYPE != WEIGHT_F16, SCALES_INPUT = INPUT_TYPE != TYPE_F16;
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

// A line's largest magnitude in what an invocation stages of it.
void watch(uint line, uint most)
{
    if (int(most >> 23) - 127 + exponent[line] < TOP)
        return;
    atomicMax(peak[line], most, gl_ScopeWorkgroup, 0, 0);
    atomicMax(peak[PASSED], 1, gl_ScopeWorkgroup, 0, 0);
}

void load_weights(uvec2 base, uint row_block, uint k0)
{
    uint parts = DEPTH / STAGED; // of a row in this step
    for (uint i = gl_LocalInvocationID.x; i < MOE_TILE_ROWS * parts; i += MOE_LOCAL_SIZE) {
        uint line = i / parts, k = i % parts * STAGED, at = k0 + k, most = 0;
        uint packed = row_block * MOE_TILE_ROWS + line;
        float scale = SCALES_PACKED ? power(exponent[line]) : 1.0;
        weight_piece w = no_weights();
        if (packed < p.packed_rows && at < p.d_in)
            w = load_piece(base, p.window, row_at(p.weight, p.weight_stride, packed), p.d_in,
                           at / PIECE);
        for (uint j = 0; j < STAGED / 4; j++) {
            vec4 v = piece_values(w, at % PIECE / 4 + j);
            uint to = line * STRIDE + k / 2 + 2 * j;
            if (SCALES_PACKED)
                most = max(most, max(max(magnitude(v.x), magnitude(v.y)),
                                     max(magnitude(v.z), magnitude(v.w))));
            staged[to] = f16vec2(v.xy * scale);
            staged[to + 1] = f16vec2(v.zw * scale);
        }
        if (SCALES_PACKED)
            watch(line, most);
    }
}

// Elements at and at + 1 of a row of the tile; `at` is even.
vec2 input_pair(uint row, uint at)
{
    uint word = input_at(source[row] + at / elements_per_word(INPUT_TYPE));
    vec2 v = vec2(element_from(INPUT_TYPE, word, 0), 0.0);
    if (at + 1 < p.d_in)
        v.y = INPUT_TYPE == TYPE_F32 ? uintBitsToFloat(input_at(source[row] + at + 1))
                                     : element_from(INPUT_TYPE, word, 1);
    return v;
}

void load_input(uint n_rows, uint k0)
{
    for (uint i = gl_LocalInvocationID.x; i < WIDTH * DEPTH / 2; i += MOE_LOCAL_SIZE) {
        uint row = i / (DEPTH / 2), pair = i % (DEPTH / 2), at = k0 + 2 * pair;
        uint line = MOE_TILE_ROWS + row;
        vec2 v = vec2(0);
        if (row < n_rows && at < p.d_in)
            v = input_pair(row, at);
        float scale = SCALES_INPUT ? power(exponent[line]) : 1.0;
        staged[line * STRIDE + pair] = f16vec2(v * scale);
        if (SCALES_INPUT)
            watch(line, max(magnitude(v.x), magnitude(v.y)));
    }
}

// ---- fragments ---------------------------------------------------------------------------------

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

// Has a fragment a row that is multiplied? The numbers are those along A and B.
bool is_live(uint a, uint b, uint n_rows)
{
    return (PACKED_IS_M ? b : a) * ROWS < n_rows;
}

void multiply(uint n_rows)
{
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

// Where the sums of the i-th fragment of A and the j-th of B lie.
uint sums_at(uint i, uint j)
{
    uvec2 own = PACKED_IS_M ? uvec2(i, j) : uvec2(j, i), at = first_fragments() + own;
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

void load_sums()
{
    barrier();
    if (has_fragments())
        for (uint i = 0; i < A_OWN; i++)
            for (uint j = 0; j < B_OWN; j++)
                coopMatLoad(acc[i * B_OWN + j], sums, sums_at(i, j), SUMS_STRIDE,
                            int(SUMS_LAYOUT));
}

// ---- exponents ---------------------------------------------------------------------------------

void reset_exponents()
{
    uint lid = gl_LocalInvocationID.x;
    if (lid < LINES) {
        bool scales = lid < MOE_TILE_ROWS ? SCALES_PACKED : SCALES_INPUT;
        exponent[lid] = scales ? MOST_EXPONENT : 0;
        peak[lid] = 0;
    }
    if (lid == 0)
        peak[PASSED] = 0;
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
    for (uint i = lid; i < WIDTH * MOE_TILE_ROWS; i += MOE_LOCAL_SIZE) {
        uint row = i / MOE_TILE_ROWS, packed = i % MOE_TILE_ROWS;
        float sum = sums[row * SUMS_STRIDE + packed];
        if (magnitude(sum) != 0) // an infinity stays one, even times 0
            sums[row * SUMS_STRIDE + packed] =
                sum * power(growth[packed]) * power(growth[MOE_TILE_ROWS + row]);
    }
    load_sums();
}

// Sums of an invocation's packed rows in a row of the tile.
vec4 own_sums(uint row)
{
    vec4 v;
    for (uint j = 0; j < 4; j++) {
        uint packed = own_rows()[j];
        int e = -exponent[packed] - exponent[MOE_TILE_ROWS + row];
        v[j] = sums[row * SUMS_STRIDE + packed] * power(e / 2) * power(e - e / 2);
    }
    return v;
}

void main()
{
    uint row_block = p.first_row_block + gl_WorkGroupID.y;
    gemm_tile tile = find_tile();
    uvec2 base = expert_base(tile.expert);
    bool absent = expert_absent(base), used = !absent && tile.n_rows > 0;
    reset_exponents();
    for (uint i = 0; i < A_OWN * B_OWN; i++)
        acc[i] = SUM_MATRIX(0.0);
    barrier();

    for (uint k0 = 0; k0 < p.d_in && used;) {
        load_weights(base, row_block, k0);
        load_input(tile.n_rows, k0);
        barrier();
        if ((SCALES_PACKED || SCALES_INPUT) && peak[PASSED] != 0) {
            rescale(); // and once more
        } else {
            if (has_fragments())
                multiply(tile.n_rows);
            k0 += DEPTH;
        }
        barrier();
    }
    store_sums();

    COUNT_TILE(used, tile.n_rows, (tile.n_rows + ROWS - 1) / ROWS * ROWS);

    vec4 bias = absent ? vec4(0) : own_bias(base, row_block);
    for (uint r = 0; r < PER_LANE && own_row(r) < tile.n_rows; r++)
        write_sums(tile, absent, row_block, own_row(r), factor[own_row(r)], own_sums(own_row(r)),
                   bias);
    COUNT_END(tile.n_rows > 0);
}
