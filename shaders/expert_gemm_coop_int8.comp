#version 450
// SPDX-License-Identifier: MIT
// The matmul of expert_gemm_int8.comp by cooperative matrices of bytes with sums of 32 bits. Same
// formula, tiles and dispatch; codes of the weights have their offset taken away before.
//
// A step stages BLOCKS blocks of the tile's 64 packed rows and of its rows of the input, k along
// memory. For each part of a block that has one scale of the weights, a subgroup multiplies its own
// fragments, whose sums are exact, and adds them up in f32 with scales and minima. Those are
// matrices too: what a row or a column has in common is loaded with a stride of 0. So nothing
// depends on where a driver keeps an element. Where K is more than a part has, the other part's
// codes are there as 0.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_int8 : require
#extension GL_EXT_spirv_intrinsics : require
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
#include "int8.glsl"
#include "fragments.glsl"

const uint BLOCKS = 2;                // of MOE_INT8_VALUES, of one step through shared memory
const uint STRIDE = BLOCKS * CODES + 4; // words of a line; banks of memory take turns
const uint OF_PART = MOE_INT8_VALUES / PARTS; // values
const bool DEEP = K > OF_PART; // k goes over whole blocks
shared uint codes_w[2 * MOE_TILE_ROWS * STRIDE]; // (part, packed row), one part where not DEEP
shared uint codes_x[MOE_TILE_FULL * STRIDE];
shared float scale_w[BLOCKS * 2 * MOE_TILE_ROWS]; // (block, part, packed row)
shared float minimum_w[BLOCKS * 2 * MOE_TILE_ROWS];
shared float scale_x[BLOCKS * MOE_TILE_FULL];
shared float sum_x[BLOCKS * 2 * MOE_TILE_FULL]; // of codes: (block, part, row)

#define INT_MATRIX coopmat<int, gl_ScopeSubgroup, M, N, gl_MatrixUseAccumulator>
#define A_MATRIX coopmat<int8_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
#define B_MATRIX coopmat<int8_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB>

// ---- staging -----------------------------------------------------------------------------------

// Each byte less OFFSET, which none is below by 128 or more.
uint without_offset(uint codes)
{
    return ((codes | 0x80808080u) - OFFSET * 0x01010101u) ^ 0x80808080u;
}

void store_codes(uint block, uint line, uint word, uint codes)
{
    uint at = line * STRIDE + block * CODES + word, own = word / PART_CODES;
    if (!DEEP) {
        codes_w[at] = codes;
        return;
    }
    for (uint part = 0; part < PARTS; part++)
        codes_w[part * MOE_TILE_ROWS * STRIDE + at] = part == own ? codes : 0;
}

void load_weights(uvec2 base, uint row_block, uint first_block)
{
    const uint PIECES_ALL = BLOCKS * PIECES;
    for (uint i = gl_LocalInvocationID.x; i < MOE_TILE_ROWS * PIECES_ALL; i += MOE_LOCAL_SIZE) {
        uint line = i / PIECES_ALL, block = i % PIECES_ALL / PIECES, piece = i % PIECES;
        uint packed = row_block * MOE_TILE_ROWS + line, at = first_block + block;
        bool used = packed < p.packed_rows && at * MOE_INT8_VALUES < p.d_in;
        weight_piece w = no_weights();
        if (used)
            w = load_piece(base, p.window, row_at(p.weight, p.weight_stride, packed), p.d_in,
                           at * PIECES + piece);
        for (uint j = 0; j < PIECE_CODES; j++) {
            uint codes = signed_codes(w, j);
            if (OFFSET != 0)
                codes = without_offset(codes);
            store_codes(block, line, piece * PIECE_CODES + j, used ? codes : 0);
        }
        for (uint part = 0; part < PARTS && piece == 0; part++) {
            uint to = (block * PARTS + part) * MOE_TILE_ROWS + line;
            scale_w[to] = part_scales(w)[part];
            minimum_w[to] = w.minimum[part];
        }
    }
}

void load_input(uint n_rows, uint first_block)
{
    const uint WORDS = BLOCKS * MOE_INT8_WORDS;
    for (uint i = gl_LocalInvocationID.x; i < WIDTH * WORDS; i += MOE_LOCAL_SIZE) {
        uint row = i / WORDS, block = i % WORDS / MOE_INT8_WORDS, word = i % MOE_INT8_WORDS;
        uint v = 0, at = first_block + block;
        if (row < n_rows && at * MOE_INT8_VALUES < p.d_in)
            v = input_at(source[row] + at * MOE_INT8_WORDS + word);
        if (word < CODES)
            codes_x[row * STRIDE + block * CODES + word] = v;
        else if (word == CODES)
            scale_x[block * MOE_TILE_FULL + row] = uintBitsToFloat(v);
        else
            for (uint part = 0; part < PARTS; part++)
                sum_x[(block * PARTS + part) * MOE_TILE_FULL + row] = float(part_sum(v, part));
    }
}

