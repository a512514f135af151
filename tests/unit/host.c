// SPDX-License-Identifier: MIT
// The host's hooks: all memory goes through its allocator and comes back, at the alignment asked
// for; zones close; hosts of older versions work. Argument: the device.
#include "check.h"
#include "fixture.h"

#include "base/host.h"

#include <stdio.h>
#include <stdlib.h>

static const char *device;

struct counts {
    long live, total;
    bool misaligned;
    int depth, zones;
    char log[256];
};

static void *count_alloc(void *user, size_t size, size_t align)
{
    struct counts *counts = user;
    void *memory = NULL;
    assert_true(size > 0 && align > 0 && align <= 4096 && (align & (align - 1)) == 0);
    if (posix_memalign(&memory, align, size) != 0)
        return NULL;
    memset(memory, 0xdb, size); // what the library does not clear shows
    counts->misaligned |= (uintptr_t) memory % align != 0;
    counts->live++;
    counts->total++;
    return memory;
}

static void *refuse_alloc(void *user, size_t size, size_t align)
{
    (void) user, (void) size, (void) align;
    return NULL;
}

static bool get_nothing(void *user, const char *key, void *memory, size_t *size)
{
    (void) user, (void) key, (void) memory, (void) size;
    return false;
}

static void count_free(void *user, void *memory)
{
    struct counts *counts = user;
    assert_non_null(memory);
    counts->live--;
    free(memory);
}

static void count_zone(void *user, const char *zone, bool begin)
{
    struct counts *counts = user;
    assert_non_null(zone);
    counts->depth += begin ? 1 : -1;
    counts->zones += begin;
    assert_true(counts->depth >= 0);
}

static void keep_log(void *user, enum vkmoe_log_level level, const char *text)
{
    struct counts *counts = user;
    snprintf(counts->log, sizeof counts->log, "%d %s", (int) level, text);
}

static void run_a_layer(const vkmoe_host *host)
{
    vkmoe_layer_desc layer = full_layer();
    struct layer_data data;
    struct stack stack;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    desc.host = host;
    float x[4 * 6], y[4 * 3];
    vkmoe_io io = vkmoe_io_init();
    io.x = x, io.y = y;
    fill_random(x, 4 * 6, 1);
    layer_data_init(&data, &layer, 1);
    check_ok(stack_create(&stack, &desc, &data, 4, false));
    check_ok(vkmoe_run(stack.bind, 4, &io));
    stack_destroy(&stack);
    layer_data_finish(&data);
}

static void test_balanced(void **state)
{
    (void) state;
    struct counts counts = {0};
    vkmoe_host host = vkmoe_host_init();
    host.user = &counts;
    host.alloc = count_alloc;
    host.free = count_free;
    host.trace = count_zone;
    run_a_layer(&host);
    assert_true(counts.total >= 4); // context, weights, plan, bind at least
    assert_int_equal(counts.live, 0);
    assert_false(counts.misaligned);
    assert_int_equal(counts.depth, 0);
    assert_true(counts.zones >= 3); // upload, compile, run
}

// Running allocates nothing, whatever type x has.
static void check_run_allocates_nothing(enum vkmoe_dtype x_type)
{
    struct counts counts = {0};
    vkmoe_host host = vkmoe_host_init();
    host.user = &counts;
    host.alloc = count_alloc;
    host.free = count_free;
    vkmoe_layer_desc layer = full_layer();
    struct layer_data data;
    struct stack stack;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    desc.host = &host;
    float values[64 * 6], x[64 * 6], y[64 * 3];
    vkmoe_io io = vkmoe_io_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.max_tokens = 64;
    plan.x_type = x_type;
    io.x = x, io.y = y;
    fill_random(values, 64 * 6, 1);
    check_ok(vkmoe_dtype_convert(x_type, values, 64 * 6, x));
    layer_data_init(&data, &layer, 1);
    check_ok(stack_create_plan(&stack, &desc, &data, &plan));
    check_ok(vkmoe_run(stack.bind, 64, &io)); // workers may start with the first run
    long before = counts.total;
    for (uint32_t n = 0; n <= 64; n += 16)
        check_ok(vkmoe_run(stack.bind, n, &io));
    assert_int_equal(counts.total, before);
    stack_destroy(&stack);
    layer_data_finish(&data);
    assert_int_equal(counts.live, 0);
}

static void test_run_allocates_nothing(void **state)
{
    (void) state;
    check_run_allocates_nothing(VKMOE_F32);
    check_run_allocates_nothing(VKMOE_F16);
    check_run_allocates_nothing(VKMOE_BF16);
}

static void test_older_host(void **state)
{
    (void) state;
    struct counts counts = {0};
    vkmoe_host host;
    memset(&host, 0xff, sizeof host); // what lies behind struct_size is not looked at
    host.struct_size = offsetof(vkmoe_host, log);
    host.user = &counts;
    host.alloc = count_alloc;
    host.free = count_free;
    run_a_layer(&host);
    assert_true(counts.total > 0);
    assert_int_equal(counts.live, 0);
}

static void test_half_an_allocator(void **state)
{
    (void) state;
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_host host = vkmoe_host_init();
    desc.device = device;
    desc.host = &host;
    host.alloc = count_alloc;
    check_fails(vkmoe_context_create(&desc, &context), VKMOE_E_ARGUMENT, "host.free is NULL");
    host.alloc = NULL;
    host.free = count_free;
    check_fails(vkmoe_context_create(&desc, &context), VKMOE_E_ARGUMENT, "host.alloc is NULL");
    host = vkmoe_host_init();
    host.struct_size = 0;
    check_fails(vkmoe_context_create(&desc, &context), VKMOE_E_ARGUMENT, "vkmoe_host");
    assert_null(context);
}

// The private side: zeroed memory, checked products, text.
static void test_helpers(void **state)
{
    (void) state;
    struct counts counts = {0};
    vkmoe_host host, ours = vkmoe_host_init();
    ours.user = &counts;
    ours.alloc = count_alloc;
    ours.free = count_free;
    ours.log = keep_log;
    check_ok(moe_host_init(&host, &ours));

    unsigned char *bytes = moe_alloc(&host, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(bytes[i], 0);
    assert_int_equal((uintptr_t) bytes % MOE_HOST_ALIGN, 0);
    moe_free(&host, bytes);
    moe_free(&host, NULL);
    bytes = moe_alloc(&host, 0);
    assert_non_null(bytes);
    moe_free(&host, bytes);
    assert_null(moe_alloc_array(&host, SIZE_MAX / 2, 3));
    assert_int_equal(counts.live, 0);

    host.alloc = refuse_alloc;
    check_fails(moe_try_alloc(&host, 12345, "the thing", &bytes), VKMOE_E_MEMORY,
                "the thing: 12345 bytes");
    assert_null(bytes);
    moe_log(&host, VKMOE_LOG_WARN, "%d rows", 5);
    assert_string_equal(counts.log, "2 5 rows");

    ours = vkmoe_host_init(); // no callback at all, and half of the cache's pair
    ours.cache_get = get_nothing;
    check_ok(moe_host_init(&host, &ours));
    assert_true(host.alloc == moe_host_default()->alloc && host.free && host.log);
    assert_true(!host.cache_get && !host.cache_set);
    moe_log(&host, VKMOE_LOG_ERROR, "dropped");
    assert_string_equal(counts.log, "2 5 rows");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_balanced),   cmocka_unit_test(test_run_allocates_nothing),
        cmocka_unit_test(test_older_host), cmocka_unit_test(test_half_an_allocator),
        cmocka_unit_test(test_helpers),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
