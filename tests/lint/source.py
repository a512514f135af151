# SPDX-License-Identifier: MIT
"""What the linters share: the list of source files, C text without comments, and the report.

A linter is a function check(path, text) that yields (line, message); path is relative to the root
of the project. main() runs it over the tree and exits 1 if it found anything.
"""
import os
import re
import sys

SOURCE_SUFFIXES = ('.c', '.h', '.comp', '.glsl', '.py', '.sh', '.build', '_options.txt')
C_SUFFIXES = ('.c', '.h', '.comp', '.glsl')


def is_source(path):
    return path.endswith(SOURCE_SUFFIXES) or path == '.ci/run'


def source_files(root):
    """Relative paths of all sources, sorted; build trees and hidden folders (but .ci) left out."""
    found = []
    for folder, folders, files in os.walk(root):
        if 'meson-private' in folders:
            folders.clear()
            continue
        folders[:] = [f for f in folders
                      if f == '.ci' or not f.startswith(('.', 'build', '__pycache__'))]
        for name in files:
            path = os.path.relpath(os.path.join(folder, name), root).replace(os.sep, '/')
            if is_source(path):
                found.append(path)
    return sorted(found)


_TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def strip_c(text, keep_strings=False):
    """C or GLSL text with comments (and the insides of literals) blanked; lines stay in place."""
    def blank(match):
        token = match.group()
        if token[0] == '/':
            return '\n' * token.count('\n')
        return token if keep_strings else token[0] + token[-1]
    return _TOKENS.sub(blank, text)


def line_of(text, position):
    return text.count('\n', 0, position) + 1


def main(check):
    root = sys.argv[1]
    paths = source_files(root)
    n_found = 0
    for path in paths:
        with open(os.path.join(root, path), encoding='utf-8', newline='') as file:
            text = file.read()
        for line, message in check(path, text):
            print(f'{path}:{line}: {message}')
            n_found += 1
    print(f'{len(paths)} files, {n_found} findings')
    sys.exit(1 if n_found or not paths else 0)
