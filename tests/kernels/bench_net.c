// SPDX-License-Identifier: MIT
// What training does most, on all cores: products with the matrices of experts, their gradients,
// and steps of the optimiser.
#include "kernels_test.h"

#include "backend/backend.h"
#include "base/host.h"
#include "base/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_EXPERTS = 16, TOP_K = 2, D_MODEL = 512, D_FF = 1024, N_TOKENS = 1024 };

struct bench_net {
    struct moe_net *net;
    uint32_t a, y, w, dw, starts, members;
};

// Slots of x, their experts, W_up and its gradient, moments.
static void add_tensors(struct bench_net *b)
{
    b->a = moe_net_add_tensor(b->net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, D_MODEL,
                              "a");
    b->y = moe_net_add_tensor(b->net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, D_FF,
                              "y");
    b->w = moe_net_add_tensor(b->net, MOE_NET_PARAM, MOE_NET_F32, MOE_NET_FIXED,
                              N_EXPERTS * D_FF, D_MODEL, "w");
    b->dw = moe_net_add_tensor(b->net, MOE_NET_GRAD, MOE_NET_F32, MOE_NET_FIXED, N_EXPERTS * D_FF,
                               D_MODEL, "w");
    b->starts = moe_net_add_tensor(b->net, MOE_NET_INPUT, MOE_NET_I32, MOE_NET_FIXED,
                                   N_EXPERTS + 1, 1, "starts");
    b->members = moe_net_add_tensor(b->net, MOE_NET_INPUT, MOE_NET_I32, MOE_NET_TOKENS, TOP_K, 1,
                                    "members");
}

static void set_product(struct moe_net_op *op, uint32_t first, uint32_t second, uint32_t out,
                        uint32_t starts_at, const struct bench_net *b)
{
    op->in[0] = first;
    op->in[1] = second;
    op->in[starts_at] = b->starts;
    op->in[starts_at + 1] = b->members;
    op->out[0] = out;
}

static void add_step(struct bench_net *b)
{
    struct moe_net_step *rule = moe_net_own(b->net, sizeof *rule);
    struct moe_net_op *op = moe_net_add_op(b->net, MOE_NET_EVAL, MOE_NET_STEP);
    if (!rule)
        return;
    *rule = (struct moe_net_step){.kind = MOE_NET_ADAMW, .rate_scale = 1, .decay = 0.01f,
                                  .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f};
    op->in[0] = b->dw;
    op->out[0] = b->w;
    op->out[1] = moe_net_add_tensor(b->net, MOE_NET_MOMENT, MOE_NET_F32, MOE_NET_FIXED,
                                    N_EXPERTS * D_FF, D_MODEL, "m");
    op->out[2] = moe_net_add_tensor(b->net, MOE_NET_MOMENT, MOE_NET_F32, MOE_NET_FIXED,
                                    N_EXPERTS * D_FF, D_MODEL, "v");
    op->step = rule;
}

static enum vkmoe_status write_inputs(const struct moe_backend *backend,
                                      struct moe_device_net *net, const struct bench_net *b)
{
    enum { N_SLOTS = N_TOKENS * TOP_K };
    static int32_t starts[N_EXPERTS + 1], members[N_SLOTS];
    static const uint32_t filled_tensors[] = {0, 1, 2}; // a, y, w
    enum vkmoe_status status = VKMOE_OK;
    for (int32_t g = 0; g <= N_EXPERTS; g++)
        starts[g] = g * (N_SLOTS / N_EXPERTS);
    for (int32_t i = 0; i < N_SLOTS; i++) // slot s belongs to expert s % N_EXPERTS
        members[i] = i % (N_SLOTS / N_EXPERTS) * N_EXPERTS + i / (N_SLOTS / N_EXPERTS);
    uint64_t state = 1;
    for (size_t t = 0; t < 3 && status == VKMOE_OK; t++) {
        const struct moe_net_tensor *tensor = &b->net->tensors[filled_tensors[t]];
        const uint64_t n = moe_net_rows(tensor, N_TOKENS, 1) * tensor->width;
        float *data = aligned_memory(n * sizeof *data);
        for (uint64_t i = 0; i < n; i++)
            data[i] = random_value(&state);
        status = backend->net_write(net, filled_tensors[t], n, data);
        free(data);
    }
    if (status == VKMOE_OK)
        status = backend->net_write(net, b->starts, N_EXPERTS + 1, starts);
    if (status == VKMOE_OK)
        status = backend->net_write(net, b->members, N_SLOTS, members);
    return status;
}

