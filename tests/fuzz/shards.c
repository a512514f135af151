// SPDX-License-Identifier: MIT
// Bytes: the size of an index (2 bytes), the index, then 1.safetensors; beside them there is
// 2.safetensors, which is good. Accepted is an index whose tensors are all found.
#include "fuzz.h"

#include "model/shards.h"

#include <stdlib.h>

enum { SIZE_SIZE = 2 };

static void write_second(void)
{
    static const uint8_t bytes[4] = {1, 2, 3, 4};
    const struct moe_st_source sources[] = {{"c", "U8", 1, {3}, bytes}, {"b", "I8", 0, {0}, bytes}};
    FUZZ_CHECK(moe_safetensors_write(fuzz_host(), scratch_path("2.safetensors"), sources, 2,
                                     NULL) == VKMOE_OK);
}

// What holds of every index that was opened.
static void check_tables(const struct moe_shards *shards)
{
    size_t n = 0;
    for (size_t i = 0; i < shards->n_shards; i++) {
        const struct moe_shard *shard = &shards->shards[i];
        // In the scratch folder there is nothing else, and nothing outside is reached.
        FUZZ_CHECK(strcmp(shard->name, "1.safetensors") == 0 ||
                   strcmp(shard->name, "2.safetensors") == 0 ||
                   strcmp(shard->name, MOE_SHARDS_INDEX) == 0);
        FUZZ_CHECK(i == 0 || strcmp(shard[-1].name, shard->name) < 0);
        FUZZ_CHECK(!shard->is_open && shard->first == n && shard->n_tensors > 0);
        for (size_t k = 0; k < shard->n_tensors; k++, n++)
            FUZZ_CHECK(shards->entries[n].shard == shard);
    }
    FUZZ_CHECK(n == shards->n_entries);
}

// Finds all tensors, from the last to the first; the second time nothing is opened.
static bool find_all(struct moe_shards *shards)
{
    bool good = true;
    for (size_t i = shards->n_entries; i-- > 0;) {
        const struct moe_shard_entry *entry = &shards->entries[i];
        struct moe_st_tensor *tensor, *again;
        if (!fuzz_accepted(moe_shards_find(shards, entry->tensor, &tensor))) {
            FUZZ_CHECK(!tensor && !entry->shard->is_open);
            good = false;
            continue;
        }
        FUZZ_CHECK(tensor && entry->shard->is_open && strcmp(tensor->name, entry->tensor) == 0);
        FUZZ_CHECK(moe_shards_find(shards, entry->tensor, &again) == VKMOE_OK && again == tensor);
        free(fuzz_tensor(&entry->shard->file, tensor));
    }
    return good;
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    static bool ready;
    if (size < SIZE_SIZE)
        return false;
    if (!ready)
        write_second();
    ready = true;
    size_t n_index = (size_t) data[0] | (size_t) data[1] << 8;
    data += SIZE_SIZE;
    size -= SIZE_SIZE;
    if (n_index > size)
        n_index = size;
    scratch_file(MOE_SHARDS_INDEX, data, n_index);
    scratch_file("1.safetensors", data + n_index, size - n_index);

    struct moe_shards shards;
    if (!fuzz_accepted(moe_shards_open(fuzz_host(), scratch_folder(), &shards))) {
        FUZZ_CHECK(!shards.host && !shards.index);
        return false;
    }
    check_tables(&shards);
    bool good = find_all(&shards);
    moe_shards_close(&shards);
    return good;
}
