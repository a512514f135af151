# SPDX-License-Identifier: MIT
"""vkmoe inspect. Usage: inspect_model.py PROGRAM"""
import json
import unittest

import checkpoints
import helper
from checkpoints import FAMILIES, GOLDENS
from helper import run

HASH = 'deepseek_v4_hash'


class Inspect(checkpoints.Case):
    def json(self, *args):
        done = run('inspect', *args, '--json')
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_json(self):
        """A small model in full; numbers against what its tensors take."""
        told = self.json(FAMILIES / 'mixtral', '--tensors')
        self.assertEqual([told[key] for key in ['kind', 'family', 'says', 'n_layers']],
                         ['hf', 'mixtral', 'mixtral', 2])
        self.assertNotIn('device', told)
        dense, layer = told['layers']
        self.assertEqual((dense['layer'], dense['experts']), (0, False))
        self.assertIn('model.layers.0.', dense['reason'])
        self.assertEqual(layer['router'], 'softmax over 6, best 2, divided by their sum')
        self.assertEqual(layer['shape'], {'n_experts': 6, 'top_k': 2, 'd_model': 24, 'd_ff': 8,
                                          'd_out': 24, 'd_shared_ff': 0, 'n_zero': 0,
                                          'd_latent': 0, 'd_adjugate': 0})
        router, expert = 6 * 24 * 4, 3 * 8 * 24 * 4
        self.assertEqual([layer[key] for key in ['file_bytes', 'bytes', 'token_bytes']],
                         [router + 6 * expert, router + 6 * expert, router + 2 * expert])
        self.assertEqual(layer['parts'][-1], {
            'part': 'experts.down', 'n': 6, 'rows': 24, 'columns': 8, 'stored': 'f32',
            'type': 'f32', 'exact': True})
        self.assertEqual(len(layer['tensors']), 1 + 6 * 3)
        self.assertEqual(sum(tensor['bytes'] for tensor in layer['tensors']), layer['file_bytes'])
        self.assertEqual({tensor['part'] for tensor in layer['tensors']},
                         {'router', 'experts.gate', 'experts.up', 'experts.down'})
        self.assertIn('F32 (24, 8)', {tensor['stored'] for tensor in layer['tensors']})

    def test_all(self):
        """Every golden can be told, in both forms, and has the layer that it says."""
        for model, row in GOLDENS.items():
            with self.subTest(model):
                told = self.json(FAMILIES / model, '--layer', row['layer'])
                layer, = told['layers']
                self.assertTrue(layer['experts'])
                self.assertEqual(layer['shape']['top_k'], row['top_k'])
                self.assertEqual(layer['router_input'], 'router_input' in row)
                self.assertEqual(layer['token_ids'], 'token_ids' in row)
                self.assertEqual(told['kind'], 'gguf' if model.endswith('.gguf') else 'hf')
                done = run('inspect', FAMILIES / model, '--layer', row['layer'])
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn(layer['router'], done.stdout)
                for part in layer['parts']:
                    self.assertIn(part['part'], done.stdout)

    def test_text(self):
        text = run('inspect', FAMILIES / HASH).stdout
        self.assertIn('needs     --token-ids', text)
        text = run('inspect', FAMILIES / 'gemma4' / 'model.gguf').stdout
        self.assertIn('GGUF file, family gemma4, 2 layers', text)
        self.assertIn('needs     --router-input', text)
        self.assertNotIn('  tensor ', text)
        text = run('inspect', helper.MODEL, '--tensors').stdout
        self.assertIn('tensor layers.0.router.weight: F32 (8, 64), 2048 bytes, router', text)

    def test_folded(self):
        """Layers that are alike are one entry; one that differs is its own."""
        folder = self.copy('mixtral')

        def repeat(header, data):
            for name in [name for name in header if '.layers.1.' in name]:
                begin, end = header[name]['data_offsets']
                for layer in [2, 3, 4]:
                    copy = name.replace('.layers.1.', f'.layers.{layer}.')
                    header[copy] = {**header[name], 'data_offsets': [len(data),
                                                                     len(data) + end - begin]}
                    data += data[begin:end]

        self.edit(folder, repeat)
        config = json.loads((folder / 'config.json').read_text())
        config['num_hidden_layers'] = 8
        (folder / 'config.json').write_text(json.dumps(config))
        text = run('inspect', folder).stdout
        lines = [line.split(':')[0] for line in text.splitlines() if line.startswith('layer')]
        self.assertEqual(lines, ['layer 0', 'layers 1-4', 'layers 5-7'])
        self.assertIn('4 layers with experts', text)

    def test_device(self):
        """What a device has memory for, and what it does not compute."""
        told = self.json(FAMILIES / 'mixtral', '-d', 'cpu', '--layer', '1')
        layer, = told['layers']
        self.assertTrue(layer['fits'])
        self.assertGreaterEqual(layer['device_bytes'], layer['bytes'] - 1024)
        self.assertGreater(told['device']['memory_bytes'], 1 << 20)
        text = run('inspect', FAMILIES / 'mixtral', '-d', 'cpu').stdout
        self.assertIn(' such layers fit', text)
        desc = self.folder / 'desc.json'
        desc.write_text('{"family": "mixtral", "layer": {"jitter": 0.5}}')
        layer, = self.json(FAMILIES / 'mixtral', '-d', 'cpu', '--layer', '1', '--desc',
                           desc)['layers']
        self.assertFalse(layer['fits'])
        self.assertIn('layer.jitter', layer['why_not'])
        text = run('inspect', FAMILIES / 'mixtral', '-d', 'cpu', '--desc', desc).stdout
        self.assertIn('does not compute it: ', text)

    def test_cannot_be_computed(self):
        """What no device computes is said without one, and with one; the file can be read."""
        folder = self.copy('mixtral')
        config = json.loads((folder / 'config.json').read_text())
        for change, why in [({'num_experts_per_tok': 5000}, 'layer.top_k = 5000'),
                            ({'n_group': 4, 'topk_group': 1}, 'layer.n_group = 4')]:
            (folder / 'config.json').write_text(json.dumps({**config, **change}))
            for device in [[], ['-d', 'cpu']]:
                dense, layer = self.json(folder, *device)['layers']
                self.assertIn(why, layer['why_not'])
                self.assertEqual(layer.get('fits'), False if device else None)
                self.assertNotIn('why_not', dense)
                done = run('inspect', folder, *device)
                self.assertEqual(done.returncode, 0, done.stderr)
                words = 'does not compute it: ' if device else '  cannot be computed: '
                self.assertIn(words + why, done.stdout)
        done = run('inspect', FAMILIES / 'mixtral')
        self.assertNotIn('cannot be computed', done.stdout)

    def test_reads_no_weights(self):
        """A model of 12 GiB, all of it a hole, is told at once."""
        folder, size = self.hole(8, 16384, 8192)
        layer = self.json(folder)['layers'][1]
        self.assertEqual(layer['file_bytes'], size)
        self.assertGreaterEqual(size, 12 << 30)

    def test_bad_input(self):
        """Nothing on stdout when something is wrong."""
        self.check_fails(2, 'too few arguments', 'inspect')
        self.check_fails(1, 'no such model', 'inspect', self.folder / 'none')
        self.check_fails(1, 'layer 2 of a model with 2', 'inspect', FAMILIES / 'mixtral',
                         '--layer', '2')
        self.check_fails(1, 'of a model with 2', 'inspect', FAMILIES / 'mixtral', '--layer',
                         str(1 << 40))
        self.check_fails(5, 'no device matches', 'inspect', FAMILIES / 'mixtral', '-d', 'nothing')
        folder = self.copy('mixtral')
        name = 'model.layers.1.block_sparse_moe.experts.5.w3.weight'
        self.edit(folder, lambda header, data: checkpoints.drop(header, data, name))
        for form in [[], ['--json']]:
            self.check_fails(1, name[:-7], 'inspect', folder, *form)
        (folder / 'config.json').write_text('{"model_type": "nobody_knows"}')
        self.check_fails(1, 'no family known here', 'inspect', folder)
        (folder / 'config.json').write_text('{')
        self.check_fails(1, 'config.json', 'inspect', folder)


if __name__ == '__main__':
    unittest.main()
