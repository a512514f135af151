# SPDX-License-Identifier: MIT
"""What the tests of the program share: running it, and reading and writing its files."""
import array
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

PROGRAM = sys.argv.pop(1) if len(sys.argv) > 1 else 'vkmoe'
DATA = pathlib.Path(__file__).parent.parent / 'data'
MODEL = DATA / 'digits-moe.safetensors'
DIGITS = DATA / 'digits-test.csv'


def run(*args, env=None):
    return subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=120,
                          env={**os.environ, **(env or {})}, check=False)


def start(*args):
    return subprocess.Popen([PROGRAM, *map(str, args)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def read_terminal(terminal):
    """What is written to a terminal until its other end is closed."""
    text = b''
    try:
        while part := os.read(terminal, 4096):
            text += part
    except OSError:
        pass  # how Linux says that the other end is closed
    return text


def read_model(path=MODEL):
    """The header of a safetensors file as a dict, and its data as a bytearray."""
    content = path.read_bytes()
    n_header = struct.unpack('<Q', content[:8])[0]
    return json.loads(content[8:8 + n_header]), bytearray(content[8 + n_header:])


def write_model(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + data)
    return path


def read_npy(path):
    """Shape and values of a version 1 array of f4 or i4."""
    content = path.read_bytes()
    n_header = struct.unpack('<H', content[8:10])[0]
    header = eval(content[10:10 + n_header])  # a Python literal, by the format's definition
    code = {'<f4': 'f', '<i4': 'i'}[header['descr']]
    return header['shape'], array.array(code, content[10 + n_header:])


def write_npy(path, values, shape):
    descr = {'f': '<f4', 'i': '<i4'}[values.typecode]
    header = repr({'descr': descr, 'fortran_order': False, 'shape': shape}).encode() + b'\n'
    path.write_bytes(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header
                     + values.tobytes())
    return path


class Case(unittest.TestCase):
    """A test with a folder of its own; at its end nothing unexpected may lie there."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def check_fails(self, code, part, *args):
        """The command ends with this code, says why on stderr, and leaves stdout empty."""
        done = run(*args)
        self.assertEqual(done.returncode, code, f'{args}: {done.stderr}')
        self.assertIn(part, done.stderr, args)
        self.assertEqual(done.stdout, '', args)

    def check_files(self, *names):
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), sorted(names))
