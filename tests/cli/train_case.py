# SPDX-License-Identifier: MIT
"""What tests of vkmoe train share: a small configuration, and command lines that train it."""
import json
import pathlib

import helper
from helper import run

TRAIN = helper.DATA / 'digits-train.csv'


def small(**train):
    """A configuration for the digits that trains in no time, with all that draws numbers."""
    return {
        'task': 'classify',
        'input': {'kind': 'standardize', 'n_features': 64},
        'layers': [
            {'kind': 'moe', 'd_ff': 8, 'd_out': 10, 'n_experts': 4, 'top_k': 2,
             'router': {'score': 'softmax', 'order': 'score_then_topk', 'renormalize': True,
                        'noisy': True, 'load_balance': 0.01, 'selection_bias': True,
                        'bias_rate': 0.001},
             'expert': {'activation': 'relu', 'bias': True, 'dropout': 0.1}}],
        'head': 'softmax',
        'train': {'optimiser': {'kind': 'adamw', 'rate': 0.01}, 'batch': 64, 'epochs': 4,
                  'input_noise': 0.1, **train},
    }


class TrainCase(helper.Case):
    def config(self, value, name='c.json'):
        path = self.folder / name
        path.write_text(json.dumps(value))
        return path

    def arguments(self, config, *more, data=TRAIN, device='cpu'):
        """A command line that trains on the digits; its model is m.safetensors."""
        if not isinstance(config, pathlib.Path):
            config = self.config(config)
        return ['train', config, '--data', data, '-o', self.folder / 'm.safetensors', '-d', device,
                '--log', 'error', *more]

    def train(self, config, *more, **how):
        done = run(*self.arguments(config, '--json', *more, **how))
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def fails(self, part, config, *more, code=1, **how):
        self.check_fails(code, part, *self.arguments(config, *more, **how))
        self.assertFalse((self.folder / 'm.safetensors').exists())

    def model(self):
        return (self.folder / 'm.safetensors').read_bytes()
