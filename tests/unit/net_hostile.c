// SPDX-License-Identifier: MIT
// Networks in the hands of a caller who gets things wrong, or who does what nobody expects between
// two calls. Argument: the device.
#include "budget.h"
#include "check.h"
#include "fixture.h"
#include "net_random.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_VALUES = 16384, N_RANDOM = 60, VULKAN_SHARE = 6 };

static const char *device;
static vkmoe_context *context;

struct scene {
    struct net_case of;
    struct net_data data;
    vkmoe_net *net;
};

static void scene_create(struct scene *s)
{
    net_data_init(&s->data, &s->of, 3);
    check_ok(vkmoe_net_create(context, &s->of.desc, &s->net));
    check_ok(vkmoe_net_init(s->net, 7));
}

static void scene_init(struct scene *s, const char *name)
{
    net_case_init(&s->of, net_case_find(name));
    scene_create(s);
}

// Scene i of all cases and random networks; false: it contradicts itself, or is left out.
static bool scene_of(struct scene *s, uint32_t i)
{
    const uint32_t n = net_case_count();
    vkmoe_net *net;
    if (strcmp(device, "vulkan") == 0 && i % VULKAN_SHARE != 0)
        return false; // compiling takes its time there
    if (i < n)
        net_case_init(&s->of, i);
    else
        net_random_init(&s->of, i - n);
    if (vkmoe_net_create(context, &s->of.desc, &net) != VKMOE_OK)
        return false;
    vkmoe_net_destroy(net);
    scene_create(s);
    return true;
}

static bool has(const vkmoe_net_param *p, uint32_t what)
{
    const bool all[] = {true, p->has_gradient, p->has_moment1, p->has_moment2};
    return all[what];
}

// All that a net keeps: values and moments, gradients too if wanted.
static uint32_t read_all(vkmoe_net *net, bool gradients, float *out)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < vkmoe_net_param_count(net); i++) {
        vkmoe_net_param p;
        check_ok(vkmoe_net_get_param(net, i, &p));
        for (uint32_t what = 0; what <= VKMOE_NET_MOMENT2; what++) {
            uint32_t size = p.rows * p.width;
            if (!has(&p, what) || (what == VKMOE_NET_GRADIENT && !gradients))
                continue;
            assert_true(n + size <= MAX_VALUES);
            check_ok(vkmoe_net_read(net, (enum vkmoe_net_what) what, p.name, out + n, size));
            n += size;
        }
    }
    return n;
}

// ---- what is not finite ----------------------------------------------------------------------

// A NaN somewhere in x, or in the table: no expert number out of range, no crash, and a step that
// says so and changes nothing.
static void test_nan_changes_nothing(void **state)
{
    (void) state;
    static float before[MAX_VALUES], after[MAX_VALUES], table[5 * NET_D_IN];
    for (uint32_t i = 0; i < net_case_count() + N_RANDOM; i++) {
        struct scene s;
        float y[NET_TOKENS * NET_MAX_WIDTH];
        if (!scene_of(&s, i))
            continue;
        check_ok(vkmoe_net_train(s.net, &s.data.batch, 0.01f, NULL));
        s.data.x[5] = NAN;
        if (s.of.layers[0].kind == VKMOE_NET_EMBED) {
            table[0] = NAN;
            s.data.token_ids[1] = 0;
            check_ok(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.0.table", table,
                                     5 * NET_D_IN));
        }
        uint32_t n = read_all(s.net, false, before);
        enum vkmoe_status status = vkmoe_net_train(s.net, &s.data.batch, 0.01f, NULL);
        read_all(s.net, false, after);
        if (status == VKMOE_E_DATA && memcmp(before, after, n * sizeof(float)) != 0)
            fail_msg("%s: a step that was none changed something", s.of.name);
        // dropout may have taken the NaN out
        for (uint32_t j = 0; status == VKMOE_OK && j < n; j++)
            if (isnan(after[j]) && !isnan(before[j]))
                fail_msg("%s: a parameter is NaN by now", s.of.name);
        check_ok(vkmoe_net_eval(s.net, &s.data.batch, y, NULL));
        for (uint32_t layer = 0; layer < s.of.desc.n_layers; layer++) {
            int32_t ids[NET_TOKENS * NET_MAX_WIDTH];
            const vkmoe_layer_desc *d = &s.of.moe[layer];
            uint32_t per_row = d->top_k > 0 ? d->top_k : d->n_experts;
            if (vkmoe_net_routing(s.net, layer, ids, NULL) != VKMOE_OK)
                continue;
            for (uint32_t j = 0; j < s.data.batch.n_examples * per_row; j++)
                assert_in_range(ids[j], 0, d->n_experts - 1);
        }
        vkmoe_net_destroy(s.net);
    }
}

