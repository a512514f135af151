// SPDX-License-Identifier: MIT
// What every header of vkmoe stands on: statuses, error texts, the services of the host program.
//
// Words (one per thing, everywhere): n_tokens rows of input; d_model input width; d_ff hidden width
// of an expert; d_out output width; n_experts; top_k; a slot is one (token, k) pair; the router
// scores experts; a gate weight multiplies an expert's output.
//
// Rules that hold for every function:
//   - A failure returns a negative status; vkmoe_error_text() then says what, with the numbers.
//   - A create that fails leaves *out == NULL. Every destroy accepts NULL.
//   - Strings, arrays and descs are borrowed for the call only.
//   - Nothing aborts, exits, throws or prints. There is no global mutable state.
//   - Threads: a context may be used by any number of threads. Weights and plans are immutable and
//     may be shared by threads. A bind is used by one thread at a time. create and destroy of one
//     object never run at the same time as another use of it.
#ifndef VKMOE_BASE_H
#define VKMOE_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32) && !defined(VKMOE_STATIC)
#define VKMOE_API __declspec(dllexport)
#elif defined(__GNUC__)
#define VKMOE_API __attribute__((visibility("default")))
#else
#define VKMOE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define VKMOE_VERSION_MAJOR 0
#define VKMOE_VERSION_MINOR 1
#define VKMOE_VERSION_PATCH 0

// ---- status ----------------------------------------------------------------------------------

// X(name, value, meaning)
#define VKMOE_STATUS_LIST(X)                                                                       \
    X(VKMOE_OK, 0, "success")                                                                      \
    X(VKMOE_E_ARGUMENT, -1, "an argument is wrong")                                                \
    X(VKMOE_E_UNSUPPORTED, -2, "not supported here")                                               \
    X(VKMOE_E_SHAPE, -3, "a size or shape disagrees")                                              \
    X(VKMOE_E_MEMORY, -4, "out of host memory")                                                    \
    X(VKMOE_E_DEVICE_MEMORY, -5, "out of device memory")                                           \
    X(VKMOE_E_DEVICE_LOST, -6, "the device was lost")                                              \
    X(VKMOE_E_DEVICE, -7, "the device or its driver failed")                                       \
    X(VKMOE_E_NO_DEVICE, -8, "no such device")                                                     \
    X(VKMOE_E_IO, -9, "a file could not be read or written")                                       \
    X(VKMOE_E_DATA, -10, "a file's contents are wrong")                                            \
    X(VKMOE_E_CANCELLED, -11, "cancelled by the caller")

enum vkmoe_status {
#define VKMOE_STATUS_VALUE(name, value, meaning) name = (value),
    VKMOE_STATUS_LIST(VKMOE_STATUS_VALUE)
#undef VKMOE_STATUS_VALUE
};

// Name of a status, "VKMOE_OK" for instance; "unknown status" for any other number. Static text.
VKMOE_API const char *vkmoe_status_name(enum vkmoe_status status);

// Why the last failing call on this thread failed. Never NULL; valid until this thread's next call.
VKMOE_API const char *vkmoe_error_text(void);

// Sets this thread's error text: for libraries built on top of this one, so that their callers ask
// in one place. Text beyond 1023 bytes is cut.
VKMOE_API void vkmoe_error_set(const char *text);

// Version of the library at run time: major << 22 | minor << 12 | patch.
VKMOE_API uint32_t vkmoe_version(void);

// ---- host hooks ------------------------------------------------------------------------------

enum vkmoe_log_level {
    VKMOE_LOG_ERROR = 1,
    VKMOE_LOG_WARN = 2,
    VKMOE_LOG_INFO = 3,
    VKMOE_LOG_DEBUG = 4,
};

// Services of the program around the library. Every callback may be NULL (then the library's own
// is used), may be called from any thread, and gets `user` as its first argument.
typedef struct vkmoe_host {
    size_t struct_size;
    void *user;

    // Host memory: `align` is a power of two <= 4096. NULL means out of memory. Give both or none.
    void *(*alloc)(void *user, size_t size, size_t align);
    void (*free)(void *user, void *memory);

    // One line without a line end. Without it messages are dropped.
    void (*log)(void *user, enum vkmoe_log_level level, const char *text);

    // Job system for the CPU back end: calls task(arg, i) once for each i < n, in any order, on any
    // threads, and returns when all are done. Runs, and packing of weights, call it on the thread
    // that called them. Tasks take up to 160 KiB of stack in training, 32 KiB elsewhere. A serial
    // loop is fine. Without it: own thread pool.
    void (*parallel_for)(void *user, uint32_t n, void (*task)(void *arg, uint32_t i), void *arg);

    // Store for pipelines and kernel verdicts, instead of files in cache_dir. `key` is a short
    // printable name. get: *size is the room in `data` on entry, the entry's size on return; data
    // may be NULL to ask for the size; false if there is no such entry.
    bool (*cache_get)(void *user, const char *key, void *data, size_t *size);
    void (*cache_set)(void *user, const char *key, const void *data, size_t size);

    // Zones for a profiler: called with begin = true and false around compile, upload and run.
    void (*trace)(void *user, const char *zone, bool begin);
} vkmoe_host;

static inline vkmoe_host vkmoe_host_init(void)
{
    vkmoe_host host;
    memset(&host, 0, sizeof host);
    host.struct_size = sizeof host;
    return host;
}

#ifdef __cplusplus
}
#endif
#endif
