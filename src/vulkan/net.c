// SPDX-License-Identifier: MIT
// A network's memory and pipelines on a device, what the host writes to it and reads from it, and
// its runs: programs are compiled for the sizes at hand, then recorded and submitted in slices.
#include "vulkan/net.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"

// One submission should take no longer.
#define BUDGET_NS 50e6

enum {
    STAGING_SIZE = 4 << 20, // bytes, of each way
    MAX_PENDING = 32,       // writes that wait for the next submission
    // Behind everything: a kernel may load, though not use, what is shortly behind its operands
    // (shaders/include/buffers.glsl).
    TAIL = 4096,
};

// Who may use the arena next.
#define EVERYONE                                                                                   \
    (VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT |                       \
     VK_PIPELINE_STAGE_HOST_BIT)
#define EVERY_ACCESS                                                                               \
    (VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT |        \
     VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT)

struct program {
    struct moe_vk_net_dispatch *dispatches;
    VkPipeline *pipelines;
    uint32_t n;
};

struct net {
    struct moe_device_net base;
    uint64_t scratch; // where it begins in the arena
    struct moe_vk_buffer arena, upload, readback;
    struct program programs[MOE_NET_N_PROGRAMS];
    VkDescriptorPool pool;
    VkDescriptorSet set; // with descriptors
    struct moe_vk_command command;
    VkBufferCopy pending[MAX_PENDING]; // from `upload`, which is full up to upload_end
    uint32_t n_pending;
    uint64_t upload_end;
    double ns_per_work; // as measured by runs
};

static struct net *net_of(struct moe_device_net *net)
{
    return (struct net *) net;
}

// ---- sizes -------------------------------------------------------------------------------------

// The most that a run can be asked for.
static struct moe_net_args most(const struct moe_net *net)
{
    return (struct moe_net_args){
        .n_tokens = net->max_tokens, .n_examples = net->max_examples, .step = 1};
}

static struct moe_vk_net_compiler compiler_of(const struct net *n, const struct moe_net_args *args)
{
    const struct moe_vk *vk = moe_vk(n->base.device);
    return (struct moe_vk_net_compiler){
        .net = n->base.net,
        .args = args,
        .bda = vk->bda,
        .max_groups = (uint32_t) moe_min(vk->caps.max_groups[0], vk->caps.max_groups[1]),
        .scratch = n->scratch,
    };
}

// Kernels count the elements of a tensor in 31 bits.
static enum vkmoe_status check_tensors(const struct moe_net *net)
{
    for (uint32_t i = 0; i < net->n_tensors; i++) {
        const struct moe_net_tensor *t = &net->tensors[i];
        uint64_t n = moe_net_rows(t, net->max_tokens, net->max_examples) * t->width;
        if (n > MOE_VK_MAX_INDEX)
            return moe_fail(VKMOE_E_UNSUPPORTED,
                            "network: '%s' has %" PRIu64 " elements; Vulkan kernels count up to "
                            "%" PRIu64 " in one tensor",
                            t->name, n, MOE_VK_MAX_INDEX);
    }
    return VKMOE_OK;
}

// Memory for everything; all dispatches counted.
static enum vkmoe_status create_arena(struct net *n)
{
    struct moe_vk *vk = moe_vk(n->base.device);
    struct moe_net_args args = most(n->base.net);
    n->scratch = moe_align_up(n->base.net->arena_size, MOE_NET_UNIT);
    struct moe_vk_net_compiler c = compiler_of(n, &args);
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++) {
        c.n = 0;
        moe_vk_net_compile(&c, (enum moe_net_program) p);
        n->programs[p].n = c.n;
    }
    uint64_t size = (n->scratch + c.scratch_size + TAIL) * 4;
    if (!vk->bda && size > vk->caps.max_storage_range)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "a network of %" PRIu64 " bytes; descriptor addressing on %s allows "
                        "%" PRIu64,
                        size, vk->base.info.name, vk->caps.max_storage_range);
    return moe_vk_buffer_create(vk, size, MOE_VK_DEVICE, "vkmoe network", &n->arena);
}

// ---- create ------------------------------------------------------------------------------------

