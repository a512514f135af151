// SPDX-License-Identifier: MIT
// cmocka with the headers it wants, and the checks that it lacks.
#ifndef TESTS_UNIT_CHECK_H
#define TESTS_UNIT_CHECK_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include <vkmoe/vkmoe.h>

// |got - want| <= bound; NaN fails.
#define check_near(got, want, bound)                                                               \
    do {                                                                                           \
        double got_ = (got), want_ = (want), bound_ = (bound);                                     \
        if (!(fabs(got_ - want_) <= bound_))                                                       \
            fail_msg("%s: %.17g, not %.17g within %g", #got, got_, want_, bound_);                 \
    } while (0)

#define check_ok(call)                                                                             \
    do {                                                                                           \
        enum vkmoe_status status_ = (call);                                                        \
        if (status_ != VKMOE_OK)                                                                   \
            fail_msg("%s: %s: %s", #call, vkmoe_status_name(status_), vkmoe_error_text());         \
    } while (0)

// The call fails with `want`, and the error text contains `part`.
#define check_fails(call, want, part)                                                              \
    do {                                                                                           \
        vkmoe_error_set("");                                                                       \
        enum vkmoe_status status_ = (call);                                                        \
        if (status_ != (want))                                                                     \
            fail_msg("%s: %s, not %s: %s", #call, vkmoe_status_name(status_), #want,               \
                     vkmoe_error_text());                                                          \
        if (!strstr(vkmoe_error_text(), part))                                                     \
            fail_msg("%s: \"%s\" does not say \"%s\"", #call, vkmoe_error_text(), part);           \
    } while (0)

#endif
