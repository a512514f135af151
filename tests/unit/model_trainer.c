// SPDX-License-Identifier: MIT
// The trainer from inside: order of rows, rates, statistics, cancelling, and every allocation
// failing once. What it does from outside is tested in tests/cli/train.py.
#include "budget.h"
#include "check.h"
#include "scratch.h"

#include "base/host.h"
#include "model/train_data.h"

#include <stdio.h>
#include <stdlib.h>
#include <vkmoe/trainer.h>

static const char config_text[] =
    "{\"task\": \"classify\", \"input\": {\"kind\": \"standardize\", \"n_features\": 2},"
    " \"layers\": [{\"kind\": \"moe\", \"d_ff\": 3, \"d_out\": 2, \"n_experts\": 3, \"top_k\": 2,"
    " \"router\": {\"score\": \"softmax\", \"order\": \"score_then_topk\", \"noisy\": true},"
    " \"expert\": {\"activation\": \"relu\", \"bias\": true}}], \"head\": \"softmax\","
    " \"train\": {\"optimiser\": {\"kind\": \"adamw\", \"rate\": 0.1,"
    " \"groups\": [{\"match\": \".router.\", \"rate_scale\": 0.5}]}, \"batch\": 4, \"epochs\": 3,"
    " \"class_weights\": \"balanced\", \"patience\": 3, \"validation\": {\"share\": 0.3}}}";

static const char text_config[] =
    "{\"task\": \"classify\", \"input\": {\"kind\": \"embed\", \"d_out\": 4, \"n_buckets\": 16,"
    " \"ngrams\": {\"byte\": [1, 2]}}, \"layers\": [{\"kind\": \"pool\", \"pool\": \"mean\"},"
    " {\"kind\": \"linear\", \"d_out\": 2}], \"head\": \"softmax\","
    " \"train\": {\"optimiser\": {\"kind\": \"sgd\", \"rate\": 0.1}, \"batch\": 3,"
    " \"micro_batches\": 2, \"steps\": 3}}";

static const char text_rows[] = "no\tzzz yyy\nyes\tabc\nyes\tab\nno\tzy\nyes\ta b c\n";

// Points of two classes that a line parts.
static const char *write_rows(void)
{
    char text[2000] = "# a, b, class\n";
    for (int i = 0; i < 24; i++) {
        double a = (i * 7 % 24) / 8.0, b = (i * 5 % 24) / 9.0;
        snprintf(text + strlen(text), sizeof text - strlen(text), "%g,%g,%s\n", a, b,
                 a > b ? "over" : "under");
    }
    return scratch_text("rows.csv", text);
}

// ---- order, rates, statistics ----------------------------------------------------------------

enum { N = 1000 };

static void number(uint32_t rows[N])
{
    for (uint32_t i = 0; i < N; i++)
        rows[i] = i;
}

// Every row once, in an order of the seed and the epoch.
static void test_shuffle(void **state)
{
    (void) state;
    uint32_t a[N], b[N], seen[N] = {0}, same = 0;
    number(a);
    moe_train_shuffle(1, 0, a, N);
    for (uint32_t i = 0; i < N; i++) {
        assert_true(a[i] < N);
        seen[a[i]]++;
        same += a[i] == i;
    }
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(seen[i], 1);
    assert_true(same < 10); // one is expected
    number(b);
    moe_train_shuffle(1, 0, b, N);
    assert_memory_equal(a, b, sizeof a);
    const uint64_t other[][2] = {{1, 1}, {2, 0}, {1 + (UINT64_C(1) << 32), 0}};
    for (size_t i = 0; i < 3; i++) {
        number(b);
        moe_train_shuffle(other[i][0], (uint32_t) other[i][1], b, N);
        assert_memory_not_equal(a, b, sizeof a);
    }
    moe_train_shuffle(1, 0, b, 0);
}

