// SPDX-License-Identifier: MIT
// Compiled programs without a device: barriers, ranges, limits, regimes, and the SPIR-V itself.
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "fixture.h"
#include "verify_cases.h"
#include "vulkan/choose.h"
#include "vulkan/plan.h"

// ---- layers ------------------------------------------------------------------------------------

static vkmoe_layer_desc small_layer(uint32_t n_experts, uint32_t top_k)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = n_experts;
    layer.top_k = top_k;
    layer.d_model = 33;
    layer.d_ff = 20;
    layer.d_out = 5;
    return layer;
}

// No limit but what 32-bit indices reach.
static struct moe_vk_limits no_limits(bool bda)
{
    return (struct moe_vk_limits){.bda = bda,
                                  .range = MOE_VK_MAX_WORDS_SIZE,
                                  .allocation = UINT64_MAX,
                                  .groups = {UINT32_MAX, UINT32_MAX},
                                  .work = INFINITY};
}

// What a program depends on, its limits apart.
struct subject {
    vkmoe_layer_desc layer;
    uint32_t max_tokens;
    bool scores;
    enum vkmoe_dtype x_type;
    const struct moe_vk_variant *variant;
    enum vkmoe_operation operation;
};

static enum vkmoe_status compile_subject(struct moe_vk_program *program,
                                         const struct subject *subject,
                                         const struct moe_vk_limits *limits)
{
    struct moe_layer layer;
    memset(program, 0, sizeof *program);
    check_ok(moe_layer_init(&layer, &subject->layer));
    moe_graph_operation(&program->base.graph, &layer, subject->operation, subject->scores);
    program->base.max_tokens = subject->max_tokens;
    program->base.x_type = subject->x_type;
    program->variant = subject->variant;
    return moe_vk_compile(program, limits);
}

static enum vkmoe_status try_compile(struct moe_vk_program *program, const vkmoe_layer_desc *layer,
                                     uint32_t max_tokens, const struct moe_vk_limits *limits)
{
    struct subject subject = {.layer = *layer, .max_tokens = max_tokens};
    return compile_subject(program, &subject, limits);
}

static void compile(struct moe_vk_program *program, const vkmoe_layer_desc *layer,
                    uint32_t max_tokens, const struct moe_vk_limits *limits)
{
    check_ok(try_compile(program, layer, max_tokens, limits));
}

// Limits that leave a program whole, cut its weights, cut its tokens, or cut its work.
enum { N_LIMITS = 4 };

static struct moe_vk_limits some_limits(uint32_t i, bool bda)
{
    struct moe_vk_limits limits = no_limits(bda);
    if (i == 1 && !bda)
        limits.range = 600 << 10;
    if (i == 2)
        limits.groups[0] = limits.groups[1] = 512;
    if (i == 3)
        limits.work = 1e5;
    return limits;
}

typedef void (*visitor)(struct moe_vk_program *program, const struct moe_vk_limits *limits);

static void visit_limits(const struct subject *subject, visitor visit)
{
    struct moe_vk_program program;
    for (uint32_t i = 0; i < 2 * N_LIMITS; i++) {
        struct moe_vk_limits limits = some_limits(i / 2, i % 2);
        if (subject->variant && !limits.bda)
            continue; // variants beyond a0 are by address
        if (moe_operation_is_whole(subject->operation) && i / 2 % 3 != 0)
            continue; // there are no blocks of tokens
        check_ok(compile_subject(&program, subject, &limits));
        visit(&program, &limits);
        moe_vk_sequences_finish(&program);
    }
}

// Layers with anything in any field, and their operations.
static void each_random_program(visitor visit)
{
    static const uint32_t tokens[] = {1, 3, 5, 40, 300};
    for (uint32_t seed = 1; seed <= 400; seed++) {
        struct subject subject = {.layer = random_layer(seed, 3),
                                  .max_tokens = tokens[seed % MOE_COUNT(tokens)],
                                  .scores = seed & 1,
                                  .x_type = (enum vkmoe_dtype)(seed % 3)};
        visit_limits(&subject, visit);
        subject.operation = (enum vkmoe_operation)(1 + seed % 3);
        visit_limits(&subject, visit);
    }
}

