// SPDX-License-Identifier: MIT
// Checkpoints with one thing wrong: a clear error that names it, and nothing made.
#include "checkpoint_folder.h"

#include "budget.h"
#include "fixture.h"
#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <vkmoe/checkpoint.h>

#define EXPERT "model.layers.1.block_sparse_moe.experts."

static enum vkmoe_status open_scratch(vkmoe_checkpoint **out)
{
    return vkmoe_checkpoint_open(scratch_folder(), NULL, out);
}

// Opening the folder fails.
static void refuse_open(const struct folder *folder, const char *config, enum vkmoe_status want,
                        const char *part)
{
    vkmoe_checkpoint *checkpoint = (vkmoe_checkpoint *) (void *) &checkpoint;
    folder_write(folder, config);
    check_fails(open_scratch(&checkpoint), want, part);
    assert_null(checkpoint);
}

// Loading a layer of it fails.
static void refuse_load(const struct folder *folder, const char *config, uint32_t layer,
                        enum vkmoe_status want, const char *part)
{
    vkmoe_checkpoint *checkpoint;
    vkmoe_layer_desc desc;
    vkmoe_weights *weights = (vkmoe_weights *) (void *) &checkpoint;
    vkmoe_context *context = context_on("reference", NULL);
    folder_write(folder, config);
    check_ok(open_scratch(&checkpoint));
    check_fails(vkmoe_checkpoint_load(checkpoint, context, layer, NULL, &desc, &weights, NULL),
                want, part);
    assert_null(weights);
    vkmoe_checkpoint_destroy(checkpoint);
    vkmoe_context_destroy(context);
}

// Layer 1 has experts.
static void accept(const struct folder *folder, const char *config)
{
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_layer layer;
    folder_write(folder, config);
    check_ok(open_scratch(&checkpoint));
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 1, &layer));
    if (!layer.has_experts)
        fail_msg("%s: %s", config, layer.reason);
    vkmoe_checkpoint_destroy(checkpoint);
}

static void test_good(void **state)
{
    struct folder folder;
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_info info;
    vkmoe_checkpoint_layer layer;
    (void) state;
    folder_mixtral(&folder);
    folder_write(&folder, MIXTRAL_CONFIG(""));
    check_ok(open_scratch(&checkpoint));
    check_ok(vkmoe_checkpoint_get_info(checkpoint, &info));
    assert_int_equal(info.kind, VKMOE_CHECKPOINT_HF);
    assert_string_equal(info.family, "mixtral");
    assert_int_equal(info.n_layers, 2);
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 1, &layer));
    assert_true(layer.has_experts);
    assert_int_equal(layer.n_tensors, 13);
    assert_int_equal(layer.file_size, 4 * (4 * 8 + 4 * 3 * 6 * 8));
    assert_int_equal(layer.size, layer.file_size);
    assert_int_equal(layer.token_size, 4 * (4 * 8 + 2 * 3 * 6 * 8));
    assert_string_equal(layer.router, "softmax over 4, best 2, divided by their sum");
    check_ok(vkmoe_checkpoint_get_layer(checkpoint, 0, &layer));
    assert_false(layer.has_experts);
    assert_non_null(strstr(layer.reason, "model.layers.0.block_sparse_moe.gate.weight"));
    vkmoe_checkpoint_destroy(checkpoint);
    folder_finish(&folder);
}

static void test_config(void **state)
{
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    refuse_open(&folder, "{\"model_type\": \"llama\"}", VKMOE_E_UNSUPPORTED,
                "'llama' is no family known here: ");
    refuse_open(&folder, "{\"model_type\": \"llama\"}", VKMOE_E_UNSUPPORTED, "mixtral");
    refuse_open(&folder, "{\"model_type\": \"ernie4_5_vl_moe\", \"text_config\": {\"model_type\": "
                "\"ernie4_5_vl_moe_text\"}}", VKMOE_E_UNSUPPORTED,
                "'ernie4_5_vl_moe' cannot be computed here: its layers have two banks of experts");
    refuse_open(&folder, "{\"model_type\": \"ernie4_5_moe_vl\"}", VKMOE_E_UNSUPPORTED,
                "which of them a token takes is decided by its type");
    refuse_open(&folder, "{}", VKMOE_E_UNSUPPORTED, "'' is no family");
    refuse_open(&folder, "{\"model_type\": ", VKMOE_E_DATA, "config.json");
    refuse_open(&folder, "[]", VKMOE_E_DATA, "not a JSON object");
    refuse_open(&folder, "{\"model_type\": \"mixtral\"}", VKMOE_E_DATA, "0 layers");
    refuse_open(&folder, "{\"model_type\": \"mixtral\", \"num_hidden_layers\": 2.5}", VKMOE_E_DATA,
                "num_hidden_layers is not a whole number");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"norm_topk_prob\": 3"), 1, VKMOE_E_DATA,
                "norm_topk_prob is not true or false");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"hidden_act\": \"mish\""), 1, VKMOE_E_UNSUPPORTED,
                "activation 'mish'");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"moe_topk\": [2]"), 2, VKMOE_E_ARGUMENT,
                "layer 2 of a model with 2");
    folder_finish(&folder);
}

