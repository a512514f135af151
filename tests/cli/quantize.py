# SPDX-License-Identifier: MIT
"""vkmoe quantize. Usage: quantize.py PROGRAM [sanitized]"""
import array
import json
import math
import os
import resource
import signal
import struct
import sys
import unittest

import checkpoints
import helper
from checkpoints import FAMILIES, GOLDENS
from helper import MODEL, run

SANITIZED = sys.argv[1:2] == ['sanitized']
if SANITIZED:
    sys.argv.pop(1)
HASH = 'deepseek_v4_hash'
# Between them every part that a layer may have.
FORMS = ['mixtral', 'qwen2_moe', 'gemma4', HASH, 'gpt_oss', 'nemotron_h_latent', 'grove_moe',
         'kimi_k3', 'longcat_flash', 'klear', 'jetmoe', 'switch_capacity']
NOT_IN_GGUF = {'longcat_flash': 'no architecture for longcat_flash',
               'klear': 'no name for shared.gate_vector.bias',
               'jetmoe': 'no name for out_bias',
               'switch_capacity': 'no architecture for switch_transformers'}


def half(bits):
    return struct.unpack('<e', bits)[0]


def q8_0(data):
    """The values of blocks: an f16, then 32 signed bytes."""
    values = []
    for at in range(0, len(data), 34):
        scale = half(data[at:at + 2])
        values += [scale * code for code in array.array('b', bytes(data[at + 2:at + 34]))]
    return values


def floats(data):
    return array.array('f', bytes(data))


