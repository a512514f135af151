// SPDX-License-Identifier: MIT
// Cutting texts: the pieces in order, by a vocabulary that names them, and the hash.
#include "check.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/text.h"

#include <stdlib.h>

enum { MAX = 64 };

// Every piece as `text` gives them, joined by '|', where `vocabulary` holds all of them; '?' stands
// for row 0.
static const char *cut(const struct moe_text *rules, const char *text)
{
    static char out[1024];
    int32_t tokens[MAX];
    uint32_t n, counted;
    check_ok(moe_text_tokens(rules, moe_host_default(), text, strlen(text), NULL, &counted));
    check_ok(moe_text_tokens(rules, moe_host_default(), text, strlen(text), tokens, &n));
    assert_int_equal(n, counted);
    *out = '\0';
    for (uint32_t i = 0; i < n; i++) {
        const char *piece = "?";
        for (uint32_t e = 0; e < rules->n_entries; e++) {
            if (rules->vocabulary[e].row == (uint32_t) tokens[i])
                piece = rules->vocabulary[e].text;
        }
        strcat(strcat(out, i ? "|" : ""), piece);
    }
    return out;
}

static struct moe_text make_rules(const char *const *pieces, uint32_t n,
                                  struct moe_text_entry entries[MAX])
{
    for (uint32_t i = 0; i < n; i++)
        entries[i] = (struct moe_text_entry){pieces[i], (uint32_t) strlen(pieces[i]), i + 1};
    qsort(entries, n, sizeof *entries, moe_text_compare);
    return (struct moe_text){.vocabulary = entries, .n_entries = n, .n_rows = n + 1,
                             .max_tokens = MAX};
}

static void test_words(void **state)
{
    (void) state;
    static const char *const pieces[] = {"one", "one two", "two", "Two", "x_1", "\xc3\xa4",
                                         "two x_1"};
    struct moe_text_entry entries[MAX];
    struct moe_text rules = make_rules(pieces, MOE_COUNT(pieces), entries);
    rules.n_grams[MOE_TEXT_WORD] = 1;
    assert_string_equal(cut(&rules, "one, (two)\t\n Two-x_1 \xc3\xa4"), "one|two|Two|x_1|\xc3\xa4");
    assert_string_equal(cut(&rules, "three one"), "?|one");
    rules.lower = true;
    assert_string_equal(cut(&rules, "ONE Two"), "one|two");
    rules.n_grams[MOE_TEXT_WORD] = 2;
    assert_string_equal(cut(&rules, "one...two x_1 end"), "one two|two x_1|?");
    rules.n_grams[MOE_TEXT_WORD] = 3;
    assert_string_equal(cut(&rules, "one two x_1"), "one|one two|two|two x_1|x_1");
    rules.max_tokens = 2;
    assert_string_equal(cut(&rules, "one two x_1"), "one|one two");
    // A text without a piece has row 0, so that a mean over its rows exists.
    assert_string_equal(cut(&rules, ""), "?");
    assert_string_equal(cut(&rules, " .,\n"), "?");
}

static void test_characters(void **state)
{
    (void) state;
    static const char *const pieces[] = {" ", "a", "\xc3\xa4", "\xff", "b", " a", "a\xc3\xa4",
                                         "\xc3\xa4 ", "\xc3", "\xa4"};
    struct moe_text_entry entries[MAX];
    struct moe_text rules = make_rules(pieces, MOE_COUNT(pieces), entries);
    rules.n_grams[MOE_TEXT_CHARACTER] = 1;
    assert_string_equal(cut(&rules, "a\xc3\xa4 \t b"), " |a|\xc3\xa4| |b| ");
    assert_string_equal(cut(&rules, "\xff" "a\xc3"), " |\xff|a|\xc3| "); // bytes that are no UTF-8
    rules.n_grams[MOE_TEXT_CHARACTER] = 2;
    assert_string_equal(cut(&rules, "a\xc3\xa4"), " a|a\xc3\xa4|\xc3\xa4 ");
    assert_string_equal(cut(&rules, ""), "?"); // one space alone has no pair
    rules.n_grams[MOE_TEXT_CHARACTER] = 0;
    rules.n_grams[MOE_TEXT_BYTE] = 1;
    assert_string_equal(cut(&rules, "a\xc3\xa4"), " |a|\xc3|\xa4| ");
}

// Byte before character before word, then by n, where pieces begin at the same byte.
static void test_order(void **state)
{
    (void) state;
    static const char *const pieces[] = {" ", " a", "a", "ab", "ab c", "b", "b ", " c", "c", "c "};
    struct moe_text_entry entries[MAX];
    struct moe_text rules = make_rules(pieces, MOE_COUNT(pieces), entries);
    rules.n_grams[MOE_TEXT_BYTE] = 2;
    rules.n_grams[MOE_TEXT_CHARACTER] = 1;
    rules.n_grams[MOE_TEXT_WORD] = 3;
    assert_string_equal(cut(&rules, "ab c"),
                        " a| |ab|a|ab|ab c|b |b| c| |c |c|c| ");
}

static void test_hash(void **state)
{
    (void) state;
    // FNV-1a of "wone", 64 bits, h ^ h >> 32, modulo two sizes; computed apart from this code.
    const struct moe_text large = {.n_rows = 1000003}, small = {.n_rows = 16};
    assert_int_equal(moe_text_row(&large, MOE_TEXT_WORD, "one", 3), 682918);
    assert_int_equal(moe_text_row(&small, MOE_TEXT_WORD, "one", 3), 8);
    assert_int_not_equal(moe_text_row(&large, MOE_TEXT_CHARACTER, "one", 3), 682918);
    assert_int_not_equal(moe_text_row(&large, MOE_TEXT_BYTE, "one", 3), 682918);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
