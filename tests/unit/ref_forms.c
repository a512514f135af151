// SPDX-License-Identifier: MIT
// The oracle on layers with anything in any field, against a second program in another style: it
// keeps a table of all tokens by all experts, orders by counting who beats whom, and sums over
// experts instead of slots.
#include "check.h"
#include "fixture.h"

#include "core/layer.h"

#include <stdlib.h>

enum { N_TOKENS = 7, MAX_WIDTH = 32, MAX_SCORED = 80, N_LAYERS = 400 };

// A (token, expert) pair: k is its place in selection, -1 if it has none.
struct cell {
    int k;
    double w, score, logit, q;
};

struct table {
    const struct layer_data *data;
    struct cell cells[N_TOKENS][MAX_SCORED];
};

static double sigmoid(double v)
{
    return v >= 0 ? 1 / (1 + exp(-v)) : 1 - 1 / (1 + exp(v));
}

static double dot(const float *w, const double *x, uint32_t n, const float *bias, uint32_t row)
{
    double sum = 0;
    for (uint32_t i = n; i-- > 0;)
        sum += (double) w[(size_t) row * n + i] * x[i];
    return sum + (bias ? (double) bias[row] : 0);
}

// x of length sqrt(n), nearly, times what else there is.
static void to_unit(double *x, uint32_t n, float eps, const float *scale, float factor)
{
    double mean = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += x[i] / n * x[i];
    for (uint32_t i = 0; i < n; i++)
        x[i] *= (double) factor * (double) scale[i] * pow(mean + (double) eps, -0.5);
}

// ---- scores and ranks -------------------------------------------------------------------------

static void fill_scores(const struct layer_data *data, const double *h, struct cell *row)
{
    const vkmoe_layer_desc *l = &data->layer;
    const uint32_t n = moe_layer_n_scored(l);
    double all = 0;
    for (uint32_t e = 0; e < n; e++) {
        double v = dot(data->router.weight.data, h, l->d_model, data->router.bias, e);
        double c = (double) l->logit_softcap;
        row[e].logit = c > 0 ? c * (2 * sigmoid(2 * v / c) - 1) : v;
        all += exp(row[e].logit);
    }
    for (uint32_t e = 0; e < n; e++) {
        double v = row[e].logit;
        const double scores[] = {exp(v) / all, sigmoid(v), sqrt(log(1 + exp(v))), fmax(v, 0), v};
        row[e].score = scores[l->score];
        const double ranks[] = {row[e].score, v, sigmoid(v)};
        row[e].q = ranks[l->select == VKMOE_SELECT_SPARSEMIXER ? VKMOE_RANK_LOGIT : l->rank];
        if (data->router.selection_bias)
            row[e].q += (double) data->router.selection_bias[e];
    }
}

static int falling(const void *a, const void *b)
{
    double p = *(const double *) a, q = *(const double *) b;
    return (p < q) - (p > q);
}

static void mask(const vkmoe_layer_desc *l, struct cell *row)
{
    double group[MAX_SCORED] = {0};
    if (l->n_group < 2)
        return;
    const uint32_t size = l->n_experts / l->n_group;
    const uint32_t counted[] = {1, 2, l->top_k / l->topk_group};
    for (uint32_t g = 0; g < l->n_group; g++) {
        double sorted[MAX_SCORED];
        for (uint32_t i = 0; i < size; i++)
            sorted[i] = row[g * size + i].q;
        qsort(sorted, size, sizeof *sorted, falling);
        for (uint32_t i = 0; i < counted[l->group_score]; i++)
            group[g] += sorted[i];
    }
    for (uint32_t g = 0; g < l->n_group; g++) {
        uint32_t n_better = 0;
        for (uint32_t o = 0; o < l->n_group; o++)
            n_better += group[o] > group[g] || (group[o] == group[g] && o < g);
        for (uint32_t e = g * size; e < (g + 1) * size && n_better >= l->topk_group; e++)
            row[e].q = l->group_fill_zero ? 0 : -HUGE_VAL;
    }
}

// ---- selection --------------------------------------------------------------------------------

