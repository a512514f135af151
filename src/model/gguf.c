// SPDX-License-Identifier: MIT
// Reads the header of one GGUF file:
//     "GGUF", u32 version, u64 n_tensors, u64 n_values,
//     n_values times: text key, u32 type, value,
//     n_tensors times: text name, u32 n_dims, u64 dims[n_dims], u32 type, u64 offset.
// A text is a u64 size and its bytes. An array is a u32 type of its elements, their u64 number and
// the elements. The tensors' bytes begin at the next multiple of the alignment.
//
// Where the header ends is only known at its end, so that it is read on while it is parsed, and may
// move in memory: until then positions stand for pointers.
#include "model/gguf_part.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_READ = 1 << 16, // bytes; then as many as there are, at most MORE_READ
    MORE_READ = 8 << 20,
    MIN_ALIGN = 8,
    MAX_ALIGN = 1 << 20,
    // The least that one takes: a name or key of one byte, no dims, a value of one byte.
    MIN_TENSOR_SIZE = 8 + 1 + 4 + 4 + 8,
    MIN_VALUE_SIZE = 8 + 1 + 4 + 1,
    TEXT_PREFIX = 8,
};

struct cursor {
    struct moe_gguf_part *part;
    uint64_t file_size;
    uint64_t end;      // of what there is to read
    size_t at, n_read; // within part->header
    char what[160];    // is being read, for messages
};

__attribute__((format(printf, 3, 4)))
static enum vkmoe_status fail_at(const struct cursor *c, enum vkmoe_status status,
                                 const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return moe_fail(status, "%s: %s: %s", c->part->path, c->what, text);
}

// ---- bytes -----------------------------------------------------------------------------------

static const unsigned char *here(const struct cursor *c)
{
    return c->part->header + c->at;
}

// Reads on until there are `size` bytes from the file's first.
static enum vkmoe_status read_on(struct cursor *c, size_t size)
{
    enum vkmoe_status status;
    struct moe_gguf_part *part = c->part;
    unsigned char *header = NULL;
    uint64_t n = moe_max(FIRST_READ, size + moe_min(size, MORE_READ));
    n = moe_min(n, moe_min(c->end, MOE_GGUF_MAX_HEADER_SIZE));
    TRY(moe_try_alloc(part->host, (size_t) n, "header of a GGUF file", &header));
    TRY(moe_file_read_at(&part->file, c->n_read, (size_t) n - c->n_read, header + c->n_read));
    if (part->header)
        memcpy(header, part->header, c->n_read);
    moe_free(part->host, part->header);
    part->header = header;
    c->n_read = (size_t) n;
    return VKMOE_OK;

fail:
    moe_free(part->host, header);
    return status;
}

// The next n bytes are in the file, and in memory.
static enum vkmoe_status need(struct cursor *c, uint64_t n)
{
    if (n > c->end - c->at)
        return fail_at(c, VKMOE_E_DATA, "%llu bytes at byte %zu of %llu: truncated",
                       (unsigned long long) n, c->at, (unsigned long long) c->end);
    if (n > MOE_GGUF_MAX_HEADER_SIZE - c->at)
        return fail_at(c, VKMOE_E_DATA, "%llu bytes at byte %zu: a header has at most %d",
                       (unsigned long long) n, c->at, MOE_GGUF_MAX_HEADER_SIZE);
    return n > c->n_read - c->at ? read_on(c, c->at + (size_t) n) : VKMOE_OK;
}

static enum vkmoe_status take_number(struct cursor *c, uint32_t size, uint64_t *out)
{
    enum vkmoe_status status = need(c, size);
    if (status == VKMOE_OK) {
        *out = moe_gguf_number(here(c), size);
        c->at += size;
    }
    return status;
}

static enum vkmoe_status take_u32(struct cursor *c, uint32_t *out)
{
    uint64_t number = 0;
    enum vkmoe_status status = take_number(c, 4, &number);
    *out = (uint32_t) number;
    return status;
}

