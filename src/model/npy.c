// SPDX-License-Identifier: MIT
#include "model/npy.h"

#include "base/bits.h"
#include "base/status.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum {
    MAX_HEADER_SIZE = 4096,
    WRITTEN_HEADER_SIZE = 128, // has room for any shape, so that it can be rewritten at the end
};

static const struct element {
    const char *descr;
    uint32_t size;
    bool is_integer;
} elements[] = {
    {"<f4", 4, false},
    {"<f8", 8, false},
    {"<i4", 4, true},
    {"<i8", 8, true},
};

// ---- the header: a Python dict of three known keys -------------------------------------------

struct cursor {
    const char *at;
};

static void skip_spaces(struct cursor *c)
{
    while (*c->at == ' ' || *c->at == '\n')
        c->at++;
}

static bool take(struct cursor *c, const char *text)
{
    skip_spaces(c);
    size_t n = strlen(text);
    if (strncmp(c->at, text, n) != 0)
        return false;
    c->at += n;
    return true;
}

// A quoted text without escapes.
static bool take_text(struct cursor *c, char *out, size_t size)
{
    skip_spaces(c);
    char quote = *c->at;
    if (quote != '\'' && quote != '"')
        return false;
    const char *end = strchr(c->at + 1, quote);
    if (!end || (size_t) (end - c->at) > size)
        return false;
    size_t n = (size_t) (end - c->at) - 1;
    memcpy(out, c->at + 1, n);
    out[n] = '\0';
    c->at = end + 1;
    return true;
}

static bool take_shape(struct cursor *c, struct moe_npy *out)
{
    if (!take(c, "("))
        return false;
    while (!take(c, ")")) {
        skip_spaces(c);
        if (*c->at < '0' || *c->at > '9' || out->n_dims == MOE_NPY_MAX_DIMS)
            return false;
        char *end;
        errno = 0;
        out->dims[out->n_dims++] = strtoull(c->at, &end, 10);
        if (errno)
            return false;
        c->at = end;
        if (!take(c, ",")) {
            skip_spaces(c);
            if (*c->at != ')')
                return false;
        }
    }
    return true;
}

static enum vkmoe_status set_element(struct moe_npy *npy, const char *descr)
{
    for (size_t i = 0; i < MOE_COUNT(elements); i++) {
        if (strcmp(elements[i].descr, descr) == 0) {
            npy->element_size = elements[i].size;
            npy->is_integer = elements[i].is_integer;
            return VKMOE_OK;
        }
    }
    return moe_fail(VKMOE_E_DATA, "%s: element type '%s': only <f4, <f8, <i4 and <i8 are read",
                    npy->path, descr);
}

// `text` has a zero byte behind it, and none inside if all of it is to be understood.
static enum vkmoe_status parse_header(struct moe_npy *npy, const char *text, size_t size)
{
    struct cursor c = {text};
    char key[32], descr[32], order[32] = "";
    bool has_descr = false, has_shape = false, good = take(&c, "{");
    while (good && !take(&c, "}")) {
        good = take_text(&c, key, sizeof key) && take(&c, ":");
        if (good && strcmp(key, "descr") == 0 && !has_descr) {
            good = has_descr = take_text(&c, descr, sizeof descr);
        } else if (good && strcmp(key, "fortran_order") == 0 && !*order) {
            strcpy(order, take(&c, "False") ? "C" : "Fortran");
            good = *order == 'C' || take(&c, "True");
        } else if (good && strcmp(key, "shape") == 0 && !has_shape) {
            good = has_shape = take_shape(&c, npy);
        } else {
            good = false;
        }
        skip_spaces(&c);
        good = good && (take(&c, ",") || *c.at == '}');
    }
    skip_spaces(&c);
    if (!good || c.at != text + size || !has_descr || !*order || !has_shape)
        return moe_fail(VKMOE_E_DATA, "%s: the NPY header is not one of a plain array", npy->path);
    if (*order != 'C')
        return moe_fail(VKMOE_E_DATA, "%s: Fortran order; save it with C order", npy->path);
    return set_element(npy, descr);
}

