# SPDX-License-Identifier: MIT
"""Families whose scores are a softmax over all experts."""
from functools import partial

import torch

import layouts as L
import original
from config import base, mla
from family import Family, Upstream
from formula import Rules


def mixtral():
    r = Rules(n_experts=6, norm='sum', d_ff=8, d_model=24)
    return Family(
        'mixtral', r,
        base('mixtral', 'MixtralForCausalLM', r, intermediate_size=r.d_ff,
             num_local_experts=r.n_experts, num_experts_per_tok=2, output_router_logits=False,
             router_aux_loss_coef=0.02,
             sliding_window=None),
        partial(L.per_expert, at='model.layers.1.block_sparse_moe.', names=L.W123), layer=1,
        upstream=Upstream('model.layers.1.mlp'), source='HF mixtral',
        shows='softmax over all, top-k, renormalised')


def qwen2_moe():
    r = Rules(n_experts=7, top_k=4, d_ff=8, d_shared=20, shared_gate='sigmoid')
    return Family(
        'qwen2_moe', r,
        base('qwen2_moe', 'Qwen2MoeForCausalLM', r, decoder_sparse_step=1, intermediate_size=24,
             max_window_layers=2, mlp_only_layers=[], moe_intermediate_size=r.d_ff,
             norm_topk_prob=False, num_experts=r.n_experts, num_experts_per_tok=4,
             output_router_logits=False, router_aux_loss_coef=0.001,
             shared_expert_intermediate_size=20, sliding_window=128, use_sliding_window=False),
        partial(L.per_expert, at='model.layers.0.mlp.', shared='shared_expert',
                mix='shared_expert_gate.weight'),
        upstream=Upstream('model.layers.0.mlp'), source='HF qwen2_moe',
        shows='weights not renormalised; shared expert behind a sigmoid gate')


def qwen3_moe():
    r = Rules(n_experts=10, top_k=3, d_ff=8, norm='sum')
    return Family(
        'qwen3_moe', r,
        base('qwen3_moe', 'Qwen3MoeForCausalLM', r, attention_bias=False, decoder_sparse_step=1,
             head_dim=16, intermediate_size=4, mlp_only_layers=[0],
             moe_intermediate_size=r.d_ff, norm_topk_prob=True, num_experts=r.n_experts,
             num_experts_per_tok=3, output_router_logits=False, router_aux_loss_coef=0.001,
             sliding_window=None, use_sliding_window=False),
        lambda w: {**L.per_expert(w, at='model.layers.1.mlp.'),
                   **L.dense(w, 'model.layers.0.mlp.')},
        upstream=Upstream('model.layers.1.mlp'), source='HF qwen3_moe', layer=1, d_dense=4,
        dtype=torch.bfloat16, shows='norm_topk_prob; layer 0 dense by mlp_only_layers; bf16')


def olmoe():
    r = Rules(n_experts=6, top_k=3, d_ff=8)
    return Family(
        'olmoe', r,
        base('olmoe', 'OlmoeForCausalLM', r, attention_bias=False, clip_qkv=None,
             intermediate_size=r.d_ff, norm_topk_prob=False, num_experts=r.n_experts,
             num_experts_per_tok=3, output_router_logits=False, router_aux_loss_coef=0.01),
        partial(L.per_expert, at='model.layers.1.mlp.'), layer=1, n_shards=2,
        upstream=Upstream('model.layers.1.mlp'), source='HF olmoe',
        shows='weights not renormalised; two shards that take turns')


def deepseek_v2_config(r, **more):
    return base('deepseek_v2', 'DeepseekV2ForCausalLM', r, attention_bias=False,
                aux_loss_alpha=0.001, first_k_dense_replace=1, intermediate_size=4,
                moe_intermediate_size=r.d_ff, moe_layer_freq=1, n_routed_experts=r.n_experts,
                n_shared_experts=2, norm_topk_prob=False, num_experts_per_tok=r.top_k,
                scoring_func='softmax', seq_aux=True, **more)


def deepseek_layout(w):
    return {**L.per_expert(w, at='model.layers.1.mlp.'), **L.dense(w, 'model.layers.0.mlp.')}


