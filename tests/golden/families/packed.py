# SPDX-License-Identifier: MIT
"""Packed weights of published checkpoints.

An Encoding has two halves. quantise(w) replaces canonical tensors by the nearest ones that can be
stored; encode(tensors) packs published tensors of such values, without loss. What encode makes is
what the family's original code unpacks.
"""
import dataclasses
from collections.abc import Callable

import torch

E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6])


@dataclasses.dataclass(frozen=True)
class Encoding:
    name: str               # of the experts' type
    quantise: Callable
    encode: Callable


def block_scales(t, block):
    """One scale for each block x block, the last ones smaller: (scales, scales as large as t)."""
    rows, cols = -(-t.shape[0] // block), -(-t.shape[1] // block)
    scales = torch.stack([torch.stack([
        t[i * block:(i + 1) * block, j * block:(j + 1) * block].abs().max() / 448
        for j in range(cols)]) for i in range(rows)])
    wide = scales.repeat_interleave(block, 0).repeat_interleave(block, 1)
    return scales, wide[:t.shape[0], :t.shape[1]]


def fp8(t, block, power_of_two=False):
    scales, wide = block_scales(t, block)
    if power_of_two:
        scales, wide = (torch.exp2(torch.ceil(torch.log2(s))) for s in (scales, wide))
    q = (t / wide).to(torch.float8_e4m3fn)
    return q, scales, q.float() * wide


def fp4(t):
    """(codes, exponents, values) in blocks of 32 along the rows; scales are powers of two."""
    blocks = t.reshape(*t.shape[:-1], -1, 32)
    peak = blocks.abs().amax(-1, keepdim=True).clamp(min=2.0 ** -100)
    exponent = torch.floor(torch.log2(peak)) - 2
    scaled = blocks * torch.exp2(-exponent)
    code = (scaled.abs()[..., None] - E2M1).abs().argmin(-1)
    value = E2M1[code] * scaled.sign() * torch.exp2(exponent)
    code = code + 8 * (scaled < 0)
    return code.to(torch.uint8), (exponent[..., 0] + 127).to(torch.uint8), value.reshape(t.shape)


def pack_pairs(code):
    """Two codes to the byte, the first in the low half."""
    return code[..., ::2] | code[..., 1::2] << 4


def settle(quantise, t):
    """Applied until it changes nothing, so that packing finds the same codes again."""
    while not torch.equal(again := quantise(t), t):
        t = again
    return t


def each_matrix(quantise, t):
    return torch.stack([settle(quantise, m) for m in t]) if t.dim() == 3 else settle(quantise, t)


def quantiser(choose):
    """choose(name) says how the canonical tensor is rounded, None: not at all."""
    def quantise(w):
        return {name: each_matrix(how, t) if (how := choose(name)) else t for name, t in w.items()}
    return quantise


EXPERTS = ('gate', 'up', 'down')
SHARED = ('shared_gate', 'shared_up', 'shared_down')


def deepseek_fp8(block=128):
    def encode(tensors):
        out = {}
        for name, t in tensors.items():
            if '.gate.' in name or t.dim() != 2:
                out[name] = t
                continue
            out[name], out[name + '_scale_inv'], _ = fp8(t.float(), block)
        return out
    return Encoding('fp8', quantiser(lambda name: (lambda t: fp8(t, block)[2])
                                     if name in EXPERTS + SHARED else None), encode)


def gpt_oss_mxfp4():
    def encode(tensors):
        out = {}
        for name, t in tensors.items():
            if not name.endswith(('gate_up_proj', 'down_proj')):
                out[name] = t
                continue
            code, exponent, _ = fp4(t.float().transpose(1, 2).contiguous())
            out[name + '_blocks'], out[name + '_scales'] = pack_pairs(code), exponent
        return out
    return Encoding('mxfp4', quantiser(lambda name: (lambda t: fp4(t)[2])
                    if name in EXPERTS else None), encode)


def deepseek_v4():
    """Experts in FP4, the shared expert in FP8, all scales in E8M0."""
    def fp8_values(t):
        return fp8(t, 128, True)[2]

    def encode(tensors):
        out = {}
        for name, t in tensors.items():
            scale = name.removesuffix('weight') + 'scale'
            if '.experts.' in name:
                code, exponent, _ = fp4(t.float())
                out[name] = pack_pairs(code.flatten(-2)).view(torch.int8)
                out[scale] = exponent.view(torch.float8_e8m0fnu)
            elif '.shared_experts.' in name:
                out[name], scales, _ = fp8(t.float(), 128, True)
                out[scale] = scales.to(torch.float8_e8m0fnu)
            else:
                out[name] = t
        return out

    def choose(name):
        if name in EXPERTS:
            return lambda t: fp4(t)[2]
        return fp8_values if name in SHARED else None
    return Encoding('mxfp4', quantiser(choose), encode)


def compressed_mxfp4():
    """compressed-tensors: weight_packed and weight_scale, experts only."""
    def encode(tensors):
        out = {}
        for name, t in tensors.items():
            if '.experts.' not in name:
                out[name] = t
                continue
            code, exponent, _ = fp4(t.float())
            out[name + '_packed'], out[name + '_scale'] = pack_pairs(code.flatten(-2)), exponent
        return out
    return Encoding('mxfp4', quantiser(lambda name: (lambda t: fp4(t)[2])
                    if name in EXPERTS else None), encode)


def nvfp4(t):
    """(codes, E4M3 scales of 16 values each, one power of two, values)."""
    whole = torch.exp2(torch.ceil(torch.log2(t.abs().max() / (6 * 448))))
    blocks = t.reshape(*t.shape[:-1], -1, 16)
    scale = (blocks.abs().amax(-1, keepdim=True) / 6 / whole).to(torch.float8_e4m3fn)
    scaled = blocks / (scale.float() * whole)
    code = (scaled.abs()[..., None] - E2M1).abs().argmin(-1)
    value = E2M1[code] * scaled.sign() * scale.float() * whole
    code = (code + 8 * (scaled < 0)).to(torch.uint8)
    return code, scale[..., 0], whole, value.reshape(t.shape)


def nvfp4_files(modelopt):
    """ModelOpt multiplies by the scale of the tensor, compressed-tensors divides by it."""
    def encode(tensors):
        out = {}
        for name, t in tensors.items():
            if '.experts.' not in name:
                out[name] = t
                continue
            code, scale, whole, _ = nvfp4(t.float())
            out[name + ('' if modelopt else '_packed')] = pack_pairs(code.flatten(-2))
            out[name + '_scale'] = scale
            if modelopt:
                out[name + '_scale_2'] = whole
            else:
                out[name + '_global_scale'] = 1 / whole.reshape(1)
        return out
    return Encoding('nvfp4', quantiser(lambda name: (lambda t: nvfp4(t)[3])
                    if name in EXPERTS else None), encode)


def int4(t):
    """(integers, bf16 scales of 32 values each, values)."""
    blocks = t.reshape(*t.shape[:-1], -1, 32)
    scale = (blocks.abs().amax(-1, keepdim=True) / 7).to(torch.bfloat16)
    q = (blocks / scale.float()).round().clamp(-8, 7)
    return q.to(torch.int32).reshape(t.shape), scale[..., 0], (q * scale.float()).reshape(t.shape)


def compressed_int4():
    """compressed-tensors: eight values to the I32, the first in the lowest bits, each plus 8."""
    def encode(tensors):
        out = {}
        for name, t in tensors.items():
            if '.experts.' not in name:
                out[name] = t
                continue
            q, scale, _ = int4(t)
            nibbles = (q + 8).reshape(len(q), -1, 8).long() << (4 * torch.arange(8))
            word = nibbles.sum(-1)
            out[name + '_packed'] = torch.where(word < 2**31, word, word - 2**32).to(torch.int32)
            out[name + '_scale'] = scale
            out[name + '_shape'] = torch.tensor(t.shape)
        return out
    return Encoding('int4', quantiser(lambda name: (lambda t: int4(t)[2])
                    if name in EXPERTS else None), encode)
