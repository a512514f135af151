// SPDX-License-Identifier: MIT
// Every form of experts and of what is made of their outputs, against the oracle: expert_forms MODE
// [few], where MODE is bda, descriptors or floor. `few`: a third of the forms, another one in each
// mode, and fewer other layers.
#include "fixture.h"
#include "host.h"
#include "interpose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { DECODE = 3, GROUPED = 75 };

static vkmoe_context_desc context_desc; // of the device under test
static vkmoe_context *device, *oracle;
static bool few;

// ---- runs --------------------------------------------------------------------------------------

// What a run gives.
struct outcome {
    uint32_t n_tokens, top_k, d_out;
    float *y;
    int32_t *ids;
};

static void outcome_init(struct outcome *out, const struct layer_data *data, uint32_t n_tokens)
{
    *out = (struct outcome){n_tokens, data->layer.top_k, data->layer.d_out, NULL, NULL};
    const size_t n_y = (size_t) n_tokens * out->d_out, n_ids = (size_t) n_tokens * out->top_k;
    out->y = malloc(n_y * sizeof *out->y);
    out->ids = malloc(n_ids * sizeof *out->ids);
    assert_true(out->y && out->ids);
    memset(out->y, 0xff, n_y * sizeof *out->y);
}

static void outcome_finish(struct outcome *out)
{
    free(out->y);
    free(out->ids);
}

// A recording with NaN wherever a kernel is to write, and in all of the workspace, gives the same
// rows: nothing is read that was not written.
static void check_poisoned(vkmoe_context *context, vkmoe_weights *weights, vkmoe_plan *plan,
                           const vkmoe_plan_desc *desc, const vkmoe_io *want)
{
    const vkmoe_layer_desc *l = desc->layer;
    const size_t x_row = l->d_model * sizeof(float), y_row = l->d_out * sizeof(float);
    const uint32_t n = desc->max_tokens;
    struct host host;
    struct host_buffer x, y, work;
    struct vkmoe_vk_io io = vkmoe_vk_io_init();
    vkmoe_bind_desc bind_desc = vkmoe_bind_desc_init();
    vkmoe_bind *bind;
    uint64_t work_size;
    check_ok(vkmoe_vk_get_workspace_size(plan, &work_size));
    host_init(&host, context);
    host_buffer_init(&host, n * x_row, &x);
    host_buffer_init(&host, n * y_row, &y);
    host_buffer_init(&host, work_size, &work);
    memcpy(x.mapped, want->x, n * x_row);
    memset(y.mapped, 0xff, y.size);
    memset(work.mapped, 0xff, work.size);
    io.x = (vkmoe_vk_buffer){x.handle, 0, x.size};
    io.y = (vkmoe_vk_buffer){y.handle, 0, y.size};
    io.x_stride = x_row;
    io.y_stride = y_row;
    io.workspace = (vkmoe_vk_buffer){work.handle, 0, work.size};
    bind_desc.vk_io = &io;
    check_ok(vkmoe_bind_create(plan, weights, &bind_desc, &bind));
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(bind, cmd, n, 0, UINT32_MAX));
    host_submit(&host, cmd);
    assert_memory_equal(y.mapped, want->y, n * y_row);
    vkmoe_bind_destroy(bind);
    host_buffer_finish(&host, &x);
    host_buffer_finish(&host, &y);
    host_buffer_finish(&host, &work);
    host_finish(&host);
}

static void run(vkmoe_context *context, const struct layer_data *data,
                const vkmoe_plan_desc *desc, const vkmoe_io *io)
{
    vkmoe_plan_desc plan_desc = *desc;
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
    plan_desc.layer = &data->layer;
    check_ok(vkmoe_weights_create(context, &data->desc, &weights));
    check_ok(vkmoe_plan_create(context, &plan_desc, &plan));
    check_ok(vkmoe_bind_create(plan, weights, NULL, &bind));
    check_ok(vkmoe_run(bind, desc->max_tokens, io));
    vkmoe_bind_destroy(bind);
    if (context == device && !io->router_x && !io->token_ids)
        check_poisoned(context, weights, plan, &plan_desc, io);
    vkmoe_plan_destroy(plan);
    vkmoe_weights_destroy(weights);
    assert_int_equal(vkmoe_context_validation_count(context), 0);
}

