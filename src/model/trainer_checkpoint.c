// SPDX-License-Identifier: MIT
// The checkpoint: a safetensors file with the tensors "value/NAME", "moment1/NAME", "moment2/NAME"
// and "best/NAME" of every parameter that has them. Its metadata holds texts: version, device,
// config (JSON, as given), data and valid (what tells other data from this), position and net
// (JSON; real numbers as "%a", which keeps every bit).
#include "model/trainer.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "model/safetensors.h"

#include <stdlib.h>

#define FORMAT "vkmoe-checkpoint/1"

enum part { VALUE, MOMENT1, MOMENT2, BEST, N_PARTS };

static const char *const part_names[N_PARTS] = {"value", "moment1", "moment2", "best"};

static bool has_part(const vkmoe_trainer *t, const struct moe_trainer_param *param, enum part part)
{
    switch (part) {
    case VALUE:
        return true;
    case MOMENT1:
        return param->info.has_moment1;
    case MOMENT2:
        return param->info.has_moment2;
    case BEST:
        return t->at.best_epoch > 0;
    case N_PARTS:
        break;
    }
    return false;
}

static enum vkmoe_net_what what_of(enum part part)
{
    return part == MOMENT1   ? VKMOE_NET_MOMENT1
           : part == MOMENT2 ? VKMOE_NET_MOMENT2
                             : VKMOE_NET_VALUE;
}

// ---- texts -----------------------------------------------------------------------------------

static void describe_version(char text[64])
{
    snprintf(text, 64, "%d.%d.%d", VKMOE_VERSION_MAJOR, VKMOE_VERSION_MINOR, VKMOE_VERSION_PATCH);
}

// What the bits depend on besides configuration and data.
static enum vkmoe_status describe_device(const vkmoe_trainer *t, char text[512])
{
    vkmoe_device_info info;
    enum vkmoe_status status = vkmoe_context_info(t->context, &info);
    if (status == VKMOE_OK)
        snprintf(text, 512, "%s, %s %s, %s", info.name, info.driver, info.driver_version,
                 info.tier);
    return status;
}

static json_t *real(double value)
{
    char text[40];
    snprintf(text, sizeof text, "%a", value);
    return json_string(text);
}

static json_t *position_json(const struct moe_trainer_position *at)
{
    return json_pack("{s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:I, s:b, s:b, s:I}", "epoch",
                     (json_int_t) at->epoch, "batch", (json_int_t) at->batch, "step",
                     (json_int_t) at->step, "loss_sum", real(at->loss_sum), "loss", real(at->loss),
                     "valid_loss", real(at->valid_loss), "metric", real(at->metric), "best",
                     real(at->best), "best_epoch", (json_int_t) at->best_epoch, "stopped_early",
                     (int) at->stopped_early, "done", (int) at->done, "log_size",
                     (json_int_t) at->log_size);
}

static bool read_position(const json_t *json, struct moe_trainer_position *at)
{
    json_int_t epoch, batch, step, best_epoch, log_size;
    const char *reals[5];
    int stopped_early, done;
    if (json_unpack((json_t *) json, "{s:I, s:I, s:I, s:s, s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:I}",
                    "epoch", &epoch, "batch", &batch, "step", &step, "loss_sum", &reals[0], "loss",
                    &reals[1], "valid_loss", &reals[2], "metric", &reals[3], "best", &reals[4],
                    "best_epoch", &best_epoch, "stopped_early", &stopped_early, "done", &done,
                    "log_size", &log_size) != 0)
        return false;
    *at = (struct moe_trainer_position){
        .epoch = (uint32_t) epoch,
        .batch = (uint32_t) batch,
        .step = (uint64_t) step,
        .loss_sum = strtod(reals[0], NULL),
        .loss = strtod(reals[1], NULL),
        .valid_loss = strtod(reals[2], NULL),
        .metric = strtod(reals[3], NULL),
        .best = strtod(reals[4], NULL),
        .best_epoch = (uint32_t) best_epoch,
        .stopped_early = stopped_early != 0,
        .done = done != 0,
        .log_size = (uint64_t) log_size,
    };
    return true;
}

