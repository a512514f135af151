#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds a release in build/ and times vkmoe in turn with other programs that compute the same
# layers: bench-peers.sh CHROOT [OPTION]... (--help lists the options, tools/peers/README.md says
# what CHROOT holds). Entering a chroot needs root.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
case ${1---help} in
-h | --help) exec python3 "$root/tools/peers/bench_peers.py" --help ;;
-*) ;;
*) [ -d "$1" ] || { echo "${0##*/}: no folder $1" >&2; exit 2; } ;;
esac
(
    cd "$root"
    . tools/setup.sh
    install_needs "$build_needs
python3                  run:python3                          compares the programs
"
    configure build --buildtype=release
    ninja -C build >&2
)
exec python3 "$root/tools/peers/bench_peers.py" --vkmoe "$root/build/tools/vkmoe" "$@"
