// SPDX-License-Identifier: MIT
// Writing layers in another type: arguments, what is told, memory that runs out, and stopping. What
// the files hold is tested from outside, in tests/cli/quantize.py.
#include "budget.h"
#include "checkpoint_folder.h"
#include "fixture.h"
#include "scratch.h"

#include "base/bits.h"
#include "model/families/families.h"

#include <vkmoe/checkpoint.h>
#include <vkmoe/model.h>

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct told {
    vkmoe_save_part parts[16];
    uint32_t n_parts;
    uint64_t done, total;
    uint32_t n_calls, stop_at; // 0: never
};

static void report(void *user, const vkmoe_save_part *part)
{
    struct told *told = user;
    assert_true(told->n_parts < MOE_COUNT(told->parts));
    told->parts[told->n_parts++] = *part;
}

static bool progress(void *user, uint64_t done, uint64_t total)
{
    struct told *told = user;
    assert_true(done >= told->done && done <= total);
    told->done = done;
    told->total = total;
    return ++told->n_calls != told->stop_at;
}

static vkmoe_save_desc save_desc(struct told *told, enum vkmoe_dtype type)
{
    vkmoe_save_desc desc = vkmoe_save_desc_init();
    *told = (struct told){0};
    desc.type = type;
    desc.report = report;
    desc.progress = progress;
    desc.user = told;
    return desc;
}

static void open_mixtral(const vkmoe_host *host, vkmoe_checkpoint **out)
{
    vkmoe_checkpoint_desc desc = vkmoe_checkpoint_desc_init();
    desc.host = host;
    check_ok(vkmoe_checkpoint_open(scratch_folder(), &desc, out));
}

static void write_mixtral(void)
{
    struct folder folder;
    folder_mixtral(&folder);
    folder_write(&folder, MIXTRAL_CONFIG(""));
    folder_finish(&folder);
}

static const char *const suffixes[] = {"o.gguf", "o.safetensors"};

static void test_told(void **state)
{
    (void) state;
    static const enum vkmoe_part parts[] = {VKMOE_PART_ROUTER, VKMOE_PART_GATE, VKMOE_PART_UP,
                                            VKMOE_PART_DOWN};
    vkmoe_checkpoint *checkpoint;
    struct told told;
    write_mixtral();
    open_mixtral(NULL, &checkpoint);
    for (size_t i = 0; i < MOE_COUNT(suffixes); i++) {
        vkmoe_save_desc desc = save_desc(&told, VKMOE_Q8_0);
        check_ok(vkmoe_checkpoint_save(checkpoint, scratch_path(suffixes[i]), &desc));
        assert_int_equal(told.n_parts, MOE_COUNT(parts));
        uint64_t size = 0;
        for (uint32_t k = 0; k < told.n_parts; k++) {
            const vkmoe_save_part *part = &told.parts[k];
            bool matrix = part->part != VKMOE_PART_ROUTER;
            assert_int_equal(part->part, parts[k]);
            assert_int_equal(part->layer, 1);
            assert_int_equal(part->layer_out, 0);
            // 8 and 6 values are no block; folder_value is exact in f16.
            assert_int_equal(part->type, matrix ? VKMOE_F16 : VKMOE_F32);
            assert_true(part->fallback == matrix && part->exact && part->error == 0);
            assert_int_equal(part->size_before, matrix ? 4 * 8 * 6 * 4 : 4 * 8 * 4);
            assert_int_equal(part->size, part->size_before / (matrix ? 2 : 1));
            assert_string_equal(part->stored, "f32");
            size += part->size;
        }
        assert_int_equal(told.n_calls, 1 + 3 * 4); // one for each matrix
        assert_true(told.done == size && told.total == size);
    }
    vkmoe_checkpoint_destroy(checkpoint);
}

