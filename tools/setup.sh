# SPDX-License-Identifier: MIT
# What a build and its tests need, and how to get it. Sourced by quickstart.sh and test.sh from the
# root of the project; asks nothing, installs only what is missing.

# Debian package, how to see that it is there, what it is for.
build_needs='
gcc                      run:cc                               a C11 compiler
libc6-dev                include:stdio.h                      the headers of the C library
meson                    run:meson                            the build system, 1.0.1 or newer
ninja-build              run:ninja                            what Meson builds with
pkg-config               run:pkg-config                       finds libraries
glslang-tools            run:glslangValidator                 the shader compiler
spirv-tools              run:spirv-val                        the shader validator
libvulkan-dev            include:vulkan/vulkan.h              Vulkan headers and loader
libvulkan-volk-dev       include:volk.h                       finds the loader at run time
libjansson-dev           include:jansson.h                    JSON
libcmocka-dev            include:cmocka.h                     the test framework
mesa-vulkan-drivers      file:/usr/share/vulkan/icd.d/*.json  Vulkan drivers of open source
'
test_needs='
g++                      run:c++                              checks the headers as C++17
binutils                 run:nm                               lists exported symbols
python3                  run:python3                          linters and tests of the program
python3-jsonschema       python:jsonschema                    checks files of results
python3-numpy            python:numpy                         tests of the Python module
mesa-vulkan-drivers      file:/usr/share/vulkan/icd.d/lvp_*   lavapipe, Vulkan on the CPU
vulkan-validationlayers  file:/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_v*  validation
'
meson_at_least=1.0.1

say() { printf '== %s\n' "$*" >&2; }

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Is the thing there that a probe (run:PROGRAM, include:HEADER, file:PATTERN, python:MODULE) asks
# for?
is_there() {
    case $1 in
    run:*) command -v "${1#run:}" >/dev/null 2>&1 ;;
    include:*)
        {
            printf '#include <stddef.h>\n#include <stdarg.h>\n#include <setjmp.h>\n'
            printf '#include <stdint.h>\n#include <%s>\n' "${1#include:}"
        } | cc -E - >/dev/null 2>&1 ;;
    python:*) python3 -c "import ${1#python:}" >/dev/null 2>&1 ;;
    file:*) set -- ${1#file:} && [ -e "$1" ] ;;
    esac
}

# The lines of a table of needs whose thing is missing.
missing() {
    printf '%s' "$1" | while read -r package probe purpose; do
        [ -z "$package" ] || is_there "$probe" || printf '%s %s\n' "$package" "$purpose"
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt_install() {
    say "installing: $*"
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null 2>&1 ||
        die "that needs root and there is no sudo; as root, run: apt-get install $*"
    mkdir -p build-deps
    {
        as_root apt-get update -q
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
            install -y -q --no-install-recommends "$@" </dev/null
    } >build-deps/apt.log 2>&1 || { tail -n 40 build-deps/apt.log >&2; die 'apt-get failed'; }
}

# Installs what is missing of a table of needs; where there is no apt, lists it and stops.
install_needs() {
    lines=$(missing "$1")
    if [ -n "$lines" ]; then
        if ! command -v apt-get >/dev/null 2>&1; then
            say 'this system has no apt-get; please install (names as on Debian), then try again:'
            printf '%s\n' "$lines" | while read -r package purpose; do
                printf '    %-24s %s\n' "$package" "$purpose" >&2
            done
            exit 1
        fi
        apt_install $(printf '%s\n' "$lines" | cut -d' ' -f1 | sort -u)
    fi
    found=$(meson --version)
    printf '%s\n' "$meson_at_least" "$found" | sort -V -C ||
        die "meson is $found, but $meson_at_least or newer is needed (pip install meson has it)"
}

# Puts SwiftShader, a second software Vulkan driver, into build-deps/ and prints its manifest's
# path; prints nothing where it cannot be had. Debian ships it in a part of its browser; only the
# driver is taken out.
swiftshader_manifest() {
    folder=$PWD/build-deps/swiftshader
    if ! [ -e "$folder/vk_swiftshader_icd.json" ]; then
        if ! get_swiftshader "$folder" >&2; then
            say 'no SwiftShader here: its tests are skipped'
            return
        fi
    fi
    printf '%s\n' "$folder/vk_swiftshader_icd.json"
}

get_swiftshader() (
    command -v apt-get >/dev/null 2>&1 || exit 1
    say 'fetching SwiftShader (package chromium-common, 30 MB)'
    mkdir -p "$1" && cd "$1" || exit 1
    rm -f ./*.deb
    apt-get -q download chromium-common ||
        { as_root apt-get -q update && apt-get -q download chromium-common; } || exit 1
    dpkg-deb --fsys-tarfile chromium-common_*.deb |
        tar -x --strip-components=4 --wildcards '*/libvk_swiftshader.so' '*/vk_swiftshader_icd.json'
    rm -f ./*.deb
    [ -e vk_swiftshader_icd.json ] && [ -e libvk_swiftshader.so ]
)

# Sets up a build tree once: configure FOLDER [MESON OPTION]...
configure() {
    folder=$1
    shift
    if [ -e "$folder/build.ninja" ]; then
        [ $# -eq 0 ] || meson configure "$folder" "$@" >&2
    else
        meson setup "$folder" "$@" >&2
    fi
}
