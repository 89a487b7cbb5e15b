#!/usr/bin/env bash
# The header is installed, and a consumer finds it in every way: pkg-config, CMake's find_package,
# add_subdirectory and FetchContent, Meson, each with the TLS libraries; the port for vcpkg and the recipe for Conan.
# `make uninstall` leaves nothing.
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

# The archive of a release: what follows uses its files where it can.
make --silent dist >"$work/dist.log"
(cd build/dist && sha256sum --quiet -c SHA256SUMS)
tar -xf "build/dist/anyio_net-$version.tar.gz" -C "$work"
archive=$work/anyio_net-$version

# Meson: it installs equal files, and a consumer has the archive as a subproject.
if command -v meson >/dev/null; then
  meson setup "$work/by_meson" "$archive" --prefix "$installed" >"$work/meson.log" 2>&1
  DESTDIR="$work/staged" meson install -C "$work/by_meson" >>"$work/meson.log"
  diff -r "$installed" "$work/staged$installed"
  mkdir -p "$work/meson/subprojects"
  cp tests/packages/meson/meson.build tests/packages/consumer.cpp "$work/meson/"
  ln -s "$archive" "$work/meson/subprojects/anyio_net"
  meson setup "$work/meson/build" "$work/meson" -Danyio_net:openssl=enabled -Danyio_net:mbedtls=enabled >>"$work/meson.log" 2>&1
  ninja -C "$work/meson/build" uses_openssl >>"$work/meson.log"
  prints "$work/meson/build/uses_openssl" openssl
else
  echo "skipped: meson is not here"
fi

# Conan: its recipes are Python.
PYTHONPYCACHEPREFIX=$work python3 -m py_compile packaging/conan/conanfile.py packaging/conan/test_package/conanfile.py
if command -v conan >/dev/null; then
  CONAN_HOME=$work/conan conan profile detect >"$work/conan.log" 2>&1
  CONAN_HOME=$work/conan conan create packaging/conan -s compiler.cppstd=20 >>"$work/conan.log" 2>&1
else
  echo "skipped: conan is not here"
fi

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
by_cmake fetched_folder FetchContent "mbedtls" -DFETCHCONTENT_SOURCE_DIR_ANYIO_NET="$archive"

# vcpkg: the port puts everything where CMake and pkg-config find it.
cmake -DPACKAGE="$work/vcpkg" -DBUILD="$work/vcpkg_build" -DFEATURES=openssl -P tests/packages/vcpkg.cmake >"$work/vcpkg.log" 2>&1
cmake -S tests/packages -B "$work/uses_vcpkg" -G Ninja -DWAY=find_package -DCMAKE_PREFIX_PATH="$work/vcpkg" >>"$work/vcpkg.log" 2>&1
grep -q "$work/vcpkg/include" "$work/uses_vcpkg/build.ninja" || fail "the header of the vcpkg port is not found"
[[ $(files "$work/vcpkg/share/pkgconfig" | xargs) == "./anyio_net-openssl.pc ./anyio_net.pc" ]] || fail "the port leaves a feature that is off"
(export PKG_CONFIG_PATH=$work/vcpkg/share/pkgconfig && pkg-config --cflags anyio_net-openssl | grep -q -- '-DANYIO_NET_OPENSSL')

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

echo "packages: pkg-config, find_package, add_subdirectory, FetchContent and the port for vcpkg find $version"
