#!/bin/sh
# Makes disk.raw with mkosi (22 or newer); mkosi.conf describes it. $MIRROR is a mirror of Debian.
set -eu
command -v mkosi >/dev/null || { echo "build.sh: there is no mkosi here" >&2; exit 77; }
mkosi --force ${MIRROR:+--local-mirror="$MIRROR"} build </dev/null
