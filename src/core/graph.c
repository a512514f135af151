// SPDX-License-Identifier: MIT
#include "core/graph.h"

#include <assert.h>

#define BIT(value) (1u << (value))

static void use(struct moe_graph *graph, enum moe_value_id id, const char *name, enum moe_rows rows,
                uint32_t width)
{
    graph->values[id] = (struct moe_value){name, rows, width, true};
}

static void add(struct moe_graph *graph, enum moe_op_kind kind, enum moe_bank bank, uint32_t reads,
                uint32_t writes)
{
    assert(graph->n_ops < MOE_MAX_OPS);
    graph->ops[graph->n_ops++] = (struct moe_op){kind, bank, reads, writes};
}

static void use_values(struct moe_graph *graph, const vkmoe_layer_desc *desc, bool with_scores)
{
    use(graph, MOE_VALUE_X, "x", MOE_ROWS_TOKEN, desc->d_model);
    use(graph, MOE_VALUE_IDS, "ids", MOE_ROWS_SLOT, 1);
    use(graph, MOE_VALUE_GATES, "gates", MOE_ROWS_SLOT, 1);
    if (with_scores)
        use(graph, MOE_VALUE_SCORES, "scores", MOE_ROWS_TOKEN, desc->n_experts);
    use(graph, MOE_VALUE_GROUPING, "grouping", MOE_ROWS_SLOT, 0);
    use(graph, MOE_VALUE_H, "h", MOE_ROWS_SLOT, desc->d_ff);
    use(graph, MOE_VALUE_F, "f", MOE_ROWS_SLOT, desc->d_out);
    if (desc->d_shared_ff > 0) {
        use(graph, MOE_VALUE_H_SHARED, "h_shared", MOE_ROWS_TOKEN, desc->d_shared_ff);
        use(graph, MOE_VALUE_F_SHARED, "f_shared", MOE_ROWS_TOKEN, desc->d_out);
    }
    if (desc->shared_gate == VKMOE_SHARED_SIGMOID)
        use(graph, MOE_VALUE_SHARED_GATE, "shared_gate", MOE_ROWS_TOKEN, 1);
    use(graph, MOE_VALUE_Y, "y", MOE_ROWS_TOKEN, desc->d_out);
}

void moe_graph_forward(struct moe_graph *graph, const struct moe_layer *layer, bool with_scores)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    *graph = (struct moe_graph){.layer = *layer};
    use_values(graph, desc, with_scores);

    uint32_t routed = BIT(MOE_VALUE_IDS) | BIT(MOE_VALUE_GATES);
    uint32_t combined = BIT(MOE_VALUE_F) | BIT(MOE_VALUE_GATES);
    if (with_scores)
        routed |= BIT(MOE_VALUE_SCORES);
    if (moe_graph_uses(graph, MOE_VALUE_SHARED_GATE)) {
        routed |= BIT(MOE_VALUE_SHARED_GATE);
        combined |= BIT(MOE_VALUE_SHARED_GATE);
    }
    add(graph, MOE_OP_ROUTE, MOE_BANK_ROUTED, BIT(MOE_VALUE_X), routed);

    uint32_t slots = BIT(MOE_VALUE_IDS) | BIT(MOE_VALUE_GROUPING);
    add(graph, MOE_OP_GROUP, MOE_BANK_ROUTED, BIT(MOE_VALUE_IDS), BIT(MOE_VALUE_GROUPING));
    add(graph, MOE_OP_EXPERT_IN, MOE_BANK_ROUTED, BIT(MOE_VALUE_X) | slots, BIT(MOE_VALUE_H));
    add(graph, MOE_OP_EXPERT_OUT, MOE_BANK_ROUTED, BIT(MOE_VALUE_H) | slots, BIT(MOE_VALUE_F));
    if (moe_layer_has_shared(layer)) {
        add(graph, MOE_OP_EXPERT_IN, MOE_BANK_SHARED, BIT(MOE_VALUE_X), BIT(MOE_VALUE_H_SHARED));
        add(graph, MOE_OP_EXPERT_OUT, MOE_BANK_SHARED, BIT(MOE_VALUE_H_SHARED),
            BIT(MOE_VALUE_F_SHARED));
        combined |= BIT(MOE_VALUE_F_SHARED);
    }
    add(graph, MOE_OP_COMBINE, MOE_BANK_ROUTED, combined, BIT(MOE_VALUE_Y));
}

const char *moe_op_name(enum moe_op_kind kind)
{
    switch (kind) {
    case MOE_OP_ROUTE:
        return "route";
    case MOE_OP_GROUP:
        return "group";
    case MOE_OP_EXPERT_IN:
        return "expert_in";
    case MOE_OP_EXPERT_OUT:
        return "expert_out";
    case MOE_OP_COMBINE:
        return "combine";
    }
    return "unknown";
}