// Adds `value` as a compact JSON text; drops the reference to it.
static void set_json(json_t *metadata, const char *key, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(value);
    json_object_set_new(metadata, key, json_string(text ? text : ""));
    free(text);
}

static void set_hash(json_t *metadata, const char *key, uint64_t hash)
{
    char text[24];
    snprintf(text, sizeof text, "%016llx", (unsigned long long) hash);
    json_object_set_new(metadata, key, json_string(text));
}

static enum vkmoe_status make_metadata(const vkmoe_trainer *t, json_t *metadata)
{
    enum vkmoe_status status;
    char device[512], version[64];
    vkmoe_net_state state;
    TRY(describe_device(t, device));
    TRY(vkmoe_net_get_state(t->net, &state));
    describe_version(version);
    json_object_set_new(metadata, "format", json_string(FORMAT));
    json_object_set_new(metadata, "version", json_string(version));
    json_object_set_new(metadata, "device", json_string(device));
    set_json(metadata, "config", json_incref(t->whole_config));
    set_hash(metadata, "data", t->data_hash);
    set_hash(metadata, "valid", t->valid_hash);
    set_json(metadata, "position", position_json(&t->at));
    set_json(metadata, "net",
             json_pack("{s:I, s:I, s:I}", "seed", (json_int_t) state.seed, "pass",
                       (json_int_t) state.pass, "steps", (json_int_t) state.steps));
    if (json_object_size(metadata) != 8)
        status = moe_fail(VKMOE_E_MEMORY, "%s: metadata", t->checkpoint);

fail:
    return status;
}

// ---- writing ---------------------------------------------------------------------------------

struct writing {
    struct moe_st_source *sources; // (n_params * N_PARTS)
    char (*names)[MOE_ST_MAX_DIMS * 16];
    size_t n;
};

static enum vkmoe_status add_source(vkmoe_trainer *t, struct writing *w, uint32_t i,
                                    enum part part)
{
    enum vkmoe_status status;
    const struct moe_trainer_param *param = &t->params[i];
    struct moe_st_source *source = &w->sources[w->n];
    float *data = NULL;
    snprintf(w->names[w->n], sizeof *w->names, "%s/%s", part_names[part], param->info.name);
    *source = (struct moe_st_source){
        .name = w->names[w->n],
        .dtype = "F32",
        .n_dims = 2,
        .dims = {param->info.rows, param->info.width},
        .data = part == BEST ? param->best : NULL,
    };
    w->n++;
    if (part == BEST)
        return VKMOE_OK;
    TRY(moe_try_alloc(&t->host, param->n * sizeof *data, "checkpoint", &data));
    source->data = data;
    TRY(vkmoe_net_read(t->net, what_of(part), param->info.name, data, param->n));

fail:
    return status;
}

static void free_writing(const vkmoe_trainer *t, struct writing *w)
{
    for (size_t i = 0; i < w->n; i++) {
        bool best = strncmp(w->names[i], "best/", 5) == 0;
        moe_free(&t->host, best ? NULL : (void *) w->sources[i].data);
    }
    moe_free(&t->host, w->sources);
    moe_free(&t->host, w->names);
}

enum vkmoe_status moe_trainer_write_checkpoint(vkmoe_trainer *t)
{
    enum vkmoe_status status;
    struct writing w = {0};
    json_t *metadata = json_object();
    size_t room = (size_t) t->n_params * N_PARTS;
    TRY(make_metadata(t, metadata));
    TRY(moe_try_alloc(&t->host, room * sizeof *w.sources, "checkpoint", &w.sources));
    TRY(moe_try_alloc(&t->host, room * sizeof *w.names, "checkpoint", &w.names));
    for (uint32_t i = 0; i < t->n_params; i++) {
        for (enum part part = VALUE; part < N_PARTS; part++)
            if (has_part(t, &t->params[i], part))
                TRY(add_source(t, &w, i, part));
    }
    TRY(moe_safetensors_write(&t->host, t->checkpoint, w.sources, w.n, metadata));
    t->last_checkpoint = moe_trainer_clock();

fail:
    free_writing(t, &w);
    json_decref(metadata);
    return status;
}

