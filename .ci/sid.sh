#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The Vulkan suite on Debian sid, where lavapipe, shader compiler and validation layer are the
# newest: .ci/sid.sh BUILD, as root. The synchronisation proof is here: BUILD is a failure without
# the control that shows the layer at work.
# Exit code 75: sid could not be installed, which says nothing about this project.
set -eu
cd "$(dirname "$0")/.."
build=$1 step=${2-} root=$PWD/build-ci-sid-root

inside() { chroot "$root" env MESA_SHADER_CACHE_DIR=/tmp/mesa "$@"; }

case $step in
'') # The mounts of what follows go when it ends.
    exec unshare --mount --propagation private bash "$0" "$build" mounted ;;

mounted)
    mkdir -p "$root"
    bash "$0" "$build" install || bash "$0" "$build" install || exit 75
    inside dpkg-query -W -f 'version: ${Package} ${Version}\n' mesa-vulkan-drivers \
        vulkan-validationlayers libvulkan1 glslang-tools spirv-tools gcc meson
    rm -rf "$build"
    inside meson setup "/vkmoe/$build" /vkmoe -Dvulkan=enabled -Drequire_devices=lavapipe
    inside ninja -C "/vkmoe/$build"
    inside meson test -C "/vkmoe/$build" --no-rebuild --print-errorlogs --timeout-multiplier 4 \
        --no-suite long plan '*lavapipe*'
    grep 'barrier control lavapipe"' "$build/meson-logs/testlog.json" | grep -q '"result": "OK"' ||
        { echo 'the control of synchronisation validation did not run'; exit 1; }
    for name in matrix matrix2 matrix_int8; do
        grep "$name lavapipe\"" "$build/meson-logs/testlog.json" | grep -q '"result": "OK"' ||
            { echo "no kernel computed by cooperative matrices: $name"; exit 1; }
    done ;;

install)
    umount --recursive "$root" 2>/dev/null || true
    mount -t tmpfs -o size=6g sid "$root"
    apt-get -q update
    command -v debootstrap ||
        DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends install debootstrap
    mirror=$(apt-get indextargets --format '$(REPO_URI)' \
        'Origin: Debian' 'Label: Debian' 'Created-By: Packages' | sort -u | head -n 1)
    debootstrap --variant=minbase sid "$root" "$mirror"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys" # but a /dev of its own, which debootstrap made
    mkdir "$root/vkmoe"
    mount --bind . "$root/vkmoe"
    # A copy of sid may be older than its own expiry date.
    echo 'Acquire::Check-Valid-Until "false";' >"$root/etc/apt/apt.conf.d/ci"
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/ci"
    inside sh -c 'cd /vkmoe && . tools/setup.sh && install_needs "$build_needs$test_needs"' ;;
esac
