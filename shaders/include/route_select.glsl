// SPDX-License-Identifier: MIT
// Which experts a token gets: groups that are left out, and the rules of enum vkmoe_select. Each
// fills chosen[base ...]. Included after route_lanes.glsl.
layout(constant_id = MOE_SPEC_SELECT) const uint SELECT = 0; // enum vkmoe_select
layout(constant_id = MOE_SPEC_SELECT_P) const float SELECT_P = 0.0;
layout(constant_id = MOE_SPEC_N_GROUP) const uint N_GROUP = 1;
layout(constant_id = MOE_SPEC_TOPK_GROUP) const uint TOPK_GROUP = 1;
layout(constant_id = MOE_SPEC_GROUP_COUNTED) const uint GROUP_COUNTED = 1;

const uint SELECT_TABLE = 1, SELECT_SPARSEMIXER = 2, SELECT_TOP_P = 3, SELECT_THRESHOLD = 4;

// ---- groups ------------------------------------------------------------------------------------

// The key of the sum of the first GROUP_COUNTED of a group of n, in the order of selection.
uint group_key(uint first, uint n)
{
    float sum = 0.0;
    uint last_key = 0xffffffffu, last = 0;
    for (uint i = 0; i < GROUP_COUNTED; i++) {
        uint key = KEY_TAKEN, at = 0;
        for (uint e = 0; e < n; e++) {
            uint k = keys[first + e];
            bool left = k < last_key || (k == last_key && e > last);
            at = left && k > key ? e : at;
            key = left && k > key ? k : key;
        }
        sum += uintBitsToFloat(key_bits(key));
        last_key = key;
        last = at;
    }
    return order_key(sum);
}

// chosen[base ...] has the keys of the groups.
bool is_best_group(uint base, uint group)
{
    uint own = chosen[base + group], n_before = 0;
    for (uint g = 0; g < N_GROUP; g++) {
        uint key = chosen[base + g];
        n_before += key > own || (key == own && g < group) ? 1 : 0;
    }
    return n_before < TOPK_GROUP;
}

void mask_groups(token_lanes t)
{
    if (N_GROUP <= 1)
        return;
    uint size = p.n_scored / N_GROUP;
    uint fill = order_key((FLAGS & MOE_ROUTE_FILL_ZERO) != 0 ? 0.0 : NEGATIVE_INFINITY);
    barrier();
    for (uint g = t.lane; g < N_GROUP && t.n_mine > 0; g += p.span)
        chosen[t.base + g] = group_key(t.base + g * size, size);
    barrier();
    for (uint e = t.lane; e < t.n_mine; e += p.span)
        if (!is_best_group(t.base, e / size))
            keys[t.base + e] = fill;
    barrier(); // before places of the selection take the keys' room
}

// ---- rules -------------------------------------------------------------------------------------

// By the keys, best first.
void select_ranked(token_lanes t)
{
    for (uint place = 0; place < p.top_k; place++)
        take(t, place, best_left(t));
}

// By the logits in values, whose keys they are. The chosen experts' values become their gate
// weights: the softmax, at the best of the experts left, of those that are close to it. The
// distance is compared without a quotient, which would be 0 / 0 where all are 0.
void select_sparsemixer(token_lanes t)
{
    for (uint place = 0; place < p.top_k; place++) {
        uint best = best_left(t);
        float most = values[t.base + (t.n_mine > 0 ? best : 0)], sum = 0.0;
        for (uint e = t.lane; e < t.n_mine; e += p.span) {
            float l = values[t.base + e];
            bool far = !is_nan(l) && most - l > SELECT_P * max(abs(l), most);
            if (keys[t.base + e] != KEY_TAKEN && !far)
                sum += act_exp(l - most);
        }
        sum = reduce(t.lane, p.span, sum, false);
        if (t.n_mine > 0 && t.lane == best % p.span)
            values[t.base + best] = 1.0 / sum;
        take(t, place, best);
    }
}

// From row `id` of the table; row 0 for an id that is not in it.
void select_by_table(token_lanes t, uint id)
{
    uint row = p.table + (id < p.n_token_ids ? id : 0) * ((p.top_k + 3) / 4);
    for (uint place = t.lane; place < p.top_k && t.n_mine > 0; place += p.span)
        chosen[t.base + place] = weights(row + place / 4)[place % 4];
    barrier();
}

// Places that are used of those that ranking filled.
uint count_reached(token_lanes t)
{
    uint least = order_key(SELECT_P);
    float n = 0.0;
    for (uint e = t.lane; e < t.n_mine; e += p.span)
        n += keys[t.base + e] >= least ? 1.0 : 0.0;
    return clamp(uint(reduce(t.lane, p.span, n, false)), 1, p.top_k);
}
