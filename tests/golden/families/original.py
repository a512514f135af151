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


# google/switch_transformers (HF 4.x SwitchTransformersTop1Router and SparseMLP): a sequence is one
# row, and what an expert gets beyond its capacity contributes nothing
def switch(config, tensors, x):
    t = under(tensors, 'encoder.block.1.layer.1.mlp.')
    used = [0] * config['num_experts']

    def token(row, _):
        p = torch.softmax(t['router.classifier.weight'] @ row, 0)
        e = int(p.argmax())
        used[e] += 1
        if used[e] > config['expert_capacity']:
            return torch.zeros_like(row)
        wi, wo = (t[f'experts.expert_{e}.{name}.weight'] for name in ('wi', 'wo'))
        return p[e] * (wo @ F.relu(wi @ row))

    return each(x, token)


# facebook/nllb-moe (HF 4.x NllbMoeTop2Router and SparseMLP), evaluation, nothing dropped
def nllb(config, tensors, x):
    t = under(tensors, 'model.encoder.layers.1.ffn.')

    def token(row, _):
        p = torch.softmax(t['router.classifier.weight'] @ row, 0)
        top, chosen = p.topk(2)
        top = top / top.sum().clamp(min=torch.finfo(torch.float32).eps)
        y = 0
        for g, e in zip(top, chosen):
            w = under(t, f'experts.expert_{e}.')
            h = F.relu(w['fc1.weight'] @ row + w['fc1.bias'])
            y = y + g * (w['fc2.weight'] @ h + w['fc2.bias'])
        return y * (1 - config['moe_token_dropout'])

    return each(x, token)


# xai-org/grok-1 model.py, Router and MoELayer: weights as they are, no soft-cap
def grok_1(config, tensors, x):
    t = under(tensors, 'transformer.decoder_layer.1.')

    def token(row, _):
        p = torch.softmax(t['router.weight'] @ row, 0)
        top, chosen = p.topk(config['num_experts_per_tok'])
        y = 0
        for g, e in zip(top, chosen):
            w = under(t, f'moe.{e}.')
            h = F.gelu(w['linear.weight'] @ row, approximate='tanh') * (w['linear_v.weight'] @ row)
            y = y + g * (w['linear_1.weight'] @ h)
        return y

    return each(x, token)


# vLLM models/grok1.py for Grok-2: soft-cap on the logits, renormalised
def grok_2(config, tensors, x):
    t = under(tensors, 'model.layers.1.block_sparse_moe.')
    cap = config['router_logit_softcapping']

    def token(row, _):
        p = torch.softmax(cap * torch.tanh(t['gate.weight'] @ row / cap), 0)
        top, chosen = p.topk(config['num_experts_per_tok'])
        y = 0
        for g, e in zip(top / top.sum(), chosen):
            w = under(t, f'experts.{e}.')
            h = F.gelu(w['w1.weight'] @ row, approximate='tanh') * (w['w3.weight'] @ row)
            y = y + g * (w['w2.weight'] @ h)
        return y

    return each(x, token)


# vLLM models/arctic.py, ArcticMoE
def arctic(config, tensors, x):
    t = under(tensors, 'model.layers.1.block_sparse_moe.')

    def token(row, _):
        top, chosen = torch.softmax(t['gate.weight'] @ row, 0).topk(config['num_experts_per_tok'])
        return sum(g * swiglu(t, f'experts.{e}.', row, ('w1', 'w3', 'w2'))
                   for g, e in zip(top / top.sum(), chosen))

    return each(x, token)


# Tiiny SmallThinker: the logits choose; sigmoid and renormalised, or softmax over the chosen
def smallthinker(config, tensors, x, router_input):
    t = under(tensors, 'model.layers.1.block_sparse_moe.')

    def token(row, i):
        logits = t['primary_router.weight'] @ router_input[i]
        top, chosen = logits.topk(config['moe_num_active_primary_experts'])
        if config['moe_primary_router_apply_softmax']:
            top = torch.softmax(top, 0)
        else:
            top = torch.sigmoid(top)
            top = top / top.sum()
        y = 0
        for g, e in zip(top, chosen):
            gate, up, down = (t[f'experts.{e}.{name}.weight'] for name in ('gate', 'up', 'down'))
            y = y + g * (down @ (F.relu(gate @ row) * (up @ row)))
        return y

    return each(x, token)


# inclusionAI/GroveMoE grovemoe.py:242-275: chosen by sigmoid, weighed by softmax; the adjugate
# expert of a pair runs on the block's input once for each chosen expert of the pair
def grove(config, tensors, x):
    t = under(tensors, 'model.layers.1.mlp.')

    def token(row, _):
        logits = t['gate.weight'] @ row
        chosen = torch.sigmoid(logits).topk(config['num_experts_per_tok']).indices
        top = torch.softmax(logits, 0)[chosen]
        return sum(g * (swiglu(t, f'experts.{e}.', row) +
                        0.05 * swiglu(t, f'chunk_experts.{e // 2}.', row))
                   for g, e in zip(top / top.sum(), chosen))

    return each(x, token)


def biased(t, row, k, router='gate.weight', bias='gate.e_score_correction_bias'):
    """The k with the largest sigmoid plus bias, and their sigmoids over the sum of these."""
    scores = torch.sigmoid(t[router] @ row)
    chosen = (scores + t[bias]).topk(k).indices
    return chosen, scores[chosen] / scores[chosen].sum()


# mlx-lm models/Klear.py, KlearSparseMoeBlock
def klear(config, tensors, x):
    t = under(tensors, 'model.layers.1.mlp.')

    def token(row, _):
        chosen, top = biased(t, row, config['num_experts_per_tok'], bias='expert_bias')
        y = sum(g * swiglu(t, f'experts.{e}.', row) for g, e in zip(top, chosen))
        mix = torch.softmax(t['coefficient.weight'] @ row + t['coefficient.bias'], 0)
        return mix[0] * y + mix[1] * swiglu(t, 'shared_experts.', row)

    return each(x, token)


