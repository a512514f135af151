// SPDX-License-Identifier: MIT
// Below interpose.c: instances, devices, layouts and pipelines that outlive their destruction, and
// are what everybody gets who asks for the same. A program that makes hundreds of contexts compiles
// each kernel once; interpose.c counts and fails the calls as ever. They live until the program
// ends. One thread at a time, and no child that goes on after a fork: a driver's threads stay
// behind.
#ifndef TESTS_VULKAN_KEEP_H
#define TESTS_VULKAN_KEEP_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

// What a call by this name is to be: `real`, or what keeps its object.
PFN_vkVoidFunction keep_call(const char *name, PFN_vkVoidFunction real);

#endif
