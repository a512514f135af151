// SPDX-License-Identifier: MIT
// Loading one layer of 200 MB takes what the weights take on the device and 64 MiB at most, however
// large an expert is and whichever way its matrices lie, and touches nothing but the layer's own
// shard.
#include "check.h"
#include "fixture.h"
#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <vkmoe/checkpoint.h>

enum { MAX_TENSORS = 32, MAX_TEXT = 16384 };
static const uint64_t slack = 64 << 20;

struct form {
    const char *family;
    uint32_t d, f, n_experts;
    bool transposed; // all experts in two tensors, gate and up beside each other
};
static const struct form forms[] = {
    {"olmoe", 2048, 2048, 8, false},
    {"olmoe", 4096, 4096, 2, false}, // an expert is more than the slack
    {"qwen3_vl_moe_text", 4096, 4096, 2, true},
};

struct tensor {
    char name[64];
    uint32_t dims[3], n_dims;
};

// A number of kB from /proc/self/status, in bytes; 0 where there is none.
static uint64_t status_of(const char *key)
{
    char line[256];
    unsigned long long n = 0;
    FILE *file = fopen("/proc/self/status", "r");
    size_t size = strlen(key);
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, size) == 0 && line[size] == ':')
            sscanf(line + size + 1, "%llu", &n);
    }
    if (file)
        fclose(file);
    return n * 1024;
}

// Lets VmHWM begin again from here.
static bool forget_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    bool done = file && fputs("5", file) >= 0;
    return file ? fclose(file) == 0 && done : false;
}

static struct tensor tensor(const char *name, uint32_t stacked, uint32_t rows, uint32_t columns)
{
    struct tensor out = {"model.layers.1.mlp.", {rows, columns}, 2};
    if (stacked > 0)
        out = (struct tensor){"model.layers.1.mlp.", {stacked, rows, columns}, 3};
    strncat(out.name, name, sizeof out.name - strlen(out.name) - 1);
    return out;
}

// Returns how many there are.
static int list_tensors(const struct form *form, struct tensor out[MAX_TENSORS])
{
    static const char *const names[] = {"gate", "up", "down"};
    const uint32_t d = form->d, f = form->f;
    int n = 0;
    out[n++] = tensor("gate.weight", 0, form->n_experts, d);
    if (form->transposed) {
        out[n++] = tensor("experts.gate_up_proj", form->n_experts, d, 2 * f);
        out[n++] = tensor("experts.down_proj", form->n_experts, f, d);
        return n;
    }
    for (uint32_t e = 0; e < form->n_experts; e++) {
        for (int k = 0; k < 3; k++) {
            char name[40];
            snprintf(name, sizeof name, "experts.%u.%s_proj.weight", e, names[k]);
            out[n++] = tensor(name, 0, k == 2 ? d : f, k == 2 ? f : d);
        }
    }
    return n;
}

// A shard of zeros with a layer's tensors, as a file with a hole.
static void write_shard(const struct tensor *tensors, int n_tensors)
{
    static char header[MAX_TEXT];
    unsigned char prefix[8];
    uint64_t at = 0;
    int n = 0;
    for (int i = 0; i < n_tensors; i++) {
        const struct tensor *t = &tensors[i];
        uint64_t size = (uint64_t) t->dims[0] * t->dims[1] * 2;
        char shape[40];
        snprintf(shape, sizeof shape, "%u,%u", t->dims[0], t->dims[1]);
        if (t->n_dims == 3) {
            size *= t->dims[2];
            snprintf(shape, sizeof shape, "%u,%u,%u", t->dims[0], t->dims[1], t->dims[2]);
        }
        n += snprintf(header + n, sizeof header - (size_t) n,
                      "%c\"%s\":{\"dtype\":\"BF16\",\"shape\":[%s],\"data_offsets\":[%llu,%llu]}",
                      i == 0 ? '{' : ',', t->name, shape, (unsigned long long) at,
                      (unsigned long long) (at + size));
        at += size;
    }
    header[n++] = '}';
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char) (i < 4 ? (unsigned) n >> 8 * i & 255 : 0);
    FILE *file = fopen(scratch_path("b.safetensors"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(prefix, 1, 8, file), 8);
    assert_int_equal(fwrite(header, 1, (size_t) n, file), n);
    assert_int_equal(fflush(file), 0);
    assert_int_equal(ftruncate(fileno(file), (off_t) (8 + (uint64_t) n + at)), 0);
    fclose(file);
}

static void write_index(const struct tensor *tensors, int n_tensors)
{
    static char text[MAX_TEXT];
    int n = snprintf(text, sizeof text,
                     "{\"weight_map\": {\"model.layers.0.mlp.gate.weight\": \"a.safetensors\"");
    for (int i = 0; i < n_tensors; i++)
        n += snprintf(text + n, sizeof text - (size_t) n, ", \"%s\": \"b.safetensors\"",
                      tensors[i].name);
    snprintf(text + n, sizeof text - (size_t) n, "}}");
    scratch_text("model.safetensors.index.json", text);
    // The other layer's shard is none: whoever opens it fails.
    scratch_text("a.safetensors", "no shard");
}

static void write_checkpoint(const struct form *form)
{
    struct tensor tensors[MAX_TENSORS];
    char config[512];
    int n = list_tensors(form, tensors);
    write_shard(tensors, n);
    write_index(tensors, n);
    snprintf(config, sizeof config,
             "{\"model_type\": \"%s\", \"hidden_size\": %u, \"intermediate_size\": %u, "
             "\"moe_intermediate_size\": %u, \"num_hidden_layers\": 2, \"num_experts\": %u, "
             "\"num_experts_per_tok\": 2}", form->family, form->d, form->f, form->f,
             form->n_experts);
    scratch_text("config.json", config);
}

static void check_peak(const struct form *form)
{
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_layer info;
    vkmoe_layer_desc desc;
    vkmoe_weights *weights;
    vkmoe_weights_layout layout;
    write_checkpoint(form);
    vkmoe_context *context = context_on("cpu", NULL);
    check_ok(vkmoe_checkpoint_open(scratch_folder(), NULL, &checkpoint));
    check_fails(vkmoe_checkpoint_get_layer(checkpoint, 0, &info), VKMOE_E_DATA, "a.safetensors");
    forget_peak();
    uint64_t before = status_of("VmRSS");
    check_ok(vkmoe_checkpoint_load(checkpoint, context, 1, NULL, &desc, &weights, NULL));
    uint64_t peak = status_of("VmHWM") - before;
    check_ok(vkmoe_weights_get_layout(context, &desc, &layout));
    assert_int_equal(desc.in_type, VKMOE_BF16);
    assert_true(layout.total_size >= (uint64_t) 6 * form->d * form->f * form->n_experts);
    if (peak > layout.total_size + slack || peak < layout.total_size / 2)
        fail_msg("%s, %u experts: %llu bytes at most, with weights of %llu", form->family,
                 form->n_experts, (unsigned long long) peak,
                 (unsigned long long) layout.total_size);
    vkmoe_weights_destroy(weights);
    vkmoe_checkpoint_destroy(checkpoint);
    vkmoe_context_destroy(context);
}

static void test_peak(void **state)
{
    (void) state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); // sanitizers keep what is freed
#endif
    if (!forget_peak())
        skip(); // a kernel without /proc/self/clear_refs
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        check_peak(&forms[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_peak)};
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
