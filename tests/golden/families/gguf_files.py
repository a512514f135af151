# SPDX-License-Identifier: MIT
"""The same blocks as GGUF files, with the keys and names that llama.cpp's converters write."""
import gguf
import numpy as np
import torch

TYPES = gguf.GGMLQuantizationType

# Canonical tensor -> name behind blk.N.
NAMES = {
    'router': 'ffn_gate_inp.weight', 'router_bias': 'ffn_gate_inp.bias',
    'rank_bias': 'exp_probs_b.bias', 'table': 'ffn_gate_tid2eid.weight',
    'prenorm_scale': 'ffn_gate_inp.scale', 'expert_scale': 'ffn_down_exps.scale',
    'gate_up': 'ffn_gate_up_exps.weight', 'mix': 'ffn_gate_inp_shexp.weight',
    'latent_down': 'ffn_latent_down.weight', 'latent_up': 'ffn_latent_up.weight',
    'latent_norm': 'ffn_routed_norm.weight',
    **{part: f'ffn_{part}_exps.weight' for part in ('gate', 'up', 'down')},
    **{f'{part}_bias': f'ffn_{part}_exps.bias' for part in ('gate', 'up', 'down')},
    **{f'shared_{part}': f'ffn_{part}_shexp.weight' for part in ('gate', 'up', 'down')},
    **{f'adj_{part}': f'ffn_{part}_chexps.weight' for part in ('gate', 'up', 'down')},
    **{f'dense_{part}': f'ffn_{part}.weight' for part in ('gate', 'up', 'down')},
}


def encode(t, kind):
    """The bytes of a tensor and the values that they stand for, by gguf-py."""
    data = gguf.quantize(t.numpy(), kind)
    return data, torch.from_numpy(gguf.dequantize(data, kind).reshape(t.shape).copy())


def random_blocks(shape, kind, random):
    """Blocks of any bits but with scales of the size that weights have."""
    n_values, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_blocks = int(np.prod(shape)) // n_values
    data = random.integers(0, 256, (n_blocks, n_bytes), dtype=np.uint8)
    for at, size in SCALES[kind]:
        d = random.uniform(0.3, 1, n_blocks) * size
        data[:, at:at + 2] = d.astype(np.float16)[:, None].view(np.uint8)
    row = shape[-1] // n_values * n_bytes
    return data.reshape(*shape[:-1], row)


# Where the f16 scales of a block are and how large they may be.
SCALES = {
    TYPES.Q2_K: ((80, 8e-3), (82, 8e-3)), TYPES.Q3_K: ((108, 1e-3),),
    TYPES.Q4_K: ((0, 1e-3), (2, 3e-3)), TYPES.Q5_K: ((0, 5e-4), (2, 3e-3)),
    TYPES.Q6_K: ((208, 1e-4),), TYPES.IQ4_NL: ((0, 1e-2),), TYPES.IQ4_XS: ((0, 2e-4),),
}


def types_of(g):
    """The types of the experts, as this project spells them."""
    kinds = {g.types.get(part, g.types.get('all', TYPES.F32)) for part in ('gate', 'up', 'down')}
    return sorted(kind.name.lower().replace('_k', '_K') for kind in kinds)


def read_back(w, g):
    """Canonical tensors as the file will have them: (what is written, the values)."""
    written, values = {}, dict(w)
    for name, t in w.items():
        kind = g.types.get(name, g.types.get('all', TYPES.F32) if t.dim() > 1 and
                           name not in ('router', 'mix') else TYPES.F32)
        if not t.is_floating_point():
            written[name] = (t.to(torch.int32).numpy(), TYPES.I32)
        elif kind in SCALES:
            random = np.random.default_rng(list(f'{g.arch} {name}'.encode()))
            data = random_blocks(t.shape, kind, random)
            values[name] = torch.from_numpy(gguf.dequantize(data, kind).reshape(t.shape).copy())
            written[name] = (data, kind)
        else:
            data, values[name] = encode(t, kind)
            written[name] = (data, kind)
    return written, values


def add_keys(writer, config, r, g):
    text = config.get('text_config', config)
    keys = {
        'block_count': 2, 'context_length': 128, 'embedding_length': r.d_model,
        'feed_forward_length': text.get('intermediate_size', r.d_ff),
        'attention.head_count': 2, 'attention.head_count_kv': 2,
        'attention.layer_norm_rms_epsilon': 1e-6, 'rope.freq_base': 10000.0,
        'expert_count': r.n_experts, 'expert_used_count': r.top_k, 'vocab_size': 64}
    for key, name in (('expert_group_count', 'n_group'), ('expert_group_used_count', 'topk_group'),
                      ('leading_dense_block_count', 'first_k_dense_replace'),
                      ('expert_feed_forward_length', 'moe_intermediate_size')):
        if isinstance(text.get(name), int) and not isinstance(text[name], bool):
            keys[key] = text[name]
    for key, value in {**keys, **g.keys}.items():
        add_key(writer, f'{g.arch}.{key}', value)


def add_key(writer, key, value):
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_array(key, value)


def write(folder, f, g, w):
    """Writes the file and returns the canonical values in it."""
    shaped = {name: t[0] if name == 'mix' and len(t) == 1 else t for name, t in w.items()}
    if g.fused:
        shaped['gate_up'] = torch.cat([shaped.pop('gate'), shaped.pop('up')], 1)
    written, values = read_back(shaped, g)
    per_part = -(-len(written) // g.n_parts) if g.n_parts > 1 else 0
    writer = gguf.GGUFWriter(folder / g.file, g.arch, split_max_tensors=per_part)
    writer.add_type('model')
    writer.add_name(f'golden {f.name}')
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_keys(writer, f.config, f.rules, g)
    for name in sorted(written):
        data, kind = written[name]
        layer = 0 if name.startswith('dense_') else f.layer
        published = g.names.get(name, NAMES[name])
        writer.add_tensor(f'blk.{layer}.{published}', data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if g.fused:
        values['gate'], values['up'] = values.pop('gate_up').chunk(2, 1)
    if 'mix' in w:
        values['mix'] = values['mix'].reshape(w['mix'].shape)
    return values
