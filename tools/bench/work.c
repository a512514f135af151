// SPDX-License-Identifier: MIT
#include "make.h"

#include "routing.h"

#include <stdio.h>
#include <stdlib.h>

struct bench_draw bench_case_draw(const struct bench_case *what, uint32_t copy)
{
    const struct bench_key *key = &what->key;
    const uint32_t n_group = what->layer.n_group > 1 ? what->layer.n_group : 0;
    return (struct bench_draw){key->seed, copy, key->n_tokens, key->n_experts, key->top_k,
                               n_group, what->layer.topk_group};
}

// ---- packed weights ----------------------------------------------------------------------------

// The distinct experts as the device wants them; the other experts point to the same blocks.
struct packed {
    unsigned char *memory;
    const void **experts; // (n_experts)
    void *shared;
};

static enum vkmoe_status pack(const struct bench_work *work, const vkmoe_weights_layout *layout,
                              struct packed *out)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *layer = &work->what->layer;
    const struct bench_material *material = work->material;
    const uint32_t n = material->n_tensors;
    CLI_TRY(cli_alloc(n, layout->expert_size, 1, &out->memory));
    CLI_TRY(cli_alloc(layer->n_experts, 1, sizeof *out->experts, &out->experts));
    for (uint32_t e = 0; e < n; e++)
        CLI_TRY(vkmoe_weights_pack_expert(work->context, layer, e, &material->experts[e],
                                          out->memory + e * layout->expert_size,
                                          layout->expert_size));
    for (uint32_t e = 0; e < layer->n_experts; e++)
        out->experts[e] = out->memory + e % n * layout->expert_size;
    if (layer->d_shared_ff) {
        CLI_TRY(cli_alloc(1, layout->shared_size, 1, &out->shared));
        CLI_TRY(vkmoe_weights_pack_expert(work->context, layer, VKMOE_SHARED_EXPERT,
                                          &material->shared, out->shared, layout->shared_size));
    }

fail:
    return status;
}

static enum vkmoe_status upload(struct bench_work *work, const vkmoe_weights_layout *layout)
{
    enum vkmoe_status status;
    struct packed packed = {0};
    vkmoe_weights_desc desc = vkmoe_weights_desc_init();
    CLI_TRY(pack(work, layout, &packed));
    desc.layer = &work->what->layer;
    desc.router = &work->material->router;
    desc.packed_experts = packed.experts;
    desc.packed_shared = packed.shared;
    desc.out_bias = work->material->out_bias;
    for (uint32_t i = 0; i < work->n_weights; i++)
        CLI_TRY(vkmoe_weights_create(work->context, &desc, &work->weights[i]));
    for (uint32_t i = work->n_weights; i < work->n_copies; i++)
        work->weights[i] = work->weights[i % work->n_weights];

fail:
    free(packed.memory);
    free(packed.experts);
    free(packed.shared);
    return status;
}

// ---- rows --------------------------------------------------------------------------------------

// What the router of a copy reads besides x, or instead; `x` has room for its rows.
static enum vkmoe_status make_router_rows(struct bench_work *work, uint32_t copy, float *x)
{
    const struct bench_case *what = work->what;
    const vkmoe_layer_desc *layer = &what->layer;
    struct bench_material *material = work->material;
    const size_t n = what->key.n_tokens, n_x = n * layer->d_model;
    struct bench_draw draw = bench_case_draw(what, copy);
    for (size_t t = 0; material->token_ids && t < n; t++)
        material->token_ids[copy * n + t] = (int32_t) ((copy * n + t) % layer->n_token_ids);
    work->ios[copy].token_ids = material->token_ids ? material->token_ids + copy * n : NULL;
    if (!material->router_x)
        return VKMOE_OK;
    char *stored = (char *) material->router_x + copy * n_x * bench_row_size(what->x_type, 1);
    draw.copy += work->n_copies; // other noise than that of x
    bench_rows_fill(layer, material->noise, &draw, material->wanted + copy * n * layer->top_k, x);
    work->ios[copy].router_x = stored;
    return vkmoe_dtype_convert(what->x_type, x, n_x, stored);
}

