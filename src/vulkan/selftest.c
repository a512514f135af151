// SPDX-License-Identifier: MIT
// One small layer computed by a0 and by a variant on the device itself, with a shared expert: by
// the variant once for each width of its tiles, with x in f16 too if it takes that. Weights are
// f16, or q8_0 where a variant is for blocks.
//
// All terms of a sum have one sign: x is positive, a row of weights and its bias are all of the
// row's sign, a gate row has the sign of its up row, and gate weights are 1. For a variant for
// blocks x and what is added to its products are negative, as products of bytes without a sign
// would else be right too. So the sum of the
// terms' magnitudes is the result's own, nothing cancels, and one lost or misplaced element of some
// hundred shows. Weights and most of x are f16 numbers: there a variant in f16 rounds nothing, and
// only f32 sums differ, each by gamma(n) = n u / (1 - n u), twice as many roundings where fma is
// not fused:
//   y = sum_k f_k + f_shared,  f = W2 h + b2,  h = (Wg x + bg) (Wu x + bu):
//   |dy| <= |y| ((1 + u_x)^2 (1 + gamma(d_model))^2 (1 + u) (1 + u_h) (1 + gamma(d_ff))
//               (1 + gamma(top_k + 1)) - 1)
// u_h is one unit in f16's last place for a variant that rounds h to it, else 0.
// The first tokens' x has too many digits for f16, and u_x is a unit in its last place. x is large
// enough for h to pass 65504, which f16 cannot hold, and W2 small enough for y not to. Where x is
// in f16, y is too and is rounded to either neighbour; the first tokens are left out.
//
// A variant for blocks makes codes of 8 bits. u_x is what half a code is of the least of the first
// tokens' x; the others' x are codes. So is h, but for its scale, because its weights' rows are one
// row times numbers that are codes: u_h is what the scale is rounded by.
#include "vulkan/bind.h"
#include "vulkan/net.h"

#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"

enum {
    N_TOKENS = 130,
    N_ROUNDED = 5, // tokens whose x is not of f16 numbers
    N_EXPERTS = 5,
    TOP_K = 2,
    BLOCK = 32, // of x and of q8_0
    MAX_MODEL = 3 * BLOCK,
    MAX_FF = 2 * BLOCK,
    D_OUT = 37,
    N_Y = N_TOKENS * D_OUT,
};

// Expert 0 gets all tokens: more than one full tile of so many rows. The others get a part: full
// tiles, or a small one. Each width is in one run, and so is each type of x.
static const struct run {
    enum vkmoe_dtype x_type;
    uint32_t full, n_tokens;
} runs[] = {{VKMOE_F32, MOE_TILE_FULL, 45},
            {VKMOE_F16, 2 * MOE_TILE_FULL, 66},
            {VKMOE_F32, MOE_TILE_WIDE, N_TOKENS}};

struct widths {
    uint32_t d_model, d_ff, d_shared_ff;
};

static const struct widths of_floats = {70, 41, 19}, of_blocks = {MAX_MODEL, MAX_FF, BLOCK};

struct expert {
    float gate[MAX_FF * MAX_MODEL], up[MAX_FF * MAX_MODEL], down[D_OUT * MAX_FF];
    float gate_bias[MAX_FF], up_bias[MAX_FF], down_bias[D_OUT];
};

struct test {
    struct moe_vk *vk;
    bool blocks; // the variant is for those
    struct widths d;
    struct moe_layer layer;
    struct moe_graph graph;
    struct moe_packed_weights *weights;
    float x[N_TOKENS * MAX_MODEL], want[N_Y], got[N_Y];
    uint16_t x_f16[N_TOKENS * MAX_MODEL], y_f16[N_Y];
    float router[N_EXPERTS * MAX_MODEL], router_bias[N_EXPERTS];
    struct expert experts[N_EXPERTS], shared;
    uint32_t random;
};

static uint32_t next(struct test *t, uint32_t n)
{
    t->random = t->random * 1664525u + 1013904223u;
    return (t->random >> 8) % n;
}

// Multiples of 2^-10 between 1/2 and 1, times a power of two.
static void fill(struct test *t, float *row, uint32_t n, float scale)
{
    for (uint32_t i = 0; i < n; i++)
        row[i] = scale * (0.5f + (float) next(t, 512) * 0x1p-10f);
}

static void fill_matrix(struct test *t, float scale, float *w, float *bias, uint32_t n_rows,
                        uint32_t width)
{
    for (uint32_t row = 0; row < n_rows; row++) {
        float signed_scale = row % 3 == 0 ? -scale : scale;
        fill(t, w + row * width, width, signed_scale);
        fill(t, bias + row, 1, signed_scale);
    }
}

// A number of 64 to 127, which each block has at its begin.
static float code(struct test *t, uint32_t i)
{
    return i % BLOCK == 0 ? 127 : 64 + (float) next(t, 64);
}

