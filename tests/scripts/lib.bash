# Sourced first by the scripts beside it. Gives each its own directory, ends the processes it started, and
# helps to wait for events, within a deadline, never for a fixed time.

# Each script has a minute; the time limit ends its processes too.
if [[ -z ${LIMITED:-} ]]; then
  LIMITED=1 exec timeout --kill-after=5 60 bash "$0" "$@"
fi

set -eEuo pipefail
ulimit -c 0
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Another mode's programs: `PROGRAMS=build/clang-asan tests/scripts/tcp_socat.sh`
examples=${PROGRAMS:-build/gcc}/examples
peers=${PROGRAMS:-build/gcc}/tests/peers
python=/usr/bin/python3 # the one for which Debian packages modules
work=$(mktemp -d)
servers=()

fail() {
  echo "${0##*/}: $*" >&2
  exit 1
}

skip() {
  echo "skipped: $*"
  exit 77
}

need() {
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || skip "$program cannot be installed"
  done
}
need_netcat() { [[ $(nc -h 2>&1) == *OpenBSD* ]] || skip "netcat-openbsd cannot be installed"; }
need_anyio() { "$python" -c 'import anyio' 2>/dev/null || skip "python3-anyio cannot be installed"; }

[[ -x $examples/tcp_client ]] || fail "no programs in $examples: make programs"

# start NAME COMMAND…: runs it in the background until the script ends. Its output is in $work/NAME, its
# errors are shown if the script fails. It must not end before the script does.
start() {
  local name=$1
  shift
  "$@" >"$work/$name" 2>"$work/$name.err" </dev/null &
  servers+=("$!")
}

finish() {
  local status=$? server
  trap - EXIT ERR
  set +e
  for server in "${servers[@]}"; do
    if ! kill "$server" 2>/dev/null && ((status == 0)); then
      echo "${0##*/}: a server ended early" >&2
      status=1
    fi
  done
  jobs -p | xargs -r kill 2>/dev/null
  wait
  if ((status != 0 && status != 77)); then tail -n 50 "$work"/*.err >&2 2>/dev/null; fi
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 143' TERM INT
trap 'echo "${0##*/}:$LINENO: failed: $BASH_COMMAND" >&2' ERR

# eventually COMMAND…: repeats it until it succeeds.
eventually() {
  local deadline=$((SECONDS + 15))
  until "$@"; do
    ((SECONDS < deadline)) || fail "timed out waiting for: $*"
    sleep 0.02
  done
}

# The kernel's view of sockets; reading it disturbs no server, as a probing connection would.
in_proc_net() { # in_proc_net KIND PORT STATE
  grep -Eqs "^ *[0-9]+: [0-9A-F]+:$(printf %04X "$2") [0-9A-F:]+ $3 " "/proc/net/$1" "/proc/net/${1}6"
}
tcp_listens() { in_proc_net tcp "$1" 0A; }
udp_is_bound() { in_proc_net udp "$1" 07; }
in_proc_net_unix() { # in_proc_net_unix PATH CONDITION
  awk -v path="$1" "\$8 == path && $2 {found = 1} END {exit !found}" /proc/net/unix
}
unix_listens() { in_proc_net_unix "$1" '$4 == "00010000"'; }
unix_is_bound() { in_proc_net_unix "$1" 1; }

# Below the range from which the kernel takes ports for others.
free_port() {
  local port
  for (( ; ; )); do
    port=$((10000 + RANDOM % 20000))
    in_proc_net tcp "$port" '..' || in_proc_net udp "$port" '..' || break
  done
  echo "$port"
}
has_ipv6() { grep -Eqs '^0{31}1 ' /proc/net/if_inet6; }

# The port on which an echo server says it listens.
printed_port() {
  eventually grep -qs '^listening on port [0-9]*$' "$work/$1"
  sed -n 's/^listening on port //p' "$work/$1"
}

# expect FILE TEXT: the file contains the text, with printf's escapes.
expect() {
  cmp -s "$1" <(printf '%b' "$2") || fail "expected $(printf %q "$2"), got $(head -c 500 "$1" | od -c)"
}

# random_file MEBIBYTES FILE
random_file() { head -c "$(($1 << 20))" /dev/urandom >"$2"; }
same() { cmp "$1" "$2" || fail "$2 is not $1"; }
