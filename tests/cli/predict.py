# SPDX-License-Identifier: MIT
"""vkmoe predict, and eval on texts and sequences: models small enough to compute here.
Usage: predict.py PROGRAM"""
import array
import csv
import json
import math
import random
import re
import struct
import unittest

import helper
from helper import DIGITS, MODEL, run

TEXTS = [('de', 'Der Hund und der Katzenjammer'), ('fr', 'Le chien et la f\u00eate'),
         ('de', '\u00c4pfel, Birnen'), ('fr', 'le  LE\tle'), ('fr', '?!')]


def write(path, config, tensors):
    """A model file; tensors are name -> (shape, values)."""
    header = {'__metadata__': {'format': 'vkmoe-model/1', 'config': json.dumps(config)}}
    data = b''
    for name, (shape, values) in tensors.items():
        part = struct.pack(f'<{len(values)}f', *values)
        header[name] = {'dtype': 'F32', 'shape': shape,
                        'data_offsets': [len(data), len(data) + len(part)]}
        data += part
    return helper.write_model(path, header, data)


def numbers(seed, *shape):
    source = random.Random(seed)
    return list(shape), [source.uniform(-1, 1) for _ in range(math.prod(shape))]


def matvec(tensor, x, bias=None):
    (rows, columns), w = tensor
    return [sum(w[r * columns + c] * x[c] for c in range(columns)) + (bias[1][r] if bias else 0)
            for r in range(rows)]


def softmax(y):
    e = [math.exp(v - max(y)) for v in y]
    return [v / sum(e) for v in e]


def tokens(text, n_buckets, lower, ngrams):
    """Rows of a text's tokens, as include/vkmoe/model.h defines them."""
    if lower:
        text = re.sub('[A-Z]', lambda m: m[0].lower(), text)
    text = re.sub('[\t\n\v\f\r ]+', ' ', ' ' + text + ' ')
    data = text.encode()
    pieces = []
    for n in ngrams.get('byte', []):
        pieces += [(i, 0, n, b'b', data[i:i + n]) for i in range(len(data) - n + 1)]
    for n in ngrams.get('character', []):
        pieces += [(len(text[:i].encode()), 1, n, b'c', text[i:i + n].encode())
                   for i in range(len(text) - n + 1)]
    words = [(m.start(), m[0]) for m in re.finditer(rb'[0-9A-Za-z_\x80-\xff]+', data)]
    for n in ngrams.get('word', []):
        pieces += [(words[i][0], 2, n, b'w', b' '.join(w for _, w in words[i:i + n]))
                   for i in range(len(words) - n + 1)]
    rows = []
    for *_, unit, piece in sorted(pieces):
        h = 14695981039346656037
        for byte in unit + piece:
            h = (h ^ byte) * 1099511628211 % 2**64
        rows.append((h ^ h >> 32) % n_buckets)
    return rows or [0]


