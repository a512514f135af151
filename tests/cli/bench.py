# SPDX-License-Identifier: MIT
"""vkmoe bench on the command line: options, rows, bad input, what goes wrong on the way.

Usage: bench.py PROGRAM [FAULT], where FAULT is the library built from bench_fault.c."""
import array
import json
import math
import os
import pty
import resource
import signal
import subprocess
import sys
import time
import unittest

FAULT = sys.argv.pop(2) if len(sys.argv) > 2 else None

import checkpoints
import helper  # takes PROGRAM from sys.argv
from checkpoints import FAMILIES, GOLDENS
from helper import MODEL, run

SHAPE = ['--shape', '8,2,32,48']
# With one thread no measurement is made anew because other programs took a core.
QUICK = ['--min-time', '0.01', '--threads', '1']
FAST = [*SHAPE, *QUICK]


def bench(*args, env=None):
    return run('bench', *args, env=env)


def names(*args):
    return bench('--dry-run', *args).stdout.splitlines()


def small_model(path, router, more):
    """A model of one layer with biases, whose weights are 0."""
    e, d, f = 12, 20, 28
    config = {'task': 'regress', 'input': {'kind': 'none', 'n_features': d}, 'layers': [
        {'kind': 'moe', 'd_in': d, 'd_ff': f, 'n_experts': e, 'top_k': 3, 'router': router,
         'expert': {'gated': True, 'activation': 'gelu_tanh', 'bias': True}, **more}],
        'head': 'identity'}
    shapes = {'router.weight': (e, d)}
    if router.get('bias'):
        shapes['router.bias'] = (e,)
    if router.get('selection_bias'):
        shapes['router.selection_bias'] = (e,)
    experts = [('experts', f, (e,))] + [('shared', v['d_ff'], ()) for v in more.values()]
    for part, width, first in experts:
        for name, matrix in [('gate', (width, d)), ('up', (width, d)), ('down', (d, width))]:
            shapes[f'{part}.{name}.weight'] = (*first, *matrix)
            shapes[f'{part}.{name}.bias'] = (*first, matrix[0])
    if more:
        shapes['shared.gate_vector'] = (d,)
    header, size = {}, 0
    for name, shape in shapes.items():
        end = size + 4 * math.prod(shape)
        header[f'layers.0.{name}'] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [size, end]}
        size = end
    header['__metadata__'] = {'format': 'vkmoe-model/1', 'config': json.dumps(config)}
    return helper.write_model(path, header, bytes(size))


