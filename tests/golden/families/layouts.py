# SPDX-License-Identifier: MIT
"""Canonical tensors -> tensors of a published checkpoint: their names, shapes and order.

`at` is what all names of the block begin with. A keyword gives a tensor that not all families
have, or have under another name, its name behind `at`.
"""
import torch

PROJ = ('gate_proj', 'up_proj', 'down_proj')
W123 = ('w1', 'w3', 'w2')
CANON = ('gate', 'up', 'down')


def named(w, at, names):
    return {at + name: w[canon] for canon, name in names.items() if canon in w}


def bank(w, at, prefix, names):
    """One MLP, without experts: weights and biases."""
    out = {}
    for canon, name in zip(CANON, names):
        for kind, key in (('weight', ''), ('bias', '_bias')):
            if prefix + canon + key in w:
                out[f'{at}{name}.{kind}'] = w[prefix + canon + key]
    return out


def dense(w, at, names=PROJ):
    return bank(w, at, 'dense_', names)


def rest_of(w, at, shared, shared_names, names):
    names = {'router': 'gate.weight', 'rank_bias': 'gate.e_score_correction_bias', **names}
    return {**named(w, at, names), **bank(w, at + shared + '.', 'shared_', shared_names)}


def per_expert(w, at, experts='experts.{}.', names=PROJ, shared='shared_experts',
               shared_names=PROJ, prefix='', **rest):
    out = rest_of(w, at, shared, shared_names, rest)
    for e in range(len(w[prefix + 'down'])):
        one = {key: t[e] for key, t in w.items()
               if key.removeprefix(prefix).removesuffix('_bias') in CANON}
        out.update(bank(one, at + experts.format(e), prefix, names))
    return out


def halves(w, at, gate_up='experts.gate_up_proj', down='experts.down_proj', transposed=False,
           shared='shared_experts', shared_names=PROJ, **rest):
    """gate_up (E, 2f, d), the gate first; transposed: (E, d, 2f) and down (E, f, d)."""
    both, back = torch.cat([w['gate'], w['up']], 1), w['down']
    if transposed:
        both, back = both.transpose(1, 2), back.transpose(1, 2)
    out = rest_of(w, at, shared, shared_names, rest)
    out[at + gate_up], out[at + down] = both, back
    if 'gate_bias' in w:
        out[at + gate_up + '_bias'] = torch.cat([w['gate_bias'], w['up_bias']], 1)
        out[at + down + '_bias'] = w['down_bias']
    return out


def interleave(gate, up):
    return torch.stack([gate, up], 2).flatten(1, 2)


def gpt_oss(w, at):
    """Columns gate, up, gate, up ...; both matrices transposed."""
    out = named(w, at, {'router': 'router.weight', 'router_bias': 'router.bias'})
    out[at + 'experts.gate_up_proj'] = interleave(w['gate'], w['up']).transpose(1, 2)
    out[at + 'experts.gate_up_proj_bias'] = interleave(w['gate_bias'], w['up_bias'])
    out[at + 'experts.down_proj'] = w['down'].transpose(1, 2)
    out[at + 'experts.down_proj_bias'] = w['down_bias']
    return out


def granite(w, at):
    out = {at + 'router.layer.weight': w['router'],
           at + 'input_linear.weight': torch.cat([w['gate'], w['up']], 1),
           at + 'output_linear.weight': w['down']}
    if 'out_bias' in w:
        out[at + 'bias'] = w['out_bias']
    if 'shared_up' in w:
        beside = at.removesuffix('block_sparse_moe.') + 'shared_mlp.'
        out[beside + 'input_linear.weight'] = torch.cat([w['shared_gate'], w['shared_up']])
        out[beside + 'output_linear.weight'] = w['shared_down']
    return out


def dbrx(w, at):
    """All experts' rows below each other, without .weight; w2 is applied as h @ w2."""
    out = {at + 'router.layer.weight': w['router'],
           at + 'experts.mlp.w2': w['down'].transpose(1, 2).flatten(0, 1)}
    if 'gate' in w:
        out[at + 'experts.mlp.w1'] = w['gate'].flatten(0, 1)
        out[at + 'experts.mlp.v1'] = w['up'].flatten(0, 1)
    else:
        out[at + 'experts.mlp.w1'] = w['up'].flatten(0, 1)
        out[at + 'experts.bias'] = w['out_bias']
    return out
