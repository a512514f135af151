# SPDX-License-Identifier: MIT
"""Families that select by a score plus a bias that the gate weight does not see."""
from functools import partial

import torch

import layouts as L
import original
from config import base, mla
from family import Family, Upstream
from formula import Rules

# The form of DeepSeek-V3 that many have taken over.
V3 = {'score': 'sigmoid', 'norm': 'sum', 'norm_eps': 1e-20}
BIASED = ('rank_bias',)


def dense_first(w, **names):
    return {**L.per_expert(w, at='model.layers.1.mlp.', **names),
            **L.dense(w, 'model.layers.0.mlp.')}


def deepseek_v3():
    r = Rules(n_experts=12, top_k=3, d_ff=4, d_shared=4, n_groups=4, groups_kept=2,
              routed_scale=2.5, **V3)
    return Family(
        'deepseek_v3', r,
        base('deepseek_v3', 'DeepseekV3ForCausalLM', r, attention_bias=False, ep_size=1,
             first_k_dense_replace=1, intermediate_size=4, moe_intermediate_size=r.d_ff,
             moe_layer_freq=1, n_group=4, n_routed_experts=r.n_experts, n_shared_experts=1,
             norm_topk_prob=True, num_experts_per_tok=3, num_nextn_predict_layers=1,
             routed_scaling_factor=2.5, scoring_func='sigmoid', topk_group=2,
             topk_method='noaux_tc', **mla()),
        dense_first, layer=1, d_dense=4, extras=BIASED, source='HF deepseek_v3',
        upstream=Upstream('model.layers.1.mlp'),
        tweak=lambda w, given: w['rank_bias'].sub_(0.9),
        shows='sigmoid, bias only for the selection, groups by their two best, times 2.5')


def glm4_moe():
    r = Rules(n_experts=6, top_k=3, d_ff=8, d_shared=8, routed_scale=2.5, **V3)
    return Family(
        'glm4_moe', r,
        base('glm4_moe', 'Glm4MoeForCausalLM', r, attention_bias=True, first_k_dense_replace=1,
             head_dim=8, intermediate_size=4, moe_intermediate_size=r.d_ff, n_group=1,
             n_routed_experts=r.n_experts, n_shared_experts=1, norm_topk_prob=True,
             num_experts_per_tok=3, num_nextn_predict_layers=1, partial_rotary_factor=0.5,
             routed_scaling_factor=2.5,
             topk_group=1, use_qk_norm=True),
        dense_first, layer=1, d_dense=4, extras=BIASED, source='HF glm4_moe',
        upstream=Upstream('model.layers.1.mlp'), dtype=torch.bfloat16,
        shows='as DeepSeek-V3 without groups; bf16, the bias in f32')


def dots1():
    r = Rules(n_experts=6, top_k=2, d_ff=8, d_shared=16, routed_scale=2.5, **V3)
    return Family(
        'dots1', r,
        base('dots1', 'Dots1ForCausalLM', r, attention_bias=False, first_k_dense_replace=1,
             head_dim=8, intermediate_size=4, moe_intermediate_size=r.d_ff, moe_layer_freq=1,
             n_group=1, n_routed_experts=r.n_experts, n_shared_experts=2, norm_topk_prob=True,
             num_experts_per_tok=2, num_nextn_predict_layers=0, routed_scaling_factor=2.5,
             scoring_func='noaux_tc', topk_group=1, topk_method='noaux_tc'),
        dense_first, layer=1, d_dense=4, extras=BIASED, source='HF dots1',
        upstream=Upstream('model.layers.1.mlp'), shows='as GLM-4.5 with two shared experts')


def ernie():
    r = Rules(n_experts=6, top_k=3, d_ff=8, d_shared=16, norm='max', norm_eps=1e-12)

    def layout(w):
        w = {**w, 'rank_bias': w['rank_bias'][None]}
        return dense_first(w, rank_bias='moe_statics.e_score_correction_bias')
    return Family(
        'ernie4_5_moe', r,
        base('ernie4_5_moe', 'Ernie4_5_MoeForCausalLM', r, intermediate_size=4,
             moe_capacity=[6, 6, 6], moe_gate='topk', moe_intermediate_size=r.d_ff, moe_k=3,
             moe_layer_end_index=1, moe_layer_interval=1, moe_layer_start_index=1,
             moe_num_experts=r.n_experts, moe_num_shared_experts=2, moe_use_aux_free=True,
             num_nextn_predict_layers=1, use_bias=False),
        layout, layer=1, d_dense=4, extras=BIASED, source='HF ernie4_5_moe',
        upstream=Upstream('model.layers.1.mlp'),
        shows='bias on softmax probabilities, weights from those without it')


