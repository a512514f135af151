# SPDX-License-Identifier: MIT
"""vkmoe train: options, output, every bad input, checkpoints. Usage: train.py PROGRAM"""
import array
import json
import math
import os
import pathlib
import pty
import signal
import struct
import subprocess
import time
import unittest

import helper
from helper import DIGITS, run
from train_case import TRAIN, TrainCase, small

DIABETES = helper.DATA / 'diabetes.csv'
NAMES = ['sparse-topk', 'soft-sigmoid', 'query-experts', 'text-classify', 'score-functions',
         'regress-5', 'mean-fuse', 'mixture']


class Train(TrainCase):
    # ---- what it does ----

    def test_json(self):
        answer = self.train(small(), '--valid', DIGITS)
        self.assertEqual(set(answer), {'device', 'model', 'n_features', 'n_params', 'epochs',
                                       'steps', 'best_epoch', 'stopped_early', 'seconds', 'train',
                                       'valid', 'classes'})
        self.assertEqual((answer['epochs'], answer['steps']), (4, 4 * 23))
        self.assertEqual((answer['train']['n'], answer['valid']['n']), (1438, 359))
        self.assertGreater(answer['valid']['accuracy'], 0.8)
        self.assertEqual([c['name'] for c in answer['classes']], list('0123456789'))
        done = run('eval', self.folder / 'm.safetensors', DIGITS, '--json', '-d', 'cpu')
        self.assertEqual(done.returncode, 0, done.stderr)
        for key in ['loss', 'accuracy']:
            self.assertAlmostEqual(json.loads(done.stdout)[key], answer['valid'][key], places=5)
        self.check_files('c.json', 'm.safetensors')

    def test_text(self):
        done = run(*self.arguments(small(), '--valid', DIGITS))
        self.assertEqual(done.returncode, 0)
        for part in ['parameters, 4 epochs, 92 steps', 'train        loss', 'valid        loss',
                     'precision', 'model        ']:
            self.assertIn(part, done.stdout)
        self.assertNotIn('\r', done.stderr)
        config = small(patience=1, validation={'share': 0.2})
        done = run(*self.arguments(config, '--set', 'train.epochs=50'))
        self.assertIn('stopped early', done.stdout)

    def test_same_bits(self):
        """Equal on repeat and for any number of threads; another seed gives others."""
        self.train(small(), '--threads', '1')
        first = self.model()
        for more in [['--threads', '1'], ['--threads', '3'], ['--seed', '1']]:
            self.train(small(), *more)
            self.assertEqual(self.model(), first, more)
        self.train(small(), '--seed', '2')
        self.assertNotEqual(self.model(), first)

    def test_reference(self):
        """The oracle trains the same net: parameters differ in roundings only."""
        config = small(steps=3)
        del config['train']['epochs']
        models = []
        for device in ['cpu', 'reference']:
            self.train(config, device=device)
            header, data = helper.read_model(self.folder / 'm.safetensors')
            begin, end = header['layers.0.experts.up.weight']['data_offsets']
            models.append(struct.unpack(f'<{(end - begin) // 4}f', data[begin:end]))
        pairs = list(zip(*models))
        self.assertLess(max(abs(a - b) for a, b in pairs), 1e-4)
        self.assertGreater(max(abs(a) for a, _ in pairs), 0.05)

    def test_weight_type(self):
        """Weights of 16 bits learn as well; the model file has the masters."""
        models, answers = {}, {}
        for kind in ['f32', 'f16', 'bf16']:
            answers[kind] = self.train(small(weight_type=kind, validation={'share': 0.2}))
            header, data = helper.read_model(self.folder / 'm.safetensors')
            tensor = header['layers.0.experts.up.weight']
            begin, end = tensor['data_offsets']
            self.assertEqual(tensor['dtype'], 'F32')
            models[kind] = bytes(data[begin:end])
            last = answers[kind]['valid']['accuracy']
            self.assertAlmostEqual(last, answers['f32']['valid']['accuracy'], delta=0.05)
        self.assertEqual(len(set(models.values())), 3)
        # bf16 has none of the low 16 bits
        self.assertTrue(any(models['bf16'][0::4]) and any(models['bf16'][1::4]))

    def test_precision(self):
        """Half allows what the CPU has no use for: the same bits."""
        models = set()
        for precision in ['exact', 'half']:
            self.train(small(precision=precision))
            _, data = helper.read_model(self.folder / 'm.safetensors')
            models.add(bytes(data))
        self.assertEqual(len(models), 1)

    def test_micro_batches(self):
        """Gradients of parts add up to those of the whole batch."""
        config = small(optimiser={'kind': 'sgd', 'rate': 0.5})  # Adam would not see a factor
        moe = config['layers'][0]
        for key in ['noisy', 'load_balance', 'bias_rate']:
            del moe['router'][key]
        del moe['expert']['dropout'], config['train']['input_noise']
        config['train']['batch'] = 1438
        whole = self.train(config)['train']['loss']
        parts = self.train(config, '--set', 'train.micro_batches=4')['train']['loss']
        self.assertAlmostEqual(parts / whole, 1, places=3)
        half = self.train(config, '--set', 'train.batch=719')['train']['loss']
        self.assertNotAlmostEqual(half / whole, 1, places=3)

    def test_set(self):
        config = self.config(small())
        for text, steps in [('train.epochs=2', 46), ('train.batch=719', 8)]:
            self.assertEqual(self.train(config, '--set', text)['steps'], steps)
        answer = self.train(config, '--set', 'train.epochs=null', '--set', 'train.steps=7',
                            '--set', 'layers.0.top_k=1', '--set', 'layers.0.d_ff=3')
        self.assertEqual((answer['steps'], answer['epochs']), (7, 1))
        (self.folder / 'm.safetensors').unlink()
        self.fails('--set x: not KEY=VALUE', config, '--set', 'x', code=2)
        self.fails('no such place', config, '--set', 'layers.1.top_k=1', code=2)
        self.fails('train.colour: unknown key', config, '--set', 'train.colour=red')

    def test_stdin(self):
        done = subprocess.run([helper.PROGRAM, *map(str, self.arguments(pathlib.Path('-')))],
                              input=json.dumps(small()), text=True, capture_output=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_early_stopping(self):
        """The saved model is that of the best epoch, as the log tells it."""
        log = self.folder / 'log.jsonl'
        config = small(epochs=60, patience=2, validation={'fold': {'of': 5, 'index': 4}})
        answer = self.train(config, '--log-file', log)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        self.assertTrue(answer['stopped_early'])
        self.assertEqual(len(lines), answer['epochs'])
        self.assertEqual(answer['epochs'], answer['best_epoch'] + 2)
        best = min(lines, key=lambda line: line['valid_loss'])
        self.assertEqual(best['epoch'], answer['best_epoch'])
        self.assertAlmostEqual(answer['valid']['loss'], best['valid_loss'], places=6)
        self.assertNotAlmostEqual(answer['valid']['loss'], lines[-1]['valid_loss'], places=6)
        config['train'].update(monitor='metric', min_delta=0.001)
        answer = self.train(config, '--log-file', log)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        self.assertEqual(answer['valid']['accuracy'], max(line['metric'] for line in lines))

    def test_schedule(self):
        """Rates of the log against the formulas."""
        log = self.folder / 'log.csv'
        cases = [({'kind': 'constant', 'warm_up': 46}, [0.005, 0.01, 0.01, 0.01]),
                 ({'kind': 'step', 'every': 2, 'factor': 0.5}, [0.01, 0.01, 0.005, 0.005]),
                 ({'kind': 'cosine', 'floor': 0.1}, [None, None, None, 0.001])]
        for schedule, rates in cases:
            self.train(small(schedule=schedule), '--log-file', log)
            head, *rows = log.read_text().splitlines()
            self.assertEqual(head, 'epoch,step,loss,valid_loss,metric,rate,seconds')
            for row, rate in zip(rows, rates, strict=True):
                if rate is not None:
                    self.assertAlmostEqual(float(row.split(',')[5]), rate, places=5)

    def test_targets(self):
        """Regression in the units of the data, learned in units of its spread."""
        config = {
            'task': 'regress', 'input': {'kind': 'minmax', 'n_features': 10}, 'head': 'identity',
            'layers': [{'kind': 'moe', 'd_ff': 4, 'd_out': 6, 'n_experts': 2, 'combine': 'mean',
                        'expert': {'activation': 'tanh', 'bias': True}},
                       {'kind': 'linear', 'd_out': 1}],
            'train': {'targets': 'standardize', 'optimiser': {'kind': 'adam', 'rate': 0.01},
                      'epochs': 40}}
        layers = [[{'kind': 'linear', 'd_out': 1}]]
        for combine in [{'combine': 'stack'}, {'combine': 'mean'}, {
                'top_k': 2, 'router': {'score': 'softmax', 'order': 'score_then_topk'}}]:
            layers.append([{'kind': 'moe', 'd_ff': 4, 'd_out': 1, 'n_experts': 2,
                            'expert': {'activation': 'tanh', 'bias': True}, **combine}])
        for last in layers:
            config['layers'][1:] = last
            answer = self.train(config, data=DIABETES)
            self.assertGreater(answer['train']['r2'], 0.4)
            done = run('eval', self.folder / 'm.safetensors', DIABETES, '--json', '-d', 'cpu')
            self.assertAlmostEqual(json.loads(done.stdout)['rmse'] / answer['train']['rmse'], 1,
                                   places=5)
        config['layers'][1] = {'kind': 'linear', 'd_out': 1, 'bias': False}
        (self.folder / 'm.safetensors').unlink()
        self.fails('train.targets: standardize needs a last layer', config, data=DIABETES)

    def test_losses(self):
        """Every loss that a head allows learns something."""
        logits = {'label_smoothing': 0.1, 'class_weights': 'balanced'}
        for head, train in [('softmax', {'loss': 'cross_entropy', **logits}),
                            ('softmax', {'loss': 'mixture'}), ('sigmoid', {'loss': 'bce_logits'}),
                            ('identity', {'loss': 'mse'}), ('identity', {'loss': 'huber'})]:
            config = small(**train)
            config['head'] = head
            if train['loss'] == 'mixture':
                config['layers'][0]['top_k'] = 4
            self.assertGreater(self.train(config)['train']['accuracy'], 0.7, train)

    def test_compare(self):
        answer = self.train(small(), '--valid', DIGITS, '--compare')['compare']
        self.assertAlmostEqual(answer['nearest_neighbour'], 356 / 359, places=6)
        self.assertLess(abs(answer['dense']['n_params'] / answer['active_params'] - 1), 0.05)
        self.assertGreater(answer['dense']['valid']['accuracy'], 0.8)
        self.check_fails(2, '--compare needs --valid', *self.arguments(small(), '--compare'))
        (self.folder / 'm.safetensors').unlink()
        gated = small(epochs=10 ** 6)  # refused before it trains
        gated['layers'][0]['expert'].update(gated=True)
        self.fails('--compare: only for moe layers', gated, '--valid', DIGITS, '--compare')

    def test_interrupted_compare(self):
        """What is trained already stays, and there is nothing to resume."""
        train = self.arguments(small(epochs=1), '--valid', DIGITS, '--compare')
        (self.folder / 'slow.csv').write_bytes(TRAIN.read_bytes() * 20)
        train[train.index(TRAIN)] = self.folder / 'slow.csv'
        process = helper.start(*train)
        while not (self.folder / 'm.safetensors').exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (130, ''), err)
        self.assertIn('holds the model; the comparison is missing', err)
        self.assertNotIn('--resume', err)
        self.assertFalse((self.folder / 'm.safetensors.checkpoint').exists())

    def test_sequences(self):
        """(n, steps, features) with a pool layer; the model file says the same of them."""
        y = array.array('i', [i % 2 for i in range(60)])
        x = array.array('f', [i * 37 % 11 - 5 + y[i // 20] for i in range(60 * 4 * 5)])
        helper.write_npy(self.folder / 'Y.npy', y, (60,))
        data = helper.write_npy(self.folder / 'X.npy', x, (60, 4, 5))
        config = {'task': 'classify', 'input': {'kind': 'standardize', 'n_features': 5},
                  'layers': [{'kind': 'linear', 'd_out': 8, 'activation': 'relu', 'bias': True},
                             {'kind': 'pool', 'pool': 'mean'},
                             {'kind': 'linear', 'd_out': 2, 'bias': True}], 'head': 'softmax',
                  'train': {'optimiser': {'rate': 0.03}, 'batch': 16, 'epochs': 40}}
        answer = self.train(config, data=data)['train']
        self.assertEqual((answer['n'], answer['accuracy']), (60, 1))
        done = run('eval', self.folder / 'm.safetensors', data, '--json', '-d', 'cpu')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertAlmostEqual(json.loads(done.stdout)['loss'], answer['loss'], places=5)
        (self.folder / 'm.safetensors').unlink()
        del config['layers'][1]
        self.fails('sequences of 4 steps need a pool layer', config, data=data)

    def test_soft_targets(self):
        """Shares of 0 and 1 are labels, to the bit; others are learned as they are."""
        rows = [line.rpartition(',') for line in TRAIN.read_text().splitlines()]
        columns = ['--target', ','.join(map(str, range(65, 75)))]
        config = small(soft_targets=True)

        def write(name, share):
            path = self.folder / name
            path.write_text(''.join(
                f'{x},{",".join(str(share(c, int(label))) for c in range(10))}\n'
                for x, _, label in rows))
            return path

        self.train(small())
        of_labels = helper.read_model(self.folder / 'm.safetensors')[1]
        data = write('hard.csv', lambda c, label: int(c == label))
        self.assertLess(self.train(config, *columns, data=data)['train']['loss'], 0.3)
        self.assertEqual(helper.read_model(self.folder / 'm.safetensors')[1], of_labels)
        data = write('half.csv', lambda c, label: (c in (label, (label + 1) % 10)) / 2)
        answer = self.train(config, *columns, data=data)['train']  # -ln p of one of two classes
        self.assertAlmostEqual(answer['loss'], math.log(2), delta=0.2)
        (self.folder / 'm.safetensors').unlink()
        data = write('bad.csv', lambda c, label: (c == label) / 2)
        self.fails('row 1: shares of classes', config, *columns, data=data)
        self.fails('1 targets, needs 10', config)
        config['head'] = 'identity'
        config['train']['loss'] = 'mse'
        self.fails('train.soft_targets: needs loss cross_entropy', config)

    def test_examples(self):
        done = run('train', '--list-examples')
        self.assertEqual(done.returncode, 0)
        rows = [line.split('  ')[0] for line in done.stdout.splitlines()[1:]]
        self.assertEqual([row.split()[0] for row in rows], NAMES)
        files = pathlib.Path(__file__).parents[2] / 'tools' / 'examples'
        for path in files.glob('*.json'):
            name, _, variant = path.stem.partition('.')
            self.assertIn(name, NAMES)
            done = run('train', '--example', name, *(['--variant', variant] if variant else []))
            self.assertEqual(done.stdout, path.read_text())
        self.check_fails(2, "no example 'x'", 'train', '--example', 'x')
        self.check_fails(2, "variant 'x'", 'train', '--example', 'mixture', '--variant', 'x')
        self.check_fails(2, '--variant needs --example', 'train', '--variant', 'x')

    # ---- checkpoints ----

    def kill_and_resume(self, config, *more, every=1, ready=None):
        """Killed between two checkpoints, once it is `ready`, then gone on with."""
        checkpoint = ['--checkpoint-every', every, '--checkpoint', self.folder / 'k']
        process = helper.start(*self.arguments(config, *checkpoint, *more))
        while not (ready() if ready else (self.folder / 'k').exists()):
            time.sleep(0.001)
        process.kill()
        process.communicate()
        self.assertFalse((self.folder / 'm.safetensors').exists())
        killed = (self.folder / 'k').read_bytes()
        self.train(config, *checkpoint, *more, '--resume')
        return killed

    def test_resume(self):
        """The same bytes as without an interruption, in the model and in the checkpoint."""
        for optimiser in [{'kind': 'adamw', 'rate': 0.01},
                          {'kind': 'sgd', 'rate': 0.1, 'momentum': 0.9, 'nesterov': True}]:
            config = small(epochs=120, patience=119, validation={'share': 0.1}, optimiser=optimiser,
                           schedule={'kind': 'cosine'})
            path = self.config(config)
            self.train(path, '--checkpoint-every', '1', '--checkpoint', self.folder / 'k')
            want, want_state = self.model(), (self.folder / 'k').read_bytes()
            (self.folder / 'm.safetensors').unlink()
            (self.folder / 'k').unlink()
            self.assertNotEqual(self.kill_and_resume(path), want_state)
            self.assertEqual(self.model(), want)
            self.assertEqual((self.folder / 'k').read_bytes(), want_state)
            (self.folder / 'm.safetensors').unlink()
            (self.folder / 'k').unlink()

    def test_resume_log(self):
        """An epoch is logged once, however often it was computed."""
        for name in ['log.csv', 'log.jsonl']:
            log = self.folder / name
            self.kill_and_resume(
                small(epochs=150), '--log-file', log, every=30,
                ready=lambda: log.exists() and len(log.read_text().splitlines()) > 35)
            (self.folder / 'm.safetensors').unlink()
            (self.folder / 'k').unlink()
            text = log.read_text()
            if name == 'log.csv':
                epochs = [int(line.split(',')[0]) for line in text.splitlines()[1:]]
            else:
                epochs = [json.loads(line)['epoch'] for line in text.splitlines()]
            self.assertEqual(epochs, list(range(1, 151)))

    def test_interrupt(self):
        """SIGINT in the middle of an epoch: what is done is kept, and goes on to the same bits."""
        config = self.config(small(epochs=150))
        (self.folder / 'm.safetensors').write_bytes(b'an older model')
        process = helper.start(*self.arguments(config, '--log-file', self.folder / 'log.csv'))
        log = self.folder / 'log.csv'
        while not log.exists() or len(log.read_text().splitlines()) < 3:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (130, ''))
        self.assertIn('interrupted', err)
        self.assertIn('--resume goes on', err)
        self.assertEqual(self.model(), b'an older model')
        self.assertTrue((self.folder / 'm.safetensors.checkpoint').exists())
        self.train(config, '--resume')
        resumed = self.model()
        self.assertFalse((self.folder / 'm.safetensors.checkpoint').exists())
        self.train(config)
        self.assertEqual(self.model(), resumed)

    def test_other_checkpoint(self):
        more = ['--checkpoint', self.folder / 'k', '--checkpoint-every', '1']
        self.train(small(), *more)
        (self.folder / 'm.safetensors').unlink()
        more += ['--resume']
        for change, part in [('train.batch=32', 'train.batch: 64, here 32'),
                             ('layers.0.d_ff=9', 'layers[0].d_ff: 8, here 9'),
                             ('train.patience=3', 'train.patience: nothing, here 3')]:
            fold = ['--valid', DIGITS] if 'patience' in change else []
            self.fails(part, small(), *more, '--set', change, *fold)
        self.fails('other data', small(), *more, data=DIGITS)
        self.fails('other validation data', small(), *more, '--valid', DIGITS)
        self.train(small(), *more, '--set', f'train.log={self.folder / "l"}')
        (self.folder / 'm.safetensors').unlink()
        content = (self.folder / 'k').read_bytes()
        for old, new, part in [(b'"version":"0.1.0"', b'"version":"0.0.9"', 'version: 0.0.9, here'),
                               (b'checkpoint/1', b'checkpoint/2', 'not a checkpoint'),
                               (b'value/layers.0.router.w', b'value/layers.0.router.x', 'missing')]:
            self.assertIn(old, content)
            (self.folder / 'k').write_bytes(content.replace(old, new))
            self.fails(part, small(), *more)
        (self.folder / 'k').write_bytes(content[:-1])
        self.fails('k: ', small(), *more)
        (self.folder / 'k').unlink()
        self.fails('No such file', small(), *more)
        device = content.replace(b'"device":"', b'"device":"other ', 1)
        n = struct.unpack('<Q', device[:8])[0] + len('other ')
        pad = -n % 8
        head = device[8:8 + n].rstrip(b' ')
        (self.folder / 'k').write_bytes(struct.pack('<Q', n + pad) + head.ljust(n + pad)
                                        + device[8 + n:])
        done = run(*self.arguments(small(), *more, '--log', 'warn'))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('results may differ in their last bits', done.stderr)

    def test_disk_full(self):
        """A checkpoint that cannot be written is an error, and the one before it survives."""
        more = ['--checkpoint', self.folder / 'k', '--checkpoint-every', '1']
        self.train(small(epochs=1), *more)
        old = (self.folder / 'k').read_bytes()
        (self.folder / 'm.safetensors').unlink()
        done = subprocess.run(
            ['sh', '-c', 'ulimit -f 8; trap "" XFSZ; exec "$@"', 'sh', helper.PROGRAM,
             *map(str, self.arguments(small(), *more))], capture_output=True, text=True,
            check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn('File too large', done.stderr)
        self.assertEqual((self.folder / 'k').read_bytes(), old)
        self.check_files('c.json', 'k')

    # ---- bad input ----

    def test_usage(self):
        config = self.config(small())
        self.check_fails(2, 'needs a configuration', 'train')
        self.check_fails(2, 'needs --data', 'train', config, '-o', 'x')
        self.check_fails(2, 'needs -o', 'train', config, '--data', TRAIN)
        self.check_fails(2, "unexpected argument 'x'", 'train', config, 'x')
        self.fails('--seed x', config, '--seed', 'x', code=2)
        self.fails('both to', config, '--log-file', self.folder / 'm.safetensors', code=2)
        self.fails('No such file', self.folder / 'absent.json')
        self.fails('train.seed: not a whole number', config, '--seed', str(2**63))
        done = run('train', '--help')
        self.assertEqual(done.returncode, 0)
        for option in ['--data', '--valid', '--resume', '--set', '--example', '--checkpoint']:
            self.assertIn(option, done.stdout)

    def test_bad_config(self):
        (self.folder / 'bad.json').write_text('{"task": 1,}')
        self.fails('bad.json: line 1', self.folder / 'bad.json')
        (self.folder / 'bad.json').write_text('[]')
        self.fails('not a JSON object', self.folder / 'bad.json')
        cases = [
            ('train.colour=1', 'train.colour: unknown key'),
            ('train.optimiser.speed=1', 'train.optimiser.speed: unknown key'),
            ('train.optimiser.rate=0', 'train.optimiser.rate: 0; must be above 0'),
            ('train.optimiser.rate=null', 'train.optimiser.rate: missing'),
            ('train.optimiser=null', 'train.optimiser: missing'),
            ('train.optimiser.kind=lion', "train.optimiser.kind: 'lion' is not one of"),
            ('train.optimiser.momentum=0.9', 'train.optimiser.momentum: needs kind sgd'),
            ('train.optimiser.betas=[1,0]', 'train.optimiser.betas: not two numbers'),
            ('train.optimiser.groups=[{"rate_scale":1}]', 'groups[0].match: missing'),
            ('train.optimiser.groups=[{"match":"x","a":1}]', 'groups[0].a: unknown key'),
            ('train.schedule={"kind":"cosine","every":1}', 'schedule.every: needs kind step'),
            ('train.schedule={"kind":"step","every":1}', 'schedule.factor: missing'),
            ('train.schedule={"kind":"cosine","floor":1}', 'floor: 1; must be at least 0 and'),
            ('train.steps=5', 'train.steps: needs one of epochs and steps'),
            ('train.epochs=null', 'train.epochs: needs one of epochs and steps'),
            ('train.epochs=0', 'train.epochs: not a whole number from 1'),
            ('train.micro_batches=65', 'train.micro_batches: 65 of a batch of 64'),
            ('train.loss=bce_logits', 'train.loss: bce_logits needs head sigmoid'),
            ('train.loss=mse', 'train.loss: bce, mse and huber need head identity'),
            ('train.huber_delta=1', 'train.huber_delta: needs loss huber'),
            ('train.variance=1', 'train.variance: needs loss mixture'),
            ('train.label_smoothing=1', 'train.label_smoothing: 1; must be'),
            ('train.class_weights=[1,2]', 'train.class_weights: 2 numbers for 10 classes'),
            ('train.class_weights=even', 'train.class_weights: neither "balanced" nor'),
            ('train.targets=standardize', 'train.targets: needs task regress'),
            ('train.validation=some', 'train.validation: neither "none" nor'),
            ('train.validation={}', 'train.validation: needs one of share and fold'),
            ('train.validation={"share":1}', 'train.validation.share: must be below 1'),
            ('train.validation={"fold":{"of":5,"index":5}}', 'fold.index: not a whole number'),
            ('train.patience=2', 'train.patience: needs validation rows'),
            ('train.min_delta=1', 'train.min_delta: needs patience'),
            ('train.monitor=metric', 'train.monitor: needs patience'),
            ('train.seed=-1', 'train.seed: not a whole number'),
            ('train.input_noise=-1', 'train.input_noise: -1; must be at least 0'),
            ('train.log=1', 'train.log: not a text'),
            ('train.weight_type=int8', "train.weight_type: 'int8' is not one of"),
            ('train.precision=int8', "train.precision: 'int8' is not one of"),
            ('train=null', 'train: missing'),
            ('data={"colour":1}', 'data.colour: unknown key'),
            ('task=guess', "task: 'guess' is not one of"),
            ('layers.0.colour=1', 'layers[0].colour: unknown key'),
        ]
        config = self.config(small())
        for text, part in cases:
            self.fails(part, config, '--set', text)
        self.fails('there are validation rows in', config, '--set',
                   'train.validation={"share":0.5}', '--valid', DIGITS)

    def test_silent_router(self):
        """A gate weight that is always 1 teaches the router nothing."""
        config = small()
        config['layers'][0]['top_k'] = 1
        self.train(config)
        (self.folder / 'm.safetensors').unlink()
        del config['layers'][0]['router']['load_balance']
        self.fails('layers[0].router.renormalize: with top_k 1', config)

    def write(self, rows, name='d.csv'):
        path = self.folder / name
        path.write_text(''.join(','.join(map(str, row)) + '\n' for row in rows))
        return path

    def test_bad_data(self):
        rows = [line.split(',') for line in TRAIN.read_text().split()]
        missing = [row[:] for row in rows[:99]]
        missing[7][3] = ''
        config = self.config(small())
        self.fails('line 8, column 4', config, data=self.write(missing))
        self.fails('no rows', config, data=self.write([]))
        self.fails('all rows are of one class', config,
                   data=self.write([row for row in rows if row[-1] == '3']))
        self.fails('classes: 4, but the last layer tells 10 apart', config,
                   data=self.write([row for row in rows if row[-1] in '0123']))
        self.fails('batch: 64, but there are 63 rows', config, data=self.write(rows[:63]))
        self.fails('needs 64 features', config, data=self.write([row[1:] for row in rows[:99]]))
        named = small()
        named['classes'] = list('012345678') + ['nine']
        self.fails("'9' is none of 10 classes", named)
        x = array.array('f', [float(v) for row in rows[:99] for v in row[:-1]])
        y = array.array('i', [int(row[-1]) for row in rows[:99]])
        x[64 * 5 + 2] = float('nan')
        helper.write_npy(self.folder / 'Y.npy', y, (99,))
        npy = helper.write_npy(self.folder / 'X.npy', x, (99, 64))
        self.fails('row 6, feature 3: nan is missing', config, data=npy)
        x[64 * 5 + 2] = 0
        helper.write_npy(npy, x, (99, 64))
        self.assertEqual(self.train(config, data=npy)['train']['n'], 99)
        (self.folder / 'm.safetensors').unlink()
        y[4] = 10
        helper.write_npy(self.folder / 'Y.npy', y, (99,))
        self.fails('row 4: class 10 of 10', config, data=npy)

    def test_constant_columns(self):
        """They are named, and hurt nobody."""
        done = run(*self.arguments(small(), '--log', 'warn'))
        self.assertEqual(done.returncode, 0)
        self.assertIn('3 of 64 features have one value in all rows to train (1, 33, 40)',
                      done.stderr)
        rows = [line.split(',') for line in DIABETES.read_text().split()]
        same = self.write([row[:-1] + ['1'] for row in rows])
        config = {'task': 'regress', 'input': {'kind': 'none', 'n_features': 10},
                  'layers': [{'kind': 'linear', 'd_out': 1}], 'head': 'identity',
                  'train': {'targets': 'standardize', 'epochs': 1,
                            'optimiser': {'kind': 'sgd', 'rate': 0.1}}}
        (self.folder / 'm.safetensors').unlink()
        self.fails('target 1 has one value, 1, in all 442 rows', config, data=same)

    def test_not_finite(self):
        """A loss that is no number ends it, with the step and the tensor."""
        config = {'task': 'regress', 'input': {'kind': 'none', 'n_features': 10},
                  'layers': [{'kind': 'linear', 'd_out': 1}], 'head': 'identity',
                  'train': {'epochs': 9, 'optimiser': {'kind': 'sgd', 'rate': 1e9}}}
        self.fails('step 3: the loss or the gradients', config, data=DIABETES)
        self.fails('step 2: layers.0.weight', config, '--set', 'train.optimiser.rate=1e36',
                   data=DIABETES)

    def test_unwritable(self):
        for more in [['-o', self.folder / 'no' / 'm.safetensors'],
                     ['--checkpoint', self.folder / 'no' / 'k'],
                     ['--log-file', self.folder / 'no' / 'l.csv']]:
            self.fails('No such file', small(), *more)
        config = self.config(small())
        for option in ['-o', '--checkpoint', '--log-file']:
            self.fails('is read, so it is not written to', config, option, config, code=2)
        self.assertEqual(json.loads(config.read_text()), small())

    def test_terminal(self):
        """Progress overwrites itself, and is gone before the report."""
        terminal, other_end = pty.openpty()
        args = self.arguments(small(epochs=60), '--valid', DIGITS)
        with subprocess.Popen([helper.PROGRAM, *map(str, args)], stdout=subprocess.PIPE,
                              stderr=other_end) as process:
            os.close(other_end)
            text = helper.read_terminal(terminal)
            out = process.stdout.read()
        os.close(terminal)
        self.assertEqual(process.returncode, 0)
        self.assertRegex(text, rb'epoch \d+/60  loss [\d.e-]+  valid [\d.e-]+  metric [\d.]+'
                               rb'  rate 0.01  0:\d\d left')
        self.assertTrue(text.endswith(b'\r\x1b[K'), text[-80:])
        self.assertNotIn(b'\r', out)


if __name__ == '__main__':
    unittest.main()
