# SPDX-License-Identifier: MIT
"""Blocks that exist for the types of their GGUF file; all of Qwen3-MoE."""
import gguf

from config import base
from family import Family, Gguf
from formula import Rules

T = gguf.GGMLQuantizationType

# Types of gate and up, and of down: where K types need rows of 256, the other may have 32.
PAIRS = (
    (T.Q2_K, T.Q2_K, T.IQ4_NL), (T.Q3_K, T.Q3_K, T.Q5_0), (T.Q4_K, T.Q4_K, T.Q4_0),
    (T.Q5_K, T.Q5_K, T.Q5_1), (T.Q6_K, T.Q6_K, T.Q8_0), (T.IQ4_XS, T.IQ4_XS, T.Q4_1),
    (T.Q4_0, T.Q4_0, T.Q4_K),
)


def quantised(gate, up, down):
    wide = gguf.GGML_QUANT_SIZES[gate][0] == 256
    r = Rules(n_experts=2, top_k=2, d_model=256 if wide else 32, d_ff=32 if wide else 256,
              norm='sum')
    return Family(
        f'{gate.name}_{up.name}_{down.name}'.lower(), r,
        base('qwen3_moe', 'Qwen3MoeForCausalLM', r, moe_intermediate_size=r.d_ff), None,
        source='gguf-py quants.py', shows=f'{gate.name}, {up.name}, {down.name}', n_tokens=4)


FAMILIES = tuple(quantised(*types) for types in PAIRS)
GGUFS = {f.name: (Gguf('qwen3moe', types=dict(zip(('gate', 'up', 'down'), types)), outputs='.'),)
         for f, types in zip(FAMILIES, PAIRS)}