// ---- fragments ---------------------------------------------------------------------------------

// With a stride of 0, what all elements of a packed row, or of a row of the tile, have in common.
const uint OF_PACKED =
    PACKED_IS_M ? gl_CooperativeMatrixLayoutColumnMajor : gl_CooperativeMatrixLayoutRowMajor;
const uint OF_ROW =
    PACKED_IS_M ? gl_CooperativeMatrixLayoutRowMajor : gl_CooperativeMatrixLayoutColumnMajor;

// The sums of a part of a block, of packed rows from a line on and rows of the tile from another.
INT_MATRIX multiply(uint block, uint part, uint line, uint row)
{
    INT_MATRIX sum = INT_MATRIX(0);
    uint w = ((DEEP ? part * MOE_TILE_ROWS : 0) + line) * STRIDE + block * CODES;
    uint x = row * STRIDE + block * CODES;
    uint from = DEEP ? 0 : part * OF_PART, to = DEEP ? MOE_INT8_VALUES : from + OF_PART;
    [[dont_unroll]] for (uint k = from; k < to; k += K) {
        A_MATRIX a;
        B_MATRIX b;
        if (PACKED_IS_M) {
            coopMatLoad(a, codes_w, w + k / 4, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
            coopMatLoad(b, codes_x, x + k / 4, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
        } else {
            coopMatLoad(a, codes_x, x + k / 4, STRIDE, gl_CooperativeMatrixLayoutRowMajor);
            coopMatLoad(b, codes_w, w + k / 4, STRIDE, gl_CooperativeMatrixLayoutColumnMajor);
        }
        sum = coopMatMulAdd(a, b, sum);
    }
    return sum;
}

void add_part(uint block, uint part, uint n_rows)
{
    for (uint i = 0; i < A_OWN; i++)
        for (uint j = 0; j < B_OWN; j++) {
            uvec2 own = fragment_of(i, j), at = uvec2(own.x * PACKED, own.y * ROWS);
            if (at.y >= n_rows)
                continue;
            uint both = block * PARTS + part;
            SUM_MATRIX scale, minimum, of_row;
            SUM_MATRIX v = SUM_MATRIX(multiply(block, part, at.x, at.y));
            coopMatLoad(scale, scale_w, both * MOE_TILE_ROWS + at.x, 0, int(OF_PACKED));
            v = v * scale;
            if (HAS_MINIMUM) {
                coopMatLoad(minimum, minimum_w, both * MOE_TILE_ROWS + at.x, 0,
                            int(OF_PACKED));
                coopMatLoad(of_row, sum_x, both * MOE_TILE_FULL + at.y, 0, int(OF_ROW));
                v = v - minimum * of_row;
            }
            coopMatLoad(of_row, scale_x, block * MOE_TILE_FULL + at.y, 0, int(OF_ROW));
            acc[i * B_OWN + j] = acc[i * B_OWN + j] + v * of_row;
        }
}

void main()
{
    uint row_block = p.first_row_block + gl_WorkGroupID.y;
    gemm_tile tile = find_tile();
    uvec2 base = expert_base(tile.expert);
    bool absent = expert_absent(base), used = !absent && tile.n_rows > 0;
    clear_sums();
    barrier();

    uint n_blocks = p.d_in / MOE_INT8_VALUES;
    for (uint first = 0; first < n_blocks && used; first += BLOCKS) {
        load_weights(base, row_block, first);
        load_input(tile.n_rows, first);
        barrier();
        for (uint block = 0; block < BLOCKS && has_fragments(); block++)
            for (uint part = 0; part < PARTS; part++)
                add_part(block, part, tile.n_rows);
        barrier();
    }
    store_sums();

    COUNT_TILE(used, tile.n_rows, (tile.n_rows + ROWS - 1) / ROWS * ROWS);

    vec4 bias = absent ? vec4(0) : own_bias(base, row_block);
    for (uint r = 0; r < PER_LANE && own_row(r) < tile.n_rows; r++) {
        uint row = own_row(r);
        uvec4 at = row * SUMS_STRIDE + own_rows();
        write_sums(tile, absent, row_block, row, factor[row],
                   vec4(sums[at.x], sums[at.y], sums[at.z], sums[at.w]), bias);
    }
    COUNT_END(tile.n_rows > 0);
}
