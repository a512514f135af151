// SPDX-License-Identifier: MIT
// What a layer may cost, without a device: kernels to make and to launch, and the time of a token
// by a model. There is no cliff: it never rises much with one token more. The model knows where
// the regimes change, how an expert's rows are cut (tiles.h) and how large its block is.
//
//   cost = bytes of weights that are read + sum of columns x K
//   column   a row of input times the MOE_TILE_ROWS packed rows of a tile, needed or not
//   K        its length: so a byte costs as much as 64 products, as on common GPUs
#include "check.h"
#include "tiles.h"

#include "base/bits.h"
#include "vulkan/compile.h"

enum { MAX_TOKENS = 256, MAX_PIPELINES = 12 };
static const double most_rise = 1.10;

// How many columns a tile multiplies.
typedef uint32_t columns_of(uint32_t n_rows, uint32_t size);

// A small tile is one of the matvec.
static uint32_t some_columns(uint32_t n_rows, uint32_t size)
{
    return size == MOE_TILE_SMALL ? moe_matvec_columns(n_rows) : moe_tile_columns(n_rows, size);
}

// Matrices of 8 rows, whose products cost a quarter at most.
static uint32_t matrix_columns(uint32_t n_rows, uint32_t size)
{
    (void) size;
    return (n_rows + 7) / 8 * 8 / 4;
}

static uint32_t all_columns(uint32_t n_rows, uint32_t size)
{
    (void) n_rows;
    return size;
}

struct tiling {
    const char *name;
    struct moe_vk_tiles tiles;
    columns_of *columns;
};

// Those of plans of few tokens and of many, of a0n and of matrices.
static const struct tiling tilings[] = {
    {"16 and 32", {MOE_TILE_SMALL, 32}, some_columns},
    {"16 and 64", {MOE_TILE_SMALL, 64}, some_columns},
    {"16 and 128", {MOE_TILE_SMALL, MOE_TILE_WIDE}, some_columns},
    {"8 and 32", {8, 32}, some_columns},
    {"8 and 32, matrices", {8, 32}, matrix_columns},
};

// ---- an expert ---------------------------------------------------------------------------------

struct use {
    double reads, columns; // of an expert's weights; sums of its tiles
};

// Grouped. shared: tiles of an expert that run beside each other read its weights once.
static struct use use_of(uint32_t n_rows, bool shared, const struct tiling *t)
{
    uint32_t size = t->tiles.full, small = moe_small_tiles(n_rows, t->tiles.small);
    uint32_t full = moe_full_tiles(n_rows, t->tiles.small, size), n_tiles = small + full;
    assert_true(small == 0 || full == 0); // neighbours in one list
    struct use use = {shared ? n_tiles > 0 : n_tiles, 0};
    if (small > 0) {
        use.columns = t->columns(n_rows, t->tiles.small);
        return use;
    }
    for (uint32_t first = 0; first < n_rows; first += size)
        use.columns += t->columns((uint32_t) moe_min(n_rows - first, size), size);
    return use;
}

// Adds what is expected of an expert that each token chooses with probability p.
static void add_expected(double p, bool shared, const struct tiling *tiling, struct use *uses)
{
    double chance[MAX_TOKENS + 1] = {1}; // of so many rows
    struct use grouped[MAX_TOKENS + 1];
    for (uint32_t n = 0; n <= MAX_TOKENS; n++)
        grouped[n] = use_of(n, shared, tiling);
    for (uint32_t t = 1; t <= MAX_TOKENS; t++) {
        for (uint32_t n = t; n > 0; n--)
            chance[n] = chance[n] * (1 - p) + chance[n - 1] * p;
        chance[0] *= 1 - p;
        bool decode = moe_vk_choose_regime(t) == MOE_VK_DECODE;
        for (uint32_t n = 1; n <= t; n++) {
            struct use use = decode ? (struct use){n, n} : grouped[n];
            uses[t].reads += chance[n] * use.reads;
            uses[t].columns += chance[n] * use.columns;
        }
    }
}

// ---- a layer -----------------------------------------------------------------------------------

