#version 450
// SPDX-License-Identifier: MIT
// Nothing: what is left is what a dispatch takes.
// Dispatch: (1, 1, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"

void main()
{
}
