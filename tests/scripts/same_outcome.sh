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

# outcome PROGRAM BUILD: its output and how it ended, in a file
outcome() {
  local program=$work/$1.$2
  # shellcheck disable=SC2086 # several words
  if ${builds[$2]} -std=c++20 -pthread -Wall -Wextra -I. "tests/outcome/$1.cpp" -o "$program" \
    >"$program.compiler" 2>&1; then
    local status=0
    timeout 60 "$program" >"$program.outcome" 2>&1 || status=$?
    echo "exit status $status" >>"$program.outcome"
    rm "$program"
  else
    { echo "$2 does not compile it:" && cat "$program.compiler"; } >"$program.outcome"
  fi
}
for program in "${programs[@]}"; do
  for build in "${!builds[@]}"; do
    outcome "$program" "$build" &
    while (($(jobs -rp | wc -l) >= $(nproc))); do wait -n; done
  done
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
