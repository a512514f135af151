// SPDX-License-Identifier: MIT
// Two contexts on one VkDevice and one VkQueue, each used by a thread of its own, while the owner
// of the device submits too: only its lock keeps them apart. The functions that the library gets
// for the queue see whether the calling thread holds it, and so does the validation layer.
#include "fixture.h"
#include "host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum { N_TOKENS = 9, N_ROUNDS = 10, N_THREADS = 2 };

static vkmoe_context *owner;
static struct host host;

// ---- the lock, and the functions that are only called under it ---------------------------------

static pthread_mutex_t queue_mutex = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local bool holding;
static atomic_int n_locks, n_calls, n_calls_without;

static void lock(void *user)
{
    (void) user;
    pthread_mutex_lock(&queue_mutex);
    holding = true;
    atomic_fetch_add(&n_locks, 1);
}

static void unlock(void *user)
{
    (void) user;
    holding = false;
    pthread_mutex_unlock(&queue_mutex);
}

static void note_call(void)
{
    atomic_fetch_add(&n_calls, 1);
    atomic_fetch_add(&n_calls_without, !holding);
}

static VKAPI_ATTR VkResult VKAPI_CALL queue_submit(VkQueue queue, uint32_t n,
                                                   const VkSubmitInfo *submits, VkFence fence)
{
    note_call();
    return host.vkQueueSubmit(queue, n, submits, fence);
}

static VKAPI_ATTR VkResult VKAPI_CALL queue_wait_idle(VkQueue queue)
{
    note_call();
    return host.vkQueueWaitIdle(queue);
}

static PFN_vkVoidFunction instead(const char *name)
{
    if (strcmp(name, "vkQueueSubmit") == 0)
        return (PFN_vkVoidFunction) queue_submit;
    if (strcmp(name, "vkQueueWaitIdle") == 0)
        return (PFN_vkVoidFunction) queue_wait_idle;
    return NULL;
}

static PFN_vkGetDeviceProcAddr real_device_proc;

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL device_proc(VkDevice device, const char *name)
{
    PFN_vkVoidFunction ours = instead(name);
    return ours ? ours : real_device_proc(device, name);
}

static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL instance_proc(VkInstance instance, const char *name)
{
    PFN_vkVoidFunction ours = instead(name);
    if (strcmp(name, "vkGetDeviceProcAddr") == 0)
        ours = (PFN_vkVoidFunction) device_proc;
    return ours ? ours
                : ((PFN_vkGetInstanceProcAddr) host.handles.get_instance_proc_addr)(instance, name);
}

// ---- in a thread -------------------------------------------------------------------------------

struct work {
    struct layer_data data;
    float x[N_TOKENS * 64], want[N_TOKENS * 64];
    bool descriptors; // or buffer device address, where there is
    char fault[512];  // a thread cannot fail a cmocka test by itself
};

static struct work works[N_THREADS];
static pthread_barrier_t start;

static enum vkmoe_status import(const struct work *w, vkmoe_context **out)
{
    static const VkPhysicalDeviceBufferDeviceAddressFeatures bda = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES,
        .bufferDeviceAddress = VK_TRUE};
    vkmoe_vk_import_desc desc = host_import_desc(&host.handles);
    desc.get_instance_proc_addr = (void *) instance_proc;
    desc.features = host.handles.buffer_device_address ? &bda : NULL;
    desc.queue = host.handles.queue;
    desc.lock_queue = lock;
    desc.unlock_queue = unlock;
    desc.addressing = w->descriptors ? VKMOE_ADDRESSING_DESCRIPTORS : VKMOE_ADDRESSING_AUTO;
    return vkmoe_context_import_vk(&desc, out);
}