// ---- reading ---------------------------------------------------------------------------------

static enum vkmoe_status fail_other(const vkmoe_trainer *t, const char *what, const char *there,
                                    const char *here)
{
    return moe_fail(VKMOE_E_DATA, "%s: a checkpoint of another training: %s: %.80s, here %.80s",
                    t->checkpoint, what, there, here);
}

// Where two JSON values differ: the path of the first key, and both values there.
struct difference {
    char path[200];
    const json_t *a, *b; // NULL: there is none
};

static bool find_difference(const json_t *a, const json_t *b, const char *path,
                            struct difference *out)
{
    char deeper[200];
    const char *key;
    json_t *value;
    size_t i;
    if (a && b && json_equal(a, b))
        return false;
    if (json_is_object(a) && json_is_object(b)) {
        json_object_foreach((json_t *) a, key, value) {
            snprintf(deeper, sizeof deeper, "%.120s%s%.60s", path, *path ? "." : "", key);
            if (find_difference(value, json_object_get(b, key), deeper, out))
                return true;
        }
        json_object_foreach((json_t *) b, key, value) {
            snprintf(deeper, sizeof deeper, "%.120s%s%.60s", path, *path ? "." : "", key);
            if (find_difference(json_object_get(a, key), value, deeper, out))
                return true;
        }
    } else if (json_is_array(a) && json_is_array(b) && json_array_size(a) == json_array_size(b)) {
        json_array_foreach((json_t *) a, i, value) {
            snprintf(deeper, sizeof deeper, "%.120s[%zu]", path, i);
            if (find_difference(value, json_array_get(b, i), deeper, out))
                return true;
        }
    }
    snprintf(out->path, sizeof out->path, "%s", path);
    out->a = a;
    out->b = b;
    return true;
}

static void show_json(const json_t *value, char text[80])
{
    char *dump = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    snprintf(text, 80, "%s", dump ? dump : "nothing");
    free(dump);
}

// Where the log goes does not matter.
static void drop_log(json_t *config)
{
    json_object_del(json_object_get(config, "train"), "log");
}

static enum vkmoe_status check_config(const vkmoe_trainer *t, const char *text)
{
    enum vkmoe_status status = VKMOE_OK;
    struct difference difference = {0};
    char there[80], here[80];
    json_t *a = json_loads(text, 0, NULL), *b = json_deep_copy(t->whole_config);
    drop_log(a);
    drop_log(b);
    if (find_difference(a, b, "", &difference)) {
        show_json(difference.a, there);
        show_json(difference.b, here);
        status = fail_other(t, difference.path, there, here);
    }
    json_decref(a);
    json_decref(b);
    return status;
}

static enum vkmoe_status check_hash(const vkmoe_trainer *t, const char *what, const char *text,
                                    uint64_t hash)
{
    if (strtoull(text, NULL, 16) == hash)
        return VKMOE_OK;
    return moe_fail(VKMOE_E_DATA, "%s: a checkpoint of another training: %s", t->checkpoint, what);
}

// Texts of the metadata, in this order.
enum text { FORMAT_TEXT, VERSION, DEVICE, CONFIG, DATA, VALID, POSITION, NET, N_TEXTS };

static enum vkmoe_status read_texts(const vkmoe_trainer *t, const struct moe_safetensors *file,
                                    const char *texts[N_TEXTS])
{
    static const char *const keys[N_TEXTS] = {"format", "version", "device",   "config",
                                              "data",   "valid",   "position", "net"};
    for (int i = 0; i < N_TEXTS; i++) {
        texts[i] = moe_safetensors_metadata(file, keys[i]);
        if (!texts[i] || (i == FORMAT_TEXT && strcmp(texts[i], FORMAT) != 0))
            return moe_fail(VKMOE_E_DATA, "%s: not a checkpoint: its metadata has no %s" FORMAT,
                            t->checkpoint, i == FORMAT_TEXT ? "" : "key of ");
    }
    return VKMOE_OK;
}

