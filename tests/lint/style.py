# SPDX-License-Identifier: MIT
"""Layout of the text, and one rule of design: a switch over ops has no default."""
import re

import source

COLUMNS = 100
_LEFTOVER = re.compile(r'\b(TO' r'DO|FIX' r'ME|XX' r'X|HA' r'CK)\b')
_SWITCH = re.compile(r'\bswitch\s*\(')


def _check_lines(text):
    for number, line in enumerate(text.split('\n'), 1):
        if '\t' in line:
            yield number, 'a tab'
        if line != line.rstrip():
            yield number, 'space or carriage return at the end of the line'
        if len(line) > COLUMNS:
            yield number, f'{len(line)} columns; at most {COLUMNS}'
        if match := _LEFTOVER.search(line):
            yield number, f'{match[1]}: finish it or file it'


def _check_ends(path, text):
    lines = text.split('\n')
    comment = '//' if path.endswith(source.C_SUFFIXES) else '#'
    first = 1 if lines[0].startswith(('#!', '#version')) else 0
    if lines[first:first + 1] != [comment + ' SPDX-License-Identifier: MIT']:
        yield first + 1, 'the licence line (SPDX-License-Identifier: MIT) is missing'
    if not text.endswith('\n') or text.endswith('\n\n'):
        yield len(lines), 'the file must end in one line feed'


def _closing(code, opening):
    """Position of the brace that closes the one at `opening`."""
    depth = 0
    for match in re.compile(r'[{}]').finditer(code, opening):
        depth += 1 if match.group() == '{' else -1
        if depth == 0:
            return match.start()
    return len(code)


def _check_op_switches(text):
    # A new op must not compile until every switch over ops handles it; `default:` would hide that.
    code = source.strip_c(text)
    for match in _SWITCH.finditer(code):
        opening = code.find('{', match.end())
        body = code[opening + 1:_closing(code, opening)] if opening >= 0 else ''
        # Only this switch's own labels: nested blocks are cut out, innermost first.
        while '{' in body and (shorter := re.sub(r'\{[^{}]*\}', '', body)) != body:
            body = shorter
        if re.search(r'\bcase\s+MOE_(OP|NET)_', body) and re.search(r'\bdefault\s*:', body):
            yield source.line_of(code, match.start()), 'a switch over ops has a default:'


def check(path, text):
    yield from _check_ends(path, text)
    # Meson's option descriptions cannot be split over lines.
    wide = path == 'meson_options.txt'
    for number, message in _check_lines(text):
        if not (wide and 'columns' in message):
            yield number, message
    if path.endswith('.c'):
        yield from _check_op_switches(text)


if __name__ == '__main__':
    source.main(check)
