# SPDX-License-Identifier: MIT
"""Random tensors of a block in their canonical shape, the same at every run.

    router (E+Z, d)  router_bias, rank_bias (E+Z)   gate, up (E, f, d_in)   down (E, d_in, f)
    *_bias beside them   shared_* without E   mix (1 or 2, d): the shared expert's gate
"""
import zlib

import torch


def generator(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def draw(name, r, extras=(), loud=1.0, d_dense=0):
    """extras: names of the optional tensors that this block has. loud: size of gate and up."""
    random = generator(name)

    def normal(*shape, std):
        return torch.randn(*shape, generator=random) * std

    def matrix(*shape, gain=1.5):
        return normal(*shape, std=gain * shape[-1] ** -0.5)

    def bank(prefix, lead, d_ff, d):
        w[prefix + 'up'] = matrix(*lead, d_ff, d, gain=1.5 * loud)
        w[prefix + 'down'] = matrix(*lead, d, d_ff)
        if r.gated:
            w[prefix + 'gate'] = matrix(*lead, d_ff, d, gain=1.5 * loud)

    w = {}
    d_in, total = r.d_latent or r.d_model, r.n_experts + r.n_zero
    w['router'] = matrix(total, r.d_model, gain=2)
    bank('', (r.n_experts,), r.d_ff, d_in)
    if r.d_shared:
        bank('shared_', (), r.d_shared, r.d_model)
    if r.d_adjugate:
        bank('adj_', (r.n_experts // r.adjugate_group,), r.d_adjugate, d_in)
    if r.d_latent:
        w['latent_down'] = matrix(r.d_latent, r.d_model)
        w['latent_up'] = matrix(r.d_model, r.d_latent)
    shapes = {
        'router_bias': (total,), 'rank_bias': (total,),
        'gate_bias': (r.n_experts, r.d_ff), 'up_bias': (r.n_experts, r.d_ff),
        'down_bias': (r.n_experts, d_in), 'shared_gate_bias': (r.d_shared,),
        'shared_up_bias': (r.d_shared,), 'shared_down_bias': (r.d_model,),
        'latent_norm': (d_in,), 'out_bias': (r.d_model,), 'prenorm_scale': (r.d_model,),
        'expert_scale': (r.n_experts,), 'mix_bias': (2,),
    }
    for extra in extras:
        w[extra] = normal(*shapes[extra], std=0.4)
        if extra in ('latent_norm', 'prenorm_scale', 'expert_scale'):
            w[extra] += 1
    if r.shared_gate != 'none':
        w['mix'] = matrix(1 if r.shared_gate == 'sigmoid' else 2, r.d_model)
    if d_dense:
        w.update({'dense_gate': matrix(d_dense, r.d_model), 'dense_up': matrix(d_dense, r.d_model),
                  'dense_down': matrix(r.d_model, d_dense)})
    return w


def rows(name, n, d, std=1.0):
    return torch.randn(n, d, generator=generator(name + ' rows')) * std
