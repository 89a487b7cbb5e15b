#!/usr/bin/env bash
# Programs with common mistakes: the first error, of each compiler, says in plain words what to do. Each file in
# tests/mistakes has the words in a comment, EXPECT.
# `tests/scripts/mistakes.sh NAME...` compiles only those.
set -eEuo pipefail
ulimit -c 0
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
programs=("$@")
((${#programs[@]})) || mapfile -t programs < <(basename -s .cpp tests/mistakes/*.cpp)
flags=(-std=c++20 -pthread -DANYIO_NET_SPLIT -Werror=unused-result)
compilers=("${CXX:-g++}")
if command -v "${CLANGXX:-clang++}" >/dev/null; then compilers+=("${CLANGXX:-clang++}"); fi

failures=0
for compiler in "${compilers[@]}"; do
  # The header is compiled once: the programs are small.
  mkdir "$work/$compiler"
  first=$work/$compiler/first.hpp
  echo '#include "anyio_net.hpp"' >"$first"
  "$compiler" "${flags[@]}" -I. -x c++-header "$first" -o "$first.gch"
  for program in "${programs[@]}"; do
    file=tests/mistakes/$program.cpp
    expected=$(sed -n 's|.*// EXPECT: ||p' "$file")
    error=$("$compiler" "${flags[@]}" -I. -include "$work/$compiler/first.hpp" -fsyntax-only "$file" 2>&1 | grep --max-count=1 'error: ' || true)
    if [[ -z $expected || $error != *"$expected"* ]]; then
      echo "$compiler, $file: expected '$expected', not '${error:-no error}'" >&2
      failures=$((failures + 1))
    fi
  done
done
echo "mistakes: ${#programs[@]} programs, ${#compilers[@]} compilers, $failures failures"
((failures == 0))