// ---- state -----------------------------------------------------------------------------------

static void copy_net(vkmoe_net *from, vkmoe_net *to)
{
    vkmoe_net_state where;
    for (uint32_t i = 0; i < vkmoe_net_param_count(from); i++) {
        vkmoe_net_param p;
        check_ok(vkmoe_net_get_param(from, i, &p));
        uint32_t n = p.rows * p.width;
        float *values = malloc(n * sizeof *values);
        assert_non_null(values);
        for (uint32_t what = 0; what <= VKMOE_NET_MOMENT2; what++) {
            if (what == VKMOE_NET_GRADIENT || !has(&p, what))
                continue;
            check_ok(vkmoe_net_read(from, (enum vkmoe_net_what) what, p.name, values, n));
            check_ok(vkmoe_net_write(to, (enum vkmoe_net_what) what, p.name, values, n));
        }
        free(values);
    }
    check_ok(vkmoe_net_get_state(from, &where));
    check_ok(vkmoe_net_set_state(to, &where));
}

// Every network: what is copied to another net goes on to the same bits, whatever that one did
// before.
static void test_resumes(void **state)
{
    (void) state;
    static float a[MAX_VALUES], b[MAX_VALUES];
    for (uint32_t i = 0; i < net_case_count() + N_RANDOM; i++) {
        struct scene s, other;
        if (!scene_of(&s, i))
            continue;
        scene_of(&other, i);
        for (uint32_t step = 0; step < 2; step++)
            check_ok(vkmoe_net_train(s.net, &s.data.batch, 0.01f, NULL));
        other.data.x[3] = 0.5f;
        check_ok(vkmoe_net_train(other.net, &other.data.batch, 0.1f, NULL));
        check_ok(vkmoe_net_forward(other.net, &other.data.batch));
        check_ok(vkmoe_net_backward(other.net, 3, NULL)); // forgotten by set_state
        copy_net(s.net, other.net);
        for (uint32_t step = 0; step < 2; step++) {
            check_ok(vkmoe_net_train(s.net, &s.data.batch, 0.01f, NULL));
            check_ok(vkmoe_net_train(other.net, &s.data.batch, 0.01f, NULL));
        }
        uint32_t n = read_all(s.net, true, a);
        read_all(other.net, true, b);
        // the oracle goes on with f64, of which f32 was read
        if (strcmp(device, "reference") != 0 && memcmp(a, b, n * sizeof(float)) != 0)
            fail_msg("%s: a resumed net has other bits", s.of.name);
        vkmoe_net_destroy(s.net);
        vkmoe_net_destroy(other.net);
    }
}

// Steps are counted in 32 bits.
static void test_last_step(void **state)
{
    (void) state;
    struct scene s;
    vkmoe_net_state where = {.seed = 1, .pass = UINT32_MAX, .steps = UINT32_MAX - 1};
    scene_init(&s, "biases");
    check_ok(vkmoe_net_set_state(s.net, &where));
    check_ok(vkmoe_net_train(s.net, &s.data.batch, 0.01f, NULL));
    check_fails(vkmoe_net_train(s.net, &s.data.batch, 0.01f, NULL), VKMOE_E_ARGUMENT,
                "state.steps = 4294967295");
    check_ok(vkmoe_net_forward(s.net, &s.data.batch));
    check_ok(vkmoe_net_backward(s.net, 1, NULL));
    check_fails(vkmoe_net_step(s.net, 0.01f), VKMOE_E_ARGUMENT, "steps");
    vkmoe_net_destroy(s.net);
}