// ---- reading ---------------------------------------------------------------------------------

static enum vkmoe_status read_bytes(struct moe_npy *npy, void *out, size_t size)
{
    if (fread(out, 1, size, npy->file) == size)
        return VKMOE_OK;
    if (ferror(npy->file))
        return moe_fail(VKMOE_E_IO, "%s: cannot read: %s", npy->path, strerror(errno));
    return moe_fail(VKMOE_E_DATA, "%s: the file ends too early", npy->path);
}

static enum vkmoe_status read_header(struct moe_npy *npy, uint64_t *data_start)
{
    enum vkmoe_status status;
    unsigned char prefix[12];
    if ((status = read_bytes(npy, prefix, 8)) != VKMOE_OK)
        return status;
    if (memcmp(prefix, "\x93NUMPY", 6) != 0)
        return moe_fail(VKMOE_E_DATA, "%s: not an NPY file", npy->path);
    unsigned version = prefix[6];
    if (version != 1 && version != 2)
        return moe_fail(VKMOE_E_DATA, "%s: NPY version %u: only 1 and 2 are read", npy->path,
                        version);
    unsigned n_size = version == 1 ? 2 : 4;
    if ((status = read_bytes(npy, prefix + 8, n_size)) != VKMOE_OK)
        return status;
    uint32_t size = 0;
    for (unsigned i = n_size; i > 0; i--)
        size = size << 8 | prefix[8 + i - 1];
    char text[MAX_HEADER_SIZE + 1];
    if (size > MAX_HEADER_SIZE)
        return moe_fail(VKMOE_E_DATA, "%s: NPY header of %u bytes, at most %d", npy->path, size,
                        MAX_HEADER_SIZE);
    if ((status = read_bytes(npy, text, size)) != VKMOE_OK)
        return status;
    text[size] = '\0';
    *data_start = 8 + n_size + size;
    return parse_header(npy, text, size);
}

