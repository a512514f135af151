// SPDX-License-Identifier: MIT
// A mixture of fixed experts whose weights are learned online, one row after the other, by Bayes'
// rule: the aggregating forecaster (Littlestone & Warmuth 1994; Vovk 1990) with a fixed share
// (Herbster & Warmuth 1998). The experts' outputs come in as a matrix, so experts can be anything.
// The rules of vkmoe.h hold here too. This part is of the library libvkmoe-model.
//
//     vkmoe_online *online;                          // N experts, C classes
//     vkmoe_online_create(&desc, &online);
//     for each row: vkmoe_online_predict(online, outputs, prior, y);        // then see the label
//                   vkmoe_online_update_weights(online, &row, &losses);
//
// With weights w (sum 1, at first the prior ones) and p_i(y) the probability or the density that
// expert i gives to what is seen, a row does
//
//     loss = -ln sum_i w_i p_i(y)
//     w_i  = w_i^lambda p_i(y) / sum_j w_j^lambda p_j(y)
//     w_i  = (1 - alpha) w_i + alpha / N
//
// in f64 and by logarithms, so that nothing underflows. With lambda = 1 and even prior weights:
//
//   alpha = 0  the summed loss is at most that of the best expert + ln N, after every row
//   alpha > 0  it is at most that of any sequence of experts with k changes in n rows
//              + ln N + k ln(N / alpha) + (n - 1 - k) ln(1 / (1 - alpha + alpha / N))
//
// A row on which every expert with a weight gives 0 has an infinite loss and leaves the weights as
// they were, but for the share.
//
// Two kinds of experts:
//   categorical  outputs (N, C) are probabilities; p_i(y) is the one of the label
//   gaussian     outputs (N, D) are means; p_i(y) = prod_d normal(y_d; mean_id, v_id). The running
//                variance of expert i in dimension d before a row is
//                    v_id = (c v_0 + sum of (y_d - mean_id)^2 over the n rows before) / (c + n)
//                with the prior variance v_0 and its worth in rows, c. It depends on earlier rows
//                only, so that p_i is a density and the bounds above hold.
#ifndef VKMOE_ONLINE_H
#define VKMOE_ONLINE_H

#include <vkmoe/vkmoe.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vkmoe_online vkmoe_online;

enum vkmoe_online_kind {
    VKMOE_ONLINE_CATEGORICAL = 0,
    VKMOE_ONLINE_GAUSSIAN = 1,
};

typedef struct vkmoe_online_desc {
    size_t struct_size;
    const vkmoe_host *host;      // copied; NULL: the library's own
    enum vkmoe_online_kind kind;
    uint32_t n_experts;
    uint32_t n_outputs;          // classes, or dimensions of a mean
    double lambda;               // in [0, 1]: below 1 the past is forgotten; init sets 1
    double alpha;                // in [0, 1]: the share that is dealt out evenly
    double variance;             // v_0, 1e-100 to 1e100; init sets 1
    double variance_rows;        // c, 1e-100 to 1e100; init sets 1
    const double *weights;       // (n_experts) prior, >= 0, of any sum; copied; NULL: even
} vkmoe_online_desc;

static inline vkmoe_online_desc vkmoe_online_desc_init(void)
{
    vkmoe_online_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    desc.lambda = 1;
    desc.variance = 1;
    desc.variance_rows = 1;
    return desc;
}

// VKMOE_E_ARGUMENT names the field. Threads: an object is used by one thread at a time.
VKMOE_API enum vkmoe_status vkmoe_online_create(const vkmoe_online_desc *desc, vkmoe_online **out);
VKMOE_API void vkmoe_online_destroy(vkmoe_online *online);

// The weights for the next row.
//   prior    (n_experts) what the row's input says about the experts, >= 0: the weights become
//            w_i prior_i / sum_j w_j prior_j for this row alone; NULL: nothing
//   weights  (n_experts) out, sum 1
// VKMOE_E_DATA: a number that is not >= 0 and finite, or a prior that leaves no expert.
VKMOE_API enum vkmoe_status vkmoe_online_route(const vkmoe_online *online, const double *prior,
                                               double *weights);

// The mixture's prediction for the next row: sum_i w_i outputs_i with the weights of
// vkmoe_online_route.
//   outputs  (n_experts, n_outputs)
//   y        (n_outputs) out: a mean, or probabilities
// VKMOE_E_DATA names the expert: a value that is not finite, or no probability (>= 0; their sum is
// 1 within 1e-3).
VKMOE_API enum vkmoe_status vkmoe_online_predict(const vkmoe_online *online, const double *outputs,
                                                 const double *prior, double *y);

// A row whose outcome is known.
typedef struct vkmoe_online_row {
    size_t struct_size;
    const double *outputs; // (n_experts, n_outputs)
    const double *prior;   // (n_experts), or NULL: as in vkmoe_online_route
    int32_t label;         // categorical
    const double *target;  // (n_outputs), gaussian
    double *expert_losses; // (n_experts) out: -ln p_i(y); may be NULL
} vkmoe_online_row;

static inline vkmoe_online_row vkmoe_online_row_init(void)
{
    vkmoe_online_row row;
    memset(&row, 0, sizeof row);
    row.struct_size = sizeof row;
    return row;
}

// Learns from a row. An input prior counts in the loss, not in what is learned. After an error
// nothing has changed.
//   loss  out: -ln sum_i w_i p_i(y) with the weights before the row; may be NULL
// VKMOE_E_DATA: as for vkmoe_online_predict, no such class, or a target that is not finite.
VKMOE_API enum vkmoe_status vkmoe_online_update_weights(vkmoe_online *online,
                                                        const vkmoe_online_row *row, double *loss);

// All that was learned, as n numbers for an object with the same desc; it goes on to the same bits.
// The logarithm of a weight of 0 among them is -INFINITY.
VKMOE_API size_t vkmoe_online_state_size(const vkmoe_online *online); // n
VKMOE_API enum vkmoe_status vkmoe_online_save(const vkmoe_online *online, double *state);

// VKMOE_E_DATA: numbers that no object could have saved; nothing has changed.
VKMOE_API enum vkmoe_status vkmoe_online_restore(vkmoe_online *online, const double *state);

#ifdef __cplusplus
}
#endif
#endif