static enum vkmoe_status make_rows(struct bench_work *work)
{
    enum vkmoe_status status;
    const struct bench_case *what = work->what;
    const vkmoe_layer_desc *layer = &what->layer;
    struct bench_material *material = work->material;
    const size_t n = what->key.n_tokens, n_x = n * layer->d_model, n_y = n * layer->d_out;
    const size_t width = bench_row_size(what->x_type, 1);
    float *x = NULL;
    CLI_TRY(cli_alloc(n, layer->d_model, sizeof *x, &x));
    CLI_TRY(cli_alloc(work->n_copies, n_x, width, &material->x));
    CLI_TRY(cli_alloc(work->n_copies, n_y, width, &material->y));
    if (layer->router_input)
        CLI_TRY(cli_alloc(work->n_copies, n_x, width, &material->router_x));
    if (layer->select == VKMOE_SELECT_TABLE)
        CLI_TRY(cli_alloc(work->n_copies, n, sizeof *material->token_ids, &material->token_ids));
    CLI_TRY(cli_alloc(work->n_copies, n * layer->top_k, sizeof *material->ids, &material->ids));
    for (uint32_t i = 0; i < work->n_copies; i++) {
        const struct bench_draw draw = bench_case_draw(what, i);
        char *stored = (char *) material->x + i * n_x * width;
        const int32_t *wanted = material->wanted + i * n * layer->top_k;
        bench_rows_fill(layer, material->noise, &draw, layer->router_input ? NULL : wanted, x);
        CLI_TRY(vkmoe_dtype_convert(what->x_type, x, n_x, stored));
        work->ios[i] = vkmoe_io_init();
        work->ios[i].x = stored;
        CLI_TRY(make_router_rows(work, i, x));
        work->ios[i].y = (char *) material->y + i * n_y * width;
        work->ios[i].ids = material->ids + i * n * layer->top_k;
    }

fail:
    free(x);
    return status;
}

// Not a number in every type, and no expert.
static void poison(struct bench_work *work)
{
    const struct bench_case *what = work->what;
    const size_t n = (size_t) work->n_copies * what->key.n_tokens;
    struct bench_material *material = work->material;
    memset(material->y, 0xff, n * what->layer.d_out * bench_row_size(what->x_type, 1));
    memset(material->ids, 0xff, n * what->layer.top_k * sizeof *material->ids);
}

static double count_hit(const struct bench_case *what, const int32_t *ids, bool *seen)
{
    uint32_t n = 0;
    memset(seen, 0, what->layer.n_experts * sizeof *seen);
    for (size_t i = 0; i < (size_t) what->key.n_tokens * what->layer.top_k; i++) {
        n += !seen[ids[i]];
        seen[ids[i]] = true;
    }
    return n;
}

// The first copies' experts, one copy at least, and how many they work with on average.
static enum vkmoe_status choose(struct bench_work *work, uint32_t n_copies)
{
    enum vkmoe_status status;
    const struct bench_case *what = work->what;
    const struct bench_key *key = &what->key;
    struct bench_material *material = work->material;
    const size_t n = (size_t) key->n_tokens * key->top_k;
    struct bench_routing routing = {.kind = BENCH_TRACE, .path = what->trace};
    struct bench_trace trace = {0};
    bool *seen = NULL;
    free(material->wanted);
    material->wanted = NULL;
    CLI_TRY(cli_alloc(key->n_experts, 1, sizeof *seen, &seen));
    CLI_TRY(cli_alloc(n_copies, n, sizeof *material->wanted, &material->wanted));
    if (what->trace)
        CLI_TRY(bench_trace_read(what->trace, key->n_experts, key->top_k, key->n_tokens, &trace));
    else
        bench_routing_parse(key->routing, &routing);
    work->n_experts_hit = 0;
    for (uint32_t i = 0; i < n_copies; i++) {
        const struct bench_draw draw = bench_case_draw(what, i);
        CLI_TRY(bench_routing_choose(&routing, &trace, &draw, material->wanted + i * n));
    }
    bench_routing_repeat(&what->layer, (size_t) n_copies * key->n_tokens, material->wanted);
    for (uint32_t i = 0; i < n_copies; i++) {
        CLI_TRY(bench_routing_fits(&what->layer, key->n_tokens, material->wanted + i * n));
        work->n_experts_hit += count_hit(what, material->wanted + i * n, seen) / n_copies;
    }

fail:
    free(trace.ids);
    free(seen);
    return status;
}

// ---- a forward pass ----------------------------------------------------------------------------

static enum vkmoe_status make_lists(struct bench_work *work, const struct bench_need *need)
{
    enum vkmoe_status status;
    const uint32_t n_copies = need->n_copies;
    work->n_copies = n_copies;
    work->n_weights = need->n_weights;
    CLI_TRY(cli_alloc(n_copies, 1, sizeof *work->weights, &work->weights));
    CLI_TRY(cli_alloc(n_copies, 1, sizeof *work->binds, &work->binds));
    CLI_TRY(cli_alloc(n_copies, 1, sizeof *work->ios, &work->ios));

fail:
    return status;
}

