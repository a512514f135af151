# SPDX-License-Identifier: MIT
"""vkmoe run: one layer on rows of a file. Usage: run.py PROGRAM"""
import array
import json
import math
import random
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


def small_model(path, n_experts, d_in, d_ff):
    """A model of one gated SiLU layer, softmax, 2 renormalised; its tensors as nested lists."""
    config = {'task': 'regress', 'input': {'kind': 'none', 'n_features': d_in}, 'layers': [
        {'kind': 'moe', 'd_in': d_in, 'd_ff': d_ff, 'n_experts': n_experts, 'top_k': 2,
         'router': {'score': 'softmax', 'order': 'score_then_topk', 'renormalize': True},
         'expert': {'gated': True, 'activation': 'silu'}}], 'head': 'identity'}
    source = random.Random(4)
    header, data, tensors = {}, b'', {}
    for name, shape in [('router', (n_experts, d_in)), ('experts.gate', (n_experts, d_ff, d_in)),
                        ('experts.up', (n_experts, d_ff, d_in)),
                        ('experts.down', (n_experts, d_in, d_ff))]:
        values = array.array('f', [source.uniform(-1, 1) for _ in range(math.prod(shape))])
        header[f'layers.0.{name}.weight'] = {
            'dtype': 'F32', 'shape': shape,
            'data_offsets': [len(data), len(data) + 4 * len(values)]}
        data += values.tobytes()
        tensors[name] = nest(values, shape)
    header['__metadata__'] = {'format': 'vkmoe-model/1', 'config': json.dumps(config)}
    return helper.write_model(path, header, data), tensors


def nest(values, shape):
    """A flat array as lists of this shape."""
    if len(shape) == 1:
        return list(values)
    size = math.prod(shape[1:])
    return [nest(values[i * size:(i + 1) * size], shape[1:]) for i in range(shape[0])]


def dot(a, b):
    return sum(p * q for p, q in zip(a, b))


def add_outer(to, a, b):
    for row, p in zip(to, a):
        for i, q in enumerate(b):
            row[i] += p * q


def transposed(matrix, v):
    return [dot(column, v) for column in zip(*matrix)]


def layer_gradients(w, x, dy):
    """The gradients of sum(dy * y), from the formulas of that one layer."""
    grads = {name: nest([0.0] * len(flat(t)), shape_of(t)) for name, t in w.items()}
    grads['x'] = []
    for row, d in zip(x, dy):
        logits = [dot(r, row) for r in w['router']]
        top = sorted(range(len(logits)), key=lambda e: -logits[e])[:2]
        # Softmax over all, renormalised over two, is a softmax over the two: of w1 = sigmoid(l1 -
        # l2) and w2 = 1 - w1 the derivative by l1 is w1 w2, by l2 -w1 w2.
        first = 1 / (1 + math.exp(logits[top[1]] - logits[top[0]]))
        d_gate, d_x = [], [0.0] * len(row)
        for e, weight in zip(top, [first, 1 - first]):
            z = [dot(r, row) for r in w['experts.gate'][e]]
            u = [dot(r, row) for r in w['experts.up'][e]]
            s = [1 / (1 + math.exp(-v)) for v in z]
            h = [a * b * c for a, b, c in zip(z, s, u)]
            d_gate.append(dot(d, [dot(r, h) for r in w['experts.down'][e]]))
            d_f = [weight * v for v in d]
            d_h = transposed(w['experts.down'][e], d_f)
            d_z = [a * b * (c + v * c * (1 - c)) for a, b, c, v in zip(d_h, u, s, z)]
            d_u = [a * b * c for a, b, c in zip(d_h, z, s)]
            add_outer(grads['experts.down'][e], d_f, h)
            add_outer(grads['experts.gate'][e], d_z, row)
            add_outer(grads['experts.up'][e], d_u, row)
            for part in [transposed(w['experts.gate'][e], d_z),
                         transposed(w['experts.up'][e], d_u)]:
                d_x = [a + b for a, b in zip(d_x, part)]
        d_logit = first * (1 - first) * (d_gate[0] - d_gate[1])
        for e, by in zip(top, [d_logit, -d_logit]):
            add_outer([grads['router'][e]], [by], row)
            d_x = [a + by * b for a, b in zip(d_x, w['router'][e])]
        grads['x'].append(d_x)
    return grads


