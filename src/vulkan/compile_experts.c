// SPDX-License-Identifier: MIT
// The two matmuls of the experts as dispatches: chunks of experts times pieces of their rows, by
// tile lists where slots are grouped, slot by slot where they are few. The shared expert and the
// latent matrices are banks of one expert for all tokens.
#include "vulkan/compile.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"

enum { VEC = 16, FLOP_PER_BYTE = 8 }; // what reading a byte costs, on a device of common balance

// ---- banks -------------------------------------------------------------------------------------

bool moe_vk_has_bank(const struct moe_vk_compiler *c, uint32_t bank)
{
    switch (bank) {
    case MOE_BANK_SHARED:
        return moe_layer_has_shared(&c->graph->layer);
    case MOE_BANK_ADJUGATE:
        return c->desc->adjugate_group > 0;
    case MOE_VK_BANK_LATENT:
        return c->desc->d_latent > 0;
    default:
        return true;
    }
}

bool moe_vk_is_slotted(uint32_t bank)
{
    return bank == MOE_BANK_ROUTED || bank == MOE_BANK_ADJUGATE;
}

// The index of a bank's first expert, as for moe_vk_block.
static uint32_t first_index(uint32_t bank)
{
    static const uint32_t indices[MOE_VK_N_BANKS] = {
        [MOE_BANK_SHARED] = VKMOE_SHARED_EXPERT,
        [MOE_BANK_ADJUGATE] = VKMOE_ADJUGATE_EXPERT,
        [MOE_VK_BANK_LATENT] = MOE_VK_LATENT,
    };
    return indices[bank];
}

uint32_t moe_vk_bank_first(const struct moe_vk_compiler *c, uint32_t bank)
{
    return moe_vk_table_index(&c->graph->layer, first_index(bank));
}

uint32_t moe_vk_bank_experts(const struct moe_vk_compiler *c, uint32_t bank)
{
    if (bank == MOE_BANK_ADJUGATE)
        return moe_layer_n_adjugates(c->desc);
    return bank == MOE_BANK_ROUTED ? c->desc->n_experts : 1;
}

// Experts of a chunk.
static uint32_t chunk_experts(const struct moe_vk_compiler *c, uint32_t bank)
{
    if (bank == MOE_BANK_ADJUGATE)
        return c->map.chunk_adjugates;
    return bank == MOE_BANK_ROUTED ? c->map.chunk_experts : 1;
}

// ---- matrices ----------------------------------------------------------------------------------

// One of the two matrices of a bank of experts, and what its matmul reads and writes.
struct matrix {
    uint32_t bank;
    bool is_out;
    uint32_t weight, stride, rows; // packed; weight in uvec4 of the block
    uint32_t d_in, n_out;
    bool gated;
    enum vkmoe_dtype type;
    enum vkmoe_act act;
    struct moe_vk_cut cut;
    struct moe_vk_range input, output;
    bool input_is_x; // else rows of d_in f32
    bool gathers;    // the input has a row for each token, not for each slot
    struct moe_vk_range codes; // what its kernel reads instead of the input; size 0: nothing
};

static void set_act(const struct moe_vk_compiler *c, struct matrix *m)
{
    if (m->bank == MOE_VK_BANK_LATENT)
        return;
    m->gated = c->desc->gated && !m->is_out;
    m->act = m->is_out ? c->desc->act_out : c->desc->act;
}

static void set_rows(const struct moe_vk_compiler *c, struct matrix *m)
{
    const struct moe_vk_workspace *ws = &c->ws;
    bool slotted = moe_vk_is_slotted(m->bank);
    m->output = m->is_out ? ws->f[m->bank] : ws->h[m->bank];
    m->gathers = slotted && !m->is_out;
    if (m->is_out) {
        m->input = m->bank == MOE_VK_BANK_LATENT ? ws->r : ws->h[m->bank];
    } else if (slotted && c->desc->d_latent > 0) {
        m->input = ws->h[MOE_VK_BANK_LATENT];
    } else {
        m->input = moe_vk_x_range(c);
        m->input_is_x = true;
    }
}

