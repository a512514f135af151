// SPDX-License-Identifier: MIT
// Every family: a made-up layer, written as its layout says, has the rules of its row, loads, and
// every value is read back from where it was put.
#include "checkpoint_folder.h"

#include "fixture.h"
#include "scratch.h"

#include "base/bits.h"
#include "model/config.h"
#include "model/families/families.h"

#include <stdio.h>
#include <vkmoe/checkpoint.h>

enum { D = 8, F = 6, E = 4, K = 2, LAYER = 1, N_TOKENS = 5, N_IDS = 7 };

static const char keys[] =
    "\"num_hidden_layers\": 2, \"hidden_size\": 8, \"d_model\": 8, \"moe_intermediate_size\": 6, "
    "\"num_experts\": 4, \"num_experts_per_tok\": 2, \"rms_norm_eps\": 1e-6, "
    "\"moe_normalize_expert_weights\": 1, \"encoder_layers\": 2, \"decoder_layers\": 2";

// ---- writing ---------------------------------------------------------------------------------

struct size {
    uint32_t n, n_rows, n_columns;
};

// What the part of a made-up layer is like; n is 0 where the family has none.
static struct size size_of(const struct moe_family *family, int part)
{
    const vkmoe_layer_desc *r = &family->rules;
    bool latent = r->latent_norm;
    uint32_t d_in = latent ? 4 : D, shared = family->n_shared * F;
    if (shared == 0 && r->shared_gate != VKMOE_SHARED_PLAIN)
        shared = F;
    int bank = part < VKMOE_PART_GATE ? -1 : (part - VKMOE_PART_GATE) / 6;
    int role = part < VKMOE_PART_GATE ? -1 : (part - VKMOE_PART_GATE) % 6;
    if (bank >= 0) {
        uint32_t n = bank == 0 ? E : bank == 1 ? shared > 0 : r->adjugate_group ? E / 2 : 0;
        uint32_t f = bank == 0 ? F : bank == 1 ? shared : 3;
        uint32_t d = bank == 1 ? D : d_in;
        const bool has[] = {r->gated, true, true, r->gate_bias, r->up_bias, r->down_bias};
        const struct size sizes[] = {{n, f, d}, {n, f, d}, {n, d, f}, {n, f, 1}, {n, f, 1},
                                     {n, d, 1}};
        return has[role] ? sizes[role] : (struct size){0};
    }
    uint32_t gates = r->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1;
    switch (part) {
    case VKMOE_PART_ROUTER:
        return (struct size){1, E, D};
    case VKMOE_PART_ROUTER_BIAS:
        return (struct size){r->router_bias, E, 1};
    case VKMOE_PART_SELECTION_BIAS:
        return (struct size){r->selection_bias, E, 1};
    case VKMOE_PART_EXPERT_SCALE:
        return (struct size){r->expert_scale, E, 1};
    case VKMOE_PART_PRENORM_SCALE:
        return (struct size){r->router_prenorm, D, 1};
    case VKMOE_PART_SHARED_GATE:
        return (struct size){r->shared_gate != VKMOE_SHARED_PLAIN, gates, D};
    case VKMOE_PART_LATENT_DOWN:
        return (struct size){latent, 4, D};
    case VKMOE_PART_LATENT_UP:
        return (struct size){latent, D, 4};
    case VKMOE_PART_LATENT_NORM:
        return (struct size){latent, 4, 1};
    case VKMOE_PART_OUT_BIAS:
        return (struct size){r->out_bias, D, 1};
    default:
        return (struct size){0};
    }
}

static float value_of(int part, uint32_t i, size_t at)
{
    char name[32];
    snprintf(name, sizeof name, "%d %u", part, i);
    return folder_value(name, at);
}

// The first place of the layout for values that are written plainly.
static const struct moe_place *place_of(const struct moe_layout *layout, int part)
{
    for (size_t i = 0; i < layout->n_places; i++) {
        const struct moe_place *place = &layout->places[i];
        size_t n = strlen(place->name);
        if ((int) place->part == part && (n < 6 || strcmp(place->name + n - 6, "blocks") != 0))
            return place;
    }
    return NULL;
}