def flat(value):
    return [v for part in value for v in flat(part)] if isinstance(value, list) else [value]


def shape_of(value):
    return (len(value), *shape_of(value[0])) if isinstance(value, list) else ()


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

    def test_gradients(self):
        """Gradients agree with the layer's own formulas, from any kind of file of rows."""
        n_rows, d = 1500, 5  # more than one batch
        model, weights = small_model(self.folder / 'm.safetensors', 4, d, 3)
        source = random.Random(8)
        x, dy = (array.array('f', [source.uniform(-2, 2) for _ in range(n_rows * d)])
                 for _ in range(2))
        want = layer_gradients(weights, nest(x, (n_rows, d)), nest(dy, (n_rows, d)))
        files = [helper.write_npy(self.folder / name, values, (n_rows, d))
                 for name, values in [('x.npy', x), ('dy.npy', dy)]]
        csv = self.folder / 'dy.csv'
        csv.write_text(''.join(','.join(map(repr, row)) + '\n' for row in nest(dy, (n_rows, d))))
        y, plain, grads = (self.folder / name for name in ['y.npy', 'p.npy', 'g.safetensors'])
        # The oracle rounds once; elsewhere a sum over rows in f32 may lose 2^-24 with each.
        for device, bound in [('reference', 1e-6), ('cpu', n_rows * 2 ** -24)]:
            done = run('run', model, '-i', files[0], '-o', plain, '-d', device)
            self.assertEqual(done.returncode, 0, done.stderr)
            for dy_file in [files[1], csv]:
                done = run('run', model, '--layer', '0', '-i', files[0], '-o', y, '--dy', dy_file,
                           '--grads', grads, '-d', device)
                self.assertEqual((done.returncode, done.stdout), (0, ''), done.stderr)
                self.assertEqual(y.read_bytes(), plain.read_bytes())
                self.check_gradients(grads, want, bound)
                y.unlink()
                grads.unlink()

    def test_gradients_of_digits(self):
        """The CPU's gradients of a trained layer are the oracle's, each tensor in its L2 norm."""
        n_rows = 359
        source = random.Random(3)
        dy = array.array('f', [source.uniform(-1, 1) for _ in range(n_rows * 10)])
        files = [helper.write_npy(self.folder / 'x.npy', scaled_digits(), (n_rows, 64)),
                 helper.write_npy(self.folder / 'dy.npy', dy, (n_rows, 10))]
        tensors = {}
        for device in ['reference', 'cpu']:
            grads = self.folder / f'{device}.safetensors'
            done = run('run', MODEL, '-i', files[0], '--dy', files[1], '--grads', grads, '-d',
                       device)
            self.assertEqual(done.returncode, 0, done.stderr)
            header, data = helper.read_model(grads)
            tensors[device] = {
                name: array.array('f', bytes(data[slice(*entry['data_offsets'])]))
                for name, entry in header.items() if name != '__metadata__'}
        self.assertEqual(tensors['cpu'].keys(), tensors['reference'].keys())
        for name, want in tensors['reference'].items():
            got = tensors['cpu'][name]
            self.assertEqual(len(got), len(want), name)
            size = math.hypot(*want)
            self.assertGreater(size, 0, name)
            self.assertLess(math.hypot(*(a - b for a, b in zip(got, want))), 1e-5 * size, name)

    def check_gradients(self, path, want, bound):
        """A file of gradients: nested lists by name, within bound of the largest number."""
        header, data = helper.read_model(path)
        self.assertEqual(sorted(header), sorted(
            name if name == 'x' else f'{name}.weight' for name in want))
        for name, values in want.items():
            entry = header[name if name == 'x' else f'{name}.weight']
            self.assertEqual(tuple(entry['shape']), shape_of(values))
            got = array.array('f', bytes(data[slice(*entry['data_offsets'])]))
            values = flat(values)
            most = max(map(abs, values))
            error = max(abs(a - b) for a, b in zip(got, values))
            self.assertLess(error, bound * most, name)
            # A control: the next element in place of each is noticed.
            shifted = max(abs(a - b) for a, b in zip(got, values[1:] + values[:1]))
            self.assertGreater(shifted, 1e-3 * most, name)

    def test_gradients_fail(self):
        """Wrong rows of --dy: nothing is left."""
        y, g = self.folder / 'y.npy', self.folder / 'g.safetensors'
        x, dy = (array.array('f', [0.5] * n) for n in [3 * 64, 3 * 10])
        inputs = [helper.write_npy(self.folder / 'x.npy', x, (3, 64)),
                  helper.write_npy(self.folder / 'dy.npy', dy, (3, 10))]

        def fails(code, text, *args):
            self.check_fails(code, text, 'run', MODEL, '-o', y, *args)
            self.check_files('dy.npy', 'x.npy')

        dy_only, both = ['-i', inputs[0], '--dy', inputs[1]], ['--dy', inputs[1], '--grads', g]
        fails(2, 'both --dy and --grads', *dy_only)
        fails(2, 'both --dy and --grads', '-i', inputs[0], '--grads', g)
        fails(2, 'both to', '-i', inputs[0], '--dy', inputs[1], '--grads', y)
        fails(1, 'has 3 rows, the input has 4', '--random', '4', *both, '-d', 'reference')
        fails(1, 'cannot write', *dy_only, '--grads', self.folder / 'no' / 'g', '-d', 'reference')
        fails(1, 'No such file', '-i', inputs[0], '--dy', 'no.npy', '--grads', g)
        helper.write_npy(inputs[1], dy, (5, 6))
        fails(1, '6 features', '-i', inputs[0], *both, '-d', 'reference')
        # The rows of a .csv are counted as they come.
        inputs[1].unlink()
        inputs[1] = self.folder / 'dy.csv'
        for n_rows, text in [(2, 'has only 2 rows'), (4, 'has more than 3 rows')]:
            inputs[1].write_text((','.join(['0.25'] * 10) + '\n') * n_rows)
            self.check_fails(1, text, 'run', MODEL, '-o', y, '-i', inputs[0], '--dy', inputs[1],
                             '--grads', g, '-d', 'reference')
            self.check_files('dy.csv', 'x.npy')

    def test_precision(self):
        """Without weights of bf16 the CPU computes half as exact; without blocks no int8."""
        outputs = []
        for word in ['exact', 'half']:
            y = self.folder / 'y.npy'
            done = run('run', MODEL, '--random', '40', '--precision', word, '-o', y, '-d', 'cpu')
            self.assertEqual(done.returncode, 0, done.stderr)
            outputs.append(helper.read_npy(y))
        self.assertEqual(outputs[0], outputs[1])
        done = run('run', MODEL, '--random', '4', '--precision', 'int8', '-o', y, '-d', 'cpu')
        self.assertEqual((done.returncode, done.stdout), (1, ''))
        self.assertIn('plan.precision = int8: for weights of blocks', done.stderr)
        blocks = self.folder / 'blocks.safetensors'
        self.assertEqual(run('quantize', MODEL, blocks, '--type', 'q8_0').returncode, 0)
        outputs = []
        for word in ['exact', 'int8']:
            done = run('run', blocks, '--random', '40', '--precision', word, '-o', y, '-d', 'cpu')
            self.assertEqual(done.returncode, 0, done.stderr)
            outputs.append(helper.read_npy(y)[1])
        error = math.dist(*outputs) / math.hypot(*outputs[0])
        self.assertTrue(1e-5 < error <= 1.5e-2, error)
        done = run('run', blocks, '--random', '4', '--precision', 'int8', '-o', y,
                   '-d', 'reference')
        self.assertEqual((done.returncode, done.stdout), (1, ''))
        self.assertIn('plan.precision = int8: the reference', done.stderr)
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
