# SPDX-License-Identifier: MIT
"""The program itself and vkmoe info. Usage: info.py PROGRAM"""
import json
import re
import subprocess
import unittest

import helper
from helper import run

FIELDS = {'index': int, 'type': str, 'name': str, 'uuid': str, 'pci': str, 'vendor_id': int,
          'device_id': int, 'driver': str, 'driver_version': str, 'api': str, 'memory_bytes': int,
          'tier': str, 'features': list}


class Info(helper.Case):
    def test_program(self):
        done = run('--help')
        self.assertEqual(done.returncode, 0)
        for command in ['info', 'run', 'eval', 'verify']:
            self.assertRegex(done.stdout, rf'\n  {command} ')
            help_text = run(command, '--help')
            self.assertEqual((help_text.returncode, help_text.stderr), (0, ''))
            self.assertTrue(help_text.stdout.startswith(f'Usage: vkmoe {command} '))
            self.assertEqual(run(command, '-h').stdout, help_text.stdout)
        self.assertRegex(run('--version').stdout, r'^vkmoe \d+\.\d+\.\d+\n$')

    def test_usage(self):
        self.check_fails(2, 'Usage:')
        self.check_fails(2, "unknown command 'no-such'", 'no-such')
        self.check_fails(2, 'unknown option --no-such', 'info', '--no-such')
        self.check_fails(2, 'unknown option -z', 'info', '-z')
        self.check_fails(2, "unexpected argument 'x'", 'info', 'x')
        self.check_fails(2, '--json takes no value', 'info', '--json=1')

    def test_json(self):
        done = run('info', '--json')
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        devices = json.loads(done.stdout)['devices']
        for i, device in enumerate(devices):
            self.assertEqual({k: type(v) for k, v in device.items()}, FIELDS)
            self.assertEqual(device['index'], i)
            self.assertIn(device['type'], ['discrete', 'integrated', 'software', 'cpu'])
            if device['type'] != 'cpu':
                f16 = {'buffer_device_address', 'shader_float16'}
                self.assertEqual(device['tier'],
                                 'T1 fp16' if f16 <= set(device['features']) else 'T0 floor')
        self.assertEqual(devices[-1]['type'], 'cpu')
        self.assertGreater(devices[-1]['memory_bytes'], 0)

    def test_text(self):
        done = run('info')
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        devices = json.loads(run('info', '--json').stdout)['devices']
        for device in devices:
            self.assertIn(f"{device['index']:3}  {device['name']} ({device['type']})", done.stdout)
            gib = device['memory_bytes'] / 2 ** 30
            self.assertRegex(done.stdout, rf'memory +{re.escape(format(gib, ".1f"))} GiB')

    def test_full_disk(self):
        with open('/dev/full', 'w', encoding='utf-8') as full:
            for args in [['info'], ['info', '--json'], ['--help']]:
                done = subprocess.run([helper.PROGRAM, *args], stdout=full, stderr=subprocess.PIPE,
                                      text=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn('could not be written', done.stderr)


if __name__ == '__main__':
    unittest.main()
