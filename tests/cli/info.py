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
          'memory': str, 'tier': str, 'features': list}

TIERS = {'T0 floor': None, 'T1 fp16': 'shader_float16', 'T2 int8': 'integer_dot_product',
         'T3 matrix': 'cooperative_matrix', 'T4 vendor': 'flexible_matrix'}
STATES = ['used', 'not faster', 'bad', 'unavailable', 'disabled', 'untested']


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
            self.assertIn(device['memory'], [''] if device['type'] == 'cpu' else
                          ['unified', 'resizable BAR', 'discrete'])
            self.assertIn(device['type'], ['discrete', 'integrated', 'software', 'cpu'])
            if device['type'] != 'cpu':
                self.check_tier(device['tier'], set(device['features']))
        self.assertEqual(devices[-1]['type'], 'cpu')
        self.assertGreater(devices[-1]['memory_bytes'], 0)

    def check_tier(self, tier, features):
        """A tier above T0 has its features; one of f16 is above T0. Higher ones, which depend on
        the shader compiler that built us too, are held to features by tests of the choice."""
        self.assertIn(tier, TIERS)
        if tier == 'T0 floor':
            self.assertFalse({'buffer_device_address', 'shader_float16'} <= features)
        else:
            self.assertLessEqual({'buffer_device_address', TIERS[tier]}, features)

    def test_text(self):
        done = run('info')
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        devices = json.loads(run('info', '--json').stdout)['devices']
        for device in devices:
            self.assertIn(f"{device['index']:3}  {device['name']} ({device['type']})", done.stdout)
            gib = device['memory_bytes'] / 2 ** 30
            self.assertRegex(done.stdout, rf'memory +{re.escape(format(gib, ".1f"))} GiB')

    def test_upload(self):
        done = run('info', '-v', env={'VKMOE_CACHE_DIR': str(self.folder / 'cache')})
        for device in json.loads(run('info', '--json').stdout)['devices']:
            if device['memory']:
                way = 'by copies' if device['memory'] == 'discrete' else 'in place'
                self.assertIn(f"     upload    {way}: memory is {device['memory']}\n", done.stdout)

    def kernels(self, **env):
        """The devices with their kernels, each of them checked."""
        done = run('info', '-v', '--json', env={'VKMOE_CACHE_DIR': str(self.folder / 'cache'),
                                                **env})
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        devices = json.loads(done.stdout)['devices']
        for device in devices:
            self.assertEqual({k: type(v) for k, v in device.items()}, {**FIELDS, 'kernels': list})
            for kernel in device['kernels']:
                self.assertEqual(list(kernel), ['kernel', 'kind', 'computes', 'state', 'reason'])
                self.assertIn(kernel['state'], STATES)
                self.assertEqual(kernel['reason'] == '', kernel['state'] == 'used')
            self.assertEqual(device['kernels'][-1]['state'], 'used')
        return devices

    def test_kernels(self):
        devices = self.kernels()
        for device in devices:
            by_name = {kernel['kernel']: kernel for kernel in device['kernels']}
            if device['type'] == 'cpu':
                self.assertEqual(by_name[device['tier']]['state'], 'used')
                continue
            self.assertEqual(list(by_name)[-2:], ['net-a0n', 'a0'])
            self.assertEqual((by_name['a1']['kind'], by_name['a0']['kind']), ('fp16', 'fp32'))
            has_f16 = 'shader_float16' in device['features']
            self.assertEqual(by_name['a1']['state'], 'untested' if has_f16 else 'unavailable')
            self.assertIn('no plan has asked' if has_f16 else 'shaderFloat16 is not there',
                          by_name['a1']['reason'])
            self.assertEqual(by_name['a1']['computes'], 'precision half, weights f16, x f32 or f16')
        text = run('info', '-v', env={'VKMOE_CACHE_DIR': str(self.folder / 'cache')}).stdout
        for device in devices:
            for kernel in device['kernels']:
                why = {'used': 'used', 'untested': 'not tested yet: ' + kernel['reason']}.get(
                    kernel['state'], 'not used because ' + kernel['reason'])
                self.assertIn(f"{kernel['kernel']} ({kernel['kind']}): {why}", text)

    def test_tested_kernels(self):
        cache = {'VKMOE_CACHE_DIR': str(self.folder / 'cache')}
        for device in self.kernels():
            if device['type'] == 'cpu' or 'shader_float16' not in device['features']:
                continue
            done = run('tune', '-d', str(device['index']), '--json', env=cache)
            self.assertEqual(done.returncode, 0, done.stderr)
            for verdict in json.loads(done.stdout)['verdicts']:
                kernel, = [k for k in self.kernels()[device['index']]['kernels']
                           if k['kernel'] == verdict['kernel']]
                self.assertEqual(kernel['state'], verdict['state'])
                self.assertEqual(kernel['reason'], verdict['reason'])

    def test_disabled_kernels(self):
        for device in self.kernels(VKMOE_DISABLE='fp16'):
            for kernel in device['kernels']:
                if kernel['kernel'] == 'a1' and 'shader_float16' in device['features']:
                    self.assertEqual(kernel['state'], 'disabled')
                    self.assertIn('VKMOE_DISABLE', kernel['reason'])
        self.assertEqual(self.kernels(VKMOE_DISABLE=''), self.kernels())
        if self.kernels()[0]['type'] == 'cpu':
            return # variants are those of Vulkan devices
        for names, part in [('no-such', "'no-such' is no variant"), ('a1,a0', "'a0' computes")]:
            for args in [['info', '-v'], ['info', '-v', '--json'], ['tune', '-d', 'vulkan']]:
                done = run(*args, env={'VKMOE_DISABLE': names})
                self.assertEqual((done.returncode, done.stdout), (1, ''))
                self.assertIn(part, done.stderr)
                self.assertIn('there are: ', done.stderr)
                self.assertIn('a1 (fp16)', done.stderr)

    def test_full_disk(self):
        with open('/dev/full', 'w', encoding='utf-8') as full:
            for args in [['info'], ['info', '--json'], ['--help']]:
                done = subprocess.run([helper.PROGRAM, *args], stdout=full, stderr=subprocess.PIPE,
                                      text=True, timeout=60, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn('could not be written', done.stderr)


if __name__ == '__main__':
    unittest.main()
