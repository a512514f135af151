// SPDX-License-Identifier: MIT
// The router's rules on a Vulkan device against the oracle: route_rules MODE [few], where MODE is
// bda, descriptors or floor; few: for a slow device. The validation layer is on, and any message of
// it fails.
#include "fixture.h"
#include "host.h"

#include <stdio.h>
#include <stdlib.h>

static vkmoe_context *context, *oracle;
static bool few;

// What a run gives.
struct routing {
    int32_t *ids;
    float *gates, *scores, *y;
    size_t n_slots, n_scores, n_y;
};

struct subject {
    struct layer_data data;
    uint32_t n_tokens;
    float *x, *router_x;
    int32_t *token_ids;
};

static uint32_t n_scored(const vkmoe_layer_desc *layer)
{
    return layer->n_experts + layer->n_zero;
}

static void subject_init(struct subject *s, const vkmoe_layer_desc *layer, uint32_t n_tokens,
                         uint32_t seed)
{
    layer_data_init(&s->data, layer, seed);
    size_t n_x = (size_t) n_tokens * layer->d_model;
    s->n_tokens = n_tokens;
    s->x = malloc(n_x * sizeof *s->x);
    s->router_x = malloc(n_x * sizeof *s->router_x);
    s->token_ids = malloc(n_tokens * sizeof *s->token_ids);
    assert_true(s->x && s->router_x && s->token_ids);
    fill_random(s->x, n_x, seed + 1);
    fill_inputs(layer, n_tokens, seed + 2, s->router_x, s->token_ids);
}

static void subject_finish(struct subject *s)
{
    layer_data_finish(&s->data);
    free(s->x);
    free(s->router_x);
    free(s->token_ids);
}

static void routing_init(struct routing *r, const struct subject *s)
{
    const vkmoe_layer_desc *layer = &s->data.layer;
    r->n_slots = (size_t) s->n_tokens * layer->top_k;
    r->n_scores = (size_t) s->n_tokens * n_scored(layer);
    r->n_y = (size_t) s->n_tokens * layer->d_out;
    r->ids = malloc(r->n_slots * sizeof *r->ids);
    r->gates = malloc(r->n_slots * sizeof *r->gates);
    r->scores = malloc(r->n_scores * sizeof *r->scores);
    r->y = malloc(r->n_y * sizeof *r->y);
    assert_true(r->ids && r->gates && r->scores && r->y);
    memset(r->ids, 0x5a, r->n_slots * sizeof *r->ids);
    for (size_t i = 0; i < r->n_slots; i++)
        r->gates[i] = NAN;
    for (size_t i = 0; i < r->n_scores; i++)
        r->scores[i] = NAN;
    for (size_t i = 0; i < r->n_y; i++)
        r->y[i] = NAN;
}

static void routing_finish(struct routing *r)
{
    free(r->ids);
    free(r->gates);
    free(r->scores);
    free(r->y);
}

static void run_on(vkmoe_context *on, const struct subject *s, const struct routing *out)
{
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
    desc.layer = &s->data.layer;
    desc.max_tokens = s->n_tokens;
    desc.scores = true;
    io.x = s->x;
    io.y = out->y;
    io.router_x = s->data.layer.router_input ? s->router_x : NULL;
    io.token_ids = s->data.layer.select == VKMOE_SELECT_TABLE ? s->token_ids : NULL;
    io.ids = out->ids;
    io.gates = out->gates;
    io.scores = out->scores;
    check_ok(vkmoe_weights_create(on, &s->data.desc, &weights));
    check_ok(vkmoe_plan_create(on, &desc, &plan));
    check_ok(vkmoe_bind_create(plan, weights, NULL, &bind));
    check_ok(vkmoe_run(bind, s->n_tokens, &io));
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    vkmoe_weights_destroy(weights);
}

// ---- comparison --------------------------------------------------------------------------------

// The distance of two arrays relative to the length of the second; equal infinities, and NaN where
// NaN is wanted, are no distance.
static double distance(const float *got, const float *want, size_t n)
{
    double of_difference = 0, of_want = 0;
    for (size_t i = 0; i < n; i++) {
        bool same_nan = isnan(got[i]) && isnan(want[i]);
        if (same_nan || (got[i] == want[i] && !isfinite((double) want[i])))
            continue;
        of_difference += pow((double) got[i] - (double) want[i], 2);
        of_want += pow((double) want[i], 2);
    }
    return of_difference == 0 ? 0 : sqrt(of_difference / of_want);
}

