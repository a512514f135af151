// SPDX-License-Identifier: MIT
// The self-test of a level finds any kernel that is wrong in one number, and none that is right.
#include "check.h"

#include "base/host.h"
#include "cpu/tune.h"

static struct cpu_kernels right; // the table that wrong kernels call

// Each spoils the last number by what rounding cannot.
static void spoil(float *value)
{
    *value += 1e-3f;
}

static void wrong_f32(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                      float *out)
{
    right.panel[CPU_OPERAND_F32][VKMOE_F32](x, n_rows, panel, k, out);
    spoil(&out[n_rows * CPU_PANEL - 1]);
}

// The first panel twice.
static void wrong_pair(const void *const *x, uint32_t n_rows, const char *const *panels, uint32_t k,
                       float *const *out)
{
    const char *const same[] = {panels[0], panels[0]};
    right.pair[CPU_OPERAND_F32][VKMOE_F32](x, n_rows, same, k, out);
}

// The second one's last row of five and more.
static void wrong_pair_q4_0(const void *const *x, uint32_t n_rows, const char *const *panels,
                            uint32_t k, float *const *out)
{
    right.pair[CPU_OPERAND_INT8][VKMOE_Q4_0](x, n_rows, panels, k, out);
    if (n_rows > 4)
        spoil(&out[1][n_rows * CPU_PANEL - 1]);
}

// Of two rows alone.
static void wrong_pair_bf16(const void *const *x, uint32_t n_rows, const char *const *panels,
                            uint32_t k, float *const *out)
{
    right.pair[CPU_OPERAND_BF16][VKMOE_BF16](x, n_rows, panels, k, out);
    if (n_rows == 2)
        spoil(&out[0][CPU_PANEL]);
}

static void wrong_f16(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                      float *out)
{
    right.panel[CPU_OPERAND_F32][VKMOE_F16](x, n_rows, panel, k, out);
    if (n_rows == 5)
        spoil(&out[n_rows * CPU_PANEL - 1]);
}

// A lost step, at the end of a long row alone.
static void wrong_bf16(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                       float *out)
{
    right.panel[CPU_OPERAND_F32][VKMOE_BF16](x, n_rows, panel, k > 256 ? k - 1 : k, out);
}

// Its rows are 256 steps or more, which may differ by more than the others.
static void wrong_q4_K(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                       float *out)
{
    right.panel[CPU_OPERAND_F32][VKMOE_Q4_K](x, n_rows, panel, k, out);
    out[n_rows * CPU_PANEL - 1] += 0.125f;
}

// Nothing of a last block that is not whole.
static void wrong_fp8(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                      float *out)
{
    right.panel[CPU_OPERAND_F32][VKMOE_FP8](x, n_rows, panel, k > 128 ? k / 128 * 128 : k, out);
}

static void wrong_q6_K_int8(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                            float *out)
{
    right.panel[CPU_OPERAND_INT8][VKMOE_Q6_K](x, n_rows, panel, k, out);
    if (n_rows == 7)
        out[n_rows * CPU_PANEL - 1] += 0.01f;
}

static void wrong_q8_0_int8(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                            float *out)
{
    right.panel[CPU_OPERAND_INT8][VKMOE_Q8_0](x, n_rows, panel, k > 96 ? k - 32 : k, out);
}

static void wrong_bf16_bf16(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                            float *out)
{
    right.panel[CPU_OPERAND_BF16][VKMOE_BF16](x, n_rows, panel, k, out);
    if (k == 1)
        spoil(&out[0]);
}

static void wrong_quantise(const float *values, uint32_t n, struct cpu_int8_block *out)
{
    right.quantise(values, n, out);
    out[n / 32 - 1].codes[31] ^= 1;
}

static void wrong_chain(const float *const *x, uint32_t n_rows, uint32_t first, const float *panel,
                        uint32_t k, bool more, float *const *out)
{
    (void) more;
    right.chain(x, n_rows, first, panel, k, false, out);
}