static void compute(vkmoe_context *context, const struct layer_data *data,
                    const vkmoe_plan_desc *plan, struct outcome *out)
{
    const vkmoe_layer_desc *l = &data->layer;
    const uint32_t n = plan->max_tokens;
    float *x = malloc(2 * (size_t) n * l->d_model * sizeof *x), *router_x = x + n * l->d_model;
    int32_t *token_ids = calloc(n, sizeof *token_ids);
    assert_true(x && token_ids);
    fill_random(x, (size_t) n * l->d_model, 5);
    fill_inputs(l, n, 6, router_x, token_ids);
    outcome_init(out, data, n);
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = out->y;
    io.ids = out->ids;
    io.router_x = l->router_input ? router_x : NULL;
    io.token_ids = l->select == VKMOE_SELECT_TABLE ? token_ids : NULL;
    run(context, data, plan, &io);
    free(token_ids);
    free(x);
}

static void compute_on(vkmoe_context *context, const struct layer_data *data, uint32_t n_tokens,
                       struct outcome *out)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.max_tokens = n_tokens;
    compute(context, data, &plan, out);
}

// ---- comparison --------------------------------------------------------------------------------

static bool same_ids(const struct outcome *a, const struct outcome *b, uint32_t token)
{
    const size_t first = (size_t) token * a->top_k;
    return memcmp(a->ids + first, b->ids + first, a->top_k * sizeof *a->ids) == 0;
}

// Relative L2 over the rows whose experts agree; infinite for anything that is no number. *n_other:
// rows left out.
static double distance(const struct outcome *got, const struct outcome *want, uint32_t *n_other)
{
    double sum = 0, all = 0;
    *n_other = 0;
    for (uint32_t t = 0; t < want->n_tokens; t++) {
        if (!same_ids(got, want, t)) {
            ++*n_other;
            continue;
        }
        for (uint32_t o = 0; o < want->d_out; o++) {
            const double w = (double) want->y[(size_t) t * want->d_out + o];
            const double g = (double) got->y[(size_t) t * want->d_out + o];
            sum += (g - w) * (g - w);
            all += w * w;
        }
    }
    if (!isfinite(sum) || !isfinite(all))
        return INFINITY;
    return all > 0 ? sqrt(sum / all) : sqrt(sum);
}

// ---- each form alone ---------------------------------------------------------------------------

struct form {
    const char *name;
    void (*set)(vkmoe_layer_desc *layer);
};

#define FORM(name, ...)                       \
    static void name(vkmoe_layer_desc *layer) \
    {                                         \
        __VA_ARGS__;                          \
    }
FORM(situ, layer->act = VKMOE_ACT_SITU; layer->situ_beta = 0.5f; layer->situ_lambda = 0.75f)
FORM(situ_of_gate_alone, layer->act = VKMOE_ACT_SITU; layer->situ_beta = 4)
FORM(situ_ungated, layer->act = VKMOE_ACT_SITU; layer->situ_beta = 0.5f;
     layer->gated = layer->gate_bias = false)
FORM(clamp_before, layer->clamp = VKMOE_CLAMP_BEFORE_ACT; layer->limit = 0.75f;
     layer->limit_shared = 0.5f)
FORM(clamp_after, layer->clamp = VKMOE_CLAMP_AFTER_ACT; layer->limit = 0.75f;
     layer->limit_shared = 0.5f)
