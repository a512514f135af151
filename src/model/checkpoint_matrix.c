// SPDX-License-Identifier: MIT
// Finding a matrix: its tensor, what its codes mean, and the grid of its scales.
#include "model/checkpoint_matrix.h"

#include "base/bits.h"
#include "base/status.h"
#include "core/dtype.h"
#include "core/quant.h"

#include <stdio.h>

enum { MAX_NAME = 512 };

// What is added to the name of a weight, and to that of its scale.
static const struct {
    const char *weight, *scale, *global;
    bool divide;
} suffixes[] = {
    {"", "_scale_inv", NULL, false},
    {"", "_scale", NULL, false},
    {"", "", NULL, false},
    {".weight", ".weight_scale_inv", NULL, false}, // DeepSeek-V3, Qwen3, MiniMax: FP8
    {".weight", ".weight_scale", ".weight_scale_2", false}, // ModelOpt; compressed-tensors' FP8
    {".weight", ".scale", NULL, false}, // DeepSeek-V4; GGUF
    {".weight", "", NULL, false},
    {".weight_packed", ".weight_scale", ".weight_global_scale", true}, // compressed-tensors
};

static void join(char out[MAX_NAME], const char *a, const char *b)
{
    snprintf(out, MAX_NAME, "%.*s%s", MAX_NAME - 40, a, b);
}

// gpt-oss: NAME_blocks or NAME.blocks with NAME_scales or NAME.scales.
static bool scales_of_blocks(const char *name, char out[MAX_NAME])
{
    size_t n = strlen(name), tail = strlen("blocks");
    if (n <= tail || strcmp(name + n - tail, "blocks") != 0)
        return false;
    snprintf(out, MAX_NAME, "%.*sscales", (int) moe_min(n - tail, MAX_NAME - 10), name);
    return true;
}

static enum vkmoe_status find_scale(struct moe_source *source, const char *name, size_t suffix,
                                    struct moe_matrix *out)
{
    char full[MAX_NAME];
    enum vkmoe_status status = VKMOE_OK;
    if (!suffixes[suffix].scale[0])
        return VKMOE_OK;
    join(full, name, suffixes[suffix].scale);
    TRY(moe_source_find(source, full, &out->scale));
    if (out->scale.name && suffixes[suffix].global) {
        join(full, name, suffixes[suffix].global);
        TRY(moe_source_find(source, full, &out->global));
        out->divide = suffixes[suffix].divide;
    }

fail:
    return status;
}

static enum vkmoe_status find_tensors(struct moe_source *source, const char *name, bool scaled,
                                      struct moe_matrix *out)
{
    enum vkmoe_status status = VKMOE_OK;
    char full[MAX_NAME];
    if (scales_of_blocks(name, full)) {
        TRY(moe_source_find(source, name, &out->weight));
        if (!out->weight.name)
            return VKMOE_OK;
        TRY(moe_source_find(source, full, &out->scale));
        if (!out->scale.name)
            return moe_fail(VKMOE_E_DATA, "tensor '%s' is missing: the scales of '%s'", full,
                            out->weight.name);
        return VKMOE_OK;
    }
    for (size_t i = 0; i < MOE_COUNT(suffixes); i++) {
        *out = (struct moe_matrix){0};
        join(full, name, suffixes[i].weight);
        TRY(moe_source_find(source, full, &out->weight));
        if (!out->weight.name)
            continue;
        if (scaled)
            TRY(find_scale(source, name, i, out));
        if (out->scale.name || !scaled || !suffixes[i].scale[0])
            return VKMOE_OK;
    }
    *out = (struct moe_matrix){0};

fail:
    return status;
}

// ---- codes -----------------------------------------------------------------------------------

static bool is_scale(enum moe_code code)
{
    return code == MOE_CODE_F32 || code == MOE_CODE_F16 || code == MOE_CODE_BF16 ||
           code == MOE_CODE_E8M0 || code == MOE_CODE_U8 || code == MOE_CODE_E4M3;
}

