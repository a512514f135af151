// SPDX-License-Identifier: MIT
// train.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/train.h>
#include <vkmoe/train.h>

int main(void)
{
    vkmoe_backward_io io = vkmoe_backward_io_init();
    bool zeros = !io.dy && !io.dx && io.dy_stride == 0 && io.dx_stride == 0 && !io.router &&
                 !io.experts && !io.shared && !io.accumulate;
    return io.struct_size == sizeof io && zeros ? 0 : 1;
}
