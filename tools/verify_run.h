// SPDX-License-Identifier: MIT
// One layer on a device and on the oracle, and its cases run and compared.
#ifndef VERIFY_RUN_H
#define VERIFY_RUN_H

#include "verify_check.h"

// Where cases run. Borrowed contexts.
struct verify_session {
    vkmoe_context *device;
    vkmoe_context *oracle;
    uint64_t seed;
    const char *variant; // of the device's kernels, or NULL
};

enum verify_outcome { VERIFY_PASSED, VERIFY_FAILED, VERIFY_SKIPPED };

struct verify_result {
    enum verify_outcome outcome;
    char reason[VERIFY_TEXT_SIZE + 64]; // empty when passed
    uint32_t n_exempt;     // rows left out of gates and y, see verify_compare
    uint32_t uncontrolled; // bit i: no changed weight row moves what check i looks at
};

// A layer made ready on one context.
struct verify_side {
    vkmoe_context *context;
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
};

struct verify_subject {
    const struct verify_session *session;
    struct verify_weights data;
    struct verify_side device, oracle;
};

// Makes the layer of `c` ready on both sides, for runs of up to max_tokens rows. false: `result`
// says why; skipped exactly when the device refuses the layer with VKMOE_E_UNSUPPORTED.
bool verify_open(const struct verify_session *session, const struct verify_case *c,
                 uint32_t max_tokens, struct verify_subject *out, struct verify_result *result);
void verify_close(struct verify_subject *subject); // zeroed is fine

// Turns the result into a failure for a reason. Always false.
__attribute__((format(printf, 2, 3)))
bool verify_fail(struct verify_result *result, const char *format, ...);

enum vkmoe_status verify_upload(vkmoe_context *context, const struct verify_weights *data,
                                vkmoe_weights **out);

// For the controls. A choice of a row whose y is a number: the first of the first row, then the
// others in order, then the experts after the last.
//   exempt  (n_tokens) rows left out
uint32_t verify_choose_expert(const struct verify_outputs *want, const bool *exempt,
                              uint32_t attempt);

// Runs one case of the subject's layer:
//   - the device against the oracle, every output poisoned before; the oracle gets the same x as
//     f32 and gives y as f32, so that the rounding of y counts once;
//   - a second run, without ids and gates, gives the same bits;
//   - of up to 64 rows, the first half alone still agrees with the oracle, but with a capacity;
//   - the controls: with a weight row of the oracle changed, each check must fail.
void verify_run(struct verify_subject *subject, const struct verify_case *c,
                struct verify_result *result);

#endif
