#!/usr/bin/env bash
# Installs the missing packages for building, testing and measuring.
#
#   tools/make/install_deps.sh test                 for `make test`
#   tools/make/install_deps.sh check                for `make check`, which needs more
#   tools/make/install_deps.sh compilers            for `make compilers`: those that `make check` can do without
#   tools/make/install_deps.sh cross [PACKAGE...]   what runs other processors' programs, and compilers for them
#   tools/make/install_deps.sh bench                for `make bench`: the peers, and what counts
#   tools/make/install_deps.sh site                 for `make site`; `make check-site` also needs chromium
#
# Uses apt-get, as root or through sudo. When nothing is missing it asks nobody for anything, so it
# works with no network. Without the optional packages some tests of other programs' peers are skipped,
# and some figures missing.
set -euo pipefail

needed=(g++ make python3 doctest-dev libmbedtls-dev libssl-dev openssl)
optional=(socat netcat-openbsd python3-anyio curl dnsmasq-base dbus-daemon wrk haproxy)
case ${1:-test} in
  test) ;;
  check)
    needed+=(clang clang-format-16 clang-tidy libclang-rt-14-dev llvm gcovr valgrind strace cmake ninja-build pkgconf doxygen git)
    optional+=(clang-19 libc++-19-dev libc++abi-19-dev meson libasio-dev libuv1-dev qemu-user g++-s390x-linux-gnu iproute2 nftables gdb libnghttp2-dev)
    ;;
  compilers)
    needed=(g++ make python3 doctest-dev libmbedtls-dev libssl-dev openssl clang)
    optional=(clang-19 libc++-19-dev libc++abi-19-dev)
    ;;
  cross)
    needed=(g++ make python3 doctest-dev)
    optional=(qemu-user "${@:2}")
    ;;
  bench)
    needed=(g++ make python3 libasio-dev libuv1-dev libevent-dev libbenchmark-dev libmbedtls-dev libssl-dev openssl)
    optional=(strace valgrind gnuplot-nox)
    ;;
  site)
    needed=(python3 mkdocs mkdocs-material)
    optional=()
    ;;
  *)
    echo "usage: $0 [test|check|compilers|cross [PACKAGE...]|bench|site]" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install_deps: not a Debian system: install yourself what corresponds to: ${needed[*]}"
  exit 0
fi

is_installed() {
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

missing() {
  local package
  for package in "$@"; do
    is_installed "$package" || echo "$package"
  done
}

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "install_deps: neither root nor sudo: cannot run $*" >&2
    return 1
  fi
}

# Lists of packages may be absent or old: fetch them once, and only when an install fails without.
updated=no
install() {
  local command=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@")
  echo "install_deps: installing $*"
  as_root "${command[@]}" && return
  [[ $updated == no ]] || return 1
  updated=yes
  echo "install_deps: fetching the package lists"
  as_root apt-get update -q && as_root "${command[@]}"
}

mapfile -t packages < <(missing "${needed[@]}")
if ((${#packages[@]})); then
  install "${packages[@]}" || {
    echo "install_deps: could not install ${packages[*]}" >&2
    exit 1
  }
fi

for package in $(missing "${optional[@]}"); do
  install "$package" || echo "install_deps: warning: no $package; what needs it is left out" >&2
done
