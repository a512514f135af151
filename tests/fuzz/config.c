// SPDX-License-Identifier: MIT
// Bytes: the configuration of a model file, JSON text. What is accepted is saved with small
// tensors, opened, and says the same again.
#include "fuzz.h"

#include "base/host.h"
#include "model/model.h"

#include <stdlib.h>

enum { MAX_ELEMENTS = 1 << 14 }; // of one tensor

static bool is_small(const struct moe_description *d)
{
    struct moe_tensor_spec *specs;
    uint32_t n;
    bool small = true;
    FUZZ_CHECK(moe_description_tensors(d, &specs, &n) == VKMOE_OK);
    for (uint32_t i = 0; i < n; i++) {
        FUZZ_CHECK(specs[i].n_dims >= 1 && specs[i].n_dims <= 3 && specs[i].n_elements > 0);
        small = small && specs[i].n_elements <= MAX_ELEMENTS;
    }
    moe_free(fuzz_host(), specs);
    return small && d->info.n_features <= MAX_ELEMENTS;
}

// Layers that can be computed follow each other, and the outputs are what the task needs.
static void check_description(const struct moe_description *d)
{
    const vkmoe_model_info *info = &d->info;
    vkmoe_net_desc net;
    const bool text = moe_input_is_text(info->input);
    FUZZ_CHECK(info->n_layers > 0 && (info->n_features > 0) == !text);
    FUZZ_CHECK(d->widths[0] == (text ? d->d_table : info->n_features));
    for (uint32_t i = 0; i < info->n_layers; i++) {
        const vkmoe_net_layer *layer = &d->layers[i];
        uint32_t out = i + 1 < info->n_layers ? d->widths[i + 1] : info->n_outputs;
        FUZZ_CHECK(out > 0 && (!layer->residual || out == d->widths[i]));
        FUZZ_CHECK((layer->kind == VKMOE_NET_POOL) == (d->pool == (int) i));
        if (layer->kind != VKMOE_NET_MOE)
            continue;
        FUZZ_CHECK(layer->layer == &d->moe[i] && layer->layer->d_out == out);
        FUZZ_CHECK(layer->layer->top_k >= 1 && layer->layer->top_k <= layer->layer->n_experts);
        FUZZ_CHECK(layer->pairing != VKMOE_PAIRING_NONE || layer->layer->d_model == d->widths[i]);
    }
    FUZZ_CHECK((info->n_classes > 0) == (info->task == VKMOE_TASK_CLASSIFY));
    FUZZ_CHECK(info->n_classes == 0 || info->n_classes == info->n_outputs ||
               (info->n_classes == 2 && info->n_outputs == 1));
    for (uint32_t i = 0; i < info->n_classes; i++)
        FUZZ_CHECK(*d->classes[i]);
    moe_description_net(d, &net);
    FUZZ_CHECK(net.n_layers == d->n_input_layers + info->n_layers);
    for (uint32_t i = 0; i < net.n_layers; i++)
        FUZZ_CHECK((net.layers[i]->kind == VKMOE_NET_EMBED) == (text && i == 0));
}

static enum vkmoe_status read_ones(void *user, const char *net_name, float *data, uint64_t n)
{
    (void) user;
    FUZZ_CHECK(strncmp(net_name, "layers.", 7) == 0);
    for (uint64_t i = 0; i < n; i++)
        data[i] = 1;
    return VKMOE_OK;
}

static void check_file(const struct moe_description *d)
{
    static float zeros[MAX_ELEMENTS], ones[MAX_ELEMENTS];
    const struct moe_input_stats stats = {zeros, ones};
    vkmoe_model *opened;
    for (size_t i = 0; i < MAX_ELEMENTS; i++)
        ones[i] = 1;
    const char *path = scratch_path("model.safetensors");
    FUZZ_CHECK(moe_model_save(path, d, &stats, read_ones, NULL) == VKMOE_OK);
    FUZZ_CHECK(vkmoe_model_open(fuzz_host(), path, &opened) == VKMOE_OK);
    check_description(&opened->d);
    FUZZ_CHECK(memcmp(&opened->d.info, &d->info, sizeof d->info) == 0);
    json_object_del(opened->d.config, "format");
    json_object_del(d->config, "format");
    FUZZ_CHECK(json_equal(opened->d.config, d->config));
    vkmoe_model_destroy(opened);
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    struct moe_description d;
    // A training's may leave more out and say more.
    if (fuzz_accepted(moe_description_parse(fuzz_host(), "config", (const char *) data, size, true,
                                            &d)))
        is_small(&d);
    moe_description_finish(&d);
    bool accepted = fuzz_accepted(moe_description_parse(fuzz_host(), "config", (const char *) data,
                                                        size, false, &d));
    if (accepted) {
        check_description(&d);
        if (is_small(&d))
            check_file(&d);
    }
    moe_description_finish(&d);
    return accepted;
}
