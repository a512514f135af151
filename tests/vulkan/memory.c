// SPDX-License-Identifier: MIT
// Which memory a buffer gets, on machines as they are sold.
#include "check.h"

#include "base/bits.h"
#include "vulkan/vk.h"

enum {
    LOCAL = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VISIBLE = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    WRITE = VISIBLE | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT, // and reading takes long
    CACHED = VISIBLE | VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    BOTH = WRITE | CACHED,
    LAZY = VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT,
    PROTECTED = VK_MEMORY_PROPERTY_PROTECTED_BIT,
    AMD = VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD,
    END = -1,
    MAX_HEAPS = 3,
    N_USES = MOE_VK_READBACK + 1,
};

struct heap {
    uint32_t mib;
    bool local;
};

// {flags, heap}; ended by END.
struct type {
    int flags;
    uint32_t heap;
};

struct machine {
    const char *name;
    bool integrated;
    struct heap heaps[MAX_HEAPS];
    struct type types[12];
    enum moe_vk_memory_kind kind;
    uint32_t want[N_USES]; // the type for what kernels use, inputs, upload, readback
};

#define CARD(mib) {{mib, true}, {32000, false}}
#define CARD_WITH_WINDOW(mib, window) {{mib, true}, {32000, false}, {window, true}}

static const struct machine machines[] = {
    {"NVIDIA RTX 2070 Super, no resizable BAR", false, CARD_WITH_WINDOW(8192, 246),
     {{0, 1}, {LOCAL, 0}, {WRITE, 1}, {BOTH, 1}, {LOCAL | WRITE, 2}, {END, 0}},
     MOE_VK_DISCRETE, {1, 1, 2, 3}},
    {"NVIDIA RTX 2080, a smaller window", false, CARD_WITH_WINDOW(7987, 214),
     {{0, 1}, {LOCAL, 0}, {WRITE, 1}, {BOTH, 1}, {LOCAL | WRITE, 2}, {END, 0}},
     MOE_VK_DISCRETE, {1, 1, 2, 3}},
    {"NVIDIA RTX 4090, resizable BAR", false, CARD(24564),
     {{0, 1}, {LOCAL, 0}, {WRITE, 1}, {BOTH, 1}, {LOCAL | WRITE, 0}, {END, 0}},
     MOE_VK_REBAR, {1, 4, 2, 3}},
    {"NVIDIA without a window", false, CARD(6144),
     {{0, 1}, {LOCAL, 0}, {WRITE, 1}, {BOTH, 1}, {END, 0}}, MOE_VK_DISCRETE, {1, 1, 2, 3}},
    {"AMD RX 5700, RADV, small BAR", false, CARD_WITH_WINDOW(7936, 256),
     {{LOCAL, 0}, {LOCAL, 0}, {WRITE, 1}, {LOCAL | WRITE, 2}, {BOTH, 1}, {LOCAL | AMD, 0},
      {WRITE | AMD, 1}, {LOCAL | WRITE | AMD, 2}, {BOTH | AMD, 1}, {END, 0}},
     MOE_VK_DISCRETE, {0, 0, 2, 4}},
    {"AMD RX 7900, RADV, resizable BAR", false, {{16000, false}, {24560, true}},
     {{LOCAL, 1}, {LOCAL, 1}, {WRITE, 0}, {LOCAL | WRITE, 1}, {BOTH, 0}, {LOCAL | AMD, 1},
      {WRITE | AMD, 0}, {LOCAL | WRITE | AMD, 1}, {BOTH | AMD, 0}, {END, 0}},
     MOE_VK_REBAR, {0, 3, 2, 4}},
    {"AMD RX 6600, Windows, types of an extension first", false, CARD_WITH_WINDOW(7920, 256),
     {{LOCAL | AMD, 0}, {WRITE | AMD, 1}, {LOCAL | WRITE | AMD, 2}, {BOTH | AMD, 1}, {LOCAL, 0},
      {WRITE, 1}, {LOCAL | WRITE, 2}, {BOTH, 1}, {END, 0}},
     MOE_VK_DISCRETE, {4, 4, 5, 7}},
    {"AMD APU, RADV", true, {{1365, false}, {2730, true}},
     {{LOCAL, 1}, {WRITE, 0}, {LOCAL | WRITE, 1}, {BOTH, 0}, {LOCAL | AMD, 1}, {END, 0}},
     MOE_VK_UNIFIED, {0, 2, 1, 3}},
    {"AMD APU, RADV of 2017, memory of its own beside the shared", true,
     {{768, true}, {256, true}, {7000, true}},
     {{LOCAL, 0}, {LOCAL | WRITE, 1}, {LOCAL | WRITE, 2}, {LOCAL | BOTH, 2}, {END, 0}},
     MOE_VK_REBAR, {0, 1, 1, 3}},
    {"Intel Arc A770, resizable BAR", false, CARD(16240),
     {{LOCAL, 0}, {BOTH, 1}, {LOCAL | WRITE, 0}, {END, 0}}, MOE_VK_REBAR, {0, 2, 1, 1}},
    {"Intel Arc A770, small BAR", false, CARD_WITH_WINDOW(15984, 256),
     {{LOCAL, 0}, {BOTH, 1}, {LOCAL | WRITE, 2}, {END, 0}}, MOE_VK_DISCRETE, {0, 0, 1, 1}},
    {"Intel UHD 620, ANV, shared last-level cache", true, {{24000, true}},
     {{LOCAL, 0}, {LOCAL | WRITE, 0}, {LOCAL | BOTH, 0}, {END, 0}}, MOE_VK_UNIFIED, {2, 1, 1, 2}},
    {"Intel Atom, ANV, no cache is shared", true, {{6000, true}},
     {{LOCAL | WRITE, 0}, {LOCAL | CACHED, 0}, {END, 0}}, MOE_VK_UNIFIED, {0, 0, 0, 1}},
    {"Adreno, a heap that is protected", true, {{3649, true}, {256, true}},
     {{LOCAL, 0}, {LOCAL | CACHED, 0}, {LOCAL | BOTH, 0}, {LOCAL | PROTECTED, 1}, {LOCAL | LAZY, 0},
      {END, 0}},
     MOE_VK_UNIFIED, {2, 2, 2, 2}},
    {"Adreno, Turnip without coherent caches", true, {{5600, true}},
     {{LOCAL | WRITE, 0}, {LOCAL | CACHED, 0}, {LOCAL | LAZY, 0}, {END, 0}},
     MOE_VK_UNIFIED, {0, 0, 0, 1}},
    {"Mali-G78 of a Pixel 6 Pro, nothing is cached", true, {{11500, true}},
     {{LOCAL | WRITE, 0}, {LOCAL | LAZY, 0}, {LOCAL | PROTECTED, 0}, {END, 0}},
     MOE_VK_UNIFIED, {0, 0, 0, 0}},
    {"Mali, coherent", true, {{7600, true}},
     {{LOCAL | WRITE, 0}, {LOCAL | BOTH, 0}, {LOCAL | LAZY, 0}, {END, 0}},
     MOE_VK_UNIFIED, {1, 0, 0, 1}},
    {"PowerVR, a heap beside its own", true, {{2048, true}, {512, false}},
     {{LOCAL, 0}, {LOCAL | WRITE, 0}, {WRITE, 1}, {END, 0}}, MOE_VK_UNIFIED, {0, 1, 2, 1}},
    {"Apple M1, MoltenVK", true, {{10922, true}},
     {{LOCAL, 0}, {LOCAL | BOTH, 0}, {LOCAL | LAZY, 0}, {END, 0}}, MOE_VK_UNIFIED, {1, 1, 1, 1}},
    {"AMD in a Mac, MoltenVK, managed memory", false, CARD(8176),
     {{LOCAL, 0}, {LOCAL | CACHED, 0}, {BOTH, 1}, {END, 0}}, MOE_VK_REBAR, {0, 1, 2, 2}},
    {"lavapipe", true, {{24000, true}}, {{LOCAL | BOTH, 0}, {END, 0}},
     MOE_VK_UNIFIED, {0, 0, 0, 0}},
    {"SwiftShader", true, {{1024, true}}, {{LOCAL | BOTH, 0}, {END, 0}},
     MOE_VK_UNIFIED, {0, 0, 0, 0}},
    {"integrated, nothing of its own is the host's", true, {{512, true}, {7000, false}},
     {{LOCAL, 0}, {WRITE, 1}, {BOTH, 1}, {END, 0}}, MOE_VK_DISCRETE, {0, 0, 1, 2}},
    {"a card of 256 MiB, all of it in the window", false, CARD(256),
     {{LOCAL | WRITE, 0}, {WRITE, 1}, {CACHED, 1}, {END, 0}}, MOE_VK_DISCRETE, {0, 0, 1, 2}},
};

