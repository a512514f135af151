# SPDX-License-Identifier: MIT
"""The symbols of a shared library are exactly the stored ones: exports.py NM LIBRARY LIST.

A new public function is one line in the list; one that is gone or unlisted is an ABI break that
nobody decided.
"""
import subprocess
import sys


def compare(got, stored):
    for name in sorted(set(got) - set(stored)):
        yield f'{name} is exported but not in the list'
    for name in sorted(set(stored) - set(got)):
        yield f'{name} is in the list but not exported'


def main():
    nm, library, stored_path = sys.argv[1:]
    lines = subprocess.run([nm, '-D', '--defined-only', library], text=True, check=True,
                           stdout=subprocess.PIPE).stdout.splitlines()
    got = [line.split()[-1] for line in lines]
    with open(stored_path, encoding='utf-8') as file:
        stored = [line.strip() for line in file if not line.startswith('#')]
    findings = list(compare(got, stored))
    findings += [f'{name} does not start with vkmoe_' for name in stored
                 if not name.startswith('vkmoe_')]
    if stored != sorted(stored):
        findings.append('the list is not sorted')
    print('\n'.join(findings + [f'{len(got)} symbols, {len(findings)} findings']))
    sys.exit(1 if findings else 0)


if __name__ == '__main__':
    main()