// ---- between two calls -----------------------------------------------------------------------

// EVAL and refused batches between FORWARD, BACKWARD and STEP do no harm.
static void test_interruptions(void **state)
{
    (void) state;
    static float want[MAX_VALUES], got[MAX_VALUES];
    for (uint32_t i = 0; i < net_case_count() + N_RANDOM; i++) {
        struct scene s;
        struct net_data other;
        vkmoe_net_batch bad;
        float y[NET_TOKENS * NET_MAX_WIDTH];
        if (!scene_of(&s, i))
            continue;
        net_data_init(&other, &s.of, 29);
        check_ok(vkmoe_net_forward(s.net, &s.data.batch));
        check_ok(vkmoe_net_backward(s.net, 1, NULL));
        check_ok(vkmoe_net_step(s.net, 0.01f));
        uint32_t n = read_all(s.net, true, want);

        check_ok(vkmoe_net_init(s.net, 7));
        check_ok(vkmoe_net_eval(s.net, &other.batch, y, NULL));
        check_ok(vkmoe_net_forward(s.net, &s.data.batch));
        bad = other.batch;
        bad.n_tokens = NET_TOKENS + 1;
        check_fails(vkmoe_net_forward(s.net, &bad), VKMOE_E_SHAPE, "n_tokens = 7");
        check_fails(vkmoe_net_eval(s.net, &bad, y, NULL), VKMOE_E_SHAPE, "n_tokens = 7");
        check_fails(vkmoe_net_step(s.net, 0.01f), VKMOE_E_ARGUMENT, "no vkmoe_net_backward");
        check_ok(vkmoe_net_backward(s.net, 1, NULL));
        check_ok(vkmoe_net_eval(s.net, &other.batch, y, NULL));
        check_ok(vkmoe_net_step(s.net, 0.01f));
        read_all(s.net, true, got);
        if (memcmp(want, got, n * sizeof(float)) != 0)
            fail_msg("%s: vkmoe_net_eval between changes a step", s.of.name);
        vkmoe_net_destroy(s.net);
    }
}

// ---- arguments -------------------------------------------------------------------------------

static void test_wrong_counts(void **state)
{
    (void) state;
    float data[512] = {0};
    for (uint32_t i = 0; i < net_case_count(); i++) {
        struct scene s;
        if (!scene_of(&s, i))
            continue;
        for (uint32_t j = 0; j < vkmoe_net_param_count(s.net); j++) {
            vkmoe_net_param p;
            check_ok(vkmoe_net_get_param(s.net, j, &p));
            uint64_t n = (uint64_t) p.rows * p.width;
            const uint64_t wrong[] = {0, n - 1, n + 1, n + ((uint64_t) 1 << 32), UINT64_MAX};
            for (uint32_t what = 0; what <= VKMOE_NET_MOMENT2; what++) {
                enum vkmoe_net_what kind = (enum vkmoe_net_what) what;
                for (uint32_t k = 0; has(&p, what) && k < 5; k++) {
                    check_fails(vkmoe_net_read(s.net, kind, p.name, data, wrong[k]), VKMOE_E_SHAPE,
                                p.name);
                    check_fails(vkmoe_net_write(s.net, kind, p.name, data, wrong[k]),
                                VKMOE_E_SHAPE, p.name);
                }
                if (!has(&p, what))
                    check_fails(vkmoe_net_read(s.net, kind, p.name, data, n), VKMOE_E_ARGUMENT,
                                p.name);
            }
        }
        vkmoe_net_destroy(s.net);
    }
}

