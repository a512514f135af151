// SPDX-License-Identifier: MIT
// A pairwise covering set, greedily and without chance.
//
// First the layers: as long as two levels of two layer factors have not met, a layer begins with
// them and takes, factor by factor, the level that meets most of the others for the first time.
// Then the runs: every layer gets the token count and stride that are newest to its levels (not 0
// tokens, which would show nothing of the layer), and more runs follow until those have met every
// level too. Compiling a layer is the dear part, so runs share layers.
//
// All this is done with x in f32 and exact, which every device computes, so that those cases cover
// everything else by themselves. Then it is done once more for what has not met the other types of
// x and the other precisions; "layer" below then means a plan.
#include "verify_cases.h"

#include <stdlib.h>

enum { MAX_LEVELS = 16, UNSET = 255 };

struct cover {
    bool met[VERIFY_N_FACTORS][MAX_LEVELS][VERIFY_N_FACTORS][MAX_LEVELS];
    struct verify_case *layers, *runs; // runs[i] belongs to layer owner[i]
    uint32_t *owner;
    uint32_t n_layers, n_runs, room;
};

static struct verify_case unset_case(void)
{
    struct verify_case c = {.twist = VERIFY_PLAIN};
    memset(c.level, UNSET, sizeof c.level);
    return c;
}

// How many pairs with factor f of c have not met; only factors below `end` count.
static uint32_t count_new(const struct cover *cover, const struct verify_case *c, uint32_t f,
                          uint32_t end)
{
    uint32_t n = 0;
    for (uint32_t g = 0; g < end; g++) {
        if (g != f && c->level[g] != UNSET)
            n += !cover->met[f][c->level[f]][g][c->level[g]];
    }
    return n;
}

static void mark(struct cover *cover, const struct verify_case *c, uint32_t end)
{
    for (uint32_t f = 0; f < end; f++) {
        for (uint32_t g = 0; g < end; g++)
            cover->met[f][c->level[f]][g][c->level[g]] = true;
    }
}

static bool push(struct cover *cover, struct verify_case **list, uint32_t *n,
                 const struct verify_case *c)
{
    if (*n == cover->room)
        return false;
    (*list)[(*n)++] = *c;
    return true;
}

// Gives factor f of c the level that meets most; ties take turns, counted by `turn`.
static void choose_level(const struct cover *cover, struct verify_case *c, uint32_t f,
                         uint32_t turn)
{
    uint32_t n_levels = verify_n_levels(f), best = 0, best_new = 0;
    for (uint32_t i = 0; i < n_levels; i++) {
        c->level[f] = (uint8_t) ((turn + i) % n_levels);
        uint32_t n_new = count_new(cover, c, f, VERIFY_N_PLAN_FACTORS);
        if (i == 0 || n_new > best_new) {
            best = c->level[f];
            best_new = n_new;
        }
    }
    c->level[f] = (uint8_t) best;
}

// Factors from `end` on keep level 0.
static bool add_layer(struct cover *cover, uint32_t f, uint32_t a, uint32_t g, uint32_t b,
                      uint32_t end)
{
    struct verify_case c = unset_case();
    c.level[f] = (uint8_t) a;
    c.level[g] = (uint8_t) b;
    for (uint32_t h = 0; h < end; h++) {
        if (c.level[h] == UNSET)
            choose_level(cover, &c, h, cover->n_layers);
    }
    for (uint32_t h = end; h < VERIFY_N_PLAN_FACTORS; h++)
        c.level[h] = 0;
    mark(cover, &c, VERIFY_N_PLAN_FACTORS);
    return push(cover, &cover->layers, &cover->n_layers, &c);
}

static bool cover_layers(struct cover *cover, uint32_t end)
{
    for (uint32_t f = 0; f < end; f++) {
        for (uint32_t g = f + 1; g < end; g++) {
            for (uint32_t a = 0; a < verify_n_levels(f); a++) {
                for (uint32_t b = 0; b < verify_n_levels(g); b++) {
                    if (!cover->met[f][a][g][b] && !add_layer(cover, f, a, g, b, end))
                        return false;
                }
            }
        }
    }
    return true;
}