def deepseek_v2_lite():
    r = Rules(top_k=3, d_ff=8, d_shared=16)
    return Family(
        'deepseek_v2_lite', r,
        deepseek_v2_config(r, n_group=1, topk_group=1, topk_method='greedy',
                           routed_scaling_factor=1.0, **mla(q_lora_rank=None)),
        deepseek_layout, layer=1, d_dense=4, dtype=torch.bfloat16,
        upstream=Upstream('model.layers.1.mlp'), source='HF deepseek_v2',
        shows='two shared experts as one MLP; layer 0 dense; bf16')


def deepseek_v2():
    r = Rules(n_experts=8, top_k=3, d_ff=8, d_shared=16, n_groups=4, groups_kept=2,
              group_score='max', group_fill=0.0, routed_scale=16.0)
    return Family(
        'deepseek_v2', r,
        deepseek_v2_config(r, n_group=4, topk_group=2, topk_method='group_limited_greedy',
                           routed_scaling_factor=16.0, **mla()),
        deepseek_layout, layer=1, d_dense=4, original=original.deepseek_v2,
        source='DS inference/model.py Gate; HF raises in this branch',
        shows='groups by their best expert; weights not renormalised, times 16',
        invisible={'group_fill = -inf': 'a softmax is never negative'})


def granitemoe():
    r = Rules(n_experts=6, top_k=4, d_ff=8, weight='softmax')
    return Family(
        'granitemoe', r, granite_config('granitemoe', 'GraniteMoeForCausalLM', r),
        partial(L.granite, at='model.layers.0.block_sparse_moe.'),
        upstream=Upstream('model.layers.0.block_sparse_moe'), source='HF granitemoe',
        shows='softmax over the chosen logits; gate and up in one matrix')


def granite_config(model_type, architecture, r, **more):
    return base(model_type, architecture, r, attention_bias=False, attention_multiplier=0.25,
                embedding_multiplier=12.0, intermediate_size=r.d_ff, logits_scaling=6.0,
                num_experts_per_tok=r.top_k, num_local_experts=r.n_experts,
                output_router_logits=False, residual_multiplier=0.22, router_aux_loss_coef=0.001,
                **more)


def granitemoeshared():
    r = Rules(n_experts=6, top_k=2, d_ff=8, d_shared=12, weight='softmax')
    return Family(
        'granitemoeshared', r,
        granite_config('granitemoeshared', 'GraniteMoeSharedForCausalLM', r,
                       shared_intermediate_size=12),
        partial(L.granite, at='model.layers.0.block_sparse_moe.'), dtype=torch.bfloat16,
        upstream=Upstream('model.layers.0',
                          call=lambda m, x, given: m.block_sparse_moe(x[None]) + m.shared_mlp(x)),
        source='HF granitemoeshared', shows='as granitemoe, with a shared MLP without a gate; bf16')


def phimoe():
    r = Rules(n_experts=6, top_k=2, d_ff=8, select='sparsemixer')

    def near(w, given):
        # Logits that are close to each other relative to their size, as the rule looks at.
        given['x'][:, 0] = 4
        w['router'] *= 0.03
        w['router'][:, 0] = 1
    return Family(
        'phimoe', r,
        base('phimoe', 'PhiMoEForCausalLM', r, attention_bias=True, attention_dropout=0.0,
             hidden_dropout=0.0, input_jitter_noise=0.01, intermediate_size=r.d_ff,
             lm_head_bias=True, num_experts_per_tok=2, num_local_experts=r.n_experts,
             output_router_logits=False, router_aux_loss_coef=0.0, router_jitter_noise=0.01,
             rms_norm_eps=1e-5, sliding_window=None),
        partial(L.per_expert, at='model.layers.0.block_sparse_moe.', names=L.W123),
        upstream=Upstream('model.layers.0.mlp'), source='HF phimoe', tweak=near,
        shows='sparsemixer as in evaluation: each slot a masked softmax of its own')


def jamba():
    r = Rules(n_experts=6, top_k=2, d_ff=8)
    return Family(
        'jamba', r,
        base('jamba', 'JambaForCausalLM', r, attn_layer_offset=0, attn_layer_period=2,
             expert_layer_offset=1, expert_layer_period=2, intermediate_size=r.d_ff,
             mamba_conv_bias=True, mamba_d_conv=4, mamba_d_state=4, mamba_dt_rank=4,
             mamba_expand=2, mamba_proj_bias=False, num_experts=r.n_experts, num_experts_per_tok=2,
             num_logits_to_keep=1, output_router_logits=False, router_aux_loss_coef=0.001,
             use_mamba_kernels=False),
        lambda w: {**L.per_expert(w, at='model.layers.1.feed_forward.', router='router.weight'),
                   **L.dense(w, 'model.layers.0.feed_forward.')},
        upstream=Upstream('model.layers.1.feed_forward'), source='HF jamba', layer=1, d_dense=8,
        shows='weights not renormalised; MoE layers by offset and period')


