// SPDX-License-Identifier: MIT
#include "vulkan/weight_row.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"
#include "weight_types.h"

enum { VEC = 16 };

// A packed block, in the words of weight_types.h.
struct shape {
    uint32_t values, head, low_bits, high_bits, tail;
};

static const struct shape shapes[] = {
#define SHAPE(type, id, values, head, low, high, tail)                                             \
    [VKMOE_##type] = {values, head, low, high, tail},
    MOE_WEIGHT_TYPES(SHAPE)
#undef SHAPE
};

#define CHECK(type, id, ...) _Static_assert((uint32_t) VKMOE_##type == id, "the number of " #type);
MOE_WEIGHT_TYPES(CHECK)
#undef CHECK

// Bits of the codes in a stored block: from a byte on, in runs of so many bytes. The lowest bits of
// all bytes of a run are the codes of as many values that follow each other, the next ones those of
// the values behind them.
struct plane {
    uint32_t begin, run;
};

// Where a stored block has its parts, in bytes.
static const struct stored {
    uint32_t head, tail;
    struct plane low, high;
} stored_blocks[MOE_COUNT(shapes)] = {
    [VKMOE_Q8_0] = {.tail = 0, .low = {2, 32}},
    [VKMOE_Q4_0] = {.tail = 0, .low = {2, 16}},
    [VKMOE_Q4_K] = {.head = 0, .low = {16, 32}},
    [VKMOE_Q5_K] = {.head = 0, .high = {16, 32}, .low = {48, 32}},
    [VKMOE_Q6_K] = {.low = {0, 64}, .high = {128, 32}, .head = 192, .tail = 208},
    [VKMOE_Q2_K] = {.head = 0, .low = {16, 32}, .tail = 80},
    [VKMOE_MXFP4] = {.tail = 0, .low = {1, 16}},
    [VKMOE_FP8] = {.tail = 0, .low = {4, 128}},
};

static bool is_float(const struct shape *shape)
{
    return shape->low_bits >= 16;
}

static uint32_t plane_size(const struct shape *shape, uint32_t bits)
{
    return shape->values * bits / 8;
}

// Bytes of a packed block without its tail, and of a stored one with it.
static uint32_t packed_size(const struct shape *shape)
{
    return shape->head * VEC + plane_size(shape, shape->low_bits + shape->high_bits);
}

static uint32_t stored_size(const struct shape *shape)
{
    return packed_size(shape) + shape->tail;
}

uint64_t moe_vk_row_size(enum vkmoe_dtype type, uint32_t width)
{
    const struct shape *shape = &shapes[type];
    uint64_t n_blocks = moe_div_up(width, shape->values);
    return n_blocks * packed_size(shape) + moe_align_up(n_blocks * shape->tail, VEC);
}

// ---- codes -------------------------------------------------------------------------------------

// The byte of the word that has the bits of the w-th four codes, and their place in its bytes.
static uint32_t plane_at(struct plane plane, uint32_t bits, uint32_t w, uint8_t *shift)
{
    uint32_t words = plane.run / 4, parts = 8 / bits;
    *shift = (uint8_t) (w / words % parts * bits);
    return plane.begin + w / (words * parts) * plane.run + w % words * 4;
}

static void add_moves(struct moe_vk_row *row, const struct shape *shape, struct plane stored,
                      struct plane packed, uint32_t bits)
{
    assert(row->n_moves + shape->values / 4 <= MOE_COUNT(row->moves));
    for (uint32_t w = 0; w < shape->values / 4; w++) {
        struct moe_vk_move *move = &row->moves[row->n_moves++];
        move->mask = ((1u << bits) - 1) * 0x01010101u;
        move->stored = (uint16_t) plane_at(stored, bits, w, &move->stored_shift);
        move->packed = (uint16_t) plane_at(packed, bits, w, &move->packed_shift);
    }
}

void moe_vk_row_init(struct moe_vk_row *row, enum vkmoe_dtype type, uint32_t width)
{
    const struct shape *shape = &shapes[type];
    const struct stored *stored = &stored_blocks[type];
    uint32_t n_blocks = (uint32_t) moe_div_up(width, shape->values);
    *row = (struct moe_vk_row){
        .type = type,
        .n_blocks = n_blocks,
        .stored_size = is_float(shape) ? width * (shape->low_bits / 8)
                                       : n_blocks * stored_size(shape),
        .stride = (uint32_t) (moe_vk_row_size(type, width) / VEC),
    };
    if (is_float(shape))
        return;
    struct plane low = {shape->head * VEC, 4};
    struct plane high = {low.begin + plane_size(shape, shape->low_bits), 4};
    add_moves(row, shape, stored->low, low, shape->low_bits);
    if (shape->high_bits)
        add_moves(row, shape, stored->high, high, shape->high_bits);
}

static void move_bits(const unsigned char *src, unsigned src_shift, unsigned char *dst,
                      unsigned dst_shift, uint32_t mask)
{
    uint32_t from, to;
    memcpy(&from, src, sizeof from);
    memcpy(&to, dst, sizeof to);
    to |= (from >> src_shift & mask) << dst_shift;
    memcpy(dst, &to, sizeof to);
}

void moe_vk_row_pack(const struct moe_vk_row *row, const void *stored, void *dst)
{
    const struct shape *shape = &shapes[row->type];
    const struct stored *at = &stored_blocks[row->type];
    const unsigned char *from = stored;
    unsigned char *to = dst, *tail = to + (size_t) row->n_blocks * packed_size(shape);
    if (row->n_moves == 0)
        memcpy(dst, stored, row->stored_size);
    for (uint32_t i = 0; row->n_moves > 0 && i < row->n_blocks; i++) {
        memcpy(to, from + at->head, shape->head * VEC);
        for (uint32_t j = 0; j < row->n_moves; j++) {
            const struct moe_vk_move *m = &row->moves[j];
            move_bits(from + m->stored, m->stored_shift, to + m->packed, m->packed_shift, m->mask);
        }
        memcpy(tail, from + at->tail, shape->tail);
        from += stored_size(shape);
        to += packed_size(shape);
        tail += shape->tail;
    }
}

void moe_vk_row_unpack(const struct moe_vk_row *row, const void *packed, void *dst)
{
    const struct shape *shape = &shapes[row->type];
    const struct stored *at = &stored_blocks[row->type];
    const unsigned char *from = packed;
    const unsigned char *tail = from + (size_t) row->n_blocks * packed_size(shape);
    unsigned char *to = dst;
    memset(dst, 0, row->stored_size);
    if (row->n_moves == 0)
        memcpy(dst, packed, row->stored_size);
    for (uint32_t i = 0; row->n_moves > 0 && i < row->n_blocks; i++) {
        for (uint32_t j = 0; j < row->n_moves; j++) {
            const struct moe_vk_move *m = &row->moves[j];
            move_bits(from + m->packed, m->packed_shift, to + m->stored, m->stored_shift, m->mask);
        }
        memcpy(to + at->head, from, shape->head * VEC);
        memcpy(to + at->tail, tail, shape->tail);
        from += packed_size(shape);
        to += stored_size(shape);
        tail += shape->tail;
    }
}
