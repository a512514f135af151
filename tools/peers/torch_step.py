# SPDX-License-Identifier: MIT
"""Times a training step of one MoE layer in PyTorch: a loop over experts and fused AdamW.

    torch_step.py [--shape E,K,D,F] [--tokens N] [--threads N] [--steps N] [--device cpu|cuda]

The layer is what tests/cross/bench_step.c trains: gated SiLU experts, a softmax router whose top k
gate weights are divided by their sum, mean square error, f32. Prints the milliseconds of each
step, one line each, and first how PyTorch was built, on stderr.
"""
import argparse
import sys
import time

import torch
import torch.nn.functional as F


def parameters(n_experts, d_model, d_ff, device):
    def matrix(*shape):
        return torch.nn.Parameter((torch.rand(*shape, device=device) * 2 - 1) * shape[-1] ** -0.5)
    return {'router': matrix(n_experts, d_model), 'gate': matrix(n_experts, d_ff, d_model),
            'up': matrix(n_experts, d_ff, d_model), 'down': matrix(n_experts, d_model, d_ff)}


def layer(p, x, top_k):
    """y of the layer, one expert after the other."""
    weights, ids = torch.softmax(F.linear(x, p['router']), -1).topk(top_k, -1)
    weights = weights / weights.sum(-1, keepdim=True)
    y = torch.zeros_like(x)
    for e in range(p['router'].shape[0]):
        token, k = torch.where(ids == e)
        if token.numel() == 0:
            continue
        rows = x[token]
        h = F.silu(F.linear(rows, p['gate'][e])) * F.linear(rows, p['up'][e])
        y = y.index_add(0, token, F.linear(h, p['down'][e]) * weights[token, k, None])
    return y


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--shape', default='16,2,512,1024')
    parser.add_argument('--tokens', type=int, default=1024)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--steps', type=int, default=5)
    parser.add_argument('--device', default='cpu')
    args = parser.parse_args()
    n_experts, top_k, d_model, d_ff = map(int, args.shape.split(','))
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    print(torch.__version__, torch.__config__.show(), file=sys.stderr)

    p = parameters(n_experts, d_model, d_ff, args.device)
    x = torch.randn(args.tokens, d_model, device=args.device)
    target = torch.randn(args.tokens, d_model, device=args.device)
    optimiser = torch.optim.AdamW(p.values(), lr=1e-3, weight_decay=0.01, fused=True)

    def step():
        optimiser.zero_grad(set_to_none=True)
        F.mse_loss(layer(p, x, top_k), target).backward()
        optimiser.step()
        if args.device != 'cpu':
            torch.cuda.synchronize()

    for _ in range(2):
        step()
    for _ in range(args.steps):
        begin = time.perf_counter()
        step()
        print(f'{(time.perf_counter() - begin) * 1e3:.3f}', flush=True)


if __name__ == '__main__':
    main()
