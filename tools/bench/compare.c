// SPDX-License-Identifier: MIT
// Which rows of two files belong together, and what can be said of each pair.
#include "compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MIN_SAMPLES = 2 }; // one has no interval

#define LEAST_NOISE 0.05     // two measurements of a row that settled may differ by so much
#define UNSETTLED_NOISE 0.1  // without a plateau they differ by more than that

const char *compare_verdict_name(enum compare_verdict verdict)
{
    switch (verdict) {
    case COMPARE_SAME:
        return "same";
    case COMPARE_FASTER:
        return "faster";
    case COMPARE_SLOWER:
        return "slower";
    }
    return "unknown";
}

// ---- devices ---------------------------------------------------------------------------------

// Devices of one name are told apart by their order.
static uint32_t place_of(const struct bench_file *file, uint32_t device)
{
    uint32_t place = 0;
    for (uint32_t i = 0; i < device; i++)
        place += strcmp(file->devices[i].info.name, file->devices[device].info.name) == 0;
    return place;
}

static bool find_device(const struct bench_file *a, uint32_t device, const struct bench_file *b,
                        uint32_t *out)
{
    for (uint32_t i = 0; i < b->n_devices; i++) {
        if (strcmp(a->devices[device].info.name, b->devices[i].info.name) == 0 &&
            place_of(a, device) == place_of(b, i)) {
            *out = i;
            return true;
        }
    }
    return false;
}

static enum vkmoe_status refuse_devices(const struct bench_file *a, const struct bench_file *b)
{
    if (a->n_devices == 0 || b->n_devices == 0)
        return bench_refuse(VKMOE_E_DATA, "%s has no devices", a->n_devices ? "B" : "A");
    return bench_refuse(VKMOE_E_DATA,
                        "no device is in both files: A has %u, '%s' first; B has %u, '%s' first",
                        (unsigned) a->n_devices, a->devices[0].info.name, (unsigned) b->n_devices,
                        b->devices[0].info.name);
}

static enum vkmoe_status match_devices(struct compare *c)
{
    enum vkmoe_status status;
    const struct bench_file *a = c->a, *b = c->b;
    CLI_TRY(cli_alloc((size_t) a->n_devices + 1, 1, sizeof *c->devices, &c->devices));
    if (a->n_devices == 1 && b->n_devices == 1) {
        c->across = strcmp(a->devices[0].info.name, b->devices[0].info.name) != 0;
        c->n_devices = 1;
        return VKMOE_OK;
    }
    for (uint32_t i = 0; i < a->n_devices; i++) {
        struct compare_devices pair = {i, 0};
        if (find_device(a, i, b, &pair.b))
            c->devices[c->n_devices++] = pair;
    }
    if (c->n_devices == 0)
        return refuse_devices(a, b);

fail:
    return status;
}

// The device of the other file; false: not in it.
static bool other_device(const struct compare *c, bool of_a, uint32_t device, uint32_t *out)
{
    for (uint32_t i = 0; i < c->n_devices; i++) {
        const struct compare_devices *pair = &c->devices[i];
        if ((of_a ? pair->a : pair->b) == device) {
            *out = of_a ? pair->b : pair->a;
            return true;
        }
    }
    return false;
}

// ---- keys ------------------------------------------------------------------------------------

bool compare_same_case(const struct bench_key *a, const struct bench_key *b)
{
    const char *member = bench_key_difference(a, b);
    return !member ||
           (strcmp(member, "n_threads") == 0 && (a->n_threads == 0 || b->n_threads == 0));
}

// A row of that device with that key that has no partner yet: cases may be there several times.
static struct compare_row *find_row(struct compare *c, uint32_t device, const struct bench_key *key)
{
    for (uint32_t i = 0; i < c->n_rows; i++) {
        struct compare_row *row = &c->rows[i];
        if (row->a && !row->b && row->a->device == device && compare_same_case(&row->a->key, key))
            return row;
    }
    return NULL;
}