// Bytes that are E8M0, whatever the file calls them.
static bool is_exponent(const struct moe_source_tensor *scale)
{
    return scale->code == MOE_CODE_E8M0 || scale->code == MOE_CODE_U8;
}

static enum vkmoe_status refuse(const struct moe_matrix *m)
{
    char text[192];
    moe_source_describe(&m->weight, text, sizeof text);
    if (m->scale.name)
        return moe_fail(VKMOE_E_UNSUPPORTED, "tensor '%s': %s with scales in %s cannot be read",
                        m->weight.name, text, m->scale.type_name);
    if (m->weight.code == MOE_CODE_OTHER)
        return moe_fail(VKMOE_E_UNSUPPORTED, "tensor '%s': %s: this type cannot be read",
                        m->weight.name, text);
    return moe_fail(VKMOE_E_UNSUPPORTED, "tensor '%s': %s: no scales for it were found",
                    m->weight.name, text);
}

// What the bytes stand for, which their scales tell.
static enum vkmoe_status settle_code(struct moe_matrix *m)
{
    enum moe_code code = m->weight.code;
    m->code = code;
    if (code == MOE_CODE_OTHER || (m->scale.name && !is_scale(m->scale.code)))
        return refuse(m);
    if (code == MOE_CODE_U8 || code == MOE_CODE_I8) {
        if (!m->scale.name)
            return refuse(m);
        if (is_exponent(&m->scale) || m->scale.code == MOE_CODE_E4M3)
            m->code = MOE_CODE_E2M1;
        else if (code == MOE_CODE_U8)
            return refuse(m);
    }
    if (code == MOE_CODE_I32) {
        if (!m->scale.name)
            return refuse(m);
        m->code = MOE_CODE_INT4;
    }
    if (code == MOE_CODE_I64 || code == MOE_CODE_E8M0)
        return refuse(m);
    return VKMOE_OK;
}

// Values in an element of the tensor.
static uint64_t values_of(enum moe_code code)
{
    return code == MOE_CODE_E2M1 ? 2 : code == MOE_CODE_INT4 ? 8 : 1;
}

// ---- shapes ----------------------------------------------------------------------------------

static enum vkmoe_status wrong_shape(const struct moe_source_tensor *tensor, const char *what)
{
    char text[192];
    return moe_fail(VKMOE_E_DATA, "tensor '%s': %s: %s", tensor->name,
                    moe_source_describe(tensor, text, sizeof text), what);
}

// (experts, rows, columns) of any tensor with a leading dimension of experts or without.
static enum vkmoe_status view(const struct moe_source_tensor *tensor, bool stacked,
                              enum moe_shape shape, uint64_t out[3])
{
    uint64_t dims[MOE_ST_MAX_DIMS] = {1, 1, 1};
    uint32_t n = tensor->n_dims;
    memcpy(dims, tensor->dims, n * sizeof *dims);
    // Blocks of gpt-oss: [.., blocks, bytes].
    if (n == 4 && dims[3] == 16 && tensor->code == MOE_CODE_U8) {
        dims[2] *= dims[3];
        n = 3;
    }
    uint32_t wanted = (stacked ? 1u : 0u) + (shape == MOE_SHAPE_VECTOR ? 1u : 2u);
    uint32_t first = 0; // leading dimensions of 1 say nothing
    while (n - first > wanted && dims[first] == 1)
        first++;
    while (n - first > wanted && dims[n - 1] == 1)
        n--;
    if (n - first > wanted || (stacked && n - first < wanted))
        return wrong_shape(tensor, stacked ? "not experts, rows and columns"
                                           : "not rows and columns");
    uint32_t at = first;
    out[0] = stacked ? dims[at++] : 1;
    out[1] = shape == MOE_SHAPE_VECTOR || n - at < 2 ? 1 : dims[at++];
    out[2] = n > at ? dims[at] : 1;
    return VKMOE_OK;
}

