// SPDX-License-Identifier: MIT
// Files of GGUF from a notation, so that a test can break one rule alone. Words, with spaces
// between:
//     4=32      a number of 4 bytes, also 1, 2 and 8; negative ones and 0x too
//     f=0.5     an f32; d=0.5 an f64
//     'abc'     these bytes
//     t'abc'    a text: its size as 8 bytes, and the bytes
//     ~32       zeros up to a multiple of 32
//     +32       32 zeros
//     *3(...)   the words in the parentheses three times
#ifndef TESTS_UNIT_GGUF_FILE_H
#define TESTS_UNIT_GGUF_FILE_H

#define GGUF_HEAD(n_tensors, n_values) "'GGUF' 4=3 8=" #n_tensors " 8=" #n_values " "

// Writes a scratch file and returns its path.
const char *gguf_file(const char *name, const char *notation);

#endif
