// SPDX-License-Identifier: MIT
// The oracle's gradients against central finite differences of the oracle itself, over every rule
// of the router and every activation.
//
// The difference over two steps, h and 2h, is extrapolated (Richardson): (4 D(h) - D(2h)) / 3 has
// an error of h^4 / 30 times a fifth derivative. Weights are multiples of 2^-23 below 1, so that a
// weight moved by a step is an f32 number again and the step is exact. The selection, relu and the
// maximum of a norm are smooth only away from ties and kinks; points near one are drawn again.
#include "check.h"
#include "ref_problem.h"

#include "core/ref_route.h"

static const double h = 0x1p-12;
static const double margin = 10 * 2 * 0x1p-12; // from kinks and ties

// ---- finite differences -----------------------------------------------------------------------

// sum(dy * y) of the weights as they are; *magnitude: the sum of its terms' magnitudes.
static double loss(struct problem *p, double *magnitude)
{
    double sum = 0, most = 0;
    problem_run(p);
    for (uint32_t i = 0; i < N_TOKENS * p->data.layer.d_out; i++) {
        double term = p->dy[i] * p->run->values[MOE_VALUE_Y][i];
        sum += term;
        most += fabs(term);
    }
    if (magnitude)
        *magnitude = most;
    return sum;
}

static double loss_moved(struct problem *p, const struct place *place, uint32_t i, double by)
{
    if (!place->weights) {
        double *x = &p->run->values[MOE_VALUE_X][i], before = *x;
        *x = before + by;
        double moved = loss(p, NULL);
        *x = before;
        return moved;
    }
    float *w = &place->weights[i], before = *w;
    *w = (float) ((double) before + by);
    assert_true((double) *w - (double) before == by);
    double moved = loss(p, NULL);
    *w = before;
    return moved;
}

// The gradient in `fd`, the error it may have as result. Rounding: some 64 roundings of terms of
// the loss, divided by the step. The fifth derivative by one weight is below 2^20 times the loss's
// magnitude for weights below 1 and these activations.
static double finite_differences(struct problem *p, double *fd)
{
    double magnitude;
    loss(p, &magnitude);
    for (uint32_t j = 0; j < p->n_places; j++) {
        for (uint32_t i = 0; i < p->places[j].n; i++) {
            double d1 = loss_moved(p, &p->places[j], i, h) - loss_moved(p, &p->places[j], i, -h);
            double d2 =
                loss_moved(p, &p->places[j], i, 2 * h) - loss_moved(p, &p->places[j], i, -2 * h);
            *fd++ = (4 * d1 / (2 * h) - d2 / (4 * h)) / 3;
        }
    }
    problem_run(p);
    return (64 * 0x1p-53 / h + h * h * h * h / 30 * 0x1p20) * (1 + magnitude);
}

// Is every gradient within the bound? Else *place and *i say which is not.
static bool agrees(const struct problem *p, const double *fd, double bound, uint32_t *place,
                   uint32_t *i)
{
    const double *got = p->grads->memory;
    for (*place = 0; *place < p->n_places; ++*place) {
        for (*i = 0; *i < p->places[*place].n; ++*i) {
            if (!(fabs(*got++ - *fd++) <= bound))
                return false;
        }
    }
    return true;
}

// ---- away from kinks and ties -----------------------------------------------------------------

static bool is_kinked(enum vkmoe_act act)
{
    return act == VKMOE_ACT_RELU || act == VKMOE_ACT_RELU2;
}

static bool expert_is_smooth(const struct problem *p, const struct moe_ref_expert *w,
                             uint32_t d_ff, const double *x, const double *hidden)
{
    const vkmoe_layer_desc *layer = &p->data.layer;
    for (uint32_t i = 0; i < d_ff && is_kinked(layer->act); i++) {
        double v = layer->gated ? moe_ref_dot(w->gate, w->gate_bias, i, layer->d_model, x)
                                : moe_ref_dot(w->up, w->up_bias, i, layer->d_model, x);
        if (fabs(v) < margin)
            return false;
    }
    for (uint32_t o = 0; o < layer->d_out && is_kinked(layer->act_out); o++) {
        if (fabs(moe_ref_dot(w->down, w->down_bias, o, d_ff, hidden)) < margin)
            return false;
    }
    return true;
}

