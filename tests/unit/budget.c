// SPDX-License-Identifier: MIT
#include "budget.h"

#include <stdlib.h>

static void *budget_alloc(void *user, size_t size, size_t align)
{
    struct budget *budget = user;
    void *memory = NULL;
    long i = budget->n++;
    bool due = budget->once ? i == budget->fail_at : i >= budget->fail_at;
    if ((due && budget->fail_at >= 0) || posix_memalign(&memory, align, size) != 0)
        return NULL;
    budget->live++;
    return memory;
}

static void budget_free(void *user, void *memory)
{
    ((struct budget *) user)->live--;
    free(memory);
}

void budget_host(vkmoe_host *host, struct budget *budget)
{
    host->user = budget;
    host->alloc = budget_alloc;
    host->free = budget_free;
}

bool budget_failed(const struct budget *budget)
{
    return budget->fail_at >= 0 && budget->n > budget->fail_at;
}
