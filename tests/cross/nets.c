// SPDX-License-Identifier: MIT
// Whole networks on a device, through the public calls, against the oracle: what EVAL gives, the
// losses, every gradient, of one batch and of several added up, parameters and moments after three
// steps. Every run is repeated on the same network, and by three threads: the same bits.
//
// Bounds, in the L2 norm of a tensor. All numbers of a network are of order 1, sums have at most
// some thousand terms of random signs in f32, and a network is a dozen ops deep: 1e-5 of the
// tensor itself is some hundred roundings. What a tensor is a small difference of is as large as
// the largest tensor of its kind: eight roundings of that are allowed besides. Parameters move by
// what their gradients do: with SGD by at most `rate` times that, by 1 / (1 - momentum) as much
// with momentum, and with Adam, whose denominator is at least adam_eps, by 2 / adam_eps as much.
//
// Arguments: the device; for the CPU its level, for Vulkan words of bda, descriptors, floor and
// validation; both with the word small, which leaves out what is slow; a part of the names of cases
// to run.
#include "check.h"
#include "fixture.h"
#include "nets_edges.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_TENSORS = 192, MAX_NAME = 64 };

static const float rate = 0.03125f, adam_eps = 0.015625f;

// What is compared with others of the same kind.
enum kind { Y, LOSS, GRADIENT, FIRST, SECOND, BOTH, VALUE, MOMENT1, MOMENT2, N_KINDS };
static const char *const kind_names[] = {
    "y", "loss", "gradient", "gradient of the first", "gradient of the second",
    "gradient of both", "value", "first moment of", "second moment of",
};

struct tensor {
    enum kind kind;
    char name[MAX_NAME];
    size_t begin, n;
};

// All that came of a network.
struct record {
    struct tensor tensors[MAX_TENSORS];
    uint32_t n_tensors;
    float *data;
    size_t n, capacity;
    uint32_t n_params; // values at first are the first of all
};

static const char *device, *mode, *part;
static vkmoe_context *reference, *contexts[2]; // one thread, three threads

// ---- records ---------------------------------------------------------------------------------

static float *record_add(struct record *r, enum kind kind, const char *name, size_t n)
{
    assert_true(r->n_tensors < MAX_TENSORS);
    struct tensor *t = &r->tensors[r->n_tensors++];
    while (r->n + n > r->capacity) {
        r->capacity = 2 * r->capacity + n;
        r->data = realloc(r->data, r->capacity * sizeof *r->data);
        assert_non_null(r->data);
    }
    *t = (struct tensor){.kind = kind, .begin = r->n, .n = n};
    snprintf(t->name, sizeof t->name, "%s", name);
    r->n += n;
    return r->data + t->begin;
}

static void record_loss(struct record *r, double loss)
{
    *record_add(r, LOSS, "", 1) = (float) loss;
}

// One of each parameter.
static void record_params(struct record *r, vkmoe_net *net, enum kind kind,
                          enum vkmoe_net_what what)
{
    for (uint32_t i = 0; i < vkmoe_net_param_count(net); i++) {
        vkmoe_net_param p;
        check_ok(vkmoe_net_get_param(net, i, &p));
        const bool has[] = {true, p.has_gradient, p.has_moment1, p.has_moment2};
        uint64_t n = (uint64_t) p.rows * p.width;
        if (has[what])
            check_ok(vkmoe_net_read(net, what, p.name, record_add(r, kind, p.name, n), n));
    }
}

// ---- runs ------------------------------------------------------------------------------------

// Random values, so that no gain or bias hides behind 0 and 1.
static void write_params(vkmoe_net *net, const struct whole *of)
{
    check_ok(vkmoe_net_init(net, 11));
    for (uint32_t i = 0; i < vkmoe_net_param_count(net); i++) {
        vkmoe_net_param p;
        check_ok(vkmoe_net_get_param(net, i, &p));
        uint64_t n = (uint64_t) p.rows * p.width;
        float *data = calloc(n, sizeof *data);
        assert_non_null(data);
        fill_random(data, n, 100 + i);
        for (uint64_t j = 0; j < n; j++)
            data[j] *= p.width > 8 ? 3 / sqrtf((float) p.width) : 1;
        if (of->favourite != NO_FAVOURITE && strstr(p.name, "selection_bias"))
            data[of->favourite] = 50;
        check_ok(vkmoe_net_write(net, VKMOE_NET_VALUE, p.name, data, n));
        free(data);
    }
}

