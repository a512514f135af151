# SPDX-License-Identifier: MIT
"""Writes the corpus: seeds.py FOLDER makes FOLDER/<target>/good-* and bad-*, small files that their
target accepts and refuses, and FOLDER/control/ with a file under a wrong name.

A file that a fuzzer found goes to found/<target>/ beside this script, with the same kind of name.
"""
import json
import os
import shutil
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'cli'))
import bench_sample  # noqa: E402
import seeds_checkpoint  # noqa: E402
import seeds_gguf  # noqa: E402

CONFIG = {
    'format': 'vkmoe-model/1', 'task': 'classify', 'classes': ['no', 'yes'],
    'input': {'kind': 'standardize', 'n_features': 3},
    'layers': [{
        'kind': 'moe', 'd_in': 3, 'd_ff': 4, 'd_out': 2, 'n_experts': 2, 'top_k': 1,
        'router': {'score': 'sigmoid', 'order': 'score_then_topk', 'renormalize': True, 'eps': 0.5,
                   'routed_scale': 2.5, 'bias': True, 'selection_bias': True},
        'expert': {'gated': True, 'activation': 'silu', 'output_activation': 'tanh', 'bias': True},
        'shared': {'d_ff': 5, 'gate': 'sigmoid'}, 'combine': 'weighted_sum', 'residual': False}],
    'head': 'softmax'}
SMALL = {
    'task': 'regress', 'input': {'kind': 'minmax', 'n_features': 2},
    'layers': [{'kind': 'moe', 'd_in': 2, 'd_ff': 1, 'n_experts': 3, 'top_k': 3,
                'router': {'score': 'softmax', 'order': 'topk_then_score'},
                'expert': {'activation': 'gelu_erf'}}],
    'head': 'sigmoid'}
CONFIG_TENSORS = {
    'input.mean': [3], 'input.std': [3], 'layers.0.router.weight': [2, 3],
    'layers.0.router.bias': [2], 'layers.0.router.selection_bias': [2],
    'layers.0.experts.gate.weight': [2, 4, 3], 'layers.0.experts.gate.bias': [2, 4],
    'layers.0.experts.up.weight': [2, 4, 3], 'layers.0.experts.up.bias': [2, 4],
    'layers.0.experts.down.weight': [2, 2, 4], 'layers.0.experts.down.bias': [2, 2],
    'layers.0.shared.gate.weight': [5, 3], 'layers.0.shared.gate.bias': [5],
    'layers.0.shared.up.weight': [5, 3], 'layers.0.shared.up.bias': [5],
    'layers.0.shared.down.weight': [2, 5], 'layers.0.shared.down.bias': [2],
    'layers.0.shared.gate_vector': [3]}
SMALL_TENSORS = {
    'layers.0.router.weight': [3, 2], 'layers.0.experts.up.weight': [3, 1, 2],
    'layers.0.experts.down.weight': [3, 2, 1]}


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


def changed(tree, path, value):
    """A copy of a tree of dicts and lists with one place set; None takes it out."""
    copy = json.loads(json.dumps(tree))
    at = copy
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return copy


def safetensors(header, n_data, size=None):
    if not isinstance(header, bytes):
        header = json.dumps(header).encode()
    return struct.pack('<Q', len(header) if size is None else size) + header + bytes(range(n_data))


def tensor(dtype, shape, begin, end):
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end]}


