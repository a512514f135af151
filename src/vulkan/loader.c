// SPDX-License-Identifier: MIT
// Finds the Vulkan loader of the machine. The only file that includes volk, which is used for
// nothing else: its globals are hidden, and every call goes through a context's own table.
#define VK_NO_PROTOTYPES
#define VOLK_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <volk.h>
#pragma GCC diagnostic pop

#include <pthread.h>

PFN_vkGetInstanceProcAddr moe_vk_loader(void);

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find(void)
{
    (void) volkInitialize();
}

PFN_vkGetInstanceProcAddr moe_vk_loader(void)
{
    pthread_once(&once, find);
    return vkGetInstanceProcAddr;
}
