// SPDX-License-Identifier: MIT
// vkmoe.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/vkmoe.h>
#include <vkmoe/vkmoe.h>

int main(void)
{
    vkmoe_host host = vkmoe_host_init();
    vkmoe_context_desc context = vkmoe_context_desc_init();
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    vkmoe_weights_desc weights = vkmoe_weights_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_bind_desc bind = vkmoe_bind_desc_init();
    vkmoe_io io = vkmoe_io_init();

    bool ones = layer.norm_p == 1 && layer.routed_scale == 1 && layer.act_alpha == 1 &&
                layer.c_routed == 1 && layer.c_shared == 1 && layer.out_scale == 1;
    bool zeros = layer.d_out == 0 && !layer.gated && layer.norm_eps == 0 && !layer.expert_alias &&
                 !host.alloc && !host.trace && !context.device && !context.debug_labels &&
                 !weights.packed_shared && !plan.variant && !plan.scores &&
                 plan.x_type == VKMOE_F32 && plan.precision == VKMOE_PRECISION_EXACT &&
                 !bind.vk_io && !io.x && io.y_stride == 0 && !io.scores;

#define HAS_SIZE(desc) (desc.struct_size == sizeof desc)
    bool sizes = HAS_SIZE(host) && HAS_SIZE(context) && HAS_SIZE(layer) && HAS_SIZE(weights) &&
                 HAS_SIZE(plan) && HAS_SIZE(bind) && HAS_SIZE(io);
#undef HAS_SIZE
    return ones && zeros && sizes ? 0 : 1;
}
