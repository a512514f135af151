# SPDX-License-Identifier: MIT
"""Families that differ from the first ones by one switch, or in names only."""
from functools import partial

import torch

import layouts as L
from config import base, mla
from family import Family, Upstream
from formula import Rules
from table_mixed import BIASES, OAI
from table_sigmoid import BIASED, V3

SMALL = {'n_experts': 6, 'top_k': 2, 'd_ff': 8}
MLP = Upstream('model.layers.1.mlp')
SHARED_V3 = {**SMALL, **V3, 'd_shared': 8}


def routed(r, **more):
    """The keys that most of them have."""
    return {'moe_intermediate_size': r.d_ff, 'num_experts_per_tok': r.top_k, **more}


def layout(**names):
    return partial(L.per_expert, at='model.layers.1.mlp.', **names)


def deepseek_like(name, architecture, shows, upstream=MLP, **more):
    r = Rules(**SHARED_V3, routed_scale=1.8)
    return Family(
        name, r,
        base(name, architecture, r, attention_bias=False, first_k_dense_replace=1,
             intermediate_size=4, n_group=1, n_routed_experts=6, n_shared_experts=1,
             norm_topk_prob=True, routed_scaling_factor=1.8, scoring_func='sigmoid',
             topk_group=1, topk_method='noaux_tc', **routed(r), **mla(), **more),
        layout(), layer=1, extras=BIASED, upstream=upstream, dtype=torch.bfloat16,
        source=f'HF {name}', shows=shows)


def granite_hybrid():
    r = Rules(**SMALL, d_shared=12, weight='softmax')
    return Family(
        'granitemoehybrid', r,
        base('granitemoehybrid', 'GraniteMoeHybridForCausalLM', r, attention_bias=False,
             attention_multiplier=0.25, embedding_multiplier=12, intermediate_size=8,
             layer_types=['mamba', 'attention'], logits_scaling=6, mamba_chunk_size=8,
             mamba_conv_bias=True, mamba_d_conv=4, mamba_d_head=8, mamba_d_state=4,
             mamba_expand=2, mamba_n_groups=1, mamba_n_heads=4, mamba_proj_bias=False,
             num_experts_per_tok=2, num_local_experts=6, position_embedding_type='nope',
             residual_multiplier=0.22, shared_intermediate_size=12),
        partial(L.granite, at='model.layers.1.block_sparse_moe.'), layer=1, dtype=torch.bfloat16,
        upstream=Upstream('model.layers.1',
                          call=lambda m, x, given: m.block_sparse_moe(x[None]) + m.shared_mlp(x)),
        source='HF granitemoehybrid', shows='as granitemoeshared; bf16')


def exaone_moe():
    r = Rules(**SHARED_V3, routed_scale=2.5)
    return Family(
        'exaone_moe', r,
        base('exaone_moe', 'ExaoneMoEForCausalLM', r, first_k_dense_replace=1, head_dim=8,
             intermediate_size=4, is_moe_layer=[False, True], n_group=1, norm_topk_prob=True,
             num_experts=6, num_shared_experts=1, routed_scaling_factor=2.5,
             layer_types=['sliding_attention', 'full_attention'], scoring_func='sigmoid',
             sliding_window=16, sliding_window_pattern='LG',
             topk_group=1, **routed(r)),
        layout(rank_bias='e_score_correction_bias'), layer=1, extras=BIASED, upstream=MLP,
        dtype=torch.bfloat16, source='HF exaone_moe', shows='DeepSeek-V3 form, own names; bf16')


def solar_open():
    r = Rules(**SHARED_V3)
    return Family(
        'solar_open', r,
        base('solar_open', 'SolarOpenForCausalLM', r, attention_bias=False, head_dim=8,
             first_k_dense_replace=0, intermediate_size=4, n_group=1, n_routed_experts=6,
             n_shared_experts=1, norm_topk_prob=True, partial_rotary_factor=1.0,
             routed_scaling_factor=1.0, topk_group=1, use_qk_norm=False, **routed(r)),
        layout(), layer=1, extras=BIASED, upstream=MLP, dtype=torch.bfloat16,
        source='HF solar_open', shows='DeepSeek-V3 form with scale 1; bf16')


