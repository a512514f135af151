// SPDX-License-Identifier: MIT
// base.h alone, twice, as C11 and C++17.
#include <vkmoe/base.h>
#include <vkmoe/base.h>

int main(void)
{
    vkmoe_host host = vkmoe_host_init();
    return host.struct_size == sizeof host && !host.alloc && !host.trace ? 0 : 1;
}