// What a configuration says is taken or refused, never passed over.
static void test_words(void **state)
{
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    refuse_load(&folder, MIXTRAL_CONFIG(", \"scoring_func\": \"softmx\""), 1, VKMOE_E_UNSUPPORTED,
                "scoring_func is 'softmx'; known here are softmax, sigmoid and sqrtsoftplus");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"score_func\": true"), 1, VKMOE_E_DATA,
                "score_func is not the name of a score");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"swiglu_limit\": 7"), 1, VKMOE_E_UNSUPPORTED,
                "swiglu_limit is 7, but this family's experts are not clamped");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"swiglu_limits_shared\": [0, 2.5]"), 1,
                VKMOE_E_UNSUPPORTED, "swiglu_limits_shared is 2.5, but this family's");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"swiglu_limit\": -1"), 1, VKMOE_E_DATA,
                "swiglu_limit is not 0 or more");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"zero_expert_num\": 1, \"zero_expert_type\": \"drop\""),
                1, VKMOE_E_UNSUPPORTED, "zero_expert_type is 'drop'; known here is identity");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"zero_expert_num\": 1, \"zero_expert_type\": 2"), 1,
                VKMOE_E_DATA, "zero_expert_type is not the name of a kind of expert");
    accept(&folder, MIXTRAL_CONFIG(", \"zero_expert_num\": 0, \"zero_expert_type\": \"drop\""));
    accept(&folder, MIXTRAL_CONFIG(", \"scoring_func\": \"noaux_tc\", \"swiglu_limit\": 0, "
                                   "\"swiglu_limits_shared\": [3, 0]"));
    folder_finish(&folder);
}

static void test_lists(void **state)
{
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    refuse_load(&folder, "{\"model_type\": \"mixtral\", \"hidden_size\": 8, \"num_layers\": 2, "
                "\"intermediate_size\": 6, \"num_local_experts\": 4, \"moe_topk\": [2]}", 1,
                VKMOE_E_DATA, "moe_topk has 1 entries, none for layer 1");
    refuse_load(&folder, "{\"model_type\": \"mixtral\", \"hidden_size\": 8, \"num_layers\": 2, "
                "\"intermediate_size\": 6, \"num_local_experts\": 4}", 1, VKMOE_E_DATA,
                "does not say how many experts a token takes");
    folder_finish(&folder);
}