static enum vkmoe_status check_size(const struct moe_npy *npy, uint64_t data_start)
{
    struct stat info;
    if (fstat(fileno(npy->file), &info) != 0)
        return moe_fail(VKMOE_E_IO, "%s: cannot read its size: %s", npy->path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return moe_fail(VKMOE_E_IO, "%s: not a regular file", npy->path);
    uint64_t size = npy->element_size;
    for (uint32_t i = 0; i < npy->n_dims; i++) {
        if (!moe_mul(size, npy->dims[i], &size))
            return moe_fail(VKMOE_E_DATA, "%s: impossible shape", npy->path);
    }
    uint64_t there = (uint64_t) info.st_size - data_start;
    if (size != there)
        return moe_fail(VKMOE_E_DATA, "%s: the shape takes %llu bytes, the file has %llu",
                        npy->path, (unsigned long long) size, (unsigned long long) there);
    return VKMOE_OK;
}

enum vkmoe_status moe_npy_open(const char *path, struct moe_npy *out)
{
    enum vkmoe_status status;
    struct moe_npy npy = {.path = path};
    uint64_t data_start = 0;
    *out = (struct moe_npy){0};
    npy.file = fopen(path, "rbe");
    if (!npy.file)
        return moe_fail(VKMOE_E_IO, "%s: cannot open: %s", path, strerror(errno));
    TRY(read_header(&npy, &data_start));
    TRY(check_size(&npy, data_start));
    *out = npy;
    return VKMOE_OK;

fail:
    moe_npy_close(&npy);
    return status;
}

void moe_npy_close(struct moe_npy *npy)
{
    if (npy->file)
        fclose(npy->file);
    *npy = (struct moe_npy){0};
}

static float convert(const struct moe_npy *npy, const unsigned char *at)
{
    double f8;
    int64_t i8;
    int32_t i4;
    if (npy->element_size == 4) {
        memcpy(&i4, at, sizeof i4);
        return (float) i4;
    }
    if (npy->is_integer) {
        memcpy(&i8, at, sizeof i8);
        return (float) i8;
    }
    memcpy(&f8, at, sizeof f8);
    return (float) f8;
}

enum vkmoe_status moe_npy_read(struct moe_npy *npy, size_t n, float *out)
{
    if (npy->element_size == 4 && !npy->is_integer)
        return read_bytes(npy, out, n * sizeof *out);
    unsigned char chunk[4096];
    const size_t room = sizeof chunk / npy->element_size;
    while (n > 0) {
        size_t part = (size_t) moe_min(n, room);
        enum vkmoe_status status = read_bytes(npy, chunk, part * npy->element_size);
        if (status != VKMOE_OK)
            return status;
        for (size_t i = 0; i < part; i++)
            out[i] = convert(npy, chunk + i * npy->element_size);
        out += part;
        n -= part;
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_npy_read_i32(struct moe_npy *npy, uint64_t first, size_t n, int32_t *out)
{
    if (!npy->is_integer)
        return moe_fail(VKMOE_E_DATA, "%s: not whole numbers, which are <i4 or <i8", npy->path);
    if (npy->element_size == 4)
        return read_bytes(npy, out, n * sizeof *out);
    int64_t chunk[512];
    for (size_t at = 0; at < n;) {
        size_t part = (size_t) moe_min(n - at, MOE_COUNT(chunk));
        enum vkmoe_status status = read_bytes(npy, chunk, part * sizeof *chunk);
        if (status != VKMOE_OK)
            return status;
        for (size_t i = 0; i < part; i++, at++) {
            if (chunk[i] < INT32_MIN || chunk[i] > INT32_MAX)
                return moe_fail(VKMOE_E_DATA, "%s: number %llu: %lld does not fit 32 bits",
                                npy->path, (unsigned long long) (first + at),
                                (long long) chunk[i]);
            out[at] = (int32_t) chunk[i];
        }
    }
    return VKMOE_OK;
}

// ---- writing ---------------------------------------------------------------------------------

static void make_header(const struct moe_npy_writer *writer, char header[WRITTEN_HEADER_SIZE])
{
    const size_t prefix = 10;
    char text[WRITTEN_HEADER_SIZE];
    int n = snprintf(text, sizeof text,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%llu, %llu), }",
                     writer->is_integer ? "<i4" : "<f4", (unsigned long long) writer->n_rows,
                     (unsigned long long) writer->n_columns);
    memset(header, ' ', WRITTEN_HEADER_SIZE);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = (char) (WRITTEN_HEADER_SIZE - prefix);
    header[9] = 0;
    memcpy(header + prefix, text, (size_t) n);
    header[WRITTEN_HEADER_SIZE - 1] = '\n';
}

enum vkmoe_status moe_npy_create(const vkmoe_host *host, const char *path, bool is_integer,
                                 uint64_t n_columns, struct moe_npy_writer *out)
{
    enum vkmoe_status status;
    char header[WRITTEN_HEADER_SIZE];
    *out = (struct moe_npy_writer){.is_integer = is_integer, .n_columns = n_columns};
    TRY(moe_file_create(host, path, &out->file));
    make_header(out, header);
    TRY(moe_file_write(out->file, header, sizeof header));
    return VKMOE_OK;

fail:
    moe_npy_discard(out);
    return status;
}

enum vkmoe_status moe_npy_append(struct moe_npy_writer *writer, const void *data, uint64_t n_rows)
{
    enum vkmoe_status status =
        moe_file_write(writer->file, data, (size_t) (n_rows * writer->n_columns * 4));
    if (status == VKMOE_OK)
        writer->n_rows += n_rows;
    return status;
}

enum vkmoe_status moe_npy_commit(struct moe_npy_writer *writer)
{
    char header[WRITTEN_HEADER_SIZE];
    make_header(writer, header);
    enum vkmoe_status status = moe_file_rewrite(writer->file, 0, header, sizeof header);
    if (status == VKMOE_OK) {
        status = moe_file_commit(writer->file);
        writer->file = NULL;
    }
    moe_npy_discard(writer);
    return status;
}

void moe_npy_discard(struct moe_npy_writer *writer)
{
    moe_file_discard(writer->file);
    writer->file = NULL;
}
