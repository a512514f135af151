#!/bin/sh
# SPDX-License-Identifier: MIT
# Installs the build into a folder of its own and builds consumer.c against that with pkg-config:
#     consumer.sh BUILD LIBRARY_KIND VULKAN SCRATCH CC...
# LIBRARY_KIND is Meson's default_library; VULKAN is true if the build has that back end.
set -eu
build=$1 kind=$2 vulkan=$3 scratch=$4
shift 4
source=$(dirname "$0")/consumer.c

rm -rf "$scratch"
mkdir -p "$scratch"
meson install -C "$build" --no-rebuild --quiet --destdir "$scratch/root"
PKG_CONFIG_PATH=$(dirname "$(find "$scratch/root" -name vkmoe.pc)")
PKG_CONFIG_SYSROOT_DIR=$scratch/root
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
libraries=$(dirname "$PKG_CONFIG_PATH")

# consume NAME LINK_FLAGS COMPILER_FLAG...
consume() {
    program=$scratch/$1 link=$2
    shift 2
    echo "${program##*/}: $* $link"
    "$@" -std=c11 -Wall -Wextra -Werror -o "$program" "$source" $(pkg-config --cflags vkmoe) $link
    LD_LIBRARY_PATH=$libraries "$program"
}

if [ "$kind" != static ]; then
    consume shared "$(pkg-config --libs vkmoe)" "$@"
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
    static=$(pkg-config --static --libs vkmoe | sed 's/-lvkmoe\b/-l:libvkmoe.a/g')
    consume static "$static" "$@"
    if [ "$vulkan" = true ]; then
        consume static-with-loader "$static $(PKG_CONFIG_SYSROOT_DIR= pkg-config --libs vulkan)" \
            "$@" -DWITH_LOADER
        consume loader-before-static \
            "$(PKG_CONFIG_SYSROOT_DIR= pkg-config --libs vulkan) $static" "$@" -DWITH_LOADER
    fi
fi