static void test_null(void **state)
{
    (void) state;
    struct scene s;
    vkmoe_net *net = (vkmoe_net *) &s;
    vkmoe_net_param param;
    vkmoe_net_state where = {0};
    uint64_t size;
    float data[1] = {0};
    const enum vkmoe_status bad = VKMOE_E_ARGUMENT;
    scene_init(&s, "biases");
    check_fails(vkmoe_net_create(NULL, &s.of.desc, &net), bad, "context is NULL");
    assert_null(net);
    check_fails(vkmoe_net_create(context, NULL, &net), bad, "desc is NULL");
    check_fails(vkmoe_net_create(context, &s.of.desc, NULL), bad, "out is NULL");
    assert_int_equal(vkmoe_net_param_count(NULL), 0);
    check_fails(vkmoe_net_get_param(NULL, 0, &param), bad, "net is NULL");
    check_fails(vkmoe_net_get_param(s.net, 0, NULL), bad, "out is NULL");
    check_fails(vkmoe_net_read(NULL, VKMOE_NET_VALUE, "a", data, 1), bad, "net is NULL");
    check_fails(vkmoe_net_read(s.net, VKMOE_NET_VALUE, "layers.0.bias", NULL, 4), bad,
                "data is NULL");
    check_fails(vkmoe_net_write(NULL, VKMOE_NET_VALUE, "a", data, 1), bad, "net is NULL");
    check_fails(vkmoe_net_write(s.net, VKMOE_NET_VALUE, NULL, data, 1), bad, "name is NULL");
    check_fails(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.0.bias", NULL, 4), bad,
                "data is NULL");
    check_fails(vkmoe_net_get_state(NULL, &where), bad, "net is NULL");
    check_fails(vkmoe_net_get_state(s.net, NULL), bad, "out is NULL");
    check_fails(vkmoe_net_set_state(NULL, &where), bad, "net is NULL");
    check_fails(vkmoe_net_set_state(s.net, NULL), bad, "state is NULL");
    check_fails(vkmoe_net_forward(NULL, &s.data.batch), bad, "net is NULL");
    check_fails(vkmoe_net_forward(s.net, NULL), bad, "batch is NULL");
    check_fails(vkmoe_net_backward(NULL, 1, NULL), bad, "net is NULL");
    check_fails(vkmoe_net_step(NULL, 1), bad, "net is NULL");
    check_fails(vkmoe_net_train(NULL, &s.data.batch, 1, NULL), bad, "net is NULL");
    check_fails(vkmoe_net_train(s.net, NULL, 1, NULL), bad, "batch is NULL");
    check_fails(vkmoe_net_eval(NULL, &s.data.batch, NULL, NULL), bad, "net is NULL");
    check_fails(vkmoe_net_eval(s.net, NULL, NULL, NULL), bad, "batch is NULL");
    check_fails(vkmoe_net_routing(NULL, 0, NULL, NULL), bad, "net is NULL");
    check_fails(vkmoe_net_get_size(NULL, &size, &size), bad, "net is NULL");
    check_fails(vkmoe_net_get_size(s.net, NULL, &size), bad, "persistent is NULL");
    check_fails(vkmoe_net_get_size(s.net, &size, NULL), bad, "batch is NULL");
    vkmoe_net_destroy(s.net);
}

// Descs of a later version: more of them than we know is fine while it is zero.
static void test_later_descs(void **state)
{
    (void) state;
    struct scene s;
    struct {
        vkmoe_net_batch batch;
        uint64_t more;
    } later_batch = {.more = 0};
    struct {
        vkmoe_net_desc desc;
        uint64_t more;
    } later_desc = {.more = 0};
    vkmoe_net *net;
    scene_init(&s, "biases");
    later_batch.batch = s.data.batch;
    later_batch.batch.struct_size = sizeof later_batch;
    check_ok(vkmoe_net_eval(s.net, &later_batch.batch, NULL, NULL));
    later_batch.more = 1;
    check_fails(vkmoe_net_eval(s.net, &later_batch.batch, NULL, NULL), VKMOE_E_UNSUPPORTED,
                "vkmoe_net_batch");
    later_desc.desc = s.of.desc;
    later_desc.desc.struct_size = sizeof later_desc;
    check_ok(vkmoe_net_create(context, &later_desc.desc, &net));
    vkmoe_net_destroy(net);
    later_desc.more = 1;
    check_fails(vkmoe_net_create(context, &later_desc.desc, &net), VKMOE_E_UNSUPPORTED,
                "vkmoe_net_desc");
    assert_null(net);
    vkmoe_net_destroy(s.net);
}

// ---- threads ---------------------------------------------------------------------------------

