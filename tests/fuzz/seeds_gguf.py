# SPDX-License-Identifier: MIT
"""The corpus of the target gguf: a seed for each rule of the format."""
import struct

FORMATS = ['B', 'b', 'H', 'h', 'I', 'i', 'f', '?', 'text', 'array', 'Q', 'q', 'd']
ALIGNMENT = 'general.alignment'
U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64 = range(13)


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack('<Q', len(value)) + value


def element(kind, value):
    if isinstance(value, bytes):
        return value
    return text(value) if kind == TEXT else struct.pack('<' + FORMATS[kind], value)


def key(name, kind, value, n=None):
    """A key with its value; a list is an array."""
    if not isinstance(value, list):
        return text(name) + struct.pack('<I', kind) + element(kind, value)
    n = len(value) if n is None else n
    return (text(name) + struct.pack('<IIQ', ARRAY, kind, n) +
            b''.join(element(kind, x) for x in value))


def tensor(name, dims, kind, offset):
    return (text(name) + struct.pack('<I', len(dims)) +
            b''.join(struct.pack('<Q', d % 2**64) for d in dims) +
            struct.pack('<IQ', kind, offset % 2**64))


def gguf(keys, tensors, n_data, **more):
    """A file; its first byte is the target's: is it the first of two parts?"""
    align = more.get('align', 32)
    head = b'GGUF' + struct.pack('<IQQ', more.get('version', 3),
                                 more.get('n_tensors', len(tensors)) % 2**64,
                                 more.get('n_keys', len(keys)) % 2**64)
    head += b''.join(keys) + b''.join(tensors)
    return bytes([more.get('split', 0)]) + head + bytes(-len(head) % align) + bytes(
        i % 256 for i in range(n_data))