// Programs over what changes their shape.
static void each_program(visitor visit)
{
    static const uint32_t experts[][2] = {{1, 1}, {2, 1}, {7, 3}, {60, 4}, {512, 10}, {1024, 64}};
    static const uint32_t tokens[] = {1, 4, 5, 300};
    for (size_t e = 0; e < MOE_COUNT(experts); e++)
        for (size_t t = 0; t < MOE_COUNT(tokens); t++)
            for (uint32_t bits = 0; bits < 16; bits++) {
                struct subject subject = {.layer = small_layer(experts[e][0], experts[e][1]),
                                          .max_tokens = tokens[t],
                                          .scores = bits & 8,
                                          .x_type = (enum vkmoe_dtype)(bits % 3)};
                vkmoe_layer_desc *layer = &subject.layer;
                layer->gated = bits & 1;
                layer->in_type = bits & 1 ? VKMOE_BF16 : VKMOE_F32;
                layer->d_shared_ff = bits & 2 ? 17 : 0;
                if (bits & 2)
                    layer->shared_gate = bits & 4 ? VKMOE_SHARED_SIGMOID : VKMOE_SHARED_PLAIN;
                visit_limits(&subject, visit);
            }
    each_random_program(visit);
}

// ---- barriers ----------------------------------------------------------------------------------

// Bytes that a dispatch touches in one buffer, in one way. Written anew here, apart from barrier.c.
struct touch {
    enum moe_vk_buffer_id buffer;
    uint64_t begin, end;
    bool writes;
};

static uint32_t touches_of(const struct moe_vk_dispatch *d, struct touch out[5])
{
    uint32_t n = 0;
    for (int slot = 0; slot < 4; slot++)
        if (d->ranges[slot].size > 0)
            out[n++] = (struct touch){d->ranges[slot].buffer, d->ranges[slot].offset,
                                      d->ranges[slot].offset + d->ranges[slot].size,
                                      d->access[slot] & MOE_VK_WRITE};
    if (d->indirect.size > 0)
        out[n++] = (struct touch){d->indirect.buffer, d->indirect.offset,
                                  d->indirect.offset + d->indirect.size, false};
    return n;
}

static bool must_wait(const struct moe_vk_dispatch *first, const struct moe_vk_dispatch *second)
{
    struct touch a[5], b[5];
    uint32_t n_a = touches_of(first, a), n_b = touches_of(second, b);
    for (uint32_t i = 0; i < n_a; i++)
        for (uint32_t j = 0; j < n_b; j++)
            if (a[i].buffer == b[j].buffer && a[i].begin < b[j].end && b[j].begin < a[i].end &&
                (a[i].writes || b[j].writes))
                return true;
    return false;
}

// Pairs of dispatches that conflict with no barrier between them.
static uint32_t unguarded_pairs(const struct moe_vk_dispatch *all, uint32_t n)
{
    uint32_t n_pairs = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool guarded = false;
        for (uint32_t j = i + 1; j < n; j++) {
            guarded = guarded || all[j].barrier;
            if (!guarded && must_wait(&all[i], &all[j]))
                n_pairs++;
        }
    }
    return n_pairs;
}

enum { MANY_DISPATCHES = 60 }; // of more only some are tried without
static uint32_t n_barriers;

static void check_barriers(struct moe_vk_program *program, const struct moe_vk_limits *limits)
{
    (void) limits;
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++) {
        struct moe_vk_dispatch *all = program->sequences[regime].dispatches;
        uint32_t n = program->sequences[regime].n;
        assert_int_equal(unguarded_pairs(all, n), 0);
        // Every barrier is needed: without it the same check finds a pair.
        uint32_t step = n / MANY_DISPATCHES + 1;
        for (uint32_t i = n_barriers % step; i < n; i += step) {
            if (!all[i].barrier)
                continue;
            all[i].barrier = false;
            assert_int_not_equal(unguarded_pairs(all, n), 0);
            all[i].barrier = true;
            n_barriers++;
        }
    }
}

static void barriers_guard_every_conflict(void **state)
{
    (void) state;
    n_barriers = 0;
    each_program(check_barriers);
    assert_true(n_barriers > 1000);
}