// Slots whose experts rank so closely that f32 may take one for the other.
static bool is_near_tie(const struct subject *s, const struct routing *want, size_t slot,
                        int32_t got)
{
    const vkmoe_layer_desc *layer = &s->data.layer;
    const float *scores = want->scores + slot / layer->top_k * n_scored(layer);
    int32_t wanted = want->ids[slot];
    if (wanted < 0 || got < 0 || (uint32_t) got >= n_scored(layer))
        return false;
    double a = (double) scores[wanted], b = (double) scores[got];
    return fabs(a - b) <= 1e-6 * (1e-3 + fabs(a));
}

static void check_same(const char *what, uint32_t number, const struct subject *s,
                       const struct routing *got, const struct routing *want)
{
    size_t n_ties = 0;
    for (size_t i = 0; i < got->n_slots; i++) {
        if (got->ids[i] == want->ids[i])
            continue;
        if (!is_near_tie(s, want, i, got->ids[i]))
            fail_msg("%s %u, slot %zu: expert %d, not %d", what, number, i, got->ids[i],
                     want->ids[i]);
        n_ties++;
    }
    double gates = distance(got->gates, want->gates, got->n_slots);
    double scores = distance(got->scores, want->scores, got->n_scores);
    double y = distance(got->y, want->y, got->n_y);
    if (n_ties > got->n_slots / 1000)
        fail_msg("%s %u: %zu near ties", what, number, n_ties);
    if (!(scores <= 1e-5) || (n_ties == 0 && (!(gates <= 1e-5) || !(y <= 1e-5))))
        fail_msg("%s %u: gates differ by %g, scores by %g, y by %g", what, number, gates, scores,
                 y);
}

static void check_layer(const char *what, uint32_t number, const vkmoe_layer_desc *layer,
                        uint32_t n_tokens, bool with_nan)
{
    struct subject s;
    struct routing got, want;
    subject_init(&s, layer, n_tokens, number);
    for (uint32_t i = 0; i < layer->d_model && with_nan; i++)
        s.x[i] = s.router_x[i] = NAN; // the first token
    routing_init(&got, &s);
    routing_init(&want, &s);
    run_on(oracle, &s, &want);
    run_on(context, &s, &got);
    check_same(what, number, &s, &got, &want);
    routing_finish(&got);
    routing_finish(&want);
    subject_finish(&s);
}

// ---- layers ------------------------------------------------------------------------------------

// The router of a random layer, over experts that are as plain as they can be: their kernels are
// made once.
static vkmoe_layer_desc random_router(uint32_t seed)
{
    vkmoe_layer_desc layer = random_layer(seed, 1);
    layer.gated = layer.gate_bias = layer.up_bias = layer.down_bias = layer.out_bias = false;
    layer.weight_on_input = layer.latent_norm = false;
    layer.d_latent = layer.adjugate_group = layer.d_adjugate = 0;
    layer.act = layer.act_out = VKMOE_ACT_NONE;
    layer.clamp = VKMOE_CLAMP_NONE;
    layer.up_add = 0;
    layer.d_out = layer.n_zero > 0 ? 0 : layer.d_out;
    return layer;
}

// Few tokens and many take different ways.
static void random_routers(void **state)
{
    (void) state;
    for (uint32_t seed = 0; seed < (few ? 15 : 60); seed++) {
        vkmoe_layer_desc layer = random_router(seed);
        check_layer("random router", seed, &layer, seed % 3 == 0 ? 1 + seed % 4 : 5 + seed % 60,
                    seed % 5 == 4);
    }
}

// Experts are as small as they can be.
static vkmoe_layer_desc routing_layer(uint32_t n_experts, uint32_t top_k, uint32_t d_model)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = n_experts;
    layer.top_k = top_k;
    layer.d_model = d_model;
    layer.d_ff = 1;
    layer.d_out = 1;
    layer.rank = VKMOE_RANK_LOGIT;
    layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    return layer;
}