static enum vkmoe_status prepare_program(struct net *n, enum moe_net_program which)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    struct program *program = &n->programs[which];
    struct moe_net_args args = most(n->base.net);
    if (program->n == 0)
        return VKMOE_OK;
    TRY(moe_try_alloc(vk->base.host, program->n * sizeof *program->dispatches,
                      "a network's dispatches", &program->dispatches));
    TRY(moe_try_alloc(vk->base.host, program->n * sizeof *program->pipelines,
                      "a network's pipelines", &program->pipelines));
    struct moe_vk_net_compiler c = compiler_of(n, &args);
    c.dispatches = program->dispatches;
    moe_vk_net_compile(&c, which);
    for (uint32_t i = 0; i < program->n; i++)
        TRY(moe_vk_pipeline_get(vk, c.dispatches[i].spv, c.dispatches[i].spec,
                                &program->pipelines[i]));

fail:
    return status;
}

static enum vkmoe_status create_set(struct net *n)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    VkDescriptorPoolSize size = {.type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, .descriptorCount = 4};
    VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                       .maxSets = 1,
                                       .poolSizeCount = 1,
                                       .pPoolSizes = &size};
    VK_TRY(vk, vk->fn.vkCreateDescriptorPool(vk->device, &pool, NULL, &n->pool));
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorPool = n->pool,
                                        .descriptorSetCount = 1,
                                        .pSetLayouts = &vk->set_layout};
    VK_TRY(vk, vk->fn.vkAllocateDescriptorSets(vk->device, &info, &n->set));
    VkDescriptorBufferInfo arena = {.buffer = n->arena.handle, .range = n->arena.size};
    VkWriteDescriptorSet write = {.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                  .dstSet = n->set,
                                  .dstBinding = 0,
                                  .descriptorCount = 1,
                                  .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                  .pBufferInfo = &arena};
    vk->fn.vkUpdateDescriptorSets(vk->device, 1, &write, 0, NULL);

fail:
    return status;
}

static enum vkmoe_status clear_arena(struct net *n)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    TRY(moe_vk_command_begin(vk, &n->command));
    vk->fn.vkCmdFillBuffer(n->command.buffer, n->arena.handle, 0, VK_WHOLE_SIZE, 0);
    moe_vk_barrier(vk, n->command.buffer, VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_TRANSFER_WRITE_BIT, EVERYONE, EVERY_ACCESS);
    TRY(moe_vk_command_run(vk, &n->command));

fail:
    return status;
}

enum vkmoe_status moe_vk_net_create(struct moe_device *device, const struct moe_net *net,
                                    struct moe_device_net **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(device);
    struct net *n = NULL;
    *out = NULL;
    if (!vk->queue)
        return moe_fail(VKMOE_E_UNSUPPORTED, "this context only records: a network needs a queue");
    TRY(check_tensors(net));
    TRY(moe_try_alloc(device->host, sizeof *n, "a network on Vulkan", &n));
    n->base = (struct moe_device_net){device, net};
    n->ns_per_work = moe_vk_ns_per_work(device->info.type);
    TRY(create_arena(n));
    if (!n->arena.mapped) {
        TRY(moe_vk_buffer_create(vk, STAGING_SIZE, MOE_VK_UPLOAD, "vkmoe upload", &n->upload));
        TRY(moe_vk_buffer_create(vk, STAGING_SIZE, MOE_VK_READBACK, "vkmoe readback",
                                 &n->readback));
    }
    TRY(moe_vk_command_create(vk, &n->command));
    if (!vk->bda)
        TRY(create_set(n));
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++)
        TRY(prepare_program(n, (enum moe_net_program) p));
    TRY(clear_arena(n));
    *out = &n->base;
    return VKMOE_OK;

fail:
    if (n)
        moe_vk_net_destroy(&n->base);
    return status;
}

void moe_vk_net_destroy(struct moe_device_net *net)
{
    if (!net)
        return;
    struct net *n = net_of(net);
    struct moe_vk *vk = moe_vk(net->device);
    moe_vk_command_destroy(vk, &n->command);
    if (n->pool)
        vk->fn.vkDestroyDescriptorPool(vk->device, n->pool, NULL);
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++) {
        moe_free(vk->base.host, n->programs[p].dispatches);
        moe_free(vk->base.host, n->programs[p].pipelines);
    }
    moe_vk_buffer_destroy(vk, &n->readback);
    moe_vk_buffer_destroy(vk, &n->upload);
    moe_vk_buffer_destroy(vk, &n->arena);
    moe_free(vk->base.host, n);
}