// How many values of `n` share each of `grid` scales; 0: that cannot be.
static uint64_t share(uint64_t n, uint64_t grid, uint32_t block)
{
    if (grid == 0)
        return 0;
    if (block > 0 && moe_div_up(n, block) == grid)
        return block;
    if (grid == 1)
        return n;
    if (moe_div_up(n, 128) == grid)
        return 128;
    return n % grid == 0 ? n / grid : 0;
}

static enum vkmoe_status settle_grid(struct moe_matrix *m, const uint32_t block[2])
{
    char text[192], weight[192];
    uint64_t dims[3] = {1, 1, 1};
    const struct moe_source_tensor *scale = &m->scale;
    uint64_t n = scale->size / scale->block_size;
    if (n == 1 || n == m->n_stacked) {
        dims[0] = n;
    } else {
        enum vkmoe_status status =
            view(scale, m->n_stacked > 1 || scale->n_dims == 3, MOE_SHAPE_MATRIX, dims);
        if (status != VKMOE_OK)
            return status;
        // One for each row, without a second dimension.
        if (scale->n_dims == 1 && dims[2] == m->rows)
            dims[1] = dims[2], dims[2] = 1;
    }
    m->grid_rows = dims[1];
    m->grid_columns = dims[2];
    m->scale_rows = share(m->rows, dims[1], block[0]);
    m->scale_columns = share(m->columns, dims[2], block[1]);
    bool same = dims[0] == m->n_stacked || n == 1;
    if (!same || m->scale_rows == 0 || m->scale_columns == 0)
        return moe_fail(VKMOE_E_DATA, "tensors '%s' and '%s': scales %s do not fit %s",
                        m->weight.name, scale->name,
                        moe_source_describe(scale, text, sizeof text),
                        moe_source_describe(&m->weight, weight, sizeof weight));
    return VKMOE_OK;
}

enum vkmoe_status moe_matrix_find(struct moe_source *source, const char *name,
                                  const struct moe_place *place, enum moe_shape shape,
                                  uint32_t n_stacked, bool scaled, const uint32_t block[2],
                                  struct moe_matrix *out)
{
    enum vkmoe_status status;
    uint64_t dims[3];
    struct moe_matrix m = {0};
    *out = m;
    TRY(find_tensors(source, name, scaled && shape == MOE_SHAPE_MATRIX, &m));
    if (!m.weight.name)
        return VKMOE_OK;
    TRY(settle_code(&m));
    TRY(view(&m.weight, place->stack == MOE_STACK_FIRST, shape, dims));
    m.rows = dims[1];
    m.columns = dims[2] * values_of(m.code);
    m.n_stacked = (uint32_t) moe_min(dims[0], UINT32_MAX);
    if (place->stack == MOE_STACK_ROWS) {
        m.n_stacked = n_stacked;
        if (n_stacked == 0 || m.rows % n_stacked != 0)
            return wrong_shape(&m.weight, "its rows are not as many for each expert");
        m.rows /= n_stacked;
    }
    if (m.n_stacked == 0 || m.rows == 0 || m.columns == 0)
        return wrong_shape(&m.weight, "it is empty");
    if (m.code == MOE_CODE_BLOCK && m.columns % m.weight.block_values != 0)
        return wrong_shape(&m.weight, "rows are not whole blocks");
    m.row_size = dims[2] / m.weight.block_values * m.weight.block_size;
    if (m.scale.name)
        TRY(settle_grid(&m, block));
    *out = m;

fail:
    return status;
}

void moe_matrix_size(const struct moe_matrix *matrix, const struct moe_place *place,
                     uint64_t *n_rows, uint64_t *n_columns)
{
    *n_rows = place->transposed ? matrix->columns : matrix->rows;
    *n_columns = place->transposed ? matrix->rows : matrix->columns;
    if (place->rows != MOE_ROWS_ALL)
        *n_rows /= 2;
}

// ---- types -----------------------------------------------------------------------------------

