#!/usr/bin/env bash
# The bridges to other libraries' loops and coroutines: each example is built, where the library is here, and checks itself.
# None keeps the processor busy while it waits.
set -eEuo pipefail
ulimit -c 0
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "bridges: line $LINENO: failed: $BASH_COMMAND" >&2; cat "$work"/*.log >&2' ERR
compile=("${CXX:-g++}" -std=c++20 -O0 -pthread -Wall -Wextra -Werror -DANYIO_NET_SPLIT -I.)

fail() {
  echo "bridges: $*" >&2
  exit 1
}

printf '#define ANYIO_NET_IMPLEMENTATION\n#include "anyio_net.hpp"\n' >"$work/definitions.cpp"
"${compile[@]}" -c "$work/definitions.cpp" -o "$work/definitions.o"

# runs EXAMPLE LINES [FLAGS...]: it prints so many lines, and takes little of the processor's time.
runs() {
  local name=$1 lines=$2
  "${compile[@]}" "examples/bridges/$name.cpp" "$work/definitions.o" "${@:3}" -o "$work/$name" >"$work/$name.log" 2>&1
  /usr/bin/python3 - "$work/$name" "$lines" <<'PYTHON'
import resource, subprocess, sys
done = subprocess.run([sys.argv[1]], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
assert done.stdout.count("\n") == int(sys.argv[2]), done.stdout
used = resource.getrusage(resource.RUSAGE_CHILDREN)
assert used.ru_utime + used.ru_stime < 0.45, f"{sys.argv[1]} took {used.ru_utime + used.ru_stime} s of the processor's time"
PYTHON
}
has() { # has HEADER [FLAGS...]
  echo "#include <$1>" | "${CXX:-g++}" -std=c++20 "${@:2}" -fsyntax-only -x c++ - 2>/dev/null
}
with_package() { # with_package EXAMPLE LINES PACKAGE
  local flags
  if flags=$(pkg-config --cflags --libs "$3" 2>/dev/null); then
    # shellcheck disable=SC2086 # several words
    runs "$1" "$2" $flags
  else
    echo "skipped: $3 is not here"
  fi
}

runs foreign_coroutine 2
runs sender 1
with_package with_libuv 2 libuv
with_package with_glib 2 glib-2.0
if has asio/awaitable.hpp; then runs with_asio 2; else echo "skipped: Asio is not here"; fi
