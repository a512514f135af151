#!/bin/sh
# SPDX-License-Identifier: MIT
# verify_isa.sh COMMAND...: runs it; a skip where the processor lacks the level of VKMOE_CPU_ISA.
text=$("$@" 2>&1)
code=$?
echo "$text"
case $text in *'not here; this machine has'*) exit 77 ;; esac
exit $code