// The programs of a case of `vkmoe verify`. It compiles neighbours that have one plan for the
// largest of their token counts, which is the count of one of them.
static void check_case(const struct verify_case *c)
{
    struct subject subject = {.layer = verify_layer(c),
                              .max_tokens = verify_tokens(c),
                              .scores = verify_scores(c),
                              .x_type = verify_x_type(c)};
    visit_limits(&subject, check_barriers);
    if (verify_precision(c) == VKMOE_PRECISION_EXACT)
        return;
    for (int i = 0; i < MOE_VK_N_VARIANTS; i++) {
        subject.variant = &moe_vk_variants[i];
        visit_limits(&subject, check_barriers);
    }
}

static void verify_programs_are_guarded(void **state)
{
    (void) state;
    struct verify_case *cases, special;
    uint32_t n = verify_cover(&cases);
    assert_true(n > 0);
    for (uint32_t i = 0; i < n; i++)
        check_case(&cases[i]);
    free(cases);
    for (uint32_t i = 0; verify_special(i, &special); i++)
        check_case(&special);
}

// ---- ranges and limits -------------------------------------------------------------------------

static void check_weights_range(const struct moe_vk_weights_map *map,
                                const struct moe_vk_range *range)
{
    assert_true(range->offset + range->size <= map->total);
    uint32_t first = 0; // segment that holds it
    while (moe_vk_segment_start(map, first + 1) <= range->offset)
        first++;
    // By address ranges are not bound: only where the head is matters.
    if (!map->whole)
        assert_true(range->offset + range->size <= moe_vk_segment_start(map, first + 1));
}

static void check_ranges(struct moe_vk_program *program, const struct moe_vk_limits *limits)
{
    struct moe_vk_weights_map map;
    check_ok(moe_vk_weights_map(&program->base.graph.layer, limits, &map));
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++) {
        const struct moe_vk_sequence *sequence = &program->sequences[regime];
        const struct moe_vk_dispatch *which;
        assert_true(moe_vk_fits(limits, sequence, &which));
        assert_true(sequence->work_size <= program->work_size);
        for (uint32_t i = 0; i < sequence->n; i++) {
            const struct moe_vk_dispatch *d = &sequence->dispatches[i];
            assert_true(d->params_size <= sizeof d->params);
            assert_true(moe_vk_work(d, 1) >= 0);
            for (int slot = 0; slot < 4; slot++) {
                const struct moe_vk_range *range = &d->ranges[slot];
                assert_int_equal(range->size > 0, d->access[slot] != 0);
                assert_int_equal(range->offset % 256, 0);
                if (range->buffer == MOE_VK_BUF_WORK)
                    assert_true(range->offset + range->size <= sequence->work_size);
                if (slot == MOE_SLOT_ROUTING && range->size > 0) // the count is its first word
                    assert_true(range->buffer == MOE_VK_BUF_WORK && range->offset == 0);
                if (range->size > 0 && range->buffer == MOE_VK_BUF_WEIGHTS) {
                    assert_true(!(d->access[slot] & MOE_VK_WRITE));
                    check_weights_range(&map, range);
                }
            }
        }
    }
}

static void ranges_are_aligned_and_inside(void **state)
{
    (void) state;
    each_program(check_ranges);
}

// The parts of an expert matmul cover each row block of each expert once.
static void chunks_and_pieces_cover_everything(void **state)
{
    (void) state;
    struct moe_vk_program program;
    vkmoe_layer_desc layer = small_layer(5, 2);
    layer.d_model = 1000;
    layer.d_ff = 700; // 2.8 MB a matrix
    layer.d_out = 40;
    struct moe_vk_limits limits = no_limits(false);
    limits.range = 1 << 20;
    compile(&program, &layer, MOE_VK_DECODE_TOKENS, &limits);
    const struct moe_vk_sequence *sequence = &program.sequences[MOE_VK_DECODE];
    uint32_t covered[5] = {0}, n_parts = 0;
    for (uint32_t i = 0; i < sequence->n; i++) {
        const struct moe_vk_dispatch *d = &sequence->dispatches[i];
        if (strcmp(d->label, "expert in") != 0)
            continue;
        struct gemv_params p;
        memcpy(&p, d->params, sizeof p);
        assert_int_equal(p.n_experts, 1);
        assert_int_equal(p.first_panel, covered[p.first_expert]);
        covered[p.first_expert] += d->x.fixed;
        n_parts++;
    }
    for (int e = 0; e < 5; e++)
        assert_int_equal(covered[e], 44); // panels of 16 in 700
    assert_int_equal(n_parts, 5 * 3);
    moe_vk_sequences_finish(&program);
}