static enum vkmoe_status use(struct work *w)
{
    struct stack stack = {0};
    float y[N_TOKENS * 64];
    vkmoe_io io = vkmoe_io_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &w->data.layer;
    plan.max_tokens = N_TOKENS;
    io.x = w->x;
    io.y = y;
    enum vkmoe_status status = import(w, &stack.context);
    if (status == VKMOE_OK)
        status = vkmoe_weights_create(stack.context, &w->data.desc, &stack.weights);
    if (status == VKMOE_OK)
        status = vkmoe_plan_create(stack.context, &plan, &stack.plan);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind);
    for (int i = 0; i < N_ROUNDS && status == VKMOE_OK && !*w->fault; i++) {
        memset(y, 0xff, sizeof y);
        status = vkmoe_run(stack.bind, N_TOKENS, &io);
        if (status == VKMOE_OK && memcmp(y, w->want, N_TOKENS * w->data.layer.d_out * 4) != 0)
            snprintf(w->fault, sizeof w->fault, "other bits in run %d", i);
    }
    stack_destroy(&stack);
    return status;
}

static void *thread_main(void *arg)
{
    struct work *w = arg;
    pthread_barrier_wait(&start);
    for (int i = 0; i < 3 && !*w->fault; i++)
        if (use(w) != VKMOE_OK)
            snprintf(w->fault, sizeof w->fault, "%s", vkmoe_error_text());
    return NULL;
}

// ---- the tests ---------------------------------------------------------------------------------

static void two_contexts_and_the_owner_share_a_queue(void **state)
{
    (void) state;
    pthread_t threads[N_THREADS];
    pthread_barrier_init(&start, NULL, N_THREADS + 1);
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, &works[i]), 0);
    pthread_barrier_wait(&start);
    for (int i = 0; i < 4 * N_ROUNDS; i++) {
        VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        lock(NULL);
        host_submit(&host, cmd);
        unlock(NULL);
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&start);
    for (int i = 0; i < N_THREADS; i++)
        if (*works[i].fault)
            fail_msg("thread %d: %s", i, works[i].fault);
    assert_true(n_calls >= N_THREADS * 3 * N_ROUNDS);
    assert_int_equal(n_calls_without, 0);
    assert_true(n_locks >= 4 * N_ROUNDS + N_THREADS * 3 * N_ROUNDS);
    assert_int_equal(vkmoe_context_validation_count(owner), 0);
}

// The control: a call by a thread that does not hold the lock is seen.
static void a_call_without_the_lock_is_noticed(void **state)
{
    (void) state;
    PFN_vkQueueWaitIdle wait = (PFN_vkQueueWaitIdle) device_proc(NULL, "vkQueueWaitIdle");
    int before = n_calls_without;
    assert_int_equal(wait(host.handles.queue), VK_SUCCESS);
    assert_int_equal(n_calls_without, before + 1);
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.validation = true;
    check_ok(vkmoe_context_create(&desc, &owner));
    host_init(&host, owner);
    PFN_vkGetInstanceProcAddr get = (PFN_vkGetInstanceProcAddr) host.handles.get_instance_proc_addr;
    real_device_proc = (PFN_vkGetDeviceProcAddr) get(host.handles.instance, "vkGetDeviceProcAddr");
    assert_non_null(real_device_proc);
    for (int i = 0; i < N_THREADS; i++) { // what one thread alone computes, on a device of its own
        struct work *w = &works[i];
        struct stack stack;
        vkmoe_layer_desc layer = full_layer();
        w->descriptors = i % 2;
        layer_data_init(&w->data, &layer, 19 + (uint32_t) i);
        fill_random(w->x, sizeof w->x / sizeof *w->x, 29 + (uint32_t) i);
        desc.addressing = w->descriptors ? VKMOE_ADDRESSING_DESCRIPTORS : VKMOE_ADDRESSING_AUTO;
        check_ok(stack_create(&stack, &desc, &w->data, N_TOKENS, false));
        vkmoe_io io = vkmoe_io_init();
        io.x = w->x;
        io.y = w->want;
        check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
        stack_destroy(&stack);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    for (int i = 0; i < N_THREADS; i++)
        layer_data_finish(&works[i].data);
    host_finish(&host);
    vkmoe_context_destroy(owner);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_contexts_and_the_owner_share_a_queue),
        cmocka_unit_test(a_call_without_the_lock_is_noticed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
