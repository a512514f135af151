// SPDX-License-Identifier: MIT
// How much memory there is, how much a case takes, and how many copies of the weights that allows.
#include "make.h"

#include "roofline.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_COPIES = 64 };

#define MIB 1048576.0
#define LEAST_ROTATED (512 * MIB) // bytes of weights that are touched before the first is again
#define SHARE 0.25      // of the room that copies, or distinct tensors, may take
#define BIND_SHARE 0.05 // that binds without weights of their own may take besides

static double mem_available(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    double found = 0;
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "MemAvailable:", 13) == 0)
            found = strtod(line + 13, NULL) * 1024;
    }
    if (file)
        fclose(file);
    return found;
}

struct bench_room bench_room_now(const vkmoe_device_info *device)
{
    struct bench_room room = {
        .device = 0.9 * (double) device->memory_bytes,
        .host = 0.9 * mem_available(),
        .shared = device->type != VKMOE_DEVICE_DISCRETE,
    };
    // All of an integrated GPU's memory may be the host's, and so is all of a CPU's.
    if (room.shared && room.device > room.host)
        room.device = room.host;
    return room;
}

size_t bench_row_size(enum vkmoe_dtype type, uint32_t width)
{
    return (size_t) bench_matrix_size(type, 1, width);
}

// Rows, results and what lies between the ops, of one bind.
static double bind_size(const struct bench_case *what)
{
    const vkmoe_layer_desc *layer = &what->layer;
    double n = what->key.n_tokens, slots = n * layer->top_k;
    double io = n * ((double) layer->d_model + layer->d_out) * 4;
    double hidden = slots * (2.0 * layer->d_ff + layer->d_out) * 4 + 2 * n * layer->d_shared_ff * 4;
    return io + hidden + n * layer->n_experts * 4;
}

// Rows of x and y, experts that are wanted and that are selected, of one copy; x once more in f32.
static double rows_size(const struct bench_case *what)
{
    const vkmoe_layer_desc *layer = &what->layer;
    double width = (layer->router_input ? 2.0 : 1.0) * layer->d_model + layer->d_out;
    double row = width * (double) bench_row_size(what->x_type, 1) + 8.0 * layer->top_k +
                 4.0 + 4.0 * layer->d_model;
    return what->key.n_tokens * row;
}

static double tensors_size(const struct bench_case *what, const vkmoe_weights_layout *layout,
                           uint32_t n_tensors)
{
    const vkmoe_layer_desc *layer = &what->layer;
    double expert = bench_expert_count(layer, layer->d_ff);
    double shared = bench_expert_count(layer, layer->d_shared_ff);
    double stored = n_tensors * bench_expert_size(layer, layer->d_ff) + bench_shared_size(layer);
    double packed = n_tensors * (double) layout->expert_size + (double) layout->shared_size;
    double oracle = (n_tensors * expert + shared) * 4; // after the packed ones are gone
    return stored + fmax(packed, oracle) + (double) layer->n_experts * layer->d_model * 8;
}

struct bench_need bench_need_forward(const struct bench_case *what,
                                     const vkmoe_weights_layout *layout,
                                     const struct bench_room *room, double n_hit,
                                     double cache_size)
{
    static const uint32_t primes[] = {7, 5, 3, 2};
    const vkmoe_layer_desc *layer = &what->layer;
    struct bench_need need = {.n_tensors = 2};
    for (size_t i = 0; i < 4; i++) {
        need.n_tensors = primes[i];
        if (tensors_size(what, layout, primes[i]) <= SHARE * room->host)
            break;
    }
    if (need.n_tensors > layer->n_experts)
        need.n_tensors = layer->n_experts;

    double touched = n_hit * (double) layout->expert_size + (double) layout->shared_size;
    double bind = bind_size(what), available = room->device > 0 ? room->device : room->host;
    double wanted = fmin(MAX_COPIES, ceil(fmax(LEAST_ROTATED, 4 * cache_size) / touched));
    double most = floor(SHARE * available / ((double) layout->total_size + bind));
    need.n_weights = (uint32_t) fmax(1, fmin(wanted, most));
    double extra = floor(BIND_SHARE * available / bind);
    need.n_copies = (uint32_t) fmin(fmax(1, wanted), need.n_weights + extra);
    need.device = need.n_weights * (double) layout->total_size + need.n_copies * bind;
    need.host = tensors_size(what, layout, need.n_tensors) + need.n_copies * rows_size(what);
    return need;
}

struct bench_need bench_need_net(const struct bench_case *what)
{
    const vkmoe_layer_desc *layer = &what->layer;
    double n_weights = layer->n_experts * bench_expert_count(layer, layer->d_ff) +
                       bench_expert_count(layer, layer->d_shared_ff) +
                       (double) layer->n_experts * layer->d_model;
    return (struct bench_need){
        .n_copies = 1,
        .n_weights = 1,
        // Values, gradients, two moments, and the rounded copy.
        .device = n_weights * (4 * 4 + (what->type == VKMOE_F32 ? 0 : 2)) + 3 * bind_size(what),
        .host = rows_size(what),
    };
}

static enum vkmoe_status refuse(enum vkmoe_status status, const char *where, double need,
                                double room)
{
    char text[160];
    snprintf(text, sizeof text, "takes %.2f GB of %s memory: %.0f bytes are missing", need * 1e-9,
             where, ceil(need - room));
    vkmoe_error_set(text);
    return status;
}

enum vkmoe_status bench_need_check(const struct bench_need *need, const struct bench_room *room)
{
    double host = need->host + (room->shared ? need->device : 0);
    if (room->device > 0 && need->device > room->device)
        return refuse(VKMOE_E_DEVICE_MEMORY, "device", need->device, room->device);
    if (room->host > 0 && host > room->host)
        return refuse(VKMOE_E_MEMORY, "host", host, room->host);
    return VKMOE_OK;
}
