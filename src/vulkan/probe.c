// SPDX-License-Identifier: MIT
// What a device can do at best: one read of memory, multiply-adds, empty dispatches. Each load is
// doubled until it takes long enough for a clock, then the best of a few tries counts.
#include "vulkan/measure.h"

#include <string.h>

#include "base/bits.h"
#include "params.h"
#include "vulkan/choose.h"
#include "vulkan/plan.h"
#include "vulkan/timer.h"

#define ENOUGH_SECONDS 2e-3

enum {
    TRIES = 5,
    CHUNK_SIZE = MOE_PROBE_CHUNK * 16, // bytes of a workgroup
    READ_UNIT = 1 << 20,               // a probe reads a multiple of it
    WINDOW = 256 << 20,                // bytes of a dispatch at most: not too long on any device
    RESULT_SIZE = 256,                 // bytes of a window's result: what any offset may be
    MOST_PASSES = 4096,
    FIRST_GROUPS = 16, // workgroups of multiply-adds: a core each
    MOST_GROUPS = 16384,
    ROUNDS = 4, // of a workgroup, as long as there are fewer groups than that
    MOST_MATH = 1 << 26,
    FIRST_DISPATCHES = 64,
    MOST_DISPATCHES = 4096,
    NEVER = 0x7fc5a5a5, // as f32 a NaN
};

// Operations of a workgroup in ROUNDS rounds: eight chains of four numbers, two operations a
// multiply-add.
#define GROUP_OPERATIONS (2.0 * 8 * 4 * MOE_PROBE_STEPS * ROUNDS * MOE_LOCAL_SIZE)

// Kernels of multiply-adds: a row is an arithmetic that devices with the features `needs` have.
static const struct arithmetic {
    enum vkmoe_arithmetic arithmetic;
    enum moe_spv_id spv, spv_bda;
    uint32_t needs;                 // features, as bits
    enum moe_vk_variant_id variant; // not where the driver is known to be bad at this one
} arithmetics[] = {
    {VKMOE_ARITHMETIC_F32, MOE_SPV_PROBE_MATH, MOE_SPV_PROBE_MATH_BDA, 0, MOE_VK_A0},
    {VKMOE_ARITHMETIC_F16, MOE_SPV_PROBE_MATH_F16, MOE_SPV_PROBE_MATH_F16_BDA,
     MOE_VK_BIT(MOE_VK_FLOAT16), MOE_VK_A1},
    {VKMOE_ARITHMETIC_INT8, MOE_SPV_PROBE_MATH_INT8, MOE_SPV_PROBE_MATH_INT8_BDA,
     MOE_VK_BIT(MOE_VK_DOT), MOE_VK_A2},
};
enum { N_ARITHMETICS = MOE_COUNT(arithmetics) };

// A part of the memory that a dispatch reads.
struct window {
    uint64_t offset, size;
    VkDescriptorSet set; // with descriptors
};

struct probe {
    struct moe_device_probe base;
    struct moe_vk_buffer memory, result;
    struct window *windows;
    uint32_t n_windows;
    VkDescriptorPool pool;
    VkPipeline read, empty, math[N_ARITHMETICS]; // math: VK_NULL_HANDLE where there is none
    struct moe_vk_command command;
    struct moe_vk_timer timer;
    double read_rate; // bytes/s, as the last read was; 0 before
};

static struct moe_vk *vk_of(const struct probe *p)
{
    return moe_vk(p->base.device);
}

// ---- create ------------------------------------------------------------------------------------

static enum vkmoe_status get_pipeline(struct moe_vk *vk, enum moe_spv_id spv, VkPipeline *out)
{
    static const uint32_t spec[MOE_VK_MAX_SPEC];
    return moe_vk_pipeline_get(vk, spv, spec, out);
}

// An arithmetic that the driver makes no pipeline for is not there.
static enum vkmoe_status get_math(struct moe_vk *vk, const struct arithmetic *a, VkPipeline *out)
{
    if ((vk->caps.features & a->needs) != a->needs || moe_vk_known_bad(&vk->caps, a->variant))
        return VKMOE_OK;
    enum vkmoe_status status = get_pipeline(vk, vk->bda ? a->spv_bda : a->spv, out);
    return status == VKMOE_E_DEVICE && a->needs ? VKMOE_OK : status;
}

