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

cat <<'NEXT'

From here (each of these works as it stands):

  Models: one layer of a model on rows of your own; here random ones. --help tells the formats.
    $ build/tools/vkmoe run tests/data/digits-moe.safetensors --layer 0 --random 8 -o build/y.npy

  Engines: a layer on a Vulkan device of your own, recorded between two passes of your own, one
  submit. tools/embed/record.c is the program to copy from, include/vkmoe/vulkan.h the contract.
    $ build/tools/embed_record

  Benchmarks: the CPU's kernels and a layer, beside what this machine can do at most. First see
  that a device computes what it should: vkmoe verify -d DEVICE.
    $ build/tests/kernels/kernels --bench

  Training: eight experts learn to read those digits in less than a second; which of them reads
  what is a page for a browser. --list-examples has the other systems, --help the rest.
    $ build/tools/vkmoe train --example sparse-topk >build/c.json
    $ build/tools/vkmoe train build/c.json --data tests/data/digits-train.csv -o build/m.safetensors
    $ build/tools/vkmoe explain build/m.safetensors tests/data/digits-test.csv -o build/digits.html

Every test: tools/test.sh
NEXT
