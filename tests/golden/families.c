// SPDX-License-Identifier: MIT
// The MoE blocks of published families against stored outputs: families DEVICE FOLDER [MODEL].
//
// Each block of families.json runs twice: as vkmoe_checkpoint_load puts it on the device, and from
// the values that vkmoe_checkpoint_read gives, in f32. The second way then has to fail with two
// neighbouring rows of every up matrix swapped. On Vulkan, which is slow to compile a plan, only
// every tenth block runs the second way.
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <vkmoe/checkpoint.h>

#include "model/npy.h"

static const double max_error = 1e-5;
// Of weights converted to q8_0: half a step, 1 / 254 of the block's largest value, on each.
static const double max_conversion = 0.02;
static vkmoe_context *context;
static const char *folder;

struct golden {
    const char *model;
    uint32_t layer, n_tokens, top_k, width;
    float *x, *y, *gates, *router_x;
    int32_t *ids, *token_ids;
};

static void need(enum vkmoe_status status, const char *what)
{
    if (status == VKMOE_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, vkmoe_status_name(status), vkmoe_error_text());
    exit(1);
}

static void *room(size_t n, size_t size)
{
    void *memory = calloc(n + 1, size);
    if (!memory)
        exit(1);
    return memory;
}

static const char *path_of(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static float *read_array(const char *name, uint32_t *n_rows, uint32_t *width)
{
    struct moe_npy npy;
    need(moe_npy_open(path_of(name), &npy), name);
    *n_rows = (uint32_t) npy.dims[0];
    *width = npy.n_dims > 1 ? (uint32_t) npy.dims[1] : 1;
    float *values = room((size_t) *n_rows * *width, sizeof *values);
    need(moe_npy_read(&npy, (size_t) *n_rows * *width, values), name);
    moe_npy_close(&npy);
    return values;
}

static int32_t *read_ids(const char *name)
{
    uint32_t n, width;
    float *values = read_array(name, &n, &width);
    int32_t *ids = room((size_t) n * width, sizeof *ids);
    for (uint32_t i = 0; i < n * width; i++)
        ids[i] = (int32_t) values[i];
    free(values);
    return ids;
}

static void read_golden(const json_t *row, struct golden *out)
{
    uint32_t n, width;
    const char *router = json_string_value(json_object_get(row, "router_input"));
    const char *tokens = json_string_value(json_object_get(row, "token_ids"));
    *out = (struct golden){.model = json_string_value(json_object_get(row, "model"))};
    out->layer = (uint32_t) json_integer_value(json_object_get(row, "layer"));
    out->x = read_array(json_string_value(json_object_get(row, "x")), &out->n_tokens, &width);
    out->y = read_array(json_string_value(json_object_get(row, "y")), &n, &out->width);
    out->gates = read_array(json_string_value(json_object_get(row, "gates")), &n, &out->top_k);
    out->ids = read_ids(json_string_value(json_object_get(row, "ids")));
    if (router)
        out->router_x = read_array(router, &n, &width);
    if (tokens)
        out->token_ids = read_ids(tokens);
}

static void free_golden(struct golden *g)
{
    free(g->x), free(g->y), free(g->gates), free(g->router_x), free(g->ids), free(g->token_ids);
}

// ---- running ---------------------------------------------------------------------------------

struct verdict {
    double error, gate_error; // relative L2; NaN when any value is
    uint32_t n_wrong;         // ids
};

static double distance(const float *a, const float *b, size_t n)
{
    double difference = 0, total = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double) a[i] - (double) b[i];
        difference += d * d;
        total += (double) b[i] * (double) b[i];
    }
    return sqrt(difference / total);
}

static struct verdict run(const struct golden *g, const vkmoe_layer_desc *layer,
                          vkmoe_weights *weights)
{
    struct verdict verdict = {0};
    vkmoe_plan *plan;
    vkmoe_bind *bind;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    size_t n = (size_t) g->n_tokens * g->width, n_slots = (size_t) g->n_tokens * g->top_k;
    desc.layer = layer;
    desc.max_tokens = g->n_tokens;
    need(vkmoe_plan_create(context, &desc, &plan), g->model);
    need(vkmoe_bind_create(plan, weights, NULL, &bind), g->model);
    io.x = g->x;
    io.y = room(n, sizeof(float));
    io.ids = room(n_slots, sizeof *io.ids);
    io.gates = room(n_slots, sizeof *io.gates);
    io.router_x = layer->router_input ? g->router_x : NULL;
    io.token_ids = g->token_ids;
    for (size_t i = 0; i < n; i++)
        ((float *) io.y)[i] = NAN;
    need(vkmoe_run(bind, g->n_tokens, &io), g->model);
    verdict.error = distance(io.y, g->y, n);
    verdict.gate_error = distance(io.gates, g->gates, n_slots);
    for (size_t i = 0; i < n_slots; i++)
        // A slot that was dropped has no expert.
        verdict.n_wrong += io.ids[i] != (g->gates[i] == 0 ? -1 : g->ids[i]);
    free(io.y), free(io.ids), free(io.gates);
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    return verdict;
}

