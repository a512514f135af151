// SPDX-License-Identifier: MIT
// Every op of core/net.h on a device against the oracle, from the same f32 operands.
//
// With u = 2^-24 a sum of n products may be off by (n + 8) u sum |terms|, which the oracle computes
// on |operands|. An op that is no such sum may be off as if its operands were each moved by
// (n + 32) u of themselves, sum_i |dy / dx_i| |x_i| by finite differences of the oracle, and by as
// much of the tensor's largest element for what is inside: exp alone may be 3 + 2 |x| ulp off in
// Vulkan. i32 is exact. Besides, per case: a second run and another context (with three threads)
// give the same bits, operands stay as they are, every element is written, NaN goes where it has
// to, and the largest element moved by 1/1024 is noticed.
//
// By a variant in f16 whose rows have scales of their own, each operand of a product may be off by
// v = 2^-10 of itself, either neighbour, and by 2^-22 of its row's largest, which is below 1: by
// (2 v + v^2) sum |terms| + 2 n 2^-22 in all.
//
// Arguments: device [mode [part]]. mode: the cpu_isa, "" for the best there is, and behind a comma
// few or least, a case of 4 or of 16; of Vulkan, words of bda, descriptors, floor, and validation,
// whose messages then fail, and a variant, by which products then are computed. part: only cases
// whose name contains it, to look for an error.
#include "check.h"
#include "net_case.h"

#include "api/api.h"
#include "core/net_ref.h"

#include <stdio.h>
#include <stdlib.h>

static const char *device, *mode, *part;
static const char *variant;        // or NULL
static bool rounds;                // it does, to f16
static vkmoe_context *contexts[2]; // one thread, three threads

static const double u = 0x1p-24, tiny = 0x1p-126; // a device may flush what is below to 0

struct checker {
    struct case_sink sink;
    uint32_t n_cases, n_wrong;
    uint32_t n_of[MOE_NET_BALANCE_BIAS + 1]; // cases of each op
};

// ---- the oracle -------------------------------------------------------------------------------

struct expected {
    struct moe_ref_net *ref;
    double *want[CASE_TENSORS], *magnitude[CASE_TENSORS]; // NULL: no result
};

static struct moe_net_op *the_op(const struct net_case *c)
{
    return &c->net->programs[MOE_NET_FORWARD].ops[0];
}

// Elements of a tensor in this run.
static uint64_t run_size(const struct net_case *c, uint32_t tensor)
{
    const struct moe_net_tensor *t = &c->net->tensors[tensor];
    return moe_net_rows(t, c->args.n_tokens, c->args.n_examples) * t->width;
}

static bool is_result(const struct net_case *c, uint32_t tensor)
{
    const struct moe_net_op *op = the_op(c);
    return op->out[0] == tensor || op->out[1] == tensor || op->out[2] == tensor;
}

static enum moe_net_type type_of(const struct net_case *c, uint32_t tensor)
{
    return c->net->tensors[tensor].type;
}

static bool is_f32(const struct net_case *c, uint32_t tensor)
{
    return type_of(c, tensor) == MOE_NET_F32;
}

static size_t run_bytes(const struct net_case *c, uint32_t tensor)
{
    return run_size(c, tensor) * moe_net_type_size(type_of(c, tensor));
}

// Element j of the oracle's.
static double oracle_value(const struct net_case *c, struct moe_ref_net *ref, uint32_t tensor,
                           uint64_t j)
{
    double *values = moe_ref_net_values(ref, tensor);
    if (!moe_net_type_is_half(type_of(c, tensor)))
        return values[j];
    return case_value(type_of(c, tensor), (union case_data){values}, j);
}

static void load(const struct net_case *c, struct moe_ref_net *ref, bool absolute)
{
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        double *to = moe_ref_net_values(ref, i);
        for (uint64_t j = 0; j < case_size(c, i); j++) {
            if (moe_net_type_is_half(type_of(c, i))) {
                ((uint16_t *) to)[j] = c->data[i].half[j] & (absolute ? 0x7fff : 0xffff);
                continue;
            }
            double value = case_value(type_of(c, i), c->data[i], j);
            to[j] = absolute && is_f32(c, i) ? fabs(value) : value;
        }
    }
}

