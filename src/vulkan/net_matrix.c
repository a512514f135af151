// SPDX-License-Identifier: MIT
// Dispatches of products with matrices, groupings, and sums over rows or over everything. Kernels
// are described in shaders/.
#include "base/bits.h"
#include "vulkan/net.h"

// starts and members of an op become operands 3 and 4 of the kernel.
static void read_grouping(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                          uint32_t starts, uint32_t members)
{
    moe_vk_net_read(c, d, 3, starts);
    moe_vk_net_read(c, d, 4, members);
}

// 1 without a grouping.
static uint32_t count_groups(const struct moe_vk_net_compiler *c, uint32_t starts)
{
    return starts == MOE_NET_NONE ? 1 : (uint32_t) moe_vk_net_rows(c, starts) - 1;
}

// ---- products ----------------------------------------------------------------------------------

// Rows of operand 0 times matrices of groups. bias, starts, members: tensors or MOE_NET_NONE.
struct product {
    bool transposed;
    uint32_t bias, starts, members;
    uint32_t rows_of;      // the tensor that has as many rows
    uint32_t width, depth; // of a row of the result, and of what is multiplied
    uint32_t out;          // MOE_NET_NONE: to scratch memory
};

static uint64_t most_rows(const struct moe_vk_net_compiler *c, uint32_t tensor)
{
    return moe_net_rows(&c->net->tensors[tensor], c->net->max_tokens, c->net->max_examples);
}

// Parts that `tiles` are cut into, so that a dispatch of the most rows has no more than the work
// that one should have. In how many does not depend on the rows there are.
static uint32_t count_pieces(const struct moe_vk_net_compiler *c, double most_work, uint64_t tiles)
{
    double pieces = most_work / c->max_work;
    return pieces <= 1 ? 1 : (uint32_t) (pieces < (double) tiles ? pieces + 1 : (double) tiles);
}

static void add_piece(struct moe_vk_net_compiler *c, const struct product *product,
                      uint32_t first_tile, uint32_t end_tile)
{
    uint64_t rows = moe_vk_net_rows(c, product->rows_of);
    uint32_t n_groups = count_groups(c, product->starts);
    struct net_matmul_params params = {.width = product->width,
                                       .depth = product->depth,
                                       .n_groups = n_groups,
                                       .div0 = c->op->div[0],
                                       .div1 = 1,
                                       .first_tile = first_tile,
                                       .end_tile = end_tile};
    struct moe_vk_net_dispatch *d =
        moe_vk_net_add(c, MOE_SPV_NET_MATMUL, product->transposed, &params, sizeof params);
    d->spec[1] = moe_net_type_dtype(c->net->tensors[c->op->in[1]].type);
    moe_vk_net_by_variant(c, d, c->op->in[1]);
    d->head.rows = (uint32_t) rows;
    moe_vk_net_read(c, d, 0, c->op->in[0]);
    moe_vk_net_read(c, d, 1, c->op->in[1]);
    moe_vk_net_read(c, d, 2, product->bias);
    read_grouping(c, d, product->starts, product->members);
    if (product->out == MOE_NET_NONE)
        moe_vk_net_write_scratch(c, d, 0, 0, rows * product->width);
    else
        moe_vk_net_put(c, d, 0, product->out);
    // The last tile of a group may be short.
    moe_vk_net_grid(c, d, rows / MOE_NET_TILE_ROWS + moe_min(n_groups, rows),
                    end_tile - first_tile);
    d->work = 2.0 * (double) rows * product->depth * MOE_NET_TILE_COLUMNS * (end_tile - first_tile);
}

static void add_product(struct moe_vk_net_compiler *c, const struct product *product)
{
    double work = 2.0 * (double) most_rows(c, product->rows_of) * product->width * product->depth;
    uint32_t tiles = (uint32_t) moe_div_up(product->width, MOE_NET_TILE_COLUMNS);
    uint32_t pieces = count_pieces(c, work, tiles);
    for (uint64_t i = 0; i < pieces; i++)
        add_piece(c, product, (uint32_t) (tiles * i / pieces),
                  (uint32_t) (tiles * (i + 1) / pieces));
}

