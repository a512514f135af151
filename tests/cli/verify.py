# SPDX-License-Identifier: MIT
"""vkmoe verify on the command line: exit codes, output, bad input.

Usage: verify.py PROGRAM [WRONG_ERF [WRONG_GRADIENT]], libraries built from wrong_*.c."""
import json
import os
import pty
import re
import signal
import subprocess
import sys
import unittest

import helper

PROGRAM = helper.PROGRAM
WRONG_ERF = sys.argv.pop(1) if len(sys.argv) > 1 else None
WRONG_GRADIENT = sys.argv.pop(1) if len(sys.argv) > 1 else None
CASE = '^E7K3D33F20O5/f16/.*/n33/padded/nan-row$'


def run(*args, env=None):
    return subprocess.run([PROGRAM, 'verify', *args], capture_output=True, text=True, timeout=120,
                          env=env)


class Verify(unittest.TestCase):
    def test_help(self):
        done = run('--help')
        self.assertEqual(done.returncode, 0)
        for option in ['--filter', '--precision exact|half|int8', '--all', '--seed', '--list',
                       '--json', '--device', '--floor',
                       '--addressing', '--validation']:
            self.assertIn(option, done.stdout)

    def test_usage(self):
        for args, text in [(['--nonsense'], 'nonsense'),
                           (['file'], 'file'),
                           (['--seed', 'x'], '--seed'),
                           (['--addressing', 'x'], '--addressing'),
                           (['--precision', 'f16'], '--precision f16: exact|half|int8'),
                           (['--precision', 'half', '--filter', 'f32/.*packed$'],
                            'matches no case of --precision half'),
                           (['--filter', '['], 'not a regular expression'),
                           (['--filter', 'no such case'], 'matches no case')]:
            done = run(*args)
            self.assertEqual((done.returncode, done.stdout), (2, ''), args)
            self.assertIn(text, done.stderr)

    def test_no_device(self):
        done = run('-d', 'no such device')
        self.assertEqual((done.returncode, done.stdout), (5, ''))
        self.assertIn('no such device', done.stderr)

    def test_list(self):
        names = run('--list').stdout.split()
        self.assertGreater(len(names), 94)
        self.assertEqual(len(names), len(set(names)))
        every = run('--list', '--all', '--filter', '^E1K1.*/plain/n1/packed$').stdout.split()
        self.assertEqual(len(every), 5 * 6 * 9 * 3)

    def test_precision(self):
        """half, int8 and exact part the cases; names tell which is which, and the type of x."""
        names = run('--list').stdout.split()
        parts = [run('--list', '--precision', word).stdout.split()
                 for word in ['exact', 'half', 'int8']]
        self.assertEqual(sorted(names), sorted(sum(parts, [])))
        self.assertGreater(len(parts[0]), 94)
        self.assertFalse([name for name in parts[0] if '/half' in name or '/int8' in name])
        self.assertFalse([name for name in parts[1] if '/half' not in name])
        self.assertFalse([name for name in parts[2] if '/int8' not in name])
        done = run('-d', 'cpu', '--precision', 'half', '--filter', '^E(2|7)K.*/x-b?f16')
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout.splitlines()[-1], '^[4-9] passed, 0 failed, 0 skipped')

    def test_text(self):
        done = run('-d', 'cpu', '--filter', CASE)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(done.stdout.splitlines()[-1], '1 passed, 0 failed, 0 skipped')
        self.assertIn('device:', done.stderr)
        self.assertNotIn('\r', done.stderr)  # no progress but on a terminal

    def test_json(self):
        done = run('-d', 'reference', '--json', '--filter', '^E2K1')
        self.assertEqual(done.returncode, 0)
        answer = json.loads(done.stdout)
        self.assertEqual(set(answer), {'device', 'seed', 'passed', 'failed', 'skipped', 'cases'})
        self.assertGreater(answer['passed'], 5)
        self.assertEqual((answer['failed'], answer['skipped']), (0, 0))
        self.assertEqual(len(answer['cases']), answer['passed'])
        for case in answer['cases']:
            self.assertEqual(set(case), {'name', 'status', 'reason'})
            self.assertEqual(case['status'], 'passed')

    def test_wrong_device(self):
        """A device that computes erf too large by a tenth of a percent is found out."""
        if not WRONG_ERF:
            self.skipTest('a sanitizer does not let other libraries in first')
        done = run('-d', 'cpu', '--filter', '^E.*/gelu_erf/.*n7/packed$',
                   env={**os.environ, 'LD_PRELOAD': WRONG_ERF})
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertRegex(done.stdout, r'(?m)^failed E.*: y: relative L2 0\.000.* > 1e-05; row ')
        self.assertRegex(done.stdout.splitlines()[-1], '^0 passed, [1-9][0-9]* failed, 0 skipped')

    def test_gradients(self):
        """Behind the runs of a layer come its gradients, of each special case that has some."""
        names = run('--list', '--filter', '^E.*/gradients$').stdout.split()
        self.assertGreater(len(names), 60)
        for part in ['/one-expert/', '/few-experts/', '/nan-row/', '/x-f16/', '/padded/']:
            self.assertTrue([name for name in names if part in name], part)
        self.assertFalse([name for name in names if '/half' in name])
        done = run('-d', 'cpu', '--filter', '^E(1|2|6|7)K.*/gradients$')
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout.splitlines()[-1], '^[2-9][0-9] passed, 0 failed, 0 skipped')

    def test_nets(self):
        names = run('--list', '--filter', '^net/').stdout.split()
        self.assertGreaterEqual(len(names), 12)
        done = run('-d', 'cpu', '--filter', '^net/', '--json')
        self.assertEqual(done.returncode, 0, done.stdout)
        answer = json.loads(done.stdout)
        self.assertEqual([case['name'] for case in answer['cases']], names)
        self.assertEqual((answer['passed'], answer['skipped']), (len(names), 0))

    def test_wrong_derivative(self):
        """A network whose y is right and whose gradients are not."""
        if not WRONG_GRADIENT:
            self.skipTest('nothing comes before a sanitizer, or in a static library')
        done = run('-d', 'cpu', '--filter', '^net/(additive|noisy)',
                   env={**os.environ, 'LD_PRELOAD': WRONG_GRADIENT})
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertRegex(done.stdout, r'(?m)^failed net/additive: gradient of layers\.0\.weight: ')
        self.assertRegex(done.stdout, r'(?m)^failed net/noisy-top-2: gradient of ')
        self.assertEqual(done.stdout.splitlines()[-1], '0 passed, 2 failed, 0 skipped')

    def test_product_ends(self):
        done = run('-d', 'cpu', '--all', '--filter', '^E1K1.*/f16/softmax/.*/plain/n1/packed$')
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(done.stdout.splitlines()[-1], '27 passed, 0 failed, 0 skipped')

    def test_other_numbers(self):
        done = run('-d', 'cpu', '--seed', '18446744073709551615', '--filter', '^E7.*n(8|33)/')
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_json_on_terminal(self):
        """The progress line is cleared before every case, and clears none."""
        terminal, other_end = pty.openpty()
        with subprocess.Popen([PROGRAM, 'verify', '-d', 'cpu', '--json', '--filter', 'E1K1'],
                              stdout=other_end, stderr=other_end) as process:
            os.close(other_end)
            text = helper.read_terminal(terminal)
        os.close(terminal)
        self.assertEqual(process.returncode, 0)
        self.assertIn(b'verify 1/', text)
        kept = re.sub(rb'(?<=\n)(\r\x1b\[K(verify \d+/\d+)?)+', b'', text)
        self.assertNotIn(b'\x1b', kept)
        self.assertGreater(json.loads(kept[kept.index(b'{'):])['passed'], 5)

    def test_interrupt(self):
        """What is done is kept, and the JSON is whole."""
        process = subprocess.Popen([PROGRAM, 'verify', '-d', 'cpu', '--all', '--json'],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        head = [process.stdout.readline() for _ in range(6)]  # some cases are done
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        self.assertEqual(process.wait(60), 130)
        process.stdout.close()
        answer = json.loads(''.join(head) + rest)
        self.assertEqual(len(answer['cases']), answer['passed'])
        self.assertGreater(answer['passed'], 0)


unittest.main()
