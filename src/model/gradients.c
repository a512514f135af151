// SPDX-License-Identifier: MIT
// Gradients of one layer over many rows, and their file. The tensors of all experts lie behind each
// other, as in a model file, and every batch of rows adds its part in place.
#include "model/model.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <vkmoe/train.h>

enum { MAX_TENSORS = 18 }; // x, three of the router, six of the experts and of the shared expert

struct vkmoe_gradients {
    struct moe_session_layer layer; // desc and host are the next two
    vkmoe_layer_desc desc;
    vkmoe_host host;
    char *path;
    struct moe_file_writer *file; // NULL: finished
    struct moe_st_source tensors[MAX_TENSORS]; // the first one is x
    uint32_t n_tensors;
    uint64_t n_params; // elements of all tensors but x
    float *params;
    float *x; // (capacity, d_model)
    uint64_t n_rows, capacity;
    vkmoe_router_grads router;
    vkmoe_expert_grads *experts; // (n_experts)
    vkmoe_expert_grads shared;
};

// ---- tensors ----------------------------------------------------------------------------------

// Adds a tensor if the layer has it; dims[2] 0: it has two dimensions, dims[1] 0: it has one.
static void add_tensor(struct vkmoe_gradients *g, bool has, const char *name, uint64_t d0,
                       uint64_t d1, uint64_t d2)
{
    if (!has)
        return;
    uint32_t n_dims = d1 == 0 ? 1 : d2 == 0 ? 2 : 3;
    g->tensors[g->n_tensors++] = (struct moe_st_source){name, "F32", n_dims, {d0, d1, d2}, NULL};
    g->n_params += d0 * moe_max(d1, 1) * moe_max(d2, 1);
}

static void list_tensors(struct vkmoe_gradients *g)
{
    const vkmoe_layer_desc *d = g->layer.desc;
    bool shared = d->d_shared_ff > 0, gated = d->gated;
    g->tensors[g->n_tensors++] = (struct moe_st_source){"x", "F32", 2, {0, d->d_model}, NULL};
    add_tensor(g, true, "router.weight", d->n_experts, d->d_model, 0);
    add_tensor(g, d->router_bias, "router.bias", d->n_experts, 0, 0);
    add_tensor(g, gated, "experts.gate.weight", d->n_experts, d->d_ff, d->d_model);
    add_tensor(g, d->gate_bias, "experts.gate.bias", d->n_experts, d->d_ff, 0);
    add_tensor(g, true, "experts.up.weight", d->n_experts, d->d_ff, d->d_model);
    add_tensor(g, d->up_bias, "experts.up.bias", d->n_experts, d->d_ff, 0);
    add_tensor(g, true, "experts.down.weight", d->n_experts, d->d_out, d->d_ff);
    add_tensor(g, d->down_bias, "experts.down.bias", d->n_experts, d->d_out, 0);
    add_tensor(g, shared && gated, "shared.gate.weight", d->d_shared_ff, d->d_model, 0);
    add_tensor(g, shared && d->gate_bias, "shared.gate.bias", d->d_shared_ff, 0, 0);
    add_tensor(g, shared, "shared.up.weight", d->d_shared_ff, d->d_model, 0);
    add_tensor(g, shared && d->up_bias, "shared.up.bias", d->d_shared_ff, 0, 0);
    add_tensor(g, shared, "shared.down.weight", d->d_out, d->d_shared_ff, 0);
    add_tensor(g, shared && d->down_bias, "shared.down.bias", d->d_out, 0, 0);
    add_tensor(g, d->shared_gate == VKMOE_SHARED_SIGMOID, "shared.gate_vector", d->d_model, 0, 0);
}

// Gives every tensor its part of params.
static void place_tensors(struct vkmoe_gradients *g)
{
    float *next = g->params;
    for (uint32_t i = 1; i < g->n_tensors; i++) {
        const uint64_t *dims = g->tensors[i].dims;
        g->tensors[i].data = next;
        next += dims[0] * moe_max(dims[1], 1) * moe_max(dims[2], 1);
    }
}

// The part of expert e in a tensor (n_experts, ...), or the whole of another; NULL: not there.
static float *find_part(struct vkmoe_gradients *g, const char *name, uint64_t e)
{
    for (uint32_t i = 1; i < g->n_tensors; i++) {
        const struct moe_st_source *tensor = &g->tensors[i];
        if (strcmp(tensor->name, name) == 0)
            return g->params + ((const float *) tensor->data - g->params) +
                   e * moe_max(tensor->dims[1], 1) * moe_max(tensor->dims[2], 1);
    }
    return NULL;
}

static void point_at_tensors(struct vkmoe_gradients *g)
{
    g->router.weight = find_part(g, "router.weight", 0);
    g->router.bias = find_part(g, "router.bias", 0);
    g->router.shared_gate = find_part(g, "shared.gate_vector", 0);
    for (uint32_t e = 0; e < g->layer.desc->n_experts; e++)
        g->experts[e] = (vkmoe_expert_grads){
            find_part(g, "experts.gate.weight", e), find_part(g, "experts.up.weight", e),
            find_part(g, "experts.down.weight", e), find_part(g, "experts.gate.bias", e),
            find_part(g, "experts.up.bias", e),     find_part(g, "experts.down.bias", e)};
    g->shared = (vkmoe_expert_grads){
        find_part(g, "shared.gate.weight", 0), find_part(g, "shared.up.weight", 0),
        find_part(g, "shared.down.weight", 0), find_part(g, "shared.gate.bias", 0),
        find_part(g, "shared.up.bias", 0),     find_part(g, "shared.down.bias", 0)};
}