static bool is_right(const struct verdict *verdict)
{
    return verdict->error <= max_error && verdict->gate_error <= max_error &&
           verdict->n_wrong == 0;
}

// ---- from values -----------------------------------------------------------------------------

static float *values_of(vkmoe_checkpoint *checkpoint, uint32_t layer, int part, uint32_t i)
{
    vkmoe_checkpoint_part info;
    need(vkmoe_checkpoint_get_part(checkpoint, layer, (enum vkmoe_part) part, &info), "part");
    if (info.n == 0 || part == VKMOE_PART_TABLE)
        return NULL;
    float *values = room((size_t) info.n_rows * info.n_columns, sizeof *values);
    need(vkmoe_checkpoint_read(checkpoint, layer, (enum vkmoe_part) part, i, 0, info.n_rows,
                               values), vkmoe_part_name((enum vkmoe_part) part));
    return values;
}

static void swap_rows(float *values, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++) {
        float value = values[i];
        values[i] = values[width + i];
        values[width + i] = value;
    }
}

static vkmoe_expert_tensors expert_of(vkmoe_checkpoint *checkpoint, uint32_t layer, int first,
                                      uint32_t i, bool swapped)
{
    float *v[6];
    vkmoe_checkpoint_part up;
    for (int k = 0; k < 6; k++)
        v[k] = values_of(checkpoint, layer, first + k, i);
    need(vkmoe_checkpoint_get_part(checkpoint, layer, (enum vkmoe_part) (first + 1), &up), "up");
    if (swapped)
        swap_rows(v[1], up.n_columns);
    return (vkmoe_expert_tensors){{.data = v[0], .type = VKMOE_F32},
                                  {.data = v[1], .type = VKMOE_F32},
                                  {.data = v[2], .type = VKMOE_F32},
                                  v[3], v[4], v[5]};
}

static void free_expert(vkmoe_expert_tensors *e)
{
    free((void *) e->gate.data), free((void *) e->up.data), free((void *) e->down.data);
    free((void *) e->gate_bias), free((void *) e->up_bias), free((void *) e->down_bias);
}

struct source {
    vkmoe_checkpoint *checkpoint;
    uint32_t layer;
    bool swapped;
    vkmoe_expert_tensors last;
};

static enum vkmoe_status load_expert(void *user, uint32_t expert, vkmoe_expert_tensors *out)
{
    struct source *s = user;
    bool adjugate = expert >= VKMOE_ADJUGATE_EXPERT && expert != VKMOE_SHARED_EXPERT;
    int first = expert == VKMOE_SHARED_EXPERT ? VKMOE_PART_SHARED
                : adjugate                    ? VKMOE_PART_ADJUGATE
                                              : VKMOE_PART_GATE;
    uint32_t i = adjugate ? expert - VKMOE_ADJUGATE_EXPERT : first == VKMOE_PART_GATE ? expert : 0;
    free_expert(&s->last);
    s->last = expert_of(s->checkpoint, s->layer, first, i, s->swapped);
    *out = s->last;
    return VKMOE_OK;
}