def safetensors_seeds():
    a = tensor('F32', [2], 0, 8)
    text = json.dumps({'a': a}).encode()
    yield 'good-empty', safetensors({}, 0)
    yield 'good-one', safetensors({'a': a}, 8)
    yield 'good-padded', safetensors(text + b'   ', 8)
    yield 'good-metadata', safetensors({'__metadata__': {'k': 'v', '': '\u00e9'}, 'a': a}, 8)
    yield 'good-scalar', safetensors({'a': tensor('F64', [], 0, 8)}, 8)
    yield 'good-parts-of-bytes', safetensors({'a': tensor('F4', [2, 3], 0, 3),
                                              'b': tensor('F6_E2M3', [4], 3, 6)}, 6)
    yield 'good-no-elements', safetensors({'a': tensor('BF16', [0, 7], 0, 0),
                                           'b': tensor('U8', [1], 0, 1)}, 1)
    yield 'good-out-of-order', safetensors({'b': tensor('C64', [1], 8, 16), 'a': a}, 16)
    yield 'good-dims', safetensors({'\u00fc': tensor('I16', [1, 2, 1, 1, 1, 1, 1, 1], 0, 4)}, 4)
    yield 'bad-short', b'1234567'
    yield 'bad-size-100-million', safetensors(text, 8, 100000001)
    yield 'bad-size-beyond', safetensors(text, 8, len(text) + 9)
    yield 'bad-size-64-bits', safetensors(text, 8, 2**64 - 1)
    yield 'bad-truncated', safetensors({'a': a}, 7)
    yield 'bad-trailing', safetensors({'a': a}, 9)
    for name, header in {
            'space-before': b' ' + text, 'line-end': text + b'\n', 'zero-behind': text + b'\0',
            'array': b'[]', 'no-utf8': text.replace(b'"a"', b'"\xff"'), 'text': b'{"a":',
            'surrogate': text.replace(b'"a"', rb'"\ud800"'), 'twice': text[:-1] + b',' + text[1:],
            'zero-in-name': text.replace(b'"a"', rb'"\u0000"'),
            'nested': b'{"a":' + b'[' * 3000 + b']' * 3000 + b'}'}.items():
        yield 'bad-json-' + name, safetensors(header, 8)
    for name, entry in {
            'field-twice': '{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}',
            'leading-zero': '{"dtype":"F32","shape":[02],"data_offsets":[0,8]}',
            'real': '{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}',
            'exponent': '{"dtype":"F32","shape":[2e0],"data_offsets":[0,8]}',
            'huge': '{"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]}'}.items():
        yield 'bad-entry-' + name, safetensors(f'{{"a":{entry}}}'.encode(), 8)
    for name, path, value in (
            ('no-dtype', ['dtype'], None), ('no-shape', ['shape'], None),
            ('no-offsets', ['data_offsets'], None), ('extra', ['x'], 1),
            ('dtype-case', ['dtype'], 'f32'), ('dtype-number', ['dtype'], 1),
            ('shape-number', ['shape'], 2), ('negative', ['shape'], [-2]),
            ('dimensions', ['shape'], [1] * 8 + [2]), ('size', ['shape'], [3]),
            ('overflow', ['shape'], [2**40, 2**40, 0]), ('huge-dim', ['shape'], [0, 2**49]),
            ('offsets', ['data_offsets'], [0]), ('backward', ['data_offsets'], [8, 0]),
            ('outside', ['data_offsets'], [8, 16])):
        yield 'bad-entry-' + name, safetensors({'a': changed(a, path, value)}, 8)
    b = tensor('F32', [1], 8, 12)
    yield 'bad-hole', safetensors({'a': a, 'b': tensor('F32', [1], 9, 13)}, 13)
    yield 'bad-overlap', safetensors({'a': a, 'b': tensor('F32', [1], 4, 8)}, 8)
    yield 'bad-alias', safetensors({'a': a, 'b': a}, 8)
    yield 'bad-half-byte', safetensors({'a': tensor('F4', [3], 0, 2)}, 2)
    for name, metadata in {'array': [], 'number': {'k': 1}, 'null': {'k': None}}.items():
        yield 'bad-metadata-' + name, safetensors({'__metadata__': metadata, 'a': a, 'b': b}, 12)


def shards(index, shard=None):
    """An index and 1.safetensors; 2.safetensors, with the tensors c and b, is the target's own."""
    if not isinstance(index, bytes):
        index = json.dumps(index).encode()
    if shard is None:
        shard = safetensors({'a': tensor('U8', [2], 0, 2), 'b': tensor('F16', [1], 2, 4)}, 4)
    return struct.pack('<H', len(index)) + index + shard


def shards_seeds():
    one, two = '1.safetensors', '2.safetensors'
    good = {'a': one, 'c': two, 'b': one}
    text = json.dumps({'weight_map': good}).encode()
    yield 'good-both', shards({'metadata': {'total_size': 8}, 'weight_map': good})
    yield 'good-one', shards({'weight_map': {'c': two}})
    yield 'good-unused-shard', shards({'weight_map': {'c': two}}, b'')
    yield 'good-nothing', shards({'weight_map': {}})
    yield 'good-other-keys', shards({'x': [{}], 'weight_map': good})
    for size in ('-1', '1.5', '1e300', '99999999999999999999', '"x"', '{}'):
        yield 'good-size-' + size.strip('"{}'), shards(
            b'{"metadata":{"total_size":' + size.encode() + b'},' + text[1:])
    yield 'bad-empty', b''
    yield 'bad-no-index', shards(b'')
    yield 'bad-text', shards(text[:-1])
    yield 'bad-array', shards([good])
    yield 'bad-no-map', shards({'metadata': {}})
    for name, value in {'array': [one], 'null': None, 'text': one}.items():
        yield 'bad-map-' + name, shards({'weight_map': value})
    yield 'bad-twice', shards(text.replace(b'"c"', b'"a"'))
    yield 'bad-map-twice', shards(text[:-1] + b',' + text[1:])
    yield 'bad-no-utf8', shards(text.replace(b'"c"', b'"\xff"'))
    for name, value in {
            'number': 1, 'null': None, 'empty': '', 'folder': './' + one, 'absolute': '/dev/null',
            'parent': '../' + one, 'backslash': '.\\' + one, 'dot': '.', 'dots': '..',
            'drive': 'C:' + one, 'zero': one + '\0', 'absent': '3.safetensors', 'long': 'n' * 300,
            'other': two}.items():
        yield 'bad-shard-' + name, shards({'weight_map': dict(good, a=value)})
    yield 'bad-shard-truncated', shards({'weight_map': good}, safetensors({}, 1))
    yield 'bad-shard-without', shards({'weight_map': good}, safetensors({}, 0))


