// SPDX-License-Identifier: MIT
// vkmoe compare, for people and as JSON.
#include "compare.h"

#include <math.h>
#include <stdio.h>

enum { VALUE = 160, NAME = 512 };

static const struct bench_key *key_of(const struct compare_row *row)
{
    return &(row->a ? row->a : row->b)->key;
}

static void case_text(const struct compare_row *row, char *out)
{
    bench_key_text(key_of(row), out, NAME);
}

static const struct bench_device *partner(const struct compare *c, uint32_t pair)
{
    return &c->b->devices[c->devices[pair].b];
}

// ---- text ------------------------------------------------------------------------------------

static void print_time(double us)
{
    const double unit = us >= 1e6 ? 1e6 : us >= 1e3 ? 1e3 : 1;
    printf(us / unit >= 1000 ? " %7.0f %s" : " %#7.4g %s", us / unit,
           unit >= 1e6 ? "s " : unit >= 1e3 ? "ms" : "us");
}

static void print_differences(const struct bench_field *fields, const char *what, const void *a,
                              const void *b)
{
    char x[VALUE], y[VALUE];
    for (const struct bench_field *field; (field = compare_next_difference(&fields, a, b));) {
        compare_member_text(field, a, x, sizeof x);
        compare_member_text(field, b, y, sizeof y);
        printf("  differs: %s%s: %s, now %s\n", what, field->name, x, y);
    }
}

static void print_head(const struct compare *c)
{
    printf("A: %s, %s\nB: %s, %s\n", c->a->name, c->a->time_utc, c->b->name, c->b->time_utc);
    print_differences(bench_file_fields, "", c->a, c->b);
    if (c->by_floor)
        printf("Compared: time over the floor of the same run, which leaves out what the device's "
               "speed did.\n");
}

static void print_notes(const struct compare_row *row)
{
    if (strcmp(row->a->kernel, row->b->kernel) != 0)
        printf(", kernel %s, now %s", row->a->kernel, row->b->kernel);
    if (!row->a->plateau || !row->b->plateau)
        printf(", %s not settle", row->a->plateau   ? "B did"
                               : row->b->plateau ? "A did"
                                                 : "both did");
}

static int width_of(const struct compare *c)
{
    char name[NAME];
    int width = 4;
    for (uint32_t i = 0; i < c->n_rows; i++) {
        case_text(&c->rows[i], name);
        if (c->rows[i].fate == COMPARE_DONE && (int) strlen(name) > width)
            width = (int) strlen(name);
    }
    return width;
}

static void print_done(const struct compare_row *row, int width)
{
    char name[NAME];
    case_text(row, name);
    printf("  %-*s", width, name);
    print_time(row->a_us);
    print_time(row->b_us);
    printf("  %6.3f  %6.3f..%-6.3f  %s", row->ratio, row->low, row->high,
           compare_verdict_name(row->verdict));
    print_notes(row);
    printf("%s\n", row->failed ? "  <== over the limit" : "");
}

static void print_device(const struct compare *c, uint32_t pair, int width)
{
    const struct bench_device *a = &c->a->devices[c->devices[pair].a], *b = partner(c, pair);
    if (c->across)
        printf("\nA: %s\nB: %s\nOne device in each file, so these two are compared.\n",
               a->info.name, b->info.name);
    else
        printf("\n%s\n", a->info.name);
    if (!c->across)
        print_differences(bench_device_fields, "", a, b);
    printf("  %-*s %10s %10s  %6s  %-16s\n", width, "case", "A", "B", "B/A", "95 % interval");
    for (uint32_t i = 0; i < c->n_rows; i++) {
        if (c->rows[i].fate == COMPARE_DONE && c->rows[i].device == a)
            print_done(&c->rows[i], width);
    }
}

static void print_lonely(const struct compare_row *row, const char *other)
{
    char name[NAME], x[VALUE], y[VALUE];
    case_text(row, name);
    printf("  only in %s, %s: %s", row->a ? "A" : "B", row->device->info.name, name);
    const struct bench_field *field =
        row->nearest ? bench_key_first_difference(key_of(row), &row->nearest->key) : NULL;
    if (field) {
        compare_member_text(field, key_of(row), x, sizeof x);
        compare_member_text(field, &row->nearest->key, y, sizeof y);
        printf("; nearest in %s: %s %s, not %s", other, field->name, y, x);
    }
    putchar('\n');
}

