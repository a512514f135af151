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

struct moe_vk_array moe_vk_array(const struct moe_program *program, enum moe_vk_buffer_id id)
{
    static const struct {
        const char *name;
        enum moe_value_id value;
        bool of_x_type;
    } all[MOE_VK_N_BUFS] = {
        [MOE_VK_BUF_X] = {"vkmoe x", MOE_VALUE_X, true},
        [MOE_VK_BUF_ROUTER_X] = {"vkmoe router x", MOE_VALUE_ROUTER_X, true},
        [MOE_VK_BUF_TOKEN_IDS] = {"vkmoe token ids", MOE_VALUE_TOKEN_IDS, false},
        [MOE_VK_BUF_ROWS] = {"vkmoe rows", MOE_VALUE_ROWS, true},
        [MOE_VK_BUF_SLOTS] = {"vkmoe slots", MOE_VALUE_SLOTS, false},
        [MOE_VK_BUF_IDS] = {"vkmoe ids", MOE_VALUE_IDS, false},
        [MOE_VK_BUF_GATES] = {"vkmoe gates", MOE_VALUE_GATES, false},
        [MOE_VK_BUF_Y] = {"vkmoe y", MOE_VALUE_Y, true},
        [MOE_VK_BUF_SCORES] = {"vkmoe scores", MOE_VALUE_SCORES, false},
        [MOE_VK_BUF_COUNTS] = {"vkmoe counts", MOE_VALUE_COUNTS, false},
        [MOE_VK_BUF_OFFSETS] = {"vkmoe offsets", MOE_VALUE_OFFSETS, false},
    };
    const struct moe_graph *graph = &program->graph;
    if (!all[id].name)
        return (struct moe_vk_array){0};
    const struct moe_value *value = &graph->values[all[id].value];
    const bool is_layer = graph->operation == VKMOE_OPERATION_LAYER;
    struct moe_vk_array array = {
        .name = all[id].name,
        .is_input = moe_graph_has_input(graph, all[id].value),
        // What a layer tells besides y is read from its workspace.
        .is_output = moe_graph_has_output(graph, all[id].value) &&
                     (!is_layer || id == MOE_VK_BUF_Y),
        .n_elements = value->width,
        .per_token = value->rows == MOE_ROWS_ONE ? 0 : 1,
        .type = all[id].of_x_type ? program->x_type : VKMOE_F32,
    };
    if (value->rows == MOE_ROWS_SLOT)
        *(id == MOE_VK_BUF_ROWS ? &array.per_token : &array.n_elements) *=
            graph->layer.desc.top_k;
    return array;
}

// Words of a row of our own.
static uint32_t row_words(enum vkmoe_dtype type, uint32_t width)
{
    return (uint32_t) moe_div_up(moe_dtype_size(type, width), 4);
}

// A buffer of our own for an array of a block; *size is what it takes.
static enum vkmoe_status create_array(struct moe_vk *vk, struct moe_vk_bound *b,
                                      enum moe_vk_buffer_id id, enum moe_vk_memory_use use,
                                      uint64_t n_tokens, struct moe_vk_buffer *out,
                                      uint64_t *size)
{
    const struct moe_vk_array array = moe_vk_array(b->base.program, id);
    const uint32_t words = row_words(array.type, array.n_elements);
    *size = moe_vk_array_rows(&array, n_tokens) * words * 4;
    if (array.per_token > 0)
        b->strides[id] = words;
    enum vkmoe_status status = moe_vk_buffer_create(vk, *size, use, array.name, out);
    set_own(b, id, out);
    return status;
}

// Buffers for the inputs of a block, and staging where the host cannot reach one of them.
static enum vkmoe_status create_inputs(struct moe_vk *vk, struct moe_vk_bound *b,
                                       uint64_t n_tokens)
{
    enum vkmoe_status status = VKMOE_OK;
    uint64_t upload_size = 0, size;
    for (uint32_t i = 0; i < MOE_VK_N_INPUTS; i++) {
        enum moe_vk_buffer_id id = (enum moe_vk_buffer_id) (MOE_VK_BUF_X + i);
        if (!moe_vk_array(b->base.program, id).is_input)
            continue;
        TRY(create_array(vk, b, id, MOE_VK_INPUT, n_tokens, &b->inputs[i], &size));
        upload_size += b->inputs[i].mapped ? 0 : size;
    }
    if (upload_size > 0)
        TRY(moe_vk_buffer_create(vk, upload_size, MOE_VK_UPLOAD, "vkmoe upload", &b->upload));

fail:
    return status;
}

