// SPDX-License-Identifier: MIT
#include "spirv_needs.h"
#include "check.h"

#include <stdlib.h>

enum {
    OP_CAPABILITY = 17,
    OP_EXECUTION_MODE = 16,
    OP_TYPE_BOOL = 20,
    OP_TYPE_INT = 21,
    OP_TYPE_FLOAT = 22,
    OP_TYPE_VECTOR = 23,
    OP_TYPE_ARRAY = 28,
    OP_TYPE_STRUCT = 30,
    OP_TYPE_POINTER = 32,
    OP_CONSTANT = 43,
    OP_SPEC_CONSTANT = 50,
    OP_SPEC_CONSTANT_OP = 52,
    OP_VARIABLE = 59,
    OP_DECORATE = 71,
    OP_MEMBER_DECORATE = 72,

    MODE_LOCAL_SIZE = 17,
    STORAGE_UNIFORM = 2,
    STORAGE_WORKGROUP = 4,
    STORAGE_PUSH_CONSTANT = 9,
    STORAGE_BUFFER = 12,
    DECORATION_OFFSET = 35,
};

struct id {
    uint32_t op;
    uint32_t size;    // bytes of a type, as a workgroup holds it
    uint32_t value;   // of a constant
    uint32_t storage; // of a pointer
    uint32_t to;      // what a pointer points to
    uint32_t last;    // of a struct with offsets: where its last member begins
    uint32_t last_size;
};

// Structs in blocks have offsets, in workgroups they do not.
static void add_struct(struct id *ids, const uint32_t *in, uint32_t n)
{
    struct id *type = &ids[in[1]];
    for (uint32_t i = 2; i < n; i++) {
        type->size += ids[in[i]].size;
        type->last_size = ids[in[i]].size;
    }
}

static void add_variable(struct id *ids, const uint32_t *in, struct spirv_needs *out)
{
    const struct id *pointer = &ids[in[1]], *type = &ids[pointer->to];
    switch (in[3]) {
    case STORAGE_WORKGROUP:
        if (type->size == 0)
            fail_msg("a workgroup variable of an unknown type (op %u)", type->op);
        out->shared += type->size;
        break;
    case STORAGE_PUSH_CONSTANT:
        out->push = type->last + type->last_size;
        break;
    case STORAGE_UNIFORM:
    case STORAGE_BUFFER:
        out->n_bindings++;
        break;
    default:
        break;
    }
}

static void add_array(struct id *ids, const uint32_t *in)
{
    const struct id *n = &ids[in[3]];
    if (n->op != OP_CONSTANT) // specialised, so every constant that an array needs is known
        fail_msg("an array of an unknown size (op %u)", n->op);
    ids[in[1]].size = ids[in[2]].size * n->value;
}

static void add(struct id *ids, const uint32_t *in, struct spirv_needs *out)
{
    uint32_t op = in[0] & 0xffff, n = in[0] >> 16;
    switch (op) {
    case OP_CAPABILITY:
        assert_true(out->n_capabilities < SPIRV_MAX_CAPABILITIES);
        out->capabilities[out->n_capabilities++] = in[1];
        break;
    case OP_EXECUTION_MODE:
        if (in[2] == MODE_LOCAL_SIZE)
            memcpy(out->size, in + 3, sizeof out->size);
        break;
    case OP_MEMBER_DECORATE:
        if (in[3] == DECORATION_OFFSET && in[4] >= ids[in[1]].last)
            ids[in[1]].last = in[4];
        break;
    case OP_TYPE_BOOL:
        ids[in[1]].size = 4;
        break;
    case OP_TYPE_INT:
    case OP_TYPE_FLOAT:
        ids[in[1]].size = in[2] / 8;
        break;
    case OP_TYPE_VECTOR:
        ids[in[1]].size = ids[in[2]].size * in[3];
        break;
    case OP_TYPE_ARRAY:
        add_array(ids, in);
        break;
    case OP_TYPE_STRUCT:
        add_struct(ids, in, n);
        break;
    case OP_TYPE_POINTER:
        ids[in[1]].storage = in[2];
        ids[in[1]].to = in[3];
        ids[in[1]].size = 8; // an address
        break;
    case OP_CONSTANT:
    case OP_SPEC_CONSTANT:
        ids[in[2]].value = in[3];
        break;
    case OP_VARIABLE:
        add_variable(ids, in, out);
        break;
    default:
        break;
    }
    bool is_type = op >= OP_TYPE_BOOL && op <= OP_TYPE_POINTER;
    bool is_constant = op == OP_CONSTANT || op == OP_SPEC_CONSTANT || op == OP_SPEC_CONSTANT_OP;
    if (is_type || is_constant)
        ids[in[is_type ? 1 : 2]].op = op;
}

struct spirv_needs spirv_needs(enum moe_spv_id spv, const uint32_t spec[MOE_VK_MAX_SPEC])
{
    enum { HEADER_WORDS = 5, VERSION = 1, BOUND = 3 };
    struct spirv_needs out = {0};
    uint32_t *words;
    size_t size;
    check_ok(moe_vk_specialise(moe_host_default(), &moe_spv_table[spv], spec, &words, &size));
    struct id *ids = calloc(words[BOUND], sizeof *ids);
    assert_non_null(ids);
    out.version = words[VERSION];
    for (size_t i = HEADER_WORDS; i < size / 4; i += words[i] >> 16) {
        assert_true(words[i] >> 16 > 0);
        add(ids, words + i, &out);
    }
    free(ids);
    moe_free(moe_host_default(), words);
    return out;
}
