# SPDX-License-Identifier: MIT
"""Times vkmoe and other programs on the same layers, in turn: A B C A B C ...

A shared machine changes its speed from minute to minute, so a ratio is made of two runs of one
round; what is printed is the median over the rounds and their range. Above 1 vkmoe is faster. The
floor is what a run could take at best by probes of memory and arithmetic made beside it; the ratio
of the two floors' percentages leaves out what the machine changed between two runs. A run of which
every block of time lost a core does not count.
"""
import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import time

import programs

MINUTE = 60


def shape(text):
    known = programs.SHAPES.get(text) or programs.PRESETS.get(text)
    if known:
        return known
    sizes = text.split(',')
    if len(sizes) != 4 or not all(s.isdecimal() and int(s) > 0 for s in sizes):
        raise argparse.ArgumentTypeError(
            f'{text}: a shape is E,K,D,F or one of {", ".join(programs.SHAPES)}')
    found = programs.Shape(text, *map(int, sizes))
    if found.top_k > found.n_experts:
        raise argparse.ArgumentTypeError(f'{text}: {found.top_k} of {found.n_experts} experts')
    return found


def types(text):
    for word in text.split(','):
        if word not in programs.TYPES:
            raise argparse.ArgumentTypeError(f'{word}: a type is {", ".join(programs.TYPES)}')
    return text.split(',')


def number(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f'{text}: a whole number from 1')
    return int(text)


def numbers(text):
    return [number(word) for word in text.split(',')]


def parse():
    parser = argparse.ArgumentParser(prog='bench-peers.sh', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('chroot', metavar='CHROOT', help='where /peers lies, or a folder with moepeer')
    add('--shapes', nargs='+', type=shape, metavar='SHAPE',
        help=f'E,K,D,F, a preset, or {"|".join(programs.SHAPES)} (granite)')
    add('--types', type=types, help='of the weights (f32,bf16)')
    add('-n', '--tokens', type=numbers, help='(1,16,64)')
    add('--threads', type=numbers, help='(2)')
    add('--full', action='store_true', help='by default five models, seven types, 1, 16, 64 and '
        '512 tokens, 1 and 2 threads: hours')
    add('--rounds', type=number, help='(3; quick 2)')
    add('--quick', action='store_true', help='short runs: a case in some seconds')
    add('--summary', action='store_true',
        help="medians over the shapes, with the floor that vkmoe's own kernels have")
    add('-d', '--device', default='cpu', help="vkmoe's (cpu)")
    add('--precision', help="vkmoe's; its own choice if not given")
    add('--backend', choices=['cpu', 'vulkan'], default='cpu', help="the peers' (cpu)")
    add('--peers', metavar='LIST', help='with commas: only these (all that are there)')
    add('--min-time', type=float,
        help='seconds that a program measures, at least (0.5; quick 0.15)')
    add('--json', metavar='FILE', help='writes every run to FILE')
    add('--vkmoe', default='vkmoe', help='the program (vkmoe in PATH)')
    options = parser.parse_args()
    set_defaults(options)
    return options


FULL = {
    'shapes': [programs.SHAPES[s] for s in ('granite', 'olmoe', 'qwen3', 'gptoss', 'dsv2lite')],
    'types': ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_K', 'mxfp4'],
    'tokens': [1, 16, 64, 512],
    'threads': [1, 2],
}
USUAL = {
    'shapes': [programs.SHAPES['granite']],
    'types': ['f32', 'bf16'],
    'tokens': [1, 16, 64],
    'threads': [min(2, os.cpu_count() or 1)],
}


def set_defaults(options):
    for name, value in (FULL if options.full else USUAL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.rounds = options.rounds or (2 if options.quick else 3)
    if options.min_time is None:
        options.min_time = 0.15 if options.quick else 0.5


def run_round(cell, ours, peers):
    """One run of each program; a peer without probes of its own gets the limits that ours saw."""
    began = time.monotonic()
    first = ours.run(cell)
    runs = {ours.name: first}
    for peer in peers:
        runs[peer.name] = run = peer.run(cell)
        if run.status == 'ok' and not run.limits:
            run.limits = first.limits
    return {'seconds': time.monotonic() - began, 'runs': runs}


def percent(cell, run):
    if not run.limits:
        return None
    return 100 * programs.floor_ms(cell, run.experts_hit, run.limits) / run.ms


def spread(values):
    if not values:
        return None
    return {'median': statistics.median(values), 'min': min(values), 'max': max(values),
            'n': len(values)}


def sum_up(cell, rounds, name):
    """One program over the rounds, and against ours where both runs of a round count."""
    runs = [r['runs'][name] for r in rounds]
    good = [r for r in runs if r.status == 'ok']
    pairs = [(r['runs'][programs.Ours.name], r['runs'][name]) for r in rounds]
    pairs = [(a, b) for a, b in pairs if a.status == b.status == 'ok']
    percents = [(percent(cell, a), percent(cell, b)) for a, b in pairs]
    # What went wrong weighs more than a lost core.
    bad = min((r for r in runs if r.status != 'ok'), default=None,
              key=lambda r: ('error', 'unsupported', 'noisy').index(r.status))
    return {
        'status': 'ok' if good and (not bad or bad.status == 'noisy') else bad.status,
        'reason': bad.reason if bad else '',
        'ms': spread([r.ms for r in good]),
        'floor_percent': spread([p for r in good if (p := percent(cell, r)) is not None]),
        'own_percent': spread([r.own_percent for r in good if r.own_percent is not None]),
        'time_ratio': spread([b.ms / a.ms for a, b in pairs]),
        'floor_ratio': spread([a / b for a, b in percents if a and b]),
    }


# ---- what is printed -------------------------------------------------------------------------

def time_text(part):
    if part['status'] != 'ok':
        return part['reason'].replace('|', '/')
    text = f"{part['ms']['median']:.3f} ms"
    if part['floor_percent']:
        text += f" / {part['floor_percent']['median']:.0f} %"
    return text


def ratio_text(ratio):
    if not ratio:
        return '-'
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}..{ratio['max']:.2f})"


