// SPDX-License-Identifier: MIT
#include "routing.h"

#include "rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { // streams of random numbers
    STREAM_EXPERTS = 0x62656e63,
    STREAM_ORDER,
    STREAM_NOISE,
    STREAM_ROWS,
};

bool bench_routing_parse(const char *text, struct bench_routing *out)
{
    *out = (struct bench_routing){.kind = BENCH_UNIFORM};
    if (strcmp(text, "uniform") == 0)
        return true;
    if (strcmp(text, "single") == 0) {
        out->kind = BENCH_SINGLE;
        return true;
    }
    if (strncmp(text, "trace:", 6) == 0 && text[6] != '\0') {
        out->kind = BENCH_TRACE;
        out->path = text + 6;
        return true;
    }
    if (strncmp(text, "zipf:", 5) != 0 || text[5] < '0' || text[5] > '9')
        return false;
    char *end;
    out->kind = BENCH_ZIPF;
    out->a = strtod(text + 5, &end);
    return *end == '\0' && out->a >= 0 && out->a <= 8;
}

void bench_routing_text(const struct bench_routing *routing, char *out, size_t size)
{
    const char *name;
    switch (routing->kind) {
    case BENCH_UNIFORM:
        snprintf(out, size, "uniform");
        return;
    case BENCH_ZIPF:
        snprintf(out, size, "zipf:%g", routing->a);
        return;
    case BENCH_SINGLE:
        snprintf(out, size, "single");
        return;
    case BENCH_TRACE:
        name = strrchr(routing->path, '/');
        snprintf(out, size, "trace:%s", name ? name + 1 : routing->path);
        return;
    }
}

// ---- drawing -----------------------------------------------------------------------------------

// A whole number below n, which is far below 2^64.
static uint64_t draw_below(const struct bench_draw *draw, uint32_t stream, uint32_t i, uint32_t j,
                           uint64_t n)
{
    struct rng_block block = rng_philox((struct rng_block){{i, j, draw->copy, stream}}, draw->seed);
    uint64_t bits = (uint64_t) block.v[0] << 32 | block.v[1];
    return bits % n;
}

// The experts in an order of this copy's own.
static void shuffle(const struct bench_draw *draw, uint32_t *order)
{
    for (uint32_t i = 0; i < draw->n_experts; i++) {
        uint32_t at = (uint32_t) draw_below(draw, STREAM_ORDER, i, 0, i + 1);
        order[i] = order[at];
        order[at] = i;
    }
}

// With as many groups open as a token may have, the experts of all others are taken. Returns the
// weights that are left.
static uint64_t close_groups(const struct bench_draw *draw, const uint64_t *weights,
                             const int32_t *ids, uint32_t n_ids, bool *taken)
{
    const uint32_t per_group = draw->n_experts / draw->n_group;
    uint64_t total = 0;
    uint32_t n_open = 0;
    for (uint32_t g = 0; g < draw->n_group; g++) {
        bool open = false;
        for (uint32_t k = 0; k < n_ids; k++)
            open |= (uint32_t) ids[k] / per_group == g;
        n_open += open;
    }
    for (uint32_t e = 0; e < draw->n_experts; e++) {
        bool open = n_open < draw->topk_group;
        for (uint32_t k = 0; k < n_ids; k++)
            open |= (uint32_t) ids[k] / per_group == e / per_group;
        taken[e] |= !open;
        total += taken[e] ? 0 : weights[e];
    }
    return total;
}

// One token's experts, each drawn by its weight among those that are left. The weights are whole
// numbers, so that every machine draws the same.
static void draw_token(const struct bench_draw *draw, const uint64_t *weights, uint32_t token,
                       bool *taken, int32_t *ids)
{
    uint64_t total = 0;
    for (uint32_t e = 0; e < draw->n_experts; e++)
        total += weights[e];
    memset(taken, 0, draw->n_experts * sizeof *taken);
    for (uint32_t k = 0; k < draw->top_k; k++) {
        uint64_t at = draw_below(draw, STREAM_EXPERTS, token, k, total);
        uint32_t e = 0;
        while (taken[e] || at >= weights[e]) {
            at -= taken[e] ? 0 : weights[e];
            e++;
        }
        taken[e] = true;
        total -= weights[e];
        ids[k] = (int32_t) e;
        if (draw->n_group > 0)
            total = close_groups(draw, weights, ids, k + 1, taken);
    }
}

