// SPDX-License-Identifier: MIT
// Data sets: one function table a file format, one object for callers.
#include <vkmoe/model.h>

#include "base/bits.h"
#include "base/desc.h"
#include "base/file.h"
#include "base/host.h"
#include "base/status.h"
#include "model/csv.h"
#include "model/npy.h"
#include "model/safetensors.h"
#include "model/tsv.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct class_name {
    const char *name;
    int32_t index;
};

struct format;

struct vkmoe_dataset {
    vkmoe_host host;
    char *path;
    const struct format *format;
    enum vkmoe_targets targets;
    vkmoe_dataset_info info;
    uint64_t row;               // next one; not for CSV
    struct class_name *classes; // sorted by name
    char *class_text;           // what the names point into
    uint32_t n_classes;

    struct moe_csv csv;
    struct moe_tsv tsv;
    char *text;     // the texts of a batch behind each other
    size_t text_room;
    size_t *texts;  // where each one begins
    size_t texts_room;
    struct moe_npy x, y;
    char *y_path;
    struct moe_safetensors file;
};

struct format {
    const char *suffix;
    enum vkmoe_status (*open)(vkmoe_dataset *d, const vkmoe_dataset_desc *desc);
    // n <= rows left, unless the number of rows is not known. NULL: texts.
    enum vkmoe_status (*read)(vkmoe_dataset *d, uint32_t *n, float *x, int32_t *labels,
                              float *values);
};

// ---- classes ---------------------------------------------------------------------------------

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct class_name *) a)->name, ((const struct class_name *) b)->name);
}

static enum vkmoe_status copy_classes(vkmoe_dataset *d, const vkmoe_dataset_desc *desc)
{
    enum vkmoe_status status;
    size_t size = 0;
    if (desc->n_classes == 0 || !desc->classes)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_dataset_desc: labels need classes");
    for (uint32_t i = 0; i < desc->n_classes; i++)
        size += strlen(desc->classes[i]) + 1;
    TRY(moe_try_alloc(&d->host, desc->n_classes * sizeof *d->classes, "classes", &d->classes));
    TRY(moe_try_alloc(&d->host, size, "classes", &d->class_text));
    char *at = d->class_text;
    for (uint32_t i = 0; i < desc->n_classes; i++) {
        d->classes[i] = (struct class_name){at, (int32_t) i};
        at = stpcpy(at, desc->classes[i]) + 1;
    }
    d->n_classes = desc->n_classes;
    qsort(d->classes, d->n_classes, sizeof *d->classes, by_name);

fail:
    return status;
}

// ---- CSV -------------------------------------------------------------------------------------

// Columns of targets that are not wanted: none, when all columns are needed as features, else those
// asked for, else the last ones.
static enum vkmoe_status ignore_targets(const vkmoe_dataset *d, const vkmoe_dataset_desc *desc,
                                        char out[MOE_CSV_MAX_TARGETS * 12])
{
    struct moe_csv csv;
    enum vkmoe_status status = moe_csv_open(&d->host, d->path, "", &csv);
    const uint32_t n_columns = csv.n_columns, n_features = desc->n_features;
    moe_csv_close(&csv);
    if (status != VKMOE_OK)
        return status;
    *out = '\0';
    if (n_columns == n_features)
        return VKMOE_OK;
    const uint32_t n_targets = (uint32_t) moe_max(desc->n_targets, 1);
    if (n_targets > MOE_CSV_MAX_TARGETS || n_columns != n_features + n_targets)
        return moe_fail(VKMOE_E_SHAPE, "%s: %u columns, needs %u features, or these and %u targets",
                        d->path, n_columns, n_features, n_targets);
    for (uint32_t i = 0; i < n_targets; i++)
        out += sprintf(out, "%s%u", i ? "," : "", n_features + i + 1);
    return VKMOE_OK;
}

static enum vkmoe_status open_csv(vkmoe_dataset *d, const vkmoe_dataset_desc *desc)
{
    enum vkmoe_status status;
    char ignored[MOE_CSV_MAX_TARGETS * 12];
    const char *target = d->targets == VKMOE_TARGETS_NONE ? "" : desc->target;
    if (d->targets == VKMOE_TARGETS_IGNORE) {
        TRY(ignore_targets(d, desc, ignored));
        if (!*ignored || !target)
            target = ignored;
    }
    TRY(moe_csv_open(&d->host, d->path, target, &d->csv));
    d->info.n_features = moe_csv_n_features(&d->csv);
    d->info.n_targets = d->csv.n_targets;

fail:
    return status;
}