class Quantize(checkpoints.Case):
    def json(self, model, out, type_, *args):
        done = run('quantize', model, out, '--type', type_, '--json', *args)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def tensor(self, model, name):
        header, data = model
        return header[name], data[slice(*header[name]['data_offsets'])]

    def test_errors_told(self):
        """The error of each tensor is that of its values, which are read here from the file."""
        out = self.folder / 'o.safetensors'
        told = self.json(MODEL, out, 'q8_0')
        old, new = helper.read_model(), helper.read_model(out)
        self.assertEqual(old[0].keys(), new[0].keys())
        self.assertEqual(json.loads(new[0]['__metadata__']['types']),
                         {f'layers.0.experts.{name}.weight': 'q8_0' for name in ['up', 'down']})
        self.assertEqual(new[0]['__metadata__']['config'], old[0]['__metadata__']['config'])
        for name in ['up', 'down']:
            part, = [part for part in told['parts'] if part['part'] == 'experts.' + name]
            entry, data = self.tensor(new, f'layers.0.experts.{name}.weight')
            before = floats(self.tensor(old, f'layers.0.experts.{name}.weight')[1])
            self.assertEqual(entry['dtype'], 'U8')
            self.assertEqual(entry['shape'][-1] % 34, 0)
            error = checkpoints.distance(q8_0(data), before)
            self.assertLess(abs(part['error'] - error), 1e-6 * error)
            self.assertEqual([part[key] for key in ['bytes_before', 'bytes', 'exact', 'fallback']],
                             [4 * len(before), len(data), False, False])
        for name in old[0].keys() - {'__metadata__'}:
            if 'experts' not in name or 'bias' in name:
                self.assertEqual(self.tensor(old, name)[1], self.tensor(new, name)[1], name)
        self.assertEqual(told['bytes'], sum(part['bytes'] for part in told['parts']))
        self.check_files('o.safetensors')

    def test_text(self):
        out = self.folder / 'o.safetensors'
        done = run('quantize', MODEL, out, '--type', 'q4_K')
        self.assertEqual(done.returncode, 0, done.stderr)
        # 64 values are no block of 256.
        self.assertIn('layers.0.experts.up: rows are no whole blocks of q4_K: q8_0 instead',
                      done.stderr)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[-1].split()[0], 'total')
        self.assertEqual(int(lines[-1].split()[-1]),
                         sum(int(line.split()[-1]) for line in lines[:-1]))
        self.assertRegex(done.stdout, r'layers.0.experts.up  +f32, all experts in one +q8_0 +0.0')

    def test_use(self):
        """Quantised models work everywhere that models do."""
        digits = helper.DIGITS
        want = json.loads(run('eval', MODEL, digits, '--json', '-d', 'cpu').stdout)
        for type_, most in [('bf16', 0.02), ('q8_0', 0.02), ('q4_0', 0.2), ('mxfp4', 0.3)]:
            out = self.folder / f'{type_}.safetensors'
            self.json(MODEL, out, type_)
            done = run('eval', out, digits, '--json', '-d', 'cpu')
            self.assertEqual(done.returncode, 0, done.stderr)
            got = json.loads(done.stdout)
            self.assertGreater(got['accuracy'], 0.93, type_)
            self.assertLess(abs(got['loss'] / want['loss'] - 1), most, type_)
            self.assertNotEqual(got['loss'], want['loss'], type_)
            done = run('predict', out, digits, '-o', self.folder / 'p.csv', '-d', 'reference')
            self.assertEqual(done.returncode, 0, done.stderr)
            # What the file stands for is what is computed, on every device.
            outputs = []
            for device in ['cpu', 'reference']:
                y = self.folder / 'y.npy'
                done = run('run', out, '-n', '50', '-o', y, '-d', device)
                self.assertEqual(done.returncode, 0, done.stderr)
                outputs.append(helper.read_npy(y)[1])
            self.assertLess(checkpoints.distance(*outputs), 1e-5, type_)
            # Types can be changed again; the same type again changes nothing.
            again = self.folder / 'again.safetensors'
            self.json(out, again, type_)
            self.assertEqual(out.read_bytes(), again.read_bytes())
            again.unlink()

    def check_same(self, model, row, out, layer, type_):
        """The layer of OUT gives what the layer gives when it is loaded in that type."""
        want, want_ids = self.run_layer(model, row, 'reference', '--type', type_)
        got, got_ids = self.run_layer(out, {**row, 'layer': layer}, 'reference')
        self.assertEqual((want, want_ids), (got, got_ids))

    def test_forms(self):
        """Layers of published models, in both formats."""
        for name in FORMS:
            row, model = GOLDENS[name], FAMILIES / name
            for type_ in ['f32', 'f16', 'q8_0']:
                out = self.folder / 'o.safetensors'
                told = self.json(model, out, type_)
                layer = {part['layer']: part['layer_out'] for part in told['parts']}[row['layer']]
                self.check_same(model, row, out, layer, type_)
                out = self.folder / 'o.gguf'
                out.unlink(missing_ok=True)
                if name in NOT_IN_GGUF:
                    done = run('quantize', model, out, '--type', type_)
                    self.assertEqual(done.returncode, 1)
                    self.assertIn(NOT_IN_GGUF[name], done.stderr)
                    self.assertFalse(out.exists())
                    continue
                self.json(model, out, type_)
                self.check_same(model, row, out, row['layer'], type_)
                done = run('inspect', out, '--json', '--layer', row['layer'])
                self.assertEqual(done.returncode, 0, done.stderr)
                told = json.loads(done.stdout)
                self.assertEqual((told['kind'], told['layers'][0]['experts']), ('gguf', True))
        self.check_files('o.safetensors')

    def test_gguf(self):
        """A split GGUF becomes one, and a vkmoe-model."""
        name = 'mixtral/model-00001-of-00002.gguf'
        row = {**GOLDENS[name]}
        for suffix, layer in [('.gguf', row['layer']), ('.safetensors', 0)]:
            out = self.folder / ('o' + suffix)
            told = self.json(FAMILIES / name, out, 'bf16')
            self.assertEqual({part['type'] for part in told['parts']
                              if part['part'].startswith('experts')}, {'bf16'})
            self.check_same(FAMILIES / name, row, out, layer, 'bf16')
            # A control: the rounding can be seen.
            self.assertNotEqual(self.run_layer(FAMILIES / name, row, 'reference'),
                                self.run_layer(FAMILIES / name, row, 'reference', '--type', 'bf16'))

    def test_types(self):
        """Every type, where rows are whole blocks of 256: the fewer bits, the larger the error."""
        name = 'q6_k_q6_k_q8_0/model.gguf'
        row, errors = GOLDENS[name], {}
        for type_ in ['q6_K', 'q8_0', 'f16', 'q5_K', 'q4_K', 'q4_0', 'mxfp4', 'q2_K', 'fp8']:
            for suffix in ['.gguf', '.safetensors']:
                if (type_, suffix) == ('fp8', '.gguf'):
                    continue
                out = self.folder / ('o' + suffix)
                told = self.json(FAMILIES / name, out, type_)
                up, = [part for part in told['parts'] if part['part'] == 'experts.up']
                self.assertEqual((up['type'], up['fallback']), (type_, False))
                if type_ != 'fp8': # of which the rows of down are no whole blocks
                    self.check_same(FAMILIES / name, row, out, up['layer_out']
                                    if suffix == '.safetensors' else row['layer'], type_)
                errors[type_] = up['error']
        self.assertEqual(errors.pop('q6_K'), 0)
        order = ['f16', 'q8_0', 'q5_K', 'q4_K', 'q4_0', 'mxfp4', 'q2_K']
        for less, more in zip(order, order[1:]):
            self.assertLess(errors[less], errors[more])
        self.assertTrue(errors['q8_0'] < errors['fp8'] < errors['q4_K'])

    def test_layer(self):
        """One layer of several; and one that has no experts."""
        out = self.folder / 'o.safetensors'
        told = self.json(FAMILIES / 'mixtral', out, 'f16', '--layer', '1')
        self.assertEqual({(part['layer'], part['layer_out']) for part in told['parts']}, {(1, 0)})
        out.unlink()
        for layer, text in [('0', 'layer 0 has no experts'), ('2', 'layer 2 of a model with 2')]:
            self.check_fails(1, text, 'quantize', FAMILIES / 'mixtral', out, '--type', 'f16',
                             '--layer', layer)
        self.check_files()

    @unittest.skipIf(SANITIZED, 'sanitizers keep what is freed')
    def test_streams(self):
        """Memory does not grow with the number of experts."""
        folder, size = self.hole(32, 512, 1024)
        out = self.folder / 'o.gguf'
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        told = self.json(folder, out, 'f16')
        self.assertGreater(size, 192 << 20)
        self.assertGreater(told['bytes'], 96 << 20)
        most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        self.assertLess(most, max(before, 64 << 10))

    def test_interrupt(self):
        folder, _ = self.hole(8, 4096, 2048)
        process = helper.start('quantize', folder, self.folder / 'o.gguf', '--type', 'q8_0')
        self.assertIn('router', process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.check_files('model')

    def test_shrinks(self):
        """A file that becomes shorter while it is read."""
        for suffix in ['.gguf', '.safetensors']:
            folder, size = self.hole(8, 4096, 2048)
            process = helper.start('quantize', folder, self.folder / ('o' + suffix), '--type',
                                   'q8_0')
            self.assertIn('router', process.stdout.readline())
            os.truncate(folder / 'model.safetensors', size // 2)
            _, errors = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 1, errors)
            self.assertIn('model.safetensors', errors)
        self.check_files('model')

    def test_bad_input(self):
        out = self.folder / 'o.gguf'
        args = [FAMILIES / 'mixtral', out, '--type']
        self.check_fails(2, 'too few arguments', 'quantize', MODEL)
        self.check_fails(2, 'give --type', 'quantize', MODEL, out)
        self.check_fails(2, '--type q3_K: f32 f16', 'quantize', *args, 'q3_K')
        for layer in ['-1', 'x', str(1 << 32), '']:
            self.check_fails(2, 'all, or a whole number', 'quantize', *args, 'f16', '--layer',
                             layer)
        self.check_fails(1, 'GGUF has no type fp8', 'quantize', *args, 'fp8')
        self.check_fails(1, 'neither .gguf nor .safetensors', 'quantize', MODEL,
                         self.folder / 'o.bin', '--type', 'f16')
        self.check_fails(1, 'a vkmoe-model is of no architecture', 'quantize', MODEL, out,
                         '--type', 'f16')
        self.check_fails(1, 'no such model', 'quantize', self.folder / 'none', out, '--type', 'f16')
        self.check_fails(1, 'cannot write', 'quantize', MODEL,
                         self.folder / 'no' / 'o.safetensors', '--type', 'f16')
        self.check_files()
        # IN as OUT, under another name.
        copy, link = self.folder / 'm.safetensors', self.folder / 'l.safetensors'
        copy.write_bytes(MODEL.read_bytes())
        link.symlink_to(copy)
        for path in [copy, link]:
            self.check_fails(2, 'is read, so it is not written to', 'quantize', copy, path,
                             '--type', 'f16')
        self.assertEqual(copy.read_bytes(), MODEL.read_bytes())

    def test_kept(self):
        """A failure leaves what was there."""
        folder = self.copy(HASH)

        def spoil(header, data):
            name, = [name for name in header if 'tid2eid' in name]
            checkpoints.set_bytes(header, data, name, '<q', [-1])

        self.edit(folder, spoil)
        for suffix in ['gguf', 'safetensors']:
            out = self.folder / f'o.{suffix}'
            out.write_text('before')
            done = run('quantize', folder, out, '--type', 'f16')
            self.assertEqual(done.returncode, 1)
            self.assertIn('token 0 has expert -1 of 6', done.stderr)
            self.assertEqual(out.read_text(), 'before')
        self.check_files('model', 'o.gguf', 'o.safetensors')

    def test_cannot_say(self):
        """What the keys of GGUF cannot say is found before the file gets its name."""
        desc = self.folder / 'desc.json'
        desc.write_text('{"family": "mixtral", "layer": {"out_scale": 0.5}}')
        out = self.folder / 'o.gguf'
        done = run('quantize', FAMILIES / 'mixtral', out, '--type', 'f16', '--desc', desc)
        self.assertEqual(done.returncode, 1)
        self.assertIn('GGUF cannot say layer.out_scale = 0.5 of layer 1, it would be read as 1',
                      done.stderr)
        self.check_files('desc.json')
        self.json(FAMILIES / 'mixtral', self.folder / 'o.safetensors', 'f16', '--desc', desc)

    def test_spoiled_types(self):
        """Lists of types that do not fit their tensors."""
        out = self.folder / 'o.safetensors'
        self.json(MODEL, out, 'q8_0')
        header, data = helper.read_model(out)
        up = 'layers.0.experts.up.weight'

        def fails(text, types, **metadata):
            own = {**header['__metadata__'], 'types': types, **metadata}
            helper.write_model(out, {**header, '__metadata__': own}, data)
            for command in [['run', out, '-n', '1', '-o', self.folder / 'y.npy', '-d', 'cpu'],
                            ['inspect', out]]:
                self.check_fails(1, text, *command)
            self.check_files('o.safetensors')

        fails('types: not a JSON object', '[')
        fails('types: not a JSON object', '[]')
        fails("'f16' is no type of blocks", json.dumps({up: 'f16'}))
        fails("'(not a text)' is no type of blocks", json.dumps({up: 8}))
        fails("there is no tensor 'up'", json.dumps({'up': 'q8_0'}))
        fails('is not rows of blocks of 18 bytes', json.dumps({up: 'q4_0'}))
        fails('is not rows of blocks', json.dumps({'layers.0.router.weight': 'q8_0'}))
        header[up]['dtype'] = 'I8'
        fails('I8 (8, 32, 68) is not rows of blocks', json.dumps({up: 'q8_0'}))
        header[up]['dtype'] = 'U8'
        helper.write_model(out, {**header, '__metadata__': {
            **header['__metadata__'], 'types': '{}'}}, data)
        self.check_fails(1, 'only F32, F16 and BF16 here', 'run', out, '-n', '1', '-o',
                         self.folder / 'y.npy', '-d', 'cpu')

    def test_spoiled_layer(self):
        """A layer in full, with fields that do not fit."""
        out = self.folder / 'o.safetensors'
        self.json(FAMILIES / 'mixtral', out, 'f32')
        header, data = helper.read_model(out)
        config = json.loads(header['__metadata__']['config'])
        for change, text in [({'n_expert': 1}, 'layer.n_expert'),
                             ({'in_type': 'f32'}, 'the tensors say it'),
                             ({'d_model': 25}, '25, but the layer is given 24'),
                             ({'score': 'softest'}, 'softest'),
                             ({'expert_kind': 'linear'}, 'mlp only'),
                             ({'top_k': 7}, 'top_k = 7'),
                             ({'d_ff': 9}, 'the configuration makes it')]:
            layer = {**config['layers'][0]['layer'], **change}
            changed = {**config, 'layers': [{'kind': 'moe', 'layer': layer}]}
            helper.write_model(out, {**header, '__metadata__': {
                **header['__metadata__'], 'config': json.dumps(changed)}}, data)
            self.check_fails(1, text, 'run', out, '-n', '1', '-o', self.folder / 'y.npy', '-d',
                             'cpu')
        self.check_files('o.safetensors')

    def test_alone(self):
        """Layers that sessions do not run say so where a whole model is asked for."""
        out = self.folder / 'o.safetensors'
        self.json(FAMILIES / HASH, out, 'f16')
        rows = self.folder / 'rows.csv'
        rows.write_text(','.join(['0.5'] * 32) + '\n')
        self.check_fails(1, 'it runs alone', 'eval', out, rows, '--target',
                         ','.join(str(i) for i in range(17, 33)), '-d', 'cpu')
        self.assertFalse(math.isnan(sum(self.run_layer(
            out, {**GOLDENS[HASH], 'layer': 0}, 'cpu')[0][1])))


if __name__ == '__main__':
    unittest.main()