class Predict(helper.Case):
    def predict(self, model, data, *args):
        """The rows that `predict` writes: a list of dicts."""
        out = self.folder / 'out.csv'
        done = run('predict', model, data, '-o', out, '-d', 'cpu', *args)
        self.assertEqual((done.returncode, done.stdout), (0, ''), done.stderr)
        with out.open(newline='', encoding='utf-8') as file:
            return list(csv.DictReader(file))

    def check_row(self, row, classes, probabilities):
        self.assertEqual(list(row), ['prediction'] + ['p_' + c for c in classes])
        self.assertEqual(row['prediction'], classes[probabilities.index(max(probabilities))])
        for name, p in zip(classes, probabilities):
            self.assertAlmostEqual(float(row['p_' + name]), p, places=5)

    def text_model(self, kind, lower, ngrams, layers, more, head='softmax'):
        config = {'task': 'classify', 'classes': ['de', 'fr'],
                  'input': {'kind': kind, 'd_out': 3, 'ngrams': ngrams, 'n_buckets': 50,
                            'lower': lower}, 'layers': layers, 'head': head}
        table = numbers(1, 50, 3)
        return write(self.folder / 'm.safetensors', config, {'input.table': table, **more}), table

    def text_data(self, labels=True):
        path = self.folder / 'data.tsv'
        path.write_text(''.join((f'{c}\t' if labels else '') + text + '\n' for c, text in TEXTS),
                        encoding='utf-8')
        return path

    def test_digits(self):
        rows = self.predict(MODEL, DIGITS)
        lines = [line.split(',') for line in DIGITS.read_text().splitlines()
                 if line[0].isdigit()]
        self.assertEqual(len(rows), len(lines))
        self.assertEqual(sum(r['prediction'] == line[-1] for r, line in zip(rows, lines)), 355)
        for row in rows:
            p = [float(row[f'p_{c}']) for c in range(10)]
            self.assertAlmostEqual(sum(p), 1, places=5)
            self.assertEqual(int(row['prediction']), p.index(max(p)))
        # Without the targets, and with them in another column, all is the same.
        bare, first = self.folder / 'bare.csv', self.folder / 'first.csv'
        bare.write_text('\n'.join(','.join(line[:-1]) for line in lines))
        first.write_text('\n'.join(','.join(line[-1:] + line[:-1]) for line in lines))
        self.assertEqual(self.predict(MODEL, bare), rows)
        self.assertEqual(self.predict(MODEL, first, '--target', '1'), rows)
        self.assertNotEqual(self.predict(MODEL, first), rows)

    def test_bag_of_pieces(self):
        ngrams = {'byte': [2], 'character': [1, 3], 'word': [1, 2]}
        weight, bias = numbers(2, 2, 3), numbers(3, 2)
        model, (_, table) = self.text_model(
            'embed_bag', True, ngrams, [{'kind': 'linear', 'd_out': 2}],
            {'layers.0.weight': weight, 'layers.0.bias': bias})
        rows = self.predict(model, self.text_data())
        self.assertEqual(rows, self.predict(model, self.text_data(labels=False)))
        n_right = 0
        for (label, text), row in zip(TEXTS, rows, strict=True):
            ids = tokens(text, 50, True, ngrams)
            mean = [sum(table[3 * i + c] for i in ids) / len(ids) for c in range(3)]
            self.check_row(row, ['de', 'fr'], softmax(matvec(weight, mean, bias)))
            n_right += row['prediction'] == label
        done = run('eval', model, self.text_data(), '--json', '-d', 'cpu')
        self.assertEqual(done.returncode, 0, done.stderr)
        answer = json.loads(done.stdout)
        self.assertAlmostEqual(answer['accuracy'], n_right / len(TEXTS))
        self.assertEqual(answer['expert_load'], [])
        self.check_fails(1, 'no layer of this model has experts', 'eval', model, self.text_data(),
                         '--ids', self.folder / 'i.npy', '-d', 'cpu')

    def test_experts_on_tokens(self):
        """Tokens go through linear experts, each to the better one; eval counts tokens."""
        router, weight = numbers(4, 2, 3), numbers(5, 2, 2, 3)
        layer = {'kind': 'moe', 'n_experts': 2, 'top_k': 1, 'd_out': 2,
                 'router': {'score': 'softmax', 'order': 'score_then_topk'},
                 'expert': {'kind': 'linear', 'activation': 'tanh'}}
        model, (_, table) = self.text_model(
            'embed', False, {'word': [1]}, [layer, {'kind': 'pool', 'pool': 'sum'}],
            {'layers.0.router.weight': router, 'layers.0.experts.weight': weight})
        load = [0, 0]
        for (_, text), row in zip(TEXTS, self.predict(model, self.text_data()), strict=True):
            y = [0, 0]
            for i in tokens(text, 50, False, {'word': [1]}):
                x = table[3 * i:3 * i + 3]
                gates = softmax(matvec(router, x))
                e = gates.index(max(gates))
                load[e] += 1
                r = matvec(([2, 3], weight[1][6 * e:6 * e + 6]), x)
                y = [a + gates[e] * math.tanh(b) for a, b in zip(y, r)]
            self.check_row(row, ['de', 'fr'], softmax(y))
        ids = self.folder / 'ids.npy'
        done = run('eval', model, self.text_data(), '--json', '--ids', ids, '-d', 'cpu')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(helper.read_npy(ids)[0], (sum(load), 1))
        for share, count in zip(json.loads(done.stdout)['expert_load'], load, strict=True):
            self.assertAlmostEqual(share, count / sum(load))

    def test_sequences(self):
        x, y = numbers(6, 4, 5, 2), array.array('f', [1, 2, 3, 4])
        weight = numbers(7, 2, 2)
        config = {'task': 'regress', 'input': {'kind': 'minmax', 'n_features': 2}, 'layers': [
            {'kind': 'linear', 'd_out': 2, 'activation': 'relu', 'bias': False, 'residual': True},
            {'kind': 'pool', 'pool': 'max'}], 'head': 'identity'}
        model = write(self.folder / 'm.safetensors', config,
                      {'input.min': ([2], [-1, 0]), 'input.max': ([2], [1, 2]),
                       'layers.0.weight': weight})
        data = helper.write_npy(self.folder / 'X.npy', array.array('f', x[1]), (4, 5, 2))
        helper.write_npy(self.folder / 'Y.npy', array.array('f', list(y) * 2), (4, 2))
        rows = self.predict(model, data)
        for i, row in enumerate(rows):
            best = [-math.inf, -math.inf]
            for step in range(5):
                at = x[1][(5 * i + step) * 2:][:2]
                v = [(at[0] + 1) / 2, at[1] / 2]
                h = [a + max(b, 0) for a, b in zip(v, matvec(weight, v))]
                best = [max(a, b) for a, b in zip(best, h)]
            self.assertEqual(list(row), ['prediction', 'prediction2'])
            for name, value in zip(row, best):
                self.assertAlmostEqual(float(row[name]), value, places=5)
        self.assertEqual(run('eval', model, data, '-d', 'cpu').returncode, 0)
        flat = helper.write_npy(self.folder / 'x.npy', array.array('f', x[1][:8]), (4, 2))
        self.check_fails(1, 'rows are single, the model needs sequences', 'predict', model, flat,
                         '-o', self.folder / 'o.csv', '-d', 'cpu')
        self.check_fails(1, 'rows are sequences, the model needs single ones', 'predict',
                         self.binary('sigmoid'), data, '-o', self.folder / 'o.csv', '-d', 'cpu')

    def binary(self, head, weights=(1, -1)):
        config = {'task': 'classify', 'classes': ['no, "never"', 'yes'], 'input':
                  {'kind': 'none', 'n_features': 2},
                  'layers': [{'kind': 'linear', 'd_out': 1, 'bias': False}], 'head': head}
        return write(self.folder / 'b.safetensors', config,
                     {'layers.0.weight': ([1, 2], list(weights))})

    def test_one_output_for_two_classes(self):
        data = self.folder / 'd.csv'
        data.write_text('0.75,0\n0.25,0\n0,1\n')
        classes = ['no, "never"', 'yes']
        # With identity the output is the probability of the second class already.
        for head, expected in (('sigmoid', [1 / (1 + math.exp(-v)) for v in (.75, .25, -1)]),
                               ('identity', [0.75, 0.25, -1])):
            for row, p in zip(self.predict(self.binary(head), data), expected, strict=True):
                self.check_row(row, classes, [1 - p, p])

    def test_nan(self):
        data, out = self.folder / 'd.csv', self.folder / 'out.csv'
        data.write_text('1,2\n')
        done = run('predict', self.binary('sigmoid', [math.nan, 1]), data, '-o', out, '-d', 'cpu')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('1 of 1 rows have no answer: NaN', done.stderr)
        self.assertEqual(out.read_text().splitlines()[1], ',nan,nan')

    def test_bad_input(self):
        out, data = self.folder / 'out.csv', self.folder / 'd.csv'
        model = self.binary('sigmoid')
        self.check_fails(2, '-o is needed', 'predict', model, data)
        self.check_fails(2, 'too few arguments: needs MODEL DATA', 'predict', model, '-o', out)
        self.check_fails(1, 'No such file', 'predict', model, data, '-o', out)
        for text, part in (('1,2,3,4\n', '4 columns, needs 2 features, or these and 1 targets'),
                           ('1\n', '1 columns'), ('1,2\n1,x\n', "line 2, column 2: 'x'"),
                           ('', 'no rows of data')):
            data.write_text(text)
            self.check_fails(1, part, 'predict', model, data, '-o', out, '-d', 'cpu')
        data.write_text('1,2\n')
        self.check_fails(2, 'is read, so it is not', 'predict', model, data, '-o', data)
        self.check_fails(1, 'folder', 'predict', model, data, '-o', self.folder / 'folder' / 'x',
                         '-d', 'cpu')
        self.check_fails(1, 'texts, needs 2 features', 'predict', model, self.text_data(), '-o',
                         out, '-d', 'cpu')
        self.check_fails(1, 'computed in f32 only', 'predict', model, data, '-o', out, '-d', 'cpu',
                         '--precision', 'half')
        text, _ = self.text_model('embed_bag', True, {'word': [1]},
                                  [{'kind': 'linear', 'd_out': 2, 'bias': False}],
                                  {'layers.0.weight': numbers(1, 2, 3)})
        self.check_fails(1, 'features, needs texts', 'predict', text, data, '-o', out,
                         '-d', 'cpu')
        lines = self.folder / 'l.tsv'
        for content, part in (('de\tx\nfr y\n', 'line 2: no tab'),
                              ('de\tx\nde\t\n', 'line 2: no text'),
                              (b'de\tx\n\n\xff\ty\n', 'line 3, byte 1: 0xff is not UTF-8')):
            lines.write_bytes(content.encode() if isinstance(content, str) else content)
            self.check_fails(1, part, 'predict', text, lines, '-o', out, '-d', 'cpu')
        lines.write_text('it\tciao\n')
        self.check_fails(1, "line 1: 'it' is none of 2 classes", 'eval', text, lines, '-d', 'cpu')
        self.assertFalse(out.exists())


if __name__ == '__main__':
    unittest.main()
