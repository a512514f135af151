// SPDX-License-Identifier: MIT
// One small layer computed twice, by a0 and by a variant, on the device itself.
//
// All terms of a sum have one sign: x is positive, a row of weights and its bias are all of the
// row's sign, a gate row has the sign of its up row, and gate weights are 1. So the sum of the
// terms' magnitudes is the result's own, nothing cancels, and one lost or misplaced element of some
// hundred shows. Weights and most of x are f16 numbers: there a variant in f16 rounds nothing, and
// only f32 sums differ, each by gamma(n) = n u / (1 - n u), twice as many roundings where fma is
// not fused:
//   y = sum_k f_k,  f = W2 h + b2,  h = (Wg x + bg) (Wu x + bu):
//   |dy| <= |y| ((1 + u_x)^2 (1 + gamma(d_model))^2 (1 + u) (1 + gamma(d_ff)) (1 + gamma(top_k))
//               - 1)
// The last tokens' x has too many digits for f16, and u_x is one unit in its last place. x is large
// enough for h to pass 65504, which f16 cannot hold.
#include "vulkan/bind.h"

#include <math.h>
#include <string.h>

#include "base/bits.h"

enum {
    N_TOKENS = 45, // expert 0 gets all: a full tile and small ones; the others small ones
    N_EXACT = 40,  // tokens whose x is of f16 numbers
    N_EXPERTS = 5,
    TOP_K = 2,
    D_MODEL = 70,
    D_FF = 41,
    D_OUT = 37,
    N_Y = N_TOKENS * D_OUT,
};

struct test {
    struct moe_vk *vk;
    struct moe_layer layer;
    struct moe_graph graph;
    struct moe_packed_weights *weights;
    float x[N_TOKENS * D_MODEL], y[2][N_Y];
    float router[N_EXPERTS * D_MODEL], router_bias[N_EXPERTS];
    struct {
        float gate[D_FF * D_MODEL], up[D_FF * D_MODEL], down[D_OUT * D_FF];
        float gate_bias[D_FF], up_bias[D_FF], down_bias[D_OUT];
    } experts[N_EXPERTS];
    uint32_t random;
};

static uint32_t next(struct test *t, uint32_t n)
{
    t->random = t->random * 1664525u + 1013904223u;
    return (t->random >> 8) % n;
}

// Multiples of 2^-10 between 1/2 and 1.
static void fill(struct test *t, float *row, uint32_t n, float sign)
{
    for (uint32_t i = 0; i < n; i++)
        row[i] = sign * (0.5f + (float) next(t, 512) * 0x1p-10f);
}

static void fill_matrix(struct test *t, float *w, float *bias, uint32_t n_rows, uint32_t width)
{
    for (uint32_t row = 0; row < n_rows; row++) {
        float sign = row % 3 == 0 ? -1 : 1;
        fill(t, w + row * width, width, sign);
        fill(t, bias + row, 1, sign);
    }
}

static void fill_test(struct test *t)
{
    t->random = 1;
    for (uint32_t i = 0; i < N_TOKENS * D_MODEL; i++) // between 4 and 12
        t->x[i] = 4 + (i < N_EXACT * D_MODEL ? (float) next(t, 1024) * 0x1p-7f
                                             : (float) next(t, 1 << 20) * 0x1p-17f);
    // Expert 0 is selected always, then one of the others by sums of different parts of x.
    for (uint32_t i = 0; i < D_MODEL; i++)
        t->router[(1 + i % (N_EXPERTS - 1)) * D_MODEL + i] = 1;
    t->router_bias[0] = 1e4f;
    for (uint32_t e = 0; e < N_EXPERTS; e++) {
        fill_matrix(t, t->experts[e].gate, t->experts[e].gate_bias, D_FF, D_MODEL);
        fill_matrix(t, t->experts[e].up, t->experts[e].up_bias, D_FF, D_MODEL);
        fill_matrix(t, t->experts[e].down, t->experts[e].down_bias, D_OUT, D_FF);
    }
}

static enum vkmoe_status make_layer(struct test *t)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = N_EXPERTS;
    desc.top_k = TOP_K;
    desc.d_model = D_MODEL;
    desc.d_ff = D_FF;
    desc.d_out = D_OUT;
    desc.in_type = desc.out_type = VKMOE_F16;
    desc.score = VKMOE_SCORE_SIGMOID; // 1 for every expert
    desc.rank = VKMOE_RANK_LOGIT;
    desc.router_bias = desc.gated = desc.gate_bias = desc.up_bias = desc.down_bias = true;
    TRY(moe_layer_init(&t->layer, &desc));
    moe_graph_forward(&t->graph, &t->layer, false);

    vkmoe_router_tensors router = {.weight = {t->router, VKMOE_F32}, .bias = t->router_bias};
    vkmoe_expert_tensors experts[N_EXPERTS];
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        experts[e] = (vkmoe_expert_tensors){.gate = {t->experts[e].gate, VKMOE_F32},
                                            .up = {t->experts[e].up, VKMOE_F32},
                                            .down = {t->experts[e].down, VKMOE_F32},
                                            .gate_bias = t->experts[e].gate_bias,
                                            .up_bias = t->experts[e].up_bias,
                                            .down_bias = t->experts[e].down_bias};
    struct moe_weights_source source = {.router = &router, .experts = experts};
    TRY(moe_vk_weights_create(&t->vk->base, &t->layer, &source, &t->weights));

