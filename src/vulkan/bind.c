// SPDX-License-Identifier: MIT
// Every allocation and descriptor write of a program happens here.
#include "vulkan/bind.h"

#include "base/bits.h"
#include "core/dtype.h"

static void set_own(struct moe_vk_bound *b, enum moe_vk_buffer_id id,
                    const struct moe_vk_buffer *buffer)
{
    b->buffers[id] = (struct moe_vk_place){buffer->handle, 0, buffer->size, buffer->address};
}

static void set_callers(const struct moe_vk *vk, struct moe_vk_bound *b, enum moe_vk_buffer_id id,
                        const vkmoe_vk_buffer *buffer)
{
    b->buffers[id] = (struct moe_vk_place){
        buffer->buffer, buffer->offset, buffer->size,
        vk->bda ? moe_vk_buffer_address(vk, buffer->buffer) + buffer->offset : 0};
}

uint64_t moe_vk_workspace_size(const struct moe_program *program)
{
    return ((const struct moe_vk_program *) program)->work_size;
}

// Tokens of the largest block of a program.
static uint32_t most_block_tokens(const struct moe_vk_program *program)
{
    uint32_t most = 0;
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++)
        most = (uint32_t) moe_max(most, program->sequences[regime].block_tokens);
    return most;
}

// Bytes of ids, gates, scores and counters that run may ask for.
static uint64_t routing_results_size(const struct moe_vk_program *program)
{
    uint64_t most = 0;
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++) {
        const struct moe_vk_sequence *s = &program->sequences[regime];
        most = moe_max(most, s->ids.size + s->gates.size + s->scores.size);
    }
    return most + (program->counters ? MOE_VK_COUNTERS_SIZE : 0);
}

struct moe_vk_input moe_vk_input(const struct moe_program *program, uint32_t i)
{
    const struct moe_graph *graph = &program->graph;
    const struct {
        const char *name;
        enum moe_value_id value;
        bool of_x_type;
    } inputs[MOE_VK_N_INPUTS] = {{"vkmoe x", MOE_VALUE_X, true},
                                 {"vkmoe router x", MOE_VALUE_ROUTER_X, true},
                                 {"vkmoe token ids", MOE_VALUE_TOKEN_IDS, false}};
    const struct moe_value *value = &graph->values[inputs[i].value];
    return (struct moe_vk_input){inputs[i].name, value->used ? value->width : 0,
                                 inputs[i].of_x_type ? program->x_type : VKMOE_F32};
}

// Words of a row of our own.
static uint32_t row_words(enum vkmoe_dtype type, uint32_t width)
{
    return (uint32_t) moe_div_up(moe_dtype_size(type, width), 4);
}

// Buffers for the inputs of a block, and staging where the host cannot reach one of them.
static enum vkmoe_status create_inputs(struct moe_vk *vk, struct moe_vk_bound *b,
                                       uint64_t n_tokens)
{
    enum vkmoe_status status = VKMOE_OK;
    uint64_t upload_size = 0;
    for (uint32_t i = 0; i < MOE_VK_N_INPUTS; i++) {
        struct moe_vk_input input = moe_vk_input(b->base.program, i);
        enum moe_vk_buffer_id id = (enum moe_vk_buffer_id) (MOE_VK_BUF_X + i);
        if (input.n_elements == 0)
            continue;
        b->strides[id] = row_words(input.type, input.n_elements);
        uint64_t size = n_tokens * b->strides[id] * 4;
        TRY(moe_vk_buffer_create(vk, size, MOE_VK_DEVICE, input.name, &b->inputs[i]));
        set_own(b, id, &b->inputs[i]);
        upload_size += b->inputs[i].mapped ? 0 : size;
    }
    if (upload_size > 0)
        TRY(moe_vk_buffer_create(vk, upload_size, MOE_VK_UPLOAD, "vkmoe upload", &b->upload));

fail:
    return status;
}