// One row of codes times a code of each row; all = false: times 1. Signs are those of fill_matrix;
// a bias has also that of the input.
static void fill_codes(struct test *t, float scale, float of_input, bool all, float *w,
                       float *bias, uint32_t n_rows, uint32_t width)
{
    float of_row = 1, of_bias = 0.5f + (float) next(t, 512) * 0x1p-10f;
    for (uint32_t i = 0; i < width; i++)
        w[i] = code(t, i) * 0x1p-7f;
    for (uint32_t row = n_rows; row-- > 0;) { // the first one is read last
        if (all)
            of_row = code(t, row) * 0x1p-7f;
        float factor = scale * (row % 3 == 0 ? -of_row : of_row);
        bias[row] = of_input * factor * of_bias;
        for (uint32_t i = 0; i < width; i++)
            w[row * width + i] = factor * w[i];
    }
}

static void fill_expert(struct test *t, struct expert *e, uint32_t d_ff)
{
    if (t->blocks) {
        fill_codes(t, 1, -1, false, e->gate, e->gate_bias, d_ff, t->d.d_model);
        fill_codes(t, 1, -1, true, e->up, e->up_bias, d_ff, t->d.d_model);
        fill_codes(t, 0x1p-10f, 1, true, e->down, e->down_bias, D_OUT, d_ff);
        return;
    }
    fill_matrix(t, 1, e->gate, e->gate_bias, d_ff, t->d.d_model);
    fill_matrix(t, 1, e->up, e->up_bias, d_ff, t->d.d_model);
    fill_matrix(t, 0x1p-11f, e->down, e->down_bias, D_OUT, d_ff);
}

static void fill_test(struct test *t)
{
    const uint32_t d_model = t->d.d_model;
    const float sign = t->blocks ? -1 : 1;
    t->random = 1;
    for (uint32_t i = 0; i < N_TOKENS * d_model; i++) { // between 4 and 12, or 8
        t->x[i] = sign * (i < N_ROUNDED * d_model ? 4 + (float) next(t, 1 << 20) * 0x1p-17f
                          : t->blocks             ? code(t, i) * 0x1p-4f
                                                  : 4 + (float) next(t, 1024) * 0x1p-7f);
        t->x_f16[i] = moe_f32_to_f16(t->x[i]);
    }
    // Expert 0 is selected always, then one of the others by sums of different parts of x.
    for (uint32_t i = 0; i < d_model; i++)
        t->router[(1 + i % (N_EXPERTS - 1)) * d_model + i] = sign;
    t->router_bias[0] = 1e4f;
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        fill_expert(t, &t->experts[e], t->d.d_ff);
    fill_expert(t, &t->shared, t->d.d_shared_ff);
}

static vkmoe_expert_tensors tensors_of(const struct expert *e)
{
    return (vkmoe_expert_tensors){.gate = {.data = e->gate, .type = VKMOE_F32},
                                  .up = {.data = e->up, .type = VKMOE_F32},
                                  .down = {.data = e->down, .type = VKMOE_F32},
                                  .gate_bias = e->gate_bias,
                                  .up_bias = e->up_bias,
                                  .down_bias = e->down_bias};
}

static enum vkmoe_status make_layer(struct test *t)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = N_EXPERTS;
    desc.top_k = TOP_K;
    desc.d_model = t->d.d_model;
    desc.d_ff = t->d.d_ff;
    desc.d_out = D_OUT;
    desc.d_shared_ff = t->d.d_shared_ff;
    desc.in_type = desc.out_type = t->blocks ? VKMOE_Q8_0 : VKMOE_F16;
    desc.score = VKMOE_SCORE_SIGMOID; // 1 for every expert
    desc.rank = VKMOE_RANK_LOGIT;
    desc.router_bias = desc.gated = desc.gate_bias = desc.up_bias = desc.down_bias = true;
    TRY(moe_layer_init(&t->layer, &desc));
    moe_graph_forward(&t->graph, &t->layer, false);

    vkmoe_router_tensors router = {.weight = {.data = t->router, .type = VKMOE_F32},
                                   .bias = t->router_bias};
    vkmoe_expert_tensors experts[N_EXPERTS], shared = tensors_of(&t->shared);
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        experts[e] = tensors_of(&t->experts[e]);
    struct moe_weights_source source = {.router = &router, .experts = experts, .shared = &shared};
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
// lacks before that, it might lack for a0 too. A plan for max_tokens has the tiles at hand.
static enum vkmoe_status compute(struct test *t, const struct moe_vk_variant *variant,
                                 enum vkmoe_dtype type, uint32_t max_tokens, uint32_t n_tokens,
                                 const void *x, void *y, enum moe_vk_cause *cause)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_program *program = NULL;
    struct moe_bound *bound = NULL;
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.x_stride = (size_t) moe_dtype_size(type, t->d.d_model);
    io.y = y;
    io.y_stride = (size_t) moe_dtype_size(type, D_OUT);
    const struct moe_program_params params = {
        .max_tokens = max_tokens,
        .precision = t->blocks ? VKMOE_PRECISION_INT8 : VKMOE_PRECISION_HALF,
        .x_type = type,
        .budget_ms = 50,
    };
    bool own;
    *cause = MOE_VK_NO_CAUSE;
    status = moe_vk_program_make(t->vk, &t->graph, &params, variant, false, &program,
                                 &own);
    if (status == VKMOE_E_DEVICE && own)
        *cause = MOE_VK_NO_PIPELINE;
    TRY(status);
    TRY(moe_vk_bind_create(program, t->weights, NULL, &bound));
    TRY(poison(t->vk, (struct moe_vk_bound *) bound));
    status = moe_vk_run(bound, n_tokens, &io);
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
static double bound_of(double u_x, double u_h)
{
    const double u = 0x1p-23;
    double roundings = 2 * 2 * (MAX_MODEL + 1) + 1 + 2 * (MAX_FF + 1) + 2 * (TOP_K + 1 + 2);
    double gamma = roundings * u / (1 - roundings * u);
    return (1 + u_x) * (1 + u_x) * (1 + u_h) * (1 + gamma) - 1;
}

