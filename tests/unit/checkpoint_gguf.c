// SPDX-License-Identifier: MIT
// GGUF files with one thing wrong, and what only their keys and types decide.
#include "check.h"
#include "fixture.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/families/families.h"
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <vkmoe/checkpoint.h>

enum { MAX_KEYS = 12, MAX_TENSORS = 8, D = 256, F = 256, E = 2 };

struct keys {
    struct moe_gguf_value values[MAX_KEYS];
    uint32_t numbers[MAX_KEYS];
    struct moe_gguf_text text;
    char names[MAX_KEYS][64];
    size_t n;
};

static void add_number(struct keys *keys, const char *arch, const char *name, uint32_t value)
{
    size_t i = keys->n++;
    keys->numbers[i] = value;
    snprintf(keys->names[i], sizeof keys->names[i], "%s.%s", arch, name);
    keys->values[i] = (struct moe_gguf_value){
        .key = keys->names[i], .type = MOE_GGUF_U32, .n = 1, .data = &keys->numbers[i]};
}

static void add_keys(struct keys *keys, const char *arch, uint32_t n_layers, uint32_t n_experts)
{
    *keys = (struct keys){.text = {arch, strlen(arch)}, .n = 1};
    keys->values[0] = (struct moe_gguf_value){
        .key = "general.architecture", .type = MOE_GGUF_STRING, .n = 1, .data = &keys->text};
    add_number(keys, arch, "block_count", n_layers);
    add_number(keys, arch, "embedding_length", D);
    add_number(keys, arch, "expert_count", n_experts);
    add_number(keys, arch, "expert_used_count", 1);
}

// Experts in q8_0, all of whose values are 3, and scales for each of them.
static void write_scaled(const struct keys *keys)
{
    static const char *const names[] = {"blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight",
                                        "blk.0.ffn_down_exps.weight"};
    static const float scales[E] = {2, 5};
    struct moe_gguf_source sources[5];
    enum { BLOCK = 34, N_BLOCKS = E * D * F / 32 };
    unsigned char *blocks = calloc(N_BLOCKS, BLOCK);
    float *zeros = calloc(E * D, sizeof *zeros);
    assert_non_null(blocks);
    assert_non_null(zeros);
    for (size_t i = 0; i < N_BLOCKS; i++) {
        blocks[i * BLOCK + 1] = 0x3c; // 1 as an f16
        memset(blocks + i * BLOCK + 2, 3, 32);
    }
    for (size_t i = 0; i < MOE_COUNT(names); i++)
        sources[i] = (struct moe_gguf_source){.name = names[i], .type_id = MOE_GGML_Q8_0,
                                              .n_dims = 3, .dims = {D, F, E}, .data = blocks};
    sources[3] = (struct moe_gguf_source){.name = "blk.0.ffn_gate_inp.weight", .n_dims = 2,
                                          .dims = {D, E}, .data = zeros};
    sources[4] = (struct moe_gguf_source){.name = "blk.0.ffn_up_exps.scale", .n_dims = 1,
                                          .dims = {E}, .data = scales};
    check_ok(moe_gguf_write(moe_host_default(), scratch_path("a.gguf"), keys->values, keys->n,
                            sources, 5, NULL));
    free(blocks);
    free(zeros);
}

// The experts of layer 0 in one type; `without` is left out.
static const char *write_layer(const struct keys *keys, uint32_t type, const char *without)
{
    static const char *const names[] = {"ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps",
                                        "ffn_down_exps"};
    struct moe_gguf_source sources[MAX_TENSORS];
    char full[MAX_TENSORS][48];
    void *zeros = calloc(E * D * F, 4);
    size_t n = 0;
    assert_non_null(zeros);
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        if (without && strcmp(without, names[i]) == 0)
            continue;
        snprintf(full[n], sizeof full[n], "blk.0.%s.weight", names[i]);
        sources[n] = (struct moe_gguf_source){
            .name = full[n], .type_id = i == 0 ? MOE_GGML_F32 : type, .n_dims = i == 0 ? 2 : 3,
            .dims = {D, i == 0 ? E : F, E}, .data = zeros};
        n++;
    }
    check_ok(moe_gguf_write(moe_host_default(), scratch_path("a.gguf"), keys->values, keys->n,
                            sources, n, NULL));
    free(zeros);
    return scratch_path("a.gguf");
}

