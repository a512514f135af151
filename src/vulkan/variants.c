// SPDX-License-Identifier: MIT
// The table of kernel variants.
#include "core/dtype.h"
#include "net_params.h"
#include "vulkan/choose.h"

// A column is a necessity. A new variant is a row, its kernel in shaders/meson.build, and nothing
// else: precision and types say where it may compute, so a1 never makes bf16 f16. Nor do codes: a
// scale times a code has more bits than f16, and mxfp4 and fp8 more range, so a1 is for f16 alone.
// a3 and a4 scale rows by powers of two where f16 has not their range, so any type may become f16.
#define MATRIX_NEEDS                                                                               \
    (MOE_VK_BIT(MOE_VK_BDA) | MOE_VK_BIT(MOE_VK_MEMORY_MODEL) | MOE_VK_BIT(MOE_VK_DEVICE_SCOPE) |  \
     MOE_VK_BIT(MOE_VK_SUBGROUP_SIZE) | MOE_VK_BIT(MOE_VK_FULL_SUBGROUPS) |                        \
     MOE_VK_BIT(MOE_VK_MATRIX))
#define FLEXIBLE_NEEDS                                                                             \
    (MATRIX_NEEDS | MOE_VK_BIT(MOE_VK_FLOAT16) | MOE_VK_BIT(MOE_VK_FLEXIBLE) |                     \
     MOE_VK_BIT(MOE_VK_PER_ELEMENT))
#define OF_CODES                                                                                   \
    (MOE_VK_BIT(VKMOE_Q8_0) | MOE_VK_BIT(VKMOE_Q4_0) | MOE_VK_BIT(VKMOE_Q4_K) |                    \
     MOE_VK_BIT(VKMOE_Q5_K) | MOE_VK_BIT(VKMOE_Q6_K) | MOE_VK_BIT(VKMOE_Q2_K) |                    \
     MOE_VK_BIT(VKMOE_MXFP4))
#define A3(i, name_)                                                                               \
    {                                                                                              \
        .id = (enum moe_vk_variant_id) (MOE_VK_A3 + (i)), .name = name_, .kind = "coopmat",        \
        .tier = "T3 matrix", .invocations = MOE_LOCAL_SIZE, .shared = MOE_COOP_SHARED,             \
        .needs = MATRIX_NEEDS | MOE_VK_BIT(MOE_VK_FLOAT16),                                        \
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_HALF), .types = (1u << MOE_N_DTYPES) - 1,         \
        .inputs = (1u << MOE_N_FLOAT_DTYPES) - 1, .rounds_x = true, .rounds_hidden = true,         \
        .shape = (i) + 1, .arithmetic = VKMOE_ARITHMETIC_F16_MATRIX, .gemm = MOE_N_SPV,            \
        .gemm_bda = MOE_SPV_EXPERT_GEMM_COOP_BDA, .small = MOE_N_SPV,                              \
        .small_bda = MOE_SPV_EXPERT_GEMM_COOP_BDA, .small_rows = 8, .small_blocks = 1,             \
        .full_rows = MOE_TILE_FULL,                                                                \
    }

// The same by matrices of VK_NV_cooperative_matrix2, whose extension is of SPIR-V 1.6.
#define A4(i, name_)                                                                               \
    {                                                                                              \
        .id = (enum moe_vk_variant_id) (MOE_VK_A4 + (i)), .name = name_, .kind = "coopmat2",       \
        .tier = "T4 vendor", .invocations = MOE_LOCAL_SIZE, .shared = MOE_FLEX_SHARED,             \
        .needs = FLEXIBLE_NEEDS,                                                                   \
        .api_version = VK_API_VERSION_1_3, .precisions = MOE_VK_BIT(VKMOE_PRECISION_HALF),         \
        .types = (1u << MOE_N_DTYPES) - 1, .inputs = (1u << MOE_N_FLOAT_DTYPES) - 1,               \
        .rounds_x = true, .rounds_hidden = true, .shape = (i) + 1, .flexible = true,               \
        .arithmetic = VKMOE_ARITHMETIC_F16_MATRIX, .gemm = MOE_N_SPV,                              \
        .gemm_bda = MOE_SPV_EXPERT_GEMM_FLEX_BDA, .small = MOE_N_SPV,                              \
        .small_bda = MOE_SPV_EXPERT_GEMM_FLEX_BDA, .small_rows = 8, .small_blocks = 1,             \
        .full_rows = MOE_TILE_FULL,                                                                \
    }

