// SPDX-License-Identifier: MIT
// A network's memory and pipelines on a device.
#include "vulkan/net.h"

#include <inttypes.h>

#include "base/bits.h"

// Behind everything: a kernel may load, though not use, what is shortly behind its operands
// (shaders/include/buffers.glsl). In elements.
enum { TAIL = 4096 };

// ---- sizes -------------------------------------------------------------------------------------

// The most that a run can be asked for.
static struct moe_net_args most(const struct moe_net *net)
{
    return (struct moe_net_args){
        .n_tokens = net->max_tokens, .n_examples = net->max_examples, .step = 1};
}

struct moe_vk_net_compiler moe_vk_net_compiler_of(const struct moe_vk_net *n,
                                                  const struct moe_net_args *args)
{
    const struct moe_vk *vk = moe_vk(n->base.device);
    return (struct moe_vk_net_compiler){
        .net = n->base.net,
        .args = args,
        .bda = vk->bda,
        .max_groups = (uint32_t) moe_min(vk->caps.max_groups[0], vk->caps.max_groups[1]),
        .max_work = moe_vk_limits(vk, MOE_VK_NET_BUDGET_MS).work,
        .scratch = n->scratch,
        .variant = n->variant,
        .shape = moe_vk_variant_shape(n->variant, &vk->caps),
        .subgroups = moe_vk_limits(vk, MOE_VK_NET_BUDGET_MS).subgroups,
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
static enum vkmoe_status create_arena(struct moe_vk_net *n)
{
    struct moe_vk *vk = moe_vk(n->base.device);
    struct moe_net_args args = most(n->base.net);
    n->scratch = moe_align_up(n->base.net->arena_size, MOE_NET_UNIT);
    struct moe_vk_net_compiler c = moe_vk_net_compiler_of(n, &args);
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++) {
        c.n = 0;
        moe_vk_net_compile(&c, (enum moe_net_program) p);
        n->programs[p].n = c.n;
    }
    if (c.scratch_size > MOE_VK_MAX_INDEX)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "network: an op needs %" PRIu64 " elements of scratch memory; Vulkan "
                        "kernels count up to %" PRIu64,
                        c.scratch_size, MOE_VK_MAX_INDEX);
    uint64_t size = (n->scratch + c.scratch_size + TAIL) * 4;
    if (!vk->bda && size > vk->caps.max_storage_range)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "a network of %" PRIu64 " bytes; descriptor addressing on %s allows "
                        "%" PRIu64,
                        size, vk->base.info.name, vk->caps.max_storage_range);
    return moe_vk_buffer_create(vk, size, MOE_VK_DEVICE, "vkmoe network", &n->arena);
}

// ---- create ------------------------------------------------------------------------------------

// The dispatches of the most that there can be.
static enum vkmoe_status prepare_program(struct moe_vk_net *n, enum moe_net_program which)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    struct moe_vk_net_program *program = &n->programs[which];
    struct moe_net_args args = most(n->base.net);
    if (program->n == 0)
        return VKMOE_OK;
    TRY(moe_try_alloc(vk->base.host, program->n * sizeof *program->dispatches,
                      "a network's dispatches", &program->dispatches));
    TRY(moe_try_alloc(vk->base.host, program->n * sizeof *program->pipelines,
                      "a network's pipelines", &program->pipelines));
    struct moe_vk_net_compiler c = moe_vk_net_compiler_of(n, &args);
    c.dispatches = program->dispatches;
    moe_vk_net_compile(&c, which);

fail:
    return status;
}

static struct moe_vk_own own_pipelines(const struct moe_vk_net *n)
{
    struct moe_vk_own own = {.variant = n->variant};
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++)
        for (uint32_t i = 0; i < n->programs[p].n; i++)
            moe_vk_own_add(&own, n->programs[p].dispatches[i].spv,
                           n->programs[p].dispatches[i].spec);
    return own;
}

// *own: as moe_vk_program_make.
static enum vkmoe_status make_pipelines(struct moe_vk_net *n, bool mark, bool *own)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    const struct moe_vk_own made = own_pipelines(n);
    const bool marked = mark && moe_vk_begin_making(vk, &made);
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++)
        for (uint32_t i = 0; i < n->programs[p].n; i++) {
            const struct moe_vk_net_dispatch *d = &n->programs[p].dispatches[i];
            *own = moe_vk_is_own(n->variant, d->spv);
            TRY(moe_vk_pipeline_get(vk, d->spv, d->spec, &n->programs[p].pipelines[i]));
            *own = false;
        }

fail:
    if (marked)
        moe_vk_end_making(vk, &made, status == VKMOE_OK);
    return status;
}

static enum vkmoe_status create_set(struct moe_vk_net *n)
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

static enum vkmoe_status clear_arena(struct moe_vk_net *n)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    TRY(moe_vk_command_begin(vk, &n->command));
    vk->fn.vkCmdFillBuffer(n->command.buffer, n->arena.handle, 0, VK_WHOLE_SIZE, 0);
    moe_vk_barrier(vk, n->command.buffer, VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_TRANSFER_WRITE_BIT, MOE_VK_NET_USERS, MOE_VK_NET_ACCESS);
    TRY(moe_vk_command_run(vk, &n->command));

fail:
    return status;
}

enum vkmoe_status moe_vk_net_make(struct moe_vk *vk, const struct moe_net *net,
                                  const struct moe_vk_variant *variant, bool mark,
                                  struct moe_device_net **out, bool *own)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_net *n = NULL;
    *own = false;
    *out = NULL;
    TRY(check_tensors(net));
    TRY(moe_try_alloc(vk->base.host, sizeof *n, "a network on Vulkan", &n));
    n->base = (struct moe_device_net){&vk->base, net};
    n->variant = variant;
    n->ns_per_work = moe_vk_ns_per_work(vk->base.info.type);
    TRY(create_arena(n));
    if (!n->arena.mapped) {
        TRY(moe_vk_buffer_create(vk, MOE_VK_NET_STAGING, MOE_VK_UPLOAD, "vkmoe upload",
                                 &n->upload));
        TRY(moe_vk_buffer_create(vk, MOE_VK_NET_STAGING, MOE_VK_READBACK, "vkmoe readback",
                                 &n->readback));
    }
    TRY(moe_vk_command_create(vk, &n->command));
    if (!vk->bda)
        TRY(create_set(n));
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++)
        TRY(prepare_program(n, (enum moe_net_program) p));
    TRY(make_pipelines(n, mark, own));
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
    struct moe_vk_net *n = (struct moe_vk_net *) net;
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
