#!/usr/bin/env bash
# tools/debug/anyio_net_gdb.py on examples: values in plain form, and the tasks of a loop as a tree with the lines
# where they are suspended, of a running process and of its core file, compiled by g++ and clang.
LIMITED=1 # it compiles, which may take longer than a minute
source "$(dirname "$0")/lib.bash"
need gdb "$python"

debug() { gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'source tools/debug/anyio_net_gdb.py' "$@"; }
holds() { grep -qF -- "$2" "$1" || { cat "$1" >&2 && fail "no '$2'"; }; }
line_of() { grep -n -m1 -F "$1" "$2" | cut -d: -f1; }

cat >"$work/values.cpp" <<'CPP'
#include "anyio_net.hpp"

void all_values(anyio::error failure, anyio::result<int> seven, anyio::result<> failed, anyio::ip_endpoint six,
                anyio::const_buffer bytes, anyio::tcp_stream& closed) {
  asm volatile("" : : "g"(&failure), "g"(&seven), "g"(&failed), "g"(&six), "g"(&bytes), "g"(&closed) : "memory");
}

int main() {
  const anyio::error failure(anyio::errc::broken_resource, 104, "receive");
  anyio::tcp_stream closed;
  all_values(failure, 7, failure, *anyio::ip_endpoint::parse("[fe80::1]:80"), "text\n", closed);
}
CPP
"${CXX:-g++}" -std=c++20 -g -O0 -pthread -I. "$work/values.cpp" -o "$work/values"
debug -ex 'break all_values' -ex run -ex 'print failure' -ex 'print seven' -ex 'print failed' -ex 'print six' \
  -ex 'print six.address' -ex 'print bytes' -ex 'print closed' "$work/values" >"$work/printed" 2>&1 ||
  skip "gdb cannot run a program here: $(tail -n 1 "$work/printed")"
grep -q 'Operation not permitted\|ptrace' "$work/printed" && skip "gdb cannot run a program here"
holds "$work/printed" '$1 = receive: broken_resource (errno 104)'
holds "$work/printed" '$2 = value = {value = 7}'
holds "$work/printed" '$3 = error receive: broken_resource (errno 104)'
holds "$work/printed" '$4 = [fe80::1]:80'
holds "$work/printed" '$5 = fe80::1'
holds "$work/printed" '$6 = 5 bytes "text\x0a"'
holds "$work/printed" ': closed'

compilers=("${CXX:-g++}")
if command -v "${CLANGXX:-clang++}" >/dev/null; then compilers+=("${CLANGXX:-clang++}"); fi
source=examples/echo_coroutine.cpp
for compiler in "${compilers[@]}"; do
  "$compiler" -std=c++20 -g -O0 -pthread -I. "$source" -o "$work/echo-$compiler"
  start "server-$compiler" "$work/echo-$compiler" 0
  pid=${servers[-1]}
  exec 9<>"/dev/tcp/127.0.0.1/$(printed_port "server-$compiler")"
  echo hello >&9
  read -r answer <&9
  [[ $answer == hello ]]
  debug -p "$pid" -ex 'anyio tasks' -ex "generate-core-file $work/core-$compiler" >"$work/tasks" 2>&1
  grep -q 'ptrace: Operation not permitted' "$work/tasks" && skip "gdb may not attach to a process here"
  debug "$work/echo-$compiler" "$work/core-$compiler" -ex 'anyio tasks' >"$work/tasks-of-core" 2>&1
  for seen in "$work/tasks" "$work/tasks-of-core"; do
    grep -qE "^ +task echo\(.*\) at .*$source:$(line_of 'co_await client.receive_view' "$source")$" "$seen" ||
      { cat "$seen" >&2 && fail "$compiler, ${seen##*/}: no line of the handler"; }
    grep -qE "^ +receive_view \(fd [0-9]+, 127.0.0.1:[0-9]+ to 127.0.0.1:[0-9]+\)$" "$seen" ||
      { cat "$seen" >&2 && fail "$compiler, ${seen##*/}: no operation"; }
    grep -qE "^ *task serve\(.*\) at .*$source:$(line_of 'co_await anyio::serve_until' "$source")$" "$seen" ||
      { cat "$seen" >&2 && fail "$compiler, ${seen##*/}: no line of the server"; }
    holds "$seen" 'child of a group'
    holds "$seen" 'accept (fd '
  done
  exec 9>&-
done
