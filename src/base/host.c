// SPDX-License-Identifier: MIT
#include "base/host.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

// Large blocks are in large pages where the system gives them, which have to be asked for before
// the first byte is written. Reading weights that lie in small ones takes a tenth longer. A
// block of less than 32 MiB may lie in the C library's heap, whose pages serve others later.
static void *default_alloc(void *user, size_t size, size_t align)
{
    enum { LARGE_PAGE = 2 << 20, MANY_PAGES = 2 * LARGE_PAGE };
    (void) user;
    const bool large = size >= MANY_PAGES;
    void *memory = NULL;
    if (posix_memalign(&memory, large && align < LARGE_PAGE ? LARGE_PAGE : align, size) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (large)
        (void) madvise(memory, size / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE); // a wish
#endif
    return memory;
}

static void default_free(void *user, void *memory)
{
    (void) user;
    free(memory);
}

static void default_log(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user, (void) level, (void) text;
}

static const vkmoe_host default_host = {
    .struct_size = sizeof(vkmoe_host),
    .alloc = default_alloc,
    .free = default_free,
    .log = default_log,
};

const vkmoe_host *moe_host_default(void)
{
    return &default_host;
}

enum vkmoe_status moe_host_init(vkmoe_host *out, const vkmoe_host *host)
{
    enum vkmoe_status status;
    *out = vkmoe_host_init();
    if (host)
        TRY(moe_desc_copy(out, sizeof *out, host, "vkmoe_host"));
    if (!out->alloc != !out->free)
        return moe_fail(VKMOE_E_ARGUMENT, "host.%s is NULL: give both alloc and free or none",
                        out->alloc ? "free" : "alloc");
    if (!out->alloc) {
        out->alloc = default_host.alloc;
        out->free = default_host.free;
    }
    if (!out->log)
        out->log = default_host.log;
    if (!out->cache_get || !out->cache_set) {
        out->cache_get = NULL;
        out->cache_set = NULL;
    }
    return VKMOE_OK;
fail:
    return status;
}

// An empty array still gets memory of its own, so that NULL always means failure.
static void *alloc_unset(const vkmoe_host *host, size_t size)
{
    return host->alloc(host->user, size > 0 ? size : 1, MOE_HOST_ALIGN);
}

void *moe_alloc(const vkmoe_host *host, size_t size)
{
    void *memory = alloc_unset(host, size);
    if (memory)
        memset(memory, 0, size);
    return memory;
}

void *moe_alloc_array(const vkmoe_host *host, size_t n, size_t element_size)
{
    uint64_t size;
    if (!moe_mul(n, element_size, &size) || size > SIZE_MAX)
        return NULL;
    return moe_alloc(host, (size_t) size);
}

void moe_free(const vkmoe_host *host, void *memory)
{
    if (memory)
        host->free(host->user, memory);
}

static enum vkmoe_status give(void *memory, size_t size, const char *what, void *out)
{
    memcpy(out, &memory, sizeof memory);
    if (!memory)
        return moe_fail(VKMOE_E_MEMORY, "%s: %zu bytes", what, size);
    return VKMOE_OK;
}

enum vkmoe_status moe_try_alloc(const vkmoe_host *host, size_t size, const char *what, void *out)
{
    return give(moe_alloc(host, size), size, what, out);
}

enum vkmoe_status moe_try_alloc_unset(const vkmoe_host *host, size_t size, const char *what,
                                      void *out)
{
    return give(alloc_unset(host, size), size, what, out);
}

void moe_log(const vkmoe_host *host, enum vkmoe_log_level level, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    host->log(host->user, level, text);
}

void moe_trace(const vkmoe_host *host, const char *zone, bool begin)
{
    if (host->trace)
        host->trace(host->user, zone, begin);
}
