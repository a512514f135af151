// SPDX-License-Identifier: MIT
// A libm with a fault, put before the real one by LD_PRELOAD: what vkmoe verify has to find.
#include <math.h>

float expf(float v)
{
    return (float) (1.001 * exp((double) v));
}
