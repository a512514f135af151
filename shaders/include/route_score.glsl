// SPDX-License-Identifier: MIT
// Of one logit: the soft-cap, its score, what it ranks by. Included after act.glsl.
layout(constant_id = MOE_SPEC_SCORE) const uint SCORE = 0; // enum vkmoe_score
layout(constant_id = MOE_SPEC_RANK) const uint RANK = 0;   // enum vkmoe_rank
layout(constant_id = MOE_SPEC_SOFTCAP) const float SOFTCAP = 0.0; // 0: none

const uint SCORE_SOFTMAX = 0, SCORE_SIGMOID = 1, SCORE_SQRT_SOFTPLUS = 2, SCORE_RELU = 3;
const uint RANK_SCORE = 0, RANK_LOGIT = 1;

float soft_cap(float logit)
{
    return SOFTCAP > 0.0 ? SOFTCAP * act_tanh(logit / SOFTCAP) : logit;
}

// top and sum: the largest logit of the token, and the sum of exp(l - top); only with softmax.
float score_of(float logit, float top, float sum)
{
    switch (SCORE) {
    case SCORE_SOFTMAX:
        return act_exp(logit - top) / sum;
    case SCORE_SIGMOID:
        return act_sigmoid(logit);
    case SCORE_SQRT_SOFTPLUS: {
        float v = softplus(logit);
        return is_nan(v) ? v : sqrt(v);
    }
    case SCORE_RELU:
        return at_least(logit, 0.0);
    default:
        return logit;
    }
}

float rank_of(float logit, float score)
{
    if (RANK == RANK_SCORE)
        return score;
    return RANK == RANK_LOGIT ? logit : act_sigmoid(logit);
}