static void run_oracle(const struct net_case *c, struct expected *e, bool absolute)
{
    load(c, e->ref, absolute);
    moe_ref_net_run(e->ref, 1 << MOE_NET_FORWARD, &c->args);
}

// Magnitudes of sums: the same op on |operands|, with |alpha|.
static void linear_magnitudes(const struct net_case *c, struct expected *e)
{
    float alpha = the_op(c)->alpha;
    the_op(c)->alpha = fabsf(alpha);
    run_oracle(c, e, true);
    the_op(c)->alpha = alpha;
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        for (uint64_t j = 0; e->want[i] && j < run_size(c, i); j++)
            e->magnitude[i][j] = fabs(oracle_value(c, e->ref, i, j));
    }
}

// Adds |results - want| / step: what moving an operand by `step` of itself does.
static void add_sensitivity(const struct net_case *c, struct expected *e, double step)
{
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        for (uint64_t j = 0; e->want[i] && j < run_size(c, i); j++)
            e->magnitude[i][j] += fabs(moe_ref_net_values(e->ref, i)[j] - e->want[i][j]) / step;
    }
}

static void smooth_magnitudes(const struct net_case *c, struct expected *e)
{
    const double step = 0x1p-20;
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        double largest = 0;
        for (uint64_t j = 0; e->want[i] && j < run_size(c, i); j++)
            largest = fmax(largest, fabs(e->want[i][j]));
        for (uint64_t j = 0; e->want[i] && j < run_size(c, i); j++)
            e->magnitude[i][j] = isfinite(largest) ? largest : 1;
    }
    size_t size = c->net->arena_size * sizeof(double);
    double *operands = malloc(size);
    assert_non_null(operands);
    load(c, e->ref, false);
    memcpy(operands, e->ref->arena, size);
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        for (uint64_t j = 0; is_f32(c, i) && j < run_size(c, i); j++) {
            if (!isfinite(c->data[i].f32[j]) || c->data[i].f32[j] == 0)
                continue;
            memcpy(e->ref->arena, operands, size);
            moe_ref_net_values(e->ref, i)[j] *= 1 + step;
            moe_ref_net_run(e->ref, 1 << MOE_NET_FORWARD, &c->args);
            add_sensitivity(c, e, step);
        }
    }
    free(operands);
}

static void expect(const struct net_case *c, struct expected *e)
{
    memset(e, 0, sizeof *e);
    check_ok(moe_ref_net_create(moe_host_default(), c->net, &e->ref));
    run_oracle(c, e, false);
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        if (!is_result(c, i))
            continue;
        uint64_t n = run_size(c, i);
        e->want[i] = malloc(n * sizeof(double));
        e->magnitude[i] = calloc(n, sizeof(double));
        assert_true(e->want[i] && e->magnitude[i]);
        for (uint64_t j = 0; j < n; j++)
            e->want[i][j] = oracle_value(c, e->ref, i, j);
    }
    if (c->linear)
        linear_magnitudes(c, e);
    else
        smooth_magnitudes(c, e);
}

static void expected_finish(struct expected *e)
{
    for (uint32_t i = 0; i < CASE_TENSORS; i++) {
        free(e->want[i]);
        free(e->magnitude[i]);
    }
    moe_ref_net_destroy(e->ref);
}

// ---- the device -------------------------------------------------------------------------------

struct results {
    union case_data data[CASE_TENSORS];
};

static void write_all(const struct net_case *c, struct moe_device_net *net)
{
    for (uint32_t i = 0; i < c->net->n_tensors; i++)
        check_ok(net->device->backend->net_write(net, i, case_size(c, i), c->data[i].any));
}

static void run_once(const struct net_case *c, struct moe_device_net *net, struct results *out)
{
    const struct moe_backend *backend = net->device->backend;
    write_all(c, net);
    check_ok(backend->net_run(net, 1 << MOE_NET_FORWARD, &c->args));
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        out->data[i].any = calloc(case_size(c, i) + 1, 4);
        assert_non_null(out->data[i].any);
        check_ok(backend->net_read(net, i, run_size(c, i), out->data[i].any));
    }
}

