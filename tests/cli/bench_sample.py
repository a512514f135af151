# SPDX-License-Identifier: MIT
"""Files of results as `vkmoe bench` writes them, made up: two devices, forty rows, every status.
As a program it prints one: bench_sample.py > sample.json"""
import json
import math
import random
import statistics

MODELS = {  # name: experts, top k, model, ff, shared ff
    'granite-1b-a400m': (32, 8, 1024, 512, 0),
    'qwen1.5-moe-a2.7b': (60, 4, 2048, 1408, 5632),
}
TOKENS = [1, 8, 64, 512, 2048]
TYPES = {'bf16': 2.0, 'q4_0': 0.5625}  # bytes of a weight
ARITHMETICS = ['f32', 'f16', 'bf16', 'int8', 'f16-matrix', 'bf16-matrix', 'int8-matrix']


def quantile(samples, p):
    """By linear interpolation; what the program calls median, p5, p95."""
    ordered = sorted(samples)
    at = p * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def times(samples):
    if not samples:
        return {'median_us': None, 'p5_us': None, 'p95_us': None, 'mad_us': None, 'samples_us': []}
    median = quantile(samples, 0.5)
    return {'median_us': median, 'p5_us': quantile(samples, 0.05),
            'p95_us': quantile(samples, 0.95),
            'mad_us': quantile([abs(s - median) for s in samples], 0.5), 'samples_us': samples}


def device(index, kind, name, **more):
    peaks = {a: more.get('peaks', {}).get(a) for a in ARITHMETICS}
    return {'index': index, 'type': kind, 'name': name, 'uuid': f'{index:032x}',
            'pci': more.get('pci', ''), 'vendor_id': more.get('vendor_id', 0),
            'device_id': more.get('device_id', 0), 'driver': more.get('driver', ''),
            'driver_version': more.get('driver_version', ''), 'api': more.get('api', ''),
            'memory_bytes': more['memory_bytes'], 'tier': more['tier'],
            'features': more.get('features', ''), 'n_threads': more.get('n_threads', 0),
            'read_rate': more['read_rate'], 'dispatch_us': more['dispatch_us'], 'peak': peaks,
            'one_thread_peak': more.get('one_thread_peak'), 'cache_size': more.get('cache_size', 0)}


DEVICES = [
    device(0, 'discrete', 'Example GPU 16 GB', pci='0000:03:00.0', vendor_id=0x1002,
           device_id=0x7550, driver='radv', driver_version='26.1.2', api='1.4.303',
           memory_bytes=16 << 30, tier='T2 matrix', features='fp16 int8 matrix', read_rate=5.6e11,
           dispatch_us=3.1, peaks={'f32': 2.1e13, 'f16': 4.2e13, 'f16-matrix': 8.4e13}),
    device(1, 'cpu', 'Example CPU', memory_bytes=32 << 30, tier='avx2', n_threads=8,
           read_rate=4.1e10, dispatch_us=1.4, peaks={'f32': 6.1e11}, one_thread_peak=8.8e10,
           cache_size=32 << 20),
]


def key(model, weights, n_tokens, place, **more):
    n_experts, top_k, d_model, d_ff, d_shared_ff = MODELS[model]
    return {'model': model, 'n_experts': n_experts, 'top_k': top_k, 'd_model': d_model,
            'd_ff': d_ff, 'd_shared_ff': d_shared_ff, 'rule': 'softmax norm',
            'expert': 'gated silu', 'type': weights, 'x_type': weights, 'precision': 'half',
            'mode': 'forward', 'routing': 'uniform', 'n_tokens': n_tokens, 'seed': 1,
            'n_threads': DEVICES[place]['n_threads'], **more}


def expert_rows(rng, k):
    rows = [0] * k['n_experts']
    for _ in range(k['n_tokens']):
        for expert in rng.sample(range(k['n_experts']), k['top_k']):
            rows[expert] += 1
    return rows


def blank(place, k):
    """A row that says nothing but its key."""
    nothing = times([])
    return {'case': '/'.join([k['model'], k['type'], k['precision'], f"t{k['n_tokens']}",
                              k['routing']]),
            'device': place, 'key': k, 'kernel': '', 'status': 'skipped', 'reason': '',
            'verify': {'state': 'none', 'reference': '', 'error': None, 'limit': None,
                       'n_rows': 0},
            'device_times': nothing, 'wall_times': nothing, 'n_cold': 0, 'plateau': False,
            'n_blocks': 0, 'n_dropped_blocks': 0, 'first_call_ms': None, 'bytes': None,
            'flops': None, 'bytes_per_s': None, 'flops_per_s': None, 'tokens_per_s': None,
            'read_rate': None, 'peak': None, 'dispatch_us': None, 'arithmetic': '',
            'n_dispatches': 0, 'floor_us': None, 'floor_fraction': None, 'bound': 'none',
            'n_experts_hit': 0, 'min_rows': 0, 'max_rows': 0, 'cv_rows': None, 'expert_rows': [],
            'n_copies': 0, 'device_bytes': None, 'clock_mhz': None, 'clock_min_mhz': None,
            'clock_source': '', 'power_w': None, 'power_source': '', 'counted': False,
            'counters': {'weight_loads': 0, 'router_loads': 0, 'live_columns': 0,
                         'padded_columns': 0, 'workgroups': 0, 'idle_workgroups': 0,
                         'dispatches': 0},
            'rereads': None, 'useful_fraction': None, 'dispatches': []}


