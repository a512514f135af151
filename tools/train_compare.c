// SPDX-License-Identifier: MIT
// What a mixture has to beat. A dense network: every moe layer is replaced by one hidden layer, as
// wide as its active parameters allow (those that one row meets: the router and top_k experts), and
// trained with the same `train` object. And one nearest neighbour, by Euclidean distance of the
// features as they are in the file.
#include "train.h"

#include <stdio.h>
#include <stdlib.h>

static enum vkmoe_status refuse(const char *why)
{
    char text[160];
    snprintf(text, sizeof text, "--compare: %s", why);
    vkmoe_error_set(text);
    return VKMOE_E_UNSUPPORTED;
}

// ---- the dense network -----------------------------------------------------------------------

static uint32_t get_size(const json_t *object, const char *key)
{
    return (uint32_t) json_integer_value(json_object_get(object, key));
}

// Appends the two layers that stand for `moe`; *d is the width before and after.
static enum vkmoe_status replace(struct train_compare *c, const json_t *moe, uint32_t *d,
                                 json_t *layers)
{
    const json_t *expert = json_object_get(moe, "expert");
    const json_t *kind = json_object_get(expert, "kind"), *router = json_object_get(moe, "router");
    bool mlp = !kind || strcmp(json_string_value(kind), "mlp") == 0;
    if (!mlp || !router || json_is_true(json_object_get(expert, "gated")) ||
        json_object_get(moe, "shared") || json_object_get(moe, "queries"))
        return refuse("only for moe layers of plain mlp experts with a router");
    uint64_t d_in = *d, d_ff = get_size(moe, "d_ff"), n_experts = get_size(moe, "n_experts");
    uint64_t d_out = json_object_get(moe, "d_out") ? get_size(moe, "d_out") : d_in;
    uint64_t bias = json_is_true(json_object_get(expert, "bias"));
    uint64_t router_bias = json_is_true(json_object_get(router, "bias"));
    uint64_t active = n_experts * (d_in + router_bias) +
                      get_size(moe, "top_k") * (d_ff * (d_in + bias) + d_out * (d_ff + bias));
    uint64_t hidden = (active - d_out * bias + (d_in + bias + d_out) / 2) / (d_in + bias + d_out);
    const char *out_act = json_string_value(json_object_get(expert, "output_activation"));
    json_array_append_new(
        layers, json_pack("{s:s, s:I, s:O, s:b}", "kind", "linear", "d_out", (json_int_t) hidden,
                          "activation", json_object_get(expert, "activation"), "bias", (int) bias));
    json_array_append_new(layers, json_pack("{s:s, s:I, s:s, s:b}", "kind", "linear", "d_out",
                                            (json_int_t) d_out, "activation",
                                            out_act ? out_act : "none", "bias", (int) bias));
    c->d_hidden = (uint32_t) hidden;
    c->moe_params += active;
    *d = (uint32_t) d_out;
    return VKMOE_OK;
}

static enum vkmoe_status make_dense(struct train_compare *c, const json_t *config)
{
    enum vkmoe_status status = VKMOE_OK;
    json_t *layers = json_array(), *layer;
    size_t i, n_moe = 0;
    uint32_t d = get_size(json_object_get(config, "input"), "n_features");
    if (d == 0 || json_is_true(json_object_get(json_object_get(config, "train"), "soft_targets")))
        CLI_TRY(refuse("only for inputs of features, and not for soft targets"));
    json_array_foreach(json_object_get(config, "layers"), i, layer) {
        const char *kind = json_string_value(json_object_get(layer, "kind"));
        if (kind && strcmp(kind, "moe") == 0) {
            n_moe++;
            CLI_TRY(replace(c, layer, &d, layers));
            continue;
        }
        if (json_object_get(layer, "d_out"))
            d = get_size(layer, "d_out");
        json_array_append(layers, layer);
    }
    if (n_moe != 1)
        CLI_TRY(refuse("needs one moe layer"));
    c->config = json_deep_copy(config);
    json_object_set(c->config, "layers", layers);
    json_object_del(json_object_get(c->config, "train"), "log");

fail:
    json_decref(layers);
    return status;
}

enum vkmoe_status train_prepare_compare(struct train *train)
{
    return make_dense(&train->compare, train->config);
}

