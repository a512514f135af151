// SPDX-License-Identifier: MIT
// The two matmuls of the experts as dispatches: chunks of experts times pieces of their rows, by
// tile lists where slots are grouped, slot by slot where they are few.
#include "vulkan/compile.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"

enum { VEC = 16, FLOP_PER_BYTE = 8 }; // what reading a byte costs, on a device of common balance

// One of the two matrices of a bank of experts, and what its matmul reads and writes.
struct matrix {
    enum moe_bank bank;
    bool is_out;
    uint32_t weight, stride, rows; // packed; weight in uvec4 of the block
    uint32_t d_in, n_out;
    bool gated;
    enum vkmoe_dtype type;
    enum vkmoe_act act;
    struct moe_vk_cut cut;
};

static struct matrix matrix_of(const struct moe_vk_compiler *c, enum moe_bank bank, bool is_out)
{
    const struct moe_vk_bank *b = &c->banks[bank];
    uint32_t d_ff = bank == MOE_BANK_SHARED ? c->desc->d_shared_ff : c->desc->d_ff;
    return is_out ? (struct matrix){bank, true, b->block.out_weight, b->block.out_stride,
                                    b->block.out_rows, d_ff, c->desc->d_out, false,
                                    c->desc->out_type, c->desc->act_out, b->out}
                  : (struct matrix){bank, false, b->block.in_weight, b->block.in_stride,
                                    b->block.in_rows, c->desc->d_model, d_ff, c->desc->gated,
                                    c->desc->in_type, c->desc->act, b->in};
}

// ---- cutting -----------------------------------------------------------------------------------

static uint32_t chunk_experts(const struct moe_vk_compiler *c, enum moe_bank bank)
{
    return bank == MOE_BANK_SHARED ? 1 : c->map.chunk_experts;
}

// Work of a matmul over `n_rows` packed rows of a chunk, see struct moe_vk_dispatch.
static void set_work(const struct moe_vk_compiler *c, const struct matrix *m, uint32_t n_experts,
                     uint64_t n_rows, struct moe_vk_dispatch *d)
{
    double slots = m->bank == MOE_BANK_SHARED
                       ? 1.0
                       : c->desc->top_k * (double) n_experts / c->desc->n_experts;
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

static enum vkmoe_status cut_bank(struct moe_vk_compiler *c, enum moe_bank id)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_bank *bank = &c->banks[id];
    TRY(moe_vk_block(&c->graph->layer, id == MOE_BANK_SHARED ? VKMOE_SHARED_EXPERT : 0,
                     &bank->block));
    bool split = !c->map.whole && bank->block.size > c->limits->range;
    struct matrix in = matrix_of(c, id, false), out = matrix_of(c, id, true);
    TRY(cut_matrix(c, &in, split, &bank->in));
    TRY(cut_matrix(c, &out, split, &bank->out));
    bank->n_chunks = id == MOE_BANK_SHARED
                         ? 1
                         : (uint32_t) moe_div_up(c->desc->n_experts, c->map.chunk_experts);
    return VKMOE_OK;

fail:
    return status;
}

enum vkmoe_status moe_vk_cut_banks(struct moe_vk_compiler *c)
{
    enum vkmoe_status status = cut_bank(c, MOE_BANK_ROUTED);
    if (status == VKMOE_OK && moe_layer_has_shared(&c->graph->layer))
        status = cut_bank(c, MOE_BANK_SHARED);
    return status;
}