static void print_rest(const struct compare *c)
{
    char name[NAME];
    const char *head = "\nNot compared\n";
    for (uint32_t i = 0; i < c->n_rows; i++) {
        const struct compare_row *row = &c->rows[i];
        if (row->fate == COMPARE_DONE)
            continue;
        fputs(head, stdout);
        head = "";
        if (row->fate == COMPARE_NO_PARTNER) {
            print_lonely(row, row->a ? "B" : "A");
            continue;
        }
        case_text(row, name);
        printf("  %s, %s: %s%s\n", name, row->device->info.name, row->why,
               row->failed ? "  <== no longer right" : "");
    }
}

void compare_print(const struct compare *c)
{
    const int width = width_of(c);
    print_head(c);
    for (uint32_t i = 0; i < c->n_devices; i++)
        print_device(c, i, width);
    print_rest(c);
    printf("\n%u compared: %u slower, %u faster, %u the same", (unsigned) c->n_done,
           (unsigned) c->n_slower, (unsigned) c->n_faster,
           (unsigned) (c->n_done - c->n_slower - c->n_faster));
    if (c->n_done > 0)
        printf("; geometric mean of B/A %.3f", c->mean);
    putchar('\n');
    if (isfinite(c->limit))
        printf("%u over the limit of %g %%\n", (unsigned) c->n_failed, 100 * c->limit);
}

// ---- JSON ------------------------------------------------------------------------------------

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *differences_json(const struct bench_field *fields, const void *a, const void *b)
{
    json_t *array = json_array();
    for (const struct bench_field *field; (field = compare_next_difference(&fields, a, b));)
        json_array_append_new(array, json_pack("{s:s, s:o, s:o}", "member", field->name, "a",
                                               bench_field_json(field, a), "b",
                                               bench_field_json(field, b)));
    return array;
}

static json_t *devices_json(const struct compare *c)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < c->n_devices; i++) {
        const struct bench_device *a = &c->a->devices[c->devices[i].a], *b = partner(c, i);
        json_array_append_new(array, json_pack("{s:s, s:s, s:o}", "a", a->info.name, "b",
                                               b->info.name, "differences",
                                               differences_json(bench_device_fields, a, b)));
    }
    return array;
}

static json_t *nearest_json(const struct compare_row *row)
{
    if (!row->nearest)
        return json_null();
    const char *member = bench_key_difference(key_of(row), &row->nearest->key);
    char name[NAME];
    bench_key_text(&row->nearest->key, name, sizeof name);
    return json_pack("{s:s, s:s?}", "case", name, "differs", member);
}

static json_t *row_json(const struct compare_row *row)
{
    static const char *const fates[] = {
        [COMPARE_NO_PARTNER] = "no partner",
        [COMPARE_NOT_OK] = "not compared",
        [COMPARE_DONE] = "compared",
    };
    char name[NAME];
    case_text(row, name);
    json_t *json = json_pack("{s:s, s:s, s:s, s:b, s:b, s:b}", "case", name, "device",
                             row->device->info.name, "fate", fates[row->fate], "in_a",
                             row->a != NULL, "in_b", row->b != NULL, "failed", (int) row->failed);
    if (row->fate == COMPARE_NO_PARTNER)
        json_object_set_new(json, "nearest", nearest_json(row));
    if (row->fate == COMPARE_NOT_OK)
        json_object_set_new(json, "reason", json_string(row->why));
    if (row->fate == COMPARE_DONE)
        json_object_update_new(
            json, json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "a_us", number(row->a_us),
                            "b_us", number(row->b_us), "ratio", number(row->ratio), "low",
                            number(row->low), "high", number(row->high), "noise",
                            number(row->noise), "verdict", compare_verdict_name(row->verdict)));
    return json;
}

static json_t *rows_json(const struct compare *c)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < c->n_rows; i++)
        json_array_append_new(array, row_json(&c->rows[i]));
    return array;
}

int compare_print_json(const struct compare *c)
{
    return cli_print_json(json_pack(
        "{s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:i, s:i, s:i, s:i, s:o}", "a", c->a->name, "b",
        c->b->name, "by", c->by_floor ? "floor" : "time", "limit", number(c->limit), "differences",
        differences_json(bench_file_fields, c->a, c->b), "devices", devices_json(c), "rows",
        rows_json(c), "n_compared", (int) c->n_done, "n_slower", (int) c->n_slower, "n_faster",
        (int) c->n_faster, "n_failed", (int) c->n_failed, "mean_ratio", number(c->mean)));
}