// The last selected expert and the first that is not are far apart in what ranks them, and the sum
// of the selected scores is far from the eps of a maximum.
static bool routing_is_smooth(const struct problem *p, uint32_t t)
{
    const vkmoe_layer_desc *layer = &p->data.layer;
    const double *ranking = p->run->values[MOE_VALUE_SCORES] + t * layer->n_experts;
    const double *ids = p->run->values[MOE_VALUE_IDS] + t * layer->top_k;
    const double *x = p->run->values[MOE_VALUE_X] + t * layer->d_model;
    double last = ranking[(int) ids[layer->top_k - 1]], logits[8], scores[8], sum = 0;
    uint32_t n_close = 0;
    for (uint32_t e = 0; e < layer->n_experts; e++) {
        n_close += ranking[e] < last && last - ranking[e] < margin;
        logits[e] = moe_ref_dot(p->weights.router, p->weights.router_bias, e, layer->d_model, x);
    }
    moe_ref_score(layer->score, logits, layer->n_experts, scores);
    for (uint32_t k = 0; k < layer->top_k; k++)
        sum += scores[(int) ids[k]];
    if (layer->gate_source == VKMOE_GATE_SOFTMAX_SELECTED)
        sum = 1;
    return n_close == 0 && (layer->norm != VKMOE_NORM_MAX_SUM_EPS ||
                            fabs(sum - (double) layer->norm_eps) >= margin);
}

static bool is_smooth(struct problem *p)
{
    const vkmoe_layer_desc *layer = &p->data.layer;
    double *const *values = p->run->values;
    bool smooth = true;
    problem_run(p);
    for (uint32_t t = 0; t < N_TOKENS; t++) {
        const double *x = values[MOE_VALUE_X] + t * layer->d_model;
        smooth = smooth && routing_is_smooth(p, t);
        for (uint32_t slot = t * layer->top_k; slot < (t + 1) * layer->top_k; slot++)
            smooth = smooth &&
                     expert_is_smooth(p, &p->weights.experts[(int) values[MOE_VALUE_IDS][slot]],
                                      layer->d_ff, x, values[MOE_VALUE_H] + slot * layer->d_ff);
        if (layer->d_shared_ff > 0)
            smooth = smooth &&
                     expert_is_smooth(p, &p->weights.shared, layer->d_shared_ff, x,
                                      values[MOE_VALUE_H_SHARED] + t * layer->d_shared_ff);
    }
    return smooth;
}

static uint32_t n_drawn, n_kept;

// The first point of this layer that is smooth.
static void draw(struct problem *p, const vkmoe_layer_desc *layer, uint32_t seed)
{
    for (uint32_t i = 0; i < 50; i++) {
        problem_init(p, layer, seed + 77777 * i);
        n_drawn++;
        if (is_smooth(p)) {
            n_kept++;
            return;
        }
        problem_finish(p);
    }
    fail_msg("case %u: no point away from kinks", seed);
}

// ---- cases ------------------------------------------------------------------------------------

enum { N_ROUTER_CASES = 2 * 2 * 2 * 5 * 3, N_EXPERT_CASES = 8 * 8 * 2 };

// Every combination of the router's rules; the sum of the selected is above and below an eps.
static vkmoe_layer_desc router_case(uint32_t i)
{
    static const struct {
        enum vkmoe_norm norm;
        float eps;
    } norms[] = {{VKMOE_NORM_NONE, 0},
                 {VKMOE_NORM_SUM_PLUS_EPS, 0},
                 {VKMOE_NORM_SUM_PLUS_EPS, 0.5f},
                 {VKMOE_NORM_MAX_SUM_EPS, 0.0625f},
                 {VKMOE_NORM_MAX_SUM_EPS, 8}};
    static const uint32_t top_k[] = {1, 2, 4};
    vkmoe_layer_desc layer = small_layer(i);
    layer.score = (enum vkmoe_score) (i % 2);
    layer.rank = (enum vkmoe_rank) (i / 2 % 2);
    layer.gate_source = (enum vkmoe_gate_source) (i / 4 % 2);
    layer.norm = norms[i / 8 % 5].norm;
    layer.norm_eps = norms[i / 8 % 5].eps;
    layer.top_k = top_k[i / 40];
    return layer;
}

