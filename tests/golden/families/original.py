# SPDX-License-Identifier: MIT
"""The blocks that transformers lacks or gets wrong, written down from their authors' code.

Each takes the configuration and the tensors as they are published, and computes token by token.
The comment names the code that it was read from (families of sources as in README.md).
"""
import torch
import torch.nn.functional as F


def under(tensors, prefix):
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def swiglu(t, at, x, names=('gate_proj', 'up_proj', 'down_proj')):
    gate, up, down = (t[f'{at}{name}.weight'] for name in names)
    return down @ (F.silu(gate @ x) * (up @ x))


def each(x, token):
    return torch.stack([token(row, i) for i, row in enumerate(x)])


# deepseek-ai/DeepSeek-V3 inference/model.py, Gate.forward with score_func softmax, without bias
def deepseek_v2(config, tensors, x):
    t = under(tensors, 'model.layers.1.mlp.')

    def token(row, _):
        scores = torch.softmax(t['gate.weight'] @ row, 0)
        groups = scores.view(config['n_group'], -1)
        kept = groups.max(1).values.topk(config['topk_group']).indices
        mask = torch.zeros_like(groups)
        mask[kept] = 1
        chosen = (groups * mask).flatten().topk(config['num_experts_per_tok']).indices
        y = swiglu(t, 'shared_experts.', row)
        for e in chosen:
            y = y + scores[e] * config['routed_scaling_factor'] * swiglu(t, f'experts.{e}.', row)
        return y

    return each(x, token)


# databricks/dbrx model/modeling_dbrx.py, DbrxRouter and DbrxExpertGLU
def dbrx(config, tensors, x):
    t, ffn = under(tensors, 'transformer.blocks.1.ffn.'), config['ffn_config']
    shape = (ffn['moe_num_experts'], ffn['ffn_hidden_size'], config['d_model'])
    w1, v1, w2 = (t[f'experts.mlp.{name}'].view(shape) for name in ('w1', 'v1', 'w2'))

    def token(row, _):
        weights = torch.softmax(t['router.layer.weight'] @ row, 0)
        top, chosen = weights.topk(ffn['moe_top_k'])
        top = top / torch.norm(top, p=ffn['moe_normalize_expert_weights'])
        return sum(g * (F.silu(row @ w1[e].T) * (row @ v1[e].T)) @ w2[e]
                   for g, e in zip(top, chosen))

    return each(x, token)


# meituan-longcat/LongCat-Flash modeling_longcat_flash.py, TopkRouter and MoE
def longcat(config, tensors, x):
    t = under(tensors, 'model.layers.1.mlp.')

    def token(row, _):
        logits = t['router.classifier.weight'] @ row + t['router.classifier.bias']
        scores = torch.softmax(logits, 0)
        ranks = scores + t['router.e_score_correction_bias']
        y = 0
        for e in ranks.topk(config['moe_topk']).indices:
            real = e < config['n_routed_experts']
            part = swiglu(t, f'experts.{e}.', row) if real else row
            y = y + config['routed_scaling_factor'] * scores[e] * part
        return y

    return each(x, token)