def config_variants():
    layer = ['layers', 0]
    yield 'good-full', CONFIG
    yield 'good-small', SMALL
    second = dict(SMALL['layers'][0], d_out=1)
    yield 'good-two-layers', dict(SMALL, layers=SMALL['layers'] + [second], head='identity')
    yield 'good-binary', dict(CONFIG, head='sigmoid', layers=[dict(CONFIG['layers'][0], d_out=1)])
    yield 'good-no-input', changed(CONFIG, ['input', 'kind'], 'none')
    yield 'good-biases', changed(CONFIG, layer + ['expert', 'gated'], False)
    yield 'good-plain', changed(CONFIG, layer + ['shared', 'gate'], 'none')
    for name, path, value in (
            ('no-task', ['task'], None), ('key', ['x'], 1), ('layer-key', layer + ['x'], 1),
            ('router-key', layer + ['router', 'x'], 1), ('format', ['format'], 'vkmoe-model/2'),
            ('task', ['task'], 'sort'), ('layers', ['layers'], {}), ('no-layers', ['layers'], []),
            ('input', ['input'], []), ('kind', layer + ['kind'], 'recurrent'),
            ('embed', ['input', 'kind'], 'embed'), ('residual', layer + ['residual'], True),
            ('width', layer + ['d_in'], 4), ('top-k', layer + ['top_k'], 3),
            ('zero', layer + ['d_ff'], 0), ('real', layer + ['d_ff'], 4.0),
            ('experts', layer + ['n_experts'], 2000000), ('negative', layer + ['d_out'], -1),
            ('scale', layer + ['router', 'routed_scale'], 1e99),
            ('eps', layer + ['router', 'renormalize'], False),
            ('gated', layer + ['expert', 'gated'], 1),
            ('act', layer + ['expert', 'activation'], 'x'),
            ('shared', layer + ['shared'], 5), ('classes', ['classes'], ['no']),
            ('class-twice', ['classes'], ['no', 'no']), ('class-number', ['classes'], ['no', 1]),
            ('no-classes', ['classes'], None), ('regress', ['task'], 'regress'),
            ('train', ['train'], {}), ('pool', ['layers', 0], {'kind': 'pool', 'pool': 'median'}),
            ('scorer', layer + ['router', 'scorer'], 'x'),
            ('d-score', layer + ['router', 'd_score'], 3),
            ('bias-rate', layer + ['router', 'bias_rate'], -1),
            ('combine', layer + ['combine'], 'mean'),
            ('dropout', layer + ['expert', 'dropout'], 1)):
        yield 'bad-' + name, changed(CONFIG, path, value)
    linear = {'kind': 'linear', 'd_out': 2}
    mean = {'kind': 'pool', 'pool': 'mean'}
    experts = {'kind': 'moe', 'n_experts': 3, 'd_out': 2, 'expert':
               {'kind': 'linear', 'activation': 'relu', 'bias': True}}
    router = {'score': 'none', 'order': 'score_then_topk'}
    stack = [{'kind': 'norm'}, {'kind': 'dropout', 'rate': 0.5}, {'kind': 'norm', 'rms': True},
             dict(linear, activation='tanh', bias=False), dict(linear, residual=True), mean]
    yield 'good-stack', dict(CONFIG, layers=stack)
    yield 'good-identity', dict(CONFIG, head='identity')
    yield 'bad-pools', dict(CONFIG, layers=[linear, mean, mean])
    for combine in ('mean', 'stack', 'response_share', 'attention', 'vote'):
        yield 'good-' + combine, dict(CONFIG, layers=[dict(experts, combine=combine)])
    for pairing in ('each', 'all'):
        queries = {'pairing': pairing, 'd_query': 5}
        yield 'good-' + pairing, dict(CONFIG, layers=[dict(experts, combine='attention',
                                                           queries=queries)])
    for scorer in ('kernel', 'additive', 'multiplicative', 'one', 'sum'):
        more = {'d_score': 4} if scorer[0] in 'am' else {}
        yield 'good-' + scorer, dict(CONFIG, layers=[dict(
            experts, top_k=2, router=dict(router, scorer=scorer, noisy=True, **more))])
    for kind, layers in (('embed', [linear, mean]), ('embed_bag', [linear])):
        text = {'kind': kind, 'd_out': 3, 'ngrams': {'byte': [1, 8], 'word': [2]}, 'n_buckets': 9}
        words = dict(text, vocabulary=['a', 'b'], lower=True, max_tokens=5)
        del words['n_buckets']
        yield 'good-' + kind, dict(CONFIG, input=text, layers=layers)
        yield 'good-words-' + kind, dict(CONFIG, input=words, layers=layers)
        for name, key, value in (('none', 'ngrams', {}), ('nine', 'ngrams', {'word': [9]}),
                                 ('unit', 'ngrams', {'line': [1]}), ('d-out', 'd_out', None),
                                 ('both', 'vocabulary', ['a']), ('buckets', 'n_buckets', 0)):
            yield f'bad-{kind}-{name}', dict(CONFIG, layers=layers,
                                             input=changed(text, [key], value))
        yield f'bad-{kind}-twice', dict(CONFIG, input=dict(words, vocabulary=['a', 'a']),
                                        layers=layers)


