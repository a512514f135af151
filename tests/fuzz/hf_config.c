// SPDX-License-Identifier: MIT
// Bytes: config.json, beside a model.safetensors that is good. Accepted is one with a layer whose
// experts are all there and can be computed.
#include "fuzz_folder.h"

bool fuzz_target(const uint8_t *data, size_t size)
{
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_desc desc = vkmoe_checkpoint_desc_init();
    desc.host = fuzz_host();
    fuzz_folder_write();
    scratch_file("config.json", data, size);
    if (!fuzz_accepted(vkmoe_checkpoint_open(scratch_folder(), &desc, &checkpoint))) {
        FUZZ_CHECK(!checkpoint);
        return false;
    }
    bool good = fuzz_folder_walk(checkpoint);
    vkmoe_checkpoint_destroy(checkpoint);
    return good;
}
