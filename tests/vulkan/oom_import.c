// SPDX-License-Identifier: MIT
// Memory runs out at the first allocation, at the second, ... once or from then on, until a layer
// runs: on imported contexts, over the caller's buffers, and where a self-test is due. Each time: a
// clean error or the right result, nothing left over, and no variant condemned for it.
#include "budget.h"
#include "fixture.h"
#include "host.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "api/api.h"
#include "api/devices.h"
#include "base/host.h"
#include "vulkan/choose.h"

enum { N_TOKENS = 8, MAX_SIZE = N_TOKENS * 64 * 4, WORK_SIZE = 1 << 20 };

static vkmoe_context *owner;
static struct host host;
static struct host_buffer x, y, count, work, memory;
static bool has_f16; // of the device

// ---- a cache of the host's ---------------------------------------------------------------------

static struct {
    char key[128];
    unsigned char data[1 << 20];
    size_t size;
} store[2]; // verdicts, pipelines

static bool store_get(void *user, const char *key, void *data, size_t *size)
{
    (void) user;
    int i = strncmp(key, "verdicts-", 9) != 0;
    if (strcmp(store[i].key, key) != 0)
        return false;
    if (data)
        memcpy(data, store[i].data, store[i].size < *size ? store[i].size : *size);
    *size = store[i].size;
    return true;
}

static void store_set(void *user, const char *key, const void *data, size_t size)
{
    (void) user;
    int i = strncmp(key, "verdicts-", 9) != 0;
    assert_true(size <= sizeof store[i].data && strlen(key) < sizeof store[i].key);
    strcpy(store[i].key, key);
    memcpy(store[i].data, data, size);
    store[i].size = size;
}

// Or files, in a folder of the test's own.
static char folder[] = "vkmoe-oom-XXXXXX";

static void forget(void)
{
    char path[512];
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    memset(store, 0, sizeof store);
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            assert_int_equal(unlink(path), 0);
        }
    closedir(dir);
}

// ---- one attempt -------------------------------------------------------------------------------

struct kind {
    const char *name;
    bool own;     // not imported, with files for a cache
    bool queue;   // else it only records
    bool floor;   // whose weights pass through staging
    bool buffers; // the caller's: weights, x, y, token count, workspace
    enum vkmoe_dtype x_type;
    enum vkmoe_precision precision; // half: with f16 weights
};

static enum vkmoe_status open_context(const struct kind *kind, const vkmoe_host *services,
                                      vkmoe_context **out)
{
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .bufferDeviceAddress = VK_TRUE,
        .shaderFloat16 = has_f16};
    vkmoe_vk_import_desc desc;
    vkmoe_context_desc own = vkmoe_context_desc_init();
    own.device = "vulkan";
    own.host = services;
    own.cache_dir = folder;
    desc = host_import_desc(&host.handles);
    desc.host = services;
    desc.queue = kind->queue ? host.handles.queue : NULL;
    desc.features = &v12;
    desc.floor = kind->floor;
    enum vkmoe_status status =
        kind->own ? vkmoe_context_create(&own, out) : vkmoe_context_import_vk(&desc, out);
    // Too little for the widest tiles, whose runs in the self-test are as the others.
    if (status == VKMOE_OK)
        moe_vk((*out)->device)->caps.max_shared = moe_vk_variants[MOE_VK_A0].shared;
    return status;
}

// A create that fails leaves nothing where its object would be.
#define MAKE(out, call)                                    \
    do {                                                   \
        *(void **) (out) = &store;                         \
        status = (call);                                   \
        if (status != VKMOE_OK) {                          \
            assert_null(*(out));                           \
            return status;                                 \
        }                                                  \
    } while (0)