def hy_v3():
    r = Rules(**SHARED_V3, routed_scale=2.826)
    return Family(
        'hy_v3', r,
        base('hy_v3', 'HYV3ForCausalLM', r, enable_moe_fp32_combine=False,
             first_k_dense_replace=1, head_dim=8, intermediate_size=4,
             moe_router_enable_expert_bias=True, moe_router_use_sigmoid=True, num_experts=6,
             num_shared_experts=1, qk_norm=True, route_norm=True, router_scaling_factor=2.826,
             **routed(r)),
        layout(router='router.gate.weight', rank_bias='expert_bias', shared='shared_mlp'),
        layer=1, extras=BIASED, upstream=MLP, dtype=torch.bfloat16, source='HF hy_v3',
        shows='DeepSeek-V3 form, own names; bf16')


def afmoe():
    r = Rules(**{**SHARED_V3, 'd_shared': 16}, routed_scale=2.448)
    return Family(
        'afmoe', r,
        base('afmoe', 'AfmoeForCausalLM', r, attention_dropout=0.0,
             global_attn_every_n_layers=2, head_dim=8, intermediate_size=4,
             layer_types=['sliding_attention', 'full_attention'], load_balance_coeff=0.001,
             mup_enabled=True, n_group=1, num_dense_layers=1, num_experts=6,
             num_limited_groups=1, num_shared_experts=2, route_norm=True, route_scale=2.448,
             score_func='sigmoid', sliding_window=16, topk_group=1, **routed(r)),
        layout(router='router.gate.weight', rank_bias='expert_bias'), layer=1, extras=BIASED,
        upstream=MLP, dtype=torch.bfloat16, source='HF afmoe',
        shows='DeepSeek-V3 form, own names, route_scale; bf16')


def laguna():
    r = Rules(**SMALL, d_shared=8, score='sigmoid', norm='sum', out_scale=2.5, softcap=2.0)
    return Family(
        'laguna', r,
        base('laguna', 'LagunaForCausalLM', r, attention_bias=False, gating=True, head_dim=8,
             intermediate_size=4, layer_types=['full_attention', 'full_attention'],
             mlp_layer_types=['dense', 'sparse'], moe_apply_router_weight_on_input=False,
             moe_routed_scaling_factor=2.5, moe_router_logit_softcapping=2.0, num_experts=6,
             shared_expert_intermediate_size=8, sliding_window=16, **routed(r)),
        layout(rank_bias='experts.e_score_correction_bias', shared='shared_expert'), layer=1,
        extras=BIASED, upstream=MLP, dtype=torch.bfloat16, source='HF laguna',
        shows='soft-cap on the logits, here low enough to count; scale on the sum')


def mistral4():
    r = Rules(n_experts=8, top_k=3, d_ff=8, d_shared=8, n_groups=4, groups_kept=2, group_fill=0.0,
              norm='sum', norm_eps=1e-20)
    return Family(
        'mistral4', r,
        base('mistral4', 'Mistral4ForCausalLM', r, attention_bias=False, first_k_dense_replace=0,
             head_dim=16, intermediate_size=4, n_group=4, n_routed_experts=8,
             n_shared_experts=1, norm_topk_prob=True, routed_scaling_factor=1.0, topk_group=2,
             **routed(r), **mla()),
        partial(L.halves, at='model.layers.1.mlp.'), layer=1,
        upstream=Upstream('model.layers.1.mlp', loader='Mistral4ForCausalLM'),
        dtype=torch.bfloat16, source='HF mistral4',
        shows='groups over softmax scores; gate and up in one tensor',
        invisible={'group_fill = -inf': 'a softmax is never negative'})


def mellum():
    r = Rules(**SMALL, norm='sum')
    return Family(
        'mellum', r,
        base('mellum', 'MellumForCausalLM', r, attention_bias=False, head_dim=8,
             intermediate_size=4, layer_types=['sliding_attention', 'full_attention'],
             norm_topk_prob=True, num_experts=6, sliding_window=16, **routed(r)),
        layout(), layer=1, upstream=MLP, dtype=torch.bfloat16, source='HF mellum',
        shows='as Qwen3-MoE; bf16')


def flex_olmo():
    r = Rules(n_experts=7, top_k=5, d_ff=8)
    config = base('flex_olmo', 'FlexOlmoForCausalLM', r, attention_bias=False,
                  intermediate_size=r.d_ff, norm_topk_prob=False, num_experts=7,
                  num_experts_per_tok=5, pad_token_id=1, router_aux_loss_coef=0.01)
    return Family('flex_olmo', r, config, layout(), layer=1, upstream=MLP, dtype=torch.bfloat16,
                  source='HF flex_olmo', shows='not renormalised, 5 of 7; bf16')


