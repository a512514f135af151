// SPDX-License-Identifier: MIT
// Instruction-set levels: what the processor and the system allow, from lowest to highest.
#ifndef MOE_CPU_ISA_H
#define MOE_CPU_ISA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// In ascending order of each family of processors; a level needs the features of those before it.
enum cpu_isa {
    CPU_ISA_SCALAR,
    CPU_ISA_AVX2,        // and FMA and F16C
    CPU_ISA_AVX512,      // F, BW, DQ and VL
    CPU_ISA_AVX512_VNNI,
    CPU_ISA_AVX512_BF16,
    CPU_ISA_AMX,         // of bf16
    CPU_ISA_NEON,
    CPU_ISA_DOTPROD,
    CPU_ISA_I8MM,
    CPU_N_ISAS,
};

// One bit each.
enum cpu_feature {
    CPU_FEATURE_AVX2 = 1 << 0,
    CPU_FEATURE_FMA = 1 << 1,
    CPU_FEATURE_F16C = 1 << 2,
    CPU_FEATURE_AVX512F = 1 << 3,
    CPU_FEATURE_AVX512BW = 1 << 4,
    CPU_FEATURE_AVX512DQ = 1 << 5,
    CPU_FEATURE_AVX512VL = 1 << 6,
    CPU_FEATURE_AVX512_VNNI = 1 << 7,
    CPU_FEATURE_AVX512_BF16 = 1 << 8,
    CPU_FEATURE_AMX_TILE = 1 << 9,
    CPU_FEATURE_AMX_BF16 = 1 << 10,
    CPU_FEATURE_NEON = 1 << 11,
    CPU_FEATURE_DOTPROD = 1 << 12,
    CPU_FEATURE_I8MM = 1 << 13,
};

// What the CPUID and XGETBV instructions answered, or the system of an ARM processor; zeros where
// there are none.
struct cpu_id {
    uint32_t vendor; // the first four letters of its name
    uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax;
    uint32_t xcr0;
    bool tiles; // the system has those of AMX for who asks: moe_cpu_allow
    uint64_t hwcap, hwcap2; // of 64-bit ARM
};

struct cpu_id moe_cpu_id(void);

// Features that the processor has and whose registers the system saves: enum cpu_feature bits.
uint32_t moe_cpu_features(const struct cpu_id *id);

// Levels that these features and this build allow: bit 1 << level.
uint32_t moe_cpu_levels(uint32_t features);

// Those of the levels that are no slower on this processor than the ones before them. Intel's
// processors multiply bf16 half as fast as f32 (measured on Sapphire Rapids: 89 against 178
// GFLOP/s of a core; theirs is the speed of AMX), AMD's twice as fast.
uint32_t moe_cpu_worthwhile(const struct cpu_id *id, uint32_t levels);

// Asks the system for what a level uses; false: it refuses. Before the first kernel of it. Of AMX
// that is for the whole process and for good: signals then take 8 KiB more of a thread's stack, and
// Linux refuses where a thread's alternate stack for signals is too small for that.
bool moe_cpu_allow(enum cpu_isa isa);

// The highest level of a non-empty mask.
enum cpu_isa moe_cpu_best(uint32_t levels);

const char *moe_cpu_isa_name(enum cpu_isa isa);

// False if no level has that name.
bool moe_cpu_isa_from_name(const char *name, enum cpu_isa *out);

// Names separated by spaces, for the features and for the levels of a mask; cut to `size` bytes.
void moe_cpu_feature_names(uint32_t features, char *out, size_t size);
void moe_cpu_level_names(uint32_t levels, char *out, size_t size);

#endif
