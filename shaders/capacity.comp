#version 450
// SPDX-License-Identifier: MIT
// Capacity, first pass: the slots that an expert keeps of each block of capacity_rows tokens (0: of
// all tokens) are the first ones by (the gate weight, or the place in the token, then the token).
//   rows, offsets as group_scatter.comp leaves them: the slots of each expert, in token order
//   gates (n_tokens * top_k) f32
//   out: positions[slot] = MOE_NONE for a slot that is dropped
// Dispatch: (n_experts, any number, 1): blocks of tokens are shared out over y
//
// Within the slots of an expert and a block, a slot's rank is the pair (key, place in the list).
// The pair of the last slot that is kept is found digit by digit from the top: a histogram of the
// digit over the slots that match so far, then the digit in which the capacity ends.
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    capacity_params p;
};
#define ROUTING_ACCESS
#include "buffers.glsl"
#include "counters.glsl"
#include "element.glsl"
#include "order_key.glsl"
#include "capacity.glsl"
#include "grouped.glsl"
layout(constant_id = 0) const uint BY_GATE = 0; // else by place in the token

const uint DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS;

shared uint histogram[DIGITS];
shared uint found_digit, found_before;

// Where a list of the slots of one expert and block begins and ends in rows.
struct slot_list {
    uint begin, end;
};

// The first row in [begin, end) whose slot is not below `slot`; end if there is none.
uint lower_bound(slot_list list, uint slot)
{
    uint begin = list.begin, end = list.end;
    while (begin < end) {
        uint middle = begin + (end - begin) / 2;
        bool below = routing(p.rows + middle) < slot;
        begin = below ? middle + 1 : begin;
        end = below ? end : middle;
    }
    return begin;
}

// Words of a slot's rank; the larger one is kept first.
uint rank_word(slot_list list, uint i, bool low)
{
    if (low)
        return ~(i - list.begin);
    uint slot = routing(p.rows + i);
    return BY_GATE != 0 ? order_key(uintBitsToFloat(routing(p.gates + slot))) : ~(slot % p.top_k);
}

// One word of the rank of the slot number *left, counted from 1, among those whose high word is
// `high`, or all if the word sought is the high one. *left becomes its number among those that
// share the word.
uint find_word(slot_list list, bool low, uint high, inout uint left)
{
    uint lid = gl_LocalInvocationID.x, word = 0, mask = 0;
    for (int shift = 32 - int(DIGIT_BITS); shift >= 0; shift -= int(DIGIT_BITS)) {
        for (uint d = lid; d < DIGITS; d += MOE_LOCAL_SIZE)
            histogram[d] = 0;
        barrier();
        for (uint i = list.begin + lid; i < list.end; i += MOE_LOCAL_SIZE) {
            uint v = rank_word(list, i, low);
            if ((v & mask) == word && (!low || rank_word(list, i, false) == high))
                atomicAdd(histogram[v >> shift & (DIGITS - 1)], 1);
        }
        barrier();
        if (lid == 0) {
            uint digit = DIGITS - 1, before = 0;
            for (; digit > 0 && before + histogram[digit] < left; digit--)
                before += histogram[digit];
            found_digit = digit;
            found_before = before;
        }
        barrier();
        word |= found_digit << shift;
        mask |= (DIGITS - 1) << shift;
        left -= found_before;
        barrier();
    }
    return word;
}

void drop_beyond(slot_list list, uint capacity)
{
    uint left = capacity;
    uint high = find_word(list, false, 0, left), low = find_word(list, true, high, left);
    for (uint i = list.begin + gl_LocalInvocationID.x; i < list.end; i += MOE_LOCAL_SIZE) {
        uint h = rank_word(list, i, false);
        if (h < high || (h == high && rank_word(list, i, true) < low))
            routing(p.positions + routing(p.rows + i)) = MOE_NONE;
    }
}

void main()
{
    uint expert = gl_WorkGroupID.x, n_tokens = token_count();
    uint n_rows = p.capacity_rows == 0 ? n_tokens : min(p.capacity_rows, n_tokens);
    slot_list all = slot_list(grouped_offset(expert), grouped_offset(expert + 1));
    for (uint first = gl_WorkGroupID.y * n_rows; first < n_tokens && n_rows > 0;
         first += gl_NumWorkGroups.y * n_rows) {
        uint n = min(n_rows, n_tokens - first), capacity = expert_capacity(n);
        slot_list list;
        list.begin = lower_bound(all, first * p.top_k);
        list.end = lower_bound(slot_list(list.begin, all.end), (first + n) * p.top_k);
        if (list.end - list.begin > capacity)
            drop_beyond(list, capacity);
    }
    COUNT_END(n_tokens > 0);
}
