// SPDX-License-Identifier: MIT
// What kernels count of themselves equals what follows from the routing of the same run and from
// the tile sizes, to the last load; and a run that counts gives the same bits. By address: with
// descriptors a plan with counters is refused.
#include "check.h"
#include "fixture.h"
#include "interpose.h"

#include <stdlib.h>

#include "api/api.h"
#include "core/dtype.h"
#include "vulkan/bind.h"

enum { MAX_TOKENS = 300, DECODE_TOKENS = 4 };

struct run_case {
    const char *name;
    uint32_t n_experts, top_k, d_model, d_ff, d_out, d_shared_ff;
    bool gated, one_expert; // every token chooses the same experts
    enum vkmoe_dtype in_type, out_type, x_type;
    enum vkmoe_precision precision;
};

static const struct run_case cases[] = {
    {"gated f32", 8, 2, 64, 48, 32, 0, true, false, VKMOE_F32, VKMOE_F32, VKMOE_F32, 0},
    {"plain f16", 8, 2, 64, 48, 32, 0, false, false, VKMOE_F16, VKMOE_F16, VKMOE_F32, 0},
    {"bf16 half", 5, 3, 40, 33, 21, 0, true, false, VKMOE_BF16, VKMOE_BF16, VKMOE_F32, 1},
    {"f16 half", 7, 2, 33, 50, 17, 19, true, false, VKMOE_F16, VKMOE_F16, VKMOE_F16, 1},
    {"f32 then f16", 6, 1, 31, 65, 130, 9, true, false, VKMOE_F32, VKMOE_F16, VKMOE_F32, 0},
    {"one expert", 16, 2, 24, 20, 24, 0, true, true, VKMOE_F16, VKMOE_F16, VKMOE_F32, 1},
    {"one expert, shared", 9, 1, 7, 3, 5, 11, false, true, VKMOE_BF16, VKMOE_F32, VKMOE_F32, 0},
    {"dense", 4, 4, 16, 16, 16, 16, true, false, VKMOE_F32, VKMOE_F32, VKMOE_F32, 0},
    {"many experts", 600, 2, 12, 6, 8, 0, true, false, VKMOE_F32, VKMOE_F32, VKMOE_F32, 0},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static const uint32_t token_counts[] = {1, 3, 4, 5, 33, MAX_TOKENS};
enum { N_COUNTS = sizeof token_counts / sizeof *token_counts };

// ---- the model ---------------------------------------------------------------------------------

static uint64_t div_up(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

// uvec4 of a row of weights.
static uint64_t vecs(uint32_t width, enum vkmoe_dtype type)
{
    return div_up(width, type == VKMOE_F32 ? 4 : 8);
}

// Router: each workgroup reads all of its matrix, and each token one bias word for every row of it,
// rows padded to fours, and one selection bias for every expert.
static void model_route(const vkmoe_layer_desc *d, uint64_t n_tokens, vkmoe_counters *c)
{
    uint64_t rows = d->n_experts + (d->shared_gate == VKMOE_SHARED_SIGMOID);
    rows = div_up(rows, 4) * 4;
    uint64_t groups = div_up(n_tokens, rows <= 520 ? 2 : 1);
    c->router_loads += 4 * (groups * rows * d->d_model + n_tokens * (rows + d->n_experts));
    c->workgroups += groups;
    c->dispatches++;
}

// n rows of input times a matrix slot by slot, 16 outputs a workgroup. Packed rows are read once,
// in whole panels of 16, and those of an output (two when gated) end with a uvec4 of bias.
static void model_gemv(uint64_t n, uint32_t d_in, uint32_t n_out, bool gated,
                       enum vkmoe_dtype type, vkmoe_counters *c)
{
    uint64_t loads = div_up(n_out, 16) * 16 * vecs(d_in, type) + n_out;
    c->weight_loads += 16 * n * (gated ? 2 : 1) * loads;
    c->live_columns += n * div_up(n_out, 16);
}

static void model_decode(const vkmoe_layer_desc *d, uint64_t n_tokens, vkmoe_counters *c)
{
    uint64_t slots = n_tokens * d->top_k;
    model_gemv(slots, d->d_model, d->d_ff, d->gated, d->in_type, c);
    model_gemv(slots, d->d_ff, d->d_out, false, d->out_type, c);
    c->workgroups += slots * div_up(d->d_ff, 16) + n_tokens * div_up(d->d_out, 16);
    c->dispatches += 2;
    if (d->d_shared_ff == 0)
        return;
    model_gemv(n_tokens, d->d_model, d->d_shared_ff, d->gated, d->in_type, c);
    model_gemv(n_tokens, d->d_shared_ff, d->d_out, false, d->out_type, c);
    c->workgroups += n_tokens * div_up(d->d_shared_ff, 16);
    c->dispatches++;
}

// Tiles of rows, `live` of them, times a matrix, in blocks of 64 packed rows; packed rows are whole
// panels of 16. A tile reads each packed row once.
struct tiles {
    uint64_t n, live;
    uint64_t step;   // of columns: a tile multiplies a multiple
    uint64_t biases; // times that a packed row's is read
    uint64_t blocks; // of a workgroup
};

static void model_gemm(const struct tiles *tiles, uint32_t d_in, uint32_t n_out, bool gated,
                       enum vkmoe_dtype type, vkmoe_counters *c)
{
    uint64_t packed = div_up(n_out, 16) * 16 * (gated ? 2 : 1), blocks = div_up(packed, 64);
    uint64_t columns = div_up(tiles->live, tiles->step) * tiles->step;
    c->weight_loads += 16 * tiles->n * packed * (vecs(d_in, type) + tiles->biases);
    c->live_columns += tiles->live * blocks;
    c->padded_columns += (columns - tiles->live) * blocks;
    c->workgroups += tiles->n * div_up(blocks, tiles->blocks);
}

// Rows of one expert: if they are `few`, one tile of a matvec, which takes two at once; else as
// many tiles of `full` as they need, the last of which multiplies a multiple of 8 rows, for 8 lanes
// with biases.
static void model_expert(const vkmoe_layer_desc *d, uint32_t d_ff, uint64_t n_rows, bool few,
                         uint64_t full, vkmoe_counters *c)
{
    struct tiles tiles = few ? (struct tiles){n_rows > 0, n_rows, 2, 1, 2}
                             : (struct tiles){div_up(n_rows, full), n_rows, 8, 8, 1};
    model_gemm(&tiles, d->d_model, d_ff, d->gated, d->in_type, c);
    model_gemm(&tiles, d_ff, d->d_out, false, d->out_type, c);
}

// Of blocks of so many tokens: with 96 rows for each expert tiles are wider, with 192 once more.
static uint64_t full_rows(const vkmoe_layer_desc *d, uint32_t block_tokens)
{
    uint64_t slots = (uint64_t) block_tokens * d->top_k;
    return slots >= 192 * d->n_experts ? 128 : slots >= 96 * d->n_experts ? 64 : 32;
}

static void model_grouped(const vkmoe_layer_desc *d, enum vkmoe_dtype x_type, uint32_t n_tokens,
                          uint64_t slots, const int32_t *ids, uint64_t full, vkmoe_counters *c)
{
    uint32_t rows[1024] = {0};
    for (uint64_t s = 0; s < slots; s++)
        rows[ids[s]]++;
    for (uint32_t e = 0; e < d->n_experts; e++)
        model_expert(d, d->d_ff, rows[e], rows[e] <= 16, full, c);
    uint64_t words = div_up(moe_dtype_size(x_type, d->d_out), 4);
    c->workgroups += 2 * div_up(n_tokens * d->top_k, 256) + n_tokens * div_up(words, 128);
    c->dispatches += 2 + 4 + 1;
    if (d->d_shared_ff == 0)
        return;
    model_expert(d, d->d_shared_ff, n_tokens, false, full, c);
    c->dispatches += 2;
}

// Of n tokens with these ids in blocks of so many; the last slot of all is left out with `without`,
// for a model that is one column off.
static vkmoe_counters model(const struct moe_program *program, uint32_t n_tokens,
                            uint32_t block_tokens, const int32_t *ids, bool without)
{
    const vkmoe_layer_desc *d = &program->graph.layer.desc;
    vkmoe_counters c = {0};
    for (uint32_t first = 0, n; first < n_tokens; first += n) {
        n = n_tokens - first < block_tokens ? n_tokens - first : block_tokens;
        uint64_t slots = (uint64_t) n * d->top_k - (without && first + n == n_tokens);
        model_route(d, n, &c);
        if (n_tokens <= DECODE_TOKENS) {
            model_decode(d, n, &c);
            c.live_columns -= without;
        } else {
            model_grouped(d, program->x_type, n, slots, ids + (uint64_t) first * d->top_k,
                          full_rows(d, block_tokens), &c);
        }
    }
    return c;
}

// ---- runs --------------------------------------------------------------------------------------

static vkmoe_layer_desc layer_of(const struct run_case *k)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = k->n_experts;
    layer.top_k = k->top_k;
    layer.d_model = k->d_model;
    layer.d_ff = k->d_ff;
    layer.d_out = k->d_out;
    layer.d_shared_ff = k->d_shared_ff;
    layer.shared_gate = k->d_shared_ff > 0 ? VKMOE_SHARED_SIGMOID : VKMOE_SHARED_PLAIN;
    layer.router_bias = true;
    layer.gated = k->gated;
    layer.in_type = k->in_type;
    layer.out_type = k->out_type;
    layer.act = VKMOE_ACT_SILU;
    return layer;
}

struct bench {
    const struct run_case *k;
    struct layer_data data;
    vkmoe_context *context;
    vkmoe_weights *weights;
    void *x; // of x_type
};

static void bench_init(struct bench *b, const struct run_case *k, enum vkmoe_addressing addressing)
{
    vkmoe_layer_desc layer = layer_of(k);
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    size_t n = (size_t) MAX_TOKENS * k->d_model;
    float *x = malloc(n * sizeof *x);
    b->k = k;
    layer_data_init(&b->data, &layer, 3);
    if (k->one_expert)
        for (uint32_t i = 0; i < k->top_k; i++) // the fixture's own memory
            ((float *) b->data.router.bias)[2 * i] = 1e4f;
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.addressing = addressing;
    desc.validation = true;
    check_ok(vkmoe_context_create(&desc, &b->context));
    check_ok(vkmoe_weights_create(b->context, &b->data.desc, &b->weights));
    b->x = malloc((size_t) moe_dtype_size(k->x_type, n));
    assert_true(x && b->x);
    fill_random(x, n, 5);
    check_ok(vkmoe_dtype_convert(k->x_type, x, n, b->x));
    free(x);
}

static void bench_finish(struct bench *b)
{
    assert_int_equal(vkmoe_context_validation_count(b->context), 0);
    vkmoe_weights_destroy(b->weights);
    vkmoe_context_destroy(b->context);
    layer_data_finish(&b->data);
    free(b->x);
    assert_int_equal(interpose.n_live, 0);
}

static enum vkmoe_status program_create(const struct bench *b, bool counters,
                                        struct moe_program **out)
{
    struct moe_layer layer;
    struct moe_graph graph;
    check_ok(moe_layer_init(&layer, &b->data.layer));
    moe_graph_forward(&graph, &layer, false);
    struct moe_program_params params = {.max_tokens = MAX_TOKENS,
                                        .precision = b->k->precision,
                                        .x_type = b->k->x_type,
                                        .budget_ms = 1e6,
                                        .counters = counters};
    return b->context->device->backend->program_create(b->context->device, &graph, &params, out);
}

static struct moe_bound *bind_create(const struct bench *b, struct moe_program *program)
{
    struct moe_bound *bound;
    check_ok(moe_vk_bind_create(program, b->weights->packed, NULL, &bound));
    return bound;
}

static void run(const struct bench *b, struct moe_bound *bound, uint32_t n_tokens, int32_t *ids,
                void *y, size_t y_size)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = b->x;
    io.y = y;
    io.ids = ids;
    io.x_stride = (size_t) moe_dtype_size(b->k->x_type, b->k->d_model);
    io.y_stride = (size_t) moe_dtype_size(b->k->x_type, b->k->d_out);
    memset(y, 0xff, y_size);
    check_ok(moe_vk_run(bound, n_tokens, &io));
}

