// SPDX-License-Identifier: MIT
#include "predict_online.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct predict_online {
    vkmoe_model_info info;
    uint32_t layer, n_experts;
    uint32_t width;   // classes, or dimensions of a mean
    uint32_t max_rows;
    vkmoe_session **sessions; // (n_experts)
    vkmoe_online *mixture, *model; // the second has the model itself as its only expert
    float *scores;    // (n_experts, max_rows, n_outputs)
    double *outputs;  // (n_experts, width) of one row
    double *own;      // (width) of the model
    double *target;   // (width)
    double *y;        // (width) of the mixture
    double *losses;   // (n_experts) of one row
    double *sums;     // (n_experts)
    double mixture_sum, model_sum;
    uint64_t n_rows;
};

const char *predict_online_check(const struct predict_online_options *options)
{
    if (!(options->lambda >= 0 && options->lambda <= 1))
        return "--lambda: 0 to 1";
    if (!(options->alpha >= 0 && options->alpha <= 1))
        return "--alpha: 0 to 1";
    if (!(options->variance >= 1e-100 && options->variance <= 1e100))
        return "--variance: 1e-100 to 1e100";
    return NULL;
}

// ---- the object ------------------------------------------------------------------------------

static enum vkmoe_status find_layer(const vkmoe_model *model, struct predict_online *o)
{
    vkmoe_layer_desc desc;
    for (o->layer = 0; o->layer < o->info.n_layers; o->layer++) {
        if (vkmoe_model_layer(model, o->layer, &desc) == VKMOE_OK) {
            o->n_experts = desc.n_experts;
            return VKMOE_OK;
        }
    }
    char text[128];
    snprintf(text, sizeof text, "none of the model's %u layers is a mixture of experts",
             (unsigned) o->info.n_layers);
    vkmoe_error_set(text);
    return VKMOE_E_DATA;
}

static enum vkmoe_status create_weights(const struct predict_online *o,
                                        const struct predict_online_options *options,
                                        uint32_t n_experts, vkmoe_online **out)
{
    vkmoe_online_desc desc = vkmoe_online_desc_init();
    desc.kind = o->info.task == VKMOE_TASK_CLASSIFY ? VKMOE_ONLINE_CATEGORICAL
                                                    : VKMOE_ONLINE_GAUSSIAN;
    desc.n_experts = n_experts;
    desc.n_outputs = o->width;
    desc.lambda = options->lambda;
    desc.alpha = options->alpha;
    desc.variance = options->variance;
    return vkmoe_online_create(&desc, out);
}

static enum vkmoe_status create_sessions(vkmoe_context *context, const vkmoe_model *model,
                                         const struct predict_online_options *options,
                                         struct predict_online *o)
{
    enum vkmoe_status status;
    vkmoe_session_desc desc = vkmoe_session_desc_init();
    desc.max_rows = o->max_rows;
    desc.max_tokens = options->max_tokens;
    desc.precision = (enum vkmoe_precision) options->precision;
    desc.layer = o->layer;
    desc.experts = VKMOE_EXPERTS_ONE;
    CLI_TRY(cli_alloc(o->n_experts, 1, sizeof *o->sessions, &o->sessions));
    for (desc.expert = 0; desc.expert < o->n_experts; desc.expert++)
        CLI_TRY(vkmoe_session_create(context, model, &desc, &o->sessions[desc.expert]));

fail:
    return status;
}

