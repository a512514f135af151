// SPDX-License-Identifier: MIT
#include "check.h"

#include "rng.h"
#include "roofline.h"
#include "routing.h"
#include "verify_check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_ROWS = 32, STREAM_CHECK = 0x63686b };

#define MAX_PRODUCTS 2e8 // of the oracle: a second or so

// ---- verdicts ----------------------------------------------------------------------------------

// In front of what measuring had to say of the times.
__attribute__((format(printf, 2, 0)))
static void conclude(struct bench_row *row, const char *format, va_list args)
{
    char note[sizeof row->reason];
    snprintf(note, sizeof note, "%s", row->reason);
    vsnprintf(row->reason, sizeof row->reason, format, args);
    size_t used = strlen(row->reason);
    if (*note)
        snprintf(row->reason + used, sizeof row->reason - used, "; %s", note);
}

void bench_check_failed(struct bench_row *row, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    conclude(row, format, args);
    va_end(args);
    row->status = BENCH_ERROR;
    snprintf(row->verify.state, sizeof row->verify.state, "fail");
}

void bench_check_impossible(struct bench_row *row, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    conclude(row, format, args);
    va_end(args);
    row->status = BENCH_UNVERIFIED;
    snprintf(row->verify.state, sizeof row->verify.state, "none");
}

// ---- all rows ----------------------------------------------------------------------------------

static bool contains(const int32_t *ids, uint32_t n, int32_t id)
{
    for (uint32_t k = 0; k < n; k++) {
        if (ids[k] == id)
            return true;
    }
    return false;
}

bool bench_check_ids(const struct bench_work *work, struct bench_row *row)
{
    const struct bench_key *key = &work->what->key;
    const struct bench_material *material = work->material;
    const uint32_t top_k = key->top_k;
    for (size_t i = 0; i < (size_t) work->n_copies * key->n_tokens; i++) {
        const int32_t *wanted = material->wanted + i * top_k, *got = material->ids + i * top_k;
        for (uint32_t k = 0; k < top_k; k++) {
            if (contains(got, top_k, wanted[k]))
                continue;
            bench_check_failed(row, "copy %zu, row %zu: goes to expert %d and not to %d",
                               i / key->n_tokens, i % key->n_tokens, (int) got[k],
                               (int) wanted[k]);
            return false;
        }
    }
    return true;
}

// Row `token` of a copy's rows, `width` wide, as f32.
static void decode_row(const struct bench_work *work, const void *rows, uint32_t copy,
                       uint32_t token, uint32_t width, float *out)
{
    const struct bench_case *what = work->what;
    const size_t at = ((size_t) copy * what->key.n_tokens + token) * width;
    verify_decode(what->x_type, (const char *) rows + at * bench_row_size(what->x_type, 1), width,
                  out);
}

static bool check_finite(const struct bench_work *work, struct bench_row *row)
{
    const uint32_t d_out = work->what->layer.d_out;
    float *y = NULL;
    if (cli_alloc(1, d_out, sizeof *y, &y) != VKMOE_OK) {
        bench_check_impossible(row, "%s", vkmoe_error_text());
        return false;
    }
    for (uint32_t copy = 0; copy < work->n_copies; copy++) {
        for (uint32_t t = 0; t < work->what->key.n_tokens; t++) {
            decode_row(work, work->material->y, copy, t, d_out, y);
            for (uint32_t c = 0; c < d_out; c++) {
                if (isfinite(y[c]))
                    continue;
                bench_check_failed(row, "copy %u, row %u of y, column %u: %g, or not written",
                                   (unsigned) copy, (unsigned) t, (unsigned) c, (double) y[c]);
                free(y);
                return false;
            }
        }
    }
    free(y);
    return true;
}

// ---- some rows against the oracle --------------------------------------------------------------

struct sample {
    uint32_t n; // rows of the case; one more row is there to be compared with the last
    uint32_t copy[MAX_ROWS], token[MAX_ROWS];
    float *x;    // (n + 1, d_model)
    float *router_x;    // likewise; NULL: the router reads x
    int32_t *token_ids; // (n + 1), or NULL
    float *want; // (n + 1, d_out) the oracle's
    float *got;  // (d_out)
};

