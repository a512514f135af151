// SPDX-License-Identifier: MIT
// Failing with a cause. A function that can fail returns a status and says why where it is known.
#ifndef MOE_BASE_STATUS_H
#define MOE_BASE_STATUS_H

#include <vkmoe/vkmoe.h>

// Jumps to the function's one `fail:` label when `expr` fails. Needs a variable `status`.
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        if ((status = (expr)) != VKMOE_OK)                                                         \
            goto fail;                                                                             \
    } while (0)

// Sets the thread's error text and returns `status`.
__attribute__((format(printf, 2, 3)))
enum vkmoe_status moe_fail(enum vkmoe_status status, const char *format, ...);

#endif
