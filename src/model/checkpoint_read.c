// SPDX-License-Identifier: MIT
// Reading a matrix: stored rows to f32, and to rows of weight types, bit by bit where both write
// the same values.
#include "model/checkpoint_matrix.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"
#include "core/quant.h"

enum { FP8_BLOCK = 128, FP8_SIZE = 132, MXFP4_BLOCK = 32, MXFP4_SIZE = 17, MAX_EXPONENT = 255 };

enum { TILE_SIZE = 8 << 20 }; // of the columns of a transposed matrix that are read at a time

// ---- opening ---------------------------------------------------------------------------------

// The factor of all of the matrix.
static enum vkmoe_status read_global(struct moe_reader *reader)
{
    const struct moe_matrix *m = reader->matrix;
    float value = 1;
    uint64_t n = m->global.name ? m->global.size / 4 : 0;
    reader->factor = 1;
    if (!m->global.name)
        return VKMOE_OK;
    if (m->global.code != MOE_CODE_F32 || (n != 1 && n != m->n_stacked))
        return moe_fail(VKMOE_E_DATA, "tensor '%s': not an F32 for each matrix", m->global.name);
    enum vkmoe_status status = moe_source_read(reader->source, &m->global,
                                               n == 1 ? 0 : reader->stacked * 4, 4, &value);
    if (status != VKMOE_OK)
        return status;
    if (m->divide && value == 0)
        return moe_fail(VKMOE_E_DATA, "tensor '%s': 0, and weights are divided by it",
                        m->global.name);
    reader->factor = m->divide ? 1 / (double) value : (double) value;
    return VKMOE_OK;
}

enum vkmoe_status moe_reader_open(const struct moe_source *source, const struct moe_bound *bound,
                                  uint32_t i, struct moe_reader *out)
{
    enum vkmoe_status status;
    const vkmoe_host *host = source->host;
    const struct moe_matrix *m = &bound->matrices[bound->n_matrices == 1 ? 0 : i];
    struct moe_reader reader = {
        .source = source,
        .bound = bound,
        .matrix = m,
        .stacked = bound->n_matrices == 1 && m->n_stacked > 1 ? i : 0,
        .scales_row = UINT64_MAX,
        .tile_first = UINT64_MAX,
    };
    *out = (struct moe_reader){0};
    uint64_t width = moe_max(m->columns, bound->n_columns);
    TRY(read_global(&reader));
    TRY(moe_try_alloc(host, m->row_size, "row of a tensor", &reader.row));
    TRY(moe_try_alloc(host, 3 * width * sizeof(float), "row of values", &reader.values));
    TRY(moe_try_alloc(host, (m->grid_columns + 1) * sizeof(float), "row of scales",
                      &reader.scales));
    if (bound->place->transposed) {
        const uint64_t column_size = m->rows * sizeof(float);
        reader.tile_columns = moe_min(moe_max(TILE_SIZE / column_size, 1), m->columns);
        TRY(moe_try_alloc(host, (size_t) (reader.tile_columns * column_size), "columns",
                          &reader.tile));
    }
    *out = reader;
    return VKMOE_OK;

fail:
    out->source = source;
    out->row = reader.row, out->tile = reader.tile;
    out->values = reader.values, out->scales = reader.scales;
    moe_reader_close(out);
    return status;
}

void moe_reader_close(struct moe_reader *reader)
{
    if (!reader->source)
        return;
    const vkmoe_host *host = reader->source->host;
    moe_free(host, reader->tile);
    moe_free(host, reader->row);
    moe_free(host, reader->values);
    moe_free(host, reader->scales);
    *reader = (struct moe_reader){0};
}

// ---- codes -----------------------------------------------------------------------------------

static unsigned nibble(const unsigned char *bytes, uint64_t i)
{
    return bytes[i / 2] >> 4 * (i % 2) & 15;
}

static void decode_bytes(enum moe_code code, const unsigned char *src, uint64_t n, float *dst)
{
    for (uint64_t i = 0; i < n; i++) {
        switch (code) {
        case MOE_CODE_E4M3:
            dst[i] = moe_e4m3_to_f32(src[i]);
            break;
        case MOE_CODE_E5M2:
            dst[i] = moe_e5m2_to_f32(src[i]);
            break;
        case MOE_CODE_E8M0:
        case MOE_CODE_U8:
            dst[i] = moe_e8m0_to_f32(src[i]);
            break;
        case MOE_CODE_E2M1:
            dst[i] = moe_e2m1_to_f32((uint8_t) nibble(src, i));
            break;
        case MOE_CODE_INT4:
            dst[i] = (float) ((int) nibble(src, i) - 8);
            break;
        default:
            dst[i] = (float) (signed char) src[i];
            break;
        }
    }
}

