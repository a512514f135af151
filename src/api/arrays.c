// SPDX-License-Identifier: MIT
// The arrays of a run, in host memory or in the caller's buffers: which of them a plan has, and are
// they as they must be?
#include "api/api.h"
#include "api/ranges.h"
#include "base/bits.h"
#include "core/dtype.h"

#include <stdio.h>

// In the order of moe_api_io_ranges.
static const struct array {
    const char *name;
    enum moe_value_id value;
    bool of_x_type; // rows may have a stride; else they follow each other, of 4 bytes an element
} arrays[MOE_IO_RANGES] = {
    {"x", MOE_VALUE_X, true},           {"router_x", MOE_VALUE_ROUTER_X, true},
    {"token_ids", MOE_VALUE_TOKEN_IDS, false}, {"y", MOE_VALUE_Y, true},
    {"ids", MOE_VALUE_IDS, false},      {"gates", MOE_VALUE_GATES, false},
    {"scores", MOE_VALUE_SCORES, false}, {"rows", MOE_VALUE_ROWS, true},
    {"slots", MOE_VALUE_SLOTS, false},  {"counts", MOE_VALUE_COUNTS, false},
    {"offsets", MOE_VALUE_OFFSETS, false},
};
enum { NAME_SIZE = 32 };

static bool is_layer(const struct moe_graph *graph)
{
    return graph->operation == VKMOE_OPERATION_LAYER;
}

static enum vkmoe_dtype type_of(const struct array *array, const struct moe_program *program)
{
    return array->of_x_type ? program->x_type : VKMOE_F32; // i32 and u32 have its size
}

static uint64_t n_rows_of(const struct array *array, const struct moe_graph *graph,
                          uint32_t n_tokens)
{
    switch (graph->values[array->value].rows) {
    case MOE_ROWS_TOKEN:
        return n_tokens;
    case MOE_ROWS_SLOT:
        return (uint64_t) n_tokens * graph->layer.desc.top_k;
    case MOE_ROWS_ONE:
        break;
    }
    return 1;
}

// An array that is given though the plan has none, or is not given though it must be.
static enum vkmoe_status check_presence(const char *owner, const struct array *array,
                                        const struct moe_graph *graph, bool given, bool has,
                                        bool required)
{
    const bool reads = moe_graph_has_input(graph, array->value);
    char who[NAME_SIZE] = "the layer";
    if (!is_layer(graph))
        snprintf(who, sizeof who, "the operation %s", vkmoe_operation_name(graph->operation));
    if (given && !has)
        return moe_fail(VKMOE_E_ARGUMENT, "%s.%s is given, %s does not %s it", owner, array->name,
                        who, is_layer(graph) ? "read" : "use");
    if (!given && required)
        return moe_fail(VKMOE_E_ARGUMENT, "%s.%s is NULL, %s %s it", owner, array->name, who,
                        reads ? "reads" : "writes");
    return VKMOE_OK;
}

// ---- host memory -------------------------------------------------------------------------------

static enum vkmoe_status check_range(const char *name, const int32_t *data, uint64_t n,
                                     int64_t least, int64_t end)
{
    for (uint64_t i = 0; i < n; i++)
        if (data[i] < least || data[i] >= end)
            return moe_fail(VKMOE_E_DATA, "io.%s[%llu] = %d: must be %lld to %lld", name,
                            (unsigned long long) i, data[i], (long long) least,
                            (long long) end - 1);
    return VKMOE_OK;
}

// What is read as a place in another array.
static enum vkmoe_status check_data(const vkmoe_io *io, const struct moe_graph *graph,
                                    uint32_t n_tokens)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const uint64_t n_slots = (uint64_t) n_tokens * layer->top_k;
    for (uint32_t t = 0; io->token_ids && t < n_tokens; t++)
        if ((uint32_t) io->token_ids[t] >= layer->n_token_ids)
            return moe_fail(VKMOE_E_DATA, "io.token_ids[%u] = %d: the table has %u rows", t,
                            io->token_ids[t], layer->n_token_ids);
    if (moe_graph_has_input(graph, MOE_VALUE_IDS))
        TRY(check_range("ids", io->ids, n_slots, -1, moe_layer_n_scored(layer)));
    if (moe_graph_has_input(graph, MOE_VALUE_SLOTS))
        TRY(check_range("slots", io->slots, n_slots, -1, (int64_t) n_slots));
fail:
    return status;
}