enum vkmoe_status predict_online_create(vkmoe_context *context, const vkmoe_model *model,
                                        const struct predict_online_options *options,
                                        struct predict_online **out)
{
    enum vkmoe_status status;
    struct predict_online *o = NULL;
    *out = NULL;
    CLI_TRY(cli_alloc(1, 1, sizeof *o, &o));
    o->max_rows = options->max_rows;
    CLI_TRY(vkmoe_model_get_info(model, &o->info));
    o->width = o->info.task == VKMOE_TASK_CLASSIFY ? o->info.n_classes : o->info.n_outputs;
    CLI_TRY(find_layer(model, o));
    CLI_TRY(create_weights(o, options, o->n_experts, &o->mixture));
    CLI_TRY(create_weights(o, options, 1, &o->model));
    CLI_TRY(create_sessions(context, model, options, o));
    CLI_TRY(cli_alloc((size_t) o->n_experts * o->max_rows, o->info.n_outputs, sizeof(float),
                      &o->scores));
    CLI_TRY(cli_alloc(o->n_experts, o->width, sizeof(double), &o->outputs));
    CLI_TRY(cli_alloc(1, o->width, sizeof(double), &o->own));
    CLI_TRY(cli_alloc(1, o->width, sizeof(double), &o->target));
    CLI_TRY(cli_alloc(1, o->width, sizeof(double), &o->y));
    CLI_TRY(cli_alloc(o->n_experts, 1, sizeof(double), &o->losses));
    CLI_TRY(cli_alloc(o->n_experts, 1, sizeof(double), &o->sums));
    *out = o;
    return VKMOE_OK;

fail:
    predict_online_destroy(o);
    return status;
}

void predict_online_destroy(struct predict_online *online)
{
    if (!online)
        return;
    for (uint32_t e = 0; online->sessions && e < online->n_experts; e++)
        vkmoe_session_destroy(online->sessions[e]);
    vkmoe_online_destroy(online->mixture);
    vkmoe_online_destroy(online->model);
    free(online->sessions);
    free(online->scores);
    free(online->outputs);
    free(online->own);
    free(online->target);
    free(online->y);
    free(online->losses);
    free(online->sums);
    free(online);
}

// ---- rows ------------------------------------------------------------------------------------

// Scores of one row -> a mean, or probabilities with the sum 1.
static void read_scores(const struct predict_online *o, const float *scores, double *out)
{
    const bool classify = o->info.task == VKMOE_TASK_CLASSIFY;
    double sum = 0;
    if (classify && o->info.n_outputs < o->width) { // one for two
        out[1] = (double) scores[0];
        out[0] = 1 - out[1];
        return;
    }
    for (uint32_t i = 0; i < o->width; i++)
        sum += out[i] = (double) scores[i];
    for (uint32_t i = 0; i < o->width && classify; i++)
        out[i] = sum > 0 ? out[i] / sum : sum == 0 ? 1.0 / o->width : (double) NAN;
}

// One output for two classes says yes above one half; before a sigmoid that is above 0.
static void write_scores(const struct predict_online *o, float *scores, float *y)
{
    if (o->info.n_outputs < o->width) {
        scores[0] = (float) o->y[1];
        y[0] = (float) (o->info.head == VKMOE_HEAD_SIGMOID ? o->y[1] - o->y[0] : o->y[1]);
        return;
    }
    for (uint32_t i = 0; i < o->width; i++)
        scores[i] = y[i] = (float) o->y[i];
}

// Says in front of the error what it is about; row 0: none.
static void prefix_error(const char *what, uint64_t row)
{
    char text[512], number[32] = "";
    if (row > 0)
        snprintf(number, sizeof number, "row %llu: ", (unsigned long long) row);
    snprintf(text, sizeof text, "%s%s%s", what, number, vkmoe_error_text());
    vkmoe_error_set(text);
}

static enum vkmoe_status add_row(struct predict_online *o, uint32_t row, float *scores, float *y,
                                 const int32_t *labels, const float *values)
{
    enum vkmoe_status status;
    const size_t n_outputs = o->info.n_outputs;
    double loss, own_loss;
    for (uint32_t e = 0; e < o->n_experts; e++)
        read_scores(o, o->scores + ((size_t) e * o->max_rows + row) * n_outputs,
                    o->outputs + (size_t) e * o->width);
    read_scores(o, scores, o->own);
    for (uint32_t i = 0; i < o->width && values; i++)
        o->target[i] = (double) values[row * n_outputs + i];

    vkmoe_online_row learn = vkmoe_online_row_init();
    learn.label = labels ? labels[row] : 0;
    learn.target = values ? o->target : NULL;
    learn.outputs = o->own;
    CLI_TRY(vkmoe_online_predict(o->mixture, o->outputs, NULL, o->y));
    status = vkmoe_online_update_weights(o->model, &learn, &own_loss);
    if (status != VKMOE_OK) // it is the only expert there
        prefix_error("the model itself as an expert: ", 0);
    CLI_TRY(status);
    learn.outputs = o->outputs;
    learn.expert_losses = o->losses;
    CLI_TRY(vkmoe_online_update_weights(o->mixture, &learn, &loss));
    write_scores(o, scores, y);
    o->mixture_sum += loss;
    o->model_sum += own_loss;
    for (uint32_t e = 0; e < o->n_experts; e++)
        o->sums[e] += o->losses[e];
    o->n_rows++;

fail:
    return status;
}

