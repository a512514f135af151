// SPDX-License-Identifier: MIT
// Loading one layer of 200 MB takes what the weights take on the device and 64 MiB at most, and
// touches nothing but the layer's own shard.
#include "check.h"
#include "fixture.h"
#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <vkmoe/checkpoint.h>

enum { D = 2048, F = 2048, E = 8, MAX_HEADER = 16384 };
static const uint64_t matrix_size = (uint64_t) D * F * 2;
static const uint64_t slack = 64 << 20;

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

// A shard of zeros with a layer's tensors, as a file with a hole.
static void write_layer(void)
{
    static char header[MAX_HEADER];
    unsigned char prefix[8];
    uint64_t at = (uint64_t) E * D * 2;
    int n = snprintf(header, sizeof header, "{\"model.layers.1.mlp.gate.weight\":{\"dtype\":"
                     "\"BF16\",\"shape\":[%d,%d],\"data_offsets\":[0,%llu]}", E, D,
                     (unsigned long long) at);
    for (int e = 0; e < E; e++) {
        for (int k = 0; k < 3; k++, at += matrix_size)
            n += snprintf(header + n, sizeof header - (size_t) n,
                          ",\"model.layers.1.mlp.experts.%d.%s_proj.weight\":{\"dtype\":\"BF16\","
                          "\"shape\":[%d,%d],\"data_offsets\":[%llu,%llu]}", e,
                          k == 0 ? "gate" : k == 1 ? "up" : "down", k == 2 ? D : F, k == 2 ? F : D,
                          (unsigned long long) at, (unsigned long long) (at + matrix_size));
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

static void write_index(void)
{
    static char text[MAX_HEADER];
    int n = snprintf(text, sizeof text, "{\"weight_map\": {\"model.layers.0.mlp.gate.weight\": "
                     "\"a.safetensors\", \"model.layers.1.mlp.gate.weight\": \"b.safetensors\"");
    for (int e = 0; e < E; e++) {
        for (int k = 0; k < 3; k++)
            n += snprintf(text + n, sizeof text - (size_t) n,
                          ", \"model.layers.1.mlp.experts.%d.%s_proj.weight\": \"b.safetensors\"",
                          e, k == 0 ? "gate" : k == 1 ? "up" : "down");
    }
    snprintf(text + n, sizeof text - (size_t) n, "}}");
    scratch_text("model.safetensors.index.json", text);
    // The other layer's shard is none: whoever opens it fails.
    scratch_text("a.safetensors", "no shard");
    scratch_text("config.json",
                 "{\"model_type\": \"olmoe\", \"hidden_size\": 2048, \"intermediate_size\": 2048, "
                 "\"num_hidden_layers\": 2, \"num_experts\": 8, \"num_experts_per_tok\": 2}");
}

static void test_peak(void **state)
{
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_layer info;
    vkmoe_layer_desc desc;
    vkmoe_weights *weights;
    vkmoe_weights_layout layout;
    (void) state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); // sanitizers keep what is freed
#endif
    if (!forget_peak())
        skip(); // a kernel without /proc/self/clear_refs
    write_layer();
    write_index();
    vkmoe_context *context = context_on("cpu", NULL);
    check_ok(vkmoe_checkpoint_open(scratch_folder(), NULL, &checkpoint));
    check_fails(vkmoe_checkpoint_get_layer(checkpoint, 0, &info), VKMOE_E_DATA, "a.safetensors");
    forget_peak();
    uint64_t before = status_of("VmRSS");
    check_ok(vkmoe_checkpoint_load(checkpoint, context, 1, NULL, &desc, &weights, NULL));
    uint64_t peak = status_of("VmHWM") - before;
    check_ok(vkmoe_weights_get_layout(context, &desc, &layout));
    assert_int_equal(desc.in_type, VKMOE_BF16);
    assert_true(layout.total_size >= 3 * E * matrix_size);
    if (peak > layout.total_size + slack || peak < layout.total_size / 2)
        fail_msg("%llu bytes at most, with weights of %llu", (unsigned long long) peak,
                 (unsigned long long) layout.total_size);
    vkmoe_weights_destroy(weights);
    vkmoe_checkpoint_destroy(checkpoint);
    vkmoe_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_peak)};
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
