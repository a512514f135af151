// SPDX-License-Identifier: MIT
// A libm with a fault, put before the real one by LD_PRELOAD: what vkmoe verify has to find.
#include <math.h>

float erff(float v)
{
    return (float) (1.001 * erf((double) v));
}
