// SPDX-License-Identifier: MIT
// Which memory a buffer gets, on machines as they are sold.
#include "check.h"

#include "base/bits.h"
#include "vulkan/vk.h"

enum {
    LOCAL = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VISIBLE = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    COHERENT = VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    CACHED = VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    LAZY = VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT,
    PROTECTED = VK_MEMORY_PROPERTY_PROTECTED_BIT,
    AMD = VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD,
    NONE = -1,
};

struct machine {
    const char *name;
    bool unified;
    int types[9]; // flags; ended by NONE
    int want[3];  // index of the type for device, upload, readback
};

static const struct machine machines[] = {
    {"one type for all, a software driver", true, {LOCAL | VISIBLE | COHERENT | CACHED, NONE},
     {0, 0, 0}},
    {"the same, as a floor device", false, {LOCAL | VISIBLE | COHERENT | CACHED, NONE}, {0, 0, 0}},
    {"discrete, memory that nobody wants first", false,
     {0, LOCAL, VISIBLE | COHERENT, VISIBLE | COHERENT | CACHED, LOCAL | VISIBLE | COHERENT, NONE},
     {1, 2, 3}},
    {"discrete, the window into it first", false,
     {LOCAL | VISIBLE | COHERENT, LOCAL, VISIBLE | COHERENT | CACHED, VISIBLE | COHERENT, NONE},
     {1, 3, 2}},
    {"discrete, all of it in the window", false,
     {LOCAL | VISIBLE | COHERENT, VISIBLE | COHERENT, VISIBLE | CACHED, NONE}, {0, 1, 2}},
    {"coherence that is an extension's first", false,
     {LOCAL | AMD, VISIBLE | COHERENT | AMD, VISIBLE | COHERENT | CACHED | AMD, LOCAL,
      VISIBLE | COHERENT, VISIBLE | COHERENT | CACHED, NONE}, {3, 4, 5}},
    {"integrated, uncached for the host", true,
     {LOCAL | LAZY, LOCAL | PROTECTED, LOCAL | VISIBLE | COHERENT, LOCAL | VISIBLE | CACHED, NONE},
     {2, 2, 3}},
    {"integrated, own memory beside the shared", true,
     {LOCAL, LOCAL | VISIBLE | COHERENT | CACHED, NONE}, {1, 1, 1}},
    {"integrated, a device that calls nothing its own", true,
     {VISIBLE | COHERENT, VISIBLE | COHERENT | CACHED, LOCAL, NONE}, {2, 0, 1}},
};

static VkPhysicalDeviceMemoryProperties memory_of(const struct machine *machine)
{
    VkPhysicalDeviceMemoryProperties memory = {0};
    while (machine->types[memory.memoryTypeCount] != NONE) {
        VkMemoryType *type = &memory.memoryTypes[memory.memoryTypeCount];
        type->propertyFlags = (VkMemoryPropertyFlags) machine->types[memory.memoryTypeCount++];
    }
    return memory;
}

static void each_use_gets_its_type(void **state)
{
    (void) state;
    for (size_t m = 0; m < MOE_COUNT(machines); m++) {
        VkPhysicalDeviceMemoryProperties memory = memory_of(&machines[m]);
        for (int use = MOE_VK_DEVICE; use <= MOE_VK_READBACK; use++) {
            uint32_t type = moe_vk_memory_type(&memory, machines[m].unified,
                                               (enum moe_vk_memory_use) use, UINT32_MAX);
            if (type != (uint32_t) machines[m].want[use])
                fail_msg("%s, use %d: type %d, not %d", machines[m].name, use, (int) type,
                         machines[m].want[use]);
        }
    }
}

// A buffer that cannot have the best type gets the next; one that can have none, none.
static void allowed_types_only(void **state)
{
    (void) state;
    VkPhysicalDeviceMemoryProperties memory = memory_of(&machines[3]);
    assert_int_equal(moe_vk_memory_type(&memory, false, MOE_VK_DEVICE, 0xd), 0);
    assert_int_equal(moe_vk_memory_type(&memory, false, MOE_VK_DEVICE, 0xc), 2);
    assert_int_equal(moe_vk_memory_type(&memory, false, MOE_VK_UPLOAD, 0x5), 2);
    assert_int_equal(moe_vk_memory_type(&memory, false, MOE_VK_READBACK, 0x3), 0);
    assert_int_equal(moe_vk_memory_type(&memory, false, MOE_VK_READBACK, 0x2), UINT32_MAX);
    assert_int_equal(moe_vk_memory_type(&memory, true, MOE_VK_DEVICE, 0), UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_use_gets_its_type),
        cmocka_unit_test(allowed_types_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
