# SPDX-License-Identifier: MIT
"""The programs that bench_peers.py compares: how each is started, and what its answer means.

A peer prints one line of JSON with `ms`, `experts_hit`, `blocks`, `clean_blocks`, `probe_fma`
(GFLOP/s of f32) and `probe_bw` (GB/s), or with `error`. The probes are taken between its timed
blocks, and blocks beside which a core was missing are not clean. vkmoe prints `vkmoe-bench/1`.
"""
import dataclasses
import json
import pathlib
import platform
import subprocess

TIME_LIMIT = 600  # seconds that one program may take for one cell
MAX_PROBE_THREADS = 2  # the peers' probes use no more


@dataclasses.dataclass(frozen=True)
class Shape:
    name: str
    n_experts: int
    top_k: int
    d_model: int
    d_ff: int
    d_shared_ff: int = 0  # of the shared experts together
    preset: str = ''  # of `vkmoe bench`

    def text(self, separator=','):
        return separator.join(map(str, (self.n_experts, self.top_k, self.d_model, self.d_ff)))


# Those the peers know by name. Their router is softmax, top k, gate weights that sum to 1; experts
# are gated silu.
SHAPES = {s.name: s for s in (
    Shape('granite', 32, 8, 1024, 512, 0, 'granite-1b-a400m'),
    Shape('olmoe', 64, 8, 2048, 1024, 0, 'olmoe-1b-7b'),
    Shape('qwen3', 128, 8, 2048, 768, 0, 'qwen3-30b-a3b'),
    Shape('gptoss', 32, 4, 2880, 2880, 0, 'gpt-oss-20b'),
    Shape('dsv2lite', 64, 6, 2048, 1408, 2816, 'deepseek-v2-lite'),
    Shape('mixtral', 8, 2, 4096, 14336, 0, 'mixtral-8x7b'),
)}
PRESETS = {s.preset: s for s in SHAPES.values()}

# Bytes of a weight, and how many multiply-adds with it a CPU makes in the time of one in f32.
TYPES = {
    'f32': (4, 1), 'f16': (2, 1), 'bf16': (2, 2), 'q8_0': (34 / 32, 4), 'q4_0': (18 / 32, 4),
    'q4_K': (144 / 256, 4), 'q5_K': (176 / 256, 4), 'q6_K': (210 / 256, 4), 'mxfp4': (17 / 32, 4),
    'iq4_nl': (18 / 32, 4),
}
OUR_TYPES = tuple(t for t in TYPES if t != 'iq4_nl')


@dataclasses.dataclass(frozen=True)
class Cell:
    shape: Shape
    type: str
    n_tokens: int
    n_threads: int


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the machine could do beside a run: bytes/s, and operations/s of the cell's type."""
    read_rate: float
    peak: float


@dataclasses.dataclass
class Run:
    status: str  # ok, unsupported, noisy (every block lost a core), error
    reason: str = ''
    ms: float = None
    experts_hit: float = None
    limits: Limits = None
    own_percent: float = None  # of the floor that vkmoe itself reports


def floor_ms(cell, experts_hit, limits):
    """The same rule for every program: bytes of the experts that are hit, of the shared ones and of
    the router, and the operations of the matmuls."""
    s, size = cell.shape, TYPES[cell.type][0]
    width = s.top_k * s.d_ff + s.d_shared_ff
    read = (3 * s.d_model * (experts_hit * s.d_ff + s.d_shared_ff) * size
            + 4 * s.d_model * s.n_experts)
    operations = cell.n_tokens * (6 * s.d_model * width + 2 * s.d_model * s.n_experts)
    return 1e3 * max(read / limits.read_rate, operations / limits.peak)


