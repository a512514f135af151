// SPDX-License-Identifier: MIT
// vkmoe train: a model from a configuration and data.
#include "commands.h"
#include "train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define NOT_GIVEN UINT64_MAX

// ---- progress ----

static void show(const vkmoe_trainer_progress *p)
{
    double left = p->step > 0 ? p->seconds / (double) p->step * (double) (p->n_steps - p->step) : 0;
    char valid[96] = "";
    if (!isnan(p->valid_loss))
        snprintf(valid, sizeof valid, "  valid %.4g  metric %.4g", p->valid_loss, p->metric);
    cli_progress_text("epoch %u/%u  loss %.4g%s  rate %.3g  %.0f:%02.0f left", p->epoch,
                      p->n_epochs, p->loss, valid, p->rate, floor(left / 60),
                      floor(fmod(left, 60)));
}

static bool on_progress(void *user, const vkmoe_trainer_progress *progress)
{
    (void) user;
    show(progress);
    return !cli_interrupted();
}

// ---- running ----

enum vkmoe_status train_create(struct train *train, const json_t *config, bool files,
                               vkmoe_trainer **out)
{
    vkmoe_host host = cli_host(&train->device);
    vkmoe_trainer_desc desc = vkmoe_trainer_desc_init();
    char *text = json_dumps(config, JSON_REAL_PRECISION(17));
    if (!text) {
        vkmoe_error_set("no memory for the configuration");
        return VKMOE_E_MEMORY;
    }
    desc.host = &host;
    desc.config_name = train->config_path;
    desc.config = text;
    desc.data = train->data;
    desc.valid = train->valid;
    desc.target = train->target;
    desc.progress = on_progress;
    if (files) {
        desc.output = train->output;
        desc.checkpoint = train->checkpoint;
        desc.checkpoint_epochs = train->checkpoint_epochs;
        desc.resume = train->resume;
        desc.log = train->log;
    }
    enum vkmoe_status status = vkmoe_trainer_create(train->context, &desc, out);
    free(text);
    return status;
}

static enum vkmoe_status run_all(struct train *train)
{
    enum vkmoe_status status;
    CLI_TRY(cli_open(&train->device, &train->context, &train->info));
    CLI_TRY(train_create(train, train->config, true, &train->trainer));
    if (train->compare.wanted)
        CLI_TRY(train_prepare_compare(train));
    CLI_TRY(vkmoe_trainer_run(train->trainer));
    cli_progress_end();
    CLI_TRY(vkmoe_trainer_get_report(train->trainer, &train->report));
    CLI_TRY(vkmoe_trainer_save(train->trainer, train->output));
    train->saved = true;
    if (train->compare.wanted)
        CLI_TRY(train_run_compare(train));

fail:
    cli_progress_end();
    return status;
}

// ---- the command ----

static int check_options(const struct cli_spec *spec, const struct train *train)
{
    if (!train->config_path)
        return cli_usage(spec, "needs a configuration, --example or --list-examples");
    if (!train->data || !train->output)
        return cli_usage(spec, "needs %s", train->data ? "-o MODEL" : "--data DATA");
    if (train->compare.wanted && !train->valid)
        return cli_usage(spec, "--compare needs --valid");
    const char *const inputs[] = {train->config_path, train->data, train->valid};
    const char *const outputs[] = {train->output, train->checkpoint, train->log};
    int code = CLI_OK;
    for (size_t i = 0; code == CLI_OK && i < sizeof outputs / sizeof *outputs; i++)
        code = cli_check_output(spec, outputs[i], inputs, sizeof inputs / sizeof *inputs);
    return code;
}

// The configuration as it will be used. CLI_OK, or an exit code after a message.
static int read_config(struct train *train, const struct cli_list *sets, uint64_t seed)
{
    train->config = train_load_config(train->config_path);
    if (!train->config)
        return CLI_FAILED;
    for (int i = 0; i < sets->n; i++) {
        if (!train_set(train->config, sets->texts[i]))
            return CLI_USAGE;
    }
    if (seed != NOT_GIVEN)
        json_object_set_new(json_object_get(train->config, "train"), "seed",
                            json_integer((json_int_t) seed));
    return CLI_OK;
}