def train_variants():
    adam = {'rate': 0.1, 'betas': [0, 0.5], 'eps': 1e-3, 'decay': 0.5, 'clip_norm': 2,
            'groups': [{'match': 'bias', 'rate_scale': 0, 'decay': 1}]}
    sgd = {'kind': 'sgd', 'rate': 0.1, 'momentum': 0.5, 'nesterov': True}
    train = {'optimiser': adam, 'batch': 4, 'micro_batches': 2, 'epochs': 3, 'seed': 7,
             'class_weights': [1, 2.5], 'label_smoothing': 0.1, 'input_noise': 0.1,
             'validation': {'share': 0.25}, 'patience': 2, 'min_delta': 0.1, 'monitor': 'metric',
             'schedule': {'kind': 'cosine', 'warm_up': 2, 'floor': 0.5}, 'log': 'x.csv'}
    whole = dict(CONFIG, data={'target': 'a,b'}, train=train)
    step = {'kind': 'step', 'every': 2, 'factor': 1e38}
    yield 'good-full', whole
    yield 'good-few', dict(CONFIG, train={'optimiser': {'rate': 1}, 'steps': 1})
    yield 'good-unnamed', changed(changed(whole, ['classes'], None), ['train', 'loss'],
                                  'cross_entropy')
    for name, path, value in (
            ('sgd', ['optimiser'], sgd), ('step', ['schedule'], step),
            ('fold', ['validation'], {'fold': {'of': 3, 'index': 2}}),
            ('all', ['validation'], 'none'), ('soft', ['soft_targets'], True),
            ('balanced', ['class_weights'], 'balanced')):
        yield 'good-' + name, changed(whole, ['train'] + path, value)
    regress = dict(SMALL, head='identity', train={
        'optimiser': {'rate': 1}, 'steps': 1, 'loss': 'huber', 'huber_delta': 2,
        'targets': 'standardize'})
    yield 'good-huber', regress
    for name, path, value in (
            ('key', ['x'], 1), ('loss', ['loss'], 'mse'), ('no-loss', ['loss'], 1),
            ('huber', ['huber_delta'], 1), ('variance', ['variance'], 1),
            ('smooth', ['label_smoothing'], 1), ('soft', ['soft_targets'], 1),
            ('targets', ['targets'], 'as_is'),
            ('weights', ['class_weights'], [1]), ('weight', ['class_weights'], [1, 0]),
            ('weight-text', ['class_weights'], [1, 'a']),
            ('weight-big', ['class_weights'], [1, 1e99]),
            ('no-optimiser', ['optimiser'], None), ('rate', ['optimiser', 'rate'], 0),
            ('no-rate', ['optimiser', 'rate'], None), ('kind', ['optimiser', 'kind'], 'x'),
            ('decay', ['optimiser', 'decay'], -1), ('momentum', ['optimiser', 'momentum'], 0.5),
            ('betas', ['optimiser', 'betas'], [0, 1]), ('beta', ['optimiser', 'betas'], [0]),
            ('three', ['optimiser', 'betas'], [0, 0, 0]), ('beta-map', ['optimiser', 'betas'], {}),
            ('groups', ['optimiser', 'groups'], {}), ('group', ['optimiser', 'groups'], [1]),
            ('match', ['optimiser', 'groups', 0, 'match'], ''),
            ('group-key', ['optimiser', 'groups', 0, 'x'], 1),
            ('schedule', ['schedule'], 'cosine'), ('floor', ['schedule', 'floor'], 1),
            ('every', ['schedule', 'every'], 1),
            ('factor', ['schedule'], {'kind': 'step', 'every': 1}),
            ('batch', ['batch'], 0), ('micro', ['micro_batches'], 5), ('both', ['steps'], 5),
            ('neither', ['epochs'], None), ('share', ['validation', 'share'], 1),
            ('fold-1', ['validation'], {'fold': {'of': 1, 'index': 0}}),
            ('fold-index', ['validation'], {'fold': {'of': 2, 'index': 2}}),
            ('fold-minus', ['validation'], {'fold': {'of': 2, 'index': -1}}),
            ('two-ways', ['validation', 'fold'], {'of': 2, 'index': 0}),
            ('patience', ['patience'], None), ('delta', ['min_delta'], -1),
            ('monitor', ['monitor'], 'x'), ('seed', ['seed'], -1), ('seed-real', ['seed'], 1.5),
            ('noise', ['input_noise'], 1e99), ('log', ['log'], 1)):
        yield 'bad-' + name, changed(whole, ['train'] + path, value)
    yield 'bad-none', CONFIG
    yield 'bad-list', dict(CONFIG, train=[])
    yield 'bad-data', dict(whole, data=[])
    yield 'bad-target', dict(whole, data={'target': 1})
    router = ['layers', 0, 'router']
    yield 'bad-router', changed(whole, router + ['eps'], 0)
    yield 'good-router', changed(changed(whole, router + ['eps'], 0), router + ['z_loss'], 1)
    yield 'bad-standardize', changed(regress, ['train'], dict(regress['train'], loss='bce'))
    for value in ('1e999', 'nan', '01'):
        yield 'bad-number-' + value, json.dumps(whole).replace('"rate": 0.1', f'"rate": {value}')


