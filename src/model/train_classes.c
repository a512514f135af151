// SPDX-License-Identifier: MIT
// Names of classes from the labels of a data set.
#include "model/train_data.h"

#include "base/file.h"
#include "base/host.h"
#include "base/status.h"
#include "model/config.h"
#include "model/csv.h"
#include "model/tsv.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_CLASSES = 65536 };

// A set of texts: keys of a JSON object, which owns them.
struct labels {
    const char *path;
    json_t *set;
};

static enum vkmoe_status add_label(struct labels *labels, const char *text)
{
    if (json_object_get(labels->set, text))
        return VKMOE_OK;
    if (json_object_size(labels->set) == MAX_CLASSES)
        return moe_fail(VKMOE_E_DATA, "%s: more than %d different labels", labels->path,
                        MAX_CLASSES);
    if (json_object_set_new(labels->set, text, json_null()) != 0)
        return moe_fail(VKMOE_E_DATA, "%s: label '%.40s' is not UTF-8, or no memory", labels->path,
                        text);
    return VKMOE_OK;
}

static enum vkmoe_status read_csv(const vkmoe_host *host, const char *target,
                                  struct labels *labels)
{
    enum vkmoe_status status;
    struct moe_csv csv;
    bool more = true;
    TRY(moe_csv_open(host, labels->path, target, &csv));
    if (csv.n_targets != 1)
        status = moe_fail(VKMOE_E_SHAPE, "%s: %u targets; labels are one", labels->path,
                          csv.n_targets);
    while (status == VKMOE_OK && more) {
        status = moe_csv_next(&csv, &more);
        if (status == VKMOE_OK && more)
            status = add_label(labels, moe_csv_target(&csv, 0));
    }

fail:
    moe_csv_close(&csv);
    return status;
}

static enum vkmoe_status read_tsv(const vkmoe_host *host, struct labels *labels)
{
    struct moe_tsv tsv;
    bool more = true;
    enum vkmoe_status status = moe_tsv_open(host, labels->path, MOE_TSV_LABEL, &tsv);
    while (status == VKMOE_OK && more) {
        status = moe_tsv_next(&tsv, &more);
        if (status == VKMOE_OK && more)
            status = add_label(labels, tsv.label);
    }
    moe_tsv_close(&tsv);
    return status;
}

// ---- order ----

// A whole number in its shortest form.
static bool is_number(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return digits > 0 && digits < 10 && text[digits] == '\0' && (text[0] != '0' || digits == 1);
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *) a, *(const char *const *) b);
}

static int by_number(const void *a, const void *b)
{
    long x = strtol(*(const char *const *) a, NULL, 10);
    long y = strtol(*(const char *const *) b, NULL, 10);
    return (x > y) - (x < y);
}

static void sort_names(const char **names, uint32_t n)
{
    bool numbers = true;
    for (uint32_t i = 0; i < n; i++)
        numbers = numbers && is_number(names[i]);
    qsort(names, n, sizeof *names, numbers ? by_number : by_bytes);
}

// Class numbers are their own names.
static enum vkmoe_status name_numbers(uint32_t n, struct labels *labels)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < n && status == VKMOE_OK; i++) {
        char text[16];
        snprintf(text, sizeof text, "%u", i);
        status = add_label(labels, text);
    }
    return status;
}

enum vkmoe_status moe_train_name_classes(const char *path, const char *target, bool shares,
                                         const char *file, struct moe_description *d)
{
    enum vkmoe_status status;
    struct labels labels = {path, json_object()};
    const char **names = NULL, *key;
    json_t *value;
    uint32_t n = 0;
    if (d->info.task != VKMOE_TASK_CLASSIFY || d->classes) {
        json_decref(labels.set);
        return VKMOE_OK;
    }
    if (moe_has_suffix(path, ".csv") && !shares)
        TRY(read_csv(&d->host, target, &labels));
    else if (moe_has_suffix(path, ".tsv") && !shares)
        TRY(read_tsv(&d->host, &labels));
    else
        TRY(name_numbers(d->info.n_classes, &labels));
    size_t size = json_object_size(labels.set);
    TRY(moe_try_alloc(&d->host, size * sizeof *names, "classes", &names));
    json_object_foreach(labels.set, key, value)
        names[n++] = key;
    sort_names(names, n);
    if (n == 1)
        status = moe_fail(VKMOE_E_DATA, "%s: all rows are of one class, '%.40s'", path, names[0]);
    else
        status = moe_description_set_classes(d, file, names, n);

fail:
    json_decref(labels.set);
    moe_free(&d->host, names);
    return status;
}