static vkmoe_checkpoint *open_layer(const struct keys *keys, uint32_t type, const char *without)
{
    vkmoe_checkpoint *checkpoint;
    check_ok(vkmoe_checkpoint_open(write_layer(keys, type, without), NULL, &checkpoint));
    return checkpoint;
}

static void refuse_layer(const struct keys *keys, uint32_t type, const char *without,
                         enum vkmoe_status want, const char *part)
{
    vkmoe_checkpoint_layer layer;
    vkmoe_checkpoint *checkpoint = open_layer(keys, type, without);
    check_fails(vkmoe_checkpoint_get_layer(checkpoint, 0, &layer), want, part);
    vkmoe_checkpoint_destroy(checkpoint);
}

// What the types of files become.
static void test_types(void **state)
{
    static const struct {
        uint32_t id;
        enum vkmoe_dtype type;
        bool exact;
    } cases[] = {
        {MOE_GGML_F32, VKMOE_F32, true},      {MOE_GGML_F16, VKMOE_F16, true},
        {MOE_GGML_BF16, VKMOE_BF16, true},    {MOE_GGML_Q8_0, VKMOE_Q8_0, true},
        {MOE_GGML_Q4_0, VKMOE_Q4_0, true},    {MOE_GGML_Q4_K, VKMOE_Q4_K, true},
        {MOE_GGML_Q5_K, VKMOE_Q5_K, true},    {MOE_GGML_Q6_K, VKMOE_Q6_K, true},
        {MOE_GGML_Q2_K, VKMOE_Q2_K, true},    {MOE_GGML_MXFP4, VKMOE_MXFP4, true},
        {MOE_GGML_Q5_0, VKMOE_Q8_0, true},    {MOE_GGML_IQ4_NL, VKMOE_Q8_0, true},
        {MOE_GGML_Q3_K, VKMOE_Q6_K, true},    {MOE_GGML_Q4_1, VKMOE_Q8_0, false},
        {MOE_GGML_Q5_1, VKMOE_Q8_0, false},   {MOE_GGML_IQ4_XS, VKMOE_Q8_0, false},
        {MOE_GGML_NVFP4, VKMOE_Q8_0, false},
    };
    struct keys keys;
    (void) state;
    add_keys(&keys, "llama", 1, E);
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        vkmoe_checkpoint_part part;
        vkmoe_checkpoint *checkpoint = open_layer(&keys, cases[i].id, NULL);
        check_ok(vkmoe_checkpoint_get_part(checkpoint, 0, VKMOE_PART_DOWN, &part));
        if (part.type != cases[i].type || part.exact != cases[i].exact)
            fail_msg("type %u: %s, %s", cases[i].id, vkmoe_dtype_name(part.type),
                     part.exact ? "exact" : "not exact");
        vkmoe_checkpoint_destroy(checkpoint);
    }
}

// A second scale beside the blocks: of Gemma-4 it is the factor of each expert, of all others of
// each weight.
static void test_scaled(void **state)
{
    struct keys keys;
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_part part;
    float row[D];
    (void) state;
    add_keys(&keys, "llama", 1, E);
    write_scaled(&keys);
    check_ok(vkmoe_checkpoint_open(scratch_path("a.gguf"), NULL, &checkpoint));
    check_ok(vkmoe_checkpoint_get_part(checkpoint, 0, VKMOE_PART_UP, &part));
    assert_int_equal(part.type, VKMOE_Q8_0);
    assert_false(part.exact);
    for (uint32_t e = 0; e < E; e++) {
        check_ok(vkmoe_checkpoint_read(checkpoint, 0, VKMOE_PART_UP, e, F - 1, 1, row));
        assert_true(row[0] == (e ? 15.0f : 6.0f) && row[D - 1] == row[0]);
        check_ok(vkmoe_checkpoint_read(checkpoint, 0, VKMOE_PART_GATE, e, 0, 1, row));
        assert_true(row[0] == 3);
    }
    vkmoe_checkpoint_destroy(checkpoint);
}