def hunyuan():
    r = Rules(n_experts=6, top_k=3, d_ff=8, d_shared=8, norm='sum')
    return Family(
        'hunyuan_v1_moe', r,
        base('hunyuan_v1_moe', 'HunYuanMoEV1ForCausalLM', r, attention_bias=False,
             attention_head_dim=16, head_dim=16, group_limited_greedy=False,
             intermediate_size=r.d_ff, moe_drop_tokens=False,
             moe_intermediate_size=[r.d_ff, r.d_ff], moe_random_routing_dropped_token=False,
             moe_topk=[3, 3], n_group=False, norm_topk_prob=True, num_experts=r.n_experts,
             num_shared_expert=[1, 1], routed_scaling_factor=1.0, topk_group=False,
             use_mixed_mlp_moe=True, use_qk_norm=True),
        partial(L.per_expert, at='model.layers.1.mlp.', router='gate.wg.weight',
                shared='shared_mlp'), layer=1,
        upstream=Upstream('model.layers.1.mlp'), source='HF hunyuan_v1_moe',
        shows='top_k and widths are lists with one number per layer')


def qwen3_next():
    r = Rules(n_experts=12, top_k=5, d_ff=4, d_shared=8, shared_gate='sigmoid', norm='sum')
    return Family(
        'qwen3_next', r,
        base('qwen3_next', 'Qwen3NextForCausalLM', r, attention_bias=False,
             decoder_sparse_step=1, full_attention_interval=2, head_dim=16, intermediate_size=24,
             linear_conv_kernel_dim=4, linear_key_head_dim=8, linear_num_key_heads=2,
             linear_num_value_heads=2, linear_value_head_dim=8, mlp_only_layers=[],
             moe_intermediate_size=r.d_ff, norm_topk_prob=True, num_experts=r.n_experts,
             num_experts_per_tok=5, output_router_logits=False, partial_rotary_factor=0.25,
             router_aux_loss_coef=0.001, shared_expert_intermediate_size=8),
        partial(L.per_expert, at='model.layers.1.mlp.', shared='shared_expert',
                mix='shared_expert_gate.weight'), layer=1, dtype=torch.bfloat16,
        upstream=Upstream('model.layers.1.mlp'), source='HF qwen3_next',
        shows='as Qwen2-MoE, renormalised; bf16')


def dbrx():
    r = Rules(n_experts=6, top_k=3, d_ff=8, norm='sum')
    return Family(
        'dbrx', r,
        {'architectures': ['DbrxForCausalLM'], 'attn_config': {'clip_qkv': 8, 'kv_n_heads': 2,
         'model_type': '', 'rope_theta': 500000}, 'd_model': 16, 'emb_pdrop': 0.0,
         'ffn_config': {'ffn_act_fn': {'name': 'silu'}, 'ffn_hidden_size': 8,
                        'model_type': '', 'moe_jitter_eps': 0.01, 'moe_loss_weight': 0.05,
                        'moe_normalize_expert_weights': 1.0, 'moe_num_experts': 6, 'moe_top_k': 3},
         'initializer_range': 0.02, 'max_seq_len': 128, 'model_type': 'dbrx', 'n_heads': 2,
         'n_layers': 2, 'resid_pdrop': 0.0, 'router_aux_loss_coef': 0.05,
         'tie_word_embeddings': False, 'torch_dtype': 'bfloat16', 'vocab_size': 64},
        partial(L.dbrx, at='transformer.blocks.1.ffn.'), layer=1, original=original.dbrx,
        source='DBX modeling_dbrx.py DbrxRouter, DbrxExpertGLU; HF applies w1 untransposed',
        shows='all experts in one matrix, the last applied transposed; norm of order 1')


FAMILIES = (mixtral(), qwen2_moe(), qwen3_moe(), olmoe(), deepseek_v2_lite(), deepseek_v2(),
            granitemoe(), granitemoeshared(), phimoe(), jamba(), hunyuan(), qwen3_next(), dbrx())
