# SPDX-License-Identifier: MIT
"""The corpora of the targets hf_config and describe: a seed for each key and each rule."""
import json

SIZES = {'hidden_size': 8, 'moe_intermediate_size': 6, 'num_hidden_layers': 2,
         'num_local_experts': 4, 'num_experts_per_tok': 2}
MIXTRAL = {'model_type': 'mixtral', **SIZES}
V3 = {'model_type': 'deepseek_v3', **SIZES, 'n_shared_experts': 1, 'first_k_dense_replace': 1,
      'n_group': 2, 'topk_group': 1, 'norm_topk_prob': True, 'routed_scaling_factor': 2.5,
      'scoring_func': 'sigmoid', 'topk_method': 'noaux_tc', 'hidden_act': 'silu',
      'quantization_config': {'weight_block_size': [128, 128]}}


def without(tree, key):
    return {k: v for k, v in tree.items() if k != key}


def dump(tree):
    return json.dumps(tree).encode()


def config_seeds():
    yield 'good-mixtral', dump(MIXTRAL)
    yield 'good-v3', dump(V3)
    for family in ('qwen3_moe', 'olmoe', 'glm4_moe', 'minimax_m2', 'mellum', 'bailing_moe'):
        bias = 'minimax' in family
        yield 'bad-' + family if bias else 'good-' + family, dump({'model_type': family, **SIZES})
    yield 'good-inner', dump({'model_type': 'x', 'text_config': V3})
    yield 'good-class', dump({'architectures': ['BailingMoeV2ForCausalLM'], 'model_type': 'x',
                              **without(V3, 'model_type'), 'moe_router_enable_expert_bias': False})
    yield 'good-lists', dump({**V3, 'num_experts_per_tok': [1, 2], 'mlp_only_layers': [0]})
    yield 'good-nulls', dump({**V3, 'topk_method': None, 'n_group': None})
    yield 'good-large-number', dump({**V3, 'max_position_embeddings': 10 ** 30})
    yield 'bad-empty', b''
    yield 'bad-array', b'[]'
    yield 'bad-cut', dump(V3)[:-1]
    yield 'bad-twice', dump(V3)[:-1] + b', "n_group": 2}'
    yield 'bad-no-utf8', dump(V3).replace(b'silu', b'si\xffu')
    yield 'bad-family', dump({**V3, 'model_type': 'unheard_of'})
    for key, values in {
            'num_hidden_layers': (0, -1, 1.5, 'two', 1e9), 'num_local_experts': (3, 5, 0.5, 2000),
            'hidden_size': (7, -8, '8'), 'moe_intermediate_size': (5, 1e300),
            'num_experts_per_tok': (0, 5, [2], 'x'), 'n_group': (3, 9, 'x'), 'topk_group': (3,),
            'norm_topk_prob': (1, 'x'), 'routed_scaling_factor': ('x', 1e300),
            'hidden_act': (1, 'mish'), 'first_k_dense_replace': (2, [1]),
            'n_shared_experts': (2, 16777216), 'mlp_layer_types': (['x', 'dense'],),
            'moe_latent_size': (4,), 'rms_norm_eps': ('x',)}.items():
        for i, value in enumerate(values):
            yield f'bad-{key}-{i}', dump({**V3, key: value})


TENSORS = {'router': 'model.layers.{L}.mlp.gate.weight',
           'experts.gate': 'model.layers.{L}.mlp.experts.{E}.gate_proj',
           'experts.up': {'name': 'model.layers.{L}.mlp.experts.{E}.up_proj.weight',
                          'stack': 'none', 'transposed': False, 'rows': 'all'},
           'experts.down': 'model.layers.{L}.mlp.experts.{E}.down_proj.weight'}
LAYER = {'top_k': 2, 'gated': True, 'act': 'silu', 'score': 'sigmoid', 'norm': 'sum_plus_eps'}
FULL = {'layers': 2, 'layer': LAYER, 'tensors': TENSORS}


def describe_seeds():
    yield 'good-full', dump(FULL)
    yield 'good-family', dump({'family': 'mixtral'})
    yield 'good-overruled', dump({'family': 'mixtral', 'layer': {'top_k': 1, 'act': 'relu'}})
    yield 'good-shared', dump({**FULL, 'tensors': {
        **TENSORS, **{f'shared.{p}': 'model.layers.1.mlp.shared_experts.' + p + '_proj'
                      for p in ('gate', 'up', 'down')}}})
    yield 'bad-empty', b''
    yield 'bad-layer', dump(LAYER)
    for i, (key, value) in enumerate((
            ('family', 'nobody'), ('layers', 0), ('layers', 'x'), ('layer', []), ('tensors', 1),
            ('layer', {**LAYER, 'top_k': 9}), ('layer', {**LAYER, 'act': 'mish'}),
            ('layer', {**LAYER, 'n_experts': 5}), ('layer', {**LAYER, 'd_ff': 7}),
            ('layer', {**LAYER, 'n_zero': 4}), ('layer', {**LAYER, 'select': 'table'}),
            ('layer', {**LAYER, 'clamp': 'after_act'}), ('layer', {**LAYER, 'd_latent': 4}),
            ('tensors', {**TENSORS, 'router': '{L}{D}{P}{E}{'}), ('tensors', {**TENSORS, 'x': 'y'}),
            ('tensors', {**TENSORS, 'experts.up': {'name': 'x', 'rows': 'some'}}),
            ('tensors', {**TENSORS, 'experts.up': {**TENSORS['experts.up'], 'stack': 'rows'}}),
            ('tensors', {**TENSORS, 'experts.up': {**TENSORS['experts.up'], 'rows': 'odd'}}))):
        yield f'bad-{key}-{i}', dump({**FULL, key: value})
