// SPDX-License-Identifier: MIT
// vkmoe inspect: what a model file holds, without reading weights.
#include "commands.h"
#include "inspect.h"
#include "source.h"

#include <stdlib.h>

struct options {
    struct cli_device device;
    const char *path, *assume, *desc_path;
    uint64_t layer; // UINT64_MAX: all
    bool json, tensors;
};

const char *inspect_kind(enum vkmoe_checkpoint_kind kind)
{
    switch (kind) {
    case VKMOE_CHECKPOINT_HF:
        return "hf";
    case VKMOE_CHECKPOINT_GGUF:
        return "gguf";
    case VKMOE_CHECKPOINT_MODEL:
        return "vkmoe-model";
    }
    return "unknown";
}

struct inspect_fit inspect_fit(const struct inspect *in, const vkmoe_checkpoint_layer *layer)
{
    enum vkmoe_status status;
    struct inspect_fit fit = {0};
    vkmoe_weights_layout layout;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_plan *plan = NULL;
    desc.layer = &layer->desc;
    desc.max_tokens = 1;
    CLI_TRY(vkmoe_layer_check(&layer->desc));
    if (!in->context)
        return fit;
    CLI_TRY(vkmoe_weights_get_layout(in->context, &layer->desc, &layout));
    CLI_TRY(vkmoe_plan_create(in->context, &desc, &plan));
    fit.size = layout.total_size;
    fit.computed = true;

fail:
    if (status != VKMOE_OK)
        snprintf(fit.reason, sizeof fit.reason, "%s", vkmoe_error_text());
    vkmoe_plan_destroy(plan);
    return fit;
}

// ---- text ------------------------------------------------------------------------------------

// A run of layers that say the same.
struct alike {
    uint32_t first, n;
    char *text;
};

static void print_alike(struct alike *alike, FILE *out)
{
    if (!alike->text)
        return;
    if (alike->n == 1)
        fprintf(out, "layer %u: %s", alike->first, alike->text);
    else
        fprintf(out, "layers %u-%u: %s", alike->first, alike->first + alike->n - 1, alike->text);
    free(alike->text);
    alike->text = NULL;
}

static enum vkmoe_status make_text(const struct inspect *in, uint32_t index,
                                   const vkmoe_checkpoint_layer *layer, char **out)
{
    size_t size;
    FILE *stream = open_memstream(out, &size);
    if (!stream) {
        vkmoe_error_set("no memory for the text of a layer");
        return VKMOE_E_MEMORY;
    }
    enum vkmoe_status status = inspect_text(in, index, layer, stream);
    fclose(stream);
    return status;
}

// Adds a layer to those before it, or prints them and begins anew.
static void add_text(struct alike *alike, uint32_t index, char *text, FILE *out)
{
    if (alike->text && strcmp(alike->text, text) == 0) {
        alike->n++;
        free(text);
        return;
    }
    print_alike(alike, out);
    *alike = (struct alike){index, 1, text};
}

static void print_head(const struct inspect *in, FILE *out)
{
    static const char *const kinds[] = {"Hugging Face folder", "GGUF file", "vkmoe-model file"};
    const vkmoe_checkpoint_info *info = &in->info;
    fprintf(out, "%s: %s, family %s", in->path, kinds[info->kind], info->family);
    if (*info->says && strcmp(info->says, info->family) != 0)
        fprintf(out, " (it says %s)", info->says);
    fprintf(out, ", %u layers\n", info->n_layers);
}

static enum vkmoe_status tell_text(const struct inspect *in, uint32_t first, uint32_t end,
                                   FILE *out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct alike alike = {0};
    uint64_t file_size = 0, size = 0;
    uint32_t n = 0;
    print_head(in, out);
    for (uint32_t i = first; i < end; i++) {
        vkmoe_checkpoint_layer layer;
        char *text = NULL;
        CLI_TRY(vkmoe_checkpoint_get_layer(in->checkpoint, i, &layer));
        status = make_text(in, i, &layer, &text);
        if (status != VKMOE_OK) {
            free(text);
            goto fail;
        }
        add_text(&alike, i, text, out);
        n += layer.has_experts;
        file_size += layer.has_experts ? layer.file_size : 0;
        size += layer.has_experts ? layer.size : 0;
    }
    print_alike(&alike, out);
    fprintf(out, "%u layer%s with experts: %llu bytes in the file, %llu as loaded\n", n,
            n == 1 ? "" : "s", (unsigned long long) file_size, (unsigned long long) size);

fail:
    free(alike.text);
    return status;
}

// Nothing is printed unless all of it can be.
static enum vkmoe_status print_text(const struct inspect *in, uint32_t first, uint32_t end)
{
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    if (!stream) {
        vkmoe_error_set("no memory for the text");
        return VKMOE_E_MEMORY;
    }
    enum vkmoe_status status = tell_text(in, first, end, stream);
    fclose(stream);
    if (status == VKMOE_OK)
        fputs(text, stdout);
    free(text);
    return status;
}

