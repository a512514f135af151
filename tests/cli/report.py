# SPDX-License-Identifier: MIT
"""vkmoe report: its page and its block to post against the numbers in the files, names that are
markup, several files, and every bad input. Usage: report.py PROGRAM"""
import json
import math
import statistics
import unittest

import bench_sample
import helper
from helper import run
from page import Page

THIN = '\u202f'
TIMED = ('ok', 'unverified')


def digits(value):
    """Three significant digits, in groups: how the page writes a rate of 100 or more."""
    return f'{int(float(f"{value:.3g}")):,}'.replace(',', THIN)


def timed(file):
    return [row for row in file['rows'] if row['status'] in TIMED]


def best(file, device, n_tokens):
    return max((r for r in timed(file) if r['device'] == device and r['status'] == 'ok'
                and r['key']['n_tokens'] == n_tokens), key=lambda r: r['tokens_per_s'])


class Report(helper.Case):
    def write(self, file, name='a.json'):
        path = self.folder / name
        path.write_text(json.dumps(file), encoding='utf-8')
        return path

    def read(self, *paths):
        out = self.folder / 'r.html'
        done = run('report', *paths, '-o', out)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, '', ''))
        text = out.read_text(encoding='utf-8')
        for part in ['http:', 'https:', '@import', 'url(', 'src=']:
            self.assertNotIn(part, text)
        self.assertIn('prefers-color-scheme: dark', text)
        self.assertIn('width=device-width', text)
        page = Page(text)
        self.assertEqual((page.scripts, page.tags['script'], page.tags['h1']), (1, 1, 1))
        for _, attributes, _ in page.elements:
            for name in ('x', 'y', 'x1', 'x2', 'y1', 'y2', 'style'):
                self.assertNotIn('nan', attributes.get(name, ''))
                self.assertNotIn('inf', attributes.get(name, ''))
        return page

    def table(self, page, name):
        """Texts and data-v of the rows of a table, and its titles."""
        names = [a.get('id') for tag, a, _ in page.elements if tag == 'table']
        at = names.index(name)
        return page.tables[at][1:], page.values[at][1:], page.tables[at][0]

    # ---- numbers -----------------------------------------------------------------------------

    def check_rows(self, page, files):
        """Each row of the files is one of the table, in order, with its numbers in full."""
        texts, values, titles = self.table(page, 'rows')
        rows = [row for file in files for row in file['rows']]
        self.assertEqual(len(texts), len(rows))
        for row, text, value in zip(rows, texts, values, strict=True):
            cell, key = dict(zip(titles, text, strict=True)), row['key']
            number = dict(zip(titles, value, strict=True))
            self.assertEqual([cell[name] for name in ('Model', 'Type', 'Mode', 'Precision')],
                             [key['model'], key['type'], key['mode'], key['precision']])
            self.assertEqual(number['Tokens'], str(key['n_tokens']))
            self.assertTrue(cell['Status'].startswith(row['status']))
            self.assertIn(row['reason'], cell['Status'])
            want = {'Time': row['device_times']['median_us'], 'Tokens/s': row['tokens_per_s'],
                    'Wall': row['wall_times']['median_us'], 'Of floor': row['floor_fraction'],
                    'Read': row['bytes_per_s'], 'Computed': row['flops_per_s'],
                    'Error': row['verify']['error'], 'W': row['power_w']}
            for name, number_wanted in want.items():
                if number_wanted is None:
                    self.assertEqual((cell[name], number[name]), ('\u2013', None), row['case'])
                else:
                    self.assertAlmostEqual(float(number[name]) / number_wanted, 1, delta=1e-7)

    def test_page(self):
        file = bench_sample.sample()
        page = self.read(self.write(file))
        self.check_rows(page, [file])
        joined = ' '.join(page.texts)
        for device in (0, 1):
            for n_tokens in (1, 512):
                self.assertIn(digits(best(file, device, n_tokens)['tokens_per_s']), page.texts)
            median = statistics.median(r['floor_fraction'] for r in timed(file)
                                       if r['device'] == device)
            self.assertIn(f'{100 * median:.0f}{THIN}%', page.texts)
        self.assertIn('36 were timed and verified', page.texts)
        for part in ['18 verified', '1 unsupported', '1 skipped', '1 not verified', '1 failed',
                     'weights of type q4_0: not computed yet', 'How it was measured', 'hwmon',
                     'of them dropped', '1 of 37 timed rows is not steady']:
            self.assertIn(part, joined)
        sections = [a['id'] for tag, a, _ in page.elements if tag == 'section']
        self.assertEqual(sections, ['roofline', 'tokens', 'beside', 'all', 'inside', 'method'])
        targets = {a['href'][1:] for tag, a, _ in page.elements if tag == 'a'}
        self.assertLessEqual(targets, set(sections))

    def test_numbers_follow_the_file(self):
        """A control of the test above: another number in the file is another one in the page."""
        file = bench_sample.sample()
        page = self.read(self.write(file))
        bench_sample.set_samples(file['rows'][0], [3.0] * 9)
        with self.assertRaises(AssertionError):
            self.check_rows(page, [file])
        self.check_rows(self.read(self.write(file)), [file])

    def test_ratio(self):
        """Side by side: both rates of a case, and how many times as fast."""
        file = bench_sample.sample()
        texts, _, _ = self.table(self.read(self.write(file)), 'beside')
        first, second = ({r['case']: r for r in timed(file) if r['device'] == d} for d in (0, 1))
        shared = [case for case in first if case in second]
        self.assertEqual([line[0] for line in texts], shared)
        for case, (_, a, b) in zip(shared, texts):
            ratio = second[case]['device_times']['median_us'] / \
                first[case]['device_times']['median_us']
            self.assertEqual(a, digits(first[case]['tokens_per_s']))
            self.assertIn('1/' + f'{ratio:.3g}'.ljust(3, '0')[:3], b)
        logs = [math.log(second[c]['device_times']['median_us']
                         / first[c]['device_times']['median_us']) for c in shared]
        mean = math.exp(statistics.mean(logs))
        self.assertIn(f'{mean:.1f}\u00d7 as fast', (self.folder / 'r.html').read_text())

    # ---- charts ------------------------------------------------------------------------------

    @staticmethod
    def marks(page, section):
        return [(float(a['x'][:-1]), float(a['y'][:-1])) for tag, a, where in page.elements
                if tag == 'use' and where == section and 'x' in a]

    def check_line(self, values, places):
        """Places are a + b log(value), for one a and b."""
        low, high = min(values), max(values)
        a, b = places[values.index(low)], places[values.index(high)]
        for value, place in zip(values, places, strict=True):
            part = math.log(value / low) / math.log(high / low)
            self.assertAlmostEqual(place, a + (b - a) * part, delta=0.02)
        return b - a

    def test_roofline(self):
        file = bench_sample.sample()
        page = self.read(self.write(file))
        marks, rows = self.marks(page, 'roofline'), timed(file)
        wide = self.check_line([r['flops'] / r['bytes'] for r in rows], [x for x, _ in marks])
        high = self.check_line([r['flops_per_s'] for r in rows], [y for _, y in marks])
        self.assertGreater(wide, 50)
        self.assertLess(high, -40)
        with self.assertRaises(AssertionError):  # the checker sees a mark in a wrong place
            self.check_line([r['flops_per_s'] for r in rows], [x for x, _ in marks])
        roofs = [a for tag, a, _ in page.elements if 'roof' in a.get('class', '')]
        self.assertEqual(len(roofs), 4)

    def test_tokens(self):
        file = bench_sample.sample()
        page = self.read(self.write(file))
        self.assertEqual(len(self.marks(page, 'tokens')), 2 * len(timed(file)))
        self.assertEqual(sum(tag == 'figure' and where == 'tokens'
                             for tag, _, where in page.elements), 4)
        # Between the 2 x 10 + 2 x 8 marks of two devices' panels there are lines of time and rate,
        # and as many of the floor.
        n_lines = len(timed(file)) - 8
        for kind in ('line', 'floor'):
            found = sum(a.get('class', '').split()[:1] == [kind] for tag, a, _ in page.elements)
            self.assertEqual(found, 2 * n_lines)

    def test_inside(self):
        page = self.read(self.write(bench_sample.sample()))
        texts, _, _ = self.table(page, 'counters')
        self.assertEqual([line[1] for line in texts], ['1.25\u00d7'] * 3)
        self.assertEqual([line[3] for line in texts], [f'80{THIN}%'] * 3)
        texts, _, _ = self.table(page, 'routing')
        self.assertIn('8 of 32', [line[3] for line in texts])
        self.assertEqual(page.texts.count('experts out'), 3)

    # ---- names -------------------------------------------------------------------------------

    def test_escaping(self):
        """What stands in a file is text, whatever it looks like."""
        evil = '<script>alert(1)</script>'
        file = bench_sample.sample()
        file['devices'][0].update(name=evil, driver='"><img src=x onerror=alert(2)>',
                                  driver_version="'&amp;")
        file.update(suite='</style><b>', environment='</title>' + evil, cpu=evil, build=evil)
        for row in file['rows'][:20]:
            row['key']['model'] = '</td>' + evil
            row['key']['routing'] = '" onload="x'
            row['kernel'] = '<!--'
        file['rows'][0]['dispatches'][0]['label'] = evil
        file['rows'][7]['reason'] = '</table>' + evil
        out = self.folder / 'r.html'
        self.assertEqual(run('report', self.write(file), '-o', out).returncode, 0)
        page = Page(out.read_text())
        self.assertEqual((page.scripts, page.tags['script'], page.tags['img']), (1, 1, 0))
        self.check_rows(page, [file])
        self.assertIn(evil, page.texts)
        self.assertIn('"><img src=x onerror=alert(2)>', ' '.join(page.texts))
        with self.assertRaises(AssertionError):  # the reader sees what is not closed
            Page('<p><b>text</p>')

    # ---- several files -----------------------------------------------------------------------

    def test_merge(self):
        a, b = bench_sample.sample(1), bench_sample.sample(2)
        b['devices'][0]['name'] = 'Other GPU'
        b.update(suite='quick', complete=False, version='0.2.0')
        page = self.read(self.write(a), self.write(b, 'b.json'))
        self.check_rows(page, [a, b])
        joined = ' '.join(page.texts)
        for part in ['Example CPU (a.json)', 'Example CPU (b.json)', 'Other GPU', 'quick',
                     'different suites', 'different versions', 'Not every file is complete',
                     'Of 80 measurements']:
            self.assertIn(part, joined)
        self.assertNotIn('Example GPU 16 GB (', joined)
        self.assertNotIn('different suites', ' '.join(self.read(self.write(a)).texts))
        _, _, titles = self.table(self.read(self.write(a), self.write(b, 'b.json')), 'beside')
        self.assertEqual(len(titles), 5)

    def test_same_name_of_files(self):
        """Two files with one name: the devices are numbered as well."""
        (self.folder / 'x').mkdir()
        a = self.write(bench_sample.sample())
        page = self.read(a, self.write(bench_sample.sample(), 'x/a.json'))
        names = set(self.table(page, 'beside')[2][1:])
        self.assertEqual(names, {f'{name} (file {i}: a.json)' for i in (1, 2)
                                 for name in ('Example GPU 16 GB', 'Example CPU')})

    def test_many_devices(self):
        files = []
        for i in range(6):
            file = bench_sample.sample(i)
            file['devices'][0]['name'] = f'GPU {i}'
            files.append(self.write(file, f'{i}.json'))
        page = self.read(*files)
        self.assertIn('12 devices', ' '.join(page.texts))
        self.assertEqual(len(self.table(page, 'rows')[0]), 240)

    def test_nothing_timed(self):
        """Rows without a number are rows; there is nothing to draw."""
        file = bench_sample.sample()
        file['rows'] = [{**bench_sample.blank(r['device'], r['key']), 'status': 'unsupported',
                         'reason': 'no shader of it'} for r in file['rows'][:3]]
        file['devices'][0].update(read_rate=None, dispatch_us=None,
                                  peak=dict.fromkeys(bench_sample.ARITHMETICS))
        page = self.read(self.write(file))
        self.check_rows(page, [file])
        self.assertIn('no forward pass was timed', page.texts)
        self.assertEqual(self.marks(page, 'roofline'), [])

    def test_strange_numbers(self):
        """Numbers that cannot be true are drawn at the edge, or not at all."""
        for i, number in enumerate((5e-324, 1e-300, 1e300, 1.7e308, None)):
            file = bench_sample.sample()
            for row, member in zip(file['rows'], ('flops', 'bytes', 'flops_per_s', 'tokens_per_s',
                                                  'floor_us', 'floor_fraction')):
                row[member] = number
            file['devices'][i % 2].update(read_rate=number, peak={
                **file['devices'][0]['peak'], 'f16-matrix': number, 'f32': number})
            self.read(self.write(file))

    # ---- the block to post -------------------------------------------------------------------

    def test_issue(self):
        file = bench_sample.sample()
        done = run('report', '--issue', self.write(file))
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        lines = done.stdout.split('\n')
        self.assertIn('<details>', done.stdout)
        for device in (0, 1):
            for n_tokens in (1, 512):
                row = best(file, device, n_tokens)
                line = next(x for x in lines if f"`{row['case']}`" in x
                            and f"`{file['devices'][device]['name']}`" in x)
                self.assertIn(f"| {digits(row['tokens_per_s'])} |", line)
                self.assertIn(f"{100 * row['floor_fraction']:.0f}{THIN}%", line)
        self.assertIn('radv 26.1.2', done.stdout)
        self.assertIn('| 18 of 20 |', done.stdout)
        self.check_files('a.json')

    def test_issue_is_short_and_harmless(self):
        names = []
        for i in range(12):
            file = bench_sample.sample(i)
            file['devices'][0]['name'] = f'GPU | {i} `@someone` #12\nhttp://example.org <b>'
            file['suite'] = '@all'
            names.append(self.write(file, f'{i}.json'))
        text = run('report', '--issue', *names).stdout
        self.assertLessEqual(text.count('\n'), 60)
        bare = [part for line in text.split('\n') for part in line.split('`')[::2]]
        for part in bare:
            for sign in '@#':
                self.assertNotIn(sign, part)
            self.assertNotIn('http', part)
            self.assertNotIn('<b>', part)
        table = [line.replace('\\|', '') for line in text.split('\n') if line.startswith('|')]
        self.assertEqual({line.count('|') for line in table}, {7, 8})

    # ---- bad input ---------------------------------------------------------------------------

    def check_refused(self, code, part, *args):
        before = sorted(self.folder.iterdir())
        self.check_fails(code, part, 'report', *args)
        self.assertEqual(sorted(self.folder.iterdir()), before)

    def test_bad_files(self):
        out = self.folder / 'r.html'
        good = self.write(bench_sample.sample())
        empty = self.write({**bench_sample.sample(), 'rows': []}, 'empty.json')
        other = self.write({'schema': 'other/1'}, 'other.json')
        broken = self.folder / 'broken.json'
        broken.write_text('{"schema": "vkmoe-bench/1",')
        for option in (['-o', out], ['--issue']):
            self.check_refused(1, 'empty.json', empty, *option)
            self.check_refused(1, 'empty.json', good, empty, *option)
            self.check_refused(1, 'other.json', other, *option)
            self.check_refused(1, 'broken.json', good, broken, *option)
            self.check_refused(1, 'none.json', self.folder / 'none.json', *option)
        self.check_refused(1, 'nowhere', good, '-o', self.folder / 'nowhere' / 'r.html')

    def test_usage(self):
        good = self.write(bench_sample.sample())
        self.check_refused(2, '-o FILE.html or --issue', good)
        self.check_refused(2, 'argument', '-o', self.folder / 'r.html')
        content = good.read_bytes()
        self.check_refused(2, 'a.json', good, '-o', good)
        self.assertEqual(good.read_bytes(), content)


if __name__ == '__main__':
    unittest.main()
