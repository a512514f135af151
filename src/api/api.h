// SPDX-License-Identifier: MIT
// The public objects, and what the files of this folder share. Users' arguments are checked here
// and nowhere below.
#ifndef MOE_API_API_H
#define MOE_API_API_H

#include "api/ranges.h"
#include "backend/backend.h"
#include "base/host.h"
#include "base/status.h"

struct moe_layer_net;

struct vkmoe_context {
    vkmoe_host host; // complete; every object below borrows it
    struct moe_device *device;
};

struct vkmoe_weights {
    vkmoe_context *context;
    struct moe_packed_weights *packed;
};

struct vkmoe_plan {
    vkmoe_context *context;
    struct moe_program *program;
    bool counters; // its kernels count
};

struct vkmoe_bind {
    vkmoe_plan *plan;
    struct moe_bound *bound;
    bool own_io; // the bind owns x and y, as vkmoe_run needs it
    struct moe_layer_net *layer_net; // for vkmoe_backward, from its first call on; or NULL
    vkmoe_counters counters;         // of the last vkmoe_run, if it
    bool counted;
};

enum { MOE_API_MAX_BINDS = 65536 }; // of one call

// VKMOE_E_ARGUMENT and "<function>: <name> is NULL" when it is.
enum vkmoe_status moe_api_not_null(const char *function, const char *name, const void *argument);

#define NOT_NULL(argument) moe_api_not_null(__func__, #argument, argument)

// VKMOE_E_DEVICE_LOST, with a text, once the context's device was lost.
enum vkmoe_status moe_api_device_ok(const vkmoe_context *context);

// Fills in a stride of 0 and checks that it is a multiple of `unit` bytes and holds a row.
enum vkmoe_status moe_api_stride(const char *name, size_t *stride, uint32_t width,
                                 enum vkmoe_dtype type, size_t unit);

// Checks a range of a caller's buffer; `name` is for the text.
enum vkmoe_status moe_api_vk_buffer(const char *name, const vkmoe_vk_buffer *buffer);

// Copies a caller's io of a run and checks what does not depend on its memory.
enum vkmoe_status moe_api_io(vkmoe_io *out, const vkmoe_io *io, const vkmoe_bind *bind,
                             uint32_t n_tokens);

// arrays.c. Fills in the strides of a copied io and its ranges, one for each array of it. What the
// plan's graph has no use for must be NULL; all else must be there, but for x and y of a layer, of
// which callers see to themselves, and outputs that are optional. Ids and slots that are read are
// checked one by one.
enum { MOE_IO_RANGES = 11 };
enum vkmoe_status moe_api_io_ranges(struct moe_range *ranges, vkmoe_io *io,
                                    const struct moe_program *program, uint32_t n_tokens);
// The same for the caller's buffers: strides, sizes, overlap.
enum vkmoe_status moe_api_vk_arrays(vkmoe_vk_io *io, const struct moe_program *program);

// Bytes from the first row's begin to the last row's end, n_rows > 0; false when that overflows.
bool moe_api_extent(uint64_t n_rows, size_t stride, size_t row_size, uint64_t *out);

#endif
