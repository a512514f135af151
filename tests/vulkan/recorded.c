// SPDX-License-Identifier: MIT
// Each row's comment names its sources:
//   G    a report of gpuinfo.org in KhronosGroup/Vulkan-Profiles, profiles/LunarG; for limits that
//        all devices of a driver have in common, that of another one
//   V    the driver itself, asked by us
//   I n  thread n of ggml-org/llama.cpp, mostly the line with which it greets a device
// Features that Vulkan 1.3 demands (CORE_1_3) are those of every device that has it. What no source
// tells is left out, as 0. dot, that packed products are accelerated, is inferred: reports of
// RDNA1, Polaris, Kaby Lake, Apple and processors deny it, and the devices that have it here are
// none of those.
#include "recorded.h"

#include <string.h>

#include "base/bits.h"
#include "vulkan/feature_table.h"

#define KIB(n) ((n) * 1024u)
#define MIB(n) ((n) * UINT64_C(1048576))
#define GIB(n) MIB((n) * UINT64_C(1024))

#define DISCRETE VKMOE_DEVICE_DISCRETE
#define INTEGRATED VKMOE_DEVICE_INTEGRATED
#define SOFTWARE VKMOE_DEVICE_SOFTWARE

#define CORE_1_3                                                                                 \
    "bufferDeviceAddress subgroupSizeControl computeFullSubgroups vulkanMemoryModel "            \
    "vulkanMemoryModelDeviceScope shaderIntegerDotProduct"
#define F16 " shaderFloat16"
#define BYTES " shaderInt8"
#define MATRIX " cooperativeMatrix"
#define MATRIX_2                                                                                 \
    " cooperativeMatrix cooperativeMatrixFlexibleDimensions cooperativeMatrixPerElementOperations"
#define TEAMS " cooperativeMatrixWorkgroupScope"

#define NVIDIA_LIMITS                                                                            \
    .invocations = 1024, .shared = KIB(48), .push = 256, .n_buffers = 1048576, .align = 16,      \
    .groups_x = INT32_MAX, .range = GIB(4) - 1, .allocation = GIB(1024), .min_subgroup = 32,     \
    .max_subgroup = 32
#define NVIDIA_SHAPES .shapes = {{16, 8, 8}, {16, 8, 16}, {16, 16, 16}}
#define RADV_LIMITS                                                                              \
    .invocations = 1024, .shared = KIB(64), .align = 4, .range = GIB(4) - 1, .allocation = GIB(4)
#define AMD_WINDOWS_LIMITS                                                                       \
    .invocations = 1024, .shared = KIB(32), .align = 4, .range = GIB(4) - 1, .allocation = GIB(2)
#define INTEL_WINDOWS_LIMITS                                                                     \
    .invocations = 1024, .align = 64, .groups_x = 65536, .range = GIB(1) - 4, .allocation = GIB(4)
#define WAVES .min_subgroup = 32, .max_subgroup = 64
#define MATRIX_16 .shapes = {{16, 16, 16}}
#define BYTES_16 .byte_shapes = {{16, 16, 16}}