// How many of something follow: they take at least min_size bytes each.
static enum vkmoe_status check_count(const struct cursor *c, const char *things, uint64_t n,
                                     uint64_t min_size)
{
    uint64_t room = moe_min(c->end, MOE_GGUF_MAX_HEADER_SIZE) - c->at;
    if (n > room / min_size)
        return fail_at(c, VKMOE_E_DATA, "%llu %s of at least %llu bytes in the %llu that are left",
                       (unsigned long long) n, things, (unsigned long long) min_size,
                       (unsigned long long) room);
    return VKMOE_OK;
}

// ---- texts -----------------------------------------------------------------------------------

static enum vkmoe_status take_text(struct cursor *c, uint64_t max_size, uint64_t *size)
{
    enum vkmoe_status status;
    TRY(take_number(c, TEXT_PREFIX, size));
    if (*size > max_size)
        return fail_at(c, VKMOE_E_DATA, "a text of %llu bytes, at most %llu",
                       (unsigned long long) *size, (unsigned long long) max_size);
    TRY(need(c, *size));
    c->at += (size_t) *size;

fail:
    return status;
}

// The name of a `kind`, which then is what messages speak of; *at is where.
static enum vkmoe_status take_name(struct cursor *c, const char *kind, uint64_t max_size,
                                   size_t *at)
{
    uint64_t size = 0;
    *at = c->at;
    enum vkmoe_status status = take_text(c, max_size, &size);
    if (status != VKMOE_OK)
        return status;
    if (size == 0)
        return fail_at(c, VKMOE_E_DATA, "its name is empty");
    const unsigned char *text = here(c) - size;
    for (uint64_t i = 0; i < size; i++) {
        if (text[i] < ' ' || text[i] > '~')
            return fail_at(c, VKMOE_E_DATA, "byte %llu of its name is 0x%02x: only printable ASCII",
                           (unsigned long long) i, text[i]);
    }
    snprintf(c->what, sizeof c->what, "%s '%.*s'", kind, (int) moe_min(size, 128),
             (const char *) text);
    return VKMOE_OK;
}

// The header is ours: a text moves one byte back, over the end of its size, which was read before;
// so there is room for a zero behind it.
static const char *end_text(unsigned char *prefix, size_t size)
{
    char *text = (char *) prefix + TEXT_PREFIX - 1;
    memmove(text, text + 1, size);
    text[size] = '\0';
    return text;
}

// ---- values ----------------------------------------------------------------------------------

static enum vkmoe_status take_elements(struct cursor *c, struct moe_gguf_value *v)
{
    enum vkmoe_status status = VKMOE_OK;
    uint64_t size = moe_gguf_value_kind(v->type)->size;
    v->at = c->at;
    if (v->type == MOE_GGUF_STRING) {
        for (uint64_t i = 0; i < v->n; i++)
            TRY(take_text(c, MOE_GGUF_MAX_TEXT_SIZE, &size));
        c->part->n_texts += (size_t) v->n;
        return VKMOE_OK;
    }
    size *= v->n; // n was compared with the bytes that are left
    TRY(need(c, size));
    for (uint64_t i = 0; v->type == MOE_GGUF_BOOL && i < v->n; i++) {
        if (here(c)[i] > 1)
            return fail_at(c, VKMOE_E_DATA, "element %llu of %llu is %u, a bool is 0 or 1",
                           (unsigned long long) i, (unsigned long long) v->n, here(c)[i]);
    }
    c->at += (size_t) size;

fail:
    return status;
}

static enum vkmoe_status take_type(struct cursor *c, enum moe_gguf_value_type *out)
{
    uint32_t type = 0;
    enum vkmoe_status status = take_u32(c, &type);
    if (status == VKMOE_OK && !moe_gguf_value_kind(type))
        status = fail_at(c, VKMOE_E_DATA, "there is no type %u of values", type);
    *out = (enum moe_gguf_value_type) type;
    return status;
}