static struct moe_vk_limits floor_limits(void)
{
    return (struct moe_vk_limits){.range = UINT64_C(128) << 20,
                                  .allocation = UINT64_C(1) << 30,
                                  .groups = {65535, 65535},
                                  .work = INFINITY};
}

static uint32_t block_tokens(const vkmoe_layer_desc *layer, uint32_t max_tokens,
                             const struct moe_vk_limits *limits)
{
    struct moe_vk_program program;
    compile(&program, layer, max_tokens, limits);
    uint32_t n = program.sequences[moe_vk_choose_regime(max_tokens)].block_tokens;
    moe_vk_sequences_finish(&program);
    return n;
}

static void limits_of_the_device_are_kept(void **state)
{
    (void) state;
    struct moe_vk_limits limits = floor_limits();
    vkmoe_layer_desc layer = small_layer(7, 3);
    assert_int_equal(block_tokens(&layer, 65535, &limits), 65535);
    assert_int_equal(block_tokens(&layer, 65536, &limits), 32768);
    assert_int_equal(block_tokens(&layer, 1000000, &limits), 62500);
    layer = small_layer(16, 16); // its tiles fit as well
    assert_int_equal(block_tokens(&layer, 65535, &limits), 65535);
    layer = small_layer(7, 3);
    layer.d_ff = 4096;
    assert_int_equal(block_tokens(&layer, 2000, &limits), 2000);
    assert_int_equal(block_tokens(&layer, 3000, &limits), 1500);
    limits.allocation = 3 << 20;
    assert_int_equal(block_tokens(&layer, 300, &limits), 38);
    layer = small_layer(7, 3);
    limits = floor_limits();
    limits.groups[0] = 63;
    assert_int_equal(block_tokens(&layer, 300, &limits), 75);
    limits = no_limits(true);
    layer = small_layer(1, 1);
    layer.d_model = 256;
    layer.d_ff = 1;
    limits.allocation = 500 << 10; // of x, which is larger than the workspace
    assert_int_equal(block_tokens(&layer, 1000, &limits), 500);
}

// Slots that compete for places are in one block.
static void blocks_keep_capacity_rows(void **state)
{
    (void) state;
    struct moe_vk_program program;
    struct moe_vk_limits limits = floor_limits();
    vkmoe_layer_desc layer = small_layer(7, 3);
    layer.capacity_mode = VKMOE_CAPACITY_BY_GATE;
    layer.capacity = 2;
    layer.capacity_rows = 1000;
    assert_int_equal(block_tokens(&layer, 65535, &limits), 65535);
    assert_int_equal(block_tokens(&layer, 65536, &limits), 32000);
    layer.capacity_rows = 40000;
    check_fails(try_compile(&program, &layer, 65536, &limits), VKMOE_E_UNSUPPORTED,
                "layer.capacity_rows = 40000: 65536 tokens at once: combine: a block of");
    moe_vk_sequences_finish(&program);
    layer.capacity_rows = 0;
    check_fails(try_compile(&program, &layer, 65536, &limits), VKMOE_E_UNSUPPORTED,
                "layer.capacity_rows = 0: 65536 tokens at once: ");
    moe_vk_sequences_finish(&program);
}

// More rows than there are workgroups along an axis.
static void wide_layers_are_cut(void **state)
{
    (void) state;
    struct moe_vk_limits limits = floor_limits();
    limits.range = MOE_VK_MAX_WORDS_SIZE;
    vkmoe_layer_desc layer = small_layer(1, 1);
    layer.d_model = 1;
    for (int wide_out = 0; wide_out < 2; wide_out++) {
        layer.d_ff = wide_out ? 1 : 5 << 20;
        layer.d_out = wide_out ? 5 << 20 : 1;
        assert_int_equal(block_tokens(&layer, 4, &limits), 4);
        assert_int_equal(block_tokens(&layer, 8, &limits), 8);
    }
}

