// SPDX-License-Identifier: MIT
// What a layer may cost, by what its kernels count of themselves: dispatches, weights that are read
// more than once, workgroups without work, columns that are multiplied for no slot. The bounds know
// the routing of the run and no tile.
#include "check.h"
#include "fixture.h"

#include <stdlib.h>

#include <vkmoe/bench.h>

enum { MAX_TOKENS = 512, MAX_EXPERTS = 128, MAX_TOP_K = 8 };

enum routing { UNIFORM, ZIPF };

struct shape {
    const char *name;
    uint32_t n_experts, top_k, d_model, d_ff, d_shared_ff;
    enum routing routing;
    uint32_t max_tokens; // of the plan, whose runs have fewer too
};

static const struct shape shapes[] = {
    {"128 experts", 128, 8, 64, 32, 0, UNIFORM, MAX_TOKENS},
    {"128 experts of a large plan", 128, 8, 64, 32, 0, UNIFORM, 1536},
    {"128 experts of a larger plan", 128, 8, 64, 32, 0, UNIFORM, 4096},
    {"128 experts, Zipf", 128, 8, 64, 32, 0, ZIPF, MAX_TOKENS},
    {"granite", 32, 8, 128, 64, 0, UNIFORM, MAX_TOKENS},
    {"granite, Zipf", 32, 8, 128, 64, 0, ZIPF, MAX_TOKENS},
    {"a shared expert", 16, 2, 64, 32, 32, UNIFORM, MAX_TOKENS},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static const uint32_t token_counts[] = {1, 2, 4, 5, 8, 9, 16, 33, 64, 200, MAX_TOKENS};
enum { N_COUNTS = sizeof token_counts / sizeof *token_counts, DECODE_TOKENS = 4 };

// ---- what is needed ----------------------------------------------------------------------------

// Of one run, from the ids of its slots.
struct need {
    const struct shape *shape;
    uint32_t n_tokens, n_active, most_rows;
    uint64_t tiles;       // of so many rows at most, none of two experts
    uint32_t tile_rows;
    uint64_t expert_size; // bytes of an expert's two matrices and biases, as they are read once
    uint64_t weights, weights_once; // what tiles read; the same with one tile for each expert
    uint64_t workgroups;
};

static uint64_t div_up(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

// Bytes of rows of bf16 in whole panels of 16, with biases as many times as they are read.
static uint64_t matrix_size(uint32_t d_in, uint32_t n_rows, uint32_t biases)
{
    return div_up(n_rows, 16) * 16 * 16 * (div_up(d_in, 8) + biases);
}

static uint64_t expert_size(const struct shape *s, uint32_t biases)
{
    return matrix_size(s->d_model, 2 * s->d_ff, biases) +
           matrix_size(s->d_ff, s->d_model, biases);
}

// Workgroups of 64 rows of weights.
static uint64_t row_blocks(uint32_t n_rows)
{
    return div_up(div_up(n_rows, 16) * 16, 64);
}

static struct need need_of(const struct shape *s, uint32_t n_tokens, const int32_t *ids)
{
    struct need need = {.shape = s, .n_tokens = n_tokens, .tile_rows = 32};
    // Large experts have larger tiles: those of half as many rows again at the plan's most tokens.
    while (need.tile_rows < 128 && s->max_tokens * s->top_k >= 3 * need.tile_rows * s->n_experts)
        need.tile_rows *= 2;
    uint32_t rows[MAX_EXPERTS] = {0};
    for (uint32_t slot = 0; slot < n_tokens * s->top_k; slot++)
        rows[ids[slot]]++;
    for (uint32_t e = 0; e < s->n_experts; e++) {
        // Up to 16 rows are those of a matvec; in larger tiles 8 invocations read a bias.
        uint64_t size = expert_size(s, rows[e] <= 16 ? 1 : 8);
        need.n_active += rows[e] > 0;
        need.tiles += div_up(rows[e], need.tile_rows);
        need.most_rows = rows[e] > need.most_rows ? rows[e] : need.most_rows;
        need.weights += div_up(rows[e], need.tile_rows) * size;
        need.weights_once += rows[e] > 0 ? size : 0;
    }
    need.expert_size = expert_size(s, 1);
    uint64_t shared_tiles = s->d_shared_ff ? div_up(n_tokens, need.tile_rows) : 0;
    need.workgroups = (need.tiles + shared_tiles) *
                      (row_blocks(2 * s->d_ff) + row_blocks(s->d_model));
    // The router's, two tokens each; those of two passes of grouping; of the sum, a token each.
    need.workgroups += div_up(n_tokens, 2) + 2 * div_up(n_tokens * s->top_k, 256) +
                       n_tokens * div_up(s->d_model, 128);
    return need;
}

// ---- bounds ------------------------------------------------------------------------------------

// The first bound that is passed, or NULL.
static const char *passed_bound(const struct need *need, const vkmoe_counters *c)
{
    const struct shape *s = need->shape;
    bool decode = need->n_tokens <= DECODE_TOKENS, shared = s->d_shared_ff > 0;
    double useful = (double) c->live_columns / (double) (c->live_columns + c->padded_columns);
    if (c->dispatches > (decode ? 4 : 8 + 2 * (uint32_t) shared))
        return "dispatches";
    if (c->idle_workgroups * 10 > c->workgroups)
        return "idle workgroups";
    if (decode)
        return c->padded_columns > 0 ? "useful columns" : NULL;
    if ((c->workgroups + c->idle_workgroups) * 10 > need->workgroups * 11)
        return "workgroups";
    if (!shared && c->weight_loads > need->weights)
        return "weights";
    if (!shared && need->most_rows <= need->tile_rows && c->weight_loads > need->weights_once)
        return "weights of an expert of few rows";
    if (need->n_tokens * s->top_k >= 32 * s->n_experts && useful < 0.85)
        return "useful columns";
    return NULL;
}

static void check_passes(const struct need *need, const vkmoe_counters *changed, const char *which)
{
    const char *bound = passed_bound(need, changed);
    assert_non_null(bound);
    assert_string_equal(bound, which);
}

// Each bound is passed by what is a little worse.
static void check_bounds_bind(const struct need *need, const vkmoe_counters *c)
{
    vkmoe_counters worse = *c;
    worse.dispatches = need->n_tokens <= DECODE_TOKENS ? 5 : 9 + 2 * (need->shape->d_shared_ff > 0);
    check_passes(need, &worse, "dispatches");
    worse = *c;
    worse.idle_workgroups = c->workgroups / 10 + 1;
    check_passes(need, &worse, "idle workgroups");
    if (need->n_tokens <= DECODE_TOKENS || need->shape->d_shared_ff > 0)
        return;
    worse = *c;
    worse.workgroups = need->workgroups * 12 / 10 + 1;
    check_passes(need, &worse, "workgroups");
    worse = *c;
    worse.weight_loads += 16; // one load more
    check_passes(need, &worse, "weights");
    if (need->n_tokens < MAX_TOKENS)
        return;
    worse = *c; // all rows of all tiles
    worse.padded_columns = need->tiles * need->tile_rows * (row_blocks(2 * need->shape->d_ff) +
                                               row_blocks(need->shape->d_model)) - c->live_columns;
    if (need->shape->n_experts == MAX_EXPERTS)
        check_passes(need, &worse, "useful columns");
}

// ---- runs --------------------------------------------------------------------------------------

// Logits of random inputs spread about as much as the biases of the two shapes ask for.
static void init_data(struct layer_data *data, const struct shape *s)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = s->n_experts;
    layer.top_k = s->top_k;
    layer.d_model = s->d_model;
    layer.d_ff = s->d_ff;
    layer.d_shared_ff = s->d_shared_ff;
    layer.router_bias = true;
    layer.gated = true;
    layer.in_type = layer.out_type = VKMOE_BF16;
    layer.act = VKMOE_ACT_SILU;
    layer_data_init(data, &layer, 3);
    float *bias = (float *) data->router.bias; // the fixture's own memory
    float *weight = (float *) data->router.weight.data;
    for (uint32_t e = 0; e < s->n_experts; e++)
        bias[e] = s->routing == ZIPF ? -logf((float) e + 1) : 0;
    for (size_t i = 0; i < (size_t) s->n_experts * s->d_model; i++)
        weight[i] *= 3 / sqrtf((float) s->d_model);
}

static void check_shape(const struct shape *s)
{
    struct layer_data data;
    struct stack stack;
    init_data(&data, s);
    vkmoe_context_desc context = vkmoe_context_desc_init();
    context.device = "vulkan";
    context.cache_dir = "";
    context.addressing = VKMOE_ADDRESSING_BDA;
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.max_tokens = s->max_tokens;
    plan.counters = true;
    plan.budget_ms = 1e6; // nothing is cut for the time it takes
    check_ok(stack_create_plan(&stack, &context, &data, &plan));
    size_t n = (size_t) MAX_TOKENS * s->d_model;
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    int32_t *ids = malloc(MAX_TOKENS * MAX_TOP_K * sizeof *ids);
    assert_true(x && y && ids);
    fill_random(x, n, 5);
    for (int i = 0; i < N_COUNTS; i++) {
        vkmoe_io io = vkmoe_io_init();
        vkmoe_counters c;
        io.x = x;
        io.y = y;
        io.ids = ids;
        check_ok(vkmoe_run(stack.bind, token_counts[i], &io));
        check_ok(vkmoe_bind_get_counters(stack.bind, &c));
        struct need need = need_of(s, token_counts[i], ids);
        const char *bound = passed_bound(&need, &c);
        double useful = (double) c.live_columns / (double) (c.live_columns + c.padded_columns);
        print_message("%s, %u tokens: %u dispatches, %u experts, at most %u rows, %.0f %% of the "
                      "columns useful, weights read %.2f times\n", s->name, token_counts[i],
                      c.dispatches, need.n_active, need.most_rows, 100 * useful,
                      (double) c.weight_loads / (double) (need.n_active * need.expert_size));
        if (bound)
            fail_msg("%s, %u tokens: %s", s->name, token_counts[i], bound);
        check_bounds_bind(&need, &c);
    }
    free(ids);
    free(y);
    free(x);
    stack_destroy(&stack);
    layer_data_finish(&data);
}

static void layers_keep_to_their_bounds(void **state)
{
    (void) state;
    for (int i = 0; i < N_SHAPES; i++)
        check_shape(&shapes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(layers_keep_to_their_bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
