// SPDX-License-Identifier: MIT
// online.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/online.h>
#include <vkmoe/online.h>

int main(void)
{
    vkmoe_online_desc desc = vkmoe_online_desc_init();
    vkmoe_online_row row = vkmoe_online_row_init();
    bool defaults = desc.lambda == 1 && desc.alpha == 0 && desc.variance == 1 &&
                    desc.variance_rows == 1 && desc.kind == VKMOE_ONLINE_CATEGORICAL &&
                    !desc.weights && !row.outputs && !row.prior && !row.expert_losses;
    bool sizes = desc.struct_size == sizeof desc && row.struct_size == sizeof row;
    return defaults && sizes ? 0 : 1;
}
