#!/usr/bin/env bash
# The TCP greetings of the examples, with netcat at the other end.
source "$(dirname "$0")/lib.bash"
need_netcat

port=$(free_port)
start server "$examples/tcp_server" "$port"
eventually tcp_listens "$port"
printf 'Netcat' | nc -N 127.0.0.1 "$port" >"$work/answer"
expect "$work/answer" 'Hello, Netcat\n'
if has_ipv6; then
  printf 'Netcat 6' | nc -N ::1 "$port" >"$work/answer"
  expect "$work/answer" 'Hello, Netcat 6\n'
fi

# A client that leaves without sending does not affect others.
nc -N 127.0.0.1 "$port" </dev/null >"$work/answer"
expect "$work/answer" ''
printf 'again' | nc -N 127.0.0.1 "$port" >"$work/answer"
expect "$work/answer" 'Hello, again\n'

port=$(free_port)
printf 'from netcat\n' | nc -l -N 127.0.0.1 "$port" >"$work/heard" &
netcat=$!
eventually tcp_listens "$port"
"$examples/tcp_client" 127.0.0.1 "$port" >"$work/answer"
expect "$work/answer" 'from netcat\n'
wait "$netcat"
expect "$work/heard" 'Client\n'

# Without a listener the client reports that, and fails.
if "$examples/tcp_client" 127.0.0.1 "$port" 2>"$work/client.err"; then fail "connected without a listener"; fi
grep -q 'connect: connection refused (ECONNREFUSED)' "$work/client.err"
