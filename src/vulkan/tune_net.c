// SPDX-License-Identifier: MIT
// Times of a variant for networks: the products of a small layer of experts and their gradients, by
// the variant and by what would be used without it, in turn.
#include <math.h>
#include <stdlib.h>

#include "base/bits.h"
#include "vulkan/measure.h"
#include "vulkan/net.h"

enum {
    N_ROWS = 512,
    N_GROUPS = 8,
    WIDTH = 512,
    SOFTWARE_WIDTH = 64, // where a processor computes it, and fewer rows
    SOFTWARE_ROWS = 64,
};

struct probe {
    struct moe_vk *vk;
    struct moe_vk_products products;
    struct moe_device_net *sides[2];
    float *values;
    uint32_t width, n_rows;
};

static enum vkmoe_status upload(const struct probe *p, struct moe_device_net *net)
{
    enum vkmoe_status status = VKMOE_OK;
    int32_t starts[N_GROUPS + 1], members[N_ROWS];
    const uint32_t width = p->width, of_group = p->n_rows / N_GROUPS;
    for (uint32_t g = 0; g <= N_GROUPS; g++)
        starts[g] = (int32_t) (of_group * g);
    for (uint32_t r = 0; r < p->n_rows; r++)
        members[r] = (int32_t) (r % of_group * N_GROUPS + r / of_group);
    TRY(moe_vk_net_upload(net, p->products.a, (uint64_t) p->n_rows * width, p->values));
    TRY(moe_vk_net_upload(net, p->products.dy, (uint64_t) p->n_rows * width, p->values));
    TRY(moe_vk_net_upload(net, p->products.w, (uint64_t) N_GROUPS * width * width, p->values));
    TRY(moe_vk_net_upload(net, p->products.starts, N_GROUPS + 1, starts));
    TRY(moe_vk_net_upload(net, p->products.members, p->n_rows, members));

fail:
    return status;
}

// A variant whose pipeline cannot be made is bad, as it is for networks; *made then is false.
static enum vkmoe_status create_side(struct probe *p, const struct moe_vk_variant *variant,
                                     struct moe_device_net **side, bool *made)
{
    enum vkmoe_status status;
    bool own;
    *made = false;
    status = moe_vk_net_make(p->vk, p->products.net, variant, true, side, &own);
    if (status == VKMOE_E_DEVICE && own && variant->id != MOE_VK_A0) {
        moe_vk_condemn(p->vk, variant, MOE_VK_NO_PIPELINE);
        return VKMOE_OK;
    }
    TRY(status);
    TRY(upload(p, *side));
    *made = true;

fail:
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

static enum vkmoe_status time_sides(struct probe *p, double share_ns, double medians[2])
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_net_args args = {.n_tokens = p->n_rows, .n_examples = 1, .step = 1};
    double seconds[2][MOE_VK_PROBE_ROUNDS], begin_ns = moe_vk_now_ns();
    uint32_t n_rounds = 1; // the first one, which is slower, tells how many there is time for
    for (uint32_t round = 0; round <= n_rounds; round++) {
        double *to = &seconds[0][round > 0 ? round - 1 : 0];
        for (int i = 0; i < 2; i++)
            TRY(moe_vk_net_time(p->sides[i], 1u << MOE_NET_FORWARD, &args,
                                to + i * MOE_VK_PROBE_ROUNDS, NULL, NULL));
        if (round == 0)
            n_rounds = moe_vk_probe_rounds(moe_vk_now_ns() - begin_ns,
                                           begin_ns + share_ns - moe_vk_now_ns(), true);
    }
    for (int i = 0; i < 2; i++) {
        qsort(seconds[i], n_rounds, sizeof seconds[i][0], by_value);
        medians[i] = seconds[i][n_rounds / 2];
    }

fail:
    return status;
}

enum vkmoe_status moe_vk_net_probe(struct moe_vk *vk, const struct moe_vk_variant *variant,
                                   const struct moe_vk_variant *base, double share_ns,
                                   double medians[2])
{
    enum vkmoe_status status = VKMOE_OK;
    enum vkmoe_device_type type = vk->base.info.type;
    const bool software = type == VKMOE_DEVICE_SOFTWARE || type == VKMOE_DEVICE_CPU;
    struct probe p = {.vk = vk,
                      .width = software ? SOFTWARE_WIDTH : WIDTH,
                      .n_rows = software ? SOFTWARE_ROWS : N_ROWS};
    const size_t n = (size_t) p.width * moe_max(N_GROUPS * p.width, p.n_rows);
    uint32_t random = 1;
    bool made;
    medians[0] = medians[1] = 0;
    TRY(moe_try_alloc(vk->base.host, n * sizeof *p.values, "tune: operands", &p.values));
    for (size_t i = 0; i < n; i++) {
        random = random * 1664525u + 1013904223u;
        p.values[i] = (float) (int32_t) random * 0x1p-31f;
    }
    TRY(moe_vk_products_create(vk->base.host, p.n_rows, N_GROUPS, p.width, p.width,
                               MOE_NET_F32, VKMOE_PRECISION_HALF, &p.products));
    TRY(create_side(&p, base, &p.sides[1], &made));
    if (made)
        TRY(create_side(&p, variant, &p.sides[0], &made));
    if (made)
        TRY(time_sides(&p, share_ns, medians));

fail:
    for (int i = 0; i < 2; i++)
        moe_vk_net_destroy(p.sides[i]);
    moe_net_destroy(p.products.net);
    moe_free(vk->base.host, p.values);
    return status;
}
