// SPDX-License-Identifier: MIT
// The services of the program around us (memory, log, cache, trace) with our own as defaults.
// Every object keeps a pointer to the host of its context.
#ifndef MOE_BASE_HOST_H
#define MOE_BASE_HOST_H

#include <vkmoe/vkmoe.h>

// Memory is aligned to this, so that rows of SIMD vectors and packed panels start aligned.
#define MOE_HOST_ALIGN 64

// Fills `out` with a caller's host of any struct_size, or NULL; defaults replace callbacks that are
// NULL. Only parallel_for, cache_get and cache_set together, and trace may stay NULL.
// VKMOE_E_ARGUMENT: alloc without free or free without alloc, or a bad struct_size.
enum vkmoe_status moe_host_init(vkmoe_host *out, const vkmoe_host *host);

// The defaults, for code without a context.
const vkmoe_host *moe_host_default(void);

// Zeroed memory, aligned to MOE_HOST_ALIGN; NULL when there is none. Free with moe_free.
void *moe_alloc(const vkmoe_host *host, size_t size);

// The same for n elements; a product that overflows counts as no memory.
void *moe_alloc_array(const vkmoe_host *host, size_t n, size_t element_size);

void moe_free(const vkmoe_host *host, void *memory); // NULL is fine

// moe_alloc that fails with a text: "<what>: <size> bytes".
enum vkmoe_status moe_try_alloc(const vkmoe_host *host, size_t size, const char *what, void *out);

// The same without zeros, and not touched yet: whoever asks writes all of it.
enum vkmoe_status moe_try_alloc_unset(const vkmoe_host *host, size_t size, const char *what,
                                      void *out);

__attribute__((format(printf, 3, 4)))
void moe_log(const vkmoe_host *host, enum vkmoe_log_level level, const char *format, ...);

void moe_trace(const vkmoe_host *host, const char *zone, bool begin);

#endif
