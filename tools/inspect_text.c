// SPDX-License-Identifier: MIT
// A layer in words.
#include "inspect.h"

#include <inttypes.h>

static const char *act_word(enum vkmoe_act act)
{
    static const char *const words[] = {"no activation", "silu", "gelu (erf)", "gelu (tanh)",
                                        "relu", "relu squared", "sigmoid", "tanh", "situ"};
    return (size_t) act < sizeof words / sizeof *words ? words[act] : "unknown activation";
}

static void print_size(FILE *out, uint64_t size)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double) size;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    fprintf(out, unit == 0 ? "%.0f %s" : value < 100 ? "%.2f %s" : "%.0f %s", value, units[unit]);
}

static void print_shape(const vkmoe_layer_desc *d, FILE *out)
{
    fprintf(out, "  shape     %u experts, %u a token, d_model %u, d_ff %u", d->n_experts, d->top_k,
            d->d_model, d->d_ff);
    if (d->d_out != 0 && d->d_out != d->d_model)
        fprintf(out, ", d_out %u", d->d_out);
    if (d->d_shared_ff > 0)
        fprintf(out, ", shared expert d_ff %u", d->d_shared_ff);
    if (d->n_zero > 0)
        fprintf(out, ", %u identity experts", d->n_zero);
    if (d->d_latent > 0)
        fprintf(out, ", latent width %u", d->d_latent);
    if (d->adjugate_group > 0)
        fprintf(out, ", adjugate experts d_ff %u, one for %u", d->d_adjugate, d->adjugate_group);
    fputc('\n', out);
}

static void print_experts(const vkmoe_layer_desc *d, FILE *out)
{
    fprintf(out, "  experts   %s%s", d->gated ? "gated, " : "", act_word(d->act));
    if (d->act_alpha != 1)
        fprintf(out, " (alpha %g)", (double) d->act_alpha);
    if (d->clamp != VKMOE_CLAMP_NONE)
        fprintf(out, ", clamped at %g %s the activation", (double) d->limit,
                d->clamp == VKMOE_CLAMP_BEFORE_ACT ? "before" : "behind");
    if (d->gate_bias || d->up_bias || d->down_bias)
        fputs(", with biases", out);
    if (d->d_shared_ff > 0)
        fprintf(out, "; shared expert %s",
                d->shared_gate == VKMOE_SHARED_PLAIN     ? "added"
                : d->shared_gate == VKMOE_SHARED_SIGMOID ? "times a sigmoid"
                                                         : "mixed by a softmax");
    if (d->capacity_mode != VKMOE_CAPACITY_NONE)
        fputs("; slots beyond an expert's capacity are dropped", out);
    fputc('\n', out);
    if (d->router_input || d->select == VKMOE_SELECT_TABLE)
        fprintf(out, "  needs    %s%s\n", d->router_input ? " --router-input" : "",
                d->select == VKMOE_SELECT_TABLE ? " --token-ids" : "");
}

static enum vkmoe_status print_parts(const struct inspect *in, uint32_t index, FILE *out)
{
    enum vkmoe_status status = VKMOE_OK;
    fprintf(out, "  %-26s  %-22s  %-40s  %s\n", "part", "shape", "stored", "becomes");
    for (int i = 0; i < VKMOE_N_PARTS; i++) {
        vkmoe_checkpoint_part part;
        char shape[64];
        CLI_TRY(vkmoe_checkpoint_get_part(in->checkpoint, index, (enum vkmoe_part) i, &part));
        if (part.n == 0)
            continue;
        if (part.n > 1)
            snprintf(shape, sizeof shape, "%u x (%u, %u)", part.n, part.n_rows, part.n_columns);
        else
            snprintf(shape, sizeof shape, "(%u, %u)", part.n_rows, part.n_columns);
        fprintf(out, "  %-26s  %-22s  %-40s  %s%s\n", vkmoe_part_name((enum vkmoe_part) i), shape,
                part.stored, i == VKMOE_PART_TABLE ? "i32" : vkmoe_dtype_name(part.type),
                part.exact ? "" : ", not exact");
    }

fail:
    return status;
}

static enum vkmoe_status print_tensors(const struct inspect *in, uint32_t index, uint32_t n,
                                       FILE *out)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < n; i++) {
        vkmoe_checkpoint_tensor tensor;
        CLI_TRY(vkmoe_checkpoint_get_tensor(in->checkpoint, index, i, &tensor));
        fprintf(out, "  tensor %s: %s, %" PRIu64 " bytes, %s\n", tensor.name, tensor.stored,
                tensor.size, vkmoe_part_name(tensor.part));
    }

fail:
    return status;
}

static void print_fit(const struct inspect *in, const vkmoe_checkpoint_layer *layer, FILE *out)
{
    struct inspect_fit fit = inspect_fit(in, layer);
    if (!in->context) {
        if (*fit.reason)
            fprintf(out, "  cannot be computed: %s\n", fit.reason);
        return;
    }
    fprintf(out, "  device    %s: ", in->device.name);
    if (!fit.computed) {
        fprintf(out, "does not compute it: %s\n", fit.reason);
        return;
    }
    bool fits = fit.size <= in->device.memory_bytes;
    fputs(fits ? "takes " : "does not fit: ", out);
    print_size(out, fit.size);
    fputs(" of ", out);
    print_size(out, in->device.memory_bytes);
    if (fits && fit.size > 0)
        fprintf(out, ", so %" PRIu64 " such layers fit", in->device.memory_bytes / fit.size);
    fputc('\n', out);
}

// Layers with the same reason have names with different numbers in it.
static void print_reason(const char *reason, uint32_t index, FILE *out)
{
    char number[16];
    int n = snprintf(number, sizeof number, ".%u.", index);
    const char *at = strstr(reason, number);
    if (at)
        fprintf(out, "%.*s.{L}.%s", (int) (at - reason), reason, at + n);
    else
        fputs(reason, out);
}

enum vkmoe_status inspect_text(const struct inspect *in, uint32_t index,
                               const vkmoe_checkpoint_layer *layer, FILE *out)
{
    enum vkmoe_status status = VKMOE_OK;
    if (!layer->has_experts) {
        fputs("no experts: ", out);
        print_reason(layer->reason, index, out);
        fputc('\n', out);
        return VKMOE_OK;
    }
    fputs("experts\n", out);
    fprintf(out, "  router    %s\n", layer->router);
    print_shape(&layer->desc, out);
    print_experts(&layer->desc, out);
    fputs("  bytes     ", out);
    print_size(out, layer->file_size);
    fputs(" in the file, ", out);
    print_size(out, layer->size);
    fputs(" as loaded, ", out);
    print_size(out, layer->token_size);
    fputs(" of those for one token\n", out);
    print_fit(in, layer, out);
    CLI_TRY(print_parts(in, index, out));
    if (in->tensors)
        CLI_TRY(print_tensors(in, index, layer->n_tensors, out));

fail:
    return status;
}