def set_samples(row, samples):
    """Times, and all that follows from them."""
    row['device_times'] = times(samples)
    row['wall_times'] = times([1.04 * s + 30 for s in samples])
    median = row['device_times']['median_us']
    if row['bytes']:
        row['bytes_per_s'] = 1e6 * row['bytes'] / median
        row['flops_per_s'] = 1e6 * row['flops'] / median
        row['floor_fraction'] = row['floor_us'] / median
    row['tokens_per_s'] = 1e6 * row['key']['n_tokens'] / median
    return row


def set_floor(row):
    k, d = row['key'], DEVICES[row['device']]
    gpu = d['type'] != 'cpu'
    parameters = 3 * k['d_model'] * k['d_ff']
    shared = 3 * k['d_model'] * k['d_shared_ff']
    row['bytes'] = TYPES[k['type']] * (row['n_experts_hit'] * parameters + shared)
    row['bytes'] += 8 * k['n_tokens'] * k['d_model'] + 4 * k['n_experts'] * k['d_model']
    row['flops'] = 2.0 * k['n_tokens'] * (k['top_k'] * parameters + shared
                                          + k['n_experts'] * k['d_model'])
    row['arithmetic'] = 'f16-matrix' if gpu else 'f32'
    row['read_rate'], row['dispatch_us'] = d['read_rate'], d['dispatch_us']
    row['peak'], row['n_dispatches'] = d['peak'][row['arithmetic']], 6 if gpu else 5
    parts = {'memory': 1e6 * row['bytes'] / row['read_rate'],
             'compute': 1e6 * row['flops'] / row['peak'],
             'launch': row['n_dispatches'] * row['dispatch_us']}
    row['floor_us'] = max(parts['memory'], parts['compute']) + parts['launch']
    row['bound'] = max(parts, key=parts.get)


def measured(rng, place, k):
    row = blank(place, k)
    gpu = DEVICES[place]['type'] != 'cpu'
    rows = expert_rows(rng, k)
    row.update(status='ok', kernel='m1' if gpu else 'avx2', n_cold=2, plateau=True,
               expert_rows=rows, n_experts_hit=sum(n > 0 for n in rows),
               min_rows=min(n for n in rows if n), max_rows=max(rows),
               cv_rows=statistics.pstdev(rows) / statistics.mean(rows),
               n_copies=4, first_call_ms=rng.uniform(2, 40), device_bytes=2.0 ** 29)
    row['verify'] = {'state': 'pass', 'reference': 'f64', 'error': rng.uniform(4e-4, 9e-4),
                     'limit': 4e-3, 'n_rows': min(k['n_tokens'], 64)}
    set_floor(row)
    if gpu:
        row.update(clock_mhz=2410.0, clock_min_mhz=2380.0, clock_source='hwmon', power_w=187.0,
                   power_source='hwmon')
    else:
        row.update(n_blocks=12, n_dropped_blocks=1)
    middle = row['floor_us'] / rng.uniform(0.45, 0.85)
    return set_samples(row, [middle * math.exp(rng.gauss(0, 0.01)) for _ in range(40)])


def count(row):
    """What --count and --dispatches add."""
    k = row['key']
    row.update(counted=True, rereads=1.25, useful_fraction=0.8)
    row['counters'] = {'weight_loads': int(1.25 * row['bytes']), 'router_loads': 1 << 17,
                       'live_columns': 32 * k['n_tokens'] * k['top_k'],
                       'padded_columns': 8 * k['n_tokens'] * k['top_k'], 'workgroups': 640,
                       'idle_workgroups': 32, 'dispatches': row['n_dispatches']}
    share = row['device_times']['median_us'] / 4
    row['dispatches'] = [{'label': label, 'median_us': share} for label in
                         ['route', 'group', 'experts in', 'experts out']]


def sample(seed=1):
    """A file, as a dict."""
    rng = random.Random(seed)
    rows = []
    for place in range(len(DEVICES)):
        for model in MODELS:
            for weights in TYPES:
                for n_tokens in TOKENS:
                    rows.append(measured(rng, place, key(model, weights, n_tokens, place)))
    for row in rows[:3]:
        count(row)
    rows[7].update(blank(0, rows[7]['key']), status='unsupported',
                   reason='weights of type q4_0: not computed yet')
    rows[19].update(blank(0, rows[19]['key']), status='skipped',
                    reason='needs 3.1 GiB of device memory, 1.9 GiB are free')
    rows[24].update(status='unverified', reason='--no-verify')
    rows[24]['verify'] = blank(0, rows[24]['key'])['verify']
    rows[31].update(blank(1, rows[31]['key']), status='error',
                    reason='relative error 0.31 of y, the limit is 0.004')
    rows[31]['verify'] = {'state': 'fail', 'reference': 'f64', 'error': 0.31, 'limit': 4e-3,
                          'n_rows': 1}
    rows[12].update(plateau=False, n_cold=4)
    return {'schema': 'vkmoe-bench/1', 'version': '0.1.0', 'build': 'gcc 12.2.0 -O2',
            'time_utc': '2026-11-24T12:00:00Z', 'suite': 'standard-1', 'complete': True,
            'cpu': 'Example CPU 8-core', 'os': 'Debian GNU/Linux 12', 'kernel': 'Linux 6.1.0',
            'n_cores': 8, 'environment': '', 'devices': [dict(d) for d in DEVICES], 'rows': rows}


if __name__ == '__main__':
    print(json.dumps(sample(), indent=1))
