# SPDX-License-Identifier: MIT
"""What the config.json of nearly every family has, in the sizes of these blocks."""


def base(model_type, architecture, r, **more):
    return {
        'architectures': [architecture], 'model_type': model_type, 'hidden_act': 'silu',
        'hidden_size': r.d_model, 'max_position_embeddings': 128, 'num_attention_heads': 2,
        'num_hidden_layers': 2, 'num_key_value_heads': 2, 'rms_norm_eps': 1e-6,
        'rope_theta': 10000.0, 'tie_word_embeddings': False, 'torch_dtype': 'bfloat16',
        'use_cache': True, 'vocab_size': 64, **more}


def mla(q_lora_rank=8):
    """The attention of DeepSeek: nothing that a MoE block looks at."""
    return {'kv_lora_rank': 8, 'q_lora_rank': q_lora_rank, 'qk_nope_head_dim': 8,
            'qk_rope_head_dim': 8, 'v_head_dim': 8}