static void test_dense(void **state)
{
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    refuse_load(&folder, MIXTRAL_CONFIG(""), 0, VKMOE_E_ARGUMENT, "layer 0 has no experts: there");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"first_k_dense_replace\": 2"), 1, VKMOE_E_ARGUMENT,
                "dense: layer 1, and first_k_dense_replace is 2");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"mlp_only_layers\": [1]"), 1, VKMOE_E_ARGUMENT,
                "dense: layer 1 is in mlp_only_layers");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"moe_layer_freq\": [1, 0]"), 1, VKMOE_E_ARGUMENT,
                "moe_layer_freq is 0");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"mlp_layer_types\": [\"sparse\", \"dense\"]"), 1,
                VKMOE_E_ARGUMENT, "mlp_layer_types is 'dense'");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"hybrid_override_pattern\": \"EM\""), 1,
                VKMOE_E_ARGUMENT, "letter 1 of hybrid_override_pattern is M");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"decoder_sparse_step\": 3"), 1, VKMOE_E_ARGUMENT,
                "decoder_sparse_step is 3");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"moe_layers_enum\": \"0,3\""), 1, VKMOE_E_ARGUMENT,
                "moe_layers_enum is '0,3'");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"first_k_dense_replace\": 1e30"), 1, VKMOE_E_ARGUMENT,
                "first_k_dense_replace is 4294967295");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"scoring_func\": 1e30"), 1, VKMOE_E_DATA,
                "scoring_func is not a gating function from 1 to 4");
    // What a terminal would obey is shown as a number.
    refuse_load(&folder, MIXTRAL_CONFIG(", \"hybrid_override_pattern\": \"E\\u001b[2J\""), 1,
                VKMOE_E_ARGUMENT, "letter 1 of hybrid_override_pattern is \\x1b");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"mlp_layer_types\": [\"x\", \"a\\u001b\\u00e9b\"]"),
                1, VKMOE_E_ARGUMENT, "mlp_layer_types is 'a\\x1b\\xc3\\xa9b'");
    // Rules that layer 1 passes, and one that is not for models with an encoder.
    accept(&folder, MIXTRAL_CONFIG(", \"first_k_dense_replace\": 1, \"mlp_only_layers\": [0], "
                                   "\"moe_layer_freq\": [0, 1], \"moe_layers_enum\": \"1,2\", "
                                   "\"decoder_sparse_step\": 2, \"moe_layers\": [1], "
                                   "\"hybrid_override_pattern\": \"ME\""));
    accept(&folder, MIXTRAL_CONFIG(", \"decoder_sparse_step\": 3, \"encoder_sparse_step\": 3"));
    folder_finish(&folder);
}

static void test_tensors(void **state)
{
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    folder_remove(&folder, EXPERT "3.w2.weight");
    refuse_load(&folder, MIXTRAL_CONFIG(""), 1, VKMOE_E_DATA,
                "'" EXPERT "3.w2.weight' is missing (expert 3 of 4)");
    folder_finish(&folder);
    folder_mixtral(&folder);
    folder_remove(&folder, "model.layers.1.block_sparse_moe.gate.weight");
    refuse_load(&folder, MIXTRAL_CONFIG(""), 1, VKMOE_E_DATA,
                "'model.layers.1.block_sparse_moe.gate.weight' is missing (router)");
    folder_finish(&folder);
    folder_mixtral(&folder);
    folder_remove(&folder, EXPERT "0.w1.weight");
    refuse_load(&folder, MIXTRAL_CONFIG(""), 1, VKMOE_E_DATA,
                "'" EXPERT "0.w1.weight' is missing (experts.gate)");
    folder_finish(&folder);
}

// What the configuration asks for and the family has no name for.
static void test_no_name(void **state)
{
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    refuse_load(&folder, MIXTRAL_CONFIG(", \"router_bias\": true"), 1, VKMOE_E_DATA,
                "router_bias asks for router.bias, for which family mixtral has no tensor");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"experts_per_group\": 2"), 1, VKMOE_E_DATA,
                "layer 1: experts_per_group asks for adjugate.up, for which family");
    folder_finish(&folder);
}

// More identity experts than the router has rows, where nobody says how many experts there are.
static void test_identity(void **state)
{
    static const char config[] = "{\"model_type\": \"mixtral\", \"hidden_size\": 8, "
                                 "\"intermediate_size\": 6, \"num_hidden_layers\": 2, "
                                 "\"num_experts_per_tok\": 2, \"zero_expert_num\": ";
    struct folder folder;
    char text[400];
    (void) state;
    folder_mixtral(&folder);
    for (int n = 4; n <= 5; n++) {
        char want[80];
        snprintf(text, sizeof text, "%s%d}", config, n);
        snprintf(want, sizeof want, "layer 1: %d of the 4 experts that the router scores", n);
        refuse_load(&folder, text, 1, VKMOE_E_DATA, want);
    }
    folder_finish(&folder);
}

