// SPDX-License-Identifier: MIT
// What the parts of `vkmoe train` share.
#ifndef TRAIN_H
#define TRAIN_H

#include "cli.h"

#include <vkmoe/trainer.h>

// ---- configurations (train_config.c) ----

// The JSON object of a file, "-" for stdin; NULL after a message.
json_t *train_load_config(const char *path);

// "a.b.0.c=VALUE": VALUE is JSON, else a text; false after a message.
bool train_set(json_t *config, const char *assignment);

// ---- examples (train_examples.c) ----

// Prints the list, or the configuration of one; variant may be NULL. CLI_OK or, after a message,
// CLI_USAGE.
int train_list_examples(void);
int train_print_example(const char *name, const char *variant);

// ---- the run and its report ----

struct train_compare { // see train_compare.c
    bool wanted;
    json_t *config;        // of the dense network, owned
    uint32_t d_hidden;     // of the dense network
    uint64_t moe_params;   // that one row of the mixture meets
    uint64_t dense_params; // all of the dense network's
    vkmoe_metrics_summary dense;
    double dense_seconds;
    double nearest;        // accuracy of one nearest neighbour
};

struct train {
    struct cli_device device;
    const char *config_path, *data, *valid, *target, *output, *checkpoint, *log;
    bool resume, json;
    bool saved; // the model is written
    uint32_t checkpoint_epochs;
    json_t *config;
    vkmoe_context *context;
    vkmoe_device_info info;
    vkmoe_trainer *trainer;
    vkmoe_trainer_report report;
    struct train_compare compare;
};

// A trainer for `config`, with the data of `train`; with `files` also its output, checkpoint and
// log. Progress is shown, and an interrupt cancels.
enum vkmoe_status train_create(struct train *train, const json_t *config, bool files,
                               vkmoe_trainer **out);

// Makes the configuration of the dense network, or says why there is none. For a configuration that
// train_create has accepted.
enum vkmoe_status train_prepare_compare(struct train *train);

// Trains what train->config is compared with, and measures both.
enum vkmoe_status train_run_compare(struct train *train);

int train_print_json(const struct train *train);
int train_print_text(const struct train *train);

#endif