struct worker {
    struct scene scene;
    float values[MAX_VALUES];
    enum vkmoe_status status;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    for (uint32_t step = 0; step < 20 && w->status == VKMOE_OK; step++)
        w->status = vkmoe_net_train(w->scene.net, &w->scene.data.batch, 0.01f, NULL);
    return NULL;
}

// Two nets of one context in two threads give what each gives alone.
static void test_two_threads(void **state)
{
    (void) state;
    static struct worker alone, both[2];
    pthread_t threads[2];
    scene_init(&alone.scene, "shared");
    work(&alone);
    uint32_t n = read_all(alone.scene.net, true, alone.values);
    for (uint32_t i = 0; i < 2; i++)
        scene_init(&both[i].scene, "shared");
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &both[i]), 0);
    for (uint32_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(both[i].status, VKMOE_OK);
        read_all(both[i].scene.net, true, both[i].values);
        assert_memory_equal(alone.values, both[i].values, n * sizeof(float));
        vkmoe_net_destroy(both[i].scene.net);
    }
    vkmoe_net_destroy(alone.scene.net);
}

// ---- memory ----------------------------------------------------------------------------------

// All calls up to the first that fails; true when none did. Nothing is left over in any case.
static bool attempt(uint32_t i, long fail_at)
{
    vkmoe_host host = vkmoe_host_init();
    struct budget budget = {.fail_at = -1, .once = true};
    struct scene s;
    float value[NET_TOKENS * NET_MAX_WIDTH];
    net_case_init(&s.of, i);
    net_data_init(&s.data, &s.of, 3);
    budget_host(&host, &budget);
    vkmoe_context *on = context_on(device, &host);
    budget.n = 0;
    budget.fail_at = fail_at;
    enum vkmoe_status status = vkmoe_net_create(on, &s.of.desc, &s.net);
    assert_int_equal(status == VKMOE_OK, s.net != NULL);
    if (status == VKMOE_OK)
        status = vkmoe_net_init(s.net, 1);
    if (status == VKMOE_OK)
        status = vkmoe_net_forward(s.net, &s.data.batch);
    if (status == VKMOE_OK)
        status = vkmoe_net_backward(s.net, 1, NULL);
    if (status == VKMOE_OK)
        status = vkmoe_net_step(s.net, 0.1f);
    if (status == VKMOE_OK)
        status = vkmoe_net_train(s.net, &s.data.batch, 0.1f, NULL);
    if (status == VKMOE_OK)
        status = vkmoe_net_eval(s.net, &s.data.batch, value, NULL);
    s.data.x[0] = NAN; // which is looked for in memory of its own
    if (status == VKMOE_OK)
        status = vkmoe_net_train(s.net, &s.data.batch, 0.1f, NULL);
    if (status != VKMOE_OK && status != VKMOE_E_DATA)
        assert_int_equal(status, VKMOE_E_MEMORY);
    vkmoe_net_destroy(s.net);
    bool failed = budget_failed(&budget);
    vkmoe_context_destroy(on);
    assert_int_equal(budget.live, 0);
    return !failed;
}

static void test_every_allocation_may_fail(void **state)
{
    (void) state;
    static const char *const names[] = {"recompute", "z_loss", "additive", "stack_all", "vote",
                                        "pool_max", "embed", "weighted_classes"};
    const uint32_t n_names = strcmp(device, "vulkan") == 0 ? 1 : sizeof names / sizeof *names;
    for (uint32_t i = 0; i < n_names; i++) {
        long n = 0;
        while (!attempt(net_case_find(names[i]), n))
            assert_true(++n < 10000);
        assert_true(n > 20);
    }
}

static int setup(void **state)
{
    (void) state;
    context = context_on(device, NULL);
    return 0;
}

static int finish(void **state)
{
    (void) state;
    vkmoe_context_destroy(context);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nan_changes_nothing), cmocka_unit_test(test_resumes),
        cmocka_unit_test(test_last_step),           cmocka_unit_test(test_interruptions),
        cmocka_unit_test(test_wrong_counts),        cmocka_unit_test(test_null),
        cmocka_unit_test(test_later_descs),         cmocka_unit_test(test_two_threads),
        cmocka_unit_test(test_every_allocation_may_fail),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, setup, finish) != 0;
}
