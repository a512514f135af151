// SPDX-License-Identifier: MIT
// A level's table against the scalar one, on random numbers. Products may differ by rounding: both
// are within gamma_k sum |x w| of the exact sum, gamma_k = k u / (1 - k u) and u = 2^-24, hence
// within twice that of each other. With operands of int8 a product of x is rounded in 5 operations
// and as often as there are blocks, as scale * code and as minimum apart: both are below 2, as the
// weights are of (-1, 1). All else has the same bits.
#include "cpu/tune.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"
#include "cpu/panel.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_ROWS = 49, MAX_K = 515, N_HALVES = 1003, BLOCK = 32 };

struct selftest {
    _Alignas(64) float panel[MAX_K * CPU_PANEL]; // of any type
    _Alignas(64) float out[MAX_ROWS * CPU_PANEL], want[MAX_ROWS * CPU_PANEL];
    _Alignas(64) float turned[MAX_K * CPU_PANEL], want_turned[MAX_K * CPU_PANEL];
    struct cpu_int8_block blocks[MAX_ROWS][MAX_K / BLOCK], got_blocks[MAX_K / BLOCK];
    uint16_t halves[MAX_ROWS][MAX_K + 1]; // operands of bf16: an even number
    float x[MAX_ROWS][MAX_K], rounded[MAX_ROWS][MAX_K], decoded[MAX_K * CPU_PANEL];
    char stored[CPU_PANEL][MAX_K * sizeof(float)];
    const float *rows[MAX_ROWS], *rounded_rows[2][MAX_ROWS];
    const void *block_rows[MAX_ROWS], *half_rows[2][MAX_ROWS]; // evenly apart; neighbours swapped
    float *out_rows[MAX_ROWS], *want_rows[MAX_ROWS];
    uint16_t encoded[N_HALVES], want_encoded[N_HALVES];
    float values[N_HALVES], want_values[N_HALVES];
    struct cpu_kernels scalar;
    const struct cpu_kernels *kernels;
};

// splitmix64, to (-1, 1)
static float random_value(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (float) (int32_t) ((z ^ z >> 31) >> 32) * 0x1p-31f;
}

static void fill(struct selftest *t)
{
    uint64_t state = 1;
    for (uint32_t r = 0; r < MAX_ROWS; r++) {
        t->rows[r] = t->x[r];
        t->out_rows[r] = t->out + r * CPU_PANEL;
        t->want_rows[r] = t->want + r * CPU_PANEL;
        const uint32_t swapped = r < MAX_ROWS - 1 ? r ^ 1 : r;
        t->rounded_rows[0][r] = t->rounded[r];
        t->rounded_rows[1][r] = t->rounded[swapped];
        t->block_rows[r] = t->blocks[r];
        t->half_rows[0][r] = t->halves[r];
        t->half_rows[1][r] = t->halves[swapped];
        for (uint32_t i = 0; i < MAX_K; i++)
            t->x[r][i] = random_value(&state);
        t->scalar.quantise(t->x[r], MAX_K / BLOCK * BLOCK, t->blocks[r]);
        t->scalar.encode[VKMOE_BF16](t->x[r], t->halves[r], MAX_K);
    }
    for (uint32_t i = 0; i < MAX_K * CPU_PANEL; i++)
        t->decoded[i] = random_value(&state);
    for (uint32_t i = 0; i < N_HALVES; i++)
        t->values[i] = random_value(&state);
}

static double gamma_of(uint32_t n)
{
    return n * 0x1p-24 / (1 - n * 0x1p-24);
}

// Are n rows of `out` as near to `want` as k steps of x times `decoded` allow?
static bool products_agree(const struct selftest *t, const float *const *x, uint32_t n_rows,
                           uint32_t k)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t c = 0; c < CPU_PANEL; c++) {
            const uint32_t at = r * CPU_PANEL + c;
            double sum = 0;
            for (uint32_t i = 0; i < k; i++)
                sum += fabs((double) x[r][i] * (double) t->decoded[i * CPU_PANEL + c]);
            if (!(fabs((double) t->out[at] - (double) t->want[at]) <= 2 * gamma_of(k) * sum))
                return false;
        }
    }
    return true;
}

// The panel of a type; `decoded` becomes what it holds.
static void make_panel(struct selftest *t, enum vkmoe_dtype type, uint32_t k)
{
    const char *stored[CPU_PANEL];
    float row[MAX_K];
    for (uint32_t c = 0; c < CPU_PANEL; c++) {
        for (uint32_t i = 0; i < k; i++)
            row[i] = t->decoded[i * CPU_PANEL + c];
        moe_dtype_encode(type, row, k, t->stored[c]);
        moe_dtype_decode(type, t->stored[c], k, row);
        for (uint32_t i = 0; i < k; i++)
            t->decoded[i * CPU_PANEL + c] = row[i];
        stored[c] = t->stored[c];
    }
    memset(t->panel, 0, sizeof t->panel);
    moe_cpu_pack_panel(type, stored, CPU_PANEL, k, (char *) t->panel);
}