static void decode_f64(const unsigned char *src, uint64_t n, float *dst)
{
    for (uint64_t i = 0; i < n; i++) {
        double value;
        memcpy(&value, src + 8 * i, sizeof value);
        dst[i] = (float) value;
    }
}

// n values whose bytes begin at src, without scales.
static void decode(const struct moe_source_tensor *tensor, enum moe_code code,
                   const unsigned char *src, uint64_t n, float *dst)
{
    switch (code) {
    case MOE_CODE_F32:
        moe_dtype_decode(VKMOE_F32, src, (size_t) n, dst);
        break;
    case MOE_CODE_F16:
        moe_dtype_decode(VKMOE_F16, src, (size_t) n, dst);
        break;
    case MOE_CODE_BF16:
        moe_dtype_decode(VKMOE_BF16, src, (size_t) n, dst);
        break;
    case MOE_CODE_F64:
        decode_f64(src, n, dst);
        break;
    case MOE_CODE_BLOCK:
        if (tensor->format)
            moe_block_format_decode(tensor->format, src, (size_t) n, dst);
        else
            moe_dtype_decode(tensor->type, src, (size_t) n, dst);
        break;
    default:
        decode_bytes(code, src, n, dst);
        break;
    }
}

// ---- scales ----------------------------------------------------------------------------------

// The scales of a stored row, into reader->scales.
static enum vkmoe_status read_scales(struct moe_reader *reader, uint64_t row)
{
    const struct moe_matrix *m = reader->matrix;
    const struct moe_source_tensor *scale = &m->scale;
    uint64_t line = row / m->scale_rows, n = m->grid_columns;
    if (line == reader->scales_row)
        return VKMOE_OK;
    uint64_t grids = scale->size / scale->block_size / (m->grid_rows * m->grid_columns);
    uint64_t at = (grids > 1 ? reader->stacked * m->grid_rows : 0) + line;
    // The codes of a row are as many bytes at most as there are f32 to come.
    unsigned char *bytes =
        (unsigned char *) reader->scales + n * (sizeof(float) - scale->block_size);
    enum vkmoe_status status =
        moe_source_read(reader->source, scale, at * n * scale->block_size,
                        (size_t) (n * scale->block_size), bytes);
    if (status != VKMOE_OK)
        return status;
    // From the first on: a value is never written over codes that are still to be read.
    for (uint64_t i = 0; i < n; i++) {
        unsigned char code[8];
        memcpy(code, bytes + i * scale->block_size, scale->block_size);
        decode(scale, scale->code, code, 1, &reader->scales[i]);
    }
    reader->scales_row = line;
    return VKMOE_OK;
}

static enum vkmoe_status apply_scales(struct moe_reader *reader, uint64_t row, float *values)
{
    const struct moe_matrix *m = reader->matrix;
    if (!m->scale.name)
        return VKMOE_OK;
    enum vkmoe_status status = read_scales(reader, row);
    if (status != VKMOE_OK)
        return status;
    for (uint64_t i = 0; i < m->columns; i++) {
        float scale = reader->scales[i / m->scale_columns];
        values[i] = reader->factor == 1 ? values[i] * scale
                                        : (float) ((double) values[i] * (double) scale *
                                                   reader->factor);
    }
    return VKMOE_OK;
}

// ---- rows ------------------------------------------------------------------------------------

// Where row i of the part is among the rows of [out, in].
static uint64_t stored_index(const struct moe_bound *bound, uint32_t i)
{
    switch (bound->place->rows) {
    case MOE_ROWS_SECOND:
        return (uint64_t) bound->n_rows + i;
    case MOE_ROWS_EVEN:
        return 2 * (uint64_t) i;
    case MOE_ROWS_ODD:
        return 2 * (uint64_t) i + 1;
    default:
        return i;
    }
}

static enum vkmoe_status read_stored(struct moe_reader *reader, uint64_t row)
{
    const struct moe_matrix *m = reader->matrix;
    return moe_source_read(reader->source, &m->weight,
                           (reader->stacked * m->rows + row) * m->row_size, (size_t) m->row_size,
                           reader->row);
}