// Sets k of all experts by rank, whether or not that is below top_k.
static void order(const struct layer_data *data, struct cell *row, int32_t token_id)
{
    const vkmoe_layer_desc *l = &data->layer;
    const int n = (int) moe_layer_n_scored(l);
    for (int e = 0; e < n; e++) {
        row[e].k = 0;
        for (int o = 0; o < n; o++)
            row[e].k += row[o].q > row[e].q || (row[o].q == row[e].q && o < e);
    }
    if (l->select != VKMOE_SELECT_TABLE)
        return;
    for (int e = 0; e < n; e++)
        row[e].k = n;
    for (uint32_t k = 0; k < l->top_k; k++)
        row[data->table[(uint32_t) token_id * l->top_k + k]].k = (int) k;
}

// Is the slot of this expert used, by the scores of those before it?
static bool is_used(const vkmoe_layer_desc *l, const struct cell *row, uint32_t e)
{
    double before = 0;
    if (row[e].k >= (int) l->top_k)
        return false;
    for (uint32_t o = 0; o < moe_layer_n_scored(l); o++)
        before += row[o].k < row[e].k ? row[o].score : 0;
    if (row[e].k > 0 && l->select == VKMOE_SELECT_TOP_P)
        return before < (double) l->select_p;
    return row[e].k == 0 || l->select != VKMOE_SELECT_THRESHOLD || row[e].q >= (double) l->select_p;
}

// By definition, of expert e among those that do not come before it.
static double mixed(const vkmoe_layer_desc *l, const struct cell *row, uint32_t e)
{
    double sum = 0, m = row[e].logit;
    for (uint32_t o = 0; o < l->n_experts; o++) {
        double by = fabs(row[o].logit) > m ? fabs(row[o].logit) : m;
        if (row[o].k >= row[e].k && (m - row[o].logit) / by <= 2 * (double) l->sparsemixer_eps)
            sum += exp(row[o].logit);
    }
    return exp(m) / sum;
}

static void select_of_token(const struct layer_data *data, struct cell *row, int32_t token_id)
{
    const vkmoe_layer_desc *l = &data->layer;
    const uint32_t n = moe_layer_n_scored(l);
    double of_selected = 0;
    bool used[MAX_SCORED];
    order(data, row, token_id);
    for (uint32_t e = 0; e < n; e++) {
        used[e] = is_used(l, row, e);
        of_selected += used[e] ? exp(row[e].logit) : 0;
    }
    for (uint32_t e = 0; e < n; e++) {
        row[e].w = l->gate_source == VKMOE_GATE_SCORE ? row[e].score
                                                      : exp(row[e].logit) / of_selected;
        if (l->select == VKMOE_SELECT_SPARSEMIXER)
            row[e].w = mixed(l, row, e);
    }
    for (uint32_t e = 0; e < n; e++)
        row[e].k = used[e] ? row[e].k : -1;
}

static void norm_of_token(const struct layer_data *data, struct cell *row)
{
    const vkmoe_layer_desc *l = &data->layer;
    double p = (double) l->norm_p, eps = (double) l->norm_eps, sum = 0;
    for (uint32_t e = 0; e < moe_layer_n_scored(l); e++)
        sum += row[e].k >= 0 ? pow(fabs(row[e].w), p) : 0; // weights are positive where p is 1
    sum = pow(sum, 1 / p);
    const double by[] = {1, sum + eps, fmax(sum, eps)};
    for (uint32_t e = 0; e < moe_layer_n_scored(l); e++) {
        row[e].w *= (double) l->routed_scale / by[l->norm];
        if (data->router.expert_scale)
            row[e].w *= (double) data->router.expert_scale[e];
    }
}

// ---- capacity ---------------------------------------------------------------------------------

// Does the slot of token a with expert e come before that of token b?
static bool is_before(const struct table *table, uint32_t e, uint32_t a, uint32_t b)
{
    const struct cell *p = &table->cells[a][e], *q = &table->cells[b][e];
    if (table->data->layer.capacity_mode == VKMOE_CAPACITY_BY_POSITION)
        return p->k < q->k || (p->k == q->k && a < b);
    return p->w > q->w || (p->w == q->w && a < b);
}