// Buffers for the outputs of a block, and staging where the host cannot reach them directly.
static enum vkmoe_status create_outputs(struct moe_vk *vk, struct moe_vk_bound *b,
                                        uint64_t n_tokens)
{
    enum vkmoe_status status = VKMOE_OK;
    uint64_t readback_size = routing_results_size((const struct moe_vk_program *) b->base.program);
    uint64_t size;
    bool mapped = b->work.mapped;
    for (int i = 0; i < MOE_VK_N_BUFS; i++) {
        enum moe_vk_buffer_id id = (enum moe_vk_buffer_id) i;
        struct moe_vk_buffer *out = id == MOE_VK_BUF_Y ? &b->y : &b->outputs[id];
        if (!moe_vk_array(b->base.program, id).is_output)
            continue;
        TRY(create_array(vk, b, id, MOE_VK_DEVICE, n_tokens, out, &size));
        readback_size += size;
        mapped = mapped && out->mapped;
    }
    if (!mapped)
        TRY(moe_vk_buffer_create(vk, readback_size, MOE_VK_READBACK, "vkmoe readback",
                                 &b->readback));

fail:
    return status;
}

// Buffers for the inputs and outputs of a block.
static enum vkmoe_status create_io(struct moe_vk *vk, struct moe_vk_bound *b)
{
    enum vkmoe_status status = VKMOE_OK;
    if (!vk->queue)
        return moe_fail(VKMOE_E_UNSUPPORTED, "this context only records: give the bind vk_io");
    uint64_t n_tokens = most_block_tokens((const struct moe_vk_program *) b->base.program);
    TRY(create_inputs(vk, b, n_tokens));
    TRY(create_outputs(vk, b, n_tokens));
    TRY(moe_vk_command_create(vk, &b->command));

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
                     const vkmoe_vk_buffer *buffer, uint64_t stride)
{
    const struct moe_vk_array array = moe_vk_array(b->base.program, id);
    const uint64_t row = moe_align_up(moe_dtype_size(array.type, array.n_elements), 4);
    vkmoe_vk_buffer rows = *buffer;
    if (!array.is_input && !array.is_output)
        return;
    if (stride == 0)
        stride = row;
    rows.size = (moe_vk_array_rows(&array, b->base.program->max_tokens) - 1) * stride + row;
    set_callers(vk, b, id, &rows);
    if (array.per_token > 0)
        b->strides[id] = (uint32_t) (stride / 4);
}

static void use_callers(const struct moe_vk *vk, struct moe_vk_bound *b, const vkmoe_vk_io *io)
{
    const struct {
        enum moe_vk_buffer_id id;
        const vkmoe_vk_buffer *buffer;
        size_t stride; // 0: rows follow each other
    } arrays[] = {
        {MOE_VK_BUF_X, &io->x, io->x_stride},
        {MOE_VK_BUF_ROUTER_X, &io->router_x, io->router_x_stride},
        {MOE_VK_BUF_TOKEN_IDS, &io->token_ids, 0},
        {MOE_VK_BUF_ROWS, &io->rows, io->rows_stride},
        {MOE_VK_BUF_SLOTS, &io->slots, 0},
        {MOE_VK_BUF_IDS, &io->ids, 0},
        {MOE_VK_BUF_GATES, &io->gates, 0},
        {MOE_VK_BUF_Y, &io->y, io->y_stride},
        {MOE_VK_BUF_SCORES, &io->scores, 0},
        {MOE_VK_BUF_COUNTS, &io->counts, 0},
        {MOE_VK_BUF_OFFSETS, &io->offsets, 0},
    };
    for (uint32_t i = 0; i < MOE_COUNT(arrays); i++)
        set_rows(vk, b, arrays[i].id, arrays[i].buffer, arrays[i].stride);
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
    for (uint32_t i = 0; i < MOE_VK_N_BUFS; i++)
        moe_vk_buffer_destroy(vk, &b->outputs[i]);
    for (uint32_t i = 0; i < MOE_VK_N_INPUTS; i++)
        moe_vk_buffer_destroy(vk, &b->inputs[i]);
    moe_vk_buffer_destroy(vk, &b->work);
    moe_free(vk->base.host, b);
}
