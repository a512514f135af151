# SPDX-License-Identifier: MIT
"""vkmoe compare: ratios, verdicts, limits, what is not compared. Usage: compare.py PROGRAM"""
import copy
import json
import random
import unittest

import bench_sample
import helper
from helper import run


class Compare(helper.Case):
    def setUp(self):
        super().setUp()
        self.a = bench_sample.sample()
        self.b = copy.deepcopy(self.a)

    def write(self, name, data):
        path = self.folder / name
        path.write_text(json.dumps(data))
        return path

    def compare(self, *args, code=0):
        paths = [self.write('a.json', self.a), self.write('b.json', self.b)]
        done = run('compare', *paths, *args)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def compare_json(self, *args, code=0):
        return json.loads(self.compare('--json', *args, code=code).stdout)

    def scale(self, row, factor):
        bench_sample.set_samples(row, [factor * s for s in row['device_times']['samples_us']])

    def done_rows(self, answer):
        return [r for r in answer['rows'] if r['fate'] == 'compared']

    def test_identical(self):
        answer = self.compare_json('--fail-above', '0%')
        rows = self.done_rows(answer)
        self.assertEqual(len(rows), 36)
        for row in rows:
            self.assertEqual((row['ratio'], row['verdict'], row['failed']), (1, 'same', False))
            self.assertTrue(0.97 < row['low'] < 1 < row['high'] < 1.03, row)
        self.assertEqual((answer['n_compared'], answer['n_slower'], answer['n_faster']), (36, 0, 0))
        self.assertEqual((answer['mean_ratio'], answer['differences']), (1, []))
        text = self.compare().stdout
        self.assertIn('36 compared: 0 slower, 0 faster, 36 the same', text)
        self.assertNotIn('differs', text)
        self.assertEqual(text, self.compare().stdout)  # the draws have a fixed seed

    def test_exact_ratios(self):
        factors = {0: 1.25, 1: 0.8, 5: 1.06, 21: 3.0}
        for i, factor in factors.items():
            self.scale(self.b['rows'][i], factor)
        answer = self.compare_json()
        for i, row in enumerate(answer['rows']):
            if row['fate'] != 'compared':
                continue
            factor = factors.get(i, 1.0)
            self.assertAlmostEqual(row['ratio'], factor, places=7)
            self.assertTrue(row['low'] <= factor <= row['high'], row)
            self.assertEqual(row['verdict'], 'same' if factor == 1 else
                             'slower' if factor > 1 else 'faster')
        self.assertEqual((answer['n_slower'], answer['n_faster']), (3, 1))
        self.assertAlmostEqual(answer['mean_ratio'], (1.25 * 0.8 * 1.06 * 3) ** (1 / 36), places=7)

    def test_order_of_samples(self):
        """Which sample came first says nothing."""
        for row in self.b['rows']:
            samples = row['device_times']['samples_us'][:]
            if samples:
                random.Random(2).shuffle(samples)
                bench_sample.set_samples(row, samples)
        before = self.compare_json()
        self.b = copy.deepcopy(self.a)
        self.assertEqual(before, self.compare_json())

    def test_interval(self):
        """About 95 of 100 intervals of two equal measurements hold 1; of a real change, none."""
        rng = random.Random(3)
        row, n_rows = self.a['rows'][0], 200
        for data, factor in [(self.a, 1), (self.b, 1)]:
            data['rows'] = []
            for i in range(n_rows):
                again = copy.deepcopy(row)
                again['key']['n_tokens'] = i + 1
                again['device'] = 0
                data['rows'].append(bench_sample.set_samples(
                    again, [factor * 1000 * rng.lognormvariate(0, 0.02) for _ in range(40)]))
        n_held = sum(r['low'] <= 1 <= r['high'] for r in self.compare_json()['rows'])
        self.assertTrue(0.9 * n_rows <= n_held < n_rows, n_held)
        for r in self.b['rows']:
            self.scale(r, 1.1)
        answer = self.compare_json('--fail-above', '5', code=4)
        self.assertEqual((answer['n_slower'], answer['n_failed']), (n_rows, n_rows))
        self.assertFalse(any(r['low'] <= 1 for r in answer['rows']))

    def test_noise(self):
        """A shift within the scatter is no verdict, however many samples there are."""
        rng = random.Random(4)
        for data, factor in [(self.a, 1), (self.b, 1.03)]:
            bench_sample.set_samples(data['rows'][0], [
                factor * 1000 * rng.uniform(0.8, 1.2) for _ in range(4000)])
        row = self.compare_json('--fail-above', '1%', code=4)['rows'][0]
        self.assertGreater(row['low'], 1)
        self.assertGreater(row['noise'], row['ratio'] - 1)
        self.assertEqual(row['verdict'], 'same')

    def test_unsettled(self):
        """Where a measurement did not agree with itself within 5 %, 10 % is no verdict."""
        self.scale(self.b['rows'][0], 1.07)
        for plateau, verdict, noise in [(True, 'slower', 0.0501), (False, 'same', 0.1001)]:
            self.b['rows'][0]['plateau'] = plateau
            row = self.compare_json()['rows'][0]
            self.assertEqual(row['verdict'], verdict)
            self.assertLess(row['noise'], noise)

    def test_lost_cores(self):
        """A row of which every block lost a core says nothing about the kernel."""
        self.scale(self.b['rows'][0], 2)
        for dropped, fate in [(5, 'compared'), (6, 'not ok')]:
            self.b['rows'][0].update(n_blocks=6, n_dropped_blocks=dropped)
            done = self.compare('--fail-above', '5', code=4 if dropped < 6 else 0)
            self.assertEqual('not to be trusted' in done.stdout, dropped == 6, fate)

    def test_limit(self):
        self.scale(self.b['rows'][3], 1.05)
        for limit, code in [('4.99%', 4), ('5.01%', 0), ('4.99', 4), ('5.01', 0), ('0.5%', 4),
                            ('0', 4), ('100%', 0)]:
            done = self.compare('--fail-above', limit, code=code)
            self.assertEqual('1 of 40 cases are slower by more than' in done.stderr, code == 4)
            self.assertEqual(done.stdout.count('<== over the limit'), code == 4)
        self.assertEqual(self.compare().stderr, '')  # without a limit it is no failure
        rows = self.compare_json('--fail-above', '4.9', code=4)['rows']
        failed = [r for r in rows if r['failed']]
        self.assertEqual([r['case'] for r in failed], ['granite-1b-a400m/bf16/half/t512/uniform'])

    def test_doubt(self):
        """More than the limit, but the interval holds 1."""
        samples = [100.0, 101, 102, 100, 103, 101]
        bench_sample.set_samples(self.a['rows'][0], samples)
        bench_sample.set_samples(self.b['rows'][0], [80.0, 90, 109, 111, 130, 140])
        row = self.compare_json('--fail-above', '5')['rows'][0]
        self.assertTrue(row['ratio'] > 1.05 and row['low'] < 1, row)

    def test_floor(self):
        """A machine that was half as fast: times doubled, and so did the floors."""
        for row in self.b['rows']:
            if row['status'] == 'ok':
                row['floor_us'] *= 2
                self.scale(row, 2)
        self.scale(self.b['rows'][2], 1.2)
        answer = self.compare_json('--by', 'floor', '--fail-above', '5', code=4)
        self.assertEqual((answer['by'], answer['n_slower'], answer['n_failed']), ('floor', 1, 1))
        self.assertAlmostEqual(answer['rows'][2]['ratio'], 1.2, places=7)
        self.assertEqual(self.compare_json('--by', 'time')['n_slower'], 36)
        self.assertIn('over the floor', self.compare('--by', 'floor').stdout)
        self.b['rows'][4]['floor_us'] = None
        row = self.compare_json('--by', 'floor')['rows'][4]
        self.assertEqual((row['fate'], row['reason']), ('not compared', 'B no floor'))

    def test_not_ok(self):
        text = self.compare().stdout
        self.assertIn('A skipped: needs 3.1 GiB of device memory, 1.9 GiB are free; B s', text)
        self.b['rows'][0].update(status='error', reason='relative error 0.2')
        row = self.compare_json()['rows'][0]
        self.assertEqual((row['fate'], row['reason']),
                         ('not compared', 'B error: relative error 0.2'))
        # A case that is no longer right is a regression; one that never was is not.
        done = self.compare('--fail-above', '5', code=4)
        self.assertEqual(done.stdout.count('<== no longer right'), 1)
        self.b['rows'][0].update(status='unsupported')
        self.compare('--fail-above', '5')

    def test_nothing_ok(self):
        for row in self.a['rows']:
            row.update(status='error', reason='lost')
        self.compare_refused('none of 40 cases can be compared: A error: lost')

    def compare_refused(self, part, *args):
        paths = [self.write('a.json', self.a), self.write('b.json', self.b)]
        self.check_fails(1, part, 'compare', *paths, *args)

    def test_lonely_rows(self):
        self.b['rows'][0]['key']['n_tokens'] = 3
        del self.b['rows'][30]
        answer = self.compare_json()
        alone = [r for r in answer['rows'] if r['fate'] == 'no partner']
        self.assertEqual([(r['in_a'], r['in_b']) for r in alone],
                         [(True, False), (True, False), (False, True)])
        self.assertEqual([r['nearest']['differs'] for r in alone], ['n_tokens'] * 3)
        text = self.compare().stdout
        self.assertIn('only in B, Example GPU 16 GB: granite-1b-a400m/bf16/half/t3/uniform; '
                      'nearest in A: n_tokens 1, not 3', text)

    def test_no_common_key(self):
        for member, value, told in [
                ('n_tokens', 7, 'n_tokens is 1 in A, 7 in B'),
                ('routing', 'zipf:1.2', 'routing is "uniform" in A, "zipf:1.2" in B'),
                ('seed', 2, 'seed is 1 in A, 2 in B'),
                ('precision', 'exact', 'precision is "half" in A, "exact" in B'),
                ('n_threads', 3, 'n_threads is 8 in A, 3 in B')]:
            self.a, self.b = bench_sample.sample(), bench_sample.sample()
            self.one_device(self.a, 1)  # threads are not compared with a GPU's
            self.one_device(self.b, 1)
            for row in self.b['rows']:
                row['key'][member] = value
            self.compare_refused(f'no case is in both files: {told}')

    def one_device(self, data, place):
        data['devices'] = [copy.deepcopy(data['devices'][place])]
        data['rows'] = [dict(r, device=0) for r in data['rows'] if r['device'] == place]

    def test_across(self):
        """One device each: they are compared, whatever their names are."""
        self.one_device(self.a, 0)
        self.one_device(self.b, 1)
        text = self.compare().stdout
        self.assertIn('A: Example GPU 16 GB\nB: Example CPU\nOne device in each file', text)
        answer = self.compare_json()
        self.assertEqual(answer['devices'][0]['b'], 'Example CPU')
        self.assertGreater(answer['n_compared'], 10)
        row = answer['rows'][0]
        self.assertAlmostEqual(row['ratio'], self.b['rows'][0]['device_times']['median_us'] /
                               self.a['rows'][0]['device_times']['median_us'], places=4)

    def test_devices_by_name(self):
        """The order of the devices does not matter; one that is in one file only is alone."""
        self.b['devices'].reverse()
        for row in self.b['rows']:
            row['device'] = 1 - row['device']
        self.assertEqual(self.compare_json()['n_compared'], 36)
        self.b['devices'][0]['name'] = 'Other CPU'
        answer = self.compare_json()
        self.assertEqual(answer['n_compared'], 18)
        alone = [r for r in answer['rows'] if r['fate'] == 'no partner']
        self.assertEqual({r['device'] for r in alone}, {'Example CPU', 'Other CPU'})
        self.assertTrue(all(r['nearest'] is None for r in alone))
        self.b['devices'][1]['name'] = 'Other GPU'
        self.compare_refused("no device is in both files: A has 2, 'Example GPU 16 GB' first")

    def test_twins(self):
        """Two devices of one name, by their order; and a case that is there twice."""
        for data in (self.a, self.b):
            data['devices'][1]['name'] = data['devices'][0]['name']
        self.scale(self.b['rows'][25], 2)
        self.b['rows'].append(copy.deepcopy(self.b['rows'][25]))
        answer = self.compare_json()
        self.assertEqual((answer['n_compared'], answer['n_slower']), (36, 1))
        self.assertEqual(answer['rows'][25]['verdict'], 'slower')
        self.assertEqual([r['in_b'] for r in answer['rows'] if r['fate'] == 'no partner'], [True])

    def test_differences(self):
        self.b.update(build='clang 16', complete=False, time_utc='later')
        self.b['devices'][0]['driver_version'] = '27.0'
        self.b['rows'][0].update(kernel='m2', plateau=False)
        text = self.compare().stdout
        for part in ['differs: build: "gcc 12.2.0 -O2", now "clang 16"',
                     'differs: complete: true, now false',
                     'differs: driver_version: "26.1.2", now "27.0"',
                     'same, kernel m1, now m2, B did not settle']:
            self.assertIn(part, text)
        self.assertEqual(text.count('differs'), 3)
        answer = self.compare_json()
        self.assertEqual(answer['devices'][0]['differences'],
                         [{'member': 'driver_version', 'a': '26.1.2', 'b': '27.0'}])

    def test_clocks(self):
        """Where one file has no device times, wall times are compared with wall times."""
        row = self.b['rows'][0]
        row['device_times'] = bench_sample.times([])
        got = self.compare_json()['rows'][0]
        self.assertEqual((got['ratio'], got['verdict']), (1, 'same'))
        self.a['rows'][0]['wall_times'] = bench_sample.times([])
        got = self.compare_json()['rows'][0]
        self.assertEqual(got['reason'], 'A and B have no clock in common')
        bench_sample.set_samples(self.a['rows'][1], [5.0])
        self.assertEqual(self.compare_json()['rows'][1]['reason'], 'A one sample only')

    def test_unknown_samples(self):
        """A sample that is null is not counted: rows of the clock both have are none here."""
        self.b['rows'][0]['device_times'] = bench_sample.times([])
        unknown = bench_sample.times([])
        unknown['samples_us'] = [None] * 2
        self.a['rows'][0]['wall_times'] = unknown
        got = self.compare_json()['rows'][0]
        self.assertEqual(got['reason'], 'A and B have no clock in common')
        self.a, self.b = self.b, self.a
        got = self.compare_json()['rows'][0]
        self.assertEqual(got['reason'], 'A and B have no clock in common')
        bench_sample.set_samples(self.a['rows'][1], [5.0])
        self.a['rows'][1]['device_times']['samples_us'] += [None] * 9
        self.assertEqual(self.compare_json()['rows'][1]['reason'], 'A one sample only')

    def test_bad_files(self):
        good = self.write('good.json', self.a)
        self.b['rows'][2]['key']['n_tokens'] = 'many'
        bad = self.write('bad.json', self.b)
        self.check_fails(1, 'rows[2].key.n_tokens: a text, must be a whole number', 'compare', good,
                         bad)
        self.check_fails(1, f'{bad}:1: rows[2]', 'compare', bad, good)
        other = self.write('other.json', {'schema': 'other/3'})
        self.check_fails(1, "schema is 'other/3', this program reads 'vkmoe-bench/1'", 'compare',
                         good, other)
        self.check_fails(1, 'No such file', 'compare', good, self.folder / 'absent.json')
        self.check_fails(1, 'Is a directory', 'compare', self.folder, good)
        self.b = bench_sample.sample()
        self.a['rows'] = []
        self.compare_refused('A has no rows')
        self.a['devices'] = []
        self.compare_refused('A has no devices')

    def test_usage(self):
        good = self.write('good.json', self.a)
        self.check_fails(2, 'too few arguments', 'compare', good)
        self.check_fails(2, 'unexpected argument', 'compare', good, good, good)
        for text in ['x', '', '-5', '5%%', '5 %', 'nan', 'inf', '1e999', '%']:
            self.check_fails(2, f'--fail-above {text}: not a percentage', 'compare', good, good,
                             '--fail-above', text)
        self.check_fails(2, '--by clock: time|floor', 'compare', good, good, '--by', 'clock')


if __name__ == '__main__':
    unittest.main()
