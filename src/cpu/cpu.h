// SPDX-License-Identifier: MIT
// The CPU back end's own objects.
#ifndef MOE_CPU_CPU_H
#define MOE_CPU_CPU_H

#include "backend/backend.h"
#include "base/pool.h"
#include "core/dtype.h"
#include "cpu/kernels.h"
#include "cpu/panel.h"

#include <stdatomic.h>

extern const struct moe_backend moe_backend_cpu;

struct cpu_device {
    struct moe_device base;
    enum cpu_isa isa;
    struct cpu_kernels kernels;
    uint32_t n_threads;
    struct moe_pool *pool;
};

// ---- weights (pack.c, weights.c) -------------------------------------------------------------

// Where things lie in a packed expert, in bytes from its start:
//   in-panels   for each panel of d_ff: the gate panel (if gated), then the up panel
//   gate bias (if gated), up bias: f32, one for each output of the in-panels
//   out-panels, out bias
// Biases are zero where the layer has none.
struct cpu_expert_layout {
    enum vkmoe_dtype in_type, out_type;
    bool gated;
    uint32_t d_in, d_ff, d_out;
    uint32_t n_in_panels, n_out_panels; // in-panels of one matrix
    uint64_t in_panel_size, out_panel_size;
    uint64_t gate_bias, up_bias, out_panels, out_bias;
    uint64_t size; // a multiple of CPU_BLOCK_ALIGN
};
enum { CPU_BLOCK_ALIGN = 256 };

// n <= 16 rows of k values as they are stored, side by side in a panel; what other rows have there
// stays as it is.
void moe_cpu_pack_panel(enum vkmoe_dtype type, const char *const *rows, uint32_t n, uint32_t k,
                        char *dst);

// expert: an index, VKMOE_SHARED_EXPERT or VKMOE_ADJUGATE_EXPERT + i.
void moe_cpu_expert_layout(struct cpu_expert_layout *out, const struct moe_layer *layer,
                           uint32_t expert);
// What lies around the routed experts of a layer with a latent width, as an expert: its in-panels
// are latent_down, its out-panels latent_up.
void moe_cpu_latent_layout(struct cpu_expert_layout *out, const vkmoe_layer_desc *desc);

// Writes all of a block, by the device's threads where the tensors lie in memory: a page is touched
// first by a thread that may run the layer, so where memory goes to the node of who touches it
// (NUMA), weights are spread over the nodes that the threads are on.
enum vkmoe_status moe_cpu_pack_block(const struct cpu_device *device,
                                     const struct cpu_expert_layout *l,
                                     const vkmoe_expert_tensors *tensors, char *block);

struct cpu_weights {
    struct moe_packed_weights base;
    // Router panels over (n, d_model), f32, n experts and identity experts. The gates of the shared
    // expert are one or two more outputs behind them.
    uint32_t n_router_panels;
    float *router;         // (n_router_panels, d_model, 16); all that follows is behind it
    float *router_bias;    // (n_router_panels * 16), zeros where there is none
    float *selection_bias; // (n), zeros where there is none
    float *expert_scale;   // (n), NULL where there is none, like those that follow
    float *prenorm_scale;  // (d_model)
    float *latent_norm;    // (d_latent)
    float *out_bias;       // (d_out)
    int32_t *table;        // (n_token_ids, top_k)
    struct cpu_expert_layout routed, adjugate, shared;
    char *experts;       // (n_experts) blocks of routed.size bytes; all other blocks are behind it
    char *adjugates;     // blocks of adjugate.size bytes
    char *shared_expert;
    struct cpu_expert_layout latent;
    char *latent_expert;
};

enum vkmoe_status moe_cpu_weights_layout(const struct moe_device *device,
                                         const struct moe_layer *layer, vkmoe_weights_layout *out);
enum vkmoe_status moe_cpu_pack_expert(const struct moe_device *device,
                                      const struct moe_layer *layer, uint32_t expert,
                                      const vkmoe_expert_tensors *tensors, void *dst);
enum vkmoe_status moe_cpu_weights_create(struct moe_device *device, const struct moe_layer *layer,
                                         const struct moe_weights_source *source,
                                         struct moe_packed_weights **out);
void moe_cpu_weights_destroy(struct moe_packed_weights *weights);

// unpack.c
enum vkmoe_status moe_cpu_read_router(struct moe_packed_weights *weights,
                                      const struct moe_router_copy *out);
enum vkmoe_status moe_cpu_read_expert(struct moe_packed_weights *weights, uint32_t expert,
                                      const vkmoe_expert_grads *out);

// ---- operands (operand.c) --------------------------------------------------------------------

