#!/usr/bin/env bash
# The header as a C++20 module, which is installed beside it: it exports every name that the compiler knows to be
# public, and a program that imports it runs, with the definitions in the module and in a file of their own.
set -eEuo pipefail
ulimit -c 0
cd "$(dirname "$0")/../.."

clang=${CLANG19XX:-clang++-19}
command -v "$clang" >/dev/null || { echo "skipped: $clang is not here" && exit 77; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "module: line $LINENO: failed: $BASH_COMMAND" >&2; tail -n 40 "$work"/*.log >&2' ERR

fail() {
  echo "module: $*" >&2
  exit 1
}

make --silent install PREFIX="$work" >"$work/install.log"
header=$work/include/anyio_net.hpp
module=$work/include/anyio_net.cppm

# By the compiler: what is declared in the namespaces, but for names of namespaces and operators that are friends.
python3 tools/make/export_names.py --check
python3 tools/make/export_names.py --names | sed 's/  #.*//' | sort -u >"$work/exported"
"$clang" -std=c++20 -fsyntax-only -Xclang -ast-list -DANYIO_NET_SPLIT -DANYIO_NET_SIM -DANYIO_NET_OPENSSL -DANYIO_NET_MBEDTLS \
  -x c++ "$header" 2>"$work/list.log" | sed -nE 's/^(anyio::((sim|to_thread)::)?[^:]+)$/\1/p' |
  grep -Evx 'anyio::(detail|sim|to_thread|v1|operator==|operator<=>)' | sort -u >"$work/public"
(($(wc -l <"$work/public") > 100)) || fail "the compiler lists no names"
diff "$work/public" "$work/exported" || fail "the public names (<) are not the exported ones (>)"

compile=("$clang" -std=c++20 -O0 -Wall -Wextra -Werror)
build() { # build NAME FLAGS OBJECTS: compiles the module and a program that imports it, links and runs it
  local name=$1
  # shellcheck disable=SC2086 # several words
  "${compile[@]}" $2 -x c++-module "$module" --precompile -o "$work/$name.pcm" >>"$work/$name.log" 2>&1
  "${compile[@]}" -c "$work/$name.pcm" -o "$work/$name.module.o" >>"$work/$name.log" 2>&1
  # shellcheck disable=SC2086
  "${compile[@]}" ${2//ANYIO_NET/WITH} "-fmodule-file=anyio_net=$work/$name.pcm" -c tests/packages/import.cpp -o "$work/$name.o" \
    >>"$work/$name.log" 2>&1
  # shellcheck disable=SC2086
  "${compile[@]}" "$work/$name.o" "$work/$name.module.o" $3 -pthread -lssl -lcrypto -o "$work/$name" >>"$work/$name.log" 2>&1
  "$work/$name" || fail "$name: exit status $?"
}
[[ $(build all "-DANYIO_NET_SIM -DANYIO_NET_OPENSSL" "") == "imported with a simulation with OpenSSL" ]]

printf '#define ANYIO_NET_IMPLEMENTATION\n#include "%s"\n' "$header" >"$work/definitions.cpp"
"${compile[@]}" -DANYIO_NET_SPLIT -c "$work/definitions.cpp" -o "$work/definitions.o" >"$work/definitions.log" 2>&1
[[ $(build split "-DANYIO_NET_SPLIT" "$work/definitions.o") == "imported" ]]
echo "module: $(wc -l <"$work/exported") names are exported"
