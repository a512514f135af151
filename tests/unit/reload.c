// SPDX-License-Identifier: MIT
// A program that is not linked with the library: reload LIBRARY DEVICE [emulated]. It loads the
// library, runs a layer and unloads it, again and again. Each time the library, the Vulkan loader
// and all threads are really gone, and the next time has no more of anything.
#include <vkmoe/vkmoe.h>

#include <dirent.h>
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    N_ROUNDS = 20,
    QUARTER = N_ROUNDS / 4,
    N_TOKENS = 9,
    N_EXPERTS = 4,
    WIDTH = 16,
    MATRIX = WIDTH * WIDTH,
};

// There is no error text to read without the library.
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: round %d: not so: %s\n", __FILE__, __LINE__, round_now, #condition);    \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static int round_now;

#define FUNCTIONS(X)                                                                               \
    X(vkmoe_context_create)                                                                        \
    X(vkmoe_context_destroy)                                                                       \
    X(vkmoe_weights_create)                                                                        \
    X(vkmoe_weights_destroy)                                                                       \
    X(vkmoe_plan_create)                                                                           \
    X(vkmoe_plan_destroy)                                                                          \
    X(vkmoe_bind_create)                                                                           \
    X(vkmoe_bind_destroy)                                                                          \
    X(vkmoe_run)                                                                                   \
    X(vkmoe_error_text)

struct api {
#define MEMBER(name) __typeof__(name) *name;
    FUNCTIONS(MEMBER)
#undef MEMBER
};

static void must(const struct api *api, enum vkmoe_status status)
{
    if (status == VKMOE_OK)
        return;
    printf("round %d: %d: %s\n", round_now, status, api->vkmoe_error_text());
    exit(1);
}

static long n_blocks;
static int n_messages;

static void *count_alloc(void *user, size_t size, size_t align)
{
    (void) user;
    n_blocks++;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void count_free(void *user, void *memory)
{
    (void) user;
    n_blocks--;
    free(memory);
}

static void count_log(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user;
    printf("log %d: %s\n", level, text);
    n_messages += level <= VKMOE_LOG_WARN;
}

// Runs a layer and leaves nothing.
static void use(const struct api *api, const char *device, float y[N_TOKENS * WIDTH])
{
    static float numbers[N_EXPERTS * 2 * MATRIX + N_EXPERTS * WIDTH], x[N_TOKENS * WIDTH];
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        numbers[i] = (float) (i * 37 % 64) / 64 - 0.5f;
    for (int i = 0; i < N_TOKENS * WIDTH; i++)
        x[i] = (float) (i * 29 % 32) / 16 - 1;

    vkmoe_host host = vkmoe_host_init();
    host.alloc = count_alloc;
    host.free = count_free;
    host.log = count_log;
    vkmoe_context_desc context_desc = vkmoe_context_desc_init();
    context_desc.host = &host;
    context_desc.device = device;
    context_desc.cache_dir = "";
    context_desc.n_threads = 3;
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = N_EXPERTS;
    layer.top_k = 2;
    layer.d_model = layer.d_ff = WIDTH;
    vkmoe_router_tensors router = {.weight = {
        .data = numbers + N_EXPERTS * 2 * MATRIX, .type = VKMOE_F32}};
    vkmoe_expert_tensors experts[N_EXPERTS] = {0};
    for (int e = 0; e < N_EXPERTS; e++) {
        experts[e].up = (vkmoe_tensor){.data = numbers + 2 * e * MATRIX, .type = VKMOE_F32};
        experts[e].down = (vkmoe_tensor){.data = numbers + (2 * e + 1) * MATRIX, .type = VKMOE_F32};
    }
    vkmoe_weights_desc weights_desc = vkmoe_weights_desc_init();
    weights_desc.layer = &layer;
    weights_desc.router = &router;
    weights_desc.experts = experts;
    vkmoe_plan_desc plan_desc = vkmoe_plan_desc_init();
    plan_desc.layer = &layer;
    plan_desc.max_tokens = N_TOKENS;

    vkmoe_context *context;
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    must(api, api->vkmoe_context_create(&context_desc, &context));
    must(api, api->vkmoe_weights_create(context, &weights_desc, &weights));
    must(api, api->vkmoe_plan_create(context, &plan_desc, &plan));
    must(api, api->vkmoe_bind_create(plan, weights, NULL, &bind));
    must(api, api->vkmoe_run(bind, N_TOKENS, &io));
    CHECK(api->vkmoe_run(bind, N_TOKENS + 1, &io) < 0 && *api->vkmoe_error_text());
    api->vkmoe_bind_destroy(bind);
    api->vkmoe_plan_destroy(plan);
    api->vkmoe_weights_destroy(weights);
    api->vkmoe_context_destroy(context);
    CHECK(n_blocks == 0 && n_messages == 0);
}

// ---- what a process has ------------------------------------------------------------------------

// Entries of a folder. SwiftShader keeps one file of its own for every time that it is loaded, and
// closes none: those do not count.
static int count_entries(const char *path)
{
    int n = 0;
    DIR *dir = opendir(path);
    CHECK(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        char target[256] = "";
        (void) !readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        n += entry->d_name[0] != '.' && !strstr(target, "swiftshader_jit");
    }
    closedir(dir);
    return n;
}

// Lines of /proc/self/maps, of those that name `part` where that is given.
static int count_maps(const char *part)
{
    char line[8192];
    int n = 0;
    FILE *file = fopen("/proc/self/maps", "re");
    CHECK(file);
    while (fgets(line, sizeof line, file))
        n += !part || strstr(line, part);
    fclose(file);
    return n;
}

static long count_pages(void)
{
    long n = 0;
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    FILE *file = fopen("/proc/self/statm", "re");
    CHECK(file && fscanf(file, "%*d %ld", &n) == 1);
    fclose(file);
    return n;
}

// What leaks grows all the time, so that the least of the last quarter is beyond the most of the
// second one, here by more than `slack`.
static bool grows(const long values[N_ROUNDS], long slack)
{
    long most = values[QUARTER], least = values[N_ROUNDS - 1];
    for (int i = QUARTER; i < 2 * QUARTER; i++)
        most = values[i] > most ? values[i] : most;
    for (int i = N_ROUNDS - QUARTER; i < N_ROUNDS; i++)
        least = values[i] < least ? values[i] : least;
    return least > most + slack;
}

// The sanitizers keep what is freed; the one of threads, memory for each library ever loaded.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MEMORY_TELLS = false };
#else
enum { MEMORY_TELLS = true };
#endif

static void load_use_unload(const char *library, const char *device, float y[N_TOKENS * WIDTH])
{
    struct api api;
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        printf("%s\n", dlerror());
        exit(1);
    }
#define LOAD(name) CHECK((api.name = (__typeof__(name) *) dlsym(handle, #name)));
    FUNCTIONS(LOAD)
#undef LOAD
    use(&api, device, y);
    CHECK(dlclose(handle) == 0);
    CHECK(!dlopen(library, RTLD_NOW | RTLD_NOLOAD));
    CHECK(count_maps("libvkmoe") == 0 && count_maps("libvulkan.so") == 0);
}