static void put(char *out, size_t *n, const char *text, size_t size)
{
    assert_true(*n + size < 200);
    memcpy(out + *n, text, size);
    out[*n += size] = '\0';
}

static void name_of(const struct moe_layout *layout, const struct moe_place *place, uint32_t e,
                    char out[200])
{
    char pattern[200];
    size_t n = 0;
    int first = (int) strcspn(layout->prefixes, "|");
    if (strncmp(place->name, "{P}", 3) == 0)
        snprintf(pattern, sizeof pattern, "%.*s%s", first, layout->prefixes, place->name + 3);
    else
        snprintf(pattern, sizeof pattern, "%s", place->name);
    out[0] = '\0';
    for (const char *p = pattern; *p; p++) {
        char number[12];
        snprintf(number, sizeof number, "%u", p[1] == 'E' ? e : LAYER);
        bool hole = *p == '{';
        put(out, &n, hole ? number : p, hole ? strlen(number) : 1);
        p += hole ? 2 : 0;
    }
}

// Puts one matrix (a vector is a column) where its place wants it.
static void write_matrix(struct folder *folder, const struct moe_layout *layout,
                         const struct moe_place *place, int part, uint32_t e, struct size size)
{
    char name[200];
    bool vector = size.n_columns == 1 && part != VKMOE_PART_LATENT_DOWN;
    uint64_t rows = size.n_rows * (place->rows == MOE_ROWS_ALL ? 1 : 2);
    uint64_t first = place->rows == MOE_ROWS_SECOND ? size.n_rows : place->rows == MOE_ROWS_ODD;
    uint64_t step = place->rows == MOE_ROWS_EVEN || place->rows == MOE_ROWS_ODD ? 2 : 1;
    uint64_t n_out = place->transposed ? size.n_columns : rows;
    uint64_t n_in = place->transposed ? rows : size.n_columns;
    name_of(layout, place, e, name);
    if (!folder_find(folder, name)) {
        uint64_t dims[3] = {n_out, n_in, 0};
        if (vector)
            dims[1] = 0;
        if (place->stack == MOE_STACK_FIRST)
            dims[2] = dims[1], dims[1] = dims[0], dims[0] = size.n;
        if (place->stack == MOE_STACK_ROWS)
            dims[0] *= size.n;
        folder_add(folder, name, "F32", dims[0], dims[1], dims[2]);
    }
    float *data = (float *) folder_find(folder, name)->data;
    if (place->stack != MOE_STACK_NONE)
        data += e * n_out * n_in;
    for (uint32_t r = 0; r < size.n_rows; r++) {
        for (uint32_t c = 0; c < size.n_columns; c++) {
            uint64_t row = first + step * r;
            size_t at = (size_t) (place->transposed ? c * n_in + row : row * n_in + c);
            data[at] = value_of(part, e, (size_t) r * size.n_columns + c);
        }
    }
}

static void write_family(const struct moe_family *family)
{
    struct folder folder = {.n_tensors = 0};
    char config[1024], type[64];
    for (int part = 0; part < VKMOE_N_PARTS; part++) {
        struct size size = size_of(family, part);
        const struct moe_place *place = place_of(family->layout, part);
        if (size.n > 0 && !place)
            fail_msg("%s has %s but no place for it", family->name,
                     vkmoe_part_name((enum vkmoe_part) part));
        for (uint32_t e = 0; e < size.n; e++)
            write_matrix(&folder, family->layout, place, part, e, size);
    }
    snprintf(type, sizeof type, "%.*s", (int) strcspn(family->types, "|"), family->types);
    snprintf(config, sizeof config, "{\"model_type\": \"%s\", \"swiglu_limit\": %d, "
             "\"router_bias\": %s, %s}", type, family->rules.clamp == VKMOE_CLAMP_NONE ? 0 : 5,
             family->rules.router_bias ? "true" : "false", keys);
    folder_write(&folder, config);
    folder_finish(&folder);
}

// ---- checking --------------------------------------------------------------------------------

