# SPDX-License-Identifier: MIT
"""Checks gradients of `vkmoe run --dy DY --grads G` against PyTorch's, in f64:

    torch_grads.py MODEL.safetensors LAYER X.npy DY.npy G.safetensors

MODEL is a vkmoe-model file whose layer is a plain moe layer. Prints the relative L2 error of each
gradient and fails if one is above 1e-5.
"""
import ast
import json
import struct
import sys

import torch
import torch.nn.functional as F

TYPES = {'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16, 'I32': torch.int32}
ACTIVATIONS = {
    'none': lambda v: v, 'silu': F.silu, 'gelu_erf': F.gelu, 'relu': F.relu,
    'gelu_tanh': lambda v: F.gelu(v, approximate='tanh'), 'relu2': lambda v: F.relu(v) ** 2,
    'sigmoid': torch.sigmoid, 'tanh': torch.tanh,
}


def read_safetensors(path):
    data = open(path, 'rb').read()
    size = struct.unpack('<Q', data[:8])[0]
    header, body = json.loads(data[8:8 + size]), data[8 + size:]
    metadata = header.pop('__metadata__', {})
    tensors = {}
    for name, t in header.items():
        begin, end = t['data_offsets']
        flat = torch.frombuffer(bytearray(body[begin:end]), dtype=TYPES[t['dtype']])
        tensors[name] = flat.reshape(t['shape'])
    return tensors, metadata


def read_npy(path):
    data = open(path, 'rb').read()
    size = struct.unpack('<H', data[8:10])[0]
    header = ast.literal_eval(data[10:10 + size].decode())
    flat = torch.frombuffer(bytearray(data[10 + size:]), dtype=torch.float32)
    return flat.reshape(header['shape'])


def experts(p, prefix, x, expert):
    """Outputs of all experts of a bank, (tokens, experts, d_out)."""
    def matmul(name, v, equation):
        y = torch.einsum(equation, v, p[f'{prefix}.{name}.weight'])
        return y + p[f'{prefix}.{name}.bias'] if f'{prefix}.{name}.bias' in p else y
    act = ACTIVATIONS[expert['activation']]
    up = matmul('up', x, 'td,efd->tef')
    h = act(matmul('gate', x, 'td,efd->tef')) * up if expert.get('gated') else act(up)
    out = ACTIVATIONS[expert.get('output_activation', 'none')]
    return out(matmul('down', h, 'tef,eof->teo'))


def gates(p, layer, x):
    router, top_k = layer['router'], layer['top_k']
    score = {'softmax': lambda v: torch.softmax(v, -1), 'sigmoid': torch.sigmoid}[router['score']]
    logits = F.linear(x, p['router.weight'], p.get('router.bias'))
    first = logits if router['order'] == 'topk_then_score' else score(logits)
    ids = (first + p.get('router.selection_bias', 0)).topk(top_k, -1).indices
    w = first.gather(-1, ids)
    if router['order'] == 'topk_then_score':
        w = score(w)
    if router.get('renormalize'):
        w = w / (w.sum(-1, keepdim=True) + router.get('eps', 0))
    return w * router.get('routed_scale', 1), ids


def forward(p, layer, x):
    w, ids = gates(p, layer, x)
    f = experts(p, 'experts', x, layer['expert'])
    y = (w[..., None] * f.gather(1, ids[..., None].expand(-1, -1, f.shape[-1]))).sum(1)
    if 'shared' in layer:
        p.update({k: v[None] for k, v in p.items()
                  if k.startswith('shared.') and k != 'shared.gate_vector'})
        shared = experts(p, 'shared', x, layer['expert'])[:, 0]
        if 'shared.gate_vector' in p:
            shared = shared * torch.sigmoid(x @ p['shared.gate_vector'])[:, None]
        y = y + shared
    return y


def main():
    model, number, x, dy, gradients = sys.argv[1:]
    tensors, metadata = read_safetensors(model)
    layer = json.loads(metadata['config'])['layers'][int(number)]
    prefix = f'layers.{number}.'
    leaves = {k[len(prefix):]: v.double().requires_grad_() for k, v in tensors.items()
              if k.startswith(prefix)}
    leaves['x'] = read_npy(x).double().requires_grad_()
    forward(dict(leaves), layer, leaves['x']).backward(read_npy(dy).double())
    worst = 0
    for name, ours in read_safetensors(gradients)[0].items():
        want = leaves[name].grad
        error = ((ours.double() - want).norm() / want.norm().clamp(min=1e-300)).item()
        print(f'{error:.2e}  {name}')
        worst = max(worst, error if error == error else 1)
    sys.exit(worst > 1e-5)


if __name__ == '__main__':
    main()
