// SPDX-License-Identifier: MIT
// Compiled programs without a device: barriers, ranges, limits, regimes, and the SPIR-V itself.
#include "check.h"

#include <stdlib.h>

#include "base/bits.h"
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

static void compile(struct moe_vk_program *program, const vkmoe_layer_desc *desc,
                    uint32_t max_tokens, bool scores, bool bda)
{
    struct moe_layer layer;
    memset(program, 0, sizeof *program);
    check_ok(moe_layer_init(&layer, desc));
    moe_graph_forward(&program->base.graph, &layer, scores);
    program->base.max_tokens = max_tokens;
    check_ok(moe_vk_compile(program, bda));
}

typedef void (*visitor)(struct moe_vk_program *program);

// Programs over what changes their shape.
static void each_program(visitor visit)
{
    static const uint32_t experts[][2] = {{1, 1}, {2, 1}, {7, 3}, {60, 4}, {512, 10}, {1024, 64}};
    static const uint32_t tokens[] = {1, 4, 5, 300};
    struct moe_vk_program *program = malloc(sizeof *program);
    assert_non_null(program);
    for (size_t e = 0; e < MOE_COUNT(experts); e++)
        for (size_t t = 0; t < MOE_COUNT(tokens); t++)
            for (uint32_t bits = 0; bits < 32; bits++) {
                vkmoe_layer_desc layer = small_layer(experts[e][0], experts[e][1]);
                layer.gated = bits & 1;
                layer.in_type = bits & 1 ? VKMOE_BF16 : VKMOE_F32;
                layer.d_shared_ff = bits & 2 ? 17 : 0;
                if (bits & 2)
                    layer.shared_gate = bits & 4 ? VKMOE_SHARED_SIGMOID : VKMOE_SHARED_PLAIN;
                compile(program, &layer, tokens[t], bits & 8, bits & 16);
                visit(program);
            }
    free(program);
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

static uint32_t n_barriers;

static void check_barriers(struct moe_vk_program *program)
{
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++) {
        struct moe_vk_dispatch *all = program->dispatches[regime];
        uint32_t n = program->n_dispatches[regime];
        assert_int_equal(unguarded_pairs(all, n), 0);
        // Every barrier is needed: without it the same check finds a pair.
        for (uint32_t i = 0; i < n; i++) {
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

// ---- ranges and limits -------------------------------------------------------------------------

static void check_ranges(struct moe_vk_program *program)
{
    const struct moe_layer *layer = &program->base.graph.layer;
    struct moe_vk_weights_map map;
    check_ok(moe_vk_weights_map(layer, &map));
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++)
        for (uint32_t i = 0; i < program->n_dispatches[regime]; i++) {
            const struct moe_vk_dispatch *d = &program->dispatches[regime][i];
            assert_true(d->params_size <= sizeof d->params);
            for (int slot = 0; slot < 4; slot++) {
                const struct moe_vk_range *range = &d->ranges[slot];
                assert_int_equal(range->size > 0, d->access[slot] != 0);
                assert_int_equal(range->offset % 256, 0);
                if (range->buffer == MOE_VK_BUF_WORK)
                    assert_true(range->offset + range->size <= program->work_size);
                if (range->size > 0 && range->buffer == MOE_VK_BUF_WEIGHTS)
                    assert_true(range->size == map.total && !(d->access[slot] & MOE_VK_WRITE));
            }
        }
}

static void ranges_are_aligned_and_inside(void **state)
{
    (void) state;
    each_program(check_ranges);
}

static struct moe_vk_caps floor_caps(void)
{
    struct moe_vk_caps caps = {.max_storage_range = UINT64_MAX, .max_allocation = UINT64_MAX};
    moe_vk_caps_floor(&caps);
    return caps;
}

static enum vkmoe_status check_at(const vkmoe_layer_desc *layer, uint32_t max_tokens,
                                  const struct moe_vk_caps *caps, bool bda)
{
    struct moe_vk_program *program = malloc(sizeof *program);
    assert_non_null(program);
    compile(program, layer, max_tokens, false, bda);
    enum vkmoe_status status = moe_vk_check(caps, bda, program, MOE_VK_GROUPED);
    free(program);
    return status;
}

static void limits_of_the_device_are_kept(void **state)
{
    (void) state;
    struct moe_vk_caps caps = floor_caps();
    vkmoe_layer_desc layer = small_layer(7, 3);
    check_ok(check_at(&layer, 65535, &caps, false));
    check_fails(check_at(&layer, 65536, &caps, false), VKMOE_E_UNSUPPORTED, "65536 workgroups");
    layer = small_layer(16, 16); // its tiles fit as well
    check_ok(check_at(&layer, 65535, &caps, false));
    layer = small_layer(7, 3);
    layer.d_ff = 4096;
    check_fails(check_at(&layer, 3000, &caps, false), VKMOE_E_UNSUPPORTED,
                "max_tokens = 3000; descriptor addressing allows");
    check_ok(check_at(&layer, 2000, &caps, false));
    caps.max_groups[0] = 63;
    check_fails(check_at(&layer, 300, &caps, false), VKMOE_E_UNSUPPORTED, "the device allows 63");
}

// Indices of SPIR-V are signed: by address a range of words ends at 8 GiB.
static void ranges_by_address_stay_below_2_31_words(void **state)
{
    (void) state;
    struct moe_vk_caps caps = floor_caps();
    vkmoe_layer_desc layer = small_layer(7, 3);
    layer.d_ff = 1 << 16; // h: 768 KiB a token
    check_ok(check_at(&layer, 10922, &caps, true));
    check_fails(check_at(&layer, 10923, &caps, true), VKMOE_E_UNSUPPORTED,
                "32-bit addressing allows 8589934592");
}

static void regime_follows_the_token_count(void **state)
{
    (void) state;
    struct moe_vk_program *program = malloc(sizeof *program);
    assert_non_null(program);
    vkmoe_layer_desc layer = small_layer(7, 3);
    compile(program, &layer, MOE_VK_DECODE_TOKENS, false, false);
    assert_int_equal(program->n_dispatches[MOE_VK_DECODE], 3);
    assert_int_equal(program->n_dispatches[MOE_VK_GROUPED], 0); // never needed: not compiled
    compile(program, &layer, MOE_VK_DECODE_TOKENS + 1, false, false);
    assert_int_equal(program->n_dispatches[MOE_VK_DECODE], 3);
    assert_int_equal(program->n_dispatches[MOE_VK_GROUPED], 9);
    assert_int_equal(moe_vk_choose_regime(1), MOE_VK_DECODE);
    assert_int_equal(moe_vk_choose_regime(MOE_VK_DECODE_TOKENS), MOE_VK_DECODE);
    assert_int_equal(moe_vk_choose_regime(MOE_VK_DECODE_TOKENS + 1), MOE_VK_GROUPED);
    free(program);
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
        bool bda = strstr(spv->name, "_bda");
        uint32_t n = extras(spv->words, spv->size / 4);
        if (bda ? n == 0 : n > 0)
            fail_msg("%s declares %u things beyond the floor", spv->name, n);
        total += spv->size;
    }
    assert_true(total < 1 << 20);
    // Names pair up: a kernel, then its twin by address.
    for (int i = 0; i < MOE_N_SPV; i += 2)
        assert_int_equal(strncmp(moe_spv_table[i].name, moe_spv_table[i + 1].name,
                                 strlen(moe_spv_table[i].name)),
                         0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(barriers_guard_every_conflict),
        cmocka_unit_test(ranges_are_aligned_and_inside),
        cmocka_unit_test(limits_of_the_device_are_kept),
        cmocka_unit_test(ranges_by_address_stay_below_2_31_words),
        cmocka_unit_test(regime_follows_the_token_count),
        cmocka_unit_test(too_large_for_32_bits_is_refused),
        cmocka_unit_test(spirv_of_the_floor_declares_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
