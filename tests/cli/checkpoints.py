# SPDX-License-Identifier: MIT
"""What tests of commands on published checkpoints share."""
import json
import math
import os
import pathlib
import shutil
import struct

import helper

FAMILIES = pathlib.Path(__file__).parent.parent / 'golden' / 'families'
GOLDENS = {row['model']: row for row in json.loads((FAMILIES / 'families.json').read_text())}


def distance(got, want):
    """Relative L2."""
    return math.hypot(*(a - b for a, b in zip(got, want))) / math.hypot(*want)


def inputs(row):
    """The options that give a golden's layer what it reads."""
    args = ['--layer', row['layer'], '-i', FAMILIES / row['x']]
    for key, option in [('router_input', '--router-input'), ('token_ids', '--token-ids')]:
        if key in row:
            args += [option, FAMILIES / row[key]]
    return args


class Case(helper.Case):
    def copy(self, name):
        """A copy of a golden's folder, to be spoiled."""
        folder = self.folder / 'model'
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(FAMILIES / name, folder)
        return folder

    def edit(self, folder, change):
        """Changes (header, data) of the folder's safetensors file."""
        path = folder / 'model.safetensors'
        header, data = helper.read_model(path)
        header, data = change(header, data) or (header, data)
        helper.write_model(path, header, data)

    def hole(self, n_experts, d_ff, d_model):
        """A folder like Mixtral's with weights that are a hole in a file, and their bytes."""
        folder = self.copy('mixtral')
        at = 'model.layers.1.block_sparse_moe.'
        tensors = {at + 'gate.weight': [n_experts, d_model]}
        for i in range(n_experts):
            for name, shape in [('w1', [d_ff, d_model]), ('w2', [d_model, d_ff]),
                                ('w3', [d_ff, d_model])]:
                tensors[f'{at}experts.{i}.{name}.weight'] = shape
        header, size = {}, 0
        for name, shape in tensors.items():
            n = 4 * shape[0] * shape[1]
            header[name] = {'dtype': 'F32', 'shape': shape, 'data_offsets': [size, size + n]}
            size += n
        path = helper.write_model(folder / 'model.safetensors', header, b'')
        os.truncate(path, path.stat().st_size + size)
        config = json.loads((folder / 'config.json').read_text())
        config.update(num_local_experts=n_experts, intermediate_size=d_ff, hidden_size=d_model)
        (folder / 'config.json').write_text(json.dumps(config))
        return folder, size

    def run_layer(self, model, row, device, *args):
        """Runs a golden's layer; shape and values of y, and of ids."""
        y, ids = self.folder / 'y.npy', self.folder / 'ids.npy'
        done = helper.run('run', model, *inputs(row), '-o', y, '--ids', ids, '-d', device, *args)
        self.assertEqual((done.returncode, done.stdout), (0, ''), done.stderr)
        result = helper.read_npy(y), helper.read_npy(ids)
        y.unlink()
        ids.unlink()
        return result


def drop(header, data, name):
    """The file without a tensor, and without its bytes."""
    begin, end = header.pop(name)['data_offsets']
    for key, entry in header.items():
        if key != '__metadata__' and entry['data_offsets'][0] >= end:
            entry['data_offsets'] = [at - (end - begin) for at in entry['data_offsets']]
    return header, data[:begin] + data[end:]


def set_bytes(header, data, name, format_, values):
    begin, end = header[name]['data_offsets']
    packed = struct.pack(format_, *values)
    data[begin:begin + len(packed)] = packed
    assert begin + len(packed) <= end
