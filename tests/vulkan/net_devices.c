// SPDX-License-Identifier: MIT
// Networks on devices of other kinds: memory out of the host's sight, few workgroups, memory that
// comes back dirty, slow submissions; each gives the bits of the first. And on one that is lost.
#include "check.h"
#include "host.h"
#include "interpose.h"
#include "net_cases.h"

enum { MAX_VALUES = 4096 };

static struct net_case of;
static struct net_data data;
static float want[MAX_VALUES];

static vkmoe_context_desc context_desc(void)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS; // makes more calls
    return desc;
}

// All that a net has to say, up to the first call that fails.
static enum vkmoe_status run(vkmoe_net *net, float *out)
{
    double losses[2] = {0};
    enum vkmoe_status status = vkmoe_net_init(net, 3);
    if (status == VKMOE_OK)
        status = vkmoe_net_forward(net, &data.batch);
    if (status == VKMOE_OK)
        status = vkmoe_net_backward(net, 1, NULL);
    if (status == VKMOE_OK)
        status = vkmoe_net_step(net, 0.125f);
    for (int i = 0; i < 2 && status == VKMOE_OK; i++)
        status = vkmoe_net_train(net, &data.batch, 0.125f, &losses[i]);
    if (status == VKMOE_OK)
        status = vkmoe_net_eval(net, &data.batch, out, NULL);
    size_t n = NET_TOKENS * NET_MAX_WIDTH;
    out[n++] = (float) losses[0];
    out[n++] = (float) losses[1];
    for (uint32_t i = 0; status == VKMOE_OK && i < vkmoe_net_param_count(net); i++) {
        vkmoe_net_param p;
        check_ok(vkmoe_net_get_param(net, i, &p));
        uint32_t size = p.rows * p.width;
        assert_true(n + size <= MAX_VALUES);
        status = vkmoe_net_read(net, VKMOE_NET_VALUE, p.name, out + n, size);
        n += size;
    }
    return status;
}

static enum vkmoe_status attempt(float *out)
{
    vkmoe_context_desc desc = context_desc();
    vkmoe_context *context = NULL;
    vkmoe_net *net = (vkmoe_net *) &data;
    memset(out, 0, MAX_VALUES * sizeof *out);
    vkmoe_error_set("");
    enum vkmoe_status status = vkmoe_context_create(&desc, &context);
    if (status == VKMOE_OK) {
        status = vkmoe_net_create(context, &of.desc, &net);
        assert_int_equal(status == VKMOE_OK, net != NULL);
        if (status == VKMOE_OK)
            status = run(net, out);
        vkmoe_net_destroy(net);
    }
    assert_true(status == VKMOE_OK || strlen(vkmoe_error_text()) > 0);
    vkmoe_context_destroy(context);
    return status;
}

static void choose(const char *name)
{
    net_case_init(&of, net_case_find(name));
    net_data_init(&data, &of, 3);
    interpose = (struct interpose){0};
    check_ok(attempt(want));
}

static void other_devices_give_the_same_bits(void **state)
{
    (void) state;
    static const struct interpose kinds[] = {
        {.discrete = true}, {.max_groups = 3}, {.discrete = true, .recycle = true},
        {.submit_ms = 60}};
    static float got[MAX_VALUES];
    for (uint32_t i = 0; i < net_case_count(); i += 5) {
        struct net_case c;
        net_case_init(&c, i);
        choose(c.name);
        for (uint32_t k = 0; k < (i == 0 ? 4 : 3); k++) { // the last one takes its time
            interpose = kinds[k];
            check_ok(attempt(got));
            if (memcmp(got, want, sizeof want) != 0)
                fail_msg("%s: other bits on device %u", c.name, k);
        }
    }
    interpose = (struct interpose){0};
}

static void a_lost_device_stays_lost(void **state)
{
    (void) state;
    static float got[MAX_VALUES];
    vkmoe_context_desc desc = context_desc();
    vkmoe_context *context;
    vkmoe_net *net, *other;
    choose("shared");
    check_ok(vkmoe_context_create(&desc, &context));
    check_ok(vkmoe_net_create(context, &of.desc, &net));
    check_ok(run(net, got));
    interpose.fail_name = "vkQueueSubmit";
    interpose.fail_at = 1;
    interpose.fail_result = VK_ERROR_DEVICE_LOST;
    check_fails(vkmoe_net_train(net, &data.batch, 0.1f, NULL), VKMOE_E_DEVICE_LOST,
                "vkQueueSubmit");
    interpose.fail_name = NULL;
    assert_int_equal(vkmoe_context_status(context), VKMOE_E_DEVICE_LOST);
    check_fails(vkmoe_net_train(net, &data.batch, 0.1f, NULL), VKMOE_E_DEVICE_LOST, "lost");
    check_fails(vkmoe_net_eval(net, &data.batch, got, NULL), VKMOE_E_DEVICE_LOST, "lost");
    check_fails(vkmoe_net_create(context, &of.desc, &other), VKMOE_E_DEVICE_LOST, "lost");
    assert_null(other);
    vkmoe_net_destroy(net);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_devices_give_the_same_bits),
        cmocka_unit_test(a_lost_device_stays_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
