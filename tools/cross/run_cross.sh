#!/usr/bin/env bash
# Runs a self test compiled for another machine: it must print `ok`.
#
#   run_cross.sh PROGRAM [EMULATOR]     without the emulator it is not run, and a line reports that
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
  echo "cross: $program printed: $said" >&2
  exit 1
}
echo "  $program: ran, $(stat -c %s "$program") bytes"
