#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# `vkmoe verify` where nothing may be left out: verify.sh VKMOE [argument]...
set -o pipefail
"$1" verify "${@:2}" | tee /dev/stderr | tail -n 1 | grep -q ', 0 failed, 0 skipped$'
