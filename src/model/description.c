// SPDX-License-Identifier: MIT
// The whole of a configuration; its layers are read in description_layers.c. include/vkmoe/model.h
// describes it.
#include "model/description.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "model/config.h"
#include "model/description_parts.h"

// ---- classes ---------------------------------------------------------------------------------

// Points d->classes at the texts of an array of names.
static enum vkmoe_status take_classes(struct moe_description *d, const struct moe_config *top,
                                      const json_t *array, size_t n)
{
    enum vkmoe_status status;
    TRY(moe_try_alloc(&d->host, n * sizeof *d->classes, "classes", &d->classes));
    json_t *seen = json_object();
    for (size_t i = 0; i < n && status == VKMOE_OK; i++) {
        const char *name = json_string_value(json_array_get(array, i));
        if (!name || !*name || json_object_get(seen, name))
            status = moe_config_fail(top, VKMOE_E_DATA, "classes", "[%zu] is %s", i,
                                     name && *name ? "there before" : "not a name");
        else if (json_object_set_new(seen, name, json_true()) != 0)
            status = moe_fail(VKMOE_E_MEMORY, "%s: %zu classes", top->file, n);
        d->classes[i] = name;
    }
    json_decref(seen);

fail:
    return status;
}

static enum vkmoe_status read_classes(struct moe_description *d, const struct moe_config *top,
                                      bool training)
{
    enum vkmoe_status status;
    size_t n;
    bool one = d->info.n_outputs == 1 && d->info.head != VKMOE_HEAD_SOFTMAX;
    d->info.n_classes = one ? 2 : d->info.n_outputs;
    if (training && !moe_config_has(top, "classes"))
        return VKMOE_OK;
    TRY(moe_config_array(top, "classes", &n));
    if (n != d->info.n_classes && !(one && n == 1))
        return moe_config_fail(top, VKMOE_E_DATA, "classes", "%zu, but the last layer gives %u%s",
                               n, d->info.n_outputs, one ? ", which tells 2 apart" : "");
    d->info.n_classes = (uint32_t) n;
    TRY(take_classes(d, top, json_object_get(top->object, "classes"), n));

fail:
    return status;
}

enum vkmoe_status moe_description_set_classes(struct moe_description *d, const char *file,
                                              const char *const *names, uint32_t n)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_config top = {.file = file, .object = d->config};
    json_t *array = NULL;
    if (d->info.task != VKMOE_TASK_CLASSIFY)
        return moe_config_fail(&top, VKMOE_E_DATA, "classes", "needs task classify");
    if (n != d->info.n_classes)
        return moe_config_fail(&top, VKMOE_E_DATA, "classes",
                               "%u, but the last layer tells %u apart", n, d->info.n_classes);
    array = json_array();
    for (uint32_t i = 0; i < n; i++) {
        if (json_array_append_new(array, json_string(names[i])) != 0) {
            status = moe_config_fail(&top, VKMOE_E_DATA, "classes", "[%u] is not UTF-8", i);
            goto fail;
        }
    }
    moe_free(&d->host, d->classes);
    d->classes = NULL;
    TRY(take_classes(d, &top, array, n));
    if (json_object_set(d->config, "classes", array) != 0)
        status = moe_fail(VKMOE_E_MEMORY, "%s: %u classes", file, n);

fail:
    if (status != VKMOE_OK) {
        moe_free(&d->host, d->classes);
        d->classes = NULL;
    }
    json_decref(array);
    return status;
}

// ---- the whole -------------------------------------------------------------------------------

static enum vkmoe_status check_head(const struct moe_description *d, const struct moe_config *top)
{
    if (d->info.task == VKMOE_TASK_REGRESS && moe_config_has(top, "classes"))
        return moe_config_fail(top, VKMOE_E_DATA, "classes", "needs task classify");
    if (d->info.task == VKMOE_TASK_REGRESS && d->info.head == VKMOE_HEAD_SOFTMAX)
        return moe_config_fail(top, VKMOE_E_DATA, "head", "softmax needs task classify");
    return VKMOE_OK;
}