FORM(clamp_and_add, clamp_before(layer); layer->up_add = 1; layer->act_alpha = 1.702f)
FORM(up_add, layer->up_add = -0.5f)
FORM(weight_on_input, layer->weight_on_input = true)
FORM(identity_experts, layer->n_zero = 3)
FORM(identity_and_bias, layer->n_zero = 3; layer->out_bias = true)
FORM(identity_weighted, layer->n_zero = 3; layer->weight_on_input = true)
FORM(adjugates, layer->adjugate_group = 2; layer->d_adjugate = 9; layer->adjugate_scale = 0.3f)
FORM(adjugates_weighted, adjugates(layer); layer->weight_on_input = true)
FORM(unused_slots, layer->select = VKMOE_SELECT_TOP_P; layer->select_p = 0.4f)
FORM(unused_and_adjugates, unused_slots(layer); adjugates(layer))
FORM(unused_weighted, unused_slots(layer); layer->weight_on_input = true)
FORM(dropped_slots, layer->capacity_mode = VKMOE_CAPACITY_BY_POSITION; layer->capacity = 2)
FORM(latent, layer->d_latent = 17)
FORM(dropped_latent, dropped_slots(layer); latent(layer))
FORM(latent_norm, latent(layer); layer->latent_norm = true; layer->latent_norm_eps = 0.01f)
FORM(latent_bias, latent_norm(layer); layer->out_bias = true)
FORM(latent_identity, latent(layer); layer->n_zero = 3)
FORM(latent_adjugates, latent_norm(layer); adjugates(layer); layer->weight_on_input = true)
FORM(out_bias, layer->out_bias = true)
FORM(softmax2, layer->shared_gate = VKMOE_SHARED_SOFTMAX2)
FORM(softmax2_latent, latent(layer); layer->shared_gate = VKMOE_SHARED_SOFTMAX2)
FORM(scales, layer->c_routed = -0.5f; layer->c_shared = 3; layer->out_scale = 0.7f)
FORM(shared_types, layer->own_shared_types = true; layer->shared_out_type = VKMOE_F16)

#define ROW(name) {#name, name}
static const struct form forms[] = {
    ROW(situ), ROW(situ_of_gate_alone), ROW(situ_ungated), ROW(clamp_before), ROW(clamp_after),
    ROW(clamp_and_add), ROW(up_add), ROW(weight_on_input), ROW(identity_experts),
    ROW(identity_and_bias), ROW(identity_weighted), ROW(adjugates), ROW(adjugates_weighted),
    ROW(unused_slots), ROW(unused_and_adjugates), ROW(unused_weighted), ROW(dropped_slots),
    ROW(dropped_latent), ROW(latent), ROW(latent_norm), ROW(latent_bias), ROW(latent_identity),
    ROW(latent_adjugates), ROW(out_bias), ROW(softmax2), ROW(softmax2_latent), ROW(scales),
    ROW(shared_types)};
enum { N_FORMS = sizeof forms / sizeof *forms };

static vkmoe_layer_desc base_layer(void)
{
    vkmoe_layer_desc layer = full_layer();
    layer.n_experts = 6;
    layer.top_k = 3;
    layer.d_model = layer.d_out = 37;
    layer.d_ff = 21;
    layer.d_shared_ff = 19;
    return layer;
}

// What the device gives is what the oracle gives, and not what it gives without the form.
static void check_form(const struct form *form, uint32_t n_tokens)
{
    struct layer_data data, plain;
    struct outcome want, got, without;
    uint32_t n_other;
    vkmoe_layer_desc layer = base_layer();
    layer_data_init(&plain, &layer, 3);
    form->set(&layer);
    layer_data_init(&data, &layer, 3);
    compute_on(oracle, &data, n_tokens, &want);
    compute_on(oracle, &plain, n_tokens, &without);
    compute_on(device, &data, n_tokens, &got);
    double d = distance(&got, &want, &n_other);
    if (!(d <= 1e-5) || n_other > 0)
        fail_msg("%s, %u tokens: %g from the oracle, %u rows have other experts", form->name,
                 n_tokens, d, n_other);
    uint32_t n_changed;
    double off = distance(&got, &without, &n_changed);
    if (!(off > 1e-4) && n_changed == 0)
        fail_msg("%s, %u tokens: %g from the oracle without the form", form->name, n_tokens, off);
    outcome_finish(&got);
    outcome_finish(&without);
    outcome_finish(&want);
    layer_data_finish(&data);
    layer_data_finish(&plain);
}

static void each_form(void **state)
{
    (void) state;
    const size_t mode = context_desc.floor ? 0 : (size_t) context_desc.addressing;
    for (size_t i = few ? mode % 3 : 0; i < N_FORMS; i += few ? 3 : 1) {
        check_form(&forms[i], DECODE);
        check_form(&forms[i], GROUPED);
    }
}

// ---- all of them at random ---------------------------------------------------------------------

