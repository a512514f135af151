// SPDX-License-Identifier: MIT
// u(row, column) and n(row, column) of philox.h. Included after net.glsl and net_math.glsl, by
// kernels of net_elements_params.
#include "philox.h"

uvec2 random_words(uint row, uint column)
{
    uint v[4] = uint[4](column, row, p.stream, p.pass);
    moe_philox(v, p.key0, p.key1);
    return uvec2(v[0], v[1]);
}

float uniform_at(uint row, uint column)
{
    return float(random_words(row, column).x >> 8) * MOE_PHILOX_UNIT;
}

float normal_at(uint row, uint column)
{
    uvec2 words = random_words(row, column);
    float a = float((words.x >> 8) + 1) * MOE_PHILOX_UNIT;
    float b = float(words.y >> 8) * MOE_PHILOX_UNIT;
    return sqrt(-2.0 * net_log(a)) * cos_turn(b);
}