static enum vkmoe_status train_dense(struct train *train)
{
    enum vkmoe_status status;
    vkmoe_trainer *trainer = NULL;
    vkmoe_trainer_report report;
    CLI_TRY(train_create(train, train->compare.config, false, &trainer));
    CLI_TRY(vkmoe_trainer_run(trainer));
    CLI_TRY(vkmoe_trainer_get_report(trainer, &report));
    train->compare.dense = report.valid;
    train->compare.dense_params = report.n_params;
    train->compare.dense_seconds = report.seconds;

fail:
    cli_progress_end();
    vkmoe_trainer_destroy(trainer);
    return status;
}

// ---- nearest neighbour -----------------------------------------------------------------------

struct rows {
    uint64_t n, room;
    uint32_t width;
    float *x;
    int32_t *labels;
};

static enum vkmoe_status grow(struct rows *rows)
{
    enum vkmoe_status status;
    float *x = NULL;
    int32_t *labels = NULL;
    rows->room = 2 * rows->room + 1024;
    CLI_TRY(cli_alloc(rows->room, rows->width, sizeof *x, &x));
    CLI_TRY(cli_alloc(rows->room, 1, sizeof *labels, &labels));
    if (rows->n > 0) {
        memcpy(x, rows->x, rows->n * rows->width * sizeof *x);
        memcpy(labels, rows->labels, rows->n * sizeof *labels);
    }
    free(rows->x);
    free(rows->labels);
    rows->x = x;
    rows->labels = labels;
    return VKMOE_OK;

fail:
    free(x);
    return status;
}

static enum vkmoe_status load(const struct train *train, const char *path, const char **classes,
                              struct rows *rows)
{
    enum vkmoe_status status;
    vkmoe_dataset *data = NULL;
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    vkmoe_dataset_info info;
    const char *in_config =
        json_string_value(json_object_get(json_object_get(train->config, "data"), "target"));
    desc.targets = VKMOE_TARGETS_LABELS;
    desc.classes = classes;
    desc.n_classes = train->report.info.n_classes;
    desc.target = train->target ? train->target : in_config;
    CLI_TRY(vkmoe_dataset_open(path, &desc, &data));
    CLI_TRY(vkmoe_dataset_get_info(data, &info));
    rows->width = info.n_features;
    while (true) {
        if (rows->n == rows->room)
            CLI_TRY(grow(rows));
        uint32_t n = (uint32_t) (rows->room - rows->n < 1024 ? rows->room - rows->n : 1024);
        CLI_TRY(vkmoe_dataset_read(data, &n, rows->x + rows->n * rows->width,
                                   rows->labels + rows->n, NULL));
        if (n == 0)
            break;
        rows->n += n;
    }

fail:
    vkmoe_dataset_destroy(data);
    return status;
}

static int32_t nearest_label(const struct rows *known, const float *x)
{
    double best = 0;
    uint64_t found = 0;
    for (uint64_t i = 0; i < known->n; i++) {
        double distance = 0;
        for (uint32_t j = 0; j < known->width; j++) {
            double d = (double) x[j] - (double) known->x[i * known->width + j];
            distance += d * d;
        }
        if (i == 0 || distance < best) {
            best = distance;
            found = i;
        }
    }
    return known->labels[found];
}

static enum vkmoe_status find_nearest(struct train *train)
{
    enum vkmoe_status status;
    struct rows known = {0}, asked = {0};
    const char **classes = NULL;
    uint64_t n_right = 0;
    uint32_t n_classes = train->report.info.n_classes;
    CLI_TRY(cli_alloc(n_classes, 1, sizeof *classes, &classes));
    for (uint32_t i = 0; i < n_classes; i++)
        classes[i] = vkmoe_trainer_class_name(train->trainer, i);
    CLI_TRY(load(train, train->data, classes, &known));
    CLI_TRY(load(train, train->valid, classes, &asked));
    for (uint64_t i = 0; i < asked.n; i++) {
        CLI_TRY(cli_interrupted() ? VKMOE_E_CANCELLED : VKMOE_OK);
        n_right += nearest_label(&known, asked.x + i * asked.width) == asked.labels[i];
    }
    train->compare.nearest = (double) n_right / (double) asked.n;

fail:
    free(known.x);
    free(known.labels);
    free(asked.x);
    free(asked.labels);
    free(classes);
    return status;
}

enum vkmoe_status train_run_compare(struct train *train)
{
    enum vkmoe_status status;
    CLI_TRY(train_dense(train));
    if (train->report.info.task == VKMOE_TASK_CLASSIFY)
        CLI_TRY(find_nearest(train));

fail:
    return status;
}
