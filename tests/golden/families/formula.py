# SPDX-License-Identifier: MIT
"""One MoE block as a formula with switches, in float64: the check of every golden output.

`Rules` are the switches and `w` is a dict of tensors in one canonical shape (weights.py). block()
gives the output, the selection, and for each token how clearly the selection was decided: the
smallest gap between two compared values. changed() lists the rules with one switch changed, as
somebody would who did not know about it.
"""
import dataclasses
import math

import torch
import torch.nn.functional as F


@dataclasses.dataclass(frozen=True)
class Rules:
    n_experts: int = 8
    top_k: int = 2
    d_model: int = 16
    d_ff: int = 12
    n_zero: int = 0                 # identity experts behind the real ones
    d_latent: int = 0               # width at which the experts run; 0 = d_model
    d_shared: int = 0
    d_adjugate: int = 0
    own_router_input: bool = False
    prenorm: float = 0              # router input: rms(h) * scale * prenorm; 0 = none
    norm_rms_eps: float = 1e-6      # of that norm and of the latent one
    softcap: float = 0
    score: str = 'softmax'          # softmax | sigmoid | sqrtsoftplus
    rank: str = 'score'             # score | logit | sigmoid
    rank_bias_in_weight: bool = False   # never so; what a reader might believe
    select: str = 'topk'            # topk | table | sparsemixer
    weight: str = 'score'           # score | softmax (over the chosen logits)
    norm: str = 'none'              # none | sum (w / (sum + eps)) | max (w / max(sum, eps))
    norm_eps: float = 0
    routed_scale: float = 1         # on the gate weights
    out_scale: float = 1            # on the routed sum
    n_groups: int = 1
    groups_kept: int = 1
    group_score: str = 'top2'       # top2 | max
    group_fill: float = -math.inf
    sparsemix_eps: float = 0.01
    weight_on_input: bool = False
    gated: bool = True
    act: str = 'silu'               # silu | gelu | gelu_tanh | relu | relu2 | situ
    alpha: float = 1                # silu: g * sigmoid(alpha g)
    up_add: float = 0
    clamp: str = 'none'             # none | before | after the activation
    limit: float = 0
    limit_shared: float = 0         # 0: the shared expert has no clamp
    situ: tuple = (4.0, 25.0)
    adjugate_group: int = 2
    adjugate_scale: float = 0.05
    shared_gate: str = 'none'       # none | sigmoid | softmax (of two: routed, shared)
    capacity: int = 0               # tokens that an expert takes, in their order; 0: all
    c_routed: float = 1
    c_shared: float = 1


