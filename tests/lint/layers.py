# SPDX-License-Identifier: MIT
"""Which part of the code may include which, and which calls belong to one place only."""
import re

import source

# Part -> folders under src/ whose headers it may include, itself among them.
MAY_INCLUDE = {
    'base': {'base'},
    'core': {'base', 'core'},
    'backend': {'base', 'core', 'backend'},
    'cpu': {'base', 'core', 'backend', 'cpu'},
    'vulkan': {'base', 'core', 'backend', 'vulkan'},
    'train': {'base', 'core', 'train'},
    'model': {'base', 'core', 'model'},
    'api': {'base', 'core', 'backend', 'train', 'api'},
}

# Header -> who may include it: a file, or a folder that ends in /. Tests are free.
RESERVED = {
    'volk.h': ('src/vulkan/loader.c',),
    'volk.c': ('src/vulkan/loader.c',),
    'vulkan/': ('src/vulkan/', 'tools/embed/', 'include/vkmoe/vulkan.h'),
    'jansson.h': ('src/model/', 'tools/'),
    'vkmoe/vulkan.h': ('src/vulkan/', 'src/api/', 'src/backend/', 'tools/'),
    'vkmoe/explain.h': ('src/model/', 'tools/'),
    'vkmoe/model.h': ('src/model/', 'tools/', 'include/vkmoe/explain.h',
                      'include/vkmoe/trainer.h'),
    'vkmoe/checkpoint.h': ('src/model/', 'tools/'),
    'vkmoe/online.h': ('src/model/', 'tools/'),
    'vkmoe/trainer.h': ('src/model/', 'tools/'),
}

# Call -> (the only places for it in src/, why). A library never ends, prints or asks the
# environment behind its caller's back, and takes its memory from the host's hooks.
_ENVIRONMENT = 'the environment is read in src/api/env.c'
_HOST = 'memory comes from moe_alloc'
_QUIET = 'the library never prints or ends the process'
CALLS = {
    **{name: (('src/api/env.c',), _ENVIRONMENT) for name in ('getenv', 'secure_getenv')},
    **{name: (('src/base/host.c',), _HOST) for name in (
        'malloc', 'calloc', 'realloc', 'aligned_alloc', 'posix_memalign', 'strdup')},
    'free': (('src/base/host.c', 'src/model/'), _HOST + '; jansson hands out text to free'),
    **{name: ((), _QUIET) for name in ('printf', 'puts', 'putchar', 'perror', 'abort', 'exit')},
}

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(["<])([^">]+)[">]', re.M)
_CALL = re.compile(r'(?<![\w.>])(' + '|'.join(CALLS) + r')[ \t]*\(')


def _inside(path, places):
    return any(path == p or (p.endswith('/') and path.startswith(p)) for p in places)


def _reserved(path, header):
    for name, places in RESERVED.items():
        if (header == name or (name.endswith('/') and header.startswith(name))) \
                and not _inside(path, places):
            return f'<{header}> is for {" and ".join(places)} only'
    return None


def _check_src_include(path, header):
    part = path.split('/')[1]
    if part not in MAY_INCLUDE:
        return f'src/{part} is not a part that tests/lint/layers.py knows'
    if header.startswith('.'):
        return f'"{header}": paths start at src/'
    folder = header.split('/')[0] if '/' in header else part
    if folder in MAY_INCLUDE and folder not in MAY_INCLUDE[part]:
        return f'{part} may not include {folder} ("{header}")'
    return None


def _check_include(path, header, quoted):
    if message := _reserved(path, header):
        return message
    if path.startswith('src/') and quoted:
        return _check_src_include(path, header)
    if path.startswith('include/') and quoted:
        return f'"{header}": an installed header includes installed headers, with <>'
    if path.startswith('tools/') and quoted and '/' in header:
        return f'"{header}": a tool includes its own headers and <vkmoe/...> only'
    return None


def check(path, text):
    if not path.endswith(('.c', '.h')) or not path.startswith(('src/', 'include/', 'tools/')):
        return
    code = source.strip_c(text, keep_strings=True)
    for match in _INCLUDE.finditer(code):
        if message := _check_include(path, match[2], match[1] == '"'):
            yield source.line_of(code, match.start()), message
    if not path.startswith('src/'):
        return
    code = source.strip_c(text)
    for match in _CALL.finditer(code):
        places, why = CALLS[match[1]]
        if not _inside(path, places):
            yield source.line_of(code, match.start()), f'{match[1]}: {why}'


if __name__ == '__main__':
    source.main(check)