static bool panel_ok(struct selftest *t, enum vkmoe_dtype type)
{
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 12, 24, MAX_ROWS}, ks[] = {1, 64, MAX_K};
    const uint32_t block = type == VKMOE_FP8 ? 1 : moe_dtype_info(type)->block_elements;
    const void *const *x = (const void *const *) t->rows;
    make_panel(t, type, MAX_K / block * block);
    for (uint32_t i = 0; i < MOE_COUNT(rows); i++) {
        for (uint32_t j = 0; j < MOE_COUNT(ks); j++) {
            const uint32_t k = (uint32_t) moe_max(ks[j] / block, 1) * block;
            memset(t->out, 0xff, sizeof t->out);
            t->kernels->panel[CPU_OPERAND_F32][type](x, rows[i], t->panel, k, t->out);
            t->scalar.panel[CPU_OPERAND_F32][type](x, rows[i], t->panel, k, t->want);
            if (!products_agree(t, t->rows, rows[i], k))
                return false;
        }
    }
    return true;
}

// Of the panel that panel_ok made, and what lies some blocks behind its begin: the bits of each
// alone.
static bool pair_ok(struct selftest *t, enum cpu_operand operand, enum vkmoe_dtype type)
{
    enum { HALF = MAX_ROWS / 2 };
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 8, 9, 12, 13, HALF};
    const uint32_t block = moe_dtype_info(type)->block_elements, apart = block == 1 ? 16 : block;
    const uint32_t ks[] = {1, 64, MAX_K - apart};
    const void *const *x = operand == CPU_OPERAND_INT8   ? t->block_rows
                           : operand == CPU_OPERAND_BF16 ? t->half_rows[0]
                                                         : (const void *const *) t->rows;
    const char *const panels[] = {(const char *) t->panel, (const char *) t->panel +
                                                               moe_cpu_panel_size(type, apart)};
    float *const out[] = {t->out, t->out + HALF * CPU_PANEL};
    for (uint32_t i = 0; i < MOE_COUNT(ks) * MOE_COUNT(rows); i++) {
        const uint32_t n = rows[i % MOE_COUNT(rows)];
        const uint32_t k = (uint32_t) moe_max(ks[i / MOE_COUNT(rows)] / block, 1) * block;
        const size_t size = n * CPU_PANEL * sizeof *t->want;
        memset(t->out, 0xff, sizeof t->out);
        t->kernels->pair[operand][type](x, n, panels, k, out);
        for (uint32_t p = 0; p < 2; p++) {
            t->kernels->panel[operand][type](x, n, panels[p], k, t->want);
            if (memcmp(out[p], t->want, size) != 0)
                return false;
        }
    }
    return true;
}

// Of the panel that panel_ok made.
static bool int8_panel_ok(struct selftest *t, enum vkmoe_dtype type)
{
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 12, 24, MAX_ROWS}, ks[] = {BLOCK, 96, 512};
    const uint32_t values = moe_dtype_info(type)->block_elements;
    for (uint32_t i = 0; i < MOE_COUNT(rows) * MOE_COUNT(ks); i++) {
        const uint32_t n = rows[i / MOE_COUNT(ks)];
        const uint32_t k = (uint32_t) moe_align_up(ks[i % MOE_COUNT(ks)], values);
        memset(t->out, 0xff, sizeof t->out);
        t->kernels->panel[CPU_OPERAND_INT8][type](t->block_rows, n, t->panel, k, t->out);
        t->scalar.panel[CPU_OPERAND_INT8][type](t->block_rows, n, t->panel, k, t->want);
        for (uint32_t at = 0; at < n * CPU_PANEL; at++) {
            double sum = 0;
            for (uint32_t j = 0; j < k; j++)
                sum += 4 * fabs((double) t->x[at / CPU_PANEL][j]);
            const double bound = 2 * gamma_of(k / BLOCK + 5) * sum;
            if (!(fabs((double) t->out[at] - (double) t->want[at]) <= bound))
                return false;
        }
    }
    return true;
}

// The scalar table has none of these, but the product of the same numbers.
static bool bf16_panel_ok(struct selftest *t)
{
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 12, 24, MAX_ROWS}, ks[] = {MAX_K, 64, 1};
    for (uint32_t r = 0; r < MAX_ROWS; r++)
        t->scalar.decode[VKMOE_BF16](t->halves[r], t->rounded[r], MAX_K);
    for (uint32_t j = 0; j < MOE_COUNT(ks); j++) {
        make_panel(t, VKMOE_BF16, ks[j]);
        for (uint32_t r = 0; r < MAX_ROWS; r++)
            t->halves[r][ks[j]] = 0;
        for (uint32_t i = 0; i < 2 * MOE_COUNT(rows); i++) {
            const uint32_t n = rows[i / 2];
            const float *const *rounded = t->rounded_rows[i % 2];
            memset(t->out, 0xff, sizeof t->out);
            t->kernels->panel[CPU_OPERAND_BF16][VKMOE_BF16](t->half_rows[i % 2], n, t->panel, ks[j],
                                                            t->out);
            t->scalar.panel[CPU_OPERAND_F32][VKMOE_BF16]((const void *const *) rounded, n, t->panel,
                                                         ks[j], t->want);
            if (!products_agree(t, rounded, n, ks[j]))
                return false;
        }
    }
    return true;
}

