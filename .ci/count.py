# SPDX-License-Identifier: MIT
"""Prints "passed failed skipped" of Meson's testlog.json; names each skip on stderr."""
import json
import sys

PASSED = ('OK', 'EXPECTEDFAIL')


def main():
    counts = {'passed': 0, 'failed': 0, 'skipped': 0}
    with open(sys.argv[1], encoding='utf-8') as file:
        for test in map(json.loads, file):
            if test['result'] == 'SKIP':
                counts['skipped'] += 1
                reason = (test.get('stdout') or '').strip().split('\n')[-1]
                print(f'skipped: {test["name"]}: {reason}', file=sys.stderr)
            else:
                counts['passed' if test['result'] in PASSED else 'failed'] += 1
    print(*counts.values())


if __name__ == '__main__':
    main()