static void drop(struct table *table)
{
    const vkmoe_layer_desc *l = &table->data->layer;
    bool kept[N_TOKENS][MAX_SCORED];
    uint32_t rows = l->capacity_rows ? l->capacity_rows : N_TOKENS;
    for (uint32_t t = 0; t < N_TOKENS; t++) {
        uint32_t first = t / rows * rows, end = first + rows < N_TOKENS ? first + rows : N_TOKENS;
        double places = l->capacity ? l->capacity
                                    : ceil((double) l->capacity_factor * l->top_k *
                                           (end - first) / l->n_experts);
        for (uint32_t e = 0; e < l->n_experts; e++) {
            uint32_t n_before = 0;
            for (uint32_t o = first; o < end; o++)
                n_before += table->cells[o][e].k >= 0 && is_before(table, e, o, t);
            kept[t][e] = n_before < places;
        }
    }
    for (uint32_t t = 0; t < N_TOKENS; t++)
        for (uint32_t e = 0; e < l->n_experts; e++)
            table->cells[t][e].k = kept[t][e] ? table->cells[t][e].k : -1;
}

// ---- experts ----------------------------------------------------------------------------------

static double activate(const vkmoe_layer_desc *l, enum vkmoe_act act, double v)
{
    double pi = acos(-1), b = (double) l->situ_beta;
    const double values[] = {
        v,
        v / (1 + exp(-(double) l->act_alpha * v)),
        v * erfc(-v / sqrt(2)) / 2,
        v * sigmoid(2 * sqrt(2 / pi) * (v + 0.044715 * pow(v, 3))),
        fmax(v, 0),
        pow(fmax(v, 0), 2),
        sigmoid(v),
        2 * sigmoid(2 * v) - 1,
        act == VKMOE_ACT_SITU ? b * (1 - 2 / (exp(2 * v / b) + 1)) * sigmoid(v) : 0,
    };
    return values[act];
}

static double hidden(const vkmoe_layer_desc *l, double limit, double g, double u)
{
    double lambda = (double) l->situ_lambda;
    if (!l->gated)
        return activate(l, l->act, u);
    if (l->clamp != VKMOE_CLAMP_NONE)
        u = fmax(-limit, fmin(u, limit));
    if (l->act == VKMOE_ACT_SITU && lambda > 0)
        u = lambda * (1 - 2 / (exp(2 * u / lambda) + 1));
    u += (double) l->up_add;
    if (l->clamp == VKMOE_CLAMP_BEFORE_ACT)
        return u * activate(l, l->act, fmin(g, limit));
    double a = activate(l, l->act, g);
    return u * (l->clamp == VKMOE_CLAMP_AFTER_ACT ? fmin(a, limit) : a);
}

// Adds factor * expert(scale * x) to y, hidden unit by hidden unit.
static void add_expert(const struct moe_layer *layer, uint32_t index,
                       const vkmoe_expert_tensors *expert, const double *x, double scale,
                       double factor, double *y)
{
    const vkmoe_layer_desc *l = &layer->desc;
    const struct moe_expert_shape shape = moe_layer_expert_shape(layer, index);
    const double limit = (double) (index == VKMOE_SHARED_EXPERT ? l->limit_shared : l->limit);
    double in[MAX_WIDTH], out[MAX_WIDTH];
    for (uint32_t i = 0; i < shape.d_in; i++)
        in[i] = x[i] * scale;
    for (uint32_t o = 0; o < shape.d_out; o++)
        out[o] = expert->down_bias ? (double) expert->down_bias[o] : 0;
    for (uint32_t j = 0; j < shape.d_ff; j++) {
        double u = dot(expert->up.data, in, shape.d_in, expert->up_bias, j);
        double g = l->gated ? dot(expert->gate.data, in, shape.d_in, expert->gate_bias, j) : 0;
        for (uint32_t o = 0; o < shape.d_out; o++)
            out[o] += hidden(l, limit, g, u) *
                      (double) ((const float *) expert->down.data)[(size_t) o * shape.d_ff + j];
    }
    for (uint32_t o = 0; o < shape.d_out; o++)
        y[o] += factor * activate(l, l->act_out, out[o]);
}

