# SPDX-License-Identifier: MIT
"""vkmoe tune on the CPU and on a Vulkan device. Usage: tune.py PROGRAM"""
import json
import unittest

import helper
from helper import run

STATES = ['used', 'not faster', 'bad', 'unavailable', 'disabled']


def of_a1(answer):
    return next(verdict for verdict in answer['verdicts'] if verdict['kernel'] == 'a1')


class Tune(helper.Case):
    def tune(self, *args, env=None):
        done = run('tune', *args, env={'VKMOE_CACHE_DIR': str(self.folder / 'cache'),
                                       **(env or {})})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def verdicts(self, *args, env=None):
        """The answer in JSON, each verdict of it checked."""
        answer = json.loads(self.tune('--json', *args, env=env).stdout)
        self.assertEqual(list(answer), ['device', 'cache', 'verdicts'])
        for verdict in answer['verdicts']:
            self.assertEqual(list(verdict), ['kernel', 'state', 'reason', 'seconds',
                                             'base_seconds', 'cached'])
            self.assertIn(verdict['state'], STATES)
            self.assertEqual(verdict['reason'] == '', verdict['state'] == 'used')
            times = verdict['seconds'], verdict['base_seconds']
            if None in times:
                continue
            self.assertTrue(all(0 < time < 100 for time in times))
            self.assertEqual(verdict['state'],
                             'used' if times[0] <= 0.97 * times[1] else 'not faster')
        return answer

    def test_cpu(self):
        answer = self.verdicts('-d', 'cpu')
        self.assertIsNone(answer['cache'])
        self.assertEqual(answer['verdicts'][-1]['kernel'], 'scalar')
        self.assertEqual(answer['verdicts'][-1]['state'], 'used')
        text = self.tune('-d', 'cpu').stdout.splitlines()
        self.assertRegex(text[0], r'^kernel +state +time +against$')
        for line, verdict in zip(text[1:-1], answer['verdicts'], strict=True):
            self.assertRegex(line, rf'^{verdict["kernel"]} +({"|".join(STATES)}) ')
        self.assertEqual(text[-1], 'not kept')

    def test_vulkan(self):
        devices = json.loads(run('info', '--json').stdout)['devices']
        if devices[0]['type'] == 'cpu':
            self.skipTest('no Vulkan device')
        first = self.verdicts('-d', 'vulkan')
        self.assertEqual(first['device'], devices[0]['name'])
        self.assertEqual(first['cache'], str(self.folder / 'cache'))
        self.assertEqual([v['kernel'] for v in first['verdicts']][-2:], ['net-a0n', 'a0'])
        again = self.verdicts('-d', 'vulkan')
        timed = of_a1(first)['seconds'] is not None
        self.assertFalse(of_a1(first)['cached'])
        self.assertEqual(of_a1(again)['cached'], timed)
        if timed: # what was kept, and what is asked afresh
            self.assertEqual(of_a1(again)['seconds'], of_a1(first)['seconds'])
            self.assertFalse(of_a1(self.verdicts('-d', 'vulkan', '--fresh'))['cached'])
        text = self.tune('-d', 'vulkan').stdout.splitlines()
        self.assertEqual(text[-1], f'kept in {self.folder / "cache"}')
        self.assertEqual('(known before)' in text[-3], timed)

    def test_without_a_feature(self):
        devices = json.loads(run('info', '--json').stdout)['devices']
        if devices[0]['type'] == 'cpu':
            self.skipTest('no Vulkan device')
        answer = self.verdicts('-d', 'vulkan', '--floor')
        self.assertEqual(of_a1(answer)['state'], 'unavailable')
        self.assertIn('not there or not enabled', of_a1(answer)['reason'])

    def test_disabled(self):
        if json.loads(run('info', '--json').stdout)['devices'][0]['type'] == 'cpu':
            self.skipTest('no Vulkan device')
        for verdict in self.verdicts('-d', 'vulkan', env={'VKMOE_DISABLE': 'fp16'})['verdicts']:
            if verdict['kernel'] == 'a1':
                self.assertIn(verdict['state'], ['disabled', 'unavailable'])

    def test_where_it_is_kept(self):
        devices = json.loads(run('info', '--json').stdout)['devices']
        if devices[0]['type'] == 'cpu':
            self.skipTest('no Vulkan device')
        for env, place in [({'VKMOE_CACHE_DIR': '', 'XDG_CACHE_HOME': str(self.folder / 'xdg')},
                            self.folder / 'xdg' / 'vkmoe'),
                           ({'VKMOE_CACHE_DIR': '', 'XDG_CACHE_HOME': '',
                             'HOME': str(self.folder / 'home')},
                            self.folder / 'home' / '.cache' / 'vkmoe')]:
            answer = self.verdicts('-d', 'vulkan', env=env)
            self.assertEqual(answer['cache'], str(place))
            if of_a1(answer)['state'] != 'unavailable':
                self.assertTrue(list(place.glob('verdicts-*.bin')))

    def test_bad_input(self):
        self.check_fails(2, "unexpected argument 'x'", 'tune', 'x')
        self.check_fails(2, 'unknown option --nothing', 'tune', '--nothing')
        self.check_fails(5, 'no-such-device', 'tune', '-d', 'no-such-device')
        self.check_fails(1, 'no kernels to choose from', 'tune', '-d', 'reference')
        done = run('tune', '--help')
        self.assertEqual((done.returncode, done.stderr), (0, ''))
        for option in ['--fresh', '--json', '--device']:
            self.assertIn(option, done.stdout)


if __name__ == '__main__':
    unittest.main()