static void results_finish(struct results *r)
{
    for (uint32_t i = 0; i < CASE_TENSORS; i++)
        free(r->data[i].any);
}

// ---- comparisons ------------------------------------------------------------------------------

static bool element_agrees(const struct net_case *c, const struct expected *e, uint32_t tensor,
                           uint64_t j, const struct results *r)
{
    double want = e->want[tensor][j], got = case_value(type_of(c, tensor), r->data[tensor], j);
    if (isnan(want) || isinf(want))
        return isnan(want) ? isnan(got) : got == want;
    if (!is_f32(c, tensor))
        return want == got;
    double n = c->terms + (c->linear ? 8 : 32), v = rounds ? 0x1p-10 : 0;
    return fabs(got - want) <= (n * u + 2 * v + v * v) * e->magnitude[tensor][j] +
                                   (rounds ? 2 * c->terms * 0x1p-22 : 0) + tiny;
}

// Are all results right? Says which is not, unless `quiet`.
static bool agrees(const struct net_case *c, const struct expected *e, const struct results *r,
                   bool quiet)
{
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        for (uint64_t j = 0; e->want[i] && j < run_size(c, i); j++) {
            if (element_agrees(c, e, i, j, r))
                continue;
            uint32_t width = c->net->tensors[i].width;
            if (!quiet)
                print_message(
                    "%s: tensor %u, row %llu, column %llu: %.9g, not %.17g "
                    "(magnitude %g)\n",
                    c->name, i, (unsigned long long) (j / width), (unsigned long long) (j % width),
                    case_value(type_of(c, i), r->data[i], j), e->want[i][j], e->magnitude[i][j]);
            return false;
        }
    }
    return true;
}

static bool same_bits(const struct net_case *c, const struct results *a, const struct results *b)
{
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        if (memcmp(a->data[i].any, b->data[i].any, run_bytes(c, i)) != 0) {
            print_message("%s: tensor %u has other bits the second time\n", c->name, i);
            return false;
        }
    }
    return true;
}

static bool operands_are_kept(const struct net_case *c, const struct results *r)
{
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        if (!is_result(c, i) && memcmp(c->data[i].any, r->data[i].any, run_bytes(c, i)) != 0) {
            print_message("%s: operand %u is not what it was\n", c->name, i);
            return false;
        }
    }
    return true;
}

// Moves the largest finite element of a result; the comparison has to see it.
static bool control_is_seen(const struct net_case *c, const struct expected *e, struct results *r)
{
    bool any = false;
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        uint64_t largest = 0;
        for (uint64_t j = 0; e->want[i] && j < run_size(c, i); j++) {
            if (isfinite(e->want[i][j]) && fabs(e->want[i][j]) > fabs(e->want[i][largest]))
                largest = j;
        }
        if (!e->want[i] || run_size(c, i) == 0 || !(fabs(e->want[i][largest]) > 0))
            continue;
        any = true;
        union case_data before = r->data[i], moved = {malloc(run_bytes(c, i))};
        assert_non_null(moved.any);
        memcpy(moved.any, before.any, run_bytes(c, i));
        if (is_f32(c, i))
            moved.f32[largest] *= 1 + (rounds ? 0x1p-4f : 0x1p-10f);
        else if (type_of(c, i) == MOE_NET_I32)
            moved.i32[largest]++;
        else
            moved.half[largest] ^= 1;
        r->data[i] = moved;
        bool seen = !agrees(c, e, r, true);
        r->data[i] = before;
        free(moved.any);
        if (!seen) {
            print_message("%s: a wrong tensor %u is not seen\n", c->name, i);
            return false;
        }
    }
    if (!any && !c->zero)
        print_message("%s: all results are 0\n", c->name);
    return any || c->zero;
}