static void test_shapes(void **state)
{
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    // One expert more in the configuration than in the router.
    folder_add(&folder, EXPERT "4.w1.weight", "F32", 6, 8, 0);
    folder_add(&folder, EXPERT "4.w3.weight", "F32", 6, 8, 0);
    folder_add(&folder, EXPERT "4.w2.weight", "F32", 8, 6, 0);
    refuse_load(&folder, MIXTRAL_CONFIG(", \"num_experts\": 5"), 1, VKMOE_E_DATA,
                "router (4, 8), but the configuration and other tensors say (5, 8)");
    refuse_load(&folder, MIXTRAL_CONFIG(", \"moe_intermediate_size\": 7"), 1, VKMOE_E_DATA,
                "experts.gate (6, 8), but the configuration and other tensors say (7, 8)");
    folder_finish(&folder);
    folder_mixtral(&folder);
    folder_remove(&folder, EXPERT "2.w3.weight");
    folder_add(&folder, EXPERT "2.w3.weight", "F32", 5, 8, 0);
    refuse_load(&folder, MIXTRAL_CONFIG(""), 1, VKMOE_E_DATA,
                "'" EXPERT "2.w3.weight' is (5, 8), that of expert 0 (6, 8)");
    folder_finish(&folder);
    folder_mixtral(&folder);
    folder_remove(&folder, EXPERT "0.w3.weight");
    folder_add(&folder, EXPERT "0.w3.weight", "F32", 2, 3, 8);
    refuse_load(&folder, MIXTRAL_CONFIG(""), 1, VKMOE_E_DATA, "not rows and columns");
    folder_finish(&folder);
}

static void test_types(void **state)
{
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    folder_remove(&folder, EXPERT "0.w3.weight");
    folder_add(&folder, EXPERT "0.w3.weight", "U16", 6, 8, 0);
    refuse_load(&folder, MIXTRAL_CONFIG(""), 1, VKMOE_E_UNSUPPORTED,
                "U16 (6, 8): this type cannot be read");
    folder_finish(&folder);
    folder_mixtral(&folder);
    folder_remove(&folder, EXPERT "0.w3.weight");
    folder_add(&folder, EXPERT "0.w3.weight", "I8", 6, 8, 0);
    refuse_load(&folder, MIXTRAL_CONFIG(""), 1, VKMOE_E_UNSUPPORTED, "no scales for it were found");
    folder_add(&folder, EXPERT "0.w3.weight_scale", "I32", 6, 1, 0);
    refuse_load(&folder, MIXTRAL_CONFIG(""), 1, VKMOE_E_UNSUPPORTED, "with scales in I32");
    folder_remove(&folder, EXPERT "0.w3.weight_scale");
    folder_add(&folder, EXPERT "0.w3.weight_scale", "F32", 4, 1, 0);
    refuse_load(&folder, MIXTRAL_CONFIG(""), 1, VKMOE_E_DATA, "scales F32 (4, 1) do not fit");
    folder_finish(&folder);
}

// A scale of NaN in MXFP4, which no weight can have.
static void test_nan_scale(void **state)
{
    struct folder folder;
    (void) state;
    folder_mixtral(&folder);
    for (int e = 0; e < 4; e++) {
        char name[96];
        snprintf(name, sizeof name, EXPERT "%d.w2.weight", e);
        folder_remove(&folder, name);
        snprintf(name, sizeof name, EXPERT "%d.w2.weight_packed", e);
        folder_add(&folder, name, "U8", 32, 16, 0);
        snprintf(name, sizeof name, EXPERT "%d.w2.weight_scale", e);
        unsigned char *scales = folder_add(&folder, name, "U8", 32, 1, 0);
        memset(scales, e == 2 ? 255 : 127, 32);
        for (int k = 0; k < 2; k++) {
            snprintf(name, sizeof name, EXPERT "%d.%s.weight", e, k ? "w3" : "w1");
            folder_remove(&folder, name);
            folder_add(&folder, name, "F32", 32, 32, 0);
        }
    }
    folder_remove(&folder, "model.layers.1.block_sparse_moe.gate.weight");
    folder_add(&folder, "model.layers.1.block_sparse_moe.gate.weight", "F32", 4, 32, 0);
    refuse_load(&folder, "{\"model_type\": \"mixtral\", \"hidden_size\": 32, "
                "\"intermediate_size\": 32, \"num_hidden_layers\": 2, \"num_local_experts\": 4, "
                "\"num_experts_per_tok\": 2}", 1, VKMOE_E_DATA,
                EXPERT "2.w2.weight_scale': scale 0 of row 0 is NaN");
    folder_finish(&folder);
}

