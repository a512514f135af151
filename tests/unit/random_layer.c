// SPDX-License-Identifier: MIT
#include "check.h"
#include "fixture.h"

#include "core/layer.h"

#include <stdlib.h>

// Numbers below n from a state that each call moves on.
static uint32_t below(uint32_t *state, uint32_t n)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) % n;
}

// True once in n times.
static bool rarely(uint32_t *state, uint32_t n)
{
    return below(state, n) == 0;
}

static float pick(uint32_t *state, const float *values, uint32_t n)
{
    return values[below(state, n)];
}
#define PICK(state, ...)                                                                           \
    pick(state, (const float[]){__VA_ARGS__}, sizeof((const float[]){__VA_ARGS__}) / sizeof(float))

static void pick_sizes(uint32_t *s, vkmoe_layer_desc *l)
{
    static const uint32_t n_experts[] = {1, 2, 3, 6, 8, 12, 17, 32, 60};
    l->n_experts = n_experts[below(s, 9)];
    l->n_zero = rarely(s, 5) ? 1 + below(s, 5) : 0;
    l->top_k = 1 + below(s, l->n_experts < 9 ? l->n_experts : 9);
    l->d_model = 1 + below(s, 24);
    l->d_ff = 1 + below(s, 24);
    l->d_out = rarely(s, 2) ? 0 : 1 + below(s, 24);
    l->d_shared_ff = rarely(s, 2) ? 1 + below(s, 16) : 0;
    l->d_latent = rarely(s, 4) ? 1 + below(s, 20) : 0;
    if (rarely(s, 5)) {
        l->adjugate_group = 1 + below(s, 4);
        l->d_adjugate = 1 + below(s, 9);
        l->adjugate_scale = PICK(s, 1, 0.05f, -0.5f);
    }
}

// A norm of weights that may cancel is a norm of their absolute values.
static void pick_router(uint32_t *s, vkmoe_layer_desc *l)
{
    l->router_input = rarely(s, 5);
    l->router_prenorm = rarely(s, 5);
    l->prenorm_const = PICK(s, 1, 0.5f);
    l->prenorm_eps = PICK(s, 0, 1e-5f, 0.1f);
    l->router_bias = rarely(s, 3);
    l->selection_bias = rarely(s, 3);
    l->logit_softcap = PICK(s, 0, 0, 2, 30); // smaller ones make ties in f32
    l->score = (enum vkmoe_score) below(s, 5);
    l->rank = (enum vkmoe_rank) below(s, 3);
    l->select = rarely(s, 2) ? VKMOE_SELECT_TOP_K : (enum vkmoe_select) below(s, 5);
    l->n_token_ids = l->select == VKMOE_SELECT_TABLE ? 1 + below(s, 7) : 0;
    l->select_p = PICK(s, 0.07f, 0.31f, 0.77f);
    l->sparsemixer_eps = PICK(s, 0.01f, 0.2f);
    l->n_group = rarely(s, 3) ? 1 + below(s, 6) : 0;
    l->topk_group = 1 + below(s, 4);
    l->group_score = (enum vkmoe_group_score) below(s, 3);
    l->group_fill_zero = rarely(s, 3);
    l->gate_source = (enum vkmoe_gate_source) below(s, 2);
    l->norm = (enum vkmoe_norm) below(s, 3);
    l->norm_p = l->score == VKMOE_SCORE_NONE ? 2 : PICK(s, 1, 1, 2, 3);
    l->norm_eps = PICK(s, 1e-3f, 0.5f);
    l->routed_scale = PICK(s, 1, 2.5f);
    l->expert_scale = rarely(s, 4);
}

static void pick_experts(uint32_t *s, vkmoe_layer_desc *l, uint32_t n_types)
{
    l->in_type = (enum vkmoe_dtype) below(s, n_types);
    l->out_type = (enum vkmoe_dtype) below(s, n_types);
    l->latent_type = (enum vkmoe_dtype) below(s, n_types);
    l->own_shared_types = rarely(s, 3);
    l->shared_in_type = (enum vkmoe_dtype) below(s, n_types);
    l->shared_out_type = (enum vkmoe_dtype) below(s, n_types);
    l->gated = !rarely(s, 3);
    l->act = (enum vkmoe_act) below(s, 9);
    l->act_out = rarely(s, 3) ? (enum vkmoe_act) below(s, 8) : VKMOE_ACT_NONE;
    l->act_alpha = PICK(s, 1, 1.702f);
    l->up_add = PICK(s, 0, 0, 1);
    l->clamp = (enum vkmoe_clamp) below(s, 3);
    l->limit = PICK(s, 0.25f, 1);
    l->limit_shared = PICK(s, 0.125f, 2);
    l->situ_beta = PICK(s, 4, 0.5f);
    l->situ_lambda = PICK(s, 0, 25, 0.5f);
    l->gate_bias = rarely(s, 3);
    l->up_bias = rarely(s, 3);
    l->down_bias = rarely(s, 3);
    l->weight_on_input = rarely(s, 5);
    l->latent_norm = rarely(s, 2);
    l->latent_norm_eps = PICK(s, 1e-5f, 0.1f);
    l->out_bias = rarely(s, 4);
}

static void pick_sums(uint32_t *s, vkmoe_layer_desc *l)
{
    l->shared_gate = (enum vkmoe_shared_gate) below(s, 3);
    l->shared_gate_bias = rarely(s, 2);
    l->c_routed = PICK(s, 1, 0.5f);
    l->c_shared = PICK(s, 1, -2);
    l->out_scale = PICK(s, 1, 0.7071f);
    l->capacity_mode = rarely(s, 2) ? VKMOE_CAPACITY_NONE : (enum vkmoe_capacity) below(s, 3);
    l->capacity = rarely(s, 2) ? 1 + below(s, 4) : 0;
    l->capacity_rows = rarely(s, 2) ? 1 + below(s, 9) : 0;
    l->capacity_factor = PICK(s, 0.5f, 1.25f);
    l->capacity_renorm = rarely(s, 2);
}

// Most draws have two fields that do not go together; such a one is dropped.
vkmoe_layer_desc random_layer(uint32_t seed, uint32_t n_types)
{
    uint32_t state = seed * 2654435761u + 1;
    for (;;) {
        vkmoe_layer_desc layer = vkmoe_layer_desc_init();
        pick_sizes(&state, &layer);
        pick_router(&state, &layer);
        pick_experts(&state, &layer, n_types);
        pick_sums(&state, &layer);
        if (vkmoe_layer_check(&layer) == VKMOE_OK)
            return layer;
    }
}