// a2 by matrices.
#define A3I(i, name_)                                                                              \
    {                                                                                              \
        .id = (enum moe_vk_variant_id) (MOE_VK_A3I + (i)), .name = name_, .kind = "coopmat-int8",  \
        .tier = "T3 matrix", .invocations = MOE_LOCAL_SIZE, .shared = MOE_COOP_INT8_SHARED,        \
        .needs = MATRIX_NEEDS | MOE_VK_BIT(MOE_VK_INT8) | MOE_VK_BIT(MOE_VK_DOT),                  \
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_INT8), .types = OF_CODES,                         \
        .inputs = (1u << MOE_N_FLOAT_DTYPES) - 1, .rounds_x = true, .rounds_hidden = true,         \
        .quantises = true, .shape = (i) + 1, .arithmetic = VKMOE_ARITHMETIC_INT8_MATRIX,           \
        .gemm = MOE_N_SPV, .gemm_bda = MOE_SPV_EXPERT_GEMM_COOP_INT8_BDA, .small = MOE_N_SPV,      \
        .small_bda = MOE_SPV_EXPERT_GEMM_COOP_INT8_BDA, .small_rows = 8, .small_blocks = 1,        \
        .full_rows = MOE_TILE_FULL,                                                                \
    }

// Of networks all but weights is f32, gradients too, whose smallest f16 has not. So there is no a1:
// rows have to be scaled, and then a3's staging is all that is left of it. a2 neither: nothing is
// of blocks.
#define NET_A3(i, name_)                                                                           \
    {                                                                                              \
        .id = (enum moe_vk_variant_id) (MOE_VK_NET_A3 + (i)), .name = name_, .kind = "coopmat",    \
        .tier = "T3 matrix", .invocations = MOE_LOCAL_SIZE, .shared = MOE_NET_COOP_SHARED,         \
        .needs = MATRIX_NEEDS | MOE_VK_BIT(MOE_VK_FLOAT16),                                        \
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_HALF),                                            \
        .types = (1u << MOE_N_FLOAT_DTYPES) - 1, .inputs = MOE_VK_BIT(VKMOE_F32),                  \
        .rounds_x = true, .rounds_hidden = true, .shape = (i) + 1,                                 \
        .arithmetic = VKMOE_ARITHMETIC_F16_MATRIX, .gemm = MOE_N_SPV,                              \
        .gemm_bda = MOE_SPV_NET_MATMUL_COOP_BDA, .small = MOE_N_SPV, .small_bda = MOE_N_SPV,       \
        .nets = true, .dw = MOE_N_SPV, .dw_bda = MOE_SPV_NET_MATMUL_DW_COOP_BDA,                   \
    }

// And by matrices of any size.
#define NET_A4(i, name_)                                                                           \
    {                                                                                              \
        .id = (enum moe_vk_variant_id) (MOE_VK_NET_A4 + (i)), .name = name_, .kind = "coopmat2",   \
        .tier = "T4 vendor", .invocations = MOE_LOCAL_SIZE, .shared = MOE_NET_FLEX_SHARED,         \
        .needs = FLEXIBLE_NEEDS,                                                                   \
        .api_version = VK_API_VERSION_1_3, .precisions = MOE_VK_BIT(VKMOE_PRECISION_HALF),         \
        .types = (1u << MOE_N_FLOAT_DTYPES) - 1, .inputs = MOE_VK_BIT(VKMOE_F32),                  \
        .rounds_x = true, .rounds_hidden = true, .shape = (i) + 1, .flexible = true,               \
        .arithmetic = VKMOE_ARITHMETIC_F16_MATRIX, .gemm = MOE_N_SPV,                              \
        .gemm_bda = MOE_SPV_NET_MATMUL_FLEX_BDA, .small = MOE_N_SPV, .small_bda = MOE_N_SPV,       \
        .nets = true, .dw = MOE_N_SPV, .dw_bda = MOE_SPV_NET_MATMUL_DW_FLEX_BDA,                   \
    }

