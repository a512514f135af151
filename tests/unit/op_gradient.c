// SPDX-License-Identifier: MIT
// The differences are extrapolated as in tests/unit/ref_backward.c: (4 D(h) - D(2h)) / 3 has an
// error of h^4 / 30 times a fifth derivative.
#include "op_gradient.h"

#include "check.h"

#include "base/host.h"

#include <stdio.h>
#include <stdlib.h>

static const double h = 0x1p-12;
const double gradient_margin = 10 * 2 * 0x1p-12;

void gradient_begin(struct gradient *g, const char *name, ...)
{
    memset(g, 0, sizeof *g);
    va_list args;
    va_start(args, name);
    vsnprintf(g->name, sizeof g->name, name, args);
    va_end(args);
    for (const char *p = g->name; *p; p++)
        g->seed = g->seed * 31 + (unsigned char) *p;
    g->args = (struct moe_net_args){.n_tokens = 4,
                                    .n_examples = 3,
                                    .seed = 99,
                                    .pass = 5,
                                    .loss_scale = 0.5f,
                                    .aux_scale = 0.25f};
    check_ok(moe_net_create(moe_host_default(), 5, 4, &g->net));
}

// ---- tensors and ops --------------------------------------------------------------------------

static uint32_t add(struct gradient *g, enum moe_net_role role, enum moe_net_type type,
                    enum moe_net_rows_of rows, uint32_t n, uint32_t width)
{
    uint32_t tensor = moe_net_add_tensor(g->net, role, type, rows, n, width, "t");
    assert_true(tensor < GRADIENT_TENSORS);
    g->net->tensors[tensor].keep = true;
    return tensor;
}

uint32_t gradient_input(struct gradient *g, enum moe_net_rows_of rows, uint32_t n, uint32_t width)
{
    return add(g, MOE_NET_INPUT, MOE_NET_F32, rows, n, width);
}

void gradient_range(struct gradient *g, uint32_t tensor, double low, double high)
{
    g->low[tensor] = low;
    g->high[tensor] = high;
}

uint32_t gradient_ints(struct gradient *g, enum moe_net_type type, enum moe_net_rows_of rows,
                       uint32_t n, const int32_t *values)
{
    uint32_t tensor = add(g, MOE_NET_INPUT, type, rows, n, 1);
    size_t size = gradient_size(g, tensor) * sizeof *values;
    g->ints[tensor] = malloc(size);
    assert_non_null(g->ints[tensor]);
    memcpy(g->ints[tensor], values, size);
    return tensor;
}

uint32_t gradient_value(struct gradient *g, enum moe_net_rows_of rows, uint32_t n, uint32_t width)
{
    return add(g, MOE_NET_VALUE, MOE_NET_F32, rows, n, width);
}

uint32_t gradient_value_i32(struct gradient *g, enum moe_net_rows_of rows, uint32_t n,
                            uint32_t width)
{
    return add(g, MOE_NET_VALUE, MOE_NET_I32, rows, n, width);
}

uint32_t gradient_variable(struct gradient *g, enum moe_net_rows_of rows, uint32_t n,
                           uint32_t width, uint32_t *d)
{
    uint32_t tensor = gradient_input(g, rows, n, width);
    *d = gradient_value(g, rows, n, width);
    assert_true(g->n_variables < GRADIENT_VARIABLES);
    g->variables[g->n_variables] = tensor;
    g->d_variables[g->n_variables++] = *d;
    return tensor;
}

uint32_t gradient_output(struct gradient *g, enum moe_net_rows_of rows, uint32_t n, uint32_t width,
                         uint32_t *d)
{
    uint32_t tensor = gradient_value(g, rows, n, width);
    *d = gradient_input(g, rows, n, width);
    assert_true(g->n_outputs < GRADIENT_OUTPUTS);
    g->outputs[g->n_outputs] = tensor;
    g->d_outputs[g->n_outputs++] = *d;
    return tensor;
}

uint32_t gradient_loss(struct gradient *g, enum moe_net_rows_of rows, uint32_t n)
{
    uint32_t tensor = gradient_value(g, rows, n, 1);
    assert_true(g->n_outputs < GRADIENT_OUTPUTS);
    g->outputs[g->n_outputs] = tensor;
    g->d_outputs[g->n_outputs++] = MOE_NET_NONE;
    return tensor;
}

struct moe_net_op *gradient_op(struct gradient *g, enum moe_net_program p,
                               enum moe_net_op_kind kind, const uint32_t *in, uint32_t n_in,
                               const uint32_t *out, uint32_t n_out)
{
    struct moe_net_op *op = moe_net_add_op(g->net, p, kind);
    memcpy(op->in, in, n_in * sizeof *in);
    memcpy(op->out, out, n_out * sizeof *out);
    return op;
}

