// SPDX-License-Identifier: MIT
// How long recording one layer takes on the host: a benchmark, run by `meson test --benchmark`.
#include "fixture.h"
#include "host.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MAX_TOKENS = 64, N_ROUNDS = 201, N_RECORDS = 20 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec * 1e6 + (double) t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static void bench(const char *name, enum vkmoe_addressing addressing, uint32_t n_tokens)
{
    struct layer_data data;
    struct stack stack;
    struct host host;
    uint32_t n;
    double samples[N_ROUNDS];
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.addressing = addressing;
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&data, &layer, 1);
    check_ok(stack_create(&stack, &desc, &data, MAX_TOKENS, false));
    host_init(&host, stack.context);
    check_ok(vkmoe_vk_dispatch_count(stack.bind, n_tokens, &n));
    for (int i = 0; i < N_ROUNDS; i++) {
        VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        double begin = now_us();
        for (int k = 0; k < N_RECORDS; k++)
            check_ok(vkmoe_vk_record(stack.bind, cmd, n_tokens, 0, UINT32_MAX));
        samples[i] = (now_us() - begin) / N_RECORDS;
        assert_int_equal(host.vkEndCommandBuffer(cmd), VK_SUCCESS);
    }
    qsort(samples, N_ROUNDS, sizeof *samples, by_value);
    printf("%-12s %3u tokens %2u dispatches: median %.2f us, p95 %.2f us a layer\n", name, n_tokens,
           n, samples[N_ROUNDS / 2], samples[N_ROUNDS * 95 / 100]);
    host_finish(&host);
    stack_destroy(&stack);
    layer_data_finish(&data);
}

static void record(void **state)
{
    (void) state;
    static const uint32_t counts[] = {1, MAX_TOKENS};
    for (int i = 0; i < 2; i++) {
        bench("descriptors", VKMOE_ADDRESSING_DESCRIPTORS, counts[i]);
        bench("bda", VKMOE_ADDRESSING_BDA, counts[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(record)};
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
