// SPDX-License-Identifier: MIT
// Three rows of images that show what a mixture of experts does.
#include "eval.h"

#include <math.h>
#include <stdio.h>

enum { BAR = 20 };

// ---- choosing --------------------------------------------------------------------------------

// How sure the model is that a class is the answer, 0 to 1.
static float score_of(const struct eval *eval, const float *scores, int32_t class)
{
    if (eval->info.n_outputs < eval->info.n_classes) // one for two
        return class == 1 ? scores[0] : 1 - scores[0];
    return scores[class];
}

static bool is_better(const struct eval *eval, enum example_kind kind, float score)
{
    const struct example *held = &eval->examples[kind];
    if (held->row == 0)
        return true;
    float other = score_of(eval, held->scores, held->answer);
    return kind == EXAMPLE_UNSURE ? score < other : score > other;
}

static void keep(struct eval *eval, enum example_kind kind, const struct eval_batch *batch,
                 size_t i, int32_t answer)
{
    struct example *held = &eval->examples[kind];
    size_t n_features = eval->info.n_features, n_outputs = eval->info.n_outputs;
    size_t top_k = eval->desc.top_k;
    held->row = batch->first + i + 1;
    held->label = batch->labels[i];
    held->answer = answer;
    memcpy(held->x, batch->x + i * n_features, n_features * sizeof *held->x);
    memcpy(held->scores, batch->scores + i * n_outputs, n_outputs * sizeof *held->scores);
    memcpy(held->ids, batch->ids + i * top_k, top_k * sizeof *held->ids);
    memcpy(held->gates, batch->gates + i * top_k, top_k * sizeof *held->gates);
}

void eval_keep_examples(struct eval *eval, const struct eval_batch *batch)
{
    size_t n_outputs = eval->info.n_outputs;
    for (size_t i = 0; i < batch->n; i++) {
        int32_t answer = vkmoe_predict_class(eval->model, batch->y + i * n_outputs);
        if (answer < 0)
            continue; // a row of NaN has no answer to show
        float score = score_of(eval, batch->scores + i * n_outputs, answer);
        bool right = answer == batch->labels[i];
        for (enum example_kind kind = 0; kind < N_EXAMPLES; kind++) {
            if (right != (kind == EXAMPLE_WRONG) && is_better(eval, kind, score))
                keep(eval, kind, batch, i, answer);
        }
    }
}

// ---- drawing ---------------------------------------------------------------------------------

// One line of the image, every pixel two characters wide, dark to bright; one that is no number, or
// infinitely far from the others, is dark.
static void print_pixels(const struct example *example, uint32_t side, uint32_t line, float low,
                         float high)
{
    static const char ramp[] = " .:-=+*#%@";
    const int last = (int) sizeof ramp - 2;
    for (uint32_t i = 0; i < side; i++) {
        float grey = high > low ? (example->x[line * side + i] - low) / (high - low) : 0;
        char c = ramp[grey >= 0 && grey <= 1 ? (int) lroundf(grey * (float) last) : 0];
        putchar(c);
        putchar(c);
    }
}

// The class after the answer.
static int32_t runner_up(const struct eval *eval, const struct example *example)
{
    int32_t best = -1;
    for (int32_t i = 0; i < (int32_t) eval->info.n_classes; i++) {
        if (i != example->answer && (best < 0 || score_of(eval, example->scores, i) >
                                                     score_of(eval, example->scores, best)))
            best = i;
    }
    return best;
}

// What stands to the right of the image, line by line.
static void print_words(const struct eval *eval, const struct example *example, uint32_t line)
{
    uint32_t top_k = eval->desc.top_k;
    int32_t second = runner_up(eval, example);
    if (line == 0)
        printf("row %llu is %s, the model says %s", (unsigned long long) example->row,
               vkmoe_model_class(eval->model, example->label),
               vkmoe_model_class(eval->model, example->answer));
    else if (line == 1)
        printf("%.1f%% sure",
               100 * (double) score_of(eval, example->scores, example->answer));
    if (line == 1 && second >= 0)
        printf("; next is %s with %.1f%%", vkmoe_model_class(eval->model, second),
               100 * (double) score_of(eval, example->scores, second));
    // The most important experts, as many as there are lines for.
    if (line >= 3 && line - 3 < top_k) {
        float gate = example->gates[line - 3], total = 0;
        for (uint32_t k = 0; k < top_k; k++)
            total += example->gates[k];
        double share = isfinite(gate / total) ? (double) (gate / total) : 0;
        printf("expert %-4d %5.1f%%  ", (int) example->ids[line - 3], 100 * share);
        for (int i = 0; i < (int) lround(share * BAR); i++)
            putchar('#');
    }
}

void eval_print_examples(const struct eval *eval)
{
    static const char *const titles[N_EXAMPLES] = {
        [EXAMPLE_SURE] = "Its surest answer",
        [EXAMPLE_UNSURE] = "The right answer it was least sure of",
        [EXAMPLE_WRONG] = "The wrong answer it was surest of",
    };
    printf("\nThe router chose %u of the %u experts for each image; their answers are mixed in "
           "these shares.\n",
           (unsigned) eval->desc.top_k, (unsigned) eval->desc.n_experts);
    for (enum example_kind kind = 0; kind < N_EXAMPLES; kind++) {
        const struct example *example = &eval->examples[kind];
        if (example->row == 0)
            continue;
        float low = INFINITY, high = -INFINITY;
        for (uint32_t i = 0; i < eval->info.n_features; i++) {
            low = fminf(low, example->x[i]);
            high = fmaxf(high, example->x[i]);
        }
        printf("\n%s:\n", titles[kind]);
        for (uint32_t line = 0; line < eval->image_side; line++) {
            printf("  |");
            print_pixels(example, eval->image_side, line, low, high);
            printf("|  ");
            print_words(eval, example, line);
            putchar('\n');
        }
    }
}