static struct product product_of(const struct moe_vk_net_compiler *c, uint32_t rows_of,
                                 uint32_t out)
{
    return (struct product){.bias = MOE_NET_NONE,
                            .rows_of = rows_of,
                            .width = moe_vk_net_width(c, c->op->out[0]),
                            .depth = moe_vk_net_width(c, c->op->in[0]),
                            .out = out};
}

void moe_vk_net_matmul(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    struct product product = product_of(c, op->out[0], op->out[0]);
    product.bias = op->in[2];
    product.starts = op->in[3];
    product.members = op->in[4];
    add_product(c, &product);
}

void moe_vk_net_matmul_dx(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    struct product product = product_of(c, op->out[0], op->out[0]);
    product.transposed = true;
    product.starts = op->in[2];
    product.members = op->in[3];
    add_product(c, &product);
}

// The slots' own products to scratch memory, then their sum.
void moe_vk_net_matmul_combine(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    uint64_t slots = moe_vk_net_rows(c, op->in[0]), n = moe_vk_net_elements(c, op->out[0]);
    uint32_t width = moe_vk_net_width(c, op->out[0]);
    struct product product = product_of(c, op->in[0], MOE_NET_NONE);
    product.bias = op->in[2];
    product.starts = op->in[4];
    product.members = op->in[5];
    add_product(c, &product);

    struct net_elements_params sum = {.n = (uint32_t) n,
                                      .width = width,
                                      .div1 = 1,
                                      .top_k = op->top_k,
                                      .alpha = op->alpha};
    struct moe_vk_net_dispatch *d =
        moe_vk_net_add(c, MOE_SPV_NET_ELEMENTS, MOE_NET_EL_SUM_SLOTS, &sum, sizeof sum);
    moe_vk_net_read_scratch(c, d, 0, 0, slots * width);
    moe_vk_net_read(c, d, 1, op->in[3]);
    moe_vk_net_put(c, d, 0, op->out[0]);
    moe_vk_net_grid(c, d, moe_div_up(n, MOE_LOCAL_SIZE), 1);
    d->work = (double) n * op->top_k * 4;
}

// ---- sums over rows ----------------------------------------------------------------------------

// Sums of columns without operands and results.
static struct moe_vk_net_dispatch *add_columns(struct moe_vk_net_compiler *c, uint32_t kind,
                                               uint64_t rows, uint32_t width, uint32_t n_groups,
                                               uint32_t div, float alpha)
{
    struct net_columns_params params = {
        .width = width, .n_groups = n_groups, .div = div, .alpha = alpha};
    struct moe_vk_net_dispatch *d =
        moe_vk_net_add(c, MOE_SPV_NET_COLUMNS, kind, &params, sizeof params);
    d->head.rows = (uint32_t) rows;
    moe_vk_net_grid(c, d, moe_div_up(width, MOE_NET_COLUMNS), n_groups);
    d->work = (double) (rows + n_groups) * width * 4;
    return d;
}

static uint64_t dw_rows(const struct moe_vk_net_compiler *c, bool most)
{
    const struct moe_net_op *op = c->op;
    bool grouped = op->in[3] != MOE_NET_NONE;
    uint32_t tensor = grouped ? op->in[4] : op->in[0];
    return (most ? most_rows(c, tensor) : moe_vk_net_rows(c, tensor)) * (grouped ? 1 : op->div[0]);
}

