#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what is missing, builds in build-test/ and runs the tests. Arguments go to `meson test`:
#     tools/test.sh                       everything
#     tools/test.sh --suite unit          one suite; the others are fuzz, kernels, cross, golden,
#                                         vulkan, cli, lint and headers; long has tests of minutes
#     tools/test.sh --list
# -Doption=value goes to the build instead, and VKMOE_TEST_BUILD names another build folder.
set -eu
cd "$(dirname "$0")/.."
. tools/setup.sh

build_options=() test_options=()
for argument; do
    case $argument in
    -D*) build_options+=("$argument") ;;
    *) test_options+=("$argument") ;;
    esac
done

install_needs "$build_needs$test_needs"
swiftshader=$(swiftshader_manifest)

build=${VKMOE_TEST_BUILD:-build-test}
say "building in $build/"
configure "$build" -Dswiftshader="$swiftshader" "${build_options[@]}"
# For some of the tests Meson builds what they run; only all of them take everything.
rebuild=()
[ ${#test_options[@]} -gt 0 ] || { ninja -C "$build" >&2; rebuild=(--no-rebuild); }
# Time limits are for fast machines; four times as much still ends a test that hangs.
exec meson test -C "$build" "${rebuild[@]}" --print-errorlogs --timeout-multiplier 4 \
    "${test_options[@]}"
