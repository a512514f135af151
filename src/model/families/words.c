// SPDX-License-Identifier: MIT
#include "model/families/families.h"

#include <stdarg.h>
#include <stdio.h>

struct writer {
    char *text;
    size_t size, n;
};

__attribute__((format(printf, 2, 3)))
static void add(struct writer *writer, const char *format, ...)
{
    va_list args;
    if (writer->n + 1 >= writer->size)
        return;
    va_start(args, format);
    int n = vsnprintf(writer->text + writer->n, writer->size - writer->n, format, args);
    va_end(args);
    if (n > 0)
        writer->n += (size_t) n;
}

static void add_score(struct writer *w, const vkmoe_layer_desc *d)
{
    static const char *const scores[] = {"softmax", "sigmoid", "sqrt(softplus)", "relu", "logits"};
    if (d->gate_source == VKMOE_GATE_SOFTMAX_SELECTED)
        add(w, "the best %u of %u logits", d->top_k, d->n_experts + d->n_zero);
    else
        add(w, "%s over %u", scores[d->score], d->n_experts + d->n_zero);
    if (d->logit_softcap > 0)
        add(w, ", logits capped at %g", (double) d->logit_softcap);
    if (d->n_zero > 0)
        add(w, " (%u of them identities)", d->n_zero);
}

static void add_selection(struct writer *w, const vkmoe_layer_desc *d)
{
    if (d->selection_bias)
        add(w, " + bias for the choice");
    if (d->n_group > 1)
        add(w, ", %u of %u groups by their %s", d->topk_group, d->n_group,
            d->group_score == VKMOE_GROUP_MAX ? "best" : "two best");
    if (d->rank == VKMOE_RANK_SIGMOID)
        add(w, ", ranked by sigmoid");
    if (d->rank == VKMOE_RANK_LOGIT && d->gate_source == VKMOE_GATE_SCORE)
        add(w, ", ranked by logit");
    if (d->gate_source == VKMOE_GATE_SOFTMAX_SELECTED)
        add(w, ", softmax over those");
    else if (d->select == VKMOE_SELECT_TOP_P)
        add(w, ", best until they sum to %g, at most %u", (double) d->select_p, d->top_k);
    else if (d->select == VKMOE_SELECT_THRESHOLD)
        add(w, ", those from %g, at most %u", (double) d->select_p, d->top_k);
    else
        add(w, ", best %u", d->top_k);
}

void moe_router_words(const vkmoe_layer_desc *d, char *text, size_t size)
{
    struct writer w = {text, size, 0};
    *text = '\0';
    if (d->router_input)
        add(&w, "on an input of its own%s: ", d->router_prenorm ? ", normed" : "");
    if (d->select == VKMOE_SELECT_SPARSEMIXER) {
        add(&w, "sparsemixer over %u, best %u", d->n_experts, d->top_k);
    } else if (d->select == VKMOE_SELECT_TABLE) {
        add(&w, "%u of %u by token id, weights by ", d->top_k, d->n_experts);
        add_score(&w, d);
    } else {
        add_score(&w, d);
        add_selection(&w, d);
    }
    if (d->norm != VKMOE_NORM_NONE)
        add(&w, d->norm_p == 1 ? ", divided by their sum" : ", divided by their %g-norm",
            (double) d->norm_p);
    if (d->routed_scale != 1)
        add(&w, ", times %g", (double) d->routed_scale);
    if (d->expert_scale)
        add(&w, ", times a factor per expert");
    if (d->weight_on_input)
        add(&w, ", on the experts' input");
}