static enum vkmoe_status take_value(struct cursor *c, struct moe_gguf_value *v)
{
    enum vkmoe_status status;
    TRY(take_name(c, "key", MOE_GGUF_MAX_KEY_SIZE, &v->key_at));
    TRY(take_type(c, &v->type));
    v->is_array = v->type == MOE_GGUF_ARRAY;
    v->n = 1;
    if (v->is_array) {
        TRY(take_type(c, &v->type));
        if (v->type == MOE_GGUF_ARRAY)
            return fail_at(c, VKMOE_E_UNSUPPORTED, "an array of arrays");
        TRY(take_number(c, 8, &v->n));
        TRY(check_count(c, "elements", v->n, v->type == MOE_GGUF_STRING
                            ? TEXT_PREFIX : moe_gguf_value_kind(v->type)->size));
    }
    TRY(take_elements(c, v));

fail:
    return status;
}

static int by_key(const void *a, const void *b)
{
    const struct moe_gguf_value *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

// What positions stood for, now that the header stays where it is.
static enum vkmoe_status place_values(struct moe_gguf_part *part)
{
    enum vkmoe_status status;
    struct moe_gguf_text *text;
    TRY(moe_try_alloc(part->host, part->n_texts * sizeof *part->texts, "texts of a GGUF file",
                      &part->texts));
    TRY(moe_try_alloc(part->host, part->n_values * sizeof *part->by_key, "keys of a GGUF file",
                      &part->by_key));
    text = part->texts;
    for (size_t i = 0; i < part->n_values; i++) {
        struct moe_gguf_value *v = &part->values[i];
        unsigned char *key = part->header + v->key_at, *at = part->header + v->at;
        v->key = end_text(key, (size_t) moe_gguf_number(key, TEXT_PREFIX));
        v->data = at;
        part->by_key[i] = v;
        if (v->type != MOE_GGUF_STRING)
            continue;
        v->data = text;
        for (uint64_t j = 0; j < v->n; j++, text++) {
            text->size = (size_t) moe_gguf_number(at, TEXT_PREFIX);
            text->text = end_text(at, text->size);
            at += TEXT_PREFIX + text->size;
        }
    }
    qsort(part->by_key, part->n_values, sizeof *part->by_key, by_key);
    for (size_t i = 1; i < part->n_values; i++) {
        if (strcmp(part->by_key[i]->key, part->by_key[i - 1]->key) == 0)
            return moe_fail(VKMOE_E_DATA, "%s: key '%.128s' is there twice", part->path,
                            part->by_key[i]->key);
    }

fail:
    return status;
}

const struct moe_gguf_value *moe_gguf_part_value(const struct moe_gguf_part *part,
                                                 const char *key)
{
    const struct moe_gguf_value value = {.key = key}, *wanted = &value;
    const struct moe_gguf_value **found =
        bsearch(&wanted, part->by_key, part->n_values, sizeof wanted, by_key);
    return found ? *found : NULL;
}

static enum vkmoe_status read_alignment(struct moe_gguf_part *part)
{
    const struct moe_gguf_value *v = moe_gguf_part_value(part, MOE_GGUF_ALIGNMENT);
    part->alignment = MOE_GGUF_ALIGN;
    if (!v)
        return VKMOE_OK;
    if (v->is_array || v->type != MOE_GGUF_U32)
        return moe_fail(VKMOE_E_DATA, "%s: key '%s' is %s %s, not a single u32", part->path, v->key,
                        v->is_array ? "an array of" : "a single",
                        moe_gguf_value_kind(v->type)->name);
    uint32_t align = (uint32_t) moe_gguf_number(v->data, 4);
    if (align < MIN_ALIGN || align > MAX_ALIGN || (align & (align - 1)) != 0)
        return moe_fail(VKMOE_E_DATA, "%s: key '%s' says %u, no power of two from %d to %d",
                        part->path, v->key, align, MIN_ALIGN, MAX_ALIGN);
    part->alignment = align;
    return VKMOE_OK;
}

// ---- tensors ---------------------------------------------------------------------------------

static enum vkmoe_status find_type(const struct cursor *c, struct moe_gguf_tensor *t)
{
    t->type = moe_gguf_type_of(t->type_id);
    if (!t->type)
        return fail_at(c, VKMOE_E_DATA, "there is no type %u of tensors", t->type_id);
    if (t->type->kind == MOE_GGUF_REMOVED)
        return fail_at(c, VKMOE_E_DATA, "type %u, %s, was removed from the format", t->type_id,
                       t->type->name);
    return VKMOE_OK;
}

static enum vkmoe_status take_tensor(struct cursor *c, struct moe_gguf_tensor *t)
{
    enum vkmoe_status status;
    char text[192];
    TRY(take_name(c, "tensor", MOE_GGUF_MAX_NAME_SIZE, &t->at));
    TRY(take_u32(c, &t->n_dims));
    if (t->n_dims > MOE_GGUF_MAX_DIMS)
        return fail_at(c, VKMOE_E_DATA, "%u dimensions, at most %d", t->n_dims, MOE_GGUF_MAX_DIMS);
    for (uint32_t i = 0; i < t->n_dims; i++)
        TRY(take_number(c, 8, &t->dims[i]));
    TRY(take_u32(c, &t->type_id));
    TRY(take_number(c, 8, &t->offset));
    TRY(find_type(c, t));
    uint64_t row = t->n_dims ? t->dims[0] : 1;
    if (row % t->type->block_elements != 0)
        return fail_at(c, VKMOE_E_DATA, "rows of %llu elements, a block of %s has %u",
                       (unsigned long long) row, t->type->name, t->type->block_elements);
    if (!moe_gguf_measure(t))
        return fail_at(c, VKMOE_E_DATA, "impossible size of %s", moe_gguf_describe(t, text));

fail:
    return status;
}

static int by_offset(const void *a, const void *b)
{
    const struct moe_gguf_tensor *x = *(struct moe_gguf_tensor *const *) a;
    const struct moe_gguf_tensor *y = *(struct moe_gguf_tensor *const *) b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return (x->size > y->size) - (x->size < y->size);
}

static enum vkmoe_status check_bounds(const struct moe_gguf_part *part,
                                      const struct moe_gguf_tensor *t, uint64_t data_size)
{
    char text[192];
    if (t->offset % part->alignment != 0)
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s' begins at %llu, no multiple of %u",
                        part->path, t->name, (unsigned long long) t->offset, part->alignment);
    if (t->offset > data_size || t->size > data_size - t->offset)
        return moe_fail(VKMOE_E_DATA,
                        "%s: tensor '%s': %s takes %llu bytes from %llu, there are %llu of data",
                        part->path, t->name, moe_gguf_describe(t, text),
                        (unsigned long long) t->size, (unsigned long long) t->offset,
                        (unsigned long long) data_size);
    return VKMOE_OK;
}

