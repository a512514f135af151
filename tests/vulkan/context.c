// SPDX-License-Identifier: MIT
// Vulkan contexts: addressing, the pipeline cache on disk and in the host's store, and proof that
// what the validation layer finds is counted.
#include "fixture.h"
#include "host.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static vkmoe_context_desc plain(void)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.cache_dir = "";
    return desc;
}

// Opens, makes pipelines, closes.
static void use(const vkmoe_context_desc *desc)
{
    struct layer_data data;
    struct stack stack;
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&data, &layer, 3);
    check_ok(stack_create(&stack, desc, &data, 8, false));
    stack_destroy(&stack);
    layer_data_finish(&data);
}

static void addressing_is_as_asked(void **state)
{
    (void) state;
    vkmoe_vk_handles handles;
    for (int floor = 0; floor < 2; floor++)
        for (enum vkmoe_addressing a = VKMOE_ADDRESSING_AUTO; a <= VKMOE_ADDRESSING_BDA; a++) {
            vkmoe_context *context;
            vkmoe_context_desc desc = plain();
            desc.addressing = a;
            desc.floor = floor;
            if (floor && a == VKMOE_ADDRESSING_BDA) {
                check_fails(vkmoe_context_create(&desc, &context), VKMOE_E_UNSUPPORTED,
                            "no buffer device address in floor mode");
                assert_null(context);
                continue;
            }
            check_ok(vkmoe_context_create(&desc, &context));
            check_ok(vkmoe_vk_get_handles(context, &handles));
            assert_non_null(handles.queue);
            // Both CI drivers have buffer device address.
            assert_int_equal(handles.buffer_device_address,
                             !floor && a != VKMOE_ADDRESSING_DESCRIPTORS);
            vkmoe_context_destroy(context);
        }
}

static void what_cannot_be_computed_is_refused(void **state)
{
    (void) state;
    struct layer_data data;
    struct stack stack;
    vkmoe_plan *plan;
    vkmoe_context_desc desc = plain();
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&data, &layer, 3);
    check_ok(stack_create(&stack, &desc, &data, 8, false));
    vkmoe_plan_desc plan_desc = vkmoe_plan_desc_init();
    plan_desc.layer = &layer;
    plan_desc.max_tokens = 8;
    plan_desc.variant = "a3";
    check_fails(vkmoe_plan_create(stack.context, &plan_desc, &plan), VKMOE_E_UNSUPPORTED,
                "variant 'a3'");
    plan_desc.variant = "a1";
    check_fails(vkmoe_plan_create(stack.context, &plan_desc, &plan), VKMOE_E_UNSUPPORTED,
                "precision exact does not allow it");
    plan_desc.precision = VKMOE_PRECISION_HALF;
    check_fails(vkmoe_plan_create(stack.context, &plan_desc, &plan), VKMOE_E_UNSUPPORTED,
                "no kernel for weights of f32 and f32");
    plan_desc.precision = VKMOE_PRECISION_EXACT;
    plan_desc.variant = "a0";
    check_ok(vkmoe_plan_create(stack.context, &plan_desc, &plan));
    vkmoe_plan_destroy(plan);
    vkmoe_layer_desc huge = layer;
    vkmoe_weights_layout layout;
    huge.d_model = huge.d_ff = 1 << 22;
    check_fails(vkmoe_weights_get_layout(stack.context, &huge, &layout), VKMOE_E_UNSUPPORTED,
                "more than");
    plan_desc.max_tokens = 1 << 27; // in blocks
    check_ok(vkmoe_plan_create(stack.context, &plan_desc, &plan));
    vkmoe_plan_destroy(plan);
    stack_destroy(&stack);
    layer_data_finish(&data);
}

static bool driver_has_caches(void)
{
    vkmoe_context *context;
    vkmoe_context_desc desc = plain();
    check_ok(vkmoe_context_create(&desc, &context));
    bool has = host_driver_has_caches(context);
    vkmoe_context_destroy(context);
    return has;
}

// The one file of a folder, or an empty path.
static void only_file(const char *folder, char path[512])
{
    DIR *dir = opendir(folder);
    path[0] = '\0';
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry->d_name[0] != '.') {
            assert_int_equal(path[0], '\0');
            snprintf(path, 512, "%s/%s", folder, entry->d_name);
        }
    closedir(dir);
}

static long size_of(const char *path)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    fclose(file);
    return size;
}

static void pipelines_are_cached_on_disk(void **state)
{
    (void) state;
    char folder[] = "vkmoe-cache-XXXXXX", deep[128], path[512];
    assert_non_null(mkdtemp(folder));
    snprintf(deep, sizeof deep, "%s/a/b", folder);
    vkmoe_context_desc desc = plain();
    desc.cache_dir = deep;
    use(&desc);
    only_file(deep, path);
    if (!driver_has_caches()) {
        assert_string_equal(path, "");
        assert_int_equal(rmdir(folder), 0);
        return;
    }
    assert_true(strstr(path, "pipelines-") != NULL);
    long size = size_of(path);
    assert_true(size >= 32);

    // A damaged file is an empty cache, and is replaced.
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs("this is no pipeline cache, but it is longer than a header", file);
    fclose(file);
    use(&desc);
    only_file(deep, path);
    assert_int_equal(size_of(path), size);
    remove(path);

    // A folder that cannot be made costs the cache, not the run.
    snprintf(path, sizeof path, "%s/file", folder);
    file = fopen(path, "wb");
    assert_non_null(file);
    fclose(file);
    desc.cache_dir = path;
    use(&desc);
    remove(path);
    rmdir(deep);
    snprintf(deep, sizeof deep, "%s/a", folder);
    rmdir(deep);
    assert_int_equal(rmdir(folder), 0); // nothing is left over
}