static void random_layers(void **state)
{
    (void) state;
    const uint32_t n_layers = few ? 4 : 24;
    uint32_t n_rows = 0, n_left_out = 0;
    for (uint32_t seed = 1; seed <= n_layers; seed++) {
        struct layer_data data;
        struct outcome want, got;
        const vkmoe_layer_desc layer = random_layer(seed, 3);
        const uint32_t n_tokens = 1 + seed * 7 % (seed % 3 == 0 ? 4 : 70);
        uint32_t n_other;
        layer_data_init(&data, &layer, seed);
        compute_on(oracle, &data, n_tokens, &want);
        compute_on(device, &data, n_tokens, &got);
        double d = distance(&got, &want, &n_other);
        if (!(d <= 1e-5))
            fail_msg("random layer %u, %u tokens: %g from the oracle", seed, n_tokens, d);
        n_rows += n_tokens;
        n_left_out += n_other;
        outcome_finish(&got);
        outcome_finish(&want);
        layer_data_finish(&data);
    }
    if (n_left_out * 1000 > n_rows)
        fail_msg("%u of %u rows have other experts", n_left_out, n_rows);
}

// ---- small devices -----------------------------------------------------------------------------

// What does not fit into one range, allocation or submission gives the same bits.
static void check_small(const struct form *form, uint32_t n_tokens)
{
    static const struct small {
        struct interpose limits;
        float budget_ms;
    } small[] = {
        {{.max_range = 96 << 10}, 1e6f},
        {{.max_range = 24 << 10}, 1e6f},
        {{.max_range = 96 << 10, .max_allocation = 256 << 10}, 0.1f},
        {{.max_groups = 20}, 0.01f},
    };
    struct layer_data data;
    struct outcome want, got;
    vkmoe_layer_desc layer = base_layer();
    layer.d_model = layer.d_out = 70;
    layer.d_ff = 60;
    form->set(&layer);
    layer.n_experts = 12;
    layer.top_k = 4;
    if (layer.adjugate_group > 0)
        layer.d_adjugate = 55; // a bank that does not fit beside the others
    layer_data_init(&data, &layer, 3);
    compute_on(device, &data, n_tokens, &want);
    for (size_t i = 0; i < sizeof small / sizeof *small; i++) {
        vkmoe_plan_desc plan = vkmoe_plan_desc_init();
        plan.max_tokens = n_tokens;
        plan.budget_ms = small[i].budget_ms;
        interpose = small[i].limits;
        vkmoe_context *context;
        check_ok(vkmoe_context_create(&context_desc, &context));
        compute(context, &data, &plan, &got);
        vkmoe_context_destroy(context);
        interpose = (struct interpose){0};
        if (memcmp(got.y, want.y, (size_t) n_tokens * layer.d_out * sizeof *got.y) != 0)
            fail_msg("%s, %u tokens, small device %zu: other bits", form->name, n_tokens, i);
        outcome_finish(&got);
    }
    outcome_finish(&want);
    layer_data_finish(&data);
}

static void small_devices(void **state)
{
    (void) state;
    static const struct form some[] = {ROW(identity_and_bias), ROW(unused_and_adjugates),
                                       ROW(latent_adjugates)};
    if (few || context_desc.floor)
        return; // the limits of `floor` are clamped by itself
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        check_small(&some[i], DECODE);
        check_small(&some[i], GROUPED);
    }
}

// ---- other variants, other sources -------------------------------------------------------------

// Within the promise of `half`, which the exact run does not need.
static void check_half(const struct form *form, const char *variant)
{
    struct layer_data data;
    struct outcome want, got;
    uint32_t n_other;
    vkmoe_layer_desc layer = base_layer();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.max_tokens = GROUPED;
    plan.precision = VKMOE_PRECISION_HALF;
    plan.variant = variant;
    layer.in_type = layer.out_type = layer.latent_type = VKMOE_F16;
    form->set(&layer);
    layer_data_init(&data, &layer, 3);
    compute_on(oracle, &data, GROUPED, &want);
    compute(device, &data, &plan, &got);
    double d = distance(&got, &want, &n_other);
    if (!(d <= 4e-3) || n_other > 0)
        fail_msg("%s by %s: %g from the oracle, %u rows have other experts", form->name, variant, d,
                 n_other);
    outcome_finish(&got);
    outcome_finish(&want);
    layer_data_finish(&data);
}

