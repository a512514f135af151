// SPDX-License-Identifier: MIT
// Memory runs out at the first allocation, at the second, ... until a layer runs. Each time: a
// clean error, nothing left over. Argument: the device.
#include "budget.h"
#include "check.h"
#include "fixture.h"

static const char *device;

// Creates and runs the layer; true when it ran. On failure: the first object that there is not.
static bool attempt(const struct layer_data *data, struct budget *budget)
{
    vkmoe_host host = vkmoe_host_init();
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    struct stack stack;
    float x[8 * 6], y[8 * 3];
    vkmoe_io io = vkmoe_io_init();
    budget_host(&host, budget);
    desc.device = device;
    desc.host = &host;
    desc.n_threads = 2;
    io.x = x, io.y = y;
    fill_random(x, 8 * 6, 2);

    vkmoe_error_set("");
    enum vkmoe_status status = stack_create(&stack, &desc, data, 8, true);
    assert_int_equal(status == VKMOE_OK, stack.bind != NULL);
    if (status == VKMOE_OK)
        status = vkmoe_run(stack.bind, 8, &io);
    if (status != VKMOE_OK) {
        assert_int_equal(status, VKMOE_E_MEMORY);
        assert_true(strlen(vkmoe_error_text()) > 0);
    }
    stack_destroy(&stack);
    assert_int_equal(budget->live, 0);
    return status == VKMOE_OK;
}

static void test_every_allocation_may_fail(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    struct layer_data data;
    layer_data_init(&data, &layer, 1);
    long n = 0;
    for (;; n++) {
        struct budget budget = {.fail_at = n};
        bool ran = attempt(&data, &budget);
        if (ran)
            break;
        assert_true(n < 1000);
    }
    assert_true(n >= 4); // there were allocations to fail
    print_message("%s: %ld allocations\n", device, n);
    layer_data_finish(&data);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_may_fail)};
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