static void run_token(const struct layer_data *data, const struct cell *row, const double *x,
                      double *y)
{
    const vkmoe_layer_desc *l = &data->layer;
    const struct moe_layer layer = {*l};
    const uint32_t d_to = moe_layer_routed_out(l);
    double z[MAX_WIDTH], r[MAX_WIDTH] = {0}, shared[MAX_WIDTH] = {0};
    memcpy(z, x, l->d_model * sizeof *z);
    for (uint32_t i = 0; i < l->d_latent; i++)
        z[i] = dot(data->latent.down.data, x, l->d_model, NULL, i);
    for (uint32_t e = 0; e < moe_layer_n_scored(l); e++) {
        double in = l->weight_on_input ? row[e].w : 1, after = l->weight_on_input ? 1 : row[e].w;
        if (row[e].k < 0)
            continue;
        for (uint32_t o = 0; o < d_to && e >= l->n_experts; o++)
            r[o] += row[e].w * z[o];
        if (e >= l->n_experts)
            continue;
        add_expert(&layer, e, &data->experts[e], z, in, after, r);
        if (l->adjugate_group > 0)
            add_expert(&layer, VKMOE_ADJUGATE_EXPERT, &data->adjugates[e / l->adjugate_group], z,
                       in, after * (double) l->adjugate_scale, r);
    }
    if (l->latent_norm)
        to_unit(r, l->d_latent, l->latent_norm_eps, data->latent.norm, 1);
    if (l->d_shared_ff > 0)
        add_expert(&layer, VKMOE_SHARED_EXPERT, &data->shared, x, 1, 1, shared);
    double c_r = (double) l->c_routed, c_s = (double) l->c_shared;
    const float *gate = data->router.shared_gate, *bias = data->router.shared_gate_bias;
    if (gate) {
        double a = dot(gate, x, l->d_model, bias, 0);
        if (l->shared_gate == VKMOE_SHARED_SIGMOID) {
            c_s *= sigmoid(a);
        } else {
            double b = dot(gate, x, l->d_model, bias, 1);
            c_r *= sigmoid(a - b);
            c_s *= sigmoid(b - a);
        }
    }
    for (uint32_t o = 0; o < l->d_out; o++) {
        double routed = l->d_latent ? dot(data->latent.up.data, r, l->d_latent, NULL, o) : r[o];
        if (data->desc.out_bias)
            routed += (double) data->desc.out_bias[o];
        y[o] = (double) l->out_scale * (c_r * routed + c_s * shared[o]);
    }
}

// ---- comparisons ------------------------------------------------------------------------------

struct inputs {
    float x[N_TOKENS * MAX_WIDTH], router_x[N_TOKENS * MAX_WIDTH];
    int32_t token_ids[N_TOKENS];
};

struct outputs {
    float y[N_TOKENS * MAX_WIDTH], gates[N_TOKENS * MAX_SCORED], scores[N_TOKENS * MAX_SCORED];
    int32_t ids[N_TOKENS * MAX_SCORED];
};

static void route_all(const struct layer_data *data, const struct inputs *in, struct table *table)
{
    const vkmoe_layer_desc *l = &data->layer;
    table->data = data;
    for (uint32_t t = 0; t < N_TOKENS; t++) {
        double h[MAX_WIDTH];
        for (uint32_t i = 0; i < l->d_model; i++)
            h[i] = (double) (l->router_input ? in->router_x : in->x)[t * l->d_model + i];
        if (l->router_prenorm)
            to_unit(h, l->d_model, l->prenorm_eps, data->router.prenorm_scale, l->prenorm_const);
        fill_scores(data, h, table->cells[t]);
        mask(l, table->cells[t]);
        select_of_token(data, table->cells[t], in->token_ids[t]);
        if (!l->capacity_renorm)
            norm_of_token(data, table->cells[t]);
    }
    if (l->capacity_mode != VKMOE_CAPACITY_NONE)
        drop(table);
    for (uint32_t t = 0; t < N_TOKENS && l->capacity_renorm; t++)
        norm_of_token(data, table->cells[t]);
}

static void run_device(const struct layer_data *data, const struct inputs *in, struct outputs *out)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "reference";
    struct stack stack;
    vkmoe_io io = vkmoe_io_init();
    io.x = in->x, io.y = out->y, io.ids = out->ids, io.gates = out->gates;
    io.scores = out->scores;
    io.router_x = data->layer.router_input ? in->router_x : NULL;
    io.token_ids = data->layer.select == VKMOE_SELECT_TABLE ? in->token_ids : NULL;
    check_ok(stack_create(&stack, &desc, data, N_TOKENS, true));
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    stack_destroy(&stack);
}

