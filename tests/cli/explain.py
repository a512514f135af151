# SPDX-License-Identifier: MIT
"""vkmoe explain: its table, its JSON against numbers worked out here, its page, and every bad
input. Usage: explain.py PROGRAM"""
import array
import json
import math
import struct
import unittest
import xml.etree.ElementTree

import helper
from helper import DIGITS, MODEL, run
from page import Page


def explain(*args):
    done = run('explain', *args, '-d', 'cpu')
    assert done.returncode == 0, done.stderr
    return done


def information(table):
    """Mutual information in bits of a table of counts."""
    total = sum(map(sum, table))
    columns = [sum(column) for column in zip(*table)]
    return sum(cell / total * math.log2(cell * total / (sum(row) * column))
               for row in table for cell, column in zip(row, columns) if cell)


class Explain(helper.Case):
    def test_json(self):
        answer = json.loads(explain(MODEL, DIGITS, '--json').stdout)
        self.assertEqual((answer['n'], answer['undecided'], answer['n_experts'], answer['top_k'],
                          answer['layer'], answer['task']), (359, 0, 8, 2, 0, 'classify'))
        labels = [int(line.rsplit(',', 1)[1]) for line in DIGITS.read_text().split()]
        _, chosen = helper.read_npy(helper.DATA / 'digits-test-experts.npy')
        slots = [[0] * 10 for _ in range(8)]
        first = [[0] * 10 for _ in range(8)]
        for i, label in enumerate(labels):
            slots[chosen[2 * i]][label] += 1
            slots[chosen[2 * i + 1]][label] += 1
            first[chosen[2 * i]][label] += 1
        self.assertEqual([g['n'] for g in answer['groups']], [labels.count(c) for c in range(10)])
        bits = answer['information']
        self.assertAlmostEqual(bits['slots'], information(slots), places=7)
        self.assertAlmostEqual(bits['first'], information(first), places=7)
        self.assertNotAlmostEqual(bits['first'], bits['slots'], places=1)
        self.assertAlmostEqual(bits['chance_first'], 7 * 9 / (2 * 359 * math.log(2)), places=7)
        for e, expert in enumerate(answer['experts']):
            self.assertEqual(expert['expert'], e)
            self.assertEqual(expert['group_slots'], slots[e])
            self.assertEqual((expert['slots'], expert['first']), (sum(slots[e]), sum(first[e])))
            self.assertAlmostEqual(expert['share'], sum(slots[e]) / 718, places=7)
            self.assertAlmostEqual(expert['gate_mean'] * expert['slots'],
                                   sum(expert['group_gates']), places=4)
            self.assertEqual(sum(expert['gate_histogram']), expert['slots'])
            self.assertEqual(len(expert['gate_histogram']), 20)
            gates = [c['gate'] for c in expert['certain']]
            self.assertEqual((len(gates), gates), (5, sorted(gates, reverse=True)))
            for c in expert['certain']:
                self.assertIn(e, chosen[2 * c['row'] - 2:2 * c['row']])
                self.assertEqual(c['class'], str(labels[c['row'] - 1]))
        self.assertAlmostEqual(sum(sum(e['group_gates']) for e in answer['experts']), 359, places=3)
        mean = sum(e['share'] * e['information'] for e in answer['experts'])
        self.assertAlmostEqual(mean, bits['slots'], places=7)

    def test_features(self):
        """effect = weight times standard deviation of the scaled pixel."""
        header, data = helper.read_model()

        def tensor(name, n):
            begin = header[name]['data_offsets'][0]
            return struct.unpack(f'<{n}f', data[begin:begin + 4 * n])

        weight, std = tensor('layers.0.router.weight', 512), tensor('input.std', 64)
        rows = [line.split(',')[:-1] for line in DIGITS.read_text().split()]
        columns = [[float(v) for v in column] for column in zip(*rows)]
        means = [sum(c) / len(c) for c in columns]
        spread = [math.sqrt(sum((v - m) ** 2 for v in c) / len(c)) / s
                  for c, m, s in zip(columns, means, std)]
        answer = json.loads(explain(MODEL, DIGITS, '--json').stdout)
        for e, expert in enumerate(answer['experts']):
            strengths = [abs(f['effect']) for f in expert['features']]
            self.assertEqual((len(strengths), strengths), (64, sorted(strengths, reverse=True)))
            for f in expert['features']:
                self.assertIsNone(f['name'])
                self.assertAlmostEqual(f['weight'], weight[64 * e + f['feature']], places=7)
                self.assertAlmostEqual(f['std'], spread[f['feature']], places=4)
                self.assertAlmostEqual(f['effect'], f['weight'] * f['std'], places=7)

    def test_rows(self):
        """The experts' parts add up to the output, so also to the margin."""
        answer = json.loads(explain(MODEL, DIGITS, '--json', '--row', '5,359,5').stdout)
        _, logits = helper.read_npy(helper.DATA / 'digits-test-logits.npy')
        self.assertEqual([r['row'] for r in answer['rows']], [5, 359, 5])
        self.assertEqual(answer['rows'][0], answer['rows'][2])
        for row in answer['rows']:
            want = logits[10 * row['row'] - 10:10 * row['row']]
            for got, logit in zip(row['outputs'], want):
                self.assertAlmostEqual(got, logit, delta=1e-4)
            ranked = sorted(range(10), key=lambda c: -want[c])
            self.assertEqual((row['answer'], row['runner_up']), tuple(map(str, ranked[:2])))
            self.assertAlmostEqual(row['margin'], want[ranked[0]] - want[ranked[1]], delta=2e-4)
            self.assertAlmostEqual(sum(e['gate'] for e in row['experts']), 1, places=5)
            self.assertAlmostEqual(sum(e['adds'] for e in row['experts']), want[ranked[0]],
                                   delta=2e-4)
            self.assertAlmostEqual(sum(e['adds_to_margin'] for e in row['experts']),
                                   row['margin'], delta=2e-4)
            best = max(row['experts'], key=lambda e: e['adds_to_margin'])
            self.assertEqual(row['decided_by'], best['expert'])
            self.assertNotAlmostEqual(row['experts'][0]['adds'], row['experts'][1]['adds'], 2)

    def test_text(self):
        done = explain(MODEL, DIGITS, '--row', '5', '--certain', '2')
        for part in ['0: each row goes to 2 of 8 experts', 'rows         359\n', 'serves',
                     '351 (4) 0.990, 186 (4) 0.988\n', 'x[33] +0.327', 'row 5 is 4, the model says',
                     'to the margin']:
            self.assertIn(part, done.stdout)
        self.assertNotIn('nan', done.stdout)
        self.assertIn('device: ', done.stderr)
        self.assertNotIn('most certain', explain(MODEL, DIGITS, '--certain', '0').stdout)

    # ---- the page ----------------------------------------------------------------------------

    def read_page(self, path):
        text = path.read_text(encoding='utf-8')
        xml.etree.ElementTree.fromstring(text)
        page = Page(text)
        self.assertEqual(page.scripts, 0)
        for part in ['http:', 'https:', '@import', 'url(']:
            self.assertNotIn(part, text)
        self.assertIn('prefers-color-scheme:dark', text)
        self.assertIn('width=device-width', text)
        return page

    def check_table(self, rows, answer):
        """The page's numbers are the JSON's, rounded."""
        self.assertEqual(rows[0][6:], [g['name'] for g in answer['groups']])
        for row, expert in zip(rows[1:], answer['experts'], strict=True):
            want = [str(expert['expert']), str(expert['slots']), f"{100 * expert['share']:.1f} %",
                    str(expert['first']), f"{expert['gate_mean']:.3f}",
                    f"{expert['information']:.3f}", *map(str, expert['group_slots'])]
            self.assertEqual(row, want)

    def test_page(self):
        path = self.folder / 'p.html'
        answer = json.loads(explain(MODEL, DIGITS, '--json', '-o', path, '--row', '5,17').stdout)
        page = self.read_page(path)
        self.assertEqual(len(page.tables), 3)
        self.check_table(page.tables[2], answer)
        for table, row in zip(page.tables, answer['rows']):
            self.assertEqual([line[0] for line in table[1:]],
                             [str(e['expert']) for e in row['experts']])
            self.assertEqual([line[2] for line in table[1:]],
                             [f"{e['adds']:+.4g}" for e in row['experts']])
        # Load, heat map, two rows; for each expert classes, gates, five inputs and its pixels.
        self.assertEqual(page.pictures, 2 + 2 + 8 * 8)
        bits = answer['information']
        self.assertIn(f"{bits['first']:.2f} of {bits['group_entropy']:.2f} bits", page.texts)
        for expert in answer['experts']:
            self.assertIn(f"{100 * expert['share']:.1f} %", page.texts)
        # Cells of the heat map: percent of a class's gate weight.
        sums = [sum(e['group_gates'][g] for e in answer['experts']) for g in range(10)]
        for expert in answer['experts']:
            for gates, total in zip(expert['group_gates'], sums):
                self.assertIn(f'{100 * gates / total:.0f}', page.texts)
        self.check_files('p.html')

    # ---- other models ------------------------------------------------------------------------

    def write_model(self, name='m.safetensors', n_experts=2, n_outputs=1, **config):
        """Two features; expert e gets the score (e + 1) times the first, all else is 1."""
        shapes = {'router.weight': [n_experts, 2], 'experts.up.weight': [n_experts, 1, 2],
                  'experts.down.weight': [n_experts, n_outputs, 1]}
        layer = {'kind': 'moe', 'd_in': 2, 'd_ff': 1, 'd_out': n_outputs, 'n_experts': n_experts,
                 'top_k': 1, 'router': {'score': 'softmax', 'order': 'score_then_topk'},
                 'expert': {'activation': 'none'}}
        header, data = {}, b''
        for tensor, shape in shapes.items():
            n = shape[0] * shape[1] * (shape[2] if len(shape) > 2 else 1)
            values = [1.0] * n
            if tensor == 'router.weight':
                values = [v for e in range(n_experts) for v in (e + 1, 0)]
            part = struct.pack(f'<{n}f', *values)
            header[f'layers.0.{tensor}'] = {'dtype': 'F32', 'shape': shape,
                                            'data_offsets': [len(data), len(data) + len(part)]}
            data += part
        config = {'layers': [layer], 'input': {'kind': 'none', 'n_features': 2}, **config}
        header['__metadata__'] = {'format': 'vkmoe-model/1', 'config': json.dumps(config)}
        return helper.write_model(self.folder / name, header, data)

    def test_regress(self):
        model = self.write_model(task='regress', head='identity')
        data = self.folder / 'd.csv'
        data.write_text('"size <&>",b,target\n' + ''.join(
            f'{x},1,{10 * x}\n' for x in [-4, 4, -3, 3, -2, 2, -1, 1]))
        path = self.folder / 'p.html'
        args = [model, data, '-o', path, '--row', '2']
        answer = json.loads(explain(*args, '--json').stdout)
        self.assertEqual([(g['name'], g['n'], g['low'], g['high']) for g in answer['groups']],
                         [('-40 to -30', 2, -40, -30), ('-20 to -10', 2, -20, -10),
                          ('10 to 20', 2, 10, 20), ('30 to 40', 2, 30, 40)])
        self.assertEqual(answer['experts'][0]['target_quantiles'], [-40, -32.5, -25, -17.5, -10])
        self.assertAlmostEqual(answer['information']['first'], 1, places=8)
        self.assertEqual(answer['experts'][1]['features'][0]['name'], 'size <&>')
        row = answer['rows'][0]
        self.assertEqual((row['targets'], row['decided_by']), ([40], 1))
        gate = 1 / (1 + math.exp(-4))
        self.assertAlmostEqual(row['answers'][0], 5 * gate, places=5)
        self.assertAlmostEqual(row['experts'][0]['adds'], 5 * gate, places=5)
        self.assertNotIn('adds_to_margin', row['experts'][0])
        text = explain(*args).stdout
        self.assertIn('quarter of the target', text)
        self.assertIn('size <&> +', text)
        page = self.read_page(path)
        self.assertIn('size <&>', page.texts)
        self.check_table(page.tables[1], answer)

    def test_few(self):
        """One class, one expert, one row; an expert without rows."""
        path = self.folder / 'p.html'
        data = self.folder / 'd.csv'
        data.write_text('1,2,a\n')
        model = self.write_model(n_experts=1, task='classify', classes=['a'], head='softmax')
        answer = json.loads(explain(model, data, '--json', '--row', '1', '-o', path).stdout)
        self.assertEqual(answer['information'], dict.fromkeys(answer['information'], 0))
        self.assertIsNone(answer['rows'][0]['margin'])
        self.assertIsNone(answer['rows'][0]['runner_up'])
        self.read_page(path)
        self.assertIn('the model says a (100.0%); expert 0',
                      explain(model, data, '--row', '1').stdout)
        # A single output for two classes, of which it is below 0: "a".
        model = self.write_model(n_experts=3, task='classify', classes=['a', '<b> & c'],
                                 head='sigmoid')
        data.write_text('-1,-1,a\n')
        answer = json.loads(explain(model, data, '--json', '--row', '1', '-o', path).stdout)
        row = answer['rows'][0]
        self.assertEqual((row['answer'], row['runner_up']), ('a', '<b> & c'))
        self.assertAlmostEqual(row['margin'], row['experts'][0]['adds_to_margin'], places=6)
        self.assertAlmostEqual(row['margin'], -row['experts'][0]['adds'], places=6)
        self.assertIsNone(answer['experts'][2]['gate_mean'])
        self.assertIn('No row selected it.', self.read_page(path).texts)
        self.assertNotIn('-nan', explain(model, data, '--row', '1').stdout)
        # The same where the output is a probability already: it is below one half.
        model = self.write_model(n_experts=3, task='classify', classes=['a', 'b'], head='identity')
        data.write_text('0.2,0.1,a\n')
        row = json.loads(explain(model, data, '--json', '--row', '1').stdout)['rows'][0]
        self.assertEqual((row['answer'], row['runner_up']), ('a', 'b'))
        self.assertAlmostEqual(row['margin'], 0.5 - row['outputs'][0], places=6)
        self.assertAlmostEqual(row['score'], 1 - row['outputs'][0], places=6)

    def test_nan_rows(self):
        """They are counted, and all else is as without them."""
        nan = float('nan')
        model = self.write_model(task='classify', classes=['a', 'b'], n_outputs=2, head='softmax')
        helper.write_npy(self.folder / 'y.npy', array.array('i', [0, 1, 1]), (3,))
        x = helper.write_npy(self.folder / 'x.npy', array.array('f', [1, 0, nan, nan, -1, 0]),
                             (3, 2))
        path = self.folder / 'p.html'
        args = [model, x, '--row', '2', '-o', path]
        answer = json.loads(explain(*args, '--json').stdout)
        self.assertEqual((answer['n'], answer['undecided']), (2, 1))
        self.assertEqual([e['slots'] for e in answer['experts']], [1, 1])
        self.assertEqual([c['row'] for c in answer['experts'][0]['certain']], [3])
        self.assertAlmostEqual(answer['experts'][0]['features'][0]['std'], 1, places=6)
        self.assertIsNone(answer['rows'][0]['answer'])
        text = explain(*args).stdout
        self.assertIn('rows         2, and 1 with gate weights of NaN\n', text)
        self.assertIn('the model says nothing: its outputs are NaN', text)
        self.assertIn('1 without a decision (NaN)', self.read_page(path).texts)
        helper.write_npy(self.folder / 'x.npy', array.array('f', [nan] * 6), (3, 2))
        self.check_fails(1, 'no row to explain: 3 rows, all with gate weights of NaN', 'explain',
                         *args)

    # ---- layers of networks ------------------------------------------------------------------

    def write_net(self, tensors, **config):
        header, data = {}, b''
        header['__metadata__'] = {'format': 'vkmoe-model/1', 'config': json.dumps(config)}
        for name, (shape, values) in tensors.items():
            part = struct.pack(f'<{len(values)}f', *values)
            header[name] = {'dtype': 'F32', 'shape': shape,
                            'data_offsets': [len(data), len(data) + len(part)]}
            data += part
        return helper.write_model(self.folder / 'n.safetensors', header, data)

    MOE = {'kind': 'moe', 'n_experts': 2, 'top_k': 1, 'd_out': 2,
           'router': {'score': 'softmax', 'order': 'score_then_topk'},
           'expert': {'kind': 'linear', 'activation': 'none'}}

    def test_tokens(self):
        """Each word is a row for the experts, with the label and the number of its text."""
        pieces = ['no', 'yes']
        model = self.write_net(
            {'input.table': ([3, 2], [0, 0, 5, 0, 0, 5]),
             'layers.0.router.weight': ([2, 2], [1, 0, 0, 1]),
             'layers.0.experts.weight': ([2, 2, 2], [1, 0, 0, 1] * 2)},
            task='classify', classes=['a', 'b'], head='softmax',
            input={'kind': 'embed', 'd_out': 2, 'ngrams': {'word': [1]}, 'vocabulary': pieces},
            layers=[self.MOE, {'kind': 'pool', 'pool': 'mean'}])
        data = self.folder / 'd.tsv'
        data.write_text('a\tno no\nb\tyes no yes\na\tno\n')
        path = self.folder / 'p.html'
        answer = json.loads(explain(model, data, '--json', '-o', path).stdout)
        self.assertTrue(answer['tokens'])
        self.assertEqual(answer['n'], 6)
        self.assertEqual([e['group_slots'] for e in answer['experts']], [[3, 1], [0, 2]])
        self.assertEqual([c['row'] for c in answer['experts'][0]['certain']], [1, 1, 2, 3])
        self.assertEqual([c['row'] for c in answer['experts'][1]['certain']], [2, 2])
        self.assertEqual(answer['experts'][0]['features'], [])
        self.read_page(path)
        text = explain(model, data).stdout
        self.assertIn('0: each token goes to 1 of 2 experts', text)
        self.assertNotIn('strongest features', text)
        self.check_fails(1, 'layer 0 serves the tokens of a row', 'explain', model, data, '--row',
                         '1')

    def write_stack(self, tensors, behind=(), **layer):
        """Experts give x and -x; the first is for a large first feature."""
        return self.write_net(
            {'layers.0.experts.weight': ([2, 2, 2], [1, 0, 0, 1, -1, 0, 0, -1]), **tensors},
            task='classify', classes=['a', 'b'], head='softmax',
            input={'kind': 'none', 'n_features': 2},
            layers=[{**self.MOE, 'd_in': 2, **layer}, *behind])

    def test_networks(self):
        data = self.folder / 'd.csv'
        data.write_text('3,1,a\n-2,1,b\n')
        linear = {'layers.0.router.weight': ([2, 2], [1, 0, -1, 0])}
        path = self.folder / 'p.html'
        args = [data, '--json', '--row', '1', '-o', path]
        answer = json.loads(explain(self.write_stack(linear), *args).stdout)
        self.assertEqual([e['group_slots'] for e in answer['experts']], [[1, 0], [0, 1]])
        gate = 1 / (1 + math.exp(-6))
        self.assertAlmostEqual(answer['rows'][0]['experts'][0]['adds'], 3 * gate, places=5)
        self.assertAlmostEqual(answer['rows'][0]['margin'], 2 * gate, places=5)
        self.assertAlmostEqual(answer['experts'][0]['features'][0]['effect'], 2.5, places=5)
        # With a residual, and with a layer behind, the experts' parts do not make up the output.
        for model in [self.write_stack(linear, residual=True),
                      self.write_stack(linear, [{'kind': 'dropout', 'rate': 0.5}])]:
            answer = json.loads(explain(model, *args).stdout)
            self.assertNotIn('adds', answer['rows'][0]['experts'][0])
            self.assertEqual(answer['rows'][0]['decided_by'], 0)
            self.assertIn('of the last layer only', ' '.join(self.read_page(path).texts))
            self.assertIn('of the last layer only', explain(model, data, '--row', '1').stdout)
        # Scores that are not linear have no features.
        router = {**self.MOE['router'], 'scorer': 'kernel'}
        answer = json.loads(explain(self.write_stack(linear, router=router), *args).stdout)
        self.assertEqual([e['features'] for e in answer['experts']], [[], []])
        self.assertAlmostEqual(answer['rows'][0]['experts'][0]['adds'], 3 * gate, places=5)
        self.read_page(path)

    def test_no_gates(self):
        """Layers whose experts all serve every row have nothing to tell."""
        data = self.folder / 'd.csv'
        data.write_text('3,1,a\n')
        layer = {**self.MOE, 'combine': 'mean'}
        del layer['router'], layer['top_k']
        tensors = {'layers.0.experts.weight': ([2, 2, 2], [1] * 8)}
        config = {'task': 'classify', 'classes': ['a', 'b'], 'head': 'softmax',
                  'input': {'kind': 'none', 'n_features': 2}}
        model = self.write_net(tensors, layers=[layer], **config)
        self.check_fails(1, "none of the model's 1 layers has experts with gate weights", 'explain',
                         model, data)
        self.check_fails(1, 'layer 0 has no gate weights', 'explain', model, data, '--layer', '0')
        model = self.write_net({'layers.0.weight': ([2, 2], [1] * 4)},
                               layers=[{'kind': 'linear', 'd_out': 2, 'bias': False}], **config)
        self.check_fails(1, "none of the model's 1 layers", 'explain', model, data)
        self.check_fails(1, 'layer 0 has no experts', 'explain', model, data, '--layer', '0')

    # ---- bad input ---------------------------------------------------------------------------

    def test_bad(self):
        empty = self.folder / 'e.csv'
        empty.write_text('')
        self.check_fails(1, 'no rows of data', 'explain', MODEL, empty)
        helper.write_npy(self.folder / 'Y.npy', array.array('i'), (0,))
        empty = helper.write_npy(self.folder / 'X.npy', array.array('f'), (0, 64))
        self.check_fails(1, 'has no rows', 'explain', MODEL, empty)
        self.check_fails(1, 'layer 1 of a model with 1', 'explain', MODEL, DIGITS, '--layer', '1')
        self.check_fails(1, '--row 360: the data set has 359 rows', 'explain', MODEL, DIGITS,
                         '--row', '1,360')
        self.check_fails(1, 'No such file', 'explain', self.folder / 'none', DIGITS)
        page = self.folder / 'absent' / 'p.html'
        self.check_fails(1, 'p.html', 'explain', MODEL, DIGITS, '-o', page)
        # After a failure there is no page, and an old one is what it was.
        page = self.folder / 'p.html'
        page.write_text('old')
        self.check_fails(1, '--row 360', 'explain', MODEL, DIGITS, '--row', '360', '-o', page)
        self.assertEqual(page.read_text(), 'old')
        self.check_files('e.csv', 'X.npy', 'Y.npy', 'p.html')

    def test_usage(self):
        for rows in ['', '0', '1,', ',1', '1,,2', 'x', '-1', '1 ', '99999999999999999999999']:
            self.check_fails(2, f'--row {rows}: row numbers from 1', 'explain', MODEL, DIGITS,
                             '--row', rows)
        self.check_fails(2, 'at most 1000 rows', 'explain', MODEL, DIGITS, '--row',
                         '1' + ',1' * 1000)
        self.check_fails(2, 'too few arguments', 'explain', MODEL)
        data = self.folder / 'd.csv'
        data.write_bytes(DIGITS.read_bytes())
        self.check_fails(2, 'is read, so it is not', 'explain', MODEL, data, '-o', data)
        self.check_fails(2, '--layer x', 'explain', MODEL, DIGITS, '--layer', 'x')
        done = run('explain', '--help')
        self.assertEqual(done.returncode, 0)
        for option in ['--output', '--json', '--layer', '--row', '--certain', '--target']:
            self.assertIn(option, done.stdout)

    def test_no_device(self):
        self.check_fails(5, 'no such device', 'explain', MODEL, DIGITS, '-d', 'no such device')


if __name__ == '__main__':
    unittest.main()
