# SPDX-License-Identifier: MIT
"""Families with experts, inputs or files of their own form: clamps, biases, packed weights."""
from functools import partial

import torch

import packed
import layouts as L
from config import base, mla
from family import Family, Upstream
from formula import Rules
from table_sigmoid import BIASED, V3

BIASES = ('gate_bias', 'up_bias', 'down_bias')
OAI = {'alpha': 1.702, 'up_add': 1.0, 'limit': 7.0, 'clamp': 'before'}


def gpt_oss(name, d_model, d_ff, **more):
    r = Rules(n_experts=4, top_k=2, d_ff=d_ff, d_model=d_model, weight='softmax', **OAI)
    config = base(
        'gpt_oss', 'GptOssForCausalLM', r, attention_bias=True, attention_dropout=0.0,
        experts_per_token=2, head_dim=16, initial_context_length=64, intermediate_size=d_ff,
        layer_types=['sliding_attention', 'full_attention'], num_experts_per_tok=2,
        num_local_experts=4, output_router_logits=False, router_aux_loss_coef=0.9,
        sliding_window=16, swiglu_limit=7.0)
    if 'encoding' in more:
        config['quantization_config'] = {
            'modules_to_not_convert': ['model.layers.*.self_attn', 'model.layers.*.mlp.router',
                                       'model.embed_tokens', 'lm_head'],
            'quant_method': 'mxfp4'}
    return Family(
        name, r, config, partial(L.gpt_oss, at='model.layers.1.mlp.'), layer=1, loud=3.0,
        extras=('router_bias', *BIASES), dtype=torch.bfloat16, source='HF gpt_oss',
        invisible={'clamp = after': 'g * sigmoid(1.702 g) is within 5e-5 of g at the limit'},
        upstream=Upstream('model.layers.1.mlp'), **more)


def llama4():
    r = Rules(n_experts=6, top_k=1, d_ff=8, d_shared=8, score='sigmoid', rank='logit',
              weight_on_input=True)
    text = base(
        'llama4_text', 'Llama4ForCausalLM', r, attention_bias=False, attention_chunk_size=64,
        attn_temperature_tuning=True, for_llm_compressor=False, head_dim=8, intermediate_size=8,
        intermediate_size_mlp=12, interleave_moe_layer_step=2, no_rope_layers=[1, 0],
        num_experts_per_tok=1, num_local_experts=6, output_router_logits=False,
        router_aux_loss_coef=0.001, router_jitter_noise=0.0, use_qk_norm=False)
    del text['architectures']
    vision = {'hidden_size': 16, 'image_size': 8, 'intermediate_size': 16,
              'model_type': 'llama4_vision_model', 'num_attention_heads': 2, 'num_channels': 3,
              'num_hidden_layers': 1, 'patch_size': 4, 'pixel_shuffle_ratio': 0.5,
              'projector_input_dim': 16, 'projector_output_dim': 16, 'vision_output_dim': 16}

    def layout(w):
        at = 'language_model.model.layers.{}.feed_forward.'
        return {**L.halves(w, at.format(1), transposed=True, router='router.weight',
                           shared='shared_expert'), **L.dense(w, at.format(0))}
    return Family(
        'llama4', r,
        {'architectures': ['Llama4ForConditionalGeneration'], 'boi_token_index': 60,
         'eoi_token_index': 61, 'image_token_index': 62, 'model_type': 'llama4',
         'text_config': text, 'tie_word_embeddings': False, 'torch_dtype': 'bfloat16',
         'vision_config': vision}, layout, layer=1, d_dense=12, source='HF llama4',
        upstream=Upstream('language_model.model.layers.1.feed_forward',
                          loader='Llama4ForConditionalGeneration'), dtype=torch.bfloat16,
        shows='the gate weight multiplies the input of the expert; every second layer; bf16')