static bool type_of_block(const struct moe_matrix *m, bool transposed, enum vkmoe_dtype *out)
{
    const struct moe_block_format *format = m->weight.format;
    if (transposed || m->scale.name) {
        *out = m->columns % 32 == 0 && !transposed ? VKMOE_Q8_0 : VKMOE_BF16;
        return false;
    }
    *out = format ? format->to : m->weight.type;
    return !format || format->repack;
}

static bool type_of_e4m3(const struct moe_matrix *m, bool transposed, enum vkmoe_dtype *out)
{
    bool wide = !m->scale.name || m->scale_columns % 128 == 0 || m->grid_columns == 1;
    *out = wide && !transposed ? VKMOE_FP8 : VKMOE_BF16;
    return *out == VKMOE_FP8 || !m->scale.name || is_exponent(&m->scale);
}

static bool type_of_e2m1(const struct moe_matrix *m, bool transposed, enum vkmoe_dtype *out)
{
    bool power = is_exponent(&m->scale) && !m->global.name;
    if (power && m->scale_columns == 32 && m->columns % 32 == 0 && !transposed)
        *out = VKMOE_MXFP4;
    else
        *out = power || m->columns % 32 != 0 || transposed ? VKMOE_BF16 : VKMOE_Q8_0;
    return power;
}

bool moe_matrix_type(const struct moe_matrix *m, const struct moe_place *place,
                     enum vkmoe_dtype *out)
{
    bool plain = !m->scale.name;
    switch (m->code) {
    case MOE_CODE_F32:
    case MOE_CODE_F64:
        *out = VKMOE_F32;
        return m->code == MOE_CODE_F32;
    case MOE_CODE_F16:
        *out = VKMOE_F16;
        return plain;
    case MOE_CODE_BF16:
        *out = VKMOE_BF16;
        return plain;
    case MOE_CODE_E4M3:
        return type_of_e4m3(m, place->transposed, out);
    case MOE_CODE_E5M2:
        *out = plain ? VKMOE_F16 : VKMOE_BF16;
        return plain || is_exponent(&m->scale);
    case MOE_CODE_E2M1:
        return type_of_e2m1(m, place->transposed, out);
    case MOE_CODE_BLOCK:
        return type_of_block(m, place->transposed, out);
    case MOE_CODE_I8:
    case MOE_CODE_INT4:
        *out = m->columns % 32 == 0 && !place->transposed ? VKMOE_Q8_0 : VKMOE_BF16;
        return false;
    default:
        *out = VKMOE_F32;
        return false;
    }
}

static const char *code_words(const struct moe_matrix *m)
{
    switch (m->code) {
    case MOE_CODE_F32: return "f32";
    case MOE_CODE_F16: return "f16";
    case MOE_CODE_BF16: return "bf16";
    case MOE_CODE_F64: return "f64";
    case MOE_CODE_I8: return "int8";
    case MOE_CODE_E4M3: return "fp8 e4m3";
    case MOE_CODE_E5M2: return "fp8 e5m2";
    case MOE_CODE_E2M1: return m->scale.code == MOE_CODE_E4M3 ? "nvfp4" : "fp4 e2m1";
    case MOE_CODE_INT4: return "int4";
    default: return m->weight.type_name;
    }
}

const char *moe_matrix_words(const struct moe_matrix *m, const struct moe_place *place,
                             char text[96])
{
    static const char *const rows[] = {"", ", first half", ", second half", ", even rows",
                                       ", odd rows"};
    char scales[40] = "";
    if (m->scale.name)
        snprintf(scales, sizeof scales, ", scales %llux%llu",
                 (unsigned long long) moe_min(m->scale_rows, 99999),
                 (unsigned long long) moe_min(m->scale_columns, 99999));
    snprintf(text, 96, "%s%s%s%s%s", code_words(m), scales,
             place->stack == MOE_STACK_NONE ? "" : ", all experts in one",
             place->transposed ? ", transposed" : "", rows[place->rows]);
    return text;
}