// The best run of a layer. Returns how many pairs would meet for the first time.
static uint32_t best_run(const struct cover *cover, uint32_t layer, bool may_be_empty,
                         struct verify_case *out)
{
    uint32_t best = 0;
    bool found = false;
    struct verify_case c = cover->layers[layer];
    for (uint32_t t = 0; t < verify_n_levels(VERIFY_TOKENS); t++) {
        for (uint32_t s = 0; s < verify_n_levels(VERIFY_STRIDE); s++) {
            c.level[VERIFY_TOKENS] = (uint8_t) t;
            c.level[VERIFY_STRIDE] = (uint8_t) s;
            if (!verify_quick(&c) || (!may_be_empty && verify_tokens(&c) == 0))
                continue;
            uint32_t n_new = count_new(cover, &c, VERIFY_TOKENS, VERIFY_N_FACTORS) +
                             count_new(cover, &c, VERIFY_STRIDE, VERIFY_TOKENS);
            if (!found || n_new > best) {
                found = true;
                best = n_new;
                *out = c;
            }
        }
    }
    return best;
}

static bool add_run(struct cover *cover, uint32_t layer, const struct verify_case *c)
{
    if (!push(cover, &cover->runs, &cover->n_runs, c))
        return false;
    cover->owner[cover->n_runs - 1] = layer;
    mark(cover, c, VERIFY_N_FACTORS);
    return true;
}

// Runs for the layers from `first` on.
static bool cover_runs(struct cover *cover, uint32_t first)
{
    struct verify_case run;
    for (uint32_t i = first; i < cover->n_layers; i++) {
        best_run(cover, i, false, &run);
        if (!add_run(cover, i, &run))
            return false;
    }
    for (;;) {
        uint32_t best = 0, layer = 0;
        struct verify_case best_case = {.twist = VERIFY_PLAIN};
        for (uint32_t i = first; i < cover->n_layers; i++) {
            uint32_t n_new = best_run(cover, i, true, &run);
            if (n_new > best) {
                best = n_new;
                layer = i;
                best_case = run;
            }
        }
        if (best == 0)
            return true;
        if (!add_run(cover, layer, &best_case))
            return false;
    }
}

// Level 0 of a plan's own factors meets every level of the others in the first half, which need not
// count that; but the two of them may not have met.
static void expect_first_half(struct cover *cover)
{
    for (uint32_t p = VERIFY_N_LAYER_FACTORS; p < VERIFY_N_PLAN_FACTORS; p++) {
        for (uint32_t f = 0; f < VERIFY_N_FACTORS; f++) {
            bool other = f < VERIFY_N_LAYER_FACTORS || f >= VERIFY_N_PLAN_FACTORS;
            for (uint32_t i = 0; other && i < verify_n_levels(f); i++)
                cover->met[p][0][f][i] = cover->met[f][i][p][0] = true;
        }
    }
}

static bool cover_all(struct cover *cover)
{
    expect_first_half(cover);
    if (!cover_layers(cover, VERIFY_N_LAYER_FACTORS) || !cover_runs(cover, 0))
        return false;
    uint32_t first = cover->n_layers;
    return cover_layers(cover, VERIFY_N_PLAN_FACTORS) && cover_runs(cover, first);
}

// Room for one case a pair is always enough.
static uint32_t count_pairs(void)
{
    uint32_t n = 0;
    for (uint32_t f = 0; f < VERIFY_N_FACTORS; f++) {
        for (uint32_t g = f + 1; g < VERIFY_N_FACTORS; g++)
            n += verify_n_levels(f) * verify_n_levels(g);
    }
    return n;
}

uint32_t verify_cover(struct verify_case **out)
{
    uint32_t n = 0;
    *out = NULL;
    struct cover *cover = calloc(1, sizeof *cover);
    if (!cover)
        return 0;
    cover->room = count_pairs();
    cover->layers = calloc(cover->room, sizeof *cover->layers);
    cover->runs = calloc(cover->room, sizeof *cover->runs);
    cover->owner = calloc(cover->room, sizeof *cover->owner);
    struct verify_case *sorted = calloc(cover->room, sizeof *sorted);
    if (cover->layers && cover->runs && cover->owner && sorted && cover_all(cover)) {
        for (uint32_t layer = 0; layer < cover->n_layers; layer++) {
            for (uint32_t i = 0; i < cover->n_runs; i++) {
                if (cover->owner[i] == layer)
                    sorted[n++] = cover->runs[i];
            }
        }
        *out = sorted;
        sorted = NULL;
    }
    free(sorted);
    free(cover->owner);
    free(cover->runs);
    free(cover->layers);
    free(cover);
    return n;
}