static void at_pass(vkmoe_net *net, uint32_t pass)
{
    const vkmoe_net_state state = {.seed = 5, .pass = pass};
    check_ok(vkmoe_net_set_state(net, &state));
}

static void add_backward(struct record *r, vkmoe_net *net, const vkmoe_net_batch *batch,
                         uint32_t n_micro)
{
    double loss;
    check_ok(vkmoe_net_forward(net, batch));
    check_ok(vkmoe_net_backward(net, n_micro, &loss));
    record_loss(r, loss);
}

static void train(struct record *r, vkmoe_net *net, const vkmoe_net_batch *const batches[2])
{
    double loss;
    at_pass(net, 0);
    add_backward(r, net, batches[0], 1);
    record_params(r, net, GRADIENT, VKMOE_NET_GRADIENT);
    at_pass(net, 3);
    add_backward(r, net, batches[0], 2);
    record_params(r, net, FIRST, VKMOE_NET_GRADIENT);
    at_pass(net, 4);
    add_backward(r, net, batches[1], 2);
    record_params(r, net, SECOND, VKMOE_NET_GRADIENT);
    at_pass(net, 3);
    add_backward(r, net, batches[0], 2);
    add_backward(r, net, batches[1], 2);
    record_params(r, net, BOTH, VKMOE_NET_GRADIENT);
    check_ok(vkmoe_net_step(net, rate));
    for (uint32_t i = 0; i < 2; i++) {
        check_ok(vkmoe_net_train(net, batches[i], rate, &loss));
        record_loss(r, loss);
    }
    record_params(r, net, VALUE, VKMOE_NET_VALUE);
    record_params(r, net, MOMENT1, VKMOE_NET_MOMENT1);
    record_params(r, net, MOMENT2, VKMOE_NET_MOMENT2);
}

static void run(struct record *r, vkmoe_net *net, const struct whole *of)
{
    struct whole_data data[2];
    const vkmoe_net_batch *const batches[] = {&data[0].batch, &data[1].batch};
    double loss;
    memset(r, 0, sizeof *r);
    whole_data_init(&data[0], of, of->n_tokens, 3);
    whole_data_init(&data[1], of, of->n_tokens - of->n_tokens / 3, 17);
    write_params(net, of);
    record_params(r, net, VALUE, VKMOE_NET_VALUE);
    r->n_params = r->n_tensors;
    size_t n_y = (size_t) batches[0]->n_examples * whole_d_out(of);
    check_ok(vkmoe_net_eval(net, batches[0], record_add(r, Y, "", n_y), &loss));
    record_loss(r, loss);
    train(r, net, batches);
    check_ok(vkmoe_net_eval(net, batches[1], NULL, &loss)); // the device still answers
    for (uint32_t i = 0; i < 2; i++)
        whole_data_finish(&data[i]);
}

// ---- comparisons -----------------------------------------------------------------------------

static double norm(const float *a, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double) a[i] * (double) a[i];
    return sqrt(sum);
}

static double distance(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double) a[i] - (double) b[i]) * ((double) a[i] - (double) b[i]);
    return sqrt(sum);
}

struct bounds {
    double largest[N_KINDS]; // norms
    double per_gradient;     // of a parameter, by how much its gradients are off
};

static double own_bound(const struct record *want, const struct bounds *b, uint32_t i)
{
    const struct tensor *t = &want->tensors[i];
    const double u = 0x1p-24;
    return 1e-5 * norm(want->data + t->begin, t->n) + 8 * u * b->largest[t->kind] + 1e-30;
}

// The largest bound of the gradients that parameter `name` had.
static double gradient_bound(const struct record *want, const struct bounds *b, const char *name)
{
    double bound = 0;
    for (uint32_t i = 0; i < want->n_tensors; i++) {
        const struct tensor *t = &want->tensors[i];
        if (t->kind >= GRADIENT && t->kind <= BOTH && strcmp(t->name, name) == 0)
            bound = fmax(bound, own_bound(want, b, i));
    }
    return bound;
}

static double bound_of(const struct record *want, const struct bounds *b, uint32_t i)
{
    const struct tensor *t = &want->tensors[i];
    const double u = 0x1p-24;
    if (t->kind != VALUE)
        return own_bound(want, b, i);
    if (i < want->n_params)
        return 0; // what was written
    return 3 * (double) rate * b->per_gradient * gradient_bound(want, b, t->name) +
           8 * u * norm(want->data + t->begin, t->n) + 1e-30;
}

