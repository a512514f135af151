// SPDX-License-Identifier: MIT
// vkmoe quantize: layers of a model in another type.
#include "commands.h"
#include "source.h"

#include <stdio.h>

struct quantize {
    struct cli_device log; // only for messages
    const char *in_path, *out_path, *assume, *desc_path, *type, *layer;
    uint64_t size_before, size;
    uint32_t n_fallbacks;
    bool json;
    json_t *parts;
    vkmoe_checkpoint *checkpoint;
};

static void print_part(const struct quantize *q, const vkmoe_save_part *part)
{
    const char *type = part->part == VKMOE_PART_TABLE ? "i32" : vkmoe_dtype_name(part->type);
    char name[64], error[32];
    snprintf(name, sizeof name, "layers.%u.%s", part->layer, vkmoe_part_name(part->part));
    snprintf(error, sizeof error, part->exact ? "exact" : "%.3g", part->error);
    printf("%-36s  %-34s  %-5s  %-9s  %12llu  %12llu\n", name, part->stored, type, error,
           (unsigned long long) part->size_before, (unsigned long long) part->size);
    fflush(stdout); // a large model takes its time
    if (part->fallback)
        fprintf(stderr, "vkmoe: %s: rows are no whole blocks of %s: %s instead\n", name, q->type,
                type);
}

static void report(void *user, const vkmoe_save_part *part)
{
    struct quantize *q = user;
    cli_progress_end();
    q->size_before += part->size_before;
    q->size += part->size;
    q->n_fallbacks += part->fallback;
    if (!q->json) {
        print_part(q, part);
        return;
    }
    json_array_append_new(
        q->parts,
        json_pack("{s:i, s:i, s:s, s:s, s:s, s:b, s:f, s:b, s:I, s:I}", "layer", (int) part->layer,
                  "layer_out", (int) part->layer_out, "part", vkmoe_part_name(part->part),
                  "stored", part->stored, "type",
                  part->part == VKMOE_PART_TABLE ? "i32" : vkmoe_dtype_name(part->type), "exact",
                  (int) part->exact, "error", part->error, "fallback", (int) part->fallback,
                  "bytes_before", (json_int_t) part->size_before, "bytes",
                  (json_int_t) part->size));
}

static bool progress(void *user, uint64_t done, uint64_t total)
{
    (void) user;
    cli_progress("bytes", done, total);
    return !cli_interrupted();
}

static enum vkmoe_status save(struct quantize *q, const vkmoe_save_desc *desc)
{
    enum vkmoe_status status;
    vkmoe_host host = cli_host(&q->log);
    CLI_TRY(source_open(&host, q->in_path, q->assume, q->desc_path, &q->checkpoint));
    CLI_TRY(vkmoe_checkpoint_save(q->checkpoint, q->out_path, desc));
    cli_progress_end();

fail:
    vkmoe_checkpoint_destroy(q->checkpoint);
    return status;
}

static int tell(struct quantize *q)
{
    if (q->json)
        return cli_print_json(json_pack("{s:s, s:s, s:s, s:O, s:I, s:I}", "in", q->in_path, "out",
                                        q->out_path, "type", q->type, "parts", q->parts,
                                        "bytes_before", (json_int_t) q->size_before, "bytes",
                                        (json_int_t) q->size));
    printf("%-36s  %-34s  %-5s  %-9s  %12llu  %12llu\n", "total", "", "", "",
           (unsigned long long) q->size_before, (unsigned long long) q->size);
    return CLI_OK;
}

// "all", or a number.
static bool parse_layer(const char *text, vkmoe_save_desc *desc)
{
    uint64_t n = 0;
    if (strcmp(text, "all") == 0)
        return true;
    if (!*text)
        return false;
    desc->one_layer = true;
    for (; *text >= '0' && *text <= '9' && n <= UINT32_MAX; text++)
        n = 10 * n + (uint64_t) (*text - '0');
    desc->layer = (uint32_t) n;
    return !*text && n <= UINT32_MAX;
}

static const char help[] =
    "Writes the layers with experts of IN with their matrices in another type, and prints\n"
    "what became of each tensor: its relative error, bytes before and after. IN is a\n"
    "Hugging Face folder, a .gguf file or a vkmoe-model file. OUT is by its suffix\n"
    "  .gguf         those layers under the names and keys of the family's architecture\n"
    "  .safetensors  a vkmoe-model; of a vkmoe-model all layers, else those, from 0\n"
    "A matrix whose rows are no whole blocks of the type becomes q8_0, or else f16.\n"
    "OUT appears when it is complete. GGUF has no fp8.\n\n"
    "JSON: {\"in\", \"out\", \"type\", \"bytes_before\", \"bytes\", \"parts\": [{\"layer\",\n"
    "  \"layer_out\": its number in OUT, \"part\", \"stored\", \"type\", \"exact\", \"error\",\n"
    "  \"fallback\", \"bytes_before\", \"bytes\"}]}";

int cmd_quantize(int argc, char **argv)
{
    struct quantize q = {.log = cli_device_init(), .layer = "all"};
    vkmoe_save_desc desc = vkmoe_save_desc_init();
    const struct cli_option options[] = {
        {"type", 0, CLI_TEXT, &q.type, "TYPE", "of the experts' matrices:\n" CLI_TYPES},
        {"layer", 0, CLI_TEXT, &q.layer, "N|all", "only this layer (all)"},
        {"json", 0, CLI_FLAG, &q.json, NULL, "print JSON"},
        SOURCE_OPTIONS(&q.assume, &q.desc_path),
        {0},
    };
    const struct cli_spec spec = {.name = "quantize", .synopsis = "IN OUT", .text = help,
        .options = options, .min_args = 2, .max_args = 2};
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    q.in_path = argv[0];
    q.out_path = argv[1];
    if (!q.type)
        return cli_usage(&spec, "give --type TYPE");
    if (vkmoe_dtype_from_name(q.type, &desc.type) != VKMOE_OK)
        return cli_usage(&spec, "--type %s: %s", q.type, CLI_TYPES);
    if (!parse_layer(q.layer, &desc))
        return cli_usage(&spec, "--layer %s: all, or a whole number", q.layer);
    const char *inputs[] = {q.in_path, q.desc_path};
    if ((code = cli_check_output(&spec, q.out_path, inputs, 2)) != CLI_OK)
        return code;
    q.parts = json_array();
    desc.report = report;
    desc.progress = progress;
    desc.user = &q;
    enum vkmoe_status status = save(&q, &desc);
    code = status == VKMOE_OK ? tell(&q) : cli_fail(status);
    json_decref(q.parts);
    return code;
}