static void copy_trace(const struct bench_trace *trace, const struct bench_draw *draw, int32_t *ids)
{
    uint64_t first = (uint64_t) draw->copy * draw->n_tokens;
    for (uint32_t t = 0; t < draw->n_tokens; t++) {
        const int32_t *row = trace->ids + (first + t) % trace->n_rows * draw->top_k;
        memcpy(ids + (size_t) t * draw->top_k, row, draw->top_k * sizeof *ids);
    }
}

enum vkmoe_status bench_routing_choose(const struct bench_routing *routing,
                                       const struct bench_trace *trace,
                                       const struct bench_draw *draw, int32_t *ids)
{
    enum vkmoe_status status;
    uint64_t *weights = NULL;
    uint32_t *order = NULL;
    bool *taken = NULL;
    const size_t width = draw->top_k;
    if (routing->kind == BENCH_TRACE) {
        copy_trace(trace, draw, ids);
        return VKMOE_OK;
    }
    CLI_TRY(cli_alloc(draw->n_experts, 1, sizeof *weights, &weights));
    CLI_TRY(cli_alloc(draw->n_experts, 1, sizeof *order, &order));
    CLI_TRY(cli_alloc(draw->n_experts, 1, sizeof *taken, &taken));
    shuffle(draw, order);
    double a = routing->kind == BENCH_ZIPF ? routing->a : 0;
    for (uint32_t i = 0; i < draw->n_experts; i++)
        weights[order[i]] = 1 + (uint64_t) (0x1p40 / pow(1.0 + i, a));
    for (uint32_t t = 0; t < draw->n_tokens; t++) {
        if (t > 0 && routing->kind == BENCH_SINGLE)
            memcpy(ids + t * width, ids, width * sizeof *ids);
        else
            draw_token(draw, weights, t, taken, ids + t * width);
    }

fail:
    free(weights);
    free(order);
    free(taken);
    return status;
}

enum vkmoe_status bench_routing_count(const int32_t *ids, struct bench_row *row)
{
    const struct bench_key *key = &row->key;
    free(row->expert_rows);
    enum vkmoe_status status =
        cli_alloc(key->n_experts, 1, sizeof *row->expert_rows, &row->expert_rows);
    if (status != VKMOE_OK)
        return status;
    for (size_t i = 0; i < (size_t) key->n_tokens * key->top_k; i++)
        row->expert_rows[ids[i]]++;
    double mean = (double) key->n_tokens * key->top_k / key->n_experts, sum = 0;
    row->n_experts_hit = row->max_rows = 0;
    row->min_rows = UINT32_MAX;
    for (uint32_t e = 0; e < key->n_experts; e++) {
        uint32_t n = row->expert_rows[e];
        sum += (n - mean) * (n - mean);
        row->n_experts_hit += n > 0;
        row->max_rows = n > row->max_rows ? n : row->max_rows;
        row->min_rows = n > 0 && n < row->min_rows ? n : row->min_rows;
    }
    row->cv_rows = sqrt(sum / key->n_experts) / mean;
    return VKMOE_OK;
}

void bench_routing_repeat(const vkmoe_layer_desc *layer, size_t n_rows, int32_t *ids)
{
    const size_t width = layer->top_k;
    for (size_t i = layer->n_token_ids; layer->n_token_ids > 0 && i < n_rows; i++)
        memcpy(ids + i * width, ids + i % layer->n_token_ids * width, width * sizeof *ids);
}

// Slots that an expert takes of n_tokens.
static double capacity_of(const vkmoe_layer_desc *layer, uint32_t n_tokens)
{
    double share = (double) layer->capacity_factor * layer->top_k * n_tokens / layer->n_experts;
    return layer->capacity > 0 ? layer->capacity : ceil(share);
}

// Tokens that share a capacity.
static enum vkmoe_status block_fits(const vkmoe_layer_desc *layer, uint32_t n_tokens,
                                    const int32_t *ids, uint32_t *counts)
{
    char text[192];
    const double most = capacity_of(layer, n_tokens);
    memset(counts, 0, layer->n_experts * sizeof *counts);
    for (size_t i = 0; i < (size_t) n_tokens * layer->top_k; i++) {
        if (++counts[ids[i]] <= most)
            continue;
        snprintf(text, sizeof text, "layer.capacity_mode: expert %d has more slots of %u tokens "
                 "than its capacity of %.0f, and drops are not measured", (int) ids[i],
                 (unsigned) n_tokens, most);
        vkmoe_error_set(text);
        return VKMOE_E_UNSUPPORTED;
    }
    return VKMOE_OK;
}