// What computes it.
static const struct moe_vk_variant *variant_of(const struct moe_vk_compiler *c,
                                               const struct matrix *m)
{
    return moe_vk_matmul_variant(c->variant, m->type, m->input_is_x ? c->x_type : VKMOE_F32);
}

// Where the input is as codes, if it is. Few tokens are computed without.
static uint32_t codes_of(const struct matrix *m)
{
    if (m->is_out)
        return m->bank == MOE_VK_BANK_LATENT ? MOE_VK_CODES_R : m->bank;
    return m->input_is_x ? MOE_VK_CODES_X : MOE_VK_BANK_LATENT;
}

static bool reads_codes(const struct moe_vk_compiler *c, const struct matrix *m)
{
    return c->regime == MOE_VK_GROUPED && variant_of(c, m)->quantises;
}

// Of the input, for each token.
static uint32_t input_rows(const struct moe_vk_compiler *c, const struct matrix *m)
{
    return m->is_out && moe_vk_is_slotted(m->bank) ? c->desc->top_k : 1;
}

static struct matrix matrix_of(const struct moe_vk_compiler *c, uint32_t bank, bool is_out)
{
    const struct moe_vk_bank *b = &c->banks[bank];
    const struct moe_expert_shape shape =
        moe_vk_block_shape(&c->graph->layer, first_index(bank));
    struct matrix m = {
        .bank = bank,
        .is_out = is_out,
        .weight = is_out ? b->block.out_weight : b->block.in_weight,
        .stride = is_out ? b->block.out_stride : b->block.in_stride,
        .rows = is_out ? b->block.out_rows : b->block.in_rows,
        .d_in = is_out ? shape.d_ff : shape.d_in,
        .n_out = is_out ? shape.d_out : shape.d_ff,
        .type = is_out ? shape.out_type : shape.in_type,
        .cut = is_out ? b->out : b->in,
    };
    set_act(c, &m);
    set_rows(c, &m);
    if (reads_codes(c, &m))
        m.codes = c->ws.codes[codes_of(&m)];
    return m;
}

void moe_vk_lay_out_codes(struct moe_vk_compiler *c, uint64_t *end)
{
    for (uint32_t i = 0; i < 2 * MOE_VK_N_BANKS; i++) {
        if (!moe_vk_has_bank(c, i / 2))
            continue;
        struct matrix m = matrix_of(c, i / 2, i % 2);
        struct moe_vk_range *codes = &c->ws.codes[codes_of(&m)];
        uint64_t rows = (uint64_t) c->tokens * input_rows(c, &m);
        if (reads_codes(c, &m) && codes->size == 0)
            *codes = moe_vk_take(end, rows * moe_vk_code_words(m.d_in));
    }
}

uint32_t moe_vk_small_blocks(const struct moe_vk_compiler *c, uint32_t bank, bool is_out)
{
    struct matrix m = matrix_of(c, bank, is_out);
    return variant_of(c, &m)->small_blocks;
}

