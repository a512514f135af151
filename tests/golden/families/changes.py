# SPDX-License-Identifier: MIT
"""The rules of a block with one of them changed: what somebody gets who does not know that rule.

A golden that comes out the same under such a change could not tell, so make.py refuses it.
"""
import dataclasses

import torch

# Switch, value that makes it matter (None: any but the new one), what it is taken for.
SWITCHES = (
    ('norm', None, 'none'), ('norm', 'none', 'sum'), ('weight', 'softmax', 'score'),
    ('score', None, 'softmax'), ('score', 'softmax', 'sigmoid'), ('rank', 'sigmoid', 'score'),
    ('select', 'table', 'topk'), ('select', 'sparsemixer', 'topk'),
    ('routed_scale', None, 1), ('out_scale', None, 1), ('softcap', None, 0), ('prenorm', None, 0),
    ('own_router_input', True, False), ('n_groups', None, 1), ('weight_on_input', True, False),
    ('gated', True, False), ('act', None, 'silu'), ('act', 'silu', 'gelu_tanh'),
    ('act', 'gelu', 'gelu_tanh'), ('act', 'gelu_tanh', 'gelu'), ('act', 'relu2', 'relu'),
    ('alpha', None, 1), ('up_add', None, 0), ('limit', None, 0), ('limit_shared', None, 0),
    ('clamp', 'before', 'after'), ('clamp', 'after', 'before'), ('n_zero', None, -1),
    ('adjugate_scale', None, 0), ('shared_gate', None, 'none'), ('c_routed', None, 1),
    ('c_shared', None, 1), ('norm_eps', None, 0), ('capacity', None, 0),
)
TENSORS = ('router_bias', 'rank_bias', 'gate_bias', 'up_bias', 'down_bias', 'latent_norm',
           'out_bias', 'prenorm_scale', 'expert_scale', 'mix_bias', 'shared_gate_bias',
           'shared_up_bias', 'shared_down_bias')


def _matters(r, name, when, instead):
    value = getattr(r, name)
    if value == instead or (when is not None and value != when):
        return False
    sums_to_one = r.weight == 'softmax' or r.select == 'sparsemixer'
    unseen = {
        'norm': sums_to_one or (value == 'none' and r.top_k == 1),
        'norm_eps': name == 'norm_eps' and value < 1e-9,
        'score': r.weight == 'softmax' or r.select == 'sparsemixer',
        'clamp': not (r.limit or r.limit_shared),
        'n_zero': r.n_zero == 0,
        'adjugate_scale': r.d_adjugate == 0,
        'limit_shared': r.d_shared == 0,
    }
    return not unseen.get(name, False)


def changed(r, w):
    """Yields (what was changed, rules, weights)."""
    for name, when, instead in SWITCHES:
        if _matters(r, name, when, instead):
            yield f'{name} = {instead}', dataclasses.replace(r, **{name: instead}), w
    if r.n_groups > 1:
        other = 'max' if r.group_score == 'top2' else 'top2'
        yield f'group_score = {other}', dataclasses.replace(r, group_score=other), w
        fill = 0.0 if r.group_fill < 0 else -torch.inf
        yield f'group_fill = {fill}', dataclasses.replace(r, group_fill=fill), w
    if r.limit and r.limit_shared and r.limit != r.limit_shared:
        yield 'one limit', dataclasses.replace(r, limit_shared=r.limit), w
    if 'rank_bias' in w:
        yield 'rank_bias in the weight', dataclasses.replace(r, rank_bias_in_weight=True), w
    for name in TENSORS:
        if name in w:
            yield f'no {name}', r, {k: t for k, t in w.items() if k != name}
    if r.gated:
        yield 'gate and up swapped', r, {**w, 'gate': w['up'], 'up': w['gate']}