// Each lies in the data part, and none in another.
static enum vkmoe_status check_places(const struct moe_gguf_part *part, uint64_t data_size)
{
    enum vkmoe_status status;
    struct moe_gguf_tensor **list = NULL;
    TRY(moe_try_alloc(part->host, part->n_tensors * sizeof *list, "list of tensors", &list));
    for (size_t i = 0; i < part->n_tensors; i++) {
        list[i] = &part->tensors[i];
        TRY(check_bounds(part, list[i], data_size));
    }
    qsort(list, part->n_tensors, sizeof *list, by_offset);
    for (size_t i = 1; i < part->n_tensors; i++) {
        const struct moe_gguf_tensor *t = list[i], *before = list[i - 1];
        if (t->offset < before->offset + before->size) {
            status = moe_fail(VKMOE_E_DATA,
                              "%s: tensor '%s' begins at %llu, inside '%s' that ends at %llu",
                              part->path, t->name, (unsigned long long) t->offset, before->name,
                              (unsigned long long) (before->offset + before->size));
            goto fail;
        }
    }

fail:
    moe_free(part->host, list);
    return status;
}

// ---- header ----------------------------------------------------------------------------------

static enum vkmoe_status check_version(const struct cursor *c, uint32_t version)
{
    if (version != 0 && (version & 0xffff) == 0)
        return fail_at(c, VKMOE_E_UNSUPPORTED, "big endian (version 0x%08x)", version);
    if (version != 2 && version != 3)
        return fail_at(c, VKMOE_E_UNSUPPORTED, "version %u, only 2 and 3 are read", version);
    return VKMOE_OK;
}

