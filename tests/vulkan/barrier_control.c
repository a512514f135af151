// SPDX-License-Identifier: MIT
// The control of synchronisation validation: a program that lost one barrier must make the layer
// report a hazard, whichever barrier it is. Needs VK_LAYER_SYNCVAL_SHADER_ACCESSES_HEURISTIC=1.
#include "check.h"
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include "api/api.h"
#include "vulkan/plan.h"

// Layers older than this have no such setting, and see nothing between two dispatches.
#define LAYER_AT_LEAST VK_MAKE_API_VERSION(0, 1, 3, 300)

enum {
    MAX_TOKENS = 40,
    FIRST_DISPATCH = 1, // of a run: the one before reads a count from a buffer
};

static struct layer_data data;

static uint32_t layer_version(void)
{
    VkLayerProperties layers[64];
    uint32_t n = sizeof layers / sizeof *layers, version = 0;
    PFN_vkGetInstanceProcAddr get = moe_vk_loader();
    if (!get)
        return 0;
    PFN_vkEnumerateInstanceLayerProperties enumerate =
        (PFN_vkEnumerateInstanceLayerProperties) get(NULL, "vkEnumerateInstanceLayerProperties");
    if (enumerate(&n, layers) < 0)
        n = 0;
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(layers[i].layerName, "VK_LAYER_KHRONOS_validation") == 0)
            version = layers[i].specVersion;
    moe_vk_loader_release();
    return version;
}

static void log_line(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user;
    fprintf(stderr, "%d: %s\n", level, text);
}

// Objects on a device under validation; the program is the plan's.
static struct moe_vk_program *open_stack(struct stack *stack)
{
    static vkmoe_host services;
    services = vkmoe_host_init();
    services.log = log_line;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.host = &services;
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.validation = true;
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS; // no layer sees accesses by address
    check_ok(stack_create(stack, &desc, &data, MAX_TOKENS, true));
    return (struct moe_vk_program *) stack->plan->program;
}

// Runs, closes, and returns the number of messages.
static uint32_t run_and_close(struct stack *stack, uint32_t n_tokens)
{
    float *x = malloc(MAX_TOKENS * data.layer.d_model * sizeof *x);
    float *y = malloc(MAX_TOKENS * data.layer.d_out * sizeof *y);
    assert_non_null(x);
    assert_non_null(y);
    fill_random(x, MAX_TOKENS * data.layer.d_model, 5);
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    check_ok(vkmoe_run(stack->bind, n_tokens, &io));
    uint32_t n_messages = vkmoe_context_validation_count(stack->context);
    free(x);
    free(y);
    stack_destroy(stack);
    return n_messages;
}

static void check_each_barrier(uint32_t n_tokens)
{
    struct stack stack;
    enum moe_vk_regime regime = moe_vk_choose_regime(n_tokens);
    bool barrier[64];
    uint32_t n_barriers = 0;
    const struct moe_vk_sequence *whole = &open_stack(&stack)->sequences[regime];
    uint32_t n = whole->n;
    assert_true(n <= sizeof barrier);
    for (uint32_t i = 0; i < n; i++)
        n_barriers += barrier[i] = whole->dispatches[i].barrier;
    assert_true(n_barriers > 0);
    assert_int_equal(run_and_close(&stack, n_tokens), 0);

    for (uint32_t i = 0; i < n; i++) {
        if (!barrier[i] || i == FIRST_DISPATCH) // every recording begins with a barrier
            continue;
        // A context for each: a layer falls silent about what it has said often.
        struct moe_vk_dispatch *d = &open_stack(&stack)->sequences[regime].dispatches[i];
        const char *label = d->label;
        fprintf(stderr, "%u tokens without the barrier before %u, %s:\n", n_tokens, i, label);
        d->barrier = false;
        if (run_and_close(&stack, n_tokens) == 0)
            fail_msg("%u tokens, no barrier before %u, %s: not reported", n_tokens, i, label);
    }
}

static void each_dropped_barrier_is_reported(void **state)
{
    (void) state;
    check_each_barrier(MOE_VK_DECODE_TOKENS);
    check_each_barrier(MAX_TOKENS); // the other regime
}

int main(void)
{
    uint32_t version = layer_version();
    if (version < LAYER_AT_LEAST) {
        printf("validation layer %u.%u.%u cannot see hazards between dispatches, 1.3.300 can\n",
               VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version),
               VK_API_VERSION_PATCH(version));
        return 77;
    }
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&data, &layer, 7);
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_dropped_barrier_is_reported)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    layer_data_finish(&data);
    return failed != 0;
}
