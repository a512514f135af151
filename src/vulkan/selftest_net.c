// SPDX-License-Identifier: MIT
// Products of a small layer of experts and their gradients, by a0 and by a variant for networks,
// with weights of each type that it computes. a0 has them in f32.
//
// All numbers are positive, so the sum of the terms' magnitudes is the result's own, nothing
// cancels, and one lost or misplaced element of some hundred shows. They are f16 numbers times
// powers of two, of which products have the same in all terms of a sum, and which differ along a
// row or a column by less than f16's range: so a variant in f16 that scales rows rounds nothing,
// and only f32 sums of n terms differ, each by gamma(n) = n u / (1 - n u), with twice as many
// roundings where fma is not fused. Some groups' numbers are beyond f16, others below. A group
// without rows has a gradient of 0.
#include "vulkan/net.h"

#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"

enum {
    N_ROWS = 45, // group 0 has more than a tile of them, the middle one none, the last some
    N_GROUPS = 3,
    N_IN = 70,
    N_OUT = 67,
    N_A = N_ROWS * N_IN,
    N_Y = N_ROWS * N_OUT,
    N_W = N_GROUPS * N_OUT * N_IN,
    N_RESULTS = N_Y + N_A + N_W,
};

struct test {
    struct moe_vk *vk;
    struct moe_vk_products of_f32, products; // products: of the type at hand
    float a[N_A], dy[N_Y], w[N_W];
    uint32_t stored[N_W]; // w in that type,
    float rounded[N_W];   // and what that is in f32
    int32_t starts[N_GROUPS + 1], members[N_ROWS];
    float want[N_RESULTS], got[N_RESULTS];
    uint32_t random;
};

// ---- the network -------------------------------------------------------------------------------

static uint32_t add(struct moe_net *net, enum moe_net_role role, enum moe_net_type type,
                    uint32_t n_rows, uint32_t width)
{
    bool fixed = n_rows != 0; // else one for each token
    return moe_net_add_tensor(net, role, type, fixed ? MOE_NET_FIXED : MOE_NET_TOKENS,
                              fixed ? n_rows : 1, width, "products");
}

static void add_op(const struct moe_vk_products *p, enum moe_net_op_kind kind, uint32_t a,
                   uint32_t b, uint32_t grouping_at, uint32_t out)
{
    struct moe_net_op *op = moe_net_add_op(p->net, MOE_NET_FORWARD, kind);
    op->in[0] = a;
    op->in[1] = b;
    op->in[grouping_at] = p->starts;
    op->in[grouping_at + 1] = p->members;
    op->out[0] = out;
}

enum vkmoe_status moe_vk_products_create(const vkmoe_host *host, uint32_t n_rows,
                                         uint32_t n_groups, uint32_t n_in, uint32_t n_out,
                                         enum moe_net_type type, enum vkmoe_precision precision,
                                         struct moe_vk_products *out)
{
    enum vkmoe_status status = VKMOE_OK;
    TRY(moe_net_create(host, n_rows, 1, &out->net));
    struct moe_net *net = out->net;
    net->precision = precision;
    out->a = add(net, MOE_NET_INPUT, MOE_NET_F32, 0, n_in);
    out->w = add(net, MOE_NET_INPUT, type, n_groups * n_out, n_in);
    out->dy = add(net, MOE_NET_INPUT, MOE_NET_F32, 0, n_out);
    out->starts = add(net, MOE_NET_INPUT, MOE_NET_I32, n_groups + 1, 1);
    out->members = add(net, MOE_NET_INPUT, MOE_NET_I32, 0, 1);
    out->y = add(net, MOE_NET_GRAD, MOE_NET_F32, 0, n_out);
    out->da = add(net, MOE_NET_GRAD, MOE_NET_F32, 0, n_in);
    out->dw = add(net, MOE_NET_GRAD, MOE_NET_F32, n_groups * n_out, n_in);
    if (!net->failed) {
        net->tensors[out->w].half = net->tensors[out->dw].half = true;
        add_op(out, MOE_NET_MATMUL, out->a, out->w, 3, out->y);
        add_op(out, MOE_NET_MATMUL_DX, out->dy, out->w, 2, out->da);
        add_op(out, MOE_NET_MATMUL_DW, out->dy, out->a, 3, out->dw);
    }
    TRY(moe_net_plan(net));

fail:
    return status;
}

// ---- operands ----------------------------------------------------------------------------------

static uint32_t group_of(uint32_t row)
{
    return row % 6 == 5 ? N_GROUPS - 1 : 0;
}

static void fill_groups(struct test *t)
{
    int32_t at = 0;
    for (uint32_t g = 0; g < N_GROUPS; g++) {
        for (uint32_t r = 0; r < N_ROWS; r++)
            if (group_of(r) == g)
                t->members[at++] = (int32_t) r;
        t->starts[g + 1] = at;
    }
}

// A multiple of 2^-10 between 1/2 and 1, times 2^e.
static float next(struct test *t, int e)
{
    t->random = t->random * 1664525u + 1013904223u;
    return ldexpf(0.5f + (float) (t->random >> 23) * 0x1p-10f, e);
}

// a has 2^(i + s), w 2^j, dy 2^-(i + j + s), with i of the row, j of the output, s of the group.
static void fill(struct test *t)
{
    t->random = 1;
    fill_groups(t);
    for (uint32_t r = 0; r < N_ROWS; r++) {
        int of_row = (int) (r % 16), of_group = group_of(r) == 0 ? -40 : 40;
        for (uint32_t c = 0; c < N_IN; c++)
            t->a[r * N_IN + c] = next(t, of_row + of_group);
        for (uint32_t o = 0; o < N_OUT; o++)
            t->dy[r * N_OUT + o] = next(t, -of_row - of_group - (int) (o % 16));
    }
    for (uint32_t i = 0; i < N_W; i++)
        t->w[i] = next(t, (int) (i / N_IN % N_OUT % 16));
}