// The first row of the first copy, the last of the last, and some between them.
static void choose_rows(const struct bench_work *work, struct sample *sample)
{
    const struct bench_case *what = work->what;
    const vkmoe_layer_desc *layer = &what->layer;
    double products = layer->top_k * bench_expert_count(layer, layer->d_ff) +
                      bench_expert_count(layer, layer->d_shared_ff) +
                      (double) layer->n_experts * layer->d_model;
    uint64_t n_rows = (uint64_t) work->n_copies * what->key.n_tokens;
    double most = fmin(MAX_ROWS, fmax(1, floor(MAX_PRODUCTS / products) - 1));
    sample->n = n_rows < (uint64_t) most ? (uint32_t) n_rows : (uint32_t) most;
    for (uint32_t i = 0; i < sample->n; i++) {
        // One of each of n equal parts of the rows, so that no two are the same.
        uint64_t begin = n_rows * i / sample->n, end = n_rows * (i + 1) / sample->n;
        struct rng_block block = rng_philox((struct rng_block){{i, 0, 0, STREAM_CHECK}},
                                            what->key.seed);
        uint64_t at = i == 0                 ? 0
                      : i + 1 == sample->n ? n_rows - 1
                                           : begin + block.v[0] % (end - begin);
        sample->copy[i] = (uint32_t) (at / what->key.n_tokens);
        sample->token[i] = (uint32_t) (at % what->key.n_tokens);
    }
}

// What the router reads besides x, or instead.
static enum vkmoe_status gather_router(const struct bench_work *work, const struct bench_draw *draw,
                                       struct sample *sample)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct bench_material *material = work->material;
    const vkmoe_layer_desc *layer = &work->what->layer;
    const uint32_t n = sample->n, d = layer->d_model;
    if (material->router_x)
        CLI_TRY(cli_alloc(n + 1, d, sizeof *sample->router_x, &sample->router_x));
    if (material->token_ids)
        CLI_TRY(cli_alloc(n + 1, 1, sizeof *sample->token_ids, &sample->token_ids));
    for (uint32_t i = 0; i < n; i++) {
        const size_t at = (size_t) sample->copy[i] * work->what->key.n_tokens + sample->token[i];
        if (sample->router_x)
            decode_row(work, material->router_x, sample->copy[i], sample->token[i], d,
                       sample->router_x + (size_t) i * d);
        if (sample->token_ids)
            sample->token_ids[i] = material->token_ids[at];
    }
    if (sample->router_x)
        bench_rows_fill(layer, material->noise, draw, material->wanted,
                        sample->router_x + (size_t) n * d);

fail:
    return status;
}

static enum vkmoe_status gather(const struct bench_work *work, struct sample *sample)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *layer = &work->what->layer;
    const uint32_t n = sample->n, d = layer->d_model;
    const struct bench_draw draw = {work->what->key.seed, work->n_copies, 1, layer->n_experts,
                                    layer->top_k};
    CLI_TRY(cli_alloc(n + 1, d, sizeof *sample->x, &sample->x));
    CLI_TRY(cli_alloc(n + 1, layer->d_out, sizeof *sample->want, &sample->want));
    CLI_TRY(cli_alloc(1, layer->d_out, sizeof *sample->got, &sample->got));
    for (uint32_t i = 0; i < n; i++)
        decode_row(work, work->material->x, sample->copy[i], sample->token[i], d,
                   sample->x + (size_t) i * d);
    // A row of no copy.
    bench_rows_fill(layer, work->material->noise, &draw, work->material->wanted,
                    sample->x + (size_t) n * d);
    CLI_TRY(gather_router(work, &draw, sample));

fail:
    return status;
}

