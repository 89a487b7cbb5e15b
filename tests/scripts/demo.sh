#!/usr/bin/env bash
# The demonstration succeeds, ends soon, and leaves no file behind.
source "$(dirname "$0")/lib.bash"

mkdir "$work/tmp"
TMPDIR=$work/tmp timeout 20 "$examples/demo" >"$work/printed" || {
  cat "$work/printed"
  fail "the demonstration failed"
}
tail -n 1 "$work/printed" | grep -q '^all checks passed'
rmdir "$work/tmp"