static bool equal(const vkmoe_counters *a, const vkmoe_counters *b)
{
    return a->weight_loads == b->weight_loads && a->router_loads == b->router_loads &&
           a->live_columns == b->live_columns && a->padded_columns == b->padded_columns &&
           a->workgroups == b->workgroups && a->idle_workgroups == b->idle_workgroups &&
           a->dispatches == b->dispatches;
}

static void print(const char *what, const vkmoe_counters *c)
{
    print_error("%s: weights %llu router %llu live %llu padded %llu workgroups %llu idle %llu "
                "dispatches %u\n", what, (unsigned long long) c->weight_loads,
                (unsigned long long) c->router_loads, (unsigned long long) c->live_columns,
                (unsigned long long) c->padded_columns, (unsigned long long) c->workgroups,
                (unsigned long long) c->idle_workgroups, c->dispatches);
}

static void check_counters(const struct bench *b, struct moe_bound *bound, uint32_t n_tokens,
                           const int32_t *ids)
{
    const struct moe_vk_sequence *sequence =
        &((const struct moe_vk_program *) bound->program)
             ->sequences[n_tokens <= DECODE_TOKENS ? MOE_VK_DECODE : MOE_VK_GROUPED];
    vkmoe_counters got;
    b->context->device->backend->counters(bound, &got);
    vkmoe_counters want = model(bound->program, n_tokens, sequence->block_tokens, ids, false);
    vkmoe_counters off = model(bound->program, n_tokens, sequence->block_tokens, ids, true);
    if (!equal(&got, &want)) {
        print("counted", &got);
        print("by the model", &want);
        fail_msg("%s, %u tokens", b->k->name, n_tokens);
    }
    assert_false(equal(&got, &off)); // one column off
}