// What experts' matrices of a type are multiplied with at a precision. Matrices around them, of a
// layer with a latent width, always have f32: two more roundings would break the promise for y.
enum cpu_operand moe_cpu_operand(const struct cpu_kernels *kernels, enum vkmoe_precision precision,
                                 enum vkmoe_dtype type);

// Bytes of n values, of int8 a multiple of 32; and from row to row of them in the workspace.
size_t moe_cpu_operand_size(enum cpu_operand operand, size_t n);
size_t moe_cpu_operand_stride(enum cpu_operand operand, size_t n);

// n values as operands, of int8 a multiple of 32.
void moe_cpu_store_operand(const struct cpu_kernels *kernels, enum cpu_operand operand,
                           const float *values, uint32_t n, char *out);

// Rows of values and the bytes from one to the next.
struct cpu_values {
    const char *rows;
    size_t stride;
};

// What experts read, a row for each token: as f32, and in the other operands that some need.
struct cpu_input {
    uint32_t width;
    struct cpu_values as[CPU_N_OPERANDS];
    char *own[CPU_N_OPERANDS]; // workspace for rows that are made; NULL: there are none
};

// Is a copy of f32 rows of x faster to read than rows with this stride? It has another one.
bool moe_cpu_copies_x(uint32_t n_tokens, size_t stride);

// All its rows are to be made in the workspace.
void moe_cpu_set_input(struct cpu_input *input, uint32_t width);

// ---- programs (compile.c) --------------------------------------------------------------------

struct cpu_bind;

// A phase is a set of tasks that never wait for each other; phases run one after the other.
struct cpu_phase {
    const char *name;
    // Decides how the phase is cut into tasks and returns their number; 0: it is left out.
    uint32_t (*prepare)(struct cpu_bind *bind);
    void (*task)(struct cpu_bind *bind, uint32_t i);
};

enum { CPU_MAX_PHASES = 13 };

struct cpu_program {
    struct moe_program base;
    struct cpu_phase phases[CPU_MAX_PHASES];
    uint32_t n_phases;
    bool counters;
    enum cpu_operand operands[CPU_N_WEIGHTS]; // of experts' matrices of a type
    // Those that are made of x, and of x_latent: bits 1 << enum cpu_operand. f32 is a copy of x.
    uint32_t x_operands, latent_operands;
    bool gathers; // copies what routed experts read to the order of their rows
};

enum vkmoe_status moe_cpu_program_create(struct moe_device *device, const struct moe_graph *graph,
                                         const struct moe_program_params *params,
                                         struct moe_program **out);
void moe_cpu_program_destroy(struct moe_program *program);
void moe_cpu_program_kernels(const struct moe_program *program, vkmoe_plan_kernels *out);

// The phases, in operand.c, phases_route.c, phases_group.c, phases_expert.c and, of operations,
// phases_rows.c.
uint32_t moe_cpu_x_prepare(struct cpu_bind *bind);
void moe_cpu_x_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_router_rows_prepare(struct cpu_bind *bind);
void moe_cpu_router_rows_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_logits_prepare(struct cpu_bind *bind);
void moe_cpu_logits_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_select_prepare(struct cpu_bind *bind);
void moe_cpu_select_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_capacity_prepare(struct cpu_bind *bind);
void moe_cpu_capacity_task(struct cpu_bind *bind, uint32_t i);
void moe_cpu_group_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_rows_prepare(struct cpu_bind *bind);
void moe_cpu_rows_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_latent_in_prepare(struct cpu_bind *bind);
void moe_cpu_latent_in_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_latent_x_prepare(struct cpu_bind *bind);
void moe_cpu_latent_x_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_in_prepare(struct cpu_bind *bind);
void moe_cpu_in_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_out_prepare(struct cpu_bind *bind);
void moe_cpu_out_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_latent_norm_prepare(struct cpu_bind *bind);
void moe_cpu_latent_norm_task(struct cpu_bind *bind, uint32_t i);
// Its tasks are those of `out`.
uint32_t moe_cpu_latent_out_prepare(struct cpu_bind *bind);
uint32_t moe_cpu_one_prepare(struct cpu_bind *bind);
void moe_cpu_sort_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_gather_prepare(struct cpu_bind *bind);
void moe_cpu_gather_task(struct cpu_bind *bind, uint32_t i);
void moe_cpu_place_task(struct cpu_bind *bind, uint32_t i);
uint32_t moe_cpu_combine_rows_prepare(struct cpu_bind *bind);
void moe_cpu_combine_rows_task(struct cpu_bind *bind, uint32_t i);

// ---- binds and runs (run.c) ------------------------------------------------------------------