def table(results, names):
    """A row for each peer: wide tables are hard to read in a terminal."""
    rows = [['shape', 'type', 'tokens', 'threads', 'vkmoe', 'peer', 'its time', 'its time / ours',
             'by floor']]
    for result in results:
        cell, parts = result['cell'], result['parts']
        for name in names:
            part = parts[name]
            rows.append([cell.shape.name, cell.type, str(cell.n_tokens), str(cell.n_threads),
                         time_text(parts[programs.Ours.name]), name, time_text(part),
                         ratio_text(part['time_ratio']), ratio_text(part['floor_ratio'])])
    return as_text(rows)


def summary(results, names):
    """Medians over the shapes: what we reach of our own floor, and beside each peer."""
    rows = [['type', 'tokens', 'threads', 'shapes', 'of our floor', *names]]
    groups = {}
    for r in results:
        cell = r['cell']
        groups.setdefault((cell.type, cell.n_tokens, cell.n_threads), []).append(r['parts'])
    for (kind, n_tokens, n_threads), parts in groups.items():
        own = [p['own_percent'] for p in (x[programs.Ours.name] for x in parts) if p['own_percent']]
        row = [kind, str(n_tokens), str(n_threads), str(len(parts)), over_shapes(own, '{:.0f} %')]
        for name in names:
            ratios = [x[name]['time_ratio'] for x in parts if x[name]['time_ratio']]
            row.append(over_shapes(ratios, '{:.2f}'))
        rows.append(row)
    return as_text(rows)


def over_shapes(spreads, form):
    """The median of medians, and their range."""
    values = [s['median'] for s in spreads]
    if not values:
        return '-'
    text = form.format(statistics.median(values))
    return text if len(values) == 1 else f'{text} ({form.format(min(values))}..' \
                                         f'{form.format(max(values))})'


