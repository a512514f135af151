// SPDX-License-Identifier: MIT
// Files of results: what is written is read again, what is damaged is refused with its place.
#include "bench_sample.h"
#include "check.h"
#include "scratch.h"

#include <stdio.h>
#include <stdlib.h>

// The sample as JSON text; free() it.
static char *sample_text(size_t *size)
{
    struct bench_file file;
    struct bench_out out = {NULL, false};
    char *text = NULL;
    bench_sample_make(&file);
    out.stream = open_memstream(&text, size);
    assert_non_null(out.stream);
    bench_write_json(&file, &out);
    assert_int_equal(fclose(out.stream), 0);
    assert_false(out.failed);
    bench_file_finish(&file);
    return text;
}

// The text with its first `old` replaced; free() it.
static char *replaced(const char *text, const char *old, const char *new)
{
    const char *at = strstr(text, old);
    if (!at)
        fail_msg("no '%s' in the sample", old);
    char *changed = malloc(strlen(text) + strlen(new) + 1);
    assert_non_null(changed);
    memcpy(changed, text, (size_t) (at - text));
    strcpy(changed + (at - text), new);
    strcat(changed, at + strlen(old));
    return changed;
}

static unsigned line_of(const char *text, const char *part)
{
    unsigned line = 1;
    const char *end = strstr(text, part);
    assert_non_null(end);
    for (; text < end; text++)
        line += *text == '\n';
    return line;
}

// ---- there and back --------------------------------------------------------------------------

static void round_trip(void **state)
{
    (void) state;
    size_t size, again_size = 0;
    char *text = sample_text(&size), *again = NULL;
    struct bench_file file;
    check_ok(bench_file_parse("sample", text, size, &file));
    assert_int_equal(file.n_rows, BENCH_SAMPLE_ITEMS);
    assert_string_equal(file.devices[1].info.name, "41,\"|name");
    assert_int_equal(file.rows[1].status, BENCH_UNVERIFIED);
    assert_true(file.rows[0].key.seed > 1ull << 53);
    assert_int_equal(file.rows[1].expert_rows[2], file.rows[1].expert_rows[0] + 2);
    assert_int_equal(file.rows[1].device_times.n, 5);
    struct bench_out out = {open_memstream(&again, &again_size), false};
    bench_write_json(&file, &out);
    fclose(out.stream);
    assert_int_equal(size, again_size);
    assert_memory_equal(text, again, size);
    bench_file_finish(&file);
    free(again);
    free(text);
}

// NAN, a limit that is 0 and arrays of nothing come back as such.
static void unknown_numbers(void **state)
{
    (void) state;
    struct bench_file file, back;
    bench_sample_make(&file);
    struct bench_row *row = &file.rows[1];
    row->status = BENCH_SKIPPED;
    row->wall_times.n = row->device_times.n = 0;
    bench_times_sum_up(&row->wall_times);
    bench_times_sum_up(&row->device_times);
    free(row->expert_rows);
    row->expert_rows = NULL;
    row->floor_us = (double) NAN;
    row->floor_fraction = (double) INFINITY;
    file.devices[0].peak[3] = 0;
    file.schema[0] = '\0'; // the writer knows what it writes
    const char *path = scratch_path("unknown.json");
    check_ok(bench_file_write(&file, BENCH_JSON, path));
    bench_file_finish(&file);
    check_ok(bench_file_read(path, &back));
    row = &back.rows[1];
    assert_string_equal(back.name, "unknown.json");
    assert_true(isnan(row->floor_us) && isnan(row->floor_fraction));
    assert_true(isnan(row->device_times.median_us) && row->device_times.n == 0);
    assert_true(!row->expert_rows && row->key.n_experts == 3);
    assert_true(back.devices[0].peak[3] == 0 && back.devices[1].peak[3] > 0);
    bench_file_finish(&back);
}

// A name that was cut in the middle of a character.
static void broken_text(void **state)
{
    (void) state;
    struct bench_file file, back;
    bench_sample_make(&file);
    snprintf(file.cpu, sizeof file.cpu, "a\"b\xc3");
    const char *path = scratch_path("broken.json");
    check_ok(bench_file_write(&file, BENCH_JSON, path));
    bench_file_finish(&file);
    check_ok(bench_file_read(path, &back));
    assert_string_equal(back.cpu, "a\"b?");
    bench_file_finish(&back);
}

static void later_fields(void **state)
{
    (void) state;
    size_t size;
    char *text = sample_text(&size);
    char *later = replaced(text, "\"reason\":", "\"colour\": {\"of\": [1]}, \"reason\":");
    struct bench_file file;
    check_ok(bench_file_parse("later", later, strlen(later), &file));
    bench_file_finish(&file);
    free(later);
    free(text);
}