// A matrix of rows by panels cut into tasks: task i does row tile i % n_tiles and panel block
// i / n_tiles, so that tasks one after the other use the same weights. How it is cut never changes
// a result.
struct cpu_grid {
    uint32_t n_rows, tile_rows;
    uint32_t n_panels, block_panels;
    uint32_t n_tiles, n_blocks;
};

enum {
    CPU_TILE_ROWS = 48,
    // Rows of a task of EXPERT_IN: tile by tile, so that a thread has read the weights before.
    CPU_TASK_ROWS = 4 * CPU_TILE_ROWS,
    // Multiply-adds of a task when there is enough to do: microseconds from the cache, tens of them
    // when the weights come from memory.
    CPU_TASK_MACS = 262144,
    CPU_ALONE_MACS = 16384, // of a whole phase that takes as long as handing it out
    CPU_GATHER_TOKENS = 16, // of fewer, experts have too few rows that these lie apart
};

// A grid of tiles of at most most_rows. macs: multiply-adds of one row with one panel.
struct cpu_grid moe_cpu_grid(uint32_t n_rows, uint32_t most_rows, uint32_t n_panels, uint64_t macs);

struct cpu_range {
    uint32_t begin, end;
};

// Rows and panels of task i.
static inline struct cpu_range moe_cpu_grid_rows(const struct cpu_grid *grid, uint32_t i)
{
    uint32_t begin = i % grid->n_tiles * grid->tile_rows, left = grid->n_rows - begin;
    return (struct cpu_range){begin, begin + (left < grid->tile_rows ? left : grid->tile_rows)};
}

static inline struct cpu_range moe_cpu_grid_panels(const struct cpu_grid *grid, uint32_t i)
{
    uint32_t begin = i / grid->n_tiles * grid->block_panels, left = grid->n_panels - begin;
    return (struct cpu_range){begin,
                              begin + (left < grid->block_panels ? left : grid->block_panels)};
}

// A token as one expert's row.
struct cpu_row {
    uint32_t token;
    float weight; // of the expert's input, with weight_on_input
    float factor; // multiplies the expert's output: gate weight times the layer's constants
};

// The rows of one expert. The shared expert is a group like the others, of all tokens, and so is
// latent_up. An adjugate expert has a group of the rows of each routed expert that it runs with.
struct cpu_group {
    const struct cpu_expert_layout *layout; // NULL: an identity expert, its output is its input
    const char *expert;         // its packed block
    const struct cpu_row *rows; // in token order
    enum cpu_operand x_operand, h_operand;
    struct cpu_values x;        // rows of tokens, or, gathered, of these rows
    bool gathered;
    char *h;                    // (n_rows) h_stride bytes apart
    size_t h_stride;
    struct cpu_grid in;         // how its EXPERT_IN is cut
    uint32_t n_rows;
    uint32_t first_task;        // its first EXPERT_IN task
    enum vkmoe_act act, act_out;
    float limit;                // of the layer's clamp
    float scale;                // of its output, with the factor of a row
    bool weighted;              // has weights on its input
};

// What the tasks of a run have done. Kernels compute no rows but those that they are given.
struct cpu_counts {
    _Atomic uint64_t weight_loads, router_loads; // bytes of panels
    _Atomic uint64_t columns;                    // rows times panels of experts
    _Atomic uint64_t tasks;
    uint32_t phases;
};

struct cpu_bind {
    struct moe_bound base;
    const struct cpu_kernels *kernels;
    struct cpu_counts *counts; // NULL: nobody counts
    void *memory; // all of the workspace below, made for max_tokens

    float *logits;      // (n_tokens, n_router_panels * 16)
    int32_t *ids;       // (n_tokens, top_k)
    float *gates;       // (n_tokens, top_k)
    float *factors;     // (n_tokens, 2) of the routed sum and of the shared expert
    uint64_t *keys;     // (n_tokens * top_k) to sort by, with a capacity
    uint32_t *slots;    // (n_tokens * top_k) by expert, likewise
    struct cpu_row *rows; // by expert, in token order; then those of all tokens: shared, latent_up
    uint32_t *starts;     // (n + 2) first row of each expert and identity expert; to sort
    struct cpu_group *groups; // those that have rows: routed, adjugate and identity experts, each
                              // ascending; latent_up; the shared expert
    char *h, *h_adjugate, *h_shared; // hidden rows; of slots, or of tokens
    char *x_rows;       // (n_tokens * top_k) what routed experts read, by expert; NULL but where
                        // a level asks for it (AMX), as it is the largest part of a workspace
    char *router_rows;  // (n_tokens, d_model) that are not read where they are, or NULL
    char *x_latent, *r_latent; // (n_tokens), as hidden rows of latent_down
    // x as f32 (n_tokens, d_model) until y (n_tokens, d_out) is added up there, for a program whose
    // x_type is not f32; NULL for others. With identity experts y has its own place. Rows as those
    // of operands.
    char *wide, *wide_y;
    uint32_t *positions; // (n_tokens * top_k) of a slot's row, to combine rows