// Of the tiles of rows of all groups' matrices every `pieces`-th, so that a group with most of the
// rows has its work in all pieces.
static void add_dw_piece(struct moe_vk_net_compiler *c, uint32_t n_groups, uint64_t tiles,
                         uint32_t piece, uint32_t pieces)
{
    const struct moe_net_op *op = c->op;
    uint64_t rows = dw_rows(c, false);
    struct net_matmul_params params = {.width = moe_vk_net_width(c, op->in[1]),
                                       .depth = moe_vk_net_width(c, op->in[0]),
                                       .n_groups = n_groups,
                                       .div0 = op->div[0],
                                       .div1 = op->div[1],
                                       .first_tile = piece,
                                       .end_tile = (uint32_t) tiles,
                                       .tile_step = pieces};
    struct moe_vk_net_dispatch *d =
        moe_vk_net_add(c, MOE_SPV_NET_MATMUL_DW, 0, &params, sizeof params);
    moe_vk_net_by_variant(c, d, op->out[0]);
    d->head.rows = (uint32_t) rows;
    for (uint32_t i = 0; i < 3; i++)
        moe_vk_net_read(c, d, i, op->in[i]);
    read_grouping(c, d, op->in[3], op->in[4]);
    moe_vk_net_put(c, d, 0, op->out[0]);
    moe_vk_net_grid(c, d, moe_div_up(params.width, MOE_NET_TILE_COLUMNS),
                    moe_div_up(tiles - piece, pieces));
    d->work = 2.0 * (double) rows * params.width * params.depth / pieces;
}

void moe_vk_net_matmul_dw(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    uint32_t n_groups = count_groups(c, op->in[3]), depth = moe_vk_net_width(c, op->in[0]);
    double work = 2.0 * (double) dw_rows(c, true) * moe_vk_net_width(c, op->in[1]) * depth;
    uint64_t tiles = moe_div_up(depth, MOE_NET_TILE_ROWS) * n_groups;
    uint32_t pieces = count_pieces(c, work, tiles);
    for (uint32_t i = 0; i < pieces; i++)
        add_dw_piece(c, n_groups, tiles, i, pieces);
    if (op->out[1] == MOE_NET_NONE)
        return;

    struct moe_vk_net_dispatch *d = add_columns(c, MOE_NET_COLUMNS_SUM, dw_rows(c, false), depth,
                                                n_groups, op->div[0], 1);
    moe_vk_net_read(c, d, 0, op->in[0]);
    moe_vk_net_read(c, d, 1, op->in[2]);
    read_grouping(c, d, op->in[3], op->in[4]);
    moe_vk_net_put(c, d, 0, op->out[1]);
}

void moe_vk_net_group_sum(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    uint64_t rows = moe_vk_net_rows(c, op->in[0]);
    struct moe_vk_net_dispatch *d =
        add_columns(c, MOE_NET_COLUMNS_SUM, rows, moe_vk_net_width(c, op->out[0]),
                    count_groups(c, op->in[1]), 1, op->alpha);
    moe_vk_net_read(c, d, 0, op->in[0]);
    read_grouping(c, d, op->in[1], op->in[2]);
    moe_vk_net_put(c, d, 0, op->out[0]);
}

void moe_vk_net_norm_dgain(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    struct moe_vk_net_dispatch *d =
        add_columns(c, MOE_NET_COLUMNS_NORM, moe_vk_net_rows(c, op->in[0]),
                    moe_vk_net_width(c, op->in[0]), 1, 1, 1);
    for (uint32_t i = 0; i < 3; i++)
        moe_vk_net_read(c, d, i, op->in[i]);
    moe_vk_net_put(c, d, 0, op->out[0]);
    moe_vk_net_put(c, d, 1, op->out[1]);
}

// ---- totals ------------------------------------------------------------------------------------

static struct moe_vk_net_dispatch *add_total(struct moe_vk_net_compiler *c, uint32_t kind,
                                             uint64_t n, uint64_t chunk, float alpha)
{
    struct net_total_params params = {
        .n = (uint32_t) n, .chunk = (uint32_t) moe_max(chunk, 1), .alpha = alpha};
    struct moe_vk_net_dispatch *d =
        moe_vk_net_add(c, MOE_SPV_NET_TOTAL, kind, &params, sizeof params);
    moe_vk_net_grid(c, d, moe_max(moe_div_up(n, params.chunk), 1), 1);
    d->work = (double) n * 4;
    return d;
}

