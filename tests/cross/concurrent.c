// SPDX-License-Identifier: MIT
// Two threads that use the library at the same time: concurrent DEVICE DEVICE. Each on a context of
// its own, made by itself, then both on one. What they compute has the bits of a program with one
// thread, and each reads the text of its own errors.
#include "check.h"
#include "fixture.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_ROWS = 40 };

static const uint32_t counts[] = {1, 4, 5, MAX_ROWS};
enum { N_COUNTS = sizeof counts / sizeof *counts };

// What one thread works on.
struct work {
    const char *device;
    uint32_t max_tokens;
    struct layer_data data;
    float *x, *y, *want[N_COUNTS];
    char fault[512]; // what went wrong first; a thread cannot fail a cmocka test by itself
};

static struct work works[2];
static int n_rounds; // more where they are fast
static pthread_barrier_t start;

static size_t y_size(const struct work *w, uint32_t n_tokens)
{
    return (size_t) n_tokens * w->data.layer.d_out * sizeof(float);
}

static vkmoe_context_desc context_desc(const char *device)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    desc.n_threads = 3;
    desc.cache_dir = "";
    desc.validation = strcmp(device, "vulkan") == 0;
    return desc;
}

// ---- in a thread -------------------------------------------------------------------------------

static bool fault(struct work *w, const char *what)
{
    if (!*w->fault)
        snprintf(w->fault, sizeof w->fault, "%s: %s: %s", w->device, what, vkmoe_error_text());
    return false;
}

static bool check_runs(struct work *w, vkmoe_bind *bind)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = w->x;
    io.y = w->y;
    for (int i = 0; i < N_COUNTS; i++) {
        memset(w->y, 0xff, y_size(w, MAX_ROWS));
        if (vkmoe_run(bind, counts[i], &io) != VKMOE_OK)
            return fault(w, "run");
        if (memcmp(w->y, w->want[i], y_size(w, counts[i])) != 0)
            return fault(w, "other bits");
    }
    // The number is this thread's own.
    char number[16];
    snprintf(number, sizeof number, "%u", w->max_tokens + 1);
    if (vkmoe_run(bind, w->max_tokens + 1, &io) != VKMOE_E_SHAPE)
        return fault(w, "too many tokens were not refused");
    sched_yield();
    if (!strstr(vkmoe_error_text(), number))
        return fault(w, "another thread's error");
    return true;
}

// Objects of its own on the context, run, destroyed.
static bool use_context(struct work *w, vkmoe_context *context)
{
    struct stack stack = {.context = context};
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &w->data.layer;
    plan.max_tokens = w->max_tokens;
    bool good = (vkmoe_weights_create(context, &w->data.desc, &stack.weights) == VKMOE_OK &&
                 vkmoe_plan_create(context, &plan, &stack.plan) == VKMOE_OK &&
                 vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind) == VKMOE_OK) ||
                fault(w, "create");
    good = good && check_runs(w, stack.bind);
    stack.context = NULL; // the caller's
    stack_destroy(&stack);
    return good;
}

static void *own_context(void *arg)
{
    struct work *w = arg;
    const vkmoe_context_desc desc = context_desc(w->device);
    pthread_barrier_wait(&start);
    for (int round = 0; round < 2 && !*w->fault; round++) {
        vkmoe_context *context;
        if (vkmoe_context_create(&desc, &context) != VKMOE_OK) {
            fault(w, "context");
            break;
        }
        for (int i = 0; i < n_rounds / 2 && use_context(w, context); i++)
            continue;
        if (vkmoe_context_validation_count(context) > 0)
            fault(w, "the validation layer found something");
        vkmoe_context_destroy(context);
    }
    return NULL;
}

static vkmoe_context *shared;

static void *shared_context(void *arg)
{
    pthread_barrier_wait(&start);
    for (int i = 0; i < n_rounds && use_context(arg, shared); i++)
        continue;
    return NULL;
}

static struct stack shared_stack; // of works[0]; each thread has a bind of its own

static void *shared_weights_and_plan(void *arg)
{
    struct work *w = arg;
    pthread_barrier_wait(&start);
    for (int i = 0; i < n_rounds && !*w->fault; i++) {
        vkmoe_bind *bind = NULL;
        if (vkmoe_bind_create(shared_stack.plan, shared_stack.weights, NULL, &bind) != VKMOE_OK)
            fault(w, "bind");
        else
            check_runs(w, bind);
        vkmoe_bind_destroy(bind);
    }
    return NULL;
}

