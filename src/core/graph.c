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

static void use_x(struct moe_graph *graph, const vkmoe_layer_desc *desc)
{
    use(graph, MOE_VALUE_X, "x", MOE_ROWS_TOKEN, desc->d_model);
}

static void use_ids(struct moe_graph *graph)
{
    use(graph, MOE_VALUE_IDS, "ids", MOE_ROWS_SLOT, 1);
}

static void use_router_values(struct moe_graph *graph, const vkmoe_layer_desc *desc,
                              bool with_scores)
{
    if (desc->router_input)
        use(graph, MOE_VALUE_ROUTER_X, "router_x", MOE_ROWS_TOKEN, desc->d_model);
    if (desc->select == VKMOE_SELECT_TABLE)
        use(graph, MOE_VALUE_TOKEN_IDS, "token_ids", MOE_ROWS_TOKEN, 1);
    use_ids(graph);
    use(graph, MOE_VALUE_GATES, "gates", MOE_ROWS_SLOT, 1);
    if (with_scores)
        use(graph, MOE_VALUE_SCORES, "scores", MOE_ROWS_TOKEN, moe_layer_n_scored(desc));
    if (desc->shared_gate != VKMOE_SHARED_PLAIN)
        use(graph, MOE_VALUE_SHARED_GATE, "shared_gate", MOE_ROWS_TOKEN,
            desc->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1);
}

static void use_expert_values(struct moe_graph *graph, const vkmoe_layer_desc *desc)
{
    const uint32_t d_to = moe_layer_routed_out(desc);
    use(graph, MOE_VALUE_GROUPING, "grouping", MOE_ROWS_SLOT, 0);
    use(graph, MOE_VALUE_H, "h", MOE_ROWS_SLOT, desc->d_ff);
    use(graph, MOE_VALUE_F, "f", MOE_ROWS_SLOT, d_to);
    if (desc->adjugate_group > 0) {
        use(graph, MOE_VALUE_GROUPING_ADJUGATE, "grouping_adjugate", MOE_ROWS_SLOT, 0);
        use(graph, MOE_VALUE_H_ADJUGATE, "h_adjugate", MOE_ROWS_SLOT, desc->d_adjugate);
        use(graph, MOE_VALUE_F_ADJUGATE, "f_adjugate", MOE_ROWS_SLOT, d_to);
    }
    if (desc->d_latent > 0) {
        use(graph, MOE_VALUE_X_LATENT, "x_latent", MOE_ROWS_TOKEN, desc->d_latent);
        use(graph, MOE_VALUE_R_LATENT, "r_latent", MOE_ROWS_TOKEN, desc->d_latent);
    }
    if (desc->d_shared_ff > 0) {
        use(graph, MOE_VALUE_H_SHARED, "h_shared", MOE_ROWS_TOKEN, desc->d_shared_ff);
        use(graph, MOE_VALUE_F_SHARED, "f_shared", MOE_ROWS_TOKEN, desc->d_out);
    }
    use(graph, MOE_VALUE_Y, "y", MOE_ROWS_TOKEN, desc->d_out);
}

// The bit of a value if the layer has it, else none.
static uint32_t if_used(const struct moe_graph *graph, enum moe_value_id id)
{
    return graph->values[id].used ? BIT(id) : 0;
}

struct moe_bank_values moe_graph_bank(const struct moe_graph *graph, enum moe_bank bank)
{
    enum moe_value_id x = graph->values[MOE_VALUE_X_LATENT].used ? MOE_VALUE_X_LATENT
                                                                 : MOE_VALUE_X;
    switch (bank) {
    case MOE_BANK_ROUTED:
        break;
    case MOE_BANK_SHARED:
        return (struct moe_bank_values){MOE_VALUE_X, MOE_VALUE_H_SHARED, MOE_VALUE_F_SHARED,
                                        MOE_N_VALUES};
    case MOE_BANK_ADJUGATE:
        return (struct moe_bank_values){x, MOE_VALUE_H_ADJUGATE, MOE_VALUE_F_ADJUGATE,
                                        MOE_VALUE_GROUPING_ADJUGATE};
    case MOE_N_BANKS:
        assert(!"a bank");
    }
    return (struct moe_bank_values){x, MOE_VALUE_H, MOE_VALUE_F, MOE_VALUE_GROUPING};
}