static uint32_t float_bits(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

// The constants of expert_act.glsl.
static void set_forms(const struct moe_vk_compiler *c, const struct matrix *m, uint32_t *spec)
{
    const vkmoe_layer_desc *desc = c->desc;
    bool shared = m->bank == MOE_BANK_SHARED;
    if (m->gated && desc->clamp != VKMOE_CLAMP_NONE) {
        spec[8] = desc->clamp;
        spec[9] = float_bits(shared ? desc->limit_shared : desc->limit);
    }
    if (m->gated)
        spec[10] = float_bits(desc->up_add);
    if (m->act == VKMOE_ACT_SITU) {
        spec[11] = float_bits(desc->situ_beta);
        spec[12] = float_bits(desc->situ_lambda > 0 ? desc->situ_lambda : 0);
    }
    spec[13] = desc->weight_on_input && m->gathers;
}

// ---- cutting -----------------------------------------------------------------------------------

// Work of a matmul over `n_rows` packed rows of a chunk, see struct moe_vk_dispatch.
static void set_work(const struct moe_vk_compiler *c, const struct matrix *m, uint32_t n_experts,
                     uint64_t n_rows, struct moe_vk_dispatch *d)
{
    double slots = moe_vk_is_slotted(m->bank)
                       ? c->desc->top_k * (double) n_experts / moe_vk_bank_experts(c, m->bank)
                       : 1.0;
    double row_bytes = (double) m->stride * VEC * (double) n_rows;
    d->work_per_token = 2.0 * slots * m->d_in * (double) n_rows;
    if (c->regime == MOE_VK_DECODE)
        d->work_per_token += FLOP_PER_BYTE * slots * row_bytes; // each slot reads its expert
    else
        d->work_fixed = FLOP_PER_BYTE * n_experts * row_bytes;
}

// Row blocks along the axis of a dispatch that has them: as panels of outputs, or as they are.
static uint32_t block_panels(const struct matrix *m)
{
    return MOE_TILE_ROWS / MOE_PANEL_ROWS / (m->gated ? 2 : 1);
}

static uint64_t most_row_blocks(const struct moe_vk_compiler *c, const struct matrix *m)
{
    return c->regime == MOE_VK_DECODE ? c->limits->groups[0] / block_panels(m)
                                      : c->limits->groups[1];
}

// Pieces of a matrix within the range that can be bound, the workgroups and the work of a dispatch.
// `split` says that an expert's rows have to be bound piece by piece.
static enum vkmoe_status cut_matrix(const struct moe_vk_compiler *c, const struct matrix *m,
                                    bool split, struct moe_vk_cut *out)
{
    uint64_t block_size = moe_vk_rows_size(m->stride, MOE_TILE_ROWS) * VEC;
    uint32_t row_blocks = (uint32_t) moe_div_up(m->rows, MOE_TILE_ROWS), most = row_blocks;
    if (split && block_size > c->limits->range)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "rows of %u weights: %d of them take %llu bytes; this device binds at most "
                        "%llu", m->d_in, MOE_TILE_ROWS, (unsigned long long) block_size,
                        (unsigned long long) c->limits->range);
    if (split)
        most = (uint32_t) moe_min(most, c->limits->range / block_size);

    struct moe_vk_dispatch whole = {0};
    set_work(c, m, chunk_experts(c, m->bank), m->rows, &whole);
    double parts = moe_vk_work(&whole, c->tokens) / c->limits->work;
    if (parts > 1.0)
        most = (uint32_t) moe_min(most, (uint64_t) (row_blocks / parts));
    most = (uint32_t) moe_max(moe_min(most, most_row_blocks(c, m)), 1);
    *out = (struct moe_vk_cut){row_blocks, most, (uint32_t) moe_div_up(row_blocks, most)};
    return VKMOE_OK;
}

static enum vkmoe_status cut_bank(struct moe_vk_compiler *c, uint32_t id)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_bank *bank = &c->banks[id];
    TRY(moe_vk_block(&c->graph->layer, first_index(id), &bank->block));
    bool split = !c->map.whole && bank->block.size > c->limits->range;
    struct matrix in = matrix_of(c, id, false), out = matrix_of(c, id, true);
    TRY(cut_matrix(c, &in, split, &bank->in));
    TRY(cut_matrix(c, &out, split, &bank->out));
    bank->n_chunks =
        (uint32_t) moe_div_up(moe_vk_bank_experts(c, id), chunk_experts(c, id));
    return VKMOE_OK;

fail:
    return status;
}

enum vkmoe_status moe_vk_cut_banks(struct moe_vk_compiler *c)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t bank = 0; bank < MOE_VK_N_BANKS && status == VKMOE_OK; bank++)
        if (moe_vk_has_bank(c, bank))
            status = cut_bank(c, bank);
    return status;
}