static void test_arguments(void **state)
{
    (void) state;
    vkmoe_checkpoint *checkpoint;
    struct told told;
    write_mixtral();
    open_mixtral(NULL, &checkpoint);
    int n_files = scratch_count();
    const char *path = scratch_path("a.gguf");
    vkmoe_save_desc desc = save_desc(&told, VKMOE_F16);
    check_fails(vkmoe_checkpoint_save(NULL, path, &desc), VKMOE_E_ARGUMENT, "checkpoint is NULL");
    check_fails(vkmoe_checkpoint_save(checkpoint, NULL, &desc), VKMOE_E_ARGUMENT, "path is NULL");
    check_fails(vkmoe_checkpoint_save(checkpoint, path, NULL), VKMOE_E_ARGUMENT, "desc is NULL");
    check_fails(vkmoe_checkpoint_save(checkpoint, "gguf", &desc), VKMOE_E_ARGUMENT, "neither");
    desc.one_layer = true;
    check_fails(vkmoe_checkpoint_save(checkpoint, path, &desc), VKMOE_E_ARGUMENT,
                "layer 0 has no experts");
    desc.layer = 2;
    check_fails(vkmoe_checkpoint_save(checkpoint, path, &desc), VKMOE_E_ARGUMENT,
                "layer 2 of a model with 2");
    desc = save_desc(&told, (enum vkmoe_dtype) 99);
    check_fails(vkmoe_checkpoint_save(checkpoint, path, &desc), VKMOE_E_ARGUMENT, "type = 99");
    desc = save_desc(&told, VKMOE_FP8);
    check_fails(vkmoe_checkpoint_save(checkpoint, path, &desc), VKMOE_E_UNSUPPORTED,
                "GGUF has no type fp8");
    desc = save_desc(&told, VKMOE_F16);
    desc.struct_size = 3;
    check_fails(vkmoe_checkpoint_save(checkpoint, path, &desc), VKMOE_E_ARGUMENT,
                "vkmoe_save_desc");
    assert_int_equal(scratch_count(), n_files);
    vkmoe_checkpoint_destroy(checkpoint);
}

// After any of its calls.
static void test_stop(void **state)
{
    (void) state;
    vkmoe_checkpoint *checkpoint;
    struct told told;
    write_mixtral();
    open_mixtral(NULL, &checkpoint);
    int n_files = scratch_count();
    for (size_t i = 0; i < MOE_COUNT(suffixes); i++) {
        const char *path = i == 0 ? scratch_path("s.gguf") : scratch_path("s.safetensors");
        for (uint32_t at = 1; at <= 13; at++) {
            vkmoe_save_desc desc = save_desc(&told, VKMOE_BF16);
            told.stop_at = at;
            check_fails(vkmoe_checkpoint_save(checkpoint, path, &desc), VKMOE_E_CANCELLED,
                        "stopped");
            assert_int_equal(told.n_calls, at);
            assert_int_equal(scratch_count(), n_files);
        }
    }
    vkmoe_checkpoint_destroy(checkpoint);
}

// Every allocation fails once: an error, no file, nothing lost.
static void test_memory(void **state)
{
    (void) state;
    struct told told;
    write_mixtral();
    int n_files = scratch_count();
    for (size_t i = 0; i < MOE_COUNT(suffixes); i++) {
        const char *path = i == 0 ? scratch_path("m.gguf") : scratch_path("m.safetensors");
        bool more = true;
        long n_failures = 0;
        for (long fail_at = 0; more; fail_at++) {
            vkmoe_checkpoint *checkpoint = NULL;
            vkmoe_host host = vkmoe_host_init();
            struct budget budget = {.fail_at = -1};
            budget_host(&host, &budget);
            open_mixtral(&host, &checkpoint);
            budget.fail_at = budget.n + fail_at;
            vkmoe_save_desc desc = save_desc(&told, VKMOE_F16);
            enum vkmoe_status status = vkmoe_checkpoint_save(checkpoint, path, &desc);
            more = budget_failed(&budget);
            assert_int_equal(status, more ? VKMOE_E_MEMORY : VKMOE_OK);
            n_failures += more;
            assert_int_equal(scratch_count(), n_files + !more);
            vkmoe_checkpoint_destroy(checkpoint);
            assert_int_equal(budget.live, 0);
        }
        assert_true(n_failures > 20);
        n_files++;
    }
}

