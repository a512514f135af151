// SPDX-License-Identifier: MIT
#include "fuzz_folder.h"

#include "model/safetensors.h"

#include <stdio.h>

enum { D = 8, F = 6, E = 4, MAX_TENSORS = 64, MAX_LAYERS = 6, MAX_VALUES = 64 };

struct files {
    struct moe_st_source tensors[MAX_TENSORS];
    char names[MAX_TENSORS][96];
    size_t n;
};

static void add(struct files *files, const char *name, uint64_t d0, uint64_t d1)
{
    static const float zeros[MAX_VALUES];
    FUZZ_CHECK(files->n < MAX_TENSORS);
    struct moe_st_source *t = &files->tensors[files->n];
    snprintf(files->names[files->n], sizeof *files->names, "%s", name);
    *t = (struct moe_st_source){.name = files->names[files->n], .dtype = "F32", .data = zeros};
    t->n_dims = d1 > 0 ? 2 : 1;
    t->dims[0] = d0;
    t->dims[1] = d1;
    files->n++;
}

static void add_expert(struct files *files, const char *at, const char *gate, const char *up,
                       const char *down)
{
    char name[96];
    snprintf(name, sizeof name, "%s.%s.weight", at, gate);
    add(files, name, F, D);
    snprintf(name, sizeof name, "%s.%s.weight", at, up);
    add(files, name, F, D);
    snprintf(name, sizeof name, "%s.%s.weight", at, down);
    add(files, name, D, F);
}

void fuzz_folder_write(void)
{
    static bool ready;
    static struct files files;
    if (ready)
        return;
    add(&files, "model.layers.1.block_sparse_moe.gate.weight", E, D);
    add(&files, "model.layers.1.mlp.gate.weight", E, D);
    add(&files, "model.layers.1.mlp.gate.e_score_correction_bias", E, 0);
    add_expert(&files, "model.layers.1.mlp.shared_experts", "gate_proj", "up_proj", "down_proj");
    for (int e = 0; e < E; e++) {
        char at[64];
        snprintf(at, sizeof at, "model.layers.1.block_sparse_moe.experts.%d", e);
        add_expert(&files, at, "w1", "w3", "w2");
        snprintf(at, sizeof at, "model.layers.1.mlp.experts.%d", e);
        add_expert(&files, at, "gate_proj", "up_proj", "down_proj");
    }
    FUZZ_CHECK(moe_safetensors_write(fuzz_host(), scratch_path("model.safetensors"), files.tensors,
                                     files.n, NULL) == VKMOE_OK);
    ready = true;
}

static void read_part(vkmoe_checkpoint *checkpoint, uint32_t layer, enum vkmoe_part id)
{
    vkmoe_checkpoint_part part;
    float values[MAX_VALUES];
    FUZZ_CHECK(vkmoe_checkpoint_get_part(checkpoint, layer, id, &part) == VKMOE_OK);
    if (part.n == 0 || id == VKMOE_PART_TABLE)
        return;
    // No part is larger than the tensors that there are.
    FUZZ_CHECK(part.n <= E && (uint64_t) part.n_rows * part.n_columns <= MAX_VALUES);
    FUZZ_CHECK(*part.stored);
    for (uint32_t i = 0; i < part.n; i++) {
        FUZZ_CHECK(vkmoe_checkpoint_read(checkpoint, layer, id, i, 0, part.n_rows, values) ==
                   VKMOE_OK);
        fuzz_touch(values, (size_t) part.n_rows * part.n_columns * sizeof *values);
    }
}

static bool walk_layer(vkmoe_checkpoint *checkpoint, uint32_t layer)
{
    vkmoe_checkpoint_layer info;
    if (!fuzz_accepted(vkmoe_checkpoint_get_layer(checkpoint, layer, &info)))
        return false;
    if (!info.has_experts) {
        FUZZ_CHECK(*info.reason);
        return false;
    }
    FUZZ_CHECK(info.desc.n_experts > 0 && info.n_tensors > 0 && *info.router);
    for (uint32_t i = 0; i < info.n_tensors; i++) {
        vkmoe_checkpoint_tensor tensor;
        FUZZ_CHECK(vkmoe_checkpoint_get_tensor(checkpoint, layer, i, &tensor) == VKMOE_OK);
        FUZZ_CHECK(*tensor.name && *tensor.stored);
    }
    for (int i = 0; i < VKMOE_N_PARTS; i++)
        read_part(checkpoint, layer, (enum vkmoe_part) i);
    // A description may contradict itself, which is refused with a text.
    return fuzz_accepted(vkmoe_layer_check(&info.desc));
}

bool fuzz_folder_walk(vkmoe_checkpoint *checkpoint)
{
    vkmoe_checkpoint_info info;
    bool found = false;
    FUZZ_CHECK(vkmoe_checkpoint_get_info(checkpoint, &info) == VKMOE_OK);
    FUZZ_CHECK(*info.family && info.says && info.n_layers > 0);
    for (uint32_t i = 0; i < info.n_layers && i < MAX_LAYERS; i++)
        found |= walk_layer(checkpoint, i);
    return found;
}