// Layers that stand for the input, and the list of all.
static enum vkmoe_status build_net(struct moe_description *d)
{
    enum vkmoe_status status;
    const uint32_t n = moe_input_is_text(d->info.input) ? 1 + (d->info.input ==
                                                               VKMOE_INPUT_EMBED_BAG)
                                                        : 0;
    TRY(moe_try_alloc(&d->host, 2 * sizeof *d->input_layers, "layers", &d->input_layers));
    TRY(moe_try_alloc(&d->host, (n + d->info.n_layers) * sizeof *d->net_layers, "layers",
                      &d->net_layers));
    d->n_input_layers = n;
    for (uint32_t i = 0; i < n; i++) {
        vkmoe_net_layer *layer = &d->input_layers[i];
        *layer = vkmoe_net_layer_init();
        layer->kind = i == 0 ? VKMOE_NET_EMBED : VKMOE_NET_POOL;
        if (i == 0) {
            layer->n_rows = d->text.n_rows;
            layer->d_out = d->d_table;
        }
        d->net_layers[i] = layer;
    }
    for (uint32_t i = 0; i < d->info.n_layers; i++)
        d->net_layers[n + i] = &d->layers[i];

fail:
    return status;
}

static enum vkmoe_status read_all(struct moe_description *d, const struct moe_config *top,
                                  bool training)
{
    static const char *const keys[] = {"format", "task", "classes", "input", "layers", "head",
                                       NULL};
    enum vkmoe_status status;
    int format = 0, task = -1, head = -1;
    TRY(moe_config_keys(top, keys));
    TRY(moe_config_word(top, "format", MOE_MODEL_FORMAT, NULL, &format));
    TRY(moe_config_word(top, "task", "classify|regress", NULL, &task));
    TRY(moe_config_word(top, "head", "identity|softmax|sigmoid", NULL, &head));
    d->info.task = (enum vkmoe_task) task;
    d->info.head = (enum vkmoe_head) head;
    TRY(moe_description_read_input(d, top));
    TRY(moe_description_read_layers(d, top));
    TRY(check_head(d, top));
    if (d->info.task == VKMOE_TASK_CLASSIFY)
        TRY(read_classes(d, top, training));
    TRY(build_net(d));

fail:
    return status;
}

// Moves what is behind `key` out of the model's own keys; *out is NULL when there is nothing.
static void take_key(json_t *config, const char *key, json_t **out)
{
    *out = json_incref(json_object_get(config, key));
    json_object_del(config, key);
}

enum vkmoe_status moe_description_read(const vkmoe_host *host, const char *file,
                                       const json_t *config, bool training,
                                       struct moe_description *out)
{
    enum vkmoe_status status;
    *out = (struct moe_description){.pool = MOE_NO_LAYER};
    TRY(moe_host_init(&out->host, host));
    if (!json_is_object(config))
        return moe_fail(VKMOE_E_DATA, "%s: config: not an object", file);
    out->config = json_deep_copy(config);
    if (!out->config) {
        status = moe_fail(VKMOE_E_MEMORY, "%s: config", file);
        goto fail;
    }
    if (training) {
        take_key(out->config, "train", &out->train);
        take_key(out->config, "data", &out->data);
    }
    const struct moe_config top = {.file = file, .object = out->config};
    TRY(read_all(out, &top, training));
    return VKMOE_OK;

fail:
    moe_description_finish(out);
    return status;
}

enum vkmoe_status moe_description_parse(const vkmoe_host *host, const char *file, const char *text,
                                        size_t size, bool training, struct moe_description *out)
{
    json_error_t error;
    json_t *config = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!config) {
        *out = (struct moe_description){.pool = MOE_NO_LAYER};
        return moe_fail(VKMOE_E_DATA, "%s: config: %s (line %d, byte %d)", file, error.text,
                        error.line, error.position);
    }
    enum vkmoe_status status = moe_description_read(host, file, config, training, out);
    json_decref(config);
    return status;
}

void moe_description_finish(struct moe_description *d)
{
    if (!d->host.alloc) // never begun
        return;
    moe_free(&d->host, d->net_layers);
    moe_free(&d->host, d->input_layers);
    moe_free(&d->host, d->layers);
    moe_free(&d->host, d->moe);
    moe_free(&d->host, d->widths);
    moe_free(&d->host, d->vocabulary);
    moe_free(&d->host, d->classes);
    json_decref(d->train);
    json_decref(d->data);
    json_decref(d->config);
    *d = (struct moe_description){.pool = MOE_NO_LAYER};
}

void moe_description_net(const struct moe_description *d, vkmoe_net_desc *out)
{
    *out = vkmoe_net_desc_init();
    out->layers = d->net_layers;
    out->n_layers = d->n_input_layers + d->info.n_layers;
    out->d_in = moe_input_is_text(d->info.input) ? 1 : d->info.n_features;
}
