// SPDX-License-Identifier: MIT
// The oracle of the operations on rows in the order of experts.
#ifndef MOE_CORE_REF_ROWS_H
#define MOE_CORE_REF_ROWS_H

#include "core/ref.h"

// The ops of core/graph.h of these names.
void moe_ref_gather(struct moe_ref_run *run, const struct moe_graph *graph, uint32_t n_tokens);
void moe_ref_place(struct moe_ref_run *run, const struct moe_graph *graph, uint32_t n_tokens);
void moe_ref_combine_rows(struct moe_ref_run *run, const struct moe_graph *graph,
                          uint32_t n_tokens);

#endif
