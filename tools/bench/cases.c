// SPDX-License-Identifier: MIT
#include "cases.h"

#include "presets.h"
#include "routing.h"
#include "tokens.h"

#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { ITEM = 64, TEXT = 768 };

__attribute__((format(printf, 1, 2)))
static enum vkmoe_status refuse(const char *format, ...)
{
    char text[TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    vkmoe_error_set(text);
    return VKMOE_E_ARGUMENT;
}

bool bench_next_item(const char **list, char *out, size_t size)
{
    if (!*list)
        return false;
    size_t n = strcspn(*list, ",");
    snprintf(out, size, "%.*s", (int) n, *list);
    *list = (*list)[n] == ',' ? *list + n + 1 : NULL;
    return true;
}

// ---- one axis each -----------------------------------------------------------------------------

static const char *const mode_names[] = {
    [BENCH_FORWARD] = "forward",
    [BENCH_BACKWARD] = "backward",
    [BENCH_TRAIN] = "train",
};

const char *bench_mode_name(enum bench_mode mode)
{
    return mode_names[mode];
}

static enum vkmoe_status find_mode(const char *name, enum bench_mode *out)
{
    for (int i = 0; i <= BENCH_TRAIN; i++) {
        if (strcmp(name, mode_names[i]) == 0) {
            *out = (enum bench_mode) i;
            return VKMOE_OK;
        }
    }
    return refuse("--mode %s: known are forward, backward and train", name);
}

// A type up to `last`.
static enum vkmoe_status find_type(const char *option, const char *name, enum vkmoe_dtype last,
                                   enum vkmoe_dtype *out)
{
    char known[128] = "";
    if (vkmoe_dtype_from_name(name, out) == VKMOE_OK && *out <= last)
        return VKMOE_OK;
    for (int i = VKMOE_F32; i <= (int) last; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, " %s",
                 vkmoe_dtype_name((enum vkmoe_dtype) i));
    }
    return refuse("%s %s: known are%s", option, name, known);
}

// "q8_0", or "q4_K-q6_K": of the matrices that read x, and of down.
static enum vkmoe_status find_types(const char *text, vkmoe_layer_desc *layer)
{
    enum vkmoe_status status;
    char in[ITEM];
    const size_t n = strcspn(text, "-");
    snprintf(in, sizeof in, "%.*s", (int) n, text);
    layer->own_shared_types = false;
    CLI_TRY(find_type("--type", in, VKMOE_FP8, &layer->in_type));
    layer->out_type = layer->in_type;
    if (text[n] == '-')
        CLI_TRY(find_type("--type", text + n + 1, VKMOE_FP8, &layer->out_type));

fail:
    return status;
}

static bool is_16_bit(enum vkmoe_dtype type)
{
    return type == VKMOE_F16 || type == VKMOE_BF16;
}

// Of blocks that are multiplied as they are; fp8 is decoded.
static bool is_int8(enum vkmoe_dtype type)
{
    return type > VKMOE_BF16 && type != VKMOE_FP8;
}

// What a layer with these types is measured with if nothing was said.
static enum vkmoe_precision default_precision(const vkmoe_layer_desc *layer)
{
    const bool shared = layer->d_shared_ff > 0 && layer->own_shared_types;
    if (is_int8(layer->in_type) || is_int8(layer->out_type) ||
        (shared && (is_int8(layer->shared_in_type) || is_int8(layer->shared_out_type))))
        return VKMOE_PRECISION_INT8;
    return is_16_bit(layer->in_type) ? VKMOE_PRECISION_HALF : VKMOE_PRECISION_EXACT;
}

static enum vkmoe_status find_precision(const char *name, enum vkmoe_precision *out)
{
    if (vkmoe_precision_from_name(name, out) == VKMOE_OK)
        return VKMOE_OK;
    return refuse("--precision %s: known are exact, half and int8", name);
}

enum vkmoe_status bench_find_preset(const char *name, bool plain, vkmoe_layer_desc *out)
{
    char known[TEXT - ITEM] = "";
    const char *preset;
    if (bench_preset(name, out)) {
        if (plain)
            *out = bench_plain_layer(out->n_experts, out->top_k, out->d_model, out->d_ff,
                                     out->d_shared_ff);
        return VKMOE_OK;
    }
    for (uint32_t i = 0; (preset = bench_preset_name(i)); i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, " %s", preset);
    }
    return refuse("no preset or model file '%.60s'; presets are%s", name, known);
}

// ---- combinations ------------------------------------------------------------------------------

static enum vkmoe_status append(struct bench_cases *cases, const struct bench_case *what)
{
    for (uint32_t i = 0; i < cases->n; i++) {
        const char *trace = cases->cases[i].trace;
        if (bench_key_difference(&cases->cases[i].key, &what->key))
            continue;
        if (trace && strcmp(trace, what->trace) != 0)
            return refuse("--routing trace:%.200s: another trace has this name, and rows tell them "
                          "by it", what->trace);
        return VKMOE_OK;
    }
    if (cases->n == cases->room) {
        uint32_t room = 2 * cases->room + 16;
        struct bench_case *grown = realloc(cases->cases, room * sizeof *grown);
        if (!grown) {
            vkmoe_error_set("no memory for the cases");
            return VKMOE_E_MEMORY;
        }
        cases->cases = grown;
        cases->room = room;
    }
    cases->cases[cases->n++] = *what;
    return VKMOE_OK;
}

