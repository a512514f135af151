# SPDX-License-Identifier: MIT
"""Blocks of every quantised type and their values by gguf-py and torch, in the folder of this file.

TYPE.blocks.npy (n_blocks, bytes of one) u8 and TYPE.values.npy (n_blocks, values of one) f32; for
the 8-bit floats TYPE.values.npy (256,) has the value of each code. Bits must be equal; NaN is NaN.
"""
import pathlib

import gguf
import numpy as np
import torch

T = gguf.GGMLQuantizationType
HERE = pathlib.Path(__file__).parent
# Where the f16 numbers of a block are. MXFP4 and NVFP4 have 8-bit scales, of which any will do.
HALVES = {
    T.Q4_0: (0,), T.Q4_1: (0, 2), T.Q5_0: (0,), T.Q5_1: (0, 2), T.Q8_0: (0,), T.Q2_K: (80, 82),
    T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,), T.IQ4_NL: (0,),
    T.IQ4_XS: (0,), T.MXFP4: (), T.NVFP4: (),
}
# Zero, one, the largest, the smallest, the largest without its leading bit, and negative ones.
EDGES = np.array([0, 0x8000, 0x3c00, 0xbc00, 0x7bff, 0xfbff, 0x0400, 0x0001, 0x03ff, 0x8001],
                 np.uint16)
FILLS = (0x00, 0xff, 0x0f, 0xf0, 0x55, 0xaa)
FLOATS = {'e4m3': torch.float8_e4m3fn, 'e5m2': torch.float8_e5m2, 'e8m0': torch.float8_e8m0fnu}


def blocks(kind):
    """Random bits, then one fill after the other; scales from the edges, then random ones."""
    n_values, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(int(kind))
    n = 512 // n_values + len(EDGES) + len(FILLS) if n_values < 256 else 12
    data = random.integers(0, 256, (n, n_bytes), dtype=np.uint8)
    for i, fill in enumerate(FILLS):
        data[-1 - i] = fill
    for at in HALVES[kind]:
        scales = random.normal(0, 0.01, n).astype(np.float16).view(np.uint16)
        scales[:len(EDGES)] = np.roll(EDGES, at // 2)
        data[:, at:at + 2] = scales[:, None].view(np.uint8)
    if kind == T.MXFP4:
        # 252 is the largest scale at which 6 is still finite
        data[:, 0] = np.r_[0, 1, 127, 252, random.integers(100, 140, n - 4)]
    if kind == T.NVFP4:
        data[:, :4] &= 0x7f     # unsigned; 0x7f counts as 0
        data[0, :4], data[1, :4] = (0, 1, 7, 8), (0x7e, 0x7f, 0x38, 0x40)
    return data


def main():
    for kind in HALVES:
        data = blocks(kind)
        values = gguf.dequantize(data, kind).astype(np.float32)
        assert np.isfinite(values).all(), kind.name
        np.save(HERE / f'{kind.name.lower()}.blocks.npy', data)
        np.save(HERE / f'{kind.name.lower()}.values.npy', values)
    for name, dtype in FLOATS.items():
        codes = torch.arange(256, dtype=torch.uint8)
        np.save(HERE / f'{name}.values.npy', codes.view(dtype).float().numpy())


if __name__ == '__main__':
    main()