static bool is_near(double got, double want, double scale)
{
    return got == want || fabs(got - want) <= 4e-7 * scale; // rounded to f32 once
}

// What is wrong with the outputs; NULL if nothing is.
static const char *differs(const struct layer_data *data, const struct inputs *in,
                           const struct outputs *out)
{
    static struct table table;
    const vkmoe_layer_desc *l = &data->layer;
    const uint32_t n = moe_layer_n_scored(l);
    route_all(data, in, &table);
    for (uint32_t t = 0; t < N_TOKENS; t++) {
        double x[MAX_WIDTH], y[MAX_WIDTH], most = 0;
        uint32_t n_used = 0, n_want = 0;
        for (uint32_t e = 0; e < n; e++) {
            const struct cell *cell = &table.cells[t][e];
            n_want += cell->k >= 0;
            if (!is_near((double) out->scores[t * n + e], cell->q, 1 + fabs(cell->q)))
                return "scores";
            if (cell->k >= 0 && out->ids[t * l->top_k + (uint32_t) cell->k] != (int32_t) e)
                return "ids";
            if (cell->k >= 0 && !is_near((double) out->gates[t * l->top_k + (uint32_t) cell->k],
                                         cell->w, 1 + fabs(cell->w)))
                return "gates";
        }
        for (uint32_t k = 0; k < l->top_k; k++) {
            bool used = out->ids[t * l->top_k + k] >= 0;
            n_used += used;
            if (!used && (out->ids[t * l->top_k + k] != -1 || out->gates[t * l->top_k + k] != 0))
                return "an unused slot";
        }
        if (n_used != n_want)
            return "the number of slots";
        for (uint32_t i = 0; i < l->d_model; i++)
            x[i] = (double) in->x[t * l->d_model + i];
        run_token(data, table.cells[t], x, y);
        for (uint32_t o = 0; o < l->d_out; o++)
            most = fmax(most, fabs(y[o]));
        for (uint32_t o = 0; o < l->d_out; o++)
            if (!is_near((double) out->y[t * l->d_out + o], y[o], most))
                return "y";
    }
    return NULL;
}

static void fill(const vkmoe_layer_desc *layer, uint32_t seed, struct inputs *in)
{
    fill_random(in->x, N_TOKENS * layer->d_model, seed + 1000);
    fill_inputs(layer, N_TOKENS, seed + 2000, in->router_x, in->token_ids);
}

static void test_random_layers(void **state)
{
    (void) state;
    for (uint32_t seed = 0; seed < N_LAYERS; seed++) {
        static struct inputs in;
        static struct outputs out;
        vkmoe_layer_desc layer = random_layer(seed, 1);
        struct layer_data data;
        layer_data_init(&data, &layer, seed);
        fill(&data.layer, seed, &in);
        run_device(&data, &in, &out);
        const char *what = differs(&data, &in, &out);
        if (what)
            fail_msg("layer %u: %s", seed, what);
        layer_data_finish(&data);
    }
}

