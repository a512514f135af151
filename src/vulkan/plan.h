// SPDX-License-Identifier: MIT
// What compile.c makes of a graph: an array of dispatches per regime. Everything after it
// (barriers, checks, binding, recording, slices) walks that array and knows no op.
#ifndef MOE_VULKAN_PLAN_H
#define MOE_VULKAN_PLAN_H

#include "params.h"
#include "vulkan/choose.h"

enum moe_vk_regime {
    MOE_VK_DECODE,  // few tokens: no grouping, down projection and combine in one kernel
    MOE_VK_GROUPED, // slots grouped by expert, tiles by each expert's real rows
    MOE_VK_N_REGIMES,
};

enum { MOE_VK_DECODE_TOKENS = 4 }; // most tokens of the decode regime

enum moe_vk_buffer_id {
    MOE_VK_BUF_WEIGHTS, // in one or more segments; offsets go on from one to the next
    MOE_VK_BUF_X, // inputs of the layer, which follow each other
    MOE_VK_BUF_ROUTER_X,
    MOE_VK_BUF_TOKEN_IDS,
    MOE_VK_BUF_ROWS, // these four: of operations, inputs or outputs
    MOE_VK_BUF_SLOTS,
    MOE_VK_BUF_IDS,
    MOE_VK_BUF_GATES,
    MOE_VK_BUF_WORK,
    MOE_VK_BUF_Y,
    MOE_VK_BUF_SCORES, // outputs of operations
    MOE_VK_BUF_COUNTS,
    MOE_VK_BUF_OFFSETS,
    MOE_VK_BUF_COUNT, // the caller's token count
    MOE_VK_N_BUFS,
};
enum { MOE_VK_N_INPUTS = MOE_VK_BUF_GATES - MOE_VK_BUF_X + 1 };

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
    // Estimate of the work, in floating-point operations, with a byte of weights as a few of them:
    // fixed + per_token * n_tokens. Routing is taken as uniform.
    double work_fixed, work_per_token;
    // Offset in params of the stride in words of the rows of an operation; 0: none.
    uint32_t rows_stride;
    uint32_t params_size;
    uint8_t params[128 - sizeof(struct head_params)];
};

enum { MOE_VK_COUNTERS_SIZE = MOE_N_COUNTERS * 8 }; // bytes, from MOE_COUNTER_WORD on

// What a program keeps to.
struct moe_vk_limits {
    bool bda;
    uint64_t range;     // bytes of a bound range, but not of weights by address
    uint64_t allocation; // bytes of a buffer
    uint64_t groups[2]; // workgroups along x and y
    double work;        // of one dispatch, where it can be cut
    struct moe_vk_shape shape; // of the variant's matrices
    uint32_t subgroups;        // of a workgroup; 0: unknown
    uint32_t shared;           // bytes of a workgroup
};

// The dispatches of one regime, for a block of tokens; more tokens are done block by block in the
// same workspace. The first one reads the token count from the caller's buffer and is left out
// where the host knows it.
struct moe_vk_sequence {
    struct moe_vk_dispatch *dispatches;
    uint32_t n;
    uint32_t block_tokens;
    uint64_t work_size;                     // bytes of the workspace
    struct moe_vk_range ids, gates, scores; // in the workspace, for readback
};

struct moe_vk_program {
    struct moe_program base;
    const struct moe_vk_variant *variant; // NULL: a0
    struct moe_vk_sequence sequences[MOE_VK_N_REGIMES]; // n = 0: not needed for max_tokens
    uint64_t work_size; // of the largest
    double budget_ms;   // of one submission by run
    bool counters;      // its kernels count, at MOE_COUNTER_WORD of the workspace
};

// Where things are in an expert's packed block, in uvec4; pure, from the layer alone. A matrix is
// panels of MOE_PANEL_ROWS rows, each panel followed by its rows' biases (f32, zero where the layer
// has none). Rows are those of weight_types.h; rows beyond the matrix are zero. Gated: a panel of
// gate rows, then the panel of up rows that goes with it.
struct moe_vk_block {
    uint32_t in_weight, in_stride, in_rows; // rows: packed, whole panels
    uint32_t out_weight, out_stride, out_rows;
    uint64_t size; // bytes, a multiple of 256
};
// expert: as in moe_layer_expert_shape, or MOE_VK_LATENT.
enum vkmoe_status moe_vk_block(const struct moe_layer *layer, uint32_t expert,
                               struct moe_vk_block *out);
// In place of an expert's index: the block of the two latent matrices, packed as an expert without
// gate of hidden width d_latent. Its output biases are out_bias.
#define MOE_VK_LATENT 0x20000000u
struct moe_expert_shape moe_vk_block_shape(const struct moe_layer *layer, uint32_t expert);
// uvec4 of n packed rows of a matrix, whole panels.
static inline uint64_t moe_vk_rows_size(uint32_t stride, uint64_t n_rows)
{
    return n_rows * stride + n_rows / 4;
}