static void what_no_block_makes_fit_is_refused(void **state)
{
    (void) state;
    struct moe_vk_program program;
    struct moe_vk_limits limits = floor_limits();
    vkmoe_layer_desc layer = small_layer(100, 100);
    layer.d_ff = 100;
    limits.range = 32 << 10; // h of one token takes 40 kB
    check_fails(try_compile(&program, &layer, 300, &limits), VKMOE_E_UNSUPPORTED,
                "a block of 1 tokens; descriptor addressing allows 32768");
    moe_vk_sequences_finish(&program);
    layer = small_layer(7, 3);
    layer.d_ff = 4096;
    check_fails(try_compile(&program, &layer, 300, &limits), VKMOE_E_UNSUPPORTED,
                "rows of 4096 weights: 64 of them take 1048832 bytes; this device binds at most");
    moe_vk_sequences_finish(&program);
    limits = floor_limits();
    limits.groups[0] = 2;
    check_fails(try_compile(&program, &layer, 1, &limits), VKMOE_E_UNSUPPORTED,
                "the device allows 2 x 65535");
    moe_vk_sequences_finish(&program);
    limits = floor_limits();
    limits.allocation = 100 << 10;
    check_fails(try_compile(&program, &layer, 1, &limits), VKMOE_E_UNSUPPORTED,
                "allows 102400 in one allocation");
    moe_vk_sequences_finish(&program);
    limits = floor_limits();
    limits.range = 800;
    check_fails(try_compile(&program, &layer, 1, &limits), VKMOE_E_UNSUPPORTED,
                "binds at most 800 without buffer device address");
    moe_vk_sequences_finish(&program);
}

// Indices of SPIR-V are signed: by address a range of words ends at 8 GiB.
static void ranges_by_address_stay_below_2_31_words(void **state)
{
    (void) state;
    struct moe_vk_limits limits = no_limits(true);
    vkmoe_layer_desc layer = small_layer(7, 3);
    layer.d_ff = 1 << 16; // h: 768 KiB a token
    assert_int_equal(block_tokens(&layer, 10922, &limits), 10922);
    assert_int_equal(block_tokens(&layer, 10923, &limits), 5462);
}

// Weights beyond one allocation are in several, each a run of whole experts.
static void segments_hold_whole_chunks(void **state)
{
    (void) state;
    struct moe_layer layer;
    struct moe_vk_weights_map map;
    vkmoe_layer_desc desc = small_layer(60, 4);
    desc.d_shared_ff = 17;
    desc.shared_gate = VKMOE_SHARED_PLAIN;
    check_ok(moe_layer_init(&layer, &desc));
    for (int bda = 0; bda < 2; bda++) {
        struct moe_vk_limits limits = no_limits(bda);
        limits.allocation = 60 << 10;
        limits.range = bda ? limits.range : 20 << 10;
        check_ok(moe_vk_weights_map(&layer, &limits, &map));
        assert_true(map.n_segments > 2 && map.whole == bda);
        if (!bda)
            assert_int_equal(map.segment_experts % map.chunk_experts, 0);
        assert_int_equal(moe_vk_segment_start(&map, map.n_segments), map.total);
        for (uint32_t i = 0; i < map.n_segments; i++) {
            uint64_t start = moe_vk_segment_start(&map, i);
            assert_true(moe_vk_segment_start(&map, i + 1) - start <= limits.allocation);
            if (i > 0)
                assert_int_equal((start - map.experts) % map.expert_size, 0);
        }
    }
}

static void regime_follows_the_token_count(void **state)
{
    (void) state;
    struct moe_vk_program program;
    struct moe_vk_limits limits = no_limits(false);
    vkmoe_layer_desc layer = small_layer(7, 3);
    compile(&program, &layer, MOE_VK_DECODE_TOKENS, &limits);
    assert_int_equal(program.sequences[MOE_VK_DECODE].n, 1 + 3);
    assert_int_equal(program.sequences[MOE_VK_GROUPED].n, 0); // never needed: not compiled
    moe_vk_sequences_finish(&program);
    compile(&program, &layer, MOE_VK_DECODE_TOKENS + 1, &limits);
    assert_int_equal(program.sequences[MOE_VK_DECODE].n, 1 + 3);
    assert_int_equal(program.sequences[MOE_VK_GROUPED].n, 1 + 8);
    moe_vk_sequences_finish(&program);
    assert_int_equal(moe_vk_choose_regime(1), MOE_VK_DECODE);
    assert_int_equal(moe_vk_choose_regime(MOE_VK_DECODE_TOKENS), MOE_VK_DECODE);
    assert_int_equal(moe_vk_choose_regime(MOE_VK_DECODE_TOKENS + 1), MOE_VK_GROUPED);
}