// n values of a stored row from `first` on. They alone are read where each has bytes of its own.
static enum vkmoe_status read_part(struct moe_reader *reader, uint64_t row, uint64_t first,
                                   uint64_t n, const float **values)
{
    const struct moe_matrix *m = reader->matrix;
    const uint64_t size = m->weight.block_size;
    enum vkmoe_status status = VKMOE_OK;
    if (!m->scale.name && m->code <= MOE_CODE_BF16) {
        *values = reader->values;
        TRY(moe_source_read(reader->source, &m->weight,
                            (reader->stacked * m->rows + row) * m->row_size + first * size,
                            (size_t) (n * size), reader->row));
        decode(&m->weight, m->code, reader->row, n, reader->values);
    } else {
        *values = reader->values + first;
        TRY(read_stored(reader, row));
        decode(&m->weight, m->code, reader->row, m->columns, reader->values);
        TRY(apply_scales(reader, row, reader->values));
    }

fail:
    return status;
}

// Stored columns `first` and on, turned: reader->tile has one after the other.
static enum vkmoe_status read_tile(struct moe_reader *reader, uint64_t first)
{
    const struct moe_matrix *m = reader->matrix;
    uint64_t n = moe_min(reader->tile_columns, m->columns - first);
    reader->tile_first = UINT64_MAX;
    for (uint64_t k = 0; k < m->rows; k++) {
        const float *values;
        enum vkmoe_status status = read_part(reader, k, first, n, &values);
        if (status != VKMOE_OK)
            return status;
        for (uint64_t i = 0; i < n; i++)
            reader->tile[i * m->rows + k] = values[i];
    }
    reader->tile_first = first;
    return VKMOE_OK;
}

// One value of each stored row.
static enum vkmoe_status read_column(struct moe_reader *reader, uint64_t column, float *dst)
{
    const uint64_t rows = reader->matrix->rows;
    if (column - reader->tile_first >= reader->tile_columns ||
        reader->tile_first == UINT64_MAX) {
        enum vkmoe_status status = read_tile(reader, column);
        if (status != VKMOE_OK)
            return status;
    }
    memcpy(dst, reader->tile + (column - reader->tile_first) * rows, (size_t) rows * sizeof *dst);
    return VKMOE_OK;
}

enum vkmoe_status moe_reader_row(struct moe_reader *reader, uint32_t row, float *dst)
{
    const struct moe_matrix *m = reader->matrix;
    uint64_t index = stored_index(reader->bound, row);
    if (reader->bound->place->transposed)
        return read_column(reader, index, dst);
    enum vkmoe_status status = read_stored(reader, index);
    if (status != VKMOE_OK)
        return status;
    decode(&m->weight, m->code, reader->row, m->columns, dst);
    return apply_scales(reader, index, dst);
}

// ---- conversion ------------------------------------------------------------------------------

// Are stored rows those of the type, byte for byte?
static bool is_same(const struct moe_reader *reader, enum vkmoe_dtype type)
{
    static const enum moe_code codes[] = {MOE_CODE_F32, MOE_CODE_F16, MOE_CODE_BF16};
    const struct moe_matrix *m = reader->matrix;
    if (reader->bound->place->transposed || m->scale.name)
        return false;
    return (type <= VKMOE_BF16 && m->code == codes[type]) ||
           (m->code == MOE_CODE_BLOCK && !m->weight.format && m->weight.type == type);
}

static bool is_repacked(const struct moe_reader *reader, enum vkmoe_dtype type)
{
    const struct moe_matrix *m = reader->matrix;
    const struct moe_block_format *format = m->weight.format;
    return !reader->bound->place->transposed && m->code == MOE_CODE_BLOCK && !m->scale.name &&
           format && format->repack && format->to == type;
}

// Codes of E4M3 whose scales are as wide as blocks, or wider.
static bool is_fp8(const struct moe_reader *reader, enum vkmoe_dtype type)
{
    const struct moe_matrix *m = reader->matrix;
    enum vkmoe_dtype natural;
    return type == VKMOE_FP8 && m->code == MOE_CODE_E4M3 && !m->global.name &&
           moe_matrix_type(m, reader->bound->place, &natural) && natural == VKMOE_FP8;
}

static bool is_mxfp4(const struct moe_reader *reader, enum vkmoe_dtype type)
{
    enum vkmoe_dtype natural;
    return type == VKMOE_MXFP4 && reader->matrix->code == MOE_CODE_E2M1 &&
           moe_matrix_type(reader->matrix, reader->bound->place, &natural) &&
           natural == VKMOE_MXFP4;
}

static enum vkmoe_status to_fp8(struct moe_reader *reader, uint64_t row, unsigned char *dst)
{
    const struct moe_matrix *m = reader->matrix;
    enum vkmoe_status status = read_stored(reader, row);
    if (status == VKMOE_OK && m->scale.name)
        status = read_scales(reader, row);
    if (status != VKMOE_OK)
        return status;
    for (uint64_t at = 0; at < m->columns; at += FP8_BLOCK, dst += FP8_SIZE) {
        float scale = m->scale.name ? reader->scales[at / m->scale_columns] : 1;
        uint64_t n = moe_min(FP8_BLOCK, m->columns - at);
        memcpy(dst, &scale, sizeof scale);
        memset(dst + sizeof scale, 0, FP8_BLOCK);
        memcpy(dst + sizeof scale, reader->row + at, (size_t) n);
    }
    return VKMOE_OK;
}

