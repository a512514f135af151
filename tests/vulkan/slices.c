// SPDX-License-Identifier: MIT
// A run under a budget of time: how many submissions it takes, that their number follows what they
// take, and that the bits do not; then one of them times out. interpose.c counts submissions, makes
// them slow and makes waits fail.
#include "check.h"
#include "fixture.h"
#include "interpose.h"

#include <stdlib.h>

#include <vkmoe/vulkan.h>

// What was learnt from one slow submission is forgotten in a dozen runs. A stall of the machine is
// one more such submission, and there is time for some of them.
enum { N_TOKENS = 64, MAX_RUNS = 60 };

static struct layer_data data;
static float *x, *want;
static size_t y_size;

static void open_stack(struct stack *stack, float budget_ms)
{
    vkmoe_context_desc context = vkmoe_context_desc_init();
    context.device = "vulkan";
    check_ok(vkmoe_context_create(&context, &stack->context));
    check_ok(vkmoe_weights_create(stack->context, &data.desc, &stack->weights));
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &data.layer;
    plan.max_tokens = N_TOKENS;
    plan.budget_ms = budget_ms;
    check_ok(vkmoe_plan_create(stack->context, &plan, &stack->plan));
    check_ok(vkmoe_bind_create(stack->plan, stack->weights, NULL, &stack->bind));
}

// Submissions of a run, whose bits are checked.
static long submissions(const struct stack *stack)
{
    float *y = malloc(y_size);
    assert_non_null(y);
    memset(y, 0xff, y_size);
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    interpose.n_submits = 0;
    check_ok(vkmoe_run(stack->bind, N_TOKENS, &io));
    if (want[0] == 0) // the first run of all
        memcpy(want, y, y_size);
    assert_memory_equal(y, want, y_size);
    free(y);
    return interpose.n_submits;
}

static void a_large_budget_is_one_submission(void **state)
{
    (void) state;
    struct stack stack;
    open_stack(&stack, 1e6f);
    assert_int_equal(submissions(&stack), 1);
    stack_destroy(&stack);
}

static void a_small_budget_is_many(void **state)
{
    (void) state;
    struct stack stack;
    open_stack(&stack, 0.01f);
    long n = submissions(&stack);
    if (n < 20) // 9 dispatches, most of them in pieces
        fail_msg("%ld submissions", n);
    stack_destroy(&stack);
}

static void slices_follow_what_they_take(void **state)
{
    (void) state;
    struct stack stack;
    open_stack(&stack, 400.0f); // more than anything takes, so far
    assert_int_equal(submissions(&stack), 1);
    interpose.submit_ms = 1200; // one submission is too long, and it is believed to be the work
    submissions(&stack);
    interpose.submit_ms = 0;
    long slow = submissions(&stack);
    assert_true(slow > 1);
    long n = slow;
    for (int i = 0; n != 1 && i < MAX_RUNS; i++)
        n = submissions(&stack);
    assert_int_equal(n, 1);
    stack_destroy(&stack);
}

// Into poisoned y, which is to stay so, with the n-th wait failing.
static void fail_at(const struct stack *stack, long n, VkResult result, enum vkmoe_status wanted)
{
    unsigned char *y = malloc(y_size);
    assert_non_null(y);
    memset(y, 0xa5, y_size);
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = (float *) y;
    interpose.n_submits = interpose.n_calls = 0;
    interpose.failed = false;
    interpose.fail_name = "vkWaitForFences";
    interpose.fail_at = n;
    interpose.fail_result = result;
    check_fails(vkmoe_run(stack->bind, N_TOKENS, &io), wanted, "vkWaitForFences");
    interpose.fail_name = NULL;
    assert_true(interpose.failed);
    assert_int_equal(interpose.n_submits, n); // nothing follows
    for (size_t i = 0; i < y_size; i++)
        assert_int_equal(y[i], 0xa5);
    free(y);
}

// The run ends there, nothing is given out of what it had computed, and the next one is as if it
// had not been. A device that is lost there stays lost.
static void a_slice_times_out(void **state)
{
    (void) state;
    struct stack stack;
    open_stack(&stack, 0.01f);
    submissions(&stack);
    const long at[] = {1, 2, 15}; // of 20 and more
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        fail_at(&stack, at[i], VK_TIMEOUT, VKMOE_E_DEVICE);
        check_ok(vkmoe_context_status(stack.context));
        submissions(&stack);
    }
    fail_at(&stack, 7, VK_ERROR_DEVICE_LOST, VKMOE_E_DEVICE_LOST);
    assert_int_equal(vkmoe_context_status(stack.context), VKMOE_E_DEVICE_LOST);
    vkmoe_io io = vkmoe_io_init();
    io.x = io.y = x;
    check_fails(vkmoe_run(stack.bind, N_TOKENS, &io), VKMOE_E_DEVICE_LOST, "lost");
    stack_destroy(&stack);
}

// A budget that leaves room in a frame of graphics cuts matrices into more dispatches. A device
// that is too slow for it gets them one by one, but for what is next to no work.
static void a_frame_budget_goes_dispatch_by_dispatch(void **state)
{
    (void) state;
    struct stack usual, frame;
    uint32_t n_usual, n_frame;
    open_stack(&usual, 0); // the default
    check_ok(vkmoe_vk_dispatch_count(usual.bind, N_TOKENS, &n_usual));
    stack_destroy(&usual);
    open_stack(&frame, 2.0f);
    check_ok(vkmoe_vk_dispatch_count(frame.bind, N_TOKENS, &n_frame));
    assert_true(n_frame > n_usual);
    interpose.submit_ms = 8;
    submissions(&frame);
    long n = submissions(&frame);
    interpose.submit_ms = 0;
    assert_true(n > n_frame * 3 / 4 && n <= n_frame);
    stack_destroy(&frame);
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = layer.d_ff = layer.d_out = 256;
    layer_data_init(&data, &layer, 9);
    y_size = (size_t) N_TOKENS * data.layer.d_out * sizeof *want;
    x = malloc((size_t) N_TOKENS * data.layer.d_model * sizeof *x);
    want = calloc(1, y_size);
    assert_true(x && want);
    fill_random(x, (size_t) N_TOKENS * data.layer.d_model, 5);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    free(x);
    free(want);
    layer_data_finish(&data);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_budget_is_one_submission),
        cmocka_unit_test(a_small_budget_is_many),
        cmocka_unit_test(slices_follow_what_they_take),
        cmocka_unit_test(a_slice_times_out),
        cmocka_unit_test(a_frame_budget_goes_dispatch_by_dispatch),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