// Some cases of one layer, which the axes fill in one after the other.
struct combination {
    const struct bench_axes *axes;
    vkmoe_layer_desc layer; // with its own types
    char refusal[sizeof((struct bench_case *) NULL)->refusal]; // whatever they are
    struct bench_case what;
    struct bench_tokens tokens;
    const char *const *routings;
    int n_routings;
    struct bench_cases *out;
};

static enum vkmoe_status add_tokens(struct combination *c, const char *routing_text)
{
    struct bench_routing routing;
    if (!bench_routing_parse(routing_text, &routing))
        return refuse("--routing %.60s: known are uniform, zipf:A (A from 0 to 8), single and "
                      "trace:FILE.npy", routing_text);
    bench_routing_text(&routing, c->what.key.routing, sizeof c->what.key.routing);
    c->what.trace = routing.kind == BENCH_TRACE ? routing.path : NULL;
    for (uint32_t i = 0; i < c->tokens.n; i++) {
        c->what.key.n_tokens = c->tokens.counts[i];
        enum vkmoe_status status = append(c->out, &c->what);
        if (status != VKMOE_OK)
            return status;
    }
    return VKMOE_OK;
}

// A list with commas, or a trace, whose path may have some.
static enum vkmoe_status add_routing_list(struct combination *c, const char *list)
{
    enum vkmoe_status status = VKMOE_OK;
    char item[ITEM];
    if (strncmp(list, "trace:", 6) == 0)
        return add_tokens(c, list);
    while (bench_next_item(&list, item, sizeof item)) {
        if (strncmp(item, "trace:", 6) == 0)
            CLI_TRY(refuse("--routing %.60s: a trace needs a --routing of its own", item));
        CLI_TRY(add_tokens(c, item));
    }

fail:
    return status;
}

static enum vkmoe_status add_routings(struct combination *c)
{
    enum vkmoe_status status = VKMOE_OK;
    if (c->n_routings == 0)
        return add_routing_list(c, c->axes->routings ? c->axes->routings : "uniform");
    for (int i = 0; i < c->n_routings; i++)
        CLI_TRY(add_routing_list(c, c->routings[i]));

fail:
    return status;
}

static enum vkmoe_status add_precision(struct combination *c, const char *name)
{
    enum vkmoe_status status;
    struct bench_case *what = &c->what;
    what->precision = default_precision(&what->layer);
    what->or_exact = !name && what->precision == VKMOE_PRECISION_INT8;
    if (name)
        CLI_TRY(find_precision(name, &what->precision));
    bool half = what->precision == VKMOE_PRECISION_HALF && is_16_bit(what->type);
    what->x_type = half ? what->type : VKMOE_F32;
    if (c->axes->x_type)
        CLI_TRY(find_type("--x-type", c->axes->x_type, VKMOE_BF16, &what->x_type));
    snprintf(what->key.precision, sizeof what->key.precision, "%s",
             vkmoe_precision_name(what->precision));
    snprintf(what->key.x_type, sizeof what->key.x_type, "%s", vkmoe_dtype_name(what->x_type));
    CLI_TRY(add_routings(c));

fail:
    return status;
}

// A network's rows and gradients are f32 whatever its weights are.
static enum vkmoe_status add_net(struct combination *c)
{
    struct bench_case *what = &c->what;
    what->precision = VKMOE_PRECISION_EXACT;
    what->x_type = VKMOE_F32;
    snprintf(what->key.precision, sizeof what->key.precision, "exact");
    snprintf(what->key.x_type, sizeof what->key.x_type, "f32");
    return add_routings(c);
}

// What no device computes with these types, or nothing at all of this layer.
static void check_types(const struct combination *c, struct bench_case *what)
{
    const vkmoe_layer_desc *layer = &what->layer;
    memcpy(what->refusal, c->refusal, sizeof what->refusal);
    if (*what->refusal)
        return;
    if (vkmoe_layer_check(layer) != VKMOE_OK)
        snprintf(what->refusal, sizeof what->refusal, "%s", vkmoe_error_text());
    else if (what->mode != BENCH_FORWARD &&
             (layer->in_type > VKMOE_BF16 || layer->out_type != layer->in_type))
        snprintf(what->refusal, sizeof what->refusal,
                 "--mode %s: networks have weights of one type, f32, f16 or bf16, not %s",
                 bench_mode_name(what->mode), what->key.type);
}

