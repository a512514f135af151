// SPDX-License-Identifier: MIT
// What the host writes to a network and reads from it, and its runs: programs are compiled for the
// sizes at hand, then recorded and submitted in slices.
#include "vulkan/net.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"

static const double budget_ns = MOE_VK_NET_BUDGET_MS * 1e6;

// ---- host memory -------------------------------------------------------------------------------

static void record_pending(struct moe_vk_net *n)
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
                   VK_ACCESS_TRANSFER_WRITE_BIT, MOE_VK_NET_USERS, MOE_VK_NET_ACCESS);
}

// Submits and waits; what was pending has arrived then.
static enum vkmoe_status run_commands(struct moe_vk_net *n)
{
    enum vkmoe_status status = moe_vk_command_run(moe_vk(n->base.device), &n->command);
    if (status == VKMOE_OK) {
        n->n_pending = 0;
        n->upload_end = 0;
    }
    return status;
}

// Submits what waits in the staging memory.
static enum vkmoe_status flush(struct moe_vk_net *n)
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
static bool is_pending(const struct moe_vk_net *n, uint64_t to, uint64_t size)
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
    struct moe_vk_net *n = (struct moe_vk_net *) net;
    const struct moe_net_tensor *t = &net->net->tensors[tensor];
    uint64_t to = t->offset * 4, size = n_elements * moe_net_type_size(t->type);
    const unsigned char *from = data;
    if (n->arena.mapped) {
        memcpy((unsigned char *) n->arena.mapped + to, data, size);
        return VKMOE_OK;
    }
    for (uint64_t part; size > 0; to += part, from += part, size -= part) {
        if (n->n_pending == MOE_VK_NET_PENDING || n->upload_end == MOE_VK_NET_STAGING ||
            is_pending(n, to, size))
            TRY(flush(n));
        part = moe_min(size, MOE_VK_NET_STAGING - n->upload_end);
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
    struct moe_vk_net *n = (struct moe_vk_net *) net;
    struct moe_vk *vk = moe_vk(net->device);
    const struct moe_net_tensor *t = &net->net->tensors[tensor];
    uint64_t from = t->offset * 4, size = n_elements * moe_net_type_size(t->type);
    if (n->arena.mapped) {
        memcpy(data, (const unsigned char *) n->arena.mapped + from, size);
        return VKMOE_OK;
    }
    for (uint64_t done = 0, part; done < size; done += part) {
        part = moe_min(size - done, MOE_VK_NET_STAGING);
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
        TRY(moe_vk_buffer_invalidate(vk, &n->readback, 0, part));
        memcpy((unsigned char *) data + done, n->readback.mapped, part);
    }

fail:
    return status;
}

// ---- runs --------------------------------------------------------------------------------------

static void record_one(const struct moe_vk_net *n, const struct moe_vk_net_dispatch *d,
                       VkPipeline pipeline, bool barrier)
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
    struct moe_vk_net_timing *timing; // or NULL
    uint32_t first;                   // dispatch of it, as timing counts
};

static enum vkmoe_status begin(struct moe_vk_net *n, struct slice *slice)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    if (slice->recording)
        return VKMOE_OK;
    TRY(moe_vk_command_begin(vk, &n->command));
    record_pending(n);
    if (slice->timing) {
        moe_vk_timer_begin(vk, &slice->timing->timer, n->command.buffer);
        slice->first = slice->timing->n;
    }
    slice->recording = slice->barrier = true;

fail:
    return status;
}

// Reads the stamps of a submission.
static enum vkmoe_status add_times(struct moe_vk *vk, const struct slice *slice)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_net_timing *timing = slice->timing;
    TRY(moe_vk_timer_read(vk, &timing->timer));
    timing->seconds += moe_vk_timer_seconds(&timing->timer, 0, timing->timer.n - 1);
    for (uint32_t i = slice->first; timing->each && i < timing->n && i < timing->room; i++)
        timing->times[i].seconds =
            moe_vk_timer_seconds(&timing->timer, i - slice->first, i - slice->first + 1);