// Each form is among the random layers, more than once.
static void test_random_layers_have_all(void **state)
{
    (void) state;
    uint32_t score[5] = {0}, rank[3] = {0}, select[5] = {0}, norm[3] = {0}, act[9] = {0};
    uint32_t clamp[3] = {0}, gate[3] = {0}, capacity[3] = {0}, group[3] = {0}, others[12] = {0};
    for (uint32_t seed = 0; seed < N_LAYERS; seed++) {
        vkmoe_layer_desc l = random_layer(seed, 1);
        score[l.score]++, rank[l.rank]++, select[l.select]++, norm[l.norm]++, act[l.act]++;
        clamp[l.clamp]++, gate[l.shared_gate]++, capacity[l.capacity_mode]++;
        group[l.group_score] += l.n_group > 1;
        const bool has[] = {
            l.router_input, l.router_prenorm, l.n_group > 1 && l.group_fill_zero, l.expert_scale,
            l.n_zero > 0, l.d_latent > 0 && l.latent_norm, l.adjugate_group > 0,
            l.weight_on_input, l.out_bias, l.capacity_renorm, l.shared_gate_bias,
            l.logit_softcap > 0,
        };
        for (size_t i = 0; i < sizeof has / sizeof *has; i++)
            others[i] += has[i];
    }
    const struct {
        const uint32_t *counts;
        size_t n;
    } all[] = {{score, 5}, {rank, 3}, {select, 5}, {norm, 3}, {act, 9}, {clamp, 3}, {gate, 3},
               {capacity, 3}, {group, 3}, {others, 12}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (size_t v = 0; v < all[i].n; v++)
            if (all[i].counts[v] < 3)
                fail_msg("list %zu, value %zu: %u layers", i, v, all[i].counts[v]);
}

// The same comparison notices one changed number of any tensor or input.
static void test_can_fail(void **state)
{
    (void) state;
    static struct inputs in;
    static struct outputs out;
    vkmoe_layer_desc layer = full_layer();
    layer.shared_gate = VKMOE_SHARED_PLAIN;
    layer.router_input = layer.router_prenorm = layer.expert_scale = true;
    layer.prenorm_const = 1;
    layer.d_latent = 4;
    layer.latent_norm = layer.out_bias = true;
    layer.adjugate_group = 5; // one for all
    layer.d_adjugate = 3;
    layer.adjugate_scale = 1;
    layer.top_k = layer.n_experts; // every expert matters
    for (int gate = VKMOE_SHARED_PLAIN; gate <= VKMOE_SHARED_SOFTMAX2; gate++) {
        struct layer_data data;
        layer.shared_gate = (enum vkmoe_shared_gate) gate;
        layer.shared_gate_bias = gate != VKMOE_SHARED_PLAIN;
        if (gate != VKMOE_SHARED_PLAIN)
            layer.router_input = layer.router_prenorm = false;
        layer_data_init(&data, &layer, 7);
        fill(&data.layer, 7, &in);
        run_device(&data, &in, &out);
        assert_null(differs(&data, &in, &out));
        const float *const places[] = {
            data.router.prenorm_scale, data.router.expert_scale, data.router.shared_gate_bias,
            data.latent.down.data, data.latent.up.data, data.latent.norm, data.desc.out_bias,
            data.adjugates[0].gate.data, data.adjugates[0].up.data, data.adjugates[0].down.data,
            data.adjugates[0].down_bias, layer.router_input ? in.router_x : NULL,
        };
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            float *place = (float *) places[i];
            if (!place)
                continue;
            float before = *place;
            *place = before + 0.5f;
            if (!differs(&data, &in, &out))
                fail_msg("tensor %zu has no effect with gate %d", i, gate);
            *place = before;
        }
        layer_data_finish(&data);
    }
}

// An unused slot and an identity expert's run no expert: infinities in weights stay where they are.
static void test_unused_slots_are_skipped(void **state)
{
    (void) state;
    static struct inputs in;
    static struct outputs out;
    vkmoe_layer_desc layer = full_layer();
    struct layer_data data;
    layer.capacity_mode = VKMOE_CAPACITY_BY_POSITION;
    layer.capacity = 1;
    layer_data_init(&data, &layer, 3);
    fill(&data.layer, 3, &in);
    for (uint32_t t = 1; t < N_TOKENS; t++) // all tokens as the first: only that one has its slots
        memcpy(in.x + t * layer.d_model, in.x, layer.d_model * sizeof *in.x);
    run_device(&data, &in, &out);
    uint32_t first = (uint32_t) out.ids[0], second = (uint32_t) out.ids[1];
    ((float *) data.experts[first].down.data)[0] = INFINITY;
    ((float *) data.experts[second].up.data)[0] = INFINITY;
    run_device(&data, &in, &out);
    assert_false(isfinite(out.y[0]));
    for (uint32_t i = layer.d_out; i < N_TOKENS * layer.d_out; i++)
        assert_true(isfinite(out.y[i]));
    assert_true(out.ids[2] == -1 && out.ids[3] == -1 && out.gates[2] == 0 && out.gates[3] == 0);
    layer_data_finish(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_layers),
        cmocka_unit_test(test_random_layers_have_all),
        cmocka_unit_test(test_can_fail),
        cmocka_unit_test(test_unused_slots_are_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
