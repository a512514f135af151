// SPDX-License-Identifier: MIT
// Operands: what weights of each type are multiplied with at a precision, and rows of values as
// they are stored for that. The values are f32 before; a row is converted once and then read by
// every panel.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "base/host.h"
#include "core/dtype.h"

#include <string.h>

enum { INT8_VALUES = 32 }; // of a struct cpu_int8_block

enum cpu_operand moe_cpu_operand(const struct cpu_kernels *kernels, enum vkmoe_precision precision,
                                 enum vkmoe_dtype type)
{
    switch (precision) {
    case VKMOE_PRECISION_EXACT:
        return CPU_OPERAND_F32;
    case VKMOE_PRECISION_HALF: // of f16, f32 operands are as fast
        return kernels->panel[CPU_OPERAND_BF16][type] ? CPU_OPERAND_BF16 : CPU_OPERAND_F32;
    case VKMOE_PRECISION_INT8:
        return kernels->panel[CPU_OPERAND_INT8][type] ? CPU_OPERAND_INT8 : CPU_OPERAND_F32;
    }
    return CPU_OPERAND_F32;
}

size_t moe_cpu_operand_size(enum cpu_operand operand, size_t n)
{
    switch (operand) {
    case CPU_OPERAND_F32:
        return n * sizeof(float);
    case CPU_OPERAND_BF16:
        return (n + n % 2) * sizeof(uint16_t);
    case CPU_OPERAND_INT8:
        return moe_div_up(n, INT8_VALUES) * sizeof(struct cpu_int8_block);
    case CPU_N_OPERANDS:
        break;
    }
    return 0;
}

// Rows that are multiples of this apart fall into one or two sets of a first-level cache, which
// then holds less than the rows that a kernel reads at once.
enum { BAD_STRIDE = 2048 };

size_t moe_cpu_operand_stride(enum cpu_operand operand, size_t n)
{
    const size_t stride = moe_align_up(moe_cpu_operand_size(operand, n), MOE_HOST_ALIGN);
    return stride % BAD_STRIDE == 0 ? stride + MOE_HOST_ALIGN : stride;
}

bool moe_cpu_copies_x(uint32_t n_tokens, size_t stride)
{
    enum { MIN_TOKENS = 16 }; // fewer than that are read too few times
    return n_tokens >= MIN_TOKENS && stride % BAD_STRIDE == 0;
}

void moe_cpu_store_operand(const struct cpu_kernels *kernels, enum cpu_operand operand,
                           const float *values, uint32_t n, char *out)
{
    switch (operand) {
    case CPU_OPERAND_F32:
        memcpy(out, values, n * sizeof *values);
        return;
    case CPU_OPERAND_BF16:
        kernels->encode[VKMOE_BF16](values, (uint16_t *) out, n);
        if (n % 2 > 0)
            ((uint16_t *) out)[n] = 0;
        return;
    case CPU_OPERAND_INT8:
        kernels->quantise(values, n, (struct cpu_int8_block *) out);
        return;
    case CPU_N_OPERANDS:
        break;
    }
}

void moe_cpu_set_input(struct cpu_input *input, uint32_t width)
{
    input->width = width;
    for (uint32_t operand = 0; operand < CPU_N_OPERANDS; operand++)
        input->as[operand] = (struct cpu_values){
            input->own[operand], moe_cpu_operand_stride((enum cpu_operand) operand, width)};
}

// Are there rows of an operand that have to be made?
static bool makes(const struct cpu_input *input, uint32_t operand)
{
    return input->own[operand] && input->as[operand].rows == input->own[operand];
}

// Rows of tokens, from f32 to the operands that are read and are not the caller's.
static void store_rows(const struct cpu_bind *bind, const struct cpu_input *input,
                       struct cpu_values from, struct cpu_range tokens)
{
    for (uint32_t operand = 0; operand < CPU_N_OPERANDS; operand++) {
        char *rows = input->own[operand];
        if (!makes(input, operand))
            continue;
        for (uint32_t t = tokens.begin; t < tokens.end; t++)
            moe_cpu_store_operand(bind->kernels, (enum cpu_operand) operand,
                                  (const float *) (from.rows + t * from.stride), input->width,
                                  rows + t * input->as[operand].stride);
    }
}

// ---- x: 16-bit rows to f32, then to other operands -------------------------------------------

enum { ELEMENTS = 16384 }; // in one task

uint32_t moe_cpu_x_prepare(struct cpu_bind *bind)
{
    bool any = bind->wide;
    for (uint32_t operand = 0; operand < CPU_N_OPERANDS; operand++)
        any = any || makes(&bind->x, operand);
    return any ? moe_cpu_cut_tokens(bind, ELEMENTS, moe_cpu_bind_layer(bind)->d_model) : 0;
}

void moe_cpu_x_task(struct cpu_bind *bind, uint32_t i)
{
    const uint32_t d_model = moe_cpu_bind_layer(bind)->d_model;
    const struct cpu_range tokens = moe_cpu_block(bind, i);
    const vkmoe_io *io = bind->io;
    for (uint32_t t = tokens.begin; bind->wide && t < tokens.end; t++)
        moe_dtype_decode(bind->base.program->x_type, (const char *) io->x + t * io->x_stride,
                         d_model, (float *) (bind->wide + t * bind->x.as[CPU_OPERAND_F32].stride));
    const struct cpu_values given = {io->x, io->x_stride};
    store_rows(bind, &bind->x, bind->wide ? bind->x.as[CPU_OPERAND_F32] : given, tokens);
}

// ---- the same of the latent x ----------------------------------------------------------------

uint32_t moe_cpu_latent_x_prepare(struct cpu_bind *bind)
{
    return moe_cpu_cut_tokens(bind, ELEMENTS, moe_cpu_bind_layer(bind)->d_latent);
}

void moe_cpu_latent_x_task(struct cpu_bind *bind, uint32_t i)
{
    store_rows(bind, &bind->latent, bind->latent.as[CPU_OPERAND_F32], moe_cpu_block(bind, i));
}
