// SPDX-License-Identifier: MIT
// Finds the Vulkan loader of the machine, for as long as an instance needs it: a program that
// unloads this library is rid of the loader too. The only file that includes volk, which is used
// for nothing else: its globals are hidden, and every call goes through a context's own table.
#define VK_NO_PROTOTYPES
#define VOLK_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <volk.h>
#pragma GCC diagnostic pop

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>

PFN_vkGetInstanceProcAddr moe_vk_loader(void);
void moe_vk_loader_release(void);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned n_users;

PFN_vkGetInstanceProcAddr moe_vk_loader(void)
{
    pthread_mutex_lock(&lock);
    bool found = n_users > 0 || volkInitialize() == VK_SUCCESS;
    n_users += found;
    PFN_vkGetInstanceProcAddr get_proc = found ? vkGetInstanceProcAddr : NULL;
    pthread_mutex_unlock(&lock);
    return get_proc;
}

// volk keeps no handle, so that it is asked for by the name of the file that was found: one
// reference is this call's, the other one volk's.
void moe_vk_loader_release(void)
{
    Dl_info info;
    pthread_mutex_lock(&lock);
    void *module = --n_users == 0 && dladdr((void *) vkGetInstanceProcAddr, &info)
                       ? dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD)
                       : NULL;
    for (int i = 0; module && i < 2; i++)
        dlclose(module);
    pthread_mutex_unlock(&lock);
}
