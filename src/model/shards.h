// SPDX-License-Identifier: MIT
// A model in several safetensors files: a folder whose index says which of them, the shards, holds
// which tensor. Reading is as strict as that of one file. The index comes from strangers, so that
// it names files of its own folder and nothing else. For the reader of published model families,
// whose large models come so; the own format is one file.
#ifndef MOE_MODEL_SHARDS_H
#define MOE_MODEL_SHARDS_H

#include "model/safetensors.h"

#define MOE_SHARDS_INDEX "model.safetensors.index.json"

struct moe_shard {
    const char *name; // of its file
    size_t first, n_tensors; // its range of moe_shards.entries
    bool is_open;
    struct moe_safetensors file; // once it is open
};

struct moe_shard_entry {
    const char *tensor;
    struct moe_shard *shard;
};

// Everything points into it until close.
struct moe_shards {
    const vkmoe_host *host;
    char *folder; // with a slash at its end
    json_t *index;
    struct moe_shard *shards; // sorted by name
    size_t n_shards;
    struct moe_shard_entry *entries; // by shard, then by tensor
    size_t n_entries;
};

// Reads the index of a folder and sees that its shards are there; opens none of them. What the
// index says of sizes is not used.
// VKMOE_E_IO: cannot be read.  VKMOE_E_DATA: not a strictly valid index.
enum vkmoe_status moe_shards_open(const vkmoe_host *host, const char *folder,
                                  struct moe_shards *out);
void moe_shards_close(struct moe_shards *shards); // a zeroed one is fine

// Finds a tensor that the index lists: *out is NULL where it does not. Opens the tensor's shard,
// once, and sees that it holds all that the index says; what it holds besides is not there. After a
// failure other tensors can still be asked for.
// Threads: one call at a time.
enum vkmoe_status moe_shards_find(struct moe_shards *shards, const char *name,
                                  struct moe_st_tensor **out);

#endif
