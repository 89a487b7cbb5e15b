#!/usr/bin/env bash
# The bridges to other libraries' loops and coroutines, each of which checks itself. None keeps the processor busy while
# it waits.
source "$(dirname "$0")/lib.bash"
need "$python"

runs() { # runs EXAMPLE LINES LIBRARY: it prints so many lines, and takes little of the processor's time
  if [[ ! -x $examples/bridges/$1 ]]; then
    echo "skipped: $3 is not here"
    return
  fi
  "$python" - "$examples/bridges/$1" "$2" <<'PYTHON'
import resource, subprocess, sys

done = subprocess.run([sys.argv[1]], stdout=subprocess.PIPE, text=True, timeout=30, check=True)
assert done.stdout.count("\n") == int(sys.argv[2]), done.stdout
used = resource.getrusage(resource.RUSAGE_CHILDREN)
assert used.ru_utime + used.ru_stime < 0.45, f"{sys.argv[1]} took {used.ru_utime + used.ru_stime} s of the processor's time"
PYTHON
}

runs foreign_coroutine 2 "what this mode builds"
runs sender 1 "what this mode builds"
runs with_libuv 2 libuv
runs with_glib 2 GLib
runs with_asio 2 Asio