static enum vkmoe_status check_texts(const vkmoe_trainer *t, const char *const texts[N_TEXTS])
{
    enum vkmoe_status status;
    char version[64], device[512];
    describe_version(version);
    if (strcmp(texts[VERSION], version) != 0)
        TRY(fail_other(t, "version", texts[VERSION], version));
    TRY(check_config(t, texts[CONFIG]));
    TRY(check_hash(t, "other data", texts[DATA], t->data_hash));
    TRY(check_hash(t, "other validation data", texts[VALID], t->valid_hash));
    TRY(describe_device(t, device));
    if (strcmp(texts[DEVICE], device) != 0)
        moe_log(&t->host, VKMOE_LOG_WARN,
                "%s is from %s, this is %s: results may differ in their last bits", t->checkpoint,
                texts[DEVICE], device);

fail:
    return status;
}

static enum vkmoe_status read_param(vkmoe_trainer *t, struct moe_safetensors *file,
                                    struct moe_trainer_param *param, enum part part)
{
    enum vkmoe_status status;
    char name[128], shape[192];
    float *data = NULL;
    snprintf(name, sizeof name, "%s/%s", part_names[part], param->info.name);
    const struct moe_st_tensor *tensor = moe_safetensors_find(file, name);
    enum vkmoe_dtype type;
    if (!tensor || !moe_st_float_type(tensor, &type) || type != VKMOE_F32 || tensor->n_dims != 2 ||
        tensor->dims[0] != param->info.rows || tensor->dims[1] != param->info.width)
        return moe_fail(VKMOE_E_DATA, "%s: '%s' is %s, not F32 (%u, %u)", t->checkpoint, name,
                        tensor ? moe_st_describe(tensor, shape) : "missing", param->info.rows,
                        param->info.width);
    if (part == BEST)
        return moe_safetensors_read_f32(file, tensor, 0, (size_t) param->n, param->best);
    TRY(moe_try_alloc(&t->host, param->n * sizeof *data, "checkpoint", &data));
    TRY(moe_safetensors_read_f32(file, tensor, 0, (size_t) param->n, data));
    TRY(vkmoe_net_write(t->net, what_of(part), param->info.name, data, param->n));

fail:
    moe_free(&t->host, data);
    return status;
}

static enum vkmoe_status read_state(vkmoe_trainer *t, const char *position, const char *net)
{
    json_t *at = json_loads(position, 0, NULL), *of_net = json_loads(net, 0, NULL);
    json_int_t seed, pass, steps;
    bool good = read_position(at, &t->at) && json_unpack(of_net, "{s:I, s:I, s:I}", "seed", &seed,
                                                         "pass", &pass, "steps", &steps) == 0;
    json_decref(at);
    json_decref(of_net);
    if (!good || t->at.batch > t->n_batches || t->at.step > t->n_steps ||
        (t->at.best_epoch > 0 && t->config.patience == 0))
        return moe_fail(VKMOE_E_DATA, "%s: its position is none of this training: %.200s",
                        t->checkpoint, position);
    const vkmoe_net_state state = {(uint64_t) seed, (uint32_t) pass, (uint32_t) steps};
    return vkmoe_net_set_state(t->net, &state);
}

enum vkmoe_status moe_trainer_read_checkpoint(vkmoe_trainer *t)
{
    enum vkmoe_status status;
    struct moe_safetensors file = {0};
    const char *texts[N_TEXTS];
    TRY(moe_safetensors_open(&t->host, t->checkpoint, &file));
    TRY(read_texts(t, &file, texts));
    TRY(check_texts(t, texts));
    TRY(read_state(t, texts[POSITION], texts[NET]));
    for (uint32_t i = 0; i < t->n_params; i++) {
        for (enum part part = VALUE; part < N_PARTS; part++)
            if (has_part(t, &t->params[i], part))
                TRY(read_param(t, &file, &t->params[i], part));
    }

fail:
    moe_safetensors_close(&file);
    return status;
}
