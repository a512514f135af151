# SPDX-License-Identifier: MIT
"""Every public header has a test beside this file that uses every init of it.

usage: complete.py INCLUDE_FOLDER TEST_FOLDER
"""
import pathlib
import re
import sys


def missing(header: str, test: str) -> list:
    """Names of the inits that `header` defines and `test` does not call."""
    inits = re.findall(r'static inline \w+ (\w+_init)\(void\)', header)
    return [name for name in inits if name + '()' not in test]


def main(include: str, tests: str) -> int:
    # A control: a check that cannot fail is none.
    assert missing('static inline vkmoe_a vkmoe_a_init(void)', 'vkmoe_b_init()') == ['vkmoe_a_init']
    failures = []
    headers = sorted(pathlib.Path(include).glob('*.h'))
    for path in headers:
        test = pathlib.Path(tests, path.stem + '.c')
        if not test.exists():
            failures.append(f'{path.name}: there is no {test.name}')
            continue
        failures += [f'{path.name}: {test.name} does not use {name}'
                     for name in missing(path.read_text(), test.read_text())]
    print('\n'.join(failures) or f'{len(headers)} headers')
    return 1 if failures or not headers else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
