// SPDX-License-Identifier: MIT
// What kernels of an expert's matmul by matrices of f16 share: a step's packed rows and rows of the
// input as f16, k along memory, and the exponents that keep them in f16's range. Included after
// gemm.glsl. The kernel defines
//   WIDTH               rows of a tile that are staged
//   packed_of(line)     the packed row of a line, of the tile's 64
//
// What is staged never passes f16's range, in either direction. Each row of either side has an
// exponent e and is staged as 2^e v. It begins at the largest e; where a step would pass 2^15, e
// becomes what brings the step's largest value to 2^8, sums so far are multiplied by the
// difference, and the step is staged again. That happens at the first step, then rarely. So a value
// loses bits where it is 2^-22 of its row's largest so far. A row's e depends on that row alone, so
// its bits do not depend on the tile it is in. Rows of f16 are staged as they are.
const uint DEPTH = MOE_COOP_DEPTH;
const uint STAGED = PIECE < 16 ? PIECE : 16; // of a packed row an invocation stages at once
const uint STRIDE = DEPTH / 2 + 4;           // f16vec2 of a line; banks of memory take turns

// Lines: the packed rows, then the rows of the tile.
const uint LINES = MOE_TILE_ROWS + MOE_TILE_FULL;
shared f16vec2 staged[LINES * STRIDE];

const bool SCALES_PACKED = WEIGHT_TYPE != WEIGHT_F16, SCALES_INPUT = INPUT_TYPE != TYPE_F16;
const int MOST_EXPONENT = 120, TOP = 15, FRESH_TOP = 8;
shared int exponent[LINES];
shared int growth[LINES]; // of the exponent
// Bits of the largest magnitude of a step that passes the top, or 0; behind the lines, does any?
// With 4 more, what matrices are loaded from begins at 16 bytes in whatever order a driver lays
// it out.
shared uint peak[LINES + 4];
const uint PASSED = LINES;

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
        uint packed = row_block * MOE_TILE_ROWS + packed_of(line);
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

// Did a line pass the top in this step? A barrier comes before.
bool has_passed()
{
    return (SCALES_PACKED || SCALES_INPUT) && peak[PASSED] != 0;
}

// Gives the lines that passed the top a new exponent; sums so far have to be scaled by `growth`.
void grow_exponents()
{
    uint lid = gl_LocalInvocationID.x;
    if (lid < LINES) {
        int fresh = min(FRESH_TOP + 127 - int(peak[lid] >> 23), exponent[lid]);
        growth[lid] = peak[lid] > 0 ? fresh - exponent[lid] : 0;
        exponent[lid] += growth[lid];
        peak[lid] = 0;
    }
    if (lid == 0)
        peak[PASSED] = 0;
    barrier();
}

// A sum of the products of a packed row and a row of the tile, for their new exponents.
float grown(float sum, uint line, uint row)
{
    if (magnitude(sum) == 0) // an infinity stays one, even times 0
        return sum;
    return sum * power(growth[line]) * power(growth[MOE_TILE_ROWS + row]);
}

// And as it is without exponents.
float unscaled(float sum, uint line, uint row)
{
    int e = -exponent[line] - exponent[MOE_TILE_ROWS + row];
    return sum * power(e / 2) * power(e - e / 2);
}
