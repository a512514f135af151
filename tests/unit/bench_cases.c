// SPDX-License-Identifier: MIT
// Cases of `vkmoe bench`: lists of token counts, presets, routings and the rows that do them.
#include "check.h"

#include "bench/cases.h"
#include "bench/make.h"
#include "bench/presets.h"
#include "bench/routing.h"
#include "bench/tokens.h"

#include <stdlib.h>

// ---- token counts ------------------------------------------------------------------------------

static void check_tokens(const char *text, uint32_t n, const uint32_t *want)
{
    static struct bench_tokens tokens;
    char reason[160] = "";
    tokens.n = 0;
    if (!bench_tokens_parse(text, &tokens, reason, sizeof reason))
        fail_msg("%s", reason);
    assert_int_equal(tokens.n, n);
    assert_memory_equal(tokens.counts, want, n * sizeof *want);
}

static void token_lists(void **state)
{
    (void) state;
    check_tokens("7", 1, (uint32_t[]){7});
    check_tokens("1,2,4-32*2", 6, (uint32_t[]){1, 2, 4, 8, 16, 32});
    check_tokens("1-4", 4, (uint32_t[]){1, 2, 3, 4});
    check_tokens("1-8+3", 3, (uint32_t[]){1, 4, 7});
    check_tokens("3-20*3,5", 3, (uint32_t[]){3, 9, 5});
    check_tokens("8,4,8,4-8+4", 2, (uint32_t[]){8, 4});
    check_tokens("4294967295-4294967295*2", 1, (uint32_t[]){UINT32_MAX});
}

static void bad_token_lists(void **state)
{
    (void) state;
    static const char *const texts[] = {
        "",     "0",     "-1",    "1,",     ",1",   "1,,2", "4-2",        "1-",     "1-8*1",
        "1-8*", "1-8+0", "1-8/2", "1 2",    "x",    "1-8*2x", "4294967296", "1-257", "+1",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        static struct bench_tokens tokens;
        char reason[160] = "";
        tokens.n = 0;
        if (bench_tokens_parse(texts[i], &tokens, reason, sizeof reason))
            fail_msg("'%s' is a list", texts[i]);
        assert_non_null(strstr(reason, texts[i]));
    }
}

// ---- presets -----------------------------------------------------------------------------------

// Every preset is a layer that is measured as it is, and as a plain layer of its shape.
static void presets(void **state)
{
    (void) state;
    uint32_t n = 0;
    char refusal[192];
    for (const char *name; (name = bench_preset_name(n)); n++) {
        vkmoe_layer_desc layer;
        assert_true(bench_preset(name, &layer));
        check_ok(vkmoe_layer_check(&layer));
        bench_layer_refusal(&layer, refusal, sizeof refusal);
        assert_string_equal(refusal, "");
        check_ok(bench_find_preset(name, true, &layer));
        check_ok(vkmoe_layer_check(&layer));
        bench_layer_refusal(&layer, refusal, sizeof refusal);
        assert_string_equal(refusal, "");
    }
    assert_in_range(n, 15, 100);
    vkmoe_layer_desc layer;
    check_fails(bench_find_preset("no-such", false, &layer), VKMOE_E_ARGUMENT, "mixtral-8x7b");
}

static void words(void **state)
{
    (void) state;
    char text[64];
    vkmoe_layer_desc layer;
    assert_true(bench_preset("deepseek-v3", &layer));
    bench_rule_text(&layer, text, sizeof text);
    assert_string_equal(text, "sigmoid norm x2.5 groups selection-bias");
    assert_true(bench_preset("gpt-oss-20b", &layer));
    bench_expert_text(&layer, text, sizeof text);
    assert_string_equal(text, "gated silu alpha1.702 clamp up-add bias");
    bench_expert_text(&layer, text, 8); // what does not fit is cut
    assert_string_equal(text, "gated s");
}

// ---- routings ----------------------------------------------------------------------------------

enum { N_EXPERTS = 16, TOP_K = 3, N_TOKENS = 4000 };