static struct bounds make_bounds(const struct record *want, const struct whole *of)
{
    struct bounds b = {{0}, 0};
    bool is_sgd = of->of.desc.optimiser == VKMOE_OPTIMISER_SGD;
    b.per_gradient = is_sgd ? 1 / (1 - (double) of->of.desc.momentum) : 2 / (double) adam_eps;
    for (uint32_t i = 0; i < want->n_tensors; i++) {
        const struct tensor *t = &want->tensors[i];
        b.largest[t->kind] = fmax(b.largest[t->kind], norm(want->data + t->begin, t->n));
    }
    return b;
}

static double off_by(const struct record *want, const struct record *got, uint32_t i)
{
    const struct tensor *t = &want->tensors[i];
    return distance(want->data + t->begin, got->data + t->begin, t->n);
}

static bool agree(const struct record *want, const struct record *got, const struct whole *of)
{
    const struct bounds b = make_bounds(want, of);
    bool right = want->n_tensors == got->n_tensors && want->n == got->n;
    for (uint32_t i = 0; right && i < want->n_tensors; i++) {
        const struct tensor *t = &want->tensors[i];
        double bound = bound_of(want, &b, i), off = off_by(want, got, i);
        right = off <= bound;
        if (!right)
            print_message("%s: %s %s (tensor %u): off by %g of %g, allowed is %g\n", of->of.name,
                          kind_names[t->kind], t->name, i, off,
                          norm(want->data + t->begin, t->n), bound);
    }
    return right;
}

// The largest element of each tensor moved by 2^-8 of itself, each in turn: that must be seen.
static bool controls_are_seen(const struct record *want, struct record *got,
                              const struct whole *of)
{
    const struct bounds b = make_bounds(want, of);
    for (uint32_t i = want->n_params; i < want->n_tensors; i++) {
        const struct tensor *t = &want->tensors[i];
        const double bound = bound_of(want, &b, i);
        float *data = got->data + t->begin, before;
        size_t largest = 0;
        for (size_t j = 0; j < t->n; j++)
            largest = fabsf(data[j]) > fabsf(data[largest]) ? j : largest;
        // not what is all but 0, beside others of its kind, or all small
        if (fabs((double) data[largest]) < 1000 * bound)
            continue;
        before = data[largest];
        data[largest] *= 1 + 0x1p-8f;
        bool seen = off_by(want, got, i) > bound;
        data[largest] = before;
        if (!seen) {
            print_message("%s: a wrong %s %s is not seen\n", of->of.name, kind_names[t->kind],
                          t->name);
            return false;
        }
    }
    return true;
}

static bool same_bits(const struct record *a, const struct record *b, const struct whole *of,
                      const char *why)
{
    for (uint32_t i = 0; i < a->n_tensors; i++) {
        const struct tensor *t = &a->tensors[i];
        if (memcmp(a->data + t->begin, b->data + t->begin, t->n * sizeof(float)) != 0) {
            print_message("%s: %s %s has other bits %s\n", of->of.name, kind_names[t->kind],
                          t->name, why);
            return false;
        }
    }
    return true;
}

// Gradients of two batches add up, to what f32 has of them.
static bool gradients_add_up(const struct record *r, const struct whole *of)
{
    const struct tensor *first = NULL, *second = NULL, *both = NULL;
    const struct bounds b = make_bounds(r, of);
    for (uint32_t i = 0; i < r->n_tensors; i++) {
        if (r->tensors[i].kind != BOTH)
            continue;
        both = &r->tensors[i];
        for (uint32_t j = 0; j < i; j++) {
            bool same = strcmp(r->tensors[j].name, both->name) == 0;
            if (same && r->tensors[j].kind == FIRST)
                first = &r->tensors[j];
            if (same && r->tensors[j].kind == SECOND)
                second = &r->tensors[j];
        }
        assert_true(first && second);
        for (size_t j = 0; j < both->n; j++) {
            double sum = (double) r->data[first->begin + j] + (double) r->data[second->begin + j];
            if (fabs(sum - (double) r->data[both->begin + j]) > 1e-5 * b.largest[BOTH]) {
                print_message("%s: %s: gradients of two batches are %g, not %g\n", of->of.name,
                              both->name, (double) r->data[both->begin + j], sum);
                return false;
            }
        }
    }
    return true;
}

