// SPDX-License-Identifier: MIT
// The four storage buffers of a kernel, by descriptor or by address (-DMOE_BDA). Included after the
// push-constant block (whose head_params is called `head`). The kernel defines, for each it uses,
//   WEIGHTS_ACCESS, INPUT_ACCESS, ROUTING_ACCESS, OUTPUT_ACCESS
// as readonly, writeonly or nothing. It then reads and writes weights(i), which are uvec4, and
// input_at(i), routing(i), output_at(i), which are 32-bit words. EXTRA_ACCESS in the place of
// WEIGHTS_ACCESS makes that slot words too, extra_at(i).
//
// An index that all invocations share must lie inside the buffer wherever it is computed, also in
// a branch that is not taken and in what would be a loop's next iteration: lavapipe of Mesa 26
// loads from such an address although no invocation asks for it.
#ifdef MOE_BDA

#ifdef WEIGHTS_ACCESS
layout(buffer_reference, std430, buffer_reference_align = 16) WEIGHTS_ACCESS buffer WeightsRef {
    uvec4 v[];
};
#define weights(i) WeightsRef(head.address[MOE_SLOT_WEIGHTS]).v[i]
#endif
#ifdef EXTRA_ACCESS
layout(buffer_reference, std430, buffer_reference_align = 4) EXTRA_ACCESS buffer ExtraRef {
    uint v[];
};
#define extra_at(i) ExtraRef(head.address[MOE_SLOT_WEIGHTS]).v[i]
#endif
#ifdef INPUT_ACCESS
layout(buffer_reference, std430, buffer_reference_align = 4) INPUT_ACCESS buffer InputRef {
    uint v[];
};
#define input_at(i) InputRef(head.address[MOE_SLOT_INPUT]).v[i]
#endif
#ifdef ROUTING_ACCESS
layout(buffer_reference, std430, buffer_reference_align = 4) ROUTING_ACCESS buffer RoutingRef {
    uint v[];
};
#define routing(i) RoutingRef(head.address[MOE_SLOT_ROUTING]).v[i]
#endif
#ifdef OUTPUT_ACCESS
layout(buffer_reference, std430, buffer_reference_align = 4) OUTPUT_ACCESS buffer OutputRef {
    uint v[];
};
#define output_at(i) OutputRef(head.address[MOE_SLOT_OUTPUT]).v[i]
#endif

#else

#ifdef WEIGHTS_ACCESS
layout(std430, set = 0, binding = MOE_SLOT_WEIGHTS) WEIGHTS_ACCESS buffer Weights {
    uvec4 v[];
} weights_buffer;
#define weights(i) weights_buffer.v[i]
#endif
#ifdef EXTRA_ACCESS
layout(std430, set = 0, binding = MOE_SLOT_WEIGHTS) EXTRA_ACCESS buffer Extra {
    uint v[];
} extra_buffer;
#define extra_at(i) extra_buffer.v[i]
#endif
#ifdef INPUT_ACCESS
layout(std430, set = 0, binding = MOE_SLOT_INPUT) INPUT_ACCESS buffer Input {
    uint v[];
} input_buffer;
#define input_at(i) input_buffer.v[i]
#endif
#ifdef ROUTING_ACCESS
layout(std430, set = 0, binding = MOE_SLOT_ROUTING) ROUTING_ACCESS buffer Routing {
    uint v[];
} routing_buffer;
#define routing(i) routing_buffer.v[i]
#endif
#ifdef OUTPUT_ACCESS
layout(std430, set = 0, binding = MOE_SLOT_OUTPUT) OUTPUT_ACCESS buffer Output {
    uint v[];
} output_buffer;
#define output_at(i) output_buffer.v[i]
#endif

#endif

#ifndef MOE_NO_COUNT
// Tokens of this block; workgroups beyond them have nothing to do.
uint token_count()
{
    return head.block_first == MOE_NONE ? head.n_tokens : routing(MOE_COUNT_WORD);
}
#endif
