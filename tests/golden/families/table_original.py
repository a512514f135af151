# SPDX-License-Identifier: MIT
"""Families without code in transformers, or with wrong code: original.py computes their goldens."""
from functools import partial

import torch

import layouts as L
import original
import packed
from config import base, mla
from family import Family
from formula import Rules
from table_sigmoid import BIASED, V3

SMALL = {'n_experts': 6, 'top_k': 2, 'd_ff': 8}
AT = 'model.layers.1.mlp.'
SPARSE = 'model.layers.1.block_sparse_moe.'


def switch(name, capacity, shows):
    r = Rules(n_experts=4, top_k=1, d_ff=12, gated=False, act='relu',
              capacity=capacity if capacity < 8 else 0)
    return Family(
        name, r,
        {'architectures': ['SwitchTransformersForConditionalGeneration'],
         'add_router_probs': False, 'd_ff': 12, 'd_kv': 8, 'd_model': 16,
         'decoder_sparse_step': 2, 'decoder_start_token_id': 0, 'dropout_rate': 0.1,
         'encoder_sparse_step': 2, 'expert_capacity': capacity, 'feed_forward_proj': 'relu',
         'is_encoder_decoder': True, 'layer_norm_epsilon': 1e-6,
         'model_type': 'switch_transformers', 'num_decoder_layers': 2, 'num_experts': 4,
         'num_heads': 2, 'num_layers': 2, 'num_sparse_decoder_layers': 1,
         'num_sparse_encoder_layers': 1, 'router_bias': False, 'router_dtype': 'float32',
         'router_ignore_padding_tokens': False, 'router_jitter_noise': 0.01,
         'router_type': 'tokens_masked', 'vocab_size': 64},
        partial(L.per_expert, at='encoder.block.1.layer.1.mlp.',
                experts='experts.expert_{}.', names=('', 'wi', 'wo'),
                router='router.classifier.weight'), layer=1, original=original.switch,
        source='HF 4.x switch_transformers; HF 5.12 never enforces the capacity', shows=shows)


def nllb():
    r = Rules(n_experts=4, top_k=2, d_ff=8, gated=False, act='relu', norm='max',
              norm_eps=1.1920928955078125e-07, out_scale=0.8)
    return Family(
        'nllb_moe', r,
        {'activation_function': 'relu', 'architectures': ['NllbMoeForConditionalGeneration'],
         'batch_prioritized_routing': False, 'd_model': 16, 'decoder_attention_heads': 2,
         'decoder_ffn_dim': 8, 'decoder_layers': 2, 'decoder_sparse_step': 2,
         'encoder_attention_heads': 2, 'encoder_ffn_dim': 8, 'encoder_layers': 2,
         'encoder_sparse_step': 2, 'expert_capacity': 64, 'is_encoder_decoder': True,
         'max_position_embeddings': 128, 'model_type': 'nllb-moe',
         'moe_eval_capacity_token_fraction': 1.0, 'moe_token_dropout': 0.2,
         'normalize_router_prob_before_dropping': True, 'num_experts': 4, 'num_hidden_layers': 2,
         'router_bias': False, 'router_dtype': 'float32', 'router_ignore_padding_tokens': False,
         'scale_embedding': True, 'second_expert_policy': 'all', 'vocab_size': 64},
        partial(L.per_expert, at='model.encoder.layers.1.ffn.', experts='experts.expert_{}.',
                names=('', 'fc1', 'fc2'), router='router.classifier.weight'), layer=1,
        extras=('up_bias', 'down_bias'), original=original.nllb,
        source='HF 4.x nllb_moe; HF 5.12 runs experts 0 and 1 only',
        shows='top 2, ungated with biases, the sum times 0.8 in evaluation',
        invisible={'norm_eps = 0': 'a floor far below any sum'})