// Buffers for the inputs and y of a block, and staging where the host cannot reach the results
// directly.
static enum vkmoe_status create_io(struct moe_vk *vk, struct moe_vk_bound *b)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk_program *program = (const struct moe_vk_program *) b->base.program;
    if (!vk->queue)
        return moe_fail(VKMOE_E_UNSUPPORTED, "this context only records: give the bind vk_io");
    uint64_t n_tokens = most_block_tokens(program);
    TRY(create_inputs(vk, b, n_tokens));
    b->strides[MOE_VK_BUF_Y] =
        row_words(program->base.x_type, program->base.graph.layer.desc.d_out);
    uint64_t y_size = n_tokens * b->strides[MOE_VK_BUF_Y] * 4;
    TRY(moe_vk_buffer_create(vk, y_size, MOE_VK_DEVICE, "vkmoe y", &b->y));
    if (!b->y.mapped || !b->work.mapped)
        TRY(moe_vk_buffer_create(vk, y_size + routing_results_size(program), MOE_VK_READBACK,
                                 "vkmoe readback", &b->readback));
    TRY(moe_vk_command_create(vk, &b->command));
    set_own(b, MOE_VK_BUF_Y, &b->y);
    return VKMOE_OK;

fail:
    return status;
}

static enum vkmoe_status create_work(struct moe_vk *vk, struct moe_vk_bound *b,
                                     const vkmoe_vk_io *vk_io)
{
    if (vk_io && vk_io->workspace.buffer) {
        set_callers(vk, b, MOE_VK_BUF_WORK, &vk_io->workspace);
        return VKMOE_OK;
    }
    enum vkmoe_status status = moe_vk_buffer_create(vk, moe_vk_workspace_size(b->base.program),
                                                    MOE_VK_DEVICE, "vkmoe workspace", &b->work);
    set_own(b, MOE_VK_BUF_WORK, &b->work);
    return status;
}

// Rows that a plan can touch, of the caller's range.
static void set_rows(const struct moe_vk *vk, struct moe_vk_bound *b, enum moe_vk_buffer_id id,
                     const vkmoe_vk_buffer *buffer, uint64_t stride, uint64_t row_size)
{
    vkmoe_vk_buffer rows = *buffer;
    rows.size = (b->base.program->max_tokens - 1) * stride + moe_align_up(row_size, 4);
    set_callers(vk, b, id, &rows);
    b->strides[id] = (uint32_t) (stride / 4);
}

static void use_callers(const struct moe_vk *vk, struct moe_vk_bound *b, const vkmoe_vk_io *io)
{
    const struct moe_program *program = b->base.program;
    const struct {
        const vkmoe_vk_buffer *buffer;
        size_t stride;
    } inputs[MOE_VK_N_INPUTS] = {
        {&io->x, io->x_stride}, {&io->router_x, io->router_x_stride}, {&io->token_ids, 4}};
    for (uint32_t i = 0; i < MOE_VK_N_INPUTS; i++) {
        struct moe_vk_input input = moe_vk_input(program, i);
        if (input.n_elements > 0)
            set_rows(vk, b, (enum moe_vk_buffer_id) (MOE_VK_BUF_X + i), inputs[i].buffer,
                     inputs[i].stride, moe_dtype_size(input.type, input.n_elements));
    }
    set_rows(vk, b, MOE_VK_BUF_Y, &io->y, io->y_stride,
             moe_dtype_size(program->x_type, program->graph.layer.desc.d_out));
    b->counted = io->n_tokens.buffer;
    if (b->counted)
        set_callers(vk, b, MOE_VK_BUF_COUNT, &io->n_tokens);
}

// ---- descriptors -------------------------------------------------------------------------------

static void write_set(struct moe_vk *vk, const struct moe_vk_bound *b, enum moe_vk_regime regime,
                      uint32_t window, const struct moe_vk_dispatch *d, VkDescriptorSet set)
{
    VkDescriptorBufferInfo infos[4];
    VkWriteDescriptorSet writes[4];
    uint32_t n = 0;
    for (uint32_t slot = 0; slot < 4; slot++) {
        if (!d->ranges[slot].size)
            continue;
        struct moe_vk_place place = moe_vk_place(b, regime, window, &d->ranges[slot]);
        infos[n] = (VkDescriptorBufferInfo){
            .buffer = place.handle, .offset = place.offset, .range = place.size};
        writes[n] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                           .dstSet = set,
                                           .dstBinding = slot,
                                           .descriptorCount = 1,
                                           .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                           .pBufferInfo = &infos[n]};
        n++;
    }
    vk->fn.vkUpdateDescriptorSets(vk->device, n, writes, 0, NULL);
}

