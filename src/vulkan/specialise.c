// SPDX-License-Identifier: MIT
// SPIR-V with the values of its specialisation constants in place. What is declared before the
// functions is rewritten, from the first to the last: an OpSpecConstant becomes a constant, and so
// does an OpSpecConstantOp of known constants. Its length never grows. Functions stay as they are.
#include "vulkan/vk.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"

enum { HEADER_WORDS = 5, BOUND = 3, DECORATION_SPEC_ID = 1 };

enum {
    OP_TYPE_BOOL = 20,
    OP_CONSTANT_TRUE = 41,
    OP_CONSTANT_FALSE = 42,
    OP_CONSTANT = 43,
    OP_SPEC_CONSTANT_TRUE = 48,
    OP_SPEC_CONSTANT_FALSE = 49,
    OP_SPEC_CONSTANT = 50,
    OP_SPEC_CONSTANT_OP = 52,
    OP_FUNCTION = 54,
    OP_DECORATE = 71,
    OP_I_ADD = 128,
    OP_I_MUL = 132,
    OP_U_DIV = 134,
    OP_LOGICAL_OR = 166,
    OP_LOGICAL_AND = 167,
    OP_LOGICAL_NOT = 168,
    OP_SELECT = 169,
    OP_I_EQUAL = 170,
    OP_I_NOT_EQUAL = 171,
    OP_U_GREATER_THAN = 172,
    OP_U_LESS_THAN = 176,
    OP_U_LESS_THAN_EQUAL = 178,
    OP_BITWISE_AND = 199,
};

// What is known of a result.
struct id {
    bool is_constant, is_spec;
    uint32_t value; // true is 1
    uint32_t spec;  // its SpecId
};

struct module {
    const uint32_t *spec;
    struct id *ids;
    uint32_t bool_type;
    uint32_t *words;
    size_t n;
};

// of: the operands. False: not for these.
static bool fold(uint32_t op, const uint32_t *of, uint32_t *out)
{
    switch (op) {
    case OP_I_ADD:
        *out = of[0] + of[1];
        return true;
    case OP_I_MUL:
        *out = of[0] * of[1];
        return true;
    case OP_U_DIV:
        *out = of[1] != 0 ? of[0] / of[1] : 0;
        return of[1] != 0;
    case OP_LOGICAL_OR:
        *out = of[0] | of[1];
        return true;
    case OP_LOGICAL_AND:
    case OP_BITWISE_AND:
        *out = of[0] & of[1];
        return true;
    case OP_LOGICAL_NOT:
        *out = !of[0];
        return true;
    case OP_SELECT:
        *out = of[0] ? of[1] : of[2];
        return true;
    case OP_I_EQUAL:
        *out = of[0] == of[1];
        return true;
    case OP_I_NOT_EQUAL:
        *out = of[0] != of[1];
        return true;
    case OP_U_GREATER_THAN:
        *out = of[0] > of[1];
        return true;
    case OP_U_LESS_THAN:
        *out = of[0] < of[1];
        return true;
    case OP_U_LESS_THAN_EQUAL:
        *out = of[0] <= of[1];
        return true;
    default:
        return false;
    }
}

static void copy(struct module *m, const uint32_t *in, uint32_t n)
{
    memcpy(m->words + m->n, in, n * sizeof *in);
    m->n += n;
}

static void add_constant(struct module *m, uint32_t type, uint32_t id, uint32_t value)
{
    bool is_bool = type == m->bool_type;
    uint32_t op = !is_bool ? OP_CONSTANT : value ? OP_CONSTANT_TRUE : OP_CONSTANT_FALSE;
    uint32_t n = is_bool ? 3 : 4;
    m->ids[id].is_constant = true;
    m->ids[id].value = value;
    copy(m, (const uint32_t[]){n << 16 | op, type, id, value}, n);
}

// An OpSpecConstant of 32 bits, or -True or -False, with the value it has without a SpecId.
static void add_spec_constant(struct module *m, const uint32_t *in, uint32_t value)
{
    const struct id *id = &m->ids[in[2]];
    assert(!id->is_spec || id->spec < MOE_VK_MAX_SPEC);
    if (id->is_spec)
        value = in[1] == m->bool_type ? m->spec[id->spec] != 0 : m->spec[id->spec];
    add_constant(m, in[1], in[2], value);
}

// [OpSpecConstantOp, type, id, operation, operands of it].
static void add_operation(struct module *m, const uint32_t *in, uint32_t n)
{
    uint32_t of[3], value, n_of = n - 4;
    bool known = n_of <= MOE_COUNT(of);
    for (uint32_t i = 0; i < n_of && known; i++) {
        known = m->ids[in[4 + i]].is_constant;
        of[i] = m->ids[in[4 + i]].value;
    }
    if (known && fold(in[3], of, &value))
        add_constant(m, in[1], in[2], value);
    else
        copy(m, in, n);
}

static void add(struct module *m, const uint32_t *in, uint32_t n)
{
    switch (in[0] & 0xffff) {
    case OP_DECORATE:
        if (in[2] == DECORATION_SPEC_ID) {
            m->ids[in[1]].is_spec = true;
            m->ids[in[1]].spec = in[3];
            return;
        }
        break;
    case OP_TYPE_BOOL:
        m->bool_type = in[1];
        break;
    case OP_CONSTANT_TRUE:
    case OP_CONSTANT_FALSE:
        add_constant(m, in[1], in[2], (in[0] & 0xffff) == OP_CONSTANT_TRUE);
        return;
    case OP_CONSTANT:
        if (n != 4) // 64 bits
            break;
        add_constant(m, in[1], in[2], in[3]);
        return;
    case OP_SPEC_CONSTANT_TRUE:
    case OP_SPEC_CONSTANT_FALSE:
        add_spec_constant(m, in, (in[0] & 0xffff) == OP_SPEC_CONSTANT_TRUE);
        return;
    case OP_SPEC_CONSTANT:
        assert(n == 4); // no shader has one of 64 bits
        add_spec_constant(m, in, in[3]);
        return;
    case OP_SPEC_CONSTANT_OP:
        add_operation(m, in, n);
        return;
    }
    copy(m, in, n);
}

enum vkmoe_status moe_vk_specialise(const vkmoe_host *host, const struct moe_spv *spv,
                                    const uint32_t spec[MOE_VK_MAX_SPEC], uint32_t **out,
                                    size_t *size)
{
    const uint32_t *in = spv->words, *end = in + spv->size / sizeof *in;
    size_t n_ids = in[BOUND];
    enum vkmoe_status status = VKMOE_OK;
    struct module m = {.spec = spec};
    *out = NULL;
    TRY(moe_try_alloc(host, n_ids * sizeof *m.ids, "kernel's constants", &m.ids));
    TRY(moe_try_alloc(host, spv->size, "kernel", out));
    m.words = *out;
    copy(&m, in, HEADER_WORDS);
    for (in += HEADER_WORDS; in < end && (in[0] & 0xffff) != OP_FUNCTION; in += in[0] >> 16)
        add(&m, in, in[0] >> 16);
    copy(&m, in, (uint32_t) (end - in));
    *size = m.n * sizeof *in;

fail:
    moe_free(host, m.ids);
    return status;
}