    // The run, and the phase it is in.
    uint32_t n_tokens;
    const vkmoe_io *io;
    struct cpu_input x; // its f32 rows and the sums of y: io's own memory, a copy, or `wide`
    struct cpu_input latent; // x_latent
    char *y;
    size_t y_stride;
    const char *router_x; // what the router reads, f32
    size_t router_x_stride;
    const struct cpu_phase *phase;
    bool alone; // it has so little to do that the caller does it all
    uint32_t n_groups, n_in_tasks; // made by the group phase
    uint32_t n_routed;             // groups of the routed sum: those before latent_up
    struct cpu_group latent_in;
    struct cpu_grid grid;
    uint32_t block_tokens;         // of a task that goes by tokens
    // What an `out` phase adds up: groups [first_group, end_group) into rows of a width.
    uint32_t first_group, end_group;
    char *sum;
    size_t sum_stride;
    uint32_t sum_width;
};

static inline const struct cpu_program *moe_cpu_bind_program(const struct cpu_bind *bind)
{
    return (const struct cpu_program *) bind->base.program;
}

static inline const struct cpu_weights *moe_cpu_bind_weights(const struct cpu_bind *bind)
{
    return (const struct cpu_weights *) bind->base.weights;
}

static inline const vkmoe_layer_desc *moe_cpu_bind_layer(const struct cpu_bind *bind)
{
    return &bind->base.program->graph.layer.desc;
}

// Tokens [begin, end) of task i of a phase that goes by tokens.
static inline struct cpu_range moe_cpu_block(const struct cpu_bind *bind, uint32_t i)
{
    uint32_t begin = i * bind->block_tokens, left = bind->n_tokens - begin;
    return (struct cpu_range){begin,
                              begin + (left < bind->block_tokens ? left : bind->block_tokens)};
}

// Cuts the tokens into tasks of about as many elements as are worth handing out, `width` a token.
uint32_t moe_cpu_cut_tokens(struct cpu_bind *bind, uint32_t n_elements, uint32_t width);

// Bytes from row to row of an expert's hidden values.
static inline size_t moe_cpu_hidden_stride(const struct cpu_expert_layout *layout,
                                           enum cpu_operand operand)
{
    return moe_cpu_operand_stride(operand, (size_t) layout->n_in_panels * CPU_PANEL);
}

// A group of latent_down and latent_up with rows from `first` on: all tokens. `h`: its hidden rows.
struct cpu_group moe_cpu_latent_group(const struct cpu_bind *bind, uint32_t first, char *h);

// The constants of the routed sum of a token.
static inline float moe_cpu_routed_scale(const struct cpu_bind *bind, uint32_t token)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    return layer->out_scale * layer->c_routed * bind->factors[2 * (size_t) token];
}

// Gives the caller the choice of these tokens, if it asked for it.
void moe_cpu_store_choice(const struct cpu_bind *bind, struct cpu_range tokens);

static inline void moe_cpu_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

enum vkmoe_status moe_cpu_bind_create(struct moe_program *program,
                                      struct moe_packed_weights *weights,
                                      const vkmoe_vk_io *vk_io, struct moe_bound **out);
void moe_cpu_bind_destroy(struct moe_bound *bound);

// Calls task(arg, i) for each i < n on the device's threads, or the host's, and waits.
void moe_cpu_parallel(const struct cpu_device *device, uint32_t n, moe_task_fn *task, void *arg);

enum vkmoe_status moe_cpu_run(struct moe_bound *bound, uint32_t n_tokens, const vkmoe_io *io);
void moe_cpu_counters(const struct moe_bound *bound, vkmoe_counters *out);
enum vkmoe_status moe_cpu_time_phases(struct moe_bound *bound, uint32_t n_tokens,
                                      const vkmoe_io *io, vkmoe_dispatch_time *times, uint32_t *n);

// ---- limits (probe.c) ------------------------------------------------------------------------

enum vkmoe_status moe_cpu_probe_create(struct moe_device *device, uint64_t read_size,
                                       struct moe_device_probe **out);
void moe_cpu_probe_destroy(struct moe_device_probe *probe);
enum vkmoe_status moe_cpu_probe_run(struct moe_device_probe *probe, uint32_t what,
                                    vkmoe_limits *out);

#endif
