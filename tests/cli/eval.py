# SPDX-License-Identifier: MIT
"""vkmoe eval: what it prints, and every bad input. Usage: eval.py PROGRAM"""
import array
import copy
import json
import os
import pty
import signal
import struct
import subprocess
import unittest

import helper
from helper import DIGITS, MODEL, run


class Eval(helper.Case):
    def test_json(self):
        for device in ['cpu', 'reference']:
            done = run('eval', MODEL, DIGITS, '--json', '-d', device)
            self.assertEqual(done.returncode, 0, done.stderr)
            answer = json.loads(done.stdout)
            self.assertEqual(set(answer), {'device', 'n', 'loss', 'accuracy', 'classes',
                                           'expert_load', 'rows_per_s'})
            self.assertEqual(answer['n'], 359)
            self.assertAlmostEqual(answer['accuracy'], 355 / 359, places=8)
            self.assertAlmostEqual(answer['loss'], 0.10782, places=4)
            self.assertGreater(answer['rows_per_s'], 0)
            self.assertEqual([c['name'] for c in answer['classes']], list('0123456789'))
            self.assertEqual(sum(c['n'] for c in answer['classes']), 359)
            for c in answer['classes']:
                self.assertEqual(set(c), {'name', 'precision', 'recall', 'f1', 'n'})
                self.assertGreater(c['f1'], 0.9)
            # The share of each expert, from the stored selection.
            _, experts = helper.read_npy(helper.DATA / 'digits-test-experts.npy')
            self.assertEqual(len(answer['expert_load']), 8)
            for e, load in enumerate(answer['expert_load']):
                self.assertAlmostEqual(load, experts.count(e) / len(experts), places=8)

    def test_precision(self):
        """Without weights of bf16 the CPU computes half as exact; without blocks no int8."""
        answers = []
        for word in ['exact', 'half']:
            done = run('eval', MODEL, DIGITS, '--json', '-d', 'cpu', '--precision', word)
            self.assertEqual(done.returncode, 0, done.stderr)
            answers.append(json.loads(done.stdout))
            del answers[-1]['rows_per_s']
        self.assertEqual(answers[0], answers[1])
        done = run('eval', MODEL, DIGITS, '-d', 'cpu', '--precision', 'int8')
        self.assertEqual((done.returncode, done.stdout), (1, ''))
        self.assertIn('plan.precision = int8: for weights of blocks', done.stderr)
        done = run('eval', MODEL, DIGITS, '-d', 'cpu', '--precision', 'Half')
        self.assertEqual((done.returncode, done.stdout), (2, ''))
        self.assertIn('--precision Half: exact|half|int8', done.stderr)

    def test_text(self):
        done = run('eval', MODEL, DIGITS, '-d', 'cpu')
        self.assertEqual(done.returncode, 0)
        for part in ['accuracy     98.89% (355 of 359)', 'precision', 'expert ', 'rows/s',
                     'the model says', '% sure']:
            self.assertIn(part, done.stdout)
        images = [line for line in done.stdout.splitlines() if line.startswith('  |')]
        self.assertEqual(len(images), 3 * 8)
        self.assertTrue(done.stderr.startswith('device: '))
        self.assertNotIn('\r', done.stderr)  # no progress but on a terminal

    def test_outputs(self):
        logits, ids = self.folder / 'l.npy', self.folder / 'i.npy'
        done = run('eval', MODEL, DIGITS, '-d', 'cpu', '--logits', logits, '--ids', ids)
        self.assertEqual(done.returncode, 0, done.stderr)
        shape, got = helper.read_npy(logits)
        _, want = helper.read_npy(helper.DATA / 'digits-test-logits.npy')
        self.assertEqual(shape, (359, 10))
        self.assertLess(max(abs(a - b) for a, b in zip(got, want)), 1e-4)
        shape, got = helper.read_npy(ids)
        self.assertEqual(shape, (359, 2))
        self.assertEqual(got, helper.read_npy(helper.DATA / 'digits-test-experts.npy')[1])
        self.check_files('l.npy', 'i.npy')

    def test_data_formats(self):
        rows = [line.split(',') for line in DIGITS.read_text().split()]
        x = array.array('f', [float(v) for row in rows for v in row[:-1]])
        y = array.array('i', [int(row[-1]) for row in rows])
        helper.write_npy(self.folder / 'Y_digits.npy', y, (359,))
        npy = helper.write_npy(self.folder / 'X_digits.npy', x, (359, 64))
        moved = self.folder / 'moved.csv'  # the label first, a header, comments, CRLF
        names = ['label'] + [f'p{i}' for i in range(64)]
        moved.write_text('# digits\r\n' + ','.join(names) + '\r\n' + ''.join(
            ','.join(row[-1:] + row[:-1]) + '\r\n' for row in rows), newline='')
        for args in [[npy], [moved, '--target', 'label'], [moved, '--target', '1']]:
            done = run('eval', MODEL, *args, '--json', '-d', 'cpu')
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertAlmostEqual(json.loads(done.stdout)['accuracy'], 355 / 359, places=8)

    def test_bad_data(self):
        lines = DIGITS.read_text().splitlines()
        cases = {
            'ragged': (lines[:4] + ['1,2,3'], 'line 5: 3 columns, line 1 has 65'),
            'text': (lines[:4] + ['x' + lines[4]], "line 5, column 1: 'x0' is not a finite"),
            'label': (lines[:2] + [lines[2] + '7'], 'line 3, column 65'),
            'few': (['1,2,3'], '2 features beside 1 targets, needs 64'),
            'empty': ([], 'no rows of data'),
        }
        for name, (text, part) in cases.items():
            path = self.folder / f'{name}.csv'
            path.write_text(''.join(line + '\n' for line in text))
            self.check_fails(1, part, 'eval', MODEL, path, '-d', 'cpu')
        helper.write_npy(self.folder / 'Y.npy', array.array('i'), (0,))
        empty = helper.write_npy(self.folder / 'X.npy', array.array('f'), (0, 64))
        self.check_fails(1, 'has no rows', 'eval', MODEL, empty, '-d', 'cpu')
        self.check_fails(1, 'No such file', 'eval', MODEL, self.folder / 'absent.csv')
        self.check_fails(1, 'not named .csv', 'eval', MODEL, self.folder)
        self.check_fails(1, "no column 'x'", 'eval', MODEL, DIGITS, '--target', 'x')

    def test_bad_files(self):
        content = MODEL.read_bytes()
        header, data = helper.read_model()
        path = self.folder / 'm.safetensors'
        for size in [0, 7, 100, len(content) - 1]:
            path.write_bytes(content[:size])
            self.check_fails(1, 'm.safetensors', 'eval', path, DIGITS)
        up = 'layers.0.experts.up.weight'
        changes = [
            (lambda t: t[up].update(data_offsets=[0, 65536]), 'inside a tensor'),
            (lambda t: t[up].update(data_offsets=[2592, 1 << 40]), 'outside'),
            (lambda t: t[up].update(dtype='I32'), 'only F32, F16 and BF16'),
            (lambda t: t[up].update(dtype='F16'), 'takes 32768 bytes, has 65536'),
            (lambda t: t[up].update(shape=[8, 64, 32]), 'the configuration makes it'),
            (lambda t: t.update(stray=t.pop(up)), f"'{up}' is missing"),
        ]
        for change, part in changes:
            tensors = copy.deepcopy(header)
            change(tensors)
            self.check_fails(1, part, 'eval', helper.write_model(path, tensors, data), DIGITS)

    def test_bad_config(self):
        header, data = helper.read_model()
        config = header['__metadata__']['config']
        path = self.folder / 'm.safetensors'
        for old, new, part in [
                ('"score":', '"foo":1,"score":', 'layers[0].router.foo: unknown key'),
                ('"top_k":2', '"top_k":9', 'layers[0].top_k: 9 of 8 experts'),
                ('"kind":"moe"', '"kind":"recurrent"', "'recurrent' is not computed yet"),
                ('"n_features":64', '"n_features":63', 'layers[0].d_in')]:
            self.assertIn(old, config)
            header['__metadata__']['config'] = config.replace(old, new)
            self.check_fails(1, part, 'eval', helper.write_model(path, header, data), DIGITS)

    def test_nan_weights(self):
        header, data = helper.read_model()
        struct.pack_into('<f', data, header['layers.0.experts.up.weight']['data_offsets'][0],
                         float('nan'))
        path = helper.write_model(self.folder / 'm.safetensors', header, data)
        done = run('eval', path, DIGITS, '-d', 'cpu', '--json')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("'layers.0.experts.up.weight': 1 of 16384 values are NaN", done.stderr)
        answer = json.loads(done.stdout)
        self.assertIsNone(answer['loss'])
        self.assertLess(answer['accuracy'], 0.9)
        self.assertGreater(answer['accuracy'], 0.5)  # the other experts still work

    def small_model(self, classes, **config):
        """A model of one expert over 16 features with one output; all weights are 1."""
        shapes = {'router.weight': [1, 16], 'experts.up.weight': [1, 1, 16],
                  'experts.down.weight': [1, 1, 1]}
        layer = {'kind': 'moe', 'd_in': 16, 'd_ff': 1, 'd_out': 1, 'n_experts': 1, 'top_k': 1,
                 'router': {'score': 'sigmoid', 'order': 'score_then_topk'},
                 'expert': {'activation': 'tanh'}}
        header, data = {}, b''
        for name, shape in shapes.items():
            part = struct.pack('<f', 1) * (shape[-1] * shape[-2])
            header[f'layers.0.{name}'] = {'dtype': 'F32', 'shape': shape,
                                          'data_offsets': [len(data), len(data) + len(part)]}
            data += part
        config = {'task': 'classify', 'classes': classes, 'layers': [layer],
                  'input': {'kind': 'none', 'n_features': 16}, **config}
        header['__metadata__'] = {'format': 'vkmoe-model/1', 'config': json.dumps(config)}
        return helper.write_model(self.folder / 'm.safetensors', header, data)

    def test_few_outputs(self):
        """One output is the only class, or the second of two."""
        data = self.folder / 'd.csv'
        data.write_text('1,' * 16 + 'on\n')
        done = run('eval', self.small_model(['on'], head='softmax'), data, '-d', 'cpu')
        self.assertIn('100.0% sure\n', done.stdout)
        done = run('eval', self.small_model(['off', 'on'], head='sigmoid'), data, '-d', 'cpu')
        self.assertIn('73.1% sure; next is off with 26.9%', done.stdout)

    def test_no_numbers(self):
        """Pixels that are infinite or NaN, and a gate weight of 0."""
        infinite = float('inf')
        x = array.array('f', [-infinite] + [1] * 15 + [float('nan')] * 16 + [infinite] * 16)
        rows = helper.write_npy(self.folder / 'x.npy', x, (3, 16))
        helper.write_npy(self.folder / 'y.npy', array.array('i', [0, 1, 1]), (3,))
        done = run('eval', self.small_model(['off', 'on'], head='sigmoid'), rows, '-d', 'cpu')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('loss         nan\n', done.stdout)
        self.assertIn('row 3 is on, the model says on', done.stdout)
        self.assertIn('expert 0      0.0%', done.stdout)
        self.assertNotIn('-nan', done.stdout)

    def test_usage(self):
        self.check_fails(2, 'too few arguments', 'eval', MODEL)
        self.check_fails(2, "unexpected argument 'x'", 'eval', MODEL, DIGITS, 'x')
        self.check_fails(2, '--threads x', 'eval', MODEL, DIGITS, '--threads', 'x')
        self.check_fails(2, '--threads -1', 'eval', MODEL, DIGITS, '--threads', '-1')
        self.check_fails(2, '--log loud', 'eval', MODEL, DIGITS, '--log', 'loud')
        self.check_fails(2, 'needs a value', 'eval', MODEL, DIGITS, '-d')
        self.check_fails(2, "not 'all'", 'eval', MODEL, DIGITS, '-d', 'all')
        self.check_fails(2, 'one device', 'eval', MODEL, DIGITS, '-d', 'cpu', '-d', 'cpu')
        self.check_fails(2, 'both to x.npy', 'eval', MODEL, DIGITS, '--ids', 'x.npy', '--logits',
                         'x.npy')

    def test_no_device(self):
        done = run('eval', MODEL, DIGITS, '-d', 'no such device')
        self.assertEqual((done.returncode, done.stdout), (5, ''))
        for device in json.loads(run('info', '--json').stdout)['devices']:
            self.assertIn(device['name'], done.stderr)
        done = run('eval', MODEL, DIGITS, env={'VKMOE_DEVICE': 'no such device'})
        self.assertEqual(done.returncode, 5)
        done = run('eval', MODEL, DIGITS, '-d', 'cpu', env={'VKMOE_DEVICE': 'no such device'})
        self.assertEqual(done.returncode, 0)

    def test_unwritable(self):
        for option in ['--logits', '--ids']:
            self.check_fails(1, 'cannot write', 'eval', MODEL, DIGITS, option,
                             self.folder / 'no' / 'x.npy')
            self.check_fails(1, 'cannot write', 'eval', MODEL, DIGITS, option, self.folder)
        # A failure on the way leaves what was there before, and nothing else.
        bad = self.folder / 'bad.csv'
        bad.write_text(DIGITS.read_text() + '1,2\n')
        kept = self.folder / 'kept.npy'
        kept.write_text('kept')
        self.check_fails(1, 'line 360', 'eval', MODEL, bad, '--logits', kept, '-d', 'cpu')
        self.assertEqual(kept.read_text(), 'kept')
        self.check_files('bad.csv', 'kept.npy')

    def test_interrupt(self):
        """Rows that are done are reported; no file is left."""
        fifo = self.folder / 'rows.csv'
        os.mkfifo(fifo)
        process = helper.start('eval', MODEL, fifo, '-d', 'cpu', '--json', '--logits',
                               self.folder / 'l.npy')
        text = DIGITS.read_text()
        with open(fifo, 'w', encoding='utf-8') as rows:
            rows.write(text * 6)  # two batches of 1024 rows, and the start of a third
            rows.flush()
            self.assertIn('device:', process.stderr.readline())
            process.send_signal(signal.SIGINT)
            try:
                rows.write(text * 6)
                rows.flush()
            except BrokenPipeError:
                pass  # it had stopped before it wanted these
            out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertIn(json.loads(out)['n'], [1024, 2048, 3072, 4096])
        self.check_files('rows.csv')

    def test_interrupt_on_terminal(self):
        """The progress line is cleared before the report, which is said to be of a part."""
        fifo = self.folder / 'rows.csv'
        os.mkfifo(fifo)
        terminal, other_end = pty.openpty()
        with subprocess.Popen([helper.PROGRAM, 'eval', MODEL, fifo, '-d', 'cpu'],
                              stdout=other_end, stderr=other_end) as process:
            os.close(other_end)
            with open(fifo, 'w', encoding='utf-8') as rows:
                rows.write(DIGITS.read_text() * 6)
                rows.flush()
                text = b''
                while b'rows 1024' not in text:
                    text += os.read(terminal, 4096)
                process.send_signal(signal.SIGINT)
            text += helper.read_terminal(terminal)
        os.close(terminal)
        self.assertEqual(process.returncode, 130)
        progress, report = text.split(b'device       ')
        self.assertTrue(progress.endswith(b'\r\x1b[K'), progress)
        self.assertIn(b'vkmoe: interrupted', report)

    def test_memory(self):
        """A file of 300 000 rows takes no more memory than one of 359."""
        def peak(path):
            process = helper.start('eval', MODEL, path, '-d', 'cpu', '--json', '--threads', '1')
            out = process.stdout.read()
            process.stdout.close()
            process.stderr.close()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual(process.returncode, 0)
            return json.loads(out)['n'], usage.ru_maxrss

        large = self.folder / 'large.csv'
        text = DIGITS.read_text()
        with open(large, 'w', encoding='utf-8') as file:
            for _ in range(836):
                file.write(text)
        n, small_kib = peak(DIGITS)
        self.assertEqual(n, 359)
        n, large_kib = peak(large)
        self.assertEqual(n, 836 * 359)
        self.assertGreater(large.stat().st_size, 40 << 20)
        self.assertLess(large_kib - small_kib, 8 << 10)


if __name__ == '__main__':
    unittest.main()