// ---- host memory -------------------------------------------------------------------------------

static void record_pending(struct net *n)
{
    const struct moe_vk *vk = moe_vk(n->base.device);
    if (n->n_pending == 0)
        return;
    moe_vk_barrier(vk, n->command.buffer,
                   VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT);
    for (uint32_t i = 0; i < n->n_pending; i++)
        vk->fn.vkCmdCopyBuffer(n->command.buffer, n->upload.handle, n->arena.handle, 1,
                               &n->pending[i]);
    moe_vk_barrier(vk, n->command.buffer, VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_TRANSFER_WRITE_BIT, EVERYONE, EVERY_ACCESS);
}

// Submits and waits; what was pending has arrived then.
static enum vkmoe_status run_commands(struct net *n)
{
    enum vkmoe_status status = moe_vk_command_run(moe_vk(n->base.device), &n->command);
    if (status == VKMOE_OK) {
        n->n_pending = 0;
        n->upload_end = 0;
    }
    return status;
}

// Submits what waits in the staging memory.
static enum vkmoe_status flush(struct net *n)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    TRY(moe_vk_command_begin(vk, &n->command));
    record_pending(n);
    TRY(run_commands(n));

fail:
    return status;
}

// Copies of one submission are not ordered, so two to the same place must not meet there.
static bool is_pending(const struct net *n, uint64_t to, uint64_t size)
{
    for (uint32_t i = 0; i < n->n_pending; i++) {
        const VkBufferCopy *copy = &n->pending[i];
        if (to < copy->dstOffset + copy->size && copy->dstOffset < to + size)
            return true;
    }
    return false;
}

enum vkmoe_status moe_vk_net_upload(struct moe_device_net *net, uint32_t tensor,
                                    uint64_t n_elements, const void *data)
{
    enum vkmoe_status status = VKMOE_OK;
    struct net *n = net_of(net);
    uint64_t to = net->net->tensors[tensor].offset * 4, size = n_elements * 4;
    const unsigned char *from = data;
    if (n->arena.mapped) {
        memcpy((unsigned char *) n->arena.mapped + to, data, size);
        return VKMOE_OK;
    }
    for (uint64_t part; size > 0; to += part, from += part, size -= part) {
        if (n->n_pending == MAX_PENDING || n->upload_end == STAGING_SIZE ||
            is_pending(n, to, size))
            TRY(flush(n));
        part = moe_min(size, STAGING_SIZE - n->upload_end);
        memcpy((unsigned char *) n->upload.mapped + n->upload_end, from, part);
        n->pending[n->n_pending++] = (VkBufferCopy){n->upload_end, to, part};
        n->upload_end += part;
    }

fail:
    return status;
}

enum vkmoe_status moe_vk_net_download(struct moe_device_net *net, uint32_t tensor,
                                      uint64_t n_elements, void *data)
{
    enum vkmoe_status status = VKMOE_OK;
    struct net *n = net_of(net);
    struct moe_vk *vk = moe_vk(net->device);
    uint64_t from = net->net->tensors[tensor].offset * 4, size = n_elements * 4;
    if (n->arena.mapped) {
        memcpy(data, (const unsigned char *) n->arena.mapped + from, size);
        return VKMOE_OK;
    }
    for (uint64_t done = 0, part; done < size; done += part) {
        part = moe_min(size - done, STAGING_SIZE);
        VkBufferCopy copy = {from + done, 0, part};
        TRY(moe_vk_command_begin(vk, &n->command));
        record_pending(n);
        moe_vk_barrier(vk, n->command.buffer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                       VK_ACCESS_SHADER_WRITE_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT,
                       VK_ACCESS_TRANSFER_READ_BIT);
        vk->fn.vkCmdCopyBuffer(n->command.buffer, n->arena.handle, n->readback.handle, 1, &copy);
        moe_vk_barrier(vk, n->command.buffer, VK_PIPELINE_STAGE_TRANSFER_BIT,
                       VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_HOST_BIT,
                       VK_ACCESS_HOST_READ_BIT);
        TRY(run_commands(n));
        TRY(moe_vk_buffer_invalidate(vk, &n->readback));
        memcpy((unsigned char *) data + done, n->readback.mapped, part);
    }

fail:
    return status;
}

