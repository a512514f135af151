# SPDX-License-Identifier: MIT
"""vkmoe run on published checkpoints. Usage: run_checkpoint.py PROGRAM [DEVICE,..]"""
import array
import json
import math
import shutil
import sys
import unittest

import checkpoints
import helper
from checkpoints import FAMILIES, GOLDENS
from helper import run

DEVICES = sys.argv.pop(1).split(',') if len(sys.argv) > 1 else ['cpu', 'reference']
HASH = 'deepseek_v4_hash'


class Golden(checkpoints.Case):
    """What the authors' code gives, from both kinds of files."""

    def check(self, model, device):
        row = GOLDENS[model]
        (shape, y), (_, ids) = self.run_layer(FAMILIES / model, row, device)
        want_shape, want = helper.read_npy(FAMILIES / row['y'])
        self.assertEqual(shape, want_shape)
        self.assertLess(checkpoints.distance(y, want), row['tolerance'], model)
        self.assertEqual(ids, helper.read_npy(FAMILIES / row['ids'])[1])
        # A control: the rows in another order are noticed.
        turned = want[shape[1]:] + want[:shape[1]]
        self.assertGreater(checkpoints.distance(y, turned), 100 * row['tolerance'])

    def test_golden(self):
        for device in DEVICES:
            for model in ['mixtral', 'mixtral/model-00001-of-00002.gguf',
                          'mixtral/model-00002-of-00002.gguf' , 'qwen2_moe', 'gemma4',
                          'gemma4/model.gguf', HASH, HASH + '/model.gguf', 'gpt_oss']:
                if model in GOLDENS:
                    self.check(model, device)

    def test_types(self):
        """Other types come close, and the program says how close."""
        row = GOLDENS['mixtral']
        want = helper.read_npy(FAMILIES / row['y'])[1]
        y = self.folder / 'y.npy'
        for type_, most in [('bf16', 2e-2), ('f16', 2e-3)]:
            done = run('run', FAMILIES / 'mixtral', *checkpoints.inputs(row), '-o', y, '-d',
                       DEVICES[0], '--type', type_)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f'experts.gate: f32 as {type_}, relative error', done.stderr)
            error = checkpoints.distance(helper.read_npy(y)[1], want)
            self.assertTrue(1e-6 < error < most, error)

    def test_random(self):
        """Router input and token ids are made up, too, and depend on the seed only."""
        for model in ['gemma4', HASH]:
            layer = GOLDENS[model]['layer']
            outputs = []
            for seed in ['1', '1', '2']:
                y = self.folder / 'y.npy'
                done = run('run', FAMILIES / model, '--layer', layer, '-n', '40', '--seed', seed,
                           '-o', y, '-d', DEVICES[0])
                self.assertEqual(done.returncode, 0, done.stderr)
                outputs.append(helper.read_npy(y))
            self.assertEqual(outputs[0], outputs[1])
            self.assertNotEqual(outputs[0], outputs[2])
        # Of the table all rows are used.
        ids = self.folder / 'ids.npy'
        done = run('run', FAMILIES / HASH, '--layer', GOLDENS[HASH]['layer'], '--random', '2000',
                   '--ids', ids, '-d', DEVICES[0])
        self.assertEqual(done.returncode, 0, done.stderr)
        shape, values = helper.read_npy(ids)
        self.assertEqual(shape, (2000, 2))
        self.assertEqual(set(values), set(range(6)))


    def test_capacity(self):
        """What counts all rows of a run sees them at once, however many."""
        model = FAMILIES / 'switch_capacity'
        config = json.loads((model / 'config.json').read_text())
        most = config['num_experts'] * config['expert_capacity']
        ids, layer = self.folder / 'ids.npy', GOLDENS['switch_capacity']['layer']
        args = ['run', model, '--layer', layer, '--ids', ids, '-d', DEVICES[0]]
        done = run(*args, '-n', '3000')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sum(i >= 0 for i in helper.read_npy(ids)[1]), most)
        ids.unlink()
        self.check_fails(1, 'counts 1048577 rows together: at most 1048576', *args, '-n',
                         str((1 << 20) + 1))
        csv = self.folder / 'x.csv'
        csv.write_text((','.join(['0.5'] * config['d_model']) + '\n') * 3)
        self.check_fails(1, 'their number must be known', *args, '-i', csv)
        self.check_files('x.csv')