struct shape {
    uint32_t n_experts, top_k, d_model, d_ff;
};

static const struct shape shapes[] = {
    {32, 8, 1024, 512},   {64, 8, 2048, 1024},   {128, 8, 2048, 768}, {512, 10, 2048, 512},
    {8, 2, 4096, 14336},  {32, 4, 2880, 2880},   {64, 6, 2048, 1408}, {256, 8, 7168, 2048},
    {384, 8, 7168, 2048}, {128, 4, 2880, 2880},  {16, 1, 5120, 8192}, {60, 4, 2048, 1408},
    {1, 1, 1024, 4096},   {512, 1, 1024, 1024},  {16, 16, 256, 256},
};

static const enum vkmoe_dtype types[] = {VKMOE_F32, VKMOE_BF16, VKMOE_Q8_0, VKMOE_Q4_0,
                                         VKMOE_MXFP4};

static double layer_cost(const struct shape *shape, enum vkmoe_dtype type, const struct use *use)
{
    struct moe_layer layer;
    struct moe_vk_block block;
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = shape->n_experts;
    desc.top_k = shape->top_k;
    desc.d_model = shape->d_model;
    desc.d_ff = shape->d_ff;
    desc.gated = true;
    desc.in_type = desc.out_type = type;
    check_ok(moe_layer_init(&layer, &desc));
    check_ok(moe_vk_block(&layer, 0, &block));
    double depth = (double) moe_div_up(block.in_rows, MOE_TILE_ROWS) * shape->d_model +
                   (double) moe_div_up(block.out_rows, MOE_TILE_ROWS) * shape->d_ff;
    return use->reads * (double) block.size + use->columns * depth;
}

// The most that the cost of a token rises with one token more, as a factor.
static double rise(const struct shape *shape, enum vkmoe_dtype type, const struct use *uses)
{
    double most = 0;
    for (uint32_t t = 1; t < MAX_TOKENS; t++) {
        double one = layer_cost(shape, type, &uses[t]) / t;
        double next = layer_cost(shape, type, &uses[t + 1]) / (t + 1);
        most = fmax(most, next / one);
    }
    return most;
}

static double worst_rise(const struct shape *shape, const struct use *uses)
{
    double worst = 0;
    for (size_t i = 0; i < MOE_COUNT(types); i++)
        worst = fmax(worst, rise(shape, types[i], uses));
    return worst;
}

// ---- routing -----------------------------------------------------------------------------------

// The probability of an expert where that of the i-th is scale / i, or 1.
static double zipf(uint32_t i, double scale)
{
    return fmin(1, scale / (i + 1));
}

static double zipf_scale(const struct shape *shape)
{
    double low = 0, high = (double) shape->n_experts * shape->n_experts;
    for (int step = 0; step < 60; step++) {
        double middle = (low + high) / 2, sum = 0;
        for (uint32_t i = 0; i < shape->n_experts; i++)
            sum += zipf(i, middle);
        *(sum < shape->top_k ? &low : &high) = middle;
    }
    return high;
}

static void check_shape(const struct shape *shape, const struct tiling *tiling, bool by_zipf,
                        bool shared)
{
    struct use uses[MAX_TOKENS + 1] = {{0}};
    double scale = zipf_scale(shape), even = (double) shape->top_k / shape->n_experts;
    if (!shared && even > 0.5)
        return; // an expert that all tokens choose has a tile more at one number of them
    if (by_zipf && shape->n_experts > (tiling == tilings ? 128u : 64u))
        return; // it takes seconds
    for (uint32_t i = 0; i < (by_zipf ? shape->n_experts : 1); i++)
        add_expected(by_zipf ? zipf(i, scale) : even, shared, tiling, uses);
    double worst = worst_rise(shape, uses);
    print_message("%u of %u, %s, tiles of %s: %.3f\n", shape->top_k, shape->n_experts,
                  by_zipf ? "Zipf" : "uniform", tiling->name, worst);
    assert_true(worst > 0 && worst <= most_rise);
}