def call(command):
    """Exit code, stdout and stderr; None as code: it did not start or end, stderr says why."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=TIME_LIMIT, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        return None, '', f'took more than {TIME_LIMIT} s'
    except OSError as error:
        return None, '', f'{command[0]}: {error.strerror}'
    return done.returncode, done.stdout, done.stderr


def failed(code, errors):
    last = errors.strip().split('\n')[-1]
    return Run('error', last if code is None else f'exit {code}: {last}')


class Ours:
    name = 'vkmoe'

    def __init__(self, options):
        self.options = options

    def takes(self, cell):
        return cell.type in OUR_TYPES

    def command(self, cell):
        o, s = self.options, cell.shape
        layer = ['-m', s.preset, '--plain'] if s.d_shared_ff else ['--shape', s.text()]
        command = [o.vkmoe, 'bench', '-d', o.device, *layer, '--type', cell.type, '-n',
                   str(cell.n_tokens), '--threads', str(cell.n_threads), '--format', 'json',
                   '--log', 'error', '--min-time', str(o.min_time)]
        return command + (['--precision', o.precision] if o.precision else [])

    def run(self, cell):
        if not self.takes(cell):
            return Run('unsupported', 'unsupported by us yet')
        code, text, errors = call(self.command(cell))
        try:
            file = json.loads(text)
            (row,) = file['rows']
            return self.read(cell, file['devices'][row['device']], row)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return failed(code, errors or 'no row of vkmoe-bench/1 in its output')

    def read(self, cell, device, row):
        if row['status'] != 'ok':
            status = 'unsupported' if row['status'] == 'unsupported' else 'error'
            return Run(status, f"{row['status']}: {row['reason']}")
        # On a CPU in the peers' terms: the f32 peak, times what the type could gain.
        peak = row['peak']
        if device['type'] == 'cpu':
            f32 = peak if row['arithmetic'] == 'f32' else device['peak']['f32']
            peak = f32 * TYPES[cell.type][1]
        noisy = row['n_blocks'] > 0 and row['n_dropped_blocks'] == row['n_blocks']
        own = row.get('floor_fraction')
        return Run('noisy' if noisy else 'ok', 'no clean block' if noisy else '',
                   row['device_times']['median_us'] / 1e3, row['n_experts_hit'],
                   Limits(row['read_rate'], peak), None if own is None else 100 * own)


class Peer:
    def __init__(self, name, words, types, options, any_shape=False, backends=('cpu',)):
        self.name, self.words, self.types, self.options = name, words, types, options
        self.any_shape, self.backends = any_shape, backends

    def takes(self, cell):
        return (cell.type in self.types and self.options.backend in self.backends
                and (self.any_shape or (cell.shape.name in SHAPES and not cell.shape.d_shared_ff)))

    def own_probes(self, cell):
        return self.options.backend == 'cpu' and cell.n_threads <= MAX_PROBE_THREADS

    def command(self, cell):
        s, o = cell.shape, self.options
        shape = s.name if s.name in SHAPES else f'{s.d_model},{s.d_ff},{s.n_experts},{s.top_k}'
        command = [*self.words, '--shape', shape, '--type', cell.type, '--tokens',
                   str(cell.n_tokens), '--threads', str(cell.n_threads), '--min-time',
                   str(o.min_time)]
        if len(self.backends) > 1:
            command += ['--backend', o.backend] + ([] if o.backend == 'cpu' else ['--no-probe'])
        return command

    def run(self, cell):
        if not self.takes(cell):
            return Run('unsupported', 'not offered by it')
        code, text, errors = call(self.command(cell))
        try:
            line = json.loads(text)
            if 'error' in line:
                noisy = line['error'].startswith('no clean block')
                return Run('noisy' if noisy else 'unsupported', line['error'])
            return self.read(cell, line) if code == 0 else failed(code, errors)
        except (KeyError, TypeError, ValueError):
            return failed(code, errors or 'no line of JSON in its output')

    def read(self, cell, line):
        if not line['finite']:
            return Run('error', 'its outputs are not finite')
        noisy = self.own_probes(cell) and line['clean_blocks'] == 0
        limits = None
        if self.own_probes(cell):
            limits = Limits(line['probe_bw'] * 1e9, line['probe_fma'] * 1e9 * TYPES[cell.type][1])
        return Run('noisy' if noisy else 'ok', 'no clean block' if noisy else '', line['ms'],
                   line['experts_hit'], limits)


def peers(options):
    """What can be had at options.chroot: a chroot with /peers, or a folder with moepeer."""
    folder = pathlib.Path(options.chroot)
    quantised = tuple(TYPES)
    if (folder / 'moepeer').exists():
        return [Peer('ggml', [str(folder / 'moepeer')], quantised, options, True,
                     ('cpu', 'vulkan'))]
    enter = ['chroot', str(folder)]
    # Of Debian's two OpenBLAS, the one that shares its threads with PyTorch.
    blas = f'LD_LIBRARY_PATH=/usr/lib/{platform.machine()}-linux-gnu/openblas-openmp'
    torch = [*enter, 'env', blas, 'python3', '/peers/moetorch.py']
    both = ('f32', 'bf16')
    found = {
        'moepeer': [Peer('ggml', [*enter, '/peers/moepeer'], quantised, options, True,
                         ('cpu', 'vulkan'))],
        'moedense-onednn': [Peer('onednn', [*enter, '/peers/moedense-onednn'], both, options)],
        'moetorch.py': [Peer(f'torch-{mode}', [*torch, '--mode', mode], both, options)
                        for mode in ('loop', 'grouped')],
    }
    return [p for file, of_file in found.items() if (folder / 'peers' / file).exists()
            for p in of_file]
