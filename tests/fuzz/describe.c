// SPDX-License-Identifier: MIT
// Bytes: the text of an explicit description, for a model of no known family. Accepted is one by
// which a layer has all its experts and can be computed.
#include "fuzz_folder.h"

#include <stdlib.h>

static const char config[] =
    "{\"model_type\": \"unheard_of\", \"hidden_size\": 8, \"moe_intermediate_size\": 6, "
    "\"num_hidden_layers\": 2, \"num_local_experts\": 4, \"num_experts_per_tok\": 2}";

bool fuzz_target(const uint8_t *data, size_t size)
{
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_desc desc = vkmoe_checkpoint_desc_init();
    vkmoe_layer_desc layer;
    char *text = calloc(1, size + 1);
    FUZZ_CHECK(text);
    memcpy(text, data, size);
    desc.host = fuzz_host();
    desc.description = text;
    fuzz_folder_write();
    scratch_text("config.json", config);
    bool good = fuzz_accepted(vkmoe_checkpoint_open(scratch_folder(), &desc, &checkpoint));
    FUZZ_CHECK(good == (checkpoint != NULL));
    if (good)
        good = fuzz_folder_walk(checkpoint);
    vkmoe_checkpoint_destroy(checkpoint);
    // The same bytes as a layer alone.
    if (fuzz_accepted(vkmoe_layer_parse(text, &layer)))
        FUZZ_CHECK(layer.struct_size == sizeof layer);
    free(text);
    return good;
}