static bool quantise_ok(struct selftest *t)
{
    for (uint32_t r = 0; r < MAX_ROWS; r++) {
        memset(t->got_blocks, 0xff, sizeof t->got_blocks);
        t->kernels->quantise(t->x[r], MAX_K / BLOCK * BLOCK, t->got_blocks);
        if (memcmp(t->got_blocks, t->blocks[r], sizeof t->got_blocks) != 0)
            return false;
    }
    return true;
}

// A chain in two parts.
static bool chain_ok(struct selftest *t)
{
    const uint32_t half = MAX_K / 2;
    memcpy(t->panel, t->decoded, sizeof t->panel);
    memset(t->out, 0xff, sizeof t->out);
    for (uint32_t part = 0; part < 2; part++) {
        const float *panel = t->panel + (size_t) part * half * CPU_PANEL;
        const uint32_t k = part ? MAX_K - half : half;
        t->kernels->chain(t->rows, MAX_ROWS, part * half, panel, k, part > 0, t->out_rows);
        t->scalar.chain(t->rows, MAX_ROWS, part * half, panel, k, part > 0, t->want_rows);
    }
    return products_agree(t, t->rows, MAX_ROWS, MAX_K);
}

static bool transpose_ok(struct selftest *t)
{
    for (uint32_t n_rows = 1; n_rows <= CPU_PANEL; n_rows++) {
        memset(t->turned, 0xff, sizeof t->turned);
        memset(t->want_turned, 0xff, sizeof t->want_turned);
        t->kernels->transpose(t->rows, n_rows, 1, MAX_K - 1, t->turned, CPU_PANEL);
        t->scalar.transpose(t->rows, n_rows, 1, MAX_K - 1, t->want_turned, CPU_PANEL);
        if (memcmp(t->turned, t->want_turned, sizeof t->turned) != 0)
            return false;
    }
    return true;
}

static bool halves_ok(struct selftest *t, enum vkmoe_dtype type)
{
    float decoded[N_HALVES];
    t->kernels->encode[type](t->values, t->encoded, N_HALVES);
    t->scalar.encode[type](t->values, t->want_encoded, N_HALVES);
    t->kernels->decode[type](t->want_encoded, decoded, N_HALVES);
    t->scalar.decode[type](t->want_encoded, t->want_values, N_HALVES);
    return memcmp(t->encoded, t->want_encoded, sizeof t->encoded) == 0 &&
           memcmp(decoded, t->want_values, sizeof decoded) == 0;
}

// The first kernel that is wrong, "" if all are right.
static void find_wrong(struct selftest *t, char *name, size_t size)
{
    for (uint32_t type = 0; type < CPU_N_WEIGHTS; type++) {
        const char *of = vkmoe_dtype_name((enum vkmoe_dtype) type);
        bool ok = panel_ok(t, (enum vkmoe_dtype) type);
        if (ok && moe_dtype_is_float((enum vkmoe_dtype) type) && type != VKMOE_F32)
            ok = halves_ok(t, (enum vkmoe_dtype) type);
        for (uint32_t operand = 0; ok && operand < CPU_N_OPERANDS; operand++)
            if (t->kernels->pair[operand][type])
                ok = pair_ok(t, (enum cpu_operand) operand, (enum vkmoe_dtype) type);
        if (ok && t->kernels->panel[CPU_OPERAND_INT8][type])
            ok = int8_panel_ok(t, (enum vkmoe_dtype) type);
        if (ok && type == VKMOE_BF16 && t->kernels->panel[CPU_OPERAND_BF16][type])
            ok = bf16_panel_ok(t);
        if (!ok) {
            snprintf(name, size, "products or numbers of %s", of);
            return;
        }
    }
    if (!chain_ok(t))
        snprintf(name, size, "products of networks");
    else if (!transpose_ok(t))
        snprintf(name, size, "transposed matrices");
    else if (!quantise_ok(t))
        snprintf(name, size, "codes of int8");
}

enum vkmoe_status moe_cpu_selftest(const vkmoe_host *host, const struct cpu_kernels *kernels,
                                   bool *ok, char *reason, size_t size)
{
    enum vkmoe_status status;
    struct selftest *t = NULL;
    char name[64] = "";
    TRY(moe_try_alloc(host, sizeof *t, "self-test of kernels", &t));
    t->kernels = kernels;
    moe_cpu_kernels_init(&t->scalar, CPU_ISA_SCALAR);
    fill(t);
    find_wrong(t, name, sizeof name);
    *ok = name[0] == '\0';
    if (!*ok)
        snprintf(reason, size, "%s differ from what scalar code computes", name);
fail:
    moe_free(host, t);
    return status;
}
