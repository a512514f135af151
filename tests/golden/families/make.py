# SPDX-License-Identifier: MIT
"""Golden MoE blocks of the published families: make.py [NAME ...]

Runs where PyTorch, transformers and gguf are (README.md says how) and writes the folders beside
it. A block whose golden could not tell its rules apart stops it.
"""
import os
import pathlib
import shutil
import sys
import tempfile

os.environ['HF_HUB_OFFLINE'] = '1'
os.environ['TRANSFORMERS_VERBOSITY'] = 'error'

import torch

import changes
import files
import formula
import gguf_files
import weights
from tables import FAMILIES, GGUFS

HERE = pathlib.Path(__file__).parent
SEEN = 1e-3         # how far a changed rule must move y, relative
AGREE = 2e-6        # f32 upstream against the formula in f64, relative


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


def draw(f):
    w = weights.draw(f.name, f.rules, f.extras, f.loud, f.d_dense)
    given = {'x': weights.rows(f.name, 400, f.rules.d_model, f.x_std)}
    if f.rules.own_router_input:
        given['router_input'] = weights.rows(f.name + ' router', 400, f.rules.d_model)
    if f.rules.select == 'table':
        given['token_ids'] = torch.arange(400) * 7 % f.config['vocab_size']
        experts = torch.rand(f.config['vocab_size'], f.rules.n_experts,
                             generator=weights.generator(f.name + ' table'))
        w['table'] = experts.argsort(1)[:, :f.rules.top_k]
    if f.tweak:
        f.tweak(w, given)
    for name, t in w.items():
        if t.is_floating_point() and name != 'rank_bias':
            w[name] = t.to(f.dtype).float()
    return w, given


def choose_tokens(f, w, given):
    """The first rows whose selection no rounding can change."""
    clear = formula.block(f.rules, w, **given)[3]
    chosen = (clear > f.clear).nonzero()[:f.n_tokens, 0]
    assert len(chosen) == f.n_tokens, f'{f.name}: {len(chosen)} clear tokens'
    return {name: t[chosen] for name, t in given.items()}


def check_changes(f, w, given, y):
    """Each rule is seen, and no rule is excused that is."""
    for what, rules, other in changes.changed(f.rules, w):
        moved = relative(formula.block(rules, other, **given)[0], y)
        least = f.faint.get(what, 0 if what in f.invisible else SEEN)
        seen = not moved < least    # NaN is
        assert seen and (least == SEEN or not moved > SEEN), f'{f.name}: {what}: {moved:.2g}'
        print(f'    {what}: {moved:.2g}')


def pack(f, values):
    """The tensors as the checkpoint has them; a bias that only ranks is in f32 everywhere."""
    ranks = ('e_score_correction_bias', 'expert_bias', 'gate.bias')
    tensors = {name: t.to(f.dtype) if t.is_floating_point() and not name.endswith(ranks) else t
               for name, t in values.items()}
    return f.encoding.encode(tensors) if f.encoding else tensors


def run_upstream(f, folder, given):
    import transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    loader = getattr(transformers, f.upstream.loader)
    model = loader.from_pretrained(folder, dtype=torch.float32, attn_implementation='eager',
                                   experts_implementation='eager').eval()
    with torch.no_grad():
        y = f.upstream.call(model.get_submodule(f.upstream.module), given['x'], given)
    y = y[0] if isinstance(y, tuple) else y
    return y.reshape(-1, y.shape[-1])


def as_f64(tensors):
    return {k: t.double() if t.is_floating_point() else t for k, t in tensors.items()}


def compute(f, given, values):
    if not f.upstream:
        return f.original(f.config, as_f64(values), **as_f64(given))
    with tempfile.TemporaryDirectory() as folder:
        config = {k: v for k, v in f.config.items() if k != 'quantization_config'}
        if f.upstream.rename:
            values = {name.replace(*f.upstream.rename): t for name, t in values.items()}
        files.write_checkpoint(pathlib.Path(folder), {**config, **f.upstream.config}, values)
        return run_upstream(f, folder, given)


def make(f):
    print(f.name)
    w, given = draw(f)
    if f.encoding:
        w = f.encoding.quantise(w)
    given = choose_tokens(f, w, given)
    folder = HERE / f.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, t in given.items():
        files.write_npy(folder / f'{name}.npy', t)
    if f.layout:
        make_checkpoint(folder, f, w, given)
    for g in GGUFS.get(f.name, ()):
        make_gguf(folder, f, g, w, given)


def make_checkpoint(folder, f, w, given):
    values = f.layout(w)
    y = compute(f, given, values)
    expected, ids, gates, _ = formula.block(f.rules, w, **given)
    assert relative(y, expected) < AGREE, f'{f.name}: formula is off by {relative(y, expected):.2g}'
    check_changes(f, w, given, expected)
    files.write_checkpoint(folder, f.config, pack(f, values), f.n_shards)
    write_outputs(folder, y, ids, gates)


def make_gguf(folder, f, g, w, given):
    """The same tokens; outputs of its own where the types of the file change the weights."""
    values = gguf_files.write(folder, f, g, w)
    same = all(torch.equal(w[name], values[name]) for name in w)
    assert same != bool(g.outputs), f'{f.name}: {g.file} and outputs disagree'
    if not same:
        write_outputs(folder / g.outputs, *formula.block(f.rules, values, **given)[:3])


def write_outputs(folder, y, ids, gates):
    folder.mkdir(exist_ok=True)
    for name, t in {'y': y, 'ids': ids, 'gates': gates}.items():
        files.write_npy(folder / f'{name}.npy', t)


def rows_of(f):
    """What families.json says of the family: one row for each model file."""
    given = {'x': f'{f.name}/x.npy'}
    if f.rules.own_router_input:
        given['router_input'] = f'{f.name}/router_input.npy'
    if f.rules.select == 'table':
        given['token_ids'] = f'{f.name}/token_ids.npy'
    plain = {torch.float32: 'f32', torch.bfloat16: 'bf16'}[f.dtype]
    types = [f.encoding.name if f.encoding else plain]
    models = [(f.name, f.config['model_type'], types, f.name)] if f.layout else []
    for g in GGUFS.get(f.name, ()):
        file = g.file if g.n_parts == 1 else g.file.replace('.', f'-00001-of-{g.n_parts:05d}.')
        out = os.path.normpath(f'{f.name}/{g.outputs}')
        models.append((f'{f.name}/{file}', g.arch, gguf_files.types_of(g), out))
    for model, family, types, out in models:
        yield {'model': model, 'family': family, 'layer': f.layer, 'top_k': f.rules.top_k,
               'types': types, **given, 'tolerance': 1e-5,
               **{name: f'{out}/{name}.npy' for name in ('y', 'ids', 'gates')}}


def write_readme():
    """Keeps the text and writes the table of families behind it."""
    path = HERE / 'README.md'
    text = path.read_text().split('| Folder |')[0]
    rows = ['| Folder | GGUF | What it shows | Formula from |', '|---|---|---|---|']
    for f in FAMILIES:
        arch = ', '.join(dict.fromkeys(g.arch for g in GGUFS.get(f.name, ())))
        rows.append(f'| `{f.name}` | {arch} | {f.shows} | {f.source} |')
    path.write_text(text + '\n'.join(rows) + '\n')


def main():
    torch.set_num_threads(1)
    names = sys.argv[1:]
    for f in FAMILIES:
        if not names or f.name in names:
            make(f)
    write_readme()
    files.write_json(HERE / 'families.json', [row for f in FAMILIES for row in rows_of(f)])


if __name__ == '__main__':
    main()