static void test_refused(void **state)
{
    struct keys keys;
    vkmoe_checkpoint *checkpoint;
    (void) state;
    add_keys(&keys, "llama", 1, E);
    refuse_layer(&keys, 16, NULL, VKMOE_E_UNSUPPORTED,
                 "'blk.0.ffn_gate_exps.weight': iq2_xxs (2, 256, 256): this type cannot be read");
    refuse_layer(&keys, MOE_GGML_F16, "ffn_down_exps", VKMOE_E_DATA,
                 "'blk.0.ffn_down_exps.weight' is missing (experts.down)");
    refuse_layer(&keys, MOE_GGML_F16, "ffn_gate_inp", VKMOE_E_DATA,
                 "'blk.0.ffn_gate_inp.weight' is missing (router)");
    add_keys(&keys, "llama", 1, 3);
    refuse_layer(&keys, MOE_GGML_F16, NULL, VKMOE_E_DATA,
                 "'blk.0.ffn_gate_exps.weight' has 2 experts, the configuration 3");
    add_keys(&keys, "llama", 1, E);
    add_number(&keys, "llama", "expert_feed_forward_length", 512);
    refuse_layer(&keys, MOE_GGML_F16, NULL, VKMOE_E_DATA, "(512, 256)");
    add_keys(&keys, "llama", 1, E);
    add_number(&keys, "llama", "expert_gating_func", 9);
    refuse_layer(&keys, MOE_GGML_F16, NULL, VKMOE_E_DATA, "a gating function from 1 to 4");
    add_keys(&keys, "unheard-of", 1, E);
    check_fails(vkmoe_checkpoint_open(write_layer(&keys, MOE_GGML_F16, NULL), NULL, &checkpoint),
                VKMOE_E_UNSUPPORTED, "'unheard-of' is no family known here: ");
    assert_null(checkpoint);
}

// Architectures of several families: a key beside the usual ones decides.
static void test_families(void **state)
{
    static const struct {
        const char *arch, *key;
        uint32_t n_layers, value, n_tokens;
        const char *family;
    } cases[] = {
        {"deepseek2", NULL, 1, 0, 100, "deepseek_v2"},
        {"deepseek2", "expert_gating_func", 1, 1, 100, "deepseek_v2"},
        {"deepseek2", "expert_gating_func", 1, 2, 100, "deepseek_v3"},
        {"deepseek2", NULL, 47, 0, 154880, "glm4_moe_lite"},
        {"deepseek2", NULL, 47, 0, 100, "deepseek_v2"},
        {"deepseek2", NULL, 46, 0, 154880, "deepseek_v2"},
        {"deepseek2", "expert_gating_func", 48, 1, 154880, "deepseek_v2"},
        {"grok", NULL, 1, 0, 100, "grok-1"},
        {"grok", "router_logit_softcapping", 1, 30, 100, "grok-2"},
        {"mistral3", NULL, 1, 0, 100, "mixtral"},
    };
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        struct keys keys;
        vkmoe_checkpoint_info info;
        add_keys(&keys, cases[i].arch, cases[i].n_layers, E);
        add_number(&keys, cases[i].arch, "vocab_size", cases[i].n_tokens);
        if (cases[i].key)
            add_number(&keys, cases[i].arch, cases[i].key, cases[i].value);
        vkmoe_checkpoint *checkpoint = open_layer(&keys, MOE_GGML_F16, NULL);
        check_ok(vkmoe_checkpoint_get_info(checkpoint, &info));
        assert_string_equal(info.family, cases[i].family);
        assert_string_equal(info.says, cases[i].arch);
        assert_int_equal(info.n_layers, cases[i].n_layers);
        vkmoe_checkpoint_destroy(checkpoint);
    }
}