// One dispatch of a matmul: which experts, by their place in the table, which row blocks, what is
// bound of the weights.
struct part {
    uint32_t first_expert, n_experts;
    uint32_t first_block, n_blocks;
    struct moe_vk_range weights;
};

static struct moe_vk_range all_weights(const struct moe_vk_compiler *c)
{
    return (struct moe_vk_range){MOE_VK_BUF_WEIGHTS, 0, c->map.total};
}

// What a dispatch has to bind: everything, whole experts, or rows of one expert.
static struct moe_vk_range part_weights(const struct moe_vk_compiler *c, const struct matrix *m,
                                        const struct part *part)
{
    const struct moe_vk_bank *bank = &c->banks[m->bank];
    struct moe_vk_range range = all_weights(c);
    if (c->map.whole)
        return range;
    range.offset = moe_vk_placed(&c->graph->layer, &c->map, part->first_expert).offset;
    range.size = part->n_experts * bank->block.size;
    if (range.size <= c->limits->range)
        return range;
    uint64_t first = (uint64_t) part->first_block * MOE_TILE_ROWS;
    uint64_t n = moe_min((uint64_t) part->n_blocks * MOE_TILE_ROWS, m->rows - first);
    range.offset += (m->weight + moe_vk_rows_size(m->stride, first)) * VEC;
    range.size = moe_vk_rows_size(m->stride, n) * VEC;
    return range;
}

static struct part part_of(const struct moe_vk_compiler *c, const struct matrix *m, uint32_t chunk,
                           uint32_t piece)
{
    uint32_t of_a_chunk = chunk_experts(c, m->bank), first = chunk * of_a_chunk;
    struct part part = {
        .first_expert = moe_vk_bank_first(c, m->bank) + first,
        .n_experts = (uint32_t) moe_min(of_a_chunk, moe_vk_bank_experts(c, m->bank) - first),
        .first_block = piece * m->cut.piece_blocks,
    };
    part.n_blocks =
        (uint32_t) moe_min(m->cut.piece_blocks, m->cut.row_blocks - part.first_block);
    part.weights = part_weights(c, m, &part);
    return part;
}

static void set_part_work(const struct moe_vk_compiler *c, const struct matrix *m,
                          const struct part *part, struct moe_vk_dispatch *d)
{
    uint64_t first = (uint64_t) part->first_block * MOE_TILE_ROWS;
    uint64_t n = moe_min((uint64_t) part->n_blocks * MOE_TILE_ROWS, m->rows - first);
    set_work(c, m, part->n_experts, n, d);
}

// uvec4 of the weights before what is bound: kernels count from the begin of all.
static uint32_t window(const struct moe_vk_compiler *c, const struct part *part)
{
    return c->limits->bda ? 0 : (uint32_t) (part->weights.offset / VEC);
}

// ---- grouped -----------------------------------------------------------------------------------

