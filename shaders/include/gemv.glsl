// SPDX-License-Identifier: MIT
// A row of packed weights times a row of the input, shared by 8 invocations; MOE_PANEL_ROWS rows
// a workgroup. Included after weight.glsl and element.glsl.
const uint GEMV_LANES = MOE_LOCAL_SIZE / MOE_PANEL_ROWS;

shared float gemv_sums[MOE_LOCAL_SIZE];

uint gemv_row()
{
    return gl_LocalInvocationID.x / GEMV_LANES;
}

uint gemv_lane()
{
    return gl_LocalInvocationID.x % GEMV_LANES;
}

float gemv_input(uint type, uint row, uint k)
{
    return element_from(type, input_at(row + k / elements_per_word(type)), k);
}

// The dot product of a row's lanes, complete on lane 0 (the sum in lane order). Every invocation of
// the workgroup calls this; those with `live` false read nothing and add 0.
//   row              first uvec4 of the row in the expert's block
//   type, input_row  type of the input's elements, and word where its row begins
float gemv_dot(uvec2 base, uint window, bool live, uint row, uint d_in, uint type, uint input_row)
{
    float sum = 0.0;
    uint n_pieces = (d_in + PIECE - 1) / PIECE;
    for (uint i = gemv_lane(); i < n_pieces && live; i += GEMV_LANES) {
        weight_piece w = load_piece(base, window, row, d_in, i);
        for (uint j = 0; j < PIECE / 4; j++) {
            vec4 v = piece_values(w, j);
            uint k = i * PIECE + 4 * j;
            for (uint l = 0; l < 4; l++)
                if (WHOLE_PIECES || k + l < d_in)
                    sum = fma(gemv_input(type, input_row, k + l), v[l], sum);
        }
    }
    barrier(); // an earlier call's sums have been read
    gemv_sums[gl_LocalInvocationID.x] = sum;
    barrier();
    float total = 0.0;
    if (gemv_lane() == 0)
        for (uint j = 0; j < GEMV_LANES; j++)
            total += gemv_sums[gl_LocalInvocationID.x + j];
    return total;
}
