# SPDX-License-Identifier: MIT
"""The format of results: what is written is what docs/vkmoe-bench-1.schema.json and the page beside
it say, and both the schema and the program refuse anything else.
Usage: bench_schema.py PROGRAM BENCH_SAMPLE"""
import copy
import csv
import io
import json
import pathlib
import re
import subprocess
import sys
import unittest

try:
    import jsonschema
except ImportError:
    print('no python3-jsonschema: tools/test.sh installs it')
    sys.exit(77)

import helper
from helper import run

SAMPLE_PROGRAM = sys.argv.pop(1)
import bench_sample  # noqa: E402  (an argument less)

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
SCHEMA = json.loads((DOCS / 'vkmoe-bench-1.schema.json').read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def sample_text(form):
    return subprocess.run([SAMPLE_PROGRAM, form], capture_output=True, text=True, check=True).stdout


def resolve(node):
    if '$ref' not in node:
        return node
    return SCHEMA['$defs'][node['$ref'].rsplit('/', 1)[1]]


def members(value, path=()):
    """The path of every member, those of objects in arrays for the first of each array."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield path + (name,)
            yield from members(member, path + (name,))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        yield from members(value[0], path + (0,))


def at(value, path):
    for step in path:
        value = value[step]
    return value


def schema_at(path):
    node = SCHEMA
    for step in path:
        node = resolve(node['items'] if step == 0 else node['properties'][step])
    return node


class Schema(helper.Case):
    def setUp(self):
        super().setUp()
        self.data = json.loads(sample_text('json'))

    def read(self, data):
        """Whether the program accepts it, and what it says."""
        path = self.folder / 'x.json'
        path.write_text(json.dumps(data))
        done = run('compare', path, path)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        return done.returncode == 0, done.stderr

    def test_schema_is_one(self):
        jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def test_samples(self):
        VALIDATOR.validate(self.data)
        VALIDATOR.validate(bench_sample.sample())
        self.assertTrue(self.read(self.data)[0])
        self.assertTrue(self.read(bench_sample.sample())[0])

    def test_complete(self):
        """The schema has exactly the members that are written, in their order, all required."""
        objects = [()] + [p for p in members(self.data) if isinstance(at(self.data, p), dict)]
        objects += [p + (0,) for p in members(self.data)
                    if isinstance(at(self.data, p), list) and isinstance(at(self.data, p)[0], dict)]
        self.assertGreater(len(objects), 8)
        for path in objects:
            node = schema_at(path)
            self.assertEqual(list(node['properties']), list(at(self.data, path)), path)
            self.assertEqual(node['required'], list(node['properties']), path)

    def test_page(self):
        """The page has a line for each member, and for no other."""
        page = (DOCS / 'vkmoe-bench-1.md').read_text()
        told = re.findall(r'^\| `([\w-]+)` \| (?:text|word|integer|number|bool|array|object)', page,
                          re.M)
        peaks = set(self.data['devices'][0]['peak'])
        written = [p for p in members(self.data) if p[-1] not in peaks]
        groups = {p[:-1] for p in written if 'wall_times' not in p[:-1]}
        self.assertEqual(sorted(told), sorted(p[-1] for p in written if p[:-1] in groups))
        for peak in peaks:
            self.assertIn(f'`{peak}`', page)

    def test_missing(self):
        for path in list(members(self.data)):
            data = copy.deepcopy(self.data)
            del at(data, path[:-1])[path[-1]]
            self.assertFalse(VALIDATOR.is_valid(data), path)
            accepted, text = self.read(data)
            self.assertEqual(accepted, path[-1] == 'case', path)
            if not accepted and path != ('schema',):
                self.assertIn(f'{path[-1]}: is missing', text)

    def test_wrong_type(self):
        """An object within an array is nothing that any member may be."""
        for path in list(members(self.data)):
            data = copy.deepcopy(self.data)
            at(data, path[:-1])[path[-1]] = [[{}]]
            self.assertFalse(VALIDATOR.is_valid(data), path)
            accepted, text = self.read(data)
            self.assertEqual(accepted, path[-1] == 'case', path)
            if not accepted and path != ('schema',):
                self.assertIn(f'{path[-1]}', text)

    def test_bad_values(self):
        changes = [
            (('rows', 0, 'status'), 'fine'), (('rows', 0, 'verify', 'state'), 'fail'),
            (('rows', 0, 'bound'), 'time'), (('devices', 0, 'type'), 'gpu'),
            (('rows', 0, 'bytes'), -1), (('rows', 0, 'expert_rows'), [-1]),
            (('rows', 0, 'key', 'seed'), '12'), (('devices', 0, 'peak', 'f32'), 0),
            (('n_cores'), 1 << 32), (('rows', 0, 'device_times', 'samples_us'), ['1']),
        ]
        for path, value in changes:
            data = copy.deepcopy(self.data)
            path = (path,) if isinstance(path, str) else path
            at(data, path[:-1])[path[-1]] = value
            self.assertFalse(VALIDATOR.is_valid(data), path)

    def test_rows_without_numbers(self):
        data = bench_sample.sample()
        data['rows'][7]['reason'] = ''
        self.assertFalse(VALIDATOR.is_valid(data))
        data = bench_sample.sample()
        data['rows'][7]['status'] = 'unverified'
        self.assertFalse(VALIDATOR.is_valid(data))
        self.assertIn('rows[7]: status unverified, but no times', self.read(data)[1])

    def test_later_members(self):
        data = self.data
        for path in [p for p in members(data) if isinstance(at(data, p), dict)] + [()]:
            at(data, path)['of a later version'] = [{'x': None}]
        VALIDATOR.validate(data)
        self.assertTrue(self.read(data)[0])


class Bench(helper.Case):
    """What vkmoe bench writes itself."""

    def bench(self, *args):
        path = self.folder / 'bench.json'
        done = run('bench', '--shape', '4,2,32,16', '-n', '2', '--min-time', '0.02', '--format',
                   'json', '-o', path, *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        data = json.loads(path.read_text())
        VALIDATOR.validate(data)
        self.assertEqual(run('report', path, '-o', self.folder / 'page.html').returncode, 0)
        return path, data

    def test_every_kind(self):
        path, data = self.bench('-d', 'cpu', '--threads', 1, '--count', '--dispatches', '--mode',
                                'forward,train', '--precision', 'exact,int8', '--seed', 1 << 60)
        rows = {(r['key']['mode'], r['key']['precision']): r for r in data['rows']}
        self.assertEqual({k: r['status'] for k, r in rows.items()},
                         {('forward', 'exact'): 'ok', ('forward', 'int8'): 'unsupported',
                          ('train', 'exact'): 'ok'})
        for row in rows.values():
            self.assertEqual(row['key']['seed'], str(1 << 60))
            self.assertEqual(len(row['dispatches']) > 0, row['status'] == 'ok')
        self.assertTrue(rows['forward', 'exact']['counted'])
        # On a loaded machine rows have no time that can be trusted, and say so.
        n = sum(row['n_dropped_blocks'] < row['n_blocks'] for row in rows.values())
        done = run('compare', path, path)
        self.assertEqual(done.returncode == 0, n > 0, done.stderr)
        if n > 0:
            self.assertIn(f'\n{n} compared: 0 slower, 0 faster, {n} the same;', done.stdout)
        self.assertEqual('A is not to be trusted: every block lost a core' in
                         done.stdout + done.stderr, n < 2)

    def test_reference(self):
        _, data = self.bench('-d', 'reference', '--no-verify')
        row = data['rows'][0]
        self.assertEqual((row['status'], row['verify']['state']), ('unverified', 'none'))


class Formats(unittest.TestCase):
    def setUp(self):
        self.data = json.loads(sample_text('json'))

    def test_csv(self):
        """Every column is a member; its cells are what the JSON has."""
        lines = list(csv.DictReader(io.StringIO(sample_text('csv'))))
        self.assertEqual(len(lines), len(self.data['rows']))
        for line, row in zip(lines, self.data['rows']):
            for column, cell in line.items():
                path = column.split('.')
                value = row
                if path[0] == 'file' or (path[0] == 'device' and len(path) > 1):
                    place = path.pop(0)
                    value = self.data if place == 'file' else self.data['devices'][row['device']]
                if path[-1] == 'n_samples':
                    want = str(len(at(value, path[:-1])['samples_us']))
                else:
                    want = at(value, path)
                if isinstance(want, bool):
                    want = 'true' if want else 'false'
                self.assertEqual(cell, str(want), column)
        self.assertEqual(sorted(lines[0]), sorted(self.columns()))

    def columns(self):
        """The name that the column of each member has."""
        for path in members(self.data):
            value = at(self.data, path)
            if isinstance(value, dict) or (isinstance(value, list) and path[-1] != 'samples_us'):
                continue
            if 'dispatches' in path[:-1]:
                continue
            name = 'n_samples' if path[-1] == 'samples_us' else path[-1]
            parts = ('device',) + path[2:-1] if path[0] == 'devices' else path[2:-1]
            yield '.'.join((('file',) if len(path) == 1 else parts) + (name,))

    def test_markdown(self):
        """Cells cannot break a table, whatever the names are."""
        text = sample_text('md')
        tables = re.findall(r'(?:^\|.*\n)+', text, re.M)
        self.assertEqual(len(tables), len(self.data['devices']))
        for table in tables:
            widths = {len(re.findall(r'(?<!\\)\|', line)) for line in table.splitlines()}
            self.assertEqual(widths, {12})
        row = self.data['rows'][0]
        self.assertIn('| 99.25 µs (99.03–99.47) |', tables[0])
        self.assertIn(f"{row['useful_fraction'] * 100:.1f} %", tables[0])
        self.assertTrue(text.splitlines()[-1].startswith('vkmoe ' + self.data['version'][:2]))


if __name__ == '__main__':
    unittest.main()
