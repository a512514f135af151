# SPDX-License-Identifier: MIT
"""tools/bench-peers.sh's program: what it makes of answers that are known.

The programs are replaced: `vkmoe` and `chroot` are scripts that note how they were called and give
the next of the answers prepared for them. Usage: bench_peers.py PROGRAM (which is not run)"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import unittest

import helper

TOOL = pathlib.Path(__file__).resolve().parents[2] / 'tools' / 'peers' / 'bench_peers.py'

# An answer is a text to print, seconds to sleep for, or both a text and whether that goes well.
STAND_IN = '''#!{python}
import json, pathlib, sys, time
folder = pathlib.Path({folder!r})
with open(folder / 'calls', 'a') as log:
    log.write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')
answers = folder / ({name!r} + '.answers')
first, *rest = json.loads(answers.read_text())
answers.write_text(json.dumps(rest))
if isinstance(first, float):
    time.sleep(first)
text, good = first if isinstance(first, list) else (first, True)
print(text)
sys.exit(0 if good else 'first words\\nthe reason')
'''

# Of granite with 16 tokens in f32, 32 experts hit: bytes as floats in f32, and operations.
BYTES = 32 * 3 * 1024 * 512 * 4 + 4 * 1024 * 32
OPERATIONS = 16 * (6 * 8 * 1024 * 512 + 2 * 1024 * 32)


def row(ms, read_rate=20e9, peak=200e9, **more):
    """A file of vkmoe-bench/1, of it what the tool reads."""
    device = {'type': more.pop('device', 'cpu'), 'peak': {'f32': 100e9}}
    return json.dumps({'devices': [device], 'rows': [{
        'device': 0, 'status': 'ok', 'reason': '', 'device_times': {'median_us': ms * 1e3},
        'n_experts_hit': 32, 'read_rate': read_rate, 'peak': peak, 'arithmetic': 'f32',
        'n_blocks': 4, 'n_dropped_blocks': 0, **more}]})


def line(ms, bandwidth=20, fma=200, clean=4):
    return json.dumps({'ms': ms, 'experts_hit': 32.0, 'clean_blocks': clean, 'probe_fma': fma,
                       'probe_bw': bandwidth, 'finite': 1})


class BenchPeers(helper.Case):
    def setUp(self):
        super().setUp()
        self.root = self.folder / 'root'
        (self.root / 'peers').mkdir(parents=True)
        (self.root / 'peers' / 'moepeer').touch()

    def stand_in(self, path, answers):
        path.write_text(STAND_IN.format(python=sys.executable, folder=str(self.folder),
                                        name=path.name))
        path.chmod(0o755)
        (self.folder / (path.name + '.answers')).write_text(json.dumps(answers))

    def command(self, ours, peers, *args):
        if '--threads' not in args:
            args = ('--threads', '2', *args)
        self.stand_in(self.folder / 'vkmoe', ours)
        if peers is not None:
            self.stand_in(self.folder / 'chroot', peers)
        return [sys.executable, TOOL, self.root, '--vkmoe', self.folder / 'vkmoe', '--tokens',
                '16', '--types', 'f32', *args]

    def start(self, command):
        path = f"{self.folder}:{os.environ['PATH']}"
        return subprocess.Popen([str(word) for word in command], text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env={**os.environ, 'PATH': path}, start_new_session=True)

    def compare(self, code, *args):
        """The table's cells without its head, stdout and stderr."""
        process = self.start(self.command(*args))
        out, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, code, errors)
        table = [x for x in out.split('\n') if x.startswith('|')][2:]
        return [[c.strip() for c in x.strip('|').split('|')] for x in table], out, errors

    def calls(self):
        return [json.loads(x) for x in (self.folder / 'calls').read_text().split('\n') if x]

    def test_ratios(self):
        # The machine is half as fast while the peer runs for the second time.
        result = self.folder / 'r.json'
        rows, out, _ = self.compare(0, [row(10), row(20), row(40)],
                                    [line(30), line(40, 10, 100), line(40)], '--json', result)
        floor = 1e3 * BYTES / 20e9
        self.assertGreater(floor, 1e3 * OPERATIONS / 200e9)
        self.assertEqual(rows, [['granite', 'f32', '16', '2', f'20.000 ms / {floor / .2:.0f} %',
                                 'ggml', f'40.000 ms / {floor / .3:.0f} %', '2.00 (1.00..3.00)',
                                 '1.00 (1.00..3.00)']])
        self.assertNotIn('do not count', out)
        self.assertEqual([call[0] for call in self.calls()], ['vkmoe', 'chroot'] * 3)
        answer = json.loads(result.read_text())
        self.assertEqual((answer['schema'], answer['complete']), ('vkmoe-peers/1', True))
        (cell,) = answer['cells']
        self.assertEqual((cell['shape'], cell['type'], cell['n_tokens']),
                         ('32,8,1024,512', 'f32', 16))
        self.assertEqual(cell['programs']['ggml']['time_ratio'],
                         {'median': 2, 'min': 1, 'max': 3, 'n': 3})
        self.assertEqual([r['runs']['vkmoe']['ms'] for r in cell['rounds']], [10, 20, 40])
        self.assertAlmostEqual(cell['rounds'][1]['runs']['ggml']['floor_percent'],
                               100 * 2 * floor / 40)

    def test_bound_by_arithmetic(self):
        """With few operations a second the floor is theirs; bf16 is held against twice f32's."""
        rows, *_ = self.compare(0, [row(10, peak=1e9)], [line(10, fma=2)], '--rounds', '1')
        percent = 100 * 1e3 * OPERATIONS / 1e9 / 10
        self.assertEqual(rows[0][4:], [f'10.000 ms / {percent:.0f} %', 'ggml',
                                       f'10.000 ms / {percent / 2:.0f} %', '1.00 (1.00..1.00)',
                                       '2.00 (2.00..2.00)'])
        rows, *_ = self.compare(0, [row(10, peak=9e9, arithmetic='bf16')], [line(10, fma=1)],
                                '--rounds', '1', '--types', 'bf16')
        ours = 100 * 1e3 * BYTES / 2 / 20e9 / 10
        self.assertEqual(rows[0][6], f'10.000 ms / {percent / 2:.0f} %')
        self.assertEqual(rows[0][4], f'10.000 ms / {ours:.0f} %')

    def test_lost_core(self):
        """A run without a clean block counts neither for its median nor for a ratio."""
        rows, out, _ = self.compare(
            0, [row(10), row(999, n_dropped_blocks=4), row(10)],
            [line(20), line(30), line(999, clean=0)])
        self.assertEqual(rows[0][4][:9], '10.000 ms')
        self.assertEqual(rows[0][6][:9], '25.000 ms')
        self.assertEqual(rows[0][7], '2.00 (2.00..2.00)')
        self.assertIn('2 of 6 runs do not count', out)
        noisy = json.dumps({'error': 'no clean block of 3'})
        rows, out, _ = self.compare(0, [row(10)], [noisy], '--rounds', '1')
        self.assertEqual(rows[0][6:], ['no clean block of 3', '-', '-'])

    def test_other_types(self):
        """A type that only the peer has; one that only some peers have."""
        (self.root / 'peers' / 'moedense-onednn').touch()
        rows, *_ = self.compare(0, [], [line(10)], '--types', 'iq4_nl', '--rounds', '1')
        self.assertEqual(rows[0][4], 'unsupported by us yet')
        self.assertEqual(rows[0][6][:9], '10.000 ms')
        self.assertEqual(rows[0][7:], ['-', '-'])
        self.assertEqual(rows[1][5:], ['onednn', 'not offered by it', '-', '-'])
        self.assertEqual([call[0] for call in self.calls()], ['chroot'])

    def test_commands(self):
        """What is started, for every peer; a shape of one's own is for ggml alone."""
        for name in ['moedense-onednn', 'moetorch.py']:
            (self.root / 'peers' / name).touch()
        self.compare(0, [row(1)] * 2, [line(1)] * 5, '--rounds', '1', '--threads', '1',
                     '--shapes', 'olmoe', '7,2,64,96')
        calls = self.calls()
        ours = [c[c.index('--shape') + 1] for c in calls if c[0] == 'vkmoe']
        self.assertEqual(ours, ['64,8,2048,1024', '7,2,64,96'])
        peers = [c for c in calls if c[0] == 'chroot']
        self.assertEqual({c[1] for c in peers}, {str(self.root)})
        started = [next(w for w in c if w.startswith('/peers/')) for c in peers]
        self.assertEqual(started, ['/peers/moepeer', '/peers/moedense-onednn',
                                   '/peers/moetorch.py', '/peers/moetorch.py', '/peers/moepeer'])
        self.assertEqual([c[c.index('--shape') + 1] for c in peers],
                         ['olmoe'] * 4 + ['64,96,7,2'])
        self.assertEqual([c[c.index('--mode') + 1] for c in peers[2:4]], ['loop', 'grouped'])
        for c in calls:
            self.assertEqual(c[c.index('--threads') + 1], '1')

    def test_threads_and_presets(self):
        """Each number of threads; a preset's name, and a shape with a shared expert."""
        rows, *_ = self.compare(0, [row(1)] * 2, [line(1)] * 2, '--rounds', '1', '--shapes',
                                'deepseek-v2-lite', '--threads', '1,2')
        self.assertEqual([r[:4] for r in rows], [['dsv2lite', 'f32', '16', '1'],
                                                 ['dsv2lite', 'f32', '16', '2']])
        ours, peer = self.calls()[2:]
        self.assertEqual(ours[ours.index('-m') + 1:][:2], ['deepseek-v2-lite', '--plain'])
        self.assertEqual(peer[peer.index('--shape') + 1], 'dsv2lite')
        for c in ours, peer:
            self.assertEqual(c[c.index('--threads') + 1], '2')

    def test_shared_expert_is_in_the_floor(self):
        rows, *_ = self.compare(0, [row(10)], [line(10)], '--rounds', '1', '--shapes', 'dsv2lite')
        read = 3 * 2048 * (32 * 1408 + 2816) * 4 + 4 * 2048 * 64
        self.assertEqual(rows[0][4], f'10.000 ms / {100 * 1e3 * read / 20e9 / 10:.0f} %')

    def test_quick(self):
        """Two short rounds; what is given counts more."""
        self.compare(0, [row(1)] * 2, [line(1)] * 2, '--quick', '--shapes', 'granite-1b-a400m')
        calls = self.calls()
        self.assertEqual(len(calls), 4)
        self.assertEqual({c[c.index('--min-time') + 1] for c in calls}, {'0.15'})
        self.compare(0, [row(1)], [line(1)], '--quick', '--rounds', '1', '--min-time', '2')
        self.assertEqual([c[c.index('--min-time') + 1] for c in self.calls()[4:]], ['2.0', '2.0'])

    def test_full(self):
        """Defaults of everything but what is given."""
        self.compare(0, [row(1)] * 10, [line(1)] * 10, '--full', '--rounds', '1', '--threads',
                     '1,2')
        calls = [c for c in self.calls() if c[0] == 'chroot']
        self.assertEqual([c[c.index('--shape') + 1] for c in calls[::2]],
                         ['granite', 'olmoe', 'qwen3', 'gptoss', 'dsv2lite'])

    def test_summary(self):
        """Medians over the shapes, with our own floor; a peer that was noisy has no say."""
        _, out, _ = self.compare(
            0, [row(10, floor_fraction=0.5), row(10, floor_fraction=0.75), row(10)],
            [line(20), line(30), line(99, clean=0)], '--rounds', '1', '--summary', '--shapes',
            'granite', 'olmoe', 'qwen3')
        self.assertIn('| 3      | 62 % (50 %..75 %) | 2.50 (2.00..3.00) |', out)

    def test_peers(self):
        """Only those that were asked for."""
        (self.root / 'peers' / 'moetorch.py').touch()
        rows, *_ = self.compare(0, [row(1)], [line(1)] * 2, '--rounds', '1', '--types', 'f32',
                                '--shapes', 'granite', '--peers', 'torch-grouped,ggml')
        self.assertEqual([r[5] for r in rows], ['ggml', 'torch-grouped'])
        _, out, errors = self.compare(1, [], [], '--peers', 'ggml,onednn')
        self.assertIn('--peers onednn: there are ggml, torch-loop, torch-grouped', errors)
        self.assertEqual(out, '')

    def test_vulkan(self):
        """The peer's probes are of the CPU: on a GPU the limits are those that we measured."""
        rows, *_ = self.compare(0, [row(10, 200e9, 3e12, device='discrete', n_blocks=0)],
                                [line(20, bandwidth=0, fma=0, clean=0)], '--rounds', '1',
                                '--backend', 'vulkan', '-d', 'vulkan')
        floor = 1e3 * BYTES / 200e9
        self.assertEqual(rows[0][4:], [f'10.000 ms / {floor / .1:.0f} %', 'ggml',
                                       f'20.000 ms / {floor / .2:.0f} %', '2.00 (2.00..2.00)',
                                       '2.00 (2.00..2.00)'])
        ours, peer = self.calls()
        self.assertEqual(ours[ours.index('-d') + 1], 'vulkan')
        self.assertEqual(peer[peer.index('--backend') + 1], 'vulkan')
        self.assertIn('--no-probe', peer)

    def test_folder(self):
        """A folder with moepeer in it is no chroot."""
        self.stand_in(self.root / 'moepeer', [line(20)])
        rows, *_ = self.compare(0, [row(10)], None, '--rounds', '1')
        self.assertEqual(rows[0][7], '2.00 (2.00..2.00)')

    def test_failures(self):
        """The reason in the table and on stderr, exit 1, and no ratio."""
        wrong = row(10, status='error', reason='y is off by 0.3')
        for ours, peer, column, reason in [
                (wrong, line(1), 3, 'error: y is off by 0.3'),
                (['', False], line(1), 3, 'exit 1: the reason'),
                ('{"rows": []}', line(1), 3, 'exit 0: no row of vkmoe-bench/1 in its output'),
                (row(10), ['', False], 5, 'exit 1: the reason'),
                (row(10), [line(1), False], 5, 'exit 1: the reason'),
                (row(10), 'no JSON', 5, 'exit 0: no line of JSON in its output'),
                (row(10), line(1).replace('"finite": 1', '"finite": 0'), 5,
                 'its outputs are not finite')]:
            rows, _, errors = self.compare(1, [ours], [peer], '--rounds', '1')
            self.assertEqual(rows[0][column + 1], reason)
            self.assertEqual(rows[0][7:], ['-', '-'])
            self.assertIn(reason, errors)
        refused = json.dumps({'error': 'op X unsupported'})
        rows, *_ = self.compare(0, [row(10)], [refused], '--rounds', '1')
        self.assertEqual(rows[0][6], 'op X unsupported')
        # One bad run of three is not hidden by the two others.
        rows, *_ = self.compare(1, [row(10), wrong, row(10)], [line(1)] * 3)
        self.assertEqual(rows[0][4], 'error: y is off by 0.3')

    def test_bad_arguments(self):
        for part, *args in [('9,2,64: a shape is E,K,D,F', '--shapes', '9,2,64'),
                            ('2,3,4,5: 3 of 2 experts', '--shapes', '2,3,4,5'),
                            ('q9: a type is f32, f16', '--types', 'f32,q9'),
                            ('0: a whole number from 1', '--tokens', '1,0'),
                            ('x: a whole number from 1', '--rounds', 'x')]:
            rows, out, errors = self.compare(2, [], [], *args)
            self.assertIn(part, errors)
            self.assertEqual(out, '')
        (self.root / 'peers' / 'moepeer').unlink()
        _, out, errors = self.compare(1, [], [])
        self.assertIn('no /peers there', errors)
        self.assertEqual(out, '')

    def test_result_that_cannot_be_written(self):
        _, out, errors = self.compare(1, [row(10)], [line(10)], '--rounds', '1', '--json',
                                      self.folder / 'none' / 'r.json')
        self.assertIn('r.json: No such file or directory', errors)
        self.assertIn('| granite | f32  |', out)

    def test_interrupt(self):
        """What is done is printed and written."""
        result = self.folder / 'r.json'
        process = self.start(self.command([row(10), 60.0], [line(20)], '--rounds', '1', '--tokens',
                                          '16,32', '--json', result))
        began = time.monotonic()
        while len((self.folder / 'calls').read_text().split('\n')
                  if (self.folder / 'calls').exists() else []) < 4:
            self.assertLess(time.monotonic() - began, 50)
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=50)
        self.assertEqual(process.returncode, 130)
        self.assertIn('2.00 (2.00..2.00)', out)
        answer = json.loads(result.read_text())
        self.assertEqual((answer['complete'], len(answer['cells'])), (False, 1))


if __name__ == '__main__':
    unittest.main()