// Sums of chunks of the op's first operand, or of scratch memory, behind which they are put; then
// the sum of those. Chunks are fixed, so a sum does not depend on how many elements there may be.
static void add_totals(struct moe_vk_net_compiler *c, uint32_t kind, bool of_scratch, uint64_t n,
                       uint64_t max_n, float alpha)
{
    uint64_t partial = of_scratch ? moe_align_up(max_n, MOE_NET_UNIT) : 0;
    uint64_t n_partial = moe_max(moe_div_up(n, MOE_NET_CHUNK), 1);
    bool once = max_n <= MOE_NET_CHUNK;
    struct moe_vk_net_dispatch *d = add_total(c, kind, n, MOE_NET_CHUNK, once ? alpha : 1);
    if (of_scratch)
        moe_vk_net_read_scratch(c, d, 0, 0, n);
    else
        moe_vk_net_read(c, d, 0, c->op->in[0]);
    if (!once) {
        moe_vk_net_write_scratch(c, d, 0, partial, n_partial);
        d = add_total(c, MOE_NET_TOTAL_SUM, n_partial, n_partial, alpha);
        moe_vk_net_read_scratch(c, d, 0, partial, n_partial);
    }
    moe_vk_net_put(c, d, 0, c->op->out[0]);
}

void moe_vk_net_total(struct moe_vk_net_compiler *c, uint32_t kind)
{
    const struct moe_net_tensor *a = &c->net->tensors[c->op->in[0]];
    uint64_t max_n = moe_net_rows(a, c->net->max_tokens, c->net->max_examples) * a->width;
    add_totals(c, kind, false, moe_vk_net_elements(c, c->op->in[0]), max_n, 1);
}

void moe_vk_net_scratch_total(struct moe_vk_net_compiler *c, uint64_t n, uint64_t max_n,
                              float alpha)
{
    add_totals(c, MOE_NET_TOTAL_SUM, true, n, max_n, alpha);
}

// With n_e = sum_t p_te: loss = alpha E / (K T^2) sum_e c_e n_e, dp_te = alpha E / (K T^2) c_e.
void moe_vk_net_balance(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    uint32_t n_experts = moe_vk_net_width(c, op->in[0]);
    uint64_t n_tokens = moe_vk_net_rows(c, op->in[0]), n = n_tokens * n_experts;
    double per_token = n_tokens > 0 ? 1.0 / (double) n_tokens : 0;
    float alpha = (float) ((double) c->args->aux_scale * (double) op->alpha * n_experts *
                           per_token * per_token / op->top_k);

    struct moe_vk_net_dispatch *d =
        add_columns(c, MOE_NET_COLUMNS_SUM, n_tokens, n_experts, 1, 1, 1);
    moe_vk_net_read(c, d, 0, op->in[0]);
    moe_vk_net_write_scratch(c, d, 0, 0, n_experts);

    d = add_total(c, MOE_NET_TOTAL_BALANCE, n_experts, n_experts, alpha);
    moe_vk_net_read_scratch(c, d, 0, 0, n_experts);
    moe_vk_net_read(c, d, 1, op->in[1]);
    moe_vk_net_put(c, d, 0, op->out[0]);

    if (op->out[1] == MOE_NET_NONE)
        return;
    struct net_elements_params params = {.n = (uint32_t) n, .width = n_experts, .alpha = alpha};
    d = moe_vk_net_add(c, MOE_SPV_NET_ELEMENTS, MOE_NET_EL_BALANCE, &params, sizeof params);
    moe_vk_net_read(c, d, 0, op->in[1]);
    moe_vk_net_put(c, d, 0, op->out[1]);
    moe_vk_net_grid(c, d, moe_div_up(n, MOE_LOCAL_SIZE), 1);
    d->work = (double) n * 4;
}

// ---- groupings ---------------------------------------------------------------------------------

