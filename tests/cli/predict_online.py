# SPDX-License-Identifier: MIT
"""vkmoe predict --online: the mixture is computed here from the model's tensors, row by row.
Usage: predict_online.py PROGRAM"""
import array
import csv
import json
import math
import struct
import unittest

import helper
from helper import DIGITS, MODEL, run

ROWS = 40


def softmax(y):
    e = [math.exp(v - max(y)) for v in y]
    return [v / sum(e) for v in e]


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


class Experts:
    """The digits model's experts, one at a time."""

    def __init__(self):
        header, data = helper.read_model()

        def tensor(name):
            begin, end = header[name]['data_offsets']
            return struct.unpack(f'<{(end - begin) // 4}f', data[begin:end])

        self.mean, self.std = tensor('input.mean'), tensor('input.std')
        self.up, self.down = (tensor(f'layers.0.experts.{which}.weight')
                              for which in ('up', 'down'))
        self.up_bias, self.down_bias = (tensor(f'layers.0.experts.{which}.bias')
                                        for which in ('up', 'down'))

    def probabilities(self, e, x):
        x = [(v - m) / s for v, m, s in zip(x, self.mean, self.std)]
        h = [max(0, self.up_bias[32 * e + f]
                 + dot(self.up[(32 * e + f) * 64:(32 * e + f + 1) * 64], x))
             for f in range(32)]
        return softmax([self.down_bias[10 * e + o]
                        + dot(self.down[(10 * e + o) * 32:(10 * e + o + 1) * 32], h)
                        for o in range(10)])


def mix(outputs, labels, lam=1, alpha=0):
    """Predictions, summed losses of the mixture and of each expert, and the weights at the end."""
    n = len(outputs[0])
    w = [1 / n] * n
    predictions, loss, losses = [], 0, [0] * n
    for row, label in zip(outputs, labels):
        p = [sum(w[e] * row[e][c] for e in range(n)) for c in range(len(row[0]))]
        predictions.append(p)
        loss -= math.log(p[label])
        losses = [total - math.log(row[e][label]) for e, total in enumerate(losses)]
        w = [w[e] ** lam * row[e][label] for e in range(n)]
        w = [(1 - alpha) * v / sum(w) + alpha / n for v in w]
    return predictions, loss, losses, w