static int32_t *choose(const char *text, uint64_t seed, uint32_t copy)
{
    struct bench_routing routing;
    assert_true(bench_routing_parse(text, &routing));
    const struct bench_draw draw = {seed, copy, N_TOKENS, N_EXPERTS, TOP_K};
    int32_t *ids = malloc(N_TOKENS * TOP_K * sizeof *ids);
    assert_non_null(ids);
    check_ok(bench_routing_choose(&routing, NULL, &draw, ids));
    for (uint32_t i = 0; i < N_TOKENS * TOP_K; i++) {
        assert_in_range(ids[i], 0, N_EXPERTS - 1);
        for (uint32_t j = i / TOP_K * TOP_K; j < i; j++)
            assert_int_not_equal(ids[i], ids[j]);
    }
    return ids;
}

static struct bench_row count(int32_t *ids)
{
    struct bench_row row = {
        .key = {.n_experts = N_EXPERTS, .top_k = TOP_K, .n_tokens = N_TOKENS}};
    check_ok(bench_routing_count(ids, &row));
    free(ids);
    uint64_t sum = 0;
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        sum += row.expert_rows[e];
    assert_int_equal(sum, N_TOKENS * TOP_K);
    free(row.expert_rows);
    return row;
}

static void distributions(void **state)
{
    (void) state;
    struct bench_row row = count(choose("uniform", 1, 0));
    assert_int_equal(row.n_experts_hit, N_EXPERTS);
    // An expert is in a token with chance 3 / 16, so it has 750 rows on average with a standard
    // deviation of 25.
    assert_true(row.min_rows > 625 && row.max_rows < 875 && row.cv_rows < 0.1);

    row = count(choose("zipf:1.2", 1, 0));
    // With the chance of the first above 0.37 in the first draw alone, and of the last below 0.014.
    assert_true(row.max_rows > 1480 && row.min_rows < 4000 * 3 * 0.028 && row.cv_rows > 0.5);
    struct bench_row flat = count(choose("zipf:0", 1, 0));
    assert_true(flat.cv_rows < 0.1);

    row = count(choose("single", 1, 0));
    assert_int_equal(row.n_experts_hit, TOP_K);
    assert_int_equal(row.min_rows, N_TOKENS);
    assert_int_equal(row.max_rows, N_TOKENS);
    // Three of 16 have N_TOKENS and the others nothing.
    check_near(row.cv_rows, sqrt(13.0 / 3), 1e-12);
}

// A token's experts are of so many groups, and other tokens' of others.
static void groups(void **state)
{
    (void) state;
    enum { PER_GROUP = 4 };
    const struct bench_routing routing = {.kind = BENCH_ZIPF, .a = 1};
    const struct bench_draw draw = {1, 0, N_TOKENS, N_EXPERTS, TOP_K, N_EXPERTS / PER_GROUP, 2};
    int32_t *ids = malloc(N_TOKENS * TOP_K * sizeof *ids);
    bool any[N_EXPERTS] = {false};
    uint32_t n_two = 0;
    check_ok(bench_routing_choose(&routing, NULL, &draw, ids));
    for (uint32_t t = 0; t < N_TOKENS; t++) {
        bool open[N_EXPERTS / PER_GROUP] = {false};
        uint32_t n_open = 0;
        for (uint32_t k = 0; k < TOP_K; k++) {
            int32_t e = ids[t * TOP_K + k];
            any[e] = true;
            n_open += !open[e / PER_GROUP];
            open[e / PER_GROUP] = true;
        }
        assert_in_range(n_open, 1, 2);
        n_two += n_open == 2;
    }
    assert_in_range(n_two, N_TOKENS / 2, N_TOKENS - 1);
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        assert_true(any[e]);
    free(ids);
}

// What no routing can be chosen for says so.
static void refusals(void **state)
{
    (void) state;
    char text[192];
    vkmoe_layer_desc layer = bench_plain_layer(16, 4, 32, 16, 0);
    layer.select = VKMOE_SELECT_TOP_P;
    bench_layer_refusal(&layer, text, sizeof text);
    assert_non_null(strstr(text, "layer.select = 3"));
    layer = bench_plain_layer(16, 4, 32, 16, 0);
    layer.n_group = 8;
    layer.topk_group = 1;
    bench_layer_refusal(&layer, text, sizeof text);
    assert_non_null(strstr(text, "layer.topk_group = 1"));
    layer.topk_group = 2;
    bench_layer_refusal(&layer, text, sizeof text);
    assert_string_equal(text, "");
    layer.d_latent = 16;
    bench_layer_refusal(&layer, text, sizeof text);
    assert_non_null(strstr(text, "layer.d_latent = 16"));
    layer = bench_plain_layer(16, 4, 16, 16, 0);
    layer.n_zero = 1;
    bench_layer_refusal(&layer, text, sizeof text);
    assert_non_null(strstr(text, "no more experts than columns"));
}

