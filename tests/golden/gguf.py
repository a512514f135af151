# SPDX-License-Identifier: MIT
"""A file of the Python package gguf, for tests/golden/gguf.c, and the other way:
gguf.py OUT.gguf writes it, gguf.py --read IN.gguf prints what that package finds in a file.
"""
import sys

# Else `import gguf` finds this file.
sys.path = [path for path in sys.path if path != sys.path[0]]
import gguf  # noqa: E402
import numpy as np  # noqa: E402

TYPES = gguf.GGMLQuantizationType


def write(path):
    x = ((np.arange(256, dtype=np.float32) * 37) % 101 - 50) / 32
    x = x.reshape(2, 2, 64)
    w = gguf.GGUFWriter(path, 'test')
    w.add_uint8('u8', 200)
    w.add_int8('i8', -5)
    w.add_uint16('u16', 60000)
    w.add_int16('i16', -30000)
    w.add_uint32('u32', 4000000000)
    w.add_int32('i32', -7)
    w.add_uint64('u64', 2**63)
    w.add_int64('i64', -2**62)
    w.add_float32('f32', 0.1)
    w.add_float64('f64', 0.1)
    w.add_bool('bool', True)
    w.add_string('string', 'gr\u00fcn')
    w.add_array('ints', [1, 2, 3])
    w.add_array('floats', [0.5, -1.0])
    w.add_array('texts', ['a', '', 'ccc'])
    w.add_array('bools', [True, False, True])
    w.add_tensor('f32.weight', x)
    w.add_tensor('f16.weight', x[0].astype(np.float16))
    w.add_tensor('ids', np.arange(6, dtype=np.int32).reshape(2, 3))
    for kind in (TYPES.BF16, TYPES.Q8_0, TYPES.Q4_0):
        w.add_tensor(kind.name.lower(), gguf.quants.quantize(x, kind), raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read(path):
    reader = gguf.GGUFReader(path)
    for field in reader.fields.values():
        print(field.name, [kind.name for kind in field.types], field.contents())
    for t in reader.tensors:
        print(t.name, t.tensor_type.name, t.shape.tolist(), t.n_bytes, sum(t.data.tobytes()))


if __name__ == '__main__':
    if sys.argv[1] == '--read':
        read(sys.argv[2])
    else:
        write(sys.argv[1])