def train_seeds():
    for name, config in train_variants():
        yield name, (config if isinstance(config, str) else json.dumps(config)).encode()


def config_seeds():
    for name, config in config_variants():
        yield name, json.dumps(config).encode()
    yield 'bad-array', b'[]'
    yield 'bad-twice', b'{"task":"regress","task":"regress"}'


def model(config, shapes, dtypes=None, metadata=None):
    """A model file; every value is 1 but those of input.min."""
    header, data = {}, b''
    header['__metadata__'] = {'format': 'vkmoe-model/1', 'config': json.dumps(config),
                              **(metadata or {})}
    for name, shape in shapes.items():
        dtype, n, begin = (dtypes or {}).get(name, 'F32'), 1, len(data)
        for size in shape:
            n *= size
        one = {'F32': struct.pack('<f', 1), 'BF16': b'\x80\x3f', 'F16': b'\x00\x3c', 'I8': b'\1',
               'U8': b'\1', 'I32': struct.pack('<i', 1)}
        data += (bytes(4) if name == 'input.min' else one[dtype]) * n
        header[name] = tensor(dtype, shape, begin, len(data))
    return safetensors(header, 0) + data


# A layer by all that it has, and its tensors; matrices of 32 values a row are q8_0.
FULL = {'task': 'regress', 'input': {'kind': 'none', 'n_features': 32},
        'layers': [{'kind': 'moe', 'layer': {
            'n_experts': 3, 'top_k': 1, 'd_model': 32, 'd_ff': 2, 'd_shared_ff': 3, 'act': 'silu',
            'norm': 'max_sum_eps', 'norm_eps': 0.5, 'score': 'sigmoid'}}], 'head': 'identity'}
FULL_TENSORS = {'layers.0.router.weight': [3, 32], 'layers.0.experts.up.weight': [3, 2, 34],
                'layers.0.experts.down.weight': [3, 32, 2], 'layers.0.shared.up.weight': [3, 32],
                'layers.0.shared.down.weight': [32, 3]}
LATENT = {'d_latent': 1, 'latent_norm': True, 'expert_scale': True, 'out_bias': True,
          'router_prenorm': True, 'adjugate_group': 2, 'd_adjugate': 1, 'd_shared_ff': 0,
          'select': 'table', 'n_token_ids': 2}
LATENT_TENSORS = {
    'layers.0.router.weight': [3, 32], 'layers.0.experts.up.weight': [3, 2, 1],
    'layers.0.experts.down.weight': [3, 1, 2], 'layers.0.adjugate.up.weight': [2, 1, 1],
    'layers.0.adjugate.down.weight': [2, 1, 1], 'layers.0.latent.down.weight': [1, 32],
    'layers.0.latent.up.weight': [32, 1], 'layers.0.latent.norm': [1], 'layers.0.out_bias': [32],
    'layers.0.router.expert_scale': [3], 'layers.0.router.prenorm_scale': [32],
    'layers.0.router.table': [2, 1]}


def full_seeds():
    up, table = 'layers.0.experts.up.weight', 'layers.0.router.table'
    types = {'types': json.dumps({up: 'q8_0'})}
    yield 'good-blocks', model(FULL, FULL_TENSORS, {up: 'U8'}, types)
    latent = changed(FULL, ['layers', 0, 'layer'], {**FULL['layers'][0]['layer'], **LATENT})
    yield 'good-latent', model(latent, LATENT_TENSORS, {table: 'I32'})
    yield 'bad-table', model(latent, LATENT_TENSORS)
    yield 'bad-blocks-unlisted', model(FULL, FULL_TENSORS, {up: 'U8'})
    yield 'bad-blocks-f32', model(FULL, FULL_TENSORS, {}, types)
    yield 'bad-blocks-size', model(FULL, {**FULL_TENSORS, up: [3, 2, 35]}, {up: 'U8'}, types)
    yield 'bad-blocks-width', model(FULL, {**FULL_TENSORS, up: [3, 2, 68]}, {up: 'U8'}, types)
    for name, text in [('json', '{'), ('array', '[]'), ('word', '{"%s": "f16"}' % up),
                       ('none', '{"x": "q8_0"}')]:
        yield 'bad-list-' + name, model(FULL, FULL_TENSORS, {up: 'U8'}, {'types': text})
    for key, value in [('in_type', 'q8_0'), ('d_model', 31), ('top_k', 4), ('no_field', 1),
                       ('n_experts', 1 << 24), ('expert_kind', 'linear')]:
        yield 'bad-layer-' + key, model(changed(FULL, ['layers', 0, 'layer', key], value),
                                        FULL_TENSORS, {up: 'U8'}, types)