enum vkmoe_status bench_routing_fits(const vkmoe_layer_desc *layer, uint32_t n_tokens,
                                     const int32_t *ids)
{
    enum vkmoe_status status;
    uint32_t *counts = NULL;
    const uint32_t rows = layer->capacity_rows ? layer->capacity_rows : n_tokens;
    if (layer->capacity_mode == VKMOE_CAPACITY_NONE)
        return VKMOE_OK;
    CLI_TRY(cli_alloc(layer->n_experts, 1, sizeof *counts, &counts));
    for (uint32_t begin = 0; begin < n_tokens; begin += rows) {
        const uint32_t n = n_tokens - begin < rows ? n_tokens - begin : rows;
        CLI_TRY(block_fits(layer, n, ids + (size_t) begin * layer->top_k, counts));
        if (n < rows)
            break;
    }

fail:
    free(counts);
    return status;
}

// ---- rows and router that do it ----------------------------------------------------------------

#define WANTED 2.5f
#define UNWANTED (-0.5f)
#define LOGIT_NOISE 0.25f
#define ROUTER_NOISE 0.01f // of a logit, when x is of order 1

void bench_layer_refusal(const vkmoe_layer_desc *layer, char *out, size_t size)
{
    // How many experts a token has depends on scores.
    const bool chosen_by_value =
        layer->select == VKMOE_SELECT_TOP_P || layer->select == VKMOE_SELECT_THRESHOLD;
    const bool too_few = layer->n_group > 1 &&
                         layer->top_k > layer->topk_group * (layer->n_experts / layer->n_group);
    const struct {
        const char *name;
        uint32_t value; // 0: as benchmarks have it
    } fields[] = {
        {"d_latent", layer->d_latent},
        {"select", chosen_by_value ? layer->select : 0},
        {"topk_group", too_few ? layer->topk_group : 0},
        {"adjugate_group", layer->adjugate_group},
    };
    out[0] = '\0';
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (fields[i].value == 0)
            continue;
        snprintf(out, size, "layer.%s = %u: no weights and routings are made for that",
                 fields[i].name, (unsigned) fields[i].value);
        return;
    }
    if (layer->n_experts + layer->n_zero > layer->d_model)
        snprintf(out, size, "a routing is only made for layers with no more experts than columns");
}

float *bench_noise(uint64_t seed)
{
    float *noise = malloc(BENCH_N_NOISE * sizeof *noise);
    for (uint32_t i = 0; noise && i < BENCH_N_NOISE; i++)
        noise[i] = rng_normal(seed, STREAM_NOISE, 0, i);
    return noise;
}

void bench_router_fill(const vkmoe_layer_desc *layer, const float *noise, float *weight,
                       float *bias, float *selection_bias)
{
    const uint32_t n = layer->n_experts + layer->n_zero, d = layer->d_model;
    const float scale = ROUTER_NOISE / sqrtf((float) d);
    for (uint32_t e = 0; e < n; e++) {
        for (uint32_t c = 0; c < d; c++)
            weight[(size_t) e * d + c] =
                c == e ? 1 : scale * noise[((uint64_t) e * d + c) % BENCH_N_NOISE];
        if (bias)
            bias[e] = 0.05f * noise[e];
        // A softmax over n experts has scores of the order of 1 / n.
        if (selection_bias)
            selection_bias[e] = 0.1f / (float) n * noise[n + e];
    }
}

void bench_rows_fill(const vkmoe_layer_desc *layer, const float *noise,
                     const struct bench_draw *draw, const int32_t *ids, float *x)
{
    const uint32_t d = layer->d_model, top_k = layer->top_k;
    const uint32_t n_logits = ids ? layer->n_experts + layer->n_zero : 0;
    for (uint32_t t = 0; t < draw->n_tokens; t++) {
        uint64_t first = draw_below(draw, STREAM_ROWS, t, 0, BENCH_N_NOISE);
        float *row = x + (size_t) t * d;
        for (uint32_t c = 0; c < d; c++) {
            float value = noise[(first + c) % BENCH_N_NOISE];
            row[c] = c < n_logits ? UNWANTED + LOGIT_NOISE * value : value;
        }
        for (uint32_t k = 0; ids && k < top_k; k++)
            row[ids[(size_t) t * top_k + k]] += WANTED - UNWANTED;
    }
}