// ---- runs --------------------------------------------------------------------------------------

// NaN everywhere a kernel is to write.
static enum vkmoe_status upload(struct test *t, const struct moe_vk_products *p,
                                struct moe_device_net *net, const void *w, const float *poison)
{
    enum vkmoe_status status = VKMOE_OK;
    TRY(moe_vk_net_upload(net, p->a, N_A, t->a));
    TRY(moe_vk_net_upload(net, p->w, N_W, w));
    TRY(moe_vk_net_upload(net, p->dy, N_Y, t->dy));
    TRY(moe_vk_net_upload(net, p->starts, N_GROUPS + 1, t->starts));
    TRY(moe_vk_net_upload(net, p->members, N_ROWS, t->members));
    TRY(moe_vk_net_upload(net, p->y, N_Y, poison));
    TRY(moe_vk_net_upload(net, p->da, N_A, poison));
    TRY(moe_vk_net_upload(net, p->dw, N_W, poison));

fail:
    return status;
}

static enum vkmoe_status run(struct test *t, const struct moe_vk_products *p,
                             struct moe_device_net *net, const void *w, float *out)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_net_args args = {.n_tokens = N_ROWS, .n_examples = 1, .step = 1};
    memset(out, 0xff, N_RESULTS * sizeof *out);
    TRY(upload(t, p, net, w, out));
    TRY(moe_vk_net_run(net, 1u << MOE_NET_FORWARD, &args));
    TRY(moe_vk_net_download(net, p->y, N_Y, out));
    TRY(moe_vk_net_download(net, p->da, N_A, out + N_Y));
    TRY(moe_vk_net_download(net, p->dw, N_W, out + N_Y + N_A));

fail:
    return status;
}

// *cause says of a failure that it is the variant's: of its pipeline, or of its run.
static enum vkmoe_status compute(struct test *t, const struct moe_vk_products *p,
                                 const struct moe_vk_variant *variant, const void *w, float *out,
                                 enum moe_vk_cause *cause)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_device_net *net = NULL;
    bool own;
    *cause = MOE_VK_NO_CAUSE;
    status = moe_vk_net_make(t->vk, p->net, variant, false, &net, &own);
    if (status == VKMOE_E_DEVICE && own)
        *cause = MOE_VK_NO_PIPELINE;
    TRY(status);
    status = run(t, p, net, w, out);
    if (status == VKMOE_E_DEVICE || status == VKMOE_E_DEVICE_LOST)
        *cause = MOE_VK_FAILED;

fail:
    moe_vk_net_destroy(net);
    return status;
}

// Vulkan rounds f32 to either neighbour. What is 0 is 0.
static bool agree(const struct test *t)
{
    const double u = 0x1p-23, roundings = 2 * (N_IN + 4);
    const double gamma = roundings * u / (1 - roundings * u);
    for (uint32_t i = 0; i < N_RESULTS; i++) {
        double want = (double) t->want[i];
        if (!(fabs((double) t->got[i] - want) <= 2 * gamma / (1 - gamma) * fabs(want))) // nor NaN
            return false;
    }
    return true;
}

// *cause: the variant's failure.
static enum vkmoe_status test_type(struct test *t, const struct moe_vk_variant *variant,
                                   enum moe_net_type type, enum moe_vk_cause *cause)
{
    enum vkmoe_status status = VKMOE_OK;
    enum moe_vk_cause of_a0; // nobody's concern: a0 is what there is where all else fails
    const enum vkmoe_dtype dtype = moe_net_type_dtype(type);
    moe_dtype_encode(dtype, t->w, N_W, t->stored);
    moe_dtype_decode(dtype, t->stored, N_W, t->rounded);
    TRY(moe_vk_products_create(t->vk->base.host, N_ROWS, N_GROUPS, N_IN, N_OUT, type,
                               VKMOE_PRECISION_HALF, &t->products));
    TRY(compute(t, &t->of_f32, &moe_vk_variants[MOE_VK_A0], t->rounded, t->want,
                &of_a0));
    TRY(compute(t, &t->products, variant, t->stored, t->got, cause));
    if (!agree(t))
        *cause = MOE_VK_WRONG;

fail:
    moe_net_destroy(t->products.net);
    t->products.net = NULL;
    return status;
}

enum vkmoe_status moe_vk_net_self_test(struct moe_vk *vk, const struct moe_vk_variant *variant,
                                       enum moe_vk_cause *cause)
{
    static const enum moe_net_type types[] = {MOE_NET_F32, MOE_NET_F16, MOE_NET_BF16};
    enum vkmoe_status status = VKMOE_OK;
    struct test *t = NULL;
    *cause = MOE_VK_NO_CAUSE;
    TRY(moe_try_alloc(vk->base.host, sizeof *t, "self-test", &t));
    t->vk = vk;
    TRY(moe_vk_products_create(vk->base.host, N_ROWS, N_GROUPS, N_IN, N_OUT, MOE_NET_F32,
                               VKMOE_PRECISION_HALF, &t->of_f32));
    fill(t);
    for (size_t i = 0; i < MOE_COUNT(types) && *cause == MOE_VK_NO_CAUSE; i++)
        if (variant->types & MOE_VK_BIT(moe_net_type_dtype(types[i])))
            TRY(test_type(t, variant, types[i], cause));

fail:
    if (t)
        moe_net_destroy(t->of_f32.net);
    moe_free(vk->base.host, t);
    return *cause != MOE_VK_NO_CAUSE ? VKMOE_OK : status; // that is the variant's result
}