def model_seeds():
    yield from full_seeds()
    small = {'input.min': [2], 'input.max': [2], **SMALL_TENSORS}
    up, down = 'layers.0.experts.up.weight', 'layers.0.experts.down.weight'
    yield 'good-full', model(CONFIG, CONFIG_TENSORS)
    yield 'good-small', model(SMALL, small)
    # Odd offsets: BF16 in front of F32.
    yield 'good-unaligned', model(SMALL, {'layers.0.router.weight': [3, 2], 'input.min': [2],
                                          up: [3, 1, 2], 'input.max': [2], down: [3, 2, 1]},
                                  {'layers.0.router.weight': 'BF16', up: 'F16', 'input.max': 'F16'})
    no_input = changed(SMALL, ['input', 'kind'], 'none')
    yield 'good-no-input', model(no_input, SMALL_TENSORS, {up: 'BF16', down: 'F16'})
    yield 'bad-format', model(SMALL, small, None, {'format': 'x'})
    yield 'bad-config', model(SMALL, small, None, {'config': '{'})
    yield 'bad-no-metadata', safetensors({}, 0)
    yield 'bad-extra', model(SMALL, {**small, 'x': [1]})
    yield 'bad-missing', model(SMALL, {name: small[name] for name in list(small)[:-1]})
    yield 'bad-shape', model(SMALL, {**small, down: [3, 1, 2]})
    yield 'bad-rank', model(SMALL, {**small, down: [6]})
    yield 'bad-dtype', model(SMALL, small, {up: 'I8'})
    yield 'bad-types', model(CONFIG, CONFIG_TENSORS, {'layers.0.shared.up.weight': 'F16'})
    yield 'bad-range', model(changed(SMALL, ['input', 'kind'], 'standardize'),
                             {'input.mean': [2], 'input.min': [2], **SMALL_TENSORS})
    ones, mean = struct.pack('<4f', 1, 1, 1, 1), struct.pack('<4f', 1, float('nan'), 1, 1)
    standardized = {'input.mean': [2], 'input.std': [2], **SMALL_TENSORS}
    yield 'bad-mean', model(changed(SMALL, ['input', 'kind'], 'standardize'),
                            standardized).replace(ones, mean, 1)
    yield 'bad-truncated', model(SMALL, small)[:-1]


def npy(shape, data, descr='<f4', order='False', version=1, extra=''):
    header = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, {extra}}}\n"
    size = struct.pack('<H' if version == 1 else '<I', len(header))
    return b'\x93NUMPY' + bytes([version, 0]) + size + header.encode() + data


def npy_seeds():
    numbers = struct.pack('<6f', 1, -2, 0.5, float('nan'), float('inf'), 1e-40)
    yield 'good-f4', npy('(2, 3)', numbers)
    yield 'good-f8', npy('(2, 1)', struct.pack('<2d', 1e300, 0.1), '<f8')
    yield 'good-i4', npy('(1, 2)', struct.pack('<2i', 7, -2**31), '<i4', version=2)
    yield 'good-i8', npy('(2,)', struct.pack('<2q', 2**62 + 1, -1), '<i8')
    yield 'good-scalar', npy('()', numbers[:4])
    yield 'good-no-rows', npy('(0, 3)', b'')
    yield 'good-dims', npy('(1, 1, 1, 1, 1, 1, 2, 3)', numbers)
    yield 'bad-empty', b''
    yield 'bad-magic', b'\x93NUMPZ' + npy('(2, 3)', numbers)[6:]
    yield 'bad-version', npy('(2, 3)', numbers, version=3)
    yield 'bad-header', npy('(2, 3)', numbers)[:40]
    yield 'bad-header-size', b'\x93NUMPY\x02\x00\xff\xff\xff\xff' + bytes(20)
    yield 'bad-zero', npy('(2, 3)', numbers, extra='\0')
    yield 'bad-truncated', npy('(2, 3)', numbers[:-1])
    yield 'bad-trailing', npy('(2, 3)', numbers + b'x')
    yield 'bad-big-endian', npy('(2, 3)', numbers, '>f4')
    yield 'bad-fortran', npy('(2, 3)', numbers, order='True')
    yield 'bad-shape', npy('(2, -3)', numbers)
    yield 'bad-dims', npy('(1, 1, 1, 1, 1, 1, 1, 2, 3)', numbers)
    yield 'bad-overflow', npy('(4294967296, 4294967296)', b'')
    yield 'bad-huge', npy('(99999999999999999999,)', b'')
    yield 'bad-key', npy('(2, 3)', numbers, extra="'x': '', ")
    yield 'bad-twice', npy('(2, 3)', numbers, extra="'shape': (2, 3), ")