// Every number of tokens, the largest first: counters begin at zero in each run. Returns the tokens
// of a block.
static uint32_t check_case(const struct run_case *k)
{
    struct bench b;
    struct moe_program *counting, *plain;
    bench_init(&b, k, VKMOE_ADDRESSING_BDA);
    check_ok(program_create(&b, true, &counting));
    check_ok(program_create(&b, false, &plain));
    struct moe_bound *bound = bind_create(&b, counting), *other = bind_create(&b, plain);
    size_t y_size = MAX_TOKENS * (size_t) moe_dtype_size(k->x_type, k->d_out);
    int32_t *ids = malloc(MAX_TOKENS * k->top_k * sizeof *ids);
    unsigned char *y = malloc(y_size), *want = malloc(y_size);
    assert_true(ids && y && want);
    for (int i = N_COUNTS - 1; i >= 0; i--) {
        run(&b, bound, token_counts[i], ids, y, y_size);
        check_counters(&b, bound, token_counts[i], ids);
        run(&b, other, token_counts[i], ids, want, y_size);
        assert_memory_equal(y, want, y_size);
    }
    free(want);
    free(y);
    free(ids);
    uint32_t tokens =
        moe_vk_sequence_of((struct moe_vk_bound *) bound, MOE_VK_GROUPED)->block_tokens;
    moe_vk_bind_destroy(other);
    moe_vk_bind_destroy(bound);
    moe_vk_program_destroy(plain);
    moe_vk_program_destroy(counting);
    bench_finish(&b);
    return tokens;
}