const struct recorded_device recorded_devices[] = {
    // ---- NVIDIA: G rtx_2060, rtx_5080, rtx_5090, alike but for features
    {"GTX 1060", VK_DRIVER_ID_NVIDIA_PROPRIETARY, DISCRETE, 3, CORE_1_3, // G: without f16
     NVIDIA_LIMITS, .candidates = "fp32"},
    {"RTX 2060", VK_DRIVER_ID_NVIDIA_PROPRIETARY, DISCRETE, 3, CORE_1_3 F16 MATRIX, // G
     NVIDIA_LIMITS, NVIDIA_SHAPES, .dot = true, .candidates = "coopmat fp16 fp32"},
    {"RTX 3090", VK_DRIVER_ID_NVIDIA_PROPRIETARY, DISCRETE, 4,
     CORE_1_3 F16 MATRIX_2 TEAMS, // G, I 12135, 16086
     NVIDIA_LIMITS, NVIDIA_SHAPES, .units = {32, 16, 16, true},
     .candidates = "coopmat2 coopmat fp16 fp32"},
    {"RTX 4070", VK_DRIVER_ID_NVIDIA_PROPRIETARY, DISCRETE, 4, CORE_1_3 F16 MATRIX, // G, I 14903
     NVIDIA_LIMITS, NVIDIA_SHAPES, .candidates = "coopmat fp16 fp32"},
    {"RTX 5090", VK_DRIVER_ID_NVIDIA_PROPRIETARY, DISCRETE, 4, CORE_1_3 F16 MATRIX, // G
     NVIDIA_LIMITS, NVIDIA_SHAPES, .dot = true, .candidates = "coopmat fp16 fp32"},

    // ---- AMD: Windows lists matrices on GPUs without them; a timed probe has to find that out
    {"RX 570, RADV", VK_DRIVER_ID_MESA_RADV, DISCRETE, 4, CORE_1_3, // G: no f16, sizes not pinned
     RADV_LIMITS, .push = 256, .candidates = "fp32"},
    {"RX 5700, Windows", VK_DRIVER_ID_AMD_PROPRIETARY, DISCRETE, 4, CORE_1_3 F16 MATRIX, // G
     AMD_WINDOWS_LIMITS, .push = 256, WAVES, MATRIX_16, .candidates = "coopmat fp16 fp32",
     .used = "fp16"},
    {"RX 5700 XT, RADV", VK_DRIVER_ID_MESA_RADV, DISCRETE, 4, CORE_1_3 F16, // G
     RADV_LIMITS, .push = 256, WAVES, .candidates = "fp16 fp32"},
    {"RX 6600, RADV 23", VK_DRIVER_ID_MESA_RADV, DISCRETE, 3, CORE_1_3 F16, // G
     RADV_LIMITS, WAVES, .candidates = "fp16 fp32"},
    {"RX 7800 XT, Windows", VK_DRIVER_ID_AMD_PROPRIETARY, DISCRETE, 3, CORE_1_3 F16 MATRIX, // G
     AMD_WINDOWS_LIMITS, WAVES, MATRIX_16, .candidates = "coopmat fp16 fp32",
     .used = "fp16"},
    {"RX 7900 XTX, RADV", VK_DRIVER_ID_MESA_RADV, DISCRETE, 4, CORE_1_3 F16 MATRIX, // I 28843
     RADV_LIMITS, .push = 256, WAVES, MATRIX_16, .candidates = "coopmat fp16 fp32"},
    {"RX 9070 XT, RADV", VK_DRIVER_ID_MESA_RADV, DISCRETE, 4, CORE_1_3 F16 MATRIX, // G
     RADV_LIMITS, .push = 256, .groups_x = INT32_MAX, WAVES, MATRIX_16,
     .dot = true, .candidates = "coopmat fp16 fp32"},
    {"RX 9070 XT, newer RADV", VK_DRIVER_ID_MESA_RADV, DISCRETE, 4, CORE_1_3 F16 BYTES MATRIX_2
     TEAMS, // Vulkan-ValidationLayers 12363: workgroups of 256 alone
     RADV_LIMITS, .push = 256, .groups_x = INT32_MAX, WAVES, MATRIX_16, BYTES_16,
     .units = {16, 16, 16, false},
     .dot = true, .candidates = "coopmat2 coopmat fp16 fp32"},
    {"RX 9070 XT, Windows", VK_DRIVER_ID_AMD_PROPRIETARY, DISCRETE, 4, CORE_1_3 F16 MATRIX, // G
     AMD_WINDOWS_LIMITS, .push = 256, WAVES, MATRIX_16, .dot = true,
     .candidates = "coopmat fp16 fp32", .used = "fp16"},

    // ---- Intel
    {"HD 620, ANV", VK_DRIVER_ID_INTEL_OPEN_SOURCE_MESA, INTEGRATED, 4, CORE_1_3 F16, // G
     .invocations = 1024, .shared = KIB(32), .push = 256, .range = GIB(1), .min_subgroup = 8,
     .max_subgroup = 32, .candidates = "fp16 fp32"},
    {"Arc A380, Windows", VK_DRIVER_ID_INTEL_PROPRIETARY_WINDOWS, DISCRETE, 4,
     CORE_1_3 F16 MATRIX, // G, and clpeak 205 for the shapes
     INTEL_WINDOWS_LIMITS, .shared = KIB(32), .push = 256, .min_subgroup = 8, .max_subgroup = 32,
     .shapes = {{8, 8, 16}}, .dot = true, .candidates = "coopmat fp16 fp32",
     .used = "fp16"},
    {"Arc A770, ANV", VK_DRIVER_ID_INTEL_OPEN_SOURCE_MESA, DISCRETE, 4, CORE_1_3 F16 MATRIX, // G
     .invocations = 1024, .shared = KIB(32), .push = 256, .groups_x = INT32_MAX,
     .range = GIB(4) - 1, .allocation = GIB(4), .min_subgroup = 8, .max_subgroup = 32,
     .shapes = {{8, 8, 16}}, .dot = true, .candidates = "coopmat fp16 fp32"}, // I 10597
    {"Arc B580, Windows", VK_DRIVER_ID_INTEL_PROPRIETARY_WINDOWS, DISCRETE, 4,
     CORE_1_3 F16 MATRIX, // G, and I 28590 for the shapes
     INTEL_WINDOWS_LIMITS, .shared = KIB(48), .push = 256, .min_subgroup = 16, .max_subgroup = 32,
     .shapes = {{8, 16, 16}}, .dot = true, .candidates = "coopmat fp16 fp32",
     .used = "fp16"},
    {"Lunar Lake, ANV", VK_DRIVER_ID_INTEL_OPEN_SOURCE_MESA, INTEGRATED, 4,
     CORE_1_3 F16 MATRIX, // I 14001
     .invocations = 1024, .shared = KIB(128), .push = 256, .range = GIB(4) - 1,
     .min_subgroup = 16, .max_subgroup = 32, .shapes = {{8, 16, 16}},
     .candidates = "coopmat fp16 fp32"},

    // ---- Arm: Valhall, then the fifth generation
    {"Mali-G78", VK_DRIVER_ID_ARM_PROPRIETARY, INTEGRATED, 1, // strato-emu/compat-list 1450
     "bufferDeviceAddress", .shared = KIB(32), .candidates = "fp32",
     .used = "direct"},
    {"Mali-G710", VK_DRIVER_ID_ARM_PROPRIETARY, INTEGRATED, 1, // mlc-ai/web-llm 209
     "bufferDeviceAddress shaderFloat16", .shared = KIB(32), .range = MIB(128),
     .candidates = "fp16 fp32",
     .used = "direct"},
    {"Mali-G715", VK_DRIVER_ID_ARM_PROPRIETARY, INTEGRATED, 3, // I 15800; shapes are not told
     CORE_1_3 F16 MATRIX, .shared = KIB(32), .min_subgroup = 16, .max_subgroup = 16,
     .candidates = "fp16 fp32",
     .used = "direct"},
    {"Mali-G720", VK_DRIVER_ID_ARM_PROPRIETARY, INTEGRATED, 3, CORE_1_3 F16, // I 27163, 17783
     .shared = KIB(32), .min_subgroup = 16, .max_subgroup = 16, .candidates = "fp16 fp32",
     .used = "direct"},

    // ---- Qualcomm
    {"Adreno 610", VK_DRIVER_ID_QUALCOMM_PROPRIETARY, INTEGRATED, 1, "", // gpuweb/gpuweb 2832
     .shared = KIB(16), .candidates = "fp32"},
    {"Adreno 702, Turnip", VK_DRIVER_ID_MESA_TURNIP, INTEGRATED, 1, // workspace-automation 150
     "", .push = 256, .range = MIB(128), .candidates = "fp32"},
    {"Adreno 740", VK_DRIVER_ID_QUALCOMM_PROPRIETARY, INTEGRATED, 3, CORE_1_3 F16, // I 8743
     .shared = KIB(32), .candidates = "fp16 fp32"},
    {"Adreno 750, Turnip", VK_DRIVER_ID_MESA_TURNIP, INTEGRATED, 3, CORE_1_3 F16, // ggml 1287
     .shared = KIB(32), .push = 256, .min_subgroup = 64, .max_subgroup = 128,
     .candidates = "fp16 fp32"},
    {"Adreno 830", VK_DRIVER_ID_QUALCOMM_PROPRIETARY, INTEGRATED, 3, CORE_1_3 F16, // I 28635
     .shared = KIB(32), .candidates = "fp16 fp32"},
    {"Adreno 840", VK_DRIVER_ID_QUALCOMM_PROPRIETARY, INTEGRATED, 3, // ncnn 6972: s8 shapes alone
     CORE_1_3 F16 MATRIX, .shared = KIB(32), .candidates = "fp16 fp32"},

    // ---- Imagination: every pipeline compiles, and the firmware faults
    {"PowerVR DXT-48-1536", VK_DRIVER_ID_IMAGINATION_PROPRIETARY, INTEGRATED, 3, // I 20565
     CORE_1_3 F16, .shared = KIB(32), .candidates = "fp16 fp32", .used = "fp32"},
    {"PowerVR CXTP-48-1536", VK_DRIVER_ID_IMAGINATION_PROPRIETARY, INTEGRATED, 4, // I 28214
     CORE_1_3 F16, .invocations = 1024, .shared = KIB(32), .push = 256, .candidates = "fp16 fp32",
     .used = "fp32"},

    // ---- Apple: sizes of subgroups cannot be asked for; KosmicKrisp's report tells no driver id
    {"M1, MoltenVK", VK_DRIVER_ID_MOLTENVK, INTEGRATED, 4, CORE_1_3 F16, // G, gfx-rs/wgpu 5551
     .invocations = 1024, .shared = KIB(32), .push = 256, .n_buffers = 31, .align = 16,
     .groups_x = 1 << 30, .range = GIB(4) - 1, .allocation = GIB(4), .candidates = "fp16 fp32"},
    {"M5, MoltenVK", VK_DRIVER_ID_MOLTENVK, INTEGRATED, 4, CORE_1_3 F16, // G
     .invocations = 1024, .shared = KIB(32), .push = 256, .n_buffers = 31, .align = 16,
     .groups_x = 1 << 30, .range = GIB(4) - 1, .candidates = "fp16 fp32"},
    {"M5, KosmicKrisp", (VkDriverId) 0, INTEGRATED, 3, CORE_1_3 F16, // G
     .invocations = 1024, .shared = KIB(32), .align = 16, .groups_x = INT32_MAX,
     .range = GIB(4) - 1, .allocation = GIB(2), .candidates = "fp16 fp32"},

    // ---- others
    {"V3D 4.2, V3DV", VK_DRIVER_ID_MESA_V3DV, INTEGRATED, 1, "", // LibreELEC.tv 5884
     .invocations = 256, .shared = KIB(16), .groups_x = 65535, .candidates = "fp32"},
    {"lavapipe 22.3", VK_DRIVER_ID_MESA_LLVMPIPE, SOFTWARE, 3, CORE_1_3 F16, // V
     .invocations = 1024, .shared = KIB(32), .push = 128, .n_buffers = 32, .align = 16,
     .groups_x = 65535, .range = MIB(128), .allocation = GIB(2), .min_subgroup = 8,
     .max_subgroup = 8, .candidates = "fp16 fp32"},
    {"lavapipe 25.0", VK_DRIVER_ID_MESA_LLVMPIPE, SOFTWARE, 4, CORE_1_3 F16, // V
     .invocations = 1024, .shared = KIB(32), .push = 256, .n_buffers = 32, .align = 16,
     .groups_x = 65535, .range = MIB(128), .allocation = GIB(2), .min_subgroup = 8,
     .max_subgroup = 8, .candidates = "fp16 fp32"},
    {"lavapipe 26.2", VK_DRIVER_ID_MESA_LLVMPIPE, SOFTWARE, 4,
     CORE_1_3 F16 BYTES MATRIX_2, // V
     .invocations = 1024, .shared = KIB(32), .push = 256, .n_buffers = 1015808, .align = 16,
     .groups_x = 65535, .range = MIB(128), .allocation = GIB(2), .min_subgroup = 8,
     .max_subgroup = 8, .shapes = {{8, 8, 8}}, .byte_shapes = {{8, 8, 8}},
     .units = {8, 8, 8, false},
     .candidates = "coopmat2 coopmat fp16 fp32", .used = "fp16"},
    {"lavapipe 26.2, 512 bits", VK_DRIVER_ID_MESA_LLVMPIPE, SOFTWARE, 4, // V
     CORE_1_3 F16 BYTES MATRIX_2,
     .invocations = 1024, .shared = KIB(32), .push = 256, .n_buffers = 1015808, .align = 16,
     .groups_x = 65535, .range = MIB(128), .allocation = GIB(2), .min_subgroup = 16,
     .max_subgroup = 16, .shapes = {{8, 8, 8}}, .byte_shapes = {{8, 8, 8}},
     .units = {8, 8, 8, false},
     .candidates = "coopmat2 coopmat fp16 fp32", .used = "fp16"},
    {"SwiftShader", VK_DRIVER_ID_GOOGLE_SWIFTSHADER, SOFTWARE, 3, CORE_1_3, // V
     .invocations = 256, .shared = KIB(32), .push = 128, .n_buffers = 30, .align = 256,
     .groups_x = 65535, .range = GIB(1), .allocation = GIB(1), .min_subgroup = 4,
     .max_subgroup = 4, .candidates = "fp32"},
};
const uint32_t n_recorded_devices = MOE_COUNT(recorded_devices);