// ---- the object -------------------------------------------------------------------------------

// Asks the device for the gradients of no rows.
static enum vkmoe_status check_device(const struct vkmoe_gradients *g)
{
    vkmoe_io io = vkmoe_io_init();
    vkmoe_backward_io out = vkmoe_backward_io_init();
    return vkmoe_backward(g->layer.bind, 0, &io, &out);
}

// Of a layer that is bound; `layer` is copied, what it points to lives as long as the gradients.
static enum vkmoe_status create(const struct moe_session_layer *layer, const char *path,
                                vkmoe_gradients **out)
{
    enum vkmoe_status status;
    struct vkmoe_gradients *g = NULL;
    TRY(moe_try_alloc(layer->host, sizeof *g, "gradients", &g));
    g->host = *layer->host;
    g->desc = *layer->desc;
    if (g->desc.d_out == 0)
        g->desc.d_out = g->desc.d_model;
    g->layer = (struct moe_session_layer){layer->bind, &g->desc, &g->host};
    TRY(check_device(g));
    list_tensors(g);
    TRY(moe_try_alloc(&g->host, strlen(path) + 1, "path", &g->path));
    strcpy(g->path, path);
    TRY(moe_try_alloc(&g->host, g->n_params * sizeof *g->params, "gradients", &g->params));
    TRY(moe_try_alloc(&g->host, g->desc.n_experts * sizeof *g->experts, "gradients of experts",
                      &g->experts));
    place_tensors(g);
    point_at_tensors(g);
    TRY(moe_file_create(&g->host, path, &g->file));
    *out = g;
    return VKMOE_OK;

fail:
    vkmoe_gradients_destroy(g);
    return status;
}

enum vkmoe_status vkmoe_gradients_create(vkmoe_session *session, const char *path,
                                         vkmoe_gradients **out)
{
    struct moe_session_layer layer;
    if (!session || !path || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_gradients_create: %s is NULL",
                        !session ? "session" : !path ? "path" : "out");
    *out = NULL;
    if (!moe_session_get_layer(session, &layer))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_gradients_create: a session without one_layer");
    return create(&layer, path, out);
}

enum vkmoe_status vkmoe_gradients_create_bound(const vkmoe_host *host, vkmoe_bind *bind,
                                               const vkmoe_layer_desc *layer, const char *path,
                                               vkmoe_gradients **out)
{
    vkmoe_host services;
    if (!bind || !layer || !path || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_gradients_create_bound: %s is NULL",
                        !bind ? "bind" : !layer ? "layer" : !path ? "path" : "out");
    *out = NULL;
    enum vkmoe_status status = moe_host_init(&services, host);
    if (status != VKMOE_OK)
        return status;
    return create(&(struct moe_session_layer){bind, layer, &services}, path, out);
}

// Room for n more rows of x.
static enum vkmoe_status grow(struct vkmoe_gradients *g, uint64_t n)
{
    enum vkmoe_status status = VKMOE_OK;
    uint64_t width = g->layer.desc->d_model, capacity, size, used = g->n_rows * width;
    float *x;
    if (n <= g->capacity - g->n_rows)
        return VKMOE_OK;
    capacity = moe_max(g->n_rows + n, 2 * g->capacity);
    if (!moe_mul(capacity, width * sizeof *x, &size))
        return moe_fail(VKMOE_E_MEMORY, "gradient of x: %llu rows of %llu f32",
                        (unsigned long long) capacity, (unsigned long long) width);
    TRY(moe_try_alloc(g->layer.host, size, "gradient of x", &x));
    if (used > 0)
        memcpy(x, g->x, used * sizeof *x);
    moe_free(g->layer.host, g->x);
    g->x = x;
    g->capacity = capacity;

fail:
    return status;
}

enum vkmoe_status vkmoe_gradients_add(vkmoe_gradients *gradients, uint32_t n_rows,
                                      const vkmoe_io *io, const float *dy)
{
    enum vkmoe_status status;
    struct vkmoe_gradients *g = gradients;
    vkmoe_backward_io out = vkmoe_backward_io_init();
    if (!g || !io || !g->file)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_gradients_add: %s",
                        !g ? "gradients is NULL" : !io ? "io is NULL" : "they are finished");
    if (n_rows == 0)
        return VKMOE_OK;
    TRY(grow(g, n_rows));
    out.dy = dy;
    out.dx = g->x + g->n_rows * g->layer.desc->d_model;
    out.router = &g->router;
    out.experts = g->experts;
    out.shared = &g->shared;
    out.accumulate = true;
    TRY(vkmoe_backward(g->layer.bind, n_rows, io, &out));
    g->n_rows += n_rows;

fail:
    return status;
}

enum vkmoe_status vkmoe_gradients_finish(vkmoe_gradients *gradients)
{
    struct vkmoe_gradients *g = gradients;
    if (!g || !g->file)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_gradients_finish: %s",
                        g ? "they are finished" : "gradients is NULL");
    struct moe_file_writer *file = g->file;
    g->file = NULL;
    g->tensors[0].dims[0] = g->n_rows;
    g->tensors[0].data = g->x;
    return moe_safetensors_commit(file, g->path, g->tensors, g->n_tensors, NULL);
}

void vkmoe_gradients_destroy(vkmoe_gradients *gradients)
{
    if (!gradients)
        return;
    const vkmoe_host host = gradients->host;
    moe_file_discard(gradients->file);
    moe_free(&host, gradients->x);
    moe_free(&host, gradients->experts);
    moe_free(&host, gradients->params);
    moe_free(&host, gradients->path);
    moe_free(&host, gradients);
}