// ---- JSON ------------------------------------------------------------------------------------

static enum vkmoe_status print_json(const struct inspect *in, uint32_t first, uint32_t end,
                                    int *code)
{
    enum vkmoe_status status = VKMOE_OK;
    json_t *layers = json_array();
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:i, s:O}", "model", in->path, "kind",
                          inspect_kind(in->info.kind), "family", in->info.family, "says",
                          in->info.says, "n_layers", (int) in->info.n_layers, "layers", layers);
    if (in->context)
        json_object_set_new(o, "device",
                            json_pack("{s:s, s:I}", "name", in->device.name, "memory_bytes",
                                      (json_int_t) in->device.memory_bytes));
    for (uint32_t i = first; i < end; i++) {
        vkmoe_checkpoint_layer layer;
        json_t *item = NULL;
        CLI_TRY(vkmoe_checkpoint_get_layer(in->checkpoint, i, &layer));
        status = inspect_json(in, i, &layer, &item);
        json_array_append_new(layers, item);
        CLI_TRY(status);
    }
    *code = cli_print_json(json_incref(o));

fail:
    json_decref(layers);
    json_decref(o);
    return status;
}

// ---- the command -----------------------------------------------------------------------------

static enum vkmoe_status inspect(const struct options *options, struct inspect *in, int *code)
{
    enum vkmoe_status status;
    vkmoe_host host = cli_host(&options->device);
    in->path = options->path;
    in->tensors = options->tensors || options->layer != UINT64_MAX;
    CLI_TRY(source_open(&host, options->path, options->assume, options->desc_path,
                        &in->checkpoint));
    CLI_TRY(vkmoe_checkpoint_get_info(in->checkpoint, &in->info));
    if (options->device.spec)
        CLI_TRY(cli_open(&options->device, &in->context, &in->device));
    uint32_t first = 0, end = in->info.n_layers;
    if (options->layer != UINT64_MAX) {
        // One that is not there is refused by vkmoe_checkpoint_get_layer.
        first = options->layer < UINT32_MAX ? (uint32_t) options->layer : UINT32_MAX - 1;
        end = first + 1;
    }
    CLI_TRY(options->json ? print_json(in, first, end, code) : print_text(in, first, end));

fail:
    return status;
}

static const char help[] =
    "Tells what a model file holds, without reading weights: family, layers with experts,\n"
    "their router's rule, shapes, stored types and what each becomes, bytes. MODEL is a\n"
    "Hugging Face folder, a .gguf file or a vkmoe-model file. Layers that cannot be computed\n"
    "are told with the reason; with -d also what that device does not compute or has no\n"
    "memory for.\n\n"
    "JSON: {\"model\", \"kind\": \"hf|gguf|vkmoe-model\", \"family\", \"says\", \"n_layers\",\n"
    "  \"device\": {\"name\", \"memory_bytes\"} (with -d),\n"
    "  \"layers\": [{\"layer\", \"experts\": false, \"reason\"} | {\"layer\", \"experts\": true,\n"
    "  \"router\", \"shape\": {\"n_experts\", \"top_k\", \"d_model\", \"d_ff\", \"d_out\",\n"
    "  \"d_shared_ff\", \"n_zero\", \"d_latent\", \"d_adjugate\"},\n"
    "  \"router_input\", \"token_ids\": are they needed?, \"file_bytes\", \"bytes\" (loaded),\n"
    "  \"token_bytes\" (of those, for one token),\n"
    "  \"fits\", \"device_bytes\" (with -d), \"why_not\": why it cannot be computed,\n"
    "  \"parts\": [{\"part\", \"n\", \"rows\", \"columns\", \"stored\", \"type\", \"exact\"}],\n"
    "  \"tensors\": [{\"name\", \"part\", \"stored\", \"bytes\"}] (with --tensors or --layer)}]}";

int cmd_inspect(int argc, char **argv)
{
    struct options o = {.device = cli_device_init(), .layer = UINT64_MAX};
    const struct cli_option options[] = {
        {"layer", 0, CLI_U64, &o.layer, "N", "only this layer, with its tensors"},
        {"tensors", 0, CLI_FLAG, &o.tensors, NULL, "list the tensors of each layer"},
        {"json", 0, CLI_FLAG, &o.json, NULL, "print JSON"},
        SOURCE_OPTIONS(&o.assume, &o.desc_path),
        {0},
    };
    const struct cli_spec spec = {.name = "inspect", .synopsis = "MODEL", .text = help,
        .options = options, .min_args = 1, .max_args = 1, .device = &o.device};
    struct inspect in = {0};
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    o.path = argv[0];
    enum vkmoe_status status = inspect(&o, &in, &code);
    if (status != VKMOE_OK)
        code = cli_fail(status);
    vkmoe_checkpoint_destroy(in.checkpoint);
    return cli_close(in.context, code);
}
