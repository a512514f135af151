// SPDX-License-Identifier: MIT
// Bytes: the configuration of a model file, JSON text. What is accepted names tensors; a file that
// has them, as include/vkmoe/model.h lists them, must open.
#include "fuzz.h"

#include "base/host.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_TENSORS = 256,
    MAX_ELEMENTS = 1 << 14, // of one tensor
};

// Tensors of a model file; all values are 1, but those of input.min are 0.
struct tensors {
    float ones[MAX_ELEMENTS], zeros[MAX_ELEMENTS];
    size_t n;
    bool full; // there were more or larger ones
    char names[MAX_TENSORS][64];
    struct moe_st_source sources[MAX_TENSORS];
};

// dims end with a 0.
static void add(struct tensors *t, const char *prefix, const char *name, const uint64_t *dims)
{
    uint64_t n_elements = 1;
    if (t->n == MAX_TENSORS) {
        t->full = true;
        return;
    }
    struct moe_st_source *source = &t->sources[t->n];
    *source = (struct moe_st_source){.name = t->names[t->n], .dtype = "F32", .data = t->ones};
    snprintf(t->names[t->n], sizeof t->names[0], "%s%s", prefix, name);
    if (strcmp(name, "input.min") == 0)
        source->data = t->zeros;
    for (; *dims && !t->full; dims++) {
        source->dims[source->n_dims++] = *dims;
        n_elements *= *dims;
        t->full = n_elements > MAX_ELEMENTS;
    }
    t->n++;
}

#define DIMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

static void add_layer(struct tensors *t, uint32_t index, const vkmoe_layer_desc *d)
{
    const uint64_t e = d->n_experts, f = d->d_ff, in = d->d_model, out = d->d_out;
    const uint64_t s = d->d_shared_ff;
    char prefix[32];
    snprintf(prefix, sizeof prefix, "layers.%u.", index);
    add(t, prefix, "router.weight", DIMS(e, in));
    if (d->router_bias)
        add(t, prefix, "router.bias", DIMS(e));
    if (d->selection_bias)
        add(t, prefix, "router.selection_bias", DIMS(e));
    add(t, prefix, "experts.up.weight", DIMS(e, f, in));
    add(t, prefix, "experts.down.weight", DIMS(e, out, f));
    if (d->gated)
        add(t, prefix, "experts.gate.weight", DIMS(e, f, in));
    if (d->gated && d->gate_bias)
        add(t, prefix, "experts.gate.bias", DIMS(e, f));
    if (d->up_bias)
        add(t, prefix, "experts.up.bias", DIMS(e, f));
    if (d->down_bias)
        add(t, prefix, "experts.down.bias", DIMS(e, out));
    if (s == 0)
        return;
    add(t, prefix, "shared.up.weight", DIMS(s, in));
    add(t, prefix, "shared.down.weight", DIMS(out, s));
    if (d->gated)
        add(t, prefix, "shared.gate.weight", DIMS(s, in));
    if (d->gated && d->gate_bias)
        add(t, prefix, "shared.gate.bias", DIMS(s));
    if (d->up_bias)
        add(t, prefix, "shared.up.bias", DIMS(s));
    if (d->down_bias)
        add(t, prefix, "shared.down.bias", DIMS(out));
    if (d->shared_gate == VKMOE_SHARED_SIGMOID)
        add(t, prefix, "shared.gate_vector", DIMS(in));
}

// Layers that can be computed follow each other, and the outputs are what the task needs.
static void check_model(const vkmoe_model *model)
{
    const vkmoe_model_info *info = &model->info;
    uint32_t width = info->n_features;
    FUZZ_CHECK(info->n_layers > 0 && width > 0);
    for (uint32_t i = 0; i < info->n_layers; i++) {
        vkmoe_layer_desc desc;
        FUZZ_CHECK(vkmoe_model_layer(model, i, &desc) == VKMOE_OK);
        FUZZ_CHECK(vkmoe_layer_check(&desc) == VKMOE_OK);
        FUZZ_CHECK(desc.d_model == width);
        width = desc.d_out;
    }
    FUZZ_CHECK(info->n_outputs == width);
    FUZZ_CHECK((info->n_classes > 0) == (info->task == VKMOE_TASK_CLASSIFY));
    FUZZ_CHECK(info->n_classes == 0 || info->n_classes == width ||
               (info->n_classes == 2 && width == 1));
    for (uint32_t i = 0; i < info->n_classes; i++)
        FUZZ_CHECK(*vkmoe_model_class(model, i));
    FUZZ_CHECK(!vkmoe_model_class(model, info->n_classes));
}

static void check_file(const vkmoe_model *model, const char *config)
{
    static struct tensors t;
    static const char *const inputs[][2] = {
        [VKMOE_INPUT_STANDARDIZE] = {"input.mean", "input.std"},
        [VKMOE_INPUT_MINMAX] = {"input.min", "input.max"},
    };
    t.n = 0;
    t.full = false;
    for (size_t i = 0; i < MAX_ELEMENTS; i++)
        t.ones[i] = 1;
    for (int i = 0; i < 2 && model->info.input != VKMOE_INPUT_NONE; i++)
        add(&t, "", inputs[model->info.input][i], DIMS(model->info.n_features));
    for (uint32_t i = 0; i < model->info.n_layers && !t.full; i++)
        add_layer(&t, i, &model->layers[i].desc);
    if (t.full)
        return;
    vkmoe_model *opened;
    const char *path = scratch_path("model.safetensors");
    json_t *metadata = json_pack("{s:s, s:s}", "format", "vkmoe-model/1", "config", config);
    FUZZ_CHECK(metadata);
    FUZZ_CHECK(moe_safetensors_write(fuzz_host(), path, t.sources, t.n, metadata) == VKMOE_OK);
    json_decref(metadata);
    FUZZ_CHECK(vkmoe_model_open(fuzz_host(), path, &opened) == VKMOE_OK);
    check_model(opened);
    FUZZ_CHECK(memcmp(&opened->info, &model->info, sizeof model->info) == 0);
    vkmoe_model_destroy(opened);
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    vkmoe_model *model;
    json_t *config = json_loadb((const char *) data, size, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(config)) {
        json_decref(config);
        return false;
    }
    FUZZ_CHECK(moe_try_alloc(fuzz_host(), sizeof *model, "model", &model) == VKMOE_OK);
    model->host = *fuzz_host();
    model->path = "config";
    model->config = config;
    bool accepted = fuzz_accepted(moe_model_read_config(model));
    if (accepted) {
        char *text = json_dumps(config, 0);
        FUZZ_CHECK(text);
        check_model(model);
        check_file(model, text);
        free(text);
    }
    vkmoe_model_destroy(model);
    return accepted;
}