static void whole_or_not_at_all(void **state)
{
    (void) state;
    struct bench_file file;
    int before = scratch_count();
    bench_sample_make(&file);
    check_fails(bench_file_write(&file, BENCH_JSON, scratch_path("no/folder.json")), VKMOE_E_IO,
                "folder.json");
    assert_int_equal(scratch_count(), before);
    bench_file_finish(&file);
    bench_file_finish(&file); // empty by now
    bench_file_finish(NULL);
}

// ---- damage ----------------------------------------------------------------------------------

static void check_refused(const char *text, const char *old, const char *new, const char *why)
{
    struct bench_file file;
    char *bad = replaced(text, old, new), place[64];
    check_fails(bench_file_parse("b.json", bad, strlen(bad), &file), VKMOE_E_DATA, why);
    snprintf(place, sizeof place, "b.json:%u: ", line_of(text, old));
    if (!strstr(vkmoe_error_text(), place))
        fail_msg("'%s' does not begin with %s", vkmoe_error_text(), place);
    assert_true(file.n_rows == 0 && !file.rows && !file.devices);
    free(bad);
}

static void damage(void **state)
{
    (void) state;
    size_t size;
    char *text = sample_text(&size);
    check_refused(text, "\"complete\": true", "\"complete\": 1",
                  "complete: a whole number, must be true or false");
    check_refused(text, "\"type\": \"integrated\"", "\"type\": \"abacus\"",
                  "devices[1].type: 'abacus' is none of discrete, integrated, software, cpu, ref");
    check_refused(text, "\"status\": \"ok\"", "\"status\": null", "rows[0].status: null, must be");
    check_refused(text, "\"device\": 1", "\"device\": -1", "rows[1].device: -1 is not in 0..");
    check_refused(text, "\"plateau\": true", "\"plateau\": true, \"plateau\": true",
                  "duplicate object key");
    check_refused(text, "\"expert_rows\": [", "\"expert_rows\": [7, ",
                  "rows[0].expert_rows: 4 numbers, must be 3 or none");
    check_refused(text, "\"expert_rows\": [", "\"expert_rows\": [\"", "b.json");
    check_refused(text, "\"bytes\": ", "\"bytes\": -", "rows[0].bytes: -");
    check_refused(text, "\"bytes\": ", "\"bytes\": 1e999, \"x\": ", "real number overflow");
    check_refused(text, "\"bytes\": ", "\"bytes\": NaN, \"x\": ", "invalid token");
    check_refused(text, "\"f32\": ", "\"f32\": 0, \"x\": ", "devices[0].peak.f32: 0; what there");
    check_refused(text, "\"n_cores\": ", "\"n_cores\": 4294967296, \"x\": ",
                  "n_cores: 4294967296 is not in 0..4294967295");
    check_refused(text, "\"n_cores\": ", "\"n_cores\": 99999999999999999999, \"x\": ",
                  "too big integer");
    check_refused(text, "\"n_cores\": ", "\"n_cores\": 1.5, \"x\": ", "n_cores: a number, must");
    check_refused(text, "\"seed\": \"", "\"seed\": \"-", "rows[0].key.seed: '-");
    check_refused(text, "\"seed\": \"", "\"seed\": \"99999999999999999999",
                  "is not a whole number in range");
    check_refused(text, "\"version\": \"", "\"version\": \"0123456789abcdef",
                  "bytes; at most 15");
    check_refused(text, "\"median_us\": ", "\"median_us\": 5, \"x\": ",
                  "rows[0].device_times: median_us is 5, the samples have ");
    check_refused(text, "\"p95_us\": ", "\"p95_us\": null, \"x\": ", "p5_us and p95_us are ");
    check_refused(text, "\"dispatches\": [", "\"dispatches\": [7, ",
                  "rows[0].dispatches[0]: a whole number, must be an object");
    check_refused(text, "\"key\": {", "\"key\": [], \"x\": {", "rows[0].key: an array, must");
    free(text);
}

// The place is the object that lacks it.
static void missing(void **state)
{
    (void) state;
    size_t size;
    char *text = sample_text(&size), want[64];
    char *bad = replaced(text, "\"status\": \"unverified\"", "\"state\": 1");
    struct bench_file file;
    snprintf(want, sizeof want, "b:%u: rows[1].status: is missing",
             line_of(text, "\"device\": 1") - 2);
    check_fails(bench_file_parse("b", bad, strlen(bad), &file), VKMOE_E_DATA, want);
    free(bad);
    bad = replaced(text, "\"rule\": ", "\"ruler\": ");
    snprintf(want, sizeof want, "b:%u: rows[0].key.rule: is missing",
             line_of(text, "\"rule\": "));
    check_fails(bench_file_parse("b", bad, strlen(bad), &file), VKMOE_E_DATA, want);
    free(bad);
    free(text);
}