static enum vkmoe_status create_regime_sets(struct moe_vk *vk, struct moe_vk_bound *b,
                                            enum moe_vk_regime regime)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk_sequence *sequence = moe_vk_sequence_of(b, regime);
    struct moe_vk_blocks *blocks = &b->blocks[regime];
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorPool = b->pool,
                                        .descriptorSetCount = 1,
                                        .pSetLayouts = &vk->set_layout};
    size_t n = (size_t) blocks->n_windows * sequence->n;
    TRY(moe_try_alloc(vk->base.host, n * sizeof *blocks->sets, "descriptor sets", &blocks->sets));
    for (uint32_t window = 0; window < blocks->n_windows; window++)
        for (uint32_t i = moe_vk_first_dispatch(b); i < sequence->n; i++) {
            VkDescriptorSet *set = &blocks->sets[(size_t) window * sequence->n + i];
            VK_TRY(vk, vk->fn.vkAllocateDescriptorSets(vk->device, &info, set));
            write_set(vk, b, regime, window, &sequence->dispatches[i], *set);
        }
    return VKMOE_OK;

fail:
    return status;
}

static enum vkmoe_status create_sets(struct moe_vk *vk, struct moe_vk_bound *b)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t n_sets = 0;
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++)
        n_sets += b->blocks[regime].n_windows * moe_vk_sequence_of(b, regime)->n;
    VkDescriptorPoolSize size = {.type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                 .descriptorCount = 4 * n_sets};
    VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                       .maxSets = n_sets,
                                       .poolSizeCount = 1,
                                       .pPoolSizes = &size};
    VK_TRY(vk, vk->fn.vkCreateDescriptorPool(vk->device, &pool, NULL, &b->pool));
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++)
        if (moe_vk_sequence_of(b, regime)->n > 0)
            TRY(create_regime_sets(vk, b, (enum moe_vk_regime) regime));
    return VKMOE_OK;

fail:
    return status;
}

// ---- create and destroy ------------------------------------------------------------------------

enum vkmoe_status moe_vk_bind_create(struct moe_program *program,
                                     struct moe_packed_weights *weights, const vkmoe_vk_io *vk_io,
                                     struct moe_bound **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(program->device);
    struct moe_vk_bound *b = NULL;
    TRY(moe_try_alloc(vk->base.host, sizeof *b, "bind", &b));
    b->base.program = program;
    b->base.weights = weights;
    b->ns_per_work = moe_vk_ns_per_work(vk->base.info.type);
    TRY(create_work(vk, b, vk_io));
    if (vk_io) {
        use_callers(vk, b, vk_io);
    } else {
        TRY(create_io(vk, b));
    }
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++)
        if (moe_vk_sequence_of(b, regime)->n > 0)
            TRY(moe_vk_choose_blocks(b, (enum moe_vk_regime) regime));
    if (!vk->bda)
        TRY(create_sets(vk, b));
    *out = &b->base;
    return VKMOE_OK;

fail:
    if (b)
        moe_vk_bind_destroy(&b->base);
    return status;
}

void moe_vk_bind_destroy(struct moe_bound *bound)
{
    struct moe_vk_bound *b = (struct moe_vk_bound *) bound;
    struct moe_vk *vk = moe_vk_of(bound);
    moe_vk_command_destroy(vk, &b->command);
    if (b->pool)
        vk->fn.vkDestroyDescriptorPool(vk->device, b->pool, NULL);
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++)
        moe_free(vk->base.host, b->blocks[regime].sets);
    moe_vk_buffer_destroy(vk, &b->readback);
    moe_vk_buffer_destroy(vk, &b->upload);
    moe_vk_buffer_destroy(vk, &b->y);
    for (uint32_t i = 0; i < MOE_VK_N_INPUTS; i++)
        moe_vk_buffer_destroy(vk, &b->inputs[i]);
    moe_vk_buffer_destroy(vk, &b->work);
    moe_free(vk->base.host, b);
}
