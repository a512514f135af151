// SPDX-License-Identifier: MIT
#include "saved.h"

#include "check.h"
#include "scratch.h"

#include "base/host.h"
#include "model/npy.h"
#include "model/safetensors.h"

#include <signal.h>
#include <sys/wait.h>

// Each number is its content's own.
static const uint64_t n_numbers[2] = {700, 70000};
static float numbers[2][70000];

static enum vkmoe_status save_safetensors(const char *path, int content)
{
    const struct moe_st_source tensor = {
        "a", "F32", 1, {n_numbers[content]}, numbers[content]};
    return moe_safetensors_write(moe_host_default(), path, &tensor, 1, NULL);
}

static uint64_t load_safetensors(const char *path, float *out)
{
    struct moe_safetensors file;
    check_ok(moe_safetensors_open(moe_host_default(), path, &file));
    assert_int_equal(file.n_tensors, 1);
    uint64_t n = file.tensors[0].n_elements;
    assert_true(n <= n_numbers[1]);
    check_ok(moe_safetensors_read_f32(&file, &file.tensors[0], 0, (size_t) n, out));
    moe_safetensors_close(&file);
    return n;
}

static enum vkmoe_status save_npy(const char *path, int content)
{
    struct moe_npy_writer writer;
    enum vkmoe_status status = moe_npy_create(moe_host_default(), path, false, 1, &writer);
    for (uint64_t row = 0; status == VKMOE_OK && row < n_numbers[content]; row += n_numbers[0])
        status = moe_npy_append(&writer, numbers[content] + row, n_numbers[0]);
    if (status == VKMOE_OK)
        return moe_npy_commit(&writer);
    moe_npy_discard(&writer);
    return status;
}

static uint64_t load_npy(const char *path, float *out)
{
    struct moe_npy npy;
    check_ok(moe_npy_open(path, &npy));
    uint64_t n = npy.dims[0] * npy.dims[1];
    assert_true(n <= n_numbers[1]);
    check_ok(moe_npy_read(&npy, n, out));
    moe_npy_close(&npy);
    return n;
}

const struct saved_format saved_formats[SAVED_N_FORMATS] = {
    {"x.safetensors", save_safetensors, load_safetensors},
    {"x.npy", save_npy, load_npy},
};

int saved_content(const struct saved_format *format)
{
    static float got[70000];
    uint64_t n = format->load(scratch_path(format->name), got);
    int content = n == n_numbers[1];
    assert_int_equal(n, n_numbers[content]);
    assert_memory_equal(got, numbers[content], n * sizeof *got);
    return content;
}

void saved_here(const struct saved_format *format, int content)
{
    check_ok(format->save(scratch_path(format->name), content));
    assert_int_equal(saved_content(format), content);
    assert_int_equal(scratch_count(), 1);
}

int saved_setup(void **state)
{
    for (size_t content = 0; content < 2; content++)
        for (size_t i = 0; i < n_numbers[content]; i++)
            numbers[content][i] = (float) (i * 2 + content);
    return scratch_setup(state);
}

void saved_kill(pid_t child)
{
    int status;
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
}