// NULL: the layer's own.
static enum vkmoe_status add_type(struct combination *c, const char *name)
{
    enum vkmoe_status status = VKMOE_OK;
    struct bench_case *what = &c->what;
    const char *list = c->axes->precisions;
    char item[ITEM];
    what->layer = c->layer;
    if (name)
        CLI_TRY(find_types(name, &what->layer));
    what->type = what->layer.in_type;
    bool pair = what->layer.out_type != what->type;
    snprintf(what->key.type, sizeof what->key.type, "%s%s%s", vkmoe_dtype_name(what->type),
             pair ? "-" : "", pair ? vkmoe_dtype_name(what->layer.out_type) : "");
    check_types(c, what);
    if (what->mode != BENCH_FORWARD)
        return add_net(c);
    if (!list)
        return add_precision(c, NULL);
    while (bench_next_item(&list, item, sizeof item))
        CLI_TRY(add_precision(c, item));

fail:
    return status;
}

static enum vkmoe_status add_mode(struct combination *c, const char *name)
{
    enum vkmoe_status status;
    const char *list = c->axes->types;
    char item[ITEM];
    CLI_TRY(find_mode(name, &c->what.mode));
    snprintf(c->what.key.mode, sizeof c->what.key.mode, "%s", bench_mode_name(c->what.mode));
    if (!list)
        return add_type(c, NULL);
    while (bench_next_item(&list, item, sizeof item))
        CLI_TRY(add_type(c, item));

fail:
    return status;
}

// What this version does not compute is a case with a reason; what is no layer at all is an error.
static enum vkmoe_status check_layer(struct bench_case *what)
{
    enum vkmoe_status status = vkmoe_layer_check(&what->layer);
    if (status == VKMOE_OK)
        bench_layer_refusal(&what->layer, what->refusal, sizeof what->refusal);
    else
        snprintf(what->refusal, sizeof what->refusal, "%s", vkmoe_error_text());
    return status == VKMOE_E_UNSUPPORTED ? VKMOE_OK : status;
}

static void describe(const char *model, const struct bench_common *common, struct bench_case *what)
{
    struct bench_key *key = &what->key;
    const vkmoe_layer_desc *layer = &what->layer;
    snprintf(key->model, sizeof key->model, "%s%s", model, *model && common->plain ? ":plain" : "");
    key->n_experts = layer->n_experts;
    key->top_k = layer->top_k;
    key->d_model = layer->d_model;
    key->d_ff = layer->d_ff;
    key->d_shared_ff = layer->d_shared_ff;
    bench_rule_text(layer, key->rule, sizeof key->rule);
    bench_expert_text(layer, key->expert, sizeof key->expert);
    key->seed = common->seed;
    what->variant = common->variant;
    what->budget_ms = common->budget_ms;
}

enum vkmoe_status bench_cases_add(const struct bench_axes *axes, const struct bench_common *common,
                                  const char *model, const vkmoe_layer_desc *layer,
                                  const char *const *routings, int n_routings,
                                  struct bench_cases *out)
{
    enum vkmoe_status status;
    struct combination c = {
        .axes = axes, .routings = routings, .n_routings = n_routings, .out = out};
    const char *list = axes->modes ? axes->modes : "forward";
    char item[ITEM], reason[160];
    if (!bench_tokens_parse(axes->tokens ? axes->tokens : "1,64", &c.tokens, reason, sizeof reason))
        return refuse("--tokens %s", reason);
    c.what.layer = *layer;
    CLI_TRY(check_layer(&c.what));
    if (c.what.layer.d_out == 0)
        c.what.layer.d_out = c.what.layer.d_model;
    c.layer = c.what.layer;
    memcpy(c.refusal, c.what.refusal, sizeof c.refusal);
    describe(model, common, &c.what);
    while (bench_next_item(&list, item, sizeof item))
        CLI_TRY(add_mode(&c, item));

fail:
    return status;
}

// ---- the list of them --------------------------------------------------------------------------

enum vkmoe_status bench_cases_filter(struct bench_cases *cases, const char *expression)
{
    regex_t filter;
    char name[256];
    uint32_t kept = 0;
    if (regcomp(&filter, expression, REG_EXTENDED | REG_NOSUB) != 0)
        return refuse("--case %.100s: not a regular expression", expression);
    for (uint32_t i = 0; i < cases->n; i++) {
        bench_key_text(&cases->cases[i].key, name, sizeof name);
        if (regexec(&filter, name, 0, NULL, 0) == 0)
            cases->cases[kept++] = cases->cases[i];
    }
    regfree(&filter);
    if (kept == 0)
        return refuse("--case %.100s: matches none of the %u cases", expression,
                      (unsigned) cases->n);
    cases->n = kept;
    return VKMOE_OK;
}

enum vkmoe_status bench_cases_check_traces(const struct bench_cases *cases)
{
    for (uint32_t i = 0; i < cases->n; i++) {
        const struct bench_case *what = &cases->cases[i];
        const struct bench_key *key = &what->key;
        struct bench_trace trace;
        if (!what->trace)
            continue;
        enum vkmoe_status status = bench_trace_read(what->trace, key->n_experts, key->top_k,
                                                    key->n_tokens, &trace);
        if (status != VKMOE_OK)
            return status;
        free(trace.ids);
    }
    return VKMOE_OK;
}

void bench_cases_finish(struct bench_cases *cases)
{
    free(cases->cases);
    *cases = (struct bench_cases){0};
}