static const struct bench_row *find_nearest(const struct compare *c, bool of_a,
                                            const struct bench_row *row)
{
    const struct bench_file *file = of_a ? c->b : c->a;
    const struct bench_row *nearest = NULL;
    uint32_t device, least = UINT32_MAX;
    if (!other_device(c, of_a, row->device, &device))
        return NULL;
    for (uint32_t i = 0; i < file->n_rows; i++) {
        uint32_t distance = bench_key_distance(&file->rows[i].key, &row->key);
        if (file->rows[i].device == device && distance < least) {
            least = distance;
            nearest = &file->rows[i];
        }
    }
    return nearest;
}

static enum vkmoe_status match_rows(struct compare *c)
{
    enum vkmoe_status status;
    CLI_TRY(cli_alloc((size_t) c->a->n_rows + c->b->n_rows + 1, 1, sizeof *c->rows, &c->rows));
    for (uint32_t i = 0; i < c->a->n_rows; i++) {
        const struct bench_row *row = &c->a->rows[i];
        c->rows[c->n_rows++] = (struct compare_row){
            .a = row, .device = &c->a->devices[row->device], .nearest = find_nearest(c, true, row)};
    }
    for (uint32_t i = 0; i < c->b->n_rows; i++) {
        const struct bench_row *row = &c->b->rows[i];
        uint32_t device;
        struct compare_row *partner = other_device(c, false, row->device, &device)
                                          ? find_row(c, device, &row->key)
                                          : NULL;
        if (partner)
            partner->b = row;
        else
            c->rows[c->n_rows++] = (struct compare_row){.b = row,
                                                        .device = &c->b->devices[row->device],
                                                        .nearest = find_nearest(c, false, row)};
    }

fail:
    return status;
}

// ---- pairs -----------------------------------------------------------------------------------

static bool has_interval(const struct bench_times *times)
{
    uint32_t n_known = 0;
    for (uint32_t i = 0; i < times->n; i++)
        n_known += !isnan(times->samples_us[i]);
    return n_known >= MIN_SAMPLES;
}

// Why a row has no number to compare; NULL: it has.
static const char *lacks(const struct compare *c, const struct bench_row *row)
{
    if (row->status != BENCH_OK)
        return bench_status_name(row->status);
    if (!has_interval(bench_row_times(row)))
        return "one sample only";
    if (row->n_blocks > 0 && row->n_dropped_blocks == row->n_blocks)
        return "is not to be trusted";
    if (c->by_floor && !(row->floor_us > 0))
        return "no floor";
    return NULL;
}

static void tell_why(struct compare_row *row, const char *name, const struct bench_row *of,
                     const char *why)
{
    size_t used = strlen(row->why);
    if (why)
        snprintf(row->why + used, sizeof row->why - used, "%s%s %s%s%s", used ? "; " : "", name,
                 why, *of->reason ? ": " : "", of->reason);
}

static enum vkmoe_status compare_pair(struct compare *c, struct compare_row *row)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct bench_times *x = bench_row_times(row->a), *y = bench_row_times(row->b);
    const char *a = lacks(c, row->a), *b = lacks(c, row->b);
    if ((x == &row->a->device_times) != (y == &row->b->device_times)) {
        x = &row->a->wall_times; // one clock for both
        y = &row->b->wall_times;
    }
    if (!a && !b && (!has_interval(x) || !has_interval(y)))
        a = "and B have no clock in common";
    if (a || b) {
        row->fate = COMPARE_NOT_OK;
        tell_why(row, "A", row->a, a);
        tell_why(row, "B", row->b, b);
        row->failed = isfinite(c->limit) && !a && row->b->status == BENCH_ERROR;
        return VKMOE_OK;
    }
    row->fate = COMPARE_DONE;
    row->a_us = x->median_us;
    row->b_us = y->median_us;
    const double scale = c->by_floor ? row->a->floor_us / row->b->floor_us : 1;
    const bool settled = row->a->plateau && row->b->plateau;
    CLI_TRY(compare_times(x, y, scale, settled ? LEAST_NOISE : UNSETTLED_NOISE, row));
    row->failed = row->ratio > 1 + c->limit && row->low > 1;

fail:
    return status;
}