def deepseek_v3_fp8(name, d_model, d_ff, block, shows):
    r = Rules(n_experts=4, top_k=2, d_ff=d_ff, d_model=d_model, d_shared=d_ff, routed_scale=2.5,
              **V3)

    def uneven(w, given):
        # Blocks of very different size, so that no scale can be taken for another.
        for part in ('gate', 'up', 'shared_gate', 'shared_up', 'down', 'shared_down'):
            w[part][..., block:] *= 6
            w[part][..., block:, :] *= 3
        w['rank_bias'] *= 3
    return Family(
        name, r,
        base('deepseek_v3', 'DeepseekV3ForCausalLM', r, attention_bias=False, ep_size=1,
             first_k_dense_replace=0, intermediate_size=4, moe_intermediate_size=r.d_ff,
             moe_layer_freq=1, n_group=1, n_routed_experts=4, n_shared_experts=1,
             norm_topk_prob=True, num_experts_per_tok=2, num_nextn_predict_layers=1,
             quantization_config={'activation_scheme': 'dynamic', 'fmt': 'e4m3',
                                  'quant_method': 'fp8', 'weight_block_size': [block, block]},
             routed_scaling_factor=2.5, scoring_func='sigmoid', topk_group=1,
             topk_method='noaux_tc', **mla()),
        partial(L.per_expert, at='model.layers.0.mlp.'), extras=BIASED, source='HF deepseek_v3',
        upstream=Upstream('model.layers.0.mlp'), tweak=uneven, n_shards=2, n_tokens=4,
        encoding=packed.deepseek_fp8(block), shows=shows)


def deepseek_v4(hashed):
    size = 16 if hashed else 32
    r = Rules(n_experts=6, top_k=2, d_ff=size, d_model=size, d_shared=size, score='sqrtsoftplus',
              norm='sum', norm_eps=1e-20, routed_scale=1.5, limit=1.5, limit_shared=1.5,
              clamp='before', select='table' if hashed else 'topk')
    layer = 0 if hashed else 1
    config = base(
        'deepseek_v4', 'DeepseekV4ForCausalLM', r, attention_bias=False,
        compress_ratios=[0, 0], compress_rope_theta=160000, head_dim=16, hc_eps=1e-6, hc_mult=4,
        hc_sinkhorn_iters=20, index_head_dim=8, index_n_heads=2, index_topk=8,
        moe_intermediate_size=size, n_routed_experts=6, n_shared_experts=1, norm_topk_prob=True,
        num_experts_per_tok=2, num_hash_layers=1, num_nextn_predict_layers=1, o_groups=2,
        o_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=8, routed_scaling_factor=1.5,
        scoring_func='sqrtsoftplus', sliding_window=16, swiglu_limit=1.5,
        topk_method='noaux_tc')
    config['num_key_value_heads'] = 1

    def layout(w):
        return L.per_expert(w, at=f'layers.{layer}.ffn.', names=L.W123, shared_names=L.W123,
                            rank_bias='gate.bias', table='gate.tid2eid')
    more = {'dtype': torch.bfloat16}
    if not hashed:
        config['expert_dtype'] = 'fp4'
        config['quantization_config'] = {
            'activation_scheme': 'dynamic', 'fmt': 'e4m3', 'quant_method': 'fp8',
            'scale_fmt': 'ue8m0', 'weight_block_size': [128, 128]}
        more = {'extras': BIASED, 'encoding': packed.deepseek_v4()}
    return Family(
        'deepseek_v4_hash' if hashed else 'deepseek_v4', r, config, layout, layer=layer, loud=1.5,
        source='HF deepseek_v4',
        upstream=Upstream(f'model.layers.{layer}.mlp', call=lambda m, x, given: m(
            x[None], given['token_ids'][None]) if hashed else m(x[None])),
        shows='experts from a table by token id; sqrt(softplus); a clamp; bf16' if hashed else
              'sqrt(softplus); a clamp, for the shared expert too; FP4 experts, FP8 shared, '
              'E8M0 scales', **more)