// `where` is the place in the file, for the message.
static enum vkmoe_status find_class(const vkmoe_dataset *d, const char *name, const char *where,
                                    int32_t *out)
{
    const struct class_name key = {.name = name};
    const struct class_name *found =
        bsearch(&key, d->classes, d->n_classes, sizeof key, by_name);
    if (!found)
        return moe_fail(VKMOE_E_DATA, "%s: %s: '%.40s' is none of %u classes", d->path, where, name,
                        d->n_classes);
    *out = found->index;
    return VKMOE_OK;
}

static enum vkmoe_status read_label(const vkmoe_dataset *d, int32_t *out)
{
    char where[64];
    snprintf(where, sizeof where, "line %llu, column %u", (unsigned long long) d->csv.lines.line,
             d->csv.targets[0] + 1);
    return find_class(d, moe_csv_target(&d->csv, 0), where, out);
}

static enum vkmoe_status read_csv(vkmoe_dataset *d, uint32_t *n, float *x, int32_t *labels,
                                  float *values)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t room = *n;
    for (*n = 0; *n < room; (*n)++) {
        bool more;
        TRY(moe_csv_next(&d->csv, &more));
        if (!more)
            break;
        TRY(moe_csv_features(&d->csv, x + (size_t) *n * d->info.n_features));
        if (labels)
            TRY(read_label(d, &labels[*n]));
        for (uint32_t i = 0; values && i < d->info.n_targets; i++)
            TRY(moe_csv_target_number(&d->csv, i, &values[(size_t) *n * d->info.n_targets + i]));
    }

fail:
    return status;
}

// ---- TSV -------------------------------------------------------------------------------------

static enum vkmoe_status open_tsv(vkmoe_dataset *d, const vkmoe_dataset_desc *desc)
{
    static const enum moe_tsv_label labels[] = {
        [VKMOE_TARGETS_NONE] = MOE_TSV_NONE,    [VKMOE_TARGETS_LABELS] = MOE_TSV_LABEL,
        [VKMOE_TARGETS_VALUES] = MOE_TSV_LABEL, [VKMOE_TARGETS_IGNORE] = MOE_TSV_DECIDE,
    };
    (void) desc;
    enum vkmoe_status status = moe_tsv_open(&d->host, d->path, labels[d->targets], &d->tsv);
    d->info.is_text = true;
    d->info.n_targets = d->tsv.has_label ? 1 : 0;
    return status;
}

// Puts the text at hand behind the others, which end at `used`.
static enum vkmoe_status keep_text(vkmoe_dataset *d, uint32_t i, size_t *used)
{
    enum vkmoe_status status;
    const size_t size = strlen(d->tsv.text) + 1;
    if (i == d->texts_room) {
        size_t room = i ? 2 * (size_t) i : 64;
        TRY(moe_lines_grow(&d->tsv.lines, &d->texts, i, room, sizeof *d->texts));
        d->texts_room = room;
    }
    if (*used + size > d->text_room) {
        size_t room = (size_t) moe_max(*used + size, 2 * d->text_room);
        TRY(moe_lines_grow(&d->tsv.lines, &d->text, *used, room, 1));
        d->text_room = room;
    }
    memcpy(d->text + *used, d->tsv.text, size);
    d->texts[i] = *used;
    *used += size;
    return VKMOE_OK;

fail:
    return status;
}

static enum vkmoe_status read_tsv_target(const vkmoe_dataset *d, int32_t *label, float *value)
{
    char where[48];
    snprintf(where, sizeof where, "line %llu", (unsigned long long) d->tsv.lines.line);
    if (label)
        return find_class(d, d->tsv.label, where, label);
    const char *wrong = moe_lines_number(&d->tsv.lines, d->tsv.label, value);
    return wrong ? moe_fail(VKMOE_E_DATA, "%s: %s: '%.40s' %s", d->path, where, d->tsv.label, wrong)
                 : VKMOE_OK;
}

static enum vkmoe_status read_tsv(vkmoe_dataset *d, uint32_t *n, const char **texts,
                                  int32_t *labels, float *values)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t room = *n;
    size_t used = 0;
    for (*n = 0; *n < room; (*n)++) {
        bool more;
        TRY(moe_tsv_next(&d->tsv, &more));
        if (!more)
            break;
        if (labels || values)
            TRY(read_tsv_target(d, labels ? &labels[*n] : NULL, values ? &values[*n] : NULL));
        TRY(keep_text(d, *n, &used));
    }
    for (uint32_t i = 0; i < *n; i++)
        texts[i] = d->text + d->texts[i];

fail:
    return status;
}

