// SPDX-License-Identifier: MIT
#include "model_fixture.h"

#include "check.h"
#include "scratch.h"

#include "base/host.h"

#include <stdio.h>

const char full_config[] =
    "{\"format\":\"vkmoe-model/1\",\"task\":\"classify\",\"classes\":[\"no\",\"yes\"],"
    "\"input\":{\"kind\":\"standardize\",\"n_features\":3},"
    "\"layers\":[{\"kind\":\"moe\",\"d_in\":3,\"d_ff\":4,\"d_out\":2,\"n_experts\":2,\"top_k\":1,"
    "\"router\":{\"score\":\"sigmoid\",\"order\":\"score_then_topk\",\"renormalize\":true,"
    "\"eps\":0.5,\"routed_scale\":2.5,\"bias\":true,\"selection_bias\":true},"
    "\"expert\":{\"gated\":true,\"activation\":\"silu\",\"output_activation\":\"tanh\","
    "\"bias\":true},"
    "\"shared\":{\"d_ff\":5,\"gate\":\"sigmoid\"},"
    "\"combine\":\"weighted_sum\",\"residual\":false}],"
    "\"head\":\"softmax\"}";

static const struct moe_st_source tensors[FULL_TENSORS] = {
    {"input.mean", "F32", 1, {3}, NULL},
    {"input.std", "F32", 1, {3}, NULL},
    {"layers.0.router.weight", "F32", 2, {2, 3}, NULL},
    {"layers.0.router.bias", "F32", 1, {2}, NULL},
    {"layers.0.router.selection_bias", "F32", 1, {2}, NULL},
    {"layers.0.experts.gate.weight", "F32", 3, {2, 4, 3}, NULL},
    {"layers.0.experts.gate.bias", "F32", 2, {2, 4}, NULL},
    {"layers.0.experts.up.weight", "F32", 3, {2, 4, 3}, NULL},
    {"layers.0.experts.up.bias", "F32", 2, {2, 4}, NULL},
    {"layers.0.experts.down.weight", "F32", 3, {2, 2, 4}, NULL},
    {"layers.0.experts.down.bias", "F32", 2, {2, 2}, NULL},
    {"layers.0.shared.gate.weight", "F32", 2, {5, 3}, NULL},
    {"layers.0.shared.gate.bias", "F32", 1, {5}, NULL},
    {"layers.0.shared.up.weight", "F32", 2, {5, 3}, NULL},
    {"layers.0.shared.up.bias", "F32", 1, {5}, NULL},
    {"layers.0.shared.down.weight", "F32", 2, {2, 5}, NULL},
    {"layers.0.shared.down.bias", "F32", 1, {2}, NULL},
    {"layers.0.shared.gate_vector", "F32", 1, {3}, NULL},
};

void full_tensors(struct moe_st_source out[FULL_TENSORS])
{
    static float values[64];
    for (int i = 0; i < 64; i++)
        values[i] = 0.25f + (float) (i * 37 % 64) / 64;
    memcpy(out, tensors, sizeof tensors);
    for (int i = 0; i < FULL_TENSORS; i++)
        out[i].data = values + i;
}

const char *edited(const char *text, const char *from, const char *to)
{
    static char out[4096];
    const char *at = strstr(text, from);
    if (!at || strstr(at + 1, from))
        fail_msg("'%s' is not there once", from);
    snprintf(out, sizeof out, "%.*s%s%s", (int) (at - text), text, to, at + strlen(from));
    return out;
}

const char *write_model(const char *config, const struct moe_st_source *sources, size_t n_tensors)
{
    const char *path = scratch_path("model.safetensors");
    json_t *metadata = json_pack("{s:s, s:s}", "format", "vkmoe-model/1", "config", config);
    check_ok(moe_safetensors_write(moe_host_default(), path, sources, n_tensors, metadata));
    json_decref(metadata);
    return path;
}