static VkPhysicalDeviceMemoryProperties memory_of(const struct machine *machine)
{
    VkPhysicalDeviceMemoryProperties memory = {.memoryHeapCount = MAX_HEAPS};
    for (int i = 0; i < MAX_HEAPS; i++)
        memory.memoryHeaps[i] = (VkMemoryHeap){
            .size = (VkDeviceSize) machine->heaps[i].mib << 20,
            .flags = machine->heaps[i].local ? VK_MEMORY_HEAP_DEVICE_LOCAL_BIT : 0};
    for (const struct type *type = machine->types; type->flags != END; type++)
        memory.memoryTypes[memory.memoryTypeCount++] =
            (VkMemoryType){(VkMemoryPropertyFlags) type->flags, type->heap};
    return memory;
}

static void each_machine_has_its_kind(void **state)
{
    (void) state;
    for (size_t m = 0; m < MOE_COUNT(machines); m++) {
        const VkPhysicalDeviceMemoryProperties memory = memory_of(&machines[m]);
        const enum moe_vk_memory_kind kind =
            moe_vk_memory_kind(&memory, machines[m].integrated);
        if (kind != machines[m].kind)
            fail_msg("%s: %s, not %s", machines[m].name, moe_vk_memory_kind_name(kind),
                     moe_vk_memory_kind_name(machines[m].kind));
    }
}

