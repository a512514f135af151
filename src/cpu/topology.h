// SPDX-License-Identifier: MIT
// What this machine is, asked from the processor and the system.
#ifndef MOE_CPU_TOPOLOGY_H
#define MOE_CPU_TOPOLOGY_H

#include <stddef.h>
#include <stdint.h>

// Physical cores that this process may run on, at least 1.
uint32_t moe_cpu_core_count(void);

// The processor's name for people; never empty.
void moe_cpu_name(char *out, size_t size);

uint64_t moe_cpu_memory_bytes(void); // physical memory; 0: not known

// Bytes of the last-level caches of the processors that this process may run on; 0: not known.
uint64_t moe_cpu_cache_size(void);

#endif
