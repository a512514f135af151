# SPDX-License-Identifier: MIT
"""Compares programs that print milliseconds, one a line: interleave.py ROUNDS COMMAND COMMAND...

Runs the commands in turn, ROUNDS times, because a shared machine changes its speed, and prints each
one's median, its range, and how many times faster than the last one it is: the median over the
rounds of the ratio of medians within a round.
"""
import statistics
import subprocess
import sys


def run(command):
    out = subprocess.run(command, shell=True, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [float(line) for line in out.split()]


def main():
    rounds, commands = int(sys.argv[1]), sys.argv[2:]
    times = [[run(c) for c in commands] for _ in range(rounds)]
    last = [statistics.median(r[-1]) for r in times]
    for i, command in enumerate(commands):
        all_times = sorted(t for r in times for t in r[i])
        ratio = statistics.median(b / statistics.median(r[i]) for r, b in zip(times, last))
        print(f'{statistics.median(all_times):10.3f} ms  ({all_times[0]:.3f} .. '
              f'{all_times[-1]:.3f}, {len(all_times)})  {ratio:6.2f}x  {command}')


if __name__ == '__main__':
    main()