// One element of an operand, each in turn, becomes NaN: so do the elements of results that the
// oracle says, and no others.
static bool nan_spreads(const struct net_case *c, struct moe_device_net *net)
{
    struct moe_ref_net *ref;
    bool right = true;
    check_ok(moe_ref_net_create(moe_host_default(), c->net, &ref));
    for (uint32_t operand = 0; operand < c->net->n_tensors && right; operand++) {
        if (is_result(c, operand) || type_of(c, operand) == MOE_NET_I32 ||
            run_size(c, operand) == 0)
            continue;
        struct results got = {0};
        const uint64_t at = run_size(c, operand) / 2;
        union case_data data = c->data[operand];
        const float before = is_f32(c, operand) ? data.f32[at] : 0;
        const uint16_t half_before = is_f32(c, operand) ? 0 : data.half[at];
        if (is_f32(c, operand))
            data.f32[at] = NAN;
        else
            data.half[at] = 0x7fff; // of both types
        run_once(c, net, &got);
        load(c, ref, false);
        if (is_f32(c, operand))
            data.f32[at] = before;
        else
            data.half[at] = half_before;
        moe_ref_net_run(ref, 1 << MOE_NET_FORWARD, &c->args);
        for (uint32_t i = 0; i < c->net->n_tensors && right; i++) {
            for (uint64_t j = 0; is_result(c, i) && j < run_size(c, i) && right; j++) {
                double want = oracle_value(c, ref, i, j);
                double value = case_value(type_of(c, i), got.data[i], j);
                right = is_f32(c, i) ? isnan(want) == isnan(value)
                                     : want == value || (isnan(want) && isnan(value));
                if (!right)
                    print_message("%s: NaN in operand %u: tensor %u, element %llu should be %g\n",
                                  c->name, operand, i, (unsigned long long) j, want);
            }
        }
        results_finish(&got);
    }
    moe_ref_net_destroy(ref);
    return right;
}

// As networks with weights are: whatever is multiplied by may be rounded.
static void force_variant(const struct net_case *c)
{
    c->net->variant = variant;
    c->net->precision = rounds ? VKMOE_PRECISION_HALF : VKMOE_PRECISION_EXACT;
    for (uint32_t i = 0; i < c->net->n_tensors; i++)
        c->net->tensors[i].half = true;
}

static bool case_is_right(const struct net_case *c)
{
    struct expected expected;
    struct results first = {0}, second = {0}, third = {0};
    struct moe_device_net *nets[2];
    expect(c, &expected);
    force_variant(c);
    for (uint32_t i = 0; i < 2; i++) {
        struct moe_device *on = contexts[i]->device;
        check_ok(on->backend->net_create(on, c->net, &nets[i]));
    }
    run_once(c, nets[0], &first);
    run_once(c, nets[0], &second);
    run_once(c, nets[1], &third);
    bool right = agrees(c, &expected, &first, false) && operands_are_kept(c, &first) &&
                 same_bits(c, &first, &second) && same_bits(c, &first, &third) &&
                 control_is_seen(c, &expected, &first) && nan_spreads(c, nets[0]);
    results_finish(&first);
    results_finish(&second);
    results_finish(&third);
    for (uint32_t i = 0; i < 2; i++)
        nets[i]->device->backend->net_destroy(nets[i]);
    expected_finish(&expected);
    return right;
}

static void take(struct case_sink *sink, const struct net_case *c)
{
    struct checker *checker = (struct checker *) sink;
    // Of each op; no number of the lists' own is a multiple of these.
    const uint32_t step = strstr(mode, ",few") ? 3 : strstr(mode, ",least") ? 13 : 1;
    const uint32_t kind = c->net->programs[MOE_NET_FORWARD].ops[0].kind;
    checker->n_cases++;
    if (checker->n_of[kind]++ % step != 0 || (part && !strstr(c->name, part)))
        return;
    if (variant && kind != MOE_NET_MATMUL && kind != MOE_NET_MATMUL_DX &&
        kind != MOE_NET_MATMUL_DW && kind != MOE_NET_MATMUL_COMBINE)
        return; // the same kernels
    checker->n_wrong += !case_is_right(c);
}

