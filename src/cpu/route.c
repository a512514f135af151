// SPDX-License-Identifier: MIT
#include "cpu/route.h"

#include "cpu/act.h"

#include <assert.h>
#include <math.h>
#include <string.h>

// ln(1 + e^l) without overflow, and not 0 far below 0.
static float softplus(float l)
{
    return (l < 0.0f ? 0.0f : l) + log1pf(expf(-fabsf(l)));
}

static void score(const struct cpu_arrays *arrays, enum vkmoe_score rule, const float *logits,
                  uint32_t n, float *scores)
{
    switch (rule) {
    case VKMOE_SCORE_SOFTMAX:
        arrays->softmax(logits, scores, n);
        return;
    case VKMOE_SCORE_SIGMOID:
        arrays->act(VKMOE_ACT_SIGMOID, 1, logits, scores, n);
        return;
    case VKMOE_SCORE_SQRT_SOFTPLUS:
        for (uint32_t i = 0; i < n; i++)
            scores[i] = sqrtf(softplus(logits[i]));
        return;
    case VKMOE_SCORE_RELU:
        for (uint32_t i = 0; i < n; i++)
            scores[i] = logits[i] < 0.0f ? 0.0f : logits[i];
        return;
    case VKMOE_SCORE_NONE:
        memcpy(scores, logits, n * sizeof *scores);
        return;
    }
    assert(!"not a score rule");
}

static void rank(const struct cpu_arrays *arrays, enum vkmoe_rank rule, const float *logits,
                 const float *scores, uint32_t n, float *ranking)
{
    switch (rule) {
    case VKMOE_RANK_SCORE:
        memcpy(ranking, scores, n * sizeof *ranking);
        return;
    case VKMOE_RANK_LOGIT:
        memcpy(ranking, logits, n * sizeof *ranking);
        return;
    case VKMOE_RANK_SIGMOID:
        arrays->act(VKMOE_ACT_SIGMOID, 1, logits, ranking, n);
        return;
    }
    assert(!"not a rank");
}

// ---- the best of many --------------------------------------------------------------------------

// As an unsigned number the bits of a float grow with its magnitude: that is what falls with the
// value below zero, and what has to be turned round above.
uint64_t moe_cpu_sort_key(float value, uint32_t index)
{
    uint32_t bits;
    float no_minus_zero = value + 0.0f;
    memcpy(&bits, &no_minus_zero, sizeof bits);
    uint32_t falling = bits >> 31 ? bits : ~bits & 0x7fffffffu;
    if (isnan(value))
        falling = UINT32_MAX;
    return (uint64_t) falling << 32 | index;
}

enum { MANY = 17 }; // to keep in order one by one

// Restores the heap (every parent at least its children) below a changed root.
static void sift_down(uint64_t *heap, uint32_t n, uint32_t root)
{
    for (;;) {
        uint32_t child = 2 * root + 1;
        if (child >= n)
            return;
        if (child + 1 < n && heap[child + 1] > heap[child])
            child++;
        if (heap[root] >= heap[child])
            return;
        uint64_t key = heap[root];
        heap[root] = heap[child];
        heap[child] = key;
        root = child;
    }
}

// A heap of the best so far whose root is the worst of them.
void moe_cpu_keep_smallest(uint64_t *keys, uint32_t n, uint32_t n_best)
{
    for (uint32_t root = n_best / 2; root-- > 0;)
        sift_down(keys, n_best, root);
    for (uint32_t i = n_best; i < n; i++) {
        uint64_t key = keys[i];
        if (key < keys[0]) {
            keys[i] = keys[0];
            keys[0] = key;
            sift_down(keys, n_best, 0);
        }
    }
}

// The k first of n in the order of selection, for few k: those so far are kept in order.
static void select_few(const float *ranking, uint32_t n, uint32_t k, int32_t *ids)
{
    uint64_t best[MANY];
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t key = moe_cpu_sort_key(ranking[i], i);
        if (i >= k && key >= best[k - 1])
            continue;
        uint32_t place = i < k ? i : k - 1;
        for (; place > 0 && best[place - 1] > key; place--)
            best[place] = best[place - 1];
        best[place] = key;
    }
    for (uint32_t i = 0; i < k; i++)
        ids[i] = (int32_t) (uint32_t) best[i];
}