static struct verdict run_values(const struct golden *g, vkmoe_checkpoint *checkpoint,
                                 const vkmoe_layer_desc *layer, bool swapped)
{
    float *v[VKMOE_PART_GATE];
    struct source source = {checkpoint, g->layer, swapped, {{0}}};
    vkmoe_layer_desc desc = *layer;
    vkmoe_weights *weights;
    desc.in_type = desc.out_type = desc.latent_type = VKMOE_F32;
    desc.shared_in_type = desc.shared_out_type = VKMOE_F32;
    desc.own_shared_types = false;
    for (int i = 0; i < VKMOE_PART_GATE; i++)
        v[i] = values_of(checkpoint, g->layer, i, 0);
    const vkmoe_router_tensors router = {
        .weight = {.data = v[VKMOE_PART_ROUTER], .type = VKMOE_F32},
        .bias = v[VKMOE_PART_ROUTER_BIAS],
        .selection_bias = v[VKMOE_PART_SELECTION_BIAS],
        .shared_gate = v[VKMOE_PART_SHARED_GATE],
        .shared_gate_bias = v[VKMOE_PART_SHARED_GATE_BIAS],
        .expert_scale = v[VKMOE_PART_EXPERT_SCALE],
        .prenorm_scale = v[VKMOE_PART_PRENORM_SCALE],
    };
    const vkmoe_latent_tensors latent = {{.data = v[VKMOE_PART_LATENT_DOWN], .type = VKMOE_F32},
                                         {.data = v[VKMOE_PART_LATENT_UP], .type = VKMOE_F32},
                                         v[VKMOE_PART_LATENT_NORM]};
    vkmoe_weights_desc make = vkmoe_weights_desc_init();
    make.layer = &desc;
    make.router = &router;
    make.latent = desc.d_latent ? &latent : NULL;
    make.out_bias = v[VKMOE_PART_OUT_BIAS];
    make.load_expert = load_expert;
    make.load_user = &source;
    need(vkmoe_weights_create(context, &make, &weights), g->model);
    struct verdict verdict = run(g, &desc, weights);
    vkmoe_weights_destroy(weights);
    free_expert(&source.last);
    for (int i = 0; i < VKMOE_PART_GATE; i++)
        free(v[i]);
    return verdict;
}

// ---- one block -------------------------------------------------------------------------------

static bool check_block(const json_t *row, bool both_ways)
{
    struct golden g;
    vkmoe_checkpoint *checkpoint;
    vkmoe_layer_desc layer;
    vkmoe_weights *weights;
    vkmoe_load_report report;
    read_golden(row, &g);
    need(vkmoe_checkpoint_open(path_of(g.model), NULL, &checkpoint), g.model);
    need(vkmoe_checkpoint_load(checkpoint, context, g.layer, NULL, &layer, &weights, &report),
         g.model);
    struct verdict verdict = run(&g, &layer, weights);
    bool exact = true, close = true;
    for (uint32_t i = 0; i < report.n_parts; i++) {
        exact &= report.parts[i].exact;
        close &= report.parts[i].error < max_conversion;
    }
    // What a conversion changed is not in the golden; the values below are.
    bool right = exact ? is_right(&verdict) : close && verdict.n_wrong == 0;
    printf("%-36s y %.1e  gates %.1e  ids %u wrong  %s\n", g.model, verdict.error,
           verdict.gate_error, verdict.n_wrong, right ? "ok" : "WRONG");
    // A table is no weights, and cannot be read as such.
    if (right && both_ways && layer.select != VKMOE_SELECT_TABLE) {
        verdict = run_values(&g, checkpoint, &layer, false);
        if (!is_right(&verdict)) {
            printf("    from values: y %.1e\n", verdict.error);
            right = false;
        }
        verdict = run_values(&g, checkpoint, &layer, true);
        if (is_right(&verdict)) {
            printf("    two swapped rows go unnoticed\n");
            right = false;
        }
    }
    vkmoe_weights_destroy(weights);
    vkmoe_checkpoint_destroy(checkpoint);
    free_golden(&g);
    return right;
}

static bool is_among(const char *name, char **names, int n)
{
    bool found = n == 0;
    for (int i = 0; i < n; i++)
        found = found || strcmp(names[i], name) == 0;
    return found;
}

int main(int argc, char **argv)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    json_error_t error;
    uint32_t n = 0, n_wrong = 0;
    if (argc < 3)
        return 2;
    folder = argv[2];
    desc.device = argv[1];
    desc.cache_dir = "";
    need(vkmoe_context_create(&desc, &context), argv[1]);
    json_t *list = json_load_file(path_of("families.json"), 0, &error);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *row = json_array_get(list, i);
        const char *model = json_string_value(json_object_get(row, "model"));
        if (!is_among(model, argv + 3, argc - 3))
            continue;
        n_wrong += !check_block(row, strcmp(argv[1], "vulkan") != 0 || n % 10 == 0);
        n++;
    }
    json_decref(list);
    vkmoe_context_destroy(context);
    printf("%u blocks, %u wrong\n", n, n_wrong);
    return n > 0 && n + 3 >= (uint32_t) argc && n_wrong == 0 ? 0 : 1;
}
