# SPDX-License-Identifier: MIT
"""Writes text files into a C header: embed_texts.py OUT.h FILE... A row is {"name", "text"},
where name is the file's without .json; lines of text become strings of their own."""
import pathlib
import sys


def literal(line):
    return '"' + line.replace('\\', '\\\\').replace('"', '\\"') + '\\n"'


def main(out, files):
    rows = []
    for path in map(pathlib.Path, files):
        lines = path.read_text(encoding='utf-8').splitlines()
        body = '\n'.join('    ' + literal(line) for line in lines)
        rows.append(f'{{"{path.stem}",\n{body}}},\n')
    pathlib.Path(out).write_text(''.join(rows), encoding='utf-8')


if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2:])