def grok_1():
    r = Rules(**SMALL, act='gelu_tanh')
    return Family(
        'grok_1', r,
        base('grok-1', 'Grok1ForCausalLM', r, attn_output_multiplier=0.08838834764831845,
             embedding_multiplier_scale=78.38367176906169, intermediate_size=8,
             max_attn_value=30.0, num_experts_per_tok=2, num_local_experts=6,
             output_multiplier_scale=0.5773502691896257),
        partial(L.per_expert, at='transformer.decoder_layer.1.', experts='moe.{}.',
                names=('linear', 'linear_v', 'linear_1'), router='router.weight'), layer=1,
        dtype=torch.bfloat16, original=original.grok_1, source='GK model.py:208-399',
        shows='GELU (tanh), weights as they are; bf16', faint={'act = gelu': 1e-4})


def grok_2():
    r = Rules(**SMALL, act='gelu_tanh', softcap=2.0, norm='sum')
    return Family(
        'grok_2', r,
        base('git', 'Grok1ForCausalLM', r, attn_logit_softcapping=30.0,
             embedding_multiplier_scale=90.50966799187809, final_logit_softcapping=50,
             head_dim=8, intermediate_size=12, moe_intermediate_size=8, num_experts_per_tok=2,
             num_local_experts=6, output_multiplier_scale=0.5, residual_moe=True,
             router_logit_softcapping=2.0),
        partial(L.per_expert, at=SPARSE, names=L.W123), layer=1, dtype=torch.bfloat16,
        original=original.grok_2, source='VL models/grok1.py',
        shows='soft-cap on the logits, here low enough to count; the dense branch beside the '
              'block is not part of it; bf16', faint={'act = gelu': 1e-4})


def arctic():
    r = Rules(**SMALL, norm='sum')
    return Family(
        'arctic', r,
        base('arctic', 'ArcticForCausalLM', r, intermediate_size=8, moe_layer_frequency=2,
             num_experts_per_tok=2, num_local_experts=6, parallel_attn_mlp_res=True,
             use_residual=True),
        partial(L.per_expert, at=SPARSE, names=L.W123), layer=1, dtype=torch.bfloat16,
        original=original.arctic, source='VL models/arctic.py',
        shows='as Mixtral; the dense residual MLP is not part of the block; bf16')


def smallthinker(name, softmax):
    r = Rules(n_experts=6, top_k=3, d_ff=8, own_router_input=True, act='relu', rank='logit',
              **({'weight': 'softmax'} if softmax else {'score': 'sigmoid', 'norm': 'sum'}))
    return Family(
        name, r,
        base('smallthinker', 'SmallThinkerForCausalLM', r, head_dim=8, moe_enable_early_router=True,
             moe_enable_secondary_experts=False, moe_ffn_hidden_size=8, moe_layer_layout=[1, 1],
             moe_num_active_primary_experts=3, moe_num_primary_experts=6,
             moe_primary_router_apply_softmax=softmax, rope_layout=[1, 1],
             sliding_window_layout=[0, 0], sliding_window_size=16),
        partial(L.per_expert, at=SPARSE, names=('gate', 'up', 'down'),
                router='primary_router.weight'), layer=1, dtype=torch.bfloat16,
        original=original.smallthinker, source='SmallThinker modeling_smallthinker.py',
        shows='router reads the layer input, ReLU gate, ' +
              ('softmax over the chosen; bf16' if softmax else 'sigmoid renormalised; bf16'))


def grove():
    r = Rules(n_experts=6, top_k=3, d_ff=8, d_adjugate=4, rank='sigmoid', norm='sum')

    def layout(w):
        return {**L.per_expert(w, at=AT),
                **L.per_expert({k: t for k, t in w.items() if k.startswith('adj_')}, at=AT,
                               experts='chunk_experts.{}.', prefix='adj_')}
    return Family(
        'grove_moe', r,
        base('grove_moe', 'GroveMoeForCausalLM', r, attention_bias=False, decoder_sparse_step=1,
             head_dim=4, intermediate_size=4, mlp_only_layers=[], moe_intermediate_size=8,
             norm_topk_prob=True, num_experts=6, num_experts_per_tok=3),
        layout, layer=1, original=original.grove, dtype=torch.bfloat16,
        source='GR grovemoe.py:242-275',
        shows='an adjugate expert for each pair, on the input, once for each of the pair',
        invisible={'rank = score': 'sigmoid and softmax rank alike'})


