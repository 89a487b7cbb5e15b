#!/usr/bin/env bash
# Builds all fuzz targets as OSS-Fuzz does: with $CXX, $CXXFLAGS and $LIB_FUZZING_ENGINE into $OUT,
# each with its seed corpus and its dictionary beside it. All of these may be missing:
#
#   fuzz/build.sh [TARGET...]                          libFuzzer where $CXX has it, else a plain main
#   LIB_FUZZING_ENGINE=standalone CXX=g++ fuzz/build.sh   a plain main: replays files, creates random input
#   CXX=afl-clang-fast++ LIB_FUZZING_ENGINE=standalone fuzz/build.sh   for AFL++
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${CXX:=clang++}"
: "${OUT:=build/fuzz}"
: "${WORK:=$OUT/work}"
mkdir -p "$OUT" "$WORK"

if [[ -z ${CXXFLAGS+x} ]]; then
  CXXFLAGS="-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
  # clang 14 cannot check function types of coroutines that several units share.
  if "$CXX" --version | grep -q clang; then CXXFLAGS+=" -fno-sanitize=function"; fi
fi
if [[ -z ${LIB_FUZZING_ENGINE:-} ]]; then
  probe='extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }'
  if echo "$probe" | "$CXX" -fsanitize=fuzzer -x c++ - -o "$WORK/probe" 2>/dev/null; then
    LIB_FUZZING_ENGINE=-fsanitize=fuzzer
    CXXFLAGS+=" -fsanitize=fuzzer-no-link"
  else
    LIB_FUZZING_ENGINE=standalone
  fi
fi

compile() {
  # shellcheck disable=SC2086  # flags are lists of words
  "$CXX" -std=c++20 -pthread $CXXFLAGS -DANYIO_NET_SIM -DANYIO_NET_SPLIT "${macros[@]}" -I. -Ifuzz "$@"
}

# The TLS targets need mbedTLS; in a container of OSS-Fuzz, whose programs run elsewhere, as archives.
macros=()
libraries=()
if echo '#include <mbedtls/ssl.h>' | "$CXX" -E -x c++ - >/dev/null 2>&1; then
  macros=(-DANYIO_NET_MBEDTLS)
  libraries=(-lmbedtls -lmbedx509 -lmbedcrypto)
  if [[ -n ${FUZZING_ENGINE:-} ]]; then libraries=('-Wl,-Bstatic' "${libraries[@]}" '-Wl,-Bdynamic'); fi
fi

targets=("$@")
if ((${#targets[@]} == 0)); then
  for source in fuzz/*.cpp; do
    target=$(basename "$source" .cpp)
    if [[ $target == tls_* && ${#macros[@]} == 0 ]]; then
      echo "fuzz/build.sh: no mbedTLS: without $target" >&2
      continue
    fi
    # Is meant to crash, and compares with real sockets: neither is for a service that fuzzes.
    if [[ -n ${FUZZING_ENGINE:-} && ($target == protocol_bug || $target == sim_system) ]]; then continue; fi
    targets+=("$target")
  done
fi

compile -c fuzz/support/implementation.cpp -o "$WORK/implementation.o"
engine=$LIB_FUZZING_ENGINE
if [[ $engine == standalone ]]; then
  compile -c fuzz/support/standalone_main.cpp -o "$WORK/standalone_main.o"
  engine=$WORK/standalone_main.o
fi

for target in "${targets[@]}"; do
  echo "  $target"
  compile -c "fuzz/$target.cpp" -o "$WORK/$target.o"
  # shellcheck disable=SC2086
  "$CXX" -pthread $CXXFLAGS "$WORK/$target.o" "$WORK/implementation.o" $engine "${libraries[@]}" -o "$OUT/$target"
  if [[ -d fuzz/corpus/$target ]] && command -v zip >/dev/null; then
    rm -f "$OUT/${target}_seed_corpus.zip"
    zip -q -j "$OUT/${target}_seed_corpus.zip" "fuzz/corpus/$target"/*
  fi
  if [[ -f fuzz/$target.dict ]]; then cp "fuzz/$target.dict" "$OUT/"; fi
done