fail:
    return status;
}

// NaN everywhere a kernel is to write: what an earlier program left there cannot pass for a result.
static enum vkmoe_status poison(struct moe_vk *vk, struct moe_vk_bound *b)
{
    enum vkmoe_status status = VKMOE_OK;
    VkCommandBuffer cmd = b->command.buffer;
    TRY(moe_vk_command_begin(vk, &b->command));
    vk->fn.vkCmdFillBuffer(cmd, b->work.handle, 0, VK_WHOLE_SIZE, UINT32_MAX);
    vk->fn.vkCmdFillBuffer(cmd, b->y.handle, 0, VK_WHOLE_SIZE, UINT32_MAX);
    moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                   VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
    TRY(moe_vk_command_run(vk, &b->command));

fail:
    return status;
}

// *cause says of a failure that it is the variant's: of its pipeline, or of its run. What a driver
// lacks before that, it might lack for a0 too.
static enum vkmoe_status compute(struct test *t, const struct moe_vk_variant *variant, float *y,
                                 enum moe_vk_cause *cause)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_program *program = NULL;
    struct moe_bound *bound = NULL;
    vkmoe_io io = vkmoe_io_init();
    io.x = t->x;
    io.x_stride = D_MODEL * sizeof(float);
    io.y = y;
    io.y_stride = D_OUT * sizeof(float);
    const struct moe_program_params params = {
        .max_tokens = N_TOKENS, .precision = VKMOE_PRECISION_HALF, .budget_ms = 50};
    bool own;
    *cause = MOE_VK_NO_CAUSE;
    status = moe_vk_program_make(t->vk, &t->graph, &params, variant, &program, &own);
    if (status == VKMOE_E_DEVICE && own)
        *cause = MOE_VK_NO_PIPELINE;
    TRY(status);
    TRY(moe_vk_bind_create(program, t->weights, NULL, &bound));
    TRY(poison(t->vk, (struct moe_vk_bound *) bound));
    status = moe_vk_run(bound, N_TOKENS, &io);
    if (status == VKMOE_E_DEVICE || status == VKMOE_E_DEVICE_LOST)
        *cause = MOE_VK_FAILED;

fail:
    if (bound)
        moe_vk_bind_destroy(bound);
    if (program)
        moe_vk_program_destroy(program);
    return status;
}

// Results differ from the true ones by at most this part of them. Vulkan rounds f32 to either
// neighbour.
static double bound_of(double u_x)
{
    const double u = 0x1p-23;
    double roundings = 2 * 2 * (D_MODEL + 1) + 1 + 2 * (D_FF + 1) + 2 * (TOP_K + 2);
    double gamma = roundings * u / (1 - roundings * u);
    return (1 + u_x) * (1 + u_x) * (1 + gamma) - 1;
}

static bool agree(const struct test *t)
{
    double exact = bound_of(0), rounded = bound_of(0x1p-10);
    for (uint32_t i = 0; i < N_Y; i++) {
        double c = exact + (i < N_EXACT * D_OUT ? exact : rounded);
        double want = t->y[0][i], bound = c * fabs(want) / (1 - exact);
        if (!(fabs(t->y[1][i] - want) <= bound) || want == 0) // NaN fails
            return false;
    }
    return true;
}

enum vkmoe_status moe_vk_self_test(struct moe_vk *vk, const struct moe_vk_variant *variant,
                                   enum moe_vk_cause *cause)
{
    enum vkmoe_status status = VKMOE_OK;
    struct test *t = NULL;
    TRY(moe_try_alloc(vk->base.host, sizeof *t, "self-test", &t));
    t->vk = vk;
    fill_test(t);
    TRY(make_layer(t));
    TRY(compute(t, &moe_vk_variants[MOE_VK_A0], t->y[0], cause));
    status = compute(t, variant, t->y[1], cause);
    if (status == VKMOE_OK && !agree(t))
        *cause = MOE_VK_WRONG;
    if (*cause != MOE_VK_NO_CAUSE)
        status = VKMOE_OK; // that is the variant's result

fail:
    if (t && t->weights)
        moe_vk_weights_destroy(t->weights);
    moe_free(vk->base.host, t);
    return status;
}
