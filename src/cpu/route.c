// SPDX-License-Identifier: MIT
#include "cpu/route.h"

#include "cpu/act.h"

#include <assert.h>
#include <math.h>
#include <string.h>

// A NaN among the logits makes the sum, hence every score, a NaN.
static void softmax(const float *logits, uint32_t n, float *scores)
{
    float max = -INFINITY, sum = 0.0f;
    for (uint32_t i = 0; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    for (uint32_t i = 0; i < n; i++) {
        scores[i] = expf(logits[i] - max);
        sum += scores[i];
    }
    for (uint32_t i = 0; i < n; i++)
        scores[i] /= sum;
}

static void score(enum vkmoe_score rule, const float *logits, uint32_t n, float *scores)
{
    switch (rule) {
    case VKMOE_SCORE_SOFTMAX:
        softmax(logits, n, scores);
        return;
    case VKMOE_SCORE_SIGMOID:
        for (uint32_t i = 0; i < n; i++)
            scores[i] = moe_cpu_sigmoid(logits[i]);
        return;
    case VKMOE_SCORE_SQRT_SOFTPLUS:
    case VKMOE_SCORE_RELU:
    case VKMOE_SCORE_NONE:
        break;
    }
    assert(!"a score rule that core/layer.c refuses");
}

// A number that sorts ascending as selection wants: the larger value first, NaN last, then the
// lower index. As an unsigned number the bits of a float grow with its magnitude: that is what
// falls with the value below zero, and what has to be turned round above.
static uint64_t sort_key(float value, uint32_t index)
{
    uint32_t bits;
    float no_minus_zero = value + 0.0f;
    memcpy(&bits, &no_minus_zero, sizeof bits);
    uint32_t falling = bits >> 31 ? bits : ~bits & 0x7fffffffu;
    if (isnan(value))
        falling = UINT32_MAX;
    return (uint64_t) falling << 32 | index;
}

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

// The k smallest keys, ascending: a heap of the k best so far whose root is the worst of them.
static void select_top(const float *ranking, uint32_t n, uint32_t k, int32_t *ids)
{
    uint64_t heap[MOE_MAX_EXPERTS];
    for (uint32_t i = 0; i < k; i++)
        heap[i] = sort_key(ranking[i], i);
    for (uint32_t root = k / 2; root-- > 0;)
        sift_down(heap, k, root);
    for (uint32_t i = k; i < n; i++) {
        uint64_t key = sort_key(ranking[i], i);
        if (key < heap[0]) {
            heap[0] = key;
            sift_down(heap, k, 0);
        }
    }
    for (uint32_t left = k; left > 0; left--) {
        ids[left - 1] = (int32_t) (uint32_t) heap[0];
        heap[0] = heap[left - 1];
        sift_down(heap, left - 1, 0);
    }
}

static void normalise(const vkmoe_layer_desc *layer, float *gates)
{
    float sum = 0.0f, divisor = 1.0f;
    for (uint32_t k = 0; k < layer->top_k; k++)
        sum += gates[k];
    switch (layer->norm) {
    case VKMOE_NORM_NONE:
        break;
    case VKMOE_NORM_SUM_PLUS_EPS:
        divisor = sum + layer->norm_eps;
        break;
    case VKMOE_NORM_MAX_SUM_EPS:
        divisor = sum < layer->norm_eps ? layer->norm_eps : sum;
        break;
    }
    for (uint32_t k = 0; k < layer->top_k; k++)
        gates[k] = gates[k] / divisor * layer->routed_scale;
}

void moe_cpu_route(const vkmoe_layer_desc *layer, const float *logits,
                   const float *selection_bias, int32_t *ids, float *gates, float *ranking)
{
    const uint32_t n = layer->n_experts, top_k = layer->top_k;
    float scores[MOE_MAX_EXPERTS];
    assert(n <= MOE_MAX_EXPERTS && top_k >= 1 && top_k <= n);
    const bool by_score = layer->gate_source == VKMOE_GATE_SCORE;
    const bool rank_logit = layer->rank == VKMOE_RANK_LOGIT;
    if (by_score || !rank_logit)
        score(layer->score, logits, n, scores);

    const float *base = rank_logit ? logits : scores;
    for (uint32_t i = 0; i < n; i++)
        ranking[i] = base[i] + selection_bias[i];
    select_top(ranking, n, top_k, ids);

    for (uint32_t k = 0; k < top_k; k++)
        gates[k] = by_score ? scores[ids[k]] : logits[ids[k]];
    if (!by_score)
        softmax(gates, top_k, gates);
    normalise(layer, gates);
}