static void add_gemm(struct moe_vk_compiler *c, const char *label, const struct matrix *m,
                     const struct part *part, bool small, uint32_t entry)
{
    bool listed = moe_vk_is_slotted(m->bank), coded = m->codes.size > 0;
    const struct moe_vk_grouping *g = &c->ws.groupings[m->bank];
    const struct moe_vk_variant *variant = variant_of(c, m);
    uint32_t tile = small ? c->tiles.small : c->tiles.full;
    uint32_t end = (part->first_block + part->n_blocks) * MOE_TILE_ROWS;
    bool matvec = small && variant->small_blocks > 1; // its workgroups may pass the part's end
    struct moe_vk_range routing =
        listed ? moe_vk_routing_range(g->small)
               : moe_vk_routing_range(c->limits->bda ? c->ws.count : c->ws.table);
    struct moe_vk_range tiles = small ? g->small : g->full;
    struct gemm_params p = {
        .d_in = m->d_in,
        .n_out = m->n_out,
        .packed_rows = matvec ? (uint32_t) moe_min(m->rows, end) : m->rows,
        .weight = m->weight,
        .weight_stride = m->stride,
        .window = window(c, part),
        .first_row_block = part->first_block,
        .expert = listed ? MOE_NONE : part->first_expert,
        .rows = moe_vk_word(routing, g->rows),
        .tiles = moe_vk_word(routing, tiles),
        .args = moe_vk_word(routing, g->args) + entry * MOE_ARGS_WORDS,
        .input_stride = coded ? moe_vk_code_words(m->d_in) : m->input_is_x ? 0 : m->d_in,
        .output_stride = m->n_out,
        .top_k = c->desc->top_k,
        .gates = moe_vk_word(routing, c->ws.gates),
        .act = m->act,
        .act_alpha = c->desc->act_alpha,
    };
    enum vkmoe_dtype input = m->input_is_x && !coded ? c->x_type : VKMOE_F32;
    struct moe_vk_dispatch *d = moe_vk_add(c, label, MOE_SPV_EXPERT_GEMM, &p, sizeof p);
    d->spv = c->limits->bda ? variant->gemm_bda : variant->gemm;
    if (small)
        d->spv = c->limits->bda ? variant->small_bda : variant->small;
    uint32_t spec[MOE_VK_MAX_SPEC] = {m->type, tile, m->gated, listed, m->gathers, input,
                                      variant->id == MOE_VK_A1 && m->input_is_x,
                                      c->counters};
    set_forms(c, m, spec);
    if (variant->shape > 0)
        moe_vk_matrix_spec(variant, &c->limits->shape, c->limits->subgroups, spec);
    memcpy(d->spec, spec, sizeof spec);
    moe_vk_use(d, MOE_SLOT_WEIGHTS, part->weights, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_INPUT, coded ? m->codes : m->input, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, m->output, MOE_VK_WRITE);
    set_part_work(c, m, part, d);
    d->y.fixed = part->n_blocks;
    if (!listed) {
        d->x = (struct moe_vk_count){.per_token = 1, .divisor = tile};
        return;
    }
    enum { ARGS_SIZE = MOE_ARGS_WORDS * 4 };
    d->indirect = (struct moe_vk_range){MOE_VK_BUF_WORK,
                                        g->args.offset + (uint64_t) entry * ARGS_SIZE, 12};
    d->max_x = (uint32_t) moe_vk_most_tiles(c->tiles, moe_vk_bank_experts(c, m->bank),
                                            (uint64_t) c->tokens * c->desc->top_k, small);
    if (small) // experts of few rows: reading their weights is the work
        d->work_per_token = 0;
}

// Full tiles, then small ones. Entries of the argument list are in the order of group_scatter.comp.
static void add_listed(struct moe_vk_compiler *c, const struct matrix *m)
{
    static const char *const labels[2][2][2] = {
        {{"expert in, full tiles", "expert in, small tiles"},
         {"expert out, full tiles", "expert out, small tiles"}},
        {{"adjugate in, full tiles", "adjugate in, small tiles"},
         {"adjugate out, full tiles", "adjugate out, small tiles"}},
    };
    const struct moe_vk_bank *bank = &c->banks[m->bank];
    uint32_t entries = bank->in.pieces + bank->out.pieces; // of a chunk and tile size
    for (uint32_t chunk = 0; chunk < bank->n_chunks; chunk++)
        for (uint32_t small = 0; small < 2; small++)
            for (uint32_t piece = 0; piece < m->cut.pieces; piece++) {
                struct part part = part_of(c, m, chunk, piece);
                uint32_t entry = (chunk * 2 + small) * entries + piece;
                add_gemm(c, labels[m->bank == MOE_BANK_ADJUGATE][m->is_out][small], m, &part, small,
                         entry + (m->is_out ? bank->in.pieces : 0));
            }
}

// ---- decode ------------------------------------------------------------------------------------

