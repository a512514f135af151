# SPDX-License-Identifier: MIT
"""--variant of run, verify and bench, on a Vulkan device and where there are none.

Usage: variant.py PROGRAM"""
import json
import unittest

import helper
from helper import MODEL, run

# Of precision exact and half, on weights of f32 and f16; networks beside them.
SOME = '^(E2K.*/(f16|f32)/|net/one-unit)'
EXACT = '^E7K3D33F20O5/f16/.*/padded/nan-row$'


class Variant(helper.Case):
    def verify(self, *args):
        done = run('verify', '-d', 'vulkan', '--json', *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {case['name']: case for case in json.loads(done.stdout)['cases']}

    def test_help(self):
        for command in ['run', 'verify', 'bench']:
            self.assertIn('--variant NAME', run(command, '--help').stdout, command)

    def test_none(self):
        """Where it is no variant, or of no device, or none for what is to be computed."""
        y = self.folder / 'y.npy'
        rows = ['run', MODEL, '--random', '4', '-o', y]
        for part, *args in [
                ("'a9': there are only: a4, a4b ", *rows, '-d', 'vulkan', '--variant', 'a9'),
                ('precision exact does not allow it', *rows, '-d', 'vulkan', '--variant', 'a1'),
                ('"a0": the CPU has no', *rows, '-d', 'cpu', '--variant', 'a0'),
                ('"a0": the reference has no', *rows, '-d', 'reference', '--variant', 'a0'),
                ("'a9': there are only: a4 (coopmat2), ", 'verify', '-d', 'vulkan', '--variant',
                 'a9'),
                ("'net-a3': is of networks, which are not computed by it here; there are only: a4 ",
                 'verify', '-d', 'vulkan', '--variant', 'net-a3'),
                ("'a0': only Vulkan devices", 'verify', '-d', 'cpu', '--variant', 'a0'),
                ("'a0': only Vulkan devices", 'verify', '-d', 'reference', '--variant', 'a0')]:
            self.check_fails(1, part, *args)
        self.check_files()

    def test_lacks(self):
        """The floor has no f16: whoever names a1 is told so, and nothing is computed otherwise."""
        y = self.folder / 'y.npy'
        for name in ['a1', 'fp16']:
            why = f"variant '{name}' on .*: .* is not there or not enabled"
            for args in [['verify'], ['run', MODEL, '--random', '4', '-o', y, '--precision', 'half',
                                      '--type', 'f16']]:
                done = run(*args, '-d', 'vulkan', '--floor', '--variant', name)
                self.assertEqual((done.returncode, done.stdout), (1, ''), done.stderr)
                self.assertRegex(done.stderr, why)
        self.check_files()

    def test_run(self):
        files = [self.folder / 'default.npy', self.folder / 'forced.npy']
        for file, *forced in [[files[0]], [files[1], '--variant', 'a0']]:
            done = run('run', MODEL, '--random', '9', '-o', file, '-d', 'vulkan', *forced)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(files[0].read_bytes(), files[1].read_bytes())

    def test_verify(self):
        """What a variant computes passes by it, the rest is skipped with the reason."""
        every = self.verify('--filter', SOME)
        a0 = self.verify('--filter', SOME, '--variant', 'a0')
        a1 = self.verify('--filter', SOME, '--variant', 'fp16')
        self.assertEqual((set(every), set(every)), (set(a0), set(a1)))
        nets = {name for name in every if name.startswith('net/')}
        self.assertTrue(nets)
        for name in nets:
            self.assertEqual((every[name]['status'], a0[name]['status'], a1[name]['status']),
                             ('passed', 'skipped', 'skipped'), name)
            self.assertIn('is for kernels of layers', a0[name]['reason'], name)
        for name in set(every) - nets:
            self.assertEqual(a0[name]['status'], 'passed', name)
            want = 'it has no kernel for weights of f32' if '/f32/' in name else ''
            want = want if '/half' in name else 'precision exact does not allow it'
            self.assertEqual(a1[name]['status'], 'skipped' if want else 'passed', name)
            self.assertIn(want, a1[name]['reason'], name)
        self.assertEqual({case['status'] for case in a1.values()}, {'passed', 'skipped'})

    def test_matrices(self):
        """All of precision half is a3's, where there are cooperative matrices."""
        devices = json.loads(run('info', '-v', '--json').stdout)['devices']
        state, = [k['state'] for k in devices[0]['kernels'] if k['kernel'] == 'a3']
        if state not in ['used', 'untested', 'not faster']:
            self.skipTest(f'a3 is {state}')
        cases = self.verify('--filter', '^E2K', '--precision', 'half', '--variant', 'a3',
                            '--no-skip')
        self.assertEqual({case['status'] for case in cases.values()}, {'passed'})

    def test_skipped(self):
        """They are counted, not listed; to verify nothing fails, and with --no-skip any does."""
        args = ['verify', '-d', 'vulkan', '--variant', 'a1', '--filter']
        done = run(*args, '^E7K.*/f16/.*/half')
        self.assertEqual(done.returncode, 0, done.stderr)
        done = run(*args, EXACT)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn('nothing was verified: variant a1 computes none of the cases', done.stderr)
        self.assertNotIn('skipped E7', done.stdout)
        self.assertIn('Skipped is what variant a1 does not compute', done.stdout)
        self.assertRegex(done.stdout.splitlines()[-1], '^0 passed, 0 failed, 1 skipped')
        done = run(*args, EXACT, '--no-skip')
        self.assertEqual(done.returncode, 3, done.stderr)


unittest.main()