static enum vkmoe_status make(const struct kind *kind, const vkmoe_host *services,
                              const struct layer_data *data, struct stack *stack)
{
    enum vkmoe_status status;
    vkmoe_weights_desc weights = data->desc;
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_bind_desc bind = vkmoe_bind_desc_init();
    vkmoe_vk_io io = vkmoe_vk_io_init();
    vkmoe_vk_buffer place = {memory.handle, 0, memory.size};
    plan.layer = &data->layer;
    plan.max_tokens = N_TOKENS;
    plan.x_type = kind->x_type;
    plan.precision = kind->precision;
    io.x = (vkmoe_vk_buffer){x.handle, 0, x.size};
    io.y = (vkmoe_vk_buffer){y.handle, 0, y.size};
    io.x_stride = io.y_stride = MAX_SIZE / N_TOKENS;
    if (kind->buffers) {
        io.n_tokens = (vkmoe_vk_buffer){count.handle, 0, count.size};
        io.workspace = (vkmoe_vk_buffer){work.handle, 0, work.size};
        weights.vk_buffer = &place;
    }
    if (kind->buffers || !kind->queue)
        bind.vk_io = &io;
    MAKE(&stack->context, open_context(kind, services, &stack->context));
    MAKE(&stack->weights, vkmoe_weights_create(stack->context, &weights, &stack->weights));
    MAKE(&stack->plan, vkmoe_plan_create(stack->context, &plan, &stack->plan));
    MAKE(&stack->bind, vkmoe_bind_create(stack->plan, stack->weights, &bind, &stack->bind));
    return VKMOE_OK;
}

static enum vkmoe_status compute(const struct kind *kind, struct stack *stack)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x.mapped;
    io.y = y.mapped;
    io.x_stride = io.y_stride = MAX_SIZE / N_TOKENS;
    memset(y.mapped, 0, y.size);
    if (kind->queue && !kind->buffers)
        return vkmoe_run(stack->bind, N_TOKENS, &io);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    if (!kind->queue)
        check_ok(vkmoe_vk_weights_record_upload(stack->weights, cmd));
    check_ok(vkmoe_vk_record(stack->bind, cmd, N_TOKENS, 0, UINT32_MAX)); // allocates nothing
    host_submit(&host, cmd);
    vkmoe_vk_weights_release_staging(stack->weights);
    return VKMOE_OK;
}

static bool tests_itself(const struct kind *kind)
{
    return has_f16 && kind->precision == VKMOE_PRECISION_HALF && kind->queue;
}

// Variant a1 is good enough for this context, perhaps after a test.
static void check_a1(const vkmoe_context *context)
{
    bool good;
    struct moe_vk *vk = moe_vk(context->device);
    check_ok(moe_vk_judge(vk, &moe_vk_variants[MOE_VK_A1], &good));
    if (!good)
        fail_msg("a1: %s", moe_vk_verdict_text(vk, MOE_VK_A1));
}

// Creates and runs the layer; true when it ran. `want`: y, or NULL.
static bool attempt(const struct kind *kind, const struct layer_data *data, struct budget *budget,
                    const float *want)
{
    struct stack stack = {0};
    vkmoe_host services = vkmoe_host_init();
    if (!kind->own) {
        services.cache_get = store_get;
        services.cache_set = store_set;
    }
    budget_host(&services, budget);
    vkmoe_error_set("");
    enum vkmoe_status status = make(kind, &services, data, &stack);
    if (status == VKMOE_OK)
        status = compute(kind, &stack);
    if (status != VKMOE_OK) {
        assert_int_equal(status, VKMOE_E_MEMORY);
        assert_true(strlen(vkmoe_error_text()) > 0);
    } else if (want && kind->precision == VKMOE_PRECISION_EXACT) // without a1 there are other bits
        assert_memory_equal(y.mapped, want, y.size);
    if (budget->once && budget_failed(budget) && stack.plan && tests_itself(kind))
        check_a1(stack.context); // the self-test, once more
    stack_destroy(&stack);
    assert_int_equal(budget->live, 0);
    return status == VKMOE_OK;
}

// The next process has memory: nothing that was stored condemns the variant. Where it can it only
// records, so that it makes no test of its own.
static void check_next(const struct kind *kind)
{
    vkmoe_context *context;
    struct kind next = *kind;
    vkmoe_host services = vkmoe_host_init();
    next.queue = kind->own;
    if (!kind->own) {
        services.cache_get = store_get;
        services.cache_set = store_set;
    }
    check_ok(open_context(&next, &services, &context));
    check_a1(context);
    vkmoe_context_destroy(context);
}