static void add_route(struct moe_graph *graph, const vkmoe_layer_desc *desc)
{
    uint32_t choice = BIT(MOE_VALUE_IDS) | BIT(MOE_VALUE_GATES);
    uint32_t reads = BIT(desc->router_input ? MOE_VALUE_ROUTER_X : MOE_VALUE_X) |
                     if_used(graph, MOE_VALUE_TOKEN_IDS);
    add(graph, MOE_OP_ROUTE, MOE_BANK_ROUTED, reads,
        choice | if_used(graph, MOE_VALUE_SCORES) | if_used(graph, MOE_VALUE_SHARED_GATE));
    if (desc->capacity_mode != VKMOE_CAPACITY_NONE)
        add(graph, MOE_OP_CAPACITY, MOE_BANK_ROUTED, choice, choice);
}

static void add_experts(struct moe_graph *graph, const vkmoe_layer_desc *desc, enum moe_bank bank)
{
    const struct moe_bank_values v = moe_graph_bank(graph, bank);
    uint32_t slots = 0, gates = 0;
    if (bank != MOE_BANK_SHARED) {
        slots = BIT(MOE_VALUE_IDS) | BIT(v.grouping);
        gates = desc->weight_on_input ? BIT(MOE_VALUE_GATES) : 0;
        add(graph, MOE_OP_GROUP, bank, BIT(MOE_VALUE_IDS), BIT(v.grouping));
    }
    add(graph, MOE_OP_EXPERT_IN, bank, BIT(v.in) | slots | gates, BIT(v.h));
    add(graph, MOE_OP_EXPERT_OUT, bank, BIT(v.h) | slots, BIT(v.f));
}

static uint32_t choice_of(const struct moe_graph *graph)
{
    return BIT(MOE_VALUE_IDS) | BIT(MOE_VALUE_GATES) | if_used(graph, MOE_VALUE_SCORES);
}

// What the routed sum is made of.
static uint32_t summed(const struct moe_graph *graph, const vkmoe_layer_desc *desc)
{
    uint32_t zero = desc->n_zero ? BIT(moe_graph_bank(graph, MOE_BANK_ROUTED).in) : 0;
    return BIT(MOE_VALUE_F) | BIT(MOE_VALUE_IDS) | BIT(MOE_VALUE_GATES) | zero |
           if_used(graph, MOE_VALUE_F_ADJUGATE);
}

void moe_graph_forward(struct moe_graph *graph, const struct moe_layer *layer, bool with_scores)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    *graph = (struct moe_graph){.layer = *layer};
    use_x(graph, desc);
    use_router_values(graph, desc, with_scores);
    use_expert_values(graph, desc);

    add_route(graph, desc);
    if (desc->d_latent > 0)
        add(graph, MOE_OP_LATENT_IN, MOE_BANK_ROUTED, BIT(MOE_VALUE_X), BIT(MOE_VALUE_X_LATENT));
    add_experts(graph, desc, MOE_BANK_ROUTED);
    if (desc->adjugate_group > 0)
        add_experts(graph, desc, MOE_BANK_ADJUGATE);
    if (moe_layer_has_shared(layer))
        add_experts(graph, desc, MOE_BANK_SHARED);

    uint32_t shared = if_used(graph, MOE_VALUE_F_SHARED) | if_used(graph, MOE_VALUE_SHARED_GATE);
    if (desc->d_latent > 0) {
        add(graph, MOE_OP_COMBINE, MOE_BANK_ROUTED, summed(graph, desc), BIT(MOE_VALUE_R_LATENT));
        add(graph, MOE_OP_LATENT_OUT, MOE_BANK_ROUTED, BIT(MOE_VALUE_R_LATENT) | shared,
            BIT(MOE_VALUE_Y));
    } else {
        add(graph, MOE_OP_COMBINE, MOE_BANK_ROUTED, summed(graph, desc) | shared,
            BIT(MOE_VALUE_Y));
    }
    graph->inputs = BIT(MOE_VALUE_X) | if_used(graph, MOE_VALUE_ROUTER_X) |
                    if_used(graph, MOE_VALUE_TOKEN_IDS);
    graph->outputs = BIT(MOE_VALUE_Y) | choice_of(graph);
}

// ---- operations --------------------------------------------------------------------------------

static void build_route(struct moe_graph *graph, bool with_scores)
{
    const vkmoe_layer_desc *desc = &graph->layer.desc;
    use_router_values(graph, desc, with_scores);
    if (!desc->router_input)
        use_x(graph, desc);
    add_route(graph, desc);
    graph->inputs = if_used(graph, MOE_VALUE_X) | if_used(graph, MOE_VALUE_ROUTER_X) |
                    if_used(graph, MOE_VALUE_TOKEN_IDS);
    graph->outputs = choice_of(graph);
}

