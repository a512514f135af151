// SPDX-License-Identifier: MIT
// First include of every kernel: extensions, parameters, workgroup size.
#ifdef MOE_BDA
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_buffer_reference_uvec2 : require
#endif
#include "params.h"
layout(local_size_x = MOE_LOCAL_SIZE) in;
