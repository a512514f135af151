// SPDX-License-Identifier: MIT
// Making what a case takes on a device.
#ifndef BENCH_MAKE_H
#define BENCH_MAKE_H

#include "work.h"

// Memory that may be used just now, in bytes.
struct bench_room {
    double device; // 0: not known
    double host;
    bool shared; // the device's memory is the host's
};

struct bench_room bench_room_now(const vkmoe_device_info *device);

// What a case takes, in bytes.
struct bench_need {
    uint32_t n_tensors; // distinct experts' weights, a prime number where there are so many
    uint32_t n_copies;  // binds
    uint32_t n_weights; // of their own; the other binds share them
    double device, host;
};

// Of a forward pass. `layout` is the device's for the layer. More copies and more tensors are
// chosen where there is room for them; one copy is the least, whatever room there is. Where there
// is none for weights of its own, a copy has other rows, which go to other experts.
//   n_hit       experts that a run works with
//   cache_size  of the device's last cache, in bytes; 0: not known
struct bench_need bench_need_forward(const struct bench_case *what,
                                     const vkmoe_weights_layout *layout,
                                     const struct bench_room *room, double n_hit,
                                     double cache_size);
// Of a backward pass or a step.
struct bench_need bench_need_net(const struct bench_case *what);

// VKMOE_E_MEMORY, VKMOE_E_DEVICE_MEMORY: there is no such room; the text tells how much is missing.
enum vkmoe_status bench_need_check(const struct bench_need *need, const struct bench_room *room);

// work.c's own: everything in host memory.
struct bench_material {
    float *noise;
    uint32_t n_tensors;
    void *tensors;                  // all experts' weights
    vkmoe_expert_tensors *experts;  // (n_experts) of which n_tensors are distinct
    vkmoe_expert_tensors shared;
    vkmoe_router_tensors router;
    float *biases;                  // router's and experts'
    float *vectors;                 // what else the router has, and the bias of the routed sum
    const float *out_bias;          // among those, or NULL
    int32_t *table;                 // (n_token_ids, top_k), or NULL
    int32_t *wanted;                // (n_copies, n_tokens, top_k) the experts that were chosen
    void *x, *y;                    // (n_copies, n_tokens, d) of x_type
    void *router_x;                 // as x; NULL: the router reads x
    int32_t *token_ids;             // (n_copies, n_tokens); NULL: there is no table
    int32_t *ids;                   // (n_copies, n_tokens, top_k)
    float *net_x, *net_targets;     // (n_tokens, d) of a network
};

// Makes all of it and runs it once, whose time is *first_call_ms. The context is borrowed until
// the work is destroyed, which it always has to be.
// VKMOE_E_MEMORY, VKMOE_E_DEVICE_MEMORY: no room for it.  VKMOE_E_UNSUPPORTED: not computed there.
enum vkmoe_status bench_work_create(const struct bench_case *what, vkmoe_context *context,
                                    const vkmoe_device_info *device, struct bench_work *out,
                                    double *first_call_ms);
void bench_work_destroy(struct bench_work *work);

// ---- parts of it -------------------------------------------------------------------------------

// Bytes of a row of so many values: whole blocks.
size_t bench_row_size(enum vkmoe_dtype type, uint32_t width);

// Fills in experts and router of a material whose n_tensors, noise and wanted experts of n_rows are
// set.
enum vkmoe_status bench_weights_make(const struct bench_case *what, size_t n_rows,
                                     struct bench_material *out);
void bench_weights_finish(struct bench_material *material);

// The draw of a copy: routing.h.
struct bench_draw;
struct bench_draw bench_case_draw(const struct bench_case *what, uint32_t copy);

// work_net.c: the network of a case, with parameters of 0, on any context.
enum vkmoe_status bench_net_create(const struct bench_case *what, vkmoe_context *context,
                                   vkmoe_net **out);
// The work's, with parameters and batch; the noise is made. material->ids is then its routing.
enum vkmoe_status bench_net_make(struct bench_work *work, double *first_call_ms);

#endif
