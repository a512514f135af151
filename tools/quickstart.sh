#!/bin/sh
# SPDX-License-Identifier: MIT
# From a bare machine to a mixture of experts that reads handwritten digits: installs what is
# missing, builds a release in build/, runs the main job, and says where to go from there.
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh

if [ $# -ne 0 ]; then
    echo 'usage: tools/quickstart.sh   (installs what is missing, builds, runs vkmoe eval)' >&2
    [ "$1" = --help ] && exit 0 || exit 2
fi

install_needs "$build_needs"

say 'building a release in build/'
configure build --buildtype=release
ninja -C build >&2

say 'the main job: 359 handwritten digits through a trained mixture of experts'
main_job='build/tools/vkmoe eval tests/data/digits-moe.safetensors tests/data/digits-test.csv'
say "\$ $main_job"
$main_job
