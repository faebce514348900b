#!/bin/sh
# Makes disk.raw with mkosi; mkosi.conf describes it.
set -eu
command -v mkosi >/dev/null || { echo "build.sh: there is no mkosi here" >&2; exit 77; }
mkosi --force ${MIRROR:+--mirror="$MIRROR"} build </dev/null
