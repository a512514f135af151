// SPDX-License-Identifier: MIT
// Checks a batch and takes it to the device.
#include "api/net.h"

#include "base/desc.h"

static const struct moe_net_tensor *tensor(const vkmoe_net *net, uint32_t i)
{
    return &net->train->net->tensors[i];
}

static enum vkmoe_status check_sizes(const vkmoe_net *net, vkmoe_net_batch *batch)
{
    const struct moe_net *built = net->train->net;
    if (batch->n_tokens < 1 || batch->n_tokens > built->max_tokens)
        return moe_fail(VKMOE_E_SHAPE, "batch.n_tokens = %u: must be 1 to %u", batch->n_tokens,
                        built->max_tokens);
    if (!net->train->pools && batch->n_examples == 0)
        batch->n_examples = batch->n_tokens;
    if (!net->train->pools && batch->n_examples != batch->n_tokens)
        return moe_fail(VKMOE_E_SHAPE, "batch.n_examples = %u: without a pool layer each of %u "
                        "tokens is an example", batch->n_examples, batch->n_tokens);
    if (batch->n_examples < 1 || batch->n_examples > built->max_examples)
        return moe_fail(VKMOE_E_SHAPE, "batch.n_examples = %u: must be 1 to %u", batch->n_examples,
                        built->max_examples);
    return VKMOE_OK;
}

// values[i] in 0 .. n_values - 1
static enum vkmoe_status check_range(const char *name, const int32_t *values, uint32_t n,
                                     uint32_t n_values)
{
    for (uint32_t i = 0; i < n; i++)
        if (values[i] < 0 || (uint32_t) values[i] >= n_values)
            return moe_fail(VKMOE_E_ARGUMENT, "batch.%s[%u] = %d: must be 0 to %u", name, i,
                            values[i], n_values - 1);
    return VKMOE_OK;
}

static enum vkmoe_status check_offsets(const vkmoe_net_batch *batch)
{
    const int32_t *offsets = batch->offsets;
    if (offsets[0] != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "batch.offsets[0] = %d: must be 0", offsets[0]);
    for (uint32_t i = 0; i < batch->n_examples; i++)
        if (offsets[i + 1] < offsets[i])
            return moe_fail(VKMOE_E_ARGUMENT, "batch.offsets[%u] = %d, behind %d: must ascend",
                            i + 1, offsets[i + 1], offsets[i]);
    if ((uint32_t) offsets[batch->n_examples] != batch->n_tokens)
        return moe_fail(VKMOE_E_ARGUMENT, "batch.offsets[%u] = %d: the last one must be n_tokens = "
                        "%u", batch->n_examples, offsets[batch->n_examples], batch->n_tokens);
    return VKMOE_OK;
}

static enum vkmoe_status check_probabilities(const vkmoe_net *net, const vkmoe_net_batch *batch)
{
    uint32_t width = net->train->y_width;
    for (uint64_t i = 0; i < (uint64_t) batch->n_examples * width; i++)
        if (!(batch->targets[i] >= 0 && batch->targets[i] <= 1))
            return moe_fail(VKMOE_E_ARGUMENT, "batch.targets, example %llu, output %llu: %g: must "
                            "be 0 to 1", (unsigned long long) (i / width),
                            (unsigned long long) (i % width), (double) batch->targets[i]);
    return VKMOE_OK;
}

static enum vkmoe_status check(const vkmoe_net *net, const vkmoe_net_batch *batch)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_train *train = net->train;
    bool is_bce = net->loss == VKMOE_LOSS_BCE || net->loss == VKMOE_LOSS_BCE_LOGITS;
    if (train->token_ids != MOE_NET_NONE) {
        TRY(moe_api_not_null("batch", "token_ids", batch->token_ids));
        TRY(check_range("token_ids", batch->token_ids, batch->n_tokens,
                        tensor(net, train->params[0].value)->n)); // the table
    } else {
        TRY(moe_api_not_null("batch", "x", batch->x));
    }
    if (train->pools) {
        TRY(moe_api_not_null("batch", "offsets", batch->offsets));
        TRY(check_offsets(batch));
    }
    if (train->labels != MOE_NET_NONE && batch->labels)
        TRY(check_range("labels", batch->labels, batch->n_examples, train->y_width));
    if (train->targets != MOE_NET_NONE && batch->targets && is_bce)
        TRY(check_probabilities(net, batch));
fail:
    return status;
}

// What the loss is divided by. Without weight there is no loss, and any divisor will do.
static double count_examples(const vkmoe_net *net, const vkmoe_net_batch *batch)
{
    double sum = 0;
    if (!net->class_weights || !batch->labels)
        return batch->n_examples;
    for (uint32_t i = 0; i < batch->n_examples; i++)
        sum += (double) net->class_weights[batch->labels[i]];
    return sum > 0 ? sum : 1;
}

static enum vkmoe_status write_input(vkmoe_net *net, uint32_t i, uint64_t n, const void *data)
{
    if (i == MOE_NET_NONE || !data)
        return VKMOE_OK;
    return net->context->device->backend->net_write(net->on_device, i, n, data);
}

enum vkmoe_status moe_api_net_batch(vkmoe_net *net, const vkmoe_net_batch *batch)
{
    enum vkmoe_status status;
    const struct moe_train *train = net->train;
    vkmoe_net_batch full = vkmoe_net_batch_init();
    TRY(moe_desc_copy(&full, sizeof full, batch, "vkmoe_net_batch"));
    TRY(check_sizes(net, &full));
    TRY(check(net, &full));
    uint64_t n_tokens = full.n_tokens, n_examples = full.n_examples;
    net->ran = MOE_API_RAN_NOTHING;
    if (train->x != MOE_NET_NONE)
        TRY(write_input(net, train->x, n_tokens * tensor(net, train->x)->width, full.x));
    TRY(write_input(net, train->token_ids, n_tokens, full.token_ids));
    TRY(write_input(net, train->offsets, n_examples + 1, full.offsets));
    TRY(write_input(net, train->labels, n_examples, full.labels));
    TRY(write_input(net, train->targets, n_examples * train->y_width, full.targets));
    net->n_tokens = full.n_tokens;
    net->n_examples = full.n_examples;
    net->has_targets = train->labels != MOE_NET_NONE ? full.labels != NULL : full.targets != NULL;
    net->examples = count_examples(net, &full);
fail:
    return status;
}
