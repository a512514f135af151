// SPDX-License-Identifier: MIT
// layer.h alone, twice, as C11 and C++17: the init sets its size and its defaults.
#include <vkmoe/layer.h>
#include <vkmoe/layer.h>

int main(void)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    bool ones = layer.norm_p == 1 && layer.routed_scale == 1 && layer.act_alpha == 1 &&
                layer.c_routed == 1 && layer.c_shared == 1 && layer.out_scale == 1;
    bool zeros = layer.d_out == 0 && !layer.gated && layer.norm_eps == 0 && !layer.expert_alias &&
                 !layer.own_shared_types && layer.n_token_ids == 0;
    return ones && zeros && layer.struct_size == sizeof layer ? 0 : 1;
}