static void check_values(const struct moe_family *family, vkmoe_checkpoint *checkpoint)
{
    for (int id = 0; id < VKMOE_N_PARTS; id++) {
        struct size size = size_of(family, id);
        vkmoe_checkpoint_part part;
        float values[64 * 8];
        check_ok(vkmoe_checkpoint_get_part(checkpoint, LAYER, (enum vkmoe_part) id, &part));
        if (part.n != size.n)
            fail_msg("%s: %u %s, not %u", family->name, part.n,
                     vkmoe_part_name((enum vkmoe_part) id), size.n);
        size_t n = (size_t) part.n_rows * part.n_columns;
        for (uint32_t e = 0; e < part.n; e++) {
            assert_int_equal(n, size.n_rows * size.n_columns);
            assert_true(n <= 64 * 8);
            check_ok(vkmoe_checkpoint_read(checkpoint, LAYER, (enum vkmoe_part) id, e, 0,
                                           part.n_rows, values));
            for (size_t i = 0; i < n; i++) {
                if (values[i] != value_of(id, e, i))
                    fail_msg("%s: %s %u, value %zu: %g, not %g", family->name,
                             vkmoe_part_name((enum vkmoe_part) id), e, i, (double) values[i],
                             (double) value_of(id, e, i));
            }
        }
    }
}

static void check_rules(const struct moe_family *family, const vkmoe_layer_desc *d)
{
    const vkmoe_layer_desc *r = &family->rules;
    assert_int_equal(d->n_experts, E);
    assert_int_equal(d->top_k, K);
    assert_int_equal(d->d_model, D);
    assert_int_equal(d->d_ff, F);
    assert_int_equal(d->score, r->score);
    assert_int_equal(d->rank, r->rank);
    assert_int_equal(d->select, r->select);
    assert_int_equal(d->gate_source, r->gate_source);
    assert_int_equal(d->norm, r->norm);
    assert_int_equal(d->selection_bias, r->selection_bias);
    assert_int_equal(d->router_bias, r->router_bias);
    assert_int_equal(d->gated, r->gated);
    assert_int_equal(d->act, r->act);
    assert_int_equal(d->clamp, r->clamp);
    if (r->clamp != VKMOE_CLAMP_NONE)
        assert_true(d->limit == 5 && d->limit_shared == 5);
    assert_int_equal(d->weight_on_input, r->weight_on_input);
    assert_int_equal(d->shared_gate, r->shared_gate);
    assert_int_equal(d->d_shared_ff > 0, size_of(family, VKMOE_PART_SHARED + 1).n > 0);
    assert_true(d->in_type == VKMOE_F32 && d->out_type == VKMOE_F32 && !d->own_shared_types);
}

static void test_families(void **state)
{
    vkmoe_context *context = context_on("reference", NULL);
    (void) state;
    for (uint32_t i = 0; i < moe_n_families; i++) {
        const struct moe_family *family = &moe_families[i];
        vkmoe_checkpoint *checkpoint;
        vkmoe_checkpoint_info info;
        vkmoe_layer_desc desc;
        vkmoe_weights *weights;
        vkmoe_load_report report;
        write_family(family);
        check_ok(vkmoe_checkpoint_open(scratch_folder(), NULL, &checkpoint));
        check_ok(vkmoe_checkpoint_get_info(checkpoint, &info));
        assert_string_equal(info.family, family->name);
        check_ok(vkmoe_checkpoint_load(checkpoint, context, LAYER, NULL, &desc, &weights,
                                       &report));
        check_rules(family, &desc);
        check_values(family, checkpoint);
        for (uint32_t k = 0; k < report.n_parts; k++)
            assert_true(report.parts[k].exact);
        vkmoe_weights_destroy(weights);
        vkmoe_checkpoint_destroy(checkpoint);
    }
    vkmoe_context_destroy(context);
}

// Configurations of these may ask for a bias that they usually do without.
static void test_router_bias(void **state)
{
    static const char *const names[] = {"switch_transformers", "nllb_moe", "longcat_flash"};
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(names); i++) {
        struct moe_family family = *moe_family_named(names[i]);
        vkmoe_checkpoint *checkpoint;
        vkmoe_checkpoint_layer layer;
        family.rules.router_bias = true;
        write_family(&family);
        check_ok(vkmoe_checkpoint_open(scratch_folder(), NULL, &checkpoint));
        check_ok(vkmoe_checkpoint_get_layer(checkpoint, LAYER, &layer));
        assert_true(layer.desc.router_bias);
        check_values(&family, checkpoint);
        vkmoe_checkpoint_destroy(checkpoint);
    }
}