static enum vkmoe_status run_oracle(const struct bench_work *work, vkmoe_context *oracle,
                                    struct sample *sample)
{
    enum vkmoe_status status;
    const struct bench_material *material = work->material;
    vkmoe_weights *weights = NULL;
    vkmoe_plan *plan = NULL;
    vkmoe_bind *bind = NULL;
    vkmoe_weights_desc weights_desc = vkmoe_weights_desc_init();
    vkmoe_plan_desc plan_desc = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    // No slot was dropped, and of these rows alone none is to be either.
    vkmoe_layer_desc layer = work->what->layer;
    layer.capacity_mode = VKMOE_CAPACITY_NONE;
    layer.capacity_renorm = false;
    weights_desc.layer = plan_desc.layer = &layer;
    weights_desc.out_bias = material->out_bias;
    weights_desc.router = &material->router;
    weights_desc.experts = material->experts;
    weights_desc.shared = work->what->layer.d_shared_ff ? &material->shared : NULL;
    plan_desc.max_tokens = sample->n + 1;
    io.x = sample->x;
    io.router_x = sample->router_x;
    io.token_ids = sample->token_ids;
    io.y = sample->want;
    CLI_TRY(vkmoe_weights_create(oracle, &weights_desc, &weights));
    CLI_TRY(vkmoe_plan_create(oracle, &plan_desc, &plan));
    CLI_TRY(vkmoe_bind_create(plan, weights, NULL, &bind));
    CLI_TRY(vkmoe_run(bind, sample->n + 1, &io));

fail:
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    vkmoe_weights_destroy(weights);
    return status;
}

static double relative_error(const float *got, const float *want, uint32_t n)
{
    double error = 0, norm = 0;
    for (uint32_t i = 0; i < n; i++) {
        double difference = (double) got[i] - (double) want[i];
        error += difference * difference;
        norm += (double) want[i] * (double) want[i];
    }
    return sqrt(error / norm);
}

// What the precision promises of a row, and half a step of y's type where that is not within it.
static double error_limit(const struct bench_case *what)
{
    double step = what->x_type == VKMOE_F32 ? 0 : what->x_type == VKMOE_F16 ? 0x1p-11 : 0x1p-8;
    const double promise = verify_promise(what->precision, what->layer.d_out);
    return what->precision == VKMOE_PRECISION_EXACT ? promise + step : promise;
}

static void compare(const struct bench_work *work, struct sample *sample, struct bench_row *row)
{
    const uint32_t d_out = work->what->layer.d_out;
    double control = INFINITY;
    row->verify.error = 0;
    for (uint32_t i = 0; i < sample->n; i++) {
        const float *want = sample->want + (size_t) i * d_out;
        decode_row(work, work->material->y, sample->copy[i], sample->token[i], d_out, sample->got);
        double error = relative_error(sample->got, want, d_out);
        // A NaN stays.
        row->verify.error = error > row->verify.error || isnan(error) ? error : row->verify.error;
        control = fmin(control, relative_error(sample->got, want + d_out, d_out));
    }
    row->verify.n_rows = sample->n;
    if (!(row->verify.error <= row->verify.limit))
        bench_check_failed(row, "y differs from the reference by %.3g, more than %.3g",
                           row->verify.error, row->verify.limit);
    else if (!(control > row->verify.limit))
        bench_check_failed(row, "y is within %.3g of another row's reference too: the comparison "
                           "says nothing", control);
    else
        snprintf(row->verify.state, sizeof row->verify.state, "pass");
}

void bench_check(const struct bench_work *work, vkmoe_context *oracle, struct bench_row *row)
{
    struct sample sample = {0};
    enum vkmoe_status status;
    row->status = BENCH_OK;
    row->verify.limit = error_limit(work->what);
    snprintf(row->verify.reference, sizeof row->verify.reference, "f64");
    if (!bench_check_ids(work, row) || !check_finite(work, row))
        return;
    choose_rows(work, &sample);
    status = gather(work, &sample);
    if (status == VKMOE_OK)
        status = run_oracle(work, oracle, &sample);
    if (status == VKMOE_OK)
        compare(work, &sample, row);
    else
        bench_check_impossible(row, "reference: %s", vkmoe_error_text());
    free(sample.x);
    free(sample.router_x);
    free(sample.token_ids);
    free(sample.want);
    free(sample.got);
}
