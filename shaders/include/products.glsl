// SPDX-License-Identifier: MIT
// The product of a tile's MOE_TILE_ROWS packed rows and its rows by matrices of f16 with sums in
// f32. In a network a column of the result is what a packed row is here. The kernel defines
//   SCALES_PACKED, SCALES_ROWS   constants: not for lines of f16, which are staged as they are
//   TILE                         a constant: the tile's rows at most
// A step of DEPTH values of k stages the lines of both sides as f16, k along memory.
//
// What is staged never passes f16's range, in either direction. Each line has an exponent e and is
// staged as 2^e v. It begins at the largest e; where a step would pass 2^15, e becomes what brings
// the step's largest value to 2^8, sums so far are multiplied by the difference, and the step is
// staged again. That happens at the first step, then rarely. So no gradient is too small and no
// activation too large, and a value loses bits only where it is 2^-22 of its line's largest so far.
// A line's e depends on that line alone, so its bits do not depend on the tile it is in.
const uint DEPTH = MOE_COOP_DEPTH, PAIRS = DEPTH / 2;
const uint STRIDE = PAIRS + 4; // f16vec2 of a line; banks of memory take turns

// Lines: the packed rows, then the rows of the tile.
const uint FIRST_ROW = MOE_TILE_ROWS, LINES = MOE_TILE_ROWS + MOE_TILE_FULL;
shared f16vec2 staged[LINES * STRIDE];

const int MOST_EXPONENT = 120, TOP = 15, FRESH_TOP = 8;
shared int exponent[LINES];
shared int growth[LINES]; // of the exponent
// Bits of the largest magnitude of a step that passes the top, or 0; behind the lines, does any?
// With 4 more, what matrices are loaded from begins at 16 bytes in whatever order a driver lays
// it out.
shared uint peak[LINES + 4];
const uint PASSED = LINES;

// What follows of fragments, or of matrices of any size: sums that are 0, sums and a step's
// products, and sums for lines that passed the top.
void clear_sums();
void multiply(uint n_rows);
void rescale();

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

// The values 2 pair and 2 pair + 1 of a line's step.
void stage_pair(uint line, uint pair, vec2 v, bool scales)
{
    float scale = scales ? power(exponent[line]) : 1.0;
    staged[line * STRIDE + pair] = f16vec2(v * scale);
    if (scales)
        watch(line, max(magnitude(v.x), magnitude(v.y)));
}

// A barrier has to follow, before the first step is staged.
void begin_products()
{
    uint lid = gl_LocalInvocationID.x;
    if (lid < LINES) {
        bool scales = lid < FIRST_ROW ? SCALES_PACKED : SCALES_ROWS;
        exponent[lid] = scales ? MOST_EXPONENT : 0;
        peak[lid] = 0;
    }
    if (lid == 0)
        peak[PASSED] = 0;
    clear_sums();
}

// Every invocation calls this once a step is staged; n_rows: those of the tile that are there.
// False: the step is to be staged again.
bool multiply_step(uint n_rows)
{
    barrier();
    bool passed = (SCALES_PACKED || SCALES_ROWS) && peak[PASSED] != 0;
    if (passed)
        rescale();
    else
        multiply(n_rows);
    barrier();
    return !passed;
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
    return sum * power(growth[line]) * power(growth[FIRST_ROW + row]);
}

// And as it is without exponents.
float unscaled(float sum, uint line, uint row)
{
    int e = -exponent[line] - exponent[FIRST_ROW + row];
    return sum * power(e / 2) * power(e - e / 2);
}

#ifdef MOE_FLEXIBLE
#include "products_flexible.glsl"
#else
#include "products_fragments.glsl"
#endif