def klear():
    r = Rules(**SMALL, d_shared=8, score='sigmoid', norm='sum', shared_gate='softmax')
    return Family(
        'klear', r,
        base('Klear', 'KlearMoeForCausalLM', r, attention_bias=False, decoder_sparse_step=1,
             intermediate_size=4, mlp_only_layers=[], moe_aux_loss_coeff=0.0001,
             moe_intermediate_size=8, n_shared_experts=1, norm_topk_prob=True, num_experts=6,
             num_experts_per_tok=2, routed_scaling_factor=1.0),
        partial(L.per_expert, at=AT, rank_bias='expert_bias', mix='coefficient.weight',
                mix_bias='coefficient.bias'), layer=1, extras=(*BIASED, 'mix_bias'),
        original=original.klear, dtype=torch.bfloat16, source='MLX Klear.py',
        shows='routed and shared mixed by a softmax of two')


def step35():
    r = Rules(**SMALL, **V3, d_shared=8, routed_scale=3.0, clamp='after', limit=1.2,
              limit_shared=2.0)

    def layout(w):
        parts = zip(('gate', 'up', 'down'), L.PROJ)
        return {'model.layers.1.moe.gate.weight': w['router'],
                'model.layers.1.moe.router_bias': w['rank_bias'],
                **{f'model.layers.1.moe.{name}.weight': w[part] for part, name in parts},
                **L.bank(w, 'model.layers.1.share_expert.', 'shared_', L.PROJ)}
    return Family(
        'step3p5', r,
        base('step3p5', 'Step3p5ForCausalLM', r, head_dim=8, intermediate_size=4,
             layer_types=['full_attention', 'sliding_attention'], moe_every_n_layer=1,
             moe_intermediate_size=8, moe_layer_offset=0, moe_layers_enum='1', moe_num_experts=6,
             moe_router_activation='sigmoid', moe_router_scaling_factor=3.0, moe_top_k=2,
             need_fp32_gate=True, norm_expert_weight=True, num_attention_groups=2,
             partial_rotary_factors=[0.5, 1.0], share_expert_dim=8, sliding_window=16,
             swiglu_limits=[0.0, 1.2], swiglu_limits_shared=[0.0, 2.0],
             use_head_wise_attn_gate=True, use_moe=True, use_moe_router_bias=True,
             use_qk_norm=True),
        layout, layer=1, extras=BIASED, loud=1.5, original=original.step35, dtype=torch.bfloat16,
        source='VL activation.py SwigluStepAndMul',
        shows='clamp after the activation, one limit for the experts, one for the shared')