def csv_seeds():
    yield 'good-plain', b'1,2,x\n3,4,y\n'
    yield 'good-header', b'a,b,class\n1,-2.5e3,no\n.5,4.,yes\n'
    yield 'good-quotes', b'"1",2,"say ""hi"", then"\n3,"4",\n'
    yield 'good-space', b'\xef\xbb\xbf# text\r\n\r\n  1 , 2 ,\tx y \r\n# more\n3,4,5'
    yield 'good-digits', b'0.1,123456789012345678901234567890e-20,1\n16777217,1e-45,2\n'
    yield 'good-one-column', b'x\ny\n'
    yield 'good-one-column-number', b'!\n2'
    yield 'bad-empty', b'# nothing\n\n'
    yield 'bad-header-only', b'a,b,c\n'
    yield 'bad-columns', b'1,2,3\n4,5\n'
    yield 'bad-number', b'1,2,3\n1,two,3\n'
    yield 'bad-missing', b'1,2,3\n1,,3\n'
    yield 'bad-large', b'1,2,3\n1e39,2,3\n'
    yield 'bad-nan', b'1,2,3\nnan,2,3\n'
    yield 'bad-hex', b'1,2,3\n0x10,2,3\n'
    yield 'bad-quote', b'1,"2,3\n'
    yield 'bad-behind-quote', b'1,"2"x,3\n'
    yield 'bad-zero', b'1,2,3\n1,\0,3\n'


def dataset(name, how, first, second=b''):
    formats = ['csv', 'npy', 'safetensors', 'misnamed']
    return struct.pack('<BBH', formats.index(name), how, len(second)) + first + second


def dataset_seeds():
    none, labels, values, ignore, target_1, target_a2, two_features = 0, 1, 2, 3, 4, 8, 32
    x = npy('(3, 2)', struct.pack('<6f', 1, 2, 3, 4, 5, 6))
    y = npy('(3,)', struct.pack('<3q', 0, 2, 1), '<i8')
    y_beyond = npy('(3,)', struct.pack('<3i', 0, 3, 1), '<i4')
    rows = b'1,2,a\n3,4,b\n5,6,0\n7,8,a\n9,1,b\n2,3,0\n'
    st = safetensors({'x': tensor('F16', [3, 2], 0, 12)}, 12)
    yield 'good-csv', dataset('csv', none, b'1,2\n3,4\n5,6\n')
    yield 'good-csv-labels', dataset('csv', labels | two_features, rows)
    yield 'good-csv-values', dataset('csv', values | target_1, b'1,2,3\n4,5,6\n')
    yield 'good-csv-names', dataset('csv', values | target_a2, b'a,b,c\n1,2,3\n4,5,6\n')
    yield 'good-npy', dataset('npy', none, x)
    yield 'good-npy-labels', dataset('npy', labels, x, y)
    yield 'good-npy-values', dataset('npy', values, x, npy('(3, 1)', bytes(12)))
    yield 'good-safetensors', dataset('safetensors', none, st)
    yield 'bad-short', b'123'
    yield 'bad-csv-label', dataset('csv', labels, rows + b'1,2,c\n')
    yield 'bad-csv-row', dataset('csv', none, b'1,2\n3,4\n5,6\n7,8\n1,2\n3,4\n5,x\n')
    yield 'bad-csv-features', dataset('csv', labels | 16, rows)
    yield 'bad-npy-label', dataset('npy', labels, x, y_beyond)
    yield 'bad-npy-rows', dataset('npy', labels, x, npy('(2,)', bytes(16), '<i8'))
    yield 'bad-npy-real-labels', dataset('npy', labels, x, npy('(3,)', bytes(12)))
    yield 'good-npy-sequences', dataset('npy', labels, npy('(3, 2, 1)', bytes(24)), y)
    yield 'good-csv-ignore', dataset('csv', ignore | two_features, rows)
    yield 'good-csv-ignore-none', dataset('csv', ignore | two_features, b'1,2\n3,4\n')
    yield 'bad-csv-ignore', dataset('csv', ignore | two_features, b'1\n3\n')
    yield 'bad-npy-no-steps', dataset('npy', none, npy('(3, 0, 1)', b''))
    yield 'bad-npy-dimensions', dataset('npy', none, npy('(3, 1, 1, 1)', bytes(12)))
    yield 'bad-npy-name', dataset('misnamed', labels, x, y)
    yield 'bad-safetensors-labels', dataset('safetensors', labels, st)
    yield 'bad-safetensors-type', dataset('safetensors', none, safetensors(
        {'x': tensor('I8', [3, 2], 0, 6)}, 6))


