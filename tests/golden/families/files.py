# SPDX-License-Identifier: MIT
"""Writing the files, the same bytes at every run."""
import json
import struct

import numpy as np
import torch

DTYPES = {torch.float32: 'F32', torch.bfloat16: 'BF16', torch.float16: 'F16', torch.uint8: 'U8',
          torch.int8: 'I8', torch.int32: 'I32', torch.int64: 'I64', torch.float8_e4m3fn: 'F8_E4M3',
          torch.float8_e5m2: 'F8_E5M2', torch.float8_e8m0fnu: 'F8_E8M0'}


def tensor_bytes(t):
    t = t.contiguous()
    return (t if t.element_size() == 1 and t.dtype == torch.uint8 else
            t.view(torch.uint8) if t.dim() else t.reshape(1).view(torch.uint8)).numpy().tobytes()


def write_safetensors(path, tensors):
    header, blobs, at = {'__metadata__': {'format': 'pt'}}, [], 0
    for name in sorted(tensors):
        blob = tensor_bytes(tensors[name])
        header[name] = {'dtype': DTYPES[tensors[name].dtype], 'shape': list(tensors[name].shape),
                        'data_offsets': [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    path.write_bytes(struct.pack('<Q', len(text)) + text + b''.join(blobs))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + '\n')


def write_checkpoint(folder, config, tensors, n_shards=1):
    """Shards take turns in the order of names, so that what belongs together is apart."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / 'config.json', config)
    if n_shards == 1:
        write_safetensors(folder / 'model.safetensors', tensors)
        return
    names, where = sorted(tensors), {}
    for i in range(n_shards):
        file = f'model-{i + 1:05d}-of-{n_shards:05d}.safetensors'
        part = {name: tensors[name] for name in names[i::n_shards]}
        write_safetensors(folder / file, part)
        where.update(dict.fromkeys(part, file))
    total = sum(len(tensor_bytes(t)) for t in tensors.values())
    write_json(folder / 'model.safetensors.index.json',
               {'metadata': {'total_size': total}, 'weight_map': dict(sorted(where.items()))})


def write_npy(path, tensor):
    array = np.asarray(tensor)
    kind = {'f': np.float32, 'i': np.int32, 'u': np.uint8}[array.dtype.kind]
    np.save(path, np.ascontiguousarray(array.astype(kind)))