def kimi_k3():
    r = Rules(n_experts=4, top_k=2, d_ff=32, d_model=16, d_latent=32, d_shared=16,
              score='sigmoid', norm='sum', routed_scale=2.5, act='situ', situ=(1.0, 2.0))
    text = base(
        'kimi_linear', 'KimiLinearForCausalLM', r, activation_situ_beta=1.0,
        activation_situ_linear_beta=2.0, first_k_dense_replace=1, intermediate_size=4,
        linear_attn_config={'full_attn_layers': [2], 'head_dim': 8, 'kda_layers': [1],
                            'num_heads': 2, 'short_conv_kernel_size': 4},
        mla_use_nope=True, moe_intermediate_size=32, moe_layer_freq=1, moe_renormalize=True,
        moe_router_activation_func='sigmoid', num_expert_group=1, num_experts=4,
        num_experts_per_token=2, num_shared_experts=2, routed_expert_hidden_size=32,
        routed_scaling_factor=2.5, topk_group=1, use_grouped_topk=True, **mla())
    text['hidden_act'] = 'situ'
    text['moe_shared_expert_intermediate_size'] = 16
    return Family(
        'kimi_k3', r,
        {'architectures': ['KimiK3ForConditionalGeneration'], 'model_type': 'kimi_k3',
         'quantization_config': {'format': 'mxfp4-pack-quantized',
                                 'quant_method': 'compressed-tensors'},
         'text_config': text, 'tie_word_embeddings': False, 'torch_dtype': 'bfloat16'},
        partial(L.per_expert, at='language_model.' + SPARSE, names=L.W123,
                latent_down='routed_expert_down_proj.weight',
                latent_up='routed_expert_up_proj.weight',
                latent_norm='routed_expert_norm.weight'), layer=1,
        extras=(*BIASED, 'latent_norm'), loud=1.5, dtype=torch.bfloat16,
        encoding=packed.compressed_mxfp4(), original=original.kimi_k3,
        source='LC src/models/kimi-k3.cpp',
        shows='latent experts with a norm behind their sum, SiTU; weight_packed in MXFP4',
        invisible={
            'norm = none': 'the norm behind takes it out', 'routed_scale = 1': 'so too'})


def kimi_linear():
    r = Rules(**SMALL, **V3, d_shared=8, routed_scale=2.446)
    return Family(
        'kimi_linear', r,
        base('kimi_linear', 'KimiLinearForCausalLM', r, first_k_dense_replace=1, head_dim=8,
             intermediate_size=4,
             linear_attn_config={'full_attn_layers': [2], 'head_dim': 8, 'kda_layers': [1],
                                 'num_heads': 2, 'short_conv_kernel_size': 4},
             mla_use_nope=True, moe_intermediate_size=8, moe_layer_freq=1, moe_renormalize=True,
             moe_router_activation_func='sigmoid', num_expert_group=1, num_experts=6,
             num_experts_per_token=2, num_shared_experts=1, routed_scaling_factor=2.446,
             topk_group=1, use_grouped_topk=True, **mla()),
        partial(L.per_expert, at=SPARSE, names=L.W123), layer=1, extras=BIASED,
        dtype=torch.bfloat16, original=original.kimi_linear, source='modeling_kimi.py',
        shows='DeepSeek-V3 form, Mixtral names; bf16')


def nomic():
    r = Rules(n_experts=4, top_k=2, d_ff=12, gated=False, act='gelu')
    return Family(
        'nomic_bert_moe', r,
        {'activation_function': 'gelu', 'architectures': ['NomicBertModel'],
         'causal': False, 'expert_choice_router': False, 'ffn_div': 1,
         'layer_norm_epsilon': 1e-5, 'mlp_fc1_bias': True, 'mlp_fc2_bias': True,
         'model_type': 'nomic_bert', 'moe_every_n_layers': 2, 'moe_impl': 'megablocks',
         'moe_normalize_expert_weights': False, 'moe_resid_pdrop': 0.0, 'moe_top_k': 2,
         'n_embd': 16, 'n_head': 2, 'n_inner': 12, 'n_layer': 2, 'n_positions': 128,
         'num_experts': 4, 'num_shared_experts': 0, 'prenorm': False, 'qkv_proj_bias': True,
         'router_aux_loss_coef': 0.1, 'vocab_size': 64},
        partial(L.dbrx, at='encoder.layers.1.mlp.'), layer=1, extras=('out_bias',),
        original=original.nomic, source='NC src/contrastors/layers/moe.py',
        shows='ungated GELU (erf), w2 transposed, one bias behind the sum; odd layers',
        faint={'act = gelu_tanh': 5e-5})


