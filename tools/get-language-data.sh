#!/bin/sh
# SPDX-License-Identifier: MIT
# Makes the data of `vkmoe train --example text-classify`: lines of manual pages in eleven
# languages, from the packages of this Debian system's sources.
#   get-language-data.sh FOLDER    writes FOLDER/languages-train.tsv and FOLDER/languages-test.tsv
# Needs apt-get with a package list (apt-get update), dpkg-deb, python3.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

cd "$work"
for language in cs de es fr it nl pl ru sv uk; do
    apt-get download "manpages-$language" > apt.log 2>&1 || { cat apt.log >&2; exit 1; }
done
for package in manpages manpages-dev; do # English
    apt-get download "$package" > apt.log 2>&1 || { cat apt.log >&2; exit 1; }
done
for package in *.deb; do
    dpkg-deb -x "$package" pages
done
python3 "$here/language_data.py" pages/usr/share/man "$out"