const struct moe_vk_variant moe_vk_variants[MOE_VK_N_VARIANTS] = {
    A4(0, "a4"), A4(1, "a4b"),
    A3(0, "a3"), A3(1, "a3b"), A3(2, "a3c"), A3(3, "a3d"), A3I(0, "a3i"),
    A3I(1, "a3ib"),
    {
        .id = MOE_VK_A2, // both operands as codes of 8 bits, exact sums of a block's products
        .name = "a2",
        .kind = "int8",
        .tier = "T2 int8",
        .needs = MOE_VK_BIT(MOE_VK_BDA) | MOE_VK_BIT(MOE_VK_DOT),
        .invocations = MOE_LOCAL_SIZE,
        .shared = 8960,
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_INT8),
        .types = OF_CODES,
        .inputs = (1u << MOE_N_FLOAT_DTYPES) - 1,
        .rounds_x = true,
        .rounds_hidden = true,
        .quantises = true,
        .arithmetic = VKMOE_ARITHMETIC_INT8,
        .gemm = MOE_N_SPV,
        .gemm_bda = MOE_SPV_EXPERT_GEMM_INT8_BDA,
        .small = MOE_N_SPV,
        .small_bda = MOE_SPV_EXPERT_GEMV_TILE_INT8_BDA,
        .small_rows = MOE_TILE_SMALL,
        .small_blocks = MOE_MATVEC_BLOCKS,
        .full_rows = MOE_TILE_FULL,
    },
    {
        .id = MOE_VK_A0N, // a0 without shared memory; codes would be unpacked by 8 invocations
        .name = "a0n",
        .kind = "direct",
        .tier = "T0 floor",
        .invocations = MOE_LOCAL_SIZE,
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_EXACT) | MOE_VK_BIT(VKMOE_PRECISION_HALF),
        .types = (1u << MOE_N_FLOAT_DTYPES) - 1,
        .inputs = (1u << MOE_N_FLOAT_DTYPES) - 1,
        .arithmetic = VKMOE_ARITHMETIC_F32,
        .gemm = MOE_SPV_EXPERT_GEMM_DIRECT,
        .gemm_bda = MOE_SPV_EXPERT_GEMM_DIRECT_BDA,
        .small = MOE_SPV_EXPERT_GEMM_DIRECT,
        .small_bda = MOE_SPV_EXPERT_GEMM_DIRECT_BDA,
        .small_rows = 8,
        .small_blocks = 1,
        .full_rows = MOE_TILE_FULL,
    },
    {
        .id = MOE_VK_A1, // both operands staged as f16, f32 accumulation
        .name = "a1",
        .kind = "fp16",
        .tier = "T1 fp16",
        .needs = MOE_VK_BIT(MOE_VK_BDA) | MOE_VK_BIT(MOE_VK_FLOAT16),
        .invocations = MOE_LOCAL_SIZE,
        .shared = 9344,
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_HALF),
        .types = MOE_VK_BIT(VKMOE_F16),
        .inputs = MOE_VK_BIT(VKMOE_F32) | MOE_VK_BIT(VKMOE_F16),
        .rounds_x = true,
        .arithmetic = VKMOE_ARITHMETIC_F32,
        .gemm = MOE_N_SPV,
        .gemm_bda = MOE_SPV_EXPERT_GEMM_F16_BDA,
        .small = MOE_N_SPV,
        .small_bda = MOE_SPV_EXPERT_GEMV_TILE_F16_BDA,
        .small_rows = MOE_TILE_SMALL,
        .small_blocks = MOE_MATVEC_BLOCKS,
        .full_rows = MOE_TILE_WIDE,
    },
    NET_A4(0, "net-a4"), NET_A4(1, "net-a4b"),
    NET_A3(0, "net-a3"), NET_A3(1, "net-a3b"), NET_A3(2, "net-a3c"), NET_A3(3, "net-a3d"),
    {
        .id = MOE_VK_NET_A0N, // a0 whose operands are not copied to shared memory
        .name = "net-a0n",
        .kind = "direct",
        .tier = "T0 floor",
        .invocations = MOE_LOCAL_SIZE,
        .shared = 528,
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_EXACT) | MOE_VK_BIT(VKMOE_PRECISION_HALF),
        .types = (1u << MOE_N_FLOAT_DTYPES) - 1,
        .inputs = MOE_VK_BIT(VKMOE_F32),
        .arithmetic = VKMOE_ARITHMETIC_F32,
        .gemm = MOE_SPV_NET_MATMUL_DIRECT,
        .gemm_bda = MOE_SPV_NET_MATMUL_DIRECT_BDA,
        .small = MOE_N_SPV,
        .small_bda = MOE_N_SPV,
        .nets = true,
        .dw = MOE_SPV_NET_MATMUL_DW_DIRECT,
        .dw_bda = MOE_SPV_NET_MATMUL_DW_DIRECT_BDA,
    },
    {
        .id = MOE_VK_A0, // f32 arithmetic, no optional feature
        .name = "a0",
        .kind = "fp32",
        .tier = "T0 floor",
        .invocations = MOE_LOCAL_SIZE,
        .shared = 12544,
        .precisions = MOE_VK_BIT(VKMOE_PRECISION_EXACT) | MOE_VK_BIT(VKMOE_PRECISION_HALF) |
                      MOE_VK_BIT(VKMOE_PRECISION_INT8),
        .types = (1u << MOE_N_DTYPES) - 1,
        .inputs = (1u << MOE_N_FLOAT_DTYPES) - 1,
        .arithmetic = VKMOE_ARITHMETIC_F32,
        .gemm = MOE_SPV_EXPERT_GEMM,
        .gemm_bda = MOE_SPV_EXPERT_GEMM_BDA,
        .small = MOE_SPV_EXPERT_GEMV_TILE,
        .small_bda = MOE_SPV_EXPERT_GEMV_TILE_BDA,
        .small_rows = MOE_TILE_SMALL,
        .small_blocks = MOE_MATVEC_BLOCKS,
        .full_rows = MOE_TILE_WIDE,
    },
};
