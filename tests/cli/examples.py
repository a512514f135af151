# SPDX-License-Identifier: MIT
"""The examples of vkmoe train reach what the README says. Usage: examples.py PROGRAM [sanitized]

Accuracies are in percent, means of seeds 1 to 5. With folds, every row is predicted by the model
that has not seen it. A sanitized program trains each example for an epoch, and must only work."""
import json
import math
import struct
import sys
import unittest

import helper
from helper import DATA, DIGITS, run

SANITIZED = sys.argv[1:2] == ['sanitized']
if SANITIZED:
    sys.argv.pop(1)
SEEDS = range(1, 2 if SANITIZED else 6)
FOLDS = range(1 if SANITIZED else 5)
SHORT = ['--set', 'train.epochs=1'] if SANITIZED else []


class Examples(helper.Case):
    def train(self, name, variant, data, *more):
        """The answer of one training; its model is m.safetensors."""
        config = self.folder / 'c.json'
        done = run('train', '--example', name, *(['--variant', variant] if variant else []))
        self.assertEqual(done.returncode, 0, done.stderr)
        config.write_text(done.stdout)
        done = run('train', config, '--data', DATA / data, '-o', self.folder / 'm.safetensors',
                   '-d', 'cpu', '--json', '--log', 'error', *SHORT, *more)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def digits(self, name, variant=None):
        """Accuracy on the test rows, by seed."""
        return [100 * self.train(name, variant, 'digits-train.csv', '--valid', DIGITS, '--seed',
                                 seed)['valid']['accuracy'] for seed in SEEDS]

    def folds(self, name, variant, data, seed, key):
        """Mean of a metric over all rows, each measured by the model of the other folds."""
        total = n = 0
        for fold in FOLDS:
            valid = self.train(name, variant, data, '--seed', seed, '--set',
                               f'train.validation.fold.index={fold}')['valid']
            total += valid['n'] * valid[key]
            n += valid['n']
        return total / n

    def check_mean(self, values, at_least, worst=0):
        if SANITIZED:
            at_least = worst = 0  # but a number
        self.assertGreaterEqual(sum(values) / len(values), at_least, values)
        self.assertGreaterEqual(min(values), worst, values)

    def test_sparse_topk(self):
        self.check_mean(self.digits('sparse-topk'), 97.8, 97.2)

    def test_query_experts(self):
        for variant in [None, 'all', 'share']:
            self.check_mean(self.digits('query-experts', variant), 97.4)

    def test_score_functions(self):
        for variant in [None, 'kernel', 'additive', 'multiplicative']:
            self.check_mean(self.digits('score-functions', variant), 97.3)

    def test_mean_fuse(self):
        for variant in [None, 'stack']:
            self.check_mean(self.digits('mean-fuse', variant), 97.3)

    def test_mixture(self):
        self.check_mean(self.digits('mixture'), 97.3)

    def test_soft_sigmoid(self):
        for variant in [None, 'shared']:
            self.check_mean([100 * self.folds('soft-sigmoid', variant, 'breast_cancer.csv', seed,
                                              'accuracy') for seed in SEEDS], 97.0)

    def test_text_classify(self):
        """Two made-up languages, by the letters they use. The real data is not in this project:
        tools/get-language-data.sh fetches it."""
        def line(i, letters):
            words = [''.join(letters[(i * 7 + w * 5 + k * (w + 1)) % len(letters)]
                             for k in range(2 + (i + w) % 4)) for w in range(7)]
            return ' '.join(words)

        for name, rows in [('a.tsv', range(200)), ('b.tsv', range(1000, 1050))]:
            (self.folder / name).write_text(''.join(
                f'north\t{line(i, "aeiklmnst")}\nsouth\t{line(i, "aeoprstuv")}\n' for i in rows))
        answer = self.train('text-classify', None, self.folder / 'a.tsv', '--set',
                            'layers.2.d_out=2')
        self.assertEqual([c['name'] for c in answer['classes']], ['north', 'south'])
        done = run('eval', self.folder / 'm.safetensors', self.folder / 'b.tsv', '--json', '-d',
                   'cpu')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check_mean([100 * json.loads(done.stdout)['accuracy']], 95)

    @unittest.skipIf(SANITIZED, 'there are no thresholds')
    def test_untrained(self):
        """What the thresholds are worth: with hardly a step they are missed by far."""
        for name, data in [('sparse-topk', 'digits-train.csv'), ('mixture', 'digits-train.csv')]:
            answer = self.train(name, None, data, '--valid', DIGITS, '--set', 'train.epochs=1',
                                '--set', 'train.optimiser.rate=1e-4')
            self.assertLess(answer['valid']['accuracy'], 0.9)

    # ---- regression ----

    def rows(self, name):
        lines = (DATA / name).read_text().split()
        return [[float(v) for v in line.split(',')] for line in lines]

    def least_squares(self, rows):
        """Weights of [1, x] that fit the last column, by the normal equations."""
        n = len(rows[0])
        table = [[0.0] * (n + 1) for _ in range(n)]
        for *x, y in rows:
            x = [1.0] + x
            for i in range(n):
                for j in range(n):
                    table[i][j] += x[i] * x[j]
                table[i][n] += x[i] * y
        for i in range(n):  # Gauss and Jordan; the matrix is positive definite
            pivot = table[i][i]
            table[i] = [v / pivot for v in table[i]]
            for j in range(n):
                if j != i:
                    factor = table[j][i]
                    table[j] = [a - factor * b for a, b in zip(table[j], table[i])]
        return [row[n] for row in table]

    def test_regress_5(self):
        """Beside ordinary least squares. Mean squares of all models below that of least squares
        mean that their average is below it, too: the square is convex."""
        rows = self.rows('diabetes.csv')
        squares = 0
        for fold in range(5):
            w = self.least_squares([row for i, row in enumerate(rows) if i % 5 != fold])
            for *x, y in rows[fold::5]:
                squares += (w[0] + sum(a * b for a, b in zip(w[1:], x)) - y) ** 2
        best = math.sqrt(squares / len(rows))
        self.assertAlmostEqual(best, 54.4016, places=3)  # of numpy.linalg.lstsq
        errors = [math.sqrt(self.folds('regress-5', None, 'diabetes.csv', seed, 'loss'))
                  for seed in SEEDS]
        self.assertTrue(all(math.isfinite(error) for error in errors), errors)
        if SANITIZED:
            return
        self.assertLessEqual(sum(errors) / len(errors), 1.01 * best, errors)
        self.assertLessEqual(max(errors), 1.03 * best, errors)
        self.assertLessEqual(math.sqrt(sum(e * e for e in errors) / len(errors)), best, errors)

    def tensor(self, header, data, name):
        entry = header[name]
        begin, end = entry['data_offsets']
        return entry['shape'], struct.unpack(f'<{(end - begin) // 4}f', data[begin:end])

    def test_regress_5_literal(self):
        """y = sum_k a_k r_k with a_k = w_k sum_j x_j, unnormalised, from the file's numbers."""
        answer = self.train('regress-5', 'literal', 'diabetes.csv', '--set', 'train.epochs=1',
                            '--set', 'train.validation=null')
        header, data = helper.read_model(self.folder / 'm.safetensors')

        def get(name):
            return self.tensor(header, data, name)[1]

        mean, std, gate = get('input.mean'), get('input.std'), get('layers.0.router.weight')
        up, up_bias = get('layers.0.experts.up.weight'), get('layers.0.experts.up.bias')
        down, down_bias = get('layers.0.experts.down.weight'), get('layers.0.experts.down.bias')
        scale, offset = get('layers.1.weight')[0], get('layers.1.bias')[0]
        squares = 0
        rows = self.rows('diabetes.csv')
        for *x, target in rows:
            x = [(v - m) / s for v, m, s in zip(x, mean, std)]
            y = 0
            for k in range(5):
                r = down_bias[k]
                for f in range(64 * k, 64 * (k + 1)):
                    h = up_bias[f] + sum(a * b for a, b in zip(up[10 * f:10 * f + 10], x))
                    r += down[f] * max(h, 0)
                y += gate[k] * sum(x) * r
            squares += (scale * y + offset - target) ** 2
        self.assertAlmostEqual(math.sqrt(squares / len(rows)) / answer['train']['rmse'], 1,
                               places=4)

    def test_response_share(self):
        """Responses 1 and 3 have the weights 1/4 and 3/4: y = 2.5."""
        shapes = {'experts.weight': [2, 1, 1], 'experts.bias': [2, 1]}
        values = {'experts.weight': [0, 0], 'experts.bias': [1, 3]}
        header, data = {}, b''
        for name, shape in shapes.items():
            part = struct.pack('<2f', *values[name])
            header['layers.0.' + name] = {'dtype': 'F32', 'shape': shape,
                                          'data_offsets': [len(data), len(data) + len(part)]}
            data += part
        config = {'task': 'regress', 'input': {'kind': 'none', 'n_features': 1}, 'head': 'identity',
                  'layers': [{'kind': 'moe', 'd_in': 1, 'd_out': 1, 'n_experts': 2,
                              'combine': 'response_share',
                              'expert': {'kind': 'linear', 'activation': 'relu', 'bias': True}}]}
        header['__metadata__'] = {'format': 'vkmoe-model/1', 'config': json.dumps(config)}
        model = helper.write_model(self.folder / 'm.safetensors', header, data)
        for target, rmse in [(2.5, 0), (2, 0.5)]:
            (self.folder / 'd.csv').write_text(f'7,{target}\n')
            for device in ['cpu', 'reference']:
                done = run('eval', model, self.folder / 'd.csv', '--json', '-d', device)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertAlmostEqual(json.loads(done.stdout)['rmse'], rmse, places=6)


if __name__ == '__main__':
    unittest.main()