// The results of n tokens from `first` on; their own rounding is u_y.
static bool agree(const struct test *t, const struct moe_vk_variant *variant, uint32_t first,
                  uint32_t n, double u_y)
{
    const double unit = t->blocks ? 12.0 / 254 / 4 : 0x1p-10, exact = bound_of(0, 0);
    const double of_scale = 0x1p-20; // a quotient and products by it, 2.5 units each at most
    const double u_h = !variant->rounds_hidden ? 0 : t->blocks ? of_scale : unit;
    for (uint32_t i = first * D_OUT; i < (first + n) * D_OUT; i++) {
        double u_x = i < N_ROUNDED * D_OUT ? unit : 0;
        double of_got = (1 + bound_of(u_x, u_h)) * (1 + u_y) - 1;
        double want = t->want[i], bound = (exact + of_got) * fabs(want) / (1 - exact);
        if (!(fabs(t->got[i] - want) <= bound) || want == 0) // NaN fails
            return false;
    }
    return true;
}

static enum vkmoe_status test_run(struct test *t, const struct moe_vk_variant *variant,
                                  const struct run *run, uint32_t max_tokens,
                                  enum moe_vk_cause *cause)
{
    const bool f16 = run->x_type == VKMOE_F16;
    const uint32_t first = f16 ? N_ROUNDED : 0, n = run->n_tokens, d_model = t->d.d_model;
    const void *x = f16 ? (const void *) (t->x_f16 + first * d_model) : t->x;
    void *y = f16 ? (void *) t->y_f16 : t->got;
    enum vkmoe_status status = compute(t, variant, run->x_type, max_tokens, n, x, y, cause);
    for (uint32_t i = 0; f16 && i < n * D_OUT; i++)
        t->got[first * D_OUT + i] = moe_f16_to_f32(t->y_f16[i]);
    if (status == VKMOE_OK && !agree(t, variant, first, n, f16 ? 0x1p-10 : 0))
        *cause = MOE_VK_WRONG;
    return status;
}

// All runs whose type of x or whose tiles are none of an earlier one's, as far as they go well.
static enum vkmoe_status test_runs(struct test *t, const struct moe_vk_variant *variant,
                                   enum moe_vk_cause *cause)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_limits limits = moe_vk_limits(t->vk, 1);
    uint32_t types = 0, widest = 0;
    *cause = MOE_VK_NO_CAUSE;
    for (size_t i = 0; i < MOE_COUNT(runs) && *cause == MOE_VK_NO_CAUSE; i++) {
        uint32_t type = MOE_VK_BIT(runs[i].x_type), tokens = runs[i].n_tokens;
        if (runs[i].full > MOE_TILE_FULL)
            tokens = (uint32_t) moe_max(tokens, moe_vk_tokens_for(&t->layer.desc, runs[i].full));
        uint32_t rows = moe_vk_full_rows(variant, &t->layer.desc, &limits, tokens);
        if (!(variant->inputs & type) || ((types & type) && rows <= widest))
            continue;
        TRY(test_run(t, variant, &runs[i], tokens, cause));
        types |= type;
        widest = (uint32_t) moe_max(widest, rows);
    }

fail:
    return status;
}

enum vkmoe_status moe_vk_self_test(struct moe_vk *vk, const struct moe_vk_variant *variant,
                                   enum moe_vk_cause *cause)
{
    enum vkmoe_status status = VKMOE_OK;
    struct test *t = NULL;
    if (variant->nets)
        return moe_vk_net_self_test(vk, variant, cause);
    TRY(moe_try_alloc(vk->base.host, sizeof *t, "self-test", &t));
    t->vk = vk;
    t->blocks = !(variant->types & MOE_VK_BIT(VKMOE_F16));
    t->d = t->blocks ? of_blocks : of_floats;
    fill_test(t);
    TRY(make_layer(t));
    TRY(compute(t, &moe_vk_variants[MOE_VK_A0], VKMOE_F32, N_TOKENS, N_TOKENS, t->x, t->want,
                cause));
    status = test_runs(t, variant, cause);
    if (*cause != MOE_VK_NO_CAUSE)
        status = VKMOE_OK; // that is the variant's result

fail:
    if (t && t->weights)
        moe_vk_weights_destroy(t->weights);
    moe_free(vk->base.host, t);
    return status;
}
