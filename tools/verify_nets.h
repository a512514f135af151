// SPDX-License-Identifier: MIT
// Whole networks that train on a device and on the oracle.
#ifndef VERIFY_NETS_H
#define VERIFY_NETS_H

#include "verify_run.h"

// Trains network i of verify_net_list.h for three steps, on both:
//   - y before, the loss of each step, every gradient of the first, and the loss after the last, of
//     the device against the oracle's; y and gradients are poisoned before;
//   - once more from the start, on the same network: the same bits;
//   - the controls: with rates a sixteenth higher, which is what larger gradients would be to the
//     losses, the check of losses must fail; with another x, those of y and of every gradient.
// Skipped exactly when the device refuses the network with VKMOE_E_UNSUPPORTED.
void verify_net(const struct verify_session *session, uint32_t i, struct verify_result *result);

#endif
