// SPDX-License-Identifier: MIT
// A network's gradients against those of the same network on the reference, with the parameters
// that the timed passes left. After backward passes they are the sums of as many equal gradients,
// so they are compared up to that whole number.
#include "check.h"

#include "roofline.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_SECONDS 5.0
#define PRODUCTS_PER_SECOND 5e8 // of the reference, about
#define LIMIT 1e-4

struct twin {
    const struct bench_work *work;
    vkmoe_net *net; // the reference's
    float *got, *want; // a parameter, or its gradient
    double n_sums; // passes whose gradients were added up; 0: not known yet
    double error, control;
};

static bool too_much(const struct bench_work *work, struct bench_row *row)
{
    const struct bench_case *what = work->what;
    const vkmoe_layer_desc *layer = &what->layer;
    const struct bench_room room = bench_room_now(&work->device);
    struct bench_need need = bench_need_net(what);
    double products = 3 * (double) what->key.n_tokens *
                      (layer->top_k * bench_expert_count(layer, layer->d_ff) +
                       bench_expert_count(layer, layer->d_shared_ff));
    double bytes = 2 * need.device; // f64 instead of f32
    if (products > MAX_SECONDS * PRODUCTS_PER_SECOND)
        bench_check_impossible(row, "the reference would take about %.0f s",
                               products / PRODUCTS_PER_SECOND);
    else if (bytes > room.host / 2)
        bench_check_impossible(row, "the reference would take %.1f GB of memory", bytes * 1e-9);
    else
        return false;
    return true;
}

static enum vkmoe_status read_both(struct twin *twin, enum vkmoe_net_what what,
                                   const vkmoe_net_param *param)
{
    enum vkmoe_status status;
    const size_t n = (size_t) param->rows * param->width;
    CLI_TRY(cli_alloc(param->rows, param->width, sizeof *twin->got, &twin->got));
    CLI_TRY(cli_alloc(param->rows, param->width, sizeof *twin->want, &twin->want));
    CLI_TRY(vkmoe_net_read(twin->work->net, what, param->name, twin->got, n));
    CLI_TRY(vkmoe_net_read(twin->net, what, param->name, twin->want, n));

fail:
    return status;
}

static void free_both(struct twin *twin)
{
    free(twin->got);
    free(twin->want);
    twin->got = twin->want = NULL;
}

static enum vkmoe_status copy_parameters(struct twin *twin)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < vkmoe_net_param_count(twin->net); i++) {
        vkmoe_net_param param;
        CLI_TRY(vkmoe_net_get_param(twin->net, i, &param));
        CLI_TRY(read_both(twin, VKMOE_NET_VALUE, &param));
        CLI_TRY(vkmoe_net_write(twin->net, VKMOE_NET_VALUE, param.name, twin->got,
                                (uint64_t) param.rows * param.width));
        free_both(twin);
    }

fail:
    free_both(twin);
    return status;
}

// |got - scale * want| / |scale * want|, with `want` a number of elements further on.
static double difference(const struct twin *twin, size_t n, size_t shift, double scale)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double want = scale * (double) twin->want[(i + shift) % n];
        error += ((double) twin->got[i] - want) * ((double) twin->got[i] - want);
        norm += want * want;
    }
    return norm > 0 ? sqrt(error / norm) : error > 0 ? INFINITY : 0;
}

// How many times `want` is in `got`, as a whole number of at least 1.
static double find_scale(const struct twin *twin, size_t n)
{
    double both = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        both += (double) twin->got[i] * (double) twin->want[i];
        norm += (double) twin->want[i] * (double) twin->want[i];
    }
    return norm > 0 ? fmax(1, rint(both / norm)) : 0;
}

static enum vkmoe_status compare_gradients(struct twin *twin)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < vkmoe_net_param_count(twin->net); i++) {
        vkmoe_net_param param;
        CLI_TRY(vkmoe_net_get_param(twin->net, i, &param));
        if (!param.has_gradient)
            continue;
        CLI_TRY(read_both(twin, VKMOE_NET_GRADIENT, &param));
        const size_t n = (size_t) param.rows * param.width;
        if (twin->n_sums == 0)
            twin->n_sums = find_scale(twin, n);
        double scale = twin->n_sums > 0 ? twin->n_sums : 1;
        double error = difference(twin, n, 0, scale);
        twin->error = error > twin->error || isnan(error) ? error : twin->error;
        if (param.rows > 1)
            twin->control = fmax(twin->control, difference(twin, n, param.width, scale));
        free_both(twin);
    }

fail:
    free_both(twin);
    return status;
}

static enum vkmoe_status run_both(struct twin *twin, vkmoe_context *oracle)
{
    enum vkmoe_status status;
    const struct bench_work *work = twin->work;
    CLI_TRY(bench_net_create(work->what, oracle, &twin->net));
    CLI_TRY(copy_parameters(twin));
    CLI_TRY(vkmoe_net_forward(twin->net, &work->batch));
    CLI_TRY(vkmoe_net_backward(twin->net, 1, NULL));
    // A step has used its gradient up: one more with the parameters that it left.
    if (work->what->mode == BENCH_TRAIN) {
        twin->n_sums = 1;
        CLI_TRY(vkmoe_net_forward(work->net, &work->batch));
        CLI_TRY(vkmoe_net_backward(work->net, 1, NULL));
    }
    CLI_TRY(compare_gradients(twin));

fail:
    return status;
}

void bench_check_net(const struct bench_work *work, vkmoe_context *oracle, struct bench_row *row)
{
    struct twin twin = {.work = work};
    row->status = BENCH_OK;
    snprintf(row->verify.reference, sizeof row->verify.reference, "f64 gradients");
    if (!bench_check_ids(work, row) || too_much(work, row))
        return;
    enum vkmoe_status status = run_both(&twin, oracle);
    // Every sum rounds once more.
    row->verify.limit = LIMIT + 0x1p-24 * twin.n_sums;
    row->verify.error = twin.error;
    row->verify.n_rows = work->what->key.n_tokens;
    if (status != VKMOE_OK)
        bench_check_impossible(row, "reference: %s", vkmoe_error_text());
    else if (!(twin.error <= row->verify.limit))
        bench_check_failed(row, "a gradient differs from the reference by %.3g, more than %.3g",
                           twin.error, row->verify.limit);
    else if (!(twin.control > row->verify.limit))
        bench_check_failed(row, "the gradients are within %.3g of other rows' too: the comparison "
                           "says nothing", twin.control);
    else
        snprintf(row->verify.state, sizeof row->verify.state, "pass");
    vkmoe_net_destroy(twin.net);
}