static enum vkmoe_status take_values(struct cursor *c, uint64_t n)
{
    enum vkmoe_status status;
    struct moe_gguf_part *part = c->part;
    TRY(check_count(c, "keys", n, MIN_VALUE_SIZE));
    TRY(moe_try_alloc(part->host, (size_t) n * sizeof *part->values, "values of a GGUF file",
                      &part->values));
    for (; part->n_values < n; part->n_values++) {
        snprintf(c->what, sizeof c->what, "key %zu of %llu", part->n_values,
                 (unsigned long long) n);
        TRY(take_value(c, &part->values[part->n_values]));
    }

fail:
    return status;
}

static enum vkmoe_status take_tensors(struct cursor *c, uint64_t n)
{
    enum vkmoe_status status;
    struct moe_gguf_part *part = c->part;
    snprintf(c->what, sizeof c->what, "header");
    TRY(check_count(c, "tensors", n, MIN_TENSOR_SIZE));
    TRY(moe_try_alloc(part->host, (size_t) n * sizeof *part->tensors, "tensors of a GGUF file",
                      &part->tensors));
    for (; part->n_tensors < n; part->n_tensors++) {
        snprintf(c->what, sizeof c->what, "tensor %zu of %llu", part->n_tensors,
                 (unsigned long long) n);
        TRY(take_tensor(c, &part->tensors[part->n_tensors]));
    }

fail:
    return status;
}

static enum vkmoe_status take_header(struct cursor *c)
{
    enum vkmoe_status status;
    struct moe_gguf_part *part = c->part;
    uint64_t n_tensors = 0, n_values = 0, data_size;
    uint32_t magic = 0, version = 0;
    TRY(take_u32(c, &magic));
    if (magic != 0x46554747)
        return fail_at(c, VKMOE_E_DATA, "not a GGUF file");
    TRY(take_u32(c, &version));
    TRY(check_version(c, version));
    TRY(take_number(c, 8, &n_tensors));
    TRY(take_number(c, 8, &n_values));
    TRY(take_values(c, n_values));
    TRY(take_tensors(c, n_tensors));
    TRY(place_values(part));
    for (size_t i = 0; i < part->n_tensors; i++) {
        unsigned char *name = part->header + part->tensors[i].at;
        part->tensors[i].name = end_text(name, (size_t) moe_gguf_number(name, TEXT_PREFIX));
    }
    TRY(read_alignment(part));
    part->data_start = moe_align_up(c->at, part->alignment);
    data_size = c->file_size > part->data_start ? c->file_size - part->data_start : 0;
    TRY(check_places(part, data_size));

fail:
    return status;
}

enum vkmoe_status moe_gguf_part_open(const vkmoe_host *host, const char *path,
                                     struct moe_gguf_part *out)
{
    enum vkmoe_status status;
    struct moe_gguf_part part = {.host = host};
    struct cursor c = {.part = &part, .what = "header"};
    *out = (struct moe_gguf_part){0};
    TRY(moe_file_open(host, path, &part.file));
    part.path = part.file.path;
    c.file_size = c.end = part.file.size;
    TRY(take_header(&c));
    *out = part;
    return VKMOE_OK;

fail:
    moe_gguf_part_close(&part);
    return status;
}

enum vkmoe_status moe_gguf_part_parse(const vkmoe_host *host, const char *path,
                                      unsigned char *header, size_t header_size,
                                      uint64_t file_size, struct moe_gguf_part *out)
{
    struct moe_gguf_part part = {.host = host, .path = path, .header = header};
    struct cursor c = {.part = &part, .file_size = file_size, .end = header_size,
                       .n_read = header_size, .what = "header"};
    *out = (struct moe_gguf_part){0};
    enum vkmoe_status status = take_header(&c);
    if (status == VKMOE_OK)
        *out = part;
    else
        moe_gguf_part_close(&part);
    return status;
}

void moe_gguf_part_close(struct moe_gguf_part *part)
{
    if (!part->host)
        return;
    moe_free(part->host, part->tensors);
    moe_free(part->host, part->texts);
    moe_free(part->host, part->by_key);
    moe_free(part->host, part->values);
    moe_free(part->host, part->header);
    moe_file_close(&part->file);
    *part = (struct moe_gguf_part){0};
}