// Every combination of activations.
static vkmoe_layer_desc expert_case(uint32_t i)
{
    vkmoe_layer_desc layer = small_layer(i);
    layer.act = (enum vkmoe_act) (i % 8);
    layer.act_out = (enum vkmoe_act) (i / 8 % 8);
    layer.gated = i / 64 == 1;
    layer.gate_bias = layer.gated && i % 3 != 0;
    return layer;
}

// ---- changed definitions: each has to be noticed ----------------------------------------------

enum { N_CHANGES = 11 };

static uint32_t n_seen[N_CHANGES]; // cases that noticed

static void change(vkmoe_layer_desc *layer, uint32_t which)
{
    float *const factors[] = {&layer->norm_eps,  &layer->routed_scale, &layer->act_alpha,
                              &layer->c_routed, &layer->c_shared,     &layer->out_scale};
    switch (which) {
    case 0:
        layer->score = (enum vkmoe_score) !layer->score;
        break;
    case 1:
        layer->gate_source = (enum vkmoe_gate_source) !layer->gate_source;
        break;
    case 2:
        layer->norm = (enum vkmoe_norm) ((layer->norm + 1) % 3);
        break;
    case 3:
        layer->act = (enum vkmoe_act) ((layer->act + 1) % 8);
        break;
    case 4:
        layer->act_out = (enum vkmoe_act) ((layer->act_out + 1) % 8);
        break;
    default:
        *factors[which - 5] += 0x1p-20f;
    }
}

// The backward pass of a slightly other layer, on the same forward run.
static void try_changes(struct problem *p, const double *fd, double bound)
{
    uint32_t place, i;
    const vkmoe_layer_desc before = p->graph.layer.desc;
    for (uint32_t c = 0; c < N_CHANGES; c++) {
        change(&p->graph.layer.desc, c);
        problem_backward(p);
        n_seen[c] += !agrees(p, fd, bound, &place, &i);
        p->graph.layer.desc = before;
    }
}

// One gradient of each tensor that is off by 2^-20.
static void try_wrong_elements(struct problem *p, const double *fd, double bound)
{
    uint32_t place, i;
    double *first = p->grads->memory;
    problem_backward(p);
    for (uint32_t j = 0; j < p->n_places; j++) {
        double *wrong = &first[p->places[j].n / 2], before = *wrong;
        *wrong += 0x1p-20;
        assert_false(agrees(p, fd, bound, &place, &i));
        assert_int_equal(place, j);
        *wrong = before;
        first += p->places[j].n;
    }
}

static void check_cases(vkmoe_layer_desc (*make)(uint32_t i), uint32_t n)
{
    static double fd[MAX_GRADS];
    for (uint32_t c = 0; c < n; c++) {
        struct problem p;
        uint32_t place, i;
        vkmoe_layer_desc layer = make(c);
        draw(&p, &layer, c);
        double bound = finite_differences(&p, fd);
        problem_backward(&p);
        if (!agrees(&p, fd, bound, &place, &i))
            fail_msg("case %u: %s[%u] (place %u) is not within %g of its finite difference", c,
                     p.places[place].name, i, place, bound);
        try_wrong_elements(&p, fd, bound);
        try_changes(&p, fd, bound);
        problem_finish(&p);
    }
}

static void test_finite_differences(void **state)
{
    (void) state;
    check_cases(router_case, N_ROUTER_CASES);
    check_cases(expert_case, N_EXPERT_CASES);
    print_message("%u of %u points kept\n", n_kept, n_drawn);
    assert_true(n_kept == N_ROUTER_CASES + N_EXPERT_CASES);
    assert_true(n_drawn < 2 * n_kept);
    for (uint32_t c = 0; c < N_CHANGES; c++) {
        if (n_seen[c] == 0)
            fail_msg("change %u of the layer was never noticed", c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_finite_differences)};
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