def as_text(rows):
    rows = [rows[0], ['---'] * len(rows[0]), *rows[1:]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ''.join('| ' + ' | '.join(text.ljust(width) for text, width in zip(row, widths)) + ' |\n'
                   for row in rows)


def notes(results, options):
    rounds = [r for result in results for r in result['rounds']]
    runs = [run for r in rounds for run in r['runs'].values()]
    n_noisy = sum(run.status == 'noisy' for run in runs)
    n_slow = sum(r['seconds'] > MINUTE for r in rounds)
    yield (f'\nMilliseconds of a layer and percent of its floor, medians of {options.rounds} '
           'rounds; ratios are medians (and range) within a round, above 1 vkmoe is faster.\n')
    if n_noisy:
        yield f'{n_noisy} of {len(runs)} runs do not count: every block lost a core.\n'
    if n_slow:
        yield f'{n_slow} of {len(rounds)} rounds took over a minute: trust their ratios less.\n'


def run_json(cell, run):
    limits = run.limits
    return {'status': run.status, 'reason': run.reason, 'ms': run.ms,
            'experts_hit': run.experts_hit, 'read_rate': limits.read_rate if limits else None,
            'peak': limits.peak if limits else None, 'floor_percent': percent(cell, run),
            'own_percent': run.own_percent}


def as_json(results, options, complete):
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        'schema': 'vkmoe-peers/1', 'time_utc': now.strftime('%Y-%m-%dT%H:%M:%SZ'),
        'complete': complete, 'machine': platform.machine(), 'kernel': platform.release(),
        'device': options.device, 'backend': options.backend,
        'cells': [{
            'shape': r['cell'].shape.text(), 'name': r['cell'].shape.name,
            'type': r['cell'].type, 'n_tokens': r['cell'].n_tokens,
            'n_threads': r['cell'].n_threads, 'programs': r['parts'],
            'rounds': [{'seconds': round(x['seconds'], 3),
                        'runs': {name: run_json(r['cell'], run)
                                 for name, run in x['runs'].items()}} for x in r['rounds']],
        } for r in results],
    }


def write_json(path, value):
    """All of the file or none of it."""
    part = f'{path}.part'
    with open(part, 'w', encoding='utf-8') as file:
        json.dump(value, file, indent=1)
        file.write('\n')
    os.replace(part, path)


# ---- main ------------------------------------------------------------------------------------

def choose_peers(options):
    """Empty after a message."""
    found = programs.peers(options)
    if not found:
        print(f'bench-peers.sh: {options.chroot}: no /peers there and no moepeer', file=sys.stderr)
    if not options.peers:
        return found
    names = [p.name for p in found]
    for name in options.peers.split(','):
        if found and name not in names:
            print(f'bench-peers.sh: --peers {name}: there are {", ".join(names)}', file=sys.stderr)
            return []
    return [p for p in found if p.name in options.peers.split(',')]


def measure(options, ours, peers, results):
    """Adds to `results` as it goes, so that an interrupt leaves what is done."""
    for cell in [programs.Cell(s, t, n, threads) for s in options.shapes for t in options.types
                 for n in options.tokens for threads in options.threads]:
        rounds = []
        for i in range(options.rounds):
            print(f'{cell.shape.name} {cell.type} t{cell.n_tokens} on {cell.n_threads}: round '
                  f'{i + 1} of {options.rounds}', file=sys.stderr, flush=True)
            rounds.append(run_round(cell, ours, peers))
            for name, run in rounds[-1]['runs'].items():
                if run.status == 'error':
                    print(f'  {name}: {run.reason}', file=sys.stderr)
        parts = {p.name: sum_up(cell, rounds, p.name) for p in (ours, *peers)}
        results.append({'cell': cell, 'rounds': rounds, 'parts': parts})


def main():
    options = parse()
    peers = choose_peers(options)
    if not peers:
        return 1
    results, complete = [], True
    try:
        measure(options, programs.Ours(options), peers, results)
    except KeyboardInterrupt:
        complete = False
    sys.stdout.write(table(results, [p.name for p in peers]))
    sys.stdout.writelines(notes(results, options))
    if options.summary:
        sys.stdout.write('\n' + summary(results, [p.name for p in peers]))
    if options.json:
        try:
            write_json(options.json, as_json(results, options, complete))
        except OSError as error:
            print(f'bench-peers.sh: {options.json}: {error.strerror}', file=sys.stderr)
            return 1
    if not complete:
        return 130
    errors = any(p['status'] == 'error' for r in results for p in r['parts'].values())
    return 1 if errors else 0


if __name__ == '__main__':
    sys.exit(main())
