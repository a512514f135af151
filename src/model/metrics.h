// SPDX-License-Identifier: MIT
#ifndef MOE_MODEL_METRICS_H
#define MOE_MODEL_METRICS_H

#include <vkmoe/model.h>

// Metrics of outputs that `info` describes, without a model. n_experts 0: no slots are counted.
// The host is borrowed.
enum vkmoe_status moe_metrics_create(const vkmoe_host *host, const vkmoe_model_info *info,
                                     uint32_t n_experts, uint32_t top_k, vkmoe_metrics **out);

#endif