def tsv_seeds():
    none, labels, values, ignore = b'\0', b'\1', b'\2', b'\3'
    rows = b'a\tone two\nb\tTwo\ttabs\r\n\n0\t\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80 x1_y\n'
    yield 'good-labels', labels + rows
    yield 'good-none', none + rows
    yield 'good-ignore', ignore + rows
    yield 'good-ignore-none', ignore + b'one two\nthree\n'
    yield 'good-values', values + b'1.5\tone\n-2e3\ttwo'
    yield 'good-many', labels + b'a\tone two\n' * 200
    yield 'good-mark', labels + b'\xef\xbb\xbfa\tone\n'
    yield 'bad-empty', labels
    yield 'bad-blank', none + b'\n \r\n'
    yield 'bad-class', labels + rows + b'c\tx\n'
    yield 'bad-value', values + b'1.5\tone\nx\ttwo\n'
    yield 'bad-no-tab', labels + rows + b'a b\n'
    yield 'bad-ignore-no-tab', ignore + rows + b'a b\n'
    yield 'bad-no-label', labels + b'\tone\n'
    yield 'bad-no-text', labels + b'a\t \n'
    yield 'bad-zero', none + b'a\0b\n'
    for name, text in (('short', b'\xc3'), ('overlong', b'\xc0\xaf'), ('second', b'\xc3\x28'),
                       ('surrogate', b'\xed\xa0\x80'), ('large', b'\xf4\x90\x80\x80'),
                       ('overlong-3', b'\xe0\x80\x80'), ('overlong-4', b'\xf0\x80\x80\x80'),
                       ('alone', b'\x80'), ('ff', b'\xff')):
        yield 'bad-utf8-' + name, labels + b'a\tok\nb\tx' + text + b'\n'


def bench_seeds():
    whole = bench_sample.sample()
    small = dict(whole, devices=whole['devices'][:1], rows=[whole['rows'][0], whole['rows'][7]])
    bench_sample.set_samples(small['rows'][0], [80.0, 90.5, 100.25])
    text = json.dumps(small).encode()
    first = ['rows', 0]
    yield 'good-two-rows', text
    yield 'good-lines', json.dumps(small, indent=1).encode()
    yield 'good-no-rows', json.dumps(dict(small, rows=[])).encode()
    yield 'good-nothing', json.dumps(dict(small, rows=[], devices=[])).encode()
    yield 'good-more', json.dumps(dict(small, later=[1])).encode()
    for name, path, value in (
            ('seed', first + ['key', 'seed'], str(2**64 - 1)), ('unknown', first + ['bytes'], None),
            ('no-experts', first + ['expert_rows'], []), ('quotes', ['cpu'], 'a"|,\n\u00e9')):
        copy = json.loads(text)
        at(copy, path[:-1])[path[-1]] = value
        yield 'good-' + name, json.dumps(copy).encode()
    yield 'bad-empty', b''
    yield 'bad-truncated', text[:-2]
    yield 'bad-twice', text[:-1] + b',"suite":""}'
    for name, path, value in (
            ('schema', ['schema'], 'vkmoe-bench/2'), ('missing', first + ['key', 'seed'], None),
            ('device', first + ['device'], 1), ('negative', first + ['bytes'], -1),
            ('status', first + ['status'], 'fine'), ('no-times', ['rows', 1, 'status'], 'ok'),
            ('experts', first + ['key', 'n_experts'], 2**32 - 1), ('long', ['version'], 'v' * 16),
            ('median', first + ['device_times', 'median_us'], 1), ('rows', ['rows'], {}),
            ('seed', first + ['key', 'seed'], str(2**64)), ('peak', ['devices', 0, 'peak'], 1)):
        yield 'bad-' + name, json.dumps(changed(small, path, value)).encode()
    yield 'bad-huge', text.replace(b'"n_cores": 8', b'"n_cores": 1e999')
    yield 'bad-nested', b'[' * 3000


TARGETS = {'bench': bench_seeds, 'config': config_seeds, 'csv': csv_seeds, 'dataset': dataset_seeds,
           'describe': seeds_checkpoint.describe_seeds, 'gguf': seeds_gguf.seeds,
           'hf_config': seeds_checkpoint.config_seeds, 'model': model_seeds, 'npy': npy_seeds,
           'safetensors': safetensors_seeds, 'shards': shards_seeds, 'train': train_seeds,
           'tsv': tsv_seeds}


def write(folder, name, data):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), 'wb') as file:
        file.write(data)


def main():
    out = sys.argv[1]
    shutil.rmtree(out, ignore_errors=True)
    for target, seeds in TARGETS.items():
        for name, data in seeds():
            write(os.path.join(out, target), name, data)
    write(os.path.join(out, 'control'), 'good-nothing', b'')


if __name__ == '__main__':
    main()