@unittest.skipIf('reference' not in DEVICES, 'does not depend on the device')
class Run(checkpoints.Case):
    def test_gradients(self):
        """Those of x and of a tensor are what the output's differences say."""
        row, eps = GOLDENS['mixtral'], 2 ** -6
        shape, x = helper.read_npy(FAMILIES / row['x'])
        _, want = helper.read_npy(FAMILIES / row['y'])
        dy = array.array('f', [math.sin(i) for i in range(len(want))])
        dy_path = helper.write_npy(self.folder / 'dy.npy', dy, shape)
        y, grads = self.folder / 'y.npy', self.folder / 'g.safetensors'
        args = ['run', FAMILIES / 'mixtral', '--layer', row['layer'], '-d', 'reference', '-o', y]
        done = run(*args, '-i', FAMILIES / row['x'], '--dy', dy_path, '--grads', grads)
        self.assertEqual(done.returncode, 0, done.stderr)
        header, data = helper.read_model(grads)
        self.assertEqual(sorted(header), ['experts.down.weight', 'experts.gate.weight',
                                          'experts.up.weight', 'router.weight', 'x'])
        self.assertEqual(header['experts.down.weight']['shape'], [6, 24, 8])
        dx = array.array('f', bytes(data[slice(*header['x']['data_offsets'])]))
        direction = [math.cos(3 * i) for i in range(len(x))]
        sums = []
        for sign in [1, -1]:
            moved = array.array('f', [a + sign * eps * b for a, b in zip(x, direction)])
            path = helper.write_npy(self.folder / 'x.npy', moved, shape)
            self.assertEqual(run(*args, '-i', path).returncode, 0)
            sums.append(sum(a * b for a, b in zip(helper.read_npy(y)[1], dy)))
        difference = (sums[0] - sums[1]) / (2 * eps)
        slope = sum(a * b for a, b in zip(dx, direction))
        self.assertLess(abs(difference - slope), 2e-2 * abs(slope))
        # A control: half of the gradient would be noticed.
        self.assertGreater(abs(difference - slope / 2), 1e-1 * abs(slope))

    def test_no_gradients(self):
        row = GOLDENS[HASH]
        _, values = helper.read_npy(FAMILIES / row['y'])
        dy = helper.write_npy(self.folder / 'dy.npy', values,
                              helper.read_npy(FAMILIES / row['y'])[0])
        self.check_fails(1, 'the gradient of this is not computed', 'run', FAMILIES / HASH,
                         *checkpoints.inputs(row), '--dy', dy, '--grads',
                         self.folder / 'g.safetensors', '-d', 'reference')
        self.check_files('dy.npy')

    def test_description(self):
        """An explicit description and an assumed family, where the file names none."""
        folder = self.copy('mixtral')
        config = json.loads((folder / 'config.json').read_text())
        row = GOLDENS['mixtral']
        args = ['run', folder, *checkpoints.inputs(row), '-o', self.folder / 'y.npy', '-d',
                'reference']
        config['model_type'] = 'nobody_knows'
        (folder / 'config.json').write_text(json.dumps(config))
        self.check_fails(1, "'nobody_knows' is no family known here: ", *args)
        self.check_fails(1, "no family 'nobody'", *args, '--assume', 'nobody')
        desc = self.folder / 'desc.json'
        at = 'model.layers.{L}.block_sparse_moe.'
        desc.write_text(json.dumps({
            'layers': 2, 'layer': {'n_experts': 6, 'top_k': 2, 'd_model': 24, 'd_ff': 8,
                                   'gated': True, 'act': 'silu', 'score': 'softmax',
                                   'norm': 'sum_plus_eps'},
            'tensors': {'router': at + 'gate.weight', 'experts.gate': at + 'experts.{E}.w1.weight',
                        'experts.up': at + 'experts.{E}.w3.weight',
                        'experts.down': at + 'experts.{E}.w2.weight'}}))
        want = helper.read_npy(FAMILIES / row['y'])[1]
        for more in [['--assume', 'mixtral'], ['--desc', desc]]:
            (_, y), _ = self.run_layer(folder, row, 'reference', *more)
            self.assertLess(checkpoints.distance(y, want), row['tolerance'])
        desc.write_text('{"layer": {"n_expert": 6}, "tensors": {}}')
        self.check_fails(1, 'layer.n_expert', *args, '--desc', desc)
        desc.write_bytes(b'{}\0')
        self.check_fails(1, 'a zero byte', *args, '--desc', desc)
        desc.write_bytes(b' ' * (1 << 20 | 1))
        self.check_fails(1, 'more than 1 MiB', *args, '--desc', desc)
        self.check_fails(1, 'cannot open', *args, '--desc', self.folder / 'none.json')

    def test_options(self):
        """What a layer needs and what it has no use for."""
        y = self.folder / 'y.npy'

        def fails(code, text, model, *more):
            args = checkpoints.inputs(GOLDENS[model])[:4]
            self.check_fails(code, text, 'run', FAMILIES / model, *args, '-o', y, '-d',
                             'reference', *more)

        x = FAMILIES / GOLDENS['mixtral']['x']
        fails(1, 'layer 1 needs --router-input FILE', 'gemma4')
        fails(1, f"layer {GOLDENS[HASH]['layer']} needs --token-ids FILE", HASH)
        fails(1, 'has no use for --router-input', 'mixtral', '--router-input', x)
        fails(1, 'has no use for --token-ids', 'mixtral', '--token-ids', x)
        fails(1, 'not whole numbers', HASH, '--token-ids', FAMILIES / GOLDENS[HASH]['x'])
        n_rows = helper.read_npy(FAMILIES / GOLDENS[HASH]['x'])[0][0]
        ids = helper.write_npy(self.folder / 'ids.npy', array.array('i', [0] * (n_rows - 1)),
                               (n_rows - 1,))
        fails(1, f'has {n_rows - 1} rows, the input has {n_rows}', HASH, '--token-ids', ids)
        helper.write_npy(ids, array.array('i', [0] * (n_rows - 1) + [64]), (n_rows, 1))
        fails(1, '64', HASH, '--token-ids', ids)
        fails(2, '--type q9', 'mixtral', '--type', 'q9')
        fails(1, 'layer 2 of a model with 2', 'mixtral', '--layer', '2')
        fails(1, 'layer 0 has no experts', 'mixtral', '--layer', '0')
        self.check_files('ids.npy')

    def test_spoiled(self):
        """Folders with something wrong: the thing is named, nothing is written."""
        def fails(text, folder, name='mixtral'):
            self.check_fails(1, text, 'run', folder, *checkpoints.inputs(GOLDENS[name]), '-o',
                             self.folder / 'y.npy', '-d', 'reference')
            self.check_files('model')

        down = 'model.layers.1.block_sparse_moe.experts.3.w2.weight'
        folder = self.copy('mixtral')
        self.edit(folder, lambda header, data: checkpoints.drop(header, data, down))
        fails(f"tensor '{down[:-7]}", folder)
        folder = self.copy('mixtral')
        config = json.loads((folder / 'config.json').read_text())
        config['num_local_experts'] = 7
        (folder / 'config.json').write_text(json.dumps(config))
        fails('7', folder)
        folder = self.copy('mixtral')
        path = folder / 'model.safetensors'
        path.write_bytes(path.read_bytes()[:-4])
        fails('model.safetensors', folder)
        path.unlink()
        fails('model.safetensors', folder)
        (folder / 'config.json').unlink()
        fails('config.json', folder)

    def test_table(self):
        """Ids beyond the experts."""
        folder = self.copy(HASH)

        def spoil(header, data):
            name, = [name for name in header if 'tid2eid' in name]
            checkpoints.set_bytes(header, data, name, '<q', [6])

        self.edit(folder, spoil)
        self.check_fails(1, 'has expert 6 of 6', 'run', folder,
                         *checkpoints.inputs(GOLDENS[HASH]), '-o', self.folder / 'y.npy', '-d',
                         'reference')
        self.check_files('model')

    def test_index(self):
        """An index whose shard is missing, or not in the folder."""
        folder = self.copy('mixtral')
        shard = folder / 'model-00001-of-00001.safetensors'
        (folder / 'model.safetensors').rename(shard)
        header, _ = helper.read_model(shard)
        names = [name for name in header if name != '__metadata__']
        index = folder / 'model.safetensors.index.json'

        def write(file):
            index.write_text(json.dumps({'metadata': {'total_size': 1},
                                         'weight_map': {name: file for name in names}}))

        args = ['run', folder, *checkpoints.inputs(GOLDENS['mixtral']), '-o',
                self.folder / 'y.npy', '-d', 'reference']
        write(shard.name)
        self.assertEqual(run(*args).returncode, 0)
        (self.folder / 'y.npy').unlink()
        shutil.copy(shard, self.folder / 'outside.safetensors')
        for file, text in [('model-00002-of-00002.safetensors', 'model-00002-of-00002'),
                           ('../outside.safetensors', '../outside.safetensors')]:
            write(file)
            self.check_fails(1, text, *args)
        self.check_files('model', 'outside.safetensors')


if __name__ == '__main__':
    unittest.main()