static int run_command(struct train *train)
{
    char path[4096];
    bool own_checkpoint = !train->checkpoint;
    if (own_checkpoint) {
        snprintf(path, sizeof path, "%s.checkpoint", train->output);
        train->checkpoint = path;
    }
    enum vkmoe_status status = run_all(train);
    int code = CLI_OK;
    if (status == VKMOE_OK) {
        code = train->json ? train_print_json(train) : train_print_text(train);
    } else {
        code = cli_fail(status);
        if (train->saved)
            fprintf(stderr, "%s holds the model; the comparison is missing\n", train->output);
        else if (status == VKMOE_E_CANCELLED)
            fprintf(stderr, "%s holds what is done; --resume goes on with it\n",
                    train->checkpoint);
    }
    if (train->saved && own_checkpoint)
        unlink(path);
    vkmoe_trainer_destroy(train->trainer);
    return cli_close(train->context, code);
}

int cmd_train(int argc, char **argv)
{
    struct train train = {.device = cli_device_init()};
    bool list = false;
    const char *example = NULL, *variant = NULL;
    struct cli_list sets = {0};
    uint64_t seed = NOT_GIVEN;
    const struct cli_option options[] = {
        {"data", 0, CLI_TEXT, &train.data, "DATA", "what to learn: .csv, .tsv or X.npy"},
        {"valid", 0, CLI_TEXT, &train.valid, "DATA", "rows to validate with"},
        {"target", 0, CLI_TEXT, &train.target, "COL[,COL]",
         "target columns of a .csv by name, or by number\nfrom 1 (the last column)"},
        {"output", 'o', CLI_OUTPUT, &train.output, "MODEL",
         "the finished model, .safetensors; a file there is\nreplaced at the end only"},
        {"seed", 0, CLI_U64, &seed, "S", "instead of the configuration's train.seed"},
        {"set", 0, CLI_LIST, &sets, "KEY=VALUE",
         "change the configuration, as in\ntrain.optimiser.rate=0.01 or layers.0.top_k=1;\n"
         "null removes a key"},
        {"checkpoint", 0, CLI_OUTPUT, &train.checkpoint, "FILE",
         "what --resume goes on with (MODEL.checkpoint,\nremoved at the end)"},
        {"checkpoint-every", 0, CLI_U32, &train.checkpoint_epochs, "N",
         "epochs from checkpoint to checkpoint\n(0: about a minute)"},
        {"resume", 0, CLI_FLAG, &train.resume, NULL, "go on from the checkpoint"},
        {"log-file", 0, CLI_OUTPUT, &train.log, "FILE",
         "a line for every epoch: .csv, else JSON"},
        {"compare", 0, CLI_FLAG, &train.compare.wanted, NULL,
         "also train a dense network of as many active\nparameters, and ask the nearest neighbour"},
        {"json", 0, CLI_FLAG, &train.json, NULL, "print JSON"},
        {"list-examples", 0, CLI_FLAG, &list, NULL, "configurations that come with the program"},
        {"example", 0, CLI_TEXT, &example, "NAME", "print one of them"},
        {"variant", 0, CLI_TEXT, &variant, "NAME", "and which variant of it"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "train",
        .synopsis = "CONFIG.json",
        .text = "Trains a model as the configuration says (\"-\": it is on stdin). An interrupt\n"
                "saves a checkpoint. What the configuration may say is in <vkmoe/trainer.h>.\n\n"
                "    vkmoe train --example sparse-topk > c.json\n"
                "    vkmoe train c.json --data train.csv --valid test.csv -o model.safetensors",
        .options = options,
        .max_args = 1,
        .device = &train.device,
    };
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    train.config_path = argc > 0 ? argv[0] : NULL;
    if (list)
        return train_list_examples();
    if (variant && !example)
        return cli_usage(&spec, "--variant needs --example");
    if (example)
        return train_print_example(example, variant);
    code = check_options(&spec, &train);
    if (code == CLI_OK)
        code = read_config(&train, &sets, seed);
    if (code == CLI_OK)
        code = run_command(&train);
    json_decref(train.compare.config);
    json_decref(train.config);
    return code;
}