static bool same(int32_t *a, int32_t *b)
{
    bool equal = memcmp(a, b, N_TOKENS * TOP_K * sizeof *a) == 0;
    free(a);
    free(b);
    return equal;
}

static void draws(void **state)
{
    (void) state;
    static const char *const texts[] = {"uniform", "zipf:1.2", "single"};
    for (int i = 0; i < 3; i++) {
        assert_true(same(choose(texts[i], 5, 2), choose(texts[i], 5, 2)));
        assert_false(same(choose(texts[i], 5, 2), choose(texts[i], 5, 3)));
        assert_false(same(choose(texts[i], 5, 2), choose(texts[i], 6, 2)));
    }
}

static void bad_routings(void **state)
{
    (void) state;
    static const char *const texts[] = {"",       "Uniform", "zipf", "zipf:",  "zipf:-1", "zipf:x",
                                        "zipf:9", "zipf:1x", "trace", "trace:", "zipf:nan"};
    struct bench_routing routing;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_false(bench_routing_parse(texts[i], &routing));
    char text[64];
    assert_true(bench_routing_parse("trace:/a/b,c.npy", &routing));
    bench_routing_text(&routing, text, sizeof text);
    assert_string_equal(text, "trace:b,c.npy");
    assert_true(bench_routing_parse("zipf:1.50", &routing));
    bench_routing_text(&routing, text, sizeof text);
    assert_string_equal(text, "zipf:1.5");
}

// A trace goes on where the copy before it ended, and begins again at its end.
static void trace_rows(void **state)
{
    (void) state;
    int32_t rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, ids[6];
    const struct bench_trace trace = {rows, 5};
    const struct bench_routing routing = {.kind = BENCH_TRACE, .path = "x.npy"};
    const struct bench_draw draw = {1, 1, 3, 10, 2};
    check_ok(bench_routing_choose(&routing, &trace, &draw, ids));
    assert_memory_equal(ids, ((int32_t[]){6, 7, 8, 9, 0, 1}), sizeof ids);
}

// ---- rows that do them -------------------------------------------------------------------------

static bool selected(const float *logits, uint32_t n, const int32_t *ids, uint32_t top_k,
                     float margin)
{
    float least_wanted = INFINITY, most_other = -INFINITY;
    for (uint32_t e = 0; e < n; e++) {
        bool wanted = false;
        for (uint32_t k = 0; k < top_k; k++)
            wanted |= (uint32_t) ids[k] == e;
        if (wanted)
            least_wanted = fminf(least_wanted, logits[e]);
        else
            most_other = fmaxf(most_other, logits[e]);
    }
    return least_wanted > most_other + margin;
}

// The first expert that is not among ids.
static uint32_t unwanted(const int32_t *ids, uint32_t top_k)
{
    for (uint32_t e = 0, k = 0;; e++, k = 0) {
        while (k < top_k && (uint32_t) ids[k] != e)
            k++;
        if (k == top_k)
            return e;
    }
}