// ---- NPY -------------------------------------------------------------------------------------

// The path of the targets: X.npy -> Y.npy, X_test.npy -> Y_test.npy or y_test.npy.
static enum vkmoe_status find_targets(vkmoe_dataset *d)
{
    size_t size = strlen(d->path) + 1;
    enum vkmoe_status status = moe_try_alloc(&d->host, size, "path", &d->y_path);
    if (status != VKMOE_OK)
        return status;
    memcpy(d->y_path, d->path, size);
    char *slash = strrchr(d->y_path, '/');
    char *letter = slash ? slash + 1 : d->y_path;
    if (*letter != 'X' && *letter != 'x')
        return moe_fail(VKMOE_E_DATA,
                        "%s: its targets are looked for in Y... beside X..., but this name begins "
                        "with '%c'",
                        d->path, *letter);
    char same_case = *letter == 'X' ? 'Y' : 'y';
    *letter = same_case;
    if (access(d->y_path, F_OK) != 0) {
        *letter = 'y';
        if (access(d->y_path, F_OK) != 0)
            *letter = same_case;
    }
    return VKMOE_OK;
}

static enum vkmoe_status open_y(vkmoe_dataset *d)
{
    enum vkmoe_status status;
    TRY(find_targets(d));
    TRY(moe_npy_open(d->y_path, &d->y));
    if (d->y.n_dims < 1 || d->y.n_dims > 2 || d->y.dims[0] != d->info.n_rows)
        return moe_fail(VKMOE_E_SHAPE, "%s: %u dimensions, %llu rows; %s has %llu rows", d->y_path,
                        d->y.n_dims, (unsigned long long) d->y.dims[0], d->path,
                        (unsigned long long) d->info.n_rows);
    uint64_t n_columns = d->y.n_dims == 2 ? d->y.dims[1] : 1;
    if (n_columns > UINT32_MAX)
        return moe_fail(VKMOE_E_SHAPE, "%s: %llu columns", d->y_path,
                        (unsigned long long) n_columns);
    if (d->targets == VKMOE_TARGETS_LABELS && !d->y.is_integer)
        return moe_fail(VKMOE_E_DATA, "%s: labels must be integers, <i4 or <i8", d->y_path);
    d->info.n_targets = (uint32_t) n_columns;

fail:
    return status;
}

static enum vkmoe_status open_npy(vkmoe_dataset *d, const vkmoe_dataset_desc *desc)
{
    enum vkmoe_status status;
    TRY(moe_npy_open(d->path, &d->x));
    const uint64_t *dims = d->x.dims;
    const bool sequences = d->x.n_dims == 3;
    if ((d->x.n_dims != 2 && !sequences) || dims[1] > UINT32_MAX ||
        (sequences && (dims[1] == 0 || dims[2] > UINT32_MAX)))
        return moe_fail(VKMOE_E_SHAPE,
                        "%s: %u dimensions, not (rows, features) or (sequences, steps, features)",
                        d->path, d->x.n_dims);
    if (sequences && !desc->sequences)
        return moe_fail(VKMOE_E_SHAPE, "%s: sequences (3 dimensions), needs (rows, features)",
                        d->path);
    d->info.n_rows = dims[0];
    d->info.n_steps = sequences ? (uint32_t) dims[1] : 0;
    d->info.n_features = (uint32_t) dims[sequences ? 2 : 1];
    if (d->targets == VKMOE_TARGETS_LABELS || d->targets == VKMOE_TARGETS_VALUES)
        TRY(open_y(d));

fail:
    return status;
}

// Class numbers are whole and small, so f32 holds every one that is legal.
static enum vkmoe_status read_label_numbers(vkmoe_dataset *d, uint32_t n, int32_t *labels)
{
    for (uint32_t i = 0; i < n; i++) {
        float label;
        enum vkmoe_status status = moe_npy_read(&d->y, 1, &label);
        if (status != VKMOE_OK)
            return status;
        if (!(label >= 0 && label < (float) d->n_classes))
            return moe_fail(VKMOE_E_DATA, "%s: row %llu: class %.0f of %u", d->y_path,
                            (unsigned long long) (d->row + i), (double) label, d->n_classes);
        labels[i] = (int32_t) label;
    }
    return VKMOE_OK;
}

static enum vkmoe_status read_npy(vkmoe_dataset *d, uint32_t *n, float *x, int32_t *labels,
                                  float *values)
{
    const size_t n_rows = (size_t) *n * moe_max(d->info.n_steps, 1);
    enum vkmoe_status status = moe_npy_read(&d->x, n_rows * d->info.n_features, x);
    if (status == VKMOE_OK && labels)
        status = read_label_numbers(d, *n, labels);
    if (status == VKMOE_OK && values)
        status = moe_npy_read(&d->y, (size_t) *n * d->info.n_targets, values);
    return status;
}