// No place is favoured: chi squared of where row 0 goes, 9 degrees of freedom, 40 at most
// (p = 1e-5, and the seeds are fixed).
static void test_shuffle_is_even(void **state)
{
    (void) state;
    uint32_t found[10] = {0};
    double chi2 = 0;
    for (uint32_t epoch = 0; epoch < N; epoch++) {
        uint32_t rows[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
        moe_train_shuffle(7, epoch, rows, 10);
        for (uint32_t i = 0; i < 10; i++)
            found[i] += rows[i] == 0;
    }
    for (int i = 0; i < 10; i++)
        chi2 += (found[i] - N / 10.0) * (found[i] - N / 10.0) / (N / 10.0);
    assert_true(chi2 < 40);
}

static void test_rates(void **state)
{
    (void) state;
    struct moe_train_config c = {.rate = 0.5f};
    check_near(moe_train_rate(&c, 99, 100, 9), 0.5, 0);
    c.schedule = (struct moe_schedule){.kind = MOE_SCHEDULE_COSINE, .warm_up = 10, .floor = 0.2f};
    check_near(moe_train_rate(&c, 0, 110, 0), 0.05, 1e-7);
    check_near(moe_train_rate(&c, 9, 110, 0), 0.5, 1e-7);
    check_near(moe_train_rate(&c, 10, 110, 0), 0.5, 1e-7);
    check_near(moe_train_rate(&c, 60, 110, 0), 0.5 * 0.6, 1e-7);
    check_near(moe_train_rate(&c, 110, 110, 0), 0.5 * 0.2, 1e-7);
    c.schedule = (struct moe_schedule){.kind = MOE_SCHEDULE_STEP, .every = 3, .factor = 0.1f};
    check_near(moe_train_rate(&c, 50, 100, 2), 0.5, 1e-7);
    check_near(moe_train_rate(&c, 50, 100, 3), 0.05, 1e-7);
    check_near(moe_train_rate(&c, 50, 100, 6), 0.005, 1e-7);
}

// Of the training rows only, over all tokens of an example; a single value counts as spread 1.
static void test_statistics(void **state)
{
    (void) state;
    float x[] = {1, 5, 3, 5, 100, 100, 5, 5};
    uint64_t offsets[] = {0, 2, 3, 4};
    uint32_t train[] = {0, 2};
    const struct moe_train_data data = {.host = moe_host_default(), .n = 3, .n_features = 2,
                                        .n_tokens = 4, .x = x, .offsets = offsets};
    const struct moe_train_split split = {.train = train, .n_train = 2};
    struct moe_train_stats stats;
    check_ok(moe_train_input_stats(&data, &split, VKMOE_INPUT_STANDARDIZE, &stats));
    check_near(stats.first[0], 3, 0);
    check_near(stats.second[0], sqrt(8 / 3.0), 1e-6);
    check_near(stats.first[1], 5, 0);
    check_near(stats.second[1], 1, 0);
    moe_train_stats_finish(&stats);
    check_ok(moe_train_input_stats(&data, &split, VKMOE_INPUT_MINMAX, &stats));
    check_near(stats.first[0], 1, 0);
    check_near(stats.second[0], 5, 0);
    check_near(stats.first[1], 5, 0);
    check_near(stats.second[1], 6, 0);
    moe_train_stats_finish(&stats);
    check_ok(moe_train_input_stats(&data, &split, VKMOE_INPUT_NONE, &stats));
    assert_null(stats.first);
    moe_train_stats_finish(&stats);
}

// ---- a training ------------------------------------------------------------------------------

// Everything in one go; the text of the model file's bytes goes to `name`.
static enum vkmoe_status train(vkmoe_context *context, const vkmoe_trainer_desc *desc,
                               const char *name)
{
    enum vkmoe_status status;
    vkmoe_trainer *trainer = NULL;
    vkmoe_trainer_report report;
    vkmoe_class_metrics class;
    if ((status = vkmoe_trainer_create(context, desc, &trainer)) == VKMOE_OK) {
        while ((status = vkmoe_trainer_run(trainer)) == VKMOE_E_CANCELLED)
            continue;
        if (status == VKMOE_OK)
            status = vkmoe_trainer_get_report(trainer, &report);
        if (status == VKMOE_OK)
            status = vkmoe_trainer_class(trainer, 0, &class);
        if (status == VKMOE_OK)
            status = vkmoe_trainer_save(trainer, scratch_path(name));
    } else {
        assert_null(trainer);
    }
    vkmoe_trainer_destroy(trainer);
    return status;
}

static vkmoe_trainer_desc rows_desc(const char *rows)
{
    vkmoe_trainer_desc desc = vkmoe_trainer_desc_init();
    desc.config = config_text;
    desc.data = rows;
    return desc;
}

static vkmoe_context *open_context(const vkmoe_host *host)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    desc.host = host;
    desc.device = "cpu";
    desc.n_threads = 1;
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

static size_t read_file(const char *name, char *out, size_t room)
{
    FILE *file = fopen(scratch_path(name), "rb");
    assert_non_null(file);
    size_t size = fread(out, 1, room, file);
    assert_true(size > 0 && size < room);
    fclose(file);
    return size;
}

struct stops {
    uint32_t n, every, n_epochs;
    double loss;
};

static bool stop_often(void *user, const vkmoe_trainer_progress *progress)
{
    struct stops *stops = user;
    stops->n_epochs += progress->end_of_epoch;
    stops->loss = progress->loss;
    assert_true(progress->step <= progress->n_steps);
    return ++stops->n % stops->every != 0;
}

// Stopped after every step, it gets to the same file.
static void test_cancel(void **state)
{
    (void) state;
    static char want[20000], got[20000];
    vkmoe_context *context = open_context(NULL);
    char rows[200], checkpoint[200];
    snprintf(rows, sizeof rows, "%s", write_rows());
    snprintf(checkpoint, sizeof checkpoint, "%s", scratch_path("k"));
    vkmoe_trainer_desc desc = rows_desc(rows);
    check_ok(train(context, &desc, "a"));
    size_t size = read_file("a", want, sizeof want);
    struct stops stops = {.every = 1};
    desc.checkpoint = checkpoint;
    desc.progress = stop_often;
    desc.user = &stops;
    check_ok(train(context, &desc, "a"));
    assert_int_equal(read_file("a", got, sizeof got), size);
    assert_memory_equal(got, want, size);
    assert_int_equal(stops.n_epochs, 3);
    assert_true(stops.loss > 0);
    // From its last checkpoint likewise.
    desc.resume = true;
    check_ok(train(context, &desc, "a"));
    assert_int_equal(read_file("a", got, sizeof got), size);
    assert_memory_equal(got, want, size);
    vkmoe_context_destroy(context);
}

static void test_arguments(void **state)
{
    (void) state;
    vkmoe_context *context = open_context(NULL);
    vkmoe_trainer_desc desc = rows_desc("rows.csv");
    vkmoe_trainer *trainer;
    check_fails(vkmoe_trainer_create(NULL, &desc, &trainer), VKMOE_E_ARGUMENT, "context is NULL");
    check_fails(vkmoe_trainer_create(context, NULL, &trainer), VKMOE_E_ARGUMENT, "desc is NULL");
    check_fails(vkmoe_trainer_create(context, &desc, NULL), VKMOE_E_ARGUMENT, "out is NULL");
    desc.resume = true;
    check_fails(vkmoe_trainer_create(context, &desc, &trainer), VKMOE_E_ARGUMENT, "checkpoint");
    desc.data = NULL;
    check_fails(vkmoe_trainer_create(context, &desc, &trainer), VKMOE_E_ARGUMENT, "data is NULL");
    desc.config = NULL;
    check_fails(vkmoe_trainer_create(context, &desc, &trainer), VKMOE_E_ARGUMENT, "config is");
    assert_null(trainer);
    check_fails(vkmoe_trainer_run(NULL), VKMOE_E_ARGUMENT, "trainer is NULL");
    check_fails(vkmoe_trainer_save(NULL, "x"), VKMOE_E_ARGUMENT, "trainer is NULL");
    check_fails(vkmoe_trainer_get_report(NULL, NULL), VKMOE_E_ARGUMENT, "trainer is NULL");
    check_fails(vkmoe_trainer_class(NULL, 0, NULL), VKMOE_E_ARGUMENT, "trainer is NULL");
    assert_null(vkmoe_trainer_class_name(NULL, 0));
    vkmoe_trainer_destroy(NULL);
    vkmoe_context_destroy(context);
}

// ---- memory ----------------------------------------------------------------------------------

// Each allocation fails once: the training fails with that, or does not need it; nothing leaks.
static void lose_each_allocation(vkmoe_trainer_desc *desc)
{
    bool more = true;
    for (long fail_at = 0; more; fail_at++) {
        vkmoe_host host = vkmoe_host_init();
        struct budget budget = {.fail_at = fail_at, .once = true};
        struct stops stops = {.every = 5};
        budget_host(&host, &budget);
        vkmoe_context *context = open_context(NULL);
        desc->host = &host;
        desc->user = &stops;
        enum vkmoe_status status = train(context, desc, "m");
        more = budget_failed(&budget);
        if (more && status != VKMOE_OK)
            assert_int_equal(status, VKMOE_E_MEMORY);
        else
            check_ok(status);
        assert_int_equal(budget.live, 0);
        vkmoe_context_destroy(context);
    }
}

static void test_memory(void **state)
{
    (void) state;
    char rows[200], checkpoint[200];
    snprintf(rows, sizeof rows, "%s", write_rows());
    snprintf(checkpoint, sizeof checkpoint, "%s", scratch_path("k"));
    vkmoe_trainer_desc desc = rows_desc(rows);
    desc.valid = NULL;
    desc.checkpoint = checkpoint;
    desc.progress = stop_often;
    lose_each_allocation(&desc);
    desc.resume = true;
    lose_each_allocation(&desc);
}

static void test_memory_of_texts(void **state)
{
    (void) state;
    char rows[200];
    snprintf(rows, sizeof rows, "%s", scratch_text("rows.tsv", text_rows));
    vkmoe_trainer_desc desc = rows_desc(rows);
    desc.config = text_config;
    desc.valid = rows;
    desc.progress = stop_often;
    lose_each_allocation(&desc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_shuffle_is_even),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_memory_of_texts),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