def seeds():
    a, b = tensor('a', [8], 0, 0), tensor('b', [8], 0, 32)
    yield 'good-empty', gguf([], [], 0)
    yield 'good-one', gguf([], [a], 32)
    yield 'good-version-2', gguf([], [a], 32, version=2)
    yield 'good-two', gguf([], [a, b], 64)
    yield 'good-trailing', gguf([], [a], 37)
    yield 'good-hole', gguf([], [a, tensor('b', [1], 0, 64)], 68)
    yield 'good-out-of-order', gguf([], [b, a], 64)
    yield 'good-no-dims', gguf([], [tensor('a', [], 0, 0)], 4)
    yield 'good-no-elements', gguf([], [tensor('e', [0, 7], 2, 0), a], 32)
    for kind, n, size in ((0, 1, 4), (1, 1, 2), (2, 32, 18), (8, 32, 34), (12, 256, 144),
                          (14, 256, 210), (16, 256, 66), (20, 32, 18), (26, 1, 4), (30, 1, 2),
                          (35, 256, 66), (39, 32, 17), (40, 64, 36), (42, 64, 18)):
        yield f'good-type-{kind}', gguf([], [tensor('a', [n, 2, 1, 1], kind, 0)], 2 * size)
        yield f'bad-type-{kind}-short', gguf([], [tensor('a', [n, 2], kind, 0)], 2 * size - 1)
    for kind in (4, 5, 31, 33, 36, 38, 43, 2**32 - 1):
        yield f'bad-type-{kind}', gguf([], [tensor('a', [256], kind, 0)], 4096)
    numbers = [key(f'k{kind}', kind, 1) for kind in range(13) if kind not in (TEXT, ARRAY)]
    arrays = [key(f'a{kind}', kind, [0, 1]) for kind in range(13) if kind not in (TEXT, ARRAY)]
    yield 'good-numbers', gguf(numbers + [key('m', I64, -1), key('n', F32, -0.5)], [], 0)
    yield 'good-arrays', gguf(arrays + [key('none', U8, [])], [], 0)
    yield 'good-texts', gguf([key('t', TEXT, 'text'), key('z', TEXT, 'a\0b'),
                              key('ts', TEXT, ['', 'x', '\u00e9'])], [a], 32)
    for align in (8, 64, 4096):
        yield f'good-align-{align}', gguf([key(ALIGNMENT, U32, align)], [a], 32, align=align)
    for align in (0, 1, 4, 48, 2**21, 2**31):
        yield f'bad-align-{align}', gguf([key(ALIGNMENT, U32, align)], [a], 32)
    yield 'bad-align-u64', gguf([key(ALIGNMENT, U64, 32)], [a], 32)
    yield 'bad-align-array', gguf([key(ALIGNMENT, U32, [32])], [a], 32)
    whole = gguf(numbers, [a], 32)
    yield 'bad-nothing', b''
    yield 'bad-short', b'\0GGUF'
    yield 'bad-magic', whole.replace(b'GGUF', b'GGML')
    for version in (0, 1, 4, 0x03000000):
        yield f'bad-version-{version}', gguf([], [a], 32, version=version)
    for n in (2, 2**31, 2**63, -1):
        yield f'bad-tensors-{n}', gguf([], [a], 0, align=1, n_tensors=n)
        yield f'bad-keys-{n}', gguf([numbers[0]], [], 0, align=1, n_keys=n)
    for n in (9, 60, len(whole) - 33):
        yield f'bad-truncated-{n}', whole[:n]
    for name, bad in {
            'empty': key('', U8, 1), 'zero': key('k\0', U8, 1),
            'ascii': key('\u00e9', U8, 1), 'control': key('a\n', U8, 1),
            'long': key('k' * 65536, U8, 1), 'type': text('k') + b'\x0d' + bytes(12),
            'element': text('k') + struct.pack('<IIQ', ARRAY, 13, 1) + b'1',
            'nested': text('k') + struct.pack('<IIQ', ARRAY, ARRAY, 1) + bytes(24),
            'bool': key('k', BOOL, b'\2'), 'bools': key('k', BOOL, [False, b'\2']),
            'text-beyond': key('k', TEXT, struct.pack('<Q', 9999) + b'a'),
            'text-2-63': key('k', TEXT, struct.pack('<Q', 2**63) + b'a'),
            'count': key('k', U32, [1], 1000), 'count-2-61': key('k', U64, [1], 2**61 + 1),
            'texts': key('k', TEXT, ['a'], 1000)}.items():
        yield 'bad-key-' + name, gguf([bad], [a], 32)
    yield 'bad-key-twice', gguf([numbers[0], numbers[1], numbers[0]], [a], 32)
    for name, tensors in {
            'empty': [tensor('', [8], 0, 0)], 'zero': [tensor('a\0', [8], 0, 0)],
            'long': [tensor('n' * 64, [8], 0, 0)], 'twice': [a, tensor('a', [8], 0, 32)],
            'dims': [tensor('a', [1] * 5, 0, 0)], 'negative': [tensor('a', [-8], 0, 0)],
            'huge-dim': [tensor('a', [0, 2**49], 0, 0)],
            'product': [tensor('a', [2**40, 2**40, 0], 0, 0)],
            'size': [tensor('a', [2**47, 2**15], 0, 0)],
            'block': [tensor('a', [33], 2, 0)], 'no-block': [tensor('a', [], 2, 0)],
            'unaligned': [tensor('a', [1], 0, 4)], 'beyond': [a, tensor('b', [8], 0, 64)],
            'far': [tensor('a', [8], 0, -32)], 'alias': [a, tensor('b', [8], 0, 0)],
            'overlap': [tensor('a', [9], 0, 0), b]}.items():
        yield 'bad-tensor-' + name, gguf([], tensors, 64)

    def part(no, count, n, tensors=(a,), kind=U16):
        return gguf([key('split.no', kind, no), key('split.count', kind, count),
                     key('split.tensors.count', I32, n)], list(tensors), 32, split=1)
    yield 'good-split', part(0, 2, 2)
    yield 'good-split-alone', b'\0' + part(0, 1, 1)[1:]
    for name, data in {
            'no-keys': gguf([], [a], 32, split=1), 'no': part(1, 2, 2), 'count': part(0, 3, 2),
            'alone': part(0, 1, 1), 'zero': part(0, 0, 2), 'tensors': part(0, 2, 3),
            'total': part(0, 2, 2, ()), 'alias': part(0, 2, 2, (tensor('z', [1], 0, 0),)),
            'type': part(0.0, 2.0, 2, kind=F32), 'name': b'\0' + part(0, 2, 2)[1:],
            'huge': part(0, 2**32 - 1, 2, kind=U32)}.items():
        yield 'bad-split-' + name, data