enum vkmoe_status predict_online_add(struct predict_online *online, uint32_t n_rows,
                                     const vkmoe_session_io *input, float *scores, float *y,
                                     const int32_t *labels, const float *values)
{
    enum vkmoe_status status = VKMOE_OK;
    const size_t n_outputs = online->info.n_outputs;
    for (uint32_t e = 0; e < online->n_experts; e++) {
        vkmoe_session_io io = *input;
        io.y = NULL;
        io.ids = NULL;
        io.gates = NULL;
        io.layer_x = NULL;
        io.scores = online->scores + (size_t) e * online->max_rows * n_outputs;
        CLI_TRY(vkmoe_session_run(online->sessions[e], n_rows, &io));
    }
    for (uint32_t row = 0; row < n_rows && status == VKMOE_OK; row++) {
        status = add_row(online, row, scores + row * n_outputs, y + row * n_outputs, labels,
                         values);
        if (status != VKMOE_OK)
            prefix_error("", online->n_rows + 1);
    }

fail:
    return status;
}

// ---- report ----------------------------------------------------------------------------------

static uint32_t find_best(const struct predict_online *o)
{
    uint32_t best = 0;
    for (uint32_t e = 1; e < o->n_experts; e++)
        best = o->sums[e] < o->sums[best] ? e : best;
    return best;
}

// JSON has no infinity.
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *numbers(const double *values, uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(array, number(values[i]));
    return array;
}

static int print_json(const struct predict_online *o, const double *weights)
{
    const uint32_t best = find_best(o);
    return cli_print_json(json_pack(
        "{s:I, s:i, s:o, s:o, s:i, s:o, s:o, s:o}", "n", (json_int_t) o->n_rows, "layer",
        (int) o->layer, "loss", number(o->mixture_sum), "best_expert_loss", number(o->sums[best]),
        "best_expert", (int) best, "model_loss", number(o->model_sum), "expert_losses",
        numbers(o->sums, o->n_experts), "weights", numbers(weights, o->n_experts)));
}

static void print_text(const struct predict_online *o, const double *weights)
{
    const uint32_t best = find_best(o);
    const double n = (double) o->n_rows;
    printf("rows         %llu\n", (unsigned long long) o->n_rows);
    printf("loss         summed, and a row: -ln of what was given to the targets\n");
    printf("  mixture    %.6g, %.6g\n", o->mixture_sum, o->mixture_sum / n);
    printf("  expert %-3u %.6g, %.6g (the best of %u of layer %u; mixture at most + %.4g with "
           "lambda 1, alpha 0)\n", (unsigned) best, o->sums[best], o->sums[best] / n,
           (unsigned) o->n_experts, (unsigned) o->layer, log(o->n_experts));
    printf("  model      %.6g, %.6g\n", o->model_sum, o->model_sum / n);
    printf("\n%-9s %12s %12s\n", "expert", "loss", "weight now");
    for (uint32_t e = 0; e < o->n_experts; e++)
        printf("%-9u %12.6g %12.4g\n", (unsigned) e, o->sums[e], weights[e]);
}

int predict_online_report(const struct predict_online *online, bool json)
{
    double *weights;
    enum vkmoe_status status = cli_alloc(online->n_experts, 1, sizeof *weights, &weights);
    if (status == VKMOE_OK)
        status = vkmoe_online_route(online->mixture, NULL, weights);
    int code = CLI_OK;
    if (status != VKMOE_OK)
        code = cli_fail(status);
    else if (json)
        code = print_json(online, weights);
    else
        print_text(online, weights);
    free(weights);
    return code;
}
