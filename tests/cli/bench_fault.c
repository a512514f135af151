// SPDX-License-Identifier: MIT
// What can go wrong with a device, for the tests of `vkmoe bench`: loaded before the library, it
// spoils what runs give. The variable BENCH_FAULT says how:
//
//     y           the last row of y is a little off
//     nan         one number of y is none
//     ids         the last token's last expert is another one
//     unwritten   runs write nothing
//     lost        the device is lost at the third timing
#include <vkmoe/bench.h>

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static uint32_t d_out, top_k, n_timings; // of the last plan of an f32 layer

static bool fault_is(const char *name)
{
    const char *fault = getenv("BENCH_FAULT");
    return fault && strcmp(fault, name) == 0;
}

static void *next(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

static void spoil(uint32_t n_tokens, const vkmoe_io *io)
{
    float *row = (float *) io->y + (size_t) (n_tokens - 1) * d_out;
    int32_t *ids = io->ids ? io->ids + (size_t) (n_tokens - 1) * top_k : NULL;
    for (uint32_t i = 0; fault_is("y") && i < d_out; i++)
        row[i] *= 1.0001f;
    if (fault_is("nan"))
        row[d_out / 2] = NAN;
    if (fault_is("ids") && ids)
        ids[top_k - 1] = ids[top_k - 1] == 0 ? 1 : 0;
    if (fault_is("unwritten"))
        memset(row, 0xff, d_out * sizeof *row);
}

// The reference's plans are not spoiled: its runs have no ids.
enum vkmoe_status vkmoe_plan_create(vkmoe_context *context, const vkmoe_plan_desc *desc,
                                    vkmoe_plan **out)
{
    enum vkmoe_status (*create)(vkmoe_context *, const vkmoe_plan_desc *, vkmoe_plan **);
    *(void **) &create = next("vkmoe_plan_create");
    d_out = desc->layer->d_out ? desc->layer->d_out : desc->layer->d_model;
    top_k = desc->layer->top_k;
    return create(context, desc, out);
}

enum vkmoe_status vkmoe_run(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io)
{
    enum vkmoe_status (*run)(vkmoe_bind *, uint32_t, const vkmoe_io *);
    *(void **) &run = next("vkmoe_run");
    enum vkmoe_status status = run(bind, n_tokens, io);
    if (status == VKMOE_OK && io->ids)
        spoil(n_tokens, io);
    return status;
}

enum vkmoe_status vkmoe_time_runs(const vkmoe_time_desc *desc, uint32_t n_runs, double *seconds)
{
    enum vkmoe_status (*time_runs)(const vkmoe_time_desc *, uint32_t, double *);
    *(void **) &time_runs = next("vkmoe_time_runs");
    if (fault_is("lost") && ++n_timings == 3) {
        vkmoe_error_set("the device was lost in a test");
        return VKMOE_E_DEVICE_LOST;
    }
    enum vkmoe_status status = time_runs(desc, n_runs, seconds);
    for (uint32_t i = 0; status == VKMOE_OK && i < desc->n_binds; i++)
        spoil(desc->n_tokens, &desc->ios[i]);
    return status;
}