static bool case_is_right(const struct whole *of)
{
    struct record want, first, second, third;
    vkmoe_net *nets[3];
    check_ok(vkmoe_net_create(reference, &of->of.desc, &nets[0]));
    for (uint32_t i = 0; i < 2; i++)
        check_ok(vkmoe_net_create(contexts[i], &of->of.desc, &nets[1 + i]));
    run(&want, nets[0], of);
    run(&first, nets[1], of);
    run(&second, nets[1], of);
    run(&third, nets[2], of);
    bool right = agree(&want, &first, of) && controls_are_seen(&want, &first, of) &&
                 same_bits(&first, &second, of, "the second time") &&
                 same_bits(&first, &third, of, "with three threads") &&
                 gradients_add_up(&want, of) && gradients_add_up(&first, of);
    free(want.data);
    free(first.data);
    free(second.data);
    free(third.data);
    for (uint32_t i = 0; i < 3; i++)
        vkmoe_net_destroy(nets[i]);
    return right;
}

static bool is_wanted(const struct whole *of)
{
    return (!part || strstr(of->of.name, part)) &&
           (!strstr(mode, "small") || of->n_tokens <= NET_TOKENS);
}

// Runs the case; true if it is right.
static bool check_case(struct whole *of)
{
    if (of->of.desc.optimiser != VKMOE_OPTIMISER_SGD)
        of->of.desc.adam_eps = adam_eps;
    return case_is_right(of);
}

static void test_nets(void **state)
{
    (void) state;
    uint32_t n_wrong = 0, n_run = 0;
    for (uint32_t i = 0; i < whole_count(); i++) {
        struct whole of;
        whole_init(&of, i);
        if (!is_wanted(&of))
            continue;
        n_run++;
        n_wrong += !check_case(&of);
    }
    print_message("%u networks\n", n_run);
    assert_true(part || n_run >= 50);
    assert_int_equal(n_wrong, 0);
}

// Options in any combination; those that contradict each other are refused.
static void test_random(void **state)
{
    (void) state;
    const uint32_t n = strstr(mode, "small") ? 10 : strcmp(device, "vulkan") == 0 ? 60 : 200;
    uint32_t n_wrong = 0, n_run = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct whole of;
        vkmoe_net *net;
        whole_random(&of, i);
        if (!is_wanted(&of) || vkmoe_net_create(reference, &of.of.desc, &net) != VKMOE_OK)
            continue;
        vkmoe_net_destroy(net);
        n_run++;
        n_wrong += !check_case(&of);
    }
    print_message("%u networks\n", n_run);
    assert_true(part || n_run >= n / 2);
    assert_int_equal(n_wrong, 0);
}

static void test_validation(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(vkmoe_context_validation_count(contexts[i]), 0);
}

static enum vkmoe_status open_context(const char *name, uint32_t n_threads, vkmoe_context **out)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = name;
    desc.n_threads = n_threads;
    char isa[16];
    snprintf(isa, sizeof isa, "%.*s", (int) strcspn(mode, ","), mode);
    if (strcmp(name, "cpu") == 0)
        desc.cpu_isa = isa;
    if (strcmp(name, "vulkan") == 0) {
        desc.floor = strstr(mode, "floor");
        desc.validation = strstr(mode, "validation");
        if (strstr(mode, "bda"))
            desc.addressing = VKMOE_ADDRESSING_BDA;
        if (strstr(mode, "descriptors"))
            desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS;
    }
    return vkmoe_context_create(&desc, out);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nets),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_validation),
    };
    device = argc > 1 ? argv[1] : "cpu";
    mode = argc > 2 ? argv[2] : "";
    part = argc > 3 ? argv[3] : NULL;
    enum vkmoe_status status = open_context("reference", 0, &reference);
    for (uint32_t i = 0; status == VKMOE_OK && i < 2; i++)
        status = open_context(device, i == 0 ? 1 : 3, &contexts[i]);
    if (status != VKMOE_OK) {
        fprintf(stderr, "%s: %s\n", device, vkmoe_error_text());
        return status == VKMOE_E_UNSUPPORTED ? 77 : 1; // a level that this CPU lacks
    }
    int failed = cmocka_run_group_tests_name(device, tests, NULL, NULL);
    for (uint32_t i = 0; i < 2; i++)
        vkmoe_context_destroy(contexts[i]);
    vkmoe_context_destroy(reference);
    return failed;
}