# vLLM activation.py SwigluStepAndMul, models/step3p5.py
def step35(config, tensors, x):
    t, layer = under(tensors, 'model.layers.1.'), 1
    limit, limit_shared = config['swiglu_limits'][layer], config['swiglu_limits_shared'][layer]

    def clamped(gate, up, down, row, at):
        return down @ (F.silu(gate @ row).clamp(max=at) * (up @ row).clamp(-at, at))

    def token(row, _):
        chosen, top = biased(t, row, config['moe_top_k'], 'moe.gate.weight', 'moe.router_bias')
        top = top * config['moe_router_scaling_factor']
        names = ('gate_proj.weight', 'up_proj.weight', 'down_proj.weight')
        y = sum(g * clamped(*(t[f'moe.{name}'][e] for name in names), row, limit)
                for g, e in zip(top, chosen))
        return y + clamped(*(t[f'share_expert.{name}'] for name in names), row, limit_shared)

    return each(x, token)


# llama.cpp src/models/kimi-k3.cpp
def kimi_k3(config, tensors, x):
    t = under(tensors, 'language_model.model.layers.1.block_sparse_moe.')
    text = config['text_config']
    beta, linear = text['activation_situ_beta'], text['activation_situ_linear_beta']

    def situ(gate, up):
        capped = beta * torch.tanh(gate / beta) * torch.sigmoid(gate)
        return capped * linear * torch.tanh(up / linear)

    def expert(at, row, names):
        gate, up, down = (t[f'{at}{name}.weight'] for name in names)
        return down @ situ(gate @ row, up @ row)

    def token(row, _):
        chosen, top = biased(t, row, text['num_experts_per_token'])
        top = top * text['routed_scaling_factor']
        z = t['routed_expert_down_proj.weight'] @ row
        y = sum(g * expert(f'experts.{e}.', z, ('w1', 'w3', 'w2')) for g, e in zip(top, chosen))
        y = y / (y.pow(2).mean() + text['rms_norm_eps']).sqrt() * t['routed_expert_norm.weight']
        return t['routed_expert_up_proj.weight'] @ y + expert(
            'shared_experts.', row, ('gate_proj', 'up_proj', 'down_proj'))

    return each(x, token)


# moonshotai/Kimi-Linear modeling_kimi.py, KimiMoEGate and KimiSparseMoeBlock
def kimi_linear(config, tensors, x):
    t = under(tensors, 'model.layers.1.block_sparse_moe.')

    def token(row, _):
        chosen, top = biased(t, row, config['num_experts_per_token'])
        top = top * config['routed_scaling_factor']
        y = sum(g * swiglu(t, f'experts.{e}.', row, ('w1', 'w3', 'w2'))
                for g, e in zip(top, chosen))
        return y + swiglu(t, 'shared_experts.', row)

    return each(x, token)


# nomic-ai/contrastors src/contrastors/layers/moe.py
def nomic(config, tensors, x):
    t = under(tensors, 'encoder.layers.1.mlp.')
    shape = (config['num_experts'], config['n_inner'], config['n_embd'])
    w1, w2 = t['experts.mlp.w1'].view(shape), t['experts.mlp.w2'].view(shape)

    def token(row, _):
        top, chosen = torch.softmax(t['router.layer.weight'] @ row, 0).topk(config['moe_top_k'])
        y = sum(g * (F.gelu(row @ w1[e].T) @ w2[e]) for g, e in zip(top, chosen))
        return y + t['experts.bias']

    return each(x, token)


# inclusionAI/Ling modeling_bailing_moe_v2.py, BailingMoeV2Gate: groups as DeepSeek-V3
def bailing_v2(config, tensors, x):
    t = under(tensors, 'model.layers.1.mlp.')

    def token(row, _):
        scores = torch.sigmoid(t['gate.weight'] @ row)
        groups = (scores + t['gate.expert_bias']).view(config['n_group'], -1)
        kept = groups.topk(2, 1).values.sum(1).topk(config['topk_group']).indices
        masked = torch.full_like(groups, -torch.inf)
        masked[kept] = groups[kept]
        chosen = masked.flatten().topk(config['num_experts_per_tok']).indices
        top = scores[chosen] / scores[chosen].sum() * config['routed_scaling_factor']
        return swiglu(t, 'shared_experts.', row) + sum(
            g * swiglu(t, f'experts.{e}.', row) for g, e in zip(top, chosen))

    return each(x, token)


# deepseek-ai/DeepSeek-MoE and inclusionAI/Ling 1: softmax, then the largest, shared experts added
def softmax_shared(config, tensors, x):
    t = under(tensors, 'model.layers.1.mlp.')

    def token(row, _):
        top, chosen = torch.softmax(t['gate.weight'] @ row, 0).topk(config['num_experts_per_tok'])
        top = top / top.sum() if config['norm_topk_prob'] else top
        return swiglu(t, 'shared_experts.', row) + sum(
            g * swiglu(t, f'experts.{e}.', row) for g, e in zip(top, chosen))

    return each(x, token)


# XiaomiMiMo/MiMo-V2-Flash modeling_mimo_v2_flash.py, MiMoV2MoEGate
def mimo_v2(config, tensors, x):
    t = under(tensors, 'model.layers.1.mlp.')

    def token(row, _):
        chosen, top = biased(t, row, config['num_experts_per_tok'])
        return sum(g * swiglu(t, f'experts.{e}.', row) for g, e in zip(top, chosen))

    return each(x, token)