def cohere2_moe(name, r, select, combine, shows):
    return Family(
        name, r,
        base('cohere2_moe', 'Cohere2MoeForCausalLM', r, attention_bias=False,
             expert_selection_fn=select, first_k_dense_replace=1, head_dim=8,
             intermediate_size=r.d_ff, layer_norm_eps=1e-5, logit_scale=0.25,
             norm_topk_prob=True, num_experts=6, num_experts_per_tok=2, num_shared_experts=2,
             prefix_dense_intermediate_size=4, shared_expert_combination_strategy=combine,
             sliding_window=16, sliding_window_pattern=2),
        layout(), layer=1, upstream=MLP, dtype=torch.bfloat16, source='HF cohere2_moe',
        shows=shows)


def minimax():
    r = Rules(**SMALL, norm='sum')
    return Family(
        'minimax', r,
        base('minimax_text_01', 'MiniMaxText01ForCausalLM', r, attn_type_list=[0, 1], head_dim=8,
             intermediate_size=r.d_ff, layernorm_full_attention_alpha=3.5565588200778455,
             layernorm_full_attention_beta=1.0, num_experts_per_tok=2, num_local_experts=6,
             postnorm=True, rotary_dim=4, router_aux_loss_coef=0.001,
             shared_intermediate_size=0, shared_moe_mode='sigmoid'),
        partial(L.per_expert, at='model.layers.1.block_sparse_moe.', names=L.W123), layer=1,
        upstream=Upstream('model.layers.1.mlp', config={
            'model_type': 'minimax', 'architectures': ['MiniMaxForCausalLM'],
            'layer_types': ['linear_attention', 'full_attention']}),
        dtype=torch.bfloat16, source='HF minimax, whose model_type is not the published one',
        shows='as Mixtral; bf16')


def minimax_m3():
    r = Rules(**SMALL, d_shared=8, score='sigmoid', norm='sum', out_scale=2.0, alpha=1.702,
              up_add=1.0, limit=1.5, limit_shared=1.5, clamp='before')
    text = base(
        'minimax_m3', 'MiniMaxM3SparseForCausalLM', r, dense_intermediate_size=4, head_dim=8,
        intermediate_size=8, moe_layer_freq=[0, 1], n_shared_experts=1, num_experts_per_tok=2,
        num_local_experts=6, routed_scaling_factor=2.0, rotary_dim=4, scoring_func='sigmoid',
        shared_intermediate_size=8, swiglu_alpha=1.702, swiglu_limit=1.5, use_routing_bias=True)
    vision = {'hidden_size': 16, 'image_size': 8, 'intermediate_size': 16,
              'num_attention_heads': 2, 'num_hidden_layers': 1, 'patch_size': 4}
    return Family(
        'minimax_m3', r,
        {'architectures': ['MiniMaxM3SparseForConditionalGeneration'],
         'model_type': 'minimax_m3_vl', 'projector_hidden_size': 16, 'text_config': text,
         'tie_word_embeddings': False, 'torch_dtype': 'bfloat16', 'vision_config': vision},
        partial(L.per_expert, at='language_model.model.layers.1.block_sparse_moe.', names=L.W123,
                rank_bias='e_score_correction_bias'), layer=1, extras=BIASED, loud=1.5,
        upstream=Upstream('model.language_model.layers.1.mlp',
                          loader='AutoModelForImageTextToText'),
        dtype=torch.bfloat16, source='HF minimax_m3_vl',
        shows='clamped OAI form for the shared expert too, halves')


def privacy_filter():
    r = Rules(**SMALL, weight='softmax', **OAI)

    def tensors(w):
        return L.halves(w, at='model.layers.1.mlp.', transposed=True, router='router.weight',
                        router_bias='router.bias')
    return Family(
        'openai_privacy_filter', r,
        base('openai_privacy_filter', 'OpenAIPrivacyFilterForTokenClassification', r,
             attention_bias=True, head_dim=16, intermediate_size=8, num_experts_per_tok=2,
             num_local_experts=6, pad_token_id=1, sliding_window=16),
        tensors, layer=1, loud=3.0, extras=('router_bias', *BIASES), dtype=torch.bfloat16,
        upstream=Upstream('model.layers.1.mlp', loader='AutoModelForTokenClassification'),
        source='HF openai_privacy_filter', shows='as gpt-oss with halves, transposed; bf16',
        invisible={'clamp = after': 'g * sigmoid(1.702 g) is within 5e-5 of g at the limit'})


