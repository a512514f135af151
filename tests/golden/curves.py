# SPDX-License-Identifier: MIT
"""Loss curves of PyTorch, for tests/golden/curves.c: curves.py OUT.safetensors

Two small networks are trained for 50 steps each, from a start and on batches that are stored with
the losses. Tensors are named CASE.start.PARAMETER, CASE.x, CASE.labels, CASE.losses; what the
networks are stands here and, once more, in curves.c.
"""
import json
import struct
import sys

import torch
import torch.nn.functional as F

N_BATCHES, N_ROWS, N_STEPS, D, N_CLASSES = 8, 32, 50, 16, 10


def batches(seed):
    torch.manual_seed(seed)
    centres = torch.randn(N_CLASSES, D)
    labels = torch.randint(0, N_CLASSES, (N_BATCHES, N_ROWS))
    return centres[labels] + 0.7 * torch.randn(N_BATCHES, N_ROWS, D), labels


def matrix(*shape):
    return torch.nn.Parameter((torch.rand(*shape) * 2 - 1) * shape[-1] ** -0.5)


def experts(e, d_ff, d_out, gated, prefix):
    names = (['gate'] if gated else []) + ['up']
    p = {f'{prefix}.{n}.weight': matrix(e, d_ff, D) for n in names}
    p[f'{prefix}.down.weight'] = matrix(e, d_out, d_ff)
    p.update({f'{prefix}.{n}.bias': matrix(e, d_ff) for n in names})
    p[f'{prefix}.down.bias'] = matrix(e, d_out)
    return p


def dense_start():
    return {'layers.0.router.weight': matrix(4, D), 'layers.0.router.bias': matrix(4),
            **experts(4, 32, N_CLASSES, False, 'layers.0.experts')}


def dense_loss(p, x, labels):
    """Every expert, softmax gate, GELU; cross entropy with label smoothing."""
    w = torch.softmax(F.linear(x, p['layers.0.router.weight'], p['layers.0.router.bias']), -1)
    up, down = 'layers.0.experts.up.', 'layers.0.experts.down.'
    h = F.gelu(torch.einsum('td,efd->tef', x, p[up + 'weight']) + p[up + 'bias'])
    f = torch.einsum('tef,eof->teo', h, p[down + 'weight']) + p[down + 'bias']
    return F.cross_entropy((w[:, :, None] * f).sum(1), labels, label_smoothing=0.1)


def top2_start():
    return {'layers.0.router.weight': matrix(8, D),
            **experts(8, 24, D, True, 'layers.0.experts'),
            'layers.1.gain': torch.nn.Parameter(torch.ones(D)),
            'layers.1.bias': torch.nn.Parameter(torch.zeros(D)),
            'layers.2.weight': matrix(N_CLASSES, D), 'layers.2.bias': matrix(N_CLASSES)}


def top2_loss(p, x, labels):
    """x + two of eight gated SiLU experts, layer norm, linear; with load balancing and z-loss."""
    logits = F.linear(x, p['layers.0.router.weight'])
    probability = torch.softmax(logits, -1)
    w, ids = probability.topk(2, -1)
    w = w / w.sum(-1, keepdim=True)
    e = 'layers.0.experts.'
    gate = torch.einsum('td,efd->tef', x, p[e + 'gate.weight']) + p[e + 'gate.bias']
    up = torch.einsum('td,efd->tef', x, p[e + 'up.weight']) + p[e + 'up.bias']
    f = torch.einsum('tef,eof->teo', F.silu(gate) * up, p[e + 'down.weight']) + p[e + 'down.bias']
    y = x + (w[:, :, None] * f.gather(1, ids[:, :, None].expand(-1, -1, D))).sum(1)
    y = F.layer_norm(y, (D,), p['layers.1.gain'], p['layers.1.bias'], 1e-5)
    y = F.linear(y, p['layers.2.weight'], p['layers.2.bias'])
    share = F.one_hot(ids, 8).sum((0, 1)) / ids.numel()
    balance = 0.05 * 8 * (share * probability.mean(0)).sum()
    z = 0.01 * torch.logsumexp(logits, -1).square().mean()
    return F.cross_entropy(y, labels) + balance + z


def decayed(name):
    return name.endswith('weight')


def run(start, loss_of, seed, adamw, clip):
    x, labels = batches(seed)
    p = start()
    out = {f'start.{k}': v.detach().clone() for k, v in p.items()}
    kind = torch.optim.AdamW if adamw else torch.optim.Adam
    optimiser = kind([{'params': [v for k, v in p.items() if decayed(k)], 'weight_decay': 0.01},
                      {'params': [v for k, v in p.items() if not decayed(k)], 'weight_decay': 0}],
                     lr=3e-3)
    losses = []
    for step in range(N_STEPS):
        optimiser.zero_grad()
        loss = loss_of(p, x[step % N_BATCHES], labels[step % N_BATCHES])
        loss.backward()
        if clip > 0:
            torch.nn.utils.clip_grad_norm_(p.values(), clip)
        optimiser.step()
        losses.append(loss.item())
    return {**out, 'x': x, 'labels': labels.to(torch.int32), 'losses': torch.tensor(losses)}


def write(path, tensors):
    header, blobs, at = {}, [], 0
    for name, value in tensors.items():
        value = value.detach().contiguous()
        kind = {torch.float32: 'F32', torch.int32: 'I32'}[value.dtype]
        blob = struct.pack(f'<{value.numel()}{"f" if kind == "F32" else "i"}',
                           *value.flatten().tolist())
        header[name] = {'dtype': kind, 'shape': list(value.shape),
                        'data_offsets': [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    header['__metadata__'] = {'made_by': 'tests/golden/curves.py, PyTorch ' + torch.__version__}
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as file:
        file.write(struct.pack('<Q', len(text)) + text + b''.join(blobs))


def main():
    cases = {'dense': run(dense_start, dense_loss, 1, False, 0),
             'top2': run(top2_start, top2_loss, 2, True, 1.0)}
    write(sys.argv[1], {f'{c}.{k}': v for c, t in cases.items() for k, v in t.items()})
    for name, tensors in cases.items():
        print(name, [round(v, 5) for v in tensors['losses'][::7].tolist()])


if __name__ == '__main__':
    main()
