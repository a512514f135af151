// SPDX-License-Identifier: MIT
// The trained digits model on a device against stored results: digits DEVICE DATA_FOLDER.
//
// The same comparison then has to fail for two copies of the model, in each of which two
// neighbouring rows of one tensor are swapped.
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <vkmoe/model.h>

enum { N = 359, N_FEATURES = 64, N_CLASSES = 10, TOP_K = 2, N_RIGHT = 355 };
static const float max_error = 1e-4f;

static const char *device, *folder;

struct data {
    float x[N * N_FEATURES];
    int32_t labels[N];
    float logits[N * N_CLASSES]; // stored
    float experts[N * TOP_K];    // stored, as numbers
};

// What a model gave, compared with what is stored.
struct verdict {
    uint32_t n_right, n_experts_wrong;
    float error; // largest of a logit; NaN when any is
};

static void need(enum vkmoe_status status, const char *what)
{
    if (status == VKMOE_OK)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, vkmoe_status_name(status), vkmoe_error_text());
    exit(1);
}

static const char *path_of(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void read_rows(const char *name, const vkmoe_dataset_desc *desc, uint32_t n_columns,
                      float *x, int32_t *labels)
{
    vkmoe_dataset *data;
    vkmoe_dataset_info info;
    uint32_t n = N + 1;
    // One row more than there should be, to see that there is none.
    float *rows = malloc(n * n_columns * sizeof *rows);
    int32_t *numbers = malloc(n * sizeof *numbers);
    need(vkmoe_dataset_open(path_of(name), desc, &data), name);
    need(vkmoe_dataset_get_info(data, &info), name);
    if (!rows || !numbers || info.n_features != n_columns)
        exit(1);
    need(vkmoe_dataset_read(data, &n, rows, labels ? numbers : NULL, NULL), name);
    if (n != N) {
        fprintf(stderr, "%s: %u rows, not %d\n", name, (unsigned) n, N);
        exit(1);
    }
    memcpy(x, rows, N * n_columns * sizeof *x);
    if (labels)
        memcpy(labels, numbers, N * sizeof *labels);
    vkmoe_dataset_destroy(data);
    free(numbers);
    free(rows);
}

static void read_data(struct data *data)
{
    static const char *const digits[N_CLASSES] = {"0", "1", "2", "3", "4",
                                                  "5", "6", "7", "8", "9"};
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    read_rows("digits-test-logits.npy", &desc, N_CLASSES, data->logits, NULL);
    read_rows("digits-test-experts.npy", &desc, TOP_K, data->experts, NULL);
    desc.targets = VKMOE_TARGETS_LABELS;
    desc.classes = digits;
    desc.n_classes = N_CLASSES;
    read_rows("digits-test.csv", &desc, N_FEATURES, data->x, data->labels);
}

static struct verdict run(vkmoe_context *context, const char *model_path, const struct data *data)
{
    static float y[N * N_CLASSES];
    static int32_t ids[N * TOP_K];
    struct verdict verdict = {0};
    vkmoe_model *model;
    vkmoe_session *session;
    vkmoe_session_io io = vkmoe_session_io_init();
    for (int i = 0; i < N * N_CLASSES; i++)
        y[i] = NAN; // an output that is not written must not pass
    memset(ids, 0x7f, sizeof ids);
    io.x = data->x, io.y = y, io.ids = ids;
    need(vkmoe_model_open(NULL, model_path, &model), model_path);
    need(vkmoe_session_create(context, model, NULL, &session), "session");
    need(vkmoe_session_run(session, N, &io), "run");
    for (int i = 0; i < N * N_CLASSES; i++) {
        float error = fabsf(y[i] - data->logits[i]);
        if (isnan(error) || error > verdict.error) // once NaN, it stays NaN
            verdict.error = error;
    }
    for (int i = 0; i < N * TOP_K; i++)
        verdict.n_experts_wrong += ids[i] != (int32_t) data->experts[i];
    for (int row = 0; row < N; row++)
        verdict.n_right += vkmoe_predict_class(model, y + row * N_CLASSES) == data->labels[row];
    vkmoe_session_destroy(session);
    vkmoe_model_destroy(model);
    return verdict;
}

static bool is_good(struct verdict v)
{
    return v.n_right == N_RIGHT && v.n_experts_wrong == 0 && v.error <= max_error;
}

// Copies the model with rows 0 and 1 of a tensor swapped; `width` is that of a row.
static const char *swapped(const char *tensor, size_t width)
{
    static char path[] = "digits-control-XXXXXX";
    static unsigned char bytes[1 << 17];
    FILE *file = fopen(path_of("digits-moe.safetensors"), "rb");
    size_t size = file ? fread(bytes, 1, sizeof bytes, file) : 0;
    if (size < 8 || size == sizeof bytes)
        exit(1);
    fclose(file);
    size_t header_size = bytes[0] | (size_t) bytes[1] << 8;
    json_t *header = json_loadb((char *) bytes + 8, header_size, 0, NULL);
    json_int_t begin = -1, end;
    if (json_unpack(header, "{s:{s:[I, I]}}", tensor, "data_offsets", &begin, &end) != 0)
        exit(1);
    json_decref(header);
    unsigned char *rows = bytes + 8 + header_size + begin, row[1024];
    width *= sizeof(float);
    memcpy(row, rows, width);
    memcpy(rows, rows + width, width);
    memcpy(rows + width, row, width);

    strcpy(path + sizeof path - 7, "XXXXXX");
    int fd = mkstemp(path);
    file = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        exit(1);
    return path;
}

static bool report(const char *what, struct verdict v, bool should_be_good)
{
    bool good = is_good(v);
    printf("%s: %u of %d right (%d), %u experts differ, largest error of a logit %.3g: %s\n", what,
           (unsigned) v.n_right, N, N_RIGHT, (unsigned) v.n_experts_wrong, (double) v.error,
           good == should_be_good ? "as it should be" : "WRONG");
    return good == should_be_good;
}

int main(int argc, char **argv)
{
    static struct data data;
    if (argc != 3)
        return 2;
    device = argv[1];
    folder = argv[2];
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_device_info info;
    desc.device = device;
    need(vkmoe_context_create(&desc, &context), device);
    need(vkmoe_context_info(context, &info), device);
    printf("device: %s %s\n", info.name, info.tier);
    read_data(&data);

    bool good = report("model", run(context, path_of("digits-moe.safetensors"), &data), true);
    static const struct {
        const char *tensor;
        size_t width;
    } controls[] = {
        {"layers.0.experts.down.weight", 32},
        {"layers.0.router.weight", N_FEATURES},
    };
    for (size_t i = 0; i < sizeof controls / sizeof *controls; i++) {
        const char *path = swapped(controls[i].tensor, controls[i].width);
        struct verdict v = run(context, path, &data);
        remove(path);
        good = report(controls[i].tensor, v, false) && good;
    }
    vkmoe_context_destroy(context);
    return good ? 0 : 1;
}
