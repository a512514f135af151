// SPDX-License-Identifier: MIT
// Losses, and BACKWARD as a whole: loss, auxiliary losses, then the gradients of everything.
#include "train/train.h"

#include "base/status.h"

static enum moe_net_point point_kind(enum vkmoe_loss loss)
{
    switch (loss) {
    case VKMOE_LOSS_BCE:
        return MOE_NET_POINT_BCE;
    case VKMOE_LOSS_BCE_LOGITS:
        return MOE_NET_POINT_BCE_LOGITS;
    case VKMOE_LOSS_HUBER:
        return MOE_NET_POINT_HUBER;
    case VKMOE_LOSS_MSE:
    case VKMOE_LOSS_CROSS_ENTROPY:
    case VKMOE_LOSS_MIXTURE:
        break;
    }
    return MOE_NET_POINT_MSE;
}

// sum = the sum of all elements of a, or += it
static void reduce(const struct moe_emit *emit, uint32_t sum, uint32_t a, enum moe_net_write write)
{
    moe_emit_op(emit, MOE_NET_REDUCE, sum, a, MOE_NET_NONE, MOE_NET_NONE)->write = write;
}

void moe_build_loss(struct moe_build *build, enum moe_net_program program,
                    const struct moe_train_loss *loss)
{
    const struct moe_train *train = build->train;
    const vkmoe_net_desc *desc = &build->spec->desc;
    const struct moe_emit emit = {train->net, program};
    const struct moe_train_ends *ends = &loss->ends;
    uint32_t target = train->labels != MOE_NET_NONE ? train->labels : train->targets;
    uint32_t rows = moe_emit_value(&emit, moe_emit_rows(&emit, ends->y), 1, "losses");
    struct moe_net_op *op;
    switch (desc->loss) {
    case VKMOE_LOSS_CROSS_ENTROPY:
        op = moe_emit_op(&emit, MOE_NET_CROSS_ENTROPY, rows, ends->y, target,
                         train->class_weights);
        op->out[1] = loss->d_y;
        op->beta = desc->label_smoothing;
        break;
    case VKMOE_LOSS_BCE:
    case VKMOE_LOSS_BCE_LOGITS:
    case VKMOE_LOSS_MSE:
    case VKMOE_LOSS_HUBER:
        op = moe_emit_op(&emit, MOE_NET_POINT_LOSS, rows, ends->y, target, MOE_NET_NONE);
        op->out[1] = loss->d_y;
        op->n = point_kind(desc->loss);
        op->alpha = 1 / (float) train->y_width; // the mean over the outputs
        op->beta = desc->huber_delta;
        break;
    case VKMOE_LOSS_MIXTURE:
        op = moe_emit_op(&emit, MOE_NET_MIXTURE_NLL, rows, ends->f, ends->gates, target);
        op->out[1] = loss->d_f;
        op->out[2] = loss->d_gates;
        op->n = !desc->labels;
        op->beta = desc->variance;
        op->top_k = ends->top_k;
        break;
    }
    reduce(&emit, loss->sum, rows, MOE_NET_SET);
}

// The auxiliary losses of one layer, added to the batch's; they come before any other gradient of
// the tensors they begin at.
static void build_aux(struct moe_build *build, struct moe_gradient *gradient,
                      const struct moe_train_aux *aux)
{
    const struct moe_emit emit = {build->train->net, MOE_NET_BACKWARD};
    if (aux->load_balance != 0) {
        uint32_t loss = moe_emit_value(&emit, moe_emit_fixed(1), 1, "balance");
        struct moe_train_target dp = moe_gradient_target(gradient, aux->p);
        struct moe_net_op *op =
            moe_emit_op(&emit, MOE_NET_BALANCE, loss, aux->p, aux->starts, MOE_NET_NONE);
        op->out[1] = dp.tensor;
        op->top_k = aux->top_k;
        op->alpha = aux->load_balance;
        reduce(&emit, build->train->batch_loss, loss, MOE_NET_ADD);
    }
    if (aux->z_loss != 0) {
        uint32_t loss = moe_emit_value(&emit, moe_emit_fixed(1), 1, "z_loss");
        struct moe_train_target dl = moe_gradient_target(gradient, aux->logits);
        struct moe_net_op *op =
            moe_emit_op(&emit, MOE_NET_Z_LOSS, loss, aux->logits, MOE_NET_NONE, MOE_NET_NONE);
        op->out[1] = dl.tensor;
        op->alpha = aux->z_loss;
        reduce(&emit, build->train->batch_loss, loss, MOE_NET_ADD);
    }
}

// The gradients that the loss begins.
static void build_losses(struct moe_build *build, struct moe_gradient *gradient)
{
    struct moe_train *train = build->train;
    const struct moe_emit emit = {train->net, MOE_NET_BACKWARD};
    struct moe_train_loss loss = {build->ends, train->batch_loss, MOE_NET_NONE, MOE_NET_NONE,
                                  MOE_NET_NONE};
    if (build->spec->desc.loss == VKMOE_LOSS_MIXTURE) {
        loss.d_f = moe_gradient_target(gradient, build->ends.f).tensor;
        loss.d_gates = moe_gradient_target(gradient, build->ends.gates).tensor;
    } else {
        loss.d_y = moe_gradient_target(gradient, build->ends.y).tensor;
    }
    moe_build_loss(build, MOE_NET_BACKWARD, &loss);
    for (uint32_t i = 0; i < train->n_aux; i++)
        build_aux(build, gradient, &train->aux[i]);
    reduce(&emit, train->step_loss, train->batch_loss, MOE_NET_ADD_LATER);
    for (uint32_t i = 0; i < train->n_balances; i++)
        moe_emit_op(&emit, MOE_NET_COUNT, train->balances[i].counts, train->balances[i].starts,
                    MOE_NET_NONE, MOE_NET_NONE)->write = MOE_NET_ADD_LATER;
}

enum vkmoe_status moe_build_backward(struct moe_build *build)
{
    enum vkmoe_status status;
    struct moe_train *train = build->train;
    struct moe_gradient *gradient = NULL;
    TRY(moe_gradient_create(train, build->one_layer, &gradient));
    if (build->one_layer) {
        const struct moe_emit emit = {train->net, MOE_NET_BACKWARD};
        struct moe_train_target to = moe_gradient_target(gradient, build->ends.y);
        moe_emit_op(&emit, MOE_NET_SCALE_ROWS, to.tensor, train->dy, MOE_NET_NONE, MOE_NET_NONE);
    } else {
        build_losses(build, gradient);
    }
    moe_gradient_run(gradient);
    if (build->one_layer) {
        train->dx = moe_gradient_of(gradient, train->x);
        moe_build_keep(build, train->dx);
    }
fail:
    moe_gradient_destroy(gradient);
    return status;
}