static enum vkmoe_status get_pipelines(struct probe *p)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = vk_of(p);
    TRY(get_pipeline(vk, vk->bda ? MOE_SPV_PROBE_READ_BDA : MOE_SPV_PROBE_READ, &p->read));
    TRY(get_pipeline(vk, MOE_SPV_PROBE_EMPTY, &p->empty));
    for (int i = 0; i < N_ARITHMETICS; i++)
        TRY(get_math(vk, &arithmetics[i], &p->math[i]));

fail:
    return status;
}

// Windows within the limits of a binding and of a dispatch, each of whole units.
static enum vkmoe_status create_windows(struct probe *p, uint64_t size)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = vk_of(p);
    struct moe_vk_limits limits = moe_vk_limits(vk, 0);
    uint64_t most = moe_min(moe_min(limits.range, WINDOW), limits.groups[0] * CHUNK_SIZE);
    most = moe_max(most / READ_UNIT, 1) * READ_UNIT;
    p->n_windows = (uint32_t) moe_div_up(size, most);
    TRY(moe_try_alloc(vk->base.host, p->n_windows * sizeof *p->windows, "a probe's windows",
                      &p->windows));
    for (uint32_t i = 0; i < p->n_windows; i++) {
        p->windows[i].offset = i * most;
        p->windows[i].size = moe_min(most, size - p->windows[i].offset);
    }

fail:
    return status;
}

static void write_set(struct moe_vk *vk, const struct probe *p, uint32_t i)
{
    const struct window *window = &p->windows[i];
    VkDescriptorBufferInfo infos[] = {{p->memory.handle, window->offset, window->size},
                                      {p->result.handle, (uint64_t) i * RESULT_SIZE, RESULT_SIZE}};
    static const uint32_t slots[] = {MOE_SLOT_WEIGHTS, MOE_SLOT_OUTPUT};
    VkWriteDescriptorSet writes[2];
    for (int k = 0; k < 2; k++)
        writes[k] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                           .dstSet = window->set,
                                           .dstBinding = slots[k],
                                           .descriptorCount = 1,
                                           .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                           .pBufferInfo = &infos[k]};
    vk->fn.vkUpdateDescriptorSets(vk->device, 2, writes, 0, NULL);
}

static enum vkmoe_status create_sets(struct probe *p)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = vk_of(p);
    VkDescriptorPoolSize size = {.type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                 .descriptorCount = 4 * p->n_windows};
    VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                       .maxSets = p->n_windows,
                                       .poolSizeCount = 1,
                                       .pPoolSizes = &size};
    VK_TRY(vk, vk->fn.vkCreateDescriptorPool(vk->device, &pool, NULL, &p->pool));
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorPool = p->pool,
                                        .descriptorSetCount = 1,
                                        .pSetLayouts = &vk->set_layout};
    for (uint32_t i = 0; i < p->n_windows; i++) {
        VK_TRY(vk, vk->fn.vkAllocateDescriptorSets(vk->device, &info, &p->windows[i].set));
        write_set(vk, p, i);
    }

fail:
    return status;
}

// Memory that was never written may be no memory: pages of zeros that are all the same one.
static enum vkmoe_status fill_memory(struct probe *p)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = vk_of(p);
    TRY(moe_vk_command_begin(vk, &p->command));
    vk->fn.vkCmdFillBuffer(p->command.buffer, p->memory.handle, 0, VK_WHOLE_SIZE, 0x01020304);
    moe_vk_barrier(vk, p->command.buffer, VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                   VK_ACCESS_SHADER_READ_BIT);
    TRY(moe_vk_command_run(vk, &p->command));

fail:
    return status;
}

enum vkmoe_status moe_vk_probe_create(struct moe_device *device, uint64_t read_size,
                                      struct moe_device_probe **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(device);
    struct probe *p = NULL;
    *out = NULL;
    TRY(moe_try_alloc(device->host, sizeof *p, "Vulkan probe", &p));
    p->base.device = device;
    TRY(moe_vk_timer_create(vk, &p->timer));
    TRY(moe_vk_buffer_create(vk, read_size, MOE_VK_DEVICE, "vkmoe probe", &p->memory));
    TRY(create_windows(p, read_size));
    TRY(moe_vk_buffer_create(vk, (uint64_t) p->n_windows * RESULT_SIZE, MOE_VK_DEVICE,
                             "vkmoe probe results", &p->result));
    TRY(moe_vk_command_create(vk, &p->command));
    if (!vk->bda)
        TRY(create_sets(p));
    TRY(get_pipelines(p));
    TRY(fill_memory(p));
    *out = &p->base;
    return VKMOE_OK;

fail:
    if (p)
        moe_vk_probe_destroy(&p->base);
    return status;
}