double *gradient_values(struct gradient *g, uint32_t tensor)
{
    return moe_ref_net_values(g->ref, tensor);
}

uint64_t gradient_size(const struct gradient *g, uint32_t tensor)
{
    const struct moe_net_tensor *t = &g->net->tensors[tensor];
    return moe_net_rows(t, g->args.n_tokens, g->args.n_examples) * t->width;
}

// ---- a point ----------------------------------------------------------------------------------

static double draw(struct gradient *g, double low, double high)
{
    g->seed = g->seed * 1664525u + 1013904223u;
    double unit = (g->seed >> 8) * 0x1p-24;
    if (low < high)
        return low + (high - low) * unit;
    return unit < 0.5 ? -1 + 1.9 * unit : 0.05 + 1.9 * (unit - 0.5);
}

static void draw_point(struct gradient *g)
{
    for (uint32_t i = 0; i < g->net->n_tensors; i++) {
        double *to = gradient_values(g, i);
        for (uint64_t j = 0; g->net->tensors[i].role == MOE_NET_INPUT && j < gradient_size(g, i);
             j++)
            to[j] = g->ints[i] ? g->ints[i][j] : draw(g, g->low[i], g->high[i]);
    }
}

static void run(struct gradient *g)
{
    uint32_t both = 1 << MOE_NET_FORWARD | 1 << MOE_NET_BACKWARD;
    moe_ref_net_run(g->ref, both, &g->args);
}

// L, and in *magnitude the sum of the magnitudes of its terms.
static double function(struct gradient *g, double *magnitude)
{
    double sum = 0;
    *magnitude = 0;
    run(g);
    for (uint32_t i = 0; i < g->n_outputs; i++) {
        const double *y = gradient_values(g, g->outputs[i]);
        const double *dy =
            g->d_outputs[i] == MOE_NET_NONE ? NULL : gradient_values(g, g->d_outputs[i]);
        for (uint64_t j = 0; j < gradient_size(g, g->outputs[i]); j++) {
            double term = dy ? y[j] * dy[j] : y[j];
            sum += term;
            *magnitude += fabs(term);
        }
    }
    return sum;
}

// ---- finite differences -----------------------------------------------------------------------

static double difference(struct gradient *g, double *x, double step)
{
    double before = *x, unused;
    *x = before + step;
    double after = function(g, &unused);
    *x = before - step;
    after -= function(g, &unused);
    *x = before;
    return after / (2 * step);
}

// Is *got within the bound of the derivative? Rounding: 64 roundings of the terms of L, by the
// step. The fifth derivatives of these functions are below 2^20 at such points.
static bool is_derivative(double got, double fd, double magnitude)
{
    double bound = (64 * 0x1p-53 / h + h * h * h * h / 30 * 0x1p20) * (1 + magnitude);
    return fabs(got - fd) <= bound;
}

static void check_variable(struct gradient *g, uint32_t i)
{
    double *x = gradient_values(g, g->variables[i]), magnitude;
    uint64_t n = gradient_size(g, g->variables[i]), largest = 0;
    double *got = malloc(n * sizeof *got), *fd = malloc(n * sizeof *fd);
    assert_true(got && fd);
    function(g, &magnitude);
    memcpy(got, gradient_values(g, g->d_variables[i]), n * sizeof *got);
    for (uint64_t j = 0; j < n; j++) {
        fd[j] = (4 * difference(g, &x[j], h) - difference(g, &x[j], 2 * h)) / 3;
        if (!is_derivative(got[j], fd[j], magnitude))
            fail_msg("%s: by variable %u, element %llu: %.15g, not %.15g", g->name, i,
                     (unsigned long long) j, got[j], fd[j]);
        if (fabs(got[j]) > fabs(got[largest]))
            largest = j;
    }
    bool zero = g->is_zero || (g->may_be_zero && fabs(got[largest]) < 1e-14);
    assert_true(!g->is_zero || got[largest] == 0);
    if (!zero && is_derivative(got[largest] * (1 + 0x1p-16), fd[largest], magnitude))
        fail_msg("%s: by variable %u: a wrong gradient is not seen", g->name, i);
    free(got);
    free(fd);
}

void gradient_check(struct gradient *g)
{
    check_ok(moe_net_plan(g->net));
    check_ok(moe_ref_net_create(moe_host_default(), g->net, &g->ref));
    uint32_t n = 0;
    do {
        assert_true(n++ < 1000);
        draw_point(g);
        run(g);
    } while (g->is_smooth && !g->is_smooth(g));
    for (uint32_t i = 0; i < g->n_variables; i++)
        check_variable(g, i);
    moe_ref_net_destroy(g->ref);
    moe_net_destroy(g->net);
    for (uint32_t i = 0; i < GRADIENT_TENSORS; i++)
        free(g->ints[i]);
}