// A grouping in the making: scratch memory has the counts, then room for rows between passes.
struct sort {
    struct net_group_params params;
    uint64_t rows, counts_n, rows_at;
    uint32_t pass, n_passes;
};

// Reads the rows as the passes before left them. The last pass writes to the op's members; those
// before it alternate between them and scratch memory.
static void read_rows(struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                      const struct sort *sort)
{
    if (sort->pass == 0)
        return;
    if ((sort->n_passes - sort->pass) % 2 == 0)
        moe_vk_net_read(c, d, 1, c->op->out[1]);
    else
        moe_vk_net_read_scratch(c, d, 1, sort->rows_at, sort->rows);
}

static void write_rows(struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                       const struct sort *sort)
{
    if ((sort->n_passes - sort->pass) % 2 == 1)
        moe_vk_net_write(c, d, 1, c->op->out[1]);
    else
        moe_vk_net_write_scratch(c, d, 1, sort->rows_at, sort->rows);
}

static struct moe_vk_net_dispatch *add_sort(struct moe_vk_net_compiler *c, const struct sort *sort,
                                            uint32_t kind, uint64_t groups)
{
    struct moe_vk_net_dispatch *d =
        moe_vk_net_add(c, MOE_SPV_NET_GROUP, kind, &sort->params, sizeof sort->params);
    d->head.rows = (uint32_t) sort->rows;
    moe_vk_net_read(c, d, 0, c->op->in[0]);
    if (kind != MOE_NET_SORT_STARTS)
        moe_vk_net_write_scratch(c, d, 0, 0, sort->counts_n);
    moe_vk_net_grid(c, d, groups, 1);
    d->work = (double) (sort->rows + sort->counts_n) * 8;
    return d;
}

static void add_pass(struct moe_vk_net_compiler *c, const struct sort *sort)
{
    struct moe_vk_net_dispatch *d =
        add_sort(c, sort, MOE_NET_SORT_COUNT, sort->params.n_blocks);
    read_rows(c, d, sort);
    add_sort(c, sort, MOE_NET_SORT_SCAN, 1);
    d = add_sort(c, sort, MOE_NET_SORT_MOVE, sort->params.n_blocks);
    read_rows(c, d, sort);
    write_rows(c, d, sort);
    d->work += (double) sort->rows * MOE_NET_SORT_ROWS;
}

static uint32_t bits_of(uint32_t n)
{
    uint32_t bits = 0;
    while (bits < 32 && (UINT64_C(1) << bits) < n)
        bits++;
    return bits;
}

void moe_vk_net_group(struct moe_vk_net_compiler *c)
{
    uint32_t n_groups = count_groups(c, c->op->out[0]);
    uint32_t bits = (uint32_t) moe_max(bits_of(n_groups), 1);
    struct sort sort = {.rows = moe_vk_net_rows(c, c->op->in[0])};
    sort.n_passes = (uint32_t) moe_div_up(bits, MOE_NET_SORT_BITS);
    sort.params.n_groups = n_groups;
    sort.params.n_blocks = (uint32_t) moe_div_up(sort.rows, MOE_NET_SORT_ROWS);
    sort.params.bits = (uint32_t) moe_div_up(bits, sort.n_passes);
    sort.counts_n = (uint64_t) sort.params.n_blocks << sort.params.bits;
    sort.rows_at = moe_align_up(sort.counts_n, MOE_NET_UNIT);
    for (sort.pass = 0; sort.pass < sort.n_passes; sort.pass++) {
        sort.params.shift = sort.pass * sort.params.bits;
        add_pass(c, &sort);
    }
    struct moe_vk_net_dispatch *d = add_sort(c, &sort, MOE_NET_SORT_STARTS,
                                             moe_div_up((uint64_t) n_groups + 1, MOE_LOCAL_SIZE));
    moe_vk_net_read(c, d, 1, c->op->out[1]);
    moe_vk_net_write(c, d, 0, c->op->out[0]);
}