// The authors of these divide by the sum only where there are several to sum.
static void test_norm_of_one(void **state)
{
    static const struct {
        const char *family;
        enum vkmoe_norm one;
    } cases[] = {
        {"arctic", VKMOE_NORM_NONE},         {"bailing_moe", VKMOE_NORM_NONE},
        {"bailing_moe_v2", VKMOE_NORM_NONE}, {"bailing_moe_v3", VKMOE_NORM_NONE},
        {"deepseek", VKMOE_NORM_NONE},       {"deepseek_v2", VKMOE_NORM_NONE},
        {"kimi_linear", VKMOE_NORM_NONE},    {"mixtral", VKMOE_NORM_SUM_PLUS_EPS},
        {"deepseek_v3", VKMOE_NORM_SUM_PLUS_EPS},
    };
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        for (int k = 1; k <= 2; k++) {
            json_t *config = json_pack("{s:f, s:b}", "num_experts_per_tok", (double) k,
                                       "norm_topk_prob", 1);
            const struct moe_lookup lookup = {.file = "config.json", .root = config};
            struct moe_facts facts;
            check_ok(moe_family_facts(moe_family_named(cases[i].family), &lookup, 0, &facts));
            if (facts.d.norm != (k == 1 ? cases[i].one : VKMOE_NORM_SUM_PLUS_EPS))
                fail_msg("%s, %d experts: norm %d", cases[i].family, k, (int) facts.d.norm);
            json_decref(config);
        }
    }
}

// What DBRX divides its gate weights by: as usual where it is not said, nothing where it is null.
static void test_dbrx(void **state)
{
    static const struct {
        const char *config;
        enum vkmoe_norm norm;
        float p;
    } cases[] = {
        {"{\"ffn_config\": {}}", VKMOE_NORM_SUM_PLUS_EPS, 1},
        {"{\"ffn_config\": {\"moe_normalize_expert_weights\": 2}}", VKMOE_NORM_SUM_PLUS_EPS, 2},
        {"{\"ffn_config\": {\"moe_normalize_expert_weights\": null}}", VKMOE_NORM_NONE, 1},
    };
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        json_t *config = json_loads(cases[i].config, JSON_DECODE_INT_AS_REAL, NULL);
        const struct moe_lookup lookup = {.file = "config.json", .root = config};
        struct moe_facts facts;
        check_ok(moe_family_facts(moe_family_named("dbrx"), &lookup, 0, &facts));
        assert_int_equal(facts.d.norm, cases[i].norm);
        assert_true(facts.d.norm_p == cases[i].p);
        json_decref(config);
    }
}

// Names are found by one row only, and each is another.
static void test_names(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < moe_n_families; i++) {
        const struct moe_family *family = &moe_families[i];
        assert_string_equal(vkmoe_family_name(i), family->name);
        assert_ptr_equal(moe_family_named(family->name), family);
        const char *const columns[] = {family->types, family->archs ? family->archs : ""};
        for (int column = 0; column < 2; column++) {
            for (const char *word = columns[column]; *word;) {
                char name[64];
                size_t n = strcspn(word, "|");
                snprintf(name, sizeof name, "%.*s", (int) n, word);
                for (uint32_t k = 0; k < moe_n_families; k++) {
                    const char *other = column ? moe_families[k].archs : moe_families[k].types;
                    if (k != i && moe_word_index(other, name) >= 0)
                        fail_msg("'%s' is of %s and %s", name, family->name,
                                 moe_families[k].name);
                }
                word += n + (word[n] == '|');
            }
        }
    }
    assert_null(vkmoe_family_name(moe_n_families));
    assert_null(moe_family_named("nobody"));
    assert_null(moe_family_of_type("nobody"));
    assert_string_equal(moe_family_of_type("llada_moe")->name, "llada_moe");
    assert_string_equal(moe_family_of_type("llada2_moe")->name, "bailing_moe_v2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_router_bias),
        cmocka_unit_test(test_norm_of_one), cmocka_unit_test(test_dbrx),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
