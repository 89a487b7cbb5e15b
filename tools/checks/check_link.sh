#!/usr/bin/env bash
# Links pairs of translation units that share no symbol of the library: units with equal settings must
# link, units that disagree on a macro that changes a layout must not. The macros are read from the
# header: each has an object named MACRO_must_agree.
#
#   tools/checks/check_link.sh [COMPILER...]      default: g++ clang++
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

cat >"$work/main.cpp" <<'CODE'
#include "anyio_net.hpp"
int other();
int main() { return other(); }
CODE
cat >"$work/other.cpp" <<'CODE'
#include "anyio_net.hpp"
int other() { return 0; }
CODE
# Uses a function of the library, so that split units need the definitions.
cat >"$work/uses.cpp" <<'CODE'
#include "anyio_net.hpp"
int other() { return anyio::error(anyio::errc::timed_out).message().empty(); }
CODE

fail() {
  echo "check_link: $compiler: $1" >&2
  failures=$((failures + 1))
}

# compile SOURCE OBJECT [FLAG...]
compile() {
  "$compiler" -std=c++20 -O0 -I. -c "$work/$1.cpp" -o "$work/$2.o" "${@:3}"
}

# link OBJECT...; the linker's output is kept
link() {
  "$compiler" -pthread "${@/#/$work/}" -o "$work/program" 2>"$work/linker"
}

must_not_link() {
  local what=$1
  shift
  if link "$@"; then
    fail "$what: linked, and must not"
  elif ! grep -q must_agree "$work/linker"; then
    fail "$what: did not link, but the linker does not name the macro:"
    cat "$work/linker" >&2
  fi
}

must_run() {
  local what=$1
  shift
  if ! link "$@"; then
    fail "$what: does not link:"
    cat "$work/linker" >&2
  elif ! "$work/program"; then
    fail "$what: does not run"
  fi
}

macros=$(grep -oE 'ANYIO_NET_\w+_must_agree' anyio_net.hpp | sed 's/_must_agree$//' | sort -u)
compilers=("$@")
((${#compilers[@]})) || compilers=(g++ clang++)

for compiler in "${compilers[@]}"; do
  compile main main
  compile other other
  compile uses uses
  must_run "two units" main.o other.o
  must_run "two units, one of which uses the library" main.o uses.o

  compile other no_exceptions -fno-exceptions
  must_not_link "-fno-exceptions in one unit" main.o no_exceptions.o
  for macro in $macros; do
    compile other with_macro "-D$macro"
    must_not_link "$macro in one unit" main.o with_macro.o
  done

  compile main split_main -DANYIO_NET_SPLIT
  compile uses split_uses -DANYIO_NET_SPLIT
  compile other split_definitions -DANYIO_NET_SPLIT -DANYIO_NET_IMPLEMENTATION -Dother=unused
  must_run "ANYIO_NET_SPLIT with one ANYIO_NET_IMPLEMENTATION" split_main.o split_uses.o split_definitions.o
  if link split_main.o split_uses.o; then
    fail "ANYIO_NET_SPLIT without ANYIO_NET_IMPLEMENTATION: linked, so something is defined in the header"
  fi
done

((failures == 0)) && echo "check_link: ${#compilers[@]} compilers, all checks passed"
exit $((failures > 0))