static void each_use_gets_its_type(void **state)
{
    (void) state;
    for (size_t m = 0; m < MOE_COUNT(machines); m++) {
        const VkPhysicalDeviceMemoryProperties memory = memory_of(&machines[m]);
        for (int use = 0; use < N_USES; use++) {
            const uint32_t type = moe_vk_memory_type(&memory, machines[m].kind,
                                                     (enum moe_vk_memory_use) use, UINT32_MAX);
            if (type != machines[m].want[use])
                fail_msg("%s, use %d: type %d, not %d", machines[m].name, use, (int) type,
                         (int) machines[m].want[use]);
        }
    }
}

// A device in floor mode is treated as if it were discrete, whatever it has.
static void floor_has_no_memory_of_the_host(void **state)
{
    (void) state;
    struct moe_vk_caps caps = {.memory_kind = MOE_VK_UNIFIED};
    moe_vk_caps_floor(&caps);
    assert_int_equal(caps.memory_kind, MOE_VK_DISCRETE);
}

// A buffer that cannot have the best type gets the next; one that can have none, none.
static void allowed_types_only(void **state)
{
    (void) state;
    const VkPhysicalDeviceMemoryProperties rebar = memory_of(&machines[2]);
    const struct {
        enum moe_vk_memory_kind kind;
        enum moe_vk_memory_use use;
        uint32_t allowed, want;
    } cases[] = {
        {MOE_VK_REBAR, MOE_VK_DEVICE, 0x1d, 4},     {MOE_VK_REBAR, MOE_VK_DEVICE, 0x0d, 0},
        {MOE_VK_REBAR, MOE_VK_INPUT, 0x0f, 1},      {MOE_VK_REBAR, MOE_VK_INPUT, 0x0c, 2},
        {MOE_VK_DISCRETE, MOE_VK_INPUT, 0x1f, 1},   {MOE_VK_UNIFIED, MOE_VK_INPUT, 0x1f, 4},
        {MOE_VK_REBAR, MOE_VK_UPLOAD, 0x1b, 3},     {MOE_VK_REBAR, MOE_VK_UPLOAD, 0x13, 4},
        {MOE_VK_REBAR, MOE_VK_UPLOAD, 0x03, UINT32_MAX},
        {MOE_VK_REBAR, MOE_VK_READBACK, 0x17, 2},   {MOE_VK_REBAR, MOE_VK_READBACK, 0x13, 4},
        {MOE_VK_REBAR, MOE_VK_READBACK, 0x03, UINT32_MAX},
        {MOE_VK_UNIFIED, MOE_VK_DEVICE, 0, UINT32_MAX},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++)
        if (moe_vk_memory_type(&rebar, cases[i].kind, cases[i].use, cases[i].allowed) !=
            cases[i].want)
            fail_msg("case %zu", i);
}

// A range of a mapping covers what was asked for, in whole atoms or to the memory's end.
static void ranges_are_whole_atoms(void **state)
{
    (void) state;
    const struct moe_vk_buffer buffer = {.size = 1000, .allocated = 1024};
    static const struct {
        uint64_t atom, offset, size, want_offset, want_size;
    } cases[] = {{1, 5, 7, 5, 7},        {64, 0, 1, 0, 64},       {64, 63, 2, 0, 128},
                 {64, 64, 64, 64, 64},   {64, 128, 65, 128, 128}, {64, 900, 60, 896, 64},
                 {64, 900, 61, 896, VK_WHOLE_SIZE},               {64, 0, 1000, 0, VK_WHOLE_SIZE},
                 {256, 700, 60, 512, 256},  {256, 700, 69, 512, VK_WHOLE_SIZE},
                 {1, 0, 1024, 0, VK_WHOLE_SIZE}};
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        const VkMappedMemoryRange range =
            moe_vk_mapped_range(&buffer, cases[i].atom, cases[i].offset, cases[i].size);
        if (range.offset != cases[i].want_offset || range.size != cases[i].want_size)
            fail_msg("case %zu: %d bytes from %d", i, (int) range.size, (int) range.offset);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_machine_has_its_kind),
        cmocka_unit_test(each_use_gets_its_type),
        cmocka_unit_test(floor_has_no_memory_of_the_host),
        cmocka_unit_test(allowed_types_only),
        cmocka_unit_test(ranges_are_whole_atoms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