static void counters_equal_the_model(void **state)
{
    (void) state;
    interpose = (struct interpose){0};
    for (int i = 0; i < N_CASES; i++)
        check_case(&cases[i]);
}

static void a_discrete_gpu_reads_them_back(void **state)
{
    (void) state;
    interpose = (struct interpose){.discrete = true};
    check_case(&cases[0]);
    check_case(&cases[3]);
}

// The workspace of 300 tokens takes more here.
static void blocks_of_tokens_add_up(void **state)
{
    (void) state;
    for (int discrete = 0; discrete < 2; discrete++) {
        interpose = (struct interpose){.discrete = discrete, .max_allocation = 160 << 10};
        assert_true(check_case(&cases[0]) < MAX_TOKENS);
    }
}

// ---- runs that are not as usual ----------------------------------------------------------------

struct one_run {
    struct bench b;
    struct moe_program *program;
    struct moe_bound *bound;
    int32_t *ids;
    float *y;
    size_t y_size;
};

static void one_run_init(struct one_run *r, const struct run_case *k)
{
    bench_init(&r->b, k, VKMOE_ADDRESSING_BDA);
    check_ok(program_create(&r->b, true, &r->program));
    r->bound = bind_create(&r->b, r->program);
    r->y_size = MAX_TOKENS * k->d_out * sizeof *r->y;
    r->y = malloc(r->y_size);
    r->ids = malloc(MAX_TOKENS * k->top_k * sizeof *r->ids);
    assert_true(r->y && r->ids);
}

