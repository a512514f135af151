# SPDX-License-Identifier: MIT
"""Files of at most 600 lines, functions of at most 100."""
import re

import source

FILE_LINES = 600
FUNCTION_LINES = 100

# A directive with its continuation lines: macro bodies have braces of their own.
_DIRECTIVE = re.compile(r'^[ \t]*#(?:[^\n\\]|\\.)*(?:\\\n(?:[^\n\\]|\\.)*)*', re.M)
_EXTERN_C = re.compile(r'extern\s*""\s*\{')


def functions(text):
    """Yields (first line, number of lines) of every function body with its signature."""
    code = _DIRECTIVE.sub(lambda m: '\n' * m.group().count('\n'), source.strip_c(text))
    # The block of extern "C" is not a level of its own; its closing brace is let through below.
    code = _EXTERN_C.sub(lambda m: '\n' * m.group().count('\n'), code)
    depth, start, is_function = 0, 0, False
    for match in re.finditer(r'[{};]', code):
        at, token = match.start(), match.group()
        if token == '{':
            if depth == 0:
                is_function = code[start:at].rstrip().endswith(')')
            depth += 1
            continue
        if token == '}' and depth > 0:
            depth -= 1
            if depth == 0 and is_function:
                first = start + len(code[start:at]) - len(code[start:at].lstrip())
                yield source.line_of(code, first), code.count('\n', first, at) + 1
                is_function = False
        if depth == 0:
            start = at + 1


def check(path, text):
    n_lines = text.count('\n')
    if n_lines > FILE_LINES:
        yield n_lines, f'{n_lines} lines; a file has at most {FILE_LINES}: split it by idea'
    if path.endswith(source.C_SUFFIXES):
        for line, size in functions(text):
            if size > FUNCTION_LINES:
                yield line, f'a function of {size} lines; at most {FUNCTION_LINES}'


if __name__ == '__main__':
    source.main(check)