// ---- safetensors -----------------------------------------------------------------------------

static enum vkmoe_status open_safetensors(vkmoe_dataset *d, const vkmoe_dataset_desc *desc)
{
    (void) desc;
    enum vkmoe_status status;
    enum vkmoe_dtype type;
    if (d->targets == VKMOE_TARGETS_LABELS || d->targets == VKMOE_TARGETS_VALUES)
        return moe_fail(VKMOE_E_DATA, "%s: a data set with targets is .csv or .npy", d->path);
    TRY(moe_safetensors_open(&d->host, d->path, &d->file));
    if (d->file.n_tensors != 1)
        return moe_fail(VKMOE_E_DATA, "%s: %zu tensors, needs to have one", d->path,
                        d->file.n_tensors);
    const struct moe_st_tensor *tensor = &d->file.tensors[0];
    char text[192];
    if (tensor->n_dims != 2 || tensor->dims[1] > UINT32_MAX || !moe_st_float_type(tensor, &type))
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': %s, not (rows, features) in F32, F16, BF16",
                        d->path, tensor->name, moe_st_describe(tensor, text));
    d->info.n_rows = tensor->dims[0];
    d->info.n_features = (uint32_t) tensor->dims[1];

fail:
    return status;
}

static enum vkmoe_status read_safetensors(vkmoe_dataset *d, uint32_t *n, float *x,
                                          int32_t *labels, float *values)
{
    (void) labels, (void) values;
    const struct moe_st_tensor *tensor = &d->file.tensors[0];
    return moe_safetensors_read_f32(&d->file, tensor, d->row * d->info.n_features,
                                    (size_t) *n * d->info.n_features, x);
}

// ---- the object ------------------------------------------------------------------------------

static const struct format formats[] = {
    {".csv", open_csv, read_csv},
    {".tsv", open_tsv, NULL},
    {".npy", open_npy, read_npy},
    {".safetensors", open_safetensors, read_safetensors},
};

static const struct format *find_format(const char *path)
{
    for (size_t i = 0; i < MOE_COUNT(formats); i++) {
        if (moe_has_suffix(path, formats[i].suffix))
            return &formats[i];
    }
    return NULL;
}

// What the name alone tells.
static enum vkmoe_status check_format(const vkmoe_dataset *d, const vkmoe_dataset_desc *desc)
{
    const bool ignores = desc->targets == VKMOE_TARGETS_IGNORE;
    if (desc->targets > VKMOE_TARGETS_IGNORE || (ignores && desc->n_features == 0 && !desc->texts))
        return moe_fail(VKMOE_E_ARGUMENT,
                        "vkmoe_dataset_desc.targets = %u: to %d, which needs n_features or texts",
                        (unsigned) desc->targets, VKMOE_TARGETS_IGNORE);
    if (!d->format)
        return moe_fail(VKMOE_E_DATA, "%s: not named .csv, .tsv, .npy or .safetensors", d->path);
    if (!d->format->read && desc->n_features != 0)
        return moe_fail(VKMOE_E_DATA, "%s: texts, needs %u features", d->path, desc->n_features);
    if (d->format->read && desc->texts)
        return moe_fail(VKMOE_E_DATA, "%s: features, needs texts, which are in .tsv files",
                        d->path);
    if (desc->target && d->format->read != read_csv)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: target '%s': only a .csv has target columns",
                        d->path, desc->target);
    return VKMOE_OK;
}