static void build_gather(struct moe_graph *graph)
{
    const vkmoe_layer_desc *desc = &graph->layer.desc;
    use_x(graph, desc);
    use_ids(graph);
    use(graph, MOE_VALUE_GROUPING, "grouping", MOE_ROWS_SLOT, 0);
    use(graph, MOE_VALUE_ROWS, "rows", MOE_ROWS_SLOT, desc->d_model);
    use(graph, MOE_VALUE_SLOTS, "slots", MOE_ROWS_SLOT, 1);
    use(graph, MOE_VALUE_COUNTS, "counts", MOE_ROWS_ONE, desc->n_experts);
    use(graph, MOE_VALUE_OFFSETS, "offsets", MOE_ROWS_ONE, desc->n_experts + 1);
    graph->inputs = BIT(MOE_VALUE_X) | BIT(MOE_VALUE_IDS);
    graph->outputs = BIT(MOE_VALUE_ROWS) | BIT(MOE_VALUE_SLOTS) | BIT(MOE_VALUE_COUNTS) |
                     BIT(MOE_VALUE_OFFSETS);
    add(graph, MOE_OP_GROUP, MOE_BANK_ROUTED, BIT(MOE_VALUE_IDS), BIT(MOE_VALUE_GROUPING));
    add(graph, MOE_OP_GATHER, MOE_BANK_ROUTED, BIT(MOE_VALUE_X) | BIT(MOE_VALUE_GROUPING),
        graph->outputs);
}

static void build_combine(struct moe_graph *graph)
{
    const vkmoe_layer_desc *desc = &graph->layer.desc;
    if (desc->n_zero > 0) {
        use_x(graph, desc);
        use_ids(graph);
    }
    use(graph, MOE_VALUE_ROWS, "rows", MOE_ROWS_SLOT, desc->d_out);
    use(graph, MOE_VALUE_SLOTS, "slots", MOE_ROWS_SLOT, 1);
    use(graph, MOE_VALUE_GATES, "gates", MOE_ROWS_SLOT, 1);
    use(graph, MOE_VALUE_POSITIONS, "positions", MOE_ROWS_SLOT, 1);
    use(graph, MOE_VALUE_Y, "y", MOE_ROWS_TOKEN, desc->d_out);
    uint32_t summed = BIT(MOE_VALUE_ROWS) | BIT(MOE_VALUE_GATES) | if_used(graph, MOE_VALUE_X) |
                      if_used(graph, MOE_VALUE_IDS);
    graph->inputs = summed | BIT(MOE_VALUE_SLOTS);
    graph->outputs = BIT(MOE_VALUE_Y);
    add(graph, MOE_OP_PLACE, MOE_BANK_ROUTED, BIT(MOE_VALUE_SLOTS), BIT(MOE_VALUE_POSITIONS));
    add(graph, MOE_OP_COMBINE_ROWS, MOE_BANK_ROUTED, summed | BIT(MOE_VALUE_POSITIONS),
        BIT(MOE_VALUE_Y));
}

void moe_graph_operation(struct moe_graph *graph, const struct moe_layer *layer,
                         enum vkmoe_operation operation, bool with_scores)
{
    *graph = (struct moe_graph){.layer = *layer, .operation = operation};
    switch (operation) {
    case VKMOE_OPERATION_LAYER:
        moe_graph_forward(graph, layer, with_scores);
        break;
    case VKMOE_OPERATION_ROUTE:
        build_route(graph, with_scores);
        break;
    case VKMOE_OPERATION_GATHER:
        build_gather(graph);
        break;
    case VKMOE_OPERATION_COMBINE:
        build_combine(graph);
        break;
    }
}

const char *moe_op_name(enum moe_op_kind kind)
{
    switch (kind) {
    case MOE_OP_ROUTE:
        return "route";
    case MOE_OP_CAPACITY:
        return "capacity";
    case MOE_OP_GROUP:
        return "group";
    case MOE_OP_LATENT_IN:
        return "latent_in";
    case MOE_OP_EXPERT_IN:
        return "expert_in";
    case MOE_OP_EXPERT_OUT:
        return "expert_out";
    case MOE_OP_COMBINE:
        return "combine";
    case MOE_OP_LATENT_OUT:
        return "latent_out";
    case MOE_OP_GATHER:
        return "gather";
    case MOE_OP_PLACE:
        return "place";
    case MOE_OP_COMBINE_ROWS:
        return "combine_rows";
    }
    return "unknown";
}
