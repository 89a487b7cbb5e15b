#!/usr/bin/env bash
# The header is installed, and a consumer finds it in every way: pkg-config, CMake's find_package,
# add_subdirectory and FetchContent, each with the TLS libraries. `make uninstall` leaves nothing.
set -eEuo pipefail
ulimit -c 0
cd "$(dirname "$0")/../.."

for program in cmake ninja pkg-config git; do
  command -v "$program" >/dev/null || { echo "skipped: $program is not here" && exit 77; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'echo "packages: line $LINENO: failed: $BASH_COMMAND" >&2; tail -n 40 "$work"/*.log >&2' ERR
export CXX=${CXX:-g++}
unset CMAKE_PREFIX_PATH PKG_CONFIG_LIBDIR PKG_CONFIG_SYSROOT_DIR DESTDIR
source=$PWD
installed=$work/installed
version=$(make --silent version)

fail() {
  echo "packages: $*" >&2
  exit 1
}
# The output of a consumer, with its TLS library.
declare -A words=([anyio_net]="" [openssl]=" with OpenSSL" [mbedtls]=" with mbedTLS")
prints() { # prints PROGRAM COMPONENT
  local printed
  printed=$("$1")
  [[ $printed == "hello from $version${words[$2]}" ]] || fail "$1 printed: $printed"
}
files() { (cd "$1" && find . -type f | sort); }

# make install, directly and below DESTDIR: equal files, which contain only the prefix.
make --silent install PREFIX="$installed" >"$work/install.log"
make --silent install PREFIX="$installed" DESTDIR="$work/staged" >>"$work/install.log"
diff -r "$installed" "$work/staged$installed"
! grep -rn '@[A-Z_]*@' "$installed/share" || fail "a template is not filled"
make --silent uninstall PREFIX="$installed" DESTDIR="$work/staged"
[[ -z $(files "$work/staged") ]] || fail "make uninstall leaves $(files "$work/staged")"

# CMake installs equal files.
cmake -S . -B "$work/own" -G Ninja >"$work/own.log"
cmake --install "$work/own" --prefix "$work/by_cmake" >>"$work/own.log"
[[ $(files "$installed") == $(files "$work/by_cmake") ]] || fail "CMake installs other files than make"
sed -i "s|$work/by_cmake|$installed|" "$work"/by_cmake/share/pkgconfig/*.pc
diff -r "$installed" "$work/by_cmake"

# pkg-config
export PKG_CONFIG_PATH=$installed/share/pkgconfig
[[ $(pkg-config --modversion anyio_net) == "$version" ]] || fail "pkg-config gives another version"
by_pkg_config() { # by_pkg_config PACKAGE COMPONENT
  # shellcheck disable=SC2046 # several words
  "$CXX" -std=c++20 tests/packages/consumer.cpp -o "$work/by_pkg_config_$2" $(pkg-config --cflags --libs "$1")
  prints "$work/by_pkg_config_$2" "$2"
}
by_pkg_config anyio_net anyio_net
by_pkg_config anyio_net-openssl openssl
by_pkg_config anyio_net-mbedtls mbedtls

# by_cmake NAME WAY COMPONENTS [ARGUMENT...]: configures, builds, and runs a program that uses the components.
by_cmake() {
  local name=$1 way=$2 components=$3 component
  cmake -S tests/packages -B "$work/$name" -G Ninja -DWAY="$way" -DONLY="${components// /;}" "${@:4}" >"$work/$name.log" 2>&1
  cmake --build "$work/$name" >>"$work/$name.log" 2>&1
  for component in $components; do prints "$work/$name/uses_$component" "$component"; done
}
# A prefix may be moved: the config finds the header beside it.
mv "$installed" "$work/moved"
by_cmake find_package find_package "anyio_net openssl mbedtls" -DCMAKE_PREFIX_PATH="$work/moved"
by_cmake add_subdirectory add_subdirectory "openssl" -DSOURCE="$source"
by_cmake fetched_folder FetchContent "mbedtls" -DFETCHCONTENT_SOURCE_DIR_ANYIO_NET="$source"

# A missing requirement is reported, also to a project of an old CMake: a version that does not match, an
# unknown component.
configures() { # configures CMAKE-LINE
  mkdir -p "$work/line"
  printf 'cmake_minimum_required(VERSION 3.5)\nproject(p LANGUAGES CXX)\n%s\n' "$1" >"$work/line/CMakeLists.txt"
  cmake -S "$work/line" -B "$work/line/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/moved" >"$work/line.log" 2>&1
}
cannot() { # cannot WORDS CMAKE-LINE
  ! configures "$2" || fail "CMake accepts $2"
  grep -q "$1" "$work/line.log" || fail "CMake does not say '$1' of $2: $(cat "$work/line.log")"
}
configures "find_package(anyio_net $version EXACT REQUIRED COMPONENTS openssl OPTIONAL_COMPONENTS gnutls)"
cannot "version: $version" "find_package(anyio_net 99 REQUIRED)"
cannot "there is no component gnutls" "find_package(anyio_net REQUIRED COMPONENTS gnutls)"

# FetchContent from a repository: of the working tree, committed or not.
mkdir "$work/repository"
cp -r CMakeLists.txt cmake LICENSE anyio_net.hpp "$work/repository/"
in_repository() { git -C "$work/repository" -c user.name=test -c user.email=test@localhost "$@"; }
in_repository init -q
in_repository add .
in_repository commit -qm "what is installed"
by_cmake fetched_repository FetchContent "anyio_net" -DREPOSITORY="file://$work/repository" \
  -DCOMMIT="$(in_repository rev-parse HEAD)"

echo "packages: pkg-config, find_package, add_subdirectory and FetchContent find $version"