static void test_table(void **state)
{
    struct folder folder = {.n_tensors = 0};
    const char *config = "{\"model_type\": \"deepseek_v4\", \"hidden_size\": 8, "
                         "\"moe_intermediate_size\": 6, \"num_hidden_layers\": 1, "
                         "\"n_routed_experts\": 2, \"num_experts_per_tok\": 1, "
                         "\"n_shared_experts\": 0, \"num_hash_layers\": 1}";
    (void) state;
    folder_add(&folder, "layers.0.ffn.gate.weight", "F32", 2, 8, 0);
    for (int e = 0; e < 2; e++) {
        for (int k = 1; k <= 3; k++) {
            char name[64];
            snprintf(name, sizeof name, "layers.0.ffn.experts.%d.w%d.weight", e, k);
            folder_add(&folder, name, "F32", k == 2 ? 8 : 6, k == 2 ? 6 : 8, 0);
        }
    }
    int64_t *table = folder_add(&folder, "layers.0.ffn.gate.tid2eid", "I64", 5, 1, 0);
    table[3] = 2;
    refuse_load(&folder, config, 0, VKMOE_E_DATA,
                "'layers.0.ffn.gate.tid2eid': token 3 has expert 2 of 2");
    table[3] = -1;
    refuse_load(&folder, config, 0, VKMOE_E_DATA, "token 3 has expert -1 of 2");
    folder_remove(&folder, "layers.0.ffn.gate.tid2eid");
    refuse_load(&folder, config, 0, VKMOE_E_DATA, "'layers.0.ffn.gate.tid2eid' is missing");
    folder_add(&folder, "layers.0.ffn.gate.tid2eid", "F32", 5, 1, 0);
    refuse_load(&folder, config, 0, VKMOE_E_DATA, "is no table of ids");
    folder_finish(&folder);
}

static void test_files(void **state)
{
    struct folder folder;
    vkmoe_checkpoint *checkpoint;
    (void) state;
    folder_mixtral(&folder);
    folder_write(&folder, MIXTRAL_CONFIG(""));
    check_fails(vkmoe_checkpoint_open(scratch_path("none"), NULL, &checkpoint), VKMOE_E_IO,
                "there is no such model");
    scratch_text("model.safetensors.index.json",
                 "{\"weight_map\": {\"a\": \"model-00002-of-00002.safetensors\"}}");
    check_fails(open_scratch(&checkpoint), VKMOE_E_DATA,
                "shard 'model-00002-of-00002.safetensors' of tensor 'a'");
    scratch_text("model.safetensors.index.json", "{\"weight_map\": {\"a\": \"../x.safetensors\"}}");
    check_fails(open_scratch(&checkpoint), VKMOE_E_DATA, "is in another folder");
    folder_write(&folder, MIXTRAL_CONFIG(""));
    unlink(scratch_path("model.safetensors"));
    check_fails(open_scratch(&checkpoint), VKMOE_E_IO, "neither model.safetensors.index.json nor");
    unlink(scratch_path("config.json"));
    check_fails(open_scratch(&checkpoint), VKMOE_E_IO, "config.json");
    check_fails(vkmoe_checkpoint_open(scratch_text("a.safetensors", "x"), NULL, &checkpoint),
                VKMOE_E_DATA, "too short");
    check_fails(vkmoe_checkpoint_open(scratch_text("a.gguf", "GGUX"), NULL, &checkpoint),
                VKMOE_E_DATA, "a.gguf");
    folder_finish(&folder);
}

// The file is cut after it was opened: an error, no signal.
static void test_shrinks(void **state)
{
    struct folder folder;
    vkmoe_checkpoint *checkpoint;
    vkmoe_layer_desc desc;
    vkmoe_weights *weights;
    vkmoe_context *context = context_on("reference", NULL);
    (void) state;
    folder_mixtral(&folder);
    folder_write(&folder, MIXTRAL_CONFIG(""));
    check_ok(open_scratch(&checkpoint));
    assert_int_equal(truncate(scratch_path("model.safetensors"), 2048), 0);
    check_fails(vkmoe_checkpoint_load(checkpoint, context, 1, NULL, &desc, &weights, NULL),
                VKMOE_E_IO, "the file has 2048 bytes now");
    assert_null(weights);
    vkmoe_checkpoint_destroy(checkpoint);
    vkmoe_context_destroy(context);
    folder_finish(&folder);
}