static void count(struct compare *c)
{
    double logs = 0;
    for (uint32_t i = 0; i < c->n_rows; i++) {
        const struct compare_row *row = &c->rows[i];
        c->n_failed += row->failed;
        if (row->fate != COMPARE_DONE)
            continue;
        c->n_done++;
        c->n_faster += row->verdict == COMPARE_FASTER;
        c->n_slower += row->verdict == COMPARE_SLOWER;
        logs += log(row->ratio);
    }
    c->mean = c->n_done ? exp(logs / c->n_done) : (double) NAN;
}

// ---- nothing in common -----------------------------------------------------------------------

void compare_member_text(const struct bench_field *field, const void *object, char *out,
                         size_t size)
{
    json_t *value = bench_field_json(field, object);
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    snprintf(out, size, "%s", text ? text : "?");
    free(text);
    json_decref(value);
}

// The two rows that are nearest to each other stand for all of them.
static enum vkmoe_status refuse_keys(const struct compare *c)
{
    const struct compare_row *best = NULL;
    uint32_t least = UINT32_MAX;
    for (uint32_t i = 0; i < c->n_rows && c->rows[i].a; i++) {
        const struct compare_row *row = &c->rows[i];
        if (row->nearest && bench_key_distance(&row->a->key, &row->nearest->key) < least) {
            least = bench_key_distance(&row->a->key, &row->nearest->key);
            best = row;
        }
    }
    if (!best)
        return bench_refuse(VKMOE_E_DATA, "%s has no rows of a device that is in both files",
                            c->a->n_rows ? "B" : "A");
    char a[96], b[96], name[192];
    const struct bench_field *field =
        bench_key_first_difference(&best->a->key, &best->nearest->key);
    compare_member_text(field, &best->a->key, a, sizeof a);
    compare_member_text(field, &best->nearest->key, b, sizeof b);
    bench_key_text(&best->a->key, name, sizeof name);
    return bench_refuse(VKMOE_E_DATA,
                        "no case is in both files: %s is %s in A, %s in B (nearest in A: %s)",
                        field->name, a, b, name);
}

static enum vkmoe_status compare_all(struct compare *c)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t n_pairs = 0;
    const struct compare_row *bad = NULL;
    for (uint32_t i = 0; i < c->n_rows; i++) {
        struct compare_row *row = &c->rows[i];
        if (!row->a || !row->b)
            continue;
        n_pairs++;
        CLI_TRY(compare_pair(c, row));
        if (row->fate == COMPARE_NOT_OK)
            bad = row;
    }
    if (n_pairs == 0)
        return refuse_keys(c);
    count(c);
    if (c->n_done == 0 && c->n_failed == 0)
        return bench_refuse(VKMOE_E_DATA, "none of %u cases can be compared: %s",
                            (unsigned) n_pairs, bad->why);

fail:
    return status;
}

enum vkmoe_status compare_make(const struct bench_file *a, const struct bench_file *b,
                               bool by_floor, double limit, struct compare *out)
{
    enum vkmoe_status status;
    *out = (struct compare){.a = a, .b = b, .by_floor = by_floor, .limit = limit};
    CLI_TRY(match_devices(out));
    CLI_TRY(match_rows(out));
    CLI_TRY(compare_all(out));

fail:
    return status;
}

void compare_finish(struct compare *compare)
{
    free(compare->devices);
    free(compare->rows);
}

// ---- what was measured with ------------------------------------------------------------------

// What is of its own in every run, and what the rows say better.
static bool is_incidental(const struct bench_field *field)
{
    static const char *const names[] = {"time_utc", "index", "uuid", "pci", "memory_bytes"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(field->name, names[i]) == 0)
            return true;
    }
    return field->kind != BENCH_FIELD_TEXT && field->kind != BENCH_FIELD_U32 &&
           field->kind != BENCH_FIELD_BOOL;
}

const struct bench_field *compare_next_difference(const struct bench_field **field, const void *a,
                                                  const void *b)
{
    while ((*field)->name) {
        const struct bench_field *at = (*field)++;
        if (!is_incidental(at) && bench_field_differs(at, a, b))
            return at;
    }
    return NULL;
}