def qwen3_moe_nvfp4(modelopt):
    r = Rules(n_experts=4, top_k=2, d_ff=32, d_model=32, norm='sum')
    config = base(
        'qwen3_moe', 'Qwen3MoeForCausalLM', r, attention_bias=False, decoder_sparse_step=1,
        head_dim=16, intermediate_size=4, mlp_only_layers=[], moe_intermediate_size=32,
        norm_topk_prob=True, num_experts=4, num_experts_per_tok=2)
    weights = {'dynamic': False, 'group_size': 16, 'num_bits': 4, 'type': 'float'}
    config['quantization_config'] = {
        'config_groups': {'group_0': {'targets': ['Linear'], 'weights': weights}},
        'ignore': ['lm_head', 'model.layers.1.mlp.gate'],
        **({'quant_algo': 'NVFP4', 'quant_method': 'modelopt'} if modelopt else
           {'format': 'nvfp4-pack-quantized', 'quant_method': 'compressed-tensors'})}
    return Family(
        'qwen3_moe_modelopt' if modelopt else 'qwen3_moe_nvfp4', r, config,
        partial(L.per_expert, at='model.layers.1.mlp.'), layer=1, dtype=torch.bfloat16,
        upstream=Upstream('model.layers.1.mlp'), encoding=packed.nvfp4_files(modelopt),
        source='HF qwen3_moe', shows='NVFP4 of ModelOpt: times weight_scale_2' if modelopt else
        'NVFP4 of compressed-tensors: divided by weight_global_scale')


def kimi_k2_int4():
    r = Rules(n_experts=4, top_k=2, d_ff=32, d_model=32, d_shared=32, routed_scale=2.827, **V3)
    weights = {'group_size': 32, 'num_bits': 4, 'strategy': 'group', 'symmetric': True,
               'type': 'int'}
    return Family(
        'kimi_k2_int4', r,
        base('kimi_k2', 'DeepseekV3ForCausalLM', r, attention_bias=False,
             first_k_dense_replace=1, intermediate_size=4, moe_intermediate_size=32,
             moe_layer_freq=1, n_group=1, n_routed_experts=4, n_shared_experts=1,
             norm_topk_prob=True, num_experts_per_tok=2,
             quantization_config={
                 'config_groups': {'group_0': {'targets': ['Linear'], 'weights': weights}},
                 'format': 'pack-quantized', 'ignore': ['lm_head', 're:.*shared_experts.*'],
                 'quant_method': 'compressed-tensors'},
             routed_scaling_factor=2.827, scoring_func='sigmoid', topk_group=1,
             topk_method='noaux_tc', **mla()),
        partial(L.per_expert, at='model.layers.1.mlp.'), layer=1, extras=BIASED,
        upstream=Upstream('model.layers.1.mlp', config={'model_type': 'deepseek_v3'}),
        encoding=packed.compressed_int4(), source='HF deepseek_v3',
        shows='int4 in groups of 32, eight to the I32 (Kimi-K2-Thinking)')


FAMILIES = (
    gpt_oss('gpt_oss', 24, 12, shows='softmax over the chosen logits, biases everywhere, '
            'clamp at 7, gate and up interleaved and transposed; bf16'),
    gpt_oss('gpt_oss_mxfp4', 64, 32, encoding=packed.gpt_oss_mxfp4(),
            shows='the same in MXFP4: blocks and scales, not transposed'),
    llama4(),
    deepseek_v3_fp8('deepseek_v3_fp8', 130, 8, 128, 'FP8 with a scale for each 128 x 128, the '
                    'last ones smaller; weight and scale of one tensor in different shards'),
    deepseek_v3_fp8('deepseek_v3_fp8_small', 20, 36, 16, 'the same with weight_block_size 16: '
                    'several blocks in both directions'),
    deepseek_v4(True), deepseek_v4(False),
    qwen3_moe_nvfp4(True), qwen3_moe_nvfp4(False), kimi_k2_int4())