def lfm2():
    r = Rules(n_experts=6, top_k=3, d_ff=8, score='sigmoid', norm='sum', norm_eps=1e-6)

    def low(w, given):
        # Scores so small that the eps below them counts.
        given['x'][:, 0] = 4
        w['router'][:, 0] = -2.8
        w['rank_bias'] *= 1e-4

    def layout(w):
        at = 'model.layers.1.feed_forward.'
        return {**L.per_expert(w, at=at, names=L.W123, rank_bias='expert_bias'),
                **L.dense(w, 'model.layers.0.feed_forward.', L.W123)}
    return Family(
        'lfm2_moe', r,
        base('lfm2_moe', 'Lfm2MoeForCausalLM', r, conv_L_cache=3, conv_bias=False,
             intermediate_size=4, layer_types=['conv', 'full_attention'],
             moe_intermediate_size=r.d_ff, norm_eps=1e-5, norm_topk_prob=True,
             num_dense_layers=1, num_experts=r.n_experts, num_experts_per_tok=3,
             routed_scaling_factor=1.0, use_expert_bias=True),
        layout, layer=1, d_dense=4, extras=BIASED, source='HF lfm2_moe', tweak=low, clear=1e-5,
        upstream=Upstream('model.layers.1.feed_forward'),
        shows='1e-6 below the sum, here with scores so small that it counts')


def nemotron(name, r, latent):
    def layout(w):
        at = 'backbone.layers.1.mixer.'
        names = {'latent_down': 'fc1_latent_proj.weight', 'latent_up': 'fc2_latent_proj.weight'}
        return L.per_expert(w, at=at, **names)
    config = base(
        'nemotron_h', 'NemotronHForCausalLM', r, attention_bias=False, chunk_size=8,
        conv_kernel=4, expand=2, head_dim=8, hybrid_override_pattern='ME', intermediate_size=12,
        layer_norm_epsilon=1e-5, mamba_head_dim=8, mamba_hidden_act='silu', mamba_num_heads=4,
        mamba_proj_bias=False, mlp_bias=False, mlp_hidden_act='relu2',
        moe_intermediate_size=r.d_ff, moe_shared_expert_intermediate_size=r.d_shared, n_group=1,
        n_groups=2, n_routed_experts=r.n_experts, n_shared_experts=1, norm_topk_prob=True,
        num_experts_per_tok=r.top_k, routed_scaling_factor=2.5, ssm_state_size=4, topk_group=1,
        use_bias=False, use_conv_bias=True, use_mamba_kernels=False)
    if latent:
        config['moe_latent_size'] = r.d_latent
    return Family(
        name, r, config, layout, layer=1, extras=BIASED, source='HF nemotron_h',
        upstream=Upstream('model.layers.1.mixer'),
        shows='experts without a gate, ReLU squared' +
              ('; experts in a latent space, router and shared expert outside' if latent else
               '; a shared expert of its own width'))


def longcat():
    r = Rules(n_experts=6, top_k=4, d_ff=8, n_zero=4, routed_scale=6.0)
    return Family(
        'longcat_flash', r,
        base('longcat_flash', 'LongcatFlashForCausalLM', r, attention_bias=False,
             attention_method='MLA', expert_ffn_hidden_size=r.d_ff, ffn_hidden_size=12,
             mla_scale_kv_lora=True, mla_scale_q_lora=True, moe_topk=4,
             n_routed_experts=r.n_experts, num_layers=2, routed_scaling_factor=6.0,
             router_bias=True, zero_expert_num=4,
             zero_expert_type='identity', head_dim=8, **mla()),
        partial(L.per_expert, at='model.layers.1.mlp.', router='router.classifier.weight',
                router_bias='router.classifier.bias',
                rank_bias='router.e_score_correction_bias'), layer=1,
        extras=('router_bias', *BIASED), original=original.longcat,
        source='LongCat modeling_longcat_flash.py; HF wants weights for the identity experts and '
               'leaves the router bias out',
        tweak=lambda w, given: w['rank_bias'].mul_(0.2),
        shows='four identity experts among the choices; softmax over all with a ranking bias')


def minimax_m2():
    r = Rules(n_experts=6, top_k=3, d_ff=8, score='sigmoid', norm='sum')
    return Family(
        'minimax_m2', r,
        base('minimax_m2', 'MiniMaxM2ForCausalLM', r, attn_type_list=[1, 1], head_dim=8,
             intermediate_size=r.d_ff, mtp_transformer_layers=1, num_experts_per_tok=3,
             num_local_experts=r.n_experts, num_mtp_modules=3, qk_norm_type='per_layer',
             rotary_dim=4, scoring_func='sigmoid', shared_intermediate_size=0, use_mtp=True,
             use_qk_norm=True,
             use_routing_bias=True),
        partial(L.per_expert, at='model.layers.1.block_sparse_moe.', names=L.W123,
                rank_bias='e_score_correction_bias'), layer=1, extras=BIASED,
        upstream=Upstream('model.layers.1.mlp'), source='HF minimax_m2', dtype=torch.bfloat16,
        shows='sigmoid with a ranking bias, Mixtral names; bf16')


R2 = {'gated': False, 'act': 'relu2', 'routed_scale': 2.5}
FAMILIES = (
    deepseek_v3(), glm4_moe(), dots1(), ernie(), lfm2(),
    nemotron('nemotron_h', Rules(n_experts=6, top_k=3, d_ff=12, d_shared=20,
                                 **R2, **V3), False),
    nemotron('nemotron_h_latent', Rules(n_experts=6, top_k=3, d_ff=12, d_shared=20,
                                        d_latent=8, **R2, **V3), True),
    longcat(), minimax_m2())
