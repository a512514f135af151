// SPDX-License-Identifier: MIT
// Models of any kind, as `run`, `inspect` and `quantize` open them.
#ifndef SOURCE_H
#define SOURCE_H

#include "cli.h"

#include <vkmoe/checkpoint.h>

// The two options of every command that opens published files.
#define SOURCE_OPTIONS(assume, desc)                                                               \
    {"assume", 0, CLI_TEXT, assume, "FAMILY",                                                      \
     "go by this family's rules, whatever the file says"},                                         \
    {"desc", 0, CLI_TEXT, desc, "FILE",                                                            \
     "a JSON description of the layer and of the names\nof its tensors, for models of no known\n"  \
     "family; vkmoe/checkpoint.h has its keys"}

// Is it a folder or a GGUF file?
bool source_is_published(const char *path);

// Opens it. assume and desc_path, a file with a description, may be NULL.
enum vkmoe_status source_open(const vkmoe_host *host, const char *path, const char *assume,
                              const char *desc_path, vkmoe_checkpoint **out);

#endif