// Opens and loads with a host's memory.
static enum vkmoe_status load_with(const vkmoe_host *host, vkmoe_context *context,
                                   const char *description)
{
    vkmoe_checkpoint *checkpoint;
    vkmoe_layer_desc layer;
    vkmoe_weights *weights = NULL;
    vkmoe_checkpoint_desc desc = vkmoe_checkpoint_desc_init();
    desc.host = host;
    desc.description = description;
    enum vkmoe_status status = vkmoe_checkpoint_open(scratch_folder(), &desc, &checkpoint);
    if (status == VKMOE_OK)
        status = vkmoe_checkpoint_load(checkpoint, context, 1, NULL, &layer, &weights, NULL);
    vkmoe_weights_destroy(weights);
    vkmoe_checkpoint_destroy(checkpoint);
    return status;
}

// Each allocation fails once.
static void test_memory(void **state)
{
    struct folder folder;
    vkmoe_context *context = context_on("reference", NULL);
    const char *transposed = "{\"family\": \"mixtral\", \"tensors\": {\"router\": {\"name\": "
                             "\"turned\", \"transposed\": true}}}";
    (void) state;
    folder_mixtral(&folder);
    folder_add(&folder, "turned", "F32", 8, 4, 0);
    folder_write(&folder, MIXTRAL_CONFIG(""));
    for (int way = 0; way < 2; way++) {
        struct budget budget = {.fail_at = 0, .once = true};
        vkmoe_host host;
        for (;; budget.fail_at++) {
            budget.n = budget.live = 0;
            memset(&host, 0, sizeof host);
            host.struct_size = sizeof host;
            budget_host(&host, &budget);
            vkmoe_error_set("");
            enum vkmoe_status status = load_with(&host, context, way ? transposed : NULL);
            assert_int_equal(budget.live, 0);
            if (!budget_failed(&budget)) {
                assert_int_equal(status, VKMOE_OK);
                break;
            }
            assert_int_equal(status, VKMOE_E_MEMORY);
            assert_true(*vkmoe_error_text());
        }
        assert_true(budget.fail_at > 20);
    }
    vkmoe_context_destroy(context);
    folder_finish(&folder);
}

static void test_arguments(void **state)
{
    struct folder folder;
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_desc desc = vkmoe_checkpoint_desc_init();
    vkmoe_checkpoint_part part;
    float row[8];
    (void) state;
    folder_mixtral(&folder);
    folder_write(&folder, MIXTRAL_CONFIG(""));
    check_fails(vkmoe_checkpoint_open(NULL, NULL, &checkpoint), VKMOE_E_ARGUMENT, "path is NULL");
    desc.assume = "nobody";
    check_fails(vkmoe_checkpoint_open(scratch_folder(), &desc, &checkpoint), VKMOE_E_ARGUMENT,
                "no family 'nobody'; there are: ");
    check_ok(open_scratch(&checkpoint));
    check_fails(vkmoe_checkpoint_read(checkpoint, 1, VKMOE_PART_UP, 4, 0, 1, row),
                VKMOE_E_ARGUMENT, "experts.up 4, rows 0 to 1: there are 4 of 6 rows");
    check_fails(vkmoe_checkpoint_read(checkpoint, 1, VKMOE_PART_UP, 0, 6, 1, row),
                VKMOE_E_ARGUMENT, "rows 6 to 7");
    check_fails(vkmoe_checkpoint_read(checkpoint, 1, VKMOE_PART_OUT_BIAS, 0, 0, 1, row),
                VKMOE_E_ARGUMENT, "out_bias 0, rows 0 to 1: there are 0 of 0 rows");
    check_fails(vkmoe_checkpoint_get_part(checkpoint, 1, VKMOE_N_PARTS, &part), VKMOE_E_ARGUMENT,
                "no such part");
    check_ok(vkmoe_checkpoint_get_part(checkpoint, 1, VKMOE_PART_OUT_BIAS, &part));
    assert_int_equal(part.n, 0);
    vkmoe_checkpoint_destroy(checkpoint);
    vkmoe_checkpoint_destroy(NULL);
    folder_finish(&folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),    cmocka_unit_test(test_config),
        cmocka_unit_test(test_words),   cmocka_unit_test(test_lists),
        cmocka_unit_test(test_dense),   cmocka_unit_test(test_no_name),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_tensors), cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_types),   cmocka_unit_test(test_nan_scale),
        cmocka_unit_test(test_table),   cmocka_unit_test(test_files),
        cmocka_unit_test(test_shrinks), cmocka_unit_test(test_memory),
        cmocka_unit_test(test_arguments),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
