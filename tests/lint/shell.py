# SPDX-License-Identifier: MIT
"""Every shell script parses."""
import subprocess

import source


def check(path, text):
    if not (path.endswith('.sh') or path == '.ci/run'):
        return
    shell = 'bash' if 'bash' in text.split('\n', 1)[0] else 'sh'
    done = subprocess.run([shell, '-n'], input=text, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        yield 1, done.stderr.strip()


if __name__ == '__main__':
    source.main(check)
