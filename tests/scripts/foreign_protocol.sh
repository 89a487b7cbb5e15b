#!/usr/bin/env bash
# HTTP/2 by libnghttp2 between a server and a client in a simulation: tests/foreign/nghttp2.cpp finds nothing wrong, and
# finds the deadlock of a driver that does not receive while it sends.
set -eEuo pipefail
ulimit -c 0
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "foreign_protocol: line $LINENO: failed: $BASH_COMMAND" >&2; cat "$work"/*.log >&2' ERR

if ! echo '#include <nghttp2/nghttp2.h>' | "${CXX:-g++}" -E -x c++ - >"$work/probe.log" 2>&1; then
  echo "skipped: libnghttp2-dev cannot be installed"
  exit 77
fi
"${CXX:-g++}" -std=c++20 -O0 -pthread -Wall -Wextra -Werror -I. tests/foreign/nghttp2.cpp -lnghttp2 -o "$work/nghttp2" \
  >"$work/compiler.log" 2>&1
timeout 120 "$work/nghttp2" >"$work/all.log" 2>&1
timeout 120 "$work/nghttp2" naive >"$work/naive.log" 2>&1
grep -q 'send, .* bytes' "$work/naive.log"
echo "foreign_protocol: $(cat "$work/all.log")"
