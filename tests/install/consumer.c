// SPDX-License-Identifier: MIT
// A program of somebody else, built against the installed library: one expert that doubles its
// input. With -DWITH_LOADER it also calls the Vulkan loader itself, linked in the usual way; a
// library that leaked function pointers named vk* into the program would crash that call.
#include <stdio.h>
#include <vkmoe/vkmoe.h>
#ifdef WITH_LOADER
#include <vulkan/vulkan.h>
#endif

static enum vkmoe_status double_numbers(const float x[2], float y[2])
{
    const float router[2] = {1.0f, 0.0f}, up[4] = {1, 0, 0, 1}, down[4] = {2, 0, 0, 2};
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = layer.top_k = 1;
    layer.d_model = layer.d_ff = 2;
    const vkmoe_router_tensors router_tensors = {.weight = {.data = router}};
    const vkmoe_expert_tensors expert = {.up = {.data = up}, .down = {.data = down}};

    vkmoe_context_desc context_desc = vkmoe_context_desc_init();
    context_desc.device = "reference";
    vkmoe_weights_desc weights_desc = vkmoe_weights_desc_init();
    weights_desc.layer = &layer;
    weights_desc.router = &router_tensors;
    weights_desc.experts = &expert;
    vkmoe_plan_desc plan_desc = vkmoe_plan_desc_init();
    plan_desc.layer = &layer;
    plan_desc.max_tokens = 1;
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;

    vkmoe_context *context = NULL;
    vkmoe_weights *weights = NULL;
    vkmoe_plan *plan = NULL;
    vkmoe_bind *bind = NULL;
    enum vkmoe_status status = vkmoe_context_create(&context_desc, &context);
    if (status == VKMOE_OK)
        status = vkmoe_weights_create(context, &weights_desc, &weights);
    if (status == VKMOE_OK)
        status = vkmoe_plan_create(context, &plan_desc, &plan);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(plan, weights, NULL, &bind);
    if (status == VKMOE_OK)
        status = vkmoe_run(bind, 1, &io);
    if (status != VKMOE_OK)
        fprintf(stderr, "%s: %s\n", vkmoe_status_name(status), vkmoe_error_text());
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    vkmoe_weights_destroy(weights);
    vkmoe_context_destroy(context);
    return status;
}

int main(void)
{
    uint32_t n_devices = 0;
    if (vkmoe_device_list(NULL, &n_devices) != VKMOE_OK || n_devices == 0) {
        fprintf(stderr, "no devices: %s\n", vkmoe_error_text());
        return 1;
    }
#ifdef WITH_LOADER
    uint32_t version = 0;
    if (vkEnumerateInstanceVersion(&version) != VK_SUCCESS || version < VK_API_VERSION_1_0) {
        fprintf(stderr, "the loader reports version %x\n", version);
        return 1;
    }
#endif
    const float x[2] = {1.5f, -4.0f};
    float y[2] = {0};
    if (double_numbers(x, y) != VKMOE_OK)
        return 1;
    printf("%u devices, (%g, %g) doubled is (%g, %g)\n", n_devices, x[0], x[1], y[0], y[1]);
    return y[0] == 3.0f && y[1] == -8.0f ? 0 : 1;
}