static bool lists(const char *words, const char *word)
{
    size_t size = strlen(word);
    for (const char *at = words; (at = strstr(at, word)); at += size)
        if ((at == words || at[-1] == ' ') && (at[size] == ' ' || at[size] == '\0'))
            return true;
    return false;
}

struct moe_vk_caps recorded_caps(const struct recorded_device *d)
{
    uint32_t invocations = d->invocations ? d->invocations : 128;
    uint32_t groups_x = (uint32_t) (d->groups_x ? d->groups_x : 65535);
    struct moe_vk_caps caps = {
        .api_version = VK_MAKE_API_VERSION(0, 1, d->minor, 0),
        .driver_id = (uint32_t) d->driver,
        .driver_version = 1,
        .max_storage_range = d->range ? d->range : MIB(128),
        .max_allocation = d->allocation ? d->allocation : GIB(1),
        .max_groups = {groups_x, 65535, 65535},
        .max_invocations = invocations,
        .max_size_x = invocations,
        .max_shared = d->shared ? d->shared : KIB(16),
        .max_push = d->push ? d->push : 128,
        .max_storage_buffers = d->n_buffers ? d->n_buffers : 4,
        .storage_align = d->align ? d->align : 256,
        .dot_accelerated = d->dot,
        .memory_kind = d->type == DISCRETE ? MOE_VK_DISCRETE : MOE_VK_UNIFIED,
    };
    caps.subgroup_pinned = d->min_subgroup > 0;
    caps.subgroup_size = d->min_subgroup > 0 ? d->min_subgroup : 32;
    for (uint32_t i = 0; i < RECORDED_MAX_SHAPES && d->shapes[i].m > 0; i++)
        caps.shapes[caps.n_shapes++] = (struct moe_vk_shape){
            d->shapes[i].m, d->shapes[i].n, d->shapes[i].k, d->shapes[i].n > d->shapes[i].m, 0};
    for (uint32_t i = 0; i < MOE_COUNT(d->byte_shapes) && d->byte_shapes[i].m > 0; i++)
        caps.byte_shapes[caps.n_byte_shapes++] = (struct moe_vk_shape){
            d->byte_shapes[i].m, d->byte_shapes[i].n, d->byte_shapes[i].k,
            d->byte_shapes[i].n > d->byte_shapes[i].m, 0};
    const struct recorded_units *units = &d->units;
    if (units->m > 0) // of sizes up to 1024, as lavapipe says
        caps.flexible[caps.n_flexible++] = (struct moe_vk_shape){
            units->m, units->n, units->k, units->n > units->m, units->workgroup};
    caps.max_dimension = 1024;
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        if (lists(d->features, moe_vk_features[f].listed.member))
            caps.features |= MOE_VK_BIT(f);
    return caps;
}
