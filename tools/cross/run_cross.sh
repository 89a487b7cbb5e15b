#!/usr/bin/env bash
# Runs a self test that was compiled for another machine: it must say `ok`.
#
#   run_cross.sh PROGRAM [EMULATOR]     without the emulator it is not run, with a line that says so
set -euo pipefail

program=$1
emulator=${2:-}
if [[ -n $emulator ]] && ! command -v "$emulator" >/dev/null; then
  echo "cross: $program is linked, but was not run: there is no $emulator"
  exit 0
fi
said=$(timeout 120 ${emulator:+"$emulator"} "$program") || {
  echo "cross: $program: ended with $?: $said" >&2
  exit 1
}
[[ $said == ok ]] || {
  echo "cross: $program said: $said" >&2
  exit 1
}
echo "  $program: ran, $(stat -c %s "$program") bytes"
