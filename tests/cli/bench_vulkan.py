# SPDX-License-Identifier: MIT
"""vkmoe bench on a Vulkan device. Usage: bench_vulkan.py PROGRAM"""
import json
import unittest

import helper


class OnVulkan(unittest.TestCase):
    def rows(self, *args):
        done = helper.run('bench', '-d', 'vulkan', '--shape', '8,2,32,48', '--min-time', '0.01',
                          '--format', 'json', *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)['rows']

    def test_forward(self):
        row, = self.rows('-n', '5', '--type', 'f16', '--variant', 'a0', '--count')
        self.assertEqual((row['status'], row['verify']['state'], row['kernel']),
                         ('ok', 'pass', 'a0'), row)
        self.assertGreater(row['counters']['workgroups'], 0)
        self.assertGreaterEqual(row['rereads'], 0.99)
        self.assertGreater(row['n_dispatches'], 1)
        self.assertEqual(row['key']['n_threads'], 0)

    def test_train(self):
        row, = self.rows('-n', '5', '--mode', 'train')
        self.assertEqual((row['status'], row['verify']['state']), ('ok', 'pass'), row)


unittest.main()