def gemma4():
    r = Rules(**SMALL, own_router_input=True, prenorm=0.25, norm='sum', act='gelu_tanh')
    text = base(
        'gemma4_text', '', r, attention_bias=False, attention_k_eq_v=False,
        enable_moe_block=True, final_logit_softcapping=30.0, global_head_dim=8, head_dim=8,
        hidden_activation='gelu_pytorch_tanh', hidden_size_per_layer_input=0,
        intermediate_size=4, layer_types=['sliding_attention', 'full_attention'],
        moe_intermediate_size=8, num_experts=6, num_global_key_value_heads=2,
        num_kv_shared_layers=0, sliding_window=16, top_k_experts=2,
        vocab_size_per_layer_input=64)
    del text['architectures'], text['rope_theta'], text['hidden_act']

    def run(layer, x, given):
        _, weights, ids = layer.router(given['router_input'])
        return layer.experts(x, ids, weights)
    return Family(
        'gemma4', r,
        {'architectures': ['Gemma4ForConditionalGeneration'], 'audio_config': None,
         'model_type': 'gemma4', 'text_config': text, 'tie_word_embeddings': True,
         'torch_dtype': 'bfloat16', 'vision_config': None},
        partial(L.halves, at='model.language_model.layers.1.', router='router.proj.weight',
                prenorm_scale='router.scale', expert_scale='router.per_expert_scale'), layer=1,
        extras=('prenorm_scale', 'expert_scale'), dtype=torch.bfloat16, source='HF gemma4',
        x_std=1.0,
        upstream=Upstream('model.language_model.layers.1', call=run,
                          loader='AutoModelForImageTextToText'),
        shows='router reads another tensor through a norm of its own; a scale per expert; '
              'GELU (tanh)', faint={'act = gelu': 1e-4})


def qwen3_vl_moe():
    r = Rules(**{**SMALL, 'd_ff': 12}, norm='sum')
    text = base(
        'qwen3_vl_moe_text', '', r, attention_bias=False, decoder_sparse_step=1, head_dim=8,
        intermediate_size=4, mlp_only_layers=[], moe_intermediate_size=12, norm_topk_prob=True,
        num_experts=6, num_experts_per_tok=2,
        rope_scaling={'mrope_interleaved': True, 'mrope_section': [2, 1, 1],
                      'rope_type': 'default'})
    del text['architectures']
    vision = {'deepstack_visual_indexes': [0], 'depth': 1, 'hidden_size': 16,
              'in_channels': 3, 'intermediate_size': 16, 'model_type': 'qwen3_vl_moe',
              'num_heads': 2, 'num_position_embeddings': 16, 'out_hidden_size': 16,
              'patch_size': 4, 'spatial_merge_size': 2, 'temporal_patch_size': 2}
    return Family(
        'qwen3_vl_moe', r,
        {'architectures': ['Qwen3VLMoeForConditionalGeneration'], 'image_token_id': 60,
         'model_type': 'qwen3_vl_moe', 'text_config': text, 'tie_word_embeddings': False,
         'video_token_id': 61, 'vision_config': vision, 'vision_end_token_id': 62,
         'vision_start_token_id': 63},
        partial(L.halves, at='model.language_model.layers.1.mlp.', transposed=True), layer=1,
        upstream=Upstream('model.language_model.layers.1.mlp',
                          loader='AutoModelForImageTextToText'),
        dtype=torch.bfloat16, source='HF qwen3_vl_moe', shows='fused and transposed; bf16')


def qwen3_5_moe():
    r = Rules(**SMALL, d_shared=8, shared_gate='sigmoid', norm='sum')
    text = base(
        'qwen3_5_moe_text', '', r, attention_bias=False, full_attention_interval=2, head_dim=8,
        layer_types=['linear_attention', 'full_attention'], linear_conv_kernel_dim=4,
        linear_key_head_dim=8, linear_num_key_heads=2, linear_num_value_heads=2,
        linear_value_head_dim=8, moe_intermediate_size=8, num_experts=6, num_experts_per_tok=2,
        rope_parameters={'mrope_interleaved': True, 'mrope_section': [1, 1, 0],
                         'partial_rotary_factor': 0.5, 'rope_theta': 10000000,
                         'rope_type': 'default'},
        shared_expert_intermediate_size=8)
    del text['architectures'], text['rope_theta']
    vision = {'deepstack_visual_indexes': [], 'depth': 1, 'hidden_size': 16, 'in_channels': 3,
              'intermediate_size': 16, 'model_type': 'qwen3_5_moe', 'num_heads': 2,
              'num_position_embeddings': 16, 'out_hidden_size': 16, 'patch_size': 4,
              'spatial_merge_size': 2, 'temporal_patch_size': 2}
    return Family(
        'qwen3_5_moe', r,
        {'architectures': ['Qwen3_5MoeForConditionalGeneration'], 'image_token_id': 60,
         'model_type': 'qwen3_5_moe', 'text_config': text, 'tie_word_embeddings': False,
         'video_token_id': 61, 'vision_config': vision, 'vision_end_token_id': 62,
         'vision_start_token_id': 63},
        partial(L.halves, at='model.language_model.layers.1.mlp.', shared='shared_expert',
                mix='shared_expert_gate.weight'), layer=1,
        upstream=Upstream('model.language_model.layers.1.mlp',
                          loader='AutoModelForImageTextToText'),
        dtype=torch.bfloat16, source='HF qwen3_5_moe',
        shows='as Qwen3-Next, fused and not transposed')