static void check_kind(const struct kind *kind)
{
    struct layer_data data;
    float want[MAX_SIZE / 4];
    struct budget none = {.fail_at = -1};
    vkmoe_layer_desc layer = full_layer();
    if (kind->precision == VKMOE_PRECISION_HALF)
        layer.in_type = layer.out_type = VKMOE_F16;
    layer_data_init(&data, &layer, 1);
    forget();
    assert_true(attempt(kind, &data, &none, NULL));
    memcpy(want, y.mapped, sizeof want);
    assert_true(none.n >= 4); // there were allocations to fail
    for (int once = 0; once < (kind->own ? 1 : 2); once++) // with files each run has two tests
        for (long n = 0;; n++) {
            struct budget budget = {.fail_at = n, .once = once};
            forget();
            bool ran = attempt(kind, &data, &budget, want);
            if (tests_itself(kind))
                check_next(kind);
            if (!budget_failed(&budget)) {
                assert_true(ran);
                break;
            }
            assert_true(n < 1000);
        }
    print_message("%s: %ld allocations\n", kind->name, none.n);
    forget();
    layer_data_finish(&data);
}

static void every_allocation_may_fail(void **state)
{
    static const struct kind kinds[] = {
        {"a queue", .queue = true},
        {"a queue, the caller's buffers, bf16", .queue = true, .buffers = true,
         .x_type = VKMOE_BF16},
        {"record only", .x_type = VKMOE_F16},
        {"record only, staging", .floor = true},
        {"record only, staging, the caller's buffers", .floor = true, .buffers = true},
        {"record only, the caller's buffers, half", .buffers = true,
         .precision = VKMOE_PRECISION_HALF},
    };
    (void) state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        check_kind(&kinds[i]);
}

static void no_variant_is_condemned_for_it(void **state)
{
    static const struct kind kinds[] = {
        {"half, the caller's buffers, f16", .queue = true, .buffers = true, .x_type = VKMOE_F16,
         .precision = VKMOE_PRECISION_HALF},
        {"half, verdicts in files", .own = true, .queue = true, .precision = VKMOE_PRECISION_HALF},
    };
    (void) state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        check_kind(&kinds[i]);
}

// vkmoe_device_list is this, on the library's own services.
static void the_list_of_devices(void **state)
{
    (void) state;
    for (int once = 0; once < 2; once++)
        for (long n = 0;; n++) {
            struct moe_device_list list;
            struct budget budget = {.fail_at = n, .once = once};
            vkmoe_host services, budgeted = vkmoe_host_init();
            budget_host(&budgeted, &budget);
            check_ok(moe_host_init(&services, &budgeted));
            vkmoe_error_set("");
            enum vkmoe_status status = moe_device_list_init(&list, &services, NULL);
            if (status != VKMOE_OK) {
                assert_int_equal(status, VKMOE_E_MEMORY);
                assert_true(strlen(vkmoe_error_text()) > 0);
                assert_null(list.entries);
            } else
                assert_true(list.n >= 2); // the CPU is not all there is
            moe_device_list_finish(&list, &services);
            assert_int_equal(budget.live, 0);
            if (!budget_failed(&budget)) {
                assert_int_equal(status, VKMOE_OK);
                assert_true(n >= 3);
                break;
            }
        }
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_device_info info;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    uint32_t n_tokens = N_TOKENS;
    desc.device = "vulkan";
    desc.cache_dir = "";
    check_ok(vkmoe_context_create(&desc, &owner));
    check_ok(vkmoe_context_info(owner, &info));
    has_f16 = strcmp(info.tier, "T1 fp16") == 0; // not on SwiftShader
    host_init(&host, owner);
    host_buffer_init(&host, MAX_SIZE, &x);
    host_buffer_init(&host, MAX_SIZE, &y);
    host_buffer_init(&host, 4, &count);
    host_buffer_init(&host, WORK_SIZE, &work);
    host_buffer_init(&host, WORK_SIZE, &memory);
    fill_random(x.mapped, x.size / 4, 2);
    memcpy(count.mapped, &n_tokens, 4);
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void) state;
    host_buffer_finish(&host, &x);
    host_buffer_finish(&host, &y);
    host_buffer_finish(&host, &count);
    host_buffer_finish(&host, &work);
    host_buffer_finish(&host, &memory);
    host_finish(&host);
    vkmoe_context_destroy(owner);
    forget();
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(no_variant_is_condemned_for_it),
        cmocka_unit_test(the_list_of_devices),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