enum vkmoe_status moe_api_io_ranges(struct moe_range *ranges, vkmoe_io *io,
                                    const struct moe_program *program, uint32_t n_tokens)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_graph *graph = &program->graph;
    struct {
        const void *data;
        size_t *stride;
    } given[MOE_IO_RANGES] = {
        {io->x, &io->x_stride}, {io->router_x, &io->router_x_stride}, {io->token_ids, NULL},
        {io->y, &io->y_stride}, {io->ids, NULL},                      {io->gates, NULL},
        {io->scores, NULL},     {io->rows, &io->rows_stride},         {io->slots, NULL},
        {io->counts, NULL},     {io->offsets, NULL},
    };
    for (uint32_t i = 0; i < MOE_IO_RANGES; i++) {
        const struct array *array = &arrays[i];
        const bool reads = moe_graph_has_input(graph, array->value);
        const bool writes = moe_graph_has_output(graph, array->value);
        const bool must = reads || (writes && !is_layer(graph) &&
                                    array->value != MOE_VALUE_SCORES);
        ranges[i] = (struct moe_range){"io", array->name, MOE_NO_INDEX, .written = writes};
        if (n_tokens > 0)
            TRY(check_presence("io", array, graph, given[i].data != NULL, reads || writes, must));
        if (!reads && !writes)
            continue;
        const enum vkmoe_dtype type = type_of(array, program);
        const uint32_t width = graph->values[array->value].width;
        const size_t element = moe_dtype_size(type, 1), row = moe_dtype_size(type, width);
        size_t stride = given[i].stride ? *given[i].stride : row;
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "io.%s", array->name);
        TRY(moe_api_stride(name, &stride, width, type, element));
        if (given[i].stride)
            *given[i].stride = stride;
        TRY(moe_range_set(&ranges[i], given[i].data, n_rows_of(array, graph, n_tokens), stride,
                          row, element));
    }
    TRY(check_data(io, graph, n_tokens));
fail:
    return status;
}

// ---- the caller's buffers ----------------------------------------------------------------------

enum { VK_WORD = 4, MORE_BUFFERS = 2 }; // kernels move 32-bit words; count and workspace

static enum vkmoe_status check_rows(const char *name, const vkmoe_vk_buffer *buffer,
                                    uint64_t n_rows, size_t stride, size_t row_size)
{
    uint64_t extent;
    enum vkmoe_status status = moe_api_vk_buffer(name, buffer);
    if (status != VKMOE_OK)
        return status;
    if (!moe_api_extent(n_rows, stride, row_size, &extent) || buffer->size < extent)
        return moe_fail(VKMOE_E_SHAPE, "%s.size = %llu: %llu rows of stride %zu do not fit", name,
                        (unsigned long long) buffer->size, (unsigned long long) n_rows, stride);
    if (stride / VK_WORD > UINT32_MAX)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "%s: a stride of %zu bytes: kernels count its words in 32 bits", name,
                        stride);
    return VKMOE_OK;
}

static bool overlap(const vkmoe_vk_buffer *a, const vkmoe_vk_buffer *b)
{
    return a->buffer && a->buffer == b->buffer && a->offset < b->offset + b->size &&
           b->offset < a->offset + a->size;
}

// A caller's buffer and what is done to it.
struct place {
    const char *name;
    const vkmoe_vk_buffer *buffer;
    size_t *stride; // NULL: rows follow each other
    bool written;
};

// Nothing may share memory with what is written.
static enum vkmoe_status check_overlap(const struct place *all, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = i + 1; j < n; j++)
            if ((all[i].written || all[j].written) && overlap(all[i].buffer, all[j].buffer))
                return moe_fail(VKMOE_E_ARGUMENT, "vk_io.%s and vk_io.%s overlap", all[i].name,
                                all[j].name);
    return VKMOE_OK;
}

static enum vkmoe_status check_place(const struct array *array, struct place *place,
                                     const struct moe_program *program)
{
    enum vkmoe_status status;
    const struct moe_graph *graph = &program->graph;
    // What a layer tells besides y stays in its workspace.
    place->written = moe_graph_has_output(graph, array->value) &&
                     (!is_layer(graph) || array->value == MOE_VALUE_Y);
    const bool has = place->written || moe_graph_has_input(graph, array->value);
    const enum vkmoe_dtype type = type_of(array, program);
    const uint32_t width = graph->values[array->value].width;
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "vk_io.%s", array->name);
    place->name = array->name;
    TRY(check_presence("vk_io", array, graph, place->buffer->buffer != 0, has, false));
    if (!has)
        return VKMOE_OK;
    const size_t row = (size_t) moe_align_up(moe_dtype_size(type, width), VK_WORD);
    size_t stride = place->stride ? *place->stride : row;
    TRY(moe_api_stride(name, &stride, width, type, VK_WORD));
    if (place->stride)
        *place->stride = stride;
    TRY(check_rows(name, place->buffer, n_rows_of(array, graph, program->max_tokens), stride, row));
fail:
    return status;
}

enum vkmoe_status moe_api_vk_arrays(vkmoe_vk_io *io, const struct moe_program *program)
{
    enum vkmoe_status status;
    struct place all[MOE_IO_RANGES + MORE_BUFFERS] = {
        {NULL, &io->x, &io->x_stride, false},
        {NULL, &io->router_x, &io->router_x_stride, false},
        {NULL, &io->token_ids, NULL, false},
        {NULL, &io->y, &io->y_stride, false},
        {NULL, &io->ids, NULL, false},
        {NULL, &io->gates, NULL, false},
        {NULL, &io->scores, NULL, false},
        {NULL, &io->rows, &io->rows_stride, false},
        {NULL, &io->slots, NULL, false},
        {NULL, &io->counts, NULL, false},
        {NULL, &io->offsets, NULL, false},
        {"n_tokens", &io->n_tokens, NULL, false},
        {"workspace", &io->workspace, NULL, true},
    };
    for (uint32_t i = 0; i < MOE_IO_RANGES; i++)
        TRY(check_place(&arrays[i], &all[i], program));
    TRY(check_overlap(all, MOE_COUNT(all)));
fail:
    return status;
}
