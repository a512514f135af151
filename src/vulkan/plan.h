// SPDX-License-Identifier: MIT
// What compile.c makes of a graph: an array of dispatches per regime. Everything after it
// (barriers, checks, binding, recording, the dispatch count) walks that array and knows no op.
#ifndef MOE_VULKAN_PLAN_H
#define MOE_VULKAN_PLAN_H

#include "params.h"
#include "vulkan/vk.h"

enum moe_vk_regime {
    MOE_VK_DECODE,  // few tokens: no grouping, down projection and combine in one kernel
    MOE_VK_GROUPED, // slots grouped by expert, tiles by each expert's real rows
    MOE_VK_N_REGIMES,
};

enum { MOE_VK_DECODE_TOKENS = 4 }; // most tokens of the decode regime

enum moe_vk_buffer_id {
    MOE_VK_BUF_WEIGHTS,
    MOE_VK_BUF_X,
    MOE_VK_BUF_WORK,
    MOE_VK_BUF_Y,
    MOE_VK_N_BUFS,
};

// SPIR-V takes array indices as signed: an index is below 2^31. So a range of words may have 8 GiB,
// and an expert, which counts in uvec4, 32 GiB.
#define MOE_VK_MAX_INDEX ((uint64_t) INT32_MAX)
#define MOE_VK_MAX_WORDS_SIZE ((MOE_VK_MAX_INDEX + 1) * 4) // bytes

// Bytes of a bind's buffer. size 0: no range. Offsets are multiples of 256.
struct moe_vk_range {
    enum moe_vk_buffer_id buffer;
    uint64_t offset, size;
};

enum { MOE_VK_READ = 1, MOE_VK_WRITE = 2 };

// Workgroups along an axis: `fixed`, or ceil(n_tokens * per_token / divisor).
struct moe_vk_count {
    uint32_t fixed, per_token, divisor;
};

struct moe_vk_dispatch {
    const char *label; // static
    enum moe_spv_id spv;
    uint32_t spec[MOE_VK_MAX_SPEC];
    VkPipeline pipeline;
    struct moe_vk_range ranges[4]; // by MOE_SLOT_*; exactly what is bound
    uint8_t access[4];             // MOE_VK_READ | MOE_VK_WRITE
    struct moe_vk_count x, y;
    struct moe_vk_range indirect; // where the workgroup counts stand instead, if size > 0
    uint32_t max_x;               // indirect: largest x there can be
    bool barrier;                 // before this dispatch
    uint32_t params_size;
    uint8_t params[128 - sizeof(struct head_params)];
};

enum { MOE_VK_MAX_DISPATCHES = 16 };

struct moe_vk_program {
    struct moe_program base;
    struct moe_vk_dispatch dispatches[MOE_VK_N_REGIMES][MOE_VK_MAX_DISPATCHES];
    uint32_t n_dispatches[MOE_VK_N_REGIMES];
    uint64_t work_size;                     // bytes of the workspace
    struct moe_vk_range ids, gates, scores; // in the workspace, for readback
};

// Where things are in an expert's packed block, in uvec4; pure, from the layer alone. Rows are
// contiguous in k and padded with zeros to 16 bytes. Gated: panels of 16 gate rows, then the 16 up
// rows that go with them. Biases are f32 in packed row order, zero where the layer has none.
struct moe_vk_block {
    uint32_t in_weight, in_stride, in_rows, in_bias;
    uint32_t out_weight, out_stride, out_rows, out_bias;
    uint64_t size; // bytes, a multiple of 256
};
enum vkmoe_status moe_vk_block(const struct moe_layer *layer, uint32_t expert,
                               struct moe_vk_block *out);

// Where things are in a weights buffer. Head: the expert table; then the router, transposed to
// (d_model, quads * 4), its bias and the selection bias (quads * 4); then the experts; then shared.
struct moe_vk_weights_map {
    uint32_t quads;                                        // of router rows, the shared gate's too
    uint32_t router_weight, router_bias, router_selection; // in uvec4
    uint64_t experts, expert_size, shared, shared_size, total; // bytes
};
enum vkmoe_status moe_vk_weights_map(const struct moe_layer *layer, struct moe_vk_weights_map *out);

struct moe_vk_weights {
    struct moe_packed_weights base;
    struct moe_vk_buffer buffer;
    // Without a queue: what waits to be uploaded by the caller, and whether that was recorded.
    struct moe_vk_buffer staging;
    bool upload_recorded;
};

// weights.c
enum vkmoe_status moe_vk_weights_layout(const struct moe_device *device,
                                        const struct moe_layer *layer, vkmoe_weights_layout *out);
enum vkmoe_status moe_vk_pack_expert(const struct moe_device *device, const struct moe_layer *layer,
                                     uint32_t expert, const vkmoe_expert_tensors *tensors,
                                     void *dst);
enum vkmoe_status moe_vk_weights_create(struct moe_device *device, const struct moe_layer *layer,
                                        const struct moe_weights_source *source,
                                        struct moe_packed_weights **out);
void moe_vk_weights_destroy(struct moe_packed_weights *weights);
enum vkmoe_status moe_vk_record_upload(struct moe_packed_weights *weights, VkCommandBuffer cmd);
void moe_vk_release_staging(struct moe_packed_weights *weights);

// compile.c
enum vkmoe_status moe_vk_program_create(struct moe_device *device, const struct moe_graph *graph,
                                        const struct moe_program_params *params,
                                        struct moe_program **out);
void moe_vk_program_destroy(struct moe_program *program);
// The device-free part: dispatches without pipelines, barriers derived.
enum vkmoe_status moe_vk_compile(struct moe_vk_program *program, bool bda);
enum moe_vk_regime moe_vk_choose_regime(uint32_t n_tokens);
// The most tokens that a regime of a program is for.
uint32_t moe_vk_regime_tokens(enum moe_vk_regime regime, uint32_t max_tokens);

// barrier.c: sets `barrier` of each dispatch that touches what one before it, since the last
// barrier, wrote, or that writes what one of those read.
void moe_vk_derive_barriers(struct moe_vk_dispatch *dispatches, uint32_t n);

// check.c: every dispatch of a regime against the device's limits, at its largest token count.
enum vkmoe_status moe_vk_check(const struct moe_vk_caps *caps, bool bda,
                               const struct moe_vk_program *program, enum moe_vk_regime regime);

// Workgroups for n_tokens.
static inline uint64_t moe_vk_groups(struct moe_vk_count count, uint32_t n_tokens)
{
    return count.per_token == 0
               ? count.fixed
               : ((uint64_t) n_tokens * count.per_token + count.divisor - 1) / count.divisor;
}

#endif