static void wrong_transpose(const float *const *rows, uint32_t n_rows, uint32_t first, uint32_t n,
                            float *out, uint32_t stride)
{
    right.transpose(rows, n_rows, first, n, out, stride);
    if (n_rows == CPU_PANEL - 1)
        out[CPU_PANEL - 1] = 1;
}

static void wrong_decode(const uint16_t *stored, float *out, size_t n)
{
    right.decode[VKMOE_F16](stored, out, n);
    spoil(&out[n - 1]);
}

static void wrong_encode(const float *values, uint16_t *out, size_t n)
{
    right.encode[VKMOE_BF16](values, out, n);
    out[n - 1] ^= 1;
}

static void expect(const struct cpu_kernels *kernels, bool want, const char *part)
{
    char reason[192] = "";
    bool ok = !want;
    check_ok(moe_cpu_selftest(moe_host_default(), kernels, &ok, reason, sizeof reason));
    if (ok != want || !strstr(reason, part))
        fail_msg("%d, \"%s\": not %d, \"%s\"", ok, reason, want, part);
}

static void test_wrong_kernels_are_found(void **state)
{
    (void) state;
    const struct cpu_id id = moe_cpu_id();
    const uint32_t levels = moe_cpu_levels(moe_cpu_features(&id));
    for (uint32_t isa = 0; isa < CPU_N_ISAS; isa++) {
        struct cpu_kernels k;
        if (!(levels & 1u << isa) || !moe_cpu_allow((enum cpu_isa) isa))
            continue;
        moe_cpu_kernels_init(&right, (enum cpu_isa) isa);
        expect(&right, true, "");
        k = right, k.panel[CPU_OPERAND_F32][VKMOE_F32] = wrong_f32;
        expect(&k, false, "f32");
        k = right, k.panel[CPU_OPERAND_F32][VKMOE_F16] = wrong_f16;
        expect(&k, false, " f16");
        k = right, k.panel[CPU_OPERAND_F32][VKMOE_BF16] = wrong_bf16;
        expect(&k, false, "bf16");
        k = right, k.panel[CPU_OPERAND_F32][VKMOE_Q4_K] = wrong_q4_K;
        expect(&k, false, "q4_K");
        k = right, k.panel[CPU_OPERAND_F32][VKMOE_FP8] = wrong_fp8;
        expect(&k, false, "fp8");
        if (right.pair[CPU_OPERAND_F32][VKMOE_F32]) {
            k = right, k.pair[CPU_OPERAND_F32][VKMOE_F32] = wrong_pair;
            expect(&k, false, "f32");
        }
        if (right.pair[CPU_OPERAND_INT8][VKMOE_Q4_0]) {
            k = right, k.pair[CPU_OPERAND_INT8][VKMOE_Q4_0] = wrong_pair_q4_0;
            expect(&k, false, "q4_0");
        }
        k = right, k.decode[VKMOE_F16] = wrong_decode, expect(&k, false, " f16");
        k = right, k.encode[VKMOE_BF16] = wrong_encode, expect(&k, false, "bf16");
        k = right, k.panel[CPU_OPERAND_INT8][VKMOE_Q6_K] = wrong_q6_K_int8;
        expect(&k, false, "q6_K");
        k = right, k.panel[CPU_OPERAND_INT8][VKMOE_Q8_0] = wrong_q8_0_int8;
        expect(&k, false, "q8_0");
        if (right.panel[CPU_OPERAND_BF16][VKMOE_BF16]) {
            k = right, k.panel[CPU_OPERAND_BF16][VKMOE_BF16] = wrong_bf16_bf16;
            expect(&k, false, "bf16");
            k = right, k.pair[CPU_OPERAND_BF16][VKMOE_BF16] = wrong_pair_bf16;
            expect(&k, false, "bf16");
        }
        k = right, k.quantise = wrong_quantise, expect(&k, false, "int8");
        k = right, k.chain = wrong_chain, expect(&k, false, "networks");
        k = right, k.transpose = wrong_transpose, expect(&k, false, "transposed");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_wrong_kernels_are_found)};
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