// ---- the tests ---------------------------------------------------------------------------------

static void run_both(void *(*main_a)(void *), struct work *a, void *(*main_b)(void *),
                     struct work *b)
{
    pthread_t threads[2];
    assert_int_equal(pthread_create(&threads[0], NULL, main_a, a), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, main_b, b), 0);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    if (*a->fault || *b->fault)
        fail_msg("%s\n%s", a->fault, b->fault);
}

static void each_has_a_context(void **state)
{
    (void) state;
    run_both(own_context, &works[0], own_context, &works[1]);
}

static void both_have_one_context(void **state)
{
    (void) state;
    const vkmoe_context_desc desc = context_desc(works[0].device);
    if (strcmp(works[0].device, works[1].device) != 0)
        skip();
    check_ok(vkmoe_context_create(&desc, &shared));
    run_both(shared_context, &works[0], shared_context, &works[1]);
    assert_int_equal(vkmoe_context_validation_count(shared), 0);
    vkmoe_context_destroy(shared);
}

// The second thread gets the first one's layer and its expectations, and a memory of its own.
static void both_have_one_plan(void **state)
{
    (void) state;
    const vkmoe_context_desc desc = context_desc(works[0].device);
    struct work second = works[0];
    second.y = malloc(y_size(&second, MAX_ROWS));
    assert_non_null(second.y);
    check_ok(stack_create(&shared_stack, &desc, &works[0].data, works[0].max_tokens, false));
    run_both(shared_weights_and_plan, &works[0], shared_weights_and_plan, &second);
    assert_int_equal(vkmoe_context_validation_count(shared_stack.context), 0);
    stack_destroy(&shared_stack);
    free(second.y);
}

// The check notices when two threads' weights are mixed up.
static void other_weights_are_noticed(void **state)
{
    (void) state;
    struct stack stack;
    struct work mixed = works[0];
    const vkmoe_context_desc desc = context_desc(mixed.device);
    check_ok(stack_create(&stack, &desc, &works[1].data, mixed.max_tokens, false));
    assert_false(check_runs(&mixed, stack.bind));
    assert_non_null(strstr(mixed.fault, "other bits"));
    stack_destroy(&stack);
}

// What one thread alone computes on the device.
static void work_init(struct work *w, const char *device, uint32_t seed)
{
    struct stack stack;
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = layer.d_ff = 48;
    layer.d_out = 33;
    const vkmoe_context_desc desc = context_desc(device);
    w->device = device;
    w->max_tokens = MAX_ROWS + 8 * seed;
    layer_data_init(&w->data, &layer, seed);
    size_t n = (size_t) MAX_ROWS * layer.d_model;
    w->x = malloc(n * sizeof *w->x);
    w->y = malloc(y_size(w, MAX_ROWS));
    assert_true(w->x && w->y);
    fill_random(w->x, n, seed + 10);
    vkmoe_io io = vkmoe_io_init();
    io.x = w->x;
    check_ok(stack_create(&stack, &desc, &w->data, w->max_tokens, false));
    for (int i = 0; i < N_COUNTS; i++) {
        io.y = w->want[i] = malloc(y_size(w, counts[i]));
        assert_non_null(io.y);
        check_ok(vkmoe_run(stack.bind, counts[i], &io));
    }
    stack_destroy(&stack);
}

static const char *devices[2];

static int set_up(void **state)
{
    (void) state;
    pthread_barrier_init(&start, NULL, 2);
    for (uint32_t i = 0; i < 2; i++)
        work_init(&works[i], devices[i], i + 1);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < N_COUNTS; k++)
            free(works[i].want[k]);
        free(works[i].x);
        free(works[i].y);
        layer_data_finish(&works[i].data);
    }
    pthread_barrier_destroy(&start);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_has_a_context),
        cmocka_unit_test(both_have_one_context),
        cmocka_unit_test(both_have_one_plan),
        cmocka_unit_test(other_weights_are_noticed),
    };
    if (argc != 3)
        return 2;
    n_rounds = strcmp(argv[1], "vulkan") == 0 ? 10 : 200;
    devices[0] = argv[1];
    devices[1] = argv[2];
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