static enum vkmoe_status check_widths(const vkmoe_dataset *d, const vkmoe_dataset_desc *desc)
{
    const vkmoe_dataset_info *is = &d->info;
    if (d->targets == VKMOE_TARGETS_LABELS && is->n_targets != 1)
        return moe_fail(VKMOE_E_SHAPE, "%s: %u targets; labels are one", d->path, is->n_targets);
    if (is->is_text)
        return VKMOE_OK;
    if (is->n_features == 0 || (desc->n_features != 0 && desc->n_features != is->n_features))
        return moe_fail(VKMOE_E_SHAPE, "%s: %u features beside %u targets, needs %u features",
                        d->path, is->n_features, is->n_targets, desc->n_features);
    if (d->targets == VKMOE_TARGETS_VALUES && desc->n_targets != 0 &&
        desc->n_targets != is->n_targets)
        return moe_fail(VKMOE_E_SHAPE, "%s: %u targets, needs %u", d->path, is->n_targets,
                        desc->n_targets);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_dataset_open(const char *path, const vkmoe_dataset_desc *desc,
                                     vkmoe_dataset **out)
{
    enum vkmoe_status status;
    vkmoe_dataset *d = NULL;
    vkmoe_dataset_desc given = vkmoe_dataset_desc_init();
    if (!path || !desc || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_dataset_open: %s is NULL",
                        !path ? "path" : !desc ? "desc" : "out");
    *out = NULL;
    TRY(moe_desc_copy(&given, sizeof given, desc, "vkmoe_dataset_desc"));
    vkmoe_host host;
    TRY(moe_host_init(&host, given.host));
    TRY(moe_try_alloc(&host, sizeof *d, "data set", &d));
    d->host = host;
    d->targets = given.targets;
    TRY(moe_try_alloc(&host, strlen(path) + 1, "path", &d->path));
    strcpy(d->path, path);
    d->format = find_format(path);
    TRY(check_format(d, &given));
    if (d->targets == VKMOE_TARGETS_LABELS)
        TRY(copy_classes(d, &given));
    TRY(d->format->open(d, &given));
    TRY(check_widths(d, &given));
    *out = d;
    return VKMOE_OK;

fail:
    vkmoe_dataset_destroy(d);
    return status;
}

void vkmoe_dataset_destroy(vkmoe_dataset *dataset)
{
    if (!dataset)
        return;
    const vkmoe_host host = dataset->host;
    moe_csv_close(&dataset->csv);
    moe_tsv_close(&dataset->tsv);
    moe_free(&host, dataset->text);
    moe_free(&host, dataset->texts);
    moe_npy_close(&dataset->x);
    moe_npy_close(&dataset->y);
    moe_safetensors_close(&dataset->file);
    moe_free(&host, dataset->y_path);
    moe_free(&host, dataset->classes);
    moe_free(&host, dataset->class_text);
    moe_free(&host, dataset->path);
    moe_free(&host, dataset);
}

enum vkmoe_status vkmoe_dataset_get_info(const vkmoe_dataset *dataset, vkmoe_dataset_info *out)
{
    if (!dataset || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_dataset_get_info: %s is NULL",
                        dataset ? "out" : "dataset");
    *out = dataset->info;
    return VKMOE_OK;
}

static enum vkmoe_status check_read(const vkmoe_dataset *d, const int32_t *labels,
                                    const float *values)
{
    const bool has_labels = d->targets == VKMOE_TARGETS_LABELS;
    const bool has_values = d->targets == VKMOE_TARGETS_VALUES;
    if (!labels == has_labels || !values == has_values)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: opened %s: labels %p, values %p", d->path,
                        has_labels   ? "with labels"
                        : has_values ? "with values"
                                     : "without labels and values",
                        (const void *) labels, (const void *) values);
    return VKMOE_OK;
}

const char *vkmoe_dataset_feature(const vkmoe_dataset *dataset, uint32_t i)
{
    bool named = dataset && dataset->format->read == read_csv && i < dataset->info.n_features;
    return named ? moe_csv_feature_name(&dataset->csv, i) : NULL;
}

enum vkmoe_status vkmoe_dataset_read(vkmoe_dataset *dataset, uint32_t *n, float *x,
                                     int32_t *labels, float *values)
{
    if (!dataset || !n || !x)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_dataset_read: %s is NULL",
                        !dataset ? "dataset" : !n ? "n" : "x");
    if (dataset->info.is_text)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: texts, for vkmoe_dataset_read_texts", dataset->path);
    enum vkmoe_status status = check_read(dataset, labels, values);
    if (status != VKMOE_OK)
        return status;
    if (dataset->format->read != read_csv)
        *n = (uint32_t) moe_min(*n, dataset->info.n_rows - dataset->row);
    status = dataset->format->read(dataset, n, x, labels, values);
    if (status == VKMOE_OK)
        dataset->row += *n;
    return status;
}

enum vkmoe_status vkmoe_dataset_read_texts(vkmoe_dataset *dataset, uint32_t *n, const char **texts,
                                           int32_t *labels, float *values)
{
    if (!dataset || !n || !texts)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_dataset_read_texts: %s is NULL",
                        !dataset ? "dataset" : !n ? "n" : "texts");
    if (!dataset->info.is_text)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: no texts, for vkmoe_dataset_read", dataset->path);
    enum vkmoe_status status = check_read(dataset, labels, values);
    return status == VKMOE_OK ? read_tsv(dataset, n, texts, labels, values) : status;
}