static void facts_of(const struct keys *keys, const char *arch, struct moe_facts *out)
{
    struct moe_gguf gguf;
    check_ok(moe_gguf_open(moe_host_default(), write_layer(keys, MOE_GGML_F16, NULL), &gguf));
    const struct moe_lookup lookup = {.file = "a.gguf", .gguf = &gguf, .arch = arch};
    check_ok(moe_family_facts(moe_family_of_gguf(&gguf, arch), &lookup, 0, out));
    moe_gguf_close(&gguf);
}

// What holds where a key is missing.
static void test_silent(void **state)
{
    struct keys keys;
    struct moe_facts facts;
    (void) state;
    // Groups of DeepSeek-V3, by its sizes; Kimi-K2 has another number of experts.
    for (uint32_t n_experts = 256; n_experts <= 384; n_experts += 128) {
        add_keys(&keys, "deepseek2", 61, n_experts);
        keys.numbers[2] = 7168; // embedding_length
        add_number(&keys, "deepseek2", "expert_gating_func", 2);
        facts_of(&keys, "deepseek2", &facts);
        assert_int_equal(facts.d.n_group, n_experts == 256 ? 8 : 0);
        assert_int_equal(facts.d.topk_group, n_experts == 256 ? 4 : 0);
    }
    add_keys(&keys, "deepseek2", 61, 256);
    keys.numbers[2] = 7168;
    add_number(&keys, "deepseek2", "expert_gating_func", 2);
    add_number(&keys, "deepseek2", "expert_group_count", 1);
    facts_of(&keys, "deepseek2", &facts);
    assert_int_equal(facts.d.n_group, 0);

    // 0 is as good as no key; Cohere's are sigmoids then.
    static const struct {
        const char *arch;
        uint32_t value;
        enum vkmoe_score score;
        enum vkmoe_gate_source source;
        enum vkmoe_norm norm;
    } cases[] = {
        {"llama", 0, VKMOE_SCORE_SOFTMAX, VKMOE_GATE_SCORE, VKMOE_NORM_SUM_PLUS_EPS},
        {"afmoe", 0, VKMOE_SCORE_SIGMOID, VKMOE_GATE_SCORE, VKMOE_NORM_SUM_PLUS_EPS},
        {"cohere2moe", 0, VKMOE_SCORE_SIGMOID, VKMOE_GATE_SCORE, VKMOE_NORM_SUM_PLUS_EPS},
        {"cohere2moe", 1, VKMOE_SCORE_SOFTMAX, VKMOE_GATE_SOFTMAX_SELECTED, VKMOE_NORM_NONE},
    };
    for (size_t i = 0; i < 2 * MOE_COUNT(cases); i++) {
        const size_t k = i / 2;
        add_keys(&keys, cases[k].arch, 1, E);
        if (i % 2 == 0 || cases[k].value > 0)
            add_number(&keys, cases[k].arch, "expert_gating_func", cases[k].value);
        facts_of(&keys, cases[k].arch, &facts);
        assert_int_equal(facts.d.score, cases[k].score);
        assert_int_equal(facts.d.gate_source, cases[k].source);
        assert_int_equal(facts.d.norm, cases[k].norm);
    }
}

static void test_dense(void **state)
{
    struct keys keys;
    vkmoe_checkpoint_layer layer;
    (void) state;
    add_keys(&keys, "llama", 2, E);
    vkmoe_checkpoint *checkpoint = open_layer(&keys, MOE_GGML_F16, NULL);
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 1, &layer));
    assert_false(layer.has_experts);
    assert_non_null(strstr(layer.reason, "'blk.1.ffn_gate_inp.weight'"));
    vkmoe_checkpoint_destroy(checkpoint);
    add_number(&keys, "llama", "leading_dense_block_count", 1);
    checkpoint = open_layer(&keys, MOE_GGML_F16, NULL);
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 0, &layer));
    assert_false(layer.has_experts);
    assert_string_equal(layer.reason, "dense: layer 0, and llama.leading_dense_block_count is 1");
    vkmoe_checkpoint_destroy(checkpoint);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_scaled),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_silent),
        cmocka_unit_test(test_dense),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
