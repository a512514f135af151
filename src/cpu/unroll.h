// SPDX-License-Identifier: MIT
// What compilers are told about loops.
//
// UNROLL before a loop whose count is a constant of at most 24 once functions are expanded: arrays
// of vectors are registers only where no loop is left. clang wants to be told so, because it takes
// a number that is not the loop's own for a wish to keep a loop.
#ifndef MOE_CPU_UNROLL_H
#define MOE_CPU_UNROLL_H

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 24")
#endif

// IVDEP before a loop whose arrays are either the same or do not overlap.
#if defined(__clang__)
#define IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define IVDEP _Pragma("GCC ivdep")
#endif

#endif