// Pairs of neighbours become pairs of value j and j + 16.
static enum vkmoe_status to_mxfp4(struct moe_reader *reader, uint64_t row, unsigned char *dst)
{
    const struct moe_matrix *m = reader->matrix;
    uint64_t n = m->columns / MXFP4_BLOCK;
    unsigned char *exponents = (unsigned char *) reader->values;
    enum vkmoe_status status = read_stored(reader, row);
    if (status == VKMOE_OK)
        status = moe_source_read(reader->source, &m->scale,
                                 (reader->stacked * m->grid_rows + row / m->scale_rows) * n,
                                 (size_t) n, exponents);
    if (status != VKMOE_OK)
        return status;
    for (uint64_t b = 0; b < n; b++, dst += MXFP4_SIZE) {
        const unsigned char *codes = reader->row + b * MXFP4_BLOCK / 2;
        if (exponents[b] == MAX_EXPONENT)
            return moe_fail(VKMOE_E_DATA, "tensor '%s': scale %llu of row %llu is NaN",
                            m->scale.name, (unsigned long long) b, (unsigned long long) row);
        dst[0] = exponents[b];
        for (uint64_t j = 0; j < MXFP4_BLOCK / 2; j++)
            dst[1 + j] = (unsigned char) (nibble(codes, j) | nibble(codes, j + 16) << 4);
    }
    return VKMOE_OK;
}

static void add_error(const float *a, const float *b, uint32_t n, struct moe_error *error)
{
    for (uint32_t i = 0; i < n; i++) {
        double d = (double) a[i] - (double) b[i];
        error->difference += d * d;
        error->total += (double) a[i] * (double) a[i];
    }
}

static enum vkmoe_status to_closest(struct moe_reader *reader, uint32_t row, enum vkmoe_dtype type,
                                    void *dst, struct moe_error *error)
{
    uint32_t n = reader->bound->n_columns;
    uint64_t width = moe_max(reader->matrix->columns, n);
    float *values = reader->values + width, *back = reader->values + 2 * width;
    enum vkmoe_status status = moe_reader_row(reader, row, values);
    if (status != VKMOE_OK)
        return status;
    moe_dtype_encode(type, values, n, dst);
    moe_dtype_decode(type, dst, n, back);
    add_error(values, back, n, error);
    return VKMOE_OK;
}

enum vkmoe_status moe_reader_convert_rows(struct moe_reader *reader, uint32_t first, uint32_t n,
                                          enum vkmoe_dtype type, void *dst,
                                          struct moe_error *error)
{
    const struct moe_bound *bound = reader->bound;
    const struct moe_matrix *m = reader->matrix;
    size_t row_size = (size_t) moe_dtype_size(type, bound->n_columns);
    enum vkmoe_status status = VKMOE_OK;
    bool together = bound->place->rows < MOE_ROWS_EVEN;
    // All at once where the rows of the file are those that are wanted.
    if (together && is_same(reader, type))
        return moe_source_read(reader->source, &m->weight,
                               (reader->stacked * m->rows + stored_index(bound, first)) *
                                   m->row_size,
                               (size_t) (n * m->row_size), dst);
    for (uint32_t r = 0; status == VKMOE_OK && r < n; r++)
        status = moe_reader_convert(reader, first + r, type, (char *) dst + r * row_size, error);
    return status;
}

enum vkmoe_status moe_reader_convert(struct moe_reader *reader, uint32_t row, enum vkmoe_dtype type,
                                     void *dst, struct moe_error *error)
{
    const struct moe_matrix *m = reader->matrix;
    uint64_t index = stored_index(reader->bound, row);
    if (is_same(reader, type))
        return moe_source_read(reader->source, &m->weight,
                               (reader->stacked * m->rows + index) * m->row_size,
                               (size_t) m->row_size, dst);
    if (is_repacked(reader, type)) {
        enum vkmoe_status status = read_stored(reader, index);
        if (status == VKMOE_OK)
            moe_block_format_convert(m->weight.format, reader->row, (size_t) m->columns, dst);
        return status;
    }
    if (is_fp8(reader, type))
        return to_fp8(reader, index, dst);
    if (is_mxfp4(reader, type))
        return to_mxfp4(reader, index, dst);
    return to_closest(reader, row, type, dst, error);
}
