// SPDX-License-Identifier: MIT
// Rows of a panel of packed weights times a row of the input. Each of GEMV_LANES neighbours reads
// every GEMV_LANES-th piece of the same GEMV_ROWS rows, so what it reads of the input serves them
// all; with GEMV_GATED those of the up panel behind it too. A kernel that shares sums more than
// once defines GEMV_TURNS. Included after weight.glsl and element.glsl.
const uint GEMV_LANES = HAS_CODES ? 16 : 32;
const uint GEMV_ROWS = MOE_PANEL_ROWS * GEMV_LANES / MOE_LOCAL_SIZE;
const uint GEMV_MOST_ROWS = 4;
const uint GEMV_MOST_LANES = 32;

#ifdef GEMV_GATED
const uint GEMV_MATRICES = 2;
#else
const uint GEMV_MATRICES = 1;
#endif
const uint GEMV_SUMS = GEMV_MATRICES * GEMV_MOST_ROWS;
const uint GEMV_PITCH = GEMV_MATRICES * MOE_PANEL_ROWS + 1; // odd: no two lanes share a bank

// Of each lane; of two turns, so that a barrier lies between reading one and writing it again.
#ifdef GEMV_TURNS
const uint GEMV_SHARED_TURNS = 2;
#else
const uint GEMV_SHARED_TURNS = 1;
#endif
shared float gemv_sums[GEMV_SHARED_TURNS * GEMV_MOST_LANES * GEMV_PITCH];

uint gemv_lane()
{
    return gl_LocalInvocationID.x % GEMV_LANES;
}

// The first of the invocation's rows of a panel.
uint gemv_first_row()
{
    return gl_LocalInvocationID.x / GEMV_LANES * GEMV_ROWS;
}

// Four elements from the k-th on; instead of those beyond d_in the last one.
vec4 gemv_input(uint type, uint row, uint k, uint d_in)
{
    vec4 v;
    for (uint l = 0; l < 4; l++) {
        uint at = WHOLE_PIECES ? k + l : min(k + l, d_in - 1);
        v[l] = element_from(type, input_at(row + at / elements_per_word(type)), at);
    }
    return v;
}

// Adds up this lane's products of its rows, of each of n_matrices; 0 if not `live`. A panel is read
// whole, also where the last one has fewer outputs.
//   row, stride      first uvec4 of the first of them in the expert's block, and of the next
//   type, input_row  type of the input's elements, and word where its row begins
void gemv_add(uvec2 base, uint window, bool live, uint n_matrices, uint row, uint stride, uint d_in,
              uint type, uint input_row, out float sum[GEMV_SUMS])
{
    uint panel = MOE_PANEL_ROWS * stride + MOE_PANEL_ROWS / 4;
    for (uint s = 0; s < GEMV_SUMS; s++)
        sum[s] = 0.0;
    uint n_pieces = (d_in + PIECE - 1) / PIECE;
    for (uint i = gemv_lane(); i < n_pieces && live; i += GEMV_LANES) {
        weight_piece w[GEMV_SUMS];
        for (uint m = 0; m < n_matrices; m++)
            for (uint r = 0; r < GEMV_ROWS; r++)
                w[m * GEMV_ROWS + r] =
                    load_piece(base, window, row + m * panel + r * stride, d_in, i);
        for (uint j = 0; j < PIECE / 4; j++) {
            uint k = i * PIECE + 4 * j;
            vec4 x = gemv_input(type, input_row, k, d_in);
            for (uint s = 0; s < n_matrices * GEMV_ROWS; s++) {
                vec4 v = piece_values(w[s], j);
                for (uint l = 0; l < 4; l++)
                    if (WHOLE_PIECES || k + l < d_in)
                        sum[s] = fma(x[l], v[l], sum[s]);
            }
        }
    }
}

// Every invocation of the workgroup calls this, with `turn` 0, or 0 and 1 by turns; behind it
// gemv_total(turn, ...) is the sum of a row in lane order.
void gemv_share(uint turn, uint n_matrices, float sum[GEMV_SUMS])
{
    uint to = (turn * GEMV_MOST_LANES + gemv_lane()) * GEMV_PITCH + gemv_first_row();
    for (uint m = 0; m < n_matrices; m++)
        for (uint r = 0; r < GEMV_ROWS; r++)
            gemv_sums[to + m * MOE_PANEL_ROWS + r] = sum[m * GEMV_ROWS + r];
    barrier();
}

float gemv_total(uint turn, uint matrix, uint row)
{
    float total = 0.0;
    for (uint lane = 0; lane < GEMV_LANES; lane++)
        total += gemv_sums[(turn * GEMV_MOST_LANES + lane) * GEMV_PITCH + matrix * MOE_PANEL_ROWS +
                           row];
    return total;
}