fail:
    return status;
}

static enum vkmoe_status submit(struct moe_vk_net *n, struct slice *slice)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(n->base.device);
    struct moe_vk_net_timing *timing = slice->timing;
    if (!slice->recording)
        return VKMOE_OK;
    if (timing && !timing->each)
        moe_vk_timer_stamp(vk, &timing->timer, n->command.buffer);
    if (n->arena.mapped)
        moe_vk_barrier(vk, n->command.buffer, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                       VK_ACCESS_SHADER_WRITE_BIT, VK_PIPELINE_STAGE_HOST_BIT,
                       VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT);
    double start = moe_vk_now_ns();
    TRY(run_commands(n));
    moe_vk_learn(&n->ns_per_work, budget_ns, slice->work, moe_vk_now_ns() - start);
    if (timing)
        TRY(add_times(vk, slice));
    *slice = (struct slice){.timing = timing};

fail:
    return status;
}

// Is the next dispatch to be in another submission?
static bool is_full(const struct moe_vk_net *n, const struct slice *slice,
                    const struct moe_vk_net_dispatch *next)
{
    return (slice->work > 0 && (slice->work + next->work) * n->ns_per_work > budget_ns) ||
           (slice->timing && moe_vk_timer_full(&slice->timing->timer));
}

// After a dispatch of which the time is wanted.
static void stamp(const struct moe_vk_net *n, const struct slice *slice, const char *label)
{
    struct moe_vk_net_timing *timing = slice->timing;
    moe_vk_timer_stamp(moe_vk(n->base.device), &timing->timer, n->command.buffer);
    if (timing->n < timing->room)
        timing->times[timing->n].label = label;
    timing->n++;
}

void moe_vk_net_prepare(struct moe_vk_net *n, enum moe_net_program which,
                        const struct moe_net_args *args)
{
    struct moe_vk_net_program *program = &n->programs[which];
    struct moe_vk_net_compiler c = moe_vk_net_compiler_of(n, args);
    if (program->n == 0)
        return;
    c.dispatches = program->dispatches;
    moe_vk_net_compile(&c, which);
    assert(c.n == program->n);
    moe_vk_net_barriers(program->dispatches, program->n, !c.bda);
}

static enum vkmoe_status run_program(struct moe_vk_net *n, enum moe_net_program which,
                                     const struct moe_net_args *args, struct slice *slice)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_net_program *program = &n->programs[which];
    bool each = slice->timing && slice->timing->each;
    moe_vk_net_prepare(n, which, args);
    for (uint32_t i = 0; i < program->n; i++) {
        struct moe_vk_net_dispatch *d = &program->dispatches[i];
        if (is_full(n, slice, d))
            TRY(submit(n, slice));
        TRY(begin(n, slice));
        slice->barrier = slice->barrier || d->barrier || each;
        if (d->x == 0 || d->y == 0)
            continue;
        record_one(n, d, program->pipelines[i], slice->barrier);
        if (each)
            stamp(n, slice, d->label);
        slice->barrier = false;
        slice->work += d->work;
    }

fail:
    return status;
}

enum vkmoe_status moe_vk_net_run_timed(struct moe_vk_net *n, uint32_t programs,
                                       const struct moe_net_args *args,
                                       struct moe_vk_net_timing *timing)
{
    enum vkmoe_status status = VKMOE_OK;
    struct slice slice = {.timing = timing};
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++)
        if (programs & (1u << p))
            TRY(run_program(n, (enum moe_net_program) p, args, &slice));
    TRY(submit(n, &slice));

fail:
    return status;
}

enum vkmoe_status moe_vk_net_run(struct moe_device_net *net, uint32_t programs,
                                 const struct moe_net_args *args)
{
    return moe_vk_net_run_timed((struct moe_vk_net *) net, programs, args, NULL);
}