// Whether a session runs a saved layer is asked, and is what it does.
static void test_runs(void **state)
{
    (void) state;
    static const char *const layers[] = {"", "\"router_input\": true"};
    vkmoe_context *context = context_on("reference", NULL);
    write_mixtral();
    for (int i = 0; i < 2; i++) {
        char text[100];
        struct told told;
        vkmoe_checkpoint *checkpoint;
        vkmoe_model *model;
        vkmoe_session *session;
        vkmoe_session_desc one = vkmoe_session_desc_init();
        vkmoe_checkpoint_desc desc = vkmoe_checkpoint_desc_init();
        vkmoe_save_desc save = save_desc(&told, VKMOE_F32);
        snprintf(text, sizeof text, "{\"family\": \"mixtral\", \"layer\": {%s}}", layers[i]);
        desc.description = text;
        one.one_layer = true;
        check_ok(vkmoe_checkpoint_open(scratch_folder(), &desc, &checkpoint));
        check_ok(vkmoe_checkpoint_save(checkpoint, scratch_path("r.safetensors"), &save));
        check_ok(vkmoe_model_open(NULL, scratch_path("r.safetensors"), &model));
        assert_int_equal(vkmoe_session_runs_layer(model, 0), i == 0);
        assert_false(vkmoe_session_runs_layer(model, 1));
        if (i == 0)
            check_ok(vkmoe_session_create(context, model, &one, &session));
        else
            check_fails(vkmoe_session_create(context, model, &one, &session), VKMOE_E_UNSUPPORTED,
                        "layer 0 has inputs or tensors that sessions do not pass on");
        vkmoe_session_destroy(session);
        vkmoe_model_destroy(model);
        vkmoe_checkpoint_destroy(checkpoint);
    }
    vkmoe_context_destroy(context);
}

// Until a GGUF is checked it has a name that no file of the user's has, and that the next save
// removes after a kill; a link stays one.
static void test_gguf_name(void **state)
{
    (void) state;
    static const char text[] = "a user's own";
    char link[512], target[512], other[512], read[sizeof text] = "";
    vkmoe_checkpoint *checkpoint;
    struct told told;
    struct stat info;
    write_mixtral();
    open_mixtral(NULL, &checkpoint);
    snprintf(link, sizeof link, "%s", scratch_path("n.gguf"));
    snprintf(target, sizeof target, "%s", scratch_text("t.gguf", text));
    snprintf(other, sizeof other, "%s", scratch_text("n.gguf.new.gguf", text));
    scratch_text(".t.gguf.1.0.tmp", text); // left by a process that was killed
    assert_int_equal(symlink("t.gguf", link), 0);
    int n_files = scratch_count();
    vkmoe_save_desc desc = save_desc(&told, VKMOE_F16);
    check_ok(vkmoe_checkpoint_save(checkpoint, link, &desc));
    assert_int_equal(scratch_count(), n_files - 1);
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(target, &info), 0);
    assert_true((size_t) info.st_size > sizeof text);
    FILE *file = fopen(other, "rb");
    assert_non_null(file);
    assert_int_equal(fread(read, 1, sizeof read, file), strlen(text));
    fclose(file);
    assert_string_equal(read, text);
    vkmoe_checkpoint_destroy(checkpoint);
}

// Fields of a layer as JSON, and back.
static void test_fields(void **state)
{
    (void) state;
    vkmoe_layer_desc a = vkmoe_layer_desc_init(), b;
    json_t *json = moe_layer_fields_write(&a);
    assert_int_equal(json_object_size(json), 0);
    json_decref(json);
    a.n_experts = 12;
    a.routed_scale = 0.1f;
    a.norm_eps = 1e-20f;
    a.score = VKMOE_SCORE_SQRT_SOFTPLUS;
    a.act = VKMOE_ACT_SITU;
    a.select = VKMOE_SELECT_THRESHOLD;
    a.gated = a.capacity_renorm = true;
    a.norm_p = 0; // init sets 1
    json = moe_layer_fields_write(&a);
    assert_int_equal(json_object_size(json), 9);
    char *text = json_dumps(json, 0);
    check_ok(vkmoe_layer_parse(text, &b));
    assert_memory_equal(&a, &b, sizeof a);
    free(text);
    json_decref(json);
    // Types are left out: they are the tensors'.
    a = vkmoe_layer_desc_init();
    a.in_type = a.out_type = a.latent_type = a.shared_in_type = a.shared_out_type = VKMOE_Q8_0;
    a.own_shared_types = true;
    json = moe_layer_fields_write(&a);
    assert_int_equal(json_object_size(json), 0);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_told),   cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_stop),   cmocka_unit_test(test_memory),
        cmocka_unit_test(test_runs),   cmocka_unit_test(test_gguf_name),
        cmocka_unit_test(test_fields),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
