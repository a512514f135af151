#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the build into a folder of its own and builds two programs against that with pkg-config:
#     consumer.sh BUILD LIBRARY_KIND VULKAN CC...
# LIBRARY_KIND is Meson's default_library; VULKAN is true if the build has that back end.
set -eu
build=$1 kind=$2 vulkan=$3
shift 3
sources=$(dirname "$0")

# Not in the build tree, whose path may have spaces that the flags would be split at.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
meson install -C "$build" --no-rebuild --quiet --destdir "$scratch/root"
installed_pc=$(dirname "$(find "$scratch/root" -name vkmoe.pc)")
libraries=$(dirname "$installed_pc")

# What pkg-config says of the installed copy: flags PC OPTION...
flags() {
    package=$1
    shift
    PKG_CONFIG_PATH=$installed_pc PKG_CONFIG_SYSROOT_DIR=$scratch/root pkg-config "$@" "$package"
}

# consume NAME SOURCE FLAGS COMMAND...: builds with the command and the flags, and runs.
consume() {
    program=$scratch/$1 source=$2 given=$3
    shift 3
    echo "${program##*/}: $* $source $given"
    "$@" -std=c11 -Wall -Wextra -Werror -o "$program" "$sources/$source" $given
    LD_LIBRARY_PATH=$libraries "$program"
}

if [ "$kind" != static ]; then
    consume shared consumer.c "$(flags vkmoe --cflags --libs)" "$@"
    consume model-shared model_consumer.c "$(flags vkmoe-model --cflags --libs)" "$@"
    # libvkmoe needs nothing but the C library; the Vulkan loader is found at run time.
    needed=$(readelf -d "$libraries/libvkmoe.so" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p')
    for library in $needed; do
        case $library in
        libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | ld-linux* | libgcc_s.so.*) ;;
        *) echo "libvkmoe.so needs $library" && exit 1 ;;
        esac
    done
fi
if [ "$kind" != shared ]; then
    # Where there are both kinds, -l would take the shared one.
    prefer='s/-l\(vkmoe[a-z-]*\)/-l:lib\1.a/g'
    static=$(flags vkmoe --cflags --libs --static | sed "$prefer")
    consume static consumer.c "$static" "$@"
    model=$(flags vkmoe-model --cflags --libs --static | sed "$prefer")
    consume model-static model_consumer.c "$model" "$@"
    if [ "$vulkan" = true ]; then
        loader=$(pkg-config --cflags --libs vulkan)
        consume static-before-loader consumer.c "$static $loader" "$@" -DWITH_LOADER
        consume static-after-loader consumer.c "$loader $static" "$@" -DWITH_LOADER
    fi
fi