static void check_list(void (*list)(struct case_sink *), uint32_t at_least)
{
    struct checker checker = {.sink = {take}};
    list(&checker.sink);
    print_message("%u cases\n", checker.n_cases);
    assert_true(checker.n_cases >= at_least);
    assert_int_equal(checker.n_wrong, 0);
}

static void test_matrices(void **state)
{
    (void) state;
    check_list(list_matrix_cases, 100);
}

static void test_routes(void **state)
{
    (void) state;
    check_list(list_route_cases, 40);
}

static void test_rows(void **state)
{
    (void) state;
    check_list(list_row_cases, 100);
}

static void test_losses(void **state)
{
    (void) state;
    check_list(list_loss_cases, 40);
}

static void test_steps(void **state)
{
    (void) state;
    check_list(list_step_cases, 20);
}

static void test_halves(void **state)
{
    (void) state;
    check_list(list_half_cases, 150);
}

static void test_validation(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(contexts[0]), 0);
    assert_int_equal(vkmoe_context_validation_count(contexts[1]), 0);
}

static void set_mode(vkmoe_context_desc *desc)
{
    static char isa[16];
    if (strcmp(device, "vulkan") != 0) {
        snprintf(isa, sizeof isa, "%.*s", (int) strcspn(mode, ","), mode);
        desc->cpu_isa = isa;
        return;
    }
    desc->floor = strstr(mode, "floor");
    desc->validation = strstr(mode, "validation");
    if (strstr(mode, "bda"))
        desc->addressing = VKMOE_ADDRESSING_BDA;
    if (strstr(mode, "descriptors"))
        desc->addressing = VKMOE_ADDRESSING_DESCRIPTORS;
    variant = strstr(mode, "net-");
    rounds = variant && strcmp(variant, "net-a0n") != 0;
    desc->cache_dir = ""; // no verdict of another run
}

// Has the device the variant? Else the text says why not.
static enum vkmoe_status try_variant(struct moe_device *on)
{
    struct moe_net *net;
    struct moe_device_net *made = NULL;
    check_ok(moe_net_create(moe_host_default(), 1, 1, &net));
    moe_net_add_tensor(net, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, 1, "t");
    check_ok(moe_net_plan(net));
    net->variant = variant;
    net->precision = rounds ? VKMOE_PRECISION_HALF : VKMOE_PRECISION_EXACT;
    enum vkmoe_status status = on->backend->net_create(on, net, &made);
    if (made)
        on->backend->net_destroy(made);
    moe_net_destroy(net);
    return status;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matrices), cmocka_unit_test(test_routes), cmocka_unit_test(test_rows),
        cmocka_unit_test(test_losses),   cmocka_unit_test(test_steps),
        cmocka_unit_test(test_halves),   cmocka_unit_test(test_validation),
    };
    device = argc > 1 ? argv[1] : "reference";
    mode = argc > 2 ? argv[2] : "";
    part = argc > 3 ? argv[3] : NULL;
    for (uint32_t i = 0; i < 2; i++) {
        vkmoe_context_desc desc = vkmoe_context_desc_init();
        desc.device = device;
        set_mode(&desc);
        desc.n_threads = i == 0 ? 1 : 3;
        enum vkmoe_status status = vkmoe_context_create(&desc, &contexts[i]);
        if (status != VKMOE_OK) {
            fprintf(stderr, "%s: %s\n", device, vkmoe_error_text());
            return status == VKMOE_E_UNSUPPORTED ? 77 : 1; // a level that this CPU lacks
        }
    }
    if (!contexts[0]->device->backend->net_create) {
        fprintf(stderr, "%s has no networks\n", device);
        return 1;
    }
    if (variant && try_variant(contexts[0]->device) != VKMOE_OK) {
        fprintf(stderr, "skip: %s\n", vkmoe_error_text());
        return 77;
    }
    int failed = cmocka_run_group_tests_name(device, tests, NULL, NULL);
    for (uint32_t i = 0; i < 2; i++)
        vkmoe_context_destroy(contexts[i]);
    return failed;
}
