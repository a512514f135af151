// SPDX-License-Identifier: MIT
// vkmoe.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/vkmoe.h>
#include <vkmoe/vkmoe.h>

int main(void)
{
    vkmoe_context_desc context = vkmoe_context_desc_init();
    vkmoe_weights_desc weights = vkmoe_weights_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_bind_desc bind = vkmoe_bind_desc_init();
    vkmoe_io io = vkmoe_io_init();

    bool zeros = !context.device && !context.debug_labels && !weights.packed_shared &&
                 !weights.load_expert && !plan.variant && !plan.scores &&
                 plan.x_type == VKMOE_F32 && plan.precision == VKMOE_PRECISION_EXACT &&
                 plan.operation == VKMOE_OPERATION_LAYER && !io.rows && !io.offsets &&
                 !bind.vk_io && !io.x && io.y_stride == 0 && !io.scores && !io.token_ids;

#define HAS_SIZE(desc) (desc.struct_size == sizeof desc)
    bool sizes = HAS_SIZE(context) && HAS_SIZE(weights) && HAS_SIZE(plan) && HAS_SIZE(bind) &&
                 HAS_SIZE(io);
#undef HAS_SIZE
    return zeros && sizes ? 0 : 1;
}