def bailing_v2():
    r = Rules(n_experts=8, top_k=3, d_ff=8, d_shared=8, n_groups=4, groups_kept=2,
              routed_scale=2.5, **V3)
    return Family(
        'bailing_moe_v2', r,
        base('bailing_moe', 'BailingMoeV2ForCausalLM', r, first_k_dense_replace=1, head_dim=8,
             intermediate_size=4, moe_intermediate_size=8, moe_router_enable_expert_bias=True,
             moe_shared_expert_intermediate_size=8, n_group=4, norm_topk_prob=True,
             num_experts=8, num_experts_per_tok=3, num_nextn_predict_layers=0,
             num_shared_experts=1, routed_scaling_factor=2.5, score_function='sigmoid',
             topk_group=2, use_bias=False, use_qk_norm=True),
        partial(L.per_expert, at=AT, rank_bias='gate.expert_bias'), layer=1, extras=BIASED,
        dtype=torch.bfloat16, original=original.bailing_v2, source='modeling_bailing_moe_v2.py',
        tweak=lambda w, given: w['rank_bias'].sub_(0.9), shows='DeepSeek-V3 form, own names; bf16')


def bailing():
    r = Rules(**SMALL, d_shared=16, norm='sum', norm_eps=1e-20)
    return Family(
        'bailing_moe', r,
        base('bailing_moe', 'BailingMoeForCausalLM', r, first_k_dense_replace=0, head_dim=8,
             intermediate_size=4, moe_intermediate_size=8, norm_topk_prob=True, num_experts=6,
             num_experts_per_tok=2, num_shared_experts=2, use_bias=False),
        partial(L.per_expert, at=AT), layer=1, dtype=torch.bfloat16,
        original=original.softmax_shared, source='modeling_bailing_moe.py',
        shows='softmax, renormalised, two shared experts; bf16')


def deepseek():
    r = Rules(**SMALL, d_shared=16)
    return Family(
        'deepseek', r,
        base('deepseek', 'DeepseekForCausalLM', r, attention_bias=False, aux_loss_alpha=0.001,
             first_k_dense_replace=1, intermediate_size=4, moe_intermediate_size=8,
             moe_layer_freq=1, n_routed_experts=6, n_shared_experts=2, norm_topk_prob=False,
             num_experts_per_tok=2, scoring_func='softmax', seq_aux=True),
        partial(L.per_expert, at=AT), layer=1, dtype=torch.bfloat16,
        original=original.softmax_shared, source='DeepSeek-MoE modeling_deepseek.py',
        shows='softmax, not renormalised, two shared experts; bf16')


def mimo_v2():
    r = Rules(**SMALL, **V3)
    return Family(
        'mimo_v2_flash', r,
        base('mimo_v2_flash', 'MiMoV2FlashForCausalLM', r, attention_bias=False, head_dim=8,
             hybrid_layer_pattern=[0, 1], intermediate_size=4, layernorm_epsilon=1e-5,
             moe_intermediate_size=8, moe_layer_freq=[0, 1], n_group=1, n_routed_experts=6,
             n_shared_experts=None, norm_topk_prob=True, num_experts_per_tok=2,
             routed_scaling_factor=None, scoring_func='sigmoid', sliding_window=16,
             topk_group=1, topk_method='noaux_tc', v_head_dim=8),
        partial(L.per_expert, at=AT), layer=1, extras=BIASED, dtype=torch.bfloat16,
        original=original.mimo_v2, source='modeling_mimo_v2_flash.py',
        shows='DeepSeek-V3 form, keys that are null; bf16')


FAMILIES = (
    switch('switch', 64, 'one expert, its probability as weight, ungated ReLU'),
    switch('switch_capacity', 2, 'x is one sequence: what comes third to an expert gives 0'),
    nllb(), grok_1(), grok_2(), arctic(), smallthinker('smallthinker', False),
    smallthinker('smallthinker_softmax', True), grove(), klear(), step35(), kimi_k3(),
    kimi_linear(), nomic(), bailing_v2(), bailing(), deepseek(), mimo_v2())