def rms(x, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


SCORES = {
    'softmax': lambda l: torch.softmax(l, -1),
    'sigmoid': torch.sigmoid,
    'sqrtsoftplus': lambda l: F.softplus(l).sqrt(),
}

ACTS = {
    'silu': lambda r, g: g * torch.sigmoid(r.alpha * g),
    'gelu': lambda r, g: F.gelu(g),
    'gelu_tanh': lambda r, g: F.gelu(g, approximate='tanh'),
    'relu': lambda r, g: F.relu(g),
    'relu2': lambda r, g: F.relu(g) ** 2,
    'situ': lambda r, g: r.situ[0] * torch.tanh(g / r.situ[0]) * torch.sigmoid(g),
}


def activate(r, gate, up, limit):
    if not r.gated:
        return ACTS[r.act](r, up)
    if limit and r.clamp == 'before':
        gate = gate.clamp(max=limit)
    if limit:
        up = up.clamp(-limit, limit)
    a = ACTS[r.act](r, gate)
    if limit and r.clamp == 'after':
        a = a.clamp(max=limit)
    if r.act == 'situ':
        up = r.situ[1] * torch.tanh(up / r.situ[1])
    return a * (up + r.up_add)


def gaps(values, n):
    """The smallest distance between neighbours among the n largest and the one behind them."""
    top = values.sort(dim=-1, descending=True).values[:, :n + 1]
    steps = top[:, :-1] - top[:, 1:]
    # Two masked values are as equal as can be, but nobody chooses between them.
    return steps.nan_to_num(nan=math.inf).min(-1).values


def keep_groups(r, q):
    by_group = q.view(len(q), r.n_groups, -1)
    score = by_group.max(-1).values if r.group_score == 'max' else by_group.topk(2).values.sum(-1)
    order = score.sort(dim=-1, descending=True)
    kept = torch.zeros_like(score).scatter(1, order.indices[:, :r.groups_kept], 1).bool()
    q = torch.where(kept[..., None], by_group, r.group_fill).reshape(q.shape)
    return q, order.values[:, r.groups_kept - 1] - order.values[:, r.groups_kept]


def sparsemixer(r, l):
    """The two chosen experts of each token, their weights, and how clear the choice was."""
    eps, rest, ids, weights, clear = 2 * r.sparsemix_eps, l, [], [], []
    for _ in range(2):
        best, index = rest.max(-1, keepdim=True)
        distance = (best - l) / torch.maximum(l.abs(), best)
        kept = rest.masked_fill(distance > eps, -math.inf)
        ids.append(index)
        weights.append(torch.softmax(kept, -1).gather(1, index))
        clear += [gaps(rest, 1), (distance - eps).abs().min(-1).values]
        rest = rest.scatter(1, index, -math.inf)
    return torch.cat(ids, 1), torch.cat(weights, 1), torch.stack(clear).min(0).values


def route(r, w, h, token_ids=None):
    if r.prenorm:
        h = rms(h, r.norm_rms_eps) * w.get('prenorm_scale', 1) * r.prenorm
    l = h @ w['router'].T + w.get('router_bias', 0)
    if r.softcap:
        l = r.softcap * torch.tanh(l / r.softcap)
    if r.select == 'sparsemixer':
        return sparsemixer(r, l)
    s = SCORES[r.score](l)
    q = {'score': s, 'logit': l, 'sigmoid': torch.sigmoid(l)}[r.rank] + w.get('rank_bias', 0)
    clear = torch.full((len(h),), math.inf, dtype=l.dtype)
    if r.n_groups > 1:
        q, clear = keep_groups(r, q)
    if r.select == 'table':
        ids = w['table'][token_ids]
    else:
        ids = q.sort(dim=-1, descending=True).indices[:, :r.top_k]
        clear = torch.minimum(clear, gaps(q, r.top_k))
    if r.rank_bias_in_weight:
        s = s + w['rank_bias']
    weights = torch.softmax(l.gather(1, ids), -1) if r.weight == 'softmax' else s.gather(1, ids)
    total = weights.sum(-1, keepdim=True)
    if r.norm == 'sum':
        weights = weights / (total + r.norm_eps)
    elif r.norm == 'max':
        weights = weights / total.clamp(min=r.norm_eps)
    weights = weights * r.routed_scale
    if 'expert_scale' in w:
        weights = weights * w['expert_scale'][ids]
    return ids, weights, clear


def drop(r, ids, weights):
    """A slot whose expert is full weighs nothing."""
    slots = F.one_hot(ids.flatten(), r.n_experts)
    place = (slots.cumsum(0) * slots).sum(1).view(ids.shape)
    return torch.where(place > r.capacity, 0, weights)


def mlp(r, w, names, ids, x, limit):
    """x (n, k, d) through the experts ids (n, k) whose tensors are called names."""
    def linear(name, t):
        if name not in w:
            return None
        y = torch.einsum('nki,nkoi->nko', t, w[name][ids])
        bias = w.get(name + '_bias')
        return y if bias is None else y + bias[ids]

    return linear(names[2], activate(r, linear(names[0], x), linear(names[1], x), limit))


def routed(r, w, x, ids, weights):
    z = x @ w['latent_down'].T if r.d_latent else x
    slots = z[:, None].expand(-1, ids.shape[1], -1)
    scale = weights[..., None]
    if r.weight_on_input:
        slots, scale = slots * scale, torch.ones_like(scale)
    real = ids.clamp(max=r.n_experts - 1)
    y = mlp(r, w, ('gate', 'up', 'down'), real, slots, r.limit)
    y = torch.where((ids < r.n_experts)[..., None], y, slots if r.n_zero >= 0 else 0) * scale
    if r.d_adjugate:
        names = ('adj_gate', 'adj_up', 'adj_down')
        adj = mlp(r, w, names, ids // r.adjugate_group, slots, 0)
        y = y + r.adjugate_scale * adj * scale
    y = y.sum(1)
    if 'latent_norm' in w:
        y = rms(y, r.norm_rms_eps) * w['latent_norm']
    return (y @ w['latent_up'].T if r.d_latent else y) * r.out_scale + w.get('out_bias', 0)


def shared(r, w, x):
    one = torch.zeros(len(x), 1, dtype=torch.long)
    as_bank = {name: t[None] for name, t in w.items() if name.startswith('shared_')}
    names = ('shared_gate', 'shared_up', 'shared_down')
    return mlp(r, as_bank, names, one, x[:, None], r.limit_shared)[:, 0]


def block(r, w, x, router_input=None, token_ids=None):
    w = {k: t if t.dtype == torch.long else t.double() for k, t in w.items()}
    x = x.double()
    h = router_input.double() if r.own_router_input else x
    ids, weights, clear = route(r, w, h, token_ids)
    if r.capacity:
        weights = drop(r, ids, weights)
    y = r.c_routed * routed(r, w, x, ids, weights)
    if r.d_shared:
        z = shared(r, w, x)
        mix = x @ w['mix'].T + w.get('mix_bias', 0) if 'mix' in w else None
        if r.shared_gate == 'sigmoid':
            z = torch.sigmoid(mix) * z
        elif r.shared_gate == 'softmax':
            mix = torch.softmax(mix, -1)
            y, z = mix[:, :1] * y, mix[:, 1:] * z
        y = y + r.c_shared * z
    return y, ids, weights, clear