static void select_top(const float *ranking, uint32_t n, uint32_t k, int32_t *ids)
{
    uint64_t keys[MOE_MAX_EXPERTS];
    if (k < MANY) {
        select_few(ranking, n, k, ids);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        keys[i] = moe_cpu_sort_key(ranking[i], i);
    moe_cpu_keep_smallest(keys, n, k);
    for (uint32_t left = k; left > 0; left--) {
        ids[left - 1] = (int32_t) (uint32_t) keys[0];
        keys[0] = keys[left - 1];
        sift_down(keys, left - 1, 0);
    }
}

// ---- groups ------------------------------------------------------------------------------------

static uint32_t n_counted(const vkmoe_layer_desc *layer)
{
    switch (layer->group_score) {
    case VKMOE_GROUP_MAX:
        return 1;
    case VKMOE_GROUP_TOP2_SUM:
        return 2;
    case VKMOE_GROUP_TOP_SHARE_SUM:
        break;
    }
    return layer->top_k / layer->topk_group;
}

static float sum_of_top(const float *ranking, uint32_t n, uint32_t count)
{
    int32_t best[MOE_MAX_EXPERTS];
    float sum = 0.0f;
    select_top(ranking, n, count, best);
    for (uint32_t i = 0; i < count; i++)
        sum += ranking[best[i]];
    return sum;
}

// What is outside the best groups ranks as -infinity, or as 0.
static void mask_groups(const vkmoe_layer_desc *layer, float *ranking)
{
    const uint32_t n_group = layer->n_group, per_group = layer->n_experts / n_group;
    const uint32_t count = n_counted(layer);
    float of_group[MOE_MAX_EXPERTS];
    int32_t best[MOE_MAX_EXPERTS];
    bool is_best[MOE_MAX_EXPERTS] = {false};
    for (uint32_t g = 0; g < n_group; g++)
        of_group[g] = sum_of_top(ranking + (size_t) g * per_group, per_group, count);
    select_top(of_group, n_group, layer->topk_group, best);
    for (uint32_t i = 0; i < layer->topk_group; i++)
        is_best[best[i]] = true;
    for (uint32_t e = 0; e < layer->n_experts; e++)
        if (!is_best[e / per_group])
            ranking[e] = layer->group_fill_zero ? 0.0f : -INFINITY;
}

// ---- selection ---------------------------------------------------------------------------------

// How many of the top_k slots are used, 1 at least.
static uint32_t count_used(const vkmoe_layer_desc *layer, const float *scores, const float *ranking,
                           const int32_t *ids)
{
    uint32_t k = 1;
    float sum = 0.0f;
    if (layer->select == VKMOE_SELECT_THRESHOLD) {
        while (k < layer->top_k && ranking[ids[k]] >= layer->select_p)
            k++;
        return k;
    }
    if (layer->select != VKMOE_SELECT_TOP_P)
        return layer->top_k;
    for (k = 0; k < layer->top_k; k++) {
        if (k > 0 && sum >= layer->select_p)
            break;
        sum += scores[ids[k]];
    }
    return k;
}

// The gate weights of ids by VKMOE_SELECT_SPARSEMIXER.
static void mix(const vkmoe_layer_desc *layer, const float *logits, const int32_t *ids,
                float *gates)
{
    bool taken[MOE_MAX_EXPERTS] = {false};
    for (uint32_t k = 0; k < layer->top_k; k++) {
        const float most = logits[ids[k]];
        float sum = 0.0f;
        for (uint32_t e = 0; e < layer->n_experts; e++) {
            float distance = (most - logits[e]) / fmaxf(fabsf(logits[e]), most);
            if (!taken[e] && !(distance > 2.0f * layer->sparsemixer_eps))
                sum += expf(logits[e] - most);
        }
        gates[k] = 1.0f / sum;
        taken[ids[k]] = true;
    }
}

void moe_cpu_normalise(const vkmoe_layer_desc *layer, const float *expert_scale, const int32_t *ids,
                       float *gates)
{
    const float p = layer->norm_p, eps = layer->norm_eps;
    float sum = 0.0f, divisor = 1.0f;
    for (uint32_t k = 0; k < layer->top_k; k++) // unused slots have weight 0
        sum += p == 1.0f ? gates[k] : powf(fabsf(gates[k]), p);
    if (p != 1.0f)
        sum = powf(sum, 1.0f / p);
    switch (layer->norm) {
    case VKMOE_NORM_NONE:
        break;
    case VKMOE_NORM_SUM_PLUS_EPS:
        divisor = sum + eps;
        break;
    case VKMOE_NORM_MAX_SUM_EPS:
        divisor = sum < eps ? eps : sum;
        break;
    }
    for (uint32_t k = 0; k < layer->top_k; k++) {
        if (ids[k] >= 0)
            gates[k] = gates[k] / divisor * layer->routed_scale *
                       (expert_scale ? expert_scale[ids[k]] : 1.0f);
    }
}

// Ids and what the norm takes.
static void choose(const vkmoe_layer_desc *layer, const float *logits, const float *scores,
                   const struct cpu_route_rule *rule, const float *ranking, int32_t *ids,
                   float *gates)
{
    const float *source = layer->gate_source == VKMOE_GATE_SCORE ? scores : logits;
    if (layer->select == VKMOE_SELECT_TABLE)
        memcpy(ids, rule->table_row, layer->top_k * sizeof *ids);
    else
        select_top(ranking, moe_layer_n_scored(layer), layer->top_k, ids);
    if (layer->select == VKMOE_SELECT_SPARSEMIXER) {
        mix(layer, logits, ids, gates);
        return;
    }
    const uint32_t n_used = count_used(layer, scores, ranking, ids);
    for (uint32_t k = 0; k < layer->top_k; k++) {
        gates[k] = k < n_used ? source[ids[k]] : 0.0f;
        ids[k] = k < n_used ? ids[k] : -1;
    }
    if (layer->gate_source == VKMOE_GATE_SOFTMAX_SELECTED)
        rule->arrays->softmax(gates, gates, n_used);
}

// Does any rule look at scores?
static bool needs_scores(const vkmoe_layer_desc *layer)
{
    return layer->gate_source == VKMOE_GATE_SCORE || layer->rank == VKMOE_RANK_SCORE ||
           layer->select == VKMOE_SELECT_TOP_P;
}

void moe_cpu_route(const vkmoe_layer_desc *layer, const float *logits,
                   const struct cpu_route_rule *rule, int32_t *ids, float *gates, float *ranking)
{
    const uint32_t n = moe_layer_n_scored(layer);
    const float cap = layer->logit_softcap;
    const bool is_mixed = layer->select == VKMOE_SELECT_SPARSEMIXER;
    float scores[MOE_MAX_EXPERTS], capped[MOE_MAX_EXPERTS];
    assert(n <= MOE_MAX_EXPERTS && layer->top_k >= 1 && layer->top_k <= n);
    if (cap > 0.0f) {
        for (uint32_t e = 0; e < n; e++)
            capped[e] = cap * tanhf(logits[e] / cap);
        logits = capped;
    }
    if (needs_scores(layer) && !is_mixed)
        score(rule->arrays, layer->score, logits, n, scores);
    rank(rule->arrays, is_mixed ? VKMOE_RANK_LOGIT : layer->rank, logits, scores, n, ranking);
    for (uint32_t e = 0; e < n; e++)
        ranking[e] += rule->selection_bias[e];
    if (layer->n_group > 1)
        mask_groups(layer, ranking);
    choose(layer, logits, scores, rule, ranking, ids, gates);
    if (!layer->capacity_renorm)
        moe_cpu_normalise(layer, rule->expert_scale, ids, gates);
}