static void one_run_finish(struct one_run *r)
{
    free(r->ids);
    free(r->y);
    moe_vk_bind_destroy(r->bound);
    moe_vk_program_destroy(r->program);
    bench_finish(&r->b);
}

// Counters that begin at -1 end one below the number, if low words carry when they wrap.
static void counters_carry(void **state)
{
    (void) state;
    struct one_run r;
    vkmoe_counters got;
    interpose = (struct interpose){.fill_ones = true};
    one_run_init(&r, &cases[0]);
    run(&r.b, r.bound, 33, r.ids, r.y, r.y_size);
    moe_vk_counters(r.bound, &got);
    got.weight_loads += 16;
    got.router_loads += 4;
    got.live_columns++;
    got.padded_columns++;
    got.workgroups++;
    got.idle_workgroups++;
    vkmoe_counters want = model(r.program, 33, MAX_TOKENS, r.ids, false);
    assert_true(equal(&got, &want));
    one_run_finish(&r);
}

// Where the host knows no more than an upper bound of the number of tokens, workgroups beyond the
// real one are idle. A run knows it, so this records what a run would.
static void workgroups_beyond_the_tokens_are_idle(void **state)
{
    enum { MOST = 33, REAL = 9, FIRST = 1 }; // FIRST: not the dispatch that reads the count
    (void) state;
    struct one_run r;
    interpose = (struct interpose){0};
    one_run_init(&r, &cases[0]);
    run(&r.b, r.bound, REAL, r.ids, r.y, r.y_size); // x is there now
    vkmoe_counters want = model(r.program, REAL, MAX_TOKENS, r.ids, false);

    struct moe_vk_bound *b = (struct moe_vk_bound *) r.bound;
    struct moe_vk *vk = moe_vk(r.b.context->device);
    const struct moe_vk_block_run block = {.regime = MOE_VK_GROUPED, .n_tokens = MOST};
    uint32_t *words = b->work.mapped;
    assert_non_null(words);
    words[MOE_COUNT_WORD] = REAL;
    memset(words + MOE_COUNTER_WORD, 0, MOE_VK_COUNTERS_SIZE);
    check_ok(moe_vk_command_begin(vk, &b->command));
    moe_vk_record_block(b, b->command.buffer, &block, FIRST,
                        moe_vk_sequence_of(b, MOE_VK_GROUPED)->n - FIRST);
    check_ok(moe_vk_command_run(vk, &b->command));
    const uint32_t *low = words + MOE_COUNTER_WORD;
    assert_int_equal(low[2 * MOE_COUNT_BUSY], want.workgroups);
    assert_int_equal(low[2 * MOE_COUNT_LIVE], want.live_columns);
    assert_int_equal(low[2 * MOE_COUNT_WEIGHTS] * 16, want.weight_loads);
    // Of route.comp, two tokens each, and of combine.comp.
    assert_int_equal(low[2 * MOE_COUNT_IDLE], (17 - 5) + (MOST - REAL));
    one_run_finish(&r);
}

static void with_descriptors_they_are_refused(void **state)
{
    (void) state;
    struct bench b;
    struct moe_program *program;
    interpose = (struct interpose){0};
    bench_init(&b, &cases[0], VKMOE_ADDRESSING_DESCRIPTORS);
    check_fails(program_create(&b, true, &program), VKMOE_E_UNSUPPORTED, "plan.counters");
    check_ok(program_create(&b, false, &program));
    moe_vk_program_destroy(program);
    bench_finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counters_equal_the_model),
        cmocka_unit_test(a_discrete_gpu_reads_them_back),
        cmocka_unit_test(blocks_of_tokens_add_up),
        cmocka_unit_test(counters_carry),
        cmocka_unit_test(workgroups_beyond_the_tokens_are_idle),
        cmocka_unit_test(with_descriptors_they_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