def aria():
    r = Rules(**SMALL, d_shared=16, weight='softmax')
    text = base('aria_moe_lm', '', r, attention_bias=False, head_dim=8, intermediate_size=8,
                mlp_bias=False, moe_num_experts=6, moe_num_shared_experts=2, moe_topk=2)
    del text['architectures']
    vision = {'hidden_size': 16, 'image_size': 8, 'intermediate_size': 16,
              'model_type': 'idefics3_vision', 'num_attention_heads': 2, 'num_hidden_layers': 1,
              'patch_size': 4}

    def tensors(w):
        return L.halves(w, at='language_model.model.layers.1.mlp.', transposed=True,
                        gate_up='experts.fc1.weight', down='experts.fc2.weight',
                        router='router.weight')
    return Family(
        'aria', r,
        {'architectures': ['AriaForConditionalGeneration'], 'image_token_index': 9,
         'model_type': 'aria', 'projector_patch_to_query_dict': {'4': 2}, 'text_config': text,
         'torch_dtype': 'bfloat16', 'vision_config': vision},
        tensors, layer=1, dtype=torch.bfloat16, source='HF aria, which lost the published prefix',
        upstream=Upstream('model.language_model.layers.1.mlp',
                          rename=('language_model.model.', 'model.language_model.'),
                          loader='AutoModelForImageTextToText'),
        shows='softmax over the chosen logits; fused and transposed; bf16')


def jetmoe():
    r = Rules(**SMALL, weight='softmax')
    config = base('jetmoe', 'JetMoEForCausalLM', r, activation_function='silu',
                  aux_loss_coef=0.01, bias=True, glu=True, intermediate_size=8, kv_channels=8,
                  num_experts_per_tok=2, num_local_experts=6, num_layers=2)
    del config['hidden_act'], config['num_attention_heads']
    return Family('jetmoe', r, config, partial(L.granite, at='model.layers.1.mlp.'), layer=1,
                  extras=('out_bias',), upstream=MLP, dtype=torch.bfloat16, source='HF jetmoe',
                  shows='as Granite, with one bias behind the sum')


COHERE = {**SMALL, 'd_shared': 16}
INDEXER = {'index_head_dim': 8, 'index_n_heads': 2, 'index_topk': 8}
FAMILIES = (
    deepseek_like('glm4_moe_lite', 'Glm4MoeLiteForCausalLM', 'as GLM-4.5; bf16'),
    deepseek_like('glm_moe_dsa', 'GlmMoeDsaForCausalLM', 'as GLM-4.5; bf16', **INDEXER),
    deepseek_like('kimi_k2', 'DeepseekV3ForCausalLM', 'as DeepSeek-V3; bf16', Upstream(
        'model.layers.1.mlp', config={'model_type': 'deepseek_v3'})),
    granite_hybrid(),
    exaone_moe(), solar_open(), hy_v3(), afmoe(), laguna(), mistral4(), mellum(), flex_olmo(),
    cohere2_moe('cohere2_moe', Rules(**COHERE, weight='softmax', c_routed=0.5, c_shared=0.5),
                'softmax', 'average', 'the mean of routed and shared; softmax over the chosen'),
    cohere2_moe('cohere2_moe_sigmoid', Rules(**COHERE, score='sigmoid', rank='logit', norm='sum'),
                'sigmoid', 'sum', 'sigmoid without a bias, renormalised; shared added'),
    minimax(), minimax_m3(), privacy_filter(), gemma4(), qwen3_vl_moe(), qwen3_5_moe(), aria(),
    jetmoe())