// ---- runs --------------------------------------------------------------------------------------

static void record_one(const struct net *n, struct moe_vk_net_dispatch *d, VkPipeline pipeline,
                       bool barrier)
{
    const struct moe_vk *vk = moe_vk(n->base.device);
    VkCommandBuffer cmd = n->command.buffer;
    if (barrier)
        moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                       VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                       VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
    if (vk->labels) {
        VkDebugUtilsLabelEXT label = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT,
                                      .pLabelName = d->label};
        vk->fn.vkCmdBeginDebugUtilsLabelEXT(cmd, &label);
    }
    struct {
        struct net_head head;
        uint8_t params[sizeof d->params];
    } push = {.head = d->head};
    push.head.arena = n->arena.address;
    memcpy(push.params, d->params, d->params_size);
    vk->fn.vkCmdBindPipeline(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
    if (n->set)
        vk->fn.vkCmdBindDescriptorSets(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, vk->pipeline_layout, 0,
                                       1, &n->set, 0, NULL);
    vk->fn.vkCmdPushConstants(cmd, vk->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                              (uint32_t) sizeof push.head + d->params_size, &push);
    vk->fn.vkCmdDispatch(cmd, d->x, d->y, 1);
    if (vk->labels)
        vk->fn.vkCmdEndDebugUtilsLabelEXT(cmd);
}

// A submission in the making.
struct slice {
    double work;
    bool recording;
    bool barrier; // before the next dispatch: the one that had to wait for something was left out
};

static enum vkmoe_status submit(struct net *n, struct slice *slice)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    if (!slice->recording)
        return VKMOE_OK;
    if (n->arena.mapped)
        moe_vk_barrier(vk, n->command.buffer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                       VK_ACCESS_SHADER_WRITE_BIT, VK_PIPELINE_STAGE_HOST_BIT,
                       VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT);
    double start = moe_vk_now_ns();
    TRY(run_commands(n));
    moe_vk_learn(&n->ns_per_work, BUDGET_NS, slice->work, moe_vk_now_ns() - start);
    *slice = (struct slice){0};

fail:
    return status;
}

static enum vkmoe_status run_program(struct net *n, enum moe_net_program which,
                                     const struct moe_net_args *args, struct slice *slice)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    struct program *program = &n->programs[which];
    if (program->n == 0)
        return VKMOE_OK;
    struct moe_vk_net_compiler c = compiler_of(n, args);
    c.dispatches = program->dispatches;
    moe_vk_net_compile(&c, which);
    assert(c.n == program->n);
    moe_vk_net_barriers(program->dispatches, program->n, !vk->bda);
    for (uint32_t i = 0; i < program->n; i++) {
        struct moe_vk_net_dispatch *d = &program->dispatches[i];
        if (slice->work > 0 && (slice->work + d->work) * n->ns_per_work > BUDGET_NS)
            TRY(submit(n, slice));
        if (!slice->recording) {
            TRY(moe_vk_command_begin(vk, &n->command));
            record_pending(n);
            slice->recording = slice->barrier = true;
        }
        slice->barrier = slice->barrier || d->barrier;
        if (d->x == 0 || d->y == 0)
            continue;
        record_one(n, d, program->pipelines[i], slice->barrier);
        slice->barrier = false;
        slice->work += d->work;
    }

fail:
    return status;
}

enum vkmoe_status moe_vk_net_run(struct moe_device_net *net, uint32_t programs,
                                 const struct moe_net_args *args)
{
    enum vkmoe_status status = VKMOE_OK;
    struct net *n = net_of(net);
    struct slice slice = {0};
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++)
        if (programs & (1u << p))
            TRY(run_program(n, (enum moe_net_program) p, args, &slice));
    TRY(submit(n, &slice));

fail:
    return status;
}
