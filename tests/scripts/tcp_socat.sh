#!/usr/bin/env bash
# The TCP greetings of the examples, with socat at the other end.
source "$(dirname "$0")/lib.bash"
need socat

port=$(free_port)
start server "$examples/tcp_server" "$port"
eventually tcp_listens "$port"
printf 'Socat' | socat -t 10 - "TCP4:127.0.0.1:$port" >"$work/answer"
expect "$work/answer" 'Hello, Socat\n'
if has_ipv6; then
  printf 'Socat 6' | socat -t 10 - "TCP6:[::1]:$port" >"$work/answer"
  expect "$work/answer" 'Hello, Socat 6\n'
fi

port=$(free_port)
start socat socat "TCP4-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork" 'SYSTEM:sed -e s/^/Socat-greets-/ -e q'
eventually tcp_listens "$port"
for host in 127.0.0.1 localhost; do
  "$examples/tcp_client" "$host" "$port" >"$work/answer"
  expect "$work/answer" 'Socat-greets-Client\n'
done
