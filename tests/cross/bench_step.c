// SPDX-License-Identifier: MIT
// Times training steps of one MoE layer:
//     bench_step DEVICE [E,K,D,F [TOKENS [THREADS [STEPS [WEIGHT_TYPE]]]]]
// The layer and loss are those of tools/peers/torch_step.py. Prints the milliseconds of each step.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <vkmoe/train.h>

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec * 1e3 + (double) t.tv_nsec * 1e-6;
}

static void need(enum vkmoe_status status)
{
    if (status == VKMOE_OK)
        return;
    fprintf(stderr, "%s: %s\n", vkmoe_status_name(status), vkmoe_error_text());
    exit(1);
}

static float *random_rows(size_t n)
{
    float *rows = malloc(n * sizeof *rows);
    if (!rows)
        exit(1);
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        rows[i] = (float) (state >> 8) * (3.4f / 16777216.0f) - 1.7f; // variance 1
    }
    return rows;
}

static uint32_t argument(int argc, char **argv, int i, uint32_t otherwise)
{
    return argc > i ? (uint32_t) strtoul(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
    vkmoe_layer_desc moe = vkmoe_layer_desc_init();
    moe.n_experts = 16;
    moe.top_k = 2;
    moe.d_model = 512;
    moe.d_ff = 1024;
    if (argc < 2 || (argc > 2 && sscanf(argv[2], "%u,%u,%u,%u", &moe.n_experts, &moe.top_k,
                                        &moe.d_model, &moe.d_ff) != 4)) {
        fprintf(stderr, "usage: bench_step DEVICE [E,K,D,F [TOKENS [THREADS [STEPS "
                        "[WEIGHT_TYPE]]]]]\n");
        return 2;
    }
    moe.gated = true;
    moe.act = VKMOE_ACT_SILU;
    moe.norm = VKMOE_NORM_SUM_PLUS_EPS;
    const uint32_t n_tokens = argument(argc, argv, 3, 1024), n_steps = argument(argc, argv, 5, 5);

    vkmoe_context_desc context_desc = vkmoe_context_desc_init();
    context_desc.device = argv[1];
    context_desc.n_threads = argument(argc, argv, 4, 2);
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    layer.layer = &moe;
    const vkmoe_net_layer *layers[] = {&layer};
    vkmoe_net_desc desc = vkmoe_net_desc_init();
    desc.layers = layers;
    desc.n_layers = 1;
    desc.d_in = moe.d_model;
    desc.max_tokens = n_tokens;
    desc.loss = VKMOE_LOSS_MSE;
    desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    desc.decay = 0.01f;
    if (argc > 6)
        need(vkmoe_dtype_from_name(argv[6], &desc.weight_type));

    vkmoe_context *context;
    vkmoe_net *net;
    vkmoe_net_batch batch = vkmoe_net_batch_init();
    need(vkmoe_context_create(&context_desc, &context));
    need(vkmoe_net_create(context, &desc, &net));
    need(vkmoe_net_init(net, 1));
    batch.n_tokens = batch.n_examples = n_tokens;
    float *rows = random_rows(2 * (size_t) n_tokens * moe.d_model);
    batch.x = rows;
    batch.targets = rows + (size_t) n_tokens * moe.d_model;
    for (uint32_t i = 0; i < n_steps + 2; i++) {
        double begin = now_ms(), loss;
        need(vkmoe_net_train(net, &batch, 1e-3f, &loss));
        if (i >= 2)
            printf("%.3f\n", now_ms() - begin);
    }
    vkmoe_net_destroy(net);
    vkmoe_context_destroy(context);
    free(rows);
    return 0;
}