static void device_that_is_not_there(void **state)
{
    (void) state;
    size_t size;
    char *text = sample_text(&size);
    char *bad = replaced(text, "\"device\": 1", "\"device\": 2");
    struct bench_file file;
    check_fails(bench_file_parse("b", bad, strlen(bad), &file), VKMOE_E_DATA,
                "rows[1]: device 2 of 2");
    free(bad);
    free(text);
}

static void times_of_ok_rows(void **state)
{
    (void) state;
    struct bench_file file, back;
    bench_sample_make(&file);
    file.rows[0].device_times.n = file.rows[0].wall_times.n = 0;
    bench_times_sum_up(&file.rows[0].device_times);
    bench_times_sum_up(&file.rows[0].wall_times);
    const char *path = scratch_path("no-times.json");
    check_ok(bench_file_write(&file, BENCH_JSON, path));
    check_fails(bench_file_read(path, &back), VKMOE_E_DATA, "rows[0]: status ok, but no times");
    file.rows[0].status = BENCH_ERROR;
    check_ok(bench_file_write(&file, BENCH_JSON, path));
    check_ok(bench_file_read(path, &back));
    bench_file_finish(&back);
    bench_file_finish(&file);
}

static void other_schemas(void **state)
{
    (void) state;
    struct bench_file file;
    const char *text = "{\"schema\": \"vkmoe-bench/2\"}";
    check_fails(bench_file_parse("b", text, strlen(text), &file), VKMOE_E_DATA,
                "b: schema is 'vkmoe-bench/2', this program reads 'vkmoe-bench/1'");
    text = "{\"rows\": []}";
    check_fails(bench_file_parse("b", text, strlen(text), &file), VKMOE_E_DATA,
                "b: schema is not given, this program reads 'vkmoe-bench/1'");
    text = "[1]";
    check_fails(bench_file_parse("b", text, strlen(text), &file), VKMOE_E_DATA,
                "b:1: an array, must be an object");
    check_fails(bench_file_read(scratch_path("absent"), &file), VKMOE_E_IO, "absent: No such file");
    check_fails(bench_file_read(scratch_folder(), &file), VKMOE_E_IO, "Is a directory");
}

// ---- any bytes -------------------------------------------------------------------------------

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static bool accepts(const char *text, size_t size)
{
    struct bench_file file;
    vkmoe_error_set("");
    enum vkmoe_status status = bench_file_parse("b", text, size, &file);
    if (status != VKMOE_OK) {
        assert_int_equal(status, VKMOE_E_DATA);
        assert_true(*vkmoe_error_text());
        return false;
    }
    bench_file_finish(&file);
    return true;
}

static void truncations(void **state)
{
    (void) state;
    size_t size;
    char *text = sample_text(&size), *part = NULL;
    for (size_t n = 0; n + 2 < size; n += n < 300 ? 1 : 7) {
        part = realloc(part, n + 1); // so that a sanitizer sees what is read beyond it
        memcpy(part, text, n);
        assert_false(accepts(part, n));
    }
    assert_true(accepts(text, size));
    free(part);
    free(text);
}

// Bytes changed, and pieces of the file put where others were.
static void mutations(void **state)
{
    (void) state;
    size_t size;
    char *text = sample_text(&size), *bad = malloc(size);
    uint32_t seed = 1, n_accepted = 0;
    assert_non_null(bad);
    for (int round = 0; round < 3000; round++) {
        memcpy(bad, text, size);
        if (round % 2) {
            size_t n = 1 + next_random(&seed) % 12;
            size_t to = next_random(&seed) % (size - n), from = next_random(&seed) % (size - n);
            memcpy(bad + to, text + from, n);
        } else {
            static const char bytes[] = "0129-.eE\"\\{}[],:ntu \n";
            bad[next_random(&seed) % size] = bytes[next_random(&seed) % (sizeof bytes - 1)];
        }
        n_accepted += accepts(bad, size);
    }
    // Many a digit may be another one; but much must have been refused.
    assert_in_range(n_accepted, 100, 2900);
    free(bad);
    free(text);
}

// Rows of other seeds are other cases, by name too.
static void seeds_have_names(void **state)
{
    (void) state;
    char names[3][128];
    for (uint64_t seed = 0; seed < 3; seed++)
        bench_key_text(&(struct bench_key){.model = "m", .seed = seed}, names[seed],
                       sizeof names[seed]);
    assert_string_not_equal(names[0], names[1]);
    assert_string_not_equal(names[1], names[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds_have_names),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(unknown_numbers),
        cmocka_unit_test(broken_text),
        cmocka_unit_test(later_fields),
        cmocka_unit_test(whole_or_not_at_all),
        cmocka_unit_test(damage),
        cmocka_unit_test(missing),
        cmocka_unit_test(device_that_is_not_there),
        cmocka_unit_test(times_of_ok_rows),
        cmocka_unit_test(other_schemas),
        cmocka_unit_test(truncations),
        cmocka_unit_test(mutations),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