static void check_each(bool by_zipf, bool shared)
{
    for (size_t s = 0; s < MOE_COUNT(shapes); s++)
        for (size_t i = 0; i < MOE_COUNT(tilings); i++)
            check_shape(&shapes[s], &tilings[i], by_zipf, shared);
}

static void uniform_routing(void **state)
{
    (void) state;
    check_each(false, true);
    check_each(false, false);
}

static void zipf_routing(void **state)
{
    (void) state;
    check_each(true, true);
}

// A small tile that multiplied all its columns would make one, where five tokens follow four.
static void whole_tiles_would_be_a_cliff(void **state)
{
    (void) state;
    struct use uses[MAX_TOKENS + 1] = {{0}};
    const struct tiling whole = {"16 and 32", {MOE_TILE_SMALL, MOE_TILE_FULL}, all_columns};
    add_expected(10.0 / 512, true, &whole, uses);
    assert_true(worst_rise(&shapes[3], uses) > most_rise);
}

// ---- tiles -------------------------------------------------------------------------------------

static void tiles_hold_each_row(void **state)
{
    (void) state;
    for (uint32_t n = 0; n <= 4096; n++) {
        for (uint32_t rows = 8; rows <= MOE_TILE_SMALL; rows *= 2) {
            uint32_t small = moe_small_tiles(n, rows), full = moe_full_tiles(n, rows, 32);
            uint32_t places = small * rows + full * 32;
            assert_true(places >= n && places < n + (small ? rows : 32));
            assert_true(small == 0 || full == 0);
        }
        assert_in_range(moe_matvec_columns(n), n, n + 1);
    }
    static const uint32_t sizes[] = {8, 16, 32, 64, 128};
    for (size_t i = 0; i < MOE_COUNT(sizes); i++)
        for (uint32_t n = 0; n <= sizes[i]; n++) {
            uint32_t columns = moe_tile_columns(n, sizes[i]);
            assert_true(columns >= n && columns <= sizes[i]);
            assert_true(columns < n + moe_min(sizes[i] / 4, 8));
        }
}

// The most full tiles that `slots` slots of at most n_experts experts can have, by trying all.
enum { MOST_SLOTS = 300, MOST_EXPERTS = 10 };
static uint32_t most[MOST_EXPERTS + 1][MOST_SLOTS + 1];

static void find_most_tiles(struct moe_vk_tiles tiles)
{
    memset(most, 0, sizeof most);
    for (uint32_t e = 1; e <= MOST_EXPERTS; e++)
        for (uint32_t slots = 0; slots <= MOST_SLOTS; slots++)
            for (uint32_t rows = 0; rows <= slots; rows++) {
                uint32_t n = moe_full_tiles(rows, tiles.small, tiles.full);
                most[e][slots] = (uint32_t) moe_max(most[e][slots], most[e - 1][slots - rows] + n);
            }
}

static void lists_have_room_for_all_tiles(void **state)
{
    (void) state;
    for (uint32_t small = 8; small <= MOE_TILE_SMALL; small *= 2)
        for (uint32_t full = MOE_TILE_FULL; full <= MOE_TILE_WIDE; full *= 2) {
            const struct moe_vk_tiles tiles = {small, full};
            find_most_tiles(tiles);
            for (uint32_t e = 1; e <= MOST_EXPERTS; e++)
                for (uint32_t slots = 1; slots <= MOST_SLOTS; slots++) {
                    uint64_t room = moe_vk_most_tiles(tiles, e, slots, false);
                    assert_in_range(room, most[e][slots], most[e][slots] + e);
                    assert_int_equal(moe_vk_most_tiles(tiles, e, slots, true), moe_min(e, slots));
                }
        }
    // Eight experts of 33 rows and two of 18 in all: a tile for each 17 rows would be one less.
    find_most_tiles((struct moe_vk_tiles){16, 32});
    assert_int_equal(most[10][282], 282 / 17 + 1);
}

// ---- programs ----------------------------------------------------------------------------------