// The packed row of a row of gate or up.
uint32_t moe_vk_packed_row(bool gated, bool up, uint32_t row);

// Where things are in the weights. Head: the table of blocks; then the router, transposed to
// (d_model, quads * 4); its vectors MOE_VECTOR_* (quads * 4); the scale of its norm (d_model); the
// table of expert ids (n_token_ids, top_k), rows padded to whole uvec4. Then the blocks: experts,
// adjugates, the shared expert, the latent matrices. Then vectors of f32: out_bias if there is no
// latent width (padded to MOE_PANEL_ROWS), the scale of the latent norm.
struct moe_vk_weights_map {
    uint32_t quads; // of router rows: experts, identity experts, the shared expert's gate
    uint32_t router_weight, router_vectors, router_prenorm, router_table; // in uvec4
    uint64_t experts, expert_size, shared, shared_size, total; // bytes
    uint64_t adjugates, adjugate_size, latent, latent_size;
    uint64_t vectors, vectors_size, out_bias, latent_norm;
    // Whole: every kernel reaches all of it. Else kernels get the head, or a chunk of whole
    // experts, or, where not even one is within the limits, a part of an expert.
    bool whole;
    uint32_t chunk_experts, chunk_adjugates;
    // Experts of a buffer; the first one has the head too, the last one what is behind them. If
    // that is too much, adjugates have buffers of their own.
    uint32_t segment_experts, n_segments;
    uint32_t segment_adjugates, n_expert_segments; // 0: adjugates have none of their own
};
enum vkmoe_status moe_vk_weights_map(const struct moe_layer *layer,
                                     const struct moe_vk_limits *limits,
                                     struct moe_vk_weights_map *out);
// A block of the weights.
struct moe_vk_placed {
    uint32_t expert;       // as for moe_vk_block
    uint64_t offset, size; // of the weights
};
// The blocks there are, by their place in the table: experts, adjugates, shared, latent.
uint32_t moe_vk_n_blocks(const struct moe_layer *layer);
struct moe_vk_placed moe_vk_placed(const struct moe_layer *layer,
                                   const struct moe_vk_weights_map *map, uint32_t i);
// The place in the table of an index as for moe_vk_block.
uint32_t moe_vk_table_index(const struct moe_layer *layer, uint32_t expert);
// head.c: the parts of the map that are about the head, and where it ends, in bytes.
enum vkmoe_status moe_vk_head_map(const struct moe_layer *layer, struct moe_vk_weights_map *map);
// Where the i-th segment begins; the end of all for i = n_segments.
uint64_t moe_vk_segment_start(const struct moe_vk_weights_map *map, uint32_t i);

// A part of the weights, in a buffer of its own.
struct moe_vk_segment {
    uint64_t start, size; // of the weights
    struct moe_vk_buffer buffer;
    uint64_t offset; // in the buffer, if that is the caller's
    // Without a queue: what waits to be uploaded by the caller.
    struct moe_vk_buffer staging;
};

struct moe_vk_weights {
    struct moe_packed_weights base;
    struct moe_vk_segment *segments;
    uint32_t n_segments;
    bool adopted; // the one segment is in the caller's buffer
    bool upload_recorded;
};

// The segment that has a byte of the weights.
const struct moe_vk_segment *moe_vk_segment_of(const struct moe_vk_weights *weights,
                                               uint64_t offset);

// pack.c has these and what is above.
enum vkmoe_status moe_vk_weights_layout(const struct moe_device *device,
                                        const struct moe_layer *layer, vkmoe_weights_layout *out);
enum vkmoe_status moe_vk_pack_expert(const struct moe_device *device, const struct moe_layer *layer,
                                     uint32_t expert, const vkmoe_expert_tensors *tensors,
                                     void *dst);
// Where a packed block goes, some bytes at a time.
struct moe_vk_sink {
    enum vkmoe_status (*write)(void *user, const void *data, uint64_t size);
    void *user;
};
enum vkmoe_status moe_vk_pack_block(const struct moe_device *device, const struct moe_layer *layer,
                                    uint32_t expert, const vkmoe_expert_tensors *tensors,
                                    const struct moe_vk_sink *sink);
// The block of the latent matrices; out_bias may be NULL.
enum vkmoe_status moe_vk_pack_latent(const struct moe_device *device, const struct moe_layer *layer,
                                     const vkmoe_latent_tensors *tensors, const float *out_bias,
                                     const struct moe_vk_sink *sink);
// The vectors behind the blocks. vectors: map->vectors_size bytes, zero.
void moe_vk_pack_vectors(const struct moe_layer *layer, const struct moe_vk_weights_map *map,
                         const struct moe_weights_source *source, void *vectors);