static struct {
    char key[128];
    unsigned char data[1 << 20];
    size_t size;
    int n_gets, n_sets;
    size_t growth; // of the entry, between asking for its size and reading it
} store;

static bool store_get(void *user, const char *key, void *data, size_t *size)
{
    (void) user;
    store.n_gets++;
    if (strcmp(key, store.key) != 0)
        return false;
    if (data)
        memcpy(data, store.data, store.size < *size ? store.size : *size);
    *size = store.size + (data ? store.growth : 0);
    return true;
}

static void store_set(void *user, const char *key, const void *data, size_t size)
{
    (void) user;
    assert_true(size <= sizeof store.data && strlen(key) < sizeof store.key);
    store.n_sets++;
    strcpy(store.key, key);
    memcpy(store.data, data, size);
    store.size = size;
}

static void pipelines_are_cached_by_the_host(void **state)
{
    (void) state;
    vkmoe_host services = vkmoe_host_init();
    services.cache_get = store_get;
    services.cache_set = store_set;
    vkmoe_context_desc desc = plain();
    desc.host = &services;
    use(&desc);
    assert_int_equal(store.n_sets, driver_has_caches());
    int gets = store.n_gets;
    use(&desc);
    assert_true(store.n_gets > gets);
    assert_int_equal(store.n_sets, driver_has_caches()); // nothing new: not written again
}

// What the driver did not write, it does not get: each of these entries is an empty cache, and
// replaced.
static void a_damaged_entry_is_no_cache(void **state)
{
    (void) state;
    if (!driver_has_caches())
        return;
    memset(&store, 0, sizeof store);
    vkmoe_host services = vkmoe_host_init();
    services.cache_get = store_get;
    services.cache_set = store_set;
    vkmoe_context_desc desc = plain();
    desc.host = &services;
    use(&desc);
    assert_int_equal(store.n_sets, 1);
    store.growth = 4096;
    use(&desc);
    assert_int_equal(store.n_sets, 2);
    store.growth = 0;
    memset(store.data + store.size, 0x5a, 64); // behind it
    store.size += 64;
    use(&desc);
    assert_int_equal(store.n_sets, 3);
    store.data[12] ^= 1; // in the checksum
    use(&desc);
    assert_int_equal(store.n_sets, 4);
    store.size = 12;
    use(&desc);
    assert_int_equal(store.n_sets, 5);
    use(&desc);
    assert_int_equal(store.n_sets, 5); // whole again
}

// The output of one token, routed to all experts of a layer of 30 MiB.
static void run_large(bool floor, const struct layer_data *data, float *y)
{
    struct stack stack;
    vkmoe_context_desc desc = plain();
    desc.floor = floor;
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS;
    float *x = malloc(data->layer.d_model * sizeof *x);
    assert_non_null(x);
    fill_random(x, data->layer.d_model, 5);
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    check_ok(stack_create(&stack, &desc, data, 1, false));
    check_ok(vkmoe_run(stack.bind, 1, &io));
    stack_destroy(&stack);
    free(x);
}

// Host memory is never a floor device's own, so all goes through staging, weights in several
// pieces. On a software driver without `floor` nothing does.
static void staging_changes_nothing(void **state)
{
    (void) state;
    enum { WIDTH = 512 };
    struct layer_data data;
    float staged[WIDTH], direct[WIDTH];
    vkmoe_layer_desc layer = full_layer();
    layer.top_k = layer.n_experts;
    layer.d_model = layer.d_out = WIDTH;
    layer.d_ff = 2 * WIDTH;
    layer_data_init(&data, &layer, 3);
    run_large(true, &data, staged);
    run_large(false, &data, direct);
    assert_memory_equal(staged, direct, sizeof staged);
    assert_true(isfinite(staged[0]) && staged[0] != 0);
    layer_data_finish(&data);
}

// The control of every test that runs under validation: a wrong call is seen and counted.
static void validation_messages_are_counted(void **state)
{
    (void) state;
    struct host host;
    struct host_buffer buffer;
    vkmoe_context *context;
    vkmoe_context_desc desc = plain();
    desc.validation = true;
    check_ok(vkmoe_context_create(&desc, &context));
    host_init(&host, context);
    host_buffer_init(&host, 1024, &buffer);
    assert_int_equal(vkmoe_context_validation_count(context), 0);
    // Bound a second time: the layer knows, drivers mostly do not.
    (void) host.vkBindBufferMemory(host.handles.device, buffer.handle, buffer.memory, 0);
    assert_int_not_equal(vkmoe_context_validation_count(context), 0);
    host_buffer_finish(&host, &buffer);
    host_finish(&host);
    vkmoe_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addressing_is_as_asked),
        cmocka_unit_test(what_cannot_be_computed_is_refused),
        cmocka_unit_test(pipelines_are_cached_on_disk),
        cmocka_unit_test(pipelines_are_cached_by_the_host),
        cmocka_unit_test(a_damaged_entry_is_no_cache),
        cmocka_unit_test(staging_changes_nothing),
        cmocka_unit_test(validation_messages_are_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
