// SPDX-License-Identifier: MIT
#include "host.h"
#include "verdicts.h"
#include "check.h"
#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>

// ---- a cache of the host's, and its log --------------------------------------------------------

struct store store;

static bool store_get(void *user, const char *key, void *data, size_t *size)
{
    (void) user;
    if (store.size == 0 || strcmp(key, store.key) != 0)
        return false;
    if (data)
        memcpy(data, store.data, store.size < *size ? store.size : *size);
    *size = store.size;
    return true;
}

static void store_set(void *user, const char *key, const void *data, size_t size)
{
    (void) user;
    if (strncmp(key, "verdicts-", 9) != 0)
        return;
    assert_true(size <= sizeof store.data && strlen(key) < sizeof store.key);
    memmove(store.key, key, strlen(key) + 1); // a test may pass the very key on
    memcpy(store.data, data, size);
    store.size = size;
    store.n_sets++;
}

static void keep_log(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user;
    size_t n = strlen(store.log);
    if (level <= VKMOE_LOG_WARN)
        snprintf(store.log + n, sizeof store.log - n, "%s\n", text);
}

vkmoe_host services(void)
{
    vkmoe_host host = vkmoe_host_init();
    host.cache_get = store_get;
    host.cache_set = store_set;
    host.log = keep_log;
    return host;
}

long n_allocations_left;

static void *limited_alloc(void *user, size_t size, size_t align)
{
    (void) user;
    return n_allocations_left-- > 0 ? aligned_alloc(align, (size + align - 1) / align * align)
                                    : NULL;
}

static void limited_free(void *user, void *memory)
{
    (void) user;
    free(memory);
}

vkmoe_host limited_services(void)
{
    vkmoe_host host = services();
    host.alloc = limited_alloc;
    host.free = limited_free;
    return host;
}

struct moe_vk_verdict *stored(struct moe_vk_record *record)
{
    enum { SEAL = 16 };
    assert_int_equal(store.size, SEAL + sizeof *record);
    memcpy(record, store.data + SEAL, sizeof *record);
    return &record->variants[MOE_VK_A1];
}

void store_record(vkmoe_context *context, const struct moe_vk_record *record)
{
    assert_true(moe_vk_entry_write(moe_vk(context->device), store.key, record, sizeof *record));
}

void check_stored(enum moe_vk_state state, enum moe_vk_cause cause)
{
    struct moe_vk_record record;
    const struct moe_vk_verdict *verdict = stored(&record);
    assert_int_equal(verdict->state, state);
    assert_int_equal(verdict->cause, cause);
}

// ---- contexts and plans ------------------------------------------------------------------------

vkmoe_context *open_context(const vkmoe_host *host, const char *cache_dir)
{
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.host = host;
    desc.cache_dir = cache_dir;
    check_ok(vkmoe_context_create(&desc, &context));
    struct moe_vk_caps *caps = &moe_vk(context->device)->caps;
    const uint32_t others = MOE_VK_BIT(MOE_VK_MATRIX) | MOE_VK_BIT(MOE_VK_DOT);
    caps->features &= ~others; // so that a1 alone is to be judged
    // These are faster than a1 on what is a CPU, or not for layers.
    caps->disabled |= MOE_VK_BIT(MOE_VK_A0N) | MOE_VK_BIT(MOE_VK_NET_A0N);
    return context;
}

const char *plan_of(vkmoe_context *context, const char *variant)
{
    struct moe_layer layer;
    struct moe_graph graph;
    struct moe_program *program;
    vkmoe_layer_desc desc = full_layer();
    desc.in_type = desc.out_type = VKMOE_F16;
    check_ok(moe_layer_init(&layer, &desc));
    moe_graph_forward(&graph, &layer, false);
    struct moe_program_params params = {
        .max_tokens = 16, .precision = VKMOE_PRECISION_HALF, .variant = variant, .budget_ms = 50};
    if (moe_vk_program_create(context->device, &graph, &params, &program) != VKMOE_OK)
        return NULL;
    const char *name = ((struct moe_vk_program *) program)->variant->name;
    moe_vk_program_destroy(program);
    return name;
}

void check_plan(vkmoe_context *context, const char *want)
{
    const char *got = plan_of(context, NULL);
    if (!got)
        fail_msg("no plan: %s", vkmoe_error_text());
    assert_string_equal(got, want);
}

void check_refused(vkmoe_context *context, const char *why)
{
    assert_null(plan_of(context, "a1"));
    if (!strstr(vkmoe_error_text(), why) || !strstr(vkmoe_error_text(), "'a1'"))
        fail_msg("'%s' does not say '%s'", vkmoe_error_text(), why);
}

void bug(enum interpose_bug kind)
{
    interpose = (struct interpose){
        .recycle = kind == INTERPOSE_SKIP,
        .kernel = moe_spv_table[MOE_SPV_EXPERT_GEMM_F16_BDA].words,
        .bug = kind,
        .word = (sizeof(struct head_params) + offsetof(struct gemm_params, d_in)) / 4,
    };
}

void start(enum interpose_bug kind)
{
    memset(&store, 0, sizeof store);
    bug(kind);
}

void slow(enum moe_vk_variant_id variant)
{
    bug(INTERPOSE_SLOW);
    interpose.kernel = moe_spv_table[moe_vk_variants[variant].gemm_bda].words;
    interpose.second = moe_spv_table[moe_vk_variants[variant].small_bda].words;
}

bool device_has_f16(void)
{
    vkmoe_context *context = open_context(NULL, "");
    VkPhysicalDeviceShaderFloat16Int8Features float16 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &float16};
    struct moe_vk *vk = moe_vk(context->device);
    vk->fn.vkGetPhysicalDeviceFeatures2(vk->physical, &features);
    vkmoe_context_destroy(context);
    return float16.shaderFloat16;
}

vkmoe_context *import_of(vkmoe_context *owner, const vkmoe_host *host, bool with_queue)
{
    vkmoe_context *context;
    vkmoe_vk_handles handles;
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .bufferDeviceAddress = VK_TRUE,
        .shaderFloat16 = VK_TRUE};
    check_ok(vkmoe_vk_get_handles(owner, &handles));
    vkmoe_vk_import_desc desc = host_import_desc(&handles);
    desc.host = host;
    desc.features = &v12;
    if (with_queue)
        desc.queue = handles.queue;
    check_ok(vkmoe_context_import_vk(&desc, &context));
    return context;
}