static void many_experts(void **state)
{
    (void) state;
    static const uint32_t sizes[][2] = {{60, 7},   {160, 6},   {512, 22},  {512, 64},
                                        {896, 16}, {1000, 64}, {1024, 64}, {1024, 1024}};
    for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i += few ? 3 : 1)
        for (int select = VKMOE_SELECT_TOP_K; select <= VKMOE_SELECT_THRESHOLD; select++) {
            vkmoe_layer_desc layer = routing_layer(sizes[i][0], sizes[i][1], 24);
            layer.select = (enum vkmoe_select) select;
            layer.select_p = select == VKMOE_SELECT_TOP_P ? 0.3f : 3.5f;
            layer.sparsemixer_eps = 0.1f;
            layer.n_token_ids = select == VKMOE_SELECT_TABLE ? 50 : 0;
            layer.expert_scale = i % 2;
            check_layer("many experts", i, &layer, select == VKMOE_SELECT_TOP_P ? 4 : 9, i == 2);
        }
}

static void many_groups(void **state)
{
    (void) state;
    for (uint32_t n_group = 2; n_group <= (few ? 8 : 512); n_group *= 4)
        for (int score = VKMOE_GROUP_MAX; score <= VKMOE_GROUP_TOP_SHARE_SUM; score++) {
            vkmoe_layer_desc layer = routing_layer(few ? 64 : 1024, 0, 20);
            layer.n_group = n_group;
            layer.topk_group = (n_group + 1) / 2;
            layer.top_k = 2 * layer.topk_group < 64 ? 2 * layer.topk_group : layer.topk_group;
            layer.group_score = (enum vkmoe_group_score) score;
            layer.selection_bias = true;
            check_layer("many groups", n_group, &layer, 7, false);
        }
}

// More slots than are counted at once, blocks of many lengths, experts that few or all want.
static void many_slots(void **state)
{
    (void) state;
    static const uint32_t rows[] = {0, 1, 3, 64, 257, 5000};
    for (uint32_t i = 0; i < sizeof rows / sizeof *rows; i += few ? 4 : 1)
        for (int mode = VKMOE_CAPACITY_BY_POSITION; mode <= VKMOE_CAPACITY_BY_GATE; mode++) {
            vkmoe_layer_desc layer = routing_layer(i % 2 ? 5 : 40, 3, 9);
            layer.n_zero = i % 2;
            layer.d_out = 9;
            layer.capacity_mode = (enum vkmoe_capacity) mode;
            layer.capacity_rows = rows[i];
            layer.capacity = i == 3 ? 7 : 0;
            layer.capacity_factor = 0.7f;
            layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
            layer.norm_eps = 1e-6f;
            layer.capacity_renorm = mode == VKMOE_CAPACITY_BY_GATE;
            check_layer("many slots", i, &layer, few ? 90 : 700, i == 0);
        }
}

// ---- recorded ----------------------------------------------------------------------------------

static void put(struct host *host, struct host_buffer *buffer, vkmoe_vk_buffer *out,
                const void *from, size_t size)
{
    host_buffer_init(host, size, buffer);
    memcpy(buffer->mapped, from, size);
    *out = (vkmoe_vk_buffer){buffer->handle, 0, size};
}

