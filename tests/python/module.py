# SPDX-License-Identifier: MIT
"""tools/vkmoe.py: its structures are those of the headers, its numbers those of the program.

usage: module.py TOOLS_FOLDER LIBRARY_FOLDERS INCLUDE_FOLDER COMPILER...
"""
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

TOOLS, LIBRARIES, INCLUDE, *COMPILER = sys.argv[1:]
del sys.argv[1:]
os.environ['VKMOE_LIBRARIES'] = LIBRARIES
sys.path.insert(0, TOOLS)

import numpy as np  # noqa: E402

import vkmoe  # noqa: E402

FAMILIES = pathlib.Path(__file__).parent.parent / 'golden/families'
ROWS = {row['model']: row for row in json.loads((FAMILIES / 'families.json').read_text())}
MODEL = pathlib.Path(__file__).parent.parent / 'data' / 'digits-moe.safetensors'


def c_name(structure):
    """vkmoe_layer_desc of LayerDesc."""
    words = ''.join('_' + c.lower() if c.isupper() else c for c in structure.__name__)
    return 'vkmoe' + words


def compiles(structures):
    """Does a C compiler find each field where ctypes has it?"""
    lines = ['#include <stddef.h>', '#include <vkmoe/checkpoint.h>', '#include <vkmoe/train.h>']
    for structure in structures:
        name = c_name(structure)
        lines.append(f'_Static_assert(sizeof({name}) == {ctypes.sizeof(structure)}, "");')
        for field, *_ in structure._fields_:
            at = getattr(structure, field)
            lines.append(f'_Static_assert(offsetof({name}, {field}) == {at.offset} && '
                         f'sizeof((({name} *) 0)->{field}) == {at.size}, "");')
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, 'layout.c')
        source.write_text('\n'.join(lines) + '\n')
        done = subprocess.run([*COMPILER, '-std=c11', '-fsyntax-only', '-I', INCLUDE, source],
                              capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stderr


def softmax(v):
    e = np.exp(v - v.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def random_layer(seed):
    """Arrays of a layer, and what it gives in f64: softmax, best 2, gated silu."""
    r = np.random.default_rng(seed)
    w = {'router': r.normal(size=(5, 8)), 'gate': r.normal(size=(5, 12, 8)),
         'up': r.normal(size=(5, 12, 8)), 'down': r.normal(size=(5, 6, 12))}
    x = r.normal(size=(7, 8))
    w, x = {k: v.astype(np.float32) for k, v in w.items()}, x.astype(np.float32)
    scores = softmax(x.astype(float) @ w['router'].T)
    ids = np.argsort(-scores, axis=1, kind='stable')[:, :2]
    y = np.zeros((7, 6))
    for t in range(7):
        for e in ids[t]:
            g, u = w['gate'][e].astype(float) @ x[t], w['up'][e].astype(float) @ x[t]
            y[t] += scores[t, e] * (w['down'][e].astype(float) @ (g / (1 + np.exp(-g)) * u))
    return w, x, ids, np.take_along_axis(scores, ids, 1), y, scores


FIELDS = {'top_k': 2, 'act': 'silu'}


class Structures(unittest.TestCase):
    def test_fields_are_where_c_has_them(self):
        structures = [s for s in vars(vkmoe).values() if isinstance(s, type)
                      and issubclass(s, ctypes.Structure) and s is not ctypes.Structure]
        self.assertGreater(len(structures), 12)
        self.assertEqual(compiles(structures), (True, ''))

    def test_a_wrong_field_is_seen(self):
        wrong = type('Io', (ctypes.Structure,), {'_fields_': vkmoe.Io._fields_[:-1]})
        self.assertFalse(compiles([wrong])[0])


class Layers(unittest.TestCase):
    def setUp(self):
        self.context = vkmoe.Context('cpu', threads=1)
        self.addCleanup(self.context.close)

    def test_arrays(self):
        w, x, ids, gates, y, scores = random_layer(1)
        layer = self.context.layer(FIELDS, **w)
        out = layer.run(x, scores=True)
        np.testing.assert_array_equal(out.ids, ids)
        np.testing.assert_allclose(out.gates, gates, rtol=1e-5)
        np.testing.assert_allclose(out.scores, scores, rtol=1e-5)
        np.testing.assert_allclose(out.y, y, rtol=1e-4, atol=1e-4)
        self.assertIsNone(layer(x).scores)
        wrong = dict(w, router=w['router'][::-1])
        self.assertGreater(np.abs(self.context.layer(FIELDS, **wrong)(x).y - y).max(), 0.1)

    def test_more_rows_than_before(self):
        w, x, *_ = random_layer(2)
        layer = self.context.layer(FIELDS, **w)
        first = layer(x[:1]).y
        many = layer(np.concatenate([x] * 30)).y
        self.assertEqual(many.shape, (210, 6))
        np.testing.assert_array_equal(many[7 * 29], many[0])
        np.testing.assert_allclose(first[0], many[0], rtol=1e-4, atol=1e-5)
        self.assertEqual(layer(x[:0]).y.shape, (0, 6))

    def test_gradients(self):
        w, x, *_ = random_layer(3)
        layer = self.context.layer(FIELDS, **w)
        dy = np.random.default_rng(4).normal(size=(7, 6)).astype(np.float32)
        grads = layer.gradients(x, dy)
        self.assertEqual(grads['gate'].shape, (5, 12, 8))
        step = 1e-3

        def loss(**changed):
            return float((self.context.layer(FIELDS, **{**w, **changed})(x).y * dy).sum())
        for name in ['router', 'gate', 'up', 'down']:
            index = tuple(i // 2 for i in w[name].shape)
            sides = []
            for sign in (-1, 1):
                moved = w[name].copy()
                moved[index] += sign * step
                sides.append(loss(**{name: moved}))
            got = grads['router.weight' if name == 'router' else name][index]
            self.assertAlmostEqual(got, (sides[1] - sides[0]) / (2 * step),
                                   delta=0.02 * max(1, abs(got)))

    def test_shared_expert(self):
        w, x, _, _, y, _ = random_layer(5)
        shared = {'shared_up': w['up'][0], 'shared_gate_proj': w['gate'][0],
                  'shared_down': w['down'][0]}
        layer = self.context.layer(FIELDS, **w, **shared)
        g, u = x @ w['gate'][0].T, x @ w['up'][0].T
        more = (g / (1 + np.exp(-g)) * u) @ w['down'][0].T
        np.testing.assert_allclose(layer(x).y, y + more, rtol=1e-3, atol=1e-3)
        grads = layer.gradients(x, np.ones((7, 6)))
        self.assertEqual(grads['shared.up'].shape, (12, 8))
        self.assertGreater(np.abs(grads['shared.down']).max(), 0)

    def test_model_file(self):
        layer = self.context.load(MODEL)
        x = np.random.default_rng(6).normal(size=(9, layer.desc.d_model))
        out = layer(x)
        with vkmoe.Context('reference') as reference:
            want = reference.load(MODEL)(x)
        np.testing.assert_array_equal(out.ids, want.ids)
        np.testing.assert_allclose(out.y, want.y, rtol=1e-4, atol=1e-5)

    def test_published_models(self):
        for name in ['mixtral', 'gpt_oss', 'qwen2_moe/model.gguf', 'gemma4', 'deepseek_v4_hash']:
            row = ROWS[name]
            arrays = {key: np.load(FAMILIES / row[key]) for key in
                      ['x', 'y', 'router_input', 'token_ids'] if key in row}
            want = arrays.pop('y')
            out = self.context.load(FAMILIES / name, row['layer'])(**arrays)
            self.assertLess(np.linalg.norm(out.y - want), 1e-5 * np.linalg.norm(want), name)

    def test_types(self):
        w, x, _, _, y, _ = random_layer(7)
        got = self.context.layer(FIELDS, **w, in_type='bf16', out_type='f16')(x).y
        difference = np.linalg.norm(got - y) / np.linalg.norm(y)
        self.assertTrue(1e-5 < difference < 2e-2, difference)


class Wrong(unittest.TestCase):
    def setUp(self):
        self.context = vkmoe.Context('cpu')
        self.addCleanup(self.context.close)

    def test_the_library_says_why(self):
        with self.assertRaisesRegex(vkmoe.Error, 'no-such-device') as caught:
            vkmoe.Context('no-such-device')
        self.assertEqual(caught.exception.status, 'VKMOE_E_NO_DEVICE')
        with self.assertRaisesRegex(vkmoe.Error, 'nowhere'):
            self.context.load('nowhere')
        w = random_layer(1)[0]
        with self.assertRaisesRegex(vkmoe.Error, 'top_k = 9'):
            self.context.layer({'top_k': 9}, **w)
        with self.assertRaisesRegex(vkmoe.Error, 'no_such_field'):
            self.context.layer({'no_such_field': 1}, **w)

    def test_shapes(self):
        w, x, *_ = random_layer(1)
        layer = self.context.layer(FIELDS, **w)
        for bad in (x[:, :5], x[0], x[None]):
            with self.assertRaisesRegex(ValueError, r'x has shape'):
                layer(bad)
        with self.assertRaisesRegex(ValueError, r'dy has shape \(7, 5\)'):
            layer.gradients(x, np.zeros((7, 5)))
        with self.assertRaisesRegex(ValueError, r'down has shape'):
            self.context.layer(FIELDS, **dict(w, down=w['down'][:4]))
        with self.assertRaisesRegex(ValueError, 'no such tensor: sideways'):
            self.context.layer(FIELDS, **w, sideways=x)
        with self.assertRaisesRegex(ValueError, 'q9_9'):
            self.context.layer(FIELDS, **w, in_type='q9_9')
        with self.assertRaisesRegex(vkmoe.Error, 'router_x'):
            layer(x, router_input=x)

    def test_closed(self):
        w, x, *_ = random_layer(1)
        layer = self.context.layer(FIELDS, **w)
        layer.close()
        layer.close()
        with self.assertRaisesRegex(ValueError, 'closed'):
            layer(x)

    def test_devices(self):
        self.assertEqual(vkmoe.devices()[-1]['type'], 3)


if __name__ == '__main__':
    unittest.main()