// All by a1; by the others, of which a3 and a4 take drivers long, a third, each another one.
static void forms_by_variants(void **state)
{
    (void) state;
    static const char *const others[] = {"a0n", "a3", "a4"};
    if (few || context_desc.addressing != VKMOE_ADDRESSING_BDA)
        return;
    for (size_t i = 0; i < N_FORMS; i++)
        check_half(&forms[i], "a1");
    for (size_t v = 0; v < sizeof others / sizeof *others; v++)
        for (size_t i = v; host_has_variant(device, others[v]) && i < N_FORMS; i += 3)
            check_half(&forms[i], others[v]);
}

static enum vkmoe_status load(void *user, uint32_t expert, vkmoe_expert_tensors *out)
{
    const struct layer_data *data = user;
    *out = expert == VKMOE_SHARED_EXPERT        ? data->shared
           : expert >= VKMOE_ADJUGATE_EXPERT    ? data->adjugates[expert - VKMOE_ADJUGATE_EXPERT]
                                                : data->experts[expert];
    return VKMOE_OK;
}

static void *pack(const struct layer_data *data, uint32_t expert,
                  const vkmoe_expert_tensors *tensors, uint64_t size)
{
    void *block = malloc(size);
    assert_non_null(block);
    check_ok(vkmoe_weights_pack_expert(device, &data->layer, expert, tensors, block, size));
    return block;
}

// Experts that are read one at a time, and packed ones, are the same experts.
static void other_sources(void **state)
{
    (void) state;
    enum { MOST = 16 };
    struct layer_data data;
    struct outcome want, got;
    vkmoe_weights_layout layout;
    void *blocks[2 * MOST] = {0}, *shared;
    vkmoe_layer_desc layer = base_layer();
    adjugates(&layer);
    layer_data_init(&data, &layer, 3);
    compute_on(device, &data, GROUPED, &want);

    const vkmoe_weights_desc tensors = data.desc;
    data.desc.experts = data.desc.adjugates = data.desc.shared = NULL;
    data.desc.load_expert = load;
    data.desc.load_user = &data;
    compute_on(device, &data, GROUPED, &got);
    assert_memory_equal(got.y, want.y, GROUPED * layer.d_out * sizeof *got.y);
    outcome_finish(&got);

    check_ok(vkmoe_weights_get_layout(device, &data.layer, &layout));
    for (uint32_t e = 0; e < layer.n_experts; e++)
        blocks[e] = pack(&data, e, &data.experts[e], layout.expert_size);
    for (uint32_t a = 0; a < layer.n_experts / layer.adjugate_group; a++)
        blocks[MOST + a] = pack(&data, VKMOE_ADJUGATE_EXPERT + a, &data.adjugates[a],
                                layout.adjugate_size);
    shared = pack(&data, VKMOE_SHARED_EXPERT, &data.shared, layout.shared_size);
    data.desc = tensors;
    data.desc.experts = data.desc.adjugates = data.desc.shared = NULL;
    data.desc.packed_experts = (const void *const *) blocks;
    data.desc.packed_adjugates = (const void *const *) blocks + MOST;
    data.desc.packed_shared = shared;
    compute_on(device, &data, GROUPED, &got);
    assert_memory_equal(got.y, want.y, GROUPED * layer.d_out * sizeof *got.y);
    outcome_finish(&got);
    outcome_finish(&want);
    free(shared);
    for (size_t i = 0; i < 2 * MOST; i++)
        free(blocks[i]);
    layer_data_finish(&data);
}

static int open_devices(void **state)
{
    (void) state;
    oracle = context_on("reference", NULL);
    check_ok(vkmoe_context_create(&context_desc, &device));
    return 0;
}

static int close_devices(void **state)
{
    (void) state;
    vkmoe_context_destroy(device);
    vkmoe_context_destroy(oracle);
    return 0;
}

int main(int argc, char **argv)
{
    vkmoe_host services;
    few = argc > 2 && strcmp(argv[2], "few") == 0;
    if (!host_context_desc(few ? argc - 1 : argc, argv, &services, &context_desc)) {
        fprintf(stderr, "usage: expert_forms bda|descriptors|floor [few]\n");
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form),     cmocka_unit_test(random_layers),
        cmocka_unit_test(small_devices), cmocka_unit_test(forms_by_variants),
        cmocka_unit_test(other_sources),
    };
    return cmocka_run_group_tests(tests, open_devices, close_devices) != 0;
}
