// SPDX-License-Identifier: MIT
// Bytes: how to open it (targets: 1 byte), then a TSV file. Reading text by text and in blocks must
// agree, and what was read reads the same again after it was written. Every text is cut into
// tokens.
#include "fuzz.h"

#include "model/text.h"

#include <vkmoe/model.h>

#include <stdio.h>
#include <stdlib.h>

enum { BLOCK = 5, MAX_TEXTS = 1 << 10, MAX_TOKENS = 40, N_ROWS = 97 };

static const char *const classes[] = {"a", "b", "0"};

static void check_tokens(const char *text)
{
    static const struct moe_text rules[] = {
        {.n_grams = {1, 0, 0}, .max_tokens = MAX_TOKENS, .n_rows = N_ROWS},
        {.n_grams = {0x80, 5, 0}, .lower = true, .max_tokens = MAX_TOKENS, .n_rows = N_ROWS},
        {.n_grams = {0, 0x80, 0x83}, .max_tokens = MAX_TOKENS, .n_rows = N_ROWS},
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        uint32_t n, again;
        FUZZ_CHECK(moe_text_tokens(&rules[i], fuzz_host(), text, strlen(text), NULL, &n) ==
                   VKMOE_OK);
        FUZZ_CHECK(n >= 1 && n <= MAX_TOKENS);
        int32_t *tokens = malloc(n * sizeof *tokens);
        FUZZ_CHECK(tokens);
        FUZZ_CHECK(moe_text_tokens(&rules[i], fuzz_host(), text, strlen(text), tokens, &again) ==
                   VKMOE_OK);
        FUZZ_CHECK(again == n);
        for (uint32_t t = 0; t < n; t++)
            FUZZ_CHECK(tokens[t] >= 0 && tokens[t] < N_ROWS);
        free(tokens);
    }
}

// Reads `block` texts at a time and writes them to `out`. Returns how many there were; *good: the
// end was reached.
static size_t read_all(const char *path, const vkmoe_dataset_desc *desc, uint32_t block, FILE *out,
                       bool *good)
{
    vkmoe_dataset *d;
    const char *texts[BLOCK];
    int32_t labels[BLOCK];
    float values[BLOCK];
    size_t n_texts = 0;
    *good = false;
    if (!fuzz_accepted(vkmoe_dataset_open(path, desc, &d))) {
        FUZZ_CHECK(!d);
        return 0;
    }
    while (n_texts + block <= MAX_TEXTS) {
        uint32_t n = block;
        *good = fuzz_accepted(vkmoe_dataset_read_texts(
            d, &n, texts, desc->targets == VKMOE_TARGETS_LABELS ? labels : NULL,
            desc->targets == VKMOE_TARGETS_VALUES ? values : NULL));
        if (!*good || n == 0)
            break;
        FUZZ_CHECK(n <= block);
        for (uint32_t i = 0; i < n; i++) {
            check_tokens(texts[i]);
            if (desc->targets == VKMOE_TARGETS_LABELS)
                fprintf(out, "%s\t", classes[labels[i]]);
            if (desc->targets == VKMOE_TARGETS_VALUES)
                fprintf(out, "%.9g\t", (double) values[i]);
            fprintf(out, "%s\n", texts[i]);
        }
        n_texts += n;
    }
    vkmoe_dataset_destroy(d);
    return n_texts;
}

static void slurp(FILE *file, char **bytes, size_t *size)
{
    long end = ftell(file);
    FUZZ_CHECK(end >= 0);
    *size = (size_t) end;
    *bytes = malloc(*size + 1);
    rewind(file);
    FUZZ_CHECK(*bytes && fread(*bytes, 1, *size, file) == *size);
    fclose(file);
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    char path[512], *bytes[3];
    size_t sizes[3], n[3];
    bool good[3];
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    if (size < 1)
        return false;
    desc.host = fuzz_host();
    desc.targets = (enum vkmoe_targets) (data[0] % 4);
    desc.classes = classes;
    desc.n_classes = 3;
    desc.texts = true;
    snprintf(path, sizeof path, "%s", scratch_file("a.tsv", data + 1, size - 1));
    for (int i = 0; i < 3; i++) {
        FILE *out = tmpfile();
        FUZZ_CHECK(out);
        n[i] = read_all(path, &desc, i ? BLOCK : 1, out, &good[i]);
        slurp(out, &bytes[i], &sizes[i]);
        // The third time from what the first one wrote; a text alone must not be cut at its tab.
        if (i == 1)
            snprintf(path, sizeof path, "%s", scratch_file("b.tsv", bytes[0], sizes[0]));
        if (i == 1 && desc.targets == VKMOE_TARGETS_IGNORE)
            desc.targets = VKMOE_TARGETS_NONE;
    }
    const bool whole = n[0] <= MAX_TEXTS - BLOCK;
    FUZZ_CHECK(!whole || good[0] == good[1]);
    if (good[0] && whole) {
        FUZZ_CHECK(n[0] == n[1] && sizes[0] == sizes[1] &&
                   memcmp(bytes[0], bytes[1], sizes[0]) == 0);
        FUZZ_CHECK(good[2] && n[0] == n[2] && sizes[0] == sizes[2] &&
                   memcmp(bytes[0], bytes[2], sizes[0]) == 0);
    }
    for (int i = 0; i < 3; i++)
        free(bytes[i]);
    return good[0];
}
