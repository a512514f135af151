// SPDX-License-Identifier: MIT
// What a row says in words.
#include "row.h"

#include <stdarg.h>
#include <stdio.h>

const char *bench_status_name(enum bench_status status)
{
    switch (status) {
    case BENCH_OK:
        return "ok";
    case BENCH_UNVERIFIED:
        return "unverified";
    case BENCH_UNSUPPORTED:
        return "unsupported";
    case BENCH_SKIPPED:
        return "skipped";
    case BENCH_ERROR:
        return "error";
    }
    return "unknown";
}

const char *bench_bound_name(enum bench_bound bound)
{
    switch (bound) {
    case BENCH_BOUND_NONE:
        return "none";
    case BENCH_BOUND_MEMORY:
        return "memory";
    case BENCH_BOUND_COMPUTE:
        return "compute";
    case BENCH_BOUND_LAUNCH:
        return "launch";
    }
    return "unknown";
}

// ---- keys ------------------------------------------------------------------------------------

struct text {
    char *at;
    size_t room;
};

__attribute__((format(printf, 2, 3)))
static void add(struct text *text, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text->at, text->room, format, args);
    va_end(args);
    size_t used = n < 0 ? 0 : (size_t) n < text->room ? (size_t) n : text->room - 1;
    text->at += used;
    text->room -= used;
}

static void add_unless(struct text *text, const char *value, const char *usual)
{
    if (*value && strcmp(value, usual) != 0)
        add(text, "/%s", value);
}

static void add_shape(struct text *text, const struct bench_key *key)
{
    add(text, "%u,%u,%u,%u", (unsigned) key->n_experts, (unsigned) key->top_k,
        (unsigned) key->d_model, (unsigned) key->d_ff);
    if (key->d_shared_ff)
        add(text, "+%u", (unsigned) key->d_shared_ff);
}

void bench_key_text(const struct bench_key *key, char *out, size_t size)
{
    if (size == 0)
        return;
    struct text text = {out, size};
    *out = '\0';
    if (*key->model)
        add(&text, "%s", key->model);
    else
        add_shape(&text, key);
    add(&text, "/%s/%s/t%u/%s", key->type, key->precision, (unsigned) key->n_tokens, key->routing);
    add_unless(&text, key->mode, "forward");
    add_unless(&text, key->x_type, strcmp(key->precision, "half") == 0 ? key->type : "f32");
    if (!*key->model) { // a model says these by its name
        add_unless(&text, key->rule, "softmax norm");
        add_unless(&text, key->expert, "gated silu");
    }
    if (key->seed != 1)
        add(&text, "/seed:%llu", (unsigned long long) key->seed);
}

// ---- times -----------------------------------------------------------------------------------

bool bench_row_is_timed(const struct bench_row *row)
{
    return row->status == BENCH_OK || row->status == BENCH_UNVERIFIED;
}

const struct bench_times *bench_row_times(const struct bench_row *row)
{
    return row->device_times.n > 0 ? &row->device_times : &row->wall_times;
}