class Online(helper.Case):
    def setUp(self):
        super().setUp()
        self.out = self.folder / 'o.csv'
        self.lines = DIGITS.read_text().split()[:ROWS]
        self.data = self.folder / 'd.csv'
        self.data.write_text(''.join(line + '\n' for line in self.lines))
        self.labels = [int(line.rsplit(',', 1)[1]) for line in self.lines]

    def predict(self, *args):
        done = run('predict', *args, '-o', self.out, '--online', '-d', 'cpu')
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.out, newline='', encoding='utf-8') as file:
            return done.stdout, list(csv.reader(file))

    def test_digits(self):
        experts = Experts()
        rows = [[float(v) for v in line.split(',')[:-1]] for line in self.lines]
        outputs = [[experts.probabilities(e, x) for e in range(8)] for x in rows]
        plain = run('predict', MODEL, self.data, '-o', self.out, '-d', 'cpu')
        self.assertEqual(plain.returncode, 0, plain.stderr)
        with open(self.out, newline='', encoding='utf-8') as file:
            own = list(csv.DictReader(file))
        model_loss = -sum(math.log(float(p[f'p_{c}'])) for p, c in zip(own, self.labels))
        for lam, alpha in [(1, 0), (0.9, 0.05)]:
            text, table = self.predict(MODEL, self.data, '--json', '--lambda', lam, '--alpha',
                                       alpha)
            answer = json.loads(text)
            predictions, loss, losses, weights = mix(outputs, self.labels, lam, alpha)
            self.assertEqual(table[0], ['prediction'] + [f'p_{c}' for c in range(10)])
            self.assertEqual(len(table), 1 + ROWS)
            for got, want in zip(table[1:], predictions):
                for a, b in zip(got[1:], want):
                    self.assertAlmostEqual(float(a), b, places=5)
                self.assertEqual(float(got[1 + int(got[0])]), max(map(float, got[1:])))
            self.assertEqual((answer['n'], answer['layer']), (ROWS, 0))
            self.assertAlmostEqual(answer['loss'], loss, places=3)
            self.assertAlmostEqual(answer['model_loss'], model_loss, places=3)
            for got, want in zip(answer['expert_losses'], losses, strict=True):
                self.assertAlmostEqual(got, want, places=3)
            for got, want in zip(answer['weights'], weights, strict=True):
                self.assertAlmostEqual(got, want, places=4)
            self.assertEqual(answer['best_expert'], losses.index(min(losses)))
            self.assertEqual(answer['best_expert_loss'], min(answer['expert_losses']))
        # The theorem, on all rows.
        answer = json.loads(self.predict(MODEL, DIGITS, '--json')[0])
        self.assertLessEqual(answer['loss'], answer['best_expert_loss'] + math.log(8) + 1e-6)
        self.assertGreater(answer['loss'], answer['best_expert_loss'] + 1)

    def test_text(self):
        text, _ = self.predict(MODEL, self.data)
        for part in [f'rows         {ROWS}\n', '  mixture    ', '(the best of 8 of layer 0;',
                     '  model      ', 'weight now']:
            self.assertIn(part, text)
        self.check_files('d.csv', 'o.csv')

    def write(self, tensors, **config):
        """A model file; tensors are name -> (shape, values)."""
        header, data = {}, b''
        header['__metadata__'] = {'format': 'vkmoe-model/1', 'config': json.dumps(config)}
        for name, (shape, values) in tensors.items():
            part = struct.pack(f'<{len(values)}f', *values)
            header[name] = {'dtype': 'F32', 'shape': shape,
                            'data_offsets': [len(data), len(data) + len(part)]}
            data += part
        return helper.write_model(self.folder / 'm.safetensors', header, data)

    def write_model(self, scales, **config):
        """An expert gives scale times the only feature, with equal gate weights."""
        n = len(scales)
        layer = {'kind': 'moe', 'd_in': 1, 'd_ff': 1, 'd_out': 1, 'n_experts': n, 'top_k': n,
                 'router': {'score': 'softmax', 'order': 'score_then_topk'},
                 'expert': {'activation': 'none'}}
        return self.write({'layers.0.router.weight': ([n, 1], [0.0] * n),
                           'layers.0.experts.up.weight': ([n, 1, 1], [1.0] * n),
                           'layers.0.experts.down.weight': ([n, 1, 1], scales)},
                          layers=[layer], input={'kind': 'none', 'n_features': 1}, **config)

    def test_regress(self):
        model = self.write_model([1.0, 2.0], task='regress', head='identity')
        rows = [(1, 2.1), (2, 3.8), (-1, -2.2), (3, 3.1)]
        self.data.write_text(''.join(f'{x},{y}\n' for x, y in rows))
        text, table = self.predict(model, self.data, '--json', '--variance', 4)
        answer = json.loads(text)
        w, squares, losses, loss = [0.5, 0.5], [0, 0], [0, 0], 0
        for t, (x, y) in enumerate(rows):
            means = [x, 2 * x]
            self.assertAlmostEqual(float(table[1 + t][0]), w[0] * means[0] + w[1] * means[1], 5)
            v = [(4 + s) / (1 + t) for s in squares]
            p = [math.exp(-(y - m) ** 2 / (2 * s)) / math.sqrt(2 * math.pi * s)
                 for m, s in zip(means, v)]
            losses = [a - math.log(b) for a, b in zip(losses, p)]
            total = w[0] * p[0] + w[1] * p[1]
            loss -= math.log(total)
            w = [a * b / total for a, b in zip(w, p)]
            squares = [s + (y - m) ** 2 for s, m in zip(squares, means)]
        self.assertAlmostEqual(answer['loss'], loss, places=5)
        for key, want in [('expert_losses', losses), ('weights', w)]:
            for a, b in zip(answer[key], want, strict=True):
                self.assertAlmostEqual(a, b, places=5)

    def test_networks(self):
        """Experts of layers that plans do not know, one at a time: x, and -2 x, softmax behind."""
        layer = {'kind': 'moe', 'n_experts': 2, 'd_out': 2,
                 'expert': {'kind': 'linear', 'activation': 'none'}}
        route = {'score': 'softmax', 'order': 'score_then_topk', 'scorer': 'additive'}
        extra = {'layers.0.router.weight': ([3, 2], [1.0] * 6),
                 'layers.0.router.keys': ([2, 3], [0.5] * 6),
                 'layers.0.router.vector': ([3], [1.0] * 3)}
        self.data.write_text('1,0,b\n2,1,a\n0,3,b\n')
        outputs = [[softmax([s * v for v in x]) for s in (1, -2)] for x in ([1, 0], [2, 1], [0, 3])]
        _, loss, losses, weights = mix(outputs, [1, 0, 1])
        for config, tensors in [({'top_k': 1, 'router': {**route, 'd_score': 3}}, extra),
                                ({'combine': 'mean'}, {}), ({'combine': 'attention'}, {})]:
            model = self.write({'layers.0.experts.weight': ([2, 2, 2], [1, 0, 0, 1, -2, 0, 0, -2]),
                                **tensors}, layers=[{**layer, **config}], head='softmax',
                               task='classify', classes=['a', 'b'],
                               input={'kind': 'none', 'n_features': 2})
            answer = json.loads(self.predict(model, self.data, '--json')[0])
            self.assertAlmostEqual(answer['loss'], loss, places=5)
            for key, want in [('expert_losses', losses), ('weights', weights)]:
                for a, b in zip(answer[key], want, strict=True):
                    self.assertAlmostEqual(a, b, places=5)
        model = self.write({'layers.0.experts.weight': ([2, 2, 2], [1] * 8),
                            'layers.0.combine.weight': ([2], [1] * 2),
                            'layers.0.combine.bias': ([2], [0] * 2)},
                           layers=[{**layer, 'combine': 'stack'}], head='softmax', task='classify',
                           classes=['a', 'b'], input={'kind': 'none', 'n_features': 2})
        self.check_fails(1, 'layer 0: its experts have weights of their own', 'predict', model,
                         self.data, '-o', self.out, '--online', '-d', 'cpu')

    def test_sigmoid(self):
        """One output is the probability of the second class; the answer is the mixture's."""
        model = self.write_model([3.0, -3.5], task='classify', classes=['a', 'b'], head='sigmoid')
        self.data.write_text('1,a\n1,a\n1,a\n')
        _, table = self.predict(model, self.data)
        self.assertEqual([row[0] for row in table[1:]], ['a', 'a', 'a'])
        p = [1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3.5))]
        self.assertAlmostEqual(float(table[1][1]), sum(p) / 2, places=6)
        self.assertAlmostEqual(float(table[2][1]), (p[0] ** 2 + p[1] ** 2) / sum(p), places=6)
        self.assertAlmostEqual(float(table[2][1]) + float(table[2][2]), 1, places=6)

    def test_bad(self):
        model = self.write_model([1.0, 2.0], task='regress', head='identity')
        args = ['predict', model, self.folder / 'x.npy', '-o', self.out, '--online']
        for x, y, part in [([1, float('nan')], [1, 1], 'row 2: output 0 of expert 0 is nan'),
                           ([1, 1], [1, float('inf')], 'row 2: the model itself as an expert: '
                                                       'target 0 is inf')]:
            helper.write_npy(self.folder / 'y.npy', array.array('f', y), (2,))
            helper.write_npy(self.folder / 'x.npy', array.array('f', x), (2, 1))
            self.check_fails(1, part, *args)
        self.data.write_text('')
        self.check_fails(1, 'no rows of data', *args[:2], self.data, *args[3:])
        plain = self.folder / 'plain.tsv'
        plain.write_text('x\n')
        self.check_fails(1, 'plain.tsv', *args[:2], plain, *args[3:])
        self.assertFalse(self.out.exists())

    def test_usage(self):
        args = ['predict', MODEL, self.data, '-o', self.out]
        for option in [['--lambda', '1'], ['--alpha', '0'], ['--variance', '1'], ['--json']]:
            self.check_fails(2, 'need --online', *args, *option)
        for option, value, part in [('--lambda', '1.5', '0 to 1'), ('--alpha', '-1', '0 to 1'),
                                    ('--variance', '0', '1e-100 to 1e100'),
                                    ('--lambda', 'x', 'not a number'),
                                    ('--lambda', 'nan', 'not a number'),
                                    ('--alpha', '1e999', 'not a number')]:
            self.check_fails(2, part, *args, '--online', option, value)


if __name__ == '__main__':
    unittest.main()
