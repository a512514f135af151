// SPDX-License-Identifier: MIT
#include "model/trainer.h"

#include "base/host.h"
#include "base/status.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

static enum vkmoe_status fail_log(const vkmoe_trainer *t, const char *what)
{
    return moe_fail(VKMOE_E_IO, "%s: %s: %s", t->log_path, what, strerror(errno));
}

static bool is_csv(const vkmoe_trainer *t)
{
    size_t size = strlen(t->log_path);
    return size > 4 && strcmp(t->log_path + size - 4, ".csv") == 0;
}

static enum vkmoe_status finish_line(vkmoe_trainer *t)
{
    long size;
    if (fflush(t->log) != 0 || (size = ftell(t->log)) < 0)
        return fail_log(t, "cannot write");
    t->at.log_size = (uint64_t) size;
    return VKMOE_OK;
}

// What an interrupted run has written behind its last checkpoint will be written again.
static enum vkmoe_status cut(vkmoe_trainer *t)
{
    long size;
    if (fseek(t->log, 0, SEEK_END) != 0 || (size = ftell(t->log)) < 0)
        return fail_log(t, "cannot read its size");
    if ((uint64_t) size <= t->at.log_size)
        return VKMOE_OK;
    if (ftruncate(fileno(t->log), (off_t) t->at.log_size) != 0 || fseek(t->log, 0, SEEK_END) != 0)
        return fail_log(t, "cannot shorten");
    return VKMOE_OK;
}

enum vkmoe_status moe_trainer_open_log(vkmoe_trainer *t, const char *path, bool resume)
{
    enum vkmoe_status status;
    if (!path)
        return VKMOE_OK;
    TRY(moe_try_alloc(&t->host, strlen(path) + 1, "path", &t->log_path));
    strcpy(t->log_path, path);
    if (resume && t->at.log_size > 0)
        t->log = fopen(path, "r+e");
    if (t->log)
        return cut(t);
    t->log = fopen(path, "we");
    if (!t->log)
        return fail_log(t, "cannot write");
    if (is_csv(t))
        fputs("epoch,step,loss,valid_loss,metric,rate,seconds\n", t->log);
    return finish_line(t);

fail:
    return status;
}

// A number, or nothing where it is not known.
static void put_number(vkmoe_trainer *t, const char *name, double value)
{
    bool csv = is_csv(t);
    fputs(csv ? "," : ", ", t->log);
    if (!csv)
        fprintf(t->log, "\"%s\": ", name);
    if (!isnan(value))
        fprintf(t->log, "%.9g", value);
    else if (!csv)
        fputs("null", t->log);
}

enum vkmoe_status moe_trainer_write_log(vkmoe_trainer *t)
{
    const struct moe_trainer_position *at = &t->at;
    if (!t->log)
        return VKMOE_OK;
    fprintf(t->log, is_csv(t) ? "%u,%llu" : "{\"epoch\": %u, \"step\": %llu", at->epoch,
            (unsigned long long) at->step);
    put_number(t, "loss", at->loss);
    put_number(t, "valid_loss", at->valid_loss);
    put_number(t, "metric", at->metric);
    put_number(t, "rate", (double) t->rate);
    put_number(t, "seconds", t->seconds + moe_trainer_clock() - t->started);
    fputs(is_csv(t) ? "\n" : "}\n", t->log);
    return finish_line(t);
}

void moe_trainer_close_log(vkmoe_trainer *t)
{
    if (t->log)
        fclose(t->log);
    moe_free(&t->host, t->log_path);
}