// Slots of experts that are not in the part are left to other dispatches.
static void add_gemv(struct moe_vk_compiler *c, const char *label, const struct matrix *m,
                     const struct part *part)
{
    bool slotted = moe_vk_is_slotted(m->bank);
    uint32_t first = part->first_block * block_panels(m);
    uint32_t end = (uint32_t) moe_min((part->first_block + part->n_blocks) * block_panels(m),
                                      moe_div_up(m->n_out, MOE_PANEL_ROWS));
    uint32_t slots = slotted ? c->desc->top_k : 1;
    struct moe_vk_range routing = moe_vk_routing_range(c->desc->weight_on_input ? c->ws.gates
                                                                            : c->ws.ids);
    struct gemv_params p = {
        .d_in = m->d_in,
        .n_out = m->n_out,
        .weight = m->weight,
        .weight_stride = m->stride,
        .window = window(c, part),
        .first_panel = first,
        .expert = slotted ? MOE_NONE : part->first_expert,
        .first_expert = part->first_expert,
        .n_experts = part->n_experts,
        .ids = moe_vk_word(routing, c->ws.ids),
        .gates = moe_vk_word(routing, c->ws.gates),
        .input_stride = m->input_is_x ? 0 : m->d_in,
        .slots = slots,
        .rows_per_input = m->gathers ? slots : 1,
        .act = m->act,
        .act_alpha = c->desc->act_alpha,
    };
    struct moe_vk_dispatch *d = moe_vk_add(c, label, MOE_SPV_EXPERT_GEMV, &p, sizeof p);
    d->spec[0] = m->type;
    d->spec[1] = m->gated;
    d->spec[2] = m->input_is_x ? c->x_type : VKMOE_F32;
    d->spec[3] = c->desc->n_experts;
    d->spec[4] = m->bank == MOE_BANK_ADJUGATE ? c->desc->adjugate_group : 0;
    set_forms(c, m, d->spec);
    moe_vk_use(d, MOE_SLOT_WEIGHTS, part->weights, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_INPUT, m->input, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, m->output, MOE_VK_WRITE);
    set_part_work(c, m, part, d);
    d->x.fixed = end - first;
    d->y = (struct moe_vk_count){.per_token = slots, .divisor = 1};
}

// ---- both --------------------------------------------------------------------------------------

// All parts of a matmul, except listed ones.
static void add_parts(struct moe_vk_compiler *c, const char *label, const struct matrix *m)
{
    for (uint32_t chunk = 0; chunk < c->banks[m->bank].n_chunks; chunk++)
        for (uint32_t piece = 0; piece < m->cut.pieces; piece++) {
            struct part part = part_of(c, m, chunk, piece);
            if (c->regime == MOE_VK_DECODE)
                add_gemv(c, label, m, &part);
            else
                add_gemm(c, label, m, &part, false, 0);
        }
}

void moe_vk_add_matmul(struct moe_vk_compiler *c, uint32_t bank, bool is_out)
{
    static const char *const labels[MOE_VK_N_BANKS][2] = {
        [MOE_BANK_ROUTED] = {"expert in", "expert out"},
        [MOE_BANK_SHARED] = {"shared in", "shared out"},
        [MOE_BANK_ADJUGATE] = {"adjugate in", "adjugate out"},
        [MOE_VK_BANK_LATENT] = {"latent in", "latent out"},
    };
    struct matrix m = matrix_of(c, bank, is_out);
    if (m.codes.size > 0)
        moe_vk_add_quantise(c, m.input, m.input_is_x, input_rows(c, &m), m.d_in, m.codes);
    if (c->regime == MOE_VK_GROUPED && moe_vk_is_slotted(bank))
        add_listed(c, &m);
    else
        add_parts(c, labels[bank][is_out], &m);
}

double moe_vk_out_work(const struct moe_vk_compiler *c, uint32_t bank)
{
    struct moe_vk_dispatch whole = {0};
    struct matrix m = matrix_of(c, bank, true);
    set_work(c, &m, moe_vk_bank_experts(c, bank), m.rows, &whole);
    return whole.work_per_token;
}