// Best seconds of a program.
static double time_program(const struct moe_backend *backend, struct moe_device_net *net,
                           enum moe_net_program program)
{
    const struct moe_net_args args = {.n_tokens = N_TOKENS, .n_examples = 1, .loss_scale = 1,
                                      .aux_scale = 1, .rate = 1e-6f, .step = 1};
    double best = 1e9;
    for (double began = seconds(); seconds() - began < 0.5;) {
        double start = seconds();
        if (backend->net_run(net, 1u << program, &args) != VKMOE_OK)
            return best;
        double t = seconds() - start;
        best = t < best ? t : best;
    }
    return best;
}

static void print_rates(const struct moe_backend *backend, struct moe_device_net *net, double peak)
{
    static const struct {
        const char *name;
        enum moe_net_program program;
    } rows[] = {{"matmul", MOE_NET_FORWARD},
                {"matmul_dx", MOE_NET_BACKWARD},
                {"matmul_dw", MOE_NET_STEP_PROGRAM}};
    const double flops = 2.0 * N_TOKENS * TOP_K * D_MODEL * D_FF;
    for (int p = 0; p < 3; p++) {
        double rate = flops / time_program(backend, net, rows[p].program) * 1e-9;
        printf("  %-10s %6.1f GFLOP/s (%.2f times the probe of one core)\n", rows[p].name, rate,
               rate / peak);
    }
    double bytes = 28.0 * N_EXPERTS * D_FF * D_MODEL; // p, m, v read and written, g read
    printf("  %-10s %6.1f GB/s\n", "adamw",
           bytes / time_program(backend, net, MOE_NET_EVAL) * 1e-9);
}

int bench_net(const struct kernels_options *options, double peak)
{
    const struct moe_backend *backend = moe_backends[0];
    for (const struct moe_backend *const *b = moe_backends; *b; b++)
        backend = strcmp((*b)->name, "cpu") == 0 ? *b : backend;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.cpu_isa = options->isa;
    struct bench_net b = {0};
    struct moe_device *device = NULL;
    struct moe_device_net *net = NULL;
    enum vkmoe_status status;
    TRY(backend->open(moe_host_default(), &desc, 0, &device));
    TRY(moe_net_create(moe_host_default(), N_TOKENS, 1, &b.net));
    add_tensors(&b);
    set_product(moe_net_add_op(b.net, MOE_NET_FORWARD, MOE_NET_MATMUL), b.a, b.w, b.y, 3, &b);
    set_product(moe_net_add_op(b.net, MOE_NET_BACKWARD, MOE_NET_MATMUL_DX), b.y, b.w, b.a, 2, &b);
    set_product(moe_net_add_op(b.net, MOE_NET_STEP_PROGRAM, MOE_NET_MATMUL_DW), b.y, b.a, b.dw, 3,
                &b);
    add_step(&b);
    TRY(moe_net_plan(b.net));
    TRY(backend->net_create(device, b.net, &net));
    TRY(write_inputs(backend, net, &b));
    printf("experts %d,%d,%d,%d f32, %d tokens, all cores:\n", N_EXPERTS, TOP_K, D_MODEL, D_FF,
           N_TOKENS);
    print_rates(backend, net, peak);

fail:
    if (status != VKMOE_OK)
        fprintf(stderr, "%s\n", vkmoe_error_text());
    backend->net_destroy(net);
    moe_net_destroy(b.net);
    if (device)
        backend->close(device);
    return status != VKMOE_OK;
}
