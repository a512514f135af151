// SPDX-License-Identifier: MIT
// The lanes of route.comp that work for one token, its experts spread over them: expert e is at
// values[base + e] and keys[base + e], and belongs to lane e % p.span. Lanes without experts, and
// those of an absent token, have n_mine = 0 and only meet barriers.
struct token_lanes {
    uint lane, base;
    uint n_mine; // the number of experts, or 0
};

shared float values[MOE_ROUTE_VALUES]; // partial sums, then logits, then what gates are made of
shared uint keys[MOE_ROUTE_VALUES];    // what selection ranks by, as ordered integers
shared uint chosen[MOE_ROUTE_VALUES];  // expert of each place of the selection, from base on
shared float lane_values[MOE_LOCAL_SIZE];
shared uint lane_keys[MOE_LOCAL_SIZE], lane_experts[MOE_LOCAL_SIZE];

// Combines a value of each of `span` neighbouring lanes in a fixed tree; all of them get the
// result. span: a power of two.
float reduce(uint lane, uint span, float v, bool maximum)
{
    uint lid = gl_LocalInvocationID.x;
    lane_values[lid] = v;
    for (uint half_span = span / 2; half_span > 0; half_span /= 2) {
        barrier();
        if (lane < half_span) {
            float a = lane_values[lid], b = lane_values[lid + half_span];
            lane_values[lid] = maximum ? (b > a ? b : a) : a + b;
        }
    }
    barrier();
    float result = lane_values[lid - lane];
    barrier();
    return result;
}

// The best of the experts that are left to a lane: largest key, then lowest index.
void lane_best(token_lanes t)
{
    uint key = KEY_TAKEN, expert = t.lane;
    for (uint e = t.lane; e < t.n_mine; e += p.span) {
        uint k = keys[t.base + e];
        expert = k > key ? e : expert;
        key = max(k, key);
    }
    lane_keys[gl_LocalInvocationID.x] = key;
    lane_experts[gl_LocalInvocationID.x] = expert;
}

// The best of the experts that are left to a token, the same on all its lanes.
uint best_left(token_lanes t)
{
    uint lid = gl_LocalInvocationID.x;
    lane_best(t);
    for (uint half_span = p.span / 2; half_span > 0; half_span /= 2) {
        barrier();
        if (t.lane < half_span) {
            uint key = lane_keys[lid + half_span], expert = lane_experts[lid + half_span];
            if (key > lane_keys[lid] || (key == lane_keys[lid] && expert < lane_experts[lid])) {
                lane_keys[lid] = key;
                lane_experts[lid] = expert;
            }
        }
    }
    barrier();
    return lane_experts[lid - t.lane];
}

// Gives a place of the selection to an expert. All lanes of a token call this with the same one.
void take(token_lanes t, uint place, uint expert)
{
    if (t.n_mine > 0 && t.lane == expert % p.span) {
        chosen[t.base + place] = expert;
        keys[t.base + expert] = KEY_TAKEN;
    }
    barrier();
}
