# SPDX-License-Identifier: MIT
"""The GGUF files of the families: architecture, keys beyond those of every file, types."""
import gguf

from family import Gguf

T = gguf.GGMLQuantizationType
SOFTMAX, SIGMOID, SQRTSOFTPLUS = 1, 2, 4


def v3(shared, scale=2.5):
    return {'expert_gating_func': SIGMOID, 'expert_shared_count': shared,
            'expert_weights_norm': True, 'expert_weights_scale': scale}


NEMOTRON = {'expert_feed_forward_length': 12, 'expert_group_count': 1, 'expert_shared_count': 1,
            'expert_shared_feed_forward_length': 20, 'expert_weights_norm': True,
            'expert_weights_scale': 2.5, 'feed_forward_length': [0, 12]}

FP4_EXPERTS = {name: T.MXFP4 for name in ('gate', 'up', 'down')}
GGUFS = {
    'mixtral': (Gguf('llama', n_parts=2),),
    'qwen2_moe': (Gguf('qwen2moe', {'expert_shared_feed_forward_length': 20},
                       {'all': T.F16}, outputs='f16'),),
    'qwen3_moe': (Gguf('qwen3moe', types={'all': T.BF16}),
                  Gguf('qwen3moe', types={'all': T.BF16}, fused=True, file='fused.gguf')),
    'olmoe': (Gguf('olmoe', types={'all': T.F16}, outputs='f16'),),
    'deepseek_v2_lite': (Gguf('deepseek2', {
        'expert_gating_func': SOFTMAX, 'expert_shared_count': 2, 'expert_weights_scale': 1.0},
        {'all': T.BF16}),),
    'deepseek_v2': (Gguf('deepseek2', {
        'expert_gating_func': SOFTMAX, 'expert_shared_count': 2, 'expert_weights_scale': 16.0},
        {'all': T.F16}, outputs='f16'),),
    'deepseek_v3': (Gguf('deepseek2', v3(1)),),
    'granitemoe': (Gguf('granitemoe'),),
    'granitemoeshared': (Gguf('granitemoe', {'expert_shared_feed_forward_length': 12},
                              {'all': T.BF16}),),
    'phimoe': (Gguf('phimoe'),),
    'jamba': (Gguf('jamba', types={'all': T.F16}, outputs='f16'),),
    'hunyuan_v1_moe': (Gguf('hunyuan-moe', {'expert_feed_forward_length': 8,
                                            'expert_shared_feed_forward_length': 8}),),
    'qwen3_next': (Gguf('qwen3next', {'expert_shared_feed_forward_length': 8},
                        {'all': T.BF16}),),
    'dbrx': (Gguf('dbrx', {'attention.clamp_kqv': 8.0}),),
    'glm4_moe': (Gguf('glm4moe', v3(1), {'all': T.BF16}),),
    'dots1': (Gguf('dots1', v3(2)),),
    'ernie4_5_moe': (Gguf('ernie4_5-moe', {
        'expert_shared_count': 2, 'expert_shared_feed_forward_length': 16,
        'interleave_moe_layer_step': 1, 'leading_dense_block_count': 1}),),
    'lfm2_moe': (Gguf('lfm2moe', {'expert_gating_func': SIGMOID, 'leading_dense_block_count': 1}),),
    'nemotron_h': (Gguf('nemotron_h_moe', NEMOTRON),),
    'nemotron_h_latent': (Gguf('nemotron_h_moe', {**NEMOTRON, 'moe_latent_size': 8}),),
    'minimax_m2': (Gguf('minimax-m2', {'expert_feed_forward_length': 8,
                                       'expert_gating_func': SIGMOID}, {'all': T.BF16}),),
    'gpt_oss_mxfp4': (Gguf('gpt-oss', {'attention.sliding_window': 16,
                                       'expert_feed_forward_length': 32},
                           FP4_EXPERTS),),
    'llama4': (Gguf('llama4', {'expert_feed_forward_length': 8, 'feed_forward_length': 12,
                               'interleave_moe_layer_step': 2}, {'all': T.BF16}),),
    'deepseek_v4_hash': (Gguf('deepseek4', {
        'expert_gating_func': SQRTSOFTPLUS, 'expert_shared_count': 1, 'expert_weights_norm': True,
        'expert_weights_scale': 1.5, 'hash_layer_count': 1, 'swiglu_clamp_exp': [1.5, 1.5]},
        {'all': T.BF16}),),
    'deepseek_v4': (Gguf('deepseek4', {
        'expert_gating_func': SQRTSOFTPLUS, 'expert_shared_count': 1, 'expert_weights_norm': True,
        'expert_weights_scale': 1.5, 'hash_layer_count': 1, 'swiglu_clamp_exp': [1.5, 1.5]},
        {**FP4_EXPERTS, 'all': T.BF16}),),
    'exaone_moe': (Gguf('exaone-moe', v3(1), {'all': T.BF16}),),
    'afmoe': (Gguf('afmoe', {**v3(2, 2.448), 'leading_dense_block_count': 1},
                   {'all': T.BF16}),),
    'hy_v3': (Gguf('hy_v3', {**v3(1, 2.826), 'expert_shared_feed_forward_length': 8},
                   {'all': T.BF16}),),
    'laguna': (Gguf('laguna', {**v3(1), 'expert_shared_feed_forward_length': 8,
                               'leading_dense_block_count': 1, 'router_logit_softcapping': 2.0},
                    {'all': T.BF16}),),
    'mellum': (Gguf('mellum', types={'all': T.BF16}),),
    'minimax': (Gguf('minimax-01', types={'all': T.BF16}),),
    'gemma4': (Gguf('gemma4', types={'all': T.BF16}, fused=True),),
    'qwen3_vl_moe': (Gguf('qwen3vlmoe', types={'all': T.BF16}),),
    'qwen3_5_moe': (Gguf('qwen35moe', {'expert_feed_forward_length': 8,
                                       'expert_shared_feed_forward_length': 8},
                         {'all': T.BF16}),),
    'grok_2': (Gguf('grok', {'router_logit_softcapping': 2.0}, {'all': T.BF16}),),
    'arctic': (Gguf('arctic', types={'all': T.BF16}),),
    'smallthinker': (Gguf('smallthinker', {
        'expert_feed_forward_length': 8, 'expert_gating_func': SIGMOID,
        'feed_forward_length': 8}, {'all': T.BF16}),),
    'grove_moe': (Gguf('grovemoe', {
        'expert_chunk_feed_forward_length': 4, 'expert_group_scale': 0.05,
        'experts_per_group': 2}, {'all': T.BF16}),),
    'step3p5': (Gguf('step35', {
        'expert_feed_forward_length': 8, 'expert_gating_func': SIGMOID,
        'expert_shared_feed_forward_length': 8, 'expert_weights_norm': True,
        'expert_weights_scale': 3.0, 'leading_dense_block_count': 1, 'moe_every_n_layers': 1,
        'swiglu_clamp_exp': [0.0, 1.2000000476837158], 'swiglu_clamp_shexp': [0.0, 2.0]},
        {'all': T.BF16}),),
    'kimi_k3': (Gguf('kimi-k3', {
        **v3(2), 'activation.situ_beta': 1.0, 'activation.situ_linear_beta': 2.0,
        'expert_feed_forward_length': 32, 'expert_latent_length': 32,
        'leading_dense_block_count': 1}, {**FP4_EXPERTS, 'all': T.BF16},
        names={'latent_down': 'ffn_routed_down.weight', 'latent_up': 'ffn_routed_up.weight'}),),
    'bailing_moe': (Gguf('bailingmoe', {
        'expert_shared_count': 2, 'expert_weights_norm': True, 'expert_weights_scale': 1.0},
        {'all': T.BF16}),),
    'bailing_moe_v2': (Gguf('bailingmoe2', v3(1), {'all': T.BF16}),),
    'deepseek': (Gguf('deepseek', {'expert_shared_count': 2, 'expert_weights_scale': 1.0},
                      {'all': T.BF16}),),
    'mimo_v2_flash': (Gguf('mimo2', {'expert_gating_func': SIGMOID,
                                     'expert_weights_norm': True}, {'all': T.BF16}),),
}