class Bench(helper.Case):
    def rows(self, *args, code=0, env=None):
        """Runs it and returns the rows of the JSON."""
        done = bench(*args, '--format', 'json', env=env)
        self.assertEqual(done.returncode, code, f'{args}: {done.stderr}\n{done.stdout}')
        self.file = json.loads(done.stdout)
        return self.file['rows']

    def check_refused(self, part, *args):
        self.check_fails(2, part, 'bench', *args)

    def test_help(self):
        text = bench('--help').stdout
        for option in ['-m, --model', '--shape E,K,D,F', '--suite', '--type', '-n, --tokens',
                       '--precision', '--routing', '--mode', '--budget-ms', '--seed', '--count',
                       '--dispatches', '--no-verify', '--min-time', '--variant', '--case',
                       '--dry-run', '--list', '--format md|csv|json', '-o, --output', '--report',
                       '-d, --device', '--threads']:
            self.assertIn(option, text)

    def test_usage(self):
        for part, *args in [
                ('presets are granite-1b-a400m', '-m', 'no-such-model'),
                ("'a.safetensors'; presets are", '-m', 'a.safetensors'),
                ('known are f32 f16 bf16 q8_0', *SHAPE, '--type', 'f32,q8_1'),
                ('known are f32 f16 bf16 q8_0', *SHAPE, '--type', 'f32,'),
                ('--type q9: known are', *SHAPE, '--type', 'q8_0-q9'),
                ('known are exact, half and int8', *SHAPE, '--precision', 'f16'),
                ('known are f32 f16 bf16\n', *SHAPE, '--x-type', 'fp8'),
                ('known are uniform, zipf:A', *SHAPE, '--routing', 'hot'),
                ('a trace needs a --routing of its own', *SHAPE, '--routing', 'single,trace:a.npy'),
                ('known are forward, backward and train', *SHAPE, '--mode', 'sideways'),
                ('known are quick and standard-1', '--suite', 'standard-0'),
                ('only --case chooses', '--suite', 'quick', '--type', 'f16'),
                ('needs E,K,D,F', '--shape', '8,2,32'),
                ('needs E,K,D,F', '--shape', '8,2,32,48,'),
                ('needs E,K,D,F', '--shape', '8,2,32,-48'),
                ('needs E,K,D,F', '--shape', '4294967304,2,32,48'),
                ('needs E,K,D,F', '--shape', '8,2,32,99999999999999999999'),
                ('there are n_experts = 8', '--shape', '8,9,32,48'),
                ('n_experts = 4096: must be 1 to 1024', '--shape', '4096,9,32,48'),
                ('no layer: give -m or --shape', '--type', 'f16'),
                ('needs numbers from 1 up', *SHAPE, '-n', '0'),
                ('a range goes up', *SHAPE, '-n', '8-4'),
                ('not a regular expression', *SHAPE, '--case', '['),
                ('matches none of the 2 cases', *SHAPE, '--case', 'q'),
                ('md|csv|json', *SHAPE, '--format', 'xml'),
                ('must not be negative', *SHAPE, '--min-time', '-1'),
                ('--layer is of a model file', *SHAPE, '--layer', '0'),
                ('--assume and --desc are of a model', *SHAPE, '--assume', 'mixtral'),
                ("unexpected argument 'x'", *SHAPE, 'x')]:
            self.check_refused(part, *args)

    def test_early_failures(self):
        """Before anything is measured: a device, a path, a model file that cannot be had."""
        self.check_fails(5, 'no such device', 'bench', *SHAPE, '-d', 'no such device')
        path = self.folder / 'none' / 'x.json'
        self.check_fails(1, str(path), 'bench', *SHAPE, '-d', 'cpu', '-o', path)
        self.check_fails(1, str(path), 'bench', *SHAPE, '-d', 'cpu', '--report', path)
        wrong = self.folder / 'wrong.safetensors'
        wrong.write_bytes(b'12345678')
        self.check_fails(1, str(wrong), 'bench', '-m', wrong)
        self.check_fails(2, 'layer 7 of a model with 1', 'bench', '-m', MODEL, '--layer', '7')

    def test_inputs_are_kept(self):
        path = self.folder / 'm.safetensors'
        path.write_bytes(MODEL.read_bytes())
        self.check_refused('is read, so it is not written to', '-m', path, '-o', path)
        self.check_refused('is read, so it is not written to', '-m', FAMILIES / 'mixtral', '--desc',
                           path, '--report', path)
        trace = self.trace([0, 1], (1, 2))
        self.check_refused('is read, so it is not written to', *SHAPE, '-n', '1', '--routing',
                           f'trace:{trace}', '--report', trace)

    def test_list(self):
        lines = bench('--list').stdout.splitlines()
        self.assertGreaterEqual(len(lines), 15)
        self.assertIn('granite-1b-a400m     32,8,1024,512          softmax-selected, gated silu',
                      lines)
        self.assertIn('deepseek-v3          256,8,7168,2048+2048   sigmoid norm x2.5 groups '
                      'selection-bias, gated silu', lines)
        self.assertNotIn('only --plain', ''.join(lines))

    def test_dry_run(self):
        self.assertEqual(names(*SHAPE, '--type', 'f32,f16', '-n', '1-3+2'),
                         ['8,2,32,48/f32/exact/t1/uniform', '8,2,32,48/f32/exact/t3/uniform',
                          '8,2,32,48/f16/half/t1/uniform', '8,2,32,48/f16/half/t3/uniform'])
        self.assertEqual(len(names(*SHAPE, '--mode', 'forward,train', '--precision', 'exact,half',
                                   '--routing', 'uniform,zipf:1', '--routing', 'single')), 18)
        self.assertEqual(len(names(*SHAPE, *SHAPE, '-n', '4,4')), 1)  # none twice
        plain = names('-m', 'gpt-oss-20b,dbrx', '--plain', '-n', '2')
        self.assertEqual(plain, ['gpt-oss-20b:plain/f32/exact/t2/uniform',
                                 'dbrx:plain/f32/exact/t2/uniform'])
        self.assertIn('unsupported: layer.', names(*SHAPE, '--type', 'q4_K', '-n', '2')[0])
        self.assertEqual(names(*SHAPE, '--case', 't64'), ['8,2,32,48/f32/exact/t64/uniform'])

    def test_suites(self):
        """A suite is frozen: what is in it can only be an error in this change."""
        standard = names('--suite', 'standard-1')
        for model in ['granite-1b-a400m', 'olmoe-1b-7b', 'qwen3-30b-a3b']:
            for rest in ['f32/exact', 'bf16/half', 'f16/half']:
                for n in [1, 8, 64, 512]:
                    self.assertIn(f'{model}/{rest}/t{n}/uniform', standard)
        for case in ['olmoe-1b-7b/bf16/half/t64/zipf:1.2', 'olmoe-1b-7b/bf16/half/t512/single',
                     'granite-1b-a400m/f32/exact/t64/uniform/backward',
                     'granite-1b-a400m/f32/exact/t64/uniform/train']:
            self.assertIn(case, standard)
        self.assertEqual(len(standard), 36 + 4 + 2)
        self.assertEqual(names(), names('--suite', 'quick'))
        self.assertLess(len(names()), 13)

    def check_row(self, row):
        self.assertEqual((row['status'], row['verify']['state']), ('ok', 'pass'), row)
        self.assertLessEqual(row['verify']['error'], row['verify']['limit'])
        key = row['key']
        self.assertEqual(sum(row['expert_rows']), key['n_tokens'] * key['top_k'])
        hit = [n for n in row['expert_rows'] if n]
        self.assertEqual((row['n_experts_hit'], row['min_rows'], row['max_rows']),
                         (len(hit), min(hit), max(hit)))
        self.assertGreater(row['first_call_ms'], 0)
        self.assertGreaterEqual(len(row['wall_times']['samples_us']), 1)

    def test_cpu(self):
        rows = self.rows('-d', 'cpu', *FAST, '-n', '3', '--type', 'f32,bf16', '--seed', '7')
        self.assertEqual([r['key']['type'] for r in rows], ['f32', 'bf16'])
        for row in rows:
            self.check_row(row)
            self.assertEqual((row['key']['seed'], row['key']['n_threads']), (7, 1))
            self.assertGreater(row['n_copies'], 1)
        self.assertEqual((self.file['schema'], self.file['complete'], self.file['suite']),
                         ('vkmoe-bench/1', True, ''))
        self.assertLess(rows[0]['verify']['error'], 1e-5)
        self.assertGreater(rows[1]['verify']['error'], 1e-5)  # y is bf16

    def test_types(self):
        """Types of weights and a pair of them, rows of fp8 that end in a part of a block."""
        names = 'f16,q4_K,mxfp4,q4_K-q6_K'
        rows = self.rows('-d', 'cpu', '--shape', '8,2,256,512', *QUICK, '-n', '1', '--type', names)
        self.assertEqual([r['key']['type'] for r in rows], names.split(','))
        for row in rows:
            self.check_row(row)
            half = row['key']['type'] == 'f16'
            self.assertEqual((row['key']['precision'], row['key']['x_type']),
                             ('half', 'f16') if half else ('int8', 'f32'))
            self.assertLess(row['verify']['error'], 1e-3 if half else 2e-2)
            self.assertGreater(row['verify']['error'], 1e-5)
        # Two experts of 3 * 512 * 256 weights, 144 bytes for 256; router, x and y beside them.
        q4_k, = [r for r in rows if r['key']['type'] == 'q4_K']
        least = 2 * 1536 * 144 + 4 * 256 * (8 + 2)
        self.assertGreaterEqual(q4_k['bytes'], least)
        self.assertLess(q4_k['bytes'], 1.1 * least)
        row, = self.rows('-d', 'cpu', '--shape', '8,2,160,200', *QUICK, '-n', '2', '--type', 'fp8')
        self.check_row(row)

    def test_default_precision(self):
        """Of blocks int8 where the device has it, which the reference does not."""
        shape = ['--shape', '8,2,64,32', *QUICK, '-n', '1', '--type']
        rows = self.rows('-d', 'cpu', '-d', 'reference', *shape, 'q8_0,fp8,f32')
        self.assertEqual([r['key']['precision'] for r in rows],
                         ['int8', 'exact', 'exact', 'exact', 'exact', 'exact'])
        self.assertEqual([r['status'] for r in rows], ['ok'] * 6)
        rows = self.rows('-d', 'cpu', *shape, 'q8_0', '--precision', 'exact,half,int8')
        self.assertEqual([r['key']['precision'] for r in rows], ['exact', 'half', 'int8'])
        self.assertLess(rows[0]['verify']['error'], 1e-5)
        self.assertGreater(rows[2]['verify']['error'], 1e-3)
        row, = self.rows('-d', 'reference', *shape, 'q8_0', '--precision', 'int8')
        self.assertEqual(row['status'], 'unsupported')

    def test_types_that_do_not_fit(self):
        rows = self.rows('-d', 'cpu', *FAST, '-n', '1', '--type', 'q4_K,q8_0,f16-q4_0')
        self.assertEqual([(r['status'], r['reason']) for r in rows], [
            ('unsupported',
             'layer.in_type = q4_K: blocks of 256 values, d_model = 32 is no multiple'),
            ('unsupported', 'layer.out_type = q8_0: blocks of 32 values, d_ff = 48 is no multiple'),
            ('unsupported', 'layer.out_type = q4_0: blocks of 32 values, d_ff = 48 is no multiple'),
        ])
        rows = self.rows('-d', 'cpu', '--shape', '8,2,32,32', '-n', '1', '--type', 'q8_0,f32-f16',
                         '--mode', 'backward,train')
        self.assertEqual([r['status'] for r in rows], 4 * ['unsupported'])
        self.assertIn('weights of one type, f32, f16 or bf16, not q8_0', rows[0]['reason'])

    def test_rules(self):
        """Each router rule of a model file routes as wanted, with shared experts and biases."""
        for rule, router, more in [
                ('softmax', {'score': 'softmax', 'order': 'score_then_topk'}, {}),
                ('softmax-selected x2 bias', {'score': 'softmax', 'order': 'topk_then_score',
                                              'routed_scale': 2, 'bias': True}, {}),
                ('sigmoid norm selection-bias shared-sigmoid',
                 {'score': 'sigmoid', 'order': 'score_then_topk', 'renormalize': True,
                  'selection_bias': True}, {'shared': {'d_ff': 24, 'gate': 'sigmoid'}})]:
            path = small_model(self.folder / 'm.safetensors', router, more)
            row, = self.rows('-d', 'cpu', '-m', path, '-n', '6', *QUICK)
            self.check_row(row)
            self.assertEqual(row['key']['rule'], rule)
            self.assertEqual(row['key']['expert'], 'gated gelu_tanh bias')

    def test_networks(self):
        rows = self.rows('-d', 'cpu', *FAST, '-n', '5', '--mode', 'backward,train')
        for row in rows:
            self.check_row(row)
            self.assertIn('gradients', row['verify']['reference'])
        self.assertEqual([r['key']['mode'] for r in rows], ['backward', 'train'])

    def test_reference(self):
        row, = self.rows('-d', 'reference', *FAST, '-n', '2')
        self.check_row(row)
        self.assertEqual(self.file['devices'][0]['type'], 'reference')

    def test_several_devices(self):
        rows = self.rows('-d', 'cpu', '-d', 'reference', *FAST, '-n', '1', '--no-verify')
        self.assertEqual([(r['device'], r['status'], r['reason'].split(';')[0]) for r in rows],
                         [(0, 'unverified', '--no-verify'), (1, 'unverified', '--no-verify')])
        self.assertEqual(len(self.file['devices']), 2)

    def test_count(self):
        row, = self.rows('-d', 'cpu', *FAST, '-n', '9', '--count', '--dispatches', '--routing',
                         'single')
        self.check_row(row)
        self.assertEqual(row['n_experts_hit'], 2)
        self.assertGreater(row['counters']['weight_loads'], 0)
        self.assertGreaterEqual(row['rereads'], 0.99)
        self.assertGreater(row['useful_fraction'], 0)
        self.assertLessEqual(row['useful_fraction'], 1)
        self.assertEqual(len(row['dispatches']), row['n_dispatches'])
        row, = self.rows('-d', 'reference', *FAST, '-n', '9', '--count')
        self.check_row(row)
        self.assertEqual((row['counted'], row['reason'].split(':')[0]), (False, 'not counted'))

    def test_unsupported_and_skipped(self):
        """A status and a reason instead of numbers; neither is a failure."""
        rows = self.rows('-d', 'cpu', '-m', 'switch-base-8', '--shape', '64,2,16,16',
                         '--shape', '1024,8,65536,65536', '-n', '65', '--routing', 'single')
        self.assertEqual([r['status'] for r in rows], ['unsupported', 'unsupported', 'skipped'])
        self.assertIn('more slots of 65 tokens than its capacity of 64', rows[0]['reason'])
        self.assertIn('no more experts than columns', rows[1]['reason'])
        self.assertRegex(rows[2]['reason'], r'takes \d+\.\d+ GB .*: \d+ bytes are missing')
        for row in rows:
            self.assertIsNone(row['wall_times']['median_us'])

    def test_model_file(self):
        row, = self.rows('-d', 'cpu', '-m', MODEL, '-n', '4', *QUICK)
        self.check_row(row)
        self.assertEqual(row['key']['model'], 'digits-moe.safetensors:0')

    def published(self, name, *args):
        """The one row of a golden's layer."""
        row, = self.rows('-d', 'cpu', '-m', FAMILIES / name, '--layer', GOLDENS[name]['layer'],
                         '-n', '3', *QUICK, *args)
        return row

    def test_published(self):
        """Layers of folders and GGUF files, with their own rules and types."""
        for name, model, rule, types in [
                ('deepseek_v4_hash/model.gguf', 'model.gguf:0', 'sqrt-softplus table norm x1.5',
                 None),
                ('gemma4', 'gemma4:1', 'softmax norm own-input', 'bf16'),
                ('q4_k_q4_k_q4_0/model.gguf', 'model.gguf:0', None, 'q4_K-q4_0')]:
            row = self.published(name)
            self.check_row(row)
            key = row['key']
            self.assertEqual((key['model'], key['rule'], key['type']),
                             (model, rule or key['rule'], types or key['type']))
        # Another type instead, for both.
        self.assertEqual(names('-m', FAMILIES / 'q4_k_q4_k_q4_0/model.gguf', '-n', '1', '--type',
                               'bf16'), ['model.gguf:0/bf16/half/t1/uniform'])

    def test_all_published(self):
        """Each golden is cases of a layer; what none is made for has a reason."""
        refused = set()
        for name, golden in GOLDENS.items():
            line, = names('-m', FAMILIES / name, '--layer', golden['layer'], '-n', '1')
            self.assertIn(f':{golden["layer"]}/', line)
            if 'unsupported' in line:
                self.assertRegex(line, r'layer\.(d_latent|adjugate_group) = [0-9]+: no weights')
                refused.add(name.split('/')[0])
        self.assertLessEqual(refused, {'grove_moe', 'kimi_k3', 'nemotron_h_latent'})

    def test_bad_published(self):
        self.check_fails(2, 'has no experts', 'bench', '-m', FAMILIES / 'mixtral', '--layer', '0')
        self.check_fails(1, 'config.json', 'bench', '-m', self.folder)
        path = self.folder / 'x.gguf'
        path.write_bytes(b'GGUF\0\0\0\0')
        self.check_fails(1, str(path), 'bench', '-m', path)
        for family, part in [('no-such', "no family 'no-such'"), ('olmoe', 'has no experts')]:
            self.check_refused(part, '--dry-run', '-m', FAMILIES / 'mixtral', '--layer', '1',
                               '--assume', family)

    def test_files(self):
        page, table = self.folder / 'page.html', self.folder / 'table.csv'
        done = bench('-d', 'cpu', *FAST, '-n', '1', '-o', table, '--report', page)
        self.assertEqual((done.returncode, done.stdout), (0, ''), done.stderr)
        self.assertIn('<html', page.read_text())
        self.assertEqual(len(table.read_text().splitlines()), 2)
        self.check_files('page.html', 'table.csv')
        done = bench('-d', 'cpu', *FAST, '-n', '1')
        self.assertIn('| 8,2,32,48/f32/exact/t1/uniform |', done.stdout)

    # ---- traces

    def trace(self, values, shape):
        return helper.write_npy(self.folder / 'trace.npy', array.array('i', values), shape)

    def test_trace(self):
        """What `run --ids` writes is what is measured."""
        ids = self.folder / 'ids.npy'
        done = run('run', MODEL, '--random', 12, '--ids', ids, '-d', 'cpu')
        self.assertEqual(done.returncode, 0, done.stderr)
        (n, top_k), values = helper.read_npy(ids)
        row, = self.rows('-d', 'cpu', '-m', MODEL, '-n', '12', '--routing', f'trace:{ids}',
                         *QUICK)
        self.check_row(row)
        self.assertEqual((n, top_k), (12, row['key']['top_k']))
        self.assertEqual(row['expert_rows'],
                         [values.count(e) for e in range(row['key']['n_experts'])])
        self.assertEqual(row['key']['routing'], 'trace:ids.npy')

    def test_bad_traces(self):
        good = [0, 1, 2, 3, 4, 5]
        for part, values, shape in [('row 1 has expert 8: not one of 0 to 7', [0, 1, 2, 8, 4, 5],
                                     (3, 2)),
                                    ('row 2 has expert -1', [0, 1, 2, 3, -1, 5], (3, 2)),
                                    ('row 0 has expert 3 twice', [3, 3, 2, 3, 4, 5], (3, 2)),
                                    ('2 experts in a row', good, (2, 3)),
                                    ('3 rows, the case has 4 tokens', good, (3, 2))]:
            n = '4' if 'tokens' in part else '3'
            part = part.replace('2 experts', '3 experts')
            path = self.trace(values, shape)
            self.check_fails(1, part, 'bench', '-d', 'cpu', *FAST, '-n', n, '--routing',
                             f'trace:{path}')
        missing = self.folder / 'missing.npy'
        self.check_fails(1, str(missing), 'bench', *FAST, '--routing', f'trace:{missing}')
        self.check_fails(1, 'a trace is a .npy file', 'bench', *FAST, '--routing',
                         f'trace:{helper.DIGITS}')
        fractions = helper.write_npy(self.folder / 'f.npy', array.array('f', [0, 1.5]), (1, 2))
        self.check_fails(1, 'row 0 has expert 1.5', 'bench', *FAST, '-n', '1', '--routing',
                         f'trace:{fractions}')

    def test_traces_of_one_name(self):
        """A row tells its trace by the file's name alone: two of one name are not two cases."""
        path = self.trace([0, 1], (1, 2))
        folder = self.folder / 'other'
        folder.mkdir()
        other = helper.write_npy(folder / path.name, array.array('i', [2, 3]), (1, 2))
        args = [*SHAPE, '-n', '1', '--routing', f'trace:{path}', '--routing']
        self.check_refused(f'{other}: another trace has this name', *args, f'trace:{other}')
        self.assertEqual(len(names(*args, f'trace:{path}')), 1)

    def test_inputs_stay(self):
        path = self.trace([0, 1], (1, 2))
        model = self.folder / 'model.safetensors'
        model.write_bytes(MODEL.read_bytes())
        for read, *args in [(path, *SHAPE, '-n', '1', '--routing', f'trace:{path}'),
                            (model, '-m', model)]:
            before = read.read_bytes()
            for option in '-o', '--report':
                self.check_refused(f'{read} is read', *args, option, read)
            self.assertEqual(read.read_bytes(), before)

    # ---- what goes wrong on the way

    def test_faults(self):
        """Wrong results, results that are not there, a device that is lost: each is found out."""
        if not FAULT:
            self.skipTest('a sanitizer does not let other libraries in first')
        for fault, part in [('y', 'y differs from the reference by 0.0001'),
                            ('nan', 'or not written'),
                            ('unwritten', 'or not written'),
                            ('ids', 'and not to')]:
            row, = self.rows('-d', 'cpu', *FAST, '-n', '1', code=3,
                             env={'LD_PRELOAD': FAULT, 'BENCH_FAULT': fault})
            self.assertEqual((row['status'], row['verify']['state']), ('error', 'fail'), fault)
            self.assertIn(part, row['reason'])
            for times in 'device_times', 'wall_times':
                self.assertEqual((row[times]['median_us'], row[times]['samples_us']), (None, []))
            for name in 'bytes_per_s', 'tokens_per_s', 'floor_us', 'floor_fraction':
                self.assertIsNone(row[name], name)
        row, = self.rows('-d', 'cpu', *FAST, '-n', '1', env={'LD_PRELOAD': FAULT})
        self.check_row(row)

    def test_full_disk(self):
        """Rows that a file has no room for are printed, and the page is tried all the same."""
        path, page = self.folder / 'x.json', self.folder / 'x.html'
        done = subprocess.run(
            [helper.PROGRAM, 'bench', '-d', 'reference', *FAST, '-n', '1', '-o', path, '--report',
             page], capture_output=True, text=True, timeout=120, check=False,
            preexec_fn=lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual([r['status'] for r in json.loads(done.stdout)['rows']], ['ok'])
        self.assertIn(f'{path}: cannot write', done.stderr)
        self.assertIn(f'{page}: cannot write', done.stderr)
        self.check_files()

    def test_lost(self):
        if not FAULT:
            self.skipTest('a sanitizer does not let other libraries in first')
        rows = self.rows('-d', 'cpu', '--shape', '64,2,16,16', *FAST, '-n', '1-3', code=1,
                         env={'LD_PRELOAD': FAULT, 'BENCH_FAULT': 'lost'})
        self.assertEqual([r['status'] for r in rows],
                         3 * ['unsupported'] + ['error', 'skipped', 'skipped'])
        self.assertIn('the device was lost', rows[3]['reason'])
        self.assertFalse(self.file['complete'])

    def test_interrupt(self):
        """What is done is printed, and the JSON is whole."""
        process = subprocess.Popen([helper.PROGRAM, 'bench', '-d', 'cpu', *SHAPE, '-n', '1-200',
                                    '--format', 'json'],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.assertIn('device:', process.stderr.readline())
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertIn('interrupted', errors)
        answer = json.loads(text)
        self.assertFalse(answer['complete'])
        self.assertLess(len(answer['rows']), 200)
        for row in answer['rows']:
            self.check_row(row)

    def test_terminal(self):
        """A line with the case, how many there are, and later the time left."""
        terminal, other_end = pty.openpty()
        with subprocess.Popen([helper.PROGRAM, 'bench', '-d', 'cpu', *FAST, '-n', '1,2'],
                              stdout=subprocess.PIPE, stderr=other_end) as process:
            os.close(other_end)
            text = helper.read_terminal(terminal)
            table = process.stdout.read()
        os.close(terminal)
        self.assertEqual(process.returncode, 0)
        self.assertIn(b'bench 1/2: 8,2,32,48/f32/exact/t1/uniform', text)
        self.assertRegex(text, rb'bench 2/2, \d+ s left: ')
        self.assertNotIn(b'\r', table)


unittest.main()
