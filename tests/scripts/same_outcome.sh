#!/usr/bin/env bash
# The programs in tests/outcome print equal output with and without exceptions and RTTI, with both compilers.
# `tests/scripts/same_outcome.sh NAME...` builds only those.
set -eEuo pipefail
ulimit -c 0
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
programs=("$@")
((${#programs[@]})) || mapfile -t programs < <(basename -s .cpp tests/outcome/*.cpp)

declare -A builds=(
  [gcc]="${CXX:-g++} -O1"
  [gcc-noexc]="${CXX:-g++} -O0 -fno-exceptions -fno-rtti"
)
if command -v "${CLANGXX:-clang++}" >/dev/null; then
  builds[clang]="${CLANGXX:-clang++} -O0"
  builds[clang-noexc]="${CLANGXX:-clang++} -O0 -fno-exceptions -fno-rtti"
fi

# One unit of all programs, each in a namespace of its own: so the header is compiled once for each build.
joined=$work/joined.cpp
{
  echo '#include "trace.hpp"'
  (cd tests/outcome && grep -h '^#include <' "${programs[@]/%/.cpp}" | sort -u)
  for program in "${programs[@]}"; do
    echo "namespace of_$program {"
    echo "#line 1 \"tests/outcome/$program.cpp\""
    sed -e 's/^#include .*//' -e 's/^int main() /void program() /' "tests/outcome/$program.cpp"
    echo "}"
  done
  echo 'int main(int, char** arguments) {'
  echo '  const std::string_view name = arguments[1];'
  for program in "${programs[@]}"; do echo "  if (name == \"$program\") return of_$program::program(), 0;"; done
  echo '  return 2;'
  echo '}'
} >"$joined"

# outcomes BUILD: each program's output and how it ended, in a file
outcomes() {
  local program status
  # shellcheck disable=SC2086 # several words
  if ! ${builds[$1]} -std=c++20 -pthread -Wall -Wextra -I. -Itests/outcome "$joined" -o "$work/$1" \
    >"$work/$1.compiler" 2>&1; then
    for program in "${programs[@]}"; do
      { echo "$1 does not compile it:" && cat "$work/$1.compiler"; } >"$work/$program.$1.outcome"
    done
    return
  fi
  for program in "${programs[@]}"; do
    status=0
    timeout 60 "$work/$1" "$program" >"$work/$program.$1.outcome" 2>&1 || status=$?
    echo "exit status $status" >>"$work/$program.$1.outcome"
  done
}
for build in "${!builds[@]}"; do
  outcomes "$build" &
  while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
done
wait

failures=0
for program in "${programs[@]}"; do
  for build in "${!builds[@]}"; do
    if [[ $(tail -n 1 "$work/$program.$build.outcome") != "exit status 0" ]]; then
      echo "same_outcome: $program by $build fails:"
      cat "$work/$program.$build.outcome"
      failures=$((failures + 1))
    elif grep -n 'not here' "$work/$program.$build.outcome"; then
      echo "same_outcome: $program by $build goes where it must not:"
      cat "$work/$program.$build.outcome"
      failures=$((failures + 1))
    elif ! diff -u --label gcc --label "$build" \
      "$work/$program.gcc.outcome" "$work/$program.$build.outcome"; then
      echo "same_outcome: $program by gcc and by $build differ"
      failures=$((failures + 1))
    fi
  done
done
[[ -z ${SHOW:-} ]] || cat "$work"/*.gcc.outcome
((failures == 0)) && echo "same_outcome: ${#programs[@]} programs, ${#builds[@]} builds each"
exit $((failures > 0))
