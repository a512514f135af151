// SPDX-License-Identifier: MIT
// A network in use: the built net, the net on its device, and where they stand.
#ifndef MOE_API_NET_H
#define MOE_API_NET_H

#include "api/api.h"
#include "train/train.h"

enum { MOE_API_MAX_LAYERS = 4096 };

// Whose values are in the arena.
enum moe_api_net_ran {
    MOE_API_RAN_NOTHING,
    MOE_API_RAN_FORWARD,
    MOE_API_RAN_EVAL,
};

struct vkmoe_net {
    vkmoe_context *context;
    struct moe_train *train;
    struct moe_device_net *on_device;
    vkmoe_net_state state;
    bool rounded;            // copies of parameters are those of their values
    bool trains;             // FORWARD and what follows are there
    const float *class_weights; // of the net; NULL: none
    enum vkmoe_loss loss;

    // The last run.
    enum moe_api_net_ran ran;
    uint32_t n_tokens, n_examples;
    bool has_targets;
    double examples;         // by their weights: what the loss is divided by
    uint32_t pass;           // its number, when it was FORWARD
    uint32_t n_backward;     // passes since the last step
};

// Checks a description and fills in all of it. Arrays of `out` are its own, also on failure.
enum vkmoe_status moe_api_net_spec(const vkmoe_host *host, const vkmoe_net_desc *desc,
                                   struct moe_train_spec *out);
void moe_api_net_spec_finish(const vkmoe_host *host, struct moe_train_spec *spec);

// Checks a batch and writes it to the device; sizes and targets of `net` become the batch's.
enum vkmoe_status moe_api_net_batch(vkmoe_net *net, const vkmoe_net_batch *batch);

// Writes first values and clears the optimiser; `all` false: only values that are not 0 in a net
// that was never filled.
enum vkmoe_status moe_api_net_fill(vkmoe_net *net, uint64_t seed, bool all);

// Where the times of a run go, as for net_time in backend.h; without it in the back end, seconds
// alone is wanted.
struct moe_api_net_clock {
    double *seconds;
    vkmoe_dispatch_time *times;
    uint32_t *n;
};

// The passes, with a clock or NULL; arguments are checked but for NULL.
enum vkmoe_status moe_api_net_forward(vkmoe_net *net, const vkmoe_net_batch *batch,
                                      const struct moe_api_net_clock *clock);
enum vkmoe_status moe_api_net_backward(vkmoe_net *net, uint32_t n_micro, double *loss,
                                       const struct moe_api_net_clock *clock);
enum vkmoe_status moe_api_net_train(vkmoe_net *net, const vkmoe_net_batch *batch, float rate,
                                    double *loss, const struct moe_api_net_clock *clock);

// Dispatches of a pass, which is checked but not made. The back end has net_time.
enum vkmoe_status moe_api_net_count(vkmoe_net *net, const vkmoe_net_batch *batch,
                                    enum vkmoe_net_pass pass, float rate, uint32_t *n);

// VKMOE_E_DATA with the name of the first tensor that is not finite.
enum vkmoe_status moe_api_net_not_finite(vkmoe_net *net);

#endif
