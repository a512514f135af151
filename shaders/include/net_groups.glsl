// SPDX-License-Identifier: MIT
// Rows of groups: starts and members are operands 3 and 4. Without a grouping all rows are in group
// 0. Included after net.glsl.

uint group_start(uint g)
{
    return has_in(3) ? in_uint(3, g) : g == 0 ? 0 : head.rows;
}

uint group_member(uint i)
{
    return has_in(4) ? in_uint(4, i) : i;
}