// Inputs in the caller's buffers, rows of the router's longer than they have to be, fewer tokens
// than are recorded, an id that is not in the table.
static void recorded(const vkmoe_layer_desc *layer, uint32_t n_tokens)
{
    enum { X, Y, ROUTER_X, TOKEN_IDS, COUNT, N_BUFFERS };
    struct subject s;
    struct routing want;
    struct host host;
    struct host_buffer buffers[N_BUFFERS];
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
    vkmoe_plan_desc plan_desc = vkmoe_plan_desc_init();
    vkmoe_bind_desc bind_desc = vkmoe_bind_desc_init();
    vkmoe_vk_io io = vkmoe_vk_io_init();
    const uint32_t d = layer->d_model, wide = d + 5, n_used = n_tokens - 1;
    subject_init(&s, layer, n_tokens, 3);
    routing_init(&want, &s);
    run_on(oracle, &s, &want);

    float *router_rows = malloc((size_t) n_tokens * wide * sizeof *router_rows);
    assert_non_null(router_rows);
    memset(router_rows, 0xff, (size_t) n_tokens * wide * sizeof *router_rows);
    for (uint32_t t = 0; t < n_tokens; t++)
        memcpy(router_rows + t * wide, s.router_x + t * d, d * sizeof *router_rows);
    s.token_ids[1] = (int32_t) layer->n_token_ids;
    host_init(&host, context);
    put(&host, &buffers[X], &io.x, s.x, (size_t) n_tokens * d * 4);
    put(&host, &buffers[Y], &io.y, s.x, (size_t) n_tokens * d * 4);
    put(&host, &buffers[ROUTER_X], &io.router_x, router_rows, (size_t) n_tokens * wide * 4);
    put(&host, &buffers[TOKEN_IDS], &io.token_ids, s.token_ids, (size_t) n_tokens * 4);
    put(&host, &buffers[COUNT], &io.n_tokens, &n_used, sizeof n_used);
    io.router_x_stride = wide * 4;
    plan_desc.layer = layer;
    plan_desc.max_tokens = n_tokens;
    bind_desc.vk_io = &io;
    check_ok(vkmoe_weights_create(context, &s.data.desc, &weights));
    check_ok(vkmoe_plan_create(context, &plan_desc, &plan));
    check_ok(vkmoe_bind_create(plan, weights, &bind_desc, &bind));
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(bind, cmd, n_tokens, 0, UINT32_MAX));
    host_submit(&host, cmd);
    const float *y = buffers[Y].mapped;
    for (uint32_t i = 0; i < d; i++)
        assert_true(isnan(y[d + i])); // the token with that id
    assert_true(distance(y, want.y, d) <= 1e-5);
    assert_true(distance(y + 2 * d, want.y + 2 * d, (size_t) (n_used - 2) * d) <= 1e-5);
    assert_memory_equal(y + (size_t) n_used * d, s.x + (size_t) n_used * d, d * sizeof *y);

    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    vkmoe_weights_destroy(weights);
    for (uint32_t i = 0; i < N_BUFFERS; i++)
        host_buffer_finish(&host, &buffers[i]);
    host_finish(&host);
    free(router_rows);
    routing_finish(&want);
    subject_finish(&s);
}

static void callers_inputs(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = routing_layer(7, 3, 11);
    layer.d_out = layer.d_model;
    layer.router_input = true;
    layer.select = VKMOE_SELECT_TABLE;
    layer.n_token_ids = 21;
    recorded(&layer, 4);
    recorded(&layer, 40);
}

// The comparison notices a router whose rule is another one.
static void can_fail(void **state)
{
    (void) state;
    struct subject s;
    struct routing got, want;
    vkmoe_layer_desc layer = routing_layer(6, 2, 5);
    subject_init(&s, &layer, 20, 1);
    routing_init(&got, &s);
    routing_init(&want, &s);
    run_on(context, &s, &got);
    s.data.layer.logit_softcap = 1;
    run_on(oracle, &s, &want);
    assert_true(distance(got.gates, want.gates, got.n_slots) > 1e-3);
    assert_true(distance(got.scores, want.scores, got.n_scores) > 1e-3);
    assert_false(is_near_tie(&s, &want, 0, (want.ids[0] + 1) % 6));
    routing_finish(&got);
    routing_finish(&want);
    subject_finish(&s);
}

static void layer_is_silent(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(context), 0);
}

int main(int argc, char **argv)
{
    vkmoe_host services;
    vkmoe_context_desc desc;
    few = argc == 3 && strcmp(argv[2], "few") == 0;
    if (!host_context_desc(few ? 2 : argc, argv, &services, &desc))
        return 2;
    if (vkmoe_context_create(&desc, &context) != VKMOE_OK) {
        fprintf(stderr, "%s\n", vkmoe_error_text());
        return 1;
    }
    oracle = context_on("reference", NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_routers), cmocka_unit_test(many_experts),
        cmocka_unit_test(many_groups),    cmocka_unit_test(many_slots),
        cmocka_unit_test(callers_inputs), cmocka_unit_test(can_fail),
        cmocka_unit_test(layer_is_silent),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    vkmoe_context_destroy(oracle);
    vkmoe_context_destroy(context);
    return failed != 0;
}