static void too_large_for_32_bits_is_refused(void **state)
{
    (void) state;
    struct moe_layer layer;
    struct moe_vk_block block;
    vkmoe_layer_desc desc = small_layer(2, 1);
    desc.d_model = desc.d_ff = 1 << 20;
    check_ok(moe_layer_init(&layer, &desc));
    check_fails(moe_vk_block(&layer, 0, &block), VKMOE_E_UNSUPPORTED, "32-bit indices");
    desc.d_model = desc.d_ff = desc.d_out = 1 << 16; // 2^31 uvec4 of weights, and biases
    check_ok(moe_layer_init(&layer, &desc));
    check_fails(moe_vk_block(&layer, 0, &block), VKMOE_E_UNSUPPORTED, "32-bit indices");
    desc.d_out -= 64;
    check_ok(moe_layer_init(&layer, &desc));
    check_ok(moe_vk_block(&layer, 0, &block));
}

// ---- SPIR-V ------------------------------------------------------------------------------------

enum { OP_EXTENSION = 10, OP_CAPABILITY = 17, CAPABILITY_SHADER = 1 };

// What a module declares beyond SPIR-V 1.3 and the capability Shader.
static uint32_t extras(const uint32_t *words, size_t n_words)
{
    uint32_t n = words[1] > 0x10300;
    for (size_t i = 5; i < n_words; i += words[i] >> 16) {
        uint32_t op = words[i] & 0xffff;
        n += op == OP_CAPABILITY && words[i + 1] != CAPABILITY_SHADER;
        n += op == OP_EXTENSION;
        assert_true(words[i] >> 16 > 0);
    }
    return n;
}

static void spirv_of_the_floor_declares_nothing(void **state)
{
    (void) state;
    size_t total = 0;
    for (int i = 0; i < MOE_N_SPV; i++) {
        const struct moe_spv *spv = &moe_spv_table[i];
        bool beyond = strstr(spv->name, "_bda") || strstr(spv->name, "_f16") ||
                      strstr(spv->name, "_int8");
        uint32_t n = extras(spv->words, spv->size / 4);
        if (beyond ? n == 0 : n > 0)
            fail_msg("%s declares %u things beyond the floor", spv->name, n);
        total += spv->size;
    }
    assert_true(total <= 2 << 20 && MOE_N_SPV <= 200);
    // Names pair up: a kernel, then its twin by address. Kernels by address alone come last.
    for (int i = 0, n_single = 0; i < MOE_N_SPV; i++) {
        char twin[64];
        snprintf(twin, sizeof twin, "%s_bda", moe_spv_table[i].name);
        n_single += strstr(moe_spv_table[i].name, "_bda") != NULL;
        if (n_single > 0)
            continue;
        assert_true(i + 1 < MOE_N_SPV);
        assert_string_equal(moe_spv_table[++i].name, twin);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_guard_every_conflict),
        cmocka_unit_test(verify_programs_are_guarded),
        cmocka_unit_test(ranges_are_aligned_and_inside),
        cmocka_unit_test(chunks_and_pieces_cover_everything),
        cmocka_unit_test(limits_of_the_device_are_kept),
        cmocka_unit_test(blocks_keep_capacity_rows),
        cmocka_unit_test(wide_layers_are_cut),
        cmocka_unit_test(what_no_block_makes_fit_is_refused),
        cmocka_unit_test(ranges_by_address_stay_below_2_31_words),
        cmocka_unit_test(segments_hold_whole_chunks),
        cmocka_unit_test(regime_follows_the_token_count),
        cmocka_unit_test(too_large_for_32_bits_is_refused),
        cmocka_unit_test(spirv_of_the_floor_declares_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