// One dispatch of a matmul: which experts, which row blocks, what is bound of the weights.
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
    range.offset = m->bank == MOE_BANK_SHARED
                       ? c->map.shared
                       : c->map.experts + part->first_expert * c->map.expert_size;
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
    bool shared = m->bank == MOE_BANK_SHARED;
    uint32_t first = chunk * c->map.chunk_experts;
    struct part part = {
        .first_expert = shared ? c->desc->n_experts : first,
        .n_experts =
            shared ? 1
                   : (uint32_t) moe_min(c->map.chunk_experts, c->desc->n_experts - first),
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

// ---- inputs and outputs ------------------------------------------------------------------------

static struct moe_vk_range routed_only(struct moe_vk_range both, struct moe_vk_range shared)
{
    both.size -= shared.size;
    return both;
}

// x or the bank's hidden rows.
static struct moe_vk_range input_range(const struct moe_vk_compiler *c, const struct matrix *m)
{
    if (!m->is_out)
        return moe_vk_x_range(c);
    return m->bank == MOE_BANK_SHARED ? c->ws.h_shared : routed_only(c->ws.h, c->ws.h_shared);
}

static struct moe_vk_range output_range(const struct moe_vk_compiler *c, const struct matrix *m)
{
    if (!m->is_out)
        return m->bank == MOE_BANK_SHARED ? c->ws.h_shared : routed_only(c->ws.h, c->ws.h_shared);
    return m->bank == MOE_BANK_SHARED ? c->ws.f_shared : routed_only(c->ws.f, c->ws.f_shared);
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
    bool listed = m->bank == MOE_BANK_ROUTED;
    uint32_t tile = small ? MOE_TILE_SMALL : MOE_TILE_FULL;
    struct moe_vk_range routing =
        listed ? moe_vk_routing_range(c->ws.small)
               : moe_vk_routing_range(c->limits->bda ? c->ws.count : c->ws.table);
    struct moe_vk_range tiles = small ? c->ws.small : c->ws.full;
    struct gemm_params p = {
        .d_in = m->d_in,
        .n_out = m->n_out,
        .packed_rows = m->rows,
        .weight = m->weight,
        .weight_stride = m->stride,
        .window = window(c, part),
        .first_row_block = part->first_block,
        .expert = listed ? MOE_NONE : part->first_expert,
        .rows = moe_vk_word(routing, c->ws.rows),
        .tiles = moe_vk_word(routing, tiles),
        .args = moe_vk_word(routing, c->ws.args) + entry * MOE_ARGS_WORDS,
        .input_stride = m->is_out ? m->d_in : 0,
        .output_stride = m->n_out,
        .top_k = c->desc->top_k,
        .act = m->act,
        .act_alpha = c->desc->act_alpha,
    };
    enum vkmoe_dtype input = m->is_out ? VKMOE_F32 : c->x_type;
    const struct moe_vk_variant *variant = moe_vk_matmul_variant(c->variant, m->type, input);
    struct moe_vk_dispatch *d = moe_vk_add(c, label, MOE_SPV_EXPERT_GEMM, &p, sizeof p);
    d->spv = c->limits->bda ? variant->gemm_bda : variant->gemm;
    uint32_t spec[MOE_VK_MAX_SPEC] = {m->type, tile, m->gated, listed, listed && !m->is_out, input,
                                      variant->rounds_x && !m->is_out, c->counters};
    memcpy(d->spec, spec, sizeof spec);
    moe_vk_use(d, MOE_SLOT_WEIGHTS, part->weights, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_INPUT, input_range(c, m), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, output_range(c, m), MOE_VK_WRITE);
    set_part_work(c, m, part, d);
    d->y.fixed = part->n_blocks;
    if (!listed) {
        d->x = (struct moe_vk_count){.per_token = 1, .divisor = MOE_TILE_FULL};
        return;
    }
    enum { ARGS_SIZE = MOE_ARGS_WORDS * 4 };
    d->indirect = (struct moe_vk_range){MOE_VK_BUF_WORK,
                                        c->ws.args.offset + (uint64_t) entry * ARGS_SIZE, 12};
    d->max_x = (uint32_t) moe_vk_most_tiles(c->desc, (uint64_t) c->tokens * c->desc->top_k, small);
    if (small) // small tiles are what is left of each expert
        d->work_per_token = 0;
}

// Full tiles, then small ones. Entries of the argument list are in the order of group_scan.comp.
static void add_listed(struct moe_vk_compiler *c, const struct matrix *m)
{
    static const char *const labels[2][2] = {{"expert in, full tiles", "expert in, small tiles"},
                                             {"expert out, full tiles", "expert out, small tiles"}};
    const struct moe_vk_bank *bank = &c->banks[m->bank];
    uint32_t entries = bank->in.pieces + bank->out.pieces; // of a chunk and tile size
    for (uint32_t chunk = 0; chunk < bank->n_chunks; chunk++)
        for (uint32_t small = 0; small < 2; small++)
            for (uint32_t piece = 0; piece < m->cut.pieces; piece++) {
                struct part part = part_of(c, m, chunk, piece);
                uint32_t entry = (chunk * 2 + small) * entries + piece;
                add_gemm(c, labels[m->is_out][small], m, &part, small,
                         entry + (m->is_out ? bank->in.pieces : 0));
            }
}

// ---- decode ------------------------------------------------------------------------------------

// Slots of experts that are not in the part are left to other dispatches.
static void add_gemv(struct moe_vk_compiler *c, const char *label, const struct matrix *m,
                     const struct part *part)
{
    bool shared = m->bank == MOE_BANK_SHARED;
    uint32_t first = part->first_block * block_panels(m);
    uint32_t end = (uint32_t) moe_min((part->first_block + part->n_blocks) * block_panels(m),
                                      moe_div_up(m->n_out, MOE_PANEL_ROWS));
    uint32_t slots = shared ? 1 : c->desc->top_k;
    struct moe_vk_range routing = moe_vk_routing_range(c->ws.ids);
    struct gemv_params p = {
        .d_in = m->d_in,
        .n_out = m->n_out,
        .weight = m->weight,
        .weight_stride = m->stride,
        .window = window(c, part),
        .first_panel = first,
        .expert = shared ? part->first_expert : MOE_NONE,
        .first_expert = part->first_expert,
        .n_experts = part->n_experts,
        .ids = moe_vk_word(routing, c->ws.ids),
        .input_stride = m->is_out ? m->d_in : 0,
        .slots = slots,
        .rows_per_input = m->is_out ? 1 : slots,
        .act = m->act,
        .act_alpha = c->desc->act_alpha,
    };
    struct moe_vk_dispatch *d = moe_vk_add(c, label, MOE_SPV_EXPERT_GEMV, &p, sizeof p);
    d->spec[0] = m->type;
    d->spec[1] = m->gated;
    d->spec[2] = m->is_out ? VKMOE_F32 : c->x_type;
    moe_vk_use(d, MOE_SLOT_WEIGHTS, part->weights, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_INPUT, input_range(c, m), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, output_range(c, m), MOE_VK_WRITE);
    set_part_work(c, m, part, d);
    d->x.fixed = end - first;
    d->y = (struct moe_vk_count){.per_token = slots, .divisor = 1};
}

bool moe_vk_out_is_fused(const struct moe_vk_compiler *c)
{
    bool shared = moe_layer_has_shared(&c->graph->layer);
    return c->map.whole && c->banks[MOE_BANK_ROUTED].out.pieces == 1 &&
           (!shared || c->banks[MOE_BANK_SHARED].out.pieces == 1);
}

void moe_vk_add_fused_out(struct moe_vk_compiler *c)
{
    bool shared = moe_layer_has_shared(&c->graph->layer);
    const struct moe_vk_block *routed_block = &c->banks[MOE_BANK_ROUTED].block;
    const struct moe_vk_block *shared_block = &c->banks[MOE_BANK_SHARED].block;
    struct moe_vk_range routing =
        moe_vk_routing_range(c->ws.shared_gate.size ? c->ws.shared_gate : c->ws.gates);
    struct gemv_out_params p = {
        .n_out = c->desc->d_out,
        .top_k = c->desc->top_k,
        .d_ff = c->desc->d_ff,
        .weight = routed_block->out_weight,
        .weight_stride = routed_block->out_stride,
        .shared_expert = shared ? c->desc->n_experts : MOE_NONE,
        .shared_d_ff = c->desc->d_shared_ff,
        .shared_weight = shared_block->out_weight,
        .shared_weight_stride = shared_block->out_stride,
        .shared_input = moe_vk_word(c->ws.h, c->ws.h_shared),
        .ids = moe_vk_word(routing, c->ws.ids),
        .gates = moe_vk_word(routing, c->ws.gates),
        .shared_gate = moe_vk_word(routing, c->ws.shared_gate),
        .act = c->desc->act_out,
        .act_alpha = c->desc->act_alpha,
        .routed_scale = c->desc->c_routed * c->desc->out_scale,
        .shared_scale = c->desc->c_shared * c->desc->out_scale,
    };
    struct moe_vk_dispatch *d =
        moe_vk_add(c, "expert out and combine", MOE_SPV_EXPERT_GEMV_OUT, &p, sizeof p);
    d->spec[0] = c->desc->out_type;
    d->spec[1] = c->x_type;
    moe_vk_use(d, MOE_SLOT_WEIGHTS, all_weights(c), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_INPUT, c->ws.h, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, routing, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, moe_vk_y_range(c), MOE_VK_WRITE);
    for (int bank = 0; bank <= shared; bank++) {
        struct moe_vk_dispatch part = {0};
        struct matrix m = matrix_of(c, (enum moe_bank) bank, true);
        set_work(c, &m, c->desc->n_experts, m.rows, &part);
        d->work_per_token += part.work_per_token;
    }
    d->x.fixed = (uint32_t) moe_div_up(p.n_out, MOE_PANEL_ROWS);
    d->y = (struct moe_vk_count){.per_token = 1, .divisor = 1};
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

void moe_vk_add_expert_in(struct moe_vk_compiler *c, enum moe_bank bank)
{
    struct matrix m = matrix_of(c, bank, false);
    if (c->regime == MOE_VK_GROUPED && bank == MOE_BANK_ROUTED)
        add_listed(c, &m);
    else
        add_parts(c, bank == MOE_BANK_SHARED ? "shared in" : "expert in", &m);
}

void moe_vk_add_expert_out(struct moe_vk_compiler *c, enum moe_bank bank)
{
    struct matrix m = matrix_of(c, bank, true);
    if (c->regime == MOE_VK_DECODE && moe_vk_out_is_fused(c))
        return; // part of the combining kernel
    if (c->regime == MOE_VK_GROUPED && bank == MOE_BANK_ROUTED)
        add_listed(c, &m);
    else
        add_parts(c, bank == MOE_BANK_SHARED ? "shared out" : "expert out", &m);
}
