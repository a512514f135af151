# SPDX-License-Identifier: MIT
"""vkmoe run: one layer on rows of a file. Usage: run.py PROGRAM"""
import array
import json
import signal
import struct
import unittest

import helper
from helper import MODEL, run


def scaled_digits():
    """What enters the layer when the model scales its input, from the test rows."""
    header, data = helper.read_model()
    mean, std = (struct.unpack('<64f', data[slice(*header[name]['data_offsets'])])
                 for name in ['input.mean', 'input.std'])
    rows = [line.split(',')[:-1] for line in helper.DIGITS.read_text().split()]
    return array.array('f', [(float(v) - mean[i]) / std[i]
                             for row in rows for i, v in enumerate(row)])


class Run(helper.Case):
    def test_layer(self):
        """The layer on scaled rows gives the stored logits, from either kind of file."""
        x = scaled_digits()
        npy = helper.write_npy(self.folder / 'x.npy', x, (359, 64))
        tensors = helper.write_model(self.folder / 'x.safetensors', {
            'x': {'dtype': 'F32', 'shape': [359, 64], 'data_offsets': [0, 359 * 64 * 4]}},
            x.tobytes())
        y, ids, gates = (self.folder / name for name in ['y.npy', 'i.npy', 'g.npy'])
        for path in [npy, tensors]:
            done = run('run', MODEL, '--layer', '0', '-i', path, '-o', y, '--ids', ids, '--gates',
                       gates, '-d', 'cpu')
            self.assertEqual((done.returncode, done.stdout), (0, ''), done.stderr)
            shape, got = helper.read_npy(y)
            _, want = helper.read_npy(helper.DATA / 'digits-test-logits.npy')
            self.assertEqual(shape, (359, 10))
            self.assertLess(max(abs(a - b) for a, b in zip(got, want)), 1e-4)
            _, experts = helper.read_npy(helper.DATA / 'digits-test-experts.npy')
            self.assertEqual(helper.read_npy(ids), ((359, 2), experts))
            shape, got = helper.read_npy(gates)
            self.assertEqual(shape, (359, 2))
            self.assertLess(max(abs(a + b - 1) for a, b in zip(got[::2], got[1::2])), 1e-5)
            self.assertTrue(all(a >= b for a, b in zip(got[::2], got[1::2])))
            for path_out in [y, ids, gates]:
                path_out.unlink()
        self.check_files('x.npy', 'x.safetensors')

    def test_precision(self):
        """The CPU computes half as exact; int8 is refused by name."""
        outputs = []
        for word in ['exact', 'half']:
            y = self.folder / 'y.npy'
            done = run('run', MODEL, '--random', '40', '--precision', word, '-o', y, '-d', 'cpu')
            self.assertEqual(done.returncode, 0, done.stderr)
            outputs.append(helper.read_npy(y))
        self.assertEqual(outputs[0], outputs[1])
        done = run('run', MODEL, '--random', '4', '--precision', 'int8', '-o', y, '-d', 'cpu')
        self.assertEqual((done.returncode, done.stdout), (1, ''))
        self.assertIn('plan.precision = int8: not computed yet', done.stderr)
        done = run('run', MODEL, '--random', '4', '--precision', 'bf16', '-o', y, '-d', 'cpu')
        self.assertEqual((done.returncode, done.stdout), (2, ''))
        self.assertIn('--precision bf16: exact|half|int8', done.stderr)

    def test_random(self):
        """Random rows depend on the seed only, and look like N(0, 1) to the router."""
        outputs = {}
        for seed, device in [('1', 'cpu'), ('1', 'reference'), ('2', 'cpu')]:
            y = self.folder / 'y.npy'
            done = run('run', MODEL, '--random', '1500', '--seed', seed, '-o', y, '-d', device)
            self.assertEqual(done.returncode, 0, done.stderr)
            shape, outputs[seed, device] = helper.read_npy(y)
            self.assertEqual(shape, (1500, 10))
        same = zip(outputs['1', 'cpu'], outputs['1', 'reference'])
        self.assertLess(max(abs(a - b) for a, b in same), 1e-4)
        other = zip(outputs['1', 'cpu'], outputs['2', 'cpu'])
        self.assertGreater(max(abs(a - b) for a, b in other), 1)

    def test_no_rows(self):
        x = helper.write_npy(self.folder / 'x.npy', array.array('f'), (0, 64))
        y = self.folder / 'y.npy'
        self.assertEqual(run('run', MODEL, '-i', x, '-o', y, '-d', 'cpu').returncode, 0)
        self.assertEqual(helper.read_npy(y), ((0, 10), array.array('f')))
        y.unlink()
        self.assertEqual(run('run', MODEL, '--random', '0', '-o', y, '-d', 'cpu').returncode, 0)
        self.assertEqual(helper.read_npy(y), ((0, 10), array.array('f')))

    def test_bad_input(self):
        y = self.folder / 'y.npy'
        x = helper.write_npy(self.folder / 'x.npy', array.array('f', [0] * 63), (1, 63))
        self.check_fails(1, '63 features', 'run', MODEL, '-i', x, '-o', y)
        helper.write_npy(x, array.array('f', [0] * 64), (64,))
        self.check_fails(1, '1 dimensions', 'run', MODEL, '-i', x, '-o', y)
        x.write_bytes(x.read_bytes()[:-4])
        self.check_fails(1, 'takes 256 bytes', 'run', MODEL, '-i', x, '-o', y)
        self.check_fails(1, 'needs to have one', 'run', MODEL, '-i', MODEL, '-o', y)
        self.check_fails(1, 'No such file', 'run', MODEL, '-i', self.folder / 'z.npy', '-o', y)
        self.check_fails(1, 'No such file', 'run', self.folder / 'z', '--random', '1', '-o', y)
        self.check_fails(1, 'layer 1 of a model with 1', 'run', MODEL, '--layer', '1', '--random',
                         '1', '-o', y)
        self.check_fails(5, 'no such device', 'run', MODEL, '--random', '1', '-o', y, '-d',
                         'no such device')
        self.check_files('x.npy')

    def test_usage(self):
        self.check_fails(2, 'too few arguments', 'run')
        self.check_fails(2, 'either -i FILE or --random', 'run', MODEL, '-o', 'y.npy')
        self.check_fails(2, 'either -i FILE or --random', 'run', MODEL, '-i', 'x.npy', '--random',
                         '1', '-o', 'y.npy')
        self.check_fails(2, 'no output', 'run', MODEL, '--random', '1')
        for options in [('-o', '--ids'), ('-o', '--gates'), ('--ids', '--gates')]:
            self.check_fails(2, 'both to y.npy', 'run', MODEL, '--random', '1', options[0], 'y.npy',
                             options[1], 'y.npy')
        self.check_fails(2, '--layer 4294967296', 'run', MODEL, '--layer', '4294967296')
        self.check_fails(2, '--seed 1x', 'run', MODEL, '--seed', '1x')

    def test_unwritable(self):
        for option in ['-o', '--ids', '--gates']:
            self.check_fails(1, 'cannot write', 'run', MODEL, '--random', '1', option,
                             self.folder / 'no' / 'y.npy')
        self.check_fails(1, 'not a regular file', 'run', MODEL, '--random', '1', '-o', '/dev/null')
        self.check_files()

    def test_interrupt(self):
        process = helper.start('run', MODEL, '--random', '4000000000', '--ids',
                               self.folder / 'i.npy', '-d', 'cpu')
        self.assertIn('device:', process.stderr.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.check_files()

    def test_device_is_told(self):
        devices = json.loads(run('info', '--json').stdout)['devices']
        done = run('run', MODEL, '--random', '1', '-o', self.folder / 'y.npy', '-d',
                   str(devices[-1]['index']))
        self.assertIn(f"device: {devices[-1]['name']} (cpu", done.stderr)


if __name__ == '__main__':
    unittest.main()
