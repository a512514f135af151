// SPDX-License-Identifier: MIT
// The examples of vkmoe train; their configurations are tools/examples/NAME[.VARIANT].json.
#include "train.h"

#include <stdio.h>

struct text {
    const char *name, *text;
};

static const struct text texts[] = {
#include "train_example_texts.h"
};

enum { N_TEXTS = sizeof texts / sizeof *texts };

struct example {
    const char *name, *variants, *data, *what;
};

static const struct example examples[] = {
    {"sparse-topk", "", "digits", "noisy top-2 of 8 experts with load balancing"},
    {"soft-sigmoid", "shared", "breast_cancer",
     "sigmoid gates, normalised; shared: one gate for the sum of all experts"},
    {"query-experts", "all, share", "digits",
     "an expert a query, attention; all: every query; share: by response"},
    {"text-classify", "", "languages",
     "a table of pieces of text, experts for each of them, their mean"},
    {"score-functions", "kernel, additive, multiplicative", "digits",
     "four kinds of scores for one gate"},
    {"regress-5", "literal", "diabetes", "regression by five experts; literal: w_k sum_j x_j"},
    {"mean-fuse", "stack", "digits", "the mean of all experts, or weights learned for each"},
    {"mixture", "", "digits", "mixture likelihood of Jacobs et al. (1991)"},
};

int train_list_examples(void)
{
    printf("%-16s %-34s %-14s %s\n", "example", "variants", "data", "what");
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        printf("%-16s %-34s %-14s %s\n", examples[i].name, examples[i].variants, examples[i].data,
               examples[i].what);
    return CLI_OK;
}

int train_print_example(const char *name, const char *variant)
{
    char wanted[80];
    snprintf(wanted, sizeof wanted, "%.32s%s%.32s", name, variant ? "." : "",
             variant ? variant : "");
    for (size_t i = 0; i < N_TEXTS; i++) {
        if (strcmp(texts[i].name, wanted) == 0) {
            fputs(texts[i].text, stdout);
            return CLI_OK;
        }
    }
    cli_error("no example '%s'%s%s%s; see vkmoe train --list-examples", name,
              variant ? " with variant '" : "", variant ? variant : "", variant ? "'" : "");
    return CLI_USAGE;
}
