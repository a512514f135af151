// SPDX-License-Identifier: MIT
// Memory that runs out: a host's allocator that fails once, or from then on.
#ifndef TESTS_UNIT_BUDGET_H
#define TESTS_UNIT_BUDGET_H

#include <vkmoe/vkmoe.h>

struct budget {
    long fail_at; // the allocation that fails, from 0; below 0: none
    bool once;    // those after it succeed
    long n;       // that were asked for
    long live;    // that were not freed
};

// Puts the allocator into a host, whose user becomes the budget.
void budget_host(vkmoe_host *host, struct budget *budget);

// Did the allocation fail yet?
bool budget_failed(const struct budget *budget);

#endif