// A thread that was joined is on this list a moment longer.
static bool threads_are(int n)
{
    for (int i = 0; i < 1000; i++) {
        if (count_entries("/proc/self/task") == n)
            return true;
        usleep(1000);
    }
    return false;
}

static void *nothing(void *arg)
{
    return arg;
}

// A sanitizer starts a thread of its own with the program's first one.
static int count_own_threads(void)
{
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0);
    int least = count_entries("/proc/self/task");
    for (int i = 0; i < 50; i++) {
        usleep(1000);
        int n = count_entries("/proc/self/task");
        least = n < least ? n : least;
    }
    return least;
}

int main(int argc, char **argv)
{
    float first[N_TOKENS * WIDTH], y[N_TOKENS * WIDTH];
    static long maps[N_ROUNDS], files[N_ROUNDS], pages[N_ROUNDS];
    if (argc < 3)
        return 2;
    bool emulated = argc > 3;
#ifdef __GLIBC__
    mallopt(M_ARENA_MAX, 1); // else the threads of a driver take more, as it happens
#endif
    CHECK(!dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD)); // it is not linked
    int n_threads = count_own_threads();
    for (round_now = 0; round_now < N_ROUNDS; round_now++) {
        memset(y, 0xff, sizeof y);
        load_use_unload(argv[1], argv[2], y);
        CHECK(threads_are(n_threads));
        if (round_now == 0)
            memcpy(first, y, sizeof y);
        CHECK(memcmp(y, first, sizeof y) == 0);
        maps[round_now] = count_maps(NULL);
        files[round_now] = count_entries("/proc/self/fd");
        pages[round_now] = count_pages();
        printf("round %d: %ld maps, %ld files, %ld pages\n", round_now, maps[round_now],
               files[round_now], pages[round_now]);
    }
    CHECK(!MEMORY_TELLS || !grows(maps, 0));
    CHECK(!grows(files, 0));
    // The C library's own lists take a page a round; what drivers scatter, a few more for a while.
    long slack = strcmp(argv[2], "vulkan") == 0 ? 4 * N_ROUNDS : N_ROUNDS;
    CHECK(!MEMORY_TELLS || emulated || !grows(pages, slack));
    return 0;
}