// The wanted experts' logits are far above all others, also where x has no column that is not one.
static void rows_route(void **state)
{
    (void) state;
    static const uint32_t shapes[][3] = {{16, 3, 16}, {64, 8, 256}, {7, 7, 9}, {512, 10, 640}};
    enum { N = 40 };
    float *noise = bench_noise(3);
    assert_non_null(noise);
    for (int i = 0; i < 4; i++) {
        const uint32_t n = shapes[i][0], top_k = shapes[i][1], d = shapes[i][2];
        vkmoe_layer_desc layer = bench_plain_layer(n, top_k, d, 8, 0);
        const struct bench_draw draw = {9, 1, N, n, top_k};
        const struct bench_routing routing = {.kind = BENCH_UNIFORM};
        int32_t *ids = calloc((size_t) N * top_k, sizeof *ids);
        float *x = calloc((size_t) N * d, sizeof *x), *router = calloc((size_t) n * d, sizeof *x);
        float *logits = calloc(n, sizeof *logits);
        check_ok(bench_routing_choose(&routing, NULL, &draw, ids));
        bench_router_fill(&layer, noise, router, NULL, NULL);
        bench_rows_fill(&layer, noise, &draw, ids, x);
        for (uint32_t t = 0; t < N; t++) {
            for (uint32_t e = 0; e < n; e++) {
                logits[e] = 0;
                for (uint32_t c = 0; c < d; c++)
                    logits[e] += router[(size_t) e * d + c] * x[(size_t) t * d + c];
            }
            assert_true(selected(logits, n, ids + (size_t) t * top_k, top_k, 0.5f));
            // Another expert instead of the first is not what was selected.
            int32_t first = ids[(size_t) t * top_k];
            ids[(size_t) t * top_k] = (int32_t) unwanted(ids + (size_t) t * top_k, top_k);
            assert_true(n == top_k ||
                        !selected(logits, n, ids + (size_t) t * top_k, top_k, 0.5f));
            ids[(size_t) t * top_k] = first;
        }
        free(ids);
        free(x);
        free(router);
        free(logits);
    }
    free(noise);
}

// ---- weights -----------------------------------------------------------------------------------

// Rows of a matrix, decoded: their mean is 0 and their variance 1 / width, within what so few of
// them tell and the type's codes can say. A row of fp8 ends in codes of 0.
static void check_matrix(const vkmoe_tensor *tensor, uint32_t n_rows, uint32_t width)
{
    const size_t size = bench_row_size(tensor->type, width);
    float *row = calloc(width, sizeof *row);
    double sum = 0, squares = 0;
    for (uint32_t i = 0; i < n_rows; i++) {
        const unsigned char *stored = (const unsigned char *) tensor->data + i * size;
        check_ok(vkmoe_dtype_to_f32(tensor->type, stored, width, row));
        for (uint32_t c = 0; c < width; c++) {
            sum += (double) row[c];
            squares += (double) row[c] * (double) row[c];
        }
        for (uint32_t c = width; tensor->type == VKMOE_FP8 && c % 128 != 0; c++)
            assert_int_equal(stored[size - 128 + c % 128], 0);
    }
    const double n = (double) n_rows * width;
    check_near(squares / n * width, 1, 0.15);
    check_near(sum / n * sqrt(width), 0, 5 / sqrt(n));
    free(row);
}

static void check_weights(enum vkmoe_dtype type, uint32_t d_model, uint32_t d_ff)
{
    struct bench_case what = {.layer = bench_plain_layer(8, 2, d_model, d_ff, 256)};
    struct bench_material material = {.n_tensors = 3, .noise = bench_noise(5)};
    what.layer.in_type = what.layer.out_type = type;
    check_ok(bench_weights_make(&what, 0, &material));
    for (uint32_t e = 0; e < 3; e++) {
        check_matrix(&material.experts[e].gate, d_ff, d_model);
        check_matrix(&material.experts[e].up, d_ff, d_model);
        check_matrix(&material.experts[e].down, d_model, d_ff);
    }
    assert_ptr_equal(material.experts[7].up.data, material.experts[1].up.data);
    check_matrix(&material.shared.down, d_model, 256);
    // No two matrices, and no two rows, are alike.
    const size_t size = bench_row_size(type, d_model);
    const char *up = material.experts[0].up.data;
    assert_memory_not_equal(up, material.experts[1].up.data, size);
    assert_memory_not_equal(up, up + size, size);
    bench_weights_finish(&material);
}

static void made_weights(void **state)
{
    (void) state;
    for (int type = VKMOE_F32; type <= VKMOE_FP8; type++)
        check_weights((enum vkmoe_dtype) type, 256, 512);
    check_weights(VKMOE_FP8, 160, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_lists),   cmocka_unit_test(bad_token_lists),
        cmocka_unit_test(presets),       cmocka_unit_test(words),
        cmocka_unit_test(distributions), cmocka_unit_test(groups),
        cmocka_unit_test(refusals),      cmocka_unit_test(draws),
        cmocka_unit_test(bad_routings),  cmocka_unit_test(trace_rows),
        cmocka_unit_test(rows_route),    cmocka_unit_test(made_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
