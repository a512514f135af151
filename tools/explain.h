// SPDX-License-Identifier: MIT
// What vkmoe explain found out, for its reports.
#ifndef EXPLAIN_H
#define EXPLAIN_H

#include "cli.h"
#include "html.h"
#include "rows.h"

#include <stdio.h>
#include <vkmoe/explain.h>

enum { EXPLAIN_NAME = 96 }; // room for the name of a group or a feature

// A row that was asked for.
struct explain_row {
    uint64_t row;  // from 1
    bool found;
    int32_t label; // classify
    float *values;  // (n_outputs) targets, regress
    float *y;       // (n_outputs) before the head
    float *scores;  // (n_outputs) after it
    float *gates;   // (top_k)
    int32_t *ids;   // (top_k)
    float *parts;   // (top_k, n_outputs) gate weight times the expert's own output
};

struct explain_report {
    const char *model_path, *data_path;
    vkmoe_device_info device;
    const vkmoe_model *model;
    vkmoe_model_info info;
    uint32_t layer;
    bool by_token; // the layer's rows are tokens
    vkmoe_layer_desc desc;
    const vkmoe_explain *explain;
    vkmoe_explain_summary summary;
    const vkmoe_dataset *data; // knows the names of features
    uint32_t *served;          // (n_groups) room

    struct explain_row *rows; // (n_rows)
    uint32_t n_rows;
    bool has_parts; // what an expert adds to the output is known
    vkmoe_session **alone; // (n_experts) sessions of one expert, NULL where not needed
    float *row_floats;     // what the rows point at
    int32_t *row_ids;

    // Square images: the inputs that each expert is most certain of.
    uint32_t image_side; // 0: rows are no images
    float *pictures;     // (n_experts, n_certain, n_features)
    uint32_t n_certain;
};

// ---- rows that are asked for ------------------------------------------------------------------

// "I[,I]" -> report->rows. CLI_OK, or the exit code of a usage error.
int explain_rows_parse(const struct cli_spec *spec, const char *text,
                       struct explain_report *report);

// For a report whose model and layer are known.
enum vkmoe_status explain_rows_open(struct explain_report *report);
void explain_rows_close(struct explain_report *report);

// A batch that was run.
struct explain_run {
    vkmoe_context *context;
    const vkmoe_session_desc *desc; // of the session
    const struct rows *rows;
    uint64_t n_before; // rows before the batch
};

// Keeps what is asked for among the batch; y, whose content is gone afterwards, and scores
// (n, n_outputs).
enum vkmoe_status explain_rows_add(struct explain_report *report, const struct explain_run *run,
                                   float *y, const float *scores);

// VKMOE_E_DATA: a row that the data's n_rows do not have.
enum vkmoe_status explain_rows_check(const struct explain_report *report, uint64_t n_rows);

// ---- words and numbers -----------------------------------------------------------------------

// Into `out`, EXPLAIN_NAME bytes: "7", or "12 to 80.5" for a quarter of a regression.
void explain_group_name(const struct explain_report *report, uint32_t group, char *out);

// The name in the data's header, when the layer reads the data; else "x[12]".
void explain_feature_name(const struct explain_report *report, uint32_t feature, char *out);

// The header's name alone, or NULL.
const char *explain_header_name(const struct explain_report *report, uint32_t feature);

// Puts the groups of an expert into report->served, most slots first; how many have slots.
uint32_t explain_served(const struct explain_report *report, const vkmoe_explain_expert *expert);

// What a row was decided by: for a class, how far its output is above the next one's.
struct explain_verdict {
    int32_t answer, second; // classes; -1: there is none
    double score;           // of the answer, 0 to 1
    double margin;          // output of the answer less that of the second; NaN: no two outputs
    uint32_t decider;       // k of the expert with the largest part in it
};

struct explain_verdict explain_judge(const struct explain_report *report,
                                     const struct explain_row *row);

// What the k-th expert of a row adds: to the output of the answer (or to the first output), and to
// the margin.
double explain_part(const struct explain_report *report, const struct explain_row *row,
                    const struct explain_verdict *verdict, uint32_t k);
double explain_margin_part(const struct explain_report *report, const struct explain_row *row,
                           const struct explain_verdict *verdict, uint32_t k);

// ---- reports ---------------------------------------------------------------------------------

json_t *explain_json(const struct explain_report *report); // NULL: no memory
void explain_print(const struct explain_report *report);

// The whole page. *text is for free().
enum vkmoe_status explain_html(const struct explain_report *report, char **text, size_t *size);

// Parts of it, in files of their own.
void explain_html_style(FILE *page);
void explain_html_experts(FILE *page, const struct explain_report *report);
void explain_html_rows(FILE *page, const struct explain_report *report);

#endif
