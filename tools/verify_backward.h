// SPDX-License-Identifier: MIT
// The gradients of a layer on a device and on the oracle.
#ifndef VERIFY_BACKWARD_H
#define VERIFY_BACKWARD_H

#include "verify_run.h"

// Runs one case of VERIFY_GRADIENTS of the subject's layer forward and backward:
//   - outputs and gradients of the device against the oracle, all poisoned before. dy is 0 in rows
//     where two experts are too close to tell: no gradient says then which one was taken;
//   - an expert without a token has gradients of exactly 0;
//   - a second run, that adds to what is there, gives exactly twice the gradients;
//   - the controls: with a weight row of the oracle changed, or one row of dy negated, the check of
//     each tensor must fail.
// A relu's input that is no further from 0 than its rounding, some 1e-7, would make gradients jump;
// of the 1e4 inputs in all cases, which are of order 1, one is with a probability of 1e-3.
void verify_backward(struct verify_subject *subject, const struct verify_case *c,
                     struct verify_result *result);

#endif