void moe_vk_probe_destroy(struct moe_device_probe *probe)
{
    struct probe *p = (struct probe *) probe;
    struct moe_vk *vk = vk_of(p);
    moe_vk_command_destroy(vk, &p->command);
    if (p->pool)
        vk->fn.vkDestroyDescriptorPool(vk->device, p->pool, NULL);
    moe_free(vk->base.host, p->windows);
    moe_vk_buffer_destroy(vk, &p->result);
    moe_vk_buffer_destroy(vk, &p->memory);
    moe_vk_timer_destroy(vk, &p->timer);
    moe_free(vk->base.host, p);
}

// ---- loads -------------------------------------------------------------------------------------

// Binds a kernel for dispatches that read a window.
static void bind_kernel(const struct probe *p, VkPipeline pipeline, uint32_t i, uint32_t rounds)
{
    const struct moe_vk *vk = vk_of(p);
    const struct window *window = &p->windows[i];
    VkCommandBuffer cmd = p->command.buffer;
    struct {
        struct head_params head;
        struct probe_params params;
    } push = {.params = {.n = rounds, .never = NEVER, .a = 0.75f, .b = 1.0f}};
    push.head.address[MOE_SLOT_WEIGHTS] = p->memory.address + window->offset;
    push.head.address[MOE_SLOT_OUTPUT] = p->result.address + i * RESULT_SIZE;
    vk->fn.vkCmdBindPipeline(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    if (window->set)
        vk->fn.vkCmdBindDescriptorSets(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, vk->pipeline_layout, 0,
                                       1, &window->set, 0, NULL);
    vk->fn.vkCmdPushConstants(cmd, vk->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, sizeof push,
                              &push);
}

static enum vkmoe_status begin_load(struct probe *p)
{
    enum vkmoe_status status = VKMOE_OK;
    TRY(moe_vk_command_begin(vk_of(p), &p->command));
    moe_vk_timer_begin(vk_of(p), &p->timer, p->command.buffer);

fail:
    return status;
}

static enum vkmoe_status end_load(struct probe *p, double *seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = vk_of(p);
    moe_vk_timer_stamp(vk, &p->timer, p->command.buffer);
    TRY(moe_vk_command_run(vk, &p->command));
    TRY(moe_vk_timer_read(vk, &p->timer));
    *seconds += moe_vk_timer_seconds(&p->timer, 0, 1);

fail:
    return status;
}

static void wait_for_dispatch(const struct probe *p)
{
    moe_vk_barrier(vk_of(p), p->command.buffer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                   VK_ACCESS_SHADER_WRITE_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                   VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

// A load of n units; *seconds is what it took.
typedef enum vkmoe_status load_fn(struct probe *p, VkPipeline pipeline, uint64_t n,
                                  double *seconds);

// Bytes of a submission: long ones, that do not look like a hang.
static double bytes_at_once(const struct probe *p)
{
    double bytes = p->read_rate * 10 * ENOUGH_SECONDS;
    return bytes > WINDOW ? bytes : WINDOW;
}

// n_passes over the memory, one window after the other. Windows have results of their own, so that
// none waits for another.
static enum vkmoe_status read_windows(struct probe *p, VkPipeline pipeline, uint32_t n_passes,
                                      double *seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk *vk = vk_of(p);
    double most = bytes_at_once(p), bytes = 0;
    for (uint32_t i = 0; i < p->n_windows; i++) {
        uint64_t size = p->windows[i].size;
        if (bytes == 0)
            TRY(begin_load(p));
        bind_kernel(p, pipeline, i, 0);
        vk->fn.vkCmdDispatch(p->command.buffer, (uint32_t) (size / CHUNK_SIZE), n_passes, 1);
        bytes += (double) size * n_passes;
        if (bytes < most && i + 1 < p->n_windows)
            continue;
        TRY(end_load(p, seconds));
        bytes = 0;
    }

fail:
    return status;
}

// n passes over the memory: in one dispatch, if it is all of it.
static enum vkmoe_status load_read(struct probe *p, VkPipeline pipeline, uint64_t n,
                                   double *seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    uint64_t most = p->n_windows == 1 ? (uint64_t) (bytes_at_once(p) / (double) p->memory.size) : 1;
    *seconds = 0;
    for (uint64_t left = n, passes; left > 0; left -= passes) {
        passes = moe_min(moe_max(most, 1), left);
        TRY(read_windows(p, pipeline, (uint32_t) passes, seconds));
    }
    p->read_rate = *seconds > 0 ? (double) n * (double) p->memory.size / *seconds : 0;

fail:
    return status;
}

// n times GROUP_OPERATIONS, first in more workgroups, then in longer ones.
static enum vkmoe_status load_math(struct probe *p, VkPipeline pipeline, uint64_t n,
                                   double *seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t groups = (uint32_t) moe_min(n, MOST_GROUPS);
    *seconds = 0;
    TRY(begin_load(p));
    bind_kernel(p, pipeline, 0, (uint32_t) (n / groups * ROUNDS));
    vk_of(p)->fn.vkCmdDispatch(p->command.buffer, groups, 1, 1);
    TRY(end_load(p, seconds));

fail:
    return status;
}

static enum vkmoe_status load_empty(struct probe *p, VkPipeline pipeline, uint64_t n,
                                    double *seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk *vk = vk_of(p);
    *seconds = 0;
    TRY(begin_load(p));
    vk->fn.vkCmdBindPipeline(p->command.buffer, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    for (uint64_t i = 0; i < n; i++) {
        wait_for_dispatch(p);
        vk->fn.vkCmdDispatch(p->command.buffer, 1, 1, 1);
    }
    TRY(end_load(p, seconds));

fail:
    return status;
}

// Units per second at best. 0: not even `most` units take time by this clock.
static enum vkmoe_status best_rate(struct probe *p, load_fn *load, VkPipeline pipeline,
                                   uint64_t first, uint64_t most, double *rate)
{
    enum vkmoe_status status = VKMOE_OK;
    uint64_t n = first;
    double best, seconds;
    TRY(load(p, pipeline, n, &best));
    while (best < ENOUGH_SECONDS && n < most) {
        n *= 2;
        TRY(load(p, pipeline, n, &best));
    }
    for (int i = 1; i < TRIES; i++) {
        TRY(load(p, pipeline, n, &seconds));
        best = seconds < best ? seconds : best;
    }
    *rate = best > 0 ? (double) n / best : 0;

fail:
    return status;
}

// ---- run ---------------------------------------------------------------------------------------

static enum vkmoe_status measure_math(struct probe *p, vkmoe_limits *out)
{
    enum vkmoe_status status = VKMOE_OK;
    for (int i = 0; i < N_ARITHMETICS; i++) {
        double rate = 0;
        if (p->math[i])
            TRY(best_rate(p, load_math, p->math[i], FIRST_GROUPS, MOST_MATH, &rate));
        out->peak[arithmetics[i].arithmetic] = rate * GROUP_OPERATIONS;
    }

fail:
    return status;
}

enum vkmoe_status moe_vk_probe_run(struct moe_device_probe *probe, uint32_t what, vkmoe_limits *out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct probe *p = (struct probe *) probe;
    vkmoe_limits found = {0};
    double rate = 0;
    *out = found;
    if (what & VKMOE_PROBE_READ) {
        TRY(best_rate(p, load_read, p->read, 1, MOST_PASSES, &rate));
        found.read_rate = rate * (double) p->memory.size;
    }
    if (what & VKMOE_PROBE_ARITHMETIC)
        TRY(measure_math(p, &found));
    if (what & VKMOE_PROBE_DISPATCH) {
        TRY(best_rate(p, load_empty, p->empty, FIRST_DISPATCHES, MOST_DISPATCHES, &rate));
        found.dispatch_seconds = rate > 0 ? 1 / rate : 0;
    }
    *out = found;

fail:
    return status;
}