// head.c: the head of the weights, but for the table of blocks. head: map->experts bytes, zero;
// row: room for d_model.
void moe_vk_pack_router(const struct moe_layer *layer, const struct moe_vk_weights_map *map,
                        const vkmoe_router_tensors *router, float *row, void *head);
// And all of it.
void moe_vk_pack_head(const struct moe_vk_weights *weights, const struct moe_vk_weights_map *map,
                      const vkmoe_router_tensors *router, float *row, void *head);

// weights.c
enum vkmoe_status moe_vk_weights_create(struct moe_device *device, const struct moe_layer *layer,
                                        const struct moe_weights_source *source,
                                        struct moe_packed_weights **out);
void moe_vk_weights_destroy(struct moe_packed_weights *weights);
enum vkmoe_status moe_vk_record_upload(struct moe_packed_weights *weights, VkCommandBuffer cmd);
void moe_vk_release_staging(struct moe_packed_weights *weights);
// unpack.c
enum vkmoe_status moe_vk_read_router(struct moe_packed_weights *weights,
                                     const struct moe_router_copy *out);
enum vkmoe_status moe_vk_read_expert(struct moe_packed_weights *weights, uint32_t expert,
                                     const vkmoe_expert_grads *out);
// False: they wait to be uploaded by the caller.
bool moe_vk_weights_ready(const struct moe_vk_weights *weights);

// program.c
enum vkmoe_status moe_vk_program_create(struct moe_device *device, const struct moe_graph *graph,
                                        const struct moe_program_params *params,
                                        struct moe_program **out);
void moe_vk_program_destroy(struct moe_program *program);
// The limits of a device, with `work` for submissions of that many milliseconds; and how long a
// unit of work takes before anything was measured, in nanoseconds.
struct moe_vk_limits moe_vk_limits(const struct moe_vk *vk, double budget_ms);
double moe_vk_ns_per_work(enum vkmoe_device_type type);
double moe_vk_now_ns(void);
// Adjusts *ns_per_work after a submission of that much work took that long.
void moe_vk_learn(double *ns_per_work, double budget_ns, double work, double ns);

// compile.c: the device-free part. Fills in the sequences: dispatches without pipelines, barriers
// derived, within the limits. Free with moe_vk_sequences_finish, also after a failure.
enum vkmoe_status moe_vk_compile(struct moe_vk_program *program,
                                 const struct moe_vk_limits *limits);
void moe_vk_sequences_finish(struct moe_vk_program *program);
enum moe_vk_regime moe_vk_choose_regime(uint32_t n_tokens);
// The most tokens that a regime of a program is for.
uint32_t moe_vk_regime_tokens(enum moe_vk_regime regime, uint32_t max_tokens);

// tiles.c: the most rows of a full tile in a plan that makes so many tokens at once; and the fewest
// tokens of one whose tiles have `full` rows, if the variant has such and the device room for them.
uint32_t moe_vk_full_rows(const struct moe_vk_variant *variant, const vkmoe_layer_desc *layer,
                          const struct moe_vk_limits *limits, uint32_t tokens);
uint32_t moe_vk_tokens_for(const vkmoe_layer_desc *layer, uint32_t full);
// Bytes of shared memory that a workgroup over a full tile of n_rows takes at most; of a0 or a1,
// which have wide ones.
uint32_t moe_vk_tile_shared(const struct moe_vk_variant *variant, enum vkmoe_dtype weights,
                            uint32_t n_rows);

// barrier.c: sets `barrier` of each dispatch that touches what one before it, since the last
// barrier, wrote, or that writes what one of those read.
void moe_vk_derive_barriers(struct moe_vk_dispatch *dispatches, uint32_t n);

// check.c: is a sequence within the limits, with a block of tokens? false: a dispatch, or NULL for
// the workspace, is not.
bool moe_vk_fits(const struct moe_vk_limits *limits, const struct moe_vk_sequence *sequence,
                 const struct moe_vk_dispatch **which);
// The failure that says so, with the numbers.
enum vkmoe_status moe_vk_too_large(const struct moe_vk_limits *limits,
                                   const struct moe_vk_sequence *sequence,
                                   const struct moe_vk_dispatch *which);

// Workgroups for n_tokens.
static inline uint64_t moe_vk_groups(struct moe_vk_count count, uint32_t n_tokens)
{
    return count.per_token == 0
               ? count.fixed
               : ((uint64_t) n_tokens * count.per_token + count.divisor - 1) / count.divisor;
}

static inline double moe_vk_work(const struct moe_vk_dispatch *d, uint32_t n_tokens)
{
    return d->work_fixed + d->work_per_token * n_tokens;
}

#endif