static void compile(struct moe_vk_program *program, const vkmoe_layer_desc *desc)
{
    struct moe_layer layer;
    const struct moe_vk_limits limits = {.bda = true,
                                         .range = MOE_VK_MAX_WORDS_SIZE,
                                         .allocation = UINT64_MAX,
                                         .groups = {65535, 65535},
                                         .work = INFINITY};
    *program = (struct moe_vk_program){0};
    check_ok(moe_layer_init(&layer, desc));
    moe_graph_forward(&program->base.graph, &layer, false);
    program->base.max_tokens = 512;
    check_ok(moe_vk_compile(program, &limits));
}

static bool same_pipeline(const struct moe_vk_dispatch *a, const struct moe_vk_dispatch *b)
{
    return a->spv == b->spv && memcmp(a->spec, b->spec, sizeof a->spec) == 0;
}

static uint32_t n_pipelines(const struct moe_vk_sequence *sequence)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < sequence->n; i++) {
        bool known = false;
        for (uint32_t j = 0; j < i && !known; j++)
            known = same_pipeline(&sequence->dispatches[i], &sequence->dispatches[j]);
        n += !known;
    }
    return n;
}

// Dispatches and pipelines of each regime, the dispatch that reads a count on the GPU among them.
static void check_program(const vkmoe_layer_desc *desc, uint32_t n_decode, uint32_t n_grouped)
{
    struct moe_vk_program program;
    compile(&program, desc);
    const struct moe_vk_sequence *decode = &program.sequences[MOE_VK_DECODE];
    const struct moe_vk_sequence *grouped = &program.sequences[MOE_VK_GROUPED];
    assert_int_equal(decode->n, 1 + n_decode);
    assert_int_equal(grouped->n, 1 + n_grouped);
    assert_in_range(n_pipelines(decode), 4, 1 + n_decode);
    assert_in_range(n_pipelines(grouped), 4, MAX_PIPELINES);
    moe_vk_sequences_finish(&program);
}

static void few_dispatches_and_pipelines(void **state)
{
    (void) state;
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = 128;
    desc.top_k = 8;
    desc.d_model = 256;
    desc.d_ff = 128;
    desc.gated = true;
    check_program(&desc, 3, 8);
    desc.d_shared_ff = 128;
    check_program(&desc, 4, 10);
}

// As many experts as there may be, the best of the best groups: one dispatch beside the experts'.
static void the_largest_router_is_one_dispatch(void **state)
{
    (void) state;
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = 1024;
    desc.top_k = 64;
    desc.d_model = 256;
    desc.d_ff = 128;
    desc.selection_bias = true;
    desc.score = VKMOE_SCORE_SIGMOID;
    desc.n_group = 64;
    desc.topk_group = 16;
    desc.group_score = VKMOE_GROUP_TOP2_SUM;
    check_program(&desc, 3, 8);
}

// Without lists too: the kernel divides by a tile's rows.
static void grouping_knows_the_tiles(void **state)
{
    (void) state;
    struct moe_vk_program program;
    uint32_t n = 0;
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = 16;
    desc.top_k = 2;
    desc.d_model = 64;
    desc.d_ff = 32;
    desc.capacity_mode = VKMOE_CAPACITY_BY_POSITION;
    desc.capacity = 8;
    compile(&program, &desc);
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++)
        for (uint32_t i = 0; i < program.sequences[regime].n; i++) {
            const struct moe_vk_dispatch *d = &program.sequences[regime].dispatches[i];
            if (!strstr(d->label, "scatter"))
                continue;
            assert_int_equal(d->spec[2], MOE_TILE_SMALL);
            assert_in_range(d->spec[3], MOE_TILE_FULL, MOE_TILE_WIDE);
            n++;
        }
    assert_int_equal(n, 3); // the capacity's twice, that of matmuls
    moe_vk_sequences_finish(&program);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uniform_routing),
        cmocka_unit_test(zipf_routing),
        cmocka_unit_test(whole_tiles_would_be_a_cliff),
        cmocka_unit_test(tiles_hold_each_row),
        cmocka_unit_test(lists_have_room_for_all_tiles),
        cmocka_unit_test(few_dispatches_and_pipelines),
        cmocka_unit_test(the_largest_router_is_one_dispatch),
        cmocka_unit_test(grouping_knows_the_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