static enum vkmoe_status make_plan(struct bench_work *work)
{
    const struct bench_case *what = work->what;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    desc.layer = &what->layer;
    desc.max_tokens = what->key.n_tokens;
    desc.precision = what->precision;
    desc.x_type = what->x_type;
    desc.variant = what->variant;
    desc.budget_ms = what->budget_ms;
    return vkmoe_plan_create(work->context, &desc, &work->plan);
}

// Nothing large is allocated before it is known to fit. How many copies there are to be depends on
// the experts that one works with.
static enum vkmoe_status choose_copies(struct bench_work *work, const vkmoe_weights_layout *layout)
{
    enum vkmoe_status status;
    const struct bench_case *what = work->what;
    const struct bench_room room = bench_room_now(&work->device);
    const double cache = (double) vkmoe_context_cache_size(work->context);
    struct bench_need need = bench_need_forward(what, layout, &room, what->layer.n_experts, cache);
    CLI_TRY(bench_need_check(&need, &room));
    CLI_TRY(choose(work, 1));
    need = bench_need_forward(what, layout, &room, work->n_experts_hit, cache);
    CLI_TRY(bench_need_check(&need, &room));
    work->device_bytes = need.device;
    work->material->n_tensors = need.n_tensors;
    CLI_TRY(make_lists(work, &need));
    CLI_TRY(choose(work, need.n_copies));

fail:
    return status;
}

static enum vkmoe_status make_forward(struct bench_work *work, double *first_call_ms)
{
    enum vkmoe_status status;
    const struct bench_case *what = work->what;
    vkmoe_weights_layout layout;
    CLI_TRY(vkmoe_weights_get_layout(work->context, &what->layer, &layout));
    CLI_TRY(choose_copies(work, &layout));
    CLI_TRY(make_plan(work));
    CLI_TRY(bench_weights_make(what, (size_t) work->n_copies * what->key.n_tokens, work->material));
    CLI_TRY(upload(work, &layout));
    for (uint32_t i = 0; i < work->n_copies; i++)
        CLI_TRY(vkmoe_bind_create(work->plan, work->weights[i], NULL, &work->binds[i]));
    CLI_TRY(make_rows(work));
    double begin = cli_clock();
    CLI_TRY(vkmoe_run(work->binds[0], what->key.n_tokens, &work->ios[0]));
    *first_call_ms = 1e3 * (cli_clock() - begin);
    poison(work);

fail:
    return status;
}

// ---- all of it ---------------------------------------------------------------------------------

static enum vkmoe_status make_net(struct bench_work *work, double *first_call_ms)
{
    enum vkmoe_status status;
    const struct bench_room room = bench_room_now(&work->device);
    const struct bench_need need = bench_need_net(work->what);
    CLI_TRY(bench_need_check(&need, &room));
    work->n_copies = work->n_weights = 1;
    CLI_TRY(choose(work, 1));
    CLI_TRY(bench_net_make(work, first_call_ms));

fail:
    return status;
}

enum vkmoe_status bench_work_create(const struct bench_case *what, vkmoe_context *context,
                                    const vkmoe_device_info *device, struct bench_work *out,
                                    double *first_call_ms)
{
    enum vkmoe_status status;
    *out = (struct bench_work){.what = what, .context = context, .device = *device};
    CLI_TRY(cli_alloc(1, 1, sizeof *out->material, &out->material));
    out->material->noise = bench_noise(what->key.seed);
    if (!out->material->noise) {
        vkmoe_error_set("no memory for random numbers");
        return VKMOE_E_MEMORY;
    }
    status = what->mode == BENCH_FORWARD ? make_forward(out, first_call_ms)
                                         : make_net(out, first_call_ms);

fail:
    return status;
}

void bench_work_destroy(struct bench_work *work)
{
    struct bench_material *material = work->material;
    for (uint32_t i = 0; work->binds && i < work->n_copies; i++)
        vkmoe_bind_destroy(work->binds[i]);
    for (uint32_t i = 0; work->weights && i < work->n_weights; i++)
        vkmoe_weights_destroy(work->weights[i]);
    vkmoe_plan_destroy(work->plan);
    vkmoe_net_destroy(work->net);
    free(work->binds);
    free(work->weights);
    free(work->ios);
    if (material) {
        bench_weights_finish(material);
        free(material->wanted);
        free(material->x);
        free(material->y);
        free(material->router_x);
        free(material->token_ids);
        free(material->ids);
        free(material->net_x);
        free(material->net_targets);
    }
    free(material);
    *work = (struct bench_work){0};
}
