#!/bin/sh
# SPDX-License-Identifier: MIT
# A machine with a Vulkan loader and no driver: no_driver.sh VKMOE.
set -eu
vkmoe=$1
export VK_DRIVER_FILES=/nonexistent.json VK_ICD_FILENAMES=/nonexistent.json
unset VKMOE_DEVICE || true

"$vkmoe" info --json | grep -q '"type": *"cpu"'
if "$vkmoe" info --json | grep -q '"software"'; then
    echo "a Vulkan device is listed without a driver"
    exit 1
fi
code=0
message=$("$vkmoe" verify -d vulkan --filter E1K1 2>&1) || code=$?
[ "$code" -eq 5 ] || { echo "exit $code, not 5: $message"; exit 1; }
case $message in
*"there is: 0 "*) ;;
*) echo "the devices there are, are not named: $message"; exit 1 ;;
esac
